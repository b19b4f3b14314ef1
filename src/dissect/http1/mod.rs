//! HTTP/1.0 and 1.1. Spec: RFC 9112 (syntax), RFC 9110 (semantics).
//!
//! Parsed: heads, bodies of every framing, pipelining, interim responses (passed over), CONNECT (what runs inside is
//! detected anew), upgrades. **Not parsed**: HTTP/0.9, the parts of multipart bodies, transfer codings other than
//! chunked. Responses answer requests in order.

mod body;
mod framing;
pub(super) mod head;
mod probe;

use std::collections::VecDeque;

use self::body::{Body, Step};
use self::framing::Framing;
use self::head::{Start, unfold};
use self::probe::{blank_lines, probe_request, probe_response};
use super::http::{self, Draft, Media};
use super::{Cx, Dissector, Malformed, Progress, Protocol, Recover, Switch, Transport, Verdict, http2, websocket};
use crate::entry::{Direction, Text};

pub static PROTOCOL: Protocol = Protocol {
    name: http::NAME,
    title: "HTTP/1",
    transport: Transport::Tcp,
    ports: &[80, 3000, 3128, 5000, 8000, 8008, 8080, 8081, 8888, 9090, 15672],
    probe: probe::probe,
    new: || Box::<Http1>::default(),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc9112",
};

/// The longest head.
const MAX_HEAD: usize = 256 * 1024;
/// How a response begins.
const NEXT_HEAD: &[u8] = b"HTTP/1.";
/// The most bytes that wait for the answer to a CONNECT or an upgrade.
const MAX_HELD: usize = 16 * 1024;
/// The most requests that wait for their responses.
const MAX_ASKED: usize = 16_384;

/// One connection. Which side sends requests is told by what it sends.
#[derive(Default)]
struct Http1 {
    sides: [Side; 2],
    /// Requests whose responses are still to come, oldest first.
    asked: VecDeque<Asked>,
}

/// One direction.
#[derive(Default)]
struct Side {
    /// How far the end of the head was looked for.
    scanned: usize,
    /// What is known of the head so far, should the rest be missing.
    partial: Option<Box<Draft>>,
    /// The message whose body is under way.
    open: Option<Open>,
    /// Nothing more is read until a CONNECT or an upgrade is answered.
    held: bool,
}

/// A message whose body is under way.
struct Open {
    body: Body,
    /// Gone when the row could not wait.
    draft: Option<Draft>,
    /// What this request asks, or what this response answers, if that is known.
    asked: Option<Asked>,
}

/// What the reading of a response needs of its request.
struct Asked {
    by: Direction,
    head: bool,
    connect: bool,
    /// The target of a request that asks for another protocol.
    upgrade: Option<String>,
    /// How many rows it made.
    rows: usize,
}

impl Asked {
    fn new(request: &Draft) -> Self {
        Self {
            by: request.message.direction,
            head: request.message.operation == "HEAD",
            connect: request.message.operation == "CONNECT",
            upgrade: None,
            rows: 1,
        }
    }
}

impl Dissector for Http1 {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let side = self.side(direction);
        if side.open.is_some() {
            return self.body(direction, bytes, cx);
        }
        if side.held && probe_request(bytes) != Verdict::Yes {
            // So much is not sent before the answer: it is not in the capture, and must have been yes.
            return Ok(if bytes.len() > MAX_HELD { Progress::Switch(0, self.unanswered()) } else { Progress::Need(1) });
        }
        self.head(direction, bytes, cx)
    }

    fn cut(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        let side = self.side(direction);
        if side.partial.is_none() && side.open.is_none() && !side.held {
            side.partial = partial(direction, rest, true, cx).map(Box::new);
        }
    }

    fn gap(&mut self, direction: Direction, len: u64, cx: &mut Cx<'_>) -> Recover {
        let side = self.side(direction);
        (side.scanned, side.held) = (0, false);
        if let Some(draft) = side.partial.take() {
            self.cut_head(*draft, cx);
        }
        if let Some(open) = &mut self.side(direction).open {
            if len > 0 && open.body.gap(len) {
                let done = open.body.is_done();
                if let Some(draft) = &mut open.draft {
                    draft.lose(len);
                    draft.message.bytes += len;
                }
                if done {
                    self.finish(direction, cx);
                }
                return Recover::Continue;
            }
            self.finish_early(direction, "the rest of its body is missing or malformed", cx);
        }
        if len > 0 {
            // Responses may be missing too; the requests that they answer are given up.
            self.asked.retain(|asked| asked.by == direction);
        }
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        let side = self.side(direction);
        match &side.open {
            Some(Open { body: Body::Close, .. }) if !cx.is_cut() => self.finish(direction, cx),
            Some(_) => self.finish_early(direction, "its body ends too early", cx),
            None if side.held => {}
            None => {
                if let Some(draft) = partial(direction, rest, cx.is_cut(), cx) {
                    self.cut_head(draft, cx);
                }
            }
        }
    }
}

impl Http1 {
    fn side(&mut self, direction: Direction) -> &mut Side {
        direction.of(self.sides.each_mut())
    }

    /// What the last request asked to go on with.
    fn unanswered(&mut self) -> Switch {
        match self.asked.pop_back().and_then(|asked| asked.upgrade) {
            Some(target) => Switch::To(&websocket::PROTOCOL, websocket::after_upgrade(target, b"")),
            None => Switch::Detect,
        }
    }

    /// Bytes from the start of a message on.
    fn head(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let blank = blank_lines(bytes);
        if blank > 0 {
            return Ok(Progress::Consumed(blank));
        }
        let side = self.side(direction);
        let len = match head::end(bytes, side.scanned) {
            Ok(len) => len,
            Err(_) if bytes.len() > MAX_HEAD => return Err(Malformed("an endless head")),
            Err(resume) => {
                if probe_request(bytes) == Verdict::No && probe_response(bytes) == Verdict::No {
                    return Err(Malformed("neither a request nor a response"));
                }
                side.scanned = resume;
                if side.partial.is_none() {
                    side.partial = partial(direction, bytes, false, cx).map(Box::new);
                }
                return Ok(Progress::Need(1));
            }
        };
        side.scanned = 0;
        side.partial = None;
        side.held = false;
        let head = head::parse(bytes.get(..len).unwrap_or_default())?;
        match head.start {
            Start::Request { method, target } => {
                let mut draft = Draft::request(direction, method, target, version(head.version), cx);
                let framing = fields(&head, &mut draft, cx);
                draft.message.bytes = len as u64;
                let mut asked = Asked::new(&draft);
                asked.upgrade = framing.upgrade.map(|_| draft.message.target.clone());
                let waits = asked.connect || asked.upgrade.is_some();
                match framing.request_body() {
                    Some(body) => self.open(direction, body, draft, Some(asked), cx),
                    None => self.asked(asked, draft, cx),
                }
                self.side(direction).held = waits;
                Ok(Progress::Consumed(len))
            }
            // Interim: the final response is yet to come.
            Start::Response { code: 100 | 102..200, .. } => Ok(Progress::Consumed(len)),
            Start::Response { code, reason } => {
                self.answered_early(direction.reverse(), cx);
                let mut draft = Draft::response(direction, code, version(head.version), cx);
                if cx.detail() {
                    draft.reason = super::text::string(reason);
                }
                let framing = fields(&head, &mut draft, cx);
                draft.message.bytes = len as u64;
                let asked = self.asked.pop_front_if(|asked| asked.by != direction);
                self.side(direction.reverse()).held = false;
                if code == 101 {
                    return Ok(Progress::Switch(len, switch(&framing, asked, draft, cx)));
                }
                if asked.as_ref().is_some_and(|asked| asked.connect) && (200..300).contains(&code) {
                    draft.emit(cx);
                    return Ok(Progress::Switch(len, Switch::Detect));
                }
                match framing.response_body(code, asked.as_ref()) {
                    Some(body) => self.open(direction, body, draft, asked, cx),
                    None => draft.answer(asked.map_or(1, |asked| asked.rows), cx),
                }
                Ok(Progress::Consumed(len))
            }
        }
    }

    /// Bytes within a body.
    fn body(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let side = self.side(direction);
        let Some(Open { body, draft, asked }) = &mut side.open else { return Ok(Progress::Need(1)) };
        match (&mut *body, &draft) {
            // Nothing more is to be told.
            (Body::Length { left }, None) => {
                let left = usize::try_from(*left).unwrap_or(usize::MAX);
                side.open = None;
                return Ok(Progress::Consumed(left));
            }
            // It may answer a HEAD that is not in the capture.
            (Body::Length { .. }, Some(draft)) if draft.size == 0 && asked.is_none() => {
                if bytes.starts_with(NEXT_HEAD) {
                    self.finish(direction, cx);
                    return self.head(direction, bytes, cx);
                }
                if NEXT_HEAD.starts_with(bytes) {
                    return Ok(Progress::Need(1));
                }
            }
            _ => {}
        }
        let (consumed, content) = match body.step(bytes)? {
            Step::Content(content) => (content.len(), content),
            Step::Frame(len) => (len, &[][..]),
            Step::Need => return Ok(Progress::Need(1)),
            Step::Trailer(trailer) => {
                if let Some(draft) = draft.as_mut().filter(|_| cx.detail()) {
                    for (name, value) in head::Fields(trailer) {
                        draft.trailers.push(name, &unfold(value), cx.secrets());
                    }
                }
                (trailer.len(), &[][..])
            }
        };
        let done = body.is_done();
        if let Some(draft) = draft {
            draft.body(content);
            draft.message.bytes += consumed as u64;
            if !done && draft.is_late(cx) {
                self.hurry(direction, cx);
            }
        }
        if done {
            self.finish(direction, cx);
        }
        Ok(Progress::Consumed(consumed))
    }

    /// A message with a body begins.
    fn open(&mut self, direction: Direction, body: Body, draft: Draft, asked: Option<Asked>, cx: &mut Cx<'_>) {
        let endless = draft.media == Media::EventStream && draft.code > 0;
        self.side(direction).open = Some(Open { body, draft: Some(draft), asked });
        if endless {
            self.hurry(direction, cx);
        }
    }

    /// Emits a message before its body's end.
    fn hurry(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        let Some(open) = &mut self.side(direction).open else { return };
        let Some(mut draft) = open.draft.take() else { return };
        draft.warn("its body goes on");
        let asked = open.asked.take();
        self.hand_on(draft, asked, cx);
    }

    /// A message's body has ended.
    fn finish(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        if let Some(Open { draft: Some(draft), asked, .. }) = self.side(direction).open.take() {
            self.hand_on(draft, asked, cx);
        }
    }

    /// A message's body has ended before it should.
    fn finish_early(&mut self, direction: Direction, why: &'static str, cx: &mut Cx<'_>) {
        if let Some(Open { draft: Some(draft), .. }) = &mut self.side(direction).open {
            draft.warn(why);
        }
        self.finish(direction, cx);
    }

    fn hand_on(&mut self, draft: Draft, asked: Option<Asked>, cx: &mut Cx<'_>) {
        match asked {
            Some(asked) if draft.code == 0 => self.asked(asked, draft, cx),
            asked => draft.answer(asked.map_or(1, |asked| asked.rows), cx),
        }
    }

    /// Emits a request and remembers what it asked.
    fn asked(&mut self, mut asked: Asked, draft: Draft, cx: &mut Cx<'_>) {
        asked.rows = draft.emit(cx);
        if self.asked.len() >= MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back(asked);
    }

    /// A response comes. If it answers a request whose body is still under way, that request is emitted now.
    fn answered_early(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        if self.asked.is_empty()
            && let Some(open) = &mut self.side(direction).open
            && let Some(asked) = open.asked.take()
            && let Some(mut draft) = open.draft.take()
        {
            draft.warn("answered before its body was complete");
            self.asked(asked, draft, cx);
        }
    }

    /// A head whose rest is missing is still worth a row.
    fn cut_head(&mut self, mut draft: Draft, cx: &mut Cx<'_>) {
        draft.warn("its head is cut short");
        let direction = draft.message.direction;
        if draft.code == 0 {
            self.asked(Asked::new(&draft), draft, cx);
            return;
        }
        self.answered_early(direction.reverse(), cx);
        let asked = self.asked.pop_front_if(|asked| asked.by != direction);
        draft.answer(asked.map_or(1, |asked| asked.rows), cx);
    }
}

/// What the whole lines of an unfinished head say, or the first one if the rest of it is `lost`.
fn partial(direction: Direction, bytes: &[u8], lost: bool, cx: &Cx<'_>) -> Option<Draft> {
    let bytes = bytes.get(blank_lines(bytes)..).unwrap_or_default();
    let head = match memchr::memrchr(b'\n', bytes) {
        Some(end) => head::parse(bytes.get(..=end)?).ok()?,
        None if lost => {
            let (start, version) = head::cut_line(bytes)?;
            head::Head { start, version, fields: head::Fields(&[]) }
        }
        None => return None,
    };
    let mut draft = match head.start {
        Start::Request { method, target } => Draft::request(direction, method, target, version(head.version), cx),
        Start::Response { code: 100 | 102..200, .. } => return None,
        Start::Response { code, .. } => Draft::response(direction, code, version(head.version), cx),
    };
    fields(&head, &mut draft, cx);
    draft.message.bytes = bytes.len() as u64;
    Some(draft)
}

/// Takes a 101 response; what follows it.
fn switch(framing: &Framing<'_>, asked: Option<Asked>, draft: Draft, cx: &mut Cx<'_>) -> Switch {
    let rows = asked.as_ref().map_or(1, |asked| asked.rows);
    let is = |name: &[u8]| framing.upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(name));
    if is(b"h2c") && asked.is_some() {
        // The request is answered in HTTP/2.
        return Switch::To(&http2::PROTOCOL, http2::after_upgrade(draft, rows));
    }
    draft.answer(rows, cx);
    if is(b"websocket") {
        let target = asked.and_then(|asked| asked.upgrade).unwrap_or_default();
        return Switch::To(&websocket::PROTOCOL, websocket::after_upgrade(target, framing.extensions));
    }
    Switch::Detect
}

/// Gives the head's fields to the message, and tells what they say of its framing.
fn fields<'a>(head: &head::Head<'a>, draft: &mut Draft, cx: &Cx<'_>) -> Framing<'a> {
    let mut framing = Framing::default();
    for (name, value) in head.fields.clone() {
        framing.field(name, value);
        draft.field(name, &unfold(value), cx);
    }
    framing
}

fn version(digits: &[u8]) -> Text {
    match digits {
        b"1.1" => "1.1".into(),
        b"1.0" => "1.0".into(),
        _ => super::text::string(digits).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_whose_answer_is_missing_was_granted() {
        use crate::dissect::{Delivery, Driver, Options};
        let any = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
        let flow = Delivery {
            transport: Transport::Tcp,
            port: 80,
            start: true,
            certain: true,
            ends: [any; 2],
            tap: 0,
            hint: None,
            depth: 0,
        };
        let options = Options::default();
        let (mut driver, mut out) = (Driver::new(flow, &options), Vec::new());
        let mut send = |bytes: &[u8]| {
            driver.data(Direction::ToServer, bytes, crate::flow::reassembly::Stamp::default(), &options, &mut out);
        };
        send(b"GET /feed HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
        for _ in 0..=MAX_HELD / 11 {
            send(b"\x81\x85\0\0\0\0hello");
        }
        let rows: Vec<_> = out.iter().map(|message| (&*message.operation, &*message.target)).collect();
        assert_eq!(rows.first(), Some(&("GET", "/feed")));
        assert_eq!(rows.len(), 2 + MAX_HELD / 11);
        assert!(rows.iter().skip(1).all(|row| *row == ("text", "/feed")));
    }
}
