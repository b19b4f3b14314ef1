//! Secrets of TLS and QUIC connections, as key logs have them (the format of `SSLKEYLOGFILE`, RFC 9850). Older ones have premaster
//! secrets, which NSS and Wireshark know as `RSA` and `PMS_CLIENT_RANDOM`.
//!
//! One store serves all engines and may be filled while they run: a key log grows, and a capture may bring keys of its own.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::resumption::Sessions;
use super::unseen::Unseen;
use crate::dissect::text;
use crate::entry::{Text, Timestamp};

/// The most connections whose secrets are kept; past it the oldest are forgotten.
const MAX_CONNECTIONS: usize = 500_000;
/// The longest secret: one of SHA-512's length.
const MAX_SECRET: usize = 64;
/// The longest premaster secret: one of Diffie-Hellman with 8192 bits.
const MAX_PREMASTER: usize = 1024;

/// The most connections whose records wait for keys at the same time.
const MAX_WAITING: usize = 1024;

/// How rows say where their keys came from, if nobody has said otherwise.
pub(super) const KEYLOG: &str = "keylog";

/// The same of keys that an agent has read: it says so in a comment before the line.
const PROBES: [&str; 4] = ["uprobe:openssl", "uprobe:boringssl", "uprobe:gnutls", "uprobe:go"];

/// The probe of that name.
#[must_use]
pub fn probe(name: &str) -> Option<&'static str> {
    PROBES.into_iter().find(|probe| *probe == name)
}

/// What names a connection: the random of its `ClientHello`.
pub(in crate::dissect) type Random = [u8; 32];

/// What names a premaster secret of TLS 1.2 or older beside that: how it starts as its client has sent it, encrypted with
/// the server's RSA key.
pub(in crate::dissect) type EncryptedStart = [u8; 8];

/// The labels of secrets that decrypt something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dissect) enum Label {
    /// The master secret of TLS 1.2 and older.
    Master,
    ClientEarly,
    ClientHandshake,
    ServerHandshake,
    ClientTraffic,
    ServerTraffic,
}

impl Label {
    const ALL: [Self; 6] = [
        Self::Master,
        Self::ClientEarly,
        Self::ClientHandshake,
        Self::ServerHandshake,
        Self::ClientTraffic,
        Self::ServerTraffic,
    ];

    fn parse(label: &str) -> Option<Self> {
        // Early implementations of QUIC gave their secrets a prefix.
        let name = label.strip_prefix("QUIC_").unwrap_or(label);
        Self::ALL.into_iter().find(|label| label.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Master => "CLIENT_RANDOM",
            Self::ClientEarly => "CLIENT_EARLY_TRAFFIC_SECRET",
            Self::ClientHandshake => "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            Self::ServerHandshake => "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            Self::ClientTraffic => "CLIENT_TRAFFIC_SECRET_0",
            Self::ServerTraffic => "SERVER_TRAFFIC_SECRET_0",
        }
    }
}

/// The secrets of one connection.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::dissect) struct Secrets {
    by_label: [Option<Box<[u8]>>; 6],
    /// Where the first of them came from: `keylog`, or the kind of probe.
    pub origin: &'static str,
    /// No key log has them; its connection has come to them.
    derived: bool,
}

impl Secrets {
    fn new(origin: &'static str) -> Self {
        Self { by_label: Default::default(), origin, derived: true }
    }

    /// The secret of that label.
    pub fn get(&self, label: Label) -> Option<&[u8]> {
        self.by_label.get(label as usize)?.as_deref()
    }

    /// True if nothing more is to be expected of its key log; `early`: the client's early data has a secret too.
    pub fn is_complete(&self, early: bool) -> bool {
        let all = [Label::ClientHandshake, Label::ServerHandshake, Label::ClientTraffic, Label::ServerTraffic];
        let early = early.then_some(Label::ClientEarly);
        self.get(Label::Master).is_some() || all.into_iter().chain(early).all(|label| self.get(label).is_some())
    }

    fn iter(&self) -> impl Iterator<Item = (Label, &[u8])> {
        Label::ALL.into_iter().filter_map(|label| Some((label, self.get(label)?)))
    }

    fn set(&mut self, label: Label, secret: &[u8]) -> bool {
        match self.by_label.get_mut(label as usize) {
            Some(known) if known.as_deref() != Some(secret) => {
                *known = Some(secret.into());
                true
            }
            _ => false,
        }
    }
}

/// The secrets of all connections that are known. Shared by whoever finds them and whoever decrypts.
#[derive(Default)]
pub struct Keys {
    known: RwLock<Known>,
    /// Goes up with each secret that is new.
    version: AtomicU64,
    /// For how many nanoseconds they may come after what they decrypt; 0 if not at all.
    patience: AtomicI64,
    /// Connections that wait for theirs.
    waiting: AtomicUsize,
    /// What agents say of keys that they did not see.
    unseen: Unseen,
    /// Of which connections sessions are that may be resumed.
    pub(super) sessions: Sessions,
}

#[derive(Default)]
struct Known {
    connections: HashMap<Random, Arc<Secrets>>,
    /// In the order in which they came.
    order: VecDeque<Random>,
    /// Premaster secrets, by the random or the start of their encrypted form; as many as connections, and in order.
    premasters: HashMap<Box<[u8]>, Box<[u8]>>,
    premaster_order: VecDeque<Box<[u8]>>,
    /// Those that were asked for since growing began.
    used: HashSet<Random>,
    /// Of these, those with secrets that nobody has taken yet.
    fresh: Vec<Random>,
}

impl Keys {
    /// Takes the lines of a key log; those that are none, or of no use, are passed over. Returns how many secrets were new.
    pub fn add(&self, log: &[u8]) -> usize {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = 0;
        let mut origin = KEYLOG;
        for line in log.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
            new += usize::from(known.line(line, origin).is_some());
            // A comment is about the line after it alone: what else is put together with it may be from elsewhere.
            let probe = |comment: &[u8]| PROBES.into_iter().find(|probe| probe.as_bytes() == comment.trim_ascii());
            origin = line.strip_prefix(b"#").and_then(probe).unwrap_or(KEYLOG);
        }
        self.version.fetch_add(new as u64, Ordering::Release);
        new
    }

    /// From now on, keys may come after what they decrypt: connections without one wait so long for it.
    pub fn grow(&self, patience: Duration) {
        self.patience.fetch_max(i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX), Ordering::Release);
    }

    /// True if keys may come after what they decrypt.
    pub(in crate::dissect) fn may_grow(&self) -> bool {
        self.patience.load(Ordering::Acquire) > 0
    }

    /// True if there are any, or may be.
    pub(in crate::dissect) fn is_useful(&self) -> bool {
        !self.is_empty() || self.may_grow()
    }

    /// The agent at that tap has probes for keys, and says this of what they miss; nothing if it knows of nothing. Of some of the pod's
    /// sockets it knows why they have no keys.
    pub fn explain(&self, tap: u32, excuse: &str, sockets: impl IntoIterator<Item = (SocketAddr, Text)>) {
        self.unseen.explain(tap, excuse, sockets);
    }

    /// Why a connection of client and server that was seen at that tap has none.
    pub(in crate::dissect) fn missing(&self, tap: u32, ends: [SocketAddr; 2]) -> Text {
        self.unseen.meet(tap, ends).unwrap_or(Text::Borrowed("the key log has no key for it"))
    }

    /// What connections lacked keys for, where there are probes: taps and reasons that are new since the last call.
    pub fn take_unseen(&self) -> Vec<(u32, Text)> {
        self.unseen.take()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.version() == 0
    }

    /// Changes whenever a secret is added.
    pub(in crate::dissect) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The secrets of the connection whose client chose that random.
    pub(in crate::dissect) fn find(&self, random: &Random) -> Option<Arc<Secrets>> {
        if self.is_empty() {
            return None;
        }
        if self.may_grow() {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if known.connections.get(random).is_some_and(|secrets| !secrets.derived) && known.used.insert(*random) {
                known.fresh.push(*random);
            }
        }
        // What a connection comes to may not depend on others that are seen elsewhere, nor on which comes first.
        self.found(random).filter(|secrets| !secrets.derived)
    }

    /// The same, whether a key log has them or not.
    pub(super) fn found(&self, random: &Random) -> Option<Arc<Secrets>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).connections.get(random).cloned()
    }

    /// The premaster secret of the connection whose client chose that random, and sent it as something that starts so.
    pub(in crate::dissect) fn premaster(
        &self,
        random: &Random,
        encrypted: Option<&EncryptedStart>,
    ) -> Option<Box<[u8]>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let by = |name: &[u8]| known.premasters.get(name);
        by(random).or_else(|| by(encrypted?)).cloned()
    }

    /// Takes the master secret that a connection has come to by others.
    pub(super) fn derive(&self, random: &Random, master: &[u8], origin: &'static str) -> Option<Arc<Secrets>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.set(*random, Label::Master, master, origin).is_some() {
            self.version.fetch_add(1, Ordering::Release);
        }
        if self.may_grow() && known.used.insert(*random) {
            known.fresh.push(*random);
        }
        known.connections.get(random).cloned()
    }

    /// The secrets that decrypt what was seen, as lines of a key log: those that are new since the last call.
    pub fn take_used(&self) -> String {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut lines = String::new();
        for random in std::mem::take(&mut known.fresh) {
            let secrets = known.connections.get(&random);
            let origin = secrets.map(|secrets| secrets.origin).filter(|origin| *origin != KEYLOG);
            for (label, secret) in secrets.into_iter().flat_map(|secrets| secrets.iter()) {
                if let Some(origin) = origin {
                    lines.extend(["# ", origin, "\n"]);
                }
                lines.extend([label.name(), " ", &text::hex(&random), " ", &text::hex(secret), "\n"]);
            }
        }
        lines
    }
}

impl fmt::Debug for Keys {
    /// Without the secrets, which have no place in a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("version", &self.version()).finish_non_exhaustive()
    }
}

/// A connection that waits for its keys.
pub(in crate::dissect) struct Waiting {
    keys: Arc<Keys>,
    /// The keys that there were when it last looked.
    version: u64,
    /// When it has waited long enough, in time of the capture.
    pub until: Timestamp,
}

impl Waiting {
    /// None if nothing is to be waited for, or too many wait already.
    pub fn new(keys: &Arc<Keys>, since: Timestamp) -> Option<Self> {
        let patience = keys.patience.load(Ordering::Acquire);
        if patience == 0 {
            return None;
        }
        let counted = keys.waiting.fetch_add(1, Ordering::Relaxed);
        let until = Timestamp(since.0.saturating_add(patience));
        let this = Self { version: keys.version(), keys: Arc::clone(keys), until };
        (counted < MAX_WAITING).then_some(this)
    }

    /// True if secrets have come since it was last asked.
    pub fn is_news(&mut self) -> bool {
        let version = self.keys.version();
        std::mem::replace(&mut self.version, version) != version
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.keys.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Known {
    /// One line: label, what names it, secret. None if it brings nothing new.
    fn line(&mut self, line: &[u8], origin: &'static str) -> Option<()> {
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let (label, name) = (words.next()?, unhex(words.next()?)?);
        let secret = unhex(words.next()?).filter(|secret| !secret.is_empty())?;
        match (label, name.len()) {
            ("RSA", 8) | ("PMS_CLIENT_RANDOM", 32) => self.set_premaster(&name, &secret),
            _ if secret.len() > MAX_SECRET => None,
            _ => {
                let random = name.try_into().ok()?;
                let new = self.set(random, Label::parse(label)?, &secret, origin);
                if let Some(secrets) = self.connections.get_mut(&random).filter(|secrets| secrets.derived) {
                    Arc::make_mut(secrets).derived = false;
                }
                new
            }
        }
    }

    /// The same for a premaster secret.
    fn set_premaster(&mut self, name: &[u8], secret: &[u8]) -> Option<()> {
        match self.premasters.insert(name.into(), secret.into()) {
            Some(before) => return (*before != *secret).then_some(()),
            None => self.premaster_order.push_back(name.into()),
        }
        if self.premasters.len() > MAX_CONNECTIONS
            && let Some(oldest) = self.premaster_order.pop_front()
        {
            self.premasters.remove(&oldest);
        }
        Some(())
    }

    fn set(&mut self, random: Random, label: Label, secret: &[u8], origin: &'static str) -> Option<()> {
        if !self.connections.contains_key(&random) {
            if self.connections.len() >= MAX_CONNECTIONS
                && let Some(oldest) = self.order.pop_front()
            {
                self.connections.remove(&oldest);
                self.used.remove(&oldest);
            }
            self.order.push_back(random);
        }
        let secrets = self.connections.entry(random).or_insert_with(|| Arc::new(Secrets::new(origin)));
        if !Arc::make_mut(secrets).set(label, secret) {
            return None;
        }
        if self.used.contains(&random) && !self.fresh.contains(&random) {
            self.fresh.push(random);
        }
        Some(())
    }
}

/// Bytes of a secret or random from hex digits.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if digits.len() > 2 * MAX_PREMASTER {
        return None;
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_libraries_write_them() {
        let keys = Keys::default();
        let random = "AB".repeat(32);
        let log = format!(
            "# a comment\r\nCLIENT_RANDOM {random} {}\r\n\nEXPORTER_SECRET {random} 00\n\
             QUIC_SERVER_TRAFFIC_SECRET_0 {random}  0102\nCLIENT_TRAFFIC_SECRET_0 {random}\nCLIENT_RANDOM 12 34\n\
             CLIENT_RANDOM {random} {}\nCLIENT_TRAFFIC_SECRET_0 {random} 0g\nSERVER_TRAFFIC_SECRET_0 {random} 01",
            "0f".repeat(48),
            "1".repeat(MAX_SECRET * 2 + 2),
        );
        assert!(keys.is_empty());
        assert_eq!(keys.add(log.as_bytes()), 3);
        // What is cut off comes again, whole.
        assert_eq!(keys.add(format!("SERVER_TRAFFIC_SECRET_0 {random} 0102\n").as_bytes()), 1);
        assert_eq!(keys.add(format!("SERVER_TRAFFIC_SECRET_0 {random} 0102\n").as_bytes()), 0);
        let secrets = keys.find(&[0xab; 32]);
        let secret = |label| secrets.as_ref().and_then(|secrets| secrets.get(label));
        assert_eq!(secret(Label::Master), Some(&[0x0f; 48][..]));
        assert_eq!(secret(Label::ServerTraffic), Some(&[1, 2][..]));
        assert_eq!(secret(Label::ClientTraffic), None);
        assert!(keys.find(&[0; 32]).is_none());
        assert!(!format!("{keys:?}").contains("0f0f"));
    }

    #[test]
    fn keys_of_a_probe_stay_so() {
        let line = |byte: &str| format!("CLIENT_RANDOM {} {byte}\n", byte.repeat(32));
        let keys = Keys::default();
        keys.grow(Duration::from_secs(1));
        let log = ["# uprobe:go\n", &line("01"), &line("02"), "# uprobe:openssl \r\n", &line("03"), "# uprobe:go 2\n"];
        assert_eq!(keys.add(log.concat().as_bytes()), 3);
        assert_eq!(keys.add(line("04").as_bytes()), 1);
        let origin = |random: u8| keys.find(&[random; 32]).map(|secrets| secrets.origin);
        let origins = [1, 2, 3, 4].map(|random| origin(random).unwrap_or_default());
        assert_eq!(origins, ["uprobe:go", "keylog", "uprobe:openssl", "keylog"]);
        // What is saved and read again says the same.
        let saved = Keys::default();
        saved.add(keys.take_used().as_bytes());
        let origin = |random: u8| saved.find(&[random; 32]).map(|secrets| secrets.origin);
        assert_eq!([1, 2, 3, 4].map(|random| origin(random).unwrap_or_default()), origins);
    }

    #[test]
    fn what_a_premaster_secret_comes_to_is_told_in_its_place() {
        let (random, start) = ([0xab; 32], [1; 8]);
        let keys = Keys::default();
        keys.grow(Duration::from_secs(1));
        let log = format!(
            "RSA {} {}\nPMS_CLIENT_RANDOM {} {}\nRSA 01 02\nRSA {} 02\n",
            "01".repeat(8),
            "0f".repeat(48),
            "ab".repeat(32),
            "0e".repeat(1024),
            "ab".repeat(32),
        );
        assert_eq!((keys.add(log.as_bytes()), keys.add(log.as_bytes())), (2, 0));
        assert_eq!(keys.premaster(&random, Some(&start)).as_deref(), Some(&[0x0e; 1024][..]));
        assert_eq!(keys.premaster(&[0; 32], Some(&start)).as_deref(), Some(&[0x0f; 48][..]));
        assert!(keys.premaster(&[0; 32], Some(&[2; 8])).or(keys.premaster(&[0; 32], None)).is_none());
        assert!(keys.find(&random).is_none());
        assert!(keys.derive(&random, &[0x0d; 48], KEYLOG).is_some());
        assert!(keys.found(&random).is_some() && keys.find(&random).is_none());
        let line = format!("CLIENT_RANDOM {} {}\n", "ab".repeat(32), "0d".repeat(48));
        assert_eq!(keys.take_used(), line);
        keys.add(line.as_bytes());
        assert!(keys.find(&random).is_some());
    }

    #[test]
    fn only_what_was_used_is_told() {
        let line = |label: &str, byte: &str| format!("{label} {} {byte}\n", byte.repeat(32));
        let keys = Keys::default();
        keys.grow(Duration::from_secs(1));
        for byte in ["01", "02"] {
            keys.add(line("SERVER_TRAFFIC_SECRET_0", byte).as_bytes());
        }
        assert_eq!(keys.take_used(), "");
        for _ in 0..2 {
            assert!(keys.find(&[2; 32]).is_some());
        }
        assert_eq!(keys.take_used(), line("SERVER_TRAFFIC_SECRET_0", "02"));
        keys.add(line("CLIENT_TRAFFIC_SECRET_0", "01").as_bytes());
        assert_eq!(keys.take_used(), "");
        keys.add(line("CLIENT_TRAFFIC_SECRET_0", "02").as_bytes());
        let both = [line("CLIENT_TRAFFIC_SECRET_0", "02"), line("SERVER_TRAFFIC_SECRET_0", "02")].concat();
        assert_eq!(keys.take_used(), both);
    }
}
