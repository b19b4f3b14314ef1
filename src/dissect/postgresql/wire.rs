//! The frames of messages: a type, a length that counts itself, a body.

use crate::dissect::Cursor;
use crate::entry::Direction;

/// The length of a type and a length.
pub(super) const HEADER: usize = 5;
/// The largest message: what a server can set memory aside for.
const MAX_LARGE: usize = 0x3fff_ffff;
/// The largest message of a type that is not made for data.
const MAX_SMALL: usize = 30_000;
/// The largest answer to a request for authentication.
const MAX_PASSWORD: usize = 65_535;
/// The longest key that a query can be cancelled with.
const MAX_KEY: usize = 256;
/// The largest description of parameters: a count and 65,535 types.
const MAX_PARAMETERS: usize = 2 + 4 * 65_535;

/// A message's type and the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tag: u8,
    pub(super) body: usize,
}

impl Header {
    /// `None` if the bytes are too few.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let (tag, len) = (cursor.u8().ok()?, cursor.u32().ok()?);
        Some(Self { tag, body: (len as usize).wrapping_sub(4) })
    }

    /// The length of the message, its type included.
    pub(super) fn total(self) -> usize {
        HEADER + self.body
    }

    /// True if there is such a message in that direction, and it can be so long.
    pub(super) fn is_valid(self, direction: Direction) -> bool {
        let client = direction == Direction::ToServer;
        let (least, most) = match self.tag {
            b'd' => (0, MAX_LARGE),
            b'c' => (0, 0),
            b'S' | b'H' | b'X' if client => (0, 0),
            b'Q' if client => (1, MAX_LARGE),
            b'P' if client => (4, MAX_LARGE),
            b'B' if client => (8, MAX_LARGE),
            b'F' if client => (10, MAX_LARGE),
            b'D' | b'C' if client => (2, MAX_SMALL),
            b'E' if client => (5, MAX_SMALL),
            b'f' if client => (1, MAX_SMALL),
            b'p' if client => (0, MAX_PASSWORD),
            _ if client => return false,
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' => (0, 0),
            b'Z' => (1, 1),
            b'E' | b'N' => (1, MAX_LARGE),
            b'T' | b'D' => (2, MAX_LARGE),
            b'V' => (4, MAX_LARGE),
            b'A' => (6, MAX_LARGE),
            b't' => (2, MAX_PARAMETERS),
            b'C' => (1, MAX_SMALL),
            b'S' => (2, MAX_SMALL),
            b'G' | b'H' | b'W' => (3, MAX_SMALL),
            b'R' => (4, MAX_SMALL),
            b'v' => (8, MAX_SMALL),
            b'K' => (8, 4 + MAX_KEY),
            _ => return false,
        };
        (least..=most).contains(&self.body)
    }

    /// The first `wanted` bytes of the body, or how many bytes are lacking. They are as many however the bytes come.
    pub(super) fn head(self, message: &[u8], wanted: usize) -> Result<&[u8], usize> {
        let end = HEADER + self.body.min(wanted);
        message.get(HEADER..end).ok_or(end.saturating_sub(message.len()))
    }
}

/// The fields of an error or a notice: a letter and text for each.
pub(super) fn fields(body: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut cursor = Cursor::new(body);
    std::iter::from_fn(move || match cursor.u8() {
        Ok(0) | Err(_) => None,
        Ok(letter) => cursor.until(0).ok().map(|text| (letter, text)),
    })
}

/// The SQLSTATE of an error.
pub(super) fn sqlstate(body: &[u8]) -> Option<&[u8]> {
    fields(body).find(|(letter, _)| *letter == b'C').map(|(_, code)| code).filter(|code| is_sqlstate(code))
}

pub(super) fn is_sqlstate(code: &[u8]) -> bool {
    code.len() == 5 && code.iter().all(u8::is_ascii_alphanumeric)
}

/// The name of an error's field.
pub(super) fn field_name(letter: u8) -> Option<&'static str> {
    Some(match letter {
        b'S' => "severity_localized",
        b'V' => "severity",
        b'C' => "code",
        b'M' => "message",
        b'D' => "detail",
        b'H' => "hint",
        b'P' => "position",
        b'p' => "internal_position",
        b'q' => "internal_query",
        b'W' => "where",
        b's' => "schema_name",
        b't' => "table_name",
        b'c' => "column_name",
        b'd' => "data_type_name",
        b'n' => "constraint_name",
        b'F' => "file",
        b'L' => "line",
        b'R' => "routine",
        _ => return None,
    })
}
