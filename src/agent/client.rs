//! The commands that `kubectl exec` runs beside the daemon: they ask it over its socket.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, PipeReader, Read, Write};
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
use super::{Error, handover, log, process};
use crate::capture::bpf::Program;

/// How long to wait, after the end of a stream, for the client to close: an exec that exits at once is known to lose the
/// last of its output.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long a command may take that has one answer.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Has the daemon stream to stdout until it ends that, stdout or stdin is closed, or the client is silent.
///
/// # Errors
/// If there is no daemon, it refuses, or it goes without saying why.
pub(super) fn stream(socket: &Path, options: &Options) -> Result<(), Error> {
    process::be_nice(process::SESSION);
    process::die_first();
    // The standard library's stdout looks for line ends in all that it writes.
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let stdout = stdout.map_err(|cause| Error::new(format!("cannot open stdout: {cause}")))?;
    let (file, relay) = match writable(&stdout).filter(|_| !options.compress) {
        Some(file) => (file, None),
        None => piped().map_err(|cause| Error::new(format!("cannot open a pipe: {cause}")))?,
    };
    let mut connection = ask(socket, &Request::Stream(Box::new(options.session.clone())), Some(file))?;
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
    if let Some(pipe) = relay
        && !copy(pipe, Sink::new(stdout, options.compress))?
    {
        return Ok(());
    }
    let mut last = String::new();
    let read = connection.read_line(&mut last);
    match last.trim_end() {
        "ok" => {}
        "" => {
            let gone = Error::new("the agent is gone without having said why");
            return Err(match read {
                Ok(_) => gone.hint("the container's state tells more: kubectl get pod -o yaml"),
                Err(cause) => Error::new(format!("cannot read from the agent: {cause}")),
            });
        }
        error => return Err(Error::new(error.trim_start_matches("error: "))),
    }
    if watched {
        has_all.store(true, Ordering::Relaxed);
        // The thread that watches stdin ends the process as soon as the client closes.
        std::thread::sleep(LAST_WORD);
    }
    Ok(())
}

/// stdout for the daemon to write to; none if that could make it wait: a terminal, or what the kernel does not open again.
fn writable(stdout: &File) -> Option<File> {
    let kind = stdout.metadata().ok()?.file_type();
    if kind.is_fifo() {
        handover::without_waiting(stdout.as_fd()).ok()
    } else {
        stdout.try_clone().ok().filter(|_| kind.is_file() || is_null(stdout))
    }
}

/// A pipe for the daemon to write to, and its other end.
fn piped() -> io::Result<(File, Option<PipeReader>)> {
    let (reader, writer) = io::pipe()?;
    Ok((handover::without_waiting(writer.as_fd())?, Some(reader)))
}

/// Copies what the daemon writes to stdout; false if nobody reads that any more.
fn copy(mut pipe: PipeReader, mut stdout: Sink) -> Result<bool, Error> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(count) => count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(Error::new(format!("cannot read from the agent: {cause}"))),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return written(stdout.finish());
        }
        if !written(stdout.write(bytes))? {
            return Ok(false);
        }
    }
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
    let read = ask(socket, &Request::Status, None)?.read_to_string(&mut answer);
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
    ask(socket, &Request::Arm(seconds), None).map(drop)
}

/// Has the daemon capture what that program accepts from now on; returns when it does.
pub(super) fn filter(socket: &Path, program: &Program, text: &str) -> Result<(), Error> {
    ask(socket, &Request::Filter(program.clone(), text.to_owned()), None).map(drop)
}

/// Ends the daemon and waits until it is gone.
///
/// # Errors
/// If there is no daemon, or it does not go.
pub(super) fn stop(socket: &Path) -> Result<(), Error> {
    let mut connection = ask(socket, &Request::Stop, None)?;
    let _ = connection.get_ref().set_read_timeout(Some(PATIENCE));
    match connection.read_to_end(&mut Vec::new()) {
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::new(format!("the agent has not stopped within {} s", PATIENCE.as_secs())))
        }
        _ => Ok(()),
    }
}

/// Sends a request, with what it is about; returns the connection after its `ok`.
fn ask(socket: &Path, request: &Request, file: Option<File>) -> Result<BufReader<UnixStream>, Error> {
    let mut connection = UnixStream::connect(socket).map_err(|cause| {
        Error::new(format!("cannot reach the agent on {}: {cause}", socket.display()))
            .hint("it runs as the first process of its container: sniff-agent run")
    })?;
    let unanswered = |cause: io::Error| Error::new(format!("cannot ask the agent: {cause}"));
    let line = format!("{}\n", request.to_line());
    let sent = match &file {
        Some(file) => handover::send(&connection, line.as_bytes(), file.as_fd()).map_err(unanswered)?,
        None => 0,
    };
    connection.write_all(line.as_bytes().get(sent..).unwrap_or_default()).map_err(unanswered)?;
    // The daemon alone has it open from now on.
    drop(file);
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

/// True for `/dev/null`: as stdin, a client can send nothing on it.
fn is_null(stream: &impl AsFd) -> bool {
    let metadata = stream.as_fd().try_clone_to_owned().and_then(|file| File::from(file).metadata());
    metadata.is_ok_and(|file| file.file_type().is_char_device() && file.rdev() == NULL_DEVICE)
}
