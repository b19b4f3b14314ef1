//! TLS in a file that the probes do not understand: told by what every implementation has to have in it.

use std::io;

use super::elf::Elf;
use super::libraries;

/// Names of a Java virtual machine's library: the TLS that comes with it is Java code.
const JAVA: &str = "libjvm.so";

/// What key derivation has labels for: of TLS 1.3 (RFC 8446, 7.1), and of what was before (RFC 5246, 6.3 and 8.1).
const LABELS: [&[u8]; 3] = [b"hs traffic", b"key expansion", b"master secret"];

/// What implementations name themselves, the more telling first.
const NAMES: [(&[u8], &str); 7] = [
    (b"rustls", "rustls"),
    (b"mbedtls", "Mbed TLS"),
    (b"wolfSSL", "wolfSSL"),
    (b"s2n_", "s2n-tls"),
    (b"BusyBox v", "BusyBox's own"),
    (b"BoringSSL", "BoringSSL without symbols"),
    (b"OpenSSL", "OpenSSL without symbols"),
];

/// Sections where constants are.
const CONSTANTS: [&str; 2] = [".rodata", ".data.rel.ro"];

/// The most bytes of each that are searched.
const MOST: u64 = 64 << 20;

/// Of a file whose symbols are too many to find out.
pub(super) const TOO_LARGE: &str = "not looked for: too many symbols";

/// What TLS is in a file that no probe goes into, for people; none if there is none, or if it leaves the keys to a library that has
/// probes.
pub(super) fn kind(elf: &Elf, name: &str) -> io::Result<Option<&'static str>> {
    if name.starts_with(JAVA) {
        return Ok(Some("Java's own"));
    }
    let [modern, expansion, master] = contains(elf, LABELS)?;
    if !(modern || expansion && master) || libraries::is_user(elf)? {
        return Ok(None);
    }
    if name.starts_with("libssl3.so") {
        return Ok(Some("NSS"));
    }
    let named = contains(elf, NAMES.map(|(mark, _)| mark))?;
    let known = NAMES.iter().zip(named).find(|(_, is_there)| *is_there);
    Ok(Some(known.map_or("one that has no name", |((_, name), _)| *name)))
}

/// Which of these are among the constants.
fn contains<const N: usize>(elf: &Elf, wanted: [&[u8]; N]) -> io::Result<[bool; N]> {
    let mut found = [false; N];
    for section in CONSTANTS.iter().filter_map(|name| elf.section(name)) {
        elf.window(section).search(MOST, &wanted, &mut found)?;
    }
    Ok(found)
}
