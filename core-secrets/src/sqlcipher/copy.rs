//! A copy of a whole database at one moment, and the check that such a copy is whole.

use std::path::Path;

use core_crypto::SecureBytes;
use rusqlite::ffi;

use super::connection::{connect, empty_log, failed};
use super::entries::open_row;
use super::schema::{stored_name, version_columns};
use super::{Inner, Open};
use crate::store::{Damage, StoreError};

/// Copies a database that others may be writing to into an empty file, under the same key: `VACUUM INTO` reads in one
/// transaction, which in write-ahead mode hinders no writer (<https://sqlite.org/lang_vacuum.html>). But it hinders a
/// purge from emptying the log, so that is done here once more.
pub(super) fn copy(from: &Path, vault_key: &SecureBytes, to: &Path) -> Result<(), StoreError> {
    let action = "copy the database";
    let to = to.to_str().ok_or_else(|| StoreError::Io {
        action,
        source: std::io::Error::new(std::io::ErrorKind::InvalidFilename, "its path is not UTF-8"),
    })?;
    let connection = connect(from, vault_key)?;
    let copied = connection.execute("VACUUM INTO ?1", [to]).map_err(failed(action));
    let copied = copied.and_then(|_rows| empty_log(&connection));
    let closed = connection.close().map_err(|(_connection, error)| failed(action)(error));
    copied.and(closed)
}

/// Checks the structure of the database, the authentication code of every page, and every value of every version.
pub(super) fn check_all(inner: &Inner, open: &Open) -> Result<(), StoreError> {
    let action = "check the database";
    for pragma in ["PRAGMA cipher_integrity_check", "PRAGMA integrity_check"] {
        let mut statement = open.connection.prepare(pragma).map_err(failed(action))?;
        let mut rows = statement.query([]).map_err(failed(action))?;
        while let Some(row) = rows.next().map_err(failed(action))? {
            // The first says nothing where nothing is wrong, the second one word.
            if row.get_ref(0).map_err(failed(action))?.as_str() != Ok("ok") {
                return Err(StoreError::Damaged(Damage::Database { code: ffi::SQLITE_CORRUPT }));
            }
        }
    }
    let mut statement = open
        .connection
        .prepare(concat!("SELECT ", version_columns!(), ", value, name FROM secrets"))
        .map_err(failed(action))?;
    let mut rows = statement.query([]).map_err(failed(action))?;
    while let Some(row) = rows.next().map_err(failed(action))? {
        let name = stored_name(row.get(9).map_err(failed(action))?)?;
        open_row(inner, &open.entry_key, &name, row)?;
    }
    Ok(())
}

#[cfg(test)]
impl super::SqlCipherStore {
    /// Gives one secret the sealed value of another, below the second layer.
    pub(crate) fn exchange_values(&self, of: &str, with: &str) {
        let open = self.inner.open.lock().unwrap();
        let sql = "UPDATE secrets SET value = (SELECT value FROM secrets WHERE name = ?2) WHERE name = ?1";
        open.as_ref().unwrap().connection.execute(sql, [of, with]).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqlCipherStore;
    use super::super::testing::{Vault, profile, secret};
    use super::*;
    use crate::store::SecretsStore;

    #[tokio::test]
    async fn a_copy_is_encrypted_with_the_same_key_and_holds_what_was_there() {
        let vault = Vault::new();
        for number in 0..50 {
            let value = format!("canary-93ab {number}").repeat(30);
            vault.set(&format!("name-5f1c/{number}"), value.as_bytes()).await;
        }
        let to = vault.folder.path().join("copy");
        core_crypto::private_fs::create_new(&to).unwrap();
        SqlCipherStore::copy(&vault.path(), &vault.key, &to).unwrap();
        vault.set("later", b"not in it").await;
        let bytes = std::fs::read(&to).unwrap();
        for plain in ["name-5f1c", "canary-93ab", "secrets", "SQLite format 3"] {
            assert!(!bytes.windows(plain.len()).any(|window| window == plain.as_bytes()), "{plain}");
        }
        let other = SecureBytes::random(32).unwrap();
        assert!(matches!(SqlCipherStore::open(&to, &profile("work"), &other), Err(StoreError::WrongKey)));
        let copy = SqlCipherStore::open(&to, &profile("work"), &vault.key).unwrap();
        copy.check_all().unwrap();
        assert_eq!(copy.list_keys().await.unwrap().len(), 50);
        assert!(copy.get(&secret("name-5f1c/7")).await.unwrap().expose().starts_with(b"canary-93ab 7"));
    }

    #[tokio::test]
    async fn the_check_finds_a_value_that_was_exchanged_below_the_second_layer() {
        let vault = Vault::new();
        vault.set("a", b"one").await;
        vault.set("b", b"two").await;
        vault.store.check_all().unwrap();
        vault.store.exchange_values("a", "b");
        let found = vault.store.check_all();
        assert!(matches!(found, Err(StoreError::Damaged(Damage::Value(name))) if name.as_str() == "a"));
    }
}
