//! What a session reads: packets of the master PCAP from one place on, perhaps not all of them, not whole, and not for ever.

use std::io;
use std::sync::MutexGuard;

use super::daemon::Daemon;
use super::master::{Cursor, Flushed, Master, Read, first_block, time};
use super::request::{Session, Start};
use super::state::{State, now};
use crate::capture::interpreter::{Filter, View};
use crate::capture::pcapng;

/// A session's way through the master PCAP.
#[derive(Debug)]
pub(super) struct Reader {
    cursor: Cursor,
    /// What is passed over to get to where the session starts: the master PCAP knows only about where that is.
    skip: Option<Skip>,
    /// Where the session ends, if it does.
    until: Option<Until>,
    filter: Option<Filter>,
    /// The most bytes of a packet; 0 for all.
    snaplen: u32,
    /// Link types of the interfaces.
    links: Vec<u16>,
    /// Packets that are still to be looked at, and where the next one starts.
    raw: Vec<u8>,
    /// What the filter left out and the client has not been told.
    left_out: Option<LeftOut>,
    pub(super) count: Count,
}

/// What a session had.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// Packets sent.
    pub(super) packets: u64,
    /// Packets that its filter left out.
    pub(super) filtered: u64,
    /// Packets that were flushed before it read them.
    pub(super) missed: u64,
}

/// Packets to be passed over.
#[derive(Clone, Copy, Debug)]
enum Skip {
    /// Those of lower numbers.
    Number(u64),
    /// Those before that time.
    Time(u64),
}

/// Where to stop.
#[derive(Clone, Copy, Debug)]
struct Until {
    /// Before the packet of that number.
    number: u64,
    /// Before the first packet of that time or later.
    time: u64,
    reached: bool,
}

/// Numbers from one to another that the filter has seen.
#[derive(Clone, Copy, Debug)]
struct LeftOut {
    from: u64,
    next: u64,
    /// How many of them it has left out; the others were sent.
    count: u64,
}

impl Reader {
    /// Starts as asked.
    pub(super) fn new(wanted: &Session, daemon: &Daemon, master: &Master) -> Self {
        let ago = |seconds: u64| now().saturating_sub(seconds.saturating_mul(1_000_000_000));
        let (cursor, skip) = match &wanted.start {
            Start::Now => (master.at(master.next()), None),
            Start::Since(seconds) => (master.since(ago(*seconds)), Some(Skip::Time(ago(*seconds)))),
            Start::From(number, boot) if boot.as_ref().is_none_or(|boot| *boot == daemon.boot) => {
                (master.at(*number), (*number < master.next()).then_some(Skip::Number(*number)))
            }
            Start::All | Start::From(..) => (master.at(master.first()), None),
        };
        let until = |seconds| {
            let time = if seconds == 0 { u64::MAX } else { ago(seconds) };
            Until { number: master.next(), time, reached: false }
        };
        Self {
            cursor,
            skip,
            until: wanted.until.map(until),
            filter: wanted.filter.as_ref().map(Filter::new),
            snaplen: wanted.snaplen,
            links: Vec::new(),
            raw: Vec::new(),
            left_out: None,
            count: Count::default(),
        }
    }

    /// An interface that packets may be of.
    pub(super) fn add_interface(&mut self, link: u16) {
        self.links.push(link);
    }

    /// How many interfaces it knows.
    pub(super) fn interfaces(&self) -> usize {
        self.links.len()
    }

    /// Appends packets of numbers before `end` to `out` until it holds about `full` bytes or there are no more; says where some were flushed before
    /// they could be read. The lock is given back while the disk is read.
    pub(super) fn read<'a>(
        &mut self,
        daemon: &'a Daemon,
        mut state: MutexGuard<'a, State>,
        end: u64,
        out: &mut Vec<u8>,
        full: usize,
    ) -> io::Result<MutexGuard<'a, State>> {
        if self.is_over() {
            return Ok(state);
        }
        let limit = full.saturating_sub(out.len());
        let as_they_are = self.skip.is_none() && self.until.is_none() && self.filter.is_none() && self.snaplen == 0;
        let raw = if as_they_are { &mut *out } else { &mut self.raw };
        let from = raw.len();
        let first = self.cursor.next;
        match state.master.read(end, &mut self.cursor, raw, from + limit) {
            Read::Done => {}
            Read::Flushed(flushed) => {
                self.flushed(flushed, out);
                return Ok(state);
            }
            Read::OnDisk(extent) => {
                drop(state);
                extent.read(raw, limit)?;
                state = daemon.lock();
                state.master.accept(&mut self.cursor, raw, from);
            }
        }
        if as_they_are {
            self.count.packets += self.cursor.next - first;
        } else {
            drop(state);
            self.look_at(first, out);
            state = daemon.lock();
        }
        Ok(state)
    }

    /// True if there is nothing to read at the moment.
    pub(super) fn is_at_the_end(&self, master: &Master) -> bool {
        self.cursor.next == master.next()
    }

    /// True if there will be nothing more, since no more was asked for.
    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until.reached || self.cursor.next >= until.number)
    }

    /// The number of the next packet that would be read.
    pub(super) fn next(&self) -> u64 {
        self.until.map_or(self.cursor.next, |until| self.cursor.next.min(until.number))
    }

    /// Says which packets the filter left out, if any.
    pub(super) fn account(&mut self, out: &mut Vec<u8>) {
        if let Some(LeftOut { from, next, count: 1.. }) = self.left_out
            && let Some(left_out) = self.left_out.take()
        {
            pcapng::filtered(out, from, next, left_out.count);
        }
    }

    /// Says which packets were flushed, as far as they were wanted.
    fn flushed(&mut self, flushed: Flushed, out: &mut Vec<u8>) {
        self.account(out);
        self.left_out = None;
        let wanted = match self.skip {
            Some(Skip::Number(number)) => number,
            _ => 0,
        };
        let last = self.until.map_or(u64::MAX, |until| until.number);
        let end = (flushed.from + flushed.count).min(last);
        let start = flushed.from.max(wanted).min(end);
        if start < end {
            self.count.missed += end - start;
            pcapng::flushed(out, start, end - start);
        }
    }

    /// Appends to `out` what is wanted of the packets read, whose first number is given.
    fn look_at(&mut self, first: u64, out: &mut Vec<u8>) {
        let raw = std::mem::take(&mut self.raw);
        let (mut number, mut at) = (first, 0);
        let before = self.count.packets;
        while let Some(block) = first_block(&raw, at) {
            if self.is_until(number, block) {
                self.cursor.next = number;
                break;
            }
            if self.is_wanted(number, block) {
                self.take(number, block, out);
            }
            number += 1;
            at += block.len();
        }
        // Told with the packets around them, but not for each chunk of which nothing was wanted.
        if self.count.packets > before {
            self.account(out);
        }
        self.raw = raw;
        self.raw.clear();
    }

    /// True if the session ends before that packet.
    fn is_until(&mut self, number: u64, block: &[u8]) -> bool {
        let Some(until) = &mut self.until else { return false };
        until.reached = number >= until.number || time(block).is_some_and(|time| time >= until.time);
        until.reached
    }

    /// False if the session has not come to where it starts.
    fn is_wanted(&mut self, number: u64, block: &[u8]) -> bool {
        let is_wanted = match self.skip {
            Some(Skip::Number(wanted)) => number >= wanted,
            Some(Skip::Time(wanted)) => time(block).is_some_and(|time| time >= wanted),
            None => return true,
        };
        if is_wanted {
            self.skip = None;
        }
        is_wanted
    }

    /// Appends a packet, or counts it as left out.
    fn take(&mut self, number: u64, block: &[u8], out: &mut Vec<u8>) {
        let mut keep = if self.snaplen == 0 { u32::MAX } else { self.snaplen };
        if let Some(filter) = &self.filter {
            let result = filter.run(&view(block, &self.links));
            let left_out = self.left_out.get_or_insert(LeftOut { from: number, next: number, count: 0 });
            left_out.next = number + 1;
            left_out.count += u64::from(result == 0);
            if result == 0 {
                self.count.filtered += 1;
                return;
            }
            keep = keep.min(result);
        }
        self.count.packets += 1;
        pcapng::cut(out, block, keep);
    }
}

/// The frame in a packet block of ours.
fn view<'a>(block: &'a [u8], links: &[u16]) -> View<'a> {
    let packet = pcapng::Stored::of(block).unwrap_or_default();
    let outgoing = packet.direction == pcapng::Direction::Outbound;
    let interface = packet.interface;
    match links.get(interface as usize) {
        Some(1) => View::ethernet(packet.data, packet.len, interface, outgoing),
        _ => View::raw(packet.data, packet.len, interface, outgoing),
    }
}
