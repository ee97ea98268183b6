//! The entries that `daemon-profile` has not taken yet: the oldest in memory, all but the best-effort ones in files.
//!
//! Plain state, without a clock, a socket or a task. Entries are sent in the order of their numbers, so one that is in
//! no file is taken only while memory holds all that is before it.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use core_types::config::AuditMode;
use core_types::protocol::profile::{Operation, Outcome, Record, Requester, SecretOperationAudit};

use super::missing::Tally;
use super::spool::{Numbered, Place, Spool, SpoolError};

/// Most entries in memory; at some 300 bytes each, a few megabytes.
const WINDOW_MAX: usize = 10_000;
/// Most entries of one `Record` call.
pub(crate) const BATCH_MAX: usize = 500;
/// How many entries are read back from files at once.
const READ_BACK: usize = 1_000;

/// What is to be recorded and is not.
#[derive(Default)]
struct Missing {
    count: u64,
    since_unix_ms: u64,
    until_unix_ms: u64,
}

/// The files that have to be written out for some entries to be durable.
pub(crate) struct Unsynced {
    /// All that was appended up to here is durable when they are.
    pub(crate) appends: u64,
    /// The files.
    pub(crate) files: Vec<Arc<File>>,
    /// The folder, if one of them is new in it.
    pub(crate) folder: Option<std::path::PathBuf>,
    newest: u64,
}

/// The entries that wait, and their files.
pub(crate) struct Waiting {
    /// The next ones to be sent, each with the number of its file if it is in one.
    window: VecDeque<(Option<u64>, Numbered)>,
    /// Where those after the window begin, if there are more.
    beyond: Option<Place>,
    spool: Spool,
    tally: Tally,
    origin: u64,
    next_number: u64,
    appends: u64,
    /// The first file that may hold something that is not durable.
    first_unsynced: u64,
    newest_synced: u64,
    missing: Missing,
    failing: Option<String>,
}

impl Waiting {
    /// What waits in `spool`; new entries get numbers of `origin`. `left` is how many an earlier process had in memory
    /// only.
    pub(crate) fn new(spool: Spool, tally: Tally, left: u64, origin: u64) -> Self {
        let beyond = spool.first_unread();
        Self {
            window: VecDeque::new(),
            beyond,
            spool,
            tally,
            origin,
            next_number: 0,
            appends: 0,
            first_unsynced: 0,
            newest_synced: 0,
            missing: Missing { count: left, ..Missing::default() },
            failing: None,
        }
    }

    /// Takes entries, all in the same way. Gives the number of the write after which they are in a file, or `None` if
    /// they are in memory, or counted as missing.
    ///
    /// # Errors
    /// They had to be in a file and are in none; what happens to them instead is that the attempt at them is told.
    pub(crate) fn take(
        &mut self,
        entries: Vec<SecretOperationAudit>,
        mode: AuditMode,
    ) -> Result<Option<u64>, String> {
        if mode == AuditMode::BestEffort {
            self.remember(entries);
            return Ok(None);
        }
        let numbered = self.numbered(&entries);
        let in_window = self.beyond.is_none() && self.window.len() + entries.len() <= WINDOW_MAX;
        match self.spool.append(&numbered, in_window) {
            Ok(place) => {
                self.failing = None;
                self.next_number += numbered.len() as u64;
                self.appends += 1;
                if in_window {
                    self.window.extend(numbered.into_iter().map(|entry| (Some(place.file), entry)));
                } else {
                    self.beyond.get_or_insert(place);
                }
                Ok(Some(self.appends))
            }
            Err(error) => self.refused(entries, mode, &error),
        }
    }

    fn refused(
        &mut self,
        entries: Vec<SecretOperationAudit>,
        mode: AuditMode,
        error: &SpoolError,
    ) -> Result<Option<u64>, String> {
        let reason = error.to_string();
        if self.failing.as_ref() != Some(&reason) {
            tracing::error!("audit entries cannot be kept in a file: {reason}");
            self.failing = Some(reason.clone());
        }
        if mode != AuditMode::Durable {
            self.remember(entries);
            return Ok(None);
        }
        self.remember(entries.into_iter().map(|entry| told_later(entry, &reason)).collect());
        Err(reason)
    }

    /// Takes entries into memory, or counts them where there is no room.
    fn remember(&mut self, entries: Vec<SecretOperationAudit>) {
        if self.beyond.is_some() || self.window.len() + entries.len() > WINDOW_MAX {
            let times = entries.iter().map(|entry| entry.unix_ms);
            let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
            if self.missing.since_unix_ms == 0 {
                self.missing.since_unix_ms = first;
            }
            self.missing.until_unix_ms = last;
            self.missing.count += entries.len() as u64;
        } else {
            let numbered = self.numbered(&entries);
            self.next_number += numbered.len() as u64;
            self.window.extend(numbered.into_iter().map(|entry| (None, entry)));
        }
        self.note_unwritten();
    }

    fn numbered(&self, entries: &[SecretOperationAudit]) -> Vec<Numbered> {
        let numbers = self.next_number..;
        let numbered = |(entry, number): (&SecretOperationAudit, u64)| Numbered {
            origin: self.origin,
            number,
            entry: entry.clone(),
        };
        entries.iter().zip(numbers).map(numbered).collect()
    }

    /// Keeps the number of entries that a kill would lose.
    pub(crate) fn note_unwritten(&mut self) {
        let unwritten = self.window.iter().filter(|(file, _)| file.is_none()).count() as u64;
        self.tally.set(unwritten + self.missing.count);
    }

    /// The next entries to be sent; `None` where nothing waits.
    ///
    /// # Errors
    /// Entries that are in a file cannot be read back.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, SpoolError> {
        while self.window.is_empty()
            && let Some(place) = self.beyond
        {
            let (found, next) = self.spool.read(place, READ_BACK)?;
            self.window.extend(found.into_iter().map(|(file, entry)| (Some(file), entry)));
            self.beyond = next;
        }
        let Some((_, first)) = self.window.front() else { return Ok(None) };
        let (origin, first) = (first.origin, first.number);
        let follows = |(index, (_, entry)): &(usize, &(Option<u64>, Numbered))| {
            entry.origin == origin && entry.number == first + *index as u64
        };
        let batch = self.window.iter().take(BATCH_MAX).enumerate().take_while(follows);
        let entries = batch.map(|(_, (_, entry))| entry.entry.clone()).collect();
        Ok(Some(Record { origin, first, entries, missing: self.missing.count }))
    }

    /// Forgets the first `count` entries; says whether a whole batch more is waiting.
    pub(crate) fn answered(&mut self, count: usize) -> bool {
        let mut unwritten = false;
        for (file, _) in self.window.drain(..count.min(self.window.len())) {
            match file {
                Some(file) => self.spool.settle(file),
                None => unwritten = true,
            }
        }
        if unwritten {
            self.note_unwritten();
        }
        self.window.len() >= BATCH_MAX
    }

    /// The entry that tells how many are missing, once there is room for it. It counts as told from now on.
    pub(crate) fn gap(&mut self, recorder: impl FnOnce() -> Requester) -> Option<SecretOperationAudit> {
        let room = self.beyond.is_none() && self.window.len() < WINDOW_MAX / 2;
        if self.missing.count == 0 || !room {
            return None;
        }
        let Missing { count, since_unix_ms, until_unix_ms } = std::mem::take(&mut self.missing);
        let when = match since_unix_ms {
            0 => "when the process before this one was killed".to_owned(),
            since => format!("from {since} to {until_unix_ms} (milliseconds of the Unix epoch)"),
        };
        let reason = format!("there was room for these entries neither in a file nor in memory, {when}");
        let entry =
            SecretOperationAudit::new(until_unix_ms, Operation::Gap, recorder(), Outcome::Failed { reason });
        Some(SecretOperationAudit { missing: Some(count), ..entry })
    }

    /// Keeps room on the disk for entries of so many bytes that will come for certain.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<(), String> {
        self.spool.reserve(bytes).map_err(|error| error.to_string())
    }

    /// Takes back a [`Self::reserve`] of so many bytes.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.spool.release(bytes);
    }

    /// What has to be written out for all that was appended so far to be durable.
    pub(crate) fn unsynced(&self) -> Unsynced {
        let files = self.spool.files_from(self.first_unsynced);
        let newest = self.spool.newest();
        let folder = (newest > self.newest_synced).then(|| self.spool.folder().to_owned());
        Unsynced { appends: self.appends, files, folder, newest }
    }

    /// Takes note that this has been written out.
    pub(crate) fn synced(&mut self, unsynced: &Unsynced) {
        self.first_unsynced = self.first_unsynced.max(unsynced.newest);
        self.newest_synced = self.newest_synced.max(unsynced.newest);
    }

    /// The number that the next entry gets: what was taken before has lower ones.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether something waits that has a lower number, or is an earlier process's.
    pub(crate) fn waits_below(&self, number: u64) -> bool {
        match self.window.front() {
            Some((_, first)) => first.origin != self.origin || first.number < number,
            None => self.beyond.is_some(),
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty() && self.beyond.is_none()
    }

    /// Whether there are entries in files, settled or not.
    pub(crate) fn holds_files(&self) -> bool {
        self.spool.holds_entries()
    }

    /// How many entries the end of this process would lose.
    pub(crate) fn unwritten(&self) -> usize {
        self.window.iter().filter(|(file, _)| file.is_none()).count()
    }

    /// Lets the present file be removed when all of it is settled.
    pub(crate) fn close_current(&mut self) {
        self.spool.close_current();
    }

    /// The files of which nothing waits any more.
    pub(crate) fn settled(&self) -> Vec<u64> {
        self.spool.settled()
    }

    /// Removes files.
    pub(crate) fn remove(&mut self, numbers: &[u64]) {
        if let Err(error) = self.spool.remove(numbers) {
            tracing::error!("audit entries that are recorded could not be removed: {error}");
        }
    }

    /// What cannot be read back is given up, and counted as one entry at least.
    pub(crate) fn give_up_unread(&mut self, error: &SpoolError) {
        tracing::error!("audit entries that wait cannot be read: {error}");
        self.beyond = None;
        self.missing.count += 1;
    }
}

/// The entry of an attempt that was refused because it could not be recorded, for when there is room again. A lock
/// and the end of a program stay what they are: they are never refused.
fn told_later(entry: SecretOperationAudit, reason: &str) -> SecretOperationAudit {
    match (entry.operation, &entry.outcome) {
        (Operation::Lock | Operation::RunEnd, _) | (_, Outcome::Denied { .. } | Outcome::Failed { .. }) => {
            entry
        }
        (_, Outcome::Done) => {
            let reason = format!("it was refused, because it could not be recorded: {reason}");
            SecretOperationAudit { outcome: Outcome::Failed { reason }, ..entry }
        }
    }
}

#[cfg(test)]
mod tests {
    use core_types::name::SECRETS;
    use std::path::Path;

    use super::super::spool::FRAME_BYTES_MAX;
    use super::super::spool::tests::entry;
    use super::*;

    fn waiting(folder: &Path, origin: u64) -> Waiting {
        Waiting::new(Spool::open(folder, SECRETS).unwrap(), Tally::forgetful(), 0, origin)
    }

    fn entries(first: usize, count: usize) -> Vec<SecretOperationAudit> {
        (first..first + count).map(|number| entry(&format!("name-{number}"))).collect()
    }

    /// Everything that is sent from now on, each as origin, number and subject.
    fn sent(waiting: &mut Waiting) -> Vec<(u64, u64, String)> {
        let mut sent = Vec::new();
        while let Some(record) = waiting.next().unwrap() {
            let count = record.entries.len();
            for (number, entry) in (record.first..).zip(record.entries) {
                sent.push((record.origin, number, entry.subject.unwrap()));
            }
            waiting.answered(count);
        }
        sent
    }

    fn expected(origin: u64, numbers: std::ops::Range<u64>) -> Vec<(u64, u64, String)> {
        numbers.map(|number| (origin, number, format!("name-{number}"))).collect()
    }

    #[test]
    fn what_a_killed_process_left_is_sent_under_its_own_numbers_before_anything_new() {
        let home = tempfile::tempdir().unwrap();
        let mut killed = waiting(home.path(), 1);
        killed.take(entries(0, 700), AuditMode::Written).unwrap();
        killed.next().unwrap().unwrap();
        drop(killed);
        let mut after = waiting(home.path(), 2);
        after.take(entries(0, 2), AuditMode::Written).unwrap();
        assert_eq!(sent(&mut after), [expected(1, 0..700), expected(2, 0..2)].concat());
        after.close_current();
        let settled = after.settled();
        after.remove(&settled);
        assert!(after.is_empty());
        assert_eq!(sent(&mut waiting(home.path(), 3)), []);
    }

    #[test]
    fn more_than_memory_takes_waits_in_files_and_keeps_its_order() {
        let home = tempfile::tempdir().unwrap();
        let mut waiting = waiting(home.path(), 1);
        let count = WINDOW_MAX + 3_000;
        for first in (0..count).step_by(100) {
            waiting.take(entries(first, 100), AuditMode::Written).unwrap();
        }
        assert_eq!(waiting.window.len(), WINDOW_MAX);
        assert_eq!(sent(&mut waiting), expected(1, 0..count as u64));
        assert_eq!(waiting.missing.count, 0);
    }

    #[test]
    fn best_effort_is_in_no_file_and_is_counted_when_there_is_no_room() {
        let home = tempfile::tempdir().unwrap();
        let mut waiting = waiting(home.path(), 1);
        waiting.take(entries(0, WINDOW_MAX), AuditMode::BestEffort).unwrap();
        waiting.take(entries(0, 3), AuditMode::BestEffort).unwrap();
        assert!(home.path().read_dir().unwrap().next().is_none());
        assert_eq!(waiting.next().unwrap().unwrap().missing, 3);
        let recorder = entry("a").requester;
        assert!(waiting.gap(|| recorder.clone()).is_none(), "there is no room yet");
        sent(&mut waiting);
        let gap = waiting.gap(|| recorder.clone()).unwrap();
        assert_eq!((gap.operation, gap.missing), (Operation::Gap, Some(3)));
        assert!(waiting.gap(|| recorder).is_none(), "it is told once");
    }

    /// A folder that is gone stands for a disk that takes nothing.
    #[test]
    fn where_no_file_can_be_written_durable_refuses_and_written_goes_on_and_counts() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("waiting");
        let path = home.path().join("tally");
        let (tally, _) = Tally::open(&path).unwrap();
        let mut waiting = Waiting::new(Spool::open(&folder, SECRETS).unwrap(), tally, 0, 1);
        std::fs::remove_dir(&folder).unwrap();
        std::fs::write(&folder, "a file").unwrap();
        let refused = waiting.take(entries(0, 1), AuditMode::Durable).unwrap_err();
        assert!(refused.contains("waiting"), "{refused}");
        assert!(waiting.reserve(FRAME_BYTES_MAX).is_err());
        assert_eq!(waiting.take(entries(1, 2), AuditMode::Written), Ok(None));
        assert_eq!(Tally::open(&path).unwrap().1, 3, "a kill now would lose as many");
        let record = waiting.next().unwrap().unwrap();
        let outcome = |index: usize| record.entries[index].outcome.clone();
        assert!(matches!(outcome(0), Outcome::Failed { reason } if reason.contains("refused")));
        assert_eq!((outcome(1), outcome(2)), (Outcome::Done, Outcome::Done));
        waiting.answered(3);
        assert_eq!(Tally::open(&path).unwrap().1, 0);
    }

    #[test]
    fn room_that_was_kept_is_there() {
        let home = tempfile::tempdir().unwrap();
        let mut waiting = waiting(home.path(), 1);
        for _ in 0..20 {
            waiting.reserve(FRAME_BYTES_MAX).unwrap();
        }
        for number in 0..20 {
            waiting.release(FRAME_BYTES_MAX);
            waiting.take(entries(number, 1), AuditMode::Durable).unwrap();
        }
        assert_eq!(sent(&mut waiting), expected(1, 0..20));
    }
}
