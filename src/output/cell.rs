//! Single cells: numbers for people, text that cannot drive a terminal, cut to a width. A cell is written behind what is in
//! its row already: a capture has rows by the hundred thousand, and a string for each cell would take longer than dissection.

use std::fmt::Write as _;
use std::net::IpAddr;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::entry::{Endpoint, Timestamp};

/// A number in decimal.
pub(super) fn number(text: &mut String, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.push_str(str::from_utf8(&digits[start..]).unwrap_or_default());
}

/// The time of day (UTC), to the millisecond: `15:04:05.123`.
pub(super) fn time_of_day(text: &mut String, time: Timestamp) {
    let millis = time.0.div_euclid(1_000_000).rem_euclid(86_400_000).unsigned_abs();
    let mut digits = *b"00:00:00.000";
    let parts =
        [(0, 2, millis / 3_600_000), (3, 2, millis / 60_000 % 60), (6, 2, millis / 1000 % 60), (9, 3, millis % 1000)];
    for (start, count, mut number) in parts {
        for digit in digits[start..start + count].iter_mut().rev() {
            *digit += (number % 10) as u8;
            number /= 10;
        }
    }
    text.push_str(str::from_utf8(&digits).unwrap_or_default());
}

/// As [`Endpoint`] displays itself.
pub(super) fn endpoint(text: &mut String, end: &Endpoint) {
    let IpAddr::V4(ip) = end.ip else {
        let _ = write!(text, "{end}");
        return;
    };
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        number(text, octet.into());
    }
    if end.port != 0 {
        text.push(':');
        number(text, end.port.into());
    }
}

/// Nanoseconds as `87µs`, `1.2ms`, `3.4s`.
pub(super) fn latency(text: &mut String, nanos: i64) {
    let nanos = nanos.max(0).unsigned_abs();
    let (whole, unit) = match nanos {
        0..1_000_000 => (nanos / 1000, "µs"),
        1_000_000..10_000_000 => return tenths(text, (nanos + 50_000) / 100_000, "ms"),
        10_000_000..1_000_000_000 => (nanos / 1_000_000, "ms"),
        1_000_000_000..100_000_000_000 => return tenths(text, (nanos + 50_000_000) / 100_000_000, "s"),
        _ => (nanos / 1_000_000_000, "s"),
    };
    number(text, whole);
    text.push_str(unit);
}

/// So many tenths, as `1.2`, and a unit.
fn tenths(text: &mut String, count: u64, unit: &str) {
    number(text, count / 10);
    text.push('.');
    number(text, count % 10);
    text.push_str(unit);
}

/// Bytes as `840`, `1.2K`, `35M`.
pub(super) fn size(text: &mut String, bytes: u64) {
    let mut shift = 0;
    let mut unit = "";
    for next in ["K", "M", "G", "T"] {
        if bytes >> shift < 1000 {
            break;
        }
        shift += 10;
        unit = next;
    }
    if bytes >> shift >= 10 || shift == 0 {
        number(text, rounded(bytes, shift));
    } else {
        return tenths(text, rounded(bytes * 10, shift), unit);
    }
    text.push_str(unit);
}

/// The number divided by 2^`shift`; halves become even.
fn rounded(number: u64, shift: u32) -> u64 {
    let (whole, rest, half) = (number >> shift, number & ((1 << shift) - 1), (1 << shift) >> 1);
    whole + u64::from(rest > half || rest == half && rest > 0 && whole % 2 == 1)
}

/// True for text whose characters take one cell each and do nothing to a terminal, as most does.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The text on one line, with everything that could drive a terminal or mislead a reader replaced.
pub(super) fn safe(text: &mut String, said: &str) {
    if is_plain(said) {
        text.push_str(said);
        return;
    }
    text.extend(said.chars().map(|character| match character {
        '\n' | '\r' | '\t' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' => '\u{fffd}',
        control if control.is_control() => '\u{fffd}',
        other => other,
    }));
}

/// Cells that the text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    if is_plain(text) { text.len() } else { text.width() }
}

/// So many spaces.
pub(super) fn spaces(text: &mut String, mut count: usize) {
    const SPACES: &str = "                                                                ";
    while count > 0 {
        let some = count.min(SPACES.len());
        text.push_str(&SPACES[..some]);
        count -= some;
    }
}

/// What of a text that is too long fits `width` cells, and a `…` for the rest.
pub(super) fn cut(text: &mut String, said: &str, width: usize) {
    let mut taken = 0;
    for character in said.chars() {
        let cells = character.width().unwrap_or(0);
        if taken + cells + 1 > width {
            break;
        }
        taken += cells;
        text.push(character);
    }
    if width > 0 {
        text.push('…');
        spaces(text, width - taken - 1);
    }
}

/// The same for names, which differ at their ends: `front-end-5…d8bc8`. A namespace goes first: `…front-end-…d8bc8`.
pub(super) fn cut_within(text: &mut String, said: &str, width: usize) {
    /// What tells pods of one workload apart.
    const SUFFIX: usize = 5;
    if let Some((_, name)) = said.split_once('/').filter(|_| width > 1) {
        text.push('…');
        let (rest, taken) = (width - 1, self::width(name));
        if taken > rest {
            return cut_within(text, name, rest);
        }
        text.push_str(name);
        return spaces(text, rest - taken);
    }
    let tail = SUFFIX.min(width.saturating_sub(1) / 2);
    let Some((at, _)) = said.char_indices().rev().take(tail).last().filter(|(at, _)| is_plain(&said[*at..])) else {
        return cut(text, said, width);
    };
    cut(text, said, width - tail);
    text.push_str(&said[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T>(write: impl Fn(&mut String, T), value: T) -> String {
        let mut text = String::new();
        write(&mut text, value);
        text
    }

    #[test]
    fn numbers_read_at_a_glance() {
        let times = [87_000, 1_234_567, 56_000_000, 2_345_000_000, 1_000_000_000_000];
        assert_eq!(times.map(|nanos| shown(latency, nanos)), ["87µs", "1.2ms", "56ms", "2.3s", "1000s"]);
        let sizes = [0, 840, 999, 1000, 1843, 10_752, 36_700_160, 5 << 50];
        assert_eq!(sizes.map(|bytes| shown(size, bytes)), ["0", "840", "999", "1.0K", "1.8K", "10K", "35M", "5120T"]);
        let day = |seconds: i64| shown(time_of_day, Timestamp(seconds * 1_000_000_000 + 7_654_321));
        assert_eq!(
            [0, 86_399, 1_700_000_000, -1].map(day),
            ["00:00:00.007", "23:59:59.007", "22:13:20.007", "23:59:59.007"]
        );
        assert_eq!([0, 10, u64::MAX].map(|value| shown(number, value)), ["0", "10", "18446744073709551615"]);
    }

    #[test]
    fn ends_are_shown_as_everywhere() {
        for (ip, port) in [("10.0.0.200", 80), ("10.0.0.1", 0), ("fe80::1", 443), ("::1", 0)] {
            let end = Endpoint::new(ip.parse().unwrap(), port);
            assert_eq!(shown(endpoint, &end), end.to_string());
        }
    }

    #[test]
    fn wide_characters_are_never_cut_in_half() {
        let cut_to = |cells| shown(|text, said| cut(text, said, cells), "漢字かな");
        assert_eq!([5, 6].map(cut_to), ["漢字…", "漢字… "]);
        let within = |said, cells| shown(|text, said| cut_within(text, said, cells), said);
        assert_eq!(within("shop/front-end-5769674456-d8bc8", 18), "…front-end-5…d8bc8");
        assert_eq!(within("sock-shop/catalogue", 14), "…catalogue    ");
        let name = |cells| within("front-end-5769674456-d8bc8", cells);
        assert_eq!([17, 10, 1].map(name), ["front-end-5…d8bc8", "front…8bc8", "…"]);
        assert_eq!(shown(safe, "a\u{1b}[31m\nb\u{202e}"), "a\u{fffd}[31m b\u{fffd}");
        assert_eq!(["漢字", "ab c"].map(width), [4, 4]);
    }
}
