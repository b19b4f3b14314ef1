//! TCP segments → ordered bytes, passively.
//!
//! Three rules carry it. The first copy of a byte wins. Bytes are handed on in causal order: a segment waits until everything
//! that it acknowledges has been handed on, so that no response overtakes its request, whatever order the capture has. And
//! what the peer has acknowledged was received: if the capture lacks it after some slack, it is a gap, not a delay.

use std::collections::VecDeque;

use crate::entry::Timestamp;

use super::Segment;

/// The most bytes that wait in one direction for an earlier segment.
const MAX_PENDING_BYTES: usize = 4 << 20;
/// The most segments that wait in one direction.
const MAX_PENDING_SEGMENTS: usize = 4096;
/// Packets of the flow that may still bring bytes that were acknowledged already: captures reorder a little.
const SLACK_PACKETS: u32 = 64;
/// Nanoseconds for the same.
const SLACK_TIME: i64 = 200_000_000;
/// A jump in sequence numbers past any window (RFC 7323 section 2.3) is not a hole to wait for.
const MAX_WINDOW: u32 = 1 << 30;

/// When and in which frame some bytes were captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Capture time.
    pub time: Timestamp,
    /// Frame number.
    pub packet: u64,
    /// The TCP sequence number of the first byte: the same wherever the connection is captured, also behind a NAT.
    pub position: u32,
}

/// What comes out of reassembly, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes that follow the last ones.
    Chunk(&'a [u8], Stamp),
    /// So many bytes were sent but not captured.
    Gap(u64),
    /// The direction has ended.
    End,
    /// The capture, or what is known of the flow, ends before the stream does.
    Cut,
}

/// A segment that waits for an earlier one, or for what it acknowledges.
#[derive(Debug)]
struct Pending {
    seq: u32,
    ack: Option<u32>,
    data: Box<[u8]>,
    missing: u32,
    stamp: Stamp,
}

/// One direction.
#[derive(Debug, Default)]
struct Stream {
    /// The sequence number of the next byte to hand on, once known.
    next: Option<u32>,
    /// The highest acknowledgement of the other side.
    acked: Option<u32>,
    /// The sequence number of the FIN.
    fin: Option<u32>,
    /// Sorted by sequence number.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Since when bytes are missing, and how many packets of the flow came since.
    hole: Option<(Timestamp, u32)>,
    ended: bool,
}

/// Both directions of one connection; side 0 and 1 are the caller's.
#[derive(Debug, Default)]
pub struct Reassembly {
    streams: [Stream; 2],
}

/// Signed distance from `b` to `a` around the wrap.
fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

impl Reassembly {
    /// Takes one segment that `side` sent and hands on what has become ordered.
    pub fn segment(
        &mut self,
        side: usize,
        segment: &Segment<'_>,
        stamp: Stamp,
        out: &mut impl FnMut(usize, Piece<'_>),
    ) {
        let [first, second] = &mut self.streams;
        let (mine, theirs) = if side == 0 { (first, second) } else { (second, first) };
        if mine.ended && theirs.ended {
            return;
        }
        let start = if segment.flags.syn { segment.seq.wrapping_add(1) } else { segment.seq };
        let stamp = Stamp { position: start, ..stamp };
        let len = segment.data.len() as u32;
        let full = len.wrapping_add(segment.missing);
        let ack = segment.flags.ack.then_some(segment.ack);
        if let Some(ack) = ack
            && theirs.next.is_some()
            && theirs.acked.is_none_or(|acked| distance(ack, acked) > 0)
        {
            theirs.acked = Some(ack);
        }
        if segment.flags.rst {
            self.finish(out);
            return;
        }
        if mine.next.is_none() && (segment.flags.syn || full > 0 || segment.flags.fin) {
            mine.next = Some(start);
        }
        if let Some(next) = mine.next {
            if segment.flags.fin && mine.fin.is_none() {
                mine.fin = Some(start.wrapping_add(full));
            }
            if full > 0 && !mine.ended {
                let ahead = distance(start, next);
                let plain = ahead == 0 && mine.pending.is_empty() && theirs.has_delivered(ack);
                if plain {
                    mine.hand_on(segment.data, segment.missing, stamp, side, out);
                } else if ahead > -(full.cast_signed()) && ahead.unsigned_abs() < MAX_WINDOW {
                    mine.wait(Pending { seq: start, ack, data: segment.data.into(), missing: segment.missing, stamp });
                }
            }
        }
        if !mine.settled() || !theirs.settled() {
            self.drain(stamp.time, out);
        }
    }

    /// True once both directions have ended.
    pub fn is_over(&self) -> bool {
        self.streams.iter().all(|stream| stream.ended)
    }

    /// How many bytes of memory what waits takes.
    pub fn held(&self) -> usize {
        let held = |stream: &Stream| stream.pending_bytes + stream.pending.capacity() * size_of::<Pending>();
        self.streams.iter().map(held).sum()
    }

    /// Hands on whatever waits, with gaps where bytes are missing.
    pub fn relieve(&mut self, out: &mut impl FnMut(usize, Piece<'_>)) {
        // Alternate by causal order as long as one side can go on without a gap; then force the side that blocks.
        while self.step(out) || self.force(out) {}
        for stream in &mut self.streams {
            stream.pending.shrink_to_fit();
        }
    }

    /// The same, and ends both directions.
    pub fn finish(&mut self, out: &mut impl FnMut(usize, Piece<'_>)) {
        self.relieve(out);
        for (side, stream) in self.streams.iter_mut().enumerate() {
            if !stream.ended {
                stream.ended = true;
                out(side, Piece::Cut);
            }
        }
    }

    /// Hands on what is in order now, gives up holes that will not be filled, and ends directions at their FIN.
    fn drain(&mut self, now: Timestamp, out: &mut impl FnMut(usize, Piece<'_>)) {
        loop {
            while self.step(out) {}
            let mut forced = false;
            for side in 0..2 {
                if self.streams.get(side).is_some_and(Stream::is_over_limit) {
                    forced |= self.force(out);
                }
            }
            for (side, stream) in self.streams.iter_mut().enumerate() {
                if stream.gives_up(now) {
                    forced |= stream.jump(side, out);
                }
            }
            if !forced {
                break;
            }
        }
        for stream in &mut self.streams {
            stream.hole = match (stream.missing_until(), stream.hole) {
                (None, _) => None,
                (Some(_), None) => Some((now, 0)),
                (Some(_), Some((since, packets))) => Some((since, packets.saturating_add(1))),
            };
        }
    }

    /// Hands on one waiting segment, or one end, that is in order. False if there is none.
    fn step(&mut self, out: &mut impl FnMut(usize, Piece<'_>)) -> bool {
        let [first, second] = &mut self.streams;
        first.step(second, 0, out) | second.step(first, 1, out)
    }

    /// Passes over the hole that blocks the segment captured first. False if nothing waits.
    fn force(&mut self, out: &mut impl FnMut(usize, Piece<'_>)) -> bool {
        let [first, second] = &mut self.streams;
        let earliest = |stream: &Stream| stream.pending.front().map_or(u64::MAX, |pending| pending.stamp.packet);
        let (side, mine, theirs) = match (earliest(first), earliest(second)) {
            (u64::MAX, u64::MAX) => return false,
            (a, b) if a <= b => (0, first, second),
            _ => (1, second, first),
        };
        // Either bytes before it are missing, or bytes that it acknowledges are.
        mine.jump(side, out) || theirs.jump(1 - side, out)
    }
}

impl Stream {
    /// True if nothing waits and nothing is known to be missing, so that there is nothing to drain.
    fn settled(&self) -> bool {
        self.pending.is_empty()
            && self.hole.is_none()
            && (self.ended || self.fin.is_none())
            && match (self.acked, self.next) {
                (Some(acked), Some(next)) => distance(acked, next) <= 0,
                _ => true,
            }
    }

    /// True if everything up to `ack` has been handed on, as far as this direction is known at all.
    fn has_delivered(&self, ack: Option<u32>) -> bool {
        match (ack, self.next) {
            (Some(ack), Some(next)) if !self.ended => {
                let ahead = distance(ack, next);
                // The acknowledgement of a FIN counts one past the last byte.
                ahead <= 0 || ahead.unsigned_abs() >= MAX_WINDOW || (ahead == 1 && self.fin == Some(next))
            }
            _ => true,
        }
    }

    fn hand_on(
        &mut self,
        data: &[u8],
        missing: u32,
        stamp: Stamp,
        side: usize,
        out: &mut impl FnMut(usize, Piece<'_>),
    ) {
        let stamp = Stamp { position: self.next.unwrap_or(stamp.position), ..stamp };
        self.next = self.next.map(|next| next.wrapping_add(data.len() as u32).wrapping_add(missing));
        if !data.is_empty() {
            out(side, Piece::Chunk(data, stamp));
        }
        if missing > 0 {
            out(side, Piece::Gap(u64::from(missing)));
        }
    }

    fn wait(&mut self, pending: Pending) {
        let at = self.pending.partition_point(|other| distance(other.seq, pending.seq) <= 0);
        let copy = self.pending.get(at.wrapping_sub(1)).is_some_and(|before| {
            before.seq == pending.seq && before.data.len() >= pending.data.len() && before.missing == 0
        });
        if !copy {
            self.pending_bytes += pending.data.len();
            self.pending.insert(at, pending);
        }
    }

    fn is_over_limit(&self) -> bool {
        self.pending_bytes > MAX_PENDING_BYTES || self.pending.len() > MAX_PENDING_SEGMENTS
    }

    /// Where the bytes end that are missing at `next`, if any are.
    fn missing_until(&self) -> Option<u32> {
        let next = self.next.filter(|_| !self.ended)?;
        let waiting = self.pending.front().map(|pending| pending.seq).filter(|seq| distance(*seq, next) > 0);
        let acked = self.acked.filter(|acked| {
            let ahead = distance(*acked, next);
            ahead > 0 && ahead.unsigned_abs() < MAX_WINDOW && !(ahead == 1 && self.fin == Some(next))
        });
        match (waiting, acked) {
            // Bytes that wait are there, acknowledged or not.
            (Some(waiting), _) => Some(waiting),
            (None, Some(acked)) if self.pending.is_empty() => {
                Some(self.fin.filter(|fin| distance(acked, *fin) > 0).unwrap_or(acked))
            }
            _ => None,
        }
    }

    /// True if the bytes at `next` were received by the peer and the slack for a reordered capture is over.
    fn gives_up(&self, now: Timestamp) -> bool {
        let acked = match (self.acked, self.next) {
            (Some(acked), Some(next)) => distance(acked, next) > 0,
            _ => false,
        };
        acked
            && self.missing_until().is_some()
            && self.hole.is_some_and(|(since, packets)| packets >= SLACK_PACKETS || now.since(since) >= SLACK_TIME)
    }

    /// Passes over missing bytes with a gap. False if none are missing.
    fn jump(&mut self, side: usize, out: &mut impl FnMut(usize, Piece<'_>)) -> bool {
        let (Some(until), Some(next)) = (self.missing_until(), self.next) else { return false };
        self.next = Some(until);
        self.hole = None;
        out(side, Piece::Gap(u64::from(until.wrapping_sub(next))));
        true
    }

    /// Hands on the first waiting segment or the end, if it is in order. False if it is not.
    fn step(&mut self, theirs: &Self, side: usize, out: &mut impl FnMut(usize, Piece<'_>)) -> bool {
        let Some(next) = self.next.filter(|_| !self.ended) else { return false };
        if let Some(pending) = self.pending.front() {
            let ahead = distance(pending.seq, next);
            if ahead > 0 || !theirs.has_delivered(pending.ack) {
                return false;
            }
            let Some(pending) = self.pending.pop_front() else { return false };
            self.pending_bytes -= pending.data.len();
            let old = ahead.unsigned_abs() as usize;
            let fresh = pending.data.get(old..).unwrap_or_default();
            let past = old.saturating_sub(pending.data.len()) as u32;
            let missing = pending.missing.saturating_sub(past);
            let stamp = Stamp { position: pending.stamp.position.wrapping_add(old as u32), ..pending.stamp };
            self.hand_on(fresh, missing, stamp, side, out);
            return true;
        }
        if self.fin == Some(next) {
            self.ended = true;
            out(side, Piece::End);
            return true;
        }
        false
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::flow::Flags;

    fn segment(seq: u32, ack: u32, data: &[u8]) -> Segment<'_> {
        Segment { src_port: 1, dst_port: 2, seq, ack, flags: Flags { ack: true, ..Flags::default() }, data, missing: 0 }
    }

    /// Feeds (side, seq, ack, data) and shows what comes out as `0:abc 1:gap4`.
    fn run(segments: &[(usize, u32, u32, &str)]) -> String {
        let mut reassembly = Reassembly::default();
        let mut shown = Vec::new();
        let mut out = |side: usize, piece: Piece<'_>| {
            shown.push(match piece {
                Piece::Chunk(data, _) => format!("{side}:{}", String::from_utf8_lossy(data)),
                Piece::Gap(len) => format!("{side}:gap{len}"),
                Piece::End => format!("{side}:end"),
                Piece::Cut => format!("{side}:cut"),
            });
        };
        for (number, (side, seq, ack, data)) in segments.iter().enumerate() {
            let stamp =
                Stamp { time: Timestamp(i64::try_from(number).unwrap()), packet: number as u64 + 1, position: 0 };
            reassembly.segment(*side, &segment(*seq, *ack, data.as_bytes()), stamp, &mut out);
        }
        reassembly.finish(&mut out);
        shown.join(" ")
    }

    #[test]
    fn in_order() {
        assert_eq!(run(&[(0, 10, 0, "ab"), (0, 12, 0, "cd")]), "0:ab 0:cd 0:cut 1:cut");
    }

    #[test]
    fn positions_are_sequence_numbers() {
        let mut reassembly = Reassembly::default();
        let mut positions = Vec::new();
        let mut out = |_: usize, piece: Piece<'_>| {
            if let Piece::Chunk(_, stamp) = piece {
                positions.push(stamp.position);
            }
        };
        for (seq, data) in [(10, "ab"), (14, "ef"), (10, "ab"), (12, "cdE")] {
            reassembly.segment(0, &segment(seq, 0, data.as_bytes()), Stamp::default(), &mut out);
        }
        reassembly.finish(&mut out);
        assert_eq!(positions, [10, 12, 15]);
    }

    #[test]
    fn reordered_overlapping_and_repeated() {
        assert_eq!(
            run(&[(0, 10, 0, "ab"), (0, 14, 0, "ef"), (0, 10, 0, "ab"), (0, 12, 0, "cdE"), (0, 16, 0, "g")]),
            "0:ab 0:cdE 0:f 0:g 0:cut 1:cut"
        );
    }

    #[test]
    fn a_chunk_tells_the_sequence_number_of_its_first_byte() {
        let mut reassembly = Reassembly::default();
        let mut positions = Vec::new();
        let mut out = |_: usize, piece: Piece<'_>| {
            if let Piece::Chunk(data, stamp) = piece {
                positions.push((data.len(), stamp.position));
            }
        };
        let opening = Segment { flags: Flags { syn: true, ..Flags::default() }, ..segment(9, 0, b"") };
        reassembly.segment(0, &opening, Stamp::default(), &mut out);
        for (seq, data) in [(10, "ab"), (14, "ef"), (11, "bcdef"), (16, "g")] {
            reassembly.segment(0, &segment(seq, 0, data.as_bytes()), Stamp::default(), &mut out);
        }
        assert_eq!(positions, [(2, 10), (4, 12), (1, 16)]);
    }

    #[test]
    fn sequence_numbers_wrap() {
        assert_eq!(run(&[(0, u32::MAX - 1, 0, "abc"), (0, 1, 0, "d")]), "0:abc 0:d 0:cut 1:cut");
    }

    #[test]
    fn a_response_does_not_overtake_its_request() {
        let segments = [(0, 10, 50, "a"), (1, 50, 11, "x"), (1, 51, 14, "RES"), (0, 11, 51, "REQ")];
        assert_eq!(run(&segments), "0:a 1:x 0:REQ 1:RES 0:cut 1:cut");
    }

    #[test]
    fn acknowledged_bytes_that_never_come_are_a_gap() {
        let mut segments = vec![(0, 10, 50, "ab"), (1, 50, 12, "x"), (0, 16, 51, "gh")];
        segments.extend((0..SLACK_PACKETS + 2).map(|_| (1, 51, 18, "")));
        segments.push((1, 51, 18, "y"));
        assert_eq!(run(&segments), "0:ab 1:x 0:gap4 0:gh 1:y 0:cut 1:cut");
    }

    #[test]
    fn what_waits_at_the_end_comes_after_its_gap() {
        assert_eq!(run(&[(0, 10, 0, "ab"), (0, 20, 0, "cd")]), "0:ab 0:gap8 0:cd 0:cut 1:cut");
    }

    #[test]
    fn a_keep_alive_probe_brings_nothing() {
        assert_eq!(run(&[(0, 10, 0, "ab"), (0, 11, 0, "b"), (0, 12, 0, "c")]), "0:ab 0:c 0:cut 1:cut");
    }
}
