//! Multicast DNS (RFC 6762): nobody waits for a certain answer, so each message is a row of its own.

use super::{Dns, Kind, plausible};
use crate::dissect::{Probe, Protocol, Transport, Verdict};

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
    if !PROTOCOL.ports.contains(&probe.port) {
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
