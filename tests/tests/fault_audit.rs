//! The audit log while daemons are stopped and killed, and the disk fills: what a mode promises holds.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions};
use core_types::name::{LAUNCHER, PROFILE, SECRETS};
use core_types::protocol::secrets::SecretsDenial;
use rustix::process::Signal;
use tests::calls;
use tests::chance::{Chance, tries};
use tests::disk::SmallDisk;
use tests::strace::{Strace, Syscall};
use tests::system::{call, wait_for};
use tests::{Spec, System};

/// What takes longer hangs.
const HANG: Duration = Duration::from_secs(10);
/// No limit stands in the way of the load.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";
const DURABLE: &str = "[profiles.default]\naudit = 'durable'\n";

/// Asks for a secret that is not there, so that each attempt has a subject of its own; sees to it that an answer comes.
fn attempt(client: &mut Client, name: &str) {
    let began = Instant::now();
    let options = CallOptions { deadline: HANG, descriptors: Vec::new() };
    let answer = client.call(&calls::get("default", name), options).map(|_| ());
    assert!(began.elapsed() < HANG, "{name} hung");
    let expected = SecretsDenial::NoSuchSecret(name.to_owned());
    assert!(matches!(&answer, Err(CallError::Denied(denial)) if *denial == expected), "{answer:?}");
}

/// The subjects of all entries, each as often as it stands there; asked page by page.
fn subjects(system: &System) -> Vec<String> {
    let shown = system.pds(["audit", "show", "--json"]).run().done().json();
    let entries = shown["entries"].as_array().unwrap();
    entries.iter().filter_map(|entry| Some(entry["subject"].as_str()?.to_owned())).collect()
}

fn assert_each_once(system: &System, names: &[String]) {
    let wanted: BTreeSet<&String> = names.iter().collect();
    wait_for("all entries are in the log", || {
        let found = subjects(system);
        let found: Vec<&String> = found.iter().filter(|name| wanted.contains(name)).collect();
        assert!(found.len() <= names.len(), "an entry stands there twice");
        (found.len() == names.len()).then_some(())
    });
    assert_eq!(subjects(system).iter().collect::<BTreeSet<_>>().intersection(&wanted).count(), names.len());
}

fn continues(system: &System) {
    if let Some(process) = system.process(PROFILE) {
        process.signal(Signal::CONT);
    }
}

#[test]
fn a_stopped_and_killed_daemon_profile_holds_nobody_up_and_misses_nothing() {
    let system = System::boot(Spec::ready().config(RATES));
    let mut client = system.client();
    let count = tries(150);
    let names: Vec<String> = (0..count).map(|number| format!("asked-{number}")).collect();
    let (stopped, rest) = names.split_at(count / 3);
    let (killed, last) = rest.split_at(count / 3);
    system.process(PROFILE).unwrap().signal(Signal::STOP);
    stopped.iter().for_each(|name| attempt(&mut client, name));
    let old = system.kill(PROFILE);
    killed.iter().for_each(|name| attempt(&mut client, name));
    system.wait_until_back(PROFILE, old);
    last.iter().for_each(|name| attempt(&mut client, name));
    assert_each_once(&system, &names);
    system.pds(["audit", "verify"]).run().done();
}

/// One that goes on has what it was asked before, and is asked again; one that is killed had it in memory only.
#[test]
fn entries_that_daemon_profile_is_too_slow_to_take_are_sent_again_and_stand_there_once() {
    let system = System::boot(Spec::ready().config(RATES).log("debug"));
    let mut client = system.client();
    let mut names = Vec::new();
    let given_up = b"audit entries wait for daemon-profile";
    let given_up = || system.log().windows(given_up.len()).filter(|window| window == given_up).count();
    for killed in [false, true] {
        let before = given_up();
        system.process(PROFILE).unwrap().signal(Signal::STOP);
        for number in 0..20 {
            let name = format!("asked-{killed}-{number}");
            attempt(&mut client, &name);
            names.push(name);
        }
        wait_for("daemon-secrets waits no longer", || (given_up() > before).then_some(()));
        if killed {
            let old = system.kill(PROFILE);
            system.wait_until_back(PROFILE, old);
        } else {
            continues(&system);
        }
        assert_each_once(&system, &names);
    }
    system.pds(["audit", "verify"]).run().done();
}

/// No daemon that has an entry in memory is left.
#[test]
fn what_was_answered_is_recorded_though_every_daemon_is_killed() {
    let system = System::boot(Spec::ready().config(RATES));
    let mut names = Vec::new();
    for round in 0..tries(3) {
        let mut client = system.client();
        system.process(PROFILE).unwrap().signal(Signal::STOP);
        for number in 0..20 {
            let name = format!("asked-{round}-{number}");
            attempt(&mut client, &name);
            names.push(name);
        }
        let (secrets, profile) = (system.kill(SECRETS), system.kill(PROFILE));
        system.wait_until_back(SECRETS, secrets);
        system.wait_until_back(PROFILE, profile);
        system.pds(["unlock"]).password().run().done();
    }
    assert_each_once(&system, &names);
    system.pds(["audit", "verify"]).run().done();
}

/// Kills that strike anywhere in writing, also while segments are exchanged.
#[test]
fn kills_of_daemon_profile_during_appends_lose_no_entry_and_no_number() {
    // Segments as small as they may be; some 1,500 entries fill one.
    let system = System::boot(Spec::ready().config(&format!("{RATES}[audit]\nsegment_mib = 1\n")));
    let mut chance = Chance::of("kills of daemon-profile");
    let mut client = system.client();
    let (mut names, kills) = (Vec::new(), tries(10));
    for round in 0..kills {
        for number in 0..20 + chance.below(40) {
            let name = format!("asked-{round}-{number}");
            attempt(&mut client, &name);
            names.push(name);
        }
        let old = system.kill(PROFILE);
        system.wait_until_back(PROFILE, old);
    }
    assert_each_once(&system, &names);
    let shown = system.pds(["audit", "show", "--json"]).run().done().json();
    let entries = shown["entries"].as_array().unwrap();
    let sequences: Vec<u64> = entries.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, Vec::from_iter(1..=sequences.len() as u64));
    system.pds(["audit", "verify"]).run().done();
    let files = std::fs::read_dir(system.paths().audit()).unwrap();
    let segments = files.filter(|file| file.as_ref().unwrap().path().extension().is_some()).count();
    println!(
        "{kills} kills of daemon-profile: {} entries in {segments} segments, none lost, none twice",
        sequences.len()
    );
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Whether an entry was written and then written out between two times.
fn is_on_disk(calls: &[Syscall], folder: &str, began: f64, ended: f64) -> bool {
    let ours =
        |call: &&Syscall| call.path().starts_with(folder) && call.began >= began && call.ended <= ended;
    let written = calls.iter().filter(ours).find(|call| call.name == "pwrite64" && call.worked());
    let synced = |written: &Syscall| {
        let sync = |call: &Syscall| call.name == "fdatasync" && call.worked() && call.began >= written.ended;
        calls.iter().filter(ours).any(sync)
    };
    written.is_some_and(synced)
}

#[test]
fn no_value_of_a_durable_profile_leaves_before_its_entry_is_on_the_disk() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let system = System::boot(Spec::ready().secret("key", "value").config(&format!("{RATES}{DURABLE}")));
    let mut client = system.client();
    let traced = Strace::attach(&system, system.pid_of(SECRETS), &["-e", "trace=pwrite64,fdatasync"]);
    let count = tries(50);
    let mut times = Vec::new();
    for _ in 0..count {
        let began = now();
        assert_eq!(call(&mut client, &calls::get("default", "key")).expose(), b"value");
        times.push((began, now()));
    }
    let calls = traced.end();
    let folder = system.paths().audit_waiting();
    let early =
        times.iter().filter(|(began, ended)| !is_on_disk(&calls, folder.to_str().unwrap(), *began, *ended));
    assert_eq!(early.count(), 0, "values left before their entries were on the disk");
    println!("durable: {count} values, 0 without an entry that was on the disk before");
}

/// Whether the entries of what is done while a daemon is watched are written out before it is answered.
fn is_durable(system: &System, daemon: &str, act: impl Fn()) -> bool {
    let traced = Strace::attach(system, system.pid_of(daemon), &["-e", "trace=pwrite64,fdatasync"]);
    let began = now();
    act();
    let ended = now();
    let folder = system.paths().audit_waiting();
    is_on_disk(&traced.end(), folder.to_str().unwrap(), began, ended)
}

#[test]
fn the_mode_of_a_profile_is_changed_without_a_restart() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let system = System::boot(Spec::ready().secret("key", "value").config(RATES));
    let pids = || [SECRETS, PROFILE, LAUNCHER].map(|name| system.pid_of(name));
    let before = pids();
    for (config, mode, durable) in [
        (RATES.to_owned(), None, false),
        (format!("{RATES}{DURABLE}"), Some("durable"), true),
        (RATES.to_owned(), None, false),
    ] {
        system.write_config(&config);
        let status = || system.pds(["status", "--json"]).run().done().json();
        assert_eq!(status()["audit"]["modes"]["default"].as_str(), mode);
        let get = || drop(system.pds(["get", "key"]).run().done());
        let run = || drop(system.pds(["run", "--", "true"]).run().done());
        assert_eq!(is_durable(&system, SECRETS, get), durable, "{mode:?}");
        assert_eq!(is_durable(&system, LAUNCHER, run), durable, "{mode:?}");
    }
    assert_eq!(pids(), before);
    let changes = || {
        let entries = system.audit(1_000);
        entries.into_iter().filter(|entry| entry["operation"] == "config-change").collect::<Vec<_>>()
    };
    let changes =
        wait_for("both changes are in the log", || Some(changes()).filter(|found| found.len() == 2));
    assert!(changes.iter().all(|change| change["subject"] == "config.toml: audit modes"), "{changes:?}");
}

#[test]
fn on_a_full_disk_durable_refuses_and_changes_nothing_and_written_goes_on_and_tells() {
    for (mode, refuses) in [("durable", true), ("written", false)] {
        let system = System::boot(Spec::new().not_started());
        let Some(disk) = SmallDisk::over(system.paths().state(), 1) else { return };
        system.write_config(&format!("{RATES}[audit]\nmode = '{mode}'\n"));
        system.pds(["init"]).password().run().done();
        system.pds(["set", "key"]).stdin("before").run().done();
        let status = system.pds(["status", "--json"]).run().done().json();
        assert_eq!(status["audit"]["mode"], mode);
        disk.fill();
        if refuses {
            // What has been kept free before is used up first, and recorded.
            wait_for("nothing is changed any more", || {
                let ended = system.pds(["set", "key"]).stdin("before").run().any();
                (ended.status().code() == Some(1)).then_some(())
            });
            system.pds(["set", "key"]).stdin("after").run().exits(1);
        } else {
            for _ in 0..30 {
                system.pds(["get", "key"]).run().done().prints("before");
            }
        }
        disk.empty();
        wait_for("it goes on", || {
            let status = system.pds(["status", "--json"]).run().any().json();
            let ended = system.pds(["get", "key"]).run().any();
            (status["audit"]["failing"].is_null() && ended.status().code() == Some(0)).then_some(())
        });
        system.pds(["get", "key"]).run().done().prints("before");
        system.pds(["audit", "verify"]).run().done();
        system.pds(["daemon", "stop"]).run().done();
    }
}

#[test]
fn a_folder_of_waiting_entries_that_is_a_link_is_refused_by_name() {
    let system = System::boot(Spec::new().not_started());
    std::fs::create_dir_all(system.paths().state()).unwrap();
    std::os::unix::fs::symlink(system.folder(), system.paths().audit_waiting()).unwrap();
    let ended = system.pds(["daemon", "start"]).run().any();
    assert_ne!(ended.status().code(), Some(0));
}

#[test]
fn a_log_that_was_cut_or_written_anew_is_found_by_the_vault() {
    let system = System::boot(Spec::ready().config(RATES));
    let mut client = system.client();
    (0..30).for_each(|number| attempt(&mut client, &format!("asked-{number}")));
    let path = system.paths().audit().join("000001.jsonl");
    wait_for("the entries are in the file", || {
        std::fs::read_to_string(&path).unwrap().contains("asked-29").then_some(())
    });
    system.pds(["audit", "verify"]).run().done();
    let old = system.process(PROFILE).unwrap();
    old.signal(Signal::STOP);
    let text = std::fs::read_to_string(&path).unwrap();
    let cut: String = text.lines().take(text.lines().count() - 5).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, cut).unwrap();
    let old = system.kill(PROFILE);
    system.wait_until_back(PROFILE, old);
    continues(&system);
    wait_for("it is found", || {
        let ended = system.pds(["audit", "verify", "--json"]).run().any();
        (ended.status().code() == Some(9)).then_some(())
    });
}
