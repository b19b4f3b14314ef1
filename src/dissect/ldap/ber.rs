//! Basic encoding rules (X.690), as far as LDAP allows them (RFC 4511 section 5.1): one-byte tags, definite lengths.

use crate::dissect::{Cursor, Malformed, Short};

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// The longest element: no server takes more.
const MAX_LENGTH: usize = 1 << 28;

/// Why no element could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes end before it does.
    Short,
    /// It is none that LDAP allows.
    Malformed(&'static str),
}

impl From<Short> for Fault {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl From<Fault> for Malformed {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Short => Self("ends too early"),
            Fault::Malformed(why) => Self(why),
        }
    }
}

/// The tag and the length of the next element.
pub(super) fn header(cursor: &mut Cursor<'_>) -> Result<(u8, usize), Fault> {
    let before = *cursor;
    let parsed = (|| {
        let tag = cursor.u8()?;
        if tag & 0x1f == 0x1f {
            return Err(Fault::Malformed("a tag of more than one byte"));
        }
        let length = match cursor.u8()? {
            short @ ..=0x7f => usize::from(short),
            0x80 => return Err(Fault::Malformed("a length that is not definite")),
            long @ 0x81..=0x84 => {
                cursor.take(usize::from(long & 0x7f))?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return Err(Fault::Malformed("a length of too many bytes")),
        };
        if length > MAX_LENGTH {
            return Err(Fault::Malformed("an element that is too long"));
        }
        Ok((tag, length))
    })();
    if parsed.is_err() {
        *cursor = before;
    }
    parsed
}

/// The tag and the content of the next element.
pub(super) fn element<'a>(cursor: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), Fault> {
    let (tag, length) = header(cursor)?;
    Ok((tag, cursor.take(length)?))
}

/// The content of the next element, which has that tag.
pub(super) fn expect<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<&'a [u8], Fault> {
    match element(cursor)? {
        (found, content) if found == tag => Ok(content),
        _ => Err(Fault::Malformed("an element of another type")),
    }
}

/// The content of the next element if it has that tag.
pub(super) fn optional<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<Option<&'a [u8]>, Fault> {
    if cursor.peek() == Some(tag) { expect(cursor, tag).map(Some) } else { Ok(None) }
}

/// The value of an integer or of an enumeration.
pub(super) fn number(content: &[u8]) -> Result<i64, Fault> {
    let (first, rest) = content.split_first().ok_or(Fault::Malformed("a number without digits"))?;
    if content.len() > 8 {
        return Err(Fault::Malformed("a number that is too long"));
    }
    let first = i64::from(i8::from_be_bytes([*first]));
    Ok(rest.iter().fold(first, |number, byte| number << 8 | i64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_short_or_long() {
        let read = |bytes: &[u8]| header(&mut Cursor::new(bytes));
        assert_eq!(read(&[0x30, 0x05]), Ok((0x30, 5)));
        assert_eq!(read(&[0x30, 0x84, 0, 0, 1, 0]), Ok((0x30, 256)));
        assert_eq!(read(&[0x30, 0x82, 1]), Err(Fault::Short));
        assert!(matches!(read(&[0x30, 0x80]), Err(Fault::Malformed(_))));
        assert!(matches!(read(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Err(Fault::Malformed(_))));
        assert!(matches!(read(&[0x1f, 0x01]), Err(Fault::Malformed(_))));
    }

    #[test]
    fn numbers_have_a_sign() {
        assert_eq!(number(&[0x00, 0x80]), Ok(128));
        assert_eq!(number(&[0xff]), Ok(-1));
        assert!(number(&[]).is_err());
        assert!(number(&[1; 9]).is_err());
    }
}
