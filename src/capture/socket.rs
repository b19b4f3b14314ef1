//! System calls on sockets that the standard library does not make.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

/// What a call returned, unless it failed.
pub(super) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new socket.
pub(super) fn open(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: a plain call; what it returns is checked to be a descriptor, new and ours.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol))?)) }
}

pub(super) fn bind<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the address is valid for its size; the kernel only reads it.
    check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), size) })?;
    Ok(())
}

pub(super) fn set<T>(socket: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the value is valid for its size; the kernel only reads it.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, size) })?;
    Ok(())
}

/// Reads an option of a type for which any bytes are a value.
pub(super) fn get<T: Copy>(socket: &OwnedFd, level: c_int, option: c_int, value: &mut T) -> io::Result<()> {
    let mut size = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_mut(value).cast();
    // SAFETY: the value is valid for its size, and all callers pass plain numbers.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, value, &raw mut size) })?;
    Ok(())
}

/// Waits until there is something to read.
pub(super) fn wait(socket: &OwnedFd, time: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    match check(unsafe { libc::poll(&raw mut poll, 1, time.as_millis() as c_int) }) {
        Err(cause) if cause.kind() == io::ErrorKind::Interrupted => return Ok(()),
        result => result?,
    };
    if poll.revents & libc::POLLERR != 0 {
        let mut error: c_int = 0;
        get(socket, libc::SOL_SOCKET, libc::SO_ERROR, &mut error)?;
        // An interface that goes down is no reason to stop: the others are still there.
        if error != 0 && error != libc::ENETDOWN {
            return Err(io::Error::from_raw_os_error(error));
        }
    }
    Ok(())
}

/// Memory shared with the kernel: mapped as long as this lives.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread. Who may touch its bytes is up to its owner.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes of what a socket offers at `offset`.
    pub(super) fn of(socket: &OwnedFd, length: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(length, libc::MAP_SHARED, socket.as_raw_fd(), offset)
    }

    /// Maps memory of our own.
    pub(super) fn anonymous(length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn map(length: usize, flags: c_int, descriptor: c_int, offset: libc::off_t) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at a place that the kernel picks.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, descriptor, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast::<c_void>(), self.length) };
    }
}
