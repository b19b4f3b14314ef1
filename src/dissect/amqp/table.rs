//! Strings and field tables (section 4.2.5).
//!
//! The letters that tell a field's type mean different things to the specification and to its implementations, of which
//! RabbitMQ's reading prevails: to it `s` is a number of two bytes, not a short string. A table that makes no sense so is read
//! as the specification has it.

use crate::dissect::{Cursor, Malformed, Short, text};
use crate::entry::{Text, Value};
use crate::fields;

/// How deep tables and arrays may lie in each other to be shown.
const MAX_DEPTH: usize = 32;
/// The most fields of one table, with what lies in it, that are shown.
const MAX_FIELDS: usize = 4096;

/// A string with a length of one byte.
pub(super) fn short_string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let mut at = *cursor;
    let len = at.u8()?;
    let bytes = at.take(len.into())?;
    *cursor = at;
    Ok(bytes)
}

/// A string with a length of four bytes.
pub(super) fn long_string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let mut at = *cursor;
    let len = at.u32()?;
    let bytes = at.take(len as usize)?;
    *cursor = at;
    Ok(bytes)
}

/// The table that these bytes are, without its length.
pub(super) fn value(bytes: &[u8], secrets: bool) -> Value {
    for dialect in [Dialect::RabbitMq, Dialect::Specification] {
        let mut reader = Reader { dialect, secrets, left: MAX_FIELDS };
        if let Ok(value) = reader.table(bytes, MAX_DEPTH) {
            return value;
        }
    }
    fields! { "undecoded" => text::base64(bytes) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    RabbitMq,
    Specification,
}

struct Reader {
    dialect: Dialect,
    secrets: bool,
    /// How many fields may still be shown.
    left: usize,
}

impl Reader {
    fn table(&mut self, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let mut fields = Vec::new();
        while !cursor.is_empty() {
            let name = short_string(&mut cursor)?;
            let value = self.field(&mut cursor, depth)?;
            if self.count() {
                let hidden = !self.secrets && name.eq_ignore_ascii_case(b"authorization");
                fields.push((Text::Owned(text::string(name)), if hidden { text::HIDDEN.into() } else { value }));
            }
        }
        Ok(Value::Map(fields))
    }

    fn array(&mut self, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let mut values = Vec::new();
        while !cursor.is_empty() {
            let value = self.field(&mut cursor, depth)?;
            if self.count() {
                values.push(value);
            }
        }
        Ok(Value::List(values))
    }

    /// True if one more field may be shown.
    fn count(&mut self) -> bool {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// A type and the value that follows it.
    fn field(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<Value, Malformed> {
        Ok(match (cursor.u8()?, self.dialect) {
            (b't', _) => (cursor.u8()? != 0).into(),
            (b'b', _) => cursor.i8()?.into(),
            (b'B', _) => cursor.u8()?.into(),
            (b's', Dialect::RabbitMq) | (b'U', _) => cursor.i16()?.into(),
            (b's', Dialect::Specification) => text::value(short_string(cursor)?),
            (b'u', _) => cursor.u16()?.into(),
            (b'I', _) => cursor.i32()?.into(),
            (b'i', _) => cursor.u32()?.into(),
            (b'l', Dialect::RabbitMq) | (b'L', _) => cursor.i64()?.into(),
            (b'l', Dialect::Specification) | (b'T', _) => cursor.u64()?.into(),
            (b'f', _) => f64::from(f32::from_bits(cursor.u32()?)).into(),
            (b'd', _) => f64::from_bits(cursor.u64()?).into(),
            (b'D', _) => decimal(cursor.u8()?, cursor.i32()?).into(),
            (b'S', _) => text::value(long_string(cursor)?),
            (b'x', _) => fields! { "base64" => text::base64(long_string(cursor)?) },
            (b'V', _) => Value::Null,
            (kind @ (b'A' | b'F'), _) => {
                let bytes = long_string(cursor)?;
                match depth.checked_sub(1) {
                    Some(depth) if kind == b'A' => self.array(bytes, depth)?,
                    Some(depth) => self.table(bytes, depth)?,
                    None => "[nested too deeply]".into(),
                }
            }
            _ => return Err(Malformed("a field of unknown type")),
        })
    }
}

/// A number with so many digits behind the point.
fn decimal(scale: u8, digits: i32) -> String {
    let scale = usize::from(scale);
    if scale == 0 {
        return digits.to_string();
    }
    let sign = if digits < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_in_rabbitmqs_reading() {
        let bytes = [
            &b"\x01tt\x01\x01bb\xff\x01BB\xff\x01ss\xff\xfe\x01UU\xff\xfe\x01uu\xff\xfe\x01II\xff\xff\xff\xfe"[..],
            b"\x01ii\xff\xff\xff\xfe\x01ll\xff\xff\xff\xff\xff\xff\xff\xfe\x01LL\0\0\0\0\0\0\0\x07",
            b"\x01ff\x3f\xc0\0\0\x01dd\x3f\xf8\0\0\0\0\0\0\x01DD\x02\0\0\0\x05\x01SS\0\0\0\x02hi\x01xx\0\0\0\x01\xff",
            b"\x01TT\0\0\0\0\0\0\0\x09\x01VV\x01AA\0\0\0\x04t\0b\x05\x01FF\0\0\0\x04\x01at\x01",
        ]
        .concat();
        let expected = fields! {
            "t" => true, "b" => -1i8, "B" => 255u8, "s" => -2i16, "U" => -2i16, "u" => 65534u16, "I" => -2i32,
            "i" => 4_294_967_294u32, "l" => -2i64, "L" => 7i64, "f" => 1.5f64, "d" => 1.5f64, "D" => "0.05",
            "S" => "hi", "x" => fields! { "base64" => "/w==" }, "T" => 9u64, "V" => Value::Null,
            "A" => vec![Value::from(false), Value::from(5i8)], "F" => fields! { "a" => true },
        };
        assert_eq!(value(&bytes, false), expected);
    }

    #[test]
    fn a_short_string_if_nothing_else_fits() {
        assert_eq!(value(b"\x01as\x05hello\x01bt\x01", false), fields! { "a" => "hello", "b" => true });
        assert_eq!(value(b"\x01a?", false), fields! { "undecoded" => "AWE/" });
    }

    #[test]
    fn depth_and_number_are_limited() {
        let mut bytes = b"\x01at\x01".to_vec();
        for _ in 0..40 {
            let len = (bytes.len() as u32).to_be_bytes();
            bytes = [&b"\x01aF"[..], &len, &bytes].concat();
        }
        assert!(format!("{:?}", value(&bytes, false)).contains("nested too deeply"));
        let Value::Map(fields) = value(&b"\0V".repeat(10_000), false) else { return assert_eq!("a map", "") };
        assert_eq!(fields.len(), MAX_FIELDS);
    }

    #[test]
    fn decimals() {
        assert_eq!(decimal(0, -7), "-7");
        assert_eq!(decimal(2, -1234), "-12.34");
        assert_eq!(decimal(12, 5), "0.000000000005");
    }
}
