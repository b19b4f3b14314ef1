//! Batches that wait on disk: first in, first out, in temporary files without a name, so that they are gone with the process.
//!
//! A record is two lengths in bytes (8 each), JSON with the frames and notes, and the batch's bytes as they are.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::capture::{Batch, Note, Stored};
use crate::entry::Timestamp;

/// Bytes after which another file is begun: a file that has been read gives its room back.
const FILE: u64 = 64 << 20;

/// Bytes of the two lengths.
const LENGTHS: usize = 16;

/// A [`Stored`] frame as JSON.
type Line = (u64, Option<u64>, i64, u32, u32, usize, usize);

/// The batches on disk.
#[derive(Debug)]
pub(super) struct Spill {
    files: VecDeque<Part>,
    /// The most bytes on disk, but for the last record.
    most: u64,
    /// Packets by tap.
    packets: BTreeMap<u32, u64>,
}

/// One file.
#[derive(Debug)]
struct Part {
    file: File,
    read: u64,
    written: u64,
}

impl Spill {
    /// Takes about `most` bytes of disk.
    pub(super) fn new(most: u64) -> Self {
        Self { files: VecDeque::new(), most, packets: BTreeMap::new() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.files.iter().map(|part| part.written).sum::<u64>() < self.most
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.iter().all(|part| part.read == part.written)
    }

    /// Writes a batch, which describes no interfaces.
    ///
    /// # Errors
    /// If the disk does not take it; what it holds already stays.
    pub(super) fn put(&mut self, tap: u32, batch: &Batch) -> io::Result<()> {
        if self.files.back().is_none_or(|part| part.written >= FILE) {
            // In $TMPDIR, for its owner alone.
            self.files.push_back(Part { file: tempfile::tempfile()?, read: 0, written: 0 });
        }
        let Some(Part { file, written, .. }) = self.files.back_mut() else { return Ok(()) };
        let line = |frame: &Stored| -> Line {
            let Stored { number, id, time, interface, len, start, end } = *frame;
            (number, id, time.0, interface, len, start, end)
        };
        let lines: Vec<Line> = batch.frames.iter().map(line).collect();
        let mut head = vec![0; LENGTHS];
        serde_json::to_writer(&mut head, &(tap, lines, &batch.notes))?;
        let json = (head.len() - LENGTHS) as u64;
        for (place, length) in head.chunks_exact_mut(8).zip([json, batch.bytes.len() as u64]) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        file.write_all_at(&head, *written)?;
        file.write_all_at(&batch.bytes, *written + head.len() as u64)?;
        *written += (head.len() + batch.bytes.len()) as u64;
        *self.packets.entry(tap).or_default() += batch.frames.len() as u64;
        Ok(())
    }

    /// The oldest batch and its tap.
    ///
    /// # Errors
    /// If it cannot be read, or there is none.
    pub(super) fn take(&mut self) -> io::Result<(u32, Batch)> {
        let part = self.files.front_mut().ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut next = |length: u64| -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            part.file.read_exact_at(&mut bytes, part.read)?;
            part.read += length;
            Ok(bytes)
        };
        let mut lengths = [0; 2];
        for (length, bytes) in lengths.iter_mut().zip(next(LENGTHS as u64)?.chunks_exact(8)) {
            *length = u64::from_le_bytes(bytes.try_into().map_err(io::Error::other)?);
        }
        let [json, bytes] = lengths;
        let (tap, lines, notes): (u32, Vec<Line>, Vec<Note>) = serde_json::from_slice(&next(json)?)?;
        let bytes = next(bytes)?;
        if part.read == part.written {
            self.files.pop_front();
        }
        if let Some(packets) = self.packets.get_mut(&tap) {
            *packets -= lines.len() as u64;
        }
        let stored = |(number, id, time, interface, len, start, end): Line| Stored {
            number,
            id,
            time: Timestamp(time),
            interface,
            len,
            start,
            end,
        };
        let frames = lines.into_iter().map(stored).collect();
        Ok((tap, Batch { bytes, frames, notes, ..Batch::default() }))
    }

    /// Gives up what it holds; how many packets that were, by tap.
    pub(super) fn abandon(&mut self) -> BTreeMap<u32, u64> {
        self.files.clear();
        std::mem::take(&mut self.packets)
    }
}
