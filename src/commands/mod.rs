//! One file, one subcommand; here the command line as a whole.

mod protocols;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// See the traffic of Kubernetes pods as request/response rows.
#[derive(Debug, Parser)]
#[command(name = "kubectl-sniff", bin_name = "kubectl sniff", version, disable_help_subcommand = true)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Protocols(protocols::Args),
    Version(version::Args),
}

/// Parses the command line, runs what it asks for, and returns the exit code: 0 done, 1 failed, 2 wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Some(Command::Protocols(args)) => protocols::run(args),
        Some(Command::Version(args)) => version::run(args),
        None => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
