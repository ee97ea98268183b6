//! What a spawner does to itself before anything else; its copies, the monitors and stages, are born with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::handover::{Step, StepError};

/// Makes the process unreadable for others, drops every descriptor but 0 to 2, and takes the socket from standard input,
/// where it must not stay: every copy of the process would hold it open.
///
/// # Errors
/// The kernel refused one of these steps.
pub(crate) fn prepare() -> Result<OwnedFd, StepError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(StepError::at(Step::Prepare))?;
    close_inherited().map_err(StepError::at(Step::Prepare))?;
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
