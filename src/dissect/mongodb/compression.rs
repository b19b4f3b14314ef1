//! `OP_COMPRESSED`: what is in it, up to a limit.

use super::wire::{MAX_MESSAGE, Opcode};
use crate::dissect::http::content;
use crate::dissect::lz::snappy;
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
            Compressor::Snappy => return snappy::unpack(bytes, limit),
            Compressor::Zlib => b"deflate",
            Compressor::Zstd => &b"zstd"[..],
        };
        content::decode(coding, bytes, limit).map(|decoded| decoded.bytes).unwrap_or_default()
    }
}
