//! Makes written entries durable in the background: one fdatasync for all that was written since the last one.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::disk::Disk;

/// How long what was written waits for more before it is made durable. Whoever cannot wait asks for it ([`Syncer::run`]):
/// without that a kill loses none of it, a power cut at most this much. At once, it would stand in the way of the vault,
/// whose own fsync waits behind it for the same disk.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs fdatasync for whoever asks; at most one runs and at most one more waits.
pub(crate) struct Syncer {
    disk: Arc<dyn Disk>,
    /// The file that was written to last, once a run for it is on its way.
    waiting: Mutex<Option<Arc<File>>>,
    running: Mutex<()>,
    failure: Mutex<Option<String>>,
}

impl Syncer {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        let (waiting, running, failure) = Default::default();
        Arc::new(Self { disk, waiting, running, failure })
    }

    /// Why the last run failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sees to it that all that is in `file` now gets durable, after a pause, and returns at once. A file that is left
    /// for another is durable before.
    pub(crate) fn request(self: &Arc<Self>, file: Arc<File>) {
        if self.waiting().replace(file).is_some() {
            return;
        }
        let syncer = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            // What is written from here on is perhaps not covered by this run, so it asks for another.
            let Some(file) = syncer.waiting().take() else { return };
            // A failure is kept.
            let _ = tokio::task::spawn_blocking(move || syncer.run(&file)).await;
        });
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Arc<File>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all that is in `file` now durable. Blocks; a failure is kept for [`Self::failure`].
    ///
    /// # Errors
    /// It may not be.
    pub(crate) fn run(&self, file: &File) -> Result<(), String> {
        let _turn = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let failure =
            self.disk.sync(file).err().map(|error| format!("fdatasync of the audit log failed: {error}"));
        if let Some(failure) = &failure {
            tracing::error!("{failure}; entries written since the last success may not survive a power cut");
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&failure);
        failure.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::MetadataExt;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Tells which files were made durable.
    struct Telling(Sender<u64>);

    impl Disk for Telling {
        fn write(&self, _: &File, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            let _ = self.0.send(file.metadata()?.ino());
            Ok(())
        }
    }

    fn file() -> (Arc<File>, u64) {
        let file = tempfile::tempfile().unwrap();
        let number = file.metadata().unwrap().ino();
        (Arc::new(file), number)
    }

    async fn next(synced: Receiver<u64>) -> (u64, Receiver<u64>) {
        tokio::task::spawn_blocking(move || (synced.recv().unwrap(), synced)).await.unwrap()
    }

    /// Nothing runs between the requests: the test gives way to the pause only when it waits.
    #[tokio::test]
    async fn many_writes_share_one_run_and_it_is_for_the_file_written_last() {
        let (sender, synced) = channel();
        let syncer = Syncer::new(Arc::new(Telling(sender)));
        let ((left, _), (current, number)) = (file(), file());
        for _ in 0..100 {
            syncer.request(Arc::clone(&left));
        }
        syncer.request(current);
        let (first, synced) = next(synced).await;
        assert_eq!(first, number);
        let (later, later_number) = file();
        syncer.request(later);
        let (second, _) = next(synced).await;
        assert_eq!(second, later_number, "no run came between, and what is written later gets one");
    }
}
