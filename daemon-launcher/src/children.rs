//! The programs that run: each is waited for by the socket of its monitor, so that the audit log tells how it ended.
//!
//! Each is also noted in a file from before it is executed until its end is recorded. So a launcher that comes after
//! one that was killed can say that nobody saw how they ended, and nobody can hide a run by a kill. What is kept is what
//! the audit log says of a run, and no secret.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use core_crypto::private_fs::{self, PrivateFsError};
use core_types::protocol::profile::{ChildExit, SecretOperationAudit};
use core_types::protocol::{decode, encode};
use tokio::io::AsyncReadExt as _;

use crate::handover::last_word;
use crate::record::{Recorder, end};

/// Most programs that are waited for at once: each holds one of the launcher's open files.
const WATCHED_MAX: usize = 512;
/// Longest note, in bytes; longer than any entry of a run.
const NOTE_BYTES_MAX: usize = 64 << 10;

/// The programs that run.
pub(crate) struct Children {
    folder: PathBuf,
    /// What the names of this process's notes begin with, and no other's: numbers of processes come again.
    prefix: String,
    recorder: Arc<Recorder>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    next: u64,
    children: BTreeMap<u64, (Note, SecretOperationAudit)>,
}

/// The file in which a program is noted; it is removed with this.
pub(crate) struct Note(PathBuf);

impl Drop for Note {
    fn drop(&mut self) {
        if let Err(error) = private_fs::remove_if_present(&self.0) {
            tracing::error!("the note of a program that ended cannot be removed: {error}");
        }
    }
}

impl Children {
    /// No program yet; `folder` is where they are noted. Must be called on the runtime: of programs that an earlier
    /// process left behind when it was killed it says in the background that nobody saw their end.
    ///
    /// # Errors
    /// The folder is a link, somebody else's, or writable by others. A disk that fails is no error.
    pub(crate) fn start(folder: &Path, recorder: Arc<Recorder>) -> Result<Arc<Self>, PrivateFsError> {
        match private_fs::ensure_private_dir(folder) {
            Err(error @ PrivateFsError::Io { .. }) => {
                tracing::error!("programs that run cannot be noted: {error}");
            }
            made => made?,
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("{}-{}", since.as_nanos(), std::process::id());
        let children = Self { folder: folder.to_owned(), prefix, recorder, running: Mutex::default() };
        let (children, left) = (Arc::new(children), notes(folder));
        tokio::spawn(Arc::clone(&children).take_over(left));
        Ok(children)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a program that is about to be executed, by the entry of its start.
    pub(crate) fn note(&self, start: &SecretOperationAudit) -> Note {
        let number = {
            let mut running = self.running();
            running.next += 1;
            running.next
        };
        let note = Note(self.folder.join(format!("{}.{number}", self.prefix)));
        if let Err(reason) = write_note(&note.0, start) {
            tracing::error!("a program that runs cannot be noted: {reason}");
        }
        note
    }

    /// Waits for the end of a program, by the socket of its monitor, and records it.
    pub(crate) fn watch(self: &Arc<Self>, note: Note, start: SecretOperationAudit, monitor: UnixStream) {
        let (number, many) = {
            let mut running = self.running();
            running.next += 1;
            let number = running.next;
            running.children.insert(number, (note, start));
            (number, running.children.len() > WATCHED_MAX)
        };
        let children = Arc::clone(self);
        tokio::spawn(async move {
            let exit = if many { ChildExit::Unknown } else { wait_end(monitor).await };
            children.ended(number, exit).await;
        });
    }

    /// Records the end of a program that has not been recorded yet.
    async fn ended(&self, number: u64, exit: ChildExit) {
        let ended = self.running().children.remove(&number);
        if let Some((note, start)) = ended {
            self.recorder.end(end(start, exit)).await;
            drop(note);
        }
    }

    /// Says of all that run that nobody will see their end, because this process ends.
    pub(crate) async fn abandon(&self) {
        let numbers: Vec<u64> = self.running().children.keys().copied().collect();
        for number in numbers {
            self.ended(number, ChildExit::Unknown).await;
        }
    }

    /// Says the same of those that an earlier process noted.
    async fn take_over(self: Arc<Self>, left: Vec<PathBuf>) {
        for path in left {
            match read_note(&path) {
                Ok(start) => self.recorder.end(end(start, ChildExit::Unknown)).await,
                Err(reason) => tracing::error!("the note of a program cannot be read: {reason}"),
            }
            drop(Note(path));
        }
    }
}

/// All notes that there are.
fn notes(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn write_note(path: &Path, start: &SecretOperationAudit) -> Result<(), String> {
    let bytes = encode(start).map_err(|error| error.to_string())?;
    let mut file = private_fs::create_new(path).map_err(|error| error.to_string())?;
    // Not written out: after a power cut no program runs any more.
    file.write_all(&bytes).map_err(|error| error.to_string())
}

fn read_note(path: &Path) -> Result<SecretOperationAudit, String> {
    let bytes = private_fs::read_limited(path, NOTE_BYTES_MAX).map_err(|error| error.to_string())?;
    decode(&bytes.unwrap_or_default()).map_err(|error| format!("{}: {error}", path.display()))
}

/// How a program ended, as its monitor says last; unknown of one whose monitor ended without a word.
async fn wait_end(monitor: UnixStream) -> ChildExit {
    let read = async {
        monitor.set_nonblocking(true)?;
        let mut word = Vec::new();
        let monitor = tokio::net::UnixStream::from_std(monitor)?;
        monitor.take(NOTE_BYTES_MAX as u64).read_to_end(&mut word).await?;
        Ok::<_, std::io::Error>(word)
    };
    match read.await {
        Ok(word) => last_word(&word).unwrap_or(ChildExit::Unknown),
        Err(error) => {
            tracing::error!(%error, "a program cannot be waited for");
            ChildExit::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::{MonitorReport, send};

    #[tokio::test]
    async fn an_end_is_what_the_monitor_says_and_unknown_without_its_word() {
        for (said, expected) in [
            (Some(ChildExit::Code(7)), ChildExit::Code(7)),
            (Some(ChildExit::Signal(9)), ChildExit::Signal(9)),
            (None, ChildExit::Unknown),
        ] {
            let (ours, monitor) = UnixStream::pair().unwrap();
            if let Some(exit) = said {
                send(&monitor, &MonitorReport::Ended(exit), &[]).unwrap();
            }
            drop(monitor);
            assert_eq!(wait_end(ours).await, expected);
        }
        let (ours, mut monitor) = UnixStream::pair().unwrap();
        monitor.write_all(&[1, 0, 0]).unwrap();
        drop(monitor);
        assert_eq!(wait_end(ours).await, ChildExit::Unknown);
    }
}
