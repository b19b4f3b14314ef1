//! The protection of packets (RFC 9001 section 5): that of Initial packets, whose keys follow from what the client sends in the
//! clear, and that of the others, whose secrets a key log has.

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

use super::packet::{Packet, Version};
use crate::dissect::tls::aead::Aead;
use crate::dissect::tls::schedule::{Hash, Hmac, expand_label};
use crate::dissect::tls::suite::{Cipher, Suite};

/// Bytes of what is sampled of a packet to unmask its header.
const SAMPLE: usize = 16;
/// The suite of Initial packets.
const INITIAL: Suite = Suite { cipher: Cipher::Aes128Gcm, hash: Hash::Sha256, mac: None };

/// What one side's packets are protected with.
pub(super) struct Keys {
    packet: Aead,
    iv: [u8; 12],
}

/// What their headers are masked with: the same for all packets of one kind, even if the other keys are updated.
pub(super) enum Mask {
    Aes128(Box<Aes128>),
    Aes256(Box<Aes256>),
    ChaCha20([u8; 32]),
}

/// A packet whose header has been unmasked.
pub(super) struct Unmasked {
    header: Vec<u8>,
    number: u64,
    /// Where the protected part starts.
    start: usize,
}

impl Unmasked {
    /// The number of the packet.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Of a packet with a short header: which generation of keys protects it, of two that take turns.
    pub fn key_phase(&self) -> bool {
        self.header.first().is_some_and(|first| first & 4 > 0)
    }
}

impl Keys {
    /// Those of client and server for Initial packets, for the destination connection id of the client's first packet.
    pub fn initial(version: Version, dcid: &[u8]) -> Option<[(Self, Mask); 2]> {
        let initial = Hmac::new(Hash::Sha256, &version.salt)?.sign(&[dcid]);
        let side = |label: &[u8]| {
            let mut secret = [0; 32];
            expand_label(Hash::Sha256, &initial, label, &mut secret)?;
            Some((Self::new(version, INITIAL, &secret)?, Mask::new(version, INITIAL, &secret)?))
        };
        Some([side(b"client in")?, side(b"server in")?])
    }

    /// Those that follow from a secret.
    pub fn new(version: Version, suite: Suite, secret: &[u8]) -> Option<Self> {
        let mut key = vec![0; suite.cipher.key_len()];
        let mut iv = [0; 12];
        let [key_label, iv_label]: [&[u8]; 2] =
            if version.is_2 { [b"quicv2 key", b"quicv2 iv"] } else { [b"quic key", b"quic iv"] };
        expand_label(suite.hash, secret, key_label, &mut key)?;
        expand_label(suite.hash, secret, iv_label, &mut iv)?;
        Some(Self { packet: Aead::new(suite.cipher, &key)?, iv })
    }

    /// The frames of a packet, if these keys protect it: one that was forged, damaged or made up has none.
    pub fn open(&self, bytes: &[u8], unmasked: &Unmasked) -> Option<Vec<u8>> {
        let mut nonce = self.iv;
        for (to, from) in nonce.iter_mut().skip(4).zip(unmasked.number.to_be_bytes()) {
            *to ^= from;
        }
        let mut frames = bytes.get(unmasked.start..)?.to_vec();
        self.packet.open(&nonce, &unmasked.header, &mut frames).then_some(frames)
    }
}

/// The secret of the next generation of keys (RFC 9001 section 6.1).
pub(super) fn next_secret(version: Version, suite: Suite, secret: &[u8]) -> Option<Vec<u8>> {
    let mut next = vec![0; secret.len()];
    expand_label(suite.hash, secret, if version.is_2 { b"quicv2 ku" } else { b"quic ku" }, &mut next)?;
    Some(next)
}

impl Mask {
    /// That which follows from a secret.
    pub fn new(version: Version, suite: Suite, secret: &[u8]) -> Option<Self> {
        let mut key = [0; 32];
        let key = key.get_mut(..suite.cipher.key_len())?;
        expand_label(suite.hash, secret, if version.is_2 { b"quicv2 hp" } else { b"quic hp" }, key)?;
        Some(match suite.cipher {
            Cipher::Aes128Gcm | Cipher::Aes128Ccm => Self::Aes128(Box::new(Aes128::new_from_slice(key).ok()?)),
            Cipher::Aes256Gcm => Self::Aes256(Box::new(Aes256::new_from_slice(key).ok()?)),
            Cipher::ChaCha20Poly1305 => Self::ChaCha20((&*key).try_into().ok()?),
            _ => return None,
        })
    }

    fn bytes(&self, sample: [u8; SAMPLE]) -> Option<[u8; 5]> {
        let block = match self {
            Self::Aes128(cipher) => {
                let mut block = Array::from(sample);
                cipher.encrypt_block(&mut block);
                block
            }
            Self::Aes256(cipher) => {
                let mut block = Array::from(sample);
                cipher.encrypt_block(&mut block);
                block
            }
            Self::ChaCha20(key) => {
                let (counter, nonce) = sample.split_first_chunk::<4>()?;
                let nonce: [u8; 12] = nonce.try_into().ok()?;
                let mut cipher = ChaCha20::new(&(*key).into(), &nonce.into());
                cipher.try_seek(u64::from(u32::from_le_bytes(*counter)) * 64).ok()?;
                let mut mask = [0; 5];
                cipher.try_apply_keystream(&mut mask).ok()?;
                return Some(mask);
            }
        };
        block.first_chunk().copied()
    }

    /// Unmasks the header of a packet whose number starts at `number_at`; `largest` is the highest number seen before.
    pub fn remove(&self, bytes: &[u8], number_at: usize, largest: Option<u64>) -> Option<Unmasked> {
        // The sample starts where a packet number of four bytes would end.
        let sample = bytes.get(number_at + 4..)?.first_chunk::<SAMPLE>()?;
        let [mask, number_mask @ ..] = self.bytes(*sample)?;
        let mut header = bytes.get(..number_at)?.to_vec();
        let first = header.first_mut()?;
        *first ^= mask & if *first & 0x80 > 0 { 0x0f } else { 0x1f };
        let length = usize::from(*first & 3) + 1;
        let mut truncated = 0;
        for (byte, mask) in bytes.get(number_at..)?.iter().zip(number_mask).take(length) {
            header.push(byte ^ mask);
            truncated = truncated << 8 | u64::from(byte ^ mask);
        }
        let number = expand_number(truncated, length, largest);
        Some(Unmasked { header, number, start: number_at + length })
    }

    /// Opens a packet with a long header.
    pub fn open(&self, keys: &Keys, packet: &Packet<'_>, largest: Option<u64>) -> Option<(u64, Vec<u8>)> {
        let unmasked = self.remove(packet.bytes, packet.number_at, largest)?;
        Some((unmasked.number, keys.open(packet.bytes, &unmasked)?))
    }
}

/// The packet number whose last bytes are given: the one nearest to what is expected (RFC 9000 appendix A.3).
fn expand_number(truncated: u64, length: usize, largest: Option<u64>) -> u64 {
    let expected = largest.map_or(0, |largest| largest + 1);
    let window = 1u64 << (8 * length);
    let candidate = expected & !(window - 1) | truncated;
    if candidate + window / 2 <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_nearest_to_what_is_expected() {
        // The example of RFC 9000 appendix A.3.
        assert_eq!(expand_number(0x9b32, 2, Some(0xa82f_30ea)), 0xa82f_9b32);
        assert_eq!(expand_number(5, 1, None), 5);
        assert_eq!(expand_number(1, 1, Some(0xff)), 0x101);
        assert_eq!(expand_number(0xfe, 1, Some(0x101)), 0xfe);
    }

    #[test]
    fn headers_are_masked_with_chacha20_too() {
        // RFC 9001 appendix A.5.
        let secret: Vec<u8> = (0..32).map(|at| SECRET.get(at).copied().unwrap_or_default()).collect();
        let suite = Suite { cipher: Cipher::ChaCha20Poly1305, hash: Hash::Sha256, mac: None };
        let version = Version::of(1).unwrap_or_else(|| unreachable!("version 1 is known"));
        let packet = [
            0x4c, 0xfe, 0x41, 0x89, 0x65, 0x5e, 0x5c, 0xd5, 0x5c, 0x41, 0xf6, 0x90, 0x80, 0x57, 0x5d, 0x79, 0x99, 0xc2,
            0x5a, 0x5b, 0xfb,
        ];
        let opened = Mask::new(version, suite, &secret).and_then(|mask| {
            let unmasked = mask.remove(&packet, 1, Some(654_360_563))?;
            let frames = Keys::new(version, suite, &secret)?.open(&packet, &unmasked)?;
            Some((unmasked.number(), unmasked.key_phase(), frames))
        });
        assert_eq!(opened, Some((654_360_564, false, vec![1])));
    }

    const SECRET: [u8; 32] = [
        0x9a, 0xc3, 0x12, 0xa7, 0xf8, 0x77, 0x46, 0x8e, 0xbe, 0x69, 0x42, 0x27, 0x48, 0xad, 0x00, 0xa1, 0x54, 0x43,
        0xf1, 0x82, 0x03, 0xa0, 0x7d, 0x60, 0x60, 0xf6, 0x88, 0xf3, 0x0f, 0x21, 0x63, 0x2b,
    ];
}
