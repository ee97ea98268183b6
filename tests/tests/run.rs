//! `pds run`: the child has its secrets and ends with its caller, or it is not started at all. That it is as if the shell
//! had started it, `fidelity.rs` shows.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use core_crypto::SecureBytes;
use core_types::name::LAUNCHER;
use rustix::process::Signal;
use tests::canary::Canary;
use tests::postgres::Postgres;
use tests::process::Pinned;
use tests::system::wait_for;
use tests::terminal::{PROMPT, Terminal};
use tests::{PASSWORD, Spec, System, deadline};

fn booted() -> System {
    System::boot(Spec::ready().secret("api-key", "s3cret value"))
}

#[test]
fn postgresql_lets_in_who_has_the_password_of_the_vault_and_nobody_else() {
    let password = hex::encode(SecureBytes::random(24).unwrap().expose());
    let server = Postgres::start(password.as_bytes());
    let mut system = System::boot(Spec::ready().secret("other", "not for psql"));
    system.keep_secret(password.as_bytes());
    system.pds(["set", "pgpassword"]).stdin(&password).run().done();
    let port = server.port().to_string();
    let psql = server.psql().into_os_string().into_string().unwrap();
    let query = "select 40 + 2";
    let client = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-w", "-X", "-t", "-A", "-c", query];

    let with = [&["run", "--only", "pgpassword", "--", psql.as_str()][..], &client].concat();
    system.pds(with).run().done().prints("42\n");
    system.program(&psql, client).run().exits(2).says("no password supplied");
    system
        .program(&psql, client)
        .env("PGPASSWORD", "guessed")
        .run()
        .exits(2)
        .says("password authentication failed");
    let without = [&["run", "--only", "other", "--", psql.as_str()][..], &client].concat();
    system.pds(without).run().exits(2).says("no password supplied");
    let canary = Canary::new(password.as_bytes());
    assert_eq!(canary.in_files(system.folder()), []);
    assert_eq!(canary.in_processes(&BTreeSet::new()), []);
}

#[test]
fn a_command_that_cannot_be_started_has_the_codes_of_the_shell() {
    let system = booted();
    system.pds(["run", "--", "/nonexistent"]).run().exits(127).says("not found");
    system.pds(["run", "--", "no-such-command-anywhere"]).run().exits(127);
    let script = system.folder().join("script");
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    system.pds(["run", "--", "./script"]).run().exits(126);
    system.pds(["run", "--", "/"]).run().exits(126);
    system.pds(["run", "--", ""]).run().exits(127);
    system.pds(["run"]).run().exits(2);
}

/// A command that leaves a file behind if it ever runs, and that file.
fn witness(system: &System) -> (std::path::PathBuf, Vec<String>) {
    let proof = system.folder().join("it-ran");
    (proof.clone(), vec!["--".to_owned(), "touch".to_owned(), proof.display().to_string()])
}

/// Runs the witness with these options; it must be refused in these words, and must not run.
fn is_not_started(system: &System, options: &[&str], words: &[&str]) {
    let (proof, command) = witness(system);
    let mut arguments = vec!["run".to_owned()];
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    arguments.extend(command);
    let ended = system.pds(&arguments).run().exits(125);
    for word in words {
        ended.says(word);
    }
    assert!(!proof.exists(), "the child ran");
}

#[test]
fn a_secret_that_would_steer_the_loader_is_named_and_nothing_runs() {
    let system = System::boot(Spec::ready().secret("ld-preload", "/tmp/evil.so").secret("fine", "x"));
    is_not_started(&system, &[], &["ld-preload", "LD_PRELOAD"]);
    is_not_started(&system, &["--only", "ld-*"], &["ld-preload", "LD_PRELOAD"]);
    is_not_started(&system, &["--only", "fine", "--env", "PATH=fine"], &["PATH"]);
    let (proof, command) = witness(&system);
    system
        .pds([vec!["run".to_owned(), "--only".to_owned(), "fine".to_owned()], command].concat())
        .run()
        .done();
    assert!(proof.exists(), "the witness leaves no trace, so it proves nothing");
}

#[test]
fn two_secrets_on_one_variable_are_named_and_nothing_runs() {
    let system = System::boot(Spec::ready().secret("db-password", "a").secret("db.password", "b"));
    is_not_started(&system, &[], &["db-password", "db.password", "DB_PASSWORD"]);
    is_not_started(&system, &["--only", "db-password", "--env", "DB_PASSWORD=db.password"], &["DB_PASSWORD"]);
    system.pds(["run", "--only", "db-password", "--", "sh", "-c", "test $DB_PASSWORD = a"]).run().done();
}

#[test]
fn values_that_no_environment_holds_are_named_and_nothing_runs() {
    let system = System::boot(Spec::ready().secret("nul", b"a\0b").secret("long", vec![b'x'; 200_000]));
    is_not_started(&system, &["--only", "nul"], &["nul", "NUL byte"]);
    is_not_started(&system, &["--only", "long"], &["long"]);
}

#[test]
fn it_is_all_secrets_or_no_child() {
    let system = System::boot(Spec::ready().secret("there", "x").profile("shut").secret("y", "z").locked());
    is_not_started(&system, &["--only", "there,missing"], &["missing"]);
    is_not_started(&system, &["--only", "nothing/*"], &["nothing/*"]);
    is_not_started(&system, &["--env", "X=missing"], &["missing"]);
    is_not_started(&system, &["-p", "shut"], &["shut", "pds unlock"]);
    is_not_started(&system, &["-p", "nobody"], &["nobody"]);
    is_not_started(&system, &["--prefix", "A-B"], &["A-B"]);
    system.pds(["lock"]).run().done();
    is_not_started(&system, &[], &["locked"]);
    system.pds(["daemon", "stop"]).run().done();
    is_not_started(&system, &["--no-start"], &["pds daemon start"]);
}

#[test]
fn what_was_not_started_in_time_is_not_started_later() {
    let system = booted();
    let launcher = system.process(LAUNCHER).unwrap();
    launcher.signal(Signal::STOP);
    let asked = Instant::now();
    let late = system.pds(["--timeout", "1", "run", "--", "touch", "late"]).run();
    let waited = asked.elapsed();
    launcher.signal(Signal::CONT);
    late.exits(125).says("in time");
    // Without the option it would be ten seconds.
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    system.pds(["run", "--", "touch", "next"]).run().done();
    let made = |name: &str| system.folder().join(name).exists();
    assert!(made("next") && !made("late"));
}

#[test]
fn a_selection_decides_what_the_child_gets() {
    let spec = Spec::ready().secret("a", "1").secret("b/x", "2").secret("b/y", "3").secret("9c", "4");
    let system = System::boot(spec.profile("other").secret("a", "other's").secret("d", "5"));
    let shows = |options: &[&str], expected: &str| {
        let script = "env | grep -E '^(A|B_X|B_Y|_9C|D|P_.*|NEW)=' | sort";
        let arguments = [&["run"], options, &["--", "sh", "-c", script]].concat();
        system.pds(arguments).run().done().prints(expected);
    };
    shows(&[], "A=1\nB_X=2\nB_Y=3\n_9C=4\n");
    shows(&["--only", "a,b/*"], "A=1\nB_X=2\nB_Y=3\n");
    shows(&["--only", "a", "--env", "NEW=b/x"], "A=1\nNEW=2\n");
    shows(&["--only", "b/x", "--prefix", "P_"], "P_B_X=2\n");
    shows(&["-p", "other"], "A=other's\nD=5\n");
    shows(&["-p", "other", "-p", "default", "--only", "a,b/x"], "A=other's\nB_X=2\n");
}

/// The variables that a `NAME=value` list without an end mark says.
fn variables(bytes: &[u8]) -> BTreeSet<Vec<u8>> {
    bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).map(<[u8]>::to_vec).collect()
}

#[test]
fn the_environment_is_the_callers_and_the_secrets_and_nothing_else() {
    let system = booted();
    let odd = OsString::from_vec(b"\xff line\nfeed =".to_vec());
    let within =
        system.pds(["run", "--", "env", "-0"]).env("ODD", &odd).env("API_KEY", "the caller's").run().done();
    let without = system.program("env", ["-0"]).env("ODD", &odd).run().done();
    let mut expected = variables(&without.stdout);
    expected.insert(b"API_KEY=s3cret value".to_vec());
    expected.insert(b"PDS_PROFILE=default".to_vec());
    assert_eq!(variables(&within.stdout), expected);
}

#[test]
fn closed_and_silent_streams_do_no_harm() {
    let system = booted();
    system.shell("pds run -- sh -c 'exit 5' <&- >&- 2>&-").run().exits(5);
    system.pds(["run", "--", "sh", "-c", "exit 6"]).stdin_stays_open().run().exits(6);
    // What the child leaves behind holds the output open, as under the shell; `pds` itself does not wait for it.
    let line = "pds run -- sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'";
    let left = system.shell(line).run().done().text().parse().unwrap();
    Pinned::open(left).expect("a process the child left behind lives on").signal(Signal::KILL);
}

#[test]
fn signals_to_pds_reach_the_child() {
    let system = booted();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let proof = system.folder().join("started");
        let script = format!("ulimit -c 0; : >{}; exec sleep 1000", proof.display());
        let running = system.pds(["run", "--", "sh", "-c", &script]).start();
        wait_for("the child runs", || proof.exists().then_some(()));
        running.process().wait_until_it_handles(Signal::TERM);
        running.process().signal(signal);
        running.wait().exits(code);
        std::fs::remove_file(&proof).unwrap();
    }
    let proof = system.folder().join("started");
    let script = format!("trap 'kill %1; exit 9' USR1; : >{}; sleep 1000 & wait", proof.display());
    let running = system.pds(["run", "--", "bash", "-c", &script]).start();
    wait_for("the child runs", || proof.exists().then_some(()));
    running.process().wait_until_it_handles(Signal::TERM);
    running.process().signal(Signal::USR1);
    running.wait().exits(9);
}

#[test]
fn a_child_does_not_outlive_a_pds_that_was_killed() {
    let system = booted();
    let proof = system.folder().join("pid");
    let script = format!("echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000", proof.display());
    let running = system.pds(["run", "--", "sh", "-c", &script]).start();
    let pid = wait_for("the child says who it is", || std::fs::read_to_string(&proof).ok());
    let child = Pinned::open(pid.trim().parse().unwrap()).unwrap();
    running.process().signal(Signal::KILL);
    running.wait().killed_by(9);
    assert!(child.wait_end(deadline()), "the child lives on");
}

#[test]
fn a_terminal_is_one_for_the_child_and_as_before_afterwards() {
    let system = booted();
    let mut terminal = Terminal::bash(&system);
    let before = terminal.settings();
    terminal.line(
        "pds run -- sh -c 'test -t 0 && test -t 1 && test -t 2 && tty </dev/tty && echo terminal-$API_KEY'",
    );
    terminal.wait_for("\nterminal-s3cret value");
    terminal.wait_for(PROMPT);
    // A child that leaves its terminal raw leaves the user's as it was.
    terminal.line("pds run -- sh -c 'stty raw -echo; exit 4'; echo code=$?");
    terminal.wait_for("\ncode=4");
    terminal.wait_for(PROMPT);
    let after = terminal.settings();
    assert_eq!(
        (before.local_modes, before.input_modes, before.output_modes),
        (after.local_modes, after.input_modes, after.output_modes)
    );
    terminal.line(
        "echo piped-in | pds run -- cat; pds run -- sh -c 'test -t 1' | cat; echo code=${PIPESTATUS[0]}",
    );
    terminal.wait_for("\npiped-in");
    terminal.wait_for("code=1");
    terminal.wait_for(PROMPT);
    // What the child does not read, the shell reads next.
    terminal.line("pds run -- sh -c 'echo rea''dy; read line; echo got-$line'");
    terminal.wait_for("\nready");
    terminal.line("typed");
    terminal.wait_for("\ngot-typed");
    terminal.wait_for(PROMPT);
}

#[test]
fn a_window_that_is_closed_ends_the_child() {
    let system = booted();
    let proof = system.folder().join("pid");
    let mut terminal = Terminal::bash(&system);
    let place = proof.display();
    terminal
        .line(&format!("pds run -- sh -c 'echo $$ >{place}.new; mv {place}.new {place}; exec sleep 1000'"));
    let pid = wait_for("the child says who it is", || std::fs::read_to_string(&proof).ok());
    let child = Pinned::open(pid.trim().parse().unwrap()).unwrap();
    terminal.hang_up();
    assert!(child.wait_end(deadline()), "the child lives on");
}

#[test]
fn passwords_are_asked_for_on_the_terminal_and_never_shown() {
    let system = System::boot(Spec::new());
    let mut terminal = Terminal::bash(&system);
    terminal.line("pds init </dev/null; echo code=$?");
    terminal.wait_for(": ");
    terminal.line(PASSWORD);
    terminal.wait_for(": ");
    terminal.line(PASSWORD);
    terminal.wait_for("code=0");
    terminal.wait_for(PROMPT);
    terminal.line("pds set typed; echo code=$?");
    terminal.wait_for(": ");
    terminal.line("value typed blind");
    terminal.wait_for("code=0");
    terminal.wait_for(PROMPT);
    terminal.line("pds lock; pds unlock; echo code=$?");
    terminal.wait_for(": ");
    terminal.line("wrong");
    terminal.wait_for("code=8");
    terminal.wait_for(PROMPT);
    assert!(!terminal.shown().contains("[REDACTED]"), "the terminal showed a password");
    assert!(!terminal.shown().contains("typed blind"), "the terminal showed a value");
    terminal.line("pds unlock");
    terminal.wait_for(": ");
    terminal.line(PASSWORD);
    terminal.wait_for(PROMPT);
    // On a terminal, and only there, a line feed follows the value.
    terminal.line("pds get typed");
    terminal.wait_for("\nvalue typed blind\r\n");
    system.pds(["get", "typed"]).run().done().prints("value typed blind");
    for (answer, code) in [("n", 1), ("y", 0)] {
        terminal.wait_for(PROMPT);
        terminal.line("pds rm typed; echo code=$?");
        terminal.wait_for("code=$?");
        terminal.wait_for("?");
        if answer == "y" {
            system.pds(["get", "typed"]).run().done();
        }
        terminal.line(answer);
        terminal.wait_for(&format!("code={code}"));
    }
    system.pds(["get", "typed"]).run().exits(4);
}

#[test]
fn only_the_child_has_the_secret() {
    let value = format!("canary-{}", hex::encode(SecureBytes::random(16).unwrap().expose()));
    let system = System::boot(Spec::ready().secret("api-key", &value).log("trace"));
    let proof = system.folder().join("pid");
    // The shell alone: what it starts has its environment as well, for as long as it runs.
    let script = format!("echo $$ >{}; read line; exit 3", proof.display());
    let running = system.pds(["run", "-v", "--", "sh", "-c", &script]).stdin_stays_open().start();
    let pid: u32 = wait_for("the child says who it is", || {
        let text = std::fs::read_to_string(&proof).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    });
    let canary = Canary::new(value.as_bytes());
    let environ = std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).unwrap();
    assert!(canary.found_in(&environ).is_some(), "the child has no secret, so this shows nothing");
    assert_eq!(canary.in_processes(&BTreeSet::from([pid])), []);
    assert_eq!(canary.in_files(system.folder()), []);
    Pinned::open(pid).unwrap().signal(Signal::KILL);
    let ended = running.wait().exits(137);
    assert_eq!(canary.found_in(&ended.stderr), None);
}
