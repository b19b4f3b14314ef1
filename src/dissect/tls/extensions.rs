//! The extensions of both hellos: what rows and fingerprints need of them, and all their fields for the detail view.

use crate::dissect::{Cursor, Short, text};
use crate::entry::{Text, Value};
use crate::fields;

pub(in crate::dissect) const SERVER_NAME: u16 = 0;
pub(super) const TRUNCATED_HMAC: u16 = 4;
pub(super) const ENCRYPT_THEN_MAC: u16 = 22;
pub(super) const EXTENDED_MASTER_SECRET: u16 = 23;
pub(super) const SESSION_TICKET: u16 = 35;
pub(in crate::dissect) const EARLY_DATA: u16 = 42;
pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
pub(in crate::dissect) const ALPN: u16 = 16;
pub(in crate::dissect) const PRE_SHARED_KEY: u16 = 41;
pub(super) const SUPPORTED_VERSIONS: u16 = 43;
const SUPPORTED_GROUPS: u16 = 10;
const KEY_SHARE: u16 = 51;

/// True for the values that only test whether peers tolerate unknown ones (RFC 8701).
pub(super) fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// The extensions of a hello, in order. A malformed one ends them.
#[derive(Clone, Copy, Debug)]
pub(in crate::dissect) struct Extensions<'a>(pub &'a [u8]);

impl<'a> Extensions<'a> {
    /// Type and data of each.
    pub fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut cursor = Cursor::new(self.0);
        std::iter::from_fn(move || {
            let (kind, length) = (cursor.u16().ok()?, cursor.u16().ok()?);
            // The last one may be cut off; what there is of it may still tell something.
            let data = cursor.take(usize::from(length).min(cursor.remaining())).ok()?;
            Some((kind, data))
        })
    }

    /// The data of the extension of that type.
    pub fn get(self, wanted: u16) -> Option<&'a [u8]> {
        self.iter().find(|(kind, _)| *kind == wanted).map(|(_, data)| data)
    }

    /// The host name that a client asks for (RFC 6066 section 3).
    pub fn server_name(self) -> Option<&'a [u8]> {
        let mut cursor = Cursor::new(self.get(SERVER_NAME)?);
        cursor.skip(2).ok()?;
        while let Ok(kind) = cursor.u8() {
            let name = counted16(&mut cursor).ok()?;
            if kind == 0 {
                return Some(name);
            }
        }
        None
    }

    /// The application protocols that are offered, or the one that is chosen (RFC 7301).
    pub fn alpn(self) -> impl Iterator<Item = &'a [u8]> {
        let mut cursor = Cursor::new(self.get(ALPN).unwrap_or_default());
        let _ = cursor.skip(2);
        std::iter::from_fn(move || counted8(&mut cursor).ok())
    }

    /// The versions that a client offers in their extension; none if it has none.
    pub fn versions(self) -> impl Iterator<Item = u16> {
        let mut cursor = Cursor::new(self.get(SUPPORTED_VERSIONS).unwrap_or_default());
        let _ = cursor.skip(1);
        numbers(cursor.rest())
    }
}

/// Big-endian numbers, one after the other.
pub(super) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let mut cursor = Cursor::new(bytes);
    std::iter::from_fn(move || cursor.u16().ok())
}

pub(super) fn counted8<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = cursor.u8()?;
    cursor.take(length.into())
}

pub(super) fn counted16<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Short> {
    let length = cursor.u16()?;
    cursor.take(length.into())
}

/// Each extension with its decoded fields. `client`: of a `ClientHello`, whose lists are a single value in a `ServerHello`.
pub(super) fn decode(extensions: Extensions<'_>, client: bool) -> Value {
    let decoded = extensions.iter().map(|(kind, data)| {
        let value = decode_one(kind, data, client).unwrap_or_else(|Short| raw(data));
        (name(kind), value)
    });
    Value::Map(decoded.collect())
}

fn decode_one(kind: u16, data: &[u8], client: bool) -> Result<Value, Short> {
    let mut cursor = Cursor::new(data);
    Ok(match kind {
        _ if data.is_empty() => Value::Null,
        SERVER_NAME => Extensions(data).as_host(),
        SUPPORTED_GROUPS => list(counted16(&mut cursor)?, group),
        SIGNATURE_ALGORITHMS | 50 => list(counted16(&mut cursor)?, signature_scheme),
        ALPN => {
            let mut names = Cursor::new(counted16(&mut cursor)?);
            let mut protocols = Vec::new();
            while !names.is_empty() {
                protocols.push(text::value(counted8(&mut names)?));
            }
            Value::List(protocols)
        }
        PRE_SHARED_KEY if client => {
            let mut identities = Cursor::new(counted16(&mut cursor)?);
            let mut shown = Vec::new();
            while !identities.is_empty() {
                let identity = counted16(&mut identities)?;
                shown.push(fields! { "size" => identity.len(), "obfuscated_ticket_age" => identities.u32()? });
            }
            fields! { "identities" => shown }
        }
        PRE_SHARED_KEY => fields! { "selected_identity" => cursor.u16()? },
        SUPPORTED_VERSIONS if client => list(counted8(&mut cursor)?, version),
        SUPPORTED_VERSIONS => version(cursor.u16()?).into(),
        45 => Value::List(
            counted8(&mut cursor)?
                .iter()
                .map(|mode| match mode {
                    0 => "psk_ke".into(),
                    1 => "psk_dhe_ke".into(),
                    other => Value::from(*other),
                })
                .collect(),
        ),
        KEY_SHARE if client => {
            let mut shares = Cursor::new(counted16(&mut cursor)?);
            let mut groups = Vec::new();
            while !shares.is_empty() {
                groups.push(group(shares.u16()?).into());
                counted16(&mut shares)?;
            }
            Value::List(groups)
        }
        KEY_SHARE => group(cursor.u16()?).into(),
        27 => list(counted8(&mut cursor)?, |algorithm| match algorithm {
            1 => "zlib".into(),
            2 => "brotli".into(),
            3 => "zstd".into(),
            other => other.to_string().into(),
        }),
        28 => cursor.u16()?.into(),
        _ => raw(data),
    })
}

impl Extensions<'_> {
    /// The data of a server name extension alone.
    fn as_host(self) -> Value {
        let mut cursor = Cursor::new(self.0);
        if cursor.skip(3).is_ok()
            && let Ok(name) = counted16(&mut cursor)
        {
            return text::value(name);
        }
        raw(self.0)
    }
}

fn list(bytes: &[u8], name: impl Fn(u16) -> Text) -> Value {
    Value::List(numbers(bytes).map(|number| name(number).into()).collect())
}

/// The size alone: what is not decoded may be kilobytes of padding or keys.
fn raw(data: &[u8]) -> Value {
    fields! { "size" => data.len() }
}

/// A protocol version's name as in rows; drafts of TLS 1.3 are TLS 1.3.
pub(in crate::dissect) fn version(number: u16) -> Text {
    Text::Borrowed(match number {
        0x0002 | 0x0200 => "SSL 2.0",
        0x0300 => "SSL 3.0",
        0x0301 => "TLS 1.0",
        0x0302 => "TLS 1.1",
        0x0303 => "TLS 1.2",
        0x0304 | 0x7f00..=0x7fff | 0xfb00..=0xfbff => "TLS 1.3",
        _ if is_grease(number) => "GREASE",
        _ => return format!("{number:#06x}").into(),
    })
}

/// A key exchange group's name.
fn group(number: u16) -> Text {
    Text::Borrowed(match number {
        1 => "sect163k1",
        3 => "sect163r2",
        6 => "sect233k1",
        7 => "sect233r1",
        9 => "sect283k1",
        10 => "sect283r1",
        11 => "sect409k1",
        12 => "sect409r1",
        13 => "sect571k1",
        14 => "sect571r1",
        19 => "secp192r1",
        21 => "secp224r1",
        22 => "secp256k1",
        23 => "secp256r1",
        24 => "secp384r1",
        25 => "secp521r1",
        26 => "brainpoolP256r1",
        27 => "brainpoolP384r1",
        28 => "brainpoolP512r1",
        29 => "x25519",
        30 => "x448",
        41 => "curveSM2",
        256 => "ffdhe2048",
        257 => "ffdhe3072",
        258 => "ffdhe4096",
        259 => "ffdhe6144",
        260 => "ffdhe8192",
        512 => "MLKEM512",
        513 => "MLKEM768",
        514 => "MLKEM1024",
        4587 => "SecP256r1MLKEM768",
        4588 => "X25519MLKEM768",
        4589 => "SecP384r1MLKEM1024",
        0x6399 => "X25519Kyber768Draft00",
        _ if is_grease(number) => "GREASE",
        _ => return format!("{number:#06x}").into(),
    })
}

/// A signature scheme's name.
fn signature_scheme(number: u16) -> Text {
    Text::Borrowed(match number {
        0x0201 => "rsa_pkcs1_sha1",
        0x0202 => "dsa_sha1",
        0x0203 => "ecdsa_sha1",
        0x0301 => "rsa_pkcs1_sha224",
        0x0303 => "ecdsa_sha224",
        0x0401 => "rsa_pkcs1_sha256",
        0x0402 => "dsa_sha256",
        0x0403 => "ecdsa_secp256r1_sha256",
        0x0501 => "rsa_pkcs1_sha384",
        0x0503 => "ecdsa_secp384r1_sha384",
        0x0601 => "rsa_pkcs1_sha512",
        0x0603 => "ecdsa_secp521r1_sha512",
        0x0708 => "sm2sig_sm3",
        0x0804 => "rsa_pss_rsae_sha256",
        0x0805 => "rsa_pss_rsae_sha384",
        0x0806 => "rsa_pss_rsae_sha512",
        0x0807 => "ed25519",
        0x0808 => "ed448",
        0x0809 => "rsa_pss_pss_sha256",
        0x080a => "rsa_pss_pss_sha384",
        0x080b => "rsa_pss_pss_sha512",
        0x0904 => "mldsa44",
        0x0905 => "mldsa65",
        0x0906 => "mldsa87",
        _ if is_grease(number) => "GREASE",
        _ => return format!("{number:#06x}").into(),
    })
}

/// An extension's name as in the IANA registry.
fn name(kind: u16) -> Text {
    Text::Borrowed(match kind {
        0 => "server_name",
        1 => "max_fragment_length",
        4 => "truncated_hmac",
        5 => "status_request",
        10 => "supported_groups",
        11 => "ec_point_formats",
        12 => "srp",
        13 => "signature_algorithms",
        14 => "use_srtp",
        15 => "heartbeat",
        16 => "application_layer_protocol_negotiation",
        17 => "status_request_v2",
        18 => "signed_certificate_timestamp",
        19 => "client_certificate_type",
        20 => "server_certificate_type",
        21 => "padding",
        22 => "encrypt_then_mac",
        23 => "extended_master_secret",
        24 => "token_binding",
        27 => "compress_certificate",
        28 => "record_size_limit",
        34 => "delegated_credential",
        35 => "session_ticket",
        41 => "pre_shared_key",
        42 => "early_data",
        43 => "supported_versions",
        44 => "cookie",
        45 => "psk_key_exchange_modes",
        47 => "certificate_authorities",
        48 => "oid_filters",
        49 => "post_handshake_auth",
        50 => "signature_algorithms_cert",
        51 => "key_share",
        54 => "connection_id",
        57 => "quic_transport_parameters",
        58 => "ticket_request",
        13172 => "next_protocol_negotiation",
        17513 | 17613 => "application_settings",
        0xfe0d => "encrypted_client_hello",
        0xff01 => "renegotiation_info",
        0xffa5 => "quic_transport_parameters_draft",
        0xffce => "encrypted_server_name",
        _ if is_grease(kind) => "GREASE",
        _ => return format!("extension_{kind}").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_extension_ends_the_list() {
        let extensions = Extensions(b"\0\x17\0\0\0\0\0\x08\0\x06\0\0\x03a.b\0\x10\0");
        assert_eq!(extensions.server_name(), Some(&b"a.b"[..]));
        assert_eq!(extensions.iter().count(), 2);
        assert_eq!(extensions.alpn().next(), None);
    }

    #[test]
    fn grease_is_known() {
        assert!(is_grease(0x0a0a) && is_grease(0xfafa) && !is_grease(0x0afa) && !is_grease(0x1301));
    }
}
