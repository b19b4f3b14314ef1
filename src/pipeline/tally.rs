//! What a flow came to as a whole: the row of those that no dissector knows.
//!
//! A connection that was refused, never answered, reset or closed without a word of any known protocol is one row, when it
//! ends: protocol `tcp` or `udp`, operation `flow`. Its status is `refused` (a reset answered the SYN), `timeout` (nothing
//! did), `reset`, `closed` (by both sides) or `open` (the capture ends, or it went quiet); of datagrams `answered` or
//! `unanswered`. Its latency is that of the first answer, so of the handshake. What comes after its end is not counted.

use crate::dissect::Ends;
use crate::entry::{Entry, Half, Text, Timestamp, Value};
use crate::fields;
use crate::flow::Segment;
use crate::flow::reassembly::Stamp;

/// Nanoseconds after which a SYN without an answer is given up: RFC 6298 has it repeated after one second.
const PATIENCE: i64 = 1_000_000_000;
/// Bytes seen before come again within so many nanoseconds because the capture has frames out of order.
const REORDERED: i64 = 3_000_000;

/// Both sides of one flow; side 0 and 1 are the caller's.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sides: [Side; 2],
    last: Timestamp,
}

/// What one side sent.
#[derive(Debug, Default)]
struct Side {
    /// Time, frame and sequence number of its first packet.
    first: Option<Stamp>,
    packets: u64,
    bytes: u64,
    retransmissions: u64,
    /// The highest sequence number that it sent, and when.
    reached: Option<(u32, Timestamp)>,
    syns: u64,
    fin: bool,
    resets: u64,
}

impl Tally {
    /// Counts one segment.
    pub fn segment(&mut self, side: usize, segment: &Segment<'_>, stamp: Stamp) {
        let len = (segment.data.len() as u32).wrapping_add(segment.missing);
        let Some(side) = self.packet(side, u64::from(len), Stamp { position: segment.seq, ..stamp }) else { return };
        let flags = segment.flags;
        side.syns += u64::from(flags.syn);
        side.fin |= flags.fin;
        side.resets += u64::from(flags.rst);
        let length = len.wrapping_add(u32::from(flags.syn)).wrapping_add(u32::from(flags.fin));
        if length == 0 || flags.rst {
            return;
        }
        let end = segment.seq.wrapping_add(length);
        match side.reached {
            Some((reached, since)) if end.wrapping_sub(reached).cast_signed() <= 0 => {
                // A keep-alive repeats the last byte, or one that never was, on purpose.
                let keeps_alive = len <= 1 && end == reached && !flags.syn && !flags.fin;
                side.retransmissions += u64::from(!keeps_alive && stamp.time.since(since) > REORDERED);
            }
            _ => side.reached = Some((end, stamp.time)),
        }
    }

    /// Counts one datagram.
    pub fn datagram(&mut self, side: usize, data: &[u8], stamp: Stamp) {
        self.packet(side, data.len() as u64, stamp);
    }

    fn packet(&mut self, side: usize, bytes: u64, stamp: Stamp) -> Option<&mut Side> {
        self.last = stamp.time;
        let side = self.sides.get_mut(side)?;
        side.first.get_or_insert(stamp);
        side.packets += 1;
        side.bytes += bytes;
        Some(side)
    }

    /// True if `client` asked for a connection and nothing came back.
    pub fn is_unanswered(&self, client: usize) -> bool {
        let [asked, answered] = self.from(client);
        asked.is_some_and(|side| side.syns > 0 && side.packets == side.syns)
            && answered.is_some_and(|side| side.packets == 0)
    }

    /// The client's side, then the server's.
    fn from(&self, client: usize) -> [Option<&Side>; 2] {
        [self.sides.get(client), self.sides.get(1 - client)]
    }

    /// The row; `now` is the newest time of the capture, `detail` whether fields were asked for.
    pub fn entry(&self, tcp: bool, client: usize, ends: Ends, now: Timestamp, detail: bool) -> Entry {
        let [asked, answered] = self.from(client);
        let first = asked.and_then(|side| side.first);
        let response = answered.and_then(|side| side.first);
        let status = if tcp {
            self.status(client, now)
        } else if response.is_some() {
            "answered"
        } else {
            "unanswered"
        };
        Entry {
            time: first.or(response).map(|stamp| stamp.time).unwrap_or_default(),
            operation: Text::Borrowed("flow"),
            status: Text::Borrowed(status),
            failed: matches!(status, "refused" | "timeout" | "reset"),
            latency: first.zip(response).map(|(first, response)| response.time.since(first.time)),
            request: asked.and_then(|side| side.half(tcp, detail, self.last)),
            response: answered.and_then(|side| side.half(tcp, detail, self.last)),
            tap: ends.tap,
            ..Entry::new(if tcp { "tcp" } else { "udp" }, ends.client, ends.server)
        }
    }

    fn status(&self, client: usize, now: Timestamp) -> &'static str {
        let [Some(asked), Some(answered)] = self.from(client) else { return "open" };
        let connected = answered.syns > 0 || answered.bytes > 0 || asked.bytes > 0;
        match () {
            () if asked.syns > 0 && !connected && answered.resets > 0 => "refused",
            () if asked.resets + answered.resets > 0 => "reset",
            () if asked.fin && answered.fin => "closed",
            () if self.is_unanswered(client) => {
                let waited = asked.first.is_some_and(|first| now.since(first.time) >= PATIENCE);
                if waited || asked.retransmissions > 0 { "timeout" } else { "open" }
            }
            () => "open",
        }
    }
}

impl Side {
    fn half(&self, tcp: bool, detail: bool, last: Timestamp) -> Option<Half> {
        let first = self.first?;
        let mut fields = Value::Null;
        if detail {
            fields = fields! { "packets" => self.packets, "duration_ms" => milliseconds(last.since(first.time)) };
            if let (Value::Map(fields), true) = (&mut fields, tcp) {
                fields.push(("retransmissions".into(), self.retransmissions.into()));
                fields.push(("resets".into(), self.resets.into()));
            }
        }
        Some(Half {
            time: first.time,
            packet: first.packet,
            position: first.position,
            bytes: self.bytes,
            body: None,
            detail: fields,
        })
    }
}

/// Milliseconds with three decimals.
#[allow(clippy::cast_precision_loss, reason = "microseconds of any capture fit a double")]
fn milliseconds(nanos: i64) -> f64 {
    (nanos / 1000) as f64 / 1000.0
}
