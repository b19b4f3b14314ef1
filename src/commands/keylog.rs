//! `--keylog FILE`: TLS key logs, which may still grow. Those in pods are read by `cluster`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::dissect::Keys;

/// The most that is read of a key log at once.
const PIECE: u64 = 16 << 20;

/// Where a key log is.
#[derive(Clone, Debug)]
pub enum Place {
    File(PathBuf),
    /// At that path in each pod that is sniffed.
    Pod(String),
}

impl Place {
    /// `FILE`, or `pod:/PATH`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("pod:") {
            None => Ok(Self::File(text.into())),
            Some(path) if path.starts_with('/') => Ok(Self::Pod(path.to_owned())),
            Some(path) => Err(format!("{path:?} is no absolute path, as in pod:/tmp/keys")),
        }
    }

    pub fn file(&self) -> Option<PathBuf> {
        if let Self::File(path) = self { Some(path.clone()) } else { None }
    }

    pub fn in_pod(&self) -> Option<String> {
        if let Self::Pod(path) = self { Some(path.clone()) } else { None }
    }
}

/// The key logs that were named.
pub struct KeyLogs(Vec<KeyLog>);

/// One file, and how far it was read.
struct KeyLog {
    path: PathBuf,
    read: u64,
}

impl KeyLogs {
    /// Those that are files.
    pub fn new(places: &[Place]) -> Self {
        Self(places.iter().filter_map(Place::file).map(|path| KeyLog { path, read: 0 }).collect())
    }

    /// The files that are not there yet.
    pub fn missing(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|log| log.path.as_path()).filter(|path| !path.exists())
    }

    /// Takes all that the files hold.
    pub fn load(mut self, keys: &Keys) -> Result<(), Failure> {
        for log in &mut self.0 {
            while let lines = log.read(false).map_err(|error| unreadable(&log.path, &error))?
                && !lines.is_empty()
            {
                keys.add(&lines);
            }
        }
        Ok(())
    }

    /// Takes whole lines that were not there before; a file that is not there yet may come. How many secrets were new.
    pub fn poll(&mut self, keys: &Keys) -> Result<usize, Failure> {
        let mut new = 0;
        for log in &mut self.0 {
            match log.read(true) {
                Ok(lines) => new += keys.add(&lines),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&log.path, &error)),
            }
        }
        Ok(new)
    }
}

impl KeyLog {
    /// What came since the last time; `whole`: up to the last line's end.
    fn read(&mut self, whole: bool) -> io::Result<Vec<u8>> {
        let length = std::fs::metadata(&self.path)?.len();
        if length < self.read {
            // Somebody started it anew.
            self.read = 0;
        }
        if length == self.read && length > 0 {
            return Ok(Vec::new());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut lines = Vec::new();
        file.take(PIECE).read_to_end(&mut lines)?;
        if whole || lines.len() as u64 == PIECE {
            let end = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            // A piece without any line is none of a key log.
            if end > 0 || (lines.len() as u64) < PIECE {
                lines.truncate(end);
            }
        }
        self.read += lines.len() as u64;
        Ok(lines)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read the key log {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use std::io::Write;

    use super::*;

    #[test]
    fn a_key_log_is_followed_line_by_line() {
        let line = |byte: &str| format!("CLIENT_RANDOM {} {}\n", byte.repeat(32), byte.repeat(48));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let keys = Keys::default();
        let mut logs = KeyLogs::new(&[Place::File(path.clone())]);
        assert_eq!(logs.poll(&keys).unwrap_or(9), 0);
        let (first, second) = (line("01"), line("02"));
        let (half, rest) = second.split_at(20);
        std::fs::write(&path, format!("{first}{half}")).unwrap();
        assert_eq!(logs.poll(&keys).unwrap_or(9), 1);
        assert_eq!(logs.poll(&keys).unwrap_or(9), 0);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(rest.as_bytes()).unwrap();
        assert_eq!(logs.poll(&keys).unwrap_or(9), 1);
        let third = line("03");
        std::fs::write(&path, &third).unwrap();
        assert_eq!(logs.poll(&keys).unwrap_or(9), 1);
        assert!(KeyLogs::new(&[Place::File(folder.path().join("none"))]).load(&keys).is_err());
        // The last line of a whole file may lack its end.
        std::fs::write(&path, line("04").trim_end()).unwrap();
        let fresh = Keys::default();
        assert!(KeyLogs::new(&[Place::File(path)]).load(&fresh).is_ok());
        assert!(!fresh.is_empty());
    }
}
