//! The ways to unlock, with a real ssh-agent and real daemons.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use core_ipc::CallOptions;
use core_types::WireSecret;
use core_types::protocol::secrets::{FactorProof, Unlock};
use tests::ssh::SshAgent;
use tests::terminal::Terminal;
use tests::{Ended, Invocation, PASSWORD, PATIENCE, Spec, System};

fn ready() -> System {
    System::boot(Spec::ready().secret("key", "value"))
}

/// `pds` in a session without any terminal, so that nobody can be asked.
fn unattended<'a>(system: &'a System, arguments: &[&str]) -> Invocation<'a> {
    system.program("setsid", ["--wait", "pds"].iter().chain(arguments))
}

fn with_agent<'a>(system: &'a System, agent: &SshAgent, arguments: &[&str]) -> Invocation<'a> {
    unattended(system, arguments).env("SSH_AUTH_SOCK", agent.socket())
}

fn is_locked(system: &System) {
    system.pds(["get", "key"]).run().exits(3);
}

fn is_unlocked(system: &System) {
    system.pds(["get", "key"]).run().done().prints("value");
}

fn lock(system: &System) {
    system.pds(["lock"]).run().done();
}

/// Makes a recovery code with the password and writes its words to a file of the system; answers their place.
fn recovery_code(system: &System) -> String {
    let place = system.folder().join("words");
    let made = system.pds(["recovery", "new", "--yes"]).password().run().done();
    assert_eq!(String::from_utf8_lossy(&made.stdout).split_whitespace().count(), 24);
    std::fs::write(&place, &made.stdout).unwrap();
    place.display().to_string()
}

fn factors(system: &System) -> serde_json::Value {
    system.pds(["factor", "list", "--json"]).run().done().json()
}

#[test]
fn a_key_of_a_real_agent_unlocks_without_a_password() {
    for kind in ["ed25519", "rsa"] {
        let (system, agent) = (ready(), SshAgent::start());
        let key = agent.add(kind, "mine");
        with_agent(&system, &agent, &["factor", "add", "ssh-agent"]).password().run().done();
        let listed = factors(&system);
        assert_eq!(listed["factors"][1]["kind"], "ssh-agent");
        assert_eq!(listed["factors"][1]["label"], "mine");
        assert_eq!(listed["factors"][1]["fingerprint"], agent.fingerprint(&key).as_str());
        lock(&system);
        with_agent(&system, &agent, &["unlock"]).run().done();
        is_unlocked(&system);
        // A given password is used, and the agent is not asked.
        lock(&system);
        with_agent(&system, &agent, &["unlock", "--password-file", "-"]).stdin("wrong").run().exits(8);
        is_locked(&system);
        // Without the key the password is asked for.
        agent.forget(&key);
        with_agent(&system, &agent, &["unlock"]).run().exits(1).says("no terminal");
        is_locked(&system);
        let socket = format!("SSH_AUTH_SOCK={}", agent.socket().display());
        let mut terminal = Terminal::open(&system, (24, 80), "env", [socket.as_str(), "pds", "unlock"]);
        terminal.wait_for("Password for profile 'default': ");
        terminal.line(PASSWORD);
        assert!(terminal.wait().success());
        is_unlocked(&system);
        lock(&system);
        agent.hold(&key);
        with_agent(&system, &agent, &["unlock"]).run().done();
        is_unlocked(&system);
    }
}

#[test]
fn keys_that_cannot_unlock_are_refused_with_the_reason_and_the_wanted_one_is_found() {
    let (system, agent) = (ready(), SshAgent::start());
    with_agent(&system, &agent, &["factor", "add", "ssh-agent"]).password().run().exits(4).says("ssh-add");
    agent.add("ecdsa", "curve");
    let add = |key: &str| {
        with_agent(&system, &agent, &["factor", "add", "ssh-agent", "--key", key]).password().run()
    };
    add("curve").exits(2).says("ECDSA");
    let (one, other) = (agent.add("ed25519", "one"), agent.add("ed25519", "other"));
    with_agent(&system, &agent, &["factor", "add", "ssh-agent"])
        .password()
        .run()
        .exits(2)
        .says(&agent.fingerprint(&one))
        .says("--key");
    add("none").exits(4);
    add(&agent.fingerprint(&one)).done();
    add("one").exits(10);
    add(&other.display().to_string()).done();
    unattended(&system, &["factor", "add", "ssh-agent"]).password().run().exits(1).says("SSH_AUTH_SOCK");
    with_agent(&system, &agent, &["factor", "add", "ssh-agent", "--key", "one"])
        .env("SSH_AUTH_SOCK", "/nonexistent")
        .password()
        .run()
        .exits(1)
        .says("/nonexistent");
    assert_eq!(factors(&system)["factors"].as_array().unwrap().len(), 3);
}

/// Presents the password and the recovery code, or not; the agent is there, or not.
fn try_unlock(system: &System, agent: Option<&SshAgent>, password: bool, words: Option<&str>) -> Ended {
    let mut arguments = vec!["unlock"];
    if let Some(words) = words {
        arguments.extend(["--code-file", words]);
    }
    let mut command = match agent {
        Some(agent) => with_agent(system, agent, &arguments),
        None => unattended(system, &arguments),
    };
    if password {
        command = command.password();
    }
    command.run().any()
}

#[test]
fn two_of_three_unlock_with_each_pair_and_none_alone() {
    let (system, agent) = (ready(), SshAgent::start());
    agent.add("ed25519", "mine");
    with_agent(&system, &agent, &["factor", "add", "ssh-agent"]).password().run().done();
    let words = recovery_code(&system);
    let policy = ["factor", "policy", "2", "--code-file", words.as_str()];
    with_agent(&system, &agent, &policy).password().run().done().says("2 of 3");
    system.pds(["status"]).run().done().prints_among("(password, ssh-agent, recovery; 2 of 3)");
    lock(&system);
    let words = Some(words.as_str());
    for (agent, password, words) in
        [(Some(&agent), false, None), (None, true, None), (None, false, words), (None, false, None)]
    {
        let ended = try_unlock(&system, agent, password, words);
        assert!(!ended.status().success());
        is_locked(&system);
    }
    for (agent, password, words) in
        [(Some(&agent), true, None), (Some(&agent), false, words), (None, true, words)]
    {
        let ended = try_unlock(&system, agent, password, words);
        assert!(ended.status().success());
        is_unlocked(&system);
        lock(&system);
    }
    // What the command line refuses for want of a second factor, the daemon refuses too.
    let mut client = system.client();
    let profile: core_types::ProfileName = "default".parse().unwrap();
    let alone = Unlock { profile, factors: tests::system::password_proof() };
    let denied = client.call(&alone, core_ipc::CallOptions::default()).unwrap_err();
    assert!(format!("{denied:?}").contains("NotEnoughFactors"), "{denied:?}");
    is_locked(&system);
}

#[test]
fn the_last_way_in_and_what_the_policy_needs_cannot_be_removed() {
    let system = ready();
    system.pds(["factor", "remove", "1"]).password().run().exits(1).says("last");
    system.pds(["factor", "remove", "7"]).password().run().exits(4);
    system.pds(["factor", "policy", "all"]).password().run().exits(1);
    system.pds(["factor", "policy", "1"]).password().run().exits(2);
    let words = recovery_code(&system);
    let with_words = |arguments: &[&str]| {
        system.pds(arguments.iter().copied().chain(["--code-file", words.as_str()])).password().run()
    };
    with_words(&["factor", "policy", "all"]).done();
    with_words(&["factor", "remove", "2"]).exits(1).says("all");
    with_words(&["factor", "policy", "any"]).done();
    system.pds(["factor", "remove", "2"]).password().run().done();
    lock(&system);
    system.pds(["unlock", "--code-file", &words]).run().exits(4).says("no recovery code");
    system.pds(["unlock"]).password().run().done();
    // An unlocked profile alone changes nothing.
    system.pds(["factor", "remove", "1", "--password-file", "-"]).stdin("wrong").run().exits(1).says("last");
    system.pds(["recovery", "new", "--yes", "--password-file", "-"]).stdin("wrong").run().exits(8);
    assert_eq!(factors(&system)["factors"].as_array().unwrap().len(), 1);
}

#[test]
fn a_recovery_code_is_checked_without_unlocking_and_used_to_unlock() {
    let system = ready();
    system.pds(["recovery", "check"]).run().exits(4).says("recovery new");
    system.pds(["recovery", "new"]).password().run().exits(2).prints("").says("--yes");
    let words = recovery_code(&system);
    lock(&system);
    let check = |words: &str| system.pds(["recovery", "check", "--code-file", "-"]).stdin(words).run();
    let right = std::fs::read_to_string(&words).unwrap();
    check(&right).done().says("right");
    check(&right.to_uppercase().replace(' ', "  ")).done();
    is_locked(&system);
    check(&format!("{} vote", ["zoo"; 23].join(" "))).exits(8).says("wrong");
    let mistyped = right.replacen(right.split(' ').next().unwrap(), "hunter2", 1);
    let ended = check(&mistyped).exits(8);
    ended.says("word 1");
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("hunter2"));
    check("").exits(1);
    is_locked(&system);
    system.pds(["recovery", "use", "--code-file", &words]).run().done();
    is_unlocked(&system);
    lock(&system);
    system.pds(["unlock", "--recovery", "--code-file", &words]).run().done();
    is_unlocked(&system);
    let entries = system.audit(1_000);
    let of = |operation: &str| entries.iter().filter(|entry| entry["operation"] == operation).count();
    assert_eq!((of("add-factor"), of("check-recovery")), (1, 3));
}

#[test]
fn a_forgotten_password_is_replaced_with_the_recovery_code() {
    let system = ready();
    let words = recovery_code(&system);
    lock(&system);
    let mut terminal = Terminal::open(&system, (24, 80), "pds", ["recovery", "use"]);
    terminal.wait_for("24 words");
    // As they were printed, on several lines.
    terminal.line(std::fs::read_to_string(&words).unwrap().trim_end());
    terminal.wait_for("Set a new password");
    terminal.line("yes");
    terminal.wait_for("New password for profile 'default': ");
    terminal.line("brand new");
    terminal.wait_for("The same again: ");
    terminal.line("brand new");
    assert!(terminal.wait().success());
    lock(&system);
    system.pds(["unlock"]).password().run().exits(8);
    system.pds(["unlock", "--password-file", "-"]).stdin("brand new").run().done();
    is_unlocked(&system);
    lock(&system);
    system.pds(["unlock", "--code-file", &words]).run().done();
}

#[test]
fn a_password_is_changed_under_every_policy() {
    let system = ready();
    let words = recovery_code(&system);
    let mut current = PASSWORD.to_owned();
    for (policy, needs_words) in [("any", false), ("2", true), ("all", true)] {
        let code = ["--code-file", words.as_str()];
        let policy = ["factor", "policy", policy, "--password-file", "-"];
        system.pds(policy.iter().chain(&code)).stdin(&current).run().done();
        for locked in [false, true] {
            let next = format!("{current}+");
            let extra = if locked && needs_words { format!(" --code-file {words}") } else { String::new() };
            let change =
                format!("pds passwd --password-fd 3 --new-password-fd 4{extra} 3<<<'{current}' 4<<<'{next}'");
            if locked {
                lock(&system);
            }
            system.shell(&change).run().done();
            lock(&system);
            let unlock = |password: &str| {
                let arguments = ["unlock", "--password-file", "-"].into_iter();
                let code = if needs_words { &code[..] } else { &[] };
                system.pds(arguments.chain(code.iter().copied())).stdin(password).run()
            };
            unlock(&current).exits(8);
            unlock(&next).done();
            is_unlocked(&system);
            current = next;
        }
    }
}

#[test]
fn several_passwords_open_alike_and_are_changed_by_number() {
    let system = ready();
    let line = "pds factor add password --label second --password-fd 3 --new-password-fd 4";
    system.shell(&format!("{line} 3<<<'{PASSWORD}' 4<<<'another'")).run().done();
    for password in ["another", PASSWORD] {
        lock(&system);
        system.pds(["unlock", "--password-file", "-"]).stdin(password).run().done();
    }
    let change = "pds passwd --password-fd 3 --new-password-fd 4";
    system.shell(&format!("{change} 3<<<'another' 4<<<'third'")).run().exits(2).says("--factor");
    system.shell(&format!("{change} --factor 1 3<<<'another' 4<<<'third'")).run().exits(8);
    system.shell(&format!("{change} --factor 2 3<<<'another' 4<<<'third'")).run().done();
    lock(&system);
    system.pds(["unlock", "--password-file", "-"]).stdin("another").run().exits(8);
    system.pds(["unlock", "--password-file", "-"]).stdin("third").run().done();
}

/// Nothing of the agent's signature and of the code stands where others can read.
#[test]
fn the_header_holds_no_secret_and_the_log_neither() {
    let (system, agent) = (ready(), SshAgent::start());
    agent.add("ed25519", "mine");
    with_agent(&system, &agent, &["factor", "add", "ssh-agent"]).password().run().done();
    let words = recovery_code(&system);
    lock(&system);
    with_agent(&system, &agent, &["-v", "unlock"]).run().done();
    let words = std::fs::read_to_string(words).unwrap();
    let header = std::fs::read_to_string(header(&system)).unwrap();
    let log = String::from_utf8_lossy(&system.log()).into_owned();
    for line in words.lines() {
        assert!(!header.contains(line) && !log.contains(line));
    }
}

fn header(system: &System) -> std::path::PathBuf {
    system.paths().vault(&"default".parse().unwrap()).join("header.json")
}

/// The n-th wrong attempt waits n tenths of a second: whatever is tried, over however many connections, and after a
/// restart of whoever counts and of whoever tries.
#[test]
fn wrong_attempts_of_every_kind_wait_over_connections_and_restarts_and_hold_up_nobody_else() {
    const AT_ONCE: u32 = 10;
    let system = System::boot(Spec::ready().secret("key", "value").profile("other").secret("x", "y"));
    recovery_code(&system);
    system.pds(["lock", "-p", "default"]).run().done();
    let wrong = |number: u32| Unlock {
        profile: "default".parse().unwrap(),
        factors: vec![match number % 2 {
            0 => FactorProof { factor: 1, secret: WireSecret::new(b"wrong".to_vec()) },
            _ => FactorProof { factor: 2, secret: WireSecret::new(vec![1; 32]) },
        }],
    };
    let options = || CallOptions { deadline: PATIENCE, descriptors: Vec::new() };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let (system, call) = (&system, wrong(number));
                scope.spawn(move || system.client().call(&call, options()).unwrap_err())
            })
            .collect();
        system.pds(["get", "x", "-p", "other"]).run().done().prints("y");
        assert!(attempts.iter().any(|attempt| !attempt.is_finished()), "another profile was held up");
    });
    // 0 + 1 + ... + 9 tenths.
    assert!(begun.elapsed() >= Duration::from_millis(4_500), "{:?}", begun.elapsed());
    for daemon in ["daemon-profile", "daemon-secrets"] {
        let old = system.kill(daemon);
        system.wait_until_back(daemon, old);
    }
    let begun = Instant::now();
    system.pds(["unlock"]).password().run().done();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    is_unlocked(&system);
}

/// A machine that got faster, or a user who got more careful.
#[test]
fn a_dearer_configuration_makes_the_password_dearer_when_it_unlocks() {
    let mut spec =
        Spec::ready().config("[unlock]\nargon2_memory_mib = 19\nargon2_passes = 2\nargon2_lanes = 1\n");
    spec = spec.secret("key", "value");
    let system = System::boot(spec);
    let cost = || {
        let header: serde_json::Value =
            serde_json::from_slice(&std::fs::read(header(&system)).unwrap()).unwrap();
        header["content"]["factors"][0]["way"]["argon2"].clone()
    };
    assert_eq!(cost()["memory_kib"], 19 << 10);
    system.write_config("[unlock]\nargon2_memory_mib = 32\n");
    let old = system.kill("daemon-secrets");
    system.wait_until_back("daemon-secrets", old);
    system.pds(["unlock", "--password-file", "-"]).stdin("wrong").run().exits(8);
    assert_eq!(cost()["memory_kib"], 19 << 10, "a wrong password raises nothing");
    system.pds(["unlock"]).password().run().done();
    assert_eq!((cost()["memory_kib"].as_u64(), cost()["passes"].as_u64()), (Some(32 << 10), Some(3)));
    is_unlocked(&system);
    lock(&system);
    system.pds(["unlock"]).password().run().done();
    is_unlocked(&system);
    let log = String::from_utf8_lossy(&system.log()).into_owned();
    assert_eq!(log.matches("costs as much to try as configured").count(), 1);
}
