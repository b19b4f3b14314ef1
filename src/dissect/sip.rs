//! SIP (RFC 3261): requests of either side and the final responses to them, over UDP, TCP and, decrypted, TLS.
//!
//! A response carries the `Call-ID`, `CSeq` and topmost `Via` of its request, and these pair the two. Provisional responses (1xx)
//! make no rows; what the last one said stands in the row's detail. `ACK` has no response. What is sent again over UDP
//! belongs to the first.
//!
//! Not parsed: bodies, which are shown as they are (SDP is text); SIP over SCTP and in WebSocket. RTP, whose ports SDP names, is
//! flows.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::http::Fields;
use super::http1::head;
use super::{Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Role, Transport, Verdict, text};
use crate::entry::{Direction, Text, Value};
use crate::fields;

pub static PROTOCOL: Protocol = Protocol {
    name: "sip",
    title: "SIP",
    transport: Transport::Both,
    ports: &[5060],
    probe,
    new: || Box::new(Sip::default()),
    repeats: true,
    spec: "https://www.rfc-editor.org/rfc/rfc3261",
};

/// The longest head.
const MAX_HEAD: usize = 64 << 10;
/// The longest body.
const MAX_BODY: usize = 16 << 20;
/// The longest start line that a probe waits for.
const MAX_START: usize = 2048;
/// The most answered requests that are remembered, for answers that come again, and the most provisional answers.
const MAX_REMEMBERED: usize = 256;

/// Methods (RFC 3261, 3262, 3265, 3311, 3428, 3515, 3903, 6086).
const METHODS: &[&str] = &[
    "INVITE",
    "ACK",
    "OPTIONS",
    "BYE",
    "CANCEL",
    "REGISTER",
    "PRACK",
    "SUBSCRIBE",
    "NOTIFY",
    "UPDATE",
    "MESSAGE",
    "REFER",
    "PUBLISH",
    "INFO",
];

/// Compact forms of header fields (RFC 3261 section 7.3.3 and later ones).
const COMPACT: &[(u8, &str)] = &[
    (b'b', "referred-by"),
    (b'c', "content-type"),
    (b'e', "content-encoding"),
    (b'f', "from"),
    (b'i', "call-id"),
    (b'k', "supported"),
    (b'l', "content-length"),
    (b'm', "contact"),
    (b'o', "event"),
    (b'r', "refer-to"),
    (b's', "subject"),
    (b't', "to"),
    (b'u', "allow-events"),
    (b'v', "via"),
];

/// The first line of a message.
#[derive(Debug, PartialEq)]
enum Start<'a> {
    Request { method: &'a [u8], uri: &'a [u8] },
    Response { code: u16, reason: &'a [u8] },
}

impl<'a> Start<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        if let Some(rest) = line.strip_prefix(b"SIP/2.0 ") {
            let (code, reason) = rest.split_at_checked(3)?;
            let code = std::str::from_utf8(code).ok()?.parse().ok().filter(|code| (100..700).contains(code))?;
            let reason = if reason.is_empty() { reason } else { reason.strip_prefix(b" ")? };
            return Some(Self::Response { code, reason });
        }
        let (method, uri) = line.strip_suffix(b" SIP/2.0")?.split_at_checked(memchr::memchr(b' ', line)?)?;
        let uri = uri.strip_prefix(b" ")?;
        let is_method = (1..=32).contains(&method.len()) && method.iter().all(|byte| head::is_token(*byte));
        let is_uri = uri.contains(&b':') && !uri.contains(&b' ');
        (is_method && is_uri).then_some(Self::Request { method, uri })
    }
}

/// A message without its body.
struct Head<'a> {
    start: Start<'a>,
    fields: head::Fields<'a>,
    /// The method that `CSeq` names.
    method: &'a [u8],
    /// Of `Call-ID`, `CSeq` and topmost `Via`; never 0.
    id: u64,
    body: Option<usize>,
}

impl<'a> Head<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let end = memchr::memchr(b'\n', bytes).ok_or(Malformed("no line"))?;
        let (line, rest) = bytes.split_at_checked(end).unwrap_or_default();
        let start = Start::parse(line.strip_suffix(b"\r").unwrap_or(line))
            .ok_or(Malformed("neither a request line nor a status line"))?;
        let fields = head::Fields(rest.get(1..).unwrap_or_default());
        let (mut call, mut sequence, mut via, mut body) = (None, None, None, None);
        for (name, value) in fields.clone() {
            let name = long_form(name);
            let slot = match name {
                _ if name.eq_ignore_ascii_case(b"call-id") => &mut call,
                _ if name.eq_ignore_ascii_case(b"cseq") => &mut sequence,
                _ if name.eq_ignore_ascii_case(b"via") => &mut via,
                _ if name.eq_ignore_ascii_case(b"content-length") => {
                    let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                    body = Some(length.filter(|length| *length <= MAX_BODY).ok_or(Malformed("a body without length"))?);
                    continue;
                }
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        let (Some(call), Some(sequence)) = (call, sequence) else { return Err(Malformed("no Call-ID or no CSeq")) };
        // Several may stand in one field.
        let via = via.unwrap_or_default().split(|byte| *byte == b',').next().unwrap_or_default();
        let method = sequence.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (call, sequence, branch(via)).hash(&mut hasher);
        Ok(Self { start, fields, method, id: hasher.finish() | 1, body })
    }
}

/// What tells one request's `Via` from another's; servers add parameters to it.
fn branch(via: &[u8]) -> &[u8] {
    let parameter =
        via.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).find_map(|one| one.strip_prefix(b"branch="));
    parameter.unwrap_or_default()
}

/// The long form of a field's name.
fn long_form(name: &[u8]) -> &[u8] {
    let [letter] = name else { return name };
    let known = COMPACT.iter().find(|(compact, _)| compact.eq_ignore_ascii_case(letter));
    known.map_or(name, |(_, long)| long.as_bytes())
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let window = probe.data.get(..MAX_START).unwrap_or(probe.data);
    let Some(end) = memchr::memchr(b'\n', window) else {
        let fits = |word: &[u8]| window.starts_with(word) || word.starts_with(window);
        let begins = fits(b"SIP/2.0 ") || METHODS.iter().any(|method| fits(&[method.as_bytes(), b" "].concat()));
        return if begins && window.len() < MAX_START { Verdict::More } else { Verdict::No };
    };
    let line = window.get(..end).unwrap_or_default();
    match Start::parse(line.strip_suffix(b"\r").unwrap_or(line)) {
        // Either side asks, but the one that asks first is the client.
        Some(_) if !probe.start => Verdict::Yes,
        Some(Start::Request { .. }) if probe.direction == Direction::ToServer => Verdict::Yes,
        Some(Start::Response { .. }) if probe.direction == Direction::ToClient => Verdict::Yes,
        Some(_) => Verdict::Maybe,
        None => Verdict::No,
    }
}

/// The messages between two ports, or of one connection.
#[derive(Default)]
struct Sip {
    /// How far each direction was searched for the end of a head.
    searched: [usize; 2],
    /// Requests that have their final answer, latest last.
    answered: VecDeque<u64>,
    /// The last provisional answers, by request.
    provisional: HashMap<u64, Value>,
}

impl Sip {
    /// Fills in the row and hands it on.
    fn message(&mut self, head: &Head<'_>, mut message: Message, cx: &mut Cx<'_>) {
        message.id = head.id;
        match head.start {
            Start::Request { method, uri } => {
                message.operation = operation(method);
                message.target = text::string(uri);
                message.role = if method == b"ACK" { Role::OneWay } else { Role::Request };
                if self.answered.contains(&head.id) {
                    // Sent again; its answer may have been lost.
                    return;
                }
            }
            Start::Response { code, .. } if code < 200 => {
                if cx.detail() && self.provisional.len() < MAX_REMEMBERED {
                    self.provisional.insert(head.id, code.into());
                }
                return;
            }
            Start::Response { code, .. } => {
                if self.answered.contains(&head.id) {
                    return;
                }
                message.role = Role::Response;
                // What a response without request can tell of it.
                message.operation = operation(head.method);
                message.status = Text::Owned(code.to_string());
                message.failed = code >= 400;
                if let (Some(code), Value::Map(fields)) = (self.provisional.remove(&head.id), &mut message.detail) {
                    fields.push(("provisional".into(), code));
                }
                if self.answered.len() >= MAX_REMEMBERED {
                    self.answered.pop_front();
                }
                self.answered.push_back(head.id);
            }
        }
        cx.emit(message);
    }
}

impl Dissector for Sip {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let stream = cx.transport() == Transport::Tcp;
        // Empty lines keep connections and address translations alive (RFC 5626 section 3.5.1).
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 {
            return Ok(Progress::Consumed(blank));
        }
        let searched = direction.of(self.searched.each_mut());
        let end = match head::end(bytes, *searched) {
            Ok(end) => end,
            // The rest of a datagram was not captured.
            Err(_) if !stream => bytes.len(),
            Err(_) if bytes.len() > MAX_HEAD => return Err(Malformed("a head without end")),
            Err(resume) => {
                *searched = resume;
                return Ok(Progress::Need(1));
            }
        };
        let head = Head::parse(bytes.get(..end).unwrap_or_default())?;
        let rest = bytes.get(end..).unwrap_or_default();
        let size = match head.body {
            Some(size) => size,
            None if stream => 0,
            None => rest.len(),
        };
        let wanted = size.min(cx.body_limit());
        if stream && rest.len() < wanted {
            *searched = end.saturating_sub(4);
            return Ok(Progress::Need(wanted - rest.len()));
        }
        *searched = 0;
        let mut message = Message::new(Role::OneWay, direction, cx);
        message.bytes = (end + size) as u64;
        if cx.detail() {
            message.detail = detail(&head, rest.get(..wanted).unwrap_or(rest), size, cx);
        }
        self.message(&head, message, cx);
        Ok(Progress::Consumed(if stream { end + size } else { bytes.len() }))
    }

    fn gap(&mut self, direction: Direction, _len: u64, _cx: &mut Cx<'_>) -> super::Recover {
        *direction.of(self.searched.each_mut()) = 0;
        super::Recover::Resync
    }
}

/// A method's name.
fn operation(method: &[u8]) -> Text {
    match METHODS.iter().find(|known| known.as_bytes() == method) {
        Some(known) => Text::Borrowed(known),
        None => Text::Owned(text::string(method)),
    }
}

fn detail(head: &Head<'_>, body: &[u8], size: usize, cx: &Cx<'_>) -> Value {
    let mut fields = match head.start {
        Start::Request { method, uri } => fields! { "method" => text::value(method), "uri" => text::value(uri) },
        Start::Response { code, reason } => fields! { "code" => code, "reason" => text::value(reason) },
    };
    let mut headers = Fields::default();
    for (name, value) in head.fields.clone() {
        headers.push(long_form(name), &head::unfold(value), cx.secrets());
    }
    if let Value::Map(fields) = &mut fields {
        fields.push(("headers".into(), headers.into()));
        if size > 0 {
            fields.push(("body".into(), text::body(body, size as u64)));
        }
    }
    fields
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn start_lines() {
        let request = Start::parse(b"INVITE sip:bob@example.com SIP/2.0");
        assert_eq!(request, Some(Start::Request { method: b"INVITE", uri: b"sip:bob@example.com" }));
        let response = Start::parse(b"SIP/2.0 180 Ringing");
        assert_eq!(response, Some(Start::Response { code: 180, reason: b"Ringing" }));
        assert_eq!(Start::parse(b"SIP/2.0 200"), Some(Start::Response { code: 200, reason: b"" }));
        for wrong in
            ["GET / HTTP/1.1", "INVITE bob SIP/2.0", "SIP/2.0 99 x", "SIP/2.0 2000", "INVITE sip:bob SIP/3.0", ""]
        {
            assert_eq!(Start::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn what_servers_add_to_a_via_changes_no_id() {
        let id = |via: &str| {
            let head = format!("OPTIONS sip:a@b SIP/2.0\r\nv: {via}\r\ni: 1@a\r\nCSeq: 7 OPTIONS\r\n\r\n");
            Head::parse(head.as_bytes()).unwrap().id
        };
        let first = id("SIP/2.0/UDP a:5060;branch=z9hG4bK1;rport");
        assert_eq!(first, id("SIP/2.0/UDP a:5060;rport=5060;received=1.2.3.4;branch=z9hG4bK1, SIP/2.0/UDP b;branch=x"));
        assert_ne!(first, id("SIP/2.0/UDP a:5060;branch=z9hG4bK2"));
    }
}
