//! `memcpy`, `memmove` and `memcmp` for programs linked with musl on x86-64.
//!
//! Ours are: the agent and the plugin that krew installs run on any Linux. But musl's `memcpy` takes some thirty cycles
//! whatever the size, and its `memcmp` goes byte by byte; as nearly all of ours are short, that was a quarter of the time
//! that a large capture took. The linker takes these since they come first. There is no loop here that the compiler could
//! turn into a call of the very function: what is long is left to assembly.

#![allow(unsafe_code, reason = "what these functions are for")]

use std::arch::asm;
use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_storeu_si128};
use std::cmp::Ordering;

/// From here on `rep movsb` is the fastest way on any processor of the last ten years.
const LONG: usize = 512;

/// Copies by loading everything before anything is stored, so that it may overlap. At most 32 bytes.
///
/// # Safety
/// As for [`memmove`].
#[inline]
unsafe fn short(to: *mut u8, from: *const u8, size: usize) {
    /// The first and the last word of the range, which may overlap.
    macro_rules! ends {
        ($word:ty) => {{
            let last = size - size_of::<$word>();
            // SAFETY: at least one word lies in both ranges.
            unsafe {
                let (head, tail) =
                    (from.cast::<$word>().read_unaligned(), from.add(last).cast::<$word>().read_unaligned());
                to.cast::<$word>().write_unaligned(head);
                to.add(last).cast::<$word>().write_unaligned(tail);
            }
        }};
    }
    match size {
        16.. => ends!(__m128i),
        8.. => ends!(u64),
        4.. => ends!(u32),
        2.. => ends!(u16),
        // SAFETY: one byte lies in both ranges.
        1 => unsafe { to.write(from.read()) },
        0 => {}
    }
}

/// The same for 33 to 64 bytes.
///
/// # Safety
/// As for [`memmove`].
#[inline]
unsafe fn medium(to: *mut u8, from: *const u8, size: usize) {
    // SAFETY: 32 bytes from either end lie in both ranges.
    unsafe {
        let load = |at| _mm_loadu_si128(from.add(at).cast());
        let (a, b, c, d) = (load(0), load(16), load(size - 32), load(size - 16));
        let store = |at, value| _mm_storeu_si128(to.add(at).cast(), value);
        store(0, a);
        store(16, b);
        store(size - 32, c);
        store(size - 16, d);
    }
}

/// Copies upwards 32 bytes at a time; right if `to` is below `from`, or if they do not overlap.
///
/// # Safety
/// As for [`memmove`], of at least 32 bytes.
unsafe fn upwards(to: *mut u8, from: *const u8, size: usize) {
    let mut at = 0;
    // SAFETY: `at` stays 32 below `size`; what is left is less than that.
    unsafe {
        asm!(
            "2:",
            "movups {a}, [{from} + {at}]",
            "movups {b}, [{from} + {at} + 16]",
            "movups [{to} + {at}], {a}",
            "movups [{to} + {at} + 16], {b}",
            "add {at}, 32",
            "cmp {at}, {limit}",
            "jbe 2b",
            from = in(reg) from,
            to = in(reg) to,
            at = inout(reg) at,
            limit = in(reg) size - 32,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            options(nostack),
        );
        short(to.add(at), from.add(at), size - at);
    }
}

/// Copies downwards 32 bytes at a time; right if `to` is above `from`.
///
/// # Safety
/// As for [`memmove`], of at least 32 bytes.
unsafe fn downwards(to: *mut u8, from: *const u8, mut size: usize) {
    // SAFETY: `size` is 32 at least when 32 bytes below it are copied; what is left is less than that.
    unsafe {
        asm!(
            "2:",
            "movups {a}, [{from} + {size} - 16]",
            "movups {b}, [{from} + {size} - 32]",
            "movups [{to} + {size} - 16], {a}",
            "movups [{to} + {size} - 32], {b}",
            "sub {size}, 32",
            "cmp {size}, 32",
            "jae 2b",
            from = in(reg) from,
            to = in(reg) to,
            size = inout(reg) size,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            options(nostack),
        );
        short(to, from, size);
    }
}

/// C11, 7.24.2.1.
///
/// # Safety
/// `size` bytes can be read at `from` and written at `to`; they do not overlap.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    // SAFETY: the caller's; each way is taken for the sizes that it is right for.
    unsafe {
        match size {
            0..=32 => short(to, from, size),
            33..=64 => medium(to, from, size),
            65..LONG => upwards(to, from, size),
            LONG.. => asm!(
                "rep movsb",
                inout("rcx") size => _,
                inout("rdi") to => _,
                inout("rsi") from => _,
                options(nostack, preserves_flags),
            ),
        }
    }
    to
}

/// C11, 7.24.2.2.
///
/// # Safety
/// `size` bytes can be read at `from` and written at `to`.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    let above = (to as usize).wrapping_sub(from as usize);
    // SAFETY: the caller's. Seen as a number without sign, a distance is less than the size only if `to` is above and overlaps.
    unsafe {
        match size {
            0..=32 => short(to, from, size),
            33..=64 => medium(to, from, size),
            _ if above < size => downwards(to, from, size),
            // `rep movsb` is slow where ranges overlap.
            _ if above.wrapping_neg() < size => upwards(to, from, size),
            _ => return memcpy(to, from, size),
        }
    }
    to
}

/// C11, 7.24.4.1.
///
/// # Safety
/// `size` bytes can be read at both.
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, size: usize) -> i32 {
    /// The order of a word at `at`, if the two differ there.
    macro_rules! differ {
        ($word:ty, $at:expr) => {{
            let at = $at;
            // SAFETY: a word at `at` lies in both ranges.
            let (left, right) = unsafe {
                (left.add(at).cast::<$word>().read_unaligned(), right.add(at).cast::<$word>().read_unaligned())
            };
            // Big-endian, the first byte that differs decides.
            match left.to_be().cmp(&right.to_be()) {
                Ordering::Equal => {}
                order => return order as i32,
            }
        }};
    }
    match size {
        16.. => {
            let (mut at, last) = (0, size - 16);
            loop {
                // SAFETY: 16 bytes at `at` lie in both ranges.
                let same = unsafe {
                    let (left, right) = (_mm_loadu_si128(left.add(at).cast()), _mm_loadu_si128(right.add(at).cast()));
                    _mm_movemask_epi8(_mm_cmpeq_epi8(left, right)).cast_unsigned() as u16
                };
                if same != u16::MAX {
                    let at = at + same.trailing_ones() as usize;
                    // SAFETY: the byte that differs is one of those 16.
                    return unsafe { i32::from(left.add(at).read()) - i32::from(right.add(at).read()) };
                }
                if at == last {
                    return 0;
                }
                at = last.min(at + 16);
            }
        }
        8.. => {
            differ!(u64, 0);
            differ!(u64, size - 8);
        }
        4.. => {
            differ!(u32, 0);
            differ!(u32, size - 4);
        }
        2.. => {
            differ!(u16, 0);
            differ!(u16, size - 2);
        }
        1 => differ!(u8, 0),
        0 => {}
    }
    0
}

/// `memcmp` of which only the zero matters.
///
/// # Safety
/// As for [`memcmp`].
#[cfg_attr(target_env = "musl", unsafe(no_mangle))]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, size: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(left, right, size) }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    /// All sizes around those where the way changes.
    fn sizes() -> impl Iterator<Item = usize> {
        (0..200).chain(LONG - 3..LONG + 40).chain([4095, 4096, 100_000])
    }

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    #[test]
    fn copies_are_exact_at_any_size_and_place() {
        for size in sizes() {
            let from = bytes(size + 32);
            for (start, end) in [(0, 0), (1, 0), (7, 3), (16, 16)] {
                let mut to = vec![0xaa; size + 64];
                // SAFETY: both have room for it.
                let returned = unsafe { memcpy(to.as_mut_ptr().add(end + 16), from.as_ptr().add(start), size) };
                assert_eq!(returned, to.as_mut_ptr().wrapping_add(end + 16));
                assert_eq!(to[end + 16..end + 16 + size], from[start..start + size], "{size} bytes");
                assert!(to[..end + 16].iter().chain(&to[end + 16 + size..]).all(|byte| *byte == 0xaa), "{size} bytes");
            }
        }
    }

    #[test]
    fn moves_may_overlap_both_ways() {
        for size in sizes() {
            for distance in [0, 1, 2, 8, 15, 16, 17, 31, 33, 100, 1000] {
                for (to, from) in [(0, distance), (distance, 0)] {
                    let mut moved = bytes(size + distance);
                    let mut expected = moved.clone();
                    expected.copy_within(from..from + size, to);
                    let start = moved.as_mut_ptr();
                    // SAFETY: both ranges lie in `moved`.
                    unsafe { memmove(start.add(to), start.add(from), size) };
                    assert_eq!(moved, expected, "{size} bytes from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn comparisons_find_the_first_difference() {
        for size in sizes() {
            let left = bytes(size);
            // SAFETY: both have as many bytes.
            let order = |right: &[u8]| unsafe { memcmp(left.as_ptr(), right.as_ptr(), size).signum() };
            assert_eq!(order(&left), 0, "{size} bytes");
            for at in [0, 1, 3, 7, 8, 15, 16, 17, 40, size / 2, size.wrapping_sub(1)] {
                if at >= size {
                    continue;
                }
                let mut right = left.clone();
                right[at] = right[at].wrapping_add(1);
                // What comes later does not matter.
                right[at + 1..].fill(0);
                assert_eq!(order(&right), left[at].cmp(&right[at]) as i32, "{size} bytes, at {at}");
                // SAFETY: as above.
                assert_ne!(unsafe { bcmp(left.as_ptr(), right.as_ptr(), size) }, 0);
            }
        }
    }
}
