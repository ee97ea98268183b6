//! Where systemd keeps what `pds run` starts: each program in a scope of its own, and where there is none to be had, or none
//! is wanted, in the spawner's unit.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tests::machine::{Machine, USER};
use tests::system::wait_for;

/// The control group of a program that is started by this line, `pds run` in it.
fn group(machine: &Machine, line: &str) -> String {
    machine.user(&line.replace("pds run", "pds run -- cat /proc/self/cgroup")).ok()
}

/// The scopes of programs that there are.
fn scopes(machine: &Machine) -> Vec<String> {
    let listed = machine.user("systemctl --user list-units --plain --no-legend 'app-pds-*.scope'").ok();
    listed.lines().filter_map(|line| line.split_whitespace().next().map(ToOwned::to_owned)).collect()
}

fn is_scope_of_cat(group: &str, slice: &str) -> bool {
    let unit = group.rsplit_once(&format!("/{slice}/")).map(|(_, unit)| unit);
    unit.is_some_and(|unit| unit.starts_with("app-pds-cat-") && unit.ends_with(".scope"))
}

#[test]
fn each_program_has_a_scope_in_the_slice_of_its_caller() {
    let Some(machine) = Machine::with_a_secret() else { return };
    let own = group(&machine, "pds run");
    assert!(is_scope_of_cat(&own, "app.slice"), "{own}");
    let build = "systemd-run --user --quiet --pipe --wait --slice=build.slice -E PATH=$PATH pds run";
    let own = group(&machine, build);
    assert!(is_scope_of_cat(&own, "build.slice"), "{own}");

    // With all that it starts, and without the monitor, which is to tell how it ends.
    let started = "sh -c 'sleep 300 & echo $$ >child; wait; exit 7'";
    let pds = format!(
        "{{ pds run -- {started}; echo $? >ended; }} >/dev/null 2>&1 & until test -s child; do :; done"
    );
    machine.user(&pds).ok();
    let all = scopes(&machine);
    let [scope] = &all[..] else { panic!("{all:?}") };
    assert!(scope.starts_with("app-pds-sh-"), "{scope}");
    let members = "$(systemctl --user show -P ControlGroup SCOPE | sed s,^,/sys/fs/cgroup,)/cgroup.procs";
    let members =
        machine.user(&format!("ps -o comm= -p $(paste -sd, {})", members.replace("SCOPE", scope))).ok();
    assert_eq!(members.lines().collect::<Vec<_>>(), ["sh", "sleep"]);
    let description = machine.user(&format!("systemctl --user show -P Description {scope}")).ok();
    assert_eq!(description, "sh with secrets, by pds");

    // The spawner's unit and the launcher's can go, and come again.
    machine.user("systemctl --user restart pds-spawner.service pds-launcher.service").ok();
    assert_eq!(scopes(&machine), all);
    machine.user(&format!("systemctl --user stop {scope}")).ok();
    wait_for("the end of the program is told", || (machine.user("test -s ended").code() == 0).then_some(()));
    assert_eq!(machine.user("cat ended").text(), "143", "SIGTERM, as systemd sends it");
    wait_for("no scope stays", || scopes(&machine).is_empty().then_some(()));
}

#[test]
fn without_a_scope_a_program_runs_in_the_spawners_unit() {
    let Some(machine) = Machine::with_a_secret() else { return };
    let spawners = |group: &str| group.ends_with("/pds-spawner.service");

    // A systemd that does not answer holds a program up for a moment.
    let systemd = machine.root(&format!("pgrep -u {USER} -x systemd")).ok();
    machine.root(&format!("kill -STOP {systemd}")).ok();
    let own = group(&machine, "timeout 20 pds run");
    machine.root(&format!("kill -CONT {systemd}")).ok();
    assert!(spawners(&own), "{own}");
    let told = || machine.user("journalctl --user -o cat -u pds-launcher.service").text();
    wait_for("it is told", || told().contains("no scope").then_some(()));
    wait_for("scopes come again", || is_scope_of_cat(&group(&machine, "pds run"), "app.slice").then_some(()));

    // Nor does a program need the bus on which systemd is asked; one that was exchanged for another is found.
    machine.user("systemctl --user stop dbus.socket dbus.service").ok();
    let own = group(&machine, "pds run");
    assert!(spawners(&own), "{own}");
    machine.user("systemctl --user start dbus.socket").ok();
    wait_for("scopes come again", || is_scope_of_cat(&group(&machine, "pds run"), "app.slice").then_some(()));
    machine.user("systemctl --user restart dbus.service").ok();
    let own = group(&machine, "pds run");
    assert!(is_scope_of_cat(&own, "app.slice"), "{own}");

    machine.user("mkdir -p .config/pds; printf '[run]\\nscope = false\\n' >.config/pds/config.toml").ok();
    machine.user("pds daemon restart && pds unlock --password-file password").ok();
    let own = group(&machine, "pds run");
    assert!(spawners(&own), "{own}");
}
