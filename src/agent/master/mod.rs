//! The master PCAP: the packets captured last, ready to be sent, in memory or a file that never grows.
//!
//! Packets are numbered from 1 and kept as encoded pcapng blocks in segments of one size. When the last segment is full
//! and there is no room for another, the oldest is flushed and its place used again.
//!
//! On disk, a segment is filled in memory and goes to the file when it is full. Neither that nor reading it back happens in
//! here: a disk may take its time, and whoever has the master PCAP has it for itself. So writing is what the capturing
//! thread does with a segment that it was handed ([`Master::unwritten`]), and a session that meets a segment on disk
//! is told where to read ([`Read::OnDisk`]) and asks afterwards whether that was still there ([`Master::accept`]).

mod cursor;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::process;
use crate::capture::pcapng::{self, Packet};
use crate::capture::prefetch;
pub use cursor::{Cursor, Flushed, Read};
pub(super) use cursor::{first_block, time};

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

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    /// A master PCAP after `count` packets of 1000 bytes, one each 10 ns from time 10 on.
    pub(super) fn master(count: u64) -> Master {
        let mut master = Master::new(LEAST, 1000);
        more(&mut master, count);
        master
    }

    pub(super) fn more(master: &mut Master, count: u64) {
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
    pub(super) fn write(master: &mut Master) {
        while let Some(unwritten) = master.unwritten() {
            unwritten.write().unwrap();
            master.written(unwritten);
        }
    }

    /// The numbers of the packets read from the cursor on, and what was flushed.
    pub(super) fn read(master: &Master, cursor: &mut Cursor) -> (Vec<u64>, Option<Flushed>) {
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
