//! Tells Kafka from other protocols with lengths in front, and finds the next message in the middle of a stream.

use super::PROTOCOL;
use super::header::{self, Fault, MAX_REQUEST};
use super::reading::{Reading, Topics};
use super::schema::Api;
use super::walk::{Walk, Walked};
use crate::dissect::{Probe, Verdict};
use crate::entry::Direction;

/// How far a message's start is searched.
const MAX_SEARCH: usize = 4096;
/// How many responses in a row are looked at.
const MAX_LOOKED_AT: usize = 8;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    match probe.direction {
        Direction::ToServer => match request(probe.data) {
            Verdict::No if !probe.start => {
                let found = boundary(probe.data, |bytes| request(bytes) == Verdict::Yes);
                if found.is_some() { Verdict::Yes } else { Verdict::No }
            }
            // Half a request says little unless it comes to where Kafka is expected.
            Verdict::Maybe if !PROTOCOL.ports.contains(&probe.port) => Verdict::More,
            verdict => verdict,
        },
        Direction::ToClient => responses(probe.data),
    }
}

/// Where a message starts, if it is not at once.
pub(super) fn boundary(bytes: &[u8], is_start: impl Fn(&[u8]) -> bool) -> Option<usize> {
    // Lengths of less than 16 MiB start with a 0.
    memchr::memchr_iter(0, bytes.get(..MAX_SEARCH).unwrap_or(bytes)).find(|&at| bytes.get(at..).is_some_and(&is_start))
}

/// Whether the bytes are a request, as far as they go.
pub(super) fn request(bytes: &[u8]) -> Verdict {
    let header = match header::request(bytes, true) {
        Ok(header) => header,
        Err(Fault::Short) => return Verdict::More,
        Err(Fault::No) => return Verdict::No,
    };
    let Some((api, version)) = header.schema() else { return Verdict::Maybe };
    let known = version == header.version;
    let body = u64::from(header.size) + 4 - header.len as u64;
    let mut walk = Walk::default();
    walk.start(api, true, version, header.is_tagged(), body);
    let (mut reading, mut topics) = (Reading::default(), Topics::default());
    let rest = bytes.get(header.len..).unwrap_or_default();
    match walk.run(rest, &mut reading, &mut topics) {
        _ if reading.odd => Verdict::No,
        Err(_) if known => Verdict::No,
        Ok(Walked::Done(_)) if known && walk.left() > 0 => Verdict::No,
        Ok(Walked::Done(_)) if known => Verdict::Yes,
        // It came to a value that is longer than what is there.
        Ok(Walked::On(n)) if n > rest.len() && header.client.is_some_and(|client| !client.is_empty()) => Verdict::Yes,
        _ => Verdict::Maybe,
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
    let (mut reading, mut topics) = (Reading::default(), Topics::default());
    walk.run(bytes, &mut reading, &mut topics).is_ok() && !reading.odd
}
