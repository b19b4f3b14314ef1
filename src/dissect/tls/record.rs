//! The record layer (RFC 8446 section 5.1) and alerts. The payload is handed on as it is on the wire.

use crate::dissect::{Cursor, Short};
use crate::entry::Text;

/// Bytes of a record's header.
pub(super) const HEADER: usize = 5;
/// The longest payload: 2^14 bytes, and what compression and encryption may add (RFC 5246 section 6.2.3).
const MAX_PAYLOAD: u16 = (1 << 14) + 2048;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
    Heartbeat,
}

impl Content {
    /// The content type of that number.
    pub fn of(number: u8) -> Option<Self> {
        Some(match number {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            24 => Self::Heartbeat,
            _ => return None,
        })
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub content: Content,
    pub length: usize,
}

impl Header {
    /// The header at the front of `bytes`; `None` if these can't be a record's.
    ///
    /// # Errors
    /// [`Short`] if more bytes are needed to tell.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Short> {
        let mut cursor = Cursor::new(bytes);
        let Some(content) = Content::of(cursor.u8()?) else { return Ok(None) };
        if cursor.peek().is_some_and(|major| major != 3) {
            return Ok(None);
        }
        let version = cursor.u16()?;
        if version > 0x0304 {
            return Ok(None);
        }
        let length = cursor.u16()?;
        Ok((length <= MAX_PAYLOAD).then_some(Self { content, length: length.into() }))
    }
}

/// An alert that is not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dissect) struct Alert {
    pub fatal: bool,
    pub description: u8,
}

impl Alert {
    /// From a record's payload, if that is not encrypted.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        match *payload {
            [level @ 1..=2, description] => Some(Self { fatal: level == 2, description }),
            _ => None,
        }
    }

    /// True if it does not end a handshake by itself: `close_notify`, `no_certificate` of SSL 3.0, `user_canceled`,
    /// `no_renegotiation` and `unrecognized_name`, as warnings.
    pub fn is_benign(self) -> bool {
        !self.fatal && matches!(self.description, 0 | 41 | 90 | 100 | 112)
    }

    /// Its name as in the RFCs.
    pub fn name(self) -> Text {
        Text::Borrowed(match self.description {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            21 => "decryption_failed",
            22 => "record_overflow",
            30 => "decompression_failure",
            40 => "handshake_failure",
            41 => "no_certificate",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            60 => "export_restriction",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            111 => "certificate_unobtainable",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            114 => "bad_certificate_hash_value",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            117 => "general_error",
            120 => "no_application_protocol",
            121 => "ech_required",
            other => return other.to_string().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_told_from_its_first_bytes() {
        assert!(Header::parse(b"\x17\x03\x03\x00\x10").is_ok_and(|header| header.is_some_and(|h| h.length == 16)));
        assert!(Header::parse(b"\x16\x03").is_err());
        assert!(Header::parse(b"\x16\x02").is_ok_and(|header| header.is_none()));
        assert!(Header::parse(b"GET /").is_ok_and(|header| header.is_none()));
        assert!(Header::parse(b"\x17\x03\x03\xff\xff").is_ok_and(|header| header.is_none()));
    }

    #[test]
    fn encrypted_alerts_are_not_read() {
        assert_eq!(Alert::parse(b"\x02\x28").map(Alert::name).as_deref(), Some("handshake_failure"));
        assert_eq!(Alert::parse(&[0; 26]), None);
        assert_eq!(Alert::parse(b"\x77\x28"), None);
    }
}
