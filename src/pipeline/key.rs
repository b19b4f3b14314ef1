//! What tells flows apart.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use crate::capture::Interface;
use crate::dissect::{Ends, tls};
use crate::entry::Endpoint;

/// Where a frame was captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The pod, by a number; 0 where pods are not known.
    pub tap: u32,
    /// The probe that it is from, if it holds the plaintext of a TLS connection.
    pub origin: Option<&'static str>,
}

impl Place {
    /// That of an interface at a tap.
    pub(super) fn of(tap: u32, interface: &Interface) -> Self {
        Self { tap, origin: interface.origin.as_deref().and_then(tls::keys::probe) }
    }
}

/// One flow, both ways, at one place of capture.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub tap: u32,
    /// The probe that it is from, if it is the plaintext of a TLS connection; the connection itself is a flow beside it.
    pub origin: Option<&'static str>,
    /// The IP protocol number.
    pub transport: u8,
    pub low: (IpAddr, u16),
    pub high: (IpAddr, u16),
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.mixed());
    }
}

impl Key {
    /// The flow's key, and which side (0 = low, 1 = high) is `src`.
    pub fn new(place: Place, transport: u8, src: (IpAddr, u16), dst: (IpAddr, u16)) -> (Self, usize) {
        let Place { tap, origin } = place;
        if src <= dst {
            (Self { tap, origin, transport, low: src, high: dst }, 0)
        } else {
            (Self { tap, origin, transport, low: dst, high: src }, 1)
        }
    }

    /// A hash that is the same in every run, so that sharding is; and for a connection as for its plaintext.
    pub fn mixed(&self) -> u64 {
        let mut hash = u64::from(self.tap) << 8 | u64::from(self.transport);
        let mut mix = |word: u64| {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        };
        for (ip, port) in [&self.low, &self.high] {
            match ip {
                IpAddr::V4(ip) => mix(u64::from(ip.to_bits()) << 16 | u64::from(*port)),
                IpAddr::V6(ip) => {
                    let bits = ip.to_bits();
                    mix((bits >> 64) as u64);
                    mix(bits as u64);
                    mix(u64::from(*port));
                }
            }
        }
        hash
    }

    /// The flow's ends; `client_side` is the client's (0 = low, 1 = high).
    pub fn ends(&self, client_side: usize) -> Ends {
        let low = Endpoint::new(self.low.0, self.low.1);
        let high = Endpoint::new(self.high.0, self.high.1);
        let (client, server) = if client_side == 0 { (low, high) } else { (high, low) };
        Ends { client, server, tap: self.tap }
    }
}
