//! What the idle daemons hold.

use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use tests::{Spec, System};

use crate::measure::Row;

/// The proportional memory of the four daemons with one unlocked profile, in MiB.
pub(crate) fn idle() -> Row {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    let kib: f64 =
        [BUS, SECRETS, PROFILE, LAUNCHER].iter().map(|name| proportional_kib(system.pid_of(name))).sum();
    Row {
        name: "four daemons idle, proportional memory together".to_owned(),
        unit: "MiB",
        floor: None,
        ours: kib / 1024.0,
        budget: 24.0,
        more_is_better: false,
    }
}

/// `Pss` of /proc/PID/smaps_rollup (proc(5)); daemons are closed to others, so only root may read it.
fn proportional_kib(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let words = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let figure = words.and_then(|words| words.split_ascii_whitespace().next()?.parse().ok());
    figure.unwrap_or_else(|| {
        eprintln!("note: the memory of process {pid} can only be read by root");
        f64::NAN
    })
}
