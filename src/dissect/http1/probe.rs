//! Whether bytes are of HTTP/1: request and status lines.

use super::head::{self, Start};
use crate::dissect::{Probe, Verdict};
use crate::entry::Direction;

/// A request line without its end is believed from this length on.
const LONG_LINE: usize = 2048;

pub(super) fn probe(probe: &Probe<'_>) -> Verdict {
    match probe.direction {
        Direction::ToServer => probe_request(probe.data).max(probe_cut(probe)),
        Direction::ToClient => probe_response(probe.data),
    }
}

/// A request line; blank lines before it pass, as receivers let them.
pub(super) fn probe_request(data: &[u8]) -> Verdict {
    let data = data.get(blank_lines(data)..).unwrap_or_default();
    if let Some(end) = memchr::memchr(b'\n', data) {
        let line = data.get(..end).unwrap_or_default();
        let found = matches!(head::start_line(line), Some((Start::Request { .. }, _)));
        return if found { Verdict::Yes } else { Verdict::No };
    }
    let data = data.strip_suffix(b"\r").unwrap_or(data);
    let method = data.iter().take_while(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')).count();
    match data.get(method..) {
        Some([]) if method <= 32 => Verdict::More,
        Some([b' ', target @ ..]) if (1..=32).contains(&method) && target.iter().all(|&byte| byte >= b' ') => {
            let usual = matches!(target, [b'/', ..]) || target.starts_with(b"http://");
            if usual && data.len() >= LONG_LINE { Verdict::Yes } else { Verdict::More }
        }
        _ => Verdict::No,
    }
}

/// A request line of which the capture has the first bytes only.
fn probe_cut(probe: &Probe<'_>) -> Verdict {
    if probe.cut && head::cut_line(probe.data).is_some() { Verdict::Yes } else { Verdict::No }
}

/// The start of a status line.
pub(super) fn probe_response(data: &[u8]) -> Verdict {
    const SHAPE: &[u8] = b"HTTP/1.d ddd";
    let alike =
        SHAPE.iter().zip(data).all(|(&shape, &byte)| if shape == b'd' { byte.is_ascii_digit() } else { shape == byte });
    match data.get(SHAPE.len()) {
        _ if !alike => Verdict::No,
        None => Verdict::More,
        Some(b' ' | b'\r' | b'\n') => Verdict::Yes,
        Some(_) => Verdict::No,
    }
}

/// The length of the line breaks at the front.
pub(super) fn blank_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_what_looks_like_them() {
        for yes in ["GET / HTTP/1.1\r\n", "\r\nM-SEARCH * HTTP/1.1\r\n", "CONNECT a:443 HTTP/1.0\nx"] {
            assert_eq!(probe_request(yes.as_bytes()), Verdict::Yes, "{yes}");
            for cut in 1..yes.trim_end_matches('x').len() {
                assert_eq!(probe_request(yes.get(..cut).unwrap_or("").as_bytes()), Verdict::More, "{yes} cut at {cut}");
            }
        }
        for no in [
            "GET key\r\n",
            "get / HTTP/1.1\r\n\0",
            "PRI * HTTP/2.0\r\n",
            "SETUP rtsp://a RTSP/1.0\r\n",
            "*1\r\n$4\r\n",
            "EHLO a\r\n",
            "INVITE sip:a SIP/2.0\r\n",
            "GET \u{1}",
            "INFO {\"a\":1}\r\n",
        ] {
            let verdict = probe_request(no.as_bytes());
            assert!(verdict == Verdict::No || no.starts_with("get"), "{no}: {verdict:?}");
        }
        let long = format!("GET /{}", "a".repeat(LONG_LINE));
        assert_eq!(probe_request(long.as_bytes()), Verdict::Yes);
    }

    #[test]
    fn responses_are_told_by_their_status_line() {
        assert_eq!(probe_response(b"HTTP/1.1 200 OK"), Verdict::Yes);
        assert_eq!(probe_response(b"HTTP/1.0 404\r\n"), Verdict::Yes);
        assert_eq!(probe_response(b"HTTP/1.1 20"), Verdict::More);
        for no in [&b"HTTP/2 200"[..], b"HTTP/1.1 2000", b"ICY 200 OK", b"HTTP/1.1 2x"] {
            assert_eq!(probe_response(no), Verdict::No);
        }
    }
}
