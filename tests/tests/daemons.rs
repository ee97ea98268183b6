//! The daemons as a whole: they come back when they die, record what was done, keep secrets to themselves, and are
//! one system per folder however many start it.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use core_crypto::SecureBytes;
use core_ipc::{CallError, CallOptions};
use core_types::ProfileName;
use core_types::header::Refusal;
use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use core_types::protocol::secrets::{Get, SecretsDenial};
use rustix::process::Signal;
use tests::canary::{Canary, processes};
use tests::process::{Pinned, powerless};
use tests::programs::PROGRAMS;
use tests::system::{SUPERVISOR, wait_for};
use tests::{PASSWORD, Spec, System};

const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Room for a busy machine to come back from a deadline that has passed.
const SLACK: Duration = Duration::from_secs(10);

fn get() -> Get {
    Get { profile: ProfileName::parse("default").unwrap(), name: "api-key".to_owned(), version: None }
}

/// Reads the secret again and again until told to stop, and counts the reads that worked.
fn read_until(system: &System, stop: &AtomicBool, worked: &AtomicUsize) {
    let mut client = system.client();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let options = CallOptions { deadline: CALL_DEADLINE, descriptors: Vec::new() };
        match client.call(&get(), options) {
            Ok(value) => {
                assert!(value.expose() == b"value", "another value came back");
                worked.fetch_add(1, Ordering::Relaxed);
            }
            // What the death of a daemon may lead to, and nothing else.
            Err(CallError::Denied(SecretsDenial::Locked | SecretsDenial::Unrecorded))
            | Err(CallError::Refused(Refusal::ServiceGone | Refusal::ServiceUnknown | Refusal::Timeout)) => {}
            Err(CallError::Lost | CallError::Unreachable(_)) => {
                client = wait_for("the bus is back", || {
                    core_ipc::blocking::Client::connect(system.paths(), CALL_DEADLINE).ok()
                });
            }
            Err(other) => panic!("a read ended with {other:?}"),
        }
        assert!(began.elapsed() < CALL_DEADLINE + SLACK, "a call hung beyond its deadline");
    }
}

/// Stops the reader also when the test fails, so that the failure is not waited for.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills a daemon while others read; answers the system, whole again.
fn survives(name: &str) -> System {
    // The reader never rests, and this is not about its allowance.
    let config = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";
    let system = System::boot(Spec::ready().secret("api-key", "value").config(config));
    let (stop, worked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reads_go_on = || {
        let before = worked.load(Ordering::Relaxed);
        wait_for("reads work", || (worked.load(Ordering::Relaxed) > before).then_some(()));
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&system, &stop, &worked));
        let stop_at_end = StopAtEnd(&stop);
        reads_go_on();
        for _ in 0..2 {
            let old = system.kill(name);
            system.wait_until_back(name, old);
            if name != SECRETS {
                reads_go_on();
            }
        }
        drop(stop_at_end);
        reader.join().unwrap();
    });
    system
}

fn is_unlocked_and_whole(system: &System) {
    system.pds(["get", "api-key"]).run().done().prints("value");
    system.pds(["run", "--", "sh", "-c", "test \"$API_KEY\" = value"]).run().done();
    system.pds(["audit", "verify"]).run().done();
}

#[test]
fn a_killed_bus_comes_back_and_the_vault_stays_unlocked() {
    is_unlocked_and_whole(&survives(BUS));
}

#[test]
fn a_killed_daemon_profile_comes_back_and_the_vault_stays_unlocked() {
    is_unlocked_and_whole(&survives(PROFILE));
}

#[test]
fn a_killed_daemon_launcher_comes_back_and_the_vault_stays_unlocked() {
    is_unlocked_and_whole(&survives(LAUNCHER));
}

#[test]
fn a_killed_supervisor_is_replaced_and_nothing_else_changes() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    let before = [BUS, SECRETS, PROFILE, LAUNCHER].map(|name| system.pid_of(name));
    let old = system.kill(SUPERVISOR);
    system.pds(["get", "api-key"]).run().done().prints("value");
    system.wait_until_back(SUPERVISOR, old);
    assert_eq!([BUS, SECRETS, PROFILE, LAUNCHER].map(|name| system.pid_of(name)), before);
    is_unlocked_and_whole(&system);
    // The new one looks after what the old one started.
    let old = system.kill(PROFILE);
    system.wait_until_back(PROFILE, old);
    let old = system.kill(BUS);
    system.wait_until_back(BUS, old);
    is_unlocked_and_whole(&system);
}

#[test]
fn a_killed_daemon_secrets_comes_back_locked() {
    let system = survives(SECRETS);
    system.pds(["get", "api-key"]).run().exits(3);
    system.pds(["unlock"]).password().run().done();
    is_unlocked_and_whole(&system);
}

#[test]
fn what_was_acknowledged_is_there_after_everything_was_killed() {
    let system = System::boot(Spec::ready());
    for number in 0..20 {
        let name = format!("key-{number}");
        system.pds(["set", &name]).stdin(&name).run().done();
    }
    for name in [SUPERVISOR, BUS, SECRETS, LAUNCHER, PROFILE] {
        system.kill(name);
    }
    // Starts what nobody is left to start again.
    drop(system.pds(["status"]).run().any());
    wait_for("all daemons serve again", || system.all_serve().then_some(()));
    system.pds(["unlock"]).password().run().done();
    for number in 0..20 {
        let name = format!("key-{number}");
        system.pds(["get", &name]).run().done().prints(&name);
    }
    system.pds(["audit", "verify"]).run().done();
}

#[test]
fn a_command_right_after_a_death_waits_for_the_daemon_to_come_back() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    for name in [PROFILE, BUS, LAUNCHER] {
        for arguments in [&["get", "api-key"][..], &["run", "--", "printenv", "API_KEY"]] {
            let old = system.kill(name);
            let ended = system.pds(arguments).run();
            assert_eq!(
                ended.status().code(),
                Some(0),
                "{arguments:?} after {name} died; it said:\n{}",
                ended.said()
            );
            drop(ended.any());
            system.wait_until_back(name, old);
        }
    }
    system.pds(["lock"]).run().done();
    let old = system.kill(PROFILE);
    system.pds(["unlock"]).password().run().done();
    system.wait_until_back(PROFILE, old);
}

#[test]
fn a_running_child_survives_the_daemons() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    let (ready, go) = (system.folder().join("ready"), system.folder().join("go"));
    let script =
        format!("mkfifo {1}; : >{0}; read line <{1}; echo $API_KEY; exit 3", ready.display(), go.display());
    let running = system.pds(["run", "--", "sh", "-c", &script]).start();
    wait_for("the child runs", || ready.exists().then_some(()));
    running.process().wait_until_it_handles(Signal::TERM);
    for name in [LAUNCHER, SECRETS, PROFILE, BUS] {
        let old = system.kill(name);
        system.wait_until_back(name, old);
    }
    // Open for both, so that it does not wait for a child that has gone.
    let mut go = std::fs::OpenOptions::new().read(true).write(true).open(&go).unwrap();
    go.write_all(b"go\n").unwrap();
    running.wait().exits(3).prints("value\n");
}

#[test]
fn a_launcher_that_dies_while_it_starts_a_child_is_not_mistaken_for_a_child_that_never_ran() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    let proof = system.folder().join("it-ran");
    for _ in 0..5 {
        let launcher = system.pid_of(LAUNCHER);
        // The child's first act falls into the moment between its start and the launcher's word that it runs.
        let script = format!("kill -KILL {launcher}; : >{}; exit 3", proof.display());
        let ended = system.pds(["run", "--", "sh", "-c", &script]).run();
        assert!(ended.status().code() != Some(125) || !proof.exists(), "125 for a child that ran");
        drop(ended.any());
        drop(std::fs::remove_file(&proof));
        system.wait_until_back(LAUNCHER, launcher);
    }
}

/// What an entry of the log says was done: operation, subject and outcome. What the log says of itself is left out.
fn deeds(system: &System) -> Vec<(String, String, String)> {
    let word = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    system
        .audit(1000)
        .iter()
        .filter(|entry| entry["operation"] != "key")
        .map(|entry| (word(entry, "operation"), word(entry, "subject"), word(entry, "outcome")))
        .collect()
}

#[test]
fn every_attempt_is_in_the_audit_log_once() {
    let system = System::boot(Spec::new());
    system.pds(["init"]).password().run().done();
    system.pds(["set", "api-key"]).stdin("value").run().done();
    system.pds(["get", "api-key"]).run().done();
    system.pds(["get", "missing"]).run().exits(4);
    system.pds(["get", "bad//name"]).run().exits(2);
    system.pds(["list"]).run().done();
    system.pds(["run", "--", "true"]).run().done();
    system.pds(["rm", "--yes", "api-key"]).run().done();
    system.pds(["lock"]).run().done();
    system.pds(["get", "api-key"]).run().exits(3);
    system.pds(["unlock", "--password-file", "-"]).stdin("wrong").run().exits(8);
    system.pds(["unlock"]).password().run().done();
    let expected = [
        ("init", "-", "done"),
        ("set", "api-key", "done"),
        ("get", "api-key", "done"),
        ("get", "missing", "failed"),
        ("get", "bad//name", "denied"),
        ("list", "-", "done"),
        ("get", "api-key", "done"),
        ("run", "true", "done"),
        ("run-end", "true", "done"),
        ("delete", "api-key", "done"),
        ("lock", "-", "done"),
        ("get", "api-key", "denied"),
        ("unlock", "-", "failed"),
        ("unlock", "-", "done"),
    ];
    wait_for("the last entries of both are written", || {
        let deeds = deeds(&system);
        let ended = deeds.iter().any(|deed| deed.0 == "run-end");
        (ended && deeds.iter().any(|deed| deed.0 == "unlock" && deed.2 == "done")).then_some(())
    });
    // The launcher's entry and those of daemon-secrets come over different ways: only each one's own order is fixed.
    let sorted = |mut deeds: Vec<(String, String, String)>| {
        deeds.sort();
        deeds
    };
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).to_vec();
    assert_eq!(sorted(deeds(&system)), sorted(expected));
    let numbers: Vec<u64> =
        system.audit(1000).iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    system.pds(["audit", "tail", "-n", "2"]).run().done().prints_among("unlock");
    let json = system.pds(["audit", "tail", "--json", "-n", "3"]).run().done().json();
    assert_eq!(json["entries"].as_array().unwrap().len(), 3);
}

/// The one segment of a short log.
fn segment(system: &System) -> PathBuf {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(system.paths().audit()).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"{")));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_changed_byte_of_the_audit_log_is_found() {
    let system = System::boot(Spec::ready().secret("api-key", "value").secret("other", "value"));
    system.pds(["get", "api-key"]).run().done();
    // Nothing may be added while the file is changed under the daemon.
    wait_for("all four entries are written", || (deeds(&system).len() == 4).then_some(()));
    let text = system.pds(["audit", "verify"]).run().done().text();
    assert!(text.contains("intact"), "{text}");
    let path = segment(&system);
    let whole = std::fs::read(&path).unwrap();
    let place = String::from_utf8_lossy(&whole).find("api-key").unwrap();
    for change in [place, 0, whole.len() / 2, whole.len() - 3] {
        let mut bytes = whole.clone();
        bytes[change] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let ended = system.pds(["audit", "verify", "--json"]).run().exits(9);
        assert_eq!(ended.json()["intact"], false, "byte {change}");
    }
    // A line taken out.
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    std::fs::write(&path, [lines[0], lines[2]].concat()).unwrap();
    system.pds(["audit", "verify"]).run().exits(9);
    std::fs::write(&path, &whole).unwrap();
    system.pds(["audit", "verify"]).run().done();
}

#[test]
fn secrets_and_passwords_are_in_no_file_no_log_and_no_process() {
    let random = || format!("canary-{}", hex::encode(SecureBytes::random(16).unwrap().expose()));
    let (value, password, wrong, changed) = (random(), random(), random(), random());
    let system = System::boot(Spec::new().log("trace"));
    let mut said = Vec::new();
    let mut note = |ended: tests::Ended| said.extend([ended.stderr.clone()]);
    let pds = |arguments: &[&str]| system.pds(arguments).arg("-v");
    note(pds(&["init", "--password-file", "-"]).stdin(&password).run().done());
    note(pds(&["set", "api-key"]).stdin(&value).run().done());
    note(pds(&["get", "api-key"]).run().done());
    note(pds(&["get", "missing"]).run().exits(4));
    note(pds(&["run"]).arg("--").arg("true").run().exits(0));
    note(pds(&["status"]).run().done());
    note(pds(&["audit", "tail"]).run().done());
    note(pds(&["lock"]).run().done());
    note(pds(&["unlock", "--password-file", "-"]).stdin(&wrong).run().exits(8));
    note(pds(&["unlock", "--password-file", "-"]).stdin(&password).run().done());
    let change = "exec pds passwd --password-fd 3 --new-password-fd 4 3< <(cat pw-old) 4< <(cat pw-new)";
    std::fs::write(system.folder().join("pw-old"), &password).unwrap();
    std::fs::write(system.folder().join("pw-new"), &changed).unwrap();
    note(system.shell(change).run().done());
    std::fs::remove_file(system.folder().join("pw-old")).unwrap();
    std::fs::remove_file(system.folder().join("pw-new")).unwrap();
    let log = system.log();
    assert!(
        log.windows(5).any(|word| word == b"TRACE" || word == b"DEBUG"),
        "nothing is logged, so this shows nothing"
    );
    for secret in [&value, &password, &wrong, &changed] {
        let canary = Canary::new(secret.as_bytes());
        assert_eq!(canary.in_files(system.folder()), []);
        assert_eq!(canary.in_processes(&BTreeSet::new()), []);
        assert!(said.iter().all(|words| canary.found_in(words).is_none()), "a command said a secret");
    }
}

#[test]
fn several_systems_live_side_by_side() {
    let systems: Vec<System> = std::thread::scope(|scope| {
        let boot = |number: usize| System::boot(Spec::ready().secret("who", format!("system {number}")));
        let booting: Vec<_> = (0..3).map(|number| scope.spawn(move || boot(number))).collect();
        booting.into_iter().map(|system| system.join().unwrap()).collect()
    });
    for (number, system) in systems.iter().enumerate() {
        system.pds(["get", "who"]).run().done().prints(format!("system {number}"));
    }
    systems[0].pds(["lock"]).run().done();
    systems[1].pds(["daemon", "stop"]).run().done();
    systems[0].pds(["get", "who"]).run().exits(3);
    systems[2].pds(["get", "who"]).run().done().prints("system 2");
}

/// Copies programs into a folder of a system, so that their processes can be told from all others by their arguments.
fn install(system: &System, folder: &str, names: &[&str]) -> PathBuf {
    let folder = system.folder().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    for name in names {
        std::fs::copy(system.programs().join(name), folder.join(name)).unwrap();
    }
    folder
}

/// The processes whose program lies below a folder: their names and first arguments.
fn processes_of(folder: &Path) -> Vec<String> {
    let prefix = folder.as_os_str().as_encoded_bytes();
    let mut found: Vec<String> = processes()
        .into_iter()
        .filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok())
        .filter(|line| line.starts_with(prefix))
        .map(|line| String::from_utf8_lossy(&line[prefix.len()..]).replace('\0', " ").trim().to_owned())
        .collect();
    found.sort();
    found
}

#[test]
fn two_starters_at_the_same_moment_leave_one_system() {
    let system = System::boot(Spec::new().not_started());
    let folder = install(&system, "bin", &PROGRAMS);
    let pds = folder.join("pds").display().to_string();
    let starting: Vec<_> = (0..6).map(|_| system.program(&pds, ["status", "-v"]).start()).collect();
    for starter in starting {
        starter.wait().done();
    }
    let running = processes_of(&folder);
    let expected = [
        "/daemon-bus --standby",
        "/daemon-bus --supervise",
        "/daemon-bus --supervised",
        "/daemon-launcher",
        "/daemon-profile",
        "/daemon-secrets",
    ];
    assert_eq!(running, expected);
    system.program(&pds, ["daemon", "start"]).run().done();
    assert_eq!(processes_of(&folder), expected);
    system.program(&pds, ["daemon", "stop"]).run().done();
    assert_eq!(processes_of(&folder), [] as [&str; 0]);
    system.program(&pds, ["status", "--no-start"]).run().exits(7);
}

#[test]
fn daemons_are_found_in_lib_pds_and_told_of_when_asked() {
    let system = System::boot(Spec::new().not_started());
    let bin = install(&system, "prefix/bin", &["pds"]);
    let lib = install(&system, "prefix/lib/pds", &PROGRAMS[1..]);
    let pds = bin.join("pds").display().to_string();
    system.program(&pds, ["status", "-v"]).run().done().says("started");
    system.program(&pds, ["status", "-v"]).run().done().says_nothing();
    assert_eq!(processes_of(&lib).len(), 6);
    system.program(&pds, ["daemon", "stop"]).run().done();
    std::fs::remove_file(lib.join("daemon-bus")).unwrap();
    system.program(&pds, ["status"]).run().exits(7).says("daemon-bus").says("lib/pds");
}

#[test]
fn daemons_can_be_stopped_and_started_and_their_log_read() {
    let system = System::boot(Spec::new().not_started());
    system.pds(["daemon", "stop"]).run().done();
    system.pds(["daemon", "start"]).run().done();
    system.pds(["init"]).password().run().done();
    system.pds(["set", "api-key"]).stdin("value").run().done();
    let before =
        [SUPERVISOR, BUS, SECRETS, PROFILE, LAUNCHER].map(|name| Pinned::open(system.pid_of(name)).unwrap());
    system.pds(["daemon", "restart"]).run().done();
    for process in before {
        assert!(process.wait_end(Instant::now()), "process {} is still there", process.pid());
    }
    system.pds(["get", "api-key"]).run().exits(3);
    system.pds(["unlock"]).password().run().done();
    system.pds(["get", "api-key"]).run().done().prints("value");
    system.pds(["daemon", "logs", "-n", "1000"]).run().done().prints_among("daemon-secrets serves");
    let stopped = system.pds(["daemon", "stop", "--json"]).run().done().json();
    assert_eq!(stopped["stopped"], true);
    assert!([SUPERVISOR, BUS, SECRETS, PROFILE, LAUNCHER].iter().all(|name| system.process(name).is_none()));
}

#[test]
fn a_log_that_became_large_is_emptied_and_its_end_can_still_be_read() {
    let system = System::boot(Spec::new().not_started());
    let path = system.paths().log_file();
    std::fs::write(&path, "a line of an earlier day\n".repeat(400_000)).unwrap();
    let bytes = || std::fs::metadata(&path).unwrap().len();
    let before = bytes();
    system.pds(["daemon", "start"]).run().done();
    assert!(bytes() < before / 100, "{} of {before} bytes", bytes());
    system
        .pds(["daemon", "logs"])
        .run()
        .done()
        .prints_among("an earlier day")
        .prints_among("all daemons serve");
    system.pds(["daemon", "stop"]).run().done();
}

/// Whether a process of the same user, without capabilities, may read the memory map of another.
fn can_be_read(pid: u32) -> bool {
    let read = powerless(Path::new("cat")).arg(format!("/proc/{pid}/maps")).output().unwrap();
    read.status.success() && !read.stdout.is_empty()
}

#[test]
fn the_users_other_processes_can_neither_read_nor_dump_a_daemon() {
    let system = System::boot(Spec::ready().secret("api-key", "value").powerless());
    let mut other = powerless(Path::new("sleep")).arg("1000").spawn().unwrap();
    let comm = format!("/proc/{}/comm", other.id());
    wait_for("setpriv gives its place to sleep", || {
        std::fs::read_to_string(&comm).unwrap().starts_with("sleep").then_some(())
    });
    let control = can_be_read(other.id());
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(control, "not even an ordinary process can be read, so this shows nothing");
    for name in [BUS, SECRETS, PROFILE, LAUNCHER, SUPERVISOR] {
        let pid = system.pid_of(name);
        assert!(!can_be_read(pid), "{name} can be read");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_ascii_whitespace().nth(4), Some("0"), "{name}: {core}");
    }
}

#[test]
fn after_the_tests_password_nothing_is_guessed() {
    // Wrong attempts make the next one wait; a right one is taken all the same.
    let system = System::boot(Spec::ready().locked());
    for _ in 0..3 {
        system.pds(["unlock", "--password-file", "-"]).stdin("wrong").run().exits(8);
    }
    system.pds(["unlock", "--password-file", "-"]).stdin(format!("{PASSWORD}\n")).run().done();
}
