//! Capture filters in user space: a session's own, and those of backends that have no filter in the kernel.
//!
//! Runs what [`bpf`](super::bpf) has checked: jumps go forward, so a program ends after as many steps as it has
//! instructions. Loads from beyond the frame end it with 0, as in the kernel; nothing else can go wrong.
//!
//! A frame looks as it does to the kernel's filter: without its VLAN tag, which is known apart, so that an expression means
//! the same here and there. One difference is left: a frame that was cut when it was captured ends there, and a program
//! that reads beyond rejects it.

use super::bpf::{
    self, ANCILLARY, ETHERNET, ETHERNET_HEADER, Instruction, LINK_LAYER, NETWORK_HEADER, Program, Tag, without_ethernet,
};

/// A program made ready to be run on frames of any interface.
#[derive(Clone, Debug)]
pub struct Filter {
    /// As compiled, for Ethernet frames.
    ethernet: Vec<Instruction>,
    /// For frames that start with the network header.
    raw: Vec<Instruction>,
}

/// A frame, as a program sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What is before the VLAN tag; empty if there is none.
    head: &'a [u8],
    /// What is behind it, or all.
    rest: &'a [u8],
    tag: Tag,
    /// Where the network header starts.
    network: usize,
    /// Length on the wire, without the tag.
    len: u32,
    /// Kernel's index of the interface.
    interface: u32,
    /// It was sent, not received.
    outgoing: bool,
}

impl<'a> View<'a> {
    /// A frame with an Ethernet header, and its VLAN tag where it was on the wire.
    #[must_use]
    pub fn ethernet(data: &'a [u8], len: u32, interface: u32, outgoing: bool) -> Self {
        let parts = data.split_at_checked(12);
        if let Some((head, [a @ (0x81 | 0x88), b @ (0 | 0xa8), c, d, ..])) = parts
            && matches!([a, b], [0x81, 0] | [0x88, 0xa8])
        {
            let rest = data.get(16..).unwrap_or_default();
            return Self::tagged(head, Some([*a, *b, *c, *d]), rest, len, interface, outgoing);
        }
        Self::tagged(&[], None, data, len, interface, outgoing)
    }

    /// The same with the tag cut out already; `len` counts it.
    #[must_use]
    pub fn tagged(head: &'a [u8], tag: Tag, rest: &'a [u8], len: u32, interface: u32, outgoing: bool) -> Self {
        let len = if tag.is_some() { len.saturating_sub(4) } else { len };
        Self { head, rest, tag, network: ETHERNET_HEADER as usize, len, interface, outgoing }
    }

    /// A frame that is an IP packet.
    #[must_use]
    pub fn raw(data: &'a [u8], len: u32, interface: u32, outgoing: bool) -> Self {
        Self { head: &[], rest: data, tag: None, network: 0, len, interface, outgoing }
    }

    /// The big-endian number of `size` bytes at `offset`, which is negative for places relative to a header.
    fn load(&self, offset: u32, size: usize) -> Option<u32> {
        let at = match offset {
            0..=0x7fff_ffff => offset as usize,
            NETWORK_HEADER.. => (offset - NETWORK_HEADER) as usize + self.network,
            LINK_LAYER.. => (offset - LINK_LAYER) as usize,
            _ => return None,
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let split = self.head.len();
        if at >= split {
            return self.rest.get(at - split..at - split + size).map(number);
        }
        // Starts before the tag, and may end behind it.
        let mut bytes = self.head.iter().chain(self.rest).skip(at);
        (0..size).try_fold(0, |number, _| Some(number << 8 | u32::from(*bytes.next()?)))
    }

    /// What the kernel knows of a frame besides its bytes; 0 for what we do not.
    fn ancillary(&self, what: u32) -> u32 {
        match what {
            0 => self.protocol(),
            4 if self.outgoing => u32::from(bpf::OUTGOING),
            8 => self.interface,
            28 if self.network > 0 => u32::from(ETHERNET),
            28 => 0xfffe,
            44 => self.tag.map_or(0, |[_, _, high, low]| u16::from_be_bytes([high, low]).into()),
            48 => u32::from(self.tag.is_some()),
            60 => self.tag.map_or(0, |[high, low, ..]| u16::from_be_bytes([high, low]).into()),
            _ => 0,
        }
    }

    fn protocol(&self) -> u32 {
        if self.network > 0 {
            return self.load(ETHERNET_HEADER - 2, 2).unwrap_or(0);
        }
        match self.rest.first().map(|first| first >> 4) {
            Some(4) => 0x0800,
            Some(6) => 0x86dd,
            _ => 0,
        }
    }
}

impl Filter {
    /// Makes a program ready.
    #[must_use]
    pub fn new(program: &Program) -> Self {
        let ethernet = program.instructions().to_vec();
        let raw = ethernet.iter().copied().map(without_ethernet).collect();
        Self { ethernet, raw }
    }

    /// How many bytes of the frame are to be kept; 0 rejects it.
    #[must_use]
    pub fn run(&self, frame: &View<'_>) -> u32 {
        run(if frame.network > 0 { &self.ethernet } else { &self.raw }, frame).unwrap_or(0)
    }
}

/// None if the program read beyond the frame or divided by 0.
fn run(program: &[Instruction], frame: &View<'_>) -> Option<u32> {
    let (mut a, mut x) = (0_u32, 0_u32);
    let mut memory = [0_u32; bpf::CELLS];
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let cell = k as usize % bpf::CELLS;
        let operand = if code & 0x08 == 0 { k } else { x };
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 | 0x28 | 0x30 if k >= ANCILLARY => match k - ANCILLARY {
                40 => a ^= x,
                what => a = frame.ancillary(what),
            },
            0x20 => a = frame.load(k, 4)?,
            0x28 => a = frame.load(k, 2)?,
            0x30 => a = frame.load(k, 1)?,
            0x40 => a = frame.load(x.wrapping_add(k), 4)?,
            0x48 => a = frame.load(x.wrapping_add(k), 2)?,
            0x50 => a = frame.load(x.wrapping_add(k), 1)?,
            0x80 => a = frame.len,
            0x00 => a = k,
            0x60 => a = memory[cell],
            0x01 => x = k,
            0x61 => x = memory[cell],
            0x81 => x = frame.len,
            0xb1 => x = (frame.load(k, 1)? & 0x0f) << 2,
            0x02 => memory[cell] = a,
            0x03 => memory[cell] = x,
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x24 | 0x2c => a = a.wrapping_mul(operand),
            0x34 | 0x3c => a = a.checked_div(operand)?,
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0x64 | 0x6c => a = a.wrapping_shl(operand),
            0x74 | 0x7c => a = a.wrapping_shr(operand),
            0x84 => a = a.wrapping_neg(),
            0x94 | 0x9c => a = a.checked_rem(operand)?,
            0xa4 | 0xac => a ^= operand,
            0x05 => at += k as usize,
            0x15 | 0x1d => jump(a == operand),
            0x25 | 0x2d => jump(a > operand),
            0x35 | 0x3d => jump(a >= operand),
            0x45 | 0x4d => jump(a & operand != 0),
            0x06 => return Some(k),
            0x16 => return Some(a),
            0x07 => x = a,
            0x87 => a = x,
            _ => return None,
        }
    }
}

/// Frames and filters to try on each other, for whoever runs filters.
#[cfg(test)]
pub(super) mod samples {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use std::process::{Command, Stdio};

    use super::Program;

    pub(in crate::capture) const EXPRESSIONS: &[&str] = &[
        "ip",
        "ip6",
        "arp",
        "tcp",
        "udp",
        "sctp",
        "icmp",
        "port 80",
        "tcp port 80",
        "dst port 53",
        "src port 53",
        "host 10.0.0.2",
        "src host 10.0.0.2",
        "net 10.0.0.0/8",
        "tcp[tcpflags] & (tcp-syn|tcp-rst) != 0",
        "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
        "ip[6:2] & 0x1fff != 0",
        "greater 60",
        "less 40",
        "portrange 50-90",
        "not port 80 and not arp",
        "ether src 02:00:00:00:00:01",
        "ip proto 1",
        "ip6 proto 6",
        "ip[8] < 65",
        "len / 7 = 8",
        "len % 2 = 1",
        "ip[0] & 0xf != 5 and ip[2:2] * 2 > 100 - 3",
        "ether[12:2] < 1500",
        "tcp[13] ^ 2 = 0x10",
        "tcp[13] << 1 = 36 or udp[0:2] | 1 = 53",
        "src net fd00::/8",
    ];

    /// Frames of several kinds: DNS, TCP with options and flags, fragments, IPv6, ARP, short ones.
    pub(in crate::capture) fn frames() -> Vec<Vec<u8>> {
        let ethernet = |kind: &str, rest: &[u8]| [&hex("0200000000020200000000 01")[..], &hex(kind), rest].concat();
        let ip = |fragment: &str, protocol: u8, rest: &[u8]| {
            let length = (24 + rest.len()) as u16;
            let head = [&[0x46, 0], &length.to_be_bytes()[..], &hex("0007"), &hex(fragment), &[64, protocol]].concat();
            ethernet("0800", &[&head[..], &hex("0000 0a000001 0a000002 01010101"), rest].concat())
        };
        let tcp = |from: u16, to: u16, flags: u8, data: &[u8]| {
            let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
            [&ports[..], &hex("00000001 00000002 60"), &[flags], &hex("ffff 0000 0000 01010101"), data].concat()
        };
        let udp =
            |from: u16, to: u16| [&from.to_be_bytes()[..], &to.to_be_bytes(), &hex("000c 0000 61626364")].concat();
        let v6 = |next: u8, rest: &[u8]| {
            let length = (rest.len() as u16).to_be_bytes();
            let ends = hex("fd000000000000000000000000000001 fd000000000000000000000000000002");
            ethernet("86dd", &[&hex("60000000")[..], &length, &[next, 64], &ends, rest].concat())
        };
        let mut frames = vec![
            ip("0000", 17, &udp(1024, 53)),
            ip("4000", 6, &tcp(80, 40_000, 0x12, b"")),
            ip("4000", 6, &tcp(40_000, 80, 0x18, b"GET / HTTP/1.1\r\n")),
            ip("4000", 6, &tcp(443, 443, 0x04, b"x")),
            ip("2000", 17, &udp(53, 1024)),
            ip("0005", 17, b"the rest of a datagram"),
            ip("0000", 1, &hex("0800 0000 0001 0001")),
            ip("0000", 132, &udp(80, 81)),
            v6(17, &udp(53, 5353)),
            v6(6, &tcp(80, 1, 0x02, b"")),
            v6(44, &hex("11000001 00000001")),
            ethernet("0806", &hex("0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002")),
            ethernet("88b5", b"experimental"),
            ethernet("0026", &hex("424203")),
        ];
        let short: Vec<_> = [14, 20, 30, 40].iter().map(|length| frames[2][..*length].to_vec()).collect();
        frames.extend(short);
        frames
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    /// As tcpdump compiles it for Ethernet.
    pub(in crate::capture) fn compile(expression: &str) -> Program {
        let mut command = Command::new("tcpdump");
        let output = command.args(["-y", "EN10MB", "-ddd", expression]).stderr(Stdio::null()).output().unwrap();
        Program::parse(&String::from_utf8(output.stdout).unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use std::process::Command;

    use super::samples::{EXPRESSIONS, frames};
    use super::*;

    /// The frames that tcpdump lets through, by number.
    fn by_tcpdump(expression: &str, frames: &[Vec<u8>]) -> Vec<usize> {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let word = |file: &mut tempfile::NamedTempFile, word: u32| file.write_all(&word.to_ne_bytes()).unwrap();
        for field in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1] {
            word(&mut file, field);
        }
        for (number, frame) in frames.iter().enumerate() {
            for field in [number as u32, 0, frame.len() as u32, frame.len() as u32] {
                word(&mut file, field);
            }
            file.write_all(frame).unwrap();
        }
        let output = Command::new("tcpdump").args(["-ttnr"]).arg(file.path()).arg(expression).output().unwrap();
        assert!(output.status.success(), "{expression}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let number = |line: &str| line.split_once('.').and_then(|(number, _)| number.parse().ok());
        text.lines().filter(|line| !line.starts_with('\t')).filter_map(number).collect()
    }

    fn compile(expression: &str) -> Filter {
        Filter::new(&samples::compile(expression))
    }

    #[test]
    fn agrees_with_tcpdump() {
        let frames = frames();
        let mut matches = 0;
        for expression in EXPRESSIONS {
            let filter = compile(expression);
            let accepts = |frame: &Vec<u8>| filter.run(&View::ethernet(frame, frame.len() as u32, 1, false)) > 0;
            let ours: Vec<usize> = (0..frames.len()).filter(|number| accepts(&frames[*number])).collect();
            assert_eq!(ours, by_tcpdump(expression, &frames), "{expression}");
            matches += ours.len();
            // What matches is what would match without the Ethernet header, unless that is what is asked about.
            if !expression.contains("len") && !expression.contains("er ") && !expression.contains("less") {
                let is_ip = |frame: &[u8]| frame.len() > 14 && matches!(frame[12..14], [8, 0] | [0x86, 0xdd]);
                for frame in frames.iter().filter(|frame| is_ip(frame)) {
                    let raw = View::raw(&frame[14..], frame.len() as u32 - 14, 1, false);
                    assert_eq!(filter.run(&raw) > 0, accepts(frame), "{expression}");
                }
            }
        }
        assert!(matches > 100, "{matches}");
    }

    #[test]
    fn a_tag_is_not_in_the_way() {
        let plain = &frames()[2];
        let tagged = [&plain[..12], &[0x81, 0, 0x20, 7], &plain[12..]].concat();
        for (expression, accepts) in [("tcp port 80", true), ("ip", true), ("vlan 7", false)] {
            let filter = compile(expression);
            let view = View::ethernet(&tagged, tagged.len() as u32, 1, false);
            assert_eq!(filter.run(&view) > 0, accepts, "{expression}");
        }
        // As libpcap compiles `vlan 7` for a live capture.
        let live =
            Program::parse("6,48 0 0 4294963248,21 0 3 1,48 0 0 4294963244,84 0 0 4095,6 0 0 9,6 0 0 0").unwrap();
        let view = View::ethernet(&tagged, tagged.len() as u32, 1, false);
        assert_eq!((view.len, view.load(10, 4)), (plain.len() as u32, Some(0x0001_0800)));
        assert_eq!(Filter::new(&live).run(&view), 9);
        assert_eq!(Filter::new(&live).run(&View::ethernet(plain, 9, 1, false)), 0);
    }

    #[test]
    fn what_cannot_be_computed_rejects() {
        for program in ["3,1 0 0 0,60 0 0 0,6 0 0 1", "2,32 0 0 4294836224,6 0 0 1", "2,80 0 0 4294967295,6 0 0 1"] {
            let filter = Filter::new(&Program::parse(program).unwrap());
            assert_eq!(filter.run(&View::ethernet(&[1, 2, 3], 3, 1, false)), 0, "{program}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_program_that_passes_ends_without_panic(
            lines in proptest::collection::vec((0_u16..0xb8, 0_u8..4, 0_u8..4, proptest::num::u32::ANY, 0_u32..40), 1..40),
            data in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
            small in proptest::bool::ANY,
        ) {
            let mut text = format!("{}", lines.len() + 1);
            for (code, jt, jf, k, little) in &lines {
                let operand = if small { little } else { k };
                text.extend([",", &[code.to_string(), jt.to_string(), jf.to_string(), operand.to_string()].join(" ")]);
            }
            text.push_str(",6 0 0 1");
            if let Ok(program) = Program::parse(&text) {
                let filter = Filter::new(&program);
                let _ = filter.run(&View::ethernet(&data, 80, 1, true));
                let _ = filter.run(&View::raw(&data, 80, 1, true));
            }
        }
    }
}
