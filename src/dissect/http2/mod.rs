//! HTTP/2, with prior knowledge, after an upgrade, or joined later. Spec: RFC 9113, with the header compression of RFC 7541.
//!
//! Parsed: header blocks, content, trailers, pushed requests, resets; the rows are named `http` with version 2, or what they
//! carry. **Not parsed**: priorities, flow control, WebSocket and other tunnels within a stream. Responses answer the
//! request of their stream.

mod frame;
pub(super) mod hpack;
mod huffman;
pub(super) mod stream;

use std::collections::BTreeMap;

use self::frame::{END_HEADERS, END_STREAM, Frame, HEAD, Kind, PREFACE};
use self::hpack::{Decoder, List};
use self::stream::{Block, Stream};
use super::grpc::Learnt;
use super::http::Draft;
use super::{Cursor, Cx, Dissector, Malformed, Probe, Progress, Protocol, Recover, Transport, Verdict};
use crate::entry::Direction;

pub static PROTOCOL: Protocol = Protocol {
    name: "http2",
    title: "HTTP/2",
    transport: Transport::Tcp,
    ports: &[50051],
    probe,
    new: || Box::<Http2>::default(),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc9113",
};

/// The most streams of a connection that are held at once; past it the oldest is given up.
const MAX_STREAMS: usize = 1024;
/// The longest header block, as sent.
const MAX_BLOCK: usize = 256 * 1024;

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.data;
    match probe.direction {
        Direction::ToServer if data.starts_with(PREFACE) => Verdict::Yes,
        Direction::ToServer if PREFACE.starts_with(data) => Verdict::More,
        // A client that speaks first speaks the preface.
        Direction::ToServer if probe.start => Verdict::No,
        // And a server its settings.
        Direction::ToClient if probe.start && data.get(3).is_some_and(|&kind| kind != 4) => Verdict::No,
        direction => frame::probe_frames(data, direction),
    }
}

/// A dissector for a connection whose request asked for HTTP/2 and got `switching` for a response.
#[must_use]
pub fn after_upgrade(switching: Draft, rows: usize) -> Box<dyn Dissector> {
    let asks = switching.message.direction.reverse();
    let mut http2 = Http2::default();
    for side in &mut http2.sides {
        side.decoder = Some(Decoder::new());
    }
    http2.streams.insert(1, Stream::upgraded(asks, rows, switching));
    Box::new(http2)
}

/// One connection.
#[derive(Default)]
struct Http2 {
    sides: [Side; 2],
    streams: BTreeMap<u32, Stream>,
    /// The fields of the last block.
    list: List,
    /// What its gRPC server told of itself.
    learnt: Option<Box<Learnt>>,
}

/// One direction.
#[derive(Default)]
struct Side {
    /// Present once the first bytes have come.
    decoder: Option<Decoder>,
    /// The preface has been passed, or does not come.
    started: bool,
    content: Option<Content>,
    open: Option<Open>,
}

/// A DATA frame under way.
struct Content {
    stream: u32,
    left: u32,
    padding: u32,
    end: bool,
}

/// A header block that goes on in another frame.
struct Open {
    /// The stream of its frames.
    on: u32,
    /// The stream that it is about: another one, if that is promised.
    stream: u32,
    promised: bool,
    block: Block,
    fragments: Vec<u8>,
}

impl Dissector for Http2 {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        self.tell(cx);
        let side = self.side(direction);
        if side.content.is_some() {
            return Ok(Progress::Consumed(self.content(direction, bytes, cx)));
        }
        if !side.started {
            if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) {
                return Ok(Progress::Need(PREFACE.len() - bytes.len()));
            }
            side.started = true;
            let decoder = || if cx.start() { Decoder::new() } else { Decoder::joined() };
            if bytes.starts_with(PREFACE) {
                side.decoder = Some(Decoder::new());
                return Ok(Progress::Consumed(PREFACE.len()));
            }
            side.decoder.get_or_insert_with(decoder);
        }
        let mut cursor = Cursor::new(bytes);
        let Ok(frame) = Frame::parse(&mut cursor) else { return Ok(Progress::Need(HEAD - bytes.len())) };
        let frame = frame?;
        let len = frame.len as usize;
        let goes_on = side.open.as_ref().is_some_and(|open| open.on == frame.stream);
        if side.open.is_some() && !(goes_on && frame.kind == Kind::Continuation) {
            return Err(Malformed("a header block that does not go on"));
        }
        match frame.kind {
            Kind::Data => {
                let padding = if frame.is_padded() {
                    let Ok(padding) = cursor.u8() else { return Ok(Progress::Need(1)) };
                    u32::from(padding) + 1
                } else {
                    0
                };
                let left = frame.len.checked_sub(padding).ok_or(Malformed("more padding than payload"))?;
                Ok(Progress::Consumed(self.open_content(direction, frame, left, padding, cursor.position(), cx)))
            }
            Kind::Headers | Kind::PushPromise | Kind::Continuation => {
                if len > MAX_BLOCK {
                    return Err(Malformed("an endless header block"));
                }
                let Ok(payload) = cursor.take(len) else { return Ok(Progress::Need(len - cursor.remaining())) };
                self.fragment(direction, frame, payload, cx)?;
                Ok(Progress::Consumed(cursor.position()))
            }
            Kind::Reset => {
                let Ok(code) = cursor.u32() else { return Ok(Progress::Need(4 - cursor.remaining())) };
                if let Some(mut stream) = self.streams.remove(&frame.stream) {
                    stream.reset(direction, frame::error_name(code), code > 0, cx);
                }
                Ok(Progress::Consumed(cursor.position()))
            }
            _ => Ok(Progress::Consumed(HEAD + len)),
        }
    }

    fn gap(&mut self, direction: Direction, len: u64, cx: &mut Cx<'_>) -> Recover {
        self.tell(cx);
        let side = self.side(direction);
        if let Some(content) = &mut side.content
            && len > 0
            && u64::from(content.left) >= len
        {
            content.left -= len as u32;
            let stream = content.stream;
            if let Some(stream) = self.streams.get_mut(&stream) {
                stream.lose(direction, len);
            }
            self.content(direction, &[], cx);
            return Recover::Continue;
        }
        side.content = None;
        side.open = None;
        side.started = true;
        // Header blocks may be among what is missing; without them the later ones say less.
        side.decoder.get_or_insert_with(Decoder::joined).forget();
        for stream in self.streams.values_mut() {
            stream.lose_frames(direction);
        }
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        self.tell(cx);
        // A client may close its half and still be answered.
        if direction == Direction::ToClient {
            for stream in self.streams.values_mut() {
                stream.finish_cut(cx);
            }
            self.streams.clear();
        }
    }
}

impl Http2 {
    /// Lets rows know what the server told of itself.
    fn tell(&self, cx: &mut Cx<'_>) {
        cx.learnt = self.learnt.as_ref().map(|learnt| learnt.descriptors.clone());
    }

    fn side(&mut self, direction: Direction) -> &mut Side {
        direction.of(self.sides.each_mut())
    }

    /// A DATA frame begins: `left` bytes of content, after `head` bytes. Returns how much is done with.
    fn open_content(
        &mut self,
        direction: Direction,
        frame: Frame,
        left: u32,
        padding: u32,
        head: usize,
        cx: &mut Cx<'_>,
    ) -> usize {
        let end = frame.flags & END_STREAM > 0;
        let stream = self.streams.get_mut(&frame.stream);
        let framing = (HEAD + padding as usize) as u64;
        if stream.as_ref().is_none_or(|stream| stream.keeps(direction) == 0) {
            // Nobody looks at it.
            if let Some(stream) = stream {
                stream.data(direction, &[], u64::from(left), framing);
                stream.data_end(direction, end, cx);
            }
            self.forget(frame.stream);
            return HEAD + frame.len as usize;
        }
        if let Some(stream) = stream {
            stream.data(direction, &[], 0, framing);
        }
        let padding = padding.saturating_sub(1);
        self.side(direction).content = Some(Content { stream: frame.stream, left, padding, end });
        self.content(direction, &[], cx);
        head
    }

    /// Bytes within a DATA frame. Returns how many are done with.
    fn content(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> usize {
        let side = self.side(direction);
        let Some(content) = &mut side.content else { return 0 };
        let taken = bytes.len().min(content.left as usize);
        content.left -= taken as u32;
        let Content { stream: id, left, padding, end } = *content;
        if left == 0 {
            side.content = None;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.data(direction, bytes.get(..taken).unwrap_or_default(), 0, 0);
            if left == 0 {
                stream.learn(&mut self.learnt, cx);
                stream.data_end(direction, end, cx);
            }
        }
        if left > 0 {
            return taken;
        }
        self.forget(id);
        taken + padding as usize
    }

    /// A `HEADERS`, `PUSH_PROMISE` or `CONTINUATION` frame.
    fn fragment(
        &mut self,
        direction: Direction,
        frame: Frame,
        payload: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<(), Malformed> {
        let bytes = (HEAD + payload.len()) as u64;
        let whole = frame.flags & END_HEADERS > 0;
        let side = self.side(direction);
        if frame.kind == Kind::Continuation {
            // Without its beginning it says nothing, but what it would have done to the table is not known either.
            let Some(open) = &mut side.open else {
                side.decoder.get_or_insert_with(Decoder::joined).forget();
                return Ok(());
            };
            if open.fragments.len() + payload.len() > MAX_BLOCK {
                return Err(Malformed("an endless header block"));
            }
            open.fragments.extend_from_slice(payload);
            open.block.bytes += bytes;
            if whole && let Some(Open { stream, promised, block, fragments, .. }) = side.open.take() {
                return self.block(stream, promised, block, &fragments, cx);
            }
            return Ok(());
        }
        let (fragment, promised) = frame.fragment(payload)?;
        let end = frame.kind == Kind::Headers && frame.flags & END_STREAM > 0;
        let block = Block { direction, end, bytes, time: cx.time(), packet: cx.packet() };
        let stream = promised.unwrap_or(frame.stream);
        if whole {
            return self.block(stream, promised.is_some(), block, fragment, cx);
        }
        side.open =
            Some(Open { on: frame.stream, stream, promised: promised.is_some(), block, fragments: fragment.into() });
        Ok(())
    }

    /// A whole header block.
    fn block(
        &mut self,
        id: u32,
        promised: bool,
        mut block: Block,
        fragments: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<(), Malformed> {
        let Self { sides, streams, list, .. } = self;
        list.clear();
        let side = block.direction.of(sides.each_mut());
        side.decoder.get_or_insert_with(Decoder::joined).decode(fragments, list)?;
        if streams.len() >= MAX_STREAMS
            && !streams.contains_key(&id)
            && let Some((_, mut oldest)) = streams.pop_first()
        {
            oldest.finish(Some("too many open streams: its end is not awaited".into()), cx);
        }
        if promised {
            // The server says what the client would have asked.
            (block.direction, block.end) = (block.direction.reverse(), true);
        }
        let stream = streams.entry(id).or_insert_with(|| Stream::new(id.into(), Direction::ToServer, "2"));
        stream.headers(block, list, cx);
        self.forget(id);
        Ok(())
    }

    /// Lets go of a stream that is over.
    fn forget(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.streams.remove(&id);
        }
    }
}
