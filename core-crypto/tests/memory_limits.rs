//! Secrets under tight limits: each case runs alone in a child process of this test, which lowers its own limits.
#![allow(clippy::unwrap_used)] // clippy takes only functions marked as tests for tests

use std::process::Command;
use std::sync::Mutex;

use core_crypto::SecureBytes;
use core_crypto::memory::{Protection, WARNING, WARNING_LOCKED_ONLY, bytes_in_use, protection, set_warning};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

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

/// Takes memfd_secret(2) away from this thread, as a kernel without it and most containers do.
fn forbid_secret_memory() {
    let answer = SeccompAction::Errno(u32::try_from(rustix::io::Errno::NOSYS.raw_os_error()).unwrap());
    let rules = [(libc::SYS_memfd_secret, Vec::new())].into_iter().collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

#[test]
fn without_secret_memory_secrets_are_locked_and_the_user_is_told_once() {
    alone("without_secret_memory_secrets_are_locked_and_the_user_is_told_once", || {
        limit_locked_memory(8 << 20);
        forbid_secret_memory();
        set_warning(note);
        let kept = secrets(5_000, 1_024);
        assert_intact(&kept, 1_024);
        assert_eq!(protection(), Protection::Locked);
        assert_eq!(*WARNINGS.lock().unwrap(), [WARNING_LOCKED_ONLY]);
    });
}

#[test]
fn each_step_down_is_told_once() {
    alone("each_step_down_is_told_once", || {
        set_warning(note);
        let first = secrets(8, 1_000);
        assert_eq!(protection(), Protection::SecretMemory);
        forbid_secret_memory();
        limit_locked_memory(2 << 20);
        let more = secrets(600, 1_000);
        assert_eq!(protection(), Protection::Locked);
        let rest = secrets(5_000, 1_000);
        assert_eq!(protection(), Protection::Plain);
        [&first, &more, &rest].into_iter().for_each(|secrets| assert_intact(secrets, 1_000));
        assert_eq!(*WARNINGS.lock().unwrap(), [WARNING_LOCKED_ONLY, WARNING]);
    });
}

#[test]
fn a_tight_address_space_is_survived() {
    alone("a_tight_address_space_is_survived", || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
        // Room on the heap, so that what does not fit into a mapping of its own has somewhere to go.
        drop(std::hint::black_box(vec![1_u8; 100 << 10]));
        let limit = Some((size << 10) + (512 << 10));
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
        let kept = secrets(600, 1_000);
        assert_intact(&kept, 1_000);
    });
}

#[test]
fn the_bytes_in_use_are_those_of_living_secrets() {
    alone("the_bytes_in_use_are_those_of_living_secrets", || {
        assert_eq!(bytes_in_use(), 0);
        let kept = secrets(10, 1_000);
        let copy = kept[0].clone();
        assert_eq!(bytes_in_use(), 11_000);
        drop(kept);
        assert_eq!(bytes_in_use(), 1_000);
        drop(copy);
        assert_eq!(bytes_in_use(), 0);
    });
}
