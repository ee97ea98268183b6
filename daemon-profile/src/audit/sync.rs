//! Makes written entries durable in the background: one fdatasync for all that was written while the last one ran.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::Disk;

/// Runs fdatasync for whoever asks; at most one runs and at most one more waits.
pub(crate) struct Syncer {
    disk: Arc<dyn Disk>,
    waiting: AtomicBool,
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

    /// Sees to it that all that is in `file` now gets durable, and returns at once.
    pub(crate) fn request(self: &Arc<Self>, file: Arc<File>) {
        if self.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let syncer = Arc::clone(self);
        tokio::task::spawn_blocking(move || syncer.run(&file));
    }

    /// Makes all that is in `file` now durable. Blocks; a failure is kept for [`Self::failure`].
    ///
    /// # Errors
    /// It may not be.
    pub(crate) fn run(&self, file: &File) -> Result<(), String> {
        let _turn = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // From here on what is written is perhaps not covered by this run, so it asks for another.
        self.waiting.store(false, Ordering::Release);
        let failure =
            self.disk.sync(file).err().map(|error| format!("fdatasync of the audit log failed: {error}"));
        if let Some(failure) = &failure {
            tracing::error!("{failure}; entries written since the last success may not survive a power cut");
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&failure);
        failure.map_or(Ok(()), Err)
    }
}
