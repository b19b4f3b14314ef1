//! Flow scripts: a conversation that people can read and review, compiled to frames.
//!
//! ```text
//! # a comment
//! port 6379            the server's port (default 80)
//! client-port 40001    a new connection from here on
//! udp                  datagrams instead of TCP
//! icmp                 ICMP messages instead of TCP
//! sctp                 SCTP instead of TCP: each step is a user message, large ones in fragments
//! mid-stream           without the handshake
//! > GET a\r\n          bytes from the client, one segment (escapes: \r \n \t \0 \\ \xHH)
//! < $-1\r\n            bytes from the server
//! >x 0a 0b0c           the same in hex
//! @+3ms                time passes (us, ms, s; default 1 ms before each segment)
//! ! > 40               40 bytes of the client's that were sent but not captured
//! fin                  both sides close
//! keylog LABEL …       a line of a TLS key log
//! proto FILE           descriptors of gRPC services, compiled, in tests/fixtures
//! syn                  the client asks for a connection, with `mid-stream` to see what becomes of it
//! again                the last frame once more
//! rst <                a side breaks off
//! ```

use std::net::Ipv4Addr;
use std::path::Path;

use kubectl_sniff::dissect::{Descriptors, Options};

/// One step of a conversation.
#[derive(Clone, Debug)]
pub enum Step {
    /// Bytes of the client (true) or the server.
    Data(bool, Vec<u8>),
    /// Bytes that were not captured.
    Gap(bool, u32),
    /// Nanoseconds that pass.
    Pause(i64),
    /// A new connection from this port.
    Connect(u16),
    /// Both sides close.
    Fin,
    /// The client asks for a connection.
    Syn,
    /// The last frame once more.
    Again,
    /// The client (true) or the server breaks off.
    Reset(bool),
}

/// A parsed flow script.
#[derive(Clone, Debug)]
pub struct Script {
    pub port: u16,
    /// Datagrams: UDP, ICMP or SCTP.
    pub udp: bool,
    pub icmp: bool,
    pub sctp: bool,
    pub handshake: bool,
    pub keys: String,
    pub descriptors: Descriptors,
    pub steps: Vec<Step>,
}

impl Script {
    /// Parses a script; a fault in it ends the test with the line.
    pub fn parse(text: &str) -> Self {
        let (keys, descriptors) = (String::new(), Descriptors::default());
        let (steps, port) = (Vec::new(), 80);
        let mut script = Self { port, udp: false, icmp: false, sctp: false, handshake: true, keys, descriptors, steps };
        for (number, line) in text.lines().enumerate() {
            let fault = |why: &str| -> ! { panic!("line {}: {why}: {line}", number + 1) };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "port" => script.port = rest.trim().parse().unwrap(),
                "client-port" => script.steps.push(Step::Connect(rest.trim().parse().unwrap())),
                "udp" => script.udp = true,
                "icmp" => (script.udp, script.icmp) = (true, true),
                "sctp" => (script.udp, script.sctp) = (true, true),
                "mid-stream" => script.handshake = false,
                ">" | "<" => script.steps.push(Step::Data(word == ">", unescape(rest))),
                ">x" | "<x" => script.steps.push(Step::Data(word == ">x", unhex(rest))),
                "!" => {
                    let (side, len) = rest.split_once(' ').unwrap_or_else(|| fault("no length"));
                    script.steps.push(Step::Gap(side == ">", len.trim().parse().unwrap()));
                }
                "fin" => script.steps.push(Step::Fin),
                "keylog" => script.keys.extend([rest, "\n"]),
                "proto" => {
                    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
                    script.descriptors.add(&std::fs::read(folder.join(rest)).unwrap()).unwrap();
                }
                "syn" => script.steps.push(Step::Syn),
                "again" => script.steps.push(Step::Again),
                "rst" => script.steps.push(Step::Reset(rest == ">")),
                _ if word.starts_with("@+") => script.steps.push(Step::Pause(pause(&word[2..]))),
                _ => fault("no such step"),
            }
        }
        script
    }

    /// Full detail, with the keys.
    pub fn options(&self) -> Options {
        let descriptors = self.descriptors.clone();
        let options = Options { detail: true, descriptors, ..Options::default() };
        options.keys.add(self.keys.as_bytes());
        options
    }

    /// The frames of the conversation, captured from 2026-01-02 03:04:05 UTC on.
    pub fn frames(&self) -> Vec<(i64, Vec<u8>)> {
        let mut wire = Wire::new(self.port, self.udp, self.icmp, self.sctp);
        if self.handshake && !self.udp && !matches!(self.steps.first(), Some(Step::Connect(_))) {
            wire.connect(40_000);
        }
        for step in &self.steps {
            match step {
                Step::Data(client, data) => wire.data(*client, data),
                Step::Gap(client, len) => {
                    let side = usize::from(!*client);
                    wire.seq[side] = wire.seq[side].wrapping_add(*len);
                }
                Step::Pause(nanos) => wire.time += nanos,
                Step::Connect(port) if self.udp => wire.client_port = *port,
                Step::Connect(port) => wire.connect(*port),
                Step::Fin => wire.fin(),
                Step::Syn => {
                    wire.tcp(true, 0x02, &[]);
                    wire.seq[0] = wire.seq[0].wrapping_add(1);
                }
                Step::Again => {
                    if let Some((_, frame)) = wire.frames.last().cloned() {
                        wire.time += 1_000_000;
                        wire.frames.push((wire.time, frame));
                    }
                }
                Step::Reset(client) => wire.tcp(*client, 0x14, &[]),
            }
        }
        wire.frames
    }
}

/// Builds frames with right lengths and sequence numbers.
struct Wire {
    port: u16,
    client_port: u16,
    udp: bool,
    icmp: bool,
    sctp: bool,
    time: i64,
    /// Next sequence number of client and server.
    seq: [u32; 2],
    frames: Vec<(i64, Vec<u8>)>,
}

impl Wire {
    fn new(port: u16, udp: bool, icmp: bool, sctp: bool) -> Self {
        Self {
            port,
            client_port: 40_000,
            udp,
            icmp,
            sctp,
            time: 1_767_323_045_000_000_000,
            seq: [1000, 5000],
            frames: Vec::new(),
        }
    }

    fn connect(&mut self, client_port: u16) {
        self.client_port = client_port;
        self.tcp(true, 0x02, &[]);
        self.seq[0] = self.seq[0].wrapping_add(1);
        self.tcp(false, 0x12, &[]);
        self.seq[1] = self.seq[1].wrapping_add(1);
        self.tcp(true, 0x10, &[]);
    }

    fn fin(&mut self) {
        for client in [true, false] {
            self.tcp(client, 0x11, &[]);
            let side = usize::from(!client);
            self.seq[side] = self.seq[side].wrapping_add(1);
        }
    }

    fn data(&mut self, client: bool, data: &[u8]) {
        if self.icmp {
            self.ip(client, 1, data);
            return;
        }
        if self.sctp {
            self.sctp(client, data);
            return;
        }
        if self.udp {
            self.udp(client, data);
            return;
        }
        for segment in data.chunks(1460) {
            self.tcp(client, 0x18, segment);
            let side = usize::from(!client);
            self.seq[side] = self.seq[side].wrapping_add(segment.len() as u32);
        }
    }

    fn tcp(&mut self, client: bool, flags: u8, payload: &[u8]) {
        let (seq, ack) = if client { (self.seq[0], self.seq[1]) } else { (self.seq[1], self.seq[0]) };
        let (src, dst) = self.ports(client);
        let mut tcp = Vec::new();
        tcp.extend_from_slice(&src.to_be_bytes());
        tcp.extend_from_slice(&dst.to_be_bytes());
        tcp.extend_from_slice(&seq.to_be_bytes());
        tcp.extend_from_slice(&(if flags & 0x10 != 0 { ack } else { 0 }).to_be_bytes());
        tcp.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend_from_slice(payload);
        self.ip(client, 6, &tcp);
    }

    fn udp(&mut self, client: bool, payload: &[u8]) {
        let (src, dst) = self.ports(client);
        let mut udp = Vec::new();
        udp.extend_from_slice(&src.to_be_bytes());
        udp.extend_from_slice(&dst.to_be_bytes());
        udp.extend_from_slice(&(payload.len() as u16 + 8).to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(payload);
        self.ip(client, 17, &udp);
    }

    /// A user message in as many DATA chunks as it needs, a packet each.
    fn sctp(&mut self, client: bool, message: &[u8]) {
        let (src, dst) = self.ports(client);
        let count = message.chunks(1400).len();
        for (at, fragment) in message.chunks(1400).enumerate() {
            let flags = if at == 0 { 2 } else { 0 } | u8::from(at + 1 == count);
            let side = usize::from(!client);
            let mut packet = Vec::new();
            packet.extend_from_slice(&src.to_be_bytes());
            packet.extend_from_slice(&dst.to_be_bytes());
            packet.extend_from_slice(&[0; 8]);
            packet.extend_from_slice(&[0, flags]);
            packet.extend_from_slice(&(fragment.len() as u16 + 16).to_be_bytes());
            packet.extend_from_slice(&self.seq[side].to_be_bytes());
            packet.extend_from_slice(&[0; 8]);
            packet.extend_from_slice(fragment);
            packet.resize(packet.len().next_multiple_of(4), 0);
            self.seq[side] = self.seq[side].wrapping_add(1);
            self.ip(client, 132, &packet);
        }
    }

    fn ports(&self, client: bool) -> (u16, u16) {
        if client { (self.client_port, self.port) } else { (self.port, self.client_port) }
    }

    fn ip(&mut self, client: bool, protocol: u8, payload: &[u8]) {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let (src, dst) = if client { (a, b) } else { (b, a) };
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
        frame.extend_from_slice(&(payload.len() as u16 + 20).to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend_from_slice(&src.octets());
        frame.extend_from_slice(&dst.octets());
        frame.extend_from_slice(payload);
        self.time += 1_000_000;
        self.frames.push((self.time, frame));
    }
}

fn pause(text: &str) -> i64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        unit => panic!("no unit {unit}"),
    };
    digits.parse::<i64>().unwrap() * unit
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    assert!(digits.len().is_multiple_of(2), "odd number of hex digits: {text}");
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'0') => bytes.push(0),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            other => panic!("no escape {other:?} in {text}"),
        }
    }
    bytes
}
