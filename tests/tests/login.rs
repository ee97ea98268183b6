//! Logging in and out, on a machine with systemd, logind and PAM.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use tests::machine::{Done, For, LOGIN_PASSWORD, Machine, USER};
use tests::system::wait_for;

/// A machine whose logins unlock, with a locked vault of this password.
fn machine(password: &str) -> Option<Machine> {
    let machine = Machine::boot()?;
    machine.make("install", For::All);
    machine.root("DEBIAN_FRONTEND=noninteractive pam-auth-update --enable pds").ok();
    // Without a terminal, logind would take these logins for work in the background.
    machine
        .root(
            "echo XDG_SESSION_CLASS=user >/etc/session-class
            sed -i '1i session required pam_env.so envfile=/etc/session-class' /etc/pam.d/su-l",
        )
        .ok();
    machine
        .user(&format!("(umask 077; echo \"{password}\" >password); pds init --password-file password"))
        .ok();
    machine.user("printf value | pds set api-key; pds lock").ok();
    Some(machine)
}

/// Logs in as the user with this password, from an account that needs one, and runs a line there.
fn login(machine: &Machine, password: &str, line: &str) -> Done {
    let line = line.replace('\'', "'\\''");
    machine.root(&format!(
        "printf '%s\\n' \"{password}\" | setpriv --reuid 65534 --regid 65534 --clear-groups su -l {USER} -c '{line}'"
    ))
}

#[test]
fn a_login_unlocks_and_the_last_logout_locks() {
    let Some(machine) = machine(LOGIN_PASSWORD) else { return };
    let done =
        login(&machine, LOGIN_PASSWORD, "pds --timeout 60 wait && pds run -- sh -c 'echo got $API_KEY'");
    assert!(done.ok().ends_with("got value"), "{done:?}");
    wait_for("it locks", || (machine.user("pds --no-start get api-key").code() == 3).then_some(()));
    // While another session is open, it stays unlocked.
    machine.root(&format!("printf '%s\\n' \"{LOGIN_PASSWORD}\" | setpriv --reuid 65534 --regid 65534 --clear-groups su -l {USER} -c 'touch first; while test -e first; do sleep 0.1; done' >/dev/null 2>&1 &")).ok();
    wait_for("the first session", || {
        (machine.user("test -e first && pds --no-start get api-key").code() == 0).then_some(())
    });
    login(&machine, LOGIN_PASSWORD, "true").ok();
    assert_eq!(machine.user("pds --no-start get api-key").ok(), "value");
    machine.user("rm first").ok();
    wait_for("it locks", || (machine.user("pds --no-start get api-key").code() == 3).then_some(()));
    let journal = machine.root("journalctl --no-pager; cat /var/log/auth.log 2>/dev/null").text();
    assert!(!journal.contains(LOGIN_PASSWORD));
    machine.user("pds audit verify").ok();
}

#[test]
fn another_password_leaves_the_vault_locked_and_no_login_waits() {
    let Some(machine) = machine("quite another password") else { return };
    let began = Instant::now();
    login(&machine, LOGIN_PASSWORD, "true").ok();
    let with = began.elapsed();
    wait_for("a notice", || {
        machine.root("journalctl --no-pager -t pds").text().contains("is not that of the vault").then_some(())
    });
    assert_eq!(machine.user("pds --no-start get api-key").code(), 3);
    machine.user("pds unlock --password-file password; pds lock").ok();

    // A wrong login is refused, and nothing is tried with it.
    let tried = |machine: &Machine| {
        machine.user("pds audit show --json | grep -o '\"operation\":\"unlock\"' | wc -l").ok()
    };
    let before = tried(&machine);
    assert_ne!(login(&machine, "wrong", "true").code(), 0);
    assert_eq!(tried(&machine), before);

    // Whatever becomes of pds, people can log in.
    machine.root("chmod 000 /usr/local/bin/pds").ok();
    login(&machine, LOGIN_PASSWORD, "true").ok();
    machine
        .root("chmod 755 /usr/local/bin/pds; printf '#!/bin/sh\\nexec sleep 300\\n' >/usr/local/bin/pds")
        .ok();
    let began = Instant::now();
    login(&machine, LOGIN_PASSWORD, "true").ok();
    assert!(began.elapsed() < with + std::time::Duration::from_secs(12), "the login waits for pds");
    machine.make("uninstall", For::All);
    assert_eq!(
        machine
            .root(
                "grep -l pam-hook /etc/pam.d/*; ls /usr/share/pam-configs/pds /usr/local/lib/pds 2>/dev/null"
            )
            .text(),
        ""
    );
    login(&machine, LOGIN_PASSWORD, "true").ok();
}
