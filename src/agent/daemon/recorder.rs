//! The thread that captures: moves frames to the master PCAP, and counts what the kernel drops.

use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Daemon, TICK};
use crate::agent::log;
use crate::agent::state::{Phase, Refilter, now};
use crate::capture::backend::Backend;
use crate::capture::interpreter::Filter;

/// How often the kernel is asked what it dropped, besides when a frame says that it did.
const COUNT: Duration = Duration::from_secs(1);

/// How long the capture goes on after it was told to stop: what was sent before arrives.
const LINGER: Duration = Duration::from_millis(150);

impl Daemon {
    /// Captures until told to stop, and a little longer; then nothing follows.
    pub(super) fn capture(&self, mut capture: Box<dyn Backend>) -> io::Result<()> {
        let result = self.fill(capture.as_mut());
        let mut state = self.lock();
        let why = match (&result, &state.phase) {
            (Err(cause), _) => format!("the capture failed: {cause}"),
            (Ok(()), Phase::Stopping(why) | Phase::Ended(why)) => why.clone(),
            (Ok(()), Phase::Capturing) => String::new(),
        };
        state.phase = Phase::Ended(why);
        self.changed.notify_all();
        result
    }

    /// Moves frames from the backend to the master PCAP.
    fn fill(&self, capture: &mut dyn Backend) -> io::Result<()> {
        let mut asked = Instant::now();
        let mut stopping = None;
        loop {
            let (mut losing, began) = (false, now());
            // Locked with the first frame, if there is one, until the last.
            let mut state = None;
            capture.receive(if stopping.is_some() { LINGER / 4 } else { TICK }, &mut |frame| {
                losing |= frame.losing;
                state.get_or_insert_with(|| self.lock()).store(frame, &self.options.pod);
            })?;
            if state.take().is_some() {
                self.changed.notify_all();
                self.write()?;
            } else {
                self.lock().drained = began;
            }
            self.change_filter(capture);
            if losing || asked.elapsed() >= COUNT || self.lock().recount {
                asked = Instant::now();
                self.count(capture)?;
                if let Some(remark) = capture.remark() {
                    log(format_args!("warning: {remark}"));
                }
            }
            match stopping {
                None if self.lock().phase != Phase::Capturing => stopping = Some(Instant::now()),
                // The last sessions are told the last drops.
                Some(since) if since.elapsed() >= LINGER => return self.count(capture),
                _ => {}
            }
        }
    }

    /// Replaces the capture filter, if that was asked for.
    fn change_filter(&self, capture: &mut dyn Backend) {
        let mut state = self.lock();
        if !matches!(state.refilter, Refilter::Asked(..)) {
            return;
        }
        let Refilter::Asked(program, text) = std::mem::replace(&mut state.refilter, Refilter::Idle) else { return };
        let result = capture.set_filter(&program).map_err(|cause| format!("the kernel refuses the filter: {cause}"));
        if result.is_ok() {
            state.filter = Filter::new(&program);
            state.filter_text = text;
        }
        state.refilter = Refilter::Done(result);
        drop(state);
        self.changed.notify_all();
    }

    /// Asks the kernel what it has dropped.
    fn count(&self, capture: &mut dyn Backend) -> io::Result<()> {
        let dropped = capture.dropped()?;
        let mut state = self.lock();
        state.lose(dropped);
        state.filtered = capture.filtered();
        if std::mem::take(&mut state.recount) {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Writes the segments that are full to disk, if the master PCAP is there. Meanwhile the ring takes what comes, and what
    /// a slow disk makes it drop, the kernel counts.
    pub(super) fn write(&self) -> io::Result<()> {
        let _turn = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(unwritten) = self.lock().master.unwritten() else { return Ok(()) };
            unwritten.write().map_err(|cause| io::Error::new(cause.kind(), format!("the buffer's disk: {cause}")))?;
            self.lock().master.written(unwritten);
        }
    }
}
