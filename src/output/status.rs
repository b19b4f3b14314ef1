//! What people see on stderr: targets that come and go, notes, errors with their next step, progress.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// Writes to stderr, around a bar or spinner if one is there.
#[derive(Default)]
pub struct Status {
    bar: Option<ProgressBar>,
}

impl Status {
    /// `+ sock-shop/front-end-x2v4k (node1)`: a target that is captured from now on.
    pub fn joined(&self, pod: &str, note: &str) {
        self.line(&format!("{GREEN}+{GREEN:#} {pod}{}", bracketed(note)));
    }

    /// `- sock-shop/front-end-x2v4k (deleted)`: a target that is no longer captured.
    pub fn left(&self, pod: &str, note: &str) {
        self.line(&format!("{RED}-{RED:#} {pod}{}", bracketed(note)));
    }

    /// Something worth knowing that went as it should.
    pub fn note(&self, text: &str) {
        self.line(&format!("{CYAN}note:{CYAN:#} {text}"));
    }

    /// Something that costs the user something.
    pub fn warning(&self, text: &str) {
        self.line(&format!("{YELLOW}warning:{YELLOW:#} {text}"));
    }

    /// A failure, and the command or change that comes next.
    pub fn error(&self, text: &str, hint: Option<&str>) {
        self.line(&format!("{ERROR}error:{ERROR:#} {text}"));
        if let Some(hint) = hint {
            self.hint(hint);
        }
    }

    /// What to do about what was just said.
    pub fn hint(&self, text: &str) {
        self.line(&format!("{CYAN}hint:{CYAN:#} {text}"));
    }

    /// One line, above the bar if there is one.
    pub fn line(&self, text: &str) {
        let print = || {
            // Nobody is left to tell if stderr is gone.
            let _ = writeln!(anstream::stderr(), "{text}");
        };
        self.around(print);
    }

    /// Shows a bar for `total` bytes, or a spinner where the total is unknown. Only on a terminal.
    pub fn reading(&mut self, total: Option<u64>) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
        let style =
            if total.is_some() { "reading {bar:30} {bytes}/{total_bytes} {eta}" } else { "reading {spinner} {bytes}" };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        self.bar = Some(bar);
    }

    /// Shows a spinner beside `text` while something is waited for; a line where there is no terminal.
    pub fn waiting(&mut self, text: &str) {
        if std::io::stderr().is_terminal() {
            self.starting(text);
        } else {
            self.line(text);
        }
    }

    /// The same for what takes so little time that only a terminal shows it.
    pub fn starting(&mut self, text: &str) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new_spinner();
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    /// Shows a line below everything else, in place of the last one.
    pub fn footer(&mut self, text: &str) {
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            // Longer lines would leave their beginning behind.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg:.dim}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(text.to_owned());
        bar.tick();
        to_its_beginning();
    }

    /// Does something that writes to the terminal while the bar is away.
    pub fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        let Some(bar) = &self.bar else { return write() };
        let result = bar.suspend(write);
        to_its_beginning();
        result
    }

    /// Moves the bar.
    pub fn position(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    /// Takes the bar or spinner away.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Puts the cursor before the line that was drawn: behind it, the `^C` that a terminal echoes would begin another one, and the
/// line would stay.
fn to_its_beginning() {
    let _ = anstream::stderr().write_all(b"\r");
}

fn bracketed(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(" ({note})") }
}
