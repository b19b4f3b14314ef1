//! How bodies are described: an API is two lists of fields, and each field tells its type and which versions have it.
//!
//! A table of fields reads like the protocol guide: `text("rack").since(1)` is a string that versions from 1 on have. Lengths
//! are written in one way up to some version and in a compact way from [`Api::flexible`] on; tables need not care.

/// Of [`Api::flexible`]: no version is.
pub(super) const NEVER: u8 = u8::MAX;

/// One kind of request and its response.
pub(super) struct Api {
    /// Its number on the wire.
    pub key: i16,
    /// Its name in the protocol guide.
    pub name: &'static str,
    /// The oldest and the newest version that the fields describe.
    pub versions: (u8, u8),
    /// The first version with compact lengths and tagged fields.
    pub flexible: u8,
    pub request: &'static [Field],
    pub response: &'static [Field],
}

/// What bytes may hold by convention of those who exchange them: a version, then fields.
pub(super) struct Held {
    pub newest: u8,
    pub fields: &'static [Field],
}

/// A field of a structure.
pub(super) struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// An array of it.
    pub many: bool,
    /// A structure with a byte before it that tells whether it is there; an array inside others that may be null.
    pub nullable: bool,
    /// Not to be shown.
    pub secret: bool,
    /// What its bytes may hold.
    pub holds: Option<&'static Held>,
    /// It has a number instead of a place, and may be missing.
    pub tag: Option<u8>,
    since: u8,
    until: u8,
}

/// What a field is: how it is written, and what a row wants of it.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Boolean,
    Int8,
    Int16,
    Uint16,
    Int32,
    Int64,
    Float64,
    Uuid,
    Text,
    Bytes,
    /// Record batches, or messages of old.
    Records,
    /// An error code.
    Error,
    /// How many replicas have to acknowledge; 0 means that no response comes.
    Acks,
    /// The name of a topic.
    Topic,
    /// The id of a topic.
    TopicId,
    /// What the following [`Kind::ResourceName`] is the name of.
    ResourceType,
    ResourceName,
    Struct(&'static [Field]),
}

impl Kind {
    /// How many bytes it takes, if that is always the same.
    pub fn size(self) -> Option<usize> {
        Some(match self {
            Self::Boolean | Self::Int8 | Self::ResourceType => 1,
            Self::Int16 | Self::Uint16 | Self::Error | Self::Acks => 2,
            Self::Int32 => 4,
            Self::Int64 | Self::Float64 => 8,
            Self::Uuid | Self::TopicId => 16,
            Self::Text | Self::Bytes | Self::Records | Self::Topic | Self::ResourceName | Self::Struct(_) => {
                return None;
            }
        })
    }

    /// True if a row without detail has no use for it.
    pub fn is_idle(self) -> bool {
        !matches!(self, Self::Error | Self::Acks | Self::TopicId | Self::ResourceType) && self.size().is_some()
    }
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            many: false,
            nullable: false,
            secret: false,
            holds: None,
            tag: None,
            since: 0,
            until: u8::MAX,
        }
    }

    pub const fn since(self, since: u8) -> Self {
        Self { since, ..self }
    }

    pub const fn until(self, until: u8) -> Self {
        Self { until, ..self }
    }

    pub const fn tag(self, tag: u8) -> Self {
        Self { tag: Some(tag), ..self }
    }

    pub const fn many(self) -> Self {
        Self { many: true, ..self }
    }

    pub const fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }

    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    pub const fn holding(self, held: &'static Held) -> Self {
        Self { holds: Some(held), ..self }
    }

    /// The fields of a structure.
    pub const fn of(self, fields: &'static [Self]) -> Self {
        Self { kind: Kind::Struct(fields), ..self }
    }

    /// True if bodies of that version have it.
    pub const fn is_in(&self, version: u8) -> bool {
        self.since <= version && version <= self.until
    }
}

/// An array of structures, whose fields [`Field::of`] gives.
pub(super) const fn list(name: &'static str) -> Field {
    one(name).many()
}

/// A structure, whose fields [`Field::of`] gives.
pub(super) const fn one(name: &'static str) -> Field {
    Field::new(name, Kind::Struct(&[]))
}

macro_rules! fields {
    ($($name:ident $kind:ident),*) => {
        $(pub(super) const fn $name(name: &'static str) -> Field {
            Field::new(name, Kind::$kind)
        })*
    };
}
fields!(
    boolean Boolean, int8 Int8, int16 Int16, uint16 Uint16, int32 Int32, int64 Int64, float64 Float64, uuid Uuid,
    text Text, bytes Bytes, records Records, error Error, acks Acks, topic Topic, topic_id TopicId,
    resource_type ResourceType, resource_name ResourceName
);
