//! Network namespaces, agents in them, and a reader of pcapng that shares no code with the writer.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that takes an instant on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The agent, built once for all tests, with all backends. Features differ from those of the tests, so it has a target
/// folder of its own that does not undo what the tests are built from.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("libpcap", &[]).join("debug/sniff-agent"))
}

/// The same with probes for TLS keys.
pub fn binary_with_probes() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("tls", &[]).join("debug/sniff-agent"))
}

/// Builds the agent with that feature and these arguments besides; returns the target folder.
pub fn build(feature: &str, arguments: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Each set of features has a folder of its own, as they have one name.
    let target = root.join("target/agent-test").join(if feature.contains("tls") { "tls" } else { "" });
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--no-default-features", "--features", feature, "--bin", "sniff-agent"])
        .args(arguments)
        .arg("--target-dir")
        .arg(&target)
        .current_dir(root)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the agent does not build");
    target
}

/// Runs a command that must succeed; returns its output.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    assert!(
        output.status.success(),
        "`{line}` failed: {}\nThese tests need root with CAP_NET_ADMIN and the packages in tests/packages.txt.",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two network namespaces joined by a pair of interfaces, both called eth0: the pod's (10.9.0.2) and its peer's
/// (10.9.0.1). Nothing is sent in them but by the tests.
pub struct Net {
    pub pod: String,
    pub peer: String,
    pub folder: tempfile::TempDir,
    /// What agents in it capture with.
    pub backend: &'static str,
}

impl Net {
    pub fn new() -> Self {
        Self::with("af_packet")
    }

    pub fn with(backend: &'static str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("sniff-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (pod, peer) = (format!("{id}-pod"), format!("{id}-peer"));
        let net = Self { pod, peer, folder: tempfile::tempdir().expect("a temporary folder"), backend };
        for own in [&net.pod, &net.peer] {
            sh(&format!("ip netns add {own} && ip netns exec {own} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
        }
        sh(&format!("ip -n {} link add eth0 type veth peer name eth0 netns {}", net.pod, net.peer));
        for (own, host, other) in [(&net.pod, 2, 1), (&net.peer, 1, 2)] {
            sh(&format!(
                "ip -n {own} link set lo up && ip -n {own} link set eth0 address 02:00:00:00:00:0{host} && \
                 ip -n {own} addr add 10.9.0.{host}/24 dev eth0 && ip -n {own} link set eth0 up && \
                 ip -n {own} neigh replace 10.9.0.{other} lladdr 02:00:00:00:00:0{other} dev eth0 nud permanent"
            ));
        }
        net
    }

    /// A command inside the pod.
    pub fn in_pod(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.pod]).arg(program);
        command
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Starts an agent in the pod, and waits until it captures.
    pub fn agent(&self, options: &[&str]) -> Agent<'_> {
        let mut run = self.in_pod(binary());
        run.args(["run", "--pod", "shop/web-1", "--backend", self.backend])
            .args(options)
            .arg("--socket")
            .arg(self.socket());
        self.start(run)
    }

    /// Starts it by a command of one's own.
    pub fn start(&self, mut run: Command) -> Agent<'_> {
        let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ip runs");
        let agent = Agent { net: self, child };
        until("the agent starts", || agent.client(&["status"]).output().is_ok_and(|output| output.status.success()));
        agent
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for own in [&self.pod, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", own]).status();
        }
    }
}

/// Sends `count` datagrams of `size` bytes that all start with `mark`, from one namespace.
pub fn send(from: &str, to: &str, port: u16, mark: &str, count: usize, size: usize) {
    let status = sender(from, to, port, mark, count, size).status().expect("ip runs");
    assert!(status.success(), "sending failed");
}

/// The command that does so.
pub fn sender(from: &str, to: &str, port: u16, mark: &str, count: usize, size: usize) -> Command {
    let script = "import socket, sys\n\
        to, port, mark, count, size = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), int(sys.argv[4]), int(sys.argv[5])\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        for i in range(count): s.sendto(mark.ljust(size, b'.'), (to, port))\n";
    let mut command = Command::new("ip");
    command.args(["netns", "exec", from, "python3", "-c", script, to]);
    command.args([port.to_string(), mark.to_owned(), count.to_string(), size.to_string()]);
    command
}

/// A process that does not outlive the test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A memory limit on processes, as a pod's limit is; removed when dropped.
pub struct Limit {
    folder: PathBuf,
    is_second_version: bool,
}

impl Limit {
    pub fn new(bytes: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let is_second_version = root.join("cgroup.controllers").exists();
        let name = format!("sniff-test-{}", std::process::id());
        let (folder, file) = if is_second_version {
            std::fs::write(root.join("cgroup.subtree_control"), "+memory").expect("memory can be limited");
            (root.join(name), "memory.max")
        } else {
            (root.join("memory").join(name), "memory.limit_in_bytes")
        };
        std::fs::create_dir(&folder).expect("a new control group");
        std::fs::write(folder.join(file), bytes.to_string()).expect("memory can be limited");
        Self { folder, is_second_version }
    }

    /// The same command under the limit, with all that it starts.
    pub fn under(&self, command: &Command) -> Command {
        let mut limited = Command::new("sh");
        let procs = self.folder.join("cgroup.procs");
        limited.arg("-c").arg(format!("echo $$ >{} && exec \"$@\"", procs.display())).arg("sh");
        limited.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                limited.env(key, value);
            }
        }
        limited
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap_or_else(|cause| panic!("{file}: {cause}"))
    }

    /// How many of its processes were killed for want of memory.
    pub fn killed(&self) -> u64 {
        let file = if self.is_second_version { "memory.events" } else { "memory.oom_control" };
        let text = self.read(file);
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a count");
        count.parse().expect("a number")
    }

    /// The most bytes that they had, their page cache included.
    pub fn most(&self) -> u64 {
        let file = if self.is_second_version { "memory.peak" } else { "memory.max_usage_in_bytes" };
        self.read(file).trim().parse().expect("a number")
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Its processes may be on their way out.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A running agent; killed when dropped.
pub struct Agent<'a> {
    net: &'a Net,
    pub child: Child,
}

impl Agent<'_> {
    /// A command beside it.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("SNIFF_AGENT_SOCKET", self.net.socket()).stdin(Stdio::null());
        command
    }

    /// Its status.
    pub fn told(&self) -> serde_json::Value {
        let output = self.client(&["status"]).output().expect("the agent runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// How many sessions it has.
    pub fn sessions(&self) -> usize {
        self.told()["sessions"].as_array().expect("a list").len()
    }

    /// The number in its status under that name.
    pub fn status(&self, name: &str) -> u64 {
        let status = self.told();
        name.split('.').fold(&status, |value, key| &value[key]).as_u64().unwrap_or_else(|| panic!("{name} in {status}"))
    }

    /// KiB that it has in memory now (`VmRSS`, of which `RssAnon` is in no file), or had at the most (`VmHWM`).
    pub fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let of = |line: &str| line.strip_prefix(what)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok();
        status.lines().find_map(of).expect("a number")
    }

    /// A session whose output goes to a file; it is complete once the agent has stopped.
    pub fn stream(&self, arguments: &[&str]) -> Stream {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}.pcapng", COUNT.fetch_add(1, Ordering::Relaxed));
        let path = self.net.folder.path().join(name);
        let file = std::fs::File::create(&path).expect("a new file");
        let mut command = self.client(&["stream"]);
        let child = command.args(arguments).stdout(file).stderr(Stdio::piped()).spawn().expect("the agent runs");
        let mut stream = Stream { path, child };
        until("the session starts", || {
            let has_ended = stream.child.try_wait().expect("it is a child").is_some();
            let has_begun = stream.blocks().iter().any(|block| matches!(block, Block::Hello(_)));
            assert!(has_begun || !has_ended, "it ends: {}", said_by(&mut stream.child));
            has_begun
        });
        stream
    }

    /// What a session gets that ends by itself.
    pub fn look_back(&self, arguments: &[&str]) -> Vec<Block> {
        self.stream(arguments).end()
    }

    /// What a session gets that begins now and lasts until the agent stops, which it is told at once.
    pub fn rest(&mut self, arguments: &[&str]) -> Vec<Block> {
        let stream = self.stream(arguments);
        self.stop();
        stream.end()
    }

    /// Stops it, as a user would.
    pub fn stop(&mut self) {
        let output = self.client(&["stop"]).output().expect("the agent runs");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(exit_code(&mut self.child), Some(0));
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session; killed when dropped.
pub struct Stream {
    pub path: PathBuf,
    pub child: Child,
}

impl Stream {
    /// What has arrived so far.
    pub fn blocks(&self) -> Vec<Block> {
        parse(&std::fs::read(&self.path).expect("its file"))
    }

    /// Waits until packets of that mark have arrived.
    pub fn await_marks(&self, mark: &str, count: usize) {
        until(&format!("{count} × {mark}"), || marked(&self.blocks(), mark).len() >= count);
    }

    /// All of it; fails unless it ended by itself with exit code 0.
    pub fn end(mut self) -> Vec<Block> {
        let code = exit_code(&mut self.child);
        assert_eq!((code, said_by(&mut self.child).as_str()), (Some(0), ""));
        self.blocks()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process to end by itself.
pub fn exit_code(child: &mut Child) -> Option<i32> {
    let mut status = None;
    until("the process ends", || {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

/// What is on stderr, a pipe, of a process that has ended.
fn said_by(child: &mut Child) -> String {
    let mut said = String::new();
    let _ = std::io::Read::read_to_string(child.stderr.as_mut().expect("a pipe"), &mut said);
    said
}

/// stderr of a process that has ended.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A block of a pcapng stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    Section,
    Hello(serde_json::Value),
    Flushed(serde_json::Value),
    End(serde_json::Value),
    Filtered(serde_json::Value),
    Probes(serde_json::Value),
    Interface { name: String, link: u16, snaplen: u32 },
    Packet(Packet),
    Secrets(String),
    Statistics { interface: u32, received: u64, dropped: u64 },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packet {
    pub interface: u32,
    pub time: u64,
    pub len: usize,
    pub data: Vec<u8>,
    pub flags: u64,
    pub id: u64,
    pub dropped: u64,
}

/// The packets among blocks.
pub fn packets(blocks: &[Block]) -> Vec<&Packet> {
    blocks.iter().filter_map(|block| if let Block::Packet(packet) = block { Some(packet) } else { None }).collect()
}

/// Their numbers.
pub fn ids(blocks: &[Block]) -> Vec<u64> {
    packets(blocks).iter().map(|packet| packet.id).collect()
}

/// What a filter of the session's own left out: from, next and count of each note.
pub fn filtered(blocks: &[Block]) -> Vec<(u64, u64, u64)> {
    let note = |block: &Block| match block {
        Block::Filtered(note) => Some((note["from"].as_u64()?, note["next"].as_u64()?, note["count"].as_u64()?)),
        _ => None,
    };
    blocks.iter().filter_map(note).collect()
}

/// The capture filter, compiled.
pub fn program(text: &str) -> String {
    sh(&format!("tcpdump -y EN10MB -ddd '{text}' 2>/dev/null")).trim().replace('\n', ",")
}

/// The packets that hold a mark.
pub fn marked<'a>(blocks: &'a [Block], mark: &str) -> Vec<&'a Packet> {
    let holds = |packet: &&Packet| packet.data.windows(mark.len()).any(|window| window == mark.as_bytes());
    packets(blocks).into_iter().filter(holds).collect()
}

/// The whole blocks of a stream whose last one may be on its way.
pub fn parse(mut bytes: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while bytes.len() >= 12 {
        let length = number(&bytes[4..8]) as usize;
        let Some(block) = bytes.get(..length) else { break };
        assert_eq!(number(&block[length - 4..]) as usize, length, "a block's two lengths");
        blocks.push(parse_block(number(&block[..4]), &block[8..length - 4]));
        bytes = &bytes[length..];
    }
    blocks
}

fn parse_block(kind: u64, body: &[u8]) -> Block {
    let word = |at: usize| number(&body[at..at + 4]);
    match kind {
        0x0a0d_0d0a => Block::Section,
        1 => {
            let options = options(&body[8..]);
            assert_eq!(option(&options, 9), Some(9), "resolution of timestamps");
            let name = options.iter().find(|(code, _)| *code == 2).map(|(_, name)| name.to_vec()).unwrap_or_default();
            let name = String::from_utf8(name).expect("UTF-8");
            Block::Interface { name, link: word(0) as u16, snaplen: word(4) as u32 }
        }
        5 => {
            let options = options(&body[12..]);
            let count = |code| option(&options, code).expect("a counter");
            Block::Statistics { interface: word(0) as u32, received: count(4), dropped: count(5) }
        }
        6 => {
            let captured = word(12) as usize;
            let options = options(&body[20 + captured.next_multiple_of(4)..]);
            Block::Packet(Packet {
                interface: word(0) as u32,
                time: word(4) << 32 | word(8),
                len: word(16) as usize,
                data: body[20..20 + captured].to_vec(),
                flags: option(&options, 2).unwrap_or(0),
                id: option(&options, 5).unwrap_or(0),
                dropped: option(&options, 4).unwrap_or(0),
            })
        }
        10 => {
            assert_eq!(word(0), 0x544c_534b, "the kind of secrets");
            Block::Secrets(String::from_utf8(body[8..8 + word(4) as usize].to_vec()).expect("text"))
        }
        0xbad => {
            assert_eq!(word(0), 32473, "enterprise number");
            let text = std::str::from_utf8(&body[8..]).expect("UTF-8").trim_end_matches('\0');
            let json = serde_json::from_str(text).expect("JSON");
            match word(4) {
                1 => Block::Hello(json),
                2 => Block::Flushed(json),
                3 => Block::End(json),
                4 => Block::Filtered(json),
                5 => Block::Probes(json),
                other => panic!("custom block {other}"),
            }
        }
        other => panic!("block {other}"),
    }
}

fn options(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut options = Vec::new();
    while bytes.len() >= 4 {
        let (code, length) = (number(&bytes[..2]), number(&bytes[2..4]) as usize);
        options.push((code, &bytes[4..4 + length]));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    options
}

fn option(options: &[(u64, &[u8])], code: u64) -> Option<u64> {
    options.iter().find(|(candidate, _)| *candidate == code).map(|(_, value)| number(value))
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
