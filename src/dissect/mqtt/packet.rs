//! Control packets: the fixed header, and what each kind holds.

use super::property::{self, Properties};
use super::{V5, text};
use crate::dissect::{Cursor, Malformed, Short};
use crate::entry::{Direction, Text, Value};
use crate::fields;

/// Control packet types (MQTT 5, section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Connect = 1,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
    Auth,
}

impl Kind {
    const ALL: [Self; 15] = [
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Pingreq,
        Self::Pingresp,
        Self::Disconnect,
        Self::Auth,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }

    /// True if that side may send it.
    pub(super) fn may_come(self, direction: Direction) -> bool {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::Pingreq => direction == Direction::ToServer,
            Self::Connack | Self::Suback | Self::Unsuback | Self::Pingresp => direction == Direction::ToClient,
            _ => true,
        }
    }
}

/// The fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    flags: u8,
    /// Bytes that follow it.
    pub(super) length: usize,
}

impl Header {
    /// The header; none if more bytes are needed.
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Option<Self>, Malformed> {
        let Ok(first) = cursor.u8() else { return Ok(None) };
        let kind = usize::from(first >> 4).checked_sub(1).and_then(|at| Kind::ALL.get(at));
        let kind = *kind.ok_or(Malformed("a packet type that MQTT does not have"))?;
        let flags = first & 0x0f;
        let expected = match kind {
            Kind::Publish => flags,
            // MQTT 3.1 sets DUP and QoS on these.
            Kind::Pubrel | Kind::Subscribe | Kind::Unsubscribe => flags & 0x08 | 0x02,
            _ => 0,
        };
        if flags != expected || flags & 0x06 == 0x06 {
            return Err(Malformed("flags that the packet type does not have"));
        }
        match variable(cursor) {
            Ok(length) => Ok(Some(Self { kind, flags, length })),
            Err(Variable::Short) => Ok(None),
            Err(Variable::Long) => Err(Malformed("a length of too many bytes")),
        }
    }

    pub(super) fn qos(&self) -> u8 {
        self.flags >> 1 & 3
    }
}

/// Why there is no variable byte integer.
enum Variable {
    Short,
    Long,
}

impl From<Variable> for Malformed {
    fn from(_: Variable) -> Self {
        Self("a length that is none")
    }
}

/// A variable byte integer (section 1.5.5).
fn variable(cursor: &mut Cursor<'_>) -> Result<usize, Variable> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let byte = cursor.u8().map_err(|_| Variable::Short)?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Variable::Long)
}

/// Bytes with their length in front, as strings and binary data have it.
pub(super) fn counted<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = cursor.u16()?;
    cursor.take(length.into())
}

fn properties<'a>(cursor: &mut Cursor<'a>) -> Result<Properties<'a>, Malformed> {
    let length = variable(cursor)?;
    Ok(Properties(cursor.take(length)?))
}

/// A topic or filter: UTF-8 without null, and without wildcards if it is a topic.
pub(super) fn is_topic(bytes: &[u8], filter: bool) -> bool {
    !bytes.is_empty()
        && std::str::from_utf8(bytes)
            .is_ok_and(|text| text.chars().all(|c| !c.is_control() && (filter || !matches!(c, '+' | '#'))))
}

/// `CONNECT` (section 3.1).
pub(super) struct Connect<'a> {
    name: &'a [u8],
    pub(super) version: u8,
    flags: u8,
    keep_alive: u16,
    properties: Option<Properties<'a>>,
    pub(super) client_id: &'a [u8],
    will: Option<(Option<Properties<'a>>, &'a [u8], &'a [u8])>,
    username: Option<&'a [u8]>,
    password: Option<&'a [u8]>,
}

impl<'a> Connect<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let name = counted(&mut cursor)?;
        // The highest bit is set by bridges.
        let version = cursor.u8()? & 0x7f;
        let flags = cursor.u8()?;
        let keep_alive = cursor.u16()?;
        let more = version >= V5;
        let own = if more { Some(properties(&mut cursor)?) } else { None };
        let client_id = counted(&mut cursor)?;
        let will = if flags & 0x04 == 0 {
            None
        } else {
            let own = if more { Some(properties(&mut cursor)?) } else { None };
            Some((own, counted(&mut cursor)?, counted(&mut cursor)?))
        };
        let username = if flags & 0x80 == 0 { None } else { Some(counted(&mut cursor)?) };
        let password = if flags & 0x40 == 0 { None } else { Some(counted(&mut cursor)?) };
        Ok(Self { name, version, flags, keep_alive, properties: own, client_id, will, username, password })
    }

    pub(super) fn detail(&self, secrets: bool, limit: usize) -> Value {
        let will = self.will.as_ref().map(|(own, topic, payload)| {
            fields! {
                "topic" => text::value(topic),
                "payload" => text::body(payload.get(..limit).unwrap_or(payload), payload.len() as u64),
                "qos" => self.flags >> 3 & 3,
                "retain" => self.flags & 0x20 != 0,
                "properties" => own.as_ref().map(|own| own.detail(secrets)),
            }
        });
        fields! {
            "protocol_name" => text::value(self.name),
            "protocol_version" => self.version,
            "clean_start" => self.flags & 0x02 != 0,
            "keep_alive" => self.keep_alive,
            "client_id" => text::value(self.client_id),
            "username" => self.username.map(text::value),
            "password" => self.password.map(|password| if secrets { text::value(password) } else { text::HIDDEN.into() }),
            "will" => will,
            "properties" => self.properties.as_ref().map(|own| own.detail(secrets)),
        }
    }
}

/// How many bytes come before a `PUBLISH`'s payload, or how many are missing to tell.
pub(super) fn publish_head(header: &Header, bytes: &[u8], properties: Option<bool>) -> Result<usize, usize> {
    let mut cursor = Cursor::new(bytes);
    let Ok(topic) = cursor.u16() else { return Err(2 - bytes.len()) };
    let mut head = 2 + usize::from(topic) + if header.qos() > 0 { 2 } else { 0 };
    if properties == Some(true) && head < header.length {
        let Some(rest) = bytes.get(head..).filter(|rest| !rest.is_empty()) else {
            return Err((head + 1).saturating_sub(bytes.len()).max(1));
        };
        let mut cursor = Cursor::new(rest);
        match variable(&mut cursor) {
            Ok(length) => head = head.saturating_add(cursor.position() + length),
            Err(Variable::Short) => return Err(1),
            // Found to be malformed when it is parsed.
            Err(Variable::Long) => {}
        }
    }
    let head = head.min(header.length);
    if bytes.len() < head { Err(head - bytes.len()) } else { Ok(head) }
}

/// `PUBLISH` (section 3.3).
pub(super) struct Publish<'a> {
    pub(super) topic: &'a [u8],
    /// Packet identifier; 0 with `QoS` 0.
    pub(super) id: u16,
    properties: Option<Properties<'a>>,
    pub(super) alias: Option<u16>,
    payload: &'a [u8],
    /// The payload's size on the wire.
    size: usize,
}

impl<'a> Publish<'a> {
    /// `body` may lack the payload's end.
    pub(super) fn parse(header: &Header, body: &'a [u8], has_properties: Option<bool>) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let topic = counted(&mut cursor)?;
        let id = if header.qos() > 0 { cursor.u16()? } else { 0 };
        let own = if has_properties == Some(true) { Some(properties(&mut cursor)?) } else { None };
        let size = header.length - cursor.position();
        let alias = own.as_ref().and_then(Properties::topic_alias);
        Ok(Self { topic, id, properties: own, alias, payload: cursor.rest(), size })
    }

    pub(super) fn detail(&self, header: &Header, has_properties: Option<bool>) -> Value {
        let mut detail = fields! {
            "topic" => text::value(self.topic),
            "qos" => header.qos(),
            "dup" => header.flags & 0x08 != 0,
            "retain" => header.flags & 0x01 != 0,
            "packet_id" => (header.qos() > 0).then_some(self.id),
            "properties" => self.properties.as_ref().map(|own| own.detail(true)),
            "payload" => text::body(self.payload, self.size as u64),
        };
        if let (Value::Map(fields), None) = (&mut detail, has_properties) {
            fields.push(("version".into(), "not known: the payload may begin with properties".into()));
        }
        detail
    }
}

/// `SUBSCRIBE` (section 3.8) and `UNSUBSCRIBE` (section 3.10).
pub(super) struct Subscribe<'a> {
    pub(super) id: u16,
    pub(super) properties: Option<Properties<'a>>,
    /// Topic filters with their options.
    wanted: Vec<(&'a [u8], Option<u8>)>,
}

impl<'a> Subscribe<'a> {
    /// Where the version is not known, the one that fits is taken.
    pub(super) fn parse(kind: Kind, body: &'a [u8], has_properties: Option<bool>) -> Result<Self, Malformed> {
        match has_properties {
            Some(has) => Self::of_version(kind, body, has),
            None => Self::of_version(kind, body, false).or_else(|_| Self::of_version(kind, body, true)),
        }
    }

    fn of_version(kind: Kind, body: &'a [u8], has_properties: bool) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let id = cursor.u16()?;
        let own = if has_properties { Some(properties(&mut cursor)?) } else { None };
        let mut wanted = Vec::new();
        while !cursor.is_empty() {
            let filter = counted(&mut cursor)?;
            let options = if kind == Kind::Subscribe { Some(cursor.u8()?) } else { None };
            if !is_topic(filter, true) || options.is_some_and(|options| options & 3 == 3) {
                return Err(Malformed("a topic filter that is none"));
            }
            wanted.push((filter, options));
        }
        if wanted.is_empty() {
            return Err(Malformed("a subscription to nothing"));
        }
        Ok(Self { id, properties: own, wanted })
    }

    /// The filters, joined by commas.
    pub(super) fn filters(&self) -> String {
        let mut joined = String::new();
        for (filter, _) in &self.wanted {
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(&text::printable(filter));
        }
        joined
    }

    pub(super) fn detail(&self) -> Value {
        let wanted = self.wanted.iter().map(|(filter, options)| match options {
            Some(options) => fields! {
                "topic_filter" => text::value(filter),
                "qos" => options & 3,
                "no_local" => options & 4 != 0,
                "retain_as_published" => options & 8 != 0,
                "retain_handling" => options >> 4 & 3,
            },
            None => fields! { "topic_filter" => text::value(filter) },
        });
        fields! {
            "packet_id" => self.id,
            "properties" => self.properties.as_ref().map(|own| own.detail(true)),
            "topic_filters" => wanted.collect::<Vec<_>>(),
        }
    }
}

/// Packets that say how something went.
#[derive(Debug)]
pub(super) struct Ack<'a> {
    kind: Kind,
    /// Packet identifier; 0 for kinds without one.
    pub(super) id: u16,
    flags: u8,
    /// Reason codes: several for `SUBACK` and `UNSUBACK`.
    codes: &'a [u8],
    properties: Option<Properties<'a>>,
}

impl<'a> Ack<'a> {
    pub(super) fn parse(kind: Kind, body: &'a [u8], has_properties: Option<bool>) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let mut ack = Self { kind, id: 0, flags: 0, codes: &[], properties: None };
        match kind {
            Kind::Pingresp => return Ok(ack),
            Kind::Connack => ack.flags = cursor.u8()?,
            Kind::Disconnect | Kind::Auth => {}
            _ => ack.id = cursor.u16()?,
        }
        if matches!(kind, Kind::Suback | Kind::Unsuback) {
            // Without properties all that is left are codes, each of which is a QoS or a failure.
            let codes = cursor.rest();
            let plain =
                codes.iter().all(|code| matches!(code, 0..=2 | 0x80)) && (kind == Kind::Suback || codes.is_empty());
            if has_properties.unwrap_or(!plain) {
                ack.properties = Some(properties(&mut cursor)?);
            }
            ack.codes = cursor.rest();
            return Ok(ack);
        }
        if !cursor.is_empty() {
            ack.codes = cursor.take(1)?;
        }
        if !cursor.is_empty() {
            ack.properties = Some(properties(&mut cursor)?);
        }
        if !cursor.is_empty() {
            return Err(Malformed("more bytes than the packet has fields"));
        }
        Ok(ack)
    }

    /// The first code that means failure, or else 0.
    fn code(&self, version: u8) -> u8 {
        // Before version 5, CONNACK's codes were numbered from 1.
        let least = if self.kind == Kind::Connack && version < V5 { 1 } else { 0x80 };
        self.codes.iter().copied().find(|code| *code >= least).unwrap_or(0)
    }

    pub(super) fn failed(&self, version: u8) -> bool {
        self.code(version) != 0
    }

    pub(super) fn status(&self, version: u8) -> Text {
        match self.code(version) {
            0 => Text::Borrowed("ok"),
            code => Text::Owned(code.to_string()),
        }
    }

    pub(super) fn detail(&self, secrets: bool) -> Value {
        let mut fields = vec![(Text::Borrowed("packet_type"), Value::from(self.kind.name()))];
        match self.kind {
            Kind::Connack => fields.push(("session_present".into(), (self.flags & 1 != 0).into())),
            Kind::Disconnect | Kind::Auth | Kind::Pingresp => {}
            _ => fields.push(("packet_id".into(), self.id.into())),
        }
        let codes = self.codes.iter().map(|code| Value::from(*code));
        match self.kind {
            Kind::Suback | Kind::Unsuback => fields.push(("reason_codes".into(), codes.collect::<Vec<_>>().into())),
            _ => fields.extend(codes.map(|code| ("reason_code".into(), code))),
        }
        if let Some(own) = &self.properties {
            fields.push(("properties".into(), own.detail(secrets)));
        }
        Value::Map(fields)
    }
}

/// For [`property`], whose values have the same encodings.
pub(super) fn encoded<'a>(
    cursor: &mut Cursor<'a>,
    encoding: property::Encoding,
) -> Result<(Value, &'a [u8]), Malformed> {
    use property::Encoding;
    Ok(match encoding {
        Encoding::Byte => (cursor.u8()?.into(), &[]),
        Encoding::Two => (cursor.u16()?.into(), &[]),
        Encoding::Four => (cursor.u32()?.into(), &[]),
        Encoding::Variable => (variable(cursor)?.into(), &[]),
        Encoding::Bytes => {
            let bytes = counted(cursor)?;
            (text::value(bytes), bytes)
        }
        Encoding::Pair => {
            let name = counted(cursor)?;
            (text::value(counted(cursor)?), name)
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_up_to_four_bytes() {
        let length =
            |bytes: &[u8]| Header::parse(&mut Cursor::new(bytes)).map(|header| header.map(|header| header.length));
        assert_eq!(length(&[0x30, 0x7f]), Ok(Some(127)));
        assert_eq!(length(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Ok(Some(268_435_455)));
        assert_eq!(length(&[0x30, 0xff]), Ok(None));
        assert!(length(&[0x30, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(length(&[0x36, 0]).is_err());
        assert!(length(&[0x00, 0]).is_err());
    }

    #[test]
    fn the_version_of_a_subscription_is_found() {
        let old = Subscribe::parse(Kind::Subscribe, b"\0\x01\0\x03a/b\x01", None).unwrap();
        assert!(old.properties.is_none() && old.filters() == "a/b");
        let new = Subscribe::parse(Kind::Subscribe, b"\0\x01\0\0\x03a/b\x01", None).unwrap();
        assert!(new.properties.is_some() && new.filters() == "a/b");
    }
}
