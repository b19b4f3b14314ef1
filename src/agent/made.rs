//! Packets that nobody has sent so: what a TLS library was given to encrypt, or has decrypted.

use crate::capture::pcapng::Direction;

/// Such a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only probes see plaintext"))]
pub(super) struct Made {
    /// From which probe it is, as rows say: `uprobe:openssl`.
    pub(super) origin: &'static str,
    /// When it was, in nanoseconds since the Unix epoch.
    pub(super) time: u64,
    /// Which way it went.
    pub(super) direction: Direction,
    /// IP and all that is in it.
    pub(super) packet: Vec<u8>,
}
