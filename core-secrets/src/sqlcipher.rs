//! The store of a vault: an SQLCipher database whose values are sealed once more, each for its own name.
//!
//! SQLCipher encrypts and authenticates pages; the second layer binds a value to its profile, name and version,
//! so that a row that was moved or exchanged inside the database is found, and so that listing needs no value.
//! All access goes through one connection behind a mutex, on threads that may block.

mod change;
mod connection;
mod copy;
mod entries;
mod freshness;
mod history;
mod import;
mod log_room;
mod rows;
mod schema;
#[cfg(test)]
mod testing;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_crypto::{SecureBytes, key_schedule, private_fs};
use core_types::limits::OLD_VERSIONS_DEFAULT;
use core_types::pattern::Pattern;
use core_types::protocol::import::Comparison;
use core_types::{ProfileName, SecretName};
use rusqlite::Connection;
use tokio::sync::Mutex as FairMutex;

use self::change::Change;
use self::connection::{connect, failed};
use self::entries::{clock_unix_ms, get_many, list, read, read_version, remove, write};
use self::history::{history, purge, rename, restore, undo_removal};
use self::log_room::LogRoom;
use self::schema::{SCHEMA, check_format};
use crate::anchor::Anchor;
use crate::freshness::{Mark, Reading, Rollback};
use crate::jit::{Clock, JitDelivery};
use crate::store::{Fetch, Fetched, SecretsStore, StoreError};

pub use self::entries::{Attributes, Entry, Page};
pub use self::history::VersionEntry;
pub use self::import::Incoming;
pub(crate) use self::rows::{Place, StoredRow, Tally};

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
    /// How many old versions of each secret are kept.
    old_versions: AtomicU64,
    /// The latest time there was, in milliseconds of the Unix epoch.
    latest_time: AtomicI64,
    /// The state that the database is known to be in.
    generation: AtomicU64,
    /// Why it may only be read, where that is so.
    rollback: Mutex<Option<Rollback>>,
    /// Whether it is being copied, so that it may only be read.
    frozen: AtomicBool,
}

impl Inner {
    /// Milliseconds of the Unix epoch. It never goes back while the store is open, so that setting the clock back
    /// makes no expired secret readable again.
    fn now_unix_ms(&self) -> i64 {
        let now = clock_unix_ms();
        self.latest_time.fetch_max(now, Ordering::Relaxed).max(now)
    }

    fn lock_open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rollback(&self) -> Option<Rollback> {
        self.rollback.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    fn old_versions(&self) -> i64 {
        schema::signed(self.old_versions.load(Ordering::Relaxed))
    }
}

/// What an open database needs; closing it drops both.
#[derive(Debug)]
struct Open {
    connection: Connection,
    entry_key: SecureBytes,
    freshness_key: SecureBytes,
    anchor: Option<Anchor>,
    /// The state that the rows are in, where it is known.
    state: Option<Mark>,
    log_room: LogRoom,
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
        Ok(Self::new(connection, path, profile, vault_key))
    }

    /// Opens a database that [`Self::create`] made with the same key. Blocks.
    ///
    /// # Errors
    /// It is missing, damaged, of another format, or not this key's.
    pub fn open(path: &Path, profile: &ProfileName, vault_key: &SecureBytes) -> Result<Self, StoreError> {
        private_fs::check_private_file(path)?;
        let connection = connect(path, vault_key)?;
        check_format(&connection)?;
        Ok(Self::new(connection, path, profile, vault_key))
    }

    fn new(connection: Connection, path: &Path, profile: &ProfileName, vault_key: &SecureBytes) -> Self {
        let open = Open {
            connection,
            entry_key: key_schedule::entry_key(vault_key),
            freshness_key: key_schedule::freshness_key(vault_key, profile.as_str()),
            anchor: None,
            state: None,
            log_room: LogRoom::new(path),
        };
        Self {
            inner: Arc::new(Inner {
                profile: profile.clone(),
                turn: Arc::default(),
                open: Mutex::new(Some(open)),
                decryptions: AtomicU64::new(0),
                old_versions: AtomicU64::new(OLD_VERSIONS_DEFAULT),
                latest_time: AtomicI64::new(0),
                generation: AtomicU64::new(0),
                rollback: Mutex::default(),
                frozen: AtomicBool::new(false),
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
        let Some(Open { connection, entry_key, freshness_key, anchor, .. }) = open else {
            return Ok(());
        };
        let closed = connection.close().map_err(|(_connection, error)| failed("close the database")(error));
        drop((entry_key, freshness_key));
        let synced = anchor.map_or(Ok(()), |anchor| anchor.sync().map_err(StoreError::Anchor));
        closed.and(synced)
    }

    /// Checks that the rows are those that the database says it has; the state it is in, and what is wrong with it.
    /// Blocks.
    ///
    /// # Errors
    /// It could not be checked.
    pub fn verify(&self) -> Result<(Mark, Option<Rollback>), StoreError> {
        let mut open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_mut().ok_or(StoreError::Closed)?;
        let verified = freshness::verify(&self.inner, open)?;
        open.state = verified.1.is_none().then_some(verified.0);
        self.inner.note_generation(verified.0.generation);
        Ok(verified)
    }

    /// Has every change made known to this anchor from now on. With a `rollback`, nothing can be changed until it is
    /// accepted. Blocks.
    ///
    /// # Errors
    /// The store is closed.
    pub fn attach(&self, anchor: Anchor, rollback: Option<Rollback>) -> Result<(), StoreError> {
        let mut open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_mut().ok_or(StoreError::Closed)?.anchor = Some(anchor);
        *self.inner.rollback.lock().unwrap_or_else(PoisonError::into_inner) = rollback;
        Ok(())
    }

    /// Why the vault may only be read, where that is so.
    #[must_use]
    pub fn rollback(&self) -> Option<Rollback> {
        self.inner.rollback()
    }

    /// The state that the database is in, as a number that each change raises.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Relaxed)
    }

    /// Takes the vault as it is for the right one, with this header, at a state above `above` and all that are known of;
    /// it can be changed from now on. `false` if there was nothing to accept.
    ///
    /// # Errors
    /// A part of it cannot be read, or the change could not be written.
    pub async fn accept_rollback(&self, header: Mark, above: u64) -> Result<bool, StoreError> {
        self.run(move |inner, open| {
            if inner.rollback().is_none() {
                return Ok(false);
            }
            let anchored = match open.anchor.as_ref().map(Anchor::read) {
                Some(Ok(Reading::Read(anchored))) => anchored.database.generation,
                _ => 0,
            };
            let known = match inner.rollback() {
                Some(Rollback::Older { expected, .. }) => expected,
                _ => 0,
            };
            let above = above.max(anchored).max(known);
            Change::begin_anyhow(inner, open, "accept the state of the vault")?.accept(header, above)?;
            open.anchor.as_ref().map_or(Ok(()), Anchor::sync).map_err(StoreError::Anchor)?;
            *inner.rollback.lock().unwrap_or_else(PoisonError::into_inner) = None;
            Ok(true)
        })
        .await
    }

    /// Copies a database that others may be writing to, as it is at one moment, into an empty file, under the same key.
    /// Blocks.
    ///
    /// # Errors
    /// The copy is not whole.
    pub(crate) fn copy(from: &Path, vault_key: &SecureBytes, to: &Path) -> Result<(), StoreError> {
        copy::copy(from, vault_key, to)
    }

    /// Checks the whole database, down to every value of every version. Blocks.
    ///
    /// # Errors
    /// The first damage that is found.
    pub(crate) fn check_all(&self) -> Result<(), StoreError> {
        let open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        copy::check_all(&self.inner, open.as_ref().ok_or(StoreError::Closed)?)
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

    /// Sets how many old versions of a secret are kept when it is set; [`OLD_VERSIONS_DEFAULT`] if nothing does.
    pub fn keep_old_versions(&self, count: u64) {
        self.inner.old_versions.store(count, Ordering::Relaxed);
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
    ) -> Result<Vec<Fetched>, StoreError> {
        self.run(move |inner, open| get_many(inner, open, &names, bytes_max)).await
    }

    /// The value of one version of a secret.
    ///
    /// # Errors
    /// As [`SecretsStore::get`], or [`StoreError::NoSuchVersion`].
    pub async fn get_version(&self, name: &SecretName, version: u64) -> Result<SecureBytes, StoreError> {
        let name = name.clone();
        self.run(move |inner, open| read_version(inner, open, &name, version)).await
    }

    /// Stores a value as the next version of a secret; its number.
    ///
    /// # Errors
    /// As [`SecretsStore::set`].
    pub async fn set_with(
        &self,
        name: &SecretName,
        value: SecureBytes,
        attributes: Attributes,
    ) -> Result<u64, StoreError> {
        let name = name.clone();
        self.run(move |inner, open| write(inner, open, &name, &value, attributes)).await
    }

    /// Stores all secrets that `next` gives until it gives `None`, in one transaction; how many there were. It is called
    /// on a thread that may block, and holds one of them at a time.
    ///
    /// # Errors
    /// As [`SecretsStore::set`], or [`StoreError::Exists`] or [`StoreError::Changed`] where a secret is not at the version
    /// it was to be at, or what `next` failed with: then nothing is stored.
    pub async fn import(
        &self,
        next: impl FnMut() -> Result<Option<Incoming>, StoreError> + Send + 'static,
    ) -> Result<u64, StoreError> {
        self.run(move |inner, open| import::import(inner, open, next)).await
    }

    /// Whether secrets have these values, in the order of `names`, as they are at one moment.
    ///
    /// # Errors
    /// One of them is damaged, or could not be read.
    pub async fn compare(
        &self,
        names: Vec<SecretName>,
        values: Vec<SecureBytes>,
    ) -> Result<Vec<Comparison>, StoreError> {
        self.run(move |inner, open| import::compare(inner, open, &names, &values)).await
    }

    /// The versions of a secret, the latest first, also of one that is removed. Decrypts nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if nothing of it is kept; otherwise why they could not be read.
    pub async fn history(&self, name: &SecretName) -> Result<Vec<VersionEntry>, StoreError> {
        let name = name.clone();
        self.run(move |_, open| history(&open.connection, &name)).await
    }

    /// Makes the value of an old version, with its expiry and note, the next version; without a version, takes back
    /// the removal of a removed secret. Gives the number of the version that is read from now on.
    ///
    /// # Errors
    /// There is no such secret or version, or a secret that is not removed was to be restored without a version.
    pub async fn restore(&self, name: &SecretName, version: Option<u64>) -> Result<u64, StoreError> {
        let name = name.clone();
        self.run(move |inner, open| match version {
            Some(version) => restore(inner, open, &name, version),
            None => undo_removal(inner, open, &name),
        })
        .await
    }

    /// Deletes the old versions of a secret for good, or all that is left of a removed one; how many there were.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if nothing of it is kept; otherwise why nothing was changed.
    pub async fn purge(&self, name: &SecretName) -> Result<u64, StoreError> {
        let name = name.clone();
        self.run(move |inner, open| purge(inner, open, &name)).await
    }

    /// Gives a secret another name, with all its versions.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none, [`StoreError::Exists`] if the other name is taken; otherwise why
    /// nothing was changed.
    pub async fn rename(&self, from: &SecretName, to: &SecretName) -> Result<(), StoreError> {
        let (from, to) = (from.clone(), to.clone());
        self.run(move |inner, open| rename(inner, open, &from, &to)).await
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
        Ok(self.fetch(name).await?.value)
    }

    async fn set(&self, name: &SecretName, value: SecureBytes) -> Result<(), StoreError> {
        self.set_with(name, value, Attributes::default()).await.map(|_version| ())
    }

    async fn delete(&self, name: &SecretName) -> Result<(), StoreError> {
        let name = name.clone();
        self.run(move |inner, open| remove(inner, open, &name)).await
    }

    async fn list_keys(&self) -> Result<Vec<SecretName>, StoreError> {
        let page = self.list(None, None, usize::MAX).await?;
        Ok(page.entries.into_iter().map(|entry| entry.name).collect())
    }
}

impl Fetch for SqlCipherStore {
    async fn fetch(&self, name: &SecretName) -> Result<Fetched, StoreError> {
        let name = name.clone();
        self.run(move |inner, open| read(inner, open, &name, usize::MAX)).await
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
                    let fetched = fetched.next().ok_or_else(|| StoreError::NotFound(name.clone()))?;
                    self.keep(name, &fetched, epoch);
                    fetched.value
                }
            });
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Vault, profile, secret};
    use super::*;
    use crate::compliance::compliance_tests;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;
    use std::time::Duration;

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
            assert!(bytes.len() >= 8192);
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
