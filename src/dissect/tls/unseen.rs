//! Why keys are missing where agents have probes for them: what each pod's agent says of its own.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};

use crate::entry::Text;

/// What rows say of which the probes have seen no keys; what the agent knows of the reason follows.
const UNSEEN: &str = "the probes have not seen its keys";

/// Reasons by tap, i.e. by pod.
#[derive(Default)]
pub(super) struct Unseen(Mutex<HashMap<u32, Pod>>);

/// What is known of a pod with probes.
#[derive(Default)]
struct Pod {
    /// Of connections of which no more is known than that they are the pod's.
    reason: Text,
    /// Of those that have such an end there.
    sockets: HashMap<SocketAddr, Text>,
    /// Reasons for which a connection's keys were missing, and of these, those that nobody has been told.
    met: HashSet<Text>,
    news: Vec<Text>,
}

impl Unseen {
    /// The pod's agent has probes, and says this of what they miss; nothing if it knows of nothing. Of some sockets it knows why.
    pub fn explain(&self, tap: u32, excuse: &str, sockets: impl IntoIterator<Item = (SocketAddr, Text)>) {
        let mut pods = self.lock();
        let pod = pods.entry(tap).or_default();
        pod.reason = if excuse.is_empty() { UNSEEN.into() } else { format!("{UNSEEN}; {excuse}").into() };
        pod.sockets.clear();
        pod.sockets.extend(sockets);
    }

    /// Why a connection of client and server that the pod sees has no keys; none if there are no probes.
    pub fn meet(&self, tap: u32, [client, server]: [SocketAddr; 2]) -> Option<Text> {
        let mut pods = self.lock();
        let pod = pods.get_mut(&tap)?;
        // Within the pod, the keys of a server that has no probes are those of a client that may have.
        let ends = [Some(client), Some(server).filter(|server| server.ip() != client.ip())];
        let reason = ends.into_iter().flatten().find_map(|end| pod.sockets.get(&end)).unwrap_or(&pod.reason).clone();
        if pod.met.insert(reason.clone()) {
            pod.news.push(reason.clone());
        }
        Some(reason)
    }

    /// The reasons that were met since the last call, each once.
    pub fn take(&self) -> Vec<(u32, Text)> {
        self.lock().iter_mut().flat_map(|(tap, pod)| pod.news.drain(..).map(|reason| (*tap, reason))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Pod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
    use super::*;

    const JAVA: &str = "the probes do not know the TLS of its program, java (Java's own)";

    /// What is met on a connection of these.
    fn met(unseen: &Unseen, client: &str, server: &str) -> Option<String> {
        let ends = [client, server].map(|end| end.parse().unwrap());
        unseen.meet(1, ends).map(String::from)
    }

    #[test]
    fn a_reason_is_told_once_it_matters_and_again_if_it_changes() {
        let unseen = Unseen::default();
        let meet = || met(&unseen, "10.0.0.1:40000", "10.0.0.2:443");
        assert_eq!(meet(), None);
        unseen.explain(1, "", []);
        assert!(unseen.take().is_empty());
        assert_eq!(meet().as_deref(), Some(UNSEEN));
        assert_eq!(unseen.take().len(), 1);
        unseen.explain(1, "", []);
        assert!(meet().is_some() && unseen.take().is_empty());
        unseen.explain(1, "they do not know the TLS of java (Java's own)", []);
        assert!(unseen.take().is_empty() && meet().is_some());
        let told = unseen.take();
        let expected = "the probes have not seen its keys; they do not know the TLS of java (Java's own)";
        assert_eq!(told.first().map(|(tap, reason)| (*tap, &**reason)), Some((1, expected)));
    }

    #[test]
    fn a_connection_has_the_reason_of_its_own_socket() {
        let unseen = Unseen::default();
        let java = ["10.0.0.1:8443", "10.0.0.1:40000", "127.0.0.1:8443"];
        unseen.explain(1, "", java.map(|socket| (socket.parse().unwrap(), JAVA.into())));
        let reason = |client, server| met(&unseen, client, server).unwrap();
        assert_eq!(reason("10.0.0.2:50000", "10.0.0.1:8443"), JAVA);
        assert_eq!(reason("10.0.0.1:40000", "10.0.0.2:443"), JAVA);
        assert_eq!(reason("10.0.0.1:40001", "10.0.0.2:443"), UNSEEN);
        assert_eq!(reason("127.0.0.1:40001", "127.0.0.1:8443"), UNSEEN);
        assert_eq!(unseen.take().len(), 2);
        // What is no longer told of may be another's.
        unseen.explain(1, "", []);
        assert_eq!(reason("10.0.0.1:40000", "10.0.0.2:443"), UNSEEN);
        assert!(unseen.take().is_empty());
    }
}
