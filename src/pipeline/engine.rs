//! The engine: one frame in, the entries that it completes out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hashbrown::HashMap;

use super::Counts;
use super::key::Key;
use super::tally::Tally;
use crate::capture::Frame;
use crate::dissect::{Delivery, Driver, Ends, Message, Options, Pairer, Role, Transport, is_server_port};
use crate::entry::{Direction, Entry, JOINED, Text, Timestamp};
use crate::flow::decode::{Decoder, Undecoded};
use crate::flow::reassembly::{Piece, Reassembly, Stamp};
use crate::flow::sctp::{self, Association};
use crate::flow::{Packet, Payload, Segment};

/// The most flows held at once, by all engines of a capture together; past it the quietest eighth is closed.
const MAX_FLOWS: usize = 100_000;
/// The most bytes that wait in all flows together, for earlier ones or for the rest of their message, in all engines of a
/// capture; past it the flows that hold most give up what they have, until a quarter of it is free.
const MAX_HELD: usize = 128 << 20;
/// What one engine may hold in any case: more than one flow ever does.
const MIN_HELD: usize = 48 << 20;
/// How often, in nanoseconds of capture time, quiet flows are looked for.
const SWEEP_EVERY: i64 = 5_000_000_000;
/// A UDP or ICMP flow is over when nothing came for so long: its questions stand unanswered.
const DATAGRAM_IDLE: i64 = 30_000_000_000;
/// A TCP connection or an SCTP association is forgotten when nothing came for so long.
const TCP_IDLE: i64 = 3600 * 1_000_000_000;
/// A closed TCP connection is remembered for so long, so that late repetitions start no new one.
const TCP_LINGER: i64 = 60_000_000_000;

/// A SYN that nothing answered for so long is a row by itself, where rows of flows are wanted.
const SYN_IDLE: i64 = 10_000_000_000;

/// IP protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
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
    /// If it may become a row of its own; gone when it did.
    tally: Option<Box<Tally>>,
    /// How many bytes of memory what waits took when it was last looked at.
    held: usize,
}

struct Dissection {
    driver: Driver,
    pairer: Pairer,
    /// Directions that lack bytes.
    broken: [bool; 2],
    /// Entries that came of it.
    rows: usize,
}

/// Turns frames into entries. Time comes from frames only: the same frames give the same entries.
pub struct Engine {
    options: Options,
    shard: Shard,
    decoder: Decoder,
    /// Boxed, so that the table is small enough to grow and to be swept.
    flows: HashMap<Key, Box<Flow>>,
    max_flows: usize,
    /// How many bytes of memory what waits takes, in all flows.
    held: usize,
    max_held: usize,
    next_sweep: Timestamp,
    now: Timestamp,
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
            max_flows: MAX_FLOWS / shard.count.max(1) as usize,
            held: 0,
            max_held: MIN_HELD.max(MAX_HELD / shard.count.max(1) as usize),
            next_sweep: Timestamp(i64::MIN),
            now: Timestamp::default(),
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
        self.now = frame.time;
        if frame.time >= self.next_sweep || self.flows.len() >= self.max_flows {
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
            Payload::Tcp(segment) => (TCP, segment.src_port, segment.dst_port),
            Payload::Udp { src_port, dst_port, .. } => (UDP, *src_port, *dst_port),
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
            held: &mut self.held,
            now: self.now,
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
            if let Some(flow) = self.flows.remove(&key) {
                self.held -= flow.held;
            }
            self.messages.clear();
            self.counts.faults += 1;
        }
        if self.held > self.max_held {
            self.relieve(frame.number);
        }
    }

    /// There are new keys: flows that waited for them go on.
    pub fn rekey(&mut self, last_frame: u64) {
        let mut waiting: Vec<_> = self.flows.values_mut().filter(|flow| flow.is_waiting()).collect();
        waiting.sort_unstable_by_key(|flow| flow.first_frame);
        let mut context = Context {
            options: &self.options,
            counts: &mut self.counts,
            messages: &mut self.messages,
            out: &mut self.out,
            held: &mut self.held,
            now: self.now,
            frame: last_frame,
        };
        for flow in waiting {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let Some(dissection) = &mut flow.dissection else { return };
                dissection.driver.wake(context.options, context.messages);
                dissection.settle(&flow.key, flow.client_side, flow.first_frame, None, &mut context);
                flow.finish_if_over(&mut context);
                flow.weigh(&mut context);
            }));
            if outcome.is_err() {
                flow.dissection = None;
                flow.weigh(&mut context);
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
        if self.options.flows {
            self.give_up(now, frame.number);
        }
        self.close(
            |flow| {
                let idle = now.since(flow.last_seen);
                match flow.key.transport {
                    TCP if flow.reassembly.is_over() => idle > TCP_LINGER,
                    TCP | SCTP => idle > TCP_IDLE,
                    _ => idle > DATAGRAM_IDLE,
                }
            },
            frame.number,
        );
        if self.flows.len() >= self.max_flows {
            let mut seen: Vec<_> = self.flows.values().map(|flow| (flow.last_seen, flow.first_frame)).collect();
            let (_, limit, _) = seen.select_nth_unstable(self.max_flows / 8);
            let limit = *limit;
            let before = self.flows.len();
            self.close(|flow| (flow.last_seen, flow.first_frame) < limit, frame.number);
            self.counts.evicted += (before - self.flows.len()) as u64;
        }
    }

    /// Has the flows that hold most give it up, the oldest of equals first.
    fn relieve(&mut self, frame: u64) {
        let holds = self.flows.values().filter(|flow| flow.held > 0);
        let mut holders: Vec<_> = holds.map(|flow| (flow.held, flow.first_frame, flow.key)).collect();
        holders.sort_unstable_by_key(|(held, first_frame, _)| (std::cmp::Reverse(*held), *first_frame));
        let enough = self.max_held / 4 * 3;
        for (_, _, key) in holders {
            let mut context = Context {
                options: &self.options,
                counts: &mut self.counts,
                messages: &mut self.messages,
                out: &mut self.out,
                held: &mut self.held,
                now: self.now,
                frame,
            };
            if let Some(flow) = self.flows.get_mut(&key) {
                flow.relieve(&mut context);
            }
            self.counts.relieved += 1;
            if self.held <= enough {
                break;
            }
        }
    }

    /// Makes rows of connections that were asked for in vain; they are remembered, as the SYN may come again.
    fn give_up(&mut self, now: Timestamp, frame: u64) {
        let in_vain = |flow: &Flow| {
            let unanswered = flow.tally.as_ref().is_some_and(|tally| tally.is_unanswered(flow.client_side));
            unanswered && now.since(flow.last_seen) > SYN_IDLE
        };
        let mut given_up: Vec<_> = self.flows.values_mut().filter(|flow| in_vain(flow)).collect();
        given_up.sort_unstable_by_key(|flow| flow.first_frame);
        for flow in given_up {
            let (order, ends) = ((frame, flow.first_frame), flow.key.ends(flow.client_side));
            if let Some(tally) = flow.tally.take() {
                let entry = tally.entry(true, flow.client_side, ends, now, self.options.detail);
                self.out.push(Produced { order, entry });
            }
        }
    }

    /// Finishes and forgets the flows that `over` picks, oldest first.
    fn close(&mut self, over: impl Fn(&Flow) -> bool, frame: u64) {
        let mut closed: Vec<_> = self.flows.extract_if(|_, flow| over(flow)).map(|(_, flow)| flow).collect();
        closed.sort_unstable_by_key(|flow| flow.first_frame);
        let mut context = Context {
            options: &self.options,
            counts: &mut self.counts,
            messages: &mut self.messages,
            out: &mut self.out,
            held: &mut self.held,
            now: self.now,
            frame,
        };
        for mut flow in closed {
            flow.finish(&mut context);
        }
    }
}

/// What makes bytes come out of reassembly.
#[derive(Clone, Copy)]
enum Reassemble<'a> {
    /// One more segment of that side.
    Segment(usize, &'a Segment<'a>, Stamp),
    /// They may wait no longer.
    Relieve,
    /// Nothing more comes.
    Finish,
}

/// What the handling of a flow needs of its engine.
struct Context<'a> {
    options: &'a Options,
    counts: &'a mut Counts,
    messages: &'a mut Vec<Message>,
    out: &'a mut Vec<Produced>,
    /// How many bytes of memory what waits takes, in all flows.
    held: &'a mut usize,
    /// The newest time of the capture.
    now: Timestamp,
    frame: u64,
}

fn tcp(
    flows: &mut HashMap<Key, Box<Flow>>,
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
        Flow::new(key, client_side, certain, stamp, cx.options)
    });
    if opens {
        flow.syn = Some(segment.seq);
    }
    flow.last_seen = stamp.time;
    if let Some(tally) = &mut flow.tally {
        tally.segment(side, segment, stamp);
    }
    flow.reassemble(Reassemble::Segment(side, segment, stamp), cx);
    flow.finish_if_over(cx);
    flow.weigh(cx);
}

fn datagram(
    flows: &mut HashMap<Key, Box<Flow>>,
    key: Key,
    side: usize,
    transport: Transport,
    data: &[u8],
    stamp: Stamp,
    cx: &mut Context<'_>,
) {
    let flow = flows.entry(key).or_insert_with(|| {
        cx.counts.flows += 1;
        Flow::new(key, first_client(&key, side), false, stamp, cx.options)
    });
    flow.last_seen = stamp.time;
    if let Some(tally) = &mut flow.tally {
        tally.datagram(side, data, stamp);
    }
    flow.datagram(side, transport, data, stamp, cx);
    flow.weigh(cx);
}

/// The chunks of an SCTP packet.
fn sctp(flows: &mut HashMap<Key, Box<Flow>>, key: Key, side: usize, chunks: &[u8], stamp: Stamp, cx: &mut Context<'_>) {
    let effect = sctp::effect(chunks);
    if effect.opens
        && let Some(mut flow) = flows.remove(&key)
    {
        // The ports are used again.
        flow.finish(cx);
    }
    let flow = flows.entry(key).or_insert_with(|| {
        cx.counts.flows += 1;
        Flow::new(key, if effect.opens { side } else { first_client(&key, side) }, effect.opens, stamp, cx.options)
    });
    flow.last_seen = stamp.time;
    let mut association = flow.association.take().unwrap_or_default();
    association.packet(side, chunks, &mut |message| flow.datagram(side, Transport::Sctp, message, stamp, cx));
    flow.association = Some(association);
    flow.weigh(cx);
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
    fn new(key: Key, client_side: usize, certain: bool, stamp: Stamp, options: &Options) -> Box<Self> {
        let row = options.flows && matches!(key.transport, TCP | UDP);
        Box::new(Self {
            key,
            client_side,
            syn: None,
            certain,
            first_frame: stamp.packet,
            last_seen: stamp.time,
            reassembly: Reassembly::default(),
            association: None,
            dissection: None,
            tally: row.then(Box::default),
            held: 0,
        })
    }

    /// Looks how much waits now.
    fn weigh(&mut self, cx: &mut Context<'_>) {
        let dissection = self.dissection.as_ref().map_or(0, |dissection| dissection.driver.held());
        let association = self.association.as_ref().map_or(0, |association| association.held());
        let held = self.reassembly.held() + association + dissection;
        *cx.held = *cx.held - self.held + held;
        self.held = held;
    }

    /// Gives up what waits.
    fn relieve(&mut self, cx: &mut Context<'_>) {
        if let Some(association) = &mut self.association {
            association.relieve();
        }
        self.reassemble(Reassemble::Relieve, cx);
        if let Some(dissection) = &mut self.dissection {
            dissection.relieve(&self.key, self.client_side, self.first_frame, cx);
        }
        self.finish_if_over(cx);
        self.weigh(cx);
    }

    /// Dissects what comes out of reassembly.
    fn reassemble(&mut self, by: Reassemble<'_>, cx: &mut Context<'_>) {
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
        match by {
            Reassemble::Segment(side, segment, stamp) => reassembly.segment(side, segment, stamp, &mut dissect),
            Reassemble::Relieve => reassembly.relieve(&mut dissect),
            Reassemble::Finish => reassembly.finish(&mut dissect),
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
        self.reassemble(Reassemble::Finish, cx);
        let dissection = self.dissection.take();
        *cx.held -= std::mem::take(&mut self.held);
        let tally = self.tally.take();
        let Self { key, client_side, first_frame, certain, .. } = self;
        let order = (cx.frame, *first_frame);
        let mut ends = key.ends(*client_side);
        let mut client_side = *client_side;
        let mut warning = (key.transport == TCP && !*certain).then_some(Text::Borrowed(JOINED));
        if let Some(mut dissection) = dissection {
            let known = dissection.finish(key, client_side, *first_frame, cx);
            if known {
                return;
            }
            ends = dissection.ends(key, client_side);
            client_side = if dissection.driver.reversed() { 1 - client_side } else { client_side };
            warning = dissection.driver.take_warning();
        }
        if let Some(tally) = tally {
            let mut entry = tally.entry(key.transport == TCP, client_side, ends, cx.now, cx.options.detail);
            entry.warnings.extend(warning);
            cx.out.push(Produced { order, entry });
        }
    }
}

impl Dissection {
    fn new(delivery: Delivery, options: &Options) -> Box<Self> {
        Box::new(Self {
            driver: Driver::new(delivery, options),
            pairer: Pairer::default(),
            broken: [false; 2],
            rows: 0,
        })
    }

    /// Ends both directions. True if a protocol was found that the bytes did not contradict, or that made rows before.
    fn finish(&mut self, key: &Key, client_side: usize, first_frame: u64, cx: &mut Context<'_>) -> bool {
        for direction in [Direction::ToServer, Direction::ToClient] {
            self.piece(key, client_side, first_frame, direction, Piece::Cut, cx);
        }
        let order = (cx.frame, first_frame);
        let ends = self.ends(key, client_side);
        let Self { driver, pairer, rows, .. } = self;
        let before = cx.out.len();
        pairer.finish(&ends, &mut |entry| produce(driver, order, entry, cx.out));
        *rows += cx.out.len() - before;
        let outcome = driver.outcome();
        cx.counts.unknown_flows += u64::from(outcome.unknown);
        cx.counts.malformed_flows += u64::from(outcome.malformed > 0);
        cx.counts.undecrypted += outcome.undecrypted;
        cx.counts.remains += pairer.remains();
        *rows > 0 || driver.protocol().is_some() && outcome.malformed == 0
    }

    /// Gives up what waits for more bytes.
    fn relieve(&mut self, key: &Key, client_side: usize, first_frame: u64, cx: &mut Context<'_>) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let lost = self.driver.relieve(direction, cx.options, cx.messages);
            if let (Some(_), Some(broken)) = (lost, self.broken.get_mut(direction.index())) {
                *broken = true;
            }
            self.settle(key, client_side, first_frame, lost, cx);
        }
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
        let Self { driver, pairer, broken, rows } = self;
        let before = cx.out.len();
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
        *rows += cx.out.len() - before;
    }
}

fn produce(driver: &mut Driver, order: (u64, u64), mut entry: Entry, out: &mut Vec<Produced>) {
    entry.warnings.extend(driver.take_warning());
    out.push(Produced { order, entry });
}
