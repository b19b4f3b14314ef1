//! `kubectl sniff`: the traffic of Kubernetes pods as request/response rows.
//!
//! # Architecture
//!
//! ```text
//! in the pod   AF_PACKET ring → capture filter → master PCAP (bounded, numbered) ─ sniff-agent stream ─┐ exec stdout
//! at the user  ┌ pcapng ───────────────────────────────────────────────────────────────────────────────┘
//!              └ Source → Frame → decode → Packet → flow table → reassembly → Chunk|Gap → detect → Dissector
//!                → Message → pair → Entry → resolve (IP → pod/service) → Sink → row
//! ```
//!
//! The right half is one engine without I/O, clock, async or Kubernetes in it: time comes from frames only, so the same
//! capture gives the same bytes out. A live pod, `--pcap FILE` and a test fixture all feed that same engine.
//!
//! # Layers
//!
//! Imports go one way: [`commands`] → [`cluster`], [`output`] → [`pipeline`] → [`capture`], [`dissect`] → [`flow`] →
//! [`entry`]. The pipeline defines the seams ([`pipeline::Sink`], [`pipeline::Resolve`]); the layers to its left implement
//! them. The agent sees [`capture`] and its own `agent` only.
//!
//! # Words
//!
//! *frame*: bytes, time and link type. *packet*: its decoded L2–L4. *segment*: a TCP payload. *flow*: a 5-tuple, both ways.
//! *stream*: one ordered direction of a flow, made of *chunks* and *gaps*. *dissector*: turns streams into *messages* (one
//! half each). *entry*: one row, i.e. request, response and latency. *target*: a pod to be sniffed. *agent*: our process in
//! that pod. *master PCAP*: the agent's bounded buffer. *session*: a client's connection to agents.

#[cfg(feature = "agent")]
pub mod agent;
pub mod capture;
#[cfg(feature = "cli")]
pub mod cluster;
#[cfg(feature = "cli")]
pub mod commands;
#[cfg(feature = "engine")]
pub mod dissect;
#[cfg(feature = "engine")]
pub mod entry;
#[cfg(feature = "engine")]
pub mod flow;
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod musl;
#[cfg(feature = "cli")]
pub mod output;
#[cfg(feature = "engine")]
pub mod pipeline;
