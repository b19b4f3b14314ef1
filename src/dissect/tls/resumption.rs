//! Sessions of TLS 1.2 and older that are resumed, by ID (RFC 5246 section 7.3) or by ticket (RFC 5077).
//!
//! Their master secret is that of the connection that began the session, and a key log need not name it again: a premaster
//! secret is of the first one only, and Go logs no other either.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use sha2::{Digest, Sha256};

use super::extensions::SESSION_TICKET;
use super::handshake::{ClientHello, ServerHello};
use super::keys::{Keys, Label, Random, Secrets};
use crate::dissect::{Cursor, Turn};

/// The most sessions that are kept; past it the oldest are forgotten.
const MAX_SESSIONS: usize = 200_000;

/// A session's ID or ticket, hashed: tickets may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name([u8; 32]);

impl Name {
    /// None if it is empty, as where there is no session.
    fn of(id: &[u8]) -> Option<Self> {
        (!id.is_empty()).then(|| Self(Sha256::digest(id).into()))
    }
}

/// Which connections' master secrets sessions have. Shared as the keys are.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The first connection that had it, and the frame that completed its handshake.
    by_name: HashMap<Name, (u64, Random)>,
    /// In the order in which they came.
    order: VecDeque<Name>,
}

impl Sessions {
    fn add(&self, name: Name, frame: u64, random: Random) {
        let mut known = self.lock();
        match known.by_name.entry(name) {
            // Several engines may find it, in any order.
            Entry::Occupied(mut entry) => {
                if frame < entry.get().0 {
                    entry.insert((frame, random));
                }
                return;
            }
            Entry::Vacant(entry) => _ = entry.insert((frame, random)),
        }
        known.order.push_back(name);
        if known.order.len() > MAX_SESSIONS
            && let Some(oldest) = known.order.pop_front()
        {
            known.by_name.remove(&oldest);
        }
    }

    /// The connection that had the session before that frame.
    fn find(&self, name: Name, frame: u64) -> Option<Random> {
        self.lock().by_name.get(&name).filter(|(since, _)| *since < frame).map(|(_, random)| *random)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a handshake says of sessions.
#[derive(Default)]
pub(super) struct Resumption {
    /// The ticket and the ID of the session that the client would resume.
    offered: [Option<Name>; 2],
    /// Those by which this one may be resumed.
    issued: [Option<Name>; 2],
    /// The connection whose session it resumes.
    of: Option<Random>,
}

impl Resumption {
    /// A `ClientHello`.
    pub fn offer(&mut self, hello: &ClientHello<'_>) {
        let ticket = hello.extensions.get(SESSION_TICKET).and_then(Name::of);
        self.offered = [ticket, Name::of(hello.session_id)];
    }

    /// Some of what the client has sent is missing: whether a session is resumed can't be told.
    pub fn lose(&mut self) {
        self.offered = [None; 2];
    }

    /// A `ServerHello`.
    pub fn choose(&mut self, hello: &ServerHello<'_>) {
        self.issued = [None, Name::of(hello.session_id)];
    }

    /// The body of a `NewSessionTicket` (RFC 5077 section 3.3).
    pub fn issue(&mut self, body: &[u8]) {
        let mut cursor = Cursor::new(body);
        let ticket = cursor.skip(4).and_then(|()| cursor.u16()).and_then(|length| cursor.take(length.into()));
        let [issued, _] = &mut self.issued;
        *issued = ticket.ok().and_then(Name::of);
    }

    /// The server resumes the session that it was offered. True if it is known.
    pub fn resume(&mut self, keys: &Keys, turn: &Turn) -> bool {
        let ([ticket, offered], [_, chosen]) = (self.offered, self.issued);
        // A server that takes a ticket confirms an ID that may be new.
        let names = [ticket, offered.filter(|_| offered == chosen)];
        if names.iter().any(Option::is_some) {
            turn.wait();
        }
        self.of = names.into_iter().flatten().find_map(|name| keys.sessions.find(name, turn.frame()));
        self.of.is_some()
    }

    /// The handshake of the connection whose client chose that random is over, as far as the server's part of it is concerned.
    pub fn begin(&self, random: Random, keys: &Keys, turn: &Turn) {
        for name in self.issued.into_iter().flatten() {
            keys.sessions.add(name, turn.frame(), random);
        }
    }

    /// The master secret of the connection whose client chose that random, if its session's is known.
    pub fn resolve(&self, random: &Random, keys: &Keys) -> Option<Arc<Secrets>> {
        let secrets = keys.found(&self.of?)?;
        keys.derive(random, secrets.get(Label::Master)?, secrets.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_from_the_first_frame_that_has_it_and_not_for_ever() {
        let sessions = Sessions::default();
        let name = |number: usize| Name::of(&number.to_be_bytes()).unwrap_or(Name([0; 32]));
        sessions.add(name(0), 20, [2; 32]);
        sessions.add(name(0), 10, [1; 32]);
        sessions.add(name(0), 30, [3; 32]);
        assert_eq!(sessions.find(name(0), 10), None);
        assert_eq!(sessions.find(name(0), 11), Some([1; 32]));
        for number in 1..=MAX_SESSIONS {
            sessions.add(name(number), 40, [4; 32]);
        }
        assert_eq!(sessions.find(name(0), 50), None);
        assert_eq!(sessions.find(name(1), 50), Some([4; 32]));
        assert_eq!(sessions.lock().by_name.len(), MAX_SESSIONS);
    }
}
