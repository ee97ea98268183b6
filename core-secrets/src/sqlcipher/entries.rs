//! Reading, writing, removing and listing secrets, within one turn on the connection.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use core_crypto::SecureBytes;
use core_crypto::aead::{self, TAG_BYTES};
use core_types::pattern::Pattern;
use core_types::{Note, SecretName};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::change::{Beside, Change, latest};
use super::connection::failed;
use super::schema::{Version, place, signed, stored_name, unsigned, version_columns};
use super::{Inner, Open};
use crate::store::{Damage, Fetched, StoreError};

/// Most bytes of names and notes on one page of a listing, so that it fits into one answer.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Everything of a secret but its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: SecretName,
    /// When the name was first set, in milliseconds of the Unix epoch.
    pub created_unix_ms: u64,
    /// When it was last set, in milliseconds of the Unix epoch.
    pub updated_unix_ms: u64,
    /// Number of the version that is read.
    pub version: u64,
    /// How many versions are kept, this one among them.
    pub versions: u64,
    /// From when on it is not given any more, in milliseconds of the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// What was noted down.
    pub note: Option<Note>,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, in order of their names.
    pub entries: Vec<Entry>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// What is set beside a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// From when on the value is not given any more, in milliseconds of the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// What the user wants to know of it.
    pub note: Option<Note>,
}

/// A stored value, still sealed, and where it belongs.
struct Sealed<'a> {
    name: &'a SecretName,
    version: Version,
    value: Vec<u8>,
}

impl<'a> Sealed<'a> {
    /// Takes the columns of [`version_columns`] and the value after them from a row.
    fn from_row(name: &'a SecretName, row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { name, version: Version::from_row(row, 0)?, value: row.get(8)? })
    }

    fn open(&self, inner: &Inner, entry_key: &SecureBytes) -> Result<SecureBytes, StoreError> {
        inner.decryptions.fetch_add(1, Ordering::Relaxed);
        let place = place(&inner.profile, self.name, self.version.number);
        aead::open_detached(entry_key, &place, &self.value, &self.version.tag)
            .map_err(|_| StoreError::Damaged(Damage::Value(self.name.clone())))
    }
}

/// Opens the value of a row, which has the columns of [`version_columns`] and the value after them.
pub(super) fn open_row(
    inner: &Inner,
    entry_key: &SecureBytes,
    name: &SecretName,
    row: &Row<'_>,
) -> Result<SecureBytes, StoreError> {
    Sealed::from_row(name, row).map_err(failed("read a value"))?.open(inner, entry_key)
}

/// A version of a secret with its opened value, in a transaction or outside of one.
pub(super) fn open_version(
    inner: &Inner,
    connection: &Connection,
    entry_key: &SecureBytes,
    name: &SecretName,
    number: i64,
) -> Result<(Version, SecureBytes), StoreError> {
    let sealed = connection
        .prepare_cached(concat!(
            "SELECT ",
            version_columns!(),
            ", value FROM secrets WHERE name = ?1 AND version = ?2"
        ))
        .and_then(|mut statement| {
            statement.query_row(params![name.as_str(), number], |row| Sealed::from_row(name, row)).optional()
        })
        .map_err(failed("read a version"))?
        .ok_or_else(|| StoreError::NoSuchVersion { name: name.clone(), version: unsigned(number) })?;
    let value = sealed.open(inner, entry_key)?;
    Ok((sealed.version, value))
}

/// Seals a value for its place: the sealed bytes and their tag.
pub(super) fn seal(
    inner: &Inner,
    entry_key: &SecureBytes,
    name: &SecretName,
    version: i64,
    value: &SecureBytes,
) -> Result<(Vec<u8>, [u8; TAG_BYTES]), StoreError> {
    let mut sealed = aead::seal(entry_key, &place(&inner.profile, name, version), value.expose())
        .map_err(StoreError::Encrypt)?;
    let tag = *sealed.last_chunk().ok_or(StoreError::Encrypt(aead::AeadError::TooShort))?;
    sealed.truncate(sealed.len() - TAG_BYTES);
    Ok((sealed, tag))
}

/// Reads the latest version of a secret that has at most `bytes_max` bytes.
pub(super) fn read(
    inner: &Inner,
    open: &Open,
    name: &SecretName,
    bytes_max: usize,
) -> Result<Fetched, StoreError> {
    let action = "read a secret";
    let mut statement = open
        .connection
        .prepare_cached(concat!(
            "SELECT ",
            version_columns!(),
            ", value FROM secrets WHERE name = ?1 ORDER BY version DESC LIMIT 1"
        ))
        .map_err(failed(action))?;
    let mut rows = statement.query([name.as_str()]).map_err(failed(action))?;
    let row = rows.next().map_err(failed(action))?.ok_or_else(|| StoreError::NotFound(name.clone()))?;
    let version = Version::from_row(row, 0).map_err(failed(action))?;
    if version.removed_at.is_some() {
        return Err(StoreError::NotFound(name.clone()));
    }
    check_expiry(inner, name, version.expires_at)?;
    if usize::try_from(version.value_bytes()).unwrap_or(usize::MAX) > bytes_max {
        return Err(StoreError::TooLarge { limit: bytes_max });
    }
    let value = open_row(inner, &open.entry_key, name, row)?;
    Ok(Fetched { value, expires_unix_ms: version.expires_at.map(unsigned) })
}

/// Reads an older version, or the latest by its number, of a secret that is not removed.
pub(super) fn read_version(
    inner: &Inner,
    open: &Open,
    name: &SecretName,
    number: u64,
) -> Result<SecureBytes, StoreError> {
    let latest = latest(&open.connection, name, "read a version")?;
    if latest.is_none_or(|latest| latest.removed_at.is_some()) {
        return Err(StoreError::NotFound(name.clone()));
    }
    let number = i64::try_from(number)
        .map_err(|_| StoreError::NoSuchVersion { name: name.clone(), version: number })?;
    let (version, value) = open_version(inner, &open.connection, &open.entry_key, name, number)?;
    check_expiry(inner, name, version.expires_at)?;
    Ok(value)
}

fn check_expiry(inner: &Inner, name: &SecretName, expires_at: Option<i64>) -> Result<(), StoreError> {
    match expires_at {
        Some(since) if since <= inner.now_unix_ms() => {
            Err(StoreError::Expired { name: name.clone(), since_unix_ms: unsigned(since) })
        }
        _ => Ok(()),
    }
}

pub(super) fn get_many(
    inner: &Inner,
    open: &mut Open,
    names: &[SecretName],
    bytes_max: usize,
) -> Result<Vec<Fetched>, StoreError> {
    let snapshot = open.connection.unchecked_transaction().map_err(failed("begin to read"))?;
    let mut left = bytes_max;
    let mut values = Vec::with_capacity(names.len());
    for name in names {
        let fetched = read(inner, open, name, left).map_err(|error| match error {
            StoreError::TooLarge { .. } => StoreError::TooLarge { limit: bytes_max },
            other => other,
        })?;
        left -= fetched.value.len();
        values.push(fetched);
    }
    snapshot.finish().map_err(failed("end to read"))?;
    Ok(values)
}

/// Adds a version with this value; its number.
pub(super) fn write(
    inner: &Inner,
    open: &mut Open,
    name: &SecretName,
    value: &SecureBytes,
    attributes: Attributes,
) -> Result<u64, StoreError> {
    let mut change = Change::begin(inner, open, "write a secret")?;
    let before = change.latest(name)?;
    let expires_at = attributes.expires_unix_ms.map(signed);
    let beside = Beside { expires_at, note: attributes.note.map(String::from) };
    let number = change.add(name, before.as_ref(), value, beside)?;
    change.commit()?;
    Ok(unsigned(number))
}

/// Marks a secret as removed. Its versions stay, so that it can be restored.
pub(super) fn remove(inner: &Inner, open: &mut Open, name: &SecretName) -> Result<(), StoreError> {
    let mut change = Change::begin(inner, open, "remove a secret")?;
    match change.latest(name)? {
        Some(version) if version.removed_at.is_none() => {
            change.mark(name, &version, Some(inner.now_unix_ms()))?;
            change.commit()
        }
        _ => Err(StoreError::NotFound(name.clone())),
    }
}

pub(super) fn list(
    connection: &Connection,
    pattern: Option<&Pattern>,
    after: Option<&SecretName>,
    limit: usize,
) -> Result<Page, StoreError> {
    let action = "list the secrets";
    // With max() as the only aggregate of its kind, the other columns are those of the row that has the maximum
    // (https://sqlite.org/lang_select.html#bareagg).
    let mut statement = connection
        .prepare_cached(
            "SELECT name, created_at, updated_at, expires_at, removed_at, note, count(*), max(version)
             FROM secrets WHERE name > ?1 GROUP BY name ORDER BY name",
        )
        .map_err(failed(action))?;
    let mut rows = statement.query([after.map_or("", SecretName::as_str)]).map_err(failed(action))?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(failed(action))? {
        let removed_at: Option<i64> = row.get(4).map_err(failed(action))?;
        let name = stored_name(row.get(0).map_err(failed(action))?)?;
        if removed_at.is_some() || pattern.is_some_and(|pattern| !pattern.matches(&name)) {
            continue;
        }
        if entries.len() == limit || bytes > PAGE_BYTES_MAX {
            return Ok(Page { entries, more: true });
        }
        let entry = entry(name, row)?;
        bytes += entry.name.as_str().len() + entry.note.as_ref().map_or(0, |note| note.as_str().len());
        entries.push(entry);
    }
    Ok(Page { entries, more: false })
}

fn entry(name: SecretName, row: &Row<'_>) -> Result<Entry, StoreError> {
    let number = |column| row.get(column).map(unsigned).map_err(failed("list the secrets"));
    let expires_at: Option<i64> = row.get(3).map_err(failed("list the secrets"))?;
    let note: Option<String> = row.get(5).map_err(failed("list the secrets"))?;
    Ok(Entry {
        name,
        created_unix_ms: number(1)?,
        updated_unix_ms: number(2)?,
        version: number(7)?,
        versions: number(6)?,
        expires_unix_ms: expires_at.map(unsigned),
        note: note.map(stored_note).transpose()?,
    })
}

/// A note as it is stored.
pub(super) fn stored_note(text: String) -> Result<Note, StoreError> {
    Note::parse(text).map_err(|_| StoreError::Damaged(Damage::Note))
}

/// Milliseconds of the Unix epoch, as the clock of the machine has them.
pub(super) fn clock_unix_ms() -> i64 {
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
            "UPDATE secrets SET (tag, value) = (SELECT tag, value FROM secrets WHERE name = 'a')
             WHERE name = 'b'",
        );
        assert!(is_damaged_value(vault.get("b").await, "b"));
        vault.execute("UPDATE secrets SET name = 'c' WHERE name = 'a'");
        assert!(is_damaged_value(vault.get("c").await, "c"));
        vault.execute("UPDATE secrets SET name = 'a' WHERE name = 'c'");
        assert_eq!(vault.get("a").await.unwrap().expose(), b"of a");
        vault.execute("UPDATE secrets SET version = version + 1 WHERE name = 'a'");
        assert!(is_damaged_value(vault.get("a").await, "a"));
    }

    #[tokio::test]
    async fn an_older_value_put_back_under_the_new_version_is_found() {
        let vault = Vault::new();
        vault.set("a", b"old").await;
        vault.set("a", b"new").await;
        vault.execute(
            "UPDATE secrets SET (tag, value) = (SELECT tag, value FROM secrets WHERE version = 1)
             WHERE version = 2",
        );
        assert!(is_damaged_value(vault.get("a").await, "a"));
        let old = vault.store.get_version(&secret("a"), 1).await.unwrap();
        assert_eq!(old.expose(), b"old");
    }

    #[tokio::test]
    async fn a_tag_or_note_that_is_none_is_damage() {
        let vault = Vault::new();
        vault.set("a", b"x").await;
        vault.execute("UPDATE secrets SET note = char(10)");
        let listed = vault.store.list(None, None, 9).await;
        assert!(matches!(listed, Err(StoreError::Damaged(Damage::Note))));
        for tag in ["x''", "zeroblob(15)", "zeroblob(17)"] {
            vault.execute(&format!("UPDATE secrets SET tag = {tag}"));
            assert!(matches!(vault.get("a").await, Err(StoreError::Damaged(_))), "{tag}");
        }
        vault.execute("UPDATE secrets SET tag = zeroblob(16)");
        assert!(is_damaged_value(vault.get("a").await, "a"));
    }

    #[tokio::test]
    async fn nonces_are_unique_and_values_do_not_show_that_they_are_equal() {
        let vault = Vault::new();
        let mut sealed = HashSet::new();
        for _ in 0..200 {
            vault.set("a", b"same").await;
            let value: Vec<u8> = vault.ask("SELECT value FROM secrets ORDER BY version DESC LIMIT 1");
            sealed.insert(value[..aead::NONCE_BYTES].to_vec());
        }
        assert_eq!(sealed.len(), 200);
    }

    #[tokio::test]
    async fn listing_decrypts_nothing() {
        let vault = Vault::new();
        vault.set("a", b"x").await;
        vault.set("b", b"y").await;
        vault.set("b", b"z").await;
        assert_eq!(vault.store.list_keys().await.unwrap().len(), 2);
        vault.store.list(Some(Pattern::parse("*").unwrap()), None, 10).await.unwrap();
        vault.store.history(&secret("b")).await.unwrap();
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
        assert_eq!((entry.version, entry.versions), (2, 2));
    }

    #[tokio::test]
    async fn what_is_set_beside_a_value_is_listed_and_goes_with_the_next() {
        let vault = Vault::new();
        let note = Note::parse("rotate in May").unwrap();
        let attributes = Attributes { expires_unix_ms: Some(u64::MAX), note: Some(note.clone()) };
        let number = vault.store.set_with(&secret("a"), SecureBytes::zeroed(3), attributes).await.unwrap();
        let entry = async || vault.store.list(None, None, 1).await.unwrap().entries.remove(0);
        let end_of_time = Some(u64::try_from(i64::MAX).unwrap());
        let listed = entry().await;
        assert_eq!((number, listed.expires_unix_ms, listed.note), (1, end_of_time, Some(note)));
        vault.set("a", b"next").await;
        let listed = entry().await;
        assert_eq!((listed.version, listed.expires_unix_ms, listed.note), (2, None, None));
    }

    async fn set_expiring(vault: &Vault, name: &str, expires_unix_ms: u64) {
        let attributes = Attributes { expires_unix_ms: Some(expires_unix_ms), note: None };
        vault.store.set_with(&secret(name), SecureBytes::zeroed(1), attributes).await.unwrap();
    }

    #[tokio::test]
    async fn a_value_past_its_time_is_denied_and_a_new_one_is_given() {
        let vault = Vault::new();
        let now = unsigned(clock_unix_ms());
        set_expiring(&vault, "a", now + 3_600_000).await;
        vault.get("a").await.unwrap();
        set_expiring(&vault, "a", now - 1).await;
        let is_expired = |error: StoreError| {
            matches!(error, StoreError::Expired { name, since_unix_ms }
                if name.as_str() == "a" && since_unix_ms == now - 1)
        };
        assert!(is_expired(vault.get("a").await.unwrap_err()));
        assert!(is_expired(vault.store.get_version(&secret("a"), 2).await.unwrap_err()));
        assert_eq!(vault.store.get_version(&secret("a"), 1).await.unwrap().len(), 1);
        vault.set("b", b"x").await;
        let batch = vault.store.get_many(vec![secret("b"), secret("a")], 99).await;
        assert!(is_expired(batch.unwrap_err()));
        vault.set("a", b"new").await;
        assert_eq!(vault.get("a").await.unwrap().expose(), b"new");
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_nothing_readable_again() {
        let vault = Vault::new();
        let now = unsigned(clock_unix_ms());
        set_expiring(&vault, "a", now + 3_600_000).await;
        vault.get("a").await.unwrap();
        // As if the store had seen the clock two hours from now, and the clock had been set back to now.
        vault.store.inner.latest_time.store(signed(now + 7_200_000), Ordering::Relaxed);
        assert!(matches!(vault.get("a").await, Err(StoreError::Expired { .. })));
    }

    #[tokio::test]
    async fn a_page_holds_no_more_notes_than_fit_into_an_answer() {
        let vault = Vault::new();
        let note = Some(Note::parse("n".repeat(1024)).unwrap());
        vault.store.keep_old_versions(0);
        for number in 0..1_100 {
            let attributes = Attributes { expires_unix_ms: None, note: note.clone() };
            let name = secret(&format!("{number:05}"));
            vault.store.set_with(&name, SecureBytes::zeroed(0), attributes).await.unwrap();
        }
        let first = vault.store.list(None, None, 4_000).await.unwrap();
        assert!(first.more && first.entries.len() > 1_000, "{}", first.entries.len());
        let after = first.entries.last().map(|entry| entry.name.clone());
        let second = vault.store.list(None, after, 4_000).await.unwrap();
        assert_eq!((first.entries.len() + second.entries.len(), second.more), (1_100, false));
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
        let values: Vec<&[u8]> = values.iter().map(|fetched| fetched.value.expose()).collect();
        assert_eq!(values, [&b"67"[..], b"12345", b"67"]);
        let missing = vault.store.get_many(names("a none b"), 99).await;
        assert!(matches!(missing, Err(StoreError::NotFound(name)) if name.as_str() == "none"));
        let large = vault.store.get_many(names("a b"), 6).await;
        assert!(matches!(large, Err(StoreError::TooLarge { limit: 6 })));
        assert!(vault.store.get_many(Vec::new(), 0).await.unwrap().is_empty());
    }
}
