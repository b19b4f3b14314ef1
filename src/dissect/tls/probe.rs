//! Whether bytes are of TLS: what a record that a side may start with looks like.

use super::handshake::kind;
use super::record::{self, Alert, Content, Header};
use crate::dissect::{Cursor, Probe, Verdict};
use crate::entry::Direction;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    if probe.direction == Direction::ToServer && is_v2_hello(probe.data) {
        return Verdict::Yes;
    }
    let header = match Header::parse(probe.data) {
        Ok(Some(header)) => header,
        Ok(None) => return Verdict::No,
        Err(_) => return if probe.data.is_empty() { Verdict::No } else { Verdict::More },
    };
    let payload = probe.data.get(record::HEADER..).unwrap_or_default();
    let payload = payload.get(..header.length).unwrap_or(payload);
    let hello = match probe.direction {
        Direction::ToServer => kind::CLIENT_HELLO,
        Direction::ToClient => kind::SERVER_HELLO,
    };
    match header.content {
        Content::Handshake if header.length > 0 => match *payload {
            // Type, length and the legacy version, whose first byte is 3 but in drafts.
            [first, _, _, _, 3 | 0x7f, minor, ..]
                if first == hello && (minor <= 4 || payload.get(4) == Some(&0x7f)) =>
            {
                Verdict::Yes
            }
            [first, ..] if payload.len() < 6 && header.length > payload.len() && first == hello => Verdict::More,
            [] => Verdict::More,
            // A message so short, or cut so short, that its version is in another record.
            [first, ..] if first == hello && header.length < 6 => Verdict::Maybe,
            _ if !probe.start => Verdict::Maybe,
            _ => Verdict::No,
        },
        Content::Alert if header.length == 2 && probe.direction == Direction::ToClient => match Alert::parse(payload) {
            Some(alert) if alert.name().starts_with(|first: char| first.is_ascii_alphabetic()) => Verdict::Yes,
            None if payload.len() < 2 => Verdict::More,
            _ => Verdict::No,
        },
        // In the midst of a connection: nothing but the header's plausibility speaks for it.
        _ if !probe.start && header.length > 0 => Verdict::Maybe,
        _ => Verdict::No,
    }
}

/// The hello of SSL 2.0 that clients once sent to reach older servers too: its lengths have to agree.
pub(super) fn is_v2_hello(data: &[u8]) -> bool {
    let mut cursor = Cursor::new(data);
    let Ok([high, low, kind::CLIENT_HELLO, major, minor]) = cursor.array::<5>() else { return false };
    let (Ok(suites), Ok(session), Ok(challenge)) = (cursor.u16(), cursor.u16(), cursor.u16()) else { return false };
    let length = u32::from(high & 0x7f) << 8 | u32::from(low);
    high & 0x80 != 0
        && matches!((major, minor), (0, 2) | (3, 0..=3))
        && suites > 0
        && suites % 3 == 0
        && matches!(session, 0 | 16)
        && (16..=32).contains(&challenge)
        && length == 9 + u32::from(suites) + u32::from(session) + u32::from(challenge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissect::Transport;

    fn verdict(direction: Direction, start: bool, data: &[u8]) -> Verdict {
        probe(&Probe { transport: Transport::Tcp, direction, data, port: 9999, start, cut: false })
    }

    #[test]
    fn hellos_are_known_by_their_direction() {
        let client = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        assert_eq!(verdict(Direction::ToServer, true, client), Verdict::Yes);
        assert_eq!(verdict(Direction::ToClient, true, client), Verdict::No);
        assert_eq!(verdict(Direction::ToServer, true, b"\x16\x03\x01\x02"), Verdict::More);
        assert_eq!(verdict(Direction::ToClient, true, b"\x15\x03\x01\x00\x02\x02\x28"), Verdict::Yes);
        assert_eq!(verdict(Direction::ToServer, true, b"\x17\x03\x03\x00\x20"), Verdict::No);
        assert_eq!(verdict(Direction::ToServer, false, b"\x17\x03\x03\x00\x20"), Verdict::Maybe);
    }

    #[test]
    fn the_old_hello_has_to_add_up() {
        let mut hello = b"\x80\x1f\x01\x03\x01\x00\x06\x00\x00\x00\x10".to_vec();
        hello.extend([0; 22]);
        assert_eq!(verdict(Direction::ToServer, true, &hello), Verdict::Yes);
        if let Some(length) = hello.get_mut(1) {
            *length = 0x20;
        }
        assert_eq!(verdict(Direction::ToServer, true, &hello), Verdict::No);
    }
}
