//! Frame → packet: link types, VLAN tags, tunnels, IP and transport headers.

use crate::entry::Timestamp;

use super::Packet;

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

/// Decodes frames; holds the fragments that wait for their siblings.
#[derive(Debug, Default)]
pub struct Decoder {}

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
        let _ = (link, data, len, time);
        Err(Undecoded::Link)
    }

    /// Fragments whose datagram never became whole, so far.
    pub fn incomplete(&self) -> u64 {
        0
    }
}
