//! Bytes that wait for the other direction's, or for something else than bytes.

use super::run::context;
use super::stream::Stream;
use super::{Driver, State};
use crate::dissect::{Message, Options};
use crate::entry::{Direction, Timestamp};

impl Driver {
    /// Lets the dissector have each direction's buffered bytes in turn, as long as it asks for the other's.
    pub(super) fn turns(&mut self, mut turned: bool, direction: Direction, options: &Options, out: &mut Vec<Message>) {
        while turned {
            let waiting = self.waiting();
            let other = self.refeed(direction.reverse(), options, out);
            turned = (self.refeed(direction, options, out) || other) && self.waiting() < waiting;
        }
    }

    /// Until when bytes wait for something else than bytes, in time of the capture.
    pub fn waits_until(&self) -> Option<Timestamp> {
        if let State::Dissecting { dissector, .. } = &self.state { dissector.waits_until() } else { None }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waits_until().is_some()
    }

    /// Calls the dissector again with the bytes that wait for it: something else than bytes may have come.
    pub fn wake(&mut self, options: &Options, out: &mut Vec<Message>) {
        let server = self.refeed(Direction::ToClient, options, out);
        let client = self.refeed(Direction::ToServer, options, out);
        self.turns(server || client, Direction::ToServer, options, out);
        for direction in [Direction::ToServer, Direction::ToClient] {
            let closing = self.streams.get(direction.index()).and_then(|stream| stream.closing);
            if let Some(cut) = closing
                && !self.is_waiting()
            {
                self.end(direction, cut, options, out);
            }
        }
    }

    /// Bytes of both directions that wait.
    fn waiting(&self) -> usize {
        self.streams.iter().map(|stream| stream.buffer.len()).sum()
    }

    /// What waits has waited long enough: both directions go on with what there is, in their order.
    pub fn stop_waiting(&mut self, options: &Options, out: &mut Vec<Message>) {
        if let State::Dissecting { dissector, .. } = &mut self.state {
            let newest = self.streams.each_ref().map(Stream::newest);
            let stamp = newest.into_iter().max_by_key(|stamp| stamp.packet).unwrap_or_default();
            dissector.stop_waiting(&mut context(&self.flow, options, stamp, stamp, out));
        }
        self.wake(options, out);
    }
}
