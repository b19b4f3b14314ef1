//! What ICMP messages say, field by field, named as in their RFCs.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::types::{Family, code_name};
use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Value};
use crate::fields;

/// The most bytes shown of an echo's data and of what is not decoded.
const MAX_DATA: usize = 64;

type Fields = Vec<(Text, Value)>;

/// Every field of a message; a message that ends too early gives those that are there.
pub(super) fn decode(family: Family, kind: u8, code: u8, bytes: &[u8]) -> Value {
    let mut cursor = Cursor::new(bytes);
    let mut fields = vec![("type".into(), kind.into()), ("code".into(), code.into())];
    if let Some(name) = code_name(family, kind, code) {
        fields.push(("code_name".into(), name.into()));
    }
    let _ = cursor.skip(2);
    if let Ok(checksum) = cursor.u16() {
        fields.push(("checksum".into(), format!("{checksum:#06x}").into()));
    }
    let _ = match family {
        Family::V4 => v4(kind, code, &mut cursor, &mut fields),
        Family::V6 => v6(kind, &mut cursor, &mut fields),
    };
    if family.quotes(kind) {
        let mut quoted = Cursor::new(bytes);
        if quoted.skip(8).is_ok()
            && let Ok(packet) = quote(quoted)
        {
            fields.push(("quoted_packet".into(), packet));
        }
    }
    Value::Map(fields)
}

fn v4(kind: u8, code: u8, cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Short> {
    let mut add = |name: &'static str, value: Value| fields.push((name.into(), value));
    match (kind, code) {
        (0 | 8, _) => {
            add("identifier", cursor.u16()?.into());
            add("sequence_number", cursor.u16()?.into());
            add("data", data(cursor.rest()));
        }
        (3, 4) => {
            cursor.skip(2)?;
            add("next_hop_mtu", cursor.u16()?.into());
        }
        (5, _) => add("gateway_internet_address", ipv4(cursor)?),
        (9, _) => {
            let (count, size) = (cursor.u8()?, cursor.u8()?);
            add("lifetime", cursor.u16()?.into());
            let mut routers = Vec::new();
            for _ in 0..count {
                let address = ipv4(cursor)?;
                let preference = cursor.i32()?;
                cursor.skip(usize::from(size.saturating_sub(2)) * 4)?;
                routers.push(fields! { "router_address" => address, "preference_level" => preference });
            }
            add("routers", routers.into());
        }
        (12, _) => add("pointer", cursor.u8()?.into()),
        (13 | 14, _) => {
            add("identifier", cursor.u16()?.into());
            add("sequence_number", cursor.u16()?.into());
            // Milliseconds since midnight UT.
            add("originate_timestamp", cursor.u32()?.into());
            add("receive_timestamp", cursor.u32()?.into());
            add("transmit_timestamp", cursor.u32()?.into());
        }
        (15 | 16, _) => {
            add("identifier", cursor.u16()?.into());
            add("sequence_number", cursor.u16()?.into());
        }
        (17 | 18, _) => {
            add("identifier", cursor.u16()?.into());
            add("sequence_number", cursor.u16()?.into());
            add("address_mask", ipv4(cursor)?);
        }
        _ => {}
    }
    Ok(())
}

fn v6(kind: u8, cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Short> {
    let mut add = |name: &'static str, value: Value| fields.push((name.into(), value));
    match kind {
        2 => add("mtu", cursor.u32()?.into()),
        4 => add("pointer", cursor.u32()?.into()),
        128 | 129 => {
            add("identifier", cursor.u16()?.into());
            add("sequence_number", cursor.u16()?.into());
            add("data", data(cursor.rest()));
        }
        130..=132 => {
            add("maximum_response_delay", cursor.u16()?.into());
            cursor.skip(2)?;
            add("multicast_address", ipv6(cursor)?);
            // The second version of a query has more (RFC 3810 section 5.1).
            if kind == 130 && !cursor.is_empty() {
                let flags = cursor.u8()?;
                add("suppress_router_side_processing", (flags & 8 != 0).into());
                add("querier_robustness_variable", (flags & 7).into());
                add("querier_query_interval_code", cursor.u8()?.into());
                let count = cursor.u16()?;
                add("source_addresses", addresses(cursor, count)?);
            }
        }
        133 => {
            cursor.skip(4)?;
            add("options", options(cursor));
        }
        134 => {
            add("cur_hop_limit", cursor.u8()?.into());
            let flags = cursor.u8()?;
            add("managed", (flags & 0x80 != 0).into());
            add("other_config", (flags & 0x40 != 0).into());
            add("router_lifetime", cursor.u16()?.into());
            add("reachable_time", cursor.u32()?.into());
            add("retrans_timer", cursor.u32()?.into());
            add("options", options(cursor));
        }
        135 => {
            cursor.skip(4)?;
            add("target_address", ipv6(cursor)?);
            add("options", options(cursor));
        }
        136 => {
            let flags = cursor.u32()?;
            add("router", (flags & 0x8000_0000 != 0).into());
            add("solicited", (flags & 0x4000_0000 != 0).into());
            add("override", (flags & 0x2000_0000 != 0).into());
            add("target_address", ipv6(cursor)?);
            add("options", options(cursor));
        }
        137 => {
            cursor.skip(4)?;
            add("target_address", ipv6(cursor)?);
            add("destination_address", ipv6(cursor)?);
            add("options", options(cursor));
        }
        143 => {
            cursor.skip(2)?;
            let count = cursor.u16()?;
            let mut records = Vec::new();
            for _ in 0..count {
                let (kind, auxiliary, sources) = (cursor.u8()?, cursor.u8()?, cursor.u16()?);
                records.push(fields! {
                    "record_type" => record_type(kind),
                    "multicast_address" => ipv6(cursor)?,
                    "source_addresses" => addresses(cursor, sources)?,
                });
                cursor.skip(usize::from(auxiliary) * 4)?;
            }
            add("multicast_address_records", records.into());
        }
        _ => {}
    }
    Ok(())
}

/// The options of neighbor discovery (RFC 4861 section 4.6), each of some multiple of eight bytes.
fn options(cursor: &mut Cursor<'_>) -> Value {
    let mut options = Vec::new();
    while let (Ok(kind), Ok(units @ 1..)) = (cursor.u8(), cursor.u8()) {
        let Ok(bytes) = cursor.take(usize::from(units) * 8 - 2) else { break };
        let value = option(kind, &mut Cursor::new(bytes)).unwrap_or_else(|Short| data(bytes));
        options.push((option_name(kind), value));
    }
    Value::Map(options)
}

fn option(kind: u8, cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    Ok(match kind {
        1 | 2 => {
            let octets: Vec<_> = cursor.rest().iter().map(|octet| format!("{octet:02x}")).collect();
            octets.join(":").into()
        }
        3 => {
            let (length, flags) = (cursor.u8()?, cursor.u8()?);
            let (valid, preferred) = (cursor.u32()?, cursor.u32()?);
            cursor.skip(4)?;
            fields! {
                "prefix" => ipv6(cursor)?,
                "prefix_length" => length,
                "on_link" => flags & 0x80 != 0,
                "autonomous" => flags & 0x40 != 0,
                "valid_lifetime" => valid,
                "preferred_lifetime" => preferred,
            }
        }
        4 => {
            cursor.skip(6)?;
            quote(*cursor)?
        }
        5 => {
            cursor.skip(2)?;
            cursor.u32()?.into()
        }
        25 => {
            cursor.skip(2)?;
            let lifetime = cursor.u32()?;
            let count = cursor.remaining() / 16;
            fields! { "lifetime" => lifetime, "addresses" => addresses(cursor, count as u16)? }
        }
        _ => data(cursor.rest()),
    })
}

fn option_name(kind: u8) -> Text {
    Text::Borrowed(match kind {
        1 => "source_link_layer_address",
        2 => "target_link_layer_address",
        3 => "prefix_information",
        4 => "redirected_header",
        5 => "mtu",
        14 => "nonce",
        24 => "route_information",
        25 => "recursive_dns_server",
        31 => "dns_search_list",
        38 => "pref64",
        _ => return format!("option_{kind}").into(),
    })
}

fn record_type(kind: u8) -> Value {
    match kind {
        1 => "MODE_IS_INCLUDE".into(),
        2 => "MODE_IS_EXCLUDE".into(),
        3 => "CHANGE_TO_INCLUDE_MODE".into(),
        4 => "CHANGE_TO_EXCLUDE_MODE".into(),
        5 => "ALLOW_NEW_SOURCES".into(),
        6 => "BLOCK_OLD_SOURCES".into(),
        _ => kind.into(),
    }
}

/// The start of a packet that an error is about: who sent it to whom.
fn quote(mut cursor: Cursor<'_>) -> Result<Value, Short> {
    let start = cursor;
    let (source, destination, protocol) = match cursor.u8()? {
        first @ 0x45..=0x4f => {
            cursor.skip(8)?;
            let protocol = cursor.u8()?;
            cursor.skip(2)?;
            let addresses = (ipv4(&mut cursor)?, ipv4(&mut cursor)?);
            cursor.skip(usize::from(first & 15) * 4 - 20)?;
            (addresses.0, addresses.1, protocol)
        }
        0x60..=0x6f => {
            cursor.skip(5)?;
            let protocol = cursor.u8()?;
            cursor.skip(1)?;
            (ipv6(&mut cursor)?, ipv6(&mut cursor)?, protocol)
        }
        _ => return Ok(data(start.rest())),
    };
    let mut fields =
        vec![("source".into(), source), ("destination".into(), destination), ("protocol".into(), protocol.into())];
    if matches!(protocol, 6 | 17 | 132) {
        fields.push(("source_port".into(), cursor.u16()?.into()));
        fields.push(("destination_port".into(), cursor.u16()?.into()));
    }
    Ok(Value::Map(fields))
}

fn ipv4(cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    Ok(Ipv4Addr::from(cursor.array::<4>()?).to_string().into())
}

fn ipv6(cursor: &mut Cursor<'_>) -> Result<Value, Short> {
    Ok(Ipv6Addr::from(cursor.array::<16>()?).to_string().into())
}

fn addresses(cursor: &mut Cursor<'_>, count: u16) -> Result<Value, Short> {
    (0..count).map(|_| ipv6(cursor)).collect::<Result<Vec<_>, _>>().map(Value::List)
}

/// Size and first bytes.
fn data(bytes: &[u8]) -> Value {
    fields! { "size" => bytes.len(), "hex" => text::hex(bytes.get(..MAX_DATA).unwrap_or(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(family: Family, bytes: &[u8]) -> String {
        let (kind, code) = (bytes.first().copied().unwrap_or(0), bytes.get(1).copied().unwrap_or(0));
        serde_json::to_string(&decode(family, kind, code, bytes)).unwrap_or_default()
    }

    #[test]
    fn an_error_says_whose_packet_it_is_about() {
        let bytes = b"\x03\x03\xab\xcd\0\0\0\0\x45\0\0\x20\0\0\0\0\x40\x11\0\0\x0a\0\0\x01\x0a\0\0\x02\x9c\x40\0\x35";
        assert_eq!(
            json(Family::V4, bytes),
            concat!(
                r#"{"type":3,"code":3,"code_name":"port unreachable","checksum":"0xabcd","quoted_packet":{"source":"10.0.0.1","#,
                r#""destination":"10.0.0.2","protocol":17,"source_port":40000,"destination_port":53}}"#
            )
        );
    }

    #[test]
    fn neighbors_tell_their_link_layer_addresses() {
        let mut bytes = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend([2, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(
            json(Family::V6, &bytes),
            concat!(
                r#"{"type":136,"code":0,"checksum":"0x0000","router":false,"solicited":true,"override":true,"#,
                r#""target_address":"::1","options":{"target_link_layer_address":"02:00:00:00:00:09"}}"#
            )
        );
    }

    #[test]
    fn a_message_that_is_cut_off_shows_what_is_there() {
        assert_eq!(
            json(Family::V6, &[134, 0, 0, 1, 64]),
            r#"{"type":134,"code":0,"checksum":"0x0001","cur_hop_limit":64}"#
        );
        assert_eq!(json(Family::V4, &[8]), r#"{"type":8,"code":0}"#);
    }
}
