//! The way of a stream out of the container: `sniff-agent stream` hands over where it is to go, and the daemon writes there itself.
//!
//! A process in between would copy every byte twice more than capturing it does. So a descriptor comes with the request
//! (`SCM_RIGHTS`, unix(7)), and the command only waits.
#![allow(unsafe_code, reason = "the standard library passes no descriptors")]

use std::ffi::{c_int, c_short};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What a message about one descriptor takes.
const LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<c_int>();

/// Such a message.
#[repr(C)]
struct Message {
    head: libc::cmsghdr,
    descriptor: c_int,
}

/// The same pipe, so opened that a full one makes no writer wait. Whoever else has it open is not affected.
///
/// # Errors
/// If the kernel does not let this process open it.
pub(super) fn without_waiting(pipe: BorrowedFd<'_>) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Sends a descriptor with the first of the bytes; returns how many went.
///
/// # Errors
/// What the kernel says.
pub(super) fn send(connection: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    exchange(bytes.as_ptr().cast_mut(), bytes.len(), descriptor.as_raw_fd(), |message| {
        // SAFETY: the message is whole, and the kernel only reads it and what it points to.
        unsafe { libc::sendmsg(connection.as_raw_fd(), message, libc::MSG_NOSIGNAL) }
    })
    .map(|(count, _)| count)
}

/// Reads a connection, and keeps the last descriptor that comes along.
pub(super) struct Receiver<'a> {
    connection: &'a UnixStream,
    pub(super) descriptor: Option<OwnedFd>,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(connection: &'a UnixStream) -> Self {
        Self { connection, descriptor: None }
    }
}

impl Read for Receiver<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (count, descriptor) = exchange(bytes.as_mut_ptr(), bytes.len(), -1, |message| {
            // SAFETY: the message is whole; the kernel writes to no more than it is told of.
            unsafe { libc::recvmsg(self.connection.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) }
        })?;
        if descriptor >= 0 {
            // SAFETY: the kernel has just opened it for us.
            self.descriptor = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
        Ok(count)
    }
}

/// Calls with a message of those bytes and that descriptor; returns how many bytes went, and the descriptor in the message
/// then: what came, or -1.
fn exchange(
    bytes: *mut u8,
    length: usize,
    descriptor: c_int,
    call: impl FnOnce(*mut libc::msghdr) -> isize,
) -> io::Result<(usize, c_int)> {
    // SAFETY: all zeros is a valid value of these structures, of which musl's have padding that cannot be named.
    let (mut control, mut message): (Message, libc::msghdr) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    control.head.cmsg_len = LENGTH as _;
    control.head.cmsg_level = libc::SOL_SOCKET;
    control.head.cmsg_type = libc::SCM_RIGHTS;
    control.descriptor = descriptor;
    let mut part = libc::iovec { iov_base: bytes.cast(), iov_len: length };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // Room for one: the kernel closes what does not fit.
    message.msg_controllen = LENGTH as _;
    let count = call(&raw mut message);
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    Ok((count, control.descriptor))
}

/// Where a stream goes, as long as its client is there.
pub(super) struct Output<'a> {
    file: File,
    connection: &'a UnixStream,
    /// How long it may take nothing.
    patience: Duration,
}

impl<'a> Output<'a> {
    pub(super) fn new(file: OwnedFd, connection: &'a UnixStream, patience: Duration) -> Self {
        Self { file: file.into(), connection, patience }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// [`ErrorKind::BrokenPipe`] if nobody reads it or the client is gone, [`ErrorKind::TimedOut`] if it takes nothing for long.
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&self.file).write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => self.wait()?,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) => {
                    return Err(io::Error::new(cause.kind(), format!("cannot write to stdout: {cause}")));
                }
            }
        }
        Ok(())
    }

    /// True if the client is gone, rather than done: whoever reads what it has handed over must not take that for whole.
    pub(super) fn is_abandoned(&self) -> bool {
        matches!(self.poll(0, Duration::ZERO), Ok((_, true)))
    }

    /// Waits until it takes more.
    fn wait(&self) -> io::Result<()> {
        match self.poll(libc::POLLOUT, self.patience)? {
            (_, true) => Err(ErrorKind::BrokenPipe.into()),
            (false, _) => {
                let silence = format!("nobody has read stdout for {} s", self.patience.as_secs());
                Err(io::Error::new(ErrorKind::TimedOut, silence))
            }
            _ => Ok(()),
        }
    }

    /// Waits for these events, an error, or the client's end; whether any came, and whether that.
    fn poll(&self, events: c_short, time: Duration) -> io::Result<(bool, bool)> {
        let of = |descriptor: BorrowedFd<'_>, events| libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 };
        let mut polls = [of(self.connection.as_fd(), 0), of(self.file.as_fd(), events)];
        let time = c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: so many structures; the descriptors are open as long as they are borrowed.
        match unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as _, time) } {
            count @ 0.. => Ok((count > 0, polls[0].revents & libc::POLLHUP != 0)),
            _ => match io::Error::last_os_error() {
                cause if cause.kind() == ErrorKind::Interrupted => Ok((true, false)),
                cause => Err(cause),
            },
        }
    }
}
