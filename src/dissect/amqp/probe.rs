//! Tells AMQP from other protocols, and finds the next frame in the middle of a stream.

use super::content::Header;
use super::frame::{END, Frame, HEAD, Kind, MAX_CONTROL};
use super::method::{BASIC, CONNECTION, Method, START, Sender};
use super::{PROTOCOL, PROTOCOL_HEADERS};
use crate::dissect::boundary::Boundary;
use crate::dissect::{Cursor, Probe, Verdict};
use crate::entry::Direction;

/// How many frames are looked at.
const MAX_LOOKED_AT: usize = 16;
/// How far the start of a frame is searched: as far as segments get that a network card or kernel joined.
const MAX_SEARCH: usize = 64 << 10;
/// How many bytes are waited for that a start may need to be told.
const MAX_WAIT: usize = 4096;
/// A method with its class and number.
const METHOD: usize = HEAD + 4;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    if probe.data.is_empty() {
        return Verdict::More;
    }
    match (probe.start, probe.direction) {
        // The first bytes of a connection are the protocol header, and connection.start from the server. Other versions
        // have headers of their own.
        (true, Direction::ToServer) => {
            let begins = |header: &[u8; 8]| probe.data.starts_with(header) || header.starts_with(probe.data);
            match PROTOCOL_HEADERS.into_iter().find(|header| begins(header)) {
                Some(header) if probe.data.len() >= header.len() => Verdict::Yes,
                Some(_) => Verdict::More,
                None => Verdict::No,
            }
        }
        (true, Direction::ToClient) => {
            let method = probe.data.get(HEAD..METHOD).and_then(|payload| Method::parse(&mut Cursor::new(payload)).ok());
            match method {
                _ if probe.data.first() != Some(&1) => Verdict::No,
                Some(method) if (method.class, method.id) != (CONNECTION, START) => Verdict::No,
                _ => frames(probe.direction, probe.data).verdict,
            }
        }
        (false, _) => match boundary(probe.direction, probe.data) {
            Boundary::At(0) => frames(probe.direction, probe.data).verdict,
            Boundary::At(at) => {
                frames(probe.direction, probe.data.get(at..).unwrap_or_default()).verdict.max(Verdict::Maybe)
            }
            Boundary::Wait => Verdict::More,
            // A body may be long.
            Boundary::No if PROTOCOL.ports.contains(&probe.port) => Verdict::More,
            Boundary::No => Verdict::No,
        },
    }
}

/// Finds the start of a frame: here, or behind the end of another if a whole one follows.
pub(super) fn boundary(direction: Direction, bytes: &[u8]) -> Boundary {
    let mut wait = false;
    match frames(direction, bytes).verdict {
        Verdict::Maybe | Verdict::Yes => return Boundary::At(0),
        Verdict::More => wait = true,
        Verdict::No => {}
    }
    let searched = bytes.get(..MAX_SEARCH).unwrap_or(bytes);
    for at in memchr::memchr_iter(END, searched).map(|end| end + 1) {
        let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { continue };
        let found = frames(direction, rest);
        if found.whole {
            return Boundary::At(at);
        }
        wait |= found.verdict != Verdict::No;
    }
    if wait && bytes.len() < MAX_WAIT { Boundary::Wait } else { Boundary::No }
}

/// What the frames at the start of some bytes tell.
struct Found {
    verdict: Verdict,
    /// A frame that is more than a head and an end was there whole.
    whole: bool,
}

/// Looks at a few frames one after the other, as far as they are there. Only what one side alone may send is proof; the rest
/// tells little of who is who.
fn frames(direction: Direction, bytes: &[u8]) -> Found {
    const NO: Found = Found { verdict: Verdict::No, whole: false };
    let mut found = Found { verdict: Verdict::More, whole: false };
    let mut rest = bytes;
    for _ in 0..MAX_LOOKED_AT {
        let frame = match Frame::peek(rest) {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(_) => return NO,
        };
        let payload = frame.payload(rest);
        if payload.is_some_and(|(_, ended)| !ended) || (frame.channel == 0) && frame.kind.has_channel() {
            return NO;
        }
        let seen = rest.get(HEAD..).unwrap_or_default();
        match frame.kind {
            Kind::Method => {
                let Some(seen) = seen.get(..4) else { break };
                let Ok(method) = Method::parse(&mut Cursor::new(seen)) else { return NO };
                if !method.may_come(direction, frame.channel) {
                    return NO;
                }
                let Some((payload, _)) = payload else {
                    found.verdict = found.verdict.max(Verdict::Maybe);
                    break;
                };
                let mut arguments = Cursor::new(payload);
                let read = arguments.skip(4).is_ok() && method.facts(&mut arguments).is_ok();
                if !read || !arguments.is_empty() {
                    return NO;
                }
                let verdict = if method.sender == Sender::Both { Verdict::Maybe } else { Verdict::Yes };
                found = Found { verdict: found.verdict.max(verdict), whole: true };
            }
            Kind::Header => match payload.map(|(payload, _)| Header::parse(payload)) {
                Some(Ok(header)) if header.is_exact() => found.whole = true,
                Some(_) => return NO,
                None => match seen.first_chunk::<4>() {
                    Some([a, b, 0, 0]) if u16::from_be_bytes([*a, *b]) == BASIC => {}
                    Some(_) => return NO,
                    None => break,
                },
            },
            Kind::Heartbeat => match payload {
                Some(_) => found.whole = true,
                None => break,
            },
            // A head alone is little to go by.
            Kind::Body if frame.size == 0 || payload.is_none() && frame.size > MAX_CONTROL => return NO,
            Kind::Body => {}
        }
        found.verdict = found.verdict.max(Verdict::Maybe);
        match rest.get(frame.len()..) {
            Some(next) if !next.is_empty() => rest = next,
            _ => break,
        }
    }
    found
}

impl Kind {
    /// Methods tell by their class; content never has channel 0, and heartbeats have no other.
    fn has_channel(self) -> bool {
        matches!(self, Self::Header | Self::Body)
    }
}
