//! The daemon's side of a connection: one request, one answer.
//!
//! The answer starts with the line `ok` or `error: …`. After the `ok` comes a line of JSON for `status`, and nothing for
//! `stop`, `arm` and `filter`. With `stream` comes a descriptor, which gets pcapng until the client closes the connection for
//! writing, or nothing follows; then comes a second line.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::daemon::{Daemon, MOST_SESSIONS, STACK, Seat};
use super::handover::{Output, Receiver};
use super::json::Object;
use super::keys::Probes;
use super::reader::Reader;
use super::request::{LONGEST, Request, Session};
use super::state::{Phase, State, now};
use crate::capture::pcapng;

/// How much is copied out of the master PCAP at a time.
pub(super) const CHUNK: usize = 64 << 10;

/// How often the counters are sent, packets or not: the heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long a session may not read at all before it is given up.
const STALLED: Duration = Duration::from_mins(5);

/// How long a request, or the acknowledgement of the end, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the kernel may keep what was sent before a session asked that only looks back.
const ARRIVAL: Duration = Duration::from_millis(110);

/// How long such a session waits for that to be stored, on a machine that is busy with other things.
const STORED: Duration = Duration::from_secs(1);

/// How long a session waits until all programs have their probes.
const PROBED: Duration = Duration::from_secs(15);

/// How long packets wait for their keys, at least; at most twice as long.
const HELD: Duration = Duration::from_millis(40);

/// Why a session ended that only looked back.
const ASKED: &str = "no more was asked for";

/// Why a session ended whose client has closed its side.
const LEFT: &str = "its client has left";

/// Answers that there is nothing to get, and why.
pub(super) fn refuse(mut connection: &UnixStream, why: &str) -> io::Result<()> {
    connection.write_all(format!("error: {why}\n").as_bytes())
}

/// Reads the request and answers it.
pub(super) fn serve(daemon: &Daemon, mut connection: UnixStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(STALLED))?;
    let (mut request, mut receiver) = (String::new(), Receiver::new(&connection));
    BufReader::new(&mut receiver).take(LONGEST).read_line(&mut request)?;
    let descriptor = receiver.descriptor;
    match Request::from_line(request.trim_end_matches('\n')) {
        Some(Request::Status) => connection.write_all(format!("ok\n{}\n", super::status::line(daemon)).as_bytes()),
        Some(Request::Stop) => {
            connection.write_all(b"ok\n")?;
            daemon.stop("asked to stop");
            // The connection stays open until the process ends: that is how the other side knows.
            loop {
                std::thread::park();
            }
        }
        Some(Request::Arm(seconds)) => {
            daemon.arm(Duration::from_secs(seconds));
            connection.write_all(b"ok\n")
        }
        Some(Request::Filter(program, text)) => match daemon.refilter(program, text) {
            Ok(()) => connection.write_all(b"ok\n"),
            Err(why) => refuse(&connection, &why),
        },
        Some(Request::Stream(wanted)) => {
            let Some(descriptor) = descriptor else { return refuse(&connection, "a stream takes a descriptor") };
            let Some(seat) = daemon.seat(&wanted) else {
                return refuse(&connection, &format!("the agent already serves {MOST_SESSIONS} sessions, its limit"));
            };
            connection.write_all(b"ok\n")?;
            let output = Output::new(descriptor, &connection, STALLED);
            let client = Client { connection: &connection, has_left: AtomicBool::new(false) };
            std::thread::scope(|threads| {
                let watch = || client.watch(daemon);
                std::thread::Builder::new().stack_size(STACK).spawn_scoped(threads, watch)?;
                let result = stream(daemon, &client, &output, &wanted, &seat);
                // An exec lasts until nobody has its output open.
                drop(output);
                let result = client.acknowledge(daemon, result);
                // Or the other thread would wait for the client.
                let _ = connection.shutdown(Shutdown::Both);
                result
            })
        }
        None => {
            let shown: String = request.trim_end().chars().take(100).collect();
            refuse(&connection, &format!("the agent does not understand {shown:?}"))
        }
    }
}

/// Who gets a stream.
struct Client<'a> {
    connection: &'a UnixStream,
    /// It has closed its side: it wants no more, or has all.
    has_left: AtomicBool,
}

impl Client<'_> {
    /// Returns when the client has closed its side.
    fn watch(&self, daemon: &Daemon) {
        let mut connection = self.connection;
        loop {
            match connection.read(&mut [0; 64]) {
                Ok(1..) => {}
                Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Ok(0) | Err(_) => break,
            }
        }
        self.has_left.store(true, Ordering::Relaxed);
        daemon.wake();
    }

    fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }

    /// Tells it how the stream ended, and waits for it to leave: the container ends with the agent, and what is still on its way would be lost.
    fn acknowledge(&self, daemon: &Daemon, result: io::Result<()>) -> io::Result<()> {
        let mut connection = self.connection;
        match result {
            Err(cause) if cause.kind() != ErrorKind::BrokenPipe => return refuse(connection, &cause.to_string()),
            _ => connection.write_all(b"ok\n")?,
        }
        let begun = Instant::now();
        let mut state = daemon.lock();
        while !self.has_left() && begun.elapsed() < PATIENCE {
            state = daemon.wait(state, HEARTBEAT);
        }
        Ok(())
    }
}

/// Sends pcapng until the client leaves, the agent ends, or all that was asked for is sent; and then the last counters.
fn stream(
    daemon: &Daemon,
    client: &Client<'_>,
    output: &Output<'_>,
    wanted: &Session,
    seat: &Seat<'_>,
) -> io::Result<()> {
    let mut out = Vec::with_capacity(2 * CHUNK);
    pcapng::section(&mut out, concat!("sniff-agent ", env!("CARGO_PKG_VERSION")));
    if wanted.until.is_some() {
        await_the_present(daemon);
    } else {
        await_probes(daemon, client, output, &mut out)?;
    }
    let mut reader;
    let mut probes = None;
    {
        let state = daemon.lock();
        reader = Reader::new(wanted, daemon, &state.master);
        pcapng::hello(&mut out, &daemon.hello(&state, wanted));
        account(&state, &mut probes, &mut out);
    }
    let description = Description::new(daemon, wanted);
    let mut heartbeat = Instant::now();
    let mut keys = 0;
    let mut held = Held::new(daemon.options.tls);
    loop {
        let mut state = daemon.lock();
        let has_left = client.has_left();
        if has_left {
            if output.is_abandoned() {
                return Err(ErrorKind::BrokenPipe.into());
            }
            state = daemon.recount(state);
        }
        description.describe(&state, &mut reader, &mut out);
        if !state.keys.is_read(keys) {
            pcapng::secrets(&mut out, state.keys.after(&mut keys));
        }
        let full = CHUNK + out.len();
        let end = if let Phase::Ended(_) = state.phase { u64::MAX } else { held.end(state.master.next()) };
        if !has_left {
            state = reader.read(daemon, state, end, &mut out, full)?;
        }
        if heartbeat.elapsed() >= HEARTBEAT {
            heartbeat = Instant::now();
            reader.account(&mut out);
            account(&state, &mut probes, &mut out);
            beat(&state, &mut out);
        }
        seat.report(&mut state, &reader.count, out.len());
        if has_left || out.is_empty() && (reader.is_over() || reader.is_at_the_end(&state.master)) {
            let asked = has_left || reader.is_over();
            let why = match &state.phase {
                _ if has_left => Some(LEFT),
                _ if asked => Some(ASKED),
                Phase::Ended(why) => Some(why.as_str()),
                _ => None,
            };
            if let Some(why) = why {
                let end = Object::new().raw("next", reader.next()).text("why", why).raw("asked", asked).end();
                reader.account(&mut out);
                account(&state, &mut probes, &mut out);
                beat(&state, &mut out);
                pcapng::end(&mut out, &end);
                seat.report(&mut state, &reader.count, out.len());
                drop(state);
                return output.write_all(&out);
            }
            // Unless it has left while the lock was not held.
            if !client.has_left() {
                state = daemon.wait(state, HEARTBEAT.saturating_sub(heartbeat.elapsed()));
            }
        } else if out.is_empty() && end < u64::MAX {
            drop(state);
            std::thread::sleep(HELD / 4);
            continue;
        }
        drop(state);
        output.write_all(&out)?;
        out.clear();
    }
}

/// Waits until what was sent before now is stored.
fn await_the_present(daemon: &Daemon) {
    std::thread::sleep(ARRIVAL);
    let (present, begun) = (now(), Instant::now());
    let mut state = daemon.lock();
    while !state.has_all_of(present) && begun.elapsed() < STORED {
        state = daemon.wait(state, Duration::from_millis(10));
    }
}

/// Waits until the programs that are there have their probes: what they say once the session has begun is to be read.
fn await_probes(daemon: &Daemon, client: &Client<'_>, output: &Output<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    let begun = Instant::now();
    let mut heartbeat = begun;
    let mut state = daemon.lock();
    while state.keys.is_incomplete()
        && state.phase == Phase::Capturing
        && !client.has_left()
        && begun.elapsed() < PROBED
    {
        state = daemon.wait(state, Duration::from_millis(100));
        if heartbeat.elapsed() >= HEARTBEAT {
            heartbeat = Instant::now();
            // Or the client would think that the agent is gone.
            account(&state, &mut None, out);
            drop(state);
            output.write_all(out)?;
            out.clear();
            state = daemon.lock();
        }
    }
    Ok(())
}

/// Holds back the latest packets for their keys, if there may be any: a client derives them only when it has its server's answer,
/// and readers such as Wireshark want them before that.
struct Held {
    applies: bool,
    /// Packets before this one may go.
    end: u64,
    /// So may those before this one a while after.
    next: (Instant, u64),
}

impl Held {
    fn new(applies: bool) -> Self {
        Self { applies, end: 0, next: (Instant::now(), 0) }
    }

    /// Before which number packets may go, where the next one to come is `next`.
    fn end(&mut self, next: u64) -> u64 {
        if !self.applies {
            return u64::MAX;
        }
        if self.next.0.elapsed() >= HELD {
            self.end = self.next.1;
            self.next = (Instant::now(), next);
        }
        self.end
    }
}

/// How interfaces are described to a session.
struct Description {
    filter: String,
    snaplen: u32,
}

impl Description {
    fn new(daemon: &Daemon, wanted: &Session) -> Self {
        let ours = daemon.lock().filter_text.clone();
        let (ours, theirs) = (ours.as_str(), wanted.filter_text.as_str());
        let filter = match (ours, theirs) {
            ("", one) | (one, "") => one.to_owned(),
            (ours, theirs) => format!("({ours}) and ({theirs})"),
        };
        let snaplen = match wanted.snaplen {
            0 => daemon.options.snaplen,
            less => less.min(daemon.options.snaplen),
        };
        Self { filter, snaplen }
    }

    /// Describes the interfaces that the session does not know yet.
    fn describe(&self, state: &State, reader: &mut Reader, out: &mut Vec<u8>) {
        let filter = Some(self.filter.as_str());
        for tap in state.taps.iter().skip(reader.interfaces()) {
            let (name, origin, link, snaplen) = (tap.name.as_str(), tap.origin, tap.link, self.snaplen);
            pcapng::interface(out, &pcapng::Interface { name, origin, link, snaplen, filter });
            reader.add_interface(tap.link);
        }
    }
}

/// What the probes have come to, if there are any and it is not what was `told` last.
fn account(state: &State, told: &mut Option<Probes>, out: &mut Vec<u8>) {
    if state.keys.probes != *told
        && let Some(account) = state.keys.account()
    {
        told.clone_from(&state.keys.probes);
        pcapng::probes(out, &account);
    }
}

/// The counters of all interfaces.
fn beat(state: &State, out: &mut Vec<u8>) {
    let time = now();
    for (interface, tap) in state.taps.iter().enumerate() {
        pcapng::statistics(
            out,
            &pcapng::Statistics {
                interface: interface as u32,
                time,
                start: tap.since,
                received: tap.received,
                dropped: tap.dropped,
            },
        );
    }
}
