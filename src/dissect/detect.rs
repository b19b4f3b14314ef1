//! Which protocol the first bytes of a flow are of: by content; ports only break ties.

use super::{PROTOCOLS, Probe, Protocol, Transport, Verdict};
use crate::entry::Direction;

/// What detection knows after looking at the bytes so far.
#[derive(Clone, Copy, Debug)]
pub(super) enum Detected {
    /// It is this; `reversed` if the sender was taken for the wrong side.
    Yes { protocol: &'static Protocol, reversed: bool },
    /// Call again with more bytes, or with the other direction's; `hinted` if a protocol of this port hopes for them.
    More { hinted: bool },
    /// No protocol's.
    No,
}

/// Looks at the first bytes of one direction, `probe`, and at the other direction's so far.
///
/// While `certain` is false the sender's side is a guess, and a protocol may find the bytes to be the other side's. `hint`
/// counts as the protocol's port does.
pub(super) fn detect(probe: &Probe<'_>, other: &[u8], certain: bool, hint: Option<&'static Protocol>) -> Detected {
    let mut best = None;
    let (mut more, mut wanted) = (false, false);
    for protocol in PROTOCOLS.iter().copied().filter(|protocol| carries(protocol.transport, probe.transport)) {
        let hinted = protocol.ports.contains(&probe.port) || hint.is_some_and(|hint| std::ptr::eq(hint, protocol));
        for reversed in [false, true] {
            if reversed && certain {
                break;
            }
            let direction = if reversed { probe.direction.reverse() } else { probe.direction };
            match (protocol.probe)(&Probe { direction, ..*probe }) {
                Verdict::No => {}
                Verdict::More => {
                    more = true;
                    wanted |= hinted;
                }
                Verdict::Maybe => {
                    // Half a proof: the port makes it whole, or the other direction does.
                    let backed = hinted && !reversed
                        || !other.is_empty()
                            && (protocol.probe)(&Probe { direction: direction.reverse(), data: other, ..*probe })
                                >= Verdict::Maybe;
                    if backed {
                        rank(&mut best, (u8::from(hinted), protocol, reversed));
                    }
                    more = true;
                }
                Verdict::Yes => {
                    rank(&mut best, (if reversed { 2 } else { 3 } + u8::from(hinted) * 2, protocol, reversed));
                }
            }
        }
    }
    match best {
        Some((_, protocol, reversed)) => Detected::Yes { protocol, reversed },
        None if more => Detected::More { hinted: wanted },
        None => Detected::No,
    }
}

type Candidate = (u8, &'static Protocol, bool);

/// Keeps the better candidate; the earlier one of equals.
fn rank(best: &mut Option<Candidate>, candidate: Candidate) {
    if best.is_none_or(|best| candidate.0 > best.0) {
        *best = Some(candidate);
    }
}

/// True if the transport may carry the protocol.
fn carries(protocol: Transport, flow: Transport) -> bool {
    match protocol {
        Transport::Both => matches!(flow, Transport::Tcp | Transport::Udp),
        Transport::TcpOrSctp => matches!(flow, Transport::Tcp | Transport::Sctp),
        _ => protocol == flow,
    }
}

/// The one protocol's own verdict on bytes of a known sender.
pub(super) fn confirms(
    protocol: &Protocol,
    transport: Transport,
    direction: Direction,
    data: &[u8],
    port: u16,
    cut: bool,
) -> Verdict {
    (protocol.probe)(&Probe { transport, direction, data, port, start: false, cut })
}
