//! Multicast DNS (RFC 6762): nobody waits for a certain answer, so each message is a row of its own.

use super::{Dns, Header, Kind, plausible};
use crate::dissect::{Cursor, Probe, Protocol, Transport, Verdict};

pub static PROTOCOL: Protocol = Protocol {
    name: "mdns",
    title: "mDNS",
    transport: Transport::Udp,
    ports: &[5353],
    probe,
    new: || Box::new(Dns::new(Kind::Multicast)),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc6762",
};

fn probe(probe: &Probe<'_>) -> Verdict {
    if !is_meant(probe) {
        return Verdict::No;
    }
    // Both sides use the same port, so who is the client does not show in the direction.
    plausible(probe.data, probe.direction, Kind::Multicast, true, false).max(plausible(
        probe.data,
        probe.direction.reverse(),
        Kind::Multicast,
        true,
        false,
    ))
}

/// True if the port is this protocol's, and the message does not ask for recursion under an id of its own: some resolvers
/// of clusters listen on this port too.
pub(super) fn is_meant(probe: &Probe<'_>) -> bool {
    let recursive = |header: Header| header.flag(0x0100) && header.id != 0;
    probe.transport == Transport::Udp
        && PROTOCOL.ports.contains(&probe.port)
        && !Header::parse(&mut Cursor::new(probe.data)).is_ok_and(recursive)
}
