//! The store of a vault: an SQLCipher database whose values are sealed once more, each for its own name.
//!
//! SQLCipher encrypts and authenticates pages; the second layer binds a value to its profile, name and version,
//! so that a row that was moved or exchanged inside the database is found, and so that listing needs no value.
//! All access goes through one connection behind a mutex, on threads that may block.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use core_crypto::{SecureBytes, aead, key_schedule, private_fs};
use core_types::pattern::Pattern;
use core_types::{ProfileName, SecretName};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, ffi, params};
use tokio::sync::Mutex as FairMutex;
use zeroize::Zeroizing;

use crate::jit::{Clock, JitDelivery};
use crate::store::{Damage, SecretsStore, StoreError};

/// Format of the database, in `PRAGMA user_version`.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE secrets (
        name       TEXT PRIMARY KEY NOT NULL,
        version    INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        value      BLOB NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;
";

/// Settings of the connection that need no answer. `cell_size_check` and `trusted_schema` are SQLite's own advice
/// for files that someone may have changed (<https://sqlite.org/security.html>).
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
";

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

/// A vault's secrets in an SQLCipher database. Clones are the same store.
#[derive(Debug, Clone)]
pub struct SqlCipherStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    profile: ProfileName,
    /// Whose turn it is: those who wait for the connection wait here, and not on threads that others need.
    turn: Arc<FairMutex<()>>,
    open: Mutex<Option<Open>>,
    decryptions: AtomicU64,
}

/// What an open database needs; closing it drops both.
#[derive(Debug)]
struct Open {
    connection: Connection,
    entry_key: SecureBytes,
}

impl SqlCipherStore {
    /// Makes a new database. Blocks.
    ///
    /// # Errors
    /// Something stands at the path, or it cannot be made.
    pub fn create(path: &Path, profile: &ProfileName, vault_key: &SecureBytes) -> Result<Self, StoreError> {
        drop(private_fs::create_new(path)?);
        let connection = connect(path, vault_key)?;
        connection.execute_batch(SCHEMA).map_err(failed("make the table of secrets"))?;
        Ok(Self::new(connection, profile, vault_key))
    }

    /// Opens a database that [`Self::create`] made with the same key. Blocks.
    ///
    /// # Errors
    /// It is missing, damaged, of another format, or not this key's.
    pub fn open(path: &Path, profile: &ProfileName, vault_key: &SecureBytes) -> Result<Self, StoreError> {
        private_fs::check_private_file(path)?;
        let connection = connect(path, vault_key)?;
        check_format(&connection)?;
        Ok(Self::new(connection, profile, vault_key))
    }

    fn new(connection: Connection, profile: &ProfileName, vault_key: &SecureBytes) -> Self {
        let open = Open { connection, entry_key: key_schedule::entry_key(vault_key) };
        Self {
            inner: Arc::new(Inner {
                profile: profile.clone(),
                turn: Arc::default(),
                open: Mutex::new(Some(open)),
                decryptions: AtomicU64::new(0),
            }),
        }
    }

    /// Closes the connection, with which SQLCipher wipes its keys, and then drops the entry key. Waits for the
    /// operation that is under way; later ones are answered [`StoreError::Closed`]. Blocks.
    ///
    /// # Errors
    /// The database library failed to close it; the keys are gone all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        let open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Open { connection, entry_key }) = open else { return Ok(()) };
        let closed = connection.close().map_err(|(_connection, error)| failed("close the database")(error));
        drop(entry_key);
        closed
    }

    /// How many values have been decrypted since the store was opened.
    #[must_use]
    pub fn decryptions(&self) -> u64 {
        self.inner.decryptions.load(Ordering::Relaxed)
    }

    /// A page of at most `limit` names that match, in order, beginning after `after`. Decrypts no value.
    ///
    /// # Errors
    /// Why they could not be read.
    pub async fn list(
        &self,
        pattern: Option<Pattern>,
        after: Option<SecretName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.run(move |_, open| list(&open.connection, pattern.as_ref(), after.as_ref(), limit)).await
    }

    /// The values of several secrets as they are at one moment, in the order of `names`.
    ///
    /// # Errors
    /// As [`SecretsStore::get`] for the first that cannot be read, or their values together have more than
    /// `bytes_max` bytes: then no value is given.
    pub async fn get_many(
        &self,
        names: Vec<SecretName>,
        bytes_max: usize,
    ) -> Result<Vec<SecureBytes>, StoreError> {
        self.run(move |inner, open| get_many(inner, open, &names, bytes_max)).await
    }

    /// Runs an operation on a thread that may block, alone on the connection.
    async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Inner, &mut Open) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let turn = Arc::clone(&inner.turn).lock_owned().await;
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut open = inner.open.lock().unwrap_or_else(PoisonError::into_inner);
            operation(&inner, open.as_mut().ok_or(StoreError::Closed)?)
        });
        task.await.unwrap_or_else(|error| {
            Err(StoreError::Io { action: "use the database", source: std::io::Error::other(error) })
        })
    }
}

impl SecretsStore for SqlCipherStore {
    async fn get(&self, name: &SecretName) -> Result<SecureBytes, StoreError> {
        let name = name.clone();
        self.run(move |inner, open| read(inner, open, &name, usize::MAX)).await
    }

    async fn set(&self, name: &SecretName, value: SecureBytes) -> Result<(), StoreError> {
        let name = name.clone();
        self.run(move |inner, open| write(inner, open, &name, &value)).await
    }

    async fn delete(&self, name: &SecretName) -> Result<(), StoreError> {
        let name = name.clone();
        self.run(move |_, open| {
            let mut statement = open
                .connection
                .prepare_cached("DELETE FROM secrets WHERE name = ?1")
                .map_err(failed("delete a secret"))?;
            match statement.execute([name.as_str()]).map_err(failed("delete a secret"))? {
                0 => Err(StoreError::NotFound(name)),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn list_keys(&self) -> Result<Vec<SecretName>, StoreError> {
        let page = self.list(None, None, usize::MAX).await?;
        Ok(page.entries.into_iter().map(|entry| entry.name).collect())
    }
}

impl<C: Clock> JitDelivery<SqlCipherStore, C> {
    /// The values of several secrets, in the order of `names`: those that are cached from there, the others as
    /// they are at one moment.
    ///
    /// # Errors
    /// As [`SqlCipherStore::get_many`].
    pub async fn resolve_many(
        &self,
        names: &[SecretName],
        bytes_max: usize,
    ) -> Result<Vec<SecureBytes>, StoreError> {
        let looked_up: Vec<_> = names.iter().map(|name| self.lookup(name)).collect();
        let missing =
            names.iter().zip(&looked_up).filter(|(_, found)| found.is_err()).map(|(name, _)| name.clone());
        let missing: Vec<SecretName> = missing.collect();
        let cached_bytes: usize = looked_up.iter().flatten().map(SecureBytes::len).sum();
        let too_large = StoreError::TooLarge { limit: bytes_max };
        let left = bytes_max.checked_sub(cached_bytes).ok_or(too_large)?;
        let mut fetched = self.store().get_many(missing, left).await?.into_iter();
        let mut values = Vec::with_capacity(names.len());
        for (name, found) in names.iter().zip(looked_up) {
            values.push(match found {
                Ok(value) => value,
                Err(epoch) => {
                    let value = fetched.next().ok_or_else(|| StoreError::NotFound(name.clone()))?;
                    self.keep(name, &value, epoch);
                    value
                }
            });
        }
        Ok(values)
    }
}

/// Turns an error of the library into one of ours, leaving out its text: that may quote the statement, and one
/// statement holds the key.
fn failed(action: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| {
        let code = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => failure.extended_code,
            rusqlite::Error::SqlInputError { error, .. } => error.extended_code,
            // A value of another type than the schema has.
            _ => ffi::SQLITE_MISMATCH,
        };
        classify(action, code)
    }
}

fn classify(action: &'static str, code: i32) -> StoreError {
    match code & 0xff {
        ffi::SQLITE_FULL => StoreError::Full,
        // The index of the WAL could not be made larger, which only a full disk does.
        ffi::SQLITE_IOERR if code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => StoreError::Busy,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_MISMATCH => {
            StoreError::Damaged(Damage::Database { code })
        }
        _ => StoreError::Database { action, explanation: ffi::code_to_str(code), code },
    }
}

/// Opens the file, sets the key, proves that it opens the first page, and sets everything else.
fn connect(path: &Path, vault_key: &SecureBytes) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed("open the database"))?;
    connection.busy_timeout(Duration::from_secs(1)).map_err(failed("open the database"))?;
    require_sqlcipher(&connection)?;
    connection
        .execute_batch("PRAGMA cipher_log_level = NONE; PRAGMA cipher_memory_security = ON;")
        .map_err(failed("protect the database's memory"))?;
    connection.execute_batch(&key_statement(vault_key)?).map_err(failed("set the database's key"))?;
    match connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())) {
        Ok(()) => {}
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            return Err(StoreError::WrongKey);
        }
        Err(error) => return Err(failed("read the database")(error)),
    }
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(failed("turn on the write-ahead log"))?;
    if mode != "wal" {
        return Err(classify("turn on the write-ahead log", ffi::SQLITE_ERROR));
    }
    connection.execute_batch(SETTINGS).map_err(failed("set the database up"))?;
    Ok(connection)
}

/// Refuses to write through a plain SQLite, which would take the key for an unknown setting and ignore it.
fn require_sqlcipher(connection: &Connection) -> Result<(), StoreError> {
    let version: Option<String> = connection
        .query_row("PRAGMA cipher_version", [], |row| row.get(0))
        .optional()
        .map_err(failed("ask for the cipher"))?;
    match version {
        Some(_) => Ok(()),
        None => Err(classify("find SQLCipher in the database library", ffi::SQLITE_MISUSE)),
    }
}

/// The statement that sets a raw key. Anything but exactly 64 hex digits would be taken for a passphrase.
fn key_statement(vault_key: &SecureBytes) -> Result<Zeroizing<String>, StoreError> {
    const DIGITS: usize = 2 * key_schedule::KEY_BYTES;
    let mut digits = Zeroizing::new([0u8; DIGITS]);
    if hex::encode_to_slice(vault_key.expose(), digits.as_mut_slice()).is_err() {
        return Err(StoreError::WrongKey);
    }
    let (before, after) = ("PRAGMA key = \"x'", "'\";");
    let mut statement = Zeroizing::new(String::with_capacity(before.len() + DIGITS + after.len()));
    statement.push_str(before);
    statement.extend(digits.iter().map(|digit| char::from(*digit)).filter(char::is_ascii_hexdigit));
    statement.push_str(after);
    if statement.len() == before.len() + DIGITS + after.len() {
        Ok(statement)
    } else {
        Err(StoreError::WrongKey)
    }
}

fn check_format(connection: &Connection) -> Result<(), StoreError> {
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed("read the format"))?;
    match found {
        FORMAT => Ok(()),
        0 => Err(StoreError::Damaged(Damage::NotAVault)),
        _ => Err(StoreError::Damaged(Damage::Format { found, expected: FORMAT })),
    }
}

/// What a value is sealed for. No name holds a NUL, so two places never have the same bytes.
fn place(profile: &ProfileName, name: &SecretName, version: i64) -> Vec<u8> {
    let mut place = format!("pds v2 entry\0{profile}\0{name}\0").into_bytes();
    place.extend_from_slice(&version.to_be_bytes());
    place
}

fn read(inner: &Inner, open: &Open, name: &SecretName, bytes_max: usize) -> Result<SecureBytes, StoreError> {
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

fn get_many(
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

fn write(inner: &Inner, open: &mut Open, name: &SecretName, value: &SecureBytes) -> Result<(), StoreError> {
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

fn list(
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
    use super::*;
    use crate::compliance::compliance_tests;
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::Command;

    struct Vault {
        folder: tempfile::TempDir,
        key: SecureBytes,
        store: SqlCipherStore,
    }

    impl Vault {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let key = SecureBytes::random(32).unwrap();
            let store =
                SqlCipherStore::create(&folder.path().join("vault.db"), &profile("work"), &key).unwrap();
            Self { folder, key, store }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("vault.db")
        }

        fn reopen(&self) -> Result<SqlCipherStore, StoreError> {
            SqlCipherStore::open(&self.path(), &profile("work"), &self.key)
        }

        /// Changes the database below the second layer.
        fn execute(&self, sql: &str) {
            let open = self.store.inner.open.lock().unwrap();
            open.as_ref().unwrap().connection.execute_batch(sql).unwrap();
        }

        fn ask<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
            let open = self.store.inner.open.lock().unwrap();
            open.as_ref().unwrap().connection.query_row(sql, [], |row| row.get(0)).unwrap()
        }

        async fn set(&self, name: &str, value: &[u8]) {
            self.store.set(&secret(name), SecureBytes::copy_of(value)).await.unwrap();
        }

        async fn get(&self, name: &str) -> Result<SecureBytes, StoreError> {
            self.store.get(&secret(name)).await
        }
    }

    fn profile(name: &str) -> ProfileName {
        ProfileName::parse(name).unwrap()
    }

    fn secret(name: &str) -> SecretName {
        SecretName::parse(name).unwrap()
    }

    fn is_damaged_value(result: Result<SecureBytes, StoreError>, name: &str) -> bool {
        matches!(result, Err(StoreError::Damaged(Damage::Value(damaged))) if damaged.as_str() == name)
    }

    #[tokio::test]
    async fn sqlcipher_store_passes_compliance() {
        compliance_tests(&Vault::new().store).await.unwrap();
    }

    #[tokio::test]
    async fn values_and_names_are_there_after_closing() {
        let vault = Vault::new();
        vault.set("name", b"value").await;
        vault.store.close().unwrap();
        let again = vault.reopen().unwrap();
        assert_eq!(again.get(&secret("name")).await.unwrap().expose(), b"value");
        assert!(matches!(vault.get("name").await, Err(StoreError::Closed)));
        vault.store.close().unwrap();
    }

    #[tokio::test]
    async fn no_plaintext_on_disk() {
        let vault = Vault::new();
        let (name, value) = ("canary-name-5f1c", "canary-value-93ab");
        vault.set(name, value.as_bytes()).await;
        let on_disk = || -> Vec<u8> {
            let files = vault.folder.path().read_dir().unwrap();
            files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
        };
        let open = on_disk();
        vault.store.close().unwrap();
        for bytes in [open, on_disk()] {
            assert!(bytes.len() > 8192);
            for plain in [name, value, "secrets", "SQLite format 3"] {
                let found = bytes.windows(plain.len()).any(|window| window == plain.as_bytes());
                assert!(!found, "{plain} stands on the disk");
            }
        }
    }

    #[tokio::test]
    async fn one_profiles_key_cannot_open_anothers_vault() {
        let (first, second) = (Vault::new(), Vault::new());
        first.set("name", b"value").await;
        first.store.close().unwrap();
        let opened = SqlCipherStore::open(&first.path(), &profile("work"), &second.key);
        assert!(matches!(opened, Err(StoreError::WrongKey)));
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

    #[tokio::test]
    async fn a_batch_through_the_cache_decrypts_each_value_once() {
        let vault = Vault::new();
        vault.set("a", b"1").await;
        vault.set("b", b"22").await;
        let jit = JitDelivery::new(vault.store.clone(), Duration::from_secs(300));
        jit.resolve(&secret("b")).await.unwrap();
        for _ in 0..2 {
            let values = jit.resolve_many(&[secret("a"), secret("b")], 3).await.unwrap();
            assert_eq!((values[0].expose(), values[1].expose()), (&b"1"[..], &b"22"[..]));
        }
        assert_eq!(vault.store.decryptions(), 2);
        let large = jit.resolve_many(&[secret("a"), secret("b")], 2).await;
        assert!(matches!(large, Err(StoreError::TooLarge { limit: 2 })));
    }

    #[test]
    fn the_settings_are_in_force() {
        let vault = Vault::new();
        let numbers = [
            ("PRAGMA synchronous", 2),
            ("PRAGMA secure_delete", 1),
            ("PRAGMA temp_store", 2),
            ("PRAGMA trusted_schema", 0),
            ("PRAGMA cell_size_check", 1),
            ("PRAGMA user_version", FORMAT),
        ];
        for (pragma, expected) in numbers {
            assert_eq!(vault.ask::<i64>(pragma), expected, "{pragma}");
        }
        assert_eq!(vault.ask::<String>("PRAGMA journal_mode"), "wal");
        assert_eq!(vault.ask::<String>("PRAGMA cipher_memory_security"), "1");
    }

    #[test]
    fn only_64_hex_digits_become_a_key() {
        let statement = key_statement(&SecureBytes::copy_of(&[0xab; 32])).unwrap();
        assert_eq!(*statement, format!("PRAGMA key = \"x'{}'\";", "ab".repeat(32)));
        for len in [0, 31, 33, 64] {
            let folder = tempfile::tempdir().unwrap();
            let created =
                SqlCipherStore::create(&folder.path().join("db"), &profile("p"), &SecureBytes::zeroed(len));
            assert!(matches!(created, Err(StoreError::WrongKey)), "{len} bytes");
        }
    }

    #[test]
    fn what_is_no_vault_is_told_apart() {
        let vault = Vault::new();
        vault.store.close().unwrap();
        let replaced_by = |bytes: &[u8]| {
            std::fs::write(vault.path(), bytes).unwrap();
            vault.reopen().unwrap_err()
        };
        assert!(matches!(replaced_by(b""), StoreError::Damaged(Damage::NotAVault)));
        assert!(matches!(replaced_by(&[0x5a; 8192]), StoreError::WrongKey));
        std::fs::remove_file(vault.path()).unwrap();
        assert!(matches!(vault.reopen(), Err(StoreError::Files(_))), "missing");
        assert!(!vault.path().exists(), "opening makes nothing");
        std::fs::create_dir(vault.path()).unwrap();
        assert!(matches!(vault.reopen(), Err(StoreError::Files(_))), "a folder");
        std::fs::remove_dir(vault.path()).unwrap();
        std::os::unix::fs::symlink("/dev/null", vault.path()).unwrap();
        assert!(matches!(vault.reopen(), Err(StoreError::Files(_))), "a link");
    }

    #[test]
    fn a_later_format_is_named() {
        let vault = Vault::new();
        vault.execute("PRAGMA user_version = 7");
        vault.store.close().unwrap();
        let expected = Damage::Format { found: 7, expected: 1 };
        assert!(matches!(vault.reopen(), Err(StoreError::Damaged(damage)) if damage == expected));
    }

    /// One flipped bit in every 64th byte of the file: an error or the right value, never another one.
    #[tokio::test]
    async fn flipped_bits_give_an_error_or_the_right_value() {
        let vault = Vault::new();
        for number in 0..30 {
            vault.set(&format!("name/{number}"), format!("value {number}").repeat(50).as_bytes()).await;
        }
        vault.store.close().unwrap();
        let good = std::fs::read(vault.path()).unwrap();
        let mut errors = 0;
        for position in (0..good.len()).step_by(64) {
            let mut bytes = good.clone();
            bytes[position] ^= 1 << (position / 64 % 8);
            std::fs::write(vault.path(), &bytes).unwrap();
            let store = match vault.reopen() {
                Ok(store) => store,
                Err(StoreError::WrongKey | StoreError::Damaged(_)) => {
                    errors += 1;
                    continue;
                }
                Err(other) => panic!("byte {position}: {other}"),
            };
            for number in 0..30 {
                match store.get(&secret(&format!("name/{number}"))).await {
                    Ok(value) => assert_eq!(value.expose(), format!("value {number}").repeat(50).as_bytes()),
                    Err(StoreError::Damaged(_)) => errors += 1,
                    Err(other) => panic!("byte {position}: {other}"),
                }
            }
            let _ = store.close();
        }
        assert!(errors > 0);
    }

    #[tokio::test]
    async fn a_full_disk_changes_nothing_and_says_so() {
        let vault = Vault::new();
        vault.set("a", b"old").await;
        let pages: i64 = vault.ask("PRAGMA page_count");
        vault.ask::<i64>(&format!("PRAGMA max_page_count = {pages}"));
        let large = SecureBytes::zeroed(1 << 20);
        let written = vault.store.set(&secret("a"), large.clone()).await.unwrap_err();
        assert!(matches!(written, StoreError::Full) && written.is_full());
        assert_eq!(vault.get("a").await.unwrap().expose(), b"old");
        vault.ask::<i64>("PRAGMA max_page_count = 4294967294");
        vault.store.set(&secret("a"), large).await.unwrap();
    }

    #[tokio::test]
    async fn another_writer_is_an_error_of_its_own() {
        let vault = Vault::new();
        let other = connect(&vault.path(), &vault.key).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let written = vault.store.set(&secret("a"), SecureBytes::zeroed(1)).await;
        assert!(matches!(written, Err(StoreError::Busy)));
        other.execute_batch("ROLLBACK").unwrap();
        vault.set("a", b"x").await;
    }

    #[tokio::test]
    async fn callers_at_once_neither_corrupt_nor_deadlock() {
        let vault = Vault::new();
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let store = vault.store.clone();
                tokio::spawn(async move {
                    for round in 0..20 {
                        let (own, shared) =
                            (secret(&format!("own/{task}")), secret(&format!("s/{}", round % 3)));
                        let value = format!("{task} {round}");
                        store.set(&own, SecureBytes::copy_of(value.as_bytes())).await.unwrap();
                        store.set(&shared, SecureBytes::copy_of(b"shared")).await.unwrap();
                        assert_eq!(store.get(&own).await.unwrap().expose(), value.as_bytes());
                        assert_eq!(store.get(&shared).await.unwrap().expose(), b"shared");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(vault.store.list_keys().await.unwrap().len(), 19);
        assert_eq!(vault.ask::<String>("PRAGMA integrity_check"), "ok");
    }

    const UMASK: &str = "PDS_TEST_UMASK";

    /// What the children of the next test do; without the variable it does nothing.
    #[tokio::test]
    async fn under_a_umask_in_a_child() {
        let Ok(umask) = std::env::var(UMASK) else { return };
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(u32::from_str_radix(&umask, 8).unwrap()));
        let folder = std::env::temp_dir().join(format!("pds-umask-{}", std::process::id()));
        private_fs::ensure_private_dir(&folder).unwrap();
        let key = SecureBytes::random(32).unwrap();
        let store = SqlCipherStore::create(&folder.join("vault.db"), &profile("p"), &key).unwrap();
        store.set(&secret("a"), SecureBytes::zeroed(9)).await.unwrap();
        let modes: Vec<(String, u32)> = folder
            .read_dir()
            .unwrap()
            .map(|file| file.unwrap())
            .map(|file| {
                (
                    file.file_name().into_string().unwrap(),
                    file.metadata().unwrap().permissions().mode() & 0o777,
                )
            })
            .collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(modes.len(), 3, "{modes:?}");
        assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
    }

    #[test]
    fn files_are_private_whatever_the_umask() {
        for umask in ["0", "22", "77", "177"] {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sqlcipher::tests::under_a_umask_in_a_child"])
                .env(UMASK, umask)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
