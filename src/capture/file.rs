//! Capture files: opened, decompressed, read in large pieces.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::decoder::{Decoder, grouped};
use super::{Batch, Error, Source, secrets};

/// How much is read from a file at once.
const CHUNK: usize = 1 << 18;

/// How much is asked of a pipe at once: what Linux keeps in one.
const PIPE_CHUNK: usize = 64 << 10;

/// How much is looked at to tell compression; no capture is shorter than a pcap's header.
const HEAD: usize = 24;

/// A capture file or standard input; pcap or pcapng, as it is or compressed by gzip, zstd or lz4.
pub struct File {
    name: String,
    input: Box<dyn Read + Send>,
    /// The compression's name, if there is one.
    compression: Option<&'static str>,
    decoder: Decoder,
    /// The start of a record whose rest was not yet read.
    tail: Vec<u8>,
    chunk: usize,
    read: Arc<AtomicU64>,
    total: Option<u64>,
    ended: bool,
    complaint: Option<String>,
    /// To be opened once more, if it is a regular file.
    path: Option<PathBuf>,
}

impl File {
    /// Opens `path`; `-` is standard input.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened, or is a directory. Whether it is a capture shows when the first batch is read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.as_os_str() == "-" {
            return Self::from_reader("standard input".to_owned(), io::stdin(), None);
        }
        let name = path.display().to_string();
        let opened = std::fs::File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|cause| Error::Io { name: name.clone(), cause })?;
        if metadata.is_dir() {
            return Err(Error::Io { name, cause: io::ErrorKind::IsADirectory.into() });
        }
        let regular = metadata.is_file();
        let this = Self::from_reader(name, file, regular.then_some(metadata.len()))?;
        Ok(Self { path: regular.then(|| path.to_owned()), ..this })
    }

    /// Reads a capture that errors shall call `name` from `input`, which is `total` bytes long if that is known.
    ///
    /// # Errors
    /// [`Error::Io`] if its first bytes cannot be read.
    pub fn from_reader(name: String, input: impl Read + Send + 'static, total: Option<u64>) -> Result<Self, Error> {
        let read = Arc::new(AtomicU64::new(0));
        let mut input = Counted { input, read: Arc::clone(&read) };
        let mut head = Vec::with_capacity(HEAD);
        if let Err(cause) = input.by_ref().take(HEAD as u64).read_to_end(&mut head) {
            return Err(Error::Io { name, cause });
        }
        let magic = head.first_chunk::<4>().copied().unwrap_or_default();
        let input = Cursor::new(head).chain(input);
        let (input, compression): (Box<dyn Read + Send>, _) = match magic {
            [0x1f, 0x8b, _, _] => {
                (Box::new(MultiGzDecoder::new(BufReader::with_capacity(PIPE_CHUNK, input))), Some("gzip"))
            }
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                (Box::new(Zstd::new(BufReader::with_capacity(PIPE_CHUNK, input))), Some("zstd"))
            }
            _ => (Box::new(input), None),
        };
        Ok(Self {
            decoder: Decoder::new(name.clone()),
            name,
            input,
            compression,
            tail: Vec::new(),
            chunk: if total.is_some() { CHUNK } else { PIPE_CHUNK },
            read,
            total,
            ended: false,
            complaint: None,
            path: None,
        })
    }

    /// Bytes of the file that were read so far, and its length if that is known. Both as compressed.
    #[must_use]
    pub fn progress(&self) -> (u64, Option<u64>) {
        (self.read.load(Ordering::Relaxed), self.total)
    }

    /// Reads behind what `bytes` holds. Returns how many bytes were read; 0 at the end.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let filled = bytes.len();
        bytes.resize(filled + self.chunk, 0);
        let result = loop {
            match self.input.read(&mut bytes[filled..]) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        bytes.truncate(filled + result.as_ref().map_or(0, |read| *read));
        result
    }

    /// Ends the capture early. What is wrong is an error only if nothing of the capture was understood before it.
    fn stop(&mut self, problem: Error) -> Result<(), Error> {
        self.ended = true;
        if self.decoder.interfaces().is_empty() {
            return Err(problem);
        }
        self.complaint = Some(problem.to_string());
        Ok(())
    }

    /// The input is at its end, `rest` bytes of it were not decoded.
    fn finish(&mut self, rest: usize) -> Result<(), Error> {
        self.ended = true;
        if !self.decoder.is_started() {
            let why = match rest {
                0 => "it is empty".to_owned(),
                _ => format!("it ends after {rest} bytes, within its header"),
            };
            return Err(Error::NotACapture { name: self.name.clone(), why });
        }
        if rest > 0 {
            self.complaint = Some(self.cut());
        }
        Ok(())
    }

    fn cut(&self) -> String {
        format!("{} is cut in the middle of packet {}", self.name, grouped(self.decoder.count() + 1))
    }

    /// Reading failed: the file's own trouble, or its compression is damaged.
    fn failed(&mut self, cause: io::Error) -> Result<(), Error> {
        let Some(compression) = self.compression.filter(|_| cause.raw_os_error().is_none()) else {
            self.ended = true;
            return Err(Error::Io { name: self.name.clone(), cause });
        };
        if !self.decoder.is_started() {
            let why = format!("its {compression} data is damaged: {cause}");
            return self.stop(Error::NotACapture { name: self.name.clone(), why });
        }
        if cause.kind() == io::ErrorKind::UnexpectedEof {
            self.ended = true;
            self.complaint = Some(self.cut());
            return Ok(());
        }
        let why = format!("after packet {}: bad {compression} data ({cause})", grouped(self.decoder.count()));
        self.stop(Error::Damaged { name: self.name.clone(), why })
    }
}

impl Source for File {
    fn next_batch(&mut self, batch: &mut Batch) -> Result<bool, Error> {
        batch.clear();
        batch.bytes.append(&mut self.tail);
        while !self.ended {
            match self.fill(&mut batch.bytes) {
                Ok(0) => self.finish(batch.bytes.len() + self.decoder.held())?,
                Ok(_) => {}
                Err(cause) => self.failed(cause)?,
            }
            if self.ended {
                break;
            }
            let used = match self.decoder.decode(batch, 0) {
                Ok(used) => used,
                Err(problem) => {
                    self.stop(problem)?;
                    break;
                }
            };
            if batch.frames.is_empty() {
                // Nothing points into the bytes, and a capture may hold any number of blocks without frames.
                batch.bytes.drain(..used);
                if batch.notes.is_empty() && batch.interfaces.is_empty() {
                    continue;
                }
            }
            let used = if batch.frames.is_empty() { 0 } else { used };
            self.tail.extend_from_slice(batch.bytes.get(used..).unwrap_or_default());
            return Ok(true);
        }
        Ok(!(batch.frames.is_empty() && batch.notes.is_empty() && batch.interfaces.is_empty()))
    }

    fn secrets(&mut self) -> Vec<u8> {
        // Of a compressed one, they are found when it is read.
        let path = self.path.as_ref().filter(|_| self.compression.is_none());
        path.and_then(|path| std::fs::File::open(path).ok()).map(secrets::key_logs).unwrap_or_default()
    }

    fn complaint(&self) -> Option<String> {
        self.complaint.clone()
    }
}

/// Counts the bytes read through it.
struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Zstandard frames one after another (RFC 8878), as `pzstd` and `cat` make them; `ruzstd` reads one.
struct Zstd<R: BufRead> {
    frame: Frame<R>,
}

enum Frame<R: BufRead> {
    /// Between two frames.
    Before(R),
    Within(Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
    /// After the last, or broken.
    Done,
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> Self {
        Self { frame: Frame::Before(input) }
    }

    /// Passes over skippable frames (RFC 8878, section 3.1.2). False at the end of the input.
    fn skip(input: &mut R) -> io::Result<bool> {
        loop {
            let ahead = input.fill_buf()?;
            if ahead.is_empty() {
                return Ok(false);
            }
            // Their magic is 0x184d2a5?, little-endian; no other frame's starts so.
            if ahead[0] & 0xf0 != 0x50 {
                return Ok(true);
            }
            let mut head = [0; 8];
            input.read_exact(&mut head)?;
            let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            if io::copy(&mut input.by_ref().take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(&mut self.frame, Frame::Done) {
                Frame::Before(mut input) => {
                    if !Self::skip(&mut input)? {
                        return Ok(0);
                    }
                    let frame = StreamingDecoder::new(input).map_err(io::Error::other)?;
                    self.frame = Frame::Within(Box::new(frame));
                }
                Frame::Within(mut frame) => {
                    let read = frame.read(buffer)?;
                    if read > 0 {
                        self.frame = Frame::Within(frame);
                        return Ok(read);
                    }
                    self.frame = Frame::Before(frame.into_inner());
                }
                Frame::Done => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A pcap of `count` frames of 100 bytes each.
    fn pcap(count: u32) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(u32::to_le_bytes(word));
        }
        for second in 0..count {
            for word in [second, 0, 100, 100] {
                file.extend(u32::to_le_bytes(word));
            }
            file.extend([second as u8; 100]);
        }
        file
    }

    /// Gives its bytes in pieces of changing size, as a pipe does.
    struct Trickle(Cursor<Vec<u8>>, usize);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1 % 131 + 1;
            let size = self.1.min(buffer.len());
            self.0.read(&mut buffer[..size])
        }
    }

    fn open(bytes: Vec<u8>) -> File {
        File::from_reader("x.pcap".to_owned(), Cursor::new(bytes), None).unwrap()
    }

    /// The frames' first bytes (none for an empty frame), and how it ended.
    fn read(mut file: File) -> (Vec<u8>, Result<Option<String>, String>) {
        let mut batch = Batch::default();
        let mut firsts = Vec::new();
        loop {
            match file.next_batch(&mut batch) {
                Ok(true) => firsts.extend(batch.frames().map(|frame| {
                    assert!(frame.data.iter().all(|byte| *byte == frame.data[0]));
                    frame.data[0]
                })),
                Ok(false) => return (firsts, Ok(file.complaint())),
                Err(error) => return (firsts, Err(error.to_string())),
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn however_it_is_packed_it_gives_the_same_frames() {
        let plain = pcap(200);
        let expected: Vec<u8> = (0..200).collect();
        let (first, second) = plain.split_at(777);
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(first)].concat();
        for (name, bytes) in [
            ("plain", plain.clone()),
            ("gzip", gzip(&plain)),
            ("gzip, two members", [gzip(first), gzip(second)].concat()),
            ("zstd", zstd(&plain)),
            ("zstd, frames", [skippable, zstd(second)].concat()),
            ("lz4", lz4(&plain)),
            ("lz4, frames", [lz4(first), lz4(second)].concat()),
        ] {
            assert_eq!(read(open(bytes.clone())), (expected.clone(), Ok(None)), "{name}");
            let trickle = File::from_reader("x.pcap".to_owned(), Trickle(Cursor::new(bytes), 0), None).unwrap();
            assert_eq!(read(trickle), (expected.clone(), Ok(None)), "{name}, trickling");
        }
    }

    #[test]
    fn a_cut_capture_keeps_its_frames_and_says_where_it_is_cut() {
        let cut = Ok(Some("x.pcap is cut in the middle of packet 3".to_owned()));
        let mut plain = pcap(3);
        plain.truncate(plain.len() - 1);
        assert_eq!(read(open(plain.clone())), (vec![0, 1], cut.clone()));
        assert_eq!(read(open(gzip(&plain))), (vec![0, 1], cut.clone()));
        let mut packed = [lz4(&plain[..200]), lz4(&plain[200..])].concat();
        packed.truncate(packed.len() - 9);
        assert!(matches!(read(open(packed)), (frames, Ok(Some(_))) if frames == [0]));
        assert_eq!(read(open(lz4(&plain))), (vec![0, 1], cut));
        let mut packed = gzip(&pcap(50));
        packed.truncate(packed.len() - 9);
        let (_, end) = read(open(packed));
        assert!(end.clone().is_ok_and(|complaint| complaint.is_some()), "{end:?}");
    }

    #[test]
    fn damage_half_way_is_a_complaint() {
        let mut plain = pcap(2);
        plain.extend([0xff; 200]);
        let complaint = "x.pcap is damaged after packet 2: packet of 4294967295 bytes";
        assert_eq!(read(open(plain)), (vec![0, 1], Ok(Some(complaint.to_owned()))));
        let packed = [gzip(&pcap(2)), vec![0x1f, 0x8b, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]].concat();
        let (frames, end) = read(open(packed));
        assert_eq!(frames, [0, 1]);
        let complaint = end.unwrap().unwrap();
        assert!(complaint.starts_with("x.pcap is damaged after packet 2: bad gzip data ("), "{complaint}");
    }

    #[test]
    fn a_capture_without_packets_is_fine() {
        assert_eq!(read(open(pcap(0))), (vec![], Ok(None)));
    }

    #[test]
    fn what_is_no_capture_says_why() {
        for (bytes, why) in [
            (vec![], "it is empty"),
            (gzip(b""), "it is empty"),
            (b"\xd4\xc3\xb2\xa1\x02".to_vec(), "it ends after 5 bytes, within its header"),
            (b"hi".to_vec(), "it ends after 2 bytes, within its header"),
            (b"hello".to_vec(), r#"it starts with "hello", not with a pcap or pcapng header"#),
            (gzip(b"hello"), r#"it starts with "hello", not with a pcap or pcapng header"#),
        ] {
            assert_eq!(read(open(bytes)), (vec![], Err(format!("x.pcap is no capture: {why}"))));
        }
    }

    #[test]
    fn a_directory_and_a_missing_file_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let error = |path: &Path| File::open(path).err().unwrap().to_string();
        assert_eq!(error(directory.path()), format!("cannot read {}: is a directory", directory.path().display()));
        let missing = directory.path().join("none.pcap");
        let text = error(&missing);
        assert!(text.starts_with(&format!("cannot read {}: No such file", missing.display())), "{text}");
    }

    #[test]
    fn progress_counts_the_file_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pcap.gz");
        let packed = gzip(&pcap(200));
        std::fs::write(&path, &packed).unwrap();
        let mut file = File::open(&path).unwrap();
        assert_eq!(file.progress().1, Some(packed.len() as u64));
        let mut batch = Batch::default();
        while file.next_batch(&mut batch).unwrap() {}
        assert_eq!(file.progress(), (packed.len() as u64, Some(packed.len() as u64)));
    }
}
