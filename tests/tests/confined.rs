//! The launcher is no way out of a sandbox: it starts nothing for a caller that is confined, and `--here` starts it
//! where the caller is.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use landlock::{ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _};
use rustix::process::Signal;
use tests::canary::processes;
use tests::process::Pinned;
use tests::system::wait_for;
use tests::{Ended, Spec, System};

const VALUE: &str = "s3cret";

fn booted() -> System {
    System::boot(Spec::ready().secret("api-key", VALUE))
}

/// What a confined program would make outside if it could.
fn escape(system: &System) -> PathBuf {
    system.folder().join("home").join("escape")
}

/// Has a wrapper run `pds run OPTIONS -- touch ~/escape`, and gives its code, words and whether the file is there.
fn attempt(system: &System, wrapper: &[&str], options: &[&str]) -> (Option<i32>, Ended, bool) {
    let proof = escape(system);
    let pds = system.programs().join("pds");
    let command = [&["run"], options, &["--", "touch", proof.to_str().unwrap()]].concat();
    let line = [wrapper, &[pds.to_str().unwrap()], &command].concat();
    let output = system.program(line[0], &line[1..]).run();
    let (code, found) = (output.status().code(), proof.exists());
    let _gone = std::fs::remove_file(proof);
    (code, output.any(), found)
}

/// The launcher refuses the caller, says why, and says what works.
fn is_refused(system: &System, wrapper: &[&str], reason: &str) {
    let (code, ended, escaped) = attempt(system, wrapper, &[]);
    assert!(!escaped, "{wrapper:?} escaped");
    ended.says(reason).says("--here");
    assert_eq!(code, Some(125), "{wrapper:?}");
}

/// A sandbox in which nothing can be written.
const BWRAP: [&str; 9] =
    ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--die-with-parent"];

#[test]
fn who_is_not_confined_is_served() {
    let system = booted();
    let (code, _, made) = attempt(&system, &["env"], &[]);
    assert_eq!((code, made), (Some(0), true), "the attempt leaves no trace, so it proves nothing");
}

#[test]
fn bubblewrap_is_no_way_out_and_here_runs_inside() {
    let system = booted();
    for namespaces in [&["--unshare-all"][..], &["--unshare-user"], &[]] {
        let wrapper = [&BWRAP, namespaces].concat();
        is_refused(&system, &wrapper, "confined");
        let (code, ended, escaped) = attempt(&system, &wrapper, &["--here"]);
        assert!(!escaped && code == Some(1), "{code:?}");
        ended.says("Read-only file system");
        let pds = system.programs().join("pds").display().to_string();
        let shows = ["run", "--here", "--", "sh", "-c", "printf %s $API_KEY"];
        let line = [&wrapper[..], &[pds.as_str()], &shows].concat();
        system.program(line[0], &line[1..]).run().done().prints(VALUE);
    }
}

#[test]
fn each_namespace_of_its_own_is_noticed() {
    let system = booted();
    for (option, kind) in [
        ("--user", "user"),
        ("--mount", "mnt"),
        ("--net", "net"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--cgroup", "cgroup"),
        ("--time", "time"),
    ] {
        let mapped: &[&str] = if option == "--user" { &["--map-root-user"] } else { &[] };
        let wrapper = [&["unshare", option], mapped].concat();
        is_refused(&system, &wrapper, &format!("{kind} namespace"));
    }
    is_refused(&system, &["unshare", "--pid", "--fork"], "pid namespace");
    is_refused(&system, &["unshare", "--pid", "--fork", "--mount-proc"], "namespace");
}

#[test]
fn another_root_directory_is_noticed() {
    let system = booted();
    let root = system.folder().join("root");
    std::fs::create_dir(&root).unwrap();
    // The same file system under another name.
    let script = format!("mount --rbind / {0} && exec chroot {0} \"$@\"", root.display());
    is_refused(&system, &["unshare", "--mount", "sh", "-c", &script, "sh"], "mnt namespace");
    let script = "mount --make-rprivate / && exec \"$@\"";
    is_refused(&system, &["unshare", "--mount", "sh", "-c", script, "sh"], "mnt namespace");
}

#[test]
fn groups_and_capabilities_that_were_given_up_are_noticed() {
    let system = booted();
    is_refused(&system, &["setpriv", "--bounding-set", "-sys_admin"], "capabilities");
    is_refused(&system, &["setpriv", "--regid", "12345", "--clear-groups"], "groups");
    let (code, _, made) = attempt(&system, &["setpriv", "--groups", "0,12345"], &[]);
    assert_eq!((code, made), (Some(0), true), "one group more is no confinement");
}

#[test]
fn no_new_privs_is_noticed() {
    let system = booted();
    is_refused(&system, &["setpriv", "--no-new-privs"], "no_new_privs");
    let (code, _, made) = attempt(&system, &["setpriv", "--no-new-privs"], &["--here"]);
    assert_eq!((code, made), (Some(0), true), "nothing keeps this caller from the file");
}

/// In a Landlock domain that forbids all writing, and without no_new_privs, which would be noticed before it.
fn in_landlock<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let confined = || {
        let rules =
            Ruleset::default().handle_access(AccessFs::from_write(ABI::V1)).unwrap().create().unwrap();
        rules.no_new_privs(false).restrict_self().unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(confined).join().unwrap())
}

#[test]
fn a_landlock_domain_is_noticed_and_here_runs_inside() {
    let system = booted();
    in_landlock(|| is_refused(&system, &["env"], "Landlock"));
    let (code, ended, escaped) = in_landlock(|| attempt(&system, &["env"], &["--here"]));
    assert!(!escaped && code == Some(1), "{code:?}");
    ended.says("Permission denied");
    let shows = ["run", "--here", "--", "sh", "-c", "printf %s $API_KEY"];
    assert_eq!(in_landlock(|| system.pds(shows).run().done().text()), VALUE);
}

#[test]
fn a_refusal_is_recorded() {
    let system = booted();
    is_refused(&system, &["setpriv", "--no-new-privs"], "no_new_privs");
    let entries = system.audit(100);
    let run = entries.iter().find(|entry| entry["operation"] == "run").unwrap();
    assert!(run["reason"].to_string().contains("no_new_privs"), "{run}");
    assert!(!entries.iter().any(|entry| entry["operation"] == "get"), "something was read for it");
}

/// The processes of this name.
fn named(name: &str) -> Vec<u32> {
    let is = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    processes().into_iter().filter(is).collect()
}

#[test]
fn a_witness_that_was_killed_comes_again() {
    let system = booted();
    let link = std::fs::read_link(system.paths().witness()).unwrap();
    let pid = link.iter().nth(2).unwrap().to_str().unwrap().parse().unwrap();
    assert!(named("pds-witness").contains(&pid));
    let witness = Pinned::open(pid).unwrap();
    witness.signal(Signal::KILL);
    assert!(witness.wait_end(tests::deadline()));
    wait_for("a new witness is there", || {
        system.pds(["run", "--", "true"]).run().status().success().then_some(())
    });
}

#[test]
fn here_is_in_place_and_gives_what_the_launcher_gives() {
    let spec = Spec::ready().secret("a", "1").secret("b/c", "2").secret("bin", b"x\0y");
    let system = System::boot(spec.profile("other").secret("a", "other's").secret("d", "3"));
    let script = "echo $$; exec pds run --only a --here -- sh -c 'echo $$'";
    let shown = system.shell(script).run().done().text();
    let numbers: Vec<&str> = shown.lines().collect();
    assert_eq!(numbers[0], numbers[1], "another process");
    let options: [&[&str]; 4] = [
        &["--only", "a,b/*", "--env", "X=a", "--prefix", "P_"],
        &["-p", "other", "-p", "default", "--only", "a,b/c"],
        &["--fd", "bin", "--stdin", "a"],
        &["--fd", "bin", "--fd", "b/c", "--only", "b/c"],
    ];
    for options in options {
        let command = &[
            "--",
            "sh",
            "-c",
            "env | grep -v '^_=' | sort; cat; for n in 3 4; do cat /proc/self/fd/$n; done 2>&-",
        ];
        let with = |more: &[&str]| {
            let line = [&["run"], options, more, command].concat();
            system.pds(line).run().any().stdout
        };
        assert!(with(&["--here"]) == with(&[]), "{options:?}");
    }
}

#[test]
fn here_ends_by_the_same_codes_and_runs_nothing_without_all_secrets() {
    let system = System::boot(Spec::ready().secret("a", "1").secret("a.", "2").secret("ld-preload", "x"));
    let here = |arguments: &[&str]| system.pds([&["run", "--here"], arguments].concat()).run();
    let _ended = here(&["--only", "a", "--", "sh", "-c", "exit 37"]).exits(37);
    let _ended = here(&["--only", "a", "--", "sh", "-c", "kill -KILL $$"]).killed_by(9);
    here(&["--only", "a", "--", "/nonexistent"]).exits(127).says("not found");
    let _ended = here(&["--only", "a", "--", "/"]).exits(126);
    here(&["--only", "missing", "--", "true"]).exits(125).says("missing");
    here(&["--only", "a,ld-preload", "--", "true"]).exits(125).says("LD_PRELOAD");
    system.pds(["lock"]).run().done();
    here(&["--only", "a", "--", "true"]).exits(125).says("locked");
}
