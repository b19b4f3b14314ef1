//! What the client sends, once it has logged in.

use std::sync::{Arc, OnceLock};

use super::queue::unanswered;
use super::wire::Header;
use super::{
    Cursor, Cx, Held, MAX_NAME, MAX_PORTALS, Malformed, Message, Portal, Postgresql, Progress, Statement, Step, Switch,
    Value, sql, text, values, wire,
};
use crate::dissect::Short;
use crate::entry::Direction;
use crate::fields;

/// The most types of parameters that are kept of a statement.
const MAX_TYPES: usize = 1024;

/// The most fields of a request: a sane client sends but few messages with one.
const MAX_FIELDS: usize = 64;

impl Postgresql {
    /// A message of the client's.
    pub(super) fn request(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        match bytes.first() {
            Some(0) => return self.startup(bytes, cx),
            // The record of a TLS handshake: the server's yes was not seen.
            Some(0x16) if self.negotiating.is_some() => return Ok(Progress::Switch(0, Switch::Detect)),
            _ => {}
        }
        let Some(header) = Header::parse(bytes) else { return Ok(Progress::Need(wire::HEADER - bytes.len())) };
        if !header.is_valid(Direction::ToServer) {
            return Err(Malformed("a message of no type that clients send"));
        }
        let wanted = match header.tag {
            b'Q' => sql::MAX_SQL + 1,
            b'P' => MAX_NAME + sql::MAX_SQL + 4 * MAX_TYPES,
            b'B' | b'F' => 2 * MAX_NAME + cx.body_limit(),
            b'D' | b'C' | b'E' => MAX_NAME,
            b'd' | b'f' | b'p' => cx.body_limit(),
            _ => 0,
        };
        let body = match header.head(bytes, wanted) {
            Ok(body) => body,
            Err(more) => return Ok(Progress::Need(more)),
        };
        self.negotiating = None;
        match header.tag {
            b'Q' => self.query(header, body, cx),
            b'P' => self.parse(header, body, cx)?,
            b'B' => self.bind(header, body, cx)?,
            b'E' => self.execute(header, body, cx)?,
            b'D' => self.describe(body, cx)?,
            b'C' => {
                let (kind, name) = named(body)?;
                if kind == b'S' {
                    self.forget(name);
                } else {
                    self.portals.remove(name);
                }
                self.owe(Step::Close, None, cx);
            }
            b'S' if !self.copying => {
                self.skipping = false;
                self.owe(Step::Sync, None, cx);
            }
            b'F' => self.function_call(header, body, cx)?,
            b'd' => self.copy_data(header, body, cx),
            b'c' | b'f' => {
                if header.tag == b'f' && cx.detail() {
                    self.note("copy_fail", text::value(body.split(|byte| *byte == 0).next().unwrap_or_default()));
                }
                self.copying = false;
            }
            b'p' => self.password(header, body, cx),
            // Flush, Terminate, and a Sync amid COPY data are not answered.
            _ => {}
        }
        Ok(Progress::Consumed(header.total()))
    }

    /// The server owes an answer, unless it passes over everything.
    fn owe(&mut self, step: Step, held: Option<Held>, cx: &mut Cx<'_>) {
        if self.skipping {
            unanswered(held, cx);
        } else {
            self.queue.push(step, held, cx);
        }
    }

    fn query(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) {
        let text = body.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut message = Message::request(Direction::ToServer, "Query", sql::shown(text, cx.secrets()), cx);
        message.bytes = header.total() as u64;
        if header.body > body.len() {
            message.warnings.push(sql::CUT.into());
        }
        if cx.detail() {
            message.detail = fields! { "query" => message.target.clone() };
        }
        self.owe(Step::Query, Some(Held::new(message)), cx);
    }

    fn parse(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(body);
        let name = cursor.until(0)?;
        let (query, cut) = match cursor.until(0) {
            Ok(query) => (query, false),
            Err(Short) if header.body > body.len() => (cursor.rest(), true),
            Err(Short) => return Err(Malformed("a statement without its end")),
        };
        let cut = cut || query.len() > sql::MAX_SQL;
        let query = query.get(..sql::MAX_SQL).unwrap_or(query);
        let types: Vec<u32> = if cx.detail() && !cut {
            let count = usize::from(cursor.u16()?).min(MAX_TYPES);
            (0..count).map_while(|_| cursor.u32().ok()).collect()
        } else {
            Vec::new()
        };
        let mut message = Message::request(Direction::ToServer, "Parse", String::new(), cx);
        message.bytes = header.total() as u64;
        let statement = Statement { text: sql::shown(query, cx.secrets()), cut, ..Statement::default() };
        if cx.detail() {
            message.detail = fields! {
                "statement" => text::value(name),
                "query" => statement.text.clone(),
                "parameter_types" => types.iter().map(|oid| values::type_name(*oid)).collect::<Vec<_>>(),
            };
        }
        let statement = Arc::new(Statement {
            parameters: if types.is_empty() { OnceLock::new() } else { types.into() },
            ..statement
        });
        self.remember(name, Arc::clone(&statement));
        let held = Held { statement: Some(statement), ..Held::new(message) };
        self.owe(Step::Parse, Some(held), cx);
        Ok(())
    }

    fn bind(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(body);
        let (name, statement) = (cursor.until(0)?, cursor.until(0)?);
        let mut portal = Portal { statement: self.statements.get(statement).cloned(), ..Portal::default() };
        if cx.detail() {
            let types = portal.statement.as_ref().and_then(|statement| statement.parameters.get());
            let (parameters, formats) = values::bound(cursor.rest(), types.map_or(&[][..], Vec::as_slice));
            let mut fields = vec![
                ("portal".into(), text::value(name)),
                ("statement".into(), text::value(statement)),
                ("parameters".into(), parameters.into()),
            ];
            if header.body > body.len() {
                fields.push(("truncated".into(), true.into()));
            }
            portal.parameters = Value::Map(fields);
            portal.formats = formats;
        }
        if self.portals.len() >= MAX_PORTALS && !self.portals.contains_key(name) {
            self.portals.pop_last();
        }
        self.portals.insert(name.to_vec(), portal);
        self.owe(Step::Bind, None, cx);
        Ok(())
    }

    fn execute(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(body);
        let name = cursor.until(0)?;
        let mut message = Message::request(Direction::ToServer, "Execute", String::new(), cx);
        message.bytes = header.total() as u64;
        let portal = self.portals.get(name);
        if cx.detail() {
            let mut fields = match portal.map(|portal| portal.parameters.clone()) {
                Some(Value::Map(fields)) => fields,
                _ => vec![("portal".into(), text::value(name))],
            };
            if let Some(statement) = portal.and_then(|portal| portal.statement.as_ref()) {
                fields.insert(0, ("query".into(), statement.text.clone().into()));
            }
            fields.push(("max_rows".into(), cursor.u32()?.into()));
            message.detail = Value::Map(fields);
        }
        let held = Held {
            message,
            statement: portal.and_then(|portal| portal.statement.clone()),
            formats: portal.map(|portal| portal.formats.clone()).unwrap_or_default(),
        };
        self.owe(Step::Execute, Some(held), cx);
        Ok(())
    }

    fn describe(&mut self, body: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let (kind, name) = named(body)?;
        let statement = if kind == b'S' {
            self.statements.get(name).cloned()
        } else {
            self.portals.get(name).and_then(|portal| portal.statement.clone())
        };
        self.owe(Step::Describe(statement), None, cx);
        Ok(())
    }

    fn function_call(&mut self, header: Header, body: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(body);
        let oid = cursor.u32()?;
        let mut message = Message::request(Direction::ToServer, "FunctionCall", oid.to_string(), cx);
        message.bytes = header.total() as u64;
        if cx.detail() {
            let (arguments, _) = values::bound(cursor.rest(), &[]);
            message.detail = fields! { "function_oid" => oid, "arguments" => arguments };
        }
        self.owe(Step::FunctionCall, Some(Held::new(message)), cx);
        Ok(())
    }

    /// COPY data belong to the request that asked for them to be sent.
    fn copy_data(&mut self, header: Header, body: &[u8], cx: &Cx<'_>) {
        let Some(held) = self.queue.held().filter(|_| self.copying) else { return };
        held.message.bytes += header.total() as u64;
        if cx.detail() {
            values::append(&mut held.message.detail, "copy_data", body, header.body, cx.body_limit());
        }
    }

    /// Adds a field to the request that is answered now.
    pub(super) fn note(&mut self, name: &'static str, value: Value) {
        if let Some(held) = self.queue.held()
            && let Value::Map(fields) = &mut held.message.detail
            && fields.len() < MAX_FIELDS
        {
            fields.push((name.into(), value));
        }
    }
}

/// A statement (`S`) or portal (`P`) by its name.
fn named(body: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    let mut cursor = Cursor::new(body);
    match cursor.u8()? {
        kind @ (b'S' | b'P') => Ok((kind, cursor.until(0)?)),
        _ => Err(Malformed("neither a statement nor a portal")),
    }
}
