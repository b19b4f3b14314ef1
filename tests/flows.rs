//! Rows of what no dissector knows, where they are asked for.

use kubectl_sniff::dissect::Options;
use kubectl_sniff::entry::{Entry, Value};

use crate::support::dissect_with;
use crate::support::flow_script::Script;

/// The rows of a script, with what flows have beyond other rows.
fn rows(script: &str) -> Vec<String> {
    let frames = Script::parse(script).frames();
    let bare = dissect_with(&frames, &Options { detail: true, ..Options::default() }, 1).0;
    assert!(bare.iter().all(|entry| entry.operation != "flow"), "they are off by default");
    let options = Options { detail: true, flows: true, ..Options::default() };
    let rows = dissect_with(&frames, &options, 1).0;
    assert_eq!(rows, dissect_with(&frames, &options, 2).0, "they do not depend on the number of cores");
    rows.iter().map(row).collect()
}

fn row(entry: &Entry) -> String {
    let half = |half: &Option<kubectl_sniff::entry::Half>| {
        half.as_ref().map_or("-".to_owned(), |half| {
            let number = |name| match half.detail.get(name) {
                Some(Value::Uint(number)) => *number,
                _ => 0,
            };
            format!(
                "{} bytes in {}, {} again, {} resets",
                half.bytes,
                number("packets"),
                number("retransmissions"),
                number("resets")
            )
        })
    };
    let Entry { protocol, operation, status, dst, .. } = entry;
    let head =
        format!("{protocol} {operation} {status} | {dst} | {} | {}", half(&entry.request), half(&entry.response));
    [vec![head], entry.warnings.iter().map(ToString::to_string).collect()].concat().join(" | ")
}

#[test]
fn bytes_of_no_protocol_are_a_row_when_both_sides_have_closed() {
    assert_eq!(
        rows("port 9\n> \\x01\\x02\\x03\n@+10ms\nagain\n< \\x7f\\x7f\nfin\n"),
        ["tcp flow closed | 10.0.0.2:9 | 6 bytes in 5, 1 again, 0 resets | 2 bytes in 3, 0 again, 0 resets"]
    );
}

#[test]
fn a_refused_connection() {
    assert_eq!(
        rows("mid-stream\nport 6379\nsyn\nrst <\n"),
        ["tcp flow refused | 10.0.0.2:6379 | 0 bytes in 1, 0 again, 0 resets | 0 bytes in 1, 0 again, 1 resets"]
    );
}

#[test]
fn a_connection_that_nobody_answers() {
    let expected = "tcp flow timeout | 10.0.0.2:6379 | 0 bytes in 2, 1 again, 0 resets | -";
    assert_eq!(rows("mid-stream\nport 6379\nsyn\n@+1s\nagain\n"), [expected]);
    // Its row comes while the capture goes on, and once only.
    let rows = rows(
        "mid-stream\nport 6379\nsyn\n@+1s\nagain\n@+20s\nclient-port 40001\nfin\n@+300s\nclient-port 40002\nfin\n",
    );
    assert_eq!(rows.iter().filter(|row| **row == expected).count(), 1, "{rows:#?}");
    assert_eq!((rows.len(), &rows[0][..]), (3, expected), "{rows:#?}");
}

#[test]
fn a_connection_that_is_not_answered_yet_is_open() {
    assert_eq!(
        rows("mid-stream\nport 6379\nsyn\n"),
        ["tcp flow open | 10.0.0.2:6379 | 0 bytes in 1, 0 again, 0 resets | -"]
    );
}

#[test]
fn a_connection_that_breaks_and_one_without_a_word() {
    assert_eq!(
        rows("port 9\n> \\x01\\x02\\x03\nrst <\n"),
        ["tcp flow reset | 10.0.0.2:9 | 3 bytes in 3, 0 again, 0 resets | 0 bytes in 2, 0 again, 1 resets"]
    );
    assert_eq!(
        rows("port 9\nfin\n"),
        ["tcp flow closed | 10.0.0.2:9 | 0 bytes in 3, 0 again, 0 resets | 0 bytes in 2, 0 again, 0 resets"]
    );
}

#[test]
fn datagrams_of_no_protocol() {
    assert_eq!(
        rows("udp\nport 9\n> \\x01\\x02\\x03\n< \\x01\n"),
        ["udp flow answered | 10.0.0.2:9 | 3 bytes in 1, 0 again, 0 resets | 1 bytes in 1, 0 again, 0 resets"]
    );
    assert_eq!(
        rows("udp\nport 9\n> \\x01\\x02\\x03\n"),
        ["udp flow unanswered | 10.0.0.2:9 | 3 bytes in 1, 0 again, 0 resets | -"]
    );
}

#[test]
fn what_a_dissector_knows_has_its_own_rows_only() {
    let rows = rows("port 6379\n> GET a\\r\\n\n< $-1\\r\\n\nfin\n");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].starts_with("redis GET ok"), "{rows:?}");
}

#[test]
fn a_connection_joined_in_mid_stream_says_so() {
    assert_eq!(
        rows("mid-stream\nport 9\n> \\x01\\x02\\x03\n"),
        ["tcp flow open | 10.0.0.2:9 | 3 bytes in 1, 0 again, 0 resets | - | joined mid-stream"]
    );
}
