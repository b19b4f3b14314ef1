//! The master PCAP: the packets captured last, ready to be sent, in memory that never grows.
//!
//! Packets are numbered from 1 and kept as encoded pcapng blocks in segments of one size. When the last segment is full
//! and there is no room for another, the oldest is flushed and its memory used again.

use std::collections::VecDeque;

use crate::capture::pcapng::{self, Packet};

/// The least size: two segments that hold the largest frame.
pub const LEAST: usize = 1 << 20;

/// How many segments the buffer is cut into, if they are large enough then: what is flushed at once.
const SEGMENTS: usize = 32;

/// The buffer of packets.
#[derive(Debug)]
pub struct Master {
    /// Oldest first; numbers rise by one from packet to packet across all of them.
    segments: VecDeque<Segment>,
    /// Memory for segments that do not exist yet.
    spare: Vec<Vec<u8>>,
    /// How many bytes a segment holds.
    room: usize,
    /// How many segments were flushed so far.
    flushed: u64,
    /// The number of the next packet.
    next: u64,
}

#[derive(Debug)]
struct Segment {
    blocks: Vec<u8>,
    /// Number of its first packet.
    first: u64,
    /// Latest time of its packets.
    latest: u64,
}

/// A place between two packets, from which a session reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The number of the next packet to be read.
    pub next: u64,
    /// Its segment, counted from the first that there ever was.
    segment: u64,
    /// Where in that segment it starts.
    offset: usize,
}

/// Packets that were flushed before they could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// The number of the first.
    pub from: u64,
    /// How many.
    pub count: u64,
}

impl Master {
    /// Reserves `size` bytes (at least [`LEAST`]) for frames of which at most `snaplen` bytes are kept.
    #[must_use]
    pub fn new(size: usize, snaplen: u32) -> Self {
        let size = size.max(LEAST);
        let room = (size / SEGMENTS).max(snaplen as usize + pcapng::PACKET_OVERHEAD);
        // Reserved at once, so that a pod without the memory shows at the start; pages are used as packets come.
        let spare = (0..size / room).map(|_| Vec::with_capacity(room)).collect();
        Self { segments: VecDeque::with_capacity(size / room), spare, room, flushed: 0, next: 1 }
    }

    /// Stores a packet, whose number it fills in.
    pub fn push(&mut self, packet: Packet<'_>) {
        let length = packet.data.iter().map(|piece| piece.len()).sum::<usize>() + pcapng::PACKET_OVERHEAD;
        if self.segments.back().is_none_or(|segment| segment.blocks.len() + length > self.room) {
            let blocks = self.spare.pop().or_else(|| self.flush()).unwrap_or_default();
            self.segments.push_back(Segment { blocks, first: self.next, latest: 0 });
        }
        if let Some(segment) = self.segments.back_mut() {
            pcapng::packet(&mut segment.blocks, &Packet { id: Some(self.next), ..packet });
            segment.latest = segment.latest.max(packet.time);
            self.next += 1;
        }
    }

    /// Flushes the oldest segment; returns its memory.
    fn flush(&mut self) -> Option<Vec<u8>> {
        let mut blocks = self.segments.pop_front()?.blocks;
        blocks.clear();
        self.flushed += 1;
        Some(blocks)
    }

    /// The number of the oldest packet; that of the next one if there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.first)
    }

    /// The number that the next packet gets.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes stored.
    #[must_use]
    pub fn used(&self) -> usize {
        self.segments.iter().map(|segment| segment.blocks.len()).sum()
    }

    /// Bytes reserved.
    #[must_use]
    pub fn size(&self) -> usize {
        self.room * (self.segments.len() + self.spare.len())
    }

    /// When the oldest packet was captured.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.segments.front().and_then(|segment| time(&segment.blocks))
    }

    /// The place before packet `number`. One that is flushed keeps its number, so that reading tells how many are
    /// missing; one that is yet to come gives the end.
    #[must_use]
    pub fn at(&self, number: u64) -> Cursor {
        if number < self.first() {
            return Cursor { next: number.max(1), segment: 0, offset: 0 };
        }
        self.find(|segment| segment.first <= number, |next, _| next >= number)
    }

    /// The place before the first packet that was captured at `from` or later.
    #[must_use]
    pub fn since(&self, from: u64) -> Cursor {
        let is_older = |segment: &Segment| segment.latest < from;
        let older = self.segments.iter().take_while(|segment| is_older(segment)).count();
        let first = self.segments.get(older).map_or(self.next, |segment| segment.first);
        self.find(|segment| segment.first <= first, |_, block| time(block).is_some_and(|time| time >= from))
    }

    /// Walks the last segment for which `is_before` holds to the first packet that `is_it`, or to the end.
    fn find(&self, is_before: impl Fn(&Segment) -> bool, is_it: impl Fn(u64, &[u8]) -> bool) -> Cursor {
        let at = self.segments.iter().take_while(|segment| is_before(segment)).count().saturating_sub(1);
        let mut cursor = Cursor { next: self.next, segment: self.flushed + at as u64, offset: 0 };
        let Some(segment) = self.segments.get(at) else { return cursor };
        cursor.next = segment.first;
        while let Some(block) = first_block(&segment.blocks, cursor.offset) {
            if is_it(cursor.next, block) {
                break;
            }
            cursor.offset += block.len();
            cursor.next += 1;
        }
        cursor
    }

    /// Appends packets from the cursor on to `out`, until that holds `limit` bytes or there are no more. If the packets
    /// at the cursor were flushed, says so instead and goes on at the oldest.
    pub fn read(&self, cursor: &mut Cursor, out: &mut Vec<u8>, limit: usize) -> Option<Flushed> {
        let first = self.first();
        if cursor.next < first || cursor.segment < self.flushed {
            let flushed = Flushed { from: cursor.next, count: first.saturating_sub(cursor.next) };
            *cursor = Cursor { next: first, segment: self.flushed, offset: 0 };
            if flushed.count > 0 {
                return Some(flushed);
            }
        }
        while let Some(segment) = self.segments.get((cursor.segment - self.flushed) as usize) {
            let start = cursor.offset;
            while out.len() + (cursor.offset - start) < limit
                && let Some(block) = first_block(&segment.blocks, cursor.offset)
            {
                cursor.offset += block.len();
                cursor.next += 1;
            }
            out.extend_from_slice(segment.blocks.get(start..cursor.offset).unwrap_or_default());
            if cursor.next == self.next || cursor.offset < segment.blocks.len() {
                break;
            }
            cursor.segment += 1;
            cursor.offset = 0;
        }
        None
    }
}

/// The whole block at `offset`.
fn first_block(blocks: &[u8], offset: usize) -> Option<&[u8]> {
    let blocks = blocks.get(offset..)?;
    let length = blocks.get(4..8)?.try_into().ok().map(u32::from_le_bytes)?;
    blocks.get(..length as usize)
}

/// The timestamp of the packet block at the start.
fn time(block: &[u8]) -> Option<u64> {
    let word = |at: usize| block.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    Some(u64::from(word(12)?) << 32 | u64::from(word(16)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    /// A master PCAP after `count` packets of 1000 bytes, one each 10 ns from time 10 on.
    fn master(count: u64) -> Master {
        let mut master = Master::new(LEAST, 1000);
        more(&mut master, count);
        master
    }

    fn more(master: &mut Master, count: u64) {
        for _ in 0..count {
            let time = master.next() * 10;
            master.push(Packet { time, data: &[&[7; 600], &[8; 400]], len: 2000, ..Packet::default() });
        }
    }

    /// The numbers of the packets read from the cursor on, and what was flushed.
    fn read(master: &Master, cursor: &mut Cursor) -> (Vec<u64>, Option<Flushed>) {
        let mut out = Vec::new();
        let flushed = master.read(cursor, &mut out, 1 << 30);
        if flushed.is_some() {
            master.read(cursor, &mut out, 1 << 30);
        }
        let mut numbers = Vec::new();
        let mut at = 0;
        while let Some(block) = first_block(&out, at) {
            numbers.push(u64::from_le_bytes(block[block.len() - 16..block.len() - 8].try_into().unwrap()));
            at += block.len();
        }
        (numbers, flushed)
    }

    #[test]
    fn numbers_from_one_without_holes() {
        let master = master(100);
        let (numbers, flushed) = read(&master, &mut master.at(1));
        assert_eq!((numbers, flushed), ((1..=100).collect(), None));
        assert_eq!((master.first(), master.next()), (1, 101));
    }

    #[test]
    fn size_stays_as_it_was() {
        let mut master = master(0);
        let size = master.size();
        assert!(size <= LEAST && size > LEAST * 9 / 10, "{size}");
        more(&mut master, 10_000);
        assert_eq!(master.size(), size);
        assert!(master.used() <= size && master.used() > size * 8 / 10);
        assert!(master.segments.iter().all(|segment| segment.blocks.capacity() == master.room));
    }

    #[test]
    fn lapped_reader_learns_exactly_how_many_it_missed() {
        let mut master = master(10);
        let mut cursor = master.at(1);
        assert_eq!(read(&master, &mut cursor).0.len(), 10);
        more(&mut master, 10_000);
        let first = master.first();
        let (numbers, flushed) = read(&master, &mut cursor);
        assert_eq!(flushed, Some(Flushed { from: 11, count: first - 11 }));
        assert_eq!(numbers, (first..=10_010).collect::<Vec<_>>());
        assert_eq!(read(&master, &mut cursor), (Vec::new(), None));
    }

    #[test]
    fn reader_at_the_end_misses_nothing_when_its_segment_goes() {
        let mut master = master(10);
        let mut cursor = master.at(11);
        for number in 11..5000 {
            more(&mut master, 1);
            assert_eq!(read(&master, &mut cursor), (vec![number], None));
        }
        assert!(master.flushed > 10);
    }

    #[test]
    fn finds_numbers_and_times() {
        let mut master = master(0);
        assert_eq!(read(&master, &mut master.at(1)), (Vec::new(), None));
        more(&mut master, 5000);
        let first = master.first();
        assert!(first > 1);
        assert_eq!(master.oldest(), Some(first * 10));
        for number in [first, first + 1, 4500, 4999, 5000] {
            assert_eq!(master.at(number).next, number);
            assert_eq!(master.since(number * 10).next, number);
            assert_eq!(master.since(number * 10 - 9).next, number);
            assert_eq!(read(&master, &mut master.at(number)).0[0], number);
        }
        assert_eq!(master.since(0).next, first);
        assert_eq!(master.since(50_001).next, 5001);
        assert_eq!(master.at(9999).next, 5001);
        let (numbers, flushed) = read(&master, &mut master.at(1));
        assert_eq!((numbers[0], flushed), (first, Some(Flushed { from: 1, count: first - 1 })));
    }

    #[test]
    fn the_largest_frame_fits_a_segment() {
        let mut master = Master::new(LEAST, 262_144);
        let frame = vec![0; 262_144];
        for _ in 0..10 {
            let direction = pcapng::Direction::Inbound;
            master.push(Packet { data: &[&frame], dropped: 1, direction, ..Packet::default() });
        }
        assert_eq!(master.first(), 8);
        assert!(master.segments.iter().all(|segment| segment.blocks.capacity() == master.room));
    }
}
