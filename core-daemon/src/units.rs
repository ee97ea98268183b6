//! How our processes know each other where systemd started them: by the sockets that it gave them.
//!
//! For each name on the bus there is a socket unit, and one for the launcher's spawner. The user's systemd listens on it and hands it to the one service it belongs to;
//! the kernel remembers with every listening socket which process called listen(2) (SO_PEERCRED of the socket itself). So
//! a socket that our own parent made, bound to the path of a unit, is in the hands of the service that has it by its unit,
//! and of nobody else: nothing leads from the path, or from being in the service's control group, to the descriptor, and
//! a daemon's descriptors cannot be taken from it. Whoever may write units may have one, as he may replace our programs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{SocketAddrAny, SocketAddrUnix, getpeername, getsockname};
use rustix::process::getppid;

/// The user's systemd, which made the sockets.
#[derive(Debug)]
pub struct Units {
    maker: i32,
}

impl Units {
    /// Takes the process that made our own socket at `path` for the user's systemd, if it is our parent.
    ///
    /// # Errors
    /// It is another process, so it is not systemd that started us, or the socket is not at `path`.
    pub fn of(listener: impl AsFd, path: &Path) -> io::Result<Self> {
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

    /// Whether one of the descriptors that a process `shows` is the socket of the unit at `path`, so that the process is
    /// of that unit.
    #[must_use]
    pub fn vouch(&self, path: &Path, shows: &[OwnedFd]) -> bool {
        shows.iter().any(|shown| self.made(shown, path))
    }

    /// Whether a connection leads to the unit whose socket is at `path`, or will once it has started.
    #[must_use]
    pub fn lead(&self, connection: impl AsFd, path: &Path) -> bool {
        self.is_maker(&connection) && is_at(getpeername(&connection).ok().flatten(), path)
    }

    /// Whether systemd listens on this socket at this path.
    fn made(&self, socket: impl AsFd, path: &Path) -> bool {
        let listening = socket_acceptconn(&socket).unwrap_or(false);
        listening && self.is_maker(&socket) && is_at(getsockname(&socket).ok(), path)
    }

    /// Whether systemd called listen(2) for the socket, or for the one that this one is connected to (unix(7)).
    fn is_maker(&self, socket: impl AsFd) -> bool {
        let maker = getsockopt(&socket, sockopt::PeerCredentials).map(|credentials| credentials.pid());
        maker == Ok(self.maker)
    }
}

/// Whether this is the address of a socket that was bound to this path, wherever the file is by now.
fn is_at(address: Option<SocketAddrAny>, path: &Path) -> bool {
    let address = address.and_then(|address| SocketAddrUnix::try_from(address).ok());
    let place = address.as_ref().and_then(|address| address.path_bytes());
    place == Some(path.as_os_str().as_encoded_bytes())
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
    fn a_connection_leads_to_the_unit_that_the_path_was_made_for_and_not_to_what_lies_there_now() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let _listening = (UnixListener::bind(at("unit")).unwrap(), UnixListener::bind(at("other")).unwrap());
        let connection = UnixStream::connect(at("unit")).unwrap();
        assert!(own().lead(&connection, &at("unit")) && !own().lead(&connection, &at("other")));
        assert!(!Units { maker: 1 }.lead(&connection, &at("unit")), "another process listens");
        std::fs::rename(at("other"), at("unit")).unwrap();
        assert!(!own().lead(UnixStream::connect(at("unit")).unwrap(), &at("unit")));
        assert!(!own().lead(UnixStream::pair().unwrap().0, &at("unit")));
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
