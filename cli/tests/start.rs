//! How `pds` starts the supervisor: what it hands over, and what it makes of its end. The supervisor here is a script.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A folder with `pds`, a supervisor beside it, and a home.
struct Installation {
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// A file that another thread's child still holds open for writing cannot be executed, so one test runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Installation {
    fn new(supervisor: &str) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let installation = Self { folder: tempfile::tempdir().unwrap(), _alone: alone };
        fs::copy(env!("CARGO_BIN_EXE_pds"), installation.path("pds")).unwrap();
        fs::write(installation.path("daemon-bus"), format!("#!/bin/sh\n{supervisor}\n")).unwrap();
        fs::set_permissions(installation.path("daemon-bus"), Permissions::from_mode(0o755)).unwrap();
        installation
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pds(&self, arguments: &[&str]) -> Output {
        Command::new(self.path("pds"))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("LD_AUDIT", "")
            .env("SOMEONES_SECRET", "hunter2")
            .env("PDS_PROFILE", "default")
            .env("PDS_STATE_DIR", self.path("state"))
            .output()
            .unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_supervisor_gets_places_and_nothing_else() {
    let installation = Installation::new("echo \"$@\" >&2; pwd >&2; env >&2; cat >&2; exit 3");
    let output = installation.pds(&["status"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(stderr(&output).contains("ended at once (exit status: 3)"), "{}", stderr(&output));

    let log = installation.path("state/daemons.log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..2], ["--supervise", "/"]);
    let mut names: Vec<&str> = lines[2..].iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "PATH", "PDS_STATE_DIR", "PWD", "XDG_RUNTIME_DIR"]);
    assert!(!log.contains("hunter2"));
}

#[test]
fn a_supervisor_that_finds_another_is_no_failure_but_waiting_has_an_end() {
    let installation = Installation::new("exit 75");
    let output = installation.pds(&["-v", "--timeout", "0.2", "status"]);
    assert_eq!(output.status.code(), Some(7));
    let text = stderr(&output);
    assert!(text.contains("being started by another command") && text.contains("no bus listens"), "{text}");
}

#[test]
fn nothing_is_started_when_that_is_forbidden() {
    let installation = Installation::new("echo started >&2");
    for arguments in [&["--no-start", "status"][..], &["status", "--no-start"]] {
        assert_eq!(installation.pds(arguments).status.code(), Some(7));
    }
    assert_eq!(installation.pds(&["--no-start", "run", "--", "true"]).status.code(), Some(125));
    assert!(!installation.path("state/daemons.log").exists());
}

#[test]
fn a_wrong_configuration_is_told_before_anything_is_started() {
    let installation = Installation::new("echo started >&2");
    fs::create_dir_all(installation.path(".config/pds")).unwrap();
    fs::write(installation.path(".config/pds/config.toml"), "no_such_key = 1\n").unwrap();
    let output = installation.pds(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no_such_key"), "{}", stderr(&output));
    assert!(!installation.path("state/daemons.log").exists());
}

#[test]
fn a_missing_supervisor_is_named_with_the_places_looked_at() {
    let installation = Installation::new("");
    fs::remove_file(installation.path("daemon-bus")).unwrap();
    let output = installation.pds(&["get", "x"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(stderr(&output).contains("/lib/pds/daemon-bus"), "{}", stderr(&output));
}
