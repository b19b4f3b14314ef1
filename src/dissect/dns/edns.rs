//! The options of EDNS (RFC 6891).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dissect::{Cursor, Malformed, text};
use crate::entry::{Text, Value};
use crate::fields;

/// Every option of an OPT record's data, in order; what follows a malformed one is left out.
pub(super) fn options(data: &[u8]) -> Value {
    let mut cursor = Cursor::new(data);
    let mut options = Vec::new();
    while let (Ok(code), Ok(length)) = (cursor.u16(), cursor.u16()) {
        let Ok(bytes) = cursor.take(length.into()) else { break };
        let value = parse(code, bytes).unwrap_or_else(|_| text::hex(bytes).into());
        options.push((option_name(code), value));
    }
    Value::Map(options)
}

fn parse(code: u16, bytes: &[u8]) -> Result<Value, Malformed> {
    let mut cursor = Cursor::new(bytes);
    Ok(match code {
        3 => text::value(bytes),
        8 => {
            let (family, source, scope) = (cursor.u16()?, cursor.u8()?, cursor.u8()?);
            fields! {
                "address" => address(family, cursor.rest()),
                "source_prefix_length" => source,
                "scope_prefix_length" => scope,
            }
        }
        10 => fields! {
            "client" => text::hex(cursor.take(8)?),
            "server" => text::hex(cursor.rest()),
        },
        11 if bytes.is_empty() => Value::Null,
        // In units of 100 ms.
        11 => fields! { "timeout_ms" => u32::from(cursor.u16()?) * 100 },
        12 => fields! { "bytes" => bytes.len() },
        15 => {
            let code = cursor.u16()?;
            fields! {
                "info_code" => code,
                "purpose" => extended_error(code),
                "extra_text" => text::value(cursor.rest()),
            }
        }
        _ => text::hex(bytes).into(),
    })
}

/// An address of which the last zero bytes are left out; family 1 is IPv4, 2 is IPv6.
pub(super) fn address(family: u16, part: &[u8]) -> String {
    fn padded<const N: usize>(part: &[u8]) -> [u8; N] {
        let mut octets = [0; N];
        for (to, from) in octets.iter_mut().zip(part) {
            *to = *from;
        }
        octets
    }
    match family {
        1 if part.len() <= 4 => Ipv4Addr::from(padded::<4>(part)).to_string(),
        2 if part.len() <= 16 => Ipv6Addr::from(padded::<16>(part)).to_string(),
        _ => text::hex(part),
    }
}

/// An option's name as in the IANA registry, in lower case.
fn option_name(code: u16) -> Text {
    Text::Borrowed(match code {
        1 => "llq",
        2 => "update_lease",
        3 => "nsid",
        5 => "dau",
        6 => "dhu",
        7 => "n3u",
        8 => "client_subnet",
        9 => "expire",
        10 => "cookie",
        11 => "tcp_keepalive",
        12 => "padding",
        13 => "chain",
        14 => "key_tag",
        15 => "extended_dns_error",
        16 => "client_tag",
        17 => "server_tag",
        18 => "report_channel",
        19 => "zoneversion",
        _ => return format!("option_{code}").into(),
    })
}

/// What an extended error's code means (RFC 8914 section 4).
fn extended_error(code: u16) -> &'static str {
    match code {
        1 => "Unsupported DNSKEY Algorithm",
        2 => "Unsupported DS Digest Type",
        3 => "Stale Answer",
        4 => "Forged Answer",
        5 => "DNSSEC Indeterminate",
        6 => "DNSSEC Bogus",
        7 => "Signature Expired",
        8 => "Signature Not Yet Valid",
        9 => "DNSKEY Missing",
        10 => "RRSIGs Missing",
        11 => "No Zone Key Bit Set",
        12 => "NSEC Missing",
        13 => "Cached Error",
        14 => "Not Ready",
        15 => "Blocked",
        16 => "Censored",
        17 => "Filtered",
        18 => "Prohibited",
        19 => "Stale NXDOMAIN Answer",
        20 => "Not Authoritative",
        21 => "Not Supported",
        22 => "No Reachable Authority",
        23 => "Network Error",
        24 => "Invalid Data",
        _ => "Other Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_client_subnets_cookies_and_errors() {
        let data = b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02\0\x0a\0\x08abcdefgh\0\x0f\0\x05\0\x16why\xff\xff\0\x01\x07\0\x03\0\x09x";
        let json = serde_json::to_string(&options(data)).unwrap_or_default();
        assert_eq!(
            json,
            concat!(
                r#"{"client_subnet":{"address":"192.0.2.0","source_prefix_length":24,"scope_prefix_length":0},"#,
                r#""cookie":{"client":"6162636465666768","server":""},"#,
                r#""extended_dns_error":{"info_code":22,"purpose":"No Reachable Authority","extra_text":"why"},"#,
                r#""option_65535":"07"}"#
            )
        );
    }
}
