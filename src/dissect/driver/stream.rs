//! One direction's bytes that nobody has consumed yet, with the time of each.

use std::collections::VecDeque;

use crate::entry::Direction;
use crate::flow::reassembly::Stamp;

/// The largest buffer that is kept for the next message once it is empty.
const MAX_SPARE: usize = 64 << 10;

/// One direction's bytes that nobody has consumed yet.
#[derive(Default)]
pub(super) struct Stream {
    pub buffer: Vec<u8>,
    /// Where in the stream the buffer starts, from any origin.
    start: usize,
    /// Where in the stream each chunk of the buffer ends, and when it was captured.
    marks: VecDeque<(usize, Stamp)>,
    /// The buffer has to be this long before the dissector is called again.
    pub enough: usize,
    /// Bytes to pass over unseen.
    pub skip: u64,
    /// A message boundary is to be found again, chunk by chunk.
    pub seeking: bool,
    pub ended: bool,
    /// It has ended, but the dissector still waits; whether it was cut off.
    pub closing: Option<bool>,
}

impl Stream {
    pub fn push(&mut self, bytes: &[u8], stamp: Stamp) {
        self.buffer.extend_from_slice(bytes);
        self.marks.push_back((self.start + self.buffer.len(), stamp));
    }

    pub fn clear(&mut self) {
        self.buffer.clear();
        self.marks.clear();
        self.start = 0;
        self.enough = 0;
    }

    /// How many bytes of memory it takes.
    pub fn held(&self) -> usize {
        self.buffer.capacity() + self.marks.capacity() * size_of::<(usize, Stamp)>()
    }

    /// Gives back what is set aside for the next bytes, of which none wait.
    pub fn shrink(&mut self) {
        self.buffer.shrink_to_fit();
        self.marks.shrink_to_fit();
    }

    /// When the byte at `offset` was captured.
    pub fn stamp(&self, offset: usize) -> Stamp {
        let position = self.start + offset;
        let at = self.marks.partition_point(|(end, _)| *end <= position);
        let Some((_, stamp)) = self.marks.get(at) else { return self.newest() };
        let before = at.checked_sub(1).and_then(|before| self.marks.get(before));
        later(*stamp, position - before.map_or(self.start, |(end, _)| *end))
    }

    pub fn newest(&self) -> Stamp {
        self.marks.back().map_or_else(Stamp::default, |(_, stamp)| *stamp)
    }

    /// Forgets the first `n` bytes. What waits byte by byte has as many marks: only those that are done with are touched.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.buffer.len());
        if n == self.buffer.len() {
            if n > MAX_SPARE {
                self.buffer = Vec::new();
                self.marks = VecDeque::new();
            }
            self.clear();
            return;
        }
        self.buffer.drain(..n);
        let position = self.start + n;
        let mut start = self.start;
        while let Some((end, _)) = self.marks.front().filter(|(end, _)| *end <= position) {
            start = *end;
            self.marks.pop_front();
        }
        if let Some((_, stamp)) = self.marks.front_mut() {
            *stamp = later(*stamp, position - start);
        }
        self.start = position;
    }

    /// After a run: forgets what was consumed and keeps the rest for later.
    pub fn keep(&mut self, buffered: bool, bytes: &[u8], consumed: usize, stamp: Stamp) {
        let had = if buffered { self.buffer.len() } else { bytes.len() };
        self.skip += consumed.saturating_sub(had) as u64;
        if buffered {
            self.consume(consumed);
        } else if let Some(rest) = bytes.get(consumed..).filter(|rest| !rest.is_empty()) {
            self.push(rest, later(stamp, consumed));
        }
    }
}

/// The stamp of the byte `offset` bytes into the chunk with that stamp.
pub(super) fn later(stamp: Stamp, offset: usize) -> Stamp {
    Stamp { position: stamp.position.wrapping_add(offset as u32), ..stamp }
}

/// The stream of a direction, and the other.
pub(super) fn split(streams: &mut [Stream; 2], direction: Direction) -> (&mut Stream, &mut Stream) {
    let [to_server, to_client] = streams;
    match direction {
        Direction::ToServer => (to_server, to_client),
        Direction::ToClient => (to_client, to_server),
    }
}
