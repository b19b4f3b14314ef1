//! Capture pods that go on recording with nobody connected: which a node has, and whom they serve.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::super::client::Cluster;
use super::super::container::{LABEL, NODE_AGENT};
use super::super::error::{Error, Request};
use super::super::recording::{flag, recordings, records_the_same};
use super::job::INSTANCE;
use super::traffic::Share;

/// A capture pod that was armed at its start, and runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Armed {
    /// Its Job.
    pub(super) job: String,
    image: String,
    arguments: Vec<String>,
}

impl Armed {
    fn of(pod: &Pod) -> Option<Self> {
        let runs = pod.metadata.deletion_timestamp.is_none() && !recordings(pod).is_empty();
        let container = pod.spec.as_ref()?.containers.first().filter(|_| runs)?;
        let arguments = container.args.clone().unwrap_or_default();
        flag(&arguments, "--armed-for")?;
        let job = pod.labels().get(INSTANCE)?.clone();
        Some(Self { job, image: container.image.clone().unwrap_or_default(), arguments })
    }

    /// True if it records what an agent of that image with these arguments would.
    pub(super) fn is_like(&self, image: &str, arguments: &[String]) -> bool {
        self.image == image && records_the_same(&self.arguments, arguments)
    }

    /// True if it records that share. Its filter is as it was at its start: nobody else has it changed.
    pub(super) fn covers(&self, share: &Share) -> bool {
        flag(&self.arguments, "--filter-text").is_some_and(|text| share.is_in(text))
    }
}

/// Those of a node, newest first.
///
/// # Errors
/// If they cannot be listed.
pub(super) async fn on_node(cluster: &Cluster, namespace: &str, node: &str) -> Result<Vec<Armed>, Error> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let request = Request { verb: "list", resource: "pods", name: "", namespace: Some(namespace) };
    let ours = ListParams::default().labels(&format!("{LABEL}={NODE_AGENT}")).fields(&format!("spec.nodeName={node}"));
    let mut pods = cluster.ask(&request, api.list(&ours)).await?.items;
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.creation_timestamp()));
    Ok(pods.iter().filter_map(Armed::of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_those_that_run_and_are_armed_count() {
        let pod = |arguments: &[&str], state: &str| {
            let pod = json!({"metadata": {"name": "x-1", "labels": {LABEL: NODE_AGENT, INSTANCE: "x"}},
                "spec": {"containers": [{"name": NODE_AGENT, "image": "agent:1", "args": arguments}]},
                "status": {"containerStatuses": [{"name": NODE_AGENT, "image": "", "imageID": "", "ready": true,
                    "restartCount": 0, "state": {state: {"exitCode": 0}}}]}});
            Armed::of(&serde_json::from_value(pod).unwrap())
        };
        let armed = ["run", "--filter-text=ip host 10.0.0.1", "--buffer=16384Ki", "--armed-for=60"];
        let there = pod(&armed, "running").unwrap();
        assert_eq!(there.job, "x");
        assert_eq!((pod(&armed[..3], "running"), pod(&armed, "terminated")), (None, None));
        let like = |image: &str, arguments: &[&str]| {
            there.is_like(image, &arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert!(like("agent:1", &[&armed[..3], &["--armed-for=9"]].concat()));
        assert!(!like("agent:2", &armed) && !like("agent:1", &armed[..2]));
    }
}
