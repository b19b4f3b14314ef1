//! Types of columns, and the values that are serialized by them (section 6 of the specification).

use std::fmt::Write;

use super::notation::{self, Bytes, string};
use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Timestamp, Value};

/// How deep types may be nested.
const MAX_DEPTH: usize = 16;

/// A column's type.
#[derive(Debug, PartialEq)]
pub(super) enum Type<'a> {
    Scalar(Scalar),
    /// By the name of its class.
    Custom(&'a [u8]),
    List(Box<Self>),
    Set(Box<Self>),
    Map(Box<(Self, Self)>),
    Tuple(Vec<Self>),
    /// Name, and fields with their types.
    UserDefined(&'a [u8], Vec<(&'a [u8], Self)>),
}

/// A type without parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Ascii,
    Bigint,
    Blob,
    Boolean,
    Counter,
    Decimal,
    Double,
    Float,
    Int,
    Text,
    Timestamp,
    Uuid,
    Varint,
    Timeuuid,
    Inet,
    Date,
    Time,
    Smallint,
    Tinyint,
    Duration,
}

use Scalar::{
    Ascii, Bigint, Blob, Boolean, Counter, Date, Decimal, Double, Duration, Float, Inet, Int, Smallint, Time, Timeuuid,
    Tinyint, Uuid, Varint,
};

impl<'a> Type<'a> {
    /// `[option]`.
    pub(super) fn parse(cursor: &mut Cursor<'a>) -> Result<Self, Short> {
        Self::nested(cursor, 0)
    }

    fn nested(cursor: &mut Cursor<'a>, depth: usize) -> Result<Self, Short> {
        if depth >= MAX_DEPTH {
            return Err(Short);
        }
        let inner = |cursor: &mut Cursor<'a>| Self::nested(cursor, depth + 1);
        Ok(Self::Scalar(match cursor.u16()? {
            0x00 => return Ok(Self::Custom(string(cursor)?)),
            0x01 => Ascii,
            0x02 => Bigint,
            0x03 => Blob,
            0x04 => Boolean,
            0x05 => Counter,
            0x06 => Decimal,
            0x07 => Double,
            0x08 => Float,
            0x09 => Int,
            0x0a | 0x0d => Scalar::Text,
            0x0b => Scalar::Timestamp,
            0x0c => Uuid,
            0x0e => Varint,
            0x0f => Timeuuid,
            0x10 => Inet,
            0x11 => Date,
            0x12 => Time,
            0x13 => Smallint,
            0x14 => Tinyint,
            0x15 => Duration,
            0x20 => return Ok(Self::List(Box::new(inner(cursor)?))),
            0x21 => {
                let key = inner(cursor)?;
                return Ok(Self::Map(Box::new((key, inner(cursor)?))));
            }
            0x22 => return Ok(Self::Set(Box::new(inner(cursor)?))),
            0x30 => {
                string(cursor)?;
                let name = string(cursor)?;
                let mut fields = Vec::new();
                for _ in 0..cursor.u16()? {
                    let field = string(cursor)?;
                    fields.push((field, inner(cursor)?));
                }
                return Ok(Self::UserDefined(name, fields));
            }
            0x31 => {
                let mut types = Vec::new();
                for _ in 0..cursor.u16()? {
                    types.push(inner(cursor)?);
                }
                return Ok(Self::Tuple(types));
            }
            _ => return Err(Short),
        }))
    }

    /// As CQL writes it.
    pub(super) fn name(&self) -> Text {
        if let Self::Scalar(scalar) = self {
            return Text::Borrowed(scalar.name());
        }
        let mut name = String::new();
        self.write(&mut name);
        name.into()
    }

    fn write(&self, out: &mut String) {
        let list = |out: &mut String, name: &str, types: &mut dyn Iterator<Item = &Self>| {
            let _ = write!(out, "{name}<");
            for (at, part) in types.enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                part.write(out);
            }
            out.push('>');
        };
        match self {
            Self::Scalar(scalar) => out.push_str(scalar.name()),
            Self::Custom(name) | Self::UserDefined(name, _) => out.push_str(&text::printable(name)),
            Self::List(of) => list(out, "list", &mut std::iter::once(&**of)),
            Self::Set(of) => list(out, "set", &mut std::iter::once(&**of)),
            Self::Map(of) => list(out, "map", &mut [&of.0, &of.1].into_iter()),
            Self::Tuple(of) => list(out, "tuple", &mut of.iter()),
        }
    }

    /// A value of the type; bytes, if they cannot be one.
    pub(super) fn value(&self, bytes: Bytes<'_>, version: u8) -> Value {
        match bytes {
            Bytes::Some(content) => self.read(content, version).unwrap_or_else(|_| bytes.shown()),
            _ => bytes.shown(),
        }
    }

    fn read(&self, bytes: &[u8], version: u8) -> Result<Value, Short> {
        let mut cursor = Cursor::new(bytes);
        match self {
            Self::Scalar(scalar) => scalar.read(bytes),
            Self::Custom(_) => Err(Short),
            Self::List(of) | Self::Set(of) => {
                let count = size(&mut cursor, version)?;
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(of.value(item(&mut cursor, version)?, version));
                }
                Ok(list.into())
            }
            Self::Map(of) => {
                let count = size(&mut cursor, version)?;
                let mut list = Vec::new();
                for _ in 0..count {
                    let key = of.0.value(item(&mut cursor, version)?, version);
                    let value = of.1.value(item(&mut cursor, version)?, version);
                    list.push(crate::fields! { "key" => key, "value" => value });
                }
                Ok(list.into())
            }
            Self::Tuple(of) => {
                let mut list = Vec::new();
                for part in of.iter().take_while(|_| !bytes.is_empty()) {
                    list.push(part.value(notation::bytes(&mut cursor)?, version));
                }
                Ok(list.into())
            }
            Self::UserDefined(_, of) => {
                let mut fields: Vec<(Text, Value)> = Vec::new();
                for (name, part) in of {
                    // Fields that were added later are missing.
                    let Ok(value) = notation::bytes(&mut cursor) else { break };
                    fields.push((text::string(name).into(), part.value(value, version)));
                }
                Ok(fields.into())
            }
        }
    }
}

/// How many items a collection has; each takes a byte at least.
fn size(cursor: &mut Cursor<'_>, version: u8) -> Result<usize, Short> {
    let count = if version < 3 { cursor.u16()?.into() } else { usize::try_from(cursor.i32()?).map_err(|_| Short)? };
    if count > cursor.remaining() { Err(Short) } else { Ok(count) }
}

fn item<'a>(cursor: &mut Cursor<'a>, version: u8) -> Result<Bytes<'a>, Short> {
    if version < 3 { string(cursor).map(Bytes::Some) } else { notation::bytes(cursor) }
}

impl Scalar {
    fn name(self) -> &'static str {
        match self {
            Ascii => "ascii",
            Bigint => "bigint",
            Blob => "blob",
            Boolean => "boolean",
            Counter => "counter",
            Decimal => "decimal",
            Double => "double",
            Float => "float",
            Int => "int",
            Self::Text => "text",
            Self::Timestamp => "timestamp",
            Uuid => "uuid",
            Varint => "varint",
            Timeuuid => "timeuuid",
            Inet => "inet",
            Date => "date",
            Time => "time",
            Smallint => "smallint",
            Tinyint => "tinyint",
            Duration => "duration",
        }
    }

    fn read(self, bytes: &[u8]) -> Result<Value, Short> {
        let mut cursor = Cursor::new(bytes);
        let value = match self {
            Ascii | Self::Text => return Ok(text::value(bytes)),
            Blob => return Ok(format!("0x{}", text::hex(bytes)).into()),
            Inet => return notation::ip(bytes).ok_or(Short),
            Varint => return varint(bytes).map(|number| number.to_string().into()),
            Decimal => {
                let scale = cursor.i32()?;
                return Ok(format!("{}e{}", varint(cursor.rest())?, -i64::from(scale)).into());
            }
            Duration => return Err(Short),
            Bigint | Counter | Time => cursor.i64()?.into(),
            Boolean => (cursor.u8()? != 0).into(),
            Double => f64::from_bits(cursor.u64()?).into(),
            Float => f64::from(f32::from_bits(cursor.u32()?)).into(),
            Int => cursor.i32()?.into(),
            Smallint => cursor.i16()?.into(),
            Tinyint => cursor.i8()?.into(),
            Uuid | Timeuuid => notation::uuid(cursor.array()?).into(),
            Self::Timestamp => {
                let nanos = cursor.i64()?.checked_mul(1_000_000).ok_or(Short)?;
                Timestamp(nanos).to_string().into()
            }
            Date => {
                // Day 0 of the calendar is in the middle of the range.
                let days = i64::from(cursor.u32()?) - (1 << 31);
                let nanos = days.checked_mul(86_400_000_000_000).ok_or(Short)?;
                let mut date = Timestamp(nanos).to_string();
                date.truncate(10);
                date.into()
            }
        };
        if cursor.is_empty() { Ok(value) } else { Err(Short) }
    }
}

/// A number of any length, as far as sixteen bytes hold it.
fn varint(bytes: &[u8]) -> Result<i128, Short> {
    let (first, rest) = bytes.split_first().filter(|_| bytes.len() <= 16).ok_or(Short)?;
    let first = i128::from(i8::from_be_bytes([*first]));
    Ok(rest.iter().fold(first, |number, byte| number << 8 | i128::from(*byte)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn read(kind: &[u8], value: &[u8]) -> (String, Value) {
        let kind = Type::parse(&mut Cursor::new(kind)).unwrap();
        (kind.name().into_owned(), kind.value(Bytes::Some(value), 4))
    }

    #[test]
    fn values_are_read_by_their_types() {
        assert_eq!(read(&[0, 9], &[0, 0, 0, 7]), ("int".into(), 7i32.into()));
        assert_eq!(read(&[0, 9], &[7]), ("int".into(), "07".into()));
        assert_eq!(read(&[0, 14], &[0xff, 0x00]), ("varint".into(), "-256".into()));
        assert_eq!(read(&[0, 6], &[0, 0, 0, 2, 0x7b]), ("decimal".into(), "123e-2".into()));
        assert_eq!(read(&[0, 17], &[0x80, 0, 0, 1]), ("date".into(), "1970-01-02".into()));
        assert_eq!(read(&[0, 11], &[0, 0, 0, 0, 0, 0, 0, 1]).1, "1970-01-01T00:00:00.001000000Z".into());
        let list = read(&[0, 0x20, 0, 0x0d], &[0, 0, 0, 2, 0, 0, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(list, ("list<text>".into(), Value::List(vec!["a".into(), Value::Null])));
        let pair = read(&[0, 0x31, 0, 2, 0, 4, 0, 20], &[0, 0, 0, 1, 1, 0, 0, 0, 1, 0xfe]);
        assert_eq!(pair, ("tuple<boolean, tinyint>".into(), Value::List(vec![true.into(), (-2i8).into()])));
    }

    #[test]
    fn deep_nesting_and_large_counts_are_refused() {
        let deep: Vec<u8> = [0, 0x20].repeat(1000);
        assert_eq!(Type::parse(&mut Cursor::new(&deep)), Err(Short));
        assert_eq!(read(&[0, 0x20, 0, 9], &[0x7f, 0xff, 0xff, 0xff]).1, "7fffffff".into());
    }
}
