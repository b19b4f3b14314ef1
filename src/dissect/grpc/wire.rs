//! Messages of which the wire format alone is known (<https://protobuf.dev/programming-guides/encoding/>): fields go by their
//! numbers.

use crate::dissect::{Cursor, text};
use crate::entry::{Text, Value};

/// The most fields of one message, those of nested ones included.
const MAX_FIELDS: usize = 400;
/// The deepest nesting of messages.
const MAX_DEPTH: usize = 16;

/// A message's fields, or its bytes if it is no message.
pub(super) fn value(message: &[u8]) -> Value {
    let mut left = MAX_FIELDS;
    protobuf(message, 0, &mut left).unwrap_or_else(|| text::body(message, message.len() as u64))
}

/// The fields of a message in protobuf's wire format by their numbers; `None` if the bytes are none.
fn protobuf(message: &[u8], depth: usize, left: &mut usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut cursor = Cursor::new(message);
    let mut fields: Vec<(Text, Value)> = Vec::new();
    while !cursor.is_empty() {
        *left = left.checked_sub(1)?;
        let (number, value) = field(&mut cursor)?;
        let value = match value {
            Raw::Number(number) => number.into(),
            Raw::Bytes(part) => bytes(part, depth, left),
        };
        let name = number.to_string();
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Value::List(values))) => values.push(value),
            Some((_, first)) => *first = Value::List(vec![std::mem::take(first), value]),
            None => fields.push((name.into(), value)),
        }
    }
    Some(fields.into())
}

/// A field's value, of which its wire type is all that is known.
pub(super) enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The next field with its number; `None` if the bytes are none.
pub(super) fn field<'a>(cursor: &mut Cursor<'a>) -> Option<(u64, Raw<'a>)> {
    let tag = cursor.varint().ok()?;
    let number = tag >> 3;
    if number == 0 || number > 0x1fff_ffff {
        return None;
    }
    let value = match tag & 7 {
        0 => Raw::Number(cursor.varint().ok()?),
        1 => Raw::Number(cursor.u64_le().ok()?),
        2 => {
            let len = usize::try_from(cursor.varint().ok()?).ok()?;
            Raw::Bytes(cursor.take(len).ok()?)
        }
        5 => Raw::Number(cursor.u32_le().ok()?.into()),
        _ => return None,
    };
    Some((number, value))
}

/// What a length-delimited field holds: text, if it reads as such; a message, if it is one; else bytes.
fn bytes(bytes: &[u8], depth: usize, left: &mut usize) -> Value {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(char::is_control)
    {
        return text::value(bytes);
    }
    let before = *left;
    protobuf(bytes, depth + 1, left).unwrap_or_else(|| {
        *left = before.saturating_sub(1);
        match text::body(bytes, bytes.len() as u64) {
            Value::Map(fields) if fields.iter().any(|(name, _)| name == "text") => text::value(bytes),
            body => body,
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn hostile_messages_are_bytes() {
        let deep = (0..100).fold(vec![0x08, 0x01], |inner, _| [&[0x0a, inner.len() as u8][..], &inner].concat());
        for hostile in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"\x0b", b"\x12\x7f", b"\0\0"] {
            assert_eq!(value(hostile), text::body(hostile, hostile.len() as u64));
        }
        assert!(!value(&deep).is_null());
        let many = b"\x08\x01".repeat(MAX_FIELDS + 1);
        assert_eq!(value(&many), text::body(&many, many.len() as u64));
    }
}
