//! `kubectl sniff version`: what this is and which agent it would put into pods.

use std::io::Write;

use clap::ValueEnum;

use crate::cluster::DEFAULT_IMAGE;

/// Show version, commit and the agent image.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    /// The agent image that would be used
    #[arg(long, env = "SNIFF_IMAGE", default_value = DEFAULT_IMAGE)]
    image: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    version: &'a str,
    commit: &'a str,
    agent_image: &'a str,
}

pub fn run(args: &Args) -> Result<(), super::Failure> {
    let version = About { version: env!("CARGO_PKG_VERSION"), commit: env!("SNIFF_COMMIT"), agent_image: &args.image };
    let mut out = anstream::stdout().lock();
    match args.output {
        Some(Format::Json) => {
            writeln!(out, "{}", serde_json::to_string_pretty(&version).map_err(std::io::Error::other)?)?;
        }
        Some(Format::Yaml) => write!(out, "{}", serde_saphyr::to_string(&version).map_err(std::io::Error::other)?)?,
        None => {
            writeln!(out, "kubectl-sniff {} (commit {})", version.version, version.commit)?;
            writeln!(out, "agent image {}", version.agent_image)?;
        }
    }
    Ok(())
}
