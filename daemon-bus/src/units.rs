//! Which processes may take the names of our own daemons where systemd started them: those that it gave the name's socket.
//!
//! For each name there is a socket unit. The user's systemd listens on it and hands it to the one service it belongs to;
//! the kernel remembers with every listening socket which process called listen(2) (SO_PEERCRED of the socket itself). So
//! a socket that our own parent made, bound to the path of a name, is in the hands of the service that has it by its unit,
//! and of nobody else: nothing leads from the path, or from being in the service's control group, to the descriptor, and
//! a daemon's descriptors cannot be taken from it. Whoever may write units may have one, as he may replace our programs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{SocketAddrUnix, getsockname};
use rustix::process::getppid;

/// The user's systemd, which made the socket of the bus, and those of the names.
pub(crate) struct Units {
    maker: i32,
}

impl Units {
    /// Takes the process that made the bus's own socket for the user's systemd, if it is our parent.
    ///
    /// # Errors
    /// It is another process, so it is not systemd that started the bus, or the socket is not at `path`.
    pub(crate) fn of(listener: impl AsFd, path: &Path) -> io::Result<Self> {
        let parent = getppid().map_or(0, |parent| parent.as_raw_pid());
        let units = Self { maker: parent };
        if units.made(&listener, path) {
            return Ok(units);
        }
        let what = format!(
            "the socket on standard input is not one that the parent process {parent} made at {}",
            path.display()
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }

    /// Whether one of the descriptors that a process `shows` is the socket of the name at `path`.
    pub(crate) fn vouch(&self, path: &Path, shows: &[OwnedFd]) -> bool {
        shows.iter().any(|shown| self.made(shown, path))
    }

    /// Whether systemd listens on this socket at this path.
    fn made(&self, socket: impl AsFd, path: &Path) -> bool {
        let listening = socket_acceptconn(&socket).unwrap_or(false);
        let maker = getsockopt(&socket, sockopt::PeerCredentials).map(|credentials| credentials.pid());
        let address = getsockname(&socket).ok().and_then(|address| SocketAddrUnix::try_from(address).ok());
        let place = address.as_ref().and_then(|address| address.path_bytes());
        listening && maker == Ok(self.maker) && place == Some(path.as_os_str().as_encoded_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn own() -> Units {
        Units { maker: i32::try_from(std::process::id()).unwrap() }
    }

    #[test]
    fn a_name_is_for_who_holds_the_socket_that_systemd_made_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let listening: OwnedFd = UnixListener::bind(at("name")).unwrap().into();
        let other: OwnedFd = UnixListener::bind(at("other")).unwrap().into();
        let connected: OwnedFd = UnixStream::connect(at("name")).unwrap().into();
        assert!(own().vouch(&at("name"), &[other, listening]));
        let other: OwnedFd = UnixListener::bind(at("third")).unwrap().into();
        assert!(!own().vouch(&at("name"), &[other]), "another name's");
        assert!(!own().vouch(&at("name"), &[]));
        assert!(!own().vouch(&at("name"), &[connected]), "a connection to it is not the socket");
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        assert!(!own().vouch(&at("name"), &[file]));
    }

    #[test]
    fn a_socket_that_another_process_made_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("name");
        let ours: OwnedFd = UnixListener::bind(&path).unwrap().into();
        assert!(!Units { maker: 1 }.vouch(&path, &[ours.try_clone().unwrap()]));
        assert!(Units::of(&ours, &path).is_err(), "we made it, and not our parent");
    }
}
