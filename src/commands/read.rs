//! `kubectl sniff --pcap FILE`: rows from a saved capture.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Failure;
use super::dissection::{Dissection, conclude, stdout};
use super::keylog::KeyLogs;
use super::proto;
use crate::capture::Source;
use crate::capture::file::File;
use crate::dissect::Keys;
use crate::entry::Entry;
use crate::output::status::Status;
use crate::output::{self, Format};
use crate::pipeline::{self, Offline, Sink};

/// Reads `path` (`-` is stdin) to its end.
pub fn run(path: &Path, dissection: &Dissection, status: &mut Status) -> Result<(), Failure> {
    if matches!(dissection.output, Format::Name | Format::Pcapng) {
        return Err(Failure::usage("-o name and -o pcapng are for live pods; a file is printed as rows, JSON or YAML"));
    }
    if dissection.keylog.iter().any(|place| place.in_pod().is_some()) {
        return Err(Failure::usage("--keylog pod:PATH is inside of live pods; a capture is read with --keylog FILE"));
    }
    let descriptors = proto::load(&dissection.proto)?;
    let mut file = File::open(path).map_err(|error| Failure::new(error.to_string()))?;
    let keys = Arc::new(Keys::default());
    KeyLogs::new(&dissection.keylog).load(&keys)?;
    status.reading(file.progress().1);
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut sink = Counted::new(output::sink(dissection.output, stdout(), dissection.look(true)), dissection.count());
    let result = pipeline::run(&mut file, &dissection.options(&keys, descriptors), workers, &mut sink, |file| {
        status.position(file.progress().0);
    });
    status.clear();
    match result {
        Ok(counts) => {
            if let Some(complaint) = file.complaint() {
                status.warning(&complaint);
            }
            Ok(conclude(dissection, None, &counts, status)?)
        }
        Err(Offline::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => match sink.finish() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        },
        Err(error) => Err(Failure::new(error.to_string())),
    }
}

/// Ends the run after so many entries, as a closed pipe would; whoever runs it has it write what it still holds.
pub(super) struct Counted<'a> {
    sink: Box<dyn Sink + 'a>,
    left: Option<u64>,
}

impl<'a> Counted<'a> {
    pub(super) fn new(sink: Box<dyn Sink + 'a>, count: Option<u64>) -> Self {
        Self { sink, left: count }
    }
}

impl Sink for Counted<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let Some(left) = &mut self.left else { return self.sink.entry(entry) };
        if *left > 0 {
            self.sink.entry(entry)?;
            *left -= 1;
        }
        if *left == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn tick(&mut self) -> io::Result<()> {
        self.sink.tick()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.sink.finish()
    }
}
