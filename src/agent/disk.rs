//! The file that holds the master PCAP where memory is too small for it.
//!
//! It has all its blocks from the start, so a disk that is full shows at the start and never later, and it has no name: it is
//! gone when the agent is, however that ends. It is written and read, not mapped: the pages of a mapping would count as the
//! agent's memory, and a disk that fails would be a signal instead of an error.
#![allow(unsafe_code, reason = "the standard library reserves no disk space and does not advise the page cache")]

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// File systems that are memory themselves (`statfs(2)`): tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// How many segments behind the one just written a segment is taken to be on the disk, so that its pages can go.
const BEHIND: u64 = 4;

/// How much is written at a time where the file system cannot reserve.
const ZEROS: usize = 256 << 10;

/// A file of `slots` segments of `room` bytes.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    room: u64,
    slots: u64,
}

impl Disk {
    /// Creates the file, reserves its space and takes its name away.
    ///
    /// # Errors
    /// `AlreadyExists` if there is such a file, `StorageFull` if the disk has too little room, `Unsupported` if the file
    /// would be in memory, and what else the file system says.
    pub(super) fn create(path: &Path, room: usize, slots: usize) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        std::fs::remove_file(path)?;
        if IN_MEMORY.contains(&file_system(&file)?) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it would be in memory (tmpfs)"));
        }
        let disk = Self { file, room: room as u64, slots: slots as u64 };
        disk.reserve()?;
        Ok(disk)
    }

    fn reserve(&self) -> io::Result<()> {
        let length = self.room * self.slots;
        // SAFETY: a plain call on a descriptor of ours.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, length.cast_signed()) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            cause if cause.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            cause => return Err(cause),
        }
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < length {
            let piece = zeros.get(..(length - at).min(ZEROS as u64) as usize).unwrap_or(&zeros);
            self.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        self.file.sync_data()
    }

    /// Writes a segment, counted from the first that there ever was.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn write(&self, segment: u64, blocks: &[u8]) -> io::Result<()> {
        let start = self.start(segment);
        self.file.write_all_at(blocks, start)?;
        let (descriptor, start, length) = (self.file.as_raw_fd(), start.cast_signed(), self.room.cast_signed());
        // SAFETY: plain calls on a descriptor of ours. They are advice: what comes of it is none of our business.
        unsafe {
            libc::sync_file_range(descriptor, start, length, libc::SYNC_FILE_RANGE_WRITE);
            if let Some(behind) = segment.checked_sub(BEHIND) {
                let start = self.start(behind).cast_signed();
                libc::posix_fadvise(descriptor, start, length, libc::POSIX_FADV_DONTNEED);
            }
        }
        Ok(())
    }

    /// Appends `length` bytes of a segment from `offset` on to `out`.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn read(&self, segment: u64, offset: usize, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let filled = out.len();
        out.resize(filled + length, 0);
        let place = out.get_mut(filled..).unwrap_or_default();
        let result = self.file.read_exact_at(place, self.start(segment) + offset as u64);
        if result.is_err() {
            out.truncate(filled);
        }
        result
    }

    /// Where a segment starts in the file.
    fn start(&self, segment: u64) -> u64 {
        segment % self.slots * self.room
    }
}

/// The type of the file system that a file is on.
fn file_system(file: &File) -> io::Result<u64> {
    let mut answer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the kernel fills the structure in unless it reports an error.
    let answer = unsafe {
        let result: c_int = libc::fstatfs(file.as_raw_fd(), answer.as_mut_ptr());
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        answer.assume_init()
    };
    // The field's type differs between C libraries.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "not everywhere")]
    Ok(answer.f_type as u64 & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    #[test]
    fn gives_back_what_it_was_given_and_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("buffer");
        let disk = Disk::create(&path, 4096, 3).unwrap();
        assert!(!path.exists());
        for segment in 0..7 {
            disk.write(segment, &[segment as u8; 100]).unwrap();
        }
        let mut out = vec![9];
        disk.read(6, 98, 2, &mut out).unwrap();
        disk.read(4, 0, 1, &mut out).unwrap();
        assert_eq!(out, [9, 6, 6, 4]);
        assert_eq!(disk.file.metadata().unwrap().len(), 3 * 4096);
    }

    #[test]
    fn takes_no_file_that_is_there_and_none_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("buffer");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Disk::create(&path, 4096, 3).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let shared = format!("/dev/shm/sniff-agent-test-{}", std::process::id());
        assert_eq!(Disk::create(Path::new(&shared), 4096, 3).unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert!(!Path::new(&shared).exists());
    }
}
