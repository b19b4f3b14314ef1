//! The plaintext of connections that nobody has the keys of, since their handshake was over before the probes came.
//!
//! Programs in the kernel (probes/plaintext.c) copy what such connections are given to encrypt and have decrypted, and tell by
//! which descriptor it is sent. Of that, packets are made: with the addresses and ports of the encrypted ones, and sequence
//! numbers that count the plaintext, so that what is missing is a gap. They go into the master PCAP as captured packets do, on
//! an interface for each library.

mod connections;
mod packet;
mod transfers;

use std::os::fd::AsFd;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, RingBuf};

use super::super::daemon::Daemon;
use super::super::process;
use super::super::state::now;
use super::socket;
use connections::{Connections, Event};
pub(super) use transfers::Transfers;

/// The programs without which keys are read as well.
pub(super) const PROGRAMS: [&str; 16] = [
    "boringssl_handshake",
    "boringssl_read",
    "boringssl_write",
    "gnutls_handshake",
    "gnutls_read",
    "gnutls_write",
    "go_handshake",
    "go_passed",
    "go_write",
    "openssl_handshake",
    "openssl_read",
    "openssl_read_ex",
    "openssl_write",
    "openssl_write_ex",
    "passed",
    "transfers",
];

/// How long to wait at a time.
const WAIT: Duration = Duration::from_secs(1);

/// About how many bytes are stored at once.
const BATCH: usize = 256 << 10;

/// What comes from the kernel, and what is known of the connections.
pub(super) struct Plaintext {
    pieces: RingBuf<MapData>,
    lost: Array<MapData, u64>,
    connections: Connections,
}

impl Plaintext {
    /// None if the programs lack their map.
    pub(super) fn new(programs: &mut Ebpf) -> Option<Self> {
        let pieces = programs.take_map("pieces").and_then(|map| RingBuf::try_from(map).ok())?;
        let lost = programs.take_map("pieces_lost").and_then(|map| Array::try_from(map).ok())?;
        Some(Self { pieces, lost, connections: Connections::new(socket::ends) })
    }

    /// Makes packets of what comes, as long as the agent lives. Transfers are watched as long as one of them may be needed.
    pub(super) fn run(mut self, daemon: &Daemon, mut transfers: Transfers) {
        let mut made = Vec::new();
        loop {
            process::wait_for_input(self.pieces.as_fd(), WAIT);
            // The kernel's clock counts from when it was started.
            let start = now().saturating_sub(process::uptime());
            let mut size = 0;
            while size < BATCH
                && let Some(bytes) = self.pieces.next()
                && let Some(mut event) = Event::of(&bytes)
            {
                size += bytes.len();
                event.time += start;
                self.connections.event(&event, &mut made);
            }
            if size > 0 {
                let lost = self.lost.get(&0, 0).unwrap_or_default() + self.connections.lost;
                daemon.insert(&made, lost);
                made.clear();
            }
            transfers.settle(|ends| self.connections.is_placed(ends));
        }
    }
}
