//! Signals that a command is to ignore because its caller does (nohup(1)): execution keeps nothing else of how a signal
//! is taken (execve(2)).
//!
//! An unsafe call, because a handler can be installed with it that must not run at any moment. To ignore a signal
//! installs none.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Ignores these signals, but for those that nobody can.
pub(crate) fn ignore(signals: impl Iterator<Item = Signal>) -> nix::Result<()> {
    for ignored in signals.filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: no code is called when the signal comes, so none of it can be unsafe.
        #[allow(unsafe_code)]
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    Ok(())
}
