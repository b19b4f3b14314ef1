//! The row of a handshake: its request is the `ClientHello`, its response what came of it.

use super::extensions::version;
use super::handshake::{ClientHello, ServerHello};
use super::{Closed, PROTOCOL, Tls};
use crate::dissect::tls::record::Alert;
use crate::dissect::{Cursor, Cx, Malformed, Message, Progress, Role};
use crate::entry::{Direction, Timestamp, Value};

/// Pairs the two halves of a row: there is one a connection, and no flow inside of it has such an id.
const ID: u64 = u64::MAX;

impl Tls {
    /// A `ClientHello` is the row's request.
    pub(super) fn ask(&mut self, hello: &ClientHello<'_>, since: (Timestamp, u64), size: usize, cx: &mut Cx<'_>) {
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

    /// A `ServerHello` starts the row's response.
    pub(super) fn answer(&mut self, hello: &ServerHello<'_>, since: (Timestamp, u64), cx: &mut Cx<'_>) {
        let mut response = Message::response(Direction::ToClient, version(hello.version()), false, cx);
        (response.time, response.packet) = since;
        if cx.detail() {
            response.detail = hello.decode();
            self.more.push(("resumed".into(), hello.resumes(&self.session_id).into()));
        }
        self.answer = Some(response);
    }

    /// Takes an alert; true if it ends the handshake.
    pub(super) fn alert(&mut self, direction: Direction, alert: Alert, cx: &mut Cx<'_>) -> bool {
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

    /// The handshake is over: its row is complete.
    pub(super) fn finish(&mut self, cx: &mut Cx<'_>) {
        let Some(mut response) = self.answer.take() else { return };
        self.answered = true;
        if !self.asked {
            return;
        }
        response.protocol = Some(PROTOCOL.name);
        response.id = ID;
        response.bytes = self.side(Direction::ToClient).bytes;
        response.warnings.extend(self.session.as_ref().and_then(|session| session.trouble()));
        // Of TLS 1.3, the server's part is encrypted from the row's response on.
        let began = self.version_13 && !response.failed || self.is_sealed();
        let reason = self.session.is_none().then(|| match self.closed {
            Some(Closed::For(why)) => why.into(),
            _ if !cx.options.keys.is_useful() => "no key log given".into(),
            Some(Closed::NoKeys) if began => cx.options.keys.missing(cx.tap, cx.ends),
            _ => "it ended before anything was encrypted".into(),
        });
        if cx.detail() {
            let mut fields = match std::mem::take(&mut response.detail) {
                Value::Map(fields) => fields,
                _ => Vec::new(),
            };
            fields.append(&mut self.more);
            fields.push(("decrypted".into(), self.session.is_some().into()));
            fields.extend(reason.map(|reason| ("reason".into(), reason.into())));
            response.detail = Value::Map(fields);
        }
        cx.emit(response);
    }

    /// The handshake was before the capture, or is lost: a row says so where keys or flows are asked for, and that what follows
    /// stays closed.
    pub(super) fn join(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        if !cx.options.keys.is_useful() && !cx.options.flows {
            return;
        }
        let mut message = Message::one_way(direction, "application data", "", cx);
        message.protocol = Some(PROTOCOL.name);
        message.bytes = self.side(direction).bytes;
        if cx.detail() {
            message.detail = crate::fields! { "decrypted" => false, "reason" => "its handshake was not seen" };
        }
        cx.emit(message);
    }

    /// The first message of a client that would have taken SSL 2.0 too. What follows is as usual.
    pub(super) fn v2_hello(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let length = usize::from(cursor.u16()? & 0x7fff);
        let Ok(message) = cursor.take(length) else { return Ok(Progress::Need(length - cursor.remaining())) };
        let hello = ClientHello::parse_v2(message)?;
        self.ask(&hello, (cx.time(), cx.packet()), cursor.position(), cx);
        Ok(Progress::Consumed(cursor.position()))
    }
}
