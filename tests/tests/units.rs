//! The systemd units as files: how much of the machine is open to them, by systemd's own count, and what they promise.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

use core_crypto::kdf::Argon2Params;
use tests::programs::workspace;

const DAEMONS: [&str; 4] = ["bus", "profile", "secrets", "launcher"];

fn unit(name: &str) -> PathBuf {
    workspace().join("deploy/systemd").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(unit(name)).unwrap()
}

/// The values of a setting.
fn settings<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn little_of_the_machine_is_open_to_what_holds_secrets() {
    let runtime = tempfile::tempdir().unwrap();
    for (name, tenths) in [("secrets", "15"), ("profile", "15"), ("bus", "20"), ("launcher", "50")] {
        let output = Command::new("systemd-analyze")
            .args(["--user", "security", "--offline=yes", "--no-pager", "--threshold", tenths])
            .arg(unit(&format!("pds-{name}.service")))
            .env("XDG_RUNTIME_DIR", runtime.path())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        println!("{}", shown.lines().last().unwrap_or_default());
        assert!(output.status.success(), "{shown}");
    }
}

#[test]
fn systemd_understands_every_line() {
    let runtime = tempfile::tempdir().unwrap();
    let files = std::fs::read_dir(unit("")).unwrap().map(|entry| entry.unwrap().path());
    let output = Command::new("systemd-analyze")
        .args(["--user", "--man=no", "verify"])
        .args(files)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // That the programs are not installed on this machine is no fault of the units.
    let faults: Vec<&str> = said.lines().filter(|line| !line.contains("is not executable")).collect();
    assert!(faults.is_empty(), "{said}");
}

#[test]
fn programs_that_come_from_the_spawner_keep_what_the_user_has() {
    // Each of these, or what implies no_new_privs for a service of a user, they would feel.
    let spawner = text("pds-spawner.service");
    let felt = [
        "NoNewPrivileges",
        "SystemCall",
        "Restrict",
        "Private",
        "Protect",
        "Capability",
        "Memory",
        "Lock",
        "Limit",
        "Tasks",
        "IPAddress",
        "Device",
    ];
    let found: Vec<&str> =
        spawner.lines().filter(|line| felt.iter().any(|key| line.starts_with(key))).collect();
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(settings(&spawner, "KillMode"), ["process"], "and outlive it");
    assert_eq!(settings(&spawner, "OOMPolicy"), ["continue"], "and each other");
}

#[test]
fn what_is_stuck_or_dies_is_started_again_and_a_key_can_be_derived() {
    for daemon in DAEMONS {
        let unit = text(&format!("pds-{daemon}.service"));
        for (key, value) in [
            ("Type", "notify"),
            ("Restart", "always"),
            ("StartLimitIntervalSec", "0"),
            ("WatchdogSec", "30s"),
            ("PartOf", "pds.target"),
            ("StandardInput", "socket"),
        ] {
            assert_eq!(settings(&unit, key), [value], "{key} of {daemon}");
        }
    }
    let limit = settings(&text("pds-secrets.service"), "MemoryMax")[0]
        .strip_suffix('G')
        .unwrap()
        .parse::<u64>()
        .unwrap();
    assert!(limit << 20 > u64::from(Argon2Params::CEILING.memory_kib), "one key derivation has to fit");
}
