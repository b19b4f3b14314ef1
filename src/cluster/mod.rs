//! All Kubernetes: which pods, the agent in them, the stream from them, names for addresses.
