//! What goes wrong under running daemons, on a machine with systemd: units that ask for far too much, a runtime folder that
//! is gone, a D-Bus that ends, a home that cannot be written.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::machine::{For, Machine};
use tests::system::wait_for;

const CONFIG: &str = r#"
[profiles.default.access."unit:many.service"]
get = ["*"]
[profiles.default.access."unit:web.service"]
get = ["api-key"]
"#;

/// A unit that takes credentials, one line for each.
const UNIT: &str = r#"[Service]
Type=oneshot
ExecStart=/bin/sh -c "ls $$CREDENTIALS_DIRECTORY | wc -l >%h/count"
"#;

/// A machine with pds for one user, and an unlocked vault with one secret.
fn installed() -> Option<Machine> {
    let machine = Machine::boot()?;
    machine.make("install", For::One);
    machine.user("(umask 077; echo 'a password for pds' >password); pds init --password-file password && printf value | pds set api-key").ok();
    Some(machine)
}

#[test]
fn a_unit_that_asks_for_a_thousand_credentials_holds_nobody_up() {
    let Some(machine) = installed() else { return };
    machine.user(&format!("mkdir -p .config/pds .config/systemd/user && chmod 700 .config/pds && cat >.config/pds/config.toml <<'END'\n{CONFIG}\nEND")).ok();
    machine.user(&format!("cat >.config/systemd/user/web.service <<'END'\n{UNIT}LoadCredential=api-key:%t/pds/credentials.sock\nEND")).ok();
    // None of them is there: the first that is asked for refuses the unit.
    machine.user(&format!("{{ cat <<'END'\n{UNIT}END\nfor n in $(seq 1000); do echo LoadCredential=k$n:%t/pds/credentials.sock; done; }} >.config/systemd/user/many.service; systemctl --user daemon-reload")).ok();
    assert_ne!(machine.user("timeout 60 systemctl --user start many.service").code(), 0);
    assert_eq!(
        machine.user("systemctl --user show -P ExecMainStatus many.service").ok(),
        "243",
        "by its credentials"
    );
    // Where they are there, it gets all of them, each with its value.
    machine
        .user("python3 -c 'import json; print(json.dumps({f\"k{n}\": f\"value {n}\\n\" for n in range(1, 1001)}))' | (umask 077; cat >all.json); pds import --format json all.json")
        .ok();
    machine.user("cat .config/systemd/user/many.service | sed 's#ls .*#cd $$CREDENTIALS_DIRECTORY; cat $(ls | sort -V) >%h/count\"#' >got.service; mv got.service .config/systemd/user/many.service; systemctl --user daemon-reload").ok();
    machine.user("timeout 60 systemctl --user start many.service").ok();
    let values: String = (1..=1000).map(|n| format!("value {n}\n")).collect();
    assert_eq!(machine.user("cat count").ok(), values.trim_end());
    machine.user("pds lock && rm count && sed -i 's#cat $(ls.*#ls | wc -l >%h/count\"#' .config/systemd/user/many.service && systemctl --user daemon-reload && pds unlock --password-file password && pds rm --yes k7").ok();
    // Nor do many of them, asking again and again.
    let asking = "for n in $(seq 40); do systemctl --user start --no-block many.service; done; systemctl --user start web.service; cat count";
    assert_eq!(machine.user(&format!("timeout 60 sh -c '{asking}'")).ok(), "1");
    assert_eq!(machine.user("pds --no-start get api-key").ok(), "value");
    machine.user("pds audit verify").ok();
}

#[test]
fn what_is_taken_from_under_the_daemons_is_named_and_mended() {
    let Some(machine) = installed() else { return };
    let sockets = "$XDG_RUNTIME_DIR/pds";
    machine.user(&format!("rm -rf {sockets}")).ok();
    let said = machine.user("pds --no-start get api-key");
    assert!(said.code() == 7 && said.errors().contains("pds daemon start"), "{said:?}");
    let said = machine.user("pds --timeout 2 get api-key");
    assert!(said.code() == 7 && said.errors().contains("`pds daemon restart` starts afresh"), "{said:?}");
    machine.user("pds daemon restart && pds unlock --password-file password").ok();
    assert_eq!(machine.user("pds get api-key").ok(), "value");

    // D-Bus of the machine ends: nothing but locking with the session is lost.
    wait_for("logind is listened to", || watched(&machine).then_some(()));
    machine.root("systemctl stop dbus.socket dbus.service").ok();
    wait_for("it is missed", || (!watched(&machine)).then_some(()));
    assert_eq!(machine.user("pds get api-key").ok(), "value");
    machine.user("pds audit verify").ok();
}

#[test]
fn a_home_that_cannot_be_written_is_named_and_nothing_is_lost() {
    let Some(machine) = installed() else { return };
    machine.root("mount --bind /home/alice /home/alice && mount -o remount,bind,ro /home/alice").ok();
    machine.user("pds daemon restart").ok();
    let named = "Read-only file system";
    assert!(machine.user("pds status").ok().contains(named));
    for (line, code, told) in [
        ("pds unlock --password-file password", 1, named),
        ("pds get api-key", 3, "no profile is unlocked"),
        ("pds audit verify", 1, named),
        ("pds audit tail", 1, named),
        ("pds doctor", 1, "can only be read"),
    ] {
        let done = machine.user(&format!("timeout 30 {line}"));
        let said = done.text() + &done.errors();
        assert!(done.code() == code && said.contains(told), "{line}: {} {said}", done.code());
    }
    // Detached, for what the daemons have open is on it.
    machine.root("umount -l /home/alice").ok();
    machine.user("pds daemon restart && pds unlock --password-file password").ok();
    assert_eq!(machine.user("pds get api-key").ok(), "value");
    machine.user("printf new | pds set api-key && pds audit verify").ok();
}

/// Whether suspend, screen locks and logouts are noticed.
fn watched(machine: &Machine) -> bool {
    machine.user("pds status").text().contains("suspend waits until profiles are locked")
}
