//! Link-local multicast name resolution (RFC 4795).
//!
//! Responses come from a responder's own address to the asker's port, so that in a capture they are a flow of their own.

use super::{Dns, Kind, plausible};
use crate::dissect::{Probe, Protocol, Transport, Verdict};

pub static PROTOCOL: Protocol = Protocol {
    name: "llmnr",
    title: "LLMNR",
    transport: Transport::Udp,
    ports: &[5355],
    probe,
    new: || Box::new(Dns::new(Kind::LinkLocal)),
    repeats: true,
    spec: "https://www.rfc-editor.org/rfc/rfc4795",
};

fn probe(probe: &Probe<'_>) -> Verdict {
    if !PROTOCOL.ports.contains(&probe.port) {
        return Verdict::No;
    }
    plausible(probe.data, probe.direction, Kind::LinkLocal, true, false)
}
