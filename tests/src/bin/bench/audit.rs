//! What each audit mode costs a read: by one client, and by eight at once, who share the waiting for a disk.

use tests::{Spec, System};

use crate::RATES;
use crate::clients::{Seen, ask};
use crate::measure::Row;

/// With the least it can do first, against which the others are measured; and how many times its cost each may take.
const MODES: [(&str, f64); 3] = [("best-effort", 1.0), ("written", 1.5), ("durable", 1_000.0)];

/// Rows of times for one client, and of reads per second for eight.
pub(crate) fn all() -> Vec<Row> {
    let seen = MODES.map(|(mode, budget)| {
        let config = format!("{RATES}[audit]\nmode = '{mode}'\n");
        let spec = Spec::new().config(&config).profile("default").secret("api-key", [b'v'; 32]);
        let system = System::boot(spec);
        (mode, budget, ask(&system, 1), ask(&system, 8))
    });
    let [(_, _, alone, eight), ..] = &seen;
    let rows = seen.iter().flat_map(|(mode, budget, one, many)| {
        let times = |name: &str, percent| {
            let figures = (alone.at(percent), one.at(percent));
            Row::times(&format!("get with audit = {mode}, {name}"), figures, *budget)
        };
        [times("p50", 50), times("p99", 99), per_second(mode, (eight, many), 1.0 / budget)]
    });
    rows.collect()
}

fn per_second(mode: &str, (floor, ours): (&Seen, &Seen), budget: f64) -> Row {
    Row {
        name: format!("get with audit = {mode}, 8 clients at once"),
        unit: "/s",
        floor: Some(floor.per_second),
        ours: ours.per_second,
        budget,
        more_is_better: true,
    }
}
