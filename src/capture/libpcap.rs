//! Frames of this network namespace through libpcap: one handle for each interface, since frames of its device `any` come
//! without their Ethernet header.
//!
//! # What differs
//!
//! - Each interface has a ring of its own, of the size that is asked for: libpcap cuts it into few large blocks, and a part of
//!   one would lose packets. An interface that comes later is heard from up to a quarter of a second later on.
//! - Frames of one interface are in order; those of two may be off by as long as the kernel keeps a block, 20 ms.
//! - libpcap does not say which way a frame went: it was sent if it bears the interface's own address as its source. Without
//!   an address, as in a tunnel, that is not known.
//! - What is captured is what a filter for Ethernet makes of it; on other interfaces it runs in user space.
#![allow(unsafe_code, reason = "libpcap is a C library")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::io;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use super::af_xdp::is_ours;
use super::backend::{BATCH, Backend, Frame, MOST_SNAPLEN, Unusable, Wanted};
use super::bpf::{self, Program};
use super::interface::{self, Interface, LINK_ETHERNET, LINK_RAW_IP};
use super::interpreter::{Filter, View};
use super::pcapng::Direction;

/// How often new interfaces are looked for.
const LOOK: Duration = Duration::from_millis(250);

/// After this long the kernel hands over a block that is not full, in milliseconds.
const RETIRE: c_int = 20;

/// Length of the messages that libpcap writes into a buffer of the caller's.
const MESSAGE: usize = 256;

// What libpcap returns and takes, as in pcap/pcap.h.
const OK: c_int = 0;
const PERMISSION_DENIED: c_int = -8;
const CANNOT_CAPTURE: c_int = -11;
const NANOSECONDS: c_int = 1;
const LINK_TYPE_ETHERNET: c_int = 1;
const LINK_TYPE_RAW: c_int = 12;

/// A handle of libpcap's.
#[repr(C)]
struct Pcap {
    _opaque: [u8; 0],
}

#[repr(C)]
struct Header {
    time: libc::timeval,
    captured: u32,
    len: u32,
}

#[repr(C)]
struct Statistics {
    received: c_uint,
    dropped: c_uint,
    dropped_by_interface: c_uint,
}

/// A program, as libpcap takes it.
#[repr(C)]
struct Instructions {
    count: c_uint,
    first: *mut libc::sock_filter,
}

#[link(name = "pcap")]
unsafe extern "C" {
    fn pcap_lib_version() -> *const c_char;
    fn pcap_create(device: *const c_char, message: *mut c_char) -> *mut Pcap;
    fn pcap_set_snaplen(handle: *mut Pcap, snaplen: c_int) -> c_int;
    fn pcap_set_timeout(handle: *mut Pcap, milliseconds: c_int) -> c_int;
    fn pcap_set_buffer_size(handle: *mut Pcap, bytes: c_int) -> c_int;
    fn pcap_set_tstamp_precision(handle: *mut Pcap, precision: c_int) -> c_int;
    fn pcap_activate(handle: *mut Pcap) -> c_int;
    fn pcap_setnonblock(handle: *mut Pcap, nonblock: c_int, message: *mut c_char) -> c_int;
    fn pcap_setfilter(handle: *mut Pcap, program: *mut Instructions) -> c_int;
    fn pcap_datalink(handle: *mut Pcap) -> c_int;
    fn pcap_get_selectable_fd(handle: *mut Pcap) -> c_int;
    fn pcap_next_ex(handle: *mut Pcap, header: *mut *mut Header, data: *mut *const u8) -> c_int;
    fn pcap_stats(handle: *mut Pcap, statistics: *mut Statistics) -> c_int;
    fn pcap_geterr(handle: *mut Pcap) -> *const c_char;
    fn pcap_close(handle: *mut Pcap);
}

/// A capture on all interfaces.
#[derive(Debug)]
pub struct Capture {
    name: &'static str,
    handles: Vec<Handle>,
    program: Program,
    filter: Filter,
    snaplen: u32,
    ring: usize,
    /// Frames dropped on interfaces that are gone.
    dropped: u64,
    looked: Instant,
}

/// The version of the libpcap that this binary is linked with, in its own words; empty in a binary without.
#[must_use]
pub fn version() -> String {
    // SAFETY: it returns a string that lives as long as the process.
    unsafe { CStr::from_ptr(pcap_lib_version()) }.to_string_lossy().into_owned()
}

/// Begins to capture.
///
/// # Errors
/// [`Unusable`] if libpcap refuses.
pub fn open(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>, Unusable> {
    open_as("libpcap", wanted)
}

/// The same under another name.
///
/// # Errors
/// [`Unusable`] if libpcap refuses.
pub fn open_as(name: &'static str, wanted: &Wanted<'_>) -> Result<Box<dyn Backend>, Unusable> {
    let mut capture = Capture {
        name,
        handles: Vec::new(),
        program: wanted.filter.clone(),
        filter: Filter::new(wanted.filter),
        snaplen: if wanted.snaplen == 0 { MOST_SNAPLEN } else { wanted.snaplen.min(MOST_SNAPLEN) },
        ring: wanted.ring,
        dropped: 0,
        looked: Instant::now(),
    };
    match capture.look() {
        Ok(()) => Ok(Box::new(capture)),
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            Err(Unusable::new(cause, "it takes the capability NET_RAW, and runAsUser: 0"))
        }
        Err(cause) => Err(cause.into()),
    }
}

impl Capture {
    /// Listens on interfaces that are new.
    fn look(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        for interface in interface::all() {
            let is_heard = self.handles.iter().any(|handle| handle.interface == interface.index);
            if is_heard || is_ours(&interface) {
                continue;
            }
            match Handle::open(&interface, self.snaplen, self.ring, &self.program) {
                Ok(handle) => self.handles.push(handle),
                Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => return Err(cause),
                // It is down or gone: the next look tells.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Backend for Capture {
    fn name(&self) -> &'static str {
        self.name
    }

    fn ring(&self) -> usize {
        self.ring * self.handles.len()
    }

    fn receive(&mut self, wait: Duration, take: &mut dyn FnMut(&Frame<'_>)) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.look()?;
        }
        let mut polls: Vec<_> = self
            .handles
            .iter()
            .map(|handle| libc::pollfd { fd: handle.descriptor, events: libc::POLLIN, revents: 0 })
            .collect();
        // SAFETY: as many valid pollfds as it says.
        unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, wait.as_millis() as c_int) };
        let limit = BATCH / self.handles.len().max(1);
        let Self { handles, filter, snaplen, dropped, .. } = self;
        let mut is_ready = polls.iter().map(|poll| poll.revents != 0);
        handles.retain_mut(|handle| {
            if !is_ready.next().unwrap_or(false) || handle.receive(limit, filter, *snaplen, take).is_ok() {
                return true;
            }
            // The interface went down or away. If it is still there, the next look hears it again.
            *dropped += handle.dropped();
            false
        });
        Ok(())
    }

    fn set_filter(&mut self, filter: &Program) -> io::Result<()> {
        self.handles.iter().try_for_each(|handle| handle.set_filter(filter))?;
        self.program = filter.clone();
        self.filter = Filter::new(filter);
        Ok(())
    }

    fn dropped(&mut self) -> io::Result<u64> {
        Ok(self.dropped + self.handles.iter_mut().map(Handle::dropped).sum::<u64>())
    }

    fn interfaces(&self) -> Vec<Interface> {
        interface::all().into_iter().filter(|interface| !is_ours(interface)).collect()
    }
}

/// An interface that is heard.
#[derive(Debug)]
struct Handle {
    pcap: NonNull<Pcap>,
    descriptor: c_int,
    interface: u32,
    link: u16,
    /// Source address of what it sends; none if that cannot be told by it.
    address: Option<[u8; 6]>,
    /// Frames dropped, as last heard.
    dropped: u64,
}

// SAFETY: a handle belongs to no thread, and only one has it.
unsafe impl Send for Handle {}

impl Handle {
    fn open(interface: &Interface, snaplen: u32, ring: usize, program: &Program) -> io::Result<Self> {
        let device = CString::new(interface.name.as_str())?;
        let mut message = [0; MESSAGE];
        // SAFETY: the name is a C string and the buffer as long as libpcap asks for.
        let pcap = unsafe { pcap_create(device.as_ptr(), message.as_mut_ptr()) };
        let pcap = NonNull::new(pcap).ok_or_else(|| io::Error::other("libpcap has no memory"))?;
        let address = (interface.hardware == bpf::ETHERNET).then(|| interface::address(&interface.name)).flatten();
        let mut handle = Self { pcap, descriptor: -1, interface: interface.index, link: 0, address, dropped: 0 };
        let pcap = pcap.as_ptr();
        // SAFETY: the handle is open, and not active before the last of these calls.
        let activated = unsafe {
            pcap_set_snaplen(pcap, snaplen.cast_signed());
            pcap_set_timeout(pcap, RETIRE);
            pcap_set_buffer_size(pcap, c_int::try_from(ring).unwrap_or(c_int::MAX));
            pcap_set_tstamp_precision(pcap, NANOSECONDS);
            pcap_activate(pcap)
        };
        if matches!(activated, PERMISSION_DENIED | CANNOT_CAPTURE) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        if activated < OK {
            return Err(handle.error());
        }
        // SAFETY: the handle is active, and the buffer as long as libpcap asks for.
        let link = unsafe {
            pcap_setnonblock(pcap, 1, message.as_mut_ptr());
            handle.descriptor = pcap_get_selectable_fd(pcap);
            pcap_datalink(pcap)
        };
        handle.link = match link {
            LINK_TYPE_ETHERNET => LINK_ETHERNET,
            LINK_TYPE_RAW => LINK_RAW_IP,
            other => u16::try_from(other).unwrap_or(u16::MAX),
        };
        handle.set_filter(program)?;
        Ok(handle)
    }

    /// On interfaces without Ethernet header it runs in user space.
    fn set_filter(&self, program: &Program) -> io::Result<()> {
        if self.link != LINK_ETHERNET {
            return Ok(());
        }
        let mut program = program.to_kernel();
        let mut program = Instructions { count: program.len() as c_uint, first: program.as_mut_ptr() };
        // SAFETY: the handle is active; libpcap copies the program.
        let result = unsafe { pcap_setfilter(self.pcap.as_ptr(), &raw mut program) };
        if result < OK { Err(self.error()) } else { Ok(()) }
    }

    fn error(&self) -> io::Error {
        // SAFETY: the handle is open; the message is a C string that lives until the next call.
        let message = unsafe { CStr::from_ptr(pcap_geterr(self.pcap.as_ptr())) };
        io::Error::other(message.to_string_lossy().into_owned())
    }

    /// Hands over frames until they are `limit` bytes or there are no more.
    fn receive(
        &mut self,
        limit: usize,
        filter: &Filter,
        snaplen: u32,
        take: &mut dyn FnMut(&Frame<'_>),
    ) -> io::Result<()> {
        let mut length = 0;
        while length < limit {
            let (mut header, mut data) = (std::ptr::null_mut(), std::ptr::null());
            // SAFETY: the handle is active.
            match unsafe { pcap_next_ex(self.pcap.as_ptr(), &raw mut header, &raw mut data) } {
                1 => {}
                0 => break,
                _ => return Err(self.error()),
            }
            // SAFETY: header and data are valid until the next call, and the data as long as the header says.
            let (header, data) = unsafe { (&*header, std::slice::from_raw_parts(data, (*header).captured as usize)) };
            length += data.len();
            let is_sent = data.get(6..12).is_some_and(|source| self.address.is_some_and(|address| source == address));
            let keep = if self.link == LINK_ETHERNET {
                snaplen
            } else {
                filter.run(&View::raw(data, header.len, self.interface, is_sent)).min(snaplen)
            };
            if keep > 0 {
                take(&Frame {
                    time: header.time.tv_sec.cast_unsigned() * 1_000_000_000 + header.time.tv_usec.cast_unsigned(),
                    interface: self.interface,
                    link: self.link,
                    direction: match self.link {
                        LINK_ETHERNET if is_sent => Direction::Outbound,
                        LINK_ETHERNET => Direction::Inbound,
                        _ => Direction::Unknown,
                    },
                    len: header.len,
                    data: (&[], None, &data[..data.len().min(keep as usize)]),
                    losing: false,
                });
            }
        }
        Ok(())
    }

    /// How many frames the kernel dropped since it was opened.
    fn dropped(&mut self) -> u64 {
        let mut counters = Statistics { received: 0, dropped: 0, dropped_by_interface: 0 };
        // SAFETY: the handle is active, and the structure is libpcap's.
        if unsafe { pcap_stats(self.pcap.as_ptr(), &raw mut counters) } == OK {
            self.dropped = counters.dropped.into();
        }
        self.dropped
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody has it any more.
        unsafe { pcap_close(self.pcap.as_ptr()) };
    }
}
