//! The kubectl plugin: parse, run, exit code.

use std::process::ExitCode;

use kubectl_sniff::commands;

/// Entries are made on one thread and freed on another, which the C libraries' own allocators are slow at, musl's most of all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::main()
}
