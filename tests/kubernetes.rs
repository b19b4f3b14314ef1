//! The session on a real cluster: agents in pods, their streams, and what goes wrong with them.
//!
//! `SNIFF_TEST_KUBECONFIG` names a cluster, `SNIFF_TEST_IMAGE` a busybox that its nodes have; the agent's image must be
//! there as well. Without the variable, the tests start the cluster of `tests/cluster` and load the image into it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{AttachParams, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::KubeConfigOptions;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use kubectl_sniff::capture::Note;
use kubectl_sniff::cluster::flags::{Connection, Options, PullPolicy, Select};
use kubectl_sniff::cluster::{self, Cluster, DEFAULT_IMAGE, Event, Names, Selection, Stop};
use kubectl_sniff::pipeline::Resolve;

/// How long anything may take that has no time of its own.
const PATIENCE: Duration = Duration::from_secs(40);

/// The kubeconfig of a cluster that has the agent's image.
fn kubeconfig() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("SNIFF_TEST_KUBECONFIG") {
            return path.into();
        }
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
            let output = output.unwrap_or_else(|cause| panic!("cannot run {program}: {cause}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{program} {arguments:?} failed: {said}\n(SNIFF_TEST_KUBECONFIG names another cluster)"
            );
        };
        run("tests/cluster/cluster", &["up"]);
        run("image/build", &[]);
        run("tests/cluster/cluster", &["load", "target/sniff-agent.oci.tar"]);
        let folder = std::env::var_os("SNIFF_CLUSTER_DIR").unwrap_or_else(|| "/var/tmp/kubectl-sniff-cluster".into());
        Path::new(&folder).join("admin.kubeconfig")
    })
}

/// A namespace of one test, gone with it.
struct Place {
    client: Client,
    namespace: String,
}

impl Place {
    async fn new(name: &str, labels: Value) -> Self {
        let config = kube::config::Kubeconfig::read_from(kubeconfig()).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("a cluster");
        let client = Client::try_from(config).expect("a client");
        let namespace = format!("sniff-test-{name}-{}", std::process::id());
        let place = Self { client, namespace: namespace.clone() };
        place
            .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}))
            .await;
        // Pods need its service account.
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(place.client.clone(), &namespace);
        soon("a service account", || async { accounts.get_opt("default").await.ok().flatten().map(drop) }).await;
        place
    }

    async fn apply(&self, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let types = object.types.clone().expect("a kind");
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let api: Api<DynamicObject> = match types.kind.as_str() {
            "Namespace" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        };
        let parameters = PatchParams::apply("sniff-test").force();
        api.patch(&object.name_any(), &parameters, &Patch::Apply(&object)).await.expect("applied");
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A pod that asks itself for a page, five times a second.
    fn spec(more: &Value) -> Value {
        let image = std::env::var("SNIFF_TEST_IMAGE").unwrap_or_else(|_| "localhost/sniff-test/busybox:1".into());
        let script = "mkdir -p /tmp/w; echo hello >/tmp/w/index.html; httpd -p 8080 -h /tmp/w; \
                      while true; do wget -q -O /dev/null http://127.0.0.1:8080/; sleep 0.2; done";
        let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": image,
            "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    }

    async fn pod(&self, name: &str, more: &Value) {
        self.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": Self::spec(more)}))
            .await;
        let pods = self.pods();
        soon("a running pod", || async {
            let pod = pods.get(name).await.ok()?;
            (pod.status?.phase? == "Running").then_some(())
        })
        .await;
    }

    async fn agents(&self, pod: &str) -> Vec<String> {
        let pod = self.pods().get(pod).await.expect("the pod");
        let containers = pod.spec.and_then(|spec| spec.ephemeral_containers).unwrap_or_default();
        containers.into_iter().map(|container| container.name).collect()
    }

    async fn exec(&self, pod: &str, container: &str, command: &[&str]) -> String {
        let parameters = AttachParams::default().container(container).stderr(false);
        let mut process = self.pods().exec(pod, command.iter().copied(), &parameters).await.expect("exec");
        let mut output = String::new();
        process.stdout().unwrap().read_to_string(&mut output).await.expect("output");
        output
    }

    /// Kills the agent's process with that command, from another container of the pod.
    async fn kill(&self, pod: &str, command: &str) {
        let script = format!(
            "ps | while read pid user line; do case $line in '/sniff-agent {command} '*) kill -9 $pid && echo killed;; esac; done"
        );
        let output = self.exec(pod, "web", &["sh", "-c", &script]).await;
        assert_eq!(output.trim(), "killed");
    }

    fn select(&self, pods: &str) -> Select {
        Select {
            pods: Some(pods.to_owned()),
            namespace: vec![self.namespace.clone()],
            max_targets: 100,
            ..Select::default()
        }
    }

    async fn run(&self, pods: &str) -> Run {
        Run::start(&Connection::default(), &self.select(pods), options()).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (client, namespace) = (self.client.clone(), self.namespace.clone());
        let delete = async move {
            let api: Api<Namespace> = Api::all(client);
            let _ = api.delete(&namespace, &DeleteParams::default()).await;
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(delete));
    }
}

fn options() -> Options {
    Options {
        filter: None,
        snaplen: 0,
        since: None,
        buffer: 4 << 20,
        image: DEFAULT_IMAGE.to_owned(),
        pull_policy: PullPolicy::IfNotPresent,
        start_timeout: PATIENCE,
    }
}

/// Asks again and again until there is an answer.
async fn soon<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A session, with what it has told so far.
struct Run {
    events: Receiver<Event>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), cluster::Error>>,
    /// What it told, but for batches.
    told: Vec<String>,
    /// Numbers of the packets that came.
    ids: Vec<u64>,
    /// How often an agent said hello.
    connections: usize,
    names: std::sync::Arc<Names>,
}

impl Run {
    async fn start(connection: &Connection, select: &Select, options: Options) -> Self {
        let connection = Connection {
            kubeconfig: Some(kubeconfig().to_owned()),
            request_timeout: Duration::from_secs(30),
            ..connection.clone()
        };
        let cluster = Cluster::connect(&connection).await.expect("a cluster");
        let selection = Selection::new(select, cluster.namespace()).expect("a selection");
        let (sender, events) = tokio::sync::mpsc::channel(16);
        let names = Names::watch(&cluster, selection.namespaces(), &sender);
        let (stop, stopped) = Stop::new();
        let task = tokio::spawn(async move { cluster::run(&cluster, selection, options, sender, stopped).await });
        Self { events, stop, task, told: Vec::new(), ids: Vec::new(), connections: 0, names }
    }

    /// Waits for an event, and returns what `wanted` makes of it.
    async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let Ok(Some(event)) = event else { panic!("no {what}; told: {:#?}", self.told) };
            let found = wanted(&event);
            match event {
                Event::Batch { batch, .. } => {
                    self.ids.extend(batch.frames.iter().filter_map(|frame| frame.id));
                    self.connections += batch.notes.iter().filter(|note| matches!(note, Note::Hello(_))).count();
                }
                other => self.told.push(format!("{other:?}")),
            }
            if let Some(found) = found {
                return found;
            }
        }
    }

    async fn attached(&mut self) -> (String, bool) {
        self.until("agent that streams", |event| match event {
            Event::Attached { container, reused, .. } => Some((container.clone(), *reused)),
            _ => None,
        })
        .await
    }

    async fn packets(&mut self, count: usize) {
        let mut seen = 0;
        self.until("packets", |event| {
            if let Event::Batch { batch, .. } = event {
                seen += batch.frames.len();
            }
            (seen >= count).then_some(())
        })
        .await;
    }

    async fn failed(&mut self) -> (String, Option<String>) {
        self.until("failure", |event| match event {
            Event::Failed { error, .. } => Some((error.message.clone(), error.hint.clone())),
            _ => None,
        })
        .await
    }

    async fn left(&mut self) -> String {
        self.until("pod that leaves", |event| match event {
            Event::Left { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Stops it; returns how long that took.
    async fn stop(mut self) -> Duration {
        let since = Instant::now();
        self.stop.send_replace(true);
        while self.events.recv().await.is_some() {}
        self.task.await.expect("no panic").expect("no error");
        since.elapsed()
    }
}

fn assert_consecutive(ids: &[u64]) {
    for pair in ids.windows(2) {
        assert_eq!(pair[0] + 1, pair[1], "of {} packets", ids.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_stream_are_reused_and_left_alone() {
    let place = Place::new("reuse", json!({})).await;
    place.pod("web", &json!({})).await;
    let mut run = place.run("we*").await;
    let (container, reused) = run.attached().await;
    assert!(!reused);
    run.packets(20).await;
    assert_consecutive(&run.ids);
    run.names.ready(PATIENCE).await;
    let ip = place.pods().get("web").await.unwrap().status.unwrap().pod_ip.unwrap();
    let name = run.names.resolve(ip.parse().unwrap(), 8080).expect("a name");
    assert_eq!((name.kind, name.namespace.as_str(), name.name.as_str()), ("pod", place.namespace.as_str(), "web"));
    let took = run.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");

    // The daemon goes on, its session and the process in the pod are gone.
    soon("end of the session", || async {
        let status: Value =
            serde_json::from_str(&place.exec("web", &container, &["/sniff-agent", "status"]).await).ok()?;
        (status["sessions"] == 0).then_some(())
    })
    .await;

    let mut run = place.run("pod/web").await;
    assert_eq!(run.attached().await, (container.clone(), true));
    run.packets(5).await;
    run.stop().await;
    assert_eq!(place.agents("web").await, [container]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_goes_on_where_it_was_and_a_killed_agent_is_replaced() {
    let place = Place::new("kill", json!({})).await;
    // With one process namespace, the pod's own container can kill the agent.
    place.pod("web", &json!({"shareProcessNamespace": true})).await;
    let mut run = place.run("web").await;
    let (container, _) = run.attached().await;
    run.packets(20).await;
    for _ in 0..3 {
        place.kill("web", "stream").await;
        // What was on its way may still come over the old connection.
        run.packets(40).await;
    }
    assert_consecutive(&run.ids);
    assert_eq!(run.connections, 4);
    assert!(run.told.iter().all(|event| !event.starts_with("Lost")), "{:#?}", run.told);

    place.kill("web", "run").await;
    let error = run
        .until("interruption", |event| match event {
            Event::Interrupted { error, .. } => Some(error.message.clone()),
            _ => None,
        })
        .await;
    assert_eq!(error, "the agent was killed (SIGKILL)");
    let (second, reused) = run.attached().await;
    assert!(!reused && second != container);
    assert!(run.told.iter().any(|event| event.starts_with("Restarted")), "{:#?}", run.told);
    run.packets(20).await;

    place.exec("web", &second, &["/sniff-agent", "stop"]).await;
    assert_eq!(run.left().await, "its agent was asked to stop");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_followed_as_they_come_and_go() {
    let place = Place::new("scale", json!({})).await;
    let deployment = |replicas: u32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": Place::spec(&json!({}))}}})
    };
    place.apply(deployment(0)).await;
    let mut run = place.run("deploy/web").await;
    run.until("waiting", |event| matches!(event, Event::Waiting).then_some(())).await;
    for (before, after) in [(0, 1), (1, 6), (6, 1), (1, 0)] {
        place.apply(deployment(after)).await;
        for _ in before..after {
            run.attached().await;
        }
        for _ in after..before {
            assert_eq!(run.left().await, "deleted");
        }
    }
    run.until("waiting", |event| matches!(event, Event::Waiting).then_some(())).await;
    let bad = |event: &&String| ["Lost", "Failed", "Interrupted"].iter().any(|kind| event.starts_with(kind));
    assert_eq!(run.told.iter().find(bad), None);
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ladder_ends_where_the_namespace_says() {
    let level = |level: &str| json!({"pod-security.kubernetes.io/enforce": level});
    let place = Place::new("baseline", level("baseline")).await;
    place.pod("web", &json!({})).await;
    let mut run = place.run("web").await;
    run.attached().await;
    run.packets(5).await;
    run.stop().await;

    // The level is raised over a pod that is there already.
    let mut labels = level("restricted");
    labels["pod-security.kubernetes.io/enforce-version"] = json!("latest");
    place
        .apply(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.namespace, "labels": labels}}),
        )
        .await;
    let agents = place.agents("web").await;
    let mut run = Run::start(&Connection::default(), &place.select("web"), Options { snaplen: 96, ..options() }).await;
    let (message, hint) = run.failed().await;
    let beginning = format!("namespace {} enforces Pod Security \"restricted\"", place.namespace);
    assert!(message.starts_with(&beginning) && message.contains("violates PodSecurity"), "{message}");
    assert!(hint.unwrap().contains("kubectl label --overwrite namespace"));
    run.stop().await;
    assert_eq!(place.agents("web").await, agents);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_are_named_and_nothing_is_left_behind() {
    let place = Place::new("rights", json!({})).await;
    place.pod("web", &json!({})).await;
    let role = |rules: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "eve"}, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "eve"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "eve"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}]});
    let eve = Connection { impersonate: Some("eve".into()), ..Connection::default() };
    let namespace = &place.namespace;

    let run = Run::start(&eve, &place.select("web"), options()).await;
    let error = run.task.await.unwrap().unwrap_err();
    assert!(
        error.message.starts_with(&format!("you are not allowed to list pods in namespace {namespace}: ")),
        "{error}"
    );
    assert_eq!(error.hint, Some(format!("kubectl auth can-i list pods -n {namespace}")));

    let see = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]});
    place.apply(role(json!([see]))).await;
    place.apply(binding).await;
    let mut run = Run::start(&eve, &place.select("web"), options()).await;
    let (message, _) = run.failed().await;
    assert!(
        message.starts_with(&format!("you are not allowed to get and create pods/exec in namespace {namespace}")),
        "{message}"
    );
    run.stop().await;

    let exec = json!({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]});
    place.apply(role(json!([see, exec]))).await;
    let mut run = Run::start(&eve, &place.select("web"), options()).await;
    let (message, hint) = run.failed().await;
    assert!(
        message.starts_with("you are not allowed to patch pods/ephemeralcontainers of web in namespace"),
        "{message}"
    );
    assert_eq!(hint, Some(format!("kubectl auth can-i patch pods/ephemeralcontainers -n {namespace}")));
    run.stop().await;
    assert_eq!(place.agents("web").await, [""; 0]);

    let patch = json!({"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["patch"]});
    place.apply(role(json!([see, exec, patch]))).await;
    let mut run = Run::start(&eve, &place.select("web"), options()).await;
    run.attached().await;
    let note = |event: &&String| event.starts_with("Note(\"you are not allowed to list nodes");
    if !run.told.iter().any(|event| note(&event)) {
        run.until("note", |event| matches!(event, Event::Note(note) if note.contains("nodes")).then_some(())).await;
    }
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_not_there_are_told_at_once() {
    let place = Place::new("image", json!({})).await;
    place.pod("web", &json!({})).await;
    for (image, pull_policy, expected) in [
        ("localhost/sniff-test/none:1", PullPolicy::IfNotPresent, "the node cannot pull the agent's image"),
        ("NO IMAGE", PullPolicy::IfNotPresent, "\"NO IMAGE\" is no name of an image"),
        ("localhost/sniff-test/none:2", PullPolicy::Never, "the node does not have the agent's image"),
    ] {
        let since = Instant::now();
        let options = Options { image: image.to_owned(), pull_policy, ..options() };
        let mut run = Run::start(&Connection::default(), &place.select("web"), options).await;
        let (message, hint) = run.failed().await;
        assert!(message.starts_with(expected), "{message}");
        assert!(hint.is_some());
        assert!(since.elapsed() < Duration::from_secs(10), "{image}: {:?}", since.elapsed());
        run.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_told_and_the_others_go_on() {
    let place = Place::new("skip", json!({})).await;
    place.pod("web-1", &json!({})).await;
    place.pod("web-2", &json!({})).await;
    place
        .pod(
            "web-3",
            &json!({"hostNetwork": true, "containers": [{"name": "idle", "imagePullPolicy": "IfNotPresent",
        "image": std::env::var("SNIFF_TEST_IMAGE").unwrap_or_else(|_| "localhost/sniff-test/busybox:1".into()),
        "command": ["sleep", "600"]}]}),
        )
        .await;
    let select = Select { max_targets: 1, ..place.select("web") };
    let mut run = Run::start(&Connection::default(), &select, options()).await;
    run.attached().await;
    run.packets(5).await;
    run.stop.send_replace(true);
    let told = run.told.join("\n");
    assert!(told.contains("--max-targets is 1"), "{told}");
    assert!(told.contains("--allow-host-network takes it"), "{told}");
    assert!(told.contains("more than 1 pods match"), "{told}");
    run.stop().await;
}
