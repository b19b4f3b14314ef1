//! Which pods: what the command line says, compiled, and its verdict on a pod.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use regex::Regex;

use super::client::Cluster;
use super::container::is_capture_pod;
use super::error::{Error, Request};
use super::flags::{Select, Via};
use super::workload::Kind;

/// The annotation of a static pod's image in the API server, which cannot be changed.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Which pods, as the command line says.
#[derive(Clone, Debug)]
pub struct Selection {
    what: What,
    exclude: Vec<Regex>,
    allow_host_network: bool,
    via: Via,
    /// Empty for all.
    namespaces: Vec<String>,
    labels: Option<String>,
    fields: Option<String>,
    pub(super) max_targets: usize,
}

#[derive(Clone, Debug)]
enum What {
    /// Pods whose names match.
    Name(Regex),
    /// Pods of a workload, or behind a service.
    Of(Kind, String),
}

/// What the API server is asked to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// None for all.
    pub(super) namespace: Option<String>,
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

/// What is to be done about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was not asked for.
    Other,
    /// It was, and can be sniffed now.
    Take,
    /// It was, but is not there yet.
    Wait,
    /// It was, but cannot be sniffed, for this reason.
    Skip(&'static str),
}

impl Selection {
    /// Compiles what the command line says; `namespace` is the context's.
    ///
    /// # Errors
    /// If it is no regular expression, no known kind, or contradicts itself.
    pub fn new(select: &Select, namespace: &str) -> Result<Self, Error> {
        let what = match select.pods.as_deref() {
            Some(pods) => What::parse(pods)?,
            None => What::Name(regex("")?),
        };
        if select.all_namespaces
            && let (What::Of(..), Some(pods)) = (&what, &select.pods)
        {
            return Err(Error::new(format!("{pods} is an object of one namespace, and -A looks in all"))
                .hint("-n NAMESPACE, or a regular expression"));
        }
        let mut namespaces = select.namespace.clone();
        namespaces.retain(|namespace| !namespace.is_empty());
        if namespaces.is_empty() && !select.all_namespaces {
            namespaces.push(namespace.to_owned());
        }
        namespaces.sort();
        namespaces.dedup();
        Ok(Self {
            what,
            exclude: select.exclude.iter().map(|pattern| regex(pattern)).collect::<Result<_, _>>()?,
            allow_host_network: select.allow_host_network,
            via: Via::Pod,
            namespaces,
            labels: select.selector.clone(),
            fields: select.field_selector.clone(),
            max_targets: select.max_targets,
        })
    }

    /// The same, for agents that run there: from a node, pods can be captured that take no agent.
    #[must_use]
    pub fn via(self, via: Via) -> Self {
        Self { via, ..self }
    }

    /// The namespaces to look in; empty for all.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// What to watch. Asks the API server for the selector of a workload or service.
    ///
    /// # Errors
    /// If there is no such workload, or it may not be read.
    pub(super) async fn scopes(&self, cluster: &Cluster) -> Result<Vec<Scope>, Error> {
        let What::Of(kind, name) = &self.what else {
            let of = |namespace| Scope { namespace, labels: self.labels.clone(), fields: self.fields.clone() };
            if self.namespaces.is_empty() {
                return Ok(vec![of(None)]);
            }
            return Ok(self.namespaces.iter().map(|namespace| of(Some(namespace.clone()))).collect());
        };
        let mut scopes = Vec::new();
        for namespace in &self.namespaces {
            let Some(narrowed) = kind.narrow(cluster, namespace, name).await? else { continue };
            let both = |ours: &Option<String>, theirs: Option<String>| match (ours, theirs) {
                (Some(ours), Some(theirs)) => Some(format!("{ours},{theirs}")),
                (ours, theirs) => ours.clone().or(theirs),
            };
            scopes.push(Scope {
                namespace: Some(namespace.clone()),
                labels: both(&self.labels, narrowed.labels),
                fields: both(&self.fields, narrowed.fields),
            });
        }
        if scopes.is_empty() {
            let (word, namespaces) = (kind.word(), self.namespaces.join(", "));
            return Err(Error::new(format!("there is no {word} {name:?} in namespace {namespaces}"))
                .hint(format!("kubectl get {word} -A")));
        }
        Ok(scopes)
    }

    /// The pods that would be sniffed now, as `namespace` and `name`, in that order.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn list(&self, cluster: &Cluster) -> Result<Vec<(String, String)>, Error> {
        let mut found = Vec::new();
        for scope in self.scopes(cluster).await? {
            let pods = pods(cluster, scope).await?;
            let taken = pods.iter().filter(|pod| self.judge(pod) == Verdict::Take);
            found.extend(taken.map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any())));
        }
        found.sort();
        found.truncate(self.max_targets);
        Ok(found)
    }

    /// All pods that are meant and there, whether they can be sniffed or not.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub(super) async fn all(&self, cluster: &Cluster) -> Result<Vec<Pod>, Error> {
        let mut found = Vec::new();
        for scope in self.scopes(cluster).await? {
            found.extend(pods(cluster, scope).await?.into_iter().filter(|pod| self.judge(pod) != Verdict::Other));
        }
        Ok(found)
    }

    /// What is to be done about a pod of the scopes.
    pub(super) fn judge(&self, pod: &Pod) -> Verdict {
        let name = pod.name_any();
        let selected = match &self.what {
            What::Name(pattern) => pattern.is_match(&name),
            What::Of(kind, owner) => kind.has(owner, pod),
        };
        if !selected || self.exclude.iter().any(|pattern| pattern.is_match(&name)) {
            return Verdict::Other;
        }
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            return Verdict::Skip("it has finished");
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return Verdict::Skip("it is being deleted");
        }
        if is_capture_pod(pod) {
            // It has nothing to say but what others say. It is meant only by who asks for agents.
            return Verdict::Wait;
        }
        let is_static = pod.annotations().contains_key(MIRROR);
        if is_static && self.via == Via::Pod {
            return Verdict::Skip("it is a static pod, which takes no ephemeral container; --via node captures it");
        }
        let windows = spec.is_some_and(|spec| {
            let node = spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
            spec.os.as_ref().is_some_and(|os| os.name == "windows") || node.is_some_and(|os| os == "windows")
        });
        if windows {
            return Verdict::Skip("it runs on Windows");
        }
        if is_host_network(pod) && !self.allow_host_network {
            match self.via {
                Via::Pod => {
                    return Verdict::Skip(
                        "it is in the node's network, and would see all of its traffic; --allow-host-network takes it, \
                         --via node only what its ports say",
                    );
                }
                Via::Node if ports(pod).is_empty() => {
                    return Verdict::Skip(
                        "it is in the node's network and declares no ports by which its packets could be told; \
                         --allow-host-network takes all of the node's traffic",
                    );
                }
                Via::Node => {}
            }
        }
        // With its address it has a sandbox: what its init containers say can be seen too.
        let has_address = status.and_then(|status| status.pod_ip.as_ref()).is_some_and(|ip| !ip.is_empty());
        if has_address { Verdict::Take } else { Verdict::Wait }
    }
}

/// The pods of a scope.
async fn pods(cluster: &Cluster, scope: Scope) -> Result<Vec<Pod>, Error> {
    let api: Api<Pod> = match &scope.namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let request = Request { verb: "list", resource: "pods", name: "", namespace: scope.namespace.as_deref() };
    let choice = ListParams { label_selector: scope.labels, field_selector: scope.fields, ..Default::default() };
    Ok(cluster.ask(&request, api.list(&choice)).await?.items)
}

/// True for a pod without a network of its own.
pub(super) fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// The ports that a pod declares, as (`tcp`, 80).
pub(super) fn ports(pod: &Pod) -> Vec<(&'static str, u16)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let declared = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut ports: Vec<_> = declared
        .filter_map(|port| {
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => "udp",
                Some("SCTP") => "sctp",
                _ => "tcp",
            };
            Some((protocol, u16::try_from(port.container_port).ok()?))
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn regex(pattern: &str) -> Result<Regex, Error> {
    Regex::new(pattern).map_err(|error| {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let error = Error::new(format!("{pattern:?} is no regular expression: {why}"));
        if pattern.starts_with('*') { error.hint(format!(".{pattern} stands for any beginning")) } else { error }
    })
}

impl What {
    fn parse(pods: &str) -> Result<Self, Error> {
        let Some((kind, name)) = pods.split_once('/') else { return regex(pods).map(Self::Name) };
        let kind = Kind::parse(kind)?;
        if name.is_empty() || name.contains('/') {
            return Err(Error::new(format!("{pods:?} names no object")).hint("KIND/NAME, as deploy/front-end"));
        }
        Ok(Self::Of(kind, name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn selection(pods: &str) -> Selection {
        Selection::new(&Select { pods: Some(pods.to_owned()), ..Select::default() }, "shop").unwrap()
    }

    fn pod(name: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"containers": []}, "status": {"phase": "Running", "podIP": "10.0.0.1"}})
    }

    fn judge(selection: &Selection, pod: Value) -> Verdict {
        selection.judge(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn names_are_matched_anywhere() {
        let both = selection("(catalo*|front-end*)");
        for name in ["catalogue-86585bd55d-hhnxq", "catalogue-db-0", "front-end-5769674456-jcs22", "my-front-end"] {
            assert_eq!(judge(&both, pod(name)), Verdict::Take, "{name}");
        }
        assert_eq!(judge(&both, pod("carts-68d4f8678f-6k52p")), Verdict::Other);
        assert_eq!(judge(&selection("^catalogue-[^-]*-[^-]*$"), pod("catalogue-db-0")), Verdict::Take);
        assert_eq!(judge(&selection("^front$"), pod("front-end")), Verdict::Other);
        let select = Select { pods: Some("catalogue".into()), exclude: vec!["-db-".into()], ..Select::default() };
        assert_eq!(judge(&Selection::new(&select, "shop").unwrap(), pod("catalogue-db-0")), Verdict::Other);
    }

    #[test]
    fn what_cannot_be_sniffed_is_left_out_with_the_reason() {
        for (path, value, reason) in [
            ("/status/phase", json!("Succeeded"), "it has finished"),
            ("/status/phase", json!("Failed"), "it has finished"),
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"), "it is being deleted"),
            (
                "/metadata/annotations",
                json!({MIRROR: "x"}),
                "it is a static pod, which takes no ephemeral container; --via node captures it",
            ),
            ("/spec/os", json!({"name": "windows"}), "it runs on Windows"),
            ("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"}), "it runs on Windows"),
        ] {
            let mut pod = pod("web");
            let (parent, key) = path.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value;
            assert_eq!(judge(&selection("web"), pod.clone()), Verdict::Skip(reason), "{path}");
            assert_eq!(judge(&selection("other"), pod), Verdict::Other, "{path}");
        }
        let mut pending = pod("web");
        pending["status"] = json!({"phase": "Pending"});
        assert_eq!(judge(&selection("web"), pending.clone()), Verdict::Wait);
        pending["status"] = json!({"phase": "Pending", "podIP": "10.0.0.1"});
        assert_eq!(judge(&selection("web"), pending), Verdict::Take);
    }

    #[test]
    fn the_nodes_network_needs_a_flag() {
        let mut host = pod("web");
        host["spec"]["hostNetwork"] = json!(true);
        let verdict = judge(&selection("web"), host.clone());
        assert!(matches!(verdict, Verdict::Skip(why) if why.contains("--allow-host-network")), "{verdict:?}");
        let select = Select { pods: Some("web".into()), allow_host_network: true, ..Select::default() };
        assert_eq!(judge(&Selection::new(&select, "shop").unwrap(), host), Verdict::Take);
    }

    #[test]
    fn nodes_capture_what_takes_no_agent() {
        let via_node = |select: Select| Selection::new(&select, "shop").unwrap().via(Via::Node);
        let select = Select { pods: Some("web".into()), ..Select::default() };
        let mut fixed = pod("web");
        fixed["metadata"]["annotations"] = json!({MIRROR: "x"});
        assert_eq!(judge(&via_node(select.clone()), fixed), Verdict::Take);
        let mut host = pod("web");
        host["spec"]["hostNetwork"] = json!(true);
        let verdict = judge(&via_node(select.clone()), host.clone());
        assert!(matches!(verdict, Verdict::Skip(why) if why.contains("declares no ports")), "{verdict:?}");
        let all = Select { allow_host_network: true, ..select.clone() };
        assert_eq!(judge(&via_node(all), host.clone()), Verdict::Take);
        host["spec"]["containers"] = json!([{"name": "c", "ports": [{"containerPort": 80}]}]);
        assert_eq!(judge(&via_node(select), host), Verdict::Take);
    }

    #[test]
    fn workloads_have_only_their_own_pods() {
        let owned = |kind: &str, owner: &str| {
            let mut pod = pod("x");
            pod["metadata"]["labels"] = json!({"pod-template-hash": "5769674456"});
            pod["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": kind, "name": owner, "uid": "1", "controller": true}]);
            pod
        };
        for (what, kind, owner, verdict) in [
            ("deploy/front-end", "ReplicaSet", "front-end-5769674456", Verdict::Take),
            ("deployments/front", "ReplicaSet", "front-end-5769674456", Verdict::Other),
            ("Deployment.apps/front-end", "ReplicaSet", "front-end-1", Verdict::Other),
            ("rs/front-end-5769674456", "ReplicaSet", "front-end-5769674456", Verdict::Take),
            ("sts/db", "StatefulSet", "db", Verdict::Take),
            ("sts/db", "StatefulSet", "db-2", Verdict::Other),
            ("ds/log", "DaemonSet", "log", Verdict::Take),
            ("job/once", "Job", "once", Verdict::Take),
            ("cj/nightly", "Job", "nightly-29384910", Verdict::Take),
            ("cronjob/nightly", "Job", "nightly-by-hand", Verdict::Other),
            ("svc/front-end", "Rollout", "front-end", Verdict::Take),
            ("po/x", "ReplicaSet", "y", Verdict::Take),
            ("po/y", "ReplicaSet", "y", Verdict::Other),
        ] {
            assert_eq!(judge(&selection(what), owned(kind, owner)), verdict, "{what} of {kind} {owner}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let error = |select: Select| Selection::new(&select, "shop").unwrap_err();
        let wrong = error(Select { pods: Some("*front".into()), ..Select::default() });
        assert!(wrong.message.starts_with("\"*front\" is no regular expression: repetition"), "{wrong}");
        assert_eq!(wrong.hint.as_deref(), Some(".*front stands for any beginning"));
        let wrong = error(Select { pods: Some("node/x".into()), ..Select::default() });
        assert_eq!(wrong.message, "\"node\" is no kind that has pods");
        let wrong = error(Select { pods: Some("deploy/x".into()), all_namespaces: true, ..Select::default() });
        assert_eq!(wrong.message, "deploy/x is an object of one namespace, and -A looks in all");
        assert_eq!(
            error(Select { pods: Some("deploy/".into()), ..Select::default() }).message,
            "\"deploy/\" names no object"
        );
    }

    #[test]
    fn the_contexts_namespace_is_the_default() {
        assert_eq!(selection("x").namespaces(), ["shop"]);
        let select = Select { namespace: vec!["b".into(), "a".into(), "b".into(), String::new()], ..Select::default() };
        assert_eq!(Selection::new(&select, "shop").unwrap().namespaces(), ["a", "b"]);
        let select = Select { all_namespaces: true, ..Select::default() };
        assert!(Selection::new(&select, "shop").unwrap().namespaces().is_empty());
    }
}
