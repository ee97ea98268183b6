//! New keys for a whole vault.
//!
//! A second vault is made beside the first, in the hidden folder that a new vault is made in: a new random master key,
//! the same factors wrapping it, every version of every secret sealed anew. When it is whole, on disk, and was read
//! back, the two change places in one step. Whenever the process is killed, one of the two stands in the vault's place,
//! whole, and the other is removed at the next start.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use core_crypto::private_fs::{self, PrivateFsError};
use core_crypto::{SecureBytes, key_schedule};
use core_types::ProfileName;

use super::{OpenVault, VaultError, VaultFolder, VaultLock};
use crate::freshness::Anchored;
use crate::header::{Changed, HeaderError, Proof, VaultHeader};
use crate::sqlcipher::{Place, SqlCipherStore, StoredRow, Tally};

/// The new master key of a vault, wrapped by its factors, and the one that it replaces.
#[derive(Debug)]
pub struct NewKeys {
    before: VaultHeader,
    header: VaultHeader,
    old: SecureBytes,
    new: SecureBytes,
    recorded: u64,
}

/// How far the work is, and whether it shall go on.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Steps that are done, and steps that there are; none while they are not known.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Asks for the end of the work; unless the vaults have changed places by then, nothing is changed.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn step(&self, rows: usize) -> Result<(), VaultError> {
        self.done.fetch_add(rows as u64, Ordering::Relaxed);
        if self.cancelled.load(Ordering::Relaxed) { Err(VaultError::Cancelled) } else { Ok(()) }
    }
}

impl VaultFolder {
    /// A new master key that all factors, which have to be presented, wrap; nothing is written. The vault is known, from
    /// elsewhere, to have seen `recorded` changes. Takes as long as Argon2 for each password, twice.
    ///
    /// # Errors
    /// A factor is missing or wrong, or the header is damaged.
    pub fn new_keys(&self, proofs: &[Proof], recorded: u64) -> Result<NewKeys, VaultError> {
        let before = self.header()?;
        let old = before.unlock(proofs)?;
        let Changed { header, result: new } = before.with_new_master_key(proofs)?;
        Ok(NewKeys { before, header, old, new, recorded })
    }

    /// Gives the vault these keys, and opens it with them. `open` is its store where the vault is open, which can be
    /// read meanwhile, but not be changed; if this succeeds it is not the vault's any more and has to be closed.
    ///
    /// # Errors
    /// Nothing was changed; or, if the store stays [frozen](SqlCipherStore::is_frozen), the vault in place is another
    /// one than its, and could not be opened.
    pub fn rekey(
        &self,
        _held: &VaultLock,
        keys: NewKeys,
        open: Option<&SqlCipherStore>,
        progress: &Progress,
    ) -> Result<OpenVault, VaultError> {
        let own = match open {
            Some(_) => None,
            None => Some(self.open_checked(&keys)?),
        };
        let lock = match open.or(own.as_ref()) {
            Some(store) => self.replace(store, &keys, progress),
            None => Err(VaultError::Missing),
        };
        if let Some(own) = own {
            own.close()?;
        }
        let lock = lock?;
        let vault_key = key_schedule::vault_key(&keys.new, self.profile.as_str());
        let store = SqlCipherStore::open(&self.database(), &self.profile, &vault_key)?;
        store.verify()?;
        store.attach(self.anchor(&keys.new), None)?;
        Ok(OpenVault { master_key: keys.new, store, lock })
    }

    fn open_checked(&self, keys: &NewKeys) -> Result<SqlCipherStore, VaultError> {
        let vault_key = key_schedule::vault_key(&keys.old, self.profile.as_str());
        let store = SqlCipherStore::open(&self.database(), &self.profile, &vault_key)?;
        self.check_freshness(&store, &keys.before, &keys.old, keys.recorded)?;
        Ok(store)
    }

    /// Puts a vault with the new keys in the place of this one; the lock on it.
    fn replace(
        &self,
        store: &SqlCipherStore,
        keys: &NewKeys,
        progress: &Progress,
    ) -> Result<VaultLock, VaultError> {
        if let Some(rollback) = store.rollback() {
            return Err(VaultError::RolledBack(rollback));
        }
        let (building, lock) = self.begin_building()?;
        store.freeze(true);
        let made = building
            .fill(store, keys, progress)
            .and_then(|anchored| Ok(self.anchor(&keys.old).announce(&keys.new, &anchored)?));
        if let Err(error) = made {
            store.freeze(false);
            building.remove();
            return Err(error);
        }
        match private_fs::exchange_dirs(&building.folder, &self.folder) {
            Ok(()) => {
                building.remove();
                Ok(lock)
            }
            // They may have changed places all the same, and only not for good after a power cut. Then the old vault
            // must stay where it is until the next start.
            Err(error) => match self.header() {
                Ok(now) if now == keys.header => Ok(lock),
                Ok(_) => {
                    store.freeze(false);
                    building.remove();
                    Err(error.into())
                }
                // Nobody can tell which of them is in place: the store stays as it is, for its owner to close.
                Err(_) => Err(error.into()),
            },
        }
    }

    /// Makes the vault with the new keys in this folder, whole and on disk, and reads it back.
    fn fill(
        &self,
        store: &SqlCipherStore,
        keys: &NewKeys,
        progress: &Progress,
    ) -> Result<Anchored, VaultError> {
        // Each row is read, and read back.
        progress.total.store(2 * store.count_rows()?, Ordering::Relaxed);
        let vault_key = key_schedule::vault_key(&keys.new, self.profile.as_str());
        let copy = SqlCipherStore::create(&self.database(), &self.profile, &vault_key)?;
        let filled = each_batch(store, |rows| {
            copy.adopt(rows)?;
            progress.step(rows.len())
        })
        .and_then(|()| Ok(copy.settle(store.generation())?));
        copy.close()?;
        filled?;
        keys.header.save(&self.header_path())?;
        self.read_back(store, keys, progress)
    }

    /// Reads the vault in this folder from the disk and holds all that is in it against what it was made of; the state
    /// that it is in.
    fn read_back(
        &self,
        store: &SqlCipherStore,
        keys: &NewKeys,
        progress: &Progress,
    ) -> Result<Anchored, VaultError> {
        let vault_key = key_schedule::vault_key(&keys.new, self.profile.as_str());
        let tally_key = SecureBytes::random(key_schedule::KEY_BYTES).map_err(HeaderError::from)?;
        let copy = SqlCipherStore::open(&self.database(), &self.profile, &vault_key)?;
        let tally = |store: &SqlCipherStore, counted: bool| {
            let mut tally = Tally::EMPTY;
            each_batch(store, |rows| {
                tally = tally.with(&tally_key, rows);
                progress.step(if counted { rows.len() } else { 0 })
            })?;
            Ok::<_, VaultError>(tally)
        };
        let checked = copy.verify().map_err(VaultError::from).and_then(|(mark, found)| {
            let same = tally(&copy, true)? == tally(store, false)?;
            if found.is_some() || !same { Err(VaultError::NotTheSame) } else { Ok(mark) }
        });
        copy.close()?;
        Ok(Anchored { database: checked?, header: keys.header.mark()? })
    }
}

/// Goes through all rows of a store, a batch at a time.
fn each_batch(
    store: &SqlCipherStore,
    mut each: impl FnMut(&[StoredRow]) -> Result<(), VaultError>,
) -> Result<(), VaultError> {
    let mut place: Option<Place> = None;
    loop {
        let rows = store.rows_after(place.as_ref())?;
        let Some(last) = rows.last() else { return Ok(()) };
        place = Some(last.place());
        each(&rows)?;
    }
}

/// Removes what was being made below the folder of all vaults when a process was killed: vaults that were not
/// finished, and vaults in whose place another has come. One that someone works on is left alone.
///
/// # Errors
/// The folder cannot be read.
pub fn remove_unfinished(vaults: &Path) -> Result<(), PrivateFsError> {
    let failed = |source| PrivateFsError::Io { action: "read", path: vaults.to_owned(), source };
    for entry in vaults.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let profile = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".new"));
        let Some(profile) = profile.and_then(|profile| ProfileName::parse(profile).ok()) else { continue };
        let unfinished = VaultFolder { folder: entry.path(), anchor: entry.path(), profile };
        if let Ok(_lock) = unfinished.lock() {
            unfinished.remove();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use core_crypto::kdf::Argon2Params;
    use core_types::SecretName;
    use core_types::factor::{FactorLabel, FactorPolicy};

    use super::*;
    use crate::header::NewFactor;
    use crate::store::{SecretsStore, StoreError};

    const CHEAP: Argon2Params = Argon2Params::FLOOR;

    fn vault() -> (tempfile::TempDir, VaultFolder) {
        let folder = tempfile::tempdir().unwrap();
        let (path, anchor) = (folder.path().join("vaults/work"), folder.path().join("anchors/work"));
        (folder, VaultFolder::new(path, anchor, ProfileName::parse("work").unwrap()))
    }

    fn password() -> Vec<Proof> {
        vec![Proof { factor: 1, secret: SecureBytes::copy_of(b"right") }]
    }

    fn both() -> Vec<Proof> {
        let code = Proof { factor: 2, secret: SecureBytes::copy_of(&[7; 32]) };
        password().into_iter().chain([code]).collect()
    }

    fn name(text: &str) -> SecretName {
        SecretName::parse(text).unwrap()
    }

    async fn filled(vault: &VaultFolder) -> OpenVault {
        let open = vault.create(b"right", CHEAP).unwrap();
        for number in 0..20 {
            let value = format!("value {number}").into_bytes();
            open.store.set(&name(&format!("a/{number}")), SecureBytes::copy_of(&value)).await.unwrap();
        }
        open
    }

    async fn is_whole(open: &OpenVault) {
        assert_eq!(open.store.rollback(), None);
        assert_eq!(open.store.list_keys().await.unwrap().len(), 20);
        for number in 0..20 {
            let value = open.store.get(&name(&format!("a/{number}"))).await.unwrap();
            assert_eq!(value.expose(), format!("value {number}").as_bytes());
        }
    }

    fn files_below(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = folder
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn an_open_vault_gets_new_keys_and_all_that_was_in_it() {
        let (folder, vault) = vault();
        let open = filled(&vault).await;
        let old_key = open.master_key.clone();
        let old_database = std::fs::read(vault.database()).unwrap();
        let progress = Progress::default();
        let keys = vault.new_keys(&password(), 0).unwrap();
        let fresh = vault.rekey(&open.lock, keys, Some(&open.store), &progress).unwrap();
        assert_eq!(progress.get(), (40, 40));
        assert!(!fresh.master_key.ct_eq(old_key.expose()));
        assert!(fresh.store.generation() > open.store.generation());
        is_whole(&fresh).await;
        // The old one can be read until it is closed, and not be changed.
        is_whole(&open).await;
        let late = open.store.set(&name("late"), SecureBytes::copy_of(b"x")).await;
        assert!(matches!(late, Err(StoreError::Rekeying)));
        open.store.close().unwrap();
        fresh.store.set(&name("late"), SecureBytes::copy_of(b"x")).await.unwrap();
        fresh.store.delete(&name("late")).await.unwrap();
        fresh.store.purge(&name("late")).await.unwrap();
        fresh.store.close().unwrap();
        drop((fresh.lock, open.lock));
        assert_ne!(std::fs::read(vault.database()).unwrap()[..16], old_database[..16], "another salt");
        let again = vault.unlock(&password()).unwrap();
        is_whole(&again).await;
        assert_eq!(files_below(&folder.path().join("vaults")), ["work"]);
        let old = key_schedule::vault_key(&old_key, "work");
        again.store.close().unwrap();
        assert!(matches!(
            SqlCipherStore::open(&vault.database(), &vault.profile, &old),
            Err(StoreError::WrongKey)
        ));
    }

    #[tokio::test]
    async fn a_locked_vault_gets_new_keys_under_every_policy() {
        let (_folder, vault) = vault();
        let open = filled(&vault).await;
        open.store.close().unwrap();
        let code = NewFactor::Recovery(SecureBytes::copy_of(&[7; 32]));
        vault
            .change(&open.lock, |header| header.with_factor(&password(), FactorLabel::default(), code, CHEAP))
            .unwrap();
        drop(open.lock);
        for policy in [FactorPolicy::Any, FactorPolicy::All] {
            let lock = vault.lock().unwrap();
            vault.change(&lock, |header| Ok(header.with_policy(&both(), policy)?.into())).unwrap();
            let few = vault.new_keys(&password(), 0).unwrap_err();
            assert!(matches!(few, VaultError::Header(HeaderError::NotEnough { .. })));
            let keys = vault.new_keys(&both(), 0).unwrap();
            let fresh = vault.rekey(&lock, keys, None, &Progress::default()).unwrap();
            is_whole(&fresh).await;
            fresh.store.close().unwrap();
            drop((fresh.lock, lock));
            let again = vault.unlock(&both()).unwrap();
            is_whole(&again).await;
            again.store.close().unwrap();
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_before_the_exchange_changes_nothing() {
        let (folder, vault) = vault();
        let open = filled(&vault).await;
        let header = std::fs::read(vault.header_path()).unwrap();
        let cancelled = Progress::default();
        cancelled.cancel();
        let keys = vault.new_keys(&password(), 0).unwrap();
        let refused = vault.rekey(&open.lock, keys, Some(&open.store), &cancelled);
        assert!(matches!(refused, Err(VaultError::Cancelled)));
        let held = {
            private_fs::ensure_private_dir(&vault.building().folder).unwrap();
            vault.building().lock().unwrap()
        };
        let keys = vault.new_keys(&password(), 0).unwrap();
        let refused = vault.rekey(&open.lock, keys, Some(&open.store), &Progress::default());
        assert!(matches!(refused, Err(VaultError::InUse)));
        drop(held);
        assert_eq!(std::fs::read(vault.header_path()).unwrap(), header);
        open.store.set(&name("a/0"), SecureBytes::copy_of(b"value 0")).await.unwrap();
        is_whole(&open).await;
        open.store.close().unwrap();
        drop(open.lock);
        is_whole(&vault.unlock(&password()).unwrap()).await;
        remove_unfinished(&folder.path().join("vaults")).unwrap();
        assert_eq!(files_below(&folder.path().join("vaults")), ["work"]);
    }

    /// What a kill leaves at each point: the vault in its place is whole, and the rest goes at the next start.
    #[tokio::test]
    async fn a_kill_leaves_one_of_the_two_vaults_whole_and_nothing_after_the_next_start() {
        let (folder, vault) = vault();
        let open = filled(&vault).await;
        let vaults = folder.path().join("vaults");
        let keys = vault.new_keys(&password(), 0).unwrap();
        let building = vault.building();
        private_fs::ensure_private_dir(&building.folder).unwrap();
        // Half of it is copied.
        std::fs::write(building.database(), b"half").unwrap();
        open.store.close().unwrap();
        drop(open.lock);
        remove_unfinished(&vaults).unwrap();
        assert_eq!(files_below(&vaults), ["work"]);
        let open = vault.unlock(&password()).unwrap();
        is_whole(&open).await;
        // It is whole, and the anchor knows of it, but the places are not exchanged.
        private_fs::ensure_private_dir(&building.folder).unwrap();
        let anchored = building.fill(&open.store, &keys, &Progress::default()).unwrap();
        vault.anchor(&keys.old).announce(&keys.new, &anchored).unwrap();
        open.store.close().unwrap();
        drop(open.lock);
        let before = vault.unlock(&password()).unwrap();
        is_whole(&before).await;
        assert!(before.master_key.ct_eq(keys.old.expose()));
        before.store.close().unwrap();
        drop(before.lock);
        // They are exchanged, and the old one is not removed.
        vault.anchor(&keys.old).announce(&keys.new, &anchored).unwrap();
        private_fs::exchange_dirs(&building.folder, &vault.folder).unwrap();
        let after = vault.unlock(&password()).unwrap();
        is_whole(&after).await;
        assert!(after.master_key.ct_eq(keys.new.expose()));
        remove_unfinished(&vaults).unwrap();
        assert_eq!(files_below(&vaults), ["work"]);
        is_whole(&after).await;
    }

    #[tokio::test]
    async fn a_copy_that_is_not_the_same_is_not_taken() {
        let (_folder, vault) = vault();
        let open = filled(&vault).await;
        let keys = vault.new_keys(&password(), 0).unwrap();
        let building = vault.building();
        private_fs::ensure_private_dir(&building.folder).unwrap();
        let progress = Progress::default();
        building.fill(&open.store, &keys, &progress).unwrap();
        let new = key_schedule::vault_key(&keys.new, "work");
        let copy = SqlCipherStore::open(&building.database(), &vault.profile, &new).unwrap();
        copy.set(&name("a/3"), SecureBytes::copy_of(b"another")).await.unwrap();
        copy.close().unwrap();
        let refused = building.read_back(&open.store, &keys, &progress);
        assert!(matches!(refused, Err(VaultError::NotTheSame)));
    }

    #[tokio::test]
    async fn what_someone_works_on_is_not_removed() {
        let (folder, vault) = vault();
        private_fs::ensure_private_dir(&vault.building().folder).unwrap();
        let held = vault.building().lock().unwrap();
        let vaults = folder.path().join("vaults");
        remove_unfinished(&vaults).unwrap();
        assert_eq!(files_below(&vaults), [".work.new"]);
        drop(held);
        remove_unfinished(&vaults).unwrap();
        assert_eq!(files_below(&vaults), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn a_damaged_value_stops_it_and_is_named() {
        let (_folder, vault) = vault();
        let open = filled(&vault).await;
        open.store.damage_value("a/7");
        let keys = vault.new_keys(&password(), 0).unwrap();
        let refused = vault.rekey(&open.lock, keys, Some(&open.store), &Progress::default());
        assert!(refused.is_err_and(|error| error.is_damage() && error.to_string().contains("a/7")));
    }
}
