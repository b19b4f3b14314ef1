//! The agent's container as a pod's spec has it: arguments, memory, privileges.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use k8s_openapi::api::core::v1::{
    Capabilities, ContainerState, EphemeralContainer, Pod, SeccompProfile, SecurityContext,
};
use kube::ResourceExt;

use super::error::Error;
use super::flags::{Backend, BufferOn, Mode, Options, Processes};
use super::select::is_host_network;
use crate::capture::filter::Filter;

/// The container of a capture pod, and the value of its [`LABEL`].
pub(super) const NODE_AGENT: &str = "sniff-agent";

/// The label that tells capture pods from others.
pub(super) const LABEL: &str = "app.kubernetes.io/name";

/// What the names of agents' containers, and of capture pods, start with.
pub(super) const PREFIX: &str = "sniff-agent-";

/// Where the image has its program.
pub(super) const PROGRAM: &str = "/sniff-agent";

/// The ring where memory is no matter, in bytes: sixteen blocks, each of which may be handed over as good as empty after 50 ms,
/// so that more than half a second without the processor costs no packet.
pub(super) const RING: u64 = 4 << 20;

/// The least that ring and buffer may be, in bytes.
const LEAST: u64 = 1 << 20;

/// What `--tls` takes: the rings that keys and plaintext come over, what the kernel knows of connections, what waits, and the key log.
const TLS: u64 = 6 << 20;

/// The part of a pod's memory limit that ring and buffer may take.
const SHARE: u64 = 10;

/// The annotation that names a pod's default container, as for kubectl.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What keeps an agent in the node's network from capturing its own stream, which would feed itself: the kubelet's and the
/// API server's usual ports, and the loopback between kubelet and container runtime.
pub(super) const OWN_STREAM: &str = "not (tcp port 10250 or tcp port 6443 or net 127.0.0.0/8 or host ::1)";

/// Steps of the ladder of privileges, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privileges {
    /// `NET_RAW` and nothing else.
    Least,
    /// What the container runtime gives by default, which holds `NET_RAW` in containerd and Docker. Pod Security's
    /// `baseline` level refuses a container that adds `NET_RAW` by name, but not one that is left with the default.
    Runtime,
    /// Besides `NET_RAW`, `SYS_ADMIN`, without which today's kernels put no uprobe into a file, and `SYS_PTRACE`, without which the
    /// files of another container's processes cannot be reached.
    Tls,
}

/// The whole ladder. There is one step only to where TLS keys are: no container runtime gives by default what they take.
pub(super) fn ladder(options: &Options) -> &'static [Privileges] {
    match options.tls {
        None => &[Privileges::Least, Privileges::Runtime],
        Some(_) => &[Privileges::Tls],
    }
}

/// Memory of an agent, fixed at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) ring: u64,
    pub(super) buffer: u64,
}

/// The agent's container for `pod`.
pub(super) fn container(
    pod: &Pod,
    options: &Options,
    name: &str,
    privileges: Privileges,
) -> Result<EphemeralContainer, Error> {
    let capabilities = match privileges {
        Privileges::Least => security(options).capabilities,
        Privileges::Runtime => None,
        Privileges::Tls => {
            let more = ["SYS_ADMIN", "SYS_PTRACE"].map(str::to_owned);
            security(options).capabilities.map(|least| {
                let add = least.add.into_iter().flatten().chain(more).collect();
                Capabilities { add: Some(add), ..least }
            })
        }
    };
    Ok(EphemeralContainer {
        name: name.to_owned(),
        image: Some(options.image.clone()),
        image_pull_policy: Some(options.pull_policy.name().to_owned()),
        command: Some(vec![PROGRAM.to_owned()]),
        args: Some(arguments(pod, options)?),
        target_container_name: options.tls.as_ref().map(|tls| target(pod, tls)).transpose()?,
        // What it says on stderr last is then in the pod's status, for those who may not read logs.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext { capabilities, ..security(options) }),
        ..EphemeralContainer::default()
    })
}

/// The least that an agent needs.
pub(super) fn security(options: &Options) -> SecurityContext {
    let add = options.backend.capabilities().iter().map(|name| (*name).to_owned()).collect();
    SecurityContext {
        // Added capabilities are effective for root only, and a pod's own runAsUser would hold otherwise.
        run_as_user: Some(0),
        run_as_non_root: Some(false),
        privileged: Some(false),
        allow_privilege_escalation: Some(false),
        // A buffer on disk is a file in the container's own root, which nobody else sees.
        read_only_root_filesystem: Some(options.buffer_on == BufferOn::Memory),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: Some(add) }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

/// The agent's command line in `pod`.
pub(super) fn arguments(pod: &Pod, options: &Options) -> Result<Vec<String>, Error> {
    let taken = if options.tls.is_some() { TLS } else { 0 };
    let sizes = Sizes::for_pod(pod, taken, options.buffer, options.buffer_on);
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let mut arguments = vec!["run".to_owned(), format!("--pod={name}")];
    let filter = if is_host_network(pod) { Some(compile(&filter_text(pod, options))?) } else { options.filter.clone() };
    if let Some(filter) = filter {
        arguments.push(format!("--filter={}", filter.program));
        arguments.push(format!("--filter-text={}", filter.text));
    }
    if options.snaplen > 0 {
        arguments.push(format!("--snaplen={}", options.snaplen));
    }
    arguments.push(format!("--buffer={}Ki", sizes.buffer >> 10));
    if options.buffer_on == BufferOn::Disk {
        arguments.push("--buffer-on=disk".to_owned());
    }
    if options.backend != Backend::default() {
        arguments.push(format!("--backend={}", options.backend.name()));
    }
    arguments.push(format!("--ring={}Ki", sizes.ring >> 10));
    if options.tls.is_some() {
        arguments.push("--tls".to_owned());
    }
    arguments.push(format!("--ttl={}", options.ttl.as_secs()));
    if let Mode::Arm(time) = options.mode {
        arguments.push(format!("--armed-for={}", time.as_secs()));
    }
    Ok(arguments)
}

/// The container whose processes' TLS keys are read.
pub(super) fn target(pod: &Pod, processes: &Processes) -> Result<String, Error> {
    if pod.spec.as_ref().and_then(|spec| spec.host_pid) == Some(true) {
        return Err(Error::new(
            "its processes are the node's (hostPID), so --tls would read the keys of everybody there",
        )
        .hint("sniff it without --tls, and give the keys that you have with --keylog"));
    }
    named(pod, processes.0.as_deref())
}

/// The container of that name; without one the pod's default container, or its first.
pub(super) fn named(pod: &Pod, name: Option<&str>) -> Result<String, Error> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let containers = spec.into_iter().flat_map(|spec| &spec.containers).chain(sidecars);
    let mut names = containers.map(|container| container.name.as_str());
    match name {
        Some(name) if names.clone().any(|known| known == name) => Ok(name.to_owned()),
        Some(name) => Err(Error::new(format!("it has no container {name:?}"))
            .hint(format!("-c {}", names.collect::<Vec<_>>().join(" or -c ")))),
        None => {
            let default = pod.annotations().get(DEFAULT_CONTAINER).map(String::as_str);
            let default =
                default.filter(|default| names.clone().any(|known| known == *default)).or_else(|| names.next());
            default.map(str::to_owned).ok_or_else(|| Error::new("it has no container"))
        }
    }
}

/// The capture filter that an agent in `pod` gets, as text; empty for all packets.
pub(super) fn filter_text(pod: &Pod, options: &Options) -> String {
    match (&options.filter, is_host_network(pod)) {
        (None, false) => String::new(),
        (Some(filter), false) => filter.text.clone(),
        (None, true) => OWN_STREAM.to_owned(),
        (Some(filter), true) => format!("({}) and {OWN_STREAM}", filter.text),
    }
}

fn compile(text: &str) -> Result<Filter, Error> {
    Filter::compile(text).map_err(|invalid| Error::new(invalid.to_string()))
}

/// A name that no other session takes for its own.
pub(super) fn new_name() -> String {
    // Each RandomState has keys of its own.
    let mut number = RandomState::new().hash_one(0);
    let letters = std::iter::repeat_with(|| {
        // Without vowels and what looks like them, as Kubernetes' own suffixes: no words.
        let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
        let length = alphabet.len() as u64;
        let letter = alphabet.get((number % length) as usize).copied().unwrap_or(b'x');
        number /= length;
        char::from(letter)
    });
    PREFIX.chars().chain(letters.take(6)).collect()
}

/// The state of the container of that name; none if there is none yet.
pub(super) fn state<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerState> {
    let status = pod.status.as_ref()?;
    let statuses = if is_capture_pod(pod) { &status.container_statuses } else { &status.ephemeral_container_statuses };
    statuses.as_ref()?.iter().find(|status| status.name == container)?.state.as_ref()
}

/// True for a pod of ours, which captures from its node.
pub(super) fn is_capture_pod(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    pod.labels().get(LABEL).is_some_and(|name| name == NODE_AGENT)
        && matches!(containers, [container] if container.name == NODE_AGENT)
}

impl Sizes {
    /// At most a tenth of the pod's memory limit, for which the agent's memory counts too, less what is `taken`, and no more than
    /// `buffer`.
    pub(super) fn for_pod(pod: &Pod, taken: u64, buffer: u64, on: BufferOn) -> Self {
        let buffer = buffer.max(LEAST);
        let Some(limit) = memory_limit(pod) else { return Self { ring: RING, buffer } };
        let share = (limit / SHARE).saturating_sub(taken);
        let ring = (share / 4).clamp(LEAST, RING);
        match on {
            BufferOn::Memory => Self { ring, buffer: share.saturating_sub(ring).clamp(LEAST, buffer) },
            BufferOn::Disk => Self { ring, buffer },
        }
    }
}

/// The memory that a pod's containers may take together, in bytes; none if there is no limit.
fn memory_limit(pod: &Pod) -> Option<u64> {
    let spec = pod.spec.as_ref()?;
    let limit = |resources: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
        bytes(&resources?.limits.as_ref()?.get("memory")?.0)
    };
    if let Some(limit) = limit(spec.resources.as_ref()) {
        return Some(limit);
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).map(|container| limit(container.resources.as_ref())).sum()
}

/// A quantity in bytes: `64Mi`, `1.5G`, `100e6`, `128974848000m`.
pub(super) fn bytes(quantity: &str) -> Option<u64> {
    const UNITS: &[(&str, f64)] = &[
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((quantity.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((quantity, 1.0));
    let value = number.parse::<f64>().ok()? * factor;
    #[allow(clippy::cast_sign_loss, reason = "it is checked to be positive")]
    (value.is_finite() && value > 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: &Value) -> Pod {
        let pod = json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": {"containers": containers}});
        serde_json::from_value(pod).unwrap()
    }

    fn limits(limits: &[Option<&str>]) -> Pod {
        let containers = limits.iter().map(|limit| match limit {
            Some(limit) => json!({"name": "c", "resources": {"limits": {"memory": limit}}}),
            None => json!({"name": "c"}),
        });
        pod(&containers.collect())
    }

    #[test]
    fn memory_is_at_most_a_tenth_of_the_pods() {
        let sizes = |values: &[Option<&str>]| {
            let sizes = Sizes::for_pod(&limits(values), 0, 16 << 20, BufferOn::Memory);
            (sizes.ring >> 10, sizes.buffer >> 10)
        };
        assert_eq!(sizes(&[None]), (4096, 16_384));
        assert_eq!(sizes(&[Some("64Mi"), None]), (4096, 16_384), "one without a limit has the node's memory");
        assert_eq!(sizes(&[Some("1Gi")]), (4096, 16_384));
        assert_eq!(sizes(&[Some("64Mi"), Some("64Mi")]), (3276, 9830));
        assert_eq!(sizes(&[Some("64Mi")]), (1638, 4915));
        assert_eq!(sizes(&[Some("4Mi")]), (1024, 1024));
        assert_eq!(Sizes::for_pod(&limits(&[Some("64Mi")]), 0, 1 << 30, BufferOn::Disk).buffer, 1 << 30);
    }

    #[test]
    fn quantities_are_read_in_all_notations() {
        for (text, value) in [
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("128M", 128_000_000),
            ("1e3", 1000),
            ("100E", 18_446_744_073_709_551_615),
            ("1500m", 1),
            ("2k", 2000),
            ("7", 7),
        ] {
            assert_eq!(bytes(text), Some(value), "{text}");
        }
        assert_eq!([bytes(""), bytes("Mi"), bytes("x"), bytes("-1"), bytes("0"), bytes("infE")], [None; 6]);
    }

    #[test]
    fn privileges_are_the_least_that_the_step_allows() {
        for (privileges, capabilities) in
            [(Privileges::Least, json!({"add": ["NET_RAW"], "drop": ["ALL"]})), (Privileges::Runtime, Value::Null)]
        {
            let container = container(&limits(&[None]), &Options::default(), "sniff-agent-x", privileges).unwrap();
            let json = serde_json::to_value(&container).unwrap();
            let context = &json["securityContext"];
            assert_eq!(context["capabilities"], capabilities);
            assert_eq!(context["runAsUser"], 0);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["privileged"], false);
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(json["args"][1], "--pod=shop/web-1");
        }
    }

    #[test]
    fn tls_takes_what_it_takes_and_nothing_else_does() {
        let mut two = pod(&json!([{"name": "web"}, {"name": "proxy"}]));
        let tls = |name: Option<&str>| Options { tls: Some(Processes(name.map(str::to_owned))), ..Options::default() };
        assert_eq!(ladder(&tls(None)), [Privileges::Tls]);
        assert!(!ladder(&Options::default()).contains(&Privileges::Tls));
        let container = |pod: &Pod, options: &Options| {
            container(pod, options, "sniff-agent-x", Privileges::Tls).map(|it| serde_json::to_value(&it).unwrap())
        };
        let json = container(&two, &tls(None)).unwrap();
        let capabilities = json!({"add": ["NET_RAW", "SYS_ADMIN", "SYS_PTRACE"], "drop": ["ALL"]});
        assert_eq!(json["securityContext"]["capabilities"], capabilities);
        assert_eq!(json["securityContext"]["privileged"], false);
        assert_eq!(json["targetContainerName"], "web");
        assert!(json["args"].as_array().unwrap().contains(&json!("--tls")));
        assert_eq!(container(&two, &tls(Some("proxy"))).unwrap()["targetContainerName"], "proxy");
        let error = container(&two, &tls(Some("db"))).unwrap_err();
        assert_eq!(
            (error.message.as_str(), error.hint.as_deref()),
            ("it has no container \"db\"", Some("-c web or -c proxy"))
        );
        two.annotations_mut().insert(DEFAULT_CONTAINER.to_owned(), "proxy".to_owned());
        assert_eq!(container(&two, &tls(None)).unwrap()["targetContainerName"], "proxy");
        two.spec.as_mut().unwrap().host_pid = Some(true);
        assert!(container(&two, &tls(None)).unwrap_err().message.contains("hostPID"));
        let plain = super::container(&two, &Options::default(), "sniff-agent-x", Privileges::Least).unwrap();
        assert_eq!(plain.target_container_name, None);
        assert!(!plain.args.unwrap().contains(&"--tls".to_owned()));
    }

    #[test]
    fn in_the_nodes_network_the_own_stream_is_left_out() {
        let mut host = limits(&[None]);
        host.spec.as_mut().unwrap().host_network = Some(true);
        let filter = Some(Filter::compile("port 80").unwrap());
        let arguments = arguments(&host, &Options { filter, ..Options::default() }).unwrap();
        let text = arguments.iter().find_map(|word| word.strip_prefix("--filter-text="));
        assert_eq!(text, Some(format!("(port 80) and {OWN_STREAM}").as_str()));
    }

    #[test]
    fn names_are_valid_and_differ() {
        let names: std::collections::HashSet<_> = (0..100).map(|_| new_name()).collect();
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|name| name.len() == PREFIX.len() + 6 && name.is_ascii()));
    }
}
