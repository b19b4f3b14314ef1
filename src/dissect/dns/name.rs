//! Domain names and their compression (RFC 1035 section 4.1.4).

use std::fmt::Write;

use crate::dissect::{Cursor, Malformed};

/// The longest name on the wire, in bytes (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;

/// The name at `cursor`, which reads all of `message`, without its final dot; the root is `.`.
///
/// Dots, backslashes and bytes that are no printable text are escaped inside labels: `\.`, `\\`, `\xHH`.
pub(super) fn parse<'a>(cursor: &mut Cursor<'a>, message: &'a [u8]) -> Result<String, Malformed> {
    let mut name = String::with_capacity(64);
    labels(cursor, message, |label| {
        if !name.is_empty() {
            name.push('.');
        }
        push_label(&mut name, label);
    })?;
    if name.is_empty() {
        name.push('.');
    }
    Ok(name)
}

/// Passes over a name without following it.
pub(super) fn skip(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    loop {
        match cursor.u8()? {
            0 => return Ok(()),
            length @ 1..0x40 => cursor.skip(length.into())?,
            0xc0.. => return Ok(cursor.skip(1)?),
            _ => return Err(Malformed("a label of unknown type")),
        }
    }
}

/// Gives each label in turn. A pointer has to lead to before the labels that it ends, so that the way gets shorter with each.
fn labels<'a>(cursor: &mut Cursor<'a>, message: &'a [u8], mut each: impl FnMut(&[u8])) -> Result<(), Malformed> {
    let mut total = 1;
    let mut start = cursor.position();
    let mut jumped = None;
    loop {
        let cursor = jumped.as_mut().unwrap_or(cursor);
        match cursor.u8()? {
            0 => return Ok(()),
            length @ 1..0x40 => {
                let label = cursor.take(length.into())?;
                total += label.len() + 1;
                if total > MAX_NAME {
                    return Err(Malformed("a name longer than 255 bytes"));
                }
                each(label);
            }
            high @ 0xc0.. => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(cursor.u8()?);
                if target >= start {
                    return Err(Malformed("a compression pointer that does not lead back"));
                }
                start = target;
                let mut there = Cursor::new(message);
                there.skip(target)?;
                jumped = Some(there);
            }
            _ => return Err(Malformed("a label of unknown type")),
        }
    }
}

fn push_label(name: &mut String, label: &[u8]) {
    if label.iter().all(|byte| matches!(byte, 0x21..0x7f) && !matches!(byte, b'.' | b'\\'))
        && let Ok(text) = std::str::from_utf8(label)
    {
        name.push_str(text);
        return;
    }
    for chunk in label.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '.' | '\\' => name.extend(['\\', character]),
                _ if character.is_control() || is_reordering(character) => {
                    let mut utf8 = [0; 4];
                    push_escaped(name, character.encode_utf8(&mut utf8).as_bytes());
                }
                _ => name.push(character),
            }
        }
        push_escaped(name, chunk.invalid());
    }
}

/// Characters that change the order in which a reader sees others.
fn is_reordering(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_escaped(name: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(name, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(message: &[u8], offset: usize) -> Result<(String, usize), Malformed> {
        let mut cursor = Cursor::new(message);
        cursor.skip(offset)?;
        let name = parse(&mut cursor, message)?;
        Ok((name, cursor.position()))
    }

    #[test]
    fn follows_pointers_and_returns() {
        let message = b"\x03com\0\x07example\xc0\0\x03www\xc0\x05\xff";
        assert_eq!(at(message, 0), Ok(("com".into(), 5)));
        assert_eq!(at(message, 5), Ok(("example.com".into(), 15)));
        assert_eq!(at(message, 15), Ok(("www.example.com".into(), 21)));
        assert_eq!(at(b"\0", 0), Ok((".".into(), 1)));
    }

    #[test]
    fn refuses_loops_and_giants() {
        assert!(at(b"\xc0\0", 0).is_err());
        assert!(at(b"\x01a\xc0\0", 0).is_err());
        assert!(at(b"\xc0\x02\xc0\0", 0).is_err());
        assert!(at(&[&b"\x3f"[..], &[b'a'; 63]].concat().repeat(5), 0).is_err());
        assert!(at(b"\x41a\0", 0).is_err());
    }

    #[test]
    fn escapes_what_is_no_plain_text() {
        assert_eq!(at(b"\x05a.b\\c\0", 0), Ok(("a\\.b\\\\c".into(), 7)));
        assert_eq!(at(b"\x03\x1b[m\0", 0), Ok(("\\x1b[m".into(), 5)));
        assert_eq!(at(b"\x02\xff\x80\0", 0), Ok(("\\xff\\x80".into(), 4)));
        assert_eq!(at("\x07caf\u{e9} x\0".as_bytes(), 0), Ok(("café x".into(), 9)));
    }
}
