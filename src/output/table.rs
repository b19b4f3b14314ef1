//! The live table: rows as they come, as wide as the terminal.
//!
//! Rows can't wait for the end, so widths are chosen as they go: a column grows with what it has to show, within its limits,
//! and TARGET takes what is left. Where the output is no terminal nothing is cut and nothing is coloured.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::cell::{cut, fit, latency, safe, size, width};
use crate::entry::{Endpoint, Entry};
use crate::pipeline::Sink;

/// How the table looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Cells to fit in; `None` where the output is no terminal.
    pub width: Option<usize>,
    /// Colours.
    pub colour: bool,
    /// All columns.
    pub wide: bool,
    /// Times in UTC rather than the machine's zone, and the seconds that the zone is east of it.
    pub offset: i64,
    /// Show namespaces: rows come from several.
    pub namespaces: bool,
}

/// One column: its head, the cells that it starts with, and the most that it grows to on a terminal.
struct Column {
    head: &'static str,
    start: usize,
    limit: usize,
    right: bool,
}

const fn column(head: &'static str, start: usize, limit: usize) -> Column {
    Column { head, start, limit, right: false }
}

const fn number(head: &'static str, start: usize) -> Column {
    Column { head, start, limit: start + 3, right: true }
}

const TABLE: &[Column] = &[
    column("TIME", 12, 12),
    column("SOURCE", 18, 32),
    column("DESTINATION", 18, 32),
    column("PROTOCOL", 8, 10),
    column("OPERATION", 9, 16),
    column("TARGET", 20, usize::MAX),
    column("STATUS", 6, 12),
    number("LATENCY", 7),
    number("SIZE", 5),
];

const WIDE: &[Column] = &[
    column("ID", 4, 8),
    column("TIME", 12, 12),
    column("SOURCE", 24, 64),
    column("DESTINATION", 24, 64),
    column("NODE", 5, 24),
    column("PROTOCOL", 8, 10),
    column("OPERATION", 9, 24),
    column("TARGET", 20, usize::MAX),
    column("STATUS", 6, 16),
    number("LATENCY", 7),
    number("REQUEST", 7),
    number("RESPONSE", 8),
    column("PACKETS", 9, 16),
    column("WARNINGS", 8, 60),
];

/// Rows after which a terminal is shown the head again.
const HEAD_EVERY: usize = 50;
/// The share of a terminal that TARGET keeps before the names are cut: one cell in so many.
const TARGET_SHARE: usize = 4;
/// What TARGET is given where lines have no end.
const PIPED_TARGET: usize = 40;

const DIM: Style = Style::new().dimmed();

/// The table's sink.
pub struct Table<W> {
    out: W,
    look: Look,
    columns: &'static [Column],
    widths: Vec<usize>,
    rows: usize,
    text: String,
}

impl<W: Write> Table<W> {
    /// Writes to `out`.
    pub fn new(out: W, look: Look) -> Self {
        let columns = if look.wide { WIDE } else { TABLE };
        let start = |column: &Column| if column.limit == usize::MAX { PIPED_TARGET } else { column.start };
        Self { out, look, columns, widths: columns.iter().map(start).collect(), rows: 0, text: String::new() }
    }

    fn cells(&self, entry: &Entry) -> Vec<String> {
        let time = crate::entry::Timestamp(entry.time.0 + self.look.offset * 1_000_000_000).time_of_day();
        let bytes = |half: &Option<crate::entry::Half>| half.as_ref().map_or(0, |half| half.bytes);
        let took = entry.latency.map_or_else(|| "-".to_owned(), latency);
        let status = if entry.status.is_empty() { "-".to_owned() } else { safe(&entry.status) };
        let (src, dst) = (self.end(&entry.src), self.end(&entry.dst));
        if !self.look.wide {
            let mark = if entry.warnings.is_empty() { "" } else { "!" };
            return vec![
                time,
                src,
                dst,
                entry.protocol.to_owned(),
                safe(&entry.operation),
                safe(&entry.target),
                status + mark,
                took,
                size(bytes(&entry.request) + bytes(&entry.response)),
            ];
        }
        let dst = match &entry.backend {
            Some(backend) => format!("{dst} → {}", self.end(backend)),
            None => dst,
        };
        let node = [&entry.dst, &entry.src].into_iter().find_map(|end| end.name.as_ref()?.node.clone());
        let packets: Vec<String> = [&entry.request, &entry.response]
            .iter()
            .filter_map(|half| Some(half.as_ref()?.packet.to_string()))
            .collect();
        let length = |half: &Option<crate::entry::Half>| half.as_ref().map_or("-".to_owned(), |half| size(half.bytes));
        vec![
            entry.id.to_string(),
            time,
            src,
            dst,
            node.unwrap_or_else(|| "-".to_owned()),
            entry.protocol.to_owned(),
            safe(&entry.operation),
            safe(&entry.target),
            status,
            took,
            length(&entry.request),
            length(&entry.response),
            packets.join(","),
            safe(&entry.warnings.join("; ")),
        ]
    }

    /// A name where there is one, with the port in the wide table; else the address.
    fn end(&self, end: &Endpoint) -> String {
        let Some(name) = &end.name else { return end.to_string() };
        let mut text = match (self.look.namespaces || self.look.wide, name.namespace.as_str()) {
            (false, _) | (true, "") => name.name.clone(),
            (true, namespace) => format!("{namespace}/{}", name.name),
        };
        if self.look.wide && end.port != 0 {
            text = format!("{text}:{}", end.port);
        }
        safe(&text)
    }

    /// Lets columns grow to what they have to show.
    fn grow(&mut self, cells: &[String]) {
        for ((wide, cell), column) in self.widths.iter_mut().zip(cells).zip(self.columns) {
            if column.limit != usize::MAX {
                let limit = if self.look.width.is_some() { column.limit } else { usize::MAX };
                *wide = (*wide).max(width(cell).min(limit));
            }
        }
    }

    /// The widths for the next row: on a terminal TARGET gets the rest, and if that is too little the names give way.
    fn fitted(&self) -> Vec<usize> {
        let mut widths = self.widths.clone();
        let Some(total) = self.look.width else { return widths };
        let Some(target) = self.columns.iter().position(|column| column.limit == usize::MAX) else { return widths };
        let taken = |widths: &[usize]| {
            widths.iter().enumerate().filter(|(at, _)| *at != target).map(|(_, cells)| cells + 2).sum::<usize>()
        };
        // Names first, then whatever is widest, one cell at a time: rows never wrap.
        while taken(&widths) + total / TARGET_SHARE > total {
            let names = widths.iter().enumerate().filter(|(at, cells)| {
                *at != target && **cells > 4 && matches!(self.columns.get(*at), Some(column) if !column.right)
            });
            let Some((widest, _)) = names.max_by_key(|(_, cells)| **cells) else { break };
            if let Some(cells) = widths.get_mut(widest) {
                *cells -= 1;
            }
        }
        let rest = total.saturating_sub(taken(&widths)).max(1);
        if let Some(cells) = widths.get_mut(target) {
            *cells = rest;
        }
        widths
    }

    fn row(&mut self, cells: &[String], styles: impl Fn(usize) -> Style) -> io::Result<()> {
        let widths = self.fitted();
        self.text.clear();
        let last = cells.len().saturating_sub(1);
        for (at, (cell, cells)) in cells.iter().zip(&widths).enumerate() {
            let right = self.columns.get(at).is_some_and(|column| column.right);
            let limit = if self.look.width.is_some() { *cells } else { (*cells).max(width(cell)) };
            let text = if right {
                let text = cut(cell, limit);
                format!("{}{text}", " ".repeat(limit.saturating_sub(width(&text))))
            } else if at == last {
                cut(cell, limit)
            } else {
                fit(cell, limit)
            };
            if self.look.colour {
                let style = styles(at);
                let _ = write!(self.text, "{style}{text}{style:#}");
            } else {
                self.text.push_str(&text);
            }
            if at != last {
                self.text.push_str("  ");
            }
        }
        let text = if self.look.colour { self.text.as_str() } else { self.text.trim_end() };
        writeln!(self.out, "{text}")
    }

    fn head(&mut self) -> io::Result<()> {
        let heads: Vec<String> = self.columns.iter().map(|column| column.head.to_owned()).collect();
        self.row(&heads, |_| Style::new().bold())
    }
}

impl<W: Write> Sink for Table<W> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let cells = self.cells(entry);
        self.grow(&cells);
        let again = self.look.width.is_some() && self.rows.is_multiple_of(HEAD_EVERY);
        if self.rows == 0 || again {
            self.head()?;
        }
        self.rows += 1;
        let (failed, answered) = (entry.failed, !entry.status.is_empty());
        let slow = entry.latency.is_some_and(|nanos| nanos >= 1_000_000_000);
        let columns = self.columns;
        self.row(&cells, |at| match columns.get(at).map(|column| column.head) {
            Some("PROTOCOL") => protocol_style(entry.protocol),
            Some("STATUS") if failed => AnsiColor::Red.on_default().bold(),
            Some("STATUS") if answered => AnsiColor::Green.on_default(),
            Some("LATENCY") if slow => AnsiColor::Yellow.on_default(),
            Some("WARNINGS") => AnsiColor::Yellow.on_default(),
            Some("TIME" | "ID" | "PACKETS" | "NODE" | "LATENCY" | "SIZE" | "REQUEST" | "RESPONSE") => DIM,
            _ => Style::new(),
        })
    }

    fn tick(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A colour of its own for each protocol, the same in every run.
fn protocol_style(protocol: &str) -> Style {
    const COLOURS: [AnsiColor; 5] =
        [AnsiColor::Cyan, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::Yellow, AnsiColor::BrightCyan];
    let sum: usize = protocol.bytes().map(usize::from).sum();
    COLOURS.get(sum % COLOURS.len()).map_or_else(Style::new, |colour| colour.on_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn show(look: Look) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(&mut out, look);
        for entry in [samples::http(), samples::unanswered(), samples::failed()] {
            table.entry(&entry).unwrap();
        }
        table.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_fit_the_terminal() {
        for cells in [60, 80, 120, 200] {
            let text = show(Look { width: Some(cells), ..Look::default() });
            for line in text.lines() {
                assert!(width(line) <= cells, "{cells} cells: {line}");
            }
        }
        insta::assert_snapshot!(show(Look { width: Some(120), ..Look::default() }));
    }

    #[test]
    fn a_pipe_gets_everything_and_no_colour() {
        insta::assert_snapshot!(show(Look::default()));
    }

    #[test]
    fn wide_shows_all_there_is() {
        insta::assert_snapshot!(show(Look { wide: true, ..Look::default() }));
    }

    #[test]
    fn colours_say_what_failed() {
        let text = show(Look { width: Some(120), colour: true, ..Look::default() });
        assert!(text.contains("\u{1b}[1m\u{1b}[31m503"), "{text:?}");
        assert!(!text.contains("\u{1b}[2J"), "a peer's escape reached the terminal");
    }
}
