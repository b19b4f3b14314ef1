//! The engine: one frame in, the entries that it completes out.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hashbrown::HashMap;

use super::Counts;
use crate::capture::Frame;
use crate::dissect::{Delivery, Driver, Ends, Message, Options, Pairer, Role, Transport, is_server_port};
use crate::entry::{Direction, Endpoint, Entry, Timestamp};
use crate::flow::decode::{Decoder, Undecoded};
use crate::flow::reassembly::{Piece, Reassembly, Stamp};
use crate::flow::sctp::{self, Association};
use crate::flow::{Packet, Payload, Segment};

/// The most flows held at once; past it the quietest eighth is closed.
const MAX_FLOWS: usize = 100_000;
/// How often, in nanoseconds of capture time, quiet flows are looked for.
const SWEEP_EVERY: i64 = 5_000_000_000;
/// A UDP or ICMP flow is over when nothing came for so long: its questions stand unanswered.
const DATAGRAM_IDLE: i64 = 30_000_000_000;
/// A TCP connection or an SCTP association is forgotten when nothing came for so long.
const TCP_IDLE: i64 = 3600 * 1_000_000_000;
/// A closed TCP connection is remembered for so long, so that late repetitions start no new one.
const TCP_LINGER: i64 = 60_000_000_000;

/// The IP protocol number of SCTP.
const SCTP: u8 = 132;

/// Which flows an engine dissects, when several share a capture: each sees all frames.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// From 0.
    pub index: u64,
    /// How many there are.
    pub count: u64,
}

impl Shard {
    /// All flows.
    pub const ALL: Self = Self { index: 0, count: 1 };
}

/// An entry with its place in the order of the capture.
#[derive(Debug)]
pub struct Produced {
    /// The frame that completed it, and the first frame of its flow: the same whatever the sharding.
    pub order: (u64, u64),
    /// The entry, without its id.
    pub entry: Entry,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    tap: u32,
    transport: u8,
    low: (IpAddr, u16),
    high: (IpAddr, u16),
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.mixed());
    }
}

impl Key {
    /// The flow's key, and which side (0 = low, 1 = high) is `src`.
    fn new(tap: u32, transport: u8, src: (IpAddr, u16), dst: (IpAddr, u16)) -> (Self, usize) {
        if src <= dst {
            (Self { tap, transport, low: src, high: dst }, 0)
        } else {
            (Self { tap, transport, low: dst, high: src }, 1)
        }
    }

    /// A hash that is the same in every run, so that sharding is.
    fn mixed(&self) -> u64 {
        let mut hash = u64::from(self.tap) << 8 | u64::from(self.transport);
        let mut mix = |word: u64| {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        };
        for (ip, port) in [&self.low, &self.high] {
            match ip {
                IpAddr::V4(ip) => mix(u64::from(ip.to_bits()) << 16 | u64::from(*port)),
                IpAddr::V6(ip) => {
                    let bits = ip.to_bits();
                    mix((bits >> 64) as u64);
                    mix(bits as u64);
                    mix(u64::from(*port));
                }
            }
        }
        hash
    }

    fn ends(&self, client_side: usize) -> Ends {
        let low = Endpoint::new(self.low.0, self.low.1);
        let high = Endpoint::new(self.high.0, self.high.1);
        let (client, server) = if client_side == 0 { (low, high) } else { (high, low) };
        Ends { client, server, tap: self.tap }
    }
}

/// One 5-tuple.
struct Flow {
    key: Key,
    client_side: usize,
    /// Sequence number of the client's SYN, if it was seen.
    syn: Option<u32>,
    certain: bool,
    first_frame: u64,
    last_seen: Timestamp,
    reassembly: Reassembly,
    /// Of SCTP.
    association: Option<Box<Association>>,
    /// From the first payload on; gone when the flow is over.
    dissection: Option<Box<Dissection>>,
}

struct Dissection {
    driver: Driver,
    pairer: Pairer,
    /// Directions that lack bytes.
    broken: [bool; 2],
}

/// Turns frames into entries. Time comes from frames only: the same frames give the same entries.
pub struct Engine {
    options: Options,
    shard: Shard,
    decoder: Decoder,
    flows: HashMap<Key, Flow>,
    next_sweep: Timestamp,
    counts: Counts,
    messages: Vec<Message>,
    out: Vec<Produced>,
}

impl Engine {
    /// An engine for the flows of `shard`.
    #[must_use]
    pub fn new(options: Options, shard: Shard) -> Self {
        Self {
            options,
            shard,
            decoder: Decoder::default(),
            flows: HashMap::new(),
            next_sweep: Timestamp(i64::MIN),
            counts: Counts::default(),
            messages: Vec::new(),
            out: Vec::new(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes the entries that came out since the last call.
    pub fn take(&mut self) -> Vec<Produced> {
        std::mem::take(&mut self.out)
    }

    /// Takes one frame, captured at `tap` (a pod; 0 where pods are not known) on an interface of link type `link`.
    pub fn frame(&mut self, frame: &Frame<'_>, link: u32, tap: u32) {
        self.counts.packets += 1;
        self.counts.bytes += frame.data.len() as u64;
        self.counts.cut += u64::from((frame.data.len() as u64) < u64::from(frame.len));
        if frame.time >= self.next_sweep {
            self.sweep(frame);
        }
        let stamp = Stamp { time: frame.time, packet: frame.number, position: 0 };
        let packet = match self.decoder.decode(link, frame.data, frame.len, frame.time) {
            Ok(packet) => packet,
            Err(why) => {
                *match why {
                    Undecoded::NotIp => &mut self.counts.not_ip,
                    Undecoded::Link => &mut self.counts.unknown_link,
                    Undecoded::Malformed => &mut self.counts.malformed,
                    Undecoded::Fragment => return,
                } += 1;
                return;
            }
        };
        let Packet { addresses, payload } = packet;
        let (transport, src_port, dst_port) = match &payload {
            Payload::Tcp(segment) => (6, segment.src_port, segment.dst_port),
            Payload::Udp { src_port, dst_port, .. } => (17, *src_port, *dst_port),
            Payload::Sctp { src_port, dst_port, .. } => (SCTP, *src_port, *dst_port),
            Payload::Icmp { v6: false, .. } => (1, 0, 0),
            Payload::Icmp { v6: true, .. } => (58, 0, 0),
            Payload::Other(_) => return,
        };
        let (key, side) = Key::new(tap, transport, (addresses.src, src_port), (addresses.dst, dst_port));
        if self.shard.count > 1 && key.mixed() % self.shard.count != self.shard.index {
            return;
        }
        let mut context = Context {
            options: &self.options,
            counts: &mut self.counts,
            messages: &mut self.messages,
            out: &mut self.out,
            frame: frame.number,
        };
        let flows = &mut self.flows;
        // A fault in a dissector costs its flow, not the capture. What it may have left half done goes with the flow.
        let outcome = catch_unwind(AssertUnwindSafe(|| match payload {
            Payload::Tcp(segment) => tcp(flows, key, side, &segment, stamp, &mut context),
            Payload::Udp { data, .. } => datagram(flows, key, side, Transport::Udp, data, stamp, &mut context),
            Payload::Sctp { chunks, .. } => sctp(flows, key, side, chunks, stamp, &mut context),
            Payload::Icmp { data, .. } => datagram(flows, key, side, Transport::Icmp, data, stamp, &mut context),
            Payload::Other(_) => {}
        }));
        if outcome.is_err() {
            self.flows.remove(&key);
            self.messages.clear();
            self.counts.faults += 1;
        }
    }

    /// There are new keys: flows that waited for them go on.
    pub fn rekey(&mut self, last_frame: u64) {
        let mut waiting: Vec<&mut Flow> = self.flows.values_mut().filter(|flow| flow.is_waiting()).collect();
        waiting.sort_unstable_by_key(|flow| flow.first_frame);
        let mut context = Context {
            options: &self.options,
            counts: &mut self.counts,
            messages: &mut self.messages,
            out: &mut self.out,
            frame: last_frame,
        };
        for flow in waiting {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let Some(dissection) = &mut flow.dissection else { return };
                dissection.driver.wake(context.options, context.messages);
                dissection.settle(&flow.key, flow.client_side, flow.first_frame, None, &mut context);
                flow.finish_if_over(&mut context);
            }));
            if outcome.is_err() {
                flow.dissection = None;
                context.messages.clear();
                context.counts.faults += 1;
            }
        }
    }

    /// Ends all flows: what stands open becomes entries.
    pub fn finish(&mut self, last_frame: u64) {
        self.close(|_| true, last_frame);
        self.counts.fragments = self.decoder.incomplete();
    }

    /// Closes quiet flows, and the quietest where there are too many.
    fn sweep(&mut self, frame: &Frame<'_>) {
        let now = frame.time;
        self.next_sweep = Timestamp(now.0.saturating_add(SWEEP_EVERY));
        self.close(
            |flow| {
                let idle = now.since(flow.last_seen);
                match flow.key.transport {
                    6 if flow.reassembly.is_over() => idle > TCP_LINGER,
                    6 | SCTP => idle > TCP_IDLE,
                    _ => idle > DATAGRAM_IDLE,
                }
            },
            frame.number,
        );
        if self.flows.len() > MAX_FLOWS {
            let mut seen: Vec<_> = self.flows.values().map(|flow| (flow.last_seen, flow.first_frame)).collect();
            let (_, limit, _) = seen.select_nth_unstable(MAX_FLOWS / 8);
            let limit = *limit;
            let before = self.flows.len();
            self.close(|flow| (flow.last_seen, flow.first_frame) < limit, frame.number);
            self.counts.evicted += (before - self.flows.len()) as u64;
        }
    }

    /// Finishes and forgets the flows that `over` picks, oldest first.
    fn close(&mut self, over: impl Fn(&Flow) -> bool, frame: u64) {
        let mut closed: Vec<Flow> = self.flows.extract_if(|_, flow| over(flow)).map(|(_, flow)| flow).collect();
        closed.sort_unstable_by_key(|flow| flow.first_frame);
        let mut context = Context {
            options: &self.options,
            counts: &mut self.counts,
            messages: &mut self.messages,
            out: &mut self.out,
            frame,
        };
        for mut flow in closed {
            flow.finish(&mut context);
        }
    }
}

/// What the handling of a flow needs of its engine.
struct Context<'a> {
    options: &'a Options,
    counts: &'a mut Counts,
    messages: &'a mut Vec<Message>,
    out: &'a mut Vec<Produced>,
    frame: u64,
}

fn tcp(
    flows: &mut HashMap<Key, Flow>,
    key: Key,
    side: usize,
    segment: &Segment<'_>,
    stamp: Stamp,
    cx: &mut Context<'_>,
) {
    let opens = segment.flags.syn && !segment.flags.ack;
    if opens
        && let Some(flow) = flows.get_mut(&key)
        && flow.syn != Some(segment.seq)
    {
        // The port is used again.
        flow.finish(cx);
        flows.remove(&key);
    }
    let flow = flows.entry(key).or_insert_with(|| {
        cx.counts.flows += 1;
        let (client_side, certain) = match (segment.flags.syn, segment.flags.ack) {
            (true, false) => (side, true),
            (true, true) => (1 - side, true),
            _ => (guess_client(&key, side, cx.options), false),
        };
        Flow::new(key, client_side, certain, stamp)
    });
    if opens {
        flow.syn = Some(segment.seq);
    }
    flow.last_seen = stamp.time;
    flow.reassemble(Some((side, segment, stamp)), cx);
    flow.finish_if_over(cx);
}

fn datagram(
    flows: &mut HashMap<Key, Flow>,
    key: Key,
    side: usize,
    transport: Transport,
    data: &[u8],
    stamp: Stamp,
    cx: &mut Context<'_>,
) {
    let flow = flows.entry(key).or_insert_with(|| {
        cx.counts.flows += 1;
        Flow::new(key, first_client(&key, side), false, stamp)
    });
    flow.last_seen = stamp.time;
    flow.datagram(side, transport, data, stamp, cx);
}

/// The chunks of an SCTP packet.
fn sctp(flows: &mut HashMap<Key, Flow>, key: Key, side: usize, chunks: &[u8], stamp: Stamp, cx: &mut Context<'_>) {
    let effect = sctp::effect(chunks);
    if effect.opens
        && let Some(mut flow) = flows.remove(&key)
    {
        // The ports are used again.
        flow.finish(cx);
    }
    let flow = flows.entry(key).or_insert_with(|| {
        cx.counts.flows += 1;
        Flow::new(key, if effect.opens { side } else { first_client(&key, side) }, effect.opens, stamp)
    });
    flow.last_seen = stamp.time;
    let mut association = flow.association.take().unwrap_or_default();
    association.packet(side, chunks, &mut |message| flow.datagram(side, Transport::Sctp, message, stamp, cx));
    flow.association = Some(association);
    if effect.ends {
        flow.finish(cx);
        flows.remove(&key);
    }
}

/// Which side is the client of datagrams: whoever speaks first asks, unless it speaks from a server's port to one that is none.
fn first_client(key: &Key, side: usize) -> usize {
    let (src, dst) = if side == 0 { (key.low.1, key.high.1) } else { (key.high.1, key.low.1) };
    let answers = is_server_port(src) && !is_server_port(dst);
    if answers { 1 - side } else { side }
}

/// Which side is the client of a connection whose handshake was not seen: not the one on a server's port, be it the usual
/// one of a protocol or one that the user named.
fn guess_client(key: &Key, sender: usize, options: &Options) -> usize {
    let serves = |port| is_server_port(port) || options.decode_as.iter().any(|(named, _)| *named == port);
    match (serves(key.low.1), serves(key.high.1)) {
        (true, false) => 1,
        (false, true) => 0,
        _ if key.low.1 == key.high.1 => sender,
        _ => usize::from(key.low.1 < key.high.1),
    }
}

impl Flow {
    fn new(key: Key, client_side: usize, certain: bool, stamp: Stamp) -> Self {
        Self {
            key,
            client_side,
            syn: None,
            certain,
            first_frame: stamp.packet,
            last_seen: stamp.time,
            reassembly: Reassembly::default(),
            association: None,
            dissection: None,
        }
    }

    /// Reassembles with one more segment, or to the end without, and dissects what comes out.
    fn reassemble(&mut self, segment: Option<(usize, &Segment<'_>, Stamp)>, cx: &mut Context<'_>) {
        let Self { key, reassembly, dissection, client_side, certain, first_frame, .. } = self;
        let mut dissect = |side, piece: Piece<'_>| {
            let direction = if side == *client_side { Direction::ToServer } else { Direction::ToClient };
            if dissection.is_none() && !matches!(piece, Piece::Chunk(..)) {
                return;
            }
            let dissection = dissection.get_or_insert_with(|| {
                let Ends { client, server, .. } = key.ends(*client_side);
                let delivery = Delivery {
                    transport: Transport::Tcp,
                    port: server.port,
                    start: *certain,
                    certain: *certain,
                    addresses: [client.ip, server.ip],
                    hint: None,
                    depth: 0,
                };
                Dissection::new(delivery, cx.options)
            });
            dissection.piece(key, *client_side, *first_frame, direction, piece, cx);
        };
        match segment {
            Some((side, segment, stamp)) => reassembly.segment(side, segment, stamp, &mut dissect),
            None => reassembly.finish(&mut dissect),
        }
    }

    /// Dissects one datagram, or one message of SCTP.
    fn datagram(&mut self, side: usize, transport: Transport, data: &[u8], stamp: Stamp, cx: &mut Context<'_>) {
        let Self { key, client_side, certain, first_frame, dissection, .. } = self;
        let direction = if side == *client_side { Direction::ToServer } else { Direction::ToClient };
        let dissection = dissection.get_or_insert_with(|| {
            let Ends { client, server, .. } = key.ends(*client_side);
            let addresses = [client.ip, server.ip];
            let (port, certain) = (server.port, *certain);
            let delivery = Delivery { transport, port, start: true, certain, addresses, hint: None, depth: 0 };
            Dissection::new(delivery, cx.options)
        });
        dissection.piece(key, *client_side, *first_frame, direction, Piece::Chunk(data, stamp), cx);
    }

    /// True while its bytes wait for something else than bytes.
    fn is_waiting(&self) -> bool {
        self.dissection.as_ref().is_some_and(|dissection| dissection.driver.is_waiting())
    }

    fn finish_if_over(&mut self, cx: &mut Context<'_>) {
        if self.reassembly.is_over() && !self.is_waiting() {
            self.finish(cx);
        }
    }

    /// Hands on everything that still waits, and forgets all but that the flow was there.
    fn finish(&mut self, cx: &mut Context<'_>) {
        // What waited for bytes that never came may be all that the flow has.
        self.reassemble(None, cx);
        let Some(mut dissection) = self.dissection.take() else { return };
        let Self { key, client_side, first_frame, .. } = self;
        for direction in [Direction::ToServer, Direction::ToClient] {
            dissection.piece(key, *client_side, *first_frame, direction, Piece::Cut, cx);
        }
        let order = (cx.frame, *first_frame);
        let ends = dissection.ends(key, *client_side);
        let Dissection { driver, pairer, .. } = &mut *dissection;
        pairer.finish(&ends, &mut |entry| produce(driver, order, entry, cx.out));
        let outcome = driver.outcome();
        cx.counts.unknown_flows += u64::from(outcome.unknown);
        cx.counts.malformed_flows += u64::from(outcome.malformed > 0);
        cx.counts.undecrypted += outcome.undecrypted;
        cx.counts.remains += pairer.remains();
    }
}

impl Dissection {
    fn new(delivery: Delivery, options: &Options) -> Box<Self> {
        Box::new(Self { driver: Driver::new(delivery, options), pairer: Pairer::default(), broken: [false; 2] })
    }

    /// The flow's ends, now that the driver may know better who is the client.
    fn ends(&self, key: &Key, client_side: usize) -> Ends {
        key.ends(if self.driver.reversed() { 1 - client_side } else { client_side })
    }

    fn piece(
        &mut self,
        key: &Key,
        client_side: usize,
        first_frame: u64,
        direction: Direction,
        piece: Piece<'_>,
        cx: &mut Context<'_>,
    ) {
        let mut lost = None;
        match piece {
            Piece::Chunk(data, stamp) => self.driver.data(direction, data, stamp, cx.options, cx.messages),
            Piece::Gap(len) => {
                cx.counts.gaps += 1;
                cx.counts.gap_bytes += len;
                if let Some(broken) = self.broken.get_mut(direction.index()) {
                    *broken = true;
                }
                lost = self.driver.gap(direction, len, cx.options, cx.messages);
            }
            Piece::End => self.driver.close(direction, false, cx.options, cx.messages),
            Piece::Cut => self.driver.close(direction, true, cx.options, cx.messages),
        }
        self.settle(key, client_side, first_frame, lost, cx);
    }

    /// Pairs the messages that came out; `lost`: those of this direction may be missing.
    fn settle(
        &mut self,
        key: &Key,
        client_side: usize,
        first_frame: u64,
        lost: Option<Direction>,
        cx: &mut Context<'_>,
    ) {
        if cx.messages.is_empty() && lost.is_none() {
            return;
        }
        let ends = self.ends(key, client_side);
        let order = (cx.frame, first_frame);
        let repeats = self.driver.repeats();
        let Self { driver, pairer, broken } = self;
        for message in cx.messages.drain(..) {
            let protocol = driver.row_protocol(&message);
            let sender = if driver.reversed() { message.direction.reverse() } else { message.direction };
            if message.role == Role::Lost
                && let Some(broken) = broken.get_mut(sender.index())
            {
                *broken = true;
            }
            let broken = broken.get(sender.index()) == Some(&true);
            pairer
                .message(protocol, repeats, broken, message, &ends, &mut |entry| produce(driver, order, entry, cx.out));
        }
        if let Some(direction) = lost {
            pairer.gap(direction, &ends, &mut |entry| produce(driver, order, entry, cx.out));
        }
    }
}

fn produce(driver: &mut Driver, order: (u64, u64), mut entry: Entry, out: &mut Vec<Produced>) {
    entry.warnings.extend(driver.take_warning());
    out.push(Produced { order, entry });
}
