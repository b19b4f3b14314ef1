//! All dissectors through the engine, both directions, with gaps.
#![no_main]

#[path = "../conversation.rs"]
#[allow(dead_code, reason = "each target is one of its functions")]
mod conversation;
#[path = "../support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conversation::flows(bytes));
