//! Handshake messages (RFC 8446 section 4, RFC 5246 section 7.4) and the hello of SSL 2.0 (RFC 6101 appendix E).

use super::cipher::cipher_suite;
use super::extensions::{self, Extensions, PRE_SHARED_KEY, counted8, counted16, numbers, version};
use super::ja4;
use crate::dissect::{Cursor, Short, text};
use crate::entry::Value;
use crate::fields;

/// Bytes of a handshake message's header: type and length.
pub(in crate::dissect) const HEADER: usize = 4;

/// Types of handshake messages.
pub(in crate::dissect) mod kind {
    pub const HELLO_REQUEST: u8 = 0;
    pub const CLIENT_HELLO: u8 = 1;
    pub const SERVER_HELLO: u8 = 2;
    pub const NEW_SESSION_TICKET: u8 = 4;
    pub const END_OF_EARLY_DATA: u8 = 5;
    pub const ENCRYPTED_EXTENSIONS: u8 = 8;
    pub const CERTIFICATE: u8 = 11;
    pub const CLIENT_KEY_EXCHANGE: u8 = 16;
    pub const FINISHED: u8 = 20;
    pub const KEY_UPDATE: u8 = 24;
}

/// The random of a `ServerHello` that is a `HelloRetryRequest` (RFC 8446 section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// The first message of a handshake.
#[derive(Clone, Copy, Debug)]
pub(in crate::dissect) struct ClientHello<'a> {
    pub legacy_version: u16,
    pub random: &'a [u8],
    pub session_id: &'a [u8],
    /// Two bytes each.
    pub cipher_suites: &'a [u8],
    pub compression_methods: &'a [u8],
    pub extensions: Extensions<'a>,
}

impl<'a> ClientHello<'a> {
    /// From a message's body. Extensions that are cut off are kept as far as they go.
    pub fn parse(body: &'a [u8]) -> Result<Self, Short> {
        let mut cursor = Cursor::new(body);
        Ok(Self {
            legacy_version: cursor.u16()?,
            random: cursor.take(32)?,
            session_id: counted8(&mut cursor)?,
            cipher_suites: counted16(&mut cursor)?,
            compression_methods: counted8(&mut cursor)?,
            extensions: rest_as_extensions(cursor),
        })
    }

    /// From the first bytes of a message's body, or from one whose lengths are wrong: what can't be read is empty.
    pub fn begun(body: &'a [u8]) -> Self {
        let mut hello = Self {
            legacy_version: 0,
            random: &[],
            session_id: &[],
            cipher_suites: &[],
            compression_methods: &[],
            extensions: Extensions(&[]),
        };
        let mut cursor = Cursor::new(body);
        let mut read = || -> Result<(), Short> {
            hello.legacy_version = cursor.u16()?;
            hello.random = cursor.take(32)?;
            hello.session_id = counted8(&mut cursor)?;
            hello.cipher_suites = counted16(&mut cursor)?;
            hello.compression_methods = counted8(&mut cursor)?;
            hello.extensions = rest_as_extensions(cursor);
            Ok(())
        };
        let _ = read();
        hello
    }

    /// From a `CLIENT-HELLO` of SSL 2.0, after its length; its suites have three bytes, the first of which is 0 for TLS's.
    pub fn parse_v2(message: &'a [u8]) -> Result<Self, Short> {
        let mut cursor = Cursor::new(message);
        cursor.skip(1)?;
        let legacy_version = cursor.u16()?;
        let (suites, session, challenge) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
        cursor.skip(suites.into())?;
        Ok(Self {
            legacy_version,
            session_id: cursor.take(session.into())?,
            random: cursor.take(challenge.into())?,
            cipher_suites: &[],
            compression_methods: &[],
            extensions: Extensions(&[]),
        })
    }

    /// The host name that is asked for; empty if there is none.
    pub fn server_name(&self) -> String {
        self.extensions.server_name().map(text::string).unwrap_or_default()
    }

    /// Every field. `transport` is `t` for TCP, `q` for QUIC, as in JA4.
    pub fn decode(&self, transport: char) -> Value {
        let resumes = self.extensions.get(PRE_SHARED_KEY).is_some()
            || self.extensions.get(extensions::SESSION_TICKET).is_some_and(|ticket| !ticket.is_empty());
        fields! {
            "version" => version(self.legacy_version),
            "random" => text::hex(self.random),
            "session_id" => text::hex(self.session_id),
            "cipher_suites" => numbers(self.cipher_suites).map(|suite| cipher_suite(suite).into()).collect::<Vec<Value>>(),
            "compression_methods" => self.compression_methods.iter().map(|method| (*method).into()).collect::<Vec<Value>>(),
            "extensions" => extensions::decode(self.extensions, true),
            "offers_resumption" => resumes,
            "ja4" => ja4::fingerprint(self, transport),
        }
    }
}

/// The server's choice.
#[derive(Clone, Copy, Debug)]
pub(in crate::dissect) struct ServerHello<'a> {
    pub legacy_version: u16,
    pub random: &'a [u8],
    pub session_id: &'a [u8],
    pub cipher_suite: u16,
    pub compression_method: u8,
    pub extensions: Extensions<'a>,
}

impl<'a> ServerHello<'a> {
    /// From a message's body.
    pub fn parse(body: &'a [u8]) -> Result<Self, Short> {
        let mut cursor = Cursor::new(body);
        let legacy_version = cursor.u16()?;
        let random = cursor.take(32)?;
        // The first drafts of TLS 1.3 left these out.
        let early_draft = matches!(legacy_version, 0x7f00..=0x7f15);
        Ok(Self {
            legacy_version,
            random,
            session_id: if early_draft { &[] } else { counted8(&mut cursor)? },
            cipher_suite: cursor.u16()?,
            compression_method: if early_draft { 0 } else { cursor.u8()? },
            extensions: rest_as_extensions(cursor),
        })
    }

    /// True if it asks for another `ClientHello`.
    pub fn is_retry(&self) -> bool {
        self.random == RETRY
    }

    /// The version that will be spoken.
    pub fn version(&self) -> u16 {
        let chosen = self.extensions.get(extensions::SUPPORTED_VERSIONS).and_then(|data| Cursor::new(data).u16().ok());
        // A suite of TLS 1.3 tells too, if the extension was cut off.
        chosen.unwrap_or(if self.cipher_suite >> 8 == 0x13 { 0x0304 } else { self.legacy_version })
    }

    /// True if the version is 1.3 or a draft of it, in which all that follows is encrypted.
    pub fn is_13(&self) -> bool {
        !matches!(self.version(), 0..=0x0303)
    }

    /// True if it takes up the session that the client offered: with a ticket's key, or by its id in older versions.
    pub fn resumes(&self, offered_id: &[u8]) -> bool {
        if self.is_13() {
            return self.extensions.get(PRE_SHARED_KEY).is_some();
        }
        !offered_id.is_empty() && self.session_id == offered_id
    }

    /// Every field.
    pub fn decode(&self) -> Value {
        fields! {
            "version" => version(self.version()),
            "random" => text::hex(self.random),
            "session_id" => text::hex(self.session_id),
            "cipher_suite" => cipher_suite(self.cipher_suite),
            "compression_method" => self.compression_method,
            "extensions" => extensions::decode(self.extensions, false),
        }
    }
}

/// The extensions of an `EncryptedExtensions` message.
pub(in crate::dissect) fn encrypted_extensions(body: &[u8]) -> Extensions<'_> {
    rest_as_extensions(Cursor::new(body))
}

fn rest_as_extensions(mut cursor: Cursor<'_>) -> Extensions<'_> {
    let length = cursor.u16().unwrap_or(0);
    Extensions(cursor.rest().get(..length.into()).unwrap_or(cursor.rest()))
}

/// The DER of each certificate in a Certificate message; in TLS 1.3 (`modern`) extensions follow each of them.
pub(super) fn certificates(body: &[u8], modern: bool) -> impl Iterator<Item = &[u8]> {
    let mut cursor = Cursor::new(body);
    if modern {
        let _ = counted8(&mut cursor);
    }
    let _ = cursor.u24();
    std::iter::from_fn(move || {
        let length = cursor.u24().ok()?;
        let certificate = cursor.take(length as usize).ok()?;
        if modern {
            let _ = counted16(&mut cursor);
        }
        Some(certificate)
    })
}
