//! What every place for secrets offers, and all the ways it can fail.

use std::future::Future;
use std::io;

use core_crypto::SecureBytes;
use core_types::SecretName;

/// A place for secrets. Callers may use it from any number of tasks at once.
pub trait SecretsStore: Send + Sync {
    /// The bytes stored under a name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there are none; otherwise why they could not be read.
    fn get(&self, name: &SecretName) -> impl Future<Output = Result<SecureBytes, StoreError>> + Send;

    /// Stores bytes under a name, replacing what is there. When it returns, they outlast a power cut.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn set(
        &self,
        name: &SecretName,
        value: SecureBytes,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes a name and its bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such name; otherwise why nothing was changed.
    fn delete(&self, name: &SecretName) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// All names, in order. Decrypts no value.
    ///
    /// # Errors
    /// Why they could not be read.
    fn list_keys(&self) -> impl Future<Output = Result<Vec<SecretName>, StoreError>> + Send;
}

/// A value as it was read.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its bytes.
    pub value: SecureBytes,
    /// From when on it is not to be given any more, in milliseconds of the Unix epoch.
    pub expires_unix_ms: Option<u64>,
}

/// A store as whoever keeps values for a time reads from it.
pub trait Fetch: SecretsStore {
    /// As [`SecretsStore::get`], with the time up to which the value may be kept.
    ///
    /// # Errors
    /// As [`SecretsStore::get`].
    fn fetch(&self, name: &SecretName) -> impl Future<Output = Result<Fetched, StoreError>> + Send;
}

/// Why a store did not do what it was asked. No text of it holds a value or a key.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no secret of that name.
    #[error("there is no secret '{0}'")]
    NotFound(SecretName),
    /// There is no such version of a secret; it may have been purged.
    #[error("there is no version {version} of '{name}'")]
    NoSuchVersion {
        /// The secret.
        name: SecretName,
        /// Number of the version.
        version: u64,
    },
    /// The value is past its time.
    #[error("'{name}' has expired")]
    Expired {
        /// The secret.
        name: SecretName,
        /// Since when, in milliseconds of the Unix epoch.
        since_unix_ms: u64,
    },
    /// The removal of a secret that is not removed was to be undone.
    #[error("'{0}' is not removed")]
    NotRemoved(SecretName),
    /// A secret of that name is there, or can be restored.
    #[error("there is a secret '{name}'{}", if *.removed { ", removed but not purged" } else { "" })]
    Exists {
        /// The name.
        name: SecretName,
        /// Whether it is removed.
        removed: bool,
    },
    /// A secret is not at the version that it was to be at.
    #[error("'{0}' was changed meanwhile")]
    Changed(SecretName),
    /// What is stored is not what was written.
    #[error("{0}")]
    Damaged(Damage),
    /// The key opens nothing here: it is another vault's, or the first page is damaged.
    #[error("the key does not open this database")]
    WrongKey,
    /// The disk, or the quota on it, is full. Nothing was changed.
    #[error("the disk is full")]
    Full,
    /// Another process holds the database.
    #[error("another process is using the database")]
    Busy,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// What was asked for together is larger than the caller can take.
    #[error("the values together are larger than {limit} bytes")]
    TooLarge {
        /// Most bytes that were allowed.
        limit: usize,
    },
    /// The vault is not the one that was written last, so it may only be read.
    #[error("the vault may only be read until its rollback is accepted")]
    ReadOnly,
    /// The vault is getting new keys, so it may only be read.
    #[error("the vault is getting new keys, and may only be read until it has them")]
    Rekeying,
    /// The change was made, but the anchor does not know of it.
    #[error("the change was stored, but a rollback to before it would not be noticed: {0}")]
    Anchor(crate::anchor::AnchorError),
    /// The database library failed.
    #[error("cannot {action}: {explanation} (SQLite error {code})")]
    Database {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// What the library says such an error is.
        explanation: &'static str,
        /// Its extended result code (<https://sqlite.org/rescode.html>).
        code: i32,
    },
    /// A file or folder could not be used.
    #[error(transparent)]
    Files(#[from] core_crypto::private_fs::PrivateFsError),
    /// The operating system failed otherwise.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing could be encrypted.
    #[error("cannot encrypt: {0}")]
    Encrypt(core_crypto::aead::AeadError),
}

/// What is wrong with stored data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The database's own structure, or a page that does not carry its authentication code.
    #[error("the database is damaged (SQLite error {code})")]
    Database {
        /// The extended result code.
        code: i32,
    },
    /// A value that was not sealed for its name, version and profile with the vault's key.
    #[error("the value of '{0}' is not what was stored under this name")]
    Value(SecretName),
    /// A stored name that is none.
    #[error("a stored name is not a secret name")]
    Name,
    /// The row that says which state the database is in.
    #[error("the database does not say which state it is in")]
    NoState,
    /// A stored note that is none.
    #[error("a stored note is not a note")]
    Note,
    /// An empty database, or one of something else.
    #[error("the database is not a vault")]
    NotAVault,
    /// A database that an earlier or later version made.
    #[error("the database has format {found}, and this version reads format {expected}")]
    Format {
        /// Its format.
        found: i64,
        /// The format that can be read.
        expected: i64,
    },
    /// The database does not belong to the header beside it.
    #[error("the database is damaged, or is not the one that belongs to its header")]
    NotThisVault,
}

impl StoreError {
    /// Whether the disk, or the quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Files(error) => error.is_full(),
            _ => false,
        }
    }
}
