//! TLS (RFC 8446, RFC 5246) and SSL 3.0 (RFC 6101) over TCP: one row a handshake.
//!
//! The row is there as soon as the handshake is over: after both sides changed their ciphers, when a client of TLS 1.3 sends
//! its first encrypted record, or with the alert that ends it. A `HelloRetryRequest` belongs to it. What follows is passed over
//! if its keys are not known. While they may still come, the row waits for them too. A connection whose `ClientHello` was not seen
//! has a row with its first application data, where keys or flows are asked for: nobody can tell what keys it has.
//!
//! If they are (see `keys`), all records are opened, and the application data in them goes to a flow inside, which is detected
//! and dissected like any other: its rows say that they were decrypted. The handshake's row then waits for the end of what is
//! encrypted of it, with the alert that may be there. Resumption, early data, key updates and renegotiations are followed.
//! Not decrypted are SSL 3.0, compressed records, Camellia, ARIA and other rare ciphers. Signatures and certificates are not
//! checked; MACs are, where records are opened.

pub(super) mod aead;
mod certificate;
mod cipher;
pub(super) mod extensions;
pub(super) mod handshake;
mod ja4;
pub mod keys;
mod messages;
mod opener;
mod premaster;
mod probe;
mod record;
mod resumption;
mod row;
pub(super) mod schedule;
mod session;
pub(super) mod suite;
mod unlock;
mod unseen;

use super::{Cx, Dissector, Malformed, Message, Outcome, Progress, Protocol, Recover, Transport};
use crate::entry::{Direction, Text, Timestamp, Value};
use handshake::kind;
use keys::{Random, Waiting};
use premaster::{Exchange, Transcript};
use probe::is_v2_hello;
pub(super) use record::Alert;
use record::{Content, Header};
use resumption::Resumption;
pub use session::usual;
use session::{Choice, Opened, Session};

pub static PROTOCOL: Protocol = Protocol {
    name: "tls",
    title: "TLS",
    transport: Transport::Tcp,
    ports: &[443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 5061, 5671, 6443, 8443, 8883, 9443, 10250],
    probe: probe::probe,
    new: || Box::new(Tls::default()),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc8446",
};

/// A dissector for a connection that speaks TLS from here on, as after STARTTLS.
#[must_use]
pub fn new_dissector() -> Box<dyn Dissector> {
    (PROTOCOL.new)()
}

/// One connection.
#[derive(Default)]
struct Tls {
    sides: [Side; 2],
    /// The row's request is out.
    asked: bool,
    /// The row's response, from the `ServerHello` on until the handshake is over.
    answer: Option<Message>,
    /// What a `HelloRetryRequest` says, should nothing follow it.
    retry: Option<Message>,
    /// The row's response is out.
    answered: bool,
    version_13: bool,
    /// The session that the client offered to resume (TLS 1.2 and older); kept for the detail only.
    session_id: Vec<u8>,
    /// Fields of the response's detail that came with other messages than the `ServerHello`.
    more: Vec<(Text, Value)>,
    /// The client's random, which names the keys.
    random: Option<Random>,
    /// The client announced data ahead of the server's answer.
    early: bool,
    /// What the server chose.
    choice: Option<Choice>,
    /// What a master secret may depend on, until the client's part of it is there.
    transcript: Option<Box<Transcript>>,
    exchange: Option<Exchange>,
    resumption: Resumption,
    /// What the application protocol negotiation came to.
    alpn: Option<&'static Protocol>,
    session: Option<Box<Session>>,
    /// Why it is not decrypted.
    closed: Option<Closed>,
    /// Records wait for keys that may still come.
    waiting: Option<Waiting>,
}

/// Why a connection is not decrypted.
#[derive(Clone, Copy)]
enum Closed {
    /// It has no keys.
    NoKeys,
    For(&'static str),
}

/// What one side has sent.
#[derive(Default)]
struct Side {
    /// A handshake message of which not all is there.
    partial: Vec<u8>,
    /// When its first byte was captured, and in which frame.
    since: Option<(Timestamp, u64)>,
    /// Its handshake messages can't be read any more, or only with keys.
    encrypted: bool,
    /// Bytes sent so far.
    bytes: u64,
    /// The frame of its first record that waits for the other side, or for keys.
    waits: Option<u64>,
    /// The size of a record of which not all is there.
    pending: Option<usize>,
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
        if let Some(progress) = self.hold(direction, &header, bytes.len(), cx) {
            return Ok(progress);
        }
        if self.session.is_none() && header.content == Content::ApplicationData {
            self.side(direction).bytes += size as u64;
            if !self.asked {
                self.join(direction, cx);
                return Ok(Progress::Ignore);
            }
            // The server's first ones of TLS 1.3 hold the rest of the handshake.
            let over = self.answer.is_some() && (direction == Direction::ToServer || !self.version_13);
            if over {
                self.finish(cx);
            }
            return Ok(if over || self.answered { Progress::Ignore } else { Progress::Consumed(size) });
        }
        let Some(record) = bytes.get(..size) else {
            self.side(direction).pending = Some(size);
            return Ok(Progress::Need(size - bytes.len()));
        };
        let side = self.side(direction);
        side.pending = None;
        side.bytes += size as u64;
        if let Some(session) = &mut self.session {
            let opened = session.open(direction, record, &header);
            self.opened(direction, opened, &header, record, cx)?;
            return Ok(Progress::Consumed(size));
        }
        let payload = record.get(record::HEADER..).unwrap_or_default();
        match header.content {
            Content::Handshake if !self.side(direction).encrypted => self.handshake(direction, payload, cx)?,
            // In TLS 1.3 it is there for the sake of old middleboxes only.
            Content::ChangeCipherSpec if self.choice.is_some() && !self.version_13 => {
                self.transcript = None;
                self.change_cipher(direction, cx);
                // While keys may come, it is not known how the row ends.
                if self.waiting.is_none() && self.is_sealed() {
                    self.finish(cx);
                }
            }
            Content::Alert if !self.side(direction).encrypted && !self.answered => {
                if let Some(alert) = Alert::parse(payload)
                    && self.alert(direction, alert, cx)
                {
                    self.finish(cx);
                    self.waiting = None;
                }
            }
            _ => {}
        }
        Ok(if self.answered && self.waiting.is_none() { Progress::Ignore } else { Progress::Consumed(size) })
    }

    fn cut(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        let Ok(Some(Header { content: Content::Handshake, .. })) = Header::parse(rest) else { return };
        if self.session.is_some() || self.side(direction).encrypted {
            return;
        }
        // The hellos come first in their records, and say the most at their front.
        let payload = rest.get(record::HEADER..).unwrap_or_default();
        if self.handshake(direction, payload, cx).is_err() {
            return;
        }
        let side = self.side(direction);
        let since = side.since.unwrap_or((cx.time(), cx.packet()));
        if let [kind @ (kind::CLIENT_HELLO | kind::SERVER_HELLO), _, _, _, body @ ..] =
            &*std::mem::take(&mut side.partial)
        {
            self.message(direction, *kind, body, since, cx);
        }
    }

    fn gap(&mut self, direction: Direction, len: u64, cx: &mut Cx<'_>) -> Recover {
        let side = self.side(direction);
        side.partial = Vec::new();
        side.since = None;
        side.waits = None;
        let pending = side.pending.take();
        let lost = len.saturating_add(cx.dropped() as u64);
        let Some(session) = &mut self.session else {
            // What waited for keys can't be put in its place any more.
            self.waiting = None;
            if direction == Direction::ToServer {
                self.resumption.lose();
            }
            return Recover::Resync;
        };
        let rest = pending.and_then(|size| (size as u64).checked_sub(lost));
        session.lose(direction, lost, rest.is_some(), cx);
        match rest {
            Some(rest) => Recover::Skip(rest as usize),
            None => Recover::Resync,
        }
    }

    fn close(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        if self.session.is_some() {
            // The other direction will not come first any more.
            self.side(direction.reverse()).waits = None;
            let mut rest = rest;
            while !rest.is_empty()
                && let Ok(Progress::Consumed(used)) = self.data(direction, rest, cx)
            {
                rest = rest.get(used..).unwrap_or_default();
            }
        }
        if direction == Direction::ToClient && self.answer.is_none() && !self.answered {
            self.answer = self.retry.take();
        }
        self.finish(cx);
        if let Some(session) = &mut self.session {
            session.close(direction, cx);
        }
    }

    fn waits_until(&self) -> Option<Timestamp> {
        self.waiting.as_ref().map(|waiting| waiting.until)
    }

    fn held(&self) -> usize {
        self.session.as_deref().map_or(0, Session::held)
    }

    fn relieve(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        if let Some(session) = &mut self.session {
            session.relieve(direction, cx);
        }
    }

    fn stop_waiting(&mut self, cx: &mut Cx<'_>) {
        self.unlock(true, cx);
        self.waiting = None;
        if self.session.is_none() && self.is_sealed() {
            self.finish(cx);
        }
    }

    fn outcome(&self) -> Outcome {
        self.session.as_deref().map(Session::outcome).unwrap_or_default()
    }
}

impl Tls {
    fn side(&mut self, direction: Direction) -> &mut Side {
        direction.of(self.sides.each_mut())
    }

    /// True if both sides have changed their ciphers, as before TLS 1.3.
    fn is_sealed(&self) -> bool {
        self.sides.iter().all(|side| side.encrypted)
    }

    /// A record whose keys are known, or may be.
    fn opened(
        &mut self,
        direction: Direction,
        opened: Opened,
        header: &Header,
        record: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<(), Malformed> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let (content, plain) = match opened {
            Opened::Clear => (header.content, None),
            Opened::Open(content) => (content, Some(std::mem::take(&mut session.plain))),
            Opened::Passed | Opened::Failed => {
                if opened == Opened::Failed {
                    session.warn();
                }
                let client = direction == Direction::ToServer && session.early != session::Early::Rejected;
                if client || session.has_finished(Direction::ToServer) {
                    self.finish(cx);
                }
                if let Some(session) = &mut self.session {
                    session.skip(direction, header.length as u64, cx);
                }
                return Ok(());
            }
        };
        // The client's part of the handshake is done; what the server says now, if no alert, says that its own is too.
        if content != Content::Alert && plain.is_some() && self.is_over(direction) {
            self.finish(cx);
        }
        let payload = plain.as_deref().or(record.get(record::HEADER..)).unwrap_or_default();
        let result = match content {
            Content::Handshake => self.handshake(direction, payload, cx),
            Content::ChangeCipherSpec => {
                if !self.version_13 {
                    self.change_cipher(direction, cx);
                }
                Ok(())
            }
            Content::Alert => {
                if let Some(alert) = Alert::parse(payload) {
                    if !self.answered && self.alert(direction, alert, cx) {
                        self.finish(cx);
                    }
                    if let Some(session) = &mut self.session
                        && !(alert.is_benign() && alert.description != 0)
                    {
                        session.close(direction, cx);
                    }
                }
                Ok(())
            }
            Content::ApplicationData | Content::Heartbeat => Ok(()),
        };
        if let (Some(session), Some(plain)) = (&mut self.session, plain) {
            session.plain = plain;
            if content == Content::ApplicationData {
                session.deliver(direction, cx);
            }
        }
        result
    }

    /// True if the handshake, as far as it is encrypted, is behind a side's record.
    fn is_over(&self, direction: Direction) -> bool {
        let Some(session) = &self.session else { return false };
        if self.version_13 {
            return direction == Direction::ToClient && session.has_finished(Direction::ToServer);
        }
        session.has_finished(Direction::ToServer) && session.has_finished(Direction::ToClient)
    }
}
