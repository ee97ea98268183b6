//! The database's own record of what its rows are: a generation that each change raises, and a digest over all rows that
//! follows each change of one. It stands in the row that was written last, or beside the rows.
//!
//! A page that is put back in an older state carries the authentication code of its page and is valid for SQLCipher.
//! But its rows are then not those of the digest, and a database of which all pages are old has an old generation.

use core_crypto::SecureBytes;
use core_crypto::multiset_hash::MultisetHash;
use core_types::SecretName;
use rusqlite::{Connection, OptionalExtension, params};

use super::connection::failed;
use super::entries::open_row;
use super::schema::{Version, signed, stored_name, unsigned, version_columns};
use super::{Inner, Open};
use crate::freshness::{Mark, Rollback};
use crate::store::{Damage, StoreError};

const READ_STATE: &str = "read the state of the vault";
/// Rows that are hashed at once.
const BATCH_ROWS: usize = 256;
/// Sealed values above this may lie partly in pages of their own, which the scan of the rows does not see.
const INLINE_BYTES: i64 = 256;
/// Up to so many bytes of such values in the whole vault, they are read and checked at unlocking as well. In a larger
/// vault that would make unlocking slow, and an old page of a value is found when that value is read.
const CHECKED_BYTES_MAX: u64 = 4 << 20;

/// The state that the database says it is in. Reads all rows.
pub(super) fn recorded(connection: &Connection) -> Result<Mark, StoreError> {
    let beside = recorded_beside(connection)?;
    let written = connection
        .prepare_cached("SELECT generation, digest FROM secrets ORDER BY generation DESC LIMIT 1")
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(failed(READ_STATE))?;
    let written = written.map(|(generation, digest)| Mark { generation: unsigned(generation), digest });
    Ok(later(beside, written))
}

fn later(beside: Mark, written: Option<Mark>) -> Mark {
    written.filter(|written| written.generation > beside.generation).unwrap_or(beside)
}

/// The state that stands beside the rows.
fn recorded_beside(connection: &Connection) -> Result<Mark, StoreError> {
    connection
        .prepare_cached("SELECT generation, digest FROM freshness WHERE id = 1")
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .map(|(generation, digest)| Mark { generation: unsigned(generation), digest })
        .map_err(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => StoreError::Damaged(Damage::NoState),
            other => failed(READ_STATE)(other),
        })
}

/// Writes the state down beside the rows; part of the transaction that made it.
pub(super) fn record(connection: &Connection, mark: &Mark) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE freshness SET generation = ?1, digest = ?2 WHERE id = 1")
        .and_then(|mut statement| statement.execute(params![signed(mark.generation), mark.digest]))
        .map_err(failed("write the state of the vault"))?;
    Ok(())
}

/// All that is known of a row without its value, in one way only: what the digest is made over.
pub(super) fn element(name: &SecretName, version: &Version) -> Vec<u8> {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    fn option(bytes: &mut Vec<u8>, number: Option<i64>) {
        bytes.push(u8::from(number.is_some()));
        bytes.extend_from_slice(&number.unwrap_or(0).to_be_bytes());
    }
    let mut bytes = Vec::with_capacity(160);
    text(&mut bytes, name.as_str());
    for number in [version.number, version.created_at, version.updated_at, version.sealed_bytes] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    option(&mut bytes, version.expires_at);
    option(&mut bytes, version.removed_at);
    bytes.extend_from_slice(&version.tag);
    bytes.push(u8::from(version.note.is_some()));
    text(&mut bytes, version.note.as_deref().unwrap_or_default());
    bytes
}

/// What a scan of all rows found.
pub(super) struct Scan {
    /// The digest over them.
    pub(super) digest: MultisetHash,
    /// Bytes of those values that may lie in pages of their own.
    large_bytes: u64,
    /// The latest state that a row was written in.
    written: Option<Mark>,
}

/// Reads all rows, and no value.
pub(super) fn scan(connection: &Connection, key: &SecureBytes) -> Result<Scan, StoreError> {
    let action = "check the vault";
    let mut statement = connection
        .prepare_cached(concat!("SELECT name, ", version_columns!(), ", generation, digest FROM secrets"))
        .map_err(failed(action))?;
    let mut rows = statement.query([]).map_err(failed(action))?;
    let mut scan = Scan { digest: MultisetHash::EMPTY, large_bytes: 0, written: None };
    let mut batch = Vec::with_capacity(BATCH_ROWS);
    while let Some(row) = rows.next().map_err(failed(action))? {
        let name = stored_name(row.get(0).map_err(failed(action))?)?;
        let version = Version::from_row(row, 1).map_err(failed(action))?;
        if version.sealed_bytes > INLINE_BYTES {
            scan.large_bytes = scan.large_bytes.saturating_add(unsigned(version.sealed_bytes));
        }
        let generation = unsigned(row.get(9).map_err(failed(action))?);
        if scan.written.is_none_or(|written| written.generation < generation) {
            scan.written = Some(Mark { generation, digest: row.get(10).map_err(failed(action))? });
        }
        batch.push(element(&name, &version));
        if batch.len() == BATCH_ROWS {
            scan.digest = scan.digest.with(key, batch.iter().map(Vec::as_slice));
            batch.clear();
        }
    }
    scan.digest = scan.digest.with(key, batch.iter().map(Vec::as_slice));
    Ok(scan)
}

/// Checks that the rows are those of the recorded digest and, in a vault of ordinary size, that their values are those
/// of their rows. What cannot be read is found here too, so that the rest of the vault can still be.
pub(super) fn verify(inner: &Inner, open: &Open) -> Result<(Mark, Option<Rollback>), StoreError> {
    let mut mark = Mark::default();
    match check(inner, open, &mut mark) {
        Ok(found) => Ok((mark, found)),
        Err(StoreError::Damaged(Damage::Value(name))) => Ok((mark, Some(Rollback::Value(name)))),
        Err(StoreError::Damaged(damage)) => Ok((mark, Some(Rollback::Damaged(damage)))),
        Err(error) => Err(error),
    }
}

/// `mark` is set to the state, as far as it was found.
fn check(inner: &Inner, open: &Open, mark: &mut Mark) -> Result<Option<Rollback>, StoreError> {
    *mark = recorded_beside(&open.connection)?;
    let scan = scan(&open.connection, &open.freshness_key)?;
    *mark = later(*mark, scan.written);
    if scan.digest.to_bytes() != mark.digest {
        return Ok(Some(Rollback::Mixed));
    }
    if scan.large_bytes <= CHECKED_BYTES_MAX {
        check_large_values(inner, open)?;
    }
    Ok(None)
}

fn check_large_values(inner: &Inner, open: &Open) -> Result<(), StoreError> {
    let action = "check the vault";
    let mut statement = open
        .connection
        .prepare_cached(concat!(
            "SELECT ",
            version_columns!(),
            ", value, name FROM secrets WHERE length(value) > ?1"
        ))
        .map_err(failed(action))?;
    let mut rows = statement.query([INLINE_BYTES]).map_err(failed(action))?;
    while let Some(row) = rows.next().map_err(failed(action))? {
        let name = stored_name(row.get(9).map_err(failed(action))?)?;
        open_row(inner, &open.entry_key, &name, row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Vault, secret};
    use crate::store::SecretsStore;

    /// A frame of the write-ahead log: its header and a page (<https://sqlite.org/fileformat2.html#walformat>).
    const FRAME_BYTES: u64 = 24 + 4096;

    #[tokio::test]
    async fn a_change_of_one_row_writes_one_page() {
        let vault = Vault::new();
        vault.set("a", b"1").await;
        let log_bytes = || std::fs::metadata(vault.folder.path().join("vault.db-wal")).unwrap().len();
        let before = log_bytes();
        vault.set("b", b"2").await;
        assert_eq!(log_bytes() - before, FRAME_BYTES);
        vault.store.delete(&secret("b")).await.unwrap();
        assert_eq!(log_bytes() - before, 2 * FRAME_BYTES);
    }

    /// The row that says what state the vault is in goes, with the next change or by itself.
    #[tokio::test]
    async fn the_state_outlives_the_row_that_it_stands_in() {
        let vault = Vault::new();
        let mut generation = 0;
        let mut check = |step: &str| {
            let (known, _) = vault.store.verify().unwrap();
            let (found, rollback) = vault.reopen().unwrap().verify().unwrap();
            assert_eq!((found, rollback), (known, None), "{step}");
            assert!(found.generation > generation, "{step}");
            generation = found.generation;
        };
        vault.set("a", b"1").await;
        check("a first row");
        vault.set("b", b"2").await;
        vault.store.delete(&secret("b")).await.unwrap();
        check("a mark in the row written last");
        vault.store.purge(&secret("b")).await.unwrap();
        check("the row written last is gone");
        vault.set("a", b"3").await;
        check("a row is written again");
        vault.store.purge(&secret("a")).await.unwrap();
        check("a row written before is gone");
        vault.store.rename(&secret("a"), &secret("c")).await.unwrap();
        check("all rows are others");
        vault.store.delete(&secret("c")).await.unwrap();
        vault.store.purge(&secret("c")).await.unwrap();
        check("no row is left");
    }

    /// As after a change that failed: nothing is remembered of the state.
    #[tokio::test]
    async fn a_change_begins_with_the_state_of_the_rows_where_none_is_known() {
        let vault = Vault::new();
        vault.set("a", b"1").await;
        let other = vault.reopen().unwrap();
        other.set(&secret("b"), core_crypto::SecureBytes::copy_of(b"2")).await.unwrap();
        let (found, rollback) = vault.reopen().unwrap().verify().unwrap();
        assert_eq!((found.generation, rollback), (2, None));
    }
}
