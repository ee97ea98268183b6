//! The wall clock, as entries of the audit log and lists for people have it; nothing is decided by it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of the Unix epoch; 0 on a clock that stands before it.
#[must_use]
pub fn unix_ms_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
