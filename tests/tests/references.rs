//! References to secrets in the environment and in files of variables: each is replaced in the child alone, or there is
//! no child.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use tests::canary::Canary;
use tests::system::wait_for;
use tests::{Spec, System};

const PEM: &str = "-----BEGIN KEY-----\nline 'two' \"$x\"\n-----END KEY-----\n";

fn booted() -> System {
    let spec = Spec::new().profile("default").secret("api-key", "the key").secret("tls/pem", PEM);
    System::boot(spec.profile("work").secret("db/password", "pass word").secret("api-key", "work's"))
}

#[test]
fn a_variable_that_is_a_reference_has_the_secret_in_the_child_and_any_other_is_unchanged() {
    let system = booted();
    let script = "printf '%s|%s|%s|%s' \"$DB\" \"$TEXT\" \"$UPPER\" \"$PEM\"";
    let run = ["run", "--none", "--", "sh", "-c", script];
    system
        .pds(run)
        .env("DB", "pds://work/db/password")
        .env("TEXT", "see pds://work/db/password")
        .env("UPPER", "PDS://work/db/password")
        .env("PEM", "pds://default/tls/pem")
        .run()
        .done()
        .prints(format!("pass word|see pds://work/db/password|PDS://work/db/password|{PEM}"));
}

#[test]
fn a_program_that_pds_becomes_itself_has_them_too() {
    let system = booted();
    let run = ["run", "--here", "--none", "--", "sh", "-c", "printf %s \"$DB\""];
    system.pds(run).env("DB", "pds://work/db/password").run().done().prints("pass word");
    is_not_started(
        &system,
        &["--here", "--none"],
        &[("DB", "pds://work/nothing")],
        &["DB", "pds://work/nothing"],
    );
}

#[test]
fn a_file_of_variables_wins_over_the_caller_and_a_later_file_over_an_earlier_one() {
    let system = booted();
    let write = |name: &str, text: &str| std::fs::write(system.folder().join(name), text).unwrap();
    write(
        "one.env",
        "\u{feff}# first\r\nexport A=pds://work/api-key\r\nB='two words'\r\nC=old\r\nD=\"x\ny\"\r\n",
    );
    write("two.env", "C=pds://default/api-key\n");
    let arguments = ["run", "--none", "--env-file", "one.env", "--env-file", "two.env", "--"];
    let shell = ["sh", "-c", "printf '%s|%s|%s|%s|%s' \"$A\" \"$B\" \"$C\" \"$D\" \"$E\""];
    system
        .pds([&arguments[..], &shell].concat())
        .env("A", "inherited")
        .env("E", "inherited")
        .run()
        .done()
        .prints("work's|two words|the key|x\ny|inherited");
    // The secrets of the profile are there as without a file.
    let shell = ["--", "sh", "-c", "printf '%s' \"$API_KEY $A\""];
    let arguments = [&["run", "--env-file", "one.env"][..], &shell].concat();
    system.pds(arguments).run().done().prints("the key work's");
}

/// Runs a command that would leave a file behind; it must not be started, for these reasons.
fn is_not_started(system: &System, options: &[&str], environment: &[(&str, &str)], words: &[&str]) {
    let proof = system.folder().join("it-ran");
    let shown = proof.display().to_string();
    let arguments = [&["run"], options, &["--", "touch", &shown]].concat();
    let mut command = system.pds(arguments);
    for (name, value) in environment {
        command = command.env(name, value);
    }
    let ended = command.run().exits(125);
    for word in words {
        ended.says(word);
    }
    assert!(!proof.exists(), "the child ran");
}

#[test]
fn a_reference_that_leads_nowhere_is_named_with_its_variable_and_nothing_runs() {
    let spec = Spec::new().profile("default").secret("a", "x").profile("shut").secret("b", "y").locked();
    let system = System::boot(spec.profile("zoo").secret("c", "z"));
    for (reference, why) in [
        ("pds://default/nothing", "no secret 'nothing'"),
        ("pds://nobody/a", "no profile 'nobody'"),
        ("pds://default", "no '/'"),
        ("pds://default/a b", "not a secret name"),
        ("pds://default/", "not a secret name"),
    ] {
        let shown = reference.strip_suffix(" b").unwrap_or(reference);
        is_not_started(
            &system,
            &["--none"],
            &[("OK", "pds://default/a"), ("BAD", reference)],
            &["BAD", shown, why],
        );
    }
    // A locked profile among many that are not.
    let many = [("A", "pds://default/a"), ("B", "pds://shut/b"), ("C", "pds://zoo/c")];
    is_not_started(&system, &["--none"], &many, &["B", "pds://shut/b", "locked", "pds unlock -p shut"]);
    // What a variable may not become, it may not become by a reference either.
    is_not_started(&system, &["--none"], &[("LD_PRELOAD", "pds://default/a")], &["LD_PRELOAD", "loader"]);
    is_not_started(&system, &[], &[("A", "pds://zoo/c")], &["'a'", "pds://zoo/c", "variable A"]);
    system.pds(["run", "--none", "--", "true"]).env("OK", "pds://default/a").run().done();
}

#[test]
fn a_malformed_reference_repeats_nothing_that_could_be_a_password() {
    let system = booted();
    is_not_started(&system, &["--none"], &[("DSN", "pds://me:hunter2@host/db")], &["DSN", "pds://me..."]);
    let ended =
        system.pds(["run", "--none", "--", "true"]).env("DSN", "pds://me:hunter2@host/db").run().exits(125);
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("hunter2"));
    let log = system.pds(["audit", "tail", "-n", "50", "--json"]).run().done();
    assert!(!log.text().contains("hunter2"));
    assert!(log.text().contains("DSN"), "the refusal is in the log");
}

#[test]
fn the_rules_of_run_hold_for_references() {
    let system = booted();
    system.write_config("[profiles.work.access.daemon-launcher]\nrun = ['api-key']\n");
    is_not_started(
        &system,
        &["--none"],
        &[("A", "pds://work/api-key"), ("B", "pds://work/db/password")],
        &["B", "pds://work/db/password", "access rules"],
    );
    let run = ["run", "--none", "--", "sh", "-c", "printf %s $A"];
    system.pds(run).env("A", "pds://work/api-key").run().done().prints("work's");
}

#[test]
fn a_run_with_references_is_recorded_with_what_it_gave() {
    let system = booted();
    system.pds(["run", "--none", "--", "true"]).env("DB", "pds://work/db/password").run().done();
    let log = system.pds(["audit", "tail", "-n", "20", "--json"]).run().done().json().to_string();
    let record = "\"profiles\":[\"default\",\"work\"]";
    assert!(log.contains(record) && log.contains("\"variables\":[\"DB\"]"), "{log}");
}

#[test]
fn a_file_that_can_be_read_in_two_ways_is_refused_by_its_line() {
    let system = booted();
    for (text, words) in [
        ("A=1\nB=it's\n", &["line 2", "B"][..]),
        ("A=$HOME/x\n", &["line 1", "A", "$"]),
        ("A='x\n", &["line 1", "not closed"]),
        ("nonsense\n", &["line 1", "NAME=value"]),
    ] {
        std::fs::write(system.folder().join(".env"), text).unwrap();
        is_not_started(&system, &["--none", "--env-file", ".env"], &[], words);
    }
    is_not_started(&system, &["--none", "--env-file", "no-such-file"], &[], &["no-such-file"]);
}

#[test]
fn the_value_is_in_the_child_and_in_no_other_process() {
    let mut system = booted();
    let value = "cf81aa2c-canary-of-a-reference-90b1";
    system.keep_secret(value.as_bytes());
    system.pds(["set", "-p", "work", "canary"]).stdin(value).run().done();
    let ready = system.folder().join("ready");
    let script = format!("echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000", ready.display());
    let running =
        system.pds(["run", "--none", "--", "sh", "-c", &script]).env("CANARY", "pds://work/canary").start();
    wait_for("the child", || ready.exists().then_some(()));
    let child: u32 = std::fs::read_to_string(&ready).unwrap().trim().parse().unwrap();
    let canary = Canary::new(value.as_bytes());
    assert_eq!(canary.in_processes(&BTreeSet::from([child])), []);
    assert_ne!(canary.in_processes(&BTreeSet::new()), [], "the child has it");
    assert_eq!(canary.in_files(system.folder()), []);
    drop(running);
    tests::process::Pinned::open(child).inspect(|child| child.signal(rustix::process::Signal::KILL));
}
