//! Frames for the tests of this layer, built header by header from the inside out.
#![allow(clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::net::IpAddr;

/// Puts `head` before `payload`.
pub(super) fn before(head: &[u8], payload: &[u8]) -> Vec<u8> {
    [head, payload].concat()
}

pub(super) fn udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16 + 8;
    let head = [src_port, dst_port, length, 0].map(u16::to_be_bytes).concat();
    before(&head, payload)
}

/// A segment from port 1000 to port 80 with 12 bytes of options.
pub(super) fn tcp(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut head = vec![3, 232, 0, 80];
    head.extend(seq.to_be_bytes());
    head.extend(7_u32.to_be_bytes());
    head.extend([0x80, flags, 0, 0, 0, 0, 0, 0]);
    head.extend([1; 12]);
    before(&head, payload)
}

/// IPv4 from 10.0.0.1 to 10.0.0.2; `fragment` is the field of flags and offset.
pub(super) fn ipv4(protocol: u8, id: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut head = vec![0x45, 0];
    head.extend((payload.len() as u16 + 20).to_be_bytes());
    head.extend(id.to_be_bytes());
    head.extend(fragment.to_be_bytes());
    head.extend([64, protocol, 0xba, 0xad, 10, 0, 0, 1, 10, 0, 0, 2]);
    before(&head, payload)
}

/// IPv6 from `fd00::1` to `fd00::2`.
pub(super) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut head = vec![0x60, 0, 0, 0];
    head.extend((payload.len() as u16).to_be_bytes());
    head.extend([next, 64]);
    for host in [1, 2] {
        let mut address = [0; 16];
        address[0] = 0xfd;
        address[15] = host;
        head.extend(address);
    }
    before(&head, payload)
}

/// Ethernet whose first address could be taken for an IP header's start.
pub(super) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut head = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
    head.extend(kind.to_be_bytes());
    before(&head, payload)
}

/// The packet that the tests look for: UDP from port 5000 to port 6000 of [`ipv4`]'s addresses.
pub(super) fn inner() -> Vec<u8> {
    ipv4(17, 1, 0, &udp(5000, 6000, b"inner"))
}

/// The same in IPv6.
pub(super) fn inner6() -> Vec<u8> {
    ipv6(17, &udp(5000, 6000, b"inner"))
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| unreachable!("{text} is an address"))
}
