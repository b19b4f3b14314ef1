//! AF_XDP sockets that receive: memory that the kernel copies frames into, and the rings that say where.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{sockaddr_xdp, xdp_desc, xdp_mmap_offsets, xdp_ring_offset, xdp_statistics, xdp_umem_reg};

use super::super::socket::{self, Mapping, check, get, set};

/// A frame takes one of these, or several if it is longer. The kernel keeps the first 256 bytes of each to itself.
const CHUNK: usize = 2048;

/// The least memory of a socket: a frame of 64 KiB takes 37 chunks.
const LEAST: usize = 64 * CHUNK;

/// The most sockets.
const MOST: usize = 16;

/// The most that a frame in several pieces may have: more is not a frame.
const LONGEST: usize = 256 << 10;

/// How long frames are let come once there is one: the kernel wakes us for each, and that costs more than all the rest.
/// Besides, those of other queues that are older have come by then.
const GATHER: Duration = Duration::from_millis(1);

/// A socket on each queue of an interface.
#[derive(Debug)]
pub(super) struct Sockets(Vec<Socket>);

impl Sockets {
    /// How many queues go with about `size` bytes of memory: a power of two.
    pub(super) fn queues(size: usize) -> u32 {
        1 << (size / LEAST).clamp(1, MOST).ilog2()
    }

    /// Receives what is redirected to them.
    pub(super) fn new(interface: u32, queues: u32, size: usize) -> io::Result<Self> {
        let socket = |queue| Socket::new(interface, queue, size / queues as usize);
        Ok(Self((0..queues).map(socket).collect::<io::Result<_>>()?))
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter().map(|socket| &socket.descriptor)
    }

    /// Bytes of memory for frames.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(|socket| socket.memory.length()).sum()
    }

    /// Hands over frames that have come, in order of the times that they start with, until they are about `limit` bytes; waits
    /// for `wait` if there are none.
    pub(super) fn receive(&mut self, wait: Duration, limit: usize, take: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
        if self.0.iter().all(|socket| socket.received.is_empty()) {
            self.wait(wait)?;
            if self.0.iter().all(|socket| socket.received.is_empty()) {
                return Ok(());
            }
        }
        let now = monotonic();
        std::thread::sleep(GATHER);
        let mut times: Vec<Option<u64>> = self.0.iter().map(Socket::time).collect();
        let mut length = 0;
        while length < limit {
            let next = times.iter().enumerate().filter_map(|(at, time)| Some(((*time)?, at))).min();
            // One that is younger may have older ones behind it in other queues.
            let Some((_, at)) = next.filter(|(time, _)| *time <= now) else { break };
            let (Some(socket), Some(time)) = (self.0.get_mut(at), times.get_mut(at)) else { break };
            length += socket.take(take);
            *time = socket.time();
        }
        Ok(())
    }

    fn wait(&self, time: Duration) -> io::Result<()> {
        let poll =
            |socket: &Socket| libc::pollfd { fd: socket.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut polls: Vec<_> = self.0.iter().map(poll).collect();
        // SAFETY: as many valid pollfds as it says.
        let polled = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, time.as_millis() as i32) };
        match check(polled) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// How many frames were dropped since the beginning for want of chunks or of room in a ring.
    pub(super) fn dropped(&self) -> io::Result<u64> {
        self.0.iter().map(Socket::dropped).sum()
    }
}

/// One of them.
#[derive(Debug)]
struct Socket {
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
    fn new(interface: u32, queue: u32, size: usize) -> io::Result<Self> {
        let descriptor = socket::open(libc::AF_XDP, libc::SOCK_RAW, 0)?;
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
        set(&descriptor, libc::SOL_XDP, libc::XDP_UMEM_REG, &area)?;
        set(&descriptor, libc::SOL_XDP, libc::XDP_UMEM_FILL_RING, &(chunks as u32))?;
        set(&descriptor, libc::SOL_XDP, libc::XDP_RX_RING, &(chunks as u32))?;
        set(&descriptor, libc::SOL_XDP, libc::XDP_UMEM_COMPLETION_RING, &1_u32)?;
        get(&descriptor, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let fill_at = libc::XDP_UMEM_PGOFF_FILL_RING.cast_signed();
        let completed_at = libc::XDP_UMEM_PGOFF_COMPLETION_RING.cast_signed();
        let mut fill = Ring::map(&descriptor, fill_at, &offsets.fr, chunks)?;
        let completed = Ring::map(&descriptor, completed_at, &offsets.cr, 1)?;
        let received = Ring::map(&descriptor, libc::XDP_PGOFF_RX_RING, &offsets.rx, chunks)?;
        for chunk in 0..chunks {
            fill.push((chunk * CHUNK) as u64);
        }
        address.sxdp_family = libc::AF_XDP as u16;
        address.sxdp_ifindex = interface;
        address.sxdp_queue_id = queue;
        address.sxdp_flags = libc::XDP_COPY | libc::XDP_USE_SG;
        socket::bind(&descriptor, &address)?;
        Ok(Self { descriptor, memory, fill, received, _completed: completed, pieces: Vec::new() })
    }

    /// The time that the next frame starts with; none if there is none.
    fn time(&self) -> Option<u64> {
        let piece = self.received.first()?;
        // A frame whose pieces have not all come is the one to go on with, and one without a time is not ours.
        let is_begun = !self.pieces.is_empty() || (piece.len as usize) < size_of::<u64>();
        Some(if is_begun { 0 } else { self.bytes(&piece).first_chunk().map_or(0, |time| u64::from_ne_bytes(*time)) })
    }

    /// Where a piece is.
    fn place(&self, piece: &xdp_desc) -> (*mut u8, usize) {
        let (start, length) = (piece.addr as usize, piece.len as usize);
        assert!(start + length <= self.memory.length(), "the kernel reports a frame outside of what it was given");
        // SAFETY: inside the mapping by the line before.
        (unsafe { self.memory.start().add(start) }, length)
    }

    /// The bytes of a piece that was received and not given back.
    fn bytes(&self, piece: &xdp_desc) -> &[u8] {
        let (start, length) = self.place(piece);
        // SAFETY: inside the mapping, and the kernel does not touch it until it is given back, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    /// Hands over the next frame, as far as it has come; returns how many bytes of it had.
    fn take(&mut self, take: &mut dyn FnMut(&mut [u8])) -> usize {
        let mut taken = 0;
        while let Some(piece) = self.received.pop() {
            let (start, length) = self.place(&piece);
            // SAFETY: inside the mapping, and the kernel does not touch it until it is given back, which is below.
            let bytes = unsafe { std::slice::from_raw_parts_mut(start, length) };
            let is_last = piece.options & libc::XDP_PKT_CONTD == 0;
            taken += length;
            if is_last && self.pieces.is_empty() {
                take(bytes);
            } else {
                let room = LONGEST.saturating_sub(self.pieces.len());
                self.pieces.extend_from_slice(bytes.get(..room.min(length)).unwrap_or_default());
                if is_last {
                    take(&mut self.pieces);
                    self.pieces.clear();
                }
            }
            self.fill.push(piece.addr - piece.addr % CHUNK as u64);
            if is_last {
                break;
            }
        }
        taken
    }

    fn dropped(&self) -> io::Result<u64> {
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
    fn first(&self) -> Option<T> {
        let number = self.number(self.consumer).load(Ordering::Relaxed);
        // SAFETY: the kernel has written it before it raised its number, and does not again before we raise ours.
        (!self.is_empty()).then(|| unsafe { self.entry(number).read() })
    }

    /// The same, and the kernel may use its place again.
    fn pop(&mut self) -> Option<T> {
        let entry = self.first()?;
        let number = self.number(self.consumer).load(Ordering::Relaxed);
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
