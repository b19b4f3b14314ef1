//! DHCP for IPv4 (RFC 2131, options of RFC 2132 and later ones), and BOOTP (RFC 951), of which it is made.
//!
//! Each message is a row of its own: a client without an address asks everybody, and answers may be sent to everybody too, so
//! that the addresses of a question and its answer have nothing in common. The transaction id in the detail ties them.
//!
//! Not parsed: what vendors put into options 43 and 125; DHCPv6.

use super::{Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Short, Transport, Verdict, text};
use crate::entry::{Direction, Text, Value};
use crate::fields;

use std::net::Ipv4Addr;

pub static PROTOCOL: Protocol = Protocol {
    name: "dhcp",
    title: "DHCP",
    transport: Transport::Udp,
    ports: &[67, 68, 4011],
    probe,
    new: || Box::new(Dhcp),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc2131",
};

/// What the options of DHCP begin with.
const MAGIC: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// Bytes of each message before that.
const FIXED: usize = 236;

/// The names of message types (option 53), by number; RFC 2132, 3203, 4388, 6926, 7724.
const TYPES: &[&str] = &[
    "",
    "DISCOVER",
    "OFFER",
    "REQUEST",
    "DECLINE",
    "ACK",
    "NAK",
    "RELEASE",
    "INFORM",
    "FORCERENEW",
    "LEASEQUERY",
    "LEASEUNASSIGNED",
    "LEASEUNKNOWN",
    "LEASEACTIVE",
    "BULKLEASEQUERY",
    "LEASEQUERYDONE",
    "ACTIVELEASEQUERY",
    "LEASEQUERYSTATUS",
    "TLS",
];

/// How an option's value is written.
#[derive(Clone, Copy)]
enum Kind {
    Addresses,
    Text,
    Number,
    Bytes,
}

/// Options, by number.
const OPTIONS: &[(u8, &str, Kind)] = &[
    (1, "subnet_mask", Kind::Addresses),
    (3, "router", Kind::Addresses),
    (6, "domain_name_server", Kind::Addresses),
    (12, "host_name", Kind::Text),
    (15, "domain_name", Kind::Text),
    (26, "interface_mtu", Kind::Number),
    (28, "broadcast_address", Kind::Addresses),
    (42, "ntp_servers", Kind::Addresses),
    (50, "requested_ip_address", Kind::Addresses),
    (51, "ip_address_lease_time", Kind::Number),
    (54, "server_identifier", Kind::Addresses),
    (55, "parameter_request_list", Kind::Bytes),
    (56, "message", Kind::Text),
    (57, "maximum_dhcp_message_size", Kind::Number),
    (58, "renewal_time", Kind::Number),
    (59, "rebinding_time", Kind::Number),
    (60, "vendor_class_identifier", Kind::Text),
    (61, "client_identifier", Kind::Bytes),
    (66, "tftp_server_name", Kind::Text),
    (67, "bootfile_name", Kind::Text),
    (81, "client_fqdn", Kind::Bytes),
    (82, "relay_agent_information", Kind::Bytes),
    (119, "domain_search", Kind::Bytes),
    (121, "classless_static_route", Kind::Bytes),
];

fn probe(probe: &Probe<'_>) -> Verdict {
    let Some(([op @ (1 | 2), hardware, length, hops], rest)) = probe.data.split_first_chunk() else {
        return Verdict::No;
    };
    let from = if *op == 1 { Direction::ToServer } else { Direction::ToClient };
    let magic = rest.get(FIXED - 4..FIXED).is_some_and(|magic| magic == MAGIC);
    let plausible = *hardware > 0 && *length <= 16 && *hops <= 16;
    match magic && plausible {
        true if from == probe.direction => Verdict::Yes,
        // Relays and servers talk from port 67 to port 67.
        true => Verdict::Maybe,
        false => Verdict::No,
    }
}

/// Messages between two ports; none of them depends on another.
struct Dhcp;

impl Dissector for Dhcp {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        let header = Header::parse(&mut Cursor::new(bytes))?;
        let options: Vec<_> = Options(bytes.get(FIXED + MAGIC.len()..).unwrap_or_default()).collect();
        let option = |wanted: u8| options.iter().find(|(number, _)| *number == wanted).map(|(_, value)| *value);
        let kind = option(53).and_then(|value| value.first().copied());
        let name = match kind.and_then(|kind| TYPES.get(usize::from(kind)).copied()).filter(|name| !name.is_empty()) {
            Some(name) => Text::Borrowed(name),
            None if kind.is_some() => Text::Owned(format!("TYPE{}", kind.unwrap_or_default())),
            None => Text::Borrowed(if header.op == 1 { "BOOTREQUEST" } else { "BOOTREPLY" }),
        };
        let mut message = Message::one_way(direction, name, header.target(option(50)), cx);
        message.bytes = bytes.len() as u64;
        // Who refuses says so, and maybe why.
        if kind == Some(6) {
            message.failed = true;
            message.status = Text::Borrowed("NAK");
        }
        if cx.detail() {
            message.detail = header.detail(&options);
        }
        cx.emit(message);
        Ok(Progress::Consumed(bytes.len()))
    }
}

/// The fixed part of a message.
struct Header<'a> {
    op: u8,
    hops: u8,
    xid: u32,
    secs: u16,
    flags: u16,
    /// Of the client, of the client as the server says, of the next server, of the relay.
    addresses: [Ipv4Addr; 4],
    hardware: &'a [u8],
    server: &'a [u8],
    file: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(cursor: &mut Cursor<'a>) -> Result<Self, Short> {
        let [op, _, length, hops] = cursor.array()?;
        let (xid, secs, flags) = (cursor.u32()?, cursor.u16()?, cursor.u16()?);
        let mut addresses = [Ipv4Addr::UNSPECIFIED; 4];
        for address in &mut addresses {
            *address = cursor.u32()?.into();
        }
        let hardware = cursor.take(16)?;
        let hardware = hardware.get(..length.into()).unwrap_or(hardware);
        Ok(Self { op, hops, xid, secs, flags, addresses, hardware, server: cursor.take(64)?, file: cursor.take(128)? })
    }

    /// The address that it is about, if any yet, else the client's hardware address.
    fn target(&self, requested: Option<&[u8]>) -> String {
        let [client, given, ..] = self.addresses;
        let requested = requested.and_then(|value| value.first_chunk::<4>()).map(|octets| Ipv4Addr::from(*octets));
        let about =
            [Some(given), requested, Some(client)].into_iter().flatten().find(|address| !address.is_unspecified());
        about.map_or_else(|| hardware(self.hardware), |address| address.to_string())
    }

    fn detail(&self, options: &[(u8, &[u8])]) -> Value {
        let [client, given, next, relay] = self.addresses.map(|address| address.to_string());
        let mut detail = fields! {
            "op" => self.op, "hops" => self.hops, "xid" => format!("{:08x}", self.xid), "secs" => self.secs,
            "broadcast" => self.flags & 0x8000 != 0, "ciaddr" => client, "yiaddr" => given, "siaddr" => next,
            "giaddr" => relay, "chaddr" => hardware(self.hardware),
        };
        if let Value::Map(fields) = &mut detail {
            for (name, padded) in [("sname", self.server), ("file", self.file)] {
                let shown = padded.split(|byte| *byte == 0).next().unwrap_or_default();
                if !shown.is_empty() {
                    fields.push((name.into(), text::octets(shown)));
                }
            }
            let named = options.iter().filter(|(number, _)| *number != 53).map(|(number, value)| {
                let known = OPTIONS.iter().find(|(known, ..)| known == number);
                let (name, kind) = known.map_or((None, Kind::Bytes), |(_, name, kind)| (Some(*name), *kind));
                (name.map_or_else(|| Text::Owned(format!("option_{number}")), Text::Borrowed), kind.value(value))
            });
            fields.push(("options".into(), Value::Map(named.collect())));
        }
        detail
    }
}

impl Kind {
    fn value(self, bytes: &[u8]) -> Value {
        let (addresses, rest) = bytes.as_chunks::<4>();
        match (self, addresses) {
            (Self::Addresses, [one]) if rest.is_empty() => Ipv4Addr::from(*one).to_string().into(),
            (Self::Addresses, all) if rest.is_empty() => {
                Value::List(all.iter().map(|one| Ipv4Addr::from(*one).to_string().into()).collect())
            }
            (Self::Number, _) if bytes.len() <= 4 => {
                bytes.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)).into()
            }
            (Self::Text, _) => text::value(bytes),
            _ => text::hex(bytes).into(),
        }
    }
}

/// A hardware address with colons.
fn hardware(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// The options one by one: number and value.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut cursor = Cursor::new(self.0);
        let number = loop {
            match cursor.u8().ok()? {
                0 => {}
                255 => return None,
                number => break number,
            }
        };
        let length = cursor.u8().ok()?;
        let value = cursor.take(length.into()).ok()?;
        self.0 = cursor.rest();
        Some((number, value))
    }
}
