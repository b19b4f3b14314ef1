//! Objects that have pods, named as `KIND/NAME`: which labels their pods have, and which pods are theirs.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::{Metadata, NamespaceResourceScope};
use kube::core::{ObjectMeta, Selector};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::client::Cluster;
use super::error::{Error, Request};
use super::select::Scope;

/// Kinds that can be named as `KIND/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    ReplicationController,
    Job,
    CronJob,
    Service,
}

/// A kind, its resource in RBAC rules, and what kubectl's users call it.
const KINDS: &[(Kind, &str, &[&str])] = &[
    (Kind::Pod, "pods", &["pod", "pods", "po"]),
    (Kind::Deployment, "deployments.apps", &["deployment", "deployments", "deploy"]),
    (Kind::StatefulSet, "statefulsets.apps", &["statefulset", "statefulsets", "sts"]),
    (Kind::DaemonSet, "daemonsets.apps", &["daemonset", "daemonsets", "ds"]),
    (Kind::ReplicaSet, "replicasets.apps", &["replicaset", "replicasets", "rs"]),
    (Kind::ReplicationController, "replicationcontrollers", &["replicationcontroller", "replicationcontrollers", "rc"]),
    (Kind::Job, "jobs.batch", &["job", "jobs"]),
    (Kind::CronJob, "cronjobs.batch", &["cronjob", "cronjobs", "cj"]),
    (Kind::Service, "services", &["service", "services", "svc"]),
];

impl Kind {
    /// From what kubectl's users call it, `deployment.apps` as kubectl prints it included.
    ///
    /// # Errors
    /// If it is no kind that has pods.
    pub(super) fn parse(kind: &str) -> Result<Self, Error> {
        let word = kind.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let known = KINDS.iter().find(|(_, _, words)| words.contains(&word.as_str()));
        known.map(|(kind, ..)| *kind).ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().filter_map(|(_, _, words)| words.last().copied()).collect();
            Error::new(format!("{kind:?} is no kind that has pods"))
                .hint(format!("one of {}; pod names have no slash", names.join(", ")))
        })
    }

    fn resource(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("pods", |(_, resource, _)| resource)
    }

    /// In the singular, for people.
    pub(super) fn word(self) -> &'static str {
        let words = KINDS.iter().find(|(kind, ..)| *kind == self).map(|(_, _, words)| *words);
        words.and_then(|words| words.first().copied()).unwrap_or_default()
    }

    /// Selectors that all its pods match; none if it is not there.
    pub(super) async fn narrow(self, cluster: &Cluster, namespace: &str, name: &str) -> Result<Option<Scope>, Error> {
        let scope = |labels: Option<String>, fields: Option<String>| Scope { namespace: None, labels, fields };
        let of_labels = |selector: Option<&LabelSelector>| scope(selector.and_then(as_query), None);
        let get = Get { cluster, namespace, name, resource: self.resource() };
        Ok(match self {
            // It may come yet.
            Self::Pod => Some(scope(None, Some(format!("metadata.name={name}")))),
            Self::Deployment => {
                get.one::<Deployment>().await?.map(|it| of_labels(it.spec.as_ref().map(|it| &it.selector)))
            }
            Self::StatefulSet => {
                get.one::<StatefulSet>().await?.map(|it| of_labels(it.spec.as_ref().map(|it| &it.selector)))
            }
            Self::DaemonSet => {
                get.one::<DaemonSet>().await?.map(|it| of_labels(it.spec.as_ref().map(|it| &it.selector)))
            }
            Self::ReplicaSet => {
                get.one::<ReplicaSet>().await?.map(|it| of_labels(it.spec.as_ref().map(|it| &it.selector)))
            }
            Self::ReplicationController => {
                let labels = get.one::<ReplicationController>().await?;
                labels.map(|it| scope(it.spec.and_then(|it| it.selector).map(equalities), None))
            }
            Self::Job => get.one::<Job>().await?.map(|it| of_labels(it.spec.and_then(|it| it.selector).as_ref())),
            // Its jobs come and go; each has this label.
            Self::CronJob => get.one::<CronJob>().await?.map(|_| scope(Some("job-name".to_owned()), None)),
            Self::Service => match get.one::<Service>().await? {
                None => None,
                Some(service) => {
                    match service.spec.and_then(|spec| spec.selector).filter(|labels| !labels.is_empty()) {
                        Some(labels) => Some(scope(Some(equalities(labels)), None)),
                        None => {
                            return Err(Error::new(format!(
                                "service {name} in namespace {namespace} selects no pods: its spec has no selector"
                            )));
                        }
                    }
                }
            },
        })
    }

    /// True if the pod, which matches the selectors, is one of the object's.
    pub(super) fn has(self, name: &str, pod: &Pod) -> bool {
        let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        let owned = |kind: &str| owner.is_some_and(|owner| owner.kind == kind && owner.name == name);
        match self {
            Self::Pod => pod.name_any() == name,
            Self::Service => true,
            Self::Deployment => deployment(pod).is_some_and(|deployment| deployment == name),
            Self::StatefulSet => owned("StatefulSet"),
            Self::DaemonSet => owned("DaemonSet"),
            Self::ReplicaSet => owned("ReplicaSet"),
            Self::ReplicationController => owned("ReplicationController"),
            Self::Job => owned("Job"),
            Self::CronJob => {
                owner.is_some_and(|owner| owner.kind == "Job" && cron_job(&owner.name).is_some_and(|cron| cron == name))
            }
        }
    }
}

/// The deployment that a pod belongs to: its replica set's name without the hash that both carry.
pub(super) fn deployment(pod: &Pod) -> Option<&str> {
    let owner =
        pod.owner_references().iter().find(|owner| owner.controller == Some(true) && owner.kind == "ReplicaSet")?;
    let hash = pod.labels().get("pod-template-hash")?;
    owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')
}

/// The cron job that made a job: its name without the minute (or, before 1.21, second) that it was due.
pub(super) fn cron_job(job: &str) -> Option<&str> {
    let (name, due) = job.rsplit_once('-')?;
    (due.len() >= 8 && due.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// A label selector as the API's query takes it; none if it selects all.
fn as_query(selector: &LabelSelector) -> Option<String> {
    let selector: Selector = selector.clone().try_into().ok()?;
    Some(selector.to_string()).filter(|query| !query.is_empty())
}

fn equalities(labels: impl IntoIterator<Item = (String, String)>) -> String {
    let pairs: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// Asks for an object by name.
struct Get<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    name: &'a str,
    resource: &'static str,
}

impl Get<'_> {
    async fn one<K>(&self) -> Result<Option<K>, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Metadata<Ty = ObjectMeta>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let request =
            Request { verb: "get", resource: self.resource, name: self.name, namespace: Some(self.namespace) };
        let api: Api<K> = Api::namespaced(self.cluster.client.clone(), self.namespace);
        self.cluster.ask(&request, api.get_opt(self.name)).await
    }
}
