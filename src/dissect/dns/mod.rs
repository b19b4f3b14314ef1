//! DNS (RFC 1035) over UDP and TCP, with EDNS (RFC 6891), NOTIFY (RFC 1996), UPDATE (RFC 2136) and zone transfers.
//!
//! A response answers the query with its id. A row shows the first question; all the rest is in the detail. Of a zone transfer
//! the first message is the response, those that follow it are passed over. Signatures and proofs are shown, not checked; DNS
//! over HTTPS is HTTP, and DNS over TLS is TLS unless it is decrypted.

mod edns;
pub mod llmnr;
pub mod mdns;
mod name;
mod record;
mod types;

use std::collections::VecDeque;

use super::{Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Role, Transport, Verdict};
use crate::entry::{Direction, Text, Value};
use crate::fields;
use types::{class_name, opcode_name, rcode_name, rr, type_name};

pub static PROTOCOL: Protocol = Protocol {
    name: "dns",
    title: "DNS",
    transport: Transport::Both,
    ports: &[53],
    probe,
    new: || Box::new(Dns::new(Kind::Unicast)),
    repeats: true,
    spec: "https://www.rfc-editor.org/rfc/rfc1035",
};

/// Bytes of a message's header.
const HEADER: usize = 12;
/// The most questions of a unicast message that detection believes in: more than one is unusual.
const MAX_QUESTIONS: u16 = 16;
/// How many questions are remembered for answers that do not repeat theirs.
const MAX_RECENT: usize = 8;
/// Set in the id that pairs messages, so that it is never the 0 that means "in order".
const ID: u64 = 1 << 16;

/// Which of the three protocols with this message format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unicast,
    Multicast,
    LinkLocal,
}

fn probe(probe: &Probe<'_>) -> Verdict {
    if mdns::is_meant(probe) || llmnr::PROTOCOL.ports.contains(&probe.port) {
        return Verdict::No;
    }
    let hinted = PROTOCOL.ports.contains(&probe.port);
    if probe.transport == Transport::Udp {
        return plausible(probe.data, probe.direction, Kind::Unicast, hinted, false);
    }
    let mut cursor = Cursor::new(probe.data);
    let Ok(length) = cursor.u16() else { return Verdict::More };
    let length = usize::from(length);
    // The header and a question about the root, or no question at all.
    if length < HEADER || !(hinted || length >= HEADER + 5) {
        return Verdict::No;
    }
    match cursor.take(length) {
        Ok(message) => plausible(message, probe.direction, Kind::Unicast, hinted, false),
        Err(_) => match plausible(cursor.rest(), probe.direction, Kind::Unicast, hinted, true) {
            Verdict::Yes if !hinted && !probe.start => Verdict::Maybe,
            verdict => verdict,
        },
    }
}

/// Whether the bytes are a message of that direction; `cut` if more of it is to come.
///
/// On the usual port a sane header and question are proof enough; on another, every record has to be in its place.
fn plausible(message: &[u8], direction: Direction, kind: Kind, hinted: bool, cut: bool) -> Verdict {
    let mut cursor = Cursor::new(message);
    let Ok(header) = Header::parse(&mut cursor) else {
        // The flags tell early that it is something else, so that detection need not wait for more.
        let response = message.get(2).is_none_or(|flags| (flags & 0x80 != 0) == (direction == Direction::ToClient));
        return if cut && response { Verdict::More } else { Verdict::No };
    };
    if header.is_response() != (direction == Direction::ToClient) || !header.is_sane(kind, hinted) {
        return Verdict::No;
    }
    for _ in 0..header.questions {
        let start = cursor;
        let Ok(question) = Question::skip(&mut cursor) else {
            return if cut { Verdict::More } else { Verdict::No };
        };
        if !question.is_sane(kind, hinted) || !hinted && is_netbios(start.rest()) {
            return Verdict::No;
        }
    }
    if header.questions == 0 && !hinted {
        return Verdict::No;
    }
    if cut {
        return Verdict::Yes;
    }
    let whole = (0..header.records()).all(|_| record::skip(&mut cursor).is_ok()) && cursor.is_empty();
    match (whole, hinted, header.questions) {
        (true, _, 1..) | (_, true, 1..) => Verdict::Yes,
        (true, true, 0) => Verdict::Maybe,
        _ => Verdict::No,
    }
}

/// `NetBIOS` names look like DNS questions: 32 letters from A to P.
fn is_netbios(name: &[u8]) -> bool {
    name.split_first_chunk::<33>()
        .is_some_and(|([length, letters @ ..], _)| *length == 32 && letters.iter().all(|c| matches!(c, b'A'..=b'P')))
}

struct Dns {
    kind: Kind,
    /// Ids of the last queries with the hashes of their questions, the newest last.
    recent: VecDeque<(u16, u32)>,
    /// The id of a zone transfer on this connection, and whether its first answer was seen.
    transfer: Option<(u16, bool)>,
}

impl Dns {
    fn new(kind: Kind) -> Self {
        Self { kind, recent: VecDeque::new(), transfer: None }
    }

    /// One whole message.
    fn message(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(bytes);
        let header = Header::parse(&mut cursor)?;
        if header.is_response()
            && let Some((id, answered)) = &mut self.transfer
            && *id == header.id
            && std::mem::replace(answered, true)
        {
            return Ok(());
        }
        let (kind, name) = self.subject(&header, cursor, bytes)?;
        if cx.transport() == Transport::Tcp && !header.is_response() {
            self.transfer = kind.filter(|kind| matches!(*kind, rr::AXFR | rr::IXFR)).map(|_| (header.id, false));
        }
        let role = match (self.kind, header.is_response()) {
            (Kind::Multicast, _) => Role::OneWay,
            (_, false) => Role::Request,
            (_, true) => Role::Response,
        };
        let mut message = Message::new(role, direction, cx);
        message.id = self.pairing_id(&header, kind.map(|kind| hash(kind, &name)));
        message.operation = match kind {
            Some(kind) => type_name(kind),
            None if header.opcode() == 0 => Text::Borrowed(""),
            None => opcode_name(header.opcode()),
        };
        message.target = name;
        message.bytes = bytes.len() as u64 + if cx.transport() == Transport::Tcp { 2 } else { 0 };
        if header.is_response() {
            let rcode = header.extended_rcode(cursor);
            message.status = rcode_name(rcode);
            message.failed = rcode != 0;
            if header.flag(TRUNCATED) && self.kind != Kind::Multicast {
                message.warnings.push(Text::Borrowed("truncated: the whole answer is to be asked for over TCP"));
            }
        }
        if cx.detail() {
            let (detail, whole) = detail(&header, cursor, bytes, self.kind);
            message.detail = detail;
            if !whole {
                message.warnings.push(Text::Borrowed("some records are missing or malformed"));
            }
        }
        cx.emit(message);
        Ok(())
    }

    /// What pairs messages: the id, and the question, since an id comes again while an older query is still unanswered.
    fn pairing_id(&mut self, header: &Header, question: Option<u32>) -> u64 {
        let hash = match question {
            Some(hash) if header.is_response() => hash,
            Some(hash) => {
                if self.recent.len() >= MAX_RECENT {
                    self.recent.pop_front();
                }
                self.recent.push_back((header.id, hash));
                hash
            }
            // Many errors come without the question.
            None => self.recent.iter().rev().find(|(id, _)| *id == header.id).map_or(0, |(_, hash)| *hash),
        };
        u64::from(hash) << 32 | ID | u64::from(header.id)
    }

    /// Type and name of what the message is about: its first question or, for an answer of mDNS, its first record.
    fn subject<'a>(
        &self,
        header: &Header,
        mut cursor: Cursor<'a>,
        bytes: &'a [u8],
    ) -> Result<(Option<u16>, String), Malformed> {
        if self.kind == Kind::Multicast && header.is_response() && header.records() > 0 {
            for _ in 0..header.questions {
                Question::skip(&mut cursor)?;
            }
            let name = name::parse(&mut cursor, bytes)?;
            return Ok((Some(cursor.u16()?), name));
        }
        if header.questions == 0 {
            return Ok((None, String::new()));
        }
        let name = name::parse(&mut cursor, bytes)?;
        Ok((Some(cursor.u16()?), name))
    }
}

/// A hash of a question (FNV-1a); servers may answer in other letters' cases.
fn hash(kind: u16, name: &str) -> u32 {
    let bytes = name.bytes().map(|byte| byte.to_ascii_lowercase()).chain(kind.to_be_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Dissector for Dns {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if cx.transport() == Transport::Udp {
            self.message(direction, bytes, cx)?;
            return Ok(Progress::Consumed(bytes.len()));
        }
        let mut cursor = Cursor::new(bytes);
        let Ok(length) = cursor.u16() else { return Ok(Progress::Need(1)) };
        let length = usize::from(length);
        if length < HEADER {
            return Err(Malformed("a message shorter than its header"));
        }
        let Ok(message) = cursor.take(length) else { return Ok(Progress::Need(length - cursor.remaining())) };
        self.message(direction, message, cx)?;
        Ok(Progress::Consumed(cursor.position()))
    }
}

const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;

/// A message's first twelve bytes (RFC 1035 section 4.1.1).
#[derive(Clone, Copy, Debug)]
struct Header {
    id: u16,
    flags: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

impl Header {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: cursor.u16()?,
            flags: cursor.u16()?,
            questions: cursor.u16()?,
            answers: cursor.u16()?,
            authorities: cursor.u16()?,
            additionals: cursor.u16()?,
        })
    }

    fn flag(&self, mask: u16) -> bool {
        self.flags & mask != 0
    }

    fn is_response(&self) -> bool {
        self.flag(RESPONSE)
    }

    fn opcode(&self) -> u8 {
        (self.flags >> 11 & 15) as u8
    }

    /// The lower four bits of the response code.
    fn rcode(&self) -> u16 {
        self.flags & 15
    }

    /// How many records the three sections after the questions have, by their counts.
    fn records(&self) -> u32 {
        u32::from(self.answers) + u32::from(self.authorities) + u32::from(self.additionals)
    }

    /// The response code with the bits that the OPT record adds, if there is one (RFC 6891 section 6.1.3). `cursor` is after
    /// the header.
    fn extended_rcode(&self, mut cursor: Cursor<'_>) -> u16 {
        let mut upper = || {
            for _ in 0..self.questions {
                Question::skip(&mut cursor).ok()?;
            }
            for _ in 0..u32::from(self.answers) + u32::from(self.authorities) {
                record::skip(&mut cursor).ok()?;
            }
            for _ in 0..self.additionals {
                let head = record::skip(&mut cursor).ok()?;
                if head.kind == rr::OPT {
                    return Some((head.ttl >> 24) as u16);
                }
            }
            None
        };
        if self.additionals == 0 { self.rcode() } else { upper().unwrap_or(0) << 4 | self.rcode() }
    }

    /// True if the fields make sense together; more is let pass on the usual port.
    fn is_sane(&self, kind: Kind, hinted: bool) -> bool {
        let reserved = self.flags & 0x0040 != 0;
        if !matches!(self.opcode(), 0..=2 | 4..=6) {
            return false;
        }
        match kind {
            // LLMNR and mDNS use the bits otherwise; their ports are proof enough of that.
            Kind::Multicast | Kind::LinkLocal => return true,
            Kind::Unicast if self.questions > MAX_QUESTIONS => return false,
            Kind::Unicast if !hinted && (reserved || self.questions > 1) => return false,
            Kind::Unicast => {}
        }
        // Records in a query are unusual but for a notification, an update or a transfer from a serial number on.
        let bare = self.answers == 0 && self.authorities <= 1;
        self.is_response() || (self.rcode() == 0 && (bare || hinted || matches!(self.opcode(), 4..=6)))
    }
}

/// A question without its name.
struct Question {
    kind: u16,
    class: u16,
}

impl Question {
    fn skip(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        name::skip(cursor)?;
        Ok(Self { kind: cursor.u16()?, class: cursor.u16()? })
    }

    fn is_sane(&self, kind: Kind, hinted: bool) -> bool {
        // In mDNS the highest bit asks for a unicast answer.
        let class = if kind == Kind::Multicast { self.class & 0x7fff } else { self.class };
        matches!(class, 1 | 3 | 4 | 254 | 255) && (hinted || record::is_common(self.kind))
    }
}

/// Every field of a message, and whether all records that the header counts are there. `cursor` is after the header.
fn detail<'a>(header: &Header, mut cursor: Cursor<'a>, bytes: &'a [u8], kind: Kind) -> (Value, bool) {
    let multicast = kind == Kind::Multicast;
    let start = cursor;
    let mut whole = true;
    let mut questions = Vec::new();
    for _ in 0..header.questions {
        match question(&mut cursor, bytes, multicast) {
            Ok(question) => questions.push(question),
            Err(_) => whole = false,
        }
        if !whole {
            break;
        }
    }
    let mut section = |count: u16| {
        let mut records = Vec::new();
        for _ in 0..count {
            match record::parse(&mut cursor, bytes, multicast) {
                Ok(record) if whole => records.push(record),
                _ => {
                    whole = false;
                    break;
                }
            }
        }
        Value::List(records)
    };
    let (answers, authorities, additionals) =
        (section(header.answers), section(header.authorities), section(header.additionals));
    // An update uses the sections for other things (RFC 2136 section 2).
    let [first, second, third] = match header.opcode() {
        5 => ["zone", "prerequisites", "updates"],
        _ => ["questions", "answers", "authorities"],
    };
    let value = fields! {
        "id" => header.id,
        "opcode" => opcode_name(header.opcode()),
        "flags" => flags(header, kind),
        "rcode" => header.is_response().then(|| rcode_name(header.extended_rcode(start))),
        first => questions,
        second => answers,
        third => authorities,
        "additionals" => additionals,
    };
    (value, whole)
}

fn question<'a>(cursor: &mut Cursor<'a>, bytes: &'a [u8], multicast: bool) -> Result<Value, Malformed> {
    let name = name::parse(cursor, bytes)?;
    let (kind, class) = (cursor.u16()?, cursor.u16()?);
    let unicast = multicast && class & 0x8000 != 0;
    let class = class_name(if unicast { class & 0x7fff } else { class });
    let mut fields =
        vec![("name".into(), name.into()), ("type".into(), type_name(kind).into()), ("class".into(), class.into())];
    if unicast {
        fields.push(("unicast_response".into(), true.into()));
    }
    Ok(Value::Map(fields))
}

/// The names of the flags that are set.
fn flags(header: &Header, kind: Kind) -> Value {
    let names: &[(u16, &'static str)] = match kind {
        Kind::LinkLocal => &[(RESPONSE, "qr"), (0x0400, "c"), (TRUNCATED, "tc"), (0x0100, "t")],
        Kind::Unicast | Kind::Multicast => &[
            (RESPONSE, "qr"),
            (0x0400, "aa"),
            (TRUNCATED, "tc"),
            (0x0100, "rd"),
            (0x0080, "ra"),
            (0x0020, "ad"),
            (0x0010, "cd"),
        ],
    };
    Value::List(names.iter().filter(|(mask, _)| header.flag(*mask)).map(|(_, name)| Value::from(*name)).collect())
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    /// A query for the address of `a.b`.
    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01";

    fn verdict(transport: Transport, port: u16, data: &[u8]) -> Verdict {
        probe(&Probe { transport, direction: Direction::ToServer, data, port, start: true, cut: false })
    }

    #[test]
    fn queries_are_known_on_any_port() {
        assert_eq!(verdict(Transport::Udp, 53, QUERY), Verdict::Yes);
        assert_eq!(verdict(Transport::Udp, 40_000, QUERY), Verdict::Yes);
        let framed = [b"\0\x15", QUERY].concat();
        assert_eq!(verdict(Transport::Tcp, 40_000, &framed), Verdict::Yes);
        assert_eq!(verdict(Transport::Tcp, 40_000, &framed[..9]), Verdict::More);
        assert_eq!(verdict(Transport::Tcp, 40_000, b"\x01\x00\x12\x34\x81"), Verdict::No);
    }

    #[test]
    fn other_datagrams_are_not() {
        assert_eq!(verdict(Transport::Udp, 53, b"hello, this is no name query"), Verdict::No);
        // One byte too many for the counts.
        assert_eq!(verdict(Transport::Udp, 40_000, &[QUERY, b"x"].concat()), Verdict::No);
        let netbios = [b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x20".as_slice(), &[b'C'; 32], b"\0\0\x20\0\x01"].concat();
        assert_eq!(verdict(Transport::Udp, 137, &netbios), Verdict::No);
    }

    #[test]
    fn noise_is_not() {
        let mut state = 1u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for _ in 0..100_000 {
            let datagram: Vec<u8> = (0..12 + byte() % 64).map(|_| byte()).collect();
            assert_eq!(verdict(Transport::Udp, 40_000, &datagram), Verdict::No);
            assert_ne!(verdict(Transport::Udp, 53, &datagram), Verdict::Yes, "{datagram:02x?}");
        }
    }

    #[test]
    fn a_response_is_the_servers() {
        let mut response = QUERY.to_vec();
        if let Some(byte) = response.get_mut(2) {
            *byte |= 0x80;
        }
        assert_eq!(verdict(Transport::Udp, 53, &response), Verdict::No);
    }
}
