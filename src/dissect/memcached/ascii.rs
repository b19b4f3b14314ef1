//! The text protocol: lines, some of which are followed by a value.

use super::{Mark, Memcached};
use crate::dissect::{Cursor, Cx, Malformed, Message, Progress, Role, Transport, Verdict, text};
use crate::entry::{Direction, Text, Value};
use crate::fields;

/// The longest line; a `get` may name many keys.
const MAX_LINE: usize = 64 << 10;
/// The longest key: 250 bytes, in base64 for meta commands.
const MAX_KEY: usize = 336;
/// The largest value that a server can be told to take.
const MAX_VALUE: usize = 1 << 30;
/// The most values or lines of one answer that are kept for its detail.
const MAX_KEPT: usize = 4096;
/// The longest first word of a line.
const MAX_WORD: usize = 32;

/// Commands: name, how many of its words are keys, and in which word the length of its value is, if one follows.
const COMMANDS: &[(&str, Keys, Option<usize>)] = &[
    ("add", Keys::One, Some(4)),
    ("append", Keys::One, Some(4)),
    ("cache_memlimit", Keys::None, None),
    ("cas", Keys::One, Some(4)),
    ("decr", Keys::One, None),
    ("delete", Keys::One, None),
    ("flush_all", Keys::None, None),
    ("gat", Keys::AfterTime, None),
    ("gats", Keys::AfterTime, None),
    ("get", Keys::All, None),
    ("gets", Keys::All, None),
    ("incr", Keys::One, None),
    ("lru", Keys::None, None),
    ("lru_crawler", Keys::None, None),
    ("ma", Keys::One, None),
    ("md", Keys::One, None),
    ("me", Keys::One, None),
    ("mg", Keys::One, None),
    ("mn", Keys::None, None),
    ("ms", Keys::One, Some(2)),
    ("prepend", Keys::One, Some(4)),
    ("quit", Keys::None, None),
    ("replace", Keys::One, Some(4)),
    ("set", Keys::One, Some(4)),
    ("shutdown", Keys::None, None),
    ("slabs", Keys::None, None),
    ("stats", Keys::None, None),
    ("touch", Keys::One, None),
    ("verbosity", Keys::None, None),
    ("version", Keys::None, None),
    ("watch", Keys::None, None),
];

/// Which words of a command are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    None,
    One,
    All,
    AfterTime,
}

/// First words of answers, and whether they alone are proof of the protocol.
const ANSWERS: &[(&str, bool)] = &[
    ("BUSY", false),
    ("CLIENT_ERROR", true),
    ("DELETED", false),
    ("EN", false),
    ("END", false),
    ("ERROR", false),
    ("EX", false),
    ("EXISTS", false),
    ("HD", false),
    ("ITEM", false),
    ("ME", false),
    ("MN", false),
    ("NF", false),
    ("NOT_FOUND", false),
    ("NOT_STORED", true),
    ("NS", false),
    ("OK", false),
    ("RESET", false),
    ("SERVER_ERROR", true),
    ("STAT", false),
    ("STORED", true),
    ("TOUCHED", false),
    ("VA", false),
    ("VALUE", true),
    ("VERSION", false),
];

/// A quiet meta command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// `mg` keeps quiet about a miss, the others about success.
    reads: bool,
    /// Its opaque flag, which comes back.
    opaque: Option<Vec<u8>>,
}

/// What an answer of many lines has shown so far.
#[derive(Default)]
pub(super) struct Values {
    kept: Vec<Value>,
    bytes: usize,
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

fn number(word: &[u8]) -> Option<usize> {
    if word.is_empty() || word.len() > 19 {
        return None;
    }
    word.iter().try_fold(0usize, |number, byte| {
        byte.is_ascii_digit().then(|| number.checked_mul(10)?.checked_add(usize::from(byte - b'0'))).flatten()
    })
}

/// A line without its end, or how the lack of one is to be taken.
fn line<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Result<Progress, Malformed>> {
    let window = cursor.rest().get(..MAX_LINE).unwrap_or(cursor.rest());
    let Some(end) = memchr::memchr(b'\n', window) else {
        let short = window.len() < MAX_LINE;
        return Err(if short { Ok(Progress::Need(1)) } else { Err(Malformed("a line without end")) });
    };
    let line = window.get(..end).unwrap_or_default();
    if cursor.skip(end + 1).is_err() {
        return Err(Ok(Progress::Need(1)));
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().any(u8::is_ascii_control) { Err(Err(Malformed("a line with control characters"))) } else { Ok(line) }
}

fn command(word: &[u8]) -> Option<(&'static str, Keys, Option<usize>)> {
    let at = COMMANDS.binary_search_by(|(name, ..)| name.as_bytes().cmp(word)).ok()?;
    COMMANDS.get(at).copied()
}

pub(super) fn probe(data: &[u8], direction: Direction, hinted: bool) -> Verdict {
    let mut cursor = Cursor::new(data);
    let line = match line(&mut cursor) {
        Ok(line) => line,
        Err(Ok(_)) => {
            // Any word may still become one of ours.
            let first = words(data).next().unwrap_or(data);
            let begins = |name: &str| name.as_bytes().starts_with(first.strip_suffix(b"\r").unwrap_or(first));
            let fits = match direction {
                Direction::ToServer => COMMANDS.iter().any(|(name, ..)| begins(name)),
                Direction::ToClient => {
                    first.iter().all(u8::is_ascii_digit) || ANSWERS.iter().any(|(name, _)| begins(name))
                }
            };
            return if fits { Verdict::More } else { Verdict::No };
        }
        Err(Err(_)) => return Verdict::No,
    };
    match direction {
        Direction::ToServer => probe_command(line),
        Direction::ToClient => probe_answer(line, hinted),
    }
}

fn probe_command(line: &[u8]) -> Verdict {
    let mut words = words(line);
    let Some((_, keys, value)) = words.next().and_then(command) else { return Verdict::No };
    let rest: Vec<_> = words.take(8).collect();
    let key = match keys {
        Keys::AfterTime => rest.get(1),
        _ => rest.first(),
    };
    if keys != Keys::None && key.is_none_or(|key| key.len() > MAX_KEY) {
        return Verdict::No;
    }
    match value {
        // The numbers after the key: flags, time, length.
        Some(4)
            if (1..4)
                .all(|at| rest.get(at).is_some_and(|word| number(word).is_some() || at == 2 && *word == b"-1")) =>
        {
            Verdict::Yes
        }
        Some(2) if rest.get(1).is_some_and(|word| number(word).is_some()) => Verdict::Maybe,
        Some(_) => Verdict::No,
        None => Verdict::Maybe,
    }
}

fn probe_answer(line: &[u8], hinted: bool) -> Verdict {
    let first = words(line).next().unwrap_or_default();
    if hinted && number(line).is_some() {
        return Verdict::Maybe;
    }
    match ANSWERS.iter().find(|(name, _)| name.as_bytes() == first) {
        Some(("VALUE", _)) if parse_value(line).is_none() => Verdict::No,
        Some((_, true)) => Verdict::Yes,
        Some((_, false)) => Verdict::Maybe,
        None => Verdict::No,
    }
}

/// The length of the value that follows `VALUE key flags length [cas]` or `VA length flags*`.
fn parse_value(line: &[u8]) -> Option<usize> {
    let mut words = words(line);
    let length = match words.next()? {
        b"VALUE" => words.nth(2)?,
        b"VA" => words.next()?,
        _ => return None,
    };
    number(length).filter(|length| *length <= MAX_VALUE)
}

/// Some of a value that follows a line: what the detail needs. The value and its CRLF may reach beyond the bytes at hand.
fn value<'a>(cursor: &mut Cursor<'a>, len: usize, wanted: usize) -> Result<&'a [u8], Progress> {
    let wanted = wanted.min(len);
    cursor.take(wanted).map_err(|_| Progress::Need(wanted.saturating_sub(cursor.remaining()).max(1)))
}

impl Memcached {
    /// A command, with the value that follows it.
    pub(super) fn command(&mut self, id: u64, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let line = match line(&mut cursor) {
            Ok(line) => line,
            Err(progress) => return progress,
        };
        let mut consumed = cursor.position();
        let mut rest = words(line);
        let Some(first) = rest.next() else { return Ok(Progress::Consumed(consumed)) };
        let (name, keys, length) = match command(first) {
            Some((name, keys, length)) => (Text::Borrowed(name), keys, length),
            None if first.len() <= MAX_WORD && first.iter().all(u8::is_ascii_graphic) => {
                (Text::Owned(text::string(first)), Keys::None, None)
            }
            None => return Err(Malformed("a command without a name")),
        };
        let last = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let mut kept = Value::Null;
        if let Some(length) = length {
            let length = words(line).nth(length).and_then(number).filter(|length| *length <= MAX_VALUE);
            // A server reads no value after a length that it can't read.
            if let Some(length) = length {
                match value(&mut cursor, length, cx.body_limit()) {
                    Ok(head) if cx.detail() => kept = text::body(head, length as u64),
                    Ok(_) => {}
                    Err(_) if cx.transport() == Transport::Udp => return Err(Malformed("a value in many datagrams")),
                    Err(progress) => return Ok(progress),
                }
                consumed += length + 2;
            }
        }
        let mut message = Message::new(Role::Request, Direction::ToServer, cx);
        message.id = id;
        message.bytes = consumed as u64;
        message.target = match keys {
            Keys::None => String::new(),
            Keys::One => rest.next().map(text::string).unwrap_or_default(),
            Keys::All => joined(rest),
            Keys::AfterTime => joined(rest.skip(1)),
        };
        if cx.detail() {
            message.detail = fields! { "command" => text::value(line) };
            if let (Value::Map(fields), false) = (&mut message.detail, kept.is_null()) {
                fields.push(("value".into(), kept));
            }
        }
        let meta = matches!(&*name, "mg" | "ms" | "md" | "ma");
        let flags = || words(line).skip(2 + usize::from(name == "ms"));
        let quiet = meta && flags().any(|flag| flag == b"q");
        let mark = match &*name {
            "quit" | "shutdown" => None,
            _ if last == b"noreply" && !meta => None,
            "watch" => Some(Mark::Watch),
            _ if quiet => {
                let opaque = flags().find(|flag| flag.first() == Some(&b'O')).map(<[u8]>::to_vec);
                Some(Mark::Meta(Meta { reads: name == "mg", opaque }))
            }
            _ => Some(Mark::Next),
        };
        message.operation = name;
        self.asked(message, mark, quiet, cx);
        Ok(Progress::Consumed(consumed))
    }

    /// A line of an answer, with the value that follows it.
    pub(super) fn line(&mut self, id: u64, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let line = match line(&mut cursor) {
            Ok(line) => line,
            Err(progress) => return progress,
        };
        let mut consumed = cursor.position();
        let first = words(line).next().unwrap_or_default();
        let mut kept = Value::Null;
        if let Some(length) = parse_value(line) {
            match value(&mut cursor, length, cx.body_limit().saturating_sub(self.values.bytes)) {
                Ok(head) if cx.detail() => {
                    self.values.bytes += head.len();
                    kept = text::body(head, length as u64);
                }
                Ok(_) => {}
                // Over UDP, the rest of it is in another datagram.
                Err(_) if cx.transport() == Transport::Udp => {}
                Err(progress) => return Ok(progress),
            }
            consumed += length + 2;
        }
        let mut message = match self.answer.take() {
            Some(message) => message,
            None => match begin(first, line, cx) {
                Some(message) => Message { id, ..message },
                None if self.watching => return Ok(Progress::Consumed(consumed)),
                None => return Err(Malformed("an answer that memcached does not give")),
            },
        };
        message.bytes += consumed as u64;
        if cx.detail() && self.values.kept.len() < MAX_KEPT && (first != b"END" || self.values.kept.is_empty()) {
            let mut shown = fields! { "line" => text::value(line) };
            if let (Value::Map(fields), false) = (&mut shown, kept.is_null()) {
                fields.push(("value".into(), kept));
            }
            self.values.kept.push(shown);
        }
        if matches!(first, b"VALUE" | b"STAT" | b"ITEM") {
            self.answer = Some(message);
            return Ok(Progress::Consumed(consumed));
        }
        let values = std::mem::take(&mut self.values);
        if cx.detail() {
            message.detail = fields! { "lines" => values.kept };
        }
        let opaque = words(line).skip(1).find(|flag| flag.first() == Some(&b'O'));
        let is_its = |mark: &Mark| match mark {
            Mark::Meta(Meta { opaque: Some(asked), .. }) => opaque == Some(asked),
            Mark::Meta(Meta { reads: true, .. }) => matches!(first, b"VA" | b"HD" | b"CLIENT_ERROR" | b"SERVER_ERROR"),
            Mark::Meta(Meta { reads: false, .. }) => !matches!(first, b"HD" | b"MN" | b"VA" | b"EN"),
            _ => true,
        };
        self.answered(message, is_its, cx);
        Ok(Progress::Consumed(consumed))
    }
}

/// An answer that starts with this line.
fn begin(first: &[u8], line: &[u8], cx: &Cx<'_>) -> Option<Message> {
    let status = match ANSWERS.iter().find(|(name, _)| name.as_bytes() == first) {
        Some((name, _)) => name,
        None if number(line).is_some() => "ok",
        None => return None,
    };
    let failed = matches!(status, "ERROR" | "CLIENT_ERROR" | "SERVER_ERROR");
    Some(Message::response(Direction::ToClient, status, failed, cx))
}

fn joined<'a>(words: impl Iterator<Item = &'a [u8]>) -> String {
    let mut joined = String::new();
    for word in words {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(&text::printable(word));
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(COMMANDS.is_sorted_by_key(|(name, ..)| name));
    }

    #[test]
    fn only_its_own_lines_are_known() {
        let asks = |line: &[u8]| probe(line, Direction::ToServer, false);
        assert_eq!(asks(b"set k 0 0 5\r\nhello\r\n"), Verdict::Yes);
        assert_eq!(asks(b"get k\r\n"), Verdict::Maybe);
        assert_eq!(asks(b"ge"), Verdict::More);
        assert_eq!(asks(b"GET k\r\n"), Verdict::No);
        assert_eq!(asks(b"set k\r\n"), Verdict::No);
        let answers = |line: &[u8]| probe(line, Direction::ToClient, false);
        assert_eq!(answers(b"VALUE k 0 5\r\nhello\r\nEND\r\n"), Verdict::Yes);
        assert_eq!(answers(b"VALUE of it\r\n"), Verdict::No);
        assert_eq!(answers(b"+OK\r\n"), Verdict::No);
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(number(b"12"), Some(12));
        assert_eq!(number(b"99999999999999999999999"), None);
        assert_eq!(number(b"-1"), None);
    }
}
