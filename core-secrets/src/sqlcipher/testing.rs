//! A vault's database in a folder of its own, for the tests of the store.

use std::path::PathBuf;

use core_crypto::SecureBytes;
use core_types::{ProfileName, SecretName};

use super::SqlCipherStore;
use crate::store::{SecretsStore, StoreError};

pub(super) struct Vault {
    pub(super) folder: tempfile::TempDir,
    pub(super) key: SecureBytes,
    pub(super) store: SqlCipherStore,
}

impl Vault {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SecureBytes::random(32).unwrap();
        let store = SqlCipherStore::create(&folder.path().join("vault.db"), &profile("work"), &key).unwrap();
        Self { folder, key, store }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("vault.db")
    }

    pub(super) fn reopen(&self) -> Result<SqlCipherStore, StoreError> {
        SqlCipherStore::open(&self.path(), &profile("work"), &self.key)
    }

    /// Changes the database below the second layer.
    pub(super) fn execute(&self, sql: &str) {
        let open = self.store.inner.open.lock().unwrap();
        open.as_ref().unwrap().connection.execute_batch(sql).unwrap();
    }

    pub(super) fn ask<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let open = self.store.inner.open.lock().unwrap();
        open.as_ref().unwrap().connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    pub(super) async fn set(&self, name: &str, value: &[u8]) {
        self.store.set(&secret(name), SecureBytes::copy_of(value)).await.unwrap();
    }

    pub(super) async fn get(&self, name: &str) -> Result<SecureBytes, StoreError> {
        self.store.get(&secret(name)).await
    }
}

impl SqlCipherStore {
    /// Exchanges a secret's value for another below the second layer, with the digest as it should be.
    pub(crate) fn damage_value(&self, name: &str) {
        let open = self.inner.open.lock().unwrap();
        let sql = "UPDATE secrets SET value = zeroblob(length(value)) WHERE name = ?1";
        open.as_ref().unwrap().connection.execute(sql, [name]).unwrap();
    }
}

pub(super) fn profile(name: &str) -> ProfileName {
    ProfileName::parse(name).unwrap()
}

pub(super) fn secret(name: &str) -> SecretName {
    SecretName::parse(name).unwrap()
}
