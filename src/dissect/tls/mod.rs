//! TLS (RFC 8446, RFC 5246) and SSL 3.0 (RFC 6101) over TCP: one row a handshake.
//!
//! The row is there as soon as the handshake is over: after both sides changed their ciphers, when a client of TLS 1.3 sends
//! its first encrypted record, or with the alert that ends it. A `HelloRetryRequest` belongs to it. What follows is passed over:
//! it is encrypted. Signatures, certificates and MACs are not checked; renegotiations are inside the encryption.

mod certificate;
mod cipher;
pub(super) mod extensions;
pub(super) mod handshake;
mod ja4;
mod record;

use super::{Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Role, Transport, Verdict};
use crate::entry::{Direction, Text, Timestamp, Value};
use extensions::version;
use handshake::{ClientHello, ServerHello, kind};
pub(super) use record::Alert;
use record::{Content, Header};

pub static PROTOCOL: Protocol = Protocol {
    name: "tls",
    title: "TLS",
    transport: Transport::Tcp,
    ports: &[443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 5061, 5671, 6443, 8443, 8883, 9443, 10250],
    probe,
    new: || Box::new(Tls::default()),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc8446",
};

/// The longest handshake message that is put together from several records: a long chain of certificates fits.
const MAX_HANDSHAKE: usize = 64 << 10;
/// The most certificates of one chain that are decoded.
const MAX_CERTIFICATES: usize = 10;
/// Pairs the two halves of a row: there is one a connection.
const ID: u64 = 1;

fn probe(probe: &Probe<'_>) -> Verdict {
    if probe.direction == Direction::ToServer && is_v2_hello(probe.data) {
        return Verdict::Yes;
    }
    let header = match Header::parse(probe.data) {
        Ok(Some(header)) => header,
        Ok(None) => return Verdict::No,
        Err(_) => return if probe.data.is_empty() { Verdict::No } else { Verdict::More },
    };
    let payload = probe.data.get(record::HEADER..).unwrap_or_default();
    let payload = payload.get(..header.length).unwrap_or(payload);
    let hello = match probe.direction {
        Direction::ToServer => kind::CLIENT_HELLO,
        Direction::ToClient => kind::SERVER_HELLO,
    };
    match header.content {
        Content::Handshake if header.length > 0 => match *payload {
            // Type, length and the legacy version, whose first byte is 3 but in drafts.
            [first, _, _, _, 3 | 0x7f, minor, ..]
                if first == hello && (minor <= 4 || payload.get(4) == Some(&0x7f)) =>
            {
                Verdict::Yes
            }
            [first, ..] if payload.len() < 6 && header.length > payload.len() && first == hello => Verdict::More,
            [] => Verdict::More,
            // A message so short, or cut so short, that its version is in another record.
            [first, ..] if first == hello && header.length < 6 => Verdict::Maybe,
            _ if !probe.start => Verdict::Maybe,
            _ => Verdict::No,
        },
        Content::Alert if header.length == 2 && probe.direction == Direction::ToClient => match Alert::parse(payload) {
            Some(alert) if alert.name().starts_with(|first: char| first.is_ascii_alphabetic()) => Verdict::Yes,
            None if payload.len() < 2 => Verdict::More,
            _ => Verdict::No,
        },
        // In the midst of a connection: nothing but the header's plausibility speaks for it.
        _ if !probe.start && header.length > 0 => Verdict::Maybe,
        _ => Verdict::No,
    }
}

/// The hello of SSL 2.0 that clients once sent to reach older servers too: its lengths have to agree.
fn is_v2_hello(data: &[u8]) -> bool {
    let mut cursor = Cursor::new(data);
    let Ok([high, low, kind::CLIENT_HELLO, major, minor]) = cursor.array::<5>() else { return false };
    let (Ok(suites), Ok(session), Ok(challenge)) = (cursor.u16(), cursor.u16(), cursor.u16()) else { return false };
    let length = u32::from(high & 0x7f) << 8 | u32::from(low);
    high & 0x80 != 0
        && matches!((major, minor), (0, 2) | (3, 0..=3))
        && suites > 0
        && suites % 3 == 0
        && matches!(session, 0 | 16)
        && (16..=32).contains(&challenge)
        && length == 9 + u32::from(suites) + u32::from(session) + u32::from(challenge)
}

/// A dissector for a connection that speaks TLS from here on, as after STARTTLS.
#[must_use]
pub fn new_dissector() -> Box<dyn Dissector> {
    (PROTOCOL.new)()
}

/// One connection up to the end of its handshake.
#[derive(Default)]
struct Tls {
    sides: [Side; 2],
    /// The row's request is out.
    asked: bool,
    /// The row's response, from the `ServerHello` on until the handshake is over.
    answer: Option<Message>,
    version_13: bool,
    /// The session that the client offered to resume (TLS 1.2 and older); kept for the detail only.
    session_id: Vec<u8>,
    /// Fields of the response's detail that came with other messages than the `ServerHello`.
    more: Vec<(Text, Value)>,
}

/// What one side has sent.
#[derive(Default)]
struct Side {
    /// A handshake message of which not all is there.
    partial: Vec<u8>,
    /// When its first byte was captured, and in which frame.
    since: Option<(Timestamp, u64)>,
    /// Its handshake messages can't be read any more.
    encrypted: bool,
    /// Bytes sent so far.
    bytes: u64,
}

impl Dissector for Tls {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if !self.asked && direction == Direction::ToServer && is_v2_hello(bytes) {
            return self.v2_hello(bytes, cx);
        }
        let header = match Header::parse(bytes) {
            Ok(Some(header)) => header,
            Ok(None) => return Err(Malformed("this is no TLS record")),
            Err(_) => return Ok(Progress::Need(record::HEADER.saturating_sub(bytes.len()))),
        };
        let size = record::HEADER + header.length;
        if header.content == Content::ApplicationData {
            // The server's first ones of TLS 1.3 hold the rest of the handshake.
            let over = self.answer.is_some() && (direction == Direction::ToServer || !self.version_13);
            self.side(direction).bytes += size as u64;
            return Ok(if over { self.finish(cx) } else { Progress::Consumed(size) });
        }
        let Some(payload) = bytes.get(record::HEADER..size) else { return Ok(Progress::Need(size - bytes.len())) };
        self.side(direction).bytes += size as u64;
        match header.content {
            Content::Handshake if !self.side(direction).encrypted => self.handshake(direction, payload, cx)?,
            // In TLS 1.3 it is there for the sake of old middleboxes only.
            Content::ChangeCipherSpec if self.answer.is_some() && !self.version_13 => {
                self.side(direction).encrypted = true;
                if self.sides.iter().all(|side| side.encrypted) {
                    return Ok(self.finish(cx));
                }
            }
            Content::Alert if !self.side(direction).encrypted => {
                if let Some(alert) = Alert::parse(payload)
                    && self.alert(direction, alert, cx)
                {
                    return Ok(self.finish(cx));
                }
            }
            _ => {}
        }
        Ok(Progress::Consumed(size))
    }

    fn gap(&mut self, direction: Direction, _len: u64, _cx: &mut Cx<'_>) -> Recover {
        let side = self.side(direction);
        side.partial = Vec::new();
        side.since = None;
        Recover::Resync
    }

    fn close(&mut self, _direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        self.finish(cx);
    }
}

impl Tls {
    fn side(&mut self, direction: Direction) -> &mut Side {
        let [client, server] = &mut self.sides;
        match direction {
            Direction::ToServer => client,
            Direction::ToClient => server,
        }
    }

    /// The payload of one handshake record: part of a message, one, or several.
    fn handshake(&mut self, direction: Direction, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let side = self.side(direction);
        let since = *side.since.get_or_insert((cx.time(), cx.packet()));
        let mut partial = std::mem::take(&mut side.partial);
        let waited = !partial.is_empty();
        if waited {
            partial.extend_from_slice(payload);
        }
        let mut cursor = Cursor::new(if waited { &partial } else { payload });
        let mut whole = cursor;
        while let Ok(first) = cursor.u8()
            && let Ok(length) = cursor.u24()
        {
            if length as usize > MAX_HANDSHAKE {
                return Err(Malformed("a handshake message longer than 64 KiB"));
            }
            let Ok(body) = cursor.take(length as usize) else { break };
            whole = cursor;
            self.message(direction, first, body, since, cx);
        }
        let (done, rest) = (whole.position(), whole.rest());
        let more = !rest.is_empty();
        if !waited || done > 0 {
            // While a message grows it is not copied, lest many short records cost the square of their number.
            partial = rest.to_vec();
        }
        let side = self.side(direction);
        side.since = more.then_some(if done > 0 { (cx.time(), cx.packet()) } else { since });
        side.partial = partial;
        Ok(())
    }

    /// One whole handshake message.
    fn message(&mut self, direction: Direction, kind: u8, body: &[u8], since: (Timestamp, u64), cx: &mut Cx<'_>) {
        match (kind, direction) {
            (kind::CLIENT_HELLO, Direction::ToServer) if !self.asked => {
                if let Ok(hello) = ClientHello::parse(body) {
                    self.ask(&hello, since, handshake::HEADER + body.len(), cx);
                }
            }
            (kind::SERVER_HELLO, Direction::ToClient) if self.answer.is_none() => {
                if let Ok(hello) = ServerHello::parse(body) {
                    self.choose(&hello, since, cx);
                }
            }
            (kind::CERTIFICATE, _) if cx.detail() && !self.version_13 => {
                let chain = handshake::certificates(body).take(MAX_CERTIFICATES).map(certificate::decode).collect();
                let name = match direction {
                    Direction::ToServer => "client_certificates",
                    Direction::ToClient => "certificates",
                };
                self.more.push((name.into(), Value::List(chain)));
            }
            _ => {}
        }
    }

    /// A `ClientHello` is the row's request.
    fn ask(&mut self, hello: &ClientHello<'_>, since: (Timestamp, u64), size: usize, cx: &mut Cx<'_>) {
        let mut request = Message::request(Direction::ToServer, "handshake", hello.server_name(), cx);
        (request.time, request.packet) = since;
        request.protocol = Some(PROTOCOL.name);
        request.id = ID;
        request.bytes = self.side(Direction::ToServer).bytes.max(size as u64);
        if cx.detail() {
            request.detail = hello.decode('t');
            self.session_id = hello.session_id.to_vec();
        }
        cx.emit(request);
        self.asked = true;
    }

    /// A `ServerHello` starts the row's response, unless it asks for another `ClientHello`.
    fn choose(&mut self, hello: &ServerHello<'_>, since: (Timestamp, u64), cx: &mut Cx<'_>) {
        if hello.is_retry() {
            if cx.detail() {
                self.more.push(("hello_retry_request".into(), hello.decode()));
            }
            return;
        }
        self.version_13 = hello.is_13();
        let mut response = Message::response(Direction::ToClient, version(hello.version()), false, cx);
        (response.time, response.packet) = since;
        if cx.detail() {
            response.detail = hello.decode();
            self.more.push(("resumed".into(), hello.resumes(&self.session_id).into()));
        }
        self.answer = Some(response);
    }

    /// Takes an alert; true if it ends the handshake.
    fn alert(&mut self, direction: Direction, alert: Alert, cx: &mut Cx<'_>) -> bool {
        let closes = alert.description == 0 && self.answer.is_none();
        if alert.is_benign() && !closes {
            return false;
        }
        let mut response = self.answer.take().unwrap_or_else(|| Message::new(Role::Response, Direction::ToClient, cx));
        response.status = alert.name();
        response.failed = true;
        if cx.detail() {
            let sender = match direction {
                Direction::ToServer => "client",
                Direction::ToClient => "server",
            };
            self.more.push((
                "alert".into(),
                crate::fields! { "sender" => sender, "fatal" => alert.fatal, "description" => alert.name() },
            ));
        }
        self.answer = Some(response);
        true
    }

    /// The handshake is over: its row is complete, and nothing more can be read.
    fn finish(&mut self, cx: &mut Cx<'_>) -> Progress {
        if let Some(mut response) = self.answer.take()
            && self.asked
        {
            response.protocol = Some(PROTOCOL.name);
            response.id = ID;
            response.bytes = self.side(Direction::ToClient).bytes;
            if cx.detail() {
                let mut fields = match std::mem::take(&mut response.detail) {
                    Value::Map(fields) => fields,
                    _ => Vec::new(),
                };
                fields.append(&mut self.more);
                fields.push(("decrypted".into(), false.into()));
                fields.push(("reason".into(), "no key log given".into()));
                response.detail = Value::Map(fields);
            }
            cx.emit(response);
        }
        Progress::Ignore
    }

    /// The first message of a client that would have taken SSL 2.0 too. What follows is as usual.
    fn v2_hello(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let length = usize::from(cursor.u16()? & 0x7fff);
        let Ok(message) = cursor.take(length) else { return Ok(Progress::Need(length - cursor.remaining())) };
        let hello = ClientHello::parse_v2(message)?;
        self.ask(&hello, (cx.time(), cx.packet()), cursor.position(), cx);
        Ok(Progress::Consumed(cursor.position()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(direction: Direction, start: bool, data: &[u8]) -> Verdict {
        probe(&Probe { transport: Transport::Tcp, direction, data, port: 9999, start })
    }

    #[test]
    fn hellos_are_known_by_their_direction() {
        let client = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        assert_eq!(verdict(Direction::ToServer, true, client), Verdict::Yes);
        assert_eq!(verdict(Direction::ToClient, true, client), Verdict::No);
        assert_eq!(verdict(Direction::ToServer, true, b"\x16\x03\x01\x02"), Verdict::More);
        assert_eq!(verdict(Direction::ToClient, true, b"\x15\x03\x01\x00\x02\x02\x28"), Verdict::Yes);
        assert_eq!(verdict(Direction::ToServer, true, b"\x17\x03\x03\x00\x20"), Verdict::No);
        assert_eq!(verdict(Direction::ToServer, false, b"\x17\x03\x03\x00\x20"), Verdict::Maybe);
    }

    #[test]
    fn the_old_hello_has_to_add_up() {
        let mut hello = b"\x80\x1f\x01\x03\x01\x00\x06\x00\x00\x00\x10".to_vec();
        hello.extend([0; 22]);
        assert_eq!(verdict(Direction::ToServer, true, &hello), Verdict::Yes);
        if let Some(length) = hello.get_mut(1) {
            *length = 0x20;
        }
        assert_eq!(verdict(Direction::ToServer, true, &hello), Verdict::No);
    }
}
