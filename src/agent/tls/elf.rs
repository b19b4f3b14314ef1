//! Where functions are in a program or library: what of ELF that takes, read in small pieces, since a program may be larger than
//! the agent's memory.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// The most sections and segments that are looked at.
const MOST_PARTS: usize = 4096;

/// The most bytes of symbols and of their names that are looked at: the largest programs have less, and a file may claim any size.
pub(super) const MOST_SYMBOLS: u64 = 512 << 20;

/// Types of sections.
const SYMBOLS: u32 = 2;
const DYNAMIC_SYMBOLS: u32 = 11;
/// A section without bytes in the file.
const NO_BITS: u32 = 8;

/// Size of a symbol.
const SYMBOL: usize = 24;

/// A 64-bit little-endian ELF file.
pub(super) struct Elf {
    file: File,
    /// Where its first instruction is, as an address.
    entry: u64,
    sections: Vec<Section>,
    /// Address, place in the file and size of each part that is loaded.
    segments: Vec<[u64; 3]>,
}

/// A section.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: String,
    kind: u32,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Of symbols: the section of their names.
    link: usize,
}

/// A part of a file, of which one piece at a time is in memory.
pub(super) struct Window<'a> {
    file: &'a File,
    start: u64,
    size: u64,
    piece: Vec<u8>,
    /// Where the piece is in the part.
    at: u64,
}

impl Elf {
    /// Reads the headers; none if it is something else.
    pub(super) fn read(file: File) -> io::Result<Option<Self>> {
        let mut header = [0; 64];
        if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"\x7fELF\x02\x01") {
            return Ok(None);
        }
        let size = file.metadata()?.len();
        let table = |offset: u64, entry: usize, count: usize| -> io::Result<Vec<u8>> {
            let count = count.min(MOST_PARTS);
            let length = (entry * count) as u64;
            if offset.checked_add(length).is_none_or(|end| end > size) {
                return Ok(Vec::new());
            }
            let mut bytes = vec![0; entry * count];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        let segments = table(long(&header, 32), 56, half(&header, 56).into())?;
        let segments = segments
            .chunks_exact(56)
            .filter(|it| word(it, 0) == 1)
            .map(|it| [long(it, 16), long(it, 8), long(it, 32)])
            .collect();
        let headers = table(long(&header, 40), 64, half(&header, 60).into())?;
        let names = headers.chunks_exact(64).nth(half(&header, 62).into());
        let mut names = Window::new(&file, names.map_or(0, |it| long(it, 24)), names.map_or(0, |it| long(it, 32)));
        let mut sections = Vec::new();
        for it in headers.chunks_exact(64) {
            sections.push(Section {
                name: names.text(u64::from(word(it, 0)))?,
                kind: word(it, 4),
                address: long(it, 16),
                offset: long(it, 24),
                size: long(it, 32),
                link: word(it, 40) as usize,
            });
        }
        drop(names);
        let entry = long(&header, 24);
        Ok(Some(Self { file, entry, sections, segments }))
    }

    /// The section of that name, if it has bytes in the file.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name && section.kind != NO_BITS)
    }

    /// A section's bytes.
    pub(super) fn window(&self, section: &Section) -> Window<'_> {
        Window::new(&self.file, section.offset, section.size)
    }

    /// So many bytes from there on in the file.
    pub(super) fn bytes(&self, offset: u64, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Where in the file its first instruction is.
    pub(super) fn entry(&self) -> Option<u64> {
        self.offset(self.entry)
    }

    /// Where in the file the byte of an address is.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|it| address >= it[0] && address - it[0] < it[2])?;
        segment[1].checked_add(address - segment[0])
    }

    /// Where in the file these functions begin, as far as it has symbols for them.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] beyond [`MOST_SYMBOLS`], and what reading says.
    pub(super) fn functions(&self, names: &[&str]) -> io::Result<Vec<Option<u64>>> {
        let mut found = vec![None; names.len()];
        let mut size = 0_u64;
        for section in &self.sections {
            if section.kind != SYMBOLS && section.kind != DYNAMIC_SYMBOLS {
                continue;
            }
            let Some(strings) = self.sections.get(section.link) else { continue };
            size = size.saturating_add(section.size).saturating_add(strings.size);
            if size > MOST_SYMBOLS {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let places = self.window(strings).places(names)?;
            if places.iter().all(HashSet::is_empty) {
                continue;
            }
            let mut symbols = self.window(section);
            let mut at = 0;
            while let Some(symbol) = symbols.get(at, SYMBOL)? {
                at += SYMBOL as u64;
                let (name, value) = (u64::from(word(symbol, 0)), long(symbol, 8));
                // A function, which is defined here.
                if symbol.get(4).is_none_or(|kind| kind & 15 != 2) || half(symbol, 6) == 0 {
                    continue;
                }
                for (found, places) in found.iter_mut().zip(&places) {
                    if found.is_none() && places.contains(&name) {
                        *found = self.offset(value);
                    }
                }
            }
        }
        Ok(found)
    }
}

impl<'a> Window<'a> {
    fn new(file: &'a File, start: u64, size: u64) -> Self {
        Self { file, start, size, piece: Vec::new(), at: 0 }
    }

    /// `length` bytes from there on, which is a piece at most; none past the end.
    pub(super) fn get(&mut self, from: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if length > PIECE || from.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let is_there = from >= self.at && from + length as u64 <= self.at + self.piece.len() as u64;
        if !is_there {
            self.piece.resize((self.size - from).min(PIECE as u64) as usize, 0);
            self.at = from;
            let Some(start) = self.start.checked_add(from) else { return Ok(None) };
            if let Err(error) = self.file.read_exact_at(&mut self.piece, start) {
                self.piece.clear();
                // The file is shorter than it says.
                return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
            }
        }
        let from = (from - self.at) as usize;
        Ok(self.piece.get(from..from + length))
    }

    /// The text there, up to a zero; empty if it has no end within 64 bytes.
    fn text(&mut self, from: u64) -> io::Result<String> {
        let length = self.size.saturating_sub(from).min(64) as usize;
        let bytes = self.get(from, length)?.unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        Ok(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned())
    }

    /// Notes which of these are among the first `most` bytes.
    pub(super) fn search(&mut self, most: u64, wanted: &[&[u8]], found: &mut [bool]) -> io::Result<()> {
        let overlap = wanted.iter().map(|it| it.len()).max().unwrap_or_default();
        let most = most.min(self.size);
        let mut at = 0;
        while at < most {
            let length = (most - at).min(PIECE as u64) as usize;
            let Some(piece) = self.get(at, length)? else { break };
            for (it, found) in wanted.iter().zip(found.iter_mut()).filter(|(_, found)| !**found) {
                let Some(first) = it.first() else { continue };
                let mut starts = piece.iter().enumerate().filter(|(_, byte)| *byte == first);
                *found = starts.any(|(start, _)| piece.get(start..).is_some_and(|rest| rest.starts_with(it)));
            }
            if length < PIECE {
                break;
            }
            at += (length - overlap) as u64;
        }
        Ok(())
    }

    /// Where each of these texts is, with a zero behind it. A text may be the end of a longer one.
    pub(super) fn places(&mut self, texts: &[&str]) -> io::Result<Vec<HashSet<u64>>> {
        /// No text is longer.
        const OVERLAP: u64 = 256;
        let mut places = vec![HashSet::new(); texts.len()];
        let texts: Vec<_> = texts.iter().map(|text| [text.as_bytes(), &[0]].concat()).collect();
        // By their last two bytes, most are told apart.
        let tail = |text: &[u8]| match text {
            [.., a, b, 0] => usize::from(u16::from_le_bytes([*a, *b])),
            _ => 0,
        };
        let mut tails = vec![false; 1 << 16];
        for text in &texts {
            tails[tail(text)] = true;
        }
        let mut at = 0;
        while at < self.size {
            let length = (self.size - at).min(PIECE as u64) as usize;
            let Some(piece) = self.get(at, length)? else { break };
            // Names end in a zero: looking from end to end is faster than from byte to byte.
            for end in piece.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(end, _)| end + 1) {
                let before = piece.get(..end).unwrap_or_default();
                if !tails[tail(before)] {
                    continue;
                }
                for (text, places) in texts.iter().zip(&mut places) {
                    if before.ends_with(text) {
                        places.insert(at + (end - text.len()) as u64);
                    }
                }
            }
            if length < PIECE {
                break;
            }
            at += length as u64 - OVERLAP;
        }
        Ok(places)
    }
}

pub(super) fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|it| it.try_into().ok()).map_or(0, u16::from_le_bytes)
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|it| it.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    #[test]
    fn finds_its_own_functions_and_none_that_are_not() {
        let elf = Elf::read(File::open("/proc/self/exe").unwrap()).unwrap().unwrap();
        let found = elf.functions(&["main", "no such function"]).unwrap();
        assert!(found[0].is_some() && found[1].is_none());
        assert!(elf.section(".text").unwrap().size > 1000);
        assert!(elf.section(".bss").is_none());
    }

    #[test]
    fn damaged_files_are_read_as_far_as_they_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut whole = std::fs::read("/proc/self/exe").unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let elf = Elf::read(File::open(&path).unwrap()).unwrap()?;
            elf.functions(&["main"]).unwrap()[0]
        };
        assert!(read(b"").is_none() && read(b"#!/bin/sh\n").is_none());
        assert!(read(&whole[..100]).is_none() && read(&whole[..whole.len() / 2]).is_none());
        whole.truncate(1 << 20);
        for at in (16..64).step_by(2) {
            let mut damaged = whole.clone();
            damaged[at..at + 2].fill(0xff);
            read(&damaged);
        }
    }
}
