//! Apache Kafka and what speaks like it (Redpanda, WarpStream, Event Hubs): every API of clients, brokers and controllers, in
//! every version, from those of 0.8 to those of Kafka 4.4.
//!
//! A response has no more than the correlation id of its request, so requests that wait for one are kept in mind. The target is
//! the topics that a request names; of newer versions, which name ids, the topics are told by an earlier `Metadata` response of
//! any connection, or the id itself is shown. The status is the first error code that is not 0. A `Produce` with acks=0 is
//! not answered and stands alone. After a `SaslHandshake` of version 0, tokens without a header go either way; they are no rows.
//!
//! Bodies are walked as they come by the tables in [`apis`] and never held, however large a `Fetch` is. Records are looked at for
//! detail only.
//!
//! Not parsed: what keys and values of records mean; the requests inside an `Envelope`; SASL tokens that come without a
//! `SaslHandshake`, as with brokers of 0.9; the previews of share groups before Kafka 4.1; responses whose request is not in
//! the capture.

mod apis;
mod compression;
mod errors;
mod header;
mod probe;
mod reading;
mod records;
mod schema;
mod walk;

use std::collections::VecDeque;

use super::boundary::Boundary;
use super::{Cx, Dissector, Malformed, Message, Progress, Protocol, Recover, Role, Transport, text};
use crate::entry::{Direction, Text, Value};
use crate::fields;
use apis::{API_VERSIONS, SASL_HANDSHAKE};
use header::{Fault, Header, MAX_REQUEST};
use probe::Doubt;
use reading::{Detail, Reading, Topics};
use schema::Api;
use walk::{Walk, Walked};

pub static PROTOCOL: Protocol = Protocol {
    name: "kafka",
    title: "Kafka",
    transport: Transport::Tcp,
    ports: &[9092, 9093, 9094, 9095, 9096, 19092, 29092],
    probe: probe::probe,
    new: || Box::new(Kafka::default()),
    repeats: false,
    spec: "https://kafka.apache.org/protocol.html",
};

/// The most requests of one connection whose responses are awaited.
const MAX_OPEN: usize = 4096;
/// The largest SASL token without a header.
const MAX_TOKEN: u32 = 512 << 10;
/// Length and correlation id.
const RESPONSE_HEADER: usize = 8;
/// Set in the ids of messages, so that they are never the 0 that means "in order".
const ID: u64 = 1 << 32;

const CUT: Text = Text::Borrowed("the capture lacks its end");
const LACKS: Text = Text::Borrowed("the capture lacks bytes of it");

/// One connection.
#[derive(Default)]
struct Kafka {
    sides: [Side; 2],
    /// What was sent and not answered, oldest first.
    open: VecDeque<Open>,
    topics: Topics,
    /// A body was as specified, to its last byte: this is Kafka.
    sure: bool,
    /// Tokens without a header may come.
    tokens: bool,
}

/// One direction.
#[derive(Default)]
struct Side {
    /// A message's start has to be found first; open until the first bytes.
    seeking: Option<bool>,
    /// What is left of a message that nothing more is wanted of.
    pass: u64,
    /// The message under way.
    message: Option<Message>,
    /// Nothing of it waits to be given again.
    exact: bool,
    walk: Walk,
    reading: Reading,
}

/// Something that the server has to answer.
#[derive(Clone, Copy)]
enum Open {
    Request { correlation: i32, api: Option<&'static Api>, version: u8 },
    Token,
}

impl Open {
    fn is(&self, asked: i32) -> bool {
        matches!(self, Self::Request { correlation, .. } if *correlation == asked)
    }
}

impl Dissector for Kafka {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let side = self.side(direction);
        if side.pass > 0 {
            let pass = usize::try_from(std::mem::take(&mut side.pass)).unwrap_or(usize::MAX);
            return Ok(Progress::Consumed(pass));
        }
        if side.message.is_some() {
            return self.walk(direction, bytes, 0, cx);
        }
        if *side.seeking.get_or_insert(!cx.start())
            && let Some(progress) = self.seek(direction, bytes)
        {
            return Ok(progress);
        }
        match direction {
            Direction::ToServer => self.request(bytes, cx),
            Direction::ToClient => self.response(bytes, cx),
        }
    }

    fn gap(&mut self, direction: Direction, len: u64, cx: &mut Cx<'_>) -> Recover {
        let side = self.side(direction);
        let passed = side.pass.min(len);
        side.pass -= passed;
        if passed > 0 && passed == len {
            return Recover::Continue;
        }
        let len = len - passed;
        if let Some(message) = &mut side.message
            && side.exact
            && len > 0
            && side.walk.left() >= len
        {
            if !message.warnings.contains(&LACKS) {
                message.warnings.push(LACKS);
            }
            if !side.walk.lose(len) {
                side.pass = side.walk.left() - len;
                self.finish(direction, false, cx);
            } else if let Ok(Progress::Consumed(rest)) = self.walk(direction, &[], 0, cx) {
                // Nothing more is wanted of the value that lacks them.
                self.side(direction).pass = rest as u64;
            }
            return Recover::Continue;
        }
        self.close(direction, &[], cx);
        let side = self.side(direction);
        (side.seeking, side.pass) = (Some(true), 0);
        match direction {
            Direction::ToServer => Recover::Resync,
            // The start of a response is told by what was asked, which the probe doesn't know.
            Direction::ToClient => Recover::Continue,
        }
    }

    fn close(&mut self, direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        if let Some(message) = &mut self.side(direction).message {
            message.warnings.push(CUT);
            self.finish(direction, false, cx);
        }
    }
}

impl Kafka {
    fn side(&mut self, direction: Direction) -> &mut Side {
        direction.of(self.sides.each_mut())
    }

    fn request(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let header = match header::request(bytes, self.tokens) {
            Ok(header) => header,
            Err(Fault::Short) => return Ok(Progress::Need(1)),
            Err(Fault::No) if self.tokens => return self.token(bytes, true),
            Err(Fault::No) => return Err(Malformed("no header of a request")),
        };
        if std::mem::take(&mut self.tokens) {
            self.open.retain(|open| matches!(open, Open::Request { .. }));
        }
        let Header { size, key, api, version, correlation, client, len } = header;
        let operation = api.map_or_else(|| Text::Owned(format!("api key {key}")), |api| Text::Borrowed(api.name));
        self.tokens = key == SASL_HANDSHAKE && version == 0;
        let mut message = Message::request(Direction::ToServer, operation, String::new(), cx);
        message.id = ID | u64::from(correlation.cast_unsigned());
        message.bytes = u64::from(size) + 4;
        if self.open.len() >= MAX_OPEN {
            self.open.pop_front();
        }
        self.open.push_back(Open::Request { correlation, api, version });
        let detail = || {
            fields! {
                "api_key" => key, "api_version" => version, "correlation_id" => correlation,
                "client_id" => client.map(text::value),
            }
        };
        let schema = header.schema();
        self.begin(Direction::ToServer, message, detail, schema, header.is_tagged(), bytes, len, cx)
    }

    fn response(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if let Some(Open::Token) = self.open.back() {
            return self.token(bytes, false);
        }
        let Ok((size, correlation)) = header::response(bytes) else { return Ok(Progress::Need(1)) };
        if size < 4 || size > i32::MAX.cast_unsigned() {
            return Err(Malformed("no length of a response"));
        }
        let at = self.open.iter().position(|open| open.is(correlation));
        let Some(Open::Request { api, version, .. }) = at.and_then(|at| self.open.remove(at)) else {
            // It answers a request that is not in the capture: what it says can't be told.
            return Ok(Progress::Consumed(4 + size as usize));
        };
        let mut message = Message::new(Role::Response, Direction::ToClient, cx);
        message.id = ID | u64::from(correlation.cast_unsigned());
        message.bytes = u64::from(size) + 4;
        let detail = || fields! { "correlation_id" => correlation };
        let schema = api.and_then(|api| header::schema(api, version));
        let tagged = api.is_some_and(|api| has_tags(api, version));
        self.begin(Direction::ToClient, message, detail, schema, tagged, bytes, RESPONSE_HEADER, cx)
    }

    /// A SASL token without a header, or the answer to one.
    fn token(&mut self, bytes: &[u8], asks: bool) -> Result<Progress, Malformed> {
        let Some(size) = bytes.first_chunk().map(|size| u32::from_be_bytes(*size)) else {
            return Ok(Progress::Need(1));
        };
        if size > MAX_TOKEN {
            return Err(Malformed("a token too long"));
        }
        if !asks {
            self.open.pop_back();
        } else if self.open.len() < MAX_OPEN {
            self.open.push_back(Open::Token);
        }
        Ok(Progress::Consumed(4 + size as usize))
    }

    /// Begins a message, of whose bytes `header` are read.
    #[allow(clippy::too_many_arguments, reason = "what requests and responses have in common")]
    fn begin(
        &mut self,
        direction: Direction,
        message: Message,
        detail: impl FnOnce() -> Value,
        schema: Option<(&'static Api, u8)>,
        tagged: bool,
        bytes: &[u8],
        header: usize,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        let detail = cx.detail().then(|| Detail::new(detail(), cx.body_limit(), cx.secrets()));
        let asks = direction == Direction::ToServer;
        let whole = message.bytes;
        let side = self.side(direction);
        side.message = Some(message);
        side.reading.start(asks, detail);
        let Some((api, version)) = schema else {
            self.finish(direction, false, cx);
            return Ok(Progress::Consumed(usize::try_from(whole).unwrap_or(usize::MAX)));
        };
        side.walk.start(api, asks, version, tagged, whole - header as u64);
        self.walk(direction, bytes.get(header..).unwrap_or_default(), header, cx)
    }

    /// Goes on with the message under way, after `before` bytes.
    fn walk(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        before: usize,
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        let Self { sides, topics, .. } = self;
        let side = direction.of(sides.each_mut());
        let left = side.walk.left();
        match side.walk.run(bytes, &mut side.reading, topics) {
            Ok(Walked::On(0)) if before == 0 => {
                side.exact = false;
                return Ok(Progress::Need(1));
            }
            Ok(Walked::On(n)) => {
                side.exact = true;
                return Ok(Progress::Consumed(before + n));
            }
            Ok(Walked::Done(_)) => {
                self.sure = true;
                self.finish(direction, true, cx);
            }
            Err(malformed) if !self.sure => {
                // Its header only looked like one.
                side.message = None;
                if direction == Direction::ToServer {
                    self.open.pop_back();
                }
                return Err(malformed);
            }
            Err(Malformed(why)) => {
                if let Some(message) = &mut side.message {
                    message.warnings.push(format!("its body can't be read: {why}").into());
                }
                self.finish(direction, false, cx);
            }
        }
        Ok(Progress::Consumed(before + usize::try_from(left).unwrap_or(usize::MAX)))
    }

    /// Hands on the message under way, which was read to its end or not.
    fn finish(&mut self, direction: Direction, whole: bool, cx: &mut Cx<'_>) {
        let side = self.side(direction);
        let Some(mut message) = side.message.take() else { return };
        let reading = &mut side.reading;
        message.detail = reading.finish();
        message.ids = reading.ids.take();
        match direction {
            Direction::ToServer => {
                message.target = std::mem::take(&mut reading.target);
                if reading.acks == Some(0) {
                    message.role = Role::OneWay;
                    self.open.pop_back();
                }
            }
            Direction::ToClient => {
                let status = reading.status.or(whole.then_some(0));
                message.status = status.map_or(Text::Borrowed(""), errors::status);
                message.failed = status.is_some_and(|status| status != 0);
            }
        }
        cx.emit(message);
    }

    /// Goes to where a message starts, in bytes that may begin in the middle of one; `None` if that is here.
    fn seek(&mut self, direction: Direction, bytes: &[u8]) -> Option<Progress> {
        let found = match direction {
            Direction::ToServer => probe::seek(bytes, Doubt::Some),
            Direction::ToClient if bytes.len() < RESPONSE_HEADER => Boundary::Wait,
            Direction::ToClient => match probe::boundary(bytes, |bytes| self.is_awaited(bytes)) {
                Some(at) => Boundary::At(at),
                None => Boundary::No,
            },
        };
        match found {
            Boundary::At(at) => {
                self.side(direction).seeking = Some(false);
                (at > 0).then_some(Progress::Consumed(at))
            }
            Boundary::Wait => Some(Progress::Need(1)),
            // The last bytes may be the first ones of a header.
            Boundary::No if direction == Direction::ToClient => {
                Some(Progress::Consumed(bytes.len() - RESPONSE_HEADER + 1))
            }
            Boundary::No => Some(Progress::Consumed(bytes.len())),
        }
    }

    /// True if the bytes are the response to a request that waits for one.
    fn is_awaited(&self, bytes: &[u8]) -> bool {
        let Ok((size @ 4..=MAX_REQUEST, correlation)) = header::response(bytes) else { return false };
        let Some(Open::Request { api, version, .. }) = self.open.iter().find(|open| open.is(correlation)) else {
            return false;
        };
        let Some((api, version)) = api.and_then(|api| header::schema(api, *version)) else { return true };
        probe::fits(
            api,
            version,
            has_tags(api, version),
            u64::from(size) - 4,
            bytes.get(RESPONSE_HEADER..).unwrap_or_default(),
        )
    }
}

/// True if tagged fields end the header of a response.
fn has_tags(api: &Api, version: u8) -> bool {
    version >= api.flexible && api.key != API_VERSIONS
}
