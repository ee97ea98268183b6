//! A write transaction over the rows: the only way any of them is changed.

use std::sync::atomic::Ordering;

use core_crypto::SecureBytes;
use core_crypto::aead::TAG_BYTES;
use core_crypto::multiset_hash::MultisetHash;
use core_types::SecretName;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::connection::failed;
use super::entries::{open_version, seal};
use super::freshness::{element, record, recorded, scan};
use super::schema::{Version, signed, version_columns};
use super::{Inner, Open};
use crate::anchor::Anchor;
use crate::freshness::{Anchored, Mark};
use crate::store::{Damage, StoreError};

/// A transaction that has not been committed; dropped, it changes nothing.
pub(super) struct Change<'a> {
    inner: &'a Inner,
    entry_key: &'a SecureBytes,
    freshness_key: &'a SecureBytes,
    anchor: Option<&'a mut Anchor>,
    state: &'a mut Option<Mark>,
    transaction: Transaction<'a>,
    action: &'static str,
    before: Mark,
    generation: u64,
    digest: MultisetHash,
    /// The state of which a row, or that which was found, says that it is the present one.
    recorded: Mark,
}

/// The number of the first version of a name.
const FIRST_VERSION: i64 = 1;

/// What is kept of a version beside its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Beside {
    /// From when on it is not given any more, in milliseconds of the Unix epoch.
    pub(super) expires_at: Option<i64>,
    /// What was noted down.
    pub(super) note: Option<String>,
}

impl<'a> Change<'a> {
    /// Begins to write, unless the vault may only be read. `action` is what it is for, as a verb with its object.
    pub(super) fn begin(
        inner: &'a Inner,
        open: &'a mut Open,
        action: &'static str,
    ) -> Result<Self, StoreError> {
        if inner.rollback().is_some() {
            return Err(StoreError::ReadOnly);
        }
        if inner.frozen.load(Ordering::SeqCst) {
            return Err(StoreError::Rekeying);
        }
        Self::begin_anyhow(inner, open, action)
    }

    /// As [`Self::begin`], also where the vault may only be read.
    pub(super) fn begin_anyhow(
        inner: &'a Inner,
        open: &'a mut Open,
        action: &'static str,
    ) -> Result<Self, StoreError> {
        let Open { connection, entry_key, freshness_key, anchor, state, log_room } = open;
        log_room.before_change();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(action))?;
        let before = state.map_or_else(|| recorded(&transaction), Ok)?;
        let (generation, digest) = (before.generation, MultisetHash::from_bytes(&before.digest));
        let (anchor, recorded) = (anchor.as_mut(), before);
        Ok(Self {
            inner,
            entry_key,
            freshness_key,
            anchor,
            state,
            transaction,
            action,
            before,
            generation,
            digest,
            recorded,
        })
    }

    /// The latest version of a name, be it removed or not.
    pub(super) fn latest(&self, name: &SecretName) -> Result<Option<Version>, StoreError> {
        latest(&self.transaction, name, self.action)
    }

    /// The versions of a name, the latest first.
    pub(super) fn versions(&self, name: &SecretName) -> Result<Vec<Version>, StoreError> {
        versions(&self.transaction, name, i64::MAX, self.action)
    }

    /// A version of a name with its opened value.
    pub(super) fn open(&self, name: &SecretName, number: i64) -> Result<(Version, SecureBytes), StoreError> {
        open_version(self.inner, &self.transaction, self.entry_key, name, number)
    }

    /// Adds the version after `before`, the latest; its number. Versions beyond those that are kept go.
    pub(super) fn add(
        &mut self,
        name: &SecretName,
        before: Option<&Version>,
        value: &SecureBytes,
        beside: Beside,
    ) -> Result<i64, StoreError> {
        let now = self.inner.now_unix_ms();
        let number = before
            .map_or(0, |version| version.number)
            .checked_add(1)
            .ok_or(StoreError::Damaged(Damage::Value(name.clone())))?;
        let Beside { expires_at, note } = beside;
        let created_at = before.map_or(now, |version| version.created_at);
        let (tag, sealed_bytes) = ([0; TAG_BYTES], 0);
        let version = Version {
            number,
            created_at,
            updated_at: now,
            expires_at,
            removed_at: None,
            tag,
            note,
            sealed_bytes,
        };
        // First, so that the state after it all is that of the new row.
        self.delete_up_to(name, number.saturating_sub(1).saturating_sub(self.inner.old_versions()))?;
        self.insert(name, version, value)?;
        Ok(number)
    }

    /// Adds a version with a value, which is sealed for it.
    pub(super) fn insert(
        &mut self,
        name: &SecretName,
        mut version: Version,
        value: &SecureBytes,
    ) -> Result<(), StoreError> {
        let (sealed, tag) = seal(self.inner, self.entry_key, name, version.number, value)?;
        version.tag = tag;
        version.sealed_bytes = i64::try_from(sealed.len()).unwrap_or(i64::MAX);
        self.digest = self.digest.with(self.freshness_key, [element(name, &version).as_slice()]);
        let mark = self.next_mark()?;
        self.transaction
            .prepare_cached(
                "INSERT INTO secrets
                     (name, version, created_at, updated_at, expires_at, removed_at, tag, note, generation, digest, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    name.as_str(),
                    version.number,
                    version.created_at,
                    version.updated_at,
                    version.expires_at,
                    version.removed_at,
                    version.tag,
                    version.note,
                    signed(mark.generation),
                    mark.digest,
                    sealed,
                ])
            })
            .map_err(failed(self.action))?;
        self.recorded = mark;
        Ok(())
    }

    /// Marks a version as removed, or takes the mark away.
    pub(super) fn mark(
        &mut self,
        name: &SecretName,
        version: &Version,
        removed_at: Option<i64>,
    ) -> Result<(), StoreError> {
        let marked = Version { removed_at, ..version.clone() };
        self.digest = self
            .digest
            .without(self.freshness_key, [element(name, version).as_slice()])
            .with(self.freshness_key, [element(name, &marked).as_slice()]);
        let mark = self.next_mark()?;
        self.transaction
            .prepare_cached(
                "UPDATE secrets SET removed_at = ?3, generation = ?4, digest = ?5
                 WHERE name = ?1 AND version = ?2",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    name.as_str(),
                    version.number,
                    removed_at,
                    signed(mark.generation),
                    mark.digest,
                ])
            })
            .map_err(failed(self.action))?;
        self.recorded = mark;
        Ok(())
    }

    /// Deletes the versions of a name up to a number, for good; how many there were.
    pub(super) fn delete_up_to(&mut self, name: &SecretName, last: i64) -> Result<u64, StoreError> {
        if last < FIRST_VERSION {
            return Ok(0);
        }
        let old = versions(&self.transaction, name, last, self.action)?;
        for version in &old {
            self.transaction
                .prepare_cached("DELETE FROM secrets WHERE name = ?1 AND version = ?2")
                .and_then(|mut statement| statement.execute(params![name.as_str(), version.number]))
                .map_err(failed(self.action))?;
            self.digest = self.digest.without(self.freshness_key, [element(name, version).as_slice()]);
        }
        Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
    }

    /// The state with what was changed until now.
    fn next_mark(&mut self) -> Result<Mark, StoreError> {
        let generation = self.generation.checked_add(1);
        self.generation = generation.ok_or(StoreError::Damaged(Damage::NoState))?;
        Ok(Mark { generation: self.generation, digest: self.digest.to_bytes() })
    }

    /// Makes the changes durable, and then known to the anchor.
    pub(super) fn commit(mut self) -> Result<(), StoreError> {
        if self.generation == self.before.generation && self.digest.to_bytes() == self.before.digest {
            // Nothing was changed.
            return self.transaction.commit().map_err(failed(self.action));
        }
        if self.recorded.digest != self.digest.to_bytes() {
            self.recorded = self.next_mark()?;
            record(&self.transaction, &self.recorded)?;
        }
        self.commit_recorded(|_| {})
    }

    /// Takes the rows as they are for the right ones, at a generation above all that are known of.
    pub(super) fn accept(mut self, header: Mark, above: u64) -> Result<(), StoreError> {
        let digest = scan(&self.transaction, self.freshness_key)?.digest.to_bytes();
        let generation = self.before.generation.max(above).saturating_add(1);
        self.recorded = Mark { generation, digest };
        record(&self.transaction, &self.recorded)?;
        self.commit_recorded(|anchored| anchored.header = header)
    }

    fn commit_recorded(self, anchoring: impl FnOnce(&mut Anchored)) -> Result<(), StoreError> {
        // Where it fails, what is on the disk is read again.
        *self.state = None;
        self.transaction.commit().map_err(failed(self.action))?;
        *self.state = Some(self.recorded);
        self.inner.note_generation(self.recorded.generation);
        let Some(anchor) = self.anchor else { return Ok(()) };
        let anchored = anchor.update(|anchored| {
            anchored.database = self.recorded;
            anchoring(anchored);
        });
        anchored.map_err(StoreError::Anchor)
    }
}

/// The latest version of a name, be it removed or not.
pub(super) fn latest(
    connection: &Connection,
    name: &SecretName,
    action: &'static str,
) -> Result<Option<Version>, StoreError> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            version_columns!(),
            " FROM secrets WHERE name = ?1 ORDER BY version DESC LIMIT 1"
        ))
        .and_then(|mut statement| {
            statement.query_row([name.as_str()], |row| Version::from_row(row, 0)).optional()
        })
        .map_err(failed(action))
}

/// The versions of a name up to a number, the latest first.
pub(super) fn versions(
    connection: &Connection,
    name: &SecretName,
    last: i64,
    action: &'static str,
) -> Result<Vec<Version>, StoreError> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            version_columns!(),
            " FROM secrets WHERE name = ?1 AND version <= ?2 ORDER BY version DESC"
        ))
        .and_then(|mut statement| {
            statement.query_map(params![name.as_str(), last], |row| Version::from_row(row, 0))?.collect()
        })
        .map_err(failed(action))
}
