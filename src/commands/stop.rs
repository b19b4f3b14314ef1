//! `kubectl sniff stop`: ends agents.

use super::Failure;
use super::ls;
use crate::cluster::flags::{Connection, Select};
use crate::cluster::{Cluster, agents};
use crate::output::status::Status;

/// End the agents that run in pods; sessions that read from them get the rest and are told
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    select: Select,

    #[command(flatten)]
    connection: Connection,
}

pub fn run(args: &Args, status: &mut Status) -> Result<(), Failure> {
    if !args.select.is_given() && !args.select.all_namespaces && args.select.namespace.is_empty() {
        return Err(Failure::usage("say which pods' agents").hint("all of the cluster: kubectl sniff stop -A"));
    }
    super::blocking(stop(args, status))
}

async fn stop(args: &Args, status: &mut Status) -> Result<(), Failure> {
    let cluster = Cluster::connect(&args.connection).await?;
    let places = ls::found(&cluster, &args.select, status).await?;
    if places.is_empty() {
        status.line("no agents run there");
        return Ok(());
    }
    status.starting("ending the agents");
    let answers = agents::stop(&cluster, places).await;
    status.clear();
    let mut failed = 0;
    for (place, answer) in answers {
        match answer {
            Ok(()) => status.left(&format!("{}/{}", place.namespace, place.pod), "its agent has ended"),
            Err(error) => {
                failed += 1;
                status.error(&error.message, error.hint.as_deref());
            }
        }
    }
    if failed > 0 { Err(Failure::new(format!("{failed} agents did not end"))) } else { Ok(()) }
}
