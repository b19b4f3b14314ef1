//! What the server sends.

use super::startup::{SASL, secret};
use super::wire::Header;
use super::{
    CUT, Column, Cursor, Cx, Held, Malformed, Message, Postgresql, Progress, Step, Text, Value, queue, text, values,
    wire,
};
use crate::dissect::Short;
use crate::entry::Direction;
use crate::fields;

/// The most bytes of an error or a notice that are looked at.
const MAX_ERROR: usize = 16 << 10;
/// The most bytes of other messages that are looked at, for the detail only.
const MAX_SEEN: usize = 64 << 10;
/// The most rows that are kept of a result.
const MAX_ROWS: usize = 100;
/// The most results of one Query, or notices with it, that are kept; and fields, which a sane server sends but few of.
const MAX_RESULTS: usize = 100;

/// An answer under way.
pub(super) struct Answer {
    message: Message,
    status: Option<Text>,
    /// Rows or COPY data came.
    data: bool,
    /// Finished results, and the fields of the one that comes.
    results: Vec<Value>,
    columns: Vec<Column>,
    fields: Vec<(Text, Value)>,
    rows: Vec<Value>,
    row_count: u64,
    /// Bytes of rows kept.
    kept: usize,
    notices: Vec<Value>,
    /// What goes for the answer as a whole.
    rest: Vec<(Text, Value)>,
}

impl Answer {
    fn new(cx: &Cx<'_>) -> Self {
        Self {
            message: Message::response(Direction::ToClient, "", false, cx),
            status: None,
            data: false,
            results: Vec::new(),
            columns: Vec::new(),
            fields: Vec::new(),
            rows: Vec::new(),
            row_count: 0,
            kept: 0,
            notices: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Bytes of it are missing. That there are data says that the request went well.
    pub(super) fn interrupted(&mut self) {
        if self.data && self.status.is_none() {
            self.status = Some(Text::Borrowed("ok"));
        }
        self.message.warnings.push(CUT);
    }

    /// The connection has ended.
    pub(super) fn ended(&mut self) {
        if self.status.is_none() {
            self.message.warnings.push(CUT);
        }
    }

    fn succeed(&mut self) {
        self.status.get_or_insert(Text::Borrowed("ok"));
    }

    fn fail(&mut self, body: &[u8]) {
        let code = wire::sqlstate(body).map_or(Text::Borrowed("error"), |code| text::string(code).into());
        if !self.message.failed {
            self.status = Some(code);
        }
        self.message.failed = true;
    }

    /// How many bytes of a row are to be kept.
    fn room(&self, cx: &Cx<'_>) -> usize {
        if self.rows.len() < MAX_ROWS { cx.body_limit().saturating_sub(self.kept) } else { 0 }
    }

    /// A statement's result is complete.
    fn finish_result(&mut self, tag: Option<Value>) {
        let mut fields = std::mem::take(&mut self.fields);
        if self.row_count > 0 || !self.columns.is_empty() {
            if self.row_count > self.rows.len() as u64 {
                fields.push(("truncated".into(), true.into()));
            }
            fields.push(("rows".into(), std::mem::take(&mut self.rows).into()));
            fields.push(("row_count".into(), std::mem::take(&mut self.row_count).into()));
        }
        self.columns.clear();
        if let Some(tag) = tag {
            fields.push(("command_tag".into(), tag));
        }
        if !fields.is_empty() && self.results.len() < MAX_RESULTS {
            self.results.push(Value::Map(fields));
        }
    }

    /// The finished answer; `flat` if it has but one result.
    pub(super) fn into_message(mut self, flat: bool, fallback: &'static str) -> Message {
        self.finish_result(None);
        let mut message = self.message;
        message.status = self.status.unwrap_or(Text::Borrowed(fallback));
        let mut fields = Vec::new();
        match self.results.pop() {
            Some(Value::Map(result)) if flat => fields = result,
            Some(last) => {
                self.results.push(last);
                fields.push(("results".into(), self.results.into()));
            }
            None => {}
        }
        if !self.notices.is_empty() {
            fields.push(("notices".into(), self.notices.into()));
        }
        fields.append(&mut self.rest);
        if !fields.is_empty() {
            message.detail = Value::Map(fields);
        }
        message
    }
}

impl Postgresql {
    /// A message of the server's.
    pub(super) fn reply(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if self.negotiating.is_some()
            && let Some(progress) = self.negotiated(bytes, cx)?
        {
            return Ok(progress);
        }
        let Some(header) = Header::parse(bytes) else { return Ok(Progress::Need(wire::HEADER - bytes.len())) };
        if !header.is_valid(Direction::ToClient) {
            return Err(Malformed("a message of no type that servers send"));
        }
        let wanted = match header.tag {
            b'E' => MAX_ERROR,
            b'R' => 4,
            b'Z' => 1,
            _ => 0,
        };
        let wanted = match header.tag {
            _ if !cx.detail() => wanted,
            b'D' => self.answer.as_ref().map_or(cx.body_limit(), |answer| answer.room(cx)),
            b'd' | b'V' => cx.body_limit(),
            b'N' => MAX_ERROR,
            _ => MAX_SEEN,
        };
        let body = match header.head(bytes, wanted) {
            Ok(body) => body,
            Err(more) => return Ok(Progress::Need(more)),
        };
        match header.tag {
            b'1' => self.count_off(|step| matches!(step, Step::Parse), cx),
            b'2' => self.count_off(|step| matches!(step, Step::Bind), cx),
            b'3' => self.count_off(|step| matches!(step, Step::Close), cx),
            b'n' => self.count_off(|step| matches!(step, Step::Describe(_)), cx),
            b't' => self.parameters(body, cx),
            b'T' => self.columns(header, body, cx),
            b'D' => {
                if let Some(answer) = self.begin(header, |step| matches!(step, Step::Execute | Step::Query), cx) {
                    answer.data = true;
                    if cx.detail() {
                        answer.row_count += 1;
                        if answer.room(cx) > 0 {
                            answer.kept += body.len().max(1);
                            answer.rows.push(values::row(body, &answer.columns));
                        }
                    }
                }
            }
            b'C' | b'I' | b's' => self.complete(header, body, cx),
            b'V' => {
                if let Some(answer) = self.begin(header, |step| matches!(step, Step::FunctionCall), cx) {
                    answer.succeed();
                    if let Some(result) = body.get(4..).filter(|_| cx.detail()) {
                        answer.rest.push(("result".into(), text::body(result, header.body as u64 - 4)));
                    }
                }
            }
            b'G' | b'H' | b'W' => self.copy(header, body, cx),
            b'd' => {
                if let Some(answer) = self.answer.as_mut() {
                    answer.message.bytes += header.total() as u64;
                    answer.data = true;
                    if cx.detail() {
                        let mut fields = Value::Map(std::mem::take(&mut answer.fields));
                        values::append(&mut fields, "copy_data", body, header.body, cx.body_limit());
                        if let Value::Map(fields) = fields {
                            answer.fields = fields;
                        }
                    }
                }
            }
            b'E' => self.error(header, body, cx),
            b'N' | b'A' => self.aside(header, body, cx),
            b'Z' => self.ready(header, body, cx),
            b'R' | b'S' | b'K' | b'v' => self.login(header, body, cx)?,
            _ => {}
        }
        Ok(Progress::Consumed(header.total()))
    }

    /// An answer to a message that makes no row.
    fn count_off(&mut self, is: impl Fn(&Step) -> bool, cx: &mut Cx<'_>) {
        if self.queue.advance(is, cx) {
            self.queue.pop();
        }
    }

    /// The answer to the oldest request of the batch that `is` says yes to; none if there is no such request.
    fn begin(&mut self, header: Header, is: impl Fn(&Step) -> bool, cx: &mut Cx<'_>) -> Option<&mut Answer> {
        if !self.queue.advance(is, cx) {
            return None;
        }
        let answer = self.answer.get_or_insert_with(|| Answer::new(cx));
        answer.message.bytes += header.total() as u64;
        if answer.columns.is_empty()
            && let Some(Held { statement: Some(statement), formats, .. }) = self.queue.held()
            && let Some(columns) = statement.columns.get()
        {
            let binary =
                |(index, column): (usize, &Column)| Column { binary: values::format(formats, index), ..column.clone() };
            answer.columns = columns.iter().enumerate().map(binary).collect();
            let names = answer.columns.iter().map(|column| Value::from(column.name.to_string()));
            answer.fields.push(("columns".into(), names.collect::<Vec<_>>().into()));
        }
        Some(answer)
    }

    /// The types of a statement's parameters.
    fn parameters(&mut self, body: &[u8], cx: &mut Cx<'_>) {
        if !self.queue.advance(|step| matches!(step, Step::Describe(_)), cx) {
            return;
        }
        if let Some(Step::Describe(Some(statement))) = self.queue.front()
            && cx.detail()
        {
            let types = body.get(2..).unwrap_or_default().chunks_exact(4);
            let _ = statement.parameters.set(types.filter_map(|oid| Cursor::new(oid).u32().ok()).collect());
        }
    }

    /// A row description: the answer to a Describe, or the head of a Query's result.
    fn columns(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) {
        if !self.queue.advance(|step| matches!(step, Step::Describe(_) | Step::Query), cx) {
            return;
        }
        if let Some(Step::Describe(statement)) = self.queue.front() {
            if let Some(statement) = statement
                && cx.detail()
            {
                let _ = statement.columns.set(values::columns(body).0);
            }
            self.queue.pop();
        } else if let Some(answer) = self.begin(header, |step| matches!(step, Step::Query), cx) {
            answer.data = true;
            if cx.detail() {
                let (columns, details) = values::columns(body);
                answer.columns = columns;
                answer.fields.push(("row_description".into(), details.into()));
            }
        }
    }

    /// A statement was executed, or there was none, or a portal has more rows than were asked for.
    fn complete(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) {
        let Some(answer) = self.begin(header, |step| matches!(step, Step::Execute | Step::Query), cx) else { return };
        answer.succeed();
        if cx.detail() {
            let tag = match header.tag {
                b'C' => text::value(body.strip_suffix(b"\0").unwrap_or(body)),
                b'I' => "EmptyQueryResponse".into(),
                _ => "PortalSuspended".into(),
            };
            answer.finish_result(Some(tag));
        }
        if matches!(self.queue.front(), Some(Step::Execute))
            && let Some((_, held)) = self.queue.pop()
        {
            self.settle(held, "ok", cx);
        }
    }

    /// COPY data follow, from the client, from the server, or both ways.
    fn copy(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) {
        let Some(answer) = self.begin(header, |step| matches!(step, Step::Execute | Step::Query), cx) else { return };
        answer.data = true;
        if cx.detail() && answer.fields.len() < MAX_RESULTS {
            let name = match header.tag {
                b'G' => "copy_in",
                b'H' => "copy_out",
                _ => "copy_both",
            };
            let format = if body.first() == Some(&1) { "binary" } else { "text" };
            let columns = body.get(1..3).and_then(|count| Cursor::new(count).u16().ok());
            answer.fields.push((name.into(), fields! { "format" => format, "columns" => columns }));
        }
        match header.tag {
            b'G' => {
                self.copying = true;
                if matches!(self.queue.front(), Some(Step::Execute)) {
                    self.queue.forget_syncs();
                }
            }
            // Replication: it may go on for ever, so this is all of the answer that a row waits for.
            b'W' => {
                if let Some(held) = self.queue.take_held() {
                    self.settle(Some(held), "ok", cx);
                }
            }
            _ => {}
        }
    }

    fn error(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) {
        self.copying = false;
        match self.queue.front() {
            None | Some(Step::Sync) => return,
            Some(Step::Startup | Step::Query | Step::FunctionCall) => {
                self.failed(header, body, cx);
                if matches!(self.queue.front(), Some(Step::Startup))
                    && let Some((_, held)) = self.queue.pop()
                {
                    self.settle(held, "", cx);
                }
                return;
            }
            Some(_) => {}
        }
        let (mut told, mut parse) = (false, None);
        let mut first = true;
        while self.queue.front().is_some_and(|step| !step.ends_batch()) {
            let executes = matches!(self.queue.front(), Some(Step::Execute));
            if executes && !told {
                self.failed(header, body, cx);
            }
            let Some((_, held)) = self.queue.pop() else { break };
            if !executes {
                parse = parse.or(held.filter(|_| first));
            } else if std::mem::replace(&mut told, true) {
                queue::unanswered(held, cx);
            } else {
                self.settle(held, "", cx);
            }
            first = false;
        }
        if !told && parse.is_some() {
            self.failed(header, body, cx);
            self.settle(parse, "", cx);
        }
        self.answer = None;
        self.skipping = self.queue.front().is_none();
    }

    /// An error is the answer under way, or ends it.
    fn failed(&mut self, header: Header, body: &[u8], cx: &Cx<'_>) {
        let answer = self.answer.get_or_insert_with(|| Answer::new(cx));
        answer.message.bytes += header.total() as u64;
        answer.fail(body);
        if cx.detail() && answer.rest.len() < MAX_RESULTS {
            answer.rest.push(("error".into(), complaint(body)));
        }
    }

    /// A notice or a notification: told with the answer that it comes with.
    fn aside(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) {
        let is = |step: &Step| !matches!(step, Step::Sync) && step.ends_batch() || matches!(step, Step::Execute);
        if !self.queue.front().is_some_and(is) {
            return;
        }
        let Some(answer) = self.begin(header, is, cx) else { return };
        if cx.detail() && answer.notices.len() < MAX_RESULTS {
            answer.notices.push(if header.tag == b'N' { complaint(body) } else { notification(body) });
        }
    }

    /// The server is ready for the next query.
    fn ready(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) {
        if !self.queue.advance_to_end(cx) {
            return;
        }
        if !matches!(self.queue.front(), Some(Step::Sync)) {
            let answer = self.answer.get_or_insert_with(|| Answer::new(cx));
            answer.message.bytes += header.total() as u64;
            if cx.detail() {
                let status = match body.first() {
                    Some(b'I') => "idle",
                    Some(b'T') => "in_transaction",
                    _ => "failed_transaction",
                };
                answer.rest.push(("transaction_status".into(), status.into()));
            }
        }
        self.copying = false;
        if let Some((_, held)) = self.queue.pop() {
            self.settle(held, "ok", cx);
        }
    }

    /// What the server says while a client logs in. Later on, it may say that a parameter changed.
    fn login(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        if !matches!(self.queue.front(), Some(Step::Startup)) {
            return Ok(());
        }
        if header.tag == b'R' {
            self.authentication = Cursor::new(body).u32()?;
        }
        let logged_in = self.authentication == 0;
        let Some(answer) = self.begin(header, |step| matches!(step, Step::Startup), cx) else { return Ok(()) };
        if header.tag == b'R' && logged_in {
            answer.succeed();
        }
        if cx.detail()
            && let Ok((name, value)) = told(header.tag, body, cx)
        {
            let list = answer.rest.iter_mut().find(|(field, _)| *field == name);
            match (list, value) {
                (Some((_, Value::List(list))), Value::List(mut more)) if list.len() < MAX_RESULTS => {
                    list.append(&mut more);
                }
                (Some((_, Value::Map(map))), Value::Map(mut more)) if map.len() < MAX_RESULTS => map.append(&mut more),
                (None, value) => answer.rest.push((name.into(), value)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A message of the login, as a field.
fn told(tag: u8, body: &[u8], cx: &Cx<'_>) -> Result<(&'static str, Value), Short> {
    let mut cursor = Cursor::new(body);
    Ok(match tag {
        b'R' => {
            let code = cursor.u32()?;
            let name = match code {
                0 => "ok",
                2 => "kerberos_v5",
                3 => "cleartext_password",
                5 => "md5_password",
                7 => "gss",
                8 => "gss_continue",
                9 => "sspi",
                SASL => {
                    let mechanisms = cursor.rest().split(|byte| *byte == 0).filter(|name| !name.is_empty());
                    return Ok(("sasl_mechanisms", mechanisms.map(text::value).collect::<Vec<_>>().into()));
                }
                11 => return Ok(("sasl_continue", secret(cursor.rest(), cx))),
                12 => return Ok(("sasl_final", secret(cursor.rest(), cx))),
                _ => return Ok(("authentication", vec![Value::from(code)].into())),
            };
            ("authentication", vec![Value::from(name)].into())
        }
        b'S' => {
            let name = text::string(cursor.until(0)?);
            ("parameters", vec![(Text::Owned(name), text::value(cursor.until(0)?))].into())
        }
        b'K' => {
            let process = cursor.u32()?;
            ("backend_key_data", fields! { "process_id" => process, "secret_key" => secret(cursor.rest(), cx) })
        }
        _ => {
            let (newest, count) = (cursor.u32()?, cursor.u32()?);
            let names = (0..count).map_while(|_| cursor.until(0).ok()).map(text::value);
            let version = format!("{}.{}", newest >> 16, newest & 0xffff);
            let unknown: Vec<_> = names.collect();
            ("negotiate_protocol_version", fields! { "newest_version" => version, "unrecognized_options" => unknown })
        }
    })
}

/// The fields of an error or a notice.
fn complaint(body: &[u8]) -> Value {
    let named =
        wire::fields(body).filter_map(|(letter, text)| Some((wire::field_name(letter)?.into(), text::value(text))));
    Value::Map(named.collect())
}

fn notification(body: &[u8]) -> Value {
    let mut cursor = Cursor::new(body);
    let (Ok(process), Ok(channel)) = (cursor.u32(), cursor.until(0)) else { return Value::Null };
    let payload = cursor.until(0).unwrap_or(cursor.rest());
    fields! { "process_id" => process, "channel" => text::value(channel), "payload" => text::value(payload) }
}
