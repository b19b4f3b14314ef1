//! MongoDB's wire protocol over TCP, and what speaks like it: `OP_MSG`, the opcodes of before, and `OP_COMPRESSED` with snappy,
//! zlib or zstd.
//!
//! Answers name the request that they answer. A request whose sender wants none, and the old `OP_INSERT`, `OP_UPDATE`,
//! `OP_DELETE` and `OP_KILL_CURSORS`, stand alone. Where one request gets several answers (exhaust cursors, `hello` that waits),
//! the first is its response; the others add nothing, unless one fails. The status is the code of an error, also of the first
//! write that failed in a command that did not.
//!
//! Not parsed: `OP_MSG` of before 3.6 with the number 1000; what encrypted fields hold; the checksum is shown, not checked.
//!
//! [`wire`] reads headers, [`walk`] goes through documents as they come, [`command`] and [`reply`] take from them what rows
//! show, [`bson`] and [`detail`] show all of it; this file knows how a connection behaves.

mod bson;
mod command;
mod compression;
mod decimal;
mod detail;
mod probe;
mod reply;
mod walk;
mod wire;

use std::collections::VecDeque;

use super::boundary::Seeking;
use super::{Cursor, Cx, Dissector, Malformed, Message, Progress, Protocol, Recover, Role, Transport, text};
use crate::entry::{Direction, Text};
use command::Command;
use compression::{Compressed, MAX_COMPRESSED};
use reply::Reply;
use walk::{Element, Walk};
use wire::{CURSOR_NOT_FOUND, EXHAUST, EXHAUST_ALLOWED, HEADER, Head, Header, MORE_TO_COME, Opcode, QUERY_FAILURE};

pub static PROTOCOL: Protocol = Protocol {
    name: "mongodb",
    title: "MongoDB",
    transport: Transport::Tcp,
    ports: &[27017, 27018, 27019],
    probe: probe::probe,
    new: || Box::new(Mongo::default()),
    repeats: false,
    spec: "https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/",
};

/// How much of a message is waited for; what is longer is read as it comes.
const WINDOW: usize = 4096;
/// How much of it is looked at before that.
const START: usize = 512;
/// The most old queries and `OP_GET_MORE` that are known to be open.
const MAX_QUERIES: usize = 1024;
/// Marks ids, so that none is 0.
const ID: u64 = 1 << 32;
/// What a server of today says of a cursor that it does not know.
const NO_CURSOR: &str = "43";
const CUT: Text = Text::Borrowed("the capture lacks its end");

/// One connection.
#[derive(Default)]
struct Mongo {
    seeking: Seeking,
    /// A message that is being read, by direction.
    open: [Option<Box<Open>>; 2],
    /// What the first bytes of a message told that has to be waited for, should its next bytes be lost.
    begun: [Option<Box<Open>>; 2],
    /// Old queries, whose answers are not the commands' but users' documents.
    queries: VecDeque<u32>,
    /// The last request that allows several answers.
    exhaust: Option<Asked>,
    /// The answer that the next one, which nobody asks for, will say that it answers.
    last: Option<u32>,
}

/// A request that may be answered several times.
struct Asked {
    id: u32,
    operation: Text,
    target: String,
}

/// A message that is being read.
struct Open {
    message: Message,
    header: Header,
    /// What it is when it is not compressed.
    opcode: Opcode,
    flags: u32,
    cursor_id: i64,
    walk: Walk,
    facts: Facts,
    /// What is wanted of it was not seen, and never will be.
    cut: bool,
}

/// What a row needs of a message's documents.
enum Facts {
    Command(Command),
    Reply(Reply),
    Nothing,
}

impl walk::Facts for Facts {
    fn wants(&self, first: bool, element: &Element<'_>) -> Option<usize> {
        match self {
            Self::Command(command) => command.wants(first, element),
            Self::Reply(reply) => reply.wants(first, element),
            Self::Nothing => None,
        }
    }

    fn take(&mut self, first: bool, element: &Element<'_>, value: &[u8]) {
        match self {
            Self::Command(command) => command.take(first, element, value),
            Self::Reply(reply) => reply.take(first, element, value),
            Self::Nothing => {}
        }
    }
}

impl Mongo {
    /// Starts on a message, of which at least the window should be there, and reads as far as it goes; returns how far that is.
    fn begin(
        &self,
        direction: Direction,
        header: Header,
        bytes: &[u8],
        cx: &Cx<'_>,
    ) -> Result<(Open, usize), Malformed> {
        let bytes = bytes.get(..header.len).unwrap_or(bytes);
        let mut cursor = Cursor::new(bytes);
        cursor.skip(HEADER)?;
        if header.opcode != Opcode::Compressed {
            // The detail is of the window only, however much more is there.
            let window = window(&header, cx);
            let shown = Cursor::new(bytes.get(HEADER..window).unwrap_or(cursor.rest()));
            let (mut open, read) = self.head(direction, header, None, shown, header.len > window, cx)?;
            cursor.skip(read)?;
            let start = cursor.position();
            open.walk = Walk::new(open.opcode, open.flags, header.len - start);
            let consumed = open.walk.feed(cursor.rest(), &mut open.facts)?;
            return Ok((open, start + consumed));
        }
        let compressed = Compressed::parse(&mut cursor)?;
        let unpacked = compressed.unpack(cursor.rest());
        if unpacked.is_empty() {
            let mut open = self.open(direction, header, compressed.opcode, &Head::default(), cx);
            open.message.warnings.push(Text::Borrowed("what is compressed in it can't be read"));
            open.cut = true;
            return Ok((open, header.len));
        }
        let shown = unpacked.get(..cx.body_limit().max(WINDOW)).filter(|_| cx.detail()).unwrap_or(&unpacked);
        let cut = shown.len() < compressed.size;
        let (mut open, read) = self.head(direction, header, Some(&compressed), Cursor::new(shown), cut, cx)?;
        open.walk = Walk::new(open.opcode, open.flags, compressed.size.saturating_sub(read));
        open.walk.feed(unpacked.get(read..).unwrap_or_default(), &mut open.facts)?;
        Ok((open, header.len))
    }

    /// Reads what comes before the first document; returns how long that is.
    fn head(
        &self,
        direction: Direction,
        header: Header,
        compressed: Option<&Compressed>,
        body: Cursor<'_>,
        cut: bool,
        cx: &Cx<'_>,
    ) -> Result<(Open, usize), Malformed> {
        let opcode = compressed.map_or(header.opcode, |compressed| compressed.opcode);
        if !probe::may_come(opcode, direction) {
            return Err(Malformed("a message that goes the wrong way"));
        }
        let mut cursor = body;
        let head = Head::parse(opcode, &mut cursor)?;
        let mut open = self.open(direction, header, opcode, &head, cx);
        if cx.detail() {
            open.message.detail = detail::detail(&header, compressed, &head, cursor, cut, cx.secrets());
        }
        Ok((open, cursor.position() - body.position()))
    }

    fn open(&self, direction: Direction, header: Header, opcode: Opcode, head: &Head<'_>, cx: &Cx<'_>) -> Open {
        let mut message = Message::new(Role::Request, direction, cx);
        message.bytes = header.len as u64;
        message.operation = Text::Borrowed(opcode.operation());
        let facts = match (opcode, direction) {
            (Opcode::Msg, Direction::ToServer) => Facts::Command(Command::default()),
            (Opcode::Command, _) => Facts::Command(Command::new(head.namespace, head.command)),
            (Opcode::Query, _) if let Some(database) = head.command_database() => {
                Facts::Command(Command::new(database, b""))
            }
            (Opcode::Reply, _) if head.flags & QUERY_FAILURE == 0 && self.queries.contains(&header.response_to) => {
                Facts::Nothing
            }
            (Opcode::Msg | Opcode::Reply | Opcode::CommandReply, _) => Facts::Reply(Reply::default()),
            _ => {
                message.target = text::string(head.namespace);
                Facts::Nothing
            }
        };
        Open {
            message,
            header,
            opcode,
            flags: head.flags,
            cursor_id: head.cursor_id,
            walk: Walk::new(opcode, head.flags, 0),
            facts,
            cut: false,
        }
    }

    /// Hands on a message that was read to its end, or as far as it is there.
    fn finish(&mut self, open: Open, cx: &mut Cx<'_>) {
        match open.message.direction {
            Direction::ToServer => self.request(open, cx),
            Direction::ToClient => self.response(open, cx),
        }
    }

    fn request(&mut self, open: Open, cx: &mut Cx<'_>) {
        let Open { mut message, header, opcode, flags, facts, .. } = open;
        if let Facts::Command(command) = facts {
            (message.operation, message.target) = command.row();
        } else if matches!(opcode, Opcode::Query | Opcode::GetMore) {
            if self.queries.len() >= MAX_QUERIES {
                self.queries.pop_front();
            }
            self.queries.push_back(header.request_id);
        }
        let silent = match opcode {
            Opcode::Insert | Opcode::Update | Opcode::Delete | Opcode::KillCursors => true,
            Opcode::Msg => flags & MORE_TO_COME != 0,
            _ => false,
        };
        let exhaust = match opcode {
            Opcode::Msg => EXHAUST_ALLOWED,
            Opcode::Query => EXHAUST,
            _ => 0,
        };
        if silent {
            message.role = Role::OneWay;
        } else if flags & exhaust != 0 {
            let (operation, target) = (message.operation.clone(), message.target.clone());
            self.exhaust = Some(Asked { id: header.request_id, operation, target });
        }
        message.id = id(header.request_id);
        cx.emit(message);
    }

    fn response(&mut self, open: Open, cx: &mut Cx<'_>) {
        let Open { mut message, header, opcode, flags, cursor_id, facts, cut, .. } = open;
        (message.status, message.failed) = match facts {
            _ if opcode == Opcode::Reply && flags & CURSOR_NOT_FOUND != 0 => (Text::Borrowed(NO_CURSOR), true),
            Facts::Reply(reply) => reply.status(!cut),
            _ => (Text::Borrowed("ok"), false),
        };
        message.role = Role::Response;
        message.id = id(header.response_to);
        if opcode == Opcode::Reply {
            self.queries.retain(|id| *id != header.response_to);
        }
        let asked = self.exhaust.as_ref().filter(|asked| asked.id == header.response_to);
        let more = match opcode {
            Opcode::Msg => flags & MORE_TO_COME != 0,
            Opcode::Reply => cursor_id != 0 && (asked.is_some() || self.last.is_some()),
            _ => false,
        };
        // Also one of several whose first was not captured, since its request would be known.
        let unknown = more && opcode == Opcode::Msg && asked.is_none();
        let again = unknown || self.last.is_some_and(|last| last == header.response_to || asked.is_some());
        self.last = more.then_some(header.request_id);
        if again {
            if !message.failed {
                return;
            }
            message.role = Role::OneWay;
            if let Some(asked) = &self.exhaust {
                message.operation.clone_from(&asked.operation);
                message.target.clone_from(&asked.target);
            }
        }
        cx.emit(message);
    }

    /// Hands on what is known of a message whose end is missing, if that is enough for a row.
    fn abandon(&mut self, mut open: Open, cx: &mut Cx<'_>) {
        open.cut = true;
        open.message.warnings.push(CUT);
        let named = match &open.facts {
            Facts::Command(command) => !command.name.is_empty(),
            _ => true,
        };
        if named {
            self.finish(open, cx);
        }
    }
}

impl Mongo {
    /// Keeps what the first bytes of a message tell; nothing of one that is compressed.
    fn peek(&mut self, direction: Direction, header: Header, bytes: &[u8], cx: &Cx<'_>) {
        if header.opcode != Opcode::Compressed
            && probe::may_come(header.opcode, direction)
            && let Ok((open, _)) = self.begin(direction, header, bytes, cx)
        {
            *direction.of(self.begun.each_mut()) = Some(Box::new(open));
        }
    }

    /// The rest of what a direction was about to say is lost.
    fn lose(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        let begun = direction.of(self.begun.each_mut()).take();
        let open = direction.of(self.open.each_mut()).take().or(begun);
        if let Some(open) = open {
            self.abandon(*open, cx);
        }
    }
}

/// Pairs an answer with its request; never 0.
fn id(request: u32) -> u64 {
    ID | u64::from(request)
}

/// How much of a message has to be there before anything is done with it.
fn window(header: &Header, cx: &Cx<'_>) -> usize {
    let window = if header.opcode == Opcode::Compressed { MAX_COMPRESSED } else { WINDOW.max(cx.body_limit()) };
    window.min(header.len)
}

impl Dissector for Mongo {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if let Some(progress) = self.seeking.pass(direction, bytes, probe::boundary, cx) {
            return Ok(progress);
        }
        let slot = direction.of(self.open.each_mut());
        if let Some(open) = slot {
            let consumed = open.walk.feed(bytes, &mut open.facts)?;
            if open.walk.is_done()
                && let Some(open) = slot.take()
            {
                self.finish(*open, cx);
            }
            return Ok(if consumed == 0 { Progress::Need(1) } else { Progress::Consumed(consumed) });
        }
        let Some(header) = Header::peek(bytes)? else {
            return Ok(Progress::Need(HEADER.saturating_sub(bytes.len())));
        };
        if !probe::may_come(header.opcode, direction) {
            return Err(Malformed("a message that goes the wrong way"));
        }
        let window = window(&header, cx);
        if bytes.len() < window {
            if bytes.len() < START.min(window) {
                return Ok(Progress::Need(START.min(window) - bytes.len()));
            }
            if direction.of(self.begun.each_ref()).is_none() {
                self.peek(direction, header, bytes.get(..START).unwrap_or(bytes), cx);
            }
            return Ok(Progress::Need(window - bytes.len()));
        }
        let (open, consumed) = self.begin(direction, header, bytes, cx)?;
        *direction.of(self.begun.each_mut()) = None;
        if open.walk.is_done() || consumed == header.len {
            self.finish(open, cx);
        } else {
            *direction.of(self.open.each_mut()) = Some(Box::new(open));
        }
        Ok(Progress::Consumed(consumed))
    }

    fn gap(&mut self, direction: Direction, _len: u64, cx: &mut Cx<'_>) -> Recover {
        self.lose(direction, cx);
        self.seeking.begin(direction);
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        let between = self.seeking.has_found(direction) && direction.of(self.open.each_ref()).is_none();
        if between && let Ok(Some(header)) = Header::peek(rest) {
            self.peek(direction, header, rest, cx);
        }
        self.lose(direction, cx);
    }
}
