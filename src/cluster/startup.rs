//! Why an agent's container does not run: what its state and the node's events say.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Event, Pod};
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, ResourceExt};

use super::client::Cluster;
use super::container::is_capture_pod;
use super::error::Error;

/// Returns when the node says that the container will not start. Kubelets write this into the pod's status some ten
/// seconds later. Where events may not be read, it never returns.
pub(super) async fn complaint(cluster: &Cluster, pod: &Pod, container: &str, image: &str) -> Error {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), &pod.namespace().unwrap_or_default());
    let uid = pod.uid().unwrap_or_default();
    let kind = if is_capture_pod(pod) { "containers" } else { "ephemeralContainers" };
    let of_container = format!("involvedObject.uid={uid},involvedObject.fieldPath=spec.{kind}{{{container}}}");
    let parameters = WatchParams::default().fields(&of_container);
    if let Ok(events) = api.watch(&parameters, "0").await {
        let mut events = Box::pin(events);
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Added(event) | WatchEvent::Modified(event) = event
                && let Some(error) = hopeless_event(&event, image)
            {
                return error;
            }
        }
    }
    std::future::pending().await
}

/// What an event says, if it is that the container will not start.
fn hopeless_event(event: &Event, image: &str) -> Option<Error> {
    let message = event.message.as_deref().unwrap_or_default().trim();
    let (reason, why) = match event.reason.as_deref()? {
        "Failed" => match message.strip_prefix("Failed to pull image ") {
            Some(rest) => ("ErrImagePull", rest.split_once("\": ").map_or(rest, |(_, why)| why)),
            // Behind a longer event comes one with the reason alone.
            None => ("CreateContainerError", message.strip_prefix("Error: ").filter(|why| why.contains(' '))?),
        },
        "InspectFailed" => ("InvalidImageName", message),
        "ErrImageNeverPull" => ("ErrImageNeverPull", message),
        _ => return None,
    };
    cannot_start(reason, why, image)
}

/// Why a container in this state will not run; none if it may.
pub(super) fn hopeless(state: &ContainerState, image: &str) -> Option<Error> {
    if let Some(terminated) = &state.terminated {
        return Some(ended(terminated));
    }
    let waiting = state.waiting.as_ref()?;
    cannot_start(waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default().trim(), image)
}

/// What a reason to wait means, if it is none that passes.
fn cannot_start(reason: &str, message: &str, image: &str) -> Option<Error> {
    let colon = if message.is_empty() { "" } else { ": " };
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "SignatureValidationFailed" => Some(
            Error::new(format!("the node cannot pull the agent's image {image}{colon}{message}")).hint(
                "--image names a copy in a registry that the node reaches; it pulls with the pod's own imagePullSecrets",
            ),
        ),
        "InvalidImageName" => Some(Error::new(format!("{image:?} is no name of an image")).hint("--image REGISTRY/NAME:TAG")),
        "ErrImageNeverPull" => Some(
            Error::new(format!("the node does not have the agent's image {image}, and may not pull it"))
                .hint("load it onto the node, or --image-pull-policy IfNotPresent"),
        ),
        "CreateContainerError" | "CreateContainerConfigError" | "RunContainerError" | "ImageInspectError" => {
            Some(Error::new(format!("the node cannot start the agent ({reason}){colon}{message}")))
        }
        _ => None,
    }
}

/// How a container ended, in the agent's own words if it has left some.
pub(super) fn ended(terminated: &ContainerStateTerminated) -> Error {
    let said = terminated.message.as_deref().unwrap_or_default();
    let line = |kind: &str| said.lines().rev().find_map(|line| line.strip_prefix(kind)).map(str::to_owned);
    let code = terminated.exit_code;
    let reason = terminated.reason.as_deref().unwrap_or_default();
    if let Some(error) = line("error: ") {
        return Error { message: format!("the agent ended: {error}"), hint: line("hint: ") };
    }
    if reason == "OOMKilled" {
        return Error::new("the kernel ended the agent: the pod has reached its memory limit");
    }
    // What it says when all is well is no reason.
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("sniff-agent "));
    let last = last.map(|line| format!(": {line}")).unwrap_or_default();
    let error = match code {
        137 => Error::new(format!("the agent was killed (SIGKILL){last}")),
        129..=192 => Error::new(format!("the agent was ended by signal {}{last}", code - 128)),
        _ => Error::new(format!("the agent ended with exit code {code} ({reason}){last}")),
    };
    if said.contains("exec format error") {
        return error.hint("the image is not for the node's architecture");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn hopeless_state(state: Value) -> Option<Error> {
        hopeless(&serde_json::from_value(state).unwrap(), "reg/agent:1")
    }

    #[test]
    fn images_that_cannot_be_had_are_told_with_what_to_do() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "not found"}});
        for (reason, message, hint) in [
            ("ErrImagePull", "the node cannot pull the agent's image reg/agent:1: not found", "--image"),
            ("ImagePullBackOff", "the node cannot pull the agent's image reg/agent:1: not found", "imagePullSecrets"),
            ("InvalidImageName", "\"reg/agent:1\" is no name of an image", "--image"),
            (
                "ErrImageNeverPull",
                "the node does not have the agent's image reg/agent:1, and may not pull it",
                "load it",
            ),
        ] {
            let error = hopeless_state(waiting(reason)).unwrap();
            assert_eq!(error.message, message);
            assert!(error.hint.unwrap().contains(hint), "{reason}");
        }
        let error = hopeless_state(waiting("CreateContainerError")).unwrap();
        assert_eq!(error.message, "the node cannot start the agent (CreateContainerError): not found");
        assert_eq!(hopeless_state(waiting("ContainerCreating")), None);
        assert_eq!(hopeless_state(waiting("PodInitializing")), None);
        assert_eq!(hopeless_state(json!({"running": {}})), None);
    }

    #[test]
    fn an_agent_that_ended_has_its_say() {
        let said = "sniff-agent 1\nerror: cannot open the capture: Operation not permitted\nhint: NET_RAW is missing\n";
        let error = hopeless_state(json!({"terminated": {"exitCode": 1, "reason": "Error", "message": said}})).unwrap();
        assert_eq!(error.message, "the agent ended: cannot open the capture: Operation not permitted");
        assert_eq!(error.hint.as_deref(), Some("NET_RAW is missing"));
        let error = hopeless_state(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})).unwrap();
        assert_eq!(error.message, "the kernel ended the agent: the pod has reached its memory limit");
        let said = "exec /sniff-agent: exec format error";
        let error =
            hopeless_state(json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": said}})).unwrap();
        assert_eq!(error.message, format!("the agent ended with exit code 128 (StartError): {said}"));
        assert_eq!(error.hint.as_deref(), Some("the image is not for the node's architecture"));
    }

    #[test]
    fn who_killed_it_is_said_and_what_it_said_when_all_was_well_is_not() {
        let greeting = "sniff-agent 0.1.0: capturing on shop/web-1:eth0";
        let ended = |code: i32, message: &str| {
            hopeless_state(json!({"terminated": {"exitCode": code, "reason": "Error", "message": message}}))
                .unwrap()
                .message
        };
        assert_eq!(ended(137, greeting), "the agent was killed (SIGKILL)");
        assert_eq!(ended(139, greeting), "the agent was ended by signal 11");
        assert_eq!(ended(3, "line one\nline two\n"), "the agent ended with exit code 3 (Error): line two");
    }

    #[test]
    fn events_tell_sooner_than_the_status() {
        let told = |reason: &str, message: &str| {
            let event = json!({"metadata": {}, "involvedObject": {}, "reason": reason, "message": message});
            hopeless_event(&serde_json::from_value(event).unwrap(), "reg/agent:1").map(|error| error.message)
        };
        assert_eq!(
            told("Failed", "Failed to pull image \"reg/agent:1\": not found").as_deref(),
            Some("the node cannot pull the agent's image reg/agent:1: not found")
        );
        assert_eq!(
            told("Failed", "Error: failed to create containerd container: no space").as_deref(),
            Some(
                "the node cannot start the agent (CreateContainerError): failed to create containerd container: no space"
            )
        );
        assert!(told("InspectFailed", "Failed to apply default image tag").unwrap().contains("is no name of an image"));
        assert!(told("ErrImageNeverPull", "is not present").unwrap().contains("may not pull it"));
        assert_eq!(
            [told("Failed", "Error: ErrImagePull"), told("Pulling", "Pulling image"), told("BackOff", "x")],
            [None, None, None]
        );
    }
}
