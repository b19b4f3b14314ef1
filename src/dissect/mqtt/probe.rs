//! Whether bytes are of MQTT: what the packets that a side may start with look like.

use super::MAX_CONTROL;
use super::packet::{Ack, Header, Kind, Subscribe, counted, is_topic};
use crate::dissect::{Cursor, Probe, Verdict};
use crate::entry::Direction;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    let mut cursor = Cursor::new(probe.data);
    let mut verdict = Verdict::More;
    // A few packets one after the other, as far as they are there.
    for _ in 0..4 {
        let header = match Header::parse(&mut cursor) {
            Ok(Some(header)) if header.kind.may_come(probe.direction) => header,
            Ok(None) => break,
            _ => return Verdict::No,
        };
        if probe.start && verdict == Verdict::More {
            match (header.kind, probe.direction) {
                (Kind::Connect, _) | (Kind::Connack, Direction::ToClient) => {}
                // The first packet of a connection is CONNECT.
                _ => return Verdict::No,
            }
        }
        let available = cursor.rest().get(..header.length).unwrap_or(cursor.rest());
        match plausible(&header, available) {
            Verdict::Maybe => verdict = Verdict::Maybe,
            Verdict::More => break,
            decided => return decided,
        }
        if cursor.skip(header.length).is_err() || cursor.is_empty() {
            break;
        }
    }
    verdict
}

/// Whether a packet's beginning is what its header says: `Yes` for `CONNECT` only, which no other protocol starts with.
fn plausible(header: &Header, body: &[u8]) -> Verdict {
    let maybe = |good: bool| if good { Verdict::Maybe } else { Verdict::No };
    let whole = body.len() == header.length;
    match header.kind {
        Kind::Connect => {
            let mut cursor = Cursor::new(body);
            match (counted(&mut cursor), cursor.u8()) {
                (Ok(b"MQTT"), Ok(3..=5)) | (Ok(b"MQIsdp"), Ok(3)) | (Ok(b"MQTT" | b"MQIsdp"), Ok(0x83 | 0x84)) => {
                    maybe(header.length >= 10).max(Verdict::Yes)
                }
                (Err(_), _) | (_, Err(_)) if b"\0\x04MQTT".starts_with(body) || b"\0\x06MQIsdp".starts_with(body) => {
                    Verdict::More
                }
                (Ok(b"MQTT" | b"MQIsdp"), Err(_)) => Verdict::More,
                _ => Verdict::No,
            }
        }
        Kind::Publish => match counted(&mut Cursor::new(body)) {
            Ok(topic) => maybe(is_topic(topic, false)),
            Err(_) if whole => Verdict::No,
            Err(_) => match Cursor::new(body).u16() {
                Ok(length) if usize::from(length) + 2 > header.length => Verdict::No,
                _ => Verdict::More,
            },
        },
        Kind::Pingreq | Kind::Pingresp => maybe(header.length == 0),
        _ if header.length > MAX_CONTROL => Verdict::No,
        _ if !whole => Verdict::More,
        Kind::Subscribe | Kind::Unsubscribe => maybe(Subscribe::parse(header.kind, body, None).is_ok()),
        Kind::Connack => maybe(matches!(body, [0 | 1, 0..=5] | [0 | 1, 0 | 0x80..=0xff, _, ..])),
        // Reason code and properties are MQTT 5's.
        Kind::Disconnect | Kind::Auth => maybe(Ack::parse(header.kind, body, None).is_ok() && body.len() != 2),
        Kind::Suback | Kind::Unsuback => maybe(body.len() >= 2 && Ack::parse(header.kind, body, None).is_ok()),
        Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp => maybe(
            matches!(body, [high, low] if high | low != 0)
                || body.len() > 2 && Ack::parse(header.kind, body, None).is_ok(),
        ),
    }
}
