//! LZ4 and Snappy, read from the front as far as a row needs it: the bytes at hand may be a part, and so may the result.

use crate::dissect::Cursor;
use crate::dissect::lz::{lz4, snappy};

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
                lz4::unpack(cursor.rest(), limit.min(length))
            }
            Self::Snappy => {
                let length = cursor.varint().ok()? as usize;
                let out = snappy::unpack(body, limit.min(length));
                (!out.is_empty()).then_some(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
