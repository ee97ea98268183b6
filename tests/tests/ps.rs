//! `pds ps`: what runs, with what, also over restarts of the launcher.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core_types::name::LAUNCHER;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::invocation::Running;
use tests::process::Pinned;
use tests::system::wait_for;
use tests::{Spec, System, deadline};

fn listed(system: &System) -> Vec<Value> {
    let mut json = system.pds(["ps", "--json"]).run().done().json();
    json["children"].as_array_mut().unwrap().drain(..).collect()
}

fn pids(system: &System) -> Vec<u64> {
    listed(system).iter().map(|child| child["pid"].as_u64().unwrap()).collect()
}

/// A program that runs until it reads a line, and ends with code 5 then.
fn start<'a>(system: &'a System, name: &str, options: &[&str]) -> (Running<'a>, Pinned) {
    let ready = system.folder().join(name);
    let script = format!("trap '' HUP; echo $$ >{0}.new; mv {0}.new {0}; read line; exit 5", ready.display());
    let line = [&["run"], options, &["--", "sh", "-c", &script]].concat();
    let running = system.pds(line).stdin_stays_open().start();
    let pid = wait_for("the child runs", || std::fs::read_to_string(&ready).ok());
    (running, Pinned::open(pid.trim().parse().unwrap()).unwrap())
}

#[test]
fn what_runs_is_listed_with_the_names_of_what_it_holds_until_it_ends() {
    let value = "not for the listing";
    let spec = Spec::ready().secret("a", value).secret("b", value).profile("other").secret("c", value);
    let system = System::boot(spec);
    assert_eq!(listed(&system), [] as [Value; 0]);
    system.pds(["ps"]).run().done().prints("");
    let (one, first) = start(&system, "one", &["--only", "a"]);
    let (_two, second) = start(&system, "two", &["-p", "other", "-p", "default", "--fd", "b"]);
    let found = wait_for("both are listed", || Some(listed(&system)).filter(|found| found.len() == 2));
    let of = |child: &Pinned| found.iter().find(|found| found["pid"] == child.pid()).unwrap();
    assert_eq!(of(&first)["secrets"], json!(["a"]));
    assert_eq!(of(&first)["profiles"], json!(["default"]));
    assert_eq!(of(&first)["command"], "sh");
    assert_eq!(of(&second)["secrets"], json!(["a", "b", "c"]));
    assert_eq!(of(&second)["profiles"], json!(["other", "default"]));
    let shown = system.pds(["ps"]).run().done();
    assert!(shown.text().contains(&format!("{}  ", first.pid())) && shown.text().contains("with a, b, c"));
    assert!(!shown.text().contains(value));
    first.signal(Signal::KILL);
    one.wait().exits(137);
    wait_for("the one that ended is gone", || (pids(&system) == [u64::from(second.pid())]).then_some(()));
}

#[test]
fn what_outlives_the_launcher_is_listed_until_it_ends_and_its_code_is_told() {
    let system = System::boot(Spec::ready().secret("a", "1"));
    let (one, first) = start(&system, "one", &[]);
    let (two, second) = start(&system, "two", &[]);
    let mut both = [u64::from(first.pid()), u64::from(second.pid())];
    both.sort_unstable();
    // Once by a kill, and once in order.
    for _ in 0..2 {
        let old = system.kill(LAUNCHER);
        system.wait_until_back(LAUNCHER, old);
        wait_for("both are listed", || (pids(&system) == both).then_some(()));
    }
    system.pds(["daemon", "stop"]).run().done();
    system.pds(["daemon", "start"]).run().done();
    wait_for("both are listed", || (pids(&system) == both).then_some(()));
    first.signal(Signal::TERM);
    one.wait().exits(143);
    assert!(first.wait_end(deadline()));
    assert_eq!(pids(&system), [u64::from(second.pid())]);
    let old = system.kill(LAUNCHER);
    system.wait_until_back(LAUNCHER, old);
    wait_for("it is listed", || (pids(&system) == [u64::from(second.pid())]).then_some(()));
    second.signal(Signal::KILL);
    two.wait().exits(137);
    assert!(second.wait_end(deadline()));
    assert_eq!(listed(&system), [] as [Value; 0]);
    assert_eq!(std::fs::read_dir(system.paths().children()).unwrap().count(), 0, "a note was left");
}
