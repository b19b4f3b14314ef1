//! Frame → packet: link types, VLAN tags, tunnels, IP and transport headers.
//!
//! Lenient where captures are odd without being wrong: no checksum is verified, since offloading leaves them to the
//! network card; an IP length of zero or beyond the frame means the frame's; padding is cut off.

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

use crate::entry::Timestamp;

use super::fragment::{Fragment, Fragments, Key};
use super::layer::{Bytes, Layer, Stop};
use super::{Addresses, Flags, Packet, Payload, Segment, link, tunnel};

/// The most headers between a frame's start and its transport header; tunnels in tunnels stop there.
const MOST_HEADERS: usize = 32;

/// The most IPv6 extension headers of one packet.
const MOST_EXTENSIONS: usize = 16;

/// How many times one frame may complete a datagram, one inside the other.
const NESTED_DATAGRAMS: usize = 2;

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
        let Self { fragments, whole } = self;
        let mut whole = whole.iter_mut();
        let (mut layer, mut bytes) = link::open(link, Bytes::new(data, len)).ok_or(Undecoded::Link)??;
        // The packet around a tunnel; it stands where nothing inside can be decoded.
        let mut outer: Option<Packet<'a>> = None;
        for _ in 0..MOST_HEADERS {
            let step = match layer {
                Layer::Ip => internet(bytes).map_err(Undecoded::from).and_then(|mut ip| {
                    if let Some((key, fragment)) = ip.fragment.take() {
                        let whole = whole.next().ok_or(Undecoded::Fragment)?;
                        let (protocol, cut) =
                            fragments.add(key, fragment, ip.payload, time, whole).ok_or(Undecoded::Fragment)?;
                        ip.payload = Bytes { data: whole, cut };
                        ip.protocol = protocol;
                        ip.extensions()?;
                        if ip.fragment.is_some() {
                            return Err(Undecoded::Malformed);
                        }
                    }
                    Ok(transport(&ip)?)
                }),
                other => link::pass(other, bytes).map(|(layer, bytes)| Step::Next(layer, bytes)).map_err(Into::into),
            };
            match step {
                Ok(Step::Next(next, inner)) => (layer, bytes) = (next, inner),
                Ok(Step::Tunnel(packet, next, inner)) => {
                    outer = Some(packet);
                    (layer, bytes) = (next, inner);
                }
                Ok(Step::Packet(packet)) => return Ok(packet),
                // A fragment inside a tunnel is not lost: its datagram will come.
                Err(Undecoded::Fragment) => return Err(Undecoded::Fragment),
                Err(undecoded) => return outer.ok_or(undecoded),
            }
        }
        outer.ok_or(Undecoded::Malformed)
    }

    /// How many fragmented datagrams never became whole: given up, or still waiting.
    #[must_use]
    pub fn incomplete(&self) -> u64 {
        self.fragments.incomplete()
    }
}

/// What a header led to.
enum Step<'a> {
    /// Another header.
    Next(Layer, Bytes<'a>),
    /// Another packet inside this one.
    Tunnel(Packet<'a>, Layer, Bytes<'a>),
    /// The end.
    Packet(Packet<'a>),
}

/// An IP packet past its header.
struct Internet<'a> {
    addresses: Addresses,
    /// What the payload starts with.
    protocol: u8,
    payload: Bytes<'a>,
    /// If the payload is but a part of a datagram's.
    fragment: Option<(Key, Fragment)>,
}

fn internet(bytes: Bytes<'_>) -> Result<Internet<'_>, Stop> {
    match bytes.byte(0)? >> 4 {
        4 => version4(bytes),
        6 => version6(bytes),
        _ => Err(Stop::Malformed),
    }
}

/// RFC 791.
fn version4(bytes: Bytes<'_>) -> Result<Internet<'_>, Stop> {
    let header = Ipv4HeaderSlice::from_slice(bytes.data).map_err(|_| Stop::Malformed)?;
    let length = usize::from(header.ihl()) * 4;
    let bytes = match usize::from(header.total_len()) {
        // Left to the network card, which cuts it into segments.
        0 => bytes,
        total if total < length => return Err(Stop::Malformed),
        total => bytes.trim(total),
    };
    let addresses = Addresses { src: IpAddr::V4(header.source_addr()), dst: IpAddr::V4(header.destination_addr()) };
    let protocol = header.protocol().0;
    let fragment = header.is_fragmenting_payload().then(|| {
        let key = Key { addresses, id: u32::from(header.identification()), protocol };
        let offset = u32::from(header.fragments_offset().value()) * 8;
        (key, Fragment { offset, more: header.more_fragments(), protocol })
    });
    let mut ip = Internet { addresses, protocol, payload: bytes.after(length)?, fragment };
    // Only an authentication header can follow here.
    if ip.protocol == AUTHENTICATION && ip.fragment.is_none() {
        ip.extensions()?;
    }
    Ok(ip)
}

/// RFC 8200.
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
                let fragment = Fragment { offset: u32::from(bits & !7), more: bits & 1 != 0, protocol: next };
                if fragment.offset != 0 || fragment.more {
                    // The protocol is not part of what identifies a datagram.
                    self.fragment = Some((Key { addresses: self.addresses, id, protocol: 0 }, fragment));
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

/// What an IP packet carries.
fn transport<'a>(ip: &Internet<'a>) -> Result<Step<'a>, Stop> {
    let packet = |payload| Packet { addresses: ip.addresses, payload };
    let bytes = ip.payload;
    let tunnel = |inner: Result<(Layer, Bytes<'a>), Stop>| {
        let packet = packet(Payload::Other(ip.protocol));
        inner.map_or(Step::Packet(packet), |(layer, inner)| Step::Tunnel(packet, layer, inner))
    };
    Ok(match ip.protocol {
        6 => Step::Packet(packet(Payload::Tcp(tcp(bytes)?))),
        17 => {
            let (src_port, dst_port, bytes) = udp(bytes)?;
            let packet = packet(Payload::Udp { src_port, dst_port, data: bytes.data, missing: bytes.cut });
            match tunnel::in_udp(src_port, dst_port, bytes) {
                Some((layer, inner)) => Step::Tunnel(packet, layer, inner),
                None => Step::Packet(packet),
            }
        }
        1 => Step::Packet(packet(Payload::Icmp { v6: false, data: bytes.data })),
        58 => Step::Packet(packet(Payload::Icmp { v6: true, data: bytes.data })),
        // IP in IP (RFC 2003, 4213, 2473).
        4 | 41 | 94 => tunnel(Ok((Layer::Ip, bytes))),
        47 => tunnel(tunnel::gre(bytes)),
        // EtherIP (RFC 3378): two bytes of version, then a frame.
        97 => tunnel(bytes.after(2).map(|inner| (Layer::Ethernet, inner))),
        // MPLS in IP (RFC 4023).
        137 => tunnel(link::mpls(bytes)),
        other => Step::Packet(packet(Payload::Other(other))),
    })
}

/// RFC 9293. Options may be cut off: they matter less than the sequence number.
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
fn udp(bytes: Bytes<'_>) -> Result<(u16, u16, Bytes<'_>), Stop> {
    let (src_port, dst_port) = (bytes.u16(0)?, bytes.u16(2)?);
    let length = usize::from(bytes.u16(4)?);
    let data = bytes.after(8)?;
    // Zero is a jumbogram's (RFC 2675); less than the header is left to the network card.
    Ok((src_port, dst_port, length.checked_sub(8).map_or(data, |length| data.trim(length))))
}
