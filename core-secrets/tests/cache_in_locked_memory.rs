//! The cache under the limit on locked memory that an ordinary user has. In a process of its own, because it lowers
//! limits and asks what the whole process got.
#![allow(clippy::unwrap_used)] // clippy takes only functions marked as tests for tests

use std::sync::atomic::{AtomicUsize, Ordering};

use core_crypto::SecureBytes;
use core_crypto::memory::{Protection, protection};
use core_secrets::jit::{DEFAULT_TTL, JitDelivery};
use core_secrets::store::{Fetch, Fetched, SecretsStore, StoreError};
use core_types::SecretName;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

const SECRETS: usize = 5_000;
const VALUE_BYTES: usize = 1_024;
/// What Linux grants since 5.16, and systemd before.
const LOCK_LIMIT: u64 = 8 << 20;

/// A store that makes each value when it is read, so that all locked memory there is belongs to the cache.
#[derive(Default)]
struct MadeUp {
    reads: AtomicUsize,
}

impl SecretsStore for MadeUp {
    async fn get(&self, name: &SecretName) -> Result<SecureBytes, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(SecureBytes::copy_of(name.as_str().repeat(VALUE_BYTES).as_bytes()[..VALUE_BYTES].as_ref()))
    }
    async fn set(&self, _: &SecretName, _: SecureBytes) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    async fn delete(&self, _: &SecretName) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    async fn list_keys(&self) -> Result<Vec<SecretName>, StoreError> {
        Ok(Vec::new())
    }
}

impl Fetch for MadeUp {
    async fn fetch(&self, name: &SecretName) -> Result<Fetched, StoreError> {
        Ok(Fetched { value: self.get(name).await?, expires_unix_ms: None })
    }
}

/// As an unprivileged user's process has it, also when root runs the test.
fn limit_locked_memory() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    sets.permitted.remove(CapabilitySet::IPC_LOCK);
    sets.inheritable.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
    let limit = Rlimit { current: Some(LOCK_LIMIT), maximum: Some(LOCK_LIMIT) };
    setrlimit(Resource::Memlock, limit).unwrap();
}

#[tokio::test]
async fn five_thousand_secrets_are_cached_in_locked_memory() {
    limit_locked_memory();
    let jit = JitDelivery::new(MadeUp::default(), DEFAULT_TTL);
    let names: Vec<SecretName> =
        (0..SECRETS).map(|number| SecretName::parse(format!("service/{number}")).unwrap()).collect();
    for _ in 0..2 {
        for name in &names {
            let value = jit.resolve(name).await.unwrap();
            assert!(value.len() == VALUE_BYTES && value.expose().starts_with(name.as_str().as_bytes()));
        }
    }
    assert_eq!(jit.cached(), SECRETS);
    assert_eq!(jit.store().reads.load(Ordering::Relaxed), SECRETS, "the second round came from the cache");
    assert_ne!(protection(), Protection::Plain);
}
