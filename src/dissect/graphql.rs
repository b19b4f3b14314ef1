//! GraphQL over HTTP: what takes the place of the HTTP row. Spec: <https://spec.graphql.org/September2025/> and
//! <https://graphql.github.io/graphql-over-http/draft/>.
//!
//! Parsed: GET and POST with JSON or a bare document, batches (one row for each operation), persisted queries. **Not
//! parsed**: multipart uploads; selections, beyond finding where they end. A request that is not GraphQL stays HTTP.

use std::borrow::Cow;

use memchr::memchr2_iter;
use serde_json::Value as Json;

use super::http::Media;
use super::{Protocol, Transport, Verdict, http1};
use crate::entry::{Text, Value};

/// Found within HTTP only: it has no bytes of its own.
pub static PROTOCOL: Protocol = Protocol {
    name: NAME,
    title: "GraphQL",
    transport: Transport::Tcp,
    ports: &[],
    probe: |_| Verdict::No,
    new: http1::PROTOCOL.new,
    repeats: false,
    spec: "https://spec.graphql.org/September2025/",
};

/// The name in rows.
pub const NAME: &str = "graphql";
/// The largest request body that is looked into.
pub const MAX_BODY: usize = 1 << 20;
/// The most operations of one batch that get rows.
const MAX_BATCH: usize = 64;
/// The deepest nesting of brackets in a document.
const MAX_DEPTH: usize = 256;

/// One operation of a request.
#[derive(Debug)]
pub struct Operation {
    /// `query`, `mutation` or `subscription`.
    pub kind: &'static str,
    /// Its name; empty if it has none.
    pub name: String,
    query: Json,
    variables: Json,
    extensions: Json,
}

impl Operation {
    /// Its decoded fields.
    #[must_use]
    pub fn detail(self) -> Value {
        let Self { kind, name, query, variables, extensions } = self;
        let mut detail = vec![("operation".into(), kind.into()), ("operation_name".into(), name.into())];
        let rest = [("query", query), ("variables", variables), ("extensions", extensions)];
        let rest = rest.into_iter().filter(|(_, json)| !json.is_null());
        detail.extend(rest.map(|(name, json)| (Text::from(name), value(json))));
        Value::Map(detail)
    }
}

/// JSON as a field's value.
fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => value.into(),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => value.into(),
            (None, Some(value)) => value.into(),
            _ => number.as_f64().into(),
        },
        Json::String(text) => super::text::value(text.as_bytes()),
        Json::Array(values) => Value::List(values.into_iter().map(value).collect()),
        Json::Object(members) => {
            let member = |(name, json): (String, Json)| (super::text::string(name.as_bytes()).into(), value(json));
            Value::Map(members.into_iter().map(member).collect())
        }
    }
}

/// True if requests for that target may be GraphQL's: the path says so.
#[must_use]
pub fn may_be(target: &[u8]) -> bool {
    // `q` is the rarest letter of the word.
    memchr2_iter(b'q', b'Q', target).any(|at| {
        let word = at.checked_sub(5).and_then(|start| target.get(start..at + 2));
        let in_path = || !target.get(..at).unwrap_or_default().contains(&b'?');
        word.is_some_and(|word| word.eq_ignore_ascii_case(b"graphql")) && in_path()
    })
}

/// The operations that a request asks for; none if it is not GraphQL's.
#[must_use]
pub fn operations(method: &str, target: &str, media: Media, body: &[u8]) -> Vec<Operation> {
    let parameters = || parameters(target.split_once('?').map_or("", |(_, query)| query));
    let found = match method {
        "GET" => operation(parameters()).map(|operation| vec![operation]),
        "POST" if media == Media::GraphQl => {
            let mut members = parameters();
            members.insert("query".into(), String::from_utf8_lossy(body).into());
            operation(members).map(|operation| vec![operation])
        }
        "POST" => match serde_json::from_slice(body) {
            Ok(Json::Object(mut members)) => {
                if !members.contains_key("query") {
                    members.extend(parameters());
                }
                operation(members).map(|operation| vec![operation])
            }
            Ok(Json::Array(batch)) if batch.len() <= MAX_BATCH => {
                let each = |json| if let Json::Object(members) = json { operation(members) } else { None };
                batch.into_iter().map(each).collect()
            }
            _ => None,
        },
        _ => None,
    };
    found.unwrap_or_default()
}

type Members = serde_json::Map<String, Json>;

/// The operation that a request's members name.
fn operation(mut members: Members) -> Option<Operation> {
    let mut take = |name: &str| members.remove(name).unwrap_or_default();
    let (query, asked) = (take("query"), take("operationName"));
    let (variables, extensions) = (take("variables"), take("extensions"));
    let asked = match &asked {
        Json::String(name) => name.as_str(),
        Json::Null => "",
        _ => return None,
    };
    let (kind, name) = match &query {
        Json::String(document) if !document.trim().is_empty() => {
            let defined = document_operations(document)?;
            let first = defined.first()?;
            let meant = defined.iter().find(|(_, name)| !asked.is_empty() && *name == asked).unwrap_or(first);
            let named = defined.iter().find(|(_, name)| !name.is_empty()).map_or("", |(_, name)| name);
            (meant.0, if asked.is_empty() { named } else { asked })
        }
        // Only the server knows the text.
        Json::String(_) | Json::Null if extensions.get("persistedQuery").is_some_and(Json::is_object) => {
            ("query", asked)
        }
        _ => return None,
    };
    let name = super::text::string(name.as_bytes());
    Some(Operation { kind, name, query, variables, extensions })
}

/// The parameters of a query string; those whose values are JSON are read as such.
fn parameters(query: &str) -> Members {
    let mut members = Members::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = percent_decoded(value);
        let json = match name {
            "query" | "operationName" => Json::String(value.into_owned()),
            "variables" | "extensions" => serde_json::from_str(&value).unwrap_or_default(),
            _ => continue,
        };
        members.insert(name.into(), json);
    }
    members
}

/// A query string's value: `+` is a space, `%HH` a byte.
fn percent_decoded(value: &str) -> Cow<'_, str> {
    if !value.contains(['%', '+']) {
        return value.into();
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digit = |at: usize| tail.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Kind and name of each operation that a document defines; `None` if it is no document.
fn document_operations(document: &str) -> Option<Vec<(&'static str, &str)>> {
    let mut scanner = Scanner { rest: document };
    let mut operations = Vec::new();
    loop {
        let kind = match scanner.token()? {
            "" => return Some(operations),
            "{" => {
                scanner.selection()?;
                operations.push(("query", ""));
                continue;
            }
            "query" => "query",
            "mutation" => "mutation",
            "subscription" => "subscription",
            "fragment" => "",
            _ => return None,
        };
        let mut next = scanner.token()?;
        let mut name = "";
        if is_name(next) {
            name = next;
            next = scanner.token()?;
        }
        // Variables, a type condition, directives: whatever stands before the selection.
        while next != "{" {
            match next {
                "(" | "[" => scanner.brackets(next)?,
                "@" | "on" | ":" | "=" | "!" | "$" => {}
                _ if is_name(next) => {}
                _ => return None,
            }
            next = scanner.token()?;
        }
        scanner.selection()?;
        if !kind.is_empty() {
            operations.push((kind, name));
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

/// Reads a document token by token (specification section 2.1).
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// The next token, empty at the end; `None` if what stands there is no token. Strings come as `"`.
    fn token(&mut self) -> Option<&'a str> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', ',', '\u{feff}']);
            let Some(comment) = self.rest.strip_prefix('#') else { break };
            self.rest = comment.find(['\n', '\r']).and_then(|end| comment.get(end..)).unwrap_or("");
        }
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return Some("") };
        let len = match first {
            '"' => string_len(rest)?,
            '.' => rest.starts_with("...").then_some(3)?,
            '!' | '$' | '&' | '(' | ')' | ':' | '=' | '@' | '[' | ']' | '{' | '|' | '}' => 1,
            '_' | 'A'..='Z' | 'a'..='z' => {
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            '-' | '0'..='9' => {
                let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
                rest.find(|c| !part(c)).unwrap_or(rest.len())
            }
            _ => return None,
        };
        let (token, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some(if first == '"' { "\"" } else { token })
    }

    /// Passes over a selection whose opening brace was read. An empty one is none.
    fn selection(&mut self) -> Option<()> {
        let empty = Scanner { rest: self.rest }.token()? == "}";
        if empty { None } else { self.brackets("{") }
    }

    /// Passes over everything up to the bracket that closes `open`.
    fn brackets(&mut self, open: &str) -> Option<()> {
        let closing = |open: &str| match open {
            "(" => ")",
            "[" => "]",
            _ => "}",
        };
        let mut expected = vec![closing(open)];
        while let Some(&close) = expected.last() {
            match self.token()? {
                token @ ("(" | "[" | "{") if expected.len() < MAX_DEPTH => expected.push(closing(token)),
                "" | "(" | "[" | "{" => return None,
                token @ (")" | "]" | "}") => {
                    if token != close {
                        return None;
                    }
                    expected.pop();
                }
                _ => {}
            }
        }
        Some(())
    }
}

/// The length of the string, or block string, at the front.
fn string_len(text: &str) -> Option<usize> {
    if let Some(block) = text.strip_prefix("\"\"\"") {
        let mut at = 0;
        loop {
            at += block.get(at..)?.find("\"\"\"")?;
            if !block.get(..at)?.ends_with('\\') {
                return Some(at + 6);
            }
            at += 3;
        }
    }
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '\n' | '\r' => return None,
            '"' if !escaped => return Some(at + 1),
            _ => escaped = character == '\\' && !escaped,
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let defined = |document| document_operations(document).unwrap();
        assert_eq!(defined("{ a }"), [("query", "")]);
        assert_eq!(
            defined("query A($x: [Int!]! = [1], $y: T = {a: \"}\"}) @d(if: true) { b(c: \"{\") }"),
            [("query", "A")]
        );
        assert_eq!(defined("# query No {a}\nmutation M{a}"), [("mutation", "M")]);
        let several =
            "fragment f on T @x { y } subscription S { ...f ... on U { z } } query { a(s: \"\"\"\\\"\"\" }\"\"\") }";
        assert_eq!(defined(several), [("subscription", "S"), ("query", "")]);
        assert_eq!(defined("fragment f on T { y }"), []);
    }

    #[test]
    fn what_is_no_document() {
        for bad in [
            "{",
            "{}",
            "query",
            "query A",
            "{ a ) }",
            "SELECT 1",
            "{ a \"open }",
            "type T { a: Int }",
            "{a} ;",
            "\"x\"",
        ] {
            assert_eq!(document_operations(bad), None, "{bad}");
        }
        assert_eq!(document_operations(&"{a".repeat(100_000)), None);
    }

    fn rows(method: &str, target: &str, media: Media, body: &str) -> Vec<(&'static str, String)> {
        operations(method, target, media, body.as_bytes()).into_iter().map(|found| (found.kind, found.name)).collect()
    }

    #[test]
    fn requests() {
        let post = |body| rows("POST", "/graphql", Media::Json, body);
        assert_eq!(post(r#"{"query":"query A{a} mutation B{b}","operationName":"B"}"#), [("mutation", "B".into())]);
        assert_eq!(
            post(r#"[{"query":"query A{a}"},{"query":"{b}"}]"#),
            [("query", "A".into()), ("query", String::new())]
        );
        let persisted = r#"{"operationName":"P","extensions":{"persistedQuery":{"version":1,"sha256Hash":"00"}}}"#;
        assert_eq!(post(persisted), [("query", "P".into())]);
        assert_eq!(rows("POST", "/graphql", Media::GraphQl, "query A { a }"), [("query", "A".into())]);
        let get = "/graphql?query=query+A%7Ba%7D&variables=%7B%22x%22%3A1%7D";
        assert_eq!(rows("GET", get, Media::Other, ""), [("query", "A".into())]);
        for body in ["", "{}", "[]", "[1]", r#"{"query":1}"#, r#"{"query":"no"}"#, r#"[{"query":"{a}"},{}]"#] {
            assert_eq!(post(body), [], "{body}");
        }
        assert_eq!(rows("GET", "/graphql", Media::Other, ""), []);
    }

    #[test]
    fn targets() {
        assert!(may_be(b"/api/GraphQL?x") && may_be(b"/graphql"));
        assert!(!may_be(b"/graph?q=graphql") && !may_be(b"/quit") && !may_be(b""));
    }
}
