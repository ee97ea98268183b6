//! Where the scheduler may put processes: all on one core, or anywhere.

use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tests::System;
use tests::system::SUPERVISOR;

/// The core on which everything is put together.
const CORE: usize = 0;

/// The cores that this process may use.
pub(crate) fn allowed() -> CpuSet {
    sched_getaffinity(None).expect("an affinity")
}

/// The processes of a system.
pub(crate) fn pids(system: &System) -> Vec<u32> {
    [SUPERVISOR, BUS, SECRETS, PROFILE, LAUNCHER].map(|name| system.pid_of(name)).to_vec()
}

/// How a row says where its processes were.
pub(crate) fn name(pinned: bool) -> &'static str {
    if pinned { "one core" } else { "any core" }
}

/// Puts all threads of these processes, and this process, on one core, or lets them go to all of `allowed`. What they
/// start afterwards stays there with them.
pub(crate) fn place(pids: &[u32], pinned: bool, allowed: &CpuSet) {
    let mut one = CpuSet::new();
    one.set(CORE);
    let set = if pinned { &one } else { allowed };
    for pid in pids.iter().copied().chain([std::process::id()]) {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process that runs") {
            let name = thread.expect("an entry").file_name();
            let number = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            // A thread may have ended since.
            let _placed = sched_setaffinity(number, set);
        }
    }
}
