//! Frames in, entries out: the engine and the seams that it calls.
//!
//! Owns [`Engine`], the counters and the traits [`Sink`] and [`Resolve`]. Does no I/O, knows no clock and no Kubernetes.

mod drops;
mod engine;
mod flow;
mod fold;
mod ids;
mod key;
mod live;
mod merge;
mod opened;
mod run;
mod tally;

pub use engine::{Engine, Produced, Shard};
pub use key::Place;
pub use live::Live;
pub use merge::Merge;
pub use run::{Offline, run};

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use crate::entry::{Entry, Name};

/// What happened to everything that came in. Nothing is lost unseen: each loss has its counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Frames read.
    pub packets: u64,
    /// Their bytes, as captured.
    pub bytes: u64,
    /// Entries handed to the sink.
    pub entries: u64,
    /// Frames that the kernel dropped before the agent could read them.
    pub dropped: u64,
    /// Packets that a master PCAP flushed before this session read them.
    pub flushed: u64,
    /// Packets that waited on disk, since rows were read more slowly than packets came. None is lost by that.
    pub spilled: u64,
    /// Packets that agents left out for the session's own filter.
    pub filtered: u64,
    /// Frames shorter than they were on the wire (snaplen).
    pub cut: u64,
    /// Frames that hold no IP packet.
    pub not_ip: u64,
    /// Frames of a link type that is not known.
    pub unknown_link: u64,
    /// Frames whose headers are cut off or contradict themselves.
    pub malformed: u64,
    /// Fragments whose datagram never became whole.
    pub fragments: u64,
    /// Gaps in streams: bytes that were sent but never captured.
    pub gaps: u64,
    /// Bytes in those gaps.
    pub gap_bytes: u64,
    /// TCP and UDP flows seen.
    pub flows: u64,
    /// Flows with payload of no known protocol.
    pub unknown_flows: u64,
    /// Flows given up because their bytes contradicted the protocol that they were taken for.
    pub malformed_flows: u64,
    /// Encrypted records that did not prove authentic with the keys that are known.
    pub undecrypted: u64,
    /// What agents' probes saw of TLS keys and lost for want of room.
    pub key_events_lost: u64,
    /// TLS secrets that probes have found of connections whose beginning they have not seen.
    pub keys_unmatched: u64,
    /// Responses without their requests that lack bytes, of their own or before them: they are no entries.
    pub remains: u64,
    /// Flows closed early because a limit was reached.
    pub evicted: u64,
    /// Flows whose waiting bytes were given up because too many waited in all flows together.
    pub relieved: u64,
    /// Flows given up because of a fault of ours, each with a message on stderr.
    pub faults: u64,
    /// Entries left out because two sniffed pods saw the same request.
    pub merged: u64,
    /// Plain legs of requests that passed a sidecar, told with the encrypted one.
    pub folded: u64,
}

impl Counts {
    /// Adds what another engine counted of other flows; frame counts are the same in both and stay.
    fn add_flows(&mut self, other: &Self) {
        self.gaps += other.gaps;
        self.gap_bytes += other.gap_bytes;
        self.flows += other.flows;
        self.unknown_flows += other.unknown_flows;
        self.malformed_flows += other.malformed_flows;
        self.undecrypted += other.undecrypted;
        self.remains += other.remains;
        self.evicted += other.evicted;
        self.relieved += other.relieved;
        self.faults += other.faults;
    }
}

/// Where entries go: a table, JSON lines. Writes to what it was given, never to stdout by itself.
pub trait Sink {
    /// One row.
    ///
    /// # Errors
    /// Whatever writing yields; a broken pipe ends the run quietly.
    fn entry(&mut self, entry: &Entry) -> io::Result<()>;

    /// Called between batches, at least once a second in a live run: flush, redraw.
    ///
    /// # Errors
    /// As for [`Sink::entry`].
    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Called once at the end.
    ///
    /// # Errors
    /// As for [`Sink::entry`].
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Names for addresses, as known at this moment.
pub trait Resolve: Send + Sync {
    /// The pod, service or node at `ip`; `port` tells pods of one node's address apart.
    fn resolve(&self, ip: IpAddr, port: u16) -> Option<Arc<Name>>;
}
