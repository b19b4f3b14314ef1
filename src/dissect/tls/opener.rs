//! The protection of records (RFC 8446 section 5.2, RFC 5246 section 6.2.3, RFC 7366): one side's, with its keys.

use aes::cipher::array::Array;
use aes::cipher::{BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes256};
use des::TdesEde3;
use rc4::{Rc4, StreamCipher};

use super::aead::Aead;
use super::keys::Random;
use super::record;
use super::schedule::{self, Hash, Hmac, expand, prf};
use super::suite::{Cipher, Suite};
use crate::dissect::Cursor;

/// The version 1.0, whose records of block ciphers go on from each other.
const TLS_1_0: u16 = 0x0301;
/// Bytes of a MAC that a client and server agreed to cut (RFC 6066 section 7).
const CUT_MAC: usize = 10;

/// Opens the records of one side, in order.
pub(super) struct Opener {
    protection: Protection,
    sequence: u64,
}

enum Protection {
    /// TLS 1.3.
    Modern {
        aead: Aead,
        iv: [u8; 12],
        suite: Suite,
        secret: Vec<u8>,
        draft: Draft,
    },
    /// TLS 1.2: the nonce is the fixed part and what each record brings, or made of the sequence number.
    Aead {
        aead: Aead,
        iv: Vec<u8>,
    },
    Block {
        cipher: Block,
        mac: RecordMac,
        iv: Vec<u8>,
        chained: bool,
        encrypt_then_mac: bool,
    },
    Stream {
        cipher: Option<Box<Rc4>>,
        mac: RecordMac,
    },
}

/// How drafts of TLS 1.3 differ from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    /// Before the 25th, records' headers were not protected.
    bare: bool,
    /// What labels begin with.
    prefix: &'static [u8],
}

impl Draft {
    /// For a version of that number: 1.3, or one of its drafts.
    pub fn of(version: u16) -> Self {
        Self {
            bare: matches!(version, 0x7f00..0x7f19),
            prefix: if matches!(version, 0x7f00..0x7f14) { b"TLS 1.3, " } else { schedule::PREFIX },
        }
    }
}

/// What a handshake of TLS 1.2 or older agreed on.
#[derive(Clone, Copy)]
pub(super) struct Agreement<'a> {
    pub version: u16,
    pub suite: Suite,
    pub master: &'a [u8],
    pub client_random: &'a Random,
    pub server_random: &'a Random,
    pub encrypt_then_mac: bool,
    pub truncated_hmac: bool,
}

impl Opener {
    /// Those of client and server for TLS 1.0 to 1.2.
    pub fn pair(agreed: &Agreement<'_>) -> Option<[Self; 2]> {
        let Agreement { version, suite, master, client_random, server_random, .. } = *agreed;
        let Suite { cipher, hash, mac } = suite;
        let (mac_len, key_len, iv_len) = (mac.map_or(0, Hash::len), cipher.key_len(), cipher.iv_len());
        let mut block = vec![0; 2 * (mac_len + key_len + iv_len)];
        let hash = (version >= 0x0303).then_some(hash);
        prf(hash, master, b"key expansion", &[server_random, client_random], &mut block)?;
        let mut block = Cursor::new(&block);
        let mut two = |len| Some([block.take(len).ok()?, block.take(len).ok()?]);
        let ([client_mac, server_mac], [client_key, server_key], [client_iv, server_iv]) =
            (two(mac_len)?, two(key_len)?, two(iv_len)?);
        let side = |mac_key: &[u8], key: &[u8], iv: &[u8]| {
            let mac = |hash| {
                let len = if agreed.truncated_hmac { CUT_MAC } else { mac_len };
                Some(RecordMac { hmac: Hmac::new(hash, mac_key)?, len })
            };
            let protection = match (cipher, suite.mac) {
                (Cipher::Null, Some(hash)) => Protection::Stream { cipher: None, mac: mac(hash)? },
                (Cipher::Rc4, Some(hash)) => {
                    Protection::Stream { cipher: Some(Box::new(Rc4::new_from_slice(key).ok()?)), mac: mac(hash)? }
                }
                (_, Some(hash)) => Protection::Block {
                    cipher: Block::new(cipher, key)?,
                    mac: mac(hash)?,
                    iv: iv.to_vec(),
                    chained: version <= TLS_1_0,
                    encrypt_then_mac: agreed.encrypt_then_mac,
                },
                (_, None) => Protection::Aead { aead: Aead::new(cipher, key)?, iv: iv.to_vec() },
            };
            Some(Self { protection, sequence: 0 })
        };
        Some([side(client_mac, client_key, client_iv)?, side(server_mac, server_key, server_iv)?])
    }

    /// That of a side of TLS 1.3 with this traffic secret.
    pub fn modern(suite: Suite, secret: &[u8], draft: Draft) -> Option<Self> {
        let mut key = vec![0; suite.cipher.key_len()];
        let mut iv = [0; 12];
        expand(suite.hash, secret, draft.prefix, b"key", &mut key)?;
        expand(suite.hash, secret, draft.prefix, b"iv", &mut iv)?;
        let aead = Aead::new(suite.cipher, &key)?;
        Some(Self { protection: Protection::Modern { aead, iv, suite, secret: secret.to_vec(), draft }, sequence: 0 })
    }

    /// The one that follows it after a KeyUpdate (RFC 8446 section 7.2).
    pub fn updated(&self) -> Option<Self> {
        let Protection::Modern { suite, secret, draft, .. } = &self.protection else { return None };
        let mut next = vec![0; secret.len()];
        expand(suite.hash, secret, draft.prefix, b"traffic upd", &mut next)?;
        Self::modern(*suite, &next, *draft)
    }

    /// Passes over records that are known to be lost.
    pub fn pass(&mut self, records: u64) {
        self.sequence = self.sequence.saturating_add(records);
    }

    /// True if records that were lost keep those after them from being read.
    pub fn needs_all(&self) -> bool {
        matches!(&self.protection, Protection::Stream { cipher: Some(_), .. })
    }

    /// The content type and, in `plain`, the content of a record. `lost` more records may have been before it. None if it is
    /// not authentic.
    pub fn open(&mut self, header: [u8; record::HEADER], payload: &[u8], lost: u64, plain: &mut Vec<u8>) -> Option<u8> {
        let lost = if self.needs_all() { 0 } else { lost };
        let result = (0..=lost).find_map(|skipped| {
            let sequence = self.sequence.checked_add(skipped)?;
            plain.clear();
            let content = self.protection.open(sequence, header, payload, plain)?;
            Some((content, sequence))
        });
        self.protection.chain(payload);
        let (content, sequence) = result?;
        self.sequence = sequence.wrapping_add(1);
        Some(content)
    }
}

impl Protection {
    fn open(&mut self, sequence: u64, header: [u8; record::HEADER], payload: &[u8], plain: &mut Vec<u8>) -> Option<u8> {
        let [content, version @ .., _, _] = header;
        match self {
            Self::Modern { aead, iv, draft, .. } => {
                plain.extend_from_slice(payload);
                let aad = if draft.bare { &[][..] } else { &header };
                if !aead.open(&numbered(*iv, sequence), aad, plain) {
                    return None;
                }
                // The content, its type, and zeros.
                let end = plain.iter().rposition(|byte| *byte != 0)?;
                let content = plain.get(end).copied();
                plain.truncate(end);
                content
            }
            Self::Aead { aead, iv } => {
                let (nonce, text) = if let Ok(iv) = <[u8; 12]>::try_from(&**iv) {
                    (numbered(iv, sequence), payload)
                } else {
                    let (explicit, text) = payload.split_at_checked(8)?;
                    let mut nonce = [0; 12];
                    for (to, from) in nonce.iter_mut().zip(iv.iter().chain(explicit)) {
                        *to = *from;
                    }
                    (nonce, text)
                };
                let length = text.len().checked_sub(aead.tag_len())?;
                plain.extend_from_slice(text);
                aead.open(&nonce, &pseudo_header(sequence, content, version, length)?, plain).then_some(content)
            }
            Self::Block { cipher, mac, iv, chained, encrypt_then_mac } => {
                let mut sealed = payload;
                if *encrypt_then_mac {
                    let (text, tag) = payload.split_at_checked(payload.len().checked_sub(mac.len)?)?;
                    mac.holds(&pseudo_header(sequence, content, version, text.len())?, text, tag)?;
                    sealed = text;
                }
                let (iv, text) =
                    if *chained { (&**iv, sealed) } else { sealed.split_at_checked(cipher.block_len())? };
                plain.extend_from_slice(text);
                cipher.decrypt(iv, plain)?;
                let padding = usize::from(*plain.last()?);
                let end = plain.len().checked_sub(padding + 1)?;
                if plain.get(end..)?.iter().any(|byte| usize::from(*byte) != padding) {
                    return None;
                }
                plain.truncate(end);
                if !*encrypt_then_mac {
                    mac.strip(sequence, content, version, plain)?;
                }
                Some(content)
            }
            Self::Stream { cipher, mac } => {
                plain.extend_from_slice(payload);
                if let Some(cipher) = cipher {
                    cipher.apply_keystream(plain);
                }
                mac.strip(sequence, content, version, plain)?;
                Some(content)
            }
        }
    }

    /// The last block of a record of TLS 1.0 is the next one's initial vector.
    fn chain(&mut self, payload: &[u8]) {
        if let Self::Block { cipher, mac, iv, chained: true, encrypt_then_mac } = self {
            let end = payload.len().saturating_sub(if *encrypt_then_mac { mac.len } else { 0 });
            let last = end.checked_sub(cipher.block_len()).and_then(|start| payload.get(start..end));
            if let Some(last) = last {
                iv.clear();
                iv.extend_from_slice(last);
            }
        }
    }
}

/// A nonce made of the initial vector and a record's number.
pub(in crate::dissect) fn numbered(mut iv: [u8; 12], number: u64) -> [u8; 12] {
    for (to, from) in iv.iter_mut().skip(4).zip(number.to_be_bytes()) {
        *to ^= from;
    }
    iv
}

/// What a MAC before TLS 1.3 covers beside the content.
fn pseudo_header(sequence: u64, content: u8, version: [u8; 2], length: usize) -> Option<[u8; 13]> {
    let mut header = [0; 13];
    let length = u16::try_from(length).ok()?.to_be_bytes();
    let fields = sequence.to_be_bytes().into_iter().chain([content]).chain(version).chain(length);
    for (to, from) in header.iter_mut().zip(fields) {
        *to = from;
    }
    Some(header)
}

struct RecordMac {
    hmac: Hmac,
    len: usize,
}

impl RecordMac {
    fn holds(&self, header: &[u8], text: &[u8], tag: &[u8]) -> Option<()> {
        (self.hmac.sign(&[header, text]).get(..self.len)? == tag).then_some(())
    }

    /// Cuts the MAC off if it holds.
    fn strip(&self, sequence: u64, content: u8, version: [u8; 2], plain: &mut Vec<u8>) -> Option<()> {
        let length = plain.len().checked_sub(self.len)?;
        let (text, tag) = plain.split_at_checked(length)?;
        self.holds(&pseudo_header(sequence, content, version, length)?, text, tag)?;
        plain.truncate(length);
        Some(())
    }
}

/// A block cipher in CBC mode.
enum Block {
    Aes128(Box<Aes128>),
    Aes256(Box<Aes256>),
    TripleDes(Box<TdesEde3>),
}

impl Block {
    fn new(cipher: Cipher, key: &[u8]) -> Option<Self> {
        Some(match cipher {
            Cipher::Aes128Cbc => Self::Aes128(Box::new(Aes128::new_from_slice(key).ok()?)),
            Cipher::Aes256Cbc => Self::Aes256(Box::new(Aes256::new_from_slice(key).ok()?)),
            Cipher::TripleDesCbc => Self::TripleDes(Box::new(TdesEde3::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    fn block_len(&self) -> usize {
        if matches!(self, Self::TripleDes(_)) { 8 } else { 16 }
    }

    fn decrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        match self {
            Self::Aes128(cipher) => decrypt(&**cipher, iv, text),
            Self::Aes256(cipher) => decrypt(&**cipher, iv, text),
            Self::TripleDes(cipher) => decrypt(&**cipher, iv, text),
        }
    }
}

fn decrypt<C: BlockCipherDecrypt>(cipher: &C, iv: &[u8], text: &mut [u8]) -> Option<()> {
    let iv = Array::try_from(iv).ok()?;
    let (blocks, rest) = Array::slice_as_chunks_mut(text);
    if !rest.is_empty() {
        return None;
    }
    cbc::Decryptor::inner_iv_init(cipher, &iv).decrypt_blocks(blocks);
    Some(())
}
