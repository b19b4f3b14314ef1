//! Commands: of the client to the server, and of a master to its replica.

use super::commands::{self, Effect, Key, Secrets};
use super::resp::{self, Bulk, Fault, Item};
use super::{MAX_TARGET, MAX_WORD, Redis, word};
use crate::dissect::{Cursor, Cx, Malformed, Message, Progress, Role, text};
use crate::entry::{Direction, Text, Value};
use crate::fields;

/// The most arguments of a command; Redis' own limit.
pub(super) const MAX_ARGUMENTS: u64 = 1 << 20;
/// The most arguments that are kept for the detail.
const MAX_KEPT: usize = 4096;

/// A command under way.
#[derive(Default)]
pub(super) struct Request {
    message: Option<Message>,
    /// Words of it, and how many of them are still to come.
    count: u64,
    left: u64,
    known: Known,
    secrets: Secrets,
    arguments: Vec<Value>,
    /// Bytes of arguments kept.
    kept: usize,
}

/// What the words so far tell.
struct Known {
    key: Key,
    effect: Effect,
}

impl Default for Known {
    /// Of a command that nobody knows, the first argument is shown.
    fn default() -> Self {
        Self { key: Key::At(1), effect: Effect::None }
    }
}

impl Request {
    fn start(&mut self, count: u64, direction: Direction, cx: &Cx<'_>) {
        *self = Self {
            message: Some(Message::new(Role::Request, direction, cx)),
            count,
            left: count,
            arguments: std::mem::take(&mut self.arguments),
            ..Self::default()
        };
        self.arguments.clear();
    }

    /// How many bytes of the next word have to be seen.
    fn wanted(&self, cx: &Cx<'_>) -> usize {
        let position = self.position();
        let needed = match position {
            0 => MAX_WORD,
            _ if self.known.key.wants(position) || self.known.effect.wants(position) => MAX_TARGET,
            _ => 0,
        };
        needed.max(cx.body_limit().saturating_sub(self.kept))
    }

    /// The next word's position; the command itself is 0.
    fn position(&self) -> usize {
        usize::try_from(self.count - self.left).unwrap_or(usize::MAX)
    }

    /// Takes the next word, of which at least the wanted bytes are there.
    fn word(&mut self, bytes: &[u8], len: u64, cx: &Cx<'_>) {
        let position = self.position();
        self.left = self.left.saturating_sub(1);
        let Some(message) = &mut self.message else { return };
        if position == 0 {
            message.operation = match commands::find(bytes) {
                Some(known) => {
                    self.known = Known { key: known.key, effect: known.effect };
                    Text::Borrowed(known.name)
                }
                None => Text::Owned(word(bytes).to_uppercase()),
            };
            return;
        }
        if self.known.key.meet(position, bytes) {
            message.target = text::string(bytes.get(..MAX_TARGET).unwrap_or(bytes));
        }
        self.known.effect = self.known.effect.meet(position, bytes);
        if cx.detail() {
            let hidden = self.secrets.meet(&message.operation, position, self.count, bytes) && !cx.secrets();
            if self.arguments.len() < MAX_KEPT {
                self.kept += bytes.len();
                self.arguments.push(if hidden { text::HIDDEN.into() } else { shown(bytes, len) });
            }
        }
    }

    /// The finished command.
    fn finish(&mut self, cx: &Cx<'_>) -> Option<(Message, Effect, u64)> {
        let mut message = self.message.take()?;
        if cx.detail() {
            let arguments = std::mem::take(&mut self.arguments);
            if self.count > arguments.len() as u64 + 1 {
                message.warnings.push(Text::Borrowed("only its first arguments are shown"));
            }
            message.detail = fields! { "command" => message.operation.clone(), "arguments" => arguments };
        }
        Some((message, self.known.effect, self.count))
    }

    /// What is known of a command that never became whole; nothing if not even its name is.
    pub(super) fn abandon(&mut self) -> Option<(Message, Effect, u64)> {
        let message = self.message.take().filter(|message| !message.operation.is_empty())?;
        Some((message, self.known.effect, self.count))
    }
}

impl Redis {
    /// A command, or a part of one.
    pub(super) fn command(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        let request = match direction {
            Direction::ToServer => &mut self.request,
            Direction::ToClient => &mut self.replicated,
        };
        let mut cursor = Cursor::new(bytes);
        let mut beyond = 0;
        if request.message.is_none() {
            match begin(&mut cursor) {
                Ok(Begin::Array(0)) => return Ok(Progress::Consumed(cursor.position())),
                Ok(Begin::Array(count)) => request.start(count, direction, cx),
                Ok(Begin::Inline(line)) => {
                    request.start(resp::words(line).count() as u64, direction, cx);
                    resp::words(line).for_each(|word| request.word(word, word.len() as u64, cx));
                    if request.count == 0 {
                        request.message = None;
                        return Ok(Progress::Consumed(cursor.position()));
                    }
                }
                Err(Fault::Short(more)) => return Ok(Progress::Need(more)),
                Err(Fault::Malformed(why)) => return Err(Malformed(why)),
            }
        }
        while request.left > 0 && beyond == 0 {
            let before = cursor;
            match argument(&mut cursor, request.wanted(cx)) {
                Ok((len, body)) => {
                    request.word(body.head, len, cx);
                    beyond = body.beyond;
                }
                Err(Fault::Short(more)) if before.position() == 0 => return Ok(Progress::Need(more)),
                Err(Fault::Short(_)) => {
                    cursor = before;
                    break;
                }
                Err(Fault::Malformed(why)) => return Err(Malformed(why)),
            }
        }
        let consumed = cursor.position() + beyond;
        if let Some(message) = &mut request.message {
            message.bytes += consumed as u64;
        }
        if request.left == 0
            && let Some((mut message, effect, count)) = request.finish(cx)
        {
            match direction {
                Direction::ToServer => self.asked(message, effect, count, cx),
                // The master's heartbeat.
                Direction::ToClient if message.operation == "PING" => {}
                Direction::ToClient => {
                    message.role = Role::OneWay;
                    cx.emit(message);
                }
            }
        }
        Ok(Progress::Consumed(consumed))
    }
}

/// How a command starts.
enum Begin<'a> {
    /// So many strings follow.
    Array(u64),
    /// The whole of it.
    Inline(&'a [u8]),
}

fn begin<'a>(cursor: &mut Cursor<'a>) -> Result<Begin<'a>, Fault> {
    if cursor.peek() == Some(b'*') {
        return match resp::item(cursor)? {
            Item::Aggregate(_, Some(count)) if count <= MAX_ARGUMENTS => Ok(Begin::Array(count)),
            // Redis takes an array without items for no command.
            Item::Null => Ok(Begin::Array(0)),
            _ => Err(Fault::Malformed("a command with too many arguments")),
        };
    }
    let line = resp::inline(cursor)?;
    match resp::words(line).next() {
        Some(word) if !is_name(word) => Err(Fault::Malformed("a command without a name")),
        _ => Ok(Begin::Inline(line)),
    }
}

/// One word of a command: its length, and what is to be seen of it.
pub(super) fn argument<'a>(cursor: &mut Cursor<'a>, wanted: usize) -> Result<(u64, resp::Body<'a>), Fault> {
    match resp::item(cursor)? {
        Item::Bulk(Bulk::String, len) => Ok((len, resp::body(cursor, len, wanted)?)),
        _ => Err(Fault::Malformed("an argument that is no string")),
    }
}

/// True for what may be a command's name.
pub(super) fn is_name(word: &[u8]) -> bool {
    word.len() <= MAX_WORD
        && word.first().is_some_and(u8::is_ascii_alphabetic)
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A string of which the first bytes are known.
pub(super) fn shown(head: &[u8], len: u64) -> Value {
    if (head.len() as u64) < len { text::body(head, len) } else { text::value(head) }
}
