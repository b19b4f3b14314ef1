//! Capture from the node, for pods that may not be touched: one capture pod on each node concerned, whose filter follows
//! the selected pods of the node as they come and go.

mod armed;
mod job;
mod traffic;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use self::armed::Armed;
pub(super) use self::job::admit;
pub(super) use self::traffic::Share;
use super::Stop;
use super::client::Cluster;
use super::container::{self, NODE_AGENT};
use super::error::{Error, Request};
use super::event::{Event, send};
use super::exec::{self, Where};
use super::flags::Mode;
use super::inject::{Agent, Injector, Sight};
use super::ledger::{Ledger, Start};
use super::stream::{ASKED_TO_STOP, Over, Stream};
use super::watch::{Change, Pauses, follow};
use crate::capture::filter::Filter;

/// How often a Job without a pod is asked why.
const LOOK: Duration = Duration::from_secs(1);

/// How often a filter is refused before it is told.
const REFUSALS: u32 = 5;

/// A selected pod of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) tap: u32,
    /// `namespace/name`.
    pub(super) pod: String,
    pub(super) share: Share,
}

/// Those that are there now, by UID.
pub(super) type Members = BTreeMap<String, Member>;

/// Captures on one node.
pub(super) struct Node {
    pub(super) injector: Arc<Injector>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) events: Sender<Event>,
    pub(super) stop: Stop,
    pub(super) tap: u32,
    pub(super) name: String,
    pub(super) members: watch::Receiver<Members>,
    /// Members of which it was told that they are captured.
    pub(super) announced: HashSet<String>,
}

impl Node {
    /// Captures until it is over for one reason or another, and tells the reason. Returns the members that were left.
    pub(super) async fn capture(mut self) -> Vec<String> {
        let over = match self.injector.options.mode {
            Mode::Arm(time) => self.arm(time).await,
            _ => self.agents().await,
        };
        let members = self.members.borrow().clone();
        let (tap, node) = (self.tap, self.name.clone());
        let each = |event: &dyn Fn(u32, String) -> Event| {
            members.values().map(|member| event(member.tap, member.pod.clone())).collect()
        };
        let last = match over {
            Over::Died(error) | Over::Denied(error) => vec![Event::Failed { tap, pod: node, error }],
            Over::Left(reason) => each(&|tap, pod| Event::Left { tap, pod, reason: reason.clone() }),
            Over::Absent => each(&|_, pod| Event::Skipped { pod, reason: format!("no agent on {node} records it") }),
            Over::Armed(Agent { container, reused, .. }) => {
                each(&|tap, pod| Event::Armed { tap, pod, container: container.clone(), reused })
            }
            Over::Stopped | Over::Read => Vec::new(),
        };
        for event in last {
            tokio::select! {
                () = self.stop.wait() => break,
                _ = self.events.send(event) => {}
            }
        }
        members.into_keys().collect()
    }

    /// One agent after the other; the first is the last unless something kills it.
    async fn agents(&mut self) -> Over {
        let injector = Arc::clone(&self.injector);
        let events = self.events.clone();
        let (sender, sight) = watch::channel(None);
        drop(sender);
        let mut stream = Stream {
            injector: &injector,
            tap: self.tap,
            sight,
            events: &events,
            stop: self.stop.clone(),
            ledger: Ledger::new(Start::All),
            deaths: 0,
        };
        let looks_back = injector.options.looks_back();
        if looks_back || injector.options.since.is_some() {
            let since = Instant::now();
            match self.recorded(&mut stream).await.map(death) {
                Some(Err(over)) => return over,
                // What it had recorded is gone with it.
                Some(Ok(_)) | None if looks_back => return Over::Absent,
                Some(Ok(error)) => {
                    if let Some(over) = stream.bury(error, since).await {
                        return over;
                    }
                }
                None => {}
            }
        }
        loop {
            let name = container::new_name();
            let since = Instant::now();
            let over = self.agent(&name, &mut stream).await;
            // Whatever happened, nothing is left behind; what cannot be deleted goes by itself.
            let _ = job::delete(&injector.cluster, &injector.options.via_namespace, &name).await;
            let error = match death(over) {
                Ok(error) => error,
                Err(over) => return over,
            };
            if let Some(over) = stream.bury(error, since).await {
                return over;
            }
        }
    }

    /// Makes a capture pod and streams from it.
    async fn agent(&mut self, name: &str, stream: &mut Stream<'_>) -> Over {
        let filter = match self.filter() {
            Ok(filter) => filter,
            Err(error) => return Over::Denied(error),
        };
        let mut watching = JoinSet::new();
        let (agent, sight) = match self.unless_over(Box::pin(self.started(&mut watching, name, Some(&filter)))).await {
            Ok(started) => started,
            Err(over) => return over,
        };
        stream.sight = sight.clone();
        tokio::select! {
            over = stream.run(&agent) => over,
            () = self.keep(&sight) => Over::Stopped,
        }
    }

    /// Has an agent record for so long, whether somebody reads or not: one that records just that already, or a new one.
    async fn arm(&mut self, time: Duration) -> Over {
        let injector = Arc::clone(&self.injector);
        let Injector { cluster, options, .. } = &*injector;
        let filter = match self.filter() {
            Ok(filter) => filter,
            Err(error) => return Over::Denied(error),
        };
        let wanted = job::arguments(&self.name, &filter, options);
        let there = match self.unless_over(self.armed()).await {
            Ok(there) => there.into_iter().find(|armed| armed.is_like(&options.image, &wanted)),
            Err(over) => return over,
        };
        let (reused, name) = (there.is_some(), there.map_or_else(container::new_name, |armed| armed.job));
        let mut watching = JoinSet::new();
        let new = Some(&filter).filter(|_| !reused);
        let over = match self.unless_over(Box::pin(self.started(&mut watching, &name, new))).await {
            Ok((agent, sight)) => {
                let agent = Agent { reused, ..agent };
                match injector.arm(&sight, &agent, time).await {
                    Ok(()) => return Over::Armed(agent),
                    Err(error) => Over::Denied(error),
                }
            }
            Err(over) => over,
        };
        if !reused {
            let _ = job::delete(cluster, &options.via_namespace, &name).await;
        }
        over
    }

    /// Streams what an agent has recorded that was armed, and what comes, if the node has one: that which records the most of
    /// the members. It stays as it is, so it is left to record what it was armed for.
    async fn recorded(&mut self, stream: &mut Stream<'_>) -> Option<Over> {
        let injector = Arc::clone(&self.injector);
        let options = &injector.options;
        let members = self.members.borrow_and_update().clone();
        let covered = |armed: &Armed| members.values().filter(|member| armed.covers(&member.share)).count();
        let there = match self.unless_over(self.armed()).await {
            Ok(there) => there,
            Err(over) => return Some(over),
        };
        // Of those that record as many, the newest, which is the first.
        let armed = there.into_iter().rev().max_by_key(covered).filter(|armed| covered(armed) > 0)?;
        let recorded: Members = members.into_iter().filter(|(_, member)| armed.covers(&member.share)).collect();
        let shares = recorded.values().map(|member| &member.share);
        let filter = match traffic::filter(shares, options.filter.as_ref()) {
            Ok(filter) => filter,
            Err(error) => return Some(Over::Denied(error)),
        };
        let mut watching = JoinSet::new();
        let (agent, sight) = match self.unless_over(Box::pin(self.started(&mut watching, &armed.job, None))).await {
            Ok(started) => started,
            Err(over) => return Some(over),
        };
        let agent = Agent { reused: true, narrows: true, filter: Some(filter), ..agent };
        for (uid, Member { tap, .. }) in recorded {
            self.announced.insert(uid);
            send(&self.events, Event::Attached { tap, container: agent.container.clone(), reused: true }).await;
        }
        stream.sight = sight;
        stream.ledger = Ledger::new(options.since.map_or(Start::Oldest, |since| Start::Since(since.as_secs())));
        let mut told = HashSet::new();
        self.leave_out(&mut told).await;
        Some(tokio::select! {
            over = stream.run(&agent) => over,
            () = async {
                while self.members.changed().await.is_ok() {
                    self.leave_out(&mut told).await;
                }
                // The session is about to end, and its stream with it.
                std::future::pending::<()>().await;
            } => Over::Stopped,
        })
    }

    /// Tells of members that are not recorded, once.
    async fn leave_out(&mut self, told: &mut HashSet<String>) {
        let members = self.members.borrow_and_update().clone();
        for (uid, Member { pod, .. }) in members {
            if !self.announced.contains(&uid) && told.insert(uid) {
                let reason = format!("the agent that records on {} was armed without it", self.name);
                send(&self.events, Event::Skipped { pod, reason }).await;
            }
        }
    }

    /// What the members' packets are.
    fn filter(&mut self) -> Result<Filter, Error> {
        let members = self.members.borrow_and_update();
        traffic::filter(members.values().map(|member| &member.share), self.injector.options.filter.as_ref())
    }

    /// The agents that record on the node with nobody connected.
    async fn armed(&self) -> Result<Vec<Armed>, Error> {
        let Injector { cluster, options, .. } = &*self.injector;
        armed::on_node(cluster, &options.via_namespace, &self.name).await
    }

    /// The agent of a Job once it runs, be it there already or new, with that filter.
    async fn started(
        &self,
        watching: &mut JoinSet<()>,
        job: &str,
        new: Option<&Filter>,
    ) -> Result<(Agent, Sight), Error> {
        let Injector { cluster, options, .. } = &*self.injector;
        let namespace = options.via_namespace.as_str();
        let _permit = self.permits.acquire().await;
        self.injector.may_exec(namespace).await?;
        if let Some(filter) = new {
            job::create(cluster, namespace, &job::job(job, &self.name, filter, options)?).await?;
        }
        let (mut sight, denied) = watch_pod(watching, cluster, namespace, job);
        tokio::select! {
            appeared = self.appeared(job, &mut sight) => appeared?,
            Ok(error) = denied => return Err(error),
        }
        let agent = self.injector.started(&mut sight, NODE_AGENT).await?;
        Ok((agent.ok_or_else(|| Error::new("its capture pod is gone: deleted"))?, sight))
    }

    /// What that work comes to, unless the user wants no more or it is refused.
    async fn unless_over<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Over> {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = stop.wait() => Err(Over::Stopped),
            () = self.events.closed() => Err(Over::Stopped),
            result = work => result.map_err(Over::Denied),
        }
    }

    /// Waits for the pod of the Job.
    async fn appeared(&self, job: &str, sight: &mut Sight) -> Result<(), Error> {
        let Injector { cluster, options, .. } = &*self.injector;
        let deadline = Instant::now() + options.start_timeout;
        while sight.borrow_and_update().is_none() {
            let look = deadline.min(Instant::now() + LOOK);
            if timeout_at(look, sight.changed()).await.is_ok() {
                continue;
            }
            if let Some(error) = job::complaint(cluster, &options.via_namespace, job).await {
                return Err(error);
            }
            if Instant::now() >= deadline {
                let seconds = options.start_timeout.as_secs();
                return Err(Error::new(format!("the Job {job} has made no pod within {seconds} s"))
                    .hint("kubectl describe job shows its events; --start-timeout allows more"));
            }
        }
        Ok(())
    }

    /// Keeps the agent's filter as its members are. Each is announced once the agent has it.
    async fn keep(&mut self, sight: &Sight) {
        let injector = Arc::clone(&self.injector);
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut refusals = 0;
        let mut present = None;
        loop {
            let members = self.members.borrow_and_update().clone();
            let shares = members.values().map(|member| &member.share);
            let result = match traffic::filter(shares, injector.options.filter.as_ref()) {
                Ok(filter) if present.as_ref() == Some(&filter) => Ok(()),
                Ok(filter) => {
                    let result = refilter(&injector.cluster, sight, &filter.program, &filter.text).await;
                    result.map(|()| present = Some(filter))
                }
                Err(error) => Err(error),
            };
            let error = match result {
                Ok(()) => {
                    refusals = 0;
                    pauses.start_again();
                    self.announced.retain(|uid| members.contains_key(uid));
                    for (uid, member) in members {
                        if self.announced.insert(uid) {
                            let container = NODE_AGENT.to_owned();
                            send(&self.events, Event::Attached { tap: member.tap, container, reused: false }).await;
                        }
                    }
                    if self.members.changed().await.is_err() {
                        // The session is about to end, and its stream with it.
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
                Err(error) => error,
            };
            refusals += 1;
            if refusals == REFUSALS {
                let message = format!("{}: pods that have come are not captured yet: {error}", self.name);
                send(&self.events, Event::Trouble(Error { message, ..error })).await;
            }
            tokio::select! {
                () = sleep(pauses.pause()) => {}
                Ok(()) = self.members.changed() => {}
            }
        }
    }
}

/// Of what an agent died, after which another may take its place; else why it is all over.
fn death(over: Over) -> Result<Error, Over> {
    match over {
        Over::Left(reason) if reason != ASKED_TO_STOP => Ok(Error::new(format!("its capture pod is gone: {reason}"))),
        Over::Died(error) => Ok(error),
        over => Err(over),
    }
}

/// Has the agent capture what the program accepts from now on.
async fn refilter(cluster: &Cluster, sight: &Sight, program: &str, text: &str) -> Result<(), Error> {
    let Some(pod) = sight.borrow().clone() else { return Err(Error::new("its capture pod is gone")) };
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let place = Where { namespace: &namespace, pod: &name, container: NODE_AGENT };
    exec::ask(cluster, place, &["filter", program, "--filter-text", text]).await.map(drop)
}

/// Follows the pod of a Job; the error is why it cannot be.
fn watch_pod(
    watching: &mut JoinSet<()>,
    cluster: &Cluster,
    namespace: &str,
    job: &str,
) -> (Sight, oneshot::Receiver<Error>) {
    let (deny, denied) = oneshot::channel();
    let (seen, sight) = watch::channel(None);
    let (sender, mut changes) = mpsc::channel(4);
    let (cluster, namespace, label) = (cluster.clone(), namespace.to_owned(), format!("{}={job}", job::INSTANCE));
    watching.spawn(async move {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
        let request = Request { verb: "list", resource: "pods", name: "", namespace: Some(&namespace) };
        follow(&cluster, api, watcher::Config::default().labels(&label), request, sender).await;
    });
    watching.spawn(async move {
        let mut deny = Some(deny);
        while let Some(change) = changes.recv().await {
            match change {
                Change::There(pod) => drop(seen.send_replace(Some(Arc::new(pod)))),
                Change::Gone { .. } => drop(seen.send_replace(None)),
                Change::Denied(error) => drop(deny.take().map(|deny| deny.send(error))),
                Change::Listed | Change::Trouble(_) => {}
            }
        }
    });
    (sight, denied)
}
