//! A direction of a stream, put in order (RFC 9000 section 2.2).

use std::collections::BTreeMap;

use crate::entry::Timestamp;

/// The most bytes behind a hole that wait for it to be filled.
const MAX_BEHIND: usize = 512 << 10;
/// The most pieces behind holes.
const MAX_PIECES: usize = 2048;
/// The most bytes in order that wait for what reads them.
const MAX_READY: usize = 512 << 10;

/// What one side sends on a stream.
#[derive(Default)]
pub(super) struct Incoming {
    /// In order, from where the last ones were done with.
    ready: Vec<u8>,
    /// Where `ready` ends in the stream.
    end: u64,
    /// What came ahead of its turn, by its place.
    pieces: BTreeMap<u64, Vec<u8>>,
    behind: usize,
    /// When the first byte of `ready` was captured, and in which frame.
    pub since: (Timestamp, u64),
    /// How long the stream is, once that is known.
    length: Option<u64>,
    /// Nobody reads it any more.
    pub ignored: bool,
}

impl Incoming {
    /// Takes a piece that came at `now`; `last` if the stream ends with it.
    pub fn add(&mut self, offset: u64, data: &[u8], last: bool, now: (Timestamp, u64)) {
        if last {
            self.length = Some(offset.saturating_add(data.len() as u64));
        }
        if offset > self.end {
            if !self.ignored && self.pieces.get(&offset).is_none_or(|piece| piece.len() < data.len()) {
                let old = self.pieces.insert(offset, data.to_vec());
                self.behind = self.behind + data.len() - old.map_or(0, |old| old.len());
            }
            return;
        }
        self.append(offset, data, now);
        while let Some(entry) = self.pieces.first_entry()
            && *entry.key() <= self.end
        {
            let (offset, piece) = entry.remove_entry();
            self.behind -= piece.len();
            self.append(offset, &piece, now);
        }
    }

    fn append(&mut self, offset: u64, data: &[u8], now: (Timestamp, u64)) {
        let known = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = data.get(known..).filter(|new| !new.is_empty()) else { return };
        if self.ready.is_empty() {
            self.since = now;
        }
        self.end += new.len() as u64;
        if !self.ignored {
            self.ready.extend_from_slice(new);
        }
    }

    /// If too much waits for a hole to be filled, or `all`: passes over it. How long it was.
    pub fn skip_hole(&mut self, all: bool, now: (Timestamp, u64)) -> Option<u64> {
        let (first, _) = self.pieces.first_key_value()?;
        let full = self.behind > MAX_BEHIND || self.pieces.len() > MAX_PIECES;
        if !full && !all {
            return None;
        }
        let hole = first - self.end;
        self.ready.clear();
        self.end = *first;
        self.add(*first, &[], false, now);
        Some(hole)
    }

    /// What is in order.
    pub fn ready(&self) -> &[u8] {
        &self.ready
    }

    /// So many bytes are done with.
    pub fn consume(&mut self, n: usize, now: (Timestamp, u64)) {
        self.ready.drain(..n.min(self.ready.len()));
        self.since = now;
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.ready.len() + self.behind
    }

    /// True if more waits than may.
    pub fn is_stuck(&self) -> bool {
        self.ready.len() > MAX_READY
    }

    /// Nobody will read it.
    pub fn ignore(&mut self) {
        self.ignored = true;
        self.ready = Vec::new();
        self.pieces.clear();
        self.behind = 0;
    }

    /// True if all of it was there and was done with.
    pub fn is_over(&self) -> bool {
        self.ready.is_empty() && self.length.is_some_and(|length| self.end >= length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: (Timestamp, u64) = (Timestamp(1), 1);

    #[test]
    fn pieces_are_put_in_order() {
        let mut stream = Incoming::default();
        stream.add(3, b"lo w", false, NOW);
        stream.add(7, b"orld", true, NOW);
        assert_eq!(stream.ready(), b"");
        stream.add(0, b"hel", false, NOW);
        stream.add(0, b"hello", false, NOW);
        assert_eq!(stream.ready(), b"hello world");
        stream.consume(6, NOW);
        assert_eq!(stream.ready(), b"world");
        assert!(!stream.is_over());
        stream.consume(5, NOW);
        assert!(stream.is_over());
    }

    #[test]
    fn a_hole_that_stays_is_passed_over() {
        let mut stream = Incoming::default();
        stream.add(10, b"rest", true, NOW);
        assert_eq!(stream.skip_hole(false, NOW), None);
        assert_eq!(stream.skip_hole(true, NOW), Some(10));
        assert_eq!(stream.ready(), b"rest");
        let piece = vec![0; 4096];
        let mut stream = Incoming::default();
        let mut holes = 0;
        for at in 0..1000 {
            stream.add(1 + at * 5000, &piece, false, NOW);
            while stream.skip_hole(false, NOW).is_some() {
                holes += 1;
                let ready = stream.ready().len();
                stream.consume(ready, NOW);
            }
            assert!(stream.behind <= MAX_BEHIND + piece.len());
        }
        assert!(holes > 800);
    }
}
