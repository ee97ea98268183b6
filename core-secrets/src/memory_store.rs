//! A store that keeps everything in locked memory and nothing on disk, for tests.

use std::collections::BTreeMap;

use core_crypto::SecureBytes;
use core_types::SecretName;
use tokio::sync::RwLock;

use crate::store::{Fetch, Fetched, SecretsStore, StoreError};

/// Secrets in memory; they end with the value.
#[derive(Debug, Default)]
pub struct InMemoryStore {
    secrets: RwLock<BTreeMap<SecretName, SecureBytes>>,
}

impl SecretsStore for InMemoryStore {
    async fn get(&self, name: &SecretName) -> Result<SecureBytes, StoreError> {
        self.secrets.read().await.get(name).cloned().ok_or_else(|| StoreError::NotFound(name.clone()))
    }

    async fn set(&self, name: &SecretName, value: SecureBytes) -> Result<(), StoreError> {
        self.secrets.write().await.insert(name.clone(), value);
        Ok(())
    }

    async fn delete(&self, name: &SecretName) -> Result<(), StoreError> {
        match self.secrets.write().await.remove(name) {
            Some(_) => Ok(()),
            None => Err(StoreError::NotFound(name.clone())),
        }
    }

    async fn list_keys(&self) -> Result<Vec<SecretName>, StoreError> {
        Ok(self.secrets.read().await.keys().cloned().collect())
    }
}

impl Fetch for InMemoryStore {
    async fn fetch(&self, name: &SecretName) -> Result<Fetched, StoreError> {
        Ok(Fetched { value: self.get(name).await?, expires_unix_ms: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compliance::compliance_tests;

    #[tokio::test]
    async fn in_memory_store_passes_compliance() {
        compliance_tests(&InMemoryStore::default()).await.unwrap();
    }
}
