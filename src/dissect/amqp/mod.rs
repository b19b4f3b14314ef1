//! AMQP 0-9-1 with RabbitMQ's extensions, over TCP.
//!
//! A method and its `-ok` are a request and its response, on the same channel and in order, whichever side asks; a method that
//! does not wait, and those that nothing answers (`basic.publish`, `basic.deliver`, `basic.ack`…), stand alone. Content belongs
//! to the method before it. Publisher confirms are the server's `basic.ack` and `basic.nack`, rows of their own. Heartbeats are
//! none.
//!
//! Not parsed: AMQP 1.0, which is another protocol, and 0-8 and 0-9, which nobody speaks any more; what is in message bodies.
//!
//! [`frame`] reads frames, [`method`] and [`classes`] know the methods, [`content`] joins header and body, [`table`] reads field tables,
//! [`probe`] finds where frames start; this file knows how a connection behaves.

mod classes;
mod content;
mod frame;
mod method;
mod probe;
mod table;

use std::collections::HashMap;

use super::boundary::Seeking;
use super::{Cursor, Cx, Dissector, Malformed, Message, Progress, Protocol, Recover, Role, Transport, text};
use crate::entry::{Direction, Text, Value};
use content::{Content, Header};
use frame::{Frame, HEAD, Kind};
use method::{
    BASIC, CHANNEL, CONSUME, DECLARE, DECLARE_OK, DELIVER, EXCHANGE, Facts, GET, Method, OPEN, PUBLISH, Part, QUEUE,
    RETURN,
};

pub static PROTOCOL: Protocol = Protocol {
    name: "amqp",
    title: "AMQP 0-9-1",
    transport: Transport::Tcp,
    ports: &[5672],
    probe: probe::probe,
    new: || Box::new(Amqp::default()),
    repeats: false,
    spec: "https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf",
};

/// What a client starts with. Some say 1-1 before the version, as those of 0-8 did.
const PROTOCOL_HEADERS: [&[u8; 8]; 2] = [b"AMQP\0\0\x09\x01", b"AMQP\x01\x01\x09\x01"];
/// The most channels of one connection that are known at a time; peers agree on 2047 or less.
const MAX_CHANNELS: usize = 2048;
/// The code of a close that is none of an error; some clients say 0.
const REPLY_SUCCESS: u16 = 200;
/// Marks ids, so that none is 0.
const ID: u64 = 1 << 63;

/// One connection.
#[derive(Default)]
struct Amqp {
    seeking: Seeking,
    channels: HashMap<u16, Channel>,
    /// How often answers to either side were lost: what was asked before is not answered by those that come after.
    lost: [u16; 2],
}

/// One channel.
#[derive(Default)]
struct Channel {
    /// How often it was opened: answers to what was asked before do not come any more.
    opened: u16,
    /// The queue that was declared last, which methods mean that name none.
    queue: String,
    /// Content that is on its way, by direction.
    content: [Option<Content>; 2],
}

impl Amqp {
    /// The channel, if not too many are known.
    fn channel(&mut self, number: u16) -> Option<&mut Channel> {
        if self.channels.len() >= MAX_CHANNELS && !self.channels.contains_key(&number) {
            return None;
        }
        Some(self.channels.entry(number).or_default())
    }

    fn content(&mut self, number: u16, direction: Direction) -> Option<&mut Option<Content>> {
        self.channels.get_mut(&number)?.content.get_mut(direction.index())
    }

    /// Hands on a method, or keeps it until its content has come.
    fn method(&mut self, direction: Direction, frame: Frame, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let mut arguments = Cursor::new(payload);
        let method = Method::parse(&mut arguments)?;
        if !method.may_come(direction, frame.channel) {
            return Err(Malformed("a method that goes the wrong way"));
        }
        let facts = method.facts(&mut arguments.clone())?;
        // Content that never became whole.
        self.flush(direction, frame.channel, cx);
        let mut message = Message::new(Role::OneWay, direction, cx);
        message.bytes = frame.len() as u64;
        let mut asked = method;
        match method.part {
            Part::Asks if facts.no_wait => {}
            Part::Asks => message.role = Role::Request,
            Part::Answers(id) => {
                message.role = Role::Response;
                asked = Method::find(method.class, id).unwrap_or(method);
            }
            Part::Alone => {}
        }
        message.operation = Text::Borrowed(asked.name);
        if let Some(code) = facts.reply_code {
            message.status = code.to_string().into();
            message.failed = !matches!(code, 0 | REPLY_SUCCESS);
        }
        if cx.detail() {
            let mut fields =
                vec![("method".into(), Value::from(method.name)), ("channel".into(), Value::from(frame.channel))];
            fields.append(&mut method.detail(arguments, cx.secrets()));
            message.detail = Value::Map(fields);
        }
        message.target = target(method, &facts);
        let asker = if message.role == Role::Response { direction.reverse() } else { direction };
        let lost = self.lost.get(asker.index()).copied().unwrap_or_default();
        let channel = self.channel(frame.channel);
        let opened = channel.as_ref().map_or(0, |channel| channel.opened);
        message.id = id(asked, frame.channel, opened, lost);
        let Some(channel) = channel else {
            cx.emit(message);
            return Ok(());
        };
        match (method.class, method.id) {
            (CHANNEL, OPEN) => {
                *channel = Channel { opened: opened.wrapping_add(1), ..Channel::default() };
                message.id = id(asked, frame.channel, channel.opened, lost);
            }
            (QUEUE, DECLARE | DECLARE_OK) => {
                channel.queue.clear();
                channel.queue.push_str(&message.target);
            }
            (QUEUE, _) | (BASIC, CONSUME | GET) if message.target.is_empty() && message.role != Role::Response => {
                message.target.clone_from(&channel.queue);
            }
            _ => {}
        }
        if method.has_content() {
            if let Some(content) = channel.content.get_mut(direction.index()) {
                *content = Some(Content::new(message));
            }
        } else {
            cx.emit(message);
        }
        Ok(())
    }

    /// Hands on what is known of content that is on its way.
    fn flush(&mut self, direction: Direction, channel: u16, cx: &mut Cx<'_>) {
        if let Some(content) = self.content(channel, direction).and_then(Option::take) {
            let message = content.finish(cx);
            cx.emit(message);
        }
    }

    /// As [`Amqp::flush`], if all of it has come.
    fn settle(&mut self, direction: Direction, channel: u16, cx: &mut Cx<'_>) {
        if self.content(channel, direction).is_some_and(|content| content.as_ref().is_some_and(Content::is_whole)) {
            self.flush(direction, channel, cx);
        }
    }
}

/// Pairs a method with its answer; never 0.
fn id(asked: &Method, channel: u16, opened: u16, lost: u16) -> u64 {
    // Classes and methods have numbers that fit into a byte.
    let method = asked.class << 8 | asked.id;
    ID | u64::from(opened) << 48 | u64::from(channel) << 32 | u64::from(lost) << 16 | u64::from(method)
}

/// What a method is about.
fn target(method: &Method, facts: &Facts<'_>) -> String {
    match (method.class, method.id) {
        (EXCHANGE, _) => text::string(facts.exchange),
        (QUEUE, _) | (BASIC, CONSUME | GET) => text::string(facts.queue),
        (BASIC, PUBLISH | DELIVER | RETURN) => {
            let key = text::printable(facts.routing_key);
            // The default exchange has no name; with it, the key is the queue's.
            if facts.exchange.is_empty() {
                key.into_owned()
            } else {
                let mut target = text::string(facts.exchange);
                target.push('/');
                target.push_str(&key);
                target
            }
        }
        _ => String::new(),
    }
}

impl Dissector for Amqp {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if let Some(progress) = self.seeking.pass(direction, bytes, probe::boundary, cx) {
            return Ok(progress);
        }
        if bytes.first() == Some(&b'A') {
            let Some(header) = bytes.first_chunk::<8>() else { return Ok(Progress::Need(8 - bytes.len())) };
            // A server that does not speak the version answers with the one that it does speak, and closes.
            let ours = direction == Direction::ToServer && PROTOCOL_HEADERS.contains(&header);
            return Ok(if ours { Progress::Consumed(header.len()) } else { Progress::Ignore });
        }
        let Some(frame) = Frame::peek(bytes)? else { return Ok(Progress::Need(HEAD.saturating_sub(bytes.len()))) };
        if frame.kind == Kind::Body {
            return self.body(direction, frame, bytes, cx);
        }
        let Some((payload, ended)) = frame.payload(bytes) else {
            return Ok(Progress::Need(frame.len() - bytes.len()));
        };
        if !ended {
            return Err(Malformed("a frame without its end"));
        }
        match frame.kind {
            Kind::Method => self.method(direction, frame, payload, cx)?,
            Kind::Header => {
                let header = Header::parse(payload)?;
                if let Some(Some(content)) = self.content(frame.channel, direction) {
                    content.header(&header, frame.len(), cx);
                }
                self.settle(direction, frame.channel, cx);
            }
            Kind::Body | Kind::Heartbeat => {}
        }
        Ok(Progress::Consumed(frame.len()))
    }

    fn gap(&mut self, direction: Direction, _len: u64, cx: &mut Cx<'_>) -> Recover {
        self.close(direction, &[], cx);
        if let Some(lost) = self.lost.get_mut(direction.reverse().index()) {
            *lost = lost.wrapping_add(1);
        }
        self.seeking.begin(direction);
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        let mut open: Vec<_> = self
            .channels
            .values_mut()
            .filter_map(|channel| channel.content.get_mut(direction.index()).and_then(Option::take))
            .map(|content| content.finish(cx))
            .collect();
        open.sort_by_key(|message| (message.packet, message.position));
        for message in open {
            cx.emit(message);
        }
    }
}

impl Amqp {
    /// A piece of a body, of which no more is looked at than is kept.
    fn body(
        &mut self,
        direction: Direction,
        frame: Frame,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        if frame.payload(bytes).is_some_and(|(_, ended)| !ended) {
            return Err(Malformed("a frame without its end"));
        }
        if let Some(Some(content)) = self.content(frame.channel, direction) {
            let mut cursor = Cursor::new(bytes);
            cursor.skip(HEAD)?;
            let wanted = content.wanted(frame.size, cx);
            let available = cursor.remaining();
            let Ok(seen) = cursor.take(wanted) else { return Ok(Progress::Need(wanted - available)) };
            content.piece(seen, frame.size, frame.len())?;
            self.settle(direction, frame.channel, cx);
        }
        Ok(Progress::Consumed(frame.len()))
    }
}
