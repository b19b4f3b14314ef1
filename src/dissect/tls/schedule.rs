//! From secrets to keys: the pseudorandom functions of TLS 1.0 to 1.2 (RFC 2246 and RFC 5246, section 5) and
//! HKDF-Expand-Label of TLS 1.3 (RFC 8446 section 7.1), which QUIC has too.

use hmac::{KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384};

/// The hash functions of cipher suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dissect) enum Hash {
    Md5,
    Sha1,
    Sha256,
    Sha384,
}

impl Hash {
    /// Bytes of its output.
    pub fn len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

/// HMAC with its key in place.
#[derive(Clone)]
pub(in crate::dissect) enum Hmac {
    Md5(hmac::Hmac<Md5>),
    Sha1(hmac::Hmac<Sha1>),
    Sha256(hmac::Hmac<Sha256>),
    Sha384(hmac::Hmac<Sha384>),
}

impl Hmac {
    /// Takes keys of any length.
    pub fn new(hash: Hash, key: &[u8]) -> Option<Self> {
        Some(match hash {
            Hash::Md5 => Self::Md5(KeyInit::new_from_slice(key).ok()?),
            Hash::Sha1 => Self::Sha1(KeyInit::new_from_slice(key).ok()?),
            Hash::Sha256 => Self::Sha256(KeyInit::new_from_slice(key).ok()?),
            Hash::Sha384 => Self::Sha384(KeyInit::new_from_slice(key).ok()?),
        })
    }

    /// The code of the parts, one after the other.
    pub fn sign(&self, parts: &[&[u8]]) -> Digest {
        match self {
            Self::Md5(mac) => sign(mac, parts),
            Self::Sha1(mac) => sign(mac, parts),
            Self::Sha256(mac) => sign(mac, parts),
            Self::Sha384(mac) => sign(mac, parts),
        }
    }
}

fn sign<M: Mac + Clone>(mac: &M, parts: &[&[u8]]) -> Digest {
    let mut mac = mac.clone();
    for part in parts {
        mac.update(part);
    }
    let code = mac.finalize().into_bytes();
    let mut digest = Digest { bytes: [0; 48], len: code.len() };
    for (to, from) in digest.bytes.iter_mut().zip(&code) {
        *to = *from;
    }
    digest
}

/// A hash value of any of the functions.
#[derive(Clone, Copy)]
pub(in crate::dissect) struct Digest {
    bytes: [u8; 48],
    len: usize,
}

impl std::ops::Deref for Digest {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// PRF of TLS 1.2 with the suite's hash; without one, that of TLS 1.0 and 1.1.
pub(super) fn prf(hash: Option<Hash>, secret: &[u8], label: &[u8], seed: &[&[u8]], out: &mut [u8]) -> Option<()> {
    out.fill(0);
    if let Some(hash) = hash {
        return p_hash(hash, secret, label, seed, out);
    }
    // Each half of the secret, with the middle byte in both if their number is odd.
    let half = secret.len().div_ceil(2);
    p_hash(Hash::Md5, secret.get(..half)?, label, seed, out)?;
    p_hash(Hash::Sha1, secret.get(secret.len() - half..)?, label, seed, out)
}

/// The data expansion function, added to what `out` holds.
fn p_hash(hash: Hash, secret: &[u8], label: &[u8], seed: &[&[u8]], out: &mut [u8]) -> Option<()> {
    let mac = Hmac::new(hash, secret)?;
    let after = |first: &[u8]| {
        let parts: Vec<&[u8]> = [first, label].into_iter().chain(seed.iter().copied()).collect();
        mac.sign(&parts)
    };
    let mut a = after(&[]);
    for chunk in out.chunks_mut(hash.len()) {
        let block = after(&a);
        for (to, from) in chunk.iter_mut().zip(&*block) {
            *to ^= from;
        }
        a = mac.sign(&[&a]);
    }
    Some(())
}

/// What all labels begin with.
pub(super) const PREFIX: &[u8] = b"tls13 ";

/// HKDF-Expand-Label without context.
pub(in crate::dissect) fn expand_label(hash: Hash, secret: &[u8], label: &[u8], out: &mut [u8]) -> Option<()> {
    expand(hash, secret, PREFIX, label, out)
}

/// The same with another prefix, as in drafts.
pub(super) fn expand(hash: Hash, secret: &[u8], prefix: &[u8], label: &[u8], out: &mut [u8]) -> Option<()> {
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(prefix.len() + label.len()).ok()?];
    let mac = Hmac::new(hash, secret)?;
    let mut previous: Option<Digest> = None;
    for (count, chunk) in (1u8..).zip(out.chunks_mut(hash.len())) {
        let before = previous.as_deref().unwrap_or_default();
        let block = mac.sign(&[before, &length, &label_length, prefix, label, &[0], &[count]]);
        chunk.copy_from_slice(block.get(..chunk.len())?);
        previous = Some(block);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissect::text::hex;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let digit = |at: u8| char::from(at).to_digit(16).unwrap_or_default() as u8;
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, at| byte << 4 | digit(*at))).collect()
    }

    #[test]
    fn keys_of_tls_13_are_those_of_rfc_8448() {
        // Section 3: the server's handshake traffic secret, then both sides' application traffic secrets.
        for (secret, key, iv) in [
            (
                "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38",
                "3fce516009c21727d0f2e4e86ee403bc",
                "5d313eb2671276ee13000b30",
            ),
            (
                "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
                "9f02283b6c9c07efc26bb9f2ac92e356",
                "cf782b88dd83549aadf1e984",
            ),
            (
                "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
                "17422dda596ed5d9acd890e3c63f5051",
                "5b78923dee08579033e523d9",
            ),
        ] {
            let (mut derived_key, mut derived_iv) = ([0; 16], [0; 12]);
            assert!(expand_label(Hash::Sha256, &bytes(secret), b"key", &mut derived_key).is_some());
            assert!(expand_label(Hash::Sha256, &bytes(secret), b"iv", &mut derived_iv).is_some());
            assert_eq!((hex(&derived_key), hex(&derived_iv)), (key.to_owned(), iv.to_owned()));
        }
    }

    #[test]
    fn the_prf_of_tls_12_gives_the_known_values() {
        // The vectors that the TLS working group's members published for P_SHA256 and P_SHA384.
        let mut out = [0; 16];
        let secret = bytes("9bbe436ba940f017b17652849a71db35");
        let seed = bytes("a0ba9f936cda311827a6f796ffd5198c");
        assert!(prf(Some(Hash::Sha256), &secret, b"test label", &[&seed], &mut out).is_some());
        assert_eq!(hex(&out), "e3f229ba727be17b8d122620557cd453");
        let secret = bytes("b80b733d6ceefcdc71566ea48e5567df");
        let seed = bytes("cd665cf6a8447dd6ff8b27555edb7465");
        assert!(prf(Some(Hash::Sha384), &secret, b"test label", &[&seed], &mut out).is_some());
        assert_eq!(hex(&out), "7b0c18e9ced410ed1804f2cfa34a336a");
    }
}
