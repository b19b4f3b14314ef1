//! Single cells: numbers for people, text that cannot drive a terminal, cut to a width.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Nanoseconds as `87µs`, `1.2ms`, `3.4s`.
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn latency(nanos: i64) -> String {
    let nanos = nanos.max(0);
    match nanos {
        0..1_000_000 => format!("{}µs", nanos / 1000),
        1_000_000..10_000_000 => format!("{:.1}ms", nanos as f64 / 1e6),
        10_000_000..1_000_000_000 => format!("{}ms", nanos / 1_000_000),
        1_000_000_000..100_000_000_000 => format!("{:.1}s", nanos as f64 / 1e9),
        _ => format!("{}s", nanos / 1_000_000_000),
    }
}

/// Bytes as `840`, `1.2K`, `35M`.
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "";
    for next in ["K", "M", "G", "T"] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit.is_empty() || value >= 10.0 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

/// The text on one line, with everything that could drive a terminal or mislead a reader replaced.
pub(super) fn safe(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\r' | '\t' => ' ',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' => '\u{fffd}',
            control if control.is_control() => '\u{fffd}',
            other => other,
        })
        .collect()
}

/// Cells that the text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text in exactly `width` cells: cut with `…`, or filled with spaces.
pub(super) fn fit(text: &str, width: usize) -> String {
    let mut fitted = cut(text, width);
    let taken = fitted.width();
    fitted.extend(std::iter::repeat_n(' ', width.saturating_sub(taken)));
    fitted
}

/// The text in at most `width` cells, cut with `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let mut kept = String::new();
    for character in text.chars() {
        let cells = character.width().unwrap_or(0);
        if taken + cells + 1 > width {
            break;
        }
        taken += cells;
        kept.push(character);
    }
    if width > 0 {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_at_a_glance() {
        assert_eq!([87_000, 1_234_567, 56_000_000, 2_345_000_000].map(latency), ["87µs", "1.2ms", "56ms", "2.3s"]);
        assert_eq!([840, 1843, 36_700_160].map(size), ["840", "1.8K", "35M"]);
    }

    #[test]
    fn wide_characters_are_never_cut_in_half() {
        assert_eq!(cut("漢字かな", 5), "漢字…");
        assert_eq!(fit("漢字かな", 6), "漢字… ");
        assert_eq!(safe("a\u{1b}[31m\nb\u{202e}"), "a\u{fffd}[31m b\u{fffd}");
    }
}
