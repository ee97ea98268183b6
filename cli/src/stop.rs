//! Ends the daemons: finds the one supervisor by the lock it holds, pins it, and waits until it is gone.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use core_crypto::private_fs::{self, PrivateFsError};
use core_types::paths::Paths;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The name under which the supervisor holds its lock.
const SUPERVISOR: &str = "supervisor";
/// Where the kernel lists all locks, each with the process that holds it (proc_locks(5)).
const LOCKS: &str = "/proc/locks";
/// Longest content of the lock file: a process number and a line feed.
const PID_BYTES_MAX: usize = 32;

/// Why the daemons were not ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StopError {
    #[error("the supervisor's lock cannot be read: {0}")]
    LockFile(#[from] PrivateFsError),
    #[error("{LOCKS} cannot be read, so nothing tells which process holds the lock: {0}")]
    Locks(io::Error),
    #[error("{} is locked, and does not say by which process", path.display())]
    UnknownHolder { path: PathBuf },
    #[error("the process {pid} cannot be signalled: {source}")]
    Signal { pid: i32, source: io::Error },
    #[error("the process {pid} was asked to end and is still there after {waited:?}")]
    TimedOut { pid: i32, waited: Duration },
}

impl StopError {
    /// What to do next.
    pub(crate) fn next(&self) -> Option<String> {
        Some(match self {
            Self::LockFile(_) => return None,
            Self::UnknownHolder { .. } => "they may be starting: try again in a moment".to_owned(),
            Self::Locks(_) => "see that /proc is mounted".to_owned(),
            Self::Signal { .. } => "see whose process it is".to_owned(),
            Self::TimedOut { .. } => {
                "see `pds daemon logs`, or wait longer with --timeout SECONDS".to_owned()
            }
        })
    }
}

/// The running supervisor, pinned: its number cannot come to mean another process.
pub(crate) struct Supervisor {
    pub(crate) pid: i32,
    process: OwnedFd,
}

impl Supervisor {
    /// The supervisor of these folders; `None` if none runs.
    ///
    /// # Errors
    /// There seems to be one, but nothing proves which process it is.
    pub(crate) fn find(paths: &Paths) -> Result<Option<Self>, StopError> {
        let path = paths.instance_lock(SUPERVISOR);
        let Some(text) = private_fs::read_limited(&path, PID_BYTES_MAX)? else { return Ok(None) };
        let pinned = parse_pid(&text).and_then(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)));
        // After pinning: whoever holds the lock now is the process that was pinned.
        let holders = Holders::of(&path).map_err(StopError::Locks)?;
        match pinned {
            Some((pid, process)) if holders.include(pid.as_raw_pid()) => {
                Ok(Some(Self { pid: pid.as_raw_pid(), process }))
            }
            _ if holders.any_for_certain() => Err(StopError::UnknownHolder { path }),
            _ => Ok(None),
        }
    }

    /// Asks it to end, with all daemons below it, and waits until it is gone.
    ///
    /// # Errors
    /// It may not be signalled, or is still there after `patience`.
    pub(crate) fn end(self, patience: Duration) -> Result<(), StopError> {
        match pidfd_send_signal(&self.process, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(StopError::Signal { pid: self.pid, source: errno.into() }),
        }
        match wait_readable(&self.process, Instant::now() + patience) {
            Ok(Waited::Readable) => Ok(()),
            Ok(Waited::TimedOut) => Err(StopError::TimedOut { pid: self.pid, waited: patience }),
            Err(source) => Err(StopError::Signal { pid: self.pid, source }),
        }
    }
}

fn parse_pid(text: &[u8]) -> Option<Pid> {
    Pid::from_raw(std::str::from_utf8(text).ok()?.trim_ascii().parse().ok().filter(|pid| *pid > 0)?)
}

/// Who holds an exclusive flock(2) on a file, by the kernel's list of all locks.
///
/// The lock is not tried instead: a supervisor that starts at that moment would find it taken, and give up.
#[derive(Debug, PartialEq, Eq)]
struct Holders {
    /// Processes that hold it, each with whether the device is that of the file as well: some file systems show
    /// another one to stat(2).
    processes: Vec<(i32, bool)>,
}

impl Holders {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let device =
            format!("{:02x}:{:02x}", rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        Ok(Self::parse(&fs::read_to_string(LOCKS)?, &device, metadata.ino()))
    }

    /// Reads the text of `/proc/locks`: number, `FLOCK`, `ADVISORY`, `WRITE`, process, `device:inode`, range.
    fn parse(locks: &str, device: &str, inode: u64) -> Self {
        let holder = |line: &str| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let ["FLOCK", _, "WRITE", process, file, ..] = words.get(1..)? else { return None };
            let (found_device, found_inode) = file.rsplit_once(':')?;
            (found_inode.parse() == Ok(inode)).then_some((process.parse().ok()?, found_device == device))
        };
        Self { processes: locks.lines().filter_map(holder).collect() }
    }

    fn include(&self, pid: i32) -> bool {
        self.processes.iter().any(|(process, _)| *process == pid)
    }

    fn any_for_certain(&self) -> bool {
        self.processes.iter().any(|(_, same_device)| *same_device)
    }
}

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There is something to read, or the end; of a process descriptor: the process is gone.
    Readable,
    /// The deadline passed.
    TimedOut,
}

/// Waits until a descriptor can be read.
///
/// # Errors
/// It cannot be waited for.
pub(crate) fn wait_readable(descriptor: impl AsFd, deadline: Instant) -> io::Result<Waited> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(Waited::TimedOut),
            Ok(_) => return Ok(Waited::Readable),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
1: POSIX  ADVISORY  WRITE 41 00:2a:7 0 EOF
2: FLOCK  ADVISORY  WRITE 42 00:2a:7 0 EOF
2: -> FLOCK  ADVISORY  WRITE 43 00:2a:7 0 EOF
3: FLOCK  ADVISORY  READ  44 00:2a:7 0 EOF
";

    #[test]
    fn only_the_holder_of_an_exclusive_flock_counts() {
        assert_eq!(Holders::parse(TABLE, "00:2a", 7).processes, [(42, true)]);
        assert_eq!(Holders::parse(TABLE, "00:2b", 7).processes, [(42, false)]);
        assert_eq!(Holders::parse(TABLE, "00:2a", 8).processes, []);
        assert_eq!(Holders::parse("garbage\n\n1: FLOCK", "00:2a", 7).processes, []);
    }

    #[test]
    fn process_numbers_are_positive_decimals() {
        assert_eq!(parse_pid(b"17\n").map(Pid::as_raw_pid), Some(17));
        for bad in [&b""[..], b"0", b"-1", b"1 2", b"x", b"99999999999", b"\xff"] {
            assert!(parse_pid(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_lock_that_nobody_holds_and_a_foreign_number_end_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::from_variables(|name| match name {
            "HOME" | "PDS_RUNTIME_DIR" => Some(folder.path().to_owned()),
            _ => None,
        })
        .unwrap();
        assert!(Supervisor::find(&paths).unwrap().is_none(), "no file");
        let path = paths.instance_lock(SUPERVISOR);
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(Supervisor::find(&paths).unwrap().is_none(), "nobody holds it");
        let lock = private_fs::lock_instance(&path).unwrap();
        assert!(Supervisor::find(&paths).unwrap().is_some(), "we hold it ourselves");
        fs::write(&path, "1\n").unwrap();
        assert!(!matches!(Supervisor::find(&paths), Ok(Some(_))), "held, but not by the process named");
        drop(lock);
    }
}
