//! Where secrets lie in memory: pages that are kept out of swap, core dumps and forked children.
//!
//! One arena serves all secrets of the process from a few large mappings, because each mapping costs
//! guard pages, system calls and, against `RLIMIT_MEMLOCK`, whole pages. Every mapping has an inaccessible
//! page on both sides. What a block held is overwritten the moment it is freed, and a mapping without blocks
//! goes back to the kernel.
//!
//! An allocation takes the best protection that can be had at that moment and never fails because of a limit. Each
//! step down is told once.
//!
//! A forked child does not have these pages: reading a secret there ends the child, and nothing that it does to its
//! memory reaches the parent's secrets.
#![allow(unsafe_code)] // the one place that maps, locks and unmaps memory, for which no safe interface exists

mod arena;
mod mapping;
mod registers;

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub(crate) use arena::Block;
pub use registers::clear_registers;

/// What the user is told, once, when secrets can no longer be kept out of swap.
pub const WARNING: &str =
    "WARN: Unable to lock memory (RLIMIT_MEMLOCK too low). Secrets may be swapped to disk.";

/// What the user is told, once, when secrets are locked but root could read them in memory.
pub const WARNING_LOCKED_ONLY: &str = "WARN: Unable to get secret memory (memfd_secret). Secrets are locked in memory, where root can read them.";

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

/// Bytes of secrets that exist now.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Who is told of the steps down, and of which nobody has been told yet.
struct Warnings {
    give: Option<fn(&'static str)>,
    due: Vec<&'static str>,
}

static WARNINGS: Mutex<Warnings> = Mutex::new(Warnings { give: None, due: Vec::new() });

/// The weakest protection that any secret of this process has had so far.
#[must_use]
pub fn protection() -> Protection {
    Protection::ALL[usize::from(WEAKEST.load(Ordering::Relaxed)).min(2)]
}

/// How many bytes of secrets this process holds in this memory now.
#[must_use]
pub fn bytes_in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

/// Sets who is given [`WARNING`] when a secret first has to lie in memory that may be swapped, and
/// [`WARNING_LOCKED_ONLY`] when one first is locked only.
///
/// It is called once per process for each: at once if that has already happened.
pub fn set_warning(give: fn(&'static str)) {
    with_warnings(|warnings| warnings.give = Some(give));
}

/// Notes that so much memory of this level was handed out.
fn note_handed_out(level: Protection, len: usize) {
    IN_USE.fetch_add(len, Ordering::Relaxed);
    let before = WEAKEST.fetch_max(level as u8, Ordering::Relaxed);
    if before < level as u8 {
        with_warnings(|warnings| match level {
            Protection::SecretMemory => {}
            Protection::Locked => warnings.due.push(WARNING_LOCKED_ONLY),
            Protection::Plain => warnings.due.push(WARNING),
        });
    }
}

/// Notes that so much memory was given back.
fn note_given_back(len: usize) {
    IN_USE.fetch_sub(len, Ordering::Relaxed);
}

/// Changes the state of the warnings and then gives what is due, outside the lock, if someone takes it.
fn with_warnings(change: impl FnOnce(&mut Warnings)) {
    let (give, due) = {
        let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut warnings);
        match warnings.give {
            Some(give) => (give, std::mem::take(&mut warnings.due)),
            None => return,
        }
    };
    due.into_iter().for_each(give);
}
