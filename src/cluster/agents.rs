//! The agents that are in pods, whoever put them there: what they record, and their end.

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};

use super::client::Cluster;
use super::error::Error;
use super::exec::{self, Where};
use super::recording::recordings;
use super::select::Selection;
use crate::capture::Probes;

/// Agents that are asked at once.
const AT_ONCE: usize = 16;

/// How long a node may take to tell that an agent has ended.
const TOLD: Duration = Duration::from_secs(4);

/// An agent that runs in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The node that it is on.
    pub node: String,
    /// The agent's container.
    pub container: String,
}

impl Place {
    fn of(pod: &Pod, container: String) -> Self {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        Self { namespace: pod.namespace().unwrap_or_default(), pod: pod.name_any(), node, container }
    }

    fn inside(&self) -> Where<'_> {
        Where { namespace: &self.namespace, pod: &self.pod, container: &self.container }
    }
}

/// What an agent tells of itself; times are seconds since the Unix epoch.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all(serialize = "camelCase"))]
pub struct Status {
    pub version: String,
    pub backend: String,
    /// Seconds since its start.
    pub age: u64,
    /// Packets captured so far.
    pub packets: u64,
    /// Numbers of the first packet that it still has, and of the next that comes.
    pub first: u64,
    pub next: u64,
    /// Seconds of time that the packets in its buffer go back.
    pub span: f64,
    /// Packets that were left out since another interface of the node had just seen them; none for an agent in a pod.
    #[serde(default)]
    pub repeated: Option<u64>,
    /// Packets that the kernel dropped.
    pub drops: u64,
    /// Packets that the snaplen cut.
    pub cut: u64,
    /// Packets that had to make room for later ones.
    pub flushed: u64,
    /// Those among them that a session had not read, once for each session.
    pub missed: u64,
    /// What its probes for TLS keys have come to, if it has any.
    #[serde(default)]
    pub tls: Option<Probes>,
    pub buffer: Buffer,
    /// Resident memory in bytes.
    pub memory: Option<u64>,
    /// Its capture filter; empty for all packets.
    pub filter: String,
    pub snaplen: u32,
    /// Until when it stays without a session, if it was told to.
    pub armed_until: Option<f64>,
    /// In how many seconds it leaves if nobody comes; none while somebody reads.
    pub leaves: Option<u64>,
    pub sessions: Vec<Reader>,
}

/// An agent's buffer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Buffer {
    /// `memory` or `disk`.
    pub on: String,
    /// In bytes.
    pub size: u64,
    pub used: u64,
}

/// Who reads from an agent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reader {
    pub reader: String,
    pub since: f64,
    pub packets: u64,
    pub bytes: u64,
    pub missed: u64,
}

/// The agents that run in the pods of `selection`, by namespace, pod and age.
///
/// # Errors
/// If the pods cannot be listed.
pub async fn list(cluster: &Cluster, selection: &Selection) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    for pod in selection.all(cluster).await? {
        let agents = recordings(&pod).into_iter().rev();
        places.extend(agents.map(|recording| Place::of(&pod, recording.container)));
    }
    places.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
    Ok(places)
}

/// What each of them tells of itself, in the same order; those that have ended meanwhile are left out.
pub async fn status(cluster: &Cluster, places: Vec<Place>) -> Vec<(Place, Result<Status, Error>)> {
    let ask = |place: Place| async move {
        let answer = exec::ask(cluster, place.inside(), &["status"]).await.and_then(|line| {
            serde_json::from_str(&line).map_err(|error| {
                let Place { namespace, pod, container, .. } = &place;
                Error::new(format!("{container} in {namespace}/{pod} is of another version: {error}"))
            })
        });
        // A node takes a second or so to tell that an agent has ended.
        if answer.is_err() && !runs_still(cluster, &place).await { None } else { Some((place, answer)) }
    };
    stream::iter(places).map(ask).buffered(AT_ONCE).filter_map(std::future::ready).collect().await
}

/// False once the node has told that the agent has ended.
async fn runs_still(cluster: &Cluster, place: &Place) -> bool {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &place.namespace);
    let since = Instant::now();
    loop {
        let Some(Ok(pod)) = cluster.answer(api.get_opt(&place.pod)).await else { return true };
        let runs = pod.is_some_and(|pod| recordings(&pod).iter().any(|it| it.container == place.container));
        if !runs || since.elapsed() > TOLD {
            return runs;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Ends each of them, in the same order.
pub async fn stop(cluster: &Cluster, places: Vec<Place>) -> Vec<(Place, Result<(), Error>)> {
    let end = |place: Place| async move {
        let answer = exec::ask(cluster, place.inside(), &["stop"]).await.map(drop);
        // Who lists agents next should not see it any more.
        let answer = if runs_still(cluster, &place).await { answer } else { Ok(()) };
        (place, answer)
    };
    stream::iter(places).map(end).buffered(AT_ONCE).collect().await
}
