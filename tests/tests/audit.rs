//! What the audit log says of programs, locks and the configuration, and what is done with a log that cannot be used.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use core_types::ProfileName;
use core_types::name::{LAUNCHER, PROFILE};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::calls;
use tests::process::{Pinned, parent};
use tests::system::{call, wait_for};
use tests::{Spec, System, deadline};

fn booted() -> System {
    System::boot(Spec::ready().secret("api-key", "s3cret value"))
}

/// The entries of one operation, oldest first.
fn of(system: &System, operation: &str) -> Vec<Value> {
    let shown = system.pds(["audit", "show", "--json"]).run().done().json();
    let entries = shown["entries"].as_array().unwrap();
    entries.iter().filter(|entry| entry["operation"] == operation).cloned().collect()
}

/// The daemons gather entries that come soon after another, and whoever reads the log waits for none of them.
#[test]
fn whoever_reads_the_log_finds_all_that_was_done_before() {
    let system = booted();
    let mut client = system.client();
    for round in 1..=20 {
        for _ in 0..round {
            drop(call(&mut client, &calls::get("default", "api-key")));
        }
        let reads = system.audit(u32::try_from(round).unwrap());
        assert!(reads.iter().all(|entry| entry["operation"] == "get"), "round {round}: {reads:?}");
        let all = of(&system, "get").len();
        assert_eq!(all, round * (round + 1) / 2, "round {round}");
    }
}

/// The ends of programs, when there are so many.
fn ends(system: &System, count: usize) -> Vec<Value> {
    let ends = wait_for("the ends are in the log", || {
        let ends = of(system, "run-end");
        (ends.len() >= count).then_some(ends)
    });
    assert_eq!(ends.len(), count, "{ends:?}");
    ends
}

#[test]
fn the_log_tells_what_each_program_got_and_how_it_ended() {
    let system = booted();
    system.pds(["run", "--env", "KEY=api-key", "--", "sh", "-c", "exit 7"]).run().exits(7);
    system.shell("pds run --only api-key -- sh -c 'kill -TERM $$'").run().exits(143);
    system.pds(["run", "--", "/nonexistent"]).run().exits(127);
    let runs =
        wait_for("the attempts are in the log", || Some(of(&system, "run")).filter(|runs| runs.len() >= 3));
    let ends = ends(&system, 2);
    let find = |exit: Value| ends.iter().find(|end| end["child"]["exit"] == exit).unwrap();
    for (exit, variables) in
        [(json!({"code": 7}), json!(["API_KEY", "KEY"])), (json!({"signal": 15}), json!(["API_KEY"]))]
    {
        let end = find(exit);
        assert_eq!((&end["subject"], &end["outcome"]), (&json!("sh"), &json!("done")));
        let mut child = end["child"].clone();
        assert_eq!(child["profiles"], json!(["default"]));
        assert_eq!(child["secrets"], json!(["api-key"]));
        assert_eq!(child["variables"], variables);
        child["exit"] = Value::Null;
        let start = runs.iter().find(|run| run["child"] == child).expect("the entry of its start");
        assert_eq!(start["requester"], end["requester"]);
        assert!(start["sequence"].as_u64() < end["sequence"].as_u64());
    }
    assert_eq!(runs.len(), 3);
    assert!(runs[2]["child"].is_null() && runs[2]["outcome"] == "failed", "{}", runs[2]);
    let text = system.pds(["audit", "show"]).run().done().text();
    for words in ["with api-key", "exited with code 7", "was ended by signal 15"] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!text.contains("s3cret"));
    assert_eq!(std::fs::read_dir(system.paths().children()).unwrap().count(), 0, "a note was left");
}

/// A program that has begun and goes on until it is told to end with code 5, whatever becomes of `pds`.
struct Lasting<'a> {
    running: Option<tests::invocation::Running<'a>>,
    child: Pinned,
    go: std::path::PathBuf,
}

impl<'a> Lasting<'a> {
    fn start(system: &'a System, name: &str) -> Self {
        let (ready, go) = (system.folder().join(name), system.folder().join(format!("{name}.go")));
        let script = format!(
            "exec >/dev/null 2>&1; trap '' HUP; mkfifo {1}; echo $$ >{0}.new; mv {0}.new {0}; read line <{1}; exit 5",
            ready.display(),
            go.display()
        );
        let running = system.pds(["run", "--", "sh", "-c", &script]).start();
        let pid = wait_for("the child runs", || std::fs::read_to_string(&ready).ok());
        let child = Pinned::open(pid.trim().parse().unwrap()).unwrap();
        Self { running: Some(running), child, go }
    }

    fn kill_pds(&mut self) {
        let running = self.running.take().unwrap();
        running.process().signal(Signal::KILL);
        running.wait().killed_by(9);
    }

    fn end(self) {
        // Open for both, so that it does not wait for a child that has gone.
        let mut go = std::fs::OpenOptions::new().read(true).write(true).open(&self.go).unwrap();
        std::io::Write::write_all(&mut go, b"go\n").unwrap();
        assert!(self.child.wait_end(deadline()), "the child lives on");
        if let Some(running) = self.running {
            drop(running.wait().any());
        }
    }
}

#[test]
fn the_end_of_a_program_is_recorded_though_pds_was_killed() {
    let system = booted();
    let mut lasting = Lasting::start(&system, "lasting");
    lasting.kill_pds();
    system.pds(["get", "api-key"]).run().done();
    assert_eq!(of(&system, "run-end"), [] as [Value; 0], "it has not ended");
    let pid = lasting.child.pid();
    lasting.end();
    let end = &ends(&system, 1)[0];
    assert_eq!(end["child"]["exit"], json!({"code": 5}));
    assert_eq!(end["child"]["pid"], pid);
}

fn is_unknown(end: &Value) {
    assert_eq!((&end["child"]["exit"], &end["outcome"]), (&json!("unknown"), &json!("failed")), "{end}");
    assert!(end["reason"].as_str().unwrap().contains("nobody saw its end"), "{end}");
}

#[test]
fn of_a_program_that_outlives_what_watches_it_the_log_says_that_its_end_is_unknown() {
    let system = booted();
    let first = Lasting::start(&system, "first");
    let second = Lasting::start(&system, "second");
    let monitor = Pinned::open(parent(second.child.pid()).unwrap()).unwrap();
    monitor.signal(Signal::KILL);
    is_unknown(&ends(&system, 1)[0]);
    let old = system.kill(LAUNCHER);
    system.wait_until_back(LAUNCHER, old);
    is_unknown(&ends(&system, 2)[1]);
    let third = Lasting::start(&system, "third");
    system.pds(["daemon", "stop"]).run().done();
    system.pds(["daemon", "start"]).run().done();
    system.pds(["unlock"]).password().run().done();
    is_unknown(&ends(&system, 3)[2]);
    let pids: Vec<u32> = [&second, &first, &third].map(|lasting| lasting.child.pid()).into();
    let recorded: Vec<Value> = ends(&system, 3).iter().map(|end| end["child"]["pid"].clone()).collect();
    assert_eq!(recorded, pids);
    for lasting in [first, second, third] {
        lasting.end();
    }
    // What ends after that is not told twice.
    system.pds(["run", "--", "true"]).run().done();
    assert_eq!(ends(&system, 4)[3]["child"]["exit"], json!({"code": 0}));
}

#[test]
fn a_lock_says_why() {
    let mut system = booted();
    system.pds(["lock"]).run().done();
    system.pds(["unlock"]).password().run().done();
    let backup = system.folder().join("backup");
    let backup = backup.to_str().unwrap();
    system.pds(["backup", backup]).run().done();
    system.pds(["restore-backup", "--yes", backup]).password().run().done();
    system.pds(["daemon", "stop"]).run().done();
    system.start();
    let locks = wait_for("all locks are in the log", || {
        let locks = of(&system, "lock");
        (locks.len() >= 3).then_some(locks)
    });
    let shown: Vec<_> = locks
        .iter()
        .map(|lock| (lock["cause"].as_str().unwrap(), lock["requester"]["name"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("user", "cli"), ("restore", "cli"), ("shutdown", "daemon-secrets")]);
    system.pds(["audit", "show"]).run().done().prints_among("cause restore");
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Each place of the log, and the configuration, as a link to somewhere else.
#[test]
fn a_place_of_the_log_or_a_configuration_that_is_a_link_is_refused_by_name() {
    for place in ["audit", "audit-waiting", "children", "config.toml"] {
        let system = System::boot(Spec::new().not_started());
        std::fs::create_dir_all(system.paths().state()).unwrap();
        let path = match place {
            "config.toml" => system.paths().config_file(),
            folder => system.paths().state().join(folder),
        };
        let elsewhere = system.folder().join("elsewhere");
        match place {
            "config.toml" => std::fs::write(&elsewhere, "").unwrap(),
            _ => std::fs::create_dir(&elsewhere).unwrap(),
        }
        symlink(&elsewhere, &path).unwrap();
        let started = system.pds(["daemon", "start"]).run();
        assert_ne!(started.status().code(), Some(0), "{place}");
        // `pds` reads the configuration itself, and says so itself; of the rest a daemon's log tells.
        let said = [started.said().to_owned(), String::from_utf8(system.log()).unwrap()].concat();
        drop(started.any());
        assert!(said.contains(path.to_str().unwrap()), "{place}: {said}");
    }
}

/// Folders that its owner may not write to: a `durable` profile does nothing, a `written` one goes on and says so.
#[test]
fn a_log_that_may_not_be_written_is_told_of_and_the_mode_is_followed() {
    for (mode, refuses) in [("durable", true), ("written", false)] {
        let mut system = System::boot(Spec::new().powerless().not_started());
        let folders = [system.paths().audit(), system.paths().audit_waiting()];
        for folder in &folders {
            std::fs::create_dir_all(folder).unwrap();
            chmod(folder, 0o500);
        }
        system.write_config(&format!("[audit]\nmode = '{mode}'\n"));
        system.start();
        let made = system.pds(["init"]).password().run();
        if refuses {
            made.exits(1).says("audit");
        } else {
            made.done();
            system.pds(["set", "key"]).stdin("value").run().done();
        }
        let status = system.pds(["status", "--json"]).run().any().json();
        let failing = status["audit"]["failing"].as_str().unwrap();
        assert!(failing.contains(folders[0].to_str().unwrap()), "{failing}");
        folders.iter().for_each(|folder| chmod(folder, 0o700));
        if refuses {
            system.pds(["init"]).password().run().done();
            system.pds(["set", "key"]).stdin("value").run().done();
        }
        system.pds(["get", "key"]).run().done().prints("value");
        wait_for("all is in the log", || {
            let status = system.pds(["status", "--json"]).run().any().json();
            let recorded = ["init", "set", "get"].iter().all(|operation| !of(&system, operation).is_empty());
            (status["audit"]["failing"].is_null() && recorded).then_some(())
        });
        system.pds(["audit", "verify"]).run().done();
    }
}

/// What is in the folder of the log and of its key, of which nothing else than the vault says that it is an older state.
#[test]
fn a_log_put_back_together_with_its_key_is_found_by_the_vault() {
    let system = booted();
    let (log, key) = (system.paths().audit().join("000001.jsonl"), system.paths().audit().join("key"));
    wait_for("the log has its first entries", || (!of(&system, "set").is_empty()).then_some(()));
    let profile = system.process(PROFILE).unwrap();
    profile.stop();
    let earlier = [&log, &key].map(|path| std::fs::read(path).unwrap());
    profile.signal(Signal::CONT);
    system.pds(["get", "api-key"]).run().done();
    wait_for("the read is in the log", || (!of(&system, "get").is_empty()).then_some(()));
    system.pds(["lock"]).run().done();
    let profile = system.process(PROFILE).unwrap();
    profile.stop();
    for (path, bytes) in [&log, &key].into_iter().zip(&earlier) {
        std::fs::write(path, bytes).unwrap();
    }
    let old = system.kill(PROFILE);
    system.wait_until_back(PROFILE, old);
    system.pds(["audit", "verify"]).run().done();
    system.pds(["unlock"]).password().run().done();
    wait_for("it is found", || {
        let ended = system.pds(["audit", "verify"]).run();
        (ended.status().code() == Some(9)).then(|| ended.any())
    });
    system.pds(["audit", "verify"]).run().exits(9).says("profile 'default' remembers");
}

#[test]
fn what_a_vault_remembers_of_the_log_cannot_be_removed_unnoticed() {
    let system = booted();
    system.pds(["audit", "verify"]).run().done();
    let anchor = system.paths().audit_anchor(&ProfileName::parse("default").unwrap());
    wait_for("the vault remembers the log", || anchor.exists().then_some(()));
    system.pds(["lock"]).run().done();
    std::fs::remove_file(&anchor).unwrap();
    system.pds(["unlock"]).password().run().done();
    wait_for("it is found", || {
        let ended = system.pds(["audit", "verify"]).run();
        (ended.status().code() == Some(9)).then(|| ended.any())
    });
    let old = system.kill(PROFILE);
    system.wait_until_back(PROFILE, old);
    system.pds(["audit", "verify"]).run().exits(9).says("what profile 'default' remembered");
}
