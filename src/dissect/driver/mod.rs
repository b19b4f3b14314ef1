//! Drives one dissector over one flow: detects it, keeps what it did not consume, carries it over gaps and switches.

mod datagram;
mod probing;
mod run;
mod stream;
mod waiting;

use std::net::SocketAddr;

use self::probing::MAX_TRIES;
use self::run::{Run, context, run};
use self::stream::{Stream, later};
use super::detect::{Detected, confirms};
use super::{
    Cx, Dissector, Malformed, Message, Options, PROTOCOLS, Probe, Protocol, Recover, Switch, Transport, Verdict, tls,
};
use crate::entry::{Direction, JOINED, Text};
use crate::flow::reassembly::Stamp;

/// The most bytes of one direction that wait for a dissector to have enough of them.
const MAX_BUFFER: usize = 16 << 20;
/// The most bytes of one direction that detection looks at before it gives up.
const MAX_PROBE: usize = 4096;

/// The warning of the row after bytes that waited and were given up.
const RELIEVED: &str = "bytes before it were given up: too many waited in all flows together";

/// What a driver is told about its flow.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// `Tcp`, `Udp`, `Sctp` or `Icmp`.
    pub transport: Transport,
    /// The server's port, as far as known.
    pub port: u16,
    /// The flow was seen from its first byte.
    pub start: bool,
    /// Which side is the client is known, not guessed.
    pub certain: bool,
    /// Client and server.
    pub ends: [SocketAddr; 2],
    /// Where it was captured, by the number of the pod; 0 if that is not known.
    pub tap: u32,
    /// What its protocol is likely to be, from other signs than its bytes.
    pub hint: Option<&'static Protocol>,
    /// How many flows it is inside of: 0 for one of packets.
    pub depth: u8,
}

/// What became of a flow, for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its bytes were of no known protocol.
    pub unknown: bool,
    /// How often its bytes contradicted the protocol that they were taken for.
    pub malformed: u32,
    /// How many encrypted records or packets did not prove authentic with the keys that are known.
    pub undecrypted: u64,
}

impl Outcome {
    /// With what became of a flow inside.
    fn with(self, inner: Self) -> Self {
        Self {
            unknown: self.unknown || inner.unknown,
            malformed: self.malformed + inner.malformed,
            undecrypted: self.undecrypted + inner.undecrypted,
        }
    }
}

/// One flow's dissection.
pub struct Driver {
    flow: Delivery,
    /// The caller's client is the server.
    reversed: bool,
    state: State,
    /// The user named the protocol, and nothing of the flow has been seen yet.
    named: bool,
    streams: [Stream; 2],
    outcome: Outcome,
    warning: Option<Text>,
}

enum State {
    /// How many chunks of each direction were of no protocol, times their weight.
    Probing {
        tries: [u16; 2],
    },
    Dissecting {
        protocol: &'static Protocol,
        dissector: Box<dyn Dissector>,
    },
    Ignoring,
}

impl Driver {
    /// For a new flow.
    #[must_use]
    pub fn new(flow: Delivery, options: &Options) -> Self {
        // Whoever names a protocol that comes inside of TLS means what is inside.
        let named = options.decode_as.iter().find(|(port, protocol)| {
            *port == flow.port && (flow.depth == 0 || !std::ptr::eq(*protocol, &raw const tls::PROTOCOL))
        });
        let state = match named {
            Some((_, protocol)) => State::Dissecting { protocol, dissector: (protocol.new)() },
            None => State::Probing { tries: [0; 2] },
        };
        Self {
            flow,
            reversed: false,
            state,
            named: named.is_some(),
            streams: <[Stream; 2]>::default(),
            outcome: Outcome::default(),
            warning: (!flow.start && flow.transport == Transport::Tcp).then_some(Text::Borrowed(JOINED)),
        }
    }

    /// True if the client turned out to be the server: directions of messages are the other way round.
    pub fn reversed(&self) -> bool {
        self.reversed
    }

    /// The protocol, once detected.
    pub fn protocol(&self) -> Option<&'static Protocol> {
        match &self.state {
            State::Dissecting { protocol, .. } => Some(protocol),
            _ => None,
        }
    }

    /// What became of the flow so far.
    pub fn outcome(&self) -> Outcome {
        match &self.state {
            State::Dissecting { dissector, .. } => self.outcome.with(dissector.outcome()),
            _ => self.outcome,
        }
    }

    /// Other signs than its bytes say that it is this.
    pub fn hint(&mut self, hint: &'static Protocol) {
        self.flow.hint = Some(hint);
    }

    /// What the flow's first row should tell.
    pub fn take_warning(&mut self) -> Option<Text> {
        self.warning.take()
    }

    /// Takes the client for the server from now on.
    fn reverse(&mut self) {
        self.reversed = !self.reversed;
        self.flow.ends.reverse();
        self.streams.swap(0, 1);
    }

    fn oriented(&self, direction: Direction) -> Direction {
        if self.reversed { direction.reverse() } else { direction }
    }

    /// Bytes of one direction that follow the last ones; for UDP, ICMP and SCTP, one datagram or message.
    pub fn data(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        stamp: Stamp,
        options: &Options,
        out: &mut Vec<Message>,
    ) {
        if self.flow.transport != Transport::Tcp {
            self.datagram(direction, bytes, stamp, options, out);
            return;
        }
        let direction = self.oriented(direction);
        if std::mem::take(&mut self.named) {
            self.unwrap_tls(direction, bytes);
        }
        match &mut self.state {
            State::Ignoring => {}
            State::Probing { .. } => {
                let Some(stream) = self.streams.get_mut(direction.index()) else { return };
                let waited = stream.buffer.len();
                stream.push(bytes, stamp);
                self.probe(direction, waited, options, out);
            }
            State::Dissecting { .. } => {
                let turned = self.dissect(direction, bytes, stamp, options, out);
                self.turns(turned, direction, options, out);
            }
        }
    }

    /// If the protocol that was named for the flow's port comes inside of TLS, that is first.
    fn unwrap_tls(&mut self, direction: Direction, bytes: &[u8]) {
        let Delivery { transport, port, start, .. } = self.flow;
        let probe = Probe { transport, direction, data: bytes, port, start, cut: false };
        if start && self.flow.depth == 0 && (tls::PROTOCOL.probe)(&probe) == Verdict::Yes {
            self.flow.certain = true;
            self.state = State::Dissecting { protocol: &tls::PROTOCOL, dissector: tls::new_dissector() };
        }
    }

    /// `len` bytes of one direction are missing. The direction, as its messages have it, if messages may be missing with
    /// them.
    pub fn gap(
        &mut self,
        direction: Direction,
        len: u64,
        options: &Options,
        out: &mut Vec<Message>,
    ) -> Option<Direction> {
        let direction = self.oriented(direction);
        let stream = self.streams.get_mut(direction.index())?;
        let skipped = stream.skip.min(len);
        stream.skip -= skipped;
        let len = len - skipped;
        if len == 0 {
            return None;
        }
        self.lose(direction, len, options, out)
    }

    /// How many bytes of memory what waits takes.
    pub fn held(&self) -> usize {
        let inside = match &self.state {
            State::Dissecting { dissector, .. } => dissector.held(),
            _ => 0,
        };
        inside + self.streams.iter().map(Stream::held).sum::<usize>()
    }

    /// Gives up what waits of one direction, as if it had not been captured: too much does, of all flows together. The
    /// direction as for [`gap`](Self::gap).
    pub fn relieve(&mut self, direction: Direction, options: &Options, out: &mut Vec<Message>) -> Option<Direction> {
        let direction = self.oriented(direction);
        let stream = self.streams.get(direction.index())?;
        if let State::Dissecting { dissector, .. } = &mut self.state {
            let mut cx = context(&self.flow, options, stream.stamp(0), stream.newest(), out);
            dissector.relieve(direction, &mut cx);
        }
        let waits = !stream.buffer.is_empty();
        let lost = if waits { self.lose(direction, 0, options, out) } else { None };
        if waits {
            self.warning.get_or_insert(Text::Borrowed(RELIEVED));
        }
        self.streams.get_mut(direction.index())?.shrink();
        lost
    }

    /// What waits of a direction is dropped, and `len` bytes behind it are missing.
    fn lose(&mut self, direction: Direction, len: u64, options: &Options, out: &mut Vec<Message>) -> Option<Direction> {
        let mut direction = direction;
        if matches!(self.state, State::Probing { .. })
            && !self.streams.get(direction.index())?.buffer.is_empty()
            && let Detected::Yes { protocol, reversed } = self.look(direction, true)
        {
            direction = self.begin(direction, protocol, reversed);
        }
        let stream = self.streams.get_mut(direction.index())?;
        let stamp = stream.newest();
        let dropped = stream.buffer.len();
        if let State::Dissecting { protocol, dissector } = &mut self.state
            && !stream.buffer.is_empty()
            && (!stream.seeking
                || confirms(protocol, self.flow.transport, direction, &stream.buffer, self.flow.port, true)
                    >= Verdict::Maybe)
        {
            let mut cx = context(&self.flow, options, stream.stamp(0), stamp, out);
            dissector.cut(direction, &stream.buffer, &mut cx);
        }
        stream.clear();
        match &mut self.state {
            State::Ignoring => {}
            State::Probing { .. } => self.flow.start = false,
            State::Dissecting { dissector, .. } => {
                let mut cx = Cx { dropped, ..context(&self.flow, options, stamp, stamp, out) };
                let recover = dissector.gap(direction, len, &mut cx);
                stream.seeking = recover == Recover::Resync;
                if let Recover::Skip(rest) = recover {
                    stream.skip = rest as u64;
                }
            }
        }
        stream.seeking.then_some(direction)
    }

    /// One direction has ended. What waits for something else than bytes still may: nobody wakes a flow that is inside of one.
    pub fn close(&mut self, direction: Direction, cut: bool, options: &Options, out: &mut Vec<Message>) {
        if self.flow.depth > 0 && self.is_waiting() {
            self.stop_waiting(options, out);
        }
        let direction = self.oriented(direction);
        let waits = self.flow.depth == 0 && self.is_waiting();
        match self.streams.get_mut(direction.index()) {
            Some(stream) if waits => _ = stream.closing.get_or_insert(cut),
            _ => self.end(direction, cut, options, out),
        }
    }

    /// Both directions have ended, and what still waits does so in vain.
    pub fn finish(&mut self, options: &Options, out: &mut Vec<Message>) {
        if self.is_waiting() {
            self.stop_waiting(options, out);
        }
        for direction in [Direction::ToServer, Direction::ToClient] {
            let direction = self.oriented(direction);
            let closing = self.streams.get(direction.index()).and_then(|stream| stream.closing);
            self.end(direction, closing.unwrap_or(true), options, out);
        }
    }

    fn end(&mut self, direction: Direction, cut: bool, options: &Options, out: &mut Vec<Message>) {
        let Some(stream) = self.streams.get_mut(direction.index()) else { return };
        if std::mem::replace(&mut stream.ended, true) {
            return;
        }
        if let State::Dissecting { dissector, .. } = &mut self.state {
            let mut cx = Cx { cut, ..context(&self.flow, options, stream.stamp(0), stream.newest(), out) };
            let rest = if stream.seeking { &[][..] } else { &stream.buffer };
            dissector.close(direction, rest, &mut cx);
        } else if matches!(self.state, State::Probing { .. }) && !stream.buffer.is_empty() {
            self.outcome.unknown = true;
        }
    }

    /// Gives the buffered bytes of one direction to the dissector, which has just come, or whose turn it is.
    fn refeed(&mut self, direction: Direction, options: &Options, out: &mut Vec<Message>) -> bool {
        let Some(stream) = self.streams.get_mut(direction.index()) else { return false };
        stream.enough = 0;
        !stream.buffer.is_empty() && self.dissect(direction, &[], Stamp::default(), options, out)
    }

    /// Hands bytes to the dissector, from the buffer if some wait there, else as they are. True if the other direction's
    /// come first.
    fn dissect(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        stamp: Stamp,
        options: &Options,
        out: &mut Vec<Message>,
    ) -> bool {
        let State::Dissecting { protocol, dissector } = &mut self.state else { return false };
        let Some(stream) = self.streams.get_mut(direction.index()) else { return false };
        let skipped = usize::try_from(stream.skip).unwrap_or(usize::MAX).min(bytes.len());
        stream.skip -= skipped as u64;
        let bytes = bytes.get(skipped..).unwrap_or_default();
        let stamp = later(stamp, skipped);
        if bytes.is_empty() && stream.buffer.is_empty() {
            return false;
        }
        let mut bytes = bytes;
        if stream.seeking {
            let verdict = |data: &[u8]| confirms(protocol, self.flow.transport, direction, data, self.flow.port, false);
            stream.push(bytes, stamp);
            let mut found = verdict(&stream.buffer);
            if found == Verdict::No || stream.buffer.len() > MAX_PROBE && found == Verdict::More {
                // What waited was no start of a message; this chunk may be.
                stream.clear();
                stream.push(bytes, stamp);
                found = verdict(bytes);
            }
            match found {
                Verdict::No => {
                    stream.clear();
                    return false;
                }
                Verdict::More => return false,
                Verdict::Maybe | Verdict::Yes => stream.seeking = false,
            }
            bytes = &[];
        }
        let buffered = !stream.buffer.is_empty();
        if buffered {
            if !bytes.is_empty() {
                stream.push(bytes, stamp);
            }
            if stream.buffer.len() < stream.enough {
                return false;
            }
        }
        let flow = &self.flow;
        let run = if buffered {
            let newest = stream.newest();
            run(&stream.buffer, |offset| stream.stamp(offset), newest, &mut **dissector, direction, flow, options, out)
        } else {
            run(bytes, |offset| later(stamp, offset), stamp, &mut **dissector, direction, flow, options, out)
        };
        match run {
            Run::Wait { consumed, more } => {
                stream.keep(buffered, bytes, consumed, stamp);
                stream.enough = stream.buffer.len().saturating_add(more);
                if stream.enough > MAX_BUFFER {
                    stream.clear();
                    stream.seeking = true;
                    self.outcome.malformed += 1;
                }
            }
            Run::Switch { consumed, to } => {
                stream.keep(buffered, bytes, consumed, stamp);
                self.switch(direction, to, options, out);
            }
            Run::Turn { consumed } => {
                stream.keep(buffered, bytes, consumed, stamp);
                return true;
            }
            Run::Ignore => self.ignore(),
            Run::Malformed(Malformed(why)) => {
                stream.clear();
                self.warning = Some(format!("no {} after this: {why}", protocol.title).into());
                self.outcome.malformed += 1;
                if self.outcome.malformed >= u32::from(MAX_TRIES) {
                    self.ignore();
                    return false;
                }
                let mut cx = context(&self.flow, options, stamp, stamp, out);
                dissector.gap(direction, 0, &mut cx);
                stream.seeking = true;
            }
        }
        false
    }

    /// Another protocol takes over; both directions' remaining bytes are its first.
    fn switch(&mut self, direction: Direction, to: Switch, options: &Options, out: &mut Vec<Message>) {
        for stream in &mut self.streams {
            stream.enough = 0;
            stream.seeking = false;
        }
        self.outcome = self.outcome();
        match to {
            Switch::Detect => {
                self.flow.start = true;
                // What asked for encryption goes on inside of it.
                self.flow.hint = self.protocol();
                self.state = State::Probing { tries: [0; 2] };
                for direction in [Direction::ToServer, Direction::ToClient] {
                    let waits = self.streams.get(direction.index()).is_some_and(|stream| !stream.buffer.is_empty());
                    if waits && matches!(self.state, State::Probing { .. }) {
                        self.probe(direction, 0, options, out);
                    }
                }
            }
            Switch::To(protocol, dissector) => {
                self.state = State::Dissecting { protocol, dissector };
                self.refeed(direction.reverse(), options, out);
                self.refeed(direction, options, out);
            }
        }
    }

    fn ignore(&mut self) {
        self.outcome = self.outcome();
        self.state = State::Ignoring;
        self.streams = <[Stream; 2]>::default();
    }

    /// The protocol of that name, for messages that carry their own.
    pub fn row_protocol(&self, message: &Message) -> &'static str {
        message.protocol.or_else(|| self.protocol().map(|protocol| protocol.name)).unwrap_or("unknown")
    }

    /// True if a repeated request is the same one.
    pub fn repeats(&self) -> bool {
        self.protocol().is_some_and(|protocol| protocol.repeats)
    }
}

/// True if a server of some protocol usually listens there.
#[must_use]
pub fn is_server_port(port: u16) -> bool {
    PROTOCOLS.iter().any(|protocol| protocol.ports.contains(&port))
}
