//! Writes pcapng blocks: the agent's wire format and the plugin's save format. No dependency.
//!
//! Each function appends one whole block to a buffer, little-endian, times in nanoseconds since the Unix epoch. The
//! format is draft-ietf-opsawg-pcapng; section numbers below are those of its revision 03.
//!
//! # Blocks of ours
//!
//! What an agent says besides packets travels in custom blocks (§4.8) of the "copiable" type `0x00000BAD` under the
//! private enterprise number 32473 (RFC 5612: for documentation). Their data is a `u32` in little-endian that tells the
//! kind, then JSON in UTF-8, filled up with zero bytes to a multiple of four:
//!
//! | kind | when | JSON |
//! |---|---|---|
//! | 1 hello | after the section header | `version`, `protocol` (1), `boot`, `pod`, `first`, `next`, `interfaces`, `filter`, `snaplen`, `buffer`, `filtered` |
//! | 2 flushed | in place of packets that the master PCAP no longer had | `from` (number of the first), `count` |
//! | 3 end | last, if the stream ends on purpose | `next` (the number of the first packet that is not in it, nor ever was), `why`; `asked` (true) if the client asked for no more, while the agent goes on |
//! | 4 filtered | behind packets of a session that has a filter of its own | `from`, `next`, `count`: of the packets from number `from` up to, not including, `next`, the filter left out `count`; all others of them were sent before this block, none was flushed |
//! | 5 probes | if there are probes for TLS keys: after the hello, and when something of it has changed; before the hello each second, as long as it waits for them | `scanned`, `files`, `keys`, `lost`, `unmatched`, `unknown`, `refused`, `sockets`, `outside`, as `sniff-agent status` has them |
//!
//! The hello of a session with a filter of its own has `filtered` true: numbers that it lacks are lost only if the notes do not cover them. What
//! notes follow has no gap and no overlap: one starts where the one before ended, or behind packets flushed in between.
//!
//! Readers that do not know the number skip them.

use std::net::IpAddr;

/// Private enterprise number of our custom blocks.
pub const ENTERPRISE: u32 = 32473;

/// The most bytes that a packet block needs besides the frame itself: its fixed fields, padding and all options.
pub const PACKET_OVERHEAD: usize = PACKET_HEAD + PACKET_TAIL;

/// What is before the data of a packet.
const PACKET_HEAD: usize = 28;

/// The most that follows the data of a packet: padding, all options, length of the block.
const PACKET_TAIL: usize = 3 + 8 + 12 + 12 + 4 + 4;

/// Version of what the custom blocks say, as in a hello.
pub const PROTOCOL: u32 = 1;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const NAMES: u32 = 4;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const SECRETS: u32 = 10;
const CUSTOM: u32 = 0x0bad;

/// The head of the option that tells a packet's direction: code 2, of four bytes.
const FLAGS: u32 = 4 << 16 | 2;

/// What the description of an interface starts with whose packets are plaintext of TLS connections, before the probe's name: they
/// have the addresses and ports of the encrypted ones, and nobody has sent them so.
pub const PLAINTEXT: &str = "plaintext of TLS connections, by ";

/// Type of secrets: a TLS key log as `SSLKEYLOGFILE` has it ("TLSK").
const TLS_KEY_LOG: u32 = 0x544c_534b;

/// Which way a frame crossed its interface (`epb_flags`, §4.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Not known: no flags are written.
    #[default]
    Unknown,
    /// Received.
    Inbound,
    /// Sent.
    Outbound,
}

/// An interface, as an interface description block (§4.2) tells it.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// Its name; a pod's is `namespace/pod:eth0`.
    pub name: &'a str,
    /// From which probe its packets are, as rows say, if they are plaintext of TLS connections: the description says so.
    pub origin: Option<&'a str>,
    /// Link type by its number in the tcpdump.org registry (1 = Ethernet).
    pub link: u16,
    /// The most bytes kept of a frame; 0 = all.
    pub snaplen: u32,
    /// The capture filter's text.
    pub filter: Option<&'a str>,
}

/// A frame, as an enhanced packet block (§4.3) holds it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packet<'a> {
    /// Index of its interface in this section.
    pub interface: u32,
    /// When it was captured.
    pub time: u64,
    /// Its length on the wire.
    pub len: u32,
    /// The bytes captured, in pieces, so that what was cut out of a frame can be put back without a copy.
    pub data: &'a [&'a [u8]],
    /// Which way it went.
    pub direction: Direction,
    /// Its number (`epb_packetid`).
    pub id: Option<u64>,
    /// Frames of this interface lost since the previous one; written unless 0.
    pub dropped: u64,
}

/// Counters of an interface since its capture began, as in a statistics block (§4.6).
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Index of the interface in this section.
    pub interface: u32,
    /// When the counters were read.
    pub time: u64,
    /// When the capture began.
    pub start: u64,
    /// Frames that passed the capture filter.
    pub received: u64,
    /// Frames lost for want of room.
    pub dropped: u64,
}

/// Starts a section (§4.1) of unknown length, written by `application`.
pub fn section(out: &mut Vec<u8>, application: &str) {
    block(out, SECTION, |out| {
        u32(out, 0x1a2b_3c4d);
        u16(out, 1);
        u16(out, 0);
        u64(out, u64::MAX);
        option(out, 4, application.as_bytes());
        end_of_options(out);
    });
}

/// Describes the section's next interface; its timestamps are in nanoseconds.
pub fn interface(out: &mut Vec<u8>, interface: &Interface<'_>) {
    block(out, INTERFACE, |out| {
        u16(out, interface.link);
        u16(out, 0);
        u32(out, interface.snaplen);
        if !interface.name.is_empty() {
            option(out, 2, interface.name.as_bytes());
        }
        if let Some(origin) = interface.origin {
            option(out, 3, format!("{PLAINTEXT}{origin}").as_bytes());
        }
        option(out, 9, &[9]);
        if let Some(filter) = interface.filter.filter(|filter| !filter.is_empty()) {
            // The first byte says that a string of pcap-filter syntax follows.
            option(out, 11, &[&[0], filter.as_bytes()].concat());
        }
        end_of_options(out);
    });
}

/// Appends a packet: at most its data and [`PACKET_OVERHEAD`] bytes.
pub fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    // Written at one go around the data, not by field: this is done for every packet, and small copies add up.
    let captured = packet.data.iter().map(|piece| piece.len()).sum::<usize>();
    let flags = match packet.direction {
        Direction::Unknown => None,
        Direction::Inbound => Some(1),
        Direction::Outbound => Some(2),
    };
    let mut options = Tail::new(captured);
    if let Some(flags) = flags {
        options.words([FLAGS, flags]);
    }
    if packet.dropped > 0 {
        options.words([8 << 16 | 4, packet.dropped as u32, (packet.dropped >> 32) as u32]);
    }
    if let Some(id) = packet.id {
        options.words([8 << 16 | 5, id as u32, (id >> 32) as u32]);
    }
    if flags.is_some() || packet.dropped > 0 || packet.id.is_some() {
        options.words([0]);
    }
    let length = (PACKET_HEAD + captured + options.length + 4) as u32;
    options.words([length]);

    let time = packet.time;
    let head = [PACKET, length, packet.interface, (time >> 32) as u32, time as u32, captured as u32, packet.len];
    out.reserve(captured + PACKET_OVERHEAD);
    out.extend_from_slice(head.map(u32::to_le_bytes).as_flattened());
    for piece in packet.data {
        append(out, piece);
    }
    // A copy of constant length, of which what is too much is cut off again.
    out.extend_from_slice(&options.bytes);
    out.truncate(out.len() - (PACKET_TAIL - options.length));
}

/// Appends bytes by moves that are compiled in here, if they are few: musl's `memcpy`, which the agent is linked with, takes
/// longer to begin than to copy what a packet usually is.
fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    const FEW: usize = 1024;
    if bytes.len() > FEW {
        out.extend_from_slice(bytes);
        return;
    }
    let (long, rest) = bytes.as_chunks::<64>();
    for chunk in long {
        out.extend_from_slice(chunk);
    }
    let (short, rest) = rest.as_chunks::<8>();
    for chunk in short {
        out.extend_from_slice(chunk);
    }
    for byte in rest {
        out.push(*byte);
    }
}

/// What follows the data of a packet: padding, options, length of the block.
struct Tail {
    bytes: [u8; PACKET_TAIL],
    length: usize,
}

impl Tail {
    /// Starts with the padding of so many bytes of data.
    fn new(captured: usize) -> Self {
        Self { bytes: [0; PACKET_TAIL], length: captured.next_multiple_of(4) - captured }
    }

    fn words<const N: usize>(&mut self, words: [u32; N]) {
        for word in words {
            if let Some(place) = self.bytes.get_mut(self.length..self.length + 4) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            self.length += 4;
        }
    }
}

/// Appends the counters of an interface.
pub fn statistics(out: &mut Vec<u8>, statistics: &Statistics) {
    block(out, STATISTICS, |out| {
        u32(out, statistics.interface);
        time(out, statistics.time);
        u16(out, 2);
        u16(out, 8);
        time(out, statistics.start);
        option(out, 4, &statistics.received.to_le_bytes());
        option(out, 5, &statistics.dropped.to_le_bytes());
        end_of_options(out);
    });
}

/// Appends names for addresses (§4.5).
pub fn names<'a>(out: &mut Vec<u8>, names: impl IntoIterator<Item = (IpAddr, &'a str)>) {
    block(out, NAMES, |out| {
        for (address, name) in names {
            match address {
                IpAddr::V4(v4) => option(out, 1, &[&v4.octets(), name.as_bytes(), &[0]].concat()),
                IpAddr::V6(v6) => option(out, 2, &[&v6.octets(), name.as_bytes(), &[0]].concat()),
            }
        }
        end_of_options(out);
    });
}

/// Appends TLS key log lines (§4.7), with which Wireshark decrypts the packets after them.
pub fn secrets(out: &mut Vec<u8>, key_log: &[u8]) {
    block(out, SECRETS, |out| {
        u32(out, TLS_KEY_LOG);
        u32(out, key_log.len() as u32);
        out.extend_from_slice(key_log);
        pad(out, key_log.len());
    });
}

/// Appends a hello: the text is a JSON object.
pub fn hello(out: &mut Vec<u8>, json: &str) {
    ours(out, 1, json);
}

/// Appends the note that `count` packets from number `from` on were flushed before they could be read.
pub fn flushed(out: &mut Vec<u8>, from: u64, count: u64) {
    ours(out, 2, &format!("{{\"from\":{from},\"count\":{count}}}"));
}

/// Appends the note that of the packets numbered `from` up to `next`, `count` were left out by the session's filter.
pub fn filtered(out: &mut Vec<u8>, from: u64, next: u64, count: u64) {
    ours(out, 4, &format!("{{\"from\":{from},\"next\":{next},\"count\":{count}}}"));
}

/// Appends the end on purpose: the text is a JSON object.
pub fn end(out: &mut Vec<u8>, json: &str) {
    ours(out, 3, json);
}

/// A packet, as [`packet`] wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Index of its interface in the section.
    pub interface: u32,
    /// Its length on the wire.
    pub len: u32,
    /// The bytes captured.
    pub data: &'a [u8],
    /// Which way it went.
    pub direction: Direction,
}

impl<'a> Stored<'a> {
    /// Reads a block that [`packet`] wrote; none if it is something else.
    #[must_use]
    pub fn of(block: &'a [u8]) -> Option<Self> {
        let word = |at: usize| block.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let captured = word(20)? as usize;
        let data = block.get(28..28 + captured)?;
        // The flags are the first option if there are any.
        let options = 28 + captured.next_multiple_of(4);
        let direction = match (word(options), word(options + 4)) {
            (Some(FLAGS), Some(1)) => Direction::Inbound,
            (Some(FLAGS), Some(2)) => Direction::Outbound,
            _ => Direction::Unknown,
        };
        Some(Self { interface: word(8)?, len: word(24)?, data, direction })
    }
}

/// Appends a block that [`packet`] wrote, with at most `keep` bytes of its data.
pub fn cut(out: &mut Vec<u8>, block: &[u8], keep: u32) {
    let Some(Stored { data, .. }) = Stored::of(block).filter(|stored| stored.data.len() > keep as usize) else {
        out.extend_from_slice(block);
        return;
    };
    let kept = keep as usize;
    let options = block.get(28 + data.len().next_multiple_of(4)..block.len() - 4).unwrap_or_default();
    let length = (28 + kept.next_multiple_of(4) + options.len() + 4) as u32;
    let start = out.len();
    out.extend_from_slice(block.get(..28 + kept).unwrap_or_default());
    pad(out, kept);
    out.extend_from_slice(options);
    u32(out, length);
    for (at, value) in [(4, length), (20, keep)] {
        if let Some(field) = out.get_mut(start + at..start + at + 4) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Appends a custom block of ours.
/// Appends what probes for TLS keys have come to: the text is a JSON object.
pub fn probes(out: &mut Vec<u8>, json: &str) {
    ours(out, 5, json);
}

fn ours(out: &mut Vec<u8>, kind: u32, json: &str) {
    block(out, CUSTOM, |out| {
        u32(out, ENTERPRISE);
        u32(out, kind);
        out.extend_from_slice(json.as_bytes());
        pad(out, json.len());
    });
}

/// Appends a block around what `body` writes, whose length is a multiple of four.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    u32(out, kind);
    u32(out, 0);
    body(out);
    let length = (out.len() - start + 4) as u32;
    u32(out, length);
    if let Some(field) = out.get_mut(start + 4..start + 8) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

/// Appends an option, or a record of the same shape. What does not fit its 16-bit length is cut off.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    u16(out, code);
    u16(out, value.len() as u16);
    out.extend_from_slice(value);
    pad(out, value.len());
}

fn end_of_options(out: &mut Vec<u8>) {
    u32(out, 0);
}

fn pad(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + (length.next_multiple_of(4) - length), 0);
}

/// A timestamp is two words, the upper first.
fn time(out: &mut Vec<u8>, nanoseconds: u64) {
    u32(out, (nanoseconds >> 32) as u32);
    u32(out, nanoseconds as u32);
}

fn u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    /// The types and bodies of all blocks; fails unless both lengths of each agree.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let length = word(4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(length - 4) as usize, length);
            blocks.push((word(0), &bytes[8..length - 4]));
            bytes = &bytes[length..];
        }
        blocks
    }

    #[test]
    fn every_block_closes_with_its_length() {
        let mut out = Vec::new();
        section(&mut out, "sniff-agent 1");
        hello(&mut out, r#"{"protocol":1}"#);
        interface(
            &mut out,
            &Interface { name: "a/b:eth0", origin: None, link: 1, snaplen: 0, filter: Some("tcp port 80") },
        );
        packet(&mut out, &Packet { data: &[b"abc", b"de"], len: 9, ..Packet::default() });
        statistics(&mut out, &Statistics { interface: 0, time: 2, start: 1, received: 3, dropped: 4 });
        names(&mut out, [("10.0.0.1".parse().unwrap(), "front-end"), ("::1".parse().unwrap(), "x")]);
        secrets(&mut out, b"CLIENT_RANDOM 00 11\n");
        flushed(&mut out, 7, 3);
        let kinds: Vec<_> = blocks(&out).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, CUSTOM, INTERFACE, PACKET, STATISTICS, NAMES, SECRETS, CUSTOM]);
    }

    #[test]
    fn packet_is_as_the_draft_draws_it() {
        let mut out = Vec::new();
        let time = 0x0102_0304_0506_0708;
        let direction = Direction::Outbound;
        packet(
            &mut out,
            &Packet { interface: 2, time, len: 60, data: &[b"abcde"], direction, id: Some(9), dropped: 1 },
        );
        #[rustfmt::skip]
        let body = [
            2, 0, 0, 0,  4, 3, 2, 1,  8, 7, 6, 5,  5, 0, 0, 0,  60, 0, 0, 0,  b'a', b'b', b'c', b'd', b'e', 0, 0, 0,
            2, 0, 4, 0,  2, 0, 0, 0,
            4, 0, 8, 0,  1, 0, 0, 0, 0, 0, 0, 0,
            5, 0, 8, 0,  9, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0,
        ];
        assert_eq!(blocks(&out), [(PACKET, &body[..])]);
        assert!(out.len() <= 5 + PACKET_OVERHEAD);
    }

    #[test]
    fn what_is_cut_later_is_as_if_it_had_been_cut_before() {
        for (kept, direction, dropped) in
            [(0, Direction::Unknown, 0), (3, Direction::Inbound, 4), (4, Direction::Outbound, 0)]
        {
            let whole =
                Packet { interface: 7, time: 1 << 40, len: 60, data: &[b"abcde"], direction, id: Some(9), dropped };
            let (mut block, mut expected, mut out) = (Vec::new(), Vec::new(), Vec::new());
            packet(&mut block, &whole);
            assert_eq!(Stored::of(&block), Some(Stored { interface: 7, len: 60, data: b"abcde", direction }));
            packet(&mut expected, &Packet { data: &[&b"abcde"[..kept]], ..whole });
            cut(&mut out, &block, kept as u32);
            assert_eq!(out, expected);
            out.clear();
            cut(&mut out, &block, 5);
            assert_eq!(out, block);
        }
        assert_eq!(Stored::of(&[6; 30]), None);
    }

    #[test]
    fn names_end_in_a_zero_byte() {
        let mut out = Vec::new();
        names(&mut out, [("10.0.0.1".parse().unwrap(), "web")]);
        assert_eq!(blocks(&out)[0].1, [1, 0, 8, 0, 10, 0, 0, 1, b'w', b'e', b'b', 0, 0, 0, 0, 0]);
    }

    #[test]
    fn text_too_long_for_an_option_is_cut() {
        let mut out = Vec::new();
        section(&mut out, &"x".repeat(70_000));
        assert_eq!(blocks(&out)[0].1.len(), 16 + 4 + 65_536 + 4);
    }
}
