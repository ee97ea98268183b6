//! `daemon-secrets`: the only process that holds keys and opens vaults. Whatever it does for anyone passes the six
//! gates of [`crud`].

#[cfg(test)]
mod access_table;
mod acl;
mod attempt;
mod backups;
mod crud;
mod explain;
mod factors;
mod fields;
mod granting;
mod grants;
mod history;
mod importing;
mod log_keys;
mod neighbours;
mod operations;
mod proofs;
mod protection;
mod rate_limit;
mod record;
mod rekey;
mod rules;
mod selection;
mod service;
mod settings;
mod unlock;
mod vault;
mod wiper;

use std::alloc::System;
use std::process::ExitCode;

use core_daemon::Daemon;
use core_daemon::sandbox::{Place, Places, Sandbox};
use core_types::name::SECRETS;
use service::SecretsDaemon;
use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: the buffers that messages pass through are not ours to wipe one by one.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// It reads and writes vaults; and `/proc`, for what of its memory may be swapped.
const SANDBOX: Sandbox = Sandbox {
    places: Some(Places {
        reads: &[Place::Configuration, Place::Processes, Place::Devices],
        writes: &[Place::Runtime, Place::State, Place::Data],
    }),
};

fn main() -> ExitCode {
    let daemon = Daemon {
        name: SECRETS,
        version: env!("CARGO_PKG_VERSION"),
        topics: &[],
        keep_core_limit: false,
        sandbox: SANDBOX,
    };
    core_daemon::run(daemon, |_| Ok(()), |context, ()| SecretsDaemon::start(context))
}
