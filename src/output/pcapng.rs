//! Live packets → pcapng, for Wireshark, tshark and `--pcap FILE` later: interfaces are named after their pods, addresses
//! after what they belong to, and frames are numbered as in the rows.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::net::IpAddr;

use crate::capture::{Batch, Note, pcapng};
use crate::entry::{Name, Timestamp};

/// The most that is collected before it is written, in bytes.
const PIECE: usize = 256 << 10;

/// Writes the packets of several pods into one section.
pub struct Pcapng<W> {
    out: W,
    text: Vec<u8>,
    interfaces: Vec<Interface>,
    /// For each pod, the interfaces of its present agent; those that are left out have none.
    taps: HashMap<u32, Vec<Option<u32>>>,
    /// Plaintext of TLS connections is left out.
    is_closed: bool,
    named: HashSet<IpAddr>,
    packets: u64,
    start: Timestamp,
}

/// What is known of an interface.
#[derive(Default)]
struct Interface {
    received: u64,
    dropped: u64,
}

impl<W: Write> Pcapng<W> {
    /// Starts the section; `now` is the time of day.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(out: W, now: Timestamp) -> io::Result<Self> {
        let mut text = Vec::with_capacity(PIECE);
        pcapng::section(&mut text, concat!("kubectl-sniff ", env!("CARGO_PKG_VERSION")));
        let mut this = Self {
            out,
            text,
            interfaces: Vec::new(),
            taps: HashMap::new(),
            is_closed: false,
            named: HashSet::new(),
            packets: 0,
            start: now,
        };
        this.flush()?;
        Ok(this)
    }

    /// Leaves out the plaintext of TLS connections, which who reads the file would have without a key.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Appends what an agent sent from the pod that has number `tap`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn batch(&mut self, tap: u32, batch: &Batch) -> io::Result<()> {
        let mine = self.taps.entry(tap).or_default();
        for interface in &batch.interfaces {
            if self.is_closed && interface.origin.is_some() {
                mine.push(None);
                continue;
            }
            mine.push(Some(self.interfaces.len() as u32));
            self.interfaces.push(Interface::default());
            let Ok(link) = u16::try_from(interface.link) else { continue };
            let (name, origin, snaplen) = (interface.name.as_str(), interface.origin.as_deref(), interface.snaplen);
            pcapng::interface(&mut self.text, &pcapng::Interface { name, origin, link, snaplen, filter: None });
        }
        for note in &batch.notes {
            let Note::Statistics { interface, received, dropped } = note else { continue };
            let index = mine.get(*interface as usize).copied().flatten();
            if let Some(known) = index.and_then(|index| self.interfaces.get_mut(index as usize)) {
                known.received = received.unwrap_or(known.received);
                known.dropped = dropped.unwrap_or(known.dropped);
            }
        }
        for frame in batch.frames() {
            // An agent describes an interface before its first packet; what broke that rule would break the file.
            let Some(interface) = mine.get(frame.interface as usize).copied().flatten() else { continue };
            self.packets += 1;
            let time = u64::try_from(frame.time.0).unwrap_or_default();
            let data = &[frame.data];
            pcapng::packet(
                &mut self.text,
                &pcapng::Packet { interface, time, len: frame.len, data, ..pcapng::Packet::default() },
            );
            if self.text.len() >= PIECE {
                self.out.write_all(&self.text)?;
                self.text.clear();
            }
        }
        Ok(())
    }

    /// Another agent streams from the pod: it describes its interfaces anew.
    pub fn restarted(&mut self, tap: u32) {
        self.taps.remove(&tap);
    }

    /// Names an address, once.
    pub fn name(&mut self, address: IpAddr, name: &Name) {
        if self.named.insert(address) {
            pcapng::names(&mut self.text, [(address, name.host().as_str())]);
        }
    }

    /// Appends TLS key log lines, so that readers of the file can decrypt what follows.
    pub fn secrets(&mut self, key_log: &[u8]) {
        pcapng::secrets(&mut self.text, key_log);
    }

    /// Packets written so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Writes what was collected.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.text)?;
        self.text.clear();
        self.out.flush()
    }

    /// Appends the counters of all interfaces, and writes everything.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(&mut self, now: Timestamp) -> io::Result<()> {
        let time = |at: Timestamp| u64::try_from(at.0).unwrap_or_default();
        for (index, Interface { received, dropped }) in self.interfaces.iter().enumerate() {
            pcapng::statistics(
                &mut self.text,
                &pcapng::Statistics {
                    interface: index as u32,
                    time: time(now),
                    start: time(self.start),
                    received: *received,
                    dropped: *dropped,
                },
            );
        }
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;
    use crate::capture::decoder::Decoder;
    use crate::capture::{Interface, Stored};

    fn stored(interface: u32, start: usize, end: usize) -> Stored {
        Stored { number: 1, id: Some(70), time: Timestamp(5), interface, len: 60, start, end }
    }

    #[test]
    fn what_agents_sent_is_one_capture() {
        let named = |name: &str| Interface::named(name.to_owned(), 1, 96);
        let lost = Note::Statistics { interface: 0, received: Some(9), dropped: Some(2) };
        let mut file = Vec::new();
        let mut pcapng = Pcapng::new(&mut file, Timestamp(1)).unwrap();
        let first = Batch {
            bytes: b"abc".to_vec(),
            frames: vec![stored(0, 0, 3)],
            notes: vec![lost],
            interfaces: vec![named("shop/a:eth0")],
        };
        pcapng.batch(7, &first).unwrap();
        pcapng.batch(4, &Batch { interfaces: vec![named("shop/b:eth0")], ..Batch::default() }).unwrap();
        pcapng.restarted(7);
        let second = Batch { interfaces: vec![named("shop/a:eth0")], notes: Vec::new(), ..first };
        pcapng.batch(7, &second).unwrap();
        let carts =
            Name { kind: "service", namespace: "shop".into(), name: "carts".into(), workload: None, node: None };
        for _ in 0..2 {
            pcapng.name([10, 0, 0, 1].into(), &carts);
        }
        pcapng.secrets(b"CLIENT_RANDOM 00 11\n");
        assert_eq!(pcapng.packets(), 2);
        pcapng.finish(Timestamp(9)).unwrap();

        let mut batch = Batch { bytes: file, ..Batch::default() };
        let used = Decoder::new("x").decode(&mut batch, 0).unwrap();
        assert_eq!(used, batch.bytes.len());
        let pods: Vec<_> = batch.interfaces.iter().map(|interface| interface.pod.as_deref().unwrap()).collect();
        assert_eq!(pods, ["shop/a", "shop/b", "shop/a"]);
        let frames: Vec<_> =
            batch.frames().map(|frame| (frame.number, frame.interface, frame.len, frame.data)).collect();
        assert_eq!(frames, [(1, 0, 60, &b"abc"[..]), (2, 2, 60, &b"abc"[..])]);
        let counted = |interface, received, dropped| Note::Statistics {
            interface,
            received: Some(received),
            dropped: Some(dropped),
        };
        assert_eq!(
            batch.notes,
            [
                Note::Name([10, 0, 0, 1].into(), "carts.shop.svc".into()),
                Note::Secrets(b"CLIENT_RANDOM 00 11\n".to_vec()),
                counted(0, 9, 2),
                counted(1, 0, 0),
                counted(2, 0, 0)
            ]
        );
        assert_eq!(Name::from_host(&carts.host()), Some(carts));
    }
}
