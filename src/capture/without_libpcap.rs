//! What stands in for libpcap in a binary that is built without it.

use super::backend::{Backend, Unusable, Wanted};

/// Empty: there is no libpcap.
#[must_use]
pub fn version() -> String {
    String::new()
}

/// Says so.
///
/// # Errors
/// Always.
pub fn open(wanted: &Wanted<'_>) -> Result<Box<dyn Backend>, Unusable> {
    open_as("libpcap", wanted)
}

/// Says so.
///
/// # Errors
/// Always.
pub fn open_as(_: &'static str, _: &Wanted<'_>) -> Result<Box<dyn Backend>, Unusable> {
    Err(Unusable::missing(
        "this agent is built without libpcap",
        "use --backend af_packet, or build it with the feature `libpcap`: see image/README.md",
    ))
}
