//! One executable, two programs: the daemon, and the spawner from which all children come.

use std::process::ExitCode;

use core_daemon::Daemon;
use core_daemon::sandbox::{Place, Places, Sandbox};
use daemon_launcher::service::Launcher;
use daemon_launcher::spawner::{self, SPAWNER_ARGUMENT};

/// Wipes all memory that is freed: secrets pass through buffers of other crates too.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// It starts nothing: its spawner does, which is not in the sandbox.
const SANDBOX: Sandbox = Sandbox {
    places: Some(Places {
        reads: &[Place::Configuration, Place::Enrolled, Place::Processes, Place::Devices],
        writes: &[Place::Runtime, Place::State],
    }),
};

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) if argument == SPAWNER_ARGUMENT => spawner::run(),
        _ => core_daemon::run(
            Daemon {
                name: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                topics: &[],
                keep_core_limit: true,
                sandbox: SANDBOX,
            },
            |process| Launcher::prepare(&process.paths),
            Launcher::new,
        ),
    }
}
