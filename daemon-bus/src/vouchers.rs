//! Which processes may take the names of our own daemons: those that the supervisor started, by its word.
//!
//! Supervisor and bus hold the two ends of a socket pair that nobody else has. The supervisor says the number of each
//! daemon that it starts; the bus pins the process by a pidfd, so that the number cannot come to mean another one. A
//! bus without a supervisor knows no such word, and then a name belongs to the key that is published for it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use core_daemon::lives;
use core_types::name::{LAUNCHER, PROFILE, SECRETS};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::facts;

/// The names that only the supervisor's children may take.
pub(crate) const OWN_NAMES: [&str; 3] = [SECRETS, PROFILE, LAUNCHER];
/// Longest word of the supervisor that is not whole yet.
const PARTIAL_BYTES_MAX: usize = 256;

/// The supervisor's end: its processes, and the bus that is told of them.
#[derive(Default)]
pub(crate) struct Told {
    processes: BTreeMap<&'static str, u32>,
    bus: Option<UnixStream>,
}

impl Told {
    /// Has a new bus told of all processes so far, and of those to come.
    pub(crate) fn tell(&mut self, bus: UnixStream) -> std::io::Result<()> {
        bus.set_nonblocking(true)?;
        self.bus = Some(bus);
        let all: String = self.processes.iter().map(|(name, pid)| line(name, *pid)).collect();
        self.write(&all)
    }

    /// A daemon was started.
    pub(crate) fn vouch(&mut self, name: &'static str, pid: u32) -> std::io::Result<()> {
        self.processes.insert(name, pid);
        self.write(&line(name, pid))
    }

    /// The process that was vouched for last under a name.
    pub(crate) fn process(&self, name: &str) -> Option<u32> {
        self.processes.get(name).copied()
    }

    fn write(&mut self, text: &str) -> std::io::Result<()> {
        match &mut self.bus {
            Some(bus) => bus.write_all(text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Takes over what an earlier supervisor had vouched for, as its bus remembers it.
    pub(crate) fn inherit(&mut self, mut bus: UnixStream) -> std::io::Result<()> {
        bus.set_nonblocking(true)?;
        let mut text = Vec::new();
        // All of it was written before this process was started; the bus writes nothing later.
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = bus.read(&mut piece) {
            text.extend_from_slice(&piece[..count]);
        }
        self.processes = words(&text).collect();
        self.bus = Some(bus);
        Ok(())
    }
}

fn line(name: &str, pid: u32) -> String {
    format!("{name} {pid}\n")
}

fn words(text: &[u8]) -> impl Iterator<Item = (&'static str, u32)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let (name, pid) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        Some((OWN_NAMES.into_iter().find(|own| *own == name)?, pid.parse().ok()?))
    })
}

struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

/// The bus's end.
pub(crate) struct Vouchers {
    supervisor: UnixStream,
    partial: Vec<u8>,
    processes: BTreeMap<&'static str, Process>,
}

impl Vouchers {
    /// Takes words from this supervisor from now on.
    pub(crate) fn new(supervisor: UnixStream) -> std::io::Result<Self> {
        supervisor.set_nonblocking(true)?;
        Ok(Self { supervisor, partial: Vec::new(), processes: BTreeMap::new() })
    }

    /// A socket for the next supervisor, on which it finds what the one before has vouched for.
    pub(crate) fn succeed(&mut self) -> std::io::Result<UnixStream> {
        let (ours, mut theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.supervisor = ours;
        self.partial.clear();
        let living = self.processes.iter().filter(|(_, process)| lives(&process.pidfd));
        let all: String = living.map(|(name, process)| line(name, process.pid)).collect();
        self.supervisor.write_all(all.as_bytes())?;
        theirs.flush()?;
        Ok(theirs)
    }

    /// Takes what the supervisor has said; false when it has gone.
    pub(crate) fn listen(&mut self) -> bool {
        let mut piece = [0; 1024];
        loop {
            match self.supervisor.read(&mut piece) {
                Ok(0) => return false,
                Ok(count) => self.partial.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            self.take_lines();
        }
        true
    }

    fn take_lines(&mut self) {
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        for (name, pid) in words(&self.partial[..end]) {
            let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
            match number.map(|number| pidfd_open(number, PidfdFlags::NONBLOCK)) {
                Some(Ok(pidfd)) => drop(self.processes.insert(name, Process { pid, pidfd })),
                _ => tracing::warn!(pid, "{name} has ended before the bus was told of it"),
            }
        }
        self.partial.drain(..end);
        self.partial.truncate(PARTIAL_BYTES_MAX);
    }

    /// Whether the other end of the socket was opened by the process that may take this name, and lives.
    pub(crate) fn vouches(&mut self, name: &str, socket: impl AsFd) -> bool {
        // It may have been started a moment ago. That the supervisor has gone, the poll says.
        let _gone = self.listen();
        self.processes
            .get(name)
            .is_some_and(|process| lives(&process.pidfd) && facts::is_process(socket, process.pid))
    }
}

impl AsFd for Vouchers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.supervisor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (Told, Vouchers) {
        let (bus, supervisor) = UnixStream::pair().unwrap();
        let mut told = Told::default();
        told.tell(supervisor).unwrap();
        (told, Vouchers::new(bus).unwrap())
    }

    #[test]
    fn a_name_is_for_the_process_that_was_vouched_for_and_no_other() {
        let (mut told, mut vouchers) = ends();
        let (socket, _other) = UnixStream::pair().unwrap();
        assert!(!vouchers.vouches(SECRETS, &socket));
        told.vouch(SECRETS, std::process::id()).unwrap();
        assert!(vouchers.vouches(SECRETS, &socket), "we opened it");
        assert!(!vouchers.vouches(PROFILE, &socket));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        told.vouch(SECRETS, child.id()).unwrap();
        assert!(!vouchers.vouches(SECRETS, &socket), "the name is the child's now");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!vouchers.vouches(SECRETS, &socket));
        drop(told);
        assert!(!vouchers.listen());
    }

    #[test]
    fn the_next_supervisor_finds_what_was_vouched_for() {
        let (mut told, mut vouchers) = ends();
        told.vouch(PROFILE, std::process::id()).unwrap();
        assert!(vouchers.listen());
        drop(told);
        let mut next = Told::default();
        next.inherit(vouchers.succeed().unwrap()).unwrap();
        assert_eq!(next.processes, BTreeMap::from([(PROFILE, std::process::id())]));
        next.vouch(LAUNCHER, std::process::id()).unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        assert!(vouchers.vouches(LAUNCHER, &socket) && vouchers.vouches(PROFILE, &socket));
    }

    #[test]
    fn only_whole_words_about_our_own_daemons_count() {
        let text = b"daemon-secrets 12\ndaemon-bus 13\ndaemon-profile x\n\nnonsense\ndaemon-launcher 4";
        assert_eq!(words(text).collect::<Vec<_>>(), [(SECRETS, 12), (LAUNCHER, 4)]);
    }
}
