//! `kubectl sniff`: live pods, or a saved capture.

use std::path::PathBuf;

use super::dissection::Dissection;
use super::{Failure, read};
use crate::output::status::Status;

/// What to sniff and what to do with it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// With pods selected, saves their packets there as pcapng (`-` is stdout); without, reads it (`-` is stdin)
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,

    #[command(flatten)]
    dissection: Dissection,
}

pub fn run(args: Args, status: &mut Status) -> Result<(), Failure> {
    match &args.pcap {
        Some(path) => read::run(path, &args.dissection, status),
        None => Err(Failure::usage("say which pods, or give a capture to read with --pcap FILE")),
    }
}
