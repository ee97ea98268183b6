//! `daemon-profile`: how long an unlock has to wait, and the audit log. It never sees a secret.

mod attempts;
mod audit;
mod auto_lock;
mod backoff;
mod generations;
mod keeper;
mod kept;
mod last_reads;
mod logind;
mod service;
mod take_up;

use std::process::ExitCode;

use core_daemon::Daemon;
use core_daemon::sandbox::{Place, Places, Sandbox};
use core_types::name::PROFILE;
use core_types::protocol::Topic;
use service::ProfileDaemon;

/// It writes the audit log, and sees no vault.
const SANDBOX: Sandbox = Sandbox {
    places: Some(Places {
        reads: &[Place::Configuration, Place::Enrolled, Place::Processes, Place::Devices],
        writes: &[Place::Runtime, Place::State],
    }),
};

fn main() -> ExitCode {
    let daemon = Daemon {
        name: PROFILE,
        version: env!("CARGO_PKG_VERSION"),
        topics: &[Topic::BusIncident, Topic::ProfileState, Topic::BusRegistry],
        keep_core_limit: false,
        sandbox: SANDBOX,
    };
    core_daemon::run(
        daemon,
        |_| Ok(()),
        |context, ()| ProfileDaemon::open(&context.paths, &context.config)?.at_work(context),
    )
}
