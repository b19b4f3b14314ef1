//! Link layers: what a frame starts with, down to the first IP header.
//!
//! Numbers are those of the tcpdump.org registry of link-layer header types, and IEEE `EtherTypes`.

use super::layer::{Bytes, Inner, Layer, Passed, Stop};
use super::tunnel;

/// The most VLAN tags, MPLS labels and the like before the bytes count as malformed.
const MOST_LABELS: usize = 16;

/// Passes the header of a link type; none if the type is not known.
#[inline]
pub(super) fn open(link: u32, bytes: Bytes<'_>) -> Option<Passed<'_>> {
    if link == 1 { Some(Ok((Layer::Ethernet, bytes))) } else { open_other(link, bytes) }
}

/// Any link type but Ethernet.
fn open_other(link: u32, bytes: Bytes<'_>) -> Option<Passed<'_>> {
    Some(match link {
        12 | 14 | 101 | 228 | 229 => Ok((Layer::Ip, bytes)),
        0 | 108 => loopback(bytes),
        9 | 50 => ppp_or_hdlc(bytes),
        // FDDI: frame control and two addresses, then LLC.
        10 => bytes.after(13).map(|inner| (Layer::Llc, inner)),
        // PPP with a direction byte before it.
        204 => bytes.after(1).and_then(ppp_or_hdlc),
        51 => pppoe(bytes),
        // LLC on ATM.
        100 => Ok((Layer::Llc, bytes)),
        104 => hdlc(bytes),
        105 => wireless(bytes),
        113 => sll(bytes),
        117 => bytes.byte(0).and_then(|length| Ok((Layer::Ip, bytes.after(usize::from(length).next_multiple_of(4))?))),
        127 => radiotap(bytes),
        192 => return per_packet(bytes),
        239 => nflog(bytes),
        276 => sll2(bytes),
        _ => return None,
    })
}

/// Passes one header above the link layer that is not IP's.
#[inline]
pub(super) fn pass(layer: Layer, bytes: Bytes<'_>) -> Passed<'_> {
    match layer {
        // What nearly every frame starts with, in one step.
        Layer::Ethernet if matches!(bytes.u16(12), Ok(0x0800 | 0x86dd)) => Ok((Layer::Ip, bytes.after(14)?)),
        _ => pass_other(layer, bytes),
    }
}

fn pass_other(layer: Layer, bytes: Bytes<'_>) -> Passed<'_> {
    match layer {
        Layer::Ethernet => ethernet(bytes),
        Layer::Llc => llc(bytes),
        Layer::Ppp => ppp(bytes),
        Layer::Type(kind) => ethertype(kind, bytes),
        Layer::Ip => Err(Stop::Malformed),
    }
}

/// IEEE 802.3: two addresses, then a type, or a length with LLC behind it.
fn ethernet(bytes: Bytes<'_>) -> Passed<'_> {
    Ok(type_or_length(bytes.u16(12)?, bytes.after(14)?))
}

/// A number up to 1500 is the length of an LLC frame, a larger one a type.
fn type_or_length(number: u16, rest: Bytes<'_>) -> Inner<'_> {
    if number <= 1500 { (Layer::Llc, rest.trim(usize::from(number))) } else { (Layer::Type(number), rest) }
}

fn ethertype(kind: u16, bytes: Bytes<'_>) -> Passed<'_> {
    match kind {
        0x0800 | 0x86dd => Ok((Layer::Ip, bytes)),
        // IEEE 802.1Q, 802.1ad and what came before it.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => Ok(type_or_length(bytes.u16(2)?, bytes.after(4)?)),
        // VN-Tag.
        0x8926 => Ok(type_or_length(bytes.u16(4)?, bytes.after(6)?)),
        // Cisco MetaData: a version, the number of options, options of four bytes, a type.
        0x8909 => {
            let options = usize::from(bytes.byte(1)?) * 4;
            Ok(type_or_length(bytes.u16(2 + options)?, bytes.after(4 + options)?))
        }
        // IEEE 802.1ah backbone bridges: a service tag, then the customer's frame.
        0x88e7 => Ok((Layer::Ethernet, bytes.after(4)?)),
        0x6558 => Ok((Layer::Ethernet, bytes)),
        0x8847 | 0x8848 => mpls(bytes),
        0x8864 => pppoe(bytes),
        0x880b => Ok((Layer::Ppp, bytes)),
        0x894f => tunnel::nsh(bytes),
        0x88be | 0x22eb => tunnel::erspan(kind, bytes),
        _ => Err(Stop::NotIp),
    }
}

/// RFC 3032 labels; behind the last one IP, or a pseudowire of Ethernet with a control word (RFC 4448) or without.
/// Nothing in the packet says which.
pub(super) fn mpls(bytes: Bytes<'_>) -> Passed<'_> {
    for label in 0..MOST_LABELS {
        let bottom = bytes.byte(label * 4 + 2)? & 1 != 0;
        if !bottom {
            continue;
        }
        let inner = bytes.after(label * 4 + 4)?;
        // An Ethernet address may start like an IP header; the other way round takes a type and a second header.
        let is_frame = matches!(inner.u16(12), Ok(0x0800 | 0x86dd)) && is_ip(inner.after(14)?);
        if !is_frame && is_ip(inner) {
            return Ok((Layer::Ip, inner));
        }
        let with_control_word = inner.after(4)?;
        return match inner.byte(0)? >> 4 {
            0 if is_ethernet(with_control_word) => Ok((Layer::Ethernet, with_control_word)),
            _ if is_ethernet(inner) => Ok((Layer::Ethernet, inner)),
            // Associated channels (RFC 4385) and what cannot be told.
            _ => Err(Stop::NotIp),
        };
    }
    Err(Stop::Malformed)
}

/// True if `bytes` may well start with an IP header: its version and lengths agree. Lengths left to the network card
/// do not: an Ethernet address would pass for such a header too easily.
pub(super) fn is_ip(bytes: Bytes<'_>) -> bool {
    match bytes.byte(0) {
        Ok(first @ 0x45..=0x4f) => bytes.u16(2).is_ok_and(|length| {
            let length = usize::from(length);
            (usize::from(first & 15) * 4..=bytes.wire()).contains(&length)
        }),
        Ok(0x60..=0x6f) => bytes.u16(4).is_ok_and(|length| (41..=bytes.wire()).contains(&(usize::from(length) + 40))),
        _ => false,
    }
}

/// True if `bytes` may well start with an Ethernet header.
pub(super) fn is_ethernet(bytes: Bytes<'_>) -> bool {
    match bytes.u16(12) {
        Ok(0x0800) => matches!(bytes.byte(14), Ok(0x45..=0x4f)),
        Ok(0x86dd) => matches!(bytes.byte(14), Ok(0x60..=0x6f)),
        Ok(0x0806 | 0x8035 | 0x8100 | 0x88a8 | 0x9100 | 0x8847 | 0x8848 | 0x8863 | 0x8864 | 0x88cc | 0x894f) => true,
        Ok(length @ ..=1500) => length >= 3 && usize::from(length) + 14 <= bytes.wire(),
        _ => false,
    }
}

/// RFC 2516: a session's frame holds PPP.
fn pppoe(bytes: Bytes<'_>) -> Passed<'_> {
    if bytes.u16(0)? != 0x1100 {
        return Err(Stop::NotIp);
    }
    let length = usize::from(bytes.u16(4)?);
    Ok((Layer::Ppp, bytes.after(6)?.trim(length)))
}

/// RFC 1661, with the protocol field compressed to one byte or not.
fn ppp(bytes: Bytes<'_>) -> Passed<'_> {
    let bytes = if bytes.u16(0) == Ok(0xff03) { bytes.after(2)? } else { bytes };
    let first = bytes.byte(0)?;
    let (protocol, rest) =
        if first & 1 != 0 { (u16::from(first), bytes.after(1)?) } else { (bytes.u16(0)?, bytes.after(2)?) };
    match protocol {
        0x0021 | 0x0057 => Ok((Layer::Ip, rest)),
        0x0281 | 0x0283 => mpls(rest),
        // Bridging control (RFC 3518) of Ethernet: flags and pads, then the frame.
        0x0031 if rest.byte(1)? == 1 => Ok((Layer::Ethernet, rest.after(2)?)),
        _ => Err(Stop::NotIp),
    }
}

/// A serial line: PPP in HDLC-like framing (RFC 1662), or Cisco's.
fn ppp_or_hdlc(bytes: Bytes<'_>) -> Passed<'_> {
    match bytes.byte(0)? {
        0x0f | 0x8f => hdlc(bytes),
        _ => Ok((Layer::Ppp, bytes)),
    }
}

/// Cisco HDLC: address, control, type.
fn hdlc(bytes: Bytes<'_>) -> Passed<'_> {
    Ok((Layer::Type(bytes.u16(2)?), bytes.after(4)?))
}

/// IEEE 802.2, with SNAP (RFC 1042) or without.
fn llc(bytes: Bytes<'_>) -> Passed<'_> {
    match bytes.array::<3>(0)? {
        [0xaa, 0xaa, 0x03] => match bytes.array::<5>(3)? {
            // RFC 1042, and IEEE 802.1H for bridges.
            [0, 0, 0 | 0xf8, a, b] => Ok((Layer::Type(u16::from_be_bytes([a, b])), bytes.after(8)?)),
            // Bridged Ethernet with its checksum or without (RFC 2684).
            [0, 0x80, 0xc2, 0, 1 | 7] => Ok((Layer::Ethernet, bytes.after(10)?)),
            _ => Err(Stop::NotIp),
        },
        [0x06, 0x06, _] => Ok((Layer::Ip, bytes.after(3)?)),
        // Routed protocols by their OSI number: IP's (RFC 2427).
        [0xfe, 0xfe, 0x03] if bytes.byte(3)? == 0xcc => Ok((Layer::Ip, bytes.after(4)?)),
        _ => Err(Stop::NotIp),
    }
}

/// BSD loopback: the address family in the byte order of the host, or of the network.
fn loopback(bytes: Bytes<'_>) -> Passed<'_> {
    let family = bytes.u32(0)?;
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    let rest = bytes.after(4)?;
    match family {
        // AF_INET, and the AF_INET6 of Linux, NetBSD, FreeBSD and Darwin.
        2 | 10 | 24 | 28 | 30 => Ok((Layer::Ip, rest)),
        // Some writers put an EtherType there, or a header of another link type.
        _ if is_ip(rest) => Ok((Layer::Ip, rest)),
        _ => Err(Stop::NotIp),
    }
}

/// Linux "cooked" capture.
fn sll(bytes: Bytes<'_>) -> Passed<'_> {
    cooked(bytes.u16(2)?, bytes.u16(14)?, bytes.after(16)?)
}

/// Linux "cooked" capture, version 2.
fn sll2(bytes: Bytes<'_>) -> Passed<'_> {
    cooked(bytes.u16(8)?, bytes.u16(0)?, bytes.after(20)?)
}

fn cooked(hardware: u16, protocol: u16, rest: Bytes<'_>) -> Passed<'_> {
    match (hardware, protocol) {
        // Netlink, where the protocol is a netlink family; Novell's IPX without LLC.
        (824, _) | (_, 0x0001) => Err(Stop::NotIp),
        // Monitor mode: the frame starts with its radiotap header.
        (803, _) => radiotap(rest),
        // IEEE 802.2.
        (_, 0x0004) => Ok((Layer::Llc, rest)),
        (_, kind) => Ok((Layer::Type(kind), rest)),
    }
}

/// netfilter log: attributes, of which one holds the packet. Their numbers are in the byte order of the host.
fn nflog(bytes: Bytes<'_>) -> Passed<'_> {
    /// The attribute that holds the packet.
    const PAYLOAD: u16 = 9;
    let family = bytes.byte(0)?;
    let mut at = 4;
    while at + 4 <= bytes.data.len() {
        let (length, kind) = (bytes.u16_le(at)?, bytes.u16_le(at + 2)?);
        // Kinds are small.
        let (length, kind) = if kind > 0xff { (length.swap_bytes(), kind.swap_bytes()) } else { (length, kind) };
        let length = usize::from(length);
        if length < 4 {
            return Err(Stop::Malformed);
        }
        if kind == PAYLOAD {
            let payload = bytes.trim(at + length).after(at + 4)?;
            // AF_BRIDGE logs the packet without its Ethernet header, too.
            return if matches!(family, 2 | 7 | 10) { Ok((Layer::Ip, payload)) } else { Err(Stop::NotIp) };
        }
        at += length.next_multiple_of(4);
    }
    Err(Stop::NotIp)
}

/// IEEE 802.11 data frames; only those that are not encrypted.
fn wireless(bytes: Bytes<'_>) -> Passed<'_> {
    let [control, flags] = bytes.array::<2>(0)?;
    // Version 0, type "data", a subtype that carries any.
    if control & 0b1111 != 0b1000 || control & 0x40 != 0 || flags & 0x40 != 0 {
        return Err(Stop::NotIp);
    }
    let mut length = 24;
    if flags & 3 == 3 {
        // To and from a distribution system: a fourth address.
        length += 6;
    }
    let mut aggregate = false;
    if control & 0x80 != 0 {
        aggregate = bytes.byte(length)? & 0x80 != 0;
        length += 2;
        if flags & 0x80 != 0 {
            // High throughput control.
            length += 4;
        }
    }
    if !aggregate {
        return Ok((Layer::Llc, bytes.after(length)?));
    }
    // The first of several frames, each with two addresses and a length.
    let size = usize::from(bytes.u16(length + 12)?);
    Ok((Layer::Llc, bytes.after(length + 14)?.trim(size)))
}

/// radiotap.org: a header whose fields a bitmap lists. Only the flags matter here.
fn radiotap(bytes: Bytes<'_>) -> Passed<'_> {
    let length = usize::from(bytes.u16_le(2)?);
    let present = bytes.array::<4>(4).map(u32::from_le_bytes)?;
    let mut at = 8;
    let mut word = present;
    while word & 1 << 31 != 0 && at < length {
        word = bytes.array::<4>(at).map(u32::from_le_bytes)?;
        at += 4;
    }
    if present & 1 != 0 {
        // The time comes first, aligned to its size.
        at = at.next_multiple_of(8) + 8;
    }
    let flags = if present & 2 != 0 { bytes.byte(at)? } else { 0 };
    let frame = bytes.after(length)?;
    // Flag 0x20: zeros fill the frame's header up to a multiple of four.
    let [control, kind] = frame.array::<2>(0)?;
    if flags & 0x20 == 0 || control & 0x80 == 0 {
        return wireless(frame);
    }
    let header = if kind & 3 == 3 { 32 } else { 26 };
    match wireless(frame)? {
        (Layer::Llc, _) => Ok((Layer::Llc, frame.after(usize::next_multiple_of(header, 4))?)),
        other => Ok(other),
    }
}

/// Per-Packet Information: fields, then a frame of a link type of its own.
fn per_packet(bytes: Bytes<'_>) -> Option<Passed<'_>> {
    let (Ok(length), Ok(link)) = (bytes.u16_le(2), bytes.array::<4>(4).map(u32::from_le_bytes)) else {
        return Some(Err(Stop::Malformed));
    };
    match bytes.after(usize::from(length)) {
        // Not itself again.
        Ok(rest) if link != 192 => open(link, rest),
        _ => Some(Err(Stop::Malformed)),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests {
    use crate::flow::decode::tests::{decode, is_inner, not_ip};
    use crate::flow::frames::{before, ethernet, inner, inner6};

    const SNAP: &[u8] = &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
    const SNAP6: &[u8] = &[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd];

    #[test]
    fn every_link_type_leads_to_ip() {
        let sll = |hardware: u8, kind: u16| {
            let mut head = vec![0, 0, 0, hardware, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
            head.extend(kind.to_be_bytes());
            head
        };
        let sll2 = |kind: u16| {
            let mut head = kind.to_be_bytes().to_vec();
            head.extend([0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]);
            head
        };
        let wireless = |control: u8, flags: u8, rest: usize| {
            let mut head = vec![control, flags];
            head.resize(24 + rest, 0);
            head
        };
        let radiotap = |padded: u8, frame: &[u8]| {
            // A time and flags, after a second word of the bitmap.
            let mut head = vec![0, 0, 25, 0, 3, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0];
            head.resize(24, 0);
            head.push(padded);
            before(&head, frame)
        };
        // The attribute of the packet comes after another one, in both byte orders of the host.
        let size = inner().len() as u8 + 4;
        let cases: Vec<(u32, &str, Vec<u8>)> = vec![
            (1, "ethernet", ethernet(0x0800, &inner())),
            (1, "ethernet, LLC", ethernet(8 + inner().len() as u16, &before(SNAP, &inner()))),
            (1, "ethernet, LLC without SNAP", ethernet(3 + inner().len() as u16, &before(&[6, 6, 3], &inner()))),
            (0, "null, little-endian", before(&[2, 0, 0, 0], &inner())),
            (0, "null, big-endian", before(&[0, 0, 0, 2], &inner())),
            (0, "null, IPv6 of Darwin", before(&[30, 0, 0, 0], &inner6())),
            (108, "loop", before(&[0, 0, 0, 24], &inner6())),
            (9, "ppp", before(&[0, 0x21], &inner())),
            (9, "ppp with address", before(&[0xff, 3, 0, 0x57], &inner6())),
            (9, "ppp, compressed", before(&[0x21], &inner())),
            (50, "ppp in hdlc", before(&[0xff, 3, 0, 0x21], &inner())),
            (50, "cisco in ppp", before(&[0x0f, 0, 8, 0], &inner())),
            (204, "ppp with direction", before(&[1, 0xff, 3, 0, 0x21], &inner())),
            (51, "pppoe", before(&[0x11, 0, 0, 7, 0, inner().len() as u8 + 2, 0, 0x21], &inner())),
            (10, "fddi", before(&[0x50; 13], &before(SNAP, &inner()))),
            (100, "llc on atm", before(SNAP, &inner())),
            (104, "cisco hdlc", before(&[0x8f, 0, 0x86, 0xdd], &inner6())),
            (105, "wireless", [wireless(0x08, 1, 0), SNAP.to_vec(), inner()].concat()),
            (105, "wireless, four addresses", [wireless(0x08, 3, 6), SNAP.to_vec(), inner()].concat()),
            (105, "wireless, priority", [wireless(0x88, 2, 2), SNAP6.to_vec(), inner6()].concat()),
            (105, "wireless, high throughput", [wireless(0x88, 0x82, 6), SNAP.to_vec(), inner()].concat()),
            (113, "sll", before(&sll(1, 0x0800), &inner())),
            (113, "sll with a tag", before(&sll(1, 0x8100), &before(&[0, 5, 8, 0], &inner()))),
            (113, "sll, LLC", before(&sll(1, 4), &before(SNAP, &inner()))),
            (117, "pflog", before(&[[61, 2].to_vec(), vec![0; 62]].concat(), &inner())),
            (127, "radiotap", radiotap(0, &[wireless(0x88, 1, 2), SNAP.to_vec(), inner()].concat())),
            (127, "radiotap, padded", radiotap(0x20, &[wireless(0x88, 1, 4), SNAP.to_vec(), inner()].concat())),
            (192, "ppi", before(&[0, 0, 8, 0, 1, 0, 0, 0], &ethernet(0x0800, &inner()))),
            (239, "nflog", before(&[2, 0, 0, 0, 5, 0, 10, 0, b'x', 0, 0, 0, size, 0, 9, 0], &inner())),
            (239, "nflog, big-endian", before(&[2, 0, 0, 0, 0, 5, 0, 10, b'x', 0, 0, 0, 0, size, 0, 9], &inner())),
            (276, "sll2", before(&sll2(0x86dd), &inner6())),
        ];
        for (link, name, frame) in cases {
            is_inner(name, link, &frame);
        }
        for link in [12, 14, 101, 228] {
            is_inner("raw", link, &inner());
        }
        is_inner("raw", 229, &inner6());
        assert!(decode(147, &inner(), |packet| assert_eq!(packet.err(), Some(crate::flow::decode::Undecoded::Link))));
    }

    #[test]
    fn tags_and_labels_are_passed() {
        let tag = [0, 5, 8, 0];
        let label = [0, 1, 0x00, 64];
        let bottom = [0, 1, 0x01, 64];
        // Its address starts like IPv6.
        let mut odd = ethernet(0x0800, &inner());
        odd[0] = 0x60;
        let cases: Vec<(&str, u16, Vec<u8>)> = vec![
            ("802.1Q", 0x8100, before(&tag, &inner())),
            ("802.1ad", 0x88a8, [[0, 5, 0x81, 0], tag].concat().into_iter().chain(inner()).collect()),
            ("QinQ", 0x9100, [[0, 5, 0x81, 0], tag].concat().into_iter().chain(inner()).collect()),
            ("802.1Q, LLC", 0x8100, [vec![0, 5, 0, 8 + inner().len() as u8], SNAP.to_vec(), inner()].concat()),
            ("802.1ah", 0x88e7, before(&[0; 4], &ethernet(0x0800, &inner()))),
            ("Cisco MetaData", 0x8909, before(&[1, 1, 0, 1, 0, 4, 8, 0], &inner())),
            ("VN-Tag", 0x8926, before(&[0, 0, 0, 0, 8, 0], &inner())),
            ("MPLS", 0x8847, [label.to_vec(), bottom.to_vec(), inner()].concat()),
            ("MPLS, IPv6", 0x8848, before(&bottom, &inner6())),
            ("MPLS, pseudowire", 0x8847, before(&bottom, &ethernet(0x0800, &inner()))),
            ("MPLS, pseudowire, odd address", 0x8847, before(&bottom, &odd)),
            ("MPLS, control word", 0x8847, [bottom.to_vec(), vec![0; 4], ethernet(0x86dd, &inner6())].concat()),
            ("PPPoE", 0x8864, before(&[0x11, 0, 0, 7, 0, inner().len() as u8 + 2, 0, 0x21], &inner())),
        ];
        for (name, kind, payload) in cases {
            is_inner(name, 1, &ethernet(kind, &payload));
        }
    }

    #[test]
    fn what_is_not_ip_is_counted_as_such() {
        not_ip("ARP", 1, &ethernet(0x0806, &[0; 28]));
        not_ip("spanning tree", 1, &ethernet(38, &[0x42; 46]));
        not_ip("PPPoE discovery", 1, &ethernet(0x8863, &[0x11; 46]));
        not_ip("PPP control", 9, &[0xc0, 0x21, 1, 1, 0, 4]);
        not_ip("netlink", 113, &before(&[0, 4, 3, 56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0], &inner()));
        not_ip("encrypted wireless", 105, &before(&[0x08, 0x41], &[0; 60]));
        not_ip("beacon", 105, &before(&[0x80, 0], &[0; 60]));
    }
}
