//! Who talks in a frame, at a glance: what most frames are, without decoding them.
//!
//! Sharing flows out among engines takes no more than this. Where headers are any but the plainest, each engine has to decode the
//! frame and see.

use std::net::IpAddr;

use super::tunnel;

/// Addresses and ports of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The IP protocol number: TCP or UDP.
    pub transport: u8,
    /// Sender.
    pub src: (IpAddr, u16),
    /// Receiver.
    pub dst: (IpAddr, u16),
}

impl Glance {
    /// None unless the frame is Ethernet, IP without fragments or extension headers, and TCP or UDP that is no tunnel, with headers
    /// that are whole and agree: the decoder then finds the same.
    #[must_use]
    #[inline]
    pub fn at(link: u32, frame: &[u8]) -> Option<Self> {
        let (ethernet, packet) = frame.split_first_chunk::<14>()?;
        let [.., a, b] = *ethernet;
        let (transport, src, dst, rest): (u8, IpAddr, IpAddr, &[u8]) = match (link, u16::from_be_bytes([a, b])) {
            (1, 0x0800) => {
                let [first, _, t0, t1, _, _, f0, f1, _, protocol, _, _, addresses @ ..] =
                    *packet.first_chunk::<20>()?;
                let (header, total) = (usize::from(first & 15) * 4, usize::from(u16::from_be_bytes([t0, t1])));
                // A fragment has a part of the offset or the flag that more come.
                if first >> 4 != 4 || header < 20 || u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
                    return None;
                }
                let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
                let rest = packet.get(header..total.min(packet.len()))?;
                (protocol, [s0, s1, s2, s3].into(), [d0, d1, d2, d3].into(), rest)
            }
            (1, 0x86dd) => {
                let (header, rest) = packet.split_first_chunk::<40>()?;
                let [first, _, _, _, l0, l1, next, _, addresses @ ..] = *header;
                let length = usize::from(u16::from_be_bytes([l0, l1]));
                let (src, dst) = addresses.split_first_chunk::<16>()?;
                if first >> 4 != 6 {
                    return None;
                }
                (next, (*src).into(), (*dst.first_chunk::<16>()?).into(), rest.get(..length.min(rest.len()))?)
            }
            _ => return None,
        };
        let [s0, s1, d0, d1] = *rest.first_chunk::<4>()?;
        let (src, dst) = ((src, u16::from_be_bytes([s0, s1])), (dst, u16::from_be_bytes([d0, d1])));
        let is_plain = match transport {
            6 => rest.get(12).is_some_and(|offset| (20..=rest.len()).contains(&(usize::from(offset >> 4) * 4))),
            17 => rest.len() >= 8 && !tunnel::is_tunnel(src.1) && !tunnel::is_tunnel(dst.1),
            _ => false,
        };
        is_plain.then_some(Self { transport, src, dst })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, reason = "a test that panics has failed")]
mod tests {
    use proptest::prelude::*;

    use super::super::decode::Decoder;
    use super::super::frames::{address, ethernet, ipv4, ipv6, tcp, udp};
    use super::super::{Packet, Payload};
    use super::*;
    use crate::entry::Timestamp;

    /// What the decoder finds, told in the same way.
    fn decoded(frame: &[u8]) -> Option<Glance> {
        let mut decoder = Decoder::default();
        let Packet { addresses, payload } = decoder.decode(1, frame, frame.len() as u32, Timestamp(0)).ok()?;
        let (transport, src_port, dst_port) = match payload {
            Payload::Tcp(segment) => (6, segment.src_port, segment.dst_port),
            Payload::Udp { src_port, dst_port, .. } => (17, src_port, dst_port),
            _ => return None,
        };
        Some(Glance { transport, src: (addresses.src, src_port), dst: (addresses.dst, dst_port) })
    }

    fn plain() -> [Vec<u8>; 4] {
        let (tcp, udp) = (tcp(1, 0x18, b"segment"), udp(5000, 53, b"datagram"));
        [
            ethernet(0x0800, &ipv4(6, 1, 0x4000, &tcp)),
            ethernet(0x0800, &ipv4(17, 1, 0, &udp)),
            ethernet(0x86dd, &ipv6(6, &tcp)),
            ethernet(0x86dd, &ipv6(17, &udp)),
        ]
    }

    #[test]
    fn plain_frames_are_told_without_the_decoder() {
        let [first, ..] = plain();
        let expected = Glance { transport: 6, src: (address("10.0.0.1"), 1000), dst: (address("10.0.0.2"), 80) };
        assert_eq!(Glance::at(1, &first), Some(expected));
        for frame in plain() {
            assert!(Glance::at(1, &frame).is_some(), "{frame:?}");
        }
    }

    #[test]
    fn what_takes_a_closer_look_is_left_to_the_decoder() {
        let segment = tcp(1, 0x18, b"segment");
        let odd = [
            ethernet(0x0806, &segment),
            ethernet(0x0800, &ipv4(6, 1, 0x2000, &segment)),
            ethernet(0x0800, &ipv4(6, 1, 1, &segment)),
            ethernet(0x0800, &ipv4(47, 1, 0, &segment)),
            ethernet(0x0800, &ipv4(17, 1, 0, &udp(5000, 4789, b"tunnel"))),
            ethernet(0x86dd, &ipv6(44, &segment)),
        ];
        for frame in odd {
            assert_eq!(Glance::at(1, &frame), None, "{frame:?}");
        }
        assert_eq!(Glance::at(113, &plain()[0]), None);
    }

    proptest! {
        /// Whatever is done to a frame: either the decoder agrees, or it is asked.
        #[test]
        fn a_glance_never_differs_from_the_decoder(
            which in 0_usize..4,
            cut in 0_usize..120,
            changes in proptest::collection::vec((12_usize..80, any::<u8>()), 0..4),
        ) {
            let mut frame = plain()[which].clone();
            frame.truncate(cut.max(1));
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            if let Some(glance) = Glance::at(1, &frame) {
                prop_assert_eq!(Some(glance), decoded(&frame));
            }
        }
    }
}
