//! Frames of HTTP/2 (RFC 9113 sections 4 and 6): heads, and what tells them from other bytes.

use super::hpack::{Decoder, List};
use crate::dissect::{Cursor, Malformed, Short, Verdict};
use crate::entry::Direction;

/// What a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of a frame's head.
pub(super) const HEAD: usize = 9;
/// The longest frame of a type that is not known; those that are in use are short.
const MAX_UNKNOWN: u32 = 16_384;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Other,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    pub flags: u8,
    pub stream: u32,
    pub len: u32,
}

impl Frame {
    /// Reads a head; the inner error says that it cannot be one.
    pub fn parse(cursor: &mut Cursor<'_>) -> Result<Result<Self, Malformed>, Short> {
        let mut head = Cursor::new(cursor.take(HEAD)?);
        let (len, kind, flags, stream) = (head.u24()?, head.u8()?, head.u8()?, head.u32()?);
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Other,
        };
        let frame = Self { kind, flags, stream, len };
        Ok(if frame.is_sound() { Ok(frame) } else { Err(Malformed("no frame")) })
    }

    /// Lengths, streams and flags as the specification wants them.
    fn is_sound(self) -> bool {
        let Self { kind, flags, stream, len } = self;
        let (on_stream, on_connection) = (stream > 0, stream == 0);
        stream >> 31 == 0
            && match kind {
                Kind::Data => on_stream && flags & !(END_STREAM | PADDED) == 0,
                Kind::Headers => on_stream && len > 0 && flags & !(END_STREAM | END_HEADERS | PADDED | PRIORITY) == 0,
                Kind::Priority => on_stream && len == 5,
                Kind::Reset => on_stream && len == 4,
                Kind::Settings => on_connection && len % 6 == 0 && (flags & ACK == 0 || len == 0),
                Kind::PushPromise => on_stream && len > 4,
                Kind::Ping => on_connection && len == 8 && flags & !ACK == 0,
                Kind::GoAway => on_connection && len >= 8,
                Kind::WindowUpdate => len == 4,
                Kind::Continuation => on_stream,
                Kind::Other => len <= MAX_UNKNOWN,
            }
    }

    /// The block fragment of a `HEADERS` or `PUSH_PROMISE` frame's payload, and the promised stream.
    pub fn fragment(self, payload: &[u8]) -> Result<(&[u8], Option<u32>), Malformed> {
        let mut cursor = Cursor::new(payload);
        let padding = if self.flags & PADDED > 0 { usize::from(cursor.u8()?) } else { 0 };
        let promised = if self.kind == Kind::PushPromise { Some(cursor.u32()? & 0x7fff_ffff) } else { None };
        if self.kind == Kind::Headers && self.flags & PRIORITY > 0 {
            cursor.skip(5)?;
        }
        let len = cursor.remaining().checked_sub(padding).ok_or(Malformed("more padding than payload"))?;
        Ok((cursor.take(len)?, promised))
    }

    /// True if the first byte of the payload is the length of the padding at its end.
    pub fn is_padded(self) -> bool {
        self.flags & PADDED > 0
    }
}

/// Tells frames from other bytes where the connection's start was missed: each is sound, and one could hardly be anything
/// else.
pub(super) fn probe_frames(data: &[u8], direction: Direction) -> Verdict {
    let mut cursor = Cursor::new(data);
    let mut verdict = Verdict::More;
    while !cursor.is_empty() {
        let frame = match Frame::parse(&mut cursor) {
            Ok(Ok(frame)) if frame.kind != Kind::Other => frame,
            Ok(_) => return Verdict::No,
            Err(Short) => return verdict,
        };
        let Ok(payload) = cursor.take(frame.len as usize) else { return verdict };
        let proof = match frame.kind {
            Kind::Headers => {
                if !is_head(frame, payload, direction) {
                    return Verdict::No;
                }
                true
            }
            Kind::Settings => match settings(payload) {
                Some(any) => any || frame.flags == ACK,
                None => return Verdict::No,
            },
            Kind::WindowUpdate => {
                // An increment of 0 is an error (RFC 9113 section 6.9).
                if payload == [0; 4] || frame.flags != 0 {
                    return Verdict::No;
                }
                true
            }
            Kind::Ping => true,
            _ => false,
        };
        verdict = verdict.max(if proof { Verdict::Yes } else { Verdict::Maybe });
    }
    verdict
}

/// True if a HEADERS frame holds a block that begins as one of that direction does, or a trailer.
fn is_head(frame: Frame, payload: &[u8], direction: Direction) -> bool {
    let Ok((block, _)) = frame.fragment(payload) else { return false };
    if frame.flags & END_HEADERS == 0 {
        return false;
    }
    let mut list = List::default();
    if Decoder::joined().decode(block, &mut list).is_err() {
        return false;
    }
    let mut known = 0;
    for (name, value) in list.iter() {
        let Some(name) = name else { continue };
        known += 1;
        let (pseudo, rest) = name.strip_prefix(b":").map_or((false, name), |rest| (true, rest));
        let lower =
            !rest.is_empty() && rest.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
        let fits = !pseudo || (name == b":status") == (direction == Direction::ToClient);
        if !lower || !fits || value.is_some_and(|value| value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))) {
            return false;
        }
    }
    known > 0
}

/// Whether there are settings at all; `None` if they cannot be settings.
fn settings(payload: &[u8]) -> Option<bool> {
    // Those in use; a greasing sender may add one of its own, which then costs the proof only.
    let sound = payload.chunks(6).all(|setting| matches!(setting, [0, 1..=16, _, _, _, _]));
    sound.then_some(!payload.is_empty())
}

/// The name of an error code (RFC 9113 section 7).
pub(super) fn error_name(code: u32) -> &'static str {
    match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        4 => "SETTINGS_TIMEOUT",
        5 => "STREAM_CLOSED",
        6 => "FRAME_SIZE_ERROR",
        7 => "REFUSED_STREAM",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        10 => "CONNECT_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        12 => "INADEQUATE_SECURITY",
        13 => "HTTP_1_1_REQUIRED",
        _ => "an unknown error",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn probed(data: &[u8]) -> Verdict {
        probe_frames(data, Direction::ToServer)
    }

    #[test]
    fn frames_prove_themselves() {
        let ping = b"\0\0\x08\x06\0\0\0\0\0abcdefgh";
        assert_eq!(probed(ping), Verdict::Yes);
        assert_eq!(probed(b"\0\0\0\x04\x01\0\0\0\0"), Verdict::Yes);
        assert_eq!(probed(b"\0\0\x04\x08\0\0\0\0\x01\0\0\x10\0"), Verdict::Yes);
        // :method POST, then a dynamic entry that was not heard.
        assert_eq!(probed(b"\0\0\x02\x01\x04\0\0\0\x05\x83\xbe"), Verdict::Yes);
        assert_eq!(probed(b"\0\0\x03\0\x01\0\0\0\x05abc"), Verdict::Maybe);
        assert_eq!(probed(b"\0\0\x03\0\x01\0\0\0\x05ab"), Verdict::More);
        assert_eq!(probed(&[&ping[..], b"\0\0\x03\0\x01\0\0"].concat()), Verdict::Yes);
    }

    #[test]
    fn other_bytes_do_not() {
        for no in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\0\0\0\x01\0\0\0\0\0",
            b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
            b"\0\0\x08\x06\x02\0\0\0\0abcdefgh",
            // A response's status from a client; an upper-case name; a block that ends in a string.
            b"\0\0\x01\x01\x04\0\0\0\x05\x88",
            b"\0\0\x05\x01\x04\0\0\0\x05\x00\x01A\x01b",
            b"\0\0\x03\x01\x04\0\0\0\x05\x40\x05a",
        ] {
            assert_eq!(probed(no), Verdict::No, "{no:x?}");
        }
    }

    #[test]
    fn padding_and_priority_are_cut_off() {
        let frame = Frame { kind: Kind::Headers, flags: PADDED | PRIORITY, stream: 1, len: 0 };
        assert_eq!(frame.fragment(b"\x02\0\0\0\0\x10BLOCK\0\0").unwrap(), (&b"BLOCK"[..], None));
        assert!(frame.fragment(b"\x09\0\0\0\0\x10BLOCK").is_err());
        let promise = Frame { kind: Kind::PushPromise, flags: 0, stream: 1, len: 0 };
        assert_eq!(promise.fragment(b"\x80\0\0\x02BLOCK").unwrap(), (&b"BLOCK"[..], Some(2)));
    }
}
