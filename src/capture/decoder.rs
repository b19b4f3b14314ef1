//! Bytes of a pcap or pcapng stream → frames, incrementally: the same for a file and for an agent's stream.

use super::{Batch, Error, Interface};

/// Decodes one capture, however its bytes arrive.
#[derive(Debug)]
pub struct Decoder {
    name: String,
    interfaces: Vec<Interface>,
}

impl Decoder {
    /// For a capture that errors shall call `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), interfaces: Vec::new() }
    }

    /// The interfaces seen so far; frames index into it. It only grows, also across sections.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Decodes the whole records at the start of `batch.bytes[from..]` into frames, notes and interfaces of the batch.
    /// Returns how many bytes it used; the caller gives the rest again with more behind it.
    ///
    /// # Errors
    /// [`Error::NotACapture`] if the stream is of no known format, or is damaged beyond the frames already decoded.
    pub fn decode(&mut self, batch: &mut Batch, from: usize) -> Result<usize, Error> {
        let _ = (batch, from);
        Err(Error::NotACapture { name: self.name.clone(), why: String::new() })
    }
}
