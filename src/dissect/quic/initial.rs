//! The protection of Initial packets (RFC 9001 section 5): its keys follow from what the client sends in the clear.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes_gcm::Aes128Gcm;
use aes_gcm::aead::AeadInOut;
use hkdf::Hkdf;
use sha2::Sha256;

use super::packet::{Packet, Version};
use crate::dissect::Cursor;

/// Bytes of an AEAD's tag.
const TAG: usize = 16;

/// What one side's Initial packets are protected with.
pub(super) struct Keys {
    packet: Aes128Gcm,
    iv: [u8; 12],
    header: Aes128,
}

impl Keys {
    /// Those of client and server, for the destination connection id of the client's first packet.
    pub fn initial(version: Version, dcid: &[u8]) -> Option<[Self; 2]> {
        let initial = Hkdf::<Sha256>::new(Some(&version.salt), dcid);
        let side = |label: &[u8]| {
            let mut secret = [0; 32];
            expand(&initial, label, &mut secret)?;
            Self::new(version, &Hkdf::from_prk(&secret).ok()?)
        };
        Some([side(b"client in")?, side(b"server in")?])
    }

    fn new(version: Version, secret: &Hkdf<Sha256>) -> Option<Self> {
        let labels: [&[u8]; 3] = if version.is_2 {
            [b"quicv2 key", b"quicv2 iv", b"quicv2 hp"]
        } else {
            [b"quic key", b"quic iv", b"quic hp"]
        };
        let [key_label, iv_label, header_label] = labels;
        let (mut key, mut iv, mut header) = ([0; 16], [0; 12], [0; 16]);
        expand(secret, key_label, &mut key)?;
        expand(secret, iv_label, &mut iv)?;
        expand(secret, header_label, &mut header)?;
        Some(Self { packet: Aes128Gcm::new(&key.into()), iv, header: Aes128::new(&header.into()) })
    }

    /// The frames of an Initial packet, if these keys protect it: a packet that was forged, damaged or made up has none.
    pub fn open(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let (header, rest) = packet.bytes.split_at_checked(packet.number_at)?;
        // The sample starts where a packet number of four bytes would end.
        let mut mask = Array::from(*rest.get(4..)?.first_chunk::<16>()?);
        self.header.encrypt_block(&mut mask);
        let mut mask = mask.into_iter();
        let mut aad = header.to_vec();
        let first = aad.first_mut()?;
        *first ^= mask.next()? & 0x0f;
        let mut cursor = Cursor::new(rest);
        let mut number = 0u32;
        for _ in 0..=*first & 3 {
            let byte = cursor.u8().ok()? ^ mask.next()?;
            aad.push(byte);
            number = number << 8 | u32::from(byte);
        }
        let mut nonce = self.iv;
        for (to, from) in nonce.iter_mut().skip(8).zip(number.to_be_bytes()) {
            *to ^= from;
        }
        let mut frames = cursor.take(cursor.remaining().checked_sub(TAG)?).ok()?.to_vec();
        let tag: [u8; TAG] = cursor.array().ok()?;
        self.packet.decrypt_inout_detached(&nonce.into(), &aad, frames.as_mut_slice().into(), &tag.into()).ok()?;
        Some(frames)
    }
}

/// HKDF-Expand-Label of TLS 1.3 (RFC 8446 section 7.1), without context.
fn expand(secret: &Hkdf<Sha256>, label: &[u8], out: &mut [u8]) -> Option<()> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = u8::try_from(PREFIX.len() + label.len()).ok()?;
    secret.expand_multi_info(&[&length, &[label_length], PREFIX, label, &[0]], out).ok()
}
