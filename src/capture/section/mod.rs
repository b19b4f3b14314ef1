//! pcapng: sections and their blocks → frames and notes (draft-ietf-opsawg-pcapng).
//!
//! `pcap-file` finds the blocks. Their bodies are read here, because its own reading ends a capture at one odd
//! timestamp, length or name, where the blocks after it are as good as ever.

mod body;
mod clock;
mod note;

use byteorder_slice::{BigEndian, ByteOrder, LittleEndian};
use pcap_file::Endianness;
use pcap_file::pcapng::blocks::{
    CUSTOM_BLOCK_COPIABLE, CUSTOM_BLOCK_NON_COPIABLE, ENHANCED_PACKET_BLOCK, INTERFACE_DESCRIPTION_BLOCK,
    INTERFACE_STATISTIC_BLOCK, NAME_RESOLUTION_BLOCK, PACKET_BLOCK, SECTION_HEADER_BLOCK, SIMPLE_PACKET_BLOCK,
};
use pcap_file::pcapng::{PcapNgFormatError, RawBlock, RawBlockParseError};

use super::decoder::{Damage, LARGEST_RECORD, Step};
use super::{Batch, Interface, Note, Stored, pcapng};
use crate::entry::Timestamp;
use body::{Body, text};
use clock::{Clock, Unit};

/// Decryption Secrets Block, which `pcap-file` has no name for.
const DECRYPTION_SECRETS_BLOCK: u32 = 10;

/// Secrets type of a TLS key log ("TLSK").
const TLS_KEY_LOG: u32 = 0x544c_534b;

/// Private enterprise number of our custom blocks (RFC 5612: for documentation).
const ENTERPRISE: u32 = 32473;

/// The most interfaces that one capture may describe.
const MOST_INTERFACES: usize = 1 << 16;

/// The sections of a capture, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Sections {
    endianness: Endianness,
    /// The current section's interfaces.
    clocks: Vec<Clock>,
    /// How many interfaces the earlier sections described.
    base: usize,
    /// Time of the last frame; a simple packet has none of its own.
    last: Timestamp,
}

impl Sections {
    pub(super) fn starts_with(magic: [u8; 4]) -> bool {
        u32::from_be_bytes(magic) == SECTION_HEADER_BLOCK
    }

    pub(super) fn blocks(&mut self, batch: &mut Batch, at: &mut usize, count: &mut u64) -> Result<(), Damage> {
        while let Step::Used(used) = match self.endianness {
            Endianness::Big => self.block::<BigEndian>(batch, *at, count),
            Endianness::Little => self.block::<LittleEndian>(batch, *at, count),
        }? {
            *at += used;
        }
        Ok(())
    }

    fn block<B: ByteOrder>(&mut self, batch: &mut Batch, at: usize, count: &mut u64) -> Result<Step, Damage> {
        let Batch { bytes, frames, notes, interfaces } = batch;
        let (_, block) = match RawBlock::from_slice::<B>(bytes.get(at..).unwrap_or_default()) {
            Ok(parsed) => parsed,
            Err(RawBlockParseError::IncompleteBuffer(needed, _)) if needed > LARGEST_RECORD => {
                // It counts from behind the type and length.
                return Err(format!("block of {} bytes", needed + 8));
            }
            Err(RawBlockParseError::IncompleteBuffer(..)) => return Ok(Step::Incomplete),
            Err(RawBlockParseError::InvalidFormat(cause)) => return Err(malformed(&cause)),
        };
        let used = block.initial_len as usize;
        if used > LARGEST_RECORD {
            return Err(format!("block of {used} bytes"));
        }
        // Where its body starts in the batch.
        let start = at + 8;
        let body = Body::<B>::new(&block.body);
        let short = || format!("block of type {} is too short", block.type_);
        match block.type_ {
            SECTION_HEADER_BLOCK => self.section(&block.body)?,
            INTERFACE_DESCRIPTION_BLOCK => {
                if self.base + self.clocks.len() >= MOST_INTERFACES {
                    return Err(format!("more than {MOST_INTERFACES} interfaces"));
                }
                interfaces.push(self.interface(&body).ok_or_else(short)?);
            }
            ENHANCED_PACKET_BLOCK => {
                let head = (body.u32(0), body.u32(4), body.u32(8), body.u32(12), body.u32(16));
                let (Some(interface), Some(high), Some(low), Some(captured), Some(len)) = head else {
                    return Err(short());
                };
                let captured = (captured as usize).min(body.len() - 20);
                let packet = Packet { interface, ticks: Some((high, low)), offset: 20, captured, len };
                let mut stored = self.packet(&packet, start, count)?;
                for (code, value) in body.options(20 + captured.next_multiple_of(4)) {
                    match (code, value.u64(0)) {
                        (4, Some(lost)) if lost > 0 => notes.extend(self.lost(interface, lost)),
                        (5, Some(id)) => stored.id = Some(id),
                        _ => {}
                    }
                }
                frames.push(stored);
            }
            PACKET_BLOCK => {
                let head = (body.u16(0), body.u16(2), body.u32(4), body.u32(8), body.u32(12), body.u32(16));
                let (Some(interface), Some(lost), Some(high), Some(low), Some(captured), Some(len)) = head else {
                    return Err(short());
                };
                let interface = u32::from(interface);
                let captured = (captured as usize).min(body.len() - 20);
                let packet = Packet { interface, ticks: Some((high, low)), offset: 20, captured, len };
                frames.push(self.packet(&packet, start, count)?);
                // All ones: not known.
                if lost > 0 && lost < u16::MAX {
                    notes.extend(self.lost(interface, u64::from(lost)));
                }
            }
            SIMPLE_PACKET_BLOCK => {
                let len = body.u32(0).ok_or_else(short)?;
                let snaplen = self.clocks.first().map_or(0, |clock| clock.snaplen);
                let kept = if snaplen == 0 { len } else { len.min(snaplen) };
                let captured = (kept as usize).min(body.len() - 4);
                let packet = Packet { interface: 0, ticks: None, offset: 4, captured, len };
                frames.push(self.packet(&packet, start, count)?);
            }
            NAME_RESOLUTION_BLOCK => notes.extend(note::names(&body)),
            INTERFACE_STATISTIC_BLOCK => notes.extend(self.statistics(&body)),
            DECRYPTION_SECRETS_BLOCK if body.u32(0) == Some(TLS_KEY_LOG) => {
                let length = body.u32(4).unwrap_or(0) as usize;
                let lines = body.rest(8);
                notes.push(Note::Secrets(lines.get(..length).unwrap_or(lines).to_vec()));
            }
            CUSTOM_BLOCK_COPIABLE | CUSTOM_BLOCK_NON_COPIABLE if body.u32(0) == Some(ENTERPRISE) => {
                notes.extend(note::ours(body.rest(4)));
            }
            _ => {}
        }
        Ok(Step::Used(used))
    }

    /// Starts a section.
    fn section(&mut self, body: &[u8]) -> Result<(), Damage> {
        let (endianness, major) = match body {
            [0x1a, 0x2b, 0x3c, 0x4d, a, b, ..] => (Endianness::Big, u16::from_be_bytes([*a, *b])),
            [0x4d, 0x3c, 0x2b, 0x1a, a, b, ..] => (Endianness::Little, u16::from_le_bytes([*a, *b])),
            _ => return Err("its section header is too short".to_owned()),
        };
        if major != 1 {
            return Err(format!("pcapng version {major} is not known"));
        }
        self.endianness = endianness;
        self.base += self.clocks.len();
        self.clocks.clear();
        Ok(())
    }

    fn interface<B: ByteOrder>(&mut self, body: &Body<'_, B>) -> Option<Interface> {
        let (link, snaplen) = (body.u16(0)?, body.u32(4)?);
        // Microseconds unless an option says otherwise.
        let mut clock = Clock { unit: Unit::new(6), offset: 0, snaplen, dropped: 0 };
        let (mut name, mut origin) = (String::new(), None);
        for (code, value) in body.options(8) {
            match code {
                2 => name = text(value.bytes),
                3 => origin = text(value.bytes).strip_prefix(pcapng::PLAINTEXT).map(str::to_owned),
                9 => clock.unit = value.bytes.first().map_or(clock.unit, |resolution| Unit::new(*resolution)),
                14 => clock.offset = value.u64(0).map_or(0, u64::cast_signed),
                _ => {}
            }
        }
        self.clocks.push(clock);
        Some(Interface { origin, ..Interface::named(name, u32::from(link), snaplen) })
    }

    /// The frame of a packet block whose body starts at `start` in the batch.
    fn packet(&mut self, packet: &Packet, start: usize, count: &mut u64) -> Result<Stored, Damage> {
        let Some(clock) = self.clocks.get(packet.interface as usize) else {
            return Err(format!("the next packet is of interface {}, which is not described", packet.interface));
        };
        if let Some((high, low)) = packet.ticks {
            self.last = clock.time(u64::from(high) << 32 | u64::from(low));
        }
        *count += 1;
        let start = start + packet.offset;
        Ok(Stored {
            number: *count,
            id: None,
            time: self.last,
            interface: self.global(packet.interface),
            // Some writers leave the length 0 or count less than they captured.
            len: packet.len.max(packet.captured as u32),
            start,
            end: start + packet.captured,
        })
    }

    /// The index of a section's interface among those of all sections.
    fn global(&self, interface: u32) -> u32 {
        self.base as u32 + interface
    }

    /// Counts frames lost before a packet.
    fn lost(&mut self, interface: u32, lost: u64) -> Option<Note> {
        let global = self.global(interface);
        let clock = self.clocks.get_mut(interface as usize)?;
        clock.dropped = clock.dropped.saturating_add(lost);
        Some(Note::Statistics { interface: global, received: None, dropped: Some(clock.dropped) })
    }

    fn statistics<B: ByteOrder>(&mut self, body: &Body<'_, B>) -> Option<Note> {
        let interface = body.u32(0).filter(|interface| (*interface as usize) < self.clocks.len())?;
        let (mut received, mut dropped) = (None, None::<u64>);
        for (code, value) in body.options(12) {
            match (code, value.u64(0)) {
                (4, Some(packets)) => received = Some(packets),
                // Dropped by the interface, and by the operating system.
                (5 | 7, Some(packets)) => dropped = Some(dropped.unwrap_or(0).saturating_add(packets)),
                _ => {}
            }
        }
        // Packets' drop counts go on from here.
        if let (Some(clock), Some(dropped)) = (self.clocks.get_mut(interface as usize), dropped) {
            clock.dropped = dropped;
        }
        Some(Note::Statistics { interface: self.global(interface), received, dropped })
    }
}

/// The fixed fields of a packet block.
struct Packet {
    interface: u32,
    /// Upper and lower half of its timestamp.
    ticks: Option<(u32, u32)>,
    /// Where the frame starts in the body.
    offset: usize,
    captured: usize,
    len: u32,
}

fn malformed(cause: &PcapNgFormatError) -> Damage {
    match cause {
        PcapNgFormatError::BlockNotAligned(length) | PcapNgFormatError::BlockTooShort(_, length) => {
            format!("block of {length} bytes")
        }
        PcapNgFormatError::BlockLengthMismatch(start, end) => {
            format!("block of {start} bytes at its start and {end} at its end")
        }
        PcapNgFormatError::InvalidMagicNumber(magic) => format!("byte-order magic {magic:#010x}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::capture::decoder::Decoder;
    use crate::capture::{Error, Frame};

    /// Writes blocks of one byte order.
    struct Writer {
        big: bool,
        file: Vec<u8>,
    }

    impl Writer {
        fn u16(&self, number: u16) -> [u8; 2] {
            if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
        }

        fn u32(&self, number: u32) -> [u8; 4] {
            if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
        }

        fn u64(&self, number: u64) -> [u8; 8] {
            if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
        }

        fn words(&self, words: &[u32]) -> Vec<u8> {
            words.iter().flat_map(|word| self.u32(*word)).collect()
        }

        fn option(&self, code: u16, value: &[u8]) -> Vec<u8> {
            let mut option = [self.u16(code), self.u16(value.len() as u16)].concat();
            option.extend_from_slice(value);
            option.resize(option.len().next_multiple_of(4), 0);
            option
        }

        fn block(&mut self, kind: u32, mut body: Vec<u8>) {
            body.resize(body.len().next_multiple_of(4), 0);
            let length = body.len() as u32 + 12;
            self.file.extend(self.words(&[kind, length]));
            self.file.extend(body);
            self.file.extend(self.u32(length));
        }

        fn section(&mut self, big: bool) {
            self.big = big;
            let mut body = self.words(&[0x1a2b_3c4d]);
            body.extend([self.u16(1), self.u16(0)].concat());
            body.extend([0xff; 8]);
            self.block(SECTION_HEADER_BLOCK, body);
        }

        fn interface(&mut self, link: u16, snaplen: u32, options: &[(u16, &[u8])]) {
            let mut body = [self.u16(link), self.u16(0)].concat();
            body.extend(self.u32(snaplen));
            body.extend(options.iter().flat_map(|(code, value)| self.option(*code, value)));
            self.block(INTERFACE_DESCRIPTION_BLOCK, body);
        }

        fn packet(&mut self, interface: u32, ticks: u64, data: &[u8], options: &[(u16, u64)]) {
            let length = data.len() as u32;
            let mut body = self.words(&[interface, (ticks >> 32) as u32, ticks as u32, length, length]);
            body.extend_from_slice(data);
            body.resize(body.len().next_multiple_of(4), 0);
            body.extend(options.iter().flat_map(|(code, value)| self.option(*code, &self.u64(*value))));
            self.block(ENHANCED_PACKET_BLOCK, body);
        }

        fn decode(self) -> (Batch, Result<usize, Error>) {
            let mut batch = Batch { bytes: self.file, ..Batch::default() };
            let result = Decoder::new("x.pcapng").decode(&mut batch, 0);
            (batch, result)
        }
    }

    fn writer(big: bool) -> Writer {
        let mut writer = Writer { big, file: Vec::new() };
        writer.section(big);
        writer
    }

    /// A section with one interface.
    pub(in crate::capture) fn section(big: bool, link: u16) -> Vec<u8> {
        let mut writer = writer(big);
        writer.interface(link, 0, &[]);
        writer.file
    }

    #[test]
    fn interfaces_of_several_sections_and_byte_orders_do_not_collide() {
        let mut writer = writer(false);
        writer.interface(1, 96, &[(2, b"shop/cart:eth0"), (9, &[9])]);
        writer.packet(0, 1_700_000_000_000_000_001, b"abc", &[(5, 41)]);
        writer.section(true);
        writer.interface(101, 0, &[(2, b"lo")]);
        writer.interface(113, 0, &[(9, &[0x8a]), (14, &1_000_i64.to_be_bytes())]);
        writer.packet(0, 5_000_001, b"de", &[]);
        writer.packet(1, 512, b"f", &[]);
        let (batch, result) = writer.decode();
        assert_eq!(result.ok(), Some(batch.bytes.len()));
        let frames: Vec<_> = batch
            .frames()
            .map(|Frame { number, time, interface, data, .. }| (number, time.0, interface, data))
            .collect();
        assert_eq!(
            frames,
            [
                (1, 1_700_000_000_000_000_001, 0, &b"abc"[..]),
                (2, 5_000_001_000, 1, &b"de"[..]),
                (3, 1_000_500_000_000, 2, &b"f"[..])
            ]
        );
        assert_eq!(batch.frames.iter().map(|frame| frame.id).collect::<Vec<_>>(), [Some(41), None, None]);
        let names: Vec<_> =
            batch.interfaces.iter().map(|interface| (interface.name.as_str(), interface.link)).collect();
        assert_eq!(names, [("shop/cart:eth0", 1), ("lo", 101), ("", 113)]);
        assert_eq!(batch.interfaces.first().and_then(|interface| interface.pod.as_deref()), Some("shop/cart"));
    }

    #[test]
    fn packets_of_the_older_kinds_are_frames_too() {
        let mut writer = writer(true);
        writer.interface(1, 4, &[]);
        let mut body = [writer.u16(0), writer.u16(3)].concat();
        body.extend(writer.words(&[0, 9, 3, 60]));
        body.extend(b"abc");
        writer.block(PACKET_BLOCK, body);
        let mut body = writer.words(&[1500]);
        body.extend(b"defg");
        writer.block(SIMPLE_PACKET_BLOCK, body);
        let (batch, _) = writer.decode();
        let frames: Vec<_> = batch.frames().map(|frame| (frame.time.0, frame.len, frame.data)).collect();
        // A simple packet has no time and takes the last one.
        assert_eq!(frames, [(9_000, 60, &b"abc"[..]), (9_000, 1500, &b"defg"[..])]);
        assert_eq!(batch.notes, [Note::Statistics { interface: 0, received: None, dropped: Some(3) }]);
    }

    #[test]
    fn blocks_that_are_no_packets_become_notes() {
        let mut writer = writer(false);
        writer.interface(1, 0, &[]);
        let mut records = writer.option(1, b"\x0a\x00\x00\x01cart\0cart.shop\0");
        records.extend(writer.option(2, &[&[0xfd; 16][..], b"db\0"].concat()));
        records.extend(writer.option(0, b""));
        writer.block(NAME_RESOLUTION_BLOCK, records);
        let mut body = writer.words(&[0, 0, 0]);
        for (code, value) in [(4, 100), (5, 7), (7, 2)] {
            body.extend(writer.option(code, &writer.u64(value)));
        }
        writer.block(INTERFACE_STATISTIC_BLOCK, body);
        let mut body = writer.words(&[TLS_KEY_LOG, 5]);
        body.extend(b"KEYS\n");
        writer.block(DECRYPTION_SECRETS_BLOCK, body);
        for (kind, json) in
            [(1, r#"{"v":1}"#), (2, r#"{"from":9,"count":4}"#), (3, r#"{"next":13,"why":"é"}"#), (8, "")]
        {
            let mut body = writer.words(&[ENTERPRISE, kind]);
            body.extend(json.as_bytes());
            writer.block(CUSTOM_BLOCK_COPIABLE, body);
        }
        let foreign = writer.words(&[1, 1]);
        writer.block(CUSTOM_BLOCK_COPIABLE, foreign);
        writer.block(0x0f00_0000, vec![1; 40]);
        writer.packet(0, 0, b"abc", &[(4, 2)]);
        writer.packet(0, 0, b"abc", &[(4, 3)]);
        let (batch, result) = writer.decode();
        assert_eq!(result.ok(), Some(batch.bytes.len()));
        let lost = |dropped| Note::Statistics { interface: 0, received: None, dropped: Some(dropped) };
        assert_eq!(
            batch.notes,
            [
                Note::Name([10, 0, 0, 1].into(), "cart".into()),
                Note::Name([10, 0, 0, 1].into(), "cart.shop".into()),
                Note::Name([0xfd; 16].into(), "db".into()),
                Note::Statistics { interface: 0, received: Some(100), dropped: Some(9) },
                Note::Secrets(b"KEYS\n".to_vec()),
                Note::Hello(r#"{"v":1}"#.into()),
                Note::Flushed { from: 9, count: 4 },
                Note::End(r#"{"next":13,"why":"é"}"#.into()),
                lost(11),
                lost(14),
            ]
        );
    }

    #[test]
    fn damage_is_named_and_keeps_what_was_before_it() {
        type Harm = fn(&mut Writer);
        let cases: [(Harm, &str); 4] = [
            (|writer| writer.file.extend(writer.words(&[6, 0xffff_fff0])), "block of 4294967280 bytes"),
            (|writer| writer.file.extend(writer.words(&[6, 8, 8])), "block of 8 bytes"),
            (
                |writer| writer.file.extend(writer.words(&[6, 12, 16])),
                "block of 12 bytes at its start and 16 at its end",
            ),
            (|writer| writer.packet(3, 0, b"", &[]), "the next packet is of interface 3, which is not described"),
        ];
        for (damage, why) in cases {
            let mut writer = writer(false);
            writer.interface(1, 0, &[]);
            writer.packet(0, 0, b"abc", &[]);
            damage(&mut writer);
            writer.file.extend([0; 12]);
            let (batch, result) = writer.decode();
            assert_eq!(batch.frames.len(), 1);
            assert_eq!(result.unwrap_err().to_string(), format!("x.pcapng is damaged after packet 1: {why}"));
        }
    }

    #[test]
    fn a_packet_longer_than_its_block_is_cut_to_it() {
        let mut writer = writer(false);
        writer.interface(1, 0, &[]);
        let mut body = writer.words(&[0, 0, 0, 4000, 90]);
        body.extend(b"abcd");
        writer.block(ENHANCED_PACKET_BLOCK, body);
        writer.packet(0, 0, b"next", &[]);
        let (batch, _) = writer.decode();
        let frames: Vec<_> = batch.frames().map(|frame| (frame.len, frame.data)).collect();
        assert_eq!(frames, [(90, &b"abcd"[..]), (4, &b"next"[..])]);
    }
}
