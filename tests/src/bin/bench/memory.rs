//! What the daemons hold.

use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use tests::system::call;
use tests::{Spec, System, calls};

use crate::RATES;
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

/// The proportional memory of `daemon-secrets` with 5,000 secrets in its cache, in MiB, against the same without.
pub(crate) fn cached() -> Row {
    const COUNT: usize = 5_000;
    let system = System::boot(Spec::ready().config(RATES));
    let mut client = system.client();
    let names = || (0..COUNT).map(|number| format!("name-{number}"));
    let pid = system.pid_of(SECRETS);
    let before = proportional_kib(pid);
    names().for_each(|name| call(&mut client, &calls::set("default", &name, [b'v'; 64])));
    names().for_each(|name| drop(call(&mut client, &calls::get("default", &name))));
    Row {
        name: "daemon-secrets with 5,000 secrets cached, against none".to_owned(),
        unit: "MiB",
        floor: Some(before / 1024.0),
        ours: proportional_kib(pid) / 1024.0,
        budget: f64::INFINITY,
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
