//! Old versions, undone removals, expiry and moves, from the command line to the audit log.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::{Spec, System};

fn set(system: &System, name: &str, value: &str, options: &[&str]) {
    system.pds([&["set", name], options].concat()).stdin(value).run().done();
}

#[test]
fn what_was_overwritten_or_removed_comes_back() {
    let system = System::boot(Spec::ready());
    for value in ["one", "two", "three"] {
        set(&system, "key", value, &[]);
    }
    system.pds(["get", "key", "--version", "1"]).run().done().prints("one");
    system.pds(["get", "key", "--version", "4"]).run().exits(4).says("pds history");
    system.pds(["restore", "key", "--version", "2"]).run().done().says("as version 4");
    system.pds(["get", "key"]).run().done().prints("two");
    system.pds(["rm", "--yes", "key"]).run().done().says("pds restore");
    system.pds(["get", "key"]).run().exits(4);
    system.pds(["get", "key", "--version", "1"]).run().exits(4);
    system.pds(["restore", "key"]).run().done();
    system.pds(["get", "key"]).run().done().prints("two");
    system.pds(["restore", "key"]).run().exits(10).says("--version");
    system.pds(["restore", "none"]).run().exits(4);
    let history = system.pds(["history", "key", "--json"]).run().done().json();
    let numbers: Vec<u64> =
        history["versions"].as_array().unwrap().iter().map(|v| v["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    assert_eq!(history["versions"][0]["current"], true);
}

#[test]
fn what_was_purged_does_not_come_back() {
    let system = System::boot(Spec::ready());
    for value in ["one", "two"] {
        set(&system, "key", value, &[]);
    }
    system.pds(["purge", "key", "--yes"]).run().done().says("deleted 1 version");
    system.pds(["get", "key", "--version", "1"]).run().exits(4);
    system.pds(["get", "key"]).run().done().prints("two");
    system.pds(["rm", "--yes", "key"]).run().done();
    system.pds(["mv", "--yes", "key", "other"]).run().exits(4);
    set(&system, "other", "x", &[]);
    system.pds(["mv", "--yes", "other", "key"]).run().exits(10).says("pds purge");
    system.pds(["purge", "key", "--yes"]).run().done();
    system.pds(["restore", "key"]).run().exits(4);
    system.pds(["mv", "--yes", "other", "key"]).run().done();
    system.pds(["get", "key"]).run().done().prints("x");
}

#[test]
fn the_configured_number_of_old_versions_is_kept() {
    let system = System::boot(Spec::new().config("[vault]\nversions = 1\n").profile("default"));
    for value in ["one", "two", "three"] {
        set(&system, "key", value, &[]);
    }
    system.pds(["get", "key", "--version", "2"]).run().done().prints("two");
    system.pds(["get", "key", "--version", "1"]).run().exits(4);
}

#[test]
fn what_has_expired_is_given_to_nobody_and_is_named() {
    let system = System::boot(Spec::ready());
    set(&system, "fine", "value", &["--expires", "30d", "--note", "of ACME"]);
    // As short as can be typed; what is awaited is the clock itself.
    set(&system, "brief", "value", &["--expires", "1ms"]);
    tests::system::wait_for("the value is past its time", || {
        (system.pds(["get", "brief"]).run().status().code() == Some(5)).then_some(())
    });
    system.pds(["get", "brief"]).run().exits(5).prints("").says("expired").says("pds set");
    system.pds(["run", "--", "true"]).run().exits(125).says("brief").says("expired");
    system.pds(["run", "--only", "fine", "--", "true"]).run().done();
    let long = system.pds(["list", "--long"]).run().done();
    let long = String::from_utf8_lossy(&long.stdout).into_owned();
    assert!(long.contains("fine  of ACME"), "{long}");
    set(&system, "brief", "new", &[]);
    system.pds(["get", "brief"]).run().done().prints("new");
    system.pds(["set", "x", "--expires", "2001-01-01"]).stdin("v").run().exits(2).says("past");
    system.pds(["set", "x", "--note", "a\u{1b}[31m"]).stdin("v").run().exits(2);
}

#[test]
fn each_of_it_is_in_the_audit_log() {
    let system = System::boot(Spec::ready());
    set(&system, "a", "one", &[]);
    set(&system, "a", "two", &[]);
    system.pds(["history", "a"]).run().done();
    system.pds(["restore", "a", "--version", "1"]).run().done();
    system.pds(["mv", "--yes", "a", "b"]).run().done();
    system.pds(["purge", "b", "--yes"]).run().done();
    let expected = [("history", "a"), ("restore", "a"), ("move", "a -> b"), ("purge", "b")];
    tests::system::wait_for("all entries are in the log", || {
        let tail = system.pds(["audit", "tail", "-n", "20", "--json"]).run().done().json();
        let entries = tail["entries"].as_array().unwrap().clone();
        expected
            .iter()
            .all(|(operation, subject)| {
                entries.iter().any(|e| e["operation"] == *operation && e["subject"] == *subject)
            })
            .then_some(())
    });
}
