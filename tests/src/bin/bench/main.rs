//! `make bench`: what pds costs, each row beside the floor it stands on, measured in turn in one run.
//!
//! The program is also the floors' other processes: started with an argument, it relays, echoes or serves.
// It is a program for people who measure: it prints, and ends with a panic where the world is not in order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod audit;
mod clients;
mod cores;
mod dbus;
mod echo;
mod latency;
mod measure;
mod memory;
mod start;
mod storage;
mod table;
mod throughput;
mod transfer;

use tests::{Spec, System};

/// No rate limit stands in the way of measuring, and each read of the storage rows is one.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n\
    [rate_limit.unknown]\nper_second = 1000000\nburst = 1000000\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [echo::RELAY] => echo::relay(),
        [echo::ECHO] => echo::echo(),
        [echo::SERVE] => echo::serve(),
        [dbus::BUS, program, socket, config] => dbus::run_bus(program, socket, config),
        [dbus::ECHO, socket] => dbus::run_echo(socket),
        [] => bench(&ALL),
        // Some of them, for whoever works on one.
        [group] if ALL.contains(&group) => bench(&[group]),
        _ => panic!("usage: bench [{}]", ALL.join(" | ")),
    }
}

/// The groups of rows.
const ALL: [&str; 9] =
    ["memory", "latency", "clients", "start", "throughput", "transfer", "audit", "storage", "large"];

fn bench(groups: &[&str]) {
    if cfg!(debug_assertions) {
        eprintln!("note: this is no release build; its figures say nothing");
    }
    let mut rows = Vec::new();
    for group in groups {
        match *group {
            // A system of its own, of which nothing has been asked.
            "memory" => rows.extend([memory::idle(), memory::cached()]),
            "latency" => rows.extend(latency::all(&booted())),
            "clients" => rows.extend(clients::all(&booted())),
            "start" => rows.extend(start::all()),
            "audit" => rows.extend(audit::all()),
            "throughput" => rows.extend(throughput::all(&booted())),
            "transfer" => rows.extend(transfer::all()),
            "large" => rows.extend(storage::large_vaults()),
            _ => rows.extend(storage::ordinary(&booted())),
        }
    }
    table::print(&rows);
    table::write(&rows);
}

fn booted() -> System {
    System::boot(Spec::new().config(RATES).profile("default").secret("api-key", [b'v'; 32]))
}
