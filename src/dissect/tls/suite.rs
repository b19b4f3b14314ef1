//! What a cipher suite is made of, told from its name.

use super::cipher::cipher_suite;
use super::schedule::Hash;

/// How a suite encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dissect) enum Cipher {
    /// Not at all.
    Null,
    Rc4,
    TripleDesCbc,
    Aes128Cbc,
    Aes256Cbc,
    Aes128Gcm,
    Aes256Gcm,
    Aes128Ccm,
    Aes256Ccm,
    /// With a tag of eight bytes.
    Aes128Ccm8,
    Aes256Ccm8,
    ChaCha20Poly1305,
}

impl Cipher {
    /// Bytes of its key.
    pub fn key_len(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Rc4 | Self::Aes128Cbc | Self::Aes128Gcm | Self::Aes128Ccm | Self::Aes128Ccm8 => 16,
            Self::TripleDesCbc => 24,
            Self::Aes256Cbc | Self::Aes256Gcm | Self::Aes256Ccm | Self::Aes256Ccm8 | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of what TLS 1.2 and older take for it from the key block beside the keys: the initial vector, or the fixed part
    /// of the nonce.
    pub fn iv_len(self) -> usize {
        match self {
            Self::Null | Self::Rc4 => 0,
            Self::TripleDesCbc => 8,
            Self::Aes128Cbc | Self::Aes256Cbc => 16,
            Self::ChaCha20Poly1305 => 12,
            _ => 4,
        }
    }
}

/// A cipher suite that can be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dissect) struct Suite {
    pub cipher: Cipher,
    /// Of the key schedule since TLS 1.2.
    pub hash: Hash,
    /// Of the record's MAC, if the cipher does not authenticate by itself.
    pub mac: Option<Hash>,
}

impl Suite {
    /// The suite of that number; none if it is not known or its cipher is not supported.
    pub fn of(number: u16) -> Option<Self> {
        // The first drafts of ChaCha20 suites made their nonces in another way.
        if matches!(number, 0xcc13..=0xcc15) {
            return None;
        }
        let name = cipher_suite(number);
        let parts = match name.split_once("_WITH_") {
            Some((_, parts)) => parts,
            None => name.strip_prefix("TLS_")?,
        };
        let (cipher, hash) =
            [("_SHA256", Hash::Sha256), ("_SHA384", Hash::Sha384), ("_SHA", Hash::Sha1), ("_MD5", Hash::Md5)]
                .into_iter()
                .find_map(|(suffix, hash)| Some((parts.strip_suffix(suffix)?, Some(hash))))
                .unwrap_or((parts, None));
        let (cipher, is_aead) = match cipher {
            "NULL" => (Cipher::Null, false),
            "RC4_128" => (Cipher::Rc4, false),
            "3DES_EDE_CBC" => (Cipher::TripleDesCbc, false),
            "AES_128_CBC" => (Cipher::Aes128Cbc, false),
            "AES_256_CBC" => (Cipher::Aes256Cbc, false),
            "AES_128_GCM" => (Cipher::Aes128Gcm, true),
            "AES_256_GCM" => (Cipher::Aes256Gcm, true),
            "AES_128_CCM" => (Cipher::Aes128Ccm, true),
            "AES_256_CCM" => (Cipher::Aes256Ccm, true),
            "AES_128_CCM_8" => (Cipher::Aes128Ccm8, true),
            "AES_256_CCM_8" => (Cipher::Aes256Ccm8, true),
            "CHACHA20_POLY1305" => (Cipher::ChaCha20Poly1305, true),
            _ => return None,
        };
        let mac = if is_aead { None } else { Some(hash?) };
        let hash = if hash == Some(Hash::Sha384) { Hash::Sha384 } else { Hash::Sha256 };
        Some(Self { cipher, hash, mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_made_of_what_their_names_say() {
        let suite = |cipher, hash, mac| Some(Suite { cipher, hash, mac });
        for (number, expected) in [
            (0x1301, suite(Cipher::Aes128Gcm, Hash::Sha256, None)),
            (0x1302, suite(Cipher::Aes256Gcm, Hash::Sha384, None)),
            (0x1303, suite(Cipher::ChaCha20Poly1305, Hash::Sha256, None)),
            (0x1304, suite(Cipher::Aes128Ccm, Hash::Sha256, None)),
            (0x1305, suite(Cipher::Aes128Ccm8, Hash::Sha256, None)),
            (0xc030, suite(Cipher::Aes256Gcm, Hash::Sha384, None)),
            (0xcca8, suite(Cipher::ChaCha20Poly1305, Hash::Sha256, None)),
            (0xc09c, suite(Cipher::Aes128Ccm, Hash::Sha256, None)),
            (0xc0af, suite(Cipher::Aes256Ccm8, Hash::Sha256, None)),
            (0x002f, suite(Cipher::Aes128Cbc, Hash::Sha256, Some(Hash::Sha1))),
            (0xc028, suite(Cipher::Aes256Cbc, Hash::Sha384, Some(Hash::Sha384))),
            (0x000a, suite(Cipher::TripleDesCbc, Hash::Sha256, Some(Hash::Sha1))),
            (0x0004, suite(Cipher::Rc4, Hash::Sha256, Some(Hash::Md5))),
            (0x003b, suite(Cipher::Null, Hash::Sha256, Some(Hash::Sha256))),
            // Of no use: no cipher yet, one that hardly anybody has, one too weak, an old draft.
            (0x0000, None),
            (0x0041, None),
            (0x0003, None),
            (0xcc13, None),
            (0xfafa, None),
        ] {
            assert_eq!(Suite::of(number), expected, "{number:#06x}");
        }
    }
}
