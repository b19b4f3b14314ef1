//! `kubectl sniff protocols`: what can be dissected.

use std::io::Write;

use comfy_table::{Table, presets};

use crate::dissect::{PROTOCOLS, Transport};

/// Lists the protocols that are dissected.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<(), super::Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NAME", "PROTOCOL", "TRANSPORT", "USUAL PORTS", "SPECIFICATION"]);
    for protocol in PROTOCOLS {
        let transport = match protocol.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
            Transport::Both => "TCP, UDP",
            Transport::Sctp => "SCTP",
            Transport::TcpOrSctp => "TCP, SCTP",
            Transport::Icmp => "IP",
        };
        let ports: Vec<String> = protocol.ports.iter().map(u16::to_string).collect();
        table.add_row([protocol.name, protocol.title, transport, &ports.join(", "), protocol.spec]);
    }
    for line in table.to_string().lines() {
        writeln!(anstream::stdout(), "{}", line.trim_end())?;
    }
    Ok(())
}
