//! Who may have what: `docs/access-table.txt` at the command line and through `pds run`, and rules that change while
//! the daemons run.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core_ipc::CallOptions;
use core_types::protocol::secrets::{Delete, Lock, Purge, Set, Unlock};
use core_types::{ProfileName, WireSecret};
use tests::system::{call, password_proof};
use tests::{Spec, System};

const TABLE: &str = include_str!("../../docs/access-table.txt");
const COLUMNS: [&str; 9] = ["get", "list", "set", "delete", "run", "history", "restore", "purge", "move"];
/// Nobody is slowed down after a denial.
const FAST: &str = "[rate_limit.unknown]\nper_second = 1000000\nburst = 1000000\n";

fn work() -> ProfileName {
    "work".parse().unwrap()
}

/// The configuration of a state of the table.
fn config(state: &str, name: &str) -> String {
    let every = |patterns: &str, deny: &str| {
        let allowed = ["get", "list", "set", "delete", "run"].map(|key| format!("{key} = ['{patterns}']\n"));
        format!("{}deny = ['{deny}']\n", allowed.concat())
    };
    let table = match state {
        "locked" | "elsewhere" | "missing" | "no-table" => return String::new(),
        "empty" => String::new(),
        "all" => every("a*", "none"),
        "others" => every("b*", "none"),
        "denied" => every("*", "a*"),
        "kept" => every("a*", "b*"),
        operation => format!("{operation} = ['a*']\n"),
    };
    format!("[profiles.work.access.{name}]\n{table}")
}

/// Both profiles unlocked, no rules, two versions of `a1` in `work`, and no `a2`.
fn prepare(system: &System) {
    system.write_config("");
    let mut client = system.client();
    for profile in ["work", "other"] {
        call(&mut client, &Unlock { profile: profile.parse().unwrap(), factors: password_proof() });
    }
    for name in ["a1", "a2"].map(str::to_owned) {
        let delete = Delete { profile: work(), name: name.clone() };
        let _may_be_missing = client.call(&delete, CallOptions::default());
        let _may_be_missing = client.call(&Purge { profile: work(), name }, CallOptions::default());
    }
    for _ in 0..2 {
        let value = WireSecret::new(b"value".to_vec());
        let name = "a1".to_owned();
        call(&mut client, &Set { profile: work(), name, value, expires_unix_ms: None, note: None });
    }
}

/// What `pds` says in a cell, in the words of the table.
fn cell(system: &System, state: &str, column: &str) -> &'static str {
    let profile = if state == "missing" { "nowhere" } else { "work" };
    let arguments: &[&str] = match column {
        "get" => &["get", "a1"],
        "list" => &["list"],
        "set" => &["set", "a1"],
        "delete" => &["rm", "--yes", "a1"],
        "run" => &["run", "--only", "a1", "--", "true"],
        "history" => &["history", "a1"],
        "restore" => &["restore", "a1", "--version", "1"],
        "purge" => &["purge", "--yes", "a1"],
        _ => &["mv", "--yes", "a1", "a2"],
    };
    let arguments = ["-p", profile].into_iter().chain(arguments.iter().copied());
    let output = system.pds(arguments).stdin("new").run();
    let said = output.said().to_owned();
    let ended = output.any();
    match (ended.status().code().unwrap(), column) {
        (0, "list") if !ended.text().contains("a1") => "hidden",
        (0, _) => "ok",
        (5, _) => "forbidden",
        (3, _) if state == "locked" => "locked",
        (3, _) => "inactive",
        (4, _) => "missing",
        (125, "run") => match said.as_str() {
            said if said.contains("the access rules do not allow") => "forbidden",
            said if said.contains("there is no profile") => "missing",
            said if said.contains("locked") && state == "locked" => "locked",
            said if said.contains("locked") => "inactive",
            _ => "something else",
        },
        _ => "something else",
    }
}

#[test]
fn the_access_table_holds_at_the_command_line_and_for_run() {
    let system = System::boot(Spec::new().config(FAST).profile("work").profile("other"));
    let mut cells = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (who, state) = (words[0], words[1]);
        for (column, expected) in COLUMNS.iter().zip(&words[2..]) {
            if who != "cli" && !(who == "daemon-launcher" && *column == "run") {
                continue;
            }
            prepare(&system);
            match state {
                "locked" => drop(call(&mut system.client(), &Lock { profile: None })),
                "elsewhere" => drop(call(&mut system.client(), &Lock { profile: Some(work()) })),
                _ => {}
            }
            system.write_config(&config(state, who));
            assert_eq!(cell(&system, state, column), *expected, "{who} {state} {column}");
            cells += 1;
        }
    }
    assert_eq!(cells, 14 * 9 + 14, "rows are missing");
}

#[test]
fn status_and_the_audit_log_tell_of_a_configuration_that_cannot_be_used() {
    let system = System::boot(Spec::new().config(FAST).profile("work").secret("a", "value"));
    let get = || system.pds(["-p", "work", "get", "a"]).run();
    system.write_config("[profiles.work.access.cli]\nget = ['b']\n");
    get().exits(5);
    system.write_config("[profiles.work.access.cli]\nget = ['b']\ngte = ['a']\n");
    get().exits(5);
    let status = system.pds(["status", "--json"]).run().any().json();
    let problem = status["rules"]["problem"].as_str().unwrap();
    assert!(
        problem.contains("config.toml") && problem.contains("line 3") && problem.contains("gte"),
        "{problem}"
    );
    system.write_config("");
    get().done().prints("value");
    let entries = system.audit(20);
    let changes: Vec<&str> = entries
        .iter()
        .filter(|entry| entry["operation"] == "config-change")
        .map(|entry| if entry["outcome"] == "done" { "done" } else { "failed" })
        .collect();
    assert_eq!(changes, ["done", "failed", "done"], "{entries:?}");
}
