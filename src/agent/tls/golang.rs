//! Where a function of a Go program is: by symbol, or, where those are stripped, by the table of functions that Go itself needs.

use std::io;

use super::elf::{Elf, half, long, word};

/// The method that is told each secret, whether a program wants a key log or not.
pub(super) const WRITE_KEY_LOG: &str = "crypto/tls.(*Config).writeKeyLog";

/// What such a table starts with: Go 1.18 and 1.19, since 1.20. Before, arguments were not where the programs look for them.
const MAGIC: [u32; 2] = [0xffff_fff0, 0xffff_fff1];

/// Names of the table's section; the second one is that of position-independent programs.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// The most functions that are looked at.
const MOST: u64 = 4 << 20;

/// Where in the file the function begins; none if there is none, or the program is not Go's.
pub(super) fn function(elf: &Elf, name: &str) -> io::Result<Option<u64>> {
    let Some(section) = SECTIONS.iter().find_map(|name| elf.section(name)) else { return Ok(None) };
    let mut table = elf.window(section);
    let Some(header) = table.get(0, 72)? else { return Ok(None) };
    // The size of pointers is 8.
    if !MAGIC.contains(&word(header, 0)) || half(header, 6) >> 8 != 8 {
        return Ok(None);
    }
    if let [Some(offset)] = elf.functions(&[name])?[..] {
        return Ok(Some(offset));
    }
    let [count, start, names, functions] = [8, 24, 32, 64].map(|at| long(header, at));
    // Since 1.26, and in position-independent programs, the start is filled in when the program is loaded.
    let start = if start == 0 { elf.section(".text").map_or(0, |text| text.address) } else { start };
    let places = elf.window(section).places(&[name])?;
    // A name is no tail of another one here, so one place is right.
    let is_there = |place| places.iter().any(|places| places.contains(&place));
    let wanted = |place: i32| u64::try_from(place).is_ok_and(|place| is_there(names + place));
    let mut entries = elf.window(section);
    for at in 0..count.min(MOST) {
        let entry = |at: u64| functions.checked_add(at * 8);
        let Some(entry) = entry(at).map(|at| entries.get(at, 8)).transpose()?.flatten() else { break };
        let Some(function) = functions.checked_add(word(entry, 4).into()) else { break };
        let Some(function) = table.get(function, 8)? else { break };
        if wanted(word(function, 4).cast_signed()) {
            return Ok(elf.offset(start + u64::from(word(function, 0))));
        }
    }
    Ok(None)
}
