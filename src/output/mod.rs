//! Entries → text and files. One file, one format.
//!
//! Owns the formats, colours and what people see on stderr. Never decides what is shown.

mod cell;
mod json;
pub mod kept;
mod listing;
pub mod pcapng;
#[cfg(test)]
mod samples;
pub mod status;
mod summary;
mod table;
mod yaml;

use std::io::Write;

use clap::ValueEnum;

pub use crate::capture::decoder::grouped;
pub use listing::listing;
pub use summary::{bytes, span, summary};
pub use table::{Look, Table};

use crate::pipeline::Sink;

/// What to print for each entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Rows for people, as wide as the terminal
    #[default]
    Table,
    /// Rows with ports, nodes, packet numbers and warnings
    Wide,
    /// One JSON object a line, with all decoded fields
    Json,
    /// One YAML document an entry, with all decoded fields
    Yaml,
    /// The names of the selected pods, nothing of their traffic
    Name,
    /// The packets, for Wireshark and tshark
    Pcapng,
}

impl Format {
    /// True if all fields have to be decoded.
    #[must_use]
    pub fn detail(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
}

/// The sink that prints entries in this format; for formats that print none, one that swallows them.
pub fn sink<'a>(format: Format, out: impl Write + 'a, look: Look) -> Box<dyn Sink + 'a> {
    match format {
        Format::Table => Box::new(Table::new(out, Look { wide: false, ..look })),
        Format::Wide => Box::new(Table::new(out, Look { wide: true, ..look })),
        Format::Json => Box::new(json::Json::new(out)),
        Format::Yaml => Box::new(yaml::Yaml::new(out)),
        Format::Name | Format::Pcapng => Box::new(Nothing),
    }
}

/// Swallows entries.
struct Nothing;

impl Sink for Nothing {
    fn entry(&mut self, _: &crate::entry::Entry) -> std::io::Result<()> {
        Ok(())
    }
}
