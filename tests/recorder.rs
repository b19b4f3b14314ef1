//! Agents that record with nobody connected: armed, listed, read later, stopped.

use serde_json::{Value, json};

use crate::support::cluster::Place;
use crate::support::sniff::{Done, Sniff, at_cluster};

fn sniff(arguments: &[&str]) -> Sniff {
    let mut command = at_cluster(arguments);
    command.env("USER", "alice").env("HOSTNAME", "desk");
    Sniff::start(command)
}

fn ok(arguments: &[&str]) -> Done {
    let done = sniff(arguments).end();
    assert_eq!(done.code(), Some(0), "{arguments:?}: {}", done.stderr);
    done
}

fn agents(place: &Place) -> Vec<Value> {
    ok(&["ls", "-n", &place.namespace, "-o", "json"]).entries()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_recorded_before_anybody_came_is_dissected_later() {
    let place = Place::new("recorder", json!({})).await;
    place.pod("web", &json!({})).await;
    place.pod("idle", &json!({})).await;
    let inside = ["-n", place.namespace.as_str()];
    let nothing = sniff(&["web", inside[0], inside[1], "--since", "1m", "--until", "0s"]).end();
    assert_eq!(nothing.code(), Some(1));
    assert!(
        nothing.stderr.contains("no agent has recorded") && nothing.stderr.contains("hint: "),
        "{}",
        nothing.stderr
    );

    let started = ok(&["start", "web", inside[0], inside[1], "--for", "20m", "--buffer", "2Mi"]);
    assert!(started.stderr.contains(&format!("+ {}/web (records)", place.namespace)), "{}", started.stderr);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let listed = agents(&place);
    assert_eq!(listed.len(), 1, "{listed:?}");
    let agent = &listed[0];
    assert_eq!((&agent["pod"], &agent["drops"]), (&json!("web"), &json!(0)));
    // Less the segment that is being flushed.
    assert!(agent["buffer"]["size"].as_u64().is_some_and(|size| (3 << 19..=2 << 20).contains(&size)), "{agent}");
    assert!(agent["packets"].as_u64() > Some(20) && agent["span"].as_f64() > Some(1.0), "{agent}");
    assert!(agent["leaves"].as_u64().is_some_and(|left| (1100..=1200).contains(&left)), "{agent}");

    // Its ten requests of the last two seconds at the least, and an end.
    let past = ok(&["web", inside[0], inside[1], "--since", "1m", "--until", "0s", "-o", "json"]);
    let rows = past.entries().iter().filter(|entry| entry["status"] == "200").count();
    assert!(rows >= 10, "{rows} rows\n{}", past.stderr);
    assert!(past.stderr.contains("0 flushed · 0 gaps"), "{}", past.stderr);
    // The same with a filter of the session's own, which leaves out what the agent has.
    let none = ok(&["web", inside[0], inside[1], "--since", "1m", "--until", "0s", "-o", "json", "-f", "port 53"]);
    assert_eq!(none.stdout, "");
    assert!(none.stderr.contains(" left out by the filter") && none.stderr.contains("0 gaps"), "{}", none.stderr);

    // Live, compressed, from before it came; another user sees who reads.
    let live = sniff(&["web", inside[0], inside[1], "--since", "1m", "--compress", "-o", "json"]);
    live.prints("\"200\"", rows + 5);
    let readers = agents(&place)[0]["sessions"].clone();
    assert_eq!(readers[0]["reader"], "alice@desk", "{readers}");
    let done = live.interrupt();
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("agent was there"), "{}", done.stderr);
    assert_eq!(place.agents("web").await.len(), 1);

    // Armed again: the same agent, for another time.
    let again = ok(&["start", "web", inside[0], inside[1], "--for", "2h", "--buffer", "2Mi"]);
    assert!(again.stderr.contains("records on"), "{}", again.stderr);
    assert!(agents(&place)[0]["leaves"].as_u64() > Some(7000));
    assert_eq!(place.agents("web").await.len(), 1);

    let stopped = ok(&["stop", "web", inside[0], inside[1]]);
    assert!(stopped.stderr.contains(&format!("- {}/web", place.namespace)), "{}", stopped.stderr);
    assert_eq!(agents(&place), [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_kept_can_be_opened_until_it_is_deleted() {
    let place = Place::new("kept", json!({})).await;
    place.pod("web", &json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let with = |arguments: &[&str]| {
        let mut command = at_cluster(arguments);
        command.env("SNIFF_SESSIONS", folder.path());
        let done = Sniff::start(command).end();
        assert_eq!(done.code(), Some(0), "{arguments:?}: {}", done.stderr);
        done
    };
    let live = with(&["web", "-n", &place.namespace, "--keep=monday", "--duration", "3s", "-o", "json"]);
    assert!(live.stderr.contains("kubectl sniff sessions open monday"), "{}", live.stderr);
    let listed = with(&["sessions", "-o", "json"]).entries();
    let rows = live.entries().len();
    assert_eq!((listed.len(), &listed[0]["name"], &listed[0]["entries"]), (1, &json!("monday"), &json!(rows)));
    // Live, rows come as soon as they can; from a file, in the order of its packets.
    let rows_of = |entries: Vec<Value>| {
        let text = |entry: &Value| format!("{} {} {}", entry["time"], entry["protocol"], entry["target"]);
        let mut rows: Vec<String> = entries.iter().map(text).collect();
        rows.sort();
        rows
    };
    let kept = std::fs::read_to_string(folder.path().join("monday/entries.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), rows);
    let again = with(&["sessions", "open", "monday", "-o", "json"]).entries();
    assert_eq!(rows_of(again), rows_of(live.entries()));
    with(&["sessions", "delete", "monday"]);
    assert_eq!(with(&["sessions", "-o", "json"]).stdout, "");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffer_on_disk_takes_no_memory_of_the_pods() {
    let place = Place::new("disk", json!({})).await;
    let limit = json!({"resources": {"limits": {"memory": "64Mi"}}});
    let mut spec = Place::spec(&json!({}));
    spec["containers"][0].as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
    place.pod("web", &spec).await;
    ok(&["start", "web", "-n", &place.namespace, "--buffer", "512Mi", "--buffer-on", "disk"]);
    let agent = agents(&place).remove(0);
    assert_eq!((&agent["buffer"]["on"], &agent["buffer"]["size"]), (&json!("disk"), &json!(512 << 20)), "{agent}");
    assert!(agent["memory"].as_u64().is_some_and(|memory| memory < 8 << 20), "{agent}");
    let past = ok(&["web", "-n", &place.namespace, "--until", "0s", "-o", "json"]);
    assert!(past.stdout.contains("\"200\""), "{}", past.stderr);
    ok(&["stop", "web", "-n", &place.namespace]);
}
