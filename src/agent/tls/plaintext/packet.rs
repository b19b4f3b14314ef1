//! An IP packet around bytes, as if they had been sent so.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An acknowledgement, and bytes that are to be handed on.
const FLAGS: u8 = 0x18;

/// What stands in place of the hops that are left.
const HOPS: u8 = 64;

const TCP: u8 = 6;

/// Appends the headers of IP and TCP (RFC 791, 8200, 9293) for so many bytes, and the bytes.
pub(super) fn write(
    out: &mut Vec<u8>,
    src: SocketAddr,
    dst: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    data: &[u8],
) {
    let start = out.len();
    let length = 20 + data.len() as u16;
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out.extend([0x45, 0]);
            out.extend((20 + length).to_be_bytes());
            // No id, not to be cut.
            out.extend([0, 0, 0x40, 0, HOPS, TCP, 0, 0]);
            out.extend(src.octets());
            out.extend(dst.octets());
            let sum = checksum(0, out.get(start..).unwrap_or_default());
            if let Some(field) = out.get_mut(start + 10..start + 12) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
        (src, dst) => {
            out.extend([0x60, 0, 0, 0]);
            out.extend(length.to_be_bytes());
            out.extend([TCP, HOPS]);
            out.extend(wide(src).octets());
            out.extend(wide(dst).octets());
        }
    }
    let segment = out.len();
    out.extend(src.port().to_be_bytes());
    out.extend(dst.port().to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out.extend(acknowledged.to_be_bytes());
    out.extend([5 << 4, FLAGS, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend_from_slice(data);
    // Of a pseudo-header too: protocol, length, addresses. The 0xffff before a mapped address adds nothing.
    let pseudo =
        u64::from(TCP) + u64::from(length) + sum_of(&wide(src.ip()).octets()) + sum_of(&wide(dst.ip()).octets());
    let sum = checksum(pseudo, out.get(segment..).unwrap_or_default());
    if let Some(field) = out.get_mut(segment + 16..segment + 18) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The Internet checksum (RFC 1071), after words that sum up to `before`.
fn checksum(before: u64, bytes: &[u8]) -> u16 {
    let mut sum = before + sum_of(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sum of words, two of them at once.
fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    words.iter().chain([&last]).map(|word| u64::from(u32::from_be_bytes(*word))).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    #[test]
    fn is_a_packet_whose_checksums_are_right() {
        // The checksums as another program computes them.
        for (src, dst, header, sum) in [
            ("10.0.0.1:40000", "10.0.0.2:443", 20, [0x62, 0x76]),
            ("[fd00::1]:40000", "[fd00::2]:443", 40, [0x7c, 0x74]),
        ] {
            let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let mut out = b"before".to_vec();
            write(&mut out, src, dst, 7, 9, b"GET");
            let packet = &out[6..];
            assert_eq!(packet.len(), header + 20 + 3);
            assert_eq!(&packet[header..header + 12], [0x9c, 0x40, 1, 0xbb, 0, 0, 0, 7, 0, 0, 0, 9]);
            assert_eq!(packet[header + 16..header + 18], sum);
            assert!(header == 40 || checksum(0, &packet[..20]) == 0);
        }
    }
}
