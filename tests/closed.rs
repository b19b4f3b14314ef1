//! TLS that stays closed, and why: rows say so, and the plugin once for each pod; with real programs on a real cluster.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::cluster::Place;
use crate::support::from_node;
use crate::support::sniff::Sniff;

/// Serves HTTPS, old clients as well, and lines of text over TLS, neither of which is sniffed.
const SERVER: &str = "openssl req -x509 -newkey rsa:2048 -nodes -keyout /tmp/k -out /tmp/c -days 2 \
    -subj /CN=localhost 2>/dev/null; \
    for port in 8443 8445; do sleep 100000 | openssl s_server -accept $port -quiet -key /tmp/k -cert /tmp/c >/dev/null & done; \
    exec openssl s_server -accept 8444 -www -cipher ALL:@SECLEVEL=0 -key /tmp/k -cert /tmp/c >/dev/null";

/// Says a line each second over one connection that stays open; once it is told to go, over another one too.
const LINES: &str = "lines() { while true; do echo line; sleep 1; done | openssl s_client -quiet -connect $SERVER:$1 2>/dev/null; }; \
    lines 8443 & until test -e /tmp/go; do sleep 0.1; done; lines 8445";

/// The same over one connection after another, of three seconds each.
const OTHERS: &str =
    "while true; do timeout 3 openssl s_client -quiet -connect $SERVER:8445 </dev/null >/dev/null 2>&1; done";

/// A pod with the node's programs, and these folders of the node's besides.
async fn pod(place: &Place, name: &str, script: &str, server: &str, folders: &[&str]) {
    place.pod(name, &spec(script, server, folders)).await;
}

/// The spec of such a pod.
fn spec(script: &str, server: &str, folders: &[&str]) -> Value {
    let mut spec = from_node::spec(script, &json!([{"name": "SERVER", "value": server}]));
    for (number, folder) in folders.iter().enumerate() {
        let name = format!("more-{number}");
        spec["volumes"].as_array_mut().unwrap().push(json!({"name": name, "hostPath": {"path": folder}}));
        let mounts = spec["containers"][0]["volumeMounts"].as_array_mut().unwrap();
        mounts.push(json!({"name": name, "mountPath": folder, "readOnly": true}));
    }
    spec
}

async fn server(place: &Place) -> String {
    pod(place, "server", SERVER, "", &[]).await;
    let listens = "until grep -q :20FB /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done; echo listens";
    assert_eq!(place.exec("server", "web", &["sh", "-c", listens]).await.trim(), "listens");
    place.pods().get("server").await.unwrap().status.unwrap().pod_ip.unwrap()
}

/// The reasons of the rows of that pod's connections.
fn reasons<'a>(entries: &'a [Value], pod: &str) -> Vec<&'a str> {
    let of_pod = entries.iter().filter(|entry| entry["protocol"] == "tls" && entry["src"]["name"] == *pod);
    of_pod.filter_map(|entry| entry["response"]["reason"].as_str().or(entry["request"]["reason"].as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_whose_tls_no_probe_understands_are_named_where_it_matters() {
    let place = Place::new("closed", json!({})).await;
    let server = server(&place).await;
    let java = "while true; do /usr/lib/jvm/java-17-openjdk-*/bin/keytool -printcert -sslserver $SERVER:8444; done";
    let busybox = "while true; do PATH=/nowhere /bin/busybox wget -q -O - --no-check-certificate https://$SERVER:8444/; \
                   /bin/busybox sleep 0.5; done";
    pod(&place, "rust", &rust(8444), &server, &[programs()]).await;
    pod(&place, "java", java, &server, &["/etc/java-17-openjdk"]).await;
    pod(&place, "box", busybox, &server, &[]).await;
    let sniffed = Sniff::at_place(&place, &["rust|java|box", "--tls", "--summary"]);
    // Whose a connection is that is soon over is not always seen.
    let told =
        [("rust", "kubectl-sniff (rustls)"), ("java", "keytool (Java's own)"), ("box", "busybox (BusyBox's own)")];
    for (pod, program) in told {
        let what = format!("{}/{pod}: TLS that stays closed: {}", place.namespace, reason(program));
        sniffed.says(&what, 1);
    }
    for (_, program) in told {
        sniffed.prints(&reason(program), 1);
    }
    // Who lists agents sees the same.
    let list = |format: &str| Sniff::at_cluster(&["ls", "-n", &place.namespace, "-o", format]).end();
    let agents = list("json").entries();
    for (pod, program) in told {
        let agent = agents.iter().find(|agent| agent["pod"] == *pod).unwrap();
        assert!(agent["tls"]["unknown"].as_array().unwrap().contains(&json!(program)), "{agent}");
    }
    assert_eq!(list("wide").stdout.matches(" keys ").count(), 3);
    let done = sniffed.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    assert_eq!(done.stderr.matches("hint: --tls reads the processes of one container").count(), 1, "{}", done.stderr);
    let mut entries = done.entries();
    let summary = entries.pop().unwrap();
    assert_eq!((&summary["summary"]["keyEventsLost"], &summary["summary"]["keysUnmatched"]), (&json!(0), &json!(0)));
    for (pod, program) in told {
        assert!(reasons(&entries, pod).contains(&&*reason(program)), "{pod}: {:?}", reasons(&entries, pod));
    }
}

/// The plugin itself has rustls inside; it asks for an answer for two seconds, time and again.
fn rust(port: u16) -> String {
    let plugin = env!("CARGO_BIN_EXE_kubectl-sniff");
    let options = "--insecure-skip-tls-verify --request-timeout 2s";
    format!("while true; do {plugin} ls --server https://$SERVER:{port} {options}; sleep 0.2; done")
}

/// The folder that it is in.
fn programs() -> &'static str {
    Path::new(env!("CARGO_BIN_EXE_kubectl-sniff")).parent().and_then(Path::to_str).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_the_reason_of_its_own_program() {
    let place = Place::new("closed-own", json!({})).await;
    let server = server(&place).await;
    // The first container is the one that is read: its program has rustls, that of the other one OpenSSL.
    let mut both = spec(&rust(8443), &server, &[programs()]);
    let mut other = spec(OTHERS, &server, &[])["containers"][0].take();
    other["name"] = json!("other");
    both["containers"].as_array_mut().unwrap().push(other);
    place.pod("both", &both).await;
    let sniffed = Sniff::at_place(&place, &["both", "--tls"]);
    let reasons = [
        (8443, "the probes do not know the TLS of its program, kubectl-sniff (rustls)"),
        (8445, "its program is in another container than the probes"),
    ];
    for (_, reason) in reasons {
        sniffed.prints(reason, 2);
        sniffed.says(reason, 1);
    }
    let entries = sniffed.interrupt().entries();
    for (port, reason) in reasons {
        let has_it = |entry: &&Value| entry["response"]["reason"] == *reason;
        assert!(entries.iter().filter(has_it).all(|entry| entry["dst"]["port"] == port), "{reason}: {entries:?}");
    }
}

fn reason(program: &str) -> String {
    format!("the probes have not seen its keys; they do not know the TLS of {program}")
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_stay_open_have_their_rows_in_time() {
    let place = Place::new("closed-open", json!({})).await;
    let server = server(&place).await;
    pod(&place, "client", LINES, &server, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    // It may get keys, and never does.
    let keys = folder.path().join("keys").display().to_string();
    let sniffed = Sniff::at_place(&place, &["client", "--keylog", &keys]);
    sniffed.says(&format!("no key log {keys} yet"), 1);
    sniffed.says("+ ", 1);
    sniffed.prints("its handshake was not seen", 1);
    place.exec("client", "web", &["touch", "/tmp/go"]).await;
    sniffed.prints("the key log has no key for it", 1);
    let entries = sniffed.interrupt().entries();
    assert_eq!(reasons(&entries, "client"), ["its handshake was not seen", "the key log has no key for it"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_probes_are_not_admitted_the_reason_and_the_alternative_are_told() {
    let place = Place::new("closed-refused", json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    place.pod("web", &json!({})).await;
    let done = Sniff::at_place(&place, &["web", "--tls"]).end();
    assert_eq!(done.code(), Some(1), "{}", done.stderr);
    let reason = format!(
        "/web: --tls needs an agent with the capabilities SYS_ADMIN and SYS_PTRACE, which is not admitted in namespace {}",
        place.namespace
    );
    assert!(done.stderr.contains(&reason) && done.stderr.contains("PodSecurity \"baseline"), "{}", done.stderr);
    assert!(done.stderr.contains("hint: without --tls it needs less; --keylog FILE"), "{}", done.stderr);
    assert_eq!(place.agents("web").await, [""; 0]);
}
