//! A real cluster, and places in it for tests.
//!
//! `SNIFF_TEST_KUBECONFIG` names a cluster, `SNIFF_TEST_IMAGE` a busybox that its nodes have; the agent's image must be
//! there as well. Without the variable, the tests start the cluster of `tests/cluster` and load the image into it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{AttachParams, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::KubeConfigOptions;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// How long anything may take that has no time of its own.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The kubeconfig of a cluster that has the agent's image.
pub fn kubeconfig() -> &'static Path {
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

/// Breaks the test cluster, or mends it: `restart-apiserver`, `restart-kubelet N`, `link-down N`, `link-up N`.
pub fn fault(words: &[&str]) {
    assert!(
        std::env::var_os("SNIFF_TEST_KUBECONFIG").is_none_or(|path| path.to_string_lossy().contains("sniff-cluster")),
        "faults can be made in the cluster of tests/cluster only; unset SNIFF_TEST_KUBECONFIG"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/cluster");
    let output = Command::new(script).arg("fault").args(words).output().expect("tests/cluster/cluster runs");
    assert!(output.status.success(), "fault {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace of one test, gone with it.
pub struct Place {
    pub client: Client,
    pub namespace: String,
    turn: Arc<Turn>,
}

/// Tests share the cluster, but for those that break it for a while.
enum Turn {
    Shared(#[allow(dead_code, reason = "it is held")] OwnedRwLockReadGuard<()>),
    Alone(#[allow(dead_code, reason = "it is held")] OwnedRwLockWriteGuard<()>),
}

fn cluster_lock() -> Arc<RwLock<()>> {
    static LOCK: OnceLock<Arc<RwLock<()>>> = OnceLock::new();
    Arc::clone(LOCK.get_or_init(Arc::default))
}

impl Place {
    /// A namespace in the cluster that others use too.
    pub async fn new(name: &str, labels: Value) -> Self {
        let turn = Turn::Shared(cluster_lock().read_owned().await);
        Self::with(name, labels, Arc::new(turn)).await
    }

    /// A namespace in the cluster while no other test uses it.
    pub async fn alone(name: &str) -> Self {
        let turn = Turn::Alone(cluster_lock().write_owned().await);
        Self::with(name, json!({}), Arc::new(turn)).await
    }

    /// One more namespace for the same test.
    pub async fn another(&self, name: &str) -> Self {
        Self::with(name, json!({}), Arc::clone(&self.turn)).await
    }

    async fn with(name: &str, labels: Value, turn: Arc<Turn>) -> Self {
        let config = kube::config::Kubeconfig::read_from(kubeconfig()).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("a cluster");
        let client = Client::try_from(config).expect("a client");
        let namespace = format!("sniff-test-{name}-{}", std::process::id());
        let place = Self { client, namespace: namespace.clone(), turn };
        place
            .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}))
            .await;
        // Pods need its service account.
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(place.client.clone(), &namespace);
        soon("a service account", || async { accounts.get_opt("default").await.ok().flatten().map(drop) }).await;
        place
    }

    pub async fn apply(&self, object: Value) {
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

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A pod that asks itself for a page, five times a second.
    pub fn spec(more: &Value) -> Value {
        let image = std::env::var("SNIFF_TEST_IMAGE").unwrap_or_else(|_| "localhost/sniff-test/busybox:1".into());
        let script = "mkdir -p /tmp/w; echo hello >/tmp/w/index.html; httpd -p 8080 -h /tmp/w; \
                      while true; do wget -q -O /dev/null http://127.0.0.1:8080/; sleep 0.2; done";
        let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": image,
            "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    }

    pub async fn pod(&self, name: &str, more: &Value) {
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

    pub async fn agents(&self, pod: &str) -> Vec<String> {
        let pod = self.pods().get(pod).await.expect("the pod");
        let containers = pod.spec.and_then(|spec| spec.ephemeral_containers).unwrap_or_default();
        containers.into_iter().map(|container| container.name).collect()
    }

    pub async fn exec(&self, pod: &str, container: &str, command: &[&str]) -> String {
        let parameters = AttachParams::default().container(container).stderr(false);
        let mut process = self.pods().exec(pod, command.iter().copied(), &parameters).await.expect("exec");
        let mut output = String::new();
        process.stdout().unwrap().read_to_string(&mut output).await.expect("output");
        output
    }

    /// Kills the agent's process with that command, from another container of the pod.
    pub async fn kill(&self, pod: &str, command: &str) {
        let script = format!(
            "ps | while read pid user line; do case $line in '/sniff-agent {command} '*) kill -9 $pid && echo killed;; esac; done"
        );
        let output = self.exec(pod, "web", &["sh", "-c", &script]).await;
        assert_eq!(output.trim(), "killed");
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

/// Asks again and again until there is an answer.
pub async fn soon<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    soon_within(PATIENCE, what, ask).await
}

/// The same, for what takes longer.
pub async fn soon_within<T, F: Future<Output = Option<T>>>(patience: Duration, what: &str, ask: impl Fn() -> F) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < patience, "no {what} within {patience:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
