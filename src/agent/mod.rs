//! The agent: fills the master PCAP and serves sessions.
