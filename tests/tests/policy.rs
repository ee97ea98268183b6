//! What the owner of secrets is told of the policy and adds to it: `pds explain`, `pds config check` and
//! bounded grants, through the real command line and by an enrolled daemon.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions, key_file};
use core_types::ProfileName;
use core_types::access::AccessOperation;
use core_types::grant::GrantId;
use core_types::pattern::Pattern;
use core_types::protocol::Call;
use core_types::protocol::explanation::{Decision, Explain, Verdict};
use core_types::protocol::grants::{Grant, GrantState, Grants, RevokeGrant};
use core_types::protocol::secrets::{Gate, Get, SecretsDenial, SecretsService};
use serde_json::Value;
use tests::system::{call, wait_for};
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

fn granted(system: &System, arguments: &[&str]) -> Value {
    system.pds(["-p", "work", "--json", "grant"].iter().chain(arguments)).run().done().json()
}

fn denied(client: &mut Client, name: &str) -> SecretsDenial {
    match client.call(&get(name), CallOptions::default()) {
        Err(CallError::Denied(denial)) => denial,
        Err(other) => panic!("failed otherwise: {other:?}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// The log, when so many of these entries have arrived in it: an answer goes out when its entry is in a file of the daemon
/// that gave it.
fn entries_with(system: &System, wanted: impl Fn(&Value) -> bool, count: usize) -> Vec<Value> {
    wait_for("the entries are in the log", || {
        let entries = system.audit(200);
        (entries.iter().filter(|entry| wanted(entry)).count() >= count).then_some(entries)
    })
}

fn id(grant: &Value) -> GrantId {
    grant["id"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_grant_lets_an_enrolled_daemon_read_until_it_ends_and_is_in_the_log() {
    let system = system();
    let mut client = backup(&system);
    assert_eq!(denied(&mut client, "db/root"), SecretsDenial::Forbidden);
    let grant = granted(&system, &["db/*", "--to", "backup"]);
    assert_eq!((&grant["seconds_left"], &grant["uses"]), (&600.into(), &Value::Null), "the safe default");
    assert_eq!(call(&mut client, &get("db/root")).expose(), b"policy-canary-2");
    assert_eq!(denied(&mut client, "other"), SecretsDenial::Forbidden);
    let told = explained(&system, &["db/root", "--as", "backup"]);
    assert_eq!((&told["decision"], &told["grant"]["id"]), (&"allowed".into(), &grant["id"]), "{told}");
    let listed = system.pds(["grants", "--json"]).run().done().json();
    assert_eq!(listed["grants"].as_array().unwrap().len(), 1);
    let text = system.pds(["grants"]).run().done().text();
    assert!(text.contains("backup may get 'db/*' of profile 'work': for "), "{text}");
    system.pds(["revoke-grant", grant["id"].as_str().unwrap()]).run().done();
    assert_eq!(denied(&mut client, "db/root"), SecretsDenial::Forbidden);
    system.pds(["revoke-grant", grant["id"].as_str().unwrap()]).run().exits(4);

    let once = granted(&system, &["other", "--to", "backup", "--uses", "1", "--for", "1h"]);
    call(&mut client, &get("other"));
    assert_eq!(denied(&mut client, "other"), SecretsDenial::GrantUsedUp(id(&once)));
    let told = explained(&system, &["other", "--as", "backup"]);
    assert_eq!(
        (&told["gate"], &told["grant"]["state"]),
        (&"access-rule".into(), &"used-up".into()),
        "{told}"
    );
    let brief = granted(&system, &["db/password", "--to", "backup", "--for", "1s"]);
    let mut owner = system.client();
    let mut has_expired =
        || call(&mut owner, &Grants {}).iter().any(|grant| grant.state == GrantState::Expired);
    wait_for("the grant expires", || has_expired().then_some(()));
    assert_eq!(denied(&mut client, "db/password"), SecretsDenial::GrantExpired(id(&brief)));

    let entries =
        entries_with(&system, |entry| entry["grant"]["id"] == brief["id"] && entry["operation"] == "get", 1);
    let of = |operation: &str, grant: &Value| {
        let matching = entries
            .iter()
            .filter(|entry| entry["operation"] == operation && entry["grant"]["id"] == grant["id"]);
        matching.map(|entry| entry["outcome"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("grant", &grant), ["done"]);
    assert_eq!(of("get", &grant), ["done"]);
    assert_eq!(of("revoke-grant", &grant), ["done", "failed"], "there was none any more");
    assert_eq!(of("get", &once), ["done", "denied"]);
    assert_eq!(of("get", &brief), ["denied"]);
    let made = entries.iter().find(|entry| entry["operation"] == "grant").unwrap();
    assert_eq!(
        (&made["subject"], &made["grant"]["to"], &made["grant"]["seconds"]),
        (&"db/*".into(), &"backup".into(), &600.into())
    );
}

#[test]
fn only_the_user_grants_and_a_rule_that_denies_a_lock_and_a_restart_end_it() {
    let system = system();
    let mut client = backup(&system);
    let grant = granted(&system, &["db/root", "--to", "backup"]);
    let (profile, pattern, to) = (work(), Pattern::parse("other").unwrap(), "backup".parse().unwrap());
    let own = Grant { profile, pattern, to, seconds: 600, uses: None };
    let identity = SecretsDenial::Identity { requester: "backup".to_owned() };
    assert_eq!(refused(&mut client, &own), identity);
    assert_eq!(refused(&mut client, &Grants {}), identity);
    assert_eq!(refused(&mut client, &RevokeGrant { id: id(&grant) }), identity);
    for to in ["cli", "daemon-launcher", "daemon-secrets"] {
        system.pds(["-p", "work", "grant", "other", "--to", to]).run().exits(2);
    }
    system.pds(["-p", "nowhere", "grant", "other", "--to", "backup"]).run().exits(4);

    system.write_config(RULES);
    assert_eq!(denied(&mut client, "db/root"), SecretsDenial::Forbidden, "deny wins");
    let noted = system.pds(["-p", "work", "grant", "db/root", "--to", "backup"]).run().done();
    let noted = String::from_utf8(noted.stderr).unwrap();
    assert!(noted.contains("a rule that denies wins") && noted.contains("deny = \"db/root*\""), "{noted}");
    let noted = system.pds(["-p", "work", "grant", "no/such", "--to", "bakcup"]).run().done();
    assert!(String::from_utf8(noted.stderr).unwrap().contains("no daemon is enrolled as 'bakcup'"));
    system.write_config("");
    call(&mut client, &get("db/root"));

    system.pds(["lock"]).run().done();
    system.pds(["-p", "work", "grant", "other", "--to", "backup"]).run().exits(3);
    let unlock = || drop(system.pds(["-p", "work", "unlock"]).password().run().done());
    unlock();
    assert_eq!(denied(&mut client, "db/root"), SecretsDenial::Forbidden, "it ended with the lock");
    granted(&system, &["db/root", "--to", "backup"]);
    call(&mut client, &get("db/root"));
    let old = system.kill(core_types::name::SECRETS);
    system.wait_until_back(core_types::name::SECRETS, old);
    unlock();
    assert_eq!(denied(&mut client, "db/root"), SecretsDenial::Forbidden, "nothing of it is on the disk");
}

fn refused<C: Call<Service = SecretsService>>(client: &mut Client, call: &C) -> SecretsDenial {
    match client.call(call, CallOptions::default()) {
        Err(CallError::Denied(denial)) => denial,
        Err(other) => panic!("failed otherwise: {other:?}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// Eight connections ask for more than the grant is for, all at once.
#[test]
fn of_n_uses_n_values_are_delivered_however_many_ask_at_once() {
    const USES: usize = 25;
    let system = system();
    let grant = granted(&system, &["other", "--to", "backup", "--uses", &USES.to_string()]);
    let start = std::sync::Barrier::new(8);
    let had: usize = std::thread::scope(|scope| {
        let threads = (0..8).map(|_| {
            scope.spawn(|| {
                let mut client = backup(&system);
                start.wait();
                let mut get = |_: &u32| match client.call(&get("other"), CallOptions::default()) {
                    Ok(value) => value.expose() == b"policy-canary-3",
                    Err(CallError::Denied(denial)) => {
                        assert_eq!(denial, SecretsDenial::GrantUsedUp(id(&grant)));
                        false
                    }
                    Err(other) => panic!("failed otherwise: {other:?}"),
                };
                (0..10_u32).filter(|number| get(number)).count()
            })
        });
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(had, USES);
    let of_grant = |entry: &Value| entry["operation"] == "get" && entry["grant"]["id"] == grant["id"];
    let entries = entries_with(&system, of_grant, 80);
    let done = entries.iter().filter(|entry| of_grant(entry) && entry["outcome"] == "done");
    assert_eq!(done.count(), USES);
}
