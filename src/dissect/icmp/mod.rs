//! ICMP (RFC 792) and its version 6 (RFC 4443) with neighbor discovery (RFC 4861) and multicast listener discovery (RFC 2710,
//! RFC 3810).
//!
//! An echo reply answers the request with its identifier and sequence number; all else stands alone, for the packet that an
//! error quotes may be long gone. What is quoted shows in the detail and is no message. Checksums are not checked.

mod detail;
mod types;

use super::{Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Role, Transport, Verdict};
use crate::entry::{Direction, Text};
use types::{Family, type_name};

pub static PROTOCOL: Protocol = Protocol {
    name: "icmp",
    title: "ICMP",
    transport: Transport::Icmp,
    ports: &[],
    probe,
    new: || Box::new(Icmp),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc792",
};

/// Bytes of the shortest message: type, code and checksum.
const HEADER: usize = 4;
/// Set in the id that pairs messages, so that it is never the 0 that means "in order".
const ID: u64 = 1 << 32;

/// The IP header's protocol number has said already that it is ICMP.
fn probe(probe: &Probe<'_>) -> Verdict {
    if probe.transport == Transport::Icmp && probe.data.len() >= HEADER { Verdict::Yes } else { Verdict::No }
}

struct Icmp;

impl Dissector for Icmp {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let destination = cx.destination(direction);
        let family = if destination.is_ipv6() { Family::V6 } else { Family::V4 };
        let mut cursor = Cursor::new(bytes);
        let (kind, code) = (cursor.u8()?, cursor.u8()?);
        cursor.skip(2)?;
        let echo = cursor.u32().map(|id| ID | u64::from(id));
        let (role, status, failed) = match (family, kind) {
            (Family::V4, 8) | (Family::V6, 128) => (Role::Request, Text::Borrowed(""), false),
            (Family::V4, 0) | (Family::V6, 129) => (Role::Response, Text::Borrowed("ok"), false),
            _ => (Role::OneWay, code_number(code), family.is_error(kind)),
        };
        let mut message = Message::new(role, direction, cx);
        message.id = if role == Role::OneWay { 0 } else { echo? };
        message.operation = type_name(family, kind);
        message.target = destination.to_string();
        message.status = status;
        message.failed = failed;
        message.bytes = bytes.len() as u64;
        if cx.detail() {
            message.detail = detail::decode(family, kind, code, bytes);
        }
        cx.emit(message);
        Ok(Progress::Consumed(bytes.len()))
    }
}

/// The code as text; the usual ones without allocation.
fn code_number(code: u8) -> Text {
    match code {
        0 => "0".into(),
        1 => "1".into(),
        2 => "2".into(),
        3 => "3".into(),
        4 => "4".into(),
        _ => code.to_string().into(),
    }
}
