//! gRPC over HTTP/2: what takes the place of the HTTP row. Spec:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
//!
//! Parsed: the call's path, authority and status, and its messages: by their descriptors where those are known (given, or
//! told on the same connection by server reflection), else by the wire format alone, so that fields go by their numbers.
//! **Not parsed**: gRPC-Web's trailers within the body.

mod descriptors;
mod json;
mod reflection;
mod wire;

pub use descriptors::Descriptors;
pub(super) use descriptors::Method;
pub(super) use reflection::{Learnt, MAX_REFLECTION, REFLECTION};

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

/// The messages of one half of a call.
pub(super) struct Messages {
    /// One value each.
    pub values: Value,
    /// Their type, if it was known and at least one of them was of it.
    pub kind: Option<String>,
    /// Some of them are not of that type.
    pub misfits: bool,
}

/// The messages in `body`: a flag, a length, and that many bytes each, compressed with `coding` if the flag says so. No
/// message is decompressed beyond `limit` bytes; `size` is that of the whole body, of which `body` is what was kept. They are
/// of the type `kind`, as far as known.
#[must_use]
pub(super) fn messages(
    body: &[u8],
    size: u64,
    coding: &[u8],
    limit: usize,
    kind: Option<&descriptors::Kind>,
) -> Messages {
    let mut cursor = Cursor::new(body);
    let mut values = Vec::new();
    let (mut fits, mut misfits) = (false, false);
    let mut left = json::MAX_VALUES;
    let mut value = |message: &[u8]| {
        if let Some(kind) = kind {
            match kind.decode(message, &mut left) {
                Some(value) => {
                    fits = true;
                    return value;
                }
                None => misfits = true,
            }
        }
        wire::value(message)
    };
    while !cursor.is_empty() && values.len() < MAX_MESSAGES {
        let (Ok(flag), Ok(len)) = (cursor.u8(), cursor.u32()) else { break };
        let Ok(message) = cursor.take(len as usize) else { break };
        let decoded = if flag & 1 > 0 { content::decode(coding, message, limit) } else { None };
        values.push(match (flag & 1, &decoded) {
            (0, _) => value(message),
            (_, Some(decoded)) if !decoded.more => value(&decoded.bytes),
            _ => fields! { "encoding" => text::value(coding), "body" => text::body(message, message.len() as u64) },
        });
    }
    if cursor.position() as u64 != size {
        values.push(fields! { "truncated" => true });
    }
    Messages { values: values.into(), kind: kind.filter(|_| fits).map(descriptors::Kind::name), misfits }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    fn untyped(body: &[u8], size: usize) -> Value {
        messages(body, size as u64, b"", 100, None).values
    }

    #[test]
    fn fields_by_number() {
        // 1: 150, 2: "testing", 3: {1: 150}, 4: 1 and 2, 5: fixed32, 6: bytes.
        let message = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01\x20\x01\x20\x02\x2d\x01\0\0\0\x32\x02\xff\xfe";
        let expected = fields! {
            "1" => 150u8, "2" => "testing", "3" => fields! { "1" => 150u8 },
            "4" => vec![Value::from(1u8), Value::from(2u8)], "5" => 1u8, "6" => text::body(b"\xff\xfe", 2),
        };
        assert_eq!(untyped(&framed(message), 5 + message.len()), vec![expected].into());
    }

    #[test]
    fn several_messages_and_one_cut_short() {
        let two = [framed(b"\x08\x01"), framed(b""), framed(b"\x08\x01")].concat();
        let cut = two.get(..two.len() - 1).unwrap();
        let one = fields! { "1" => 1u8 };
        let expected = vec![one, Value::Map(vec![]), fields! { "truncated" => true }];
        assert_eq!(untyped(cut, two.len()), expected.into());
    }

    #[test]
    fn statuses() {
        assert_eq!(status(b"0"), Some(("0".into(), false)));
        assert_eq!(status(b"14"), Some(("14".into(), true)));
        assert_eq!(status(b"-1"), None);
        assert_eq!(status_message(b"not%20found%3A %zz"), "not found: %zz");
    }
}
