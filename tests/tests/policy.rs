//! What the owner of secrets is told of the policy and adds to it: `pds explain` and `pds config check`,
//! through the real command line and by an enrolled daemon.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions, key_file};
use core_types::ProfileName;
use core_types::access::AccessOperation;
use core_types::protocol::explanation::{Decision, Explain, Verdict};
use core_types::protocol::secrets::{Gate, Get, SecretsDenial};
use serde_json::Value;
use tests::system::call;
use tests::{PATIENCE, Spec, System};

const RULES: &str = "[profiles.work.access.backup]\nget = ['db/*']\nlist = ['*']\ndeny = ['db/root*']\n";

/// Two secrets, an enrolled daemon `backup`, and rules for it.
fn system() -> System {
    let fast = "[rate_limit.unknown]\nper_second = 1000000\nburst = 1000000\n";
    let spec = Spec::new().config(fast).profile("work");
    let system = System::boot(
        spec.secret("db/password", "policy-canary-1")
            .secret("db/root", "policy-canary-2")
            .secret("other", "policy-canary-3"),
    );
    system.pds(["enroll", "backup", "--key-file", key(&system).to_str().unwrap()]).run().done();
    system
}

fn key(system: &System) -> PathBuf {
    system.folder().join("backup.key")
}

fn backup(system: &System) -> Client {
    Client::connect_as(key_file::read(&key(system)).unwrap(), system.paths(), PATIENCE).unwrap()
}

fn work() -> ProfileName {
    "work".parse().unwrap()
}

fn get(name: &str) -> Get {
    Get { profile: work(), name: name.to_owned(), version: None }
}

fn explained(system: &System, arguments: &[&str]) -> Value {
    system.pds(["-p", "work", "--json", "explain"].iter().chain(arguments)).run().done().json()
}

#[test]
fn explain_names_the_gate_and_the_rule_and_agrees_with_what_happens() {
    let system = system();
    system.write_config(RULES);
    let mut client = backup(&system);
    for (name, decision, gate, pattern) in [
        ("db/password", "allowed", Value::Null, "db/*"),
        ("db/root", "denied", "access-rule".into(), "db/root*"),
        ("other", "denied", "access-rule".into(), ""),
        ("db/none", "denied", "vault".into(), "db/*"),
    ] {
        let told = explained(&system, &[name, "--as", "backup"]);
        assert_eq!((&told["decision"], &told["gate"]), (&decision.into(), &gate), "{name}: {told}");
        assert_eq!(told["rule"]["pattern"].as_str().unwrap_or_default(), pattern, "{name}: {told}");
        assert!(told["rule"]["file"].as_str().unwrap().ends_with("config.toml"), "{told}");
        let gates: Vec<&str> =
            told["gates"].as_array().unwrap().iter().map(|gate| gate["gate"].as_str().unwrap()).collect();
        assert_eq!(
            gates,
            ["lock", "active-profile", "identity", "rate-limit", "access-rule", "name", "vault"]
        );
        let had = client.call(&get(name), CallOptions::default()).is_ok();
        assert_eq!(had, decision == "allowed", "{name}");
    }
    for (arguments, decision) in [
        (&["other"][..], "allowed"),
        (&["other", "--operation", "run"], "allowed"),
        (&["other", "--operation", "run", "--as", "backup"], "denied"),
        (&["other", "--operation", "list", "--as", "backup"], "hidden"),
        (&["db/password", "--operation", "list", "--as", "backup"], "allowed"),
        (&["other", "--operation", "set", "--as", "daemon-launcher"], "denied"),
        (&["../x"], "denied"),
    ] {
        assert_eq!(explained(&system, arguments)["decision"], decision, "{arguments:?}");
    }
    let text = system.pds(["-p", "work", "explain", "db/root", "--as", "backup"]).run().done().text();
    let rule = "[profiles.work.access.backup] deny = \"db/root*\"";
    assert!(
        text.contains(rule) && text.contains("denied by access-rule: backup may not get 'db/root'"),
        "{text}"
    );
    system.pds(["explain", "a", "--as", "No Name"]).run().exits(2);
    system.pds(["lock"]).run().done();
    assert_eq!(explained(&system, &["other"])["gate"], "lock");
}

#[test]
fn explaining_leaves_no_entry_and_an_enrolled_daemon_may_ask_about_itself_alone() {
    let system = system();
    system.write_config(RULES);
    let mut client = backup(&system);
    let before = system.audit(1)[0]["sequence"].clone();
    let explain = |about: Option<&str>, name: &str| Explain {
        profile: work(),
        name: name.to_owned(),
        requester: about.map(|name| name.parse().unwrap()),
        operation: AccessOperation::Get,
    };
    let own = call(&mut client, &explain(None, "db/root"));
    assert_eq!((own.requester.as_str(), own.decision), ("backup", Decision::Denied(Gate::AccessRule)));
    assert_eq!(own.rule.unwrap().pattern, None);
    let unlisted = call(&mut client, &explain(Some("backup"), "db/none"));
    assert_eq!(unlisted.decision, Decision::Denied(Gate::Vault), "it may list that name");
    system.write_config("[profiles.work.access.backup]\nget = ['db/*']\n");
    for name in ["db/none", "db/password"] {
        let told = call(&mut client, &explain(None, name));
        assert_eq!(told.gates.last().unwrap().verdict, Verdict::NotTold, "{name}");
    }
    for other in ["cli", "daemon-launcher", "someone"] {
        let refused = client.call(&explain(Some(other), "db/root"), CallOptions::default());
        assert!(
            matches!(refused, Err(CallError::Denied(SecretsDenial::Identity { .. }))),
            "{other}: {refused:?}"
        );
    }
    let entries = system.audit(20);
    let new = entries.iter().filter(|entry| entry["sequence"].as_u64() > before.as_u64());
    let operations: Vec<&Value> = new.map(|entry| &entry["operation"]).collect();
    assert!(operations.iter().all(|operation| **operation == "config-change"), "{operations:?}");
}

const TESTED: &str =
    "[[test]]\nrequester = 'backup'\noperation = 'get'\nname = 'db/root'\nprofile = 'work'\n";

fn checked(system: &System, arguments: &[&str], code: i32) -> Value {
    let arguments = ["--no-start", "--json", "config", "check"].iter().chain(arguments);
    system.pds(arguments).run().exits(code).json()
}

#[test]
fn config_check_runs_the_tests_of_a_file_without_any_daemon() {
    let system = System::boot(Spec::new().not_started());
    let nothing = checked(&system, &[], 0);
    assert_eq!((&nothing["usable"], &nothing["patterns"]), (&true.into(), &0.into()));
    system.write_config(&format!("{RULES}{TESTED}expected = 'deny'\n"));
    let good = checked(&system, &[], 0);
    assert_eq!((&good["patterns"], &good["tests"][0]["passed"]), (&3.into(), &true.into()), "{good}");
    assert!(good["warnings"][0].as_str().unwrap().contains("overlap: deny wins"), "{good}");
    system.write_config(&format!("{RULES}{TESTED}expected = 'allow'\n"));
    let wrong = system.pds(["config", "check"]).run().exits(1);
    let text = wrong.text();
    let rule = "failed: line 5: backup get 'db/root' of profile 'work' is to be allowed, and is not: \
                [profiles.work.access.backup] deny = \"db/root*\"";
    assert!(text.contains(rule) && text.contains("3 patterns, 1 tests, 1 failed, 2 warnings"), "{text}");
    assert_eq!(checked(&system, &[], 1)["tests"][0]["decided"], "deny");
    system.write_config("[profiles.work.access.backup]\ngte = ['a']\n");
    let problem = checked(&system, &[], 1)["problem"].as_str().unwrap().to_owned();
    assert!(
        problem.contains("config.toml") && problem.contains("line 2") && problem.contains("gte"),
        "{problem}"
    );
    system.write_config("[profiles.work.access.daemon-bus]\n");
    let problem = checked(&system, &[], 1)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("never asks") && problem.contains("line 1"), "{problem}");
    system.pds(["config", "check", "a", "b"]).run().exits(2);
    system.pds(["config"]).run().exits(2);
}

/// What the daemons would not read, because others could have written it, is not called good.
#[test]
fn config_check_refuses_the_files_that_the_daemons_refuse() {
    let system = System::boot(Spec::new().not_started());
    let file = system.folder().join("other.toml");
    let named = file.to_str().unwrap();
    system.pds(["config", "check", named]).run().exits(1);
    std::fs::write(&file, "").unwrap();
    checked(&system, &[named], 0);
    for mode in [0o620, 0o602] {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let problem = checked(&system, &[named], 1)["problem"].as_str().unwrap().to_owned();
        assert!(problem.contains("other.toml") && problem.contains("chmod"), "{problem}");
    }
    std::fs::remove_file(&file).unwrap();
    system.write_config("");
    std::os::unix::fs::symlink(system.paths().config_file(), &file).unwrap();
    let problem = checked(&system, &[named], 1)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("a link"), "{problem}");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(checked(&system, &[named], 1)["problem"].as_str().unwrap().contains("UTF-8"));
}

#[test]
fn the_daemons_pass_over_tests_whatever_stands_in_them() {
    let system = system();
    for test in [format!("{TESTED}expected = 'deny'\n"), "[[test]]\nnonsense = 1\n".to_owned()] {
        system.write_config(&format!("{RULES}{test}"));
        assert_eq!(call(&mut backup(&system), &get("db/password")).expose(), b"policy-canary-1");
        let status = system.pds(["status", "--json"]).run().done().json();
        assert_eq!((&status["rules"]["problem"], &status["rules"]["patterns"]), (&Value::Null, &3.into()));
    }
    checked(&system, &[], 1);
}
