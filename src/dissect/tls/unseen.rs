//! Why keys are missing where agents have probes for them: what each pod's agent says of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::entry::Text;

/// What rows say of which the probes have seen no keys; what the agent knows of the reason follows.
const UNSEEN: &str = "the probes have not seen its keys";

/// Reasons by tap, i.e. by pod.
#[derive(Default)]
pub(super) struct Unseen(Mutex<HashMap<u32, Pod>>);

/// What is known of a pod with probes.
struct Pod {
    reason: Text,
    /// A connection's keys were missing, and nobody has been told.
    is_news: bool,
    /// It has been told.
    is_told: bool,
}

impl Unseen {
    /// The pod's agent has probes, and says this of what they miss; nothing if it knows of nothing.
    pub fn explain(&self, tap: u32, excuse: &str) {
        let reason = if excuse.is_empty() { UNSEEN.into() } else { format!("{UNSEEN}; {excuse}").into() };
        let mut pods = self.lock();
        if pods.get(&tap).is_none_or(|pod| pod.reason != reason) {
            pods.insert(tap, Pod { reason, is_news: false, is_told: false });
        }
    }

    /// Why a connection that the pod sees has no keys; none if there are no probes.
    pub fn meet(&self, tap: u32) -> Option<Text> {
        let mut pods = self.lock();
        let pod = pods.get_mut(&tap)?;
        pod.is_news = !pod.is_told;
        Some(pod.reason.clone())
    }

    /// The reasons that were met since the last call, each once.
    pub fn take(&self) -> Vec<(u32, Text)> {
        let mut news = Vec::new();
        for (tap, pod) in self.lock().iter_mut().filter(|(_, pod)| pod.is_news) {
            (pod.is_news, pod.is_told) = (false, true);
            news.push((*tap, pod.reason.clone()));
        }
        news
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Pod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_it_matters_and_again_if_it_changes() {
        let unseen = Unseen::default();
        assert_eq!(unseen.meet(1), None);
        unseen.explain(1, "");
        assert!(unseen.take().is_empty());
        assert_eq!(unseen.meet(1).as_deref(), Some(UNSEEN));
        assert_eq!(unseen.take().len(), 1);
        unseen.explain(1, "");
        assert!(unseen.meet(1).is_some() && unseen.take().is_empty());
        unseen.explain(1, "they do not know the TLS of java (Java's own)");
        assert!(unseen.take().is_empty() && unseen.meet(1).is_some());
        let told = unseen.take();
        let expected = "the probes have not seen its keys; they do not know the TLS of java (Java's own)";
        assert_eq!(told.first().map(|(tap, reason)| (*tap, &**reason)), Some((1, expected)));
    }
}
