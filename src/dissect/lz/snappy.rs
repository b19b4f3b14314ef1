//! Snappy's block format (format_description.txt of google/snappy), undone up to a limit.

use super::repeat;
use crate::dissect::Cursor;

/// Up to `limit` bytes of what the block holds, as far as the bytes go.
pub(in crate::dissect) fn unpack(bytes: &[u8], limit: usize) -> Vec<u8> {
    let mut cursor = Cursor::new(bytes);
    let mut out = Vec::new();
    // The length that the peer says, which is not needed.
    while cursor.u8().is_ok_and(|byte| byte & 0x80 != 0) {}
    while out.len() < limit && element(&mut cursor, &mut out).is_some() {}
    out.truncate(limit);
    out
}

/// A literal, or a copy of what came out before.
fn element(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Option<()> {
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
    repeat(out, offset, len, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_literals() {
        // "abcd", a copy of 8 from 4 back, one of 5 from 2 back, one of 3 from 1 back, and a literal with its length after.
        let packed = b"\x17\x0cabcd\x11\x04\x12\x02\0\x0b\x01\0\0\0\xf0\x02xyz";
        assert_eq!(unpack(packed, 100), b"abcdabcdabcdcdcdccccxyz");
        assert_eq!(unpack(packed, 6), b"abcdab");
        assert_eq!(unpack(packed.get(..9).unwrap_or_default(), 100), b"abcdabcdabcd");
        // A copy from before the start; nothing at all.
        assert_eq!(unpack(b"\x05\x11\x04", 100), b"");
        assert_eq!(unpack(b"", 100), b"");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = [&b"\x80\x80\x80\x10\0a"[..], &b"\xfe\x01\0".repeat(10_000)].concat();
        assert_eq!(unpack(&bomb, 1000).len(), 1000);
    }
}
