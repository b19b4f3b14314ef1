//! Properties of MQTT 5 (section 2.2.2.2).

use super::{packet, text};
use crate::dissect::Cursor;
use crate::entry::{Text, Value};

/// How a property's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Byte,
    Two,
    Four,
    Variable,
    /// A string, or binary data.
    Bytes,
    /// A name and a value.
    Pair,
}

const TOPIC_ALIAS: u8 = 35;
const USER_PROPERTY: u8 = 38;
const AUTHENTICATION_DATA: u8 = 22;

/// Name and encoding of a property.
fn property(id: u8) -> Option<(&'static str, Encoding)> {
    use Encoding::{Byte, Bytes, Four, Pair, Two, Variable};
    Some(match id {
        1 => ("payload_format_indicator", Byte),
        2 => ("message_expiry_interval", Four),
        3 => ("content_type", Bytes),
        8 => ("response_topic", Bytes),
        9 => ("correlation_data", Bytes),
        11 => ("subscription_identifier", Variable),
        17 => ("session_expiry_interval", Four),
        18 => ("assigned_client_identifier", Bytes),
        19 => ("server_keep_alive", Two),
        21 => ("authentication_method", Bytes),
        AUTHENTICATION_DATA => ("authentication_data", Bytes),
        23 => ("request_problem_information", Byte),
        24 => ("will_delay_interval", Four),
        25 => ("request_response_information", Byte),
        26 => ("response_information", Bytes),
        28 => ("server_reference", Bytes),
        31 => ("reason_string", Bytes),
        33 => ("receive_maximum", Two),
        34 => ("topic_alias_maximum", Two),
        TOPIC_ALIAS => ("topic_alias", Two),
        36 => ("maximum_qos", Byte),
        37 => ("retain_available", Byte),
        USER_PROPERTY => ("user_properties", Pair),
        39 => ("maximum_packet_size", Four),
        40 => ("wildcard_subscription_available", Byte),
        41 => ("subscription_identifier_available", Byte),
        42 => ("shared_subscription_available", Byte),
        _ => return None,
    })
}

/// The properties of one packet, not parsed before they are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Properties<'a>(pub(super) &'a [u8]);

impl<'a> Properties<'a> {
    /// Each property's id, name, value and, for user properties, its own name.
    fn iter(self) -> impl Iterator<Item = (u8, &'static str, Value, &'a [u8])> {
        let mut cursor = Cursor::new(self.0);
        std::iter::from_fn(move || {
            let id = cursor.u8().ok()?;
            let (name, encoding) = property(id)?;
            let (value, bytes) = packet::encoded(&mut cursor, encoding).ok()?;
            Some((id, name, value, bytes))
        })
    }

    /// The number that stands for the topic.
    pub(super) fn topic_alias(&self) -> Option<u16> {
        memchr::memchr(TOPIC_ALIAS, self.0)?;
        self.iter().find(|(id, ..)| *id == TOPIC_ALIAS).and_then(|(_, _, value, _)| match value {
            Value::Uint(alias) => u16::try_from(alias).ok(),
            _ => None,
        })
    }

    /// As fields; user properties together.
    pub(super) fn detail(&self, secrets: bool) -> Value {
        let mut fields: Vec<(Text, Value)> = Vec::new();
        let mut user = Vec::new();
        for (id, name, value, bytes) in self.iter() {
            match id {
                USER_PROPERTY => user.push((Text::Owned(text::string(bytes)), value)),
                AUTHENTICATION_DATA if !secrets => fields.push((name.into(), text::HIDDEN.into())),
                _ => fields.push((name.into(), value)),
            }
        }
        if !user.is_empty() {
            fields.push(("user_properties".into(), Value::Map(user)));
        }
        Value::Map(fields)
    }
}
