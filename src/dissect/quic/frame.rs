//! The frames of Initial packets (RFC 9000 section 19), and the handshake's bytes put in order.

use super::packet::{counted, varint};
use crate::dissect::{Cursor, Short};

/// The most handshake bytes of one side that are put together: a `ClientHello` with post-quantum key shares has some 2 kB.
const MAX_CRYPTO: usize = 16 << 10;
/// The most pieces with holes between them.
const MAX_PIECES: usize = 64;

/// What of an Initial packet's frames matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// Bytes of the handshake and their place in it.
    Crypto(u64, &'a [u8]),
    /// The connection is given up: error code and reason.
    Close(u64, &'a [u8]),
    /// Acknowledgements and fillers.
    Other,
}

/// The frames in decrypted bytes, up to the first that may not be there.
pub(super) fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut cursor = Cursor::new(bytes);
    std::iter::from_fn(move || frame(&mut cursor).ok())
}

fn frame<'a>(cursor: &mut Cursor<'a>) -> Result<Frame<'a>, Short> {
    Ok(match varint(cursor)? {
        0 => {
            let padding = cursor.rest().iter().take_while(|byte| **byte == 0).count();
            cursor.skip(padding)?;
            Frame::Other
        }
        1 => Frame::Other,
        kind @ (2 | 3) => {
            varint(cursor)?;
            varint(cursor)?;
            let ranges = varint(cursor)?;
            varint(cursor)?;
            // Each takes at least two bytes, so that the end of the packet ends this.
            for _ in 0..ranges {
                varint(cursor)?;
                varint(cursor)?;
            }
            for _ in 0..if kind == 3 { 3 } else { 0 } {
                varint(cursor)?;
            }
            Frame::Other
        }
        // 8 is a stream's in the standard, which has none in Initial packets, and was this in Google's T051.
        6 | 8 => Frame::Crypto(varint(cursor)?, counted(cursor)?),
        0x1c => {
            let code = varint(cursor)?;
            varint(cursor)?;
            Frame::Close(code, counted(cursor)?)
        }
        _ => return Err(Short),
    })
}

/// What of the frames of other packets matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppFrame<'a> {
    /// Bytes of the handshake and their place in it.
    Crypto(u64, &'a [u8]),
    /// Bytes of a stream and their place in it; `last` if it ends with them.
    Stream { id: u64, offset: u64, data: &'a [u8], last: bool },
    /// The sender gave up a stream, or asks the other side to.
    Reset { id: u64, code: u64 },
    /// The connection ends.
    Close,
    /// All the rest.
    Other,
}

/// The frames of Handshake, 0-RTT and 1-RTT packets, up to the first that is not known.
pub(super) fn app_frames(bytes: &[u8]) -> impl Iterator<Item = AppFrame<'_>> {
    let mut cursor = Cursor::new(bytes);
    std::iter::from_fn(move || app_frame(&mut cursor).ok())
}

fn app_frame<'a>(cursor: &mut Cursor<'a>) -> Result<AppFrame<'a>, Short> {
    let before = *cursor;
    let kind = varint(cursor)?;
    let numbers = match kind {
        0x04 => {
            let (id, code) = (varint(cursor)?, varint(cursor)?);
            varint(cursor)?;
            return Ok(AppFrame::Reset { id, code });
        }
        0x06 => return Ok(AppFrame::Crypto(varint(cursor)?, counted(cursor)?)),
        0x08..=0x0f => {
            let id = varint(cursor)?;
            let offset = if kind & 4 > 0 { varint(cursor)? } else { 0 };
            let data = if kind & 2 > 0 { counted(cursor)? } else { cursor.take(cursor.remaining())? };
            return Ok(AppFrame::Stream { id, offset, data, last: kind & 1 > 0 });
        }
        0x1c | 0x1d => {
            // No more is looked at.
            cursor.skip(cursor.remaining())?;
            return Ok(AppFrame::Close);
        }
        0x07 | 0x31 => {
            counted(cursor)?;
            0
        }
        0x18 => {
            varint(cursor)?;
            varint(cursor)?;
            let length = cursor.u8()?;
            cursor.skip(usize::from(length) + 16)?;
            0
        }
        0x1a | 0x1b => {
            cursor.skip(8)?;
            0
        }
        // A datagram (RFC 9221) without its length; one with it is 0x31.
        0x30 => {
            cursor.skip(cursor.remaining())?;
            0
        }
        0x10 | 0x12..=0x14 | 0x16 | 0x17 | 0x19 => 1,
        0x05 | 0x11 | 0x15 => 2,
        0x1e | 0x1f => 0,
        // How often to acknowledge (a draft that is in use).
        0xaf => 4,
        _ => {
            *cursor = before;
            frame(cursor)?;
            0
        }
    };
    for _ in 0..numbers {
        varint(cursor)?;
    }
    Ok(AppFrame::Other)
}

/// Handshake bytes that come in pieces, in any order.
#[derive(Default)]
pub(super) struct Crypto {
    bytes: Vec<u8>,
    /// Start and end of what is there, in order, with holes between.
    pieces: Vec<(usize, usize)>,
}

impl Crypto {
    /// Takes a piece; one that is too far off or one too many is left out.
    pub fn add(&mut self, offset: u64, data: &[u8]) {
        let Some(start) = usize::try_from(offset).ok().filter(|start| *start <= MAX_CRYPTO) else { return };
        let end = start + data.len();
        if end > MAX_CRYPTO || self.pieces.len() >= MAX_PIECES {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(to) = self.bytes.get_mut(start..end) {
            to.copy_from_slice(data);
        }
        self.pieces.push((start, end));
        self.pieces.sort_unstable();
        self.pieces.dedup_by(|next, piece| {
            let touches = next.0 <= piece.1;
            if touches {
                piece.1 = piece.1.max(next.1);
            }
            touches
        });
    }

    /// The bytes from the start up to the first hole.
    pub fn ready(&self) -> &[u8] {
        match self.pieces.first() {
            Some((0, end)) => self.bytes.get(..*end).unwrap_or_default(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_any_order() {
        let mut crypto = Crypto::default();
        crypto.add(6, b"world");
        assert_eq!(crypto.ready(), b"");
        crypto.add(0, b"hel");
        assert_eq!(crypto.ready(), b"hel");
        crypto.add(2, b"llo ");
        assert_eq!(crypto.ready(), b"hello world");
        crypto.add(u64::MAX, b"far away");
        crypto.add(MAX_CRYPTO as u64, b"too far");
        assert_eq!(crypto.ready(), b"hello world");
    }

    #[test]
    fn holes_are_bounded() {
        let mut crypto = Crypto::default();
        for offset in 1..10_000 {
            crypto.add(offset * 2, b"x");
        }
        assert_eq!(crypto.pieces.len(), MAX_PIECES);
    }

    #[test]
    fn frames_of_later_packets_are_told_apart() {
        let bytes = b"\x01\x18\x01\0\x01\xaa0123456789abcdef\x10\x40\xff\x0e\x04\x03\x02hi\x02\x05\x01\0\x02\x04\x08\x41\x0c\0\x1e\x09\x08end";
        let frames: Vec<_> = app_frames(bytes).filter(|frame| *frame != AppFrame::Other).collect();
        assert_eq!(
            frames,
            [
                AppFrame::Stream { id: 4, offset: 3, data: b"hi", last: false },
                AppFrame::Reset { id: 8, code: 0x10c },
                AppFrame::Stream { id: 8, offset: 0, data: b"end", last: true },
            ]
        );
    }

    #[test]
    fn frames_are_told_apart() {
        let bytes = b"\x01\0\0\0\x02\x05\x01\x00\x02\x06\x02\x03abc\x1c\x41\x28\0\x02no\x08";
        let frames: Vec<_> = frames(bytes).filter(|frame| *frame != Frame::Other).collect();
        assert_eq!(frames, [Frame::Crypto(2, b"abc"), Frame::Close(0x128, b"no")]);
    }
}
