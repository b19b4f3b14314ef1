//! MySQL, MariaDB and what speaks like them (Percona Server, Aurora, TiDB, ProxySQL…): the client/server protocol, version 10,
//! over TCP, plain or compressed (zlib, zstd).
//!
//! Commands are answered in their order; `Quit`, `StmtClose` and `StmtSendLongData` are not. An answer may be one packet or
//! several results of many; where a result ends is told by its packets themselves, so that it does not matter whether the
//! login was seen. `StmtExecute` shows the SQL that was prepared. The login is the row `Login`: its challenges, like what
//! `ChangeUser` exchanges, belong to it. The file that `LOAD DATA LOCAL` sends belongs to its query.
//!
//! If the client asks for TLS, it follows and is detected anew.
//!
//! Not parsed: binlog events; the X protocol; what protocol 3.20 does differently beyond its login.
//!
//! [`packet`] knows packets, [`compression`] takes them out of compressed ones; [`commands`] and [`answers`] read the two
//! directions; [`handshake`] the login.

mod answers;
mod commands;
mod compression;
mod handshake;
mod packet;
mod probe;
mod values;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{
    Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Role, Short, Switch, Transport,
    Verdict, sql, text,
};
use crate::entry::{Direction, Text, Value};
use answers::Answer;
use commands::Reply;
use compression::{Framing, Inner};
use packet::{HEADER, Header, MAX_PAYLOAD};
use values::Column;

pub static PROTOCOL: Protocol = Protocol {
    name: "mysql",
    title: "MySQL",
    transport: Transport::Tcp,
    // MySQL, TiDB, ProxySQL.
    ports: &[3306, 4000, 6033],
    probe: probe::probe,
    new: || Box::new(Mysql::default()),
    repeats: false,
    spec: "https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html",
};

/// The most prepared statements of a connection that are kept in mind, and the most bytes of them.
const MAX_STATEMENTS: usize = 4096;
const MAX_STATEMENT_BYTES: usize = 4 << 20;
/// The most commands that wait for their answers.
const MAX_AWAITED: usize = 16_384;
/// How many bytes are looked at before the first packet of a connection that was joined is given up.
const MAX_SEEK: usize = 4096;
/// The warning of commands whose answers may be in what is missing.
const LACKS_BYTES: &str = "the capture lacks bytes of its response";
/// The warning of answers that are not whole.
const CUT: Text = Text::Borrowed("the capture lacks its end");

/// One connection.
#[derive(Default)]
struct Mysql {
    /// Whether a packet boundary has to be found first, by direction; open until the first bytes.
    seeking: [Option<bool>; 2],
    framing: Framing,
    /// What compressed packets held, by direction.
    inner: [Inner; 2],
    /// The packet before was of the largest size, so the next one continues it.
    continued: [bool; 2],
    /// The client has sent its part of the login, or it was missed.
    logged_in: bool,
    /// What the server offers, and what both agreed on; none if not seen.
    offered: Option<u64>,
    capabilities: Option<u64>,
    /// The server's greeting, for the detail.
    greeting: Value,
    /// Commands without an answer, oldest first.
    awaited: VecDeque<Awaited>,
    /// The answer under way.
    answer: Option<Answer>,
    /// The sequence number of the end of a list that may still come behind the answer to a Prepare.
    trailing: Option<u8>,
    /// Answers may be of commands that were not seen: their sequence numbers tell.
    lost: bool,
    statements: BTreeMap<u32, Statement>,
    /// Bytes of their text.
    statement_bytes: usize,
    /// What was prepared last, which MariaDB's clients execute before they know its id.
    newest: Option<Sql>,
}

/// A command without an answer. It is held back until its answer comes, so that no other answer is taken for it.
struct Awaited {
    message: Message,
    reply: Reply,
    /// The sequence number of its answer.
    sequence: u8,
    /// The statement that is executed or fetched from.
    statement: Option<u32>,
    /// What is prepared.
    sql: Option<Sql>,
}

/// The text of a statement.
#[derive(Clone, Default)]
struct Sql {
    text: Arc<str>,
    /// There is more of it.
    cut: bool,
}

/// A prepared statement.
#[derive(Default)]
struct Statement {
    sql: Sql,
    parameters: u16,
    /// The types of its parameters, as last sent.
    types: Vec<u16>,
    /// The parameters that were sent on their own, for the next execution.
    sent: Vec<u16>,
    /// The columns of its last result.
    columns: Vec<Column>,
}

impl Mysql {
    fn has(&self, capability: u64) -> bool {
        self.capabilities.is_some_and(|capabilities| capabilities & capability != 0)
    }

    /// Keeps a statement in mind, at the cost of the oldest ones if there are too many.
    fn remember(&mut self, id: u32, statement: Statement) {
        self.forget(id);
        self.statement_bytes += statement.sql.text.len();
        self.statements.insert(id, statement);
        while self.statements.len() > MAX_STATEMENTS
            || self.statement_bytes > MAX_STATEMENT_BYTES && self.statements.len() > 1
        {
            let Some((_, statement)) = self.statements.pop_first() else { return };
            self.statement_bytes -= statement.sql.text.len();
        }
    }

    fn forget(&mut self, id: u32) {
        if let Some(statement) = self.statements.remove(&id) {
            self.statement_bytes -= statement.sql.text.len();
        }
    }

    /// A command waits for its answer.
    fn await_answer(&mut self, awaited: Awaited, cx: &mut Cx<'_>) {
        if self.awaited.len() >= MAX_AWAITED {
            // Nobody answers.
            self.flush("too many open requests: its response is not awaited", cx);
        }
        self.awaited.push_back(awaited);
    }

    /// Emits commands whose answers do not come any more, and tells why.
    fn flush(&mut self, why: &'static str, cx: &mut Cx<'_>) {
        let mut awaited = std::mem::take(&mut self.awaited);
        if let Some(mut answer) = self.answer.take()
            && let Some(awaited) = awaited.pop_front()
        {
            answer.interrupted();
            cx.emit(awaited.message);
            cx.emit(answer.into_message());
        }
        for Awaited { mut message, reply, .. } in awaited {
            if reply != Reply::Streaming {
                message.role = Role::OneWay;
                message.warnings.extend((!why.is_empty()).then_some(Text::Borrowed(why)));
                cx.emit(message);
            }
        }
        self.trailing = None;
        self.lost = true;
    }

    /// One packet of a direction, from compressed ones or as it came.
    fn packet(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let Some(header) = Header::parse(bytes) else { return Ok(Progress::Need(HEADER - bytes.len())) };
        let continued = self.continued.get(direction.index()).copied().unwrap_or_default();
        if !continued {
            let wanted = match direction {
                Direction::ToServer => self.wanted_of_client(header, bytes, cx),
                Direction::ToClient => self.wanted_of_server(cx),
            };
            let payload = match header.head(bytes, wanted) {
                Ok(payload) => payload,
                Err(more) => return Ok(Progress::Need(more)),
            };
            let switch = match direction {
                Direction::ToServer => self.client_packet(header, payload, cx)?,
                Direction::ToClient => {
                    self.server_packet(header, payload, cx)?;
                    None
                }
            };
            if let Some(switch) = switch {
                return Ok(Progress::Switch(header.total(), switch));
            }
        } else if direction == Direction::ToClient {
            if let Some(answer) = &mut self.answer {
                answer.continued(header.total());
            }
        } else if let Some(awaited) = self.awaited.back_mut() {
            awaited.message.bytes += header.total() as u64;
            awaited.sequence = header.sequence.wrapping_add(1);
        }
        if let Some(continued) = self.continued.get_mut(direction.index()) {
            *continued = header.len == MAX_PAYLOAD;
        }
        Ok(Progress::Consumed(header.total()))
    }
}

impl Dissector for Mysql {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if let Some(seeking) = self.seeking.get_mut(direction.index())
            && *seeking.get_or_insert(!cx.start())
        {
            self.lost = true;
            // That it is MySQL is known.
            let port = PROTOCOL.ports.first().copied().unwrap_or_default();
            let probe = Probe { transport: Transport::Tcp, direction, data: bytes, port, start: false, cut: false };
            match probe::probe(&probe) {
                Verdict::Yes | Verdict::Maybe => *seeking = Some(false),
                Verdict::More if bytes.len() < MAX_SEEK => return Ok(Progress::Need(1)),
                Verdict::More | Verdict::No => {
                    if direction == Direction::ToClient {
                        self.flush(LACKS_BYTES, cx);
                    }
                    return Ok(Progress::Consumed(bytes.len()));
                }
            }
        }
        if self.framing == Framing::Unknown {
            // A login is never compressed; what follows may be, if the client wants it and what the server offers is not known.
            let may = !cx.start() || direction == Direction::ToServer && self.wants_compression();
            if may && compression::is_compressed(bytes, direction) {
                self.framing = Framing::Compressed;
            } else if !cx.start() && !self.is_logging_in() {
                self.framing = Framing::Plain;
            }
        }
        if self.framing == Framing::Plain
            && self.lost
            && self.capabilities.is_none()
            && direction == Direction::ToServer
            && compression::is_compressed(bytes, direction)
        {
            // What was seen of the server before was still the end of the login.
            self.framing = Framing::Compressed;
        }
        match self.framing {
            Framing::Compressed => self.compressed(direction, bytes, cx),
            Framing::Plain | Framing::Unknown => self.packet(direction, bytes, cx),
        }
    }

    fn gap(&mut self, direction: Direction, _len: u64, cx: &mut Cx<'_>) -> Recover {
        if let Some(continued) = self.continued.get_mut(direction.index()) {
            *continued = false;
        }
        if let Some(inner) = self.inner.get_mut(direction.index()) {
            inner.lose();
        }
        if direction == Direction::ToClient {
            self.flush(LACKS_BYTES, cx);
        }
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        if direction == Direction::ToClient {
            self.flush("", cx);
        }
    }

    fn held(&self) -> usize {
        self.inner.iter().map(Inner::held).sum()
    }

    fn relieve(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        if self.inner.get(direction.index()).is_some_and(|inner| inner.held() > 0) {
            self.gap(direction, 0, cx);
        }
    }
}
