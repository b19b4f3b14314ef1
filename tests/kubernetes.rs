//! The session on a real cluster: agents in pods, their streams, and what goes wrong with them.

use std::time::{Duration, Instant};

use kubectl_sniff::cluster::Event;
use kubectl_sniff::cluster::flags::{Backend, Connection, Options, PullPolicy, Select};
use kubectl_sniff::pipeline::Resolve;
use serde_json::{Value, json};

use crate::support::cluster::{PATIENCE, Place, soon};
use crate::support::run::{Run, options};

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
        (status["sessions"] == serde_json::json!([])).then_some(())
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
    for (before, after) in [(0, 1), (1, 20), (20, 1), (1, 0)] {
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
    let mut run =
        Run::start(&Connection::default(), &place.select("web"), Options { backend: Backend::Libpcap, ..options() })
            .await;
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
