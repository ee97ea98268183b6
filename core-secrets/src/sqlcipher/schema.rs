//! The table of a vault, what of a row can be read without its value, and how a database shows that it is a vault.

use core_crypto::aead::{NONCE_BYTES, TAG_BYTES};
use core_types::{ProfileName, SecretName};
use rusqlite::{Connection, Row};

use super::connection::failed;
use crate::store::{Damage, StoreError};

/// Format of the database, in `PRAGMA user_version`.
pub(super) const FORMAT: i64 = 3;

/// One row is one version of one secret; the latest of a name is the one that is read, unless it is removed.
///
/// The rows lie in the order of their names (`WITHOUT ROWID`), so that a listing reads each page once. The value
/// stands last, and its tag before it: what does not need the value never touches the pages that a large one spills
/// over.
///
/// `generation` and `digest` are the state of the whole database after the change that wrote the row: so a change of one
/// row writes one page. A change after which no such row is left writes the one row of `freshness`. The state with the
/// highest generation, of all these, is the present one.
pub(super) const SCHEMA: &str = "
    CREATE TABLE secrets (
        name       TEXT NOT NULL,
        version    INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        expires_at INTEGER,
        removed_at INTEGER,
        tag        BLOB NOT NULL,
        note       TEXT,
        generation INTEGER NOT NULL,
        digest     BLOB NOT NULL,
        value      BLOB NOT NULL,
        PRIMARY KEY (name, version)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE freshness (
        id         INTEGER PRIMARY KEY CHECK (id = 1),
        generation INTEGER NOT NULL,
        digest     BLOB NOT NULL
    ) STRICT;
    INSERT INTO freshness VALUES (1, 0, zeroblob(32));
    PRAGMA user_version = 3;
";

/// The columns that [`Version::from_row`] takes, in its order.
macro_rules! version_columns {
    () => {
        "version, created_at, updated_at, expires_at, removed_at, tag, note, length(value)"
    };
}
pub(super) use version_columns;

/// A version of a secret, all but its name and value. Times are milliseconds of the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// Counted from 1 for each name.
    pub(super) number: i64,
    /// When the name was first set.
    pub(super) created_at: i64,
    /// When this version was set.
    pub(super) updated_at: i64,
    /// From when on it is not given any more.
    pub(super) expires_at: Option<i64>,
    /// When the secret was removed whose latest version this was.
    pub(super) removed_at: Option<i64>,
    /// Authenticates the value, for its profile, name and version.
    pub(super) tag: [u8; TAG_BYTES],
    /// What the user noted down.
    pub(super) note: Option<String>,
    /// Bytes of the sealed value without its tag.
    pub(super) sealed_bytes: i64,
}

impl Version {
    /// Reads the columns of [`version_columns`] from a row, in which they begin at `first`.
    pub(super) fn from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(first)?,
            created_at: row.get(first + 1)?,
            updated_at: row.get(first + 2)?,
            expires_at: row.get(first + 3)?,
            removed_at: row.get(first + 4)?,
            tag: row.get(first + 5)?,
            note: row.get(first + 6)?,
            sealed_bytes: row.get(first + 7)?,
        })
    }

    /// Bytes of the value itself.
    pub(super) fn value_bytes(&self) -> u64 {
        unsigned(self.sealed_bytes).saturating_sub(NONCE_BYTES as u64)
    }
}

/// A number of the database as one of the interface; the database holds none below 0.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A number of the interface as one of the database, where a larger one means the end of time all the same.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What a value is sealed for. No name holds a NUL, so two places never have the same bytes.
pub(super) fn place(profile: &ProfileName, name: &SecretName, version: i64) -> Vec<u8> {
    let mut place = format!("pds v2 entry\0{profile}\0{name}\0").into_bytes();
    place.extend_from_slice(&version.to_be_bytes());
    place
}

/// A name as it is stored.
pub(super) fn stored_name(text: String) -> Result<SecretName, StoreError> {
    SecretName::parse(text).map_err(|_| StoreError::Damaged(Damage::Name))
}

pub(super) fn check_format(connection: &Connection) -> Result<(), StoreError> {
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed("read the format"))?;
    match found {
        FORMAT => Ok(()),
        0 => Err(StoreError::Damaged(Damage::NotAVault)),
        _ => Err(StoreError::Damaged(Damage::Format { found, expected: FORMAT })),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Vault;
    use super::*;

    #[test]
    fn an_earlier_or_later_format_is_named() {
        for found in [2, 7] {
            let vault = Vault::new();
            vault.execute(&format!("PRAGMA user_version = {found}"));
            vault.store.close().unwrap();
            let expected = Damage::Format { found, expected: FORMAT };
            assert!(matches!(vault.reopen(), Err(StoreError::Damaged(damage)) if damage == expected));
        }
    }
}
