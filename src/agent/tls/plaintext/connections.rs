//! From what the programs in the kernel tell to packets of connections.
//!
//! Which socket a connection is of shows when it is written to; what is read before that waits. Where both ends are in the target,
//! what one of them tells is enough.

use std::collections::HashMap;

use super::super::socket::Ends;
use super::packet;
use crate::agent::made::Made;
use crate::capture::pcapng::Direction;

/// The most connections that are known at a time.
const MOST: usize = 2048;

/// The most bytes that wait for the socket of their connection, and of all.
const MOST_WAITING: usize = 128 << 10;
const MOST_WAITING_IN_ALL: usize = 512 << 10;

/// The most plaintext in a record.
const RECORD: u32 = 16_384;

/// The most that a record's size is above that of its plaintext: vector, checksum and padding.
const ADDED: u32 = 17 + 16 + 48 + 256;

/// Size of an event's head.
const HEAD: usize = 48;

/// Kinds of events, as in probes/plaintext.c.
const BYTES: u32 = 1;
const PLACE: u32 = 2;

/// Names of libraries by their numbers in probes/events.h, from 1.
const ORIGINS: [&str; 4] = ["uprobe:openssl", "uprobe:boringssl", "uprobe:gnutls", "uprobe:go"];

/// An event, as a program in the kernel wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    origin: &'static str,
    direction: Direction,
    process: u32,
    connection: u64,
    pub(super) time: u64,
    what: What<'a>,
}

#[derive(Clone, Copy, Debug)]
enum What<'a> {
    /// Bytes, and how many there were before them.
    Bytes(u64, &'a [u8]),
    /// A descriptor that something is sent or received by. Sent is a record of that size, after so much was to be encrypted, which the
    /// library has done (if it is over) or is about to do.
    Place { descriptor: u32, record: u32, size: u32, is_over: bool },
}

/// The connections that the probes tell of.
pub(super) struct Connections {
    all: HashMap<(u32, u64), Connection>,
    /// By their ends in order, the one that tells of them.
    told: HashMap<Ends, (u32, u64)>,
    /// Finds the ends of a process's descriptor.
    ends: fn(u32, u32) -> Option<Ends>,
    /// Bytes that wait, of all.
    waiting: usize,
    /// How many events there were.
    events: u64,
    /// Bytes that were given up since nothing told their socket.
    pub(super) lost: u64,
}

#[derive(Default)]
struct Connection {
    /// The descriptor, and its ends.
    place: Option<(u32, Ends)>,
    /// Bytes received and sent so far.
    next: [u64; 2],
    /// What waits for the place: which way it went, when, how many bytes were before, the bytes.
    waiting: Vec<(Direction, u64, u64, Vec<u8>)>,
    held: usize,
    /// The last event of it.
    last: u64,
}

impl<'a> Event<'a> {
    /// None if it makes no sense.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let word = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let long = |at: usize| head.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        let (at, size) = (long(32)?, word(40)?);
        let what = match word(0)? {
            BYTES => What::Bytes(at, rest.get(..size as usize)?),
            PLACE => What::Place { descriptor: at as u32, record: (at >> 32) as u32, size, is_over: word(44)? != 0 },
            _ => return None,
        };
        Some(Self {
            origin: ORIGINS.get((word(4)? as usize).checked_sub(1)?)?,
            direction: if word(8)? == 0 { Direction::Inbound } else { Direction::Outbound },
            process: word(12)?,
            connection: long(16)?,
            time: long(24)?,
            what,
        })
    }
}

impl Connections {
    pub(super) fn new(ends: fn(u32, u32) -> Option<Ends>) -> Self {
        Self { all: HashMap::new(), told: HashMap::new(), ends, waiting: 0, events: 0, lost: 0 }
    }

    /// Takes an event; appends the packets that follow from it.
    pub(super) fn event(&mut self, event: &Event<'_>, made: &mut Vec<Made>) {
        let key = (event.process, event.connection);
        self.events += 1;
        if !self.all.contains_key(&key) && self.all.len() >= MOST {
            self.forget_oldest();
        }
        let connection = self.all.entry(key).or_default();
        connection.last = self.events;
        match event.what {
            What::Bytes(at, bytes) => {
                if connection.place.is_some() {
                    self.write(key, event.origin, event.direction, event.time, at, bytes, made);
                } else if connection.held + bytes.len() <= MOST_WAITING
                    && self.waiting + bytes.len() <= MOST_WAITING_IN_ALL
                {
                    connection.waiting.push((event.direction, event.time, at, bytes.to_vec()));
                    connection.held += bytes.len();
                    self.waiting += bytes.len();
                } else {
                    self.lost += bytes.len() as u64;
                }
            }
            What::Place { descriptor, record, size, is_over } => {
                let plain = size.min(RECORD);
                let fits = !is_over || (plain + 1..=plain + ADDED).contains(&record);
                if !fits || connection.place.is_some_and(|(known, _)| known == descriptor) {
                    return;
                }
                let Some(ends) = (self.ends)(event.process, descriptor) else { return };
                self.place(key, descriptor, ends, event.origin, made);
            }
        }
    }

    /// True if it is known which connection of a library has these ends, which are in order.
    pub(super) fn is_placed(&self, ends: &Ends) -> bool {
        self.told.contains_key(ends)
    }

    /// Takes note of a connection's socket, and writes what has waited for it.
    fn place(&mut self, key: (u32, u64), descriptor: u32, ends: Ends, origin: &'static str, made: &mut Vec<Made>) {
        let Some(connection) = self.all.get_mut(&key) else { return };
        let before = connection.place.replace((descriptor, ends));
        let waiting = std::mem::take(&mut connection.waiting);
        self.waiting -= std::mem::take(&mut connection.held);
        if let Some((_, ends)) = before {
            self.hand_over(key, ends);
        }
        self.told.entry(ends.in_order()).or_insert(key);
        for (direction, time, at, bytes) in waiting {
            self.write(key, origin, direction, time, at, &bytes, made);
        }
    }

    /// Makes a packet of bytes, unless the other end tells of them.
    #[allow(clippy::too_many_arguments, reason = "what an event has, in pieces")]
    fn write(
        &mut self,
        key: (u32, u64),
        origin: &'static str,
        direction: Direction,
        time: u64,
        at: u64,
        bytes: &[u8],
        made: &mut Vec<Made>,
    ) {
        let Some(connection) = self.all.get_mut(&key) else { return };
        let Some((_, ends)) = connection.place else { return };
        if self.told.get(&ends.in_order()) != Some(&key) {
            return;
        }
        let sent = direction == Direction::Outbound;
        let (src, dst) = if sent { (ends.local, ends.remote) } else { (ends.remote, ends.local) };
        let [received_so_far, sent_so_far] = &mut connection.next;
        let (own, other) = if sent { (sent_so_far, received_so_far) } else { (received_so_far, sent_so_far) };
        // As behind a SYN of number 0.
        let [sequence, acknowledged] = [at, *other].map(|at| (at as u32).wrapping_add(1));
        *own = at + bytes.len() as u64;
        let mut packet = Vec::with_capacity(60 + bytes.len());
        packet::write(&mut packet, src, dst, sequence, acknowledged, bytes);
        made.push(Made { origin, time, direction, packet });
    }

    /// Forgets the connection that was silent for the longest time.
    fn forget_oldest(&mut self) {
        let Some(key) = self.all.iter().min_by_key(|(_, it)| it.last).map(|(key, _)| *key) else { return };
        let Some(connection) = self.all.remove(&key) else { return };
        self.waiting -= connection.held;
        self.lost += connection.held as u64;
        if let Some((_, ends)) = connection.place {
            self.hand_over(key, ends);
        }
    }

    /// Has others tell of these ends.
    fn hand_over(&mut self, key: (u32, u64), ends: Ends) {
        let ends = ends.in_order();
        if self.told.get(&ends) == Some(&key) {
            self.told.remove(&ends);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    /// The ends of a descriptor: of its process's socket to the server, or the server's to it.
    fn ends(process: u32, descriptor: u32) -> Option<Ends> {
        let client = format!("10.0.0.1:{}", 40_000 + descriptor).parse().unwrap();
        let server = "10.0.0.2:443".parse().unwrap();
        match process {
            1 => Some(Ends { local: client, remote: server }),
            2 => Some(Ends { local: server, remote: client }),
            _ => None,
        }
    }

    fn event(process: u32, connection: u64, direction: Direction, what: What<'_>) -> Event<'_> {
        Event { origin: "uprobe:go", direction, process, connection, time: 1, what }
    }

    fn sent(process: u32, connection: u64, at: u64, bytes: &[u8]) -> Event<'_> {
        event(process, connection, Direction::Outbound, What::Bytes(at, bytes))
    }

    fn received(process: u32, connection: u64, at: u64, bytes: &[u8]) -> Event<'_> {
        event(process, connection, Direction::Inbound, What::Bytes(at, bytes))
    }

    fn place(process: u32, connection: u64, descriptor: u32, size: u32, record: u32) -> Event<'static> {
        let what = What::Place { descriptor, record, size, is_over: true };
        event(process, connection, Direction::Outbound, what)
    }

    /// Source port, sequence number and bytes of the packets that follow.
    fn run(it: &mut Connections, events: &[Event<'_>]) -> Vec<(u16, u32, String)> {
        let mut made = Vec::new();
        events.iter().for_each(|event| it.event(event, &mut made));
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let shown = |Made { packet, .. }: &Made| {
            let text = String::from_utf8_lossy(&packet[40..]).into_owned();
            (number(&packet[20..22]) as u16, number(&packet[24..28]), text)
        };
        made.iter().map(shown).collect()
    }

    #[test]
    fn what_comes_before_its_socket_is_known_waits_for_it() {
        let mut it = Connections::new(ends);
        assert_eq!(run(&mut it, &[received(1, 7, 0, b"hello"), sent(1, 7, 0, b"GET")]), []);
        // What is sent then is too large, too small, or by nothing that has ends.
        assert_eq!(run(&mut it, &[place(1, 7, 5, 3, 900), place(1, 7, 5, 3, 3), place(3, 7, 5, 3, 25)]), []);
        let wanted = [(443, 1, "hello".to_owned()), (40_005, 1, "GET".to_owned())];
        assert_eq!(run(&mut it, &[place(1, 7, 5, 3, 25)]), wanted);
        assert_eq!(run(&mut it, &[sent(1, 7, 3, b"!")]), [(40_005, 4, "!".to_owned())]);
        assert_eq!((it.lost, it.waiting), (0, 0));
    }

    #[test]
    fn what_is_missing_has_its_place() {
        let mut it = Connections::new(ends);
        let rows = run(&mut it, &[place(1, 7, 5, 3, 25), sent(1, 7, 0, b"abc"), sent(1, 7, 100, b"xyz")]);
        assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [1, 101]);
    }

    #[test]
    fn of_two_ends_one_tells() {
        let mut it = Connections::new(ends);
        let both = [place(1, 7, 5, 3, 25), place(2, 8, 5, 3, 25)];
        let rows = run(&mut it, &[&both[..], &[sent(1, 7, 0, b"abc"), received(2, 8, 0, b"abc")]].concat());
        assert_eq!(rows, [(40_005, 1, "abc".to_owned())]);
    }

    #[test]
    fn what_waits_in_vain_is_bounded_and_counted() {
        let mut it = Connections::new(ends);
        let bytes = [0; 10_000];
        for connection in 0..5000 {
            run(&mut it, &[sent(3, connection, 0, &bytes)]);
        }
        assert!(it.all.len() <= MOST && it.waiting <= MOST_WAITING_IN_ALL);
        assert_eq!(it.waiting as u64 + it.lost, 5000 * 10_000);
    }
}
