//! Tells MySQL from other protocols: by the greeting and the login, else by commands and by packets that follow each other.

use super::commands::{self, STMT_EXECUTE};
use super::handshake;
use super::packet::{self, EOF, ERR, HEADER, Header, LOCAL_INFILE, MAX_PAYLOAD, OK};
use super::{Cursor, PROTOCOL, Probe, Verdict, answers, compression, sql};
use crate::entry::Direction;

/// How many packets are looked at.
const MAX_LOOKED_AT: usize = 32;
/// A statement that is not whole yet has to begin with so much that is right to be recognised.
const MIN_BEGINNING: usize = 12;
/// The longest version of a server.
const MAX_VERSION: usize = 80;
/// The numbers of errors.
const ERRORS: std::ops::RangeInclusive<u16> = 1000..=19_999;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    if probe.data.is_empty() {
        return Verdict::More;
    }
    let login = match probe.direction {
        Direction::ToClient => greeting(probe.data, probe.start),
        Direction::ToServer => login(probe.data),
    };
    if login != Verdict::No {
        return login;
    }
    if probe.start && probe.direction == Direction::ToClient {
        return Verdict::No;
    }
    let plain = packets(probe);
    if plain >= Verdict::Maybe {
        return plain;
    }
    match compression::peek(probe.data) {
        Some(inner) => packets(&Probe { data: &inner, ..*probe }).max(plain),
        None => plain,
    }
}

/// The first packet of a server.
fn greeting(data: &[u8], start: bool) -> Verdict {
    let Some(header) = Header::parse(data) else {
        return match data {
            [] => Verdict::More,
            // What is short enough, and begins.
            [_, 0, ..] | [_] if start && data.get(2).is_none_or(|byte| *byte == 0) => Verdict::More,
            _ => Verdict::No,
        };
    };
    if header.sequence != 0 || header.len < 3 || header.len > 1024 {
        return Verdict::No;
    }
    let payload = header.head(data, header.len).ok();
    let seen = payload.or(data.get(HEADER..)).unwrap_or_default();
    match seen.first() {
        None => Verdict::More,
        Some(10) => {
            let end = memchr::memchr(0, seen.get(1..).unwrap_or_default());
            let version = seen.get(1..).unwrap_or_default();
            let version = version.get(..end.unwrap_or(version.len())).unwrap_or_default();
            if version.len() > MAX_VERSION || !version.is_ascii() || !sql::is_text(version) && !version.is_empty() {
                return Verdict::No;
            }
            match payload {
                None => Verdict::More,
                Some(payload) => match handshake::greeting(payload) {
                    Ok(greeting) if greeting.version.first().is_some_and(u8::is_ascii_digit) => Verdict::Yes,
                    Ok(_) => Verdict::Maybe,
                    Err(_) => Verdict::No,
                },
            }
        }
        Some(&ERR) if start => match payload {
            None => Verdict::More,
            Some(payload) if is_error(payload) && data.len() == header.total() => Verdict::Maybe,
            Some(_) => Verdict::No,
        },
        Some(_) => Verdict::No,
    }
}

fn is_error(payload: &[u8]) -> bool {
    packet::error(payload).is_ok_and(|(code, state, message)| {
        ERRORS.contains(&code)
            && state.iter().all(u8::is_ascii_alphanumeric)
            && (!state.is_empty() || !message.starts_with(b"#"))
            && (message.is_empty() || sql::is_text(message))
    })
}

/// The first packet of a client.
fn login(data: &[u8]) -> Verdict {
    let Some(header) = Header::parse(data) else { return Verdict::No };
    if !(1..=3).contains(&header.sequence) || header.len < 32 || header.len >= MAX_PAYLOAD {
        return Verdict::No;
    }
    let seen = header.head(data, 28).unwrap_or_else(|_| data.get(HEADER..).unwrap_or_default());
    if seen.len() >= 28 {
        return if handshake::is_login(seen) { Verdict::Yes } else { Verdict::No };
    }
    Verdict::More
}

/// Packets of a connection that may have been joined anywhere.
pub(super) fn packets(probe: &Probe<'_>) -> Verdict {
    let hinted = PROTOCOL.ports.contains(&probe.port);
    let mut rest = probe.data;
    let mut best = Verdict::More;
    let mut before: Option<Header> = None;
    // It begins with what belongs to an earlier command: bytes of others can look so too.
    let mut late = false;
    // A number of columns, whose definitions have to follow.
    let mut announced = false;
    for looked_at in 0..MAX_LOOKED_AT {
        let Some(header) = Header::parse(rest) else { return best };
        let body = rest.get(HEADER..).unwrap_or_default();
        let whole = body.get(..header.len);
        let seen = whole.unwrap_or(body);
        let continues = before.is_some_and(|before| header.sequence == before.sequence.wrapping_add(1));
        let verdict = match probe.direction {
            Direction::ToServer if header.sequence != 0 => {
                // The rest of a long command, or what goes with one: proof of nothing, unless a command comes behind it.
                late |= before.is_none();
                if continues || before.is_none() && whole.is_some() { Verdict::More } else { Verdict::No }
            }
            Direction::ToServer if late => of_client(header, seen, whole.is_some()).min(Verdict::Maybe),
            Direction::ToServer => of_client(header, seen, whole.is_some()),
            Direction::ToClient if header.sequence == 0 && before.is_none() => Verdict::No,
            // An answer begins anew with 1, else packets are numbered on.
            Direction::ToClient if before.is_some() && !continues && header.sequence != 1 => Verdict::No,
            Direction::ToClient if std::mem::take(&mut announced) => {
                if is_definition(seen) || seen.len() < 4 && whole.is_none() { Verdict::Yes } else { Verdict::No }
            }
            Direction::ToClient if continues => {
                if header.len == 0 {
                    Verdict::No
                } else {
                    Verdict::Maybe
                }
            }
            Direction::ToClient => {
                announced = header.sequence == 1 && header.len <= 2 && seen.first().is_some_and(|count| *count > 0);
                if announced { Verdict::More } else { of_server(header, seen, whole.is_some()) }
            }
        };
        if verdict == Verdict::No {
            return Verdict::No;
        }
        let Some(next) = rest.get(header.total()..).filter(|_| whole.is_some()) else {
            return match verdict {
                // Where a packet ends that is not whole says nothing.
                Verdict::Maybe if looked_at == 0 && !hinted => best.max(Verdict::More),
                verdict => best.max(verdict),
            };
        };
        best = best.max(verdict);
        if next.is_empty() {
            return best;
        }
        before = Some(header);
        rest = next;
    }
    best
}

/// A definition of a column: its catalogue is always "def".
fn is_definition(payload: &[u8]) -> bool {
    payload.starts_with(b"\x03def")
}

fn of_client(header: Header, payload: &[u8], whole: bool) -> Verdict {
    let Some(&code) = payload.first() else {
        return if header.len > 0 && header.sequence == 0 { Verdict::More } else { Verdict::No };
    };
    let Some((_, _, least, most)) = commands::command(code) else { return Verdict::No };
    if header.sequence != 0 || code == commands::SLEEP || !(least..=most).contains(&header.len) {
        return Verdict::No;
    }
    let rest = payload.get(1..).unwrap_or_default();
    if let Some(text) = commands::statement(payload) {
        return match (sql::is_statement(text), sql::is_text(text)) {
            (true, _) if whole || text.len() >= MIN_BEGINNING => Verdict::Yes,
            (_, true) if whole => Verdict::Maybe,
            (_, true) => Verdict::More,
            // A beginning that is too short, or attributes before the text.
            _ if !whole && text.len() < MIN_BEGINNING => Verdict::More,
            _ if rest.first().is_some_and(|count| (1..0x20).contains(count)) && rest.get(1) == Some(&1) => {
                Verdict::Maybe
            }
            _ => Verdict::No,
        };
    }
    match code {
        STMT_EXECUTE => {
            let mut cursor = Cursor::new(rest);
            let (Ok(_), Ok(flags), Ok(iterations)) = (cursor.u32_le(), cursor.u8(), cursor.u32_le()) else {
                return Verdict::More;
            };
            if flags < 0x20 && iterations == 1 { Verdict::Yes } else { Verdict::No }
        }
        commands::INIT_DB | 0x05 | 0x06 if whole => {
            if commands::is_name(rest) {
                Verdict::Maybe
            } else {
                Verdict::No
            }
        }
        commands::CHANGE_USER => {
            let user = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            if user.is_empty() || sql::is_text(user) { Verdict::Maybe } else { Verdict::No }
        }
        _ => Verdict::Maybe,
    }
}

fn of_server(header: Header, payload: &[u8], whole: bool) -> Verdict {
    let sure = |is: bool| if is { Verdict::Yes } else { Verdict::No };
    match payload.first() {
        None => {
            if header.len == 0 {
                Verdict::No
            } else {
                Verdict::More
            }
        }
        Some(_) if !whole && payload.len() < 12 => Verdict::More,
        Some(&ERR) => sure(header.len < 4096 && is_error(payload)),
        Some(&EOF) if header.len == 5 => Verdict::Maybe,
        Some(&LOCAL_INFILE) if header.sequence == 1 && sql::is_text(payload.get(1..).unwrap_or_default()) => {
            Verdict::Maybe
        }
        // A prepared statement.
        Some(&OK) if header.len == 12 && payload.get(9) == Some(&0) && header.sequence == 1 => Verdict::Maybe,
        Some(&(OK | EOF)) if answers::is_okay(payload, header.len) => {
            let exact = header.len == 7 && header.sequence == 1 && payload.first() == Some(&OK);
            if exact { Verdict::Yes } else { Verdict::Maybe }
        }
        // A binary row.
        Some(&OK) if header.sequence > 1 => Verdict::Maybe,
        Some(_) if is_definition(payload) => Verdict::Yes,
        Some(_) if header.sequence == 1 && sql::is_text(payload) && payload.starts_with(b"Uptime") => Verdict::Yes,
        _ => Verdict::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissect::Transport;

    fn verdict(direction: Direction, start: bool, data: &[u8]) -> Verdict {
        probe(&Probe { transport: Transport::Tcp, direction, data, port: 9999, start, cut: false })
    }

    #[test]
    fn a_greeting_is_proof() {
        let greeting = b"\x36\0\0\0\x0a5.7.1\0\x01\0\0\0abcdefgh\0\xff\xf7\x08\x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0\
            ijklmnopqrst\0mysql_n";
        assert_eq!(verdict(Direction::ToClient, true, greeting), Verdict::Yes);
        assert_eq!(verdict(Direction::ToClient, true, greeting.get(..40).unwrap_or_default()), Verdict::More);
        assert_eq!(verdict(Direction::ToServer, true, greeting), Verdict::No);
        assert_eq!(verdict(Direction::ToClient, true, b"\x36\0\0\0\x09"), Verdict::No);
        assert_eq!(verdict(Direction::ToClient, true, b"HTTP/1.1 200 OK\r\n"), Verdict::No);
    }

    #[test]
    fn commands_of_clients_that_were_joined() {
        let client = |data| verdict(Direction::ToServer, false, data);
        assert_eq!(client(b"\x09\0\0\0\x03SELECT 1"), Verdict::Yes);
        assert_eq!(client(b"\x0b\0\0\0\x03\0\x01SELECT 1"), Verdict::Yes);
        assert_eq!(client(b"\x01\0\0\0\x0e"), Verdict::Maybe);
        assert_eq!(client(b"\x01\0\0\0\x0e\x01\0\0\0\x01"), Verdict::Maybe);
        assert_eq!(client(b"\x01\0\0\0\x7e"), Verdict::No);
        assert_eq!(client(b"\x09\0\0\x01\x03SELECT 1"), Verdict::More);
        assert_eq!(client(b"\x02\0\0\x02ab\0\0\0\x03\x09\0\0\0\x03SELECT 1"), Verdict::Maybe);
        assert_eq!(client(b"GET / HTTP/1.1\r\n\r\n"), Verdict::No);
    }

    #[test]
    fn answers_of_servers_that_were_joined() {
        let server = |data| verdict(Direction::ToClient, false, data);
        assert_eq!(server(b"\x07\0\0\x01\0\0\0\x02\0\0\0"), Verdict::Yes);
        assert_eq!(server(b"\x09\0\0\x01\xff\x28\x04#42000"), Verdict::Yes);
        assert_eq!(server(b"\x01\0\0\x01\x01"), Verdict::More);
        assert_eq!(server(b"\x01\0\0\x01\x01\x04\0\0\x02\x03def"), Verdict::Yes);
        assert_eq!(server(b"\x01\0\0\x01\x01\x04\0\0\x02\x03abc"), Verdict::No);
    }
}
