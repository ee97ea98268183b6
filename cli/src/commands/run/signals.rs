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
const HELD: [Signal; 16] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGSTKFLT,
    Signal::SIGURG,
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
    /// Begins to hold them. A signal that the caller ignores (nohup(1)), as `ignored` has it, stays ignored.
    ///
    /// # Errors
    /// The kernel gave no descriptor.
    pub(super) fn hold(ignored: u64) -> io::Result<Self> {
        let held: SigSet = HELD.into_iter().filter(|signal| ignored & bit(*signal) == 0).collect();
        held.thread_block()?;
        let arrivals = SignalFd::with_flags(&held, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { held, arrivals, arrived: VecDeque::new() })
    }

    /// Tells this process's group of a key that was pressed on the child's terminal, as the kernel would where there is
    /// only one terminal. This process has heard of it.
    pub(super) fn tell_group(key: rustix::process::Signal) {
        let _ = kill_current_process_group(key);
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
            if information.ssi_pid == std::process::id() && is_key(information.ssi_signo) {
                continue;
            }
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

/// Whether a signal, by its number, is what a terminal makes of a key that ends programs.
fn is_key(signal: u32) -> bool {
    [Signal::SIGINT, Signal::SIGQUIT].into_iter().any(|key| u32::try_from(key as i32) == Ok(signal))
}

/// The bit of a signal in the masks of /proc/PID/status (proc(5)).
pub(super) fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// One of the masks of signals in the text of /proc/PID/status.
pub(super) fn mask(status: &str, name: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_signal_is_handed_out_once() {
        let mut signals = Signals::hold(0).unwrap();
        nix::sys::signal::raise(Signal::SIGUSR1).unwrap();
        assert_eq!(signals.next().unwrap(), Some(Signal::SIGUSR1));
        assert_eq!(signals.next().unwrap(), None);
    }

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tpds\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        let ignored = mask(status, "SigIgn");
        assert!(ignored & bit(Signal::SIGHUP) != 0 && ignored & bit(Signal::SIGPIPE) != 0);
        assert!(ignored & bit(Signal::SIGINT) == 0);
        assert_eq!(mask("", "SigIgn"), 0);
    }
}
