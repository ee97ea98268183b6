//! What is read and written of secrets, within one turn on the connection.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use core_crypto::{SecureBytes, aead};
use core_types::pattern::Pattern;
use core_types::{ProfileName, SecretName};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::connection::failed;
use super::{Inner, Open};
use crate::store::{Damage, StoreError};

/// Everything of a secret but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: SecretName,
    /// When the name was first set, in milliseconds of the Unix epoch.
    pub created_unix_ms: u64,
    /// When it was last set, in milliseconds of the Unix epoch.
    pub updated_unix_ms: u64,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, in order of their names.
    pub entries: Vec<Entry>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// What a value is sealed for. No name holds a NUL, so two places never have the same bytes.
fn place(profile: &ProfileName, name: &SecretName, version: i64) -> Vec<u8> {
    let mut place = format!("pds v2 entry\0{profile}\0{name}\0").into_bytes();
    place.extend_from_slice(&version.to_be_bytes());
    place
}

pub(super) fn read(
    inner: &Inner,
    open: &Open,
    name: &SecretName,
    bytes_max: usize,
) -> Result<SecureBytes, StoreError> {
    let action = "read a secret";
    let mut statement = open
        .connection
        .prepare_cached("SELECT version, value FROM secrets WHERE name = ?1")
        .map_err(failed(action))?;
    let mut rows = statement.query([name.as_str()]).map_err(failed(action))?;
    let row = rows.next().map_err(failed(action))?.ok_or_else(|| StoreError::NotFound(name.clone()))?;
    let version: i64 = row.get(0).map_err(failed(action))?;
    let sealed = row.get_ref(1).map_err(failed(action))?;
    let sealed = sealed.as_blob().map_err(|_| StoreError::Damaged(Damage::Value(name.clone())))?;
    if sealed.len().saturating_sub(aead::NONCE_BYTES + aead::TAG_BYTES) > bytes_max {
        return Err(StoreError::TooLarge { limit: bytes_max });
    }
    inner.decryptions.fetch_add(1, Ordering::Relaxed);
    aead::open(&open.entry_key, &place(&inner.profile, name, version), sealed)
        .map_err(|_| StoreError::Damaged(Damage::Value(name.clone())))
}

pub(super) fn get_many(
    inner: &Inner,
    open: &mut Open,
    names: &[SecretName],
    bytes_max: usize,
) -> Result<Vec<SecureBytes>, StoreError> {
    let snapshot = open.connection.unchecked_transaction().map_err(failed("begin to read"))?;
    let mut left = bytes_max;
    let mut values = Vec::with_capacity(names.len());
    for name in names {
        let value = read(inner, open, name, left).map_err(|error| match error {
            StoreError::TooLarge { .. } => StoreError::TooLarge { limit: bytes_max },
            other => other,
        })?;
        left -= value.len();
        values.push(value);
    }
    snapshot.finish().map_err(failed("end to read"))?;
    Ok(values)
}

pub(super) fn write(
    inner: &Inner,
    open: &mut Open,
    name: &SecretName,
    value: &SecureBytes,
) -> Result<(), StoreError> {
    let action = "write a secret";
    let now = now_unix_ms();
    let transaction =
        open.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(action))?;
    let before: Option<i64> = transaction
        .prepare_cached("SELECT version FROM secrets WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name.as_str()], |row| row.get(0)).optional())
        .map_err(failed(action))?;
    let version = before.unwrap_or(0).wrapping_add(1);
    let sealed = aead::seal(&open.entry_key, &place(&inner.profile, name, version), value.expose())
        .map_err(StoreError::Encrypt)?;
    transaction
        .prepare_cached(
            "INSERT INTO secrets (name, version, created_at, updated_at, value) VALUES (?1, ?2, ?3, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET version = ?2, updated_at = ?3, value = ?4",
        )
        .and_then(|mut statement| statement.execute(params![name.as_str(), version, now, sealed]))
        .map_err(failed(action))?;
    transaction.commit().map_err(failed(action))
}

pub(super) fn list(
    connection: &Connection,
    pattern: Option<&Pattern>,
    after: Option<&SecretName>,
    limit: usize,
) -> Result<Page, StoreError> {
    let action = "list the secrets";
    let mut statement = connection
        .prepare_cached("SELECT name, created_at, updated_at FROM secrets WHERE name > ?1 ORDER BY name")
        .map_err(failed(action))?;
    let mut rows = statement.query([after.map_or("", SecretName::as_str)]).map_err(failed(action))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(failed(action))? {
        let name: String = row.get(0).map_err(failed(action))?;
        let name = SecretName::parse(name).map_err(|_| StoreError::Damaged(Damage::Name))?;
        if pattern.is_some_and(|pattern| !pattern.matches(&name)) {
            continue;
        }
        if entries.len() == limit {
            return Ok(Page { entries, more: true });
        }
        let time = |column| row.get(column).map(|ms: i64| u64::try_from(ms).unwrap_or(0));
        entries.push(Entry {
            name,
            created_unix_ms: time(1).map_err(failed(action))?,
            updated_unix_ms: time(2).map_err(failed(action))?,
        });
    }
    Ok(Page { entries, more: false })
}

/// Milliseconds of the Unix epoch, as the clock of the machine has them.
fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::SqlCipherStore;
    use super::super::testing::{Vault, profile, secret};
    use super::*;
    use crate::store::SecretsStore;
    use std::collections::HashSet;

    fn is_damaged_value(result: Result<SecureBytes, StoreError>, name: &str) -> bool {
        matches!(result, Err(StoreError::Damaged(Damage::Value(damaged))) if damaged.as_str() == name)
    }

    #[tokio::test]
    async fn a_value_opens_only_in_its_own_profile_name_and_version() {
        let vault = Vault::new();
        vault.set("a", b"of a").await;
        vault.set("b", b"of b").await;
        let elsewhere = SqlCipherStore::open(&vault.path(), &profile("home"), &vault.key).unwrap();
        assert!(is_damaged_value(elsewhere.get(&secret("a")).await, "a"));
        vault.execute(
            "UPDATE secrets SET value = (SELECT value FROM secrets WHERE name = 'a') WHERE name = 'b'",
        );
        assert!(is_damaged_value(vault.get("b").await, "b"));
        vault.execute("UPDATE secrets SET version = version + 1 WHERE name = 'a'");
        assert!(is_damaged_value(vault.get("a").await, "a"));
    }

    #[tokio::test]
    async fn an_older_value_put_back_under_the_new_version_is_found() {
        let vault = Vault::new();
        vault.set("a", b"old").await;
        vault.execute("CREATE TABLE kept AS SELECT value FROM secrets");
        vault.set("a", b"new").await;
        vault.execute("UPDATE secrets SET value = (SELECT value FROM kept)");
        assert!(is_damaged_value(vault.get("a").await, "a"));
    }

    #[tokio::test]
    async fn nonces_are_unique_and_values_do_not_show_that_they_are_equal() {
        let vault = Vault::new();
        let mut sealed = HashSet::new();
        for _ in 0..200 {
            vault.set("a", b"same").await;
            let value: Vec<u8> = vault.ask("SELECT value FROM secrets");
            sealed.insert(value[..aead::NONCE_BYTES].to_vec());
        }
        assert_eq!(sealed.len(), 200);
    }

    #[tokio::test]
    async fn listing_decrypts_nothing() {
        let vault = Vault::new();
        vault.set("a", b"x").await;
        vault.set("b", b"y").await;
        assert_eq!(vault.store.list_keys().await.unwrap().len(), 2);
        vault.store.list(Some(Pattern::parse("*").unwrap()), None, 10).await.unwrap();
        assert_eq!(vault.store.decryptions(), 0);
        vault.get("a").await.unwrap();
        assert_eq!(vault.store.decryptions(), 1);
    }

    #[tokio::test]
    async fn created_at_stays_and_updated_at_moves() {
        let vault = Vault::new();
        vault.set("a", b"1").await;
        vault.execute("UPDATE secrets SET created_at = 5, updated_at = 6");
        vault.set("a", b"2").await;
        let entry = vault.store.list(None, None, 1).await.unwrap().entries.remove(0);
        assert_eq!(entry.created_unix_ms, 5);
        assert!(entry.updated_unix_ms > 1_700_000_000_000);
        assert_eq!(vault.ask::<i64>("SELECT version FROM secrets"), 2);
    }

    #[tokio::test]
    async fn a_listing_comes_in_pages_and_matches() {
        let vault = Vault::new();
        for name in ["db/a", "db/b", "db/c", "other", "Z"] {
            vault.set(name, b"").await;
        }
        let page = async |pattern: Option<&str>, after: Option<&str>, limit| {
            let pattern = pattern.map(|text| Pattern::parse(text).unwrap());
            let page = vault.store.list(pattern, after.map(secret), limit).await.unwrap();
            let names: Vec<String> = page.entries.into_iter().map(|entry| entry.name.into()).collect();
            (names.join(" "), page.more)
        };
        assert_eq!(page(None, None, 9).await, ("Z db/a db/b db/c other".to_owned(), false));
        assert_eq!(page(None, None, 2).await, ("Z db/a".to_owned(), true));
        assert_eq!(page(None, Some("db/a"), 3).await, ("db/b db/c other".to_owned(), false));
        assert_eq!(page(Some("db/*"), None, 3).await, ("db/a db/b db/c".to_owned(), false));
        assert_eq!(page(Some("db/*"), Some("db/b"), 9).await, ("db/c".to_owned(), false));
        assert_eq!(page(Some("none"), None, 9).await, (String::new(), false));
    }

    #[tokio::test]
    async fn a_batch_is_all_or_nothing() {
        let vault = Vault::new();
        vault.set("a", b"12345").await;
        vault.set("b", b"67").await;
        let names = |text: &str| text.split(' ').map(secret).collect::<Vec<_>>();
        let values = vault.store.get_many(names("b a b"), 9).await.unwrap();
        let values: Vec<&[u8]> = values.iter().map(SecureBytes::expose).collect();
        assert_eq!(values, [&b"67"[..], b"12345", b"67"]);
        let missing = vault.store.get_many(names("a none b"), 99).await;
        assert!(matches!(missing, Err(StoreError::NotFound(name)) if name.as_str() == "none"));
        let large = vault.store.get_many(names("a b"), 6).await;
        assert!(matches!(large, Err(StoreError::TooLarge { limit: 6 })));
        assert!(vault.store.get_many(Vec::new(), 0).await.unwrap().is_empty());
    }
}
