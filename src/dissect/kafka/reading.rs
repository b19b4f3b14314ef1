//! What is read from a body: the topics and the error for its row, and every field if detail is wanted.

use hashbrown::HashMap;

use super::errors;
use super::header::is_text;
use super::records::{self, Budget};
use super::schema::{Field, Held, Kind};
use super::walk::{Walk, Walked};
use crate::dissect::{Cursor, text};
use crate::entry::{Ids, Text, Value};
use crate::fields;

/// The longest name that is read; a broker allows topics 249 bytes.
const MAX_NAME: u64 = 1024;
/// The most bytes of topics that a row names.
const MAX_TARGET: usize = 64 << 10;
/// How many bytes of topics that a row names are compared with others.
const MAX_COMPARED: usize = 1 << 20;
/// How much of other text is looked at to tell Kafka from other protocols.
const MAX_LOOKED_AT: u64 = 64;
/// The longest text that is shown in detail.
const MAX_TEXT: u64 = 32 << 10;
/// The most bytes of text that one message shows in detail.
const MAX_TEXTS: usize = 1 << 20;
/// The most bytes of records in one partition that are looked at for their detail.
const MAX_RECORDS: u64 = 1 << 20;
/// The most values that one message shows in detail.
const MAX_VALUES: usize = 20_000;
/// The most topics of a connection whose ids are known by name.
const MAX_TOPICS: usize = 4096;
/// The type of a resource that is a topic, in configurations and access rules alike.
const TOPIC_RESOURCE: u8 = 2;

type Id = [u8; 16];

/// The topics of a connection whose ids it has told.
#[derive(Default)]
pub(super) struct Topics {
    names: HashMap<Id, String>,
}

impl Topics {
    /// Takes a topic's name. True if it is news.
    fn learn(&mut self, id: Id, name: &str) -> bool {
        let new = self.names.len() < MAX_TOPICS && !self.names.contains_key(&id);
        if new {
            self.names.insert(id, name.to_owned());
        }
        new
    }
}

/// What was read of one message so far.
#[derive(Default)]
pub(super) struct Reading {
    /// Whether the bytes are Kafka's is the question: text is looked at too.
    strict: bool,
    /// Topics are collected for the row.
    pub asks: bool,
    /// They, comma-joined.
    pub target: String,
    /// How many bytes of it were compared with others.
    compared: usize,
    /// The first error code that is not 0; 0 if there were none but that.
    pub status: Option<i16>,
    pub acks: Option<i16>,
    /// A topic was called by its name.
    pub named: bool,
    /// Something has a value that is hardly Kafka's: a topic's name, a number of acknowledgements, a text.
    pub odd: bool,
    /// A resource's type, for the name that follows.
    resource: u8,
    /// How many structures and arrays the next value lies in.
    depth: usize,
    /// The newest topic, if its structure tells both its name and its id.
    topic: Topic,
    /// Topics whose ids were told here, and ids of those that the connection has not told.
    pub ids: Option<Box<Ids>>,
    detail: Option<Detail>,
}

/// A topic by name and id, as far as its structure has told.
#[derive(Default)]
struct Topic {
    depth: usize,
    named: bool,
    name: String,
    id: Option<Id>,
}

impl Reading {
    /// For bytes that may not be Kafka's.
    pub fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// Begins a message; with `detail`, all its fields are kept.
    pub fn start(&mut self, asks: bool, detail: Option<Detail>) {
        let mut topic = std::mem::take(&mut self.topic);
        (topic.depth, topic.named, topic.id) = (0, false, None);
        *self = Self { asks, topic, detail, ..Self::default() };
    }

    /// All fields.
    pub fn finish(&mut self) -> Value {
        self.detail.take().map_or(Value::Null, Detail::finish)
    }

    pub fn is_detailed(&self) -> bool {
        self.detail.is_some()
    }

    /// How many bytes of such a value are looked at.
    pub fn wanted(&self, field: &Field, len: u64) -> usize {
        let wanted = match (field.kind, &self.detail) {
            (Kind::Topic | Kind::ResourceName, _) if len <= MAX_NAME => len,
            (Kind::Text | Kind::Topic | Kind::ResourceName, Some(detail)) => len.min(MAX_TEXT).min(detail.texts as u64),
            (Kind::Records, Some(detail)) if detail.budget.left() > 0 => len.min(MAX_RECORDS),
            (Kind::Text, None) if self.strict => len.min(MAX_LOOKED_AT),
            (Kind::Bytes, Some(detail)) => len.min(detail.budget.left() as u64),
            _ => 0,
        };
        wanted as usize
    }

    /// A structure or an array begins.
    pub fn open(&mut self, field: &'static Field, named: bool, array: bool) {
        self.depth += 1;
        if !array && self.topic.depth >= self.depth {
            (self.topic.named, self.topic.id) = (false, None);
        }
        if let Some(detail) = &mut self.detail {
            detail.open(if named { field.name } else { "" }, array);
        }
    }

    /// It ends.
    pub fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if let Some(detail) = &mut self.detail {
            detail.close();
        }
    }

    /// A value is null; `odd` if it never should be.
    pub fn null(&mut self, field: &'static Field, named: bool, odd: bool) {
        self.odd |= odd;
        if let Some(detail) = &mut self.detail {
            detail.push(if named { field.name } else { "" }, Value::Null);
        }
    }

    /// A value of fixed size.
    pub fn number(&mut self, field: &'static Field, named: bool, bytes: &[u8], topics: &mut Topics) {
        let mut cursor = Cursor::new(bytes);
        let mut error = None;
        let mut topic = None;
        match field.kind {
            Kind::Error => {
                let code = cursor.i16().unwrap_or_default();
                if self.status.is_none_or(|status| status == 0) {
                    self.status = Some(code);
                }
                error = errors::name(code).filter(|_| code != 0);
            }
            Kind::Acks => {
                self.acks = cursor.i16().ok();
                self.odd |= self.acks.is_none_or(|acks| !(-1..=1).contains(&acks));
            }
            Kind::ResourceType => self.resource = cursor.u8().unwrap_or_default(),
            Kind::TopicId => {
                if let Some(id) = cursor.array().ok().filter(|id| *id != [0; 16]) {
                    topic = self.topic_id(id, topics).filter(|_| self.detail.is_some());
                }
            }
            _ => {}
        }
        if let Some(detail) = &mut self.detail {
            detail.push(if named { field.name } else { "" }, number(field.kind, bytes));
            if let Some(error) = error {
                detail.push("error", error.into());
            }
            if let Some(topic) = topic {
                detail.push("topic_name", topic.to_owned().into());
            }
        }
    }

    /// A value of any size: its first bytes, of `len`.
    pub fn text(&mut self, field: &'static Field, named: bool, bytes: &[u8], len: u64, topics: &mut Topics) {
        match field.kind {
            Kind::Topic if bytes.len() as u64 == len => self.topic(bytes, topics),
            Kind::ResourceName if self.resource == TOPIC_RESOURCE && bytes.len() as u64 == len => {
                self.name(&text::printable(bytes));
            }
            Kind::Text if self.strict => self.odd |= !is_text(bytes),
            _ => {}
        }
        if let Some(detail) = &mut self.detail {
            let name = if named { field.name } else { "" };
            if field.secret && !detail.secrets || name == "value" && detail.is_secret() {
                detail.push(name, text::HIDDEN.into());
                return;
            }
            match field.kind {
                Kind::Records => {
                    let records = records::parse(bytes, len, &mut detail.budget);
                    detail.push(name, records);
                }
                Kind::Bytes => {
                    detail.budget.spend(bytes.len());
                    let held = field.holds.filter(|_| bytes.len() as u64 == len).and_then(|held| held_by(bytes, held));
                    detail.push(name, held.unwrap_or_else(|| text::body(bytes, len)));
                }
                _ => {
                    let shown = bytes.get(..detail.texts).unwrap_or(bytes);
                    detail.texts -= shown.len();
                    detail.push(name, text::value(shown));
                }
            }
        }
    }

    /// A topic by name.
    fn topic(&mut self, name: &[u8], topics: &mut Topics) {
        self.named |= !name.is_empty();
        self.odd |= !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
        let name = text::printable(name);
        self.name(&name);
        let topic = &mut self.topic;
        match topic.id {
            Some(id) if topic.depth == self.depth => {
                // It came before its name, and was taken for one that has none.
                if let Some(ids) = &mut self.ids {
                    ids.unnamed.pop_if(|unnamed| *unnamed == id_text(&id));
                }
                self.learn(id, &name, topics);
            }
            _ => {
                (topic.depth, topic.named, topic.id) = (self.depth, true, None);
                topic.name.clear();
                topic.name.push_str(&name);
            }
        }
    }

    /// A topic by id: its name, if the structure has not told it but another has.
    fn topic_id<'a>(&mut self, id: Id, topics: &'a mut Topics) -> Option<&'a str> {
        if self.topic.named && self.topic.depth == self.depth {
            let name = std::mem::take(&mut self.topic.name);
            self.learn(id, &name, topics);
            self.topic.name = name;
            return None;
        }
        (self.topic.depth, self.topic.named, self.topic.id) = (self.depth, false, Some(id));
        let name = topics.names.get(&id).map(String::as_str);
        if name.is_none() && (self.asks || self.detail.is_some()) {
            let unnamed = &mut self.ids.get_or_insert_default().unnamed;
            let id = id_text(&id);
            if unnamed.len() < MAX_TOPICS && unnamed.last() != Some(&id) {
                unnamed.push(id);
            }
        }
        if self.asks {
            match name {
                Some(name) => self.name(name),
                None => self.name(&id_text(&id)),
            }
        }
        name
    }

    /// A topic's id and its name: for the connection, and for others.
    fn learn(&mut self, id: Id, name: &str, topics: &mut Topics) {
        if topics.learn(id, name) {
            self.ids.get_or_insert_default().told.push((id_text(&id), name.to_owned()));
        }
    }

    /// Adds a topic to those that the row names.
    fn name(&mut self, name: &str) {
        let target = &mut self.target;
        if !self.asks || name.is_empty() || target.len() + name.len() >= MAX_TARGET {
            return;
        }
        self.compared += target.len();
        if self.compared <= MAX_COMPARED && target.split(',').any(|known| known == name) {
            return;
        }
        if !target.is_empty() {
            target.push(',');
        }
        target.push_str(name);
    }
}

/// What the bytes hold, if it is that: nothing but convention says so.
fn held_by(bytes: &[u8], held: &Held) -> Option<Value> {
    let mut cursor = Cursor::new(bytes);
    let version = u8::try_from(cursor.i16().ok()?).ok()?;
    let mut walk = Walk::default();
    walk.restart(held.fields, version.min(held.newest), cursor.remaining() as u64);
    let mut reading = Reading::default();
    reading.start(false, Some(Detail::new(fields! { "version" => version }, bytes.len(), false)));
    match walk.run(cursor.rest(), &mut reading, &mut Topics::default()) {
        Ok(Walked::Done(_)) if walk.left() == 0 || version > held.newest => Some(reading.finish()),
        _ => None,
    }
}

/// An id as brokers print it.
fn id_text(id: &[u8]) -> String {
    text::base64(id).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn number(kind: Kind, bytes: &[u8]) -> Value {
    let mut cursor = Cursor::new(bytes);
    let value: Option<Value> = match kind {
        Kind::Boolean => cursor.u8().ok().map(|byte| (byte != 0).into()),
        Kind::Int8 | Kind::ResourceType => cursor.i8().ok().map(Value::from),
        Kind::Int16 | Kind::Error | Kind::Acks => cursor.i16().ok().map(Value::from),
        Kind::Uint16 => cursor.u16().ok().map(Value::from),
        Kind::Int32 => cursor.i32().ok().map(Value::from),
        Kind::Int64 => cursor.i64().ok().map(Value::from),
        Kind::Float64 => cursor.array().ok().map(|bits| f64::from_be_bytes(bits).into()),
        Kind::Uuid | Kind::TopicId => Some(id_text(bytes).into()),
        Kind::Text | Kind::Bytes | Kind::Records | Kind::Topic | Kind::ResourceName | Kind::Struct(_) => None,
    };
    value.into()
}

/// The fields of a message, as they come.
pub(super) struct Detail {
    /// The structures and arrays that are open, the message first.
    open: Vec<(&'static str, Value)>,
    values: usize,
    /// How many bytes of text may still be kept.
    texts: usize,
    /// How much of bodies may still be kept.
    budget: Budget,
    secrets: bool,
}

impl Detail {
    /// Begins with these fields.
    pub fn new(fields: Value, limit: usize, secrets: bool) -> Self {
        Self { open: vec![("", fields)], values: 0, texts: MAX_TEXTS, budget: Budget::new(limit), secrets }
    }

    fn open(&mut self, name: &'static str, array: bool) {
        self.values += 1;
        let value = match array {
            // There are too many already.
            _ if self.values > MAX_VALUES => Value::Null,
            true => Value::List(Vec::new()),
            false => Value::Map(Vec::new()),
        };
        self.open.push((name, value));
    }

    fn close(&mut self) {
        if self.open.len() > 1
            && let Some((name, value)) = self.open.pop()
            && !value.is_null()
        {
            self.put(name, value);
        }
    }

    fn push(&mut self, name: &'static str, value: Value) {
        self.values += 1;
        if self.values <= MAX_VALUES {
            self.put(name, value);
        }
    }

    fn put(&mut self, name: &'static str, value: Value) {
        match self.open.last_mut() {
            Some((_, Value::Map(fields))) => fields.push((Text::Borrowed(name), value)),
            Some((_, Value::List(values))) => values.push(value),
            _ => {}
        }
    }

    /// True if the value that comes is the setting of a password or the like.
    fn is_secret(&self) -> bool {
        const WORDS: &[&str] = &["password", "secret", "jaas", "credential", "token", ".key"];
        if self.secrets {
            return false;
        }
        let Some((_, fields)) = self.open.last() else { return false };
        let name = fields.get("name").or_else(|| fields.get("config_name"));
        matches!(name, Some(Value::Text(name)) if WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word)))
    }

    fn finish(mut self) -> Value {
        // What is open is shown as far as it came.
        while self.open.len() > 1 {
            self.close();
        }
        if self.values > MAX_VALUES {
            self.put("truncated", true.into());
        }
        self.open.pop().map_or(Value::Null, |(_, fields)| fields)
    }
}
