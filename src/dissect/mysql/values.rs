//! Columns and their values, as text and binary.

use std::fmt::Write;

use super::{Cursor, Short, Value, packet, text};
use crate::fields;

/// In a parameter's type: it is unsigned.
pub(super) const UNSIGNED: u16 = 0x8000;
/// In a column's flags: it is unsigned.
const UNSIGNED_FLAG: u16 = 0x20;
/// The most columns of a row that are shown.
const MAX_COLUMNS: usize = 1024;

/// A column of a result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    kind: u8,
    unsigned: bool,
}

/// The name of a type, or its number.
fn type_name(kind: u8) -> Value {
    let name = match kind {
        0 => "decimal",
        1 => "tiny",
        2 => "short",
        3 => "long",
        4 => "float",
        5 => "double",
        6 => "null",
        7 => "timestamp",
        8 => "longlong",
        9 => "int24",
        10 => "date",
        11 => "time",
        12 => "datetime",
        13 => "year",
        15 => "varchar",
        16 => "bit",
        242 => "vector",
        245 => "json",
        246 => "newdecimal",
        247 => "enum",
        248 => "set",
        249 => "tiny_blob",
        250 => "medium_blob",
        251 => "long_blob",
        252 => "blob",
        253 => "var_string",
        254 => "string",
        255 => "geometry",
        _ => return kind.into(),
    };
    name.into()
}

/// A column's definition.
pub(super) fn column(payload: &[u8]) -> Result<(Column, Value), Short> {
    let mut cursor = Cursor::new(payload);
    let mut names = [&[][..]; 6];
    for name in &mut names {
        *name = packet::bytes(&mut cursor)?;
    }
    let [_, schema, table, _, name, _] = names;
    let mut fixed = packet::bytes(&mut cursor)?;
    if fixed.len() != 12 {
        // MariaDB says more of the type.
        fixed = packet::bytes(&mut cursor)?;
    }
    let mut fixed = Cursor::new(fixed);
    let (character_set, len, kind, flags) = (fixed.u16_le()?, fixed.u32_le()?, fixed.u8()?, fixed.u16_le()?);
    let detail = fields! {
        "schema" => text::value(schema),
        "table" => text::value(table),
        "name" => text::value(name),
        "character_set" => character_set,
        "column_length" => len,
        "type" => type_name(kind),
        "flags" => flags,
    };
    Ok((Column { kind, unsigned: flags & UNSIGNED_FLAG != 0 }, detail))
}

fn string(bytes: &[u8], len: u64) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(_) if bytes.len() as u64 == len && !bytes.contains(&0) => text::value(bytes),
        _ => text::body(bytes, len),
    }
}

/// A value behind its length; what there is of it, if the bytes end before.
fn counted(cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    let len = packet::count(cursor)?;
    let rest = cursor.rest();
    let head = rest.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(rest);
    if head.is_empty() && len > 0 {
        return Err(Short);
    }
    cursor.skip(head.len())?;
    Ok(string(head, len))
}

/// A row of text values of which `payload` is the beginning.
pub(super) fn text_row(payload: &[u8]) -> Value {
    let mut cursor = Cursor::new(payload);
    let mut row = Vec::new();
    while !cursor.is_empty() && row.len() < MAX_COLUMNS {
        if cursor.peek() == Some(packet::LOCAL_INFILE) {
            // NULL.
            let _ = cursor.skip(1);
            row.push(Value::Null);
            continue;
        }
        match counted(&mut cursor) {
            Ok(value) => row.push(value),
            Err(Short) => break,
        }
    }
    row.into()
}

/// A row of binary values of which `payload` is the beginning.
pub(super) fn binary_row(payload: &[u8], columns: &[Column]) -> Value {
    let mut cursor = Cursor::new(payload);
    let mut row = Vec::new();
    let _ = (|| {
        cursor.skip(1)?;
        let nulls = cursor.take((columns.len() + 2).div_ceil(8))?;
        for (index, column) in columns.iter().enumerate().take(MAX_COLUMNS) {
            let bit = index + 2;
            row.push(if nulls.get(bit / 8).is_some_and(|bits| bits >> (bit % 8) & 1 != 0) {
                Value::Null
            } else {
                binary(column.kind, column.unsigned, &mut cursor)?
            });
        }
        Ok::<_, Short>(())
    })();
    row.into()
}

/// One binary value.
pub(super) fn binary(kind: u8, unsigned: bool, cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    Ok(match (kind, unsigned) {
        (1, false) => cursor.i8()?.into(),
        (1, true) => cursor.u8()?.into(),
        (2 | 13, false) => cursor.i16_le()?.into(),
        (2 | 13, true) => cursor.u16_le()?.into(),
        (3 | 9, false) => cursor.i32_le()?.into(),
        (3 | 9, true) => cursor.u32_le()?.into(),
        (8, false) => cursor.i64_le()?.into(),
        (8, true) => cursor.u64_le()?.into(),
        (4, _) => f64::from(f32::from_bits(cursor.u32_le()?)).into(),
        (5, _) => f64::from_bits(cursor.u64_le()?).into(),
        (6, _) => Value::Null,
        (7 | 10 | 12, _) => date(cursor)?.into(),
        (11, _) => time(cursor)?.into(),
        _ => counted(cursor)?,
    })
}

fn date(cursor: &mut Cursor<'_>) -> Result<String, Short> {
    let len = cursor.u8()?;
    if len == 0 {
        return Ok("0000-00-00".to_owned());
    }
    let (year, month, day) = (cursor.u16_le()?, cursor.u8()?, cursor.u8()?);
    let mut shown = format!("{year:04}-{month:02}-{day:02}");
    if len >= 7 {
        let (hour, minute, second) = (cursor.u8()?, cursor.u8()?, cursor.u8()?);
        let _ = write!(shown, " {hour:02}:{minute:02}:{second:02}");
    }
    if len >= 11 {
        let _ = write!(shown, ".{:06}", cursor.u32_le()?);
    }
    Ok(shown)
}

fn time(cursor: &mut Cursor<'_>) -> Result<String, Short> {
    let len = cursor.u8()?;
    if len == 0 {
        return Ok("00:00:00".to_owned());
    }
    let (negative, days) = (cursor.u8()?, cursor.u32_le()?);
    let (hours, minutes, seconds) = (cursor.u8()?, cursor.u8()?, cursor.u8()?);
    let sign = if negative == 1 { "-" } else { "" };
    let mut shown = format!("{sign}{:02}:{minutes:02}:{seconds:02}", u64::from(days) * 24 + u64::from(hours));
    if len >= 12 {
        let _ = write!(shown, ".{:06}", cursor.u32_le()?);
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_values_by_type() {
        let read = |kind, unsigned, bytes: &[u8]| binary(kind, unsigned, &mut Cursor::new(bytes));
        assert_eq!(read(3, false, &[0xff; 4]), Ok(Value::Int(-1)));
        assert_eq!(read(3, true, &[0xff; 4]), Ok(Value::Uint(u64::from(u32::MAX))));
        assert_eq!(read(12, false, &[7, 0xea, 0x07, 1, 2, 3, 4, 5]), Ok("2026-01-02 03:04:05".to_owned().into()));
        assert_eq!(read(11, false, &[8, 1, 1, 0, 0, 0, 2, 3, 4]), Ok("-26:03:04".to_owned().into()));
        assert_eq!(read(253, false, b"\x03abc"), Ok("abc".to_owned().into()));
        assert_eq!(read(8, false, &[1, 2]), Err(Short));
    }

    #[test]
    fn a_binary_row_has_its_nulls_first() {
        let columns = [Column { kind: 3, unsigned: false }, Column { kind: 253, unsigned: false }];
        assert_eq!(binary_row(b"\0\x08\x07\0\0\0", &columns), Value::List(vec![7i32.into(), Value::Null]));
    }
}
