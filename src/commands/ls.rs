//! `kubectl sniff ls`: the agents that run, and what they have recorded.

use std::io::Write;

use clap::ValueEnum;

use super::Failure;
use crate::capture::Probes;
use crate::cluster::Cluster;
use crate::cluster::agents::{self, Place, Status as Agent};
use crate::cluster::flags::{Connection, Select};
use crate::output::status::Status;
use crate::output::{bytes, grouped, listing, span};

/// List the agents that run in pods: what they have recorded, and who reads
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    select: Select,

    /// What to print for each agent
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Rows for people
    #[default]
    Table,
    /// With node, container, filter and readers
    Wide,
    /// One JSON object a line
    Json,
    /// Names of pods
    Name,
}

/// What is said where there are none.
const NONE: &str = "no agents run; kubectl sniff start PODS arms some";

pub fn run(args: &Args, status: &mut Status) -> Result<(), Failure> {
    super::blocking(list(args, status))
}

/// The pods that are meant: all of the cluster unless something narrower is said.
pub(super) fn everywhere(select: &Select) -> Select {
    let mut select = select.clone();
    select.all_namespaces |=
        select.namespace.is_empty() && !select.pods.as_deref().is_some_and(|pods| pods.contains('/'));
    select.allow_host_network = true;
    select
}

/// The agents of the pods that are meant; where not all of the cluster may be seen, those of the context's namespace.
pub(super) async fn found(cluster: &Cluster, select: &Select, status: &Status) -> Result<Vec<Place>, Failure> {
    let wide = everywhere(select);
    let selection = super::selection(&wide, cluster)?;
    match agents::list(cluster, &selection).await {
        Err(error) if wide.all_namespaces && !select.all_namespaces => {
            let narrow = Select { all_namespaces: false, ..wide };
            let selection = super::selection(&narrow, cluster)?;
            let places = agents::list(cluster, &selection).await?;
            status.note(&format!("only namespace {} is shown: {}", cluster.namespace(), error.message));
            Ok(places)
        }
        places => Ok(places?),
    }
}

async fn list(args: &Args, status: &mut Status) -> Result<(), Failure> {
    let cluster = Cluster::connect(&args.connection).await?;
    let places = found(&cluster, &args.select, status).await?;
    if places.is_empty() {
        status.line(NONE);
        return Ok(());
    }
    let mut out = anstream::stdout().lock();
    if args.output == Format::Name {
        for place in places {
            writeln!(out, "pod/{}", place.pod)?;
        }
        return Ok(());
    }
    status.starting("asking the agents");
    let answers = agents::status(&cluster, places).await;
    status.clear();
    if answers.is_empty() {
        status.line(NONE);
        return Ok(());
    }
    let mut silent = 0;
    let mut known = Vec::new();
    for (place, answer) in answers {
        match answer {
            Ok(agent) => known.push((place, agent)),
            Err(error) => {
                silent += 1;
                status.error(&error.message, error.hint.as_deref());
            }
        }
    }
    match args.output {
        Format::Json => {
            for (place, agent) in &known {
                let mut object = serde_json::to_value(place).map_err(std::io::Error::other)?;
                if let (Some(object), serde_json::Value::Object(more)) =
                    (object.as_object_mut(), serde_json::to_value(agent).map_err(std::io::Error::other)?)
                {
                    object.extend(more);
                }
                writeln!(out, "{object}")?;
            }
        }
        format => table(&mut out, &known, format == Format::Wide)?,
    }
    match (known.is_empty(), silent) {
        (true, 1..) => Err(Failure::new("no agent answers")),
        _ => Ok(()),
    }
}

fn table(out: &mut impl Write, agents: &[(Place, Agent)], wide: bool) -> std::io::Result<()> {
    let mut header = vec!["POD", "AGE", "BUFFER", "SPAN", "PACKETS", "DROPPED", "READERS", "LEAVES"];
    if wide {
        header.extend(["NODE", "CONTAINER", "BACKEND", "MEMORY", "CUT", "FLUSHED", "TLS", "FILTER"]);
    }
    listing(out, &header, agents.iter().map(|(place, agent)| row(place, agent, wide)))
}

fn row(place: &Place, agent: &Agent, wide: bool) -> Vec<String> {
    let leaves = match (agent.leaves, agent.sessions.is_empty()) {
        (Some(seconds), true) => format!("in {}", span(seconds)),
        _ => "when unread".to_owned(),
    };
    let readers = match agent.sessions.as_slice() {
        [] => "-".to_owned(),
        all if wide => all.iter().map(|session| session.reader.as_str()).collect::<Vec<_>>().join(", "),
        all => all.len().to_string(),
    };
    let on = if agent.buffer.on == "disk" { " on disk" } else { "" };
    #[allow(clippy::cast_sign_loss, reason = "a span is not negative")]
    let seconds = agent.span.max(0.0) as u64;
    let mut row = vec![
        format!("{}/{}", place.namespace, place.pod),
        span(agent.age),
        format!("{}/{}{on}", bytes(agent.buffer.used), bytes(agent.buffer.size)),
        span(seconds),
        grouped(agent.packets),
        grouped(agent.drops),
        readers,
        leaves,
    ];
    if wide {
        let filter = if agent.filter.is_empty() { "-" } else { &agent.filter };
        row.extend([
            place.node.clone(),
            place.container.clone(),
            agent.backend.clone(),
            agent.memory.map_or_else(|| "-".to_owned(), bytes),
            grouped(agent.cut),
            grouped(agent.flushed),
            agent.tls.as_ref().map_or_else(|| "-".to_owned(), probes),
            filter.to_owned(),
        ]);
    }
    row
}

/// What probes for TLS keys have come to: `1,204 keys`, and what they have lost.
fn probes(probes: &Probes) -> String {
    let counts = [(probes.keys, "keys"), (probes.lost, "lost"), (probes.unmatched, "unmatched")];
    let shown = counts.iter().enumerate().filter(|(at, (count, _))| *at == 0 || *count > 0);
    shown.map(|(_, (count, what))| format!("{} {what}", grouped(*count))).collect::<Vec<_>>().join(", ")
}
