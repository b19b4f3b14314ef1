//! A dissector over the bytes at hand, as far as it gets.

use super::Delivery;
use crate::dissect::{Cx, Dissector, Malformed, Message, Options, Progress, Switch};
use crate::entry::Direction;
use crate::flow::reassembly::Stamp;

/// What a run of a dissector over some bytes came to.
pub(super) enum Run {
    /// Consumed so far; wants so many bytes beyond what is left.
    Wait {
        consumed: usize,
        more: usize,
    },
    Switch {
        consumed: usize,
        to: Switch,
    },
    Turn {
        consumed: usize,
    },
    Ignore,
    Malformed(Malformed),
}

/// Calls the dissector as long as it makes progress.
#[allow(clippy::too_many_arguments, reason = "the parts of a driver, lent apart")]
pub(super) fn run(
    bytes: &[u8],
    stamp: impl Fn(usize) -> Stamp,
    newest: Stamp,
    dissector: &mut dyn Dissector,
    direction: Direction,
    flow: &Delivery,
    options: &Options,
    out: &mut Vec<Message>,
) -> Run {
    let mut consumed = 0;
    while let Some(rest) = bytes.get(consumed..).filter(|rest| !rest.is_empty()) {
        let mut cx = context(flow, options, stamp(consumed), newest, out);
        match dissector.data(direction, rest, &mut cx) {
            // A dissector that consumes nothing and asks for nothing would be called for ever.
            Ok(Progress::Consumed(0)) => return Run::Wait { consumed, more: 1 },
            Ok(Progress::Consumed(n)) => consumed = consumed.saturating_add(n),
            Ok(Progress::Need(more)) => return Run::Wait { consumed, more: more.max(1) },
            Ok(Progress::Switch(n, to)) => return Run::Switch { consumed: consumed.saturating_add(n), to },
            Ok(Progress::Turn) => return Run::Turn { consumed },
            Ok(Progress::Ignore) => return Run::Ignore,
            Err(malformed) => return Run::Malformed(malformed),
        }
    }
    Run::Wait { consumed, more: 1 }
}

pub(super) fn context<'a>(
    flow: &Delivery,
    options: &'a Options,
    first: Stamp,
    newest: Stamp,
    out: &'a mut Vec<Message>,
) -> Cx<'a> {
    Cx {
        options,
        transport: flow.transport,
        port: flow.port,
        start: flow.start,
        ends: flow.ends,
        tap: flow.tap,
        time: first.time,
        now: newest.time,
        packet: first.packet,
        position: first.position,
        cut: false,
        dropped: 0,
        hint: flow.hint,
        depth: flow.depth,
        learnt: None,
        out,
    }
}
