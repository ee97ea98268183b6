//! A real terminal: a pty whose other end leads a session of its own, as a terminal emulator makes it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;

use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::process::{Pinned, wait_readable};
use crate::{PATIENCE, System, deadline};

/// What bash shows when it waits for a line.
pub const PROMPT: &str = "pds-test> ";

/// A terminal and the program that leads its session; dropping it hangs up.
pub struct Terminal<'a> {
    system: &'a System,
    master: Option<OwnedFd>,
    child: Child,
    process: Pinned,
    seen: Vec<u8>,
    read: usize,
}

impl<'a> Terminal<'a> {
    /// Runs a program as the leader of a session on a terminal of this size.
    ///
    /// # Panics
    /// There is no terminal, or no such program.
    #[must_use]
    pub fn open<I: IntoIterator<Item: AsRef<OsStr>>>(
        system: &'a System,
        (rows, columns): (u16, u16),
        program: &str,
        arguments: I,
    ) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a pseudo-terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("the other end");
        tcsetwinsize(&master, size(rows, columns)).expect("a window size");
        let copy = || Stdio::from(slave.try_clone().expect("a descriptor"));
        // setsid(1) of util-linux: a new session, and the terminal on its input controls it.
        let mut invocation = system.program("setsid", ["--ctty", program]);
        let command = invocation.command();
        let child = command
            .args(arguments)
            .env("TERM", "xterm")
            .env("PS1", PROMPT)
            .stdin(copy())
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .expect("setsid(1) can be started");
        let process = Pinned::open(child.id()).expect("a child that is not reaped");
        Self { system, master: Some(master), child, process, seen: Vec::new(), read: 0 }
    }

    /// An interactive bash with job control, at its prompt.
    #[must_use]
    pub fn bash(system: &'a System) -> Self {
        // Its line editor would redraw what is typed.
        let options = ["--norc", "--noprofile", "--noediting", "-i"];
        let mut terminal = Self::open(system, (31, 97), "bash", options);
        terminal.wait_for(PROMPT);
        terminal
    }

    fn master(&self) -> &OwnedFd {
        self.master.as_ref().expect("a terminal that was not hung up")
    }

    /// Types these bytes.
    ///
    /// # Panics
    /// The terminal takes nothing.
    pub fn keys(&mut self, bytes: impl AsRef<[u8]>) {
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            let count = rustix::io::write(self.master(), rest).expect("the terminal takes keys");
            rest = &rest[count..];
        }
    }

    /// Types a line.
    pub fn line(&mut self, text: &str) {
        self.keys(text);
        self.keys("\r");
    }

    /// Waits until this text is shown after what was waited for last; answers what stood before it.
    ///
    /// # Panics
    /// It is not shown.
    pub fn wait_for(&mut self, text: &str) -> String {
        let end = deadline();
        loop {
            let unread = &self.seen[self.read..];
            if let Some(place) = unread.windows(text.len()).position(|window| window == text.as_bytes()) {
                let before = String::from_utf8_lossy(&unread[..place]).into_owned();
                self.read += place + text.len();
                return before;
            }
            let more = self.receive(end);
            assert!(more, "the terminal does not show {text:?} but:\n{}", self.shown());
        }
    }

    /// Reads what comes next; false at the end or at the deadline.
    fn receive(&mut self, end: Instant) -> bool {
        let mut bytes = [0; 4096];
        if !wait_readable(self.master(), end) {
            return false;
        }
        match rustix::io::read(self.master(), &mut bytes) {
            // EIO: nobody holds the other end any more.
            Ok(0) | Err(Errno::IO) => false,
            Ok(count) => {
                self.seen.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) => panic!("the terminal cannot be read: {error}"),
        }
    }

    /// All that was shown so far, without the secrets of the system.
    #[must_use]
    pub fn shown(&self) -> String {
        self.system.redacted(&self.seen)
    }

    /// Gives the window another size.
    ///
    /// # Panics
    /// The terminal takes none.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(self.master(), size(rows, columns)).expect("a window size");
    }

    /// The settings of the terminal.
    ///
    /// # Panics
    /// It has none.
    #[must_use]
    pub fn settings(&self) -> Termios {
        tcgetattr(self.master()).expect("settings of the terminal")
    }

    /// Closes the window.
    pub fn hang_up(&mut self) {
        self.master = None;
    }

    /// The process that leads the session.
    #[must_use]
    pub fn process(&self) -> &Pinned {
        &self.process
    }

    /// Reads on to the end of the session, and answers how its leader ended.
    ///
    /// # Panics
    /// It does not end.
    pub fn wait(self) -> ExitStatus {
        self.wait_for_all().0
    }

    /// As [`Self::wait`], and answers all that was shown.
    ///
    /// # Panics
    /// It does not end.
    pub fn wait_for_all(mut self) -> (ExitStatus, Vec<u8>) {
        let end = deadline();
        while self.receive(end) {}
        assert!(
            self.process.wait_end(end),
            "the session does not end within {PATIENCE:?}; it shows:\n{}",
            self.shown()
        );
        (self.child.wait().expect("the child can be waited for"), std::mem::take(&mut self.seen))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.master = None;
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
