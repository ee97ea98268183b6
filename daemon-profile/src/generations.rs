//! How many changes each vault is known to have seen, from the entries of the audit log, so that a vault which was put
//! back together with its anchor is noticed by someone outside both.
//!
//! Kept in a file of its own, written when a profile is unlocked or locked. What was forgotten meanwhile, by a kill,
//! makes the known number lower and never wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use core_crypto::private_fs::PrivateFsError;
use core_types::ProfileName;
use core_types::protocol::profile::{Operation, Outcome, SecretOperationAudit};
use tokio::sync::Mutex as FairMutex;

use crate::kept::{self, Found, KeepError};

/// Largest file, in bytes: more than a thousand of the longest names fit in.
const FILE_BYTES_MAX: usize = 1 << 18;
/// Most profiles that are remembered; of further ones nothing is known.
const PROFILES_MAX: usize = 2_000;

struct Kept {
    path: PathBuf,
    known: BTreeMap<ProfileName, u64>,
}

/// What is known, and its file.
#[derive(Clone)]
pub(crate) struct Generations(Arc<FairMutex<Kept>>);

impl Generations {
    /// Reads what is known; nothing, where there is no file or none that can be understood.
    ///
    /// # Errors
    /// The file is a link, somebody else's, or writable by others.
    pub(crate) fn open(path: &Path) -> Result<Self, PrivateFsError> {
        let known = match kept::read(path, FILE_BYTES_MAX, |bytes| serde_json::from_slice(bytes).ok())? {
            Found::Nothing => BTreeMap::new(),
            Found::Damaged => {
                tracing::error!("what was known of vaults is forgotten");
                BTreeMap::new()
            }
            Found::State(known) => known,
        };
        Ok(Self(Arc::new(FairMutex::new(Kept { path: path.to_owned(), known }))))
    }

    /// How many changes the vault of a profile is known to have seen; 0 where nothing is known.
    pub(crate) async fn of(&self, profile: &ProfileName) -> u64 {
        self.0.lock().await.known.get(profile).copied().unwrap_or(0)
    }

    /// Learns from entries that have been recorded.
    pub(crate) async fn learn(&self, entries: &[SecretOperationAudit]) {
        let mut kept = Arc::clone(&self.0).lock_owned().await;
        let mut worth_keeping = false;
        for entry in entries {
            worth_keeping |= kept.learn(entry);
        }
        if worth_keeping {
            let written = tokio::task::spawn_blocking(move || kept.write()).await;
            if let Ok(Err(error)) = written {
                tracing::error!("what is known of vaults cannot be kept: {error}");
            }
        }
    }
}

impl Kept {
    /// Takes over what an entry says; whether it is of the kind after which the file is written.
    fn learn(&mut self, entry: &SecretOperationAudit) -> bool {
        let (Some(profile), Some(generation), Outcome::Done) =
            (&entry.profile, entry.generation, &entry.outcome)
        else {
            return false;
        };
        let room = self.known.len() < PROFILES_MAX;
        match self.known.get_mut(profile) {
            // A new vault under an old name.
            Some(known) if entry.operation == Operation::Init => *known = generation,
            Some(known) => *known = generation.max(*known),
            None if room => {
                self.known.insert(profile.clone(), generation);
            }
            None => {}
        }
        use Operation::{AcceptRollback, Init, Lock, RestoreBackup, Unlock};
        matches!(entry.operation, Init | Unlock | Lock | AcceptRollback | RestoreBackup)
    }

    fn write(&self) -> Result<(), KeepError> {
        kept::write(&self.path, serde_json::to_vec(&self.known))
    }
}

#[cfg(test)]
mod tests {
    use core_crypto::private_fs;

    use super::*;
    use crate::audit::samples;

    fn entry(operation: Operation, generation: u64) -> SecretOperationAudit {
        SecretOperationAudit { operation, generation: Some(generation), ..samples::event("a") }
    }

    fn profile() -> ProfileName {
        ProfileName::parse("default").unwrap()
    }

    #[tokio::test]
    async fn the_highest_is_remembered_over_a_restart_and_a_new_vault_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("generations.json");
        let generations = Generations::open(&path).unwrap();
        assert_eq!(generations.of(&profile()).await, 0);
        generations.learn(&[entry(Operation::Set, 5), entry(Operation::Set, 4)]).await;
        assert_eq!(generations.of(&profile()).await, 5);
        assert!(!path.exists(), "writes alone are not worth a file");
        let failed = Outcome::Failed { reason: "r".to_owned() };
        let failed = SecretOperationAudit { outcome: failed, ..entry(Operation::Unlock, 99) };
        generations.learn(&[entry(Operation::Lock, 6), failed]).await;
        let generations = Generations::open(&path).unwrap();
        assert_eq!(generations.of(&profile()).await, 6);
        generations.learn(&[entry(Operation::Init, 0)]).await;
        assert_eq!(Generations::open(&path).unwrap().of(&profile()).await, 0);
    }

    #[tokio::test]
    async fn a_damaged_file_is_forgotten_and_a_link_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("generations.json");
        private_fs::write_atomic(&path, b"{\"default\":-1}").unwrap();
        assert_eq!(Generations::open(&path).unwrap().of(&profile()).await, 0);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(Generations::open(&path).is_err());
    }
}
