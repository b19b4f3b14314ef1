//! Frames of this network namespace from the kernel, through a ring that it shares with us (`AF_PACKET`, `TPACKET_V3`).
//!
//! One socket captures on all interfaces, rather than one socket each: frames of different interfaces stay in the order
//! in which they were seen, memory does not depend on how many interfaces there are, and one that is plugged in later is
//! captured from its first frame on. Each frame tells its interface and hardware type. No promiscuous mode, so no change
//! to any interface.
//!
//! The socket starts out deaf: it hears nothing until the filter is attached and locked, and is bound only then.
//!
//! What the kernel changed in a frame on its way is put back: a VLAN tag that it took out, and the second view of what
//! crosses the loopback interface (see [`bpf`](super::bpf)).
#![allow(unsafe_code, reason = "the ring is memory shared with the kernel")]

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{sockaddr_ll, tpacket_block_desc, tpacket_hdr_v1, tpacket3_hdr};

use super::bpf::{self, Program, Tag};
use super::pcapng::Direction;

/// The most bytes that are ever kept of a frame; what libpcap takes for "all".
pub const MOST_SNAPLEN: u32 = 262_144;

/// A ring is cut into blocks of this size, so that the largest frame (64 KiB, by segmentation offload) wastes little.
const BLOCK: usize = 256 << 10;

/// The least ring: one block is read while another is filled.
pub const LEAST_RING: usize = 2 * BLOCK;

/// After this long the kernel hands over a block that is not full: what delays a row on a quiet interface.
const RETIRE: Duration = Duration::from_millis(20);

/// The space that the kernel reckons a frame to need; in this version of the ring it only has to divide the block.
const FRAME: usize = 2048;

/// Link type Ethernet in the tcpdump.org registry.
const LINK_ETHERNET: u16 = 1;

/// Link type "IP packet without link header".
const LINK_RAW_IP: u16 = 101;

/// A capture on all interfaces.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    ring: Ring,
    /// Index of the block that the kernel fills next.
    next: usize,
    snaplen: usize,
    dropped: u64,
}

/// Where in a block the word is that tells whose it is.
const STATUS: usize = offset_of!(tpacket_block_desc, hdr) + offset_of!(tpacket_hdr_v1, block_status);

/// What we read of a block starts behind that word, which alone is shared while the block is ours.
const AFTER_STATUS: usize = STATUS + size_of::<u32>();

/// A block of frames, lent from the ring; dropping it gives it back to the kernel.
#[derive(Debug)]
pub struct Block<'a> {
    bytes: &'a [u8],
    status: &'a AtomicU32,
    snaplen: usize,
}

/// A frame in a block.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it was seen, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// Kernel's index of its interface.
    pub interface: u32,
    /// Link type of `data` by its number in the tcpdump.org registry.
    pub link: u16,
    /// Which way it went.
    pub direction: Direction,
    /// Its length on the wire, with its VLAN tag.
    pub len: u32,
    /// The bytes captured, in three pieces: addresses, VLAN tag, rest. Those of an untagged frame are all in the last.
    pub data: (&'a [u8], Tag, &'a [u8]),
    /// The kernel has dropped frames since [`Capture::dropped`] was last asked.
    pub losing: bool,
}

impl Capture {
    /// Opens a capture of what `filter` accepts, with at most `snaplen` bytes of each frame, through a ring of `ring`
    /// bytes, or less if the kernel refuses that much.
    ///
    /// # Errors
    /// Those of the system calls; `PermissionDenied` if the capability `NET_RAW` is missing, `OutOfMemory` if not even
    /// [`LEAST_RING`] is granted, `InvalidInput` if the kernel's own check refuses the filter.
    pub fn open(filter: &Program, snaplen: u32, ring: usize) -> io::Result<Self> {
        let snaplen = if snaplen == 0 { MOST_SNAPLEN } else { snaplen.min(MOST_SNAPLEN) };
        // SAFETY: a plain call; protocol 0 hears nothing.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        // SAFETY: it is checked to be a descriptor, new and ours.
        let socket = unsafe { OwnedFd::from_raw_fd(check(socket)?) };

        let mut program: Vec<libc::sock_filter> = filter
            .attachable(snaplen)
            .iter()
            .map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
            .collect();
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1_i32)?;

        let ring = Ring::map(&socket, ring)?;

        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: the address is valid for its size; interface 0 is all of them.
        check(unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<sockaddr_ll>() as libc::socklen_t)
        })?;
        Ok(Self { socket, ring, next: 0, snaplen: snaplen as usize, dropped: 0 })
    }

    /// Size of the ring in bytes.
    pub fn ring(&self) -> usize {
        self.ring.blocks * BLOCK
    }

    /// The next block of frames; none if none comes within `wait`.
    ///
    /// # Errors
    /// Those of `poll`, and what the socket has pending.
    pub fn block(&mut self, wait: Duration) -> io::Result<Option<Block<'_>>> {
        if !self.ring.is_ready(self.next) {
            self.poll(wait)?;
        }
        if !self.ring.is_ready(self.next) {
            return Ok(None);
        }
        let at = self.next;
        self.next = (self.next + 1) % self.ring.blocks;
        let (bytes, status) = self.ring.block(at);
        Ok(Some(Block { bytes, status, snaplen: self.snaplen }))
    }

    /// How many frames the kernel dropped since the capture began, for want of room in the ring.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn dropped(&mut self) -> io::Result<u64> {
        // Asking resets the kernel's counters.
        let mut counters = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        get(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut counters)?;
        self.dropped += u64::from(counters.tp_drops);
        Ok(self.dropped)
    }

    fn poll(&self, wait: Duration) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        match check(unsafe { libc::poll(&raw mut poll, 1, wait.as_millis() as c_int) }) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        };
        if poll.revents & libc::POLLERR != 0 {
            let mut error: c_int = 0;
            get(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR, &mut error)?;
            // An interface that goes down is no reason to stop: the others are still there.
            if error != 0 && error != libc::ENETDOWN {
                return Err(io::Error::from_raw_os_error(error));
            }
        }
        Ok(())
    }
}

impl<'a> Block<'a> {
    /// Its frames, in order of capture.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'a>> + use<'a> {
        const HEADER: usize = offset_of!(tpacket_block_desc, hdr);
        let (bytes, snaplen) = (self.bytes, self.snaplen);
        let field = |offset| u32_at(bytes, HEADER + offset - AFTER_STATUS).unwrap_or(0);
        let mut left = field(offset_of!(tpacket_hdr_v1, num_pkts));
        let mut at = (field(offset_of!(tpacket_hdr_v1, offset_to_first_pkt)) as usize).saturating_sub(AFTER_STATUS);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let bytes = bytes.get(at..)?;
            at += u32_at(bytes, offset_of!(tpacket3_hdr, tp_next_offset))? as usize;
            frame(bytes, snaplen)
        })
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        self.status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

/// The frame whose header is at the start of `bytes`.
fn frame(bytes: &[u8], snaplen: usize) -> Option<Frame<'_>> {
    const ADDRESS: usize = size_of::<tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
    const VARIANT: usize = offset_of!(tpacket3_hdr, hv1);
    let field = |offset| u32_at(bytes, offset);
    let status = field(offset_of!(tpacket3_hdr, tp_status))?;
    let start = usize::from(u16_at(bytes, offset_of!(tpacket3_hdr, tp_mac))?);
    let network = usize::from(u16_at(bytes, offset_of!(tpacket3_hdr, tp_net))?);
    let captured = field(offset_of!(tpacket3_hdr, tp_snaplen))? as usize;
    let mut len = field(offset_of!(tpacket3_hdr, tp_len))?;
    let hardware = u16_at(bytes, ADDRESS + offset_of!(sockaddr_ll, sll_hatype))?;
    let packet_type = *bytes.get(ADDRESS + offset_of!(sockaddr_ll, sll_pkttype))?;
    let whole = bytes.get(start..start + captured)?;

    let link = link_type(hardware);
    let data = if link == LINK_ETHERNET {
        let mut tag = None;
        let (mut addresses, mut rest) = (&whole[..0], whole);
        if status & libc::TP_STATUS_VLAN_VALID != 0
            && let Some(parts) = whole.split_at_checked(12)
        {
            (addresses, rest) = parts;
            let protocol = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                u16_at(bytes, VARIANT + offset_of!(libc::tpacket_hdr_variant1, tp_vlan_tpid))?
            } else {
                libc::ETH_P_8021Q as u16
            };
            let [a, b] = protocol.to_be_bytes();
            let [c, d] = (field(VARIANT + offset_of!(libc::tpacket_hdr_variant1, tp_vlan_tci))? as u16).to_be_bytes();
            tag = Some([a, b, c, d]);
            len += 4;
            // The tag counts: what is kept is no longer than the snaplen.
            rest = &rest[..rest.len().min(snaplen.saturating_sub(12 + 4))];
        }
        (addresses, tag, rest)
    } else {
        // Whatever the link header of a tunnel looks like, an IP packet follows it.
        let header = network.saturating_sub(start).min(whole.len());
        len = len.saturating_sub(header as u32);
        (&whole[..0], None, &whole[header..])
    };
    let seconds = u64::from(field(offset_of!(tpacket3_hdr, tp_sec))?);
    Some(Frame {
        time: seconds * 1_000_000_000 + u64::from(field(offset_of!(tpacket3_hdr, tp_nsec))?),
        interface: field(ADDRESS + offset_of!(sockaddr_ll, sll_ifindex))?,
        link,
        direction: if packet_type == bpf::OUTGOING { Direction::Outbound } else { Direction::Inbound },
        len,
        data,
        losing: status & libc::TP_STATUS_LOSING != 0,
    })
}

/// The name of an interface by the kernel's index; none if it is gone.
#[must_use]
pub fn interface_name(index: u32) -> Option<String> {
    let mut name: [libc::c_char; libc::IF_NAMESIZE] = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer is as long as the call asks for.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr()) }.is_null() {
        return None;
    }
    // SAFETY: on success the name in the buffer ends in a zero byte.
    Some(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// The interfaces of this network namespace: kernel's index and link type of their frames.
#[must_use]
pub fn interfaces() -> Vec<(u32, u16)> {
    let mut found = Vec::new();
    // SAFETY: a plain call; the list is read up to its end, an entry of index 0, and freed once.
    unsafe {
        let list = libc::if_nameindex();
        let mut entry = list;
        while !entry.is_null() && (*entry).if_index != 0 {
            found.extend(hardware_type((*entry).if_name).map(|hardware| ((*entry).if_index, link_type(hardware))));
            entry = entry.add(1);
        }
        if !list.is_null() {
            libc::if_freenameindex(list);
        }
    }
    found
}

/// The hardware type of an interface.
///
/// # Safety
/// `name` points to a string that ends in a zero byte.
unsafe fn hardware_type(name: *const libc::c_char) -> Option<u16> {
    // SAFETY: a plain call; it is checked to be a descriptor, new and ours.
    let socket = unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)).ok()?)
    };
    // SAFETY: all zeros is a valid ifreq; the copied name is shorter than its field, so it ends in a zero byte; the call
    // fills in the hardware address, whose family is the hardware type.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        libc::strncpy(request.ifr_name.as_mut_ptr(), name, libc::IF_NAMESIZE - 1);
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as _, &raw mut request)).ok()?;
        Some(request.ifr_ifru.ifru_hwaddr.sa_family)
    }
}

/// The link type of what is captured on an interface of that hardware type.
fn link_type(hardware: u16) -> u16 {
    match hardware {
        bpf::ETHERNET | bpf::LOOPBACK => LINK_ETHERNET,
        _ => LINK_RAW_IP,
    }
}

/// The ring's memory: mapped as long as this lives.
#[derive(Debug)]
struct Ring {
    start: NonNull<u8>,
    blocks: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; access through `&mut Capture` is exclusive.
unsafe impl Send for Ring {}

impl Ring {
    /// Asks for a ring of `size` bytes, then for half as many, and so on.
    fn map(socket: &OwnedFd, size: usize) -> io::Result<Self> {
        set(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as c_int))?;
        let mut blocks = (size.max(LEAST_RING) / BLOCK).min(u32::MAX as usize / BLOCK);
        loop {
            match Self::try_map(socket, blocks) {
                Err(cause) if cause.kind() == io::ErrorKind::OutOfMemory && blocks > LEAST_RING / BLOCK => {
                    blocks = (blocks / 2).max(LEAST_RING / BLOCK);
                }
                result => return result,
            }
        }
    }

    fn try_map(socket: &OwnedFd, blocks: usize) -> io::Result<Self> {
        let length = blocks * BLOCK;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: FRAME as u32,
            tp_frame_nr: (length / FRAME) as u32,
            tp_retire_blk_tov: RETIRE.as_millis() as u32,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, of the length that the ring was just given.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, socket.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            let cause = io::Error::last_os_error();
            // A ring must be given back before another size can be asked for.
            let none =
                libc::tpacket_req3 { tp_block_size: 0, tp_block_nr: 0, tp_frame_size: 0, tp_frame_nr: 0, ..request };
            set(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &none)?;
            return Err(cause);
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, blocks })
    }

    /// True if the kernel has handed that block to us.
    fn is_ready(&self, at: usize) -> bool {
        self.status(at).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    fn status(&self, at: usize) -> &AtomicU32 {
        assert!(at < self.blocks);
        // SAFETY: inside the mapping by the line before, aligned as the kernel lays blocks out, and only ever accessed
        // atomically by both sides.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(at * BLOCK + STATUS).cast()) }
    }

    /// A block that is ready, and the word that gives it back.
    fn block(&mut self, at: usize) -> (&[u8], &AtomicU32) {
        assert!(at < self.blocks && self.is_ready(at));
        // SAFETY: inside the mapping, and the kernel does not write to the block until its status says so, which happens
        // when the `Block` that holds this slice is dropped. The status word itself is not in the slice.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.start.as_ptr().add(at * BLOCK + AFTER_STATUS), BLOCK - AFTER_STATUS)
        };
        (bytes, self.status(at))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast::<c_void>(), self.blocks * BLOCK) };
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set<T>(socket: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value is valid for its size; the kernel only reads it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Reads an option of a type for which any bytes are a value.
fn get<T: Copy>(socket: &OwnedFd, level: c_int, option: c_int, value: &mut T) -> io::Result<()> {
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is valid for its size, and all callers pass plain numbers.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, std::ptr::from_mut(value).cast(), &raw mut size)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    /// A frame's header as the kernel lays it out, with 20 bytes captured.
    fn header(hardware: u16, status: u32, network: u16) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(offset_of!(tpacket3_hdr, tp_sec), &1_u32.to_ne_bytes());
        put(offset_of!(tpacket3_hdr, tp_nsec), &5_u32.to_ne_bytes());
        put(offset_of!(tpacket3_hdr, tp_snaplen), &20_u32.to_ne_bytes());
        put(offset_of!(tpacket3_hdr, tp_len), &60_u32.to_ne_bytes());
        put(offset_of!(tpacket3_hdr, tp_status), &status.to_ne_bytes());
        put(offset_of!(tpacket3_hdr, tp_mac), &80_u16.to_ne_bytes());
        put(offset_of!(tpacket3_hdr, tp_net), &network.to_ne_bytes());
        put(offset_of!(tpacket3_hdr, hv1) + 4, &7_u32.to_ne_bytes());
        put(offset_of!(tpacket3_hdr, hv1) + 8, &0x88a8_u16.to_ne_bytes());
        put(48 + offset_of!(sockaddr_ll, sll_hatype), &hardware.to_ne_bytes());
        put(80, b"ddddddsssssstt-data-");
        bytes
    }

    #[test]
    fn puts_the_tag_back_behind_the_addresses() {
        let bytes = header(1, libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID, 94);
        let frame = frame(&bytes, 1000).unwrap();
        assert_eq!(frame.data, (&b"ddddddssssss"[..], Some([0x88, 0xa8, 0, 7]), &b"tt-data-"[..]));
        assert_eq!((frame.len, frame.time), (64, 1_000_000_005));
        let unknown = header(1, libc::TP_STATUS_VLAN_VALID, 94);
        assert_eq!(super::frame(&unknown, 18).unwrap().data.1, Some([0x81, 0, 0, 7]));
        assert_eq!(super::frame(&unknown, 18).unwrap().data.2, b"tt");
    }

    #[test]
    fn a_tunnel_has_no_link_header() {
        let bytes = header(778, 0, 84);
        let frame = frame(&bytes, 1000).unwrap();
        assert_eq!((frame.link, frame.len, frame.data.2), (LINK_RAW_IP, 56, &b"ddsssssstt-data-"[..]));
    }

    #[test]
    fn a_header_that_points_outside_is_no_frame() {
        let mut bytes = header(1, 0, 94);
        bytes.truncate(99);
        assert!(frame(&bytes, 1000).is_none());
        assert!(frame(&[], 1000).is_none());
    }
}
