//! Backups and vaults from them, against real daemons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests and what they share

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::canary::Canary;
use tests::{PASSWORD, Spec, System};

fn get(system: &System, name: &str) -> Vec<u8> {
    system.pds(["get", name]).run().done().stdout.clone()
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_restores_on_a_fresh_system_and_over_an_existing_vault() {
    let value = "canary-value-7731-93ab".repeat(20);
    let mut spec = Spec::ready();
    for number in 0..40 {
        spec = spec.secret(&format!("s/{number}"), format!("{value}{number}"));
    }
    let system = System::boot(spec);
    let file = system.folder().join("work.backup");
    let made = system.pds(["backup", "--json", "work.backup"]).run().done().json();
    assert_eq!(made["bytes"].as_u64().unwrap(), file.metadata().unwrap().len());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Canary::new(b"canary-value-7731-93ab").found_in(&std::fs::read(&file).unwrap()), None);
    assert_eq!(Canary::new(PASSWORD.as_bytes()).found_in(&std::fs::read(&file).unwrap()), None);
    system.pds(["backup", "work.backup"]).run().exits(10).says("--force");
    system.pds(["backup", "--force", "work.backup"]).run().done();

    let other = System::boot(Spec::new());
    let path = file.to_str().unwrap();
    other.pds(["restore-backup", path]).password().run().done().says("unlocked");
    assert_eq!(get(&other, "s/7"), format!("{value}7").into_bytes());
    other.pds(["lock"]).run().done();
    other.pds(["unlock"]).password().run().done();
    assert_eq!(get(&other, "s/39"), format!("{value}39").into_bytes());

    system.pds(["set", "s/7"]).stdin("later").run().done();
    assert_eq!(get(&system, "s/7"), b"later");
    system.pds(["restore-backup", path]).password().run().exits(10).says("--yes");
    assert_eq!(get(&system, "s/7"), b"later");
    system.pds(["restore-backup", "--yes", path]).password().run().done().says("replaced");
    assert_eq!(get(&system, "s/7"), format!("{value}7").into_bytes(), "and nothing of before is cached");
    assert_eq!(entries(&system.paths().vaults()), ["default"]);
    system.pds(["set", "after"]).stdin("x").run().done();
    system.pds(["lock"]).run().done();
    system.pds(["unlock"]).password().run().done();
    assert_eq!(get(&system, "after"), b"x");
    let recorded: Vec<String> =
        system.audit(50).iter().filter_map(|entry| Some(entry["operation"].as_str()?.to_owned())).collect();
    for operation in ["backup", "restore-backup"] {
        assert!(recorded.iter().any(|found| found == operation), "{operation} in {recorded:?}");
    }
}

#[test]
fn a_wrong_password_another_profile_and_a_locked_one_are_told_apart() {
    let system = System::boot(Spec::ready().secret("a", "value"));
    system.pds(["backup", "file"]).run().done();
    system.pds(["restore-backup", "--yes", "--password-file", "-", "file"]).stdin("wrong").run().exits(8);
    system.pds(["restore-backup", "-p", "home", "file"]).password().run().exits(9).says("'default'");
    system.pds(["lock"]).run().done();
    system.pds(["backup", "other"]).run().exits(3);
    assert!(!system.folder().join("other").exists());
    system.pds(["restore-backup", "missing"]).password().run().exits(1).says("missing");
    system.pds(["backup", "no/such/folder/file"]).run().exits(1);
    system.pds(["unlock"]).password().run().done();
    assert_eq!(get(&system, "a"), b"value");
}

/// The same backup, damaged in many ways: each is told as damage, or as what it is, and changes nothing.
#[test]
fn hostile_files_change_nothing() {
    let system = System::boot(Spec::ready().secret("a", "value"));
    system.pds(["backup", "good"]).run().done();
    system.pds(["set", "a"]).stdin("now").run().done();
    let good = std::fs::read(system.folder().join("good")).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(system.folder().join("bad"), bytes).unwrap();
        let output = system.pds(["restore-backup", "--yes", "bad"]).password().run();
        assert!(
            matches!(output.status().code(), Some(8 | 9)),
            "{what}: {:?} {}",
            output.status(),
            output.said()
        );
        assert!(!output.said().contains("panicked"), "{what}");
    };
    for part in 0..12 {
        let place = part * (good.len() - 1) / 11;
        let mut bytes = good.clone();
        bytes[place] ^= 0x10;
        refused(&bytes, &format!("byte {place}"));
        refused(&good[..place], &format!("{place} bytes"));
    }
    refused(b"", "empty");
    refused(&vec![0; 1 << 20], "zeros");
    refused(b"SQLite format 3\0", "another kind of file");
    let mut huge = good.clone();
    huge[16..28].fill(0xff);
    refused(&huge, "huge lengths");
    let sparse = std::fs::File::create(system.folder().join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    system.pds(["restore-backup", "--yes", "sparse"]).password().run().exits(9);
    for path in ["/dev/zero", "/dev/null", "/"] {
        system.pds(["restore-backup", "--yes", path]).password().run().exits(9);
    }
    system.shell("mkfifo pipe").run().done();
    system.pds(["restore-backup", "--yes", "pipe"]).password().run().exits(9);
    assert_eq!(get(&system, "a"), b"now");
    assert_eq!(entries(&system.paths().vaults()), ["default"]);
    assert!(system.all_serve());
}

/// Whatever moment it is of, a backup holds each pair whole: both halves are written in one order, and read back.
#[test]
fn a_backup_under_writes_is_one_moment_of_the_vault() {
    let system =
        System::boot(Spec::ready().config("[rate_limit.known]\nper_second = 100000\nburst = 100000\n"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (system, stop) = (&system, &stop);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    for half in ["first", "second"] {
                        let name = format!("w{writer}/{half}");
                        system.pds(["set", &name]).stdin(round.to_string()).run().done();
                    }
                }
            });
        }
        for number in 0..5 {
            system.pds(["backup", &format!("b{number}")]).run().done();
        }
        stop.store(true, Ordering::Relaxed);
    });
    for number in 0..5 {
        let other = System::boot(Spec::new());
        let path = system.folder().join(format!("b{number}"));
        other.pds(["restore-backup", path.to_str().unwrap()]).password().run().done();
        for writer in 0..3 {
            let half = |half: &str| -> u64 {
                let output = other.pds(["get", &format!("w{writer}/{half}")]).run();
                match output.status().code() {
                    Some(0) => output.any().text().parse().unwrap(),
                    _ => 0,
                }
            };
            let (first, second) = (half("first"), half("second"));
            assert!(first == second || first == second + 1, "backup {number}: {first} and {second}");
        }
    }
}
