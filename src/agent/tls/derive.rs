//! From what goes into key derivations to key log lines.
//!
//! Libraries have functions that derive keys; none of them knows what connection it works for. TLS 1.2 puts both sides'
//! randoms into the derivation of its keys, so that says all. TLS 1.3 does not, but its secrets follow from one another: the
//! thread that derives the first secret of a handshake has just hashed its ClientHello, or the ServerHello into the same hash, and
//! from there on, each secret is found by the one that it was made of, whatever thread does it. So handshakes that take turns in an event loop are not mixed up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The most of each kind of thing that is remembered: handshakes that may be under way at a time.
const MOST: usize = 4096;

/// The most seeds of a derivation: TLS has five at most.
const MOST_SEEDS: usize = 8;

/// Kinds of events, as in probes/events.h.
const HELLO: u32 = 1;
const DERIVATION: u32 = 2;
const OUTPUT: u32 = 3;
const CONTROL: u32 = 4;
const GO: u32 = 5;
const ANSWER: u32 = 6;

/// Names of values, as in probes/events.h.
const KEY: u32 = 1;
const SECRET: u32 = 2;
const SEED: u32 = 3;
const LABEL: u32 = 4;
const SALT: u32 = 5;
const INFO: u32 = 6;

/// Commands of OpenSSL 1.1's `EVP_PKEY_CTX_ctrl`.
const CONTROL_SECRET: u32 = 0x1001;
const CONTROL_SEED: u32 = 0x1002;
const CONTROL_SALT: u32 = 0x1004;
const CONTROL_KEY: u32 = 0x1005;
const CONTROL_INFO: u32 = 0x1006;

/// Size of an event's head, and of a value in it.
const HEAD: usize = 24;
const VALUE: usize = 72;

/// A client's random.
type Random = [u8; 32];

/// Makes key log lines of events.
#[derive(Default)]
pub(super) struct Correlator {
    /// The ClientHello that each thread has hashed last.
    hellos: Recent<u64, Random>,
    /// The one in each hash, by process and address.
    hashes: Recent<(u64, u64), Random>,
    /// Whose secrets they are.
    owners: Recent<Vec<u8>, Random>,
    /// What each thread is deriving.
    open: Recent<u64, Derivation>,
    /// What has been set for derivations of OpenSSL 1.1, by process and context.
    contexts: Recent<(u64, u64), Derivation>,
    /// Lines that were written already: both ends of a connection may be in one pod.
    written: HashSet<u64>,
    /// Traffic secrets of unknown connections.
    pub(super) unmatched: u64,
}

/// What goes into a derivation.
#[derive(Clone, Default)]
struct Derivation {
    library: Library,
    key: Vec<u8>,
    secret: Vec<u8>,
    salt: Vec<u8>,
    label: Vec<u8>,
    seeds: Vec<Vec<u8>>,
}

/// Whose secrets they are.
#[derive(Clone, Copy, Default)]
enum Library {
    #[default]
    OpenSsl,
    BoringSsl,
    GnuTls,
    Go,
}

/// A map that forgets its oldest entries.
struct Recent<K, V> {
    /// With each value, when it came.
    entries: HashMap<K, (V, u64)>,
    order: VecDeque<(K, u64)>,
    came: u64,
}

impl Correlator {
    /// Takes an event; appends the lines that follow from it.
    pub(super) fn event(&mut self, event: &[u8], lines: &mut Vec<u8>) {
        let Some(event) = Event::of(event) else { return };
        match event.kind {
            HELLO => {
                if let Some(random) = event.value(0).and_then(|(_, random)| random.try_into().ok()) {
                    self.hellos.insert(event.thread, random);
                    self.hashes.insert(event.owner(), random);
                }
            }
            ANSWER => {
                if let Some(random) = self.hashes.get(&event.owner()).copied() {
                    self.hellos.insert(event.thread, random);
                }
            }
            DERIVATION => {
                let mut derivation = Derivation { library: Library::of(event.extra), ..Derivation::default() };
                (0..).map_while(|at| event.value(at)).for_each(|(name, bytes)| derivation.set(name, bytes));
                self.seeded(&derivation, lines);
                self.open.insert(event.thread, derivation);
            }
            CONTROL => {
                let Some((_, bytes)) = event.value(0) else { return };
                let mut derivation = self.contexts.remove(&event.owner()).unwrap_or_default();
                match event.extra {
                    CONTROL_SECRET => derivation.set(SECRET, bytes),
                    CONTROL_SEED => derivation.set(SEED, bytes),
                    CONTROL_SALT => derivation.set(SALT, bytes),
                    CONTROL_KEY => derivation.set(KEY, bytes),
                    CONTROL_INFO => derivation.set(INFO, bytes),
                    _ => {}
                }
                self.contexts.insert(event.owner(), derivation);
            }
            OUTPUT => {
                let derivation = match event.context {
                    0 => self.open.remove(&event.thread),
                    _ => self.contexts.remove(&event.owner()),
                };
                let (Some(derivation), Some((_, output))) = (derivation, event.value(0)) else { return };
                if event.context != 0 {
                    self.seeded(&derivation, lines);
                }
                self.derived(event.thread, &derivation, output, lines);
            }
            GO => {
                if let (Some((_, label)), Some((_, random)), Some((_, secret))) =
                    (event.value(0), event.value(1), event.value(2))
                    && let (Ok(label), Ok(random)) = (std::str::from_utf8(label), random.try_into())
                    && label.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
                {
                    self.write(Library::Go, label, &random, secret, lines);
                }
            }
            _ => {}
        }
    }

    /// Keys of TLS 1.2 and before, of which the master secret is what counts.
    fn seeded(&mut self, derivation: &Derivation, lines: &mut Vec<u8>) {
        if let [label, server, client, ..] = derivation.seeds.as_slice()
            && label == b"key expansion"
            && server.len() == 32
            && derivation.secret.len() == 48
            && let Ok(client) = client.as_slice().try_into()
        {
            self.write(derivation.library, "CLIENT_RANDOM", &client, &derivation.secret, lines);
        }
    }

    /// A secret of TLS 1.3.
    fn derived(&mut self, thread: u64, derivation: &Derivation, output: &[u8], lines: &mut Vec<u8>) {
        if !(32..=48).contains(&output.len()) {
            return;
        }
        let label = derivation.label.strip_prefix(b"tls13 ").unwrap_or(&derivation.label);
        let (name, begins) = match label {
            b"c e traffic" => ("CLIENT_EARLY_TRAFFIC_SECRET", true),
            b"c hs traffic" => ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", true),
            b"s hs traffic" => ("SERVER_HANDSHAKE_TRAFFIC_SECRET", true),
            b"c ap traffic" => ("CLIENT_TRAFFIC_SECRET_0", false),
            b"s ap traffic" => ("SERVER_TRAFFIC_SECRET_0", false),
            b"derived" | b"" => {
                let from = if derivation.salt.is_empty() { &derivation.key } else { &derivation.salt };
                if let Some(owner) = self.owners.get(from).copied() {
                    self.owners.insert(output.to_vec(), owner);
                }
                return;
            }
            _ => return,
        };
        let owner = if begins { self.hellos.get(&thread) } else { self.owners.get(&derivation.key) }.copied();
        let Some(owner) = owner else {
            self.unmatched += 1;
            return;
        };
        // The secret before a handshake's may be that of several connections: it is of the ticket that they resume by.
        if name.contains("HANDSHAKE") {
            self.owners.insert(derivation.key.clone(), owner);
        }
        self.write(derivation.library, name, &owner, output, lines);
    }

    /// Appends a line, after one that says where it is from, unless it was there lately.
    fn write(&mut self, library: Library, label: &str, random: &Random, secret: &[u8], lines: &mut Vec<u8>) {
        if secret.is_empty() {
            return;
        }
        let mut line = String::with_capacity(label.len() + 2 * (random.len() + secret.len()) + 32);
        line.push_str(library.comment());
        line.push_str(label);
        for bytes in [random.as_slice(), secret] {
            line.push(' ');
            // Writing to a String does not fail.
            for byte in bytes {
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push('\n');
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        if self.written.len() == 4 * MOST {
            self.written.clear();
        }
        if self.written.insert(hasher.finish()) {
            lines.extend_from_slice(line.as_bytes());
        }
    }
}

impl Derivation {
    fn set(&mut self, name: u32, bytes: &[u8]) {
        match name {
            KEY => self.key = bytes.to_vec(),
            SECRET => self.secret = bytes.to_vec(),
            SALT => self.salt = bytes.to_vec(),
            LABEL => self.label = bytes.to_vec(),
            INFO => self.label = label(bytes).unwrap_or_default().to_vec(),
            SEED if self.seeds.len() < MOST_SEEDS && !bytes.is_empty() => self.seeds.push(bytes.to_vec()),
            _ => {}
        }
    }
}

impl Library {
    /// By its number in probes/events.h.
    fn of(number: u32) -> Self {
        match number {
            2 => Self::BoringSsl,
            3 => Self::GnuTls,
            _ => Self::OpenSsl,
        }
    }

    /// A comment in the key log that says where the line after it is from.
    fn comment(self) -> &'static str {
        match self {
            Self::OpenSsl => "# uprobe:openssl\n",
            Self::BoringSsl => "# uprobe:boringssl\n",
            Self::GnuTls => "# uprobe:gnutls\n",
            Self::Go => "# uprobe:go\n",
        }
    }
}

/// The label in an `HkdfLabel` (RFC 8446, 7.1): length (2), the label's, and the label.
fn label(info: &[u8]) -> Option<&[u8]> {
    let (length, rest) = info.get(2..)?.split_first()?;
    rest.get(..usize::from(*length))
}

/// An event, as a program in the kernel wrote it.
struct Event<'a> {
    kind: u32,
    extra: u32,
    thread: u64,
    context: u64,
    values: &'a [u8],
}

impl<'a> Event<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (head, values) = bytes.split_at_checked(HEAD)?;
        Some(Self {
            kind: word(head, 0)?,
            extra: word(head, 4)?,
            thread: long(head, 8)?,
            context: long(head, 16)?,
            values,
        })
    }

    /// The context, which is an address, and whose: the process is the upper half of a thread's number.
    fn owner(&self) -> (u64, u64) {
        (self.thread >> 32, self.context)
    }

    /// Name and bytes of a value.
    fn value(&self, at: usize) -> Option<(u32, &'a [u8])> {
        let value = self.values.get(at * VALUE..(at + 1) * VALUE)?;
        Some((word(value, 0)?, value.get(8..)?.get(..word(value, 4)? as usize)?))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    fn insert(&mut self, key: K, value: V) {
        self.came += 1;
        self.order.push_back((key.clone(), self.came));
        self.entries.insert(key, (value, self.came));
        while self.entries.len() > MOST || self.order.len() > 4 * MOST {
            let Some((key, came)) = self.order.pop_front() else { break };
            // It may have been removed, or come again.
            if self.entries.get(&key).is_some_and(|entry| entry.1 == came) {
                self.entries.remove(&key);
            }
        }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.0)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|entry| entry.0)
    }
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), came: 0 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    fn event(kind: u32, extra: u32, thread: u64, context: u64, values: &[(u32, &[u8])]) -> Vec<u8> {
        let mut event = Vec::new();
        event.extend([kind, extra].iter().flat_map(|word| word.to_ne_bytes()));
        event.extend([thread, context].iter().flat_map(|long| long.to_ne_bytes()));
        for (name, bytes) in values {
            event.extend([*name, bytes.len() as u32].iter().flat_map(|word| word.to_ne_bytes()));
            event.extend_from_slice(bytes);
            event.resize(event.len() + VALUE - 8 - bytes.len(), 0xee);
        }
        event
    }

    /// The lines of events, with each secret's first byte only.
    fn lines(correlator: &mut Correlator, events: &[Vec<u8>]) -> Vec<String> {
        let mut lines = Vec::new();
        events.iter().for_each(|event| correlator.event(event, &mut lines));
        let line = |line: &str| {
            let [label, random, secret] = line.split(' ').collect::<Vec<_>>()[..] else { return line.to_owned() };
            format!("{label} {} {}", &random[..2], &secret[..2])
        };
        let lines = String::from_utf8(lines).unwrap();
        lines.lines().filter(|line| !line.starts_with('#')).map(line).collect()
    }

    /// A derivation of OpenSSL 3 and its result.
    fn derivation(thread: u64, from: (u32, u8), label: &[u8], output: u8) -> [Vec<u8>; 2] {
        let values = [(0, &[][..]), (from.0, &[from.1; 32]), (LABEL, label)];
        [event(DERIVATION, 0, thread, 0, &values), event(OUTPUT, 0, thread, 0, &[(0, &[output; 32])])]
    }

    #[test]
    fn handshakes_that_take_turns_on_a_thread_are_told_apart() {
        let mut it = Correlator::default();
        let hello = |random: u8| event(HELLO, 0, 1, 0, &[(0, &[random; 32])]);
        let begun = |random: u8, secret: u8| {
            let mut events = vec![hello(random)];
            events.extend(derivation(1, (KEY, secret), b"c hs traffic", secret + 1));
            events.extend(derivation(1, (KEY, secret), b"s hs traffic", secret + 2));
            events.extend(derivation(1, (SALT, secret), b"derived", secret + 3));
            events
        };
        let first = lines(&mut it, &begun(0xaa, 0x10));
        let wanted = ["CLIENT_HANDSHAKE_TRAFFIC_SECRET aa 11", "SERVER_HANDSHAKE_TRAFFIC_SECRET aa 12"];
        assert_eq!(first, wanted);
        assert_eq!(lines(&mut it, &begun(0xbb, 0x20)).len(), 2);
        let mut rest = derivation(1, (KEY, 0x13), b"c ap traffic", 0x14).to_vec();
        // Another thread may go on with it.
        rest.extend(derivation(2, (KEY, 0x23), b"s ap traffic", 0x24));
        rest.extend(derivation(1, (KEY, 0x99), b"s ap traffic", 0x98));
        assert_eq!(lines(&mut it, &rest), ["CLIENT_TRAFFIC_SECRET_0 aa 14", "SERVER_TRAFFIC_SECRET_0 bb 24"]);
        assert_eq!(it.unmatched, 1);
        assert!(lines(&mut it, &rest).is_empty(), "the same again");
    }

    #[test]
    fn a_server_s_answer_tells_whose_turn_it_is() {
        let mut it = Correlator::default();
        let hello = |random: u8| event(HELLO, 0, 1, random.into(), &[(0, &[random; 32])]);
        let answer = |hash: u64| event(ANSWER, 0, 1, hash, &[(0, &[9; 32])]);
        let mut events = vec![hello(0xaa), hello(0xbb), answer(0xaa)];
        events.extend(derivation(1, (KEY, 0x10), b"c hs traffic", 0x11));
        // Of a hash that is not known, nothing follows.
        events.extend([answer(0xbb), answer(0xcc)]);
        events.extend(derivation(1, (KEY, 0x20), b"c hs traffic", 0x21));
        let wanted = ["CLIENT_HANDSHAKE_TRAFFIC_SECRET aa 11", "CLIENT_HANDSHAKE_TRAFFIC_SECRET bb 21"];
        assert_eq!(lines(&mut it, &events), wanted);
    }

    #[test]
    fn tls_1_2_says_whose_keys_they_are() {
        let mut it = Correlator::default();
        let seeds: [(u32, &[u8]); 5] =
            [(SECRET, &[0x77; 48]), (SEED, b"key expansion"), (SEED, &[0x55; 32]), (SEED, &[0xcc; 32]), (SEED, b"")];
        assert_eq!(lines(&mut it, &[event(DERIVATION, 0, 1, 0, &seeds)]), ["CLIENT_RANDOM cc 77"]);
        let finished = [seeds[0], (SEED, b"client finished"), (SEED, &[1; 32])];
        assert!(lines(&mut it, &[event(DERIVATION, 0, 1, 0, &finished)]).is_empty());
        // The same of OpenSSL 1.1, for another connection.
        let mut events: Vec<_> = [
            (CONTROL_SECRET, &[0x78; 48][..]),
            (CONTROL_SEED, b"key expansion"),
            (CONTROL_SEED, &[0x55; 32]),
            (CONTROL_SEED, &[0xdd; 32]),
        ]
        .iter()
        .map(|(command, bytes)| event(CONTROL, *command, 1, 0x1234, &[(0, bytes)]))
        .collect();
        events.push(event(OUTPUT, 0, 1, 0x1234, &[(0, b"")]));
        assert_eq!(lines(&mut it, &events), ["CLIENT_RANDOM dd 78"]);
    }

    #[test]
    fn tls_1_3_of_openssl_1_1_is_the_same_in_smaller_steps() {
        let mut it = Correlator::default();
        let step = |what: &[(u32, &[u8])], output: u8| {
            let mut events: Vec<_> =
                what.iter().map(|(command, bytes)| event(CONTROL, *command, 1, 7, &[(0, bytes)])).collect();
            events.push(event(OUTPUT, 0, 1, 7, &[(0, &[output; 48])]));
            events
        };
        let info = |label: &[u8]| [&[0, 48, label.len() as u8], label, &[48], &[3; 20]].concat();
        let mut events = vec![event(HELLO, 0, 1, 0, &[(0, &[0xaa; 32])])];
        let (handshake, derived, master) = ([0x10; 48], [0x12; 48], [0x13; 48]);
        events.extend(step(&[(CONTROL_KEY, &handshake), (CONTROL_INFO, &info(b"tls13 c hs traffic"))], 0x11));
        events.extend(step(&[(CONTROL_KEY, &handshake), (CONTROL_INFO, &info(b"tls13 derived"))], 0x12));
        events.extend(step(&[(CONTROL_KEY, &[0; 48]), (CONTROL_SALT, &derived)], 0x13));
        events.extend(step(&[(CONTROL_KEY, &master), (CONTROL_INFO, &info(b"tls13 c ap traffic"))], 0x14));
        assert_eq!(lines(&mut it, &events), ["CLIENT_HANDSHAKE_TRAFFIC_SECRET aa 11", "CLIENT_TRAFFIC_SECRET_0 aa 14"]);
    }

    #[test]
    fn go_says_it_all_and_damage_is_nothing() {
        let mut it = Correlator::default();
        let whole = event(GO, 0, 1, 0, &[(0, b"CLIENT_TRAFFIC_SECRET_0"), (0, &[1; 32]), (0, &[2; 48])]);
        for end in 0..whole.len() {
            assert!(lines(&mut it, &[whole[..end].to_vec()]).is_empty());
        }
        assert_eq!(lines(&mut it, &[whole]), ["CLIENT_TRAFFIC_SECRET_0 01 02"]);
        assert!(lines(&mut it, &[event(GO, 0, 1, 0, &[(0, b"x\ny"), (0, &[1; 32]), (0, &[2; 48])])]).is_empty());
        assert!(lines(&mut it, &[vec![0xff; 400], Vec::new()]).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut it = Correlator::default();
        for thread in 0..100_000 {
            lines(&mut it, &[event(HELLO, 0, thread, 0, &[(0, &[1; 32])])]);
            lines(&mut it, &derivation(thread, (KEY, 1), b"c hs traffic", 2));
        }
        assert!(it.hellos.order.len() <= 4 * MOST && it.open.order.len() <= 4 * MOST && it.open.entries.is_empty());
    }
}
