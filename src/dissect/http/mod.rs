//! What all versions of HTTP share: a message put together from fields and body, the rows that it becomes, and the seam
//! where a more specific protocol replaces them. Spec: RFC 9110.

pub mod content;

use super::{Cx, Message, Role, graphql, grpc, text};
use crate::entry::{Direction, Text, Value};

/// The name in rows, whatever the version.
pub const NAME: &str = "http";
/// The most fields of one head that the detail view keeps.
const MAX_FIELDS: usize = 512;
/// How long, in nanoseconds of capture time, a row waits for the end of its body.
pub const PATIENCE: i64 = 5_000_000_000;
/// Fields whose values are credentials.
const SECRET_FIELDS: &[&str] =
    &["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"];

/// The fields of a head or trailer, as the detail view shows them: lower-case names in the order of the wire.
#[derive(Debug, Default)]
pub struct Fields {
    named: Vec<(Text, Value)>,
    /// How many came, those of one name counted each.
    count: usize,
}

impl Fields {
    /// Adds a field. A name that comes again makes a list of its values.
    pub fn push(&mut self, name: &[u8], value: &[u8], secrets: bool) {
        self.count += 1;
        if self.count > MAX_FIELDS {
            return;
        }
        let name = text::string(&name.to_ascii_lowercase());
        let hidden = !secrets && SECRET_FIELDS.contains(&name.as_str());
        let value = if hidden { Value::from(text::HIDDEN) } else { text::value(value) };
        match self.named.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Value::List(values))) => values.push(value),
            Some((_, first)) => *first = Value::List(vec![std::mem::take(first), value]),
            None => self.named.push((name.into(), value)),
        }
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Map(fields.named)
    }
}

/// What a body is, as far as its rows depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// Anything.
    #[default]
    Other,
    /// `application/json` and its kin.
    Json,
    /// `application/graphql`: a document alone.
    GraphQl,
    /// `text/event-stream`: has no end.
    EventStream,
    /// `application/grpc` and its kin.
    Grpc,
}

impl Media {
    /// From the value of a content-type field.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let name = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        match name.as_slice() {
            b"text/event-stream" => Self::EventStream,
            b"application/graphql" => Self::GraphQl,
            name if name.starts_with(b"application/grpc") => Self::Grpc,
            name if name.ends_with(b"/json") || name.ends_with(b"+json") => Self::Json,
            _ => Self::Other,
        }
    }
}

/// One message on its way to become rows.
#[derive(Debug)]
pub struct Draft {
    /// The row's half; operation, target and status are set.
    pub message: Message,
    /// `1.1`, `2`.
    pub version: Text,
    /// A response's status code; 0 in a request, or if it is not known.
    pub code: u16,
    /// The words beside the status code.
    pub reason: String,
    /// Filled only if detail was asked for.
    pub fields: Fields,
    /// Filled only if detail was asked for.
    pub trailers: Fields,
    /// What the body is.
    pub media: Media,
    /// The value of the content-encoding or grpc-encoding field.
    coding: Vec<u8>,
    /// The kept part of the body.
    pub body: Vec<u8>,
    /// The most that is kept of the body.
    pub keep: usize,
    /// The body's size so far.
    pub size: u64,
    /// Bytes of it that were never captured.
    pub missing: u64,
    /// What the row says in place of method and target.
    pub row: Option<(Text, String)>,
    /// More decoded fields, to be shown after the others.
    pub extra: Vec<(Text, Value)>,
    /// What is known of the gRPC method that is called.
    pub method: grpc::Method,
}

impl Draft {
    /// A request with its method and target, of which the bytes at hand are the first.
    #[must_use]
    pub fn request(direction: Direction, method: &[u8], target: &[u8], version: Text, cx: &Cx<'_>) -> Self {
        let message = Message::request(direction, method_text(method), text::string(target), cx);
        let mut draft = Self::new(message, version, cx);
        if graphql::may_be(target) {
            draft.keep = draft.keep.max(graphql::MAX_BODY);
        }
        draft
    }

    /// A response with its status code, of which the bytes at hand are the first.
    #[must_use]
    pub fn response(direction: Direction, code: u16, version: Text, cx: &Cx<'_>) -> Self {
        let message = Message::response(direction, code_text(code), code >= 400, cx);
        Self { code, ..Self::new(message, version, cx) }
    }

    fn new(mut message: Message, version: Text, cx: &Cx<'_>) -> Self {
        // Named here, since the flow may be another protocol's when the row is made.
        message.protocol = Some(NAME);
        Self {
            message,
            version,
            code: 0,
            reason: String::new(),
            fields: Fields::default(),
            trailers: Fields::default(),
            media: Media::Other,
            coding: Vec::new(),
            body: Vec::new(),
            keep: cx.body_limit(),
            size: 0,
            missing: 0,
            row: None,
            extra: Vec::new(),
            method: grpc::Method::default(),
        }
    }

    /// Takes a field of the head.
    pub fn field(&mut self, name: &[u8], value: &[u8], cx: &Cx<'_>) {
        if name.eq_ignore_ascii_case(b"content-type") {
            self.media = Media::parse(value);
        } else if self.keep > 0
            && (name.eq_ignore_ascii_case(b"content-encoding") || name.eq_ignore_ascii_case(b"grpc-encoding"))
        {
            self.coding = value.to_vec();
        }
        if cx.detail() {
            self.fields.push(name, value, cx.secrets());
        }
    }

    /// How the body is coded, or a gRPC message.
    #[must_use]
    pub fn coding(&self) -> &[u8] {
        &self.coding
    }

    /// Takes the next bytes of the body.
    pub fn body(&mut self, bytes: &[u8]) {
        self.size = self.size.saturating_add(bytes.len() as u64);
        let room = self.keep.saturating_sub(self.body.len());
        // What follows a hole would be read as if it stood before it.
        if room > 0 && self.missing == 0 {
            self.body.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        }
    }

    /// `len` bytes of the body are missing.
    pub fn lose(&mut self, len: u64) {
        self.size = self.size.saturating_add(len);
        self.missing = self.missing.saturating_add(len);
    }

    /// Adds a warning, once.
    pub fn warn(&mut self, warning: &'static str) {
        if !self.message.warnings.iter().any(|given| given == warning) {
            self.message.warnings.push(warning.into());
        }
    }

    /// True if the row has waited for the body's end long enough.
    #[must_use]
    pub fn is_late(&self, cx: &Cx<'_>) -> bool {
        cx.now().since(self.message.time) > PATIENCE
    }

    /// Emits the message: its row, or the rows of what it carries. Returns how many.
    pub fn emit(mut self, cx: &mut Cx<'_>) -> usize {
        self.message.body = (self.missing == 0).then_some(self.size);
        if self.missing > 0 {
            let warning = format!("the capture lacks {} bytes of its body", self.missing);
            self.message.warnings.push(warning.into());
        }
        let operations = if self.message.role == Role::Request && graphql::may_be(self.message.target.as_bytes()) {
            let decoded = content::decode(&self.coding, &self.body, graphql::MAX_BODY);
            let body = decoded.as_ref().map_or(&self.body, |decoded| &decoded.bytes);
            graphql::operations(&self.message.operation, &self.message.target, self.media, body)
        } else {
            Vec::new()
        };
        if operations.is_empty() {
            if cx.detail() {
                self.message.detail = self.detail(true, cx);
            }
            if let Some(row) = self.row {
                (self.message.operation, self.message.target) = row;
            }
            cx.emit(self.message);
            return 1;
        }
        let count = operations.len();
        let detail = if cx.detail() { self.detail(false, cx) } else { Value::Null };
        for operation in operations {
            let mut message = self.message.clone();
            message.protocol = Some(graphql::NAME);
            message.operation = operation.kind.into();
            message.target.clone_from(&operation.name);
            if let Value::Map(mut fields) = detail.clone() {
                fields.push(("graphql".into(), operation.detail()));
                message.detail = Value::Map(fields);
            }
            cx.emit(message);
        }
        count
    }

    /// Emits a response once for each row of its request.
    pub fn answer(mut self, rows: usize, cx: &mut Cx<'_>) {
        if rows > 1 {
            if cx.detail() {
                self.message.detail = self.detail(true, cx);
            }
            for _ in 1..rows {
                cx.emit(self.message.clone());
            }
            cx.emit(self.message);
        } else {
            self.emit(cx);
        }
    }

    /// All decoded fields; takes them out of the draft.
    fn detail(&mut self, with_body: bool, cx: &Cx<'_>) -> Value {
        let mut fields: Vec<(Text, Value)> = Vec::with_capacity(6);
        if self.message.role == Role::Request {
            fields.push(("method".into(), self.message.operation.clone().into()));
            fields.push(("target".into(), self.message.target.clone().into()));
        }
        fields.push(("version".into(), std::mem::take(&mut self.version).into()));
        if self.code > 0 {
            fields.push(("status".into(), self.code.into()));
            if !self.reason.is_empty() {
                fields.push(("reason".into(), std::mem::take(&mut self.reason).into()));
            }
        }
        fields.push(("headers".into(), std::mem::take(&mut self.fields).into()));
        if self.media == Media::Grpc && self.message.protocol == Some(grpc::NAME) {
            self.messages(&mut fields, cx);
        } else if with_body && self.size > 0 {
            fields.push(("body".into(), self.body_value(cx.body_limit())));
        }
        if !self.trailers.is_empty() {
            fields.push(("trailers".into(), std::mem::take(&mut self.trailers).into()));
        }
        fields.append(&mut self.extra);
        Value::Map(fields)
    }

    /// The messages of a gRPC call's half.
    fn messages(&mut self, fields: &mut Vec<(Text, Value)>, cx: &Cx<'_>) {
        let response = self.message.role == Role::Response;
        let body = self.body.get(..cx.body_limit()).unwrap_or(&self.body);
        let kind = self.method.kind(response);
        let messages = grpc::messages(body, self.size, &self.coding, cx.body_limit(), kind);
        if let (true, Some(kind)) = (messages.misfits, kind) {
            let warning = format!("messages that are no {}: their fields go by number", kind.name());
            self.message.warnings.push(warning.into());
        }
        if let (grpc::Method::NotGiven, false) = (&self.method, response) {
            self.warn("not in the descriptors: fields go by number");
        }
        fields.extend(messages.kind.map(|kind| ("message_type".into(), kind.into())));
        fields.push(("messages".into(), messages.values));
    }

    fn body_value(&self, limit: usize) -> Value {
        match content::decode(&self.coding, &self.body, limit) {
            Some(decoded) => {
                let cut = decoded.more || self.size > self.body.len() as u64;
                let mut value = text::body(&decoded.bytes, decoded.bytes.len() as u64 + u64::from(cut));
                if let Value::Map(fields) = &mut value {
                    // The size is that on the wire, so that the two can be compared.
                    fields.retain(|(name, _)| name != "size");
                    fields.insert(0, ("size".into(), self.size.into()));
                    fields.insert(1, ("encoding".into(), text::value(&self.coding)));
                }
                value
            }
            None => text::body(self.body.get(..limit).unwrap_or(&self.body), self.size),
        }
    }
}

/// A method as text, without copying the usual ones.
fn method_text(method: &[u8]) -> Text {
    match method {
        b"GET" => "GET".into(),
        b"POST" => "POST".into(),
        b"PUT" => "PUT".into(),
        b"HEAD" => "HEAD".into(),
        b"DELETE" => "DELETE".into(),
        b"PATCH" => "PATCH".into(),
        b"OPTIONS" => "OPTIONS".into(),
        b"CONNECT" => "CONNECT".into(),
        _ => text::string(method).into(),
    }
}

/// A status code as text, without writing the usual ones anew.
fn code_text(code: u16) -> Text {
    match code {
        0 => "".into(),
        101 => "101".into(),
        200 => "200".into(),
        201 => "201".into(),
        202 => "202".into(),
        204 => "204".into(),
        206 => "206".into(),
        301 => "301".into(),
        302 => "302".into(),
        304 => "304".into(),
        400 => "400".into(),
        401 => "401".into(),
        403 => "403".into(),
        404 => "404".into(),
        500 => "500".into(),
        502 => "502".into(),
        503 => "503".into(),
        _ => code.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_hide_credentials() {
        let mut fields = Fields::default();
        for (name, value) in [("Vary", "a"), ("Set-Cookie", "id=1"), ("X", "y"), ("vary", "b")] {
            fields.push(name.as_bytes(), value.as_bytes(), false);
        }
        let list = Value::List(vec!["a".into(), "b".into()]);
        assert_eq!(Value::from(fields), crate::fields! { "vary" => list, "set-cookie" => text::HIDDEN, "x" => "y" });
    }

    #[test]
    fn media_types() {
        assert_eq!(Media::parse(b"Application/JSON; charset=utf-8"), Media::Json);
        assert_eq!(Media::parse(b"application/problem+json"), Media::Json);
        assert_eq!(Media::parse(b"application/grpc+proto"), Media::Grpc);
        assert_eq!(Media::parse(b"text/html"), Media::Other);
    }
}
