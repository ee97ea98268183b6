//! `pds doctor` on machines with one fault each: it names the fault and what mends it, and nothing else.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::Value;
use tests::disk::SmallDisk;
use tests::machine::{For, Machine};
use tests::system::wait_for;
use tests::{Spec, System};

/// The problems that a report has, with what is to be done about each.
fn problems(report: &Value) -> BTreeMap<String, String> {
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().expect("checks");
    assert_eq!(report["ok"], checks.iter().all(|check| check["state"] != "problem"), "{report}");
    let found = checks.iter().filter(|check| check["state"] == "problem");
    found
        .map(|check| (text(check, "name"), format!("{} -> {}", text(check, "found"), text(check, "next"))))
        .collect()
}

fn examined(system: &System) -> BTreeMap<String, String> {
    let report = system.pds(["doctor", "--json"]).run();
    let report = report.any();
    let found = problems(&report.json());
    assert_eq!(report.status().code(), Some(i32::from(!found.is_empty())));
    found
}

/// Sees that one check alone has a problem, which says both.
fn only(system: &System, check: &str, what: &str, mend: &str) {
    let found = examined(system);
    assert_eq!(found.keys().collect::<Vec<_>>(), [check], "{found:?}");
    let told = &found[check];
    assert!(told.contains(what) && told.contains(mend), "{told}");
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_headless_machine_with_a_vault_has_no_problem() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    assert!(examined(&system).is_empty(), "{:?}", examined(&system));
    let text = system.pds(["doctor"]).run().done();
    for line in ["daemons: all run", "systemd units: ", "login: ", "clock: ", "kernel: Linux "] {
        text.prints_among(line);
    }
    system.pds(["lock"]).run().done();
    assert!(examined(&system).is_empty());
}

#[test]
fn files_and_folders_that_others_can_use_are_named() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    let paths = system.paths().clone();
    let vault = paths.vault(&"default".parse().unwrap());
    let database = std::fs::read_dir(&vault).unwrap().flatten().next().unwrap().path();
    mode(&database, 0o644);
    only(&system, "files", database.to_str().unwrap(), "chmod");
    mode(&database, 0o600);

    symlink("/etc/passwd", paths.audit().join("more")).unwrap();
    only(&system, "files", "is a link", "find out who");
    std::fs::remove_file(paths.audit().join("more")).unwrap();

    mode(&paths.vaults(), 0o755);
    assert!(examined(&system).contains_key("folder of the vaults"));
    mode(&paths.vaults(), 0o700);
    assert!(examined(&system).is_empty());
}

#[test]
fn a_configuration_that_cannot_be_used_is_named_with_its_line() {
    let system = System::boot(Spec::ready());
    system.write_config("[audit]\nmode = \"loud\"\n");
    only(&system, "configuration", "line 2", "pds config check");
    let failing = "[[test]]\nrequester = \"x\"\noperation = \"get\"\nname = \"a\"\nexpected = \"allow\"\n";
    system.write_config(failing);
    only(&system, "configuration", "1 of its own tests fail", "pds config check");
}

#[test]
fn a_socket_that_is_gone_is_named_and_the_mend_mends_it() {
    let system = System::boot(Spec::ready());
    std::fs::remove_file(system.paths().bus_socket()).unwrap();
    let report = system.pds(["doctor", "--json", "--timeout", "1"]).run().exits(1);
    let found = problems(&report.json());
    assert!(found.contains_key("daemons"), "{found:?}");
    assert!(found["sockets"].contains("bus.sock is not the socket"), "{found:?}");
    assert!(found["sockets"].contains("pds daemon restart"), "{found:?}");
    system.pds(["daemon", "restart"]).run().done();
    assert!(examined(&system).is_empty());
}

#[test]
fn a_clock_that_went_back_is_named() {
    let system = System::boot(Spec::ready());
    let folder = system.paths().anchors();
    system.shell(&format!("touch -d 'next year' {}/*", folder.display())).run().done();
    only(&system, "clock", "and something of ours is of", "set the clock");
}

#[test]
fn a_damaged_vault_and_one_that_was_put_back_are_named() {
    let system = System::boot(Spec::ready().secret("api-key", "value"));
    let vault = system.paths().vault(&"default".parse().unwrap());
    let copy = system.folder().join("copy");
    system.pds(["lock"]).run().done();
    system.shell(&format!("cp -a {} {}", vault.display(), copy.display())).run().done();
    system.pds(["unlock"]).password().run().done();
    system.pds(["set", "api-key"]).stdin("newer").run().done();
    system.pds(["lock"]).run().done();
    system.shell(&format!("rm -r {0} && cp -a {1} {0}", vault.display(), copy.display())).run().done();
    system.pds(["unlock"]).password().run().exits(9);
    only(&system, "vaults", "can only be read", "--accept-rollback");

    system.pds(["lock"]).run().done();
    std::fs::write(vault.join("header.json"), "{}").unwrap();
    only(&system, "vaults", "'default' cannot be used", "pds restore-backup");
}

#[test]
fn a_disk_that_is_full_or_cannot_be_written_is_named() {
    let mut system = System::boot(Spec::new().not_started());
    let data = system.paths().data().to_owned();
    std::fs::create_dir_all(&data).unwrap();
    let Some(disk) = SmallDisk::over(&data, 1) else { return };
    system.start();
    only(&system, "room on the disk", " left", "make room");
    disk.set_read_only(true);
    only(&system, "room on the disk", "can only be read", "make it writable");
}

#[test]
fn on_a_machine_with_systemd_the_units_and_the_login_are_examined() {
    let Some(machine) = Machine::boot() else { return };
    let examined = || problems(&serde_json::from_str(&machine.user("pds doctor --json").text()).unwrap());
    machine.make("install", For::All);
    machine.root("DEBIAN_FRONTEND=noninteractive pam-auth-update --enable pds").ok();
    assert!(examined().is_empty(), "{:?}", examined());
    let shown = machine.user("pds doctor").ok();
    assert!(
        shown.contains("systemd units: installed") && shown.contains("login: a login unlocks"),
        "{shown}"
    );

    let unit = "/usr/local/lib/systemd/user/pds-launcher.service";
    machine
        .root(&format!("cp {unit} /root/whole && echo '# changed' >>{unit} && touch -d '+1 min' {unit}"))
        .ok();
    assert!(examined()["systemd units"].contains("daemon-reload"), "{:?}", examined());

    machine
        .root(&format!("sed 's#^ExecStart=.*#ExecStart=/bin/false#; s#^Restart=.*##' /root/whole >{unit}"))
        .ok();
    machine
        .user("systemctl --user daemon-reload; systemctl --user restart pds-launcher.service || true")
        .ok();
    wait_for("it fails", || {
        (machine.user("systemctl --user is-failed pds-launcher.service").code() == 0).then_some(())
    });
    let found = examined();
    assert!(found["systemd units"].contains("failed: pds-launcher.service"), "{found:?}");
    machine.root(&format!("cp /root/whole {unit}")).ok();
    machine.user("systemctl --user daemon-reload; systemctl --user reset-failed; pds daemon restart").ok();
    assert!(examined().is_empty(), "{:?}", examined());

    machine.user("rm $XDG_RUNTIME_DIR/pds/credentials.sock").ok();
    assert!(examined()["sockets"].contains("credentials.sock"), "{:?}", examined());
    machine.user("pds daemon restart").ok();
    assert!(examined().is_empty(), "{:?}", examined());

    machine.root("chmod 646 /usr/local/lib/pds/pam-hook").ok();
    assert!(examined()["login"].contains("pam-hook"), "{:?}", examined());
    machine.root("rm /usr/local/lib/pds/pam-hook").ok();
    assert!(examined()["login"].contains("cannot be run"), "{:?}", examined());
    machine
        .root("DEBIAN_FRONTEND=noninteractive pam-auth-update --disable pds; chmod 757 /usr/local/bin")
        .ok();
    let found = examined();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["programs"], "{found:?}");
    assert!(found["programs"].contains("can be changed by others"), "{found:?}");
}
