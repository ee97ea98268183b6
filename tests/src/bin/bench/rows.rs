//! The rows of the table: each measures its floor and ours in turn, so that both see the same machine.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use core_crypto::kdf::{Argon2Params, derive_kek};
use core_crypto::{SecureBytes, hash_chain::Link};
use core_ipc::CallOptions;
use core_ipc::blocking::Client;
use core_types::WireSecret;
use core_types::protocol::Call;
use core_types::protocol::secrets::{Get, Lock, Set, Unlock};
use rustix::thread::{CpuSet, sched_setaffinity};
use tests::{PASSWORD, Spec, System};

use crate::echo::{self, Echo};
use crate::floor::{BYTES, Floor};
use crate::table::{Row, Table};

/// Argument that makes the program measure the row of many secrets, in a folder in memory.
pub(crate) const MANY: &str = "many-secrets";
/// Rounds of a latency, and of a whole process.
const ROUNDS: usize = 3_000;
const SPAWNS: usize = 150;
const DURABLE_ROUNDS: usize = 200;
const UNLOCKS: usize = 7;
const FEW: usize = 100;
const MANY_SECRETS: usize = 100_000;
/// No row is about the rate limit.
const UNLIMITED: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";

/// Keeps this process, and all it starts from now on, on the first core; or lets it go again.
pub(crate) fn pin(pinned: bool) {
    let cores = if pinned { 1 } else { std::thread::available_parallelism().map_or(1, usize::from).max(2) };
    let mut set = CpuSet::new();
    (0..cores).for_each(|core| set.set(core));
    sched_setaffinity(None, &set).expect("the cores of this process can be set");
}

fn timed(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut samples: Vec<Duration>) -> f64 {
    samples.sort_unstable();
    samples[samples.len() / 2].as_secs_f64()
}

/// Medians of two things done in turn, in seconds.
fn in_turn(rounds: usize, mut floor: impl FnMut(), mut ours: impl FnMut()) -> (f64, f64) {
    for _ in 0..rounds / 10 + 1 {
        floor();
        ours();
    }
    let (floors, all): (Vec<_>, Vec<_>) = (0..rounds).map(|_| (timed(&mut floor), timed(&mut ours))).unzip();
    (median(floors), median(all))
}

fn ask<C: Call>(client: &mut Client, call: &C) -> C::Reply {
    client
        .call(call, CallOptions { deadline: Duration::from_secs(60), descriptors: Vec::new() })
        .expect("an answer")
}

fn system() -> System {
    System::boot(Spec::ready().secret("api-key", [9; BYTES]).config(UNLIMITED))
}

fn get(name: &str) -> Get {
    Get { profile: "default".parse().unwrap(), name: name.to_owned() }
}

const MICROSECONDS: f64 = 1e6;
const MILLISECONDS: f64 = 1e3;

/// A request of 256 bytes over the bus, and a sealed `get` from the cache, against raw sockets.
pub(crate) fn latencies(table: &mut Table, place: &str) {
    let system = system();
    let mut client = system.client();
    let echo = echo::Running::start(&system, &mut client);
    let mut floor = Floor::start();
    let call = Echo(vec![7; BYTES]);
    let (raw, ours) = in_turn(ROUNDS, || floor.round_trip(), || drop(ask(&mut client, &call)));
    let name = format!("bus round trip, 256 B, {place}");
    table.add(Row::against(&name, "us", raw * MICROSECONDS, ours * MICROSECONDS, "<= 1.6"));
    drop(echo);
    let call = get("api-key");
    let (raw, ours) = in_turn(ROUNDS, || floor.round_trip(), || drop(ask(&mut client, &call)));
    let name = format!("sealed get by a warm client, {place}");
    table.add(Row::against(&name, "us", raw * MICROSECONDS, ours * MICROSECONDS, "<= 2.5"));
}

fn spawn(command: &mut Command) {
    let status =
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("the command can be started");
    assert!(status.success(), "the command failed");
}

/// Whole processes against the spawning of `/bin/true`.
pub(crate) fn processes(table: &mut Table, place: &str) {
    let system = system();
    let mut floor = || spawn(&mut Command::new("/bin/true"));
    let rows: [(&str, &[&str], &str); 2] = [
        ("pds get", &["get", "api-key"], "<= 2.5"),
        ("pds run -- true", &["run", "--", "/bin/true"], "<= 4"),
    ];
    for (name, arguments, budget) in rows {
        let (raw, ours) = in_turn(SPAWNS, &mut floor, || spawn(system.pds(arguments).command()));
        let name = format!("{name}, whole process, {place}");
        table.add(Row::against(&name, "ms", raw * MILLISECONDS, ours * MILLISECONDS, budget));
    }
}

/// How fast a child's output comes through a pipe, with and without pds.
pub(crate) fn pipe_throughput(table: &mut Table) {
    const MIB: usize = 1024;
    let system = system();
    let drain = |command: &mut Command| {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut first = None;
        loop {
            match pipe.read(&mut buffer).unwrap() {
                0 => break,
                _ => first.get_or_insert_with(Instant::now),
            };
        }
        let took = first.map_or(Duration::MAX, |first| first.elapsed());
        assert!(child.wait().unwrap().success());
        took
    };
    let arguments = ["if=/dev/zero".to_owned(), "bs=1M".to_owned(), format!("count={MIB}")];
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        floors.push(drain(Command::new("dd").args(&arguments)));
        ours.push(drain(
            system.pds(["run", "--", "dd"].map(str::to_owned).iter().chain(&arguments)).command(),
        ));
    }
    #[allow(clippy::cast_precision_loss)] // a small number
    let speed = |samples| MIB as f64 / median(samples);
    table.add(Row::against("pipe throughput of a child", "MiB/s", speed(floors), speed(ours), ">= 0.98"));
}

/// Unlocking against its Argon2id alone.
pub(crate) fn unlock(table: &mut Table) {
    let system = system();
    let mut client = system.client();
    let profile: core_types::ProfileName = "default".parse().unwrap();
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..UNLOCKS {
        floors.push(timed(|| {
            drop(derive_kek(PASSWORD.as_bytes(), &[7; 16], &Argon2Params::DEFAULT).expect("a key"));
        }));
        ask(&mut client, &Lock { profile: Some(profile.clone()) });
        let call = Unlock { profile: profile.clone(), password: WireSecret::new(PASSWORD.into()) };
        ours.push(timed(|| {
            ask(&mut client, &call);
        }));
    }
    let (floor, ours) = (median(floors) * MILLISECONDS, median(ours) * MILLISECONDS);
    table.add(Row::against("unlock, against its Argon2id", "ms", floor, ours, "<= 1.15"));
}

/// A `set` that is acknowledged when it is durable, against one durable INSERT in SQLCipher of the same settings.
pub(crate) fn durable_set(table: &mut Table) {
    let system = system();
    let mut client = system.client();
    let database = rusqlite::Connection::open(system.folder().join("floor.db")).unwrap();
    let key = hex::encode(SecureBytes::random(32).unwrap().expose());
    database
        .execute_batch(&format!(
            "PRAGMA key = \"x'{key}'\"; PRAGMA cipher_memory_security = ON; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;
             CREATE TABLE secrets (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT;"
        ))
        .unwrap();
    let (mut floor_number, mut number) = (0, 0);
    let insert = || {
        floor_number += 1;
        database
            .execute("INSERT INTO secrets VALUES (?1, ?2)", (format!("name-{floor_number}"), [7; BYTES]))
            .unwrap();
    };
    let set = || {
        number += 1;
        let value = WireSecret::new(vec![7; BYTES]);
        ask(&mut client, &Set { profile: "default".parse().unwrap(), name: format!("name-{number}"), value });
    };
    let (floor, ours) = in_turn(DURABLE_ROUNDS, insert, set);
    table.add(Row::against("durable set", "ms", floor * MILLISECONDS, ours * MILLISECONDS, "<= 1.3"));
}

/// A number from 0 up to `below` that looks random and is the same in each run.
fn scattered(round: usize, below: usize) -> usize {
    let hash = Link::GENESIS.next(&round.to_be_bytes()).to_hex();
    usize::from_str_radix(&hash[..12], 16).unwrap() % below
}

/// Starts [`many_secrets`] with its files in memory, because 100,000 durable writes take minutes elsewhere and
/// reading is what is measured.
pub(crate) fn many_secrets_elsewhere(table: &mut Table) {
    let program = std::env::current_exe().unwrap();
    let output =
        Command::new(program).arg(MANY).env("TMPDIR", "/dev/shm").stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the row of many secrets could not be measured");
    table.add(serde_json::from_slice(&output.stdout).unwrap());
}

/// A `get` from the vault, not from the cache, with few secrets and with many.
pub(crate) fn many_secrets() {
    let config = format!("{UNLIMITED}[secrets]\ncache_ttl_seconds = 0\n");
    let [few, many] = [FEW, MANY_SECRETS].map(|count| {
        let system = System::boot(Spec::ready().config(&config));
        let mut client = system.client();
        for number in 0..count {
            let value = WireSecret::new(vec![7; 64]);
            let name = format!("group-{}/name-{number}", number % 100);
            ask(&mut client, &Set { profile: "default".parse().unwrap(), name, value });
        }
        (system, client, count)
    });
    let reader = |(system, mut client, count): (System, Client, usize)| {
        let mut round = 0;
        move || {
            let _lives = &system;
            round += 1;
            let number = scattered(round, count);
            drop(ask(&mut client, &get(&format!("group-{}/name-{number}", number % 100))));
        }
    };
    let (floor, ours) = in_turn(ROUNDS, reader(few), reader(many));
    let row = Row::against(
        "get with 100,000 secrets, against 100",
        "us",
        floor * MICROSECONDS,
        ours * MICROSECONDS,
        "<= 1.5",
    );
    println!("{}", serde_json::to_string(&row).unwrap());
}

/// Proportional memory of the four daemons, idle, with an unlocked vault.
pub(crate) fn memory(table: &mut Table) {
    let system = system();
    let daemons = ["daemon-bus", "daemon-secrets", "daemon-profile", "daemon-launcher"];
    let kib = |name: &str| -> u64 {
        let path = format!("/proc/{}/smaps_rollup", system.pid_of(name));
        let text = std::fs::read_to_string(path).expect("memory of a daemon can be read");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line with Pss");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    #[allow(clippy::cast_precision_loss)] // a small number
    let mib = daemons.iter().map(|name| kib(name)).sum::<u64>() as f64 / 1024.0;
    table.add(Row {
        name: "four daemons idle, proportional memory".to_owned(),
        unit: "MiB".to_owned(),
        floor: None,
        ours: mib,
        ratio: None,
        budget: "<= 24".to_owned(),
    });
}
