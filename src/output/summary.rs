//! The one line at the end: what came in, what was lost, what came out.

use crate::pipeline::Counts;

/// `3 pods · 12,345 packets · 0 dropped by kernel · 0 flushed · 0 gaps · 1,204 entries`, and whatever else was lost.
#[must_use]
pub fn summary(pods: Option<usize>, counts: &Counts) -> String {
    let mut parts = Vec::new();
    if let Some(pods) = pods {
        parts.push(format!("{pods} {}", if pods == 1 { "pod" } else { "pods" }));
    }
    for (count, what) in [
        (counts.packets, "packets"),
        (counts.dropped, "dropped by kernel"),
        (counts.flushed, "flushed"),
        (counts.gaps, "gaps"),
        (counts.entries, "entries"),
    ] {
        parts.push(format!("{} {what}", grouped(count)));
    }
    for (count, what) in [
        (counts.merged, "seen by two pods"),
        (counts.cut, "cut by snaplen"),
        (counts.unknown_flows, "flows of unknown protocol"),
        (counts.malformed_flows, "flows malformed"),
        (counts.remains, "remains of responses"),
        (counts.malformed, "packets malformed"),
        (counts.unknown_link, "packets of unknown link type"),
        (counts.fragments, "fragments incomplete"),
        (counts.evicted, "flows closed early"),
        (counts.faults, "flows lost to a fault of ours"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", grouped(count)));
        }
    }
    parts.join(" · ")
}

/// The number with commas between thousands.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_show_only_where_there_are_some() {
        let counts = Counts { packets: 12_345, entries: 1_204, cut: 3, ..Counts::default() };
        assert_eq!(
            summary(Some(3), &counts),
            "3 pods · 12,345 packets · 0 dropped by kernel · 0 flushed · 0 gaps · 1,204 entries · 3 cut by snaplen"
        );
    }
}
