//! What a peer does on purpose: the plugin keeps to a bound of memory, and to one of time.

mod bombs;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kubectl_sniff::dissect::Descriptors;

use crate::support::flow_script::{Script, Step};
use crate::support::sniff::{Done, command};

/// What the plugin may have in memory, in MiB, whatever is in the capture. Threads' stacks and batches are in it.
const BOUND: usize = 96;
/// What it may take, in MiB, where a hundred thousand connections each have begun a message that never ends, all of them rows
/// at the end.
const BOUND_OF_BEGINNINGS: usize = 512;
/// What it may take, in MiB, where very many flows have it hold bytes back, of which there are more than this.
const BOUND_OF_HOARDERS: usize = 256;
/// Where the kernel stops it, so that a fault is one of the test and not of the machine, in MiB.
const STOP: usize = 1024;
/// How long an unoptimised build may take; what is quadratic takes hours.
const PATIENCE: Duration = Duration::from_mins(3);

/// Reads frames, link type Ethernet, with at most `bound` MiB in memory.
fn read(bound: usize, frames: impl Iterator<Item = Vec<u8>>) -> Done {
    let plugin = command();
    let mut child = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -d {}; exec time -f '%M KiB' \"$0\" \"$@\"", STOP << 10)])
        .arg(plugin.get_program())
        .args(["--pcap", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let reader = std::thread::spawn(move || child.wait_with_output().unwrap());
    let since = Instant::now();
    let mut stdin = std::io::BufWriter::with_capacity(1 << 16, stdin);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut written = stdin.write_all(&words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]));
    for (at, frame) in frames.enumerate() {
        let (seconds, micros) = (at as u32 / 100_000, at as u32 % 100_000 * 10);
        written = written
            .and_then(|()| stdin.write_all(&words(&[seconds, micros, frame.len() as u32, frame.len() as u32])))
            .and_then(|()| stdin.write_all(&frame));
        if written.is_err() {
            break;
        }
    }
    drop(stdin);
    let output = reader.join().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let done = Done { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert_eq!(done.code(), Some(0), "{}", done.stderr);
    let peak = done.stderr.lines().last().and_then(|line| line.strip_suffix(" KiB")?.parse::<usize>().ok());
    assert!(peak.is_some_and(|peak| peak <= bound << 10), "within {bound} MiB: {}", done.stderr);
    assert!(written.is_ok() && !done.stderr.contains("fault"), "{}", done.stderr);
    assert!(since.elapsed() < PATIENCE, "{:?}: {}", since.elapsed(), done.stderr);
    done
}

/// A conversation's entries.
fn dissect(port: u16, steps: impl IntoIterator<Item = (bool, Vec<u8>)>) -> Vec<serde_json::Value> {
    let steps = steps.into_iter().map(|(client, data)| Step::Data(client, data)).collect();
    let (keys, descriptors) = (String::new(), Descriptors::default());
    let script = Script { port, udp: false, icmp: false, sctp: false, handshake: true, keys, descriptors, steps };
    read(BOUND, script.frames().into_iter().map(|(_, frame)| frame)).entries()
}

/// A client's TCP segment on the connection of that number.
fn segment(connection: u32, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend((payload.len() as u16 + 40).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([10, 0, 0, (connection / 50_000) as u8, 10, 255, 0, 1]);
    frame.extend(((connection % 50_000) as u16 + 10_000).to_be_bytes());
    frame.extend([0, 80]);
    frame.extend(seq.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

#[test]
fn a_million_connections_half_open() {
    let done = read(BOUND, (0..1_000_000).map(|connection| segment(connection, 7, 0x02, &[])));
    assert!(done.stderr.contains("flows closed early"), "{}", done.stderr);
}

#[test]
fn a_hundred_and_fifty_thousand_requests_that_never_end() {
    let frames = (0..150_000).flat_map(|connection| {
        [
            segment(connection, 7, 0x02, &[]),
            segment(connection, 8, 0x18, b"POST / HTTP/1.1\r\nContent-Length: 9\r\nX: "),
        ]
    });
    read(BOUND_OF_BEGINNINGS, frames);
}

#[test]
fn a_hole_before_each_segment() {
    // Nothing acknowledges them, so the capture may still have the bytes between them.
    let holes = (0..60_000).map(|at| segment(1, 8 + at * 3000, 0x18, &[b'x'; 1400]));
    read(BOUND, std::iter::once(segment(1, 7, 0x02, &[])).chain(holes));
}

/// Very many flows, each of which holds bytes back for those that a hole of its own lacks, or for the rest of a message.
fn hoarders(bytes_of: impl Fn(u32) -> Vec<(u32, Vec<u8>)> + 'static) -> Done {
    let frames = (0..2500).flat_map(move |connection| {
        let segments = bytes_of(connection).into_iter();
        let segments = segments.map(move |(seq, payload)| segment(connection, seq, 0x18, &payload));
        std::iter::once(segment(connection, 7, 0x02, &[])).chain(segments)
    });
    read(BOUND_OF_HOARDERS, frames)
}

#[test]
fn a_large_hole_in_each_of_very_many_flows() {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\n\r\n";
    let behind = || (0..8).map(|at| (1_000_000 + at * 16_000, vec![b'x'; 16_000]));
    let done = hoarders(move |_| std::iter::once((8, head.to_vec())).chain(behind()).collect());
    assert_eq!(done.entries().len(), 2500);
    assert!(done.stderr.contains("flows short of memory"), "{}", done.stderr);
}

#[test]
fn a_large_message_begun_in_each_of_very_many_flows() {
    // A header block of 200,000 bytes, of which the last third never comes.
    let block = |_| {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(h2(4, 0, 0, &[]));
        bytes.extend([3, 0x0d, 0x40, 1, 5, 0, 0, 0, 1]);
        bytes.extend(vec![0x82; 128_000]);
        (8..).step_by(16_000).zip(bytes.chunks(16_000).map(<[u8]>::to_vec)).collect()
    };
    let done = hoarders(block);
    assert!(done.stderr.contains("flows short of memory"), "{}", done.stderr);
}

#[test]
fn a_stream_of_very_many_messages() {
    let ask = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n".repeat(50);
    let entries = dissect(6379, (0..2000).flat_map(|_| [(true, ask.clone()), (false, b"$1\r\nb\r\n".repeat(50))]));
    assert_eq!(entries.len(), 100_000);
}

#[test]
fn requests_that_nobody_answers() {
    let entries = dissect(6379, (0..1000).map(|_| (true, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n".repeat(100))));
    assert_eq!(entries.len(), 100_000);
}

#[test]
fn segments_of_one_byte() {
    let head = format!("GET /a HTTP/1.1\r\nHost: {}\r\n", "x".repeat(100_000));
    let body = format!("Content-Length: 50000\r\n\r\n{}", "y".repeat(50_000));
    let bytes = (head + &body).into_bytes();
    let entries = dissect(80, bytes.iter().map(|byte| (true, vec![*byte])));
    assert_eq!(entries.len(), 1);
    let redis = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\n{}\r\n", "z".repeat(100_000)).into_bytes();
    assert_eq!(dissect(6379, redis.iter().map(|byte| (true, vec![*byte]))).len(), 1);
    let list = format!("*50000\r\n{}", "$1\r\nb\r\n".repeat(50_000)).into_bytes();
    let ask = (true, b"*4\r\n$6\r\nLRANGE\r\n$1\r\na\r\n$1\r\n0\r\n$2\r\n-1\r\n".to_vec());
    let entries = dissect(6379, std::iter::once(ask).chain(list.iter().map(|byte| (false, vec![*byte]))));
    assert_eq!(entries.len(), 1);
}

/// An HTTP/2 frame.
fn h2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn header_fields_that_refer_to_a_large_one_again_and_again() {
    // x: 3000 bytes, put into the table, then named sixteen thousand times in each of fifty requests.
    let value = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], &[b'v'; 3000]].concat();
    let first = [&[0x82, 0x84, 0x86][..], &value].concat();
    let again = [&[0x82, 0x84, 0x86][..], &[0xbe; 16_000]].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(h2(4, 0, 0, &[]));
    bytes.extend(h2(1, 5, 1, &first));
    for at in 1..50 {
        bytes.extend(h2(1, 5, 1 + at * 2, &again));
    }
    let entries = dissect(80, [(true, bytes)]);
    assert!(!entries.is_empty());
    assert!(entries.iter().all(|entry| entry.to_string().len() < 1_000_000));
}

#[test]
fn documents_nested_without_end() {
    let depth = 200_000;
    let mut document = Vec::new();
    for at in 0..depth {
        let left = (depth - at) * 8 + 5;
        document.extend((left as u32).to_le_bytes());
        document.extend(b"\x03a\0");
    }
    document.extend([5, 0, 0, 0, 0]);
    document.extend(vec![0; depth]);
    let mut message = Vec::new();
    for word in [document.len() as u32 + 21, 1, 0, 2013, 0] {
        message.extend(word.to_le_bytes());
    }
    message.push(0);
    message.extend(document);
    let find = b"\x26\0\0\0\x02find\0\x02\0\0\0a\0\x02$db\0\x05\0\0\0shop\0\x10z\0\x01\0\0\0\0";
    let mut after = Vec::new();
    for word in [find.len() as u32 + 21, 2, 0, 2013, 0] {
        after.extend(word.to_le_bytes());
    }
    after.push(0);
    after.extend(find);
    let entries = dissect(27017, [(true, message), (true, after)]);
    assert_eq!(entries.last().map(|entry| &entry["operation"]), Some(&"find".into()));
}

#[test]
fn arrays_nested_without_end() {
    let entries = dissect(
        6379,
        [(true, b"*1\r\n$4\r\nPING\r\n".to_vec()), (false, b"*1\r\n".repeat(60_000)), (true, b"{".repeat(60_000))],
    );
    assert!(entries.len() <= 2);
    let query = format!("{{\"query\":\"{}\"}}", "{a".repeat(60_000));
    let head =
        format!("POST /graphql HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", query.len());
    assert_eq!(dissect(80, [(true, (head + &query).into_bytes())]).len(), 1);
    let query = "[".repeat(100_000);
    let head =
        format!("POST /graphql HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", query.len());
    assert_eq!(dissect(80, [(true, (head + &query).into_bytes())]).len(), 1);
}
