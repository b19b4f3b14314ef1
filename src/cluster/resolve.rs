//! Names for addresses: pods, services, nodes, as the cluster tells of them.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{self, Sender, WeakSender};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::Cluster;
use super::error::Request;
use super::event::{Event, send};
use super::select::is_host_network;
use super::watch::{Change, follow};
use super::workload::{cron_job, deployment};
use crate::entry::Name;
use crate::pipeline::Resolve;

/// How long the address of an object that is gone keeps its name: its last rows may still come.
const MEMORY: Duration = Duration::from_mins(1);

/// Changes of objects that may wait.
const CHANGES: usize = 64;

/// The names that are known at this moment.
pub struct Names {
    table: Arc<RwLock<Table>>,
    /// How many watches have not listed yet.
    unlisted: watch::Receiver<usize>,
    /// End with it.
    _watches: JoinSet<()>,
}

/// What an address, with or without a port, stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A pod's or service's own address, or a node's.
    Address(IpAddr),
    /// A port of a node that a pod in the node's network listens on, or one that is forwarded to a pod.
    Port(IpAddr, u16),
    /// A port that all nodes forward to a service.
    NodePort(u16),
}

#[derive(Default)]
struct Table {
    names: HashMap<Key, Entry>,
    /// Addresses of nodes: only they have node ports.
    nodes: HashSet<IpAddr>,
    /// What each object stands in the table for.
    keys: HashMap<String, Vec<Key>>,
    swept: Option<Instant>,
}

struct Entry {
    name: Arc<Name>,
    uid: String,
    gone: Option<Instant>,
}

/// An object that gives names.
trait Named: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    /// As in RBAC rules.
    const RESOURCE: &'static str;

    /// Its name and what it stands for.
    fn names(&self) -> (Name, Vec<Key>);
}

impl Names {
    /// Starts to learn names: of the whole cluster where that is allowed, of `namespaces` otherwise. What cannot be had
    /// is told as a note.
    pub fn watch(cluster: &Cluster, namespaces: &[String], events: &Sender<Event>) -> Arc<Self> {
        let table = Arc::new(RwLock::new(Table::default()));
        let (count, unlisted) = watch::channel(3);
        let mut watches = JoinSet::new();
        let learner = Learner {
            cluster: cluster.clone(),
            table: Arc::clone(&table),
            count: Arc::new(count),
            events: events.downgrade(),
        };
        let namespaces = namespaces.to_vec();
        watches.spawn(learner.clone().everywhere_or_in(namespaces.clone(), Api::<Pod>::namespaced));
        watches.spawn(learner.clone().everywhere_or_in(namespaces, Api::<Service>::namespaced));
        watches.spawn(learner.everywhere_or_in(Vec::new(), |client, _| Api::<Node>::all(client)));
        Arc::new(Self { table, unlisted, _watches: watches })
    }

    /// Waits until all names that there are have been learned, or for so long.
    pub async fn ready(&self, most: Duration) {
        let mut unlisted = self.unlisted.clone();
        let _ = tokio::time::timeout(most, unlisted.wait_for(|count| *count == 0)).await;
    }
}

impl Resolve for Names {
    fn resolve(&self, ip: IpAddr, port: u16) -> Option<Arc<Name>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(ip, port)
    }
}

#[derive(Clone)]
struct Learner {
    cluster: Cluster,
    table: Arc<RwLock<Table>>,
    count: Arc<watch::Sender<usize>>,
    /// Names are wanted longer than a session lasts, which ends with its last sender.
    events: WeakSender<Event>,
}

impl Learner {
    /// Learns of all objects of a kind, or of those in `namespaces` if that is all that is allowed.
    async fn everywhere_or_in<K: Named>(self, namespaces: Vec<String>, api: fn(kube::Client, &str) -> Api<K>) {
        let client = &self.cluster.client;
        let mut is_listed = false;
        if self.learn(Api::<K>::all(client.clone()), None, &mut is_listed).await {
            return;
        }
        let mut denied = Vec::new();
        let mut learning = JoinSet::new();
        // Told one by one: the wait for names ends with the first that is known.
        for namespace in &namespaces {
            let (learner, api, namespace) = (self.clone(), api(client.clone(), namespace), namespace.clone());
            let mut is_listed = std::mem::replace(&mut is_listed, true);
            learning.spawn(async move { (learner.learn(api, Some(&namespace), &mut is_listed).await, namespace) });
        }
        if namespaces.is_empty() {
            self.listed(&mut is_listed);
            self.note(K::RESOURCE, None).await;
            return;
        }
        while let Some(result) = learning.join_next().await {
            if let Ok((false, namespace)) = result {
                denied.push(namespace);
                self.listed(&mut false);
                self.note(K::RESOURCE, denied.last().map(String::as_str)).await;
            }
        }
    }

    /// Follows one watch to its end. False if it was denied.
    async fn learn<K: Named>(&self, api: Api<K>, namespace: Option<&str>, is_listed: &mut bool) -> bool {
        let (sender, mut changes) = mpsc::channel(CHANGES);
        let request = Request { verb: "list", resource: K::RESOURCE, name: "", namespace };
        let following = follow(&self.cluster, api, watcher::Config::default(), request, sender);
        let learning = async {
            while let Some(change) = changes.recv().await {
                match change {
                    Change::There(object) => {
                        let uid = object.uid().unwrap_or_default();
                        let (name, keys) = object.names();
                        self.write(|table| table.put(uid, name, keys));
                    }
                    Change::Gone { uid, .. } => self.write(|table| table.forget(&uid)),
                    Change::Listed => self.listed(is_listed),
                    Change::Denied(_) => return false,
                    // It is tried again, and the session tells if the cluster is not there.
                    Change::Trouble(_) => {}
                }
            }
            true
        };
        tokio::join!(following, learning).1
    }

    fn write(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// One kind has been listed.
    fn listed(&self, already: &mut bool) {
        if !std::mem::replace(already, true) {
            self.count.send_modify(|count| *count = count.saturating_sub(1));
        }
    }

    async fn note(&self, resource: &str, namespace: Option<&str>) {
        let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
        let note = format!("you are not allowed to list {resource}{place}: their addresses stay without names");
        if let Some(events) = self.events.upgrade() {
            send(&events, Event::Note(note)).await;
        }
    }
}

impl Table {
    fn get(&self, ip: IpAddr, port: u16) -> Option<Arc<Name>> {
        let node_port = || self.nodes.contains(&ip).then(|| self.names.get(&Key::NodePort(port))).flatten();
        let entry =
            self.names.get(&Key::Port(ip, port)).or_else(node_port).or_else(|| self.names.get(&Key::Address(ip)));
        entry.map(|entry| Arc::clone(&entry.name))
    }

    fn put(&mut self, uid: String, name: Name, keys: Vec<Key>) {
        self.sweep();
        let before = self.keys.remove(&uid).unwrap_or_default();
        for key in before.iter().filter(|key| !keys.contains(key)) {
            self.leave(key, &uid);
        }
        let name = Arc::new(name);
        for key in &keys {
            if let (Key::Address(ip), "node") = (key, name.kind) {
                self.nodes.insert(*ip);
            }
            self.names.insert(*key, Entry { name: Arc::clone(&name), uid: uid.clone(), gone: None });
        }
        if !keys.is_empty() {
            self.keys.insert(uid, keys);
        }
    }

    fn forget(&mut self, uid: &str) {
        for key in self.keys.remove(uid).unwrap_or_default() {
            self.leave(&key, uid);
        }
        self.sweep();
    }

    fn leave(&mut self, key: &Key, uid: &str) {
        // Another object may have the address by now.
        if let Some(entry) = self.names.get_mut(key).filter(|entry| entry.uid == uid) {
            entry.gone = Some(Instant::now());
        }
    }

    /// Forgets what is gone for long.
    fn sweep(&mut self) {
        if self.swept.is_some_and(|swept| swept.elapsed() < MEMORY) {
            return;
        }
        self.swept = Some(Instant::now());
        self.names.retain(|_, entry| entry.gone.is_none_or(|gone| gone.elapsed() < MEMORY));
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

impl Named for Pod {
    const RESOURCE: &'static str = "pods";

    fn names(&self) -> (Name, Vec<Key>) {
        let spec = self.spec.as_ref();
        let name = Name {
            kind: "pod",
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            workload: workload(self),
            node: spec.and_then(|spec| spec.node_name.clone()),
        };
        let Some(status) = self.status.as_ref() else { return (name, Vec::new()) };
        // A pod that has finished keeps its address in the status, while another pod may have it already.
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return (name, Vec::new());
        }
        let listed = |text: Option<&String>| text.and_then(|text| address(text));
        let own = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
        let own: HashSet<IpAddr> = own.filter_map(address).collect();
        let host: HashSet<IpAddr> = status
            .host_ips
            .iter()
            .flatten()
            .filter_map(|ip| address(&ip.ip))
            .chain(listed(status.host_ip.as_ref()))
            .collect();
        let ports = spec.into_iter().flat_map(|spec| &spec.containers).flat_map(|it| it.ports.iter().flatten());
        let on_node = |port: Option<i32>| {
            let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            port.into_iter().flat_map(|port| host.iter().map(move |ip| Key::Port(*ip, port))).collect::<Vec<_>>()
        };
        let mut keys: Vec<Key> = Vec::new();
        if is_host_network(self) {
            // Its address is the node's; only its ports are its own.
            keys.extend(ports.flat_map(|port| on_node(Some(port.container_port))));
        } else {
            keys.extend(own.into_iter().map(Key::Address));
            keys.extend(ports.flat_map(|port| on_node(port.host_port)));
        }
        (name, keys)
    }
}

impl Named for Service {
    const RESOURCE: &'static str = "services";

    fn names(&self) -> (Name, Vec<Key>) {
        let name = Name {
            kind: "service",
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            workload: None,
            node: None,
        };
        let Some(spec) = self.spec.as_ref() else { return (name, Vec::new()) };
        let balancer = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
        let addresses: HashSet<IpAddr> = spec
            .cluster_ips
            .iter()
            .flatten()
            .chain(&spec.cluster_ip)
            .chain(spec.external_ips.iter().flatten())
            .chain(ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.as_ref()))
            .filter_map(|text| address(text))
            .collect();
        let node_ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
        let node_ports = node_ports.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        (name, addresses.into_iter().map(Key::Address).chain(node_ports.map(Key::NodePort)).collect())
    }
}

impl Named for Node {
    const RESOURCE: &'static str = "nodes";

    fn names(&self) -> (Name, Vec<Key>) {
        let name = Name { kind: "node", namespace: String::new(), name: self.name_any(), workload: None, node: None };
        let addresses = self.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let keys = addresses.filter_map(|it| address(&it.address)).map(Key::Address).collect();
        (name, keys)
    }
}

/// What made the pod, as kubectl would name it: `deploy/front-end`.
fn workload(pod: &Pod) -> Option<String> {
    if let Some(deployment) = deployment(pod) {
        return Some(format!("deploy/{deployment}"));
    }
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let name = owner.name.as_str();
    Some(match owner.kind.as_str() {
        // A static pod; its node is said anyway.
        "Node" => return None,
        "ReplicaSet" => format!("rs/{name}"),
        "StatefulSet" => format!("sts/{name}"),
        "DaemonSet" => format!("ds/{name}"),
        "Job" => cron_job(name).map_or_else(|| format!("job/{name}"), |cron| format!("cronjob/{cron}")),
        other => format!("{}/{name}", other.to_lowercase()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn learn<K: Named>(table: &mut Table, uid: &str, object: Value) {
        let object: K = serde_json::from_value(object).unwrap();
        let (name, keys) = object.names();
        table.put(uid.to_owned(), name, keys);
    }

    fn named(table: &Table, ip: &str, port: u16) -> String {
        table.get(ip.parse().unwrap(), port).map_or_else(String::new, |name| format!("{} {}", name.kind, name.name))
    }

    fn pod(name: &str, ip: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"nodeName": "node1", "containers": []},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": "fd00::7"}], "hostIP": "10.0.0.1"}})
    }

    #[test]
    fn pods_services_and_nodes_have_their_addresses() {
        let mut table = Table::default();
        learn::<Pod>(&mut table, "1", pod("web", "10.1.0.7"));
        learn::<Service>(
            &mut table,
            "2",
            json!({"metadata": {"name": "front"}, "spec": {"clusterIP": "10.2.0.1", "clusterIPs": ["10.2.0.1"],
                "externalIPs": ["192.0.2.1"], "ports": [{"port": 80, "nodePort": 30080}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "lb"}]}}}),
        );
        learn::<Service>(&mut table, "3", json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None"}}));
        let addresses =
            json!([{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "node1"}]);
        learn::<Node>(&mut table, "4", json!({"metadata": {"name": "node1"}, "status": {"addresses": addresses}}));
        for (ip, port, name) in [
            ("10.1.0.7", 80, "pod web"),
            ("fd00::7", 80, "pod web"),
            ("10.2.0.1", 80, "service front"),
            ("192.0.2.1", 80, "service front"),
            ("192.0.2.2", 80, "service front"),
            ("10.0.0.1", 22, "node node1"),
            ("10.0.0.1", 30080, "service front"),
            ("10.1.0.7", 30080, "pod web"),
            ("10.9.9.9", 80, ""),
        ] {
            assert_eq!(named(&table, ip, port), name, "{ip}:{port}");
        }
    }

    #[test]
    fn in_the_nodes_network_ports_tell_pods_apart() {
        let mut table = Table::default();
        let addresses = json!([{"type": "InternalIP", "address": "10.0.0.1"}]);
        learn::<Node>(&mut table, "1", json!({"metadata": {"name": "node1"}, "status": {"addresses": addresses}}));
        let mut proxy = pod("proxy", "10.0.0.1");
        proxy["spec"]["hostNetwork"] = json!(true);
        proxy["spec"]["containers"] = json!([{"name": "c", "ports": [{"containerPort": 9100}]}]);
        learn::<Pod>(&mut table, "2", proxy);
        let mut web = pod("web", "10.1.0.7");
        web["spec"]["containers"] = json!([{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]);
        learn::<Pod>(&mut table, "3", web);
        assert_eq!(named(&table, "10.0.0.1", 9100), "pod proxy");
        assert_eq!(named(&table, "10.0.0.1", 8080), "pod web");
        assert_eq!(named(&table, "10.0.0.1", 80), "node node1");
    }

    #[test]
    fn the_gone_are_remembered_until_another_has_their_address() {
        let mut table = Table::default();
        learn::<Pod>(&mut table, "1", pod("old", "10.1.0.7"));
        table.forget("1");
        assert_eq!(named(&table, "10.1.0.7", 80), "pod old");
        learn::<Pod>(&mut table, "2", pod("new", "10.1.0.7"));
        assert_eq!(named(&table, "10.1.0.7", 80), "pod new");
        // What ended long ago and is told again takes nothing back.
        let mut finished = pod("old", "10.1.0.7");
        finished["status"]["phase"] = json!("Succeeded");
        learn::<Pod>(&mut table, "1", finished);
        table.forget("1");
        assert_eq!(named(&table, "10.1.0.7", 80), "pod new");
    }

    #[test]
    fn pods_know_their_workload() {
        for (kind, owner, workload) in [
            ("ReplicaSet", "front-end-576", "deploy/front-end"),
            ("ReplicaSet", "alone", "rs/alone"),
            ("StatefulSet", "db", "sts/db"),
            ("DaemonSet", "log", "ds/log"),
            ("Job", "once", "job/once"),
            ("Job", "nightly-29384910", "cronjob/nightly"),
            ("Rollout", "canary", "rollout/canary"),
        ] {
            let mut pod = pod("x", "10.1.0.7");
            pod["metadata"]["labels"] = json!({"pod-template-hash": "576"});
            pod["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": kind, "name": owner, "uid": "1", "controller": true}]);
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(pod.names().0.workload.as_deref(), Some(workload));
        }
    }
}
