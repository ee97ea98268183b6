//! The way of audit entries to `daemon-profile`: a bounded queue, sent in order, and sent again until answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use core_ipc::{BusClient, CallError};
use core_types::protocol::profile::{Record, SecretOperationAudit};
use tokio::sync::Notify;

/// Most entries that may wait; at some 300 bytes each, a few megabytes.
const WAITING_MAX: usize = 10_000;
/// Most entries of one `Record` call.
const BATCH_MAX: usize = 500;
/// Pause between two `Record` calls, so that many attempts in a row cost few of them. A single one is sent at once.
const GATHER: Duration = Duration::from_millis(2);
/// Wait before sending again what was not answered.
const RETRY: Duration = Duration::from_millis(200);

/// The queue is full: `daemon-profile` has been away for long, and what cannot be recorded is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many audit entries wait for daemon-profile")]
pub struct QueueFull;

#[derive(Default)]
struct Waiting {
    entries: VecDeque<SecretOperationAudit>,
    first: u64,
}

struct Shared {
    waiting: Mutex<Waiting>,
    added: Notify,
    emptied: Notify,
    origin: u64,
}

/// A handle on the queue; clones share it.
#[derive(Clone)]
pub struct AuditQueue {
    shared: Arc<Shared>,
}

impl AuditQueue {
    /// Makes the queue and the task that empties it. `origin` is a random number that tells this process's entries
    /// from those of another start.
    pub(crate) fn start(bus: BusClient, origin: u64) -> Self {
        let queue = Self {
            shared: Arc::new(Shared {
                waiting: Mutex::default(),
                added: Notify::new(),
                emptied: Notify::new(),
                origin,
            }),
        };
        tokio::spawn(queue.clone().send_forever(bus));
        queue
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an entry into the queue.
    ///
    /// # Errors
    /// The queue is full.
    pub fn record(&self, entry: SecretOperationAudit) -> Result<(), QueueFull> {
        let mut waiting = self.waiting();
        if waiting.entries.len() >= WAITING_MAX {
            return Err(QueueFull);
        }
        waiting.entries.push_back(entry);
        self.shared.added.notify_one();
        Ok(())
    }

    /// Completes when all entries have been answered, or after `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        let empty = async {
            loop {
                let emptied = self.shared.emptied.notified();
                if self.waiting().entries.is_empty() {
                    return;
                }
                emptied.await;
            }
        };
        if tokio::time::timeout(limit, empty).await.is_err() {
            tracing::error!(entries = self.waiting().entries.len(), "audit entries could not be delivered");
        }
    }

    /// Forgets the first `count` entries; says whether a whole batch more is waiting.
    fn answered(&self, count: usize) -> bool {
        let mut waiting = self.waiting();
        waiting.entries.drain(..count);
        waiting.first += count as u64;
        waiting.entries.len() >= BATCH_MAX
    }

    async fn send_forever(self, bus: BusClient) {
        loop {
            let batch = {
                let waiting = self.waiting();
                let entries: Vec<_> = waiting.entries.iter().take(BATCH_MAX).cloned().collect();
                Record { origin: self.shared.origin, first: waiting.first, entries }
            };
            if batch.entries.is_empty() {
                self.shared.emptied.notify_waiters();
                self.shared.added.notified().await;
                continue;
            }
            match bus.call(&batch).await {
                Ok(()) => {
                    if !self.answered(batch.entries.len()) {
                        tokio::time::sleep(GATHER).await;
                    }
                }
                Err(error) => {
                    // Away for a moment is the normal case of a restart; a denial is worth a line.
                    match &error {
                        CallError::Denied(denial) => {
                            tracing::error!(%denial, "daemon-profile took no audit entries")
                        }
                        other => tracing::debug!(error = %other, "audit entries wait for daemon-profile"),
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
