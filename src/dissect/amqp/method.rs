//! The methods of 0-9-1 and RabbitMQ's extensions to it: names, senders, answers and arguments.

use super::classes::METHODS;
use super::table;
use crate::dissect::{Cursor, Malformed, text};
use crate::entry::{Direction, Text, Value};

/// How an argument is written (section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bits that follow each other share octets, the first of them the lowest.
    Bit,
    Octet,
    Short,
    Long,
    LongLong,
    ShortStr,
    LongStr,
    Table,
}

/// Name and kind of an argument; those that are reserved have no name.
pub(super) type Argument = (&'static str, Kind);

/// Who sends a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
    Both,
}

/// How a method stands to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Is answered, unless it says that it does not wait.
    Asks,
    /// Answers the method of its class with this number.
    Answers(u16),
    Alone,
}

/// A method.
#[derive(Debug)]
pub(super) struct Method {
    pub class: u16,
    pub id: u16,
    pub name: &'static str,
    pub sender: Sender,
    pub part: Part,
    pub arguments: &'static [Argument],
}

/// The value of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given<'a> {
    Bit(bool),
    Number(u64),
    Bytes(&'a [u8]),
    Table(&'a [u8]),
}

/// What rows and pairing take from the arguments.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub queue: &'a [u8],
    pub reply_code: Option<u16>,
    pub no_wait: bool,
}

pub(super) const CONNECTION: u16 = 10;
pub(super) const CHANNEL: u16 = 20;
pub(super) const EXCHANGE: u16 = 40;
pub(super) const QUEUE: u16 = 50;
pub(super) const BASIC: u16 = 60;
pub(super) const START: u16 = 10;
pub(super) const OPEN: u16 = 10;
pub(super) const DECLARE: u16 = 10;
pub(super) const DECLARE_OK: u16 = 11;
pub(super) const CONSUME: u16 = 20;
pub(super) const PUBLISH: u16 = 40;
pub(super) const RETURN: u16 = 50;
pub(super) const DELIVER: u16 = 60;
pub(super) const GET: u16 = 70;
pub(super) const GET_OK: u16 = 71;

/// Arguments that are credentials.
const SECRETS: &[&str] = &["response", "challenge", "new_secret"];

impl Method {
    /// The method of that class with that number.
    pub(super) fn find(class: u16, id: u16) -> Option<&'static Self> {
        let at = METHODS.binary_search_by_key(&(class, id), |method| (method.class, method.id)).ok()?;
        METHODS.get(at)
    }

    /// Reads class and number of a method off its payload.
    pub(super) fn parse(payload: &mut Cursor<'_>) -> Result<&'static Self, Malformed> {
        Self::find(payload.u16()?, payload.u16()?).ok_or(Malformed("an unknown method"))
    }

    /// True if content follows it.
    pub(super) fn has_content(&self) -> bool {
        self.class == BASIC && matches!(self.id, PUBLISH | RETURN | DELIVER | GET_OK)
    }

    /// True if that side may send it on that channel: the connection's methods have channel 0 to themselves.
    pub(super) fn may_come(&self, direction: Direction, channel: u16) -> bool {
        let side = match self.sender {
            Sender::Client => direction == Direction::ToServer,
            Sender::Server => direction == Direction::ToClient,
            Sender::Both => true,
        };
        side && (self.class == CONNECTION) == (channel == 0)
    }

    /// Hands on its arguments one by one.
    pub(super) fn each<'a>(
        &self,
        arguments: &mut Cursor<'a>,
        mut take: impl FnMut(&'static str, Given<'a>),
    ) -> Result<(), Malformed> {
        // The octet of the last bit, and which bit it was.
        let mut bits = None;
        for &(name, kind) in self.arguments {
            if kind == Kind::Bit {
                let (octet, bit) = match bits {
                    Some((octet, bit @ ..7)) => (octet, bit + 1),
                    _ => (arguments.u8()?, 0),
                };
                bits = Some((octet, bit));
                take(name, Given::Bit(octet >> bit & 1 == 1));
                continue;
            }
            bits = None;
            let given = match kind {
                Kind::Bit | Kind::Octet => Given::Number(arguments.u8()?.into()),
                Kind::Short => Given::Number(arguments.u16()?.into()),
                Kind::Long => Given::Number(arguments.u32()?.into()),
                Kind::LongLong => Given::Number(arguments.u64()?),
                Kind::ShortStr => Given::Bytes(table::short_string(arguments)?),
                Kind::LongStr => Given::Bytes(table::long_string(arguments)?),
                Kind::Table => Given::Table(table::long_string(arguments)?),
            };
            take(name, given);
        }
        Ok(())
    }

    /// What rows and pairing need.
    pub(super) fn facts<'a>(&self, arguments: &mut Cursor<'a>) -> Result<Facts<'a>, Malformed> {
        let mut facts = Facts::default();
        self.each(arguments, |name, given| match (name, given) {
            // What exchanges are bound to each other with is named from the side of the one that receives.
            ("exchange" | "destination", Given::Bytes(name)) => facts.exchange = name,
            ("routing_key", Given::Bytes(key)) => facts.routing_key = key,
            ("queue", Given::Bytes(name)) => facts.queue = name,
            ("reply_code", Given::Number(code)) => facts.reply_code = Some(code as u16),
            ("no_wait" | "nowait", Given::Bit(no_wait)) => facts.no_wait = no_wait,
            _ => {}
        })?;
        Ok(facts)
    }

    /// All arguments that mean something, for the detail.
    pub(super) fn detail(&self, mut arguments: Cursor<'_>, secrets: bool) -> Vec<(Text, Value)> {
        let mut fields = Vec::with_capacity(self.arguments.len());
        // They were read before, for the row.
        let _ = self.each(&mut arguments, |name, given| {
            if name.is_empty() {
                return;
            }
            let value = match given {
                Given::Bytes(_) if !secrets && SECRETS.contains(&name) => text::HIDDEN.into(),
                Given::Bit(bit) => bit.into(),
                Given::Number(number) => number.into(),
                Given::Bytes(bytes) => text::value(bytes),
                Given::Table(bytes) => table::value(bytes, secrets),
            };
            fields.push((Text::Borrowed(name), value));
        });
        fields
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn methods_are_sorted_and_answer_what_is_there() {
        assert!(METHODS.is_sorted_by_key(|method| (method.class, method.id)));
        for method in METHODS {
            assert!(method.class.max(method.id) < 1 << 8, "ids are made of both");
            if let Part::Answers(asked) = method.part {
                let asked = Method::find(method.class, asked).unwrap();
                assert_eq!(asked.part, Part::Asks, "{}", method.name);
                assert!(method.name.starts_with(asked.name));
            }
        }
    }

    #[test]
    fn bits_share_an_octet() {
        let mut given = Vec::new();
        let bytes = b"\0\0\x01q\x15\0\0\0\0";
        Method::find(QUEUE, DECLARE)
            .unwrap()
            .each(&mut Cursor::new(bytes), |name, value| {
                if let Given::Bit(bit) = value {
                    given.push((name, bit));
                }
            })
            .unwrap();
        let names = ["passive", "durable", "exclusive", "auto_delete", "no_wait"];
        assert_eq!(given, names.into_iter().zip([true, false, true, false, true]).collect::<Vec<_>>());
    }
}
