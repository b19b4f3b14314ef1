//! Puts an agent into a pod, or finds one there, and waits until it runs.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Api, ResourceExt};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::Cluster;
use super::container::{self, Privileges, ladder};
use super::error::{Error, Request, is_rbac};
use super::exec::{self, Where};
use super::flags::Options;
use super::recording::{Service, serving};
use super::startup::{complaint, hopeless};
use crate::capture::filter::Filter;

/// A pod as last seen by the watch; none once it is gone.
pub(super) type Sight = watch::Receiver<Option<Arc<Pod>>>;

/// How often a patch is tried again that met another one.
const CONFLICTS: u32 = 5;

/// An agent that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agent {
    pub(super) container: String,
    /// True if it was there before.
    pub(super) reused: bool,
    /// It records more than is wanted: sessions bring filter and snaplen of their own.
    pub(super) narrows: bool,
    /// That filter, if there is one.
    pub(super) filter: Option<Filter>,
    /// It records less than is wanted, for this reason.
    pub(super) lacks: Option<String>,
}

/// What was found or put into a pod.
#[derive(Debug)]
pub(super) enum Found {
    /// An agent that runs.
    Agent(Agent),
    /// The pod went meanwhile.
    Gone,
    /// No agent is there, and none is to be put there.
    Nothing,
}

/// Puts agents into pods.
pub(super) struct Injector {
    pub(super) cluster: Cluster,
    pub(super) options: Options,
    /// Who reads, for other users of the agents: `user@machine`.
    pub(super) reader: String,
    /// By namespace, why its pods cannot be streamed from, if so.
    may_exec: Mutex<HashMap<String, Option<Error>>>,
}

/// How the API server answered a patch.
enum Answer {
    Done,
    /// The pod is gone.
    Gone,
    /// Somebody else changed the pod at the same time.
    Conflict,
    /// An admission webhook cannot be asked without being meant.
    NoDryRun,
    /// Admission refused, in these words.
    Refused(String),
}

impl Injector {
    pub(super) fn new(cluster: Cluster, options: Options) -> Self {
        Self { cluster, options, reader: reader(), may_exec: Mutex::default() }
    }

    pub(super) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), namespace)
    }

    /// An agent that runs in the pod: one that is there already, or a new one.
    ///
    /// # Errors
    /// If it may not be put there, or does not start.
    pub(super) async fn agent(&self, sight: &mut Sight) -> Result<Found, Error> {
        let Some(pod) = sight.borrow_and_update().clone() else { return Ok(Found::Gone) };
        self.may_exec(&pod.namespace().unwrap_or_default()).await?;
        if let Some(Service { container, narrows, lacks }) = serving(&pod, &self.options) {
            let filter = self.options.filter.clone();
            return Ok(Found::Agent(Agent { container, reused: true, narrows, filter, lacks }));
        }
        if self.options.looks_back() {
            return Ok(Found::Nothing);
        }
        let container = container::new_name();
        if !self.place(&pod, &container).await? {
            return Ok(Found::Gone);
        }
        Ok(self.started(sight, &container).await?.map_or(Found::Gone, Found::Agent))
    }

    /// Has an agent that was there already stay for `time` from now on; a new one has been told at its start.
    pub(super) async fn arm(&self, sight: &Sight, agent: &Agent, time: Duration) -> Result<(), Error> {
        let Some(pod) = sight.borrow().clone().filter(|_| agent.reused) else { return Ok(()) };
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let place = Where { namespace: &namespace, pod: &name, container: &agent.container };
        exec::ask(&self.cluster, place, &["arm", &time.as_secs().to_string()]).await.map(drop)
    }

    /// Asks first whether the agent could be streamed from: a container that was added cannot be taken away again.
    pub(super) async fn may_exec(&self, namespace: &str) -> Result<(), Error> {
        let mut known = self.may_exec.lock().await;
        if let Some(answer) = known.get(namespace) {
            return answer.clone().map_or(Ok(()), Err);
        }
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    verb: Some("get".to_owned()),
                    resource: Some("pods".to_owned()),
                    subresource: Some("exec".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.cluster.client.clone());
        // Where nobody may ask, trying will tell.
        let answer = self.cluster.answer(api.create(&PostParams::default(), &review)).await;
        let refused = match answer {
            Some(Ok(review)) if review.status.as_ref().is_some_and(|status| !status.allowed) => {
                Some(cannot_exec(namespace, ""))
            }
            _ => None,
        };
        known.insert(namespace.to_owned(), refused.clone());
        refused.map_or(Ok(()), Err)
    }

    /// Adds the container with the least privileges that admission lets pass. False if the pod is gone.
    async fn place(&self, pod: &Pod, container: &str) -> Result<bool, Error> {
        let mut refusals: Vec<String> = Vec::new();
        for privileges in ladder(&self.options) {
            let privileges = *privileges;
            match self.patch(pod, container, privileges, true).await? {
                Answer::Gone => return Ok(false),
                Answer::Refused(why) => {
                    refusals.push(why);
                    continue;
                }
                Answer::Done | Answer::NoDryRun | Answer::Conflict => {}
            }
            match self.patch(pod, container, privileges, false).await? {
                Answer::Done => return Ok(true),
                Answer::Gone => return Ok(false),
                Answer::Refused(why) => refusals.push(why),
                Answer::NoDryRun | Answer::Conflict => {
                    return Err(Error::new("cannot add the agent's container: others change the pod all the time"));
                }
            }
        }
        let namespace = pod.namespace().unwrap_or_default();
        Err(if self.options.tls.is_some() {
            no_tls(&namespace, &refusals)
        } else {
            not_admitted(&namespace, &refusals)
        })
    }

    async fn patch(&self, pod: &Pod, container: &str, privileges: Privileges, dry_run: bool) -> Result<Answer, Error> {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let container = container::container(pod, &self.options, container, privileges)?;
        let patch = serde_json::json!({"spec": {"ephemeralContainers": [container]}});
        let parameters = PatchParams { dry_run, ..PatchParams::default() };
        let request =
            Request { verb: "patch", resource: "pods/ephemeralcontainers", name: &name, namespace: Some(&namespace) };
        let api = self.pods(&namespace);
        for pause in 0..CONFLICTS {
            let answer = self
                .cluster
                .answer(api.patch_ephemeral_containers(&name, &parameters, &Patch::Strategic(&patch)))
                .await;
            let error = match answer {
                None => return Err(self.cluster.silent(&request)),
                Some(Ok(_)) => return Ok(Answer::Done),
                Some(Err(error)) => error,
            };
            match error {
                kube::Error::Api(status) if !is_rbac(&status) => match refusal(&status, &self.cluster.server) {
                    Some(Ok(Answer::Conflict)) => sleep(Duration::from_millis(50 << pause)).await,
                    Some(answer) => return answer,
                    None => return Err(Error::of(&request, &self.cluster.server, &kube::Error::Api(status))),
                },
                error => return Err(Error::of(&request, &self.cluster.server, &error)),
            }
        }
        Ok(Answer::Conflict)
    }

    /// Waits until the container runs, or it is clear that it will not. None if the pod went meanwhile.
    pub(super) async fn started(&self, sight: &mut Sight, container: &str) -> Result<Option<Agent>, Error> {
        let Some(pod) = sight.borrow().clone() else { return Ok(None) };
        let mut complaint = pin!(complaint(&self.cluster, &pod, container, &self.options.image));
        let deadline = Instant::now() + self.options.start_timeout;
        let mut last = None;
        loop {
            {
                let Some(pod) = sight.borrow_and_update().clone() else { return Ok(None) };
                if let Some(error) = refused_by_node(&pod, container) {
                    return Err(error);
                }
                if let Some(state) = container::state(&pod, container) {
                    if state.running.is_some() {
                        let container = container.to_owned();
                        return Ok(Some(Agent { container, reused: false, narrows: false, filter: None, lacks: None }));
                    }
                    if let Some(error) = hopeless(state, &self.options.image) {
                        return Err(error);
                    }
                    last = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
                }
            }
            let changed = tokio::select! {
                changed = timeout_at(deadline, sight.changed()) => changed,
                error = &mut complaint => return Err(error),
            };
            match changed {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(None),
                Err(_) => {
                    let seconds = self.options.start_timeout.as_secs();
                    let state = last.map_or_else(
                        || "its node says nothing of it".to_owned(),
                        |reason| format!("it is in state {reason}"),
                    );
                    return Err(Error::new(format!("the agent did not start within {seconds} s: {state}"))
                        .hint("kubectl describe pod shows its events; --start-timeout allows more"));
                }
            }
        }
    }
}

/// Why a node did not take a capture pod, which then has no container's state.
fn refused_by_node(pod: &Pod, container: &str) -> Option<Error> {
    let status = pod.status.as_ref()?;
    if !container::is_capture_pod(pod)
        || status.phase.as_deref() != Some("Failed")
        || container::state(pod, container).is_some()
    {
        return None;
    }
    let (reason, message) =
        (status.reason.as_deref().unwrap_or_default(), status.message.as_deref().unwrap_or_default());
    Some(Error::new(format!("the node does not take the capture pod ({reason}): {message}")))
}

/// Who runs this, and where.
fn reader() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_else(|_| "somebody".into());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| host.trim().to_owned());
    if host.is_empty() { user } else { format!("{user}@{host}") }
}

/// What a status that is no lack of rights says about a patch; none if nothing that is known.
fn refusal(status: &Status, server: &str) -> Option<Result<Answer, Error>> {
    let message = status.message.trim();
    Some(Ok(match status.code {
        // As kubectl tells a pod that is missing from a server that does not know the resource.
        404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => {
            return Some(Err(Error::new(format!("the API server at {server} knows no ephemeral containers"))
                .hint("they need Kubernetes 1.25 or later")));
        }
        404 => Answer::Gone,
        409 => Answer::Conflict,
        400 if message.contains("dry run") => Answer::NoDryRun,
        // Pod Security and most webhooks answer 403, some webhooks 400 or 422; an invalid spec is 422 too.
        400 | 403 | 406 | 422 => Answer::Refused(message.to_owned()),
        _ => return None,
    }))
}

/// What reading TLS keys takes is not admitted.
fn no_tls(namespace: &str, refusals: &[String]) -> Error {
    Error::new(format!(
        "--tls needs an agent with the capabilities SYS_ADMIN and SYS_PTRACE, which is not admitted in namespace {namespace}: {}",
        refusals.join("; ")
    ))
    .hint("without --tls it needs less; --keylog FILE decrypts with keys that a program has logged (SSLKEYLOGFILE)")
}

/// No step of the ladder was admitted.
fn not_admitted(namespace: &str, refusals: &[String]) -> Error {
    // The last step asks for the least, so what it is refused for is the reason.
    let why = refusals.last().map(String::as_str).unwrap_or_default();
    if why.contains("PodSecurity \"restricted") {
        return Error::new(format!(
            "namespace {namespace} enforces Pod Security \"restricted\", under which no container can capture: {why}"
        ))
        .hint(format!(
            "--via node captures from outside the pod; or, if you may decide so: \
             kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=baseline"
        ));
    }
    let mut said = refusals.to_vec();
    said.dedup();
    Error::new(format!("the agent's container is not admitted: {}", said.join("; with fewer privileges: ")))
}

/// The user may not exec, for which `detail` is the server's word.
pub(super) fn cannot_exec(namespace: &str, detail: &str) -> Error {
    let colon = if detail.is_empty() { "" } else { ": " };
    Error::new(format!("you are not allowed to get and create pods/exec in namespace {namespace}, over which packets come{colon}{detail}"))
        .hint(format!(
            "kubectl auth can-i get pods/exec -n {namespace}; kubectl auth can-i create pods/exec -n {namespace}"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restricted_namespaces_are_told_apart_from_other_refusals() {
        let baseline = "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": non-default capabilities";
        let restricted = "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsUser=0";
        let error = not_admitted("shop", &[restricted.to_owned(), restricted.to_owned()]);
        assert_eq!(
            error.message,
            format!(
                "namespace shop enforces Pod Security \"restricted\", under which no container can capture: {restricted}"
            )
        );
        assert!(error.hint.unwrap().contains("kubectl label --overwrite namespace shop"));
        let webhook = "admission webhook \"no.debug\" denied the request: never on Fridays";
        let error = not_admitted("shop", &[webhook.to_owned(), webhook.to_owned()]);
        assert_eq!(error.message, format!("the agent's container is not admitted: {webhook}"));
        let error = not_admitted("shop", &[baseline.to_owned(), webhook.to_owned()]);
        assert_eq!(
            error.message,
            format!("the agent's container is not admitted: {baseline}; with fewer privileges: {webhook}")
        );
    }

    #[test]
    fn answers_are_told_apart() {
        let status = |code: u16, message: &str| Status { code, message: message.to_owned(), ..Status::default() };
        assert!(matches!(refusal(&status(409, "changed"), "s"), Some(Ok(Answer::Conflict))));
        let no_dry_run = "admission webhook \"x\" does not support dry run";
        assert!(matches!(refusal(&status(400, no_dry_run), "s"), Some(Ok(Answer::NoDryRun))));
        assert!(matches!(refusal(&status(403, "violates PodSecurity"), "s"), Some(Ok(Answer::Refused(_)))));
        assert!(refusal(&status(500, "boom"), "s").is_none());
        let Some(Err(old)) = refusal(&status(404, "the server could not find the requested resource"), "s") else {
            panic!("an old server")
        };
        assert_eq!(old.hint.as_deref(), Some("they need Kubernetes 1.25 or later"));
    }
}
