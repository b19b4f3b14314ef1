//! Which files of the target to put probes in: the libraries and programs of its processes, as they come.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::elf::Elf;
use super::libraries::{self, Probe};
use super::unknown;

/// How long after its start a process is looked at each time: it loads its libraries, or becomes another program.
const YOUNG: Duration = Duration::from_secs(3);

/// How often older ones are looked at: they may load a library later.
const OLD: Duration = Duration::from_secs(5);

/// The most files that are remembered.
const MOST_FILES: usize = 65_536;

/// What the names of libraries start with that have connections, each before the one that derives its keys: those of OpenSSL, and
/// of GnuTLS.
const LIBRARIES: [&str; 4] = ["libssl", "libcrypto", "libgnutls.so", "libnettle.so"];

/// Where libraries are in a root, so that programs that run for an instant find probes in place.
const FOLDERS: [&str; 8] = [
    "lib",
    "lib64",
    "usr/lib",
    "usr/lib64",
    "usr/local/lib",
    "usr/local/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
];

/// What the kernel says behind the path of a file that was removed.
const DELETED: &str = " (deleted)";

/// Programs with a TLS library inside that run for an instant as well.
const PROGRAMS: [&str; 2] = ["usr/bin/node", "usr/local/bin/node"];

/// What a scan tells of.
pub(super) enum Found {
    File(Place),
    /// A program with TLS that no probe understands, and whose: `java (Java's own)`.
    Unknown(String),
}

/// A file that probes go into.
pub(super) struct Place {
    /// Open, since programs remove libraries that they have unpacked once these are loaded (Java's often are).
    pub(super) file: File,
    /// What it is, for people.
    pub(super) name: String,
    /// What goes into it, in the order in which it must be there.
    pub(super) probes: Vec<Probe>,
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Scanner {
    /// Files that were looked at, by device and inode, and the TLS in them that no probe understands.
    files: HashMap<(u64, u64), Option<&'static str>>,
    /// Roots whose folders were looked at.
    roots: HashSet<(u64, u64)>,
    processes: HashMap<u32, Process>,
}

/// What is known of a process.
struct Process {
    /// When it was seen first, and when it was looked at.
    since: Instant,
    looked: Instant,
    /// What it is, if no probe understands its TLS: `java (Java's own)`.
    unknown: Option<String>,
}

impl Scanner {
    /// Looks at processes that are new or due; tells of files that were not seen before, at once: looking at one takes a while. Of
    /// programs it may tell again.
    pub(super) fn scan(&mut self, mut tell: impl FnMut(Found)) {
        let now = Instant::now();
        let own = std::process::id();
        if let Ok(metadata) = fs::metadata(super::OWN) {
            // Whoever execs into the container runs it as well.
            self.files.insert((metadata.dev(), metadata.ino()), None);
        }
        let mut alive = HashSet::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            alive.insert(process);
            let new = || Process { since: now, looked: now, unknown: None };
            let known = self.processes.entry(process).or_insert_with(new);
            let is_due = known.looked == now || now - known.since < YOUNG || now - known.looked >= OLD;
            let since = known.since;
            if process != own && is_due {
                let unknown = self.process(&entry.path(), &mut tell);
                self.processes.insert(process, Process { since, looked: now, unknown });
            }
        }
        self.processes.retain(|process, _| alive.contains(process));
        if self.files.len() > MOST_FILES {
            self.files.clear();
        }
    }

    /// What that process is, if no probe understands its TLS: `java (Java's own)`.
    pub(super) fn unknown(&self, process: u32) -> Option<&str> {
        self.processes.get(&process)?.unknown.as_deref()
    }

    /// Looks at a process; what it is, if no probe understands its TLS. It may end meanwhile, so nothing that fails is of interest.
    fn process(&mut self, folder: &Path, tell: &mut impl FnMut(Found)) -> Option<String> {
        let root = folder.join("root");
        if fs::metadata(root.join(".")).is_ok_and(|it| self.roots.insert((it.dev(), it.ino()))) {
            for folder in FOLDERS {
                let names = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
                let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
                let mut known: Vec<_> = names.filter(|name| library(name).is_some()).collect();
                known.sort_by_key(|name| library(name));
                for name in known {
                    self.file(&root.join(folder).join(&name), &name, tell);
                }
            }
            for program in PROGRAMS {
                self.file(&root.join(program), &base_name(program), tell);
            }
        }
        let program = folder.join("exe");
        let name = fs::read_link(&program).unwrap_or_default().to_string_lossy().into_owned();
        let name = base_name(name.trim_end_matches(DELETED));
        let mut unknown: Vec<_> = self.file(&program, &name, tell).into_iter().collect();
        let maps = fs::read_to_string(folder.join("maps")).unwrap_or_default();
        // Any other library may have one of these inside, which takes longer to find out.
        let mut mapped: Vec<_> = maps.lines().filter_map(mapped).collect();
        mapped.sort_by_key(|(_, path)| library(path).unwrap_or(LIBRARIES.len()));
        for (range, path) in mapped {
            // What was removed since is there still, for those that have it open: Java's libraries often are.
            let reached = match path.strip_suffix(DELETED) {
                Some(_) => folder.join("map_files").join(range),
                None => root.join(path.trim_start_matches('/')),
            };
            unknown.extend(self.file(&reached, &base_name(path), tell));
        }
        unknown.sort_unstable();
        unknown.dedup();
        let program = (!unknown.is_empty()).then(|| format!("{} ({})", shown(&name), unknown.join(", ")))?;
        tell(Found::Unknown(program.clone()));
        Some(program)
    }

    /// Looks at a file once; what TLS is in it that no probe understands.
    fn file(&mut self, path: &Path, name: &str, tell: &mut impl FnMut(Found)) -> Option<&'static str> {
        // Whatever may be there: to open a pipe is to wait for its other end.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        let id = (metadata.dev(), metadata.ino());
        if let Some(unknown) = self.files.get(&id) {
            return *unknown;
        }
        let elf = file.try_clone().and_then(Elf::read).ok().flatten();
        let (probes, unknown) = match elf.as_ref().map(libraries::probes) {
            Some(Ok(probes)) if !probes.is_empty() => (probes, None),
            Some(Err(error)) if error.kind() == ErrorKind::FileTooLarge => (Vec::new(), Some(unknown::TOO_LARGE)),
            _ => (Vec::new(), elf.and_then(|elf| unknown::kind(&elf, name).ok().flatten())),
        };
        self.files.insert(id, unknown);
        if !probes.is_empty() {
            tell(Found::File(Place { file, name: shown(name), probes }));
        }
        unknown
    }
}

/// A line of a process's maps, if code of a file is there: the addresses, and the file.
fn mapped(line: &str) -> Option<(&str, &str)> {
    // Addresses, permissions, offset, device, inode, path.
    let (range, rest) = line.split_once(' ')?;
    let (permissions, rest) = rest.split_once(' ')?;
    let path = rest.find('/').and_then(|at| rest.get(at..))?;
    permissions.contains('x').then_some((range, path))
}

/// Which of the libraries it is.
fn library(path: &str) -> Option<usize> {
    let name = base_name(path);
    LIBRARIES.iter().position(|library| name.starts_with(library))
}

/// What of a name people get to see.
fn shown(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(60).collect()
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
