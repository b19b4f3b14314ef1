//! Content (section 2.3.5.2): the header with the properties of a message, and the body that follows in pieces.

use super::table;
use crate::dissect::http::content::{Decoded, decode};
use crate::dissect::{Cursor, Cx, Malformed, Message, text};
use crate::entry::{Text, Value};

/// A method whose content is on its way.
#[derive(Debug)]
pub(super) struct Content {
    message: Message,
    /// Bytes of the body still to come; not known before the header.
    left: Option<u64>,
    size: u64,
    properties: Vec<(Text, Value)>,
    /// The start of the body, for the detail.
    body: Vec<u8>,
}

impl Content {
    /// Of a method.
    pub(super) fn new(message: Message) -> Self {
        Self { message, left: None, size: 0, properties: Vec::new(), body: Vec::new() }
    }

    /// True if nothing more is to come.
    pub(super) fn is_whole(&self) -> bool {
        self.left == Some(0)
    }

    /// The header.
    pub(super) fn header(&mut self, header: &Header<'_>, len: usize, cx: &Cx<'_>) {
        self.message.bytes += len as u64;
        (self.left, self.size) = (Some(header.body_size), header.body_size);
        if cx.detail() {
            self.properties = header.detail(cx.secrets());
        }
    }

    /// How much of the next piece of the body has to be seen.
    pub(super) fn wanted(&self, size: usize, cx: &Cx<'_>) -> usize {
        size.min(cx.body_limit().saturating_sub(self.body.len()))
    }

    /// A piece of the body, of which the start is given.
    pub(super) fn piece(&mut self, seen: &[u8], size: usize, len: usize) -> Result<(), Malformed> {
        let left = self.left.and_then(|left| left.checked_sub(size as u64));
        self.left = Some(left.ok_or(Malformed("a body longer than its header says"))?);
        self.message.bytes += len as u64;
        self.body.extend_from_slice(seen);
        Ok(())
    }

    /// The finished message.
    pub(super) fn finish(mut self, cx: &Cx<'_>) -> Message {
        if self.left.is_none_or(|left| left > 0) {
            self.message.warnings.push(Text::Borrowed("the capture lacks its end"));
        }
        if let Value::Map(fields) = &mut self.message.detail
            && cx.detail()
            && self.left.is_some()
        {
            // Most say `utf-8` here, which is no coding.
            let coding = self.properties.iter().find(|(name, _)| name == "content_encoding");
            let decoded = match coding {
                Some((_, Value::Text(coding))) => decode(coding.as_bytes(), &self.body, cx.body_limit()),
                _ => None,
            };
            let body = match decoded {
                Some(Decoded { bytes, more }) => text::body(&bytes, bytes.len() as u64 + u64::from(more)),
                None => text::body(&self.body, self.size),
            };
            fields.push(("body_size".into(), self.size.into()));
            fields.push(("properties".into(), Value::Map(self.properties)));
            fields.push(("body".into(), body));
        }
        self.message
    }
}

/// A content header.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub body_size: u64,
    flags: u16,
    properties: Cursor<'a>,
}

/// The class that has content.
const BASIC: u16 = 60;
/// The flag that more flags follow.
const MORE: u16 = 1;

#[derive(Clone, Copy)]
enum Kind {
    ShortStr,
    Octet,
    LongLong,
    Table,
}

/// The properties of the basic class, from the highest flag down.
const PROPERTIES: [(&str, Kind); 14] = [
    ("content_type", Kind::ShortStr),
    ("content_encoding", Kind::ShortStr),
    ("headers", Kind::Table),
    ("delivery_mode", Kind::Octet),
    ("priority", Kind::Octet),
    ("correlation_id", Kind::ShortStr),
    ("reply_to", Kind::ShortStr),
    ("expiration", Kind::ShortStr),
    ("message_id", Kind::ShortStr),
    ("timestamp", Kind::LongLong),
    ("type", Kind::ShortStr),
    ("user_id", Kind::ShortStr),
    ("app_id", Kind::ShortStr),
    ("cluster_id", Kind::ShortStr),
];

impl<'a> Header<'a> {
    /// The header that this payload is.
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(payload);
        if cursor.u16()? != BASIC || cursor.u16()? != 0 {
            return Err(Malformed("a content header of no class that has content"));
        }
        let body_size = cursor.u64()?;
        let flags = cursor.u16()?;
        let mut more = flags;
        while more & MORE != 0 {
            more = cursor.u16()?;
        }
        Ok(Self { body_size, flags, properties: cursor })
    }

    /// True if the properties end where the header does.
    pub(super) fn is_exact(&self) -> bool {
        let mut cursor = self.properties;
        self.each(&mut cursor, |_, _| {}).is_ok() && cursor.is_empty()
    }

    fn each(&self, cursor: &mut Cursor<'a>, mut take: impl FnMut(&'static str, Property<'a>)) -> Result<(), Malformed> {
        for (at, (name, kind)) in PROPERTIES.into_iter().enumerate() {
            if self.flags >> (15 - at) & 1 == 1 {
                take(
                    name,
                    match kind {
                        Kind::ShortStr => Property::Bytes(table::short_string(cursor)?),
                        Kind::Octet => Property::Number(cursor.u8()?.into()),
                        Kind::LongLong => Property::Number(cursor.u64()?),
                        Kind::Table => Property::Table(table::long_string(cursor)?),
                    },
                );
            }
        }
        Ok(())
    }

    fn detail(&self, secrets: bool) -> Vec<(Text, Value)> {
        let mut fields = Vec::new();
        let mut cursor = self.properties;
        // What is read before a fault is shown.
        let _ = self.each(&mut cursor, |name, property| {
            let value = match property {
                Property::Bytes(bytes) => text::value(bytes),
                Property::Number(number) => number.into(),
                Property::Table(bytes) => table::value(bytes, secrets),
            };
            fields.push((Text::Borrowed(name), value));
        });
        fields
    }
}

enum Property<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    Table(&'a [u8]),
}
