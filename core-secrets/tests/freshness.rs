//! An older vault, or an older part of one, is noticed when it is unlocked, and changed by nobody before it is accepted.
// Functions beside the tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_crypto::SecureBytes;
use core_crypto::kdf::Argon2Params;
use core_secrets::freshness::Rollback;
use core_secrets::header::{Changed, HeaderError, Proof, VaultHeader};
use core_secrets::store::{SecretsStore, StoreError};
use core_secrets::vault::{OpenVault, VaultError, VaultFolder};
use core_types::{ProfileName, SecretName};

const CHEAP: Argon2Params = Argon2Params::FLOOR;
const PAGE_BYTES: usize = 4096;

/// All files of a vault and its anchor, by their names.
type Files = BTreeMap<String, Vec<u8>>;

/// A vault in a folder of its own.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        close(place.folder().create(b"right", CHEAP).unwrap());
        place
    }

    fn vault(&self) -> PathBuf {
        self.root.path().join("vaults/work")
    }

    fn anchor(&self) -> PathBuf {
        self.root.path().join("anchors/work")
    }

    fn folder(&self) -> VaultFolder {
        VaultFolder::new(self.vault(), self.anchor(), ProfileName::parse("work").unwrap())
    }

    fn unlock(&self) -> Result<OpenVault, VaultError> {
        self.folder().unlock(&password(b"right"))
    }

    /// Unlocks and says what was found.
    fn found(&self) -> Option<Rollback> {
        let open = self.unlock().unwrap();
        let found = open.store.rollback();
        close(open);
        found
    }

    /// What a kill would leave: all files as they are now.
    fn files(&self) -> Files {
        let mut files = Files::new();
        for file in std::fs::read_dir(self.vault()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // The index of the log is made anew, and the lock is nobody's after a kill.
            if !name.ends_with("-shm") && name != "lock" {
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
        files.insert("anchor".to_owned(), std::fs::read(self.anchor()).unwrap());
        files
    }

    /// Another place with these files.
    fn of(files: &Files) -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        for folder in [place.vault(), place.anchor().parent().unwrap().to_owned()] {
            core_crypto::private_fs::ensure_private_dir(&folder).unwrap();
        }
        for (name, bytes) in files {
            let path = if name == "anchor" { place.anchor() } else { place.vault().join(name) };
            write(&path, bytes);
        }
        place
    }
}

fn write(path: &Path, bytes: &[u8]) {
    core_crypto::private_fs::write_atomic(path, bytes).unwrap();
}

fn password(password: &[u8]) -> [Proof; 1] {
    [Proof { factor: 1, secret: SecureBytes::copy_of(password) }]
}

fn secret(name: &str) -> SecretName {
    SecretName::parse(name).unwrap()
}

fn close(open: OpenVault) {
    open.store.close().unwrap();
}

async fn set(open: &OpenVault, name: &str, value: &[u8]) {
    open.store.set(&secret(name), SecureBytes::copy_of(value)).await.unwrap();
}

/// These files with others of another time.
fn with(files: &Files, changes: &[(&str, Option<&[u8]>)]) -> Files {
    let mut files = files.clone();
    for (name, bytes) in changes {
        match bytes {
            Some(bytes) => files.insert((*name).to_owned(), bytes.to_vec()),
            None => files.remove(*name),
        };
    }
    files
}

/// A vault at an earlier time and now, both closed.
async fn before_and_after() -> (Files, Files) {
    let place = Place::new();
    let open = place.unlock().unwrap();
    for number in 0..40 {
        set(&open, &format!("name/{number}"), &b"old".repeat(60)).await;
    }
    set(&open, "large", &[1; 20_000]).await;
    close(open);
    let before = place.files();
    let open = place.unlock().unwrap();
    for number in 0..40 {
        set(&open, &format!("name/{number}"), &b"new".repeat(60)).await;
    }
    set(&open, "large", &[2; 20_000]).await;
    open.store.delete(&secret("name/0")).await.unwrap();
    close(open);
    (before, place.files())
}

#[tokio::test]
async fn a_vault_that_is_as_it_was_left_is_fresh() {
    let (before, after) = before_and_after().await;
    for files in [&before, &after] {
        let place = Place::of(files);
        assert_eq!(place.found(), None);
        assert_eq!(place.found(), None, "and the next time");
    }
}

#[tokio::test]
async fn an_older_vault_put_back_is_read_only_until_it_is_accepted() {
    let (before, after) = before_and_after().await;
    let place = Place::of(&with(&before, &[("anchor", Some(&after["anchor"]))]));
    let older = Rollback::Older { found: 41, expected: 83 };
    assert_eq!(place.found(), Some(older.clone()));
    let open = place.unlock().unwrap();
    let name = secret("name/1");
    assert_eq!(open.store.get(&name).await.unwrap().expose(), b"old".repeat(60));
    assert_eq!(open.store.list_keys().await.unwrap().len(), 41);
    let value = || SecureBytes::copy_of(b"x");
    assert!(matches!(open.store.set(&name, value()).await, Err(StoreError::ReadOnly)));
    assert!(matches!(open.store.delete(&name).await, Err(StoreError::ReadOnly)));
    assert!(matches!(open.store.restore(&name, None).await, Err(StoreError::ReadOnly)));
    assert!(matches!(open.store.purge(&name).await, Err(StoreError::ReadOnly)));
    assert!(matches!(open.store.rename(&name, &secret("b")).await, Err(StoreError::ReadOnly)));
    close(open);
    assert_eq!(place.found(), Some(older), "it stays so");
    let open = place.unlock().unwrap();
    let header = place.folder().header().unwrap().mark().unwrap();
    assert!(open.store.accept_rollback(header, 0).await.unwrap());
    assert!(!open.store.accept_rollback(header, 0).await.unwrap(), "once is enough");
    assert_eq!(open.store.generation(), 84, "above all that was known of");
    open.store.set(&name, value()).await.unwrap();
    close(open);
    assert_eq!(place.found(), None);
}

#[tokio::test]
async fn every_older_page_put_back_is_found() {
    let (before, after) = before_and_after().await;
    let (old, new) = (&before["vault.db"], &after["vault.db"]);
    let mut tried = 0;
    for page in 0..old.len() / PAGE_BYTES {
        let range = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        if old[range.clone()] == new[range.clone()] {
            continue;
        }
        tried += 1;
        let mut mixed = new.clone();
        mixed[range.clone()].copy_from_slice(&old[range]);
        let place = Place::of(&with(&after, &[("vault.db", Some(&mixed))]));
        match place.unlock() {
            Err(error) => assert!(error.is_damage(), "page {page}: {error}"),
            Ok(open) => {
                assert!(open.store.rollback().is_some(), "page {page} is old, and nobody noticed");
                close(open);
            }
        }
    }
    assert!(tried >= 5, "{tried} pages differ");
}

/// The pages that a large value spills over hold no row, so they are read at unlocking besides.
#[tokio::test]
async fn an_older_page_of_a_large_value_is_found() {
    let place = Place::new();
    let open = place.unlock().unwrap();
    open.store.keep_old_versions(0);
    set(&open, "large", &[1; 100_000]).await;
    close(open);
    let before = place.files();
    let open = place.unlock().unwrap();
    open.store.keep_old_versions(0);
    set(&open, "large", &[2; 100_000]).await;
    set(&open, "large", &[3; 100_000]).await;
    close(open);
    let after = place.files();
    let (old, new) = (&before["vault.db"], &after["vault.db"]);
    let mut found = 0;
    for page in 0..old.len().min(new.len()) / PAGE_BYTES {
        let range = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        let mut mixed = new.clone();
        mixed[range.clone()].copy_from_slice(&old[range]);
        let place = Place::of(&with(&after, &[("vault.db", Some(&mixed))]));
        let Ok(open) = place.unlock() else { continue };
        match open.store.rollback() {
            Some(Rollback::Value(name)) => {
                assert_eq!(name.as_str(), "large");
                found += 1;
            }
            Some(_) => {}
            None => assert!(open.store.get(&secret("large")).await.unwrap().ct_eq(&[3; 100_000])),
        }
        close(open);
    }
    assert!(found >= 10, "{found} pages of the value are old and found");
}

/// After a kill, with acknowledged writes that stand only in the write-ahead log.
async fn killed() -> Files {
    let place = Place::new();
    let open = place.unlock().unwrap();
    for number in 0..20 {
        set(&open, &format!("name/{number}"), b"acknowledged").await;
    }
    let files = place.files();
    assert!(files["vault.db-wal"].len() > 20 * PAGE_BYTES);
    close(open);
    files
}

#[tokio::test]
async fn a_kill_loses_nothing() {
    let place = Place::of(&killed().await);
    assert_eq!(place.found(), None);
    let open = place.unlock().unwrap();
    assert_eq!(open.store.list_keys().await.unwrap().len(), 20);
    close(open);
}

/// A log without the room behind what was written.
fn written(log: &[u8]) -> &[u8] {
    let end = log.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &log[..end]
}

#[tokio::test]
async fn the_room_behind_a_write_ahead_log_holds_nothing() {
    let files = killed().await;
    let log = &files["vault.db-wal"];
    let end = written(log).len();
    assert!(end < log.len(), "there is room");
    for cut in [end, end + 1, log.len() - 1] {
        assert_eq!(Place::of(&with(&files, &[("vault.db-wal", Some(&log[..cut]))])).found(), None, "{cut}");
    }
}

#[tokio::test]
async fn a_write_ahead_log_that_was_deleted_cut_or_changed_is_found() {
    let files = killed().await;
    let log = written(&files["vault.db-wal"]);
    let older = |files: &Files, what: &str| {
        let found = Place::of(files).found();
        assert!(matches!(found, Some(Rollback::Older { expected: 20, .. })), "{what}: {found:?}");
    };
    older(&with(&files, &[("vault.db-wal", None)]), "deleted");
    older(&with(&files, &[("vault.db-wal", Some(b""))]), "emptied");
    for cut in (0..log.len()).step_by(7_919) {
        older(&with(&files, &[("vault.db-wal", Some(&log[..cut]))]), &format!("cut at {cut}"));
    }
    for flipped in (0..log.len()).step_by(4_999) {
        let mut bytes = log.to_vec();
        bytes[flipped] ^= 1 << (flipped % 8);
        older(&with(&files, &[("vault.db-wal", Some(&bytes))]), &format!("bit {flipped} flipped"));
    }
}

#[tokio::test]
async fn a_kill_between_the_change_and_its_anchor_is_no_rollback() {
    let place = Place::new();
    let open = place.unlock().unwrap();
    set(&open, "a", b"1").await;
    let earlier = place.files();
    set(&open, "a", b"2").await;
    let files = with(&place.files(), &[("anchor", Some(&earlier["anchor"]))]);
    close(open);
    let place = Place::of(&files);
    assert_eq!(place.found(), None);
    // And now the anchor knows.
    let older = with(&earlier, &[("anchor", Some(&place.files()["anchor"]))]);
    assert_eq!(Place::of(&older).found(), Some(Rollback::Older { found: 1, expected: 2 }));
}

#[tokio::test]
async fn another_vault_of_the_same_age_is_found() {
    let place = Place::new();
    let start = place.files();
    let mut ends = Vec::new();
    for value in [b"1", b"2"] {
        let place = Place::of(&start);
        let open = place.unlock().unwrap();
        set(&open, "a", value).await;
        close(open);
        ends.push(place.files());
    }
    let mixed = with(&ends[0], &[("anchor", Some(&ends[1]["anchor"]))]);
    assert_eq!(Place::of(&mixed).found(), Some(Rollback::Other));
}

#[tokio::test]
async fn without_its_anchor_no_vault_is_trusted() {
    let (_, after) = before_and_after().await;
    let other = Place::new();
    let missing = Place::of(&with(&after, &[("anchor", None)]));
    assert_eq!(missing.found(), Some(Rollback::AnchorMissing));
    for wrong in [&b""[..], b"garbage", &vec![0; 8192], &other.files()["anchor"]] {
        let place = Place::of(&with(&after, &[("anchor", Some(wrong))]));
        assert_eq!(place.found(), Some(Rollback::AnchorUnreadable));
    }
    let open = missing.unlock().unwrap();
    let header = missing.folder().header().unwrap().mark().unwrap();
    assert!(open.store.accept_rollback(header, 0).await.unwrap());
    close(open);
    assert_eq!(missing.found(), None);
    let new = Place::new();
    std::fs::remove_file(new.anchor()).unwrap();
    assert_eq!(new.found(), Some(Rollback::AnchorMissing), "not even an empty one");
}

/// Together they are consistent; only who remembers more, as the audit log does, can tell.
#[tokio::test]
async fn a_vault_put_back_with_its_anchor_is_found_by_who_remembers_more() {
    let (before, _) = before_and_after().await;
    let place = Place::of(&before);
    let open = place.folder().unlock_at_least(&password(b"right"), 83).unwrap();
    assert_eq!(open.store.rollback(), Some(Rollback::Older { found: 41, expected: 83 }));
    let header = place.folder().header().unwrap().mark().unwrap();
    assert!(open.store.accept_rollback(header, 83).await.unwrap());
    assert_eq!(open.store.generation(), 84);
    close(open);
    assert_eq!(place.found(), None);
}

fn to(new: &[u8]) -> impl FnOnce(&VaultHeader) -> Result<Changed<()>, HeaderError> {
    let new = SecureBytes::copy_of(new);
    move |header: &VaultHeader| {
        let old = [b"right".as_slice(), b"second"];
        let changed = old
            .into_iter()
            .find_map(|old| header.with_password(1, &password(old), None, new.clone(), CHEAP).ok());
        changed.map(Changed::from).ok_or(HeaderError::Missing)
    }
}

#[tokio::test]
async fn an_older_header_with_an_older_password_is_found() {
    let place = Place::new();
    let before = place.files();
    let lock = place.folder().lock().unwrap();
    place.folder().change(&lock, to(b"second")).unwrap();
    drop(lock);
    let open = place.folder().unlock(&password(b"second")).unwrap();
    assert_eq!(open.store.rollback(), None);
    close(open);
    let files = with(&place.files(), &[("header.json", Some(&before["header.json"]))]);
    let place = Place::of(&files);
    assert_eq!(place.found(), Some(Rollback::HeaderOlder));
    // Nor does changing it, as often as one likes, have it counted as the right one.
    for _ in 0..3 {
        let lock = place.folder().lock().unwrap();
        let changed = place.folder().change(&lock, to(b"second"));
        assert!(matches!(changed, Err(VaultError::RolledBack(Rollback::HeaderOlder))));
    }
    assert_eq!(place.found(), Some(Rollback::HeaderOlder));
    let other = Place::of(&before);
    let lock = other.folder().lock().unwrap();
    other.folder().change(&lock, to(b"third")).unwrap();
    drop(lock);
    let third = other.files();
    let place = Place::of(&with(&files, &[("header.json", Some(&third["header.json"]))]));
    let open = place.folder().unlock(&password(b"third")).unwrap();
    assert_eq!(open.store.rollback(), Some(Rollback::HeaderOther));
    close(open);
}

#[tokio::test]
async fn a_damaged_page_leaves_the_rest_to_be_read() {
    let (_, after) = before_and_after().await;
    let mut readable = 0;
    for page in 1..after["vault.db"].len() / PAGE_BYTES {
        let mut bytes = after["vault.db"].clone();
        bytes[page * PAGE_BYTES + 100] ^= 1;
        let place = Place::of(&with(&after, &[("vault.db", Some(&bytes))]));
        let Ok(open) = place.unlock() else { continue };
        // A page that belongs to nothing may be damaged unnoticed.
        if open.store.rollback().is_some() {
            assert!(matches!(
                open.store.set(&secret("x"), SecureBytes::zeroed(1)).await,
                Err(StoreError::ReadOnly)
            ));
            for number in 1..40 {
                match open.store.get(&secret(&format!("name/{number}"))).await {
                    Ok(value) => {
                        assert_eq!(value.expose(), b"new".repeat(60));
                        readable += 1;
                    }
                    Err(error) => assert!(matches!(error, StoreError::Damaged(_)), "{error}"),
                }
            }
        }
        close(open);
    }
    assert!(readable > 0);
}
