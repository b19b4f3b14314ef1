//! Packets: a length, a sequence number, a payload; and the packets that end an answer.

use super::{Cursor, Short};

/// The length of a packet's length and sequence number.
pub(super) const HEADER: usize = 4;
/// The longest payload; one of this length is continued by the next packet.
pub(super) const MAX_PAYLOAD: usize = 0xff_ffff;

/// First bytes of payloads.
pub(super) const OK: u8 = 0x00;
pub(super) const ERR: u8 = 0xff;
pub(super) const EOF: u8 = 0xfe;
pub(super) const LOCAL_INFILE: u8 = 0xfb;
/// In place of an error's code: MariaDB tells how far it is.
pub(super) const PROGRESS: u16 = 0xffff;

/// Flags of the server's status.
pub(super) const MORE_RESULTS: u16 = 0x0008;
pub(super) const CURSOR_EXISTS: u16 = 0x0040;
pub(super) const SESSION_STATE_CHANGED: u16 = 0x4000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) len: usize,
    pub(super) sequence: u8,
}

impl Header {
    /// `None` if the bytes are too few.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        Some(Self { len: cursor.u24_le().ok()? as usize, sequence: cursor.u8().ok()? })
    }

    /// The length of the packet.
    pub(super) fn total(self) -> usize {
        HEADER + self.len
    }

    /// The first `wanted` bytes of the payload, or how many bytes are lacking. They are as many however the bytes come.
    pub(super) fn head(self, packet: &[u8], wanted: usize) -> Result<&[u8], usize> {
        let end = HEADER + self.len.min(wanted);
        packet.get(HEADER..end).ok_or(end.saturating_sub(packet.len()))
    }
}

/// A number of one to nine bytes; `None` for NULL.
pub(super) fn number(cursor: &mut Cursor<'_>) -> Result<Option<u64>, Short> {
    Ok(Some(match cursor.u8()? {
        small @ 0..=0xfa => small.into(),
        0xfb => return Ok(None),
        0xfc => cursor.u16_le()?.into(),
        0xfd => cursor.u24_le()?.into(),
        0xfe => cursor.u64_le()?,
        0xff => return Err(Short),
    }))
}

/// A number that is not NULL.
pub(super) fn count(cursor: &mut Cursor<'_>) -> Result<u64, Short> {
    number(cursor)?.ok_or(Short)
}

/// Bytes behind their length.
pub(super) fn bytes<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let len = count(cursor)?;
    cursor.take(usize::try_from(len).map_err(|_| Short)?)
}

/// What ends an answer well, or the list of its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Okay<'a> {
    /// Rows changed and the newest id; not in an EOF packet.
    pub(super) changes: Option<(u64, u64)>,
    pub(super) status: u16,
    pub(super) warnings: u16,
    /// What more there is: text, and how the session changed.
    pub(super) rest: &'a [u8],
}

/// True if a payload that begins with `EOF` is an EOF packet: an OK packet is longer, a row longer yet.
pub(super) fn is_eof(payload: &[u8], len: usize) -> bool {
    payload.first() == Some(&EOF) && len <= 5
}

/// An OK packet, with either first byte, or an EOF packet.
pub(super) fn okay(payload: &[u8], len: usize) -> Result<Okay<'_>, Short> {
    let mut cursor = Cursor::new(payload);
    cursor.skip(1)?;
    if is_eof(payload, len) {
        let (warnings, status) = (cursor.u16_le().unwrap_or(0), cursor.u16_le().unwrap_or(0));
        return Ok(Okay { changes: None, status, warnings, rest: &[] });
    }
    let changes = Some((count(&mut cursor)?, count(&mut cursor)?));
    // Protocol 3.20 has no more.
    let (status, warnings) = (cursor.u16_le().unwrap_or(0), cursor.u16_le().unwrap_or(0));
    Ok(Okay { changes, status, warnings, rest: cursor.rest() })
}

/// An error's number, SQLSTATE and message.
pub(super) fn error(payload: &[u8]) -> Result<(u16, &[u8], &[u8]), Short> {
    let mut cursor = Cursor::new(payload);
    cursor.skip(1)?;
    let code = cursor.u16_le()?;
    match cursor.rest() {
        [b'#', rest @ ..] if rest.len() >= 5 => {
            let (state, message) = rest.split_at_checked(5).ok_or(Short)?;
            Ok((code, state, message))
        }
        message => Ok((code, &[], message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_to_nine_bytes() {
        let read = |bytes: &[u8]| number(&mut Cursor::new(bytes));
        assert_eq!(read(b"\xfa"), Ok(Some(250)));
        assert_eq!(read(b"\xfb"), Ok(None));
        assert_eq!(read(b"\xfc\x01\x02"), Ok(Some(0x201)));
        assert_eq!(read(b"\xfd\x01\x02\x03"), Ok(Some(0x3_0201)));
        assert_eq!(read(b"\xfe\x01\0\0\0\0\0\0\0"), Ok(Some(1)));
        assert_eq!(read(b"\xfe\x01"), Err(Short));
        assert_eq!(read(b"\xff"), Err(Short));
    }

    #[test]
    fn an_eof_packet_and_an_ok_packet_differ_in_length() {
        assert_eq!(okay(b"\xfe\x01\0\x22\0", 5).map(|okay| (okay.status, okay.warnings)), Ok((0x22, 1)));
        let okay = okay(b"\xfe\x02\x03\x0a\0\x01\0", 7);
        assert_eq!(okay.map(|okay| (okay.changes, okay.status)), Ok((Some((2, 3)), 0x0a)));
    }

    #[test]
    fn errors_with_and_without_a_state() {
        assert_eq!(error(b"\xff\x28\x04#42000bad"), Ok((1064, &b"42000"[..], &b"bad"[..])));
        assert_eq!(error(b"\xff\x10\x04Too many"), Ok((1040, &b""[..], &b"Too many"[..])));
    }
}
