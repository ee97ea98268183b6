//! Round trips and whole processes, with everything on one core or anywhere.

use std::process::{Command, Stdio};

use core_ipc::CallOptions;
use core_types::protocol::secrets::Get;
use core_types::{ProfileName, WireSecret};
use rustix::thread::CpuSet;
use tests::System;

use crate::cores;
use crate::dbus::{self, DbusEcho};
use crate::echo::{BYTES, BusEcho, Echo, RawEcho};
use crate::measure::{Rounds, Row, pair};

const ROUND_TRIPS: Rounds = Rounds { rounds: 40, each: 100 };
const PROCESSES: Rounds = Rounds { rounds: 60, each: 5 };

/// The four rows of latency, on one core and on any.
pub(crate) fn all(system: &System) -> Vec<Row> {
    [true, false].into_iter().flat_map(|pinned| rows(system, pinned)).collect()
}

fn rows(system: &System, pinned: bool) -> Vec<Row> {
    let allowed: CpuSet = cores::allowed();
    let mut raw = RawEcho::start();
    let echo = BusEcho::start(system);
    let mut pids = cores::pids(system);
    pids.extend(raw.pids());
    pids.push(echo.pid());
    cores::place(&pids, pinned, &allowed);
    let name = |what: &str| format!("{what} ({})", cores::name(pinned));

    let mut client = system.client();
    let call = Echo(WireSecret::new(vec![7; BYTES]));
    let round_trip = pair(
        ROUND_TRIPS,
        || raw.round_trip(),
        || {
            client.call(&call, CallOptions::default()).expect("an echo");
        },
    );
    let others: Vec<Row> =
        dbus::installed().into_iter().map(|bus| other_bus(bus, &mut raw, pinned)).collect();
    let get = Get {
        profile: ProfileName::parse("default").expect("a name"),
        name: "api-key".to_owned(),
        version: None,
    };
    let sealed_get = pair(
        ROUND_TRIPS,
        || raw.round_trip(),
        || {
            client.call(&get, CallOptions::default()).expect("a value");
        },
    );
    let whole_get =
        pair(PROCESSES, || run(&mut bare_true(system)), || run(&mut pds(system, &["get", "api-key"])));
    let whole_run = pair(
        PROCESSES,
        || run(&mut bare_true(system)),
        || {
            run(&mut pds(system, &["run", "--", "/bin/true"]));
        },
    );
    cores::place(&pids, false, &allowed);
    let mut rows = vec![
        Row::times(&name("request/response through the bus, 256 B, warm"), round_trip, 1.6),
        Row::times(&name("get by a warm client: sealed, gates, cache, audit"), sealed_get, 2.5),
        Row::times(&name("`pds get` as a whole process"), whole_get, 2.5),
        Row::times(&name("`pds run -- true` as a whole process"), whole_run, 4.0),
    ];
    rows.splice(1..1, others);
    rows
}

/// The same bytes through another bus, which seals nothing.
fn other_bus(bus: &str, raw: &mut RawEcho, pinned: bool) -> Row {
    let mut echo = DbusEcho::start(bus);
    cores::place(&echo.pids(), pinned, &cores::allowed());
    let round_trip = pair(ROUND_TRIPS, || raw.round_trip(), || echo.round_trip());
    Row::times(&format!("the same through {bus} ({})", cores::name(pinned)), round_trip, f64::INFINITY)
}

fn command(system: &System, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(system.environment());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn bare_true(system: &System) -> Command {
    command(system, "/bin/true")
}

fn pds(system: &System, arguments: &[&str]) -> Command {
    let mut command = command(system, system.programs().join("pds"));
    command.args(arguments);
    command
}

fn run(command: &mut Command) {
    let status = command.status().expect("a program that can be started");
    assert!(status.success(), "{command:?} ended with {status}");
}
