//! WebSocket. Spec: RFC 6455, with permessage-deflate of RFC 7692.
//!
//! Parsed: frames both ways, fragments joined, control frames between them, compressed messages with or without context
//! takeover. **Not parsed**: other extensions, WebSocket over HTTP/2 (RFC 8441), what the messages carry. Each message
//! stands alone; pings are not paired with pongs.

use flate2::{Decompress, FlushDecompress, Status};

use super::{
    Cursor, Cx, Dissector, Malformed, Message, Probe, Progress, Protocol, Recover, Short, Transport, Verdict, text,
};
use crate::entry::{Direction, Text, Value};
use crate::fields;

pub static PROTOCOL: Protocol = Protocol {
    name: "websocket",
    title: "WebSocket",
    transport: Transport::Tcp,
    ports: &[],
    probe,
    new: || Box::new(WebSocket::default()),
    repeats: false,
    spec: "https://www.rfc-editor.org/rfc/rfc6455",
};

/// The longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: u64 = 125;
/// A text frame of so many bytes proves the protocol where its upgrade was not seen.
const PROVING_TEXT: usize = 4;
/// The most bytes that one message is decompressed to; past it the direction's messages stay compressed.
const MAX_INFLATED: u64 = 64 << 20;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Frames are told only where the upgrade was missed: a flow's start is HTTP.
fn probe(probe: &Probe<'_>) -> Verdict {
    if probe.start {
        return Verdict::No;
    }
    let mut cursor = Cursor::new(probe.data);
    let mut proven = false;
    while !cursor.is_empty() {
        let frame = match Frame::parse(&mut cursor) {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return Verdict::No,
            Err(Short) => return Verdict::More,
        };
        if frame.masked.is_some() != (probe.direction == Direction::ToServer) {
            return Verdict::No;
        }
        let Ok(payload) = usize::try_from(frame.len).map_err(|_| Short).and_then(|len| cursor.take(len)) else {
            return Verdict::More;
        };
        if frame.opcode == TEXT && frame.fin && !frame.compressed {
            let mut payload = payload.to_vec();
            frame.unmask(&mut payload, 0);
            if !matches!(text::printable(&payload), std::borrow::Cow::Borrowed(_)) {
                return Verdict::No;
            }
            proven |= payload.len() >= PROVING_TEXT;
        }
    }
    if proven { Verdict::Yes } else { Verdict::Maybe }
}

/// A dissector for a connection whose upgrade was seen; `extensions` is what the server's response negotiated.
#[must_use]
pub fn after_upgrade(target: String, extensions: &[u8]) -> Box<dyn Dissector> {
    let deflate =
        extensions.split(|&byte| byte == b',').map(parameters).find(|names| names.contains("permessage-deflate"));
    let inflate = |own: &str| {
        let names = deflate.as_ref()?;
        Some(Inflate { stream: Decompress::new(false), resets: names.contains(own), size: 0, lost: false })
    };
    let side = |own| Side { inflate: inflate(own), ..Side::default() };
    Box::new(WebSocket { target, sides: [side("client_no_context_takeover"), side("server_no_context_takeover")] })
}

/// The names of an extension and its parameters.
fn parameters(extension: &[u8]) -> std::collections::BTreeSet<String> {
    let name =
        |part: &[u8]| part.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    extension.split(|&byte| byte == b';').map(|part| text::string(&name(part))).collect()
}

/// One connection.
#[derive(Default)]
struct WebSocket {
    target: String,
    sides: [Side; 2],
}

/// One direction.
#[derive(Default)]
struct Side {
    /// The data frame whose payload is under way, and how much of it has come.
    frame: Option<(Frame, u64)>,
    open: Option<Open>,
    /// Present if compression was negotiated.
    inflate: Option<Inflate>,
}

/// A data message whose last frame has not ended.
struct Open {
    message: Message,
    compressed: bool,
    frames: u64,
    kept: Vec<u8>,
    size: u64,
}

/// The decompression of one direction.
struct Inflate {
    stream: Decompress,
    /// Each message starts anew.
    resets: bool,
    /// What the message at hand came to so far.
    size: u64,
    /// Bytes are missing on which all later ones depend.
    lost: bool,
}

/// The head of a frame (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    fin: bool,
    compressed: bool,
    opcode: u8,
    masked: Option<[u8; 4]>,
    len: u64,
    /// The length of the head itself.
    head: u64,
}

impl Frame {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Result<Self, Malformed>, Short> {
        let start = cursor.position();
        let [first, second] = cursor.array()?;
        let len = match second & 0x7f {
            126 => u64::from(cursor.u16()?),
            127 => cursor.u64()?,
            len => u64::from(len),
        };
        let masked = if second & 0x80 > 0 { Some(cursor.array()?) } else { None };
        let head = (cursor.position() - start) as u64;
        let frame =
            Self { fin: first & 0x80 > 0, compressed: first & 0x40 > 0, opcode: first & 0x0f, masked, len, head };
        let known = matches!(frame.opcode, 0..=BINARY | CLOSE..=PONG);
        let shortest = match second & 0x7f {
            126 => len > 125,
            127 => len > 0xffff && len >> 63 == 0,
            _ => true,
        };
        let whole = !frame.is_control() || frame.fin && len <= MAX_CONTROL;
        // The first frame of a message says whether it is compressed.
        let marked = !frame.compressed || matches!(frame.opcode, TEXT | BINARY);
        let good = known && shortest && whole && marked && first & 0x30 == 0;
        Ok(if good { Ok(frame) } else { Err(Malformed("no frame")) })
    }

    fn is_control(self) -> bool {
        self.opcode >= CLOSE
    }

    /// Undoes the masking of payload bytes that start at `at`.
    fn unmask(self, bytes: &mut [u8], at: u64) {
        if let Some(mask) = self.masked {
            let key = mask.iter().cycle().skip((at % 4) as usize);
            for (byte, key) in bytes.iter_mut().zip(key) {
                *byte ^= key;
            }
        }
    }
}

impl Dissector for WebSocket {
    fn data(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<Progress, Malformed> {
        if self.side(direction).frame.is_some() {
            return Ok(Progress::Consumed(self.payload(direction, bytes, cx)));
        }
        let mut cursor = Cursor::new(bytes);
        let Ok(frame) = Frame::parse(&mut cursor) else { return Ok(Progress::Need(1)) };
        let frame = frame?;
        if frame.is_control() {
            let len = frame.len as usize;
            let Ok(payload) = cursor.take(len) else { return Ok(Progress::Need(len - cursor.remaining())) };
            self.control(direction, frame, payload, cx);
            return Ok(Progress::Consumed(cursor.position()));
        }
        let target = &self.target;
        let side = direction.of(self.sides.each_mut());
        if frame.opcode > 0 {
            // Only one message is sent at a time; if the last one's end is not in the capture, it ended all the same.
            side.finish(Some("its last fragment is missing"), cx);
        }
        let open = side.open.get_or_insert_with(|| {
            let operation = match frame.opcode {
                TEXT => "text",
                BINARY => "binary",
                _ => "continuation",
            };
            let mut message = Message::one_way(direction, operation, target.as_str(), cx);
            if frame.opcode == 0 {
                message.warnings.push(Text::Borrowed("its first fragment is missing"));
            }
            Open { message, compressed: frame.compressed, frames: 0, kept: Vec::new(), size: 0 }
        });
        open.frames += 1;
        open.message.bytes += frame.head + frame.len;
        if open.frames == 1
            && let Some(inflate) = &mut side.inflate
        {
            inflate.begin();
        }
        side.frame = Some((frame, 0));
        if frame.len == 0 {
            self.payload(direction, &[], cx);
        }
        Ok(Progress::Consumed(cursor.position()))
    }

    fn gap(&mut self, direction: Direction, len: u64, cx: &mut Cx<'_>) -> Recover {
        let side = self.side(direction);
        if let Some(inflate) = &mut side.inflate {
            inflate.lost = true;
        }
        if let Some((frame, at)) = &mut side.frame
            && len > 0
            && frame.len - *at >= len
        {
            *at += len;
            if let Some(open) = &mut side.open {
                open.size += len;
                open.message.warnings.push(Text::Borrowed("the capture lacks bytes of it"));
            }
            self.payload(direction, &[], cx);
            return Recover::Continue;
        }
        side.frame = None;
        side.finish(Some("the capture lacks bytes of it"), cx);
        Recover::Resync
    }

    fn close(&mut self, direction: Direction, _rest: &[u8], cx: &mut Cx<'_>) {
        let side = self.side(direction);
        if side.frame.is_none() {
            side.finish(Some("its last fragment is missing"), cx);
        }
    }
}

impl WebSocket {
    fn side(&mut self, direction: Direction) -> &mut Side {
        direction.of(self.sides.each_mut())
    }

    /// Takes payload of the frame under way. Returns how much.
    fn payload(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> usize {
        let side = self.side(direction);
        let (Some((frame, at)), Some(open)) = (&mut side.frame, &mut side.open) else { return 0 };
        let taken = usize::try_from(frame.len - *at).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get(..taken).unwrap_or_default();
        if cx.detail() {
            open.take(*frame, *at, bytes, side.inflate.as_mut(), cx.body_limit());
        }
        *at += taken as u64;
        open.size += taken as u64;
        if *at == frame.len {
            let fin = frame.fin;
            side.frame = None;
            if fin {
                side.finish(None, cx);
            }
        }
        taken
    }

    /// A whole control frame.
    fn control(&mut self, direction: Direction, frame: Frame, payload: &[u8], cx: &mut Cx<'_>) {
        let operation = match frame.opcode {
            CLOSE => "close",
            PING => "ping",
            _ => "pong",
        };
        let mut payload = payload.to_vec();
        frame.unmask(&mut payload, 0);
        let mut message = Message::one_way(direction, operation, self.target.as_str(), cx);
        message.bytes = frame.head + frame.len;
        let code = payload.first_chunk().filter(|_| frame.opcode == CLOSE).map(|code| u16::from_be_bytes(*code));
        if let Some(code) = code {
            message.status = code.to_string().into();
            // Normal closure, going away, no status, and what applications use as they like.
            message.failed = !matches!(code, 1000 | 1001 | 1005 | 3000..);
        }
        if cx.detail() {
            message.detail = match code {
                Some(code) => {
                    fields! { "code" => code, "reason" => text::value(payload.get(2..).unwrap_or_default()) }
                }
                None => fields! { "payload" => text::body(&payload, frame.len) },
            };
        }
        cx.emit(message);
    }
}

impl Side {
    /// Emits the open message, if there is one.
    fn finish(&mut self, warning: Option<&'static str>, cx: &mut Cx<'_>) {
        let Some(Open { mut message, compressed, frames, mut kept, mut size }) = self.open.take() else { return };
        message.warnings.extend(warning.map(Text::Borrowed));
        if cx.detail() {
            let mut decoded = !compressed;
            if compressed && let Some(inflate) = self.inflate.as_mut().filter(|inflate| !inflate.lost) {
                // The end of a message is left away on the wire (RFC 7692 section 7.2.1).
                inflate.feed(&[0, 0, 0xff, 0xff], &mut kept, cx.body_limit());
                decoded = !inflate.lost;
                size = inflate.size;
            }
            let mut detail = vec![("payload".into(), text::body(&kept, size))];
            if !decoded {
                message
                    .warnings
                    .push(Text::Borrowed("its payload is compressed with bytes that are not in the capture"));
            }
            if compressed {
                detail.push(("compressed".into(), true.into()));
            }
            if frames > 1 {
                detail.push(("fragments".into(), frames.into()));
            }
            message.detail = Value::Map(detail);
        }
        cx.emit(message);
    }
}

impl Open {
    /// Keeps payload bytes that start at `at` of their frame, decompressed if they can be.
    fn take(&mut self, frame: Frame, at: u64, bytes: &[u8], inflate: Option<&mut Inflate>, limit: usize) {
        let inflate = inflate.filter(|inflate| self.compressed && !inflate.lost);
        let wanted =
            if inflate.is_some() { bytes.len() } else { limit.saturating_sub(self.kept.len()).min(bytes.len()) };
        let mut plain = bytes.get(..wanted).unwrap_or_default().to_vec();
        frame.unmask(&mut plain, at);
        match inflate {
            Some(inflate) => inflate.feed(&plain, &mut self.kept, limit),
            None => self.kept.append(&mut plain),
        }
    }
}

impl Inflate {
    /// A new message.
    fn begin(&mut self) {
        self.size = 0;
        if self.resets {
            self.stream.reset(false);
            self.lost = false;
        }
    }

    /// Decompresses; keeps at most `limit` bytes in `kept`, but passes all through so that later ones can refer to them.
    fn feed(&mut self, mut bytes: &[u8], kept: &mut Vec<u8>, limit: usize) {
        let mut out = [0; 8192];
        while !self.lost {
            let (read, written) = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress(bytes, &mut out, FlushDecompress::Sync);
            let read = (self.stream.total_in() - read) as usize;
            let written = (self.stream.total_out() - written) as usize;
            self.size += written as u64;
            let room = limit.saturating_sub(kept.len()).min(written);
            kept.extend_from_slice(out.get(..room).unwrap_or_default());
            bytes = bytes.get(read..).unwrap_or_default();
            self.lost = status.is_err() || self.size > MAX_INFLATED;
            match status {
                // A sender may end its stream with a message; the next one starts anew.
                Ok(Status::StreamEnd) => self.stream.reset(false),
                _ if bytes.is_empty() && written < out.len() => break,
                _ if read == 0 && written == 0 => break,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn probed(direction: Direction, data: &[u8]) -> Verdict {
        probe(&Probe { transport: Transport::Tcp, direction, data, port: 80, start: false, cut: false })
    }

    #[test]
    fn heads() {
        let head = |bytes: &[u8]| Frame::parse(&mut Cursor::new(bytes));
        let masked = head(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d]).unwrap().unwrap();
        assert_eq!((masked.opcode, masked.len, masked.head, masked.fin), (TEXT, 5, 6, true));
        let mut hello = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        masked.unmask(&mut hello, 0);
        assert_eq!(&hello, b"Hello");
        assert_eq!(head(&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap().unwrap().len, 65536);
        assert_eq!(head(&[0x82, 0x7e, 1]), Err(Short));
        // Reserved opcode, reserved bits, fragmented ping, long ping, lengths not in their shortest form, huge length.
        for bad in [
            &[0x83, 0][..],
            &[0xa1, 0],
            &[0x09, 0],
            &[0x89, 126, 1, 0],
            &[0x81, 126, 0, 5],
            &[0xc0, 0],
            &[0x81, 127, 0, 0, 0, 0, 0, 0, 1, 0],
            &[0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(head(bad).unwrap().is_err(), "{bad:x?}");
        }
    }

    #[test]
    fn a_missed_upgrade_needs_proof() {
        assert_eq!(probed(Direction::ToClient, b"\x81\x05Hello"), Verdict::Yes);
        assert_eq!(probed(Direction::ToClient, b"\x82\x05\0\x01\x02\x03\x04"), Verdict::Maybe);
        assert_eq!(probed(Direction::ToClient, b"\x81\x05Hell"), Verdict::More);
        assert_eq!(probed(Direction::ToServer, b"\x81\x05Hello"), Verdict::No);
        assert_eq!(probed(Direction::ToServer, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), Verdict::Yes);
        assert_eq!(probed(Direction::ToClient, b"\x81\x05He\x01\x02\x03"), Verdict::No);
        assert_eq!(probed(Direction::ToClient, b"\x81\x05Hello\x00\xff"), Verdict::More);
    }

    #[test]
    fn a_bomb_is_given_up() {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; MAX_INFLATED as usize + 1]).unwrap();
        let bomb = encoder.finish().unwrap();
        let mut inflate = Inflate { stream: Decompress::new(false), resets: true, size: 0, lost: false };
        let mut kept = Vec::new();
        inflate.feed(&bomb, &mut kept, 100);
        assert!(inflate.lost && kept.len() == 100);
        inflate.begin();
        assert!(!inflate.lost);
    }
}
