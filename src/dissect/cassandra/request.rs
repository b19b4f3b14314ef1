//! The bodies of requests (section 4.1 of the specification).

use super::frame::{Header, Opcode};
use super::notation::{self, MAX_ITEMS, bytes, consistency, long_string, string};
use super::statement::{self, Statements};
use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Value};

type Fields = Vec<(Text, Value)>;

/// Flags of the parameters of a query.
mod flag {
    pub const VALUES: u32 = 0x01;
    pub const SKIP_METADATA: u32 = 0x02;
    pub const PAGE_SIZE: u32 = 0x04;
    pub const PAGING_STATE: u32 = 0x08;
    pub const SERIAL_CONSISTENCY: u32 = 0x10;
    pub const DEFAULT_TIMESTAMP: u32 = 0x20;
    pub const NAMES: u32 = 0x40;
    pub const KEYSPACE: u32 = 0x80;
    pub const NOW_IN_SECONDS: u32 = 0x100;
}

/// What a request is about: its statement, or those of its batch.
pub(super) fn target(header: &Header, body: &[u8], statements: &Statements, secrets: bool) -> Result<String, Short> {
    let mut cursor = Cursor::new(body);
    Ok(match header.opcode {
        Opcode::Query | Opcode::Prepare => statement::shown(long_string(&mut cursor)?, secrets),
        Opcode::Execute => statements.get(string(&mut cursor)?).map(|text| (**text).to_owned()).unwrap_or_default(),
        Opcode::Batch => {
            let mut texts = String::new();
            cursor.skip(1)?;
            for at in 0..cursor.u16()? {
                // What is cut off is missing.
                let Ok(kind) = cursor.u8() else { break };
                texts.push_str(if at == 0 { "" } else { "; " });
                if kind == 0 {
                    let Ok(query) = long_string(&mut cursor) else { break };
                    texts.push_str(&statement::shown(query, secrets));
                } else {
                    let Ok(id) = string(&mut cursor) else { break };
                    texts.push_str(statements.get(id).map_or("?", |text| text));
                }
                if skip_values(&mut cursor).is_err() {
                    break;
                }
            }
            texts
        }
        _ => String::new(),
    })
}

fn skip_values(cursor: &mut Cursor<'_>) -> Result<(), Short> {
    for _ in 0..cursor.u16()? {
        bytes(cursor)?;
    }
    Ok(())
}

/// The algorithm that `STARTUP` names.
pub(super) fn compression(body: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor::new(body);
    for _ in 0..cursor.u16().ok()? {
        let (key, value) = (string(&mut cursor).ok()?, string(&mut cursor).ok()?);
        if key.eq_ignore_ascii_case(b"COMPRESSION") {
            return Some(value);
        }
    }
    None
}

/// The fields of a request's body, as far as it goes.
pub(super) fn fields(header: &Header, body: &[u8], secrets: bool, fields: &mut Fields) -> Result<(), Short> {
    let mut cursor = Cursor::new(body);
    let hidden = |bytes: &[u8]| if secrets { text::octets(bytes) } else { text::HIDDEN.into() };
    match header.opcode {
        Opcode::Startup => {
            let options = notation::map(&mut cursor, |_, cursor| string(cursor).map(text::value))?;
            fields.push(("options".into(), options));
        }
        Opcode::Credentials => {
            let credentials = notation::map(&mut cursor, |_, cursor| string(cursor).map(hidden))?;
            fields.push(("credentials".into(), credentials));
        }
        Opcode::AuthResponse => fields.push(("token".into(), hidden(body))),
        Opcode::Register => fields.push(("event_types".into(), notation::string_list(&mut cursor)?)),
        Opcode::Query => {
            fields.push(("query".into(), statement::shown(long_string(&mut cursor)?, secrets).into()));
            if header.version == 1 {
                fields.push(("consistency".into(), consistency(&mut cursor)?));
            } else {
                parameters(header, &mut cursor, fields)?;
            }
        }
        Opcode::Prepare => {
            fields.push(("query".into(), statement::shown(long_string(&mut cursor)?, secrets).into()));
            if header.is_v5() && cursor.u32()? & 1 != 0 {
                fields.push(("keyspace".into(), text::value(string(&mut cursor)?)));
            }
        }
        Opcode::Execute => {
            fields.push(("id".into(), text::hex(string(&mut cursor)?).into()));
            if header.is_v5() {
                fields.push(("result_metadata_id".into(), text::hex(string(&mut cursor)?).into()));
            }
            if header.version == 1 {
                fields.push(("values".into(), values(&mut cursor, false)?));
                fields.push(("consistency".into(), consistency(&mut cursor)?));
            } else {
                parameters(header, &mut cursor, fields)?;
            }
        }
        Opcode::Batch => batch(header, &mut cursor, secrets, fields)?,
        _ => {}
    }
    Ok(())
}

fn flags(header: &Header, cursor: &mut Cursor<'_>) -> Result<u32, Short> {
    if header.has_long_flags() { cursor.u32() } else { cursor.u8().map(u32::from) }
}

/// `<query_parameters>`.
fn parameters(header: &Header, cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Short> {
    fields.push(("consistency".into(), consistency(cursor)?));
    let flags = flags(header, cursor)?;
    if flags & flag::VALUES != 0 {
        fields.push(("values".into(), values(cursor, flags & flag::NAMES != 0)?));
    }
    if flags & flag::SKIP_METADATA != 0 {
        fields.push(("skip_metadata".into(), true.into()));
    }
    if flags & flag::PAGE_SIZE != 0 {
        fields.push(("result_page_size".into(), cursor.i32()?.into()));
    }
    if flags & flag::PAGING_STATE != 0 {
        fields.push(("paging_state".into(), paging_state(cursor)?));
    }
    trailer(flags, cursor, fields)
}

/// What queries and batches end with.
fn trailer(flags: u32, cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Short> {
    if flags & flag::SERIAL_CONSISTENCY != 0 {
        fields.push(("serial_consistency".into(), consistency(cursor)?));
    }
    if flags & flag::DEFAULT_TIMESTAMP != 0 {
        fields.push(("timestamp".into(), cursor.i64()?.into()));
    }
    if flags & flag::KEYSPACE != 0 {
        fields.push(("keyspace".into(), text::value(string(cursor)?)));
    }
    if flags & flag::NOW_IN_SECONDS != 0 {
        fields.push(("now_in_seconds".into(), cursor.i32()?.into()));
    }
    Ok(())
}

/// Where the next page starts.
pub(super) fn paging_state(cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    Ok(match bytes(cursor)? {
        notation::Bytes::Some(state) => text::hex(state).into(),
        _ => Value::Null,
    })
}

fn values(cursor: &mut Cursor<'_>, named: bool) -> Result<Value, Short> {
    let count = cursor.u16()?;
    let mut list = Vec::new();
    let mut by_name: Fields = Vec::new();
    for _ in 0..count {
        let name = if named { Some(string(cursor)?) } else { None };
        let value = bytes(cursor)?;
        match name {
            _ if list.len() + by_name.len() >= MAX_ITEMS => {}
            Some(name) => by_name.push((text::string(name).into(), value.shown())),
            None => list.push(value.shown()),
        }
    }
    Ok(if named { by_name.into() } else { list.into() })
}

fn batch(header: &Header, cursor: &mut Cursor<'_>, secrets: bool, fields: &mut Fields) -> Result<(), Short> {
    let kind = cursor.u8()?;
    let kind = match kind {
        0 => "LOGGED".into(),
        1 => "UNLOGGED".into(),
        2 => "COUNTER".into(),
        _ => Value::from(kind),
    };
    fields.push(("type".into(), kind));
    let count = cursor.u16()?;
    let mut queries: Vec<Value> = Vec::new();
    for _ in 0..count {
        let mut query: Fields = match cursor.u8()? {
            0 => vec![("query".into(), statement::shown(long_string(cursor)?, secrets).into())],
            _ => vec![("id".into(), text::hex(string(cursor)?).into())],
        };
        query.push(("values".into(), values(cursor, false)?));
        if queries.len() < MAX_ITEMS {
            queries.push(query.into());
        }
    }
    fields.push(("queries".into(), queries.into()));
    fields.push(("consistency".into(), consistency(cursor)?));
    if header.version >= 3 {
        let flags = flags(header, cursor)?;
        trailer(flags, cursor, fields)?;
    }
    Ok(())
}
