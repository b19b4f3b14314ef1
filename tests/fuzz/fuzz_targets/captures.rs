//! Capture files, plain and compressed.
#![no_main]

#[path = "../conversation.rs"]
#[allow(dead_code, reason = "each target is one of its functions")]
mod conversation;
#[path = "../support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| conversation::captures(bytes));
