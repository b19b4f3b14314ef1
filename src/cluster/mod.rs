//! All Kubernetes: which pods, the agent in them, the stream from them, names for addresses.
//!
//! Owns the connection to the API server and everything that goes over it. Never prints: what people should know is an
//! [`Event`] or an [`Error`]. Never dissects.

pub mod agents;
mod backlog;
mod client;
mod container;
mod error;
mod event;
mod exec;
pub mod flags;
mod inject;
mod keylog;
mod ledger;
mod node;
mod pod;
mod recording;
mod resolve;
mod select;
mod session;
mod spill;
mod startup;
mod stream;
mod watch;
mod workload;

pub use backlog::Backlog;
pub use client::Cluster;
pub use error::Error;
pub use event::Event;
pub use resolve::Names;
pub use select::Selection;
pub use session::run;

/// The agent image of this version.
pub const DEFAULT_IMAGE: &str = concat!("ghcr.io/kubectl-sniff/sniff-agent:", env!("CARGO_PKG_VERSION"));

/// Tells everything that goes on when it is to end: once the sender says true, or is gone.
#[derive(Clone, Debug)]
pub struct Stop(tokio::sync::watch::Receiver<bool>);

impl Stop {
    /// The sender stops all clones.
    pub fn new() -> (tokio::sync::watch::Sender<bool>, Self) {
        let (sender, receiver) = tokio::sync::watch::channel(false);
        (sender, Self(receiver))
    }

    /// Returns when it is to end.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
