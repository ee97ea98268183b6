//! Where secrets lie in memory: pages that are kept out of swap, core dumps and forked children.
//!
//! One arena serves all secrets of the process from a few large mappings, because each mapping costs
//! guard pages, system calls and, against `RLIMIT_MEMLOCK`, whole pages. Every mapping has an inaccessible
//! page on both sides. What a block held is overwritten the moment it is freed, and a mapping without blocks
//! goes back to the kernel.
//!
//! An allocation takes the best protection that can be had at that moment and never fails because of a limit.
#![allow(unsafe_code)] // the one place that maps, locks and unmaps memory, for which no safe interface exists

mod arena;
mod mapping;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

pub(crate) use arena::Block;

/// What the user is told, once, when secrets can no longer be kept out of swap.
pub const WARNING: &str =
    "WARN: Unable to lock memory (RLIMIT_MEMLOCK too low). Secrets may be swapped to disk.";

/// How well a piece of memory is protected, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// memfd_secret(2): locked, and removed from the kernel's own view of memory, so that not even root's
    /// debugger, a core dump or `/proc/PID/mem` reads it.
    SecretMemory,
    /// mlock(2): never swapped, and left out of core dumps.
    Locked,
    /// Left out of core dumps where possible, but it may be swapped.
    Plain,
}

impl Protection {
    const ALL: [Self; 3] = [Self::SecretMemory, Self::Locked, Self::Plain];
}

/// The weakest level handed out so far, as an index into [`Protection::ALL`].
static WEAKEST: AtomicU8 = AtomicU8::new(0);

struct Warning {
    give: Option<fn(&'static str)>,
    state: WarningState,
}

enum WarningState {
    NoReason,
    Due,
    Given,
}

static GIVE_WARNING: Mutex<Warning> = Mutex::new(Warning { give: None, state: WarningState::NoReason });

/// The weakest protection that any secret of this process has had so far.
#[must_use]
pub fn protection() -> Protection {
    Protection::ALL[usize::from(WEAKEST.load(Ordering::Relaxed)).min(2)]
}

/// Sets who is given [`WARNING`] when a secret first has to lie in memory that may be swapped.
///
/// It is called once per process: at once if that has already happened.
pub fn set_warning(give: fn(&'static str)) {
    with_warning(|warning| warning.give = Some(give));
}

/// Notes that memory of this level was handed out.
fn note_handed_out(level: Protection) {
    let before = WEAKEST.fetch_max(level as u8, Ordering::Relaxed);
    if level == Protection::Plain && before < Protection::Plain as u8 {
        with_warning(|warning| {
            if matches!(warning.state, WarningState::NoReason) {
                warning.state = WarningState::Due;
            }
        });
    }
}

/// Changes the state of the warning and then gives it, outside the lock, if it is due and someone takes it.
fn with_warning(change: impl FnOnce(&mut Warning)) {
    let due = {
        let mut warning = GIVE_WARNING.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut warning);
        match (&warning.state, warning.give) {
            (WarningState::Due, Some(give)) => {
                warning.state = WarningState::Given;
                Some(give)
            }
            _ => None,
        }
    };
    if let Some(give) = due {
        give(WARNING);
    }
}
