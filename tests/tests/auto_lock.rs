//! Profiles that lock by themselves: when nothing of them is used, and when their time is over, used or not.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use core_types::protocol::profile::{AutoLocks, LockCause};
use core_types::protocol::secrets::{ProfileState, Profiles};
use tests::system::{call, wait_for};
use tests::{Spec, System};

fn is_unlocked(system: &System, name: &str) -> bool {
    let profiles = call(&mut system.client(), &Profiles {});
    let profile = profiles.iter().find(|profile| profile.name.as_str() == name).expect("the profile");
    matches!(profile.state, ProfileState::Unlocked { .. })
}

/// Waits until the audit log tells that a profile was locked, once, for this cause.
fn is_told(system: &System, name: &str, cause: &str) {
    let locks = wait_for("the entry of the lock", || {
        let locks = system.audit(1_000).into_iter().filter(|entry| entry["operation"] == "lock");
        let locks: Vec<_> = locks.filter(|entry| entry["profile"] == name).collect();
        (!locks.is_empty()).then_some(locks)
    });
    assert_eq!(locks.len(), 1);
    assert_eq!(
        (&locks[0]["cause"], &locks[0]["requester"]["name"]),
        (&cause.into(), &"daemon-profile".into())
    );
}

#[test]
fn a_profile_that_nobody_uses_locks_and_looking_at_it_is_no_use() {
    let config = "[lock]\nidle = '2s'\n[profiles.kept.lock]\nidle = 'never'\n";
    let system = System::boot(Spec::new().config(config).profile("kept").profile("work").secret("a", "x"));
    let begun = Instant::now();
    system.pds(["-p", "work", "status"]).run().done();
    // All of this looks at it, again and again, and reads no secret.
    wait_for("the idle profile to lock", || {
        for looking in [&["list"][..], &["get", "missing"], &["explain", "a"]] {
            let _may_be_locked = system.pds(["-p", "work"].iter().chain(looking)).run().any();
        }
        (!is_unlocked(&system, "work")).then_some(())
    });
    assert!(begun.elapsed() >= Duration::from_secs(1), "not before its time");
    is_told(&system, "work", "idle");
    system.pds(["-p", "work", "get", "a"]).run().exits(3);
    assert!(is_unlocked(&system, "kept"));
}

#[test]
fn use_keeps_a_profile_open_until_its_time_is_over_all_the_same() {
    let config = "[lock]\nidle = '3s'\nafter = '8s'\n";
    let system = System::boot(Spec::new().config(config).profile("work").secret("a", "x"));
    let begun = Instant::now();
    wait_for("the profile to lock", || {
        let read = system.pds(["-p", "work", "get", "a"]).run();
        let said = read.said().to_owned();
        let locked = read.any().status().code() == Some(3);
        assert!(locked || said.is_empty(), "{said}");
        locked.then_some(())
    });
    assert!(begun.elapsed() >= Duration::from_secs(4), "reading kept it open");
    is_told(&system, "work", "after");
}

#[test]
fn a_daemon_that_begins_anew_and_a_changed_configuration_are_followed() {
    let system = System::boot(Spec::new().config("[lock]\nafter = '1h'\n").profile("work"));
    let left = |system: &System| {
        let pending = call(&mut system.client(), &AutoLocks {});
        pending.first().map(|lock| (lock.seconds_left, lock.cause))
    };
    let (seconds, cause) = left(&system).expect("a time");
    assert!(seconds <= 3_600 && cause == LockCause::After, "{seconds}");
    system.pds(["status"]).run().done().prints_among("; locks in 59 min");
    let old = system.kill("daemon-profile");
    system.wait_until_back("daemon-profile", old);
    wait_for("the profile to be watched again", || left(&system));
    assert!(is_unlocked(&system, "work"));
    system.write_config("[lock]\nafter = '1s'\n");
    // An entry wakes the watch up, or else the next look does.
    wait_for("the profile to lock", || (!is_unlocked(&system, "work")).then_some(()));
    is_told(&system, "work", "after");
}
