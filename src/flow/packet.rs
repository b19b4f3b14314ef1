//! A frame's L2–L4, decoded.

use std::net::IpAddr;

/// Who talks to whom, in the innermost IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addresses {
    /// Sender.
    pub src: IpAddr,
    /// Receiver.
    pub dst: IpAddr,
}

/// The innermost packet of a frame, after tunnels and fragments.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Innermost addresses.
    pub addresses: Addresses,
    /// What the IP packet carries.
    pub payload: Payload<'a>,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// TCP.
    Tcp(Segment<'a>),
    /// UDP.
    Udp {
        /// Sender's port.
        src_port: u16,
        /// Receiver's port.
        dst_port: u16,
        /// The datagram's bytes.
        data: &'a [u8],
        /// How many bytes of it the snaplen cut off.
        missing: u32,
    },
    /// ICMP or ICMPv6, from its type byte on.
    Icmp {
        /// True for ICMPv6.
        v6: bool,
        /// The message.
        data: &'a [u8],
    },
    /// SCTP.
    Sctp {
        /// Sender's port.
        src_port: u16,
        /// Receiver's port.
        dst_port: u16,
        /// What follows the common header.
        chunks: &'a [u8],
    },
    /// Another transport, by its IP protocol number.
    Other(u8),
}

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Sender's port.
    pub src_port: u16,
    /// Receiver's port.
    pub dst_port: u16,
    /// Sequence number of the first payload byte (of the SYN, if set).
    pub seq: u32,
    /// Acknowledgement number, if the ACK flag is set.
    pub ack: u32,
    /// The flags that matter here.
    pub flags: Flags,
    /// The payload that was captured.
    pub data: &'a [u8],
    /// How many bytes of the payload the snaplen cut off.
    pub missing: u32,
}

/// TCP flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are the header's")]
pub struct Flags {
    /// Opens the connection.
    pub syn: bool,
    /// The acknowledgement number counts.
    pub ack: bool,
    /// The sender is done.
    pub fin: bool,
    /// The connection is broken off.
    pub rst: bool,
}
