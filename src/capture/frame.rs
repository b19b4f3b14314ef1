//! Frames, the batches they travel in, and the trait of whatever yields them.

#[cfg(doc)]
use super::pcapng;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Probes;
use crate::entry::Timestamp;

/// One captured frame, lent from its batch.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its number in the capture, from 1. Numbers of one pipeline rise by one.
    pub number: u64,
    /// When it was captured.
    pub time: Timestamp,
    /// Index into the source's interfaces.
    pub interface: u32,
    /// Its length on the wire; `data` is shorter where the snaplen cut it.
    pub len: u32,
    /// The bytes captured.
    pub data: &'a [u8],
}

/// Where a frame was captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name as in the capture (`eth0`, or `namespace/pod:eth0` in ours); empty if it has none.
    pub name: String,
    /// Link type by its number in the tcpdump.org registry (1 = Ethernet).
    pub link: u32,
    /// The most bytes kept of a frame; 0 = all.
    pub snaplen: u32,
    /// The pod that it belongs to (`namespace/pod`), in captures of ours.
    pub pod: Option<String>,
    /// The probe that its packets are from, which nobody has sent so: plaintext of TLS connections ([`pcapng::PLAINTEXT`]).
    pub origin: Option<String>,
}

impl Interface {
    /// An interface whose pod, if the name says one (`namespace/pod:device`), is split from it.
    #[must_use]
    pub fn named(name: String, link: u32, snaplen: u32) -> Self {
        let pod = name.split_once(':').map(|(pod, _)| pod).filter(|pod| pod.contains('/')).map(str::to_owned);
        Self { name, link, snaplen, pod, origin: None }
    }
}

/// A frame inside a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Number, as [`Frame::number`].
    pub number: u64,
    /// The number that an agent gave it (`epb_packetid`), by which a cut stream is resumed.
    pub id: Option<u64>,
    /// Time, as [`Frame::time`].
    pub time: Timestamp,
    /// Interface, as [`Frame::interface`].
    pub interface: u32,
    /// Length on the wire.
    pub len: u32,
    /// Where its bytes start in the batch.
    pub start: usize,
    /// Where they end.
    pub end: usize,
}

/// What a capture says besides frames.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Note {
    /// A section of an agent's stream starts; the text is its hello (JSON).
    Hello(String),
    /// Packets that the master PCAP had flushed before they were read: the first number and how many.
    Flushed { from: u64, count: u64 },
    /// Of the packets numbered `from` up to `next`, this many were left out by the session's own filter. The others came
    /// before this note.
    Filtered { from: u64, next: u64, count: u64 },
    /// Counters of one interface since its capture began.
    Statistics { interface: u32, received: Option<u64>, dropped: Option<u64> },
    /// The agent ended the stream on purpose; the text is its reason (JSON).
    End(String),
    /// TLS key log lines.
    Secrets(Vec<u8>),
    /// What the agent's probes for TLS keys have come to.
    Probes(Probes),
    /// A name for an address.
    Name(IpAddr, String),
}

/// Frames that are handed on together: one buffer, many frames, no copy of a packet.
#[derive(Debug, Default)]
pub struct Batch {
    /// What the frames' `start..end` index; holds file headers between them too.
    pub bytes: Vec<u8>,
    /// The frames, in order of capture.
    pub frames: Vec<Stored>,
    /// What else was found among them.
    pub notes: Vec<Note>,
    /// Interfaces first described in this batch: the source's list grows by these.
    pub interfaces: Vec<Interface>,
}

impl Batch {
    /// The frames, lent.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames.iter().map(|stored| Frame {
            number: stored.number,
            time: stored.time,
            interface: stored.interface,
            len: stored.len,
            data: self.bytes.get(stored.start..stored.end).unwrap_or_default(),
        })
    }

    /// Empties it for the next filling and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.notes.clear();
        self.interfaces.clear();
    }
}

/// Whatever yields frames.
pub trait Source {
    /// Replaces what `batch` holds with the next frames; false at the end, when it holds none.
    ///
    /// # Errors
    /// [`Error`] if the input cannot be read or is no capture. What was read before stays valid.
    fn next_batch(&mut self, batch: &mut Batch) -> Result<bool, Error>;

    /// The TLS key logs that the capture holds anywhere, as far as that can be told before it is read. Those that come as
    /// [`Note::Secrets`] may be the same.
    fn secrets(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// What a reader should know at the end: the capture stops in the middle of a packet, or is damaged from there on.
    fn complaint(&self) -> Option<String> {
        None
    }
}

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Opening or reading failed.
    #[error("cannot read {name}: {cause}")]
    Io { name: String, cause: std::io::Error },
    /// The first bytes are of no capture format that we know.
    #[error("{name} is no capture: {why}")]
    NotACapture { name: String, why: String },
    /// A capture, but from here on its records contradict its format. What was decoded before stays valid.
    #[error("{name} is damaged {why}")]
    Damaged { name: String, why: String },
}
