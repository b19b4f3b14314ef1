//! `PF_RING`: a kernel module that hands frames to a libpcap that is built for it, so the backend is [`libpcap`](super::libpcap)'s.
//!
//! All that is done here is to tell what is missing where it does not work.

use std::path::Path;

use super::backend::{Backend, Unusable, Wanted};
use super::libpcap;

/// What the module shows when it is loaded.
const MODULE: &str = "/proc/net/pf_ring/info";

/// Begins to capture.
///
/// # Errors
/// [`Unusable`] without the module, or without such a libpcap.
pub fn open(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>, Unusable> {
    if !Path::new(MODULE).exists() {
        return Err(Unusable::missing(
            format!("this node's kernel has no PF_RING ({MODULE} is missing)"),
            "load the module pf_ring on the node, or use --backend af_packet",
        ));
    }
    match libpcap::version() {
        version if version.contains("PF_RING") => libpcap::open_as("pf_ring", wanted),
        version if version.is_empty() => Err(Unusable::missing(
            "this agent is built without libpcap, which is how PF_RING is used",
            "image/README.md says how to build it with one",
        )),
        version => Err(Unusable::missing(
            format!("this agent's libpcap is not built for PF_RING (it is {version})"),
            "image/README.md says how to build the agent with one that is",
        )),
    }
}
