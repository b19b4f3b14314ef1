//! The specification's notations (section 3): strings, lists, maps, addresses, consistencies.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Value};

/// The most items of one list or map that are shown.
pub(super) const MAX_ITEMS: usize = 1000;

/// The most bytes of a value of no known type that are shown.
const MAX_VALUE: usize = 4096;

/// `[string]`, `[short bytes]`.
pub(super) fn string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = cursor.u16()?;
    cursor.take(length.into())
}

/// `[long string]`, as far as it is there.
pub(super) fn long_string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = usize::try_from(cursor.i32()?).map_err(|_| Short)?;
    cursor.take(length.min(cursor.remaining()))
}

/// `[bytes]`, `[value]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes<'a> {
    Null,
    /// Of a bound value: it stays as it is.
    NotSet,
    Some(&'a [u8]),
}

pub(super) fn bytes<'a>(cursor: &mut Cursor<'a>) -> Result<Bytes<'a>, Short> {
    Ok(match cursor.i32()? {
        -2 => Bytes::NotSet,
        length => match usize::try_from(length) {
            Ok(length) => Bytes::Some(cursor.take(length)?),
            Err(_) => Bytes::Null,
        },
    })
}

impl Bytes<'_> {
    /// As it is shown where its type is not known.
    pub(super) fn shown(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::NotSet => "[not set]".into(),
            Self::Some(bytes) => match bytes.get(..MAX_VALUE) {
                Some(head) if head.len() < bytes.len() => text::body(head, bytes.len() as u64),
                _ => text::octets(bytes),
            },
        }
    }
}

/// `[string list]`.
pub(super) fn string_list(cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    let count = cursor.u16()?;
    let mut list = Vec::new();
    for _ in 0..count {
        let item = string(cursor)?;
        if list.len() < MAX_ITEMS {
            list.push(text::value(item));
        }
    }
    Ok(list.into())
}

/// A map from `[string]` to what `value` reads.
pub(super) fn map<'a>(
    cursor: &mut Cursor<'a>,
    mut value: impl FnMut(&'a [u8], &mut Cursor<'a>) -> Result<Value, Short>,
) -> Result<Value, Short> {
    let count = cursor.u16()?;
    let mut fields: Vec<(Text, Value)> = Vec::new();
    for _ in 0..count {
        let key = string(cursor)?;
        let value = value(key, cursor)?;
        if fields.len() < MAX_ITEMS {
            fields.push((text::string(key).into(), value));
        }
    }
    Ok(fields.into())
}

/// Passes over `[bytes map]`.
pub(super) fn skip_bytes_map(cursor: &mut Cursor<'_>) -> Result<(), Short> {
    for _ in 0..cursor.u16()? {
        string(cursor)?;
        bytes(cursor)?;
    }
    Ok(())
}

/// Passes over `[string list]`.
pub(super) fn skip_string_list(cursor: &mut Cursor<'_>) -> Result<(), Short> {
    for _ in 0..cursor.u16()? {
        string(cursor)?;
    }
    Ok(())
}

/// `[inetaddr]`.
pub(super) fn address(cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    let length = cursor.u8()?;
    let bytes = cursor.take(length.into())?;
    Ok(ip(bytes).unwrap_or_else(|| text::octets(bytes)))
}

/// An address of four or sixteen bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<Value> {
    let mut cursor = Cursor::new(bytes);
    match bytes.len() {
        4 => cursor.array::<4>().ok().map(|address| Ipv4Addr::from(address).to_string().into()),
        16 => cursor.array::<16>().ok().map(|address| Ipv6Addr::from(address).to_string().into()),
        _ => None,
    }
}

/// `[uuid]`.
pub(super) fn uuid(bytes: [u8; 16]) -> String {
    let mut text = text::hex(&bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// `[consistency]`.
pub(super) fn consistency(cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    Ok(match cursor.u16()? {
        0x00 => "ANY".into(),
        0x01 => "ONE".into(),
        0x02 => "TWO".into(),
        0x03 => "THREE".into(),
        0x04 => "QUORUM".into(),
        0x05 => "ALL".into(),
        0x06 => "LOCAL_QUORUM".into(),
        0x07 => "EACH_QUORUM".into(),
        0x08 => "SERIAL".into(),
        0x09 => "LOCAL_SERIAL".into(),
        0x0a => "LOCAL_ONE".into(),
        other => other.into(),
    })
}
