//! One connection whose secrets are known: opens its packets and hands its streams to HTTP/3.

use std::sync::Arc;

use hashbrown::HashMap;

use super::frame::{AppFrame, Crypto, app_frames};
use super::packet::{Kind, Packet, Version};
use super::protection::{Keys, Mask, next_secret};
use super::stream::Incoming;
use crate::dissect::http3::{Http3, Step};
use crate::dissect::tls::handshake::{encrypted_extensions, kind};
use crate::dissect::tls::keys::{Label, Secrets};
use crate::dissect::tls::suite::Suite;
use crate::dissect::{Cx, text};
use crate::entry::{Direction, Timestamp};

/// The most directions of streams that are followed at once.
const MAX_STREAMS: usize = 2048;
/// The most bytes of all streams that wait: for a hole to be filled, or to be read.
const MAX_WAITING: usize = 8 << 20;

/// A connection's keys, and its streams.
pub(super) struct Session {
    version: Version,
    suite: Suite,
    /// Where its keys came from.
    origin: &'static str,
    early: Option<(Keys, Mask)>,
    sides: [Side; 2],
    /// The server's handshake, as far as it is encrypted.
    crypto: Crypto,
    /// The application protocol that was negotiated, once that was read.
    pub alpn: Option<String>,
    /// None if the application protocol is another.
    http3: Option<Http3>,
    streams: HashMap<(u64, Direction), Incoming>,
    /// Bytes in them that wait.
    waiting: usize,
    undecrypted: u64,
}

/// What one side sends.
#[derive(Default)]
struct Side {
    handshake: Option<(Keys, Mask)>,
    application: Option<Application>,
    /// The highest numbers of packets, by kind of keys.
    largest_handshake: Option<u64>,
    largest: Option<u64>,
    /// Bytes of the connection id that its packets with short headers carry.
    connection_id: usize,
}

/// The keys of packets with short headers, which are updated from time to time.
struct Application {
    mask: Mask,
    secret: Vec<u8>,
    keys: Keys,
    phase: bool,
    /// For packets that are late.
    before: Option<Keys>,
}

impl Session {
    /// `offered`: the application protocol that the client wants most. `number`: which connection of its ports it is.
    pub fn new(
        version: Version,
        suite: Suite,
        secrets: &Arc<Secrets>,
        offered: &str,
        connection_ids: [usize; 2],
        number: u64,
    ) -> Self {
        let keys = |label| {
            let secret = secrets.get(label)?;
            Some((Keys::new(version, suite, secret)?, Mask::new(version, suite, secret)?))
        };
        let side = |handshake, application, connection_id| {
            let secret = secrets.get(application);
            let application = secret.and_then(|secret| {
                Some(Application {
                    mask: Mask::new(version, suite, secret)?,
                    keys: Keys::new(version, suite, secret)?,
                    secret: secret.to_vec(),
                    phase: false,
                    before: None,
                })
            });
            Side { handshake: keys(handshake), application, connection_id, ..Side::default() }
        };
        let [to_server, to_client] = connection_ids;
        Self {
            version,
            suite,
            origin: secrets.origin,
            early: keys(Label::ClientEarly),
            sides: [
                side(Label::ClientHandshake, Label::ClientTraffic, to_server),
                side(Label::ServerHandshake, Label::ServerTraffic, to_client),
            ],
            crypto: Crypto::default(),
            alpn: None,
            http3: is_http3(offered).then(|| Http3::new(number)),
            streams: HashMap::new(),
            waiting: 0,
            undecrypted: 0,
        }
    }

    /// Packets that did not prove authentic.
    pub fn undecrypted(&self) -> u64 {
        self.undecrypted
    }

    fn side(&mut self, direction: Direction) -> &mut Side {
        direction.of(self.sides.each_mut())
    }

    /// All packets of a datagram but the Initial ones.
    pub fn datagram(&mut self, direction: Direction, datagram: &[u8], cx: &mut Cx<'_>) {
        let before = cx.out.len();
        let mut at = 0;
        for packet in Packet::all(datagram) {
            at += packet.bytes.len();
            match packet.kind {
                Kind::Handshake => self.handshake(direction, &packet),
                Kind::ZeroRtt => {
                    let largest = self.side(direction).largest;
                    // If the server refuses them, they may be of another suite.
                    let opened = self.early.as_ref().and_then(|(keys, mask)| mask.open(keys, &packet, largest));
                    if opened.is_some() {
                        self.application(direction, opened, cx);
                    }
                }
                Kind::Initial | Kind::Retry => {}
            }
        }
        // Zeros fill datagrams up.
        if let Some(rest @ [1..0x80, ..]) = datagram.get(at..) {
            let opened = self.short(direction, rest);
            self.application(direction, opened, cx);
        }
        for message in cx.out.get_mut(before..).unwrap_or_default() {
            message.decrypted = Some(self.origin);
        }
    }

    /// The server's handshake tells the application protocol.
    fn handshake(&mut self, direction: Direction, packet: &Packet<'_>) {
        let side = self.side(direction);
        let Some((keys, mask)) = &side.handshake else { return };
        let Some((number, frames)) = mask.open(keys, packet, side.largest_handshake) else {
            self.undecrypted += 1;
            return;
        };
        side.largest_handshake = side.largest_handshake.max(Some(number));
        if direction == Direction::ToServer || self.alpn.is_some() {
            return;
        }
        for frame in app_frames(&frames) {
            if let AppFrame::Crypto(offset, data) = frame {
                self.crypto.add(offset, data);
            }
        }
        let Some(body) = super::message(self.crypto.ready(), kind::ENCRYPTED_EXTENSIONS) else { return };
        let Some(alpn) = encrypted_extensions(body).alpn().next().map(text::string) else { return };
        if !is_http3(&alpn) {
            self.http3 = None;
        }
        self.alpn = Some(alpn);
    }

    /// A packet with a short header.
    fn short(&mut self, direction: Direction, bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
        let (version, suite) = (self.version, self.suite);
        let side = self.side(direction);
        let (largest, number_at) = (side.largest, 1 + side.connection_id);
        let application = side.application.as_mut()?;
        let unmasked = application.mask.remove(bytes, number_at, largest)?;
        let number = unmasked.number();
        if unmasked.key_phase() == application.phase {
            return Some((number, application.keys.open(bytes, &unmasked)?));
        }
        let late = application.before.as_ref().filter(|_| largest.is_some_and(|largest| number < largest));
        if let Some(frames) = late.and_then(|keys| keys.open(bytes, &unmasked)) {
            return Some((number, frames));
        }
        let secret = next_secret(version, suite, &application.secret)?;
        let keys = Keys::new(version, suite, &secret)?;
        let frames = keys.open(bytes, &unmasked)?;
        application.secret = secret;
        application.before = Some(std::mem::replace(&mut application.keys, keys));
        application.phase = !application.phase;
        Some((number, frames))
    }

    /// The frames of a packet that carries application data.
    fn application(&mut self, direction: Direction, opened: Option<(u64, Vec<u8>)>, cx: &mut Cx<'_>) {
        let side = self.side(direction);
        let Some((number, frames)) = opened else {
            self.undecrypted += u64::from(side.application.is_some());
            return;
        };
        side.largest = side.largest.max(Some(number));
        if self.http3.is_none() {
            return;
        }
        let now = (cx.time(), cx.packet());
        let mut instructed = false;
        for frame in app_frames(&frames) {
            match frame {
                AppFrame::Stream { id, offset, data, last } => {
                    let key = (id, direction);
                    if !self.streams.contains_key(&key) && self.streams.len() >= MAX_STREAMS {
                        continue;
                    }
                    let full = self.waiting > MAX_WAITING;
                    let stream = self.streams.entry(key).or_default();
                    self.waiting -= stream.waiting();
                    stream.add(offset, data, last, now);
                    self.waiting += stream.waiting();
                    self.read(id, direction, full, cx);
                    instructed |= id & 2 > 0;
                }
                AppFrame::Reset { id, code } => {
                    if let Some(http3) = &mut self.http3 {
                        http3.reset(direction, id, code, cx);
                    }
                    self.forget(id, direction);
                }
                AppFrame::Close => self.close(cx),
                AppFrame::Crypto(..) | AppFrame::Other => {}
            }
        }
        if instructed {
            // What the encoder's stream brought may be what others wait for.
            self.read_blocked(direction, cx);
        }
    }

    fn forget(&mut self, id: u64, direction: Direction) {
        if let Some(stream) = self.streams.remove(&(id, direction)) {
            self.waiting -= stream.waiting();
        }
    }

    /// Hands on what is in order of a stream; `all`: holes will not be filled any more.
    fn read(&mut self, id: u64, direction: Direction, all: bool, cx: &mut Cx<'_>) {
        let now = (cx.time(), cx.packet());
        let (Some(http3), Some(stream)) = (&mut self.http3, self.streams.get_mut(&(id, direction))) else { return };
        self.waiting -= stream.waiting();
        loop {
            while !stream.ignored && !stream.ready().is_empty() {
                match http3.data(direction, id, stream.ready(), stream.since, cx) {
                    Ok(Step::Done(0) | Step::Blocked) if !stream.is_stuck() => break,
                    Ok(Step::Done(used)) if used > 0 => stream.consume(used, now),
                    _ => stream.ignore(),
                }
            }
            match stream.skip_hole(all, now) {
                Some(len) if !http3.lose(direction, id, len) => stream.ignore(),
                Some(_) => {}
                None => break,
            }
        }
        self.waiting += stream.waiting();
        if stream.is_over() {
            http3.end(direction, id, cx);
            self.forget(id, direction);
        }
    }

    /// Reads on in the streams of a side that waited for another.
    fn read_blocked(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        let waits = |(key, stream): (&(u64, Direction), &Incoming)| {
            (key.1 == direction && key.0 & 2 == 0 && !stream.ready().is_empty()).then_some(key.0)
        };
        let mut blocked: Vec<u64> = self.streams.iter().filter_map(waits).collect();
        blocked.sort_unstable();
        for id in blocked {
            self.read(id, direction, false, cx);
        }
    }

    /// Bytes of streams that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Reads all streams, holes or not, and nothing more of those of that direction of which bytes still wait.
    pub fn relieve(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        self.read_all(cx);
        for ((_, sender), stream) in &mut self.streams {
            if *sender == direction && stream.waiting() > 0 {
                self.waiting -= stream.waiting();
                stream.ignore();
            }
        }
    }

    fn read_all(&mut self, cx: &mut Cx<'_>) {
        let mut open: Vec<(u64, Direction)> = self.streams.keys().copied().collect();
        // What tells how to read the others comes first, then requests before responses.
        open.sort_unstable_by_key(|(id, direction)| (id & 2 == 0, *id, *direction));
        for (id, direction) in open {
            self.read(id, direction, true, cx);
        }
    }

    /// The connection has ended: what is open is told as far as it came.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        let before = cx.out.len();
        self.read_all(cx);
        self.streams.clear();
        self.waiting = 0;
        if let Some(http3) = &mut self.http3 {
            http3.close(cx);
        }
        for message in cx.out.get_mut(before..).unwrap_or_default() {
            message.decrypted = Some(self.origin);
        }
    }
}

/// A datagram that came before it could be opened.
pub(super) struct Held {
    pub direction: Direction,
    pub bytes: Vec<u8>,
    time: Timestamp,
    packet: u64,
}

impl Held {
    pub fn new(direction: Direction, bytes: &[u8], cx: &Cx<'_>) -> Self {
        Self { direction, bytes: bytes.to_vec(), time: cx.time(), packet: cx.packet() }
    }

    /// Lets `session` have it, as of its own time.
    pub fn release(&self, session: &mut Session, cx: &mut Cx<'_>) {
        let (time, packet) = (cx.time, cx.packet);
        (cx.time, cx.packet) = (self.time, self.packet);
        session.datagram(self.direction, &self.bytes, cx);
        (cx.time, cx.packet) = (time, packet);
    }
}

/// True for HTTP/3 and its drafts.
fn is_http3(alpn: &str) -> bool {
    alpn == "h3" || alpn.starts_with("h3-")
}
