//! The plugin as its users run it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cluster::{Place, kubeconfig};

/// How long any step may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a run came to.
pub struct Done {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The entries of `-o json`.
    pub fn entries(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }
}

/// The plugin's binary.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-sniff"));
    command.env_remove("SNIFF_IMAGE").env_remove("NO_COLOR");
    if let Some(image) = std::env::var_os("SNIFF_TEST_AGENT_IMAGE") {
        command.env("SNIFF_IMAGE", image);
    }
    command
}

/// The same, at the cluster of the tests.
pub fn at_cluster(arguments: &[&str]) -> Command {
    let mut command = command();
    command.args(arguments).env("KUBECONFIG", kubeconfig());
    command
}

/// Runs it to its end.
pub fn run(arguments: &[&str]) -> Done {
    let output = command().args(arguments).stdin(Stdio::null()).output().unwrap();
    Done {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// One that runs beside the test.
pub struct Sniff {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    /// Its stdout, as long as nobody reads it.
    unread: Option<ChildStdout>,
    readers: Vec<JoinHandle<()>>,
}

impl Sniff {
    /// At the cluster of the tests.
    pub fn at_cluster(arguments: &[&str]) -> Self {
        Self::start(at_cluster(arguments))
    }

    /// The same in one place, with rows as JSON.
    pub fn at_place(place: &Place, arguments: &[&str]) -> Self {
        Self::at_cluster(&[arguments, &["-n", &place.namespace, "-o", "json"]].concat())
    }

    pub fn start(command: Command) -> Self {
        let mut sniff = Self::unread(command);
        sniff.read();
        sniff
    }

    /// One whose rows nobody reads until [`Sniff::read`].
    pub fn unread(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::default();
        let readers = vec![collect(child.stderr.take().unwrap(), Arc::clone(&stderr))];
        let unread = child.stdout.take();
        Self { child, stdout: Arc::default(), stderr, unread, readers }
    }

    /// Reads its rows from now on.
    pub fn read(&mut self) {
        if let Some(stdout) = self.unread.take() {
            self.readers.push(collect(stdout, Arc::clone(&self.stdout)));
        }
    }

    /// Waits until it has said so many lines with `text` on stderr.
    pub fn says(&self, text: &str, times: usize) {
        let mut said = lines_with(&self.stderr, text);
        self.wait(&format!("{times} × {text:?}"), || said() >= times);
    }

    /// Waits until it has printed so many lines with `text`.
    pub fn prints(&self, text: &str, times: usize) {
        let mut printed = lines_with(&self.stdout, text);
        self.wait(&format!("{times} × {text:?} on stdout"), || printed() >= times);
    }

    /// The entries of `-o json` that it has printed so far.
    pub fn entries(&self) -> Vec<serde_json::Value> {
        let stdout = self.stdout.lock().unwrap().clone();
        stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn wait(&self, what: &str, mut is_there: impl FnMut() -> bool) {
        let since = Instant::now();
        while !is_there() {
            let said = self.stderr.lock().unwrap();
            assert!(since.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}; stderr:\n{said}");
            drop(said);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An end without a word.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C.
    pub fn interrupt(self) -> Done {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        self.end()
    }

    /// Ctrl-C until it is gone.
    pub fn interrupt_at_once(mut self) -> Done {
        let id = self.child.id().to_string();
        while self.child.try_wait().unwrap().is_none() {
            Command::new("kill").args(["-INT", &id]).status().unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        self.end()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Done {
        let since = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if since.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("it does not end; stderr:\n{}", self.stderr.lock().unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let take = |text: &Mutex<String>| std::mem::take(&mut *text.lock().unwrap());
        Done { status, stdout: take(&self.stdout), stderr: take(&self.stderr) }
    }
}

impl Drop for Sniff {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts the lines with `text`, and looks at each of them once: there may be many megabytes.
fn lines_with(all: &Mutex<String>, text: &str) -> impl FnMut() -> usize {
    let (mut looked_at, mut count) = (0, 0);
    move || {
        let all = all.lock().unwrap();
        count += all[looked_at..].lines().filter(|line| line.contains(text)).count();
        looked_at = all.len();
        count
    }
}

fn collect(from: impl Read + Send + 'static, to: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let mut to = to.lock().unwrap();
            to.push_str(&String::from_utf8_lossy(&line));
            to.push('\n');
        }
    })
}
