//! The daemon's side of a connection: one request, one answer.
//!
//! A request is a line of words: `status`, `stop`, or `stream` and where to start: `all`, `now`, `since SECONDS`,
//! `from NUMBER` or `from NUMBER BOOT`. The answer starts with the line `ok` or `error: …`. After the `ok` comes a line
//! of JSON for `status`, nothing for `stop`, and pcapng for `stream` until either side closes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, MOST_SESSIONS, Phase, State, now};
use super::reader::Reader;
use crate::capture::pcapng;

/// How much is copied out of the master PCAP at a time.
pub(super) const CHUNK: usize = 64 << 10;

/// How often the counters are sent, packets or not: the heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long a session may not read at all before it is given up.
const STALLED: Duration = Duration::from_mins(5);

/// How long a request, or the acknowledgement of the end, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest request.
const LONGEST_REQUEST: u64 = 256;

/// Where a session starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the oldest packet that there is.
    All,
    /// With the next packet that comes.
    Now,
    /// With the first packet of the last so many seconds.
    Since(u64),
    /// With the packet of that number, of that run of the agent if one is named. In another run's numbers it means
    /// nothing, so all is sent then.
    From(u64, Option<String>),
}

impl Start {
    /// As in a request.
    pub(super) fn to_words(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Now => "now".to_owned(),
            Self::Since(seconds) => format!("since {seconds}"),
            Self::From(number, None) => format!("from {number}"),
            Self::From(number, Some(boot)) => format!("from {number} {boot}"),
        }
    }

    fn from_words(words: &[&str]) -> Option<Self> {
        match words {
            ["all"] => Some(Self::All),
            ["now"] => Some(Self::Now),
            ["since", seconds] => Some(Self::Since(seconds.parse().ok()?)),
            ["from", number] => Some(Self::From(number.parse().ok()?, None)),
            ["from", number, boot] => Some(Self::From(number.parse().ok()?, Some((*boot).to_owned()))),
            _ => None,
        }
    }
}

/// Answers that there is nothing to get, and why.
pub(super) fn refuse(mut connection: &UnixStream, why: &str) -> io::Result<()> {
    connection.write_all(format!("error: {why}\n").as_bytes())
}

/// Reads the request and answers it.
pub(super) fn serve(daemon: &Daemon, mut connection: UnixStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(STALLED))?;
    let mut request = String::new();
    BufReader::new(&connection).take(LONGEST_REQUEST).read_line(&mut request)?;
    let words: Vec<&str> = request.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["status"] => connection.write_all(format!("ok\n{}\n", daemon.status()).as_bytes()),
        ["stop"] => {
            connection.write_all(b"ok\n")?;
            daemon.stop("asked to stop");
            // The connection stays open until the process ends: that is how the other side knows.
            loop {
                std::thread::park();
            }
        }
        ["stream", start @ ..] => {
            let Some(start) = Start::from_words(start) else { return not_understood(&connection, &request) };
            let Some(_seat) = daemon.seat() else {
                return refuse(&connection, &format!("the agent already serves {MOST_SESSIONS} sessions, its limit"));
            };
            connection.write_all(b"ok\n")?;
            stream(daemon, &mut connection, &start)
        }
        _ => not_understood(&connection, &request),
    }
}

fn not_understood(connection: &UnixStream, request: &str) -> io::Result<()> {
    refuse(connection, &format!("the agent does not understand {:?}", request.trim_end()))
}

/// Sends pcapng until the other side closes or the agent ends.
fn stream(daemon: &Daemon, connection: &mut UnixStream, start: &Start) -> io::Result<()> {
    let mut out = Vec::with_capacity(2 * CHUNK);
    let mut described = 0;
    let mut reader;
    {
        let state = daemon.lock();
        reader = Reader::new(start, daemon, &state.master);
        pcapng::section(&mut out, concat!("sniff-agent ", env!("CARGO_PKG_VERSION")));
        pcapng::hello(&mut out, &daemon.hello(&state));
    }
    let mut heartbeat = Instant::now();
    loop {
        let mut state = daemon.lock();
        describe(daemon, &state, &mut described, &mut out);
        let full = CHUNK + out.len();
        state = reader.read(daemon, state, &mut out, full)?;
        if heartbeat.elapsed() >= HEARTBEAT {
            heartbeat = Instant::now();
            beat(&state, &mut out);
        }
        if out.is_empty() && reader.is_at_the_end(&state.master) {
            if let Phase::Ended(why) = &state.phase {
                beat(&state, &mut out);
                let end = super::json::Object::new().raw("next", state.master.next()).text("why", why).end();
                pcapng::end(&mut out, &end);
                drop(state);
                connection.write_all(&out)?;
                return acknowledged(connection);
            }
            state = daemon.wait(state, HEARTBEAT.saturating_sub(heartbeat.elapsed()));
        }
        drop(state);
        connection.write_all(&out)?;
        out.clear();
    }
}

/// Describes the interfaces that this session does not know yet.
fn describe(daemon: &Daemon, state: &State, described: &mut usize, out: &mut Vec<u8>) {
    let filter = Some(daemon.options.filter_text.as_str());
    for tap in state.taps.iter().skip(*described) {
        let snaplen = daemon.options.snaplen;
        pcapng::interface(out, &pcapng::Interface { name: &tap.name, link: tap.link, snaplen, filter });
        *described += 1;
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

/// Waits for the other side to close: the container ends with the agent, and what is still on its way would be lost.
fn acknowledged(connection: &mut UnixStream) -> io::Result<()> {
    connection.shutdown(Shutdown::Write)?;
    while connection.read(&mut [0; 64])? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_survives_the_socket() {
        let boot = Some("2f1c".to_owned());
        for start in [Start::All, Start::Now, Start::Since(300), Start::From(7, None), Start::From(7, boot)] {
            let words = start.to_words();
            assert_eq!(Start::from_words(&words.split(' ').collect::<Vec<_>>()), Some(start));
        }
        assert_eq!(Start::from_words(&["from", "-1"]), None);
        assert_eq!(Start::from_words(&[]), None);
    }
}
