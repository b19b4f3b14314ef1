//! Long header packets (RFC 9000 section 17.2, RFC 9369) and the versions that are known.

use crate::dissect::{Cursor, Short};

/// The longest connection id of the versions known here.
const MAX_CONNECTION_ID: usize = 20;

/// What differs between versions before their keys are agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Its number on the wire.
    pub number: u32,
    /// For initial secrets (RFC 9001 section 5.2).
    pub salt: [u8; 20],
    /// Version 2 numbers its packet types and labels its keys otherwise.
    pub is_2: bool,
}

impl Version {
    /// The version of that number, if it is known.
    pub fn of(number: u32) -> Option<Self> {
        let (salt, is_2) = match number {
            // Version 1 and the drafts from 33 on.
            1 | 0xff00_0021..=0xff00_0022 => (V1, false),
            0x6b33_43cf => (V2, true),
            0xff00_001d..=0xff00_0020 => (DRAFT_29, false),
            // Drafts 23 to 28, and two variants of draft 27.
            0xff00_0017..=0xff00_001c | 0xface_b002 | 0xface_b00e => (DRAFT_23, false),
            // Drafts 21 and 22, and a variant of these.
            0xff00_0015..=0xff00_0016 | 0xface_b001 => (DRAFT_21, false),
            // "T050" and "T051", Google's last versions before the standard's.
            0x5430_3530 => (T050, false),
            0x5430_3531 => (T051, false),
            // Made up to see whether servers negotiate (RFC 9000 section 15). Those that did so protected it as draft 29.
            _ if number & 0x0f0f_0f0f == 0x0a0a_0a0a => (DRAFT_29, false),
            _ => return None,
        };
        Some(Self { number, salt, is_2 })
    }

    /// Its name for people.
    pub fn name(self) -> String {
        match self.number {
            1 => "1".to_owned(),
            0x6b33_43cf => "2".to_owned(),
            0x5430_3530 => "T050".to_owned(),
            0x5430_3531 => "T051".to_owned(),
            0xff00_0000.. => format!("draft-{}", self.number & 0xff),
            other => format!("{other:#010x}"),
        }
    }
}

const V1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f,
    0x0a,
];
const V2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e,
    0xd9,
];
const DRAFT_29: [u8; 20] = [
    0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8,
    0x99,
];
const DRAFT_23: [u8; 20] = [
    0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe, 0xf9, 0xf5,
    0x02,
];
const DRAFT_21: [u8; 20] = [
    0x7f, 0xbc, 0xdb, 0x0e, 0x7c, 0x66, 0xbb, 0xe9, 0x19, 0x3a, 0x96, 0xcd, 0x21, 0x51, 0x9e, 0xbd, 0x7a, 0x02, 0x64,
    0x4a,
];
const T050: [u8; 20] = [
    0x7f, 0xf5, 0x79, 0xe5, 0xac, 0xd0, 0x72, 0x91, 0x55, 0x80, 0x30, 0x4c, 0x43, 0xa2, 0x36, 0x7c, 0x60, 0x48, 0x83,
    0x10,
];
const T051: [u8; 20] = [
    0x7a, 0x4e, 0xde, 0xf4, 0xe7, 0xcc, 0xee, 0x5f, 0xa4, 0x50, 0x6c, 0x19, 0x12, 0x4f, 0xc8, 0xcc, 0xda, 0x6e, 0x03,
    0x3d,
];

/// The kinds of long header packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
    Retry,
}

/// One packet of a datagram, still protected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub kind: Kind,
    pub version: Version,
    pub dcid: &'a [u8],
    pub scid: &'a [u8],
    /// Of an Initial: what proves the client's address.
    pub token: &'a [u8],
    /// All of it, from its first byte on.
    pub bytes: &'a [u8],
    /// Where its packet number starts.
    pub number_at: usize,
}

impl<'a> Packet<'a> {
    /// The long header packets of a datagram (RFC 9000 section 12.2), up to the first of another kind or version.
    pub fn all(datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut cursor = Cursor::new(datagram);
        std::iter::from_fn(move || Self::parse(&mut cursor).ok().flatten())
    }

    fn parse(cursor: &mut Cursor<'a>) -> Result<Option<Self>, Short> {
        let bytes = cursor.rest();
        let start = cursor.position();
        let first = cursor.u8()?;
        // A long header, with the bit that all known versions set.
        if first & 0xc0 != 0xc0 {
            return Ok(None);
        }
        let Some(version) = Version::of(cursor.u32()?) else { return Ok(None) };
        let (dcid, scid) = (connection_id(cursor)?, connection_id(cursor)?);
        let kind = match ((first >> 4) & 3).wrapping_sub(version.is_2.into()) & 3 {
            0 => Kind::Initial,
            1 => Kind::ZeroRtt,
            2 => Kind::Handshake,
            _ => Kind::Retry,
        };
        let token = if kind == Kind::Initial { counted(cursor)? } else { &[] };
        let number_at = if kind == Kind::Retry {
            cursor.skip(cursor.remaining())?;
            cursor.position() - start
        } else {
            let length = varint(cursor)?;
            let number_at = cursor.position() - start;
            cursor.skip(usize::try_from(length).map_err(|_| Short)?)?;
            number_at
        };
        let bytes = bytes.get(..cursor.position() - start).ok_or(Short)?;
        Ok(Some(Self { kind, version, dcid, scid, token, bytes, number_at }))
    }
}

fn connection_id<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = usize::from(cursor.u8()?);
    if length > MAX_CONNECTION_ID { Err(Short) } else { cursor.take(length) }
}

/// Bytes after their length.
pub(super) fn counted<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = varint(cursor)?;
    cursor.take(usize::try_from(length).map_err(|_| Short)?)
}

/// A number of 1, 2, 4 or 8 bytes, as its first two bits say (RFC 9000 section 16).
pub(in crate::dissect) fn varint(cursor: &mut Cursor<'_>) -> Result<u64, Short> {
    match cursor.peek().ok_or(Short)? >> 6 {
        0 => cursor.u8().map(u64::from),
        1 => cursor.u16().map(|value| u64::from(value & 0x3fff)),
        2 => cursor.u32().map(|value| u64::from(value & 0x3fff_ffff)),
        _ => cursor.u64().map(|value| value & 0x3fff_ffff_ffff_ffff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_lengths() {
        // The examples of RFC 9000 appendix A.1.
        let decoded = |bytes: &[u8]| varint(&mut Cursor::new(bytes));
        assert_eq!(decoded(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]), Ok(151_288_809_941_952_652));
        assert_eq!(decoded(&[0x9d, 0x7f, 0x3e, 0x7d]), Ok(494_878_333));
        assert_eq!(decoded(&[0x7b, 0xbd]), Ok(15_293));
        assert_eq!(decoded(&[0x25]), Ok(37));
        assert_eq!(decoded(&[0x40]), Err(Short));
    }

    #[test]
    fn packets_share_a_datagram() {
        let initial = b"\xc0\0\0\0\x01\x01a\x01b\0\x02\xff\xff";
        let handshake = b"\xe0\0\0\0\x01\x01a\x01b\x01\xff";
        let datagram = [&initial[..], handshake, b"\x40short"].concat();
        let kinds: Vec<_> = Packet::all(&datagram).map(|packet| (packet.kind, packet.bytes.len())).collect();
        assert_eq!(kinds, [(Kind::Initial, initial.len()), (Kind::Handshake, handshake.len())]);
        assert_eq!(Packet::all(b"\xc0\0\0\0\x01\xff").count(), 0);
        assert_eq!(
            Packet::all(b"\xd0\x6b\x33\x43\xcf\x01a\x01b\0\x01\xff").map(|p| p.kind).next(),
            Some(Kind::Initial)
        );
    }
}
