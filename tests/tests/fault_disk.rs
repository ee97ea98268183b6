//! What is acknowledged is on the disk, and a disk that fails, or is full, changes nothing half.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions};
use core_types::name::SECRETS;
use core_types::protocol::Call;
use core_types::protocol::secrets::{SecretsDenial, SecretsService};
use tests::calls;
use tests::chance::{Chance, tries};
use tests::disk::SmallDisk;
use tests::oracle::{Oracle, State};
use tests::strace::{Strace, Syscall};
use tests::system::call;
use tests::{PASSWORD, Spec, System};

/// What takes longer hangs.
const HANG: Duration = Duration::from_secs(10);
/// No limit stands in the way of the load.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";
/// The calls that change files, or write them out.
const CHANGES: &str =
    "trace=write,pwrite64,writev,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Seconds of the Unix epoch, as strace tells them.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// What an acknowledgement found that was not on the disk yet.
#[derive(Debug, Default)]
struct Order {
    /// Acknowledgements before which something had been written, and all of it had been written out.
    kept: usize,
    /// Those before which nothing had been written at all.
    nothing_written: usize,
    /// Paths that had been written to and not written out.
    broken: Vec<String>,
}

/// Whether acknowledgements, given by their times, came when all changes of files below `folder` were on the disk.
fn order(calls: &[Syscall], folder: &str, acknowledgements: &[f64]) -> Order {
    let mut order = Order::default();
    // Neither of these holds anything that must outlast the process.
    let passing = |path: &str| path.ends_with("-shm") || path.ends_with("/lock");
    let ours = |path: &str| path.starts_with(folder) && !passing(path);
    for pair in std::iter::once(&0.0).chain(acknowledgements).collect::<Vec<_>>().windows(2) {
        let (before, acknowledged) = (*pair[0], *pair[1]);
        // The last change of each file before the acknowledgement.
        let mut changed: BTreeMap<&str, f64> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.began < acknowledged && ours(call.path())) {
            if ["write", "pwrite64", "writev", "pwritev", "ftruncate"].contains(&call.name.as_str()) {
                let last = changed.entry(call.path()).or_default();
                *last = last.max(call.ended);
            }
        }
        let is_out = |path: &str, changed: f64| {
            calls.iter().any(|call| {
                ["fsync", "fdatasync"].contains(&call.name.as_str())
                    && call.worked()
                    && call.path() == path
                    && call.began >= changed
                    && call.ended <= acknowledged
            })
        };
        let open: Vec<String> = changed
            .iter()
            .filter(|(path, at)| !is_out(path, **at))
            .map(|(path, _)| (*path).to_owned())
            .collect();
        match changed.values().any(|at| *at > before) {
            false => order.nothing_written += 1,
            true if open.is_empty() => order.kept += 1,
            true => {}
        }
        order.broken.extend(open);
    }
    order
}

#[test]
fn nothing_is_acknowledged_before_it_is_on_the_disk() {
    if !is_root() {
        // Only root can trace the daemons.
        return;
    }
    let system = System::boot(Spec::ready().config(RATES));
    let strace = Strace::attach(&system, system.pid_of(SECRETS), &["-e", CHANGES]);
    let mut client = system.client();
    let (count, mut acknowledged) = (tries(1_000), Vec::new());
    for number in 0..count {
        let (name, value) = (format!("name-{}", number % 50), vec![b'v'; number % 700]);
        call(&mut client, &calls::set("default", &name, value));
        acknowledged.push(now());
    }
    let calls = strace.end();
    let order = order(&calls, system.paths().vaults().to_str().unwrap(), &acknowledged);
    assert_eq!(order.nothing_written, 0, "acknowledgements before which nothing was written");
    assert!(
        order.broken.is_empty(),
        "{} acknowledgements came too early: {:?}",
        order.broken.len(),
        order.broken.first()
    );
    assert_eq!(order.kept, count);
    eprintln!("{count} writes acknowledged, each after what it had written was on the disk");
}

/// Whether a file was moved to a path, and afterwards, before the acknowledgement, its folder was written out.
fn is_moved_and_out(calls: &[Syscall], to: &std::path::Path, acknowledged: f64) -> bool {
    let (to, folder) = (format!("\"{}\"", to.display()), to.parent().unwrap().to_str().unwrap());
    let moved = calls
        .iter()
        .find(|call| call.name.starts_with("rename") && call.worked() && call.arguments.contains(&to));
    moved.is_some_and(|moved| {
        calls.iter().any(|call| {
            call.name == "fsync"
                && call.worked()
                && call.path() == folder
                && call.began >= moved.ended
                && call.ended <= acknowledged
        })
    })
}

#[test]
fn a_new_vault_and_a_new_password_are_on_the_disk_with_their_folders_when_they_are_acknowledged() {
    if !is_root() {
        return;
    }
    let system = System::boot(Spec::new());
    let vault = system.paths().vault(&calls::profile("default"));
    let strace = Strace::attach(&system, system.pid_of(SECRETS), &["-s", "500", "-e", CHANGES]);
    system.pds(["init"]).password().run().done();
    let acknowledged = now();
    let calls = strace.end();
    assert!(is_moved_and_out(&calls, &vault, acknowledged), "the new folder of the vault");
    let building = system.paths().vaults().join(".default.new");
    assert!(is_moved_and_out(&calls, &building.join("header.json"), acknowledged), "the new header");
    let order = order(&calls, system.paths().vaults().to_str().unwrap(), &[acknowledged]);
    assert!(order.broken.is_empty() && order.kept == 1, "{order:?}");

    let strace = Strace::attach(&system, system.pid_of(SECRETS), &["-s", "500", "-e", CHANGES]);
    let change = format!("pds passwd --password-fd 3 --new-password-fd 4 3<<<'{}' 4<<<'new one'", PASSWORD);
    system.shell(&change).run().done();
    let acknowledged = now();
    let calls = strace.end();
    assert!(is_moved_and_out(&calls, &vault.join("header.json"), acknowledged), "the changed header");
}

/// Writes and reads through a disk that may fail, and knows what must be there.
struct User {
    client: Client,
    chance: Chance,
    oracle: Oracle,
    /// Writes that were refused with a clear error.
    refused: usize,
    acknowledged: usize,
}

impl User {
    fn new(system: &System, chance: Chance) -> Self {
        Self { client: system.client(), chance, oracle: Oracle::default(), refused: 0, acknowledged: 0 }
    }

    fn ask<C: Call<Service = SecretsService>>(
        &mut self,
        call: &C,
    ) -> Result<C::Reply, CallError<SecretsDenial>> {
        let began = Instant::now();
        let answer = self.client.call(call, CallOptions { deadline: HANG, descriptors: Vec::new() });
        assert!(began.elapsed() < HANG, "call {} hung", C::METHOD);
        answer
    }

    /// Writes one value; a refusal must say that the disk is to blame.
    fn write(&mut self, length: usize) {
        let name = format!("name-{}", self.chance.below(4));
        let value = self.chance.bytes(length);
        self.oracle.begins(&name, Some(value.clone()));
        match self.ask(&calls::set("default", &name, value)) {
            Ok(()) => {
                self.oracle.acknowledged(&name);
                self.acknowledged += 1;
            }
            Err(CallError::Denied(SecretsDenial::StorageFull | SecretsDenial::Storage(_))) => {
                self.refused += 1
            }
            Err(error) => panic!("a write to a failing disk ended with {error:?}"),
        }
    }

    /// Reads everything back.
    fn check(&mut self) {
        let names: Vec<String> = self.oracle.names().map(str::to_owned).collect();
        for name in names {
            let found: State = match self.ask(&calls::get("default", &name)) {
                Ok(value) => Some(value.expose().to_vec()),
                Err(CallError::Denied(SecretsDenial::NoSuchSecret(_))) => None,
                Err(error) => panic!("a read beside a failing disk ended with {error:?}"),
            };
            let right = self.oracle.finds(&name, found, |_| false);
            assert_eq!(right, Ok(()), "'{name}' beside a failing disk");
        }
    }
}

/// What a vault's files are changed and written out by.
const CALLS: [&str; 4] = ["pwrite64", "fdatasync", "fsync", "ftruncate"];

#[test]
fn a_call_that_fails_changes_nothing_half_and_nothing_acknowledged() {
    if !is_root() {
        return;
    }
    // Without the cache, so that every read is one of the disk.
    let mut system =
        System::boot(Spec::ready().config(&format!("{RATES}[secrets]\ncache_ttl_seconds = 0\n")));
    let mut chance = Chance::of("failing calls");
    let mut user = User::new(&system, chance.split());
    let (mut failed, tried) = (BTreeSet::new(), tries(12));
    for number in 0..tried {
        let name = CALLS[number % CALLS.len()];
        let error = ["EIO", "ENOSPC"][number / CALLS.len() % 2];
        // Counted by strace for each thread alone, and a thread may write out but once.
        let at = if name == "pwrite64" { 1 + chance.below(6) } else { 1 };
        let trace = format!("trace={name}");
        let inject = format!("inject={name}:error={error}:when={at}");
        let database = system.paths().vault(&calls::profile("default"));
        let paths =
            [database.join("vault.db"), database.join("vault.db-wal")].map(|path| path.display().to_string());
        let options = ["-e", &trace, "-e", &inject, "-P", &paths[0], "-P", &paths[1]];
        let strace = Strace::attach(&system, system.pid_of(SECRETS), &options);
        let before = user.refused;
        for _ in 0..4 {
            let length = [10, 3_000, 60_000][chance.below(3)];
            user.write(length);
            user.check();
        }
        let calls = strace.end();
        failed.extend(calls.iter().any(|call| call.result.contains("INJECTED")).then_some((name, error)));
        // The disk is well again, and nobody has to be started anew.
        let refused = user.refused;
        user.write(100);
        user.check();
        assert_eq!(
            user.refused,
            refused,
            "a write after {name} failed with {error}, {} refused",
            refused - before
        );
        if number % 6 == 5 {
            system.kill_all();
            system.start();
            user.client = system.client();
            call(&mut user.client, &calls::unlock("default", PASSWORD));
            user.check();
        }
    }
    assert!(user.refused > 0 && failed.len() >= 3, "only {failed:?} failed, so this shows nothing");
    eprintln!(
        "{tried} times a call failed ({failed:?}): {} writes refused, {} acknowledged",
        user.refused, user.acknowledged
    );
}

#[test]
fn a_disk_that_fills_up_and_is_freed_loses_nothing() {
    let spec = Spec::new().not_started().config(&format!("{RATES}[secrets]\ncache_ttl_seconds = 0\n"));
    let system = System::boot(spec);
    let Some(disk) = SmallDisk::over(system.paths().data(), 4) else { return };
    system.pds(["init"]).password().run().done();
    let mut chance = Chance::of("full disk");
    let mut user = User::new(&system, chance.split());
    for _ in 0..20 {
        user.write(10);
    }
    let log = system.paths().vault(&calls::profile("default")).join("vault.db-wal");
    let bytes = std::fs::metadata(log).expect("a log").len();
    assert!(bytes < 500_000, "{bytes} bytes: no room is taken ahead on a small disk");
    let tried = tries(12);
    for _ in 0..tried {
        let room = chance.below(60_000);
        disk.fill_but(room.try_into().unwrap());
        let refused = user.refused;
        for _ in 0..40 {
            let length = chance.below(3_000);
            user.write(length);
            if user.refused > refused {
                break;
            }
        }
        user.check();
        disk.empty();
        let refused = user.refused;
        user.write(1_000);
        user.check();
        assert_eq!(user.refused, refused, "a write after there was room again");
    }
    // A log that was begun anew takes a while to fill what it has.
    assert!(user.refused >= 6, "the disk never was full");
    eprintln!(
        "{tried} times full and free again: {} writes refused, {} acknowledged",
        user.refused, user.acknowledged
    );
}
