//! Where the scheduler may put processes: all on one core, or anywhere.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The core on which everything is put together.
const CORE: usize = 0;

/// The cores that this process may use.
pub(crate) fn allowed() -> CpuSet {
    sched_getaffinity(None).expect("an affinity")
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
