//! The engine: one frame in, the entries that it completes out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hashbrown::{HashMap, HashSet};

use super::Counts;
use super::flow::{Context, Flow, Reassemble};
use super::key::{Key, Place};
use crate::capture::Frame;
use crate::dissect::{Options, Transport, is_server_port};
use crate::entry::{Entry, Timestamp};
use crate::flow::decode::{Decoder, Undecoded};
use crate::flow::reassembly::Stamp;
use crate::flow::sctp;
use crate::flow::{Glance, Packet, Payload, Segment};

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
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Which flows an engine dissects, when several share a capture.
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

    /// The index of the shard that has a flow captured at `place`, where there are so many.
    pub(super) fn of(glance: &Glance, place: Place, count: u64) -> u64 {
        let (key, _) = Key::new(place, glance.transport, glance.src, glance.dst);
        key.mixed() % count
    }

    /// True if it has the flow.
    fn has(self, key: &Key) -> bool {
        self.count <= 1 || key.mixed() % self.count == self.index
    }
}

/// An entry with its place in the order of the capture.
#[derive(Debug)]
pub struct Produced {
    /// The frame that completed it, and the first frame of its flow: the same whatever the sharding.
    pub order: (u64, u64),
    /// The entry, without its id. It moves a lot from here on, and is large.
    pub entry: Box<Entry>,
}

/// Turns frames into entries. Time comes from frames only: the same frames give the same entries.
pub struct Engine {
    shard: Shard,
    decoder: Decoder,
    /// Boxed, so that the table is small enough to grow and to be swept.
    flows: HashMap<Key, Box<Flow>>,
    context: Context,
    max_flows: usize,
    max_held: usize,
    next_sweep: Timestamp,
}

impl Engine {
    /// An engine for the flows of `shard`.
    #[must_use]
    pub fn new(options: Options, shard: Shard) -> Self {
        Self {
            shard,
            decoder: Decoder::default(),
            flows: HashMap::new(),
            context: Context {
                options,
                counts: Counts::default(),
                messages: Vec::new(),
                out: Vec::new(),
                held: 0,
                waiting: HashSet::new(),
                now: Timestamp::default(),
            },
            max_flows: MAX_FLOWS / shard.count.max(1) as usize,
            max_held: MIN_HELD.max(MAX_HELD / shard.count.max(1) as usize),
            next_sweep: Timestamp(i64::MIN),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.context.counts
    }

    /// Takes the entries that came out since the last call. Other engines of the capture need not wait for this one's frames.
    pub fn take(&mut self) -> Vec<Produced> {
        self.context.options.turn.pass();
        std::mem::take(&mut self.context.out)
    }

    /// Takes one frame, captured at `place` on an interface of link type `link`.
    pub fn frame(&mut self, frame: &Frame<'_>, link: u32, place: Place) {
        self.pass(frame);
        let stamp = Stamp { time: frame.time, packet: frame.number, position: 0 };
        let packet = match self.decoder.decode(link, frame.data, frame.len, frame.time) {
            Ok(packet) => packet,
            Err(why) => {
                let counts = &mut self.context.counts;
                *match why {
                    Undecoded::NotIp => &mut counts.not_ip,
                    Undecoded::Link => &mut counts.unknown_link,
                    Undecoded::Malformed => &mut counts.malformed,
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
        let (key, side) = Key::new(place, transport, (addresses.src, src_port), (addresses.dst, dst_port));
        if !self.shard.has(&key) {
            return;
        }
        let Self { flows, context: cx, .. } = self;
        // A fault in a dissector costs its flow, not the capture. What it may have left half done goes with the flow.
        let outcome = catch_unwind(AssertUnwindSafe(|| match payload {
            Payload::Tcp(segment) => tcp(flows, key, side, &segment, stamp, cx),
            Payload::Udp { data, .. } => datagram(flows, key, side, Transport::Udp, data, stamp, cx),
            Payload::Sctp { chunks, .. } => sctp(flows, key, side, chunks, stamp, cx),
            Payload::Icmp { data, .. } => datagram(flows, key, side, Transport::Icmp, data, stamp, cx),
            Payload::Other(_) => {}
        }));
        if outcome.is_err() {
            if let Some(flow) = flows.remove(&key) {
                cx.held -= flow.held;
            }
            cx.waiting.remove(&key);
            cx.messages.clear();
            cx.counts.faults += 1;
        }
        if cx.held > self.max_held {
            self.relieve();
        }
    }

    /// Takes notice of a frame that is of another shard, without looking at its bytes.
    pub fn pass(&mut self, frame: &Frame<'_>) {
        let cx = &mut self.context;
        cx.counts.packets += 1;
        cx.counts.bytes += frame.data.len() as u64;
        cx.counts.cut += u64::from((frame.data.len() as u64) < u64::from(frame.len));
        cx.now = frame.time;
        cx.options.turn.set_frame(frame.number);
        if frame.time >= self.next_sweep || self.flows.len() >= self.max_flows {
            self.sweep();
        }
    }

    /// Where there are flows that wait for keys, by tap, and when the last packet of one of them came.
    #[must_use]
    pub fn waiting(&self) -> HashMap<u32, Timestamp> {
        let mut waiting = HashMap::new();
        for flow in self.context.waiting.iter().filter_map(|key| self.flows.get(key)) {
            let last = waiting.entry(flow.key.tap).or_insert(flow.last_seen);
            *last = flow.last_seen.max(*last);
        }
        waiting
    }

    /// There are new keys: flows that waited for them go on.
    pub fn rekey(&mut self, last_frame: u64) {
        self.resume(last_frame, |_| true, Flow::wake);
    }

    /// Flows that have waited for keys long enough go on without, also those that have fallen silent. `now` is in time of the
    /// capture.
    pub fn lapse(&mut self, now: Timestamp, last_frame: u64) {
        self.resume(last_frame, |until| until < now, Flow::stop_waiting);
    }

    /// Has flows go on that wait for something else than bytes, the oldest first: those of which `due` says so.
    fn resume(&mut self, last_frame: u64, due: impl Fn(Timestamp) -> bool, go_on: impl Fn(&mut Flow, &mut Context)) {
        let Self { flows, context: cx, .. } = self;
        cx.options.turn.set_frame(last_frame);
        let due_flow = |key: &Key| flows.get(key).filter(|flow| flow.waits_until().is_some_and(&due));
        let mut waiting: Vec<_> =
            cx.waiting.iter().filter_map(|key| Some((due_flow(key)?.first_frame, *key))).collect();
        waiting.sort_unstable_by_key(|(first_frame, _)| *first_frame);
        for (_, key) in waiting {
            let Some(flow) = flows.get_mut(&key) else { continue };
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                go_on(flow, cx);
                flow.finish_if_over(cx);
                flow.weigh(cx);
            }));
            if outcome.is_err() {
                flow.dissection = None;
                flow.weigh(cx);
                cx.messages.clear();
                cx.counts.faults += 1;
            }
        }
    }

    /// Ends all flows: what stands open becomes entries.
    pub fn finish(&mut self, last_frame: u64) {
        self.context.options.turn.set_frame(last_frame);
        self.close(|_| true);
        self.context.counts.fragments = self.decoder.incomplete();
    }

    /// Closes quiet flows, and the quietest where there are too many.
    fn sweep(&mut self) {
        let now = self.context.now;
        self.next_sweep = Timestamp(now.0.saturating_add(SWEEP_EVERY));
        if self.context.options.flows {
            self.give_up();
        }
        self.close(|flow| {
            let idle = now.since(flow.last_seen);
            match flow.key.transport {
                TCP if flow.reassembly.is_over() => idle > TCP_LINGER,
                TCP | SCTP => idle > TCP_IDLE,
                _ => idle > DATAGRAM_IDLE,
            }
        });
        if self.flows.len() >= self.max_flows {
            let mut seen: Vec<_> = self.flows.values().map(|flow| (flow.last_seen, flow.first_frame)).collect();
            let (_, limit, _) = seen.select_nth_unstable(self.max_flows / 8);
            let limit = *limit;
            let before = self.flows.len();
            self.close(|flow| (flow.last_seen, flow.first_frame) < limit);
            self.context.counts.evicted += (before - self.flows.len()) as u64;
        }
    }

    /// Has the flows that hold most give it up, the oldest of equals first.
    fn relieve(&mut self) {
        let Self { flows, context: cx, max_held, .. } = self;
        let holds = flows.values().filter(|flow| flow.held > 0);
        let mut holders: Vec<_> = holds.map(|flow| (flow.held, flow.first_frame, flow.key)).collect();
        holders.sort_unstable_by_key(|(held, first_frame, _)| (std::cmp::Reverse(*held), *first_frame));
        let enough = *max_held / 4 * 3;
        for (_, _, key) in holders {
            if let Some(flow) = flows.get_mut(&key) {
                flow.relieve(cx);
            }
            cx.counts.relieved += 1;
            if cx.held <= enough {
                break;
            }
        }
    }

    /// Makes rows of connections that were asked for in vain; they are remembered, as the SYN may come again.
    fn give_up(&mut self) {
        let Self { flows, context: cx, .. } = self;
        let in_vain = |flow: &Flow| {
            let unanswered = flow.tally.as_ref().is_some_and(|tally| tally.is_unanswered(flow.client_side));
            unanswered && cx.now.since(flow.last_seen) > SYN_IDLE
        };
        let mut given_up: Vec<_> = flows.values_mut().filter(|flow| in_vain(flow)).collect();
        given_up.sort_unstable_by_key(|flow| flow.first_frame);
        for flow in given_up {
            let (order, ends) = ((cx.frame(), flow.first_frame), flow.key.ends(flow.client_side));
            if let Some(tally) = flow.tally.take() {
                let entry = tally.entry(true, flow.client_side, ends, cx.now, cx.options.detail);
                cx.out.push(Produced { order, entry: Box::new(entry) });
            }
        }
    }

    /// Finishes and forgets the flows that `over` picks, oldest first.
    fn close(&mut self, over: impl Fn(&Flow) -> bool) {
        let mut closed: Vec<_> = self.flows.extract_if(|_, flow| over(flow)).map(|(_, flow)| flow).collect();
        closed.sort_unstable_by_key(|flow| flow.first_frame);
        for mut flow in closed {
            flow.finish(&mut self.context);
        }
    }
}

impl Drop for Engine {
    /// No other engine waits for one that is gone.
    fn drop(&mut self) {
        self.context.options.turn.leave();
    }
}

fn tcp(
    flows: &mut HashMap<Key, Box<Flow>>,
    key: Key,
    side: usize,
    segment: &Segment<'_>,
    stamp: Stamp,
    cx: &mut Context,
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
            _ => (guess_client(&key, side, &cx.options), false),
        };
        Flow::new(key, client_side, certain, stamp, &cx.options)
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
    cx: &mut Context,
) {
    let flow = flows.entry(key).or_insert_with(|| {
        cx.counts.flows += 1;
        Flow::new(key, first_client(&key, side), false, stamp, &cx.options)
    });
    flow.last_seen = stamp.time;
    if let Some(tally) = &mut flow.tally {
        tally.datagram(side, data, stamp);
    }
    flow.datagram(side, transport, data, stamp, cx);
    flow.weigh(cx);
}

/// The chunks of an SCTP packet.
fn sctp(flows: &mut HashMap<Key, Box<Flow>>, key: Key, side: usize, chunks: &[u8], stamp: Stamp, cx: &mut Context) {
    let effect = sctp::effect(chunks);
    if effect.opens
        && let Some(mut flow) = flows.remove(&key)
    {
        // The ports are used again.
        flow.finish(cx);
    }
    let flow = flows.entry(key).or_insert_with(|| {
        cx.counts.flows += 1;
        Flow::new(key, if effect.opens { side } else { first_client(&key, side) }, effect.opens, stamp, &cx.options)
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
