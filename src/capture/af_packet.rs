//! Frames of this network namespace from the kernel, through a ring that it shares with us (`AF_PACKET`, `TPACKET_V3`).
//!
//! One socket captures on all interfaces, rather than one socket each: frames of different interfaces stay in the order
//! in which they were seen, memory does not depend on how many interfaces there are, and one that is plugged in later is
//! captured from its first frame on. Each frame tells its interface and hardware type. No promiscuous mode, so no change
//! to any interface.
//!
//! The socket starts out deaf: it hears nothing until the filter is attached, and is bound only then.
//!
//! What the kernel changed in a frame on its way is put back: a VLAN tag that it took out, and the second view of what
//! crosses the loopback interface (see [`bpf`](super::bpf)).
#![allow(unsafe_code, reason = "the ring is memory shared with the kernel")]

use std::ffi::c_int;
use std::io;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libc::{sockaddr_ll, tpacket_block_desc, tpacket_hdr_v1, tpacket3_hdr};

use super::af_xdp::is_clone;
use super::backend::{BATCH, Backend, Frame, MOST_SNAPLEN, Unusable, Wanted};
use super::bpf::{self, Program};
use super::interface::{self, LINK_ETHERNET, link_type};
use super::pcapng::Direction;
use super::prefetch;
use super::socket::{self, Mapping, get, set};

/// A ring is cut into blocks of this size, so that the largest frame (64 KiB, by segmentation offload) wastes little.
const BLOCK: usize = BATCH;

/// The least ring: one block is read while another is filled.
const LEAST_RING: usize = 2 * BLOCK;

/// After this long, or twice as long, the kernel hands over a block that is not full: what delays a row on a quiet interface, and how
/// often a busy one wakes us.
const RETIRE: Duration = Duration::from_millis(50);

/// The space that the kernel reckons a frame to need; in this version of the ring it only has to divide the block.
const FRAME: usize = 2048;

/// A capture on all interfaces.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    ring: Ring,
    /// Index of the block that the kernel fills next.
    next: usize,
    snaplen: usize,
    dropped: u64,
    /// Interfaces that frames came from, and whether what passes them is another agent's clones.
    known: Vec<(u32, bool)>,
}

/// Where in a block the word is that tells whose it is.
const STATUS: usize = offset_of!(tpacket_block_desc, hdr) + offset_of!(tpacket_hdr_v1, block_status);

/// What we read of a block starts behind that word, which alone is shared while the block is ours.
const AFTER_STATUS: usize = STATUS + size_of::<u32>();

/// A block of frames, lent from the ring; dropping it gives it back to the kernel.
#[derive(Debug)]
struct Block<'a> {
    bytes: &'a [u8],
    status: &'a AtomicU32,
    snaplen: usize,
}

impl Capture {
    /// Opens a capture, through a ring of the size that is wanted, or less if the kernel refuses that much.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn open(wanted: &Wanted<'_>) -> Result<Self, Unusable> {
        Self::try_open(wanted).map_err(|cause| {
            let hint = match cause.kind() {
                io::ErrorKind::PermissionDenied => {
                    "it takes the capability NET_RAW: the container needs securityContext.capabilities.add: [NET_RAW] and \
                     runAsUser: 0"
                }
                io::ErrorKind::OutOfMemory => "ask for less with --ring",
                io::ErrorKind::InvalidInput => "the kernel refuses the program given by --filter",
                _ => return cause.into(),
            };
            Unusable::new(cause, hint)
        })
    }

    fn try_open(wanted: &Wanted<'_>) -> io::Result<Self> {
        let snaplen = if wanted.snaplen == 0 { MOST_SNAPLEN } else { wanted.snaplen.min(MOST_SNAPLEN) };
        // Protocol 0 hears nothing.
        let socket = socket::open(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        attach(&socket, wanted.filter, snaplen)?;
        let ring = Ring::map(&socket, wanted.ring)?;

        // SAFETY: all zeros is a valid sockaddr_ll, whose interface 0 is all of them.
        let mut address: sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        socket::bind(&socket, &address)?;
        Ok(Self { socket, ring, next: 0, snaplen: snaplen as usize, dropped: 0, known: Vec::new() })
    }
}

fn attach(socket: &OwnedFd, filter: &Program, snaplen: u32) -> io::Result<()> {
    let mut program = bpf::to_kernel(&filter.attachable(snaplen));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

impl Backend for Capture {
    fn name(&self) -> &'static str {
        "af_packet"
    }

    fn ring(&self) -> usize {
        self.ring.blocks * BLOCK
    }

    fn receive(&mut self, wait: Duration, take: &mut dyn FnMut(&Frame<'_>)) -> io::Result<()> {
        if !self.ring.is_ready(self.next) {
            socket::wait(&self.socket, wait)?;
        }
        if self.ring.is_ready(self.next) {
            let at = self.next;
            self.next = (self.next + 1) % self.ring.blocks;
            let (bytes, status) = self.ring.block(at);
            let block = Block { bytes, status, snaplen: self.snaplen };
            let known = &mut self.known;
            block.frames().filter(|frame| !has_clones(known, frame.interface)).for_each(|frame| take(&frame));
        }
        Ok(())
    }

    fn set_filter(&mut self, filter: &Program) -> io::Result<()> {
        // The kernel puts it in place of the old one between two frames.
        attach(&self.socket, filter, self.snaplen as u32)
    }

    fn dropped(&mut self) -> io::Result<u64> {
        // Asking resets the kernel's counters.
        let mut counters = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        get(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut counters)?;
        self.dropped += u64::from(counters.tp_drops);
        Ok(self.dropped)
    }
}

/// True for an interface on which another agent gets its clones of the pod's packets; `known` are those asked for before.
fn has_clones(known: &mut Vec<(u32, bool)>, index: u32) -> bool {
    if let Some((_, answer)) = known.iter().find(|(one, _)| *one == index) {
        return *answer;
    }
    let answer = interface::name(index).is_some_and(|name| is_clone(&name));
    known.push((index, answer));
    answer
}

impl<'a> Block<'a> {
    /// Its frames, in order of capture.
    fn frames(&self) -> impl Iterator<Item = Frame<'a>> + use<'a> {
        const HEADER: usize = offset_of!(tpacket_block_desc, hdr);
        let (bytes, snaplen) = (self.bytes, self.snaplen);
        let field = |offset| u32_at(bytes, HEADER + offset - AFTER_STATUS).unwrap_or(0);
        let mut left = field(offset_of!(tpacket_hdr_v1, num_pkts));
        let mut at = (field(offset_of!(tpacket_hdr_v1, offset_to_first_pkt)) as usize).saturating_sub(AFTER_STATUS);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let bytes = bytes.get(at..)?;
            let length = u32_at(bytes, offset_of!(tpacket3_hdr, tp_next_offset))? as usize;
            at += length;
            prefetch::read(bytes, length);
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

/// The ring's memory.
#[derive(Debug)]
struct Ring {
    memory: Mapping,
    blocks: usize,
}

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
        Mapping::of(socket, length, 0).map(|memory| Self { memory, blocks }).inspect_err(|_| {
            // A ring must be given back before another size can be asked for.
            let none =
                libc::tpacket_req3 { tp_block_size: 0, tp_block_nr: 0, tp_frame_size: 0, tp_frame_nr: 0, ..request };
            let _ = set(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &none);
        })
    }

    /// True if the kernel has handed that block to us.
    fn is_ready(&self, at: usize) -> bool {
        self.status(at).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    fn status(&self, at: usize) -> &AtomicU32 {
        assert!(at < self.blocks);
        // SAFETY: inside the mapping by the line before, aligned as the kernel lays blocks out, and only ever accessed
        // atomically by both sides.
        unsafe { AtomicU32::from_ptr(self.memory.start().add(at * BLOCK + STATUS).cast()) }
    }

    /// A block that is ready, and the word that gives it back.
    fn block(&mut self, at: usize) -> (&[u8], &AtomicU32) {
        assert!(at < self.blocks && self.is_ready(at));
        // SAFETY: inside the mapping, and the kernel does not write to the block until its status says so, which happens
        // when the `Block` that holds this slice is dropped. The status word itself is not in the slice.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.memory.start().add(at * BLOCK + AFTER_STATUS), BLOCK - AFTER_STATUS)
        };
        (bytes, self.status(at))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::super::interface::LINK_RAW_IP;
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
