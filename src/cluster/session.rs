//! A session: follows the pods that were selected, and streams from an agent in each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Stop;
use super::client::Cluster;
use super::error::{Error, Request};
use super::event::Event;
use super::flags::{Mode, Options, Via};
use super::inject::Injector;
use super::keylog::KeyLog;
use super::node::{self, Member, Members, Node, Share};
use super::pod::Task;
use super::select::{Scope, Selection, Verdict};
use super::watch::{Change, follow};

/// Pods into which agents are put at once.
const INJECTIONS: usize = 16;

/// How long everything may take to end.
const FAREWELL: Duration = Duration::from_millis(900);

/// The same where there are capture pods to delete.
const FAREWELL_OF_NODES: Duration = Duration::from_secs(5);

/// Changes of pods that may wait.
const CHANGES: usize = 64;

/// A pod that is, or was, sniffed.
struct Target {
    by: Agency,
    is_active: bool,
}

/// Whose agent sniffs a pod.
enum Agency {
    /// Its own.
    Pod {
        sight: watch::Sender<Option<Arc<Pod>>>,
        /// Why it left, for who looks after `sight` says that it is gone.
        reason: watch::Sender<&'static str>,
    },
    /// That of its node, of this name.
    Node(String),
}

/// All that goes on.
struct Session {
    injector: Arc<Injector>,
    selection: Selection,
    events: Sender<Event>,
    stop: Stop,
    permits: Arc<Semaphore>,
    targets: HashMap<String, Target>,
    /// The pods of each node that captures.
    nodes: HashMap<String, watch::Sender<Members>>,
    /// Nodes that begin once all pods are listed: what an agent records is chosen for all of them.
    waiting: Vec<Node>,
    /// What follows the key logs in a pod, by its UID; it ends when it is dropped.
    key_logs: HashMap<String, JoinSet<()>>,
    /// Pods of which it was told that they are left out.
    skipped: HashSet<String>,
    /// Each returns the UIDs of pods that are no longer sniffed.
    tasks: JoinSet<Vec<String>>,
    taps: u32,
    is_full_told: bool,
    is_waiting_told: bool,
    in_trouble: bool,
}

/// Sniffs the pods of `selection` and tells `events`, which slows everything down when it is full, until `stop`, or until
/// nobody receives them any more.
///
/// # Errors
/// If the cluster does not tell which pods there are at all. What concerns one pod or namespace is an event.
pub async fn run(
    cluster: &Cluster,
    selection: Selection,
    options: Options,
    events: Sender<Event>,
    mut stop: Stop,
) -> Result<(), Error> {
    if options.via == Via::Node {
        tokio::select! {
            () = stop.wait() => return Ok(()),
            admitted = node::admit(cluster, &options) => admitted?,
        }
    }
    let scopes = tokio::select! {
        () = stop.wait() => return Ok(()),
        scopes = selection.scopes(cluster) => scopes?,
    };
    let mut session = Session {
        injector: Arc::new(Injector::new(cluster.clone(), options)),
        selection,
        events,
        stop: stop.clone(),
        permits: Arc::new(Semaphore::new(INJECTIONS)),
        targets: HashMap::new(),
        nodes: HashMap::new(),
        waiting: Vec::new(),
        key_logs: HashMap::new(),
        skipped: HashSet::new(),
        tasks: JoinSet::new(),
        taps: 0,
        is_full_told: false,
        is_waiting_told: false,
        in_trouble: false,
    };
    let mut watches = JoinSet::new();
    let (sender, changes) = mpsc::channel(CHANGES);
    let watched = scopes.len();
    for scope in scopes {
        watches.spawn(watch_pods(cluster.clone(), scope, sender.clone()));
    }
    drop(sender);
    let result = session.follow(changes, watched).await;
    watches.abort_all();
    session.end().await;
    result
}

async fn watch_pods(cluster: Cluster, scope: Scope, changes: Sender<Change<Pod>>) {
    let client = cluster.client.clone();
    let api = match &scope.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let config = watcher::Config { label_selector: scope.labels, field_selector: scope.fields, ..Default::default() };
    let request = Request { verb: "list", resource: "pods", name: "", namespace: scope.namespace.as_deref() };
    follow(&cluster, api, config, request, changes).await;
}

impl Session {
    async fn follow(&mut self, mut changes: Receiver<Change<Pod>>, watched: usize) -> Result<(), Error> {
        let mut unlisted = watched;
        let mut denied = 0;
        loop {
            if unlisted == 0 {
                for node in self.waiting.drain(..) {
                    self.tasks.spawn(node.capture());
                }
            }
            if unlisted == 0 && self.active() == 0 && self.injector.options.mode != Mode::Follow {
                return Ok(());
            }
            let change = tokio::select! {
                () = self.stop.wait() => return Ok(()),
                () = self.events.closed() => return Ok(()),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    for uid in ended.unwrap_or_default() {
                        if let Some(target) = self.targets.get_mut(&uid) {
                            target.is_active = false;
                        }
                    }
                    self.tell_if_waiting(unlisted).await;
                    continue;
                }
                change = changes.recv() => change,
            };
            if let Some(Change::There(_) | Change::Gone { .. } | Change::Listed) = change {
                self.in_trouble = false;
            }
            match change {
                // All watches have been denied, one of them last.
                None => return Ok(()),
                Some(Change::There(pod)) => self.there(pod).await,
                Some(Change::Gone { uid, deleted }) => {
                    self.skipped.remove(&uid);
                    self.key_logs.remove(&uid);
                    let why = if deleted { "deleted" } else { "no longer selected" };
                    match self.targets.remove(&uid).map(|target| target.by) {
                        Some(Agency::Pod { sight, reason }) => {
                            reason.send_replace(why);
                            sight.send_replace(None);
                        }
                        Some(Agency::Node(node)) => {
                            self.leave(&node, &uid, why).await;
                            self.tell_if_waiting(unlisted).await;
                        }
                        None => {}
                    }
                }
                Some(Change::Listed) => {
                    unlisted = unlisted.saturating_sub(1);
                    self.tell_if_waiting(unlisted).await;
                }
                Some(Change::Trouble(error)) => {
                    if !std::mem::replace(&mut self.in_trouble, true) {
                        self.tell(Event::Trouble(error)).await;
                    }
                }
                Some(Change::Denied(error)) => {
                    denied += 1;
                    if denied == watched {
                        return Err(error);
                    }
                    self.tell(Event::Trouble(error)).await;
                    unlisted = unlisted.saturating_sub(1);
                    self.tell_if_waiting(unlisted).await;
                }
            }
        }
    }

    async fn tell(&mut self, event: Event) {
        tokio::select! {
            () = self.stop.wait() => {}
            _ = self.events.send(event) => {}
        }
    }

    fn active(&self) -> usize {
        self.targets.values().filter(|target| target.is_active).count()
    }

    async fn tell_if_waiting(&mut self, unlisted: usize) {
        if unlisted > 0 || self.active() > 0 || (self.taps > 0 && self.injector.options.mode != Mode::Follow) {
            return;
        }
        if !std::mem::replace(&mut self.is_waiting_told, true) {
            self.tell(Event::Waiting).await;
            self.tell_of_missing_namespaces().await;
        }
    }

    /// A list of pods in a namespace that is not there is empty, and so is one in a namespace whose name is mistyped.
    async fn tell_of_missing_namespaces(&mut self) {
        let api: Api<Namespace> = Api::all(self.injector.cluster.client.clone());
        for namespace in self.selection.namespaces().to_vec() {
            if let Some(Ok(None)) = self.injector.cluster.answer(api.get_opt(&namespace)).await {
                self.tell(Event::Note(format!("there is no namespace {namespace:?}"))).await;
            }
        }
    }

    async fn there(&mut self, mut pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        // Who changed which field last is most of a pod's size.
        pod.metadata.managed_fields = None;
        match self.targets.get(&uid).map(|target| &target.by) {
            Some(Agency::Pod { sight, .. }) => {
                sight.send_replace(Some(Arc::new(pod)));
                return;
            }
            Some(Agency::Node(node)) => {
                let node = node.clone();
                self.changed(&node, &uid, &pod).await;
                return;
            }
            None => {}
        }
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        match self.selection.judge(&pod) {
            Verdict::Other | Verdict::Wait => {}
            Verdict::Skip(reason) => self.skip(uid, name, reason.to_owned()).await,
            Verdict::Take if self.active() >= self.selection.max_targets => {
                let most = self.selection.max_targets;
                if !std::mem::replace(&mut self.is_full_told, true) {
                    let error = Error::new(format!("more than {most} pods match; the others are left out"));
                    self.tell(Event::Trouble(error.hint("--max-targets allows more, a narrower choice needs less")))
                        .await;
                }
                self.skip(uid, name, format!("--max-targets is {most}")).await;
            }
            Verdict::Take => self.take(uid, name, pod).await,
        }
    }

    async fn skip(&mut self, uid: String, pod: String, reason: String) {
        if self.skipped.insert(uid) {
            self.tell(Event::Skipped { pod, reason }).await;
        }
    }

    async fn take(&mut self, uid: String, name: String, pod: Pod) {
        self.taps += 1;
        self.is_waiting_told = false;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        self.skipped.remove(&uid);
        self.tell(Event::Appeared { tap: self.taps, pod: name.clone(), node: node.clone() }).await;
        let mut recorded = Vec::new();
        match KeyLog::of(&pod, &self.injector.cluster, &self.injector.options, &self.events) {
            Ok(logs) if self.injector.options.looks_back() => recorded = logs,
            Ok(logs) => {
                let logs = logs.into_iter().map(KeyLog::follow).collect::<JoinSet<_>>();
                self.key_logs.insert(uid.clone(), logs);
            }
            Err(error) => {
                let message = format!("{name}: {}", error.message);
                self.tell(Event::Trouble(Error { message, ..error })).await;
            }
        }
        if self.injector.options.via == Via::Node {
            self.join(node, uid, name, &pod).await;
            return;
        }
        let (sight, seen) = watch::channel(Some(Arc::new(pod)));
        let (reason, why) = watch::channel("deleted");
        self.targets.insert(uid.clone(), Target { by: Agency::Pod { sight, reason }, is_active: true });
        let task = Task {
            injector: Arc::clone(&self.injector),
            permits: Arc::clone(&self.permits),
            events: self.events.clone(),
            stop: self.stop.clone(),
            tap: self.taps,
            pod: name,
            why,
        };
        self.tasks.spawn(async move {
            // Nobody waits for keys at the end of what was recorded.
            for log in recorded {
                log.once().await;
            }
            task.sniff(seen).await;
            vec![uid]
        });
    }

    /// Has the node of a pod capture its packets.
    async fn join(&mut self, node: String, uid: String, name: String, pod: &Pod) {
        // With an address it was taken.
        let Some(share) = Share::of(pod) else { return };
        if let Some(note) = &share.note {
            self.tell(Event::Note(format!("{name}: {note}"))).await;
        }
        let member = Member { tap: self.taps, pod: name, share };
        self.targets.insert(uid.clone(), Target { by: Agency::Node(node.clone()), is_active: true });
        if let Some(members) = self.nodes.get(&node).filter(|members| !members.is_closed()) {
            members.send_modify(|members| drop(members.insert(uid, member)));
            return;
        }
        self.taps += 1;
        self.tell(Event::OnNode { tap: self.taps, node: node.clone() }).await;
        let (sender, members) = watch::channel(Members::from([(uid, member)]));
        self.nodes.insert(node.clone(), sender);
        let node = Node {
            injector: Arc::clone(&self.injector),
            permits: Arc::clone(&self.permits),
            events: self.events.clone(),
            stop: self.stop.clone(),
            tap: self.taps,
            name: node,
            members,
            announced: HashSet::new(),
        };
        self.waiting.push(node);
    }

    /// A pod that a node captures has changed.
    async fn changed(&mut self, node: &str, uid: &str, pod: &Pod) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            self.leave(node, uid, "finished").await;
            if let Some(target) = self.targets.get_mut(uid) {
                target.is_active = false;
            }
            self.tell_if_waiting(0).await;
            return;
        }
        let (Some(share), Some(members)) = (Share::of(pod), self.nodes.get(node)) else { return };
        members.send_if_modified(|members| {
            members.get_mut(uid).is_some_and(|member| std::mem::replace(&mut member.share, share.clone()) != share)
        });
    }

    /// A node's agent has one pod less to capture. It stays for those that may come.
    async fn leave(&mut self, node: &str, uid: &str, reason: &str) {
        let mut left = None;
        if let Some(members) = self.nodes.get(node) {
            members.send_if_modified(|members| {
                left = members.remove(uid);
                left.is_some()
            });
        }
        if let Some(Member { tap, pod, .. }) = left {
            self.tell(Event::Left { tap, pod, reason: reason.to_owned() }).await;
        }
    }

    /// Waits until every task has said goodbye to its process.
    async fn end(mut self) {
        let time = if self.nodes.is_empty() { FAREWELL } else { FAREWELL_OF_NODES };
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(time, all).await;
    }
}
