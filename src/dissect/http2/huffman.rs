//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: the lengths alone define it. Codes of one length follow each other in the order of their symbols,
//! and come before all longer ones.

/// The end-of-string symbol, whose code never stands in a string.
const END: usize = 256;
/// The longest code.
const LONGEST: usize = 30;

/// How many bits the code of each symbol has.
#[rustfmt::skip]
const LENGTHS: [u8; END + 1] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The codes of one length.
#[derive(Clone, Copy)]
struct Group {
    /// The first code past them, aligned to the left of 32 bits; 0 if there are none.
    end: u32,
    /// The first of them, aligned likewise.
    first: u32,
    /// Where their symbols begin.
    offset: usize,
}

/// The groups by code length, and all symbols in the order of their codes.
static CODE: ([Group; LONGEST + 1], [u16; END + 1]) = canonical();

#[allow(clippy::indexing_slicing, reason = "evaluated when compiled")]
const fn canonical() -> ([Group; LONGEST + 1], [u16; END + 1]) {
    let mut groups = [Group { end: 0, first: 0, offset: 0 }; LONGEST + 1];
    let mut symbols = [0; END + 1];
    let (mut length, mut code, mut placed) = (1, 0u64, 0);
    while length <= LONGEST {
        let (first, offset) = (code, placed);
        let mut symbol = 0;
        while symbol <= END {
            if LENGTHS[symbol] as usize == length {
                symbols[placed] = symbol as u16;
                placed += 1;
                code += 1 << (32 - length);
            }
            symbol += 1;
        }
        if placed > offset {
            // The last code, that of the end, is the last number there is.
            let end = if code > u32::MAX as u64 { u32::MAX } else { code as u32 };
            groups[length] = Group { end, first: first as u32, offset };
        }
        length += 1;
    }
    (groups, symbols)
}

/// The string is not one of this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// Decodes `coded` and adds what it says to `out`.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Invalid> {
    let (groups, symbols) = &CODE;
    let mut rest = coded.iter();
    // The next bits are the high ones of the window.
    let (mut window, mut bits) = (0u64, 0usize);
    loop {
        while bits <= 56 {
            let Some(&byte) = rest.next() else { break };
            window |= u64::from(byte) << (56 - bits);
            bits += 8;
        }
        let next = (window >> 32) as u32;
        let mut found = groups.iter().enumerate().skip(5).filter(|(_, group)| next < group.end);
        let Some((length, group)) = found.next().filter(|(length, _)| *length <= bits) else {
            // Padding: fewer than 8 bits, all ones (RFC 7541 section 5.2).
            let padding = bits < 8 && (bits == 0 || window >> (64 - bits) == (1 << bits) - 1);
            return if padding { Ok(()) } else { Err(Invalid) };
        };
        let at = group.offset + ((next - group.first) >> (32 - length)) as usize;
        let symbol = symbols.get(at).copied().ok_or(Invalid)?;
        out.push(u8::try_from(symbol).map_err(|_| Invalid)?);
        window <<= length;
        bits -= length;
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Invalid> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    /// Encodes by the same table, from the definition of a canonical code.
    fn encode(text: &[u8]) -> Vec<u8> {
        let code = |symbol: usize| {
            let length = LENGTHS[symbol];
            let before = |other: &usize| (LENGTHS[*other], *other) < (length, symbol);
            let sum: u64 = (0..=END).filter(before).map(|other| 1 << (30 - LENGTHS[other])).sum();
            (sum >> (30 - length), length)
        };
        let mut bits: Vec<bool> = Vec::new();
        for &byte in text {
            let (code, length) = code(usize::from(byte));
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |value, &bit| value << 1 | u8::from(bit))).collect()
    }

    #[test]
    fn the_code_is_complete() {
        let sum: u64 = LENGTHS.iter().map(|length| 1 << (30 - length)).sum();
        assert_eq!(sum, 1 << 30);
    }

    #[test]
    fn strings_of_the_specification() {
        // RFC 7541 appendices C.4.1 and C.6.1.
        let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&host), Ok(b"www.example.com".to_vec()));
        assert_eq!(decoded(&[0x64, 0x02]), Ok(b"302".to_vec()));
        assert_eq!(decoded(&[0xae, 0xc3, 0x77, 0x1a, 0x4b]), Ok(b"private".to_vec()));
        assert_eq!(decoded(&[]), Ok(vec![]));
    }

    #[test]
    fn every_byte_there_and_back() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(decoded(&encode(&all)), Ok(all));
        for byte in 0..=255 {
            assert_eq!(decoded(&encode(&[byte])), Ok(vec![byte]));
        }
    }

    #[test]
    fn what_is_invalid() {
        // The end symbol; padding of 8 bits; padding with a zero; a code cut short.
        for bad in [&[0xff, 0xff, 0xff, 0xff][..], &[0x64, 0x02, 0xff], &[0x18], &[0xff, 0xff, 0xfe]] {
            assert_eq!(decoded(bad), Err(Invalid), "{bad:x?}");
        }
    }
}
