//! The kubectl plugin: parse, run, exit code.

use std::process::ExitCode;

use kubectl_sniff::commands;

fn main() -> ExitCode {
    commands::main()
}
