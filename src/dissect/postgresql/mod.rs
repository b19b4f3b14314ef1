//! PostgreSQL, and what speaks like it (PgBouncer, CockroachDB, YugabyteDB, Redshift…): protocol 3.0 to 3.2 over TCP.
//!
//! A `Query` is a row, however many statements it holds; so is each `Execute`, with the SQL of its portal's statement and the
//! parameters that were bound to it. Parse, Bind, Describe, Close and Sync make no rows; their answers are counted off against
//! them, so that in a pipeline each answer finds its request. An error answers the first `Execute` of what the server then
//! skips, up to the Sync; the others have no answer. A Parse that fails with no `Execute` behind it is a row of its own. The
//! login is the row `Startup`; `CancelRequest` and `FunctionCall` are rows too. Notices belong to the answer that they come with.
//!
//! After `SSLRequest` and a yes, TLS follows and is detected anew.
//!
//! Not parsed: protocol 2.0; GSSAPI encryption; what the COPY data of replication holds; notifications make no rows.
//!
//! [`wire`] knows the messages' frames, [`queue`] what the server owes; [`requests`] and [`answers`] read the two directions.

mod answers;
mod probe;
mod queue;
mod requests;
mod startup;
mod values;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::{
    Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Role, Switch, Transport, Verdict,
    sql, text,
};
use crate::entry::{Direction, Text, Value};
use answers::Answer;
use queue::{Held, Queue, Step};
use values::Column;

pub static PROTOCOL: Protocol = Protocol {
    name: "postgresql",
    title: "PostgreSQL",
    transport: Transport::Tcp,
    // PostgreSQL, Redshift, PgBouncer, CockroachDB.
    ports: &[5432, 5433, 5439, 6432, 26257],
    probe: probe::probe,
    new: || Box::new(Postgresql::default()),
    repeats: false,
    spec: "https://www.postgresql.org/docs/current/protocol.html",
};

/// The longest name of a statement or portal.
const MAX_NAME: usize = 1024;
/// The most prepared statements of a connection that are kept in mind, and the most bytes of them.
const MAX_STATEMENTS: usize = 4096;
const MAX_STATEMENT_BYTES: usize = 4 << 20;
/// The most portals of a connection that are kept in mind.
const MAX_PORTALS: usize = 256;
/// How many bytes are looked at before the first message of a connection that was joined is given up.
const MAX_SEEK: usize = 4096;
/// The warning of answers that are not whole.
const CUT: Text = Text::Borrowed("the capture lacks its end");

/// One connection.
#[derive(Default)]
struct Postgresql {
    /// Whether a message boundary has to be found first, by direction; open until the first bytes.
    seeking: [Option<bool>; 2],
    /// Encryption was asked for, and not answered yet.
    negotiating: Option<Message>,
    /// What the server owes.
    queue: Queue,
    statements: BTreeMap<Vec<u8>, Arc<Statement>>,
    /// Bytes of their text.
    statement_bytes: usize,
    portals: BTreeMap<Vec<u8>, Portal>,
    /// The answer under way.
    answer: Option<Answer>,
    /// After an error, the server passes over all messages up to a Sync that has not been sent yet.
    skipping: bool,
    /// COPY data come from the client.
    copying: bool,
    /// What the server last asked of the client that logs in.
    authentication: u32,
}

/// A prepared statement.
#[derive(Debug, Default)]
struct Statement {
    text: String,
    /// Its text is longer.
    cut: bool,
    /// The types of its parameters, if the client named them or the server described them.
    parameters: OnceLock<Vec<u32>>,
    /// The columns of its result, if the server described them.
    columns: OnceLock<Vec<Column>>,
}

/// A statement with its parameters.
#[derive(Clone, Default)]
struct Portal {
    statement: Option<Arc<Statement>>,
    parameters: Value,
    /// The formats of the columns of its result: none, one for all, or one for each.
    formats: Vec<i16>,
}

impl Postgresql {
    /// Keeps a statement in mind, at the cost of others if there are too many.
    fn remember(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.forget(name);
        self.statement_bytes += statement.text.len();
        self.statements.insert(name.to_vec(), statement);
        while self.statements.len() > MAX_STATEMENTS
            || self.statement_bytes > MAX_STATEMENT_BYTES && self.statements.len() > 1
        {
            let Some((_, statement)) = self.statements.pop_last() else { return };
            self.statement_bytes -= statement.text.len();
        }
    }

    fn forget(&mut self, name: &[u8]) {
        if let Some(statement) = self.statements.remove(name) {
            self.statement_bytes -= statement.text.len();
        }
    }

    /// Emits the answer under way as the one to the oldest request that waits; `fallback` is its status if it has none.
    fn settle(&mut self, held: Option<Held>, fallback: &'static str, cx: &mut Cx<'_>) {
        let answer = self.answer.take();
        let Some(held) = held else { return };
        let flat = held.is_execute();
        cx.emit(held.into_request());
        if let Some(answer) = answer {
            cx.emit(answer.into_message(flat, fallback));
        }
    }

    /// Answers are missing: of the requests so far, nobody knows which answer is whose.
    fn lose_answers(&mut self, cx: &mut Cx<'_>) {
        if let Some(answer) = &mut self.answer {
            answer.interrupted();
        }
        let begun = usize::from(self.answer.is_some());
        for held in self.queue.all_held().skip(begun) {
            held.message.warnings.push("the capture lacks bytes of its response".into());
        }
        self.flush(cx);
        self.skipping = false;
        self.copying = false;
    }

    /// Emits what the server has not answered, and will not.
    fn flush(&mut self, cx: &mut Cx<'_>) {
        if self.answer.is_some()
            && let Some((_, held)) = self.queue.pop()
        {
            self.settle(held, "", cx);
        }
        self.answer = None;
        while let Some((_, held)) = self.queue.pop() {
            queue::unanswered(held, cx);
        }
    }
}

impl Dissector for Postgresql {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        // The answer to a request for encryption is no message.
        let bare = direction == Direction::ToClient && self.negotiating.is_some();
        if let Some(seeking) = self.seeking.get_mut(direction.index())
            && *seeking.get_or_insert(!cx.start())
            && !bare
        {
            // That it is PostgreSQL is known.
            let port = PROTOCOL.ports.first().copied().unwrap_or_default();
            let probe = Probe { transport: Transport::Tcp, direction, data: bytes, port, start: false, cut: false };
            match probe::probe(&probe) {
                Verdict::Yes | Verdict::Maybe => *seeking = Some(false),
                Verdict::More if bytes.len() < MAX_SEEK => return Ok(Progress::Need(1)),
                // A no to a request for encryption that was not seen.
                Verdict::More | Verdict::No if is_refusal(direction, bytes) => {
                    *seeking = Some(false);
                    return Ok(Progress::Consumed(1));
                }
                Verdict::More | Verdict::No => {
                    if direction == Direction::ToClient {
                        self.lose_answers(cx);
                    }
                    return Ok(Progress::Consumed(bytes.len()));
                }
            }
        }
        match direction {
            Direction::ToServer => self.request(bytes, cx),
            Direction::ToClient => self.reply(bytes, cx),
        }
    }

    fn gap(&mut self, direction: Direction, _len: u64, cx: &mut Cx<'_>) -> Recover {
        match direction {
            Direction::ToServer => {
                // What is lost may have given the unnamed ones another meaning.
                self.forget(b"");
                self.portals.remove(&b""[..]);
                self.skipping = false;
            }
            Direction::ToClient => self.lose_answers(cx),
        }
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        if direction == Direction::ToClient {
            if let Some(answer) = &mut self.answer {
                answer.ended();
            }
            self.flush(cx);
        }
    }
}

/// True if one byte stands before what is surely a message.
fn is_refusal(direction: Direction, bytes: &[u8]) -> bool {
    let Some((b'N', data)) = bytes.split_first() else { return false };
    let port = PROTOCOL.ports.first().copied().unwrap_or_default();
    direction == Direction::ToClient
        && probe::probe(&Probe { transport: Transport::Tcp, direction, data, port, start: false, cut: false })
            == Verdict::Yes
}
