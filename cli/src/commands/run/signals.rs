//! The signals that come to `pds` while a child runs: held, so that each is seen once and in the loop, and none is lost.
//!
//! They are blocked and read from a descriptor (signalfd(2)); no handler is installed, so their default actions stay,
//! which [`Signals::stop_group`] needs.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::kill_current_process_group;

/// What is held. Absent: what cannot be held, what a fault of `pds` itself raises, and SIGTTIN and SIGTTOU, which
/// shall stop it when it uses a terminal that others have.
const HELD: [Signal; 13] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// The held signals, until dropped.
pub(super) struct Signals {
    held: SigSet,
    arrivals: SignalFd,
    /// Read from `arrivals` and not handed out yet.
    arrived: VecDeque<Signal>,
}

impl Signals {
    /// Begins to hold them. A signal that the caller ignores (nohup(1)) stays ignored.
    ///
    /// # Errors
    /// The kernel gave no descriptor, or /proc cannot be read.
    pub(super) fn hold() -> io::Result<Self> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status")?);
        let held: SigSet = HELD.into_iter().filter(|signal| ignored & bit(*signal) == 0).collect();
        held.thread_block()?;
        let arrivals = SignalFd::with_flags(&held, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { held, arrivals, arrived: VecDeque::new() })
    }

    /// The next signal that has arrived, if there is one.
    ///
    /// # Errors
    /// The descriptor failed.
    pub(super) fn next(&mut self) -> io::Result<Option<Signal>> {
        self.collect()?;
        Ok(self.arrived.pop_front())
    }

    /// Stops this process and its whole group as the terminal's suspend key would, and returns when it goes on. The
    /// kernel stops nobody if no shell watches over the group (an orphaned group); false says that.
    ///
    /// # Errors
    /// The descriptor failed.
    pub(super) fn stop_group(&mut self, signal: rustix::process::Signal) -> io::Result<bool> {
        kill_current_process_group(signal)?;
        // It waits here with the held ones; the kernel lets it strike at the moment it is no longer held.
        if let Ok(signal) = Signal::try_from(signal.as_raw()) {
            let this: SigSet = [signal].into_iter().collect();
            this.thread_unblock()?;
            self.held.thread_block()?;
        }
        self.collect()?;
        Ok(self.arrived.contains(&Signal::SIGCONT))
    }

    fn collect(&mut self) -> io::Result<()> {
        while let Some(information) = self.arrivals.read_signal()? {
            self.arrived.extend(
                i32::try_from(information.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()),
            );
        }
        Ok(())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.held.thread_unblock();
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrivals.as_fd()
    }
}

/// The bit of a signal in the masks of /proc/PID/status (proc(5)).
fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// The mask of ignored signals, from the text of /proc/PID/status.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_signal_is_handed_out_once() {
        let mut signals = Signals::hold().unwrap();
        nix::sys::signal::raise(Signal::SIGUSR1).unwrap();
        assert_eq!(signals.next().unwrap(), Some(Signal::SIGUSR1));
        assert_eq!(signals.next().unwrap(), None);
    }

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tpds\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        let ignored = ignored(status);
        assert!(ignored & bit(Signal::SIGHUP) != 0 && ignored & bit(Signal::SIGPIPE) != 0);
        assert!(ignored & bit(Signal::SIGINT) == 0);
        assert_eq!(super::ignored(""), 0);
    }
}
