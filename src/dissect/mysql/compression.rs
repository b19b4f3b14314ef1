//! The compressed protocol: packets that hold a stretch of the stream of packets, coded with zlib or zstd or as it is.

use std::io::Read;

use super::packet::Header;
use super::{Cursor, Cx, Malformed, Mysql, Probe, Progress, Transport, Verdict, probe};
use crate::entry::Direction;

/// Length, sequence number and length before compression.
const HEADER: usize = 7;
/// How much is decompressed at a time.
const PART: usize = 32 << 10;
/// How much is decompressed to see what it is.
const PEEK: usize = 512;
/// The largest window of zstd: what its levels up to the highest use for packets.
const MAX_ZSTD_WINDOW: u64 = 16 << 20;
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Whether packets are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// Not until the login is done, or not known yet.
    #[default]
    Unknown,
    Plain,
    Compressed,
}

/// The packets that were taken out of one direction's compressed ones.
#[derive(Default)]
pub(super) struct Inner {
    /// The beginning of a packet.
    buffer: Vec<u8>,
    /// It has to be this long before it is looked at again.
    enough: usize,
    /// Bytes to pass over unseen.
    skip: usize,
    /// Where a packet begins has to be found first.
    seeking: bool,
}

impl Inner {
    /// How many bytes of memory it takes.
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes are missing.
    pub(super) fn lose(&mut self) {
        *self = Self { seeking: true, ..Self::default() };
    }
}

/// A compressed packet's length, and that of what it holds; 0 if that is not compressed.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut cursor = Cursor::new(bytes);
    let (len, _, before) = (cursor.u24_le().ok()?, cursor.u8().ok()?, cursor.u24_le().ok()?);
    Some((len as usize, before as usize))
}

fn is_zlib(payload: &[u8]) -> bool {
    payload.first_chunk().is_some_and(|head: &[u8; 2]| {
        head[0] & 0x0f == 8 && head[0] >> 4 <= 7 && u16::from_be_bytes(*head).is_multiple_of(31)
    })
}

/// Undoes the compression.
fn decoder(payload: &[u8]) -> Option<Box<dyn Read + '_>> {
    if payload.starts_with(ZSTD_MAGIC) {
        let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(payload, MAX_ZSTD_WINDOW).ok()?;
        return Some(Box::new(decoder));
    }
    is_zlib(payload).then(|| Box::new(flate2::read::ZlibDecoder::new(payload)) as Box<dyn Read>)
}

/// The first bytes that a compressed packet holds; `None` if the bytes are no such packet's.
pub(super) fn peek(bytes: &[u8]) -> Option<Vec<u8>> {
    let (len, before) = header(bytes)?;
    let payload = bytes.get(HEADER..)?;
    let payload = payload.get(..len).unwrap_or(payload);
    if before > 0 {
        let mut plain = vec![0; PEEK.min(before)];
        let mut decoder = decoder(payload)?;
        let mut filled = 0;
        // What is there of it may end too early.
        while let Ok(n @ 1..) = decoder.read(plain.get_mut(filled..)?) {
            filled += n;
        }
        plain.truncate(filled);
        return (filled > 0).then_some(plain);
    }
    // Not compressed: whole packets, one after the other, as long as the packet around them.
    let (mut rest, mut sequence) = (payload, None);
    while let Some(inner) = Header::parse(rest) {
        if sequence.is_some_and(|sequence| inner.sequence != sequence) || inner.len == 0 {
            return None;
        }
        sequence = Some(inner.sequence.wrapping_add(1));
        match rest.get(inner.total()..) {
            Some(next) => rest = next,
            None if payload.len() < len => return Some(payload.to_vec()),
            None => return None,
        }
    }
    (rest.is_empty() && sequence.is_some()).then(|| payload.get(..PEEK).unwrap_or(payload).to_vec())
}

/// True if the bytes begin with a compressed packet that holds what that direction sends.
pub(super) fn is_compressed(bytes: &[u8], direction: Direction) -> bool {
    peek(bytes).is_some_and(|plain| is_start(&plain, direction))
}

/// True if the bytes begin with a packet.
fn is_start(plain: &[u8], direction: Direction) -> bool {
    let port = super::PROTOCOL.ports.first().copied().unwrap_or_default();
    let probe = Probe { transport: Transport::Tcp, direction, data: plain, port, start: false, cut: false };
    probe::packets(&probe) >= Verdict::Maybe
}

impl Mysql {
    /// One compressed packet.
    pub(super) fn compressed(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<Progress, Malformed> {
        let Some((len, before)) = header(bytes) else { return Ok(Progress::Need(HEADER - bytes.len())) };
        let Some(payload) = bytes.get(HEADER..HEADER + len) else {
            return Ok(Progress::Need(HEADER + len - bytes.len()));
        };
        if before == 0 {
            self.feed(direction, payload, cx)?;
            return Ok(Progress::Consumed(HEADER + len));
        }
        let Some(mut decoder) = decoder(payload) else { return Err(Malformed("a compression that is not known")) };
        let mut part = vec![0; PART.min(before)];
        let mut left = before;
        while left > 0 {
            let room = left.min(part.len());
            let Some(into) = part.get_mut(..room) else { break };
            let Ok(n @ 1..) = decoder.read(into) else { return Err(Malformed("a compressed packet that is damaged")) };
            self.feed(direction, part.get(..n).unwrap_or_default(), cx)?;
            left -= n;
        }
        Ok(Progress::Consumed(HEADER + len))
    }

    /// Takes more of the packets that compressed ones hold.
    fn feed(&mut self, direction: Direction, bytes: &[u8], cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let Some(inner) = self.inner.get_mut(direction.index()) else { return Ok(()) };
        if inner.seeking {
            if !is_start(bytes, direction) {
                return Ok(());
            }
            inner.seeking = false;
        }
        let skipped = inner.skip.min(bytes.len());
        inner.skip -= skipped;
        let mut bytes = bytes.get(skipped..).unwrap_or_default();
        let mut buffer = std::mem::take(&mut inner.buffer);
        if !buffer.is_empty() {
            buffer.extend_from_slice(bytes);
            if buffer.len() < inner.enough {
                inner.buffer = buffer;
                return Ok(());
            }
            bytes = &buffer;
        }
        let (mut consumed, mut more) = (0, 0);
        while let Some(rest) = bytes.get(consumed..).filter(|rest| !rest.is_empty()) {
            match self.packet(direction, rest, cx)? {
                Progress::Consumed(n @ 1..) => consumed += n,
                Progress::Need(n) => {
                    more = n;
                    break;
                }
                _ => break,
            }
        }
        let rest = bytes.get(consumed..).unwrap_or_default().to_vec();
        let skip = consumed.saturating_sub(bytes.len());
        if let Some(inner) = self.inner.get_mut(direction.index()) {
            inner.skip += skip;
            inner.enough = rest.len() + more;
            inner.buffer = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_is_compressed_is_told_from_one_that_is_not() {
        // COM_PING inside, not compressed.
        assert!(is_compressed(b"\x05\0\0\0\0\0\0\x01\0\0\0\x0e", Direction::ToServer));
        // An OK packet that is none inside another.
        assert!(!is_compressed(b"\x07\0\0\x01\0\0\0\x02\0\0\0", Direction::ToClient));
        assert!(!is_compressed(b"\x09\0\0\0\x03SELECT 1", Direction::ToServer));
    }

    #[test]
    fn zstd_is_undone() {
        // An uncompressed block, as RFC 8878 lays it out.
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x05, 0x29, 0x00, 0x00, 1, 0, 0, 0, 0x0e];
        let mut plain = Vec::new();
        decoder(&zstd).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, [1, 0, 0, 0, 0x0e]);
    }
}
