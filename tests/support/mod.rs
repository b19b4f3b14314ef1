//! What several test topics share.

#[cfg(feature = "cli")]
pub mod cluster;
pub mod flow_script;
#[cfg(feature = "cli")]
pub mod from_node;
pub mod jars;
#[cfg(feature = "cli")]
pub mod run;
#[cfg(feature = "cli")]
pub mod sniff;

use std::io::Write;
use std::path::Path;

use kubectl_sniff::capture::file::File;
use kubectl_sniff::capture::{Batch, Interface, Source, Stored};
use kubectl_sniff::dissect::Options;
use kubectl_sniff::entry::Entry;
use kubectl_sniff::pipeline::{Counts, Sink, run};

/// Frames from memory, Ethernet.
pub struct Frames {
    batch: Option<Batch>,
}

impl Frames {
    /// In the order given, with their capture times in nanoseconds.
    pub fn new(frames: &[(i64, Vec<u8>)]) -> Self {
        let mut batch = Batch { interfaces: vec![Interface::named("test".into(), 1, 0)], ..Batch::default() };
        for (index, (time, data)) in frames.iter().enumerate() {
            let start = batch.bytes.len();
            batch.bytes.extend_from_slice(data);
            batch.frames.push(Stored {
                number: index as u64 + 1,
                id: None,
                time: kubectl_sniff::entry::Timestamp(*time),
                interface: 0,
                len: data.len() as u32,
                start,
                end: batch.bytes.len(),
            });
        }
        Self { batch: Some(batch) }
    }
}

impl Source for Frames {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<bool, kubectl_sniff::capture::Error> {
        match self.batch.take() {
            Some(mine) => *batch = mine,
            None => return Ok(false),
        }
        Ok(true)
    }
}

/// Keeps the entries.
#[derive(Default)]
pub struct Kept(pub Vec<Entry>);

impl Sink for Kept {
    fn entry(&mut self, entry: &Entry) -> std::io::Result<()> {
        self.0.push(entry.clone());
        Ok(())
    }
}

/// Runs a capture file through the engine with full detail.
pub fn dissect_file(path: &Path) -> (Vec<Entry>, Counts) {
    let mut kept = Kept::default();
    let options = Options { detail: true, ..Options::default() };
    let counts = run(&mut File::open(path).unwrap(), &options, 1, &mut kept, |_| {}).unwrap();
    (kept.0, counts)
}

/// Runs frames through the engine.
pub fn dissect_with(frames: &[(i64, Vec<u8>)], options: &Options, workers: usize) -> (Vec<Entry>, Counts) {
    let mut kept = Kept::default();
    let counts = run(&mut Frames::new(frames), options, workers, &mut kept, |_| {}).unwrap();
    (kept.0, counts)
}

/// What a person would see of an entry, for snapshots: the row, then every decoded field.
pub fn show(entries: &[Entry], counts: &Counts) -> String {
    let mut text = Vec::new();
    for entry in entries {
        let latency = entry.latency.map_or_else(|| "-".to_owned(), |latency| format!("{}us", latency / 1000));
        writeln!(
            text,
            "{} {} {} → {} | {} | {} | {}{} | {latency}",
            entry.id,
            entry.protocol,
            entry.src,
            entry.dst,
            entry.operation,
            entry.target,
            entry.status,
            if entry.failed { " (failed)" } else { "" },
        )
        .unwrap();
        if let Some(decrypted) = entry.decrypted {
            writeln!(text, "  decrypted: {decrypted}").unwrap();
        }
        for (name, half) in [("request", &entry.request), ("response", &entry.response)] {
            let Some(half) = half else { continue };
            writeln!(text, "  {name}: {} bytes, packet {}", half.bytes, half.packet).unwrap();
            if !half.detail.is_null() {
                let json = serde_json::to_string_pretty(&half.detail).unwrap();
                for line in json.lines() {
                    writeln!(text, "    {line}").unwrap();
                }
            }
        }
        for warning in &entry.warnings {
            writeln!(text, "  warning: {warning}").unwrap();
        }
    }
    writeln!(
        text,
        "({} packets, {} flows, {} unknown, {} malformed, {} gaps of {} bytes, {} faults)",
        counts.packets,
        counts.flows,
        counts.unknown_flows,
        counts.malformed_flows,
        counts.gaps,
        counts.gap_bytes,
        counts.faults
    )
    .unwrap();
    String::from_utf8(text).unwrap()
}
