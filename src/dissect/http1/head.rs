//! Heads of HTTP/1 messages (RFC 9112 sections 2 to 5): start line and fields, read where they lie.
//!
//! As lenient as the receivers are: bare line feeds, folded fields and stray spaces pass; lines that are no fields are left out.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};

use crate::dissect::Malformed;

/// The first line of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start<'a> {
    Request { method: &'a [u8], target: &'a [u8] },
    Response { code: u16, reason: &'a [u8] },
}

/// The first line and the fields.
#[derive(Clone, Debug)]
pub(super) struct Head<'a> {
    pub start: Start<'a>,
    /// The two digits of the version, as `1.1`.
    pub version: &'a [u8],
    pub fields: Fields<'a>,
}

/// Where a head ends: `Ok` is its length with the empty line, `Err` the place where to look on when more bytes have come.
pub(in crate::dissect) fn end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let rest = bytes.get(from..).unwrap_or_default();
    let mut resume = from;
    for at in memchr_iter(b'\n', rest).map(|at| at + from) {
        match bytes.get(at + 1..) {
            Some([b'\n', ..]) => return Ok(at + 2),
            Some([b'\r', b'\n', ..]) => return Ok(at + 3),
            Some([] | [b'\r']) | None => return Err(at),
            _ => resume = at + 1,
        }
    }
    Err(resume)
}

/// The parts of a whole head, or of one that was cut short.
pub(super) fn parse(head: &[u8]) -> Result<Head<'_>, Malformed> {
    let (line, rest) = split_line(head);
    let (start, version) = start_line(line).ok_or(Malformed("neither a request line nor a status line"))?;
    Ok(Head { start, version, fields: Fields(rest) })
}

/// A request or status line, without its line break, and the digits of its version.
pub(super) fn start_line(line: &[u8]) -> Option<(Start<'_>, &[u8])> {
    if let Some(rest) = line.strip_prefix(b"HTTP/") {
        let (version, rest) = rest.split_at_checked(3)?;
        let rest = rest.strip_prefix(b" ")?.trim_ascii_start();
        let (code, reason) = rest.split_at_checked(3)?;
        let code: u16 = std::str::from_utf8(code).ok()?.parse().ok()?;
        let apart = reason.first().is_none_or(u8::is_ascii_whitespace);
        return (is_version(version) && (100..1000).contains(&code) && apart)
            .then_some((Start::Response { code, reason: reason.trim_ascii() }, version));
    }
    let space = memchr(b' ', line)?;
    let (method, rest) = line.split_at_checked(space)?;
    let (rest, version) = rest.trim_ascii().split_at_checked(rest.trim_ascii().len().checked_sub(8)?)?;
    let version = version.strip_prefix(b"HTTP/")?;
    let target = rest.strip_suffix(b" ")?.trim_ascii();
    (is_method(method) && is_version(version) && !target.is_empty())
        .then_some((Start::Request { method, target }, version))
}

/// A start line that was cut short, if its first bytes tell enough; the target is as much of it as there is.
pub(super) fn cut_line(line: &[u8]) -> Option<(Start<'_>, &[u8])> {
    /// RFC 9110 section 9.3 and RFC 5789: with a path they are hardly anything else.
    const METHODS: [&[u8]; 7] = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"];
    if line.starts_with(b"HTTP/") {
        return start_line(line);
    }
    let (method, rest) = line.split_at_checked(memchr(b' ', line)?)?;
    let rest = rest.get(1..)?;
    let target = rest.split(|&byte| byte == b' ').next()?;
    let version = rest.get(target.len()..)?.trim_ascii();
    let path = target.starts_with(b"/") || target.starts_with(b"http://");
    let text = target.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    let versioned = version.starts_with(b"HTTP/1.") || b"HTTP/1.".starts_with(version);
    (METHODS.contains(&method) && path && text && versioned)
        .then_some((Start::Request { method, target }, version.get(5..8).unwrap_or_default()))
}

/// A token (RFC 9110 section 5.6.2) of a sensible length.
fn is_method(method: &[u8]) -> bool {
    (1..=32).contains(&method.len()) && method.iter().all(|&byte| is_token(byte))
}

pub(in crate::dissect) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// HTTP/1 alone: a newer one has no start lines.
fn is_version(version: &[u8]) -> bool {
    matches!(version, [b'1', b'.', minor] if minor.is_ascii_digit())
}

/// The bytes before the first line break, and those after it.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some(end) = memchr(b'\n', bytes) else { return (bytes, &[]) };
    let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    (line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..).unwrap_or_default())
}

/// The fields of a head or trailer, read one by one: name, and value with the line breaks of a folded one.
#[derive(Clone, Debug)]
pub(in crate::dissect) struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let all = self.0;
            let (line, mut rest) = split_line(all);
            if line.is_empty() {
                return None;
            }
            // A line that starts with a space goes on with the value before it.
            while let [b' ' | b'\t', ..] = rest {
                rest = split_line(rest).1;
            }
            self.0 = rest;
            let whole = all.get(..all.len() - rest.len()).unwrap_or_default();
            if let Some(colon) = memchr(b':', line)
                && let (Some(name), Some(value)) = (whole.get(..colon), whole.get(colon + 1..))
            {
                return Some((name.trim_ascii(), value.trim_ascii()));
            }
        }
    }
}

/// The value of a folded field in one line.
pub(in crate::dissect) fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    let lines: Vec<_> = value.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).collect();
    Cow::Owned(lines.join(&b' '))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn start_lines() {
        let request = |method, target| Some((Start::Request { method, target }, &b"1.1"[..]));
        assert_eq!(start_line(b"GET /a?b HTTP/1.1"), request(&b"GET"[..], &b"/a?b"[..]));
        assert_eq!(start_line(b"OPTIONS * HTTP/1.1"), request(b"OPTIONS", b"*"));
        assert_eq!(start_line(b"GET http://a/b HTTP/1.1"), request(b"GET", b"http://a/b"));
        assert_eq!(start_line(b"GET  /two words  HTTP/1.1 "), request(b"GET", b"/two words"));
        let response = |code, reason| Some((Start::Response { code, reason }, &b"1.0"[..]));
        assert_eq!(start_line(b"HTTP/1.0 200 OK"), response(200, b"OK"));
        assert_eq!(start_line(b"HTTP/1.0 404"), response(404, b""));
        for bad in [
            "GET /",
            "GET / HTTP/2.0",
            "GET / SIP/2.0",
            "GET  HTTP/1.1",
            "G(T / HTTP/1.1",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1 abc",
            "HTTP/3 200 OK",
            "",
            " / HTTP/1.1",
        ] {
            assert_eq!(start_line(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn start_lines_cut_short() {
        for (line, target) in [
            ("GET /", "/"),
            ("GET /a/b?c=d", "/a/b?c=d"),
            ("POST /a ", "/a"),
            ("PUT http://a/b HT", "http://a/b"),
            ("HEAD /a HTTP/1.1", "/a"),
        ] {
            let method = line.split(' ').next().unwrap().as_bytes();
            let start = cut_line(line.as_bytes()).map(|(start, _)| start);
            assert_eq!(start, Some(Start::Request { method, target: target.as_bytes() }), "{line}");
        }
        for bad in
            ["GET", "GET ", "GET a", "GET /a RTSP", "GET /a HTTP/2", "get /a", "EVAL /a", "GET /\x01", "HTTP/1.1 20"]
        {
            assert_eq!(cut_line(bad.as_bytes()), None, "{bad}");
        }
        let response = Start::Response { code: 200, reason: b"O" };
        assert_eq!(cut_line(b"HTTP/1.1 200 O"), Some((response, &b"1.1"[..])));
    }

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        for head in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\nA: b\n\n", "GET / HTTP/1.1\r\n\r\n"] {
            let mut from = 0;
            for cut in 1..head.len() {
                from = end(&head.as_bytes()[..cut], from).unwrap_err();
            }
            assert_eq!(end(head.as_bytes(), from), Ok(head.len()), "{head:?}");
        }
    }

    #[test]
    fn fields_folded_and_stray() {
        let head = parse(b"GET / HTTP/1.1\r\nA : b\r\n\tc\r\nno field\r\nD:\r\nE: f:g \n\r\nbody: x\r\n").unwrap();
        let fields: Vec<_> = head.fields.map(|(name, value)| (name.to_vec(), unfold(value).into_owned())).collect();
        let expected = [("A", "b c"), ("D", ""), ("E", "f:g")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(fields, expected);
    }
}
