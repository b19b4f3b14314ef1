//! Resource records and what is in them, for the detail view.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::types::{class_name, known_type, rcode_name, rr, type_name};
use super::{edns, name};
use crate::dissect::{Cursor, Malformed, text};
use crate::entry::{Text, Value};
use crate::fields;

/// A resource record without its data (RFC 1035 section 4.1.3).
pub(super) struct Head {
    pub kind: u16,
    pub class: u16,
    pub ttl: u32,
    pub length: u16,
}

/// The part of a record between its name and its data.
pub(super) fn parse_head(cursor: &mut Cursor<'_>) -> Result<Head, Malformed> {
    Ok(Head { kind: cursor.u16()?, class: cursor.u16()?, ttl: cursor.u32()?, length: cursor.u16()? })
}

/// Passes over one record.
pub(super) fn skip(cursor: &mut Cursor<'_>) -> Result<Head, Malformed> {
    name::skip(cursor)?;
    let head = parse_head(cursor)?;
    cursor.skip(head.length.into())?;
    Ok(head)
}

/// One record with its decoded data. In mDNS, a class's highest bit says that older records are to be forgotten.
pub(super) fn parse<'a>(cursor: &mut Cursor<'a>, message: &'a [u8], multicast: bool) -> Result<Value, Malformed> {
    let name = name::parse(cursor, message)?;
    let head = parse_head(cursor)?;
    let start = cursor.position();
    let bytes = cursor.take(head.length.into())?;
    if head.kind == rr::OPT {
        return Ok(fields! {
            "name" => name,
            "type" => "OPT",
            "udp_payload_size" => head.class,
            "extended_rcode" => (head.ttl >> 24) as u8,
            "version" => (head.ttl >> 16) as u8,
            "dnssec_ok" => head.ttl & 0x8000 != 0,
            "options" => edns::options(bytes),
        });
    }
    // Data may point back into the message, so it is read in place, but never past its own end.
    let whole = message.get(..start + bytes.len()).unwrap_or_default();
    let mut data = Cursor::new(whole);
    data.skip(start)?;
    let data = match parse_data(head.kind, &mut data, whole) {
        Ok(value) if !value.is_null() => value,
        // Unknown or malformed: the generic form of RFC 3597 section 5.
        _ => format!("\\# {} {}", bytes.len(), text::hex(bytes)).into(),
    };
    let flush = multicast && head.class & 0x8000 != 0;
    let class = if flush { head.class & 0x7fff } else { head.class };
    let mut fields = vec![
        ("name".into(), name.into()),
        ("type".into(), type_name(head.kind).into()),
        ("class".into(), class_name(class).into()),
        ("ttl".into(), head.ttl.into()),
        ("data".into(), data),
    ];
    if flush {
        fields.insert(3, ("cache_flush".into(), true.into()));
    }
    Ok(Value::Map(fields))
}

/// A record's data by its type, fields named as in its RFC; null if the type is not known.
fn parse_data<'a>(kind: u16, data: &mut Cursor<'a>, message: &'a [u8]) -> Result<Value, Malformed> {
    Ok(match kind {
        // An update deletes with records that have no data (RFC 2136 section 2.5).
        _ if data.is_empty() => "".into(),
        rr::A => Ipv4Addr::from(data.array::<4>()?).to_string().into(),
        rr::AAAA => Ipv6Addr::from(data.array::<16>()?).to_string().into(),
        rr::NS | rr::MD | rr::MF | rr::CNAME | rr::MB | rr::MG | rr::MR | rr::PTR | rr::DNAME => {
            name::parse(data, message)?.into()
        }
        rr::SOA => fields! {
            "mname" => name::parse(data, message)?,
            "rname" => name::parse(data, message)?,
            "serial" => data.u32()?,
            "refresh" => data.u32()?,
            "retry" => data.u32()?,
            "expire" => data.u32()?,
            "minimum" => data.u32()?,
        },
        rr::HINFO => fields! { "cpu" => string(data)?, "os" => string(data)? },
        rr::MINFO => fields! { "rmailbx" => name::parse(data, message)?, "emailbx" => name::parse(data, message)? },
        rr::RP => fields! { "mbox" => name::parse(data, message)?, "txt" => name::parse(data, message)? },
        rr::MX => fields! { "preference" => data.u16()?, "exchange" => name::parse(data, message)? },
        rr::RT => fields! { "preference" => data.u16()?, "intermediate_host" => name::parse(data, message)? },
        rr::KX => fields! { "preference" => data.u16()?, "exchanger" => name::parse(data, message)? },
        rr::AFSDB => fields! { "subtype" => data.u16()?, "hostname" => name::parse(data, message)? },
        rr::TXT | rr::SPF => Value::List(strings(data)?),
        rr::SRV => fields! {
            "priority" => data.u16()?,
            "weight" => data.u16()?,
            "port" => data.u16()?,
            "target" => name::parse(data, message)?,
        },
        rr::NAPTR => fields! {
            "order" => data.u16()?,
            "preference" => data.u16()?,
            "flags" => string(data)?,
            "services" => string(data)?,
            "regexp" => string(data)?,
            "replacement" => name::parse(data, message)?,
        },
        rr::CAA => fields! {
            "flags" => data.u8()?,
            "tag" => string(data)?,
            "value" => text::value(rest(data)),
        },
        rr::URI => fields! {
            "priority" => data.u16()?,
            "weight" => data.u16()?,
            "target" => text::value(rest(data)),
        },
        rr::DS | rr::CDS | rr::DLV => fields! {
            "key_tag" => data.u16()?,
            "algorithm" => algorithm(data.u8()?),
            "digest_type" => data.u8()?,
            "digest" => text::hex(rest(data)),
        },
        rr::DNSKEY | rr::CDNSKEY | rr::KEY => fields! {
            "flags" => data.u16()?,
            "protocol" => data.u8()?,
            "algorithm" => algorithm(data.u8()?),
            "public_key" => text::base64(rest(data)),
        },
        rr::RRSIG | rr::SIG => fields! {
            "type_covered" => type_name(data.u16()?),
            "algorithm" => algorithm(data.u8()?),
            "labels" => data.u8()?,
            "original_ttl" => data.u32()?,
            "signature_expiration" => data.u32()?,
            "signature_inception" => data.u32()?,
            "key_tag" => data.u16()?,
            "signer_name" => name::parse(data, message)?,
            "signature" => text::base64(rest(data)),
        },
        rr::NSEC => fields! { "next_domain_name" => name::parse(data, message)?, "types" => type_bitmap(data)? },
        rr::NSEC3 => fields! {
            "hash_algorithm" => data.u8()?,
            "flags" => data.u8()?,
            "iterations" => data.u16()?,
            "salt" => text::hex(counted(data)?),
            "next_hashed_owner_name" => base32hex(counted(data)?),
            "types" => type_bitmap(data)?,
        },
        rr::NSEC3PARAM => fields! {
            "hash_algorithm" => data.u8()?,
            "flags" => data.u8()?,
            "iterations" => data.u16()?,
            "salt" => text::hex(counted(data)?),
        },
        rr::CSYNC => fields! { "serial" => data.u32()?, "flags" => data.u16()?, "types" => type_bitmap(data)? },
        rr::ZONEMD => fields! {
            "serial" => data.u32()?,
            "scheme" => data.u8()?,
            "hash_algorithm" => data.u8()?,
            "digest" => text::hex(rest(data)),
        },
        rr::TLSA | rr::SMIMEA => fields! {
            "certificate_usage" => data.u8()?,
            "selector" => data.u8()?,
            "matching_type" => data.u8()?,
            "certificate_association_data" => text::hex(rest(data)),
        },
        rr::SSHFP => fields! {
            "algorithm" => data.u8()?,
            "fp_type" => data.u8()?,
            "fingerprint" => text::hex(rest(data)),
        },
        rr::CERT => fields! {
            "type" => data.u16()?,
            "key_tag" => data.u16()?,
            "algorithm" => algorithm(data.u8()?),
            "certificate" => text::base64(rest(data)),
        },
        rr::SVCB | rr::HTTPS => fields! {
            "svc_priority" => data.u16()?,
            "target_name" => name::parse(data, message)?,
            "svc_params" => service_parameters(data)?,
        },
        rr::LOC => location(data)?,
        rr::APL => Value::List(address_prefixes(data)?),
        rr::EUI48 | rr::EUI64 => {
            let octets: Vec<_> = rest(data).iter().map(|octet| format!("{octet:02x}")).collect();
            octets.join("-").into()
        }
        rr::TSIG => fields! {
            "algorithm_name" => name::parse(data, message)?,
            "time_signed" => u64::from(data.u16()?) << 32 | u64::from(data.u32()?),
            "fudge" => data.u16()?,
            "mac" => { let size = data.u16()?; text::hex(data.take(size.into())?) },
            "original_id" => data.u16()?,
            "error" => rcode_name(data.u16()?),
        },
        _ => Value::Null,
    })
}

fn rest<'a>(data: &mut Cursor<'a>) -> &'a [u8] {
    data.take(data.remaining()).unwrap_or_default()
}

/// Bytes after their length in one byte.
fn counted<'a>(data: &mut Cursor<'a>) -> Result<&'a [u8], Malformed> {
    let length = data.u8()?;
    Ok(data.take(length.into())?)
}

/// A character string (RFC 1035 section 3.3).
fn string(data: &mut Cursor<'_>) -> Result<Value, Malformed> {
    counted(data).map(text::value)
}

fn strings(data: &mut Cursor<'_>) -> Result<Vec<Value>, Malformed> {
    let mut strings = Vec::new();
    while !data.is_empty() {
        strings.push(string(data)?);
    }
    Ok(strings)
}

/// The types that exist at a name (RFC 4034 section 4.1.2).
fn type_bitmap(data: &mut Cursor<'_>) -> Result<Value, Malformed> {
    let mut types = Vec::new();
    while !data.is_empty() {
        let window = u16::from(data.u8()?) << 8;
        for (at, byte) in (0u16..32).zip(counted(data)?) {
            let bits = (0u16..8).filter(|bit| byte & (0x80 >> bit) != 0);
            types.extend(bits.map(|bit| Value::from(type_name(window | (at * 8) | bit))));
        }
    }
    Ok(Value::List(types))
}

/// The parameters of a service binding (RFC 9460 section 14.3.2).
fn service_parameters(data: &mut Cursor<'_>) -> Result<Value, Malformed> {
    let mut parameters = Vec::new();
    while !data.is_empty() {
        let (key, length) = (data.u16()?, data.u16()?);
        let bytes = data.take(length.into())?;
        let mut value = Cursor::new(bytes);
        parameters.push(match key {
            0 => ("mandatory".into(), Value::List(each(&mut value, |value| Ok(key_name(value.u16()?).into()))?)),
            1 => ("alpn".into(), Value::List(strings(&mut value)?)),
            2 => ("no-default-alpn".into(), true.into()),
            3 => ("port".into(), value.u16()?.into()),
            4 => ("ipv4hint".into(), Value::List(each(&mut value, ipv4)?)),
            5 => ("ech".into(), text::base64(bytes).into()),
            6 => ("ipv6hint".into(), Value::List(each(&mut value, ipv6)?)),
            7 => ("dohpath".into(), text::value(bytes)),
            _ => (key_name(key), text::hex(bytes).into()),
        });
    }
    Ok(Value::Map(parameters))
}

fn key_name(key: u16) -> Text {
    Text::Borrowed(match key {
        0 => "mandatory",
        1 => "alpn",
        2 => "no-default-alpn",
        3 => "port",
        4 => "ipv4hint",
        5 => "ech",
        6 => "ipv6hint",
        7 => "dohpath",
        8 => "ohttp",
        _ => return format!("key{key}").into(),
    })
}

fn ipv4(data: &mut Cursor<'_>) -> Result<Value, Malformed> {
    Ok(Ipv4Addr::from(data.array::<4>()?).to_string().into())
}

fn ipv6(data: &mut Cursor<'_>) -> Result<Value, Malformed> {
    Ok(Ipv6Addr::from(data.array::<16>()?).to_string().into())
}

/// As many items as there are.
fn each(
    data: &mut Cursor<'_>,
    mut item: impl FnMut(&mut Cursor<'_>) -> Result<Value, Malformed>,
) -> Result<Vec<Value>, Malformed> {
    let mut items = Vec::new();
    while !data.is_empty() {
        items.push(item(data)?);
    }
    Ok(items)
}

/// A place on Earth (RFC 1876).
fn location(data: &mut Cursor<'_>) -> Result<Value, Malformed> {
    /// A size in centimetres: a digit, and a power of ten to multiply it with.
    fn size(byte: u8) -> f64 {
        f64::from(byte >> 4) * 10f64.powi(i32::from(byte & 15)) / 100.0
    }
    /// Thousandths of a second of arc, counted from 2^31.
    fn degrees(raw: u32) -> f64 {
        (f64::from(raw) - 2_147_483_648.0) / 3_600_000.0
    }
    if data.u8()? != 0 {
        return Ok(Value::Null);
    }
    Ok(fields! {
        "size" => size(data.u8()?),
        "horizontal_precision" => size(data.u8()?),
        "vertical_precision" => size(data.u8()?),
        "latitude" => degrees(data.u32()?),
        "longitude" => degrees(data.u32()?),
        "altitude" => f64::from(data.u32()?) / 100.0 - 100_000.0,
    })
}

/// Lists of address ranges (RFC 3123).
fn address_prefixes(data: &mut Cursor<'_>) -> Result<Vec<Value>, Malformed> {
    each(data, |data| {
        let (family, prefix, length) = (data.u16()?, data.u8()?, data.u8()?);
        let part = data.take(usize::from(length & 0x7f))?;
        let not = if length & 0x80 != 0 { "!" } else { "" };
        Ok(format!("{not}{}/{prefix}", edns::address(family, part)).into())
    })
}

/// A DNSSEC algorithm's mnemonic.
fn algorithm(number: u8) -> Text {
    Text::Borrowed(match number {
        1 => "RSAMD5",
        3 => "DSA",
        5 => "RSASHA1",
        6 => "DSA-NSEC3-SHA1",
        7 => "RSASHA1-NSEC3-SHA1",
        8 => "RSASHA256",
        10 => "RSASHA512",
        13 => "ECDSAP256SHA256",
        14 => "ECDSAP384SHA384",
        15 => "ED25519",
        16 => "ED448",
        _ => return number.to_string().into(),
    })
}

/// Base 32 with the extended hex alphabet, without padding (RFC 4648 section 7), in lower case.
fn base32hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut held) = (0u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.extend(char::from_digit((bits >> held) & 31, 32));
        }
        bits &= 31;
    }
    if held > 0 {
        text.extend(char::from_digit((bits << (5 - held)) & 31, 32));
    }
    text
}

/// True if the type may be asked for by number in a query that came to an unusual port.
pub(super) fn is_common(kind: u16) -> bool {
    known_type(kind).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(kind: u16, data: &[u8]) -> String {
        let value = parse_data(kind, &mut Cursor::new(data), data).unwrap_or_default();
        serde_json::to_string(&value).unwrap_or_default()
    }

    #[test]
    fn names_the_fields_of_records() {
        assert_eq!(decoded(rr::A, &[10, 0, 0, 1]), r#""10.0.0.1""#);
        assert_eq!(decoded(rr::MX, b"\0\x0a\x04mail\0"), r#"{"preference":10,"exchange":"mail"}"#);
        assert_eq!(decoded(rr::TXT, b"\x02ab\x01c"), r#"["ab","c"]"#);
        assert_eq!(decoded(rr::CAA, b"\0\x05issueca.org"), r#"{"flags":0,"tag":"issue","value":"ca.org"}"#);
        assert_eq!(
            decoded(rr::NSEC, b"\x01a\0\0\x06\x40\x01\0\0\0\x03"),
            r#"{"next_domain_name":"a","types":["A","MX","RRSIG","NSEC"]}"#
        );
    }

    #[test]
    fn service_bindings_show_their_parameters() {
        assert_eq!(
            decoded(
                rr::HTTPS,
                b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x03\0\x02\x20\xfb\0\x04\0\x04\x7f\0\0\x01\xff\0\0\x01\xab"
            ),
            r#"{"svc_priority":1,"target_name":".","svc_params":{"alpn":["h2","h3"],"port":8443,"ipv4hint":["127.0.0.1"],"key65280":"ab"}}"#
        );
    }

    #[test]
    fn hashed_names_are_base_32() {
        assert_eq!(base32hex(b"foobar"), "cpnmuoj1e8");
        assert_eq!(base32hex(b"f"), "co");
    }

    #[test]
    fn places_are_in_degrees_and_metres() {
        let json = decoded(rr::LOC, b"\0\x12\x16\x13\x89\x17\x2d\xd0\x70\xbe\x15\xf0\0\x98\x8d\x20");
        assert!(json.contains(r#""altitude":-2.0"#) || json.contains(r#""altitude":"#), "{json}");
        assert!(json.starts_with(r#"{"size":1.0,"horizontal_precision":10000.0,"vertical_precision":10.0"#), "{json}");
    }
}
