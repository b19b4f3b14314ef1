//! The master PCAP: the packets captured last, ready to be sent, in memory or a file that never grows.
//!
//! Packets are numbered from 1 and kept as encoded pcapng blocks in segments of one size. When the last segment is full
//! and there is no room for another, the oldest is flushed and its place used again.
//!
//! On disk, a segment is filled in memory and goes to the file when it is full. Neither that nor reading it back happens in
//! here: a disk may take its time, and whoever has the master PCAP has it for itself. So writing is what the capturing
//! thread does with a segment that it was handed ([`Master::unwritten`]), and a session that meets a segment on disk
//! is told where to read ([`Read::OnDisk`]) and asks afterwards whether that was still there ([`Master::accept`]).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::process;
use crate::capture::pcapng::{self, Packet};
use crate::capture::prefetch;

/// The least size: two segments that hold the largest frame.
pub const LEAST: usize = 1 << 20;

/// How many segments the buffer is cut into, if they are large enough then: what is flushed at once.
const SEGMENTS: usize = 32;

/// The most that is written to a disk at once: more would only take more memory.
const MOST_WRITTEN: usize = 512 << 10;

/// Segments in memory of a buffer on disk: one is filled, and one batch of frames can fill two.
const OPEN: usize = 3;

/// How many bytes of a segment lie between two of its marks, at least.
const STRIDE: usize = 16 << 10;

/// The shortest packet block; what claims to be shorter would never end.
const LEAST_BLOCK: usize = 32;

/// The buffer of packets.
#[derive(Debug)]
pub struct Master {
    /// Oldest first; numbers rise by one from packet to packet across all of them.
    segments: VecDeque<Segment>,
    /// The most segments.
    most: usize,
    /// Memory for segments that do not exist yet.
    spare: Vec<Vec<u8>>,
    /// How many bytes a segment holds.
    room: usize,
    /// How many segments were flushed so far.
    flushed: u64,
    /// The number of the next packet.
    next: u64,
    disk: Option<Arc<Disk>>,
}

#[derive(Debug)]
struct Segment {
    blocks: Blocks,
    /// Bytes of all its blocks.
    length: usize,
    /// Number of its first packet.
    first: u64,
    /// Time of its first packet.
    earliest: u64,
    /// Latest time of its packets.
    latest: u64,
    /// Places before some of its packets, about [`STRIDE`] apart, so that who reads much need not look at each packet.
    marks: Vec<Mark>,
}

/// A place in a segment, before the packet of that number.
#[derive(Clone, Copy, Debug)]
struct Mark {
    offset: usize,
    number: u64,
}

#[derive(Debug)]
enum Blocks {
    /// In memory; the last segment may still be added to.
    Open(Vec<u8>),
    /// In memory, about to be written.
    Full(Arc<Vec<u8>>),
    OnDisk,
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

/// A segment that is to be written to disk.
#[derive(Debug)]
pub struct Unwritten {
    disk: Arc<Disk>,
    segment: u64,
    blocks: Arc<Vec<u8>>,
}

impl Master {
    /// Reserves `size` bytes (at least [`LEAST`]) of memory for frames of which at most `snaplen` bytes are kept.
    #[must_use]
    pub fn new(size: usize, snaplen: u32) -> Self {
        let (room, most) = shape(size, snaplen, usize::MAX);
        Self::with(room, most, most, None)
    }

    /// Reserves `size` bytes on disk: `create` makes the file, for segments of so many bytes and so many of them.
    ///
    /// # Errors
    /// That of `create`.
    pub fn on_disk(
        size: usize,
        snaplen: u32,
        create: impl FnOnce(usize, usize) -> io::Result<Disk>,
    ) -> io::Result<Self> {
        let (room, most) = shape(size, snaplen, MOST_WRITTEN);
        Ok(Self::with(room, most, OPEN, Some(Arc::new(create(room, most)?))))
    }

    /// Memory is reserved at once, so that a pod without it shows at the start; a segment is used as packets come.
    fn with(room: usize, most: usize, in_memory: usize, disk: Option<Arc<Disk>>) -> Self {
        let spare = (0..in_memory).map(|_| Vec::with_capacity(room)).collect();
        Self { segments: VecDeque::with_capacity(most), most, spare, room, flushed: 0, next: 1, disk }
    }

    /// Stores a packet, whose number it fills in.
    pub fn push(&mut self, packet: Packet<'_>) {
        let length = packet.data.iter().map(|piece| piece.len()).sum::<usize>() + pcapng::PACKET_OVERHEAD;
        if self.segments.back().is_none_or(|segment| segment.length + length > self.room) {
            self.open(packet.time);
        }
        if let Some(segment) = self.segments.back_mut()
            && let Blocks::Open(blocks) = &mut segment.blocks
        {
            if segment.marks.last().map_or(0, |mark| mark.offset) + STRIDE <= segment.length {
                segment.marks.push(Mark { offset: segment.length, number: self.next });
            }
            prefetch::write(blocks.spare_capacity_mut(), length);
            pcapng::packet(blocks, &Packet { id: Some(self.next), ..packet });
            segment.length = blocks.len();
            segment.latest = segment.latest.max(packet.time);
            self.next += 1;
        }
    }

    /// Starts a segment, whose first packet is of that time.
    fn open(&mut self, time: u64) {
        if let (Some(_), Some(last)) = (&self.disk, self.segments.back_mut())
            && let Blocks::Open(blocks) = &mut last.blocks
        {
            last.blocks = Blocks::Full(Arc::new(std::mem::take(blocks)));
        }
        if self.segments.len() == self.most
            && let Some(oldest) = self.segments.pop_front()
        {
            self.flushed += 1;
            self.reuse(oldest.blocks);
        }
        let mut memory = self.spare.pop().unwrap_or_default();
        process::fault_in(memory.spare_capacity_mut());
        let blocks = Blocks::Open(memory);
        let marks = Vec::with_capacity(self.room / STRIDE);
        self.segments.push_back(Segment { blocks, length: 0, first: self.next, earliest: time, latest: 0, marks });
    }

    /// Keeps the memory of a segment for the next one.
    fn reuse(&mut self, blocks: Blocks) {
        let mut memory = match blocks {
            Blocks::Open(blocks) => blocks,
            Blocks::Full(blocks) => Arc::try_unwrap(blocks).unwrap_or_default(),
            Blocks::OnDisk => return,
        };
        memory.clear();
        self.spare.push(memory);
    }

    /// The oldest segment that is full and not on disk yet, if there is a disk. [`Master::written`] must follow.
    #[must_use]
    pub fn unwritten(&self) -> Option<Unwritten> {
        let disk = self.disk.as_ref()?;
        // They are the last but one, or but two.
        let from = self.segments.len().saturating_sub(OPEN);
        self.segments.iter().enumerate().skip(from).find_map(|(at, segment)| match &segment.blocks {
            Blocks::Full(blocks) => Some(Unwritten {
                disk: Arc::clone(disk),
                segment: self.flushed + at as u64,
                blocks: Arc::clone(blocks),
            }),
            _ => None,
        })
    }

    /// Takes note that a segment is on disk.
    pub fn written(&mut self, written: Unwritten) {
        let Unwritten { segment, blocks, .. } = written;
        drop(blocks);
        let at = segment.checked_sub(self.flushed).map(|at| at as usize);
        if let Some(segment) = at.and_then(|at| self.segments.get_mut(at)) {
            let blocks = std::mem::replace(&mut segment.blocks, Blocks::OnDisk);
            segment.marks = Vec::new();
            self.reuse(blocks);
        }
    }

    /// True if it is on disk.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.disk.is_some()
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
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Bytes reserved.
    #[must_use]
    pub fn size(&self) -> usize {
        self.room * self.most
    }

    /// When the oldest packet was captured.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.earliest)
    }

    /// When the latest packet was captured.
    #[must_use]
    pub fn latest(&self) -> Option<u64> {
        self.segments.back().map(|segment| segment.latest)
    }

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

    /// Appends packets from the cursor on, and before number `end`, to `out`, until that holds about `limit` bytes or there are no more in memory. If those
    /// at the cursor are elsewhere, says so instead.
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

impl Unwritten {
    /// Writes it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self) -> io::Result<()> {
        self.disk.write(self.segment, &self.blocks)
    }
}

/// How large segments are, and how many there may be.
fn shape(size: usize, snaplen: u32, most: usize) -> (usize, usize) {
    let size = size.max(LEAST);
    let room = (size / SEGMENTS).min(most).max(snaplen as usize + pcapng::PACKET_OVERHEAD);
    (room, size / room)
}

/// The whole block at `offset`.
pub(super) fn first_block(blocks: &[u8], offset: usize) -> Option<&[u8]> {
    let blocks = blocks.get(offset..)?;
    let length = blocks.get(4..8)?.try_into().ok().map(u32::from_le_bytes)?;
    blocks.get(..length as usize).filter(|block| block.len() >= LEAST_BLOCK)
}

/// The timestamp of the packet block at the start.
pub(super) fn time(block: &[u8]) -> Option<u64> {
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

    fn capacity(segment: &Segment) -> usize {
        match &segment.blocks {
            Blocks::Open(blocks) => blocks.capacity(),
            Blocks::Full(blocks) => blocks.capacity(),
            Blocks::OnDisk => 0,
        }
    }

    /// Writes what is to be written, as the capturing thread does.
    fn write(master: &mut Master) {
        while let Some(unwritten) = master.unwritten() {
            unwritten.write().unwrap();
            master.written(unwritten);
        }
    }

    /// The numbers of the packets read from the cursor on, and what was flushed.
    fn read(master: &Master, cursor: &mut Cursor) -> (Vec<u64>, Option<Flushed>) {
        let mut out = Vec::new();
        let mut flushed = None;
        loop {
            let from = out.len();
            match master.read(u64::MAX, cursor, &mut out, 1 << 30) {
                Read::Done if out.len() == from => break,
                Read::Done => {}
                Read::Flushed(these) => flushed = Some(these),
                Read::OnDisk(extent) => {
                    extent.read(&mut out, 2000).unwrap();
                    master.accept(cursor, &mut out, from);
                }
            }
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
    fn size_stays_as_it_was() {
        let mut master = master(0);
        let size = master.size();
        assert!(size <= LEAST && size > LEAST * 9 / 10, "{size}");
        more(&mut master, 10_000);
        assert_eq!(master.size(), size);
        assert!(master.used() <= size && master.used() > size * 8 / 10);
        assert!(master.segments.iter().all(|segment| capacity(segment) == master.room));
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
    fn on_disk_it_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let create = |room, slots| Disk::create(&folder.path().join("buffer"), room, slots);
        let mut master = Master::on_disk(LEAST, 1000, create).unwrap();
        let (mut cursor, mut due) = (master.at(1), 1);
        for _ in 0..200 {
            more(&mut master, 33);
            write(&mut master);
            let (numbers, flushed) = read(&master, &mut cursor);
            assert_eq!((numbers, flushed), ((due..due + 33).collect(), None));
            due += 33;
        }
        assert!(master.is_on_disk() && master.flushed > 100);
        let memory: usize = master.spare.iter().map(Vec::capacity).sum();
        assert!(memory <= OPEN * master.room, "{memory}");
        let first = master.first();
        let (numbers, flushed) = read(&master, &mut master.at(1));
        assert_eq!(numbers, (first..due).collect::<Vec<_>>());
        assert_eq!(flushed, Some(Flushed { from: 1, count: first - 1 }));
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

    #[test]
    fn the_largest_frame_fits_a_segment() {
        let mut master = Master::new(LEAST, 262_144);
        let frame = vec![0; 262_144];
        for _ in 0..10 {
            let direction = pcapng::Direction::Inbound;
            master.push(Packet { data: &[&frame], dropped: 1, direction, ..Packet::default() });
        }
        assert_eq!(master.first(), 8);
        assert!(master.segments.iter().all(|segment| capacity(segment) == master.room));
    }
}
