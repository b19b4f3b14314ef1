//! The live table: rows as they come, as wide as the terminal.
//!
//! Rows can't wait for the end, so widths are chosen as they go: a column grows with what it has to show, within its limits,
//! and TARGET takes what is left. A narrow terminal has fewer columns rather than cells that say nothing. Where the output is
//! no terminal nothing is cut and nothing is coloured.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::cell::{cut, cut_within, endpoint, latency, number, safe, size, spaces, time_of_day, width};
use crate::entry::{Endpoint, Entry, Half, JOINED, Timestamp};
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

const fn right(head: &'static str, start: usize) -> Column {
    Column { head, start, limit: start + 3, right: true }
}

impl Column {
    /// True for the one that takes what the others leave.
    fn is_rest(&self) -> bool {
        self.limit == usize::MAX
    }

    /// True for names of pods, which differ at their ends.
    fn is_name(&self) -> bool {
        matches!(self.head, "SOURCE" | "DESTINATION")
    }

    /// The cells that it starts with on a narrow terminal, and gives away only if nothing else can.
    fn least(&self) -> usize {
        match self.head {
            "TARGET" => 18,
            "SOURCE" | "DESTINATION" => 14,
            "PROTOCOL" | "OPERATION" | "STATUS" => 5,
            _ => self.start,
        }
    }
}

const TABLE: &[Column] = &[
    column("TIME", 12, 12),
    column("SOURCE", 18, 32),
    column("DESTINATION", 18, 32),
    column("PROTOCOL", 8, 10),
    column("OPERATION", 9, 16),
    column("TARGET", 20, usize::MAX),
    column("STATUS", 6, 12),
    right("LATENCY", 7),
    right("SIZE", 5),
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
    right("LATENCY", 7),
    right("REQUEST", 7),
    right("RESPONSE", 8),
    column("PACKETS", 9, 16),
    column("WARNINGS", 8, 60),
];

/// What a narrow terminal does without, the first first, until the others have what makes them readable.
const SHED: [&str; 3] = ["SIZE", "TIME", "PROTOCOL"];

/// Rows after which a terminal is shown the head again.
const HEAD_EVERY: usize = 50;
/// Cells between columns.
const GAP: usize = 2;
/// The share of a terminal that TARGET keeps before the names are cut: one cell in so many.
const TARGET_SHARE: usize = 4;
/// What TARGET is given where lines have no end.
const PIPED_TARGET: usize = 40;

const DIM: Style = Style::new().dimmed();

/// The cells of one row, one behind another.
#[derive(Default)]
struct Cells {
    text: String,
    /// Where each ends, and how many cells of a terminal it takes.
    ends: Vec<(usize, usize)>,
}

impl Cells {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// The cell that is being written is complete.
    fn end(&mut self) {
        let start = self.ends.last().map_or(0, |(end, _)| *end);
        self.ends.push((self.text.len(), width(self.text.get(start..).unwrap_or_default())));
    }

    fn add(&mut self, said: &str) {
        safe(&mut self.text, said);
        self.end();
    }

    fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        starts.zip(&self.ends).map(|(start, (end, width))| (self.text.get(start..*end).unwrap_or_default(), *width))
    }
}

/// The table's sink.
pub struct Table<W> {
    out: W,
    look: Look,
    columns: &'static [Column],
    widths: Vec<usize>,
    /// What each column gives away only if nothing else can; none for those that are not shown.
    least: Vec<Option<usize>>,
    rows: usize,
    cells: Cells,
    /// The line that is being written, and its columns' widths.
    line: String,
    fitted: Vec<usize>,
}

impl<W: Write> Table<W> {
    /// Writes to `out`.
    pub fn new(out: W, look: Look) -> Self {
        let columns = if look.wide { WIDE } else { TABLE };
        let room = columns.iter().map(|column| column.start + GAP).sum::<usize>() - GAP;
        let is_narrow = look.width.is_some_and(|width| width < room);
        // Who wants all columns has lines that wrap rather than cells that say nothing.
        let width = look.width.filter(|_| !look.wide || !is_narrow);
        let start = |column: &Column| if is_narrow && !look.wide { column.least() } else { column.start };
        let widths = columns.iter().map(|column| if column.is_rest() { PIPED_TARGET } else { start(column) }).collect();
        let least = |column: &Column| if column.is_name() { column.least() } else { start(column) };
        let mut least: Vec<_> = columns.iter().map(|column| Some(least(column))).collect();
        for head in SHED {
            let taken = least.iter().flatten().map(|cells| cells + GAP).sum::<usize>();
            if width.is_none_or(|width| taken <= width + GAP) {
                break;
            }
            for (least, _) in least.iter_mut().zip(columns).filter(|(_, column)| column.head == head) {
                *least = None;
            }
        }
        Self {
            out,
            look: Look { width, ..look },
            columns,
            widths,
            least,
            rows: 0,
            cells: Cells::default(),
            line: String::new(),
            fitted: Vec::new(),
        }
    }

    fn fill(&mut self, entry: &Entry) {
        let (cells, look) = (&mut self.cells, &self.look);
        let bytes = |half: &Option<Half>| half.as_ref().map_or(0, |half| half.bytes);
        cells.clear();
        if look.wide {
            number(&mut cells.text, entry.id);
            cells.end();
        }
        time_of_day(&mut cells.text, Timestamp(entry.time.0 + look.offset * 1_000_000_000));
        cells.end();
        end(&mut cells.text, &entry.src, look);
        cells.end();
        end(&mut cells.text, &entry.dst, look);
        if look.wide {
            if let Some(backend) = &entry.backend {
                cells.text.push_str(" → ");
                end(&mut cells.text, backend, look);
            }
            if !entry.hops.is_empty() {
                cells.text.push_str(" via sidecar");
            }
            cells.end();
            let node = [&entry.dst, &entry.src].into_iter().find_map(|end| end.name.as_ref()?.node.as_deref());
            cells.text.push_str(node.unwrap_or("-"));
        }
        cells.end();
        cells.add(entry.protocol);
        cells.add(&entry.operation);
        cells.add(&entry.target);
        safe(&mut cells.text, if entry.status.is_empty() { "-" } else { &entry.status });
        // Every live session begins in the middle of what was there before it: that alone is nothing to look into.
        if !look.wide && entry.warnings.iter().any(|warning| warning != JOINED) {
            cells.text.push('!');
        }
        cells.end();
        match entry.latency {
            Some(nanos) => latency(&mut cells.text, nanos),
            None => cells.text.push('-'),
        }
        cells.end();
        if !look.wide {
            size(&mut cells.text, bytes(&entry.request) + bytes(&entry.response));
            cells.end();
            return;
        }
        let halves = [&entry.request, &entry.response];
        for half in halves {
            match half {
                Some(half) => size(&mut cells.text, half.bytes),
                None => cells.text.push('-'),
            }
            cells.end();
        }
        for (at, half) in halves.into_iter().flatten().enumerate() {
            if at > 0 {
                cells.text.push(',');
            }
            number(&mut cells.text, half.packet);
        }
        cells.end();
        for (at, warning) in entry.warnings.iter().enumerate() {
            if at > 0 {
                cells.text.push_str("; ");
            }
            safe(&mut cells.text, warning);
        }
        cells.end();
    }

    /// Lets columns grow to what they have to show.
    fn grow(&mut self) {
        for ((wide, (_, cells)), column) in self.widths.iter_mut().zip(self.cells.iter()).zip(self.columns) {
            if !column.is_rest() {
                let limit = if self.look.width.is_some() { column.limit } else { usize::MAX };
                *wide = (*wide).max(cells.min(limit));
            }
        }
    }

    /// The widths for the next row: on a terminal TARGET gets the rest, and if that is too little the names give way.
    fn fit(&mut self) {
        let widths = &mut self.fitted;
        widths.clone_from(&self.widths);
        let Some(total) = self.look.width else { return };
        let Some(target) = self.columns.iter().position(Column::is_rest) else { return };
        let least = |at: usize| self.least.get(at).copied().flatten();
        let taken = |widths: &[usize]| {
            let others = widths.iter().enumerate().filter(|(at, _)| *at != target && least(*at).is_some());
            others.map(|(_, cells)| cells + GAP).sum::<usize>()
        };
        // What has most beyond its least first, then whatever is widest, one cell at a time: rows never wrap.
        while taken(widths) + total / TARGET_SHARE > total {
            let give = widths.iter().enumerate().filter_map(|(at, cells)| {
                let column = self.columns.get(at).filter(|column| !column.right && column.head != "TIME")?;
                let least = least(at).filter(|_| !column.is_rest() && *cells > 4)?;
                Some((at, (cells.saturating_sub(least), *cells)))
            });
            let Some((widest, _)) = give.max_by_key(|(_, size)| *size) else { break };
            if let Some(cells) = widths.get_mut(widest) {
                *cells -= 1;
            }
        }
        let rest = total.saturating_sub(taken(widths)).max(1);
        if let Some(cells) = widths.get_mut(target) {
            *cells = rest;
        }
    }

    /// Writes the row whose cells are there.
    fn row(&mut self, styles: impl Fn(usize) -> Style) -> io::Result<()> {
        self.fit();
        let line = &mut self.line;
        line.clear();
        let last = self.least.iter().rposition(Option::is_some).unwrap_or_default();
        let cells = self.cells.iter().zip(&self.fitted).zip(self.columns).enumerate();
        for (at, (((cell, taken), wide), column)) in cells {
            if self.least.get(at).is_none_or(Option::is_none) {
                continue;
            }
            let style = if self.look.colour { styles(at) } else { Style::new() };
            let fits = self.look.width.is_none() || taken <= *wide;
            let rest = wide.saturating_sub(taken);
            if self.look.colour {
                let _ = write!(line, "{style}");
            }
            if column.right && fits {
                spaces(line, rest);
            }
            if fits {
                line.push_str(cell);
            } else if column.is_name() && cell != column.head {
                cut_within(line, cell, *wide);
            } else {
                cut(line, cell, *wide);
            }
            if !column.right && fits && at != last {
                spaces(line, rest);
            }
            if self.look.colour {
                let _ = write!(line, "{style:#}");
            }
            if at != last {
                line.push_str("  ");
            }
        }
        if !self.look.colour {
            line.truncate(line.trim_end_matches(' ').len());
        }
        line.push('\n');
        self.out.write_all(line.as_bytes())
    }

    fn head(&mut self) -> io::Result<()> {
        let entry = std::mem::take(&mut self.cells);
        for column in self.columns {
            self.cells.add(column.head);
        }
        self.row(|_| Style::new().bold())?;
        self.cells = entry;
        Ok(())
    }
}

/// A name where there is one, with the port in the wide table; else the address.
fn end(text: &mut String, end: &Endpoint, look: &Look) {
    let Some(name) = &end.name else { return endpoint(text, end) };
    if (look.namespaces || look.wide) && !name.namespace.is_empty() {
        safe(text, &name.namespace);
        text.push('/');
    }
    safe(text, &name.name);
    if look.wide && end.port != 0 {
        text.push(':');
        number(text, end.port.into());
    }
}

impl<W: Write> Sink for Table<W> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.fill(entry);
        self.grow();
        let again = self.look.width.is_some() && self.rows.is_multiple_of(HEAD_EVERY);
        if self.rows == 0 || again {
            self.head()?;
        }
        self.rows += 1;
        let (failed, answered) = (entry.failed, !entry.status.is_empty());
        let slow = entry.latency.is_some_and(|nanos| nanos >= 1_000_000_000);
        let columns = self.columns;
        self.row(|at| match columns.get(at).map(|column| column.head) {
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
    fn a_narrow_terminal_has_fewer_columns_that_can_be_read() {
        insta::assert_snapshot!(show(Look { width: Some(80), ..Look::default() }));
        let narrow = show(Look { width: Some(60), ..Look::default() });
        let head: Vec<&str> = narrow.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(head.first().zip(head.last()), Some((&"SOURCE", &"LATENCY")), "{narrow}");
        // Who asks for everything has everything, on longer lines if need be.
        let wide = show(Look { width: Some(80), wide: true, ..Look::default() });
        assert_eq!(wide, show(Look { wide: true, ..Look::default() }));
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
