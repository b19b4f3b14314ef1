//! What breaks under a session, made for real: the numbers of the packets prove that nothing is lost or comes twice, or
//! exactly as much as is told.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::support::cluster::{Place, fault};
use crate::support::run::{Run, options};
use crate::support::sniff::{Sniff, at_cluster};

use kubectl_sniff::cluster::flags::{Connection, Options};

/// A node whose number the faults take.
const NODE: (&str, &str) = ("sniff-node1", "1");

/// All packets since the start of the agent came once, but for those that were told to have been flushed.
fn assert_accounted_for(run: &Run) {
    assert!(run.ids.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(run.ids[run.ids.len() - 1], run.ids.len() as u64 + flushed(run), "{:#?}", run.told);
    let lost = |event: &&String| event.starts_with("Lost") || event.starts_with("Failed");
    assert_eq!(run.told.iter().find(lost), None);
}

/// How many packets before the last that came were told to have been flushed.
fn flushed(run: &Run) -> u64 {
    let last = run.ids[run.ids.len() - 1];
    run.flushed.iter().filter(|(from, _)| *from < last).map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_servers_cost_no_packet() {
    let place = Place::alone("restarts").await;
    place.pod("web", &json!({"nodeName": NODE.0})).await;
    let mut run = place.run("web").await;
    run.attached().await;
    run.packets(20).await;
    for words in [&["restart-apiserver"][..], &["restart-kubelet", NODE.1]] {
        let before = run.connections;
        block_in_place(|| fault(words));
        while run.connections == before {
            run.packets(1).await;
        }
        run.packets(20).await;
        assert_accounted_for(&run);
        assert_eq!(flushed(&run), 0, "{words:?}");
    }
    assert_eq!(place.agents("web").await.len(), 1);
    run.stop().await;
}

/// Some 400 kB a second, over the pod's loopback.
fn busy() -> Value {
    let script = "mkdir -p /tmp/w; head -c 20000 /dev/urandom >/tmp/w/index.html; httpd -p 8080 -h /tmp/w; \
                  while true; do wget -q -O /dev/null http://127.0.0.1:8080/; sleep 0.05; done";
    let mut spec = Place::spec(&json!({"nodeName": NODE.0}));
    spec["containers"][0]["command"][2] = json!(script);
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_down_costs_what_the_buffer_could_not_hold_and_not_a_packet_more() {
    let place = Place::alone("link").await;
    place.pod("web", &json!({"nodeName": NODE.0})).await;
    place.pod("busy", &busy()).await;
    let small = Options { buffer: 1 << 20, ..options() };
    let mut enough = place.run("web").await;
    let mut too_little = Run::start(&Connection::default(), &place.select("busy"), small).await;
    for run in [&mut enough, &mut too_little] {
        run.attached().await;
        run.packets(20).await;
    }
    block_in_place(|| fault(&["link-down", NODE.1]));
    tokio::time::sleep(Duration::from_secs(30)).await;
    block_in_place(|| fault(&["link-up", NODE.1]));
    for run in [&mut enough, &mut too_little] {
        let before = run.connections;
        while run.connections == before {
            run.packets(1).await;
        }
        run.packets(50).await;
        assert_accounted_for(run);
        assert!(run.told.iter().any(|event| event.starts_with("Disconnected")), "{:#?}", run.told);
        assert!(run.told.iter().any(|event| event.starts_with("Resumed")), "{:#?}", run.told);
    }
    assert_eq!(flushed(&enough), 0);
    assert!(flushed(&too_little) > 1000, "{}", flushed(&too_little));
    enough.stop().await;
    too_little.stop().await;
}

/// Asks itself for pages with rising numbers.
fn counting() -> Value {
    let script = "mkdir -p /tmp/w; echo hello >/tmp/w/index.html; httpd -p 8080 -h /tmp/w; n=0; \
                  while true; do n=$((n+1)); wget -q -O /dev/null http://127.0.0.1:8080/?n=$n; sleep 0.1; done";
    let mut spec = Place::spec(&json!({}));
    spec["containers"][0]["command"][2] = json!(script);
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sleeps_for_a_minute_misses_nothing() {
    let place = Place::new("sleep", json!({})).await;
    place.pod("web", &counting()).await;
    let live = Sniff::at_place(&place, &["web"]);
    live.prints("/?n=", 10);
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &live.id().to_string()]).status().unwrap().success());
    };
    signal("-STOP");
    tokio::time::sleep(Duration::from_mins(1)).await;
    signal("-CONT");
    live.prints("/?n=", 300);
    let done = live.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("0 flushed · 0 gaps"), "{}", done.stderr);
    let number = |entry: &Value| entry["target"].as_str()?.strip_prefix("/?n=")?.parse::<u32>().ok();
    let numbers: Vec<u32> = done.entries().iter().filter_map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}\n{}", done.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_pod_at_full_load_is_not_killed() {
    let place = Place::new("small", json!({})).await;
    let script = "mkdir -p /tmp/w; head -c 4000000 /dev/zero >/tmp/w/index.html; httpd -p 8080 -h /tmp/w; \
                  while true; do wget -q -O /dev/null http://127.0.0.1:8080/; done";
    let mut spec = Place::spec(&json!({}));
    spec["containers"][0]["command"][2] = json!(script);
    spec["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    place.pod("web", &spec).await;
    let mut run = Run::start(&Connection::default(), &place.select("web"), Options::default()).await;
    let (container, _) = run.attached().await;
    run.packets(20).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let status: Value =
        serde_json::from_str(&place.exec("web", &container, &["/sniff-agent", "status"]).await).unwrap();
    // What it could not hold is counted; what it holds is a tenth of the limit, with what the ring takes.
    assert!(status["packets"].as_u64() > Some(10_000), "{status}");
    assert!(status["memory"].as_u64().is_some_and(|memory| memory < 10 << 20), "{status}");
    let pod = place.pods().get("web").await.unwrap().status.unwrap();
    let web = &pod.container_statuses.unwrap()[0];
    assert_eq!((web.restart_count, web.state.as_ref().unwrap().running.is_some()), (0, true));
    run.packets(20).await;
    assert_accounted_for(&run);
    run.stop().await;
}

/// Kilobytes of a process's memory, by its name in `/proc`.
fn memory(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_reads_cost_no_packet_and_little_memory() {
    // 100 MB, which neither the agent nor the memory of the session takes.
    const COUNT: usize = 500;
    let place = Place::new("unread", json!({})).await;
    let mut spec = Place::spec(&json!({}));
    let serve = "mkdir -p /tmp/w; head -c 200000 /dev/urandom >/tmp/w/index.html; httpd -f -p 8080 -h /tmp/w";
    spec["containers"][0]["command"][2] = json!(serve);
    place.pod("web", &spec).await;
    let arguments = ["web", "-n", &place.namespace, "-o", "json"];
    let mut live = Sniff::unread(at_cluster(&[&arguments[..], &["--buffer", "4Mi"]].concat()));
    live.says("+ ", 1);
    let before = memory(live.id(), "VmRSS");
    let script = format!(
        "n=1; while [ $n -le {COUNT} ]; do wget -q -O /dev/null http://127.0.0.1:8080/?n=$n; n=$((n+1)); sleep 0.04; done; echo done"
    );
    assert_eq!(place.exec("web", "web", &["sh", "-c", &script]).await.trim(), "done");
    let grown = memory(live.id(), "VmHWM") - before;
    live.read();
    live.prints(&format!("/?n={COUNT}\""), 1);
    let done = live.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("0 flushed · 0 gaps"), "{}", done.stderr);
    assert!(done.stderr.contains("packets waited on disk"), "{}", done.stderr);
    let number = |entry: &Value| entry["target"].as_str()?.strip_prefix("/?n=")?.parse::<usize>().ok();
    let numbers: Vec<usize> = done.entries().iter().filter_map(number).collect();
    assert_eq!(numbers, (1..=COUNT).collect::<Vec<_>>(), "{}", done.stderr);
    assert!(grown < 80_000, "{grown} kB");

    // Who does not want to wait until somebody reads what has come is not made to.
    let live = Sniff::unread(at_cluster(&[&arguments[..], &["--since", "1h"]].concat()));
    live.says("+ ", 1);
    assert_eq!(live.interrupt_at_once().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_drops_in_the_last_moment_is_told_as_well() {
    let place = Place::new("drops", json!({})).await;
    // With one process namespace, the pod's own container can stop the agent.
    let mut spec = Place::spec(&json!({"shareProcessNamespace": true}));
    let serve = "mkdir -p /tmp/w; head -c 8000000 /dev/zero >/tmp/w/index.html; httpd -f -p 8080 -h /tmp/w";
    spec["containers"][0]["command"][2] = json!(serve);
    place.pod("web", &spec).await;
    let mut run = place.run("web").await;
    let (container, _) = run.attached().await;
    let script = "agent=$(ps | grep '/sniff-agent [r]un' | awk '{print $1}'); kill -STOP $agent; \
                  for n in 1 2 3 4 5; do wget -q -O /dev/null http://127.0.0.1:8080/; done; kill -CONT $agent; echo done";
    assert_eq!(place.exec("web", "web", &["sh", "-c", script]).await.trim(), "done");
    run.end().await;
    let status: Value =
        serde_json::from_str(&place.exec("web", &container, &["/sniff-agent", "status"]).await).unwrap();
    let drops = status["drops"].as_u64().unwrap();
    assert!(drops > 0, "{status}");
    assert_eq!(run.dropped.values().sum::<u64>(), drops, "{status}");
    assert!(run.told.iter().any(|word| word.starts_with("End") && word.contains("has left")), "{:#?}", run.told);
}
