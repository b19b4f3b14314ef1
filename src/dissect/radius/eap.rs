//! The EAP packet (RFC 3748) that `EAP-Message` attributes carry.

use super::attribute::Attributes;
use crate::dissect::{Cursor, Short, text};
use crate::entry::Value;

/// The type of the attributes that carry it, a piece each.
const EAP_MESSAGE: u8 = 79;
/// The most bytes of an EAP packet that are put together: its header and an identity.
const MAX_EAP: usize = 1024;

/// The fields of the packet's EAP message, if it has one.
pub(super) fn detail(attributes: &[u8]) -> Option<Value> {
    let mut packet = Vec::new();
    for (_, piece) in Attributes::new(attributes).flatten().filter(|(kind, _)| *kind == EAP_MESSAGE) {
        packet.extend_from_slice(piece.get(..MAX_EAP.saturating_sub(packet.len())).unwrap_or(piece));
        if packet.len() >= MAX_EAP {
            break;
        }
    }
    if packet.is_empty() { None } else { parse(&packet).ok() }
}

fn parse(packet: &[u8]) -> Result<Value, Short> {
    let mut cursor = Cursor::new(packet);
    let code = cursor.u8()?;
    let mut fields = vec![
        ("code".into(), code_name(code).map_or_else(|| code.into(), Value::from)),
        ("identifier".into(), cursor.u8()?.into()),
        ("length".into(), cursor.u16()?.into()),
    ];
    if matches!(code, 1 | 2)
        && let Ok(method) = cursor.u8()
    {
        fields.push(("type".into(), method_name(method).map_or_else(|| method.into(), Value::from)));
        match method {
            1 => fields.push(("identity".into(), text::value(cursor.rest()))),
            3 => {
                let desired =
                    cursor.rest().iter().map(|method| method_name(*method).map_or((*method).into(), Value::from));
                fields.push(("desired".into(), Value::List(desired.collect())));
            }
            _ => {}
        }
    }
    Ok(Value::Map(fields))
}

fn code_name(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "Request",
        2 => "Response",
        3 => "Success",
        4 => "Failure",
        5 => "Initiate",
        6 => "Finish",
        _ => return None,
    })
}

fn method_name(method: u8) -> Option<&'static str> {
    Some(match method {
        1 => "Identity",
        2 => "Notification",
        3 => "Legacy Nak",
        4 => "MD5-Challenge",
        5 => "One-Time Password",
        6 => "Generic Token Card",
        13 => "EAP-TLS",
        17 => "LEAP",
        18 => "EAP-SIM",
        21 => "EAP-TTLS",
        23 => "EAP-AKA",
        25 => "PEAP",
        26 => "MS-EAP-Authentication",
        29 => "EAP-MSCHAP-V2",
        43 => "EAP-FAST",
        47 => "EAP-PSK",
        48 => "EAP-SAKE",
        49 => "EAP-IKEv2",
        50 => "EAP-AKA'",
        51 => "EAP-GPSK",
        52 => "EAP-pwd",
        55 => "TEAP",
        254 => "Expanded",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;

    #[test]
    fn pieces_are_put_together() {
        let value = detail(&[79, 6, 2, 7, 0, 8, 79, 6, 1, b'b', b'o', b'b']);
        let expected = fields! { "code" => "Response", "identifier" => 7u8, "length" => 8u16, "type" => "Identity", "identity" => "bob" };
        assert_eq!(value, Some(expected));
    }
}
