//! What `sniff-agent status` prints: one line of JSON.
//!
//! Times are seconds since the Unix epoch. What is lost is counted where it is lost:
//!
//! | field | packets that |
//! |---|---|
//! | `packets` | were captured, i.e. passed the filter, and have a number: `next` - 1 |
//! | `filtered` | the capture filter left out; null where the kernel filters, which does not count them |
//! | `repeated` | were left out because they had just been seen on another interface; null without `--once-per-packet` |
//! | `drops` | passed the filter, and the kernel dropped for want of room in the ring |
//! | `cut` | were longer than the snaplen, so that only their beginning is there |
//! | `flushed` | had to make room for later ones, whether a session had read them or not |
//! | `missed` | were flushed before a session read them, once for each session, past ones included |
//!
//! `tls` is null without probes. Else `scanned` says whether all processes have been looked at that were there at the start, `files`
//! in how many files there are probes, `keys` how many lines of keys came of them, `lost` how many events for want of room, and
//! `unmatched` how many secrets are of no connection that is known, `plaintext` how many packets were made of the plaintext of connections
//! from before the probes, and `plaintext_lost` how many bytes of it are missing. `unknown` are programs with TLS that no probe understands,
//! `refused` files that none could be put into. `sockets` has the pod's ends of connections and listening sockets by such program, and
//! `outside` those of no process of the target's: the pod's other containers have these.

use std::time::Instant;

use super::daemon::Daemon;
use super::json::Object;
use super::process;
use super::state::{Phase, State, now};
use crate::capture::pcapng;

/// The line, without its end.
pub(super) fn line(daemon: &Daemon) -> String {
    let state = daemon.lock();
    let options = &daemon.options;
    let (first, next) = (state.master.first(), state.master.next());
    let span = state.master.oldest().map_or(0, |oldest| now().saturating_sub(oldest));
    let taps = state.taps.iter().map(|tap| {
        Object::new()
            .text("name", &tap.name)
            .raw("link", tap.link)
            .raw("received", tap.received)
            .raw("dropped", tap.dropped)
            .end()
    });
    let buffer = Object::new()
        .text("on", if state.master.is_on_disk() { "disk" } else { "memory" })
        .raw("size", state.master.size())
        .raw("used", state.master.used());
    let armed = state.armed_until.map(|until| until.saturating_duration_since(Instant::now()));
    Object::new()
        .text("version", env!("CARGO_PKG_VERSION"))
        .raw("protocol", pcapng::PROTOCOL)
        .text("boot", &daemon.boot)
        .text("pod", &options.pod)
        .text("backend", daemon.backend)
        .raw("started", seconds(daemon.began))
        .raw("age", daemon.started.elapsed().as_secs())
        .text("phase", if state.phase == Phase::Capturing { "capturing" } else { "stopping" })
        .raw("packets", next - 1)
        .raw("first", first)
        .raw("next", next)
        .raw("first_time", or_null(state.master.oldest().map(seconds)))
        .raw("last_time", or_null(state.master.latest().map(seconds)))
        .raw("span", seconds(span))
        .raw("filtered", or_null(state.filtered))
        .raw("repeated", or_null(state.once.as_ref().map(|once| once.repeated)))
        .raw("drops", state.dropped)
        .raw("cut", state.cut)
        .raw("flushed", first - 1)
        .raw("missed", state.missed)
        .raw("buffer", buffer.end())
        .raw("ring", daemon.ring)
        .raw("memory", process::resident())
        .raw("tls", or_null(state.keys.account()))
        .text("filter", &state.filter_text)
        .raw("snaplen", options.snaplen)
        .raw("ttl", options.ttl.as_secs())
        .raw("armed_until", or_null(armed.map(|armed| seconds(now() + armed.as_nanos() as u64))))
        .raw("leaves", or_null(leaves(daemon, &state)))
        .list("sessions", sessions(&state))
        .list("interfaces", taps)
        .end()
}

/// In how many seconds the agent leaves if nobody comes; none while there is a session.
fn leaves(daemon: &Daemon, state: &State) -> Option<u64> {
    let options = &daemon.options;
    let alone = options.ttl.saturating_sub(state.alone_since.elapsed());
    let armed = state.armed_until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
    state.sessions.is_empty().then(|| alone.max(armed).as_secs())
}

fn sessions(state: &State) -> impl Iterator<Item = String> {
    state.sessions.iter().map(|session| {
        Object::new()
            .text("reader", &session.wanted.reader)
            .raw("since", seconds(session.since))
            .raw("packets", session.count.packets)
            .raw("bytes", session.bytes)
            .raw("filtered", session.count.filtered)
            .raw("missed", session.count.missed)
            .text("filter", &session.wanted.filter_text)
            .raw("snaplen", session.wanted.snaplen)
            .raw("follows", session.wanted.until.is_none())
            .end()
    })
}

/// Nanoseconds as seconds with three decimals.
fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:03}", nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1000)
}

fn or_null(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}
