//! Blocks that are no packets → notes: names, and what agents tell in custom blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use byteorder_slice::ByteOrder;

use super::body::{Body, text};
use crate::capture::Note;

/// The names in a name resolution block.
pub(super) fn names<B: ByteOrder>(body: &Body<'_, B>) -> Vec<Note> {
    let mut notes = Vec::new();
    for (code, record) in body.options(0) {
        let (address, names) = match code {
            1 => match record.bytes.split_first_chunk::<4>() {
                Some((octets, names)) => (IpAddr::V4(Ipv4Addr::from(*octets)), names),
                None => continue,
            },
            2 => match record.bytes.split_first_chunk::<16>() {
                Some((octets, names)) => (IpAddr::V6(Ipv6Addr::from(*octets)), names),
                None => continue,
            },
            _ => continue,
        };
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        notes.extend(names.map(|name| Note::Name(address, text(name))));
    }
    notes
}

/// A custom block of ours, after the enterprise number: kind (little-endian), then JSON that zeros fill up.
pub(super) fn ours(data: &[u8]) -> Option<Note> {
    let (kind, json) = data.split_first_chunk::<4>()?;
    let end = json.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let json = json.get(..end)?;
    match u32::from_le_bytes(*kind) {
        1 => Some(Note::Hello(text(json))),
        2 => {
            #[derive(serde::Deserialize)]
            struct Flushed {
                from: u64,
                count: u64,
            }
            let Flushed { from, count } = serde_json::from_slice(json).ok()?;
            Some(Note::Flushed { from, count })
        }
        3 => Some(Note::End(text(json))),
        4 => {
            #[derive(serde::Deserialize)]
            struct Filtered {
                from: u64,
                next: u64,
                count: u64,
            }
            let Filtered { from, next, count } = serde_json::from_slice(json).ok()?;
            Some(Note::Filtered { from, next, count })
        }
        5 => serde_json::from_slice(json).ok().map(Note::Probes),
        _ => None,
    }
}
