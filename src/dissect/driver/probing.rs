//! Detects the protocol of a stream from what is buffered, and gives up in time.

use super::stream::split;
use super::{Delivery, Driver, MAX_PROBE, State};
use crate::dissect::detect::{Detected, detect};
use crate::dissect::{Message, Options, Probe, Protocol};
use crate::entry::Direction;

/// How many chunks of each direction may start with bytes of no protocol before the flow is left alone: one that was joined
/// amid a large answer is recognised by the next request.
pub(super) const MAX_TRIES: u16 = 16;
/// How many times as many they may be in one direction while the other has said little.
const ALONE: u16 = 8;
/// How many more they may be if a protocol of the flow's port asks for them: the capture may have begun in a large message.
pub(super) const PATIENCE: u16 = 32;

impl Driver {
    /// Tries to tell the protocol from what is buffered, of which the first `waited` bytes were looked at before.
    pub(super) fn probe(&mut self, direction: Direction, waited: usize, options: &Options, out: &mut Vec<Message>) {
        let mut detected = self.look(direction, false);
        if let Some(weight) = self.failed(direction, detected) {
            let (stream, other) = split(&mut self.streams, direction);
            stream.consume(if waited > 0 { waited } else { stream.buffer.len() });
            self.flow.start = false;
            if let State::Probing { tries } = &mut self.state
                && is_hopeless(tries, direction, weight)
            {
                stream.clear();
                other.clear();
                self.outcome.unknown = true;
                self.state = State::Ignoring;
                return;
            }
            if waited > 0 {
                // What waited was no start of a message; this chunk may be, as after a STARTTLS of a protocol not known here.
                detected = self.look(direction, false);
                if !matches!(detected, Detected::Yes { .. }) {
                    split(&mut self.streams, direction).0.clear();
                }
            }
        }
        if let Detected::Yes { protocol, reversed } = detected {
            let speaker = self.begin(direction, protocol, reversed);
            // The side that was probed is the one that speaks; what the other said before comes first.
            self.refeed(speaker.reverse(), options, out);
            self.refeed(speaker, options, out);
        }
    }

    /// What the buffered bytes of a direction are; with `cut`, those behind them are missing.
    pub(super) fn look(&self, direction: Direction, cut: bool) -> Detected {
        let buffer =
            |direction: Direction| self.streams.get(direction.index()).map_or(&[][..], |stream| &stream.buffer);
        let Delivery { transport, port, start, certain, hint, .. } = self.flow;
        let probe = Probe { transport, direction, data: buffer(direction), port, start, cut };
        detect(&probe, buffer(direction.reverse()), certain, hint)
    }

    /// How much it speaks against any protocol that the buffered bytes were found to be this; nothing while more may help.
    fn failed(&self, direction: Direction, detected: Detected) -> Option<u16> {
        let more = self.streams.get(direction.index()).is_some_and(|stream| stream.buffer.len() < MAX_PROBE);
        match detected {
            Detected::Yes { .. } => None,
            Detected::More { .. } if more => None,
            Detected::More { hinted: true } => Some(1),
            Detected::More { hinted: false } | Detected::No => Some(PATIENCE),
        }
    }

    /// The flow is of this protocol. Returns the direction that was probed, as messages have it.
    pub(super) fn begin(&mut self, direction: Direction, protocol: &'static Protocol, reversed: bool) -> Direction {
        if reversed {
            self.reverse();
        }
        self.flow.certain = true;
        self.state = State::Dissecting { protocol, dissector: (protocol.new)() };
        self.outcome.unknown = false;
        if reversed { direction.reverse() } else { direction }
    }
}

/// Counts one more chunk of no protocol; true if there is no reason to look at another.
pub(super) fn is_hopeless(tries: &mut [u16; 2], direction: Direction, weight: u16) -> bool {
    if let Some(tries) = tries.get_mut(direction.index()) {
        *tries += weight;
    }
    let most = MAX_TRIES * PATIENCE;
    tries.iter().all(|tries| *tries >= most) || tries.iter().any(|tries| *tries >= ALONE * most)
}
