//! The agent on real sockets, in network namespaces that these tests make and remove.
//!
//! They need root, as capturing does, and fail without it rather than pass unseen.

mod support;

use std::io::{BufRead, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kubectl_sniff::capture::decoder::Decoder;
use kubectl_sniff::capture::{Batch, Note};
use support::{
    Block, Killed, Net, binary, build, exit_code, filtered, ids, marked, packets, program, said, send, sender, sh,
    until,
};

/// Runs tests on each backend, which is all that they are told.
macro_rules! on_each_backend {
    ($($test:ident),* $(,)?) => {
        on_each_backend!(@ af_packet { $($test)* });
        on_each_backend!(@ libpcap { $($test)* });
        on_each_backend!(@ af_xdp { $($test)* });
    };
    (@ $backend:ident { $($test:ident)* }) => {
        mod $backend {
            $(#[test] fn $test() { super::$test(stringify!($backend)); })*
        }
    };
}

on_each_backend!(
    what_is_sent_is_captured_and_numbered_without_holes,
    loopback_is_seen_once,
    vlan_tags_are_put_back,
    no_packet_gets_past_the_filter,
    a_filter_holds_on_interfaces_without_ethernet,
    the_snaplen_cuts_but_keeps_the_length,
    what_was_flushed_is_reported_to_the_packet,
    what_the_kernel_dropped_is_counted_to_the_packet,
    two_sessions_get_the_same_packets,
    memory_does_not_grow_under_a_flood,
    large_frames_are_whole,
    an_interface_that_comes_later_is_heard,
    the_pod_is_as_it_was_afterwards,
);

/// `1..=last`.
fn numbers(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

fn hello(blocks: &[Block]) -> &serde_json::Value {
    match blocks {
        [Block::Section, Block::Hello(hello), ..] => hello,
        _ => panic!("no hello: {blocks:?}"),
    }
}

/// The packets flushed according to the notes: first number and count of each.
fn flushed(blocks: &[Block]) -> Vec<(u64, u64)> {
    let note = |block: &Block| match block {
        Block::Flushed(note) => Some((note["from"].as_u64()?, note["count"].as_u64()?)),
        _ => None,
    };
    blocks.iter().filter_map(note).collect()
}

fn interface_names<'a>(blocks: &'a [Block]) -> Vec<&'a str> {
    let name = |block: &'a Block| match block {
        Block::Interface { name, .. } => Some(name.as_str()),
        _ => None,
    };
    blocks.iter().filter_map(name).collect()
}

fn what_is_sent_is_captured_and_numbered_without_holes(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&[]);
    let stream = agent.stream(&[]);
    send(&net.peer, "10.9.0.2", 7777, "to-the-pod", 500, 100);
    send(&net.pod, "10.9.0.1", 7777, "from-the-pod", 500, 100);
    stream.await_marks("from-the-pod", 500);
    agent.stop();
    let path = stream.path.clone();
    let blocks = stream.end();

    let packets = packets(&blocks);
    assert_eq!(ids(&blocks), numbers(packets.len() as u64));
    let (inward, outward) = (marked(&blocks, "to-the-pod"), marked(&blocks, "from-the-pod"));
    // An ICMP error quotes what it answers, and goes the other way.
    let udp = |packet: &&&support::Packet| packet.data[23] == 17;
    let inward: Vec<_> = inward.iter().filter(udp).collect();
    let outward: Vec<_> = outward.iter().filter(udp).collect();
    assert_eq!((inward.len(), outward.len()), (500, 500));
    assert!(inward.iter().all(|packet| packet.flags == 1) && outward.iter().all(|packet| packet.flags == 2));
    assert!(inward.iter().all(|packet| packet.len == 142 && packet.data.len() == 142));
    assert!(packets.windows(2).all(|pair| pair[0].time <= pair[1].time));

    let names = interface_names(&blocks);
    assert_eq!(names, ["shop/web-1:lo", "shop/web-1:eth0"]);
    assert!(packets.iter().all(|packet| names[packet.interface as usize] == "shop/web-1:eth0"));
    assert_eq!(hello(&blocks)["pod"], "shop/web-1");
    assert_eq!(hello(&blocks)["interfaces"], serde_json::json!(names));

    // Wireshark reads the same, with no complaint. Our custom blocks are rows too there, of no interface.
    let read = |filter: &str| {
        let output = Command::new("tshark").arg("-r").arg(&path).args(["-Y", filter]).output().expect("tshark runs");
        let complaints =
            said(&output).replace("Running as user \"root\" and group \"root\". This could be dangerous.", "");
        assert_eq!(complaints.trim(), "");
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    assert_eq!(read("frame.interface_name == \"shop/web-1:eth0\""), packets.len());
    assert_eq!(read("udp.port == 7777 && !icmp"), 1000);
    assert_eq!(read("_ws.malformed"), 0);
}

fn loopback_is_seen_once(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&[]);
    let stream = agent.stream(&[]);
    send(&net.pod, "127.0.0.1", 7777, "to-itself", 20, 50);
    stream.await_marks("to-itself", 20);
    agent.stop();
    let blocks = stream.end();
    let marked = marked(&blocks, "to-itself");
    let udp = marked.iter().filter(|packet| packet.data[23] == 17).count();
    assert_eq!(udp, 20);
    assert!(marked.iter().all(|packet| packet.interface == 0));
}

/// A server in one namespace that reads all that a client sends; what both print is compared.
const TRANSFER: &str = "import socket, sys, threading\n\
    size = 5_000_000\n\
    def read():\n\
    \x20   c, _ = s.accept(); got = 0\n\
    \x20   while (piece := c.recv(1 << 20)): got += len(piece)\n\
    \x20   print(got)\n\
    def write(): c = socket.create_connection((sys.argv[2], 7777)); c.sendall(b'x' * size); c.close()\n\
    if sys.argv[1] != 'write': s = socket.create_server((sys.argv[2], 7777)); print('ready', flush=True)\n\
    if sys.argv[1] == 'both': t = threading.Thread(target=write); t.start(); read(); t.join()\n\
    elif sys.argv[1] == 'read': read()\n\
    else: write()\n";

/// Frames as large as offloading makes them, on the loopback interface and on a cable.
fn large_frames_are_whole(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&["--filter", &program("tcp dst port 7777"), "--ring", "16Mi", "--buffer", "64Mi"]);
    let both = net.in_pod("python3").args(["-c", TRANSFER, "both", "127.0.0.1"]).output().expect("ip runs");
    assert_eq!(String::from_utf8_lossy(&both.stdout), "ready\n5000000\n", "{}", said(&both));
    let python = |own: &str, role: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", own, "python3", "-c", TRANSFER, role, "10.9.0.1"]).stdout(Stdio::piped());
        command.spawn().expect("ip runs")
    };
    let mut server = python(&net.peer, "read");
    let mut ready = [0; 6];
    server.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("it is ready");
    assert_eq!(exit_code(&mut python(&net.pod, "write")), Some(0));
    let mut rest = String::new();
    server.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("text");
    assert_eq!((rest.as_str(), exit_code(&mut server)), ("5000000\n", Some(0)));
    let blocks = agent.look_back(&["--no-follow"]);
    assert_eq!(agent.status("drops"), 0);
    agent.stop();
    for interface in ["shop/web-1:lo", "shop/web-1:eth0"] {
        let index =
            interface_names(&blocks).iter().position(|name| *name == interface).expect("it is described") as u32;
        let of_it: Vec<_> = packets(&blocks).into_iter().filter(|packet| packet.interface == index).collect();
        // Bytes behind Ethernet, IP and TCP header; the first sequence number is the SYN's.
        let mut ranges: Vec<(u32, u32)> = of_it
            .iter()
            .map(|packet| {
                assert_eq!(packet.len, packet.data.len());
                let word = |at: usize| u32::from_be_bytes(packet.data[at..at + 4].try_into().expect("four bytes"));
                let header = 14 + 20 + usize::from(packet.data[46] >> 4) * 4;
                (word(38), (packet.len - header) as u32)
            })
            .collect();
        let first = ranges[0].0.wrapping_add(1);
        for range in &mut ranges {
            range.0 = range.0.wrapping_sub(first);
        }
        ranges.retain(|range| range.1 > 0);
        ranges.sort_unstable();
        let mut due = 0;
        for (start, length) in ranges {
            assert!(start <= due, "{interface}: a hole from {due} to {start}");
            due = due.max(start + length);
        }
        assert_eq!(due, 5_000_000, "{interface}");
        let largest = of_it.iter().map(|packet| packet.len).max().expect("a packet");
        // A pair of interfaces whose other end is XDP's takes segments only.
        let is_cut = backend == "af_xdp" && interface == "shop/web-1:eth0";
        assert_eq!(largest > 16 << 10, !is_cut, "{interface}: {largest}");
    }
}

fn an_interface_that_comes_later_is_heard(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&["--filter", &program("udp")]);
    let stream = agent.stream(&[]);
    let (pod, peer) = (&net.pod, &net.peer);
    sh(&format!(
        "ip -n {pod} link add late type veth peer name late netns {peer} && ip -n {pod} addr add 10.7.0.2/24 dev late && \
         ip -n {pod} link set late up && ip -n {peer} addr add 10.7.0.1/24 dev late && ip -n {peer} link set late up"
    ));
    std::thread::sleep(Duration::from_secs(1));
    send(&net.pod, "10.7.0.1", 7777, "late", 10, 20);
    stream.await_marks("late", 10);
    sh(&format!("ip -n {pod} link del late"));
    std::thread::sleep(Duration::from_millis(500));
    send(&net.pod, "10.9.0.1", 7777, "after", 10, 20);
    stream.await_marks("after", 10);
    agent.stop();
    let blocks = stream.end();
    let index = interface_names(&blocks).iter().position(|name| *name == "shop/web-1:late").expect("it is described");
    assert!(marked(&blocks, "late").iter().all(|packet| packet.interface as usize == index && packet.flags == 2));
}

/// Interfaces, their settings, addresses, routes, and what is attached to them.
fn the_pod_is_as_it_was_afterwards(backend: &'static str) {
    let net = Net::with(backend);
    let pod = &net.pod;
    let settings = || {
        sh(&format!(
            "ip -n {pod} -d link && ip -n {pod} addr && ip -n {pod} route show table all && ip -n {pod} neigh && \
             tc -n {pod} qdisc && ls /proc/net/dev_snmp6 2>/dev/null | wc -l"
        ))
    };
    let before = settings();
    // Stopped, and killed: what is left then gets nothing, and is removed by the next.
    let mut agent = net.agent(&[]);
    agent.stop();
    assert_eq!(settings(), before);
    let mut agent = net.agent(&[]);
    agent.child.kill().expect("a child");
    agent.child.wait().expect("a child");
    drop(agent);
    let ours = || sh(&format!("ip -n {pod} -s -j link"));
    let counters = |links: &str| -> Vec<(String, u64)> {
        let links: serde_json::Value = serde_json::from_str(links).expect("JSON");
        let link = |link: &serde_json::Value| {
            let sent = link["stats64"]["tx"]["packets"].as_u64().expect("a number");
            (link["ifname"].as_str().expect("text").to_owned(), sent)
        };
        let links = links.as_array().expect("a list").iter().map(link);
        links.filter(|(name, _)| name.starts_with("sniff-")).collect()
    };
    let left = counters(&ours());
    assert_eq!(left.len(), if backend == "af_xdp" { 2 } else { 0 });
    send(pod, "10.9.0.1", 7777, "nobody-listens", 10, 20);
    assert_eq!(counters(&ours()), left);
    let mut agent = net.agent(&[]);
    assert_eq!(counters(&ours()).len(), left.len(), "what the killed one left is not there any more");
    agent.stop();
    assert_eq!(settings(), before);
}

/// Runs the agent in a pod with no more than these capabilities.
fn with_capabilities(net: &Net, backend: &str, capabilities: &str) -> Command {
    let mut command = net.in_pod("setpriv");
    command.args(["--bounding-set", &format!("-all,{capabilities}"), "--inh-caps", "-all"]).arg(binary());
    command.args(["run", "--ttl", "0", "--backend", backend, "--socket"]).arg(net.socket());
    command
}

#[test]
fn each_backend_needs_what_it_says_and_no_more() {
    let net = Net::new();
    for (backend, needed) in [
        ("af_packet", "+net_raw"),
        ("libpcap", "+net_raw"),
        ("best", "+net_raw"),
        ("af_xdp", "+net_raw,+net_admin,+bpf"),
    ] {
        let enough = with_capabilities(&net, backend, needed).output().expect("ip runs");
        assert!(enough.status.success() && said(&enough).contains("capturing on lo, eth0"), "{}", said(&enough));
        for lacking in needed.split(',') {
            let rest = needed.replace(lacking, "").replace(",,", ",");
            let rest =
                if rest.trim_matches(',').is_empty() { "+kill".to_owned() } else { rest.trim_matches(',').to_owned() };
            let too_few = with_capabilities(&net, backend, &rest).output().expect("ip runs");
            let said = said(&too_few);
            assert_eq!(too_few.status.code(), Some(1), "{backend} with {rest}: {said}");
            assert!(said.starts_with("error: cannot open the capture: ") && said.contains("\nhint: "), "{said}");
            assert!(said.contains(&lacking[1..].to_uppercase()), "{backend} without {lacking}: {said}");
            assert!(!sh(&format!("ip -n {} link", net.pod)).contains(": sniff-"), "{backend} with {rest}");
        }
    }
}

#[test]
fn a_backend_that_is_not_there_says_what_is_missing() {
    let net = Net::new();
    let run = |binary: &std::path::Path, backend: &str| {
        let mut command = net.in_pod(binary);
        command.args(["run", "--ttl", "0", "--backend", backend, "--socket"]).arg(net.socket());
        let output = command.output().expect("ip runs");
        (output.status.code(), said(&output))
    };
    if !std::path::Path::new("/proc/net/pf_ring/info").exists() {
        let (code, said) = run(binary(), "pf_ring");
        assert_eq!(code, Some(1));
        assert!(said.starts_with("error: cannot open the capture: this node's kernel has no PF_RING"), "{said}");
    }
    let plain = build("agent", &["--profile", "agent"]).join("agent/sniff-agent");
    let (code, said) = run(&plain, "libpcap");
    assert_eq!(code, Some(1));
    assert!(said.starts_with("error: cannot open the capture: this agent is built without libpcap\nhint: "), "{said}");
    assert_eq!(run(&plain, "dpdk").0, Some(2));
}

fn vlan_tags_are_put_back(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&["--snaplen", "60"]);
    let stream = agent.stream(&[]);
    // Written as frames, so that it does not take a kernel with VLAN interfaces. The receiving one takes the tag out.
    let script = "import socket\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
        s.bind(('eth0', 0))\n\
        ends = bytes.fromhex('020000000002 020000000001')\n\
        for tag in ('', '81002007', '88a80009'): s.send(ends + bytes.fromhex(tag + '88b5') + b'tagged'.ljust(100))\n";
    let sent = Command::new("ip").args(["netns", "exec", &net.peer, "python3", "-c", script]).status();
    assert!(sent.expect("ip runs").success());
    stream.await_marks("tagged", 3);
    agent.stop();
    let blocks = stream.end();
    let [plain, inner, outer] = marked(&blocks, "tagged")[..] else { panic!("{blocks:?}") };
    assert_eq!((&plain.data[12..14], plain.len, plain.data.len()), (&[0x88, 0xb5][..], 114, 60));
    assert_eq!((&inner.data[12..18], inner.len, inner.data.len()), (&[0x81, 0, 0x20, 7, 0x88, 0xb5][..], 118, 60));
    assert_eq!((&outer.data[12..18], outer.len, outer.data.len()), (&[0x88, 0xa8, 0, 9, 0x88, 0xb5][..], 118, 60));
}

fn no_packet_gets_past_the_filter(backend: &'static str) {
    let net = Net::with(backend);
    let filter = program("udp dst port 7777");
    let mut noise = sender(&net.peer, "10.9.0.2", 9, "noise", usize::MAX >> 1, 20).spawn().map(Killed);
    let Killed(noise) = noise.as_mut().expect("ip runs");
    let counter = format!("ip netns exec {} cat /sys/class/net/eth0/statistics/tx_packets", net.peer);
    until("there is noise", || sh(&counter).trim().parse::<u64>().expect("a number") > 1000);
    // What slips in between two system calls does so rarely: many starts.
    let start = || net.agent(&["--filter", &filter, "--filter-text", "udp dst port 7777"]);
    for _ in 0..15 {
        let mut agent = start();
        assert_eq!(agent.status("packets"), 0);
        agent.stop();
    }
    let mut agent = start();
    let stream = agent.stream(&[]);
    send(&net.peer, "10.9.0.2", 7777, "wanted", 50, 20);
    stream.await_marks("wanted", 50);
    assert_eq!(noise.try_wait().expect("a child"), None, "the noise must last longer than the test");
    agent.stop();
    let blocks = stream.end();
    assert_eq!((packets(&blocks).len(), marked(&blocks, "wanted").len()), (50, 50));
    assert_eq!(hello(&blocks)["filter"], "udp dst port 7777");
}

fn a_filter_holds_on_interfaces_without_ethernet(backend: &'static str) {
    let net = Net::with(backend);
    let filter = program("udp dst port 7777");
    let mut agent = net.agent(&["--filter", &filter]);
    let stream = agent.stream(&[]);
    // Also an interface that comes later than the agent, by as long as some take to see it.
    let script = "import fcntl, socket, struct, subprocess, time\n\
        tun = open('/dev/net/tun', 'r+b', buffering=0)\n\
        fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH', b'tun0', 0x1001))\n\
        subprocess.run('ip link set tun0 up && ip addr add 10.8.0.1/24 dev tun0', shell=True, check=True)\n\
        time.sleep(1)\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        for port in (7778, 7777): s.sendto(b'through-the-tunnel', ('10.8.0.2', port))\n\
        input()\n";
    let sender = net.in_pod("python3").args(["-c", script]).stdin(Stdio::piped()).spawn();
    let mut sender = Killed(sender.expect("ip runs"));
    if backend == "af_xdp" {
        // It hears no such interface, and says so.
        let mut said = std::io::BufReader::new(agent.child.stderr.take().expect("a pipe")).lines();
        let warning = said.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("warning: ")));
        let expected = "warning: tun0 is not captured: AF_XDP hears only interfaces with Ethernet headers";
        assert_eq!(warning.expect("a line").expect("text"), expected);
        return;
    }
    stream.await_marks("through-the-tunnel", 1);
    // The interface lasts as long as its process. One that is gone when its first packet is read has no name.
    sender.0.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("it reads");
    assert_eq!(exit_code(&mut sender.0), Some(0));
    agent.stop();
    let blocks = stream.end();
    let [packet] = packets(&blocks)[..] else { panic!("{blocks:?}") };
    // libpcap cannot tell which way what has no address went.
    let flags = if backend == "libpcap" { 0 } else { 2 };
    assert_eq!((packet.data[0], packet.len, packet.flags), (0x45, 20 + 8 + 18, flags));
    let link = |block: &Block| matches!(block, Block::Interface { name, link: 101, .. } if name == "shop/web-1:tun0");
    assert!(blocks.iter().any(link), "{blocks:?}");
}

fn the_snaplen_cuts_but_keeps_the_length(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&["--snaplen", "64"]);
    send(&net.peer, "10.9.0.2", 7777, "long", 10, 1000);
    until("packets", || agent.status("packets") >= 10);
    let blocks = agent.rest(&[]);
    let long = marked(&blocks, "long");
    assert!(long.len() >= 10 && long.iter().all(|packet| packet.data.len() == 64));
    assert_eq!(long.iter().filter(|packet| packet.len == 1042).count(), 10);
    assert!(blocks.iter().any(|block| matches!(block, Block::Interface { snaplen: 64, .. })));
}

fn what_was_flushed_is_reported_to_the_packet(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&["--buffer", "1Mi"]);
    send(&net.pod, "10.9.0.1", 7777, "much", 5000, 1000);
    // Some never get as far as the buffer if the machine is busy with other things.
    until("packets", || agent.status("packets") + agent.status("drops") >= 5000);
    let blocks = agent.rest(&["--from", "1"]);
    let [(1, count)] = flushed(&blocks)[..] else { panic!("{:?}", flushed(&blocks)) };
    assert!((1..5000).contains(&count), "{count}");
    let kept = ids(&blocks);
    assert_eq!(kept, (count + 1..=count + kept.len() as u64).collect::<Vec<_>>());
    let Some(Block::End(end)) = blocks.last() else { panic!("no end") };
    assert_eq!(end["next"], count + kept.len() as u64 + 1);
    // Whoever asks for no certain packet misses none.
    assert_eq!(hello(&blocks)["first"], count + 1);
}

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

fn what_the_kernel_dropped_is_counted_to_the_packet(backend: &'static str) {
    let net = Net::with(backend);
    let filter = program("udp dst port 7777");
    let mut agent = net.agent(&["--ring", "512Ki", "--filter", &filter]);
    let stream = agent.stream(&[]);
    send(&net.pod, "10.9.0.1", 7777, "before", 10, 1000);
    stream.await_marks("before", 10);
    // An agent that does not run lets the ring overflow.
    sh(&format!("kill -STOP {}", agent.child.id()));
    send(&net.pod, "10.9.0.1", 7777, "during", 5000, 1000);
    sh(&format!("kill -CONT {}", agent.child.id()));
    until("the drops are counted", || agent.status("drops") > 0);
    send(&net.pod, "10.9.0.1", 7777, "after", 10, 1000);
    stream.await_marks("after", 10);
    let dropped = agent.status("drops");
    agent.stop();
    let blocks = stream.end();
    let packets = packets(&blocks);
    assert_eq!(packets.len() as u64 + dropped, 5020);
    assert_eq!(ids(&blocks), numbers(packets.len() as u64));
    assert_eq!(packets.iter().map(|packet| packet.dropped).sum::<u64>(), dropped);
    let counted = |block: &&Block| matches!(block, Block::Statistics { interface: 1, .. });
    let received = packets.len() as u64;
    assert_eq!(blocks.iter().rfind(counted), Some(&Block::Statistics { interface: 1, received, dropped }));
}

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
    let (slow, quick) = (support::parse(&bytes), quick.end());

    assert_eq!(flushed(&quick), []);
    assert_eq!(ids(&quick), numbers(packets(&quick).len() as u64));
    let missed: u64 = flushed(&slow).iter().map(|(_, count)| count).sum();
    assert!(missed > 0);
    assert_eq!(missed + packets(&slow).len() as u64, packets(&quick).len() as u64);
    for (from, count) in flushed(&slow) {
        assert!(!ids(&slow).iter().any(|id| (from..from + count).contains(id)));
    }
}

fn two_sessions_get_the_same_packets(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&[]);
    let first = agent.stream(&[]);
    send(&net.peer, "10.9.0.2", 7777, "early", 100, 10);
    first.await_marks("early", 100);
    let second = agent.stream(&["--since", "60"]);
    let third = agent.stream(&["--now"]);
    send(&net.peer, "10.9.0.2", 7777, "late", 100, 10);
    first.await_marks("late", 100);
    agent.stop();
    let (first, second, third) = (first.end(), second.end(), third.end());
    assert_eq!(packets(&first), packets(&second));
    assert_eq!(marked(&third, "early"), Vec::<&support::Packet>::new());
    assert_eq!(marked(&third, "late"), marked(&first, "late"));
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
    std::thread::sleep(Duration::from_millis(2500));
    send(&net.pod, "10.9.0.1", 7777, "new", 100, 10);
    // What was sent before it asks, it gets, though the ring may still hold it.
    let all = agent.look_back(&["--no-follow"]);
    let next = packets(&all).len() as u64 + 1;
    assert_eq!((marked(&all, "old").len(), marked(&all, "new").len()), (100, 100));
    let Some(Block::End(end)) = all.last() else { panic!("no end") };
    assert_eq!(end, &serde_json::json!({"next": next, "why": "no more was asked for", "asked": true}));

    let old = agent.look_back(&["--until", "2"]);
    let new = agent.look_back(&["--since", "2", "--no-follow"]);
    let part = agent.look_back(&["--from", "11", "--until", "2"]);
    let none = agent.look_back(&["--since", "2", "--until", "60"]);
    assert_eq!((marked(&old, "old").len(), marked(&old, "new").len()), (100, 0));
    assert_eq!((marked(&new, "old").len(), marked(&new, "new").len()), (0, 100));
    assert_eq!(ids(&part), ids(&old)[10..]);
    assert!(packets(&none).is_empty());
    let last = packets(&old).len() as u64;
    assert_eq!((ids(&old), ids(&new)), (numbers(last), (last + 1..next).collect()));
    assert!(matches!(old.last(), Some(Block::End(end)) if end["next"] == last + 1));
    assert_eq!(agent.sessions(), 0);
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
        assert_eq!(packet, &support::Packet { data: whole.data[..60].to_vec(), ..whole.clone() });
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
    assert!((1_000_000.0..8_000_000.0).contains(&number("memory")), "{told}");
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
    // A client that is killed leaves no session behind.
    alive.kill().expect("a child");
    alive.wait().expect("a child");
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

fn memory_does_not_grow_under_a_flood(backend: &'static str) {
    let net = Net::with(backend);
    let agent = net.agent(&["--buffer", "4Mi"]);
    let mut stalled = agent.client(&["stream", "--no-stdin"]).stdout(Stdio::piped()).spawn().expect("the agent runs");
    send(&net.pod, "10.9.0.1", 7777, "flood", 100_000, 1200);
    let peak = agent.memory("VmHWM");
    assert!((4 << 10..(8 + 4) << 10).contains(&peak), "{peak} KiB");
    until("all are counted", || agent.status("packets") + agent.status("drops") >= 100_000);
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", agent.child.id())).expect("its score");
    assert_eq!(score.trim(), "1000");
    stalled.kill().expect("a child");
    stalled.wait().expect("a child");
}

#[test]
fn a_flood_in_a_small_pod_kills_nobody_and_is_counted() {
    let net = Net::new();
    let limit = support::Limit::new(64 << 20);
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
        flood();
        let (before, begun) = (agent.memory("VmRSS"), Instant::now());
        let mut rounds = 1;
        while begun.elapsed() < Duration::from_secs(4) || rounds < 6 {
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

#[test]
fn the_binary_of_the_image_needs_nothing_and_is_small() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let binary = build("agent", &["--profile", "agent", "--target", &target]).join(target).join("agent/sniff-agent");
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
