//! The suite that every store must pass.

use core_crypto::SecureBytes;
use core_types::SecretName;

use crate::store::{SecretsStore, StoreError};

/// What a store did wrong.
#[derive(Debug, thiserror::Error)]
pub enum ComplianceFailure {
    /// An operation that must succeed failed.
    #[error("{case}: {source}")]
    Failed {
        /// The rule that was tried.
        case: &'static str,
        /// What the store said.
        source: StoreError,
    },
    /// An operation had another outcome than the rule says.
    #[error("{case}: the store does not keep this rule")]
    Broken {
        /// The rule that was tried.
        case: &'static str,
    },
}

/// Values that a careless store changes: nothing, NUL, line feeds, no UTF-8, and one of 1 MiB.
fn values() -> [Vec<u8>; 5] {
    [
        Vec::new(),
        b"s3cr\0et\n".to_vec(),
        vec![0xff, 0xfe, 0x00, 0x80],
        (0..=255).collect(),
        (0..1 << 20).map(|index: u32| index.to_le_bytes()[1]).collect(),
    ]
}

fn names() -> Result<[SecretName; 3], ComplianceFailure> {
    let name = |text| SecretName::parse(text).map_err(|_| ComplianceFailure::Broken { case: "names" });
    Ok([name("compliance/b")?, name("compliance/A")?, name("compliance/b.longer")?])
}

fn rule(case: &'static str, kept: bool) -> Result<(), ComplianceFailure> {
    if kept { Ok(()) } else { Err(ComplianceFailure::Broken { case }) }
}

fn done<T>(case: &'static str, result: Result<T, StoreError>) -> Result<T, ComplianceFailure> {
    result.map_err(|source| ComplianceFailure::Failed { case, source })
}

fn is_not_found<T>(result: &Result<T, StoreError>, name: &SecretName) -> bool {
    matches!(result, Err(StoreError::NotFound(missing)) if missing == name)
}

/// Runs the suite against a store that is empty, and leaves it empty.
///
/// # Errors
/// The first rule that the store does not keep.
pub async fn compliance_tests<S: SecretsStore>(store: &S) -> Result<(), ComplianceFailure> {
    let [first, second, third] = &names()?;
    absent_names_are_errors(store, first).await?;
    values_come_back(store, first).await?;

    let set = "a second name changes nothing under the first";
    done(set, store.set(second, SecureBytes::copy_of(b"two")).await)?;
    done(set, store.set(third, SecureBytes::copy_of(b"three")).await)?;
    rule(set, done(set, store.get(second).await)?.ct_eq(b"two"))?;

    let list = "every stored name is listed once, in order, and no other";
    let expected = [second.clone(), first.clone(), third.clone()];
    rule(list, done(list, store.list_keys().await)? == expected)?;

    let delete = "a deleted name is gone, and only it";
    done(delete, store.delete(second).await)?;
    rule(delete, is_not_found(&store.get(second).await, second))?;
    rule(delete, done(delete, store.list_keys().await)? == [first.clone(), third.clone()])?;
    rule(delete, is_not_found(&store.delete(second).await, second))?;

    let again = "a deleted name can be set again";
    done(again, store.set(second, SecureBytes::copy_of(b"new")).await)?;
    rule(again, done(again, store.get(second).await)?.ct_eq(b"new"))?;

    let cleanup = "after deleting all names the list is empty";
    for name in [first, second, third] {
        done(cleanup, store.delete(name).await)?;
    }
    rule(cleanup, done(cleanup, store.list_keys().await)?.is_empty())
}

async fn absent_names_are_errors<S: SecretsStore>(
    store: &S,
    name: &SecretName,
) -> Result<(), ComplianceFailure> {
    let get = "reading an absent name is the error NotFound";
    rule(get, is_not_found(&store.get(name).await, name))?;
    let delete = "deleting an absent name is the error NotFound";
    rule(delete, is_not_found(&store.delete(name).await, name))?;
    let list = "an empty store lists nothing";
    rule(list, done(list, store.list_keys().await)?.is_empty())
}

/// Each value is set over the one before.
async fn values_come_back<S: SecretsStore>(store: &S, name: &SecretName) -> Result<(), ComplianceFailure> {
    let case = "what was set last comes back with identical bytes";
    for value in values() {
        done(case, store.set(name, SecureBytes::copy_of(&value)).await)?;
        rule(case, done(case, store.get(name).await)?.expose() == value)?;
        rule(case, done(case, store.get(name).await)?.expose() == value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_store::InMemoryStore;

    /// A store with one fault, to see that the suite finds it.
    struct Faulty {
        inner: InMemoryStore,
        fault: Fault,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fault {
        TrimsValues,
        KeepsTheFirstValue,
        DeletesNothing,
        AbsentIsEmpty,
        DeletingAbsentIsFine,
        ListsNothing,
    }

    impl SecretsStore for Faulty {
        async fn get(&self, name: &SecretName) -> Result<SecureBytes, StoreError> {
            match self.inner.get(name).await {
                Ok(value) if self.fault == Fault::TrimsValues => {
                    Ok(SecureBytes::copy_of(value.expose().trim_ascii_end()))
                }
                Err(_) if self.fault == Fault::AbsentIsEmpty => Ok(SecureBytes::zeroed(0)),
                other => other,
            }
        }
        async fn set(&self, name: &SecretName, value: SecureBytes) -> Result<(), StoreError> {
            if self.fault == Fault::KeepsTheFirstValue && self.inner.get(name).await.is_ok() {
                return Ok(());
            }
            self.inner.set(name, value).await
        }
        async fn delete(&self, name: &SecretName) -> Result<(), StoreError> {
            match self.fault {
                Fault::DeletesNothing => self.inner.get(name).await.map(|_| ()),
                Fault::DeletingAbsentIsFine => self.inner.delete(name).await.or(Ok(())),
                _ => self.inner.delete(name).await,
            }
        }
        async fn list_keys(&self) -> Result<Vec<SecretName>, StoreError> {
            if self.fault == Fault::ListsNothing { Ok(Vec::new()) } else { self.inner.list_keys().await }
        }
    }

    #[tokio::test]
    async fn every_fault_is_found() {
        for fault in [
            Fault::TrimsValues,
            Fault::KeepsTheFirstValue,
            Fault::DeletesNothing,
            Fault::AbsentIsEmpty,
            Fault::DeletingAbsentIsFine,
            Fault::ListsNothing,
        ] {
            let store = Faulty { inner: InMemoryStore::default(), fault };
            assert!(compliance_tests(&store).await.is_err(), "{fault:?}");
        }
    }
}
