//! What a session reads: the packets of the master PCAP from one place on.

use std::io;
use std::sync::MutexGuard;

use super::daemon::{Daemon, State, now};
use super::master::{Cursor, Master, Read, first_block, time};
use super::session::Start;
use crate::capture::pcapng;

/// A session's place in the master PCAP.
#[derive(Debug)]
pub(super) struct Reader {
    cursor: Cursor,
    /// What is passed over to get to where the session starts: the master PCAP knows only about where that is.
    skip: Option<Skip>,
    /// Packets that are still to be looked at.
    raw: Vec<u8>,
}

/// Packets to be passed over.
#[derive(Clone, Copy, Debug)]
enum Skip {
    /// Those of lower numbers.
    Number(u64),
    /// Those before that time.
    Time(u64),
}

impl Reader {
    /// Starts as asked.
    pub(super) fn new(start: &Start, daemon: &Daemon, master: &Master) -> Self {
        let (cursor, skip) = match start {
            Start::Now => (master.at(master.next()), None),
            Start::Since(seconds) => {
                let from = now().saturating_sub(seconds.saturating_mul(1_000_000_000));
                (master.since(from), Some(Skip::Time(from)))
            }
            Start::From(number, boot) if boot.as_ref().is_none_or(|boot| *boot == daemon.boot) => {
                (master.at(*number), (*number < master.next()).then_some(Skip::Number(*number)))
            }
            Start::All | Start::From(..) => (master.at(master.first()), None),
        };
        Self { cursor, skip, raw: Vec::new() }
    }

    /// Appends packets to `out` until it holds about `full` bytes or there are no more; says where some were flushed before
    /// they could be read. The lock is given back while the disk is read.
    pub(super) fn read<'a>(
        &mut self,
        daemon: &'a Daemon,
        mut state: MutexGuard<'a, State>,
        out: &mut Vec<u8>,
        full: usize,
    ) -> io::Result<MutexGuard<'a, State>> {
        let limit = full.saturating_sub(out.len());
        let raw = if self.skip.is_some() { &mut self.raw } else { &mut *out };
        let from = raw.len();
        let first = self.cursor.next;
        match state.master.read(&mut self.cursor, raw, from + limit) {
            Read::Done => {}
            Read::Flushed(flushed) => {
                let wanted = match self.skip {
                    Some(Skip::Number(number)) => number,
                    _ => 0,
                };
                let end = flushed.from + flushed.count;
                let start = flushed.from.max(wanted).min(end);
                if start < end {
                    state.missed += end - start;
                    pcapng::flushed(out, start, end - start);
                }
                return Ok(state);
            }
            Read::OnDisk(extent) => {
                drop(state);
                extent.read(raw, limit)?;
                state = daemon.lock();
                state.master.accept(&mut self.cursor, raw, from);
            }
        }
        if self.skip.is_some() {
            self.pass_over(first, out);
        }
        Ok(state)
    }

    /// True if there is nothing to read at the moment.
    pub(super) fn is_at_the_end(&self, master: &Master) -> bool {
        self.cursor.next == master.next()
    }

    /// Moves what is wanted of the packets read, whose first number is given.
    fn pass_over(&mut self, first: u64, out: &mut Vec<u8>) {
        let mut number = first;
        let mut at = 0;
        while let (Some(skip), Some(block)) = (self.skip, first_block(&self.raw, at)) {
            let is_wanted = match skip {
                Skip::Number(wanted) => number >= wanted,
                Skip::Time(wanted) => time(block).is_some_and(|time| time >= wanted),
            };
            if is_wanted {
                self.skip = None;
            } else {
                number += 1;
                at += block.len();
            }
        }
        out.extend_from_slice(self.raw.get(at..).unwrap_or_default());
        self.raw.clear();
    }
}
