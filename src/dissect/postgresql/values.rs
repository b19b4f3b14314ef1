//! Parameters and columns: their types, and their values in text and binary format.

use std::fmt::Write;
use std::sync::Arc;

use super::{Cursor, Text, Value, sql, text};
use crate::dissect::Short;
use crate::entry::Timestamp;
use crate::fields;

/// The most columns that are kept of a result.
const MAX_COLUMNS: usize = 1600;
/// The most parameters that are kept of a statement.
const MAX_PARAMETERS: usize = 1024;
/// 2000-01-01 in microseconds since 1970.
const EPOCH_2000: i64 = 946_684_800_000_000;
/// The most digits of a number, four decimals each.
const MAX_DIGITS: usize = 256;
const DAY: i64 = 86_400_000_000;

/// A column of a result.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    pub(super) oid: u32,
    pub(super) binary: bool,
}

/// The name of a built-in type, or its number.
pub(super) fn type_name(oid: u32) -> Value {
    let name = match oid {
        0 => "unspecified",
        16 => "bool",
        17 => "bytea",
        18 => "char",
        19 => "name",
        20 => "int8",
        21 => "int2",
        23 => "int4",
        24 => "regproc",
        25 => "text",
        26 => "oid",
        114 => "json",
        142 => "xml",
        600 => "point",
        650 => "cidr",
        700 => "float4",
        701 => "float8",
        705 => "unknown",
        790 => "money",
        829 => "macaddr",
        869 => "inet",
        1000 => "_bool",
        1005 => "_int2",
        1007 => "_int4",
        1009 => "_text",
        1015 => "_varchar",
        1016 => "_int8",
        1042 => "bpchar",
        1043 => "varchar",
        1082 => "date",
        1083 => "time",
        1114 => "timestamp",
        1184 => "timestamptz",
        1186 => "interval",
        1266 => "timetz",
        1560 => "bit",
        1562 => "varbit",
        1700 => "numeric",
        2205 => "regclass",
        2249 => "record",
        2278 => "void",
        2950 => "uuid",
        3802 => "jsonb",
        _ => return oid.into(),
    };
    name.into()
}

/// A list of 16-bit numbers behind its count.
fn shorts(cursor: &mut Cursor<'_>) -> Result<Vec<i16>, Short> {
    let count = usize::from(cursor.u16()?);
    let mut list = Vec::with_capacity(count.min(cursor.remaining() / 2));
    for _ in 0..count {
        list.push(cursor.i16()?);
    }
    Ok(list)
}

/// The format of one of several values: none given is text, one goes for all.
pub(super) fn format(formats: &[i16], index: usize) -> bool {
    match formats {
        [] => false,
        [all] => *all == 1,
        _ => formats.get(index) == Some(&1),
    }
}

/// What a Bind or a FunctionCall carries behind its names: parameters, and the formats that results are to have.
pub(super) fn bound(body: &[u8], types: &[u32]) -> (Vec<Value>, Vec<i16>) {
    let mut cursor = Cursor::new(body);
    let mut parameters = Vec::new();
    let formats = (|| {
        let formats = shorts(&mut cursor)?;
        let count = usize::from(cursor.u16()?);
        for index in 0..count {
            let value = value(&mut cursor, types.get(index).copied().unwrap_or(0), format(&formats, index))?;
            if index < MAX_PARAMETERS {
                parameters.push(value);
            }
        }
        shorts(&mut cursor)
    })();
    (parameters, formats.unwrap_or_default())
}

/// One value with its length; what is left of it, if the bytes end before.
fn value(cursor: &mut Cursor<'_>, oid: u32, binary: bool) -> Result<Value, Short> {
    let Ok(len) = usize::try_from(cursor.i32()?) else { return Ok(Value::Null) };
    match cursor.take(len) {
        Ok(bytes) => Ok(decode(oid, binary, bytes)),
        Err(Short) if cursor.is_empty() => Err(Short),
        Err(Short) => {
            let head = cursor.rest();
            cursor.skip(head.len())?;
            Ok(text::body(head, len as u64))
        }
    }
}

/// The values of a row of which `body` is the beginning.
pub(super) fn row(body: &[u8], columns: &[Column]) -> Value {
    let mut cursor = Cursor::new(body);
    let count = cursor.u16().unwrap_or_default();
    let mut row = Vec::new();
    for index in 0..usize::from(count).min(MAX_COLUMNS) {
        let (oid, binary) = columns.get(index).map_or((0, false), |column| (column.oid, column.binary));
        match value(&mut cursor, oid, binary) {
            Ok(value) => row.push(value),
            Err(Short) => break,
        }
    }
    Value::List(row)
}

/// A row description: its columns, and their fields for the detail.
pub(super) fn columns(body: &[u8]) -> (Vec<Column>, Vec<Value>) {
    let mut cursor = Cursor::new(body);
    let (mut columns, mut details) = (Vec::new(), Vec::new());
    let _ = (|| {
        for _ in 0..usize::from(cursor.u16()?).min(MAX_COLUMNS) {
            let name = cursor.until(0)?;
            let (table, attribute) = (cursor.u32()?, cursor.i16()?);
            let oid = cursor.u32()?;
            let (size, modifier, format) = (cursor.i16()?, cursor.i32()?, cursor.i16()?);
            columns.push(Column { name: text::printable(name).into(), oid, binary: format == 1 });
            details.push(fields! {
                "name" => text::value(name),
                "table_oid" => table,
                "column_attribute" => attribute,
                "type" => type_name(oid),
                "type_size" => size,
                "type_modifier" => modifier,
                "format" => if format == 1 { "binary" } else { "text" },
            });
        }
        Ok::<_, Short>(())
    })();
    (columns, details)
}

/// A value of a type, as text or binary.
fn decode(oid: u32, binary: bool, bytes: &[u8]) -> Value {
    let decoded = if binary { decode_binary(oid, bytes) } else { None };
    decoded.unwrap_or_else(|| {
        if binary && !sql::is_text(bytes) && !bytes.is_empty() {
            // As PostgreSQL itself writes bytes.
            format!("\\x{}", text::hex(bytes)).into()
        } else {
            text::value(bytes)
        }
    })
}

fn decode_binary(oid: u32, bytes: &[u8]) -> Option<Value> {
    let mut cursor = Cursor::new(bytes);
    let value = match (oid, bytes.len()) {
        (16, 1) => (cursor.u8().ok()? != 0).into(),
        (21, 2) => cursor.i16().ok()?.into(),
        (23, 4) => cursor.i32().ok()?.into(),
        (20, 8) => cursor.i64().ok()?.into(),
        (24 | 26 | 2205, 4) => cursor.u32().ok()?.into(),
        (700, 4) => f64::from(f32::from_bits(cursor.u32().ok()?)).into(),
        (701, 8) => f64::from_bits(cursor.u64().ok()?).into(),
        (1082, 4) => i64::from(cursor.i32().ok()?).checked_mul(DAY).and_then(|time| moment(time, 10))?.into(),
        (1083, 8) => {
            moment(cursor.i64().ok().filter(|time| (0..DAY).contains(time))?, 26)?.get(11..)?.to_owned().into()
        }
        (1114, 8) => moment(cursor.i64().ok()?, 26)?.into(),
        (1184, 8) => format!("{}Z", moment(cursor.i64().ok()?, 26)?).into(),
        (1700, 8..) => numeric(&mut cursor).ok()??.into(),
        (2950, 16) => {
            let digits = text::hex(bytes);
            let parts =
                [digits.get(..8)?, digits.get(8..12)?, digits.get(12..16)?, digits.get(16..20)?, digits.get(20..)?];
            parts.join("-").into()
        }
        (3802, 1..) if cursor.u8() == Ok(1) => text::value(cursor.rest()),
        _ => return None,
    };
    Some(value)
}

/// The first `len` characters of a time given in microseconds since 2000.
fn moment(micros: i64, len: usize) -> Option<String> {
    let nanos = micros.checked_add(EPOCH_2000)?.checked_mul(1000)?;
    Timestamp(nanos).to_string().get(..len).map(str::to_owned)
}

/// A number of any size: digits to the base of 10,000.
fn numeric(cursor: &mut Cursor<'_>) -> Result<Option<String>, Short> {
    let (count, weight, sign, scale) = (cursor.u16()?, cursor.i16()?, cursor.u16()?, cursor.u16()?);
    match sign {
        0xc000 => return Ok(Some("NaN".to_owned())),
        0xd000 => return Ok(Some("Infinity".to_owned())),
        0xf000 => return Ok(Some("-Infinity".to_owned())),
        0 | 0x4000 => {}
        _ => return Ok(None),
    }
    let whole = usize::try_from(i32::from(weight) + 1).unwrap_or(0);
    let leading = usize::try_from(-1 - i32::from(weight)).unwrap_or(0);
    if usize::from(count) > MAX_DIGITS || whole > MAX_DIGITS || usize::from(scale) > 4 * MAX_DIGITS {
        return Ok(None);
    }
    let digits = (0..count).map(|_| cursor.u16()).collect::<Result<Vec<_>, _>>()?;
    let mut number = String::new();
    for index in 0..whole {
        let _ = write!(number, "{:04}", digits.get(index).copied().unwrap_or(0));
    }
    let mut fraction = "0000".repeat(leading.min(MAX_DIGITS));
    for digit in digits.iter().skip(whole) {
        let _ = write!(fraction, "{digit:04}");
    }
    let integer = number.trim_start_matches('0');
    let mut result = String::from(if sign == 0x4000 { "-" } else { "" });
    result.push_str(if integer.is_empty() { "0" } else { integer });
    if scale > 0 {
        let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(scale.into()).collect();
        result.push('.');
        result.push_str(&fraction);
    }
    Ok(Some(result))
}

/// Adds bytes to a body that comes in parts: text as long as it is text and fits.
pub(super) fn append(detail: &mut Value, name: &'static str, part: &[u8], len: usize, limit: usize) {
    let Value::Map(fields) = detail else { return };
    let at = fields.iter().position(|(field, _)| field == name).unwrap_or_else(|| {
        fields.push((Text::Borrowed(name), fields! { "size" => 0u64, "parts" => Vec::<Value>::new() }));
        fields.len() - 1
    });
    let Some((_, Value::Map(body))) = fields.get_mut(at) else { return };
    let [(_, Value::Uint(size)), (_, Value::List(parts)), ..] = body.as_mut_slice() else { return };
    let room = limit.saturating_sub(usize::try_from(*size).unwrap_or(usize::MAX));
    *size += len as u64;
    if room > 0 && parts.len() < MAX_COLUMNS {
        let kept = part.get(..room).unwrap_or(part);
        parts.push(if kept.len() < len || std::str::from_utf8(kept).is_err() {
            text::body(kept, len as u64)
        } else {
            text::value(kept)
        });
    } else if body.len() == 2 {
        body.push(("truncated".into(), true.into()));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn binary_values_are_decoded_by_type() {
        assert_eq!(decode(23, true, &[0xff, 0xff, 0xff, 0xfe]), Value::Int(-2));
        assert_eq!(decode(1082, true, &[0, 0, 0, 1]), "2000-01-02".into());
        assert_eq!(decode(1114, true, &0i64.to_be_bytes()), "2000-01-01T00:00:00.000000".into());
        assert_eq!(decode(1114, true, &i64::MAX.to_be_bytes()), "\\x7fffffffffffffff".into());
        assert_eq!(decode(17, true, b"\0\x01"), "\\x0001".into());
        assert_eq!(decode(17, true, b"text"), "text".into());
        assert_eq!(decode(3802, true, b"\x01{}"), "{}".into());
        let uuid = decode(2950, true, &[0x11; 16]);
        assert_eq!(uuid, "11111111-1111-1111-1111-111111111111".to_owned().into());
    }

    #[test]
    fn numbers_of_any_size() {
        let number = |words: &[u16]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            numeric(&mut Cursor::new(&bytes)).unwrap().unwrap()
        };
        assert_eq!(number(&[3, 1, 0x4000, 2, 1, 2345, 6700]), "-12345.67");
        assert_eq!(number(&[1, 0xfffe, 0, 6, 1200]), "0.000012");
        assert_eq!(number(&[0, 0, 0, 0]), "0");
        assert_eq!(number(&[1, 1, 0, 0, 2]), "20000");
    }
}
