//! Keys that come after the packets that need them, as in a live capture.

use std::time::Duration;

use kubectl_sniff::capture::Frame;
use kubectl_sniff::dissect::Options;
use kubectl_sniff::entry::Timestamp;
use kubectl_sniff::pipeline::{Engine, Place, Shard};

use crate::golden::fixtures;
use crate::support::flow_script::{Script, Step};

/// How long connections wait for their keys.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is inside of the conversation, if its keys come after so many frames, those of the handshake `ahead` of the others.
fn inside(script: &Script, frames: &[(i64, Vec<u8>)], after: usize, ahead: usize) -> Vec<String> {
    let early: Vec<&str> = script.keys.lines().filter(|line| !line.contains("TRAFFIC_SECRET_0")).collect();
    let options = Options::default();
    options.keys.grow(PATIENCE);
    let mut engine = Engine::new(options.clone(), Shard::ALL);
    for index in 0..frames.len() {
        if index + ahead == after {
            options.keys.add(early.join("\n").as_bytes());
            engine.rekey(index as u64);
        }
        if index == after {
            options.keys.add(script.keys.as_bytes());
            engine.rekey(index as u64);
        }
        feed(&mut engine, frames, index);
    }
    options.keys.add(script.keys.as_bytes());
    engine.rekey(frames.len() as u64);
    end(&mut engine, frames)
}

/// An engine that was given all frames.
fn fed(options: Options, frames: &[(i64, Vec<u8>)]) -> Engine {
    let mut engine = Engine::new(options, Shard::ALL);
    (0..frames.len()).for_each(|index| feed(&mut engine, frames, index));
    engine
}

fn feed(engine: &mut Engine, frames: &[(i64, Vec<u8>)], index: usize) {
    let (time, data) = &frames[index];
    let (number, len) = (index as u64 + 1, data.len() as u32);
    engine.frame(&Frame { number, time: Timestamp(*time), interface: 0, len, data }, 1, Place::default());
}

/// The decrypted rows.
fn end(engine: &mut Engine, frames: &[(i64, Vec<u8>)]) -> Vec<String> {
    engine.finish(frames.len() as u64);
    let entries = engine.take().into_iter().map(|produced| produced.entry);
    entries
        .filter(|entry| entry.decrypted.is_some())
        .map(|entry| format!("{} {} {} {}", entry.time, entry.operation, entry.target, entry.status))
        .collect()
}

#[test]
fn rows_are_the_same_whenever_the_keys_come() {
    let mut found = 0;
    for (_, case, path) in fixtures() {
        let script = Script::parse(&std::fs::read_to_string(path).unwrap());
        // A hole in what waits can't be told from one behind it.
        if script.keys.is_empty() || case.contains("lost") || case.contains("gap") {
            continue;
        }
        // Clients often break off once they have their answer, so the connection may be over before its keys come.
        let mut broken_off = script.clone();
        for step in &mut broken_off.steps {
            if let Step::Fin = step {
                *step = Step::Reset(true);
            }
        }
        for script in [script, broken_off] {
            let frames = script.frames();
            let expected = inside(&script, &frames, 0, 0);
            for (after, ahead) in (1..=frames.len()).flat_map(|after| [(after, 0), (after, 1), (after, 3)]) {
                let rows = inside(&script, &frames, after, ahead);
                assert_eq!(rows, expected, "{case}, keys after {after} of {}, some {ahead} ahead", frames.len());
            }
            found += expected.len();
        }
    }
    assert!(found > 0);
}

#[test]
fn rows_are_the_same_whichever_secret_comes_last() {
    let mut found = 0;
    for (_, case, path) in fixtures() {
        let script = Script::parse(&std::fs::read_to_string(path).unwrap());
        if script.keys.is_empty() || case.contains("lost") || case.contains("gap") {
            continue;
        }
        let frames = script.frames();
        // Of several connections, the one whose secret comes last is the last.
        let mut expected = inside(&script, &frames, 0, 0);
        expected.sort_unstable();
        for last in script.keys.lines() {
            let others: Vec<&str> = script.keys.lines().filter(|line| *line != last).collect();
            let options = Options::default();
            options.keys.grow(PATIENCE);
            options.keys.add(others.join("\n").as_bytes());
            let mut engine = fed(options.clone(), &frames);
            options.keys.add(last.as_bytes());
            engine.rekey(frames.len() as u64);
            let label = last.split(' ').next().unwrap();
            let mut rows = end(&mut engine, &frames);
            rows.sort_unstable();
            assert_eq!(rows, expected, "{case}, {label} last");
        }
        found += expected.len();
    }
    assert!(found > 0);
}

#[test]
fn keys_that_never_come_change_nothing() {
    // A server that answers early data and closes never derives its client's other keys.
    let mut found = 0;
    for (_, case, path) in fixtures() {
        let mut script = Script::parse(&std::fs::read_to_string(path).unwrap());
        let server: Vec<&str> = script
            .keys
            .lines()
            .filter(|line| !line.starts_with("CLIENT_HANDSHAKE") && !line.starts_with("CLIENT_TRAFFIC"))
            .collect();
        if !script.keys.contains("CLIENT_EARLY") || case.contains("lost") || case.contains("gap") {
            continue;
        }
        script.keys = server.join("\n");
        let frames = script.frames();
        let options = Options::default();
        options.keys.add(script.keys.as_bytes());
        let expected = end(&mut fed(options, &frames), &frames);
        assert_eq!(inside(&script, &frames, frames.len(), 0), expected, "{case}");
        found += expected.len();
    }
    assert!(found > 0);
}

#[test]
fn whoever_waits_in_vain_has_rows_once_it_has_waited_long_enough() {
    let mut found = 0;
    for (protocol, case, path) in fixtures() {
        let mut script = Script::parse(&std::fs::read_to_string(path).unwrap());
        if protocol != "tls" || script.keys.is_empty() {
            continue;
        }
        // The connection stays open.
        script.steps.retain(|step| !matches!(step, Step::Fin | Step::Reset(_)));
        let frames = script.frames();
        let rows = |growing: bool| {
            // With flows, so that connections joined in the middle have their row whether or not keys may come.
            let options = Options { detail: true, flows: true, ..Options::default() };
            if growing {
                options.keys.grow(PATIENCE);
            }
            let mut engine = fed(options, &frames);
            let mut after = |time: Duration| {
                let now = frames.last().unwrap().0 + i64::try_from(time.as_nanos()).unwrap();
                engine.lapse(Timestamp(now), frames.len() as u64);
                let entries = engine.take().into_iter().map(|produced| produced.entry);
                entries.map(|entry| format!("{} {} {}", entry.operation, entry.target, entry.status)).collect()
            };
            let [early, late]: [Vec<String>; 2] = [Duration::ZERO, PATIENCE + Duration::from_millis(1)].map(&mut after);
            (early, late)
        };
        let (expected, _) = rows(false);
        let (early, late) = rows(true);
        assert!(!early.iter().any(|row| row.starts_with("handshake")), "{case}: {early:?}");
        found += late.len();
        assert_eq!([early, late].concat(), expected, "{case}");
    }
    assert!(found > 0);
}
