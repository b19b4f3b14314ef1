//! Where functions of a Go program are: by the table of functions that Go itself needs, so with symbols or without.

use std::io;

use super::elf::{Elf, half, long, word};
use super::libraries::Probe;

/// The method that is told each secret, whether a program wants a key log or not.
const WRITE_KEY_LOG: &str = "crypto/tls.(*Config).writeKeyLog";

/// What connections shake hands, write and read by.
const HANDSHAKES: [&str; 2] = ["crypto/tls.(*Conn).clientHandshake", "crypto/tls.(*Conn).serverHandshake"];
const WRITE: &str = "crypto/tls.(*Conn).Write";
const READ: &str = "crypto/tls.(*Conn).Read";

/// What such a table starts with: Go 1.18 and 1.19, since 1.20. Before, arguments were not where the programs look for them.
const MAGIC: [u32; 2] = [0xffff_fff0, 0xffff_fff1];

/// Names of the table's section; the second one is that of position-independent programs.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// The most functions that are looked at.
const MOST: u64 = 4 << 20;

/// The longest function that is looked into.
const LONGEST: u64 = 64 << 10;

/// How far into a function it may take room on the stack.
#[cfg(target_arch = "x86_64")]
const PROLOGUE: usize = 96;

/// A function: where in the file it begins, and how long it is.
#[derive(Clone, Copy)]
struct Function {
    offset: u64,
    size: u64,
}

/// What goes into the file: nothing if the program is not Go's, or has no TLS.
pub(super) fn probes(elf: &Elf) -> io::Result<Vec<Probe>> {
    let [client, server] = HANDSHAKES;
    let found = functions(elf, [WRITE_KEY_LOG, client, server, WRITE, READ])?;
    let [Some(keys), client, server, write, read] = found else { return Ok(Vec::new()) };
    let mut probes: Vec<Probe> =
        [client, server].into_iter().flatten().map(|handshake| ("go_handshake", handshake.offset)).collect();
    // Which connections have keys must be known, and what is read or written would be half of it.
    if !probes.is_empty()
        && let (Some(write), Some(read)) = (write, read)
        && let Some(returns) = returns(&elf.bytes(read.offset, read.size.min(LONGEST))?)
    {
        probes.extend(returns.into_iter().map(|at| ("go_passed", read.offset + at as u64)));
        probes.push(("go_write", write.offset));
    } else {
        probes.clear();
    }
    probes.push(("go", keys.offset));
    Ok(probes)
}

/// Where those functions are, the first one of which decides.
fn functions<const N: usize>(elf: &Elf, wanted: [&str; N]) -> io::Result<[Option<Function>; N]> {
    let none = [None; N];
    let Some(section) = SECTIONS.iter().find_map(|name| elf.section(name)) else { return Ok(none) };
    let mut table = elf.window(section);
    let Some(header) = table.get(0, 72)? else { return Ok(none) };
    // The size of pointers is 8.
    if !MAGIC.contains(&word(header, 0)) || half(header, 6) >> 8 != 8 {
        return Ok(none);
    }
    let [count, start, names, functions] = [8, 24, 32, 64].map(|at| long(header, at));
    // Since 1.26, and in position-independent programs, the start is filled in when the program is loaded.
    let start = if start == 0 { elf.section(".text").map_or(0, |text| text.address) } else { start };
    let places = elf.window(section).places(&wanted)?;
    // A name is no tail of another one here, so one place is right.
    let which = |place: i32| {
        let place = names + u64::try_from(place).ok()?;
        places.iter().position(|places| places.contains(&place))
    };
    // From the start, and how long.
    let mut found = [None; N];
    let mut entries = elf.window(section);
    for at in 0..count.min(MOST) {
        let Some(place) = functions.checked_add(at * 8) else { break };
        let Some(entry) = entries.get(place, 12)? else { break };
        let (begin, end) = (word(entry, 0), word(entry, 8));
        let Some(function) = functions.checked_add(word(entry, 4).into()) else { break };
        let Some(function) = table.get(function, 8)? else { break };
        if let Some(found) = which(word(function, 4).cast_signed()).and_then(|at| found.get_mut(at)) {
            *found = Some((u64::from(begin), u64::from(end.saturating_sub(begin))));
        }
    }
    let (Some(first), Some(Some((from, _)))) = (wanted.first(), found.first()) else { return Ok(none) };
    // Where it has symbols, they tell where its functions are among others.
    let base = match elf.functions(&[first])?[..] {
        [Some(offset)] => offset.checked_sub(*from),
        _ => elf.offset(start),
    };
    let Some(base) = base else { return Ok(none) };
    Ok(found.map(|it| it.map(|(from, size)| Function { offset: base + from, size })))
}

/// Where a function returns; none unless that is certain. A probe that is not on an instruction would break it.
#[cfg(target_arch = "x86_64")]
fn returns(code: &[u8]) -> Option<Vec<usize>> {
    // It takes room on the stack once, and gives back as much before it returns: that is long enough not to be something else.
    let give_back: Vec<u8> = code.windows(7).take(PROLOGUE).find_map(|it| match it {
        // sub rsp, 128 is shorter as add rsp, -128.
        [0x48, 0x83, 0xc4, 0x80, ..] => Some(vec![0x48, 0x83, 0xec, 0x80]),
        [0x48, 0x83, 0xec, size, ..] => Some(vec![0x48, 0x83, 0xc4, *size]),
        [0x48, 0x81, 0xec, size @ ..] => Some([&[0x48, 0x81, 0xc4], size].concat()),
        _ => None,
    })?;
    let length = give_back.len();
    let found = code.windows(length + 2).enumerate().filter(|(_, it)| it.starts_with(&give_back));
    // ret, or pop rbp and ret.
    let found = found.filter_map(|(at, it)| match it.get(length..)? {
        [0xc3, _] => Some(at + length),
        [0x5d, 0xc3] => Some(at + length + 1),
        _ => None,
    });
    Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty())
}

/// Where a function returns: instructions have one size.
#[cfg(target_arch = "aarch64")]
fn returns(code: &[u8]) -> Option<Vec<usize>> {
    const RET: [u8; 4] = 0xd65f_03c0_u32.to_le_bytes();
    let found = code.chunks_exact(4).enumerate().filter(|(_, it)| **it == RET).map(|(at, _)| 4 * at);
    Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty())
}
