//! Many secrets in one transaction, and whether secrets have certain values.

use core_crypto::SecureBytes;
use core_types::SecretName;
use core_types::protocol::import::Comparison;

use super::change::{Beside, Change};
use super::connection::failed;
use super::entries::{Attributes, read};
use super::schema::{signed, unsigned};
use super::{Inner, Open};
use crate::store::StoreError;

/// A secret that is to be stored with others.
#[derive(Debug)]
pub struct Incoming {
    /// Its name.
    pub name: SecretName,
    /// Its value.
    pub value: SecureBytes,
    /// What is set beside it.
    pub attributes: Attributes,
    /// The version that is read until now; `None` where none is.
    pub replaces: Option<u64>,
}

pub(super) fn import(
    inner: &Inner,
    open: &mut Open,
    mut next: impl FnMut() -> Result<Option<Incoming>, StoreError>,
) -> Result<u64, StoreError> {
    let mut change = Change::begin(inner, open, "import secrets")?;
    let mut count = 0;
    while let Some(Incoming { name, value, attributes, replaces }) = next()? {
        let before = change.latest(&name)?;
        let read = before.as_ref().filter(|version| version.removed_at.is_none());
        match (read.map(|version| unsigned(version.number)), replaces) {
            (there, expected) if there == expected => {}
            (Some(_), None) => return Err(StoreError::Exists { name, removed: false }),
            _ => return Err(StoreError::Changed(name)),
        }
        let expires_at = attributes.expires_unix_ms.map(signed);
        let beside = Beside { expires_at, note: attributes.note.map(String::from) };
        change.add(&name, before.as_ref(), &value, beside)?;
        count += 1;
    }
    change.commit()?;
    Ok(count)
}

pub(super) fn compare(
    inner: &Inner,
    open: &mut Open,
    names: &[SecretName],
    values: &[SecureBytes],
) -> Result<Vec<Comparison>, StoreError> {
    let snapshot = open.connection.unchecked_transaction().map_err(failed("begin to read"))?;
    let mut found = Vec::with_capacity(names.len());
    for (name, value) in names.iter().zip(values) {
        found.push(match read(inner, open, name, usize::MAX) {
            Ok(stored) if stored.value.ct_eq(value.expose()) => Comparison::Same,
            Ok(_) | Err(StoreError::Expired { .. }) => Comparison::Different,
            Err(StoreError::NotFound(_)) => Comparison::Missing,
            Err(error) => return Err(error),
        });
    }
    snapshot.finish().map_err(failed("end to read"))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::SqlCipherStore;
    use super::super::testing::{Vault, secret};
    use super::*;
    use crate::store::SecretsStore;

    fn incoming(name: &str, value: &str, replaces: Option<u64>) -> Incoming {
        let value = SecureBytes::copy_of(value.as_bytes());
        Incoming { name: secret(name), value, attributes: Attributes::default(), replaces }
    }

    async fn import(store: &SqlCipherStore, secrets: Vec<Incoming>) -> Result<u64, StoreError> {
        let mut secrets = secrets.into_iter();
        store.import(move || Ok(secrets.next())).await
    }

    #[tokio::test]
    async fn many_secrets_are_one_change_that_the_digest_follows() {
        let vault = Vault::new();
        vault.set("there", b"old").await;
        vault.set("gone", b"x").await;
        vault.store.delete(&secret("gone")).await.unwrap();
        let mut many: Vec<_> =
            (0..300).map(|number| incoming(&format!("n/{number}"), &"v".repeat(number), None)).collect();
        many.push(incoming("there", "new", Some(1)));
        many.push(incoming("gone", "back", None));
        assert_eq!(import(&vault.store, many).await.unwrap(), 302);
        assert_eq!(vault.get("n/299").await.unwrap().len(), 299);
        assert_eq!(vault.get("there").await.unwrap().expose(), b"new");
        assert_eq!(vault.get("gone").await.unwrap().expose(), b"back");
        assert_eq!(vault.store.get_version(&secret("there"), 1).await.unwrap().expose(), b"old");
        let (mark, rollback) = vault.store.verify().unwrap();
        assert_eq!((rollback, mark.generation), (None, vault.store.generation()));
    }

    #[tokio::test]
    async fn one_that_cannot_be_stored_leaves_everything_as_it_was() {
        let vault = Vault::new();
        vault.set("there", b"old").await;
        let before = vault.store.verify().unwrap();
        let exists = import(&vault.store, vec![incoming("a", "1", None), incoming("there", "2", None)]).await;
        assert!(matches!(exists, Err(StoreError::Exists { removed: false, .. })));
        let changed = import(&vault.store, vec![incoming("a", "1", None), incoming("there", "2", Some(7))]);
        assert!(matches!(changed.await, Err(StoreError::Changed(_))));
        let missing = import(&vault.store, vec![incoming("a", "1", None), incoming("b", "2", Some(1))]);
        assert!(matches!(missing.await, Err(StoreError::Changed(_))));
        let twice = import(&vault.store, vec![incoming("a", "1", None), incoming("a", "2", None)]).await;
        assert!(matches!(twice, Err(StoreError::Exists { .. })));
        let mut first = Some(incoming("a", "1", None));
        let broken = vault.store.import(move || first.take().map(Some).ok_or(StoreError::Closed)).await;
        assert!(matches!(broken, Err(StoreError::Closed)));
        assert!(matches!(vault.get("a").await, Err(StoreError::NotFound(_))));
        assert_eq!(vault.get("there").await.unwrap().expose(), b"old");
        assert_eq!(vault.store.verify().unwrap(), before);
    }

    #[tokio::test]
    async fn values_are_compared_without_being_given() {
        let vault = Vault::new();
        vault.set("a", b"one").await;
        let late = Attributes { expires_unix_ms: Some(1), ..Attributes::default() };
        vault.store.set_with(&secret("late"), SecureBytes::copy_of(b"one"), late).await.unwrap();
        let names = ["a", "a", "late", "none"].map(secret).to_vec();
        let values = [&b"one"[..], b"two", b"one", b""].map(SecureBytes::copy_of).to_vec();
        let found = vault.store.compare(names, values).await.unwrap();
        let expected = [Comparison::Same, Comparison::Different, Comparison::Different, Comparison::Missing];
        assert_eq!(found, expected);
    }
}
