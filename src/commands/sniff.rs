//! `kubectl sniff`: live pods, or a saved capture.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::dissection::{Dissection, now, stdout};
use super::keylog;
use super::live::{self, Saving};
use super::{Failure, proto, read};
use crate::cluster::Cluster;
use crate::cluster::flags::{Capture, Connection, Mode, Options, Place, Reading, Select, Via, duration};
use crate::dissect::text;
use crate::output::Format;
use crate::output::kept::Kept;
use crate::output::status::Status;

/// What to sniff and what to do with it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    select: Select,

    #[command(flatten)]
    capture: Capture,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    reading: Reading,

    /// With pods selected, saves their packets there as pcapng (`-` is stdout); without, reads it (`-` is stdin)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pcap: Option<PathBuf>,

    /// Keep packets and entries, for `kubectl sniff sessions`; under a name, or that of the time
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[arg(help_heading = "Output")]
    keep: Option<String>,

    /// Leave the keys of --keylog and --tls, and the plaintext of --tls, out of the saved capture; else it holds those that decrypt it
    #[arg(long, help_heading = "Output")]
    no_keys: bool,

    /// End after so long, as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Output")]
    duration: Option<Duration>,

    #[command(flatten)]
    dissection: Dissection,

    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Args, status: &mut Status) -> Result<(), Failure> {
    if !args.select.is_given() {
        return match &args.pcap {
            Some(path) if args.capture.filter.is_none() => read::run(path, &args.dissection, status),
            Some(_) => Err(Failure::usage("--filter says what to capture in pods; a file is read whole")),
            None if args.select.all_namespaces || !args.select.namespace.is_empty() => {
                Err(Failure::usage("say which pods").hint("a dot matches all of them: kubectl sniff . -n NAMESPACE"))
            }
            None => Err(Failure::usage("say which pods, or give a capture to read with --pcap FILE")),
        };
    }
    super::blocking(sniff(args, status))
}

/// What agents are to capture.
pub(super) fn compiled(capture: &Capture, place: &Place, key_logs: Vec<String>) -> Result<Options, Failure> {
    match place.via {
        Via::Node if capture.tls => {
            return Err(Failure::usage(
                "--tls reads the keys of a pod's processes from inside the pod, --via node stays outside",
            )
            .hint("--keylog FILE, or pod:PATH, decrypts with keys that a program has logged"));
        }
        Via::Pod if place.via_namespace.is_some() => {
            return Err(Failure::usage("--via-namespace is where --via node puts its capture pods"));
        }
        _ => {}
    }
    if capture.container.is_some() && !capture.tls && key_logs.is_empty() {
        return Err(Failure::usage("-c says whose keys are meant: it goes with --tls or --keylog pod:PATH"));
    }
    let options = capture
        .options()
        .map_err(|error| Failure::usage(error.to_string()).hint("as for tcpdump: --filter 'port 80 or port 53'"))?;
    Ok(Options { key_logs, via: place.via, ..options })
}

async fn sniff(args: &Args, status: &mut Status) -> Result<(), Failure> {
    let Reading { since, until, compress } = args.reading;
    if let (Some(since), Some(until)) = (since, until)
        && since <= until
    {
        return Err(Failure::usage("--since is no longer ago than --until").hint("--since 10m --until 5m"));
    }
    let mode = until.map_or(Mode::Follow, Mode::LookBack);
    let key_logs = args.dissection.keylog.iter().filter_map(keylog::Place::in_pod).collect();
    let options = Options { since, compress, mode, ..compiled(&args.capture, &args.place, key_logs)? };
    let descriptors = proto::load(&args.dissection.proto)?;
    let saving = saving(args)?;
    let cluster = Cluster::connect(&args.connection).await?;
    let options = args.place.with_namespace(options, &cluster);
    let selection = super::selection(&args.select, &cluster)?.via(options.via);
    if args.dissection.output == Format::Name {
        let mut out = stdout();
        for (_, pod) in selection.list(&cluster).await? {
            writeln!(out, "pod/{pod}")?;
        }
        return Ok(out.flush()?);
    }
    let kept = args.keep.as_deref().map(kept).transpose()?;
    if let Saving::File(_, file) = &saving
        && file.metadata()?.is_file()
    {
        file.set_len(0)?;
    }
    let (dissection, duration, save_keys) = (&args.dissection, args.duration, !args.no_keys);
    let session = live::Session { cluster, selection, options, dissection, descriptors, duration, kept, save_keys };
    session.run(saving, status).await
}

/// The folder of a session that begins now.
fn kept(name: &str) -> Result<Kept, Failure> {
    let arguments = without_token(std::env::args().skip(1));
    Kept::create(Some(name).filter(|name| !name.is_empty()), now().to_string(), arguments).map_err(|error| {
        Failure::new(format!("cannot keep the session: {error}")).hint("kubectl sniff sessions lists those there are")
    })
}

/// The arguments, to be kept on disk, where no bearer token belongs.
fn without_token(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_token = false;
    let hidden = arguments.map(|argument| {
        if std::mem::replace(&mut is_token, argument == "--token") {
            text::HIDDEN.to_owned()
        } else if argument.starts_with("--token=") {
            format!("--token={}", text::HIDDEN)
        } else {
            argument
        }
    });
    hidden.collect()
}

/// Where the packets go.
fn saving(args: &Args) -> Result<Saving, Failure> {
    let path = match (&args.pcap, args.dissection.output) {
        (Some(_), Format::Name) => return Err(Failure::usage("-o name captures nothing that --pcap could save")),
        (Some(path), _) => path.as_path(),
        (None, Format::Pcapng) => Path::new("-"),
        (None, _) => return Ok(Saving::Nowhere),
    };
    if path != Path::new("-") {
        // What it holds stays until there is something to take its place: a wrong context should cost no capture.
        let file = std::fs::File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        return Ok(Saving::File(path.to_owned(), file));
    }
    if !matches!(args.dissection.output, Format::Table | Format::Pcapng) {
        return Err(Failure::usage("--pcap - writes packets to stdout, where rows would go too")
            .hint("--pcap FILE saves them beside the rows"));
    }
    if std::io::stdout().is_terminal() {
        return Err(
            Failure::usage("packets are nothing for a terminal").hint("kubectl sniff … --pcap - | wireshark -k -i -")
        );
    }
    Ok(Saving::Stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_kept() {
        let kept = |line: &str| without_token(line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(kept("web --token abc --keep"), "web --token [hidden] --keep");
        assert_eq!(kept("--token=abc web --keep"), "--token=[hidden] web --keep");
    }
}
