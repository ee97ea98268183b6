//! The socket that systemd gives a daemon as its standard input (`StandardInput=socket`).

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::sockopt::socket_acceptconn;

/// The listening socket that is this process's standard input, if it is one.
#[must_use]
pub fn inherited_listener() -> Option<OwnedFd> {
    let stdin = std::io::stdin();
    if !socket_acceptconn(&stdin).unwrap_or(false) {
        return None;
    }
    stdin.as_fd().try_clone_to_owned().ok()
}
