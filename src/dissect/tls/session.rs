//! One connection whose secrets are known: opens its records and drives the dissection of what is inside.

use std::sync::Arc;

use super::extensions::{ENCRYPT_THEN_MAC, EXTENDED_MASTER_SECRET, PRE_SHARED_KEY, TRUNCATED_HMAC};
use super::handshake::ServerHello;
use super::keys::{Label, Random, Secrets};
use super::opener::{Agreement, Draft, Opener};
use super::record::{self, Content, Header};
use super::suite::Suite;
use crate::dissect::{Cx, Delivery, Driver, Message, Options, Outcome, PROTOCOLS, Protocol, Role, Transport, find};
use crate::entry::{Direction, Text};
use crate::flow::reassembly::Stamp;

/// How many records in a row may fail before a direction is given up: its keys are others.
const MAX_FAILURES: u32 = 32;
/// The most lost records that are reckoned with when their number is not known.
const MAX_LOST: u64 = 1024;
/// The most bytes of a direction that are opened in vain to find out how many records are lost.
const MAX_SEARCH: u64 = 64 << 20;
/// How deep encrypted connections may be inside of each other.
const MAX_DEPTH: u8 = 4;

/// What a `ServerHello` settles.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub version: u16,
    pub modern: bool,
    pub suite: u16,
    /// In TLS 1.3: it goes on from a key of before.
    pub resumes: bool,
    pub random: Random,
    pub extended_master_secret: bool,
    compressed: bool,
    encrypt_then_mac: bool,
    truncated_hmac: bool,
}

impl Choice {
    pub fn new(hello: &ServerHello<'_>) -> Option<Self> {
        Some(Self {
            version: hello.version(),
            modern: hello.is_13(),
            suite: hello.cipher_suite,
            resumes: hello.extensions.get(PRE_SHARED_KEY).is_some(),
            random: hello.random.try_into().ok()?,
            extended_master_secret: hello.extensions.get(EXTENDED_MASTER_SECRET).is_some(),
            compressed: hello.compression_method != 0,
            encrypt_then_mac: hello.extensions.get(ENCRYPT_THEN_MAC).is_some(),
            truncated_hmac: hello.extensions.get(TRUNCATED_HMAC).is_some(),
        })
    }
}

/// Whether what a client of TLS 1.3 sends before the server has answered is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// There is none.
    None,
    /// The server has not said yet.
    Undecided,
    Accepted,
    /// It is sent again; what can't be opened is passed over.
    Rejected,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is not encrypted.
    Clear,
    /// Its content is in [`Session::plain`].
    Open(Content),
    /// There is no key for it.
    Passed,
    /// It is not authentic.
    Failed,
}

/// A connection's keys, and the flow inside.
pub(super) struct Session {
    secrets: Arc<Secrets>,
    suite: Suite,
    modern: bool,
    /// Which draft of TLS 1.3, if it is one.
    draft: Draft,
    readers: [Reader; 2],
    pub early: Early,
    /// The content of the last record that was opened.
    pub plain: Vec<u8>,
    inner: Driver,
    undecrypted: u64,
    /// What the next row should tell.
    warning: Option<Text>,
}

/// One side's records.
#[derive(Default)]
struct Reader {
    now: Option<Opener>,
    /// TLS 1.2 and older: from the next `ChangeCipherSpec` on.
    next: Option<Opener>,
    /// TLS 1.3: the secrets from the present one on.
    labels: &'static [Label],
    /// The handshake's last message was there.
    finished: bool,
    /// Records that may be missing before the next one.
    lost: u64,
    /// Failures in a row.
    failures: u32,
    /// Bytes that were opened in vain.
    searched: u64,
}

impl Session {
    /// The connection with those secrets; or why it can't be decrypted.
    pub fn new(
        secrets: Arc<Secrets>,
        client_random: &Random,
        choice: &Choice,
        early: bool,
        hint: Option<&'static Protocol>,
        cx: &Cx<'_>,
    ) -> Result<Box<Self>, &'static str> {
        let suite = Suite::of(choice.suite).ok_or("its cipher suite is not supported")?;
        if cx.depth >= MAX_DEPTH {
            return Err("it is inside of too many others");
        }
        let flow = Delivery {
            transport: Transport::Tcp,
            port: cx.port,
            start: true,
            certain: true,
            ends: cx.ends,
            tap: cx.tap,
            hint: hint.or(cx.hint).or_else(|| usual(cx.port)),
            depth: cx.depth + 1,
        };
        let mut this = Box::new(Self {
            suite,
            modern: choice.modern,
            draft: Draft::of(choice.version),
            readers: <[Reader; 2]>::default(),
            early: if early { Early::Undecided } else { Early::None },
            plain: Vec::new(),
            inner: Driver::new(flow, cx.options),
            undecrypted: 0,
            warning: None,
            secrets,
        });
        if choice.modern {
            if suite.mac.is_some() {
                return Err("its cipher suite is none of TLS 1.3");
            }
            let [client, server] = &mut this.readers;
            client.labels = &[Label::ClientHandshake, Label::ClientTraffic];
            server.labels = &[Label::ServerHandshake, Label::ServerTraffic];
            this.start(Direction::ToServer);
            this.start(Direction::ToClient);
        } else {
            this.agree(Arc::clone(&this.secrets), client_random, choice)?;
        }
        Ok(this)
    }

    /// What comes after the next `ChangeCipherSpec` of each side, in TLS 1.2 and older.
    pub fn agree(
        &mut self,
        secrets: Arc<Secrets>,
        client_random: &Random,
        choice: &Choice,
    ) -> Result<(), &'static str> {
        if choice.compressed {
            return Err("it is compressed");
        }
        if choice.version < 0x0301 {
            return Err("it is of SSL 3.0");
        }
        let suite = Suite::of(choice.suite).ok_or("its cipher suite is not supported")?;
        let openers = Opener::pair(&Agreement {
            version: choice.version,
            suite,
            master: secrets.get(Label::Master).ok_or("the key log has no master secret for it")?,
            client_random,
            server_random: &choice.random,
            encrypt_then_mac: choice.encrypt_then_mac,
            truncated_hmac: choice.truncated_hmac,
        });
        let [client, server] = openers.ok_or("its cipher suite is not supported")?;
        for (reader, opener) in self.readers.iter_mut().zip([client, server]) {
            reader.next = Some(opener);
        }
        self.secrets = secrets;
        Ok(())
    }

    /// A `ChangeCipherSpec` of TLS 1.2 or older.
    pub fn change_cipher(&mut self, direction: Direction) {
        let reader = self.reader(direction);
        if let Some(next) = reader.next.take() {
            reader.now = Some(next);
            reader.lost = 0;
            reader.failures = 0;
        }
    }

    /// The first secret of a side of TLS 1.3 is in use.
    fn start(&mut self, direction: Direction) {
        let (suite, draft, secrets) = (self.suite, self.draft, Arc::clone(&self.secrets));
        let reader = self.reader(direction);
        let secret = reader.labels.first().and_then(|label| secrets.get(*label));
        reader.now = secret.and_then(|secret| Opener::modern(suite, secret, draft));
    }

    /// A side of TLS 1.3 goes on with the secret that follows this one.
    fn advance(&mut self, direction: Direction, from: Label) {
        let reader = self.reader(direction);
        if let [first, rest @ ..] = reader.labels
            && *first == from
        {
            reader.labels = rest;
            self.start(direction);
        }
    }

    /// The server said whether it takes early data.
    pub fn decide_early(&mut self, accepted: bool) {
        if self.early != Early::Undecided {
            return;
        }
        self.early = if accepted { Early::Accepted } else { Early::Rejected };
        if accepted {
            let client = self.reader(Direction::ToServer);
            client.labels = &[Label::ClientEarly, Label::ClientHandshake, Label::ClientTraffic];
            self.start(Direction::ToServer);
        }
    }

    /// True while nobody can tell what the direction's records are.
    pub fn is_blocked(&self, direction: Direction) -> bool {
        direction == Direction::ToServer && self.early == Early::Undecided
    }

    /// `EndOfEarlyData` of a client.
    pub fn end_early(&mut self) {
        self.advance(Direction::ToServer, Label::ClientEarly);
    }

    /// `Finished` of a side.
    pub fn finish(&mut self, direction: Direction) {
        self.reader(direction).finished = true;
        if self.modern {
            self.advance(
                direction,
                if direction == Direction::ToServer { Label::ClientHandshake } else { Label::ServerHandshake },
            );
        }
    }

    /// True if the side has sent its `Finished`, or is past it.
    pub fn has_finished(&self, direction: Direction) -> bool {
        let reader = direction.of(self.readers.each_ref());
        reader.finished || self.modern && matches!(reader.labels, [Label::ClientTraffic | Label::ServerTraffic])
    }

    /// `KeyUpdate` of a side of TLS 1.3.
    pub fn update(&mut self, direction: Direction) {
        let reader = self.reader(direction);
        if reader.finished && self.modern {
            let reader = self.reader(direction);
            reader.now = reader.now.as_ref().and_then(Opener::updated);
        }
    }

    fn reader(&mut self, direction: Direction) -> &mut Reader {
        direction.of(self.readers.each_mut())
    }

    /// Opens a record.
    pub fn open(&mut self, direction: Direction, bytes: &[u8], header: &Header) -> Opened {
        let (Some(head), Some(payload)) = (bytes.first_chunk::<{ record::HEADER }>(), bytes.get(record::HEADER..))
        else {
            return Opened::Passed;
        };
        let mut plain = std::mem::take(&mut self.plain);
        let opened = self.open_into(direction, *head, payload, header.content, &mut plain);
        self.plain = plain;
        match opened {
            Opened::Open(_) => {
                let reader = self.reader(direction);
                reader.lost = 0;
                reader.failures = 0;
                if direction == Direction::ToServer && self.early == Early::Rejected {
                    self.early = Early::None;
                }
            }
            Opened::Failed => {
                self.undecrypted += 1;
                let reader = self.reader(direction);
                reader.failures += 1;
                if let Some(now) = &mut reader.now {
                    now.pass(1);
                    if now.needs_all() || reader.failures > MAX_FAILURES {
                        // Its records can't be told any more.
                        reader.failures = MAX_FAILURES + 1;
                    }
                }
            }
            _ => {}
        }
        opened
    }

    fn open_into(
        &mut self,
        direction: Direction,
        head: [u8; record::HEADER],
        payload: &[u8],
        content: Content,
        plain: &mut Vec<u8>,
    ) -> Opened {
        let (modern, suite, draft, secrets) = (self.modern, self.suite, self.draft, Arc::clone(&self.secrets));
        let rejected = direction == Direction::ToServer && self.early == Early::Rejected;
        let reader = self.reader(direction);
        if modern && content != Content::ApplicationData {
            return Opened::Clear;
        }
        if reader.failures > MAX_FAILURES {
            return Opened::Passed;
        }
        if !modern && reader.now.is_none() {
            // Application data is never in the clear: what told so is missing.
            if content != Content::ApplicationData || reader.next.is_none() {
                return Opened::Clear;
            }
            reader.now = reader.next.take();
            reader.lost = reader.lost.max(1);
        }
        let lost = reader.lost;
        let mut found = reader.now.as_mut().and_then(|now| now.open(head, payload, lost, plain));
        if found.is_none() && modern {
            // The messages that told of a change may be missing.
            for skipped in 1..reader.labels.len() {
                let Some(labels) = reader.labels.get(skipped..) else { break };
                let secret = labels.first().and_then(|label| secrets.get(*label));
                let Some(mut later) = secret.and_then(|secret| Opener::modern(suite, secret, draft)) else { continue };
                found = later.open(head, payload, lost, plain);
                if found.is_some() {
                    reader.labels = labels;
                    reader.now = Some(later);
                    break;
                }
            }
        }
        if found.is_none() && lost > 0 {
            reader.searched += lost * payload.len() as u64;
            if reader.searched > MAX_SEARCH {
                reader.lost = 0;
            }
        }
        match found.and_then(Content::of) {
            Some(content) => Opened::Open(content),
            None if reader.now.is_none() || rejected => Opened::Passed,
            None => Opened::Failed,
        }
    }

    /// Bytes of a side's stream are missing. If they are `within` one record, that is the only one lost.
    pub fn lose(&mut self, direction: Direction, len: u64, within: bool, cx: &mut Cx<'_>) {
        let reader = self.reader(direction);
        if within && let Some(now) = &mut reader.now {
            now.pass(1);
        } else {
            let records = len / (record::HEADER as u64 + 16) + 2;
            let most = if reader.searched > MAX_SEARCH { 0 } else { MAX_LOST };
            reader.lost = reader.lost.saturating_add(records).min(most);
        }
        if reader.now.as_ref().is_some_and(Opener::needs_all) {
            reader.failures = MAX_FAILURES + 1;
        }
        self.skip(direction, len, cx);
    }

    /// The flow inside lacks bytes.
    pub fn skip(&mut self, direction: Direction, len: u64, cx: &mut Cx<'_>) {
        let lost = self.within(cx, |inner, options, out| inner.gap(direction, len.max(1), options, out));
        if let Some(direction) = lost {
            cx.emit(Message::new(Role::Lost, direction, cx));
        }
    }

    /// Says that a record did not prove authentic, with the next row of what is inside.
    pub fn warn(&mut self) {
        self.warning = Some(format!("{} before this", undecrypted(self.undecrypted)).into());
    }

    /// What to tell of records that did not prove authentic.
    pub fn trouble(&self) -> Option<Text> {
        (self.undecrypted > 0).then(|| undecrypted(self.undecrypted).into())
    }

    /// Application data goes on to the flow inside.
    pub fn deliver(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        let stamp = Stamp { time: cx.time, packet: cx.packet, position: cx.position };
        let plain = std::mem::take(&mut self.plain);
        if !plain.is_empty() {
            self.within(cx, |inner, options, out| inner.data(direction, &plain, stamp, options, out));
        }
        self.plain = plain;
    }

    /// A side has ended.
    pub fn close(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        let cut = cx.cut;
        self.within(cx, |inner, options, out| inner.close(direction, cut, options, out));
    }

    /// How many bytes of memory what waits inside takes.
    pub fn held(&self) -> usize {
        self.inner.held()
    }

    /// Gives up what waits inside.
    pub fn relieve(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        self.within(cx, |inner, options, out| inner.relieve(direction, options, out));
    }

    /// Calls the driver of what is inside, and marks the messages that come out.
    fn within<T>(&mut self, cx: &mut Cx<'_>, call: impl FnOnce(&mut Driver, &Options, &mut Vec<Message>) -> T) -> T {
        let (before, origin) = (cx.out.len(), self.secrets.origin);
        let result = call(&mut self.inner, cx.options, cx.out);
        let messages = cx.out.get_mut(before..).unwrap_or_default();
        if let Some(first) = messages.first_mut() {
            first.warnings.extend(self.inner.take_warning());
            first.warnings.extend(self.warning.take());
        }
        for message in messages {
            message.protocol = Some(self.inner.row_protocol(message));
            message.decrypted = message.decrypted.or(Some(origin));
        }
        result
    }

    /// What became of the flow inside.
    pub fn outcome(&self) -> Outcome {
        let inner = self.inner.outcome();
        Outcome { undecrypted: inner.undecrypted + self.undecrypted, ..inner }
    }

    /// What the flow inside is said to be, now that it is known.
    pub fn hint(&mut self, hint: &'static Protocol) {
        self.inner.hint(hint);
    }
}

fn undecrypted(records: u64) -> String {
    match records {
        1 => "the keys do not fit a TLS record".to_owned(),
        _ => format!("the keys do not fit {records} TLS records"),
    }
}

/// What a client and server mean to speak inside, by their application protocol negotiation.
pub(super) fn negotiated(alpn: &[u8]) -> Option<&'static Protocol> {
    find(match alpn {
        b"http/1.0" | b"http/1.1" => "http",
        b"h2" | b"grpc-exp" => "http2",
        b"dot" => "dns",
        other => std::str::from_utf8(other).ok()?,
    })
}

/// What usually is inside of TLS at that port, told from the port where it is spoken without.
pub fn usual(port: u16) -> Option<&'static Protocol> {
    let plain = match port {
        443 | 6443 | 8443 | 9443 | 10250 => 80,
        853 => 53,
        636 => 389,
        5671 => 5672,
        6380 => 6379,
        8883 => 1883,
        9093 => 9092,
        9142 => 9042,
        11212 => 11211,
        other => other,
    };
    let carried = |protocol: &&Protocol| matches!(protocol.transport, Transport::Tcp | Transport::Both);
    PROTOCOLS.iter().copied().filter(carried).find(|protocol| protocol.ports.contains(&plain))
}
