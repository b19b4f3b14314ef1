//! The master PCAP: on disk, and in a pod with little memory.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::support::{Killed, Limit, Net, binary, ids, packets, program, said, send, sh, until};
use super::{flushed, numbers};

#[test]
fn a_buffer_on_disk_keeps_what_memory_could_not() {
    let net = Net::new();
    let file = net.folder.path().join("buffer");
    let file = file.to_str().expect("text");
    let mut agent = net.agent(&["--buffer", "64Mi", "--buffer-on", "disk", "--buffer-file", file, "--ring", "8Mi"]);
    assert!(!std::path::Path::new(file).exists(), "nobody else finds it, nobody has to remove it");
    let early = agent.stream(&[]);
    for round in 0..20 {
        send(&net.pod, "10.9.0.1", 7777, &format!("round-{round}-"), 1000, 1200);
    }
    until("packets", || agent.status("packets") + agent.status("drops") >= 20_000);
    let count = agent.status("packets");
    // What is far back is read from the disk, what came last from memory, and both by number.
    let late = agent.stream(&["--from", "7"]);
    let recent = agent.stream(&["--from", "15001"]);
    let memory = agent.memory("VmHWM");
    assert!(memory < 14 << 10, "{memory} KiB");
    let (from, to) = (agent.status("first"), agent.status("next"));
    assert_eq!((from, to), (1, count + 1));
    agent.stop();
    let (early, late, recent) = (early.end(), late.end(), recent.end());
    assert_eq!(ids(&early), numbers(count));
    assert_eq!(packets(&late), packets(&early)[6..]);
    assert_eq!(packets(&recent), packets(&early)[15_000..]);
}

#[test]
fn a_buffer_on_disk_is_flushed_as_one_in_memory() {
    let net = Net::new();
    let file = net.folder.path().join("buffer");
    let disk = ["--buffer", "1Mi", "--buffer-on", "disk", "--buffer-file", file.to_str().expect("text")];
    let mut agent = net.agent(&disk);
    send(&net.pod, "10.9.0.1", 7777, "much", 5000, 1000);
    until("packets", || agent.status("packets") + agent.status("drops") >= 5000);
    let blocks = agent.rest(&["--from", "1"]);
    let [(1, count)] = flushed(&blocks)[..] else { panic!("{:?}", flushed(&blocks)) };
    let kept = ids(&blocks);
    assert_eq!(kept, (count + 1..=count + kept.len() as u64).collect::<Vec<_>>());
    assert!(kept.len() > 400, "{}", kept.len());
}

#[test]
fn a_disk_that_is_full_is_told_at_the_start() {
    let net = Net::new();
    let at = net.folder.path().display().to_string();
    sh(&format!(
        "truncate -s 8M {at}/image && mkfs.ext4 -q {at}/image && mkdir {at}/disk && mount -o loop {at}/image {at}/disk"
    ));
    let mut run = net.in_pod(binary());
    run.args(["run", "--buffer", "64Mi", "--buffer-on", "disk", "--buffer-file"]).arg(format!("{at}/disk/buffer"));
    let full = run.arg("--socket").arg(net.socket()).output().expect("ip runs");
    sh(&format!("umount {at}/disk"));
    assert_eq!(full.status.code(), Some(1));
    let said = said(&full);
    let begin = format!("error: cannot keep packets in {at}/disk/buffer: No space left on device");
    assert!(said.starts_with(&begin) && said.contains("hint: the disk has too little room for 64 MiB"), "{said}");
    assert!(!net.socket().exists());
}

#[test]
fn a_flood_in_a_small_pod_kills_nobody_and_is_counted() {
    let net = Net::new();
    let limit = Limit::new(64 << 20);
    let file = net.folder.path().join("buffer");
    let file = file.to_str().expect("text");
    let on_disk = ["--buffer", "256Mi", "--buffer-on", "disk", "--buffer-file", file];
    for buffer in [&["--buffer", "16Mi"][..], &on_disk] {
        let mut run = net.in_pod(binary());
        run.args(["run", "--filter", &program("udp dst port 7777")]).args(buffer).arg("--socket").arg(net.socket());
        let mut agent = net.start(limit.under(&run));
        let session = |stdout: Stdio| {
            let session = limit.under(&agent.client(&["stream", "--no-stdin"])).stdout(stdout).spawn();
            Killed(session.expect("the agent runs"))
        };
        let (_quick, _stalled) = (session(Stdio::null()), session(Stdio::piped()));
        until("both sessions", || agent.sessions() == 2);
        let flood = || send(&net.pod, "10.9.0.1", 7777, "flood", 60_000, 1400);
        let mut rounds = 0;
        until("a buffer in memory is full", || {
            flood();
            rounds += 1;
            agent.status("flushed") > 0 || buffer.contains(&"disk")
        });
        let (before, begun) = (agent.memory("VmRSS"), Instant::now());
        let least = rounds + 5;
        while begun.elapsed() < Duration::from_secs(4) || rounds < least {
            flood();
            rounds += 1;
        }
        until("all are counted", || agent.status("packets") + agent.status("drops") == rounds * 60_000);
        let after = agent.memory("VmRSS");
        assert!(after <= before + 256 && after < 32 << 10, "{buffer:?}: {before} KiB, {after} KiB");
        assert_eq!((limit.killed(), agent.sessions()), (0, 2), "{buffer:?}");
        assert!(limit.most() <= 64 << 20);
        assert_eq!(agent.child.try_wait().expect("a child"), None);
        // What was not kept is known to the packet, for the buffer as for the session that did not read.
        let told = agent.told();
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        assert_eq!(number(&told["first"]), number(&told["flushed"]) + 1, "{told}");
        assert!(number(&told["flushed"]) > 0 || number(&told["packets"]) < 180_000, "{told}");
        agent.stop();
    }
}
