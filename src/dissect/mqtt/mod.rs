//! MQTT 3.1, 3.1.1 and 5 over TCP.
//!
//! Acknowledgements answer by packet identifier, in both directions: a `PUBLISH` with `QoS` 1 by `PUBACK`, with `QoS` 2 by
//! `PUBREC` (what follows it, `PUBREL` and `PUBCOMP`, adds nothing), `SUBSCRIBE`, `UNSUBSCRIBE`, `CONNECT` and `PINGREQ` by their
//! own. A `PUBLISH` with `QoS` 0, `DISCONNECT` and `AUTH` stand alone. The status is `ok`, or the first code that means failure.
//!
//! Not parsed: MQTT in WebSocket, MQTT-SN. A capture that starts after `CONNECT` does not tell the version; it is taken from
//! the first packet that only one version allows.

mod packet;
mod probe;
mod property;

use std::collections::HashMap;

use super::{Cursor, Cx, Dissector, Malformed, Message, Progress, Protocol, Recover, Role, Transport, text};
use crate::entry::{Direction, Text};
use packet::{Header, Kind};

pub static PROTOCOL: Protocol = Protocol {
    name: "mqtt",
    title: "MQTT",
    transport: Transport::Tcp,
    ports: &[1883],
    probe: probe::probe,
    new: || Box::new(Mqtt::default()),
    repeats: false,
    spec: "https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html",
};

/// The largest packet but `PUBLISH`, whose payload is skipped.
const MAX_CONTROL: usize = 1 << 20;
/// The most topic aliases remembered of one side.
const MAX_ALIASES: usize = 1024;
/// The version with properties.
const V5: u8 = 5;

/// One connection.
#[derive(Default)]
struct Mqtt {
    /// The protocol's level: 3, 4 or 5; 0 if it is not known.
    version: u8,
    /// Topics by alias, for each sender.
    aliases: [HashMap<u16, String>; 2],
}

impl Mqtt {
    /// Whether packets have properties; not known before the first packet that tells.
    fn properties(&self) -> Option<bool> {
        (self.version != 0).then_some(self.version >= V5)
    }

    /// A `PUBLISH`, of which the payload may be cut.
    fn publish(
        &mut self,
        header: &Header,
        body: &[u8],
        mut message: Message,
        cx: &mut Cx<'_>,
    ) -> Result<(), Malformed> {
        let publish = packet::Publish::parse(header, body, self.properties())?;
        message.target = text::string(publish.topic);
        if let Some(alias) = publish.alias
            && let Some(aliases) = self.aliases.get_mut(message.direction.index())
        {
            if publish.topic.is_empty() {
                message.target = aliases.get(&alias).cloned().unwrap_or_default();
            } else if aliases.len() < MAX_ALIASES {
                aliases.insert(alias, message.target.clone());
            }
        }
        message.operation = Text::Borrowed("PUBLISH");
        if header.qos() > 0 {
            message.role = Role::Request;
            message.id = id(Kind::Publish, publish.id);
        }
        if cx.detail() {
            message.detail = publish.detail(header, self.properties());
        }
        cx.emit(message);
        Ok(())
    }

    /// Any other packet, whole.
    fn control(
        &mut self,
        header: &Header,
        body: &[u8],
        mut message: Message,
        cx: &mut Cx<'_>,
    ) -> Result<(), Malformed> {
        let kind = header.kind;
        message.operation = Text::Borrowed(kind.name());
        match kind {
            Kind::Connect => {
                let connect = packet::Connect::parse(body)?;
                self.version = connect.version;
                message.role = Role::Request;
                message.id = id(kind, 0);
                message.target = text::string(connect.client_id);
                if cx.detail() {
                    message.detail = connect.detail(cx.secrets(), cx.body_limit());
                }
            }
            Kind::Subscribe | Kind::Unsubscribe => {
                let subscribe = packet::Subscribe::parse(kind, body, self.properties())?;
                self.version = self.version.max(if subscribe.properties.is_some() { V5 } else { 0 });
                message.role = Role::Request;
                message.id = id(kind, subscribe.id);
                message.target = subscribe.filters();
                if cx.detail() {
                    message.detail = subscribe.detail();
                }
            }
            Kind::Pingreq => {
                message.role = Role::Request;
                message.id = id(kind, 0);
            }
            Kind::Disconnect | Kind::Auth => {
                let ack = packet::Ack::parse(kind, body, self.properties())?;
                if ack.failed(self.version) {
                    (message.status, message.failed) = (ack.status(self.version), true);
                }
                if cx.detail() {
                    message.detail = ack.detail(cx.secrets());
                }
            }
            Kind::Pubrel | Kind::Pubcomp => return Ok(()),
            Kind::Connack | Kind::Puback | Kind::Pubrec | Kind::Suback | Kind::Unsuback | Kind::Pingresp => {
                let ack = packet::Ack::parse(kind, body, self.properties())?;
                message.role = Role::Response;
                message.operation = Text::Borrowed("");
                message.id = match kind {
                    Kind::Connack => id(Kind::Connect, 0),
                    Kind::Suback => id(Kind::Subscribe, ack.id),
                    Kind::Unsuback => id(Kind::Unsubscribe, ack.id),
                    Kind::Pingresp => id(Kind::Pingreq, 0),
                    _ => id(Kind::Publish, ack.id),
                };
                message.failed = ack.failed(self.version);
                message.status = ack.status(self.version);
                if cx.detail() {
                    message.detail = ack.detail(cx.secrets());
                }
            }
            Kind::Publish => {}
        }
        cx.emit(message);
        Ok(())
    }
}

/// Pairs a packet with its acknowledgement; never 0.
fn id(kind: Kind, packet: u16) -> u64 {
    (kind as u64) << 16 | u64::from(packet)
}

impl Dissector for Mqtt {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let Some(header) = Header::parse(&mut cursor)? else { return Ok(Progress::Need(1)) };
        if !header.kind.may_come(direction) {
            return Err(Malformed("a packet that goes the wrong way"));
        }
        let start = cursor.position();
        let wanted = match header.kind {
            Kind::Publish => match packet::publish_head(&header, cursor.rest(), self.properties()) {
                Ok(head) => head.saturating_add(cx.body_limit()).min(header.length),
                Err(missing) => return Ok(Progress::Need(missing)),
            },
            _ if header.length > MAX_CONTROL => return Err(Malformed("a packet larger than its kind can be")),
            _ => header.length,
        };
        let available = cursor.remaining();
        let Ok(body) = cursor.take(wanted) else { return Ok(Progress::Need(wanted - available)) };
        let mut message = Message::new(Role::OneWay, direction, cx);
        message.bytes = (start + header.length) as u64;
        match header.kind {
            Kind::Publish => self.publish(&header, body, message, cx)?,
            _ => self.control(&header, body, message, cx)?,
        }
        Ok(Progress::Consumed(start + header.length))
    }

    fn gap(&mut self, _direction: Direction, _len: u64, _cx: &mut Cx<'_>) -> Recover {
        Recover::Resync
    }
}
