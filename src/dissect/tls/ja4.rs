//! JA4, the fingerprint of a client's TLS (<https://github.com/FoxIO-LLC/ja4>; the client's part has the BSD licence).

use sha2::{Digest, Sha256};

use super::extensions::{ALPN, SERVER_NAME, SIGNATURE_ALGORITHMS, is_grease, numbers};
use super::handshake::ClientHello;
use crate::dissect::text;

/// What stands for the hash of nothing.
const NOTHING: &str = "000000000000";

/// The fingerprint. `transport` is `t` for TCP, `q` for QUIC.
pub(super) fn fingerprint(hello: &ClientHello<'_>, transport: char) -> String {
    let sane = |value: &u16| !is_grease(*value);
    let version = hello.extensions.versions().filter(sane).max().unwrap_or(hello.legacy_version);
    let version = match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    };
    let named = if hello.extensions.get(SERVER_NAME).is_some() { 'd' } else { 'i' };
    let mut suites: Vec<u16> = numbers(hello.cipher_suites).filter(sane).collect();
    let mut extensions: Vec<u16> = hello.extensions.iter().map(|(kind, _)| kind).filter(sane).collect();
    let counts = (suites.len().min(99), extensions.len().min(99));
    let alpn = alpn_ends(hello.extensions.alpn().next().unwrap_or_default());

    suites.sort_unstable();
    let suites = if suites.is_empty() { NOTHING.to_owned() } else { hash(&joined(suites)) };
    extensions.retain(|kind| !matches!(*kind, SERVER_NAME | ALPN));
    extensions.sort_unstable();
    let signatures = hello.extensions.get(SIGNATURE_ALGORITHMS).and_then(|data| data.get(2..)).unwrap_or_default();
    let extensions = match (extensions.is_empty(), joined(numbers(signatures).filter(sane))) {
        (true, _) => NOTHING.to_owned(),
        (false, signatures) if signatures.is_empty() => hash(&joined(extensions)),
        (false, signatures) => hash(&format!("{}_{signatures}", joined(extensions))),
    };
    format!("{transport}{version}{named}{:02}{:02}{alpn}_{suites}_{extensions}", counts.0, counts.1)
}

/// First and last character of the first protocol that is offered; of its hex digits where one is no letter or digit.
fn alpn_ends(protocol: &[u8]) -> String {
    match (protocol.first(), protocol.last()) {
        (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {
            [char::from(*first), char::from(*last)].iter().collect()
        }
        (Some(first), Some(last)) => {
            let digits = text::hex(&[*first, *last]);
            digits.chars().take(1).chain(digits.chars().skip(3)).collect()
        }
        _ => "00".to_owned(),
    }
}

/// Four hex digits each, with commas between.
fn joined(values: impl IntoIterator<Item = u16>) -> String {
    values.into_iter().map(|value| format!("{value:04x}")).collect::<Vec<_>>().join(",")
}

/// The first twelve hex digits of the SHA-256.
fn hash(value: &str) -> String {
    let digest = Sha256::digest(value.as_bytes());
    text::hex(digest.get(..6).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_protocols_show_their_digits() {
        assert_eq!(alpn_ends(b"h2"), "h2");
        assert_eq!(alpn_ends(b"http/1.1"), "h1");
        assert_eq!(alpn_ends(b"\xab"), "ab");
        assert_eq!(alpn_ends(b"\x30\x31\xab\xcd"), "3d");
        assert_eq!(alpn_ends(b""), "00");
    }

    #[test]
    fn hashes_are_those_of_the_specification() {
        // The example of the specification's section on cipher suites.
        let suites = [
            0x002f, 0x0035, 0x009c, 0x009d, 0x1301, 0x1302, 0x1303, 0xc013, 0xc014, 0xc02b, 0xc02c, 0xc02f, 0xc030,
            0xcca8, 0xcca9,
        ];
        assert_eq!(hash(&joined(suites)), "8daaf6152771");
    }
}
