//! Packets that the kernel has dropped, as captures tell of them.

use crate::capture::Note;

/// The counters of one capture's interfaces.
#[derive(Default)]
pub(super) struct Drops {
    /// The newest figure of each.
    by_interface: Vec<u64>,
    /// Those of interfaces that are gone.
    before: u64,
}

impl Drops {
    /// Takes what a note says of one of so many interfaces.
    pub fn note(&mut self, note: &Note, interfaces: usize) {
        if let Note::Statistics { interface, dropped: Some(dropped), .. } = note
            && (*interface as usize) < interfaces
        {
            self.by_interface.resize(interfaces, 0);
            if let Some(counter) = self.by_interface.get_mut(*interface as usize) {
                *counter = *dropped;
            }
        }
    }

    /// Other interfaces come, whose counters start again.
    pub fn restart(&mut self) {
        self.before = self.total();
        self.by_interface.clear();
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.before + self.by_interface.iter().sum::<u64>()
    }
}
