//! Tells Kafka from other protocols with lengths in front, and finds the next message in the middle of a stream.

use super::PROTOCOL;
use super::header::{self, Fault, MAX_REQUEST};
use super::reading::{Reading, Topics};
use super::schema::Api;
use super::walk::{Walk, Walked};
use crate::dissect::boundary::Boundary;
use crate::dissect::{Probe, Verdict};
use crate::entry::Direction;

/// How far a message's start is searched.
const MAX_SEARCH: usize = 4096;
/// How many bytes wait for it to be told whether a message starts in them.
const MAX_WAITING: usize = 512;
/// The shortest client id that says that this is Kafka.
const MIN_CLIENT_ID: usize = 3;
/// How many responses in a row are looked at.
const MAX_LOOKED_AT: usize = 8;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    let hinted = PROTOCOL.ports.contains(&probe.port);
    match (probe.direction, probe.start) {
        (Direction::ToServer, true) => match request(probe.data, Doubt::Little) {
            // Half a request says little unless it comes to where Kafka is expected.
            Verdict::Maybe if !hinted => Verdict::More,
            verdict => verdict,
        },
        (Direction::ToServer, false) => {
            let doubt = if hinted { Doubt::Some } else { Doubt::Much };
            match seek(probe.data, doubt) {
                Boundary::At(at) if at > 0 || request(probe.data, doubt) == Verdict::Yes => Verdict::Yes,
                Boundary::At(_) if hinted => Verdict::Maybe,
                Boundary::At(_) | Boundary::Wait => Verdict::More,
                Boundary::No => Verdict::No,
            }
        }
        (Direction::ToClient, _) => responses(probe.data),
    }
}

/// How little is known of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// They are a client's first.
    Little,
    /// They may begin anywhere.
    Some,
    /// The same, and nothing points to Kafka.
    Much,
}

/// Finds the start of a request.
pub(super) fn seek(bytes: &[u8], doubt: Doubt) -> Boundary {
    if matches!(request(bytes, doubt), Verdict::Maybe | Verdict::Yes) {
        return Boundary::At(0);
    }
    let mut wait = false;
    let found = boundary(bytes, |bytes| {
        let verdict = request(bytes, doubt);
        wait |= verdict != Verdict::No;
        verdict == Verdict::Yes
    });
    match found {
        Some(at) => Boundary::At(at),
        None if wait && bytes.len() < MAX_WAITING => Boundary::Wait,
        None => Boundary::No,
    }
}

/// Where bytes begin that start a message.
pub(super) fn boundary(bytes: &[u8], mut is_start: impl FnMut(&[u8]) -> bool) -> Option<usize> {
    // Lengths of less than 16 MiB start with a 0.
    memchr::memchr_iter(0, bytes.get(..MAX_SEARCH).unwrap_or(bytes))
        .find(|&at| bytes.get(at..).is_some_and(&mut is_start))
}

/// Whether the bytes are a request, as far as they go.
fn request(bytes: &[u8], doubt: Doubt) -> Verdict {
    let header = match header::request(bytes, true) {
        Ok(header) => header,
        Err(Fault::Short) => return Verdict::More,
        Err(Fault::No) => return Verdict::No,
    };
    let shortest = if doubt == Doubt::Much { MIN_CLIENT_ID } else { 1 };
    let named = header.client.is_some_and(|client| client.len() >= shortest);
    let Some((api, version)) = header.schema() else {
        return if named { Verdict::Maybe } else { Verdict::No };
    };
    let known = version == header.version;
    let body = u64::from(header.size) + 4 - header.len as u64;
    let mut walk = Walk::default();
    walk.start(api, true, version, header.is_tagged(), body);
    let (mut reading, mut topics) = (Reading::strict(), Topics::default());
    let rest = bytes.get(header.len..).unwrap_or_default();
    let walked = walk.run(rest, &mut reading, &mut topics);
    // Zeros could be a request that names nothing.
    let named = named || reading.named && doubt != Doubt::Much;
    match walked {
        _ if reading.odd => Verdict::No,
        Err(_) if known || !named => Verdict::No,
        Ok(Walked::Done(_)) if known && walk.left() > 0 => Verdict::No,
        Ok(Walked::Done(_)) if known && named => Verdict::Yes,
        Ok(Walked::Done(_)) if known && doubt == Doubt::Little => Verdict::Maybe,
        Ok(Walked::Done(_)) if !named => Verdict::No,
        // It came to a value that is longer than what is there.
        Ok(Walked::On(n)) if n > rest.len() && named => Verdict::Yes,
        _ if named => Verdict::Maybe,
        _ => Verdict::More,
    }
}

/// Whether the bytes may be responses: without their requests, they are lengths and small numbers.
fn responses(bytes: &[u8]) -> Verdict {
    let mut rest = bytes;
    for looked_at in 0..MAX_LOOKED_AT {
        let Ok((size, correlation)) = header::response(rest) else {
            return match rest.first() {
                _ if looked_at > 0 => Verdict::Maybe,
                Some(0) | None => Verdict::More,
                Some(_) => Verdict::No,
            };
        };
        if !(4..=MAX_REQUEST).contains(&size) || correlation < 0 {
            return Verdict::No;
        }
        match rest.get(4 + size as usize..) {
            Some(next) if !next.is_empty() => rest = next,
            _ => break,
        }
    }
    Verdict::Maybe
}

/// Whether the bytes are the body of a response, as far as they go.
pub(super) fn fits(api: &Api, version: u8, tagged: bool, len: u64, bytes: &[u8]) -> bool {
    let mut walk = Walk::default();
    walk.start(api, false, version, tagged, len);
    let (mut reading, mut topics) = (Reading::strict(), Topics::default());
    walk.run(bytes, &mut reading, &mut topics).is_ok() && !reading.odd
}
