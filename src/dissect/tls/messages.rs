//! What the messages of a handshake settle for their connection.

use super::extensions::{EARLY_DATA, version};
use super::handshake::{self, ClientHello, ServerHello, encrypted_extensions, kind};
use super::premaster::Exchange;
use super::session::{Choice, negotiated};
use super::{Tls, certificate, extensions};
use crate::dissect::{Cursor, Cx, Malformed, Message};
use crate::entry::{Direction, Timestamp, Value};

/// The longest handshake message that is put together from several records: a long chain of certificates fits.
const MAX_HANDSHAKE: usize = 64 << 10;
/// The most certificates of one chain that are decoded.
const MAX_CERTIFICATES: usize = 10;

impl Tls {
    /// The payload of one handshake record: part of a message, one, or several.
    pub(super) fn handshake(&mut self, direction: Direction, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
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
    pub(super) fn message(
        &mut self,
        direction: Direction,
        kind: u8,
        body: &[u8],
        since: (Timestamp, u64),
        cx: &mut Cx<'_>,
    ) {
        if kind == kind::CLIENT_HELLO && self.session.is_none() && cx.options.keys.is_useful() {
            self.transcript = Some(Box::default());
        }
        if let Some(transcript) = self.transcript.as_mut().filter(|_| kind != kind::HELLO_REQUEST) {
            transcript.add(kind, body);
        }
        match (kind, direction) {
            (kind::CLIENT_HELLO, Direction::ToServer) => {
                let hello = ClientHello::begun(body);
                if !self.asked {
                    self.ask(&hello, since, handshake::HEADER + body.len(), cx);
                    self.early = hello.extensions.get(EARLY_DATA).is_some();
                }
                // Another one follows a HelloRetryRequest, or negotiates anew inside of the encryption.
                self.random = hello.random.try_into().ok();
                if cx.options.keys.is_useful() {
                    self.resumption.offer(&hello);
                }
            }
            (kind::SERVER_HELLO, Direction::ToClient) => {
                let Ok(hello) = ServerHello::parse(body) else { return };
                if cx.options.keys.is_useful() {
                    self.resumption.choose(&hello);
                }
                self.choose(&hello, since, cx);
            }
            (kind::NEW_SESSION_TICKET, Direction::ToClient) if !self.version_13 && cx.options.keys.is_useful() => {
                self.resumption.issue(body);
            }
            (kind::ENCRYPTED_EXTENSIONS, Direction::ToClient) if self.version_13 => {
                let Some(session) = &mut self.session else { return };
                let extensions = encrypted_extensions(body);
                session.decide_early(extensions.get(EARLY_DATA).is_some());
                if let Some(hint) = extensions.alpn().next().and_then(negotiated) {
                    session.hint(hint);
                }
                if cx.detail() && !self.answered {
                    let decoded = extensions::decode(extensions, false);
                    self.more.push(("encrypted_extensions".into(), decoded));
                }
            }
            (kind::CERTIFICATE, _) if cx.detail() && !self.answered && (!self.version_13 || self.session.is_some()) => {
                let chain = handshake::certificates(body, self.version_13).take(MAX_CERTIFICATES);
                let chain = chain.map(certificate::decode).collect();
                let name = match direction {
                    Direction::ToServer => "client_certificates",
                    Direction::ToClient => "certificates",
                };
                self.more.push((name.into(), Value::List(chain)));
            }
            (kind::CLIENT_KEY_EXCHANGE, Direction::ToServer) => {
                if let (Some(transcript), Some(random), Some(choice)) =
                    (self.transcript.take(), self.random, self.choice)
                {
                    self.exchange = Exchange::new(body, *transcript, random, &choice);
                    self.unlock(false, cx);
                }
            }
            (kind::END_OF_EARLY_DATA, Direction::ToServer) => {
                if let Some(session) = &mut self.session {
                    session.end_early();
                }
            }
            (kind::FINISHED, _) => {
                if let Some(session) = &mut self.session {
                    session.finish(direction);
                }
                if !self.version_13 && self.is_over(direction) {
                    self.finish(cx);
                }
            }
            (kind::KEY_UPDATE, _) => {
                if let Some(session) = &mut self.session {
                    session.update(direction);
                }
            }
            _ => {}
        }
    }

    /// A `ServerHello`: the first one starts the row's response, unless it asks for another `ClientHello`.
    fn choose(&mut self, hello: &ServerHello<'_>, since: (Timestamp, u64), cx: &mut Cx<'_>) {
        if hello.is_retry() {
            // Early data is void; it is not sent again before the handshake is over.
            self.early = false;
            if self.choice.is_none() {
                if cx.detail() {
                    self.more.push(("hello_retry_request".into(), hello.decode()));
                }
                let mut retry = Message::response(Direction::ToClient, version(hello.version()), false, cx);
                (retry.time, retry.packet) = since;
                self.retry = Some(retry);
            }
            return;
        }
        let choice = Choice::new(hello);
        if let Some(session) = &mut self.session {
            if let (Some(choice), Some(random), false) = (choice, self.random, self.version_13)
                && let Some(secrets) = cx.options.keys.find(&random)
            {
                // What can't be followed fails from the change of ciphers on, and is counted then.
                let _ = session.agree(secrets, &random, &choice);
            }
            return;
        }
        if self.choice.is_some() {
            return;
        }
        self.choice = choice;
        self.version_13 = hello.is_13();
        self.alpn = hello.extensions.alpn().next().and_then(negotiated);
        self.answer(hello, since, cx);
        self.unlock(false, cx);
        if self.version_13 || self.session.is_some() {
            self.transcript = None;
        }
    }
}
