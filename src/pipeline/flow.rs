//! One flow in the engine: reassembled, dissected and paired.

use hashbrown::HashSet;

use super::Counts;
use super::engine::{Produced, TCP, UDP};
use super::key::Key;
use super::tally::Tally;
use crate::dissect::{Delivery, Driver, Ends, Message, Options, Pairer, Role, Transport, tls};
use crate::entry::{Direction, Entry, JOINED, Text, Timestamp};
use crate::flow::Segment;
use crate::flow::reassembly::{Piece, Reassembly, Stamp};
use crate::flow::sctp::Association;

/// One 5-tuple.
pub(super) struct Flow {
    pub key: Key,
    pub client_side: usize,
    /// Sequence number of the client's SYN, if it was seen.
    pub syn: Option<u32>,
    pub certain: bool,
    pub first_frame: u64,
    pub last_seen: Timestamp,
    pub reassembly: Reassembly,
    /// Of SCTP.
    pub association: Option<Box<Association>>,
    /// From the first payload on; gone when the flow is over.
    pub dissection: Option<Box<Dissection>>,
    /// If it may become a row of its own; gone when it did.
    pub tally: Option<Box<Tally>>,
    /// How many bytes of memory what waits took when it was last looked at, and whether it waited for something else.
    pub held: usize,
    waits: bool,
}

pub(super) struct Dissection {
    driver: Driver,
    pairer: Pairer,
    /// Directions that lack bytes.
    broken: [bool; 2],
    /// Entries that came of it.
    rows: usize,
}

/// What makes bytes come out of reassembly.
#[derive(Clone, Copy)]
pub(super) enum Reassemble<'a> {
    /// One more segment of that side.
    Segment(usize, &'a Segment<'a>, Stamp),
    /// They may wait no longer.
    Relieve,
    /// Nothing more comes.
    Finish,
}

/// What the handling of a flow needs of its engine.
pub(super) struct Context {
    pub options: Options,
    pub counts: Counts,
    /// Those that are not paired yet.
    pub messages: Vec<Message>,
    pub out: Vec<Produced>,
    /// How many bytes of memory what waits takes, in all flows.
    pub held: usize,
    /// Flows whose bytes wait for something else than bytes.
    pub waiting: HashSet<Key>,
    /// The newest time of the capture.
    pub now: Timestamp,
}

impl Context {
    /// The number of the frame at hand.
    pub fn frame(&self) -> u64 {
        self.options.turn.frame()
    }
}

impl Flow {
    pub fn new(key: Key, client_side: usize, certain: bool, stamp: Stamp, options: &Options) -> Box<Self> {
        let row = options.flows && matches!(key.transport, TCP | UDP) && key.origin.is_none();
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
            waits: false,
        })
    }

    /// Looks how much waits now, and for what.
    pub fn weigh(&mut self, cx: &mut Context) {
        let dissection = self.dissection.as_ref().map_or(0, |dissection| dissection.driver.held());
        let association = self.association.as_ref().map_or(0, |association| association.held());
        let held = self.reassembly.held() + association + dissection;
        cx.held = cx.held - self.held + held;
        self.held = held;
        let waits = self.waits_until().is_some();
        if waits != std::mem::replace(&mut self.waits, waits) {
            if waits {
                cx.waiting.insert(self.key)
            } else {
                cx.waiting.remove(&self.key)
            };
        }
    }

    /// Gives up what waits.
    pub fn relieve(&mut self, cx: &mut Context) {
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
    pub fn reassemble(&mut self, by: Reassemble<'_>, cx: &mut Context) {
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
                    ends: [client.socket(), server.socket()],
                    tap: key.tap,
                    hint: key.origin.and_then(|_| tls::usual(server.port)),
                    depth: 0,
                };
                Dissection::new(delivery, &cx.options)
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
    pub fn datagram(&mut self, side: usize, transport: Transport, data: &[u8], stamp: Stamp, cx: &mut Context) {
        let Self { key, client_side, certain, first_frame, dissection, .. } = self;
        let direction = if side == *client_side { Direction::ToServer } else { Direction::ToClient };
        let dissection = dissection.get_or_insert_with(|| {
            let Ends { client, server, .. } = key.ends(*client_side);
            let ends = [client.socket(), server.socket()];
            let (port, certain) = (server.port, *certain);
            let tap = key.tap;
            let delivery = Delivery { transport, port, start: true, certain, ends, tap, hint: None, depth: 0 };
            Dissection::new(delivery, &cx.options)
        });
        dissection.piece(key, *client_side, *first_frame, direction, Piece::Chunk(data, stamp), cx);
    }

    /// Goes on with what waited for something else than bytes, which may have come.
    pub fn wake(&mut self, cx: &mut Context) {
        let Some(dissection) = &mut self.dissection else { return };
        dissection.driver.wake(&cx.options, &mut cx.messages);
        dissection.settle(&self.key, self.client_side, self.first_frame, None, cx);
    }

    /// Goes on without it.
    pub fn stop_waiting(&mut self, cx: &mut Context) {
        let Some(dissection) = &mut self.dissection else { return };
        dissection.driver.stop_waiting(&cx.options, &mut cx.messages);
        dissection.settle(&self.key, self.client_side, self.first_frame, None, cx);
    }

    /// Until when its bytes wait for something else than bytes.
    pub fn waits_until(&self) -> Option<Timestamp> {
        self.dissection.as_ref()?.driver.waits_until()
    }

    pub fn finish_if_over(&mut self, cx: &mut Context) {
        if self.reassembly.is_over() && self.waits_until().is_none() {
            self.finish(cx);
        }
    }

    /// Hands on everything that still waits, and forgets all but that the flow was there.
    pub fn finish(&mut self, cx: &mut Context) {
        // What waited for bytes that never came may be all that the flow has.
        self.reassemble(Reassemble::Finish, cx);
        let dissection = self.dissection.take();
        cx.held -= std::mem::take(&mut self.held);
        if std::mem::take(&mut self.waits) {
            cx.waiting.remove(&self.key);
        }
        let tally = self.tally.take();
        let Self { key, client_side, first_frame, certain, .. } = self;
        let order = (cx.frame(), *first_frame);
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
            cx.out.push(Produced { order, entry: Box::new(entry) });
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
    fn finish(&mut self, key: &Key, client_side: usize, first_frame: u64, cx: &mut Context) -> bool {
        self.driver.finish(&cx.options, &mut cx.messages);
        self.settle(key, client_side, first_frame, None, cx);
        let order = (cx.frame(), first_frame);
        let ends = self.ends(key, client_side);
        let Self { driver, pairer, rows, .. } = self;
        let before = cx.out.len();
        pairer.finish(&ends, &mut |entry| produce(driver, key, order, entry, &mut cx.out));
        *rows += cx.out.len() - before;
        let outcome = driver.outcome();
        cx.counts.unknown_flows += u64::from(outcome.unknown);
        cx.counts.malformed_flows += u64::from(outcome.malformed > 0);
        cx.counts.undecrypted += outcome.undecrypted;
        cx.counts.remains += pairer.remains();
        *rows > 0 || driver.protocol().is_some() && outcome.malformed == 0
    }

    /// Gives up what waits for more bytes.
    fn relieve(&mut self, key: &Key, client_side: usize, first_frame: u64, cx: &mut Context) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let lost = self.driver.relieve(direction, &cx.options, &mut cx.messages);
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
        cx: &mut Context,
    ) {
        let mut lost = None;
        match piece {
            Piece::Chunk(data, stamp) => self.driver.data(direction, data, stamp, &cx.options, &mut cx.messages),
            Piece::Gap(len) => {
                cx.counts.gaps += 1;
                cx.counts.gap_bytes += len;
                if let Some(broken) = self.broken.get_mut(direction.index()) {
                    *broken = true;
                }
                lost = self.driver.gap(direction, len, &cx.options, &mut cx.messages);
            }
            Piece::End => self.driver.close(direction, false, &cx.options, &mut cx.messages),
            Piece::Cut => self.driver.close(direction, true, &cx.options, &mut cx.messages),
        }
        self.settle(key, client_side, first_frame, lost, cx);
    }

    /// Pairs the messages that came out; `lost`: those of this direction may be missing.
    fn settle(&mut self, key: &Key, client_side: usize, first_frame: u64, lost: Option<Direction>, cx: &mut Context) {
        if cx.messages.is_empty() && lost.is_none() {
            return;
        }
        let ends = self.ends(key, client_side);
        let order = (cx.frame(), first_frame);
        let repeats = self.driver.repeats();
        let Self { driver, pairer, broken, rows } = self;
        let Context { messages, out, .. } = cx;
        let before = out.len();
        for message in messages.drain(..) {
            let protocol = driver.row_protocol(&message);
            let sender = if driver.reversed() { message.direction.reverse() } else { message.direction };
            if message.role == Role::Lost
                && let Some(broken) = broken.get_mut(sender.index())
            {
                *broken = true;
            }
            let broken = broken.get(sender.index()) == Some(&true);
            pairer.message(protocol, repeats, broken, message, &ends, &mut |entry| {
                produce(driver, key, order, entry, out);
            });
        }
        if let Some(direction) = lost {
            pairer.gap(direction, &ends, &mut |entry| produce(driver, key, order, entry, out));
        }
        *rows += out.len() - before;
    }
}

fn produce(driver: &mut Driver, key: &Key, order: (u64, u64), mut entry: Entry, out: &mut Vec<Produced>) {
    if key.origin.is_some() {
        entry.decrypted = entry.decrypted.or(key.origin);
        // The other end's probes count from elsewhere.
        entry.request.iter_mut().chain(&mut entry.response).for_each(|half| half.position = 0);
    }
    entry.warnings.extend(driver.take_warning());
    out.push(Produced { order, entry: Box::new(entry) });
}
