//! Capture from within a pod: streams from the agent in it, and puts another one there if that one dies.

use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::Stop;
use super::error::Error;
use super::event::{Event, send};
use super::flags::Mode;
use super::inject::{Found, Injector, Sight};
use super::ledger::{Ledger, Start};
use super::stream::{Over, Stream};

/// What one pod's task needs.
pub(super) struct Task {
    pub(super) injector: Arc<Injector>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) events: Sender<Event>,
    pub(super) stop: Stop,
    pub(super) tap: u32,
    pub(super) pod: String,
    /// Why the pod has left, once it is seen to be gone.
    pub(super) why: watch::Receiver<&'static str>,
}

impl Task {
    /// Sniffs the pod until it is over for one reason or another, and tells the reason.
    pub(super) async fn sniff(mut self, sight: Sight) {
        let (tap, pod) = (self.tap, self.pod.clone());
        let last = match self.agents(sight).await {
            Over::Stopped | Over::Read => return,
            Over::Left(reason) if reason.is_empty() => {
                Event::Left { tap, pod, reason: (*self.why.borrow()).to_owned() }
            }
            Over::Left(reason) => Event::Left { tap, pod, reason },
            Over::Died(error) | Over::Denied(error) => Event::Failed { tap, pod, error },
            Over::Absent => Event::Skipped { pod, reason: "no agent records in it".to_owned() },
            Over::Armed(agent) => Event::Armed { tap, pod, container: agent.container, reused: agent.reused },
        };
        tokio::select! {
            () = self.stop.wait() => {}
            _ = self.events.send(last) => {}
        }
    }

    /// One agent after the other; the first is the last unless it is killed.
    async fn agents(&mut self, mut sight: Sight) -> Over {
        let mut stream = None;
        loop {
            let agent = tokio::select! {
                () = self.stop.wait() => return Over::Stopped,
                agent = inject(&self.injector, &self.permits, &mut sight) => agent,
            };
            let agent = match agent {
                Ok(Found::Agent(agent)) => agent,
                Ok(Found::Gone) => return Over::Left(String::new()),
                Ok(Found::Nothing) => return Over::Absent,
                Err(error) => return Over::Denied(error),
            };
            let options = &self.injector.options;
            if let Mode::Arm(time) = options.mode {
                return match self.injector.arm(&sight, &agent, time).await {
                    Ok(()) => Over::Armed(agent),
                    Err(error) => Over::Denied(error),
                };
            }
            if let Some(lacks) = &agent.lacks {
                let note = Event::Note(format!("{}: {lacks}", self.pod));
                if !send(&self.events, note).await {
                    return Over::Stopped;
                }
            }
            let stream = stream.get_or_insert_with(|| Stream {
                injector: &self.injector,
                tap: self.tap,
                sight: sight.clone(),
                events: &self.events,
                stop: self.stop.clone(),
                ledger: Ledger::new(match (agent.reused, options.since) {
                    (true, Some(since)) => Start::Since(since.as_secs()),
                    (true, None) if options.looks_back() => Start::Oldest,
                    (true, None) => Start::Now,
                    // What a new agent has captured until it is connected to is wanted too.
                    (false, _) => Start::All,
                }),
                deaths: 0,
            });
            let since = Instant::now();
            let error = match stream.run(&agent).await {
                // What it had recorded is gone with it.
                Over::Died(_) if options.looks_back() => return Over::Absent,
                Over::Died(error) => error,
                over => return over,
            };
            if let Some(over) = stream.bury(error, since).await {
                return over;
            }
        }
    }
}

async fn inject(injector: &Injector, permits: &Semaphore, sight: &mut Sight) -> Result<Found, Error> {
    let _permit = permits.acquire().await;
    injector.agent(sight).await
}
