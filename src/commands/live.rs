//! A live session: packets from pods → rows, status lines, and a capture if one is saved.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Failure;
use super::dissection::{Dissection, conclude, now, stdout};
use super::excuses::Excuses;
use super::keylog::KeyLogs;
use super::read::Counted;
use super::signals::{Signals, end_in_time};
use crate::capture::Note;
use crate::cluster::flags::{Options, Processes};
use crate::cluster::{self, Backlog, Cluster, Event, Names, Selection, Stop};
use crate::dissect::{Descriptors, Keys};
use crate::entry::Name;
use crate::output::kept::{Both, Kept};
use crate::output::pcapng::Pcapng;
use crate::output::status::Status;
use crate::output::{self, Format};
use crate::pipeline::{Counts, Live, Resolve};

/// Batches of all pods that may be on their way to the backlog.
const WAITING: usize = 4;

/// How often rows are let go and output is flushed.
const TICK: Duration = Duration::from_millis(50);

/// How often the line below the rows is drawn.
const FOOTER: Duration = Duration::from_millis(500);

/// How long the first rows may wait for the cluster's names.
const NAMES: Duration = Duration::from_secs(2);

/// How long connections wait for keys that a key log may get: programs write it when they like, and in a pod it is read once a
/// second.
const LOGGED: Duration = Duration::from_secs(10);

/// The same for keys that agents read, which come with the packets.
const PROBED: Duration = Duration::from_secs(5);

/// A day stands for ever.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// Where the packets go.
pub enum Saving {
    /// They are dissected only.
    Nowhere,
    /// To stdout; rows are not printed.
    Stdout,
    /// To a file.
    File(PathBuf, File),
}

/// What is to be sniffed, and what is printed of it.
pub struct Session<'a> {
    pub cluster: Cluster,
    pub selection: Selection,
    pub options: Options,
    pub dissection: &'a Dissection,
    pub descriptors: Descriptors,
    pub duration: Option<Duration>,
    /// Where packets and entries are kept, if they are.
    pub kept: Option<Kept>,
    /// Whether a saved capture gets the keys that decrypt it.
    pub save_keys: bool,
}

/// Why it goes no further.
enum End {
    /// As it should.
    Done,
    /// Whoever reads the output has gone.
    Unread,
    Failed(Failure),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Unread } else { Self::Failed(error.into()) }
    }
}

impl Session<'_> {
    /// Sniffs until it is told to end, or for the time that was given.
    pub async fn run(self, saving: Saving, status: &mut Status) -> Result<(), Failure> {
        let signals = Signals::new()?;
        let (sender, received) = mpsc::channel(WAITING);
        let mut events = Backlog::new(received);
        let namespaces = self.selection.namespaces().to_vec();
        let names = Names::watch(&self.cluster, &namespaces, &sender);
        let (stop, stopped) = Stop::new();
        let (cluster, selection, options) = (self.cluster, self.selection, self.options);
        let (looks_back, reads_keys) = (options.looks_back(), options.tls.is_some());
        if reads_keys && !looks_back {
            status.note(Processes::NOTE);
        }
        let session = tokio::spawn(async move { cluster::run(&cluster, selection, options, sender, stopped).await });

        let (format, rows): (_, Box<dyn Write>) = match &saving {
            Saving::Stdout => (Format::Pcapng, Box::new(io::sink())),
            _ => (self.dissection.output, Box::new(stdout())),
        };
        let mut saved = match saving {
            Saving::Nowhere => Vec::new(),
            Saving::Stdout => vec![Saved::new("stdout".to_owned(), Box::new(io::stdout()))?],
            Saving::File(path, file) => vec![Saved::new(path.display().to_string(), Box::new(file))?],
        };
        let seen = Arc::new(Seen { names: Arc::clone(&names), new: Mutex::default() });
        let resolve: Arc<dyn Resolve> =
            { if saved.is_empty() && self.kept.is_none() { Arc::clone(&names) as _ } else { Arc::clone(&seen) as _ } };
        let mut printer = output::sink(format, rows, self.dissection.look(namespaces.len() != 1));
        let keys = Arc::new(Keys::default());
        let logs = KeyLogs::new(&self.dissection.keylog);
        for path in logs.missing() {
            status.note(&format!("no key log {} yet; it may come", path.display()));
        }
        if !self.dissection.keylog.is_empty() {
            keys.grow(LOGGED);
        }
        if reads_keys {
            keys.grow(PROBED);
        }
        let mut dissection = self.dissection.options(&keys, self.descriptors);
        if let Some(kept) = &self.kept {
            let capture = kept.capture();
            let file = File::create(&capture)?;
            saved.push(Saved { announced: false, ..Saved::new(capture.display().to_string(), Box::new(file))? });
            dissection.detail = true;
            printer = Box::new(Both(Box::new(kept.entries()?), printer));
        }
        if !self.save_keys {
            for saved in &mut saved {
                saved.capture.close();
            }
        }
        let mut sink = Counted::new(printer, self.dissection.count());
        // Rows and what is below them are in one place only if both are on the terminal.
        let is_table = matches!(format, Format::Table | Format::Wide);
        let has_footer = is_table && io::stdout().is_terminal() && io::stderr().is_terminal();
        let mut watcher = Watcher {
            dissection: self.dissection,
            footer: has_footer.then(Instant::now),
            printed: 0,
            live: Live::new(dissection, resolve, &mut sink),
            logs,
            keys,
            save_keys: self.save_keys,
            status,
            saved,
            kept: self.kept,
            seen,
            place: match namespaces.as_slice() {
                [] => "all namespaces".to_owned(),
                [one] => format!("namespace {one}"),
                several => format!("namespaces {}", several.join(", ")),
            },
            since: Instant::now(),
            pods: HashMap::new(),
            sniffed: 0,
            failed: false,
            excuses: Excuses::default(),
        };

        tokio::spawn(end_in_time(stop.clone(), signals, self.duration.unwrap_or(FOR_EVER)));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut named = false;
        let end = loop {
            let step = tokio::select! {
                biased;
                _ = tick.tick() => watcher.tick(),
                event = events.recv() => match event {
                    None => break End::Done,
                    Some(event) => {
                        if !named && matches!(event, Event::Batch { .. }) {
                            named = true;
                            names.ready(NAMES).await;
                        }
                        watcher.event(event)
                    }
                }
            };
            if let Err(end) = step {
                break end;
            }
        };
        stop.send_replace(true);
        let spilled = events.spilled();
        drop(events);
        let found_nothing = looks_back && watcher.sniffed == 0 && matches!(end, End::Done);
        let session = session.await;
        // Nothing came of it, so there is nothing to sum up.
        let end = match &session {
            Ok(Err(error)) if watcher.sniffed == 0 => End::Failed(error.clone().into()),
            _ => end,
        };
        let result = watcher.finish(end, self.dissection.count(), spilled);
        match session {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) if found_nothing => Err(Failure::new("no agent has recorded anything in these pods")
                .hint("kubectl sniff start PODS has them record from now on; kubectl sniff ls lists those that do")),
            Ok(Ok(())) => result,
            Err(fault) => Err(Failure::new(format!("the session ended by a fault of ours: {fault}"))),
        }
    }
}

/// The capture that is saved.
struct Saved {
    to: String,
    capture: Pcapng<Box<dyn Write>>,
    /// It is told at the end.
    announced: bool,
}

impl Saved {
    fn new(to: String, out: Box<dyn Write>) -> Result<Self, Failure> {
        let capture = Pcapng::new(out, now()).map_err(|error| Failure::new(format!("cannot write {to}: {error}")))?;
        let announced = to != "stdout";
        Ok(Self { to, capture, announced })
    }

    fn wrote(&self, result: io::Result<()>) -> Result<(), End> {
        result.map_err(|error| match End::from(error) {
            End::Failed(failure) => {
                End::Failed(Failure { message: format!("{}: {}", self.to, failure.message), ..failure })
            }
            end => end,
        })
    }
}

/// Names for rows, and a note of those that a saved capture should have as well.
struct Seen {
    names: Arc<Names>,
    new: Mutex<BTreeMap<IpAddr, Arc<Name>>>,
}

impl Resolve for Seen {
    fn resolve(&self, ip: IpAddr, port: u16) -> Option<Arc<Name>> {
        // A capture names addresses; what only a port of a node leads to has no name there.
        if let Some(name) = self.names.resolve(ip, 0) {
            self.new.lock().unwrap_or_else(PoisonError::into_inner).insert(ip, name);
        }
        self.names.resolve(ip, port)
    }
}

/// A pod that is sniffed.
#[derive(Default)]
struct Pod {
    name: String,
    node: String,
    is_attached: bool,
    /// It is a node, from which packets of pods come.
    is_node: bool,
    /// It was told that not all of its programs have probes.
    awaits_probes: bool,
}

/// Takes what the session tells.
struct Watcher<'a> {
    dissection: &'a Dissection,
    /// When the line below the rows was drawn last; none where there is none.
    footer: Option<Instant>,
    /// Entries that had been printed then.
    printed: u64,
    live: Live<'a>,
    status: &'a mut Status,
    saved: Vec<Saved>,
    kept: Option<Kept>,
    seen: Arc<Seen>,
    /// The namespaces that are looked in.
    place: String,
    since: Instant,
    pods: HashMap<u32, Pod>,
    /// Pods that an agent has streamed from.
    sniffed: usize,
    failed: bool,
    excuses: Excuses,
    logs: KeyLogs,
    keys: Arc<Keys>,
    /// Whether the saved capture gets the keys.
    save_keys: bool,
}

impl Watcher<'_> {
    /// Takes what the key logs have got.
    fn learn(&mut self) -> Result<(), End> {
        if self.logs.poll(&self.keys).map_err(End::Failed)? > 0 {
            self.live.rekey();
            self.keep_keys();
        }
        Ok(())
    }

    /// Takes lines of a key log in a pod.
    fn add_keys(&mut self, lines: &[u8]) {
        if self.keys.add(lines) > 0 {
            self.live.rekey();
            self.keep_keys();
        }
    }

    /// Lets the saved capture have the keys of the connections in it.
    fn keep_keys(&mut self) {
        let used = self.keys.take_used();
        for saved in self.saved.iter_mut().filter(|_| self.save_keys && !used.is_empty()) {
            saved.capture.secrets(used.as_bytes());
        }
    }

    fn tick(&mut self) -> Result<(), End> {
        self.learn()?;
        self.excuses.tell(&self.keys, self.status, |tap| Some(&self.pods.get(&tap)?.name));
        for saved in &mut self.saved {
            let result = saved.capture.flush();
            saved.wrote(result)?;
        }
        self.live.release(now())?;
        let counts = self.live.counts();
        if counts.entries != std::mem::replace(&mut self.printed, counts.entries) {
            let live = &mut self.live;
            self.status.around(|| live.flush())?;
        }
        let Some(drawn) = self.footer else { return Ok(()) };
        if self.sniffed > 0 && drawn.elapsed() >= FOOTER {
            self.footer = Some(Instant::now());
            let attached = self.pods.values().filter(|pod| pod.is_attached).count();
            self.status.footer(&output::summary(Some(attached), &counts));
        }
        Ok(())
    }

    fn pod(&self, tap: u32) -> String {
        self.pods.get(&tap).map(|pod| pod.name.clone()).unwrap_or_default()
    }

    fn event(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Batch { tap, batch } => return self.batch(tap, &batch),
            Event::Keys { lines } => self.add_keys(&lines),
            // Whoever named pods that cannot be sniffed should not wait for others.
            Event::Waiting if self.failed && self.sniffed == 0 => {
                return Err(End::Failed(Failure::new("no pod could be sniffed")));
            }
            Event::Waiting => self.status.waiting(&format!("waiting for pods that match in {}", self.place)),
            Event::Skipped { pod, reason } => self.status.note(&format!("{pod} is left out: {reason}")),
            Event::Appeared { tap, pod, node } => {
                self.status.clear();
                self.status.starting(&format!("starting an agent in {pod}"));
                self.pods.insert(tap, Pod { name: pod, node, ..Pod::default() });
            }
            Event::OnNode { tap, node } => {
                self.status.clear();
                self.status.starting(&format!("starting an agent on {node}"));
                self.pods.insert(tap, Pod { name: node, is_node: true, ..Pod::default() });
            }
            Event::Attached { tap, reused, .. } => self.attached(tap, reused),
            Event::Disconnected { tap, reason } => {
                let pod = self.pod(tap);
                self.status
                    .warning(&format!("{pod}: the connection is cut ({reason}); trying again, nothing is lost yet"));
            }
            Event::Resumed { tap } => {
                let pod = self.pod(tap);
                self.status.note(&format!("{pod}: connected again"));
            }
            Event::Restarted { tap } => {
                self.live.restarted(tap);
                for saved in &mut self.saved {
                    saved.capture.restarted(tap);
                }
            }
            Event::Interrupted { tap, error } => {
                let pod = self.pod(tap);
                self.status
                    .warning(&format!("{pod}: {error}; another is started, and what passes meanwhile is not captured"));
            }
            Event::Lost { tap, count } => {
                self.live.lost(count);
                let (pod, count) = (self.pod(tap), output::grouped(count));
                self.status.warning(&format!("{pod}: a gap of {count} packets that never came"));
            }
            Event::Failed { tap, pod, error } => {
                self.status.clear();
                self.failed = true;
                self.pods.remove(&tap);
                self.status.error(&format!("{pod}: {error}"), error.hint.as_deref());
            }
            Event::Left { tap, pod, reason } => {
                self.status.clear();
                let was = self.pods.remove(&tap);
                if was.is_some_and(|pod| pod.is_attached) {
                    self.status.left(&pod, &reason);
                }
            }
            Event::Trouble(error) => {
                self.status.warning(&error.message);
                if let Some(hint) = &error.hint {
                    self.status.hint(hint);
                }
            }
            Event::Note(text) => self.status.note(&text),
            Event::Armed { pod, .. } => self.status.joined(&pod, "records"),
        }
        Ok(())
    }

    /// The pod's agent has not put its probes into all programs yet.
    fn await_probes(&mut self, tap: u32) {
        let Some(pod) = self.pods.get_mut(&tap) else { return };
        if !std::mem::replace(&mut pod.awaits_probes, true) {
            self.status.warning(&format!(
                "{}: not all of its programs have probes yet; what they say over TLS meanwhile stays closed",
                pod.name
            ));
        }
    }

    fn attached(&mut self, tap: u32, reused: bool) {
        self.status.clear();
        let Some(pod) = self.pods.get_mut(&tap).filter(|pod| !pod.is_node) else { return };
        if !std::mem::replace(&mut pod.is_attached, true) {
            self.sniffed += 1;
        }
        let note = if reused { format!("{}, agent was there", pod.node) } else { pod.node.clone() };
        self.status.joined(&pod.name, &note);
    }

    fn batch(&mut self, tap: u32, batch: &crate::capture::Batch) -> Result<(), End> {
        for note in &batch.notes {
            match note {
                Note::Flushed { count, .. } => {
                    let (pod, count) = (self.pod(tap), output::grouped(*count));
                    self.status.warning(&format!(
                        "{pod}: a gap of {count} packets: its buffer had flushed them before they were read"
                    ));
                }
                Note::Probes(probes) if !probes.scanned => self.await_probes(tap),
                _ => {}
            }
        }
        self.learn()?;
        let result = self.live.batch(tap, batch, now());
        // Keys first: readers that do not look ahead need them there.
        self.keep_keys();
        let new = std::mem::take(&mut *self.seen.new.lock().unwrap_or_else(PoisonError::into_inner));
        for saved in &mut self.saved {
            for (address, name) in &new {
                saved.capture.name(*address, name);
            }
            for note in batch.notes.iter().filter(|_| self.save_keys) {
                if let Note::Secrets(lines) = note {
                    saved.capture.secrets(lines);
                }
            }
            // Names first: rows of a capture are named as soon as they can be.
            let result = saved.capture.batch(tap, batch);
            saved.wrote(result)?;
        }
        Ok(result?)
    }

    /// Ends all flows and says what was counted.
    fn finish(mut self, end: End, most: Option<u64>, spilled: u64) -> Result<(), Failure> {
        self.status.clear();
        let complete = most.is_some_and(|most| self.live.counts().entries >= most);
        let saved = self.saved.iter_mut().try_for_each(|saved| {
            let result = saved.capture.finish(now());
            saved.wrote(result)
        });
        let counts = match end {
            End::Failed(failure) => return Err(failure),
            End::Unread if !complete => return Ok(()),
            End::Unread => match self.live.flush().map_err(End::from) {
                Err(End::Failed(failure)) => return Err(failure),
                _ => self.live.counts(),
            },
            End::Done => match self.live.finish(now()).map_err(End::from) {
                Ok(counts) => counts,
                Err(End::Failed(failure)) => return Err(failure),
                Err(_) => return Ok(()),
            },
        };
        self.excuses.tell(&self.keys, self.status, |tap| Some(&self.pods.get(&tap)?.name));
        let counts = Counts { spilled, ..counts };
        conclude(self.dissection, Some(self.sniffed), &counts, self.status)?;
        match saved {
            Err(End::Failed(failure)) => return Err(failure),
            Err(_) => return Ok(()),
            Ok(()) => {}
        }
        if let Some(mut kept) = self.kept {
            kept.end(self.since.elapsed().as_secs(), self.sniffed, &counts)?;
            self.status.note(&format!("kept; to read it: kubectl sniff sessions open {}", kept.about().name));
        }
        for saved in self.saved.iter().filter(|saved| saved.announced) {
            let packets = output::grouped(saved.capture.packets());
            self.status.note(&format!("{packets} packets saved; to read them: kubectl sniff --pcap {}", saved.to));
        }
        Ok(())
    }
}
