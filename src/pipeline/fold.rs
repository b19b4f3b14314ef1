//! A request that passes a sidecar → one row.
//!
//! In a service mesh, a program speaks plain HTTP with the sidecar in its own pod, which speaks TLS with the next one's. Both
//! legs pass in the pod. Where the encrypted one is decrypted, its row tells who spoke with whom, and the plain one is a
//! [`Hop`] of it. Without keys nothing proves that they are the same, and they stay two rows.
//!
//! The same are two legs in one pod with the same method, target, status and body sizes, of which one lies within the other
//! in time, whole and without a complaint; each leg has one twin at most.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::{HashMap, HashSet};

use crate::entry::{Entry, Hop, JOINED, Text, Timestamp};

/// How long, in nanoseconds, one leg waits for the other: a sidecar passes on in a few milliseconds what it gets.
const PATIENCE: i64 = 200_000_000;
/// The same of the plain one, while a connection in its pod waits for keys: a key log that is followed is a second behind.
const PATIENCE_FOR_KEYS: i64 = 3_000_000_000;
/// The most legs that wait.
const MAX_HELD: usize = 20_000;

/// What both legs have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    tap: u32,
    protocol: &'static str,
    operation: Text,
    target: String,
    status: Text,
    bodies: [u64; 2],
}

/// Which of the two it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    /// Between the program and the sidecar.
    Plain,
    Encrypted,
}

/// The key of what may have a twin.
fn leg(entry: &Entry) -> Option<(Key, Leg)> {
    let (request, response) = (entry.request.as_ref()?, entry.response.as_ref()?);
    let bodies = [request.body?, response.body?];
    let is_local = entry.src.ip.is_loopback() || entry.dst.ip.is_loopback() || entry.src.ip == entry.dst.ip;
    let leg = match (is_local, entry.decrypted) {
        (true, None) => Leg::Plain,
        (false, Some(_)) => Leg::Encrypted,
        _ => return None,
    };
    if entry.tap == 0 || entry.warnings.iter().any(|warning| warning != JOINED) {
        return None;
    }
    // A sidecar may speak another version of HTTP than the program.
    let protocol = if matches!(entry.protocol, "http2" | "http3") { "http" } else { entry.protocol };
    let Entry { tap, operation, target, status, .. } = entry;
    let (operation, target, status) = (operation.clone(), target.clone(), status.clone());
    Some((Key { tap: *tap, protocol, operation, target, status, bodies }, leg))
}

/// True if one was asked and answered while the other waited.
fn is_nested(one: &Entry, other: &Entry) -> bool {
    let times = |entry: &Entry| Some((entry.request.as_ref()?.time, entry.response.as_ref()?.time));
    times(one).zip(times(other)).is_some_and(|((asked, answered), (within, until))| {
        (asked <= within && until <= answered) || (within <= asked && answered <= until)
    })
}

struct Held {
    key: Key,
    leg: Leg,
    since: Timestamp,
    entry: Box<Entry>,
}

/// Finds the legs of requests that pass sidecars.
#[derive(Default)]
pub struct Fold {
    /// By the order in which they came.
    held: BTreeMap<u64, Held>,
    /// Those among them of one key.
    of_key: HashMap<Key, VecDeque<u64>>,
    next: u64,
    folded: u64,
}

impl Fold {
    /// How many legs are hops of other entries.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// Takes an entry at time `now` and hands on its twin, or what may not wait.
    pub fn offer(&mut self, entry: Box<Entry>, now: Timestamp, out: &mut impl FnMut(Box<Entry>)) {
        let Some((key, leg)) = leg(&entry) else {
            out(entry);
            return;
        };
        let same = self.of_key.get(&key).into_iter().flatten();
        let twin = same
            .copied()
            .find(|number| self.held.get(number).is_some_and(|held| held.leg != leg && is_nested(&held.entry, &entry)));
        if let Some(twin) = twin.and_then(|twin| self.take(twin)) {
            self.folded += 1;
            let (plain, mut encrypted) = if leg == Leg::Plain { (entry, twin) } else { (twin, entry) };
            encrypted.hops.push(Hop { src: plain.src, dst: plain.dst, latency: plain.latency });
            out(encrypted);
            return;
        }
        if self.held.len() >= MAX_HELD
            && let Some(oldest) = self.held.keys().next().copied().and_then(|oldest| self.take(oldest))
        {
            out(oldest);
        }
        self.of_key.entry(key.clone()).or_default().push_back(self.next);
        self.held.insert(self.next, Held { key, leg, since: now, entry });
        self.next += 1;
    }

    /// Hands on what has waited long enough. `keyless` tells when the last packet came of connections that wait for keys, by
    /// the tap where they are.
    pub fn tick(&mut self, now: Timestamp, keyless: &HashMap<u32, Timestamp>, out: &mut impl FnMut(Box<Entry>)) {
        // Where one stays, those after it do, so that they keep their order.
        let mut stays = HashSet::new();
        let mut over = Vec::new();
        for (number, held) in &self.held {
            let waited = now.since(held.since);
            if waited <= PATIENCE {
                break;
            }
            let tap = held.key.tap;
            // Its twin has packets since it was asked.
            let has_twin = keyless.get(&tap).is_some_and(|last| *last >= held.entry.time) || stays.contains(&tap);
            if held.leg == Leg::Plain && has_twin && waited <= PATIENCE_FOR_KEYS {
                stays.insert(tap);
            } else {
                over.push(*number);
            }
        }
        over.into_iter().filter_map(|number| self.take(number)).for_each(out);
    }

    /// Hands on all that is held.
    pub fn finish(&mut self, out: &mut impl FnMut(Box<Entry>)) {
        self.of_key.clear();
        for held in std::mem::take(&mut self.held).into_values() {
            out(held.entry);
        }
    }

    fn take(&mut self, number: u64) -> Option<Box<Entry>> {
        let held = self.held.remove(&number)?;
        if let Some(numbers) = self.of_key.get_mut(&held.key) {
            numbers.retain(|it| *it != number);
            if numbers.is_empty() {
                self.of_key.remove(&held.key);
            }
        }
        Some(held.entry)
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::entry::{Endpoint, Half};

    /// A leg as (from, to) in milliseconds; a plain one is on the pod's own addresses.
    fn leg(plain: bool, from: i64, to: i64) -> Entry {
        let half = |time| Half { time: Timestamp(time * 1_000_000), body: Some(5), ..Half::default() };
        let dst = if plain { [127, 0, 0, 1] } else { [10, 0, 0, 2] };
        let [src, dst] = [([10, 0, 0, 1], 40_000), (dst, 80)].map(|(ip, port)| Endpoint::new(IpAddr::from(ip), port));
        Entry {
            time: Timestamp(from * 1_000_000),
            operation: "GET".into(),
            target: "/".into(),
            status: "200".into(),
            latency: Some((to - from) * 1_000_000),
            request: Some(half(from)),
            response: Some(half(to)),
            decrypted: (!plain).then_some("keylog"),
            tap: 1,
            ..Entry::new(if plain { "http" } else { "http2" }, src, dst)
        }
    }

    /// Offers entries when they are answered, and shows how many hops each row has.
    fn run(entries: Vec<Entry>) -> Vec<usize> {
        let mut fold = Fold::default();
        let mut rows = Vec::new();
        for entry in entries {
            let now = entry.response.as_ref().map_or(entry.time, |half| half.time);
            fold.tick(now, &HashMap::new(), &mut |entry| rows.push(entry.hops.len()));
            fold.offer(Box::new(entry), now, &mut |entry| rows.push(entry.hops.len()));
        }
        fold.finish(&mut |entry| rows.push(entry.hops.len()));
        rows
    }

    #[test]
    fn the_legs_of_a_request_are_one_row_on_either_side() {
        assert_eq!(run(vec![leg(false, 2, 8), leg(true, 1, 9)]), [1]);
        assert_eq!(run(vec![leg(true, 2, 8), leg(false, 1, 9)]), [1]);
        assert_eq!(run(vec![leg(true, 2, 8), leg(true, 3, 8), leg(false, 1, 9), leg(false, 1, 9)]), [1, 1]);
    }

    #[test]
    fn a_plain_leg_waits_for_the_keys_of_its_twin_and_no_longer() {
        let ms = |ms: i64| Timestamp(ms * 1_000_000);
        let late = PATIENCE_FOR_KEYS / 1_000_000;
        let other = || Entry { tap: 2, ..leg(true, 1, 9) };
        // (when, connections without keys by tap and last packet, rows that are out by then)
        for (at, keyless, expected) in [
            (100, vec![], 0),
            (300, vec![], 3),
            (300, vec![(1, ms(0))], 3),
            (300, vec![(1, ms(8))], 1),
            (late, vec![(1, ms(8))], 1),
            (late + 10, vec![(1, ms(8))], 3),
        ] {
            let mut fold = Fold::default();
            let mut rows = Vec::new();
            for entry in [leg(true, 1, 9), leg(true, 20, 30), other()] {
                fold.offer(Box::new(entry), ms(9), &mut |entry| rows.push(entry.tap));
            }
            fold.tick(ms(at), &keyless.iter().copied().collect(), &mut |entry| rows.push(entry.tap));
            assert_eq!(rows.len(), expected, "{at} {keyless:?}");
            fold.offer(Box::new(leg(false, 2, 8)), ms(at), &mut |entry| rows.push(entry.hops.len() as u32));
            assert_eq!(rows.len(), expected + usize::from(expected < 3), "{at} {keyless:?}");
        }
    }

    #[test]
    fn what_only_looks_alike_stays_two_rows() {
        let differs = |change: fn(&mut Entry)| {
            let mut other = leg(true, 1, 9);
            change(&mut other);
            run(vec![leg(false, 2, 8), other])
        };
        for rows in [
            differs(|it| it.tap = 2),
            differs(|it| it.operation = "HEAD".into()),
            differs(|it| it.target = "/x".into()),
            differs(|it| it.status = "404".into()),
            differs(|it| it.response = Some(Half { body: Some(6), ..it.response.clone().unwrap_or_default() })),
            differs(|it| it.dst.ip = IpAddr::from([10, 0, 0, 3])),
            differs(|it| it.decrypted = Some("keylog")),
            differs(|it| it.warnings.push("the capture lacks 3 bytes of its body".into())),
            differs(|it| *it = leg(true, 3, 9)),
            differs(|it| *it = leg(true, 1, 300)),
        ] {
            assert_eq!(rows, [0, 0]);
        }
        // Two plain hops do not share a twin.
        assert_eq!(run(vec![leg(false, 2, 8), leg(true, 1, 9), leg(true, 1, 9)]), [1, 0]);
    }
}
