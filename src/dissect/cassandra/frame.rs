//! Envelopes: a header and a body, called frames up to version 4.

use crate::dissect::{Cursor, Malformed, Short};
use crate::entry::Direction;

/// The largest body (`native_transport_max_frame_size` is no more than that).
const MAX_BODY: u32 = 256 << 20;

pub(super) const COMPRESSED: u8 = 0x01;
pub(super) const TRACING: u8 = 0x02;
pub(super) const CUSTOM_PAYLOAD: u8 = 0x04;
pub(super) const WARNING: u8 = 0x08;
pub(super) const USE_BETA: u8 = 0x10;

/// An opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Error,
    Startup,
    Ready,
    Authenticate,
    Credentials,
    Options,
    Supported,
    Query,
    Result,
    Prepare,
    Execute,
    Register,
    Event,
    Batch,
    AuthChallenge,
    AuthResponse,
    AuthSuccess,
}

impl Opcode {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            0x00 => Self::Error,
            0x01 => Self::Startup,
            0x02 => Self::Ready,
            0x03 => Self::Authenticate,
            0x04 => Self::Credentials,
            0x05 => Self::Options,
            0x06 => Self::Supported,
            0x07 => Self::Query,
            0x08 => Self::Result,
            0x09 => Self::Prepare,
            0x0a => Self::Execute,
            0x0b => Self::Register,
            0x0c => Self::Event,
            0x0d => Self::Batch,
            0x0e => Self::AuthChallenge,
            0x0f => Self::AuthResponse,
            0x10 => Self::AuthSuccess,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Startup => "STARTUP",
            Self::Ready => "READY",
            Self::Authenticate => "AUTHENTICATE",
            Self::Credentials => "CREDENTIALS",
            Self::Options => "OPTIONS",
            Self::Supported => "SUPPORTED",
            Self::Query => "QUERY",
            Self::Result => "RESULT",
            Self::Prepare => "PREPARE",
            Self::Execute => "EXECUTE",
            Self::Register => "REGISTER",
            Self::Event => "EVENT",
            Self::Batch => "BATCH",
            Self::AuthChallenge => "AUTH_CHALLENGE",
            Self::AuthResponse => "AUTH_RESPONSE",
            Self::AuthSuccess => "AUTH_SUCCESS",
        }
    }

    /// Who sends it.
    fn direction(self) -> Direction {
        match self {
            Self::Startup
            | Self::Credentials
            | Self::Options
            | Self::Query
            | Self::Prepare
            | Self::Execute
            | Self::Register
            | Self::Batch
            | Self::AuthResponse => Direction::ToServer,
            _ => Direction::ToClient,
        }
    }
}

/// An envelope's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// 1 to 6, or one of DSE's.
    pub(super) version: u8,
    pub(super) flags: u8,
    pub(super) stream: i16,
    pub(super) opcode: Opcode,
    /// The length of the header, and of the body.
    pub(super) size: usize,
    pub(super) length: usize,
}

/// Versions of `DataStax` Enterprise, which are version 4 with additions.
pub(super) fn is_dse(version: u8) -> bool {
    matches!(version, 0x41 | 0x42)
}

impl Header {
    /// The longest header.
    pub(super) const MAX: usize = 9;

    /// The header that `bytes` start with; None if they are too few.
    pub(super) fn parse(bytes: &[u8], direction: Direction) -> Result<Option<Self>, Malformed> {
        const NONE: Malformed = Malformed("not a CQL header");
        let Some(first) = bytes.first() else { return Ok(None) };
        let version = first & 0x7f;
        let response = first & 0x80 != 0;
        let known = match version {
            1..=3 => COMPRESSED | TRACING,
            4 => COMPRESSED | TRACING | CUSTOM_PAYLOAD | WARNING,
            5 | 6 | 0x41 | 0x42 => COMPRESSED | TRACING | CUSTOM_PAYLOAD | WARNING | USE_BETA,
            _ => return Err(NONE),
        };
        if response != (direction == Direction::ToClient) || bytes.get(1).is_some_and(|flags| flags & !known != 0) {
            return Err(NONE);
        }
        let mut cursor = Cursor::new(bytes);
        let Ok((flags, stream, opcode, length)) = Self::rest(&mut cursor, version) else { return Ok(None) };
        let opcode = Opcode::of(opcode).filter(|opcode| opcode.direction() == direction).ok_or(NONE)?;
        // Clients number from 0; the server uses -1 where it was not asked.
        if length > MAX_BODY || stream < -1 || stream < 0 && !response {
            return Err(NONE);
        }
        Ok(Some(Self { version, flags, stream, opcode, size: cursor.position(), length: length as usize }))
    }

    fn rest(cursor: &mut Cursor<'_>, version: u8) -> Result<(u8, i16, u8, u32), Short> {
        cursor.skip(1)?;
        let flags = cursor.u8()?;
        let stream = if version < 3 { cursor.i8()?.into() } else { cursor.i16()? };
        Ok((flags, stream, cursor.u8()?, cursor.u32()?))
    }

    /// The whole envelope's length.
    pub(super) fn total(&self) -> usize {
        self.size + self.length
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether the version has what version 5 brought.
    pub(super) fn is_v5(&self) -> bool {
        matches!(self.version, 5 | 6)
    }

    /// Whether the flags of queries have four bytes.
    pub(super) fn has_long_flags(&self) -> bool {
        self.is_v5() || is_dse(self.version)
    }
}
