//! What the server sends.

use super::commands::{self, Reply};
use super::compression::Framing;
use super::handshake::{CACHE_METADATA, COMPRESS, OPTIONAL_METADATA, SESSION_TRACK, ZSTD};
use super::packet::{self, CURSOR_EXISTS, EOF, ERR, Header, LOCAL_INFILE, MAX_PAYLOAD, MORE_RESULTS, OK};
use super::{CUT, Column, Cursor, Cx, Malformed, Message, Mysql, Role, Short, Statement, Text, Value, text, values};
use crate::entry::Direction;
use crate::fields;

/// What has to be seen of a packet to know what it is, up to the server's status.
const MIN_SEEN: usize = 32;
/// The most bytes of a packet that are looked at for the detail, if it is no row.
const MAX_SEEN: usize = 16 << 10;
/// The most columns of a result: the server's limit.
const MAX_COLUMNS: usize = 4096;
/// The most rows that are kept of a result, and the most results of an answer.
const MAX_ROWS: usize = 100;
const MAX_RESULTS: usize = 100;
/// The most definitions of columns that are kept of an answer.
const MAX_DEFINITIONS: usize = 1024;
/// The most fields of a result: a sane server sends but few packets with one.
const MAX_FIELDS: usize = 64;

/// An answer under way.
pub(super) struct Answer {
    message: Message,
    status: Option<Text>,
    phase: Phase,
    binary: bool,
    /// Results that are finished, and the fields of the one that comes.
    results: Vec<Value>,
    fields: Vec<(Text, Value)>,
    columns: Vec<Column>,
    definitions: Vec<Value>,
    rows: Vec<Value>,
    row_count: u64,
    /// Bytes of rows kept.
    kept: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first packet of a result.
    First,
    /// So many definitions of columns.
    Columns(u64),
    /// What may be the end of their list, or a row.
    Behind,
    Rows,
    /// So many definitions of parameters and columns.
    Definitions(u64),
}

/// Whether an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    More,
    Done,
}

impl Answer {
    fn new(reply: Reply, cx: &Cx<'_>) -> Self {
        Self {
            message: Message::response(Direction::ToClient, "", false, cx),
            status: None,
            phase: match reply {
                Reply::Fetch => Phase::Rows,
                Reply::Fields => Phase::Behind,
                _ => Phase::First,
            },
            binary: matches!(reply, Reply::Fetch | Reply::Rows { binary: true }),
            results: Vec::new(),
            fields: Vec::new(),
            columns: Vec::new(),
            definitions: Vec::new(),
            rows: Vec::new(),
            row_count: 0,
            kept: 0,
        }
    }

    /// Bytes of it are missing. That it got as far as a result says that the command went well.
    pub(super) fn interrupted(&mut self) {
        if self.phase != Phase::First || !self.results.is_empty() {
            self.status.get_or_insert(Text::Borrowed("ok"));
        }
        self.message.warnings.push(CUT);
    }

    /// A packet that goes on with the one before.
    pub(super) fn continued(&mut self, len: usize) {
        self.message.bytes += len as u64;
    }

    /// The error that a packet tells is the answer.
    fn fail(&mut self, payload: &[u8], cx: &Cx<'_>) -> Result<Step, Malformed> {
        let (code, ..) = packet::error(payload)?;
        self.status = Some(commands::status(code));
        self.message.failed = true;
        if cx.detail() {
            self.fields.push(("error".into(), complaint(payload)));
        }
        self.finish_result();
        Ok(Step::Done)
    }

    /// The packet ends a result well. Another may follow.
    fn succeed(&mut self, payload: &[u8], header: Header, tracked: bool, cx: &Cx<'_>) -> Result<Step, Malformed> {
        let okay = packet::okay(payload, header.len)?;
        if cx.detail() {
            if let Some((rows, id)) = okay.changes {
                self.fields.push(("affected_rows".into(), rows.into()));
                self.fields.push(("last_insert_id".into(), id.into()));
            }
            self.fields.push(("status_flags".into(), okay.status.into()));
            self.fields.push(("warnings".into(), okay.warnings.into()));
            let mut rest = Cursor::new(okay.rest);
            // Servers put its length before it, and not only where the specification says so.
            let info = match packet::bytes(&mut rest) {
                Ok(info) if tracked || rest.is_empty() => info,
                _ if tracked => &[],
                _ => okay.rest,
            };
            if !info.is_empty() {
                self.fields.push(("info".into(), text::value(info)));
            }
            if tracked && okay.status & packet::SESSION_STATE_CHANGED != 0 {
                self.fields.push(("session_state_info".into(), text::hex(rest.rest()).into()));
            }
        }
        self.finish_result();
        Ok(if okay.status & MORE_RESULTS == 0 { Step::Done } else { Step::More })
    }

    fn finish_result(&mut self) {
        let mut fields = Vec::new();
        if !self.definitions.is_empty() {
            fields.push(("columns".into(), std::mem::take(&mut self.definitions).into()));
        }
        if self.phase == Phase::Rows || self.row_count > 0 {
            if self.row_count > self.rows.len() as u64 {
                fields.push(("truncated".into(), true.into()));
            }
            fields.push(("rows".into(), std::mem::take(&mut self.rows).into()));
            fields.push(("row_count".into(), std::mem::take(&mut self.row_count).into()));
        }
        fields.append(&mut self.fields);
        if !fields.is_empty() && self.results.len() < MAX_RESULTS {
            self.results.push(Value::Map(fields));
        }
        self.phase = Phase::First;
    }

    /// How many bytes of a row are to be kept.
    fn room(&self, cx: &Cx<'_>) -> usize {
        if self.rows.len() < MAX_ROWS { cx.body_limit().saturating_sub(self.kept) } else { 0 }
    }

    fn row(&mut self, payload: &[u8], cx: &Cx<'_>) {
        self.phase = Phase::Rows;
        if !cx.detail() {
            return;
        }
        self.row_count += 1;
        let room = self.room(cx);
        if room > 0 {
            let payload = payload.get(..room).unwrap_or(payload);
            self.kept += payload.len().max(1);
            self.rows.push(match self.binary {
                true if self.columns.is_empty() => text::body(payload, payload.len() as u64),
                true => values::binary_row(payload, &self.columns),
                false => values::text_row(payload),
            });
        }
    }

    /// A column of a result.
    fn definition(&mut self, payload: &[u8], cx: &Cx<'_>) {
        if let Phase::Columns(left) = self.phase {
            self.phase = if left > 1 { Phase::Columns(left - 1) } else { Phase::Behind };
        }
        if cx.detail()
            && self.columns.len() < MAX_COLUMNS
            && let Ok((column, detail)) = values::column(payload)
        {
            self.columns.push(column);
            if self.definitions.len() < MAX_DEFINITIONS {
                self.definitions.push(detail);
            }
        }
    }

    pub(super) fn into_message(mut self) -> Message {
        self.finish_result();
        let mut message = self.message;
        message.status = self.status.unwrap_or(Text::Borrowed(""));
        message.detail = match (self.results.pop(), self.results.is_empty()) {
            (None, _) => Value::Null,
            (Some(only), true) => only,
            (Some(last), false) => {
                self.results.push(last);
                fields! { "results" => self.results }
            }
        };
        message
    }
}

/// An error's fields.
pub(super) fn complaint(payload: &[u8]) -> Value {
    let Ok((code, state, message)) = packet::error(payload) else { return Value::Null };
    fields! { "error_code" => code, "sql_state" => text::value(state), "error_message" => text::value(message) }
}

impl Mysql {
    /// How much of a server's packet has to be seen.
    pub(super) fn wanted_of_server(&self, cx: &Cx<'_>) -> usize {
        match &self.answer {
            _ if !cx.detail() && self.logged_in => MIN_SEEN,
            Some(answer) if matches!(answer.phase, Phase::Rows | Phase::Behind) => answer.room(cx).max(MAX_SEEN / 32),
            _ => MAX_SEEN,
        }
    }

    /// A server's packet.
    pub(super) fn server_packet(&mut self, header: Header, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let first = payload.first().copied();
        if self.trailing.take() == Some(header.sequence) && packet::is_eof(payload, header.len) {
            return Ok(());
        }
        let Some(awaited) = self.awaited.front_mut() else { return self.greeted(header, payload, cx) };
        if awaited.reply == Reply::Streaming {
            if matches!(first, Some(EOF | ERR)) {
                self.awaited.pop_front();
            }
            return Ok(());
        }
        if first == Some(ERR) && matches!(packet::error(payload), Ok((packet::PROGRESS, ..))) {
            return Ok(());
        }
        // Rows are most of what servers send.
        if let Some(answer) = self.answer.as_mut().filter(|answer| answer.phase == Phase::Rows)
            && !matches!(first, Some(EOF | ERR) | None)
        {
            answer.message.bytes += header.total() as u64;
            answer.row(payload, cx);
            return Ok(());
        }
        if self.answer.is_none() && self.lost && header.sequence != awaited.sequence {
            return Ok(());
        }
        self.lost = false;
        let (reply, statement) = (awaited.reply, awaited.statement);
        let mut answer = self.answer.take().unwrap_or_else(|| {
            let mut answer = Answer::new(reply, cx);
            if reply == Reply::Fetch
                && let Some(known) = statement.and_then(|id| self.statements.get(&id))
            {
                answer.columns.clone_from(&known.columns);
            }
            answer
        });
        answer.message.bytes += header.total() as u64;
        let step = match reply {
            Reply::Rows { .. } => self.rows(&mut answer, header, payload, cx),
            Reply::Fetch | Reply::Fields => self.list(&mut answer, reply, header, payload, cx),
            Reply::Prepare => self.prepared(&mut answer, header, payload, cx),
            Reply::Login => self.logs_in(&mut answer, header, payload, cx),
            Reply::Stream => Ok(match first {
                Some(ERR) => answer.fail(payload, cx)?,
                _ => Step::Done,
            }),
            Reply::Text if first != Some(ERR) => {
                if cx.detail() {
                    answer.fields.push(("statistics".into(), text::value(payload)));
                }
                Ok(Step::Done)
            }
            Reply::None | Reply::Okay | Reply::Text | Reply::Streaming => match first {
                Some(ERR) => answer.fail(payload, cx),
                Some(OK | EOF) => answer.succeed(payload, header, self.has(SESSION_TRACK), cx).map(|_| Step::Done),
                _ => Err(Malformed("an answer that is neither OK nor an error")),
            },
        }?;
        if step == Step::More {
            self.answer = Some(answer);
            return Ok(());
        }
        answer.status.get_or_insert(Text::Borrowed("ok"));
        if let Some(statement) = statement.and_then(|id| self.statements.get_mut(&id))
            && !answer.columns.is_empty()
        {
            statement.columns = std::mem::take(&mut answer.columns);
        }
        let Some(mut awaited) = self.awaited.pop_front() else { return Ok(()) };
        if reply == Reply::Stream && !matches!(first, Some(ERR | EOF)) {
            let request = std::mem::replace(&mut awaited.message, Message::new(Role::OneWay, Direction::ToClient, cx));
            cx.emit(request);
            awaited.reply = Reply::Streaming;
            self.awaited.push_front(awaited);
        } else {
            cx.emit(awaited.message);
        }
        cx.emit(answer.into_message());
        Ok(())
    }

    /// A packet of results.
    fn rows(&self, answer: &mut Answer, header: Header, payload: &[u8], cx: &Cx<'_>) -> Result<Step, Malformed> {
        let tracked = self.has(SESSION_TRACK);
        match (answer.phase, payload.first()) {
            (Phase::Columns(_), Some(_)) if !packet::is_eof(payload, header.len) => {
                answer.definition(payload, cx);
                return Ok(Step::More);
            }
            (_, None) => return Err(Malformed("an empty packet amid results")),
            (_, Some(&ERR)) => return answer.fail(payload, cx),
            (Phase::First, Some(&(OK | EOF))) => {
                // A flag that says that no definitions follow, not an OK.
                if !(header.len == 2 && self.has(OPTIONAL_METADATA)) {
                    return answer.succeed(payload, header, tracked, cx);
                }
            }
            (Phase::First, Some(&LOCAL_INFILE)) => {
                if cx.detail() && answer.fields.len() < MAX_FIELDS {
                    answer.fields.push(("local_infile".into(), text::value(payload.get(1..).unwrap_or_default())));
                }
                return Ok(Step::More);
            }
            (Phase::First, Some(_)) => {}
            (Phase::Behind | Phase::Columns(_), Some(&EOF)) if packet::is_eof(payload, header.len) => {
                let okay = packet::okay(payload, header.len)?;
                if okay.status & CURSOR_EXISTS != 0 {
                    // The rows wait to be fetched.
                    return answer.succeed(payload, header, tracked, cx);
                }
                answer.phase = Phase::Rows;
                return Ok(Step::More);
            }
            (_, Some(&EOF)) if header.len < MAX_PAYLOAD => {
                answer.phase = Phase::Rows;
                return answer.succeed(payload, header, tracked, cx);
            }
            _ => {
                answer.row(payload, cx);
                return Ok(Step::More);
            }
        }
        let mut cursor = Cursor::new(payload);
        let mut follow = true;
        if self.has(OPTIONAL_METADATA) && header.len > 1 {
            follow = cursor.u8()? != 0;
        }
        let count = packet::count(&mut cursor)?;
        if self.has(CACHE_METADATA) {
            follow = cursor.u8()? != 0;
        }
        if count == 0 || count > MAX_COLUMNS as u64 || header.len > 10 {
            return Err(Malformed("a result of no number of columns that there can be"));
        }
        answer.columns.clear();
        answer.phase = if follow { Phase::Columns(count) } else { Phase::Behind };
        if !follow
            && let Some(known) = self.awaited.front().and_then(|awaited| awaited.statement)
            && let Some(statement) = self.statements.get(&known)
        {
            answer.columns.clone_from(&statement.columns);
        }
        Ok(Step::More)
    }

    /// A row of those that were fetched, or a column of those that were asked for.
    fn list(
        &self,
        answer: &mut Answer,
        reply: Reply,
        header: Header,
        payload: &[u8],
        cx: &Cx<'_>,
    ) -> Result<Step, Malformed> {
        match payload.first() {
            None => Err(Malformed("an empty packet amid results")),
            Some(&ERR) => answer.fail(payload, cx),
            Some(&EOF) if header.len < MAX_PAYLOAD => {
                answer.succeed(payload, header, self.has(SESSION_TRACK), cx).map(|_| Step::Done)
            }
            Some(_) if reply == Reply::Fields => {
                answer.definition(payload, cx);
                Ok(Step::More)
            }
            Some(_) => {
                answer.row(payload, cx);
                Ok(Step::More)
            }
        }
    }

    /// A packet of the answer to a Prepare.
    fn prepared(
        &mut self,
        answer: &mut Answer,
        header: Header,
        payload: &[u8],
        cx: &Cx<'_>,
    ) -> Result<Step, Malformed> {
        if let Phase::Definitions(left) = answer.phase {
            if payload.first() == Some(&ERR) {
                return answer.fail(payload, cx);
            }
            if packet::is_eof(payload, header.len) {
                return Ok(Step::More);
            }
            if cx.detail()
                && answer.definitions.len() < MAX_DEFINITIONS
                && let Ok((_, detail)) = values::column(payload)
            {
                answer.definitions.push(detail);
            }
            answer.phase = Phase::Definitions(left - 1);
            if left > 1 {
                return Ok(Step::More);
            }
            answer.finish_result();
            // Whether the list has an end of its own is known when it comes.
            self.trailing = Some(header.sequence.wrapping_add(1));
            return Ok(Step::Done);
        }
        match payload.first() {
            Some(&ERR) => return answer.fail(payload, cx),
            Some(&OK) => {}
            _ => return Err(Malformed("an answer that is neither a statement nor an error")),
        }
        let mut cursor = Cursor::new(payload);
        cursor.skip(1)?;
        let (id, columns, parameters) = (cursor.u32_le()?, cursor.u16_le()?, cursor.u16_le()?);
        cursor.skip(1.min(cursor.remaining()))?;
        let warnings = cursor.u16_le().unwrap_or(0);
        let bare = self.has(OPTIONAL_METADATA) && cursor.peek() == Some(0);
        if cx.detail() {
            answer.fields = vec![
                ("statement_id".into(), id.into()),
                ("num_columns".into(), columns.into()),
                ("num_params".into(), parameters.into()),
                ("warning_count".into(), warnings.into()),
            ];
        }
        let sql = self.awaited.front_mut().and_then(|awaited| awaited.sql.take()).unwrap_or_default();
        self.remember(id, Statement { sql, parameters, ..Statement::default() });
        let left = if bare { 0 } else { u64::from(columns) + u64::from(parameters) };
        answer.phase = Phase::Definitions(left);
        Ok(if left == 0 { Step::Done } else { Step::More })
    }

    /// A packet of the answer to a login, or to a change of the user.
    fn logs_in(&mut self, answer: &mut Answer, header: Header, payload: &[u8], cx: &Cx<'_>) -> Result<Step, Malformed> {
        if cx.detail() && !self.greeting.is_null() {
            answer.fields.push(("greeting".into(), std::mem::take(&mut self.greeting)));
        }
        match payload.first() {
            Some(&ERR) => answer.fail(payload, cx),
            Some(&OK) => {
                let step = answer.succeed(payload, header, self.has(SESSION_TRACK), cx);
                let compressed = self.has(COMPRESS | ZSTD);
                if self.framing == Framing::Unknown && (!compressed || self.offered.is_some()) {
                    self.framing = if compressed { Framing::Compressed } else { Framing::Plain };
                }
                step.map(|_| Step::Done)
            }
            Some(&EOF) => {
                if cx.detail() && answer.fields.len() < MAX_FIELDS {
                    let name = payload.get(1..).unwrap_or_default().split(|byte| *byte == 0).next();
                    answer.fields.push(("auth_switch_request".into(), text::value(name.unwrap_or_default())));
                }
                Ok(Step::More)
            }
            // More of the challenge.
            _ => Ok(Step::More),
        }
    }
}

/// A server's packets in their order, for the probe: how far the first answer that begins here can be followed.
pub(super) fn is_okay(payload: &[u8], len: usize) -> bool {
    match packet::okay(payload, len) {
        Ok(okay) => {
            okay.changes.is_some() && len >= 7 && okay.status & 0x8000 == 0 && (okay.rest.is_empty() || len > 7)
        }
        Err(Short) => false,
    }
}
