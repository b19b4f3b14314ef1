//! The container's first process: captures, keeps the master PCAP, serves sessions, and leaves by itself.

mod listener;
mod recorder;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::json::{self, Object};
use super::keys::{KeyLog, Survey};
use super::made::Made;
use super::master::Master;
use super::once::Once;
use super::process::{self, Signals};
use super::reader::Count;
use super::request::Session;
use super::state::{Phase, Refilter, Sitting, State, now};
use super::tls::Tls;
use super::{Error, log};
use crate::capture::backend::{Backend, Kind, Unusable, Wanted};
use crate::capture::bpf::{LOOPBACK, Program};
use crate::capture::interpreter::Filter;
use crate::capture::pcapng;

/// The most sessions at a time; each is two threads and a buffer.
pub(super) const MOST_SESSIONS: usize = 8;

/// How often threads look whether the agent is to end, or anything is due.
const TICK: Duration = Duration::from_millis(100);

/// How long a session may wait for what the kernel dropped: a capture looks each [`TICK`] whether it is asked.
const RECOUNT: Duration = Duration::from_millis(400);

/// How long sessions may take to fetch the rest at the end: a pod that is deleted waits for its agent.
const GRACE: Duration = Duration::from_secs(5);

/// Stack of a thread that serves; its buffers are on the heap.
pub(super) const STACK: usize = 128 << 10;

/// What `sniff-agent run` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// `namespace/name`, the prefix of interface names; empty for none.
    pub(super) pod: String,
    /// With what to capture.
    pub(super) backend: Kind,
    /// What to capture.
    pub(super) filter: Program,
    /// The same as the user wrote it, at the start.
    pub(super) filter_text: String,
    /// Leave out packets that were just seen on another interface.
    pub(super) once: bool,
    /// The most bytes kept of a frame.
    pub(super) snaplen: u32,
    /// Size of the master PCAP in bytes.
    pub(super) buffer: usize,
    /// The file that holds it, if it is to be on disk.
    pub(super) buffer_file: Option<PathBuf>,
    /// Size of the ring in bytes.
    pub(super) ring: usize,
    /// Whether to read the TLS keys of the target's processes.
    pub(super) tls: bool,
    /// How long to stay without a session.
    pub(super) ttl: Duration,
    /// How long to stay after the start in any case.
    pub(super) armed_for: Duration,
    /// Where to listen.
    pub(super) socket: PathBuf,
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) options: Options,
    /// Tells this run of the agent, and so its packet numbers, from every other.
    pub(super) boot: String,
    pub(super) ring: usize,
    /// Name of what captures.
    pub(super) backend: &'static str,
    pub(super) started: Instant,
    /// The same, in nanoseconds since the Unix epoch.
    pub(super) began: u64,
    state: Mutex<State>,
    /// Signalled when there are packets, and when the agent ends.
    changed: Condvar,
    connections: AtomicUsize,
    /// Held by who has the filter replaced.
    refilters: Mutex<()>,
    /// Held by who writes to disk.
    writes: Mutex<()>,
}

/// A session that counts until it is dropped.
pub(super) struct Seat<'a> {
    daemon: &'a Daemon,
    number: u64,
}

/// Captures until told to stop, or until nobody has come for long.
///
/// # Errors
/// What keeps it from starting, or from capturing on.
pub(super) fn run(options: Options) -> Result<(), Error> {
    let signals = Signals::hold();
    // Keys come in bursts, are little work, and are lost if they wait for long: what takes them is not nice.
    let (keys, begin) = mpsc::channel::<(Tls, &'static Daemon)>();
    if options.tls {
        std::thread::spawn(move || begin.recv().map(|(tls, daemon)| tls.run(daemon)));
    }
    process::die_first();
    process::reap_children();

    let master = reserve(&options)?;
    let listener = listener::listen(&options.socket)?;
    let wanted = Wanted { filter: &options.filter, snaplen: options.snaplen, ring: options.ring };
    let capture = options.backend.open(&wanted).map_err(cannot_open)?;
    let tls = options.tls.then(Tls::start).transpose()?;
    // Until here somebody waits for it, for less than a second of the processor's time.
    process::be_nice(process::CAPTURE);
    // Two of its threads wait in the kernel until the process ends, so it lives as long.
    let daemon: &'static Daemon = Box::leak(Box::new(Daemon::new(options, master, capture.as_ref())));
    let mut interfaces = capture.interfaces();
    if daemon.options.once {
        // A node has many, of which few matter. One there must be: its counters are a session's heartbeat.
        interfaces.retain(|interface| interface.hardware == LOOPBACK);
    }
    daemon.lock().add_known_interfaces(&interfaces, &daemon.options.pod);
    log(daemon.greeting());
    std::thread::spawn(move || daemon.stop(signals.wait()));
    std::thread::spawn(move || daemon.accept(&listener));
    if let Some(tls) = tls {
        // It is there until it gets this.
        let _ = keys.send((tls, daemon));
    }
    let capturing = std::thread::spawn(move || daemon.capture(capture));
    daemon.wait_for_the_end();
    let captured = capturing.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
    let _ = std::fs::remove_file(&daemon.options.socket);
    captured.map_err(|cause| Error::new(format!("cannot go on capturing: {cause}")))
}

impl Daemon {
    fn new(options: Options, master: Master, capture: &dyn Backend) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
        let boot = boot.map_or_else(|_| format!("{:x}", now()), |uuid| uuid.trim().to_owned());
        let state = State {
            master,
            taps: Vec::new(),
            keys: KeyLog::new(options.tls),
            phase: Phase::Capturing,
            sessions: Vec::new(),
            seats: 0,
            alone_since: Instant::now(),
            armed_until: armed(options.armed_for),
            dropped: 0,
            missed: 0,
            filtered: capture.filtered(),
            cut: 0,
            drained: 0,
            filter: Filter::new(&options.filter),
            filter_text: options.filter_text.clone(),
            refilter: Refilter::Idle,
            recount: false,
            once: options.once.then(Once::new),
            last: 0,
        };
        Self {
            options,
            boot,
            ring: capture.ring(),
            backend: capture.name(),
            started: Instant::now(),
            began: now(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
            refilters: Mutex::new(()),
            writes: Mutex::new(()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the lock back until something changes, or for `time`.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).map_or_else(|poison| poison.into_inner().0, |(state, _)| state)
    }

    /// Ends the agent for that reason.
    pub(super) fn stop(&self, why: &str) {
        let mut state = self.lock();
        if state.phase == Phase::Capturing {
            log(format_args!("stopping: {why}"));
            state.phase = Phase::Stopping(why.to_owned());
        }
        self.changed.notify_all();
    }

    /// Takes over lines of the TLS key log, and the probes' counters; says how far the agent is.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only probes have keys"))]
    pub(super) fn learn(&self, lines: &[u8], lost: u64, unmatched: u64) -> Phase {
        let mut state = self.lock();
        if let Some(probes) = &mut state.keys.probes {
            (probes.lost, probes.unmatched) = (lost, unmatched);
        }
        if !lines.is_empty() {
            state.keys.add(lines);
            self.changed.notify_all();
        }
        state.phase.clone()
    }

    /// Takes over what was found among the target's processes.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only probes look at processes"))]
    pub(super) fn survey(&self, survey: &Survey) {
        let mut state = self.lock();
        if let Some(probes) = &mut state.keys.probes
            && probes.survey != *survey
        {
            probes.survey.clone_from(survey);
            self.changed.notify_all();
        }
    }

    /// Stores packets that were made of a connection's plaintext. So many bytes of all are lost.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only probes see plaintext"))]
    pub(super) fn insert(&self, made: &[Made], lost: u64) {
        let mut state = self.lock();
        state.keys.plaintext_lost = lost;
        for made in made {
            state.insert(made, &self.options);
        }
        self.changed.notify_all();
        drop(state);
        // What fails here fails again where it is told.
        let _ = self.write();
    }

    /// True if somebody reads what the agent has.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "it makes a difference to probes only"))]
    pub(super) fn has_sessions(&self) -> bool {
        !self.lock().sessions.is_empty()
    }

    /// Has the agent stay so long from now on, be there sessions or not; no time lets it leave as any other.
    pub(super) fn arm(&self, time: Duration) {
        self.lock().armed_until = armed(time);
        self.changed.notify_all();
    }

    /// Has the capture go on with another filter; returns when it does.
    ///
    /// # Errors
    /// Why it does not; the old one holds on.
    pub(super) fn refilter(&self, program: Program, text: String) -> Result<(), String> {
        let _turn = self.refilters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        state.refilter = Refilter::Asked(program, text);
        loop {
            match std::mem::replace(&mut state.refilter, Refilter::Idle) {
                Refilter::Done(result) => return result,
                _ if state.phase != Phase::Capturing => return Err("the agent is about to end".to_owned()),
                asked => state.refilter = asked,
            }
            state = self.wait(state, TICK);
        }
    }

    /// Has the kernel asked what it has dropped until now, and returns when that is known.
    pub(super) fn recount<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let begun = Instant::now();
        state.recount = true;
        while state.recount && !matches!(state.phase, Phase::Ended(_)) && begun.elapsed() < RECOUNT {
            state = self.wait(state, TICK);
        }
        state
    }

    /// Has the sessions look at what has changed.
    pub(super) fn wake(&self) {
        // With the lock, so that none is between its look and its sleep.
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// Returns when the capture has ended and the sessions have had what there was.
    fn wait_for_the_end(&self) {
        let mut state = self.lock();
        let mut ended = None;
        loop {
            match &state.phase {
                Phase::Capturing => {
                    let alone = state.sessions.is_empty() && state.alone_since.elapsed() >= self.options.ttl;
                    if alone && state.armed_until.is_none_or(|until| until <= Instant::now()) {
                        drop(state);
                        self.stop(&format!("no session for {} s", self.options.ttl.as_secs()));
                        state = self.lock();
                    }
                }
                Phase::Stopping(_) => {}
                Phase::Ended(_) => {
                    let since = *ended.get_or_insert_with(Instant::now);
                    if state.sessions.is_empty() || since.elapsed() >= GRACE {
                        return;
                    }
                }
            }
            drop(state);
            std::thread::sleep(TICK);
            state = self.lock();
        }
    }

    /// A place for one more session, unless all are taken.
    pub(super) fn seat(&self, wanted: &Session) -> Option<Seat<'_>> {
        let mut state = self.lock();
        if state.sessions.len() >= MOST_SESSIONS {
            return None;
        }
        state.seats += 1;
        let number = state.seats;
        let wanted = Session { filter: None, ..wanted.clone() };
        state.sessions.push(Sitting { seat: number, since: now(), wanted, count: Count::default(), bytes: 0 });
        Some(Seat { daemon: self, number })
    }

    fn greeting(&self) -> String {
        let state = self.lock();
        let names: Vec<&str> = state.taps.iter().map(|tap| tap.name.as_str()).collect();
        let filter = match state.filter_text.as_str() {
            "" => String::new(),
            text => format!(", filter {text:?}"),
        };
        format!(
            "sniff-agent {}: capturing on {} ({}, ring {} KiB, master PCAP {} KiB in {}, snaplen {}{filter})",
            env!("CARGO_PKG_VERSION"),
            names.join(", "),
            self.backend,
            self.ring >> 10,
            state.master.size() >> 10,
            if state.master.is_on_disk() { "a file" } else { "memory" },
            self.options.snaplen,
        )
    }

    /// The hello of a session.
    pub(super) fn hello(&self, state: &State, wanted: &Session) -> String {
        Object::new()
            .text("version", env!("CARGO_PKG_VERSION"))
            .raw("protocol", pcapng::PROTOCOL)
            .text("boot", &self.boot)
            .text("pod", &self.options.pod)
            .raw("first", state.master.first())
            .raw("next", state.master.next())
            .list("interfaces", state.taps.iter().map(|tap| json::text(&tap.name)))
            .text("filter", &state.filter_text)
            .raw("snaplen", self.options.snaplen)
            .raw("buffer", state.master.size())
            .raw("filtered", wanted.is_filtered())
            .end()
    }
}

/// Until when an agent stays that is armed for so long from now on.
fn armed(time: Duration) -> Option<Instant> {
    if time.is_zero() { None } else { Instant::now().checked_add(time) }
}

impl Seat<'_> {
    /// Takes note of what the session has had so far, and of bytes that it gets now.
    pub(super) fn report(&self, state: &mut State, count: &Count, bytes: usize) {
        let Some(sitting) = state.sessions.iter_mut().find(|sitting| sitting.seat == self.number) else { return };
        state.missed += count.missed - sitting.count.missed;
        sitting.count = *count;
        sitting.bytes += bytes as u64;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.daemon.lock();
        state.sessions.retain(|sitting| sitting.seat != self.number);
        state.alone_since = Instant::now();
    }
}

/// Reserves the master PCAP.
fn reserve(options: &Options) -> Result<Master, Error> {
    let Some(path) = &options.buffer_file else { return Ok(Master::new(options.buffer, options.snaplen)) };
    Master::on_disk(options.buffer, options.snaplen, |room, slots| Disk::create(path, room, slots)).map_err(|cause| {
        let error = Error::new(format!("cannot keep packets in {}: {cause}", path.display()));
        match cause.kind() {
            io::ErrorKind::StorageFull => error.hint(format!(
                "the disk has too little room for {} MiB: ask for less with --buffer",
                options.buffer >> 20
            )),
            io::ErrorKind::ReadOnlyFilesystem => error.hint(
                "the container's securityContext says readOnlyRootFilesystem: name a writable place with --buffer-file",
            ),
            io::ErrorKind::Unsupported => {
                error.hint("name a place on a disk with --buffer-file, or use --buffer-on memory")
            }
            io::ErrorKind::AlreadyExists => error.hint("name a file that does not exist with --buffer-file"),
            _ => error,
        }
    })
}

fn cannot_open(unusable: Unusable) -> Error {
    let error = Error::new(format!("cannot open the capture: {}", unusable.cause));
    match unusable.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
