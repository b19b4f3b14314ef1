//! The types and codes of ICMP and their names, from the IANA registries of their parameters.

use crate::entry::Text;

/// Which of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// True for messages that say that a packet did not arrive.
    pub fn is_error(self, kind: u8) -> bool {
        match self {
            Self::V4 => matches!(kind, 3 | 11 | 12),
            Self::V6 => matches!(kind, 1..=4),
        }
    }

    /// True for messages that quote the packet that they are about, from their ninth byte on.
    pub fn quotes(self, kind: u8) -> bool {
        match self {
            Self::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
            Self::V6 => matches!(kind, 1..=4),
        }
    }
}

/// A type's name; `type-200` if it has none.
pub(super) fn type_name(family: Family, kind: u8) -> Text {
    let name = match family {
        Family::V4 => match kind {
            0 => "echo-reply",
            3 => "destination-unreachable",
            4 => "source-quench",
            5 => "redirect",
            6 => "alternate-host-address",
            8 => "echo-request",
            9 => "router-advertisement",
            10 => "router-solicitation",
            11 => "time-exceeded",
            12 => "parameter-problem",
            13 => "timestamp-request",
            14 => "timestamp-reply",
            15 => "information-request",
            16 => "information-reply",
            17 => "address-mask-request",
            18 => "address-mask-reply",
            30 => "traceroute",
            31 => "datagram-conversion-error",
            37 => "domain-name-request",
            38 => "domain-name-reply",
            40 => "photuris",
            42 => "extended-echo-request",
            43 => "extended-echo-reply",
            _ => "",
        },
        Family::V6 => match kind {
            1 => "destination-unreachable",
            2 => "packet-too-big",
            3 => "time-exceeded",
            4 => "parameter-problem",
            128 => "echo-request",
            129 => "echo-reply",
            130 => "multicast-listener-query",
            131 => "multicast-listener-report",
            132 => "multicast-listener-done",
            133 => "router-solicitation",
            134 => "router-advertisement",
            135 => "neighbor-solicitation",
            136 => "neighbor-advertisement",
            137 => "redirect",
            138 => "router-renumbering",
            139 => "node-information-query",
            140 => "node-information-response",
            141 => "inverse-neighbor-solicitation",
            142 => "inverse-neighbor-advertisement",
            143 => "multicast-listener-report-v2",
            144 => "home-agent-address-discovery-request",
            145 => "home-agent-address-discovery-reply",
            146 => "mobile-prefix-solicitation",
            147 => "mobile-prefix-advertisement",
            148 => "certification-path-solicitation",
            149 => "certification-path-advertisement",
            151 => "multicast-router-advertisement",
            152 => "multicast-router-solicitation",
            153 => "multicast-router-termination",
            154 => "fast-handover",
            155 => "rpl-control",
            157 => "duplicate-address-request",
            158 => "duplicate-address-confirmation",
            160 => "extended-echo-request",
            161 => "extended-echo-reply",
            _ => "",
        },
    };
    if name.is_empty() { format!("type-{kind}").into() } else { name.into() }
}

/// What a code means, for the types that have several.
pub(super) fn code_name(family: Family, kind: u8, code: u8) -> Option<&'static str> {
    Some(match (family, kind, code) {
        (Family::V4, 3, 0) => "network unreachable",
        (Family::V4, 3, 1) => "host unreachable",
        (Family::V4, 3, 2) => "protocol unreachable",
        (Family::V4, 3, 3) | (Family::V6, 1, 4) => "port unreachable",
        (Family::V4, 3, 4) => "fragmentation needed and don't fragment was set",
        (Family::V4, 3, 5) => "source route failed",
        (Family::V4, 3, 6) => "destination network unknown",
        (Family::V4, 3, 7) => "destination host unknown",
        (Family::V4, 3, 8) => "source host isolated",
        (Family::V4, 3, 9) => "network administratively prohibited",
        (Family::V4, 3, 10) => "host administratively prohibited",
        (Family::V4, 3, 11) => "network unreachable for type of service",
        (Family::V4, 3, 12) => "host unreachable for type of service",
        (Family::V4, 3, 13) | (Family::V6, 1, 1) => "communication administratively prohibited",
        (Family::V4, 3, 14) => "host precedence violation",
        (Family::V4, 3, 15) => "precedence cutoff in effect",
        (Family::V4, 5, 0) => "redirect for the network",
        (Family::V4, 5, 1) => "redirect for the host",
        (Family::V4, 5, 2) => "redirect for the type of service and network",
        (Family::V4, 5, 3) => "redirect for the type of service and host",
        (Family::V4, 11, 0) => "time to live exceeded in transit",
        (Family::V4, 11, 1) | (Family::V6, 3, 1) => "fragment reassembly time exceeded",
        (Family::V4, 12, 0) => "pointer indicates the error",
        (Family::V4, 12, 1) => "missing a required option",
        (Family::V4, 12, 2) => "bad length",
        (Family::V6, 1, 0) => "no route to destination",
        (Family::V6, 1, 2) => "beyond scope of source address",
        (Family::V6, 1, 3) => "address unreachable",
        (Family::V6, 1, 5) => "source address failed ingress/egress policy",
        (Family::V6, 1, 6) => "reject route to destination",
        (Family::V6, 3, 0) => "hop limit exceeded in transit",
        (Family::V6, 4, 0) => "erroneous header field",
        (Family::V6, 4, 1) => "unrecognized next header type",
        (Family::V6, 4, 2) => "unrecognized IPv6 option",
        _ => return None,
    })
}
