//! A message's way through its items, however deep they lie, and the value that they make.

use super::resp::{Fault, Item, Kind};
use crate::entry::{Text, Value};
use crate::fields;

/// How deep aggregates may nest.
const MAX_DEPTH: usize = 128;
/// The most values of one message that are kept for its detail.
const MAX_VALUES: usize = 16_384;
/// Items are counted down to 0; of a streamed aggregate the count is not known.
const STREAMED: u64 = u64::MAX;

/// A message's way through its items, and their values if they are wanted.
#[derive(Debug, Default)]
pub(super) struct Walk {
    open: Vec<Frame>,
    /// Values are kept; so many more may be.
    keeps: bool,
    room: usize,
    /// The message's value, once it is whole.
    pub(super) value: Value,
    /// The attributes in front of it.
    pub(super) attributes: Value,
    /// Some values were not kept.
    pub(super) truncated: bool,
}

/// An aggregate whose items are not all there yet.
#[derive(Debug)]
struct Frame {
    left: u64,
    kind: Kind,
    values: Vec<Value>,
}

impl Walk {
    /// At the start of a message.
    pub(super) fn start(&mut self, keeps: bool) {
        self.open.clear();
        self.keeps = keeps;
        self.open.push(Frame { left: 1, kind: Kind::Array, values: Vec::new() });
        self.room = MAX_VALUES;
        self.value = Value::Null;
        self.attributes = Value::Null;
        self.truncated = false;
    }

    /// No message is under way.
    pub(super) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// No aggregate is open: the next item is the message itself, or an attribute of it.
    pub(super) fn at_top(&self) -> bool {
        self.open.len() == 1
    }

    /// Passes an item, with its value if values are kept.
    pub(super) fn pass(&mut self, item: &Item<'_>, value: Option<Value>) -> Result<(), Fault> {
        let depth = self.open.len();
        let Some(top) = self.open.last_mut() else { return Ok(()) };
        match *item {
            Item::End if top.left == STREAMED => top.left = 0,
            Item::End => return Err(Fault::Malformed("the end of what was not streamed")),
            Item::Aggregate(kind, count) => {
                if depth >= MAX_DEPTH {
                    return Err(Fault::Malformed("aggregates nested too deep"));
                }
                if kind != Kind::Attribute && top.left != STREAMED {
                    top.left -= 1;
                }
                self.open.push(Frame { left: count.unwrap_or(STREAMED), kind, values: Vec::new() });
            }
            _ => {
                if top.left != STREAMED {
                    top.left -= 1;
                }
                if let Some(value) = value {
                    keep(&mut top.values, value, &mut self.room, &mut self.truncated);
                }
            }
        }
        while let Some(frame) = self.open.pop_if(|frame| frame.left == 0) {
            self.close(frame);
        }
        Ok(())
    }

    fn close(&mut self, mut frame: Frame) {
        let depth = self.open.len();
        let Some(parent) = self.open.last_mut() else {
            self.value = frame.values.pop().unwrap_or_default();
            return;
        };
        match frame.kind {
            _ if !self.keeps => {}
            Kind::Attribute if depth == 1 => self.attributes = pairs(frame.values),
            Kind::Attribute => {}
            kind => {
                let value = match kind {
                    Kind::Map => pairs(frame.values),
                    Kind::StreamedString => joined(&frame.values),
                    _ => Value::List(frame.values),
                };
                keep(&mut parent.values, value, &mut self.room, &mut self.truncated);
            }
        }
    }
}

fn keep(values: &mut Vec<Value>, value: Value, room: &mut usize, truncated: &mut bool) {
    match room.checked_sub(1) {
        Some(left) => {
            *room = left;
            values.push(value);
        }
        None => *truncated = true,
    }
}

/// Names and values in turn. RESP3 lets a name be anything; where one is no text, the map is shown as a list of pairs.
fn pairs(values: Vec<Value>) -> Value {
    let mut values = values.into_iter();
    let mut pairs = Vec::new();
    while let Some(name) = values.next() {
        pairs.push((name, values.next().unwrap_or_default()));
    }
    if pairs.iter().all(|(name, _)| matches!(name, Value::Text(_))) {
        let named = pairs.into_iter().filter_map(|(name, value)| match name {
            Value::Text(name) => Some((name, value)),
            _ => None,
        });
        return Value::Map(named.collect());
    }
    Value::List(pairs.into_iter().map(|(name, value)| fields! { "key" => name, "value" => value }).collect())
}

fn joined(chunks: &[Value]) -> Value {
    let text: String =
        chunks.iter().filter_map(|chunk| if let Value::Text(text) = chunk { Some(&**text) } else { None }).collect();
    Value::Text(Text::Owned(text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn deep_nesting_is_refused() {
        let mut walk = Walk::default();
        walk.start(false);
        let results: Vec<_> = (0..200).map(|_| walk.pass(&Item::Aggregate(Kind::Array, Some(1)), None)).collect();
        assert!(results.last().unwrap().is_err());
    }
}
