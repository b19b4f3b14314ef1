//! The order of a capture among the engines that share it, for what a flow has to know of others.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How far an engine is in its capture, which others may share, each with flows of its own.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    frame: u64,
    index: usize,
    all: Arc<All>,
}

#[derive(Debug, Default)]
struct All {
    /// For each engine the first frame that it may not be done with; empty where there is but one.
    reached: Mutex<Vec<u64>>,
    moved: Condvar,
}

impl Turn {
    /// One for each of so many engines.
    #[must_use]
    pub fn among(count: usize) -> Vec<Self> {
        let all = Arc::new(All { reached: Mutex::new(vec![0; count]), moved: Condvar::new() });
        (0..count).map(|index| Self { frame: 0, index, all: Arc::clone(&all) }).collect()
    }

    /// The number of the frame at hand.
    #[must_use]
    pub fn frame(&self) -> u64 {
        self.frame
    }

    /// That frame is at hand.
    pub fn set_frame(&mut self, frame: u64) {
        self.frame = frame;
    }

    /// The frame at hand, and all before it, are done with. Others wait until they are told.
    pub fn pass(&self) {
        drop(self.reach(self.frame.saturating_add(1)));
    }

    /// This engine has no more frames.
    pub fn leave(&self) {
        drop(self.reach(u64::MAX));
    }

    /// Waits until the other engines are done with all frames before the one at hand: what one of them has found in these is
    /// there. None waits for ever, as the one that is behind waits for nobody.
    pub(super) fn wait(&self) {
        let mut reached = self.reach(self.frame);
        while reached.iter().any(|reached| *reached < self.frame) {
            reached = self.all.moved.wait(reached).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn reach(&self, frame: u64) -> MutexGuard<'_, Vec<u64>> {
        let mut all = self.all.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reached) = all.get_mut(self.index) {
            *reached = frame.max(*reached);
            self.all.moved.notify_all();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_waits_for_what_comes_before() {
        let turns = Turn::among(3);
        let done = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (mut turn, frames) in turns.into_iter().zip([[1, 4, 9], [3, 5, 6], [2, 7, 8]]) {
                let done = &done;
                scope.spawn(move || {
                    for frame in frames {
                        turn.set_frame(frame);
                        turn.wait();
                        done.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
                    }
                    turn.leave();
                });
            }
        });
        assert_eq!(done.into_inner().unwrap_or_default(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        // Whoever is alone waits for nobody.
        let mut alone = Turn::default();
        alone.set_frame(7);
        alone.wait();
    }
}
