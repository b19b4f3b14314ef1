//! What the server sends: replies, pushes, and a replica's snapshot.

use super::commands::{Effect, is_secret_name};
use super::requests::shown;
use super::resp::{self, Bulk, Fault, Item, Kind};
use super::walk::Walk;
use super::{MAX_TARGET, MAX_WORD, Redis, Stage, word};
use crate::dissect::{Cursor, Cx, Malformed, Message, Progress, Role, text};
use crate::entry::{Direction, Text, Value};
use crate::fields;

/// The length of the delimiter that ends a snapshot of unknown length.
pub(super) const DELIMITER: usize = 40;

/// Pushes by their first word: how many items they have, which of them is the channel, the row's operation.
const PUSHES: &[(&[u8], u64, u64, &str)] = &[
    (b"message", 3, 1, "MESSAGE"),
    (b"pmessage", 4, 2, "PMESSAGE"),
    (b"smessage", 3, 1, "SMESSAGE"),
    (b"invalidate", 2, 1, "INVALIDATE"),
];
/// The first words of confirmations, which have three items.
const CONFIRMATIONS: &[(&[u8], &str)] = &[
    (b"subscribe", "SUBSCRIBE"),
    (b"unsubscribe", "UNSUBSCRIBE"),
    (b"psubscribe", "PSUBSCRIBE"),
    (b"punsubscribe", "PUNSUBSCRIBE"),
    (b"ssubscribe", "SSUBSCRIBE"),
    (b"sunsubscribe", "SUNSUBSCRIBE"),
];
/// The longest first word of a push that is looked at.
const MAX_PUSH_WORD: u64 = 32;

/// A message of the server's under way.
#[derive(Default)]
pub(super) struct Reply {
    walk: Walk,
    message: Option<Message>,
    /// Known once the first item that is no attribute was seen.
    role: Option<Meaning>,
    type_name: &'static str,
    /// What the reply may give away.
    effect: Option<Effect>,
    /// The next string is the value of a secret setting.
    secret_next: bool,
    /// Bytes of strings kept.
    kept: usize,
}

/// What a message of the server's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Answer,
    Push,
    /// Of a command of this name.
    Confirmation(&'static str),
    /// A line for `MONITOR`.
    Noise,
}

impl Reply {
    /// No message is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.message.is_none()
    }

    /// What is known of a reply that never became whole.
    pub(super) fn abandon(&mut self) -> Option<Message> {
        let message = self.message.take();
        if self.role == Some(Meaning::Answer) { message } else { None }
    }

    /// An item's value, for the detail.
    fn value(&mut self, item: &Item<'_>, head: &[u8], cx: &Cx<'_>) -> Value {
        let value = match *item {
            Item::Bulk(kind, len) => {
                self.kept += head.len();
                match head.split_at_checked(4) {
                    Some((_, text)) if kind == Bulk::Verbatim => shown(text, len - 4),
                    _ => shown(head, len),
                }
            }
            _ => item.value(),
        };
        if cx.secrets() {
            return value;
        }
        let hidden = match self.effect {
            Some(Effect::Secret) => matches!(item, Item::Bulk(..) | Item::Simple(_)),
            Some(Effect::Config) => std::mem::take(&mut self.secret_next),
            _ => false,
        };
        if self.effect == Some(Effect::Config) && !hidden {
            self.secret_next = is_secret_name(head);
        }
        if hidden { text::HIDDEN.into() } else { value }
    }
}

impl Redis {
    /// A reply or a push, or a part of one.
    pub(super) fn reply(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        if self.reply.message.is_none() {
            if cursor.peek() == Some(b'\n') && self.is_snapshot() {
                // Sent while the snapshot is being made.
                return Ok(Progress::Consumed(1));
            }
            self.reply = Reply {
                walk: std::mem::take(&mut self.reply.walk),
                message: Some(Message::new(Role::Response, Direction::ToClient, cx)),
                ..Reply::default()
            };
            self.reply.walk.start(cx.detail());
        }
        let mut beyond = 0;
        while !self.reply.walk.is_done() && beyond == 0 {
            let before = cursor;
            match self.item(&mut cursor, cx) {
                Ok(unseen) => beyond = unseen,
                Err(Fault::Short(more)) if before.position() == 0 => return Ok(Progress::Need(more)),
                Err(Fault::Short(_)) => {
                    cursor = before;
                    break;
                }
                Err(Fault::Malformed(why)) => return Err(Malformed(why)),
            }
        }
        let consumed = cursor.position() + beyond;
        if let Some(message) = &mut self.reply.message {
            message.bytes += consumed as u64;
        }
        if self.reply.walk.is_done() {
            self.finish_reply(cx);
        }
        Ok(Progress::Consumed(consumed))
    }

    /// The next item of the message under way; how many bytes of it are to be passed over unseen.
    fn item(&mut self, cursor: &mut Cursor<'_>, cx: &Cx<'_>) -> Result<usize, Fault> {
        let item = resp::item(cursor)?;
        let heads = self.reply.role.is_none()
            && self.reply.walk.at_top()
            && !matches!(item, Item::Aggregate(Kind::Attribute, _));
        let mut beyond = 0;
        let mut head = match item {
            Item::Simple(text) | Item::Error(text) => text,
            _ => &[][..],
        };
        if let Item::Bulk(kind, len) = item {
            if heads && self.is_snapshot() {
                return self.start_snapshot(len);
            }
            let needed = if heads && kind == Bulk::Error { MAX_WORD } else { 0 };
            let body = resp::body(cursor, len, needed.max(cx.body_limit().saturating_sub(self.reply.kept)))?;
            (head, beyond) = (body.head, body.beyond);
        }
        if heads {
            self.head(&item, head, *cursor)?;
        }
        let value = cx.detail().then(|| self.reply.value(&item, head, cx));
        self.reply.walk.pass(&item, value)?;
        Ok(beyond)
    }

    /// The first item tells what the message is. `rest` is what follows it.
    fn head(&mut self, item: &Item<'_>, text: &[u8], rest: Cursor<'_>) -> Result<(), Fault> {
        let nothing_open = self.answered == self.asked;
        let meaning = match *item {
            Item::Simple(line) if is_monitored(line) && (self.monitoring || nothing_open) => Meaning::Noise,
            Item::Aggregate(Kind::Push, Some(count)) => match self.push(count, rest)? {
                Some(meaning) => meaning,
                None => self.other_push(rest)?,
            },
            Item::Aggregate(Kind::Array, Some(count @ 3..=4)) if self.may_be_pushed(nothing_open) => {
                self.push(count, rest)?.unwrap_or(Meaning::Answer)
            }
            _ => Meaning::Answer,
        };
        self.reply.role = Some(meaning);
        self.reply.type_name = item.type_name();
        self.reply.effect = self.awaited().map(|awaited| awaited.effect);
        if let Some(message) = &mut self.reply.message
            && meaning == Meaning::Answer
        {
            message.failed = matches!(item, Item::Error(_) | Item::Bulk(Bulk::Error, _));
            message.status = if message.failed { error_word(text) } else { Text::Borrowed("ok") };
        }
        Ok(())
    }

    /// RESP2 pushes are arrays like others: they come to those who have subscribed, or are about to.
    fn may_be_pushed(&mut self, nothing_open: bool) -> bool {
        nothing_open
            || self.subscribed
            || self.awaited().is_some_and(|awaited| matches!(awaited.effect, Effect::Confirmed(_)))
    }

    /// A push or a confirmation, of so many items; none if it is neither.
    fn push(&mut self, count: u64, mut rest: Cursor<'_>) -> Result<Option<Meaning>, Fault> {
        let Some(first) = push_word(&mut rest)? else { return Ok(None) };
        if let Some((_, name)) = CONFIRMATIONS.iter().find(|(word, _)| *word == first && count == 3) {
            skip_string(&mut rest)?;
            let Item::Integer(channels) = resp::item(&mut rest)? else { return Ok(None) };
            self.subscribed = channels > 0;
            if let Some(message) = &mut self.reply.message {
                message.status = Text::Borrowed("ok");
            }
            return Ok(Some(Meaning::Confirmation(name)));
        }
        let Some((.., channel, name)) = PUSHES.iter().find(|(word, items, ..)| *word == first && *items == count)
        else {
            return Ok(None);
        };
        for _ in 1..*channel {
            skip_string(&mut rest)?;
        }
        let target = match resp::item(&mut rest)? {
            // The keys that are not valid any more; null for all of them.
            Item::Aggregate(Kind::Array, Some(1..)) => resp::item(&mut rest)?,
            item => item,
        };
        let channel = match target {
            Item::Bulk(Bulk::String, len) => text::string(resp::body(&mut rest, len, MAX_TARGET)?.head),
            Item::Null | Item::Aggregate(Kind::Array, _) => String::new(),
            _ => return Ok(None),
        };
        if let Some(message) = &mut self.reply.message {
            message.role = Role::OneWay;
            message.operation = Text::Borrowed(name);
            message.target = channel;
        }
        Ok(Some(Meaning::Push))
    }

    /// A RESP3 push of a kind that only modules know.
    fn other_push(&mut self, mut rest: Cursor<'_>) -> Result<Meaning, Fault> {
        let first = push_word(&mut rest)?.unwrap_or(b"push");
        if let Some(message) = &mut self.reply.message {
            message.role = Role::OneWay;
            message.operation = Text::Owned(word(first).to_uppercase());
        }
        Ok(Meaning::Push)
    }

    fn finish_reply(&mut self, cx: &mut Cx<'_>) {
        let reply = &mut self.reply;
        let (Some(mut message), Some(meaning)) = (reply.message.take(), reply.role) else { return };
        if cx.detail() {
            message.detail = fields! { "type" => reply.type_name, "value" => std::mem::take(&mut reply.walk.value) };
            let attributes = std::mem::take(&mut reply.walk.attributes);
            if let (Value::Map(fields), false) = (&mut message.detail, attributes.is_null()) {
                fields.push(("attributes".into(), attributes));
            }
            if reply.walk.truncated {
                message.warnings.push(Text::Borrowed("only its first values are shown"));
            }
        }
        match meaning {
            Meaning::Answer => self.answered(message, cx),
            Meaning::Confirmation(name) => self.confirmed(name, message, cx),
            Meaning::Push => cx.emit(message),
            Meaning::Noise => {}
        }
    }

    /// True if the next string is a snapshot: `SYNC` is answered by one at once.
    fn is_snapshot(&mut self) -> bool {
        self.awaited().is_some_and(|awaited| awaited.effect == Effect::Sync)
    }

    /// Answers the `SYNC` with its snapshot.
    fn start_snapshot(&mut self, len: u64) -> Result<usize, Fault> {
        let len = usize::try_from(len).map_err(|_| Fault::Malformed("a snapshot that no memory holds"))?;
        self.stage = Stage::Commands;
        self.reply.role = Some(Meaning::Answer);
        self.reply.type_name = "snapshot";
        if let Some(message) = &mut self.reply.message {
            message.status = Text::Borrowed("ok");
        }
        self.reply.walk.pass(&Item::Null, None)?;
        // Its beginning may be at hand already; a count past the end of that is skipped as it comes.
        Ok(len)
    }

    /// Passes over a snapshot.
    pub(super) fn snapshot(
        &mut self,
        delimiter: Option<[u8; DELIMITER]>,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        if let Some(delimiter) = delimiter {
            return Ok(match memchr::memmem::find(bytes, &delimiter) {
                Some(at) => {
                    self.stage = Stage::Commands;
                    Progress::Consumed(at + DELIMITER)
                }
                None if bytes.len() >= DELIMITER => Progress::Consumed(bytes.len() - (DELIMITER - 1)),
                None => Progress::Need(DELIMITER - bytes.len()),
            });
        }
        let mut cursor = Cursor::new(bytes);
        match cursor.peek() {
            Some(b'\n') => Ok(Progress::Consumed(1)),
            Some(b'$') if bytes.get(1).is_none_or(|byte| *byte == b'E') => match cursor.line() {
                Ok(line) => {
                    let delimiter = line.strip_prefix(b"$EOF:").and_then(|delimiter| delimiter.try_into().ok());
                    self.stage = Stage::Snapshot(Some(delimiter.ok_or(Malformed("a snapshot without a length"))?));
                    Ok(Progress::Consumed(cursor.position()))
                }
                Err(_) if bytes.len() < 2 * DELIMITER => Ok(Progress::Need(1)),
                Err(_) => Err(Malformed("a snapshot without a length")),
            },
            Some(b'$') => match resp::item(&mut cursor) {
                Ok(Item::Bulk(_, len)) => {
                    self.stage = Stage::Commands;
                    // Unlike other strings it ends without CRLF.
                    let len = usize::try_from(len).unwrap_or(usize::MAX / 2);
                    Ok(Progress::Consumed(cursor.position() + len))
                }
                Err(Fault::Short(more)) => Ok(Progress::Need(more)),
                _ => Err(Malformed("a snapshot without a length")),
            },
            // A partial resynchronisation has no snapshot.
            _ => {
                self.stage = Stage::Commands;
                self.command(Direction::ToClient, bytes, cx)
            }
        }
    }
}

/// The first word of a push, if it has a sane one.
fn push_word<'a>(rest: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Fault> {
    match resp::item(rest)? {
        Item::Bulk(Bulk::String, len @ 0..=MAX_PUSH_WORD) => {
            let wanted = usize::try_from(len).unwrap_or(0);
            Ok(Some(resp::body(rest, len, wanted)?.head))
        }
        Item::Simple(word) => Ok(Some(word)),
        _ => Ok(None),
    }
}

/// Passes a string that has to be there as a whole.
fn skip_string(rest: &mut Cursor<'_>) -> Result<(), Fault> {
    if let Item::Bulk(_, len) = resp::item(rest)? {
        let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_TARGET);
        if resp::body(rest, len, wanted)?.beyond > 0 {
            return Err(Fault::Short(1));
        }
    }
    Ok(())
}

/// True for a line of `MONITOR`: `1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`.
fn is_monitored(line: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let seconds = digits(line);
    line.get(seconds..).and_then(|rest| rest.strip_prefix(b".")).is_some_and(|rest| {
        let micros = digits(rest);
        seconds >= 10 && micros == 6 && rest.get(micros..).is_some_and(|rest| rest.starts_with(b" ["))
    })
}

/// The first word of an error.
fn error_word(line: &[u8]) -> Text {
    let first = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    if first.is_empty() { Text::Borrowed("ERR") } else { Text::Owned(word(first)) }
}
