//! One executable, three processes: the daemon, and for each child its monitor and its stage.

use std::process::ExitCode;

use core_daemon::Daemon;
use daemon_launcher::service::Launcher;
use daemon_launcher::spawn::{MONITOR_ARGUMENT, STAGE_ARGUMENT};
use daemon_launcher::{monitor, stage};

/// Wipes all memory that is freed: secrets pass through buffers of other crates too.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) if argument == MONITOR_ARGUMENT => monitor::run(),
        Some(argument) if argument == STAGE_ARGUMENT => stage::run(),
        _ => core_daemon::run(
            Daemon {
                name: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                topics: &[],
                keep_core_limit: true,
            },
            |context| Ok(Launcher::new(context)),
        ),
    }
}
