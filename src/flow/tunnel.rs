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

/// GTP-U, Teredo, VXLAN, VXLAN-GPE, Geneve, MPLS in UDP, VXLAN in Linux before it had a port.
fn is_tunnel(port: u16) -> bool {
    matches!(port, 2152 | 3544 | 4789 | 4790 | 6081 | 6635 | 8472)
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

/// 3GPP TS 29.281: a user's packet in a mobile network.
fn gtp(bytes: Bytes<'_>) -> Passed<'_> {
    /// The most extension headers that are passed.
    const MOST_EXTENSIONS: usize = 8;
    let [flags, message, a, b] = bytes.array(0)?;
    // Version 1, GTP rather than GTP', a user's packet.
    if flags & 0xf0 != 0x30 || message != 0xff {
        return Err(Stop::Malformed);
    }
    let bytes = bytes.trim(8 + usize::from(u16::from_be_bytes([a, b])));
    if flags & 7 == 0 {
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
