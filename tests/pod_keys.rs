//! `--keylog pod:PATH`: keys that a program in a pod logs, with curl and OpenSSL on a real cluster.

use serde_json::json;

use crate::support::cluster::{Place, soon};
use crate::support::from_node;
use crate::support::sniff::Sniff;

/// Serves HTTPS; once it is told to go, asks itself for one page after the other and logs the keys.
const SCRIPT: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /tmp/k -out /tmp/c -days 2 \
    -subj /CN=localhost 2>/dev/null; openssl s_server -accept 8443 -key /tmp/k -cert /tmp/c -www >/dev/null & \
    until test -e /tmp/go; do sleep 0.1; done; n=0; while true; do n=$((n+1)); \
    SSLKEYLOGFILE=/tmp/keys curl -sk -o /dev/null https://127.0.0.1:8443/page-$n; sleep 0.2; done";

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_program_logs_in_its_pod_decrypt_what_it_says() {
    let place = Place::new("pod-keys", json!({})).await;
    place.pod("web", &from_node::spec(SCRIPT, &json!([]))).await;
    let sniffed = Sniff::at_place(&place, &["web", "--keylog", "pod:/tmp/keys"]);
    sniffed.says("+ ", 1);
    sniffed.says("no key log /tmp/keys in container web yet", 1);
    place.exec("web", "web", &["touch", "/tmp/go"]).await;
    sniffed.prints("\"decrypted\":\"keylog\"", 5);
    let done = sniffed.interrupt();
    let entries = done.entries();
    let pages: Vec<_> = entries.iter().filter(|entry| entry["protocol"] == "http").collect();
    assert!(pages.iter().all(|page| page["status"] == "200"), "{pages:#?}");
    let page_1 = pages.iter().filter(|page| page["target"] == "/page-1" && page["decrypted"] == "keylog").count();
    assert_eq!(page_1, 1, "{}", done.stderr);

    // What read the file in the container has ended with the connection.
    soon("end of what follows the file", || async {
        let programs = place.exec("web", "web", &["sh", "-c", "cat /proc/[0-9]*/comm"]).await;
        (!programs.lines().any(|program| program == "tail")).then_some(())
    })
    .await;

    // Looking back, the keys are there before the packets.
    let past = Sniff::at_place(&place, &["web", "--keylog", "pod:/tmp/keys", "--until", "0s"]).end();
    assert!(past.entries().iter().any(|entry| entry["target"] == "/page-2" && entry["decrypted"] == "keylog"));
}

/// Serves HTTPS to other pods.
const SERVER: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /tmp/k -out /tmp/c -days 2 \
    -subj /CN=localhost 2>/dev/null; exec openssl s_server -accept 8443 -key /tmp/k -cert /tmp/c -www >/dev/null";

/// Once it is told to go, asks for ten pages and logs the keys.
const CLIENT: &str = "until test -e /tmp/go; do sleep 0.1; done; for n in 1 2 3 4 5 6 7 8 9 10; do \
    SSLKEYLOGFILE=/tmp/keys curl -sk --retry 60 --retry-connrefused -o /dev/null https://$SERVER:8443/page-$n; done; sleep 600";

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_pod_decrypt_what_its_node_captures() {
    let place = Place::new("node-keys", json!({})).await;
    place.pod("server", &from_node::spec(SERVER, &json!([]))).await;
    let server = place.pods().get("server").await.unwrap().status.unwrap().pod_ip.unwrap();
    place.pod("client", &from_node::spec(CLIENT, &json!([{"name": "SERVER", "value": server}]))).await;
    let via = ["--via", "node", "--via-namespace", &place.namespace];
    let sniffed = Sniff::at_place(&place, &[&["client", "--keylog", "pod:/tmp/keys"], &via[..]].concat());
    sniffed.says("+ ", 1);
    sniffed.says("no key log /tmp/keys in container web yet", 1);
    place.exec("client", "web", &["touch", "/tmp/go"]).await;
    sniffed.prints("\"decrypted\":\"keylog\"", 10);
    let done = sniffed.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    let entries = done.entries();
    let mut pages: Vec<_> =
        entries.iter().filter_map(|entry| entry["target"].as_str()?.strip_prefix("/page-")).collect();
    pages.sort_unstable();
    assert_eq!(pages, ["1", "10", "2", "3", "4", "5", "6", "7", "8", "9"], "{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_log_that_cannot_be_read_is_told_once() {
    let place = Place::new("no-pod-keys", json!({})).await;
    let image = std::env::var("SNIFF_TEST_PAUSE_IMAGE").unwrap_or_else(|_| "localhost/sniff-test/pause:1".into());
    place
        .pod("bare", &json!({"containers": [{"name": "bare", "image": image, "imagePullPolicy": "IfNotPresent"}]}))
        .await;
    place.pod("web", &json!({})).await;
    let sniffed = Sniff::at_place(&place, &[".", "--keylog", "pod:/etc", "--keylog", "pod:/tmp/keys"]);
    sniffed.says("bare: cannot read the key log /tmp/keys in container bare: it has no sh and tail", 1);
    sniffed.says("web: cannot read the key log /etc in container web: Is a directory", 1);
    sniffed.says("web: no key log /tmp/keys in container web yet", 1);
    let done = sniffed.interrupt();
    assert!(done.stderr.contains("hint: --tls takes keys from processes"), "{}", done.stderr);
    assert_eq!(done.stderr.matches("Is a directory").count(), 1, "{}", done.stderr);
}
