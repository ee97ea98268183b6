//! One flipped bit anywhere in the files of a vault: the right value or an error, never another value in silence.
//!
//! Unlocked with a recovery code, from which the key follows at once, so that every byte can have its turn.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_crypto::SecureBytes;
use core_crypto::kdf::Argon2Params;
use core_secrets::header::{NewFactor, Proof};
use core_secrets::store::{SecretsStore, StoreError};
use core_secrets::vault::VaultFolder;
use core_types::SecretName;
use core_types::factor::{FactorLabel, RECOVERY_CODE_BYTES};
use tests::calls::profile;
use tests::chance::{Chance, tries};

/// Without further tries, one byte of so many has its turn, and at least so many bytes of each file.
const STEP: usize = 400;
const TURNS_MIN: usize = 25;
const SECRETS: usize = 12;
/// Secrets that are not written again, so that their pages are read from the database itself.
const KEPT: usize = 8;
const CODE: [u8; RECOVERY_CODE_BYTES] = [0x5a; RECOVERY_CODE_BYTES];

/// A vault whose files can be changed under it.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self { root: root.unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        match name {
            "anchor" => self.root.path().join("anchors/work"),
            name => self.root.path().join("vaults/work").join(name),
        }
    }

    fn folder(&self) -> VaultFolder {
        VaultFolder::new(self.root.path().join("vaults/work"), self.path("anchor"), profile("work"))
    }

    /// All files that a kill would leave.
    fn files(&self) -> BTreeMap<&'static str, Vec<u8>> {
        let names = ["header.json", "vault.db", "vault.db-wal", "anchor"];
        names.into_iter().map(|name| (name, std::fs::read(self.path(name)).unwrap())).collect()
    }

    fn put(&self, files: &BTreeMap<&'static str, Vec<u8>>) {
        let _none = std::fs::remove_file(self.path("vault.db-shm"));
        for (name, bytes) in files {
            std::fs::write(self.path(name), bytes).unwrap();
        }
    }
}

fn name(number: usize) -> SecretName {
    let group = if number < SECRETS { "changed" } else { "kept" };
    SecretName::parse(format!("{group}/{number}")).unwrap()
}

fn value(number: usize) -> Vec<u8> {
    format!("value {number} ").repeat(4 + number * 7).into_bytes()
}

/// A vault as a kill leaves it: some of its rows in the database, the newer ones in the write-ahead log alone.
async fn killed(place: &Place) -> BTreeMap<&'static str, Vec<u8>> {
    let cheap = Argon2Params::FLOOR;
    let password = || Proof { factor: 1, secret: SecureBytes::copy_of(b"password") };
    let open = place.folder().create(b"password", cheap).unwrap();
    for number in 0..SECRETS {
        open.store.set(&name(number), SecureBytes::copy_of(b"old")).await.unwrap();
    }
    for number in SECRETS..SECRETS + KEPT {
        open.store.set(&name(number), SecureBytes::copy_of(&value(number))).await.unwrap();
    }
    let code = NewFactor::Recovery(SecureBytes::copy_of(&CODE));
    let add = |header: &core_secrets::header::VaultHeader| {
        header.with_factor(&[password()], FactorLabel::default(), code, cheap)
    };
    place.folder().change(&open.lock, add).unwrap();
    open.store.close().unwrap();
    drop(open);
    let open = place.folder().unlock(&[password()]).unwrap();
    for number in 0..SECRETS {
        open.store.set(&name(number), SecureBytes::copy_of(&value(number))).await.unwrap();
    }
    let files = place.files();
    open.store.close().unwrap();
    files
}

/// What a changed vault did.
#[derive(Debug, Default)]
struct Seen {
    /// It was as if nothing had been changed.
    right: usize,
    /// It did not open.
    refused: usize,
    /// It opened for reading, and said what was found.
    told: usize,
}

async fn look(place: &Place, what: &str, seen: &mut Seen) {
    let proof = Proof { factor: 2, secret: SecureBytes::copy_of(&CODE) };
    let open = match place.folder().unlock(&[proof]) {
        Ok(open) => open,
        Err(error) => {
            assert!(error.is_damage(), "{what}: {error}");
            seen.refused += 1;
            return;
        }
    };
    let told = open.store.rollback().is_some();
    for number in 0..SECRETS + KEPT {
        match open.store.get(&name(number)).await {
            Ok(found) if told => {
                assert!([value(number), b"old".to_vec()].contains(&found.expose().to_vec()), "{what}")
            }
            Ok(found) => assert!(found.expose() == value(number), "{what}: another value, in silence"),
            Err(StoreError::Damaged(_)) => {}
            Err(StoreError::NotFound(_)) if told => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
    if told {
        let written = open.store.set(&name(0), SecureBytes::zeroed(1)).await;
        assert!(matches!(written, Err(StoreError::ReadOnly)), "{what}: written");
        seen.told += 1;
    } else {
        seen.right += 1;
    }
    open.store.close().unwrap();
}

#[tokio::test]
async fn a_flipped_bit_gives_an_error_or_the_right_value() {
    let place = Place::new();
    let good = killed(&place).await;
    place.put(&good);
    let mut untouched = Seen::default();
    look(&place, "untouched", &mut untouched).await;
    assert_eq!(untouched.right, 1, "{untouched:?}");
    let mut chance = Chance::of("bits");
    for file in good.keys() {
        let step = (STEP.min(good[file].len() / TURNS_MIN) / tries(1)).max(1);
        let (mut seen, mut tried) = (Seen::default(), 0);
        for byte in (chance.below(step)..good[file].len()).step_by(step) {
            let mut files = good.clone();
            files.get_mut(file).unwrap()[byte] ^= 1 << chance.below(8);
            place.put(&files);
            look(&place, &format!("byte {byte} of {file}"), &mut seen).await;
            tried += 1;
        }
        // Of the two slots of the anchor one is enough, and a vault that is newer than it is right.
        assert!(seen.refused + seen.told > 0 || *file == "anchor", "{file}: {seen:?}");
        eprintln!("{tried} flipped bits in the {} bytes of {file}: {seen:?}", good[file].len());
    }
}
