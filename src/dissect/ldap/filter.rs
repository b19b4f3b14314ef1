//! Search filters as text (RFC 4515): `(&(objectClass=person)(uid=b*b))`.

use std::fmt::Write;

use super::ber::{self, Fault};
use super::detail::is_secret;
use crate::dissect::{Cursor, text};

/// How deep filters may be nested.
const MAX_DEPTH: usize = 64;

/// The next filter as text.
pub(super) fn render(cursor: &mut Cursor<'_>, secrets: bool) -> Result<String, Fault> {
    let mut text = String::new();
    filter(cursor, &mut text, secrets, 0)?;
    Ok(text)
}

fn filter(cursor: &mut Cursor<'_>, out: &mut String, secrets: bool, depth: usize) -> Result<(), Fault> {
    if depth >= MAX_DEPTH {
        return Err(Fault::Malformed("filters nested too deep"));
    }
    let (tag, content) = ber::element(cursor)?;
    let mut parts = Cursor::new(content);
    out.push('(');
    match tag {
        0xa0..=0xa2 => {
            out.push(match tag {
                0xa0 => '&',
                0xa1 => '|',
                _ => '!',
            });
            while !parts.is_empty() {
                filter(&mut parts, out, secrets, depth + 1)?;
            }
        }
        0xa3 => assertion(&mut parts, "=", out, secrets)?,
        0xa5 => assertion(&mut parts, ">=", out, secrets)?,
        0xa6 => assertion(&mut parts, "<=", out, secrets)?,
        0xa8 => assertion(&mut parts, "~=", out, secrets)?,
        0xa4 => substrings(&mut parts, out, secrets)?,
        0x87 => {
            escape(content, out);
            out.push_str("=*");
        }
        0xa9 => extensible(&mut parts, out)?,
        _ => return Err(Fault::Malformed("a filter of no known kind")),
    }
    out.push(')');
    Ok(())
}

fn assertion(parts: &mut Cursor<'_>, operator: &str, out: &mut String, secrets: bool) -> Result<(), Fault> {
    let attribute = ber::expect(parts, ber::OCTET_STRING)?;
    escape(attribute, out);
    out.push_str(operator);
    value(ber::expect(parts, ber::OCTET_STRING)?, is_secret(attribute) && !secrets, out);
    Ok(())
}

fn substrings(parts: &mut Cursor<'_>, out: &mut String, secrets: bool) -> Result<(), Fault> {
    let attribute = ber::expect(parts, ber::OCTET_STRING)?;
    let hidden = is_secret(attribute) && !secrets;
    escape(attribute, out);
    out.push('=');
    let mut pieces = Cursor::new(ber::expect(parts, ber::SEQUENCE)?);
    let mut open = true;
    while !pieces.is_empty() {
        let (tag, piece) = ber::element(&mut pieces)?;
        if open && tag != 0x80 {
            out.push('*');
        }
        value(piece, hidden, out);
        open = tag == 0x82;
        if !open {
            out.push('*');
        }
    }
    Ok(())
}

fn extensible(parts: &mut Cursor<'_>, out: &mut String) -> Result<(), Fault> {
    let rule = ber::optional(parts, 0x81)?;
    if let Some(attribute) = ber::optional(parts, 0x82)? {
        escape(attribute, out);
    }
    let matched = ber::expect(parts, 0x83)?;
    if ber::optional(parts, 0x84)?.is_some_and(|flag| flag != [0]) {
        out.push_str(":dn");
    }
    if let Some(rule) = rule {
        out.push(':');
        escape(rule, out);
    }
    out.push_str(":=");
    escape(matched, out);
    Ok(())
}

fn value(bytes: &[u8], hidden: bool, out: &mut String) {
    if hidden {
        out.push_str(text::HIDDEN);
    } else {
        escape(bytes, out);
    }
}

/// Characters that mean something in a filter, and bytes that are no printable text, are `\HH`.
fn escape(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if matches!(character, '*' | '(' | ')' | '\\') || character.is_ascii_control() {
                let _ = write!(out, "\\{:02x}", u32::from(character));
            } else {
                // What could still drive a terminal or turn the text round is escaped as everywhere.
                let mut utf8 = [0; 4];
                out.push_str(&text::printable(character.encode_utf8(&mut utf8).as_bytes()));
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\{byte:02x}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        [&[tag, u8::try_from(content.len()).unwrap()], &content[..]].concat()
    }

    fn shown(filter: &[u8]) -> String {
        render(&mut Cursor::new(filter), false).unwrap()
    }

    #[test]
    fn every_kind_has_its_text() {
        let ava = |tag: u8, name: &[u8], value: &[u8]| wrap(tag, &[&wrap(4, &[name]), &wrap(4, &[value])]);
        assert_eq!(shown(&ava(0xa3, b"cn", b"a*(b)\\\0")), "(cn=a\\2a\\28b\\29\\5c\\00)");
        assert_eq!(shown(&ava(0xa5, b"n", b"1")), "(n>=1)");
        assert_eq!(shown(&ava(0xa6, b"n", b"1")), "(n<=1)");
        assert_eq!(shown(&ava(0xa8, b"n", "ü\u{202e}".as_bytes())), "(n~=ü\\xe2\\x80\\xae)");
        assert_eq!(shown(&ava(0xa3, b"objectGUID", &[0xff, 0x01])), "(objectGUID=\\ff\\01)");
        assert_eq!(shown(&ava(0xa3, b"userPassword", b"x")), "(userPassword=[hidden])");
        assert_eq!(shown(&wrap(0x87, &[b"objectClass"])), "(objectClass=*)");
        let pieces = |pieces: &[&[u8]]| wrap(0xa4, &[&wrap(4, &[b"cn"]), &wrap(0x30, pieces)]);
        assert_eq!(shown(&pieces(&[&wrap(0x80, &[b"a"])])), "(cn=a*)");
        assert_eq!(shown(&pieces(&[&wrap(0x82, &[b"z"])])), "(cn=*z)");
        assert_eq!(shown(&pieces(&[&wrap(0x81, &[b"m"])])), "(cn=*m*)");
        let all = [&wrap(0x80, &[b"a"])[..], &wrap(0x81, &[b"m"]), &wrap(0x81, &[b"n"]), &wrap(0x82, &[b"z"])];
        assert_eq!(shown(&pieces(&all)), "(cn=a*m*n*z)");
        let rule = wrap(
            0xa9,
            &[&wrap(0x81, &[b"1.2.3"]), &wrap(0x82, &[b"cn"]), &wrap(0x83, &[b"x"]), &wrap(0x84, &[&[0xff]])],
        );
        assert_eq!(shown(&rule), "(cn:dn:1.2.3:=x)");
        let present = wrap(0x87, &[b"a"]);
        let not = wrap(0xa2, &[&present]);
        assert_eq!(shown(&wrap(0xa0, &[&wrap(0xa1, &[&present, &not]), &present])), "(&(|(a=*)(!(a=*)))(a=*))");
        assert_eq!(shown(&wrap(0xa0, &[])), "(&)");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut filter = vec![0x87, 1, b'a'];
        for _ in 0..40 {
            filter = wrap(0xa2, &[&filter]);
        }
        assert!(render(&mut Cursor::new(&filter), false).is_ok());
        let mut deep = Vec::new();
        for _ in 0..1000 {
            deep.extend_from_slice(&[0xa2, 0x84, 0, 0, 0xff, 0xff]);
        }
        deep.resize(80_000, 0);
        assert!(render(&mut Cursor::new(&deep), false).is_err());
    }
}
