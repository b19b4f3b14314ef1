//! How an interface measures: what its timestamps are worth, how much of a frame it keeps, how many it lost
//! (draft-ietf-opsawg-pcapng, section 4.2).

use crate::entry::Timestamp;

/// How an interface of the current section measures.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) unit: Unit,
    /// Seconds to be added.
    pub(super) offset: i64,
    /// The most bytes kept of a frame; 0 = all.
    pub(super) snaplen: u32,
    /// Frames lost so far, as packets' drop counts say.
    pub(super) dropped: u64,
}

/// What a tick of a timestamp is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// So many nanoseconds.
    Nanoseconds(i128),
    /// One nanosecond is so many ticks.
    PerNanosecond(i128),
    /// A second is two to this power.
    Binary(u8),
}

impl Unit {
    /// From the `if_tsresol` option.
    pub(super) fn new(resolution: u8) -> Self {
        let power = resolution & 0x7f;
        match power {
            _ if resolution & 0x80 != 0 => Self::Binary(power),
            0..=9 => Self::Nanoseconds(10_i128.pow(9 - u32::from(power))),
            _ => Self::PerNanosecond(10_i128.saturating_pow(u32::from(power) - 9)),
        }
    }
}

impl Clock {
    pub(super) fn time(&self, ticks: u64) -> Timestamp {
        let ticks = i128::from(ticks);
        let nanos = match self.unit {
            Unit::Nanoseconds(worth) => ticks * worth,
            Unit::PerNanosecond(ticks_per) => ticks / ticks_per,
            Unit::Binary(power) => (ticks * 1_000_000_000) >> power,
        };
        let nanos = nanos + i128::from(self.offset) * 1_000_000_000;
        Timestamp(i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resolution_of_timestamps_counts() {
        for (resolution, ticks, nanos) in [
            (0, 3, 3_000_000_000),
            (3, 1, 1_000_000),
            (9, 1, 1),
            (12, 2_500, 2),
            (127, u64::MAX, 0),
            (0x80, 3, 3_000_000_000),
            (0xa0, 1 << 31, 500_000_000),
            (0xff, u64::MAX, 0),
            (0, u64::MAX, i64::MAX),
        ] {
            let clock = Clock { unit: Unit::new(resolution), offset: 0, snaplen: 0, dropped: 0 };
            assert_eq!(clock.time(ticks), Timestamp(nanos), "{resolution}");
        }
    }
}
