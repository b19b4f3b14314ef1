//! What the agents that are in a pod already record: their containers' arguments tell.

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

use super::container::{NODE_AGENT, PREFIX, arguments, filter_text, is_capture_pod, state, target};
use super::flags::{Backend, Mode, Options};

/// A running agent of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recording {
    pub(super) container: String,
    /// Its capture filter; empty if it records all.
    pub(super) filter: String,
    /// The container whose TLS keys it reads, if it does.
    pub(super) tls: Option<String>,
    /// The most bytes that it keeps of a packet; 0 = all.
    pub(super) snaplen: u32,
    /// With what it captures; empty if nothing was said.
    backend: String,
}

/// An agent that can serve what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) container: String,
    /// It records more than is wanted: the session needs the filter and snaplen of its own.
    pub(super) narrows: bool,
    /// It records less than is wanted, for this reason.
    pub(super) lacks: Option<String>,
}

impl Recording {
    fn of(container: &EphemeralContainer) -> Option<Self> {
        let arguments = container.args.as_deref().unwrap_or_default();
        let is_agent = container.name.starts_with(PREFIX) && arguments.first().is_some_and(|word| word == "run");
        let tls = container.target_container_name.clone().filter(|_| arguments.iter().any(|word| word == "--tls"));
        is_agent.then(|| Self { tls, ..Self::with(&container.name, arguments) })
    }

    fn with(container: &str, arguments: &[String]) -> Self {
        let value = |name: &str| flag(arguments, name);
        Self {
            container: container.to_owned(),
            tls: None,
            filter: value("--filter-text").unwrap_or_default().to_owned(),
            snaplen: value("--snaplen").and_then(|bytes| bytes.parse().ok()).unwrap_or_default(),
            backend: value("--backend").unwrap_or_default().to_owned(),
        }
    }

    /// What a capture pod records.
    fn of_node(pod: &Pod) -> Option<Self> {
        let runs = is_capture_pod(pod) && state(pod, NODE_AGENT).is_some_and(|state| state.running.is_some());
        let container = pod.spec.as_ref()?.containers.first().filter(|_| runs)?;
        Some(Self::with(&container.name, container.args.as_deref().unwrap_or_default()))
    }
}

/// The value that an agent's arguments give to a flag.
pub(super) fn flag<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// True if agents with these arguments and those record the same in the same way.
pub(super) fn records_the_same(these: &[String], those: &[String]) -> bool {
    let flags = ["--filter-text", "--snaplen", "--buffer", "--buffer-on", "--backend"];
    flags.iter().all(|name| flag(these, name) == flag(those, name))
}

/// The containers of a pod that are running agents, newest first.
fn running(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    let containers = pod.spec.iter().filter_map(|spec| spec.ephemeral_containers.as_deref()).flatten();
    let mut running: Vec<_> = containers
        .filter(|container| state(pod, &container.name).is_some_and(|state| state.running.is_some()))
        .collect();
    running.reverse();
    running.into_iter()
}

/// All running agents of a pod, newest first; one that captures from the node included.
pub(super) fn recordings(pod: &Pod) -> Vec<Recording> {
    running(pod).filter_map(Recording::of).chain(Recording::of_node(pod)).collect()
}

/// The running agent of the pod that serves `options` best; none if a new one has to.
///
/// Who looks back wants what was recorded, be it less than all, and whoever recorded it. Who does not, wants all that he
/// asks for, and an agent of his own version.
pub(super) fn serving(pod: &Pod, options: &Options) -> Option<Service> {
    let wanted = arguments(pod, options).ok()?;
    let filter = filter_text(pod, options);
    let tls = options.tls.as_ref().map(|tls| target(pod, tls)).transpose().ok()?;
    let looks_back = options.since.is_some() || options.looks_back();
    let mut best: Option<Service> = None;
    for container in running(pod) {
        let Some(recording) = Recording::of(container) else { continue };
        let same_image = container.image.as_ref() == Some(&options.image);
        // Who does not ask for keys does not get them, nor has an agent stay that has more rights than it needs.
        if recording.tls != tls && !looks_back {
            continue;
        }
        if let Mode::Arm(_) = options.mode {
            if same_image && records_the_same(container.args.as_deref().unwrap_or_default(), &wanted) {
                return Some(Service { container: recording.container, narrows: false, lacks: None });
            }
            continue;
        }
        let named = if options.backend == Backend::default() { "" } else { options.backend.name() };
        if !looks_back && (!same_image || !named.is_empty() && recording.backend != named) {
            continue;
        }
        // In the node's network all agents leave out their own stream, by a filter.
        let all = filter_text(pod, &Options { filter: None, ..options.clone() });
        let enough = recording.snaplen == 0 || (options.snaplen > 0 && recording.snaplen >= options.snaplen);
        let covers = recording.filter == all || recording.filter == filter;
        let narrows = recording.filter != filter || recording.snaplen != options.snaplen;
        let has_keys = tls.is_none() || recording.tls == tls;
        if covers && enough && has_keys {
            return Some(Service { container: recording.container, narrows, lacks: None });
        }
        let asks_for_all = options.filter.is_none() && options.snaplen == 0;
        if looks_back && asks_for_all && best.is_none() {
            let mut lacks = Vec::new();
            if !covers {
                lacks.push(format!("only {:?}", recording.filter));
            }
            if !enough {
                lacks.push(format!("only {} bytes of each packet", recording.snaplen));
            }
            let mut lacks = if lacks.is_empty() { Vec::new() } else { vec![format!("records {}", lacks.join(", "))] };
            if !has_keys {
                lacks.push("reads no TLS keys".to_owned());
            }
            best = Some(Service {
                container: recording.container,
                narrows: false,
                lacks: Some(format!("its agent {}", lacks.join(" and "))),
            });
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::filter::Filter;
    use crate::cluster::container::{Privileges, container};
    use crate::cluster::flags::Processes;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn pod(options: &Options, running: bool) -> Pod {
        let mut value =
            json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": {"containers": [{"name": "web"}]}});
        let bare: Pod = serde_json::from_value(value.clone()).unwrap();
        let ours = container(&bare, options, "sniff-agent-x", Privileges::Least).unwrap();
        let state: Value = if running { json!({"running": {}}) } else { json!({"terminated": {"exitCode": 0}}) };
        value["spec"]["ephemeralContainers"] = json!([ours]);
        value["status"] = json!({"ephemeralContainerStatuses": [{"name": "sniff-agent-x", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": state}]});
        serde_json::from_value(value).unwrap()
    }

    fn filter(text: &str) -> Filter {
        Filter { text: text.into(), program: "1,6 0 0 1".into() }
    }

    #[test]
    fn an_agent_that_records_all_serves_everybody() {
        let all = pod(&Options::default(), true);
        let serves = |options: &Options| serving(&all, options).map(|service| service.narrows);
        assert_eq!(serves(&Options::default()), Some(false));
        assert_eq!(serves(&Options { filter: Some(filter("ip")), ..Options::default() }), Some(true));
        assert_eq!(serves(&Options { snaplen: 96, ..Options::default() }), Some(true));
        assert_eq!(serves(&Options { backend: Backend::AfXdp, ..Options::default() }), None);
        assert_eq!(serves(&Options { image: "agent:2".into(), ..Options::default() }), None);
        assert_eq!(serving(&pod(&Options::default(), false), &Options::default()), None);
        assert_eq!(recordings(&all).len(), 1);
    }

    #[test]
    fn one_that_records_less_serves_those_who_look_back() {
        let some = pod(&Options { filter: Some(filter("port 80")), snaplen: 96, ..Options::default() }, true);
        assert_eq!(serving(&some, &Options::default()), None);
        let past = Options { since: Some(Duration::from_mins(5)), ..Options::default() };
        let service = serving(&some, &past).unwrap();
        let lacks = service.lacks.unwrap();
        assert_eq!(lacks, "its agent records only \"port 80\", only 96 bytes of each packet");
        let same = Options { filter: Some(filter("port 80")), snaplen: 64, ..Options::default() };
        assert!(serving(&some, &same).unwrap().narrows);
        let other = Options { filter: Some(filter("port 53")), ..past };
        assert_eq!(serving(&some, &other), None);
    }

    #[test]
    fn agents_that_read_keys_serve_those_who_want_them() {
        let tls = Options { tls: Some(Processes::default()), ..Options::default() };
        let (with, without) = (pod(&tls, true), pod(&Options::default(), true));
        assert!(serving(&with, &tls).is_some());
        assert_eq!(serving(&with, &Options::default()), None);
        assert_eq!(serving(&without, &tls), None);
        let past = |options: Options| Options { since: Some(Duration::from_mins(5)), ..options };
        assert_eq!(serving(&with, &past(Options::default())).unwrap().lacks, None);
        assert_eq!(serving(&without, &past(tls)).unwrap().lacks.as_deref(), Some("its agent reads no TLS keys"));
    }

    #[test]
    fn who_arms_needs_the_same_recording() {
        let armed = Options { mode: Mode::Arm(Duration::from_hours(1)), ..Options::default() };
        let there = pod(&armed, true);
        assert!(serving(&there, &Options { mode: Mode::Arm(Duration::from_mins(1)), ..armed.clone() }).is_some());
        assert!(serving(&there, &Options { buffer: 64 << 20, ..armed.clone() }).is_none());
        assert!(serving(&there, &Options { filter: Some(filter("ip")), ..armed }).is_none());
        assert!(serving(&there, &Options::default()).is_some());
    }
}
