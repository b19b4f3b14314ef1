//! An AF_XDP socket that receives: memory that the kernel copies frames into, and the rings that say where.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::io;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{sockaddr_xdp, xdp_desc, xdp_mmap_offsets, xdp_ring_offset, xdp_statistics, xdp_umem_reg};

use super::super::socket::{self, Mapping, get, set};

/// A frame takes one of these, or several if it is longer. The kernel keeps the first 256 bytes of each to itself.
const CHUNK: usize = 2048;

/// The fewest chunks: a frame of 64 KiB takes 37.
pub(super) const LEAST: usize = 128 * CHUNK;

/// The most that a frame in several pieces may have: more is not a frame.
const LONGEST: usize = 256 << 10;

/// How long frames are let come once there is one: the kernel wakes us for each, and that costs more than all the rest.
const GATHER: Duration = Duration::from_millis(1);

/// The socket.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: OwnedFd,
    memory: Mapping,
    /// Chunks that the kernel may fill.
    fill: Ring<u64>,
    /// Pieces of frames that it has filled.
    received: Ring<xdp_desc>,
    /// The kernel wants it; nothing is ever sent.
    _completed: Ring<u64>,
    /// The pieces so far of a frame whose last one has not come.
    pieces: Vec<u8>,
}

impl Socket {
    /// Receives what is redirected to it on an interface's only queue, with about `size` bytes of memory.
    pub(super) fn new(interface: u32, size: usize) -> io::Result<Self> {
        let socket = socket::open(libc::AF_XDP, libc::SOCK_RAW, 0)?;
        // The rings' lengths are powers of two, and the one that is filled must have room for all chunks.
        let chunks = 1 << (size.max(LEAST) / CHUNK).ilog2();
        let memory = Mapping::anonymous(chunks * CHUNK)?;
        // SAFETY: all zeros is a valid value of each of these types.
        let (mut area, mut offsets, mut address) = unsafe {
            (
                std::mem::zeroed::<xdp_umem_reg>(),
                std::mem::zeroed::<xdp_mmap_offsets>(),
                std::mem::zeroed::<sockaddr_xdp>(),
            )
        };
        (area.addr, area.len, area.chunk_size) = (memory.start() as u64, memory.length() as u64, CHUNK as u32);
        set(&socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &area)?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            set(&socket, libc::SOL_XDP, ring, &(chunks as u32))?;
        }
        get(&socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let fill_at = libc::XDP_UMEM_PGOFF_FILL_RING.cast_signed();
        let completed_at = libc::XDP_UMEM_PGOFF_COMPLETION_RING.cast_signed();
        let mut fill = Ring::map(&socket, fill_at, &offsets.fr, chunks)?;
        let completed = Ring::map(&socket, completed_at, &offsets.cr, chunks)?;
        let received = Ring::map(&socket, libc::XDP_PGOFF_RX_RING, &offsets.rx, chunks)?;
        for chunk in 0..chunks {
            fill.push((chunk * CHUNK) as u64);
        }
        address.sxdp_family = libc::AF_XDP as u16;
        address.sxdp_ifindex = interface;
        address.sxdp_flags = libc::XDP_COPY | libc::XDP_USE_SG;
        socket::bind(&socket, &address)?;
        Ok(Self { descriptor: socket, memory, fill, received, _completed: completed, pieces: Vec::new() })
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// Bytes of memory for frames.
    pub(super) fn size(&self) -> usize {
        self.memory.length()
    }

    /// Hands over the frames that have come, until they are `limit` bytes; waits for `wait` if there are none.
    pub(super) fn receive(&mut self, wait: Duration, limit: usize, take: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
        if self.received.is_empty() {
            socket::wait(&self.descriptor, wait)?;
            if self.received.is_empty() {
                return Ok(());
            }
            std::thread::sleep(GATHER);
        }
        let mut length = 0;
        while length < limit
            && let Some(piece) = self.received.pop()
        {
            let start = piece.addr as usize;
            let end = start + piece.len as usize;
            assert!(end <= self.memory.length(), "the kernel reports a frame outside of what it was given");
            // SAFETY: inside the mapping by the line before, and the kernel does not touch the chunk until it is given back,
            // which is below.
            let bytes = unsafe { std::slice::from_raw_parts_mut(self.memory.start().add(start), end - start) };
            let is_last = piece.options & libc::XDP_PKT_CONTD == 0;
            if is_last && self.pieces.is_empty() {
                take(bytes);
            } else {
                let room = LONGEST.saturating_sub(self.pieces.len());
                self.pieces.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
                if is_last {
                    take(&mut self.pieces);
                    self.pieces.clear();
                }
            }
            length += end - start;
            self.fill.push((start - start % CHUNK) as u64);
        }
        Ok(())
    }

    /// How many frames were dropped since the beginning for want of chunks or of room in the ring.
    pub(super) fn dropped(&self) -> io::Result<u64> {
        // SAFETY: all zeros is a valid value.
        let mut counters: xdp_statistics = unsafe { std::mem::zeroed() };
        get(&self.descriptor, libc::SOL_XDP, libc::XDP_STATISTICS, &mut counters)?;
        Ok(counters.rx_dropped + counters.rx_ring_full)
    }
}

/// What the kernel's clock shows that never goes back, in nanoseconds: the one that programs read.
pub(super) fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure in.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// A ring between the kernel and us: each side owns one of two numbers that only rise.
#[derive(Debug)]
struct Ring<T> {
    memory: Mapping,
    producer: usize,
    consumer: usize,
    entries: usize,
    length: u32,
    kind: std::marker::PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    fn map(socket: &OwnedFd, offset: libc::off_t, offsets: &xdp_ring_offset, length: usize) -> io::Result<Self> {
        const { assert!(offset_of!(xdp_desc, addr) == 0) };
        let (producer, consumer, entries) =
            (offsets.producer as usize, offsets.consumer as usize, offsets.desc as usize);
        let memory = Mapping::of(socket, entries + length * size_of::<T>(), offset)?;
        Ok(Self { memory, producer, consumer, entries, length: length as u32, kind: std::marker::PhantomData })
    }

    fn number(&self, at: usize) -> &AtomicU32 {
        // SAFETY: where the kernel said that it is, aligned as it lays rings out, and only ever accessed atomically.
        unsafe { AtomicU32::from_ptr(self.memory.start().add(at).cast()) }
    }

    fn entry(&self, number: u32) -> *mut T {
        let at = (number & (self.length - 1)) as usize;
        // SAFETY: the length is a power of two, so it is inside the mapping.
        unsafe { self.memory.start().add(self.entries + at * size_of::<T>()).cast() }
    }

    fn is_empty(&self) -> bool {
        self.number(self.producer).load(Ordering::Acquire) == self.number(self.consumer).load(Ordering::Relaxed)
    }

    /// The next entry of a ring that the kernel fills.
    fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let number = self.number(self.consumer).load(Ordering::Relaxed);
        // SAFETY: the kernel has written it before it raised its number, and does not again before we raise ours.
        let entry = unsafe { self.entry(number).read() };
        self.number(self.consumer).store(number.wrapping_add(1), Ordering::Release);
        Some(entry)
    }

    /// Adds an entry to a ring that the kernel empties. There is room for as many as there are chunks.
    fn push(&mut self, entry: T) {
        let number = self.number(self.producer).load(Ordering::Relaxed);
        // SAFETY: the kernel does not read it before we raise our number, and has read what was there before: no chunk is in
        // the ring twice.
        unsafe { self.entry(number).write(entry) };
        self.number(self.producer).store(number.wrapping_add(1), Ordering::Release);
    }
}
