//! What a SASL security layer wraps: buffers behind their length (RFC 4422 section 3.7). Encrypted ones are opaque; in those
//! that are only signed, the messages can be read.

use crate::dissect::{Cursor, Short};

/// The largest buffer that peers agree on: three bytes of length in GSSAPI and DIGEST-MD5.
pub(super) const MAX_BUFFER: usize = 0x00ff_ffff;
/// Bytes of the length in front.
pub(super) const PREFIX: usize = 4;
/// Bytes of a buffer that tell how it is wrapped.
pub(super) const PEEK: usize = 64;

/// DIGEST-MD5 without encryption (RFC 2831 section 2.3): the message, then its checksum, the version and a sequence number.
const DIGEST: (usize, usize) = (0, 10 + 2 + 4);

/// Mechanisms that never wrap what follows.
const PLAIN: &[&[u8]] = &[b"ANONYMOUS", b"CRAM-MD5", b"EXTERNAL", b"LOGIN", b"OAUTHBEARER", b"PLAIN", b"XOAUTH2"];

/// True if what follows a bind with that mechanism may be wrapped.
pub(super) fn may_wrap(mechanism: &[u8]) -> bool {
    !PLAIN.iter().any(|plain| mechanism.eq_ignore_ascii_case(plain)) && !mechanism.starts_with(b"SCRAM-")
}

/// The length of the buffer that starts there, if one can.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let length = Cursor::new(bytes).u32().ok()? as usize;
    (1..=MAX_BUFFER).contains(&length).then_some(length)
}

/// Where the messages are in a buffer that starts there with its length, if it is one that can be read.
pub(super) fn signed(bytes: &[u8]) -> Option<(usize, usize)> {
    length(bytes)?;
    let (front, behind) = readable(bytes.get(PREFIX..)?)?;
    Some((PREFIX + front, behind))
}

/// Where in a buffer the messages are: what to leave out in front and behind. None if they are encrypted.
pub(super) fn readable(buffer: &[u8]) -> Option<(usize, usize)> {
    let mut cursor = Cursor::new(buffer);
    let (front, behind) = kerberos(&mut cursor).or_else(|_| rc4(buffer)).or_else(|_| ntlm(buffer)).unwrap_or(DIGEST);
    (buffer.get(front) == Some(&super::ber::SEQUENCE)).then_some((front, behind))
}

/// A wrap token of Kerberos (RFC 4121 section 4.2.6.2) without encryption: its checksum is behind the message, or in front
/// if the token was rotated by the length of that.
fn kerberos(cursor: &mut Cursor<'_>) -> Result<(usize, usize), Short> {
    const HEADER: usize = 16;
    const SEALED: u8 = 2;
    let ([5, 4], flags, 0xff) = (cursor.array()?, cursor.u8()?, cursor.u8()?) else { return Err(Short) };
    let (checksum, rotated) = (usize::from(cursor.u16()?), usize::from(cursor.u16()?));
    if flags & SEALED != 0 {
        return Err(Short);
    }
    match rotated {
        0 => Ok((HEADER, checksum)),
        _ if rotated == checksum => Ok((HEADER + checksum, 0)),
        _ => Err(Short),
    }
}

/// A wrap token of older Kerberos (RFC 1964 section 1.2.2) without encryption.
fn rc4(buffer: &[u8]) -> Result<(usize, usize), Short> {
    const MECHANISM: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02";
    let mut cursor = Cursor::new(buffer);
    let (0x60, _) = super::ber::header(&mut cursor).map_err(|_| Short)? else { return Err(Short) };
    if cursor.take(MECHANISM.len())? != MECHANISM {
        return Err(Short);
    }
    let ([2, 1], _, [0xff, 0xff]) = (cursor.array()?, cursor.u16()?, cursor.array()?) else { return Err(Short) };
    // Filler, sequence number, checksum and confounder; padding of one byte at least.
    cursor.skip(2 + 8 + 8 + 8)?;
    Ok((cursor.position(), 1))
}

/// An NTLM signature, with the message behind it as it is.
fn ntlm(buffer: &[u8]) -> Result<(usize, usize), Short> {
    const SIGNATURE: usize = 16;
    if buffer.starts_with(&[1, 0, 0, 0]) { Ok((SIGNATURE, 0)) } else { Err(Short) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_buffers_can_be_read_and_sealed_ones_can_not() {
        let kerberos = |flags: u8, rotated: u8| {
            let mut token = vec![5, 4, flags, 0xff, 0, 12, 0, rotated, 0, 0, 0, 0, 0, 0, 0, 1];
            token.extend_from_slice(&[0x30; 40]);
            token
        };
        assert_eq!(readable(&kerberos(0, 0)), Some((16, 12)));
        assert_eq!(readable(&kerberos(1, 12)), Some((28, 0)));
        assert_eq!(readable(&kerberos(2, 0)), None);
        let mut ntlm = vec![1, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0x30, 5];
        assert_eq!(readable(&ntlm), Some((16, 0)));
        ntlm.insert(16, 0xee);
        assert_eq!(readable(&ntlm), None);
        assert_eq!(readable(&[0x30; 20]), Some((0, 16)));
    }

    #[test]
    fn lengths_are_sane() {
        assert_eq!(length(&[0, 0, 1, 0, 5]), Some(256));
        assert_eq!(length(&[0x16, 3, 1, 2]), None);
        assert_eq!(length(&[0, 0, 0, 0]), None);
    }
}
