//! Live captures of several pods through one engine.

use std::io;
use std::sync::Arc;

use hashbrown::HashMap;

use super::drops::Drops;
use super::engine::{Engine, Shard};
use super::fold::Fold;
use super::ids::Ids;
use super::key::Place;
use super::merge::{Merge, Views};
use super::opened::Opened;
use super::{Counts, Resolve, Sink};
use crate::capture::{Batch, Frame, Note};
use crate::dissect::{Keys, Options};
use crate::entry::{Entry, Name, Timestamp};

/// The most, in nanoseconds, that a step counts for rows that wait for their twin: what this process has had no time for may
/// be the twin.
const STEP: i64 = 100_000_000;

/// Dissects what the agents of several pods send, as it comes.
pub struct Live<'a> {
    engine: Engine,
    opened: Opened,
    fold: Fold,
    merge: Merge,
    ids: Ids,
    keys: Arc<Keys>,
    names: Arc<dyn Resolve>,
    sink: &'a mut dyn Sink,
    taps: HashMap<u32, Tap>,
    /// The time of day at the last step, and the time by which rows wait.
    stepped: Timestamp,
    clock: Timestamp,
    frames: u64,
    entries: u64,
    flushed: u64,
    filtered: u64,
    /// The time of the newest frame, and the time of day when it came.
    newest: Option<(Timestamp, Timestamp)>,
}

/// One pod's stream.
#[derive(Default)]
struct Tap {
    /// Whose loopback addresses it sees: the pod, or the node.
    pod: Option<Arc<Name>>,
    /// Link types of its interfaces, and where their frames are from.
    links: Vec<(u32, Place)>,
    /// Those of the present agent and of those that are gone.
    drops: Drops,
    /// What its probes have lost and what they could not place: those of agents that are gone, and of the present one.
    missed_before: [u64; 2],
    missed: [u64; 2],
}

impl<'a> Live<'a> {
    /// Rows go to `sink`, with names from `names`.
    pub fn new(options: Options, names: Arc<dyn Resolve>, sink: &'a mut dyn Sink) -> Self {
        Self {
            keys: Arc::clone(&options.keys),
            engine: Engine::new(options, Shard::ALL),
            opened: Opened::default(),
            fold: Fold::default(),
            merge: Merge::default(),
            ids: Ids::default(),
            names,
            sink,
            taps: HashMap::new(),
            stepped: Timestamp::default(),
            clock: Timestamp::default(),
            frames: 0,
            entries: 0,
            flushed: 0,
            filtered: 0,
            newest: None,
        }
    }

    /// Takes a batch from the pod that has number `tap` (from 1); `now` is the time of day.
    ///
    /// # Errors
    /// If a row cannot be written.
    pub fn batch(&mut self, tap: u32, batch: &Batch, now: Timestamp) -> io::Result<()> {
        let secrets =
            batch.notes.iter().filter_map(|note| if let Note::Secrets(lines) = note { Some(lines) } else { None });
        if secrets.map(|lines| self.keys.add(lines)).sum::<usize>() > 0 {
            self.rekey();
        }
        let state = self.taps.entry(tap).or_default();
        state.links.extend(batch.interfaces.iter().map(|interface| (interface.link, Place::of(tap, interface))));
        if state.pod.is_none() {
            state.pod =
                batch.interfaces.iter().find_map(|interface| Name::of_agent(interface.pod.as_deref()?)).map(Arc::new);
        }
        for note in &batch.notes {
            state.drops.note(note, state.links.len());
            match note {
                Note::Flushed { count, .. } => self.flushed += count,
                Note::Filtered { count, .. } => self.filtered += count,
                Note::Probes(probes) => {
                    state.missed = [probes.lost, probes.unmatched];
                    self.keys.explain(tap, &probes.excuse(), probes.reasons());
                }
                _ => {}
            }
        }
        for frame in batch.frames() {
            self.frames += 1;
            let (link, place) =
                state.links.get(frame.interface as usize).copied().unwrap_or((u32::MAX, Place::default()));
            self.newest = Some((frame.time, now));
            self.engine.frame(&Frame { number: self.frames, ..frame }, link, place);
        }
        self.rows(now)
    }

    /// Lets rows go that have waited for their twin or their keys; call it several times a second.
    ///
    /// # Errors
    /// If a row cannot be written.
    pub fn release(&mut self, now: Timestamp) -> io::Result<()> {
        if let Some((time, came)) = self.newest {
            // The nodes' clocks need not be right.
            self.engine.lapse(Timestamp(time.0.saturating_add(now.since(came))), self.frames);
        }
        self.rows(now)
    }

    /// Has the sink write what it still holds.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.tick()
    }

    /// Ends all flows and writes what is left.
    ///
    /// # Errors
    /// If a row cannot be written.
    pub fn finish(mut self, now: Timestamp) -> io::Result<Counts> {
        self.engine.finish(self.frames);
        self.rows(now)?;
        let mut rest = Vec::new();
        self.fold.finish(&mut |entry| rest.push(entry));
        self.opened.finish(&mut |entry| rest.push(entry));
        for entry in std::mem::take(&mut rest) {
            let views = self.views(&entry);
            self.merge.offer(entry, self.clock, views, &mut |entry| rest.push(entry));
        }
        self.merge.finish(&mut |entry| rest.push(entry));
        self.put(rest)?;
        self.sink.finish()?;
        Ok(self.counts())
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let missed = |which: fn([u64; 2]) -> u64| {
            self.taps.values().map(|tap| which(tap.missed_before) + which(tap.missed)).sum()
        };
        Counts {
            key_events_lost: missed(|[lost, _]| lost),
            keys_unmatched: missed(|[_, unmatched]| unmatched),
            entries: self.entries,
            merged: self.merge.merged(),
            folded: self.fold.folded(),
            flushed: self.flushed,
            filtered: self.filtered,
            dropped: self.taps.values().map(|tap| tap.drops.total()).sum(),
            ..self.engine.counts().clone()
        }
    }

    /// The agent in the pod was replaced: its counters start again.
    pub fn restarted(&mut self, tap: u32) {
        if let Some(tap) = self.taps.get_mut(&tap) {
            tap.drops.restart();
            for (before, missed) in tap.missed_before.iter_mut().zip(std::mem::take(&mut tap.missed)) {
                *before += missed;
            }
            tap.links.clear();
        }
    }

    /// There are new keys: what waited for them goes on.
    pub fn rekey(&mut self) {
        self.engine.rekey(self.frames);
    }

    /// Packets that are known to be missing from a stream.
    pub fn lost(&mut self, count: u64) {
        self.flushed += count;
    }

    fn rows(&mut self, now: Timestamp) -> io::Result<()> {
        let step = now.since(std::mem::replace(&mut self.stepped, now)).clamp(0, STEP);
        self.clock.0 = self.clock.0.saturating_add(step);
        let now = self.clock;
        let keyless = self.engine.waiting();
        let may_decrypt = !self.keys.is_empty() || !keyless.is_empty();
        let mut folded = Vec::new();
        for produced in self.engine.take() {
            let mut entry = produced.entry;
            self.ids.pass(&mut entry);
            let pod = self.taps.get(&entry.tap).and_then(|tap| tap.pod.as_ref());
            for end in [&mut entry.src, &mut entry.dst] {
                end.name = match pod {
                    Some(pod) if end.ip.is_loopback() => Some(Arc::clone(pod)),
                    _ => self.names.resolve(end.ip, end.port),
                };
            }
            // Without keys, and anything that waits for them, there is no twin to wait for.
            let fold = &mut self.fold;
            self.opened.offer(entry, now, &mut |entry| {
                if may_decrypt {
                    fold.offer(entry, now, &mut |entry| folded.push(entry));
                } else {
                    folded.push(entry);
                }
            });
        }
        self.opened.tick(now, &mut |entry| folded.push(entry));
        self.fold.tick(now, &keyless, &mut |entry| folded.push(entry));
        let mut ready = Vec::new();
        for entry in folded {
            let views = self.views(&entry);
            self.merge.offer(entry, now, views, &mut |entry| ready.push(entry));
        }
        self.merge.tick(now, &mut |entry| ready.push(entry));
        self.put(ready)
    }

    /// How often an entry may be seen.
    fn views(&self, entry: &Entry) -> Views {
        let several = self.taps.len() > 1;
        let any_node = self.taps.values().any(|tap| tap.pod.as_ref().is_some_and(|of| of.kind == "node"));
        // Its other end may be a sniffed pod too, or a service in front of one.
        let is_between = entry.src.name != entry.dst.name && entry.src.name.is_some() && entry.dst.name.is_some();
        match (any_node, is_between && several) {
            // The sender's address may be translated too.
            (true, _) if entry.dst.name.is_some() => Views::Many,
            (_, true) => Views::Two,
            _ => Views::One,
        }
    }

    fn put(&mut self, entries: Vec<Box<Entry>>) -> io::Result<()> {
        for mut entry in entries {
            self.entries += 1;
            entry.id = self.entries;
            if let Some(backend) = &mut entry.backend {
                backend.name = self.names.resolve(backend.ip, backend.port);
            }
            self.sink.entry(&entry)?;
        }
        Ok(())
    }
}
