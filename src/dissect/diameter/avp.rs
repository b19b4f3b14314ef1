//! Attribute-value pairs (RFC 6733 section 4): a header, data of some type, padding to four bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{command, dictionary};
use crate::dissect::{Cursor, Cx, Short, text};
use crate::entry::{Timestamp, Value};

pub(super) const ORIGIN_HOST: u32 = 264;
pub(super) const RESULT_CODE: u32 = 268;
pub(super) const EXPERIMENTAL_RESULT: u32 = 297;
pub(super) const EXPERIMENTAL_RESULT_CODE: u32 = 298;
pub(super) const INBAND_SECURITY_ID: u32 = 299;

/// How deep groups may be nested.
const MAX_DEPTH: usize = 16;
/// The most AVPs of one message that are shown.
const MAX_AVPS: usize = 4096;
/// Seconds from 1900, where NTP's time starts, to 1970.
const NTP_EPOCH: i64 = 2_208_988_800;

const VENDOR: u8 = 0x80;
const MANDATORY: u8 = 0x40;
const PROTECTED: u8 = 0x20;

/// A data type (RFC 6733 sections 4.2 to 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    OctetString,
    Integer32,
    Integer64,
    Unsigned32,
    Unsigned64,
    Grouped,
    /// A family and an address.
    Address,
    /// An address of IPv4 or IPv6, told apart by their lengths.
    Ip,
    Time,
    /// UTF8String, DiameterIdentity, DiameterURI, IPFilterRule.
    Text,
    /// A number whose values have names.
    Enumerated(&'static [(u32, &'static str)]),
    /// `Result-Code`.
    ResultCode,
    /// An application's number.
    Application,
    /// Digits, two a byte, the lower half first: numbers of telephones.
    Digits,
    /// What nobody should see.
    Secret,
}

/// An AVP's header.
pub(super) struct Head {
    code: u32,
    pub(super) flags: u8,
    vendor: u32,
    /// The length of its data.
    pub(super) data: usize,
    /// Its length with its header, without padding.
    pub(super) size: usize,
}

impl Head {
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Short> {
        let code = cursor.u32()?;
        let flags = cursor.u8()?;
        let size = cursor.u24()? as usize;
        let (vendor, header) = if flags & VENDOR != 0 { (cursor.u32()?, 12) } else { (0, 8) };
        // A length that does not cover the header is as bad as one that goes too far.
        Ok(Self { code, flags, vendor, data: size.checked_sub(header).unwrap_or(usize::MAX), size })
    }
}

/// An AVP.
pub(super) struct Avp<'a> {
    pub(super) code: u32,
    flags: u8,
    pub(super) vendor: u32,
    pub(super) data: &'a [u8],
}

/// The AVPs of a message or of a group, up to the first that does not fit.
pub(super) struct Avps<'a> {
    cursor: Cursor<'a>,
    broken: bool,
}

impl<'a> Avps<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(bytes), broken: false }
    }
}

impl<'a> Iterator for Avps<'a> {
    type Item = Result<Avp<'a>, Short>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || self.cursor.is_empty() {
            return None;
        }
        let avp = avp(&mut self.cursor);
        self.broken = avp.is_err();
        Some(avp)
    }
}

fn avp<'a>(cursor: &mut Cursor<'a>) -> Result<Avp<'a>, Short> {
    let Head { code, flags, vendor, data, size } = Head::parse(cursor)?;
    let data = cursor.take(data)?;
    // The last one's padding is sometimes left out.
    let padding = size.wrapping_neg() % 4;
    cursor.skip(padding.min(cursor.remaining()))?;
    Ok(Avp { code, flags, vendor, data })
}

/// The data of the first AVP with that code that is no vendor's own.
pub(super) fn find(avps: &[u8], code: u32) -> Option<&[u8]> {
    Avps::new(avps).flatten().find(|avp| avp.code == code && avp.vendor == 0).map(|avp| avp.data)
}

/// All AVPs in their order; false if some could not be read.
pub(super) fn detail(avps: &[u8], cx: &Cx<'_>) -> (Value, bool) {
    let mut room = MAX_AVPS;
    let (list, whole) = list(avps, 0, &mut room, cx.secrets());
    (list, whole)
}

fn list(avps: &[u8], depth: usize, room: &mut usize, secrets: bool) -> (Value, bool) {
    let mut shown = Vec::new();
    let mut whole = true;
    for avp in Avps::new(avps) {
        let Some(left) = room.checked_sub(1) else {
            whole = false;
            break;
        };
        *room = left;
        match avp {
            Ok(avp) => shown.push(one(&avp, depth, room, secrets)),
            Err(Short) => whole = false,
        }
    }
    (shown.into(), whole)
}

fn one(avp: &Avp<'_>, depth: usize, room: &mut usize, secrets: bool) -> Value {
    let mut fields = vec![("code".into(), avp.code.into())];
    let known = dictionary::find(avp.vendor, avp.code);
    if let Some((name, _)) = known {
        fields.push(("name".into(), name.into()));
    }
    if avp.flags & VENDOR != 0 {
        fields.push(("vendor_id".into(), avp.vendor.into()));
        fields.extend(dictionary::vendor(avp.vendor).map(|name| ("vendor".into(), name.into())));
    }
    fields.push(("mandatory".into(), (avp.flags & MANDATORY != 0).into()));
    if avp.flags & PROTECTED != 0 {
        fields.push(("protected".into(), true.into()));
    }
    let kind = known.map_or(Kind::OctetString, |(_, kind)| kind);
    if kind == Kind::Grouped && depth < MAX_DEPTH {
        let (list, whole) = list(avp.data, depth + 1, room, secrets);
        if whole {
            fields.push(("avps".into(), list));
            return fields.into();
        }
    }
    let value = typed(kind, avp.data, secrets);
    let meaning = match (kind, &value) {
        (Kind::ResultCode, Value::Uint(code)) => command::result(*code as u32),
        (Kind::Application, Value::Uint(id)) => command::application(*id as u32),
        _ => None,
    };
    fields.push(("value".into(), value));
    fields.extend(meaning.map(|meaning| ("meaning".into(), meaning.into())));
    fields.into()
}

/// Data of its type; bytes, if they do not have the length of that.
fn typed(kind: Kind, data: &[u8], secrets: bool) -> Value {
    let mut cursor = Cursor::new(data);
    let value = match kind {
        Kind::Secret if !secrets => return text::HIDDEN.into(),
        Kind::Text => return text::value(data),
        Kind::Digits => digits(data).map(Value::from),
        Kind::Address => return address(data).unwrap_or_else(|_| text::octets(data)),
        Kind::Ip => match data.len() {
            4 => cursor.u32().map(|address| Ipv4Addr::from(address).to_string().into()),
            _ => cursor.array::<16>().map(|address| Ipv6Addr::from(address).to_string().into()),
        },
        Kind::Integer32 => cursor.i32().map(Value::from),
        Kind::Integer64 => cursor.i64().map(Value::from),
        Kind::Unsigned32 | Kind::ResultCode | Kind::Application => cursor.u32().map(Value::from),
        Kind::Unsigned64 => cursor.u64().map(Value::from),
        Kind::Time => cursor.u32().map(time),
        Kind::Enumerated(names) => cursor.u32().map(|number| {
            names.iter().find(|(value, _)| *value == number).map_or_else(|| number.into(), |(_, name)| (*name).into())
        }),
        Kind::OctetString | Kind::Grouped | Kind::Secret => Err(Short),
    };
    match value {
        Ok(value) if cursor.is_empty() || kind == Kind::Digits => value,
        _ => text::octets(data),
    }
}

/// Seconds since 1900; those of the era that starts in 2036 lack the upper bit.
fn time(seconds: u32) -> Value {
    let era = if seconds & 0x8000_0000 == 0 { 1 << 32 } else { 0 };
    Timestamp((i64::from(seconds) + era - NTP_EPOCH) * 1_000_000_000).to_string().into()
}

/// An address family (IANA) and an address.
fn address(data: &[u8]) -> Result<Value, Short> {
    let mut cursor = Cursor::new(data);
    let address = match cursor.u16()? {
        1 => Ipv4Addr::from(cursor.u32()?).to_string(),
        2 => Ipv6Addr::from(cursor.array::<16>()?).to_string(),
        // E.164.
        8 => text::string(cursor.take(cursor.remaining())?),
        _ => return Err(Short),
    };
    if cursor.is_empty() { Ok(address.into()) } else { Err(Short) }
}

/// Digits of a telephone number.
fn digits(data: &[u8]) -> Result<String, Short> {
    let mut text = String::with_capacity(data.len() * 2);
    let halves = data.len() * 2;
    for at in 0..halves {
        let half = data.get(at / 2).ok_or(Short)? >> (at % 2 * 4) & 0x0f;
        match half {
            0..=9 => text.push(char::from(b'0' + half)),
            // The filler of an odd number of digits.
            0x0f if at + 1 == halves => {}
            _ => return Err(Short),
        }
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn data_has_its_type() {
        assert_eq!(typed(Kind::Unsigned32, &[0, 0, 7, 0xd1], false), 2001u32.into());
        assert_eq!(typed(Kind::Unsigned32, &[7, 0xd1], false), "07d1".into());
        assert_eq!(typed(Kind::Address, &[0, 1, 10, 0, 0, 1], false), "10.0.0.1".into());
        assert_eq!(typed(Kind::Address, &[0, 1, 10, 0], false), "00010a00".into());
        assert_eq!(typed(Kind::Time, &0xe000_0000_u32.to_be_bytes(), false), "2019-02-02T11:39:44.000000000Z".into());
        assert_eq!(typed(Kind::Digits, &[0x21, 0x43, 0xf5], false), "12345".into());
        assert_eq!(typed(Kind::Secret, b"x", false), text::HIDDEN.into());
    }

    #[test]
    fn lengths_that_lie_end_the_list() {
        // A length that does not cover the header, and one that goes too far.
        for length in [4, 100] {
            let bytes = [0, 0, 1, 8, 0x40, 0, 0, length, 0, 0, 0, 0];
            let mut avps = Avps::new(&bytes);
            assert!(avps.next().unwrap().is_err());
            assert!(avps.next().is_none());
        }
        let bytes = [0, 0, 1, 8, 0x40, 0, 0, 9, b'h'];
        assert_eq!(find(&bytes, ORIGIN_HOST), Some(&b"h"[..]));
    }
}
