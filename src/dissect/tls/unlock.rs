//! How a connection comes by its keys, and what waits until then.

use super::keys::Waiting;
use super::record::{Content, Header};
use super::session::Session;
use super::{Closed, Tls};
use crate::dissect::{Cx, Dissector, Progress};
use crate::entry::Direction;

/// How many bytes of a side wait for what is needed to open them.
const MAX_WAIT: usize = 64 << 10;

impl Tls {
    /// Keeps a record back that can't be opened yet, but may be later; `there` bytes are there from it on.
    pub(super) fn hold(
        &mut self,
        direction: Direction,
        header: &Header,
        there: usize,
        cx: &mut Cx<'_>,
    ) -> Option<Progress> {
        let sealed = header.content == Content::ApplicationData || !self.version_13 && self.side(direction).encrypted;
        if !sealed || !self.asked {
            return None;
        }
        let packet = cx.packet();
        if self.session.is_none() && self.may_wait(direction, cx) && there <= MAX_WAIT {
            self.side(direction).waits.get_or_insert(packet);
            return Some(Progress::Need(1));
        }
        if self.session.is_none() && self.waiting.is_some() {
            self.stop_waiting(cx);
        }
        let session = self.session.as_mut()?;
        if session.is_blocked(direction) {
            if there <= MAX_WAIT {
                self.side(direction).waits.get_or_insert(packet);
                return Some(Progress::Need(1));
            }
            session.decide_early(false);
        }
        let other = direction.reverse();
        let other_is_blocked = session.is_blocked(other);
        if self.side(other).waits.is_some_and(|waits| waits < packet) && !other_is_blocked {
            self.side(direction).waits = Some(packet);
            return Some(Progress::Turn);
        }
        self.side(direction).waits = None;
        None
    }

    /// True if what is needed to open the side's records may still come.
    fn may_wait(&mut self, direction: Direction, cx: &mut Cx<'_>) -> bool {
        if self.choice.is_none() {
            // A client's early data: the server's answer tells how to read it.
            return direction == Direction::ToServer && self.early && cx.options.keys.is_useful();
        }
        let Some(waiting) = &mut self.waiting else { return false };
        if waiting.is_news() {
            self.unlock(false, cx);
        }
        match &self.waiting {
            Some(waiting) if self.session.is_none() => cx.now() <= waiting.until,
            _ => false,
        }
    }

    /// A side of TLS 1.2 or older changes its cipher. If the server does so first, it resumes a session (RFC 5246 section 7.3).
    pub(super) fn change_cipher(&mut self, direction: Direction, cx: &mut Cx<'_>) {
        let is_first = !std::mem::replace(&mut self.side(direction).encrypted, true);
        let resumes = is_first && direction == Direction::ToClient && !self.side(Direction::ToServer).encrypted;
        let (keys, turn) = (&cx.options.keys, &cx.options.turn);
        match &mut self.session {
            Some(session) => session.change_cipher(direction),
            None if resumes && keys.is_useful() && self.resumption.resume(keys, turn) => self.unlock(false, cx),
            None => {}
        }
        if let Some(random) = self.random
            && direction == Direction::ToClient
            && (self.session.is_some() || self.waiting.is_some())
        {
            self.resumption.begin(random, keys, turn);
        }
    }

    /// Looks for the keys, once it is clear which are needed. `last`: what is not there yet will not come.
    pub(super) fn unlock(&mut self, last: bool, cx: &mut Cx<'_>) {
        let (Some(random), Some(choice)) = (self.random, self.choice) else { return };
        let keys = &cx.options.keys;
        let exchanged = || self.exchange.as_ref()?.resolve(keys);
        let resumed = || self.resumption.resolve(&random, keys);
        let found = keys.find(&random).or_else(exchanged).or_else(resumed);
        // Where the server has not taken up a session, it does not take data ahead of its answer either.
        let early = self.early && choice.resumes;
        let may_grow = !last && !found.as_ref().is_some_and(|secrets| secrets.is_complete(early));
        if may_grow && self.waiting.is_none() {
            self.waiting = Waiting::new(keys, cx.now());
        }
        let Some(secrets) = found.filter(|_| !may_grow || self.waiting.is_none()) else {
            self.closed = Some(Closed::NoKeys);
            return;
        };
        self.waiting = None;
        match Session::new(secrets, &random, &choice, self.early, self.alpn, cx) {
            Ok(mut session) => {
                for (direction, side) in [Direction::ToServer, Direction::ToClient].into_iter().zip(&self.sides) {
                    if side.encrypted {
                        session.change_cipher(direction);
                    }
                }
                self.closed = None;
                self.session = Some(session);
            }
            Err(why) => self.closed = Some(Closed::For(why)),
        }
    }
}
