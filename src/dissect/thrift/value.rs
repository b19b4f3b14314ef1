//! Structures as both protocols write them: fields with number and type, and lists, sets and maps of typed elements.

use crate::dissect::{Cursor, Malformed, Short, text};
use crate::entry::{Text, Value};

/// The deepest nesting.
const MAX_DEPTH: usize = 64;

/// How numbers, types and lengths are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// All of fixed size (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-binary-protocol.md>).
    Binary,
    /// Variable-length (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).
    Compact,
}

impl Encoding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Compact => "compact",
        }
    }
}

/// The type of a field or element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// With its value, where the type says that too.
    Bool(Option<bool>),
    I8,
    I16,
    I32,
    I64,
    Double,
    Bytes,
    Uuid,
    Struct,
    List,
    Map,
}

impl Type {
    fn of(encoding: Encoding, number: u8, is_field: bool) -> Result<Self, Malformed> {
        Ok(match (encoding, number) {
            (Encoding::Binary, 2) => Self::Bool(None),
            (Encoding::Binary, 4) | (Encoding::Compact, 7) => Self::Double,
            (Encoding::Binary, 6) | (Encoding::Compact, 4) => Self::I16,
            (Encoding::Binary, 8) | (Encoding::Compact, 5) => Self::I32,
            (Encoding::Binary, 10) | (Encoding::Compact, 6) => Self::I64,
            (Encoding::Binary, 11) | (Encoding::Compact, 8) => Self::Bytes,
            (Encoding::Binary, 13) | (Encoding::Compact, 11) => Self::Map,
            (Encoding::Binary, 14 | 15) | (Encoding::Compact, 9 | 10) => Self::List,
            (Encoding::Binary, 16) | (Encoding::Compact, 13) => Self::Uuid,
            (Encoding::Compact, 1 | 2) => Self::Bool(is_field.then_some(number == 1)),
            (_, 3) => Self::I8,
            (_, 12) => Self::Struct,
            _ => return Err(Malformed("a type that is not known")),
        })
    }
}

/// Why a read stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At least so many bytes more are needed.
    Short(usize),
    /// No bytes could make it right.
    Wrong(Malformed),
}

impl From<Short> for Stop {
    fn from(_: Short) -> Self {
        Self::Short(1)
    }
}

impl From<Malformed> for Stop {
    fn from(wrong: Malformed) -> Self {
        Self::Wrong(wrong)
    }
}

/// A number of seven bits a byte, least significant first.
pub fn varint(cursor: &mut Cursor<'_>) -> Result<u64, Short> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = cursor.u8()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Ok(number)
}

/// A signed one, with its sign in the lowest bit.
fn zigzag(cursor: &mut Cursor<'_>) -> Result<i64, Short> {
    let number = varint(cursor)?;
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

/// What is being read.
#[derive(Clone, Copy, Debug)]
enum Level {
    /// A structure, and the number of its last field.
    Struct(i16),
    /// A list or set, and how many elements are left.
    List(Type, u32),
    /// A map, and how many keys and values are left.
    Map(Type, Type, u64),
}

/// What stands in a structure, one after another.
#[derive(Debug, PartialEq)]
enum Token<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Uuid(&'a [u8]),
    OpenStruct,
    OpenList,
    OpenMap,
    Close,
}

/// Splits a structure's bytes into tokens; may go on where it stopped.
#[derive(Clone, Debug)]
struct Lexer {
    encoding: Encoding,
    levels: Vec<Level>,
}

impl Lexer {
    fn new(encoding: Encoding) -> Self {
        Self { encoding, levels: vec![Level::Struct(0)] }
    }

    /// The next token, and the number of its field. Where it stops, nothing is read.
    fn next<'a>(&mut self, cursor: &mut Cursor<'a>) -> Result<(Option<i16>, Token<'a>), Stop> {
        let mut ahead = *cursor;
        let (mut level, mut field) = (*self.levels.last().ok_or(Malformed("behind its end"))?, None);
        let of = match &mut level {
            Level::Struct(last) => match self::field(self.encoding, *last, &mut ahead)? {
                Some((number, of)) => {
                    (*last, field) = (number, Some(number));
                    Some(of)
                }
                None => None,
            },
            Level::List(of, left) => left.checked_sub(1).map(|less| {
                *left = less;
                *of
            }),
            Level::Map(key, value, left) => left.checked_sub(1).map(|less| {
                *left = less;
                if less % 2 == 1 { *key } else { *value }
            }),
        };
        let Some(of) = of else {
            self.levels.pop();
            *cursor = ahead;
            return Ok((None, Token::Close));
        };
        let (token, inner) = self.value(of, &mut ahead)?;
        if let Some(top) = self.levels.last_mut() {
            *top = level;
        }
        if let Some(inner) = inner {
            if self.levels.len() >= MAX_DEPTH {
                return Err(Malformed("nested too deep").into());
            }
            self.levels.push(inner);
        }
        *cursor = ahead;
        Ok((field, token))
    }

    fn value<'a>(&self, of: Type, cursor: &mut Cursor<'a>) -> Result<(Token<'a>, Option<Level>), Stop> {
        let encoding = self.encoding;
        let compact = encoding == Encoding::Compact;
        let token = match of {
            Type::Bool(Some(value)) => Token::Bool(value),
            Type::Bool(None) => Token::Bool(cursor.u8()? == 1),
            Type::I8 => Token::Int(cursor.i8()?.into()),
            Type::I16 | Type::I32 | Type::I64 if compact => Token::Int(zigzag(cursor)?),
            Type::I16 => Token::Int(cursor.i16()?.into()),
            Type::I32 => Token::Int(cursor.i32()?.into()),
            Type::I64 => Token::Int(cursor.i64()?),
            Type::Double if compact => Token::Double(f64::from_bits(cursor.u64_le()?)),
            Type::Double => Token::Double(f64::from_bits(cursor.u64()?)),
            Type::Uuid => Token::Uuid(cursor.take(16)?),
            Type::Bytes => {
                let length = self.length(cursor)? as usize;
                let missing = length.saturating_sub(cursor.remaining());
                Token::Bytes(cursor.take(length).map_err(|_| Stop::Short(missing))?)
            }
            Type::Struct => return Ok((Token::OpenStruct, Some(Level::Struct(0)))),
            Type::List => {
                let (of, length) = if compact {
                    let byte = cursor.u8()?;
                    (byte & 0xf, if byte >> 4 == 15 { self.length(cursor)? } else { u32::from(byte >> 4) })
                } else {
                    (cursor.u8()?, self.length(cursor)?)
                };
                return Ok((Token::OpenList, Some(Level::List(Type::of(encoding, of, false)?, length))));
            }
            Type::Map => {
                let (types, length) = if compact {
                    let length = self.length(cursor)?;
                    let types = if length == 0 { None } else { Some(cursor.u8()?) };
                    (types.map(|types| (types >> 4, types & 0xf)), length)
                } else {
                    let types = (cursor.u8()?, cursor.u8()?);
                    let length = self.length(cursor)?;
                    // The types of an empty one may be anything.
                    ((length > 0).then_some(types), length)
                };
                let level = match types {
                    Some((key, value)) => Level::Map(
                        Type::of(encoding, key, false)?,
                        Type::of(encoding, value, false)?,
                        u64::from(length) * 2,
                    ),
                    None => Level::Map(Type::I8, Type::I8, 0),
                };
                return Ok((Token::OpenMap, Some(level)));
            }
        };
        Ok((token, None))
    }

    /// How many bytes or elements follow.
    fn length(&self, cursor: &mut Cursor<'_>) -> Result<u32, Stop> {
        let length = match self.encoding {
            Encoding::Binary => cursor.u32()?.into(),
            Encoding::Compact => varint(cursor)?,
        };
        u32::try_from(length)
            .ok()
            .filter(|length| i32::try_from(*length).is_ok())
            .ok_or(Malformed("a negative length").into())
    }
}

/// A field's number and type; none at the end of its structure. `last` is the number of the field before it.
fn field(encoding: Encoding, last: i16, cursor: &mut Cursor<'_>) -> Result<Option<(i16, Type)>, Stop> {
    let byte = cursor.u8()?;
    if byte == 0 {
        return Ok(None);
    }
    let number = match (encoding, byte >> 4) {
        (Encoding::Binary, _) => cursor.i16()?,
        (Encoding::Compact, 0) => zigzag(cursor)? as i16,
        (Encoding::Compact, more) => last.wrapping_add(more.into()),
    };
    let of = if encoding == Encoding::Binary { byte } else { byte & 0xf };
    Ok(Some((number, Type::of(encoding, of, true)?)))
}

/// The number of a structure's first field; none if it is empty.
pub fn first_field(encoding: Encoding, bytes: &[u8]) -> Result<Option<i16>, Stop> {
    Ok(field(encoding, 0, &mut Cursor::new(bytes))?.map(|(number, _)| number))
}

/// Finds the end of a structure whose bytes come piece by piece, and reads none of them twice.
#[derive(Debug, Default)]
pub struct Walk {
    lexer: Option<Lexer>,
    at: usize,
}

impl Walk {
    /// Goes on with all of the structure's bytes so far; returns its length.
    pub fn on(&mut self, encoding: Encoding, bytes: &[u8]) -> Result<usize, Stop> {
        let lexer = self.lexer.get_or_insert_with(|| Lexer::new(encoding));
        let mut cursor = Cursor::new(bytes.get(self.at..).unwrap_or_default());
        let from = self.at;
        while !lexer.levels.is_empty() {
            lexer.next(&mut cursor)?;
            self.at = from + cursor.position();
        }
        Ok(self.at)
    }
}

/// A container that is being filled.
struct Open {
    field: Option<i16>,
    content: Value,
    /// A map's key whose value comes next.
    key: Option<Text>,
    is_map: bool,
}

impl Open {
    fn new(field: Option<i16>, content: Value, is_map: bool) -> Self {
        Self { field, content, key: None, is_map }
    }

    fn add(&mut self, field: Option<i16>, value: Value) {
        match &mut self.content {
            Value::List(values) => values.push(value),
            Value::Map(fields) if !self.is_map => {
                fields.push((field.map(|number| number.to_string()).unwrap_or_default().into(), value));
            }
            Value::Map(fields) => match self.key.take() {
                Some(key) => fields.push((key, value)),
                None => self.key = Some(key(value)),
            },
            _ => {}
        }
    }
}

/// A map's key as a name.
fn key(value: Value) -> Text {
    match value {
        Value::Text(text) => text,
        value => serde_json::to_string(&value).unwrap_or_default().into(),
    }
}

/// A structure as a tree, fields by number; and whether it was whole.
pub fn tree(encoding: Encoding, bytes: &[u8]) -> (Value, bool) {
    let (mut lexer, mut cursor) = (Lexer::new(encoding), Cursor::new(bytes));
    let mut open = vec![Open::new(None, Value::Map(Vec::new()), false)];
    let mut whole = true;
    loop {
        let (field, value) = match lexer.next(&mut cursor) {
            Ok((field, Token::OpenStruct)) => {
                open.push(Open::new(field, Value::Map(Vec::new()), false));
                continue;
            }
            Ok((field, Token::OpenMap)) => {
                open.push(Open::new(field, Value::Map(Vec::new()), true));
                continue;
            }
            Ok((field, Token::OpenList)) => {
                open.push(Open::new(field, Value::List(Vec::new()), false));
                continue;
            }
            Ok((field, Token::Bool(value))) => (field, value.into()),
            Ok((field, Token::Int(value))) => (field, value.into()),
            Ok((field, Token::Double(value))) => (field, value.into()),
            Ok((field, Token::Bytes(bytes))) => (field, text::octets(bytes)),
            Ok((field, Token::Uuid(bytes))) => (field, text::hex(bytes).into()),
            closed => {
                whole &= closed.is_ok();
                let Some(done) = open.pop() else { return (Value::Null, false) };
                (done.field, done.content)
            }
        };
        match open.last_mut() {
            Some(top) => top.add(field, value),
            None => return (value, whole),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    /// {1: true, 2: [1, -1], 3: {"a": 1.5}, 20: {1: 7}} in both encodings.
    const BINARY: &[u8] =
        b"\x02\0\x01\x01\x0f\0\x02\x08\0\0\0\x02\0\0\0\x01\xff\xff\xff\xff\x0d\0\x03\x0b\x04\0\0\0\x01\0\0\0\x01a\
        \x3f\xf8\0\0\0\0\0\0\x0c\0\x14\x03\0\x01\x07\0\0";
    const COMPACT: &[u8] = b"\x11\x19\x25\x02\x01\x1b\x01\x87\x01a\0\0\0\0\0\0\xf8\x3f\x0c\x28\x13\x07\0\0";

    #[test]
    fn both_encodings_give_the_same_tree() {
        let json = r#"{"1":true,"2":[1,-1],"3":{"a":1.5},"20":{"1":7}}"#;
        for (encoding, bytes) in [(Encoding::Binary, BINARY), (Encoding::Compact, COMPACT)] {
            let (tree, whole) = tree(encoding, bytes);
            assert_eq!((serde_json::to_string(&tree).unwrap().as_str(), whole), (json, true));
            assert_eq!(first_field(encoding, bytes), Ok(Some(1)));
        }
    }

    #[test]
    fn a_walk_ends_where_the_structure_does_however_it_comes() {
        for (encoding, bytes) in [(Encoding::Binary, BINARY), (Encoding::Compact, COMPACT)] {
            let more = [bytes, b"more"].concat();
            assert_eq!(Walk::default().on(encoding, &more), Ok(bytes.len()));
            let mut walk = Walk::default();
            for end in 0..bytes.len() {
                let Err(Stop::Short(missing)) = walk.on(encoding, bytes.get(..end).unwrap()) else { panic!("{end}") };
                assert!(end + missing <= bytes.len());
            }
            assert_eq!(walk.on(encoding, bytes), Ok(bytes.len()));
        }
    }

    #[test]
    fn nesting_without_end_is_no_structure() {
        let deep = b"\x0c\0\x01".repeat(100);
        assert_eq!(Walk::default().on(Encoding::Binary, &deep), Err(Stop::Wrong(Malformed("nested too deep"))));
        assert!(!tree(Encoding::Binary, &deep).1);
    }
}
