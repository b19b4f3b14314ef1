//! Sessions that were kept: a folder each, with the packets, the entries and what the session was.
//!
//! They are in `$SNIFF_SESSIONS`, else `$XDG_DATA_HOME/kubectl-sniff/sessions`, else `~/.local/share/kubectl-sniff/sessions`,
//! readable by their owner alone: packets hold what pods keep secret.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::json::Json;
use crate::pipeline::{Counts, Sink};

/// The packets.
const CAPTURE: &str = "capture.pcapng";
/// The entries, one JSON object a line.
const ENTRIES: &str = "entries.jsonl";
/// What the session was.
const ABOUT: &str = "session.json";

/// What a session was.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The name that it is opened by.
    pub name: String,
    /// When it began, as RFC 3339.
    pub started: String,
    /// How long it took, in seconds; none if it was cut off or goes on.
    pub seconds: Option<u64>,
    /// The command's arguments.
    pub arguments: Vec<String>,
    /// Pods that were sniffed.
    pub pods: usize,
    /// What was counted.
    pub packets: u64,
    pub entries: u64,
    pub dropped: u64,
    pub flushed: u64,
    pub gaps: u64,
}

/// A session's folder.
#[derive(Clone, Debug)]
pub struct Kept {
    folder: PathBuf,
    about: About,
}

/// The folder of all sessions.
///
/// # Errors
/// If no environment variable says where it could be.
pub fn folder() -> io::Result<PathBuf> {
    let of = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("SNIFF_SESSIONS")
        .or_else(|| of("XDG_DATA_HOME").map(|data| data.join("kubectl-sniff/sessions")))
        .or_else(|| of("HOME").map(|home| home.join(".local/share/kubectl-sniff/sessions")))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "neither $SNIFF_SESSIONS nor $HOME is set"))
}

/// True for what may be a folder's name.
fn is_name(name: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(is_good)
}

impl Kept {
    /// Makes the folder of a session that begins now; the name is the time unless one is given.
    ///
    /// # Errors
    /// If it cannot be made, or there is a session of that name.
    pub fn create(name: Option<&str>, started: String, arguments: Vec<String>) -> io::Result<Self> {
        let own: String = started.chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect();
        let name = name.map_or_else(|| own.replace('T', "-"), str::to_owned);
        if !is_name(&name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name for a session")));
        }
        let all = folder()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&all)?;
        let folder = all.join(&name);
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(error.kind(), format!("there is a session {name} already")),
            _ => error,
        })?;
        let kept = Self { folder, about: About { name, started, arguments, ..About::default() } };
        kept.describe()?;
        Ok(kept)
    }

    /// The session of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(name: &str) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no session {name:?}"));
        if !is_name(name) {
            return Err(missing());
        }
        Self::read(folder()?.join(name)).ok_or_else(missing)
    }

    fn read(folder: PathBuf) -> Option<Self> {
        let about = serde_json::from_slice(&fs::read(folder.join(ABOUT)).ok()?).ok()?;
        Some(Self { folder, about })
    }

    /// All sessions, oldest first.
    ///
    /// # Errors
    /// If their folder cannot be read; that it is not there means that there are none.
    pub fn all() -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(folder()?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all: Vec<Self> = entries.filter_map(|entry| Self::read(entry.ok()?.path())).collect();
        all.sort_by(|a, b| (&a.about.started, &a.about.name).cmp(&(&b.about.started, &b.about.name)));
        Ok(all)
    }

    /// What it was.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The file of its packets.
    pub fn capture(&self) -> PathBuf {
        self.folder.join(CAPTURE)
    }

    /// A sink that writes its entries.
    ///
    /// # Errors
    /// If their file cannot be made.
    pub fn entries(&self) -> io::Result<impl Sink + use<>> {
        Ok(Json::new(BufWriter::new(File::create(self.folder.join(ENTRIES))?)))
    }

    /// Bytes that it takes on disk.
    pub fn size(&self) -> u64 {
        let size = |name: &str| fs::metadata(self.folder.join(name)).map_or(0, |file| file.len());
        [CAPTURE, ENTRIES, ABOUT].into_iter().map(size).sum()
    }

    /// Notes how it ended.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn end(&mut self, seconds: u64, pods: usize, counts: &Counts) -> io::Result<()> {
        self.about.seconds = Some(seconds);
        self.about.pods = pods;
        self.about.packets = counts.packets;
        self.about.entries = counts.entries;
        self.about.dropped = counts.dropped;
        self.about.flushed = counts.flushed;
        self.about.gaps = counts.gaps;
        self.describe()
    }

    fn describe(&self) -> io::Result<()> {
        let mut file = File::create(self.folder.join(ABOUT))?;
        serde_json::to_writer_pretty(&mut file, &self.about)?;
        file.write_all(b"\n")
    }

    /// Deletes it and all that it holds.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn delete(self) -> io::Result<()> {
        for file in [CAPTURE, ENTRIES, ABOUT] {
            remove(&self.folder.join(file))?;
        }
        fs::remove_dir(&self.folder)
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Hands each entry to two sinks.
pub struct Both<'a>(pub Box<dyn Sink + 'a>, pub Box<dyn Sink + 'a>);

impl Sink for Both<'_> {
    fn entry(&mut self, entry: &crate::entry::Entry) -> io::Result<()> {
        // What is kept is whole, even if who reads the other goes.
        self.0.entry(entry)?;
        self.1.entry(entry)
    }

    fn tick(&mut self) -> io::Result<()> {
        self.0.tick()?;
        self.1.tick()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.finish()?;
        self.1.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_folder() {
        assert!(["20261126-021500", "friday", "a.b_c-d"].iter().all(|name| is_name(name)));
        assert!(!["", "..", ".x", "a/b", "a b", "é"].iter().any(|name| is_name(name)));
    }
}
