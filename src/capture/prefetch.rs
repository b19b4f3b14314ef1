//! Has the processor fetch memory before it is needed.
//!
//! A frame was written by another core, and the place that it is copied to was last touched a whole buffer ago, so both are far away. The
//! processor guesses what comes next within a page only, and there are ten frames to a page.
#![allow(unsafe_code, reason = "the processor's own instructions, which fault on no address")]

use std::mem::MaybeUninit;

/// How many bytes before their use: about what one frame's copy takes to come.
const AHEAD: usize = 1024;

/// What is fetched at once.
const LINE: usize = 64;

/// About to read all of `bytes`, of which the next to be read are `length` long.
#[inline]
pub(super) fn read(bytes: &[u8], length: usize) {
    for line in bytes.get(AHEAD..).unwrap_or_default().iter().take(length).step_by(LINE) {
        fetch(line);
    }
}

/// About to write to all of `room`, of which the next to be written are `length` long.
#[inline]
pub fn write(room: &[MaybeUninit<u8>], length: usize) {
    for line in room.get(AHEAD..).unwrap_or_default().iter().take(length).step_by(LINE) {
        fetch(line.as_ptr());
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: it changes nothing, wherever it points.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn fetch(line: *const u8) {
    // SAFETY: it changes nothing, wherever it points.
    unsafe { std::arch::asm!("prfm pldl2keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn fetch(_line: *const u8) {}
