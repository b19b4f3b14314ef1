//! Which programs in the kernel go into which functions of which library.

use std::io;

use super::elf::Elf;
use super::golang;

/// A program of probes/, and where in the file it goes.
pub(super) type Probe = (&'static str, u64);

/// Functions that have probes, and their programs, in the order in which they must be there.
struct Library {
    probes: &'static [(&'static str, &'static str)],
    /// A function besides, which those that it could be taken for have not.
    besides: Option<&'static str>,
}

/// What keys are derived by. Distributions have taken `EVP_KDF_derive` into OpenSSL 1.1, with other arguments; so OpenSSL 3 is told by something else.
const KEYS: [Library; 5] = [
    // OpenSSL 3.
    Library {
        probes: &[("EVP_KDF_derive", "derived"), ("EVP_KDF_derive", "kdf"), ("EVP_DigestUpdate", "digest")],
        besides: Some("OSSL_PARAM_construct_end"),
    },
    // BoringSSL.
    Library {
        probes: &[
            ("HKDF_expand", "derived"),
            ("HKDF_expand", "hkdf_expand"),
            ("HKDF_extract", "derived"),
            ("HKDF_extract", "hkdf_extract"),
            ("CRYPTO_tls1_prf", "tls1_prf"),
            ("EVP_DigestUpdate", "digest"),
        ],
        besides: None,
    },
    // OpenSSL 1.1.
    Library {
        probes: &[
            ("EVP_PKEY_derive", "derived"),
            ("EVP_PKEY_derive", "derive"),
            ("EVP_PKEY_CTX_ctrl", "control"),
            ("EVP_DigestUpdate", "digest"),
        ],
        besides: Some("OPENSSL_atexit"),
    },
    // Nettle, which GnuTLS derives keys with; HMACs of SHA-384 go on as those of SHA-512.
    Library {
        probes: &[
            ("nettle_hkdf_expand", "filled"),
            ("nettle_hkdf_expand", "nettle_expand"),
            ("nettle_hkdf_extract", "filled"),
            ("nettle_hkdf_extract", "nettle_extract"),
            ("nettle_hmac_sha256_update", "nettle_update"),
            ("nettle_hmac_sha512_update", "nettle_update"),
            ("nettle_hmac_sha256_set_key", "nettle_key"),
            ("nettle_hmac_sha384_set_key", "nettle_key"),
        ],
        besides: None,
    },
    // GnuTLS.
    Library { probes: &[("gnutls_hash_fast", "digest")], besides: None },
];

/// What connections are read and written by, and shake hands.
const CONNECTIONS: [Library; 3] = [
    // OpenSSL since 1.1.1.
    Library {
        probes: &[
            ("SSL_do_handshake", "openssl_handshake"),
            ("SSL_read", "passed"),
            ("SSL_read", "openssl_read"),
            ("SSL_read_ex", "passed"),
            ("SSL_read_ex", "openssl_read_ex"),
            ("SSL_write", "passed"),
            ("SSL_write", "openssl_write"),
            ("SSL_write_ex", "passed"),
            ("SSL_write_ex", "openssl_write_ex"),
        ],
        besides: None,
    },
    // BoringSSL.
    Library {
        probes: &[
            ("SSL_do_handshake", "boringssl_handshake"),
            ("SSL_read", "passed"),
            ("SSL_read", "boringssl_read"),
            ("SSL_write", "passed"),
            ("SSL_write", "boringssl_write"),
        ],
        besides: Some("SSL_set_custom_verify"),
    },
    // GnuTLS.
    Library {
        probes: &[
            ("gnutls_handshake", "gnutls_handshake"),
            ("gnutls_record_recv", "passed"),
            ("gnutls_record_recv", "gnutls_read"),
            ("gnutls_record_send", "passed"),
            ("gnutls_record_send", "gnutls_write"),
        ],
        besides: None,
    },
];

/// True if it calls functions that have probes, of another library.
pub(super) fn is_user(elf: &Elf) -> io::Result<bool> {
    let Some(names) = elf.section(".dynstr") else { return Ok(false) };
    let functions: Vec<_> = KEYS.iter().flat_map(|it| it.probes.iter().map(|probe| probe.0)).collect();
    Ok(elf.window(names).places(&functions)?.iter().any(|places| !places.is_empty()))
}

/// What goes into a file: nothing if it has no library that is understood.
pub(super) fn probes(elf: &Elf) -> io::Result<Vec<Probe>> {
    let libraries = || CONNECTIONS.iter().chain(&KEYS);
    let mut names: Vec<_> =
        libraries().flat_map(|it| it.probes.iter().map(|probe| probe.0).chain(it.besides)).collect();
    names.sort_unstable();
    names.dedup();
    let places = elf.functions(&names)?;
    let place = |name: &str| names.binary_search(&name).ok().and_then(|at| *places.get(at)?);
    let whole = |library: &Library| -> Option<Vec<Probe>> {
        let is_it = library.besides.is_none_or(|function| place(function).is_some());
        let probes = library.probes.iter().map(|(function, program)| Some((*program, place(function)?)));
        is_it.then(|| probes.collect())?
    };
    // A handshake is to be known before its keys are.
    let found: Vec<_> =
        [CONNECTIONS.iter().find_map(whole), KEYS.iter().find_map(whole)].into_iter().flatten().collect();
    if !found.is_empty() {
        return Ok(found.concat());
    }
    golang::probes(elf)
}
