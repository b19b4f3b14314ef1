//! The TLS key log that probes write, kept for sessions as the master PCAP keeps packets: the oldest lines go first.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::json::{self, Object};

/// The most bytes kept: some thousand connections. Those whose keys are gone have lost their packets to the ring long before.
const MOST: usize = 1 << 20;

/// Lines as NSS has them, each after a comment that says which probe it is from. They are secrets: nothing of them is ever shown.
#[derive(Default)]
pub(super) struct KeyLog {
    text: Vec<u8>,
    /// Bytes that were there before the text.
    dropped: u64,
    /// Lines that ever came.
    pub(super) lines: u64,
    /// What the probes say of themselves, if there are any.
    pub(super) probes: Option<Probes>,
    /// Packets that were made of plaintext.
    pub(super) plaintext: u64,
    /// Bytes of plaintext for which there was no room, or that could not be told whose they are.
    pub(super) plaintext_lost: u64,
}

/// What the probes have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probes {
    pub(super) survey: Survey,
    /// Events that were lost for want of room.
    pub(super) lost: u64,
    /// Secrets whose connection is not known: the probes came in the middle of its handshake.
    pub(super) unmatched: u64,
}

/// What was found among the target's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// All that were there at the start have been looked at.
    pub(super) scanned: bool,
    /// Files with probes in them.
    pub(super) files: u64,
    /// Programs with TLS that no probe understands, and whose it is.
    pub(super) unknown: Vec<String>,
    /// Files that no probe could be put into, and why.
    pub(super) refused: Vec<String>,
    /// The pod's ends of sockets of unknown programs: those that are there, and some that were just now.
    pub(super) sockets: BTreeMap<String, Vec<SocketAddr>>,
    /// The same of processes that are not the target's.
    pub(super) outside: Vec<SocketAddr>,
}

impl KeyLog {
    /// With or without probes.
    pub(super) fn new(probed: bool) -> Self {
        Self { probes: probed.then(Probes::default), ..Self::default() }
    }

    /// What the probes have come to, as JSON; none if there are none.
    pub(super) fn account(&self) -> Option<String> {
        let Probes { survey, lost, unmatched } = self.probes.as_ref()?;
        let texts = |list: &[String]| list.iter().map(|text| json::text(text)).collect::<Vec<_>>();
        let sockets = |list: &[SocketAddr]| list.iter().map(|it| json::text(&it.to_string())).collect::<Vec<_>>();
        let of_programs = survey.sockets.iter();
        let of_programs = of_programs.fold(Object::new(), |all, (program, list)| all.list(program, sockets(list)));
        let account = Object::new()
            .raw("scanned", survey.scanned)
            .raw("files", survey.files)
            .raw("keys", self.lines)
            .raw("lost", lost)
            .raw("unmatched", unmatched)
            .raw("plaintext", self.plaintext)
            .raw("plaintext_lost", self.plaintext_lost)
            .list("unknown", texts(&survey.unknown))
            .list("refused", texts(&survey.refused))
            .raw("sockets", of_programs.end())
            .list("outside", sockets(&survey.outside))
            .end();
        Some(account)
    }

    /// True if there are probes, but not yet in all files of the processes that were there first.
    pub(super) fn is_incomplete(&self) -> bool {
        self.probes.as_ref().is_some_and(|probes| !probes.survey.scanned)
    }

    /// Adds whole lines, with their comments.
    pub(super) fn add(&mut self, lines: &[u8]) {
        if self.text.len() + lines.len() > MOST {
            let half = self.text.len() / 2;
            let end = self.text.windows(2).skip(half).position(|it| it == b"\n#");
            let end = end.map_or(self.text.len(), |at| half + at + 1);
            self.text.drain(..end);
            self.dropped += end as u64;
        }
        self.text.extend_from_slice(lines);
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        self.lines += lines.count() as u64;
    }

    /// What came since `position`, which moves to the end.
    pub(super) fn after(&self, position: &mut u64) -> &[u8] {
        let from = position.saturating_sub(self.dropped) as usize;
        *position = self.dropped + self.text.len() as u64;
        self.text.get(from..).unwrap_or_default()
    }

    /// True if nothing came since.
    pub(super) fn is_read(&self, position: u64) -> bool {
        position == self.dropped + self.text.len() as u64
    }
}

impl std::fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyLog").field("lines", &self.lines).field("probes", &self.probes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_gets_each_line_that_is_still_there() {
        let mut log = KeyLog::default();
        let (mut first, mut second) = (0, 0);
        log.add(b"A 1 2\n");
        assert_eq!(log.after(&mut first), b"A 1 2\n");
        assert!(log.is_read(first) && !log.is_read(second));
        log.add(b"B 1 2\n");
        assert_eq!(log.after(&mut first), b"B 1 2\n");
        assert_eq!(log.after(&mut second), b"A 1 2\nB 1 2\n");
        let line = [b"# a\n", &[b'x'; 95][..], b"\n"].concat();
        for _ in 0..20_000 {
            log.add(&line);
        }
        assert!(log.text.len() <= MOST && log.text.len() >= MOST / 3);
        assert_eq!(log.lines, 20_002);
        let new = log.after(&mut first);
        assert!(new.starts_with(b"# a\nxx") && new.len() % 100 == 0);
        assert!(!format!("{log:?}").contains('x'));
    }
}
