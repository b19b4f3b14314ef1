//! SCTP packets → user messages (RFC 9260): chunks, repetitions left out, fragments put together.
//!
//! Messages come out as they become whole, not in the order of their streams: what they carry pairs by ids. Not done: fragments
//! of interleaved messages (I-DATA, RFC 8260), and associations that use several addresses at once, which are a flow each.

use std::collections::BTreeMap;

/// How many transmission sequence numbers back a repetition is known as one.
const WINDOW: usize = 1024;
/// The most fragments of one side that wait for the others of their messages.
const MAX_FRAGMENTS: usize = 1024;
/// The most bytes that they have together.
const MAX_FRAGMENT_BYTES: usize = 1 << 20;

const DATA: u8 = 0;
const INIT: u8 = 1;
const ABORT: u8 = 6;
const SHUTDOWN_COMPLETE: u8 = 14;
const I_DATA: u8 = 64;

/// Flags of DATA: first and last fragment of a message.
const BEGINS: u8 = 0x02;
const ENDS: u8 = 0x01;
const WHOLE: u8 = BEGINS | ENDS;

/// What a packet does to the association.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// It asks for a new one.
    pub opens: bool,
    /// It ends it.
    pub ends: bool,
}

/// What the chunks of a packet, from behind its common header, do to the association.
#[must_use]
pub fn effect(chunks: &[u8]) -> Effect {
    let mut effect = Effect::default();
    for chunk in (Chunks { rest: chunks }) {
        effect.opens |= chunk.kind == INIT;
        effect.ends |= matches!(chunk.kind, ABORT | SHUTDOWN_COMPLETE);
    }
    effect
}

/// One association, between two addresses and ports.
#[derive(Debug, Default)]
pub struct Association {
    sides: [Side; 2],
}

/// What one side sends.
#[derive(Debug, Default)]
struct Side {
    /// The sequence numbers that were seen last, by their remainder.
    seen: Vec<Option<u32>>,
    fragments: BTreeMap<u32, Fragment>,
    bytes: usize,
}

#[derive(Debug)]
struct Fragment {
    flags: u8,
    data: Box<[u8]>,
}

impl Association {
    /// How many bytes of memory fragments take that wait for others.
    pub fn held(&self) -> usize {
        self.sides.iter().map(|side| side.bytes + side.fragments.len() * size_of::<Fragment>()).sum()
    }

    /// Gives them up.
    pub fn relieve(&mut self) {
        for side in &mut self.sides {
            side.fragments.clear();
            side.bytes = 0;
        }
    }

    /// Takes the chunks of one packet of `side`'s and hands on the messages that become whole.
    pub fn packet(&mut self, side: usize, chunks: &[u8], message: &mut impl FnMut(&[u8])) {
        let Some(side) = self.sides.get_mut(side) else { return };
        for chunk in (Chunks { rest: chunks }) {
            let header = match chunk.kind {
                DATA => 12,
                I_DATA => 16,
                _ => continue,
            };
            let (Some(tsn), Some(data)) = (chunk.value.first_chunk().copied(), chunk.value.get(header..)) else {
                continue;
            };
            let tsn = u32::from_be_bytes(tsn);
            if side.is_repeated(tsn) {
                continue;
            }
            match chunk.flags & WHOLE {
                WHOLE => message(data),
                flags if chunk.kind == DATA => side.fragment(tsn, flags, data, message),
                _ => {}
            }
        }
    }
}

impl Side {
    fn is_repeated(&mut self, tsn: u32) -> bool {
        self.seen.resize(WINDOW, None);
        let slot = self.seen.get_mut(tsn as usize % WINDOW);
        slot.is_some_and(|slot| slot.replace(tsn) == Some(tsn))
    }

    /// Keeps a fragment, and hands on the message if it was the last that it lacked.
    fn fragment(&mut self, tsn: u32, flags: u8, data: &[u8], message: &mut impl FnMut(&[u8])) {
        if self.fragments.len() >= MAX_FRAGMENTS || self.bytes + data.len() > MAX_FRAGMENT_BYTES {
            self.fragments.clear();
            self.bytes = 0;
        }
        self.bytes += data.len();
        self.fragments.insert(tsn, Fragment { flags, data: data.into() });
        let Some(first) = self.reach(tsn, BEGINS, |tsn| tsn.wrapping_sub(1)) else { return };
        let Some(last) = self.reach(tsn, ENDS, |tsn| tsn.wrapping_add(1)) else { return };
        let mut whole = Vec::new();
        let mut tsn = first;
        while let Some(fragment) = self.fragments.remove(&tsn) {
            self.bytes -= fragment.data.len();
            whole.extend_from_slice(&fragment.data);
            if tsn == last {
                break;
            }
            tsn = tsn.wrapping_add(1);
        }
        message(&whole);
    }

    /// The fragment of the same message with that flag, if all on the way to it are there.
    fn reach(&self, from: u32, flag: u8, next: impl Fn(u32) -> u32) -> Option<u32> {
        let mut tsn = from;
        while self.fragments.get(&tsn)?.flags & flag == 0 {
            tsn = next(tsn);
        }
        Some(tsn)
    }
}

/// A chunk.
struct Chunk<'a> {
    kind: u8,
    flags: u8,
    /// What follows its type, flags and length; less, if the capture cut it off.
    value: &'a [u8],
}

struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, flags, high, low], after) = self.rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).checked_sub(4)?;
        let value = after.get(..length).unwrap_or(after);
        self.rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Chunk { kind, flags, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(tsn: u32, flags: u8, text: &[u8]) -> Vec<u8> {
        let mut chunk = vec![DATA, flags, 0, (16 + text.len()) as u8];
        chunk.extend_from_slice(&tsn.to_be_bytes());
        chunk.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 46]);
        chunk.extend_from_slice(text);
        chunk.resize(chunk.len().next_multiple_of(4), 0);
        chunk
    }

    fn messages(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut association = Association::default();
        let mut out = Vec::new();
        for packet in packets {
            association.packet(0, packet, &mut |message| out.push(message.to_vec()));
        }
        out
    }

    #[test]
    fn bundled_and_repeated_chunks_come_once() {
        let both = [data(1, 3, b"a"), data(2, 3, b"bcdef")].concat();
        assert_eq!(messages(&[both.clone(), both, data(1, 3, b"a")]), [&b"a"[..], b"bcdef"]);
    }

    #[test]
    fn fragments_come_together_in_any_order() {
        let parts = [data(u32::MAX, 2, b"one "), data(0, 0, b"two "), data(1, 1, b"three")];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let packets: Vec<_> = order.iter().filter_map(|at: &usize| parts.get(*at).cloned()).collect();
            assert_eq!(messages(&packets), [b"one two three"]);
        }
    }

    #[test]
    fn fragments_without_an_end_are_bounded() {
        let mut side = Side::default();
        for tsn in 0..10_000 {
            side.fragment(tsn, 0, &[0; 2000], &mut |_| {});
            assert!(side.fragments.len() <= MAX_FRAGMENTS && side.bytes <= MAX_FRAGMENT_BYTES);
        }
    }

    #[test]
    fn lengths_that_lie_end_the_packet() {
        assert!(messages(&[vec![0, 3, 0, 3, 1, 2, 3]]).is_empty());
        assert_eq!(messages(&[data(1, 3, b"abcdefgh").get(..20).unwrap_or_default().to_vec()]), [b"abcd"]);
        assert_eq!(effect(&[INIT, 0, 0, 4]), Effect { opens: true, ends: false });
    }
}
