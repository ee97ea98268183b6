//! Secrets under tight limits: each case runs alone in a child process of this test, which lowers its own limits.
#![allow(clippy::unwrap_used)] // clippy takes only functions marked as tests for tests

use std::process::Command;
use std::sync::Mutex;

use core_crypto::SecureBytes;
use core_crypto::memory::{Protection, WARNING, protection, set_warning};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

const CHILD: &str = "PDS_TEST_CHILD";

static WARNINGS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

fn note(warning: &'static str) {
    WARNINGS.lock().unwrap().push(warning);
}

/// Runs `case` in a child process that runs only the test `name`.
fn alone(name: &str, case: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return case();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

/// Lets this thread lock at most so many bytes, as an unprivileged user's could.
fn limit_locked_memory(bytes: u64) {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    sets.inheritable.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
    setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum: Some(bytes) }).unwrap();
}

fn secrets(count: usize, len: usize) -> Vec<SecureBytes> {
    (0..count).map(|number| SecureBytes::copy_of(&vec![number.to_le_bytes()[0]; len])).collect()
}

fn assert_intact(secrets: &[SecureBytes], len: usize) {
    for (number, secret) in secrets.iter().enumerate() {
        assert_eq!(secret.expose(), vec![number.to_le_bytes()[0]; len]);
    }
}

#[test]
fn without_any_lockable_memory_secrets_work_and_the_user_is_told_once() {
    alone("without_any_lockable_memory_secrets_work_and_the_user_is_told_once", || {
        limit_locked_memory(0);
        set_warning(note);
        let kept = secrets(1_000, 100);
        let large = SecureBytes::copy_of(&vec![7; 1 << 20]);
        assert_intact(&kept, 100);
        assert_eq!(large.clone().expose(), large.expose());
        assert_eq!(protection(), Protection::Plain);
        assert_eq!(*WARNINGS.lock().unwrap(), [WARNING]);
    });
}

#[test]
fn the_warning_waits_for_someone_to_take_it() {
    alone("the_warning_waits_for_someone_to_take_it", || {
        limit_locked_memory(0);
        let _kept = secrets(1, 32);
        set_warning(note);
        set_warning(note);
        assert_eq!(
            *WARNINGS.lock().unwrap(),
            ["WARN: Unable to lock memory (RLIMIT_MEMLOCK too low). Secrets may be swapped to disk."]
        );
    });
}

#[test]
fn under_64_kib_what_fits_is_locked_and_the_rest_works() {
    alone("under_64_kib_what_fits_is_locked_and_the_rest_works", || {
        limit_locked_memory(64 << 10);
        let first = secrets(8, 1_000);
        assert_ne!(protection(), Protection::Plain);
        let more = secrets(200, 1_000);
        assert_eq!(protection(), Protection::Plain);
        assert_intact(&first, 1_000);
        assert_intact(&more, 1_000);
    });
}

#[test]
fn five_thousand_secrets_fit_into_the_default_limit() {
    alone("five_thousand_secrets_fit_into_the_default_limit", || {
        limit_locked_memory(8 << 20);
        set_warning(note);
        let kept = secrets(5_000, 1_024);
        assert_intact(&kept, 1_024);
        assert_ne!(protection(), Protection::Plain);
        assert!(WARNINGS.lock().unwrap().is_empty());
    });
}

#[test]
fn what_was_freed_can_be_locked_again() {
    alone("what_was_freed_can_be_locked_again", || {
        limit_locked_memory(1 << 20);
        for _ in 0..20 {
            assert_intact(&secrets(200, 4_000), 4_000);
        }
        assert_ne!(protection(), Protection::Plain);
    });
}
