//! `OP_COMPRESSED`: what is in it, up to a limit.

use super::wire::{MAX_MESSAGE, Opcode};
use crate::dissect::http::content;
use crate::dissect::{Cursor, Malformed};

/// The most bytes of a compressed message that are looked at; of what is longer, the start has to do.
pub(super) const MAX_COMPRESSED: usize = 2 << 20;
/// The most bytes that come out.
const MAX_UNPACKED: usize = 16 << 20;

/// How a message is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compressor {
    Noop,
    Snappy,
    Zlib,
    Zstd,
}

impl Compressor {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Snappy => "snappy",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// The head of a compressed message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressed {
    pub opcode: Opcode,
    /// Length of what is in it, without a header.
    pub size: usize,
    pub compressor: Compressor,
}

impl Compressed {
    /// Length of this head, behind the message's header.
    pub(super) const HEAD: usize = 9;

    pub(super) fn parse(body: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let opcode = Opcode::of(body.u32_le()?).filter(|opcode| *opcode != Opcode::Compressed);
        let opcode = opcode.ok_or(Malformed("a compressed message of unknown kind"))?;
        let size = body.u32_le()? as usize;
        if size > MAX_MESSAGE {
            return Err(Malformed("a length that no message has"));
        }
        let compressor = match body.u8()? {
            0 => Compressor::Noop,
            1 => Compressor::Snappy,
            2 => Compressor::Zlib,
            3 => Compressor::Zstd,
            _ => return Err(Malformed("an unknown compressor")),
        };
        Ok(Self { opcode, size, compressor })
    }

    /// What is in it, or its start.
    pub(super) fn unpack(&self, bytes: &[u8]) -> Vec<u8> {
        let limit = self.size.min(MAX_UNPACKED);
        // HTTP's names for the same formats.
        let coding = match self.compressor {
            Compressor::Noop => return bytes.get(..limit).unwrap_or(bytes).to_vec(),
            Compressor::Snappy => return snappy(bytes, limit),
            Compressor::Zlib => b"deflate",
            Compressor::Zstd => &b"zstd"[..],
        };
        content::decode(coding, bytes, limit).map(|decoded| decoded.bytes).unwrap_or_default()
    }
}

/// Undoes snappy's block format as far as the bytes go.
fn snappy(bytes: &[u8], limit: usize) -> Vec<u8> {
    let mut cursor = Cursor::new(bytes);
    let mut out = Vec::new();
    // The length that the peer says, which is not needed.
    while cursor.u8().is_ok_and(|byte| byte & 0x80 != 0) {}
    while out.len() < limit && snappy_element(&mut cursor, &mut out).is_some() {}
    out.truncate(limit);
    out
}

/// A literal, or a copy of what came out before.
fn snappy_element(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Option<()> {
    let tag = cursor.u8().ok()?;
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
    let high = usize::from(tag >> 2);
    let (len, offset) = match tag & 3 {
        0 => {
            let len = match high.checked_sub(59) {
                None | Some(0) => high,
                Some(more) => number(cursor.take(more).ok()?),
            };
            let len = len.checked_add(1)?.min(cursor.remaining());
            out.extend_from_slice(cursor.take(len).ok()?);
            return Some(());
        }
        1 => ((high & 7) + 4, (high >> 3) << 8 | usize::from(cursor.u8().ok()?)),
        2 => (high + 1, number(cursor.take(2).ok()?)),
        _ => (high + 1, number(cursor.take(4).ok()?)),
    };
    let start = out.len().checked_sub(offset).filter(|_| offset > 0)?;
    // A copy may reach into itself, which repeats it.
    let mut left = len;
    while left > 0 {
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
    fn snappy_copies_and_literals() {
        // "abcd", a copy of 8 from 4 back, one of 5 from 2 back, one of 3 from 1 back, and a literal with its length after.
        let packed = b"\x17\x0cabcd\x11\x04\x12\x02\0\x0b\x01\0\0\0\xf0\x02xyz";
        assert_eq!(snappy(packed, 100), b"abcdabcdabcdcdcdccccxyz");
        assert_eq!(snappy(packed, 6), b"abcdab");
        assert_eq!(snappy(packed.get(..9).unwrap_or_default(), 100), b"abcdabcdabcd");
        // A copy from before the start; nothing at all.
        assert_eq!(snappy(b"\x05\x11\x04", 100), b"");
        assert_eq!(snappy(b"", 100), b"");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = [&b"\x80\x80\x80\x10\0a"[..], &b"\xfe\x01\0".repeat(10_000)].concat();
        assert_eq!(snappy(&bomb, 1000).len(), 1000);
    }
}
