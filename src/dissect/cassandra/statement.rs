//! Texts of statements: without passwords, and by the ids that they were prepared under.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::dissect::text;

/// The most prepared statements of one connection that are remembered.
const MAX_STATEMENTS: usize = 4096;
/// The most bytes that their texts have together.
const MAX_BYTES: usize = 8 << 20;

/// The most `PREPARE` requests without a response that are remembered.
const MAX_ASKED: usize = 1024;

/// The prepared statements of one connection; the oldest are forgotten.
#[derive(Default)]
pub(super) struct Statements {
    /// Those that are being prepared, by stream, and how many bytes they have.
    asked: HashMap<i16, Arc<str>>,
    asked_bytes: usize,
    by_id: HashMap<Box<[u8]>, Arc<str>>,
    order: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Statements {
    /// A statement is to be prepared.
    pub(super) fn ask(&mut self, stream: i16, statement: &str) {
        self.answer(stream, None);
        if self.asked.len() >= MAX_ASKED || self.asked_bytes + statement.len() > MAX_BYTES {
            self.asked.clear();
            self.asked_bytes = 0;
        }
        self.asked_bytes += statement.len();
        self.asked.insert(stream, statement.into());
    }

    /// What was asked on the stream is answered, with an id if it was prepared.
    pub(super) fn answer(&mut self, stream: i16, id: Option<&[u8]>) {
        let Some(statement) = self.asked.remove(&stream) else { return };
        self.asked_bytes -= statement.len();
        if let Some(id) = id {
            self.insert(id, statement);
        }
    }

    fn insert(&mut self, id: &[u8], statement: Arc<str>) {
        self.bytes += statement.len();
        match self.by_id.insert(id.into(), statement) {
            Some(before) => self.bytes -= before.len(),
            None => self.order.push_back(id.into()),
        }
        while self.order.len() > MAX_STATEMENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(statement) = self.by_id.remove(&oldest) {
                self.bytes -= statement.len();
            }
        }
    }

    pub(super) fn get(&self, id: &[u8]) -> Option<&Arc<str>> {
        self.by_id.get(id)
    }
}

/// The text of a statement; the literals of `PASSWORD = '…'` are hidden unless `secrets`.
pub(super) fn shown(statement: &[u8], secrets: bool) -> String {
    const WORD: &[u8] = b"password";
    let mut out = String::new();
    let mut rest = statement;
    while !secrets && let Some(at) = find(rest, WORD) {
        let (before, after) = rest.split_at(at + WORD.len());
        out.push_str(&text::printable(before));
        rest = after;
        let value = after.trim_ascii_start().strip_prefix(b"=").map(<[u8]>::trim_ascii_start);
        if let Some(literal) = value.and_then(|value| value.strip_prefix(b"'")) {
            let end = end_of_literal(literal);
            out.push_str(&text::printable(after.get(..after.len() - literal.len()).unwrap_or_default()));
            out.push_str(text::HIDDEN);
            rest = literal.get(end..).unwrap_or_default();
        }
    }
    if out.is_empty() {
        return text::string(rest);
    }
    out.push_str(&text::printable(rest));
    out
}

/// Where a word starts, in any case.
fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    let first = *word.first()?;
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), text)
        .find(|at| text.get(*at..*at + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word)))
}

/// Where the quote is that ends a literal; two of them stand for one.
fn end_of_literal(literal: &[u8]) -> usize {
    let mut quotes = memchr::memchr_iter(b'\'', literal);
    while let Some(at) = quotes.next() {
        if literal.get(at + 1) != Some(&b'\'') {
            return at;
        }
        quotes.next();
    }
    literal.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        let hidden = |statement: &str| shown(statement.as_bytes(), false);
        assert_eq!(hidden("SELECT password FROM t"), "SELECT password FROM t");
        assert_eq!(
            hidden("CREATE ROLE r WITH PASSWORD = 'it''s' AND LOGIN = true"),
            "CREATE ROLE r WITH PASSWORD = '[hidden]' AND LOGIN = true"
        );
        assert_eq!(hidden("ALTER USER u WITH PASSWORD 'x'"), "ALTER USER u WITH PASSWORD 'x'");
        assert_eq!(hidden("x password='cut"), "x password='[hidden]");
        assert_eq!(shown(b"PASSWORD = 'x'", true), "PASSWORD = 'x'");
    }

    #[test]
    fn the_oldest_statements_are_forgotten() {
        let mut statements = Statements::default();
        for number in 0..=MAX_STATEMENTS {
            statements.insert(&number.to_be_bytes(), "x".into());
        }
        assert!(statements.get(&0usize.to_be_bytes()).is_none());
        assert!(statements.get(&1usize.to_be_bytes()).is_some());
        statements.insert(b"large", "x".repeat(MAX_BYTES + 1).into());
        assert!(statements.by_id.is_empty() && statements.bytes == 0);
        for stream in 0..100 {
            statements.ask(stream, &"x".repeat(MAX_BYTES / 50));
            assert!(statements.asked_bytes <= MAX_BYTES);
        }
        statements.answer(99, Some(b"id"));
        assert!(statements.get(b"id").is_some());
    }
}
