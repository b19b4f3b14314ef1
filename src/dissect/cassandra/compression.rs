//! LZ4 and Snappy, read from the front as far as a row needs it: the bytes at hand may be a part, and so may the result.

use crate::dissect::{Cursor, Short, snappy};

/// How the bodies of a connection are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Lz4,
    Snappy,
}

impl Algorithm {
    /// The one that `STARTUP` names.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"lz4") {
            Some(Self::Lz4)
        } else if name.eq_ignore_ascii_case(b"snappy") {
            Some(Self::Snappy)
        } else {
            None
        }
    }

    /// The one that a body shows, where `STARTUP` was not seen: with LZ4, it starts with its length in four bytes, of which the
    /// first is 0; with Snappy, that would be an empty body.
    pub(super) fn guess(body: &[u8]) -> Self {
        if body.first() == Some(&0) { Self::Lz4 } else { Self::Snappy }
    }

    /// The first `limit` bytes of a body, as far as they can be read; None if it is not compressed so.
    pub(super) fn decompress(self, body: &[u8], limit: usize) -> Option<Vec<u8>> {
        let mut cursor = Cursor::new(body);
        match self {
            Self::Lz4 => {
                let length = cursor.u32().ok()? as usize;
                lz4(cursor.rest(), limit.min(length))
            }
            Self::Snappy => {
                let length = varint(&mut cursor).ok()? as usize;
                let out = snappy::unpack(body, limit.min(length));
                (!out.is_empty()).then_some(out)
            }
        }
    }
}

/// A block of LZ4.
pub(super) fn lz4(block: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(block);
    let mut out = Vec::new();
    while out.len() < limit {
        let Ok(token) = cursor.u8() else { break };
        let Ok(literals) = lz4_length(&mut cursor, token >> 4) else { break };
        append(&mut out, &mut cursor, literals, limit);
        // The last sequence has no match.
        let Ok(distance) = cursor.u16_le() else { break };
        let Ok(length) = lz4_length(&mut cursor, token & 0x0f) else { break };
        repeat(&mut out, distance.into(), length.saturating_add(4), limit)?;
    }
    Some(out)
}

fn lz4_length(cursor: &mut Cursor<'_>, nibble: u8) -> Result<usize, Short> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let byte = cursor.u8()?;
            length = length.saturating_add(byte.into());
            if byte != 255 {
                break;
            }
        }
    }
    Ok(length)
}

fn varint(cursor: &mut Cursor<'_>) -> Result<u64, Short> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = cursor.u8()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Short)
}

/// Literals, as many as are there and wanted.
fn append(out: &mut Vec<u8>, cursor: &mut Cursor<'_>, length: usize, limit: usize) {
    let literals = cursor.take(length.min(cursor.remaining())).unwrap_or_default();
    let room = limit.saturating_sub(out.len());
    out.extend_from_slice(literals.get(..room).unwrap_or(literals));
}

/// Bytes that were there before, which may reach into what is being written; None if the distance goes too far back.
fn repeat(out: &mut Vec<u8>, distance: usize, length: usize, limit: usize) -> Option<()> {
    let start = out.len().checked_sub(distance).filter(|_| distance > 0)?;
    let mut left = length.min(limit.saturating_sub(out.len()));
    while left > 0 {
        // What is there repeats itself with that distance, so ever more of it can be taken.
        let part = left.min(out.len() - start);
        out.extend_from_within(start..start + part);
        left -= part;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lz4_reads_literals_and_matches() {
        // "abc", then 9 bytes from 3 back, then "d".
        let block = [0x35, b'a', b'b', b'c', 3, 0, 0x10, b'd'];
        assert_eq!(lz4(&block, 100).as_deref(), Some(&b"abcabcabcabcd"[..]));
        assert_eq!(lz4(&block, 5).as_deref(), Some(&b"abcab"[..]));
        for cut in 0..block.len() {
            assert!(lz4(block.get(..cut).unwrap_or_default(), 100).is_some_and(|out| out.len() <= 13));
        }
        assert_eq!(lz4(&[0x10, b'a', 2, 0], 100), None);
        assert_eq!(lz4(&[0x10, b'a', 0, 0], 100), None);
        // A match of many megabytes is no more than what is wanted.
        let mut bomb = vec![0x1f, b'a', 1, 0];
        bomb.resize(100_000, 255);
        bomb.push(0);
        assert_eq!(lz4(&bomb, 1000).map(|out| out.len()), Some(1000));
    }

    #[test]
    fn snappy_reads_literals_and_copies() {
        // 13 bytes: literal "abc", copy of 9 from 3 back, literal "d".
        let body = [13, 2 << 2, b'a', b'b', b'c', 5 << 2 | 1, 3, 0, b'd'];
        assert_eq!(Algorithm::Snappy.decompress(&body, 100).as_deref(), Some(&b"abcabcabcabcd"[..]));
        let long = [13, 2 << 2, b'a', b'b', b'c', 8 << 2 | 2, 3, 0, 0, b'd'];
        assert_eq!(Algorithm::Snappy.decompress(&long, 100).as_deref(), Some(&b"abcabcabcabcd"[..]));
        assert_eq!(Algorithm::Snappy.decompress(&[13, 5 << 2 | 1, 3], 100), None);
        assert_eq!(Algorithm::guess(&body), Algorithm::Snappy);
    }
}
