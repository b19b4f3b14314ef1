//! NATS client protocol (<https://docs.nats.io/reference/reference-protocols/nats-protocol>), `JetStream` included, which is
//! messages like others.
//!
//! A `PING` of either side is answered by `PONG`. In verbose mode, `+OK` or `-ERR` answers each other command of the client's in
//! order; else they are one-way rows, and an error is one of the server's own, unless it comes to refuse the `CONNECT`.
//! Payloads are skipped. After `INFO` the client may start TLS, which is detected anew.
//!
//! Not parsed: what servers say to each other over routes, gateways and leaf nodes; NATS in WebSocket.

use std::collections::HashMap;

use super::{
    Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Role, Switch, Transport, Verdict,
    text,
};
use crate::entry::{Direction, Text, Value};
use crate::fields;

pub static PROTOCOL: Protocol = Protocol {
    name: "nats",
    title: "NATS",
    transport: Transport::Tcp,
    ports: &[4222],
    probe,
    new: || Box::new(Nats::default()),
    repeats: false,
    spec: "https://docs.nats.io/reference/reference-protocols/nats-protocol",
};

/// The longest line: `INFO` and `CONNECT` carry JSON.
const MAX_LINE: usize = 64 << 10;
/// The largest payload: a server's own limit is at most 64 MiB.
const MAX_PAYLOAD: usize = 64 << 20;
/// The most subscriptions whose subjects are remembered for their `UNSUB`.
const MAX_SUBSCRIPTIONS: usize = 4096;
/// Set in the ids of pings, which are answered apart from the other commands.
const PING_ID: u64 = 1 << 32;
/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// Fields of `CONNECT` that are secrets.
const SECRETS: &[&str] = &["pass", "auth_token", "jwt", "sig"];

/// What a line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Info,
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Msg,
    Hmsg,
    Ping,
    Pong,
    Ok,
    Err,
    /// Of another server.
    Route,
}

impl Verb {
    /// The verb of a line, who may say it, its row's operation.
    const ALL: &[(&str, Self, Option<Direction>)] = &[
        ("PUB", Self::Pub, Some(Direction::ToServer)),
        ("MSG", Self::Msg, Some(Direction::ToClient)),
        ("HPUB", Self::Hpub, Some(Direction::ToServer)),
        ("HMSG", Self::Hmsg, Some(Direction::ToClient)),
        ("+OK", Self::Ok, Some(Direction::ToClient)),
        ("PING", Self::Ping, None),
        ("PONG", Self::Pong, None),
        ("SUB", Self::Sub, Some(Direction::ToServer)),
        ("UNSUB", Self::Unsub, Some(Direction::ToServer)),
        ("INFO", Self::Info, Some(Direction::ToClient)),
        ("CONNECT", Self::Connect, Some(Direction::ToServer)),
        ("-ERR", Self::Err, Some(Direction::ToClient)),
        ("RS+", Self::Route, None),
        ("RS-", Self::Route, None),
        ("LS+", Self::Route, None),
        ("LS-", Self::Route, None),
        ("A+", Self::Route, None),
        ("A-", Self::Route, None),
        ("RMSG", Self::Route, None),
        ("LMSG", Self::Route, None),
    ];

    /// The verb of that name in any case, if that side may say it.
    fn find(word: &[u8], direction: Direction) -> Option<(&'static str, Self)> {
        Self::ALL
            .iter()
            .find(|(name, _, who)| name.as_bytes().eq_ignore_ascii_case(word) && who.is_none_or(|who| who == direction))
            .map(|(name, verb, _)| (*name, *verb))
    }
}

/// A parsed line.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    name: &'static str,
    verb: Verb,
    /// What follows the verb.
    rest: &'a [u8],
    subject: &'a [u8],
    sid: &'a [u8],
    /// Where answers are wanted, or the queue group of a `SUB`.
    reply: &'a [u8],
    /// Lengths of headers, and of headers and payload, which follow the line.
    header: usize,
    payload: Option<usize>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8], direction: Direction) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("a line with the wrong number of words");
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let (name, verb) = Verb::find(word, direction).ok_or(Malformed("a verb that NATS does not have"))?;
        let rest = rest.trim_ascii();
        let mut parsed = Self { name, verb, rest, subject: &[], sid: &[], reply: &[], header: 0, payload: None };
        let mut words = [&[][..]; 5];
        let mut count = 0;
        if matches!(verb, Verb::Pub | Verb::Hpub | Verb::Sub | Verb::Unsub | Verb::Msg | Verb::Hmsg) {
            for word in rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
                *words.get_mut(count).ok_or(WRONG)? = word;
                count += 1;
            }
        }
        let [first, second, third, fourth, fifth] = words;
        parsed.subject = first;
        match (verb, count) {
            (Verb::Pub, 2) => parsed.payload = Some(number(second)?),
            (Verb::Pub, 3) => (parsed.reply, parsed.payload) = (second, Some(number(third)?)),
            (Verb::Hpub, 3) => (parsed.header, parsed.payload) = (number(second)?, Some(number(third)?)),
            (Verb::Hpub, 4) => {
                (parsed.reply, parsed.header, parsed.payload) = (second, number(third)?, Some(number(fourth)?));
            }
            (Verb::Sub, 2) => parsed.sid = second,
            (Verb::Sub, 3) => (parsed.reply, parsed.sid) = (second, third),
            (Verb::Unsub, 1 | 2) => (parsed.subject, parsed.sid) = (&[], first),
            (Verb::Msg, 3) => (parsed.sid, parsed.payload) = (second, Some(number(third)?)),
            (Verb::Msg, 4) => (parsed.sid, parsed.reply, parsed.payload) = (second, third, Some(number(fourth)?)),
            (Verb::Hmsg, 4) => {
                (parsed.sid, parsed.header, parsed.payload) = (second, number(third)?, Some(number(fourth)?));
            }
            (Verb::Hmsg, 5) => {
                (parsed.sid, parsed.reply) = (second, third);
                (parsed.header, parsed.payload) = (number(fourth)?, Some(number(fifth)?));
            }
            (Verb::Pub | Verb::Hpub | Verb::Sub | Verb::Unsub | Verb::Msg | Verb::Hmsg, _) => return Err(WRONG),
            (Verb::Info | Verb::Connect, _) if !rest.starts_with(b"{") => {
                return Err(Malformed("options that are no JSON"));
            }
            _ => {}
        }
        if parsed.payload.is_some_and(|payload| parsed.header > payload) {
            return Err(Malformed("headers longer than the message"));
        }
        Ok(parsed)
    }
}

/// A length.
fn number(word: &[u8]) -> Result<usize, Malformed> {
    let number = word.iter().try_fold(0usize, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| usize::from(byte - b'0'))?;
        Some(number * 10 + digit).filter(|number| *number <= MAX_PAYLOAD)
    });
    number.filter(|_| !word.is_empty()).ok_or(Malformed("a length that is none"))
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let mut cursor = Cursor::new(probe.data);
    let Ok(line) = line(&mut cursor) else { return Verdict::No };
    let Some(line) = line else {
        // Any word may still become one of ours.
        let first = probe.data.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let begins =
            |name: &str| name.get(..first.len()).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(first));
        let fits = Verb::ALL.iter().any(|(name, verb, who)| {
            *verb != Verb::Route && begins(name) && who.is_none_or(|who| who == probe.direction)
        });
        return if fits { Verdict::More } else { Verdict::No };
    };
    let Ok(line) = Line::parse(line, probe.direction) else { return Verdict::No };
    let holds = |name: &[u8]| memchr::memmem::find(line.rest, name).is_some();
    match line.verb {
        Verb::Info if holds(b"\"server_id\"") || holds(b"\"max_payload\"") => Verdict::Yes,
        Verb::Connect if holds(b"\"verbose\"") || holds(b"\"lang\"") || holds(b"\"pedantic\"") => Verdict::Yes,
        Verb::Pub | Verb::Hpub | Verb::Msg | Verb::Hmsg => {
            // The line end after the payload is the proof.
            let end = cursor.rest().get(line.payload.unwrap_or(0)..).unwrap_or_default();
            match end.first_chunk::<2>() {
                Some(b"\r\n") => Verdict::Yes,
                Some(_) => Verdict::No,
                None => Verdict::Maybe,
            }
        }
        Verb::Route => Verdict::No,
        Verb::Err if !line.rest.starts_with(b"'") => Verdict::No,
        Verb::Ok | Verb::Ping | Verb::Pong if !line.rest.is_empty() => Verdict::No,
        _ => Verdict::Maybe,
    }
}

/// A line without its end; none if its end has not come yet.
fn line<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    let window = cursor.rest().get(..MAX_LINE).unwrap_or(cursor.rest());
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < MAX_LINE { Ok(None) } else { Err(Malformed("a line without end")) };
    };
    let line = cursor.take(end)?;
    cursor.skip(1)?;
    Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
}

/// One connection.
#[derive(Default)]
struct Nats {
    /// Commands of the client's are answered.
    verbose: bool,
    /// How many of them are not answered yet.
    open: u64,
    /// Pings of either side that were sent and that were answered.
    pings: [(u64, u64); 2],
    /// Subjects by subscription id.
    subscriptions: HashMap<Vec<u8>, String>,
    /// A `CONNECT` that may still be refused.
    connect: Option<Message>,
}

impl Nats {
    /// Fills in the row and hands it on.
    fn line(&mut self, line: &Line<'_>, mut message: Message, cx: &mut Cx<'_>) {
        let direction = message.direction;
        message.operation = Text::Borrowed(line.name);
        message.target = text::string(line.subject);
        let refused = line.verb == Verb::Err;
        if direction == Direction::ToClient
            && let Some(mut connect) = self.connect.take()
        {
            if refused {
                (connect.status, connect.failed) = (error(line.rest), true);
                cx.emit(connect);
                return;
            }
            cx.emit(connect);
        }
        match line.verb {
            Verb::Ping => {
                let Some((sent, _)) = self.pings.get_mut(direction.index()) else { return };
                *sent += 1;
                (message.role, message.id) = (Role::Request, PING_ID | *sent);
            }
            Verb::Pong => {
                let Some((sent, answered)) = self.pings.get_mut(direction.reverse().index()) else { return };
                if answered == sent {
                    // Its ping was not captured, or the client pongs unasked.
                    return;
                }
                *answered += 1;
                (message.role, message.id) = (Role::Response, PING_ID | *answered);
                (message.operation, message.status) = (Text::Borrowed(""), Text::Borrowed("ok"));
            }
            Verb::Ok | Verb::Err if self.open > 0 => {
                self.open -= 1;
                message.role = Role::Response;
                message.operation = Text::Borrowed("");
                message.failed = refused;
                message.status = if refused { error(line.rest) } else { Text::Borrowed("ok") };
            }
            Verb::Ok => {
                // The CONNECT was not captured.
                self.verbose = true;
                return;
            }
            Verb::Err => (message.status, message.failed) = (error(line.rest), true),
            Verb::Connect => {
                self.verbose = is_verbose(line.rest);
                if !self.verbose {
                    self.connect = Some(message);
                    return;
                }
            }
            Verb::Sub if self.subscriptions.len() < MAX_SUBSCRIPTIONS => {
                self.subscriptions.insert(line.sid.to_vec(), message.target.clone());
            }
            Verb::Unsub => {
                // With a number of messages after which it ends, it may be asked for again.
                message.target = self.subscriptions.get(line.sid).cloned().unwrap_or_default();
                if line.rest == line.sid {
                    self.subscriptions.remove(line.sid);
                }
            }
            _ => {}
        }
        if direction == Direction::ToServer && self.verbose && message.role == Role::OneWay {
            message.role = Role::Request;
            self.open += 1;
        }
        cx.emit(message);
    }
}

impl Dissector for Nats {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        if direction == Direction::ToServer && cursor.peek() == Some(TLS_HANDSHAKE) {
            return Ok(Progress::Switch(0, Switch::Detect));
        }
        let Some(line) = line(&mut cursor)? else { return Ok(Progress::Need(1)) };
        if line.is_empty() {
            return Ok(Progress::Consumed(cursor.position()));
        }
        let line = Line::parse(line, direction)?;
        if line.verb == Verb::Route {
            return Ok(Progress::Ignore);
        }
        let mut size = cursor.position();
        let mut seen = &[][..];
        if let Some(payload) = line.payload {
            let wanted = payload.min(cx.body_limit().saturating_add(if cx.detail() { line.header } else { 0 }));
            let available = cursor.remaining();
            let Ok(head) = cursor.take(wanted) else { return Ok(Progress::Need(wanted - available)) };
            seen = head;
            size += payload + 2;
        }
        let mut message = Message::new(Role::OneWay, direction, cx);
        message.bytes = size as u64;
        if cx.detail() {
            message.detail = detail(&line, seen, cx.secrets());
        }
        self.line(&line, message, cx);
        Ok(Progress::Consumed(size))
    }

    fn gap(&mut self, direction: Direction, len: u64, cx: &mut Cx<'_>) -> Recover {
        self.close(direction, &[], cx);
        if direction == Direction::ToClient && len > 0 {
            self.open = 0;
        }
        if let Some((sent, answered)) = self.pings.get_mut(direction.reverse().index()) {
            *answered = *sent;
        }
        Recover::Resync
    }

    fn close(&mut self, _direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        if let Some(connect) = self.connect.take() {
            cx.emit(connect);
        }
    }
}

/// The text of an error, without its quotes.
fn error(rest: &[u8]) -> Text {
    let text = rest.strip_prefix(b"'").unwrap_or(rest);
    Text::Owned(text::string(text.strip_suffix(b"'").unwrap_or(text)))
}

/// What `CONNECT` says; a server is verbose unless it is told not to be.
fn is_verbose(options: &[u8]) -> bool {
    match serde_json::from_slice::<serde_json::Value>(options) {
        Ok(options) => options.get("verbose").and_then(serde_json::Value::as_bool).unwrap_or(true),
        Err(_) => false,
    }
}

fn detail(line: &Line<'_>, payload: &[u8], secrets: bool) -> Value {
    let mut fields = Vec::new();
    let mut field = |name: &'static str, bytes: &[u8]| {
        if !bytes.is_empty() {
            fields.push((Text::Borrowed(name), text::value(bytes)));
        }
    };
    field("subject", line.subject);
    field("sid", line.sid);
    field(if line.verb == Verb::Sub { "queue_group" } else { "reply_to" }, line.reply);
    match line.verb {
        Verb::Info | Verb::Connect => {
            let options = serde_json::from_slice(line.rest).map_or(Value::Null, |options| json(options, secrets));
            return fields! { "options" => options };
        }
        Verb::Unsub => {
            if let Some(max) = line.rest.get(line.sid.len()..) {
                field("max_msgs", max.trim_ascii());
            }
        }
        Verb::Err => field("error", line.rest),
        _ => {}
    }
    if let Some(size) = line.payload {
        let (header, body) = payload.split_at_checked(line.header).unwrap_or((payload, &[]));
        if line.header > 0 {
            fields.push(("headers".into(), headers(header, secrets)));
        }
        fields.push(("payload".into(), text::body(body, (size - line.header) as u64)));
    }
    Value::Map(fields)
}

/// `NATS/1.0`, a status perhaps, and headers as in HTTP.
fn headers(bytes: &[u8], secrets: bool) -> Value {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let version = lines.next().map(text::string).unwrap_or_default();
    let mut fields = vec![(Text::Borrowed("version"), Value::from(version))];
    fields.extend(lines.map(|line| {
        let at = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let hidden = name.eq_ignore_ascii_case(b"authorization") && !secrets;
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        (Text::Owned(text::string(name)), if hidden { text::HIDDEN.into() } else { text::value(value) })
    }));
    Value::Map(fields)
}

/// JSON as fields; `serde_json` limits how deep it nests.
fn json(value: serde_json::Value, secrets: bool) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => flag.into(),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().into(),
        },
        serde_json::Value::String(string) => text::value(string.as_bytes()),
        serde_json::Value::Array(values) => Value::List(values.into_iter().map(|value| json(value, secrets)).collect()),
        serde_json::Value::Object(fields) => Value::Map(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let hidden = SECRETS.contains(&name.as_str()) && !secrets;
                    (
                        text::string(name.as_bytes()).into(),
                        if hidden { text::HIDDEN.into() } else { json(value, secrets) },
                    )
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_by_their_number() {
        let line = Line::parse(b"HMSG a.b 9 _INBOX.1 12 15", Direction::ToClient).unwrap();
        assert_eq!((line.subject, line.sid, line.reply), (&b"a.b"[..], &b"9"[..], &b"_INBOX.1"[..]));
        assert_eq!((line.header, line.payload), (12, Some(15)));
        let line = Line::parse(b"sub a.* workers 3", Direction::ToServer).unwrap();
        assert_eq!((line.name, line.reply, line.sid), ("SUB", &b"workers"[..], &b"3"[..]));
        assert!(Line::parse(b"PUB a", Direction::ToServer).is_err());
        assert!(Line::parse(b"PUB a 99999999999", Direction::ToServer).is_err());
        assert!(Line::parse(b"HPUB a 9 5", Direction::ToServer).is_err());
        assert!(Line::parse(b"MSG a 1 5", Direction::ToServer).is_err());
    }

    #[test]
    fn a_payload_that_ends_where_it_should_is_proof() {
        let verdict = |direction, data| {
            probe(&Probe { transport: Transport::Tcp, direction, data, port: 1, start: true, cut: false })
        };
        assert_eq!(verdict(Direction::ToServer, b"PUB a 2\r\nhi\r\n"), Verdict::Yes);
        assert_eq!(verdict(Direction::ToServer, b"PUB a 2\r\nhello\r\n"), Verdict::No);
        assert_eq!(verdict(Direction::ToServer, b"PING\r\n"), Verdict::Maybe);
        assert_eq!(verdict(Direction::ToServer, b"CONNECT example.com:443 HTTP/1.1\r\n"), Verdict::No);
        assert_eq!(verdict(Direction::ToClient, b"+OK ready\r\n"), Verdict::No);
    }
}
