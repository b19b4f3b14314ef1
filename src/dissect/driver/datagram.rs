//! Datagrams, and messages of SCTP: each is whole, so nothing is buffered.

use super::probing::{PATIENCE, is_hopeless};
use super::run::context;
use super::{Driver, State};
use crate::dissect::detect::{Detected, detect};
use crate::dissect::{Malformed, Message, Options, Probe, Progress, Switch};
use crate::entry::Direction;
use crate::flow::reassembly::Stamp;

impl Driver {
    /// One datagram: whole in itself, so that its trouble costs nothing else.
    pub(super) fn datagram(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        stamp: Stamp,
        options: &Options,
        out: &mut Vec<Message>,
    ) {
        let direction = self.oriented(direction);
        if let State::Probing { tries } = &mut self.state {
            let (transport, port) = (self.flow.transport, self.flow.port);
            let probe = Probe { transport, direction, data: bytes, port, start: true, cut: false };
            match detect(&probe, &[], self.flow.certain, self.flow.hint) {
                Detected::Yes { protocol, reversed } => {
                    if reversed {
                        self.reverse();
                    }
                    self.flow.certain = true;
                    self.outcome.unknown = false;
                    self.state = State::Dissecting { protocol, dissector: (protocol.new)() };
                    let direction = if reversed { direction.reverse() } else { direction };
                    self.dissect_datagram(direction, bytes, stamp, options, out);
                }
                Detected::More { .. } | Detected::No => {
                    self.outcome.unknown = true;
                    if is_hopeless(tries, direction, PATIENCE) {
                        self.state = State::Ignoring;
                    }
                }
            }
        } else {
            self.dissect_datagram(direction, bytes, stamp, options, out);
        }
    }

    fn dissect_datagram(
        &mut self,
        dir: Direction,
        bytes: &[u8],
        stamp: Stamp,
        options: &Options,
        out: &mut Vec<Message>,
    ) {
        let State::Dissecting { dissector, .. } = &mut self.state else { return };
        let mut cx = context(&self.flow, options, stamp, stamp, out);
        match dissector.data(dir, bytes, &mut cx) {
            Ok(Progress::Ignore) => self.ignore(),
            Ok(Progress::Switch(_, Switch::To(protocol, dissector))) => {
                self.state = State::Dissecting { protocol, dissector };
            }
            Ok(_) => {}
            Err(Malformed(_)) => self.outcome.malformed += 1,
        }
    }
}
