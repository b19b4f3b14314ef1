//! Content codings (RFC 9110 section 8.4.1) undone, never beyond a limit.

use std::io::Read;

/// The most codings that are undone, one after the other.
const MAX_CODINGS: usize = 3;
/// The largest window of a zstd body, as RFC 9659 allows.
const MAX_ZSTD_WINDOW: u64 = 8 << 20;

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The content, at most as long as was asked for.
    pub bytes: Vec<u8>,
    /// There is more of it: the limit was reached, or the coded bytes end too early.
    pub more: bool,
}

/// Undoes `codings`, the value of a content-encoding field, up to `limit` bytes; `None` if one is not known or the bytes
/// are not so coded.
#[must_use]
pub fn decode(codings: &[u8], bytes: &[u8], limit: usize) -> Option<Decoded> {
    let mut decoded: Option<Decoded> = None;
    let names = codings.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
    let names: Vec<_> = names.filter(|name| !name.eq_ignore_ascii_case(b"identity")).take(MAX_CODINGS + 1).collect();
    if names.len() > MAX_CODINGS {
        return None;
    }
    for name in names.into_iter().rev() {
        let input = decoded.as_ref().map_or(bytes, |decoded| &decoded.bytes);
        decoded = Some(undo(name, input, limit)?);
    }
    decoded
}

fn undo(name: &[u8], bytes: &[u8], limit: usize) -> Option<Decoded> {
    let mut lower = [0; 8];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    match &*lower {
        b"gzip" | b"x-gzip" => read(flate2::read::MultiGzDecoder::new(bytes), limit),
        // Some senders leave the zlib wrapper away that the name stands for.
        b"deflate" if is_zlib(bytes) => read(flate2::read::ZlibDecoder::new(bytes), limit),
        b"deflate" => read(flate2::read::DeflateDecoder::new(bytes), limit),
        b"br" => read(brotli_decompressor::Decompressor::new(bytes, 4096), limit),
        b"zstd" => {
            read(ruzstd::decoding::StreamingDecoder::new_with_max_window_size(bytes, MAX_ZSTD_WINDOW).ok()?, limit)
        }
        _ => None,
    }
}

/// Compression method 8 and a header that is a multiple of 31 (RFC 1950 section 2.2).
fn is_zlib(bytes: &[u8]) -> bool {
    bytes
        .first_chunk()
        .is_some_and(|head: &[u8; 2]| head[0] & 0x0f == 8 && u16::from_be_bytes(*head).is_multiple_of(31))
}

/// Reads to the end, the limit or the first fault; `None` if not one byte came.
fn read(mut from: impl Read, limit: usize) -> Option<Decoded> {
    let mut bytes = Vec::new();
    let failed = from.by_ref().take(limit as u64).read_to_end(&mut bytes).is_err();
    if failed && bytes.is_empty() {
        return None;
    }
    let more = failed || bytes.len() >= limit && matches!(from.read(&mut [0]), Ok(1) | Err(_));
    Some(Decoded { bytes, more })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn undoes_codings_in_reverse() {
        let whole = Decoded { bytes: b"hello".to_vec(), more: false };
        assert_eq!(decode(b"GZip", &gzip(b"hello"), 100), Some(whole));
        let twice = decode(b"gzip, x-gzip", &gzip(&gzip(b"hello")), 100);
        assert_eq!(twice.unwrap().bytes, b"hello");
        assert_eq!(decode(b"identity", b"hello", 100), None);
        assert_eq!(decode(b"gzip,gzip,gzip,gzip", b"", 100), None);
    }

    #[test]
    fn deflate_with_and_without_its_wrapper() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(b"hello").unwrap();
        assert_eq!(decode(b"deflate", &zlib.finish().unwrap(), 100).unwrap().bytes, b"hello");
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        raw.write_all(b"hello").unwrap();
        assert_eq!(decode(b"deflate", &raw.finish().unwrap(), 100).unwrap().bytes, b"hello");
    }

    #[test]
    fn brotli_and_zstd() {
        // An uncompressed meta-block and an uncompressed block, as their specifications lay them out.
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(decode(b"br", &brotli, 100).unwrap().bytes, b"hello");
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x05, 0x29, 0x00, 0x00, b'h', b'e', b'l', b'l', b'o'];
        assert_eq!(decode(b"zstd", &zstd, 100).unwrap().bytes, b"hello");
        // A window of 1 GiB is refused before anything is set aside for it.
        assert_eq!(decode(b"zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0, 0], 100), None);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![0; 10 << 20]);
        let decoded = decode(b"gzip", &bomb, 1000).unwrap();
        assert_eq!((decoded.bytes.len(), decoded.more), (1000, true));
    }

    #[test]
    fn a_cut_body_gives_what_is_there() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let coded = gzip(&text);
        let decoded = decode(b"gzip", &coded[..coded.len() / 2], 1 << 20).unwrap();
        assert!(decoded.more && text.starts_with(&decoded.bytes));
        assert_eq!(decode(b"gzip", b"not gzip at all", 100), None);
    }
}
