//! `--keylog pod:PATH`: a TLS key log inside a pod, followed as it grows.
//!
//! The container's own `sh` and `tail` read it, by exec: with the user and the rights of the program that writes it, so no
//! agent needs more than before, and a pod that an agent may not enter (`--via node`) can be read too. What has no shell
//! cannot be read this way; for an agent to look into its files instead would take `SYS_PTRACE`, which `--tls` has.
//!
//! Lines come from whoever is in the pod: they are bounded here and checked where keys are read.

use std::collections::HashSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{AttachParams, AttachedProcess};
use kube::{Api, ResourceExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::Sender;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::client::Cluster;
use super::container;
use super::error::{Error, is_rbac};
use super::event::{Event, send};
use super::flags::Options;
use super::inject::cannot_exec;
use super::watch::Pauses;

/// Ends with its stdin, and so with the connection. What comes there only keeps the connection alive.
const FOLLOW: &str = r#"LC_ALL=C tail -c +1 -F "$1" & while read -r beat; do :; done; kill $!"#;
/// All that is there.
const ONCE: &str = r#"LC_ALL=C exec cat "$1""#;

/// How often a byte goes to the shell.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long reading it once may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much is read at a time, and handed on.
const PIECE: usize = 64 << 10;

/// One key log in one pod.
pub(super) struct KeyLog {
    cluster: Cluster,
    namespace: String,
    pod: String,
    container: String,
    path: String,
    events: Sender<Event>,
    /// What was told of it already.
    told: HashSet<String>,
}

/// Why a connection is over.
enum Over {
    /// It may be tried again.
    Cut,
    /// Nothing more will come.
    Done,
    Failed(Error),
}

impl KeyLog {
    /// The key logs that are wanted of a pod, in the container that is meant.
    ///
    /// # Errors
    /// If the pod has no such container.
    pub(super) fn of(
        pod: &Pod,
        cluster: &Cluster,
        options: &Options,
        events: &Sender<Event>,
    ) -> Result<Vec<Self>, Error> {
        if options.key_logs.is_empty() {
            return Ok(Vec::new());
        }
        let container = container::named(pod, options.container.as_deref())?;
        let logs = options.key_logs.iter().map(|path| Self {
            cluster: cluster.clone(),
            namespace: pod.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            container: container.clone(),
            path: path.clone(),
            events: events.clone(),
            told: HashSet::new(),
        });
        Ok(logs.collect())
    }

    /// Hands on what it holds and what is added to it, until dropped; a container that starts again is read again.
    pub(super) async fn follow(mut self) {
        let mut pauses = Pauses::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            match self.read(FOLLOW).await {
                Over::Cut => sleep(pauses.pause()).await,
                Over::Done => return,
                Over::Failed(error) => return self.fail(error).await,
            }
        }
    }

    /// Hands on what it holds.
    pub(super) async fn once(mut self) {
        let error = match timeout(PATIENCE, self.read(ONCE)).await {
            Ok(Over::Done) => return,
            Ok(Over::Failed(error)) => error,
            Ok(Over::Cut) => Error::new("the connection was cut"),
            Err(_) => Error::new(format!("no end within {} s", PATIENCE.as_secs())),
        };
        self.fail(error).await;
    }

    async fn fail(&self, error: Error) {
        let Self { namespace, pod, container, path, .. } = self;
        let message =
            format!("{namespace}/{pod}: cannot read the key log {path} in container {container}: {}", error.message);
        send(&self.events, Event::Trouble(Error { message, ..error })).await;
    }

    async fn read(&mut self, script: &str) -> Over {
        let parameters = AttachParams {
            container: Some(self.container.clone()),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
            max_stdout_buf_size: Some(PIECE),
            ..AttachParams::default()
        };
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        match api.exec(&self.pod, ["sh", "-c", script, "sh", &self.path], &parameters).await {
            Ok(process) => self.take(process).await,
            Err(kube::Error::Api(status)) if is_rbac(&status) => {
                Over::Failed(cannot_exec(&self.namespace, &status.message))
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Over::Done,
            Err(error) => verdict(&error.to_string()),
        }
    }

    /// Hands on what the process writes.
    async fn take(&mut self, mut process: AttachedProcess) -> Over {
        let pipes = (process.stdin(), process.stdout(), process.stderr(), process.take_status());
        let (Some(mut stdin), Some(mut stdout), Some(mut stderr), Some(status)) = pipes else { return Over::Cut };
        let mut status = std::pin::pin!(status);
        let (mut lines, mut said) = (Vec::with_capacity(PIECE), Vec::new());
        let mut stderr_is_open = true;
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            lines.reserve(PIECE);
            tokio::select! {
                read = stdout.read_buf(&mut lines) => match read {
                    Ok(1..) => {
                        let whole = whole_lines(&mut lines);
                        if !whole.is_empty() && !send(&self.events, Event::Keys { lines: whole }).await {
                            return Over::Done;
                        }
                    }
                    Ok(0) | Err(_) => break,
                },
                read = stderr.read_buf(&mut said), if stderr_is_open => {
                    stderr_is_open = matches!(read, Ok(1..));
                    if let Some(failed) = self.hear(&mut said).await {
                        return failed;
                    }
                }
                _ = beat.tick() => {
                    // The end of stdout tells more than this.
                    let _ = stdin.write_all(b"\n").await;
                }
            }
        }
        while stderr_is_open {
            stderr_is_open = matches!(stderr.read_buf(&mut said).await, Ok(1..));
        }
        if let Some(failed) = self.hear(&mut said).await {
            return failed;
        }
        if !lines.is_empty() {
            send(&self.events, Event::Keys { lines }).await;
        }
        match (&mut status).await {
            Some(status) if status.status.as_deref() == Some("Success") => Over::Done,
            Some(status) => verdict(status.message.as_deref().unwrap_or_default()),
            None => Over::Cut,
        }
    }

    /// What the programs say of the file; none if it may still come.
    async fn hear(&mut self, said: &mut Vec<u8>) -> Option<Over> {
        let text = whole_lines(said);
        for line in String::from_utf8_lossy(&text).lines() {
            if line.ends_with("not found") {
                return Some(Over::Failed(no_program()));
            }
            let Some(cause) = ["No such file or directory", "Permission denied", "Is a directory"]
                .into_iter()
                .find(|cause| line.ends_with(cause))
                .filter(|cause| self.told.insert((*cause).to_owned()))
            else {
                continue;
            };
            let (pod, path) = (format!("{}/{}", self.namespace, self.pod), &self.path);
            if cause.starts_with("No such") {
                let note = format!("{pod}: no key log {path} in container {} yet; it may come", self.container);
                send(&self.events, Event::Note(note)).await;
            } else {
                self.fail(Error::new(cause)).await;
            }
        }
        None
    }
}

/// Takes the lines that have their ends. What is longer than any line should be is dropped.
fn whole_lines(bytes: &mut Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let rest = bytes.split_off(end);
    let whole = std::mem::replace(bytes, rest);
    if bytes.len() > PIECE {
        bytes.clear();
    }
    whole
}

/// What the end of a command means.
fn verdict(message: &str) -> Over {
    let is_missing = |what| message.contains(what);
    if is_missing("executable file not found") || (is_missing("exec") && is_missing("no such file or directory")) {
        return Over::Failed(no_program());
    }
    if message.contains("completed") { Over::Done } else { Over::Cut }
}

fn no_program() -> Error {
    Error::new("it has no sh and tail to read it with").hint(
        "--tls takes keys from processes, without a file; or have the log written to a volume that a container with a \
         shell mounts too (-c), or to your machine (--keylog FILE)",
    )
}
