//! Columns for people, of things that are listed once: protocols, agents, sessions.

use std::io::{self, Write};

use comfy_table::{Table, presets};

/// Writes the rows under their header, each column as wide as it has to be.
///
/// # Errors
/// If they cannot be written.
pub fn listing<R>(out: &mut impl Write, header: &[&str], rows: impl IntoIterator<Item = R>) -> io::Result<()>
where
    R: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.into_iter());
    }
    table
        .to_string()
        .lines()
        .try_for_each(|line| writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(line).trim_end()))
}
