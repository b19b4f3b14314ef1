//! IP fragments → datagrams (RFC 791, section 3.2; RFC 8200, section 4.5).
//!
//! Where fragments overlap, the bytes that came first stand. Time is that of frames.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::entry::Timestamp;

use super::Addresses;
use super::layer::Bytes;

/// The most datagrams that wait for fragments; the oldest is given up for a new one.
const MOST_DATAGRAMS: usize = 4096;

/// The most bytes that all waiting fragments may hold; the oldest datagrams are given up first.
const MOST_BYTES: usize = 16 << 20;

/// What a fragment is counted to cost besides its bytes.
const PIECE_COST: usize = 64;

/// How long a datagram may wait, in nanoseconds: what Linux allows.
const LONGEST_WAIT: i64 = 30_000_000_000;

/// How long after a datagram is whole its fragments may be seen again without opening a new one, in nanoseconds.
/// Captures of several interfaces see each packet more than once.
const ECHO: i64 = 1_000_000_000;

/// The longest payload of an IP packet.
const LONGEST: u32 = 65_535;

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    pub id: u32,
    /// Bytes of the datagram before it.
    pub offset: u32,
    /// False for the last one.
    pub more: bool,
    /// What the datagram's payload starts with; IPv6 believes the first fragment only.
    pub protocol: u8,
}

/// What fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    addresses: Addresses,
    id: u32,
    /// IP protocol; 0 for IPv6, which does not count it.
    protocol: u8,
}

/// A run of a datagram's bytes.
#[derive(Debug)]
struct Piece {
    start: u32,
    /// Where it ends on the wire.
    end: u32,
    /// Its bytes, fewer where the snaplen cut them.
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Datagram {
    /// When its first fragment came; with the key it tells this datagram from a later one of the same key.
    since: Timestamp,
    /// When it became whole; it is kept to recognise echoes.
    done: Option<Timestamp>,
    /// In order, without overlap.
    pieces: Vec<Piece>,
    /// Its length, once the last fragment came.
    total: Option<u32>,
    protocol: u8,
    /// How many fragments of it came.
    fragments: u64,
    /// What it counts against [`MOST_BYTES`].
    cost: usize,
}

/// The datagrams of which fragments are missing.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    datagrams: HashMap<Key, Datagram>,
    /// Oldest first.
    ages: VecDeque<(Key, Timestamp)>,
    cost: usize,
    /// Fragments of datagrams that may yet become whole.
    waiting: u64,
    /// Fragments of datagrams that no longer can.
    given_up: u64,
}

impl Fragments {
    pub(super) fn incomplete(&self) -> u64 {
        self.given_up + self.waiting
    }

    /// Adds a fragment. If it was the last one missing, fills `whole` with the datagram's payload, as far as it was
    /// captured without a hole, and returns the protocol it starts with and how many bytes the snaplen cut off. A first
    /// fragment that the snaplen cut is handed on at once, since what is behind the hole is of no use.
    pub(super) fn add(
        &mut self,
        addresses: Addresses,
        fragment: Fragment,
        bytes: Bytes<'_>,
        time: Timestamp,
        whole: &mut Vec<u8>,
    ) -> Option<(u8, u32)> {
        let protocol = if addresses.src.is_ipv4() { fragment.protocol } else { 0 };
        let key = Key { addresses, id: fragment.id, protocol };
        self.expire(time);
        let start = fragment.offset;
        let end = start.saturating_add(bytes.wire() as u32);
        if end > LONGEST || bytes.wire() == 0 {
            self.given_up += 1;
            return None;
        }
        if let Some(done) = self.datagrams.get(&key).and_then(|datagram| datagram.done) {
            if time.since(done) <= ECHO {
                return None;
            }
            self.datagrams.remove(&key);
        }
        let Self { datagrams, ages, .. } = self;
        let datagram = datagrams.entry(key).or_insert_with(|| {
            ages.push_back((key, time));
            let protocol = fragment.protocol;
            Datagram { since: time, done: None, pieces: Vec::new(), total: None, protocol, fragments: 0, cost: 0 }
        });
        datagram.fragments += 1;
        self.waiting += 1;
        if start == 0 {
            datagram.protocol = fragment.protocol;
            if bytes.cut > 0 {
                // No other fragment can add to it what the snaplen cut off.
                whole.clear();
                whole.extend_from_slice(bytes.data);
                self.cost -= datagram.cost;
                self.waiting -= datagram.fragments;
                datagram.finish(time);
                return Some((fragment.protocol, bytes.cut));
            }
        }
        if !fragment.more && datagram.total.is_none() {
            datagram.total = Some(end);
        }
        let cost = datagram.insert(start, end, bytes.data);
        datagram.cost += cost;
        self.cost += cost;
        let total = datagram.total.filter(|total| datagram.covers(*total));
        let Some(total) = total else {
            self.shrink();
            return None;
        };
        datagram.assemble(total, whole);
        let protocol = datagram.protocol;
        self.cost -= datagram.cost;
        self.waiting -= datagram.fragments;
        datagram.finish(time);
        Some((protocol, total - (whole.len() as u32).min(total)))
    }

    /// Gives up what has waited too long.
    fn expire(&mut self, now: Timestamp) {
        while let Some((_, since)) = self.ages.front() {
            if now.since(*since) <= LONGEST_WAIT {
                break;
            }
            self.give_up_oldest();
        }
    }

    /// Gives up the oldest until the limits hold.
    fn shrink(&mut self) {
        while (self.cost > MOST_BYTES || self.ages.len() > MOST_DATAGRAMS) && !self.ages.is_empty() {
            self.give_up_oldest();
        }
    }

    fn give_up_oldest(&mut self) {
        let Some((key, since)) = self.ages.pop_front() else { return };
        // Another datagram may have taken the key since.
        if self.datagrams.get(&key).is_none_or(|datagram| datagram.since != since) {
            return;
        }
        let Some(datagram) = self.datagrams.remove(&key) else { return };
        if datagram.done.is_none() {
            self.cost -= datagram.cost;
            self.waiting -= datagram.fragments;
            self.given_up += datagram.fragments;
        }
    }
}

impl Datagram {
    /// It was handed on; only its echoes are to be recognised now.
    fn finish(&mut self, time: Timestamp) {
        self.cost = 0;
        self.pieces = Vec::new();
        self.done = Some(time);
    }

    /// Keeps those bytes of `start..end` that are new; `bytes` may end before `end`. Returns their cost.
    fn insert(&mut self, start: u32, end: u32, bytes: &[u8]) -> usize {
        let mut cost = 0;
        let mut at = start;
        // The first piece that ends behind the start.
        let mut index = self.pieces.partition_point(|piece| piece.end <= start);
        while at < end {
            let next = self.pieces.get(index).map(|piece| (piece.start, piece.end));
            let stop = next.map_or(end, |(start, _)| start.min(end));
            if at < stop {
                let from = (at - start) as usize;
                let to = ((stop - start) as usize).min(bytes.len());
                let bytes = bytes.get(from.min(to)..to).unwrap_or_default().to_vec();
                cost += bytes.len() + PIECE_COST;
                self.pieces.insert(index, Piece { start: at, end: stop, bytes });
                index += 1;
            }
            match next {
                Some((_, end)) => at = end,
                None => break,
            }
            index += 1;
        }
        cost
    }

    /// True if no byte before `total` is missing, but for those that the snaplen cut off.
    fn covers(&self, total: u32) -> bool {
        let mut at = 0;
        for piece in &self.pieces {
            if piece.start > at {
                return false;
            }
            at = piece.end;
        }
        at >= total
    }

    /// Joins the pieces up to the first byte that was not captured.
    fn assemble(&self, total: u32, whole: &mut Vec<u8>) {
        whole.clear();
        for piece in &self.pieces {
            whole.extend_from_slice(&piece.bytes);
            if piece.bytes.len() < (piece.end - piece.start) as usize {
                break;
            }
        }
        whole.truncate(total as usize);
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use crate::flow::Payload;
    use crate::flow::decode::{Decoder, Undecoded};
    use crate::flow::frames::{before, ipv4, ipv6, udp};

    const SECOND: i64 = 1_000_000_000;

    /// A datagram of 40 bytes of payload, numbered.
    fn datagram() -> Vec<u8> {
        udp(5000, 6000, &(0..40).collect::<Vec<u8>>())
    }

    /// Bytes of the datagram as an IPv4 packet.
    fn part(id: u16, from: usize, to: usize) -> Vec<u8> {
        let whole = datagram();
        let more = if to < whole.len() { 0x2000 } else { 0 };
        ipv4(17, id, more | (from / 8) as u16, &whole[from..to])
    }

    /// Gives frames to a decoder and returns the payload and the missing bytes of the last one.
    fn last(decoder: &mut Decoder, frames: &[Vec<u8>]) -> Result<(Vec<u8>, u32), Undecoded> {
        let (last, first) = frames.split_last().unwrap();
        for frame in first {
            let early = decoder.decode(101, frame, frame.len() as u32, Timestamp(0)).err();
            assert_eq!(early, Some(Undecoded::Fragment));
        }
        payload(decoder, last, last.len(), 0)
    }

    fn payload(decoder: &mut Decoder, frame: &[u8], len: usize, time: i64) -> Result<(Vec<u8>, u32), Undecoded> {
        let packet = decoder.decode(101, frame, len as u32, Timestamp(time))?;
        let Payload::Udp { src_port: 5000, dst_port: 6000, data, missing } = packet.payload else {
            unreachable!("{packet:?}")
        };
        Ok((data.to_vec(), missing))
    }

    fn expected() -> (Vec<u8>, u32) {
        ((0..40).collect(), 0)
    }

    #[test]
    fn fragments_in_any_order_become_the_datagram() {
        let parts = [part(1, 0, 16), part(1, 16, 32), part(1, 32, 48)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut decoder = Decoder::default();
            assert_eq!(last(&mut decoder, &order.map(|index| parts[index].clone())), Ok(expected()), "{order:?}");
            assert_eq!(decoder.incomplete(), 0);
        }
    }

    #[test]
    fn fragments_of_two_datagrams_are_kept_apart() {
        let mut decoder = Decoder::default();
        let frames = [part(1, 0, 16), part(2, 16, 48), part(3, 0, 16), part(1, 16, 48)];
        assert_eq!(last(&mut decoder, &frames), Ok(expected()));
        assert_eq!(decoder.incomplete(), 2);
    }

    #[test]
    fn where_fragments_overlap_the_first_bytes_stand() {
        let mut forged = part(1, 8, 48);
        forged[20..].fill(0xee);
        let mut decoder = Decoder::default();
        let (data, missing) = last(&mut decoder, &[part(1, 16, 32), part(1, 0, 16), forged]).unwrap();
        assert_eq!((&data[..24], &data[24..], missing), (&(0..24).collect::<Vec<u8>>()[..], &[0xee; 16][..], 0));
    }

    #[test]
    fn ipv6_fragments_become_the_datagram() {
        let whole = datagram();
        let part = |from: usize, to: usize| {
            let bits = from as u16 | u16::from(to < whole.len());
            let head = [&[17, 0][..], &bits.to_be_bytes(), &[0, 0, 0, 9]].concat();
            ipv6(44, &before(&head, &whole[from..to]))
        };
        assert_eq!(last(&mut Decoder::default(), &[part(32, 48), part(0, 16), part(16, 32)]), Ok(expected()));
    }

    #[test]
    fn a_fragmented_tunnel_of_fragments_is_followed() {
        let outer = ipv4(4, 7, 0, &part(1, 16, 48));
        let (head, tail) = outer[20..].split_at(24);
        let frames = [part(1, 0, 16), ipv4(4, 7, 0x2000, head), ipv4(4, 7, 3, tail)];
        assert_eq!(last(&mut Decoder::default(), &frames), Ok(expected()));
    }

    #[test]
    fn bytes_that_the_snaplen_cut_off_are_missing() {
        let mut decoder = Decoder::default();
        let (first, second) = (part(1, 0, 32), part(1, 32, 48));
        // Captures that ask for a port have no others, and a hole makes them useless.
        assert_eq!(payload(&mut decoder, &first[..20 + 18], first.len(), 0), Ok(((0..10).collect(), 14)));
        assert!(payload(&mut decoder, &second, second.len(), 0).is_err());
        assert_eq!(decoder.incomplete(), 0);
        // The same, cut by something that left no trace of it in the frame's length.
        assert_eq!(payload(&mut decoder, &part(4, 0, 32)[..20 + 18], 20 + 18, 0), Ok(((0..10).collect(), 14)));
        // Behind the hole, though it came first.
        let (first, second) = (part(3, 0, 32), part(3, 32, 48));
        assert!(payload(&mut decoder, &second, second.len(), 0).is_err());
        assert_eq!(payload(&mut decoder, &first[..20 + 18], first.len(), 0), Ok(((0..10).collect(), 14)));
        // The last one only.
        assert!(payload(&mut decoder, &part(2, 0, 32), first.len(), 0).is_err());
        let second = part(2, 32, 48);
        assert_eq!(payload(&mut decoder, &second[..24], second.len(), 0), Ok(((0..28).collect(), 12)));
    }

    #[test]
    fn what_waits_too_long_is_given_up() {
        let mut decoder = Decoder::default();
        let (first, second) = (part(1, 0, 16), part(1, 16, 48));
        assert!(payload(&mut decoder, &first, first.len(), 0).is_err());
        assert_eq!(decoder.incomplete(), 1);
        assert!(payload(&mut decoder, &second, second.len(), 31 * SECOND).is_err());
        assert_eq!(decoder.incomplete(), 2);
        assert_eq!(payload(&mut decoder, &first, first.len(), 32 * SECOND), Ok(expected()));
        assert_eq!(decoder.incomplete(), 1);
    }

    #[test]
    fn fragments_seen_twice_open_no_second_datagram() {
        let mut decoder = Decoder::default();
        let (first, second) = (part(1, 0, 16), part(1, 16, 48));
        assert_eq!(last(&mut decoder, &[first.clone(), first.clone(), second.clone()]), Ok(expected()));
        assert_eq!(payload(&mut decoder, &second, second.len(), 1000), Err(Undecoded::Fragment));
        assert_eq!(decoder.incomplete(), 0);
        // Later the same number is another datagram's.
        assert!(payload(&mut decoder, &first, first.len(), 2 * SECOND).is_err());
        assert_eq!(payload(&mut decoder, &second, second.len(), 2 * SECOND), Ok(expected()));
    }

    #[test]
    fn waiting_fragments_stay_within_their_limits() {
        let mut fragments = Fragments::default();
        let mut whole = Vec::new();
        let addresses = Addresses { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into() };
        let data = vec![0; 60_000];
        for id in 0..10_000 {
            let fragment = Fragment { id, offset: 8, more: true, protocol: 17 };
            let size = if id < 5000 { data.len() } else { 8 };
            let bytes = Bytes { data: &data[..size], cut: 0 };
            assert_eq!(fragments.add(addresses, fragment, bytes, Timestamp(0), &mut whole), None);
            assert!(fragments.cost <= MOST_BYTES && fragments.datagrams.len() <= MOST_DATAGRAMS);
        }
        assert_eq!(fragments.incomplete(), 10_000);
        assert_eq!(fragments.datagrams.len(), MOST_DATAGRAMS);
    }
}
