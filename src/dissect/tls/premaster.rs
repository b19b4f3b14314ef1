//! Master secrets of TLS 1.2 and older from premaster secrets, which some key logs have instead (RFC 5246 section 8.1, and
//! RFC 7627, by which they depend on the handshake's messages).

use std::sync::Arc;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384};

use super::keys::{EncryptedStart, KEYLOG, Keys, Random, Secrets};
use super::schedule::{Hash, prf};
use super::session::Choice;
use super::suite::Suite;

/// The first version whose suites have a say in how secrets are derived.
const TLS_1_2: u16 = 0x0303;
/// Bytes of a master secret.
const MASTER: usize = 48;

/// The handshake's messages up to now, hashed in all ways until it is clear which one is needed.
#[derive(Default)]
pub(super) struct Transcript {
    md5: Md5,
    sha1: Sha1,
    sha256: Sha256,
    sha384: Sha384,
}

impl Transcript {
    /// Takes a message of that type.
    pub fn add(&mut self, kind: u8, body: &[u8]) {
        let [_, length @ ..] = (body.len() as u32).to_be_bytes();
        for part in [&[kind], &length[..], body] {
            self.md5.update(part);
            self.sha1.update(part);
            self.sha256.update(part);
            self.sha384.update(part);
        }
    }

    /// Its hash by the function of the suite; without one, as TLS 1.0 and 1.1 have it.
    fn hash(self, by: Option<Hash>) -> Vec<u8> {
        match by {
            Some(Hash::Sha384) => self.sha384.finalize().to_vec(),
            Some(_) => self.sha256.finalize().to_vec(),
            None => [&self.md5.finalize()[..], &self.sha1.finalize()].concat(),
        }
    }
}

/// What a `ClientKeyExchange` makes certain: all that the master secret depends on but the premaster secret.
pub(super) struct Exchange {
    client_random: Random,
    /// How an encrypted premaster secret starts.
    encrypted: Option<EncryptedStart>,
    hash: Option<Hash>,
    label: &'static [u8],
    seed: Vec<u8>,
}

impl Exchange {
    /// With the message's body, and the messages up to it. None if it is of no use.
    pub fn new(body: &[u8], transcript: Transcript, client_random: Random, choice: &Choice) -> Option<Self> {
        let hash = (choice.version >= TLS_1_2).then_some(Suite::of(choice.suite)?.hash);
        let (label, seed): (&[u8], _) = if choice.extended_master_secret {
            (b"extended master secret", transcript.hash(hash))
        } else {
            (b"master secret", [client_random, choice.random].concat())
        };
        // Behind its length.
        let encrypted = body.get(2..).and_then(|encrypted| encrypted.first_chunk()).copied();
        Some(Self { client_random, encrypted, hash, label, seed })
    }

    /// The connection's master secret, if its premaster secret is known.
    pub fn resolve(&self, keys: &Keys) -> Option<Arc<Secrets>> {
        let premaster = keys.premaster(&self.client_random, self.encrypted.as_ref())?;
        let mut master = [0; MASTER];
        prf(self.hash, &premaster, self.label, &[&self.seed], &mut master)?;
        keys.derive(&self.client_random, &master, KEYLOG)
    }
}
