//! Daemons of others, in Rust and in Python: what their rules allow and no more, told of changes, and refused from the
//! moment they are revoked.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};

use core_ipc::blocking::Client;
use core_ipc::wire::Identity;
use core_ipc::{CallError, CallOptions, key_file};
use core_types::pattern::Pattern;
use core_types::protocol::Topic;
use core_types::protocol::bus::{Announce, BusDenial, Enroll, Enrolled, Revoke, Subscribe};
use core_types::protocol::grants::{Grant, GrantEntry, GrantState, Grants, RevokeGrant};
use core_types::protocol::launcher::{LauncherDenial, Run};
use core_types::protocol::secrets::{
    Delete, Get, GetBatch, History, List, Lock, Move, Purge, Restore, SecretsDenial, Selection, Set,
};
use core_types::{ProfileName, WireSecret};
use tests::system::{call, wait_for};
use tests::{PATIENCE, Spec, System, programs};

const RULES: &str = "[profiles.work.access.backup]\nget = ['db/*']\nlist = ['*']\ndeny = ['db/root*']\n";

fn system() -> System {
    let fast = "[rate_limit.unknown]\nper_second = 1000000\nburst = 1000000\n";
    let spec = Spec::new().config(fast).profile("work");
    let system = System::boot(
        spec.secret("db/password", "enrolled-canary-1")
            .secret("db/root", "enrolled-canary-2")
            .secret("other", "enrolled-canary-3"),
    );
    system.write_config(RULES);
    system
}

fn key(system: &System) -> PathBuf {
    system.folder().join("backup.key")
}

/// Enrolls `backup`, with a new key.
fn enroll(system: &System) {
    let key = key(system);
    system.pds(["enroll", "backup", "--key-file", key.to_str().unwrap()]).run().done();
}

fn connect(system: &System) -> Client {
    Client::connect_as(key_file::read(&key(system)).unwrap(), system.paths(), PATIENCE).unwrap()
}

fn work() -> ProfileName {
    "work".parse().unwrap()
}

fn get(name: &str) -> Get {
    Get { profile: work(), name: name.to_owned(), version: None }
}

fn denied<C: core_types::protocol::Call>(client: &mut Client, call: &C) -> core_types::protocol::DenialOf<C> {
    match client.call(call, CallOptions::default()) {
        Err(CallError::Denied(denial)) => denial,
        Err(other) => panic!("call {} failed otherwise: {other:?}", C::METHOD),
        Ok(_) => panic!("call {} was allowed", C::METHOD),
    }
}

#[test]
fn an_enrolled_daemon_has_what_its_rules_allow_and_is_told_of_changes() {
    let system = system();
    enroll(&system);
    let mut client = connect(&system);
    assert_eq!(call(&mut client, &get("db/password")).expose(), b"enrolled-canary-1");
    for name in ["db/root", "other", "nothing"] {
        assert_eq!(denied(&mut client, &get(name)), SecretsDenial::Forbidden, "{name}");
    }
    let list = List { profile: work(), pattern: None, after: None };
    let names: Vec<String> =
        call(&mut client, &list).entries.into_iter().map(|entry| entry.name.into()).collect();
    assert_eq!(names, ["db/password"]);
    let batch = call(&mut client, &GetBatch { profile: work(), selection: Selection::All, program: None });
    assert_eq!(batch.len(), 1);
    let value = WireSecret::new(b"x".to_vec());
    let set =
        Set { profile: work(), name: "db/password".to_owned(), value, expires_unix_ms: None, note: None };
    assert_eq!(denied(&mut client, &set), SecretsDenial::Forbidden);
    assert!(matches!(denied(&mut client, &Lock { profile: None }), SecretsDenial::Identity { .. }));
    call(&mut client, &Subscribe { topic: Topic::SecretsChanged });
    system.pds(["-p", "work", "set", "db/password"]).stdin("enrolled-canary-4").run().done();
    let event = client.next_event(PATIENCE).unwrap().unwrap();
    assert_eq!((event.topic, event.body.len()), (Topic::SecretsChanged, 0), "it names nothing");
    assert_eq!(call(&mut client, &get("db/password")).expose(), b"enrolled-canary-4");
    let entries = system.audit(50);
    let by_backup = |operation: &str| {
        entries.iter().any(|entry| entry["operation"] == operation && entry["requester"]["name"] == "backup")
    };
    assert!(by_backup("get") && by_backup("set"), "{entries:?}");
    let enrolled: Vec<_> = entries.iter().filter(|entry| entry["operation"] == "enroll").collect();
    assert_eq!((enrolled.len(), &enrolled[0]["subject"]), (1, &serde_json::json!("backup")));
}

#[test]
fn without_a_table_an_enrolled_daemon_has_nothing() {
    let system = system();
    system.write_config("");
    enroll(&system);
    let mut client = connect(&system);
    assert_eq!(denied(&mut client, &get("db/password")), SecretsDenial::Forbidden);
    let list = List { profile: work(), pattern: None, after: None };
    assert_eq!(denied(&mut client, &list), SecretsDenial::Forbidden);
}

#[test]
fn a_revoked_daemon_is_refused_at_once_and_on_its_open_connection() {
    let system = system();
    enroll(&system);
    let mut client = connect(&system);
    call(&mut client, &get("db/password"));
    let all = call(&mut system.client(), &Enrolled {});
    assert_eq!((all.len(), all[0].name.as_str(), all[0].connections), (1, "backup", 1));
    system.pds(["revoke", "backup"]).run().done();
    let after = client.call(&get("db/password"), CallOptions::default());
    assert!(matches!(after, Err(CallError::Lost)), "{after:?}");
    let again = Client::connect_as(key_file::read(&key(&system)).unwrap(), system.paths(), PATIENCE);
    if let Ok(mut again) = again {
        let refused = again.call(&get("db/password"), CallOptions::default());
        assert!(matches!(refused, Err(CallError::Lost)), "{refused:?}");
    }
    // Neither does a restart of the bus let it in again.
    let old = system.kill(core_types::name::BUS);
    system.wait_until_back(core_types::name::BUS, old);
    if let Ok(mut again) =
        Client::connect_as(key_file::read(&key(&system)).unwrap(), system.paths(), PATIENCE)
    {
        let refused = again.call(&get("db/password"), CallOptions::default());
        assert!(matches!(refused, Err(CallError::Lost)), "{refused:?}");
    }
    assert!(call(&mut system.client(), &Enrolled {}).is_empty());
    let revoked = system.audit(50).into_iter().filter(|entry| entry["operation"] == "revoke").count();
    assert_eq!(revoked, 1);
}

#[test]
fn an_enrolled_daemon_outlives_a_restart_of_the_bus() {
    let system = system();
    enroll(&system);
    let old = system.kill(core_types::name::BUS);
    system.wait_until_back(core_types::name::BUS, old);
    assert_eq!(call(&mut connect(&system), &get("db/password")).expose(), b"enrolled-canary-1");
}

#[test]
fn only_the_user_enrolls_and_names_are_given_once() {
    let system = system();
    enroll(&system);
    let public = "aa".repeat(32);
    let enroll_as = |name: &str| system.pds(["enroll", name, "--public-key", &public]).run();
    enroll_as("backup").exits(10);
    for reserved in ["cli", "daemon-secrets", "daemon-new"] {
        enroll_as(reserved).exits(2);
    }
    system.pds(["revoke", "nobody"]).run().exits(4);
    let key = key(&system);
    system.pds(["enroll", "other", "--key-file", key.to_str().unwrap()]).run().exits(1);
    let mut client = connect(&system);
    let enroll = Enroll { name: "friend".parse().unwrap(), key: [7; 32] };
    assert_eq!(denied(&mut client, &enroll), BusDenial::NotForDaemons);
    assert_eq!(denied(&mut client, &Revoke { name: "backup".parse().unwrap() }), BusDenial::NotForDaemons);
    assert_eq!(denied(&mut client, &Enrolled {}), BusDenial::NotForDaemons);
}

/// A process of the same user publishes a key of its own where daemons publish theirs.
#[test]
fn a_name_is_not_had_by_publishing_a_key() {
    let system = system();
    enroll(&system);
    for name in ["backup", "friend"] {
        let identity = Identity::generate().unwrap();
        let path = system.paths().public_key(name);
        core_crypto::private_fs::write_atomic(&path, identity.public().to_hex().as_bytes()).unwrap();
        let mut client = Client::connect_as(identity, system.paths(), PATIENCE).unwrap();
        let announce = Announce { name: name.parse().unwrap(), version: "1".to_owned() };
        assert_eq!(denied(&mut client, &announce), BusDenial::NotRegistered, "{name}");
    }
}

/// The file of keys is changed behind the back of the bus: its word is not enough for daemon-secrets.
#[test]
fn a_name_holds_for_the_enrolled_key_and_not_for_the_word_of_the_bus() {
    let system = system();
    enroll(&system);
    let mut client = connect(&system);
    let file = system.paths().enrolled();
    let text = std::fs::read_to_string(&file).unwrap();
    let other = Identity::generate().unwrap().public().to_hex();
    let own = key_file::read(&key(&system)).unwrap().public().to_hex();
    std::fs::write(&file, text.replace(&own, &other)).unwrap();
    let refused = client.call(&get("db/password"), CallOptions::default());
    assert!(refused.is_err(), "the bus still says backup, and the key is another's");
    std::fs::write(&file, text).unwrap();
    assert_eq!(call(&mut client, &get("db/password")).expose(), b"enrolled-canary-1");
}

#[test]
fn the_enrolled_rows_of_the_access_table() {
    let system = system();
    enroll(&system);
    let (mut client, mut cells) = (connect(&system), 0);
    for line in include_str!("../../docs/access-table.txt").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["enrolled", state, ..] = words[..] else { continue };
        for (column, expected) in words[2..].iter().enumerate() {
            prepare(&system);
            let profile = match state {
                "missing" => "nowhere",
                _ => "work",
            };
            match state {
                "locked" => drop(call(&mut system.client(), &Lock { profile: None })),
                "elsewhere" => drop(call(&mut system.client(), &Lock { profile: Some(work()) })),
                _ => {}
            }
            grant(&system, &mut client, state);
            system.write_config(&config(state));
            let found = cell(&mut client, &profile.parse().unwrap(), column);
            assert_eq!(found, *expected, "{state} {column}");
            cells += 1;
        }
    }
    assert_eq!(cells, (14 + 4) * 9, "rows are missing");
}

/// The grants of a state, and no others.
fn grant(system: &System, client: &mut Client, state: &str) {
    let mut owner = system.client();
    for GrantEntry { id, .. } in call(&mut owner, &Grants {}) {
        call(&mut owner, &RevokeGrant { id });
    }
    let (seconds, uses) = match state {
        "granted" | "vetoed" => (600, None),
        "expired" => (1, None),
        "used-up" => (600, Some(1)),
        _ => return,
    };
    let (pattern, to) = (Pattern::parse("a*").unwrap(), "backup".parse().unwrap());
    call(&mut owner, &Grant { profile: work(), pattern, to, seconds, uses });
    match state {
        "expired" => {
            let mut has_expired =
                || call(&mut owner, &Grants {}).iter().any(|grant| grant.state == GrantState::Expired);
            wait_for("the grant expires", || has_expired().then_some(()));
        }
        "used-up" => drop(call(client, &get("a1"))),
        _ => {}
    }
}

/// The profiles unlocked, no rules, `a1` with two versions, no `a2`.
fn prepare(system: &System) {
    use core_types::protocol::secrets::{Init, Unlock};
    system.write_config("");
    let mut client = system.client();
    let password = || WireSecret::new(tests::PASSWORD.into());
    let init = Init { profile: "other".parse().unwrap(), password: password() };
    let _may_be_there = client.call(&init, CallOptions::default());
    for profile in ["work", "other"] {
        let factors = tests::system::password_proof();
        call(&mut client, &Unlock { profile: profile.parse().unwrap(), factors });
    }
    for name in ["a1", "a2"].map(str::to_owned) {
        let delete = Delete { profile: work(), name: name.clone() };
        let _may_be_missing = client.call(&delete, CallOptions::default());
        let _may_be_missing = client.call(&Purge { profile: work(), name }, CallOptions::default());
    }
    for _ in 0..2 {
        let (name, value) = ("a1".to_owned(), WireSecret::new(b"value".to_vec()));
        call(&mut client, &Set { profile: work(), name, value, expires_unix_ms: None, note: None });
    }
}

fn config(state: &str) -> String {
    let every = |patterns: &str, deny: &str| {
        let allowed = ["get", "list", "set", "delete", "run"].map(|key| format!("{key} = ['{patterns}']\n"));
        format!("{}deny = ['{deny}']\n", allowed.concat())
    };
    let table = match state {
        "locked" | "elsewhere" | "missing" | "no-table" => return String::new(),
        "granted" | "expired" | "used-up" => return String::new(),
        "vetoed" => "deny = ['a*']\n".to_owned(),
        "empty" => String::new(),
        "all" => every("a*", "none"),
        "others" => every("b*", "none"),
        "denied" => every("*", "a*"),
        "kept" => every("a*", "b*"),
        operation => format!("{operation} = ['a*']\n"),
    };
    format!("[profiles.work.access.backup]\n{table}")
}

fn cell(client: &mut Client, profile: &ProfileName, column: usize) -> &'static str {
    let (profile, name) = (profile.clone(), "a1".to_owned());
    let options = CallOptions::default;
    let value = || WireSecret::new(b"new".to_vec());
    match column {
        0 => word(client.call(&Get { profile, name, version: None }, options()).map(drop)),
        1 => match client.call(&List { profile, pattern: None, after: None }, options()) {
            Ok(page) if page.entries.iter().all(|entry| entry.name.as_str() != "a1") => "hidden",
            other => word(other.map(drop)),
        },
        2 => {
            let set = Set { profile, name, value: value(), expires_unix_ms: None, note: None };
            word(client.call(&set, options()))
        }
        3 => word(client.call(&Delete { profile, name }, options())),
        4 => run(client, profile),
        5 => word(client.call(&History { profile, name }, options()).map(drop)),
        6 => word(client.call(&Restore { profile, name, version: Some(1) }, options()).map(drop)),
        7 => word(client.call(&Purge { profile, name }, options()).map(drop)),
        _ => word(client.call(&Move { profile, from: name, to: "a2".to_owned() }, options())),
    }
}

fn run(client: &mut Client, profile: ProfileName) -> &'static str {
    let run =
        Run { profiles: vec![profile], arguments: vec![WireSecret::new(b"true".to_vec())], ..Run::default() };
    match client.call(&run, CallOptions::default()) {
        Err(CallError::Denied(LauncherDenial::Secrets(SecretsDenial::Identity { .. }))) => "identity",
        _ => "something else",
    }
}

fn word(result: Result<(), CallError<SecretsDenial>>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(CallError::Denied(denial)) => match denial {
            SecretsDenial::Locked => "locked",
            SecretsDenial::ProfileNotActive(_) => "inactive",
            SecretsDenial::NoSuchProfile(_) => "missing",
            SecretsDenial::Identity { .. } => "identity",
            SecretsDenial::Forbidden => "forbidden",
            SecretsDenial::GrantExpired(_) => "expired",
            SecretsDenial::GrantUsedUp(_) => "used-up",
            _ => "something else",
        },
        Err(_) => "something else",
    }
}

/// A client as a program of its own.
struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    fn start(system: &System, program: &str, arguments: &[&str]) -> Self {
        let mut invocation = system.program(program, arguments);
        let command = invocation.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// Its exit code, and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

/// The example in Rust, or the client in Python, watching one secret.
fn watcher(system: &System, language: &str, name: &str) -> Program {
    let key = key(system).to_str().unwrap().to_owned();
    let workspace = programs::workspace();
    let python = workspace.join("tests/python/pds_client.py");
    let example = programs::folder().join("examples/third_party");
    match language {
        "rust" => Program::start(system, example.to_str().unwrap(), &[&key, "work", name]),
        _ => {
            let script = python.to_str().unwrap();
            Program::start(system, "/usr/bin/python3", &[script, "--key-file", &key, "--watch", "work", name])
        }
    }
}

#[test]
fn the_clients_in_rust_and_python_get_a_secret_are_told_of_its_change_and_end_when_revoked() {
    for language in ["rust", "python"] {
        let system = system();
        enroll(&system);
        let mut program = watcher(&system, language, "db/password");
        assert_eq!(program.line(), "enrolled-canary-1\n", "{language}");
        system.pds(["-p", "work", "set", "db/password"]).stdin("enrolled-canary-4").run().done();
        assert_eq!(program.line(), "enrolled-canary-4\n", "{language}");
        let (code, said) = watcher(&system, language, "other").end();
        assert_eq!(code, Some(1), "{language}: {said}");
        system.pds(["revoke", "backup"]).run().done();
        let (code, said) = program.end();
        assert_eq!(code, Some(1), "{language}: {said}");
        let (code, said) = watcher(&system, language, "db/password").end();
        assert_eq!(code, Some(1), "{language}: {said}");
    }
}
