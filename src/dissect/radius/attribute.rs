//! Attributes: type, length, value (RFC 2865 section 5), and the data types of RFC 8044.

use super::dictionary::{self, Kind};
use super::vendor;
use crate::dissect::{Cursor, Short, text};
use crate::entry::{Timestamp, Value};
use crate::fields;

/// The type of the attribute with the user's name.
pub(super) const USER_NAME: u8 = 1;
/// The most attributes that the detail lists; more do not fit in a packet of 4096 bytes.
const MAX_ATTRIBUTES: usize = 2048;
/// The most attributes that one vendor-specific attribute is split into.
const MAX_VENDOR: usize = 126;

/// The attributes of a packet, up to the first that does not fit.
pub(super) struct Attributes<'a> {
    cursor: Cursor<'a>,
    broken: bool,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(bytes), broken: false }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u8, &'a [u8]), Short>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || self.cursor.is_empty() {
            return None;
        }
        let attribute = next(&mut self.cursor);
        self.broken = attribute.is_err();
        Some(attribute)
    }
}

/// A type and a value; the length counts both bytes before the value.
pub(super) fn next<'a>(cursor: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), Short> {
    let kind = cursor.u8()?;
    let length = usize::from(cursor.u8()?).checked_sub(2).ok_or(Short)?;
    Ok((kind, cursor.take(length)?))
}

/// The value of the first attribute of that type.
pub(super) fn find(attributes: &[u8], wanted: u8) -> Option<&[u8]> {
    Attributes::new(attributes).flatten().find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// All attributes in their order; false if some could not be read.
pub(super) fn detail(attributes: &[u8], secrets: bool) -> (Value, bool) {
    let mut list = Vec::new();
    let mut whole = true;
    for attribute in Attributes::new(attributes).take(MAX_ATTRIBUTES) {
        match attribute {
            Ok((kind, value)) => list.push(shown(kind, value, secrets)),
            Err(_) => whole = false,
        }
    }
    (Value::List(list), whole)
}

/// One attribute with its name and value.
fn shown(number: u8, value: &[u8], secrets: bool) -> Value {
    let Some((name, kind)) = dictionary::find(number) else {
        return fields! { "type" => number, "value" => text::octets(value) };
    };
    match kind {
        Kind::Vendor => return vendor_specific(name, value, secrets).unwrap_or_else(|_| unread(number, name, value)),
        Kind::Extended => return extended(number, name, value).unwrap_or_else(|_| unread(number, name, value)),
        Kind::TaggedText | Kind::TaggedInteger(_) | Kind::TaggedSecret => {
            // RFC 2868: a first byte up to 0x1f is a tag.
            if let Some((tag @ 0..=0x1f, rest)) = value.split_first() {
                let rest = if matches!(kind, Kind::TaggedInteger(_)) { value } else { rest };
                let shown = typed(kind, rest, secrets);
                return fields! { "type" => number, "name" => name, "tag" => *tag, "value" => shown };
            }
        }
        _ => {}
    }
    fields! { "type" => number, "name" => name, "value" => typed(kind, value, secrets) }
}

fn unread(number: u8, name: &'static str, value: &[u8]) -> Value {
    fields! { "type" => number, "name" => name, "value" => text::octets(value) }
}

/// A value of its type; bytes, if it does not have the length of that.
pub(super) fn typed(kind: Kind, value: &[u8], secrets: bool) -> Value {
    let mut cursor = Cursor::new(value);
    let parsed = match kind {
        Kind::Secret | Kind::TaggedSecret if !secrets => Ok(text::HIDDEN.into()),
        Kind::Text | Kind::TaggedText => Ok(text::value(value)),
        Kind::Integer => cursor.u32().map(Value::from),
        Kind::Integer64 => cursor.u64().map(Value::from),
        Kind::Named(names) => cursor.u32().map(|number| named(number, names)),
        // The first of its four bytes is the tag.
        Kind::TaggedInteger(names) => cursor.u32().map(|number| named(number & 0x00ff_ffff, names)),
        Kind::Time => cursor.u32().map(|seconds| Timestamp(i64::from(seconds) * 1_000_000_000).to_string().into()),
        Kind::Ipv4 => cursor.u32().map(|address| std::net::Ipv4Addr::from(address).to_string().into()),
        Kind::Ipv6 => cursor.array::<16>().map(|address| std::net::Ipv6Addr::from(address).to_string().into()),
        Kind::Ipv6Prefix => prefix6(&mut cursor),
        Kind::Ipv4Prefix => cursor
            .array::<6>()
            .map(|[_, length, address @ ..]| format!("{}/{}", std::net::Ipv4Addr::from(address), length & 0x3f).into()),
        _ => {
            cursor = Cursor::new(&[]);
            Ok(text::octets(value))
        }
    };
    match parsed {
        Ok(parsed)
            if cursor.is_empty()
                || matches!(kind, Kind::Text | Kind::TaggedText | Kind::Secret | Kind::TaggedSecret) =>
        {
            parsed
        }
        _ => text::octets(value),
    }
}

/// A number with the name that it has, if any.
fn named(number: u32, names: &[(u32, &'static str)]) -> Value {
    names.iter().find(|(value, _)| *value == number).map_or_else(|| number.into(), |(_, name)| (*name).into())
}

/// RFC 3162: a reserved byte, the prefix's length in bits, as many of its bytes as matter.
fn prefix6(cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    cursor.skip(1)?;
    let length = cursor.u8()?;
    let bytes = cursor.take(cursor.remaining().min(16))?;
    let mut address = [0; 16];
    address.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Ok(format!("{}/{length}", std::net::Ipv6Addr::from(address)).into())
}

/// RFC 2865 section 5.26: an enterprise number and, nearly always, attributes of the same form.
fn vendor_specific(name: &'static str, value: &[u8], secrets: bool) -> Result<Value, Short> {
    let mut cursor = Cursor::new(value);
    let id = cursor.u32()?;
    let mut fields = vec![("type".into(), 26u8.into()), ("name".into(), name.into()), ("vendor_id".into(), id.into())];
    if let Some(vendor) = vendor::name(id) {
        fields.push(("vendor".into(), vendor.into()));
    }
    let rest = cursor.rest();
    let list: Result<Vec<_>, Short> = Attributes::new(rest)
        .take(MAX_VENDOR)
        .map(|attribute| {
            attribute.map(|(number, value)| match vendor::attribute(id, number) {
                Some((name, kind)) => {
                    fields! { "type" => number, "name" => name, "value" => typed(kind, value, secrets) }
                }
                None => fields! { "type" => number, "value" => text::octets(value) },
            })
        })
        .collect();
    fields.push(match list {
        Ok(list) if !list.is_empty() => ("attributes".into(), Value::List(list)),
        // Some vendors have forms of their own.
        _ => ("value".into(), text::octets(rest)),
    });
    Ok(Value::Map(fields))
}

/// RFC 6929: the type goes on in the value; the long form has flags behind it.
fn extended(number: u8, name: &'static str, value: &[u8]) -> Result<Value, Short> {
    let mut cursor = Cursor::new(value);
    let mut fields = vec![
        ("type".into(), number.into()),
        ("name".into(), name.into()),
        ("extended_type".into(), cursor.u8()?.into()),
    ];
    if number >= 245 {
        fields.push(("more".into(), (cursor.u8()? & 0x80 != 0).into()));
    }
    fields.push(("value".into(), text::octets(cursor.rest())));
    Ok(Value::Map(fields))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_types() {
        assert_eq!(typed(Kind::Ipv4, &[10, 0, 0, 1], false), "10.0.0.1".into());
        assert_eq!(typed(Kind::Ipv4, &[10, 0], false), "0a00".into());
        assert_eq!(typed(Kind::Ipv6Prefix, &[0, 64, 0x20, 0x01, 0x0d, 0xb8], false), "2001:db8::/64".into());
        assert_eq!(typed(Kind::Secret, b"x", false), text::HIDDEN.into());
        assert_eq!(typed(Kind::Time, &[0, 0, 0, 1], false), "1970-01-01T00:00:01.000000000Z".into());
    }

    #[test]
    fn a_length_that_does_not_cover_itself_ends_the_list() {
        let mut attributes = Attributes::new(&[1, 3, b'a', 2, 1, 0]);
        assert_eq!(attributes.next().unwrap(), Ok((1, &b"a"[..])));
        assert_eq!(attributes.next().unwrap(), Err(Short));
        assert!(attributes.next().is_none());
    }
}
