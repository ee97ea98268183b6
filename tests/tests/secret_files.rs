//! `pds run --files`: secrets as files in memory that the program alone sees, for as long as it runs.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use core_crypto::SecureBytes;
use core_types::name::LAUNCHER;
use rustix::process::Signal;
use tests::canary::Canary;
use tests::invocation::Running;
use tests::process::{Pinned, parent};
use tests::system::wait_for;
use tests::{Spec, System, deadline};

fn folder(system: &System) -> PathBuf {
    system.paths().runtime().join("secrets")
}

/// A program with its secrets as files that runs until it reads a line, and shows one of them then.
fn start(system: &System) -> (Running<'_>, Pinned) {
    let ready = system.folder().join("ready");
    let script = format!(
        "trap '' HUP; echo $$ >{0}.new; mv {0}.new {0}; read line; cat $PDS_SECRETS_DIR/a",
        ready.display()
    );
    let running = system.pds(["run", "--files", "--", "sh", "-c", &script]).stdin_stays_open().start();
    let pid = wait_for("the child runs", || std::fs::read_to_string(&ready).ok());
    (running, Pinned::open(pid.trim().parse().unwrap()).unwrap())
}

#[test]
fn files_give_exactly_what_is_stored_and_cannot_be_changed() {
    let binary = SecureBytes::random(1 << 20).unwrap().expose().to_vec();
    let spec = Spec::ready().secret("db/password", &binary).secret("a-b", b"x\0\n").secret("empty", "");
    let system = System::boot(spec);
    let run = |options: &[&str], script: &str| {
        let line = [&["run"], options, &["--", "sh", "-c", script]].concat();
        system.pds(line).run()
    };
    run(&["--files"], "cat $PDS_SECRETS_DIR/db/password").done().prints(&binary);
    run(&["--files"], "cd $PDS_SECRETS_DIR; cat a-b empty").done().prints(b"x\0\n");
    let modes = "cd $PDS_SECRETS_DIR; stat -c '%a %n' . db db/password a-b empty";
    run(&["--files"], modes).done().prints("700 .\n700 db\n400 db/password\n400 a-b\n400 empty\n");
    run(&["--files", "--only", "db/*"], "cd $PDS_SECRETS_DIR; find . -type f")
        .done()
        .prints("./db/password\n");
    run(&["--files"], "env | grep -E '^(DB_PASSWORD|A_B|EMPTY)'").exits(1).prints("");
    for change in
        ["echo x >$PDS_SECRETS_DIR/new", "rm -f $PDS_SECRETS_DIR/a-b", "echo x >$PDS_SECRETS_DIR/a-b"]
    {
        let script = format!("({change}) && echo changed; cat $PDS_SECRETS_DIR/a-b");
        run(&["--files"], &script).done().prints(b"x\0\n").says("Read-only file system");
    }
    let here = system.folder().join("of its own");
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join("below"), "").unwrap();
    let given = ["--files", here.to_str().unwrap(), "--only", "a-b"];
    run(&given, "pwd; echo $PDS_SECRETS_DIR; ls \"$PDS_SECRETS_DIR\"").done().prints(format!(
        "{0}\n{1}\na-b\n",
        system.folder().display(),
        here.display()
    ));
    assert!(here.join("below").exists() && !here.join("a-b").exists());
}

/// A whole system of a user who may nothing: its own folders, its own daemons, one run.
const UNPRIVILEGED: &str = r#"
cd "$1" && mkdir -m 700 c d s r && printf %s 'a password' >pw
export PATH="$1/bin:/usr/bin:/bin" HOME="$1" PDS_CONFIG_DIR="$1/c" PDS_DATA_DIR="$1/d" PDS_STATE_DIR="$1/s" PDS_RUNTIME_DIR="$1/r"
pds init -q --password-file pw && printf value | pds set a/b
pds run --files -- sh -c 'cat $PDS_SECRETS_DIR/a/b; stat -c " %u %a" $PDS_SECRETS_DIR/a/b; : >$PDS_SECRETS_DIR/x' 2>said
grep -o 'Read-only file system' said
ls r/secrets
pds daemon stop -q
"#;

#[test]
fn an_unprivileged_user_has_them_in_a_user_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in tests::programs::PROGRAMS {
        std::fs::copy(tests::programs::folder().join(name), bin.join(name)).unwrap();
    }
    let user = if rustix::process::geteuid().is_root() { 65534 } else { rustix::process::geteuid().as_raw() };
    let mut command = std::process::Command::new("sh");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(folder.path(), Some(user), Some(user)).unwrap();
        command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh"]);
    }
    command.args(["-c", UNPRIVILEGED, "sh"]).arg(folder.path()).env_clear().current_dir("/");
    let output = command.output().unwrap();
    let expected = format!("value {user} 400\nRead-only file system\n");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A shell for which the kernel makes no namespace: root of one of its own in which there may be no more of them, without
/// any capability.
const NO_NAMESPACES: &str =
    "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all sh -c \"$@\"";

/// A whole system of a user for whom nothing can be laid over a folder, and what a script prints that uses it. Its
/// folders are below this one.
fn without_namespaces(place: &str, script: &str) -> String {
    let folder = tempfile::tempdir_in(place).unwrap();
    let programs = tests::programs::folder().display().to_string();
    let begin = format!(
        r#"cd "$1" && mkdir -m 700 c d s r && printf %s 'a password' >pw
export PATH="{programs}:/usr/bin:/bin" HOME="$1" PDS_CONFIG_DIR="$1/c" PDS_DATA_DIR="$1/d" PDS_STATE_DIR="$1/s" PDS_RUNTIME_DIR="$1/r"
pds init -q --password-file pw && printf value | pds set a/b
trap 'pds daemon stop -q' EXIT
"#
    );
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", NO_NAMESPACES, "sh"])
        .args([&format!("{begin}{script}"), "sh"])
        .arg(folder.path())
        .env_clear()
        .current_dir("/")
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn where_nothing_can_be_laid_over_a_folder_they_lie_in_one_in_memory_and_that_is_told() {
    let script = r#"
pds run --files -- sh -c 'cat $PDS_SECRETS_DIR/a/b; cd $PDS_SECRETS_DIR; stat -c " %a" . a a/b; dirname $PWD' 2>said
grep -c 'other programs of this user can read them' said
ls r/files
mkdir over
pds run --files over -- touch started 2>said || echo $?
grep -o 'lets this user lay no files over' said
ls -d over/* started 2>/dev/null
pds run --files -- sh -c 'exit 7' 2>/dev/null || echo $?
ls r/files
"#;
    let prints = without_namespaces("/dev/shm", script);
    let (folder, rest) = prints.split_once("/r/files\n").unwrap();
    assert!(folder.starts_with("value 700\n 700\n 400\n/dev/shm/"), "{folder}");
    assert_eq!(rest, "1\n125\nlets this user lay no files over\n7\n");
}

#[test]
fn a_folder_whose_program_was_killed_with_its_monitor_is_removed_by_the_next_and_no_other_is() {
    let script = r#"
begin() {
    pds run --files -- sh -c "echo \$\$ >new; mv new $1; exec sleep 1000" 2>/dev/null &
    until [ -s $1 ]; do :; done
}
begin killed
begin lives
ls r/files/*/a/b | wc -l
read _ _ _ monitor _ </proc/$(cat killed)/stat
kill -9 $monitor $(cat killed)
while [ -e /proc/$(cat killed) ]; do :; done
ls r/files/*/a/b | wc -l
pds run --files -- true 2>/dev/null
ls r/files/*/a/b | wc -l
kill $(cat lives)
wait
ls r/files | wc -l
"#;
    assert_eq!(without_namespaces("/dev/shm", script), "2\n2\n1\n0\n");
}

#[test]
fn they_are_never_on_a_disk() {
    let script = "pds run --files -- touch started 2>said || echo $?; grep -o 'is on a disk' said; ls -R r/files; ls -d started 2>/dev/null || true";
    assert_eq!(without_namespaces("/var/tmp", script), "125\nis on a disk\nr/files:\n");
}

#[test]
fn only_the_child_sees_them_and_they_outlive_all_but_it() {
    let value = format!("canary-{}", hex::encode(SecureBytes::random(16).unwrap().expose()));
    let system = System::boot(Spec::ready().secret("a", &value).log("trace"));
    let (running, child) = start(&system);
    let canary = Canary::new(value.as_bytes());
    let within = PathBuf::from(format!("/proc/{}/root{}", child.pid(), folder(&system).join("a").display()));
    let is_there = || std::fs::read(&within).is_ok_and(|bytes| bytes == value.as_bytes());
    let nobody_else_has_it = || {
        assert!(!folder(&system).join("a").exists(), "it is in our view as well");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(folder(&system).to_str().unwrap()), "it is mounted in our view as well");
        assert_eq!(canary.in_files(system.folder()), []);
        assert_eq!(canary.in_processes(&BTreeSet::new()), []);
    };
    assert!(is_there(), "the child has no file, so this shows nothing");
    nobody_else_has_it();
    // Everything of ours: pds, the monitor, the launcher.
    let monitor = Pinned::open(parent(child.pid()).unwrap()).unwrap();
    running.process().signal(Signal::KILL);
    monitor.signal(Signal::KILL);
    let old = system.kill(LAUNCHER);
    system.wait_until_back(LAUNCHER, old);
    assert!(is_there(), "the child has lost its file");
    nobody_else_has_it();
    child.signal(Signal::KILL);
    assert!(child.wait_end(deadline()));
    drop(running.wait().any());
    assert!(!within.exists());
    nobody_else_has_it();
}

#[test]
fn a_changed_secret_reaches_the_next_start() {
    let system = System::boot(Spec::ready().secret("a", "old"));
    let run = ["run", "--files", "--", "sh", "-c", "cat $PDS_SECRETS_DIR/a"];
    system.pds(run).run().done().prints("old");
    system.pds(["set", "a"]).stdin("new").run().done();
    system.pds(run).run().done().prints("new");
}

#[test]
fn what_cannot_be_files_is_refused_before_anything_runs() {
    let system = System::boot(Spec::ready().secret("a", "1").secret("a/b", "2").secret("ok", "3"));
    let proof = system.folder().join("it-ran");
    let run = |options: &[&str]| {
        let output =
            system.pds([&["run"], options, &["--", "touch", proof.to_str().unwrap()]].concat()).run();
        assert!(!proof.exists());
        output
    };
    run(&["--files"]).exits(125).says("'a'").says("'a/b'");
    run(&["--files", "--only", "missing"]).exits(125).says("missing");
    run(&["--files", "/nonexistent/folder", "--only", "ok"]).exits(125).says("--files");
    let _ended = run(&["--files", "--env", "X=ok"]).exits(2);
    let _ended = run(&["--files", "--here"]).exits(2);
    let _ended = run(&["--owner", "1:1"]).exits(2);
    run(&["--files", "--owner", "root"]).exits(2).says("UID:GID");
}

#[test]
fn root_gives_the_files_to_another_owner() {
    let system = System::boot(Spec::ready().secret("a/b", "1"));
    let run = [
        "run",
        "--files",
        "--owner",
        "65534:65533",
        "--",
        "sh",
        "-c",
        "cd $PDS_SECRETS_DIR; stat -c '%u:%g' . a a/b",
    ];
    system.pds(run).run().done().prints("65534:65533\n65534:65533\n65534:65533\n");
}

#[test]
fn the_log_tells_of_the_files() {
    let system = System::boot(Spec::ready().secret("a", "1").secret("b/c", "2"));
    system.pds(["run", "--files", "--", "true"]).run().done();
    let run = wait_for("it is in the log", || {
        system.audit(100).into_iter().find(|entry| entry["operation"] == "run")
    });
    assert_eq!(run["child"]["secrets"], serde_json::json!(["a", "b/c"]));
}
