//! The message, one half of an entry, and the context in which a dissector emits it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::entry::{Direction, Ids, Text, Timestamp, Value};

use super::grpc::{Descriptors, Method};
use super::{Keys, Protocol, Transport, Turn};

/// What a message is to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Waits for a response from the other side.
    Request,
    /// Answers the oldest open request of the other side with the same id.
    Response,
    /// Stands alone.
    OneWay,
    /// None at all: messages of its sender may be missing here.
    Lost,
}

/// One half of an entry, as a dissector emits it.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it is to its row.
    pub role: Role,
    /// The row's protocol, if another than the dissector's: gRPC inside HTTP/2.
    pub protocol: Option<&'static str>,
    /// Who sent it.
    pub direction: Direction,
    /// Pairs a response with its request; 0 where answers come in order.
    pub id: u64,
    /// What is asked. A response's is used if there is no request, or the request's is empty.
    pub operation: Text,
    /// Of what; as for `operation`.
    pub target: String,
    /// What came of it. A request has one if that is known without its response.
    pub status: Text,
    /// True if `status` means failure.
    pub failed: bool,
    /// Size on the wire in bytes.
    pub bytes: u64,
    /// Size of its body alone, if it has such a thing and it is complete.
    pub body: Option<u64>,
    /// Decoded fields; leave null unless [`Cx::detail`].
    pub detail: Value,
    /// What a reader should know.
    pub warnings: Vec<Text>,
    /// When its first byte was captured; set from [`Cx::time`] by the constructors.
    pub time: Timestamp,
    /// The number of the frame that held it.
    pub packet: u64,
    /// The TCP sequence number of its first byte.
    pub position: u32,
    /// How it was decrypted, if it was.
    pub decrypted: Option<&'static str>,
    /// Ids for names, told or used.
    pub ids: Option<Box<Ids>>,
}

impl Message {
    /// A message of the role that starts with the bytes at hand.
    #[must_use]
    pub fn new(role: Role, direction: Direction, cx: &Cx<'_>) -> Self {
        Self {
            role,
            protocol: None,
            direction,
            id: 0,
            operation: Text::Borrowed(""),
            target: String::new(),
            status: Text::Borrowed(""),
            failed: false,
            bytes: 0,
            body: None,
            detail: Value::Null,
            warnings: Vec::new(),
            time: cx.time,
            packet: cx.packet,
            position: cx.position,
            decrypted: None,
            ids: None,
        }
    }

    /// A request from `direction`'s sender.
    #[must_use]
    pub fn request(direction: Direction, operation: impl Into<Text>, target: impl Into<String>, cx: &Cx<'_>) -> Self {
        Self { operation: operation.into(), target: target.into(), ..Self::new(Role::Request, direction, cx) }
    }

    /// A response from `direction`'s sender.
    #[must_use]
    pub fn response(direction: Direction, status: impl Into<Text>, failed: bool, cx: &Cx<'_>) -> Self {
        Self { status: status.into(), failed, ..Self::new(Role::Response, direction, cx) }
    }

    /// A message that waits for nothing.
    #[must_use]
    pub fn one_way(direction: Direction, operation: impl Into<Text>, target: impl Into<String>, cx: &Cx<'_>) -> Self {
        Self { operation: operation.into(), target: target.into(), ..Self::new(Role::OneWay, direction, cx) }
    }
}

/// What the user asked of dissection, and what its flows share.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decode all fields and keep bodies, for JSON, YAML and detail views.
    pub detail: bool,
    /// The most bytes kept of one body.
    pub body_limit: usize,
    /// Show what is hidden by default: credentials, cookies, passwords.
    pub secrets: bool,
    /// Server port → protocol, instead of detection.
    pub decode_as: Vec<(u16, &'static Protocol)>,
    /// The secrets of encrypted connections, as far as they are known.
    pub keys: Arc<Keys>,
    /// Make rows of TCP and UDP flows that no dissector knows.
    pub flows: bool,
    /// Of gRPC's services and messages, as far as they are known.
    pub descriptors: Descriptors,
    /// How far the engine is; set by itself.
    pub turn: Turn,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            detail: false,
            body_limit: 64 * 1024,
            secrets: false,
            decode_as: Vec::new(),
            keys: Arc::default(),
            flows: false,
            descriptors: Descriptors::default(),
            turn: Turn::default(),
        }
    }
}

/// What a dissector sees of the world while it handles some bytes.
#[derive(Debug)]
pub struct Cx<'a> {
    pub(super) options: &'a Options,
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) start: bool,
    /// Client and server.
    pub(super) ends: [SocketAddr; 2],
    /// Where it was captured.
    pub(super) tap: u32,
    pub(super) time: Timestamp,
    pub(super) now: Timestamp,
    pub(super) packet: u64,
    pub(super) position: u32,
    pub(super) cut: bool,
    /// Bytes that were buffered before a gap, and are lost with it.
    pub(super) dropped: usize,
    /// What the flow was before, or is said to be inside: decides where its bytes alone do not.
    pub(super) hint: Option<&'static Protocol>,
    /// How many flows this one is inside of.
    pub(super) depth: u8,
    /// What this connection told of its own gRPC services.
    pub(super) learnt: Option<Descriptors>,
    pub(super) out: &'a mut Vec<Message>,
}

impl Cx<'_> {
    /// Hands on a finished message.
    pub fn emit(&mut self, message: Message) {
        self.out.push(message);
    }

    /// When the first of the bytes at hand was captured.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// When the newest of the bytes at hand was captured.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The number of the frame that held the first of the bytes at hand.
    #[must_use]
    pub fn packet(&self) -> u64 {
        self.packet
    }

    /// True in [`Dissector::close`](super::Dissector::close) if the capture ends before the stream does: what its end would
    /// have completed may go on.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// In [`Dissector::gap`](super::Dissector::gap): how many bytes that had come, but were not consumed, are lost with those
    /// that are missing; they are not counted in its length.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// True if decoded fields were asked for; without it, filling [`Message::detail`] is wasted work.
    #[must_use]
    pub fn detail(&self) -> bool {
        self.options.detail
    }

    /// The most bytes to keep of one body; 0 unless detail was asked for.
    #[must_use]
    pub fn body_limit(&self) -> usize {
        if self.options.detail { self.options.body_limit } else { 0 }
    }

    /// What is known of the gRPC method that a path names.
    #[must_use]
    pub(super) fn method(&self, path: &str) -> Method {
        Method::find(path, &self.options.descriptors, self.learnt.as_ref())
    }

    /// True if credentials may be shown.
    #[must_use]
    pub fn secrets(&self) -> bool {
        self.options.secrets
    }

    /// The address that bytes of `direction` travel to.
    #[must_use]
    pub fn destination(&self, direction: Direction) -> IpAddr {
        direction.reverse().of(self.ends).ip()
    }

    /// `Tcp`, `Udp`, `Sctp` or `Icmp`.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True if the flow was seen from its first byte.
    #[must_use]
    pub fn start(&self) -> bool {
        self.start
    }
}
