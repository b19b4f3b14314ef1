//! The binary protocol: packets with a header of 24 bytes.

use super::{Mark, Memcached};
use crate::dissect::{Cursor, Cx, Malformed, Message, Progress, Role, Short, Verdict, text};
use crate::entry::{Direction, Text, Value};
use crate::fields;

/// First byte of a command.
pub(super) const REQUEST: u8 = 0x80;
/// First byte of an answer.
pub(super) const RESPONSE: u8 = 0x81;

const HEADER: usize = 24;
/// The longest key.
const MAX_KEY: usize = 250;
/// The largest body: a value of the largest item size that a server can be told to take, and its key.
const MAX_BODY: u32 = (1 << 30) + 4096;

const STAT: u8 = 0x10;
const QUITQ: u8 = 0x17;
const SASL_AUTH: u8 = 0x21;
const SASL_STEP: u8 = 0x22;

/// Opcodes: name, whether it is quiet, and the lengths that a command's extras can have.
fn opcode(code: u8) -> Option<(&'static str, bool, &'static [u8])> {
    Some(match code {
        0x00 => ("get", false, &[0]),
        0x01 => ("set", false, &[8]),
        0x02 => ("add", false, &[8]),
        0x03 => ("replace", false, &[8]),
        0x04 => ("delete", false, &[0]),
        0x05 => ("incr", false, &[20]),
        0x06 => ("decr", false, &[20]),
        0x07 => ("quit", false, &[0]),
        0x08 => ("flush_all", false, &[0, 4]),
        0x09 => ("getq", true, &[0]),
        0x0a => ("noop", false, &[0]),
        0x0b => ("version", false, &[0]),
        0x0c => ("getk", false, &[0]),
        0x0d => ("getkq", true, &[0]),
        0x0e => ("append", false, &[0]),
        0x0f => ("prepend", false, &[0]),
        STAT => ("stats", false, &[0]),
        0x11 => ("setq", true, &[8]),
        0x12 => ("addq", true, &[8]),
        0x13 => ("replaceq", true, &[8]),
        0x14 => ("deleteq", true, &[0]),
        0x15 => ("incrq", true, &[20]),
        0x16 => ("decrq", true, &[20]),
        QUITQ => ("quitq", true, &[0]),
        0x18 => ("flushq", true, &[0, 4]),
        0x19 => ("appendq", true, &[0]),
        0x1a => ("prependq", true, &[0]),
        0x1b => ("verbosity", false, &[4]),
        0x1c => ("touch", false, &[4]),
        0x1d => ("gat", false, &[4]),
        0x1e => ("gatq", true, &[4]),
        0x20 => ("sasl_list_mechs", false, &[0]),
        SASL_AUTH => ("sasl_auth", false, &[0]),
        SASL_STEP => ("sasl_step", false, &[0]),
        0x23 => ("gatk", false, &[4]),
        0x24 => ("gatkq", true, &[4]),
        _ => return None,
    })
}

/// A packet's header.
struct Header {
    opcode: u8,
    key: usize,
    extras: usize,
    data_type: u8,
    /// A command's vbucket, an answer's status.
    status: u16,
    body: u32,
    opaque: u32,
    cas: u64,
}

impl Header {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Short> {
        cursor.skip(1)?;
        Ok(Self {
            opcode: cursor.u8()?,
            key: cursor.u16()?.into(),
            extras: cursor.u8()?.into(),
            data_type: cursor.u8()?,
            status: cursor.u16()?,
            body: cursor.u32()?,
            opaque: cursor.u32()?,
            cas: cursor.u64()?,
        })
    }

    fn is_consistent(&self) -> bool {
        self.key <= MAX_KEY && self.key + self.extras <= self.body as usize && self.body <= MAX_BODY
    }
}

pub(super) fn probe(data: &[u8], direction: Direction, hinted: bool) -> Verdict {
    let request = data.first() == Some(&REQUEST);
    if request != (direction == Direction::ToServer) {
        return Verdict::No;
    }
    let Ok(header) = Header::parse(&mut Cursor::new(data)) else { return Verdict::More };
    if !header.is_consistent() || header.data_type > 7 {
        return Verdict::No;
    }
    match opcode(header.opcode) {
        Some((.., extras)) if request && header.status == 0 && header.data_type == 0 => {
            if extras.iter().any(|len| usize::from(*len) == header.extras) { Verdict::Yes } else { Verdict::No }
        }
        Some(_) if !request && header.data_type == 0 && header.status <= 0x90 => Verdict::Yes,
        _ if hinted => Verdict::Maybe,
        _ => Verdict::No,
    }
}

impl Memcached {
    /// A packet of either side.
    pub(super) fn packet(
        &mut self,
        direction: Direction,
        id: u64,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let Ok(header) = Header::parse(&mut cursor) else { return Ok(Progress::Need(HEADER - bytes.len())) };
        if (bytes.first() == Some(&REQUEST)) != (direction == Direction::ToServer) {
            return Err(Malformed("a packet that goes the wrong way"));
        }
        if !header.is_consistent() {
            return Err(Malformed("a packet whose parts are larger than it is"));
        }
        // What has to be seen: the extras, the key and, for the detail, some of the value.
        let body = header.body as usize;
        let seen = body.min(header.extras + header.key + cx.body_limit());
        let missing = seen.saturating_sub(cursor.remaining());
        if missing > 0 {
            return Ok(Progress::Need(missing));
        }
        let extras = cursor.take(header.extras)?;
        let key = cursor.take(header.key)?;
        let value = cursor.take(seen - header.extras - header.key)?;

        let mut message = Message::new(Role::Request, direction, cx);
        message.id = id;
        message.bytes = (HEADER + body) as u64;
        if cx.detail() {
            message.detail = detail(&header, direction, extras, key, value, cx.secrets());
        }
        let (name, quiet) = match opcode(header.opcode) {
            Some((name, quiet, _)) => (Text::Borrowed(name), quiet),
            None => (Text::Owned(format!("0x{:02x}", header.opcode)), false),
        };
        match direction {
            Direction::ToServer => {
                message.operation = name;
                message.target = text::string(key);
                let mark = (header.opcode != QUITQ).then_some(Mark::Binary(header.opcode, header.opaque));
                self.asked(message, mark, quiet, cx);
            }
            Direction::ToClient => {
                message.role = Role::Response;
                message.status = match header.status {
                    0 => Text::Borrowed("ok"),
                    status => Text::Owned(status.to_string()),
                };
                // A miss, an item that exists and one that was not stored are answers, not failures.
                message.failed = !matches!(header.status, 0 | 1 | 2 | 5);
                self.packet_answered(message, &header, cx);
            }
        }
        Ok(Progress::Consumed(HEADER + body))
    }

    /// An answer; that to `stats` is a packet for each value, up to one without a key.
    fn packet_answered(&mut self, message: Message, header: &Header, cx: &mut Cx<'_>) {
        let part = header.opcode == STAT && header.key > 0 && header.status == 0;
        let message = match self.answer.take() {
            Some(mut first) => {
                first.bytes += message.bytes;
                first
            }
            None => message,
        };
        if part {
            self.answer = Some(message);
            return;
        }
        let mark = Mark::Binary(header.opcode, header.opaque);
        self.answered(message, |open| *open == mark, cx);
    }
}

fn detail(header: &Header, direction: Direction, extras: &[u8], key: &[u8], value: &[u8], secrets: bool) -> Value {
    let mut fields = vec![
        ("opcode".into(), header.opcode.into()),
        ("opaque".into(), header.opaque.into()),
        ("cas".into(), header.cas.into()),
    ];
    if direction == Direction::ToClient {
        fields.push(("status".into(), header.status.into()));
    }
    if !key.is_empty() {
        fields.push(("key".into(), text::value(key)));
    }
    fields.extend(parse_extras(header.opcode, direction, extras).unwrap_or_default());
    let size = header.body as usize - header.extras - header.key;
    if size > 0 {
        let hidden = matches!(header.opcode, SASL_AUTH | SASL_STEP) && !secrets;
        fields.push(("value".into(), if hidden { text::HIDDEN.into() } else { text::body(value, size as u64) }));
    }
    Value::Map(fields)
}

/// The fields before the key.
fn parse_extras(opcode: u8, direction: Direction, extras: &[u8]) -> Result<Vec<(Text, Value)>, Short> {
    let mut cursor = Cursor::new(extras);
    let fields = match (direction, opcode, extras.len()) {
        (Direction::ToServer, 0x01..=0x03 | 0x11..=0x13, 8) => {
            fields! { "flags" => cursor.u32()?, "expiration" => cursor.u32()? }
        }
        (Direction::ToServer, 0x05 | 0x06 | 0x15 | 0x16, 20) => {
            fields! { "delta" => cursor.u64()?, "initial" => cursor.u64()?, "expiration" => cursor.u32()? }
        }
        (Direction::ToServer, 0x1b, 4) => fields! { "verbosity" => cursor.u32()? },
        (Direction::ToServer, _, 4) => fields! { "expiration" => cursor.u32()? },
        (Direction::ToClient, _, 4) => fields! { "flags" => cursor.u32()? },
        _ => return Ok(Vec::new()),
    };
    Ok(if let Value::Map(fields) = fields { fields } else { Vec::new() })
}
