//! Frame → packet: link types, VLAN tags, tunnels, IP and transport headers.
//!
//! Lenient where captures are odd without being wrong: no checksum is verified, since offloading leaves them to the
//! network card; an IP length of zero or beyond the frame means the frame's; padding is cut off.

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

use crate::entry::Timestamp;

use super::fragment::{Fragment, Fragments};
use super::layer::{Bytes, Inner, Layer, Stop};
use super::{Addresses, Flags, Packet, Payload, Segment, link, tunnel};

/// The most headers between a frame's start and its transport header; tunnels in tunnels stop there.
const MOST_HEADERS: usize = 32;

/// The most IPv6 extension headers of one packet.
const MOST_EXTENSIONS: usize = 16;

/// How many times one frame may complete a datagram, one inside the other.
const NESTED_DATAGRAMS: usize = 2;

/// Ports, verification tag and checksum of SCTP (RFC 9260 section 3.1).
const SCTP_HEADER: usize = 12;

/// Why a frame has no packet. Counted, never an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// A link type that is not known.
    Link,
    /// Not IP: ARP, STP, LLDP.
    NotIp,
    /// A header is cut off or contradicts itself.
    Malformed,
    /// Part of a datagram whose other fragments are still missing.
    Fragment,
}

impl From<Stop> for Undecoded {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::NotIp => Self::NotIp,
            Stop::Malformed => Self::Malformed,
        }
    }
}

/// Decodes frames; holds the fragments that wait for their siblings.
#[derive(Debug, Default)]
pub struct Decoder {
    fragments: Fragments,
    /// The datagrams that the last frame completed; packets are lent from them.
    whole: [Vec<u8>; NESTED_DATAGRAMS],
}

impl Decoder {
    /// The innermost packet of a frame of link type `link` (tcpdump.org registry), `len` bytes long on the wire.
    ///
    /// # Errors
    /// [`Undecoded`] says why there is none.
    pub fn decode<'a>(
        &'a mut self,
        link: u32,
        data: &'a [u8],
        len: u32,
        time: Timestamp,
    ) -> Result<Packet<'a>, Undecoded> {
        // The packet around a tunnel; it stands where nothing inside can be decoded.
        let mut outer = None;
        match self.innermost(link, Bytes::new(data, len), time, &mut outer) {
            // A fragment inside a tunnel is not lost: its datagram will come.
            Err(undecoded) if undecoded != Undecoded::Fragment => outer.ok_or(undecoded),
            result => result,
        }
    }

    #[inline]
    fn innermost<'a>(
        &'a mut self,
        link: u32,
        frame: Bytes<'a>,
        time: Timestamp,
        outer: &mut Option<Packet<'a>>,
    ) -> Result<Packet<'a>, Undecoded> {
        let mut whole = self.whole.iter_mut();
        let (mut layer, mut bytes) = link::open(link, frame).ok_or(Undecoded::Link)??;
        for _ in 0..MOST_HEADERS {
            if layer != Layer::Ip {
                (layer, bytes) = link::pass(layer, bytes)?;
                continue;
            }
            let mut ip = internet(bytes)?;
            if let Some(fragment) = ip.fragment.take() {
                let whole = whole.next().ok_or(Undecoded::Malformed)?;
                let datagram = self.fragments.add(ip.addresses, fragment, ip.payload, time, whole);
                let (protocol, cut) = datagram.ok_or(Undecoded::Fragment)?;
                ip.payload = Bytes { data: whole, cut };
                ip.protocol = protocol;
                ip.extensions()?;
            }
            let (payload, inner) = transport(&ip)?;
            let packet = Packet { addresses: ip.addresses, payload };
            let Some(inner) = inner else { return Ok(packet) };
            *outer = Some(packet);
            (layer, bytes) = inner;
        }
        Err(Undecoded::Malformed)
    }

    /// Fragments whose datagram never became whole: given up, or still waiting.
    #[must_use]
    pub fn incomplete(&self) -> u64 {
        self.fragments.incomplete()
    }
}

/// An IP packet past its header.
struct Internet<'a> {
    addresses: Addresses,
    /// What the payload starts with.
    protocol: u8,
    payload: Bytes<'a>,
    /// If the payload is but a part of a datagram's.
    fragment: Option<Fragment>,
}

#[inline]
fn internet(bytes: Bytes<'_>) -> Result<Internet<'_>, Stop> {
    match bytes.byte(0)? >> 4 {
        4 => version4(bytes),
        6 => version6(bytes),
        _ => Err(Stop::Malformed),
    }
}

/// RFC 791.
#[inline]
fn version4(bytes: Bytes<'_>) -> Result<Internet<'_>, Stop> {
    let header = Ipv4HeaderSlice::from_slice(bytes.data).map_err(|_| Stop::Malformed)?;
    let length = usize::from(header.ihl()) * 4;
    let bytes = match usize::from(header.total_len()) {
        // Left to the network card, which cuts it into segments.
        0 => bytes,
        total if total < length => return Err(Stop::Malformed),
        total => bytes.trim(total),
    };
    // What a fragment lacks is missing in the middle of its datagram.
    let lacks = usize::from(header.total_len()).saturating_sub(bytes.wire());
    let bytes = if header.more_fragments() { Bytes { cut: bytes.cut + lacks as u32, ..bytes } } else { bytes };
    let addresses = Addresses { src: IpAddr::V4(header.source_addr()), dst: IpAddr::V4(header.destination_addr()) };
    let protocol = header.protocol().0;
    let fragment = header.is_fragmenting_payload().then(|| Fragment {
        id: u32::from(header.identification()),
        offset: u32::from(header.fragments_offset().value()) * 8,
        more: header.more_fragments(),
        protocol,
    });
    let mut ip = Internet { addresses, protocol, payload: bytes.after(length)?, fragment };
    // Only an authentication header can follow here.
    if ip.protocol == AUTHENTICATION && ip.fragment.is_none() {
        ip.extensions()?;
    }
    Ok(ip)
}

/// RFC 8200.
#[inline]
fn version6(bytes: Bytes<'_>) -> Result<Internet<'_>, Stop> {
    let header = Ipv6HeaderSlice::from_slice(bytes.data).map_err(|_| Stop::Malformed)?;
    let addresses = Addresses { src: IpAddr::V6(header.source_addr()), dst: IpAddr::V6(header.destination_addr()) };
    let payload = bytes.after(40)?;
    let payload = match usize::from(header.payload_length()) {
        // A jumbogram, or left to the network card.
        0 => payload,
        length => payload.trim(length),
    };
    let mut ip = Internet { addresses, protocol: header.next_header().0, payload, fragment: None };
    ip.extensions()?;
    Ok(ip)
}

/// IP protocol number of the fragment header.
const FRAGMENT: u8 = 44;
/// IP protocol number of the authentication header.
const AUTHENTICATION: u8 = 51;

impl Internet<'_> {
    /// Passes extension headers, up to one that makes the packet a fragment.
    fn extensions(&mut self) -> Result<(), Stop> {
        for _ in 0..MOST_EXTENSIONS {
            let length = match self.protocol {
                // Hop-by-hop, routing, destination, mobility, HIP, shim6: length in units of 8 after the first.
                0 | 43 | 60 | 135 | 139 | 140 => (usize::from(self.payload.byte(1)?) + 1) * 8,
                AUTHENTICATION => (usize::from(self.payload.byte(1)?) + 2) * 4,
                FRAGMENT => 8,
                _ => return Ok(()),
            };
            let next = self.payload.byte(0)?;
            if self.protocol == FRAGMENT {
                let (bits, id) = (self.payload.u16(2)?, self.payload.u32(4)?);
                let (offset, more) = (u32::from(bits & !7), bits & 1 != 0);
                if offset != 0 || more {
                    self.fragment = Some(Fragment { id, offset, more, protocol: next });
                    self.payload = self.payload.after(length)?;
                    return Ok(());
                }
            }
            self.payload = self.payload.after(length)?;
            self.protocol = next;
        }
        Err(Stop::Malformed)
    }
}

/// What an IP packet carries, and the packet in that if it is a tunnel.
#[inline]
fn transport<'a>(ip: &Internet<'a>) -> Result<(Payload<'a>, Option<Inner<'a>>), Stop> {
    let bytes = ip.payload;
    let inner = match ip.protocol {
        6 => return Ok((Payload::Tcp(tcp(bytes)?), None)),
        17 => {
            let (src_port, dst_port, bytes) = udp(bytes)?;
            let payload = Payload::Udp { src_port, dst_port, data: bytes.data, missing: bytes.cut };
            return Ok((payload, tunnel::in_udp(src_port, dst_port, bytes)));
        }
        1 => return Ok((Payload::Icmp { v6: false, data: bytes.data }, None)),
        58 => return Ok((Payload::Icmp { v6: true, data: bytes.data }, None)),
        132 => {
            let [s0, s1, d0, d1, ..] = bytes.array::<SCTP_HEADER>(0)?;
            let (src_port, dst_port) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
            return Ok((Payload::Sctp { src_port, dst_port, chunks: bytes.after(SCTP_HEADER)?.data }, None));
        }
        // IP in IP (RFC 2003, 4213, 2473).
        4 | 41 | 94 => Ok((Layer::Ip, bytes)),
        47 => tunnel::gre(bytes),
        // EtherIP (RFC 3378): two bytes of version, then a frame.
        97 => bytes.after(2).map(|inner| (Layer::Ethernet, inner)),
        // MPLS in IP (RFC 4023).
        137 => link::mpls(bytes),
        _ => Err(Stop::NotIp),
    };
    Ok((Payload::Other(ip.protocol), inner.ok()))
}

/// RFC 9293. Options may be cut off: they matter less than the sequence number.
#[inline]
fn tcp(bytes: Bytes<'_>) -> Result<Segment<'_>, Stop> {
    let header = bytes.array::<20>(0)?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = header;
    let length = usize::from(offset >> 4) * 4;
    if length < 20 {
        return Err(Stop::Malformed);
    }
    let payload = bytes.beyond(length)?;
    let flags =
        Flags { syn: flags & 0x02 != 0, ack: flags & 0x10 != 0, fin: flags & 0x01 != 0, rst: flags & 0x04 != 0 };
    Ok(Segment {
        src_port: u16::from_be_bytes([s0, s1]),
        dst_port: u16::from_be_bytes([d0, d1]),
        seq: u32::from_be_bytes([q0, q1, q2, q3]),
        ack: if flags.ack { u32::from_be_bytes([a0, a1, a2, a3]) } else { 0 },
        flags,
        data: payload.data,
        missing: payload.cut,
    })
}

/// RFC 768: ports and the datagram's bytes.
#[inline]
fn udp(bytes: Bytes<'_>) -> Result<(u16, u16, Bytes<'_>), Stop> {
    let (src_port, dst_port) = (bytes.u16(0)?, bytes.u16(2)?);
    let length = usize::from(bytes.u16(4)?);
    let data = bytes.after(8)?;
    // Zero is a jumbogram's (RFC 2675); less than the header is left to the network card.
    Ok((src_port, dst_port, length.checked_sub(8).map_or(data, |length| data.trim(length))))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that panics has failed")]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::frames::{address, before, ethernet, inner, inner6, ipv4, ipv6, tcp, udp};

    /// Decodes one whole frame and checks the outcome. True, so that a forgotten call shows.
    pub(in crate::flow) fn decode(link: u32, frame: &[u8], check: impl FnOnce(Result<Packet<'_>, Undecoded>)) -> bool {
        check(Decoder::default().decode(link, frame, frame.len() as u32, Timestamp(0)));
        true
    }

    /// The frame leads to [`inner`] or [`inner6`].
    pub(in crate::flow) fn is_inner(name: &str, link: u32, frame: &[u8]) {
        decode(link, frame, |packet| {
            let packet = packet.unwrap_or_else(|why| panic!("{name}: {why:?}"));
            let Payload::Udp { src_port: 5000, dst_port: 6000, data: b"inner", missing: 0 } = packet.payload else {
                panic!("{name}: {packet:?}")
            };
            assert!(["10.0.0.1", "fd00::1"].map(address).contains(&packet.addresses.src), "{name}");
        });
    }

    /// The raw IP packet is taken as it is: UDP of `length` bytes, or another protocol.
    pub(in crate::flow) fn is_outer(name: &str, packet: &[u8], length: Option<usize>) {
        decode(101, packet, |packet| match packet.map(|packet| packet.payload) {
            Ok(Payload::Udp { data, missing: 0, .. }) => assert_eq!(Some(data.len()), length, "{name}"),
            Ok(Payload::Other(_)) => assert_eq!(None, length, "{name}"),
            other => panic!("{name}: {other:?}"),
        });
    }

    pub(in crate::flow) fn not_ip(name: &str, link: u32, frame: &[u8]) {
        decode(link, frame, |packet| assert_eq!(packet.err(), Some(Undecoded::NotIp), "{name}"));
    }

    fn segment(frame: &[u8], len: u32, check: impl FnOnce(Segment<'_>)) {
        let mut decoder = Decoder::default();
        match decoder.decode(1, frame, len, Timestamp(0)).map(|packet| packet.payload) {
            Ok(Payload::Tcp(segment)) => check(segment),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_segment_has_its_fields_and_no_padding() {
        let mut frame = ethernet(0x0800, &ipv4(6, 0, 0, &tcp(99, 0x12, b"hi")));
        frame.extend([0; 6]);
        segment(&frame, frame.len() as u32, |segment| {
            assert_eq!((segment.src_port, segment.dst_port, segment.seq, segment.ack), (1000, 80, 99, 7));
            assert_eq!(segment.flags, Flags { syn: true, ack: true, fin: false, rst: false });
            assert_eq!((segment.data, segment.missing), (&b"hi"[..], 0));
        });
    }

    #[test]
    fn the_snaplen_makes_bytes_missing() {
        let frame = ethernet(0x0800, &ipv4(6, 0, 0, &tcp(99, 0x10, b"0123456789")));
        let len = frame.len() as u32;
        for (kept, data, missing) in [(10, &b"0123456789"[..], 0), (4, b"0123", 6), (0, b"", 10)] {
            segment(&frame[..frame.len() - 10 + kept], len, |segment| {
                assert_eq!((segment.data, segment.missing), (data, missing));
            });
        }
        // In the middle of the options, with padding on the wire.
        segment(&frame[..frame.len() - 15], len + 4, |segment| {
            assert_eq!((segment.seq, segment.data, segment.missing), (99, &b""[..], 10));
        });
        let frame = ethernet(0x86dd, &ipv6(17, &udp(1, 2, b"0123456789")));
        decode(1, &frame, |_| ());
        let mut decoder = Decoder::default();
        let packet = decoder.decode(1, &frame[..frame.len() - 3], frame.len() as u32, Timestamp(0)).unwrap();
        assert!(matches!(packet.payload, Payload::Udp { data: b"0123456", missing: 3, .. }), "{packet:?}");
    }

    #[test]
    fn lengths_left_to_the_network_card_mean_the_frame() {
        let mut packet = ipv4(6, 0, 0, &tcp(1, 0x10, &[7; 3000]));
        packet[2..4].fill(0);
        segment(&ethernet(0x0800, &packet), packet.len() as u32 + 14, |segment| assert_eq!(segment.data, [7; 3000]));
        let mut packet = ipv6(6, &tcp(1, 0x10, &[7; 3000]));
        packet[4..6].fill(0);
        segment(&ethernet(0x86dd, &packet), packet.len() as u32 + 14, |segment| assert_eq!(segment.data, [7; 3000]));
        // More than the frame holds, though nothing was cut off.
        let mut packet = ipv4(6, 0, 0, &tcp(1, 0x10, b"abc"));
        packet[2..4].copy_from_slice(&9000_u16.to_be_bytes());
        segment(&ethernet(0x0800, &packet), packet.len() as u32 + 14, |segment| {
            assert_eq!((segment.data, segment.missing), (&b"abc"[..], 0));
        });
        let mut packet = ipv4(17, 0, 0, &udp(5000, 6000, b"inner"));
        packet[24..26].fill(0);
        is_inner("UDP length 0", 101, &packet);
    }

    #[test]
    fn options_and_extension_headers_are_passed() {
        let mut options = inner();
        options[0] = 0x46;
        options[3] += 4;
        options.splice(20..20, [0x94, 4, 0, 0]);
        is_inner("IPv4 options", 101, &options);
        let udp = udp(5000, 6000, b"inner");
        let extension = |next: u8, payload: &[u8]| before(&[next, 0, 1, 4, 0, 0, 0, 0], payload);
        is_inner(
            "hop-by-hop, destination, routing",
            101,
            &ipv6(0, &extension(60, &extension(43, &extension(17, &udp)))),
        );
        is_inner("authentication", 101, &ipv6(51, &before(&[17, 4, 0, 0], &before(&[0; 20], &udp))));
        is_inner("authentication, IPv4", 101, &ipv4(51, 0, 0, &before(&[17, 4, 0, 0], &before(&[0; 20], &udp))));
        is_inner("atomic fragment", 101, &ipv6(44, &before(&[17, 0, 0, 0, 0, 0, 0, 9], &udp)));
        let mut endless = udp;
        for _ in 0..40 {
            endless = extension(0, &endless);
        }
        decode(101, &ipv6(0, &endless), |packet| assert_eq!(packet.err(), Some(Undecoded::Malformed)));
    }

    #[test]
    fn other_transports_are_named_by_number() {
        let quoted = inner();
        decode(101, &ipv4(1, 0, 0, &before(&[3, 3, 0, 0, 0, 0, 0, 0], &quoted)), |packet| {
            let Ok(Payload::Icmp { v6: false, data }) = packet.map(|packet| packet.payload) else { panic!() };
            assert_eq!(data.len(), 8 + quoted.len());
        });
        decode(101, &ipv6(58, &[128, 0, 0, 0]), |packet| {
            assert!(matches!(packet.unwrap().payload, Payload::Icmp { v6: true, data: [128, ..] }));
        });
        decode(101, &ipv4(132, 0, 0, &before(&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0], b"chunk")), |packet| {
            let Payload::Sctp { src_port: 1, dst_port: 2, chunks: b"chunk" } = packet.unwrap().payload else {
                panic!()
            };
        });
        decode(101, &ipv4(33, 0, 0, &[0; 12]), |packet| {
            assert!(matches!(packet.unwrap().payload, Payload::Other(33)));
        });
    }

    #[test]
    fn headers_that_contradict_themselves_are_malformed() {
        let mut short_offset = ipv4(6, 0, 0, &tcp(1, 0x10, b""));
        short_offset[32] = 0x40;
        let mut short_total = inner();
        short_total[3] = 19;
        for packet in [short_offset, short_total, vec![0x45; 10], vec![0x50; 40], vec![], inner6()[..44].to_vec()] {
            decode(101, &packet, |result| assert_eq!(result.err(), Some(Undecoded::Malformed), "{packet:x?}"));
        }
    }

    /// Link types that read anything of a frame.
    const LINKS: [u32; 23] =
        [0, 1, 9, 12, 14, 50, 51, 100, 101, 104, 105, 108, 113, 117, 127, 192, 204, 228, 229, 239, 276, 147, 7];

    fn tunnels() -> impl Strategy<Value = Vec<u8>> {
        let port = prop::sample::select(vec![2152, 3544, 4789, 4790, 6081, 6635, 8472]);
        let protocol = prop::sample::select(vec![4_u8, 6, 17, 41, 44, 47, 51, 94, 97, 137]);
        (port, protocol, any::<bool>(), any::<u16>(), prop::collection::vec(any::<u8>(), 0..120)).prop_map(
            |(port, protocol, v6, fragment, bytes)| {
                let payload = if protocol == 17 { udp(1, port, &bytes) } else { bytes };
                if v6 { ipv6(protocol, &payload) } else { ipv4(protocol, 1, fragment & 0x2007, &payload) }
            },
        )
    }

    proptest! {
        #[test]
        fn no_bytes_panic(frames in prop::collection::vec((
            prop::sample::select(LINKS.to_vec()),
            prop::collection::vec(any::<u8>(), 0..200),
            any::<u16>(),
        ), 1..20)) {
            let mut decoder = Decoder::default();
            for (link, frame, len) in &frames {
                let _ = decoder.decode(*link, frame, u32::from(*len), Timestamp(0));
            }
        }

        #[test]
        fn no_tunnel_panics(frames in prop::collection::vec(tunnels(), 1..20), cut in 0_usize..60) {
            let mut decoder = Decoder::default();
            for (second, frame) in (0..).zip(&frames) {
                let data = &frame[..frame.len().saturating_sub(cut)];
                let _ = decoder.decode(101, data, frame.len() as u32, Timestamp(second * 1_000_000_000));
            }
        }
    }
}
