//! The main job as its users run it: the plugin's binary on a real cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::cluster::{Place, soon};
use crate::support::sniff::{Sniff, at_cluster, run};

/// Requests of the client that counts.
const REQUESTS: usize = 10_000;

/// Answers each request at once, on connections that stay.
const SERVER: &str = r#"
import socket, threading
def serve(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b""
    while piece := connection.recv(65536):
        data += piece
        while (end := data.find(b"\r\n\r\n")) >= 0:
            data = data[end + 4:]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
listener = socket.create_server(("", 8080), backlog=64)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// Asks as fast as it can on eight connections once it is told to, and counts the answers.
const CLIENT: &str = r#"
import os, socket, threading, time
while not os.path.exists("/tmp/go"):
    time.sleep(0.05)
answers = [0] * 8
def ask(worker):
    connection = socket.create_connection((os.environ["SERVER"], 8080))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number in range(worker, int(os.environ["REQUESTS"]), 8):
        connection.sendall(b"GET /?n=%d HTTP/1.1\r\nHost: server\r\n\r\n" % number)
        data = b""
        while not data.endswith(b"\r\n\r\nok"):
            data += connection.recv(65536)
        answers[worker] += 1
    connection.close()
workers = [threading.Thread(target=ask, args=(worker,)) for worker in range(8)]
for worker in workers: worker.start()
for worker in workers: worker.join()
open("/tmp/done.new", "w").write(str(sum(answers)))
os.rename("/tmp/done.new", "/tmp/done")
time.sleep(600)
"#;

/// A pod that runs a Python program: the node's own Python, or that of the image in `SNIFF_TEST_PYTHON_IMAGE`.
fn python(program: &str, environment: &[(&str, &str)]) -> Value {
    let environment: Vec<Value> =
        environment.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let mut container = json!({"name": "web", "imagePullPolicy": "IfNotPresent", "env": environment,
        "command": ["python3", "-c", program]});
    if let Ok(image) = std::env::var("SNIFF_TEST_PYTHON_IMAGE") {
        container["image"] = json!(image);
        return json!({"containers": [container]});
    }
    let folders = [("usr", "/usr", "/usr"), ("lib", "/usr/lib", "/lib"), ("lib64", "/usr/lib64", "/lib64")];
    let mounts = folders.map(|(name, _, to)| json!({"name": name, "mountPath": to, "readOnly": true}));
    let volumes = folders.map(|(name, from, _)| json!({"name": name, "hostPath": {"path": from}}));
    container["image"] = json!("localhost/sniff-test/busybox:1");
    container["command"][0] = json!("/usr/bin/python3");
    container["volumeMounts"] = json!(mounts);
    json!({"containers": [container], "volumes": volumes})
}

/// How often each of the counted requests has a row; every row of them is complete.
fn rows(entries: &[Value]) -> BTreeMap<usize, usize> {
    let mut rows = BTreeMap::new();
    for entry in entries {
        let Some(number) = entry["target"].as_str().and_then(|target| target.strip_prefix("/?n=")) else { continue };
        assert_eq!((&entry["protocol"], &entry["status"]), (&json!("http"), &json!("200")), "{entry}");
        *rows.entry(number.parse().unwrap()).or_default() += 1;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_that_a_client_counted_is_one_row_and_the_saved_capture_has_them_too() {
    let place = Place::new("count", json!({})).await;
    place.pod("server", &python(SERVER, &[])).await;
    let server = place.pods().get("server").await.unwrap().status.unwrap().pod_ip.unwrap();
    place.pod("client", &python(CLIENT, &[("SERVER", &server), ("REQUESTS", &REQUESTS.to_string())])).await;

    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("out.pcap").display().to_string();
    let live = Sniff::at_place(&place, &["client|server", "--pcap", &capture]);
    live.says("+ ", 2);
    // Another client of the same agents sees the same.
    let other = Sniff::at_place(&place, &["client|server"]);
    other.says("agent was there", 2);
    place.exec("client", "web", &["sh", "-c", ": >/tmp/go"]).await;
    let counted = soon("end of the client", || async {
        let count = place.exec("client", "web", &["cat", "/tmp/done"]).await;
        (!count.is_empty()).then_some(count)
    })
    .await;
    assert_eq!(counted, REQUESTS.to_string());
    live.prints("/?n=", REQUESTS);
    let done = live.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("0 dropped by kernel · 0 flushed · 0 gaps"), "{}", done.stderr);

    other.prints("/?n=", REQUESTS);
    let entries = done.entries();
    let found = rows(&entries);
    assert_eq!(rows(&other.interrupt().entries()), found);
    assert_eq!(found.len(), REQUESTS);
    assert_eq!(found.iter().find(|(_, count)| **count != 1), None);
    let named = entries.iter().find(|entry| entry["target"] == "/?n=0").unwrap();
    assert_eq!((&named["src"]["name"], &named["dst"]["name"]), (&json!("client"), &json!("server")), "{named}");

    let again = run(&["--pcap", &capture, "-o", "json"]);
    assert_eq!(rows(&again.entries()), found, "{}", again.stderr);
    let saved = done.stderr.lines().find_map(|line| Some(line.split_once(" packets saved")?.0.to_owned())).unwrap();
    let saved: String = saved.chars().filter(char::is_ascii_digit).collect();
    assert_eq!(tshark(Path::new(&capture)).to_string(), saved);
}

/// Packets that tshark finds; it may have nothing to say about the file.
fn tshark(capture: &Path) -> usize {
    let output = Command::new("tshark").arg("-r").arg(capture).args(["-T", "fields", "-e", "frame.number"]).output();
    let output = output.expect("tshark, which tests/setup installs");
    let said = String::from_utf8_lossy(&output.stderr)
        .replace("Running as user \"root\" and group \"root\". This could be dangerous.", "");
    assert_eq!(said.trim(), "");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_two_namespaces_and_two_nodes_come_and_go() {
    let one = Place::new("one", json!({})).await;
    let two = one.another("two").await;
    let nodes: Api<Node> = Api::all(one.client.clone());
    let nodes: Vec<String> =
        nodes.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert!(nodes.len() >= 2, "this test needs two nodes, there are {nodes:?}");
    one.pod("alpha-1", &json!({"nodeName": nodes[0]})).await;
    two.pod("beta-1", &json!({"nodeName": nodes[1]})).await;
    two.pod("gamma-1", &json!({})).await;

    let namespaces = [one.namespace.as_str(), two.namespace.as_str()];
    let live = Sniff::at_cluster(&["(alpha*|beta*)", "-n", namespaces[0], "-n", namespaces[1], "-o", "json"]);
    for (pod, namespace, node) in [("alpha-1", namespaces[0], &nodes[0]), ("beta-1", namespaces[1], &nodes[1])] {
        live.says(&format!("+ {namespace}/{pod} ({node}"), 1);
        live.prints(&format!("\"{pod}\""), 5);
    }
    one.pod("alpha-2", &json!({})).await;
    live.says(&format!("+ {}/alpha-2", namespaces[0]), 1);
    live.prints("\"alpha-2\"", 2);
    two.pods().delete("beta-1", &DeleteParams::default()).await.unwrap();
    live.says(&format!("- {}/beta-1", namespaces[1]), 1);
    let done = live.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("3 pods · "), "{}", done.stderr);
    assert!(!done.stderr.contains("gamma") && !done.stdout.contains("gamma"), "{}", done.stderr);
    for entry in done.entries().iter().filter(|entry| entry["protocol"] == "http") {
        assert_eq!((&entry["target"], &entry["status"]), (&json!("/"), &json!("200")), "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_packets_and_ends_are_as_asked() {
    let place = Place::new("ends", json!({})).await;
    place.pod("web", &json!({})).await;
    let namespace = place.namespace.clone();
    let names = Sniff::at_cluster(&["we*", "-n", &namespace, "-o", "name"]).end();
    assert_eq!((names.stdout.as_str(), names.code()), ("pod/web\n", Some(0)), "{}", names.stderr);

    let few = Sniff::at_cluster(&["web", "-n", &namespace, "--count", "3"]).end();
    assert_eq!((few.stdout.lines().count(), few.code()), (4, Some(0)), "{}{}", few.stdout, few.stderr);
    let short = Sniff::at_cluster(&["web", "-n", &namespace, "--duration", "2s"]).end();
    assert_eq!(short.code(), Some(0), "{}", short.stderr);
    assert!(short.stdout.lines().count() > 5, "{}", short.stdout);

    let folder = tempfile::tempdir().unwrap();
    let piped = folder.path().join("piped");
    let mut command = at_cluster(&["web", "-n", &namespace, "--pcap", "-", "--duration", "2s"]);
    let done = command.stdout(std::fs::File::create(&piped).unwrap()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(tshark(&piped) > 10);

    let wrong = Sniff::at_cluster(&["*we", "-n", &namespace]).end();
    assert_eq!((wrong.stdout.as_str(), wrong.code()), ("", Some(2)), "{}", wrong.stderr);
    let bad = Sniff::at_cluster(&["web", "-n", &namespace, "--image", "localhost/sniff-test/none:1"]).end();
    assert_eq!((bad.stdout.as_str(), bad.code()), ("", Some(1)));
    assert!(bad.stderr.contains("error: ") && bad.stderr.contains("hint: "), "{}", bad.stderr);
}
