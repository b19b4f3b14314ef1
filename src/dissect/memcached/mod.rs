//! Memcached: the text protocol with its meta commands (doc/protocol.txt), the binary protocol (doc/protocol-binary.txt) with
//! its quiet commands and SASL, and the frame header of both over UDP.
//!
//! Answers come in the order of their commands. A quiet command is answered only if there is something to say, so it is held
//! back until a later answer shows what became of it: then it is a row with its answer, or without one. Of a `get` of many keys
//! all values are one answer, as are the lines of `stats`; the status is the answer's first word.
//!
//! Not parsed: what `watch` prints; answers over UDP beyond their first datagram; Couchbase's additions. On a server that asks
//! for a password in the text protocol, the first `set` carries it and can't be told from others.

mod ascii;
mod binary;

use std::collections::VecDeque;

use super::{Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Role, Transport, Verdict};
use crate::entry::Direction;

pub static PROTOCOL: Protocol = Protocol {
    name: "memcached",
    title: "memcached",
    transport: Transport::Both,
    ports: &[11211],
    probe,
    new: || Box::new(Memcached::default()),
    repeats: false,
    spec: "https://github.com/memcached/memcached/blob/master/doc/protocol.txt",
};

/// The most unanswered commands that are kept in mind.
const MAX_OPEN: usize = 16_384;
/// The frame header of a datagram: request id, sequence number, number of datagrams, zero.
const UDP_HEADER: usize = 8;
/// Set in the id of a datagram's request, so that it is never the 0 that means "in order".
const UDP_ID: u64 = 1 << 16;
/// The same for quiet commands.
const QUIET_ID: u64 = 1 << 32;

fn probe(probe: &Probe<'_>) -> Verdict {
    let hinted = PROTOCOL.ports.contains(&probe.port);
    let data = match probe.transport {
        Transport::Udp if !hinted => return Verdict::No,
        Transport::Udp => match frame(probe.data) {
            Some((_, 0, payload)) => payload,
            _ => return Verdict::No,
        },
        _ => probe.data,
    };
    let verdict = match data.first() {
        None => Verdict::More,
        Some(&(binary::REQUEST | binary::RESPONSE)) => binary::probe(data, probe.direction, hinted),
        Some(_) => ascii::probe(data, probe.direction, hinted && probe.start),
    };
    if probe.transport == Transport::Udp && verdict == Verdict::More { Verdict::No } else { verdict }
}

/// A datagram's request id, sequence number and payload.
fn frame(datagram: &[u8]) -> Option<(u16, u16, &[u8])> {
    let mut cursor = Cursor::new(datagram);
    let (id, sequence, total, zero) = (cursor.u16().ok()?, cursor.u16().ok()?, cursor.u16().ok()?, cursor.u16().ok()?);
    (zero == 0 && sequence < total).then_some((id, sequence, cursor.rest()))
}

/// One connection, or the datagrams between two ports.
#[derive(Default)]
struct Memcached {
    /// Commands without an answer, oldest first.
    open: VecDeque<Open>,
    /// How many quiet commands there were.
    quiet: u64,
    /// An answer of many lines or packets, under way.
    answer: Option<Message>,
    values: ascii::Values,
    /// `watch` was answered: log lines follow.
    watching: bool,
    /// Answers were lost: those that come before the next command belong to commands of before.
    lost: bool,
}

/// A command without an answer.
struct Open {
    /// What its answer looks like.
    mark: Mark,
    /// The command, if it is a quiet one.
    held: Option<Message>,
}

/// What tells a command's answer from those to later commands.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// A text command: the next answer is its.
    Next,
    /// As before, and log lines follow.
    Watch,
    Meta(ascii::Meta),
    /// Opcode and opaque value.
    Binary(u8, u32),
}

impl Memcached {
    /// Hands on a command, or holds it back if it is quiet.
    fn asked(&mut self, mut message: Message, mark: Option<Mark>, quiet: bool, cx: &mut Cx<'_>) {
        let Some(mark) = mark else {
            message.role = Role::OneWay;
            cx.emit(message);
            return;
        };
        self.lost = false;
        if cx.transport() == Transport::Udp {
            cx.emit(message);
            return;
        }
        if self.open.len() >= MAX_OPEN
            && let Some(oldest) = self.open.pop_front()
        {
            unanswered(oldest, cx);
        }
        if quiet {
            self.quiet += 1;
            message.id = QUIET_ID | (self.quiet & (QUIET_ID - 1));
            self.open.push_back(Open { mark, held: Some(message) });
        } else {
            self.open.push_back(Open { mark, held: None });
            cx.emit(message);
        }
    }

    /// Hands on an answer, with the quiet command that it belongs to.
    fn answered(&mut self, mut message: Message, is_its: impl Fn(&Mark) -> bool, cx: &mut Cx<'_>) {
        if cx.transport() == Transport::Udp {
            cx.emit(message);
            return;
        }
        // Quiet commands before the one that is answered had nothing to say.
        while self.open.front().is_some_and(|open| open.held.is_some() && !is_its(&open.mark)) {
            if let Some(open) = self.open.pop_front() {
                unanswered(open, cx);
            }
        }
        match self.open.pop_front() {
            Some(Open { held: Some(request), .. }) => {
                message.id = request.id;
                cx.emit(request);
                cx.emit(message);
            }
            Some(Open { mark, held: None }) => {
                self.watching |= mark == Mark::Watch;
                cx.emit(message);
            }
            None if self.lost || self.watching => {}
            None => cx.emit(message),
        }
    }

    /// Quiet commands that nothing answers any more.
    fn flush(&mut self, cx: &mut Cx<'_>) {
        for open in std::mem::take(&mut self.open) {
            unanswered(open, cx);
        }
    }
}

/// A quiet command that had nothing to say is a row of its own.
fn unanswered(open: Open, cx: &mut Cx<'_>) {
    if let Some(mut message) = open.held {
        message.role = Role::OneWay;
        message.id = 0;
        cx.emit(message);
    }
}

impl Dissector for Memcached {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let (id, header, bytes) = match cx.transport() {
            Transport::Udp => match frame(bytes) {
                Some((id, 0, payload)) => (UDP_ID | u64::from(id), UDP_HEADER, payload),
                Some(_) => return Ok(Progress::Consumed(bytes.len())),
                None => return Err(Malformed("a datagram without its frame header")),
            },
            _ => (0, 0, bytes),
        };
        let progress = match (bytes.first(), direction) {
            (Some(&(binary::REQUEST | binary::RESPONSE)), _)
                if self.answer.is_none() || direction == Direction::ToServer =>
            {
                self.packet(direction, id, bytes, cx)
            }
            (Some(&binary::RESPONSE), _) => self.packet(direction, id, bytes, cx),
            (_, Direction::ToServer) => self.command(id, bytes, cx),
            (_, Direction::ToClient) => self.line(id, bytes, cx),
        }?;
        if cx.transport() == Transport::Udp
            && let Some(message) = self.answer.take()
        {
            // Its other lines are in other datagrams.
            cx.emit(message);
        }
        Ok(match progress {
            Progress::Consumed(n) => Progress::Consumed(header + n),
            progress => progress,
        })
    }

    fn gap(&mut self, direction: Direction, _len: u64, cx: &mut Cx<'_>) -> Recover {
        self.close(direction, &[], cx);
        if direction == Direction::ToClient {
            self.flush(cx);
            self.lost = true;
        }
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        if direction == Direction::ToClient {
            if let Some(mut message) = self.answer.take() {
                message.warnings.push("the capture lacks its end".into());
                self.answered(message, |_| true, cx);
            }
            self.flush(cx);
        }
    }
}
