//! Message headers, and what comes before a message's first document.

use crate::dissect::{Cursor, Malformed};

/// Length of a header.
pub(super) const HEADER: usize = 16;
/// The longest message: 48 MB of documents and some room for what is around them, as servers have it.
pub(super) const MAX_MESSAGE: usize = 48_000_000 + (16 << 10);
/// The longest name of a collection with its database that is read; servers allow 255 bytes.
const MAX_NAMESPACE: usize = 1024;

/// Flags of `OP_MSG`: a checksum comes last; another message follows unasked, or no answer is wanted; answers may be
/// several.
pub(super) const CHECKSUM: u32 = 1;
pub(super) const MORE_TO_COME: u32 = 1 << 1;
pub(super) const EXHAUST_ALLOWED: u32 = 1 << 16;
/// Flag of `OP_QUERY`: answers come without being asked for.
pub(super) const EXHAUST: u32 = 1 << 6;
/// Flags of `OP_REPLY`: there is no such cursor; the document is an error.
pub(super) const CURSOR_NOT_FOUND: u32 = 1;
pub(super) const QUERY_FAILURE: u32 = 1 << 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Reply,
    Update,
    Insert,
    Query,
    GetMore,
    Delete,
    KillCursors,
    Command,
    CommandReply,
    Compressed,
    Msg,
}

impl Opcode {
    pub(super) fn of(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Reply,
            2001 => Self::Update,
            2002 => Self::Insert,
            2004 => Self::Query,
            2005 => Self::GetMore,
            2006 => Self::Delete,
            2007 => Self::KillCursors,
            2010 => Self::Command,
            2011 => Self::CommandReply,
            2012 => Self::Compressed,
            2013 => Self::Msg,
            _ => return None,
        })
    }

    /// Its name in the specification.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reply => "OP_REPLY",
            Self::Update => "OP_UPDATE",
            Self::Insert => "OP_INSERT",
            Self::Query => "OP_QUERY",
            Self::GetMore => "OP_GET_MORE",
            Self::Delete => "OP_DELETE",
            Self::KillCursors => "OP_KILL_CURSORS",
            Self::Command => "OP_COMMAND",
            Self::CommandReply => "OP_COMMANDREPLY",
            Self::Compressed => "OP_COMPRESSED",
            Self::Msg => "OP_MSG",
        }
    }

    /// What it does, if that is not for a command in it to say.
    pub(super) fn operation(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Query => "query",
            Self::GetMore => "getMore",
            Self::Delete => "delete",
            Self::KillCursors => "killCursors",
            _ => "",
        }
    }

    /// True if only servers send it.
    pub(super) fn is_answer(self) -> bool {
        matches!(self, Self::Reply | Self::CommandReply)
    }
}

/// The header of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// Of the whole message.
    pub len: usize,
    pub request_id: u32,
    pub response_to: u32,
    pub opcode: Opcode,
}

impl Header {
    /// The header, not past it; none if it has not come whole.
    pub(super) fn peek(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let Ok(len) = cursor.u32_le() else { return Ok(None) };
        let len = len as usize;
        if !(HEADER..=MAX_MESSAGE).contains(&len) {
            return Err(Malformed("a length that no message has"));
        }
        let (Ok(request_id), Ok(response_to), Ok(opcode)) = (cursor.u32_le(), cursor.u32_le(), cursor.u32_le()) else {
            return Ok(None);
        };
        let opcode = Opcode::of(opcode).ok_or(Malformed("an unknown opcode"))?;
        Ok(Some(Self { len, request_id, response_to, opcode }))
    }
}

/// What comes before the first document or section.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head<'a> {
    pub flags: u32,
    /// The full name of the collection; of `OP_COMMAND`, the database.
    pub namespace: &'a [u8],
    /// `OP_COMMAND`: the command's name.
    pub command: &'a [u8],
    pub cursor_id: i64,
    /// Two numbers that tell how many documents to skip and return, or where the returned ones start and how many there are.
    pub counts: [i32; 2],
}

impl<'a> Head<'a> {
    /// Reads it off the body of a message.
    pub(super) fn parse(opcode: Opcode, body: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let mut head = Self::default();
        match opcode {
            Opcode::Msg => head.flags = body.u32_le()?,
            Opcode::Query => {
                head.flags = body.u32_le()?;
                head.namespace = c_string(body, MAX_NAMESPACE)?;
                head.counts = [body.i32_le()?, body.i32_le()?];
            }
            Opcode::Reply => {
                head.flags = body.u32_le()?;
                head.cursor_id = body.i64_le()?;
                head.counts = [body.i32_le()?, body.i32_le()?];
            }
            Opcode::Insert => {
                head.flags = body.u32_le()?;
                head.namespace = c_string(body, MAX_NAMESPACE)?;
            }
            Opcode::Update | Opcode::Delete => {
                body.skip(4)?;
                head.namespace = c_string(body, MAX_NAMESPACE)?;
                head.flags = body.u32_le()?;
            }
            Opcode::GetMore => {
                body.skip(4)?;
                head.namespace = c_string(body, MAX_NAMESPACE)?;
                head.counts = [0, body.i32_le()?];
                head.cursor_id = body.i64_le()?;
            }
            Opcode::KillCursors => {
                body.skip(4)?;
                head.counts = [0, body.i32_le()?];
            }
            Opcode::Command => {
                head.namespace = c_string(body, MAX_NAMESPACE)?;
                head.command = c_string(body, MAX_NAMESPACE)?;
            }
            Opcode::CommandReply | Opcode::Compressed => {}
        }
        Ok(head)
    }

    /// The database, if this is a command in an `OP_QUERY`.
    pub(super) fn command_database(&self) -> Option<&'a [u8]> {
        self.namespace.strip_suffix(b".$cmd")
    }
}

/// A string up to a zero byte, not longer than `limit`.
pub(super) fn c_string<'a>(cursor: &mut Cursor<'a>, limit: usize) -> Result<&'a [u8], Malformed> {
    let mut at = *cursor;
    let bytes = at.until(0).ok().filter(|bytes| bytes.len() <= limit);
    match bytes {
        Some(bytes) => {
            *cursor = at;
            Ok(bytes)
        }
        None if cursor.remaining() > limit => Err(Malformed("a name too long")),
        None => Err(Malformed("ends too early")),
    }
}
