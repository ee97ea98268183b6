//! An older vault that was put back: told at unlocking, readable, changed by nobody until it is accepted, recorded.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_types::ProfileName;
use tests::{Spec, System};

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn vault(system: &System) -> PathBuf {
    system.paths().vault(&ProfileName::parse("default").unwrap())
}

fn copy(folder: &Path) -> Files {
    let paths = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    paths
        .filter(|path| !path.ends_with("lock"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

fn put_back(files: &Files) {
    files.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
}

fn set(system: &System, value: &str) {
    system.pds(["set", "key"]).stdin(value).run().done();
}

/// A locked system whose vault is from before its last write.
fn rolled_back() -> System {
    let system = System::boot(Spec::ready().secret("key", "old"));
    system.pds(["lock"]).run().done();
    let files = copy(&vault(&system));
    system.pds(["unlock"]).password().run().done();
    set(&system, "new");
    system.pds(["lock"]).run().done();
    put_back(&files);
    system
}

fn operations(system: &System) -> Vec<String> {
    let tail = system.pds(["audit", "tail", "-n", "50", "--json"]).run().done().json();
    let entries = tail["entries"].as_array().unwrap().clone();
    entries
        .iter()
        .map(|e| format!("{} {}", e["operation"].as_str().unwrap(), e["outcome"].as_str().unwrap()))
        .collect()
}

#[test]
fn an_older_vault_is_told_and_read_only_until_it_is_accepted() {
    let system = rolled_back();
    system.pds(["unlock"]).password().run().exits(9).says("not as it was left").says("--accept-rollback");
    system.pds(["get", "key"]).run().done().prints("old");
    system.pds(["list"]).run().done().prints("key\n");
    for arguments in [&["set", "key"][..], &["rm", "--yes", "key"], &["purge", "--yes", "key"]] {
        system.pds(arguments).stdin("x").run().exits(9).says("--accept-rollback");
    }
    system.pds(["mv", "--yes", "key", "other"]).run().exits(9);
    system.pds(["unlock"]).run().exits(9);
    let status = system.pds(["status", "--json"]).run().done().json();
    assert!(
        status["profiles"][0]["rollback"].as_str().is_some_and(|found| found.contains("changes")),
        "{status}"
    );
    system.pds(["unlock", "--accept-rollback"]).run().done().says("counts as it is");
    set(&system, "newest");
    system.pds(["lock"]).run().done();
    system.pds(["unlock"]).password().run().done();
    system.pds(["get", "key"]).run().done().prints("newest");
    tests::system::wait_for("the acceptance is in the log", || {
        let operations = operations(&system);
        let expected = ["unlock failed", "accept-rollback done"];
        expected.iter().all(|entry| operations.iter().any(|found| found == entry)).then_some(())
    });
}

#[test]
fn a_vault_put_back_with_its_anchor_is_told_by_who_kept_the_log() {
    let system = System::boot(Spec::ready().secret("key", "old"));
    system.pds(["lock"]).run().done();
    let files: Files =
        [vault(&system), system.paths().anchors()].iter().flat_map(|folder| copy(folder)).collect();
    system.pds(["unlock"]).password().run().done();
    set(&system, "new");
    system.pds(["lock"]).run().done();
    tests::system::wait_for("the log has the lock", || {
        (operations(&system).iter().filter(|entry| *entry == "lock done").count() == 2).then_some(())
    });
    put_back(&files);
    system.pds(["unlock"]).password().run().exits(9).says("--accept-rollback");
    system.pds(["get", "key"]).run().done().prints("old");
    system.pds(["unlock", "--accept-rollback"]).run().done();
    system.pds(["lock"]).run().done();
    system.pds(["unlock"]).password().run().done();
}

#[test]
fn one_command_unlocks_and_accepts() {
    let system = rolled_back();
    system.pds(["unlock", "--accept-rollback"]).password().run().done().says("counts as it is");
    set(&system, "newest");
    system.pds(["unlock", "--accept-rollback"]).run().done().says("nothing to accept");
}

#[test]
fn a_kill_is_no_rollback() {
    let system = System::boot(Spec::ready());
    for round in 0..3 {
        set(&system, &format!("value {round}"));
        system.process("daemon-secrets").unwrap().signal(rustix::process::Signal::KILL);
        tests::system::wait_for("the vault can be unlocked again", || {
            let unlocked = system.pds(["unlock"]).password().run();
            (unlocked.status().code() == Some(0)).then_some(())
        });
        system.pds(["get", "key"]).run().done().prints(format!("value {round}"));
    }
}
