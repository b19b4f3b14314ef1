//! All Kubernetes: which pods, the agent in them, the stream from them, names for addresses.

/// The agent image of this version.
pub const DEFAULT_IMAGE: &str = concat!("ghcr.io/kubectl-sniff/sniff-agent:", env!("CARGO_PKG_VERSION"));
