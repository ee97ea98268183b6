//! A vault of which any part is older than the rest, put back under the daemons: found at each unlocking, readable, and
//! changed by nobody before that is accepted.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions};
use core_types::WireSecret;
use core_types::factor::{FactorLabel, RECOVERY_CODE_BYTES};
use core_types::name::SECRETS;
use core_types::protocol::secrets::{
    AcceptRollback, AddFactor, FactorProof, Lock, NewFactor, SecretsDenial, Unlock,
};
use tests::calls::{self, profile};
use tests::chance::{Chance, tries};
use tests::system::call;
use tests::{PASSWORD, PATIENCE, Spec, System};

const NAMES: usize = 30;
const PAGE_BYTES: usize = 4096;
/// Unlocks at once, so that much can be tried.
const CODE: [u8; RECOVERY_CODE_BYTES] = [0x77; RECOVERY_CODE_BYTES];
/// Each try unlocks once, and reads some secrets.
const RATES: &str = "[rate_limit.known]\nper_second = 1000000\nburst = 1000000\n";

type Files = BTreeMap<String, Vec<u8>>;

fn name(number: usize) -> String {
    format!("secret-{number}")
}

fn value(time: &str, number: usize) -> Vec<u8> {
    format!("{time} {number} ").repeat(20).into_bytes()
}

fn write_all(client: &mut Client, time: &str) {
    for number in 0..NAMES {
        call(client, &calls::set("default", &name(number), value(time, number)));
    }
}

fn with_code() -> Unlock {
    let factors = vec![FactorProof { factor: 2, secret: WireSecret::new(CODE.to_vec()) }];
    Unlock { profile: profile("default"), factors }
}

/// A system with a locked vault, and its files at three times.
struct Times {
    system: System,
    /// Before the newest writes.
    old: Files,
    /// With the newest writes in the write-ahead log, as a kill leaves it.
    killed: Files,
    /// With everything in the database.
    new: Files,
}

/// The files of the vault, and its anchor.
fn files(system: &System) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(system.paths().vault(&profile("default"))).unwrap() {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        if name != "lock" && !name.ends_with("-shm") {
            files.insert(name, std::fs::read(entry.unwrap().path()).unwrap());
        }
    }
    files.insert("anchor".to_owned(), std::fs::read(system.paths().anchor(&profile("default"))).unwrap());
    files
}

impl Times {
    fn new() -> Self {
        let system = System::boot(Spec::ready().config(RATES));
        let mut client = system.client();
        write_all(&mut client, "old");
        let code = NewFactor::Recovery { code: WireSecret::new(CODE.to_vec()) };
        let (profile, label, present) =
            (profile("default"), FactorLabel::default(), vec![calls::password(PASSWORD)]);
        assert_eq!(call(&mut client, &AddFactor { profile, present, label, new: code }), 2);
        call(&mut client, &Lock { profile: None });
        let old = files(&system);
        call(&mut client, &with_code());
        write_all(&mut client, "new");
        let pid = system.kill(SECRETS);
        system.wait_until_back(SECRETS, pid);
        let killed = files(&system);
        let mut client = system.client();
        call(&mut client, &with_code());
        call(&mut client, &Lock { profile: None });
        let new = files(&system);
        assert!(killed.contains_key("vault.db-wal") && !new.contains_key("vault.db-wal"));
        Self { system, old, killed, new }
    }

    /// Puts files in the place of those that are there.
    fn put(&self, files: &Files) {
        let folder = self.system.paths().vault(&profile("default"));
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("lock") {
                std::fs::remove_file(path).unwrap();
            }
        }
        for (name, bytes) in files {
            let path = match name.as_str() {
                "anchor" => self.system.paths().anchor(&profile("default")),
                name => folder.join(name),
            };
            core_crypto::private_fs::write_atomic(&path, bytes).unwrap();
        }
    }

    /// Unlocks with these files in place, and locks again. `None` if nothing was found.
    fn found(&self, files: &Files, what: &str) -> Option<String> {
        self.put(files);
        let mut client = self.system.client();
        let options = || CallOptions { deadline: PATIENCE, descriptors: Vec::new() };
        let found = match client.call(&with_code(), options()) {
            Ok(_) => None,
            Err(CallError::Denied(SecretsDenial::RolledBack { found, .. })) => {
                self.is_read_only(&mut client, what);
                Some(found)
            }
            Err(CallError::Denied(SecretsDenial::Damaged(found))) => Some(found),
            Err(error) => panic!("{what}: unlocking ended with {error:?}"),
        };
        if found.is_none() {
            for number in 0..NAMES {
                let read = call(&mut client, &calls::get("default", &name(number)));
                assert!(read.expose() == value("new", number), "{what}: another value, in silence");
            }
        }
        call(&mut client, &Lock { profile: None });
        found
    }

    /// What was found is open for reading: nothing in it was never written, and nothing can be changed.
    fn is_read_only(&self, client: &mut Client, what: &str) {
        let options = || CallOptions { deadline: PATIENCE, descriptors: Vec::new() };
        for number in [0, NAMES / 2, NAMES - 1] {
            match client.call(&calls::get("default", &name(number)), options()) {
                Ok(read) => {
                    let once = [value("old", number), value("new", number)];
                    assert!(
                        once.iter().any(|value| value == read.expose()),
                        "{what}: a value that never was"
                    );
                }
                Err(CallError::Denied(SecretsDenial::NoSuchSecret(_) | SecretsDenial::Damaged(_))) => {}
                Err(error) => panic!("{what}: a read ended with {error:?}"),
            }
        }
        let written = client.call(&calls::set("default", "other", "x"), options());
        assert!(matches!(written, Err(CallError::Denied(SecretsDenial::ReadOnly(_)))), "{what}: {written:?}");
    }
}

/// These files with one of them changed.
fn with(files: &Files, name: &str, bytes: impl Into<Vec<u8>>) -> Files {
    let mut files = files.clone();
    files.insert(name.to_owned(), bytes.into());
    files
}

#[test]
fn what_stood_in_the_write_ahead_log_alone_is_missed() {
    let times = Times::new();
    // Without the room behind what was written.
    let log = &times.killed["vault.db-wal"];
    let log = &log[..=log.iter().rposition(|byte| *byte != 0).expect("a log")];
    assert_eq!(times.found(&times.killed, "untouched"), None);
    let mut tried = 0;
    let mut is_found = |files: &Files, what: &str| {
        assert!(times.found(files, what).is_some(), "{what} was not found");
        tried += 1;
    };
    let mut without = times.killed.clone();
    without.remove("vault.db-wal");
    is_found(&without, "a deleted log");
    is_found(&with(&times.killed, "vault.db-wal", []), "an empty log");
    let mut chance = Chance::of("write-ahead log");
    for _ in 0..tries(20) {
        let cut = chance.below(log.len());
        is_found(&with(&times.killed, "vault.db-wal", &log[..cut]), &format!("a log cut at {cut}"));
        let mut flipped = log.to_vec();
        let place = chance.below(log.len());
        flipped[place] ^= 1 << chance.below(8);
        is_found(
            &with(&times.killed, "vault.db-wal", flipped),
            &format!("bit flipped in byte {place} of the log"),
        );
    }
    eprintln!("{tried} times the log was deleted, cut or flipped, and each was found");
}

#[test]
fn every_older_part_that_is_put_back_is_found() {
    let times = Times::new();
    assert_eq!(times.found(&times.new, "untouched"), None);
    let (old, new) = (&times.old["vault.db"], &times.new["vault.db"]);
    let mut tried = 0;
    for page in 0..old.len().min(new.len()) / PAGE_BYTES {
        let place = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        if old[place.clone()] == new[place.clone()] {
            continue;
        }
        let mut bytes = new.clone();
        bytes[place.clone()].copy_from_slice(&old[place]);
        let what = format!("page {page} of before");
        assert!(times.found(&with(&times.new, "vault.db", bytes), &what).is_some(), "{what} was not found");
        tried += 1;
    }
    assert!(tried >= 3, "hardly a page differs");
    for (what, files) in [
        ("an older database", with(&times.new, "vault.db", old.clone())),
        ("an older folder", with(&times.old, "anchor", times.new["anchor"].clone())),
    ] {
        assert!(times.found(&files, what).is_some(), "{what} was not found");
        tried += 1;
    }
    eprintln!("{tried} times a page, the database or the folder of before was put back, and each was found");
    let mut client = times.system.client();
    times.put(&with(&times.old, "anchor", times.new["anchor"].clone()));
    client.call(&with_code(), CallOptions::default()).unwrap_err();
    assert!(call(&mut client, &AcceptRollback { profile: profile("default") }));
    call(&mut client, &calls::set("default", "other", "written"));
}
