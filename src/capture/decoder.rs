//! Bytes of a pcap or pcapng stream → frames, incrementally: the same for a file and for an agent's stream. Either may be
//! compressed with LZ4.

use byteorder_slice::{BigEndian, ByteOrder, LittleEndian};
use pcap_file::Endianness;
use pcap_file::pcap::{PcapHeader, PcapParseError, PcapTsResolution, RawPcapPacket};

use crate::entry::Timestamp;

use super::lz4::{self, Inflater};
use super::section::Sections;
use super::{Batch, Error, Interface, Stored};

/// The largest record that is believed: a packet with its headers, or a pcapng block. More is damage, not data.
pub const LARGEST_RECORD: usize = 16 << 20;

/// Length of the file header of a pcap.
const PCAP_HEADER: usize = 24;

/// Magic of Kuznetzov's pcap, whose packet headers are longer by [`KUZNETZOV_EXTRA`].
const KUZNETZOV: u32 = 0xa1b2_cd34;

/// Interface index, protocol, packet type and padding, after the usual packet header.
const KUZNETZOV_EXTRA: usize = 8;

/// Decodes one capture, however its bytes arrive.
#[derive(Debug)]
pub struct Decoder {
    name: String,
    interfaces: Vec<Interface>,
    format: Option<Format>,
    /// Frames decoded so far.
    count: u64,
    /// If the stream is compressed.
    inflater: Option<Inflater>,
    /// Of a compressed stream, how many bytes were decompressed and not used: they are given again.
    unused: usize,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    Pcapng(Sections),
}

/// What the next record came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is this many bytes long.
    Used(usize),
    /// It has not arrived whole.
    Incomplete,
}

/// What is wrong with a record: a clause that follows "is damaged after packet 7: ".
pub(super) type Damage = String;

impl Decoder {
    /// For a capture that errors shall call `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), interfaces: Vec::new(), format: None, count: 0, inflater: None, unused: 0 }
    }

    /// The interfaces seen so far; frames index into it. It only grows, also across sections.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// How many frames were decoded so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// True once the first bytes turned out to be a capture's.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.format.is_some()
    }

    /// Bytes that were given and wait for more to be decompressed.
    #[must_use]
    pub fn held(&self) -> usize {
        self.inflater.as_ref().map_or(0, Inflater::held)
    }

    /// Decodes the whole records at the start of `batch.bytes[from..]` into frames, notes and interfaces of the batch.
    /// Returns how many bytes it used; the caller gives the rest again with more behind it. Compressed bytes are replaced by
    /// what they come to.
    ///
    /// # Errors
    /// [`Error::NotACapture`] if the stream is of no known format; [`Error::Damaged`] if its records cannot be
    /// followed any further. The batch then holds the frames before the damage.
    pub fn decode(&mut self, batch: &mut Batch, from: usize) -> Result<usize, Error> {
        let magic = batch.bytes.get(from..).and_then(<[u8]>::first_chunk);
        if self.format.is_none() && self.inflater.is_none() && magic == Some(&lz4::MAGIC) {
            self.inflater = Some(Inflater::default());
        }
        let Some(inflater) = &mut self.inflater else { return self.records(batch, from) };
        let packed = batch.bytes.split_off(from + self.unused);
        let inflated = inflater.inflate(packed, &mut batch.bytes);
        let used = self.records(batch, from)?;
        self.unused = batch.bytes.len() - from - used;
        inflated.map_err(|damage| self.damaged(&damage))?;
        Ok(used)
    }

    /// The same for what is not compressed.
    fn records(&mut self, batch: &mut Batch, from: usize) -> Result<usize, Error> {
        let mut at = from;
        if self.format.is_none() {
            let Some((format, used)) = self.detect(batch, from)? else { return Ok(0) };
            self.format = Some(format);
            at += used;
        }
        let known = batch.interfaces.len();
        let result = match &mut self.format {
            Some(Format::Pcap(pcap)) => pcap.packets(batch, &mut at, &mut self.count),
            Some(Format::Pcapng(sections)) => sections.blocks(batch, &mut at, &mut self.count),
            None => Ok(()),
        };
        self.interfaces.extend(batch.interfaces.iter().skip(known).cloned());
        match result {
            Ok(()) => Ok(at - from),
            Err(damage) => Err(self.damaged(&damage)),
        }
    }

    fn damaged(&self, damage: &Damage) -> Error {
        let after = match self.count {
            0 => "before its first packet".to_owned(),
            count => format!("after packet {}", grouped(count)),
        };
        Error::Damaged { name: self.name.clone(), why: format!("{after}: {damage}") }
    }

    /// Tells the format by the first bytes; none while there are too few.
    fn detect(&mut self, batch: &mut Batch, from: usize) -> Result<Option<(Format, usize)>, Error> {
        let bytes = batch.bytes.get(from..).unwrap_or_default();
        let Some(&magic) = bytes.first_chunk::<4>() else { return Ok(None) };
        if Sections::starts_with(magic) {
            return Ok(Some((Format::Pcapng(Sections::default()), 0)));
        }
        if !Pcap::is_magic(magic) {
            let why = format!("it starts with {}, not with a pcap or pcapng header", beginning(bytes));
            return Err(Error::NotACapture { name: self.name.clone(), why });
        }
        let Some(header) = bytes.first_chunk::<PCAP_HEADER>() else { return Ok(None) };
        let (pcap, interface) = Pcap::new(*header).map_err(|cause| Error::NotACapture {
            name: self.name.clone(),
            why: format!("bad pcap header: {cause}"),
        })?;
        batch.interfaces.push(interface.clone());
        self.interfaces.push(interface);
        Ok(Some((Format::Pcap(pcap), PCAP_HEADER)))
    }
}

/// A classic pcap after its file header.
#[derive(Debug)]
struct Pcap {
    endianness: Endianness,
    /// Nanoseconds in a unit of the timestamps' fraction.
    unit: i64,
    /// Bytes between a packet's header and its data.
    extra: usize,
}

impl Pcap {
    fn is_magic(magic: [u8; 4]) -> bool {
        [u32::from_be_bytes(magic), u32::from_le_bytes(magic)]
            .iter()
            .any(|magic| matches!(*magic, 0xa1b2_c3d4 | 0xa1b2_3c4d | KUZNETZOV))
    }

    fn new(mut header: [u8; PCAP_HEADER]) -> Result<(Self, Interface), PcapParseError> {
        let [a, b, c, d, ..] = header;
        let mut extra = 0;
        // Its file header is the usual one but for the magic.
        for (theirs, usual) in [
            (KUZNETZOV.to_be_bytes(), 0xa1b2_c3d4_u32.to_be_bytes()),
            (KUZNETZOV.to_le_bytes(), 0xa1b2_c3d4_u32.to_le_bytes()),
        ] {
            if [a, b, c, d] == theirs {
                header[..4].copy_from_slice(&usual);
                extra = KUZNETZOV_EXTRA;
            }
        }
        let (_, header) = PcapHeader::from_slice(&header)?;
        let unit = match header.ts_resolution {
            PcapTsResolution::MicroSecond => 1000,
            PcapTsResolution::NanoSecond => 1,
        };
        // The upper half of the field tells the length of the frame check sequence.
        let link = u32::from(header.datalink) & 0xffff;
        Ok((Self { endianness: header.endianness, unit, extra }, Interface::named(String::new(), link, header.snaplen)))
    }

    fn packets(&self, batch: &mut Batch, at: &mut usize, count: &mut u64) -> Result<(), Damage> {
        while let Step::Used(used) = match self.endianness {
            Endianness::Big => self.packet::<BigEndian>(batch, *at, count),
            Endianness::Little => self.packet::<LittleEndian>(batch, *at, count),
        }? {
            *at += used;
        }
        Ok(())
    }

    #[inline]
    fn packet<B: ByteOrder>(&self, batch: &mut Batch, at: usize, count: &mut u64) -> Result<Step, Damage> {
        let bytes = batch.bytes.get(at..).unwrap_or_default();
        let (rest, packet) = match RawPcapPacket::from_slice::<B>(bytes) {
            Ok(parsed) => parsed,
            Err(PcapParseError::IncompleteBuffer(needed, _)) if needed > LARGEST_RECORD => {
                return Err(format!("packet of {needed} bytes"));
            }
            Err(_) => return Ok(Step::Incomplete),
        };
        let length = packet.incl_len as usize;
        if length > LARGEST_RECORD {
            return Err(format!("packet of {length} bytes"));
        }
        if rest.len() < self.extra {
            return Ok(Step::Incomplete);
        }
        let used = bytes.len() - rest.len() + self.extra;
        *count += 1;
        batch.frames.push(Stored {
            number: *count,
            id: None,
            time: Timestamp(i64::from(packet.ts_sec) * 1_000_000_000 + i64::from(packet.ts_frac) * self.unit),
            interface: 0,
            len: packet.orig_len.max(packet.incl_len),
            start: at + used - length,
            end: at + used,
        });
        Ok(Step::Used(used))
    }
}

/// What a file that is no capture starts with, in words.
fn beginning(bytes: &[u8]) -> String {
    /// First bytes that people are likely to mistake for a capture.
    const KNOWN: &[(&[u8], &str)] = &[
        (b"\x7fELF", "an ELF header (a program or library)"),
        (b"PK\x03\x04", "a zip header"),
        (b"\x1f\x8b", "a gzip header (compressed twice?)"),
        (b"\x28\xb5\x2f\xfd", "a zstd header (compressed twice?)"),
        (b"\xfd7zXZ\0", "an xz header (decompress it first)"),
        (b"BZh", "a bzip2 header (decompress it first)"),
        (b"\x02\x21\x4c\x18", "an old lz4 header (decompress it first)"),
        (b"%PDF", "a PDF header"),
        (b"\x89PNG", "a PNG header"),
        (b"GMBU", "a Network Monitor header"),
        (b"snoop\0", "a snoop header"),
    ];
    if let Some((_, name)) = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*name).to_owned();
    }
    let head = bytes.get(..bytes.len().min(16)).unwrap_or_default();
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(text) if !text.trim().is_empty() && !text.chars().any(char::is_control) => format!("{text:?}"),
        _ => {
            let hex: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("the bytes {}", hex.join(" "))
        }
    }
}

/// A number with commas between its thousands.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
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

    /// A pcap of Ethernet frames: seconds, fraction, length on the wire, bytes.
    fn pcap(magic: u32, big: bool, packets: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let word = |word: u32| if big { word.to_be_bytes() } else { word.to_le_bytes() };
        let half = |half: u16| if big { half.to_be_bytes() } else { half.to_le_bytes() };
        let mut file = Vec::new();
        file.extend(word(magic));
        file.extend(half(2));
        file.extend(half(4));
        // A frame check sequence of 4 bytes is announced in the upper bits of the link type.
        for field in [0, 0, 65_535, 0x2400_0001] {
            file.extend(word(field));
        }
        for (seconds, fraction, len, bytes) in packets {
            for field in [*seconds, *fraction, bytes.len() as u32, *len] {
                file.extend(word(field));
            }
            if magic == KUZNETZOV {
                file.extend([0; KUZNETZOV_EXTRA]);
            }
            file.extend_from_slice(bytes);
        }
        file
    }

    fn decode(file: &[u8]) -> (Batch, Result<usize, Error>, Decoder) {
        let mut batch = Batch { bytes: file.to_vec(), ..Batch::default() };
        let mut decoder = Decoder::new("x.pcap");
        let result = decoder.decode(&mut batch, 0);
        (batch, result, decoder)
    }

    #[test]
    fn every_kind_of_pcap_gives_the_same_frames() {
        for (magic, fraction) in [(0xa1b2_c3d4, 250_000), (0xa1b2_3c4d, 250_000_000), (KUZNETZOV, 250_000)] {
            for big in [false, true] {
                let file = pcap(magic, big, &[(7, fraction, 3, b"abc"), (8, 0, 99, b"de")]);
                let (batch, result, decoder) = decode(&file);
                assert_eq!(result.ok(), Some(file.len()), "{magic:x} {big}");
                let frames: Vec<_> =
                    batch.frames().map(|frame| (frame.number, frame.time.0, frame.len, frame.data)).collect();
                assert_eq!(frames, [(1, 7_250_000_000, 3, &b"abc"[..]), (2, 8_000_000_000, 99, &b"de"[..])]);
                assert_eq!(decoder.interfaces(), [Interface::named(String::new(), 1, 65_535)]);
            }
        }
    }

    #[test]
    fn bytes_that_arrive_one_by_one_give_the_same_frames() {
        let file = pcap(0xa1b2_c3d4, false, &[(7, 1, 3, b"abc"), (8, 2, 2, b"de"), (9, 3, 0, b"")]);
        let mut decoder = Decoder::new("x.pcap");
        let mut batch = Batch::default();
        let mut from = 0;
        for byte in &file {
            batch.bytes.push(*byte);
            from += decoder.decode(&mut batch, from).unwrap();
        }
        assert_eq!(from, file.len());
        let frames: Vec<_> = batch.frames().map(|frame| frame.data.to_vec()).collect();
        assert_eq!(frames, [b"abc".to_vec(), b"de".to_vec(), Vec::new()]);
        assert_eq!(batch.interfaces.len(), 1);
    }

    #[test]
    fn a_compressed_stream_gives_the_same_frames_however_it_arrives() {
        let data: Vec<u8> = (0..=255).collect();
        let packets: Vec<_> = (0..2000).map(|second| (second, 0, 256, data.as_slice())).collect();
        let file = pcap(0xa1b2_c3d4, false, &packets);
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        std::io::Write::write_all(&mut encoder, &file).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(packed.len() < file.len() / 5);
        for size in [1, 100, 4096, packed.len()] {
            let mut decoder = Decoder::new("x.pcap");
            let mut batch = Batch::default();
            let (mut used, mut frames) = (0, Vec::new());
            for piece in packed.chunks(size) {
                batch.bytes.extend_from_slice(piece);
                used += decoder.decode(&mut batch, used).unwrap();
                // What is full is handed on, and the rest kept for the next.
                if batch.frames.len() > 10 {
                    frames.extend(batch.frames().map(|frame| (frame.time.0, frame.data.to_vec())));
                    let rest = batch.bytes.split_off(used);
                    batch = Batch { bytes: rest, ..Batch::default() };
                    used = 0;
                }
            }
            frames.extend(batch.frames().map(|frame| (frame.time.0, frame.data.to_vec())));
            assert_eq!((frames.len(), decoder.held()), (2000, 0), "{size}");
            assert!(frames.iter().zip(0..).all(|(frame, second)| *frame == (second * 1_000_000_000, data.clone())));
        }
    }

    #[test]
    fn a_packet_of_absurd_length_keeps_the_frames_before_it() {
        let mut file = pcap(0xa1b2_c3d4, false, &[(7, 1, 3, b"abc")]);
        file.extend([0; 8]);
        file.extend(u32::MAX.to_le_bytes());
        file.extend([0; 4]);
        let (batch, result, _) = decode(&file);
        assert_eq!(batch.frames.len(), 1);
        assert_eq!(result.unwrap_err().to_string(), "x.pcap is damaged after packet 1: packet of 4294967295 bytes");
    }

    #[test]
    fn what_is_no_capture_is_told_by_its_beginning() {
        for (bytes, why) in [
            (&b"hello\nworld"[..], r#"it starts with "hello", not"#),
            (b"\x7fELF\x02\x01\x01", "it starts with an ELF header (a program or library), not"),
            (b"PK\x03\x04\x14", "it starts with a zip header, not"),
            (b"\x00\x01\xfe\xff\x1b[2J", "it starts with the bytes 00 01 fe ff 1b 5b 32 4a, not"),
            (b"\x1b[2Jsweep", "it starts with the bytes 1b 5b 32 4a 73 77 65 65, not"),
        ] {
            let error = decode(bytes).1.unwrap_err().to_string();
            assert_eq!(error, format!("x.pcap is no capture: {why} with a pcap or pcapng header"));
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([7, 999, 1000, 12_345, 1_234_567].map(grouped), ["7", "999", "1,000", "12,345", "1,234,567"]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_no_frame_reaches_beyond_them(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
            format in 0..3,
        ) {
            let head = match format {
                0 => pcap(0xa1b2_c3d4, false, &[]),
                1 => crate::capture::section::tests::section(false, 1),
                _ => Vec::new(),
            };
            bytes.splice(0..0, head);
            let (batch, result, _) = decode(&bytes);
            proptest::prop_assert!(result.map_or(0, |used| used) <= bytes.len());
            for frame in &batch.frames {
                proptest::prop_assert!(frame.start <= frame.end && frame.end <= bytes.len());
            }
        }
    }
}
