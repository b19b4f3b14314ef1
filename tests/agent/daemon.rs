//! The daemon: what it tells, when it leaves, and what its binary is.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::{Block, Killed, Net, binary, build, exit_code, program, said, send, sh, until};

#[test]
fn status_tells_all_that_there_is_to_tell() {
    let net = Net::new();
    let filter = program("udp");
    let options = ["--filter", &filter, "--filter-text", "udp", "--snaplen", "64", "--buffer", "1Mi"];
    let agent = net.agent(&[&options[..], &["--ttl", "40", "--armed-for", "600"]].concat());
    let told = agent.told();
    assert!(told["first_time"].is_null() && told["last_time"].is_null() && told["filtered"].is_null());
    assert!((580..=600).contains(&told["leaves"].as_u64().expect("a number")), "{told}");
    let slow = agent.client(&["stream", "--no-stdin", "--reader", "slow"]).stdout(Stdio::piped()).spawn();
    let _slow = Killed(slow.expect("the agent runs"));
    until("the first session", || agent.sessions() == 1);
    let quick = agent.stream(&["--reader", "me@my-laptop"]);
    send(&net.pod, "10.9.0.1", 7777, "x", 2000, 20);
    for round in 1..=10 {
        send(&net.pod, "10.9.0.1", 7777, "much", 2000, 1000);
        quick.await_marks("much", round * 2000);
    }
    until("the slow one is lapped", || agent.status("flushed") > 10_000);

    let told = agent.told();
    let number = |key: &str| told[key].as_f64().unwrap_or_else(|| panic!("{key} in {told}"));
    assert_eq!((number("packets"), number("next"), number("cut")), (22_000.0, 22_001.0, 20_000.0));
    assert_eq!(told["first"].as_u64(), told["flushed"].as_u64().map(|flushed| flushed + 1));
    assert!(number("started") <= number("first_time") && number("first_time") <= number("last_time"), "{told}");
    assert_eq!((number("drops"), number("ttl"), number("snaplen")), (0.0, 40.0, 64.0));
    assert!((599.0..=601.0).contains(&(number("armed_until") - number("started"))), "{told}");
    assert!((1_000_000.0..10_000_000.0).contains(&number("memory")), "{told}");
    let memory = agent.memory("VmRSS") << 10;
    assert!(agent.status("memory").abs_diff(memory) < 1 << 20, "{memory} in {told}");
    // Its buffer of 1 MiB and little else; the pages of its program, large in a debug build, are the kernel's to drop.
    assert!((1024..3 * 1024).contains(&agent.memory("RssAnon")), "{told}");
    assert_eq!(
        (&told["pod"], &told["backend"], &told["filter"]),
        (&"shop/web-1".into(), &"af_packet".into(), &"udp".into())
    );
    assert_eq!(
        (&told["buffer"]["on"], &told["phase"], &told["leaves"]),
        (&"memory".into(), &"capturing".into(), &().into())
    );
    assert!(told["boot"].as_str().is_some_and(|boot| boot.len() == 36));
    let [slow, quick] = &told["sessions"].as_array().expect("a list")[..] else { panic!("{told}") };
    assert_eq!((&slow["reader"], &quick["reader"]), (&"slow".into(), &"me@my-laptop".into()));
    assert_eq!((&quick["packets"], &quick["missed"], &quick["follows"]), (&22_000.into(), &0.into(), &true.into()));
    assert!(quick["bytes"].as_u64() > Some(22_000 * 100) && slow["bytes"].as_u64() < quick["bytes"].as_u64(), "{told}");
}

#[test]
fn it_leaves_when_nobody_comes() {
    let net = Net::new();
    let mut agent = net.agent(&["--ttl", "1"]);
    let stream = agent.stream(&[]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(agent.child.try_wait().expect("a child"), None, "it stays while there is a session");
    drop(stream);
    assert_eq!(exit_code(&mut agent.child), Some(0));
    drop(agent);

    let mut armed = net.agent(&["--ttl", "0", "--armed-for", "3"]);
    let begun = Instant::now();
    assert_eq!(exit_code(&mut armed.child), Some(0));
    assert!(begun.elapsed() > Duration::from_secs(2));
}

#[test]
fn a_signal_ends_it_with_a_word_to_its_sessions() {
    let net = Net::new();
    let mut agent = net.agent(&[]);
    let stream = agent.stream(&[]);
    sh(&format!("kill -TERM {}", agent.child.id()));
    assert_eq!(exit_code(&mut agent.child), Some(0));
    let blocks = stream.end();
    assert!(matches!(blocks.last(), Some(Block::End(end)) if end["why"] == "SIGTERM"), "{blocks:?}");
}

#[test]
fn an_agent_that_dies_gives_its_sessions_no_end() {
    let net = Net::new();
    let mut agent = net.agent(&[]);
    let mut stream = agent.stream(&[]);
    agent.child.kill().expect("a child");
    assert_eq!(exit_code(&mut stream.child), Some(1));
    assert!(!stream.blocks().iter().any(|block| matches!(block, Block::End(_))));
    drop(agent);
    // The socket that it left is no obstacle to the next one.
    let agent = net.agent(&[]);
    let again = net.in_pod(binary()).arg("run").arg("--socket").arg(net.socket()).output().expect("ip runs");
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).starts_with("error: an agent already listens on "), "{}", said(&again));
    drop(agent);
}

#[test]
fn without_the_capability_it_says_so() {
    let socket = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-net_raw"])
        .arg(binary())
        .arg("run")
        .arg("--socket")
        .arg(socket.path().join("agent.sock"))
        .output()
        .expect("setpriv runs");
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.starts_with("error: cannot open the capture: Operation not permitted"), "{said}");
    assert!(said.contains("\nhint: it takes the capability NET_RAW"), "{said}");
}

#[test]
fn the_binary_of_the_image_needs_nothing_and_is_small() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let binary =
        build("agent,tls", &["--profile", "agent", "--target", &target]).join(target).join("agent/sniff-agent");
    let elf = std::fs::read(&binary).expect("the binary");
    assert!(elf.len() < 2 << 20, "{} bytes", elf.len());
    let number =
        |at: usize, size: usize| elf[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
    // ELF64: the program headers; one of type 3 (PT_INTERP) would name a dynamic loader.
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds: Vec<usize> = (0..count).map(|index| number(start + index * size, 4)).collect();
    assert!(kinds.contains(&1) && !kinds.contains(&3), "{kinds:?}");
    let version = Command::new(&binary).arg("version").output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("sniff-agent {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_agent_depends_on_little_but_libc() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--no-default-features", "--features", "agent", "--edges", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["kubectl-sniff", "libc", "lz4_flex", "twox-hash"]);
}
