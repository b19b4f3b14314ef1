//! The agent: fills the master PCAP and serves sessions.
//!
//! Owns the daemon that is the container's first process, the commands that are run beside it by `kubectl exec`, and the
//! socket between them. Never dissects, never writes a packet to the daemon's own stdout, which the container runtime
//! would log.
//!
//! # Threads
//!
//! The daemon has one thread that captures, one that accepts connections, two for each session (one sends, one sees that the client leaves), one that waits for
//! signals, and the main one, which decides when to leave. They share one lock around the master PCAP. The capturing
//! thread holds it for one block of the ring, a session while it copies [`session::CHUNK`] bytes; nobody writes to a
//! client under it, so a session that does not read delays nobody: it is lapped and told how many packets it missed. Nor does
//! anybody use the disk under it.
//!
//! # Memory
//!
//! Ring and master PCAP are reserved at the start. A master PCAP on disk takes three segments of memory. Each session adds a buffer of its own, and there are at most
//! [`daemon::MOST_SESSIONS`]. What leaves out repeated views of a packet ([`once`]) takes 400 kB where it is asked for.

mod cli;
mod client;
mod daemon;
mod disk;
mod handover;
mod json;
mod keys;
mod made;
mod master;
mod once;
mod process;
mod reader;
mod request;
mod session;
mod state;
mod status;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "without_tls.rs"]
mod tls;

use std::fmt;
use std::io::Write;

pub use cli::main;

/// Where the daemon listens unless told otherwise. A container's /dev is a tmpfs of its own, which root can write even
/// where the root file system is read-only. The abstract namespace and /dev/shm would be shared with the pod.
const SOCKET: &str = "/dev/sniff-agent.sock";

/// Names another socket, for all commands.
const SOCKET_VARIABLE: &str = "SNIFF_AGENT_SOCKET";

/// What went wrong, for a person.
#[derive(Debug, PartialEq, Eq)]
struct Error {
    /// Failed operation, object, cause.
    message: String,
    /// What to do about it.
    hint: Option<String>,
    /// True if the command line is what is wrong.
    usage: bool,
}

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, usage: false }
    }

    fn usage(message: impl Into<String>) -> Self {
        let hint = Some("run: sniff-agent help".to_owned());
        Self { message: message.into(), hint, usage: true }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// `error: …`, and on a second line `hint: …` if there is one.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

/// Writes a line for people to stderr. That nobody reads it is no reason to stop.
fn log(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
