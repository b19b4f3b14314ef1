//! Requests that are seen twice → one row.
//!
//! A connection between two sniffed pods is captured twice, often under two addresses: the caller sees a service's, the
//! callee its own. TCP sequence numbers pass a NAT unchanged, so those of the first bytes of request and response, with what
//! was asked, tell twins: one alone would be the same by chance, once in some ten thousand connections. Datagrams have
//! their sender and question.
//!
//! A node sees such a connection under both addresses at one place, and the callee's node once more: up to three views. One
//! place sees a datagram twice only if one view is of a service and the other of a pod; a question that goes to two
//! servers stays two.

use std::collections::VecDeque;
use std::net::IpAddr;

use hashbrown::HashMap;

use crate::entry::{Entry, Text, Timestamp};

/// How long, in nanoseconds, an entry is remembered so that its twin is known when it comes: under load, one agent's stream may
/// be far behind another's.
const MEMORY: i64 = 60_000_000_000;
/// How long a twin that is expected is waited for, so that the row can tell both views.
const PATIENCE: i64 = 150_000_000;
/// The most entries remembered.
const MAX_REMEMBERED: usize = 100_000;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    protocol: &'static str,
    operation: Text,
    target: String,
    /// Which half the position is of.
    asked: bool,
    position: u32,
    /// Senders of datagrams, which have no position.
    sender: Option<(IpAddr, u16)>,
}

impl Key {
    fn of(entry: &Entry) -> Self {
        let position = entry.request.as_ref().or(entry.response.as_ref()).map_or(0, |half| half.position);
        Self {
            protocol: entry.protocol,
            operation: entry.operation.clone(),
            target: entry.target.clone(),
            asked: entry.request.is_some(),
            position,
            sender: (position == 0).then_some((entry.src.ip, entry.src.port)),
        }
    }
}

/// What tells the response of a connection, whether or not its request was captured.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Answer {
    protocol: &'static str,
    status: Text,
    position: u32,
}

impl Answer {
    fn of(entry: &Entry) -> Option<Self> {
        let position = answered(entry)?;
        Some(Self { protocol: entry.protocol, status: entry.status.clone(), position })
    }
}

/// Where the response begins: none of a datagram, which has no position, and where there is no response.
fn answered(entry: &Entry) -> Option<u32> {
    entry.response.as_ref().map(|half| half.position).filter(|position| *position != 0)
}

type Ends = [(IpAddr, u16); 2];

fn ends(entry: &Entry) -> Ends {
    [(entry.src.ip, entry.src.port), (entry.dst.ip, entry.dst.port)]
}

fn is_to_service(entry: &Entry) -> bool {
    entry.dst.name.as_ref().is_some_and(|name| name.kind == "service")
}

/// An entry that was seen at a tap; `held` until it is handed on.
struct Seen {
    tap: u32,
    /// Both ends, by address and port.
    ends: Ends,
    /// Where its response begins, if that is known.
    answered: Option<u32>,
    /// True if it was sent to a service.
    to_service: bool,
    held: Option<Box<Entry>>,
}

impl Seen {
    fn new(entry: &Entry) -> Self {
        let (tap, ends, to_service) = (entry.tap, ends(entry), is_to_service(entry));
        Self { tap, ends, answered: answered(entry), to_service, held: None }
    }

    /// True if the entry, of the same key, is another view of this one.
    fn is_twin(&self, entry: &Entry, key: &Key) -> bool {
        if let (Some(one), Some(other)) = (self.answered, answered(entry))
            && one != other
        {
            return false;
        }
        let is_translated = self.ends != ends(entry)
            && (key.sender.is_none() || (self.to_service != is_to_service(entry) && entry.dst.name.is_some()));
        self.tap != entry.tap || is_translated
    }
}

/// How often an entry may be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// Once, as far as is known.
    One,
    /// Its other end is a sniffed pod too, or may be.
    Two,
    /// A node saw it, which sees it before and after addresses are translated.
    Many,
}

/// Finds twins among entries of different taps.
#[derive(Default)]
pub struct Merge {
    seen: HashMap<Key, Seen>,
    /// The keys of what is seen, by response.
    answers: HashMap<Answer, Key>,
    /// Keys by the time at which they were first seen.
    order: VecDeque<(Timestamp, Key, Option<Answer>)>,
    /// Keys of held entries, in order.
    held: VecDeque<(Timestamp, Key)>,
    merged: u64,
}

impl Merge {
    /// How many entries were left out because their twin was there.
    pub fn merged(&self) -> u64 {
        self.merged
    }

    /// Takes an entry at time `now`, of which so many views are expected; hands on what is ready.
    pub fn offer(&mut self, entry: Box<Entry>, now: Timestamp, views: Views, out: &mut impl FnMut(Box<Entry>)) {
        if entry.tap == 0 {
            out(entry);
            return;
        }
        let answer = Answer::of(&entry);
        let key = self.half_seen(&entry, answer.as_ref()).unwrap_or_else(|| Key::of(&entry));
        match self.seen.get_mut(&key) {
            Some(first) if first.is_twin(&entry, &key) => {
                self.merged += 1;
                if let Some(held) = first.held.take() {
                    let joined = join(held, entry);
                    if views == Views::Many && joined.backend.is_none() {
                        // The view of the service may be still to come.
                        first.held = Some(joined);
                    } else {
                        out(joined);
                    }
                }
            }
            // The same question again at the same place is another one.
            Some(first) => {
                if let Some(held) = std::mem::replace(first, Seen::new(&entry)).held {
                    out(held);
                }
                if views == Views::Many {
                    first.held = Some(entry);
                    self.held.push_back((now, key));
                } else {
                    out(entry);
                }
            }
            None => {
                let mut seen = Seen::new(&entry);
                if views == Views::One {
                    out(entry);
                } else {
                    seen.held = Some(entry);
                    self.held.push_back((now, key.clone()));
                }
                if let Some(answer) = &answer {
                    self.answers.insert(answer.clone(), key.clone());
                }
                self.order.push_back((now, key.clone(), answer));
                self.seen.insert(key, seen);
            }
        }
        self.tick(now, out);
    }

    /// The key of another view of the same response, if one of the two lacks its request. One that was handed on without
    /// its request does not stand for the full one.
    fn half_seen(&self, entry: &Entry, answer: Option<&Answer>) -> Option<Key> {
        let key = self.answers.get(answer?)?;
        let first = self.seen.get(key)?;
        let is_told = key.asked || first.held.is_some();
        (is_told && first.is_twin(entry, key) && key.asked != entry.request.is_some()).then(|| key.clone())
    }

    /// Hands on what has waited long enough and forgets what is old.
    pub fn tick(&mut self, now: Timestamp, out: &mut impl FnMut(Box<Entry>)) {
        while let Some((_, key)) = self.held.front().filter(|(since, _)| now.since(*since) > PATIENCE) {
            if let Some(entry) = self.seen.get_mut(key).and_then(|seen| seen.held.take()) {
                out(entry);
            }
            self.held.pop_front();
        }
        while let Some((_, key, answer)) =
            self.order.front().filter(|(since, ..)| now.since(*since) > MEMORY || self.order.len() > MAX_REMEMBERED)
        {
            if let Some(entry) = self.seen.remove(key).and_then(|seen| seen.held) {
                out(entry);
            }
            if let Some(answer) = answer.as_ref().filter(|answer| self.answers.get(*answer) == Some(key)) {
                self.answers.remove(answer);
            }
            self.order.pop_front();
        }
    }

    /// Hands on all that is held.
    pub fn finish(&mut self, out: &mut impl FnMut(Box<Entry>)) {
        for (_, key) in std::mem::take(&mut self.held) {
            if let Some(entry) = self.seen.get_mut(&key).and_then(|seen| seen.held.take()) {
                out(entry);
            }
        }
    }
}

/// One row of two views. The caller's has the longer latency, whatever the two clocks say; it tells how long the caller
/// waited and whom it called. The callee's tells who answered.
fn join(first: Box<Entry>, second: Box<Entry>) -> Box<Entry> {
    let complete = |entry: &Entry| (entry.request.is_some() && entry.response.is_some(), entry.latency);
    let (mut caller, mut callee) =
        if complete(&first) >= complete(&second) { (first, second) } else { (second, first) };
    caller.hops.append(&mut callee.hops);
    if (callee.dst.ip, callee.dst.port) != (caller.dst.ip, caller.dst.port) {
        caller.backend = Some(callee.dst);
    }
    caller
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::entry::{Endpoint, Half, Name};

    fn entry(tap: u32, dst: u8, position: u32, latency: i64) -> Entry {
        let src = Endpoint::new(IpAddr::from([10, 0, 0, 1]), 40_000);
        let dst = Endpoint::new(IpAddr::from([10, 0, 0, dst]), 80);
        Entry {
            operation: "GET".into(),
            target: "/".into(),
            status: "200".into(),
            latency: Some(latency),
            request: Some(Half { position, ..Half::default() }),
            response: Some(Half::default()),
            tap,
            ..Entry::new("http", src, dst)
        }
    }

    /// Offers entries as (tap, dst, position, latency, time) and shows what comes out.
    fn run(entries: &[(u32, u8, u32, i64, i64)]) -> Vec<Box<Entry>> {
        let mut merge = Merge::default();
        let mut rows = Vec::new();
        for (tap, dst, position, latency, now) in entries {
            let view = Box::new(entry(*tap, *dst, *position, *latency));
            merge.offer(view, Timestamp(*now), Views::Two, &mut |entry| {
                rows.push(entry);
            });
        }
        merge.finish(&mut |entry| rows.push(entry));
        rows
    }

    #[test]
    fn both_views_of_a_request_are_one_row_with_the_callee_behind_the_service() {
        let rows = run(&[(2, 9, 77, 100, 0), (1, 5, 77, 150, 10)]);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].dst.ip, IpAddr::from([10, 0, 0, 5]));
        assert_eq!(rows[0].latency, Some(150));
        assert_eq!(rows[0].backend.as_ref().map(|end| end.ip), Some(IpAddr::from([10, 0, 0, 9])));
    }

    /// Offers views of node 1 or 2, as (tap, entry), all at once.
    fn views(entries: Vec<(u32, Entry)>) -> (Vec<Box<Entry>>, u64) {
        let mut merge = Merge::default();
        let mut rows = Vec::new();
        for (tap, entry) in entries {
            merge.offer(Box::new(Entry { tap, ..entry }), Timestamp(0), Views::Many, &mut |entry| rows.push(entry));
        }
        merge.finish(&mut |entry| rows.push(entry));
        (rows, merge.merged())
    }

    #[test]
    fn a_nodes_views_before_and_after_translation_are_one_row() {
        let (service, pod) = (entry(1, 5, 77, 150), entry(1, 9, 77, 140));
        for order in
            [[(1, pod.clone()), (1, service.clone()), (2, pod.clone())], [(2, pod.clone()), (1, pod), (1, service)]]
        {
            let (rows, merged) = views(order.to_vec());
            assert_eq!((rows.len(), merged), (1, 2));
            assert_eq!(rows[0].dst.ip, IpAddr::from([10, 0, 0, 5]));
            assert_eq!(rows[0].backend.as_ref().map(|end| end.ip), Some(IpAddr::from([10, 0, 0, 9])));
        }
    }

    #[test]
    fn a_datagram_to_two_servers_is_two_rows_and_one_to_a_service_is_not() {
        let named = |dst, kind| {
            let mut entry = entry(1, dst, 0, 100);
            let name =
                Name { kind, namespace: "shop".into(), name: format!("{kind}{dst}"), workload: None, node: None };
            entry.dst.name = Some(Arc::new(name));
            entry
        };
        assert_eq!(views(vec![(1, named(5, "pod")), (1, named(9, "pod"))]).0.len(), 2);
        assert_eq!(views(vec![(1, named(5, "service")), (1, named(9, "service"))]).0.len(), 2);
        assert_eq!(views(vec![(1, named(9, "pod")), (1, named(5, "service"))]).0.len(), 1);
    }

    #[test]
    fn a_view_that_lost_the_request_is_the_twin_of_the_full_one() {
        let answered = |tap, response| Entry {
            response: Some(Half { position: response, ..Half::default() }),
            ..entry(tap, 5, 77, 150)
        };
        let orphan = |tap, response| {
            let warnings = vec![Text::Borrowed("the capture lacks its request")];
            let full = answered(tap, response);
            Entry { request: None, latency: None, operation: "".into(), target: String::new(), warnings, ..full }
        };
        for order in [[orphan(2, 9000), answered(1, 9000)], [answered(1, 9000), orphan(2, 9000)]] {
            let mut merge = Merge::default();
            let mut rows = Vec::new();
            for entry in order {
                merge.offer(Box::new(entry), Timestamp(0), Views::Two, &mut |entry| rows.push(entry));
            }
            merge.finish(&mut |entry| rows.push(entry));
            assert_eq!((rows.len(), merge.merged()), (1, 1));
            assert_eq!((&*rows[0].operation, rows[0].latency, rows[0].warnings.len()), ("GET", Some(150), 0));
        }
        // Another response, and another one at the same place, are rows of their own.
        for other in [orphan(2, 9001), orphan(1, 9000)] {
            assert_eq!(views(vec![(1, answered(1, 9000)), (other.tap, other)]).0.len(), 2);
        }
    }

    #[test]
    fn equal_requests_at_one_place_stay_two_rows() {
        assert_eq!(run(&[(1, 5, 77, 1, 0), (1, 5, 77, 1, 1)]).len(), 2);
        assert_eq!(run(&[(1, 5, 77, 1, 0), (2, 5, 78, 1, 1)]).len(), 2);
    }

    #[test]
    fn connections_that_begin_at_the_same_number_by_chance_stay_two_rows() {
        let view = |tap, port, response| {
            let mut entry = entry(tap, 5, 77, 150);
            entry.src.port = port;
            entry.response = Some(Half { position: response, ..Half::default() });
            (tap, entry)
        };
        for other in [1, 2] {
            assert_eq!(views(vec![view(1, 40_000, 9000), view(other, 40_001, 9500)]).0.len(), 2);
        }
        // Each has its twin.
        let all = vec![view(1, 40_000, 9000), view(2, 40_000, 9000), view(1, 40_001, 9500), view(2, 40_001, 9500)];
        let (rows, merged) = views(all);
        assert_eq!((rows.len(), merged), (2, 2));
    }

    #[test]
    fn a_twin_that_comes_late_is_left_out() {
        assert_eq!(run(&[(1, 5, 77, 1, 0), (1, 5, 90, 1, PATIENCE + 1), (2, 5, 77, 1, PATIENCE + 2)]).len(), 2);
    }
}
