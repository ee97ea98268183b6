//! The writing end of the log: entries get their place in the chain and go to the file in one write.
//!
//! After anything that went wrong the file, not memory, says where the chain stands: its end is read again before
//! the next entry is written. So the end of a write that was cut short by a full disk is handled by the same code
//! as the end of a write that was cut short by a crash.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use core_crypto::log_key::LogKey;
use core_crypto::private_fs;
use core_daemon::unix_ms_now;
use core_types::config::AuditLog;
use core_types::protocol::profile::Record;

use super::LogError;
use super::chain::End;
use super::disk::Disk;
use super::end::{Found, Tail};
use super::key_file::KeyFile;
use super::line::{Entry, Kept, Mark, Recorder, write_line};
use super::origins::Origins;
use super::resume::resume;
use super::segment::{FIRST, Segment};

/// What [`Log::append`] did.
#[derive(Debug)]
#[must_use]
pub(crate) struct Appended {
    /// How many of the entries stand in the file: all of them, unless it failed.
    pub(crate) written: usize,
    /// Why not all.
    pub(crate) failure: Option<LogError>,
}

/// When a segment is left for the next, and how long it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation {
    /// Largest segment that is still written to, in bytes.
    pub(crate) bytes: u64,
    /// Age of the first entry after which it is not, in milliseconds.
    pub(crate) age_ms: u64,
    /// Age of the last entry after which it is removed, in milliseconds; `None` keeps all.
    pub(crate) keep_ms: Option<u64>,
}

impl Rotation {
    /// One segment for ever.
    #[cfg(test)]
    pub(crate) const NEVER: Self = Self { bytes: u64::MAX, age_ms: u64::MAX, keep_ms: None };
}

impl From<&AuditLog> for Rotation {
    fn from(config: &AuditLog) -> Self {
        let ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Self { bytes: config.segment_bytes, age_ms: ms(config.segment_age), keep_ms: config.keep.map(ms) }
    }
}

/// The file that is written to.
struct Current {
    segment: Segment,
    file: Arc<File>,
    /// When its first entry happened, once it has one.
    began_unix_ms: Option<u64>,
}

/// The key of the entry to come, and its file.
struct Proving {
    key: LogKey,
    file: KeyFile,
    /// The key of a vault that is being taken up, and where the log ends with the entry that says so.
    promised: Option<(End, LogKey)>,
}

/// The log, as the one who writes it sees it.
pub(crate) struct Log {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    rotation: Rotation,
    current: Option<Current>,
    end: End,
    tail: Tail,
    origins: Origins,
    proving: Option<Proving>,
    /// What was found at the start and has not been written down yet.
    to_tell: Option<Mark>,
}

impl Log {
    /// A log in `folder`; nothing is read or made before [`Self::prepare`].
    pub(crate) fn new(folder: &Path, disk: Arc<dyn Disk>, rotation: Rotation) -> Self {
        Self {
            folder: folder.to_owned(),
            disk,
            rotation,
            current: None,
            end: End::EMPTY,
            tail: Tail::Unknown,
            origins: Origins::default(),
            proving: None,
            to_tell: None,
        }
    }

    /// Where the chain ends.
    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// The file written to, for whoever makes it durable.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        self.current.as_ref().map(|current| Arc::clone(&current.file))
    }

    /// Makes the log ready for the next entry: opens its file if it is not open or was moved away, reads its end if
    /// that is not known, marks a torn line, and says what was found to be wrong.
    ///
    /// # Errors
    /// The log cannot be written at present; trying again later is safe.
    pub(crate) fn prepare(&mut self) -> Result<(), LogError> {
        if !self.current.as_ref().is_some_and(|current| current.segment.is(&current.file)) {
            self.open()?;
        }
        if self.tail == Tail::Unknown {
            self.read_end()?;
        }
        if self.proving.is_none() {
            self.take_up_key()?;
        }
        self.repair()?;
        if let Some(mark) = self.to_tell.take() {
            let told = self.write_entries(&[Entry::Own { unix_ms: unix_ms_now(), mark: &mark }]);
            if told.is_err() {
                self.to_tell = Some(mark);
                self.tail = Tail::Unknown;
            }
            told?;
        }
        Ok(())
    }

    /// Adds entries, in order.
    pub(crate) fn append(&mut self, entries: &[Entry<'_>]) -> Appended {
        if let Err(error) = self.prepare() {
            self.tail = Tail::Unknown;
            return Appended { written: 0, failure: Some(error) };
        }
        self.append_prepared(entries)
    }

    fn append_prepared(&mut self, entries: &[Entry<'_>]) -> Appended {
        if let Err(error) = self.rotate_if_due() {
            self.tail = Tail::Unknown;
            return Appended { written: 0, failure: Some(error) };
        }
        let before = self.end.next;
        let Err(error) = self.write_entries(entries) else {
            return Appended { written: entries.len(), failure: None };
        };
        // Whole lines of the part that was written count: their sender must not send them again.
        if let Err(error) = self.read_end() {
            tracing::error!("the audit log cannot be read back: {error}");
        }
        let written = usize::try_from(self.end.next - before).unwrap_or(usize::MAX).min(entries.len());
        Appended { written, failure: Some(error) }
    }

    /// Adds the entries that another daemon sent, except those that it sent before.
    pub(crate) fn record(&mut self, by: &str, record: &Record) -> Appended {
        // First, because it may read from the file what this sender has had recorded.
        if let Err(error) = self.prepare() {
            return Appended { written: 0, failure: Some(error) };
        }
        let recorded = self.origins.recorded(by, record.origin, record.first);
        let skipped = usize::try_from(recorded).unwrap_or(usize::MAX);
        let sent = record.entries.iter().zip(record.first..).skip(skipped);
        let entries: Vec<_> = sent
            .map(|(event, number)| Entry::Event {
                event,
                recorder: Recorder::daemon(by, record.origin, number),
            })
            .collect();
        if entries.is_empty() {
            return Appended { written: 0, failure: None };
        }
        let appended = self.append_prepared(&entries);
        self.origins.advance(by, record.origin, record.first + recorded + appended.written as u64);
        appended
    }

    /// Writes down that the entries after this one are proved with a key of a vault, and goes on with that.
    pub(crate) fn begin_stretch(&mut self, mark: &Mark, key: LogKey) -> Appended {
        let entry = Entry::Own { unix_ms: unix_ms_now(), mark };
        if let Err(error) = self.promise(&entry, &key) {
            self.tail = Tail::Unknown;
            return Appended { written: 0, failure: Some(error) };
        }
        let appended = self.append(&[entry]);
        if let Some(proving) = &mut self.proving {
            proving.promised = None;
            if appended.failure.is_none() {
                proving.key = key;
            }
            self.keep_key();
        }
        appended
    }

    /// Keeps the key that follows an entry beside the present one, until the entry is written and the key is taken up.
    fn promise(&mut self, entry: &Entry<'_>, key: &LogKey) -> Result<(), LogError> {
        self.prepare().and_then(|()| self.rotate_if_due())?;
        let Some(proving) = &mut self.proving else { return Err(LogError::Closed) };
        let End { next, link } = self.end;
        let link = write_line(&mut Vec::new(), next, link, entry, Some(&proving.key))?;
        proving.promised = Some((End { next: next + 1, link }, key.clone()));
        self.keep_key();
        Ok(())
    }

    fn open(&mut self) -> Result<(), LogError> {
        if self.current.take().is_some() {
            tracing::error!("the audit log was moved or removed while in use: {}", self.folder.display());
        }
        self.tail = Tail::Unknown;
        private_fs::ensure_private_dir(&self.folder)?;
        let last = Segment::list(&self.folder)?.pop();
        let segment = last.unwrap_or_else(|| Segment::new(&self.folder, FIRST));
        self.open_segment(segment)?;
        if let Some(proving) = &mut self.proving {
            proving.file = KeyFile::open(&self.folder)?;
            self.keep_key();
        }
        Ok(())
    }

    fn open_segment(&mut self, segment: Segment) -> Result<(), LogError> {
        let file = Arc::new(segment.open_append()?);
        private_fs::sync_dir(&self.folder)?;
        let began_unix_ms = segment.first()?.and_then(|head| head.unix_ms());
        self.current = Some(Current { segment, file, began_unix_ms });
        Ok(())
    }

    /// Reads the end of the chain and of the current segment from the files.
    fn read_end(&mut self) -> Result<(), LogError> {
        self.tail = Tail::Unknown;
        let found = Found::read(&self.folder, self.end.next)?;
        // What memory knows is never given up: a log that was removed goes on with the next number.
        if let Some(end) = found.end.filter(|end| end.next > self.end.next) {
            let ahead = end.next - self.end.next;
            self.end = end;
            // Those that were written meanwhile took a key each.
            if let Some(proving) = &mut self.proving {
                (0..ahead).for_each(|_| proving.key.advance());
                self.keep_key();
            }
        }
        for recorder in &found.recorders {
            self.origins.read_back(recorder);
        }
        self.tail = found.tail;
        Ok(())
    }

    /// Takes up the key where the process before left it, and compares what that says with what the files say.
    fn take_up_key(&mut self) -> Result<(), LogError> {
        let stored = KeyFile::read(&self.folder)?;
        let resumed = resume(&self.folder, stored, self.end)?;
        let file = KeyFile::open(&self.folder)?;
        self.end = resumed.end;
        file.write(self.end, &resumed.key, None)?;
        private_fs::sync_dir(&self.folder)?;
        if let Some(Mark::Broken { sequence, reason }) = &resumed.found {
            tracing::error!("the audit log is not what was written: entry {sequence}: {reason}");
        }
        self.to_tell = resumed.found;
        self.proving = Some(Proving { key: resumed.key, file, promised: None });
        Ok(())
    }

    /// Keeps the key of the entry to come. If it cannot be kept, what is kept is an older one, from which a restart can
    /// find it.
    fn keep_key(&self) {
        let Some(proving) = &self.proving else { return };
        if let Err(error) = proving.file.write(self.end, &proving.key, proving.promised.as_ref()) {
            tracing::error!("the key of the audit log cannot be kept: {error}");
        }
    }

    /// Brings the current segment to an end with which the next line begins on its own.
    fn repair(&mut self) -> Result<(), LogError> {
        match std::mem::replace(&mut self.tail, Tail::Unknown) {
            Tail::Unknown | Tail::Clean => {}
            Tail::Unterminated => self.write(b"\n")?,
            Tail::Torn { torn, terminated } => {
                tracing::warn!("the last line of the audit log was torn; entry {} marks it", self.end.next);
                let before = if terminated { Vec::new() } else { vec![b'\n'] };
                self.write_after(before, &[Entry::Torn { unix_ms: unix_ms_now(), torn: &torn }])?;
            }
        }
        self.tail = Tail::Clean;
        Ok(())
    }

    /// Begins the next segment if the present one is large or old enough, and removes what has been kept long enough.
    fn rotate_if_due(&mut self) -> Result<(), LogError> {
        let Some(current) = &self.current else { return Err(LogError::Closed) };
        let now = unix_ms_now();
        let bytes = current.file.metadata().map_err(|error| current.segment.failed(error))?.len();
        let age = current.began_unix_ms.map_or(0, |began| now.saturating_sub(began));
        if bytes == 0 || (bytes < self.rotation.bytes && age < self.rotation.age_ms) {
            return Ok(());
        }
        let next = Segment::new(&self.folder, current.segment.number + 1);
        self.disk.sync(&current.file).map_err(|error| current.segment.failed(error))?;
        self.open_segment(next)?;
        self.remove_old(now)
    }

    /// Removes the segments whose last entry has been kept long enough, after the entry that says so.
    fn remove_old(&mut self, now: u64) -> Result<(), LogError> {
        let Some(keep_ms) = self.rotation.keep_ms else { return Ok(()) };
        let current = self.current.as_ref().map(|current| current.segment.number);
        let mut old = Vec::new();
        for segment in Segment::list(&self.folder)? {
            let ended = segment.last()?.and_then(|head| head.unix_ms());
            let is_old = ended.is_some_and(|ended| now.saturating_sub(ended) > keep_ms);
            if Some(segment.number) != current && is_old {
                old.push(segment);
                continue;
            }
            let kept = match segment.first()? {
                Some(first) => Kept { sequence: first.sequence, previous: first.previous.to_hex() },
                // It was just begun.
                None => Kept { sequence: self.end.next, previous: self.end.link.to_hex() },
            };
            return if old.is_empty() { Ok(()) } else { self.remove(&old, kept) };
        }
        Ok(())
    }

    fn remove(&mut self, old: &[Segment], kept: Kept) -> Result<(), LogError> {
        let mark = Mark::Removed(kept);
        self.write_entries(&[Entry::Own { unix_ms: unix_ms_now(), mark: &mark }])?;
        for segment in old {
            private_fs::remove_if_present(&segment.path)?;
        }
        Ok(())
    }

    fn write_entries(&mut self, entries: &[Entry<'_>]) -> Result<(), LogError> {
        self.write_after(Vec::new(), entries)
    }

    /// Writes bytes and then entries, in one write.
    fn write_after(&mut self, mut bytes: Vec<u8>, entries: &[Entry<'_>]) -> Result<(), LogError> {
        let Some(proving) = &self.proving else { return Err(LogError::Closed) };
        let (mut end, mut key) = (self.end, proving.key.clone());
        for entry in entries {
            end.link = write_line(&mut bytes, end.next, end.link, entry, Some(&key))?;
            end.next += 1;
            key.advance();
        }
        self.write(&bytes)?;
        self.end = end;
        if let Some(proving) = &mut self.proving {
            proving.key = key;
        }
        self.keep_key();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let Some(current) = &mut self.current else { return Err(LogError::Closed) };
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.disk.write(&current.file, rest) {
                Ok(0) => return Err(current.segment.failed(io::ErrorKind::WriteZero.into())),
                Ok(taken) => rest = &rest[taken.min(rest.len())..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(current.segment.failed(error)),
            }
        }
        current.began_unix_ms.get_or_insert_with(unix_ms_now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Mutex;
    use std::sync::atomic::Ordering::SeqCst;

    use core_types::ProfileName;
    use core_types::name::SECRETS;
    use core_types::protocol::profile::SecretOperationAudit;
    use serde_json::Value;
    use tempfile::TempDir;

    use super::super::chain::{Keys, PIECE_BYTES_MAX};
    use super::super::disk::RealDisk;
    use super::super::disk::small::SmallDisk;
    use super::super::key_file::Stored;
    use super::super::line::{KeyMark, samples};
    use super::super::read;
    use super::*;

    fn folder() -> (TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("audit");
        (home, folder)
    }

    fn file(folder: &Path) -> PathBuf {
        folder.join("000001.jsonl")
    }

    fn log(folder: &Path) -> Log {
        Log::new(folder, Arc::new(RealDisk), Rotation::NEVER)
    }

    fn record(first: u64, count: u64) -> Record {
        let entries =
            (first..first + count).map(|number| samples::event(&format!("name-{number}"))).collect();
        Record { origin: 5, first, entries, missing: 0 }
    }

    /// What every test of a mishap asks in the end: the chain is whole, and each entry stands in it once.
    fn assert_whole(folder: &Path, log: &Log, entries: u64) {
        let report = read::verify(folder, log.end(), Keys::new()).unwrap();
        assert_eq!(report.fault, None, "{}", fs::read_to_string(file(folder)).unwrap());
        let lines = read::tail(folder, 1_000, None).unwrap();
        let sequences: Vec<u64> = lines.iter().map(|line| line.sequence).collect();
        assert_eq!(sequences, Vec::from_iter(1..log.end().next));
        let subjects = lines.iter().filter_map(|line| {
            let value: Value = serde_json::from_str(&line.json).unwrap();
            value["subject"].as_str().map(ToOwned::to_owned)
        });
        let expected = (0..entries).map(|number| format!("name-{number}"));
        assert_eq!(Vec::from_iter(subjects), Vec::from_iter(expected));
    }

    fn torn_lines(folder: &Path) -> usize {
        String::from_utf8_lossy(&fs::read(file(folder)).unwrap())
            .matches("\"operation\":\"torn-line\"")
            .count()
    }

    #[test]
    fn a_batch_is_one_write_into_a_private_file() {
        let (_home, folder) = folder();
        let disk = SmallDisk::with(usize::MAX);
        let mut log = Log::new(&folder, Arc::clone(&disk) as Arc<dyn Disk>, Rotation::NEVER);
        assert_eq!(log.record(SECRETS, &record(0, 50)).written, 50);
        assert_eq!(disk.writes.load(SeqCst), 1);
        assert_eq!(fs::metadata(file(&folder)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_whole(&folder, &log, 50);
    }

    const SMALL: Rotation = Rotation { bytes: 2_000, age_ms: u64::MAX, keep_ms: None };

    /// A log that gets `count` entries one by one, in segments of this kind.
    fn rotated(folder: &Path, rotation: Rotation, first: u64, count: u64) -> Log {
        let mut log = Log::new(folder, Arc::new(RealDisk), rotation);
        for number in first..first + count {
            assert_eq!(log.record(SECRETS, &record(number, 1)).written, 1);
        }
        log
    }

    fn segments(folder: &Path) -> usize {
        Segment::list(folder).unwrap().len()
    }

    #[test]
    fn segments_follow_each_other_in_one_chain_over_restarts() {
        let (_home, folder) = folder();
        rotated(&folder, SMALL, 0, 30);
        let before = segments(&folder);
        assert!(before > 4, "{before}");
        let log = rotated(&folder, SMALL, 30, 30);
        assert!(segments(&folder) > before);
        assert_eq!(log.end().next, 61);
        assert_whole(&folder, &log, 60);
    }

    #[test]
    fn an_old_segment_is_left_after_a_restart_and_a_clock_that_went_back_leaves_none() {
        let (_home, folder) = folder();
        let day_ms = 24 * 60 * 60 * 1_000;
        rotated(&folder, SMALL, 0, 1);
        let daily = Rotation { bytes: u64::MAX, age_ms: day_ms, keep_ms: None };
        let log = rotated(&folder, daily, 1, 3);
        assert_eq!(segments(&folder), 2, "the first entry is of long ago");
        assert_whole(&folder, &log, 4);

        let (_home, folder) = folder_of_the_future();
        let log = rotated(&folder, daily, 1, 3);
        assert_eq!(segments(&folder), 1);
        assert_eq!(read::verify(&folder, log.end(), Keys::new()).unwrap().fault, None);
    }

    fn folder_of_the_future() -> (TempDir, PathBuf) {
        let (home, folder) = folder();
        let event = SecretOperationAudit { unix_ms: unix_ms_now() + (1 << 40), ..samples::event("name-0") };
        let early = Record { origin: 5, first: 0, entries: vec![event], missing: 0 };
        assert_eq!(log(&folder).record(SECRETS, &early).written, 1);
        (home, folder)
    }

    #[test]
    fn old_segments_are_removed_with_an_entry_that_vouches_for_the_new_beginning() {
        let (_home, folder) = folder();
        rotated(&folder, SMALL, 0, 40);
        let keeping = Rotation { keep_ms: Some(24 * 60 * 60 * 1_000), ..SMALL };
        let log = rotated(&folder, keeping, 40, 10);
        let verified = || read::verify(&folder, log.end(), Keys::new()).unwrap();
        assert_eq!(verified().fault, None);
        assert!(verified().entries < log.end().next - 1, "some are gone");
        let first = Segment::list(&folder).unwrap().remove(0);
        fs::remove_file(first.path).unwrap();
        assert_eq!(verified().fault.unwrap().sequence, 1, "nothing vouches for this one");
    }

    /// The disk, and what the file with the key held at each write of entries.
    struct KeyWitness(PathBuf, Mutex<Vec<Vec<u8>>>);

    impl Disk for KeyWitness {
        fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
            self.1.lock().unwrap().push(fs::read(&self.0).unwrap());
            RealDisk.write(file, bytes)
        }

        fn sync(&self, file: &File) -> io::Result<()> {
            RealDisk.sync(file)
        }
    }

    /// A kill strikes between any two of the writes with which the key of a vault is taken up.
    #[test]
    fn a_kill_while_a_key_is_taken_up_leaves_a_log_that_its_keys_prove() {
        let (_home, folder) = folder();
        let key_file = folder.join("key");
        let witness = Arc::new(KeyWitness(key_file.clone(), Mutex::default()));
        let mut first = Log::new(&folder, Arc::clone(&witness) as Arc<dyn Disk>, Rotation::NEVER);
        assert_eq!(first.record(SECRETS, &record(0, 2)).written, 2);
        let (before, without) = (first.end(), fs::read(file(&folder)).unwrap());
        let Ok(Stored::Found(_, mut old, None)) = KeyFile::read(&folder) else { panic!("it is there") };
        let vault = LogKey::of(&[9; 32]).unwrap();
        let mark = KeyMark { nonce: "00".repeat(16), id: "00".repeat(8) };
        let mark = Mark::Key { profile: ProfileName::parse("work").unwrap(), key: mark };
        assert!(first.begin_stretch(&mark, vault.clone()).failure.is_none());
        let (after, with) = (first.end(), fs::read(file(&folder)).unwrap());
        let taken_up = fs::read(&key_file).unwrap();
        let promised = witness.1.lock().unwrap().pop().unwrap();
        // After the entry the key before it is led on first.
        old.advance();
        KeyFile::open(&folder).unwrap().write(after, &old, Some(&(after, vault.clone()))).unwrap();
        let led_on = fs::read(&key_file).unwrap();
        for (content, key) in
            [(&without, &promised), (&with, &promised), (&with, &led_on), (&with, &taken_up)]
        {
            fs::write(file(&folder), content).unwrap();
            fs::write(&key_file, key).unwrap();
            let mut log = log(&folder);
            assert_eq!(log.record(SECRETS, &record(2, 2)).written, 2);
            let keys = Keys::from([(before.next, vault.clone())]);
            let report = read::verify(&folder, log.end(), keys).unwrap();
            assert_eq!(report.fault, None);
            let unproved: Vec<_> =
                report.unproved.iter().map(|stretch| (stretch.first, stretch.last)).collect();
            let whole = log.end().next - 1;
            assert_eq!(unproved, [(1, if content == &with { before.next } else { whole })]);
            let Ok(Stored::Found(_, _, None)) = KeyFile::read(&folder) else { panic!("still promised") };
        }
    }

    #[test]
    fn a_clock_that_went_back_removes_nothing_and_keeps_the_order_of_entries() {
        let (_home, folder) = folder_of_the_future();
        let keeping = Rotation { keep_ms: Some(1), ..SMALL };
        let now = unix_ms_now();
        let mut log = Log::new(&folder, Arc::new(RealDisk), keeping);
        for number in 1..30 {
            // Each entry seems to be older than the one before it.
            let event = SecretOperationAudit {
                unix_ms: now + (1 << 39) - number,
                ..samples::event(&format!("name-{number}"))
            };
            let sent = Record { origin: 5, first: number, entries: vec![event], missing: 0 };
            assert_eq!(log.record(SECRETS, &sent).written, 1);
        }
        assert!(segments(&folder) > 4);
        assert_whole(&folder, &log, 30);
    }

    #[test]
    fn numbering_goes_on_after_a_restart() {
        let (_home, folder) = folder();
        for start in 0..5 {
            let mut log = log(&folder);
            assert_eq!(log.record(SECRETS, &record(start * 3, 3)).written, 3);
            assert_whole(&folder, &log, start * 3 + 3);
        }
        assert_eq!(torn_lines(&folder), 0);
    }

    #[test]
    fn what_is_sent_again_is_not_written_again_also_after_a_restart() {
        let (_home, folder) = folder();
        let mut before = log(&folder);
        assert_eq!(before.record(SECRETS, &record(0, 4)).written, 4);
        assert_eq!(before.record(SECRETS, &record(0, 4)).written, 0);
        assert_eq!(before.record(SECRETS, &record(2, 4)).written, 2);
        let mut after = log(&folder);
        assert_eq!(after.record(SECRETS, &record(4, 3)).written, 1);
        assert_whole(&folder, &after, 7);
        let another = Record { origin: 6, ..record(0, 2) };
        assert_eq!(after.record(SECRETS, &another).written, 2, "another process counts for itself");
        assert_eq!(after.record("daemon-launcher", &record(0, 2)).written, 2, "so does another daemon");
    }

    /// A crash leaves any beginning of the last write. Whichever it is, the log goes on and stays whole.
    #[test]
    fn a_line_cut_at_any_byte_is_kept_and_marked_and_the_chain_goes_on() {
        let (_home, folder) = folder();
        assert_eq!(log(&folder).record(SECRETS, &record(0, 2)).written, 2);
        // The key is kept after the entry that it is for.
        let key = fs::read(folder.join("key")).unwrap();
        assert_eq!(log(&folder).record(SECRETS, &record(2, 1)).written, 1);
        let whole = fs::read(file(&folder)).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for cut in last + 1..whole.len() {
            fs::write(file(&folder), &whole[..cut]).unwrap();
            fs::write(folder.join("key"), &key).unwrap();
            let mut log = log(&folder);
            assert!(log.record(SECRETS, &record(2, 2)).failure.is_none());
            assert_whole(&folder, &log, 4);
            // Only the line feed was missing: nothing is torn.
            assert_eq!(torn_lines(&folder), usize::from(cut + 1 < whole.len()));
            assert!(fs::read(file(&folder)).unwrap().starts_with(&whole[..cut]), "the piece is kept");
        }
    }

    #[test]
    fn bytes_that_are_no_line_are_marked_wherever_they_come_from() {
        for junk in [&b"\0\0\0\0"[..], b"\n", b"\n\n", b"x\ny", b"{}\n", b"\xff\xfe\n"] {
            for entries in [0, 2] {
                let (_home, folder) = folder();
                let mut before = log(&folder);
                before.prepare().unwrap();
                assert!(before.record(SECRETS, &record(0, entries)).failure.is_none());
                let content = fs::read(file(&folder)).unwrap();
                fs::write(file(&folder), [&content, junk].concat()).unwrap();
                let mut after = log(&folder);
                assert!(after.record(SECRETS, &record(entries, 1)).failure.is_none());
                assert_whole(&folder, &after, entries + 1);
                assert_eq!(torn_lines(&folder), 1, "{junk:?}");
            }
        }
    }

    #[test]
    fn more_junk_than_can_be_kept_is_reported_and_the_log_goes_on() {
        let (_home, folder) = folder();
        assert_eq!(log(&folder).record(SECRETS, &record(0, 2)).written, 2);
        let mut content = fs::read(file(&folder)).unwrap();
        content.resize(content.len() + PIECE_BYTES_MAX + 1, 0);
        fs::write(file(&folder), content).unwrap();
        let mut log = log(&folder);
        assert_eq!(log.record(SECRETS, &record(2, 1)).written, 1);
        assert_eq!(log.end().next, 5);
        assert_eq!(read::verify(&folder, log.end(), Keys::new()).unwrap().fault.unwrap().sequence, 3);
    }

    /// The disk fills up somewhere in a batch, is full for a while, and then has room again.
    #[test]
    fn a_full_disk_loses_nothing_and_doubles_nothing() {
        let batch = {
            let (_home, folder) = folder();
            assert_eq!(log(&folder).record(SECRETS, &record(0, 3)).written, 3);
            fs::read(file(&folder)).unwrap()
        };
        let near_line_end =
            |free: &usize| batch[free.saturating_sub(2)..(free + 2).min(batch.len())].contains(&b'\n');
        for free in (0..batch.len()).filter(|free| free % 17 == 0 || near_line_end(free)) {
            let (_home, folder) = folder();
            let disk = SmallDisk::with(free);
            let mut log = Log::new(&folder, Arc::clone(&disk) as Arc<dyn Disk>, Rotation::NEVER);
            let appended = log.record(SECRETS, &record(0, 3));
            let error = appended.failure.expect("the disk is full").to_string();
            assert!(error.contains("000001.jsonl"), "{error}");
            let whole_lines = read::tail(&folder, 10, None).unwrap().len();
            assert_eq!(appended.written, whole_lines);
            assert!(log.record(SECRETS, &record(0, 3)).failure.is_some(), "still full");
            disk.free.store(usize::MAX, SeqCst);
            assert!(log.record(SECRETS, &record(0, 4)).failure.is_none());
            assert_whole(&folder, &log, 4);
        }
    }

    /// Marking a torn line can be cut short as well, by a full disk and then by a crash.
    #[test]
    fn a_repair_that_is_cut_short_is_repaired() {
        for free in (0..2_000).step_by(13) {
            let (_home, folder) = folder();
            assert_eq!(log(&folder).record(SECRETS, &record(0, 2)).written, 2);
            let content = fs::read(file(&folder)).unwrap();
            fs::write(file(&folder), [&content[..], b"{\"seq"].concat()).unwrap();
            let mut full = Log::new(&folder, SmallDisk::with(free), Rotation::NEVER);
            let first = full.record(SECRETS, &record(2, 1));
            let mut log = log(&folder);
            assert!(log.record(SECRETS, &record(2, 2)).failure.is_none());
            assert_whole(&folder, &log, 4);
            if first.failure.is_none() {
                return;
            }
        }
        panic!("the largest disk was too small");
    }

    #[test]
    fn a_log_that_was_removed_in_use_goes_on_with_its_numbers_and_the_gap_shows() {
        let (_home, folder) = folder();
        let mut log = log(&folder);
        assert_eq!(log.record(SECRETS, &record(0, 3)).written, 3);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(log.record(SECRETS, &record(3, 1)).written, 1);
        assert_eq!(read::tail(&folder, 9, None).unwrap()[0].sequence, 4);
        assert_eq!(read::verify(&folder, log.end(), Keys::new()).unwrap().fault.unwrap().sequence, 1);
    }

    #[test]
    fn a_log_that_was_put_back_to_an_earlier_state_in_use_goes_on_with_its_numbers() {
        let (_home, folder) = folder();
        let mut log = log(&folder);
        assert_eq!(log.record(SECRETS, &record(0, 2)).written, 2);
        let earlier = fs::read(file(&folder)).unwrap();
        assert_eq!(log.record(SECRETS, &record(2, 2)).written, 2);
        fs::remove_file(file(&folder)).unwrap();
        fs::write(file(&folder), earlier).unwrap();
        assert_eq!(log.record(SECRETS, &record(4, 1)).written, 1);
        assert_eq!(read::tail(&folder, 1, None).unwrap()[0].sequence, 5);
        assert_eq!(read::verify(&folder, log.end(), Keys::new()).unwrap().fault.unwrap().sequence, 3);
    }

    #[test]
    fn places_that_others_could_change_are_refused_by_name() {
        let (home, folder) = folder();
        let elsewhere = home.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        let refused = |folder: &Path, named: &Path| {
            let error = log(folder).prepare().unwrap_err();
            assert!(error.is_refusal(), "{error}");
            assert!(error.to_string().contains(named.to_str().unwrap()), "{error}");
        };
        refused(&folder, &folder);

        fs::remove_file(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        refused(&folder, &folder);

        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(home.path().join("target"), file(&folder)).unwrap();
        refused(&folder, &file(&folder));
        assert!(!home.path().join("target").exists(), "and nothing was made behind the link");

        fs::remove_file(file(&folder)).unwrap();
        fs::write(file(&folder), "").unwrap();
        fs::set_permissions(file(&folder), fs::Permissions::from_mode(0o622)).unwrap();
        refused(&folder, &file(&folder));
    }
}
