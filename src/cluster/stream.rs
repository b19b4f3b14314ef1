//! The stream of an agent: `pods/exec`, heartbeats, batches, and a new connection wherever one is cut.
//!
//! Exec is known to cut output short and still report success, so a stream is whole only when the agent says that it
//! ended. Any other end is a disconnect. Whether the pod is still there, the watch knows, not the stream.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::AttachParams;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::Stop;
use super::container::{self, PROGRAM};
use super::error::{Error, Request, is_rbac};
use super::event::{Event, send};
use super::flags::Mode;
use super::inject::{Agent, Injector, Sight, cannot_exec};
use super::ledger::{Ledger, Start};
use super::startup::ended;
use super::watch::Pauses;
use crate::capture::Batch;
use crate::capture::decoder::Decoder;

/// How often a byte goes to the agent, which gives up after [`AGENT_PATIENCE`].
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long the agent may hear nothing, in seconds.
const AGENT_PATIENCE: u32 = 15;

/// How long the stream may be silent: the agent sends its counters each second.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How long what was sent last may take to arrive, once the pod is gone.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long what was received may take to be read, once the connection is over.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// How long the process in the pod may take to say its last words and leave, once its stdin is closed.
const FAREWELL: Duration = Duration::from_millis(700);

/// How much stdout the connection may hold.
const PIPE: usize = 1 << 20;

/// The most bytes of a batch, unless it is one record; more are left in the connection.
const MOST_BATCH: usize = 1 << 20;

/// How much is read at a time.
const READ: usize = 64 << 10;

/// How much of stderr is kept, from its end.
const MOST_STDERR: usize = 1 << 10;

/// How long a connection may be cut before it is told: nothing is lost by it, and a node takes a second or two to say
/// that the agent is gone.
const QUIET: Duration = Duration::from_secs(2);

/// Agents that may die one after the other in a place, each soon after its start, before it is given up: in a pod, each leaves
/// an entry that cannot be removed.
const MOST_DEATHS: u32 = 3;

/// How long an agent must have been there for its end not to count as a failed start.
const SETTLED: Duration = Duration::from_secs(30);

/// Why an agent ends that somebody has ended.
pub(super) const ASKED_TO_STOP: &str = "its agent was asked to stop";

/// One pod's stream.
pub(super) struct Stream<'a> {
    pub(super) injector: &'a Injector,
    pub(super) tap: u32,
    pub(super) sight: Sight,
    pub(super) events: &'a Sender<Event>,
    pub(super) stop: Stop,
    pub(super) ledger: Ledger,
    /// Agents that died one after the other.
    pub(super) deaths: u32,
}

/// Why a stream is over.
#[derive(Debug)]
pub(super) enum Over {
    /// The user wants no more.
    Stopped,
    /// The pod is no longer to be sniffed.
    Left(String),
    /// The agent is gone, the pod is not.
    Died(Error),
    /// It cannot be had.
    Denied(Error),
    /// All that was asked for has come.
    Read,
    /// No agent is there that has recorded anything.
    Absent,
    /// It records, which is all that was wanted.
    Armed(Agent),
}

/// How a connection ended.
enum Cut {
    Stopped,
    /// By the agent, on purpose.
    Ended(String),
    /// By the agent, which has sent all that was asked for.
    Complete,
    Broken(String),
    /// It was silent for longer than [`PATIENCE`].
    Silent,
    Denied(Error),
}

impl Stream<'_> {
    /// Hands on what the agent sends, over as many connections as it takes.
    pub(super) async fn run(&mut self, agent: &Agent) -> Over {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut link = Link { agent, announced: false, failures: 0, cut_since: None, told: false };
        loop {
            let Some(pod) = self.sight.borrow_and_update().clone() else { return Over::Left(String::new()) };
            let before = link.failures;
            let cut = self.connect(&pod, &mut link).await;
            let was_silent = matches!(cut, Cut::Silent);
            let reason = match cut {
                Cut::Stopped => return Over::Stopped,
                Cut::Complete => return Over::Read,
                Cut::Denied(error) => return Over::Denied(error),
                Cut::Ended(why) if why == "asked to stop" => {
                    return Over::Left(ASKED_TO_STOP.to_owned());
                }
                Cut::Ended(why) => format!("the agent ended: {why}"),
                Cut::Broken(reason) => reason,
                Cut::Silent => format!("no sign of life for {} s", PATIENCE.as_secs()),
            };
            if link.failures == 0 && before > 0 {
                pauses.start_again();
            }
            if let Some(over) = self.over(&agent.container) {
                return over;
            }
            link.failures += 1;
            let cut_since = *link.cut_since.get_or_insert_with(Instant::now);
            if (was_silent || cut_since.elapsed() >= QUIET) && !link.told {
                link.told = true;
                if !send(self.events, Event::Disconnected { tap: self.tap, reason }).await {
                    return Over::Stopped;
                }
            }
            let pause = pauses.pause();
            tokio::select! {
                () = self.stop.wait() => return Over::Stopped,
                () = sleep(pause) => {}
                // Whatever happened to the pod may be the reason.
                _ = self.sight.changed() => {}
            }
            if let Some(over) = self.over(&agent.container) {
                return over;
            }
        }
    }

    /// Takes leave of an agent that was there since `since`; none if another is to take its place.
    pub(super) async fn bury(&mut self, error: Error, since: Instant) -> Option<Over> {
        self.deaths = if since.elapsed() < SETTLED { self.deaths + 1 } else { 1 };
        if self.deaths >= MOST_DEATHS {
            return Some(Over::Died(error));
        }
        self.ledger.replaced();
        let is_heard = send(self.events, Event::Interrupted { tap: self.tap, error }).await;
        (!is_heard).then_some(Over::Stopped)
    }

    /// What the watch says about the end of a connection; none if it is to be tried again.
    fn over(&self, container: &str) -> Option<Over> {
        let Some(pod) = self.sight.borrow().clone() else { return Some(Over::Left(String::new())) };
        let terminated = || container::state(&pod, container)?.terminated.as_ref();
        if container::is_capture_pod(&pod)
            && let Some(terminated) = terminated()
        {
            return Some(Over::Died(ended(terminated)));
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            return Some(Over::Left("finished".to_owned()));
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return Some(Over::Left("deleted".to_owned()));
        }
        terminated().map(|terminated| Over::Died(ended(terminated)))
    }

    async fn connect(&mut self, pod: &Arc<Pod>, link: &mut Link<'_>) -> Cut {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let mut command = vec![PROGRAM.to_owned(), "stream".to_owned(), format!("--heartbeat={AGENT_PATIENCE}")];
        match self.ledger.connect() {
            Start::All | Start::Oldest => {}
            Start::Now => command.push("--now".to_owned()),
            Start::Since(seconds) => command.push(format!("--since={seconds}")),
            Start::From(number, boot) => command.extend([format!("--from={number}"), format!("--boot={boot}")]),
        }
        let options = &self.injector.options;
        if let Mode::LookBack(until) = options.mode {
            command.push(format!("--until={}", until.as_secs()));
        }
        if link.agent.narrows {
            if let Some(filter) = &link.agent.filter {
                command.push(format!("--filter={}", filter.program));
                command.push(format!("--filter-text={}", filter.text));
            }
            if options.snaplen > 0 {
                command.push(format!("--snaplen={}", options.snaplen));
            }
        }
        if options.compress {
            command.push("--compress=lz4".to_owned());
        }
        command.push(format!("--reader={}", self.injector.reader));
        let parameters = AttachParams {
            container: Some(link.agent.container.clone()),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
            max_stdout_buf_size: Some(PIPE),
            ..AttachParams::default()
        };
        let api = self.injector.pods(&namespace);
        let exec = timeout(CONNECT, api.exec(&name, command, &parameters));
        let answer = tokio::select! {
            () = self.stop.wait() => return Cut::Stopped,
            answer = exec => answer,
        };
        match answer {
            Ok(Ok(process)) => self.read(process, link).await,
            Ok(Err(kube::Error::Api(status))) if is_rbac(&status) => {
                Cut::Denied(cannot_exec(&namespace, &status.message))
            }
            Ok(Err(error)) => {
                let request =
                    Request { verb: "create", resource: "pods/exec", name: &name, namespace: Some(&namespace) };
                let explained = Error::of(&request, &self.injector.cluster.server, &error);
                // What admission refuses once, it refuses always.
                let is_final = matches!(&error, kube::Error::Api(status) if status.code == 403);
                if is_final { Cut::Denied(explained) } else { Cut::Broken(explained.message) }
            }
            Err(_) => Cut::Broken(format!("no connection within {} s", CONNECT.as_secs())),
        }
    }

    async fn read(&mut self, mut process: kube::api::AttachedProcess, link: &mut Link<'_>) -> Cut {
        let pipes = (process.stdin(), process.stdout(), process.stderr(), process.take_status());
        let (Some(mut stdin), Some(mut stdout), Some(mut stderr), Some(status)) = pipes else {
            return Cut::Broken("the connection is without streams".to_owned());
        };
        let mut decoder = Decoder::new("the agent's stream");
        let mut batch = Batch::default();
        let mut used = 0;
        let mut said = Vec::new();
        let mut stderr_is_open = true;
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut last_call = None;
        // Until when the agent may say its last words, once the user wants no more.
        let mut leaving: Option<Instant> = None;
        let mut sight = self.sight.clone();
        let mut status = std::pin::pin!(status);
        let mut message = None;
        let cut = loop {
            let is_ready = has_content(&batch);
            let has_room = batch.bytes.len() < MOST_BATCH || !is_ready;
            // What has come is handed on first, however long the receiver takes.
            let may_end = if last_call.is_some() { !is_ready } else { has_room };
            batch.bytes.reserve(READ);
            tokio::select! {
                biased;
                () = self.stop.wait(), if leaving.is_none() => {
                    // It sees that, and sends the kernel's counters.
                    let _ = stdin.shutdown().await;
                    leaving = Some(Instant::now() + FAREWELL);
                }
                () = sleep_until(leaving.unwrap_or(heard + PATIENCE)), if leaving.is_some() => break Cut::Stopped,
                _ = beat.tick(), if leaving.is_none() => {
                    if stdin.write_all(b"\n").await.is_err() {
                        break Cut::Broken("the connection was cut".to_owned());
                    }
                }
                permit = self.events.reserve(), if is_ready => {
                    let Ok(permit) = permit else { break Cut::Stopped };
                    let mut rest = Batch::default();
                    rest.bytes.extend_from_slice(batch.bytes.get(used..).unwrap_or_default());
                    used = 0;
                    let mut full = std::mem::replace(&mut batch, rest);
                    let account = self.ledger.book(&mut full);
                    // The order of what is told: first that the stream begins, then its packets, then its end.
                    let mut tell = Vec::new();
                    if account.hello {
                        self.begin(link, account.restarted, &mut tell);
                    }
                    tell.push(Event::Batch { tap: self.tap, batch: full });
                    if account.lost > 0 {
                        tell.push(Event::Lost { tap: self.tap, count: account.lost });
                    }
                    let mut permit = Some(permit);
                    let mut is_heard = true;
                    for event in tell {
                        match permit.take() {
                            Some(permit) => permit.send(event),
                            None => is_heard &= send(self.events, event).await,
                        }
                    }
                    if !is_heard {
                        break Cut::Stopped;
                    }
                    // The time that the receiver took is not the agent's.
                    heard = Instant::now();
                    if account.complete {
                        break Cut::Complete;
                    }
                    if let Some(why) = account.end {
                        break Cut::Ended(why);
                    }
                }
                read = stdout.read_buf(&mut batch.bytes), if has_room => match read {
                    Ok(0) | Err(_) => break Cut::Broken(last_words(&said, message)),
                    Ok(_) => {
                        heard = Instant::now();
                        match decoder.decode(&mut batch, used) {
                            Ok(count) => used += count,
                            Err(error) => break Cut::Broken(error.to_string()),
                        }
                    }
                },
                read = stderr.read_buf(&mut said), if stderr_is_open => {
                    stderr_is_open = matches!(read, Ok(1..));
                    said.drain(..said.len().saturating_sub(MOST_STDERR));
                }
                // A connection that fails does not close its pipes, but it drops this. What is in them can still be read.
                status = &mut status, if message.is_none() => {
                    message = Some(status.and_then(|status| status.message).unwrap_or_default());
                    last_call = Some(Instant::now() + LAST_BYTES);
                }
                () = gone(&mut sight), if last_call.is_none() => last_call = Some(Instant::now() + LAST_CALL),
                () = sleep_until(last_call.unwrap_or(heard + PATIENCE)), if may_end => {
                    break match last_call {
                        Some(_) => Cut::Broken(last_words(&said, message)),
                        None => Cut::Silent,
                    };
                }
            }
        };
        if leaving.is_some() {
            return Cut::Stopped;
        }
        // The process in the pod ends with its stdin; what it still writes is read, or it could not.
        let farewell = async {
            let _ = stdin.shutdown().await;
            let mut rest = Vec::with_capacity(READ);
            while matches!(stdout.read_buf(&mut rest).await, Ok(1..)) {
                rest.clear();
            }
        };
        let _ = timeout(FAREWELL, farewell).await;
        cut
    }

    /// The agent has said hello.
    fn begin(&self, link: &mut Link<'_>, restarted: bool, tell: &mut Vec<Event>) {
        let tap = self.tap;
        if restarted {
            tell.push(Event::Restarted { tap });
        }
        if !link.announced {
            link.announced = true;
            let (container, reused) = (link.agent.container.clone(), link.agent.reused);
            tell.push(Event::Attached { tap, container, reused });
        } else if link.told {
            tell.push(Event::Resumed { tap });
        }
        link.failures = 0;
        link.cut_since = None;
        link.told = false;
    }
}

/// One agent's connections so far.
struct Link<'a> {
    agent: &'a Agent,
    /// It was told that the agent is there.
    announced: bool,
    /// Attempts since the last hello.
    failures: u32,
    /// Since when there is no connection, if there is none.
    cut_since: Option<Instant>,
    /// It was told that the connection is cut.
    told: bool,
}

/// Why the process ended, as far as it or the node says.
fn last_words(said: &[u8], message: Option<String>) -> String {
    let said = String::from_utf8_lossy(said);
    if let Some(error) = said.lines().rev().find_map(|line| line.strip_prefix("error: ")) {
        return error.to_owned();
    }
    message.filter(|message| !message.is_empty()).unwrap_or_else(|| "the connection was cut".to_owned())
}

/// Returns when the pod is gone.
async fn gone(sight: &mut Sight) {
    let _ = sight.wait_for(Option::is_none).await;
}

fn has_content(batch: &Batch) -> bool {
    !(batch.frames.is_empty() && batch.notes.is_empty() && batch.interfaces.is_empty())
}
