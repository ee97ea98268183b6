//! Keeps the counts of wrong unlock attempts in a file, so that a restart forgives none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use core_crypto::private_fs::PrivateFsError;
use core_types::ProfileName;
use core_types::protocol::profile::UnlockDelay;
use tokio::sync::Mutex as FairMutex;

use crate::backoff::{Backoff, WAIT_MS_MAX};
use crate::kept::{self, Found, KeepError};

/// Largest file of counts, in bytes: a thousand of the longest names fit in.
const FILE_BYTES_MAX: usize = 1 << 18;

struct Kept {
    path: PathBuf,
    backoff: Backoff,
}

/// The counts and their file.
#[derive(Clone)]
pub(crate) struct Attempts(Arc<FairMutex<Kept>>);

impl Attempts {
    /// Reads the counts. Without a file there were no wrong attempts; with one that cannot be understood nobody
    /// knows how many there were, so every profile waits longest until its next right attempt.
    ///
    /// # Errors
    /// The file is a link, somebody else's, or writable by others.
    pub(crate) fn open(path: &Path) -> Result<Self, PrivateFsError> {
        let backoff = match kept::read(path, FILE_BYTES_MAX, Backoff::from_bytes)? {
            Found::Nothing => Backoff::new(),
            Found::Damaged => {
                tracing::error!("every unlock waits until one was right");
                Backoff::unknown()
            }
            Found::State(backoff) => backoff,
        };
        Ok(Self(Arc::new(FairMutex::new(Kept { path: path.to_owned(), backoff }))))
    }

    /// Counts an attempt as wrong, durably, and says how long it has to wait.
    pub(crate) async fn begin(&self, profile: ProfileName) -> UnlockDelay {
        let began = self.change(move |backoff| backoff.begin(&profile, Instant::now())).await;
        // Where nothing can be kept a restart would forgive, so each attempt waits longest; nobody is shut out.
        UnlockDelay { wait_ms: began.unwrap_or(WAIT_MS_MAX), generation: 0 }
    }

    /// Takes note of how an attempt ended.
    pub(crate) async fn end(&self, profile: ProfileName, right: bool) {
        // If it cannot be kept, the attempt counts as wrong after a restart: a short wait, and logged.
        let _ = self.change(move |backoff| backoff.end(&profile, right, Instant::now())).await;
    }

    /// Makes a change and keeps it, on a thread that may block; `None` if it could not be kept.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Backoff) -> T + Send + 'static,
    ) -> Option<T> {
        let mut kept = Arc::clone(&self.0).lock_owned().await;
        let changed = tokio::task::spawn_blocking(move || {
            let result = change(&mut kept.backoff);
            match kept.write() {
                Ok(()) => Some(result),
                Err(error) => {
                    tracing::error!("the unlock attempts cannot be kept: {error}");
                    None
                }
            }
        });
        changed.await.ok().flatten()
    }
}

impl Kept {
    fn write(&self) -> Result<(), KeepError> {
        kept::write(&self.path, self.backoff.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn work() -> ProfileName {
        ProfileName::parse("work").unwrap()
    }

    async fn wait_ms(attempts: &Attempts) -> u64 {
        attempts.begin(work()).await.wait_ms
    }

    #[tokio::test]
    async fn an_attempt_is_counted_in_the_file_before_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempts.json");
        for wrong in 0..4 {
            let attempts = Attempts::open(&path).unwrap();
            assert_eq!(wait_ms(&attempts).await, wrong * 100);
        }
        let attempts = Attempts::open(&path).unwrap();
        attempts.begin(work()).await;
        attempts.end(work(), true).await;
        assert_eq!(wait_ms(&Attempts::open(&path).unwrap()).await, 0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_damaged_file_slows_down_until_a_right_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempts.json");
        for damaged in [b"{\"version\":1".to_vec(), vec![0; 100], vec![b' '; FILE_BYTES_MAX + 1]] {
            fs::write(&path, damaged).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let attempts = Attempts::open(&path).unwrap();
            assert_eq!(wait_ms(&attempts).await, 10_000);
            let attempts = Attempts::open(&path).unwrap();
            assert_eq!(wait_ms(&attempts).await, 10_000, "a restart changes nothing about it");
            attempts.end(work(), true).await;
            assert_eq!(wait_ms(&attempts).await, 0);
        }
    }

    #[tokio::test]
    async fn where_nothing_can_be_kept_each_attempt_waits_longest() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        fs::create_dir(&below).unwrap();
        let attempts = Attempts::open(&below.join("attempts.json")).unwrap();
        fs::remove_dir(&below).unwrap();
        assert_eq!(wait_ms(&attempts).await, 10_000);
        attempts.end(work(), true).await;
        fs::create_dir(&below).unwrap();
        assert_eq!(wait_ms(&attempts).await, 0, "and it is over when the disk is back");
    }

    #[test]
    fn a_link_in_place_of_the_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempts.json");
        fs::write(folder.path().join("elsewhere"), "").unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        let error = Attempts::open(&path).err().unwrap().to_string();
        assert!(error.contains("attempts.json"), "{error}");
    }

    #[test]
    fn the_longest_names_fit_into_the_file() {
        let mut backoff = Backoff::new();
        for number in 0..2_000 {
            backoff.begin(&ProfileName::parse(format!("{number:064}")).unwrap(), Instant::now());
        }
        assert!(backoff.to_bytes().unwrap().len() <= FILE_BYTES_MAX);
    }
}
