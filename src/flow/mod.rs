//! Frames → ordered bytes. Pure.
//!
//! Owns L2–L4 decoding, fragments, the flow table, TCP reassembly and SCTP's messages. Never knows a protocol above the
//! transport.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod decode;
mod fragment;
#[cfg(test)]
mod frames;
mod glance;
mod layer;
mod link;
mod packet;
pub mod reassembly;
pub mod sctp;
mod tunnel;

pub use glance::Glance;
pub use packet::{Addresses, Flags, Packet, Payload, Segment};
