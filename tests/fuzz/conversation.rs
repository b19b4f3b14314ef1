//! What a fuzzer's bytes mean to each target; the test `seeds` writes such bytes from the fixtures and replays them.
//!
//! A conversation is a protocol, flags, then turns with a [`MARK`] and an operation between them, so that mutation changes
//! what both sides say in turn, not only what one of them says.

use std::io::Cursor;

use kubectl_sniff::capture::file::File;
use kubectl_sniff::capture::{Batch, Frame, Source};
use kubectl_sniff::dissect::{Descriptors, Options, PROTOCOLS, Protocol, Transport};
use kubectl_sniff::entry::Timestamp;
use kubectl_sniff::pipeline::{Engine, Place, Shard};

use crate::support::flow_script::{Script, Step};

/// Stands between turns, with an operation behind it.
pub const MARK: &[u8] = b"\xf5>\xf6<";

/// The operations: 0 the other side speaks, 1 the same side goes on, 2 time passes, 3 a new connection, 4 both sides close,
/// 5 to 7 bytes are missing (1, 40, 3000) of the side that speaks, 8 it breaks off, 9 the last
/// frame comes again, 10 a SYN, 11 a TLS key log, the rest as 0.
const GAPS: [u32; 3] = [1, 40, 3000];

/// The handshake was not seen.
const MID_STREAM: u8 = 1;
/// The flow is taken for the protocol whatever its bytes.
const FORCED: u8 = 2;
/// Over UDP, or SCTP, where the protocol may be.
const DATAGRAMS: u8 = 4;
/// Rows only, without detail.
const BARE: u8 = 8;
/// The server speaks first.
const SERVER_FIRST: u8 = 16;
/// Where two bits choose the size of segments.
const SIZE: u32 = 5;
const SIZES: [usize; 4] = [1460, 1, 7, 100];

/// The most bytes of one datagram.
const MOST_OF_DATAGRAM: usize = 32 * 1024;

/// A conversation, and how to dissect it.
pub struct Conversation {
    pub script: Script,
    pub options: Options,
}

/// Server ports to which no protocol lays claim, and those of protocols: what the first byte chooses from.
fn places() -> Vec<(Option<&'static Protocol>, u16)> {
    let mut places = vec![(None, 40_001)];
    for protocol in PROTOCOLS {
        places.push((Some(*protocol), protocol.ports.first().copied().unwrap_or(40_001)));
    }
    places
}

impl Conversation {
    /// What the bytes of a fuzzer mean.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[place, flags], bytes) = bytes.split_first_chunk()?;
        let places = places();
        let (protocol, port) = places[usize::from(place) % places.len()];
        let transport = protocol.map_or(Transport::Both, |protocol| protocol.transport);
        let datagrams = match transport {
            Transport::Tcp => false,
            Transport::Both | Transport::TcpOrSctp => flags & DATAGRAMS != 0,
            Transport::Udp | Transport::Sctp | Transport::Icmp => true,
        };
        let mut script = Script {
            port,
            udp: datagrams,
            icmp: transport == Transport::Icmp,
            sctp: datagrams && matches!(transport, Transport::TcpOrSctp | Transport::Sctp),
            handshake: flags & MID_STREAM == 0,
            keys: String::new(),
            descriptors: Descriptors::default(),
            steps: Vec::new(),
        };
        let size = SIZES[usize::from(flags >> SIZE) % SIZES.len()];
        let size = if datagrams { MOST_OF_DATAGRAM } else { size };
        let mut client = flags & SERVER_FIRST == 0;
        let mut rest = bytes;
        let mut connections = 0;
        let mut key_log = false;
        loop {
            let at = rest.windows(MARK.len()).position(|window| window == MARK);
            let turn = &rest[..at.unwrap_or(rest.len())];
            if std::mem::take(&mut key_log) {
                script.keys.push_str(&String::from_utf8_lossy(turn));
            } else {
                script.steps.extend(turn.chunks(size).map(|part| Step::Data(client, part.to_vec())));
            }
            let Some((operation, after)) = at.and_then(|at| rest[at + MARK.len()..].split_first()) else { break };
            rest = after;
            match operation {
                1 => {}
                2 => script.steps.push(Step::Pause(40_000_000_000)),
                3 => {
                    connections += 1;
                    script.steps.push(Step::Connect(40_000 + connections));
                }
                4 => script.steps.push(Step::Fin),
                5..=7 => script.steps.push(Step::Gap(client, GAPS[usize::from(operation - 5)])),
                8 => script.steps.push(Step::Reset(client)),
                9 => script.steps.push(Step::Again),
                10 => script.steps.push(Step::Syn),
                11 => key_log = true,
                _ => client = !client,
            }
        }
        let decode_as = protocol.filter(|_| flags & FORCED != 0).map(|protocol| (port, protocol));
        let detail = flags & BARE == 0;
        let options =
            Options { detail, decode_as: decode_as.into_iter().collect(), flows: detail, ..Options::default() };
        options.keys.add(script.keys.as_bytes());
        Some(Self { script, options })
    }

    /// The bytes that mean this script, as far as they can.
    #[allow(dead_code, reason = "seeds are written by a test")]
    pub fn encode(protocol: &str, script: &Script) -> Vec<u8> {
        let place = places()
            .iter()
            .position(|(place, port)| place.is_some_and(|place| place.name == protocol) && *port == script.port)
            .or_else(|| places().iter().position(|(place, _)| place.is_some_and(|place| place.name == protocol)));
        let first = script.steps.iter().find_map(|step| match step {
            Step::Data(client, _) | Step::Gap(client, _) => Some(*client),
            _ => None,
        });
        let mut client = first.unwrap_or(true);
        let mut flags = if script.handshake { 0 } else { MID_STREAM };
        flags |= if script.udp { DATAGRAMS } else { 0 } | if client { 0 } else { SERVER_FIRST };
        let mut bytes = vec![place.unwrap_or(0) as u8, flags];
        let mark = |bytes: &mut Vec<u8>, operation: u8| {
            bytes.extend_from_slice(MARK);
            bytes.push(operation);
        };
        if !script.keys.is_empty() {
            mark(&mut bytes, 11);
            bytes.extend_from_slice(script.keys.as_bytes());
            mark(&mut bytes, 1);
        }
        let mut spoke = false;
        for step in &script.steps {
            match step {
                Step::Data(who, data) => {
                    if *who != client {
                        client = *who;
                        mark(&mut bytes, 0);
                    } else if spoke {
                        mark(&mut bytes, 1);
                    }
                    spoke = true;
                    bytes.extend_from_slice(data);
                    continue;
                }
                Step::Gap(who, len) => {
                    if *who != client {
                        client = *who;
                        mark(&mut bytes, 0);
                    }
                    mark(&mut bytes, 5 + GAPS.iter().position(|gap| gap >= len).unwrap_or(2) as u8);
                }
                Step::Pause(_) => mark(&mut bytes, 2),
                Step::Connect(_) => mark(&mut bytes, 3),
                Step::Fin => mark(&mut bytes, 4),
                Step::Reset(_) => mark(&mut bytes, 8),
                Step::Again => mark(&mut bytes, 9),
                Step::Syn => mark(&mut bytes, 10),
            }
            spoke = false;
        }
        bytes
    }
}

/// Puts a conversation through the engine.
pub fn flows(bytes: &[u8]) {
    let Some(Conversation { script, options }) = Conversation::decode(bytes) else { return };
    let mut engine = Engine::new(options, Shard::ALL);
    let mut last = 0;
    for (time, data) in script.frames() {
        last += 1;
        let len = data.len() as u32;
        engine.frame(
            &Frame { number: last, time: Timestamp(time), interface: 0, len, data: &data },
            1,
            Place::default(),
        );
    }
    engine.finish(last);
    assert_eq!(engine.counts().faults, 0, "a dissector panicked");
    let _ = engine.take();
}

/// Puts frames of one link type, the first byte, through the engine; the second says how many bytes snaplen took of each.
pub fn frames(bytes: &[u8]) {
    let Some((&[link, missing], mut rest)) = bytes.split_first_chunk() else { return };
    let mut engine = Engine::new(Options { detail: true, flows: true, ..Options::default() }, Shard::ALL);
    let mut last = 0;
    loop {
        let at = rest.windows(MARK.len()).position(|window| window == MARK);
        let data = &rest[..at.unwrap_or(rest.len())];
        last += 1;
        let time = Timestamp(last as i64 * 1_000_000);
        let len = data.len() as u32 + u32::from(missing);
        engine.frame(&Frame { number: last, time, interface: 0, len, data }, u32::from(link), Place::default());
        let Some(at) = at else { break };
        rest = &rest[at + MARK.len()..];
    }
    engine.finish(last);
    assert_eq!(engine.counts().faults, 0, "a dissector panicked");
    let _ = engine.take();
}

/// Reads a capture file: pcap or pcapng, plain or compressed.
pub fn captures(bytes: &[u8]) {
    // What a few bytes decompress to has no end; what is kept at once is the point.
    const BATCHES: usize = 64;
    let Ok(mut file) = File::from_reader("fuzz".to_owned(), Cursor::new(bytes.to_vec()), Some(bytes.len() as u64))
    else {
        return;
    };
    let mut batch = Batch::default();
    for _ in 0..BATCHES {
        match file.next_batch(&mut batch) {
            Ok(true) => assert!(batch.frames().all(|frame| frame.data.len() <= batch.bytes.len())),
            Ok(false) | Err(_) => break,
        }
    }
    let _ = file.complaint();
}
