//! Tells PostgreSQL from other protocols, by whole messages.

use super::startup::{CANCEL, GSSENC, MAX_CANCEL, MAX_STARTUP, SSL};
use super::wire::{self, HEADER, Header};
use super::{Cursor, PROTOCOL, Probe, Verdict, sql};
use crate::dissect::Short;
use crate::entry::Direction;

/// How many messages are looked at.
const MAX_LOOKED_AT: usize = 32;
/// A message that is not whole yet has to begin with so much that is right to be recognised.
const MIN_BEGINNING: usize = 16;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    match (probe.direction, probe.data.first()) {
        (_, None) => Verdict::More,
        (Direction::ToServer, Some(0)) => startup(probe.data),
        // A connection starts without types.
        (Direction::ToServer, Some(_)) if probe.start => Verdict::No,
        (direction, Some(_)) => messages(direction, probe.data, PROTOCOL.ports.contains(&probe.port)),
    }
}

/// A message without a type.
fn startup(data: &[u8]) -> Verdict {
    let mut cursor = Cursor::new(data);
    let (Ok(len), Ok(code)) = (cursor.u32(), cursor.u32()) else {
        // The length is below 2^14, so it begins with two zeros; a version or code has one of two beginnings.
        let begins = data.get(1).is_none_or(|byte| *byte == 0)
            && data.get(2).is_none_or(|byte| *byte < 0x28)
            && data.get(4).is_none_or(|byte| matches!(byte, 0 | 4));
        return if begins { Verdict::More } else { Verdict::No };
    };
    match code {
        SSL | GSSENC if len == 8 => Verdict::Yes,
        CANCEL if (12..=MAX_CANCEL).contains(&len) => Verdict::Yes,
        _ if code >> 16 == 3 && (9..=MAX_STARTUP).contains(&len) => parameters(cursor.rest(), len as usize - 8),
        _ => Verdict::No,
    }
}

/// The parameters of a startup message: names and values.
fn parameters(data: &[u8], len: usize) -> Verdict {
    let whole = data.len() >= len;
    let mut cursor = Cursor::new(data.get(..len).unwrap_or(data));
    let mut user = false;
    loop {
        let name = match cursor.until(0) {
            Ok(b"") => return if user && cursor.is_empty() { Verdict::Yes } else { Verdict::No },
            Ok(name) => name,
            Err(Short) if whole => return Verdict::No,
            Err(Short) => return if is_name(cursor.rest()) { Verdict::More } else { Verdict::No },
        };
        if !is_name(name) {
            return Verdict::No;
        }
        user |= name == b"user";
        if cursor.until(0).is_err() {
            return if whole { Verdict::No } else { Verdict::More };
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Messages with types. One whole message that has to be as it is is proof.
fn messages(direction: Direction, data: &[u8], hinted: bool) -> Verdict {
    let mut rest = data;
    let mut best = Verdict::More;
    for looked_at in 0..MAX_LOOKED_AT {
        let Some(header) = Header::parse(rest) else {
            return match rest.first() {
                Some(&tag) if !is_tag(direction, tag) => Verdict::No,
                _ => best,
            };
        };
        if !header.is_valid(direction) {
            return Verdict::No;
        }
        let body = rest.get(HEADER..).unwrap_or_default();
        let whole = body.get(..header.body);
        let verdict = shape(direction, header, whole.unwrap_or(body), whole.is_some());
        if verdict == Verdict::No {
            return Verdict::No;
        }
        let Some(next) = rest.get(header.total()..).filter(|_| whole.is_some()) else {
            // On its port, the beginning of a message will do.
            let begun = looked_at == 0 && hinted && body.len() >= MIN_BEGINNING && verdict == Verdict::More;
            return best.max(if begun { Verdict::Maybe } else { verdict });
        };
        best = best.max(verdict);
        if next.is_empty() {
            return best;
        }
        rest = next;
    }
    best
}

fn is_tag(direction: Direction, tag: u8) -> bool {
    let tags: &[u8] = match direction {
        Direction::ToServer => b"QPBEDCSHFXdcfp",
        Direction::ToClient => b"123CDEGHIKANRSTVWZdcnstv",
    };
    tags.contains(&tag)
}

/// Whether a message's body is as its type has it. `More` if it is not whole, and nothing tells yet.
fn shape(direction: Direction, header: Header, body: &[u8], whole: bool) -> Verdict {
    let checked = match direction {
        Direction::ToServer => of_client(header, body, whole),
        Direction::ToClient => of_server(header, body, whole),
    };
    match checked {
        Ok(verdict) => verdict,
        Err(Short) if whole => Verdict::No,
        Err(Short) => Verdict::More,
    }
}

fn sure(is: bool) -> Verdict {
    if is { Verdict::Yes } else { Verdict::No }
}

fn of_client(header: Header, body: &[u8], whole: bool) -> Result<Verdict, Short> {
    let mut cursor = Cursor::new(body);
    Ok(match header.tag {
        b'Q' if whole => {
            let text = body.strip_suffix(b"\0").ok_or(Short)?;
            let right = memchr::memchr(0, text).is_none();
            match (right, sql::is_statement(text)) {
                (false, _) => Verdict::No,
                (true, true) => Verdict::Yes,
                (true, false) => {
                    if text.is_empty() || sql::is_text(text) {
                        Verdict::Maybe
                    } else {
                        Verdict::No
                    }
                }
            }
        }
        b'Q' => match (sql::is_statement(body), sql::is_text(body)) {
            (true, _) if body.len() >= MIN_BEGINNING => Verdict::Yes,
            (_, true) => Verdict::More,
            _ if body.is_empty() => Verdict::More,
            _ => Verdict::No,
        },
        b'P' => {
            let name = cursor.until(0)?;
            if !name.is_empty() && !sql::is_text(name) {
                return Ok(Verdict::No);
            }
            if !whole && sql::is_statement(cursor.rest()) && body.len() >= MIN_BEGINNING {
                return Ok(Verdict::Yes);
            }
            let text = cursor.until(0)?;
            let types = usize::from(cursor.u16()?);
            cursor.skip(4 * types)?;
            if !cursor.is_empty() || !text.is_empty() && !sql::is_text(text) { Verdict::No } else { Verdict::Yes }
        }
        b'B' => {
            for name in [cursor.until(0)?, cursor.until(0)?] {
                if !name.is_empty() && !sql::is_text(name) {
                    return Ok(Verdict::No);
                }
            }
            let formats = cursor.u16()?;
            for _ in 0..formats {
                if cursor.u16()? > 1 {
                    return Ok(Verdict::No);
                }
            }
            let parameters = cursor.u16()?;
            if formats > 1 && formats != parameters {
                return Ok(Verdict::No);
            }
            for _ in 0..parameters {
                if let Ok(len) = usize::try_from(cursor.i32()?) {
                    cursor.skip(len)?;
                }
            }
            for _ in 0..cursor.u16()? {
                if cursor.u16()? > 1 {
                    return Ok(Verdict::No);
                }
            }
            sure(cursor.is_empty())
        }
        b'E' => {
            let name = cursor.until(0)?;
            let rows = cursor.i32()?;
            sure(cursor.is_empty() && rows >= 0 && (name.is_empty() || sql::is_text(name)))
        }
        b'D' | b'C' => {
            let kind = cursor.u8()?;
            let name = cursor.until(0)?;
            sure(cursor.is_empty() && matches!(kind, b'S' | b'P') && (name.is_empty() || sql::is_text(name)))
        }
        b'S' | b'H' | b'X' | b'c' => Verdict::Yes,
        _ if whole => Verdict::Maybe,
        _ => Verdict::More,
    })
}

fn of_server(header: Header, body: &[u8], whole: bool) -> Result<Verdict, Short> {
    let mut cursor = Cursor::new(body);
    Ok(match header.tag {
        b'Z' => sure(matches!(cursor.u8()?, b'I' | b'T' | b'E')),
        b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => Verdict::Yes,
        b'C' if whole => {
            let tag = body.strip_suffix(b"\0").ok_or(Short)?;
            sure(tag.first().is_some_and(u8::is_ascii_uppercase) && sql::is_text(tag))
        }
        b'E' | b'N' if whole => sure(wire::sqlstate(body).is_some() && body.ends_with(b"\0\0")),
        b'E' | b'N' => {
            if body.first().is_some_and(|letter| wire::field_name(*letter).is_none()) {
                return Ok(Verdict::No);
            }
            if wire::sqlstate(body).is_some() { Verdict::Yes } else { Verdict::More }
        }
        b'R' => {
            let code = cursor.u32()?;
            match (code, header.body) {
                (0 | 2 | 3 | 7 | 9, 4) | (5, 8) | (8 | 10..=12, 5..) => Verdict::Yes,
                (13..=20, _) => Verdict::Maybe,
                _ => Verdict::No,
            }
        }
        b'S' => {
            let (name, value) = (cursor.until(0)?, cursor.until(0)?);
            sure(cursor.is_empty() && !name.is_empty() && is_name(name) && (value.is_empty() || sql::is_text(value)))
        }
        b'T' => {
            let count = cursor.u16()?;
            for index in 0..count {
                let name = cursor.until(0).and_then(|name| cursor.skip(16).map(|()| name));
                match name {
                    Ok(name) if !name.is_empty() && !sql::is_text(name) => return Ok(Verdict::No),
                    Ok(_) if !matches!(cursor.u16()?, 0 | 1) => return Ok(Verdict::No),
                    Ok(_) => {}
                    Err(Short) if !whole && index > 0 => return Ok(Verdict::Yes),
                    Err(Short) => return Err(Short),
                }
            }
            sure(cursor.is_empty())
        }
        b't' => {
            let count = usize::from(cursor.u16()?);
            sure(header.body == 2 + 4 * count)
        }
        b'D' => {
            let count = cursor.u16()?;
            for _ in 0..count {
                match cursor.i32()? {
                    -1 => {}
                    len => cursor.skip(usize::try_from(len).map_err(|_| Short)?)?,
                }
            }
            sure(cursor.is_empty())
        }
        b'A' => {
            cursor.skip(4)?;
            let (channel, _) = (cursor.until(0)?, cursor.until(0)?);
            sure(cursor.is_empty() && sql::is_text(channel))
        }
        b'G' | b'H' | b'W' => {
            let (format, count) = (cursor.u8()?, usize::from(cursor.u16()?));
            sure(format <= 1 && header.body == 3 + 2 * count)
        }
        _ if whole => Verdict::Maybe,
        _ => Verdict::More,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissect::Transport;

    fn verdict(direction: Direction, start: bool, data: &[u8]) -> Verdict {
        probe(&Probe { transport: Transport::Tcp, direction, data, port: 9999, start, cut: false })
    }

    #[test]
    fn whole_messages_are_proof() {
        let client = |data| verdict(Direction::ToServer, false, data);
        assert_eq!(client(b"Q\0\0\0\x0dSELECT 1\0"), Verdict::Yes);
        assert_eq!(client(b"Q\0\0\0\x0dHELLO AB\0"), Verdict::Maybe);
        assert_eq!(client(b"Q\0\0\0\x0dSELECT 1 "), Verdict::No);
        assert_eq!(client(b"S\0\0\0\x04"), Verdict::Yes);
        assert_eq!(client(b"GET / HTTP/1.1\r\n"), Verdict::No);
        assert_eq!(verdict(Direction::ToClient, false, b"Z\0\0\0\x05I"), Verdict::Yes);
        assert_eq!(verdict(Direction::ToServer, true, b"Q\0\0\0\x0dSELECT 1\0"), Verdict::No);
    }

    #[test]
    fn a_startup_message_has_a_user() {
        let client = |data| verdict(Direction::ToServer, true, data);
        assert_eq!(client(b"\0\0\0\x08\x04\xd2\x16\x2f"), Verdict::Yes);
        assert_eq!(client(b"\0\0\0\x10\0\x03\0\0user\0a\0\0"), Verdict::Yes);
        assert_eq!(client(b"\0\0\0\x10\0\x03\0\0name\0a\0\0"), Verdict::No);
        assert_eq!(client(b"\0\0\0\x10\0\x03\0\0us"), Verdict::More);
        assert_eq!(client(b"\0\0\0\x10\0\x04\0\0user\0a\0\0"), Verdict::No);
    }
}
