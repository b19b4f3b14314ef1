//! Tunnels: GRE and what travels in UDP.
//!
//! A UDP port proves nothing, so each tunnel's header must look right before its bytes are taken for a packet.

use super::layer::{Bytes, Inner, Layer, Passed, Stop};
use super::link::{is_ethernet, is_ip, mpls};

/// The packet inside a datagram between these ports, if it is a tunnel's.
pub(super) fn in_udp(src_port: u16, dst_port: u16, bytes: Bytes<'_>) -> Option<Inner<'_>> {
    let port = if is_tunnel(dst_port) {
        dst_port
    } else if is_tunnel(src_port) {
        src_port
    } else {
        return None;
    };
    let (layer, inner) = match port {
        1701 => l2tp(bytes),
        2152 => gtp(bytes),
        3544 => teredo(bytes),
        6081 => geneve(bytes),
        6635 => mpls(bytes),
        _ => vxlan(bytes),
    }
    .ok()?;
    let plausible = match layer {
        Layer::Ip => is_ip(inner),
        Layer::Ethernet => is_ethernet(inner),
        _ => true,
    };
    plausible.then_some((layer, inner))
}

/// L2TP, GTP-U, Teredo, VXLAN, VXLAN-GPE, Geneve, MPLS in UDP, VXLAN in Linux before it had a port.
pub(super) fn is_tunnel(port: u16) -> bool {
    matches!(port, 1701 | 2152 | 3544 | 4789 | 4790 | 6081 | 6635 | 8472)
}

/// RFC 7348, with the extensions for groups and for other protocols inside (GPE).
fn vxlan(bytes: Bytes<'_>) -> Passed<'_> {
    let [flags, _, _, protocol, _, _, _, reserved] = bytes.array(0)?;
    // The network number must be valid, the version 0.
    if flags & 0x38 != 0x08 || reserved != 0 {
        return Err(Stop::Malformed);
    }
    let inner = bytes.after(8)?;
    // With this flag a protocol number follows.
    if flags & 0x04 == 0 { Ok((Layer::Ethernet, inner)) } else { next_protocol(protocol, inner) }
}

/// The numbers that VXLAN-GPE and NSH share.
fn next_protocol(protocol: u8, inner: Bytes<'_>) -> Passed<'_> {
    match protocol {
        1 | 2 => Ok((Layer::Ip, inner)),
        3 => Ok((Layer::Ethernet, inner)),
        4 => nsh(inner),
        5 => mpls(inner),
        _ => Err(Stop::NotIp),
    }
}

/// Network Service Header, RFC 8300.
pub(super) fn nsh(bytes: Bytes<'_>) -> Passed<'_> {
    let [first, second, _, protocol] = bytes.array(0)?;
    let length = usize::from(second & 0x3f) * 4;
    // Version 0, and no service header inside another.
    if first >> 6 != 0 || length < 8 || protocol == 4 {
        return Err(Stop::Malformed);
    }
    next_protocol(protocol, bytes.after(length)?)
}

/// RFC 8926.
fn geneve(bytes: Bytes<'_>) -> Passed<'_> {
    let [first, _, a, b, _, _, _, reserved] = bytes.array(0)?;
    if first >> 6 != 0 || reserved != 0 {
        return Err(Stop::Malformed);
    }
    let inner = bytes.after(8 + usize::from(first & 0x3f) * 4)?;
    Ok((Layer::Type(u16::from_be_bytes([a, b])), inner))
}

/// RFC 2661: a data message, which carries PPP. Its session is set up by control messages.
fn l2tp(bytes: Bytes<'_>) -> Passed<'_> {
    const CONTROL: u16 = 0x8000;
    const LENGTH: u16 = 0x4000;
    const SEQUENCE: u16 = 0x0800;
    const OFFSET: u16 = 0x0200;
    const RESERVED: u16 = 0x34f0;
    let flags = bytes.u16(0)?;
    if flags & (CONTROL | RESERVED) != 0 || flags & 0xf != 2 {
        return Err(Stop::Malformed);
    }
    let field = |flag: u16, length: usize| if flags & flag != 0 { length } else { 0 };
    let ids = 2 + field(LENGTH, 2);
    let offset = ids + 4 + field(SEQUENCE, 4);
    let padding = if flags & OFFSET != 0 { 2 + usize::from(bytes.u16(offset)?) } else { 0 };
    let bytes = if flags & LENGTH != 0 { bytes.trim(usize::from(bytes.u16(2)?)) } else { bytes };
    Ok((Layer::Ppp, bytes.after(offset + padding)?))
}

/// 3GPP TS 29.281: a user's packet in a mobile network.
fn gtp(bytes: Bytes<'_>) -> Passed<'_> {
    /// The most extension headers that are passed.
    const MOST_EXTENSIONS: usize = 8;
    let [flags, message, a, b] = bytes.array(0)?;
    // Version 1, GTP rather than GTP', a user's packet.
    if flags & 0xf8 != 0x30 || message != 0xff {
        return Err(Stop::Malformed);
    }
    let bytes = bytes.trim(8 + usize::from(u16::from_be_bytes([a, b])));
    // Neither an extension header, a sequence number nor a fragment number.
    if flags == 0x30 {
        return Ok((Layer::Ip, bytes.after(8)?));
    }
    let (mut at, mut next) = (12, bytes.byte(11)?);
    if flags & 4 == 0 {
        next = 0;
    }
    for _ in 0..MOST_EXTENSIONS {
        if next == 0 {
            return Ok((Layer::Ip, bytes.after(at)?));
        }
        let length = usize::from(bytes.byte(at)?) * 4;
        if length == 0 {
            return Err(Stop::Malformed);
        }
        at += length;
        next = bytes.byte(at - 1)?;
    }
    Err(Stop::Malformed)
}

/// RFC 4380: IPv6, with an authentication header, an origin indication or both before it.
fn teredo(bytes: Bytes<'_>) -> Passed<'_> {
    let mut bytes = bytes;
    if bytes.u16(0)? == 1 {
        let (client, secret) = (usize::from(bytes.byte(2)?), usize::from(bytes.byte(3)?));
        bytes = bytes.after(13 + client + secret)?;
    }
    if bytes.u16(0)? == 0 {
        bytes = bytes.after(8)?;
    }
    if bytes.byte(0)? >> 4 == 6 { Ok((Layer::Ip, bytes)) } else { Err(Stop::Malformed) }
}

/// RFC 2784 and 2890, and the version of PPTP (RFC 2637).
pub(super) fn gre(bytes: Bytes<'_>) -> Passed<'_> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGEMENT: u16 = 0x0080;
    let (flags, kind) = (bytes.u16(0)?, bytes.u16(2)?);
    let is_pptp = match flags & 7 {
        0 => false,
        1 => true,
        _ => return Err(Stop::Malformed),
    };
    if flags & ROUTING != 0 {
        return Err(Stop::NotIp);
    }
    let optional = [(CHECKSUM, !is_pptp), (KEY, true), (SEQUENCE, true), (ACKNOWLEDGEMENT, is_pptp)];
    let words = optional.iter().filter(|(flag, counts)| *counts && flags & flag != 0).count();
    let inner = bytes.after(4 + 4 * words)?;
    match kind {
        // Type I has no header of its own and no sequence number, type II has both.
        0x88be if flags & SEQUENCE == 0 => Ok((Layer::Ethernet, inner)),
        // WCCP, version 2 with a redirect header of four bytes.
        0x883e if inner.byte(0)? >> 4 != 4 => Ok((Layer::Ip, inner.after(4)?)),
        0x883e => Ok((Layer::Ip, inner)),
        kind => Ok((Layer::Type(kind), inner)),
    }
}

/// A mirrored frame (draft-foschiano-erspan), types II and III by their protocol numbers in GRE.
pub(super) fn erspan(kind: u16, bytes: Bytes<'_>) -> Passed<'_> {
    if kind == 0x88be {
        return Ok((Layer::Ethernet, bytes.after(8)?));
    }
    // The last bit tells of a platform-specific header.
    let length = if bytes.byte(11)? & 1 != 0 { 20 } else { 12 };
    Ok((Layer::Ethernet, bytes.after(length)?))
}

#[cfg(test)]
mod tests {
    use crate::flow::decode::tests::{decode, is_inner, is_outer};
    use crate::flow::frames::{before, ethernet, inner, inner6, ipv4, ipv6, udp};

    fn frame() -> Vec<u8> {
        ethernet(0x0800, &inner())
    }

    #[test]
    fn ip_in_ip_leads_to_the_inner_packet() {
        for (name, packet) in [
            ("ipip", ipv4(4, 0, 0, &inner())),
            ("6in4", ipv4(41, 0, 0, &inner6())),
            ("4in6", ipv6(4, &inner())),
            ("6in6", ipv6(41, &inner6())),
            ("EtherIP", ipv4(97, 0, 0, &before(&[0x30, 0], &frame()))),
            ("MPLS in IP", ipv4(137, 0, 0, &before(&[0, 1, 1, 64], &inner()))),
            ("three deep", ipv4(4, 0, 0, &ipv6(41, &ipv6(4, &inner())))),
        ] {
            is_inner(name, 101, &packet);
        }
    }

    #[test]
    fn gre_leads_to_the_inner_packet() {
        for (name, head, payload) in [
            ("plain", vec![0, 0, 8, 0], inner()),
            ("checksum, key, sequence", [vec![0xb0, 0, 8, 0], vec![9; 12]].concat(), inner()),
            ("IPv6", vec![0x20, 0, 0x86, 0xdd, 0, 0, 0, 1], inner6()),
            ("bridged", vec![0x20, 0, 0x65, 0x58, 0, 0, 0, 1], frame()),
            ("MPLS", vec![0, 0, 0x88, 0x47, 0, 1, 1, 64], inner()),
            ("ERSPAN I", vec![0, 0, 0x88, 0xbe], frame()),
            ("ERSPAN II", [vec![0x10, 0, 0x88, 0xbe], vec![0; 4], vec![0x10; 8]].concat(), frame()),
            ("ERSPAN III", [vec![0x10, 0, 0x22, 0xeb], vec![0; 4], vec![0x20; 12]].concat(), frame()),
            ("ERSPAN III, subheader", [vec![0x10, 0, 0x22, 0xeb], vec![0; 4], vec![0x21; 20]].concat(), frame()),
            ("PPTP", [vec![0x30, 0x81, 0x88, 0x0b], vec![0; 12], vec![0xff, 3, 0, 0x21]].concat(), inner()),
            ("WCCP", vec![0, 0, 0x88, 0x3e], inner()),
            ("WCCP 2", vec![0, 0, 0x88, 0x3e, 0, 0, 0, 0], inner()),
            ("NSH", [vec![0, 0, 0x89, 0x4f], vec![0, 2, 1, 1, 0, 0, 1, 255]].concat(), inner()),
        ] {
            is_inner(name, 101, &ipv4(47, 0, 0, &before(&head, &payload)));
        }
    }

    #[test]
    fn tunnels_in_udp_lead_to_the_inner_packet() {
        let gtp = |flags: u8, extra: &[u8]| {
            let length = (extra.len() + inner().len()) as u8;
            before(&[flags, 255, 0, length, 0, 0, 0, 1], extra)
        };
        for (name, port, head, payload) in [
            ("VXLAN", 4789, vec![8, 0, 0, 0, 0, 0, 5, 0], frame()),
            ("VXLAN of Linux", 8472, vec![8, 0, 0, 0, 0, 0, 5, 0], ethernet(0x86dd, &inner6())),
            ("VXLAN with a group", 4789, vec![0x88, 0, 0, 9, 0, 0, 5, 0], frame()),
            ("VXLAN-GPE", 4790, vec![0x0c, 0, 0, 1, 0, 0, 5, 0], inner()),
            ("VXLAN-GPE, NSH", 4790, vec![0x0c, 0, 0, 4, 0, 0, 5, 0, 0, 2, 1, 3, 0, 0, 1, 255], frame()),
            ("Geneve", 6081, [vec![2, 0, 0x65, 0x58, 0, 0, 5, 0], vec![1; 8]].concat(), frame()),
            ("Geneve, IP", 6081, vec![0, 0, 8, 0, 0, 0, 5, 0], inner()),
            ("L2TP", 1701, vec![0, 2, 0, 1, 0, 1, 0xff, 3, 0, 0x21], inner()),
            ("L2TP, IPv6", 1701, vec![0, 2, 0, 1, 0, 1, 0, 0x57], inner6()),
            (
                "L2TP, all fields",
                1701,
                vec![0x4a, 2, 0, (18 + inner().len()) as u8, 0, 1, 0, 1, 0, 7, 0, 8, 0, 2, 9, 9, 0, 0x21],
                inner(),
            ),
            ("GTP-U", 2152, gtp(0x30, &[]), inner()),
            ("GTP-U, sequence", 2152, gtp(0x32, &[0, 9, 0, 0]), inner()),
            ("GTP-U, extensions", 2152, gtp(0x34, &[0, 0, 0, 0x85, 1, 0, 9, 0x40, 1, 0, 0, 0]), inner()),
            ("Teredo", 3544, vec![], inner6()),
            ("Teredo, both headers", 3544, [vec![0, 1, 0, 0], vec![0; 9], vec![0; 8]].concat(), inner6()),
            ("MPLS", 6635, vec![0, 1, 1, 64], inner()),
        ] {
            is_inner(name, 101, &ipv4(17, 0, 0, &udp(40_000, port, &before(&head, &payload))));
        }
    }

    #[test]
    fn a_port_alone_makes_no_tunnel() {
        for port in [1701, 2152, 3544, 4789, 4790, 6081, 6635, 8472] {
            for payload in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n and more of it"[..], b"", &[8, 0, 0, 0], &[0; 40]] {
                is_outer("no tunnel", &ipv4(17, 0, 0, &udp(40_000, port, payload)), Some(payload.len()));
            }
        }
    }

    #[test]
    fn a_tunnel_of_what_is_not_ip_stays_the_outer_packet() {
        let arp = before(&[8, 0, 0, 0, 0, 0, 5, 0], &ethernet(0x0806, &[0; 28]));
        is_outer("VXLAN of ARP", &ipv4(17, 0, 0, &udp(40_000, 4789, &arp)), Some(arp.len()));
        is_outer("GRE keepalive", &ipv4(47, 0, 0, &[0; 4]), None);
    }

    #[test]
    fn tunnels_without_end_do_not_recurse() {
        let mut packet = inner();
        for _ in 0..1000 {
            packet = ipv4(4, 0, 0, &packet);
        }
        assert!(decode(101, &packet, |packet| assert!(packet.is_ok())));
    }
}
