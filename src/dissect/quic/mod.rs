//! QUIC (RFC 9000, RFC 9369 and late drafts): one row a connection, and what is inside if its keys are known.
//!
//! The keys of Initial packets follow from what is sent in the clear (RFC 9001 section 5.2), so the `ClientHello` inside them
//! can be read: server name and application protocols are the row's. That they can be decrypted is also the proof that it is
//! QUIC. Unknown versions make no row. A connection that starts again after a Retry or a version negotiation stays one; another
//! one from the same port makes another row.
//!
//! What follows is encrypted. With the secrets of a key log its packets are opened, the streams in them put in order and, if
//! they are of HTTP/3, dissected; else it is passed over. Not followed are connections that move to other addresses, and
//! other protocols inside.

mod frame;
pub(super) mod packet;
mod parameters;
mod protection;
mod session;
mod stream;

use std::sync::Arc;

use super::tls::Alert;
use super::tls::extensions::{EARLY_DATA, PRE_SHARED_KEY, version};
use super::tls::handshake::{ClientHello, ServerHello, kind};
use super::tls::keys::{Random, Secrets};
use super::tls::suite::Suite;
use super::{
    Cursor, Cx, Dissector, Malformed, Message, Outcome, Probe, Progress, Protocol, Role, Transport, Verdict, text,
};
use crate::entry::{Direction, Text, Timestamp, Value};
use frame::{Crypto, Frame, frames};
use packet::{Kind, Packet, Version};
use protection::{Keys, Mask};
use session::{Held, Session};

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

/// The most datagrams of a connection that wait for what is needed to open them.
const MAX_HELD: usize = 64;

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
    /// Packets of earlier connections that did not prove authentic.
    undecrypted: u64,
}

/// One connection during its handshake.
struct Connection {
    keys: [(Keys, Mask); 2],
    /// The destination connection id that they are derived from.
    dcid: Vec<u8>,
    client: Crypto,
    /// When its first packet was captured, and in which frame.
    since: (Timestamp, u64),
    /// The server asked for proof of the client's address, or for another version.
    retried: bool,
    bytes: u64,
    stage: Stage,
    version: Version,
    /// The server's handshake, as far as it is in the clear.
    server: Crypto,
    /// The client's random, which names the keys.
    random: Option<Random>,
    /// The suite that the server chose.
    suite: Option<u16>,
    /// The client announced data ahead of the server's answer, and nothing says yet that the server has not taken it.
    early: bool,
    /// Bytes of the connection ids that packets to server and client carry.
    short_ids: [usize; 2],
    offered: String,
    session: Option<Box<Session>>,
    /// The keys there were when it last looked for its own.
    looked: Option<u64>,
    reason: &'static str,
    held: Vec<Held>,
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
        let [(client, mask), _] = &keys;
        let (_, frames) = mask.open(client, packet, None)?;
        let connection = Self {
            keys,
            dcid: packet.dcid.to_vec(),
            client: Crypto::default(),
            since,
            retried: false,
            bytes: 0,
            stage: Stage::Hello,
            version: packet.version,
            server: Crypto::default(),
            random: None,
            suite: None,
            early: false,
            short_ids: [packet.dcid.len(), packet.scid.len()],
            offered: String::new(),
            session: None,
            looked: None,
            reason: "no key log given",
            held: Vec::new(),
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
        request.id = u64::MAX - count;
        request.bytes = self.bytes;
        self.random = hello.random.try_into().ok();
        self.early = hello.extensions.get(EARLY_DATA).is_some();
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
        self.offered.clone_from(&offered);
        self.stage = Stage::Asked(Box::new(request), offered);
    }

    /// The client starts again, as the server told it to: with other keys and perhaps another version.
    fn start_again(&mut self, next: Self) {
        self.keys = next.keys;
        self.dcid = next.dcid;
        self.version = next.version;
        self.short_ids = next.short_ids;
        self.client = Crypto::default();
        self.server = Crypto::default();
    }

    /// The `ClientHello` of one that started again; its random may be another.
    fn hello_again(&mut self, opened: &[u8]) {
        for frame in frames(opened) {
            if let Frame::Crypto(offset, data) = frame {
                self.client.add(offset, data);
            }
        }
        if let Some(body) = message(self.client.ready(), kind::CLIENT_HELLO)
            && let Ok(hello) = ClientHello::parse(body)
        {
            self.random = hello.random.try_into().ok();
        }
    }

    /// Takes what the server says in the clear, up to its choice of a cipher suite.
    fn listen(&mut self, datagram: &[u8]) {
        let [_, (keys, mask)] = &self.keys;
        for packet in Packet::all(datagram) {
            if matches!(packet.kind, Kind::Initial | Kind::Handshake) {
                let [to_server, _] = &mut self.short_ids;
                *to_server = packet.scid.len();
            }
            if packet.kind != Kind::Initial || self.suite.is_some() {
                continue;
            }
            if let Some((_, opened)) = mask.open(keys, &packet, None) {
                for frame in frames(&opened) {
                    if let Frame::Crypto(offset, data) = frame {
                        self.server.add(offset, data);
                    }
                }
            }
        }
        let hello = message(self.server.ready(), kind::SERVER_HELLO).and_then(|body| ServerHello::parse(body).ok());
        if let Some(hello) = hello {
            self.suite = Some(hello.cipher_suite);
            self.early &= hello.extensions.get(PRE_SHARED_KEY).is_some();
        }
    }

    /// Looks for the keys, once it is clear which are needed. `last`: what is not there yet will not come.
    fn unlock(&mut self, last: bool, number: u64, cx: &mut Cx<'_>) {
        let last = last || self.held.len() >= MAX_HELD;
        let keys = &cx.options.keys;
        let version = keys.version();
        let (Some(random), Some(suite)) = (self.random, self.suite) else { return };
        if self.session.is_some() || !keys.is_useful() || self.looked == Some(version) && !last {
            return;
        }
        self.looked = Some(version);
        let enough = |secrets: &Arc<Secrets>| last || secrets.is_complete(self.early) || !keys.may_grow();
        let Some(secrets) = keys.find(&random).filter(enough) else {
            self.reason = "the key log has no key for it";
            return;
        };
        let Some(suite) = Suite::of(suite).filter(|suite| suite.mac.is_none()) else {
            self.reason = "its cipher suite is not supported";
            return;
        };
        let (offered, ids) = (&self.offered, self.short_ids);
        let session = Session::new(self.version, suite, &secrets, offered, ids, number);
        let session = self.session.insert(Box::new(session));
        for held in std::mem::take(&mut self.held) {
            held.release(session, cx);
        }
    }

    /// What is in a datagram beside its Initial packets.
    fn inside(&mut self, direction: Direction, datagram: &[u8], cx: &mut Cx<'_>) {
        if let Some(session) = &mut self.session {
            session.datagram(direction, datagram, cx);
        } else if self.held.len() < MAX_HELD && cx.options.keys.is_useful() {
            self.held.push(Held::new(direction, datagram, cx));
        }
    }

    /// The server's first answer: its `ServerHello` if all of it is there, or the reason why not.
    fn answer(&self, datagram: &[u8], alpn: &str, count: u64, cx: &Cx<'_>) -> Message {
        let negotiated = self.session.as_ref().and_then(|session| session.alpn.clone());
        let mut response = Message::response(Direction::ToClient, negotiated.unwrap_or(alpn.to_owned()), false, cx);
        response.id = u64::MAX - count;
        response.bytes = datagram.len() as u64;
        let mut crypto = Crypto::default();
        let mut fields = Vec::new();
        let [_, (server, mask)] = &self.keys;
        for packet in Packet::all(datagram) {
            if packet.kind == Kind::Retry {
                fields.push(("retry".into(), true.into()));
            }
            let opened = if packet.kind == Kind::Initial { mask.open(server, &packet, None) } else { None };
            let opened = opened.map(|(_, frames)| frames).unwrap_or_default();
            for frame in frames(&opened) {
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
            fields.push(("decrypted".into(), self.session.is_some().into()));
            if self.session.is_none() {
                fields.push(("reason".into(), self.reason.into()));
            }
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
            Direction::ToClient => {
                if let Some(connection) = &mut self.connection {
                    connection.listen(bytes);
                }
            }
        }
        let before = cx.out.len();
        if let Some(connection) = &mut self.connection {
            connection.unlock(false, self.count, cx);
            connection.inside(direction, bytes, cx);
        }
        if direction == Direction::ToClient {
            // The connection's row comes first; what is inside only helped to make it.
            let inside = cx.out.split_off(before);
            self.server(bytes, cx);
            cx.out.extend(inside);
        }
        Ok(Progress::Consumed(bytes.len()))
    }

    fn close(&mut self, _direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        if let Some(connection) = &mut self.connection {
            // Keys may have come since the last datagram.
            connection.unlock(true, self.count, cx);
        }
        self.flush(cx);
    }

    fn held(&self) -> usize {
        let held = |connection: &Connection| {
            let datagrams: usize = connection.held.iter().map(|held| held.bytes.len()).sum();
            datagrams + connection.session.as_ref().map_or(0, |session| session.waiting())
        };
        self.connection.as_ref().map_or(0, held)
    }

    fn relieve(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        if let Some(connection) = &mut self.connection {
            connection.held.clear();
            if let Some(session) = &mut connection.session {
                session.relieve(direction, cx);
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let session = self.connection.as_ref().and_then(|connection| connection.session.as_ref());
        let undecrypted = self.undecrypted + session.map_or(0, |session| session.undecrypted());
        Outcome { undecrypted, ..Outcome::default() }
    }
}

impl Quic {
    /// A client's Initial packet: more of the connection at hand, or the first of another.
    fn client(&mut self, packet: &Packet<'_>, datagram: u64, cx: &mut Cx<'_>) {
        if let Some(connection) = &mut self.connection {
            let [(client, mask), _] = &connection.keys;
            if matches!(connection.stage, Stage::Hello) {
                if let Some((_, opened)) = mask.open(client, packet, None) {
                    connection.bytes += datagram;
                    connection.hello(packet, &opened, self.count, cx);
                    return;
                }
            } else if connection.dcid == packet.dcid {
                if connection.retried
                    && let Some((_, opened)) = mask.open(client, packet, None)
                {
                    connection.hello_again(&opened);
                }
                return;
            } else if connection.retried {
                if let Some((next, opened)) = Connection::open(packet, connection.since) {
                    connection.start_again(next);
                    connection.hello_again(&opened);
                }
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
        if connection.retried && connection.suite.is_none() && cx.options.keys.is_useful() {
            // What comes after the client started again says more.
            return;
        }
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
        let Some(mut connection) = self.connection.take() else { return };
        if let Stage::Asked(mut request, alpn) = connection.stage {
            request.role = Role::OneWay;
            request.status = alpn.into();
            cx.emit(*request);
        }
        if let Some(session) = &mut connection.session {
            session.close(cx);
            self.undecrypted += session.undecrypted();
        }
    }
}
