//! How a message goes on after its head (RFC 9112 section 6).

use super::Asked;
use super::body::Body;

/// What of the fields tells how the message goes on.
#[derive(Default)]
pub(super) struct Framing<'a> {
    length: Option<u64>,
    coded: bool,
    chunked: bool,
    pub upgrade: Option<&'a [u8]>,
    /// WebSocket's, as negotiated.
    pub extensions: &'a [u8],
}

impl<'a> Framing<'a> {
    pub fn field(&mut self, name: &[u8], value: &'a [u8]) {
        if name.eq_ignore_ascii_case(b"content-length") {
            // The first of several that say the same.
            let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let digits = value.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
            self.length = self.length.or(digits.and_then(|digits| digits.parse().ok()));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.coded = !value.eq_ignore_ascii_case(b"identity");
            let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
            self.chunked = last.eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = Some(value);
        } else if name.eq_ignore_ascii_case(b"sec-websocket-extensions") {
            self.extensions = value;
        }
    }

    /// A request without any of these has no body.
    pub fn request_body(&self) -> Option<Body> {
        match self.length {
            _ if self.chunked => Some(Body::Size),
            Some(left) if left > 0 && !self.coded => Some(Body::Length { left }),
            _ => None,
        }
    }

    pub fn response_body(&self, code: u16, asked: Option<&Asked>) -> Option<Body> {
        match self.length {
            _ if code == 204 || code == 304 || asked.is_some_and(|asked| asked.head) => None,
            _ if self.chunked => Some(Body::Size),
            Some(0) if !self.coded => None,
            Some(left) if !self.coded => Some(Body::Length { left }),
            _ => Some(Body::Close),
        }
    }
}
