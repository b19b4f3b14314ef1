//! Segments, called frames from version 5 on: a header with a checksum, a payload of envelopes, a checksum of that.

use crate::dissect::Cursor;

/// The longest payload.
const MAX_PAYLOAD: u64 = (1 << 17) - 1;
/// Bytes of the checksum behind the payload.
pub(super) const TRAILER: usize = 4;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The length of the header, and of the payload.
    pub(super) header: usize,
    pub(super) payload: usize,
    /// The payload's length once it is decompressed; 0 if it is not compressed.
    pub(super) uncompressed: usize,
    /// The payload holds whole envelopes; else it is a part of a large one.
    pub(super) self_contained: bool,
}

impl Segment {
    /// The longest header.
    pub(super) const MAX_HEADER: usize = 8;

    /// The header that `bytes` start with, of connections with or without compression.
    pub(super) fn parse(bytes: &[u8], compressed: bool) -> Option<Self> {
        let length = if compressed { 5 } else { 3 };
        let mut cursor = Cursor::new(bytes);
        let header = little_endian(cursor.take(length).ok()?);
        if u64::from(cursor.u24_le().ok()?) != u64::from(crc24(header, length)) {
            return None;
        }
        let contained = if compressed { 34 } else { 17 };
        let uncompressed = if compressed { header >> 17 & MAX_PAYLOAD } else { 0 };
        Some(Self {
            header: length + 3,
            payload: (header & MAX_PAYLOAD) as usize,
            uncompressed: uncompressed as usize,
            self_contained: header >> contained & 1 != 0,
        })
    }

    /// The whole segment's length.
    pub(super) fn total(&self) -> usize {
        self.header + self.payload + TRAILER
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The checksum of a header of so many bytes.
fn crc24(header: u64, length: usize) -> u32 {
    const START: u32 = 0x87_5060;
    const POLYNOMIAL: u32 = 0x197_4f0b;
    let mut crc = START;
    for at in 0..length {
        crc ^= ((header >> (8 * at)) as u32 & 0xff) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x100_0000 != 0 {
                crc ^= POLYNOMIAL;
            }
        }
    }
    crc
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]
mod tests {
    use super::*;

    fn header(value: u64, length: usize) -> Vec<u8> {
        let mut bytes = value.to_le_bytes()[..length].to_vec();
        bytes.extend_from_slice(&crc24(value, length).to_le_bytes()[..3]);
        bytes
    }

    #[test]
    fn both_headers_are_read() {
        let plain = Segment::parse(&header(9 | 1 << 17, 3), false).unwrap();
        assert_eq!(plain, Segment { header: 6, payload: 9, uncompressed: 0, self_contained: true });
        let packed = Segment::parse(&header(0x64 | 0x12c << 17, 5), true).unwrap();
        assert_eq!(packed, Segment { header: 8, payload: 100, uncompressed: 300, self_contained: false });
        assert_eq!(packed.total(), 112);
    }

    #[test]
    fn a_wrong_checksum_is_no_segment() {
        let mut bytes = header(9 | 1 << 17, 3);
        bytes[5] ^= 1;
        assert_eq!(Segment::parse(&bytes, false), None);
        assert_eq!(Segment::parse(&bytes[..5], false), None);
    }
}
