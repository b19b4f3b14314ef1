//! What stands before the bodies: length, API, version, correlation id, client id.

use super::apis::{self, CONTROLLED_SHUTDOWN};
use super::schema::Api;
use crate::dissect::{Cursor, Short};

/// The largest request; brokers take 100 MiB unless they are told to take more, and TLS would start with a length above.
pub(super) const MAX_REQUEST: u32 = 256 << 20;
/// The longest client id.
const MAX_CLIENT_ID: usize = 1024;
/// The highest version that may be of an API which is not known.
const MAX_VERSION: i16 = 127;
/// How much newer than those that are known versions of an API may be on a connection that is Kafka's.
const NEWER: i16 = 32;
/// The same, on a connection that may be.
const LITTLE_NEWER: i16 = 3;

/// The header of a request.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    /// Bytes of the message after its length.
    pub size: u32,
    pub key: i16,
    pub api: Option<&'static Api>,
    pub version: u8,
    pub correlation: i32,
    pub client: Option<&'a [u8]>,
    /// Where the header ends, before its tagged fields.
    pub len: usize,
}

impl Header<'_> {
    /// True if tagged fields end it.
    pub fn is_tagged(&self) -> bool {
        self.api.is_some_and(|api| self.version >= api.flexible)
    }

    /// The version whose fields are the best guess at the body's, if there is one.
    pub fn schema(&self) -> Option<(&'static Api, u8)> {
        schema(self.api?, self.version)
    }
}

/// The version of an API whose fields are the best guess at those of `version`: a newer one is mostly the newest that is
/// known, with more at its end.
pub(super) fn schema(api: &'static Api, version: u8) -> Option<(&'static Api, u8)> {
    (version >= api.versions.0).then_some((api, version.min(api.versions.1)))
}

/// Why some bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They may become one.
    Short,
    /// They are of something else.
    No,
}

impl From<Short> for Fault {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

/// Reads the header that the bytes start with; a `strict` reader knows all APIs.
pub(super) fn request(bytes: &[u8], strict: bool) -> Result<Header<'_>, Fault> {
    let check = |good: bool| if good { Ok(()) } else { Err(Fault::No) };
    let mut cursor = Cursor::new(bytes);
    // The first byte of a length tells text and most of what is not Kafka.
    check(cursor.peek().is_none_or(|byte| u32::from(byte) << 24 <= MAX_REQUEST))?;
    let size = cursor.u32()?;
    check((8..=MAX_REQUEST).contains(&size))?;
    let key = cursor.i16()?;
    let api = apis::find(key);
    check(key >= 0 && (api.is_some() || !strict))?;
    let version = cursor.i16()?;
    let newer = if strict { LITTLE_NEWER } else { NEWER };
    let newest = api.map_or(MAX_VERSION, |api| i16::from(api.versions.1) + newer);
    check(version <= newest)?;
    let version = u8::try_from(version).map_err(|_| Fault::No)?;
    let correlation = cursor.i32()?;
    let client = if (key, version) == (CONTROLLED_SHUTDOWN, 0) {
        None
    } else {
        check(size >= 10)?;
        match cursor.i16()? {
            -1 => None,
            len => {
                let len = usize::try_from(len).map_err(|_| Fault::No)?;
                check(len <= MAX_CLIENT_ID && len + 10 <= size as usize)?;
                let (there, whole) = match cursor.take(len) {
                    Ok(client) => (client, true),
                    Err(Short) => (cursor.rest(), false),
                };
                check(is_text(there))?;
                if !whole {
                    return Err(Fault::Short);
                }
                Some(there)
            }
        }
    };
    Ok(Header { size, key, api, version, correlation, client, len: cursor.position() })
}

/// True if people would have chosen that as a name; its last character may be cut.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !valid.chars().any(char::is_control)
}

/// Length and correlation id of a response.
pub(super) fn response(bytes: &[u8]) -> Result<(u32, i32), Short> {
    let mut cursor = Cursor::new(bytes);
    Ok((cursor.u32()?, cursor.i32()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn headers_of_requests() {
        let bytes = b"\0\0\0\x13\0\x12\0\x03\0\0\0\x07\0\x04shop\0\x01\x01\0";
        let header = request(bytes, true).unwrap();
        assert_eq!((header.size, header.key, header.version, header.correlation), (19, 18, 3, 7));
        assert_eq!((header.client, header.len, header.is_tagged()), (Some(&b"shop"[..]), 18, true));
        for end in 0..18 {
            assert_eq!(request(&bytes[..end], true).err(), Some(Fault::Short), "{end}");
        }
    }

    #[test]
    fn other_protocols_have_none() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\0\xc8\x01\0\0\xc4\x03\x03",
            // A client id with a control character, one that is longer than the message, an API that is not known.
            b"\0\0\0\x13\0\x12\0\x03\0\0\0\x07\0\x04sh\0p\0\x01\x01\0",
            b"\0\0\0\x0b\0\x12\0\x03\0\0\0\x07\0\x04shop",
            b"\0\0\0\x13\x03\xe8\0\x03\0\0\0\x07\0\x04shop\0\x01\x01\0",
        ] {
            assert_eq!(request(bytes, true).err(), Some(Fault::No), "{}", bytes.escape_ascii());
        }
    }
}
