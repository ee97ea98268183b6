//! A whole pds in a temporary folder, and what tests and measurements need around it: the command line, hostile
//! clients of the bus, a terminal, a PostgreSQL server, and a search for secrets where none may be.
//!
//! Everything starts from `System::boot(Spec)`. Waiting is waiting for an event with a deadline; nothing sleeps.
// A harness tells that the world is not as it should be by panicking: that is what makes a test fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]
// It writes to the standard error of the test, where the reader of a failure looks.
#![allow(clippy::print_stderr)]

pub mod calls;
pub mod canary;
pub mod cases;
pub mod chance;
pub mod crowd;
pub mod disk;
pub mod fuzz;
pub mod hostile;
pub mod invocation;
pub mod linear;
pub mod logind;
pub mod machine;
pub mod memory;
pub mod oracle;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod scan;
pub mod schema;
mod spec;
pub mod ssh;
pub mod strace;
pub mod system;
pub mod terminal;

use std::time::{Duration, Instant};

pub use invocation::{Ended, Invocation, Output, Running};
pub use spec::Spec;
pub use system::{PASSWORD, System};

/// How long anything may take that a test waits for; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// When a wait that begins now has taken too long.
#[must_use]
pub fn deadline() -> Instant {
    Instant::now() + PATIENCE
}
