//! Apache Cassandra's native protocol (CQL), versions 1 to 5, and what speaks like it (`ScyllaDB`, DSE, Amazon Keyspaces).
//!
//! Responses answer by stream id; an `EVENT` is a row of the server's own. What an `EXECUTE` executes is known if its `PREPARE`
//! was seen on the same connection. Up to version 4, bodies may be compressed with LZ4 or Snappy; from version 5 on, envelopes
//! come in segments, which are compressed as a whole, and a large envelope comes in parts.
//!
//! Not parsed: values that are bound to a statement, by their types; types of custom classes; the contents of tokens and of
//! paging states. The checksums of segments' payloads are not checked.
//!
//! [`frame`] reads envelopes' headers, [`segment`] those of segments, [`request`] and [`response`] the bodies, by the notations
//! of [`notation`] and the types of [`value`].

mod compression;
mod frame;
mod notation;
mod probe;
mod request;
mod response;
mod segment;
mod statement;
mod value;

use std::borrow::Cow;

use super::lz::lz4;
use super::{Cursor, Cx, Dissector, Malformed, Message, Progress, Protocol, Recover, Role, Short, Transport};
use crate::entry::{Direction, Text, Value};
use compression::Algorithm;
use frame::{COMPRESSED, CUSTOM_PAYLOAD, Header, Opcode, TRACING, USE_BETA, WARNING};
use notation::Bytes;
use segment::Segment;
use statement::Statements;

pub static PROTOCOL: Protocol = Protocol {
    name: "cassandra",
    title: "Cassandra",
    transport: Transport::Tcp,
    ports: &[9042, 9142, 19042],
    probe: probe::probe,
    new: || Box::new(Cassandra::default()),
    repeats: false,
    spec: "https://cassandra.apache.org/doc/latest/cassandra/reference/native-protocol.html",
};

/// The most bytes of a request's body that are looked at: a statement longer than that is cut.
const MAX_STATEMENT: usize = 256 << 10;
/// The bytes that hold the status of a response, the id of what was prepared, or of what is executed.
const STATUS: usize = 128;
/// The same, if warnings or a custom payload come first.
const PREFIXED: usize = 64 << 10;
/// Set in the id that pairs messages, so that it is never the 0 that means "in order".
const ID: u64 = 1 << 16;

/// One connection.
#[derive(Default)]
struct Cassandra {
    /// As `STARTUP` asks for it.
    compression: Option<Algorithm>,
    /// Envelopes come in segments; None as long as that is not known.
    framed: Option<bool>,
    /// Segments have the longer header, which tells two lengths.
    long_headers: bool,
    /// A large envelope that comes in parts, by direction.
    parts: [Option<Parts>; 2],
    /// Where a message starts is not known, by direction.
    lost: [bool; 2],
    statements: Statements,
}

/// An envelope that is larger than a segment.
struct Parts {
    /// Made when its first byte came.
    message: Message,
    header: Header,
    /// As much of its body as is looked at.
    body: Vec<u8>,
    wanted: usize,
    /// Bytes of its body that are still to come.
    left: usize,
}

impl Cassandra {
    /// An envelope that stands by itself.
    fn unframed(
        &mut self,
        header: &Header,
        direction: Direction,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        let wanted = wanted(header, cx);
        let body = bytes.get(header.size..).unwrap_or_default();
        if body.len() < wanted {
            return Ok(Progress::Need(wanted - body.len()));
        }
        if probe::body(header, body) == super::Verdict::No {
            return Err(Malformed("a body that its opcode does not have"));
        }
        let body = body.get(..wanted).unwrap_or_default();
        self.envelope(header, body, Message::new(Role::Request, direction, cx), cx);
        Ok(Progress::Consumed(header.total()))
    }

    /// A segment, with the envelopes that are in it.
    fn segment(
        &mut self,
        segment: Segment,
        direction: Direction,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        if bytes.len() < segment.total() {
            return Ok(Progress::Need(segment.total() - bytes.len()));
        }
        let payload = bytes.get(segment.header..segment.header + segment.payload).unwrap_or_default();
        let payload = if segment.uncompressed > 0 {
            let payload = lz4::unpack(payload, segment.uncompressed)
                .filter(|payload| payload.len() == segment.uncompressed)
                .ok_or(Malformed("a segment that cannot be decompressed"))?;
            Cow::Owned(payload)
        } else {
            Cow::Borrowed(payload)
        };
        if segment.self_contained {
            self.set_parts(direction, None, false);
            let mut rest = &*payload;
            while !rest.is_empty() {
                let header = Header::parse(rest, direction)?.ok_or(Malformed("a header that is cut off"))?;
                let body = rest.get(header.size..header.total()).ok_or(Malformed("an envelope that is cut off"))?;
                let body = body.get(..wanted(&header, cx)).unwrap_or(body);
                self.envelope(&header, body, Message::new(Role::Request, direction, cx), cx);
                rest = rest.get(header.total()..).unwrap_or_default();
            }
        } else {
            self.part(direction, &payload, cx)?;
        }
        Ok(Progress::Consumed(segment.total()))
    }

    /// A part of a large envelope.
    fn part(&mut self, direction: Direction, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let index = direction.index();
        let mut parts = match self.parts.get_mut(index).and_then(Option::take) {
            Some(mut parts) => {
                let room = parts.wanted.saturating_sub(parts.body.len());
                parts.body.extend_from_slice(payload.get(..room).unwrap_or(payload));
                parts.left = parts.left.saturating_sub(payload.len());
                parts
            }
            None => match Header::parse(payload, direction) {
                Ok(Some(header)) if header.total() > payload.len() => {
                    let wanted = wanted(&header, cx);
                    let body = payload.get(header.size..).unwrap_or_default();
                    Parts {
                        message: Message::new(Role::Request, direction, cx),
                        header,
                        body: body.get(..wanted).unwrap_or(body).to_vec(),
                        wanted,
                        left: header.total() - payload.len(),
                    }
                }
                // After lost bytes, it may be a later part.
                _ if self.lost.get(index) == Some(&true) || !cx.start() => return Ok(()),
                _ => return Err(Malformed("a part of an envelope that has no start")),
            },
        };
        if parts.left == 0 {
            let Parts { message, header, body, .. } = &mut parts;
            let message = std::mem::replace(message, Message::new(Role::Request, direction, cx));
            self.envelope(header, body, message, cx);
            self.set_parts(direction, None, false);
        } else {
            self.set_parts(direction, Some(parts), false);
        }
        Ok(())
    }

    fn set_parts(&mut self, direction: Direction, parts: Option<Parts>, lost: bool) {
        if let (Some(open), Some(is_lost)) =
            (self.parts.get_mut(direction.index()), self.lost.get_mut(direction.index()))
        {
            *open = parts;
            *is_lost = lost;
        }
    }

    /// Envelopes of which the last one's end is missing.
    fn cut_envelopes(&mut self, direction: Direction, mut rest: &[u8], cx: &mut Cx<'_>) {
        while let Ok(Some(header)) = Header::parse(rest, direction) {
            let body = rest.get(header.size..).unwrap_or_default();
            let mut message = Message::new(Role::Request, direction, cx);
            if body.len() < header.length {
                message.warnings.push(Text::Borrowed("the capture lacks its end"));
            }
            let seen = body.get(..wanted(&header, cx)).unwrap_or(body);
            if seen.is_empty() && header.length > 0 || probe::body(&header, body) == super::Verdict::No {
                return;
            }
            self.envelope(&header, seen, message, cx);
            rest = rest.get(header.total()..).unwrap_or_default();
        }
    }

    /// An envelope of which as much of the body is there as is looked at.
    fn envelope(&mut self, header: &Header, body: &[u8], mut message: Message, cx: &mut Cx<'_>) {
        message.bytes = header.total() as u64;
        message.id = ID | u64::from(header.stream.cast_unsigned());
        let plain = self.decompressed(header, body, looked_at(header, cx));
        if plain.is_none() {
            message.warnings.push(Text::Borrowed("its body could not be decompressed"));
        }
        let body = plain.as_deref().unwrap_or_default();
        let prefix = Prefix::parse(header, message.direction, body, cx.detail());
        let content = prefix.as_ref().map_or(&[][..], |prefix| prefix.content);
        match message.direction {
            Direction::ToServer => self.request(header, content, &mut message, cx),
            Direction::ToClient => self.response(header, content, &mut message),
        }
        if cx.detail() {
            message.detail = detail(header, message.direction, prefix.ok(), body.len() < header.length, cx);
        }
        if header.opcode == Opcode::Startup && message.direction == Direction::ToServer {
            self.compression = request::compression(content).and_then(Algorithm::named);
            self.long_headers = self.compression.is_some();
            self.framed.get_or_insert(false);
        }
        if matches!(header.opcode, Opcode::Ready | Opcode::Authenticate) && header.is_v5() {
            self.framed = Some(true);
        }
        cx.emit(message);
    }

    /// The body, or the first bytes of it, as they were before compression.
    fn decompressed<'a>(&self, header: &Header, body: &'a [u8], limit: usize) -> Option<Cow<'a, [u8]>> {
        if !header.has(COMPRESSED) || header.is_v5() || header.length == 0 {
            return Some(Cow::Borrowed(body));
        }
        let algorithm = self.compression.unwrap_or_else(|| Algorithm::guess(body));
        algorithm.decompress(body, limit).map(Cow::Owned)
    }

    fn request(&mut self, header: &Header, content: &[u8], message: &mut Message, cx: &Cx<'_>) {
        message.operation = Text::Borrowed(header.opcode.name());
        message.target = request::target(header, content, &self.statements, cx.secrets()).unwrap_or_default();
        if header.opcode == Opcode::Prepare {
            self.statements.ask(header.stream, &message.target);
        }
    }

    fn response(&mut self, header: &Header, content: &[u8], message: &mut Message) {
        if header.opcode == Opcode::Event {
            message.role = Role::OneWay;
            message.id = 0;
            message.operation = Text::Borrowed(header.opcode.name());
            return;
        }
        message.role = Role::Response;
        message.failed = header.opcode == Opcode::Error;
        message.status = match Cursor::new(content).i32() {
            Ok(code) if message.failed => Text::Owned(format!("0x{code:04X}")),
            _ if message.failed => Text::Borrowed("error"),
            _ => Text::Borrowed("ok"),
        };
        let id = if header.opcode == Opcode::Result { response::prepared_id(content) } else { None };
        self.statements.answer(header.stream, id);
    }
}

/// How many bytes of a body are looked at.
fn looked_at(header: &Header, cx: &Cx<'_>) -> usize {
    let most = match header.opcode {
        Opcode::Query | Opcode::Prepare | Opcode::Batch => MAX_STATEMENT,
        Opcode::Execute if cx.detail() => MAX_STATEMENT,
        _ if header.flags & (WARNING | CUSTOM_PAYLOAD) != 0 => PREFIXED,
        _ => STATUS,
    };
    most.max(cx.body_limit())
}

/// How many bytes of a body have to be there: compressed ones are no longer than what they stand for.
fn wanted(header: &Header, cx: &Cx<'_>) -> usize {
    header.length.min(looked_at(header, cx))
}

/// What flags put in front of a body.
struct Prefix<'a> {
    tracing_id: Option<[u8; 16]>,
    warnings: Option<Value>,
    custom_payload: Option<Value>,
    /// What follows.
    content: &'a [u8],
}

impl<'a> Prefix<'a> {
    fn parse(header: &Header, direction: Direction, body: &'a [u8], detail: bool) -> Result<Self, Short> {
        let mut cursor = Cursor::new(body);
        let mut prefix = Self { tracing_id: None, warnings: None, custom_payload: None, content: body };
        if direction == Direction::ToClient {
            if header.has(TRACING) {
                prefix.tracing_id = Some(cursor.array()?);
            }
            if header.has(WARNING) && detail {
                prefix.warnings = Some(notation::string_list(&mut cursor)?);
            } else if header.has(WARNING) {
                notation::skip_string_list(&mut cursor)?;
            }
        }
        if header.has(CUSTOM_PAYLOAD) && detail {
            let value = |_: &[u8], cursor: &mut Cursor<'a>| notation::bytes(cursor).map(Bytes::shown);
            prefix.custom_payload = Some(notation::map(&mut cursor, value)?);
        } else if header.has(CUSTOM_PAYLOAD) {
            notation::skip_bytes_map(&mut cursor)?;
        }
        prefix.content = cursor.rest();
        Ok(prefix)
    }
}

/// The decoded fields of an envelope.
fn detail(header: &Header, direction: Direction, prefix: Option<Prefix<'_>>, cut: bool, cx: &Cx<'_>) -> Value {
    let mut flags: Vec<Value> = Vec::new();
    for (flag, name) in [
        (COMPRESSED, "compression"),
        (TRACING, "tracing"),
        (CUSTOM_PAYLOAD, "custom_payload"),
        (WARNING, "warning"),
        (USE_BETA, "use_beta"),
    ] {
        if header.has(flag) {
            flags.push(name.into());
        }
    }
    let version = match header.version {
        dse if frame::is_dse(dse) => Value::Text(format!("DSE {}", dse & 0x3f).into()),
        version => version.into(),
    };
    let mut fields = vec![
        ("version".into(), version),
        ("flags".into(), flags.into()),
        ("stream".into(), header.stream.into()),
        ("opcode".into(), header.opcode.name().into()),
        ("length".into(), header.length.into()),
    ];
    let Some(prefix) = prefix else {
        fields.push(("truncated".into(), true.into()));
        return fields.into();
    };
    fields.extend(prefix.tracing_id.map(|id| ("tracing_id".into(), notation::uuid(id).into())));
    fields.extend(prefix.warnings.map(|warnings| ("warnings".into(), warnings)));
    fields.extend(prefix.custom_payload.map(|payload| ("custom_payload".into(), payload)));
    let read = match direction {
        Direction::ToServer => request::fields(header, prefix.content, cx.secrets(), &mut fields),
        Direction::ToClient => response::fields(header, prefix.content, cx.secrets(), &mut fields),
    };
    if read.is_err() || cut && !header.has(COMPRESSED) {
        fields.push(("truncated".into(), true.into()));
    }
    fields.into()
}

impl Dissector for Cassandra {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        // Both kinds of header are there with that many bytes, and nothing is shorter.
        if bytes.len() < Segment::MAX_HEADER {
            return Ok(Progress::Need(Segment::MAX_HEADER - bytes.len()));
        }
        if self.framed != Some(false) {
            let segment = [self.long_headers, !self.long_headers]
                .into_iter()
                .find_map(|long| Some((long, Segment::parse(bytes, long)?)));
            if let Some((long, segment)) = segment {
                (self.framed, self.long_headers) = (Some(true), long);
                return self.segment(segment, direction, bytes, cx);
            }
        }
        if self.framed == Some(true) {
            return Err(Malformed("not a segment"));
        }
        match Header::parse(bytes, direction)? {
            Some(header) => {
                if !header.is_v5() {
                    self.framed = Some(false);
                }
                self.unframed(&header, direction, bytes, cx)
            }
            None => Ok(Progress::Need(Header::MAX - bytes.len())),
        }
    }

    fn cut(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        let segment = Segment::parse(rest, self.long_headers).filter(|_| self.framed != Some(false));
        match segment {
            Some(segment) if segment.self_contained => {
                let payload = rest.get(segment.header..).unwrap_or_default();
                let payload = payload.get(..segment.payload).unwrap_or(payload);
                if segment.uncompressed == 0 {
                    self.cut_envelopes(direction, payload, cx);
                } else if let Some(payload) = lz4::unpack(payload, segment.uncompressed) {
                    self.cut_envelopes(direction, &payload, cx);
                }
            }
            Some(_) => {}
            None if self.framed == Some(true) => {}
            None => self.cut_envelopes(direction, rest, cx),
        }
    }

    fn close(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        self.cut(direction, rest, cx);
    }

    fn gap(&mut self, direction: Direction, _len: u64, _cx: &mut Cx<'_>) -> Recover {
        self.set_parts(direction, None, true);
        // What was agreed on may have been lost too.
        if self.framed == Some(false) {
            self.framed = None;
        }
        Recover::Resync
    }
}
