//! Why connections lack keys, with `--tls`: once for each pod and reason, as soon as there is such a connection.

use crate::dissect::Keys;
use crate::output::status::Status;

/// Tells the reasons.
#[derive(Default)]
pub struct Excuses {
    /// It was said what to do about it.
    is_hinted: bool,
}

impl Excuses {
    /// Tells those that are new; `pod` knows the names of the pods that are sniffed.
    pub fn tell<'a>(&mut self, keys: &Keys, status: &Status, pod: impl Fn(u32) -> Option<&'a String>) {
        for (tap, reason) in keys.take_unseen() {
            let pod = pod(tap).map_or("a pod that has left", String::as_str);
            status.warning(&format!("{pod}: TLS that stays closed: {reason}"));
            if !std::mem::replace(&mut self.is_hinted, true) {
                status.hint(
                    "--tls reads the processes of one container, -c names another; --keylog takes keys that a program logs",
                );
            }
        }
    }
}
