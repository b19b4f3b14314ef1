//! LDAP v2 and v3 (RFC 4511) over TCP, and connectionless LDAP (RFC 1798, and as Active Directory's clients find it) over UDP.
//!
//! Responses answer by message id. The entries and references that a search finds belong to its one response, which is there
//! with the first of them and whole with `searchResDone`; intermediate responses likewise. `unbind` and `abandon` are not
//! answered. After a successful StartTLS the connection is looked at anew.
//!
//! Not parsed: what a SASL security layer encrypts, which is passed over buffer by buffer (if it is only signed, and a message
//! lies within a buffer, it is read); values by the syntax of their attributes; the values of most controls and extended
//! operations.
//!
//! [`ber`] reads the encoding, [`operation`] the head of a message, [`detail`] and [`filter`] all the rest.

mod ber;
mod detail;
mod filter;
mod oid;
mod operation;
mod sasl;

use std::collections::BTreeMap;

use super::{Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Role, Switch, Transport};
use super::{Verdict, text};
use crate::entry::{Direction, Text, Value};
use ber::Fault;
use operation::{Head, Operation};

pub static PROTOCOL: Protocol = Protocol {
    name: "ldap",
    title: "LDAP",
    transport: Transport::Both,
    ports: &[389, 3268],
    probe,
    new: || Box::new(Ldap::default()),
    repeats: true,
    spec: "https://www.rfc-editor.org/rfc/rfc4511",
};

/// The most bytes of a name that a row shows.
const MAX_TARGET: usize = 64 << 10;
/// The bytes of a response that hold its result code.
const RESULT: usize = 8;
/// The most unfinished searches of which results were seen.
const MAX_SEARCHES: usize = 1024;
/// The largest signed buffer that is looked into.
const MAX_SIGNED: usize = 1 << 20;
/// Set in the id that pairs messages, so that it is never the 0 that means "in order".
const ID: u64 = 1 << 32;

const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
const PASSWORD_MODIFY: &[u8] = b"1.3.6.1.4.1.4203.1.11.1";

fn probe(probe: &Probe<'_>) -> Verdict {
    if probe.transport == Transport::Tcp
        && !probe.start
        && let Some((front, _)) = sasl::signed(probe.data)
    {
        return operation::plausible(probe.data.get(front..).unwrap_or_default(), probe.direction);
    }
    match operation::plausible(probe.data, probe.direction) {
        Verdict::More if probe.transport == Transport::Udp => Verdict::No,
        verdict => verdict,
    }
}

/// One connection, or the datagrams between two ports.
#[derive(Default)]
struct Ldap {
    /// Responses of several messages, whose last is still to come, by message id.
    open: BTreeMap<u32, Found>,
    /// The StartTLS request that waits for its response.
    start_tls: Option<u32>,
    /// The request whose response tells a new password.
    password_modify: Option<u32>,
    /// The bind that may bring a security layer.
    sasl_bind: Option<u32>,
    /// What follows may be wrapped by a security layer.
    layer: bool,
}

/// What was found so far.
struct Found {
    /// The response, made when its first message came.
    message: Message,
    entries: Vec<Value>,
    references: Vec<Value>,
    intermediates: Vec<Value>,
    /// How many entries and references there were, shown or not.
    entry_count: u64,
    reference_count: u64,
    /// So many bytes of messages may still be shown.
    room: usize,
}

impl Ldap {
    /// One message of either side.
    fn message(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        self.begun(direction, bytes, false, cx)
    }

    /// One message; if `cut`, the rest of it is not going to come.
    fn begun(&mut self, direction: Direction, bytes: &[u8], cut: bool, cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let head = match Head::parse(bytes) {
            Ok(head) => head,
            Err(Fault::Short) => return Ok(Progress::Need(1)),
            Err(fault) => return Err(fault.into()),
        };
        if head.operation.direction() != direction {
            return Err(Malformed("a message that goes the wrong way"));
        }
        let wanted = match head.operation {
            _ if cx.detail() => MAX_TARGET.max(cx.body_limit()),
            Operation::SearchResultEntry | Operation::SearchResultReference | Operation::IntermediateResponse => 0,
            _ if direction == Direction::ToServer || head.message_id == 0 => MAX_TARGET,
            _ => RESULT,
        };
        let seen = head.total.min(head.start + wanted);
        if bytes.len() < seen && !cut {
            return Ok(Progress::Need(seen - bytes.len()));
        }
        let seen = seen.min(bytes.len());
        let end = head.start + head.length;
        let content = bytes.get(head.start..end.min(seen)).unwrap_or_default();
        let controls = bytes.get(end..seen).unwrap_or_default();

        let mut message = Message::new(Role::Request, direction, cx);
        message.id = ID | u64::from(head.message_id);
        message.bytes = head.total as u64;
        message.operation = Text::Borrowed(head.operation.name());
        if bytes.len() < head.total && cut {
            message.warnings.push(Text::Borrowed("the capture lacks its end"));
        }
        if cx.detail() {
            let hides = self.password_modify == Some(head.message_id) || self.sasl_bind == Some(head.message_id);
            message.detail = fields_of(&head, content, controls, hides, cx);
        }
        match direction {
            Direction::ToServer => self.request(message, &head, content, cx),
            Direction::ToClient => return self.response(message, &head, content, cx),
        }
        Ok(Progress::Consumed(head.total))
    }

    fn request(&mut self, mut message: Message, head: &Head, content: &[u8], cx: &mut Cx<'_>) {
        let mut cursor = Cursor::new(content);
        if head.operation == Operation::BindRequest {
            let _ = ber::element(&mut cursor);
        }
        let subject = match head.operation {
            Operation::DelRequest => content,
            Operation::UnbindRequest | Operation::AbandonRequest => &[],
            _ => first(&mut cursor),
        };
        message.target = text::string(subject);
        if let Some(found) = self.open.remove(&head.message_id) {
            // The id is used again, so the end of what it stood for was lost.
            cx.emit(found.abandon(cx.detail()));
        }
        match head.operation {
            Operation::UnbindRequest | Operation::AbandonRequest => {
                message.role = Role::OneWay;
                message.id = 0;
            }
            Operation::ExtendedRequest if subject == START_TLS => self.start_tls = Some(head.message_id),
            Operation::ExtendedRequest if subject == PASSWORD_MODIFY => self.password_modify = Some(head.message_id),
            Operation::BindRequest => {
                let wraps = match ber::element(&mut cursor) {
                    Ok((0xa3, sasl)) => sasl::may_wrap(first(&mut Cursor::new(sasl))),
                    Ok((tag, _)) => matches!(tag, 0x8a | 0x8b),
                    Err(_) => false,
                };
                self.sasl_bind = wraps.then_some(head.message_id);
            }
            _ => {}
        }
        cx.emit(message);
    }

    fn response(
        &mut self,
        mut message: Message,
        head: &Head,
        content: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        message.role = Role::Response;
        if matches!(
            head.operation,
            Operation::SearchResultEntry | Operation::SearchResultReference | Operation::IntermediateResponse
        ) {
            self.part(message, head, cx);
            return Ok(Progress::Consumed(head.total));
        }
        let code = ber::number(ber::expect(&mut Cursor::new(content), ber::ENUMERATED)?)?;
        message.status = oid::status(code);
        message.failed = oid::is_failure(code);
        if head.message_id == 0 {
            // Nobody asked: the server says that it is going to close the connection.
            message.role = Role::OneWay;
            message.id = 0;
            message.target = notice(content);
            cx.emit(message);
            return Ok(Progress::Consumed(head.total));
        }
        if let Some(found) = self.open.remove(&head.message_id) {
            message = found.finish(message);
        }
        cx.emit(message);
        match head.operation {
            Operation::BindResponse if code == 0 => {
                let asked = self.sasl_bind.take();
                self.layer |= asked.map_or(!cx.start(), |id| id == head.message_id);
            }
            Operation::ExtendedResponse if self.start_tls == Some(head.message_id) => {
                self.start_tls = None;
                if code == 0 {
                    return Ok(Progress::Switch(head.total, Switch::Detect));
                }
            }
            _ => {}
        }
        Ok(Progress::Consumed(head.total))
    }

    /// A message of a response that goes on.
    fn part(&mut self, mut message: Message, head: &Head, cx: &Cx<'_>) {
        let detail = std::mem::take(&mut message.detail);
        if !self.open.contains_key(&head.message_id) && self.open.len() >= MAX_SEARCHES {
            return;
        }
        let room = cx.body_limit();
        let bytes = message.bytes;
        let found = self.open.entry(head.message_id).or_insert_with(|| Found {
            message: Message { bytes: 0, ..message },
            entries: Vec::new(),
            references: Vec::new(),
            intermediates: Vec::new(),
            entry_count: 0,
            reference_count: 0,
            room,
        });
        found.message.bytes += bytes;
        let list = match head.operation {
            Operation::SearchResultEntry => {
                found.entry_count += 1;
                &mut found.entries
            }
            Operation::SearchResultReference => {
                found.reference_count += 1;
                &mut found.references
            }
            _ => &mut found.intermediates,
        };
        if !detail.is_null() && (found.room >= head.total || list.is_empty()) {
            found.room = found.room.saturating_sub(head.total);
            list.push(detail);
        }
    }

    /// A buffer of a security layer.
    fn wrapped(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        const PREFIX: usize = sasl::PREFIX;
        if bytes.len() < PREFIX {
            return Ok(Progress::Need(PREFIX - bytes.len()));
        }
        let length = sasl::length(bytes).ok_or(Malformed("neither a message nor a wrapped buffer"))?;
        let total = PREFIX + length;
        let peek = PREFIX + length.min(sasl::PEEK);
        if bytes.len() < peek {
            return Ok(Progress::Need(peek - bytes.len()));
        }
        let buffer = bytes.get(PREFIX..total.min(bytes.len())).unwrap_or_default();
        let Some((front, behind)) = sasl::readable(buffer).filter(|_| length <= MAX_SIGNED) else {
            return Ok(Progress::Consumed(total));
        };
        if bytes.len() < total {
            return Ok(Progress::Need(total - bytes.len()));
        }
        let mut rest = buffer.get(front..length.saturating_sub(behind)).unwrap_or_default();
        // What is no whole message here may go on in the next buffer; it is left out.
        while !rest.is_empty() {
            match self.message(direction, rest, cx) {
                Ok(Progress::Consumed(n)) if n <= rest.len() => rest = rest.get(n..).unwrap_or_default(),
                _ => break,
            }
        }
        Ok(Progress::Consumed(total))
    }
}

impl Found {
    /// The response, now that its last message is there.
    fn finish(mut self, last: Message) -> Message {
        let mut detail = last.detail;
        if let Value::Map(fields) = &mut detail {
            fields.extend(self.fields());
        }
        let bytes = self.message.bytes + last.bytes;
        let Message { operation, status, failed, .. } = last;
        Message { operation, status, failed, bytes, detail, ..self.message }
    }

    /// The response, if its last message never came.
    fn abandon(mut self, detail: bool) -> Message {
        if detail {
            self.message.detail = Value::Map(self.fields());
        }
        self.message.warnings.push(Text::Borrowed("the capture lacks its end"));
        self.message
    }

    /// What was found, taken out.
    fn fields(&mut self) -> Vec<(Text, Value)> {
        let mut fields = Vec::new();
        for (count, counted, name, list) in [
            (self.entry_count, "entry_count", "entries", &mut self.entries),
            (self.reference_count, "reference_count", "references", &mut self.references),
        ] {
            if count > 0 {
                fields.push((counted.into(), count.into()));
                fields.push((name.into(), std::mem::take(list).into()));
            }
        }
        if !self.intermediates.is_empty() {
            fields.push(("intermediate_responses".into(), std::mem::take(&mut self.intermediates).into()));
        }
        fields
    }
}

impl Dissector for Ldap {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if cx.transport() == Transport::Udp {
            let mut rest = bytes;
            while !rest.is_empty() {
                match self.message(direction, rest, cx)? {
                    Progress::Consumed(n) => rest = rest.get(n..).unwrap_or_default(),
                    // Cut off by the capture.
                    _ => break,
                }
            }
            return Ok(Progress::Consumed(bytes.len()));
        }
        match bytes {
            [ber::SEQUENCE, ..] => self.message(direction, bytes, cx),
            // The answer to StartTLS was lost, but TLS follows.
            [0x16, 3, ..] if self.start_tls.is_some() => Ok(Progress::Switch(0, Switch::Detect)),
            [0x16] if self.start_tls.is_some() => Ok(Progress::Need(1)),
            _ if self.layer || self.sasl_bind.is_some() => self.wrapped(direction, bytes, cx),
            // The bind was before the capture.
            _ if !cx.start() && sasl::signed(bytes).is_some() => {
                self.layer = true;
                self.wrapped(direction, bytes, cx)
            }
            _ => Err(Malformed("not an LDAP message")),
        }
    }

    fn cut(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        if rest.first() == Some(&ber::SEQUENCE) {
            let _ = self.begun(direction, rest, true, cx);
        }
    }

    fn gap(&mut self, _direction: Direction, _len: u64, _cx: &mut Cx<'_>) -> Recover {
        // Requests without a response stay open, and so do searches: the rest of what they find is still to come.
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        self.cut(direction, rest, cx);
        if direction == Direction::ToClient {
            for (_, found) in std::mem::take(&mut self.open) {
                cx.emit(found.abandon(cx.detail()));
            }
        }
    }
}

/// The first string of an operation, as far as it is there.
fn first<'a>(cursor: &mut Cursor<'a>) -> &'a [u8] {
    match ber::header(cursor) {
        Ok((_, length)) => cursor.take(length.min(cursor.remaining())).unwrap_or_default(),
        Err(_) => &[],
    }
}

/// What an unsolicited notification is called.
fn notice(content: &[u8]) -> String {
    let mut cursor = Cursor::new(content);
    while let Ok((tag, value)) = ber::element(&mut cursor) {
        if tag == 0x8a {
            return text::string(value);
        }
    }
    String::new()
}

/// The decoded fields of a message.
fn fields_of(head: &Head, content: &[u8], controls: &[u8], hides: bool, cx: &Cx<'_>) -> Value {
    let (operation, whole) = detail::operation(head.operation, content, hides, cx);
    let mut fields = vec![("message_id".into(), head.message_id.into())];
    fields.extend(operation);
    if !controls.is_empty()
        && let Ok(controls) = detail::controls(controls)
    {
        fields.push(("controls".into(), controls));
    }
    if !whole {
        fields.push(("truncated".into(), true.into()));
    }
    Value::Map(fields)
}
