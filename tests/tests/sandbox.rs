//! What the daemons took away from themselves is out of their reach: a debugger has them try it.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use tests::system::wait_for;
use tests::{Spec, System};

const DAEMONS: [&str; 4] = [BUS, SECRETS, PROFILE, LAUNCHER];

/// A field of `/proc/PID/status`.
fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// What gdb shows of a process that it has make a system call, by the C library's syscall(2).
fn have_do(pid: u32, call: i64, arguments: &str) -> String {
    let gdb = Command::new("gdb")
        // A process that ends under it, with several threads, is more than it can take.
        .args(["--nx", "--batch", "-iex", "maint set internal-error corefile no"])
        .args(["-iex", "maint set internal-error quit yes", "-p", &pid.to_string()])
        .args(["-ex", "set language c", "-ex"])
        .arg(format!("print ((long(*)())syscall)({call}, {arguments})"))
        .env("DEBUGINFOD_URLS", "")
        .output()
        .expect("gdb");
    let shown = [gdb.stdout, gdb.stderr].concat();
    String::from_utf8_lossy(&shown).into_owned()
}

/// Whether a process can open a file.
fn opens(pid: u32, path: &Path) -> bool {
    let shown = have_do(pid, libc::SYS_openat, &format!("-100, \"{}\", 0", path.display()));
    let descriptor = shown.lines().find_map(|line| line.strip_prefix("$1 = ")?.trim().parse().ok());
    let descriptor: i64 = descriptor.unwrap_or_else(|| panic!("gdb says:\n{shown}"));
    descriptor >= 0
}

fn process_named(system: &System, name: &str) -> u32 {
    let named = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    system.processes().into_iter().find(named).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn every_daemon_is_in_its_sandbox_and_no_child_is() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    let own = |name| field(std::process::id(), name);
    for name in DAEMONS {
        let pid = system.pid_of(name);
        assert_eq!((field(pid, "NoNewPrivs"), field(pid, "Seccomp")), ("1".into(), "2".into()), "{name}");
    }
    for name in ["pds-spawner", "pds-witness"] {
        let pid = process_named(&system, name);
        assert_eq!(
            (field(pid, "NoNewPrivs"), field(pid, "Seccomp")),
            (own("NoNewPrivs"), own("Seccomp")),
            "{name}"
        );
    }
    let shown =
        system.pds(["run", "--", "grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status"]).run().done();
    shown.prints(format!("NoNewPrivs:\t{}\nSeccomp:\t{}\n", own("NoNewPrivs"), own("Seccomp")));
    let status = system.pds(["status", "--json"]).run().done().json();
    for daemon in status["daemons"].as_array().unwrap() {
        assert_eq!(daemon["sandbox_gaps"], serde_json::json!([]), "{daemon}");
    }
}

#[test]
fn a_file_outside_of_its_places_is_out_of_a_daemons_reach() {
    let system = System::boot(Spec::ready());
    let elsewhere = system.folder().join("home").join("letter");
    std::fs::write(&elsewhere, "dear").unwrap();
    let vault = system.paths().data().join("vaults/default/header.json");
    // Which files are there for whom: a vault for daemon-secrets alone.
    for (name, reads_vaults) in [(SECRETS, true), (PROFILE, false), (LAUNCHER, false)] {
        let pid = system.pid_of(name);
        for (path, expected) in [
            (elsewhere.as_path(), false),
            (Path::new("/etc/passwd"), false),
            (Path::new("/proc/self/status"), true),
            (&vault, reads_vaults),
        ] {
            assert_eq!(opens(pid, path), expected, "{name} {}", path.display());
        }
    }
}

#[test]
fn a_system_call_that_no_daemon_needs_ends_it() {
    let system = System::boot(Spec::ready());
    // Another program, another process, the network, memory that can be executed, and one that is in no list.
    let calls = [
        (libc::SYS_execve, "\"/bin/true\", 0, 0"),
        (libc::SYS_clone, "17, 0, 0, 0, 0"),
        (libc::SYS_socket, "2, 1, 0"),
        (libc::SYS_mmap, "0, 4096, 7, 0x22, -1, 0"),
        (libc::SYS_getpriority, "0, 0"),
    ];
    for (place, (call, arguments)) in calls.into_iter().enumerate() {
        let name = DAEMONS[place % DAEMONS.len()];
        let process = system.process(name).unwrap();
        have_do(process.pid(), call, arguments);
        assert!(process.wait_end(tests::deadline()), "{name} lives after system call {call}");
        wait_for("the daemon is started again", || system.process(name));
    }
    wait_for("the supervisor tells why they ended", || {
        let log = String::from_utf8_lossy(&system.log()).into_owned();
        (log.matches("(SIGSYS)").count() == calls.len()).then_some(())
    });
}

/// Strace makes the kernel one that has less.
#[test]
fn what_the_kernel_has_not_is_told_and_the_rest_is_kept() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (call, told, without) in
        [("landlock_create_ruleset", "no Landlock", &[BUS][..]), ("seccomp", "system calls:", &[])]
    {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error=ENOSYS"));
        let refuse = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let system = System::boot(Spec::ready().under(&refuse));
        let status = system.pds(["status", "--json"]).run().done().json();
        let daemons = status["daemons"].as_array().unwrap();
        for name in DAEMONS {
            let daemon = daemons.iter().find(|daemon| daemon["name"] == name).unwrap();
            let gaps = daemon["sandbox_gaps"].as_array().unwrap();
            let named = gaps.iter().filter(|gap| gap.as_str().unwrap().contains(told)).count();
            let expected = if without.contains(&name) { 0 } else { 1 };
            assert_eq!((gaps.len(), named), (expected, expected), "{name} without {call}: {gaps:?}");
            assert_eq!(field(system.pid_of(name), "NoNewPrivs"), "1", "{name} without {call}");
        }
        let log = String::from_utf8_lossy(&system.log()).into_owned();
        assert!(log.contains("the sandbox has a gap") && log.contains(told), "{log}");
        for command in ["status", "doctor"] {
            let shown = system.pds([command]).run().any().text();
            assert!(shown.contains(told), "{command}: {shown}");
        }
    }
}
