//! Frames (section 2.3): type, channel, size, payload, end.

use crate::dissect::{Cursor, Malformed};

/// What each frame ends with.
pub(super) const END: u8 = 0xce;
/// The bytes of a frame around its payload: head and end.
pub(super) const AROUND: usize = HEAD + 1;
/// Type, channel and size.
pub(super) const HEAD: usize = 7;
/// The largest method or content header. They have to fit into a frame, which peers agree to be 128 KiB or less.
pub(super) const MAX_CONTROL: usize = 1 << 20;
/// The largest piece of a body. Peers may agree on frames without limit, but no broker takes larger messages than this.
pub(super) const MAX_BODY: usize = 512 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Method,
    Header,
    Body,
    Heartbeat,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub kind: Kind,
    pub channel: u16,
    /// Length of the payload.
    pub size: usize,
}

impl Frame {
    /// The head of a frame, not past it; none if it has not come whole.
    pub(super) fn peek(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let Some(kind) = cursor.peek() else { return Ok(None) };
        let kind = match kind {
            1 => Kind::Method,
            2 => Kind::Header,
            3 => Kind::Body,
            8 => Kind::Heartbeat,
            _ => return Err(Malformed("a frame of unknown type")),
        };
        let Ok(head) = cursor.take(HEAD) else { return Ok(None) };
        let mut head = Cursor::new(head);
        head.skip(1)?;
        let (channel, size) = (head.u16()?, head.u32()? as usize);
        let limit = match kind {
            Kind::Method | Kind::Header => MAX_CONTROL,
            Kind::Body => MAX_BODY,
            Kind::Heartbeat => 0,
        };
        if size > limit {
            return Err(Malformed("a frame larger than its type can be"));
        }
        Ok(Some(Self { kind, channel, size }))
    }

    /// Its length on the wire.
    pub(super) fn len(&self) -> usize {
        self.size + AROUND
    }

    /// Its payload, and whether its end is where it should be; none if it has not come whole.
    pub(super) fn payload<'a>(&self, bytes: &'a [u8]) -> Option<(&'a [u8], bool)> {
        let mut cursor = Cursor::new(bytes);
        cursor.skip(HEAD).ok()?;
        let payload = cursor.take(self.size).ok()?;
        Some((payload, cursor.u8().ok()? == END))
    }
}
