//! What a person wants to know of an X.509 certificate (RFC 5280): whose it is, who says so, for which names and how long.
//!
//! Nothing is verified.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Value};
use crate::fields;

/// The most names of one certificate that are shown.
const MAX_NAMES: usize = 100;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Optional parts, by their number.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// The object identifier of subject alternative names, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The fields of a certificate in DER; only its size and hash if it is malformed.
pub(super) fn decode(der: &[u8]) -> Value {
    let fingerprint = text::hex(&Sha256::digest(der));
    parse(der, &fingerprint).unwrap_or_else(|Short| fields! { "size" => der.len(), "sha256" => fingerprint.clone() })
}

fn parse(der: &[u8], fingerprint: &str) -> Result<Value, Short> {
    let certificate = expect(&mut Cursor::new(der), SEQUENCE)?;
    let mut tbs = Cursor::new(expect(&mut Cursor::new(certificate), SEQUENCE)?);
    if tbs.peek() == Some(VERSION) {
        element(&mut tbs)?;
    }
    let serial = expect(&mut tbs, INTEGER)?;
    expect(&mut tbs, SEQUENCE)?;
    let issuer = name(expect(&mut tbs, SEQUENCE)?)?;
    let mut validity = Cursor::new(expect(&mut tbs, SEQUENCE)?);
    let (from, to) = (time(&mut validity)?, time(&mut validity)?);
    let subject = name(expect(&mut tbs, SEQUENCE)?)?;
    let key = expect(&mut tbs, SEQUENCE)?;
    let key = expect(&mut Cursor::new(expect(&mut Cursor::new(key), SEQUENCE)?), OID)?;
    let mut names = Vec::new();
    while let Ok((tag, content)) = element(&mut tbs) {
        if tag == EXTENSIONS {
            names = alternative_names(content).unwrap_or_default();
        }
    }
    Ok(fields! {
        "subject" => subject,
        "issuer" => issuer,
        "subject_alt_names" => names,
        "not_before" => from,
        "not_after" => to,
        "serial_number" => text::hex(serial),
        "public_key_algorithm" => key_algorithm(key),
        "sha256" => fingerprint.to_owned(),
    })
}

/// Tag and content of the next element (X.690 section 8.1), of a tag of one byte.
fn element<'a>(cursor: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), Short> {
    let tag = cursor.u8()?;
    let length = match cursor.u8()? {
        short @ ..=0x7f => usize::from(short),
        0x81 => usize::from(cursor.u8()?),
        0x82 => usize::from(cursor.u16()?),
        0x83 => cursor.u24()? as usize,
        _ => return Err(Short),
    };
    Ok((tag, cursor.take(length)?))
}

/// The content of the next element, which has that tag.
fn expect<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<&'a [u8], Short> {
    match element(cursor)? {
        (found, content) if found == tag => Ok(content),
        _ => Err(Short),
    }
}

/// A distinguished name, its parts in the order of the certificate: `C=DE, O=Example, CN=example.com`.
fn name(content: &[u8]) -> Result<String, Short> {
    let mut parts = Vec::new();
    let mut sets = Cursor::new(content);
    while !sets.is_empty() {
        let mut set = Cursor::new(expect(&mut sets, SET)?);
        while !set.is_empty() {
            let mut pair = Cursor::new(expect(&mut set, SEQUENCE)?);
            let kind = expect(&mut pair, OID)?;
            let (tag, value) = element(&mut pair)?;
            parts.push(format!("{}={}", attribute(kind), string(tag, value)));
        }
    }
    Ok(parts.join(", "))
}

fn string(tag: u8, value: &[u8]) -> String {
    if tag != BMP_STRING {
        return text::string(value);
    }
    let units = value.chunks_exact(2).filter_map(|pair| pair.first_chunk().copied().map(u16::from_be_bytes));
    let decoded: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    text::string(decoded.as_bytes())
}

fn attribute(oid: &[u8]) -> Text {
    Text::Borrowed(match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        _ => return dotted(oid).into(),
    })
}

fn key_algorithm(oid: &[u8]) -> Text {
    Text::Borrowed(match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1] => "RSA",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10] => "RSASSA-PSS",
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1] => "EC",
        [0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1] => "DSA",
        [0x2b, 0x65, 0x70] => "Ed25519",
        [0x2b, 0x65, 0x71] => "Ed448",
        _ => return dotted(oid).into(),
    })
}

/// An object identifier as numbers with dots.
fn dotted(oid: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0u64;
    for byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first.to_string());
                number -= first * 40;
            }
            numbers.push(number.to_string());
            number = 0;
        }
    }
    numbers.join(".")
}

/// A time as RFC 3339 has it. Of two digits, a year below 50 is in this century.
fn time(cursor: &mut Cursor<'_>) -> Result<String, Short> {
    let (tag, content) = element(cursor)?;
    let digits = text::string(content);
    let (century, rest) = match tag {
        UTC_TIME if digits.starts_with(|first| first < '5') => ("20", digits.as_str()),
        UTC_TIME => ("19", digits.as_str()),
        GENERALIZED_TIME => digits.split_at_checked(2).ok_or(Short)?,
        _ => return Err(Short),
    };
    let part = |at: usize| rest.get(at * 2..at * 2 + 2).ok_or(Short);
    let (year, month, day, hour, minute) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    let second = part(5).ok().filter(|text| !text.starts_with('Z')).unwrap_or("00");
    Ok(format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

/// The names in the subject alternative name extension, if there is one.
fn alternative_names(content: &[u8]) -> Result<Vec<Value>, Short> {
    let mut extensions = Cursor::new(expect(&mut Cursor::new(content), SEQUENCE)?);
    while !extensions.is_empty() {
        let mut extension = Cursor::new(expect(&mut extensions, SEQUENCE)?);
        if expect(&mut extension, OID)? != SUBJECT_ALT_NAME {
            continue;
        }
        let mut next = element(&mut extension)?;
        if next.0 != OCTET_STRING {
            // Whether the extension is critical came first.
            next = element(&mut extension)?;
        }
        let mut names = Cursor::new(expect(&mut Cursor::new(next.1), SEQUENCE)?);
        let mut shown = Vec::new();
        while !names.is_empty() && shown.len() < MAX_NAMES {
            let (tag, value) = element(&mut names)?;
            match tag {
                0x81 | 0x82 | 0x86 => shown.push(text::value(value)),
                0x87 => shown.extend(address(value).map(|address| Value::from(address.to_string()))),
                _ => {}
            }
        }
        return Ok(shown);
    }
    Ok(Vec::new())
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_identifiers_have_dots() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]), "1.2.840.113549.1.1.11");
        assert_eq!(dotted(&[0x55, 0x1d, 0x11]), "2.5.29.17");
        assert_eq!(dotted(&[0xff; 40]), "");
    }

    #[test]
    fn times_have_a_century() {
        assert_eq!(time(&mut Cursor::new(b"\x17\x0d260102030405Z")).as_deref(), Ok("2026-01-02T03:04:05Z"));
        assert_eq!(time(&mut Cursor::new(b"\x17\x0d990102030405Z")).as_deref(), Ok("1999-01-02T03:04:05Z"));
        assert_eq!(time(&mut Cursor::new(b"\x18\x0f20520102030405Z")).as_deref(), Ok("2052-01-02T03:04:05Z"));
    }

    #[test]
    fn garbage_still_has_a_size() {
        assert_eq!(decode(b"\x30\x82\xff\xff").get("size"), Some(&Value::Uint(4)));
        assert_eq!(decode(&[0x30; 300]).get("size"), Some(&Value::Uint(300)));
    }
}
