//! The configuration file while a daemon runs: looked at (not read) whenever it matters, so that there is no moment in
//! which a change is waiting to be noticed.
//!
//! A file that is being written is left alone until nobody has touched it for a moment: half of one may be a valid
//! file with fewer rules. What a change means is its reader's business; until that says so, the file counts as changed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use core_crypto::private_fs;
use core_types::config::Config;
use core_types::limits::CONFIG_BYTES_MAX;
use core_types::paths::Paths;
use tokio::sync::{Mutex as FairMutex, MutexGuard as FairGuard};

/// How long nobody may have touched the file before it is read. More than the steps of the kernel's file times, so
/// that of two changes the second is never taken for the first.
const SETTLED: Duration = Duration::from_millis(50);

/// What tells one state of a file from another, without reading it. `None`: there is no file.
type Stamp = Option<FileStamp>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    bytes: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

/// What stands at the path now; a link is not followed.
fn stamp(file: &Path) -> Stamp {
    let stat = rustix::fs::lstat(file).ok()?;
    Some(FileStamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        bytes: stat.st_size,
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
    })
}

/// Whether nobody has touched the file for long enough. Whether there was one just before cannot be seen.
fn is_settled(stamp: Stamp) -> bool {
    let Some(FileStamp { changed: (seconds, nanoseconds), .. }) = stamp else { return false };
    let changed = Duration::new(u64::try_from(seconds).unwrap_or(0), 0) + Duration::from_nanos(nanoseconds);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.checked_sub(changed).is_some_and(|age| age >= SETTLED)
}

/// The configuration file, and which state of it has been taken note of.
pub struct LiveConfig {
    file: PathBuf,
    seen: Mutex<Option<Stamp>>,
    /// Held while the file is read, and until what was read is in force.
    reading: FairMutex<()>,
}

/// A state of the file that nobody has taken note of yet.
pub struct Change<'a> {
    /// What stands in it, or why it cannot be used.
    pub config: Result<Config, String>,
    stamp: Stamp,
    live: &'a LiveConfig,
    _reading: FairGuard<'a, ()>,
}

impl Change<'_> {
    /// Takes note of this state of the file. One that is dropped without this is read again the next time.
    pub fn seen(&self) {
        *self.live.seen() = Some(self.stamp);
    }
}

impl LiveConfig {
    /// The file, of which no state has been seen yet.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self { file: paths.config_file(), seen: Mutex::default(), reading: FairMutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Stamp>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_seen(&self) -> bool {
        *self.seen() == Some(stamp(&self.file))
    }

    /// Reads the file if it is another than the one that was seen last; whoever asks at the same moment waits. `None`
    /// also while someone is writing it: the next to ask gets it then.
    pub async fn changed(&self) -> Option<Change<'_>> {
        if self.is_seen() {
            return None;
        }
        let reading = self.reading.lock().await;
        if self.is_seen() {
            return None;
        }
        let before = stamp(&self.file);
        if !is_settled(before) {
            tokio::time::sleep(SETTLED).await;
        }
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || read(&file)).await;
        let config = read.unwrap_or_else(|error| Err(error.to_string()));
        (stamp(&self.file) == before).then_some(Change {
            config,
            stamp: before,
            live: self,
            _reading: reading,
        })
    }
}

/// The configuration in the file, or why it cannot be used.
fn read(file: &Path) -> Result<Config, String> {
    let bytes = private_fs::read_limited(file, CONFIG_BYTES_MAX).map_err(|error| error.to_string())?;
    let bytes = bytes.unwrap_or_default();
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{} is not UTF-8 text", file.display()))?;
    Config::parse(text).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::config::AuditMode;

    #[tokio::test]
    async fn a_state_of_the_file_is_read_until_it_is_taken_note_of() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().to_owned();
        let paths = Paths::from_variables(|name| {
            matches!(name, "PDS_CONFIG_DIR" | "PDS_DATA_DIR" | "PDS_STATE_DIR" | "PDS_RUNTIME_DIR")
                .then(|| root.clone())
        });
        let paths = paths.unwrap();
        let live = LiveConfig::new(&paths);
        assert_eq!(live.changed().await.unwrap().config, Ok(Config::default()));
        live.changed().await.unwrap().seen();
        assert!(live.changed().await.is_none());
        std::fs::write(paths.config_file(), "[audit]\nmode = 'durable'\n").unwrap();
        let change = live.changed().await.unwrap();
        assert_eq!(change.config.as_ref().unwrap().audit.mode, AuditMode::Durable);
        change.seen();
        drop(change);
        std::fs::write(paths.config_file(), "[audit]\nmode = 'lasting'\n").unwrap();
        let change = live.changed().await.unwrap();
        let problem = change.config.as_ref().unwrap_err();
        assert!(problem.contains("config.toml") && problem.contains("line 2"), "{problem}");
    }
}
