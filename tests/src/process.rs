//! Processes that cannot be mistaken for others: each is pinned by a pidfd before anything is done to it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::system::wait_for;

/// A pinned process.
#[derive(Debug)]
pub struct Pinned {
    pid: u32,
    fd: OwnedFd,
}

impl Pinned {
    /// Pins the process with this number; `None` if there is none.
    #[must_use]
    pub fn open(pid: u32) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Self { pid, fd: pidfd_open(number, PidfdFlags::empty()).ok()? })
    }

    /// Pins the process that holds the lock of an instance file; `None` if nobody does.
    #[must_use]
    pub fn holder(lock: &Path) -> Option<Self> {
        let pinned = Self::open(holder(lock)?)?;
        // Still the holder after it was pinned: so the number means the pinned process.
        (holder(lock)? == pinned.pid).then_some(pinned)
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; one to a process that has ended goes nowhere.
    pub fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => panic!("process {} cannot be signalled: {error}", self.pid),
        }
    }

    /// Stops it with SIGSTOP and waits until it has stopped.
    ///
    /// # Panics
    /// It does not stop.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/status", self.pid);
        wait_for("the process stops", || {
            let text = std::fs::read_to_string(&status).ok()?;
            text.lines().any(|line| line.starts_with("State:\tT")).then_some(())
        });
    }

    /// Waits until it catches a signal or holds it back, so that the signal no longer just ends it.
    ///
    /// # Panics
    /// It never does.
    pub fn wait_until_it_handles(&self, signal: Signal) {
        let bit = 1_u64 << (signal.as_raw() - 1);
        let status = format!("/proc/{}/status", self.pid);
        let mask = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        wait_for("the process takes signals itself", || {
            let text = std::fs::read_to_string(&status).ok()?;
            ((mask(&text, "SigBlk:")? | mask(&text, "SigCgt:")?) & bit != 0).then_some(())
        });
    }

    /// Waits for its end; false if it lives on at the deadline.
    #[must_use]
    pub fn wait_end(&self, deadline: Instant) -> bool {
        wait_readable(&self.fd, deadline)
    }
}

/// The number of a process's parent (`PPid` of proc_pid_status(5)).
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The name of the file that a process executes (proc_pid_exe(5)).
#[must_use]
pub fn program_of(pid: u32) -> Option<String> {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(program.file_name()?.to_str()?.to_owned())
}

/// A command that has no capability, whoever starts it: setpriv(1) gives its place to the program.
#[must_use]
pub fn powerless(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"]).arg(program);
    if rustix::process::geteuid().is_root() { command } else { Command::new(program) }
}

/// How often the list of locks is read before a lock that a living process claims is believed to be free.
const LISTINGS: usize = 50;

/// Who holds the exclusive flock(2) on a file, by the kernel's list of locks (proc_locks(5)).
///
/// The lock is not tried instead: a daemon that starts at that moment would find it taken, and give up. The list is
/// read in pieces between which it changes, so that an entry may be missed.
fn holder(path: &Path) -> Option<u32> {
    let inode = std::fs::metadata(path).ok()?.ino();
    (0..LISTINGS).find_map(|_| {
        let written: u32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        let alive = Path::new("/proc").join(written.to_string()).exists();
        (alive && holds(written, inode)).then_some(written)
    })
}

/// Whether the list of locks shows this process as the holder of this file's.
fn holds(pid: u32, inode: u64) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(["FLOCK", _, "WRITE", holder, file, ..]) = words.get(1..) else { return false };
        holder.parse() == Ok(pid)
            && file.rsplit_once(':').is_some_and(|(_, found)| found.parse() == Ok(inode))
    })
}

/// Waits until a descriptor has something to read, or its end; false if it has not at the deadline.
#[must_use]
pub fn wait_readable(fd: impl AsFd, deadline: Instant) -> bool {
    wait_any(&[fd.as_fd()], deadline).is_some()
}

/// Waits until one of several descriptors has something to read, or its end; answers its index.
#[must_use]
pub fn wait_any(fds: &[impl AsFd], deadline: Instant) -> Option<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().expect("a deadline within this age"),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => return polled.iter().position(|fd| !fd.revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
