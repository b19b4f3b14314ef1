//! LZ4's block format (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>), undone up to a limit.

use super::repeat;
use crate::dissect::{Cursor, Short};

/// Up to `limit` bytes of what the block holds, as far as the bytes go; `None` if it refers to what is not there.
pub(in crate::dissect) fn unpack(block: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(block);
    let mut out = Vec::new();
    while out.len() < limit {
        let Ok(token) = cursor.u8() else { break };
        let Ok(literals) = length_of(&mut cursor, token >> 4) else { break };
        append(&mut out, &mut cursor, literals, limit);
        // The last sequence has no match.
        let Ok(distance) = cursor.u16_le() else { break };
        let Ok(length) = length_of(&mut cursor, token & 0x0f) else { break };
        repeat(&mut out, distance.into(), length.saturating_add(4), limit)?;
    }
    Some(out)
}

fn length_of(cursor: &mut Cursor<'_>, nibble: u8) -> Result<usize, Short> {
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

/// Literals, as many as are there and wanted.
fn append(out: &mut Vec<u8>, cursor: &mut Cursor<'_>, length: usize, limit: usize) {
    let literals = cursor.take(length.min(cursor.remaining())).unwrap_or_default();
    let room = limit.saturating_sub(out.len());
    out.extend_from_slice(literals.get(..room).unwrap_or(literals));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_matches() {
        // "abc", then 9 bytes from 3 back, then "d".
        let block = [0x35, b'a', b'b', b'c', 3, 0, 0x10, b'd'];
        assert_eq!(unpack(&block, 100).as_deref(), Some(&b"abcabcabcabcd"[..]));
        assert_eq!(unpack(&block, 5).as_deref(), Some(&b"abcab"[..]));
        for cut in 0..block.len() {
            assert!(unpack(block.get(..cut).unwrap_or_default(), 100).is_some_and(|out| out.len() <= 13));
        }
        assert_eq!(unpack(&[0x10, b'a', 2, 0], 100), None);
        assert_eq!(unpack(&[0x10, b'a', 0, 0], 100), None);
        // A match of many megabytes is no more than what is wanted.
        let mut bomb = vec![0x1f, b'a', 1, 0];
        bomb.resize(100_000, 255);
        bomb.push(0);
        assert_eq!(unpack(&bomb, 1000).map(|out| out.len()), Some(1000));
    }
}
