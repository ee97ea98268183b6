//! Suspend, screen locks and two users at once, on a machine with systemd and the real logind.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::machine::{Done, For, LOGIN_PASSWORD, Machine, USER};
use tests::system::wait_for;

/// The other user of the machine.
const OTHER: &str = "bob";

/// What the machine does in the place of sleeping: it sees who could get at a secret now. It has no state of the kernel's
/// to sleep in, so it is given one.
const SLEEP: &str = "mkdir -p /run/systemd/system/systemd-suspend.service.d
    printf '[Service]\\nExecStart=\\nExecStart=/usr/local/bin/asleep\\n' >/run/systemd/system/systemd-suspend.service.d/x.conf
    printf '#!/bin/sh\\nas-user pds --no-start get api-key; echo $? >/run/asleep\\n' >/usr/local/bin/asleep
    chmod 755 /usr/local/bin/asleep; systemctl daemon-reload
    mount -t tmpfs tmpfs /sys/power; echo 'freeze mem' >/sys/power/state; echo '[s2idle] deep' >/sys/power/mem_sleep";

/// Runs a line as the other user, with the environment of a login.
fn other(machine: &Machine, line: &str) -> Done {
    let line = line.replace('\'', "'\\''");
    machine.root(&format!(
        "cd /home/{OTHER} && setpriv --reuid {OTHER} --regid {OTHER} --init-groups --inh-caps=-all env -i \
         HOME=/home/{OTHER} LC_ALL=C.UTF-8 XDG_RUNTIME_DIR=/run/user/$(id -u {OTHER}) PATH=/usr/local/bin:/usr/bin:/bin \
         sh -c '{line}'"
    ))
}

const INIT: &str = "(umask 077; echo \"a password for pds\" >password); pds init --password-file password && printf value | pds set api-key";
const GET: &str = "pds --no-start get api-key";

/// Waits until the user's profile is locked, for this cause.
fn is_locked(machine: &Machine, cause: &str) {
    wait_for("it locks", || (machine.user(GET).code() == 3).then_some(()));
    let told = machine.user("pds audit show --json | grep '\"operation\":\"lock\"' | tail -n 1").ok();
    assert!(told.contains(&format!("\"cause\":\"{cause}\"")), "{told}");
}

#[test]
fn the_machine_sleeps_when_profiles_are_locked_and_a_locked_screen_is_of_one_user() {
    let Some(machine) = Machine::boot() else { return };
    machine.root(&format!("useradd -m -s /bin/bash {OTHER} && loginctl enable-linger {OTHER}")).ok();
    machine.root(SLEEP).ok();
    machine.make("install", For::All);
    wait_for("the other user's systemd", || {
        (other(&machine, "systemctl --user is-active basic.target").code() == 0).then_some(())
    });
    other(&machine, "systemctl --user daemon-reload").ok();
    machine.user(INIT).ok();
    other(&machine, &INIT.replace("value", "another")).ok();
    assert_eq!(machine.user(GET).ok(), "value");
    assert_eq!(other(&machine, GET).ok(), "another");
    let socket = "/run/user/$(id -u alice)/pds/bus.sock";
    assert_ne!(other(&machine, &format!("test -e {socket}")).code(), 0, "nobody is at the other's bus");
    wait_for("logind is listened to", || {
        machine.user("pds status").text().contains("suspend waits until profiles are locked").then_some(())
    });

    // A session that is locked, as a desktop asks logind to.
    machine
        .root(
            "echo XDG_SESSION_CLASS=user >/etc/session-class
            sed -i '1i session required pam_env.so envfile=/etc/session-class' /etc/pam.d/su-l",
        )
        .ok();
    let login = |line: &str| {
        let user = format!("setpriv --reuid 65534 --regid 65534 --clear-groups su -l {USER} -c '{line}'");
        machine.root(&format!("printf '%s\\n' \"{LOGIN_PASSWORD}\" | {user}"))
    };
    login("loginctl lock-session $XDG_SESSION_ID; while pds --no-start get api-key; do sleep 0.05; done")
        .ok();
    is_locked(&machine, "screen");
    assert_eq!(other(&machine, GET).ok(), "another", "it is not his screen");
    wait_for("the session ends", || machine.root("loginctl --no-legend").text().is_empty().then_some(()));
    login("pds unlock --password-file password && pds --no-start get api-key").ok();
    is_locked(&machine, "logout");

    machine.user("pds unlock --password-file password").ok();
    machine.root("systemctl suspend").ok();
    wait_for("it sleeps", || (machine.root("test -s /run/asleep").code() == 0).then_some(()));
    assert_eq!(machine.root("cat /run/asleep").ok(), "3", "locked, before");
    is_locked(&machine, "suspend");
    machine.user("pds audit verify").ok();
}
