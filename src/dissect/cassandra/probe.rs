//! Whether bytes are CQL: a segment by the checksum of its header, an envelope by its header and the start of its body.

use super::frame::{COMPRESSED, CUSTOM_PAYLOAD, Header, Opcode, TRACING, WARNING};
use super::notation::string;
use super::response::error_name;
use super::segment::Segment;
use crate::dissect::lz::lz4;
use crate::dissect::{Cursor, Probe, Verdict};
use crate::entry::Direction;

/// The first words of statements.
const STATEMENTS: &[&[u8]] = &[
    b"SELECT",
    b"INSERT",
    b"UPDATE",
    b"DELETE",
    b"BEGIN",
    b"USE",
    b"CREATE",
    b"ALTER",
    b"DROP",
    b"TRUNCATE",
    b"LIST",
    b"GRANT",
    b"REVOKE",
    b"DESCRIBE",
];
/// The kinds of events.
const EVENTS: &[&[u8]] = &[b"TOPOLOGY_CHANGE", b"STATUS_CHANGE", b"SCHEMA_CHANGE"];

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.data;
    if !probe.start
        && let Some(segment) = Segment::parse(data, false).or_else(|| Segment::parse(data, true))
    {
        return payload(&segment, data, probe.direction);
    }
    match Header::parse(data, probe.direction) {
        Ok(Some(header)) => body(&header, data.get(header.size..).unwrap_or_default()),
        Ok(None) => Verdict::More,
        // It may still be a segment, which has no first byte of its own.
        Err(_) if !probe.start && data.len() < Segment::MAX_HEADER => Verdict::More,
        Err(_) => Verdict::No,
    }
}

/// Whether a segment whose header is right holds envelopes that go that way.
fn payload(segment: &Segment, data: &[u8], direction: Direction) -> Verdict {
    if !segment.self_contained {
        return Verdict::Yes;
    }
    let payload = data.get(segment.header..).unwrap_or_default();
    let header = if segment.uncompressed > 0 {
        lz4::unpack(payload, Header::MAX).map(|start| Header::parse(&start, direction))
    } else {
        Some(Header::parse(payload, direction))
    };
    match header {
        Some(Ok(Some(_))) => Verdict::Yes,
        Some(Ok(None)) => Verdict::More,
        _ => Verdict::No,
    }
}

/// Whether the body that starts so can be one of that opcode.
pub(super) fn body(header: &Header, available: &[u8]) -> Verdict {
    let length = header.length;
    let body = available.get(..length).unwrap_or(available);
    let mut cursor = Cursor::new(body);
    let fits = |needed: usize| if needed <= length { Verdict::Maybe } else { Verdict::No };
    match header.opcode {
        Opcode::Options | Opcode::Ready => return fits_exactly(length, 0),
        Opcode::Startup if length < 2 => return Verdict::No,
        _ if header.flags & (COMPRESSED | CUSTOM_PAYLOAD | TRACING | WARNING) != 0
            && header.opcode != Opcode::Startup =>
        {
            return fits(1);
        }
        _ => {}
    }
    let verdict = match header.opcode {
        Opcode::Startup | Opcode::Supported => options(cursor, length),
        Opcode::Query | Opcode::Prepare => match cursor.i32() {
            // Even an empty one is sent, to be answered by an error.
            Ok(0) => Some(fits(4)),
            Ok(text) if !usize::try_from(text).is_ok_and(|text| text + 4 <= length) => Some(Verdict::No),
            Ok(_) => statement(cursor.rest(), length),
            Err(_) => None,
        },
        Opcode::Execute => cursor.u16().ok().map(|id| match usize::from(id) {
            0 => Verdict::No,
            id => fits(id + 4),
        }),
        Opcode::Batch => match (cursor.u8(), cursor.u16(), cursor.u8()) {
            (Ok(0..=2), Ok(_), Ok(0 | 1)) => Some(fits(7)),
            (Ok(0..=2), Ok(0), Err(_)) => Some(fits(5)),
            (Ok(0..=2), _, Err(_)) | (Err(_), ..) => None,
            _ => Some(Verdict::No),
        },
        Opcode::Register => {
            let _ = cursor.u16();
            one_of(string(&mut cursor), EVENTS, body.len() < length)
        }
        Opcode::Event if header.stream != -1 => Some(Verdict::No),
        Opcode::Event => one_of(string(&mut cursor), EVENTS, body.len() < length),
        Opcode::Error => match (cursor.i32(), cursor.u16()) {
            (Ok(code), Ok(message)) if error_name(code).is_some() && usize::from(message) + 6 <= length => {
                Some(Verdict::Yes)
            }
            // Some servers have errors of their own.
            (Ok(_), Ok(message)) => Some(fits(usize::from(message) + 6)),
            _ => None,
        },
        Opcode::Result => cursor.i32().ok().map(|kind| match kind {
            1 => fits_exactly(length, 4),
            2 => fits(16),
            3 => fits(7),
            4 => fits(8),
            5 => fits(10),
            _ => Verdict::No,
        }),
        Opcode::Authenticate => match cursor.u16() {
            Ok(name) if usize::from(name) + 2 != length => Some(Verdict::No),
            Ok(_) if cursor.remaining() < 4 && body.len() < length => None,
            Ok(_) if cursor.rest().starts_with(b"org.") || cursor.rest().starts_with(b"com.") => Some(Verdict::Yes),
            Ok(_) => Some(Verdict::Maybe),
            Err(_) => None,
        },
        Opcode::Credentials => Some(fits(2)),
        Opcode::AuthChallenge | Opcode::AuthResponse | Opcode::AuthSuccess => match cursor.i32() {
            Ok(token) => Some(fits_exactly(length, usize::try_from(token).unwrap_or(0).saturating_add(4))),
            Err(_) => None,
        },
        Opcode::Options | Opcode::Ready => None,
    };
    verdict.unwrap_or(if body.len() < length { Verdict::More } else { Verdict::No })
}

fn fits_exactly(length: usize, expected: usize) -> Verdict {
    if length == expected { Verdict::Maybe } else { Verdict::No }
}

/// The maps of `STARTUP` and `SUPPORTED` have well-known keys, of which one is the first.
fn options(mut cursor: Cursor<'_>, length: usize) -> Option<Verdict> {
    let count = cursor.u16().ok()?;
    if count == 0 {
        return Some(fits_exactly(length, 2));
    }
    let key = cursor.u16().ok()?;
    if !(1..=64).contains(&key) || usize::from(key) + 4 > length {
        return Some(Verdict::No);
    }
    let key = cursor.take(key.into()).ok()?;
    if !is_name(key) {
        return Some(Verdict::No);
    }
    let known: &[&[u8]] = &[b"CQL_VERSION", b"COMPRESSION", b"DRIVER_NAME", b"DRIVER_VERSION", b"PROTOCOL_VERSIONS"];
    Some(if known.contains(&key) { Verdict::Yes } else { Verdict::Maybe })
}

fn statement(text: &[u8], length: usize) -> Option<Verdict> {
    let text = text.trim_ascii_start();
    let word = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let first = text.get(..word).unwrap_or_default();
    if STATEMENTS.iter().any(|statement| first.eq_ignore_ascii_case(statement)) {
        return Some(Verdict::Yes);
    }
    match text.first() {
        None if length > 4 => None,
        // The word may go on, or a comment or a bracket comes first.
        Some(byte) if byte.is_ascii_graphic() || !byte.is_ascii() => Some(Verdict::Maybe),
        _ => Some(Verdict::No),
    }
}

fn one_of(found: Result<&[u8], crate::dissect::Short>, known: &[&[u8]], cut: bool) -> Option<Verdict> {
    match found {
        Ok(word) if known.contains(&word) => Some(Verdict::Yes),
        Err(_) if cut => None,
        // Some servers have events of their own.
        Ok(word) if is_name(word) => Some(Verdict::Maybe),
        _ => Some(Verdict::No),
    }
}

/// True for what keys and kinds of events look like.
fn is_name(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'0'..=b'9'))
}
