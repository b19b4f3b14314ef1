//! Transport parameters (RFC 9000 section 18), which travel in an extension of the `ClientHello`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::packet::{counted, varint};
use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Value};
use crate::fields;

/// The extension's number, in the standard and in its drafts.
pub(super) const EXTENSIONS: [u16; 2] = [57, 0xffa5];

/// Every parameter, by its name in the IANA registry; those that only test tolerance are left out.
pub(super) fn decode(data: &[u8]) -> Value {
    let mut cursor = Cursor::new(data);
    let mut parameters = Vec::new();
    while let (Ok(id), Ok(bytes)) = (varint(&mut cursor), counted(&mut cursor)) {
        if id % 31 != 27 {
            parameters.push((name(id), value(id, bytes).unwrap_or_else(|Short| text::hex(bytes).into())));
        }
    }
    Value::Map(parameters)
}

fn value(id: u64, bytes: &[u8]) -> Result<Value, Short> {
    let mut cursor = Cursor::new(bytes);
    Ok(match id {
        1 | 3..=0x0b | 0x0e | 0x20 => varint(&mut cursor)?.into(),
        0x0c | 0x2ab2 if bytes.is_empty() => true.into(),
        0x0d => fields! {
            "ipv4_address" => Ipv4Addr::from(cursor.array::<4>()?).to_string(),
            "ipv4_port" => cursor.u16()?,
            "ipv6_address" => Ipv6Addr::from(cursor.array::<16>()?).to_string(),
            "ipv6_port" => cursor.u16()?,
        },
        _ => text::hex(bytes).into(),
    })
}

fn name(id: u64) -> Text {
    Text::Borrowed(match id {
        0x00 => "original_destination_connection_id",
        0x01 => "max_idle_timeout",
        0x02 => "stateless_reset_token",
        0x03 => "max_udp_payload_size",
        0x04 => "initial_max_data",
        0x05 => "initial_max_stream_data_bidi_local",
        0x06 => "initial_max_stream_data_bidi_remote",
        0x07 => "initial_max_stream_data_uni",
        0x08 => "initial_max_streams_bidi",
        0x09 => "initial_max_streams_uni",
        0x0a => "ack_delay_exponent",
        0x0b => "max_ack_delay",
        0x0c => "disable_active_migration",
        0x0d => "preferred_address",
        0x0e => "active_connection_id_limit",
        0x0f => "initial_source_connection_id",
        0x10 => "retry_source_connection_id",
        0x11 => "version_information",
        0x20 => "max_datagram_frame_size",
        0x2ab2 => "grease_quic_bit",
        _ => return format!("parameter_{id:#x}").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_names_and_numbers() {
        let data = b"\x01\x04\x80\x00\x75\x30\x0c\x00\x0f\x02\xab\xcd\x1b\x01\xff\x40\x7b\x01\x07\x08\x09";
        let json = serde_json::to_string(&decode(data)).unwrap_or_default();
        assert_eq!(
            json,
            concat!(
                r#"{"max_idle_timeout":30000,"disable_active_migration":true,"initial_source_connection_id":"abcd","#,
                r#""parameter_0x7b":"07"}"#
            )
        );
    }
}
