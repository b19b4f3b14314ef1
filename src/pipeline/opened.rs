//! Connections whose plaintext has come otherwise: no row says that they stay closed.
//!
//! A TLS connection whose handshake was not seen has a row that says so, with its first record. If a probe has read what it
//! says, rows of that tell more, and come a moment later.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;

use crate::dissect::tls;
use crate::entry::{Endpoint, Entry, Timestamp};

/// How long, in nanoseconds, a row waits for a better one.
const PATIENCE: i64 = 2_000_000_000;
/// The most rows that wait.
const MAX_HELD: usize = 1000;
/// The most connections that are remembered.
const MAX_OPENED: usize = 100_000;

/// A connection at a tap: its ends in order.
type Key = (u32, [(IpAddr, u16); 2]);

fn key(entry: &Entry) -> Key {
    let mut ends = [&entry.src, &entry.dst].map(|end: &Endpoint| (end.ip, end.port));
    ends.sort_unstable();
    (entry.tap, ends)
}

/// True for the row of a connection whose handshake was not seen.
fn is_closed(entry: &Entry) -> bool {
    entry.protocol == "tls" && entry.operation == "application data" && entry.response.is_none()
}

/// Knows which connections are open to read.
#[derive(Default)]
pub struct Opened {
    known: HashSet<Key>,
    held: VecDeque<(Timestamp, Box<Entry>)>,
}

impl Opened {
    /// Takes an entry at time `now` and hands on what is ready.
    pub fn offer(&mut self, entry: Box<Entry>, now: Timestamp, out: &mut impl FnMut(Box<Entry>)) {
        self.tick(now, out);
        if entry.decrypted.is_some_and(|origin| tls::keys::probe(origin).is_some()) {
            if self.known.len() >= MAX_OPENED {
                self.known.clear();
            }
            let key = key(&entry);
            self.held.retain(|(_, held)| self::key(held) != key);
            self.known.insert(key);
        } else if is_closed(&entry) {
            if self.known.contains(&key(&entry)) {
                return;
            }
            if self.held.len() < MAX_HELD {
                self.held.push_back((now, entry));
                return;
            }
        }
        out(entry);
    }

    /// Hands on what has waited long enough.
    pub fn tick(&mut self, now: Timestamp, out: &mut impl FnMut(Box<Entry>)) {
        while let Some((_, entry)) = self.held.pop_front_if(|(since, _)| now.since(*since) > PATIENCE) {
            out(entry);
        }
    }

    /// Hands on all that is held.
    pub fn finish(&mut self, out: &mut impl FnMut(Box<Entry>)) {
        for (_, entry) in std::mem::take(&mut self.held) {
            out(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of a connection between those ports, at a time in seconds.
    fn entry(ports: [u16; 2], decrypted: Option<&'static str>, time: i64) -> Box<Entry> {
        let [src, dst] = ports.map(|port| Endpoint::new(IpAddr::from([10, 0, 0, 1]), port));
        let (protocol, operation) = if decrypted.is_some() { ("http", "GET") } else { ("tls", "application data") };
        Box::new(Entry {
            time: Timestamp(time * 1_000_000_000),
            operation: operation.into(),
            decrypted,
            tap: 1,
            ..Entry::new(protocol, src, dst)
        })
    }

    /// The source port and protocol of what is handed on.
    fn run(entries: Vec<Box<Entry>>) -> Vec<(u16, &'static str)> {
        let (mut opened, mut rows) = (Opened::default(), Vec::new());
        for entry in entries {
            let now = entry.time;
            opened.offer(entry, now, &mut |entry| rows.push((entry.src.port, entry.protocol)));
        }
        opened.finish(&mut |entry| rows.push((entry.src.port, entry.protocol)));
        rows
    }

    #[test]
    fn a_connection_that_can_be_read_is_not_called_closed() {
        let probe = Some("uprobe:openssl");
        let wanted = [(1, "http"), (3, "tls")];
        // Whichever comes first, and whoever of the two speaks.
        assert_eq!(run(vec![entry([1, 443], None, 0), entry([3, 443], None, 0), entry([1, 443], probe, 1)]), wanted);
        assert_eq!(run(vec![entry([1, 443], probe, 0), entry([3, 443], None, 0), entry([443, 1], None, 1)]), wanted);
        // Keys of a file are of another connection.
        let keyed = vec![entry([1, 443], None, 0), entry([1, 443], Some("keylog"), 1)];
        assert_eq!(run(keyed), [(1, "http"), (1, "tls")]);
    }

    #[test]
    fn a_row_waits_for_a_better_one_a_while_only() {
        let rows = run(vec![entry([1, 443], None, 0), entry([1, 443], Some("uprobe:go"), 3)]);
        assert_eq!(rows, [(1, "tls"), (1, "http")]);
    }
}
