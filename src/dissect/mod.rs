//! Ordered bytes → messages. Pure: no I/O, no clock, no Kubernetes.
//!
//! Owns the [`Dissector`] contract, the registry of [`PROTOCOLS`], detection and pairing. Never touches frames.
#![doc = include_str!("README.md")]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod amqp;
mod boundary;
mod cassandra;
mod cursor;
mod detect;
mod dhcp;
mod diameter;
mod dns;
mod driver;
mod graphql;
mod grpc;
mod http;
mod http1;
mod http2;
mod http3;
mod icmp;
mod kafka;
mod ldap;
mod lz;
mod memcached;
mod message;
mod mongodb;
mod mqtt;
mod mysql;
mod nats;
mod nfs;
mod pair;
mod postgresql;
mod quic;
mod radius;
mod redis;
mod sip;
mod sql;
pub mod text;
mod thrift;
pub mod tls;
mod turn;
mod websocket;

pub use cursor::{Cursor, Short};
pub use driver::{Delivery, Driver, Outcome, is_server_port};
pub use grpc::Descriptors;
pub use message::{Cx, Message, Options, Role};
pub use pair::{Ends, Pairer};
pub use tls::keys::Keys;
pub use turn::Turn;

use crate::entry::{Direction, Timestamp};

/// Every protocol, sorted by name. This and its `mod` line are all that a new dissector adds here.
#[rustfmt::skip]
pub static PROTOCOLS: &[&Protocol] = &[
    &amqp::PROTOCOL,
    &cassandra::PROTOCOL,
    &dhcp::PROTOCOL,
    &diameter::PROTOCOL,
    &dns::PROTOCOL,
    &graphql::PROTOCOL,
    &grpc::PROTOCOL,
    &http1::PROTOCOL,
    &http2::PROTOCOL,
    &http3::PROTOCOL,
    &icmp::PROTOCOL,
    &kafka::PROTOCOL,
    &ldap::PROTOCOL,
    &dns::llmnr::PROTOCOL,
    &dns::mdns::PROTOCOL,
    &memcached::PROTOCOL,
    &mongodb::PROTOCOL,
    &mqtt::PROTOCOL,
    &mysql::PROTOCOL,
    &nats::PROTOCOL,
    &nfs::PROTOCOL,
    &postgresql::PROTOCOL,
    &quic::PROTOCOL,
    &radius::PROTOCOL,
    &redis::PROTOCOL,
    &sip::PROTOCOL,
    &thrift::PROTOCOL,
    &tls::PROTOCOL,
    &websocket::PROTOCOL,
];

/// The protocol of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().copied().find(|protocol| protocol.name == name)
}

/// What the engine knows of a protocol before it meets one.
pub struct Protocol {
    /// Short name in rows and flags: `redis`.
    pub name: &'static str,
    /// Name for people: `Redis`.
    pub title: &'static str,
    /// What carries it.
    pub transport: Transport,
    /// Well-known server ports: a hint that breaks ties, never proof.
    pub ports: &'static [u16],
    /// Tells from the first bytes of one direction whether they are of this protocol.
    pub probe: fn(&Probe<'_>) -> Verdict,
    /// A dissector for one flow.
    pub new: fn() -> Box<dyn Dissector>,
    /// A request that stands unanswered and comes again (same sender, id, operation, target) is the same one, as with DNS.
    pub repeats: bool,
    /// Where it is specified.
    pub spec: &'static str,
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What carries a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream each way.
    Tcp,
    /// Datagrams: each call of [`Dissector::data`] gets exactly one.
    Udp,
    /// Either; [`Cx::transport`] tells which.
    Both,
    /// SCTP: each call of [`Dissector::data`] gets exactly one user message.
    Sctp,
    /// A stream each way, or SCTP.
    TcpOrSctp,
    /// ICMP and ICMPv6 messages, from the type byte on, one each call; the flow is a pair of addresses.
    Icmp,
}

/// The first bytes of one direction of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// `Tcp`, `Udp`, `Sctp` or `Icmp`.
    pub transport: Transport,
    /// Who sent them; a guess unless `certain`.
    pub direction: Direction,
    /// The bytes so far, from the first one seen. For UDP, one whole datagram.
    pub data: &'a [u8],
    /// The server's port; a guess unless the handshake was seen.
    pub port: u16,
    /// The flow was seen from its start, so `data` starts where the protocol does.
    pub start: bool,
    /// What follows `data` was not captured: asking for more is in vain.
    pub cut: bool,
}

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Not this protocol.
    No,
    /// Too few bytes to tell.
    More,
    /// Could be: decided by the port, or by the other direction's bytes being plausible too.
    Maybe,
    /// It is.
    Yes,
}

/// How far a dissector came with the bytes that it was given.
#[derive(Debug)]
pub enum Progress {
    /// This many bytes are done with. More than were given means: skip the rest as it comes, unseen.
    Consumed(usize),
    /// Nothing is done with; call again when at least so many bytes more have come (at least 1).
    Need(usize),
    /// So many bytes are done with; what follows, in both directions, is of another protocol.
    Switch(usize, Switch),
    /// Nothing is done with; what the other direction has buffered comes first.
    Turn,
    /// Nothing more of this flow is of interest.
    Ignore,
}

/// What follows after [`Progress::Switch`].
pub enum Switch {
    /// Find out: what runs inside a tunnel.
    Detect,
    /// This, which may know what its predecessor learnt.
    To(&'static Protocol, Box<dyn Dissector>),
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Detect => f.write_str("Detect"),
            Self::To(protocol, _) => write!(f, "To({})", protocol.name),
        }
    }
}

/// Bytes that are not of the protocol. The flow is detected anew or becomes a raw one, and that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl From<Short> for Malformed {
    fn from(_: Short) -> Self {
        Self("ends too early")
    }
}

/// What to do after bytes that were never captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recover {
    /// The missing bytes lay within something that the dissector skips or keeps part of anyway; it goes on.
    Continue,
    /// The missing bytes lay within one message, of which so many follow: they are passed over unseen.
    Skip(usize),
    /// A message boundary has to be found again: the dissector's state for this direction is reset, and what comes next is
    /// probed chunk by chunk until it starts a message.
    Resync,
}

/// Turns the ordered bytes of one flow into messages.
///
/// Dissectors hold no buffers: the engine keeps what was not consumed and gives it again, longer. They may hold state, all of
/// it bounded.
pub trait Dissector: Send {
    /// Bytes of one direction, starting where the last call's consumption ended. Handle one message, or a part of one, and
    /// return; the engine calls again while bytes are left and progress is made.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes cannot be of this protocol. For UDP, it costs that datagram only.
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed>;

    /// Before [`gap`](Self::gap): `rest` are the bytes that were not consumed, which are too few and are going to be dropped.
    /// Emit what they are enough for.
    fn cut(&mut self, _direction: Direction, _rest: &[u8], _cx: &mut Cx<'_>) {}

    /// `len` bytes that follow the consumed (and buffered) ones are missing; buffered bytes before them have been dropped.
    fn gap(&mut self, _direction: Direction, _len: u64, _cx: &mut Cx<'_>) -> Recover {
        Recover::Resync
    }

    /// The direction has ended (FIN, reset, end of the capture): emit what stands open. `rest` are the bytes that were never
    /// consumed.
    fn close(&mut self, _direction: Direction, _rest: &[u8], _cx: &mut Cx<'_>) {}

    /// Until when bytes wait for something else than bytes, in time of the capture; it may come after the end too.
    fn waits_until(&self) -> Option<Timestamp> {
        None
    }

    /// How many bytes of memory it holds back by itself, as of a flow that it carries inside.
    fn held(&self) -> usize {
        0
    }

    /// Gives them up, of that direction: too many wait in all flows together.
    fn relieve(&mut self, _direction: Direction, _cx: &mut Cx<'_>) {}

    /// What was waited for will not come. The bytes that waited come again before the flow is closed.
    fn stop_waiting(&mut self, _cx: &mut Cx<'_>) {}

    /// What became of a flow that this one carries inside.
    fn outcome(&self) -> Outcome {
        Outcome::default()
    }
}
