//! Each fixture of `tests/fixtures/<protocol>/` through the whole engine, compared with the snapshot beside it.

use std::path::{Path, PathBuf};

use kubectl_sniff::dissect::PROTOCOLS;
use kubectl_sniff::entry::Entry;
use kubectl_sniff::pipeline::Counts;

use crate::support::flow_script::Script;
use crate::support::{dissect_file, dissect_with, show};

/// The flow scripts, as (protocol, case, path).
pub fn fixtures() -> Vec<(String, String, PathBuf)> {
    files("flow")
}

/// The fixtures of one kind, as (protocol, case, path).
fn files(kind: &str) -> Vec<(String, String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == kind) {
                let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
                found.push((name(&folder), name(&path), path.clone()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_fixture_gives_its_rows() {
    for (_, case, path) in fixtures() {
        let script = Script::parse(&std::fs::read_to_string(&path).unwrap());
        matches_snapshot(&case, &path, &dissect_with(&script.frames(), &script.options(), 1));
    }
}

#[test]
fn every_recorded_capture_gives_its_rows() {
    for (_, case, path) in files("pcap").into_iter().chain(files("pcapng")) {
        matches_snapshot(&case, &path, &dissect_file(&path));
    }
}

/// Compares with the snapshot beside the fixture.
fn matches_snapshot(case: &str, path: &Path, (entries, counts): &(Vec<Entry>, Counts)) {
    insta::with_settings!({
        snapshot_path => path.parent().unwrap(),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(case, show(entries, counts));
    });
}

#[test]
fn rows_are_the_same_on_several_cores() {
    for (_, case, path) in fixtures() {
        let script = Script::parse(&std::fs::read_to_string(&path).unwrap());
        let frames = script.frames();
        // Each with its own: what one run has learnt of sessions must not help the other.
        let [one, three] = [1, 3].map(|workers| dissect_with(&frames, &script.options(), workers));
        assert_eq!(show(&one.0, &one.1), show(&three.0, &three.1), "{case}");
    }
}

#[test]
fn every_protocol_has_a_fixture_and_a_place() {
    let fixtures = fixtures();
    for protocol in PROTOCOLS {
        assert!(
            fixtures.iter().any(|(folder, ..)| folder == protocol.name),
            "no fixture for {} in tests/fixtures/{}/",
            protocol.title,
            protocol.name
        );
    }
    assert!(PROTOCOLS.is_sorted_by(|a, b| a.name < b.name), "PROTOCOLS is sorted by name, without duplicates");
}
