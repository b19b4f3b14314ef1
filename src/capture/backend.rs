//! What a capture is made of: the trait of whatever takes frames from the kernel, and how one is chosen.
//!
//! | backend | takes frames from | needs | is for |
//! |---|---|---|---|
//! | `af_packet` | a ring that the kernel fills | `NET_RAW` | everything: the default |
//! | `libpcap` | libpcap | `NET_RAW`, a binary that is linked with it | what a libpcap of one's own can do |
//! | `af_xdp` | copies on a virtual cable of ours | `NET_RAW`, `NET_ADMIN`, `BPF`, Linux 6.6 | hosts where `AF_PACKET` is refused |
//! | `pf_ring` | a libpcap that is built for it | the kernel module, besides | hosts that have it |
//!
//! Of the same traffic they give the same frames; what cannot be the same, each one's page says.

use std::fmt;
use std::io;
use std::time::Duration;

use super::bpf::{Program, Tag};
use super::interface::{self, Interface};
use super::pcapng::Direction;
use super::{af_packet, af_xdp, libpcap, pf_ring};

/// The most bytes that are ever kept of a frame; what libpcap takes for "all".
pub const MOST_SNAPLEN: u32 = 262_144;

/// About the most bytes of frames that are handed over at once, unless it is one frame.
pub const BATCH: usize = 256 << 10;

/// A frame on its way to whoever captures.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it was seen, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// Kernel's index of its interface.
    pub interface: u32,
    /// Link type of `data` by its number in the tcpdump.org registry.
    pub link: u16,
    /// Which way it went.
    pub direction: Direction,
    /// Its length on the wire, with its VLAN tag.
    pub len: u32,
    /// The bytes captured, in three pieces: addresses, VLAN tag, rest. Those of an untagged frame are all in the last.
    pub data: (&'a [u8], Tag, &'a [u8]),
    /// Frames were dropped since [`Backend::dropped`] was last asked.
    pub losing: bool,
}

/// Whatever takes frames from the kernel. It hears all interfaces of the network namespace, also those that come later.
pub trait Backend: fmt::Debug + Send {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Bytes of memory between it and the kernel.
    fn ring(&self) -> usize;

    /// Hands over the frames that have come, about [`BATCH`] bytes at most; waits for `wait` if there are none.
    ///
    /// # Errors
    /// What the kernel says.
    fn receive(&mut self, wait: Duration, take: &mut dyn FnMut(&Frame<'_>)) -> io::Result<()>;

    /// How many frames were dropped since the capture began, for want of room.
    ///
    /// # Errors
    /// What the kernel says.
    fn dropped(&mut self) -> io::Result<u64>;

    /// From now on, captures what this accepts instead. No frame that both accept is lost by it.
    ///
    /// # Errors
    /// What the kernel says; then the old one holds on.
    fn set_filter(&mut self, filter: &Program) -> io::Result<()>;

    /// How many frames the capture filter left out; none if nobody counts them.
    fn filtered(&self) -> Option<u64> {
        None
    }

    /// What a person should know by now, once.
    fn remark(&mut self) -> Option<String> {
        None
    }

    /// The interfaces that it hears.
    fn interfaces(&self) -> Vec<Interface> {
        interface::all()
    }
}

/// What to capture.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Frames that this accepts.
    pub filter: &'a Program,
    /// At most so many bytes of each.
    pub snaplen: u32,
    /// About so much memory between the kernel and us.
    pub ring: usize,
}

/// A backend by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    AfPacket,
    Libpcap,
    AfXdp,
    PfRing,
    /// `PF_RING` where it is, else `AF_PACKET`, which changes nothing in the pod and needs the least.
    Best,
}

/// Why a backend cannot be had.
#[derive(Debug)]
pub struct Unusable {
    /// What failed.
    pub cause: io::Error,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Unusable {
    pub(super) fn new(cause: io::Error, hint: impl Into<String>) -> Self {
        Self { cause, hint: Some(hint.into()) }
    }

    /// It is not here at all.
    pub(super) fn missing(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(io::Error::new(io::ErrorKind::Unsupported, what.into()), hint)
    }
}

impl From<io::Error> for Unusable {
    fn from(cause: io::Error) -> Self {
        Self { cause, hint: None }
    }
}

impl Kind {
    /// None if there is no backend of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "af_packet" => Some(Self::AfPacket),
            "libpcap" => Some(Self::Libpcap),
            "af_xdp" => Some(Self::AfXdp),
            "pf_ring" => Some(Self::PfRing),
            "best" => Some(Self::Best),
            _ => None,
        }
    }

    /// Begins to capture.
    ///
    /// # Errors
    /// [`Unusable`] if it does not work here.
    pub fn open(self, wanted: &Wanted<'_>) -> Result<Box<dyn Backend>, Unusable> {
        match self {
            Self::AfPacket => af_packet::Capture::open(wanted).map(|capture| Box::new(capture) as Box<dyn Backend>),
            Self::Libpcap => libpcap::open(wanted),
            Self::AfXdp => af_xdp::Capture::open(wanted).map(|capture| Box::new(capture) as Box<dyn Backend>),
            Self::PfRing => pf_ring::open(wanted),
            Self::Best => pf_ring::open(wanted).or_else(|_| Self::AfPacket.open(wanted)),
        }
    }
}
