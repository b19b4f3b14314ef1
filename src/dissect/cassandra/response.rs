//! The bodies of responses (section 4.2 of the specification).

use super::frame::{Header, Opcode};
use super::notation::{self, MAX_ITEMS, address, bytes, consistency, string, string_list};
use super::request::paging_state;
use super::value::Type;
use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Value};
use crate::fields;

/// The most values of rows that are shown.
const MAX_VALUES: usize = 10_000;

const PREPARED: i32 = 4;

type Fields = Vec<(Text, Value)>;

/// The name of an error.
pub(super) fn error_name(code: i32) -> Option<&'static str> {
    Some(match code {
        0x0000 => "Server error",
        0x000a => "Protocol error",
        0x0100 => "Authentication error",
        0x1000 => "Unavailable exception",
        0x1001 => "Overloaded",
        0x1002 => "Is_bootstrapping",
        0x1003 => "Truncate_error",
        0x1100 => "Write_timeout",
        0x1200 => "Read_timeout",
        0x1300 => "Read_failure",
        0x1400 => "Function_failure",
        0x1500 => "Write_failure",
        0x1600 => "CDC_WRITE_FAILURE",
        0x1700 => "CAS_WRITE_UNKNOWN",
        0x2000 => "Syntax_error",
        0x2100 => "Unauthorized",
        0x2200 => "Invalid",
        0x2300 => "Config_error",
        0x2400 => "Already_exists",
        0x2500 => "Unprepared",
        _ => return None,
    })
}

/// The id of a statement that was prepared, if that is what the result says.
pub(super) fn prepared_id(body: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor::new(body);
    if cursor.i32() == Ok(PREPARED) { string(&mut cursor).ok() } else { None }
}

/// The fields of a response's body, as far as it goes.
pub(super) fn fields(header: &Header, body: &[u8], secrets: bool, fields: &mut Fields) -> Result<(), Short> {
    let mut cursor = Cursor::new(body);
    match header.opcode {
        Opcode::Error => error(header, &mut cursor, fields)?,
        Opcode::Authenticate => fields.push(("authenticator".into(), text::value(string(&mut cursor)?))),
        Opcode::Supported => {
            fields.push(("options".into(), notation::map(&mut cursor, |_, cursor| string_list(cursor))?));
        }
        Opcode::Result => result(header, &mut cursor, fields)?,
        Opcode::Event => {
            let kind = string(&mut cursor)?;
            fields.push(("event_type".into(), text::value(kind)));
            if kind == b"SCHEMA_CHANGE" {
                schema_change(header, &mut cursor, fields)?;
            } else {
                fields.push(("change".into(), text::value(string(&mut cursor)?)));
                fields.push(("address".into(), address(&mut cursor)?));
                fields.push(("port".into(), cursor.i32()?.into()));
            }
        }
        Opcode::AuthChallenge | Opcode::AuthSuccess => {
            let token = match bytes(&mut cursor)? {
                notation::Bytes::Some(_) if !secrets => text::HIDDEN.into(),
                token => token.shown(),
            };
            fields.push(("token".into(), token));
        }
        _ => {}
    }
    Ok(())
}

fn error(header: &Header, cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Short> {
    let code = cursor.i32()?;
    fields.push(("code".into(), code.into()));
    fields.extend(error_name(code).map(|name| ("name".into(), name.into())));
    fields.push(("message".into(), text::value(string(cursor)?)));
    match code {
        0x1000 => {
            fields.push(("consistency".into(), consistency(cursor)?));
            fields.push(("required".into(), cursor.i32()?.into()));
            fields.push(("alive".into(), cursor.i32()?.into()));
        }
        0x1100 | 0x1200 | 0x1300 | 0x1500 | 0x1700 => {
            fields.push(("consistency".into(), consistency(cursor)?));
            fields.push(("received".into(), cursor.i32()?.into()));
            fields.push(("blockfor".into(), cursor.i32()?.into()));
            if matches!(code, 0x1300 | 0x1500) {
                let count = cursor.i32()?;
                fields.push(("numfailures".into(), count.into()));
                if header.is_v5() {
                    let mut reasons = Vec::new();
                    for _ in 0..count {
                        let reason = fields! { "endpoint" => address(cursor)?, "failurecode" => cursor.u16()? };
                        if reasons.len() < MAX_ITEMS {
                            reasons.push(reason);
                        }
                    }
                    fields.push(("reasonmap".into(), reasons.into()));
                }
            }
            match code {
                0x1200 | 0x1300 => fields.push(("data_present".into(), (cursor.u8()? != 0).into())),
                0x1100 | 0x1500 => fields.push(("write_type".into(), text::value(string(cursor)?))),
                _ => {}
            }
            if code == 0x1100 && header.is_v5() && !cursor.is_empty() {
                fields.push(("contentions".into(), cursor.u16()?.into()));
            }
        }
        0x1400 => {
            fields.push(("keyspace".into(), text::value(string(cursor)?)));
            fields.push(("function".into(), text::value(string(cursor)?)));
            fields.push(("arg_types".into(), string_list(cursor)?));
        }
        0x2400 => {
            fields.push(("keyspace".into(), text::value(string(cursor)?)));
            fields.push(("table".into(), text::value(string(cursor)?)));
        }
        0x2500 => fields.push(("id".into(), text::hex(string(cursor)?).into())),
        _ => {}
    }
    Ok(())
}

fn result(header: &Header, cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Short> {
    let kind = cursor.i32()?;
    let kind_name = match kind {
        1 => "Void".into(),
        2 => "Rows".into(),
        3 => "Set_keyspace".into(),
        PREPARED => "Prepared".into(),
        5 => "Schema_change".into(),
        _ => Value::from(kind),
    };
    fields.push(("kind".into(), kind_name));
    match kind {
        2 => rows(header, cursor, fields)?,
        3 => fields.push(("keyspace".into(), text::value(string(cursor)?))),
        PREPARED => {
            fields.push(("id".into(), text::hex(string(cursor)?).into()));
            if header.is_v5() {
                fields.push(("result_metadata_id".into(), text::hex(string(cursor)?).into()));
            }
            let mut variables = Vec::new();
            metadata(header, cursor, &mut variables, true)?;
            fields.push(("metadata".into(), variables.into()));
            if header.version >= 2 {
                let mut columns = Vec::new();
                metadata(header, cursor, &mut columns, false)?;
                fields.push(("result_metadata".into(), columns.into()));
            }
        }
        5 => schema_change(header, cursor, fields)?,
        _ => {}
    }
    Ok(())
}

/// `<metadata>` of rows or, if `prepared`, of the variables of a statement. The types of the columns, if they are there.
fn metadata<'a>(
    header: &Header,
    cursor: &mut Cursor<'a>,
    fields: &mut Fields,
    prepared: bool,
) -> Result<Option<Vec<Type<'a>>>, Short> {
    const GLOBAL_TABLES_SPEC: i32 = 0x01;
    const HAS_MORE_PAGES: i32 = 0x02;
    const NO_METADATA: i32 = 0x04;
    const METADATA_CHANGED: i32 = 0x08;
    let flags = cursor.i32()?;
    let count = cursor.i32()?;
    fields.push(("columns_count".into(), count.into()));
    if prepared && header.version >= 4 {
        let mut indexes: Vec<Value> = Vec::new();
        for _ in 0..cursor.i32()? {
            let index = cursor.u16()?;
            if indexes.len() < MAX_ITEMS {
                indexes.push(index.into());
            }
        }
        fields.push(("pk_index".into(), indexes.into()));
    }
    if flags & HAS_MORE_PAGES != 0 && !prepared {
        fields.push(("paging_state".into(), paging_state(cursor)?));
    }
    if flags & METADATA_CHANGED != 0 && !prepared && header.is_v5() {
        fields.push(("new_metadata_id".into(), text::hex(string(cursor)?).into()));
    }
    if flags & NO_METADATA != 0 && !prepared {
        return Ok(None);
    }
    if flags & GLOBAL_TABLES_SPEC != 0 {
        fields.push(("keyspace".into(), text::value(string(cursor)?)));
        fields.push(("table".into(), text::value(string(cursor)?)));
    }
    let mut columns: Vec<Value> = Vec::new();
    let mut types = Vec::new();
    for _ in 0..count {
        let mut column: Fields = Vec::new();
        if flags & GLOBAL_TABLES_SPEC == 0 {
            column.push(("keyspace".into(), text::value(string(cursor)?)));
            column.push(("table".into(), text::value(string(cursor)?)));
        }
        column.push(("name".into(), text::value(string(cursor)?)));
        let kind = Type::parse(cursor)?;
        column.push(("type".into(), kind.name().into()));
        types.push(kind);
        if columns.len() < MAX_ITEMS {
            columns.push(column.into());
        }
    }
    fields.push(("columns".into(), columns.into()));
    Ok(Some(types))
}

fn rows(header: &Header, cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Short> {
    let types = metadata(header, cursor, fields, false)?;
    let count = cursor.i32()?;
    fields.push(("rows_count".into(), count.into()));
    let Some(types) = types.filter(|types| !types.is_empty()) else { return Ok(()) };
    let mut room = MAX_VALUES;
    let mut rows: Vec<Value> = Vec::new();
    let mut whole = true;
    'rows: for _ in 0..count {
        let Some(left) = room.checked_sub(types.len()) else {
            whole = false;
            break;
        };
        room = left;
        let mut row = Vec::with_capacity(types.len());
        for kind in &types {
            let Ok(value) = bytes(cursor) else {
                whole = false;
                break 'rows;
            };
            row.push(kind.value(value, header.version));
        }
        rows.push(row.into());
    }
    fields.push(("rows".into(), rows.into()));
    if whole { Ok(()) } else { Err(Short) }
}

/// What changed of the schema: up to version 2 in three strings, then in more.
fn schema_change(header: &Header, cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Short> {
    fields.push(("change_type".into(), text::value(string(cursor)?)));
    if header.version < 3 {
        fields.push(("keyspace".into(), text::value(string(cursor)?)));
        fields.push(("table".into(), text::value(string(cursor)?)));
        return Ok(());
    }
    let target = string(cursor)?;
    fields.push(("target".into(), text::value(target)));
    fields.push(("keyspace".into(), text::value(string(cursor)?)));
    if target != b"KEYSPACE" {
        fields.push(("name".into(), text::value(string(cursor)?)));
    }
    if matches!(target, b"FUNCTION" | b"AGGREGATE") {
        fields.push(("arg_types".into(), string_list(cursor)?));
    }
    Ok(())
}
