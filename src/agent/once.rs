//! Leaves out what was seen before, for agents in a node's network, where the same packet passes a pod's interface, a
//! bridge, and the node's own interface.
//!
//! A packet is known by what stays the same from hop to hop: addresses, protocol, IP id and length, and the beginning of
//! what IP carries without its checksum, which the last interface may be the first to compute. Where it was seen first is
//! its place, an interface and a direction. What comes there again is another packet, such as a repetition; what comes
//! anywhere else soon after is the same one.
//!
//! Left are views that differ: before and after an address was translated, and what an interface has cut into segments or
//! has put together again. The plugin joins the former; reassembly takes the latter for repetitions.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use crate::capture::backend::Frame;
use crate::capture::interface::LINK_ETHERNET;
use crate::capture::pcapng::Direction;

/// How long after its first view, in nanoseconds, another one may come: routing takes microseconds, a queue more.
const WINDOW: u64 = 60_000_000;

/// Packets that are remembered at a time, in [`BUCKETS`]: those of [`WINDOW`] at some 250 000 a second.
const SLOTS: usize = BUCKETS * WAYS;

/// How many places in the table there are; a power of two.
const BUCKETS: usize = 4096;

/// Packets in each.
const WAYS: usize = 4;

/// How much is compared of what IP carries.
const COMPARED: usize = 64;

/// A table of fixed size of the packets that passed last.
#[derive(Debug)]
pub(super) struct Once {
    /// The keys are random: nobody can make a packet that is taken for another.
    hash: RandomState,
    slots: Vec<Slot>,
    /// Views that were left out.
    pub(super) repeated: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u64,
    time: u64,
    interface: u32,
    outbound: bool,
}

impl Once {
    pub(super) fn new() -> Self {
        Self { hash: RandomState::new(), slots: vec![Slot::default(); SLOTS], repeated: 0 }
    }

    /// True if the frame holds a packet that was just seen elsewhere; it is counted.
    pub(super) fn is_repeated(&mut self, frame: &Frame<'_>) -> bool {
        let Some(packet) = ip_packet(frame) else { return false };
        let mut hasher = self.hash.build_hasher();
        if feed(packet, &mut hasher).is_none() {
            return false;
        }
        let hash = hasher.finish();
        let outbound = frame.direction == Direction::Outbound;
        let new = Slot { hash, time: frame.time, interface: frame.interface, outbound };
        let start = (hash as usize % BUCKETS) * WAYS;
        let Some(bucket) = self.slots.get_mut(start..start + WAYS) else { return false };
        let known = bucket.iter_mut().find(|slot| slot.hash == hash && slot.time.abs_diff(frame.time) <= WINDOW);
        match known {
            Some(slot) if (slot.interface, slot.outbound) != (frame.interface, outbound) => {
                self.repeated += 1;
                true
            }
            Some(slot) => {
                *slot = new;
                false
            }
            None => {
                if let Some(oldest) = bucket.iter_mut().min_by_key(|slot| slot.time) {
                    *oldest = new;
                }
                false
            }
        }
    }
}

/// The IP packet in a frame, from its header on; none if there is none.
fn ip_packet<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    let (_, tag, rest) = frame.data;
    if frame.link != LINK_ETHERNET {
        return Some(rest);
    }
    // What follows the addresses, which are in a piece of their own if there is a tag.
    let mut rest = if tag.is_some() { rest } else { rest.get(12..)? };
    while let [0x81 | 0x88, 0x00 | 0xa8, _, _, inner @ ..] = rest {
        rest = inner;
    }
    match rest {
        [0x08, 0x00, packet @ ..] | [0x86, 0xdd, packet @ ..] => Some(packet),
        _ => None,
    }
}

/// Feeds what no hop changes; none if it is no IP packet.
fn feed(packet: &[u8], hasher: &mut impl Hasher) -> Option<()> {
    let (protocol, carried, is_first) = match packet.first()? >> 4 {
        4 => {
            let header = packet.get(..20)?;
            // Length, id, place in the original packet; protocol; addresses.
            hasher.write(header.get(2..8)?);
            hasher.write(header.get(12..20)?);
            let carried = packet.get(usize::from(header.first()? & 0x0f) * 4..)?;
            let offset = u16::from_be_bytes([*header.get(6)?, *header.get(7)?]) & 0x1fff;
            let is_first = offset == 0;
            (*header.get(9)?, carried, is_first)
        }
        6 => {
            let header = packet.get(..40)?;
            // Flow label; length and protocol; addresses.
            hasher.write(&[header.get(1)? & 0x0f]);
            hasher.write(header.get(2..6)?);
            hasher.write(header.get(8..40)?);
            (*header.get(6)?, packet.get(40..)?, true)
        }
        _ => return None,
    };
    hasher.write_u8(protocol);
    let mut head = [0; COMPARED];
    let length = carried.len().min(COMPARED);
    let head = head.get_mut(..length)?;
    head.copy_from_slice(carried.get(..length)?);
    let checksum = match protocol {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => COMPARED,
    };
    if let Some(checksum) = head.get_mut(checksum..checksum + 2).filter(|_| is_first) {
        checksum.fill(0);
    }
    hasher.write(head);
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test that can't go on has failed")]
    use super::super::super::capture::interface::LINK_RAW_IP;
    use super::*;

    const A: u32 = 3;
    const B: u32 = 4;

    /// A datagram with that id, `ttl` and checksum, in Ethernet.
    fn datagram(id: u8, ttl: u8, checksum: u8, text: &[u8]) -> Vec<u8> {
        let mut frame = b"dddddds".to_vec();
        frame.extend([ttl; 5]);
        frame.extend([8, 0, 0x45, 0, 0, 28 + text.len() as u8, 0, id, 0x40, 0, ttl, 17, checksum, 9]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 53, 0, 8 + text.len() as u8, checksum, 7]);
        frame.extend(text);
        frame
    }

    fn frame(data: &[u8], interface: u32, milliseconds: u64) -> Frame<'_> {
        Frame {
            time: 1_000_000_000 + milliseconds * 1_000_000,
            interface,
            link: LINK_ETHERNET,
            direction: Direction::Inbound,
            len: data.len() as u32,
            data: (&[], None, data),
            losing: false,
        }
    }

    #[test]
    fn the_same_packet_elsewhere_is_left_out_and_another_at_its_place_is_not() {
        let mut once = Once::new();
        let (first, later) = (datagram(1, 64, 5, b"question"), datagram(1, 63, 6, b"question"));
        let mut seen = |data: &[u8], interface, time| once.is_repeated(&frame(data, interface, time));
        assert!(!seen(&first, A, 0));
        assert!(seen(&later, B, 1));
        assert!(!seen(&first, A, 2), "it is sent again");
        assert!(seen(&later, B, 3));
        assert!(!seen(&datagram(2, 63, 5, b"question"), B, 4), "another id");
        assert!(!seen(&datagram(1, 63, 5, b"answer"), B, 4));
        assert!(!seen(&later, B, 200), "too late");
        assert_eq!(once.repeated, 2);
    }

    #[test]
    fn direction_is_part_of_the_place() {
        let mut once = Once::new();
        let data = datagram(1, 64, 5, b"x");
        assert!(!once.is_repeated(&frame(&data, A, 0)));
        let back = Frame { direction: Direction::Outbound, ..frame(&data, A, 0) };
        assert!(once.is_repeated(&back));
    }

    #[test]
    fn tags_and_tunnels_make_no_difference() {
        let mut once = Once::new();
        let data = datagram(1, 64, 5, b"x");
        assert!(!once.is_repeated(&frame(&data, A, 0)));
        let (addresses, rest) = data.split_at(12);
        assert!(once.is_repeated(&Frame { data: (addresses, Some([0x81, 0, 0, 7]), rest), ..frame(&data, B, 1) }));
        let raw = Frame { link: LINK_RAW_IP, data: (&[], None, &data[14..]), ..frame(&data, 5, 2) };
        assert!(once.is_repeated(&raw));
    }

    #[test]
    fn what_is_no_packet_is_never_left_out() {
        let mut once = Once::new();
        let whole = datagram(1, 64, 5, b"");
        for end in 0..34 {
            for interface in [A, B] {
                assert!(!once.is_repeated(&frame(&whole[..end], interface, 0)), "{end} bytes");
            }
        }
    }
}
