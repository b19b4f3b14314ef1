//! Diameter (RFC 6733) over TCP and SCTP: the base protocol and its applications.
//!
//! Both sides send requests. An answer has the hop-by-hop identifier of its request, and its command. The status is the
//! `Result-Code`, or the `Experimental-Result-Code` where a vendor has codes of its own.
//!
//! Not parsed: AVPs of vendors but 3GPP, which are shown as they are; TLS and DTLS on ports of their own. If both sides agree on
//! TLS in their capabilities, the connection is looked at anew.
//!
//! [`command`] knows the commands and result codes, [`avp`] reads the attributes, [`dictionary`] knows them.

mod avp;
mod command;
mod dictionary;
mod threegpp;

use super::{Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Role, Short, Switch, Transport};
use super::{Verdict, text};
use crate::entry::{Direction, Text};
use crate::fields;
use avp::Avps;

pub static PROTOCOL: Protocol = Protocol {
    name: "diameter",
    title: "Diameter",
    transport: Transport::TcpOrSctp,
    ports: &[3868],
    probe,
    new: || Box::new(Diameter::default()),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc6733",
};

/// Bytes of a message's header.
const HEADER: usize = 20;
/// The most bytes of a message that are looked at; its length has three bytes.
const MAX_SEEN: usize = 256 << 10;
/// Set in the id that pairs messages, so that it is never the 0 that means "in order".
const ID: u64 = 1 << 63;

const REQUEST: u8 = 0x80;
const PROXIABLE: u8 = 0x40;
const ERROR: u8 = 0x20;
const RETRANSMITTED: u8 = 0x10;
/// Flags that have no meaning yet.
const RESERVED: u8 = 0x0f;

fn probe(probe: &Probe<'_>) -> Verdict {
    let hinted = PROTOCOL.ports.contains(&probe.port);
    // What is there has to be right, so that other protocols are told apart by their first bytes.
    let (version, flags) = (probe.data.first(), probe.data.get(4));
    if version.is_some_and(|version| *version != 1)
        || flags.is_some_and(|flags| flags & RESERVED != 0 || flags & (REQUEST | ERROR) == REQUEST | ERROR)
    {
        return Verdict::No;
    }
    let mut cursor = Cursor::new(probe.data);
    let length = Cursor::new(probe.data.get(1..).unwrap_or_default()).u24();
    if length.is_ok_and(|length| (length as usize) < HEADER || length % 4 != 0) {
        return Verdict::No;
    }
    let Ok(header) = Header::parse(&mut cursor) else { return Verdict::More };
    let known = command::name(header.code).is_some();
    if !known && !hinted {
        return Verdict::No;
    }
    let length = header.length - HEADER;
    if length == 0 {
        return if hinted { Verdict::Yes } else { Verdict::Maybe };
    }
    let Ok(first) = avp::Head::parse(&mut cursor) else { return Verdict::More };
    if first.flags & 0x1f != 0 || first.size > length || first.data > length {
        return Verdict::No;
    }
    // Either side asks, so that who is the client is not told by this.
    Verdict::Yes
}

/// A message's header.
struct Header {
    length: usize,
    flags: u8,
    code: u32,
    application_id: u32,
    hop_by_hop_id: u32,
    end_to_end_id: u32,
}

impl Header {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Short> {
        cursor.skip(1)?;
        Ok(Self {
            length: cursor.u24()? as usize,
            flags: cursor.u8()?,
            code: cursor.u24()?,
            application_id: cursor.u32()?,
            hop_by_hop_id: cursor.u32()?,
            end_to_end_id: cursor.u32()?,
        })
    }

    fn is_sane(&self) -> bool {
        self.length >= HEADER && self.length.is_multiple_of(4) && self.flags & RESERVED == 0
    }
}

/// One connection.
#[derive(Default)]
struct Diameter {
    /// Both sides wanted TLS.
    tls: [bool; 2],
}

impl Diameter {
    fn message(&mut self, direction: Direction, header: &Header, avps: &[u8], cut: bool, cx: &mut Cx<'_>) {
        let request = header.flags & REQUEST != 0;
        let mut message = Message::new(if request { Role::Request } else { Role::Response }, direction, cx);
        message.id = ID | u64::from(header.code) << 32 | u64::from(header.hop_by_hop_id);
        message.bytes = header.length as u64;
        message.operation =
            command::name(header.code).map_or_else(|| Text::Owned(header.code.to_string()), Text::Borrowed);
        if request {
            message.target = avp::find(avps, avp::ORIGIN_HOST).map(text::string).unwrap_or_default();
        } else if let Some(code) = result_code(avps) {
            message.status = command::status(code);
            message.failed = code >= 3000;
        }
        if header.code == command::CAPABILITIES_EXCHANGE
            && let Some(tls) = self.tls.get_mut(direction.index())
        {
            const TLS: u32 = 1;
            *tls = Avps::new(avps).flatten().any(|avp| {
                avp.vendor == 0 && avp.code == avp::INBAND_SECURITY_ID && Cursor::new(avp.data).u32() == Ok(TLS)
            });
        }
        let mut whole = !cut;
        if cx.detail() {
            let (list, intact) = avp::detail(avps, cx);
            whole &= intact;
            let mut fields = vec![
                ("version".into(), 1u8.into()),
                ("length".into(), header.length.into()),
                ("flags".into(), flags(header.flags)),
                ("command_code".into(), header.code.into()),
                ("application_id".into(), header.application_id.into()),
            ];
            fields.extend(command::application(header.application_id).map(|name| ("application".into(), name.into())));
            fields.push(("hop_by_hop_id".into(), header.hop_by_hop_id.into()));
            fields.push(("end_to_end_id".into(), header.end_to_end_id.into()));
            fields.push(("avps".into(), list));
            message.detail = fields.into();
        }
        if header.flags & RETRANSMITTED != 0 {
            message.warnings.push(Text::Borrowed("sent again after another connection failed"));
        }
        if !whole {
            message.warnings.push(Text::Borrowed("some AVPs are missing or malformed"));
        }
        cx.emit(message);
    }
}

/// The flags that are set, by their names.
fn flags(flags: u8) -> crate::entry::Value {
    fields! {
        "request" => flags & REQUEST != 0,
        "proxiable" => flags & PROXIABLE != 0,
        "error" => flags & ERROR != 0,
        "retransmitted" => flags & RETRANSMITTED != 0,
    }
}

/// What came of a request.
fn result_code(avps: &[u8]) -> Option<u32> {
    let number = |data: &[u8]| Cursor::new(data).u32().ok();
    avp::find(avps, avp::RESULT_CODE).and_then(number).or_else(|| {
        let group = avp::find(avps, avp::EXPERIMENTAL_RESULT)?;
        avp::find(group, avp::EXPERIMENTAL_RESULT_CODE).and_then(number)
    })
}

impl Dissector for Diameter {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        match bytes {
            [1, ..] => {}
            [0x16, 3, ..] if self.tls == [true; 2] => return Ok(Progress::Switch(0, Switch::Detect)),
            [0x16] if self.tls == [true; 2] => return Ok(Progress::Need(1)),
            _ => return Err(Malformed("a version that is not known")),
        }
        let stream = cx.transport() == Transport::Tcp;
        let mut cursor = Cursor::new(bytes);
        let header = match Header::parse(&mut cursor) {
            Ok(header) => header,
            Err(Short) if stream => return Ok(Progress::Need(HEADER - bytes.len())),
            Err(short) => return Err(short.into()),
        };
        if !header.is_sane() {
            return Err(Malformed("a header that contradicts itself"));
        }
        let wanted = header.length.min(MAX_SEEN);
        if bytes.len() < wanted && stream {
            return Ok(Progress::Need(wanted - bytes.len()));
        }
        let avps = cursor.rest();
        let avps = avps.get(..wanted - HEADER).unwrap_or(avps);
        self.message(direction, &header, avps, avps.len() < header.length - HEADER, cx);
        Ok(Progress::Consumed(header.length))
    }

    fn cut(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        let mut cursor = Cursor::new(rest);
        if let Ok(header) = Header::parse(&mut cursor)
            && header.is_sane()
            && rest.first() == Some(&1)
            && !cursor.is_empty()
        {
            self.message(direction, &header, cursor.rest(), true, cx);
        }
    }

    fn close(&mut self, direction: Direction, rest: &[u8], cx: &mut Cx<'_>) {
        self.cut(direction, rest, cx);
    }
}
