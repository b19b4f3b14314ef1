//! Where frames come from: files, streams of agents, sockets. The only place with `unsafe`
//! code, but for the agent's dealings with its own process and its buffer on disk.
//!
//! Owns the frame, the batch and the file formats. Never looks into a packet.

#[cfg(feature = "agent")]
mod af_packet;
#[cfg(feature = "agent")]
mod af_xdp;
#[cfg(feature = "agent")]
pub mod backend;
#[cfg(feature = "agent")]
pub mod bpf;
#[cfg(feature = "engine")]
pub mod decoder;
#[cfg(feature = "engine")]
pub mod file;
#[cfg(feature = "cli")]
pub mod filter;
#[cfg(feature = "engine")]
mod frame;
#[cfg(feature = "agent")]
pub mod interface;
#[cfg(feature = "agent")]
pub mod interpreter;
#[cfg(feature = "libpcap")]
mod libpcap;
#[cfg(all(feature = "agent", not(feature = "libpcap")))]
#[path = "without_libpcap.rs"]
mod libpcap;
#[cfg(feature = "engine")]
mod lz4;
pub mod pcapng;
#[cfg(feature = "agent")]
mod pf_ring;
#[cfg(feature = "agent")]
pub mod prefetch;
#[cfg(feature = "engine")]
mod probes;
#[cfg(feature = "engine")]
mod secrets;
#[cfg(feature = "engine")]
mod section;
#[cfg(feature = "agent")]
mod socket;

#[cfg(feature = "engine")]
pub use frame::{Batch, Error, Frame, Interface, Note, Source, Stored};
#[cfg(feature = "engine")]
pub use probes::Probes;
