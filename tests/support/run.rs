//! A session inside the test's process, with all that it tells.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use kubectl_sniff::capture::Note;
use kubectl_sniff::cluster::flags::{Connection, Options, Select};
use kubectl_sniff::cluster::{self, Cluster, DEFAULT_IMAGE, Event, Names, Selection, Stop};

use super::cluster::{PATIENCE, Place, kubeconfig};

impl Place {
    pub fn select(&self, pods: &str) -> Select {
        Select {
            pods: Some(pods.to_owned()),
            namespace: vec![self.namespace.clone()],
            max_targets: 100,
            ..Select::default()
        }
    }

    pub async fn run(&self, pods: &str) -> Run {
        Run::start(&Connection::default(), &self.select(pods), options()).await
    }
}

pub fn options() -> Options {
    let image = std::env::var("SNIFF_TEST_AGENT_IMAGE").unwrap_or_else(|_| DEFAULT_IMAGE.to_owned());
    Options { buffer: 4 << 20, start_timeout: PATIENCE, image, ..Options::default() }
}

/// A session, with what it has told so far.
pub struct Run {
    events: Receiver<Event>,
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<Result<(), cluster::Error>>,
    /// What it told, but for batches.
    pub told: Vec<String>,
    /// Numbers of the packets that came.
    pub ids: Vec<u64>,
    /// How often an agent said hello.
    pub connections: usize,
    /// Packets that were told to have been flushed before they were read: number of the first, and how many.
    pub flushed: Vec<(u64, u64)>,
    /// What the kernel dropped, by interface, as told last.
    pub dropped: BTreeMap<u32, u64>,
    pub names: std::sync::Arc<Names>,
}

impl Run {
    pub async fn start(connection: &Connection, select: &Select, options: Options) -> Self {
        let connection = Connection {
            kubeconfig: Some(kubeconfig().to_owned()),
            request_timeout: Duration::from_secs(30),
            ..connection.clone()
        };
        let cluster = Cluster::connect(&connection).await.expect("a cluster");
        let selection = Selection::new(select, cluster.namespace()).expect("a selection");
        let (sender, events) = tokio::sync::mpsc::channel(16);
        let names = Names::watch(&cluster, selection.namespaces(), &sender);
        let (stop, stopped) = Stop::new();
        let task = tokio::spawn(async move { cluster::run(&cluster, selection, options, sender, stopped).await });
        Self {
            events,
            stop,
            task,
            told: Vec::new(),
            ids: Vec::new(),
            connections: 0,
            flushed: Vec::new(),
            dropped: BTreeMap::new(),
            names,
        }
    }

    /// Waits for an event, and returns what `wanted` makes of it.
    pub async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let Ok(Some(event)) = event else { panic!("no {what}; told: {:#?}", self.told) };
            let found = wanted(&event);
            self.take(event);
            if let Some(found) = found {
                return found;
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Batch { batch, .. } => {
                self.ids.extend(batch.frames.iter().filter_map(|frame| frame.id));
                for note in &batch.notes {
                    match note {
                        Note::Flushed { from, count } => self.flushed.push((*from, *count)),
                        Note::Statistics { interface, dropped: Some(dropped), .. } => {
                            self.dropped.insert(*interface, *dropped);
                        }
                        Note::Hello(_) => self.connections += 1,
                        Note::End(words) => self.told.push(format!("End({words})")),
                        _ => {}
                    }
                }
            }
            other => self.told.push(format!("{other:?}")),
        }
    }

    pub async fn attached(&mut self) -> (String, bool) {
        self.until("agent that streams", |event| match event {
            Event::Attached { container, reused, .. } => Some((container.clone(), *reused)),
            _ => None,
        })
        .await
    }

    pub async fn packets(&mut self, count: usize) {
        let mut seen = 0;
        self.until("packets", |event| {
            if let Event::Batch { batch, .. } = event {
                seen += batch.frames.len();
            }
            (seen >= count).then_some(())
        })
        .await;
    }

    pub async fn failed(&mut self) -> (String, Option<String>) {
        self.until("failure", |event| match event {
            Event::Failed { error, .. } => Some((error.message.clone(), error.hint.clone())),
            _ => None,
        })
        .await
    }

    pub async fn left(&mut self) -> String {
        self.until("pod that leaves", |event| match event {
            Event::Left { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Stops it; returns how long that took.
    pub async fn stop(mut self) -> Duration {
        let since = Instant::now();
        self.end().await;
        self.task.await.expect("no panic").expect("no error");
        since.elapsed()
    }

    /// Stops it, and takes what it still tells.
    pub async fn end(&mut self) {
        self.stop.send_replace(true);
        while let Some(event) = self.events.recv().await {
            self.take(event);
        }
    }
}
