//! The one line at the end: what came in, what was lost, what came out.

use crate::capture::decoder::grouped;
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
        (counts.spilled, "packets waited on disk"),
        (counts.folded, "hops to sidecars"),
        (counts.filtered, "left out by the filter"),
        (counts.cut, "cut by snaplen"),
        (counts.unknown_flows, "flows of unknown protocol"),
        (counts.malformed_flows, "flows malformed"),
        (counts.undecrypted, "encrypted records that the keys do not fit"),
        (counts.key_events_lost, "events of TLS probes lost"),
        (counts.keys_unmatched, "TLS secrets of unknown connections"),
        (counts.remains, "remains of responses"),
        (counts.malformed, "packets malformed"),
        (counts.unknown_link, "packets of unknown link type"),
        (counts.fragments, "fragments incomplete"),
        (counts.evicted, "flows closed early"),
        (counts.relieved, "flows short of memory"),
        (counts.faults, "flows lost to a fault of ours"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", grouped(count)));
        }
    }
    parts.join(" · ")
}

/// Seconds as kubectl shows ages: `45s`, `12m`, `3h05m`, `4d`.
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes as Kubernetes writes quantities, with a decimal where there are few: `512Ki`, `1.5Mi`, `16Mi`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    for (unit, shift) in [("Gi", 30), ("Mi", 20), ("Ki", 10)] {
        let tenths = (u128::from(bytes) * 10) >> shift;
        if tenths >= 10 {
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if whole < 10 && tenth > 0 { format!("{whole}.{tenth}{unit}") } else { format!("{whole}{unit}") };
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        assert_eq!([0, 512, 1536, 16 << 20, (1 << 30) + (1 << 29)].map(bytes), ["0", "512", "1.5Ki", "16Mi", "1.5Gi"]);
        assert_eq!([5, 119, 754, 11_100, 400_000].map(span), ["5s", "119s", "12m", "3h05m", "4d"]);
    }

    #[test]
    fn losses_show_only_where_there_are_some() {
        let counts = Counts { packets: 12_345, entries: 1_204, cut: 3, ..Counts::default() };
        assert_eq!(
            summary(Some(3), &counts),
            "3 pods · 12,345 packets · 0 dropped by kernel · 0 flushed · 0 gaps · 1,204 entries · 3 cut by snaplen"
        );
        let counts = Counts { key_events_lost: 2, keys_unmatched: 1, ..Counts::default() };
        assert_eq!(
            summary(None, &counts),
            "0 packets · 0 dropped by kernel · 0 flushed · 0 gaps · 0 entries · 2 events of TLS probes lost · \
             1 TLS secrets of unknown connections"
        );
    }
}
