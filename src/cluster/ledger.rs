//! The books of one pod's stream: which packets came, came twice, or never.

use serde::Deserialize;

use crate::capture::{Batch, Note};

/// Where a stream is asked to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the first packet of a new agent. Those that it no longer has are missing.
    All,
    /// With the oldest packet that it still has.
    Oldest,
    /// With the next packet.
    Now,
    /// With the packets of the last so many seconds.
    Since(u64),
    /// With that packet of that run of the agent.
    From(u64, String),
}

/// What a session with a filter of its own knows of the numbers: a hole may be what the filter left out.
#[derive(Debug, Default)]
struct Sieve {
    /// All packets before this number are accounted for; 0 as long as it is not known where the session starts.
    next: u64,
    /// Packets from there on that came over the present connection.
    came: u64,
}

/// What is known of the numbers.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Where the present run of the agent was asked to start.
    start: Start,
    /// The run of the agent; its numbers mean nothing to another.
    boot: Option<String>,
    /// The number that is due; none as long as it is not known.
    next: Option<u64>,
    /// The first packet that a new agent still had when it was connected to, until that is booked.
    first: u64,
    /// For a session with a filter of its own.
    sieve: Option<Sieve>,
    /// Interfaces of this run that were handed on.
    interfaces: usize,
    /// Interfaces that the present connection has described.
    described: usize,
}

/// What a batch turned out to hold besides frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// The stream has begun.
    pub(super) hello: bool,
    /// It has begun with another run of the agent than the last.
    pub(super) restarted: bool,
    /// Packets that neither came nor were reported as flushed.
    pub(super) lost: u64,
    /// The agent has ended the stream, for this reason.
    pub(super) end: Option<String>,
    /// The stream has ended because no more was asked for.
    pub(super) complete: bool,
}

#[derive(Deserialize)]
struct Hello {
    boot: String,
    #[serde(default)]
    first: u64,
    next: u64,
    #[serde(default)]
    filtered: bool,
}

#[derive(Deserialize)]
struct End {
    next: u64,
    #[serde(default)]
    why: String,
    #[serde(default)]
    asked: bool,
}

impl Ledger {
    pub(super) fn new(start: Start) -> Self {
        Self { start, boot: None, next: None, first: 0, sieve: None, interfaces: 0, described: 0 }
    }

    /// Another agent has come: it is asked for all that it has.
    pub(super) fn replaced(&mut self) {
        self.start = Start::All;
        self.boot = None;
        self.next = None;
        self.sieve = None;
    }

    /// A connection begins; where it is to start.
    pub(super) fn connect(&mut self) -> Start {
        self.described = 0;
        if let (Some(boot), Some(sieve)) = (&self.boot, &mut self.sieve) {
            // What lies between what is accounted for and what came last is asked for again, to be told of the holes.
            sieve.came = 0;
            if sieve.next > 0 {
                return Start::From(sieve.next, boot.clone());
            }
        }
        match (&self.boot, self.next) {
            (Some(boot), Some(next)) => Start::From(next, boot.clone()),
            _ => self.start.clone(),
        }
    }

    /// Books a batch, and takes out of it what was handed on before.
    pub(super) fn book(&mut self, batch: &mut Batch) -> Account {
        let mut account = Account::default();
        let mut end = None;
        let mut flushed = Vec::new();
        let mut sieved = Vec::new();
        for note in &batch.notes {
            match note {
                Note::Hello(text) => {
                    account.hello = true;
                    account.restarted |= self.greet(text);
                }
                Note::Flushed { from, count } => flushed.push((*from, from.saturating_add(*count))),
                Note::Filtered { from, next, count } => sieved.push((*from, *next, *count)),
                Note::End(text) => end = Some(text.clone()),
                _ => {}
            }
        }
        if let Some(count @ 1..) = std::mem::take(&mut self.first).checked_sub(1) {
            // Under full load a new agent's buffer may be full before anybody is connected.
            batch.notes.push(Note::Flushed { from: 1, count });
            flushed.push((1, 1 + count));
        }
        self.introduce(batch);
        if let Some(sieve) = &mut self.sieve {
            sieve.book(batch, &flushed, &sieved, &mut account);
            let last = &mut self.next;
            batch.frames.retain(|frame| {
                let Some(id) = frame.id else { return true };
                let is_new = last.is_none_or(|next| id >= next);
                if is_new {
                    *last = Some(id.saturating_add(1));
                }
                is_new
            });
            if let Some(end) = end.and_then(|text| account.conclude(&text))
                && sieve.next > 0
            {
                account.lost += end.saturating_sub(sieve.next.saturating_add(sieve.came));
            }
            return account;
        }
        let mut next = self.next;
        batch.frames.retain(|frame| {
            let Some(id) = frame.id else { return true };
            let due = next.unwrap_or(id);
            if id < due {
                return false;
            }
            account.lost += (id - due).saturating_sub(within(due, id, &flushed));
            next = Some(id.saturating_add(1));
            true
        });
        // What was flushed behind the last frame, or before frames that are still to come.
        for (from, to) in flushed {
            let due = next.unwrap_or(from);
            if to > due {
                account.lost += from.saturating_sub(due);
                next = Some(to);
            }
        }
        if let Some(end) = end.and_then(|text| account.conclude(&text))
            && let Some(due) = next
        {
            account.lost += end.saturating_sub(due);
            next = Some(end.max(due));
        }
        self.next = next;
        account
    }

    /// Takes a hello; true if another run of the agent says it than the one before.
    fn greet(&mut self, text: &str) -> bool {
        let Ok(hello) = serde_json::from_str::<Hello>(text) else { return false };
        if self.boot.as_ref() == Some(&hello.boot) {
            return false;
        }
        let is_first = self.boot.is_none() && self.interfaces == 0;
        // Asked for a number of another run, an agent sends all that it has.
        let start = if self.boot.is_some() { &Start::All } else { &self.start };
        self.next = match start {
            // A new agent's: what it has flushed before anybody came is missing too.
            Start::All | Start::From(..) => Some(1),
            Start::Now => Some(hello.next),
            Start::Oldest | Start::Since(_) => None,
        };
        self.first = if self.next == Some(1) { hello.first } else { 0 };
        self.sieve = hello.filtered.then(|| Sieve { next: self.next.unwrap_or_default(), came: 0 });
        self.boot = Some(hello.boot);
        self.interfaces = 0;
        !is_first
    }

    /// Each connection describes all interfaces; only those that are new are handed on.
    fn introduce(&mut self, batch: &mut Batch) {
        let before = self.described;
        self.described += batch.interfaces.len();
        batch.interfaces.drain(..self.interfaces.saturating_sub(before).min(batch.interfaces.len()));
        self.interfaces = self.interfaces.max(self.described);
    }
}

impl Account {
    /// The stream has ended with these words; returns the number that it ends before.
    fn conclude(&mut self, text: &str) -> Option<u64> {
        let Ok(end) = serde_json::from_str::<End>(text) else {
            self.end = Some(String::new());
            return None;
        };
        self.complete = end.asked;
        self.end = Some(end.why);
        Some(end.next)
    }
}

impl Sieve {
    /// Books a batch in which numbers are missing that the filter left out: `sieved` are ranges with how many those are,
    /// `flushed` ranges of which nothing came.
    fn book(&mut self, batch: &Batch, flushed: &[(u64, u64)], sieved: &[(u64, u64, u64)], account: &mut Account) {
        let mut ranges = sieved.to_vec();
        ranges.extend(flushed.iter().map(|(from, to)| (*from, *to, to.saturating_sub(*from))));
        ranges.sort_unstable();
        let mut ids = batch.frames.iter().filter_map(|frame| frame.id).peekable();
        if self.next == 0
            && let Some(id) = ids.peek()
        {
            // If others before it were left out, a note is still to say so.
            self.next = *id;
        }
        for (from, to, absent) in ranges {
            while ids.next_if(|id| *id < to).is_some() {
                self.came += 1;
            }
            let start = if self.next == 0 { from } else { self.next.min(from) };
            account.lost += to.saturating_sub(start).saturating_sub(absent).saturating_sub(self.came);
            self.came = 0;
            self.next = self.next.max(to);
        }
        self.came += ids.count() as u64;
    }
}

/// How many numbers of `from..to` are in the ranges, which do not overlap.
fn within(from: u64, to: u64, ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(start, end)| (*end).min(to).saturating_sub((*start).max(from))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Interface, Stored};
    use crate::entry::Timestamp;

    fn batch(ids: &[u64], notes: Vec<Note>) -> Batch {
        let frame =
            |id: &u64| Stored { number: 1, id: Some(*id), time: Timestamp(0), interface: 0, len: 0, start: 0, end: 0 };
        Batch { frames: ids.iter().map(frame).collect(), notes, ..Batch::default() }
    }

    fn ids(batch: &Batch) -> Vec<u64> {
        batch.frames.iter().filter_map(|frame| frame.id).collect()
    }

    fn hello(boot: &str, first: u64, next: u64) -> Note {
        Note::Hello(format!(r#"{{"version":"1","boot":"{boot}","first":{first},"next":{next}}}"#))
    }

    fn greeted(start: Start, first: u64, next: u64) -> Ledger {
        let mut ledger = Ledger::new(start);
        ledger.connect();
        let account = ledger.book(&mut batch(&[], vec![hello("a", first, next)]));
        assert_eq!(account, Account { hello: true, ..Account::default() });
        ledger
    }

    fn lost(ledger: &mut Ledger, ids: &[u64], notes: Vec<Note>) -> u64 {
        ledger.book(&mut batch(ids, notes)).lost
    }

    #[test]
    fn holes_are_lost_unless_they_were_reported_as_flushed() {
        let mut ledger = greeted(Start::All, 1, 4);
        assert_eq!(lost(&mut ledger, &[1, 2, 3], vec![]), 0);
        assert_eq!(lost(&mut ledger, &[6, 7], vec![]), 2);
        assert_eq!(lost(&mut ledger, &[8, 20], vec![Note::Flushed { from: 9, count: 11 }]), 0);
        assert_eq!(lost(&mut ledger, &[21, 30], vec![Note::Flushed { from: 22, count: 5 }]), 3);
        // Told first, the frames come later.
        assert_eq!(lost(&mut ledger, &[], vec![Note::Flushed { from: 31, count: 9 }]), 0);
        assert_eq!(lost(&mut ledger, &[40], vec![]), 0);
        assert_eq!(ledger.connect(), Start::From(41, "a".into()));
    }

    #[test]
    fn the_beginning_counts_from_where_it_was_asked_for() {
        assert_eq!(lost(&mut greeted(Start::All, 5, 9), &[7], vec![]), 2);
        assert_eq!(lost(&mut greeted(Start::Oldest, 5, 9), &[5], vec![]), 0);
        let mut ledger = Ledger::new(Start::All);
        ledger.connect();
        let mut first = batch(&[5, 6], vec![hello("a", 5, 7)]);
        assert_eq!(ledger.book(&mut first).lost, 0);
        assert!(first.notes.contains(&Note::Flushed { from: 1, count: 4 }));
        assert_eq!(lost(&mut greeted(Start::Now, 5, 9), &[9], vec![]), 0);
        assert_eq!(lost(&mut greeted(Start::Now, 5, 9), &[10], vec![]), 1);
        assert_eq!(lost(&mut greeted(Start::Since(60), 5, 9), &[8], vec![]), 0);
    }

    #[test]
    fn what_comes_twice_is_dropped() {
        let mut ledger = greeted(Start::All, 1, 9);
        ledger.book(&mut batch(&[1, 2, 3], vec![]));
        ledger.connect();
        let mut again = batch(&[2, 3, 4], vec![hello("a", 1, 9)]);
        let account = ledger.book(&mut again);
        assert_eq!((ids(&again), account.lost, account.restarted), (vec![4], 0, false));
    }

    #[test]
    fn another_run_of_the_agent_starts_again() {
        let mut ledger = greeted(Start::Now, 1, 9);
        ledger.book(&mut batch(&[9], vec![]));
        ledger.replaced();
        assert_eq!(ledger.connect(), Start::All);
        let mut first = batch(&[1, 2], vec![hello("b", 1, 3)]);
        let account = ledger.book(&mut first);
        assert_eq!((ids(&first), account.lost), (vec![1, 2], 0));
        assert_eq!(ledger.connect(), Start::From(3, "b".into()));
    }

    #[test]
    fn the_end_tells_of_packets_that_never_came() {
        let mut ledger = greeted(Start::All, 1, 2);
        let account = ledger.book(&mut batch(&[1, 2], vec![Note::End(r#"{"next":5,"why":"SIGTERM"}"#.into())]));
        assert_eq!((account.lost, account.end.as_deref()), (2, Some("SIGTERM")));
    }

    #[test]
    fn interfaces_are_told_once_for_each_run() {
        let eth = |name: &str| Interface::named(name.to_owned(), 1, 0);
        let mut ledger = Ledger::new(Start::All);
        let mut tell = |boot: &str, connect: bool, names: &[&str]| {
            if connect {
                ledger.connect();
            }
            let notes = if connect { vec![hello(boot, 1, 1)] } else { vec![] };
            let mut batch =
                Batch { interfaces: names.iter().map(|name| eth(name)).collect(), notes, ..Batch::default() };
            let account = ledger.book(&mut batch);
            let names: Vec<String> = batch.interfaces.into_iter().map(|interface| interface.name).collect();
            (names.join(" "), account.restarted)
        };
        assert_eq!(tell("a", true, &["lo", "eth0"]), ("lo eth0".into(), false));
        assert_eq!(tell("a", true, &["lo"]), (String::new(), false));
        assert_eq!(tell("a", false, &["eth0", "eth1"]), ("eth1".into(), false));
        assert_eq!(tell("b", true, &["lo", "eth0"]), ("lo eth0".into(), true));
    }

    #[test]
    fn what_a_sessions_own_filter_leaves_out_is_not_lost() {
        let mut ledger = Ledger::new(Start::All);
        ledger.connect();
        let greeting = || Note::Hello(r#"{"boot":"a","next":9,"filtered":true}"#.into());
        assert_eq!(ledger.book(&mut batch(&[], vec![greeting()])).lost, 0);
        let sieved = |from, next, count| Note::Filtered { from, next, count };
        let account = ledger.book(&mut batch(&[2, 5, 12], vec![sieved(1, 11, 8)]));
        assert_eq!((account.lost, account.complete), (0, false));
        // Number 12 comes again after a cut, since what lies before it is not accounted for.
        assert_eq!(ledger.connect(), Start::From(11, "a".into()));
        let mut again = batch(&[12, 15], vec![greeting(), sieved(11, 16, 3)]);
        let account = ledger.book(&mut again);
        assert_eq!((ids(&again), account.lost), (vec![15], 0));
        let flushed = Note::Flushed { from: 16, count: 4 };
        assert_eq!(lost(&mut ledger, &[21], vec![flushed, sieved(20, 24, 1)]), 2);
        let account = ledger.book(&mut batch(&[], vec![Note::End(r#"{"next":25,"why":"x","asked":true}"#.into())]));
        assert_eq!((account.lost, account.complete), (1, true));
    }

    #[test]
    fn who_looks_back_with_a_filter_misses_nothing_that_was_before() {
        let end = |next: u64| Note::End(format!(r#"{{"next":{next},"why":"x","asked":true}}"#));
        for (ids, notes, lost) in [
            (&[40, 41, 42][..], vec![end(43)], 0),
            (&[40, 42], vec![end(43)], 1),
            (&[41, 42], vec![Note::Filtered { from: 40, next: 43, count: 1 }, end(43)], 0),
            (&[], vec![end(43)], 0),
        ] {
            let mut ledger = Ledger::new(Start::Since(60));
            ledger.connect();
            let hello = Note::Hello(r#"{"boot":"a","first":7,"next":43,"filtered":true}"#.into());
            assert_eq!(ledger.book(&mut batch(&[], vec![hello])).lost, 0);
            assert_eq!(ledger.book(&mut batch(ids, notes)).lost, lost, "{ids:?}");
        }
    }

    #[test]
    fn numbers_that_make_no_sense_break_nothing() {
        let mut ledger = greeted(Start::All, 1, 2);
        let strange =
            vec![Note::Flushed { from: u64::MAX, count: u64::MAX }, Note::Hello("{".into()), Note::End("x".into())];
        let account = ledger.book(&mut batch(&[u64::MAX, 3], strange));
        assert_eq!(account.end.as_deref(), Some(""));
    }
}
