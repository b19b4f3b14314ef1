//! RADIUS: authentication (RFC 2865), accounting (RFC 2866), dynamic authorization (RFC 5176), status (RFC 5997), over UDP
//! and over TCP (RFC 6613).
//!
//! A response answers the request with its identifier. Identifiers have one byte and come again soon, so what pairs is the
//! identifier together with the question: code and user. A request that is sent again before it was answered is the same one.
//!
//! Not parsed: what is encrypted with the shared secret (passwords, keys), which is hidden; authenticators are shown, not
//! checked; attributes of vendors but a few. RADIUS over TLS (RFC 6614) is TLS unless it is decrypted.

mod attribute;
mod dictionary;
mod eap;
mod vendor;

use std::collections::HashMap;

use super::{
    Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Role, Short, Transport, Verdict, text,
};
use crate::entry::{Direction, Text};

pub static PROTOCOL: Protocol = Protocol {
    name: "radius",
    title: "RADIUS",
    transport: Transport::Both,
    ports: &[1812, 1813, 1645, 1646, 3799],
    probe,
    new: || Box::new(Radius::default()),
    repeats: true,
    spec: "https://www.rfc-editor.org/rfc/rfc2865",
};

/// Bytes of a packet's header.
const HEADER: usize = 20;
/// The longest packet: RFC 7499 lets clients and servers agree on more than the 4096 bytes of RFC 2865.
const MAX_PACKET: usize = 65_535;
/// Set in the id that pairs messages, so that it is never the 0 that means "in order".
const ID: u64 = 1 << 16;

/// What a code stands for: its name, whether it asks, whether it refuses.
fn code(code: u8) -> Option<(&'static str, Role, bool)> {
    use Role::{Request, Response};
    Some(match code {
        1 => ("Access-Request", Request, false),
        2 => ("Access-Accept", Response, false),
        3 => ("Access-Reject", Response, true),
        4 => ("Accounting-Request", Request, false),
        5 => ("Accounting-Response", Response, false),
        6 => ("Accounting-Status", Request, false),
        7 => ("Password-Request", Request, false),
        8 => ("Password-Ack", Response, false),
        9 => ("Password-Reject", Response, true),
        10 => ("Accounting-Message", Request, false),
        11 => ("Access-Challenge", Response, false),
        12 => ("Status-Server", Request, false),
        13 => ("Status-Client", Request, false),
        21 => ("Resource-Free-Request", Request, false),
        22 => ("Resource-Free-Response", Response, false),
        23 => ("Resource-Query-Request", Request, false),
        24 => ("Resource-Query-Response", Response, false),
        25 => ("Alternate-Resource-Reclaim-Request", Request, false),
        26 => ("NAS-Reboot-Request", Request, false),
        27 => ("NAS-Reboot-Response", Response, false),
        29 => ("Next-Passcode", Request, false),
        30 => ("New-Pin", Request, false),
        31 => ("Terminate-Session", Request, false),
        32 => ("Password-Expired", Response, true),
        33 => ("Event-Request", Request, false),
        34 => ("Event-Response", Response, false),
        40 => ("Disconnect-Request", Request, false),
        41 => ("Disconnect-ACK", Response, false),
        42 => ("Disconnect-NAK", Response, true),
        43 => ("CoA-Request", Request, false),
        44 => ("CoA-ACK", Response, false),
        45 => ("CoA-NAK", Response, true),
        50 => ("IP-Address-Allocate", Request, false),
        51 => ("IP-Address-Release", Request, false),
        52 => ("Protocol-Error", Response, true),
        _ => return None,
    })
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let mut cursor = Cursor::new(probe.data);
    let hinted = PROTOCOL.ports.contains(&probe.port);
    let short = if probe.transport == Transport::Tcp { Verdict::More } else { Verdict::No };
    let expected = match probe.direction {
        Direction::ToServer => Role::Request,
        Direction::ToClient => Role::Response,
    };
    match cursor.peek().map(code) {
        Some(Some((_, role, _))) if role == expected => {}
        None => return short,
        _ => return Verdict::No,
    }
    let header = match Header::parse(&mut cursor) {
        Ok(header) => header,
        Err(_) if probe.data.get(2..4).is_none_or(|length| plausible_length(length, hinted)) => return short,
        Err(_) => return Verdict::No,
    };
    let attributes = header.attributes_len();
    match attributes.map(|length| cursor.take(length)) {
        Some(Ok(attributes)) => {
            // Over UDP, nothing but padding may follow, and on a port of others not even that.
            let stream = probe.transport == Transport::Tcp;
            let exact = stream || hinted || cursor.is_empty();
            let mut list =
                attribute::Attributes::new(attributes).map(|attribute| attribute.is_ok_and(|(kind, _)| kind != 0));
            // On its port, an exact length makes up for attributes that are damaged after the first.
            let damaged = hinted && !stream && cursor.is_empty();
            let known = list.next().is_none_or(|first| first && (damaged || list.all(|other| other)));
            match expected {
                _ if !exact || !known || !hinted && attributes.is_empty() => Verdict::No,
                // The frames of ISO transport on TCP (RFC 1006) look like short answers, both ways.
                Role::Response if stream && !hinted => Verdict::Maybe,
                _ => Verdict::Yes,
            }
        }
        Some(Err(_)) if plausible_length(&header.length.to_be_bytes(), hinted) => {
            let begun = attribute::Attributes::new(cursor.rest()).take_while(Result::is_ok).count() > 0;
            match probe.transport {
                Transport::Tcp => Verdict::More,
                // Cut off by the capture.
                _ if hinted && begun => Verdict::Yes,
                _ => Verdict::No,
            }
        }
        _ => Verdict::No,
    }
}

/// Whether a packet may be that long; on ports of others only if it needs no more than RFC 2865 grants.
fn plausible_length(length: &[u8], hinted: bool) -> bool {
    let most = if hinted { MAX_PACKET } else { 4096 };
    Cursor::new(length).u16().is_ok_and(|length| (HEADER..=most).contains(&usize::from(length)))
}

/// A packet's header.
struct Header {
    code: u8,
    identifier: u8,
    length: u16,
    authenticator: [u8; 16],
}

impl Header {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Short> {
        Ok(Self { code: cursor.u8()?, identifier: cursor.u8()?, length: cursor.u16()?, authenticator: cursor.array()? })
    }

    fn attributes_len(&self) -> Option<usize> {
        usize::from(self.length).checked_sub(HEADER)
    }
}

/// The packets between two ports, or of one connection.
#[derive(Default)]
struct Radius {
    /// The last question with each identifier, by the direction of its sender.
    questions: [HashMap<u8, u32>; 2],
}

impl Radius {
    /// What pairs a message: its identifier, and the question that it asks or answers.
    fn pairing_id(&mut self, message: &Message, header: &Header) -> u64 {
        let asked = if message.role == Role::Response { message.direction.reverse() } else { message.direction };
        let questions = self.questions.get_mut(asked.index());
        let question = if message.role == Role::Response {
            questions.and_then(|questions| questions.get(&header.identifier).copied()).unwrap_or_default()
        } else {
            let question = hash(header.code, message.target.as_bytes());
            if let Some(questions) = questions {
                questions.insert(header.identifier, question);
            }
            question
        };
        u64::from(question) << 32 | ID | u64::from(header.identifier)
    }
}

impl Dissector for Radius {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let stream = cx.transport() == Transport::Tcp;
        let header = match Header::parse(&mut cursor) {
            Ok(header) => header,
            Err(Short) if stream => return Ok(Progress::Need(HEADER - bytes.len())),
            Err(short) => return Err(short.into()),
        };
        let Some((name, role, refused)) = code(header.code) else { return Err(Malformed("a code that is not known")) };
        let length = header.attributes_len().ok_or(Malformed("a packet shorter than its header"))?;
        let cut = length > cursor.remaining();
        if cut && stream {
            return Ok(Progress::Need(length - cursor.remaining()));
        }
        let attributes = cursor.take(length.min(cursor.remaining()))?;

        let mut message = Message::new(role, direction, cx);
        message.bytes = header.length.into();
        if let Some(user) = attribute::find(attributes, attribute::USER_NAME) {
            message.target = text::string(user);
        }
        if role == Role::Response {
            // Whose session it is tells the request; an answer may name another user.
            message.target.clear();
            message.status = Text::Borrowed(name);
            message.failed = refused;
        } else {
            message.operation = Text::Borrowed(name);
        }
        message.id = self.pairing_id(&message, &header);
        let mut whole = !cut;
        if cx.detail() {
            let (list, intact) = attribute::detail(attributes, cx.secrets());
            whole &= intact;
            let mut fields = vec![
                ("code".into(), header.code.into()),
                ("code_name".into(), name.into()),
                ("identifier".into(), header.identifier.into()),
                ("length".into(), header.length.into()),
                ("authenticator".into(), text::hex(&header.authenticator).into()),
                ("attributes".into(), list),
            ];
            fields.extend(eap::detail(attributes).map(|eap| ("eap".into(), eap)));
            message.detail = fields.into();
        }
        if !whole {
            message.warnings.push(Text::Borrowed("some attributes are missing or malformed"));
        }
        cx.emit(message);
        Ok(Progress::Consumed(header.length.into()))
    }
}

/// FNV-1a.
fn hash(code: u8, user: &[u8]) -> u32 {
    user.iter().chain(&[code]).fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
