//! Copies of the spawner, which become monitors and stages without being executed anew: execution would cost each
//! child of `pds run` two starts of a program.
//!
//! An unsafe call. What makes fork(2) unsafe is a second thread: its locks stay locked in the copy for ever. So it takes
//! a proof that there is none.

use std::io;

use nix::unistd::{ForkResult, fork as fork_process};
use rustix::process::Pid;

/// Proof that this process had one thread when it began. The modules that hold it (`spawner`, `monitor`, `stage`) start
/// none.
#[derive(Debug)]
pub(crate) struct SingleThread(());

impl SingleThread {
    /// Looks at the threads of this process.
    ///
    /// # Errors
    /// There are several, or they cannot be told (proc(5)).
    pub(crate) fn check() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            count => Err(io::Error::other(format!("the process has {count} threads"))),
        }
    }
}

/// Which of the two a process is after it was copied.
#[derive(Debug)]
pub(crate) enum Copied {
    /// The one that was there before, and the number of the other.
    Original(Pid),
    /// The new one.
    Copy,
}

/// Copies this process (fork(2)).
///
/// # Errors
/// The kernel allows no further process, or has no memory for it.
pub(crate) fn fork(_alone: &SingleThread) -> io::Result<Copied> {
    // SAFETY: no other thread can hold a lock that the copy would wait for, since there is none.
    #[allow(unsafe_code)]
    let forked = unsafe { fork_process() }?;
    match forked {
        ForkResult::Child => Ok(Copied::Copy),
        ForkResult::Parent { child } => {
            let pid = Pid::from_raw(child.as_raw())
                .ok_or_else(|| io::Error::other("a process without a number"))?;
            Ok(Copied::Original(pid))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_gets_no_proof() {
        // The test itself runs in a second thread.
        assert!(SingleThread::check().is_err());
    }
}
