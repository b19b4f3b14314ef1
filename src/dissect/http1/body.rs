//! Bodies of HTTP/1 messages (RFC 9112 sections 6 and 7): how long they are, and what of the bytes is content.

use memchr::memchr;

use super::head;
use crate::dissect::Malformed;

/// The longest line with the size of a chunk, extensions included.
const MAX_SIZE_LINE: usize = 4096;
/// The longest trailer.
const MAX_TRAILER: usize = 64 * 1024;

/// Where in a body its next byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// In content of known length.
    Length { left: u64 },
    /// At the size of the next chunk.
    Size,
    /// In a chunk.
    Chunk { left: u64 },
    /// At the line break after a chunk.
    Break,
    /// In the fields after the last chunk, of which so many bytes have no end in them.
    Trailer { scanned: usize },
    /// In content that ends with the connection.
    Close,
}

/// What some bytes of a body came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Content of this length.
    Content(&'a [u8]),
    /// So many bytes around the content.
    Frame(usize),
    /// More bytes are needed to go on.
    Need,
    /// The last bytes: the fields after the last chunk, with the empty line.
    Trailer(&'a [u8]),
}

impl Body {
    /// True if nothing more belongs to it.
    pub fn is_done(self) -> bool {
        self == Self::Length { left: 0 }
    }

    /// Takes the next bytes.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, Malformed> {
        match self {
            Self::Close => Ok(Step::Content(bytes)),
            Self::Length { left } => Ok(Step::Content(take(left, bytes))),
            Self::Chunk { left } => {
                let content = take(left, bytes);
                if *left == 0 {
                    *self = Self::Break;
                }
                Ok(Step::Content(content))
            }
            Self::Break => {
                let len = match bytes {
                    [b'\r', b'\n', ..] => 2,
                    [b'\n', ..] => 1,
                    [b'\r'] => return Ok(Step::Need),
                    _ => return Err(Malformed("a chunk without its line break")),
                };
                *self = Self::Size;
                Ok(Step::Frame(len))
            }
            Self::Size => {
                let Some(end) = memchr(b'\n', bytes) else {
                    let bad = bytes.len() > MAX_SIZE_LINE;
                    return if bad { Err(Malformed("an endless chunk size")) } else { Ok(Step::Need) };
                };
                let size = bytes.get(..end).and_then(chunk_size).ok_or(Malformed("no chunk size"))?;
                *self = if size == 0 { Self::Trailer { scanned: 0 } } else { Self::Chunk { left: size } };
                Ok(Step::Frame(end + 1))
            }
            Self::Trailer { scanned } => {
                let len = match bytes {
                    [b'\n', ..] => 1,
                    [b'\r', b'\n', ..] => 2,
                    [b'\r'] => return Ok(Step::Need),
                    _ => match head::end(bytes, *scanned) {
                        Ok(len) => len,
                        Err(_) if bytes.len() > MAX_TRAILER => return Err(Malformed("an endless trailer")),
                        Err(resume) => {
                            *scanned = resume;
                            return Ok(Step::Need);
                        }
                    },
                };
                *self = Self::Length { left: 0 };
                Ok(Step::Trailer(bytes.get(..len).unwrap_or_default()))
            }
        }
    }

    /// `len` bytes are missing. True if they lay within content, so that the next byte's place is known.
    pub fn gap(&mut self, len: u64) -> bool {
        match self {
            Self::Close => true,
            Self::Length { left } | Self::Chunk { left } if *left >= len => {
                *left -= len;
                if *self == (Self::Chunk { left: 0 }) {
                    *self = Self::Break;
                }
                true
            }
            _ => false,
        }
    }
}

/// The part of `bytes` that is among the next `left` ones, which become fewer.
fn take<'a>(left: &mut u64, bytes: &'a [u8]) -> &'a [u8] {
    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= len as u64;
    bytes.get(..len).unwrap_or_default()
}

/// The size at the start of a chunk's first line; what follows a semicolon or space is not read.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(digits)?;
    let apart = rest.first().is_none_or(|byte| matches!(byte, b';' | b' ' | b'\t' | b'\r'));
    let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (apart && digits.len() <= 16).then_some(size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    /// Content and length of a body, given in pieces of `size` bytes more each time.
    fn read(mut body: Body, bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize), Malformed> {
        let (mut content, mut at, mut end) = (Vec::new(), 0, 0);
        while !body.is_done() && end < bytes.len() {
            end = (end + size).min(bytes.len());
            while at < end && !body.is_done() {
                match body.step(&bytes[at..end])? {
                    Step::Content(part) => {
                        content.extend_from_slice(part);
                        at += part.len();
                    }
                    Step::Frame(len) => at += len,
                    Step::Trailer(part) => at += part.len(),
                    Step::Need => break,
                }
            }
        }
        Ok((content, at))
    }

    #[test]
    fn chunks_with_extensions_and_trailer() {
        let wire = b"5;name=\"v\"\r\nhello\r\n1 \n,\n6\r\n world\r\n0\r\nA: b\r\nC: d\r\n\r\nHTTP/1.1 200";
        for size in 1..wire.len() {
            assert_eq!(read(Body::Size, wire, size), Ok((b"hello, world".to_vec(), wire.len() - 12)), "{size}");
        }
        assert_eq!(read(Body::Size, b"0\r\n\r\nx", 1), Ok((vec![], 5)));
    }

    #[test]
    fn hostile_sizes() {
        for bad in ["\r\n", "xyz\r\n", "-1\r\n", "11111111111111111\r\n", "5g\r\n"] {
            assert!(read(Body::Size, bad.as_bytes(), 100).is_err(), "{bad}");
        }
        assert!(Body::Size.step(&[b'0'; MAX_SIZE_LINE + 1]).is_err());
        assert!(Body::Break.step(b"xx").is_err());
    }

    #[test]
    fn gaps_within_content_are_passed_over() {
        let mut body = Body::Length { left: 10 };
        assert!(body.gap(4) && !body.gap(7) && body.gap(6) && body.is_done());
        let mut body = Body::Chunk { left: 3 };
        assert!(body.gap(3));
        assert_eq!(body, Body::Break);
        assert!(!Body::Size.gap(1) && Body::Close.gap(1));
    }
}
