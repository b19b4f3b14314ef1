//! How records are compressed, undone up to a limit.

use std::borrow::Cow;
use std::io::Read;

use crate::dissect::Cursor;
use crate::dissect::lz::snappy;

/// The largest window of zstd data.
const MAX_ZSTD_WINDOW: u64 = 8 << 20;
/// What snappy data in blocks starts with, as Java's library writes it.
const SNAPPY_BLOCKS: &[u8] = b"\x82SNAPPY\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// By its number in the attributes.
    pub fn of(number: i16) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd].get(usize::try_from(number).ok()?).copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Decompresses up to `limit` bytes; of data whose end is missing, what is there. `None` if not one byte comes out.
pub(super) fn unpack(codec: Codec, bytes: &[u8], limit: usize) -> Option<Cow<'_, [u8]>> {
    let unpacked = match codec {
        Codec::None => return Some(Cow::Borrowed(bytes)),
        Codec::Gzip => read(flate2::read::MultiGzDecoder::new(bytes), limit),
        Codec::Snappy => snappy(bytes, limit),
        Codec::Lz4 => read(lz4_flex::frame::FrameDecoder::new(bytes), limit),
        Codec::Zstd => {
            read(ruzstd::decoding::StreamingDecoder::new_with_max_window_size(bytes, MAX_ZSTD_WINDOW).ok()?, limit)
        }
    };
    (!unpacked.is_empty()).then_some(Cow::Owned(unpacked))
}

/// Reads to the end, the limit or the first fault.
fn read(from: impl Read, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What came before a fault is good.
    let _ = from.take(limit as u64).read_to_end(&mut bytes);
    bytes
}

/// One block, or many with their lengths before them.
fn snappy(bytes: &[u8], limit: usize) -> Vec<u8> {
    let Some(blocks) = bytes.strip_prefix(SNAPPY_BLOCKS) else { return snappy::unpack(bytes, limit) };
    let mut cursor = Cursor::new(blocks);
    let mut unpacked = Vec::new();
    // The version, and the oldest that can read it.
    if cursor.skip(8).is_err() {
        return unpacked;
    }
    while let Ok(len) = cursor.u32()
        && let Ok(block) = cursor.take(cursor.remaining().min(len as usize))
        && !block.is_empty()
        && unpacked.len() < limit
    {
        unpacked.append(&mut snappy::unpack(block, limit - unpacked.len()));
    }
    unpacked
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::io::Write;

    use super::*;

    fn text() -> Vec<u8> {
        (0..500u32).flat_map(|number| number.to_string().into_bytes()).collect()
    }

    #[test]
    fn snappy_with_and_without_blocks() {
        let packed = b"\x03\x08abc";
        assert_eq!(unpack(Codec::Snappy, packed, 100).unwrap(), &b"abc"[..]);
        let mut blocks = [SNAPPY_BLOCKS, b"\0\0\0\x01\0\0\0\x01\0\0\0\x05", packed, b"\0\0\0\x05", packed].concat();
        assert_eq!(unpack(Codec::Snappy, &blocks, 100).unwrap(), &b"abcabc"[..]);
        assert_eq!(unpack(Codec::Snappy, &blocks, 4).unwrap(), &b"abca"[..]);
        blocks.pop();
        assert_eq!(unpack(Codec::Snappy, &blocks, 100).unwrap(), &b"abcab"[..]);
    }

    #[test]
    fn lz4_and_gzip_stop_at_the_limit() {
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&text()).unwrap();
        let lz4 = lz4.finish().unwrap();
        assert_eq!(unpack(Codec::Lz4, &lz4, 1 << 20).unwrap(), text());
        assert_eq!(unpack(Codec::Lz4, &lz4, 10).unwrap().len(), 10);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text()).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(unpack(Codec::Gzip, &gzip, 10).unwrap().len(), 10);
        assert_eq!(unpack(Codec::Gzip, b"no gzip", 10), None);
    }
}
