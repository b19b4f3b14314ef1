//! Reading the master PCAP from a cursor on, however far behind it is and wherever the packets are by now.

use std::io;
use std::sync::Arc;

use super::{Blocks, Mark, Master, STRIDE, Segment};
use crate::agent::disk::Disk;

/// The shortest packet block; what claims to be shorter would never end.
const LEAST_BLOCK: usize = 32;

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

/// What reading came to.
#[derive(Debug)]
pub enum Read {
    /// Packets were appended, or there are no more.
    Done,
    /// The packets at the cursor are gone; it is at the oldest now.
    Flushed(Flushed),
    /// The packets at the cursor are on disk.
    OnDisk(Extent),
}

/// Where packets are on disk.
#[derive(Debug)]
pub struct Extent {
    disk: Arc<Disk>,
    segment: u64,
    offset: usize,
    length: usize,
}

impl Master {
    /// A place at packet `number` or before it in its segment. One that is flushed keeps its number, so that reading tells
    /// how many are missing; one that is yet to come gives the end.
    #[must_use]
    pub fn at(&self, number: u64) -> Cursor {
        if number < self.first() {
            return Cursor { next: number.max(1), segment: 0, offset: 0 };
        }
        if number >= self.next {
            return self.end();
        }
        self.start(self.segments.iter().take_while(|segment| segment.first <= number).count().saturating_sub(1))
    }

    /// A place before all packets that were captured at `from` or later, and behind most others.
    #[must_use]
    pub fn since(&self, from: u64) -> Cursor {
        self.start(self.segments.iter().take_while(|segment| segment.latest < from).count())
    }

    /// The place before a segment.
    fn start(&self, at: usize) -> Cursor {
        let start = |segment: &Segment| Cursor { next: segment.first, segment: self.flushed + at as u64, offset: 0 };
        self.segments.get(at).map_or_else(|| self.end(), start)
    }

    /// The place behind the last packet.
    fn end(&self) -> Cursor {
        let segment = self.flushed + (self.segments.len() as u64).saturating_sub(1);
        Cursor { next: self.next, segment, offset: self.segments.back().map_or(0, |segment| segment.length) }
    }

    /// Appends packets from the cursor on, and before number `end`, to `out`, until that holds about `limit` bytes or
    /// there are no more in memory. If those at the cursor are elsewhere, says so instead.
    pub fn read(&self, end: u64, cursor: &mut Cursor, out: &mut Vec<u8>, limit: usize) -> Read {
        let first = self.first();
        if cursor.next < first || cursor.segment < self.flushed {
            let flushed = Flushed { from: cursor.next, count: first.saturating_sub(cursor.next) };
            *cursor = Cursor { next: first, segment: self.flushed, offset: 0 };
            if flushed.count > 0 {
                return Read::Flushed(flushed);
            }
        }
        let start = out.len();
        while out.len() < limit
            && cursor.next < end
            && let Some(segment) = self.segments.get((cursor.segment - self.flushed) as usize)
        {
            if cursor.offset == segment.length {
                if cursor.next == self.next {
                    break;
                }
                cursor.segment += 1;
                cursor.offset = 0;
                continue;
            }
            let blocks = match (&segment.blocks, &self.disk) {
                (Blocks::Open(blocks), _) => blocks,
                (Blocks::Full(blocks), _) => blocks,
                (Blocks::OnDisk, Some(disk)) if out.len() == start => {
                    let Cursor { segment, offset, .. } = *cursor;
                    let length = self.segments.get((segment - self.flushed) as usize).map_or(0, |it| it.length);
                    return Read::OnDisk(Extent { disk: Arc::clone(disk), segment, offset, length: length - offset });
                }
                (Blocks::OnDisk, _) => break,
            };
            let from = cursor.offset;
            let following = self.segments.get((cursor.segment - self.flushed) as usize + 1);
            let last = Mark { offset: segment.length, number: following.map_or(self.next, |next| next.first) };
            let most = from + (limit - out.len());
            let ahead = |mark: &&Mark| (from + 1..=most).contains(&mark.offset) && mark.number <= end;
            if let Some(mark) = std::iter::once(&last).chain(segment.marks.iter().rev()).find(ahead) {
                (cursor.offset, cursor.next) = (mark.offset, mark.number);
                out.extend_from_slice(blocks.get(from..cursor.offset).unwrap_or_default());
                if limit - out.len() < STRIDE {
                    break;
                }
                continue;
            }
            while out.len() + (cursor.offset - from) < limit
                && cursor.next < end
                && let Some(block) = first_block(blocks, cursor.offset)
            {
                cursor.offset += block.len();
                cursor.next += 1;
            }
            out.extend_from_slice(blocks.get(from..cursor.offset).unwrap_or_default());
        }
        Read::Done
    }

    /// Moves the cursor over the packets that were read from an extent to `out[from..]`; if they were flushed meanwhile,
    /// throws away what was read.
    pub fn accept(&self, cursor: &mut Cursor, out: &mut Vec<u8>, from: usize) {
        let mut end = from;
        if cursor.segment >= self.flushed {
            while let Some(block) = first_block(out, end) {
                end += block.len();
                cursor.offset += block.len();
                cursor.next += 1;
            }
        }
        out.truncate(end);
    }
}

impl Extent {
    /// Appends about `limit` bytes of it, but at least one packet, to `out`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&self, out: &mut Vec<u8>, limit: usize) -> io::Result<()> {
        let from = out.len();
        let mut length = limit.min(self.length);
        self.disk.read(self.segment, self.offset, length, out)?;
        // A large packet. What is no packet because it is being overwritten has a length too, and is noticed later.
        let first = out.get(from + 4..from + 8).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes);
        if first as usize > length {
            length = (first as usize).min(self.length);
            out.truncate(from);
            self.disk.read(self.segment, self.offset, length, out)?;
        }
        Ok(())
    }
}

/// The whole block at `offset`.
pub(in crate::agent) fn first_block(blocks: &[u8], offset: usize) -> Option<&[u8]> {
    let blocks = blocks.get(offset..)?;
    let length = blocks.get(4..8)?.try_into().ok().map(u32::from_le_bytes)?;
    blocks.get(..length as usize).filter(|block| block.len() >= LEAST_BLOCK)
}

/// The timestamp of the packet block at the start.
pub(in crate::agent) fn time(block: &[u8]) -> Option<u64> {
    let word = |at: usize| block.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    Some(u64::from(word(12)?) << 32 | u64::from(word(16)?))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test that can't go on has failed"
    )]
    use super::super::LEAST;
    use super::super::tests::{master, more, read, write};
    use super::*;

    #[test]
    fn numbers_from_one_without_holes() {
        let master = master(100);
        let (numbers, flushed) = read(&master, &mut master.at(1));
        assert_eq!((numbers, flushed), ((1..=100).collect(), None));
        assert_eq!((master.first(), master.next()), (1, 101));
    }

    #[test]
    fn reading_in_pieces_gives_whole_packets_and_no_more_than_asked_for() {
        let master = master(700);
        for limit in [1, 2000, STRIDE + 100, 2 * STRIDE + 100, 100 * STRIDE] {
            let (mut cursor, mut out, mut count) = (master.at(1), Vec::new(), 0);
            while cursor.next < 650 {
                out.clear();
                assert!(matches!(master.read(650, &mut cursor, &mut out, limit), Read::Done));
                assert!(!out.is_empty() && out.len() < limit.max(2000) + 2000);
                let mut at = 0;
                while let Some(block) = first_block(&out, at) {
                    at += block.len();
                    count += 1;
                }
                assert_eq!((at, cursor.next), (out.len(), 1 + count));
            }
            assert_eq!((cursor.next, count), (650, 649), "{limit}");
        }
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
        assert_eq!((master.oldest(), master.latest()), (Some(first * 10), Some(50_000)));
        // A segment holds some 30 packets.
        for number in [first, first + 1, 4500, 4999, 5000] {
            assert!((number.saturating_sub(31)..=number).contains(&master.at(number).next));
            assert_eq!(master.since(number * 10), master.at(number));
            assert_eq!(read(&master, &mut master.at(number)).0.last(), Some(&5000));
        }
        assert_eq!(master.since(0).next, first);
        assert_eq!(master.since(50_001).next, 5001);
        assert_eq!(master.at(9999).next, 5001);
        let (numbers, flushed) = read(&master, &mut master.at(1));
        assert_eq!((numbers[0], flushed), (first, Some(Flushed { from: 1, count: first - 1 })));
    }
    #[test]
    fn what_is_overwritten_while_it_is_read_counts_as_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let create = |room, slots| Disk::create(&folder.path().join("buffer"), room, slots);
        let mut master = Master::on_disk(LEAST, 1000, create).unwrap();
        let fill = |master: &mut Master| {
            for _ in 0..40 {
                more(master, 33);
                write(master);
            }
        };
        fill(&mut master);
        let first = master.first();
        let mut cursor = master.at(first);
        let mut out = Vec::new();
        let Read::OnDisk(extent) = master.read(u64::MAX, &mut cursor, &mut out, 9) else { panic!("not on disk") };
        fill(&mut master);
        extent.read(&mut out, 9).unwrap();
        master.accept(&mut cursor, &mut out, 0);
        assert!(out.is_empty());
        let (numbers, flushed) = read(&master, &mut cursor);
        assert_eq!(flushed, Some(Flushed { from: first, count: master.first() - first }));
        assert_eq!(numbers[0], master.first());
    }
}
