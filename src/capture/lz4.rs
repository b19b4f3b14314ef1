//! LZ4 frames → bytes, incrementally: what `sniff-agent stream --compress lz4` sends, and what `lz4` writes.
//!
//! Frames may follow one another, and skippable ones are skipped. Checksums are passed over: an agent writes none, and
//! what they would find in a file shows in its records. A dictionary from elsewhere is refused.
//!
//! Memory is bounded by what it is given at a time: a block is at most 4 MiB, and LZ4 packs at best 255 bytes into one.

use lz4_flex::block::decompress_into_with_dict;

/// What a frame starts with.
pub(super) const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// The upper three bytes of what a skippable frame starts with, after `0x50..=0x5f`.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// How far back a block may refer to those before it.
const WINDOW: usize = 64 << 10;

/// The bit of a block's length that says that it is not compressed.
const STORED: u32 = 1 << 31;

/// Decompresses what it is given.
#[derive(Debug, Default)]
pub(super) struct Inflater {
    /// What was given and not yet used.
    input: Vec<u8>,
    frame: Option<Frame>,
    /// Bytes of a skippable frame that are still to come.
    skip: usize,
}

/// A frame that has begun.
#[derive(Debug)]
struct Frame {
    /// The most bytes of a block.
    most: usize,
    /// Bytes of checksum behind each block, and behind the last.
    checksums: (usize, usize),
    /// The last bytes of the blocks before, if blocks may refer to them.
    window: Option<Vec<u8>>,
}

impl Inflater {
    /// Bytes that wait for the rest of their block.
    pub(super) fn held(&self) -> usize {
        self.input.len() + self.skip
    }

    /// Takes compressed bytes and appends what they come to.
    ///
    /// # Errors
    /// What is wrong with them; what was appended before stays.
    pub(super) fn inflate(&mut self, packed: impl IntoIterator<Item = u8>, out: &mut Vec<u8>) -> Result<(), String> {
        self.input.extend(packed);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        let result = loop {
            match self.step(&mut rest, out) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(wrong) => break Err(format!("bad lz4 data ({wrong})")),
            }
        };
        self.input.extend_from_slice(rest);
        result
    }

    /// Uses up one part of a frame; false if it is not there whole.
    fn step(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, String> {
        if self.skip > 0 {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            *rest = rest.get(skipped..).unwrap_or_default();
            return Ok(self.skip == 0);
        }
        let Some(frame) = &mut self.frame else { return self.begin(rest) };
        let Some((word, behind)) = rest.split_first_chunk::<4>() else { return Ok(false) };
        let word = u32::from_le_bytes(*word);
        let (block, content) = frame.checksums;
        if word == 0 {
            let Some(behind) = behind.get(content..) else { return Ok(false) };
            self.frame = None;
            *rest = behind;
            return Ok(true);
        }
        let length = (word & !STORED) as usize;
        if length > frame.most {
            return Err(format!("block of {length} bytes"));
        }
        let (Some(data), Some(behind)) = (behind.get(..length), behind.get(length + block..)) else {
            return Ok(false);
        };
        frame.block(data, word & STORED != 0, out)?;
        *rest = behind;
        Ok(true)
    }

    /// Reads what a frame starts with.
    fn begin(&mut self, rest: &mut &[u8]) -> Result<bool, String> {
        let Some((magic, behind)) = rest.split_first_chunk::<4>() else { return Ok(false) };
        if magic[0] & 0xf0 == 0x50 && magic[1..] == SKIPPABLE {
            let Some((length, behind)) = behind.split_first_chunk::<4>() else { return Ok(false) };
            self.skip = u32::from_le_bytes(*length) as usize;
            *rest = behind;
            return Ok(true);
        }
        if *magic != MAGIC {
            return Err("what follows a frame is none".to_owned());
        }
        let Some([flags, sizes, ..]) = behind.first_chunk::<2>() else { return Ok(false) };
        if flags >> 6 != 1 || flags & 0x03 != 0 || !(4..=7).contains(&(sizes >> 4)) {
            return Err(format!("frame of flags {flags:02x} {sizes:02x}"));
        }
        let content_size = if flags & 0x08 != 0 { 8 } else { 0 };
        // The last byte is a checksum of those before it.
        let Some(behind) = behind.get(2 + content_size + 1..) else { return Ok(false) };
        let checksum = |bit: u8| if flags & bit != 0 { 4 } else { 0 };
        self.frame = Some(Frame {
            most: 1 << (8 + 2 * (sizes >> 4)),
            checksums: (checksum(0x10), checksum(0x04)),
            window: (flags & 0x20 == 0).then(Vec::new),
        });
        *rest = behind;
        Ok(true)
    }
}

impl Frame {
    fn block(&mut self, data: &[u8], stored: bool, out: &mut Vec<u8>) -> Result<(), String> {
        let start = out.len();
        if stored {
            out.extend_from_slice(data);
        } else {
            out.resize(start + self.most, 0);
            let place = out.get_mut(start..).unwrap_or_default();
            let window = self.window.as_deref().unwrap_or_default();
            let length = decompress_into_with_dict(data, place, window);
            out.truncate(start + *length.as_ref().unwrap_or(&0));
            length.map_err(|cause| cause.to_string())?;
        }
        if let Some(window) = &mut self.window {
            window.extend_from_slice(out.get(start..).unwrap_or_default());
            // Not for each small block.
            if window.len() > 2 * WINDOW {
                window.drain(..window.len() - WINDOW);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    /// Compresses in several blocks, as a stream does.
    fn pack(bytes: &[u8], info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        for piece in bytes.chunks(50_000) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    /// Bytes of which some repeat.
    fn bytes(count: u32) -> Vec<u8> {
        (0..count).flat_map(|number| (number % 9973).pow(2).to_le_bytes()).collect()
    }

    #[test]
    fn every_kind_of_frame_in_pieces_of_any_size() {
        let plain = bytes(100_000);
        for info in [
            FrameInfo::new().block_mode(BlockMode::Linked).block_size(BlockSize::Max64KB),
            FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max4MB),
            FrameInfo::new().content_size(Some(400_000)).content_checksum(true).block_checksums(true),
        ] {
            let skippable = [&[0x5a][..], &SKIPPABLE, &3_u32.to_le_bytes(), b"abc"].concat();
            let packed = [pack(&plain, info), skippable, pack(b"x", FrameInfo::new())].concat();
            assert!(packed.len() < plain.len());
            for size in [1, 13, 1000, packed.len()] {
                let (mut inflater, mut out) = (Inflater::default(), Vec::new());
                for piece in packed.chunks(size) {
                    inflater.inflate(piece.iter().copied(), &mut out).unwrap();
                }
                assert_eq!(inflater.held(), 0);
                assert!(out == [&plain[..], b"x"].concat(), "{size}");
            }
        }
    }

    #[test]
    fn a_cut_frame_gives_what_is_whole_and_holds_the_rest() {
        let plain = bytes(20_000);
        let mut packed = pack(&plain, FrameInfo::new());
        packed.truncate(packed.len() - 9);
        let (mut inflater, mut out) = (Inflater::default(), Vec::new());
        inflater.inflate(packed, &mut out).unwrap();
        assert!(out == plain[..50_000] && inflater.held() > 0);
    }

    #[test]
    fn says_what_is_wrong() {
        let flags = |flags: u8, sizes: u8| [&MAGIC[..], &[flags, sizes, 0]].concat();
        for (packed, wrong) in [
            (flags(0x60, 0x30), "frame of flags 60 30"),
            (flags(0x61, 0x40), "frame of flags 61 40"),
            ([flags(0x60, 0x40), vec![1, 0, 1, 0]].concat(), "block of 65537 bytes"),
            ([flags(0x60, 0x40), vec![0; 4], b"more".to_vec()].concat(), "what follows a frame is none"),
        ] {
            let said = Inflater::default().inflate(packed, &mut Vec::new()).unwrap_err();
            assert_eq!(said, format!("bad lz4 data ({wrong})"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let packed = [&MAGIC[..], &[0x40, 0x40, 0], &bytes].concat();
            let mut out = Vec::new();
            let _ = Inflater::default().inflate(packed, &mut out);
            proptest::prop_assert!(out.len() <= bytes.len() * 255);
        }
    }
}
