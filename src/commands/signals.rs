//! Signals that ask a live session to end.

use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::output::status::Status;

/// Exit code of a run that was interrupted before it could end cleanly.
const INTERRUPTED: i32 = 130;

/// Asks for the end when it is time or at a signal; at another signal, ends here and now. Beside everything else, as rows may wait
/// for long to be read.
pub async fn end_in_time(stop: watch::Sender<bool>, mut signals: Signals, duration: Duration) {
    tokio::select! {
        () = signals.any() => {}
        () = sleep(duration) => {}
    }
    stop.send_replace(true);
    signals.any().await;
    if io::stderr().is_terminal() {
        // What is drawn there has no end of line.
        Status::default().line("");
    }
    std::process::exit(INTERRUPTED);
}

/// What asks a program to end.
pub struct Signals([Signal; 3]);

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
