//! One file, one subcommand; here the command line as a whole.

mod dissection;
mod excuses;
mod keylog;
mod live;
mod ls;
mod proto;
mod protocols;
mod read;
mod sessions;
mod signals;
mod sniff;
mod start;
mod stop;
mod version;

use std::io;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use crate::cluster::flags::Select;
use crate::cluster::{self, Cluster, Selection};
use crate::output::status::Status;

/// See the traffic of Kubernetes pods as request/response rows.
///
/// Matches pods by regular expression, puts a small unprivileged capture container into each, streams the packets back and
/// dissects them here. With --pcap it saves the capture too, or reads one.
#[derive(Debug, Parser)]
#[command(name = "kubectl-sniff", bin_name = "kubectl sniff", version)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 120)]
#[command(after_help = "Examples:
  kubectl sniff front-end -n sock-shop                what front-end… pods say
  kubectl sniff '(catalo*|front-end*)' -n sock-shop   two kinds of pods at once
  kubectl sniff deploy/carts -o json | jq .target     every decoded field
  kubectl sniff carts --pcap out.pcap                 save the packets too
  kubectl sniff --pcap out.pcap -o yaml               read them again
  kubectl sniff carts --pcap - | wireshark -k -i -    watch them in Wireshark")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    sniff: sniff::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(start::Args),
    Ls(ls::Args),
    Stop(stop::Args),
    Sessions(sessions::Args),
    Protocols(protocols::Args),
    Version(version::Args),
}

/// Why a command failed, in words for its user, and what to do next.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// Something went wrong.
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1 }
    }

    /// The command line makes no sense.
    fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some("kubectl sniff --help".into()), code: 2 }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<cluster::Error> for Failure {
    fn from(error: cluster::Error) -> Self {
        Self { message: error.message, hint: error.hint, code: 1 }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(format!("cannot write: {error}"))
    }
}

/// The pods that are meant; what cannot be understood of it is wrong usage.
fn selection(select: &Select, cluster: &Cluster) -> Result<Selection, Failure> {
    Selection::new(select, cluster.namespace()).map_err(|error| Failure { code: 2, ..error.into() })
}

/// Who gives the names of several pods as kubectl takes them: clap would call the second one a subcommand.
fn second_name(error: &clap::Error) -> Option<Failure> {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let is_other = error.kind() == ErrorKind::ArgumentConflict && Cli::command().find_subcommand(name).is_none();
    is_other.then(|| {
        Failure::usage(format!("unexpected argument {name:?}: which pods is one regular expression"))
            .hint("several names are one with bars: kubectl sniff 'front-end|catalogue'")
    })
}

/// Runs what waits for the cluster to its end.
fn blocking<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(work);
    // Nothing that still runs is worth waiting for: sessions have said goodbye to their agents.
    runtime.shutdown_background();
    result
}

/// Parses the command line, runs what it asks for, and returns the exit code: 0 done, 1 failed, 2 wrong usage, 130
/// interrupted before it could end cleanly.
#[must_use]
pub fn main() -> ExitCode {
    let mut status = Status::default();
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli, &mut status),
        Err(error) => Err(second_name(&error).unwrap_or_else(|| error.exit())),
    };
    status.clear();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            status.error(&failure.message, failure.hint.as_deref());
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli, status: &mut Status) -> Result<(), Failure> {
    match cli.command {
        Some(Command::Start(args)) => start::run(&args, status),
        Some(Command::Ls(args)) => ls::run(&args, status),
        Some(Command::Stop(args)) => stop::run(&args, status),
        Some(Command::Sessions(args)) => sessions::run(&args, status),
        Some(Command::Protocols(args)) => protocols::run(&args),
        Some(Command::Version(args)) => version::run(&args),
        None => sniff::run(&cli.sniff, status),
    }
}
