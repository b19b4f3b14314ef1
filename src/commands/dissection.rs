//! The flags that say how to dissect and what to print: the same for live pods and for files.

use std::io::{IsTerminal, Write};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::keylog::Place;
use crate::dissect::{self, Descriptors, Keys, Protocol};
use crate::entry::Timestamp;
use crate::output::status::Status;
use crate::output::{Format, Look, summary};
use crate::pipeline::Counts;

/// How to dissect and what to print.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Dissection {
    /// What to print for each entry
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,

    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Colour,

    /// Show times in UTC instead of the local zone
    #[arg(long)]
    pub utc: bool,

    /// Show credentials, cookies and passwords, which rows and exports hide by default
    #[arg(long)]
    pub show_secrets: bool,

    /// The most bytes of each body to keep, for JSON and YAML
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    pub body_limit: usize,

    /// Dissect what goes to this server port as this protocol, whatever it looks like (repeatable)
    #[arg(long, value_name = "PORT=PROTOCOL", value_parser = decode_as)]
    pub decode_as: Vec<(u16, &'static Protocol)>,

    /// Decrypt TLS with the secrets in this key log, as SSLKEYLOGFILE makes it (repeatable); those in a capture count anyway.
    /// pod:PATH is one inside of the pods, read with the container's own sh and tail
    #[arg(long, value_name = "FILE|pod:PATH", value_parser = Place::parse)]
    pub keylog: Vec<Place>,

    /// Name the fields of gRPC messages by these definitions: a .proto file, a folder of them, or a FileDescriptorSet as
    /// protoc, buf or grpcurl write it (repeatable)
    #[arg(long, value_name = "FILE")]
    pub proto: Vec<PathBuf>,

    /// With -o json, end with one more line: {"summary": …}, of what came and what was lost
    #[arg(long)]
    pub summary: bool,

    /// Show connections of no known protocol too, those that were refused or never answered among them, when they end
    #[arg(long)]
    pub flows: bool,

    /// End after so many entries
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On terminals, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

fn decode_as(text: &str) -> Result<(u16, &'static Protocol), String> {
    let (port, name) = text.split_once('=').ok_or("expected PORT=PROTOCOL, as in 8080=http")?;
    let port = port.parse().map_err(|_| format!("{port:?} is no port number"))?;
    let protocol = dissect::find(name)
        .ok_or_else(|| format!("unknown protocol {name:?}; `kubectl sniff protocols` lists those there are"))?;
    Ok((port, protocol))
}

impl Dissection {
    /// What the engine needs to know.
    pub fn options(&self, keys: &Arc<Keys>, descriptors: Descriptors) -> dissect::Options {
        dissect::Options {
            detail: self.output.detail(),
            body_limit: self.body_limit,
            secrets: self.show_secrets,
            decode_as: self.decode_as.clone(),
            keys: Arc::clone(keys),
            flows: self.flows,
            descriptors,
            turn: dissect::Turn::default(),
        }
    }

    /// The number of entries to end after.
    pub fn count(&self) -> Option<u64> {
        self.count.map(NonZeroU64::get)
    }

    /// How the table looks on what stdout is now.
    pub fn look(&self, namespaces: bool) -> Look {
        let terminal = std::io::stdout().is_terminal();
        let colour = match self.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let width = terminal.then(|| terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0)));
        Look { width, colour, wide: false, offset: if self.utc { 0 } else { local_offset() }, namespaces }
    }
}

/// Says at the end what came and what was lost: to people on stderr, and as JSON on stdout if that is asked for.
pub fn conclude(dissection: &Dissection, pods: Option<usize>, counts: &Counts, status: &Status) -> std::io::Result<()> {
    status.line(&summary(pods, counts));
    if dissection.summary && dissection.output == Format::Json {
        let mut summary = serde_json::to_value(counts)?;
        if let (Some(summary), Some(pods)) = (summary.as_object_mut(), pods) {
            summary.insert("pods".to_owned(), pods.into());
        }
        writeln!(std::io::stdout(), "{}", serde_json::json!({ "summary": summary }))?;
    }
    Ok(())
}

/// Seconds that the machine's zone is east of UTC now.
fn local_offset() -> i64 {
    i64::from(jiff::Zoned::now().offset().seconds())
}

/// The time of day.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// stdout in large pieces; whoever writes flushes.
pub fn stdout() -> impl Write {
    std::io::BufWriter::with_capacity(64 * 1024, std::io::stdout().lock())
}
