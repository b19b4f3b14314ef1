//! Which files of the target to put probes in: the libraries and programs of its processes, as they come.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::elf::Elf;
use super::libraries::{self, Probe};

/// How long after its start a process is looked at each time: it loads its libraries, or becomes another program.
const YOUNG: Duration = Duration::from_secs(3);

/// How often older ones are looked at: they may load a library later.
const OLD: Duration = Duration::from_secs(5);

/// The most files that are remembered.
const MOST_FILES: usize = 65_536;

/// What the names of libraries start with that derive keys: of OpenSSL, and what GnuTLS derives them with.
const LIBRARIES: [&str; 3] = ["libcrypto", "libgnutls.so", "libnettle.so"];

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

/// Programs with a TLS library inside that run for an instant as well.
const PROGRAMS: [&str; 2] = ["usr/bin/node", "usr/local/bin/node"];

/// A file that probes go into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// A path that reaches it now.
    pub(super) path: PathBuf,
    /// What it is, for people.
    pub(super) name: String,
    /// What goes into it, in the order in which it must be there.
    pub(super) probes: Vec<Probe>,
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Scanner {
    /// Files that were looked at, by device and inode.
    files: HashSet<(u64, u64)>,
    /// Roots whose folders were looked at.
    roots: HashSet<(u64, u64)>,
    /// Processes, since when they are known and when they were looked at.
    processes: HashMap<u32, (Instant, Instant)>,
}

impl Scanner {
    /// Looks at processes that are new or due; tells of files that were not seen before, at once: looking at one takes a while.
    pub(super) fn scan(&mut self, mut tell: impl FnMut(&Found)) {
        let now = Instant::now();
        let own = std::process::id();
        let mut alive = HashSet::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            alive.insert(process);
            let (since, looked) = self.processes.entry(process).or_insert((now, now));
            let is_due = *looked == now || now - *since < YOUNG || now - *looked >= OLD;
            if process != own && is_due {
                *looked = now;
                self.process(&entry.path(), &mut tell);
            }
        }
        self.processes.retain(|process, _| alive.contains(process));
        if self.files.len() > MOST_FILES {
            self.files.clear();
        }
    }

    /// Looks at a process. It may end meanwhile, so nothing that fails is of interest.
    fn process(&mut self, folder: &Path, tell: &mut impl FnMut(&Found)) {
        let root = folder.join("root");
        if fs::metadata(root.join(".")).is_ok_and(|it| self.roots.insert((it.dev(), it.ino()))) {
            for folder in FOLDERS {
                for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
                    if is_library(&entry.file_name().to_string_lossy()) {
                        self.file(&entry.path(), &entry.file_name().to_string_lossy(), tell);
                    }
                }
            }
            for program in PROGRAMS {
                self.file(&root.join(program), &base_name(program), tell);
            }
        }
        let program = folder.join("exe");
        let name = fs::read_link(&program).unwrap_or_default();
        self.file(&program, &base_name(&name.to_string_lossy()), tell);
        let Ok(maps) = fs::read_to_string(folder.join("maps")) else { return };
        // Any other library may have one of these inside, which takes longer to find out.
        let (known, others): (Vec<_>, Vec<_>) = maps.lines().filter_map(mapped).partition(|(_, path)| is_library(path));
        for (range, path) in known.into_iter().chain(others) {
            // What was removed since is there still, for those that have it open: Java's libraries often are.
            let reached = match path.strip_suffix(" (deleted)") {
                Some(_) => folder.join("map_files").join(range),
                None => root.join(path.trim_start_matches('/')),
            };
            self.file(&reached, &base_name(path), tell);
        }
    }

    /// Looks at a file once.
    fn file(&mut self, path: &Path, name: &str, tell: &mut impl FnMut(&Found)) {
        let Ok(file) = File::open(path) else { return };
        let Ok(metadata) = file.metadata() else { return };
        if !metadata.is_file() || !self.files.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        let probes = Elf::read(file).ok().flatten().and_then(|elf| libraries::probes(&elf).ok());
        if let Some(probes) = probes.filter(|probes| !probes.is_empty()) {
            let name = name.chars().filter(char::is_ascii_graphic).take(60).collect();
            tell(&Found { path: path.to_owned(), name, probes });
        }
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

fn is_library(path: &str) -> bool {
    let name = base_name(path);
    LIBRARIES.iter().any(|library| name.starts_with(library))
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
