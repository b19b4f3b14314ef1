//! `kubectl sniff start`: agents that record with nobody connected.

use std::time::Duration;

use tokio::sync::mpsc;

use super::Failure;
use crate::cluster::flags::{Capture, Connection, Mode, Options, Place, Processes, Select, Via, duration};
use crate::cluster::{self, Cluster, Event, Stop};
use crate::output::status::Status;

/// Have agents record in pods with nobody connected, to look back later with --since
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl sniff start front-end --for 8h                keep each pod's last 16 MiB
  kubectl sniff start . --buffer 1Gi --buffer-on disk   more, on the nodes' disks
  kubectl sniff start web --via node                    from outside of the pods
  kubectl sniff ls                                      what records where
  kubectl sniff front-end --since 5m                    look back, and go on live")]
pub struct Args {
    #[command(flatten)]
    select: Select,

    #[command(flatten)]
    capture: Capture,

    #[command(flatten)]
    place: Place,

    /// How long agents record; then they leave, unless somebody reads
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "1h", help_heading = "Capture")]
    time: Duration,

    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Args, status: &mut Status) -> Result<(), Failure> {
    if !args.select.is_given() {
        return Err(
            Failure::usage("say which pods").hint("a dot matches all of them: kubectl sniff start . -n NAMESPACE")
        );
    }
    if args.time.is_zero() {
        return Err(Failure::usage("--for 0 is no time to record"));
    }
    let options = super::sniff::compiled(&args.capture, &args.place, Vec::new())?;
    let options = Options { mode: Mode::Arm(args.time), ..options };
    super::blocking(arm(args, options, status))
}

async fn arm(args: &Args, options: Options, status: &mut Status) -> Result<(), Failure> {
    let cluster = Cluster::connect(&args.connection).await?;
    let options = args.place.with_namespace(options, &cluster);
    let selection = super::selection(&args.select, &cluster)?.via(options.via);
    if options.via == Via::Node {
        status
            .note("pods that come later are not recorded: what agents on nodes record is the pods that are there now");
    }
    if options.tls.is_some() {
        status.note(Processes::NOTE);
    }
    let (sender, mut events) = mpsc::channel(64);
    let (_stop, stopped) = Stop::new();
    let session = tokio::spawn(async move { cluster::run(&cluster, selection, options, sender, stopped).await });
    let (mut armed, mut failed) = (0, 0);
    while let Some(event) = events.recv().await {
        match event {
            Event::Appeared { pod, .. } => status.starting(&format!("starting an agent in {pod}")),
            Event::Armed { pod, reused, .. } => {
                status.clear();
                armed += 1;
                status.joined(&pod, if reused { "records on" } else { "records" });
            }
            Event::Failed { pod, error, .. } => {
                status.clear();
                failed += 1;
                status.error(&format!("{pod}: {error}"), error.hint.as_deref());
            }
            Event::Skipped { pod, reason } => status.note(&format!("{pod} is left out: {reason}")),
            Event::Trouble(error) => {
                status.warning(&error.message);
                if let Some(hint) = &error.hint {
                    status.hint(hint);
                }
            }
            Event::Note(text) => status.note(&text),
            _ => {}
        }
    }
    status.clear();
    session.await.map_err(|fault| Failure::new(format!("a fault of ours: {fault}")))??;
    match (armed, failed) {
        (0, 0) => Err(Failure::new("no pod matches").hint("kubectl get pods -A")),
        (0, _) => Err(Failure::new("no pod could be armed")),
        (armed, failed) => {
            let pods = if armed == 1 { "pod records" } else { "pods record" };
            let but = if failed == 0 { String::new() } else { format!(", {failed} could not be armed") };
            status.line(&format!("{armed} {pods}{but}; kubectl sniff ls shows what, --since looks back"));
            Ok(())
        }
    }
}
