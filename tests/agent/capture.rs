//! Capturing, with each backend: of the same traffic they give the same packets.

use std::io::{BufRead, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::{
    Block, Killed, Net, Packet, binary, build, exit_code, ids, marked, packets, program, said, send, sender, sh, until,
};
use super::{flushed, hello, interface_names, numbers};

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
    a_filter_is_replaced_while_it_captures,
    the_snaplen_cuts_but_keeps_the_length,
    what_was_flushed_is_reported_to_the_packet,
    what_the_kernel_dropped_is_counted_to_the_packet,
    two_sessions_get_the_same_packets,
    memory_does_not_grow_under_a_flood,
    large_frames_are_whole,
    an_interface_that_comes_later_is_heard,
    the_pod_is_as_it_was_afterwards,
);

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
    let udp = |packet: &&&Packet| packet.data[23] == 17;
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
    assert_eq!(noise.try_wait().expect("a child"), None, "the noise must last longer than the starts");
    // A backend that filters in user space may drop what is wanted while the noise fills its ring.
    noise.kill().and_then(|()| noise.wait()).expect("a child");
    until("the noise is behind it", || {
        send(&net.peer, "10.9.0.2", 7777, "behind-it", 1, 20);
        !marked(&stream.blocks(), "behind-it").is_empty()
    });
    send(&net.peer, "10.9.0.2", 7777, "wanted", 50, 20);
    stream.await_marks("wanted", 50);
    agent.stop();
    let blocks = stream.end();
    let wanted = marked(&blocks, "wanted").len();
    assert_eq!((packets(&blocks).len(), wanted), (marked(&blocks, "behind-it").len() + wanted, 50));
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

fn a_filter_is_replaced_while_it_captures(backend: &'static str) {
    let net = Net::with(backend);
    let mut agent = net.agent(&["--filter", &program("udp dst port 7777"), "--filter-text", "first"]);
    let stream = agent.stream(&[]);
    send(&net.peer, "10.9.0.2", 7778, "early", 5, 20);
    send(&net.peer, "10.9.0.2", 7777, "one", 5, 20);
    stream.await_marks("one", 5);
    let replaced = agent.client(&["filter", &program("udp dst port 7778"), "--filter-text", "second"]).output();
    let replaced = replaced.expect("ip runs");
    assert!(replaced.status.success(), "{}", String::from_utf8_lossy(&replaced.stderr));
    // It holds from the answer on.
    send(&net.peer, "10.9.0.2", 7777, "late", 5, 20);
    send(&net.peer, "10.9.0.2", 7778, "two", 5, 20);
    stream.await_marks("two", 5);
    let status = agent.client(&["status"]).output().expect("ip runs");
    assert!(String::from_utf8_lossy(&status.stdout).contains("\"filter\":\"second\""));
    agent.stop();
    let blocks = stream.end();
    let counts = ["early", "one", "late", "two"].map(|mark| marked(&blocks, mark).len());
    assert_eq!(counts, [0, 5, 0, 5]);
    assert_eq!(packets(&blocks).len(), 10);
}

/// What AF_XDP costs the pod is clones: there are those that are wanted, and no others.
#[test]
fn what_the_filter_leaves_out_is_not_cloned() {
    let net = Net::with("af_xdp");
    let mut agent = net.agent(&["--filter", &program("udp dst port 7777")]);
    let stream = agent.stream(&[]);
    let counter = format!("ip netns exec {} cat /sys/class/net/sniff-0-in/statistics/tx_packets", net.pod);
    let clones = || sh(&counter).trim().parse::<u64>().expect("a number");
    send(&net.peer, "10.9.0.2", 7778, "early", 500, 20);
    send(&net.peer, "10.9.0.2", 7777, "one", 50, 20);
    stream.await_marks("one", 50);
    assert_eq!(clones(), 50);
    until("what is left out is counted", || agent.status("filtered") >= 500);
    let replaced = agent.client(&["filter", &program("udp dst port 7778")]).output().expect("ip runs");
    assert!(replaced.status.success(), "{}", said(&replaced));
    send(&net.peer, "10.9.0.2", 7777, "late", 500, 20);
    send(&net.peer, "10.9.0.2", 7778, "two", 50, 20);
    stream.await_marks("two", 50);
    assert_eq!(clones(), 100);
    until("what is left out is counted", || agent.status("filtered") >= 1000);
    agent.stop();
    assert_eq!(packets(&stream.end()).len(), 100);
}

/// A packet that the pod's namespace forwards passes two interfaces; both views are of the same packet.
#[test]
fn a_packet_that_passes_two_interfaces_is_captured_once() {
    let net = Net::new();
    let (pod, peer, far) = (&net.pod, &net.peer, format!("{}-far", net.pod));
    sh(&format!(
        "ip netns add {far} && ip -n {pod} link add beyond type veth peer name eth0 netns {far} && \
         ip -n {pod} addr add 10.8.0.1/24 dev beyond && ip -n {pod} link set beyond up && \
         ip -n {far} addr add 10.8.0.2/24 dev eth0 && ip -n {far} link set eth0 up && \
         ip -n {far} route add default via 10.8.0.1 && ip -n {peer} route add 10.8.0.0/24 via 10.9.0.2 && \
         ip netns exec {pod} sysctl -qw net.ipv4.ip_forward=1"
    ));
    let views = |options: &[&str], mark: &str| {
        let mut agent = net.agent(&[&["--filter", &program("udp")], options].concat());
        let stream = agent.stream(&[]);
        send(peer, "10.8.0.2", 7777, mark, 50, 20);
        stream.await_marks(mark, 50);
        std::thread::sleep(Duration::from_millis(300));
        let repeated = agent.told()["repeated"].as_u64();
        agent.stop();
        (marked(&stream.end(), mark).len(), repeated)
    };
    let once = views(&["--once-per-packet"], "once");
    let all = views(&[], "all");
    sh(&format!("ip netns del {far}"));
    assert_eq!((once, all.0), ((50, Some(50)), 100));
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
    assert_eq!(marked(&third, "early"), Vec::<&Packet>::new());
    assert_eq!(marked(&third, "late"), marked(&first, "late"));
}

fn memory_does_not_grow_under_a_flood(backend: &'static str) {
    let net = Net::with(backend);
    let agent = net.agent(&["--buffer", "4Mi"]);
    let mut stalled = agent.client(&["stream", "--no-stdin"]).stdout(Stdio::piped()).spawn().expect("the agent runs");
    send(&net.pod, "10.9.0.1", 7777, "flood", 100_000, 1200);
    let peak = agent.memory("VmHWM");
    let most = ((agent.status("ring") + agent.status("buffer.size")) >> 10) + (5 << 10);
    assert!((4 << 10..most).contains(&peak), "{peak} of {most} KiB");
    until("all are counted", || agent.status("packets") + agent.status("drops") >= 100_000);
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", agent.child.id())).expect("its score");
    assert_eq!(score.trim(), "1000");
    stalled.kill().expect("a child");
    stalled.wait().expect("a child");
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
