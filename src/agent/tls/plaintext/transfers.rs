//! As long as there are connections from before the probes, more is watched than keys take, and it has its price: each call of a
//! library's functions that read and write, and each of the node's system calls that may show which socket is read or written.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
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
    /// What is open when probes have come into files.
    opened: Receiver<HashSet<Ends>>,
    /// Connections that were there before the latest probes, and are.
    before: HashSet<Ends>,
    /// When those probes came; at first the beginning, with none.
    since: Instant,
    are_there: bool,
    looked: Instant,
}

impl Transfers {
    /// Begins.
    ///
    /// # Errors
    /// If the kernel does not let it be done.
    pub(in super::super) fn watch(programs: &mut Ebpf, opened: Receiver<HashSet<Ends>>) -> Result<Self, ProgramError> {
        let program = programs.program_mut("transfers").ok_or(ProgramError::NotLoaded)?;
        let program: &mut RawTracePoint = program.try_into()?;
        let link = program.attach("sys_enter")?;
        let link = program.take_link(link)?;
        Ok(Self { link: Some(link), needed: Arc::new(AtomicBool::new(true)), opened, ..Self::none() })
    }

    /// Nothing, where it cannot be had.
    pub(in super::super) fn none() -> Self {
        let now = Instant::now();
        let (link, needed, opened) = (None, Arc::default(), mpsc::channel().1);
        Self { link, needed, opened, before: HashSet::new(), since: now, are_there: false, looked: now }
    }

    /// True as long as probes are needed that are not for keys.
    pub(in super::super) fn needed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.needed)
    }

    /// Ends what is needed no more. `is_placed`: the connection with these ends is known.
    pub(super) fn settle(&mut self, is_placed: impl Fn(&Ends) -> bool) {
        if !self.needed.load(Relaxed) || self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        if let Some(before) = self.opened.try_iter().last() {
            (self.before, self.since, self.are_there) = (before, self.looked, true);
        }
        let open = socket::open();
        self.before.retain(|ends| open.contains(ends));
        if !self.are_there && self.since.elapsed() < FIRST {
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
