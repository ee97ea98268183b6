//! Old versions: what there is of them, bringing one back, removing them for good, and taking them along when a
//! secret gets another name.

use core_types::{Note, SecretName};
use rusqlite::Connection;

use super::change::{Beside, Change, versions};
use super::entries::stored_note;
use super::schema::{Version, unsigned};
use super::{Inner, Open};
use crate::store::StoreError;

/// A version of a secret, all but its value. Times are milliseconds of the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionEntry {
    /// Its number.
    pub version: u64,
    /// When it was set.
    pub set_unix_ms: u64,
    /// Bytes of its value.
    pub bytes: u64,
    /// From when on it is not given any more.
    pub expires_unix_ms: Option<u64>,
    /// When the secret was removed whose latest version this was.
    pub removed_unix_ms: Option<u64>,
    /// Whether it is the one that is read.
    pub current: bool,
    /// What was noted down.
    pub note: Option<Note>,
}

/// The versions of a secret, the latest first, also of one that is removed. Decrypts nothing.
pub(super) fn history(connection: &Connection, name: &SecretName) -> Result<Vec<VersionEntry>, StoreError> {
    let versions = versions(connection, name, i64::MAX, "read a history")?;
    if versions.is_empty() {
        return Err(StoreError::NotFound(name.clone()));
    }
    let latest = versions[0].number;
    versions.into_iter().map(|version| entry(latest, version)).collect()
}

fn entry(latest: i64, version: Version) -> Result<VersionEntry, StoreError> {
    Ok(VersionEntry {
        version: unsigned(version.number),
        set_unix_ms: unsigned(version.updated_at),
        bytes: version.value_bytes(),
        expires_unix_ms: version.expires_at.map(unsigned),
        removed_unix_ms: version.removed_at.map(unsigned),
        current: version.number == latest && version.removed_at.is_none(),
        note: version.note.map(stored_note).transpose()?,
    })
}

/// Takes back the removal of a secret; the number of the version that is read from now on.
pub(super) fn undo_removal(inner: &Inner, open: &mut Open, name: &SecretName) -> Result<u64, StoreError> {
    let mut change = Change::begin(inner, open, "restore a secret")?;
    let latest = change.latest(name)?.ok_or_else(|| StoreError::NotFound(name.clone()))?;
    if latest.removed_at.is_none() {
        return Err(StoreError::NotRemoved(name.clone()));
    }
    change.mark(name, &latest, None)?;
    change.commit()?;
    Ok(unsigned(latest.number))
}

/// Makes an old value, with its expiry and note, a new version; the number of that.
pub(super) fn restore(
    inner: &Inner,
    open: &mut Open,
    name: &SecretName,
    version: u64,
) -> Result<u64, StoreError> {
    let mut change = Change::begin(inner, open, "restore a secret")?;
    let latest = change.latest(name)?.ok_or_else(|| StoreError::NotFound(name.clone()))?;
    let number =
        i64::try_from(version).map_err(|_| StoreError::NoSuchVersion { name: name.clone(), version })?;
    let (old, value) = change.open(name, number)?;
    let beside = Beside { expires_at: old.expires_at, note: old.note };
    let restored = change.add(name, Some(&latest), &value, beside)?;
    change.commit()?;
    Ok(unsigned(restored))
}

/// Deletes the old versions of a secret for good, and of a removed one all; how many there were.
///
/// Afterwards the deleted rows stand in no file any more: they were overwritten in the database, and the write-ahead
/// log that held them is emptied.
pub(super) fn purge(inner: &Inner, open: &mut Open, name: &SecretName) -> Result<u64, StoreError> {
    let mut change = Change::begin(inner, open, "purge a secret")?;
    let latest = change.latest(name)?.ok_or_else(|| StoreError::NotFound(name.clone()))?;
    let last_to_go = if latest.removed_at.is_some() { latest.number } else { latest.number - 1 };
    let deleted = change.delete_up_to(name, last_to_go)?;
    change.commit()?;
    super::connection::empty_log(&open.connection)?;
    Ok(deleted)
}

/// Gives a secret another name, with all its versions, which are sealed anew for it.
pub(super) fn rename(
    inner: &Inner,
    open: &mut Open,
    from: &SecretName,
    to: &SecretName,
) -> Result<(), StoreError> {
    let mut change = Change::begin(inner, open, "move a secret")?;
    if change.latest(from)?.is_none_or(|latest| latest.removed_at.is_some()) {
        return Err(StoreError::NotFound(from.clone()));
    }
    if let Some(there) = change.latest(to)? {
        return Err(StoreError::Exists { name: to.clone(), removed: there.removed_at.is_some() });
    }
    for version in change.versions(from)? {
        let (version, value) = change.open(from, version.number)?;
        change.insert(to, version, &value)?;
    }
    change.delete_up_to(from, i64::MAX)?;
    change.commit()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Vault, secret};
    use super::super::{Attributes, SqlCipherStore};
    use super::*;
    use crate::store::{Damage, SecretsStore};
    use core_crypto::SecureBytes;

    /// Number, length, and whether it is current or a removal, of each version, the latest first.
    async fn versions_of(store: &SqlCipherStore, name: &str) -> String {
        let versions = store.history(&secret(name)).await.unwrap();
        let shown = versions.iter().map(|entry| {
            let mark = match (entry.current, entry.removed_unix_ms) {
                (true, None) => "*",
                (false, Some(_)) => "-",
                (false, None) => "",
                (true, Some(_)) => "?",
            };
            format!("{}:{}{mark}", entry.version, entry.bytes)
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn old_versions_are_kept_and_read_by_their_number() {
        let vault = Vault::new();
        for value in [&b"1"[..], b"22", b"333"] {
            vault.set("a", value).await;
        }
        assert_eq!(versions_of(&vault.store, "a").await, "3:3* 2:2 1:1");
        assert_eq!(vault.get("a").await.unwrap().expose(), b"333");
        for (number, value) in [(1, &b"1"[..]), (2, b"22"), (3, b"333")] {
            assert_eq!(vault.store.get_version(&secret("a"), number).await.unwrap().expose(), value);
        }
        for number in [0, 4, u64::MAX] {
            let missing = vault.store.get_version(&secret("a"), number).await.unwrap_err();
            assert!(matches!(missing, StoreError::NoSuchVersion { version, .. } if version == number));
        }
        assert!(matches!(vault.store.history(&secret("none")).await, Err(StoreError::NotFound(_))));
    }

    #[tokio::test]
    async fn only_as_many_old_versions_are_kept_as_are_wanted() {
        let vault = Vault::new();
        for _ in 0..12 {
            vault.set("a", b"").await;
        }
        assert_eq!(vault.store.history(&secret("a")).await.unwrap().len(), 11, "ten by default");
        vault.store.keep_old_versions(2);
        vault.set("a", b"x").await;
        assert_eq!(versions_of(&vault.store, "a").await, "13:1* 12:0 11:0");
        vault.store.keep_old_versions(0);
        vault.set("a", b"xx").await;
        assert_eq!(versions_of(&vault.store, "a").await, "14:2*");
    }

    #[tokio::test]
    async fn a_removal_can_be_undone_and_numbers_never_start_again() {
        let vault = Vault::new();
        vault.set("a", b"1").await;
        vault.store.delete(&secret("a")).await.unwrap();
        assert!(matches!(vault.get("a").await, Err(StoreError::NotFound(_))));
        assert!(matches!(vault.store.get_version(&secret("a"), 1).await, Err(StoreError::NotFound(_))));
        assert!(vault.store.list_keys().await.unwrap().is_empty());
        assert_eq!(versions_of(&vault.store, "a").await, "1:1-");
        assert_eq!(vault.store.restore(&secret("a"), None).await.unwrap(), 1);
        assert_eq!(vault.get("a").await.unwrap().expose(), b"1");
        let again = vault.store.restore(&secret("a"), None).await;
        assert!(matches!(again, Err(StoreError::NotRemoved(_))));
        vault.store.delete(&secret("a")).await.unwrap();
        vault.set("a", b"22").await;
        assert_eq!(versions_of(&vault.store, "a").await, "2:2* 1:1-");
    }

    #[tokio::test]
    async fn an_old_value_is_restored_as_a_new_version_with_what_belongs_to_it() {
        let vault = Vault::new();
        let note = Note::parse("the first").unwrap();
        let far = 9_000_000_000_000;
        let attributes = Attributes { expires_unix_ms: Some(far), note: Some(note.clone()) };
        vault.store.set_with(&secret("a"), SecureBytes::copy_of(b"1"), attributes).await.unwrap();
        vault.set("a", b"22").await;
        assert_eq!(vault.store.restore(&secret("a"), Some(1)).await.unwrap(), 3);
        assert_eq!(vault.get("a").await.unwrap().expose(), b"1");
        let latest = vault.store.history(&secret("a")).await.unwrap().remove(0);
        assert_eq!((latest.expires_unix_ms, latest.note), (Some(far), Some(note)));
        let missing = vault.store.restore(&secret("a"), Some(9)).await;
        assert!(matches!(missing, Err(StoreError::NoSuchVersion { version: 9, .. })));
        vault.store.delete(&secret("a")).await.unwrap();
        assert_eq!(vault.store.restore(&secret("a"), Some(2)).await.unwrap(), 4);
        assert_eq!(versions_of(&vault.store, "a").await, "4:2* 3:1- 2:2 1:1");
    }

    #[tokio::test]
    async fn purging_removes_old_versions_and_what_is_left_of_a_removed_secret() {
        let vault = Vault::new();
        for name in ["a", "b"] {
            for value in [&b"1"[..], b"22"] {
                vault.set(name, value).await;
            }
        }
        assert_eq!(vault.store.purge(&secret("a")).await.unwrap(), 1);
        assert_eq!(vault.store.purge(&secret("a")).await.unwrap(), 0);
        assert_eq!(versions_of(&vault.store, "a").await, "2:2*");
        vault.store.delete(&secret("b")).await.unwrap();
        assert_eq!(vault.store.purge(&secret("b")).await.unwrap(), 2);
        assert!(matches!(vault.store.purge(&secret("b")).await, Err(StoreError::NotFound(_))));
        assert_eq!(vault.ask::<i64>("SELECT count(*) FROM secrets"), 1);
    }

    /// `secure_delete` overwrites rows in the database; their older pages still stand in the log.
    #[tokio::test]
    async fn purging_empties_the_write_ahead_log() {
        let vault = Vault::new();
        vault.set("a", &[1; 100]).await;
        vault.set("a", b"new").await;
        let log_bytes = || std::fs::metadata(vault.folder.path().join("vault.db-wal")).unwrap().len();
        assert_ne!(log_bytes(), 0);
        vault.store.purge(&secret("a")).await.unwrap();
        assert_eq!(log_bytes(), 0);
    }

    #[tokio::test]
    async fn a_moved_secret_takes_its_history_along() {
        let vault = Vault::new();
        vault.set("a", b"1").await;
        vault.store.delete(&secret("a")).await.unwrap();
        vault.set("a", b"22").await;
        vault.store.rename(&secret("a"), &secret("new/a")).await.unwrap();
        assert!(matches!(vault.get("a").await, Err(StoreError::NotFound(_))));
        assert!(matches!(vault.store.history(&secret("a")).await, Err(StoreError::NotFound(_))));
        assert_eq!(versions_of(&vault.store, "new/a").await, "2:2* 1:1-");
        assert_eq!(vault.get("new/a").await.unwrap().expose(), b"22");
        assert_eq!(vault.store.get_version(&secret("new/a"), 1).await.unwrap().expose(), b"1");
    }

    #[tokio::test]
    async fn nothing_moves_onto_another_secret_or_from_nowhere() {
        let vault = Vault::new();
        for name in ["a", "b", "gone"] {
            vault.set(name, name.as_bytes()).await;
        }
        vault.store.delete(&secret("gone")).await.unwrap();
        for (to, expected) in [("b", false), ("gone", true), ("a", false)] {
            let refused = vault.store.rename(&secret("a"), &secret(to)).await.unwrap_err();
            assert!(matches!(refused, StoreError::Exists { removed, .. } if removed == expected), "{to}");
        }
        for from in ["none", "gone"] {
            let refused = vault.store.rename(&secret(from), &secret("c")).await.unwrap_err();
            assert!(matches!(refused, StoreError::NotFound(_)), "{from}");
        }
        assert_eq!(vault.get("a").await.unwrap().expose(), b"a");
        assert_eq!(vault.get("b").await.unwrap().expose(), b"b");
    }

    #[tokio::test]
    async fn a_move_that_fails_half_way_changes_nothing() {
        let vault = Vault::new();
        vault.set("a", b"1").await;
        vault.set("a", b"22").await;
        vault.execute("UPDATE secrets SET tag = zeroblob(16) WHERE version = 1");
        let moved = vault.store.rename(&secret("a"), &secret("b")).await;
        assert!(matches!(moved, Err(StoreError::Damaged(Damage::Value(name))) if name.as_str() == "a"));
        assert_eq!(versions_of(&vault.store, "a").await, "2:2* 1:1");
        assert!(matches!(vault.store.history(&secret("b")).await, Err(StoreError::NotFound(_))));
    }
}
