//! Wireshark decrypts the same with the same key log.

use std::path::Path;
use std::process::Command;

use crate::support::dissect_with;
use crate::support::flow_script::Script;

/// Writes frames of Ethernet as a pcap with times in nanoseconds.
fn save(path: &Path, frames: &[(i64, Vec<u8>)]) {
    let word = |number: usize| (number as u32).to_le_bytes();
    let mut file = [0xa1b2_3c4d, 0x0004_0002, 0, 0, 1 << 18, 1].map(word).concat();
    for (time, data) in frames {
        let time = time.unsigned_abs() as usize;
        file.extend([time / 1_000_000_000, time % 1_000_000_000, data.len(), data.len()].map(word).concat());
        file.extend(data);
    }
    std::fs::write(path, file).unwrap();
}

#[test]
fn wireshark_finds_the_same_in_what_is_encrypted() {
    let resumed = ["keylog_resumed_ticket", "keylog_resumed_id"];
    for case in ["keylog_13", "keylog_cbc", "keylog_rsa", "keylog_premaster"].into_iter().chain(resumed) {
        let fixture = format!("{}/tests/fixtures/tls/{case}.flow", env!("CARGO_MANIFEST_DIR"));
        let script = Script::parse(&std::fs::read_to_string(fixture).unwrap());
        let frames = script.frames();
        let (entries, _) = dissect_with(&frames, &script.options(), 1);
        let decrypted = entries.into_iter().filter(|entry| entry.decrypted.is_some());
        let found: Vec<_> = decrypted.map(|entry| entry.target).collect();
        let folder = tempfile::tempdir().unwrap();
        let (capture, keys) = (folder.path().join("pcap"), folder.path().join("keys"));
        save(&capture, &frames);
        std::fs::write(&keys, &script.keys).unwrap();
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&capture).arg("-o").arg(format!("tls.keylog_file:{}", keys.display()));
        tshark.args(["-Y", "http.request", "-T", "fields", "-e", "http.request.uri"]);
        let output = tshark.output().expect("tshark, which tests/setup installs");
        let requests = String::from_utf8(output.stdout).unwrap();
        // Those of one frame are on one line.
        let requests: Vec<_> = requests.split([',', '\n']).filter(|request| !request.is_empty()).collect();
        assert_eq!(found, requests, "{case}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!found.is_empty(), "{case}");
    }
}
