//! All fields of a message, for the detail.

use super::bson::Reader;
use super::compression::Compressed;
use super::wire::{
    CHECKSUM, CURSOR_NOT_FOUND, EXHAUST, EXHAUST_ALLOWED, Head, Header, MORE_TO_COME, Opcode, QUERY_FAILURE, c_string,
};
use crate::dissect::{Cursor, text};
use crate::entry::{Text, Value};
use crate::fields;

/// The longest identifier of a section.
const MAX_IDENTIFIER: usize = 1024;
/// The most cursors that are listed.
const MAX_CURSORS: usize = 1024;

type Flags = &'static [(u32, &'static str)];
const MSG_FLAGS: Flags =
    &[(CHECKSUM, "checksumPresent"), (MORE_TO_COME, "moreToCome"), (EXHAUST_ALLOWED, "exhaustAllowed")];
const QUERY_FLAGS: Flags = &[
    (1 << 1, "tailableCursor"),
    (1 << 2, "slaveOk"),
    (1 << 3, "oplogReplay"),
    (1 << 4, "noCursorTimeout"),
    (1 << 5, "awaitData"),
    (EXHAUST, "exhaust"),
    (1 << 7, "partial"),
];
const REPLY_FLAGS: Flags = &[
    (CURSOR_NOT_FOUND, "cursorNotFound"),
    (QUERY_FAILURE, "queryFailure"),
    (1 << 2, "shardConfigStale"),
    (1 << 3, "awaitCapable"),
];
const INSERT_FLAGS: Flags = &[(1, "continueOnError")];
const UPDATE_FLAGS: Flags = &[(1, "upsert"), (1 << 1, "multiUpdate")];
const DELETE_FLAGS: Flags = &[(1, "singleRemove")];

/// The fields of a message; `body` is what follows its head and may be cut.
pub(super) fn detail(
    header: &Header,
    compressed: Option<&Compressed>,
    head: &Head<'_>,
    body: Cursor<'_>,
    cut: bool,
    secrets: bool,
) -> Value {
    let opcode = compressed.map_or(header.opcode, |compressed| compressed.opcode);
    let mut fields: Vec<(Text, Value)> = vec![
        ("op_code".into(), opcode.name().into()),
        ("request_id".into(), header.request_id.cast_signed().into()),
        ("response_to".into(), header.response_to.cast_signed().into()),
    ];
    if let Some(compressed) = compressed {
        fields.push(("compressor".into(), compressed.compressor.name().into()));
        fields.push(("uncompressed_size".into(), compressed.size.into()));
    }
    let mut reader = Reader::new(secrets);
    let mut push = |name: &'static str, value: Value| fields.push((name.into(), value));
    let namespace = || text::value(head.namespace);
    let [first, second] = head.counts;
    let mut body = body;
    match opcode {
        Opcode::Msg => {
            push("flag_bits", flags(head.flags, MSG_FLAGS));
            let (sections, checksum) = sections(&mut reader, body, head.flags & CHECKSUM != 0 && !cut);
            push("sections", sections);
            if let Some(checksum) = checksum {
                push("checksum", format!("{checksum:08x}").into());
            }
        }
        Opcode::Query => {
            push("flags", flags(head.flags, QUERY_FLAGS));
            push("full_collection_name", namespace());
            push("number_to_skip", first.into());
            push("number_to_return", second.into());
            push("query", reader.command(&mut body));
            if !body.is_empty() {
                push("return_fields_selector", reader.document(&mut body));
            }
        }
        Opcode::Reply => {
            push("response_flags", flags(head.flags, REPLY_FLAGS));
            push("cursor_id", head.cursor_id.into());
            push("starting_from", first.into());
            push("number_returned", second.into());
            push("documents", documents(&mut reader, &mut body, true));
        }
        Opcode::Insert => {
            push("flags", flags(head.flags, INSERT_FLAGS));
            push("full_collection_name", namespace());
            push("documents", documents(&mut reader, &mut body, false));
        }
        Opcode::Update => {
            push("full_collection_name", namespace());
            push("flags", flags(head.flags, UPDATE_FLAGS));
            push("selector", reader.document(&mut body));
            push("update", reader.document(&mut body));
        }
        Opcode::Delete => {
            push("full_collection_name", namespace());
            push("flags", flags(head.flags, DELETE_FLAGS));
            push("selector", reader.document(&mut body));
        }
        Opcode::GetMore => {
            push("full_collection_name", namespace());
            push("number_to_return", second.into());
            push("cursor_id", head.cursor_id.into());
        }
        Opcode::KillCursors => {
            push("number_of_cursor_ids", second.into());
            let ids: Vec<_> = std::iter::from_fn(|| body.i64_le().ok()).take(MAX_CURSORS).map(Value::from).collect();
            push("cursor_ids", ids.into());
        }
        Opcode::Command => {
            push("database", namespace());
            push("command_name", text::value(head.command));
            push("documents", documents(&mut reader, &mut body, true));
        }
        Opcode::CommandReply => push("documents", documents(&mut reader, &mut body, true)),
        Opcode::Compressed => {}
    }
    if cut || reader.cut {
        fields.push(("truncated".into(), true.into()));
    }
    Value::Map(fields)
}

/// The names of the bits that are set.
fn flags(bits: u32, names: Flags) -> Value {
    let set = names.iter().filter(|(bit, _)| bits & bit != 0);
    Value::List(set.map(|(_, name)| Value::from(*name)).collect())
}

/// Documents to the end.
fn documents(reader: &mut Reader, body: &mut Cursor<'_>, commands: bool) -> Value {
    let mut documents = Vec::new();
    while body.remaining() > 4 {
        let before = body.remaining();
        documents.push(if commands { reader.command(body) } else { reader.document(body) });
        if body.remaining() == before || reader.cut {
            break;
        }
    }
    Value::List(documents)
}

/// The sections of an `OP_MSG`, and the checksum behind them.
fn sections(reader: &mut Reader, mut body: Cursor<'_>, checksum: bool) -> (Value, Option<u32>) {
    let mut sections = Vec::new();
    let mut last = None;
    while !reader.cut {
        if checksum && body.remaining() == 4 {
            last = body.u32_le().ok();
        }
        match body.u8() {
            Ok(0) => sections.push(fields! { "kind" => 0u8, "body" => reader.command(&mut body) }),
            Ok(1) => {
                let Ok(size) = Cursor::new(body.rest()).u32_le() else { break };
                let len = (size as usize).min(body.remaining());
                reader.cut |= len < size as usize;
                let mut section = Cursor::new(body.take(len).unwrap_or_default());
                if section.skip(4).is_err() {
                    break;
                }
                let Ok(identifier) = c_string(&mut section, MAX_IDENTIFIER) else { break };
                sections.push(fields! {
                    "kind" => 1u8,
                    "identifier" => text::value(identifier),
                    "documents" => documents(reader, &mut section, false),
                });
            }
            _ => break,
        }
    }
    (Value::List(sections), last)
}
