//! The one test binary: everything is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_wrap,
    clippy::print_stderr,
    reason = "a test that can't go on has failed"
)]

mod agent;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod closed;
#[path = "fuzz/conversation.rs"]
mod conversation;
#[cfg(feature = "cli")]
mod encrypted;
#[cfg(feature = "cli")]
mod faults;
mod flows;
mod golden;
#[cfg(feature = "cli")]
mod hostile;
#[cfg(feature = "cli")]
mod krew;
#[cfg(feature = "cli")]
mod kubernetes;
mod late_keys;
#[cfg(feature = "cli")]
mod live;
#[cfg(feature = "cli")]
mod mesh;
#[cfg(feature = "cli")]
mod node;
#[cfg(feature = "cli")]
mod pod_keys;
#[cfg(feature = "cli")]
mod recorder;
mod seeds;
#[cfg(feature = "cli")]
mod servers;
mod support;
mod torture;
#[cfg(feature = "cli")]
mod wireshark;
