//! Names of what messages call by an id: one connection tells them, others use them.
//!
//! Entries pass here in the order of the capture, so that a name is known to the same rows however many engines there are.

use hashbrown::HashMap;

use crate::entry::{Entry, Text, Value};

/// The most names that are kept; ids without one stay as they are.
const MAX_NAMES: usize = 100_000;
/// The longest target that names are put into, in bytes.
const MAX_TARGET: usize = 64 << 10;

/// The names that entries have told so far.
#[derive(Default)]
pub(super) struct Ids {
    names: HashMap<String, String>,
}

impl Ids {
    /// Takes the names that an entry tells, and puts those in that it lacks.
    pub fn pass(&mut self, entry: &mut Entry) {
        let Some(ids) = entry.ids.take() else { return };
        for (id, name) in ids.told {
            if self.names.len() < MAX_NAMES {
                self.names.insert(id, name);
            }
        }
        let names = ids.unnamed.iter().filter_map(|id| Some((id.as_str(), self.names.get(id)?.as_str())));
        let names: HashMap<&str, &str> = names.collect();
        if names.is_empty() {
            return;
        }
        let mut target = String::with_capacity(entry.target.len());
        for word in entry.target.split(',') {
            let room = target.len() + entry.target.len() < MAX_TARGET;
            if !target.is_empty() {
                target.push(',');
            }
            target.push_str(names.get(word).filter(|_| room).unwrap_or(&word));
        }
        entry.target = target;
        for half in entry.request.iter_mut().chain(&mut entry.response) {
            name(&mut half.detail, &names);
        }
    }
}

/// Puts `topic_name` behind each `topic_id` that has a name.
fn name(value: &mut Value, names: &HashMap<&str, &str>) {
    match value {
        Value::List(values) => values.iter_mut().for_each(|value| name(value, names)),
        Value::Map(fields) => {
            for (_, value) in fields.iter_mut() {
                name(value, names);
            }
            let id = |(name, value): &(Text, Value)| match value {
                Value::Text(id) if name == "topic_id" => names.get(&**id).copied(),
                _ => None,
            };
            let found = fields.iter().enumerate().find_map(|(at, field)| Some((at, id(field)?.to_owned())));
            if let Some((at, found)) = found {
                fields.insert(at + 1, ("topic_name".into(), found.into()));
            }
        }
        _ => {}
    }
}
