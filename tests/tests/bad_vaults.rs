//! Vaults that are not what they should be, and machines that give less than usual: a clear error each, no crash, and
//! all is well when they are put right.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use core_crypto::checksum;
use core_types::ProfileName;
use core_types::name::SECRETS;
use tests::disk::SmallDisk;
use tests::{Spec, System};

fn vault(system: &System) -> PathBuf {
    system.paths().vault(&ProfileName::parse("default").unwrap())
}

/// A system whose vault is locked and holds one secret.
fn system() -> System {
    System::boot(Spec::ready().secret("key", "value").locked())
}

/// The vault opens, and holds what it held.
fn is_well(system: &System) {
    system.pds(["unlock"]).password().run().done();
    system.pds(["get", "key"]).run().done().prints("value");
    system.pds(["lock"]).run().done();
}

/// JSON without white space between its words.
fn compact(text: &str) -> String {
    let (mut compact, mut quoted, mut escaped) = (String::new(), false, false);
    for letter in text.chars() {
        match letter {
            '"' if !escaped => quoted = !quoted,
            _ if letter.is_whitespace() && !quoted => continue,
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
        compact.push(letter);
    }
    compact
}

/// A header with one piece replaced by another, and a checksum that fits: what someone makes who knows how to.
fn forged(header: &str, from: &str, to: &str) -> String {
    let text = compact(header);
    let start = text.find("\"content\":").unwrap() + "\"content\":".len();
    let end = text.find(",\"checksum\":\"").unwrap();
    let content = text[start..end].replacen(from, to, 1);
    let canonical = [b"pds v2 header 2\0", content.as_bytes()].concat();
    let rest = text[end..].split_once("\",").unwrap().1;
    format!("{}{content},\"checksum\":\"{}\",{rest}", &text[..start], checksum(&canonical))
}

#[test]
fn headers_that_no_vault_has_are_refused_with_the_reason() {
    let system = system();
    let path = vault(&system).join("header.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let salt = compact(&good).split_once("\"salt\":\"").unwrap().1[..32].to_owned();
    let cases = [
        ("\"memory_kib\":65536", "\"memory_kib\":8388608", "above the ceiling"),
        ("\"memory_kib\":65536", "\"memory_kib\":8192", "below the floor"),
        ("\"passes\":3", "\"passes\":1", "below the floor"),
        ("\"lanes\":4", "\"lanes\":0", "below the floor"),
        (&salt, &salt[..30], "damaged"),
        (&salt, "", "damaged"),
    ];
    for (from, to, reason) in cases {
        assert!(compact(&good).contains(from), "there is no {from}");
        std::fs::write(&path, forged(&good, from, to)).unwrap();
        system.pds(["unlock"]).password().run().exits(9).says(reason);
    }
    let later = compact(&good).replacen("\"format\":2", "\"format\":99", 1);
    let other = [(later.as_str(), "format 99"), ("", "damaged"), (&good[..good.len() / 2], "damaged")];
    for (text, reason) in other {
        std::fs::write(&path, text).unwrap();
        system.pds(["unlock"]).password().run().exits(9).says(reason);
        assert_eq!(
            system.pds(["status", "--json"]).run().done().json()["profiles"].as_array().unwrap().len(),
            1
        );
    }
    std::fs::remove_file(&path).unwrap();
    system.pds(["unlock"]).password().run().exits(9);
    // What was forged above was refused for what was changed, and not for the forging.
    std::fs::write(&path, forged(&good, "nothing", "else")).unwrap();
    is_well(&system);
}

/// Puts something in the place of a file, sees what unlocking says, and puts the file back.
fn in_place_of(system: &System, path: &Path, what: &str, put: impl FnOnce(&Path)) {
    let pid = system.pid_of(SECRETS);
    let kept = system.folder().join("kept");
    std::fs::rename(path, &kept).unwrap();
    put(path);
    let ended = system.pds(["unlock"]).password().run();
    let code = ended.status().code();
    assert!(matches!(code, Some(1 | 9)), "{what}: exit code {code:?}; it said:\n{}", ended.said());
    assert!(!ended.said().contains("panic"), "{what}: {}", ended.said());
    drop(ended.any());
    let _gone = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
    std::fs::rename(&kept, path).unwrap();
    assert_eq!(system.pid_of(SECRETS), pid, "daemon-secrets died of {what}");
}

#[test]
fn what_is_no_file_of_a_vault_is_refused_and_harms_nothing() {
    let system = system();
    let elsewhere = system.folder().join("elsewhere");
    std::fs::write(&elsewhere, "not ours to touch").unwrap();
    for name in ["vault.db", "header.json"] {
        let path = vault(&system).join(name);
        in_place_of(&system, &path, "an empty file", |path| std::fs::write(path, "").unwrap());
        in_place_of(&system, &path, "a folder", |path| std::fs::create_dir(path).unwrap());
        in_place_of(&system, &path, "a symbolic link", |path| {
            std::os::unix::fs::symlink(&elsewhere, path).unwrap()
        });
        in_place_of(&system, &path, "a dangling link", |path| {
            std::os::unix::fs::symlink("/nonexistent", path).unwrap()
        });
        in_place_of(&system, &path, "random bytes", |path| std::fs::write(path, [0x5a; 9_000]).unwrap());
        in_place_of(&system, &path, "nothing", |_| {});
        in_place_of(&system, &path, "a pipe", |path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        });
    }
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"not ours to touch");
}

#[test]
fn two_daemons_do_not_work_on_one_vault() {
    let first = system();
    let place = first.paths().data().display().to_string();
    let second = System::boot(Spec::new().variable("PDS_DATA_DIR", &place));
    first.pds(["unlock"]).password().run().done();
    second.pds(["unlock"]).password().run().exits(1).says("another process");
    first.pds(["set", "key"]).stdin("newer").run().done();
    first.pds(["lock"]).run().done();
    // It has another anchor, that is none, and takes the vault for one that was put back.
    second.pds(["unlock", "--accept-rollback"]).password().run().done();
    second.pds(["get", "key"]).run().done().prints("newer");
    first.pds(["unlock"]).password().run().exits(1).says("another process");
}

#[test]
fn a_read_only_disk_is_named_and_forgotten_when_it_is_writable_again() {
    let system = System::boot(Spec::new().not_started());
    let Some(disk) = SmallDisk::over(system.paths().data(), 1) else { return };
    system.pds(["init"]).password().run().done();
    system.pds(["set", "key"]).stdin("value").run().done();
    system.pds(["lock"]).run().done();
    disk.set_read_only(true);
    system.pds(["init", "-p", "other"]).password().run().exits(1).says("ead-only");
    system.pds(["unlock"]).password().run().exits(1).says("ead-only");
    disk.set_read_only(false);
    is_well(&system);
}

#[test]
fn with_sixteen_descriptors_for_a_process_nothing_hangs() {
    let system = System::boot(Spec::new().not_started());
    let limited = |line: &str| system.shell(&format!("ulimit -n 16; {line}"));
    let began = std::time::Instant::now();
    // It may work or be refused; what counts is that it ends, and says why.
    for line in [
        "printf 'a password' | pds init --password-file -",
        "printf v | pds set key",
        "pds get key",
        "pds status",
    ] {
        let ended = limited(line).run();
        let code = ended.status().code();
        assert!(
            matches!(code, Some(0 | 1 | 3 | 4 | 7)),
            "`{line}` ended with {code:?} and said:\n{}",
            ended.said()
        );
        assert!(code == Some(0) || !ended.said().is_empty(), "`{line}` failed without a word");
        drop(ended.any());
    }
    assert!(began.elapsed() < tests::PATIENCE);
}
