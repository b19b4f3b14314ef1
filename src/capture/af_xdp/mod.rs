//! Frames of this network namespace through `AF_XDP`, without taking one of them from the pod.
//!
//! An `AF_XDP` socket gets frames instead of the network stack, so it must not listen on the pod's interfaces. Instead:
//!
//! ```text
//! pod's interface ─ at its hooks (tcx): the filter; mark a frame with interface and direction, clone it, unmark it
//!     clone → near end of a pair of ours ─ at its hook: put a head of 32 bytes before it, from mark, clock, VLAN tag
//!         → far end ─ in its driver (XDP): redirect → AF_XDP sockets (copy mode) → the filter again, in user space
//! ```
//!
//! The second time, the filter sees what the kernel has made of a frame: it decides on segments, where the first decided on
//! what was to be cut into them, and on all if the kernel does not take the first.
//!
//! The pair has several queues, and a socket on each, since one is too short for what a large frame is cut into. The hook
//! deals frames out to them, and they are put in order again by the times in their heads.
//!
//! The hooks are links of BPF: they are gone when the process is, however it ends. The pair stays if it is killed, without an
//! address and with nothing that sends into it, until the next agent in the pod or the pod's end removes it.
//!
//! # What differs
//!
//! - Every frame that the filter accepts is cloned, and the pod pays for it. Those left out are counted.
//! - Interfaces without Ethernet header (tunnels) are not heard: the kernel refuses to clone from them. It is said.
//! - Frames show as they are at the hooks: what is sent, before other programs at the same hook have changed it.
//! - Other captures in the pod, and its counters of interfaces, see the pair and the clones in it.
//! - What an interface is to cut into segments shows in segments, as it is on the wire, where `AF_PACKET` shows it uncut. The
//!   filter must accept both it and a segment, which matters to one that asks for lengths or contents.
//! - A frame of more than 15,000 bytes that is not to be cut into segments, which only the loopback interface has where MTUs
//!   are usual, loses its Ethernet header to the head, and gets one without addresses, as those on the loopback interface are.
//! - A new interface is heard from up to a quarter of a second later on.
//! - Times are those of the clone, some hundred nanoseconds later than `AF_PACKET`'s.
//!
//! Before Linux 6.6 there is neither a hook that goes with the process nor room for frames of more than a page.

mod ebpf;
mod filter;
mod programs;
mod socket;
mod veth;

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use self::ebpf::{Hook, Kind, Map};
use self::programs::{clone, head, redirect};
use self::socket::{Sockets, monotonic};
use self::veth::Pair;
pub(super) use self::veth::{is_clone, is_ours};
use super::backend::{BATCH, Backend, Frame, MOST_SNAPLEN, Unusable, Wanted};
use super::bpf::{self, Program};
use super::interface::{self, Interface, LINK_ETHERNET};
use super::interpreter::{Filter, View};
use super::pcapng::Direction;

/// How often new interfaces are looked for, and the clocks compared.
const LOOK: Duration = Duration::from_millis(250);

/// Length of the head that is put before each frame.
const HEAD: u8 = 32;

/// Length of the head that takes the place of the Ethernet header.
const SHORT_HEAD: u8 = 14;

/// Ends each head: what comes without is not ours.
const MAGIC: u32 = 0x534e_4946;

/// Ends each head in place of the Ethernet header. The other has zeros there.
const SHORT_MAGIC: u16 = 0x5349;

/// A capture.
#[derive(Debug)]
pub struct Capture {
    taps: Vec<Tap>,
    /// Clones what is received, and what is sent.
    tapping: [OwnedFd; 2],
    /// How many frames the filter left out at the hooks.
    passed_over: OwnedFd,
    /// How many frames could not be cloned, or not be given a head.
    failures: OwnedFd,
    sockets: Sockets,
    /// Keeps the programs on the pair's ends attached.
    _hooks: [OwnedFd; 2],
    pair: Pair,
    filter: Filter,
    snaplen: u32,
    /// How many frames it left out after they were cloned.
    filtered: u64,
    /// What is to be added to the kernel's clock to get the time of day, in nanoseconds.
    epoch: u64,
    looked: Instant,
    remark: Option<String>,
}

/// An interface of the pod that is heard, as long as its hooks are attached.
#[derive(Debug)]
struct Tap {
    index: u32,
    /// None if it cannot be heard.
    hooks: Vec<(usize, OwnedFd)>,
}

impl Capture {
    /// Begins.
    ///
    /// # Errors
    /// [`Unusable`], with what the container lacks.
    pub fn open(wanted: &Wanted<'_>) -> Result<Self, Unusable> {
        Self::try_open(wanted).map_err(|cause| {
            let hint = match cause.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => {
                    "it takes the capabilities NET_RAW, NET_ADMIN and BPF, a seccomp profile that allows bpf, and \
                     runAsUser: 0"
                }
                Some(libc::ENOBUFS | libc::ENOMEM) => "ask for less with --ring: it counts as locked memory",
                _ if !is_recent() => "it takes Linux 6.6 or later: use --backend af_packet",
                _ => return cause.into(),
            };
            Unusable::new(cause, hint)
        })
    }

    fn try_open(wanted: &Wanted<'_>) -> io::Result<Self> {
        let passed_over = ebpf::create(Map::Array, 8, 1)?;
        let failures = ebpf::create(Map::Array, 8, 1)?;
        let turns = ebpf::create(Map::Array, 8, 1)?;
        let queues = Sockets::queues(wanted.ring);
        let map = ebpf::create(Map::Sockets, 4, queues)?;
        // Before the ends are up, so that whatever comes to the far one goes nowhere else.
        let (pair, hooks) = Pair::new(queues, |near, far| {
            let head = ebpf::load_program(Kind::Classifier, 0, &head(queues, &turns, &failures))?;
            let redirect = ebpf::load_program(Kind::Xdp, ebpf::FRAGMENTS, &redirect(&map))?;
            Ok([ebpf::attach(&redirect, far, Hook::Xdp, ebpf::DRIVER)?, ebpf::attach(&head, near, Hook::Egress, 0)?])
        })?;
        let sockets = Sockets::new(pair.far, queues, wanted.ring)?;
        for (queue, socket) in (0..).zip(sockets.descriptors()) {
            ebpf::put(&map, queue, socket)?;
        }
        let (tapping, remark) = tapping(wanted.filter, pair.near, &passed_over, &failures)?;
        let mut capture = Self {
            taps: Vec::new(),
            tapping,
            passed_over,
            failures,
            sockets,
            _hooks: hooks,
            pair,
            filter: Filter::new(wanted.filter),
            snaplen: if wanted.snaplen == 0 { MOST_SNAPLEN } else { wanted.snaplen.min(MOST_SNAPLEN) },
            filtered: 0,
            epoch: epoch(),
            looked: Instant::now(),
            remark,
        };
        capture.look()?;
        Ok(capture)
    }

    /// Listens on interfaces that are new, and no longer on those that are gone.
    fn look(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        self.epoch = epoch();
        let there: Vec<Interface> = interface::all().into_iter().filter(|one| !is_ours(one)).collect();
        self.taps.retain(|tap| there.iter().any(|interface| interface.index == tap.index));
        for interface in there {
            if self.taps.iter().any(|tap| tap.index == interface.index) {
                continue;
            }
            // What crosses the loopback interface is sent and received; once is enough.
            let hooks: &[(usize, Hook)] = match interface.hardware {
                bpf::LOOPBACK => &[(0, Hook::Ingress)],
                bpf::ETHERNET => &[(0, Hook::Ingress), (1, Hook::Egress)],
                _ => {
                    self.remark = Some(format!(
                        "{} is not captured: AF_XDP hears only interfaces with Ethernet headers",
                        interface.name
                    ));
                    &[]
                }
            };
            let attach = |(program, hook): &(usize, Hook)| {
                let link = ebpf::attach(&self.tapping[*program], interface.index, *hook, ebpf::FIRST)?;
                Ok((*program, link))
            };
            match hooks.iter().map(attach).collect::<io::Result<_>>() {
                Ok(hooks) => self.taps.push(Tap { index: interface.index, hooks }),
                // It is gone already.
                Err(cause) if cause.raw_os_error() == Some(libc::ENODEV) => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }
}

impl Capture {
    /// Has other programs take the place of those at the hooks.
    fn tap_with(&self, tapping: &[OwnedFd; 2]) -> io::Result<()> {
        for (program, link) in self.taps.iter().flat_map(|tap| &tap.hooks) {
            match ebpf::replace(link, &tapping[*program]) {
                // The interface is gone.
                Err(cause) if cause.raw_os_error() == Some(libc::ENOLINK) => {}
                result => result?,
            }
        }
        Ok(())
    }
}

impl Backend for Capture {
    fn name(&self) -> &'static str {
        "af_xdp"
    }

    fn ring(&self) -> usize {
        self.sockets.size()
    }

    fn receive(&mut self, wait: Duration, take: &mut dyn FnMut(&Frame<'_>)) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.look()?;
        }
        let Self { sockets, filter, snaplen, filtered, epoch, .. } = self;
        sockets.receive(wait, BATCH, &mut |bytes| {
            let Some(seen) = Seen::of(bytes, *epoch) else { return };
            let keep = filter.run(&seen.view()).min(*snaplen) as usize;
            if keep == 0 {
                *filtered += 1;
            } else {
                take(&seen.frame(keep));
            }
        })
    }

    fn set_filter(&mut self, filter: &Program) -> io::Result<()> {
        let (tapping, remark) = tapping(filter, self.pair.near, &self.passed_over, &self.failures)?;
        if let Err(cause) = self.tap_with(&tapping) {
            // Those that have been replaced go back to what they were.
            self.tap_with(&self.tapping)?;
            return Err(cause);
        }
        (self.tapping, self.filter) = (tapping, Filter::new(filter));
        self.remark = remark.or(self.remark.take());
        Ok(())
    }

    fn dropped(&mut self) -> io::Result<u64> {
        Ok(ebpf::get(&self.failures)? + self.pair.dropped()? + self.sockets.dropped()?)
    }

    fn filtered(&self) -> Option<u64> {
        Some(self.filtered + ebpf::get(&self.passed_over).ok()?)
    }

    fn remark(&mut self) -> Option<String> {
        self.remark.take()
    }

    fn interfaces(&self) -> Vec<Interface> {
        let is_heard = |interface: &Interface| interface.link() == LINK_ETHERNET && !is_ours(interface);
        interface::all().into_iter().filter(is_heard).collect()
    }
}

/// Programs that clone what a filter accepts of what is received, and of what is sent; what to say if they clone all.
fn tapping(
    filter: &Program,
    near: u32,
    passed_over: &OwnedFd,
    failures: &OwnedFd,
) -> io::Result<([OwnedFd; 2], Option<String>)> {
    let load = |filter: &Program, is_sent| {
        let program = clone(filter, is_sent, near, passed_over, failures);
        let program = program.ok_or_else(|| io::Error::other("it reads from where there is no frame"))?;
        ebpf::load_program(Kind::Classifier, 0, &program)
    };
    let both = |filter| Ok([load(filter, false)?, load(filter, true)?]);
    match both(filter) {
        Ok(programs) => Ok((programs, None)),
        Err(cause) => {
            let remark = format!(
                "every packet is cloned, and filtered afterwards: the kernel does not take the filter: {cause}"
            );
            both(&Program::all()).map(|programs| (programs, Some(remark)))
        }
    }
}

/// A frame, and what its head says.
#[derive(Debug, PartialEq, Eq)]
struct Seen<'a> {
    time: u64,
    interface: u32,
    is_sent: bool,
    tag: bpf::Tag,
    data: &'a [u8],
}

impl<'a> Seen<'a> {
    /// None if it has no head of ours.
    fn of(bytes: &'a mut [u8], epoch: u64) -> Option<Self> {
        let (words, _) = bytes.get(..usize::from(SHORT_HEAD))?.as_chunks::<4>();
        let word = u32::from_ne_bytes;
        let &[low, high, mark] = words else { return None };
        let time = [low, high].as_flattened().try_into().map(u64::from_ne_bytes).unwrap_or_default();
        let mut seen = Self {
            time: epoch.wrapping_add(time),
            interface: word(mark) >> 1,
            is_sent: word(mark) & 1 == 1,
            tag: None,
            data: &[],
        };
        if word(mark) == 0 {
            return None;
        }
        if bytes.get(12..14)? == SHORT_MAGIC.to_ne_bytes() {
            let kind: u16 = if bytes.get(usize::from(SHORT_HEAD))? >> 4 == 6 { 0x86dd } else { 0x0800 };
            let (head, _) = bytes.split_at_mut_checked(SHORT_HEAD.into())?;
            head.fill(0);
            head.get_mut(12..)?.copy_from_slice(&kind.to_be_bytes());
            seen.data = bytes;
            return Some(seen);
        }
        let (head, data) = bytes.split_first_chunk::<{ HEAD as usize }>()?;
        let (words, _) = head.as_chunks::<4>();
        let &[_, _, _, _, vlan, tci, protocol, magic] = words else { return None };
        let ([a, b], [c, d]) = ((word(protocol) as u16).to_ne_bytes(), (word(tci) as u16).to_be_bytes());
        (seen.tag, seen.data) = ((word(vlan) != 0).then_some([a, b, c, d]), data);
        (word(magic) == MAGIC).then_some(seen)
    }

    /// What is before the tag and what is behind it; all is behind it if there is none.
    fn parts(&self) -> (&'a [u8], &'a [u8]) {
        let parts = self.tag.and_then(|_| self.data.split_at_checked(12));
        parts.unwrap_or((&[], self.data))
    }

    fn len(&self) -> u32 {
        self.data.len() as u32 + if self.tag.is_some() { 4 } else { 0 }
    }

    fn view(&self) -> View<'a> {
        let (addresses, rest) = self.parts();
        View::tagged(addresses, self.tag, rest, self.len(), self.interface, self.is_sent)
    }

    fn frame(&self, keep: usize) -> Frame<'a> {
        let (addresses, rest) = self.parts();
        let before = addresses.len() + self.tag.map_or(0, |tag| tag.len());
        Frame {
            time: self.time,
            interface: self.interface,
            link: LINK_ETHERNET,
            direction: if self.is_sent { Direction::Outbound } else { Direction::Inbound },
            len: self.len(),
            data: (addresses, self.tag, &rest[..rest.len().min(keep.saturating_sub(before))]),
            losing: false,
        }
    }
}

/// Nanoseconds from the start of the Unix epoch to that of the clock that programs read.
fn epoch() -> u64 {
    let day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    day.wrapping_sub(monotonic())
}

/// True for Linux 6.6 and later.
fn is_recent() -> bool {
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    #[test]
    fn a_head_says_where_a_frame_was_seen() {
        let mut head = Vec::new();
        head.extend(7_u64.to_ne_bytes());
        for word in [5 << 1 | 1, 0, 1, 0x2007, u16::from_ne_bytes([0x88, 0xa8]).into(), MAGIC] {
            head.extend(u32::to_ne_bytes(word));
        }
        let mut bytes = [&head[..], b"ddddddsssssstt-data-"].concat();
        let seen = Seen::of(&mut bytes, 1000).unwrap();
        assert_eq!((seen.time, seen.interface, seen.is_sent), (1007, 5, true));
        let frame = seen.frame(20);
        assert_eq!(frame.data, (&b"ddddddssssss"[..], Some([0x88, 0xa8, 0x20, 7]), &b"tt-d"[..]));
        assert_eq!((frame.len, frame.direction), (24, Direction::Outbound));
        assert_eq!(Seen::of(&mut bytes[..31], 0), None);
        assert_eq!(Seen::of(&mut bytes[1..], 0), None);

        bytes[12..14].copy_from_slice(&SHORT_MAGIC.to_ne_bytes());
        bytes[14] = 0x60;
        let seen = Seen::of(&mut bytes, 0).unwrap();
        assert_eq!((seen.time, seen.interface, seen.tag, seen.data.len()), (7, 5, None, 52));
        assert_eq!(seen.data[..15], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x86, 0xdd, 0x60]);
    }
}
