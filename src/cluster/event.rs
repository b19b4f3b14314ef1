//! What a session tells.

use tokio::sync::mpsc::Sender;

use super::error::Error;
use crate::capture::Batch;

/// What a session tells. `tap` numbers the pods that are sniffed, from 1; a pod that comes back has a new number. Where nodes
/// capture, they have numbers too, and packets come under theirs.
#[derive(Debug)]
pub enum Event {
    /// No pod is there that could be sniffed; those that come will be.
    Waiting,
    /// A pod that was asked for cannot be sniffed.
    Skipped { pod: String, reason: String },
    /// A pod is there, and an agent is on its way.
    Appeared { tap: u32, pod: String, node: String },
    /// Packets of pods come from a node, and an agent is on its way there.
    OnNode { tap: u32, node: String },
    /// Its agent streams.
    Attached { tap: u32, container: String, reused: bool },
    /// Packets and notes, each once and in order.
    Batch { tap: u32, batch: Batch },
    /// Lines of a key log in a pod.
    Keys { lines: Vec<u8> },
    /// The connection is cut, and is tried again and again; the agent goes on capturing.
    Disconnected { tap: u32, reason: String },
    /// It is back after a [`Event::Disconnected`].
    Resumed { tap: u32 },
    /// Another agent streams from the pod than before: interfaces and counters start again.
    Restarted { tap: u32 },
    /// The agent is gone though the pod is not; another one is put there. What passed meanwhile was not captured.
    Interrupted { tap: u32, error: Error },
    /// So many packets never came, besides those that the agent reports as flushed.
    Lost { tap: u32, count: u64 },
    /// A pod cannot be sniffed, or no longer; the others go on.
    Failed { tap: u32, pod: String, error: Error },
    /// A pod is gone or no longer selected.
    Left { tap: u32, pod: String, reason: String },
    /// The cluster does not tell of pods that come and go, or not of all; what is attached goes on.
    Trouble(Error),
    /// An agent records in the pod from now on, whether somebody reads or not.
    Armed { tap: u32, pod: String, container: String, reused: bool },
    /// Something worth knowing.
    Note(String),
}

/// Hands an event on; false if nobody wants it.
pub(super) async fn send(events: &Sender<Event>, event: Event) -> bool {
    events.send(event).await.is_ok()
}
