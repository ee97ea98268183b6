//! systemd's watchdog (`WatchdogSec=`, sd_watchdog_enabled(3)): told again and again that the loop goes round.

use std::time::Duration;

use crate::serve::notify;

/// How many times in its period the watchdog is fed, so that one that comes late does no harm.
const FEEDS_PER_PERIOD: u32 = 3;

/// A watchdog that waits for this process.
#[derive(Debug, Clone, Copy)]
pub struct Watchdog {
    every: Duration,
}

impl Watchdog {
    /// The watchdog that whoever started this process has set up, if there is one.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        Some(Self { every: sd_notify::watchdog_enabled()? / FEEDS_PER_PERIOD })
    }

    /// How often it is to be fed.
    #[must_use]
    pub fn every(self) -> Duration {
        self.every
    }

    /// Feeds it. To be called by the loop that it is to watch over, and by no one else.
    pub fn feed() {
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}
