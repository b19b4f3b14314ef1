//! Capture from the node, for pods that may not be touched: one capture pod on each node concerned, whose filter follows
//! the selected pods of the node as they come and go.

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

pub(super) use self::job::admit;
pub(super) use self::traffic::Share;
use super::Stop;
use super::client::Cluster;
use super::container::{self, NODE_AGENT};
use super::error::{Error, Request};
use super::exec::{self, Where};
use super::inject::{Agent, Injector, Sight};
use super::ledger::{Ledger, Start};
use super::session::{Event, send};
use super::stream::{ASKED_TO_STOP, Over, Stream};
use super::watch::{Change, Pauses, follow};

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
        let over = self.agents().await;
        let members = self.members.borrow().clone();
        let (tap, node) = (self.tap, self.name.clone());
        let last = match over {
            Over::Died(error) | Over::Denied(error) => vec![Event::Failed { tap, pod: node, error }],
            Over::Left(reason) => members
                .values()
                .map(|member| Event::Left { tap: member.tap, pod: member.pod.clone(), reason: reason.clone() })
                .collect(),
            _ => Vec::new(),
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
        loop {
            let name = container::new_name();
            let since = Instant::now();
            let over = self.agent(&name, &mut stream).await;
            // Whatever happened, nothing is left behind; what cannot be deleted goes by itself.
            let _ = job::delete(&injector.cluster, &injector.options.via_namespace, &name).await;
            let error = match over {
                Over::Left(reason) if reason != ASKED_TO_STOP => {
                    Error::new(format!("its capture pod is gone: {reason}"))
                }
                Over::Died(error) => error,
                over => return over,
            };
            if let Some(over) = stream.bury(error, since).await {
                return over;
            }
        }
    }

    /// Makes a capture pod and streams from it.
    async fn agent(&mut self, name: &str, stream: &mut Stream<'_>) -> Over {
        let injector = Arc::clone(&self.injector);
        let namespace = injector.options.via_namespace.clone();
        let mut stop = self.stop.clone();
        let events = self.events.clone();
        let mut watching = JoinSet::new();
        let started = async {
            let _permit = self.permits.acquire().await;
            injector.may_exec(&namespace).await?;
            let filter = {
                let members = self.members.borrow_and_update();
                traffic::filter(members.values().map(|member| &member.share), injector.options.filter.as_ref())?
            };
            let job = job::job(name, &self.name, &filter, &injector.options)?;
            job::create(&injector.cluster, &namespace, &job).await?;
            let (mut sight, denied) = watch_pod(&mut watching, &injector.cluster, &namespace, name);
            tokio::select! {
                appeared = self.appeared(name, &mut sight) => appeared?,
                Ok(error) = denied => return Err(error),
            }
            let agent = injector.started(&mut sight, NODE_AGENT).await?;
            Ok(agent.map(|agent| (agent, sight)))
        };
        let started: Result<Option<(Agent, Sight)>, Error> = tokio::select! {
            () = stop.wait() => return Over::Stopped,
            () = events.closed() => return Over::Stopped,
            started = started => started,
        };
        let (agent, sight) = match started {
            Ok(Some(started)) => started,
            Ok(None) => return Over::Left("deleted".to_owned()),
            Err(error) => return Over::Denied(error),
        };
        stream.sight = sight.clone();
        tokio::select! {
            over = stream.run(&agent) => over,
            () = self.keep(&sight) => Over::Stopped,
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
