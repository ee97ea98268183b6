//! The tables of a vault, and how a database shows that it has them.

use rusqlite::Connection;

use super::connection::failed;
use crate::store::{Damage, StoreError};

/// Format of the database, in `PRAGMA user_version`.
pub(super) const FORMAT: i64 = 1;

pub(super) const SCHEMA: &str = "
    CREATE TABLE secrets (
        name       TEXT PRIMARY KEY NOT NULL,
        version    INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        value      BLOB NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;
";

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
    fn a_later_format_is_named() {
        let vault = Vault::new();
        vault.execute("PRAGMA user_version = 7");
        vault.store.close().unwrap();
        let expected = Damage::Format { found: 7, expected: 1 };
        assert!(matches!(vault.reopen(), Err(StoreError::Damaged(damage)) if damage == expected));
    }
}
