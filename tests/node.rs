//! Capture from nodes, of pods that may not be touched: on a real cluster, with the plugin's binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use kubectl_sniff::cluster::Event;
use kubectl_sniff::cluster::flags::{Connection, Options, Via};

use crate::support::cluster::{Place, soon};
use crate::support::run::{Run, options};
use crate::support::sniff::Sniff;

async fn nodes(place: &Place) -> Vec<String> {
    let nodes: Api<Node> = Api::all(place.client.clone());
    let nodes: Vec<String> =
        nodes.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert!(nodes.len() >= 2, "this test needs two nodes, there are {nodes:?}");
    nodes
}

fn level(level: &str) -> Value {
    json!({"pod-security.kubernetes.io/enforce": level})
}

/// What a namespace of level `restricted` takes: a web server without any right, on that node.
fn restricted(node: &str) -> Value {
    let mut spec = Place::spec(&json!({"nodeName": node, "volumes": [{"name": "tmp", "emptyDir": {}}]}));
    let container = &mut spec["containers"][0];
    container["securityContext"] = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}});
    container["volumeMounts"] = json!([{"name": "tmp", "mountPath": "/tmp"}]);
    spec
}

async fn address(place: &Place, pod: &str) -> String {
    place.pods().get(pod).await.unwrap().status.unwrap().pod_ip.unwrap()
}

/// Asks `from` to fetch `/NAME?n=1` and so on up to `count` from there.
async fn ask(place: &Place, from: &str, to: &str, name: &str, count: usize) {
    let script = format!(
        "n=1; while [ $n -le {count} ]; do wget -q -O /dev/null 'http://{to}/index.html?{name}='$n || exit 1; n=$((n+1)); done; echo done"
    );
    assert_eq!(place.exec(from, "web", &["sh", "-c", &script]).await.trim(), "done", "{name}");
}

/// How many rows each of the requests of that name has.
fn rows(entries: &[Value], name: &str) -> BTreeMap<usize, usize> {
    let mut rows = BTreeMap::new();
    let beginning = format!("/index.html?{name}=");
    for entry in entries.iter().filter(|entry| entry["protocol"] == "http") {
        let Some(number) = entry["target"].as_str().and_then(|target| target.strip_prefix(&beginning)) else {
            continue;
        };
        assert_eq!(entry["status"], "200", "{entry}");
        *rows.entry(number.parse().unwrap()).or_default() += 1;
    }
    rows
}

async fn left(place: &Place) -> (usize, usize) {
    let jobs: Api<Job> = Api::namespaced(place.client.clone(), &place.namespace);
    let pods: Api<Pod> = place.pods();
    let all = ListParams::default();
    (jobs.list(&all).await.unwrap().items.len(), pods.list(&all).await.unwrap().items.len())
}

async fn gone(place: &Place) {
    soon("end of the capture pods", || async { (left(place).await == (0, 0)).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_may_not_be_touched_are_captured_from_both_nodes() {
    const COUNT: usize = 40;
    let place = Place::new("untouched", level("restricted")).await;
    let via = place.another("via").await;
    let nodes = nodes(&place).await;
    for (pod, node) in [("alpha-1", 0), ("beta-1", 1), ("other", 0), ("client", 0)] {
        place.pod(pod, &restricted(&nodes[node])).await;
    }
    place
        .apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "beta"},
            "spec": {"selector": {"app": "beta-1"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
        .await;
    let services: Api<Service> = Api::namespaced(place.client.clone(), &place.namespace);
    let service = services.get("beta").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let (alpha, beta) = (address(&place, "alpha-1").await, address(&place, "beta-1").await);
    let other = address(&place, "other").await;
    soon("a way to the service", || async {
        let script = format!("wget -q -O /dev/null http://{service}/ && echo done");
        (place.exec("client", "web", &["sh", "-c", &script]).await.trim() == "done").then_some(())
    })
    .await;

    let (namespace, there) = (place.namespace.as_str(), via.namespace.as_str());
    let live = Sniff::at_place(&place, &["(alpha|beta)", "--via", "node", "--via-namespace", there]);
    live.says(&format!("+ {namespace}/alpha-1 ({})", nodes[0]), 1);
    live.says(&format!("+ {namespace}/beta-1 ({})", nodes[1]), 1);

    // To one on the same node, one on the other, between the two, through a service from its node and from another.
    ask(&place, "client", &format!("{alpha}:8080"), "near", COUNT).await;
    ask(&place, "client", &format!("{beta}:8080"), "far", COUNT).await;
    ask(&place, "alpha-1", &format!("{beta}:8080"), "between", COUNT).await;
    ask(&place, "alpha-1", &service, "service", COUNT).await;
    ask(&place, "beta-1", &service, "itself", COUNT).await;
    ask(&place, "client", &format!("{other}:8080"), "other", COUNT).await;

    // One that comes later, on a node that is captured already.
    place.pod("alpha-2", &restricted(&nodes[0])).await;
    live.says(&format!("+ {namespace}/alpha-2 ({})", nodes[0]), 1);
    let late = address(&place, "alpha-2").await;
    ask(&place, "client", &format!("{late}:8080"), "late", COUNT).await;
    live.prints(&format!("?late={COUNT}\""), 1);

    let listed = Sniff::at_cluster(&["ls", "-n", there, "-o", "json"]).end().entries();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for agent in &listed {
        assert!(agent["repeated"].as_u64() > Some(COUNT as u64), "{agent}");
        assert_eq!(agent["drops"], 0, "{agent}");
        assert!(agent["filter"].as_str().is_some_and(|filter| filter.contains("ip host ")), "{agent}");
    }
    place.pods().delete("alpha-1", &DeleteParams::default()).await.unwrap();
    live.says(&format!("- {namespace}/alpha-1"), 1);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let done = live.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("3 pods · ") && done.stderr.contains("0 dropped by kernel"), "{}", done.stderr);
    gone(&via).await;

    let entries = done.entries();
    for name in ["near", "far", "between", "service", "itself", "late"] {
        let found = rows(&entries, name);
        assert_eq!((found.len(), found.values().find(|count| **count != 1)), (COUNT, None), "{name}: {found:?}");
    }
    assert_eq!(rows(&entries, "other"), BTreeMap::new());
    let of_service = entries.iter().find(|entry| entry["target"] == "/index.html?service=20").unwrap();
    assert_eq!(
        (&of_service["src"]["name"], &of_service["dst"]["name"], &of_service["dst"]["backend"]["name"]),
        (&json!("alpha-1"), &json!("beta"), &json!("beta-1")),
        "{of_service}"
    );
    assert_eq!(place.agents("beta-1").await, [""; 0], "the pods are as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_recorded_before_anybody_came_is_dissected_later() {
    const COUNT: usize = 20;
    let place = Place::new("node-recorder", level("restricted")).await;
    let via = place.another("node-recorder-via").await;
    let nodes = nodes(&place).await;
    for (pod, node) in [("alpha", 0), ("beta", 1), ("client", 0)] {
        place.pod(pod, &restricted(&nodes[node])).await;
    }
    let (namespace, there) = (place.namespace.as_str(), via.namespace.as_str());
    let of = |pods: &str, arguments: &[&str]| {
        let inside = [pods, "-n", namespace, "--via", "node", "--via-namespace", there, "-o", "json"];
        Sniff::at_cluster(&[&inside, arguments].concat())
    };
    let nothing = of("alpha", &["--since", "1m", "--until", "0s"]).end();
    assert_eq!(nothing.code(), Some(1), "{}", nothing.stderr);
    assert!(nothing.stderr.contains("no agent has recorded anything"), "{}", nothing.stderr);

    let start = |time: &str| {
        let inside = ["start", "(alpha|beta)", "-n", namespace, "--via", "node", "--via-namespace", there];
        Sniff::at_cluster(&[&inside[..], &["--for", time, "--buffer", "2Mi"]].concat()).end()
    };
    let started = start("20m");
    assert_eq!(started.code(), Some(0), "{}", started.stderr);
    for pod in ["alpha", "beta"] {
        assert!(started.stderr.contains(&format!("+ {namespace}/{pod} (records)")), "{}", started.stderr);
    }
    assert!(started.stderr.contains("2 pods record"), "{}", started.stderr);
    let (alpha, beta) = (address(&place, "alpha").await, address(&place, "beta").await);
    ask(&place, "client", &format!("{alpha}:8080"), "alpha", COUNT).await;
    ask(&place, "client", &format!("{beta}:8080"), "beta", COUNT).await;

    // Whoever comes finds them, and gets what is asked for alone.
    let past = of("alpha", &["--since", "5m", "--until", "0s"]).end();
    assert_eq!(past.code(), Some(0), "{}", past.stderr);
    assert_eq!((rows(&past.entries(), "alpha").len(), rows(&past.entries(), "beta").len()), (COUNT, 0));
    assert!(past.stderr.contains("0 flushed · 0 gaps"), "{}", past.stderr);
    // Of a pod that came later nobody has recorded anything.
    place.pod("alpha-late", &restricted(&nodes[0])).await;
    let live = of("(alpha|beta)", &["--since", "5m"]);
    live.says(&format!("{namespace}/alpha-late is left out: the agent that records on {}", nodes[0]), 1);
    live.says("agent was there", 2);
    live.prints(&format!("?beta={COUNT}\""), 1);
    ask(&place, "client", &format!("{beta}:8080"), "live", COUNT).await;
    live.prints(&format!("?live={COUNT}\""), 1);
    let done = live.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    for name in ["alpha", "beta", "live"] {
        let found = rows(&done.entries(), name);
        assert_eq!((found.len(), found.values().find(|count| **count != 1)), (COUNT, None), "{name}: {found:?}");
    }
    // Armed again: an agent of that node's for each choice of pods, and the same one for the same choice.
    assert_eq!(left(&via).await, (2, 2));
    let again = start("2h");
    assert!(again.stderr.contains(&format!("+ {namespace}/beta (records on)")), "{}", again.stderr);
    let listed = Sniff::at_cluster(&["ls", "-n", there, "-o", "json"]).end().entries();
    let on = |node: &str, least: u64| {
        listed.iter().filter(|agent| agent["node"] == node && agent["leaves"].as_u64() > Some(least)).count()
    };
    assert_eq!((on(&nodes[0], 1000), on(&nodes[0], 7000), on(&nodes[1], 7000)), (2, 1, 1), "{listed:?}");

    let stopped = Sniff::at_cluster(&["stop", "-n", there]).end();
    assert_eq!(stopped.code(), Some(0), "{}", stopped.stderr);
    gone(&via).await;
    assert_eq!(place.agents("beta").await, [""; 0], "the pods are as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_leaves_nothing_behind() {
    let place = Place::new("killed", level("restricted")).await;
    let via = place.another("killed-via").await;
    place.pod("web", &restricted(&nodes(&place).await[0])).await;
    let (namespace, there) = (place.namespace.as_str(), via.namespace.as_str());
    let live = Sniff::at_cluster(&["web", "-n", namespace, "--via", "node", "--via-namespace", there, "--ttl", "3s"]);
    live.says("+ ", 1);
    assert_eq!(left(&via).await, (1, 1));
    live.kill();
    gone(&via).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_refuses_capture_pods_is_named_with_what_to_do() {
    let place = Place::new("refusing", level("baseline")).await;
    place.pod("web", &json!({})).await;
    let namespace = place.namespace.as_str();
    let refused = Sniff::at_cluster(&["web", "-n", namespace, "--via", "node", "--via-namespace", namespace]).end();
    assert_eq!((refused.code(), refused.stdout.as_str()), (Some(1), ""));
    let beginning = format!("error: namespace {namespace} takes no capture pod: ");
    assert!(refused.stderr.contains(&beginning) && refused.stderr.contains("PodSecurity"), "{}", refused.stderr);
    let hint = format!("kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=privileged");
    assert!(refused.stderr.contains("--via-namespace") && refused.stderr.contains(&hint), "{}", refused.stderr);
    let nowhere = Sniff::at_cluster(&["web", "-n", namespace, "--via", "node", "--via-namespace", "not-there"]).end();
    assert!(nowhere.stderr.contains("there is no namespace \"not-there\""), "{}", nowhere.stderr);
    assert_eq!(left(&place).await, (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_nodes_network_a_pod_is_its_ports() {
    let place = Place::new("ports", json!({})).await;
    let nodes = nodes(&place).await;
    let port = 20_000 + std::process::id() % 10_000;
    let mut host = Place::spec(&json!({"nodeName": nodes[0], "hostNetwork": true}));
    let serve = format!("mkdir -p /tmp/w; echo hello >/tmp/w/index.html; httpd -f -p {port} -h /tmp/w");
    host["containers"][0]["command"] = json!(["sh", "-c", serve]);
    host["containers"][0]["ports"] = json!([{"containerPort": port}]);
    place.pod("host", &host).await;
    host["containers"][0]["ports"] = json!([]);
    host["containers"][0]["command"] = json!(["sleep", "600"]);
    place.pod("silent", &host).await;
    place.pod("client", &json!({"nodeName": nodes[1]})).await;

    let (namespace, node) = (place.namespace.as_str(), address(&place, "host").await);
    let live = Sniff::at_place(&place, &["(host|silent)", "--via", "node", "--via-namespace", namespace]);
    live.says("declares no ports", 1);
    live.says(&format!("only its declared ports are captured ({port}/tcp)"), 1);
    live.says(&format!("+ {namespace}/host"), 1);
    ask(&place, "client", &format!("{node}:{port}"), "host", 10).await;
    live.prints("?host=10\"", 1);

    // Another capture pod comes in the place of one that is lost.
    let ours = ListParams::default().labels("app.kubernetes.io/name=sniff-agent");
    let agent = place.pods().list(&ours).await.unwrap().items.remove(0).name_any();
    place.pods().delete(&agent, &DeleteParams::default()).await.unwrap();
    live.says("another is started", 1);
    soon("another agent", || async {
        let agents = Sniff::at_cluster(&["ls", "-n", namespace, "-o", "name"]).end().stdout;
        (!agents.is_empty() && !agents.contains(&agent)).then_some(())
    })
    .await;
    std::thread::sleep(std::time::Duration::from_secs(1));
    ask(&place, "client", &format!("{node}:{port}"), "again", 10).await;
    live.prints("?again=10\"", 1);

    let stopped = Sniff::at_cluster(&["stop", "-n", namespace]).end();
    assert_eq!(stopped.code(), Some(0), "{}", stopped.stderr);
    live.says(&format!("- {namespace}/host (its agent was asked to stop)"), 1);
    let done = live.interrupt();
    assert_eq!(rows(&done.entries(), "host").len(), 10, "{}", done.stderr);
    assert_eq!(rows(&done.entries(), "again").len(), 10, "{}", done.stderr);
    let strange = done.entries().into_iter().find(|entry| entry["dst"]["port"] != port);
    assert_eq!(strange, None);
}

/// Kills a process of the capture pod that was made for that address: its agent (`run`) or a session (`stream`). The nodes of
/// the test cluster share the machine's processes.
fn kill(address: &str, command: &str) {
    let processes = || std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let runs = |process: &Path, command: &str, argument: &str| {
        let words = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        words.starts_with(&format!("/sniff-agent\0{command}\0")) && words.contains(argument)
    };
    let own = processes().find(|process| runs(process, "run", &format!("ip host {address}"))).expect("its agent");
    let namespace = |process: &Path| std::fs::read_link(process.join("ns/pid")).ok();
    let victim = processes().find(|process| runs(process, command, "") && namespace(process) == namespace(&own));
    let id = victim.expect("its process").file_name().unwrap().to_owned();
    assert!(Command::new("kill").arg("-9").arg(id).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_of_a_node_goes_on_where_it_was_and_a_killed_agent_is_replaced() {
    let place = Place::new("node-faults", level("restricted")).await;
    let via = place.another("node-faults-via").await;
    let node = nodes(&place).await.remove(0);
    place.pod("web", &restricted(&node)).await;
    let web = address(&place, "web").await;
    let mut client = restricted(&node);
    let asking = format!("while true; do wget -q -O /dev/null http://{web}:8080/; sleep 0.05; done");
    client["containers"][0]["command"] = json!(["sh", "-c", asking]);
    place.pod("client", &client).await;
    let options = Options { via: Via::Node, via_namespace: via.namespace.clone(), ..options() };
    let mut run = Run::start(&Connection::default(), &place.select("web"), options).await;
    run.attached().await;
    run.packets(20).await;

    kill(&web, "stream");
    while run.connections < 2 {
        run.packets(1).await;
    }
    run.packets(20).await;
    // Not one is lost or comes twice.
    assert_eq!(run.ids, (1..=run.ids.len() as u64).collect::<Vec<_>>(), "{:#?}", run.told);

    kill(&web, "run");
    run.until("word of the hole", |event| matches!(event, Event::Interrupted { .. }).then_some(())).await;
    run.ids.clear();
    run.until("another agent", |event| matches!(event, Event::Restarted { .. }).then_some(())).await;
    run.packets(20).await;
    assert_eq!(run.ids, (1..=run.ids.len() as u64).collect::<Vec<_>>(), "{:#?}", run.told);
    let bad = |event: &&String| event.starts_with("Lost") || event.starts_with("Failed");
    assert_eq!((run.told.iter().find(bad), &run.flushed), (None, &Vec::new()));
    soon("one capture pod", || async { (left(&via).await == (1, 1)).then_some(()) }).await;
    run.stop().await;
    gone(&via).await;
}
