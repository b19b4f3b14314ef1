//! gRPC over HTTP/2: what takes the place of the HTTP row. Spec:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
//!
//! Parsed: the call's path, authority and status, and its messages, of which the wire format alone is known, so that fields
//! go by their numbers. **Not parsed**: gRPC-Web's trailers within the body.

use super::http::content;
use super::{Cursor, Protocol, Transport, Verdict, http2, text};
use crate::entry::{Text, Value};
use crate::fields;

/// Found within HTTP/2 only: it has no bytes of its own.
pub static PROTOCOL: Protocol = Protocol {
    name: NAME,
    title: "gRPC",
    transport: Transport::Tcp,
    ports: &[50051],
    probe: |_| Verdict::No,
    new: http2::PROTOCOL.new,
    repeats: false,
    spec: "https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md",
};

/// The name in rows.
pub const NAME: &str = "grpc";
/// The most messages of one half of a call that the detail view shows.
const MAX_MESSAGES: usize = 100;
/// The most fields of one message, those of nested ones included.
const MAX_FIELDS: usize = 400;
/// The deepest nesting of messages.
const MAX_DEPTH: usize = 16;

/// A status as text (see `grpc-status`); what is no number is left out.
#[must_use]
pub fn status(value: &[u8]) -> Option<(Text, bool)> {
    let text: Text = match value {
        b"0" => "0".into(),
        [b'0'..=b'9'] | [b'1'..=b'9', b'0'..=b'9'] => text::string(value).into(),
        _ => return None,
    };
    let failed = text != "0";
    Some((text, failed))
}

/// A status message: percent-encoded on the wire.
#[must_use]
pub fn status_message(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digit = |at: usize| tail.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push((high << 4 | low) as u8);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
        }
    }
    text::string(&bytes)
}

/// The messages of one half of a call: a flag, a length, and that many bytes each, compressed with `coding` if the flag says
/// so. No message is decompressed beyond `limit` bytes; `size` is that of the whole body, of which `body` is what was kept.
#[must_use]
pub fn messages(body: &[u8], size: u64, coding: &[u8], limit: usize) -> Value {
    let mut cursor = Cursor::new(body);
    let mut messages = Vec::new();
    while !cursor.is_empty() && messages.len() < MAX_MESSAGES {
        let (Ok(flag), Ok(len)) = (cursor.u8(), cursor.u32()) else { break };
        let Ok(message) = cursor.take(len as usize) else { break };
        let decoded = if flag & 1 > 0 { content::decode(coding, message, limit) } else { None };
        messages.push(match (flag & 1, &decoded) {
            (0, _) => value(message),
            (_, Some(decoded)) if !decoded.more => value(&decoded.bytes),
            _ => fields! { "encoding" => text::value(coding), "body" => text::body(message, message.len() as u64) },
        });
    }
    if cursor.position() as u64 != size {
        messages.push(fields! { "truncated" => true });
    }
    messages.into()
}

/// A message's fields, or its bytes if it is no message.
fn value(message: &[u8]) -> Value {
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
        let tag = varint(&mut cursor)?;
        let number = tag >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return None;
        }
        let value = match tag & 7 {
            0 => varint(&mut cursor)?.into(),
            1 => cursor.u64_le().ok()?.into(),
            2 => {
                let len = usize::try_from(varint(&mut cursor)?).ok()?;
                bytes(cursor.take(len).ok()?, depth, left)
            }
            5 => cursor.u32_le().ok()?.into(),
            _ => return None,
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

/// A number in groups of seven bits, lowest first, of at most ten bytes.
fn varint(cursor: &mut Cursor<'_>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = cursor.u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    #[test]
    fn fields_by_number() {
        // 1: 150, 2: "testing", 3: {1: 150}, 4: 1 and 2, 5: fixed32, 6: bytes.
        let message = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01\x20\x01\x20\x02\x2d\x01\0\0\0\x32\x02\xff\xfe";
        let expected = fields! {
            "1" => 150u8, "2" => "testing", "3" => fields! { "1" => 150u8 },
            "4" => vec![Value::from(1u8), Value::from(2u8)], "5" => 1u8, "6" => text::body(b"\xff\xfe", 2),
        };
        assert_eq!(messages(&framed(message), 5 + message.len() as u64, b"", 100), vec![expected].into());
    }

    #[test]
    fn several_messages_and_one_cut_short() {
        let two = [framed(b"\x08\x01"), framed(b""), framed(b"\x08\x01")].concat();
        let cut = two.get(..two.len() - 1).unwrap();
        let one = fields! { "1" => 1u8 };
        let expected = vec![one, Value::Map(vec![]), fields! { "truncated" => true }];
        assert_eq!(messages(cut, two.len() as u64, b"", 100), expected.into());
    }

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

    #[test]
    fn statuses() {
        assert_eq!(status(b"0"), Some(("0".into(), false)));
        assert_eq!(status(b"14"), Some(("14".into(), true)));
        assert_eq!(status(b"-1"), None);
        assert_eq!(status_message(b"not%20found%3A %zz"), "not found: %zz");
    }
}
