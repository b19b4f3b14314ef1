//! Block formats that repeat what came before (Lempel and Ziv), read from the front: the bytes at hand may be a part, and so
//! may the result.

pub(super) mod lz4;
pub(super) mod snappy;

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
