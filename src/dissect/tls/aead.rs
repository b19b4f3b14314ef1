//! Authenticated ciphers, opened in place. QUIC has the same.

use aes::{Aes128, Aes256};
use aes_gcm::aead::array::Array;
use aes_gcm::aead::array::typenum::Unsigned;
use aes_gcm::aead::consts::{U8, U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use ccm::Ccm;
use chacha20poly1305::ChaCha20Poly1305;

use super::suite::Cipher;

/// A cipher with its key in place.
pub(in crate::dissect) enum Aead {
    Aes128Gcm(Box<Aes128Gcm>),
    Aes256Gcm(Box<Aes256Gcm>),
    Aes128Ccm(Box<Ccm<Aes128, U16, U12>>),
    Aes256Ccm(Box<Ccm<Aes256, U16, U12>>),
    Aes128Ccm8(Box<Ccm<Aes128, U8, U12>>),
    Aes256Ccm8(Box<Ccm<Aes256, U8, U12>>),
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
}

impl Aead {
    /// None if the cipher is of another kind, or the key of another length.
    pub fn new(cipher: Cipher, key: &[u8]) -> Option<Self> {
        fn keyed<C: KeyInit>(key: &[u8]) -> Option<Box<C>> {
            C::new_from_slice(key).ok().map(Box::new)
        }
        Some(match cipher {
            Cipher::Aes128Gcm => Self::Aes128Gcm(keyed(key)?),
            Cipher::Aes256Gcm => Self::Aes256Gcm(keyed(key)?),
            Cipher::Aes128Ccm => Self::Aes128Ccm(keyed(key)?),
            Cipher::Aes256Ccm => Self::Aes256Ccm(keyed(key)?),
            Cipher::Aes128Ccm8 => Self::Aes128Ccm8(keyed(key)?),
            Cipher::Aes256Ccm8 => Self::Aes256Ccm8(keyed(key)?),
            Cipher::ChaCha20Poly1305 => Self::ChaCha20Poly1305(keyed(key)?),
            Cipher::Null | Cipher::Rc4 | Cipher::TripleDesCbc | Cipher::Aes128Cbc | Cipher::Aes256Cbc => return None,
        })
    }

    /// Bytes of its tag.
    pub fn tag_len(&self) -> usize {
        match self {
            Self::Aes128Ccm8(_) | Self::Aes256Ccm8(_) => 8,
            _ => 16,
        }
    }

    /// Decrypts `text`, which ends in the tag, and cuts that off; false, with `text` as it was or of no use, if it does not
    /// hold.
    pub fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut Vec<u8>) -> bool {
        match self {
            Self::Aes128Gcm(cipher) => open(&**cipher, nonce, aad, text),
            Self::Aes256Gcm(cipher) => open(&**cipher, nonce, aad, text),
            Self::Aes128Ccm(cipher) => open(&**cipher, nonce, aad, text),
            Self::Aes256Ccm(cipher) => open(&**cipher, nonce, aad, text),
            Self::Aes128Ccm8(cipher) => open(&**cipher, nonce, aad, text),
            Self::Aes256Ccm8(cipher) => open(&**cipher, nonce, aad, text),
            Self::ChaCha20Poly1305(cipher) => open(&**cipher, nonce, aad, text),
        }
    }
}

fn open<C: AeadInOut<NonceSize = U12>>(cipher: &C, nonce: &[u8; 12], aad: &[u8], text: &mut Vec<u8>) -> bool {
    let Some(length) = text.len().checked_sub(C::TagSize::USIZE) else { return false };
    let Some((sealed, tag)) = text.split_at_mut_checked(length) else { return false };
    let Ok(tag) = Array::try_from(&*tag) else { return false };
    let opened = cipher.decrypt_inout_detached(&(*nonce).into(), aad, sealed.into(), &tag).is_ok();
    text.truncate(length);
    opened
}
