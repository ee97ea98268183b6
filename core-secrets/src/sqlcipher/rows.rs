//! All rows of a database, a bounded batch at a time, to be stored under other keys.

use std::sync::atomic::Ordering;

use core_crypto::SecureBytes;
use core_crypto::aead::TAG_BYTES;
use core_crypto::multiset_hash::MultisetHash;
use core_types::SecretName;
use rusqlite::params;
use zeroize::Zeroizing;

use super::change::Change;
use super::connection::failed;
use super::entries::open_row;
use super::freshness::element;
use super::schema::{Version, stored_name, unsigned, version_columns};
use super::{Inner, Open, SqlCipherStore};
use crate::freshness::Mark;
use crate::store::StoreError;

/// Most rows of a batch.
const BATCH_ROWS: usize = 512;
/// Most bytes of the values of a batch, unless a single one has more.
const BATCH_BYTES: usize = 1 << 20;

/// A row with its opened value.
pub(crate) struct StoredRow {
    name: SecretName,
    version: Version,
    value: SecureBytes,
}

/// Where a batch ended, so that the next one begins after it.
#[derive(Clone)]
pub(crate) struct Place(SecretName, i64);

impl StoredRow {
    pub(crate) fn place(&self) -> Place {
        Place(self.name.clone(), self.version.number)
    }

    /// All that two rows have in common which differ only in the keys that they are stored under.
    fn content(&self) -> Zeroizing<Vec<u8>> {
        let plain = Version { tag: [0; TAG_BYTES], ..self.version.clone() };
        let head = element(&self.name, &plain);
        let mut content = Zeroizing::new(Vec::with_capacity(head.len() + self.value.len()));
        content.extend_from_slice(&head);
        content.extend_from_slice(self.value.expose());
        content
    }
}

/// A number of rows and the hash over what is in them; the same for the same rows, whatever keys they are stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    hash: MultisetHash,
}

impl Tally {
    pub(crate) const EMPTY: Self = Self { rows: 0, hash: MultisetHash::EMPTY };

    /// This and some rows more; `key` is the same for all that are compared.
    pub(crate) fn with(self, key: &SecureBytes, rows: &[StoredRow]) -> Self {
        let contents: Vec<_> = rows.iter().map(StoredRow::content).collect();
        let hash = self.hash.with(key, contents.iter().map(|content| content.as_slice()));
        Self { rows: self.rows + rows.len() as u64, hash }
    }
}

impl SqlCipherStore {
    /// Lets nothing be changed until it is called again with `false`. What is under way is waited for. Blocks.
    pub(crate) fn freeze(&self, frozen: bool) {
        let _no_change_under_way = self.inner.lock_open();
        self.inner.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Whether nothing can be changed.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.inner.frozen.load(Ordering::SeqCst)
    }

    /// How many rows there are. Blocks.
    ///
    /// # Errors
    /// They could not be counted.
    pub(crate) fn count_rows(&self) -> Result<u64, StoreError> {
        let open = self.inner.lock_open();
        let connection = &open.as_ref().ok_or(StoreError::Closed)?.connection;
        let counted = connection.query_row("SELECT count(*) FROM secrets", [], |row| row.get(0));
        counted.map(unsigned).map_err(failed("count the secrets"))
    }

    /// The rows after a place, in order: some of them, and none only at the end. Blocks.
    ///
    /// # Errors
    /// One of them is damaged, or could not be read.
    pub(crate) fn rows_after(&self, place: Option<&Place>) -> Result<Vec<StoredRow>, StoreError> {
        let open = self.inner.lock_open();
        rows_after(&self.inner, open.as_ref().ok_or(StoreError::Closed)?, place)
    }

    /// Stores rows of another database as they are, sealed with the keys of this one. Blocks.
    ///
    /// # Errors
    /// None of them was stored.
    pub(crate) fn adopt(&self, rows: &[StoredRow]) -> Result<(), StoreError> {
        let mut open = self.inner.lock_open();
        let mut change =
            Change::begin(&self.inner, open.as_mut().ok_or(StoreError::Closed)?, "copy the vault")?;
        for row in rows {
            change.insert(&row.name, row.version.clone(), &row.value)?;
        }
        change.commit()
    }

    /// Takes the rows that are there for the right ones, at a generation above `above`, so that nobody takes a copy of
    /// the database for an older state of what it is a copy of. Blocks.
    ///
    /// # Errors
    /// It could not be written.
    pub(crate) fn settle(&self, above: u64) -> Result<(), StoreError> {
        let mut open = self.inner.lock_open();
        let change = Change::begin(&self.inner, open.as_mut().ok_or(StoreError::Closed)?, "copy the vault")?;
        change.accept(Mark::default(), above)
    }
}

fn rows_after(inner: &Inner, open: &Open, place: Option<&Place>) -> Result<Vec<StoredRow>, StoreError> {
    let action = "read all secrets";
    let (name, version) = place.map_or(("", 0), |Place(name, version)| (name.as_str(), *version));
    let mut statement = open
        .connection
        .prepare_cached(concat!(
            "SELECT ",
            version_columns!(),
            ", value, name FROM secrets WHERE (name, version) > (?1, ?2) ORDER BY name, version"
        ))
        .map_err(failed(action))?;
    let mut found = statement.query(params![name, version]).map_err(failed(action))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while rows.len() < BATCH_ROWS
        && bytes < BATCH_BYTES
        && let Some(row) = found.next().map_err(failed(action))?
    {
        let name = stored_name(row.get(9).map_err(failed(action))?)?;
        let version = Version::from_row(row, 0).map_err(failed(action))?;
        let value = open_row(inner, &open.entry_key, &name, row)?;
        bytes += value.len();
        rows.push(StoredRow { name, version, value });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Vault, secret};
    use super::super::{Attributes, SqlCipherStore};
    use super::*;
    use crate::store::SecretsStore;

    fn copied(from: &SqlCipherStore, to: &SqlCipherStore) -> usize {
        let (mut place, mut batches) = (None, 0);
        loop {
            let rows = from.rows_after(place.as_ref()).unwrap();
            let Some(last) = rows.last() else { return batches };
            place = Some(last.place());
            to.adopt(&rows).unwrap();
            batches += 1;
        }
    }

    fn tally(store: &SqlCipherStore, key: &SecureBytes) -> Tally {
        let (mut place, mut tally) = (None, Tally::EMPTY);
        loop {
            let rows = store.rows_after(place.as_ref()).unwrap();
            let Some(last) = rows.last() else { return tally };
            place = Some(last.place());
            tally = tally.with(key, &rows);
        }
    }

    #[tokio::test]
    async fn every_version_arrives_as_it_was_in_bounded_batches() {
        let (from, to) = (Vault::new(), Vault::new());
        for number in 0..600 {
            from.set(&format!("many/{number}"), format!("value {number}").as_bytes()).await;
        }
        for size in [0, 1 << 20, 1 << 20] {
            from.set("large", &vec![7; size]).await;
        }
        let noted = Attributes { expires_unix_ms: Some(u64::MAX >> 2), ..Attributes::default() };
        from.store.set_with(&secret("expires"), SecureBytes::copy_of(b"x"), noted).await.unwrap();
        from.set("removed", b"old").await;
        from.store.delete(&secret("removed")).await.unwrap();
        let batches = copied(&from.store, &to.store);
        assert!(batches >= 4, "{batches}");
        let key = SecureBytes::random(32).unwrap();
        assert_eq!(tally(&from.store, &key), tally(&to.store, &key));
        assert_eq!(to.store.count_rows().unwrap(), 600 + 3 + 1 + 1);
        assert_eq!(to.get("large").await.unwrap().len(), 1 << 20);
        assert!(matches!(to.get("removed").await, Err(StoreError::NotFound(_))));
        assert_eq!(to.store.restore(&secret("removed"), None).await.unwrap(), 1);
        let history = |vault: &Vault| vault.store.clone();
        for name in ["large", "expires"] {
            let (one, other) =
                (history(&from).history(&secret(name)).await, history(&to).history(&secret(name)).await);
            assert_eq!(one.unwrap(), other.unwrap(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_tally_sees_each_change_of_a_row() {
        let key = SecureBytes::random(32).unwrap();
        let vault = Vault::new();
        vault.set("a", b"one").await;
        let before = tally(&vault.store, &key);
        let (mark, none) = vault.store.verify().unwrap();
        assert_eq!(none, None);
        for change in [
            "UPDATE secrets SET created_at = created_at + 1",
            "UPDATE secrets SET expires_at = 5",
            "UPDATE secrets SET note = 'n'",
            "UPDATE secrets SET removed_at = 5",
        ] {
            vault.execute("BEGIN");
            vault.execute(change);
            assert_ne!(tally(&vault.store, &key), before, "{change}");
            vault.execute("ROLLBACK");
        }
        vault.set("a", b"two").await;
        assert_ne!(tally(&vault.store, &key), before);
        vault.store.settle(mark.generation + 10).unwrap();
        let (settled, none) = vault.store.verify().unwrap();
        assert_eq!((settled.generation, none), (mark.generation + 11, None));
    }

    #[tokio::test]
    async fn what_is_frozen_can_be_read_and_not_changed() {
        let vault = Vault::new();
        vault.set("a", b"one").await;
        vault.store.freeze(true);
        let set = vault.store.set(&secret("a"), SecureBytes::copy_of(b"two")).await;
        assert!(matches!(set, Err(StoreError::Rekeying)));
        assert!(matches!(vault.store.delete(&secret("a")).await, Err(StoreError::Rekeying)));
        assert_eq!(vault.get("a").await.unwrap().expose(), b"one");
        vault.store.freeze(false);
        vault.set("a", b"two").await;
    }
}
