//! The socket where clients come: a thread for each of them, up to a limit.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Daemon, MOST_SESSIONS, STACK, TICK};
use crate::agent::{Error, process, session};

/// The most connections at a time, those that only ask included.
const MOST_CONNECTIONS: usize = 2 * MOST_SESSIONS;

/// Listens where only root of this container comes. A socket that nobody listens on any more is removed.
pub(super) fn listen(path: &Path) -> Result<UnixListener, Error> {
    let cannot = |cause: io::Error| {
        let error = Error::new(format!("cannot listen on {}: {cause}", path.display()));
        match cause.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                error.hint("the agent needs a directory that it can write: run it as root, or give --socket")
            }
            _ => error,
        }
    };
    if UnixStream::connect(path).is_ok() {
        return Err(Error::new(format!("an agent already listens on {}", path.display()))
            .hint("`sniff-agent status` tells about it, `sniff-agent stop` ends it"));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(cannot)?;
    }
    let listener = UnixListener::bind(path).map_err(cannot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(listener)
}

impl Daemon {
    /// Gives each connection a thread, up to the limit.
    pub(super) fn accept(&'static self, listener: &UnixListener) {
        for connection in listener.incoming() {
            match connection {
                Ok(connection) => self.serve(connection),
                // Out of descriptors, say: it passes.
                Err(_) => std::thread::sleep(TICK),
            }
        }
    }

    fn serve(&'static self, connection: UnixStream) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            // Whoever does not read this is gone.
            let _ = session::refuse(&connection, &format!("the agent already has {MOST_CONNECTIONS} connections"));
            return;
        }
        let served = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            process::be_nice(process::SESSION);
            // Whatever ends it, the other side has seen it or is gone.
            let _ = session::serve(self, connection);
            self.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
