//! The way of audit entries to `daemon-profile`: kept in files or in memory as the profile's mode asks for, sent in
//! order, and sent again until answered.

mod missing;
mod spool;
mod waiting;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use core_ipc::{BusClient, CallError, CallOptions};
use core_types::config::{AuditMode, Config};
use core_types::paths::Paths;
use core_types::protocol::profile::{AuditSync, Requester, SecretOperationAudit};
use tokio::sync::{Mutex as FairMutex, Notify};

use crate::process::StartError;
use crate::wall_clock::unix_ms_now;
use missing::Tally;
use spool::{FRAME_BYTES_MAX, Spool};
use waiting::Waiting;

/// Pause between two `Record` calls, so that many attempts in a row cost few of them. A single one is sent at once.
const GATHER: Duration = Duration::from_millis(5);
/// What the pause grows to, doubling, while entries keep coming.
const GATHER_MAX: Duration = Duration::from_millis(20);
/// How long `daemon-profile` may take to write entries before they are sent again; it knows those that it has.
const WRITE: Duration = Duration::from_secs(3);
/// Wait before sending again what was not answered.
const RETRY: Duration = Duration::from_millis(200);
/// How long somebody who wants what was recorded to be in the log waits for that.
const DELIVER: Duration = Duration::from_millis(500);
/// How long nothing comes before the present file is removed.
const IDLE: Duration = Duration::from_secs(1);

/// The first file of a process that could not see which there are; files are counted from 1 otherwise.
const UNSEEN: u64 = 1 << 40;

/// An entry of a `durable` profile is not on the disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit entry is not on the disk: {0}")]
pub struct NotDurable(pub String);

struct Shared {
    waiting: Mutex<Waiting>,
    /// How many writes are durable. Held while files are written out, so that all who wait share the next time.
    durable: FairMutex<u64>,
    added: Notify,
    /// Some entries have been taken by `daemon-profile`.
    answered: Notify,
    /// Somebody waits for that, so that nothing is gathered now.
    wanted: Notify,
    emptied: Notify,
    ending: AtomicBool,
    config: Mutex<Arc<Config>>,
    daemon: &'static str,
}

/// A handle on the queue; clones share it.
#[derive(Clone)]
pub struct AuditQueue {
    shared: Arc<Shared>,
}

/// What an entry takes at most besides the first of several about the same attempt, in bytes: it has no reason, but
/// the longest names and the longest path of an executable.
const FURTHER_ENTRY_BYTES: u64 = 8 << 10;

/// Room on the disk for the entries of something that is about to be done; given back when dropped.
#[must_use]
pub struct Room(Option<(AuditQueue, u64)>);

impl Room {
    /// Room that is not on a disk, for what asks for none.
    pub fn none() -> Self {
        Self(None)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some((queue, bytes)) = &self.0 {
            queue.waiting().release(*bytes);
        }
    }
}

impl AuditQueue {
    /// Makes the queue of this daemon and the task that empties it; what an earlier process left is sent first.
    /// `origin` is a random number that tells this process's entries from those of another start.
    ///
    /// # Errors
    /// The folder or a file of it is a link, somebody else's, or writable by others. A disk that fails is no error.
    pub(crate) fn start(
        bus: BusClient,
        origin: u64,
        daemon: &'static str,
        paths: &Paths,
        config: &Config,
    ) -> Result<Self, StartError> {
        let waiting = open(daemon, paths, origin)?;
        let queue = Self {
            shared: Arc::new(Shared {
                waiting: Mutex::new(waiting),
                durable: FairMutex::default(),
                added: Notify::new(),
                answered: Notify::new(),
                wanted: Notify::new(),
                emptied: Notify::new(),
                ending: AtomicBool::new(false),
                config: Mutex::new(Arc::new(config.clone())),
                daemon,
            }),
        };
        tokio::spawn(queue.clone().send_forever(bus));
        Ok(queue)
    }

    /// Goes by this configuration from now on.
    pub fn configure(&self, config: Arc<Config>) {
        *self.shared.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mode(&self, entry: &SecretOperationAudit) -> AuditMode {
        let config = self.shared.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.audit_mode(entry.profile.as_ref())
    }

    /// Keeps room for the entries of a change, where its profile is `durable`: what has been done cannot be refused any
    /// more, so it has to be certain before that it can be recorded.
    ///
    /// # Errors
    /// There is no room.
    pub fn reserve(
        &self,
        profile: Option<&core_types::ProfileName>,
        entries: usize,
    ) -> Result<Room, NotDurable> {
        let config = Arc::clone(&self.shared.config.lock().unwrap_or_else(PoisonError::into_inner));
        if config.audit_mode(profile) != AuditMode::Durable {
            return Ok(Room::none());
        }
        let further = u64::try_from(entries.saturating_sub(1)).unwrap_or(u64::MAX);
        let bytes = FRAME_BYTES_MAX.saturating_add(further.saturating_mul(FURTHER_ENTRY_BYTES));
        self.waiting().reserve(bytes).map_err(NotDurable)?;
        Ok(Room(Some((self.clone(), bytes))))
    }

    /// Records entries, which are about the same profile. When this is answered they are as safe as its mode says.
    ///
    /// # Errors
    /// The mode is `durable`, and they are not on the disk.
    pub async fn record(&self, entries: Vec<SecretOperationAudit>, room: Room) -> Result<(), NotDurable> {
        let Some(mode) = entries.first().map(|entry| self.mode(entry)) else { return Ok(()) };
        // Before the entry is written, which takes the room.
        drop(room);
        let taken = self.waiting().take(entries, mode);
        self.shared.added.notify_one();
        match (taken, mode) {
            (Ok(Some(append)), AuditMode::Durable) => self.made_durable(append).await,
            (Ok(_), _) => Ok(()),
            (Err(reason), _) => Err(NotDurable(reason)),
        }
    }

    /// Waits until a write is durable: by the same fdatasync as all that were made while the one before it ran.
    async fn made_durable(&self, append: u64) -> Result<(), NotDurable> {
        let mut durable = self.shared.durable.lock().await;
        if *durable >= append {
            return Ok(());
        }
        let unsynced = self.waiting().unsynced();
        let written_out = tokio::task::spawn_blocking(move || {
            unsynced.files.iter().try_for_each(|file| file.sync_data()).map_err(|error| error.to_string())?;
            if let Some(folder) = &unsynced.folder {
                core_crypto::private_fs::sync_dir(folder).map_err(|error| error.to_string())?;
            }
            Ok(unsynced)
        });
        let unsynced =
            written_out.await.map_err(|error| NotDurable(error.to_string()))?.map_err(NotDurable)?;
        self.waiting().synced(&unsynced);
        *durable = unsynced.appends;
        Ok(())
    }

    /// Completes when all that was recorded before is in the log, or after half a second. Whoever reads the log wants to
    /// find there what it has just done.
    pub async fn delivered(&self) {
        let number = self.waiting().next_number();
        let taken = async {
            loop {
                let answered = self.shared.answered.notified();
                if !self.waiting().waits_below(number) {
                    return;
                }
                self.shared.wanted.notify_one();
                answered.await;
            }
        };
        if tokio::time::timeout(DELIVER, taken).await.is_err() {
            tracing::warn!("the audit log is read while entries wait for daemon-profile");
        }
    }

    /// Completes when all entries have been answered, or after `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.shared.ending.store(true, Ordering::Release);
        let empty = async {
            loop {
                let emptied = self.shared.emptied.notified();
                self.shared.added.notify_one();
                if self.is_done() {
                    return;
                }
                emptied.await;
            }
        };
        if tokio::time::timeout(limit, empty).await.is_err() {
            let lost = self.waiting().unwritten();
            match lost {
                0 => tracing::warn!("audit entries wait in files for daemon-profile"),
                _ => tracing::error!(entries = lost, "audit entries could not be delivered"),
            }
        }
    }

    fn is_done(&self) -> bool {
        let waiting = self.waiting();
        waiting.is_empty() && !waiting.holds_files()
    }

    async fn send_forever(self, bus: BusClient) {
        let mut gather = GATHER;
        loop {
            let batch = self.next_batch();
            let Some(batch) = batch else {
                self.rest(&bus).await;
                continue;
            };
            let options = CallOptions { deadline: WRITE, descriptors: Vec::new() };
            match bus.call_with(&batch, options).await {
                Ok(()) => {
                    let more = self.waiting().answered(batch.entries.len());
                    self.shared.answered.notify_waiters();
                    self.tell_gap();
                    self.tidy(&bus).await;
                    gather = if batch.entries.len() > 1 { (2 * gather).min(GATHER_MAX) } else { GATHER };
                    if !more {
                        // However it ends, it is over.
                        let _ = tokio::time::timeout(gather, self.shared.wanted.notified()).await;
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

    fn next_batch(&self) -> Option<core_types::protocol::profile::Record> {
        let mut waiting = self.waiting();
        match waiting.next() {
            Ok(batch) => batch,
            Err(error) => {
                waiting.give_up_unread(&error);
                None
            }
        }
    }

    /// Says how many entries are missing, if there are any and there is room to say it.
    fn tell_gap(&self) {
        let mut waiting = self.waiting();
        if let Some(gap) = waiting.gap(|| self.recorder()) {
            // Without a file it is told from memory, as the mode has it.
            let gap = SecretOperationAudit { unix_ms: unix_ms_now(), ..gap };
            let _ = waiting.take(vec![gap], AuditMode::Written);
            waiting.note_unwritten();
        }
    }

    fn recorder(&self) -> Requester {
        Requester {
            name: self.shared.daemon.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            pid: Some(std::process::id()),
            executable: None,
            unit: None,
        }
    }

    /// With nothing to send: removes the files after a while, and waits for the next entry.
    async fn rest(&self, bus: &BusClient) {
        self.tell_gap();
        if !self.waiting().is_empty() {
            return;
        }
        let ending = self.shared.ending.load(Ordering::Acquire);
        let idle = if ending { Duration::ZERO } else { IDLE };
        if tokio::time::timeout(idle, self.shared.added.notified()).await.is_ok() && !ending {
            return;
        }
        self.waiting().close_current();
        self.tidy(bus).await;
        self.shared.emptied.notify_waiters();
        if self.is_done() {
            self.shared.added.notified().await;
        } else if self.waiting().is_empty() {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Removes the files of which nothing waits, when `daemon-profile` has it on its disk.
    async fn tidy(&self, bus: &BusClient) {
        let settled = self.waiting().settled();
        if settled.is_empty() {
            return;
        }
        match bus.call(&AuditSync {}).await {
            Ok(()) => self.waiting().remove(&settled),
            Err(error) => tracing::debug!(%error, "audit entries are kept until they are durable elsewhere"),
        }
    }
}

/// The entries that wait; from files where they can be used, else in memory alone.
fn open(daemon: &'static str, paths: &Paths, origin: u64) -> Result<Waiting, StartError> {
    let folder = paths.audit_waiting();
    let spool = match Spool::open(&folder, daemon) {
        Ok(spool) => spool,
        Err(error) if error.is_refusal() => return Err(StartError::Service(error.to_string())),
        Err(error) => {
            tracing::error!("audit entries that wait cannot be read: {error}");
            Spool::unseen(&folder, daemon, UNSEEN)
        }
    };
    let (tally, left) = match Tally::open(&folder.join(format!("{daemon}.unwritten"))) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!("the number of missing audit entries cannot be kept: {error}");
            (Tally::forgetful(), 0)
        }
    };
    Ok(Waiting::new(spool, tally, left, origin))
}
