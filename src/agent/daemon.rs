//! The container's first process: captures, keeps the master PCAP, serves sessions, and leaves by itself.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
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
use super::{Error, log, session};
use crate::capture::backend::{Backend, Kind, Unusable, Wanted};
use crate::capture::bpf::{LOOPBACK, Program};
use crate::capture::interpreter::Filter;
use crate::capture::pcapng;

/// The most sessions at a time; each is two threads and a buffer.
pub(super) const MOST_SESSIONS: usize = 8;

/// The most connections at a time, those that only ask included.
const MOST_CONNECTIONS: usize = 2 * MOST_SESSIONS;

/// How often threads look whether the agent is to end, or anything is due.
const TICK: Duration = Duration::from_millis(100);

/// How often the kernel is asked what it dropped, besides when a frame says that it did.
const COUNT: Duration = Duration::from_secs(1);

/// How long a session may wait for that: a capture looks each [`TICK`] whether it is asked.
const RECOUNT: Duration = Duration::from_millis(400);

/// How long the capture goes on after it was told to stop: what was sent before arrives.
const LINGER: Duration = Duration::from_millis(150);

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
    let listener = listen(&options.socket)?;
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

    /// In how many files there are probes.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "there are none"))]
    pub(super) fn probed(&self) -> u64 {
        self.lock().keys.probes.as_ref().map_or(0, |probes| probes.survey.files)
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

    /// Replaces the capture filter, if that was asked for.
    fn change_filter(&self, capture: &mut dyn Backend) {
        let mut state = self.lock();
        if !matches!(state.refilter, Refilter::Asked(..)) {
            return;
        }
        let Refilter::Asked(program, text) = std::mem::replace(&mut state.refilter, Refilter::Idle) else { return };
        let result = capture.set_filter(&program).map_err(|cause| format!("the kernel refuses the filter: {cause}"));
        if result.is_ok() {
            state.filter = Filter::new(&program);
            state.filter_text = text;
        }
        state.refilter = Refilter::Done(result);
        drop(state);
        self.changed.notify_all();
    }

    /// Captures until told to stop, and a little longer; then nothing follows.
    fn capture(&self, mut capture: Box<dyn Backend>) -> io::Result<()> {
        let result = self.fill(capture.as_mut());
        let mut state = self.lock();
        let why = match (&result, &state.phase) {
            (Err(cause), _) => format!("the capture failed: {cause}"),
            (Ok(()), Phase::Stopping(why) | Phase::Ended(why)) => why.clone(),
            (Ok(()), Phase::Capturing) => String::new(),
        };
        state.phase = Phase::Ended(why);
        self.changed.notify_all();
        result
    }

    /// Moves frames from the backend to the master PCAP.
    fn fill(&self, capture: &mut dyn Backend) -> io::Result<()> {
        let mut asked = Instant::now();
        let mut stopping = None;
        loop {
            let (mut losing, began) = (false, now());
            // Locked with the first frame, if there is one, until the last.
            let mut state = None;
            capture.receive(if stopping.is_some() { LINGER / 4 } else { TICK }, &mut |frame| {
                losing |= frame.losing;
                state.get_or_insert_with(|| self.lock()).store(frame, &self.options.pod);
            })?;
            if state.take().is_some() {
                self.changed.notify_all();
                self.write()?;
            } else {
                self.lock().drained = began;
            }
            self.change_filter(capture);
            if losing || asked.elapsed() >= COUNT || self.lock().recount {
                asked = Instant::now();
                self.count(capture)?;
                if let Some(remark) = capture.remark() {
                    log(format_args!("warning: {remark}"));
                }
            }
            match stopping {
                None if self.lock().phase != Phase::Capturing => stopping = Some(Instant::now()),
                // The last sessions are told the last drops.
                Some(since) if since.elapsed() >= LINGER => return self.count(capture),
                _ => {}
            }
        }
    }

    /// Asks the kernel what it has dropped.
    fn count(&self, capture: &mut dyn Backend) -> io::Result<()> {
        let dropped = capture.dropped()?;
        let mut state = self.lock();
        state.lose(dropped);
        state.filtered = capture.filtered();
        if std::mem::take(&mut state.recount) {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Writes the segments that are full to disk, if the master PCAP is there. Meanwhile the ring takes what comes, and what
    /// a slow disk makes it drop, the kernel counts.
    fn write(&self) -> io::Result<()> {
        let _turn = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(unwritten) = self.lock().master.unwritten() else { return Ok(()) };
            unwritten.write().map_err(|cause| io::Error::new(cause.kind(), format!("the buffer's disk: {cause}")))?;
            self.lock().master.written(unwritten);
        }
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

    /// Gives each connection a thread, up to the limit.
    fn accept(&'static self, listener: &UnixListener) {
        for connection in listener.incoming() {
            match connection {
                Ok(connection) => self.serve(connection),
                // Out of descriptors, say: it passes.
                Err(_) => std::thread::sleep(TICK),
            }
        }
    }

    fn serve(&'static self, connection: UnixStream) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            // Whoever does not read this is gone.
            let _ = session::refuse(&connection, &format!("the agent already has {MOST_CONNECTIONS} connections"));
            return;
        }
        let served = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            process::be_nice(process::SESSION);
            // Whatever ends it, the other side has seen it or is gone.
            let _ = session::serve(self, connection);
            self.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
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

/// Listens where only root of this container comes. A socket that nobody listens on any more is removed.
fn listen(path: &Path) -> Result<UnixListener, Error> {
    let cannot = |cause: io::Error| {
        let error = Error::new(format!("cannot listen on {}: {cause}", path.display()));
        match cause.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                error.hint("the agent needs a directory that it can write: run it as root, or give --socket")
            }
            _ => error,
        }
    };
    if UnixStream::connect(path).is_ok() {
        return Err(Error::new(format!("an agent already listens on {}", path.display()))
            .hint("`sniff-agent status` tells about it, `sniff-agent stop` ends it"));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(cannot)?;
    }
    let listener = UnixListener::bind(path).map_err(cannot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(listener)
}

fn cannot_open(unusable: Unusable) -> Error {
    let error = Error::new(format!("cannot open the capture: {}", unusable.cause));
    match unusable.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
