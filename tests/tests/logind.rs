//! Locking before suspend, with the screen and at the last logout, as logind tells it, over a bus of the test's own.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use core_types::protocol::profile::{SessionWatch, SessionWatchState};
use core_types::protocol::secrets::{ProfileState, Profiles};
use rustix::process::Signal;
use serde_json::Value;
use tests::logind::{Logind, SystemBus, address};
use tests::system::{call, wait_for};
use tests::{Spec, System};

/// Long enough for whatever happens to have happened.
const LONG: Duration = Duration::from_secs(20);

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// A system with the unlocked profiles `work` and `kept`, whose system bus is to be in this folder.
fn system(folder: &tempfile::TempDir, config: &str) -> System {
    let spec = Spec::new().config(config).variable("DBUS_SYSTEM_BUS_ADDRESS", &address(folder.path()));
    System::boot(spec.profile("kept").profile("work").secret("a", "x"))
}

fn is_unlocked(system: &System, name: &str) -> bool {
    let profiles = call(&mut system.client(), &Profiles {});
    let profile = profiles.iter().find(|profile| profile.name.as_str() == name).expect("the profile");
    matches!(profile.state, ProfileState::Unlocked { .. })
}

fn unlock(system: &System, name: &str) {
    system.pds(["-p", name, "unlock"]).password().run().done();
}

fn wait_locked(system: &System, name: &str) {
    wait_for("the profile to lock", || (!is_unlocked(system, name)).then_some(()));
}

/// Why the profile was locked so far, each time.
fn causes(system: &System, name: &str) -> Vec<Value> {
    let locks = system.audit(1_000).into_iter().filter(|entry| entry["operation"] == "lock");
    locks.filter(|entry| entry["profile"] == name).map(|entry| entry["cause"].clone()).collect()
}

fn watch(system: &System) -> SessionWatchState {
    call(&mut system.client(), &SessionWatch {})
}

fn wait_watched(system: &System) {
    wait_for("logind to be listened to", || (watch(system) == SessionWatchState::Complete).then_some(()));
}

#[test]
fn the_machine_sleeps_when_the_keys_are_gone_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let bus = SystemBus::start(folder.path());
    let logind = Logind::start(&bus, &[("1", uid())], LONG);
    let system = system(&folder, "[profiles.kept.lock]\nsuspend = false\n");
    wait_watched(&system);
    assert_eq!(logind.inhibitors(), 1);

    // Nobody forgets a key while its holder stands still.
    let secrets = system.process("daemon-secrets").unwrap();
    secrets.stop();
    logind.sleep(true);
    assert!(!logind.is_let_go(Duration::from_secs(1)), "suspend waits");
    secrets.signal(Signal::CONT);
    assert!(logind.is_let_go(LONG));
    assert!(!is_unlocked(&system, "work"), "at the moment the machine may sleep");
    assert!(is_unlocked(&system, "kept"));
    assert_eq!(causes(&system, "work"), ["suspend"]);

    logind.sleep(false);
    wait_for("it is held again", || (logind.inhibitors() == 2).then_some(()));
    assert!(!logind.is_let_go(Duration::ZERO));
    unlock(&system, "work");
    logind.sleep(true);
    assert!(logind.is_let_go(LONG));
    assert!(!is_unlocked(&system, "work"));
}

#[test]
fn whoever_holds_up_locking_holds_up_suspend_no_longer_than_logind_waits() {
    let folder = tempfile::tempdir().unwrap();
    let bus = SystemBus::start(folder.path());
    let delay = Duration::from_secs(3);
    let logind = Logind::start(&bus, &[("1", uid())], delay);
    let system = system(&folder, "");
    wait_watched(&system);
    let secrets = system.process("daemon-secrets").unwrap();
    secrets.stop();
    let begun = Instant::now();
    logind.sleep(true);
    let let_go = logind.is_let_go(LONG);
    let waited = begun.elapsed();
    secrets.signal(Signal::CONT);
    assert!(let_go && waited < delay && waited > delay / 2, "{waited:?}");
}

#[test]
fn a_locked_screen_and_the_last_logout_lock_and_those_of_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let bus = SystemBus::start(folder.path());
    let sessions = [("1", uid()), ("2", uid()), ("9", uid() + 1)];
    let logind = Logind::start(&bus, &sessions, LONG);
    let system = system(&folder, "[profiles.kept.lock]\nuntil = 'logout'\n");
    wait_watched(&system);

    // What is no word of logind, or none about this user, has come and gone by when his own session is locked.
    let pretender = Logind::pretender(&bus);
    pretender.pretend_to_all("1");
    pretender.lock("1");
    pretender.sleep(true);
    logind.lock("9");
    logind.locked("9");
    logind.ended("9");
    assert!(!logind.is_let_go(Duration::from_secs(1)), "nor does any of it let go of suspend");
    assert_eq!(causes(&system, "work"), Vec::<Value>::new());

    logind.lock("1");
    wait_locked(&system, "work");
    unlock(&system, "work");
    logind.locked("2");
    wait_locked(&system, "work");
    assert_eq!(causes(&system, "work"), ["screen", "screen"]);
    unlock(&system, "work");
    assert!(is_unlocked(&system, "kept"));

    logind.ended("1");
    logind.ended("2");
    wait_locked(&system, "work");
    wait_locked(&system, "kept");
    assert_eq!(causes(&system, "kept"), ["logout"]);
    system.pds(["audit", "verify"]).run().done();
}

#[test]
fn without_a_bus_or_a_logind_all_else_works_and_either_may_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, "");
    wait_for("the bus to be missed", || match watch(&system) {
        SessionWatchState::Absent(why) => why.contains("no system bus").then_some(()),
        _ => None,
    });
    system.pds(["-p", "work", "get", "a"]).run().done().prints("x");
    system.pds(["status"]).run().done().prints_among("not noticed: there is no system bus");

    let bus = SystemBus::start(folder.path());
    let without = SessionWatchState::Absent("logind does not run".to_owned());
    wait_for("the bus to be found", || (watch(&system) == without).then_some(()));
    let logind = Logind::start(&bus, &[("1", uid())], LONG);
    wait_watched(&system);
    drop((logind, bus));
    wait_for("the bus to be missed", || matches!(watch(&system), SessionWatchState::Absent(_)).then_some(()));
    let bus = SystemBus::start(folder.path());
    let logind = Logind::start(&bus, &[("1", uid())], LONG);
    wait_watched(&system);
    system.pds(["status"]).run().done().prints_among("suspend waits until profiles are locked");
    logind.sleep(true);
    assert!(logind.is_let_go(LONG));
    assert!(!is_unlocked(&system, "work"));
    let log = String::from_utf8_lossy(&system.log()).into_owned();
    let told = log.lines().filter(|line| line.contains("there is no system bus"));
    assert!(told.count() <= 2, "once for each time that it was missed: {log}");
}
