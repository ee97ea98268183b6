//! Whether a process that was pinned is still there.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Whether a process, by its pidfd, has not ended (pidfd_open(2)). What was read of it by its number before is its own
/// then.
#[must_use]
pub fn lives(process: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&now)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn a_process_lives_until_it_has_ended() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert!(lives(&pidfd));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!lives(&pidfd));
    }
}
