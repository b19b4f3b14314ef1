//! A whole capture through the engine, on as many cores as there are, with the order of the rows kept.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use hashbrown::HashMap;

use super::drops::Drops;
use super::engine::{Engine, Produced, Shard};
use super::fold::Fold;
use super::ids::Ids;
use super::key::Place;
use super::merge::{Merge, Views};
use super::opened::Opened;
use super::{Counts, Sink};
use crate::capture::{Batch, Error, Frame, Interface, Note, Source};
use crate::dissect::{Keys, Options, Turn};
use crate::entry::{Endpoint, Entry, Name};
use crate::flow::Glance;

/// Batches under way at once: one is read while others are dissected.
const BATCHES: usize = 4;

/// The most workers that have something to do.
const MOST_WORKERS: usize = 16;

/// The route of a frame that each worker has to decode to see whose it is.
const EACH: u8 = u8::MAX;

/// The most names of addresses that are kept.
const MOST_NAMES: usize = 100_000;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum Offline {
    /// The capture cannot be read.
    #[error(transparent)]
    Capture(#[from] Error),
    /// The rows cannot be written.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// A batch with what the engine has to know of the interfaces seen so far.
struct Job {
    batch: Batch,
    /// For each frame the worker that has its flow, or [`EACH`]; empty where there is but one.
    routes: Vec<u8>,
    lanes: Arc<Vec<Lane>>,
    /// The pods seen so far; a tap is an index into them, plus one.
    pods: Arc<Vec<String>>,
}

/// What the engine has to know of an interface.
#[derive(Clone, Copy)]
struct Lane {
    link: u32,
    /// Each pod is a point of view of its own: two that see the same connection see it twice. 0 where no pod is known.
    place: Place,
}

impl Job {
    /// The frames, each with its lane.
    fn frames(&self) -> impl Iterator<Item = (Frame<'_>, Lane)> {
        self.batch.frames().map(|frame| {
            let lane = self.lanes.get(frame.interface as usize).copied();
            (frame, lane.unwrap_or(Lane { link: u32::MAX, place: Place::default() }))
        })
    }

    /// Shares the frames out among so many workers. So each looks at the bytes of its own only, which are far away: in the
    /// cache of the processor that has read them.
    fn route(&mut self, workers: usize) {
        let mut routes = std::mem::take(&mut self.routes);
        routes.clear();
        routes.extend(self.frames().map(|(frame, lane)| {
            let glance = Glance::at(lane.link, frame.data);
            glance.map_or(EACH, |glance| Shard::of(&glance, lane.place, workers as u64) as u8)
        }));
        self.routes = routes;
    }
}

/// Joins twins, numbers entries and hands them to the sink, with the names that the capture gives.
struct Rows<'a> {
    sink: &'a mut dyn Sink,
    names: HashMap<IpAddr, Arc<Name>>,
    /// The pod of each tap, from 1: whose loopback addresses it sees.
    pods: Vec<Option<Arc<Name>>>,
    keys: Arc<Keys>,
    opened: Opened,
    fold: Fold,
    merge: Merge,
    ids: Ids,
    entries: u64,
}

impl Rows<'_> {
    /// Takes the names that a batch holds: those of objects in a cluster, as captures of ours have them.
    fn learn(&mut self, job: &Job) {
        for path in job.pods.iter().skip(self.pods.len()) {
            self.pods.push(Name::of_agent(path).map(Arc::new));
        }
        let batch = &job.batch;
        for note in &batch.notes {
            if let Note::Name(address, host) = note
                && self.names.len() < MOST_NAMES
                && let Some(name) = Name::from_host(host)
            {
                self.names.insert(*address, Arc::new(name));
            }
        }
    }

    fn put(&mut self, mut produced: Vec<Produced>) -> io::Result<()> {
        // Each engine's are in order already; a stable sort merges them.
        produced.sort_by_key(|produced| produced.order);
        let mut ready = Vec::new();
        for Produced { mut entry, .. } in produced {
            self.ids.pass(&mut entry);
            for end in [&mut entry.src, &mut entry.dst] {
                end.name = name(&self.names, &self.pods, end, entry.tap);
            }
            // What is complete only now came later, whenever it began.
            let now = entry.response.as_ref().map_or(entry.time, |response| response.time);
            // Without keys there is no twin to wait for.
            let (fold, may_fold) = (&mut self.fold, !self.keys.is_empty());
            self.opened.offer(entry, now, &mut |entry| {
                if may_fold {
                    fold.tick(now, &HashMap::new(), &mut |entry| ready.push(entry));
                    fold.offer(entry, now, &mut |entry| ready.push(entry));
                } else {
                    ready.push(entry);
                }
            });
        }
        self.merge(ready)
    }

    fn merge(&mut self, entries: Vec<Box<Entry>>) -> io::Result<()> {
        let mut ready = Vec::new();
        let any_node = self.pods.iter().flatten().any(|of| of.kind == "node");
        let views = if any_node { Views::Many } else { Views::Two };
        for entry in entries {
            let now = entry.time;
            self.merge.offer(entry, now, views, &mut |entry| ready.push(entry));
        }
        self.write(ready)
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        self.fold.finish(&mut |entry| ready.push(entry));
        self.opened.finish(&mut |entry| ready.push(entry));
        self.merge(std::mem::take(&mut ready))?;
        self.merge.finish(&mut |entry| ready.push(entry));
        self.write(ready)?;
        self.sink.finish()
    }

    fn write(&mut self, entries: Vec<Box<Entry>>) -> io::Result<()> {
        for mut entry in entries {
            self.entries += 1;
            entry.id = self.entries;
            // Some names may have come meanwhile.
            for end in [&mut entry.src, &mut entry.dst].into_iter().chain(&mut entry.backend) {
                if end.name.is_none() {
                    end.name = name(&self.names, &self.pods, end, entry.tap);
                }
            }
            self.sink.entry(&entry)?;
        }
        Ok(())
    }
}

/// The name of an end that was seen at `tap`.
fn name(names: &HashMap<IpAddr, Arc<Name>>, pods: &[Option<Arc<Name>>], end: &Endpoint, tap: u32) -> Option<Arc<Name>> {
    match pods.get((tap as usize).wrapping_sub(1)) {
        Some(pod) if end.ip.is_loopback() => pod.clone(),
        _ => names.get(&end.ip).cloned(),
    }
}

/// Reads `source` to its end and hands each entry to `sink`, in the same order however many `workers` there are. More than
/// a few do not help: one thread reads and writes for all.
///
/// `progress` is called after each batch that was read.
///
/// # Errors
/// If the capture cannot be read or a row cannot be written; what came before has been handed on.
pub fn run<S: Source>(
    source: &mut S,
    options: &Options,
    workers: usize,
    sink: &mut dyn Sink,
    mut progress: impl FnMut(&S),
) -> Result<Counts, Offline> {
    options.keys.add(&source.secrets());
    let keys = Arc::clone(&options.keys);
    let (opened, fold, merge, ids) = (Opened::default(), Fold::default(), Merge::default(), Ids::default());
    let (names, pods) = (HashMap::new(), Vec::new());
    let mut rows = Rows { sink, names, pods, keys, opened, fold, merge, ids, entries: 0 };
    let mut feed = Feed::default();
    let (mut counts, failed) = if workers <= 1 {
        let mut engine = Engine::new(options.clone(), Shard::ALL);
        let failed = loop {
            match feed.read(source, options) {
                Ok(Some(job)) => {
                    dissect(&mut engine, &job);
                    rows.learn(&job);
                    rows.put(engine.take())?;
                    rows.sink.tick()?;
                    feed.spare.push((job.batch, job.routes));
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            progress(source);
        };
        engine.finish(feed.last_frame);
        rows.put(engine.take())?;
        (engine.counts().clone(), failed)
    } else {
        parallel(source, options, workers.min(MOST_WORKERS), &mut rows, &mut feed, &mut progress)?
    };
    rows.finish()?;
    counts.entries = rows.entries;
    counts.merged = rows.merge.merged();
    counts.folded = rows.fold.folded();
    counts.dropped = feed.drops.total();
    counts.flushed = feed.flushed;
    [counts.key_events_lost, counts.keys_unmatched] = feed.missed;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(counts),
    }
}

fn dissect(engine: &mut Engine, job: &Job) {
    for (frame, Lane { link, place }) in job.frames() {
        engine.frame(&frame, link, place);
    }
}

/// The same by the worker of that number, among several.
fn dissect_own(engine: &mut Engine, job: &Job, own: u8) {
    for ((frame, Lane { link, place }), route) in job.frames().zip(&job.routes) {
        if [own, EACH].contains(route) {
            engine.frame(&frame, link, place);
        } else {
            engine.pass(&frame);
        }
    }
}

/// Reads batches and keeps what is known beside the frames.
#[derive(Default)]
struct Feed {
    lanes: Arc<Vec<Lane>>,
    pods: Arc<Vec<String>>,
    spare: Vec<(Batch, Vec<u8>)>,
    last_frame: u64,
    drops: Drops,
    flushed: u64,
    /// What the probes of the agent whose stream it is have lost and could not place.
    missed: [u64; 2],
}

impl Feed {
    fn read<S: Source>(&mut self, source: &mut S, options: &Options) -> Result<Option<Job>, Error> {
        let (mut batch, routes) = self.spare.pop().unwrap_or_default();
        if !source.next_batch(&mut batch)? {
            return Ok(None);
        }
        if !batch.interfaces.is_empty() {
            let lanes = Arc::make_mut(&mut self.lanes);
            for interface in &batch.interfaces {
                let tap = tap(Arc::make_mut(&mut self.pods), interface);
                lanes.push(Lane { link: interface.link, place: Place::of(tap, interface) });
            }
        }
        for note in &batch.notes {
            self.drops.note(note, self.lanes.len());
            match note {
                Note::Flushed { count, .. } => self.flushed += count,
                Note::Probes(probes) => self.missed = [probes.lost, probes.unmatched],
                Note::Secrets(lines) => {
                    options.keys.add(lines);
                }
                _ => {}
            }
        }
        if let Some(last) = batch.frames.last() {
            self.last_frame = last.number;
        }
        Ok(Some(Job { batch, routes, lanes: Arc::clone(&self.lanes), pods: Arc::clone(&self.pods) }))
    }
}

/// The number of the interface's pod, from 1.
fn tap(pods: &mut Vec<String>, interface: &Interface) -> u32 {
    let Some(pod) = &interface.pod else { return 0 };
    let index = pods.iter().position(|known| known == pod).unwrap_or_else(|| {
        pods.push(pod.clone());
        pods.len() - 1
    });
    index as u32 + 1
}

struct Worker {
    jobs: SyncSender<Arc<Job>>,
    results: Receiver<Vec<Produced>>,
}

/// Each worker dissects the flows of its shard; rows are merged batch by batch.
fn parallel<S: Source>(
    source: &mut S,
    options: &Options,
    workers: usize,
    rows: &mut Rows<'_>,
    feed: &mut Feed,
    progress: &mut impl FnMut(&S),
) -> Result<(Counts, Option<Error>), Offline> {
    thread::scope(|scope| {
        let mut handles = Vec::new();
        let mut channels = Vec::new();
        for (index, turn) in Turn::among(workers).into_iter().enumerate() {
            let (jobs, todo) = sync_channel::<Arc<Job>>(BATCHES);
            let (done, results) = sync_channel(BATCHES);
            let shard = Shard { index: index as u64, count: workers as u64 };
            let options = Options { turn, ..options.clone() };
            handles.push(scope.spawn(move || {
                let mut engine = Engine::new(options, shard);
                let mut last = 0;
                for job in todo {
                    dissect_own(&mut engine, &job, index as u8);
                    last = job.batch.frames.last().map_or(last, |frame| frame.number);
                    drop(job);
                    if done.send(engine.take()).is_err() {
                        return Counts::default();
                    }
                }
                engine.finish(last);
                let _ = done.send(engine.take());
                engine.counts().clone()
            }));
            channels.push(Worker { jobs, results });
        }
        let mut under_way = std::collections::VecDeque::new();
        let failed = loop {
            match feed.read(source, options) {
                Ok(Some(mut job)) => {
                    job.route(workers);
                    let job = Arc::new(job);
                    for worker in &channels {
                        // A worker only goes away when its results are no longer wanted.
                        let _ = worker.jobs.send(Arc::clone(&job));
                    }
                    under_way.push_back(job);
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            if under_way.len() >= BATCHES {
                let job = under_way.pop_front();
                if let Some(job) = &job {
                    rows.learn(job);
                }
                collect(&channels, rows)?;
                if let Some(job) = job.and_then(Arc::into_inner) {
                    feed.spare.push((job.batch, job.routes));
                }
                rows.sink.tick()?;
            }
            progress(source);
        };
        let mut results = Vec::new();
        for worker in channels {
            drop(worker.jobs);
            results.push(worker.results);
        }
        // What is left: the batches under way, then what the end of the capture brought out.
        for job in under_way.into_iter().map(Some).chain([None]) {
            if let Some(job) = job {
                rows.learn(&job);
            }
            let mut produced = Vec::new();
            for receiver in &results {
                produced.extend(receiver.recv().unwrap_or_default());
            }
            rows.put(produced)?;
        }
        let mut counts: Option<Counts> = None;
        for handle in handles {
            let worker = handle.join().unwrap_or_default();
            match &mut counts {
                None => counts = Some(worker),
                Some(counts) => counts.add_flows(&worker),
            }
        }
        Ok((counts.unwrap_or_default(), failed))
    })
}

fn collect(workers: &[Worker], rows: &mut Rows<'_>) -> io::Result<()> {
    let mut produced = Vec::new();
    for worker in workers {
        produced.extend(worker.results.recv().unwrap_or_default());
    }
    rows.put(produced)
}
