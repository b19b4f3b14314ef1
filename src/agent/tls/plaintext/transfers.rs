//! As long as there are connections from before the probes, more is watched than keys take, and it has its price: each call of a
//! library's functions that read and write, and each of the node's system calls that may show which socket is read or written.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{ProgramError, RawTracePoint};

use super::super::socket::{self, Ends};

/// How often it is looked whether it is needed.
const LOOK: Duration = Duration::from_secs(2);

/// How long after the latest probes connections may show that a library has them: most others are of none.
const PATIENCE: Duration = Duration::from_mins(10);

/// How long to wait for files with probes: the target may load none.
const FIRST: Duration = Duration::from_secs(30);

/// What sees system calls, until it is not needed any more.
pub(in super::super) struct Transfers {
    link: Option<RawTracePointLink>,
    /// False once probes that are not for keys can go.
    needed: Arc<AtomicBool>,
    /// Connections that were there before the latest probes, and are.
    before: HashSet<Ends>,
    /// In how many files those are, and since when.
    files: u64,
    since: Instant,
    looked: Instant,
}

impl Transfers {
    /// Begins.
    ///
    /// # Errors
    /// If the kernel does not let it be done.
    pub(in super::super) fn watch(programs: &mut Ebpf) -> Result<Self, ProgramError> {
        let program = programs.program_mut("transfers").ok_or(ProgramError::NotLoaded)?;
        let program: &mut RawTracePoint = program.try_into()?;
        let link = program.attach("sys_enter")?;
        let link = program.take_link(link)?;
        Ok(Self { link: Some(link), needed: Arc::new(AtomicBool::new(true)), ..Self::none() })
    }

    /// Nothing, where it cannot be had.
    pub(in super::super) fn none() -> Self {
        let now = Instant::now();
        Self { link: None, needed: Arc::default(), before: HashSet::new(), files: 0, since: now, looked: now }
    }

    /// True as long as probes are needed that are not for keys.
    pub(in super::super) fn needed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.needed)
    }

    /// Ends what is needed no more. `is_placed`: the connection with these ends is known.
    pub(super) fn settle(&mut self, files: u64, is_placed: impl Fn(&Ends) -> bool) {
        if !self.needed.load(Relaxed) || self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let open = socket::open();
        if std::mem::replace(&mut self.files, files) == files {
            self.before.retain(|ends| open.contains(ends));
        } else {
            self.before = open;
            self.since = self.looked;
        }
        if files == 0 && self.since.elapsed() < FIRST {
            return;
        }
        let placed = self.before.iter().filter(|ends| is_placed(ends)).count();
        let may_come = placed < self.before.len() && self.since.elapsed() < PATIENCE;
        if !may_come {
            self.link = None;
        }
        self.needed.store(may_come || placed > 0, Relaxed);
    }
}
