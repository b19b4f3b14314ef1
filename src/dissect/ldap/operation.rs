//! The head of a message: which operation it is of, and whether bytes look like one.

use super::ber::{self, Fault};
use crate::dissect::{Cursor, Verdict};
use crate::entry::Direction;

/// An operation of the protocol (RFC 4511 section 4.2), by its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    BindRequest,
    BindResponse,
    UnbindRequest,
    SearchRequest,
    SearchResultEntry,
    SearchResultDone,
    SearchResultReference,
    ModifyRequest,
    ModifyResponse,
    AddRequest,
    AddResponse,
    DelRequest,
    DelResponse,
    ModifyDnRequest,
    ModifyDnResponse,
    CompareRequest,
    CompareResponse,
    AbandonRequest,
    ExtendedRequest,
    ExtendedResponse,
    IntermediateResponse,
}

use Operation::{
    AbandonRequest, AddRequest, AddResponse, BindRequest, BindResponse, CompareRequest, CompareResponse, DelRequest,
    DelResponse, ExtendedRequest, ExtendedResponse, IntermediateResponse, ModifyDnRequest, ModifyDnResponse,
    ModifyRequest, ModifyResponse, SearchRequest, SearchResultDone, SearchResultEntry, SearchResultReference,
    UnbindRequest,
};

impl Operation {
    fn of(tag: u8) -> Option<Self> {
        Some(match tag {
            0x60 => BindRequest,
            0x61 => BindResponse,
            0x42 => UnbindRequest,
            0x63 => SearchRequest,
            0x64 => SearchResultEntry,
            0x65 => SearchResultDone,
            0x73 => SearchResultReference,
            0x66 => ModifyRequest,
            0x67 => ModifyResponse,
            0x68 => AddRequest,
            0x69 => AddResponse,
            0x4a => DelRequest,
            0x6b => DelResponse,
            0x6c => ModifyDnRequest,
            0x6d => ModifyDnResponse,
            0x6e => CompareRequest,
            0x6f => CompareResponse,
            0x50 => AbandonRequest,
            0x77 => ExtendedRequest,
            0x78 => ExtendedResponse,
            0x79 => IntermediateResponse,
            _ => return None,
        })
    }

    /// Who sends it.
    pub(super) fn direction(self) -> Direction {
        match self {
            BindRequest | UnbindRequest | SearchRequest | ModifyRequest | AddRequest | DelRequest | ModifyDnRequest
            | CompareRequest | AbandonRequest | ExtendedRequest => Direction::ToServer,
            _ => Direction::ToClient,
        }
    }

    /// What a row says of it, and of its answer.
    pub(super) fn name(self) -> &'static str {
        match self {
            BindRequest | BindResponse => "bind",
            UnbindRequest => "unbind",
            SearchRequest | SearchResultEntry | SearchResultReference | SearchResultDone => "search",
            ModifyRequest | ModifyResponse => "modify",
            AddRequest | AddResponse => "add",
            DelRequest | DelResponse => "delete",
            ModifyDnRequest | ModifyDnResponse => "modifydn",
            CompareRequest | CompareResponse => "compare",
            AbandonRequest => "abandon",
            ExtendedRequest | ExtendedResponse | IntermediateResponse => "extended",
        }
    }

    /// Whether its content can start like that: with the type of its first field.
    fn starts_with(self, content: &[u8]) -> bool {
        match (self, content) {
            // The version.
            (BindRequest, [ber::INTEGER, 1, version, ..]) => (1..=127).contains(version),
            (BindRequest, [ber::INTEGER, 1] | [ber::INTEGER])
            | (UnbindRequest | DelRequest | AbandonRequest | IntermediateResponse, _)
            | (_, []) => true,
            (BindRequest, _) => false,
            (ExtendedRequest, [tag, ..]) => *tag == 0x80,
            (
                SearchRequest
                | SearchResultEntry
                | SearchResultReference
                | ModifyRequest
                | AddRequest
                | ModifyDnRequest
                | CompareRequest,
                [tag, ..],
            ) => *tag == ber::OCTET_STRING,
            // The result code.
            (_, [ber::ENUMERATED]) => true,
            (_, [ber::ENUMERATED, length, ..]) => matches!(length, 1 | 2),
            _ => false,
        }
    }

    /// Whether its content can be that long.
    fn fits(self, length: usize) -> bool {
        match self {
            UnbindRequest => length == 0,
            AbandonRequest => (1..=4).contains(&length),
            DelRequest | IntermediateResponse => true,
            ExtendedRequest | SearchResultReference => length >= 2,
            SearchResultEntry => length >= 4,
            BindRequest | CompareRequest => length >= 7,
            _ => length >= 6,
        }
    }
}

/// The front of a message: `SEQUENCE { messageID, protocolOp, controls }` up to the operation's content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// The length of the whole message.
    pub(super) total: usize,
    pub(super) message_id: u32,
    pub(super) operation: Operation,
    /// Where the operation's content starts, and how long it is.
    pub(super) start: usize,
    pub(super) length: usize,
}

impl Head {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        const NONE: Fault = Fault::Malformed("not an LDAP message");
        let mut cursor = Cursor::new(bytes);
        if cursor.peek().is_some_and(|tag| tag != ber::SEQUENCE) {
            return Err(NONE);
        }
        let (_, length) = ber::header(&mut cursor)?;
        let total = cursor.position() + length;
        let (tag, length) = ber::header(&mut cursor)?;
        if tag != ber::INTEGER || !(1..=4).contains(&length) || cursor.position() + length > total {
            return Err(NONE);
        }
        let message_id = u32::try_from(ber::number(cursor.take(length)?)?).map_err(|_| NONE)?;
        let operation = match cursor.peek() {
            Some(tag) => Operation::of(tag).ok_or(NONE)?,
            None if cursor.position() < total => return Err(Fault::Short),
            None => return Err(NONE),
        };
        let (_, length) = ber::header(&mut cursor)?;
        let start = cursor.position();
        let content = cursor.rest().get(..length).unwrap_or(cursor.rest());
        let controls = cursor.rest().get(length);
        if start + length > total || !operation.fits(length) || !operation.starts_with(content) {
            return Err(NONE);
        }
        // Only controls may follow; a number at their place is what RFC 4511 calls an extension.
        if start + length < total && controls.is_some_and(|tag| *tag & 0x80 == 0) {
            return Err(NONE);
        }
        Ok(Self { total, message_id, operation, start, length })
    }
}

/// Whether the bytes are a message that goes that way.
pub(super) fn plausible(bytes: &[u8], direction: Direction) -> Verdict {
    match Head::parse(bytes) {
        Ok(head) if head.operation.direction() != direction => Verdict::No,
        Ok(head) if head.length > 0 && bytes.len() == head.start => Verdict::More,
        Ok(_) => Verdict::Yes,
        Err(Fault::Short) => Verdict::More,
        Err(Fault::Malformed(_)) => Verdict::No,
    }
}
