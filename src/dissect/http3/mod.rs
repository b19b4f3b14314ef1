//! HTTP/3 (RFC 9114), with the field compression of QPACK, inside of QUIC connections that are decrypted.
//!
//! Parsed: requests and responses with their content and trailers, settings as far as QPACK needs them; the rows are those of
//! HTTP/2, with version 3. **Not parsed**: pushes, priorities, datagrams and what else may run in a session (WebTransport).

mod qpack;
mod table;

use std::collections::BTreeMap;

use hashbrown::HashMap;

use self::qpack::{Decoder, Section};
use super::http2::hpack::List;
use super::http2::stream::{Block, Stream};
use super::quic::packet::varint;
use super::{Cursor, Cx, Malformed, Protocol, Transport, Verdict, quic};
use crate::entry::{Direction, Text, Timestamp};

/// Found within QUIC only: it has no bytes of its own.
pub static PROTOCOL: Protocol = Protocol {
    name: "http3",
    title: "HTTP/3",
    transport: Transport::Udp,
    ports: &[443],
    probe: |_| Verdict::No,
    new: quic::PROTOCOL.new,
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc9114",
};

/// The most requests of a connection that are held at once; past it the oldest is given up.
const MAX_STREAMS: usize = 1024;
/// The most unidirectional streams of a side whose kinds are remembered.
const MAX_CHANNELS: usize = 64;
/// The longest field section, as sent.
const MAX_SECTION: usize = 256 << 10;
/// The longest settings.
const MAX_SETTINGS: u64 = 4096;

/// Types of frames.
const DATA: u64 = 0;
const HEADERS: u64 = 1;
const SETTINGS: u64 = 4;
/// The setting that limits the other side's dynamic table.
const QPACK_MAX_TABLE_CAPACITY: u64 = 1;

/// How far it came with the bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many are done with; 0: it needs more.
    Done(usize),
    /// Other streams have to come first.
    Blocked,
    /// Nothing more of this stream is of interest.
    Ignore,
}

/// One connection.
#[derive(Default)]
pub(super) struct Http3 {
    /// By sender.
    sides: [Side; 2],
    requests: BTreeMap<u64, Request>,
    /// Tells the rows of one connection from those of others between the same ports.
    connection: u64,
    list: List,
}

#[derive(Default)]
struct Side {
    decoder: Decoder,
    channels: HashMap<u64, Channel>,
}

/// What a unidirectional stream is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    Control,
    Encoder,
}

/// A request's stream.
struct Request {
    stream: Stream,
    /// By sender: what is left of a frame of content, and of one that is passed over.
    left: [(u64, u64); 2],
}

impl Http3 {
    /// The `connection`th between two ports.
    pub fn new(connection: u64) -> Self {
        Self { connection, ..Self::default() }
    }

    fn side(&mut self, direction: Direction) -> &mut Side {
        direction.of(self.sides.each_mut())
    }

    /// Bytes of a stream, from where the last ones were done with. Its first byte came at `since`.
    ///
    /// # Errors
    /// If they are none of HTTP/3.
    pub fn data(
        &mut self,
        direction: Direction,
        id: u64,
        bytes: &[u8],
        since: (Timestamp, u64),
        cx: &mut Cx<'_>,
    ) -> Result<Step, Malformed> {
        match id & 3 {
            0 => self.request(direction, id, bytes, since, cx),
            2 | 3 => self.channel(direction, id, bytes),
            _ => Ok(Step::Ignore),
        }
    }

    /// A request's stream, in either direction.
    fn request(
        &mut self,
        direction: Direction,
        id: u64,
        bytes: &[u8],
        since: (Timestamp, u64),
        cx: &mut Cx<'_>,
    ) -> Result<Step, Malformed> {
        if self.requests.len() >= MAX_STREAMS
            && !self.requests.contains_key(&id)
            && let Some((_, mut oldest)) = self.requests.pop_first()
        {
            oldest.stream.finish(Some("too many open streams: its end is not awaited".into()), cx);
        }
        let row = self.connection << 48 ^ (id + 1);
        let request = self
            .requests
            .entry(id)
            .or_insert_with(|| Request { stream: Stream::new(row, Direction::ToServer, "3"), left: [(0, 0); 2] });
        let Some((content, skip)) = request.left.get_mut(direction.index()) else { return Ok(Step::Ignore) };
        if *skip > 0 {
            let taken = bytes.len().min(usize::try_from(*skip).unwrap_or(usize::MAX));
            *skip -= taken as u64;
            return Ok(Step::Done(taken));
        }
        if *content > 0 {
            let taken = bytes.len().min(usize::try_from(*content).unwrap_or(usize::MAX));
            *content -= taken as u64;
            request.stream.data(direction, bytes.get(..taken).unwrap_or_default(), 0, 0);
            return Ok(Step::Done(taken));
        }
        let mut cursor = Cursor::new(bytes);
        let (Ok(kind), Ok(length)) = (varint(&mut cursor), varint(&mut cursor)) else { return Ok(Step::Done(0)) };
        let head = cursor.position();
        match kind {
            DATA => {
                *content = length;
                request.stream.data(direction, &[], 0, head as u64);
                Ok(Step::Done(head))
            }
            HEADERS => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > MAX_SECTION {
                    return Err(Malformed("an endless header section"));
                }
                let Ok(section) = cursor.take(length) else { return Ok(Step::Done(0)) };
                let Self { sides, list, .. } = self;
                list.clear();
                let side = direction.of(sides.each_ref());
                if side.decoder.section(section, list)? == Section::Blocked {
                    return Ok(Step::Blocked);
                }
                let (time, packet) = since;
                let block = Block { direction, end: false, bytes: (head + length) as u64, time, packet };
                request.stream.headers(block, list, cx);
                Ok(Step::Done(head + length))
            }
            _ => {
                *skip = length;
                Ok(Step::Done(head))
            }
        }
    }

    /// A stream that goes one way.
    fn channel(&mut self, direction: Direction, id: u64, bytes: &[u8]) -> Result<Step, Malformed> {
        let side = self.side(direction);
        let Some(channel) = side.channels.get(&id).copied() else {
            let mut cursor = Cursor::new(bytes);
            let Ok(kind) = varint(&mut cursor) else { return Ok(Step::Done(0)) };
            let channel = match kind {
                0 => Channel::Control,
                2 => Channel::Encoder,
                _ => return Ok(Step::Ignore),
            };
            if side.channels.len() >= MAX_CHANNELS {
                return Ok(Step::Ignore);
            }
            side.channels.insert(id, channel);
            return Ok(Step::Done(cursor.position()));
        };
        if channel == Channel::Encoder {
            return side.decoder.instructions(bytes).map(Step::Done);
        }
        let mut cursor = Cursor::new(bytes);
        let (Ok(kind), Ok(length)) = (varint(&mut cursor), varint(&mut cursor)) else { return Ok(Step::Done(0)) };
        if kind != SETTINGS || length > MAX_SETTINGS {
            // They come first; the rest is of no interest.
            return Ok(Step::Ignore);
        }
        let Ok(settings) = cursor.take(length as usize) else { return Ok(Step::Done(0)) };
        let mut cursor = Cursor::new(settings);
        while let (Ok(setting), Ok(value)) = (varint(&mut cursor), varint(&mut cursor)) {
            if setting == QPACK_MAX_TABLE_CAPACITY {
                self.side(direction.reverse()).decoder.max_capacity = value;
            }
        }
        Ok(Step::Ignore)
    }

    /// `len` bytes of a stream are missing. True if it can be followed on.
    pub fn lose(&mut self, direction: Direction, id: u64, len: u64) -> bool {
        if let Some(request) = self.requests.get_mut(&id) {
            let Some((content, skip)) = request.left.get_mut(direction.index()) else { return false };
            if *content >= len {
                *content -= len;
                request.stream.lose(direction, len);
                return true;
            }
            if *skip >= len {
                *skip -= len;
                return true;
            }
            request.stream.lose_frames(direction);
            return false;
        }
        let side = self.side(direction);
        if id & 2 > 0 && side.channels.get(&id) != Some(&Channel::Control) {
            // Perhaps the encoder's.
            side.decoder.forget();
        }
        false
    }

    /// A side has sent all of a stream.
    pub fn end(&mut self, direction: Direction, id: u64, cx: &mut Cx<'_>) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.stream.data_end(direction, true, cx);
            if request.stream.is_over() {
                self.requests.remove(&id);
            }
        }
    }

    /// A side gave a stream up.
    pub fn reset(&mut self, direction: Direction, id: u64, code: u64, cx: &mut Cx<'_>) {
        if let Some(mut request) = self.requests.remove(&id) {
            request.stream.reset(direction, error_name(code), code != NO_ERROR, cx);
        }
    }

    /// The connection has ended.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        for request in self.requests.values_mut() {
            request.stream.finish_cut(cx);
        }
        self.requests.clear();
    }
}

/// The code that says that all is well.
const NO_ERROR: u64 = 0x100;

/// The name of an error (RFC 9114 section 8.1, RFC 9204 section 6).
fn error_name(code: u64) -> Text {
    Text::Borrowed(match code {
        NO_ERROR => "H3_NO_ERROR",
        0x101 => "H3_GENERAL_PROTOCOL_ERROR",
        0x102 => "H3_INTERNAL_ERROR",
        0x103 => "H3_STREAM_CREATION_ERROR",
        0x104 => "H3_CLOSED_CRITICAL_STREAM",
        0x105 => "H3_FRAME_UNEXPECTED",
        0x106 => "H3_FRAME_ERROR",
        0x107 => "H3_EXCESSIVE_LOAD",
        0x108 => "H3_ID_ERROR",
        0x109 => "H3_SETTINGS_ERROR",
        0x10a => "H3_MISSING_SETTINGS",
        0x10b => "H3_REQUEST_REJECTED",
        0x10c => "H3_REQUEST_CANCELLED",
        0x10d => "H3_REQUEST_INCOMPLETE",
        0x10e => "H3_MESSAGE_ERROR",
        0x10f => "H3_CONNECT_ERROR",
        0x110 => "H3_VERSION_FALLBACK",
        0x200 => "QPACK_DECOMPRESSION_FAILED",
        0x201 => "QPACK_ENCODER_STREAM_ERROR",
        0x202 => "QPACK_DECODER_STREAM_ERROR",
        _ => return format!("{code:#x}").into(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::dissect::Options;

    /// Calls with a context whose messages are dropped.
    fn with_context(call: impl FnOnce(&mut Cx<'_>)) {
        let options = Options { detail: true, ..Options::default() };
        let mut out = Vec::new();
        let mut cx = Cx {
            options: &options,
            transport: Transport::Udp,
            port: 443,
            start: true,
            ends: [(Ipv4Addr::LOCALHOST, 443).into(); 2],
            tap: 0,
            time: Timestamp::default(),
            now: Timestamp::default(),
            packet: 1,
            position: 0,
            cut: false,
            dropped: 0,
            hint: None,
            depth: 0,
            learnt: None,
            out: &mut out,
        };
        call(&mut cx);
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u8
        };
        for _ in 0..20_000 {
            with_context(|cx| {
                let mut http3 = Http3::new(1);
                for id in [2, 0, 3, 4] {
                    let direction = if random() & 1 > 0 { Direction::ToServer } else { Direction::ToClient };
                    let mut bytes: Vec<u8> = (0..random() % 60).map(|_| random()).collect();
                    // Mostly what comes far: a kind that is known, and a length that may fit.
                    for (at, likely) in [(0, random() % 5), (1, random() % 50)] {
                        if let Some(byte) = bytes.get_mut(at).filter(|_| random() % 8 > 0) {
                            *byte = likely;
                        }
                    }
                    let mut rest = &bytes[..];
                    while let Ok(Step::Done(used @ 1..)) =
                        http3.data(direction, id, rest, (Timestamp::default(), 1), cx)
                    {
                        rest = rest.get(used..).unwrap_or_default();
                    }
                    http3.lose(direction, id, u64::from(random()) << 54);
                    http3.end(direction, id, cx);
                }
                http3.close(cx);
            });
        }
    }
}
