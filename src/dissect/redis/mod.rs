//! Redis and what speaks like it (Valkey, `KeyDB`, Dragonfly, Sentinel): RESP2, RESP3 and inline commands over TCP.
//!
//! Replies come in the order of their commands, also in pipelines and transactions, where `+QUEUED` is a reply like any other.
//! Exceptions: a `SUBSCRIBE` of n channels is answered by n confirmations, of which the first counts; `CLIENT REPLY OFF` and
//! `SKIP` leave commands unanswered; pushes (`MESSAGE`, `INVALIDATE`…) answer nothing and are rows of the server's own. After
//! `PSYNC` the snapshot is passed over, and the commands that follow it are one-way rows of the master.
//!
//! Not parsed: what scripts, functions and `RESTORE` carry; the lines that `MONITOR` prints, which are other clients' commands;
//! the cluster bus.
//!
//! [`resp`] reads the wire format, [`walk`] goes through nested items, [`commands`] knows the commands; this file knows how a
//! connection behaves.

mod commands;
mod probe;
mod replies;
mod requests;
mod resp;
mod walk;

use std::collections::VecDeque;

use super::boundary::Seeking;
use super::{Cx, Dissector, Malformed, Message, Progress, Protocol, Recover, Role, Transport, text};
use crate::entry::{Direction, Text};
use commands::Effect;
use replies::Reply;
use requests::Request;

pub static PROTOCOL: Protocol = Protocol {
    name: "redis",
    title: "Redis",
    transport: Transport::Tcp,
    ports: &[6379],
    probe: probe::probe,
    new: || Box::new(Redis::default()),
    repeats: false,
    spec: "https://redis.io/docs/latest/develop/reference/protocol-spec/",
};

/// The most bytes of a key or channel that a row shows.
const MAX_TARGET: usize = 64 << 10;
/// The longest command or error word; longer ones are cut.
const MAX_WORD: usize = 64;
/// The most unanswered commands of which it is known how they are answered.
const MAX_AWAITED: usize = 4096;

/// One connection.
#[derive(Default)]
struct Redis {
    seeking: Seeking,
    request: Request,
    reply: Reply,
    /// A command from the master to its replica.
    replicated: Request,
    /// How many commands were sent, and how many of them were answered.
    asked: u64,
    answered: u64,
    /// The commands that are not answered by one reply, by their number.
    awaited: VecDeque<(u64, Awaited)>,
    replies: Replies,
    stage: Stage,
    /// RESP2 pushes look like other arrays; they come to subscribers only.
    subscribed: bool,
    monitoring: bool,
    /// Replies were lost: those that come before the next command belong to commands of before.
    lost: bool,
}

/// How a command is going to be answered.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    effect: Effect,
    /// Confirmations still to come.
    left: u64,
    /// A confirmation has come.
    begun: bool,
}

/// What `CLIENT REPLY` said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Replies {
    #[default]
    On,
    Off,
    SkipNext,
}

/// What the server sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Replies,
    /// A snapshot for a replica, up to the delimiter if it is not announced with a length.
    Snapshot(Option<[u8; replies::DELIMITER]>),
    /// Commands for a replica.
    Commands,
}

impl Redis {
    /// Notes a command of the client's and hands it on.
    fn asked(&mut self, mut message: Message, effect: Effect, count: u64, cx: &mut Cx<'_>) {
        let silent = match effect {
            Effect::ReplyOn | Effect::Reset => {
                self.replies = Replies::On;
                false
            }
            Effect::ReplyOff => {
                self.replies = Replies::Off;
                true
            }
            Effect::ReplySkip if self.replies != Replies::Off => {
                self.replies = Replies::SkipNext;
                true
            }
            Effect::Ack => {
                if !cx.start() && self.stage == Stage::Replies {
                    self.stage = Stage::Commands;
                }
                true
            }
            _ if self.replies == Replies::SkipNext => {
                self.replies = Replies::On;
                true
            }
            _ => self.replies == Replies::Off,
        };
        if silent {
            message.role = Role::OneWay;
        } else {
            if effect != Effect::None && self.awaited.len() < MAX_AWAITED {
                let left = count.saturating_sub(1).max(1);
                self.awaited.push_back((self.asked, Awaited { effect, left, begun: false }));
            }
            self.asked += 1;
            self.lost = false;
        }
        cx.emit(message);
    }

    /// How the oldest open command is answered, if not by one reply.
    fn awaited(&mut self) -> Option<&mut Awaited> {
        let answered = self.answered;
        self.awaited.front_mut().filter(|(number, _)| *number == answered).map(|(_, awaited)| awaited)
    }

    /// The oldest open command is answered.
    fn settle(&mut self) -> Effect {
        let effect = self.awaited().map_or(Effect::None, |awaited| awaited.effect);
        if self.awaited().is_some() {
            self.awaited.pop_front();
        }
        if self.answered < self.asked {
            self.answered += 1;
        }
        effect
    }

    /// A reply came.
    fn answered(&mut self, message: Message, cx: &mut Cx<'_>) {
        if self.awaited().is_some_and(|awaited| awaited.begun) {
            // An UNSUBSCRIBE without channels, whose confirmations can't be counted.
            self.settle();
        }
        if self.lost && self.asked == self.answered {
            return;
        }
        match self.settle() {
            Effect::Monitor => self.monitoring = !message.failed,
            Effect::Sync if !message.failed && self.stage == Stage::Replies => self.stage = Stage::Snapshot(None),
            Effect::Reset if !message.failed => {
                self.monitoring = false;
                self.subscribed = false;
            }
            _ => {}
        }
        cx.emit(message);
    }

    /// A confirmation came: the first one to its command is the response, the others add nothing.
    fn confirmed(&mut self, word: &'static str, message: Message, cx: &mut Cx<'_>) {
        let Some(awaited) = self.awaited().filter(|awaited| awaited.effect == Effect::Confirmed(word)) else { return };
        let first = !std::mem::replace(&mut awaited.begun, true);
        awaited.left = awaited.left.saturating_sub(1);
        if awaited.left == 0 {
            self.settle();
        }
        if first {
            cx.emit(message);
        }
    }
}

impl Dissector for Redis {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if let Some(progress) = self.seeking.pass(direction, bytes, probe::boundary, cx) {
            return Ok(progress);
        }
        match (direction, self.stage) {
            (Direction::ToClient, Stage::Snapshot(delimiter)) if self.reply.is_idle() => {
                self.snapshot(delimiter, bytes, cx)
            }
            (Direction::ToClient, Stage::Commands) if self.reply.is_idle() => self.command(direction, bytes, cx),
            (Direction::ToClient, _) => self.reply(bytes, cx),
            (Direction::ToServer, _) => self.command(direction, bytes, cx),
        }
    }

    fn gap(&mut self, direction: Direction, len: u64, cx: &mut Cx<'_>) -> Recover {
        self.close(direction, &[], cx);
        self.seeking.begin(direction);
        if direction == Direction::ToClient && len > 0 {
            // What was answered meanwhile is not known; the answers are taken for good ones.
            for (_, awaited) in std::mem::take(&mut self.awaited) {
                match awaited.effect {
                    Effect::Confirmed("SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE") => self.subscribed = true,
                    Effect::Monitor => self.monitoring = true,
                    Effect::Sync => self.stage = Stage::Commands,
                    _ => {}
                }
            }
            if matches!(self.stage, Stage::Snapshot(_)) {
                self.stage = Stage::Commands;
            }
            self.answered = self.asked;
            self.lost = true;
        }
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        const CUT: Text = Text::Borrowed("the capture lacks its end");
        match direction {
            Direction::ToServer => {
                if let Some((mut message, effect, count)) = self.request.abandon() {
                    message.warnings.push(CUT);
                    self.asked(message, effect, count, cx);
                }
            }
            Direction::ToClient => {
                self.replicated.abandon();
                if let Some(mut message) = self.reply.abandon() {
                    message.warnings.push(CUT);
                    self.answered(message, cx);
                }
            }
        }
    }
}

/// A word of the peer's, cut to a sane length.
fn word(bytes: &[u8]) -> String {
    text::string(bytes.get(..MAX_WORD).unwrap_or(bytes))
}
