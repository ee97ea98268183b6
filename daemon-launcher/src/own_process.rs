//! What a spawner does to itself before anything else; its copies, the monitors and stages, are born with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::handover::{Step, StepError};

/// Highest signal with a bit of its own in the masks of /proc/PID/status (proc(5)).
const SIGNAL_MAX: i32 = 64;

/// Makes the process unreadable for others, ignores no signal any more, drops every descriptor but 0 to 2, and takes the
/// socket from standard input, where it must not stay: every copy of the process would hold it open.
///
/// # Errors
/// The kernel refused one of these steps.
pub(crate) fn prepare() -> Result<OwnedFd, StepError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(StepError::at(Step::Prepare))?;
    close_inherited().map_err(StepError::at(Step::Prepare))?;
    stop_ignoring_signals().map_err(StepError::at(Step::Prepare))?;
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(StepError::at(Step::Prepare))?;
    let nothing = File::open("/dev/null").map_err(StepError::at(Step::Prepare))?;
    rustix::stdio::dup2_stdin(nothing).map_err(StepError::at(Step::Prepare))?;
    Ok(socket)
}

/// Closes what the launcher may have inherited from whoever started it and would hand on.
fn close_inherited() -> io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        match nix::unistd::close(descriptor) {
            // The descriptor that the listing itself used.
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Lets go of signals that whoever started the launcher had ignored, such as SIGINT by a shell without job control:
/// execution keeps them ignored, but makes the default action of a signal that has a handler (execve(2)).
fn stop_ignoring_signals() -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    for signal in (1..=SIGNAL_MAX).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        if !signal_hook::consts::FORBIDDEN.contains(&signal) {
            // The C library keeps 32 and 33 to itself and refuses them.
            let _ = signal_hook::flag::register(signal, Arc::default());
        }
    }
    Ok(())
}
