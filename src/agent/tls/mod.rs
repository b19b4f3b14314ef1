//! TLS keys of the target's processes, by uprobes (`run --tls`).
//!
//! Programs in the kernel (probes/) copy what TLS libraries derive keys from; [`derive`] makes key log lines of it, which
//! sessions get as decryption secrets between the packets. So whoever reads the packets decrypts them, and nothing of a
//! connection's plaintext passes here.
//!
//! Understood are OpenSSL 3 and 1.1, BoringSSL, each as a library or inside a program or another library that has their symbols
//! (Node), GnuTLS as a library, and Go since 1.18, with symbols or without. Not understood: NSS, rustls, Java's own TLS, and the
//! others inside a program without symbols; sessions are told of programs that have these ([`unknown`]), and of their sockets ([`owners`]).
//!
//! Processes are found in /proc, which is the target's: the container shares its PID namespace. The kernel removes the probes when
//! the descriptors that hold them are closed, so with the agent, however it ends.

mod derive;
mod elf;
mod golang;
mod libraries;
mod owners;
mod plaintext;
mod scan;
mod socket;
mod unknown;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{
    Program, ProgramError, UProbe, uprobe::UProbeAttachLocation, uprobe::UProbeLink, uprobe::UProbeScope,
};
use aya::{Ebpf, EbpfLoader};

use super::daemon::Daemon;
use super::keys::Survey;
use super::state::Phase;
use super::{Error, log, process};
use derive::Correlator;
use elf::Elf;
use owners::Owners;
use plaintext::{Plaintext, Transfers};
use scan::{Found, Place, Scanner};
use socket::Ends;

/// The programs, as clang has compiled them.
static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));

/// The agent's own program.
const OWN: &str = "/proc/self/exe";

/// Inode of the node's own PID namespace.
const NODES_OWN: u64 = 0xefff_fffc;

/// How often processes are looked for.
const SCAN: Duration = Duration::from_millis(200);

/// The most programs, and files, that are told of.
const MOST_TOLD: usize = 16;

/// Probes in place, and what comes of them.
pub(super) struct Tls {
    prober: Prober,
    events: RingBuf<MapData>,
    lost: Array<MapData, u64>,
    correlator: Correlator,
    plaintext: Plaintext,
    transfers: Transfers,
}

/// What puts programs into files.
struct Prober {
    programs: Ebpf,
    scanner: Scanner,
    owners: Owners,
    survey: Survey,
    /// False once no probe is needed but those for keys.
    needed: Arc<AtomicBool>,
    /// Gets the connections that are open when probes have come into files.
    opened: Sender<HashSet<Ends>>,
    /// Those others.
    passing: Vec<UProbeLink>,
}

impl Tls {
    /// Loads the programs, and sees whether they may be put into files.
    ///
    /// # Errors
    /// If the kernel has no such programs, or does not let this process load them.
    pub(super) fn start() -> Result<Self, Error> {
        let namespace = fs::metadata("/proc/self/ns/pid")
            .map_err(|cause| Error::new(format!("cannot find the target's PID namespace: {cause}")))?;
        if namespace.ino() == NODES_OWN {
            return Err(Error::new(
                "cannot read TLS keys here: the PID namespace is the node's own, so they would be everybody's",
            )
            .hint("sniff the pod without --tls, and give the keys that you have with --keylog"));
        }
        // Kernels before 5.11 count programs and maps as locked memory.
        process::lock_memory();
        let mut programs = EbpfLoader::new()
            .override_global("namespace_device", &namespace.dev(), true)
            .override_global("namespace_inode", &namespace.ino(), true)
            .load(PROGRAMS)
            .map_err(|error| refused(&innermost(&error)))?;
        let mut missing = None;
        for (name, program) in programs.programs_mut() {
            let loaded = match program {
                Program::UProbe(program) => program.load(),
                Program::RawTracePoint(program) => program.load(),
                _ => Err(ProgramError::UnexpectedProgramType),
            };
            match loaded {
                // Keys are worth having without.
                Err(error) if plaintext::PROGRAMS.contains(&name) => missing = Some(error),
                loaded => loaded.map_err(|error| refused(&cause(&error)))?,
            }
        }
        let events = programs.take_map("events").and_then(|map| RingBuf::try_from(map).ok());
        let lost = programs.take_map("lost").and_then(|map| Array::try_from(map).ok());
        let plaintext = Plaintext::new(&mut programs);
        let (Some(events), Some(lost), Some(plaintext)) = (events, lost, plaintext) else {
            return Err(Error::new("the probes have no maps"));
        };
        try_out(&mut programs).map_err(|error| refused(&cause(&error)))?;
        let (opened, when) = mpsc::channel();
        let transfers = missing.map_or_else(|| Transfers::watch(&mut programs, when), Err);
        let transfers = transfers.inspect_err(|error| {
            log(format_args!("warning: connections that are open already stay closed: {}", cause(error)));
        });
        let transfers = transfers.unwrap_or_else(|_| Transfers::none());
        let needed = transfers.needed();
        let (scanner, owners, survey) = (Scanner::default(), Owners::new(), Survey::default());
        let prober = Prober { programs, scanner, owners, survey, needed, opened, passing: Vec::new() };
        Ok(Self { prober, events, lost, correlator: Correlator::default(), plaintext, transfers })
    }

    /// Takes over keys until the agent ends.
    pub(super) fn run(mut self, daemon: &'static Daemon) {
        // Apart from the keys: they are to be there before the packets that need them.
        std::thread::spawn(move || self.prober.run(daemon));
        let (plaintext, transfers) = (self.plaintext, self.transfers);
        std::thread::spawn(move || {
            process::be_nice(process::CAPTURE);
            plaintext.run(daemon, transfers);
        });
        let mut lines = Vec::new();
        loop {
            process::wait_for_input(self.events.as_fd(), SCAN);
            while let Some(event) = self.events.next() {
                self.correlator.event(&event, &mut lines);
            }
            let lost = self.lost.get(&0, 0).unwrap_or_default();
            if let Phase::Ended(_) = daemon.learn(&lines, lost, self.correlator.unmatched) {
                return;
            }
            lines.clear();
        }
    }
}

impl Prober {
    /// Follows processes as they come, as long as the agent lives.
    fn run(mut self, daemon: &Daemon) {
        let Self { programs, scanner, owners, survey, needed, opened, passing } = &mut self;
        loop {
            if !needed.load(Relaxed) {
                passing.clear();
            }
            let files = survey.files;
            scanner.scan(|found| match found {
                Found::File(place) => match attach(programs, &place, needed.load(Relaxed).then_some(&mut *passing)) {
                    Ok(()) => {
                        survey.files += 1;
                        log(format_args!("tls: probes in {}", place.name));
                    }
                    Err(error) => {
                        let refusal = format!("{}: {}", place.name, cause(&error));
                        if add(&mut survey.refused, &refusal) {
                            log(format_args!("warning: no probe in {refusal}"));
                        }
                    }
                },
                Found::Unknown(program) => {
                    if add(&mut survey.unknown, &program) {
                        log(format_args!("warning: no probe knows the TLS of {program}"));
                    }
                }
            });
            if survey.files > files && needed.load(Relaxed) {
                // At once: a connection of later is a new one.
                let _ = opened.send(socket::open());
            }
            // Told once all files are probed that were there. Sessions wait for that, so until then it is not nice.
            if !std::mem::replace(&mut survey.scanned, true) {
                process::be_nice(process::CAPTURE);
            }
            if daemon.has_sessions() {
                owners.look(|process| scanner.unknown(process), survey);
            }
            daemon.survey(survey);
            std::thread::sleep(SCAN);
        }
    }
}

/// Adds what is new, as long as there are few; true if it did.
fn add(list: &mut Vec<String>, new: &str) -> bool {
    let adds = list.len() < MOST_TOLD && !list.iter().any(|known| known == new);
    if adds {
        list.push(new.to_owned());
    }
    adds
}

/// Sees whether the kernel lets it be done at all, with a place of the agent's own that is not run again.
fn try_out(programs: &mut Ebpf) -> Result<(), ProgramError> {
    let elf = File::open(OWN).and_then(Elf::read).ok().flatten();
    let (Some(entry), Some(program)) = (elf.and_then(|elf| elf.entry()), programs.program_mut("go")) else {
        return Ok(());
    };
    let program: &mut UProbe = program.try_into()?;
    let link = program.attach(UProbeAttachLocation::AbsoluteOffset(entry), OWN, UProbeScope::AllProcesses)?;
    program.detach(link)
}

/// Puts probes into a file, in the order in which they must be there. Those that are not for keys go to `passing`, if they are wanted.
fn attach(programs: &mut Ebpf, found: &Place, mut passing: Option<&mut Vec<UProbeLink>>) -> Result<(), ProgramError> {
    let mut refused = Ok(());
    // By its descriptor, as its name may be gone, and the process that has it.
    let path = format!("/proc/self/fd/{}", found.file.as_raw_fd());
    for (name, offset) in &found.probes {
        let is_for_keys = !plaintext::PROGRAMS.contains(name);
        let Some(program) = programs.program_mut(name).filter(|_| is_for_keys || passing.is_some()) else { continue };
        let program: &mut UProbe = program.try_into()?;
        let place = UProbeAttachLocation::AbsoluteOffset(*offset);
        let link = match program.attach(place, &path, UProbeScope::AllProcesses) {
            // Keys are worth having without.
            Err(error) if !is_for_keys => {
                refused = Err(error);
                continue;
            }
            link => link?,
        };
        if let Some(passing) = passing.as_mut().filter(|_| !is_for_keys) {
            passing.push(program.take_link(link)?);
        }
    }
    refused
}

/// What a refusal is about. The verifier's log is left out: it is long, and of no use to the user.
fn cause(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, .. } => format!("the kernel does not take the probes: {io_error}"),
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        error => innermost(error),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

fn refused(cause: &str) -> Error {
    let error = Error::new(format!("cannot read TLS keys: {cause}"));
    if cause.contains("os error 1)") || cause.contains("os error 13)") {
        return error.hint(if process::may_administrate() {
            "seccomp, SELinux, AppArmor or lockdown refuses bpf or perf_event_open here; --keylog FILE works without"
        } else {
            "uprobes need the capabilities SYS_ADMIN and SYS_PTRACE; --keylog FILE works without"
        });
    }
    error.hint("uprobes need Linux 5.8 or later with BPF and UPROBE_EVENTS; --keylog FILE works without")
}
