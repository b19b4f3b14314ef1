//! The commands that `kubectl exec` runs beside the daemon: they ask it over its socket.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::request::{Request, Session};
use super::session::CHUNK;
use super::{Error, log, process};
use crate::capture::bpf::Program;
use crate::capture::pcapng;

/// How long to wait, after the end of a stream, for the client to close: an exec that exits at once is known to lose the
/// last of its output.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long a command may take that has one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of the stream's end is kept to tell whether it was on purpose: more than the block that says so.
const TAIL: usize = 512;

/// `/dev/null` by its device number: what a runtime gives to an exec without stdin.
const NULL_DEVICE: u64 = 0x103;

/// What `sniff-agent stream` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// What to ask for.
    pub(super) session: Session,
    /// Compress what is sent.
    pub(super) compress: bool,
    /// How long the client may send nothing on stdin before it counts as gone.
    pub(super) heartbeat: Duration,
    /// False if nothing is expected on stdin, not even its end.
    pub(super) stdin: bool,
}

/// Copies the daemon's stream to stdout until the daemon ends it, stdout or stdin is closed, or the client is silent.
///
/// # Errors
/// If there is no daemon, it refuses, or it goes without saying why.
pub(super) fn stream(socket: &Path, options: &Options) -> Result<(), Error> {
    process::be_nice(process::SESSION);
    process::die_first();
    let mut connection = ask(socket, &Request::Stream(Box::new(options.session.clone())))?;
    let watched = options.stdin && !is_null(&io::stdin());
    let has_all = Arc::new(AtomicBool::new(false));
    if watched {
        let (heartbeat, has_all) = (options.heartbeat, Arc::clone(&has_all));
        let daemon = connection.get_ref().try_clone();
        let daemon = daemon.map_err(|cause| Error::new(format!("cannot watch stdin: {cause}")))?;
        std::thread::spawn(move || {
            watch_stdin(heartbeat);
            // The daemon says its last words to who leaves, unless it has.
            if !has_all.load(Ordering::Relaxed) && daemon.shutdown(Shutdown::Write).is_ok() {
                std::thread::sleep(LAST_WORD);
            }
            std::process::exit(0);
        });
    }
    // The standard library's stdout looks for line ends in all that it writes.
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let stdout = stdout.map_err(|cause| Error::new(format!("cannot open stdout: {cause}")))?;
    let mut stdout = Sink::new(stdout, options.compress);
    let mut buffer = vec![0; CHUNK];
    let mut tail = Vec::with_capacity(2 * TAIL);
    loop {
        let count = match connection.read(&mut buffer) {
            Ok(count) => count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(Error::new(format!("cannot read from the agent: {cause}"))),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        if !written(stdout.write(bytes))? {
            return Ok(());
        }
        tail.extend_from_slice(bytes.get(count.saturating_sub(TAIL)..).unwrap_or_default());
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    if !written(stdout.finish())? {
        return Ok(());
    }
    if !pcapng::is_ended(&tail) {
        return Err(Error::new("the agent is gone without having said why")
            .hint("the container's state tells more: kubectl get pod -o yaml"));
    }
    if watched {
        has_all.store(true, Ordering::Relaxed);
        // The thread that watches stdin ends the process as soon as the client closes.
        std::thread::sleep(LAST_WORD);
    }
    Ok(())
}

/// False if nobody reads stdout any more.
fn written(result: io::Result<()>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(cause) => Err(Error::new(format!("cannot write to stdout: {cause}"))),
    }
}

/// stdout, as it is or as one LZ4 frame. Its blocks refer to those before, so that small ones are compressed as well: each
/// piece is a block, and nothing waits for more to come.
enum Sink {
    Plain(File),
    Lz4(Box<FrameEncoder<BufWriter<File>>>),
}

impl Sink {
    fn new(stdout: File, compress: bool) -> Self {
        if !compress {
            return Self::Plain(stdout);
        }
        let info = FrameInfo::new().block_mode(BlockMode::Linked).block_size(BlockSize::Max64KB);
        Self::Lz4(Box::new(FrameEncoder::with_frame_info(info, BufWriter::with_capacity(2 * CHUNK, stdout))))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stdout) => stdout.write_all(bytes),
            Self::Lz4(encoder) => {
                encoder.write_all(bytes)?;
                encoder.flush()?;
                encoder.get_mut().flush()
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::from)?.flush(),
        }
    }
}

/// Prints the daemon's status, one line of JSON.
///
/// # Errors
/// If there is no daemon, or its answer cannot be passed on.
pub(super) fn status(socket: &Path) -> Result<(), Error> {
    let mut answer = String::new();
    let read = ask(socket, &Request::Status)?.read_to_string(&mut answer);
    read.map_err(|cause| Error::new(format!("cannot read from the agent: {cause}")))?;
    match io::stdout().write_all(answer.as_bytes()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("cannot write to stdout: {cause}")))
        }
        _ => Ok(()),
    }
}

/// Has the daemon stay for so many seconds from now on.
///
/// # Errors
/// If there is no daemon, or it refuses.
pub(super) fn arm(socket: &Path, seconds: u64) -> Result<(), Error> {
    ask(socket, &Request::Arm(seconds)).map(drop)
}

/// Has the daemon capture what that program accepts from now on; returns when it does.
pub(super) fn filter(socket: &Path, program: &Program, text: &str) -> Result<(), Error> {
    ask(socket, &Request::Filter(program.clone(), text.to_owned())).map(drop)
}

/// Ends the daemon and waits until it is gone.
///
/// # Errors
/// If there is no daemon, or it does not go.
pub(super) fn stop(socket: &Path) -> Result<(), Error> {
    let mut connection = ask(socket, &Request::Stop)?;
    let _ = connection.get_ref().set_read_timeout(Some(PATIENCE));
    match connection.read_to_end(&mut Vec::new()) {
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::new(format!("the agent has not stopped within {} s", PATIENCE.as_secs())))
        }
        _ => Ok(()),
    }
}

/// Sends a request; returns the connection after its `ok`.
fn ask(socket: &Path, request: &Request) -> Result<BufReader<UnixStream>, Error> {
    let mut connection = UnixStream::connect(socket).map_err(|cause| {
        Error::new(format!("cannot reach the agent on {}: {cause}", socket.display()))
            .hint("it runs as the first process of its container: sniff-agent run")
    })?;
    let unanswered = |cause: io::Error| Error::new(format!("cannot ask the agent: {cause}"));
    connection.write_all(format!("{}\n", request.to_line()).as_bytes()).map_err(unanswered)?;
    let mut connection = BufReader::with_capacity(CHUNK, connection);
    let mut answer = String::new();
    connection.read_line(&mut answer).map_err(unanswered)?;
    match answer.trim_end() {
        "ok" => Ok(connection),
        "" => Err(Error::new("the agent closed the connection")),
        refusal => Err(Error::new(refusal.trim_start_matches("error: "))),
    }
}

/// Returns when stdin ends; ends the process when nothing came on it for `heartbeat`.
fn watch_stdin(heartbeat: Duration) {
    let (beat, beats) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut bytes = [0; 64];
        while matches!(stdin.read(&mut bytes), Ok(1..)) {
            // If one is waiting to be seen, it stands for both.
            let _ = beat.try_send(());
        }
    });
    loop {
        match beats.recv_timeout(heartbeat) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let silent = Error::new(format!("the client was silent for {} s", heartbeat.as_secs()));
                log(silent.hint("a client sends a byte on stdin every few seconds; without one, use --no-stdin"));
                std::process::exit(1);
            }
        }
    }
}

/// True for `/dev/null`, on which a client can send nothing.
fn is_null(stdin: &io::Stdin) -> bool {
    let metadata = stdin.as_fd().try_clone_to_owned().and_then(|stdin| File::from(stdin).metadata());
    metadata.is_ok_and(|file| file.file_type().is_char_device() && file.rdev() == NULL_DEVICE)
}
