//! What the agent's threads share under one lock: the master PCAP, where its packets came from, and all that is counted.

use std::time::{Instant, SystemTime};

use super::daemon::Options;
use super::keys::KeyLog;
use super::made::Made;
use super::master::Master;
use super::once::Once;
use super::reader::Count;
use super::request::Session;
use crate::capture::backend::Frame;
use crate::capture::bpf::Program;
use crate::capture::interface::{self, Interface, LINK_RAW_IP};
use crate::capture::interpreter::{Filter, View};
use crate::capture::pcapng::{Direction, Packet};

/// The most interfaces that are told apart. A pod has two, a node one for each pod that it ever had meanwhile.
const MOST_INTERFACES: usize = 1024;

/// What the lock is around.
#[derive(Debug)]
pub(super) struct State {
    pub(super) master: Master,
    pub(super) taps: Vec<Tap>,
    /// TLS keys, if they are read.
    pub(super) keys: KeyLog,
    pub(super) phase: Phase,
    pub(super) sessions: Vec<Sitting>,
    /// How many sessions there were.
    pub(super) seats: u64,
    /// When the last session ended, or the agent started.
    pub(super) alone_since: Instant,
    /// Until when it stays without a session.
    pub(super) armed_until: Option<Instant>,
    /// Frames that the kernel dropped.
    pub(super) dropped: u64,
    /// Packets that were flushed before a session read them, once for each session.
    pub(super) missed: u64,
    /// Frames that the capture filter left out, if somebody counts them.
    pub(super) filtered: Option<u64>,
    /// Packets longer than the snaplen.
    pub(super) cut: u64,
    /// When the backend was last asked for frames and had none, in nanoseconds since the Unix epoch: all that was there by
    /// then is stored.
    pub(super) drained: u64,
    /// The capture filter, for packets that are made here.
    pub(super) filter: Filter,
    /// The same for people.
    pub(super) filter_text: String,
    /// What is to replace it.
    pub(super) refilter: Refilter,
    /// A session ends, and wants to know what the kernel has dropped until now.
    pub(super) recount: bool,
    /// Knows what was seen before, if that is to be left out.
    pub(super) once: Option<Once>,
    /// The interface of the last frame: the kernel does not say where it dropped one, and that is the likeliest.
    pub(super) last: usize,
}

/// How far the replacement of the capture filter is.
#[derive(Debug)]
pub(super) enum Refilter {
    Idle,
    Asked(Program, String),
    Done(Result<(), String>),
}

/// An interface that frames came from.
#[derive(Debug)]
pub(super) struct Tap {
    /// Kernel's index; with the link type, what it is known by.
    pub(super) index: u32,
    pub(super) link: u16,
    /// Its name, with the pod before it.
    pub(super) name: String,
    /// From which probe its packets are, if they are no frames.
    pub(super) origin: Option<&'static str>,
    /// Since when it is known, in nanoseconds since the Unix epoch.
    pub(super) since: u64,
    pub(super) received: u64,
    pub(super) dropped: u64,
    /// Those dropped since its last packet was stored.
    pub(super) dropped_before: u64,
}

/// How far the agent is from its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Capturing,
    /// It was told to stop, for this reason; the capture may still add packets.
    Stopping(String),
    /// No packet follows.
    Ended(String),
}

/// A session, as status tells of it.
#[derive(Debug)]
pub(super) struct Sitting {
    pub(super) seat: u64,
    /// When it began, in nanoseconds since the Unix epoch.
    pub(super) since: u64,
    pub(super) wanted: Session,
    pub(super) count: Count,
    /// Bytes handed over to it.
    pub(super) bytes: u64,
}

impl State {
    /// True if all that was there at that time is stored.
    pub(super) fn has_all_of(&self, time: u64) -> bool {
        let is_over = matches!(self.phase, Phase::Ended(_));
        is_over || self.drained >= time || self.master.latest().is_some_and(|latest| latest >= time)
    }

    /// Stores a frame under the next number.
    pub(super) fn store(&mut self, frame: &Frame<'_>, pod: &str) {
        if self.once.as_mut().is_some_and(|once| once.is_repeated(frame)) {
            return;
        }
        let Some(at) = self.tap(frame.interface, frame.link, pod) else {
            self.dropped += 1;
            return;
        };
        self.last = at;
        let captured = frame.data.0.len() + frame.data.1.map_or(0, |tag| tag.len()) + frame.data.2.len();
        self.cut += u64::from(captured < frame.len as usize);
        let tap = &mut self.taps[at];
        let (addresses, tag, rest) = &frame.data;
        self.master.push(Packet {
            interface: at as u32,
            time: frame.time,
            len: frame.len,
            data: &[addresses, tag.as_ref().map_or(&[], |tag| tag), rest],
            direction: frame.direction,
            id: None,
            dropped: std::mem::take(&mut tap.dropped_before),
        });
        tap.received += 1;
    }

    /// Stores a packet that was made here under the next number, if the filter accepts it.
    pub(super) fn insert(&mut self, made: &Made, options: &Options) {
        let Some(at) = self.made(made.origin, &options.pod) else { return };
        let (len, outgoing) = (made.packet.len() as u32, made.direction == Direction::Outbound);
        let accepted = self.filter.run(&View::raw(&made.packet, len, at as u32, outgoing)).min(options.snaplen);
        if accepted == 0 {
            return;
        }
        let data = made.packet.get(..accepted as usize).unwrap_or(&made.packet);
        self.cut += u64::from(data.len() < made.packet.len());
        self.keys.plaintext += 1;
        let (interface, time, direction) = (at as u32, made.time, made.direction);
        self.master.push(Packet { interface, time, len, data: &[data], direction, id: None, dropped: 0 });
        self.taps[at].received += 1;
    }

    /// The place of the interface of such packets in the list.
    fn made(&mut self, origin: &'static str, pod: &str) -> Option<usize> {
        let known = self.taps.iter().position(|tap| tap.origin == Some(origin));
        if known.is_some() || self.taps.len() == MOST_INTERFACES {
            return known;
        }
        // No interface of the kernel's has this index.
        let at = self.tap(u32::MAX - self.taps.len() as u32, LINK_RAW_IP, "")?;
        let name = origin.replace("uprobe:", "tls-");
        self.taps[at].name = if pod.is_empty() { name } else { format!("{pod}:{name}") };
        self.taps[at].origin = Some(origin);
        Some(at)
    }

    /// The place of an interface in the list, which grows if it is new; none if the list is full.
    fn tap(&mut self, index: u32, link: u16, pod: &str) -> Option<usize> {
        let known = self.taps.iter().position(|tap| tap.index == index && tap.link == link);
        if known.is_some() || self.taps.len() == MOST_INTERFACES {
            return known;
        }
        let name = interface::name(index).unwrap_or_else(|| format!("if{index}"));
        let name = if pod.is_empty() { name } else { format!("{pod}:{name}") };
        self.taps.push(Tap {
            index,
            link,
            name,
            origin: None,
            since: now(),
            received: 0,
            dropped: 0,
            dropped_before: 0,
        });
        Some(self.taps.len() - 1)
    }

    /// Lists the interfaces that are there at the start, so that a session knows them before their first frame.
    pub(super) fn add_known_interfaces(&mut self, interfaces: &[Interface], pod: &str) {
        for interface in interfaces {
            self.tap(interface.index, interface.link(), pod);
        }
    }

    /// Takes over the kernel's count of dropped frames.
    pub(super) fn lose(&mut self, dropped: u64) {
        let lost = dropped.saturating_sub(self.kernel_dropped());
        if let Some(tap) = self.taps.get_mut(self.last).filter(|_| lost > 0) {
            tap.dropped += lost;
            tap.dropped_before += lost;
            self.dropped += lost;
        }
    }

    /// How many of the kernel's drops are counted already.
    pub(super) fn kernel_dropped(&self) -> u64 {
        self.taps.iter().map(|tap| tap.dropped).sum()
    }
}

/// Nanoseconds since the Unix epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}
