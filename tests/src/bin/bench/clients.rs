//! How many secrets the daemons give out, and how long each takes, when several clients ask at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use core_ipc::CallOptions;
use core_types::ProfileName;
use core_types::protocol::secrets::Get;
use tests::System;

use crate::measure::Row;

/// Clients that ask at once.
const CLIENTS: [usize; 3] = [1, 8, 64];
const DURATION: Duration = Duration::from_secs(2);

/// What a number of clients saw.
pub(crate) struct Seen {
    pub(crate) per_second: f64,
    /// Sorted, in microseconds.
    times: Vec<f64>,
}

impl Seen {
    /// The time that so many hundredths of the requests took at most, in microseconds.
    pub(crate) fn at(&self, percent: usize) -> f64 {
        self.times[self.times.len() * percent / 100]
    }
}

/// Rows of requests per second, against those of one client, and of the time of the slowest hundredth, against the
/// fair share: what all clients' requests take one after the other.
pub(crate) fn all(system: &System) -> Vec<Row> {
    let seen = CLIENTS.map(|clients| ask(system, clients));
    let alone = seen[0].per_second;
    let rows = CLIENTS.iter().zip(&seen).flat_map(|(clients, seen)| {
        let fair_share = 1e6 * *clients as f64 / seen.per_second;
        [
            Row {
                name: format!("get by {clients} clients at once (p50 {:.0} us)", seen.at(50)),
                unit: "/s",
                floor: Some(alone),
                ours: seen.per_second,
                budget: 0.8,
                more_is_better: true,
            },
            Row::times(&format!("get by {clients} clients at once, p99"), (fair_share, seen.at(99)), 5.0),
        ]
    });
    rows.collect()
}

/// Has this many clients ask for a secret, as often as they can for a while.
pub(crate) fn ask(system: &System, clients: usize) -> Seen {
    let begin = Barrier::new(clients);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..clients).map(|_| scope.spawn(|| ask_alone(system, &begin))).collect();
        for client in asking {
            times.extend(client.join().expect("a client that was answered"));
        }
    });
    times.sort_by(f64::total_cmp);
    Seen { per_second: times.len() as f64 / DURATION.as_secs_f64(), times }
}

fn ask_alone(system: &System, begin: &Barrier) -> Vec<f64> {
    let profile = ProfileName::parse("default").expect("a name");
    let get = Get { profile, name: "api-key".to_owned(), version: None };
    let mut client = system.client();
    client.call(&get, CallOptions::default()).expect("a value");
    begin.wait();
    let end = Instant::now() + DURATION;
    let mut times = Vec::new();
    while Instant::now() < end {
        times.push(crate::measure::time(&mut || {
            client.call(&get, CallOptions::default()).expect("a value");
        }));
    }
    times
}
