//! QUIC (RFC 9000, RFC 9369 and late drafts), up to its handshake: one row a connection.
//!
//! The keys of Initial packets follow from what is sent in the clear (RFC 9001 section 5.2), so the `ClientHello` inside them
//! can be read: server name and application protocols are the row's. That they can be decrypted is also the proof that it is
//! QUIC. What follows is encrypted and passed over; unknown versions make no row. A connection that starts again after a Retry
//! or a version negotiation stays one; another one from the same port makes another row.

mod frame;
mod initial;
mod packet;
mod parameters;

use super::tls::Alert;
use super::tls::extensions::version;
use super::tls::handshake::{ClientHello, ServerHello, kind};
use super::{Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Role, Transport, Verdict, text};
use crate::entry::{Direction, Text, Timestamp, Value};
use frame::{Crypto, Frame, frames};
use initial::Keys;
use packet::{Kind, Packet};

pub static PROTOCOL: Protocol = Protocol {
    name: "quic",
    title: "QUIC",
    transport: Transport::Udp,
    ports: &[443],
    probe,
    new: || Box::new(Quic::default()),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc9000",
};

fn probe(probe: &Probe<'_>) -> Verdict {
    let mut initials = Packet::all(probe.data).filter(|packet| packet.kind == Kind::Initial);
    let opens = |packet: &Packet<'_>| Connection::open(packet, (Timestamp::default(), 0)).is_some();
    if probe.direction == Direction::ToServer && initials.any(|packet| opens(&packet)) {
        Verdict::Yes
    } else {
        Verdict::No
    }
}

/// The connections of one client's port, one after the other.
#[derive(Default)]
struct Quic {
    connection: Option<Connection>,
    /// Numbers the rows.
    count: u64,
}

/// One connection during its handshake.
struct Connection {
    keys: [Keys; 2],
    /// The destination connection id that they are derived from.
    dcid: Vec<u8>,
    client: Crypto,
    /// When its first packet was captured, and in which frame.
    since: (Timestamp, u64),
    /// The server asked for proof of the client's address, or for another version.
    retried: bool,
    bytes: u64,
    stage: Stage,
}

/// How far a connection's row has come.
enum Stage {
    /// The `ClientHello` is not complete.
    Hello,
    /// The server has not answered. The second is the first application protocol that the client offers.
    Asked(Box<Message>, String),
    /// The row is out.
    Answered,
}

impl Connection {
    /// The connection that a client's Initial packet starts, if its protection holds, and that packet's frames.
    fn open(packet: &Packet<'_>, since: (Timestamp, u64)) -> Option<(Self, Vec<u8>)> {
        let keys = Keys::initial(packet.version, packet.dcid)?;
        let [client, _] = &keys;
        let frames = client.open(packet)?;
        let connection = Self {
            keys,
            dcid: packet.dcid.to_vec(),
            client: Crypto::default(),
            since,
            retried: false,
            bytes: 0,
            stage: Stage::Hello,
        };
        Some((connection, frames))
    }

    /// Takes a client's frames; with the last piece of its `ClientHello`, the row's request is there.
    fn hello(&mut self, packet: &Packet<'_>, opened: &[u8], count: u64, cx: &Cx<'_>) {
        for frame in frames(opened) {
            if let Frame::Crypto(offset, data) = frame {
                self.client.add(offset, data);
            }
        }
        let Some(body) = message(self.client.ready(), kind::CLIENT_HELLO) else { return };
        let Ok(hello) = ClientHello::parse(body) else { return };
        let mut request = Message::request(Direction::ToServer, "connection", hello.server_name(), cx);
        (request.time, request.packet) = self.since;
        request.id = count;
        request.bytes = self.bytes;
        if cx.detail() {
            let tls = hello.decode('q');
            let parameters = parameters::EXTENSIONS.iter().find_map(|kind| hello.extensions.get(*kind));
            request.detail = crate::fields! {
                "version" => packet.version.name(),
                "destination_connection_id" => text::hex(&self.dcid),
                "source_connection_id" => text::hex(packet.scid),
                "token_length" => packet.token.len(),
                "transport_parameters" => parameters.map(parameters::decode),
                "client_hello" => tls,
            };
        }
        let offered = hello.extensions.alpn().next().map(text::string).unwrap_or_default();
        self.stage = Stage::Asked(Box::new(request), offered);
    }

    /// The server's first answer: its `ServerHello` if all of it is there, or the reason why not.
    fn answer(&self, datagram: &[u8], alpn: &str, count: u64, cx: &Cx<'_>) -> Message {
        let mut response = Message::response(Direction::ToClient, alpn.to_owned(), false, cx);
        response.id = count;
        response.bytes = datagram.len() as u64;
        let mut crypto = Crypto::default();
        let mut fields = Vec::new();
        let [_, server] = &self.keys;
        for packet in Packet::all(datagram) {
            if packet.kind == Kind::Retry {
                fields.push(("retry".into(), true.into()));
            }
            let opened = if packet.kind == Kind::Initial { server.open(&packet) } else { None };
            for frame in frames(opened.as_deref().unwrap_or_default()) {
                match frame {
                    Frame::Crypto(offset, data) => crypto.add(offset, data),
                    Frame::Close(code, reason) => {
                        response.failed = true;
                        response.warnings.push(refusal(code, reason));
                    }
                    Frame::Other => {}
                }
            }
        }
        if cx.detail() {
            let hello = message(crypto.ready(), kind::SERVER_HELLO).and_then(|body| ServerHello::parse(body).ok());
            if let Some(hello) = hello {
                fields.push(("tls_version".into(), version(hello.version()).into()));
                fields.push(("server_hello".into(), hello.decode()));
            }
            fields.push(("decrypted".into(), false.into()));
            fields.push(("reason".into(), "no key log given".into()));
            response.detail = Value::Map(fields);
        }
        response
    }
}

/// The body of the handshake message at the front, if all of it is there and it is of that type.
fn message(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut cursor = Cursor::new(bytes);
    let (kind, length) = (cursor.u8().ok()?, cursor.u24().ok()?);
    if kind == wanted { cursor.take(length as usize).ok() } else { None }
}

/// True if the server offers other versions (RFC 9000 section 17.2.1).
fn is_version_negotiation(datagram: &[u8]) -> bool {
    matches!(datagram, [0x80..=0xff, 0, 0, 0, 0, ..])
}

/// Why the server gave up, with the alert of TLS if it is one (RFC 9001 section 4.8).
fn refusal(code: u64, reason: &[u8]) -> Text {
    let what = match code {
        0x100..=0x1ff => Alert { fatal: true, description: (code & 0xff) as u8 }.name().into_owned(),
        2 => "connection refused".to_owned(),
        _ => format!("error {code:#x}"),
    };
    let reason = text::printable(reason);
    let separator = if reason.is_empty() { "" } else { ": " };
    format!("closed by the server: {what}{separator}{reason}").into()
}

impl Dissector for Quic {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        match direction {
            Direction::ToServer => {
                for packet in Packet::all(bytes).filter(|packet| packet.kind == Kind::Initial) {
                    self.client(&packet, bytes.len() as u64, cx);
                }
            }
            Direction::ToClient => self.server(bytes, cx),
        }
        Ok(Progress::Consumed(bytes.len()))
    }

    fn close(&mut self, _direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        self.flush(cx);
    }
}

impl Quic {
    /// A client's Initial packet: more of the connection at hand, or the first of another.
    fn client(&mut self, packet: &Packet<'_>, datagram: u64, cx: &mut Cx<'_>) {
        if let Some(connection) = &mut self.connection {
            let [client, _] = &connection.keys;
            if matches!(connection.stage, Stage::Hello) {
                if let Some(opened) = client.open(packet) {
                    connection.bytes += datagram;
                    connection.hello(packet, &opened, self.count, cx);
                    return;
                }
            } else if connection.dcid == packet.dcid || connection.retried {
                return;
            }
        }
        let since = (cx.time(), cx.packet());
        let Some((mut next, opened)) = Connection::open(packet, since) else { return };
        if let Some(old) = self.connection.take_if(|old| old.retried && matches!(old.stage, Stage::Hello)) {
            // The same one, from the start, with keys from the server's connection id.
            next.since = old.since;
            next.bytes = old.bytes;
        } else {
            self.flush(cx);
            self.count += 1;
        }
        next.bytes += datagram;
        next.hello(packet, &opened, self.count, cx);
        self.connection = Some(next);
    }

    fn server(&mut self, datagram: &[u8], cx: &mut Cx<'_>) {
        let Some(connection) = &mut self.connection else { return };
        connection.retried |=
            is_version_negotiation(datagram) || Packet::all(datagram).any(|packet| packet.kind == Kind::Retry);
        if let Stage::Asked(..) = connection.stage
            && let Stage::Asked(request, alpn) = std::mem::replace(&mut connection.stage, Stage::Answered)
        {
            let response = connection.answer(datagram, &alpn, self.count, cx);
            cx.emit(*request);
            cx.emit(response);
        }
    }

    /// The row of a connection that the server never answered: what the client offered is all there is to tell.
    fn flush(&mut self, cx: &mut Cx<'_>) {
        if let Some(connection) = self.connection.take()
            && let Stage::Asked(mut request, alpn) = connection.stage
        {
            request.role = Role::OneWay;
            request.status = alpn.into();
            cx.emit(*request);
        }
    }
}
