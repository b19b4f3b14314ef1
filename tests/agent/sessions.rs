//! Sessions: what a client asks for, and what it gets.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kubectl_sniff::capture::decoder::Decoder;
use kubectl_sniff::capture::{Batch, Note};

use super::support::{
    Block, Net, Packet, Stream, exit_code, filtered, ids, marked, packets, parse, program, said, send, sh, until,
};
use super::{flushed, hello, numbers};

#[test]
fn the_plugin_reads_what_the_agent_writes() {
    let net = Net::new();
    let mut agent = net.agent(&["--snaplen", "100"]);
    let filter = program("udp");
    let stream = agent.stream(&["--from", "1", "--filter", &filter]);
    send(&net.peer, "10.9.0.2", 7777, "x", 100, 200);
    stream.await_marks("x", 100);
    agent.stop();
    let path = stream.path.clone();
    let blocks = stream.end();
    let mut batch = Batch { bytes: std::fs::read(path).expect("its file"), ..Batch::default() };
    let used = Decoder::new("agent").decode(&mut batch, 0).expect("a capture");
    assert_eq!(used, batch.bytes.len());
    let written = packets(&blocks);
    assert_eq!(batch.frames.len(), written.len());
    for ((frame, stored), packet) in batch.frames().zip(&batch.frames).zip(written) {
        assert_eq!((stored.id, frame.data, frame.len as usize), (Some(packet.id), &packet.data[..], packet.len));
        assert_eq!(frame.time.0.cast_unsigned(), packet.time);
    }
    assert_eq!(batch.interfaces[1].pod.as_deref(), Some("shop/web-1"));
    assert!(matches!(&batch.notes[0], Note::Hello(json) if json.contains("\"protocol\":1")), "{:?}", batch.notes);
    assert!(matches!(batch.notes.last(), Some(Note::End(json)) if json.contains("asked to stop")), "{:?}", batch.notes);
    let left_out = |note: &Note| matches!(note, Note::Filtered { from: 1, next, count } if next - 1 > *count);
    assert!(batch.notes.iter().any(left_out), "{:?}", batch.notes);
}

#[test]
fn a_session_that_does_not_read_holds_nobody_up_and_learns_what_it_missed() {
    let net = Net::new();
    let agent = net.agent(&["--buffer", "1Mi"]);
    let mut slow = agent.client(&["stream", "--no-stdin"]).stdout(Stdio::piped()).spawn().expect("the agent runs");
    let quick = agent.stream(&[]);
    for _ in 0..20 {
        send(&net.pod, "10.9.0.1", 7777, "flood", 300, 1000);
    }
    quick.await_marks("flood", 6000);
    let mut stop = agent.client(&["stop"]).spawn().expect("the agent runs");
    let mut bytes = Vec::new();
    slow.stdout.take().expect("a pipe").read_to_end(&mut bytes).expect("its output");
    assert_eq!((exit_code(&mut slow), exit_code(&mut stop)), (Some(0), Some(0)));
    let (slow, quick) = (parse(&bytes), quick.end());

    assert_eq!(flushed(&quick), []);
    assert_eq!(ids(&quick), numbers(packets(&quick).len() as u64));
    let missed: u64 = flushed(&slow).iter().map(|(_, count)| count).sum();
    assert!(missed > 0);
    assert_eq!(missed + packets(&slow).len() as u64, packets(&quick).len() as u64);
    for (from, count) in flushed(&slow) {
        assert!(!ids(&slow).iter().any(|id| (from..from + count).contains(id)));
    }
}

#[test]
fn a_cut_session_resumes_where_it_was() {
    let net = Net::new();
    let mut agent = net.agent(&[]);
    send(&net.pod, "10.9.0.1", 7777, "x", 100, 10);
    until("packets", || agent.status("packets") >= 100);
    let stream = agent.stream(&["--from", "41"]);
    stream.await_marks("x", 60);
    let boot = hello(&stream.blocks())["boot"].as_str().expect("text").to_owned();
    assert_eq!(ids(&stream.blocks())[0], 41);
    drop(stream);
    let same = agent.stream(&["--from", "42", "--boot", &boot]);
    let other = agent.stream(&["--from", "42", "--boot", "another"]);
    agent.stop();
    let (same, other) = (same.end(), other.end());
    assert_eq!((ids(&same)[0], flushed(&same)), (42, vec![]));
    assert_eq!((ids(&other)[0], flushed(&other)), (1, vec![]));
}

#[test]
fn a_session_may_only_look_back() {
    let net = Net::new();
    let mut agent = net.agent(&["--filter", &program("udp")]);
    send(&net.pod, "10.9.0.1", 7777, "old", 100, 10);
    std::thread::sleep(Duration::from_secs(5));
    let begun = Instant::now();
    send(&net.pod, "10.9.0.1", 7777, "new", 100, 10);
    // How long ago it was between both; to ask may take up to three seconds.
    let ago = || (begun.elapsed().as_secs() + 4).to_string();
    // What was sent before it asks, it gets, though the ring may still hold it.
    let all = agent.look_back(&["--no-follow"]);
    let next = packets(&all).len() as u64 + 1;
    assert_eq!((marked(&all, "old").len(), marked(&all, "new").len()), (100, 100));
    let Some(Block::End(end)) = all.last() else { panic!("no end") };
    assert_eq!(end, &serde_json::json!({"next": next, "why": "no more was asked for", "asked": true}));

    let old = agent.look_back(&["--until", &ago()]);
    let new = agent.look_back(&["--since", &ago(), "--no-follow"]);
    let part = agent.look_back(&["--from", "11", "--until", &ago()]);
    let none = agent.look_back(&["--since", &ago(), "--until", "600"]);
    assert_eq!((marked(&old, "old").len(), marked(&old, "new").len()), (100, 0));
    assert_eq!((marked(&new, "old").len(), marked(&new, "new").len()), (0, 100));
    assert_eq!(ids(&part), ids(&old)[10..]);
    assert!(packets(&none).is_empty());
    let last = packets(&old).len() as u64;
    assert_eq!((ids(&old), ids(&new)), (numbers(last), (last + 1..next).collect()));
    assert!(matches!(old.last(), Some(Block::End(end)) if end["next"] == last + 1));
    until("no session is left", || agent.sessions() == 0);
    agent.stop();
}

#[test]
fn a_session_may_have_a_filter_of_its_own() {
    let net = Net::new();
    let mut agent = net.agent(&["--filter", &program("udp"), "--filter-text", "udp"]);
    let filter = program("udp dst port 7778");
    let options = ["--filter", &filter, "--filter-text", "udp dst port 7778", "--snaplen", "60"];
    let narrow = agent.stream(&options);
    let wide = agent.stream(&[]);
    for _ in 0..20 {
        send(&net.pod, "10.9.0.1", 7777, "other", 50, 100);
        send(&net.pod, "10.9.0.1", 7778, "wanted", 5, 100);
    }
    narrow.await_marks("wanted", 100);
    wide.await_marks("other", 1000);
    let told = agent.told();
    agent.stop();
    let (narrow, wide) = (narrow.end(), wide.end());

    // The same packets under the same numbers, but shorter.
    assert_eq!((packets(&narrow).len(), packets(&wide).len()), (100, 1100));
    assert_eq!(ids(&narrow), marked(&wide, "wanted").iter().map(|packet| packet.id).collect::<Vec<_>>());
    for packet in packets(&narrow) {
        let whole = packets(&wide)[packet.id as usize - 1];
        assert_eq!(packet, &Packet { data: whole.data[..60].to_vec(), ..whole.clone() });
    }
    // Each number is accounted for: sent, or left out.
    assert_eq!((&hello(&narrow)["filtered"], &hello(&wide)["filtered"]), (&true.into(), &false.into()));
    assert_eq!(filtered(&wide), []);
    let notes = filtered(&narrow);
    assert_eq!(notes.iter().map(|(_, _, count)| count).sum::<u64>(), 1000);
    let mut due = 1;
    for (from, next, count) in notes {
        assert_eq!(from, due);
        let sent = ids(&narrow).iter().filter(|id| (from..next).contains(id)).count() as u64;
        assert_eq!(sent + count, next - from);
        due = next;
    }
    assert!(matches!(narrow.last(), Some(Block::End(end)) if end["next"] == 1101));
    assert!(narrow.iter().any(|block| matches!(block, Block::Interface { snaplen: 60, .. })));

    let of = |filter: &str| {
        let sessions = told["sessions"].as_array().expect("a list");
        sessions.iter().find(|session| session["filter"] == filter).expect("a session").clone()
    };
    assert_eq!(
        (&of("udp dst port 7778")["packets"], &of("udp dst port 7778")["filtered"]),
        (&100.into(), &1000.into())
    );
    assert_eq!(of("udp dst port 7778")["snaplen"], 60);
}

#[test]
fn what_a_filtered_session_misses_is_not_what_its_filter_left_out() {
    let net = Net::new();
    let mut agent = net.agent(&["--buffer", "1Mi"]);
    send(&net.pod, "10.9.0.1", 7777, "much", 5000, 1000);
    until("packets", || agent.status("packets") + agent.status("drops") >= 5000);
    let filter = program("udp[11] = 0");
    let blocks = agent.rest(&["--from", "3", "--filter", &filter]);
    let [(3, count)] = flushed(&blocks)[..] else { panic!("{:?}", flushed(&blocks)) };
    let notes = filtered(&blocks);
    assert_eq!((packets(&blocks).len(), notes.first().map(|note| note.0)), (0, Some(3 + count)));
    let Some(Block::End(end)) = blocks.last() else { panic!("no end") };
    assert_eq!(notes.last().map(|note| note.1), end["next"].as_u64());
    assert_eq!(
        notes.iter().map(|(_, _, count)| count).sum::<u64>() + count + 3,
        end["next"].as_u64().expect("a number")
    );
}

#[test]
fn a_compressed_stream_is_the_same_and_comes_as_soon() {
    let net = Net::new();
    let mut agent = net.agent(&["--filter", &program("udp")]);
    let plain = agent.stream(&[]);
    let path = net.folder.path().join("packed");
    let packed =
        agent.client(&["stream", "--compress", "lz4"]).stdout(std::fs::File::create(&path).expect("a file")).spawn();
    let mut packed = packed.expect("the agent runs");
    let unpacked = || {
        let mut batch = Batch { bytes: std::fs::read(&path).expect("its file"), ..Batch::default() };
        Decoder::new("agent").decode(&mut batch, 0).expect("a capture");
        batch
    };
    // Nothing waits for a block to be full.
    send(&net.pod, "10.9.0.1", 7777, "one", 1, 10);
    until("the first packet", || unpacked().frames.len() == 1);
    send(&net.pod, "10.9.0.1", 7777, "many", 2000, 500);
    plain.await_marks("many", 2000);
    agent.stop();
    assert_eq!(exit_code(&mut packed), Some(0));
    let (plain, batch) = (plain.end(), unpacked());
    let expected: Vec<_> = packets(&plain).iter().map(|packet| packet.data.clone()).collect();
    assert!(batch.frames().map(|frame| frame.data.to_vec()).eq(expected));
    assert!(matches!(batch.notes.last(), Some(Note::End(_))), "{:?}", batch.notes);
    let size = std::fs::metadata(&path).expect("its file").len();
    assert!(size < 2000 * 500 / 5, "{size}");
    // It is a frame as `lz4` knows it, from the first byte to the last.
    let bytes = std::fs::read(&path).expect("its file");
    assert_eq!((&bytes[..4], &bytes[bytes.len() - 4..]), (&[0x04, 0x22, 0x4d, 0x18][..], &[0; 4][..]));
}

#[test]
fn an_idle_session_has_a_heartbeat_and_a_stopped_one_an_end() {
    let net = Net::new();
    let mut agent = net.agent(&[]);
    let stream = agent.stream(&[]);
    send(&net.peer, "10.9.0.2", 7777, "one", 1, 10);
    let beats = |blocks: &[Block]| {
        blocks.iter().filter(|block| matches!(block, Block::Statistics { interface: 1, .. })).count()
    };
    until("three heartbeats", || beats(&stream.blocks()) >= 3);
    agent.stop();
    assert!(!net.socket().exists());
    let mut printed = String::new();
    agent.child.stdout.take().expect("a pipe").read_to_string(&mut printed).expect("text");
    assert_eq!(printed, "", "stdout of the first process is logged on the node");

    let blocks = stream.end();
    let received = packets(&blocks).len() as u64;
    let counted = |block: &&Block| matches!(block, Block::Statistics { interface: 1, .. });
    assert_eq!(blocks.iter().rfind(counted), Some(&Block::Statistics { interface: 1, received, dropped: 0 }),);
    let Some(Block::End(end)) = blocks.last() else { panic!("no end") };
    assert_eq!((end["next"].as_u64(), end["why"].as_str()), (Some(received + 1), Some("asked to stop")));
}

/// The counters that came last of the interface that packets were sent over.
fn last_counters(blocks: &[Block]) -> (u64, u64) {
    let counters = |block: &Block| match block {
        Block::Statistics { interface: 1, received, dropped } => Some((*received, *dropped)),
        _ => None,
    };
    blocks.iter().rev().find_map(counters).expect("counters")
}

#[test]
fn who_leaves_learns_what_the_kernel_has_dropped_until_then() {
    let net = Net::new();
    let agent = net.agent(&["--ring", "512Ki", "--filter", &program("udp dst port 7777")]);
    let path = net.folder.path().join("left.pcapng");
    let file = std::fs::File::create(&path).expect("a new file");
    let mut command = agent.client(&["stream"]);
    let child = command.stdin(Stdio::piped()).stdout(file).stderr(Stdio::piped()).spawn().expect("the agent runs");
    let mut stream = Stream { path, child };
    until("the session starts", || !stream.blocks().is_empty());
    // An agent that does not run lets the ring overflow, and its client leaves before it can have told so.
    sh(&format!("kill -STOP {}", agent.child.id()));
    send(&net.pod, "10.9.0.1", 7777, "during", 5000, 1000);
    drop(stream.child.stdin.take());
    sh(&format!("kill -CONT {}", agent.child.id()));
    let blocks = stream.end();
    let (_, dropped) = last_counters(&blocks);
    assert!(dropped > 0);
    assert_eq!(dropped, agent.status("drops"));
    let Some(Block::End(end)) = blocks.last() else { panic!("no end") };
    assert_eq!((end["next"].as_u64(), end["asked"].as_bool()), (Some(packets(&blocks).len() as u64 + 1), Some(true)));
}

#[test]
fn an_agent_that_ends_tells_what_the_kernel_has_dropped_until_then() {
    let net = Net::new();
    let agent = net.agent(&["--ring", "512Ki", "--filter", &program("udp dst port 7777")]);
    let stream = agent.stream(&[]);
    sh(&format!("kill -STOP {}", agent.child.id()));
    send(&net.pod, "10.9.0.1", 7777, "during", 5000, 1000);
    sh(&format!("kill -TERM {0} && kill -CONT {0}", agent.child.id()));
    let blocks = stream.end();
    let (received, dropped) = last_counters(&blocks);
    assert!(dropped > 0);
    assert_eq!((received, received + dropped), (packets(&blocks).len() as u64, 5000));
}

#[test]
fn a_stream_ends_with_its_client() {
    let net = Net::new();
    let agent = net.agent(&[]);
    let start = |arguments: &[&str]| {
        let mut command = agent.client(&["stream"]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the agent runs")
    };
    // stdin ends.
    let mut closed = start(&[]);
    drop(closed.stdin.take());
    assert_eq!(exit_code(&mut closed), Some(0));
    // stdout is closed.
    let mut deaf = start(&[]);
    drop(deaf.stdout.take());
    assert_eq!(exit_code(&mut deaf), Some(0));
    // Nothing comes on stdin for long.
    let mut silent = start(&["--heartbeat", "1"]);
    let open = silent.stdin.take();
    let silent = silent.wait_with_output().expect("it ends");
    drop(open);
    assert_eq!(silent.status.code(), Some(1));
    assert!(said(&silent).starts_with("error: the client was silent for 1 s\nhint: "), "{}", said(&silent));
    // As long as something comes, it stays.
    let mut alive = start(&["--heartbeat", "2"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        alive.stdin.as_mut().expect("a pipe").write_all(b".").expect("it reads");
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(alive.try_wait().expect("a child"), None);
    }
    // A client that is killed leaves no session behind, and no end for which its stream could be taken as whole.
    alive.kill().expect("a child");
    let left = parse(&alive.wait_with_output().expect("a child").stdout);
    assert!(matches!(left.first(), Some(Block::Section)), "{left:?}");
    assert!(!left.iter().any(|block| matches!(block, Block::End(_))), "{left:?}");
    until("no session is left", || agent.sessions() == 0);
}

#[test]
fn sessions_are_limited() {
    let net = Net::new();
    let agent = net.agent(&[]);
    let sessions: Vec<_> = (0..8).map(|_| agent.stream(&[])).collect();
    let ninth = agent.client(&["stream"]).output().expect("the agent runs");
    assert_eq!(ninth.status.code(), Some(1));
    assert_eq!(said(&ninth), "error: the agent already serves 8 sessions, its limit\n");
    drop(sessions);
    until("no session is left", || agent.sessions() == 0);
    drop(agent.stream(&[]));
}
