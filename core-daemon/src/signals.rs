//! When to end: SIGTERM and SIGINT, taken in one place.

use tokio::signal::unix::{SignalKind, signal};

/// Completes when the process is told to end. A terminal's hang-up is not such a word: daemons outlive terminals.
///
/// # Errors
/// The handlers cannot be installed.
pub async fn told_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => {}
        }
    }
}
