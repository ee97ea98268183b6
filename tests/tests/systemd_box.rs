//! pds on a machine with systemd: installed, started, killed, replaced and removed as users do it.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::machine::{For, Machine, USER};
use tests::system::wait_for;

const DAEMONS: [&str; 4] = ["bus", "profile", "secrets", "launcher"];

fn service(daemon: &str) -> String {
    format!("pds-{daemon}.service")
}

/// A machine with pds on it, and an unlocked vault with one secret.
fn installed(whom: For) -> Option<Machine> {
    let machine = Machine::boot()?;
    machine.make("install", whom);
    machine
        .user("(umask 077; echo 'a password for pds' >password); pds -v init --password-file password")
        .ok();
    machine.user("printf value | pds set api-key").ok();
    Some(machine)
}

fn works(machine: &Machine) {
    assert_eq!(machine.user("pds --no-start get api-key").ok(), "value");
    assert_eq!(machine.user("pds --no-start run -- sh -c 'echo $API_KEY'").ok(), "value");
}

/// Ends a service with SIGKILL, and waits until systemd has started it again and all of them serve.
fn kill(machine: &Machine, daemon: &str) {
    let service = service(daemon);
    let old = machine.main_process(&service);
    machine.user(&format!("kill -KILL {old}")).ok();
    wait_for("systemd starts it again", || {
        let new = machine.main_process(&service);
        (new != 0 && new != old).then_some(())
    });
    wait_for_all(machine);
}

/// Waits until all daemons serve.
fn wait_for_all(machine: &Machine) {
    wait_for("all daemons serve", || {
        let active = machine.user("systemctl --user is-active pds-{bus,profile,secrets,launcher}.service");
        (active.code() == 0).then_some(())
    });
}

/// Reads a byte of another process, where it has something mapped; which errors are a refusal says errno(3).
const READ_MEMORY: &str = "import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
class Part(ctypes.Structure): _fields_ = [(\"base\", ctypes.c_void_p), (\"length\", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(1)
here = Part(ctypes.cast(buffer, ctypes.c_void_p), 1)
there = Part(0x1000, 1)
read = libc.process_vm_readv(int(sys.argv[1]), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
# Nothing is mapped there, so whoever is let in gets EFAULT.
sys.exit(0 if read == 1 or ctypes.get_errno() == 14 else 1)";
/// Takes the standard input of another process.
const TAKE_DESCRIPTOR: &str = "import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
process = libc.syscall(434, int(sys.argv[1]), 0)
sys.exit(0 if process >= 0 and libc.syscall(438, process, 0, 0) >= 0 else 1)";

/// In which of the nine ways that the kernel has a user's process can look into another one of his.
fn looks_into(machine: &Machine, pid: u32) -> Vec<&'static str> {
    let ways = [
        ("mem", "exec 3<>/proc/PID/mem"),
        ("environ", "head -c 1 /proc/PID/environ"),
        ("maps", "head -c 1 /proc/PID/maps"),
        ("exe", "readlink /proc/PID/exe"),
        ("cwd", "readlink /proc/PID/cwd"),
        ("fd", "ls /proc/PID/fd"),
        ("ptrace", "timeout 1 strace -p PID -e trace=none -o /dev/null; test $? = 124"),
        ("process_vm_readv", "/usr/bin/python3 -c '{READ_MEMORY}' PID"),
        ("pidfd_getfd", "/usr/bin/python3 -c '{TAKE_DESCRIPTOR}' PID"),
    ];
    let open = |way: &&(&str, &str)| {
        let line = way.1.replace("{READ_MEMORY}", READ_MEMORY).replace("{TAKE_DESCRIPTOR}", TAKE_DESCRIPTOR);
        machine.user(&line.replace("PID", &pid.to_string())).code() == 0
    };
    ways.iter().filter(open).map(|way| way.0).collect()
}

#[test]
fn installed_for_all_the_daemons_run_as_units_that_nobody_looks_into() {
    let Some(machine) = installed(For::All) else { return };
    works(&machine);
    for daemon in DAEMONS {
        let pid = machine.main_process(&service(daemon));
        assert_eq!(looks_into(&machine, pid), Vec::<&str>::new(), "{daemon}");
        let outside = machine.root("readlink /proc/1/ns/user").ok();
        let namespace = machine.root(&format!("readlink /proc/{pid}/ns/user")).ok();
        assert_ne!(namespace, outside, "{daemon} is in a namespace of its own");
    }
    let own = machine.user("sleep 300 </dev/null >/dev/null 2>&1 & echo $!").ok().parse().unwrap();
    // Yama, where it is set so, lets nobody attach to what is not his own child.
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let ways = if yama.is_ok_and(|scope| scope.trim() != "0") { 5 } else { 9 };
    assert_eq!(looks_into(&machine, own).len(), ways, "what could be looked into would be seen");

    let profile = machine.user("pds run -- grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status").ok();
    assert_eq!(profile, machine.user("grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status").ok());
    // Its namespaces do not keep the launcher from the user's systemd.
    let group = machine.user("pds run -- cat /proc/self/cgroup").ok();
    assert!(group.contains("/app.slice/app-pds-cat-"), "{group}");
    // The launcher is more closed in than any of these, and starts nothing for them all the same.
    for confined in [
        "setpriv --no-new-privs",
        "unshare --user --map-current-user",
        "unshare --user --map-root-user --mount",
    ] {
        let run = machine.user(&format!("{confined} pds --no-start run -- touch escaped"));
        assert!(run.code() == 125 && run.errors().contains("confined"), "{confined}: {run:?}");
    }
    assert_eq!(machine.user("test -e escaped").code(), 1);

    machine
        .root("test -s /usr/local/share/man/man1/pds-run.1 && test -s /usr/local/share/man/man5/pds-vault.5")
        .ok();
    machine.make("uninstall", For::All);
    machine.user("systemctl --user stop pds.target 'pds-*'; systemctl --user daemon-reload").ok();
    let left = machine.root("find /usr/local -path '*pds*'").ok();
    assert_eq!(left, "", "nothing is left");
    assert_ne!(machine.user("ls .local/share/pds/vaults/default").ok(), "", "but what is the user's");
}

#[test]
fn what_is_killed_or_stuck_comes_back_and_stays_unlocked_unless_it_held_the_keys() {
    let Some(machine) = installed(For::One) else { return };
    works(&machine);
    for daemon in ["bus", "profile", "launcher"] {
        kill(&machine, daemon);
        works(&machine);
    }
    // A program outlives the launcher that started it.
    machine.user("pds run -- sh -c 'echo $$ >child; exec sleep 300' >/dev/null 2>&1 & until test -s child; do :; done").ok();
    kill(&machine, "launcher");
    machine.user("kill $(cat child)").ok();
    kill(&machine, "secrets");
    assert_eq!(machine.user("pds get api-key").code(), 3, "the keys are gone");
    machine.user("pds unlock --password-file password").ok();
    works(&machine);
    machine.user("pds audit verify").ok();

    // A loop that does not go round any more is not waited for.
    machine.user("mkdir -p .config/systemd/user/pds-profile.service.d && printf '[Service]\nWatchdogSec=500ms\n' >.config/systemd/user/pds-profile.service.d/quick.conf && systemctl --user daemon-reload && systemctl --user restart pds-profile.service").ok();
    let old = machine.main_process("pds-profile.service");
    machine.user(&format!("kill -STOP {old}")).ok();
    wait_for("the watchdog", || {
        (![0, old].contains(&machine.main_process("pds-profile.service"))).then_some(())
    });
    wait_for_all(&machine);
    works(&machine);
}

#[test]
fn the_command_line_has_systemd_start_stop_and_replace_the_daemons() {
    let Some(machine) = installed(For::One) else { return };
    let bus = |machine: &Machine| machine.main_process("pds-bus.service");
    let first = bus(&machine);
    assert_ne!(first, 0);
    assert_eq!(machine.user("pgrep -u alice -f -- --supervise").code(), 1, "there is no supervisor");

    // New programs under running daemons.
    machine.user("for program in .local/lib/pds/*; do cp $program new && mv new $program; done").ok();
    works(&machine);
    machine.user("pds daemon restart").ok();
    assert_ne!(bus(&machine), first);
    machine.user("pds unlock --password-file password").ok();
    works(&machine);
    let deleted = machine.user(&format!("readlink /proc/{}/exe", bus(&machine)));
    assert!(!deleted.text().contains("deleted"));

    machine.user("pds daemon stop").ok();
    assert_eq!(bus(&machine), 0);
    assert_eq!(machine.user("pds --no-start status").code(), 7);
    machine.user("pds status").ok();
    assert_ne!(bus(&machine), 0, "any command starts them");

    machine.make("uninstall", For::One);
    assert_eq!(
        machine
            .user("find .local/bin .local/lib .local/share/systemd -name '*pds*' -o -name 'daemon-*'")
            .ok(),
        ""
    );
    assert_eq!(
        machine.user("systemctl --user list-units --no-legend --plain --state=active 'pds*'").ok(),
        ""
    );
}

#[test]
fn a_name_is_for_what_systemd_started_and_another_unit_can_wait_for_a_profile() {
    let Some(machine) = installed(For::One) else { return };
    // The true program, with its key published, in the control group of the unit: all but the socket.
    let takes = "systemctl --user stop pds-secrets.service pds-secrets.socket
        group=/sys/fs/cgroup$(systemctl --user show -P ControlGroup pds-profile.service)
        sh -c \"echo \\$\\$ >$group/cgroup.procs; exec .local/lib/pds/daemon-secrets\" >taken 2>&1 </dev/null &
        echo $! >taker; for n in $(seq 200); do grep -q 'register' taken && break; sleep 0.05; done; grep -c 'does not register this' taken; grep -c '' $group/cgroup.procs";
    // As systemd runs what belongs to the user, so that it may change to another group.
    let taken = machine.user(&format!("cat >take <<'END'\n{takes}\nEND\nsystemd-run --user --quiet --pipe --wait -p KillMode=process --working-directory=$HOME bash take")).ok();
    assert_eq!(taken.lines().last(), Some("2"), "it was in the group");
    assert_ne!(taken.lines().next(), Some("0"), "it is refused");
    let peers = machine.user("pds --no-start status --json").text();
    assert!(
        peers.contains("daemon-profile") && !peers.contains("\"name\":\"daemon-secrets\",\"running\":true"),
        "{peers}"
    );
    machine.user("kill $(cat taker)").ok();
    wait_for("the daemon ends", || (machine.user("kill -0 $(cat taker)").code() != 0).then_some(()));
    machine.user("systemctl --user start pds.target").ok();

    // Locked now.
    machine.user("mkdir -p .config/systemd/user && printf '[Unit]\nBindsTo=pds-unlocked@default.target\nAfter=pds-unlocked@default.target\n[Service]\nExecStart=/bin/sh -c \"touch started; exec sleep 300\"\nWorkingDirectory=%%h\n' >.config/systemd/user/waits.service && systemctl --user daemon-reload && systemctl --user start --no-block waits.service").ok();
    wait_for("it is waited", || {
        (machine.user("systemctl --user is-active pds-unlocked@default.service").text() == "activating")
            .then_some(())
    });
    assert_eq!(machine.user("test -e started").code(), 1);
    machine.user("pds unlock --password-file password").ok();
    wait_for("the unit starts", || (machine.user("test -e started").code() == 0).then_some(()));
    machine.user("pds lock").ok();
    wait_for("the unit ends", || {
        (machine.user("systemctl --user is-active waits.service").text() == "inactive").then_some(())
    });
    assert_eq!(machine.user("id -un").ok(), USER);
}
