//! The vocabulary: what a row is made of. Imports nothing of ours.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// Text that is often a constant of the protocol (`GET`, `ok`) and sometimes the peer's.
pub type Text = Cow<'static, str>;

/// Nanoseconds since the Unix epoch, as captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Nanoseconds from `earlier` to `self`; negative if `self` is the earlier one.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Year, month, day, hour, minute, second (UTC) and nanosecond.
    fn civil(self) -> (i64, u8, u8, u8, u8, u8, u32) {
        let seconds = self.0.div_euclid(1_000_000_000);
        let nanos = self.0.rem_euclid(1_000_000_000);
        let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days to a civil date in the proleptic Gregorian calendar, counted in eras of 400 years that start on 1 March.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "each is a small positive number")]
        {
            (
                year,
                month as u8,
                day as u8,
                (second_of_day / 3600) as u8,
                (second_of_day / 60 % 60) as u8,
                (second_of_day % 60) as u8,
                nanos as u32,
            )
        }
    }
}

/// RFC 3339 in UTC with nanoseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, h, m, s, n) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{n:09}Z")
    }
}

/// The warning of entries whose connection was there before the capture.
pub const JOINED: &str = "joined mid-stream";

/// Which way bytes of a flow travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub fn reverse(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }

    /// The one of a pair that is for it: the first for `ToServer`, the second for `ToClient`.
    #[must_use]
    pub fn of<T>(self, [to_server, to_client]: [T; 2]) -> T {
        match self {
            Self::ToServer => to_server,
            Self::ToClient => to_client,
        }
    }

    /// 0 for `ToServer`, 1 for `ToClient`: to index a pair.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::ToServer => 0,
            Self::ToClient => 1,
        }
    }
}

/// What an address belongs to in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Name {
    /// `pod`, `service` or `node`.
    pub kind: &'static str,
    /// Namespace; empty for a node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// For a pod, the workload that owns it, as `deploy/front-end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The node that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl Name {
    /// As a capture file holds it, in the manner of cluster DNS: `carts.shop.svc`, `carts-x2v4k.shop.pod`, `node1.node`.
    #[must_use]
    pub fn host(&self) -> String {
        match self.kind {
            "service" => format!("{}.{}.svc", self.name, self.namespace),
            "pod" => format!("{}.{}.pod", self.name, self.namespace),
            kind => format!("{}.{kind}", self.name),
        }
    }

    /// What an agent captures for by its path: a pod, as `namespace/pod`, or a node, as `node/name`.
    #[must_use]
    pub fn of_agent(path: &str) -> Option<Self> {
        let (namespace, name) = path.split_once('/')?;
        let (kind, namespace) = if namespace == "node" { ("node", "") } else { ("pod", namespace) };
        Some(Self { kind, namespace: namespace.to_owned(), name: name.to_owned(), workload: None, node: None })
    }

    /// What [`Name::host`] made; none if it is another kind of name.
    #[must_use]
    pub fn from_host(host: &str) -> Option<Self> {
        let (rest, kind) = host.rsplit_once('.')?;
        let (kind, (name, namespace)) = match kind {
            "svc" => ("service", rest.rsplit_once('.')?),
            "pod" => ("pod", rest.rsplit_once('.')?),
            "node" => ("node", (rest, "")),
            _ => return None,
        };
        Some(Self { kind, namespace: namespace.to_owned(), name: name.to_owned(), workload: None, node: None })
    }
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address as captured.
    pub ip: IpAddr,
    /// The port; 0 where the transport has none.
    pub port: u16,
    /// Filled by the resolver, after dissection.
    pub name: Option<Arc<Name>>,
}

impl Endpoint {
    /// An end without a name.
    #[must_use]
    pub fn new(ip: IpAddr, port: u16) -> Self {
        Self { ip, port, name: None }
    }

    /// Address and port.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// `ip:port`, with brackets around IPv6; without the port where there is none.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (ip, 0) => write!(f, "{ip}"),
            (IpAddr::V4(ip), port) => write!(f, "{ip}:{port}"),
            (IpAddr::V6(ip), port) => write!(f, "[{ip}]:{port}"),
        }
    }
}

/// A decoded field of a message: a tree that keeps the order of its keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing, or not asked for.
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(Text),
    /// A list.
    List(Vec<Value>),
    /// Named fields, in the order of the wire.
    Map(Vec<(Text, Value)>),
}

impl Value {
    /// True for [`Value::Null`].
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The field of that name, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident as $to:ty),*) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(<$to>::from(value))
            }
        })*
    };
}
value_from!(
    bool => Bool as bool, u8 => Uint as u64, u16 => Uint as u64, u32 => Uint as u64, u64 => Uint as u64,
    i8 => Int as i64, i16 => Int as i64, i32 => Int as i64, i64 => Int as i64, f64 => Float as f64,
    &'static str => Text as Text, String => Text as Text, Text => Text as Text,
    Vec<Value> => List as Vec<Value>, Vec<(Text, Value)> => Map as Vec<(Text, Value)>
);

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Uint(value as u64)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Uint(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(value)?;
                }
                list.end()
            }
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// Makes a [`Value::Map`]: `fields! { "version" => 3u8, "path" => path }`.
#[macro_export]
macro_rules! fields {
    ($($name:expr => $value:expr),* $(,)?) => {
        $crate::entry::Value::Map(vec![$(($crate::entry::Text::from($name), $crate::entry::Value::from($value))),*])
    };
}

/// One message of an entry, as it was on the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Half {
    /// When its first byte was captured.
    pub time: Timestamp,
    /// Number of the frame that held its first byte, from 1.
    pub packet: u64,
    /// The TCP sequence number of its first byte, 0 for datagrams: the same wherever the connection is captured.
    pub position: u32,
    /// Its size on the wire above the transport, in bytes: head and body.
    pub bytes: u64,
    /// The size of its body alone, as it was sent, where the protocol has such a thing and it is complete.
    pub body: Option<u64>,
    /// Its decoded fields; null unless they were asked for.
    pub detail: Value,
}

/// A leg of a request in plain text, between a program and the sidecar in its pod that encrypts it.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// Who sent the request.
    pub src: Endpoint,
    /// Who received it.
    pub dst: Endpoint,
    /// As of an entry, in nanoseconds.
    pub latency: Option<i64>,
}

/// One row: a request with its response, or a message that needs none.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Number of the row, from 1, given when it leaves the pipeline.
    pub id: u64,
    /// When its first byte was captured.
    pub time: Timestamp,
    /// The protocol's short name: `http`, `redis`.
    pub protocol: &'static str,
    /// Who sent the request or one-way message.
    pub src: Endpoint,
    /// Who received it.
    pub dst: Endpoint,
    /// What was asked: method, command, query type.
    pub operation: Text,
    /// Of what: path, key, name, statement.
    pub target: String,
    /// What came of it; empty without an answer.
    pub status: Text,
    /// True if the status says that the request failed.
    pub failed: bool,
    /// Nanoseconds from the first byte of the request to the first byte of the response.
    pub latency: Option<i64>,
    /// The request, if it is in the capture; a one-way message counts as a request.
    pub request: Option<Half>,
    /// The response, if it is in the capture.
    pub response: Option<Half>,
    /// What a reader should know: joined mid-stream, bytes missing, malformed.
    pub warnings: Vec<Text>,
    /// The pod that answered for the service in `dst`, where that pod was sniffed too.
    pub backend: Option<Endpoint>,
    /// The same request on its way between programs and sidecars, from the client's to the server's.
    pub hops: Vec<Hop>,
    /// How its bytes were decrypted, if they were: `keylog`, or the kind of probe that read the keys, as `uprobe:go`.
    pub decrypted: Option<&'static str>,
    /// Where it was captured: a number for each sniffed pod, 0 where pods are not known.
    pub tap: u32,
    /// What it tells of ids, and which it has; gone when it leaves the pipeline.
    pub ids: Option<Box<Ids>>,
}

impl Entry {
    /// A row of which nothing is known but the protocol and the ends.
    #[must_use]
    pub fn new(protocol: &'static str, src: Endpoint, dst: Endpoint) -> Self {
        Self {
            id: 0,
            time: Timestamp::default(),
            protocol,
            src,
            dst,
            operation: Text::Borrowed(""),
            target: String::new(),
            status: Text::Borrowed(""),
            failed: false,
            latency: None,
            request: None,
            response: None,
            warnings: Vec::new(),
            backend: None,
            hops: Vec::new(),
            decrypted: None,
            tap: 0,
            ids: None,
        }
    }
}

/// Ids that stand for names, which other connections may tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Ids with their names.
    pub told: Vec<(String, String)>,
    /// Ids in `target`, and in details, of which the connection has not told the name.
    pub unnamed: Vec<String>,
}

impl Ids {
    /// Adds those of the other half.
    pub fn join(&mut self, other: Self) {
        self.told.extend(other.told);
        self.unnamed.extend(other.unnamed);
    }
}
