//! How records are compressed, undone up to a limit.

use std::borrow::Cow;
use std::io::Read;

use crate::dissect::Cursor;

/// The largest window of zstd data.
const MAX_ZSTD_WINDOW: u64 = 8 << 20;
/// What snappy data in blocks starts with, as Java's library writes it.
const SNAPPY_BLOCKS: &[u8] = b"\x82SNAPPY\0";
/// How much longer than its data a snappy block can get: a copy of 64 bytes takes 2.
const MAX_SNAPPY_RATIO: usize = 32;

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
    let Some(blocks) = bytes.strip_prefix(SNAPPY_BLOCKS) else { return snappy_block(bytes, limit).unwrap_or_default() };
    let mut cursor = Cursor::new(blocks);
    let mut unpacked = Vec::new();
    // The version, and the oldest that can read it.
    if cursor.skip(8).is_err() {
        return unpacked;
    }
    while let Ok(len) = cursor.u32()
        && let Ok(block) = cursor.take(len as usize)
        && let Some(mut block) = snappy_block(block, limit - unpacked.len())
    {
        unpacked.append(&mut block);
    }
    unpacked
}

fn snappy_block(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let len = snap::raw::decompress_len(bytes).ok()?;
    if len > limit || len > bytes.len().saturating_mul(MAX_SNAPPY_RATIO) {
        return None;
    }
    snap::raw::Decoder::new().decompress_vec(bytes).ok()
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
        let packed = snap::raw::Encoder::new().compress_vec(&text()).unwrap();
        assert_eq!(unpack(Codec::Snappy, &packed, 1 << 20).unwrap(), text());
        assert_eq!(unpack(Codec::Snappy, &packed, 100), None);
        let mut blocks = [SNAPPY_BLOCKS, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for _ in 0..2 {
            blocks.extend((packed.len() as u32).to_be_bytes());
            blocks.extend(&packed);
        }
        assert_eq!(unpack(Codec::Snappy, &blocks, 1 << 20).unwrap(), [text(), text()].concat());
        blocks.pop();
        assert_eq!(unpack(Codec::Snappy, &blocks, 1 << 20).unwrap(), text());
        // A block that says that it is 64 MiB.
        assert_eq!(unpack(Codec::Snappy, &[0x80, 0x80, 0x80, 0x20, 0], 1 << 30), None);
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
