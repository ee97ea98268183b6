//! The audit log: who asked for what and how it ended, in files where a change shows.

mod chain;
mod disk;
mod end;
#[cfg(test)]
mod format;
mod key_file;
mod line;
mod log;
mod origins;
mod read;
mod resume;
mod scan;
mod search;
mod segment;
mod sync;
#[cfg(test)]
mod tamper;
mod text;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use core_crypto::log_key::LogKey;
use core_crypto::private_fs::PrivateFsError;
use core_daemon::unix_ms_now;
use core_types::ProfileName;
use core_types::config::AuditLog;
use core_types::protocol::profile::{
    AuditLine, AuditPage, AuditPoint, AuditReport, AuditSearch, AuditTail, Record, SecretOperationAudit,
};
use tokio::sync::{Mutex as FairMutex, Semaphore};

use chain::{End, Keys};
use disk::{Disk, RealDisk};
use line::{Entry, KeyMark, Mark, Recorder};
use log::{Appended, Log, Rotation};
use sync::Syncer;

pub(crate) use chain::Keys as ProofKeys;
#[cfg(test)]
pub(crate) use line::samples;
pub(crate) use read::Stretch;
pub(crate) use search::ReadEntry;

/// Most reads of the log (a check of the chain reads all of it) that run at once; others wait.
const READERS_MAX: usize = 4;

/// Why the log could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The folder or a file is not what a private one has to be, or could not be made.
    #[error("{0}")]
    Private(PrivateFsError),
    /// A file of the log is not an ordinary one of ours that nobody else can change.
    #[error("{} is not an ordinary file of yours that only you can change: remove or rename it", path.display())]
    NotPrivate {
        /// Which.
        path: PathBuf,
    },
    /// An operation on a file or on the folder failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// An entry could not be shown as JSON.
    #[error("an entry cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// What was written is perhaps not on the disk.
    #[error("{0}")]
    NotSynced(String),
    /// There is nothing to make a key of.
    #[error("the kernel gives no random bytes")]
    NoRandom,
    /// What there is of it has not been looked at yet, because that failed.
    #[error("the audit log cannot be opened, so nothing is known of it: {0}")]
    Unopened(String),
    /// No file is open.
    #[error("the audit log is not open")]
    Closed,
    /// The thread that did the work panicked.
    #[error("the work on the audit log was broken off")]
    BrokenOff,
}

impl LogError {
    /// Whether the folder or a file is what must not be used, rather than a disk that fails.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Private(error) => !matches!(error, PrivateFsError::Io { .. }),
            Self::NotPrivate { .. } => true,
            Self::Io { .. }
            | Self::Encode(_)
            | Self::NotSynced(_)
            | Self::NoRandom
            | Self::Unopened(_)
            | Self::Closed
            | Self::BrokenOff => false,
        }
    }
}

/// What is known of the log without asking its writer, who may be waiting for a disk that hangs.
struct Known {
    end: End,
    failing: Option<String>,
    /// How many entries are missing that an entry tells, since this process began.
    told_missing: u64,
    /// How many are missing that none tells yet, by who reported it.
    reported_missing: BTreeMap<String, u64>,
}

/// Where the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Sequence number the next entry gets.
    pub(crate) next_sequence: u64,
    /// Why nothing can be written, when nothing can.
    pub(crate) failing: Option<String>,
    /// How many entries are known to be missing.
    pub(crate) missing: u64,
}

/// The log, as the service uses it.
#[derive(Clone)]
pub(crate) struct Audit {
    folder: PathBuf,
    log: Arc<FairMutex<Log>>,
    known: Arc<Mutex<Known>>,
    syncer: Arc<Syncer>,
    readers: Arc<Semaphore>,
}

impl Audit {
    /// Opens the log in `folder`, or begins one. A disk that is full or fails is no error: it shows in
    /// [`Self::status`], and every later entry tries again.
    ///
    /// # Errors
    /// The folder or the file is a link, somebody else's, or writable by others.
    pub(crate) fn open(folder: &Path, config: &AuditLog) -> Result<Self, LogError> {
        Self::open_on(folder, Arc::new(RealDisk), config.into())
    }

    fn open_on(folder: &Path, disk: Arc<dyn Disk>, rotation: Rotation) -> Result<Self, LogError> {
        let mut log = Log::new(folder, Arc::clone(&disk), rotation);
        let failing = match log.prepare() {
            Ok(()) => None,
            Err(error) if error.is_refusal() => return Err(error),
            Err(error) => Some(error.to_string()),
        };
        let (told_missing, reported_missing) = Default::default();
        let known = Known { end: log.end(), failing, told_missing, reported_missing };
        Ok(Self {
            folder: folder.to_owned(),
            log: Arc::new(FairMutex::new(log)),
            known: Arc::new(Mutex::new(known)),
            syncer: Syncer::new(disk),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        })
    }

    /// Writes the entries that the daemon `by` sent; those that it sent before are passed over. Returns when they
    /// are in the file, which is before they are durable.
    ///
    /// # Errors
    /// Not all could be written; sending the same again is safe.
    pub(crate) async fn record(&self, by: &str, record: Record) -> Result<(), LogError> {
        let told: u64 = record.entries.iter().filter_map(|entry| entry.missing).sum();
        self.known().reported_missing.insert(by.to_owned(), record.missing);
        let by = by.to_owned();
        self.write(move |log| log.record(&by, &record)).await?;
        self.known().told_missing += told;
        Ok(())
    }

    /// Writes an entry of `daemon-profile`'s own.
    ///
    /// # Errors
    /// It could not be written, and is lost.
    pub(crate) async fn note(&self, event: SecretOperationAudit) -> Result<(), LogError> {
        self.write(move |log| log.append(&[Entry::Event { event: &event, recorder: Recorder::own() }])).await
    }

    /// Where the log ends, if that is known: not before it could be opened once.
    fn end(&self) -> Result<End, LogError> {
        let known = self.known();
        match &known.failing {
            Some(reason) if known.end == End::EMPTY => Err(LogError::Unopened(reason.clone())),
            _ => Ok(known.end),
        }
    }

    /// The last entries, or those after a sequence number; as many as fit into one answer.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) async fn tail(&self, call: &AuditTail) -> Result<Vec<AuditLine>, LogError> {
        let next = self.end()?.next;
        if call.count == 0 || call.after.is_some_and(|after| after >= next - 1) {
            return Ok(Vec::new());
        }
        let (folder, count, after) = (self.folder.clone(), call.count, call.after);
        self.read(move || read::tail(&folder, count, after)).await
    }

    /// Checks the chain up to its present end, and the proofs of which the keys are given, each with the entry that it
    /// begins after.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) async fn verify(&self, keys: Keys) -> Result<AuditReport, LogError> {
        let (folder, end) = (self.folder.clone(), self.end()?);
        self.read(move || read::verify(&folder, end, keys)).await
    }

    /// Which keys of which vaults prove which entries.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) async fn stretches(&self) -> Result<Vec<Stretch>, LogError> {
        let folder = self.folder.clone();
        self.read(move || read::stretches(&folder)).await
    }

    /// The last entry after which entries are proved by a key of this vault, which has this id.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) async fn knows(&self, profile: &ProfileName, id: &[u8]) -> Result<Option<u64>, LogError> {
        let id = hex::encode(id);
        let known = self.stretches().await?.into_iter().rev();
        let mut known = known.filter(|stretch| stretch.profile == *profile && stretch.key.id == id);
        Ok(known.next().map(|stretch| stretch.sequence))
    }

    /// Goes on with a key of a vault.
    ///
    /// # Errors
    /// That could not be written down; the old key proves what follows.
    pub(crate) async fn begin_stretch(
        &self,
        profile: ProfileName,
        nonce: &[u8],
        id: &[u8],
        key: LogKey,
    ) -> Result<(), LogError> {
        let mark = KeyMark { nonce: hex::encode(nonce), id: hex::encode(id) };
        let mark = Mark::Key { profile, key: mark };
        self.write(move |log| log.begin_stretch(&mark, key)).await
    }

    /// Writes down that the log is not what was written, from an entry on.
    ///
    /// # Errors
    /// It could not be written, and is lost.
    pub(crate) async fn tell_broken(&self, sequence: u64, reason: String) -> Result<(), LogError> {
        let mark = Mark::Broken { sequence, reason };
        self.write(move |log| log.append(&[Entry::Own { unix_ms: unix_ms_now(), mark: &mark }])).await
    }

    /// Whether the log holds this point, or removed it because of its age.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) async fn holds(&self, point: AuditPoint) -> Result<bool, LogError> {
        let folder = self.folder.clone();
        self.read(move || read::holds(&folder, &point)).await
    }

    /// The entries that a call seeks, as many as fit into one answer.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) async fn search(&self, call: &AuditSearch) -> Result<AuditPage, LogError> {
        let (folder, call) = (self.folder.clone(), call.clone());
        self.read(move || search::search(&folder, &call)).await
    }

    /// Gives every successful read of a secret from entry `first` on to `each`; answers the last entry there is.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(crate) async fn each_read(
        &self,
        first: u64,
        each: impl FnMut(ReadEntry) + Send + 'static,
    ) -> Result<u64, LogError> {
        let folder = self.folder.clone();
        self.read(move || search::each_read(&folder, first, each)).await
    }

    /// Where the log ends.
    pub(crate) fn head(&self) -> AuditPoint {
        self.known().end.point()
    }

    /// Where the log stands, and whether it can be written.
    pub(crate) fn status(&self) -> Standing {
        let known = self.known();
        let failing = known.failing.clone().or_else(|| self.syncer.failure());
        let missing = known.told_missing + known.reported_missing.values().sum::<u64>();
        Standing { next_sequence: known.end.next, failing, missing }
    }

    /// Makes everything written so far durable, and answers when it is.
    ///
    /// # Errors
    /// It may not outlast a power cut.
    pub(crate) async fn sync(&self) -> Result<(), LogError> {
        let syncer = Arc::clone(&self.syncer);
        let Some(file) = self.log.lock().await.file() else { return Err(LogError::Closed) };
        let synced = tokio::task::spawn_blocking(move || syncer.run(&file).map_err(LogError::NotSynced));
        synced.await.map_err(|_| LogError::BrokenOff)?
    }

    /// Makes everything written durable, before the daemon ends.
    pub(crate) async fn close(&self) {
        let syncer = Arc::clone(&self.syncer);
        if let Some(file) = self.log.lock().await.file() {
            // A failure is logged by the syncer; nobody is left to be told.
            let _ = tokio::task::spawn_blocking(move || syncer.run(&file)).await;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the log, on a thread that may block. The lock is fair, so entries keep the order in which
    /// they came; it goes with the work, so a request that is given up does not let the next one in too early.
    async fn write(&self, work: impl FnOnce(&mut Log) -> Appended + Send + 'static) -> Result<(), LogError> {
        let mut log = Arc::clone(&self.log).lock_owned().await;
        let (known, syncer) = (Arc::clone(&self.known), Arc::clone(&self.syncer));
        let written = tokio::task::spawn_blocking(move || {
            let Appended { failure, .. } = work(&mut log);
            let failing = failure.as_ref().map(ToString::to_string);
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            (known.end, known.failing) = (log.end(), failing);
            drop(known);
            (failure, log.file())
        });
        let (failure, file) = written.await.map_err(|_| LogError::BrokenOff)?;
        if let Some(file) = file {
            syncer.request(file);
        }
        failure.map_or(Ok(()), Err)
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| LogError::Closed)?;
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        read.await.map_err(|_| LogError::BrokenOff)?
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::Ordering::SeqCst;

    use core_types::name::SECRETS;

    use super::disk::small::SmallDisk;
    use super::line::samples;
    use super::*;

    fn record(first: u64, count: u64) -> Record {
        let entries =
            (first..first + count).map(|number| samples::event(&format!("name-{number}"))).collect();
        Record { origin: 5, first, entries, missing: 0 }
    }

    fn audit(free: usize) -> (tempfile::TempDir, Arc<SmallDisk>, Audit) {
        let home = tempfile::tempdir().unwrap();
        let disk = SmallDisk::with(free);
        let audit =
            Audit::open_on(&home.path().join("audit"), Arc::clone(&disk) as Arc<dyn Disk>, Rotation::NEVER)
                .unwrap();
        (home, disk, audit)
    }

    #[tokio::test]
    async fn what_is_answered_is_in_the_file() {
        let (_home, _, audit) = audit(usize::MAX);
        audit.record(SECRETS, record(0, 3)).await.unwrap();
        audit.note(samples::event("own")).await.unwrap();
        let lines = audit.tail(&AuditTail { count: 2, after: None }).await.unwrap();
        assert_eq!(lines.iter().map(|line| line.sequence).collect::<Vec<_>>(), [3, 4]);
        assert!(lines[1].json.contains(r#""recorder":{"by":"daemon-profile"}"#), "{}", lines[1].json);
        assert_eq!(audit.tail(&AuditTail { count: 2, after: Some(4) }).await.unwrap().len(), 0);
        let report = audit.verify(Keys::new()).await.unwrap();
        assert_eq!((report.entries, report.fault), (4, None));
        assert_eq!(audit.status(), Standing { next_sequence: 5, failing: None, missing: 0 });
    }

    #[tokio::test]
    async fn an_empty_log_is_whole() {
        let (_home, _, audit) = audit(usize::MAX);
        let empty = AuditReport { entries: 0, fault: None, unproved: Vec::new() };
        assert_eq!(audit.verify(Keys::new()).await.unwrap(), empty);
        assert_eq!(audit.tail(&AuditTail { count: 5, after: None }).await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_full_disk_is_reported_and_got_over() {
        let (_home, disk, audit) = audit(0);
        let error = audit.record(SECRETS, record(0, 2)).await.unwrap_err().to_string();
        assert_eq!(audit.status().failing, Some(error));
        assert_eq!(audit.status().next_sequence, 1);
        disk.free.store(usize::MAX, SeqCst);
        audit.record(SECRETS, record(0, 2)).await.unwrap();
        assert_eq!(audit.status(), Standing { next_sequence: 3, failing: None, missing: 0 });
    }

    /// A torn line cannot be marked: the daemon starts nevertheless, and says so.
    #[tokio::test]
    async fn a_disk_that_is_full_at_start_is_reported_and_got_over() {
        let (home, disk, first) = audit(usize::MAX);
        first.record(SECRETS, record(0, 1)).await.unwrap();
        let folder = home.path().join("audit");
        let path = folder.join("000001.jsonl");
        fs::write(&path, [&fs::read(&path).unwrap()[..], b"{"].concat()).unwrap();

        disk.free.store(0, SeqCst);
        let audit = Audit::open_on(&folder, Arc::clone(&disk) as Arc<dyn Disk>, Rotation::NEVER).unwrap();
        assert!(audit.status().failing.unwrap().contains("000001.jsonl"));
        assert!(audit.record(SECRETS, record(1, 1)).await.is_err());
        disk.free.store(usize::MAX, SeqCst);
        audit.record(SECRETS, record(1, 1)).await.unwrap();
        assert_eq!(audit.status(), Standing { next_sequence: 4, failing: None, missing: 0 });
        assert_eq!(audit.verify(Keys::new()).await.unwrap().fault, None);
    }

    #[tokio::test]
    async fn entries_keep_the_order_in_which_they_came() {
        let (_home, _, audit) = audit(usize::MAX);
        let mut tasks = tokio::task::JoinSet::new();
        for first in 0..400 {
            let audit = audit.clone();
            tasks.spawn(async move { audit.record(SECRETS, record(first, 1)).await.unwrap() });
        }
        tasks.join_all().await;
        let lines = audit.tail(&AuditTail { count: 1_000, after: None }).await.unwrap();
        assert_eq!(lines.len(), 400, "none was taken for one that was there before");
        for (number, line) in lines.iter().enumerate() {
            assert!(line.json.contains(&format!("\"name-{number}\"")), "{}", line.json);
        }
    }

    /// A plain chain does not show a cut tail; the daemon that wrote it knows better.
    #[tokio::test]
    async fn a_tail_cut_under_the_running_daemon_is_found() {
        let (home, _, audit) = audit(usize::MAX);
        audit.record(SECRETS, record(0, 5)).await.unwrap();
        let path = home.path().join("audit/000001.jsonl");
        let content = fs::read_to_string(&path).unwrap();
        let kept: usize = content.lines().take(3).map(|line| line.len() + 1).sum();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(kept as u64).unwrap();
        assert_eq!(audit.verify(Keys::new()).await.unwrap().fault.unwrap().sequence, 4);
    }

    #[tokio::test]
    async fn everything_is_durable_when_the_log_is_closed() {
        let (_home, disk, audit) = audit(usize::MAX);
        for first in 0..10 {
            audit.record(SECRETS, record(first, 1)).await.unwrap();
        }
        let before = disk.syncs.load(SeqCst);
        audit.close().await;
        assert!(disk.syncs.load(SeqCst) > before);
    }

    #[tokio::test]
    async fn a_failed_fdatasync_shows_until_one_works() {
        let (_home, disk, audit) = audit(usize::MAX);
        disk.sync_fails.store(true, SeqCst);
        audit.record(SECRETS, record(0, 1)).await.unwrap();
        audit.close().await;
        assert!(audit.status().failing.unwrap().contains("medium error"));
        disk.sync_fails.store(false, SeqCst);
        audit.close().await;
        assert_eq!(audit.status().failing, None);
    }
}
