//! Secrets as credentials of systemd units, on a machine with systemd.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::machine::{For, Machine, USER};

const CONFIG: &str = r#"
[profiles.default.access."unit:web.service"]
get = ["api-key", "db/*"]
[profiles.default.access."unit:system.service"]
get = ["api-key"]
"#;

/// Whoever connects from an address of such a name gets `given` at the end of its output.
const FORGER: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind("\0" + sys.argv[1])
s.connect(sys.argv[2])
got = b""
while piece := s.recv(65536):
    got += piece
print(len(got), got.count(0) == len(got))
"#;

fn machine() -> Option<Machine> {
    let machine = Machine::boot()?;
    // So that the launcher is in namespaces, where root looks like somebody else.
    machine.make("install", For::All);
    machine.user(&format!("mkdir -p .config/pds .config/systemd/user && chmod 700 .config/pds && cat >.config/pds/config.toml <<'END'\n{CONFIG}\nEND")).ok();
    machine.user("(umask 077; echo 'a password for pds' >password); pds init --password-file password").ok();
    machine
        .user("printf value | pds set api-key; printf root | pds set db/root; printf other | pds set other")
        .ok();
    Some(machine)
}

/// Has the user's systemd run a service with a credential, which it copies to the file `got`.
fn start(machine: &Machine, unit: &str, credential: &str) -> i32 {
    machine
        .user(&format!(
            "rm -f got; cat >.config/systemd/user/{unit} <<'END'
[Service]
Type=oneshot
LoadCredential={credential}:%t/pds/credentials.sock
ExecStart=/bin/sh -c 'cat $$CREDENTIALS_DIRECTORY/* >%h/got'
END
systemctl --user daemon-reload && systemctl --user start {unit}"
        ))
        .code()
}

fn got(machine: &Machine) -> String {
    machine.user("cat got").text()
}

#[test]
fn a_unit_with_a_rule_gets_its_secret_and_any_other_does_not_start() {
    let Some(machine) = machine() else { return };
    assert_eq!(start(&machine, "web.service", "api-key"), 0);
    assert_eq!(got(&machine), "value");
    assert_eq!(start(&machine, "web.service", "default@db+root"), 0);
    assert_eq!(got(&machine), "root", "by its profile, and with + for /");
    let log = machine.user("pds audit tail -n 1 --json").ok();
    assert!(log.contains(r#""name":"unit:web.service""#) && log.contains(r#""subject":"db/root""#), "{log}");

    for (unit, credential) in [
        ("other.service", "api-key"),
        ("web.service", "other"),
        ("web.service", "db+none"),
        ("web.service", "a,b"),
    ] {
        assert_ne!(start(&machine, unit, credential), 0, "{unit} {credential}");
        assert_eq!(got(&machine), "", "it has not run");
        let status = machine.user(&format!("systemctl --user show -P ExecMainStatus {unit}")).text();
        assert_eq!(status, "243", "by its credentials");
    }
    let journal = machine.root("journalctl --no-pager").ok();
    assert!(journal.contains("a unit gets no credential, and so does not start"), "{journal}");
    assert!(!journal.contains("root\n"));

    machine.user("pds lock").ok();
    assert_ne!(start(&machine, "web.service", "api-key"), 0, "locked");
    machine.user("pds unlock --password-file password").ok();
    assert_eq!(start(&machine, "web.service", "api-key"), 0);

    // A unit of the machine's own systemd.
    let line = |unit: &str| {
        format!(
            "systemd-run --quiet --wait --pipe --unit={unit} -p LoadCredential=api-key:/run/user/$(id -u {USER})/pds/credentials.sock \
             sh -c 'cat $CREDENTIALS_DIRECTORY/api-key'"
        )
    };
    assert_eq!(machine.root(&line("system.service")).ok(), "value");
    assert_ne!(machine.root(&line("stranger.service")).code(), 0);
}

#[test]
fn a_forged_address_gets_nothing_and_the_silent_are_in_nobodys_way() {
    let Some(machine) = machine() else { return };
    machine.user(&format!("cat >forge.py <<'END'\n{FORGER}\nEND")).ok();
    let socket = format!("/run/user/{}/pds/credentials.sock", machine.user("id -u").ok());
    let refused = |done: &str| {
        let (bytes, zeros) = done.split_once(' ').unwrap();
        bytes.parse::<u32>().unwrap() > 1 << 20 && zeros == "True"
    };
    let forge = format!("/usr/bin/python3 forge.py x/unit/web.service/api-key {socket}");
    let outside = machine.user(&forge).ok();
    assert!(refused(&outside), "{outside}");
    let other = machine
        .user(&format!("systemd-run --user --quiet --wait --pipe --working-directory=$HOME {forge}"))
        .ok();
    assert!(refused(&other), "another unit: {other}");
    // In the group of the unit, and not from systemd.
    machine.user("printf '[Service]\nExecStart=/bin/sleep 300\n' >.config/systemd/user/web.service; systemctl --user daemon-reload; systemctl --user start web.service").ok();
    let inside = format!(
        "cat >inside <<'END'
group=/sys/fs/cgroup$(systemctl --user show -P ControlGroup web.service)
sh -c \"echo \\$\\$ >$group/cgroup.procs; {forge}; true\"
END
systemd-run --user --quiet --wait --pipe --working-directory=$HOME bash -c 'bash inside; true'"
    );
    let inside = machine.user(&inside).ok();
    assert!(refused(&inside), "{inside}");
    let nameless = machine.user(&format!("/usr/bin/python3 forge.py nonsense {socket}")).ok();
    assert!(refused(&nameless), "{nameless}");

    let silent = format!(
        "import socket, sys\nall = []\nfor n in range(600):\n    s = socket.socket(socket.AF_UNIX)\n    s.connect('{socket}')\n    all.append(s)\nprint('open', flush=True)\nsys.stdin.read()"
    );
    machine.user(&format!("cat >silent.py <<'END'\n{silent}\nEND\nmkfifo hold; /usr/bin/python3 silent.py <hold >silent 2>&1 & exec 3>hold; until grep -q open silent; do :; done; sleep 300 <&3 >/dev/null 2>&1 & echo $! >holder")).ok();
    machine.user("systemctl --user stop web.service").ok();
    assert_eq!(start(&machine, "web.service", "api-key"), 0, "in spite of them");
    assert_eq!(got(&machine), "value");
}
