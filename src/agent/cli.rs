//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::request::{Session, Start};
use super::{Error, SOCKET, SOCKET_VARIABLE, client, daemon, log, master};
use crate::capture::backend::{BATCH, Kind, MOST_SNAPLEN};
use crate::capture::bpf::Program;

const HELP: &str = "\
Captures the packets of a pod from inside one of its containers, for `kubectl sniff`.

Usage:
  sniff-agent run [options]      capture, and serve sessions until stopped or alone for long
  sniff-agent stream [options]   copy packets to stdout as pcapng
  sniff-agent status             print one line of JSON
  sniff-agent arm SECONDS        have the agent stay so long from now on, with or without a session
  sniff-agent filter PROGRAM [--filter-text TEXT]
                                 have the agent capture what this accepts from now on, a compiled capture filter as for run
  sniff-agent stop               end the agent; its sessions get the rest and are told
  sniff-agent version

Options of run:
  --pod NAMESPACE/NAME   put before interface names; for a node, node/NAME
  --filter PROGRAM       capture filter, compiled: the output of `tcpdump -ddd` with commas for line
                         ends (`1,6 0 0 262144`), or the name of a file that holds it
  --filter-text TEXT     the same as pcap-filter text, only to be shown
  --once-per-packet      leave out packets that were just seen on another interface: for a node's network
  --snaplen BYTES        keep at most so much of a packet; 0 for all (default 0)
  --buffer SIZE          room for packets, such as 16Mi (default 16Mi, at least 1Mi)
  --buffer-on WHERE      memory or disk (default memory); on disk it takes some 2 MiB of memory, whatever its size
  --buffer-file FILE     the file on disk; it must not exist, and is gone with the agent (default /sniff-agent.buffer)
  --backend NAME         af_packet, libpcap, af_xdp, pf_ring or best (default af_packet)
  --ring SIZE            memory shared with the kernel (default 2Mi, at least 512Ki)
  --tls                  read TLS keys of the target's processes by uprobes, and put them into the stream; of connections
                         that were open before, make packets of the plaintext, on interfaces of their own; needs SYS_ADMIN,
                         SYS_PTRACE and the target's PID namespace
  --ttl SECONDS          leave after so long without a session (default 300)
  --armed-for SECONDS    but not sooner than this after the start (default 0)

Options of stream:
  --from NUMBER          start with that packet; those that are no longer there are reported
  --boot ID              the run of the agent that NUMBER is of; another one sends all it has
  --since SECONDS        start with the packets of the last so many seconds
  --now                  start with the next packet; the default is the oldest one there is
  --until SECONDS        send only packets from before so many seconds ago, and end
  --no-follow            send what there is, and end: --until 0
  --filter PROGRAM       send only what this accepts, a compiled capture filter as for run
  --filter-text TEXT     the same as pcap-filter text, only to be shown
  --snaplen BYTES        send at most so much of a packet; 0 for all that there is (default 0)
  --compress lz4         send the stream as an LZ4 frame
  --reader NAME          who reads, to be shown by status
  --heartbeat SECONDS    end if nothing comes on stdin for so long (default 15)
  --no-stdin             expect nothing on stdin, which is the default if it is /dev/null

Options of all:
  --socket PATH          where the agent listens (default $SNIFF_AGENT_SOCKET or /dev/sniff-agent.sock)
";

/// The least ring: one part is read while another is filled.
const LEAST_RING: usize = 2 * BATCH;

/// Where the master PCAP is on disk unless told otherwise: in the container's own root.
const BUFFER_FILE: &str = "/sniff-agent.buffer";

/// A parsed command line.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run(daemon::Options),
    Stream(PathBuf, client::Options),
    Status(PathBuf),
    Stop(PathBuf),
    Arm(PathBuf, u64),
    Filter(PathBuf, Program, String),
    Print(String),
}

/// Runs the command that the process was given. Exit code 0: done, 1: failed, 2: the command line is wrong.
pub fn main() -> ExitCode {
    let socket = std::env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| SOCKET.into());
    let result = parse(std::env::args_os().skip(1), socket.into()).and_then(|command| match command {
        Command::Run(options) => daemon::run(options),
        Command::Stream(socket, options) => client::stream(&socket, &options),
        Command::Status(socket) => client::status(&socket),
        Command::Stop(socket) => client::stop(&socket),
        Command::Arm(socket, seconds) => client::arm(&socket, seconds),
        Command::Filter(socket, program, text) => client::filter(&socket, &program, &text),
        Command::Print(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            Ok(())
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&error);
            ExitCode::from(if error.usage { 2 } else { 1 })
        }
    }
}

fn parse(words: impl Iterator<Item = OsString>, socket: PathBuf) -> Result<Command, Error> {
    let mut words = Words { words: words.map(|word| word.to_string_lossy().into_owned()).collect() };
    words.words.reverse();
    let command = words.words.pop().ok_or_else(|| Error::usage("no command"))?;
    match command.as_str() {
        "run" => run(words, socket).map(Command::Run),
        "stream" => stream(words, socket),
        "status" => Ok(Command::Status(only_socket(words, socket)?)),
        "stop" => Ok(Command::Stop(only_socket(words, socket)?)),
        "arm" => {
            let mut words = words;
            let seconds = words.seconds("arm")?.as_secs();
            Ok(Command::Arm(only_socket(words, socket)?, seconds))
        }
        "filter" => refilter(words, socket),
        "help" | "--help" | "-h" => Ok(Command::Print(HELP.to_owned())),
        "version" | "--version" | "-V" => Ok(Command::Print(format!("sniff-agent {}\n", env!("CARGO_PKG_VERSION")))),
        other => Err(Error::usage(format!("unknown command {other:?}"))),
    }
}

fn run(mut words: Words, socket: PathBuf) -> Result<daemon::Options, Error> {
    let mut options = daemon::Options {
        pod: String::new(),
        backend: Kind::default(),
        filter: Program::all(),
        filter_text: String::new(),
        once: false,
        snaplen: MOST_SNAPLEN,
        buffer: 16 << 20,
        buffer_file: None,
        ring: 2 << 20,
        tls: false,
        ttl: Duration::from_mins(5),
        armed_for: Duration::ZERO,
        socket,
    };
    let (mut on_disk, mut file) = (false, None);
    while let Some(flag) = words.flag()? {
        match flag.as_str() {
            "--pod" => options.pod = words.parsed(&flag, "no NAMESPACE/NAME", pod)?,
            "--filter" => options.filter = filter(&words.value(&flag)?)?,
            "--filter-text" => options.filter_text = words.value(&flag)?,
            "--once-per-packet" => options.once = true,
            "--snaplen" => {
                let snaplen = words.parsed(&flag, "no number of bytes", |word| word.parse::<u32>().ok())?;
                options.snaplen = if snaplen == 0 { MOST_SNAPLEN } else { snaplen.min(MOST_SNAPLEN) };
            }
            "--buffer" => options.buffer = words.size(&flag, master::LEAST)?,
            "--buffer-on" => {
                on_disk = words.parsed(&flag, "neither memory nor disk", |word| match word {
                    "memory" => Some(false),
                    "disk" => Some(true),
                    _ => None,
                })?;
            }
            "--buffer-file" => file = Some(PathBuf::from(words.value(&flag)?)),
            "--backend" => options.backend = words.parsed(&flag, "no backend", Kind::named)?,
            "--ring" => options.ring = words.size(&flag, LEAST_RING)?,
            "--tls" => options.tls = true,
            "--ttl" => options.ttl = words.seconds(&flag)?,
            "--armed-for" => options.armed_for = words.seconds(&flag)?,
            "--socket" => options.socket = words.value(&flag)?.into(),
            _ => return Err(unknown(&flag)),
        }
    }
    options.buffer_file = match (on_disk, file) {
        (true, file) => Some(file.unwrap_or_else(|| BUFFER_FILE.into())),
        (false, None) => None,
        (false, Some(_)) => return Err(Error::usage("--buffer-file goes with --buffer-on disk only")),
    };
    Ok(options)
}

fn stream(mut words: Words, mut socket: PathBuf) -> Result<Command, Error> {
    let mut options = client::Options {
        session: Session::default(),
        compress: false,
        heartbeat: Duration::from_secs(15),
        stdin: true,
    };
    let session = &mut options.session;
    let mut boot = None;
    let mut starts = Vec::new();
    while let Some(flag) = words.flag()? {
        match flag.as_str() {
            "--from" => {
                let number = words.parsed(&flag, "no packet number", |word| word.parse().ok())?;
                starts.push(Start::From(number, None));
            }
            "--boot" => boot = Some(words.parsed(&flag, "no boot id", |word| is_word(word).then(|| word.to_owned()))?),
            "--since" => starts.push(Start::Since(words.seconds(&flag)?.as_secs())),
            "--now" => starts.push(Start::Now),
            "--until" => session.until = Some(words.seconds(&flag)?.as_secs()),
            "--no-follow" => session.until = Some(0),
            "--filter" => session.filter = Some(filter(&words.value(&flag)?)?),
            "--filter-text" => session.filter_text = words.value(&flag)?,
            "--snaplen" => session.snaplen = words.parsed(&flag, "no number of bytes", |word| word.parse().ok())?,
            "--compress" => {
                let wrong = "neither lz4 nor none";
                options.compress = words.parsed(&flag, wrong, |word| match word {
                    "lz4" => Some(true),
                    "none" => Some(false),
                    _ => None,
                })?;
            }
            "--reader" => session.reader = words.value(&flag)?,
            "--heartbeat" => options.heartbeat = words.seconds(&flag)?,
            "--no-stdin" => options.stdin = false,
            "--socket" => socket = words.value(&flag)?.into(),
            _ => return Err(unknown(&flag)),
        }
    }
    session.start = match (starts.pop(), boot) {
        (_, _) if !starts.is_empty() => return Err(Error::usage("only one of --from, --since and --now can be given")),
        (Some(Start::From(number, _)), boot) => Start::From(number, boot),
        (_, Some(_)) => return Err(Error::usage("--boot goes with --from only")),
        (start, None) => start.unwrap_or(Start::All),
    };
    if session.until.is_some() && session.start == Start::Now {
        return Err(Error::usage("--now starts where --until and --no-follow end: there is nothing between them"));
    }
    Ok(Command::Stream(socket, options))
}

fn refilter(mut words: Words, mut socket: PathBuf) -> Result<Command, Error> {
    let program = filter(&words.value("filter")?)?;
    let mut text = String::new();
    while let Some(flag) = words.flag()? {
        match flag.as_str() {
            "--filter-text" => text = words.value(&flag)?,
            "--socket" => socket = words.value(&flag)?.into(),
            _ => return Err(unknown(&flag)),
        }
    }
    Ok(Command::Filter(socket, program, text))
}

fn only_socket(mut words: Words, mut socket: PathBuf) -> Result<PathBuf, Error> {
    while let Some(flag) = words.flag()? {
        match flag.as_str() {
            "--socket" => socket = words.value(&flag)?.into(),
            _ => return Err(unknown(&flag)),
        }
    }
    Ok(socket)
}

fn unknown(flag: &str) -> Error {
    Error::usage(format!("unknown option {flag:?}"))
}

/// A word that goes through the request line as one.
fn is_word(word: &str) -> bool {
    (1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
}

fn pod(word: &str) -> Option<String> {
    let (namespace, name) = word.split_once('/')?;
    let is_name = |name: &str| !name.is_empty() && !name.contains(['/', ':']);
    (is_name(namespace) && is_name(name)).then(|| word.to_owned())
}

/// The program itself, or the name of its file: a name starts with no digit, or is written as `./4`.
fn filter(word: &str) -> Result<Program, Error> {
    let text = if word.starts_with(|first: char| first.is_ascii_digit()) {
        word.to_owned()
    } else {
        std::fs::read_to_string(word).map_err(|cause| Error::new(format!("cannot read the filter {word}: {cause}")))?
    };
    Program::parse(&text).map_err(|invalid| Error::usage(format!("--filter is no BPF program: {invalid}")))
}

/// Bytes: a number, or one with `Ki`, `Mi`, `Gi`.
fn size(word: &str) -> Option<usize> {
    let (number, shift) = [("Ki", 10), ("Mi", 20), ("Gi", 30)]
        .iter()
        .find_map(|(unit, shift)| Some((word.strip_suffix(unit)?, *shift)))
        .unwrap_or((word, 0));
    number.parse::<usize>().ok()?.checked_mul(1 << shift).filter(|size| u32::try_from(*size).is_ok())
}

/// What is left of the command line, last word first.
struct Words {
    words: Vec<String>,
}

impl Words {
    /// The next flag; `--flag=value` becomes two words.
    fn flag(&mut self) -> Result<Option<String>, Error> {
        let Some(word) = self.words.pop() else { return Ok(None) };
        if !word.starts_with("--") {
            return Err(Error::usage(format!("unexpected argument {word:?}")));
        }
        Ok(Some(match word.split_once('=') {
            Some((flag, value)) => {
                self.words.push(value.to_owned());
                flag.to_owned()
            }
            None => word,
        }))
    }

    fn value(&mut self, flag: &str) -> Result<String, Error> {
        self.words.pop().ok_or_else(|| Error::usage(format!("{flag} needs a value")))
    }

    fn parsed<T>(&mut self, flag: &str, wrong: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        let value = self.value(flag)?;
        parse(&value).ok_or_else(|| Error::usage(format!("{flag}: {value:?} is {wrong}")))
    }

    fn seconds(&mut self, flag: &str) -> Result<Duration, Error> {
        self.parsed(flag, "no number of seconds", |word| word.parse::<u32>().ok())
            .map(|seconds| Duration::from_secs(seconds.into()))
    }

    fn size(&mut self, flag: &str, least: usize) -> Result<usize, Error> {
        let bytes = self.parsed(flag, "no size such as 16Mi", size)?;
        if bytes < least {
            return Err(Error::usage(format!("{flag}: {bytes} bytes are too few, {least} are the least")));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]
    use super::*;

    fn parsed(line: &str) -> Result<Command, Error> {
        parse(line.split_whitespace().map(OsString::from), "/s".into())
    }

    fn run_options(line: &str) -> daemon::Options {
        match parsed(line) {
            Ok(Command::Run(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        let error = parsed(line).unwrap_err();
        assert!(error.usage, "{line}");
        error.message
    }

    #[test]
    fn run_has_defaults() {
        let options = run_options("run");
        assert_eq!((options.buffer, options.ring, options.snaplen), (16 << 20, 2 << 20, 262_144));
        assert_eq!((options.ttl.as_secs(), options.armed_for.as_secs()), (300, 0));
        assert_eq!(options.socket, PathBuf::from("/s"));
    }

    #[test]
    fn values_may_follow_an_equals_sign() {
        let options = run_options("run --pod=shop/web-1 --buffer 4Mi --ring=512Ki --snaplen=0 --ttl 5 --socket=/x");
        assert_eq!((options.pod.as_str(), options.buffer, options.ring), ("shop/web-1", 4 << 20, 512 << 10));
        assert_eq!((options.snaplen, options.ttl.as_secs(), options.socket), (262_144, 5, PathBuf::from("/x")));
    }

    #[test]
    fn the_buffer_is_in_one_place() {
        assert_eq!(run_options("run --buffer-on memory").buffer_file, None);
        assert_eq!(run_options("run --buffer-on disk").buffer_file, Some(BUFFER_FILE.into()));
        assert_eq!(run_options("run --buffer-file /x/y --buffer-on disk").buffer_file, Some("/x/y".into()));
        assert_eq!(refusal("run --buffer-file /x"), "--buffer-file goes with --buffer-on disk only");
        assert_eq!(refusal("run --buffer-on tape"), "--buffer-on: \"tape\" is neither memory nor disk");
    }

    #[test]
    fn stream_starts_in_one_place() {
        let start = |line: &str| match parsed(line) {
            Ok(Command::Stream(_, options)) => options.session.start,
            other => panic!("{other:?}"),
        };
        assert_eq!(start("stream"), Start::All);
        assert_eq!(start("stream --from 7"), Start::From(7, None));
        assert_eq!(start("stream --boot ab --from=7"), Start::From(7, Some("ab".to_owned())));
        assert_eq!(start("stream --since 300"), Start::Since(300));
        assert_eq!(refusal("stream --now --since 3"), "only one of --from, --since and --now can be given");
        assert_eq!(refusal("stream --boot ab"), "--boot goes with --from only");
    }

    #[test]
    fn stream_may_be_narrower_than_the_capture() {
        let line = "stream --since 60 --until 9 --filter 1,6~0~0~1 --filter-text ip --snaplen 96 --reader me";
        let words = line.split_whitespace().map(|word| OsString::from(word.replace('~', " ")));
        let Ok(Command::Stream(_, options)) = parse(words, "/s".into()) else { panic!("no session") };
        let filter = Some(Program::parse("1,6 0 0 1").unwrap());
        let (filter_text, reader) = ("ip".to_owned(), "me".to_owned());
        let start = Start::Since(60);
        assert_eq!(options.session, Session { start, until: Some(9), filter, filter_text, snaplen: 96, reader });
        let wrong = "--now starts where --until and --no-follow end: there is nothing between them";
        assert_eq!(refusal("stream --now --no-follow"), wrong);
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(refusal(""), "no command");
        assert_eq!(refusal("dump"), "unknown command \"dump\"");
        assert_eq!(refusal("run now"), "unexpected argument \"now\"");
        assert_eq!(refusal("run --from 1"), "unknown option \"--from\"");
        assert_eq!(refusal("run --ttl"), "--ttl needs a value");
        assert_eq!(refusal("run --ttl=-1"), "--ttl: \"-1\" is no number of seconds");
        assert_eq!(refusal("run --buffer 16MB"), "--buffer: \"16MB\" is no size such as 16Mi");
        assert_eq!(refusal("run --buffer 9999999999Gi"), "--buffer: \"9999999999Gi\" is no size such as 16Mi");
        assert_eq!(refusal("run --buffer 5"), "--buffer: 5 bytes are too few, 1048576 are the least");
        assert_eq!(refusal("run --pod web"), "--pod: \"web\" is no NAMESPACE/NAME");
        assert_eq!(refusal("run --filter 1"), "--filter is no BPF program: 1 instructions announced, 0 given");
        let missing = parsed("run --filter nowhere").unwrap_err();
        assert!(missing.message.starts_with("cannot read the filter nowhere: "), "{missing}");
    }
}
