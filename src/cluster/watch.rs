//! Follows objects of the cluster as they come, change and go.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::hash::BuildHasher;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;

use super::client::Cluster;
use super::error::{Error, Request};

/// Objects that a list asks for at a time.
const PAGE: u32 = 500;

/// How close to each other failures count as one trouble.
const TOGETHER: Duration = Duration::from_secs(15);

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Change<K> {
    /// The object is there: new, changed, or the same as before.
    There(K),
    /// The object with that UID is gone, or no longer what was asked for.
    Gone { uid: String, deleted: bool },
    /// All that are there have been told, for the first time or again.
    Listed,
    /// The watch fails, and is tried again and again.
    Trouble(Error),
    /// The watch is not allowed or makes no sense, and has ended.
    Denied(Error),
}

/// Tells `changes` of the objects that `config` selects, until nobody listens or the API server refuses.
pub(super) async fn follow<K>(
    cluster: &Cluster,
    api: Api<K>,
    config: watcher::Config,
    request: Request<'_>,
    changes: Sender<Change<K>>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let selects = config.label_selector.is_some() || config.field_selector.is_some();
    let pauses = Pauses::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut events = pin!(watch(api, config.page_size(PAGE)).backoff(pauses));
    let mut known: HashSet<String> = HashSet::new();
    let mut listing: HashSet<String> = HashSet::new();
    let mut is_listed = false;
    let mut failed: Option<Instant> = None;
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listing.extend(object.uid());
                Change::There(object)
            }
            Ok(Event::InitDone) => {
                for uid in known.difference(&listing) {
                    if changes.send(Change::Gone { uid: uid.clone(), deleted: !selects }).await.is_err() {
                        return;
                    }
                }
                known = std::mem::take(&mut listing);
                is_listed = true;
                Change::Listed
            }
            Ok(Event::Apply(object)) => {
                known.extend(object.uid());
                Change::There(object)
            }
            Ok(Event::Delete(object)) => {
                let uid = object.uid().unwrap_or_default();
                known.remove(&uid);
                // An object that no longer matches the selector is reported as if it were deleted.
                let deleted = !selects || object.meta().deletion_timestamp.is_some();
                Change::Gone { uid, deleted }
            }
            Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) => {
                let refused =
                    matches!(&error, kube::Error::Api(status) if matches!(status.code, 400 | 401 | 403 | 404));
                let error = Error::of(&request, &cluster.server, &error);
                if refused && !is_listed {
                    let _ = changes.send(Change::Denied(error)).await;
                    return;
                }
                // Once is nothing: servers restart, and connections are cut.
                if failed.replace(Instant::now()).is_none_or(|before| before.elapsed() > TOGETHER) {
                    continue;
                }
                Change::Trouble(error)
            }
            // A watch that ends is started again; if that fails, it is told.
            Err(_) => continue,
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// Pauses between attempts: each twice as long as the one before, and shorter by up to a half at random, so that many
/// who lost the same server do not come back at once.
#[derive(Debug)]
pub(super) struct Pauses {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Pauses {
    pub(super) fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        let thousandths = 500 + RandomState::new().hash_one(0) % 501;
        pause * (thousandths as u32) / 1000
    }

    /// An attempt succeeded: the next pause is the shortest again.
    pub(super) fn start_again(&mut self) {
        self.next = self.least;
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.pause())
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.start_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(5));
        for most in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let pause = pauses.pause().as_millis();
            assert!((most / 2..=most).contains(&pause), "{pause} of {most}");
        }
        pauses.start_again();
        assert!(pauses.pause().as_millis() <= 100);
    }
}
