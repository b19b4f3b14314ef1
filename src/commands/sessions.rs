//! `kubectl sniff sessions`: what `--keep` has kept.

use std::io::Write;

use clap::{Subcommand, ValueEnum};

use super::dissection::Dissection;
use super::{Failure, read};
use crate::output::kept::Kept;
use crate::output::status::Status;
use crate::output::{bytes, grouped, listing, span};

/// List, open and delete the sessions that --keep has kept
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,

    /// What to print for each session
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Rows for people
    #[default]
    Table,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Dissect a session's packets again
    Open {
        /// The session's name
        name: String,

        #[command(flatten)]
        dissection: Box<Dissection>,
    },
    /// Delete sessions, with their packets and entries
    Delete {
        /// Their names
        #[arg(required_unless_present = "all")]
        names: Vec<String>,

        /// All of them
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
}

pub fn run(args: &Args, status: &mut Status) -> Result<(), Failure> {
    match &args.action {
        None => list(args.output, status),
        Some(Action::Open { name, dissection }) => read::run(&open(name)?.capture(), dissection, status),
        Some(Action::Delete { names, all }) => {
            let kept = if *all {
                Kept::all().map_err(|error| unreadable(&error))?
            } else {
                names.iter().map(|name| open(name)).collect::<Result<_, _>>()?
            };
            for session in kept {
                let name = session.about().name.clone();
                session.delete().map_err(|error| Failure::new(format!("cannot delete session {name}: {error}")))?;
                status.left(&name, "deleted");
            }
            Ok(())
        }
    }
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read the kept sessions: {error}"))
}

fn open(name: &str) -> Result<Kept, Failure> {
    Kept::open(name)
        .map_err(|error| Failure::new(error.to_string()).hint("kubectl sniff sessions lists those there are"))
}

fn list(format: Format, status: &Status) -> Result<(), Failure> {
    let sessions = Kept::all().map_err(|error| unreadable(&error))?;
    if sessions.is_empty() {
        status.line("no session is kept; kubectl sniff PODS --keep keeps one");
        return Ok(());
    }
    let mut out = anstream::stdout().lock();
    if format == Format::Json {
        for session in &sessions {
            writeln!(out, "{}", serde_json::to_string(session.about()).map_err(std::io::Error::other)?)?;
        }
        return Ok(());
    }
    let rows = sessions.iter().map(|session| {
        let about = session.about();
        [
            about.name.clone(),
            about.started.chars().take(19).collect::<String>().replace('T', " "),
            about.seconds.map_or_else(|| "?".to_owned(), span),
            about.pods.to_string(),
            grouped(about.packets),
            grouped(about.entries),
            grouped(about.dropped + about.flushed),
            bytes(session.size()),
            about.arguments.join(" "),
        ]
    });
    Ok(listing(&mut out, &["NAME", "STARTED", "TOOK", "PODS", "PACKETS", "ENTRIES", "LOST", "SIZE", "OF"], rows)?)
}
