//! Tells Redis from other line protocols, and finds the next message in the middle of a stream.

use super::commands;
use super::requests::{MAX_ARGUMENTS, argument, is_name};
use super::resp::{self, Fault, Item, Kind};
use super::walk::Walk;
use super::{MAX_WORD, PROTOCOL};
use crate::dissect::boundary::Boundary;
use crate::dissect::{Cursor, Probe, Verdict};
use crate::entry::Direction;

/// How many items are looked at.
const MAX_LOOKED_AT: usize = 64;
/// How far a message boundary is searched.
const MAX_SEARCH: usize = 4096;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    let hinted = PROTOCOL.ports.contains(&probe.port);
    if probe.start {
        return match (probe.direction, probe.data.first()) {
            (_, None) => Verdict::More,
            (Direction::ToServer, Some(b'*')) => command(probe.data),
            // Many protocols have lines that start with GET or PING.
            (Direction::ToServer, Some(_)) if hinted => inline(probe.data),
            (Direction::ToServer, Some(_)) => Verdict::No,
            (Direction::ToClient, Some(_)) => replies(probe.data),
        };
    }
    match (boundary(probe.direction, probe.data), probe.direction) {
        (Boundary::At(0), Direction::ToClient) => replies(probe.data),
        (Boundary::At(0), Direction::ToServer) => command(probe.data),
        (Boundary::At(_), _) => Verdict::Yes,
        (Boundary::Wait, _) => Verdict::More,
        (Boundary::No, _) if hinted && probe.data.len() < MAX_SEARCH => Verdict::More,
        (Boundary::No, _) => Verdict::No,
    }
}

/// Finds the start of a message: here, or after some line's end if what follows can hardly be anything else.
pub(super) fn boundary(direction: Direction, bytes: &[u8]) -> Boundary {
    let verdict = |bytes: &[u8]| match direction {
        Direction::ToServer => command(bytes),
        Direction::ToClient => replies(bytes),
    };
    let mut wait = false;
    match verdict(bytes) {
        Verdict::Maybe | Verdict::Yes => return Boundary::At(0),
        Verdict::More => wait = true,
        Verdict::No => {}
    }
    let searched = bytes.get(..MAX_SEARCH).unwrap_or(bytes);
    for line in memchr::memmem::find_iter(searched, b"\r\n").map(|end| end + 2) {
        match bytes.get(line..).filter(|rest| !rest.is_empty()).map(verdict) {
            Some(Verdict::Yes) => return Boundary::At(line),
            Some(Verdict::More) => wait = true,
            _ => {}
        }
    }
    if wait && bytes.len() < MAX_SEARCH { Boundary::Wait } else { Boundary::No }
}

/// Whether the bytes are a command, or the start of one: an array of strings, the first of which is a name.
fn command(bytes: &[u8]) -> Verdict {
    let mut cursor = Cursor::new(bytes);
    let count = match resp::item(&mut cursor) {
        Ok(Item::Aggregate(Kind::Array, Some(count @ 1..=MAX_ARGUMENTS))) => count,
        Err(Fault::Short(_)) if bytes.first() == Some(&b'*') => return Verdict::More,
        _ => return Verdict::No,
    };
    let word = match argument(&mut cursor, MAX_WORD) {
        Ok((len, body)) if len == body.head.len() as u64 && is_name(body.head) => body.head,
        Err(Fault::Short(_)) => return Verdict::More,
        _ => return Verdict::No,
    };
    for _ in 1..count.min(MAX_LOOKED_AT as u64) {
        match argument(&mut cursor, 0) {
            Ok(_) => {}
            Err(Fault::Short(_)) => break,
            Err(Fault::Malformed(_)) => return Verdict::No,
        }
    }
    if commands::find(word).is_some() { Verdict::Yes } else { Verdict::Maybe }
}

/// Whether the bytes are an inline command.
fn inline(bytes: &[u8]) -> Verdict {
    match resp::inline(&mut Cursor::new(bytes)) {
        Ok(line) => match resp::words(line).next() {
            Some(word) if commands::find(word).is_some() => Verdict::Maybe,
            _ => Verdict::No,
        },
        Err(Fault::Short(_)) if resp::words(bytes).next().is_none_or(is_name) => Verdict::More,
        Err(_) => Verdict::No,
    }
}

/// Whether the bytes are replies. Strings and aggregates that are consistent are proof, lines alone are not.
fn replies(bytes: &[u8]) -> Verdict {
    let mut cursor = Cursor::new(bytes);
    let mut walk = Walk::default();
    let (mut whole, mut proof, mut aggregate) = (0, false, false);
    for looked_at in 0..MAX_LOOKED_AT {
        if cursor.is_empty() {
            break;
        }
        if walk.is_done() {
            walk.start(false);
        }
        let item = match resp::item(&mut cursor) {
            Ok(item) => item,
            Err(Fault::Short(_)) if looked_at == 0 => return Verdict::More,
            Err(Fault::Short(_)) => break,
            Err(Fault::Malformed(_)) => return Verdict::No,
        };
        let body = match item {
            Item::Bulk(_, len) => match resp::body(&mut cursor, len, MAX_WORD) {
                Ok(body) => Some(body),
                Err(Fault::Short(_)) => break,
                Err(Fault::Malformed(_)) => return Verdict::No,
            },
            // A line of text that merely begins with the right character.
            Item::Simple(line) | Item::Error(line) if line.iter().any(u8::is_ascii_control) => return Verdict::No,
            _ => None,
        };
        // An array of strings that starts with a command is what a client sends.
        if let Some(body) = &body {
            if aggregate && looked_at == 1 && commands::find(body.head).is_some() {
                return Verdict::Maybe;
            }
            proof |= body.beyond == 0;
        }
        aggregate |= looked_at == 0 && matches!(item, Item::Aggregate(Kind::Array, _));
        proof |= matches!(item, Item::Aggregate(Kind::Map | Kind::Push | Kind::Set, Some(_)) if looked_at > 0);
        if walk.pass(&item, None).is_err() {
            return Verdict::No;
        }
        whole += usize::from(walk.is_done());
        if body.is_some_and(|body| body.beyond > 0) {
            break;
        }
    }
    match (proof, whole) {
        (true, _) => Verdict::Yes,
        (false, 1..) => Verdict::Maybe,
        (false, 0) => Verdict::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(direction: Direction, data: &[u8], port: u16, start: bool) -> Verdict {
        probe(&Probe { transport: crate::dissect::Transport::Tcp, direction, data, port, start, cut: false })
    }

    #[test]
    fn commands_and_replies_are_known_on_any_port() {
        assert_eq!(verdict(Direction::ToServer, b"*2\r\n$3\r\nget\r\n$1\r\na\r\n", 7000, true), Verdict::Yes);
        assert_eq!(verdict(Direction::ToServer, b"*2\r\n$3\r\nge", 7000, true), Verdict::More);
        assert_eq!(verdict(Direction::ToClient, b"$5\r\nhello\r\n", 7000, true), Verdict::Yes);
        assert_eq!(verdict(Direction::ToClient, b"*2\r\n$1\r\na\r\n$-1\r\n", 7000, true), Verdict::Yes);
        assert_eq!(verdict(Direction::ToClient, b"+OK\r\n", 7000, true), Verdict::Maybe);
    }

    #[test]
    fn other_line_protocols_are_not_taken_for_it() {
        for line in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"get key\r\n",
            b"set key 0 0 5\r\nhello\r\n",
            b"PING\r\n",
            b"PUB a 5\r\nhello\r\n",
            b"QUIT\r\n",
            b"EHLO example.com\r\n",
            b"INFO {\"server_id\":\"x\"}\r\n",
        ] {
            assert_eq!(verdict(Direction::ToServer, line, 11211, true), Verdict::No, "{}", line.escape_ascii());
        }
        for line in [
            &b"VALUE a 0 5\r\nhello\r\nEND\r\n"[..],
            b"220 ready\r\n",
            b"MSG a 1 5\r\nhello\r\n",
            b"* OK IMAP4 ready\r\n",
        ] {
            assert_eq!(verdict(Direction::ToClient, line, 143, true), Verdict::No, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_boundary_is_found_inside_a_stream() {
        assert_eq!(boundary(Direction::ToServer, b"lue\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"), Boundary::At(5));
        assert_eq!(boundary(Direction::ToServer, b"lue\r\n*2\r\n$3\r\nGE"), Boundary::Wait);
        assert_eq!(boundary(Direction::ToServer, b"some value"), Boundary::No);
        assert_eq!(boundary(Direction::ToClient, b"lue\r\n$1\r\na\r\n"), Boundary::At(5));
    }
}
