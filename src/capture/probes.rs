//! What an agent says of the probes with which it reads TLS keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Counters of the probes, and what they do not reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Probes {
    /// All programs that were there when the agent came have their probes.
    pub scanned: bool,
    /// Files with probes in them.
    pub files: u64,
    /// Lines of the key log that came of them.
    pub keys: u64,
    /// Events that were lost for want of room.
    pub lost: u64,
    /// Secrets of connections that are not known.
    pub unmatched: u64,
    /// Programs with TLS that no probe understands, and whose it is: `java (Java's own)`.
    pub unknown: Vec<String>,
    /// Files that no probe could be put into, and why.
    pub refused: Vec<String>,
    /// Sockets of such programs: those that are open, and some that were just now.
    pub sockets: BTreeMap<String, Vec<SocketAddr>>,
    /// The same of the pod's other containers, whose processes the probes are not in.
    pub outside: Vec<SocketAddr>,
}

impl Probes {
    /// Why connections may have no keys, as far as it is known; empty if it is not.
    #[must_use]
    pub fn excuse(&self) -> String {
        let mut excuses = Vec::new();
        if !self.unknown.is_empty() {
            excuses.push(format!("they do not know the TLS of {}", self.unknown.join(", ")));
        }
        if !self.refused.is_empty() {
            excuses.push(format!("they could not be put into {}", self.refused.join(", ")));
        }
        if !self.scanned {
            excuses.push("they are not in all programs yet".to_owned());
        }
        if self.lost > 0 {
            excuses.push("some of what they saw was lost".to_owned());
        }
        excuses.join("; ")
    }

    /// Why connections of these sockets have no keys.
    pub fn reasons(&self) -> impl Iterator<Item = (SocketAddr, Cow<'static, str>)> {
        let of_programs = self.sockets.iter().flat_map(|(program, sockets)| {
            let reason = format!("the probes do not know the TLS of its program, {program}");
            sockets.iter().map(move |socket| (*socket, reason.clone().into()))
        });
        let outside = "its program is in another container than the probes";
        of_programs.chain(self.outside.iter().map(move |socket| (*socket, outside.into())))
    }
}
