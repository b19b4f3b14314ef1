//! Records as they are stored: batches (magic 2), and the messages of before (magic 0 and 1), which hold others if they are
//! compressed.

use std::borrow::Cow;

use super::compression::{self, Codec};
use crate::dissect::{Cursor, Malformed, Short, text};
use crate::entry::{Text, Value};
use crate::fields;

/// The most bytes that the records of one message are decompressed to.
const MAX_UNPACKED: usize = 4 << 20;
/// How deep messages lie in others.
const MAX_NESTED: u8 = 2;
/// What a record takes of the limit for bodies beside its key and value.
const RECORD_COST: usize = 32;
/// What a batch takes of it beside its records.
const BATCH_COST: usize = 128;
/// The most headers of a record that are shown.
const MAX_HEADERS: i64 = 100;

/// Bits of a batch's attributes.
const COMPRESSION: i16 = 0x07;
const APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// What control records say, by their number.
const CONTROL_TYPES: &[&str] =
    &["ABORT", "COMMIT", "LEADER_CHANGE", "SNAPSHOT_HEADER", "SNAPSHOT_FOOTER", "KRAFT_VERSION", "KRAFT_VOTERS"];

/// How much of a message's records may still be looked at.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    shown: usize,
    unpacked: usize,
}

impl Budget {
    /// To show that many bytes.
    pub fn new(shown: usize) -> Self {
        Self { shown, unpacked: MAX_UNPACKED }
    }

    /// How many bytes may still be shown.
    pub fn left(self) -> usize {
        self.shown
    }

    /// Takes what that many bytes cost.
    pub fn spend(&mut self, bytes: usize) {
        self.shown = self.shown.saturating_sub(bytes);
    }

    /// As many of the bytes as may be shown.
    fn show<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let shown = bytes.get(..self.shown).unwrap_or(bytes);
        self.spend(shown.len());
        shown
    }

    fn unpack<'a>(&mut self, codec: Option<Codec>, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let unpacked = compression::unpack(codec?, bytes, self.unpacked)?;
        if let Cow::Owned(unpacked) = &unpacked {
            self.unpacked -= unpacked.len().min(self.unpacked);
        }
        Some(unpacked)
    }
}

/// The first bytes of `len` bytes of records, of which `budget` tells how much may be shown.
pub(super) fn parse(bytes: &[u8], len: u64, budget: &mut Budget) -> Value {
    let mut cursor = Cursor::new(bytes);
    let batches = entries(&mut cursor, budget, 0);
    let mut value = vec![("size".into(), len.into()), ("batches".into(), batches.into())];
    if !cursor.is_empty() || (bytes.len() as u64) < len {
        value.push(("truncated".into(), true.into()));
    }
    Value::Map(value)
}

/// Batches or messages, one after the other, as many as are whole and may be shown.
fn entries(cursor: &mut Cursor<'_>, budget: &mut Budget, nested: u8) -> Vec<Value> {
    let mut all = Vec::new();
    while budget.left() > 0 {
        let mut ahead = *cursor;
        let Some(value) = entry(&mut ahead, budget, nested) else { break };
        all.push(value);
        *cursor = ahead;
    }
    all
}

/// A batch or message; of one whose end is missing, what is there. `None` if it is not even begun.
fn entry(cursor: &mut Cursor<'_>, budget: &mut Budget, nested: u8) -> Option<Value> {
    let (offset, size) = (cursor.i64().ok()?, cursor.i32().ok()?);
    let size = usize::try_from(size).ok()?;
    let whole = size <= cursor.remaining();
    let mut body = Cursor::new(cursor.take(size.min(cursor.remaining())).ok()?);
    let mut ahead = body;
    let first = ahead.u32().ok()?;
    let magic = ahead.i8().ok()?;
    let mut fields = match magic {
        0 | 1 => message(&mut ahead, offset, size, first, magic, budget, nested).ok()?,
        2 => {
            body.skip(4).ok()?;
            batch(&mut ahead, offset, size, first, budget).ok()?
        }
        _ => return None,
    };
    if !whole {
        fields.push(("truncated".into(), true.into()));
    }
    Some(Value::Map(fields))
}

type Fields = Vec<(Text, Value)>;

fn batch(cursor: &mut Cursor<'_>, offset: i64, size: usize, epoch: u32, budget: &mut Budget) -> Result<Fields, Short> {
    let crc = cursor.u32()?;
    let attributes = cursor.i16()?;
    let last_offset_delta = cursor.i32()?;
    let (base_timestamp, max_timestamp) = (cursor.i64()?, cursor.i64()?);
    let (producer_id, producer_epoch, base_sequence) = (cursor.i64()?, cursor.i16()?, cursor.i32()?);
    let count = cursor.i32()?;
    let codec = Codec::of(attributes & COMPRESSION);
    let mut fields: Fields = vec![
        ("base_offset".into(), offset.into()),
        ("batch_length".into(), size.into()),
        ("partition_leader_epoch".into(), epoch.cast_signed().into()),
        ("magic".into(), 2u8.into()),
        ("crc".into(), crc.into()),
        ("attributes".into(), attributes.into()),
        ("compression".into(), codec.map_or("unknown", Codec::name).into()),
        ("timestamp_type".into(), timestamp_type(attributes).into()),
        ("is_transactional".into(), (attributes & TRANSACTIONAL != 0).into()),
        ("is_control".into(), (attributes & CONTROL != 0).into()),
        ("last_offset_delta".into(), last_offset_delta.into()),
        ("base_timestamp".into(), base_timestamp.into()),
        ("max_timestamp".into(), max_timestamp.into()),
        ("producer_id".into(), producer_id.into()),
        ("producer_epoch".into(), producer_epoch.into()),
        ("base_sequence".into(), base_sequence.into()),
        ("records_count".into(), count.into()),
    ];
    budget.spend(BATCH_COST);
    let Some(unpacked) = budget.unpack(codec, cursor.rest()) else { return Ok(fields) };
    let mut records = Vec::new();
    let mut cursor = Cursor::new(&unpacked);
    let count = usize::try_from(count).unwrap_or(0);
    while records.len() < count && budget.left() > 0 {
        let Ok(record) = record(&mut cursor, offset, base_timestamp, attributes & CONTROL != 0, budget) else { break };
        records.push(record);
    }
    let truncated = records.len() < count;
    fields.push(("records".into(), records.into()));
    if truncated {
        fields.push(("records_truncated".into(), true.into()));
    }
    Ok(fields)
}

fn record(
    cursor: &mut Cursor<'_>,
    base_offset: i64,
    base_timestamp: i64,
    control: bool,
    budget: &mut Budget,
) -> Result<Value, Malformed> {
    let len = usize::try_from(varint(cursor)?).map_err(|_| Malformed("a negative length"))?;
    let mut cursor = Cursor::new(cursor.take(len)?);
    let attributes = cursor.i8()?;
    let timestamp = base_timestamp.wrapping_add(varint(&mut cursor)?);
    let offset = base_offset.wrapping_add(varint(&mut cursor)?);
    let (key, value) = (bytes(&mut cursor)?, bytes(&mut cursor)?);
    let mut headers = Vec::new();
    for _ in 0..varint(&mut cursor)?.clamp(0, MAX_HEADERS) {
        let name = bytes(&mut cursor)?.unwrap_or_default();
        headers
            .push(fields! { "key" => text::value(budget.show(name)), "value" => content(bytes(&mut cursor)?, budget) });
    }
    let kind = key.filter(|_| control).and_then(control_type);
    budget.spend(RECORD_COST);
    let mut fields: Fields = vec![
        ("offset".into(), offset.into()),
        ("timestamp".into(), timestamp.into()),
        ("attributes".into(), attributes.into()),
        ("key".into(), content(key, budget)),
        ("value".into(), content(value, budget)),
        ("headers".into(), headers.into()),
    ];
    if let Some(kind) = kind {
        fields.push(("control_type".into(), kind.into()));
    }
    Ok(Value::Map(fields))
}

/// What the key of a control record says: its version, then its type.
fn control_type(key: &[u8]) -> Option<&'static str> {
    let mut cursor = Cursor::new(key);
    cursor.i16().ok()?;
    CONTROL_TYPES.get(usize::from(cursor.u16().ok()?)).copied()
}

fn message(
    cursor: &mut Cursor<'_>,
    offset: i64,
    size: usize,
    crc: u32,
    magic: i8,
    budget: &mut Budget,
    nested: u8,
) -> Result<Fields, Malformed> {
    let attributes = cursor.i8()?;
    let codec = Codec::of(i16::from(attributes) & COMPRESSION);
    let mut fields: Fields = vec![
        ("offset".into(), offset.into()),
        ("message_size".into(), size.into()),
        ("crc".into(), crc.into()),
        ("magic".into(), magic.into()),
        ("attributes".into(), attributes.into()),
        ("compression".into(), codec.map_or("unknown", Codec::name).into()),
    ];
    if magic > 0 {
        fields.push(("timestamp_type".into(), timestamp_type(attributes.into()).into()));
        fields.push(("timestamp".into(), cursor.i64()?.into()));
    }
    budget.spend(RECORD_COST);
    let key = old_bytes(cursor)?;
    fields.push(("key".into(), content(key, budget)));
    let value = old_bytes(cursor)?;
    let unpacked = match (codec, value) {
        (Some(Codec::None) | None, _) | (_, None) => None,
        _ if nested >= MAX_NESTED => None,
        (codec, Some(value)) => budget.unpack(codec, value),
    };
    match unpacked {
        Some(unpacked) => {
            let mut cursor = Cursor::new(&unpacked);
            fields.push(("messages".into(), entries(&mut cursor, budget, nested + 1).into()));
        }
        None => fields.push(("value".into(), content(value, budget))),
    }
    Ok(fields)
}

fn timestamp_type(attributes: i16) -> &'static str {
    if attributes & APPEND_TIME == 0 { "CreateTime" } else { "LogAppendTime" }
}

/// A key or value, up to what may still be shown.
fn content(bytes: Option<&[u8]>, budget: &mut Budget) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    text::body(budget.show(bytes), bytes.len() as u64)
}

/// Bytes with a length of four bytes before them; of a value whose end is missing, what is there.
fn old_bytes<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    match cursor.i32()? {
        -1 => Ok(None),
        len => {
            let len = usize::try_from(len).map_err(|_| Malformed("a negative length"))?;
            Ok(Some(cursor.take(len.min(cursor.remaining()))?))
        }
    }
}

/// Bytes with a varint for their length.
fn bytes<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    match varint(cursor)? {
        -1 => Ok(None),
        len => Ok(Some(cursor.take(usize::try_from(len).map_err(|_| Malformed("a negative length"))?)?)),
    }
}

/// A signed number of seven bits a byte, the lowest first, its sign in the lowest bit.
fn varint(cursor: &mut Cursor<'_>) -> Result<i64, Malformed> {
    let mut number = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = cursor.u8()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()));
        }
    }
    Err(Malformed("a number of too many bits"))
}
