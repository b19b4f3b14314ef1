//! The binary that runs inside pods.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_sniff::agent::main()
}
