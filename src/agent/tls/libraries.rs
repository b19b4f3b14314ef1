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

/// Distributions have taken `EVP_KDF_derive` into OpenSSL 1.1, with other arguments; so OpenSSL 3 is told by something else.
const LIBRARIES: [Library; 5] = [
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

/// True if it calls functions that have probes, of another library.
pub(super) fn is_user(elf: &Elf) -> io::Result<bool> {
    let Some(names) = elf.section(".dynstr") else { return Ok(false) };
    let functions: Vec<_> = LIBRARIES.iter().flat_map(|it| it.probes.iter().map(|probe| probe.0)).collect();
    Ok(elf.window(names).places(&functions)?.iter().any(|places| !places.is_empty()))
}

/// What goes into a file: nothing if it has no library that is understood.
pub(super) fn probes(elf: &Elf) -> io::Result<Vec<Probe>> {
    let mut names: Vec<_> =
        LIBRARIES.iter().flat_map(|it| it.probes.iter().map(|probe| probe.0).chain(it.besides)).collect();
    names.sort_unstable();
    names.dedup();
    let places = elf.functions(&names)?;
    let place = |name: &str| names.binary_search(&name).ok().and_then(|at| *places.get(at)?);
    for library in LIBRARIES {
        let probes: Option<Vec<_>> =
            library.probes.iter().map(|(function, program)| Some((*program, place(function)?))).collect();
        if let Some(probes) = probes
            && library.besides.is_none_or(|function| place(function).is_some())
        {
            return Ok(probes);
        }
    }
    let go = golang::function(elf, golang::WRITE_KEY_LOG)?;
    Ok(go.map(|place| ("go", place)).into_iter().collect())
}
