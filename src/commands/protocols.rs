//! `kubectl sniff protocols`: what can be dissected.

use crate::dissect::{PROTOCOLS, Transport};
use crate::output::listing;

/// List the protocols that are dissected.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<(), super::Failure> {
    let rows = PROTOCOLS.iter().map(|protocol| {
        let transport = match protocol.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
            Transport::Both => "TCP, UDP",
            Transport::Sctp => "SCTP",
            Transport::TcpOrSctp => "TCP, SCTP",
            Transport::Icmp => "IP",
        };
        let ports: Vec<String> = protocol.ports.iter().map(u16::to_string).collect();
        [protocol.name, protocol.title, transport, &ports.join(", "), protocol.spec].map(str::to_owned)
    });
    let header = ["NAME", "PROTOCOL", "TRANSPORT", "USUAL PORTS", "SPECIFICATION"];
    Ok(listing(&mut anstream::stdout(), &header, rows)?)
}
