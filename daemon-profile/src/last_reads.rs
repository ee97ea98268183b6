//! When and by whom each secret was read last, from the entries of the log, so that nobody has to read all of it to know.
//!
//! Kept in a file now and then. What was read since is read from the log at the next start: times only grow, so it does
//! not matter what is learned twice or in which order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_crypto::private_fs::PrivateFsError;
use core_types::ProfileName;
use core_types::protocol::profile::{
    LastRead, LastReadPage, LastReads as Call, Operation, Outcome, SecretOperationAudit,
};
use serde::{Deserialize, Serialize};

use crate::audit::{Audit, ReadEntry};
use crate::kept::{self, Found};

/// Largest file, in bytes.
const FILE_BYTES_MAX: usize = 32 << 20;
/// Most secrets that are remembered, of all profiles; of further ones nothing is known.
const NAMES_MAX: usize = 50_000;
/// Most secrets in one answer.
const PAGE_MAX: usize = 1_000;
/// How many reads are learned before the file is written again.
const WORTH_KEEPING: u64 = 1_000;

/// The last read of one secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Read {
    unix_ms: u64,
    requester: String,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    /// All entries up to this one have been learned.
    sequence: u64,
    reads: BTreeMap<ProfileName, BTreeMap<String, Read>>,
    #[serde(skip)]
    unkept: u64,
}

/// What is known of reads.
#[derive(Clone)]
pub(crate) struct LastReads {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl LastReads {
    /// Reads what is known; nothing, where there is no file or none that can be understood.
    ///
    /// # Errors
    /// The file is a link, somebody else's, or writable by others.
    pub(crate) fn open(path: &Path) -> Result<Self, PrivateFsError> {
        let state = match kept::read(path, FILE_BYTES_MAX, |bytes| serde_json::from_slice(bytes).ok())? {
            Found::State(state) => state,
            Found::Nothing | Found::Damaged => State::default(),
        };
        Ok(Self { path: path.to_owned(), state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what the log has that was not learned before the last restart.
    pub(crate) async fn catch_up(self, audit: Audit) {
        let first = self.state().sequence + 1;
        let learning = self.clone();
        let read = audit.each_read(first, move |read| learning.state().learn(read)).await;
        match read {
            Ok(last) => {
                let mut state = self.state();
                state.sequence = state.sequence.max(last);
            }
            Err(error) => tracing::error!("the last reads of secrets are not known: {error}"),
        }
    }

    /// Learns from entries that have been recorded, all up to `sequence`.
    pub(crate) fn learn(&self, entries: &[SecretOperationAudit], sequence: u64) {
        let mut state = self.state();
        for entry in entries {
            if let (Operation::Get, Outcome::Done, Some(profile), Some(name)) =
                (entry.operation, &entry.outcome, &entry.profile, &entry.subject)
            {
                let requester = entry.requester.name.clone();
                let read = ReadEntry {
                    profile: profile.clone(),
                    name: name.clone(),
                    unix_ms: entry.unix_ms,
                    requester,
                };
                state.learn(read);
            }
        }
        if sequence == state.sequence + entries.len() as u64 {
            state.sequence = sequence;
        }
        let worth_keeping = state.unkept >= WORTH_KEEPING;
        if worth_keeping {
            state.unkept = 0;
        }
        drop(state);
        if worth_keeping {
            let keeping = self.clone();
            tokio::task::spawn_blocking(move || keeping.keep());
        }
    }

    /// Keeps what is known. Blocks.
    pub(crate) fn keep(&self) {
        let state = serde_json::to_vec(&*self.state());
        if let Err(error) = kept::write(&self.path, state) {
            tracing::error!("the last reads of secrets cannot be kept: {error}");
        }
    }

    /// A page of what is known of a profile.
    pub(crate) fn page(&self, call: &Call) -> LastReadPage {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state();
        let Some(reads) = state.reads.get(&call.profile) else {
            return LastReadPage { reads: Vec::new(), more: false };
        };
        let after = call.after.as_deref().map_or(Unbounded, Excluded);
        let mut found = reads.range::<str, _>((after, Unbounded)).map(|(name, read)| LastRead {
            name: name.clone(),
            unix_ms: read.unix_ms,
            requester: read.requester.clone(),
        });
        let reads = found.by_ref().take(PAGE_MAX).collect();
        LastReadPage { reads, more: found.next().is_some() }
    }
}

impl State {
    fn learn(&mut self, read: ReadEntry) {
        let known: usize = self.reads.values().map(BTreeMap::len).sum();
        let ReadEntry { profile, name, unix_ms, requester } = read;
        let reads = self.reads.entry(profile).or_default();
        match reads.get_mut(&name) {
            Some(last) if last.unix_ms <= unix_ms => *last = Read { unix_ms, requester },
            Some(_) => {}
            None if known < NAMES_MAX => {
                reads.insert(name, Read { unix_ms, requester });
            }
            None => {}
        }
        self.unkept += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::samples;

    fn read(name: &str, unix_ms: u64) -> SecretOperationAudit {
        SecretOperationAudit { unix_ms, ..samples::event(name) }
    }

    fn page(reads: &LastReads, after: Option<&str>) -> Vec<(String, u64)> {
        let profile = ProfileName::parse("default").unwrap();
        let page = reads.page(&Call { profile, after: after.map(ToOwned::to_owned) });
        page.reads.into_iter().map(|read| (read.name, read.unix_ms)).collect()
    }

    #[test]
    fn the_last_read_counts_whatever_comes_first_and_a_denied_one_does_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("last-reads.json");
        let reads = LastReads::open(&path).unwrap();
        let denied = Outcome::Failed { reason: "r".to_owned() };
        let denied = SecretOperationAudit { outcome: denied, ..read("c", 9) };
        let written = SecretOperationAudit { operation: Operation::Set, ..read("d", 9) };
        reads.learn(&[read("a", 5), read("b", 7), read("a", 3), denied, written], 5);
        assert_eq!(page(&reads, None), [("a".to_owned(), 5), ("b".to_owned(), 7)]);
        assert_eq!(page(&reads, Some("a")), [("b".to_owned(), 7)]);
        reads.keep();
        let again = LastReads::open(&path).unwrap();
        assert_eq!(page(&again, None).len(), 2);
        assert_eq!(again.state().sequence, 5);
    }

    #[tokio::test]
    async fn what_was_not_kept_is_learned_from_the_log() {
        let home = tempfile::tempdir().unwrap();
        let audit = Audit::open(&home.path().join("audit"), &Default::default()).unwrap();
        audit.note(read("a", 1_000)).await.unwrap();
        audit.note(read("a", 2_000)).await.unwrap();
        audit.note(SecretOperationAudit { operation: Operation::Set, ..read("b", 9_000) }).await.unwrap();
        let reads = LastReads::open(&home.path().join("last-reads.json")).unwrap();
        reads.clone().catch_up(audit).await;
        assert_eq!(page(&reads, None), [("a".to_owned(), 2_000)]);
        assert_eq!(reads.state().sequence, 3);
    }
}
