//! RESP, the Redis serialization protocol, versions 2 and 3: one item at a time.

use super::super::{Cursor, Malformed, text};
use crate::entry::Value;

/// The longest line: of an inline command (Redis' own limit), of a simple string, of an error.
const MAX_LINE: usize = 64 << 10;
/// The longest bulk string; Redis' default limit is 512 MiB.
const MAX_BULK: u64 = 4 << 30;
/// The most items of one aggregate.
const MAX_ITEMS: u64 = 1 << 32;

/// Why there is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// At least so many bytes more are needed.
    Short(usize),
    /// It is no RESP.
    Malformed(&'static str),
}

impl From<Malformed> for Fault {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// An item's line. What follows it, the bytes of a bulk string or the items of an aggregate, is the caller's to read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Double(&'a [u8]),
    BigNumber(&'a [u8]),
    Boolean(bool),
    Null,
    /// So many bytes and CRLF follow.
    Bulk(Bulk, u64),
    /// So many items follow (pairs count twice); without a number, items up to [`Item::End`].
    Aggregate(Kind, Option<u64>),
    End,
}

/// Strings with a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bulk {
    String,
    Error,
    /// The first four bytes are its format: `txt:`.
    Verbatim,
    /// Part of a streamed string.
    Chunk,
}

/// What holds items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Set,
    Push,
    Map,
    /// Says something about the item that follows it, which is not counted with it.
    Attribute,
    /// A string in [`Bulk::Chunk`]s.
    StreamedString,
}

impl Item<'_> {
    /// The type's name in the specification.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Simple(_) => "simple_string",
            Self::Error(_) => "simple_error",
            Self::Integer(_) => "integer",
            Self::Double(_) => "double",
            Self::BigNumber(_) => "big_number",
            Self::Boolean(_) => "boolean",
            Self::Null => "null",
            Self::Bulk(Bulk::String | Bulk::Chunk, _) | Self::Aggregate(Kind::StreamedString, _) => "bulk_string",
            Self::Bulk(Bulk::Error, _) => "bulk_error",
            Self::Bulk(Bulk::Verbatim, _) => "verbatim_string",
            Self::Aggregate(Kind::Array, _) => "array",
            Self::Aggregate(Kind::Set, _) => "set",
            Self::Aggregate(Kind::Push, _) => "push",
            Self::Aggregate(Kind::Map, _) => "map",
            Self::Aggregate(Kind::Attribute, _) => "attribute",
            Self::End => "end",
        }
    }

    /// The item as a field; null for what is not whole with its line.
    pub(super) fn value(&self) -> Value {
        match *self {
            Self::Simple(text) | Self::Error(text) | Self::BigNumber(text) => text::value(text),
            Self::Integer(number) => number.into(),
            // JSON has no infinity and no NaN.
            Self::Double(text) => match std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()) {
                Some(number) if number.is_finite() => number.into(),
                _ => text::value(text),
            },
            Self::Boolean(flag) => flag.into(),
            Self::Null | Self::Bulk(..) | Self::Aggregate(..) | Self::End => Value::Null,
        }
    }
}

/// The next item's line.
pub(super) fn item<'a>(cursor: &mut Cursor<'a>) -> Result<Item<'a>, Fault> {
    let start = *cursor;
    let parsed = typed(cursor);
    if parsed.is_err() {
        *cursor = start;
    }
    parsed
}

fn typed<'a>(cursor: &mut Cursor<'a>) -> Result<Item<'a>, Fault> {
    let bulk = |cursor: &mut Cursor<'a>, kind| match length(cursor, MAX_BULK)? {
        Length::Of(len) => Ok(Item::Bulk(kind, len)),
        Length::Null if kind == Bulk::String => Ok(Item::Null),
        Length::Streamed if kind == Bulk::String => Ok(Item::Aggregate(Kind::StreamedString, None)),
        _ => Err(Fault::Malformed("a string without a length")),
    };
    let aggregate = |cursor: &mut Cursor<'a>, kind, each| match length(cursor, MAX_ITEMS)? {
        Length::Of(count) => Ok(Item::Aggregate(kind, Some(count * each))),
        Length::Null if kind == Kind::Array => Ok(Item::Null),
        Length::Streamed if kind != Kind::Push => Ok(Item::Aggregate(kind, None)),
        _ => Err(Fault::Malformed("an aggregate without a count")),
    };
    match cursor.u8().map_err(|_| Fault::Short(3))? {
        b'+' => Ok(Item::Simple(line(cursor)?)),
        b'-' => Ok(Item::Error(line(cursor)?)),
        b':' => Ok(Item::Integer(integer(line(cursor)?).ok_or(Fault::Malformed("an integer that is none"))?)),
        b'$' => bulk(cursor, Bulk::String),
        b'*' => aggregate(cursor, Kind::Array, 1),
        b'_' => empty(cursor, Item::Null),
        b'.' => empty(cursor, Item::End),
        b'#' => match line(cursor)? {
            b"t" => Ok(Item::Boolean(true)),
            b"f" => Ok(Item::Boolean(false)),
            _ => Err(Fault::Malformed("a boolean that is none")),
        },
        b',' => match line(cursor)? {
            text if is_double(text) => Ok(Item::Double(text)),
            _ => Err(Fault::Malformed("a double that is none")),
        },
        b'(' => match line(cursor)? {
            text if is_integer(text) => Ok(Item::BigNumber(text)),
            _ => Err(Fault::Malformed("a big number that is none")),
        },
        b'!' => bulk(cursor, Bulk::Error),
        b'=' => bulk(cursor, Bulk::Verbatim),
        b';' => match bulk(cursor, Bulk::Chunk)? {
            Item::Bulk(_, 0) => Ok(Item::End),
            chunk => Ok(chunk),
        },
        b'%' => aggregate(cursor, Kind::Map, 2),
        b'~' => aggregate(cursor, Kind::Set, 1),
        b'>' => aggregate(cursor, Kind::Push, 1),
        b'|' => aggregate(cursor, Kind::Attribute, 2),
        _ => Err(Fault::Malformed("a type that RESP does not have")),
    }
}

/// What an item's line says of its length.
enum Length {
    Of(u64),
    Null,
    Streamed,
}

/// A length and CRLF. Hand-made, since every other item has one.
fn length(cursor: &mut Cursor<'_>, limit: u64) -> Result<Length, Fault> {
    let mut length = 0u64;
    let mut digits = 0;
    loop {
        match (cursor.u8().map_err(|_| Fault::Short(1))?, digits) {
            (digit @ b'0'..=b'9', 0..=18) => length = length * 10 + u64::from(digit - b'0'),
            (b'\r', 1..) => break,
            (b'-', 0) => return if line(cursor)? == b"1" { Ok(Length::Null) } else { Err(NO_LENGTH) },
            (b'?', 0) => return if line(cursor)?.is_empty() { Ok(Length::Streamed) } else { Err(NO_LENGTH) },
            _ => return Err(NO_LENGTH),
        }
        digits += 1;
    }
    match cursor.u8().map_err(|_| Fault::Short(1))? {
        b'\n' if length <= limit => Ok(Length::Of(length)),
        _ => Err(NO_LENGTH),
    }
}

const NO_LENGTH: Fault = Fault::Malformed("a length that is none");

/// The rest of a line, without its CRLF; a CR alone may not be part of it.
fn line<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Fault> {
    match memchr::memchr(b'\r', cursor.rest().get(..MAX_LINE).unwrap_or(cursor.rest())) {
        Some(end) => {
            let line = cursor.take(end).map_err(|_| Fault::Short(1))?;
            match cursor.array() {
                Ok([b'\r', b'\n']) => Ok(line),
                Ok(_) => Err(Fault::Malformed("a line that does not end in CRLF")),
                Err(_) => Err(Fault::Short(1)),
            }
        }
        None if cursor.remaining() >= MAX_LINE => Err(Fault::Malformed("a line without end")),
        None => Err(Fault::Short(2)),
    }
}

fn empty<'a>(cursor: &mut Cursor<'_>, item: Item<'a>) -> Result<Item<'a>, Fault> {
    if line(cursor)?.is_empty() { Ok(item) } else { Err(Fault::Malformed("a type with a value that it can't have")) }
}

fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn integer(text: &[u8]) -> Option<i64> {
    if is_integer(text) { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

fn is_double(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<f64>().is_ok())
}

/// An inline command: a line of words, for people at a terminal.
pub(super) fn inline<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Fault> {
    match memchr::memchr(b'\n', cursor.rest().get(..MAX_LINE).unwrap_or(cursor.rest())) {
        Some(end) => {
            let line = cursor.take(end).map_err(|_| Fault::Short(1))?;
            cursor.skip(1).map_err(|_| Fault::Short(1))?;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                return Err(Fault::Malformed("a command with control characters"));
            }
            Ok(line)
        }
        None if cursor.remaining() >= MAX_LINE => Err(Fault::Malformed("a line without end")),
        None => Err(Fault::Short(1)),
    }
}

/// The words of an inline command; quotes hold a word together.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        let (quote, body) = match rest.split_first()? {
            (quote @ (b'"' | b'\''), body) => (Some(*quote), body),
            _ => (None, rest),
        };
        let end = body.iter().position(|byte| quote.map_or(byte.is_ascii_whitespace(), |quote| *byte == quote));
        let (word, after) = body.split_at(end.unwrap_or(body.len()));
        rest = after.get(usize::from(quote.is_some())..).unwrap_or_default();
        Some(word)
    })
}

/// The bytes of a bulk string.
pub(super) struct Body<'a> {
    /// Its first bytes: all of them, or as many as were wanted.
    pub(super) head: &'a [u8],
    /// How many of its bytes, CRLF included, are still to come and to be passed over unseen.
    pub(super) beyond: usize,
}

/// Reads a bulk string of which the first `wanted` bytes matter.
pub(super) fn body<'a>(cursor: &mut Cursor<'a>, len: u64, wanted: usize) -> Result<Body<'a>, Fault> {
    let len = usize::try_from(len).map_err(|_| Fault::Malformed("a string that no memory holds"))?;
    let available = cursor.remaining();
    if let Some(head) = cursor.rest().get(..len)
        && available >= len + 2
    {
        cursor.skip(len).map_err(|_| Fault::Short(1))?;
        return match cursor.array() {
            Ok([b'\r', b'\n']) => Ok(Body { head: head.get(..wanted).unwrap_or(head), beyond: 0 }),
            _ => Err(Fault::Malformed("a string that does not end where it should")),
        };
    }
    match cursor.take(available.min(len + 2)) {
        Ok(bytes) if available >= wanted.min(len) => {
            let head = bytes.get(..wanted.min(len)).unwrap_or_default();
            Ok(Body { head, beyond: len + 2 - available })
        }
        _ => Err(Fault::Short(wanted.min(len).saturating_sub(available).max(1))),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may fail")]
mod tests {
    use super::*;

    fn one(bytes: &[u8]) -> Result<Item<'_>, Fault> {
        item(&mut Cursor::new(bytes))
    }

    #[test]
    fn every_type_of_both_versions_is_read() {
        let cases: &[(&[u8], Item<'_>)] = &[
            (b"+OK\r\n", Item::Simple(b"OK")),
            (b"-ERR no\r\n", Item::Error(b"ERR no")),
            (b":-12\r\n", Item::Integer(-12)),
            (b"$5\r\n", Item::Bulk(Bulk::String, 5)),
            (b"$-1\r\n", Item::Null),
            (b"$?\r\n", Item::Aggregate(Kind::StreamedString, None)),
            (b"*3\r\n", Item::Aggregate(Kind::Array, Some(3))),
            (b"*-1\r\n", Item::Null),
            (b"*?\r\n", Item::Aggregate(Kind::Array, None)),
            (b"_\r\n", Item::Null),
            (b"#t\r\n", Item::Boolean(true)),
            (b",-inf\r\n", Item::Double(b"-inf")),
            (b"(349\r\n", Item::BigNumber(b"349")),
            (b"!21\r\n", Item::Bulk(Bulk::Error, 21)),
            (b"=15\r\n", Item::Bulk(Bulk::Verbatim, 15)),
            (b";4\r\n", Item::Bulk(Bulk::Chunk, 4)),
            (b";0\r\n", Item::End),
            (b"%2\r\n", Item::Aggregate(Kind::Map, Some(4))),
            (b"~2\r\n", Item::Aggregate(Kind::Set, Some(2))),
            (b">2\r\n", Item::Aggregate(Kind::Push, Some(2))),
            (b"|1\r\n", Item::Aggregate(Kind::Attribute, Some(2))),
            (b".\r\n", Item::End),
        ];
        for (bytes, expected) in cases {
            assert_eq!(one(bytes), Ok(*expected), "{}", String::from_utf8_lossy(bytes));
            for cut in 0..bytes.len() {
                assert!(matches!(one(&bytes[..cut]), Err(Fault::Short(_))), "{bytes:?} cut after {cut}");
            }
        }
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for bytes in [
            &b"HTTP\r\n"[..],
            b"$x\r\n",
            b"$-2\r\n",
            b"*1\rx",
            b":1 2\r\n",
            b":\r\n",
            b"#x\r\n",
            b"$99999999999999999999\r\n",
        ] {
            assert!(matches!(one(bytes), Err(Fault::Malformed(_))), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn quotes_hold_words_together() {
        let words: Vec<_> = words(b"  set \"a b\" 'c'  d").collect();
        assert_eq!(words, [&b"set"[..], b"a b", b"c", b"d"]);
    }
}
