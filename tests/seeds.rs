//! What fuzzing starts from: each fixture as a fuzzer's bytes, and what it once found. All of it goes through the targets.

use std::io::Write;
use std::path::{Path, PathBuf};

use kubectl_sniff::capture::pcapng;

use crate::conversation::{self, Conversation};
use crate::golden;
use crate::support::flow_script::Script;

/// The most bytes of a seed: a fuzzer gets nowhere with longer ones.
const MOST: usize = 4096;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// Writes a seed if snapshots are to be written too.
fn seed(target: &str, name: &str, bytes: &[u8]) {
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::create_dir_all(corpus(target)).unwrap();
        std::fs::write(corpus(target).join(name), &bytes[..bytes.len().min(MOST)]).unwrap();
    }
}

fn replay(target: &str, run: fn(&[u8])) {
    for path in std::fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()) {
        eprintln!("{}", path.display());
        run(&std::fs::read(path).unwrap());
    }
}

#[test]
fn conversations() {
    for (protocol, case, path) in golden::fixtures() {
        let script = Script::parse(&std::fs::read_to_string(path).unwrap());
        seed("flows", &format!("{protocol}-{case}"), &Conversation::encode(&protocol, &script));
    }
    replay("flows", conversation::flows);
}

/// The IP packets of a fixture.
fn packets(fixture: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture).with_extension("flow");
    let script = Script::parse(&std::fs::read_to_string(path).unwrap());
    script.frames().into_iter().map(|(_, frame)| frame[14..].to_vec()).take(8).collect()
}

#[test]
fn frames() {
    const ETHERNET: &[u8] = &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let outer = |protocol: u8, header: &[u8]| {
        [ETHERNET, &[8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 1, 0, 1, 10, 1, 0, 2], header].concat()
    };
    let vxlan = [0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0];
    let geneve = [0xc0, 0, 0x17, 0xc1, 0, 0, 0, 0, 0, 0, 0x65, 0x58, 0, 0, 7, 0];
    let gtp = [0xc0, 0, 8, 0x68, 0, 0, 0, 0, 0x30, 0xff, 0, 0, 0, 0, 0, 1];
    let ethernet = [ETHERNET, &[8, 0]].concat();
    let below: &[(&str, u8, Vec<u8>)] = &[
        ("ethernet", 1, ethernet.clone()),
        ("raw", 101, vec![]),
        ("loopback", 0, vec![2, 0, 0, 0]),
        ("sll", 113, vec![0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0]),
        ("vlan", 1, [ETHERNET, &[0x88, 0xa8, 0, 2, 0x81, 0, 0, 1, 8, 0]].concat()),
        ("mpls", 1, [ETHERNET, &[0x88, 0x47, 0, 1, 1, 64]].concat()),
        ("ipip", 1, outer(4, &[])),
        ("gre", 1, outer(47, &[0x20, 0, 8, 0, 0, 0, 0, 1])),
        ("vxlan", 1, outer(17, &[&vxlan, &ethernet[..]].concat())),
        ("geneve", 1, outer(17, &[&geneve, &ethernet[..]].concat())),
        ("gtp", 1, outer(17, &gtp)),
    ];
    for fixture in ["dns/address", "redis/pipelined", "icmp/echo", "diameter/sctp"] {
        for (name, link, below) in below {
            let frames: Vec<Vec<u8>> = packets(fixture).iter().map(|packet| [&below[..], packet].concat()).collect();
            let name = format!("{name}-{}", fixture.replace('/', "-"));
            seed("frames", &name, &[&[*link, 0][..], &frames.join(conversation::MARK)].concat());
        }
    }
    replay("frames", conversation::frames);
}

#[test]
fn captures() {
    let packets = packets("dns/address");
    let mut pcap: Vec<u8> =
        [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 101].into_iter().flat_map(u32::to_le_bytes).collect();
    for packet in &packets {
        let len = packet.len() as u32;
        pcap.extend([7, 0, len, len].into_iter().flat_map(u32::to_le_bytes));
        pcap.extend(packet);
    }
    let mut pcapng = Vec::new();
    pcapng::section(&mut pcapng, "fuzz");
    pcapng::hello(&mut pcapng, "{}");
    let interface =
        pcapng::Interface { name: "shop/carts:eth0", origin: None, link: 101, snaplen: 0, filter: Some("port 53") };
    pcapng::interface(&mut pcapng, &interface);
    pcapng::names(&mut pcapng, [([10, 0, 0, 1].into(), "carts.shop.pod")]);
    pcapng::secrets(&mut pcapng, b"CLIENT_RANDOM 00 00\n");
    pcapng::flushed(&mut pcapng, 1, 2);
    for packet in &packets {
        let data = [&packet[..]];
        let len = packet.len() as u32;
        pcapng::packet(&mut pcapng, &pcapng::Packet { len, data: &data, id: Some(7), ..pcapng::Packet::default() });
    }
    pcapng::statistics(&mut pcapng, &pcapng::Statistics { interface: 0, time: 9, start: 7, received: 4, dropped: 1 });
    pcapng::end(&mut pcapng, "{}");
    for (name, plain) in [("pcap", pcap), ("pcapng", pcapng)] {
        seed("captures", name, &plain);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&plain).unwrap();
        seed("captures", &format!("{name}-gzip"), &gzip.finish().unwrap());
        let zstd = ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
        seed("captures", &format!("{name}-zstd"), &zstd);
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&plain).unwrap();
        seed("captures", &format!("{name}-lz4"), &lz4.finish().unwrap());
    }
    replay("captures", conversation::captures);
}
