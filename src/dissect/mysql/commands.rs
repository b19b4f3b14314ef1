//! Commands of the client.

use super::packet::{self, Header};
use super::{
    Awaited, Cursor, Cx, Malformed, Message, Mysql, Role, Short, Sql, Statement, Switch, Text, Value, sql, text, values,
};
use crate::entry::Direction;
use crate::fields;

/// How a command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Not at all.
    None,
    /// By one packet.
    Okay,
    /// By results, whose rows are text or binary.
    Rows { binary: bool },
    /// By a statement's id and its definitions.
    Prepare,
    /// By rows alone.
    Fetch,
    /// By definitions of columns.
    Fields,
    /// By a line of text.
    Text,
    /// By a challenge, or several, and an end.
    Login,
    /// By packets that come as long as there is something to say; the first one is the answer.
    Stream,
    /// The same, after the answer.
    Streaming,
}

/// Commands by their first byte.
pub(super) const SLEEP: u8 = 0x00;
pub(super) const QUIT: u8 = 0x01;
pub(super) const INIT_DB: u8 = 0x02;
pub(super) const QUERY: u8 = 0x03;
const FIELD_LIST: u8 = 0x04;
pub(super) const CHANGE_USER: u8 = 0x11;
pub(super) const STMT_PREPARE: u8 = 0x16;
pub(super) const STMT_EXECUTE: u8 = 0x17;
pub(super) const STMT_SEND_LONG_DATA: u8 = 0x18;
pub(super) const STMT_CLOSE: u8 = 0x19;
pub(super) const STMT_RESET: u8 = 0x1a;
pub(super) const STMT_FETCH: u8 = 0x1c;
pub(super) const STMT_BULK_EXECUTE: u8 = 0xfa;

/// A command's name, how it is answered, and the least and greatest length that it has.
pub(super) fn command(code: u8) -> Option<(&'static str, Reply, usize, usize)> {
    const ANY: usize = packet::MAX_PAYLOAD;
    const NAME: usize = 1 + 4 * 256;
    Some(match code {
        SLEEP => ("Sleep", Reply::Okay, 1, 1),
        QUIT => ("Quit", Reply::None, 1, 1),
        INIT_DB => ("InitDB", Reply::Okay, 1, NAME),
        QUERY => ("Query", Reply::Rows { binary: false }, 1, ANY),
        FIELD_LIST => ("FieldList", Reply::Fields, 2, 2 * NAME),
        0x05 => ("CreateDB", Reply::Okay, 1, NAME),
        0x06 => ("DropDB", Reply::Okay, 1, NAME),
        0x07 => ("Refresh", Reply::Okay, 2, 2),
        0x08 => ("Shutdown", Reply::Okay, 1, 2),
        0x09 => ("Statistics", Reply::Text, 1, 1),
        0x0a => ("ProcessInfo", Reply::Rows { binary: false }, 1, 1),
        0x0b => ("Connect", Reply::Okay, 1, 1),
        0x0c => ("ProcessKill", Reply::Okay, 5, 5),
        0x0d => ("Debug", Reply::Okay, 1, 1),
        0x0e => ("Ping", Reply::Okay, 1, 1),
        0x0f => ("Time", Reply::Okay, 1, 1),
        0x10 => ("DelayedInsert", Reply::Okay, 1, 1),
        CHANGE_USER => ("ChangeUser", Reply::Login, 4, ANY),
        0x12 => ("BinlogDump", Reply::Stream, 11, ANY),
        0x13 => ("TableDump", Reply::Stream, 3, ANY),
        0x14 => ("ConnectOut", Reply::Okay, 1, 1),
        0x15 => ("RegisterSlave", Reply::Okay, 18, ANY),
        STMT_PREPARE => ("StmtPrepare", Reply::Prepare, 1, ANY),
        STMT_EXECUTE => ("StmtExecute", Reply::Rows { binary: true }, 10, ANY),
        STMT_SEND_LONG_DATA => ("StmtSendLongData", Reply::None, 7, ANY),
        STMT_CLOSE => ("StmtClose", Reply::None, 5, 5),
        STMT_RESET => ("StmtReset", Reply::Okay, 5, 5),
        0x1b => ("SetOption", Reply::Okay, 3, 5),
        STMT_FETCH => ("StmtFetch", Reply::Fetch, 9, 9),
        0x1d => ("Daemon", Reply::Okay, 1, 1),
        0x1e => ("BinlogDumpGtid", Reply::Stream, 15, ANY),
        0x1f => ("ResetConnection", Reply::Okay, 1, 1),
        0x20 => ("Clone", Reply::Stream, 1, ANY),
        0x21 => ("SubscribeGroupReplicationStream", Reply::Stream, 1, ANY),
        STMT_BULK_EXECUTE => ("StmtBulkExecute", Reply::Rows { binary: true }, 7, ANY),
        _ => return None,
    })
}

/// The id that stands for the statement that was prepared last.
const NEWEST: u32 = 0xffff_ffff;
/// The most bytes of a login that are looked at.
const MAX_LOGIN: usize = 16 << 10;
/// What may stand before the text of a statement: its attributes.
const MAX_ATTRIBUTES: usize = 4 << 10;
/// The most attributes of a query of which it is not known that it has some.
const MAX_GUESSED: u8 = 0x1f;
/// The most bytes of other commands that are looked at.
const MAX_SEEN: usize = 4 << 10;
/// The most parameters that are shown, and the most that are known to have been sent before.
const MAX_PARAMETERS: usize = 1024;
/// Flag of an execution: it says how many parameters there are.
const PARAMETER_COUNT_AVAILABLE: u8 = 8;
/// Flag of a bulk execution: it says of which types its parameters are.
const SEND_TYPES: u16 = 128;

impl Mysql {
    /// How much of a client's packet has to be seen.
    pub(super) fn wanted_of_client(&self, header: Header, bytes: &[u8], cx: &Cx<'_>) -> usize {
        if header.sequence != 0 {
            return if self.logged_in { 0 } else { MAX_LOGIN };
        }
        match bytes.get(packet::HEADER) {
            Some(&(QUERY | STMT_PREPARE)) => 1 + MAX_ATTRIBUTES + sql::MAX_SQL,
            Some(&(STMT_EXECUTE | STMT_SEND_LONG_DATA | STMT_BULK_EXECUTE)) => 16 + cx.body_limit(),
            _ => MAX_SEEN,
        }
    }

    /// A client's packet.
    pub(super) fn client_packet(
        &mut self,
        header: Header,
        payload: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Option<Switch>, Malformed> {
        if header.sequence != 0 {
            // Answers to challenges and files belong to what went before.
            return if self.logged_in { Ok(None) } else { self.login(header, payload, cx) };
        }
        let Some((&code, rest)) = payload.split_first() else { return Err(Malformed("a packet without a command")) };
        let Some((name, reply, least, most)) = command(code) else {
            return Err(Malformed("a command of no known number"));
        };
        if !(least..=most).contains(&header.len) {
            return Err(Malformed("a command of no length that it can have"));
        }
        self.logged_in = true;
        if self.awaited.front().is_some_and(|awaited| awaited.reply == Reply::Login) && code != CHANGE_USER {
            // A client that gives commands has been let in, but the answer was not seen.
            self.flush("", cx);
        }
        let mut message = Message::request(Direction::ToServer, name, String::new(), cx);
        message.bytes = header.total() as u64;
        let (mut statement, mut prepared) = (None, None);
        let mut cursor = Cursor::new(rest);
        match code {
            QUERY | STMT_PREPARE => {
                let attributes = if code == QUERY { self.attributes(&mut cursor) } else { Vec::new() };
                let whole = cursor.rest();
                let seen = whole.get(..sql::MAX_SQL).unwrap_or(whole);
                message.target = sql::shown(seen, cx.secrets());
                let cut = seen.len() < whole.len() || payload.len() < header.len || header.len == packet::MAX_PAYLOAD;
                if cut {
                    message.warnings.push(sql::CUT.into());
                }
                if cx.detail() {
                    let mut fields = vec![("query".into(), message.target.clone().into())];
                    if !attributes.is_empty() {
                        fields.push(("query_attributes".into(), attributes.into()));
                    }
                    message.detail = Value::Map(fields);
                }
                if code == STMT_PREPARE {
                    let sql = Sql { text: message.target.as_str().into(), cut };
                    self.newest = Some(sql.clone());
                    prepared = Some(sql);
                }
            }
            STMT_EXECUTE | STMT_BULK_EXECUTE => {
                let id = cursor.u32_le()?;
                let known = self.statements.get(&id).map(|statement| &statement.sql);
                if let Some(sql) = known.or(self.newest.as_ref().filter(|_| id == NEWEST)) {
                    message.target.push_str(&sql.text);
                    if sql.cut {
                        message.warnings.push(sql::CUT.into());
                    }
                }
                statement = Some(id);
                if cx.detail() {
                    message.detail =
                        if code == STMT_EXECUTE { self.execution(id, cursor) } else { self.bulk(id, cursor) }?;
                }
                if let Some(known) = self.statements.get_mut(&id) {
                    known.sent.clear();
                }
            }
            _ => {
                match code {
                    INIT_DB => message.target = text::string(rest),
                    STMT_CLOSE => self.forget(cursor.u32_le()?),
                    STMT_FETCH => statement = Some(cursor.u32_le()?),
                    STMT_SEND_LONG_DATA | STMT_RESET => {
                        let known = self.statements.get_mut(&cursor.u32_le()?);
                        match (known, cursor.u16_le()) {
                            (None, _) => {}
                            (Some(known), Ok(parameter)) if known.sent.len() < MAX_PARAMETERS => {
                                known.sent.push(parameter);
                            }
                            (Some(known), _) => known.sent.clear(),
                        }
                    }
                    _ => {}
                }
                if cx.detail() {
                    message.detail = detail(code, rest, header, cx).unwrap_or_default();
                }
            }
        }
        if reply == Reply::None {
            message.role = Role::OneWay;
            cx.emit(message);
        } else {
            let sequence = header.sequence.wrapping_add(1);
            self.await_answer(Awaited { message, reply, sequence, statement, sql: prepared }, cx);
        }
        Ok(None)
    }

    /// The attributes of a query, which are passed over.
    fn attributes(&self, cursor: &mut Cursor<'_>) -> Vec<Value> {
        let before = *cursor;
        let parse = |cursor: &mut Cursor<'_>| {
            let (count, _sets) = (packet::count(cursor)?, packet::count(cursor)?);
            if count == 0 {
                return Ok(Vec::new());
            }
            let count = usize::try_from(count).ok().filter(|count| *count <= MAX_PARAMETERS).ok_or(Short)?;
            parameters(cursor, count, true, &mut Vec::new(), &[])
        };
        let may = match self.capabilities {
            Some(_) => self.has(super::handshake::QUERY_ATTRIBUTES),
            // So many attributes, in one set: no statement begins so.
            None => matches!(cursor.rest(), [0..=MAX_GUESSED, 1, ..]),
        };
        match parse(cursor) {
            Ok(attributes)
                if may
                    && (self.capabilities.is_some() || attributes.is_empty() || sql::is_statement(cursor.rest())) =>
            {
                attributes
            }
            _ => {
                *cursor = before;
                Vec::new()
            }
        }
    }

    /// What is executed, with which parameters.
    fn execution(&mut self, id: u32, mut cursor: Cursor<'_>) -> Result<Value, Malformed> {
        let (flags, iterations) = (cursor.u8()?, cursor.u32_le()?);
        let attributes = self.has(super::handshake::QUERY_ATTRIBUTES) || flags & PARAMETER_COUNT_AVAILABLE != 0;
        let cursor_type = match flags & 7 {
            0 => "no_cursor",
            1 => "read_only",
            2 => "for_update",
            _ => "scrollable",
        };
        let mut fields = vec![
            ("statement_id".into(), id.into()),
            ("cursor_type".into(), cursor_type.into()),
            ("iteration_count".into(), iterations.into()),
        ];
        let Some(statement) = self.statements.get_mut(&id) else {
            if !cursor.is_empty() {
                // How many there are and of which types is not known.
                fields.push(("parameters".into(), text::hex(cursor.rest()).into()));
            }
            return Ok(Value::Map(fields));
        };
        let mut count = usize::from(statement.parameters);
        if flags & PARAMETER_COUNT_AVAILABLE != 0 {
            count = usize::try_from(packet::count(&mut cursor)?).unwrap_or(usize::MAX);
        }
        if (1..=MAX_PARAMETERS).contains(&count) {
            let Statement { types, sent, .. } = statement;
            let values = parameters(&mut cursor, count, attributes, types, sent).unwrap_or_default();
            fields.push(("parameters".into(), values.into()));
        }
        Ok(Value::Map(fields))
    }

    /// What is executed with many sets of parameters, of which the first is shown.
    fn bulk(&mut self, id: u32, mut cursor: Cursor<'_>) -> Result<Value, Malformed> {
        let flags = cursor.u16_le()?;
        let mut fields = vec![("statement_id".into(), id.into()), ("bulk_flags".into(), flags.into())];
        if let Some(statement) = self.statements.get_mut(&id)
            && usize::from(statement.parameters) <= MAX_PARAMETERS
        {
            if flags & SEND_TYPES != 0 {
                statement.types = (0..statement.parameters).map_while(|_| cursor.u16_le().ok()).collect();
            }
            let values = statement.types.iter().map_while(|kind| match cursor.u8().ok()? {
                0 => values::binary(*kind as u8, kind & values::UNSIGNED != 0, &mut cursor).ok(),
                2 => Some("default".into()),
                3 => Some("ignore".into()),
                _ => Some(Value::Null),
            });
            fields.push(("first_parameters".into(), values.collect::<Vec<_>>().into()));
        }
        Ok(Value::Map(fields))
    }
}

/// Parameters: which of them are NULL, their types if they are told anew, and their values, but of those `sent` before.
fn parameters(
    cursor: &mut Cursor<'_>,
    count: usize,
    named: bool,
    types: &mut Vec<u16>,
    sent: &[u16],
) -> Result<Vec<Value>, Short> {
    let nulls = cursor.take(count.div_ceil(8))?;
    let mut names = Vec::new();
    if cursor.u8()? == 1 {
        types.clear();
        for _ in 0..count {
            types.push(cursor.u16_le()?);
            if named {
                names.push(packet::bytes(cursor)?);
            }
        }
    }
    let mut list = Vec::new();
    for index in 0..count {
        let null = nulls.get(index / 8).is_some_and(|bits| bits >> (index % 8) & 1 != 0);
        let Some(kind) = types.get(index) else { break };
        let value = if null {
            Value::Null
        } else if sent.iter().any(|sent| usize::from(*sent) == index) {
            "sent before".into()
        } else {
            match values::binary(*kind as u8, kind & values::UNSIGNED != 0, cursor) {
                Ok(value) => value,
                Err(Short) => break,
            }
        };
        list.push(match names.get(index) {
            Some(name) if !name.is_empty() => fields! { "name" => text::value(name), "value" => value },
            _ => value,
        });
    }
    Ok(list)
}

/// The fields of a command that has no text and no parameters.
fn detail(code: u8, rest: &[u8], header: Header, cx: &Cx<'_>) -> Result<Value, Short> {
    let mut cursor = Cursor::new(rest);
    Ok(match code {
        INIT_DB | 0x05 | 0x06 => fields! { "schema_name" => text::value(rest) },
        FIELD_LIST => {
            let table = cursor.until(0)?;
            fields! { "table" => text::value(table), "wildcard" => text::value(cursor.rest()) }
        }
        0x07 => fields! { "sub_command" => cursor.u8()? },
        0x0c => fields! { "connection_id" => cursor.u32_le()? },
        0x1b => fields! { "option" => cursor.u16_le()? },
        STMT_CLOSE | STMT_RESET => fields! { "statement_id" => cursor.u32_le()? },
        STMT_FETCH => fields! { "statement_id" => cursor.u32_le()?, "num_rows" => cursor.u32_le()? },
        STMT_SEND_LONG_DATA => {
            let (id, parameter) = (cursor.u32_le()?, cursor.u16_le()?);
            let data = cursor.rest();
            let data = data.get(..cx.body_limit()).unwrap_or(data);
            fields! {
                "statement_id" => id,
                "param_id" => parameter,
                "data" => text::body(data, (header.len as u64).saturating_sub(7)),
            }
        }
        CHANGE_USER => {
            let user = cursor.until(0)?;
            let len = usize::from(cursor.u8()?);
            let response = cursor.take(len)?;
            let response = if cx.secrets() { text::hex(response).into() } else { Value::from(text::HIDDEN) };
            fields! { "user" => text::value(user), "auth_response" => response, "database" => text::value(cursor.until(0)?) }
        }
        0x12 => {
            let (position, flags, server) = (cursor.u32_le()?, cursor.u16_le()?, cursor.u32_le()?);
            fields! {
                "binlog_pos" => position,
                "flags" => flags,
                "server_id" => server,
                "binlog_filename" => text::value(cursor.rest()),
            }
        }
        0x1e => {
            let (flags, server, len) = (cursor.u16_le()?, cursor.u32_le()?, cursor.u32_le()?);
            let name = cursor.take(usize::try_from(len).map_err(|_| Short)?)?;
            let position = cursor.u64_le()?;
            fields! {
                "flags" => flags,
                "server_id" => server,
                "binlog_filename" => text::value(name),
                "binlog_pos" => position,
            }
        }
        0x15 => {
            let server = cursor.u32_le()?;
            let (host, user) = (short(&mut cursor)?, short(&mut cursor)?);
            let password = short(&mut cursor)?;
            let password = if cx.secrets() { text::value(password) } else { text::HIDDEN.into() };
            fields! {
                "server_id" => server,
                "hostname" => text::value(host),
                "user" => text::value(user),
                "password" => password,
                "port" => cursor.u16_le()?,
            }
        }
        _ => Value::Null,
    })
}

/// Bytes behind a length of one byte.
fn short<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let len = usize::from(cursor.u8()?);
    cursor.take(len)
}

/// A command's text, for one that has a text: behind attributes that say that there are none.
pub(super) fn statement(payload: &[u8]) -> Option<&[u8]> {
    match payload {
        [QUERY, 0, 1, rest @ ..] | [QUERY | STMT_PREPARE, rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Text of a command, if it is a name.
pub(super) fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && sql::is_text(bytes)
}

/// An error's number, as a status.
pub(super) fn status(code: u16) -> Text {
    Text::Owned(code.to_string())
}
