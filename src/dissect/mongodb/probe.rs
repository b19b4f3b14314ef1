//! Tells MongoDB from other protocols: a header whose numbers agree with the start of its body.

use super::PROTOCOL;
use super::compression::Compressed;
use super::walk::{Element, Fault};
use super::wire::{CHECKSUM, EXHAUST_ALLOWED, HEADER, Head, Header, MORE_TO_COME, Opcode};
use crate::dissect::boundary::Boundary;
use crate::dissect::{Cursor, Malformed, Probe, Verdict};
use crate::entry::Direction;

/// What a message that answers none says that it answers; some old clients say -1.
const NONE: [u32; 2] = [0, u32::MAX];
/// The longest name of a command or first field.
const MAX_NAME: usize = 256;
/// How many bytes of a message are looked at before it has to be told.
const MAX_LOOKED_AT: usize = 2048;
/// How far the start of a message is searched: as far as segments get that a network card or kernel joined.
const MAX_SEARCH: usize = 64 << 10;
/// How many bytes are waited for that a start may need to be told.
const MAX_WAIT: usize = 4096;
/// Where in a header the opcode is.
const OPCODE: usize = 12;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    let verdict = message(probe.direction, probe.data);
    if probe.start || verdict >= Verdict::Maybe {
        return verdict;
    }
    match boundary(probe.direction, probe.data) {
        Boundary::At(_) => Verdict::Yes,
        // What is left of a message may be long, and another follows.
        _ if PROTOCOL.ports.contains(&probe.port) => Verdict::More,
        Boundary::Wait => verdict,
        Boundary::No => Verdict::No,
    }
}

/// Finds the start of a message: here, or anywhere if it can hardly be anything else.
pub(super) fn boundary(direction: Direction, bytes: &[u8]) -> Boundary {
    if message(direction, bytes) >= Verdict::Maybe {
        return Boundary::At(0);
    }
    let searched = bytes.get(..MAX_SEARCH).unwrap_or(bytes);
    for at in 1..searched.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let opcode = rest.get(OPCODE..).and_then(<[u8]>::first_chunk::<4>);
        if opcode.is_some_and(|opcode| Opcode::of(u32::from_le_bytes(*opcode)).is_some())
            && message(direction, rest) == Verdict::Yes
        {
            return Boundary::At(at);
        }
    }
    if bytes.len() < MAX_WAIT { Boundary::Wait } else { Boundary::No }
}

/// Whether a message starts here.
fn message(direction: Direction, bytes: &[u8]) -> Verdict {
    let header = match Header::peek(bytes) {
        Ok(Some(header)) => header,
        Ok(None) => return Verdict::More,
        Err(_) => return Verdict::No,
    };
    if !may_come(header.opcode, direction) {
        return Verdict::No;
    }
    let asks = NONE.contains(&header.response_to);
    let verdict = match direction {
        Direction::ToServer if !asks => return Verdict::No,
        // The answer to a request with the number 0, or a request.
        Direction::ToClient if asks && !header.opcode.is_answer() => Verdict::Maybe,
        _ => Verdict::Yes,
    };
    let bytes = bytes.get(..header.len).unwrap_or(bytes);
    match plausible(&header, &mut Cursor::new(bytes.get(HEADER..).unwrap_or_default())) {
        Ok(true) => verdict,
        Err(_) if bytes.len() < header.len.min(MAX_LOOKED_AT) => Verdict::More,
        Ok(false) | Err(_) => Verdict::No,
    }
}

/// True if that side sends such messages.
pub(super) fn may_come(opcode: Opcode, direction: Direction) -> bool {
    matches!(opcode, Opcode::Msg | Opcode::Compressed) || opcode.is_answer() == (direction == Direction::ToClient)
}

/// Whether the body starts as its opcode says; an error if too little of it is there.
fn plausible(header: &Header, body: &mut Cursor<'_>) -> Result<bool, Malformed> {
    let left = header.len - HEADER;
    if header.opcode == Opcode::Compressed {
        let head = body.take(Compressed::HEAD)?;
        return Ok(left > Compressed::HEAD && Compressed::parse(&mut Cursor::new(head)).is_ok());
    }
    let start = body.remaining();
    let head = Head::parse(header.opcode, body)?;
    let left = left.saturating_sub(start - body.remaining());
    let named = |name: &[u8]| name.contains(&b'.') && name.iter().all(|byte| *byte >= b' ');
    Ok(match header.opcode {
        Opcode::Msg => {
            if head.flags & !(CHECKSUM | MORE_TO_COME | EXHAUST_ALLOWED) != 0 {
                return Ok(false);
            }
            match body.u8()? {
                0 => document(body, left.saturating_sub(1))?,
                1 => {
                    let size = body.u32_le()? as usize;
                    let identifier = body.until(0)?;
                    size < left && size > 5 && !identifier.is_empty() && identifier.iter().all(u8::is_ascii_graphic)
                }
                _ => false,
            }
        }
        Opcode::Query => named(head.namespace) && head.flags < 1 << 8 && document(body, left)?,
        Opcode::Reply => {
            let [start, count] = head.counts;
            let empty = count == 0 && left == 0;
            head.flags < 1 << 4 && start >= 0 && count >= 0 && (empty || document(body, left)?)
        }
        Opcode::Insert | Opcode::Update | Opcode::Delete => {
            named(head.namespace) && head.flags < 4 && document(body, left)?
        }
        Opcode::GetMore => named(head.namespace) && left == 0,
        Opcode::KillCursors => usize::try_from(head.counts[1]).is_ok_and(|count| count.checked_mul(8) == Some(left)),
        Opcode::Command => !head.namespace.is_empty() && !head.command.is_empty() && document(body, left)?,
        Opcode::CommandReply => document(body, left)?,
        Opcode::Compressed => false,
    })
}

/// Whether a document starts here that fits into what is left.
fn document(body: &mut Cursor<'_>, left: usize) -> Result<bool, Malformed> {
    let len = body.u32_le()? as usize;
    if len < 5 || len > left {
        return Ok(false);
    }
    let element = match Element::read(body) {
        Ok(Some(element)) => element,
        Ok(None) => return Ok(len == 5),
        Err(Fault::Short) => return Err(Malformed("ends too early")),
        Err(Fault::Malformed(_)) => return Ok(false),
    };
    let name = element.name;
    Ok(element.size < len
        && name.len() <= MAX_NAME
        && std::str::from_utf8(name).is_ok_and(|name| !name.contains(char::is_control)))
}
