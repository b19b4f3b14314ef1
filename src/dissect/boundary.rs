//! Finds where a message starts, in bytes that may begin in the middle of one.

use super::{Cx, Progress};
use crate::entry::Direction;

/// Where a message starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    /// So many bytes on.
    At(usize),
    /// It may start here, but more bytes are needed to tell.
    Wait,
    /// Nowhere.
    No,
}

/// Whether the start of a message has to be found first, by direction; open until the first bytes.
#[derive(Default)]
pub(super) struct Seeking([Option<bool>; 2]);

impl Seeking {
    /// What to do with bytes in which `boundary` finds no message at their start; `None` if one starts there, or if none had
    /// to be found.
    pub fn pass(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        boundary: impl FnOnce(Direction, &[u8]) -> Boundary,
        cx: &Cx<'_>,
    ) -> Option<Progress> {
        let seeking = direction.of(self.0.each_mut());
        if !*seeking.get_or_insert(!cx.start()) {
            return None;
        }
        match boundary(direction, bytes) {
            Boundary::At(at) => {
                *seeking = Some(false);
                (at > 0).then_some(Progress::Consumed(at))
            }
            Boundary::Wait => Some(Progress::Need(1)),
            Boundary::No => Some(Progress::Consumed(bytes.len())),
        }
    }

    /// Bytes are missing: the next start has to be found.
    pub fn begin(&mut self, direction: Direction) {
        *direction.of(self.0.each_mut()) = Some(true);
    }

    /// True if the direction's bytes have come to a start.
    pub fn has_found(&self, direction: Direction) -> bool {
        direction.of(self.0) == Some(false)
    }
}
