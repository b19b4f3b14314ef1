//! The capture pod of a node, and the Job that makes it.
//!
//! A Job, so that it goes by itself: the agent leaves some time after its last session, the pod is then completed, and the
//! cluster deletes a finished Job with its pod. A client that is killed leaves nothing behind.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::Status;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::super::client::Cluster;
use super::super::container::{LABEL, NODE_AGENT, PROGRAM, RING, security};
use super::super::error::{Error, Request, is_rbac};
use super::super::flags::{Backend, BufferOn, Mode, Options};
use crate::capture::filter::Filter;

/// The label of a capture pod that tells whose it is: the Job's name.
pub(super) const INSTANCE: &str = "app.kubernetes.io/instance";

/// How long a finished Job stays, in seconds: long enough to be looked at by whoever waits for its end.
const FINISHED: u32 = 5;

/// How long a pod that is deleted has to end, in seconds.
const GRACE: u32 = 5;

/// Memory that an agent takes besides ring and buffer, at most, in bytes: its sessions and its table of packets seen.
const BESIDES: u64 = 24 << 20;

/// The agent's command line.
pub(super) fn arguments(node: &str, filter: &Filter, options: &Options) -> Vec<String> {
    let mut arguments = vec![
        "run".to_owned(),
        format!("--pod=node/{node}"),
        "--once-per-packet".to_owned(),
        format!("--filter={}", filter.program),
        format!("--filter-text={}", filter.text),
        format!("--buffer={}Ki", options.buffer >> 10),
        format!("--ring={}Ki", RING >> 10),
        format!("--ttl={}", options.ttl.as_secs()),
    ];
    if options.snaplen > 0 {
        arguments.push(format!("--snaplen={}", options.snaplen));
    }
    if options.backend != Backend::default() {
        arguments.push(format!("--backend={}", options.backend.name()));
    }
    if options.buffer_on == BufferOn::Disk {
        arguments.push("--buffer-on=disk".to_owned());
    }
    if let Mode::Arm(time) = options.mode {
        arguments.push(format!("--armed-for={}", time.as_secs()));
    }
    arguments
}

/// The pod's spec and labels.
fn template(name: &str, node: &str, filter: &Filter, options: &Options) -> Value {
    let on_disk = options.buffer_on == BufferOn::Disk;
    let memory = RING + BESIDES + if on_disk { 0 } else { options.buffer };
    let mut spec = json!({
        "hostNetwork": true,
        // Whatever keeps other pods off a node: this one is bound to it, and goes by itself.
        "tolerations": [{"operator": "Exists"}],
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE,
        "containers": [{
            "name": NODE_AGENT,
            "image": options.image,
            "imagePullPolicy": options.pull_policy.name(),
            "command": [PROGRAM],
            "args": arguments(node, filter, options),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "resources": {"requests": {"cpu": "10m", "memory": memory.to_string()}, "limits": {"memory": memory.to_string()}},
            "securityContext": security(options),
        }],
    });
    if !node.is_empty() {
        spec["nodeName"] = json!(node);
    }
    json!({"metadata": {"labels": {LABEL: NODE_AGENT, INSTANCE: name}}, "spec": spec})
}

/// The Job of that name.
pub(super) fn job(name: &str, node: &str, filter: &Filter, options: &Options) -> Result<Job, Error> {
    let job = json!({
        "metadata": {"name": name, "labels": {LABEL: NODE_AGENT, INSTANCE: name}},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": FINISHED,
            "template": template(name, node, filter, options),
        },
    });
    serde_json::from_value(job).map_err(|fault| Error::new(format!("the capture pod makes no sense: {fault}")))
}

/// Asks whether the namespace takes such a pod: a Job is taken anywhere, and would wait for its pod in vain.
///
/// # Errors
/// Why not. Where the user may not ask, trying will tell.
pub(in crate::cluster) async fn admit(cluster: &Cluster, options: &Options) -> Result<(), Error> {
    let namespace = options.via_namespace.as_str();
    let filter = Filter { text: "no pod".to_owned(), program: "1,6 0 0 0".to_owned() };
    let mut pod = template("dry-run", "", &filter, options);
    pod["metadata"]["generateName"] = json!(format!("{NODE_AGENT}-"));
    let pod: Pod = serde_json::from_value(pod).map_err(|fault| Error::new(fault.to_string()))?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let request = Request { verb: "create", resource: "pods", name: "", namespace: Some(namespace) };
    match cluster.answer(api.create(&dry_run, &pod)).await {
        None => Err(cluster.silent(&request)),
        Some(Ok(_)) => Ok(()),
        Some(Err(kube::Error::Api(status))) if is_rbac(&status) || is_no_dry_run(&status) => Ok(()),
        Some(Err(kube::Error::Api(status))) if status.code == 404 => {
            Err(Error::new(format!("there is no namespace {namespace:?} for capture pods"))
                .hint("--via-namespace names another one"))
        }
        Some(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 403 | 406 | 422) => {
            Err(refused(namespace, status.message.trim()))
        }
        Some(Err(error)) => Err(Error::of(&request, &cluster.server, &error)),
    }
}

fn is_no_dry_run(status: &Status) -> bool {
    status.code == 400 && status.message.contains("dry run")
}

/// The namespace does not take the pod, for which `why` is the cluster's word.
fn refused(namespace: &str, why: &str) -> Error {
    let error = Error::new(format!("namespace {namespace} takes no capture pod: {why}"));
    if why.contains("PodSecurity") {
        return error.hint(format!(
            "--via-namespace names one that does, such as kube-system; or, if you may decide so: \
             kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=privileged"
        ));
    }
    error.hint("--via-namespace names another one")
}

/// Makes a Job.
///
/// # Errors
/// What the cluster says.
pub(super) async fn create(cluster: &Cluster, namespace: &str, job: &Job) -> Result<(), Error> {
    let api: Api<Job> = Api::namespaced(cluster.client.clone(), namespace);
    let request = Request { verb: "create", resource: "jobs.batch", name: "", namespace: Some(namespace) };
    cluster.ask(&request, api.create(&PostParams::default(), job)).await.map(drop)
}

/// Deletes a Job and its pod. That it is gone already is as well.
pub(super) async fn delete(cluster: &Cluster, namespace: &str, name: &str) -> Result<(), Error> {
    let api: Api<Job> = Api::namespaced(cluster.client.clone(), namespace);
    let request = Request { verb: "delete", resource: "jobs.batch", name, namespace: Some(namespace) };
    match cluster.answer(api.delete(name, &DeleteParams::background())).await {
        None => Err(cluster.silent(&request)),
        Some(Ok(_)) => Ok(()),
        Some(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Some(Err(error)) => Err(Error::of(&request, &cluster.server, &error)),
    }
}

/// Why a Job has no pod yet, if its events tell.
pub(super) async fn complaint(cluster: &Cluster, namespace: &str, name: &str) -> Option<Error> {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
    let of_job = format!("involvedObject.kind=Job,involvedObject.name={name},reason=FailedCreate");
    let events = cluster.answer(api.list(&ListParams::default().fields(&of_job))).await?.ok()?;
    let event = events.items.into_iter().max_by_key(ResourceExt::creation_timestamp)?;
    let message = event.message.unwrap_or_default();
    // `Error creating: pods "x" is forbidden: …`
    Some(refused(namespace, message.trim_start_matches("Error creating: ").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_pod_has_the_one_capability_and_goes_by_itself() {
        let filter = Filter { text: "ip host 10.0.0.1".to_owned(), program: "1,6 0 0 1".to_owned() };
        let job = job("sniff-agent-x", "node1", &filter, &Options::default()).unwrap();
        let job = serde_json::to_value(job).unwrap();
        assert_eq!(job["spec"]["backoffLimit"], 0);
        assert_eq!(job["spec"]["ttlSecondsAfterFinished"], FINISHED);
        let pod = &job["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], "sniff-agent");
        let spec = &pod["spec"];
        assert_eq!((&spec["nodeName"], &spec["hostNetwork"]), (&json!("node1"), &json!(true)));
        assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
        assert_eq!(spec["automountServiceAccountToken"], false);
        let container = &spec["containers"][0];
        assert_eq!(
            container["securityContext"],
            json!({
                "allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]},
                "privileged": false, "readOnlyRootFilesystem": true, "runAsNonRoot": false, "runAsUser": 0,
                "seccompProfile": {"type": "RuntimeDefault"}
            })
        );
        assert_eq!(container["args"][1], "--pod=node/node1");
        assert_eq!(container["resources"]["limits"]["memory"], (RING + BESIDES + (16 << 20)).to_string());
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let why =
            "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
        let error = refused("shop", why);
        assert_eq!(error.message, format!("namespace shop takes no capture pod: {why}"));
        assert!(error.hint.unwrap().contains("namespace shop pod-security.kubernetes.io/enforce=privileged"));
    }
}
