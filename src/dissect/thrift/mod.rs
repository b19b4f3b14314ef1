//! Apache Thrift RPC over TCP: framed and unframed transport, binary and compact protocol
//! (<https://github.com/apache/thrift/tree/master/doc/specs>).
//!
//! A reply carries the sequence number of its call. Many clients leave that at 0 and wait for each reply, so calls of one number
//! pair in order. A call names its method; with a multiplexed processor also its service, which is the row's target.
//!
//! Not parsed: the binary protocol without version (before 2008), JSON, `THeader`; Thrift in HTTP is HTTP. Names and types of
//! fields stand in the interface definition only: fields show by number, and bytes as text if they are.

mod value;

use super::{
    Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Role, Short, Transport, Verdict,
    text,
};
use crate::entry::{Direction, Text, Value};
use crate::fields;

use self::value::{Encoding, Stop, Walk};

pub static PROTOCOL: Protocol = Protocol {
    name: "thrift",
    title: "Thrift",
    transport: Transport::Tcp,
    ports: &[9090],
    probe,
    new: || Box::new(Thrift::default()),
    repeats: false,
    spec: "https://github.com/apache/thrift/blob/master/doc/specs/thrift-rpc.md",
};

/// The longest frame: a server's own limit is 16 MB.
const MAX_FRAME: usize = 64 << 20;
/// The longest message without a frame around it, all of which has to be read to find its end.
const MAX_UNFRAMED: usize = 1 << 20;
/// The longest name of a method.
const MAX_NAME: usize = 256;
/// The most of a frame that is looked at for a reply's result.
const RESULT: usize = 4096;
/// Bit in the ids that pair messages, so that they are never the 0 that means "in order".
const ID: u64 = 1 << 32;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Call,
    Reply,
    Exception,
    OneWay,
}

/// What comes before the arguments or the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head<'a> {
    encoding: Encoding,
    kind: Kind,
    name: &'a [u8],
    sequence: u32,
}

impl<'a> Head<'a> {
    /// `Ok(Err)` if these are no such bytes.
    fn read(cursor: &mut Cursor<'a>) -> Result<Result<Self, Malformed>, Short> {
        let encoding = match cursor.peek().ok_or(Short)? {
            0x80 => Encoding::Binary,
            0x82 => Encoding::Compact,
            _ => return Ok(Err(Malformed("neither the binary nor the compact protocol"))),
        };
        let (version, kind, sequence, name);
        match encoding {
            Encoding::Binary => {
                version = cursor.u16()? == 0x8001 && cursor.u8()? == 0;
                kind = cursor.u8()?;
                let length = cursor.u32()? as usize;
                if length > MAX_NAME {
                    return Ok(Err(Malformed("a name that is too long")));
                }
                name = cursor.take(length)?;
                sequence = cursor.u32()?;
            }
            Encoding::Compact => {
                cursor.skip(1)?;
                let byte = cursor.u8()?;
                version = byte & 0x1f == 1;
                kind = byte >> 5;
                sequence = value::varint(cursor)? as u32;
                let length = value::varint(cursor)?;
                if length > MAX_NAME as u64 {
                    return Ok(Err(Malformed("a name that is too long")));
                }
                name = cursor.take(length as usize)?;
            }
        }
        let kind = match kind {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Exception,
            4 => Kind::OneWay,
            _ => return Ok(Err(Malformed("a type of message that is not known"))),
        };
        if !version
            || name.is_empty()
            || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.:$-".contains(byte))
        {
            return Ok(Err(Malformed("another version, or a name that is none")));
        }
        Ok(Ok(Self { encoding, kind, name, sequence }))
    }

    /// Whether that side may send it.
    fn is_from(&self, direction: Direction) -> bool {
        matches!(self.kind, Kind::Call | Kind::OneWay) == (direction == Direction::ToServer)
    }
}

/// The length before a framed message; none if there is no frame around it.
fn frame(cursor: &mut Cursor<'_>) -> Result<Option<usize>, Malformed> {
    if matches!(cursor.peek(), Some(0x80 | 0x82)) {
        return Ok(None);
    }
    let length = cursor.u32()? as usize;
    if (4..=MAX_FRAME).contains(&length) { Ok(Some(length)) } else { Err(Malformed("a frame of an impossible length")) }
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let mut cursor = Cursor::new(probe.data);
    if probe.data.len() < 5 {
        // The length of a frame below 16 MiB, and the version behind it.
        let fits = matches!(probe.data, [] | [0 | 0x80 | 0x82, ..]);
        return if fits { Verdict::More } else { Verdict::No };
    }
    let Ok(framed) = frame(&mut cursor) else { return Verdict::No };
    let start = cursor.position();
    match Head::read(&mut cursor) {
        Err(Short) => {
            // The versions tell before the name is whole.
            let version = probe.data.get(start..).unwrap_or_default();
            if version.starts_with(&[0x80, 1]) || version.starts_with(&[0x82]) { Verdict::More } else { Verdict::No }
        }
        Ok(Ok(head)) if head.is_from(probe.direction) => {
            let length = cursor.position() - start;
            match framed {
                Some(frame) if length >= frame => Verdict::No,
                // Its arguments begin as fields do.
                _ => match value::first_field(head.encoding, cursor.rest()) {
                    Ok(_) if head.encoding == Encoding::Binary || framed.is_some() => Verdict::Yes,
                    Ok(_) => Verdict::Maybe,
                    Err(Stop::Wrong(_)) => Verdict::No,
                    Err(Stop::Short(_)) => Verdict::More,
                },
            }
        }
        Ok(_) => Verdict::No,
    }
}

/// One connection.
#[derive(Default)]
struct Thrift {
    /// How far the message without a frame at hand was read, each way.
    walks: [Walk; 2],
}

impl Dissector for Thrift {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        if bytes.len() < 4 {
            return Ok(Progress::Need(4 - bytes.len()));
        }
        let framed = frame(&mut cursor)?;
        let start = cursor.position();
        let Ok(head) = Head::read(&mut cursor) else { return Ok(Progress::Need(1)) };
        let head = head?;
        if !head.is_from(direction) {
            return Err(Malformed("a message of the wrong side"));
        }
        let arguments = cursor.position();
        let end = match framed {
            Some(length) if arguments - start > length => return Err(Malformed("a name longer than its frame")),
            Some(length) => start + length,
            None => {
                let walk = direction.of(self.walks.each_mut());
                match walk.on(head.encoding, bytes.get(arguments..).unwrap_or_default()) {
                    Ok(length) => arguments + length,
                    Err(Stop::Wrong(wrong)) => return Err(wrong),
                    Err(Stop::Short(missing)) if bytes.len().saturating_add(missing) > MAX_UNFRAMED => {
                        return Err(Malformed("a message without end"));
                    }
                    Err(Stop::Short(missing)) => return Ok(Progress::Need(missing)),
                }
            }
        };
        let wanted = end.min(arguments + cx.body_limit().max(if head.kind == Kind::Call { 0 } else { RESULT }));
        if bytes.len() < wanted {
            return Ok(Progress::Need(wanted - bytes.len()));
        }
        *direction.of(self.walks.each_mut()) = Walk::default();
        let body = bytes.get(arguments..wanted).unwrap_or_default();
        let mut message = message(&head, body, direction, cx);
        message.bytes = end as u64;
        if cx.detail() {
            message.detail = detail(&head, body, wanted < end);
        }
        cx.emit(message);
        Ok(Progress::Consumed(end))
    }

    fn gap(&mut self, direction: Direction, _len: u64, _cx: &mut Cx<'_>) -> Recover {
        *direction.of(self.walks.each_mut()) = Walk::default();
        Recover::Resync
    }
}

fn message(head: &Head<'_>, body: &[u8], direction: Direction, cx: &Cx<'_>) -> Message {
    let role = match head.kind {
        Kind::Call => Role::Request,
        Kind::OneWay => Role::OneWay,
        Kind::Reply | Kind::Exception => Role::Response,
    };
    let mut message = Message::new(role, direction, cx);
    message.id = ID | u64::from(head.sequence);
    let colon = memchr::memchr(b':', head.name);
    let (service, method) = colon.map_or((&[][..], head.name), |at| {
        (head.name.get(..at).unwrap_or_default(), head.name.get(at + 1..).unwrap_or_default())
    });
    message.operation = Text::Owned(text::string(method));
    message.target = text::string(service);
    match head.kind {
        Kind::Call | Kind::OneWay => {}
        // Field 0 is what the method returns, the others are the exceptions that it declares. A void one returns no field.
        Kind::Reply => {
            message.failed = matches!(value::first_field(head.encoding, body), Ok(Some(1..)));
            message.status = Text::Borrowed(if message.failed { "exception" } else { "ok" });
        }
        Kind::Exception => {
            message.status = Text::Borrowed(exception(head.encoding, body));
            message.failed = true;
        }
    }
    message
}

/// The name of what a `TApplicationException` tells: its field 2.
fn exception(encoding: Encoding, body: &[u8]) -> &'static str {
    match value::tree(encoding, body).0.get("2") {
        Some(Value::Int(1)) => "UNKNOWN_METHOD",
        Some(Value::Int(2)) => "INVALID_MESSAGE_TYPE",
        Some(Value::Int(3)) => "WRONG_METHOD_NAME",
        Some(Value::Int(4)) => "BAD_SEQUENCE_ID",
        Some(Value::Int(5)) => "MISSING_RESULT",
        Some(Value::Int(6)) => "INTERNAL_ERROR",
        Some(Value::Int(7)) => "PROTOCOL_ERROR",
        Some(Value::Int(8)) => "INVALID_TRANSFORM",
        Some(Value::Int(9)) => "INVALID_PROTOCOL",
        Some(Value::Int(10)) => "UNSUPPORTED_CLIENT_TYPE",
        _ => "UNKNOWN",
    }
}

fn detail(head: &Head<'_>, body: &[u8], cut: bool) -> Value {
    let (value, whole) = value::tree(head.encoding, body);
    let mut detail = fields! {
        "protocol" => head.encoding.name(),
        "name" => text::value(head.name),
        "sequence" => head.sequence,
    };
    if let Value::Map(fields) = &mut detail {
        let name = if matches!(head.kind, Kind::Call | Kind::OneWay) { "arguments" } else { "result" };
        fields.push((name.into(), value));
        if cut || !whole {
            fields.push(("truncated".into(), true.into()));
        }
    }
    detail
}
