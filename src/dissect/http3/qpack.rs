//! Field compression (RFC 9204): one sender's dynamic table, and the field sections that refer to it.

use std::collections::VecDeque;

use super::table::STATIC;
use crate::dissect::http2::hpack::{List, integer, string};
use crate::dissect::{Cursor, Malformed, Short};

/// The largest dynamic table that is kept.
const MAX_TABLE: usize = 256 << 10;
/// What an entry counts beyond its bytes (RFC 9204 section 3.2.1).
const ENTRY_OVERHEAD: usize = 32;
/// The longest instruction that is waited for.
const MAX_INSTRUCTION: usize = 64 << 10;

/// What became of a field section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Its fields are in the list.
    Decoded,
    /// It refers to entries that have not come yet.
    Blocked,
}

/// The decoder of one direction.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Oldest first.
    table: VecDeque<[Box<[u8]>; 2]>,
    size: usize,
    capacity: usize,
    /// The most that the receiver allows for the capacity; 0 if it was not heard.
    pub max_capacity: u64,
    /// How many entries there have ever been.
    inserted: u64,
    /// Instructions are missing: what refers to the table is not known.
    broken: bool,
}

impl Decoder {
    /// Instructions have been missed.
    pub fn forget(&mut self) {
        self.broken = true;
        self.table.clear();
        self.size = 0;
    }

    /// Takes whole instructions of the encoder's stream. Returns how many bytes they took.
    ///
    /// # Errors
    /// If they are none.
    pub fn instructions(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let mut done = 0;
        while let Some(first) = cursor.peek() {
            match self.instruction(first, &mut cursor) {
                Ok(()) => done = cursor.position(),
                // Cut off, or wrong; which of them it is shows when there is more than any has.
                Err(error) if bytes.len() - done > MAX_INSTRUCTION => return Err(error),
                Err(Malformed(why)) if why == Malformed::from(Short).0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn instruction(&mut self, first: u8, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        let mut value = Vec::new();
        match first {
            0x80.. => {
                let index = integer(cursor, 6)?;
                string(cursor, 7, &mut value)?;
                let name = if first & 0x40 > 0 {
                    STATIC.get(at(index)).map(|(name, _)| name.as_bytes().to_vec())
                } else {
                    self.inserted.checked_sub(index + 1).and_then(|index| Some(self.entry(index)?.0.to_vec()))
                };
                self.insert(name, value)
            }
            0x40.. => {
                let mut name = Vec::new();
                string(cursor, 5, &mut name)?;
                string(cursor, 7, &mut value)?;
                self.insert(Some(name), value)
            }
            0x20.. => {
                self.capacity = at(integer(cursor, 5)?).min(MAX_TABLE);
                self.evict(0);
                Ok(())
            }
            _ => {
                let index = integer(cursor, 5)?;
                let entry = self.inserted.checked_sub(index + 1).and_then(|index| self.entry(index));
                let (name, value) = entry.map(|(name, value)| (name.to_vec(), value.to_vec())).unzip();
                self.insert(name, value.unwrap_or_default())
            }
        }
    }

    fn insert(&mut self, name: Option<Vec<u8>>, value: Vec<u8>) -> Result<(), Malformed> {
        if self.broken {
            return Ok(());
        }
        let name = name.ok_or(Malformed("a header field of no table"))?;
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        if size > self.capacity {
            return Err(Malformed("a header field larger than its table"));
        }
        self.evict(size);
        self.size += size;
        self.inserted += 1;
        self.table.push_back([name.into(), value.into()]);
        Ok(())
    }

    fn evict(&mut self, size: usize) {
        while self.size + size > self.capacity
            && let Some([name, value]) = self.table.pop_front()
        {
            self.size -= name.len() + value.len() + ENTRY_OVERHEAD;
        }
    }

    /// The entry of that absolute index.
    fn entry(&self, index: u64) -> Option<(&[u8], &[u8])> {
        let oldest = self.inserted - self.table.len() as u64;
        let [name, value] = self.table.get(at(index.checked_sub(oldest)?))?;
        Some((name, value))
    }

    /// Decodes a field section and adds its fields to `list`, unless it is blocked.
    ///
    /// # Errors
    /// If it is none.
    pub fn section(&self, bytes: &[u8], list: &mut List) -> Result<Section, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let required = self.required(integer(&mut cursor, 8)?)?;
        if required > self.inserted && !self.broken {
            return Ok(Section::Blocked);
        }
        let negative = cursor.peek().ok_or(Short)? & 0x80 > 0;
        let delta = integer(&mut cursor, 7)?;
        let base = if negative { required.checked_sub(delta + 1) } else { required.checked_add(delta) };
        let base = base.ok_or(Malformed("a header section with no base"))?;
        let (mut name, mut value) = (Vec::new(), Vec::new());
        while let Some(first) = cursor.peek() {
            name.clear();
            value.clear();
            match first {
                0x80.. => {
                    let index = integer(&mut cursor, 6)?;
                    self.indexed(first & 0x40 > 0, base.checked_sub(index + 1), index, list)?;
                }
                0x40.. => {
                    let index = integer(&mut cursor, 4)?;
                    string(&mut cursor, 7, &mut value)?;
                    let known = if first & 0x10 > 0 {
                        STATIC.get(at(index)).map(|(name, _)| name.as_bytes())
                    } else {
                        base.checked_sub(index + 1).and_then(|index| self.entry(index)).map(|(name, _)| name)
                    };
                    list.push(known, Some(&value));
                }
                0x20.. => {
                    string(&mut cursor, 3, &mut name)?;
                    string(&mut cursor, 7, &mut value)?;
                    list.push(Some(&name), Some(&value));
                }
                0x10.. => {
                    let index = integer(&mut cursor, 4)?;
                    self.indexed(false, base.checked_add(index), 0, list)?;
                }
                _ => {
                    let index = integer(&mut cursor, 3)?;
                    string(&mut cursor, 7, &mut value)?;
                    let known = base.checked_add(index).and_then(|index| self.entry(index)).map(|(name, _)| name);
                    list.push(known, Some(&value));
                }
            }
        }
        Ok(Section::Decoded)
    }

    fn indexed(&self, is_static: bool, absolute: Option<u64>, index: u64, list: &mut List) -> Result<(), Malformed> {
        if is_static {
            let (name, value) = STATIC.get(at(index)).ok_or(Malformed("a header field of no table"))?;
            list.push(Some(name.as_bytes()), Some(value.as_bytes()));
            return Ok(());
        }
        match absolute.and_then(|index| self.entry(index)) {
            Some((name, value)) => list.push(Some(name), Some(value)),
            None => list.push(None, None),
        }
        Ok(())
    }

    /// How many entries have to be there, from the encoded number (RFC 9204 section 4.5.1.1).
    fn required(&self, encoded: u64) -> Result<u64, Malformed> {
        if encoded == 0 {
            return Ok(0);
        }
        // If the receiver's limit was not heard, the sender is taken to use all of it.
        let limit = if self.max_capacity > 0 { self.max_capacity } else { self.capacity as u64 };
        let entries = limit / ENTRY_OVERHEAD as u64;
        let range = 2 * entries;
        if self.broken || encoded > range {
            return if self.broken { Ok(0) } else { Err(Malformed("a header section that requires too much")) };
        }
        let most = self.inserted + entries;
        let candidate = most / range * range + encoded - 1;
        let required = if candidate > most { candidate.checked_sub(range) } else { Some(candidate) };
        required.filter(|required| *required > 0).ok_or(Malformed("a header section that requires nothing"))
    }
}

fn at(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(decoder: &Decoder, section: &[u8]) -> Result<Vec<String>, Malformed> {
        let mut list = List::default();
        if decoder.section(section, &mut list)? == Section::Blocked {
            return Ok(vec!["blocked".into()]);
        }
        let text = |text: Option<&[u8]>| text.map_or("?".into(), |text| String::from_utf8_lossy(text).into_owned());
        Ok(list.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect())
    }

    #[test]
    fn the_examples_of_the_specification() {
        // RFC 9204 appendix B.
        let mut decoder = Decoder { max_capacity: 220, ..Decoder::default() };
        assert_eq!(fields(&decoder, b"\0\0\x51\x0b/index.html"), Ok(vec![":path=/index.html".into()]));
        let section = b"\x03\x81\x10\x11";
        assert_eq!(fields(&decoder, section), Ok(vec!["blocked".into()]));
        let instructions = b"\x3f\xbd\x01\xc0\x0fwww.example.com\xc1\x0c/sample/path";
        for cut in 0..3 {
            assert!(decoder.instructions(instructions.get(..cut).unwrap_or_default()).is_ok());
            decoder = Decoder { max_capacity: 220, ..Decoder::default() };
        }
        assert_eq!(decoder.instructions(instructions), Ok(instructions.len()));
        assert_eq!(
            fields(&decoder, section),
            Ok(vec![":authority=www.example.com".into(), ":path=/sample/path".into()])
        );
        let instruction = b"\x4acustom-key\x0ccustom-value";
        assert_eq!(decoder.instructions(instruction), Ok(instruction.len()));
        assert_eq!(decoder.instructions(b"\x02"), Ok(1));
        assert_eq!(decoder.size, 217);
        assert_eq!(
            fields(&decoder, b"\x05\0\x80\xc1\x81"),
            Ok(vec![":authority=www.example.com".into(), ":path=/".into(), "custom-key=custom-value".into()])
        );
        assert_eq!(decoder.instructions(b"\x81\x0dcustom-value2"), Ok(15));
        assert_eq!(decoder.size, 215);
        decoder.forget();
        assert_eq!(fields(&decoder, b"\x05\0\x80\xc1"), Ok(vec!["?=?".into(), ":path=/".into()]));
    }
}
