//! The vaults of all profiles, and what of them is open. Only this file opens one, and only for a [`Permit`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_crypto::{SecureBytes, private_fs};
use core_daemon::unix_ms_now;
use core_secrets::freshness::Rollback;
use core_secrets::header::HeaderError;
use core_secrets::jit::JitDelivery;
use core_secrets::sqlcipher::{Attributes, Incoming, Page, SqlCipherStore, VersionEntry};
use core_secrets::store::{SecretsStore, StoreError};
use core_secrets::vault::{OpenVault, Progress, VaultError, VaultFolder, VaultLock};
use core_types::access::AccessOperation;
use core_types::config::Config;
use core_types::limits::LIST_PAGE_MAX;
use core_types::name::{ProfileName, SecretName};
use core_types::paths::Paths;
use core_types::pattern::Pattern;
use core_types::protocol::import::Comparison;
use core_types::protocol::secrets::{FactorPolicy, ProfileEntry, ProfileState, RekeyState, SecretsDenial};
use tokio::sync::{Mutex as FairMutex, Notify, OwnedRwLockReadGuard, RwLock};

use crate::acl::Action;
use crate::crud::{Permit, ProfileStatus};

/// What is in memory of one profile.
enum Profile {
    /// No key.
    Locked,
    /// Everything that reading its secrets needs.
    Unlocked(Unlocked),
}

struct Unlocked {
    secrets: Arc<JitDelivery<SqlCipherStore>>,
    /// Held for reading by each operation under way, so that locking can wait for them.
    in_use: Arc<RwLock<()>>,
    master_key: SecureBytes,
    folder_lock: Arc<VaultLock>,
    since_unix_ms: u64,
}

struct Slot {
    profile: Profile,
    /// How many changes the vault had seen when it was locked.
    last_generation: Option<u64>,
    /// Whose turn it is to make, unlock or change the vault: one at a time, so that passwords are tried one by one.
    turn: Arc<FairMutex<()>>,
    /// The exchange of the vault's keys that is under way.
    rekeying: Option<Arc<Progress>>,
    /// Whether the last one was done.
    rekeyed: Option<bool>,
}

impl Slot {
    fn locked() -> Self {
        Self {
            profile: Profile::Locked,
            last_generation: None,
            turn: Arc::default(),
            rekeying: None,
            rekeyed: None,
        }
    }
}

/// An open vault, for the length of one operation.
struct Session {
    secrets: Arc<JitDelivery<SqlCipherStore>>,
    _in_use: OwnedRwLockReadGuard<()>,
}

/// An open vault, for the length of one change of how it is unlocked.
pub(crate) struct Held {
    pub(crate) master_key: SecureBytes,
    pub(crate) lock: Arc<VaultLock>,
    pub(crate) store: SqlCipherStore,
    _in_use: OwnedRwLockReadGuard<()>,
}

/// All vaults.
pub(crate) struct Vaults {
    folder: PathBuf,
    anchors: PathBuf,
    ttl: Duration,
    /// Told when a value is kept that expires before all others of its profile.
    next_to_expire: Arc<Notify>,
    old_versions: u64,
    slots: Mutex<BTreeMap<ProfileName, Slot>>,
    /// How often a value was asked of a vault.
    #[cfg(test)]
    pub(crate) readings: std::sync::atomic::AtomicUsize,
}

impl Vaults {
    /// The vaults in these places, all locked. The configuration says how long decrypted values are kept, and how many
    /// old versions of each secret.
    pub(crate) fn new(paths: &Paths, config: &Config) -> Self {
        Self {
            folder: paths.vaults(),
            anchors: paths.anchors(),
            ttl: config.cache_ttl,
            old_versions: config.old_versions,
            next_to_expire: Arc::default(),
            slots: Mutex::default(),
            #[cfg(test)]
            readings: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// Completes when a value is kept that may expire before all others.
    pub(crate) async fn next_to_expire(&self) {
        self.next_to_expire.notified().await;
    }

    /// Wipes every cached value that has expired; answers when the next one will, in boot time.
    pub(crate) fn wipe_expired(&self) -> Option<Duration> {
        self.caches().iter().filter_map(|secrets| secrets.wipe_expired()).min()
    }

    /// Wipes every cached value.
    pub(crate) fn flush(&self) {
        self.caches().iter().for_each(|secrets| secrets.flush());
    }

    /// How many values are cached, of all profiles.
    #[cfg(test)]
    pub(crate) fn cached(&self) -> usize {
        self.caches().iter().map(|secrets| secrets.cached()).sum()
    }

    fn caches(&self) -> Vec<Arc<JitDelivery<SqlCipherStore>>> {
        let slots = self.slots();
        let unlocked = slots.values().filter_map(|slot| match &slot.profile {
            Profile::Unlocked(unlocked) => Some(Arc::clone(&unlocked.secrets)),
            Profile::Locked => None,
        });
        unlocked.collect()
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<ProfileName, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of a profile's vault, whether there is one or not.
    pub(crate) fn folder(&self, profile: &ProfileName) -> VaultFolder {
        let (folder, anchor) = (self.folder.join(profile.as_str()), self.anchors.join(profile.as_str()));
        VaultFolder::new(folder, anchor, profile.clone())
    }

    /// Whether any profile is unlocked.
    pub(crate) fn any_unlocked(&self) -> bool {
        self.slots().values().any(|slot| matches!(slot.profile, Profile::Unlocked(_)))
    }

    /// The state of one profile.
    pub(crate) fn status(&self, profile: &ProfileName) -> ProfileStatus {
        match self.slots().get(profile) {
            Some(Slot { profile: Profile::Unlocked(_), .. }) => ProfileStatus::Unlocked,
            _ if self.folder.join(profile.as_str()).symlink_metadata().is_ok() => ProfileStatus::Locked,
            _ => ProfileStatus::Missing,
        }
    }

    /// The turn to make, unlock or change a profile's vault.
    pub(crate) fn turn(&self, profile: &ProfileName) -> Arc<FairMutex<()>> {
        let mut slots = self.slots();
        let slot = slots.entry(profile.clone()).or_insert_with(Slot::locked);
        Arc::clone(&slot.turn)
    }

    /// What a change of an open vault needs; locking waits until it is dropped. `None` where the profile is locked.
    pub(crate) fn hold(&self, profile: &ProfileName) -> Option<Held> {
        match self.slots().get(profile)?.profile {
            Profile::Unlocked(ref unlocked) => Some(Held {
                master_key: unlocked.master_key.clone(),
                lock: Arc::clone(&unlocked.folder_lock),
                store: unlocked.secrets.store().clone(),
                _in_use: Arc::clone(&unlocked.in_use).try_read_owned().ok()?,
            }),
            Profile::Locked => None,
        }
    }

    /// How many changes a profile's vault has seen, where it is or was unlocked here.
    pub(crate) fn generation(&self, profile: &ProfileName) -> Option<u64> {
        let slots = self.slots();
        let slot = slots.get(profile)?;
        match &slot.profile {
            Profile::Unlocked(unlocked) => Some(unlocked.secrets.store().generation()),
            Profile::Locked => slot.last_generation,
        }
    }

    /// Why an unlocked profile can only be read, where that is so.
    pub(crate) fn rollback(&self, profile: &ProfileName) -> Option<Rollback> {
        match self.slots().get(profile)?.profile {
            Profile::Unlocked(ref unlocked) => unlocked.secrets.store().rollback(),
            Profile::Locked => None,
        }
    }

    /// Takes over a vault that was just opened: its profile is unlocked from now on.
    pub(crate) fn install(&self, profile: &ProfileName, open: OpenVault) {
        let unlocked = self.taken_over(open, unix_ms_now());
        let mut slots = self.slots();
        let slot = slots.entry(profile.clone()).or_insert_with(Slot::locked);
        slot.profile = Profile::Unlocked(unlocked);
    }

    fn taken_over(&self, open: OpenVault, since_unix_ms: u64) -> Unlocked {
        let OpenVault { master_key, store, lock } = open;
        store.keep_old_versions(self.old_versions);
        Unlocked {
            secrets: Arc::new(JitDelivery::new(store, self.ttl).telling(Arc::clone(&self.next_to_expire))),
            in_use: Arc::default(),
            master_key,
            folder_lock: Arc::new(lock),
            since_unix_ms,
        }
    }

    /// Puts a vault with new keys in the place of the one that is held, which nobody notices who reads; unless the
    /// profile is being locked, and then it is closed.
    pub(crate) async fn exchange(&self, profile: &ProfileName, open: OpenVault, held: Held) {
        let fresh = self.taken_over(open, self.since_unix_ms(profile).unwrap_or_else(unix_ms_now));
        let ended = match self.slots().get_mut(profile).map(|slot| &mut slot.profile) {
            Some(Profile::Unlocked(unlocked)) => Ok(std::mem::replace(unlocked, fresh)),
            Some(Profile::Locked) | None => Err(fresh),
        };
        match ended {
            Ok(before) => {
                drop(held);
                before.end(profile).await;
            }
            Err(fresh) => {
                fresh.end(profile).await;
                drop(held);
            }
        }
    }

    /// Takes note that the exchange of a vault's keys begins.
    pub(crate) fn begin_rekey(&self, profile: &ProfileName) -> Arc<Progress> {
        let progress = Arc::<Progress>::default();
        let mut slots = self.slots();
        let slot = slots.entry(profile.clone()).or_insert_with(Slot::locked);
        slot.rekeying = Some(Arc::clone(&progress));
        progress
    }

    /// Takes note of how the exchange of a vault's keys ended.
    pub(crate) fn end_rekey(&self, profile: &ProfileName, done: bool) {
        if let Some(slot) = self.slots().get_mut(profile) {
            slot.rekeying = None;
            slot.rekeyed = Some(done);
        }
    }

    /// Takes note of how many changes a vault has seen that is not open.
    pub(crate) fn note_generation(&self, profile: &ProfileName, generation: u64) {
        if let Some(slot) = self.slots().get_mut(profile) {
            slot.last_generation = Some(generation);
        }
    }

    /// How far the exchange of a vault's keys is.
    pub(crate) fn rekey_state(&self, profile: &ProfileName) -> RekeyState {
        match self.slots().get(profile) {
            Some(Slot { rekeying: Some(progress), .. }) => {
                let (done, total) = progress.get();
                RekeyState::Running { done, total }
            }
            Some(Slot { rekeyed: Some(true), .. }) => RekeyState::Done,
            Some(Slot { rekeyed: Some(false), .. }) => RekeyState::Failed,
            _ => RekeyState::Idle,
        }
    }

    /// Asks for the end of every exchange of keys that is under way.
    pub(crate) fn cancel_rekeys(&self) {
        self.slots()
            .values()
            .filter_map(|slot| slot.rekeying.as_ref())
            .for_each(|progress| progress.cancel());
    }

    /// Locks a profile; `false` if it was locked. When it returns, no key and no value of it is in memory.
    pub(crate) async fn lock(&self, profile: &ProfileName) -> bool {
        let before = self.slots().get_mut(profile).map(|slot| {
            slot.rekeying.iter().for_each(|progress| progress.cancel());
            std::mem::replace(&mut slot.profile, Profile::Locked)
        });
        match before {
            Some(Profile::Unlocked(unlocked)) => {
                let store = unlocked.secrets.store().clone();
                unlocked.end(profile).await;
                self.note_generation(profile, store.generation());
                true
            }
            Some(Profile::Locked) | None => false,
        }
    }

    /// The profiles that are unlocked.
    pub(crate) fn unlocked(&self) -> Vec<ProfileName> {
        let slots = self.slots();
        let unlocked = slots.iter().filter(|(_, slot)| matches!(slot.profile, Profile::Unlocked(_)));
        unlocked.map(|(name, _)| name.clone()).collect()
    }

    fn since_unix_ms(&self, profile: &ProfileName) -> Option<u64> {
        match self.slots().get(profile)?.profile {
            Profile::Unlocked(ref unlocked) => Some(unlocked.since_unix_ms),
            Profile::Locked => None,
        }
    }

    /// All profiles that have a vault, in order of their names. Blocks.
    pub(crate) fn profiles(&self) -> Result<Vec<ProfileEntry>, SecretsDenial> {
        let failed =
            |error: std::io::Error| SecretsDenial::Storage(format!("the vaults cannot be listed: {error}"));
        let mut names = Vec::new();
        let entries = match self.folder.read_dir() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(names),
            other => other.map_err(failed)?,
        };
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().into_string();
            if let Some(name) = name.ok().and_then(|name| ProfileName::parse(name).ok()) {
                names.push(self.entry(name));
            }
        }
        names.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(names)
    }

    fn entry(&self, name: ProfileName) -> ProfileEntry {
        match self.folder(&name).header() {
            Ok(header) => {
                let state = match self.since_unix_ms(&name) {
                    Some(since_unix_ms) => {
                        let rollback = self.rollback(&name).map(|found| found.to_string());
                        ProfileState::Unlocked { since_unix_ms, rollback }
                    }
                    None => ProfileState::Locked,
                };
                let factors = header.factors().iter().map(|factor| factor.way.kind()).collect();
                let (policy, created_unix_ms) = (header.policy(), header.created_unix_ms());
                ProfileEntry { name, state, factors, policy, created_unix_ms }
            }
            Err(error) => {
                let state = ProfileState::Damaged(error.to_string());
                let policy = FactorPolicy::Any;
                ProfileEntry { name, state, factors: Vec::new(), policy, created_unix_ms: 0 }
            }
        }
    }

    /// The key that the values of the permit's profile are encrypted with on the bus.
    #[cfg(feature = "ipc-field-encryption")]
    pub(crate) fn field_key(&self, permit: &Permit) -> Result<SecureBytes, SecretsDenial> {
        let slots = self.slots();
        match slots.get(permit.profile()).map(|slot| &slot.profile) {
            Some(Profile::Unlocked(unlocked)) => {
                let profile = permit.profile().as_str();
                Ok(core_crypto::key_schedule::ipc_field_key(&unlocked.master_key, profile))
            }
            _ => Err(SecretsDenial::ProfileNotActive(permit.profile().clone())),
        }
    }

    /// Opens the vault that a permit is for.
    fn session(&self, permit: &Permit) -> Result<Session, SecretsDenial> {
        let not_active = || SecretsDenial::ProfileNotActive(permit.profile().clone());
        let slots = self.slots();
        let Some(Slot { profile: Profile::Unlocked(unlocked), .. }) = slots.get(permit.profile()) else {
            return Err(not_active());
        };
        let in_use = Arc::clone(&unlocked.in_use).try_read_owned().map_err(|_| not_active())?;
        Ok(Session { secrets: Arc::clone(&unlocked.secrets), _in_use: in_use })
    }

    /// Reads the secret that the permit names, or an older version of it.
    pub(crate) async fn get(
        &self,
        permit: &Permit,
        version: Option<u64>,
    ) -> Result<SecureBytes, SecretsDenial> {
        let name = permit.name_for(Action::Get)?;
        #[cfg(test)]
        self.readings.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let session = self.session(permit)?;
        let value = match version {
            None => session.secrets.resolve(name).await,
            // Old versions are read seldom: the cache is for the latest.
            Some(version) => session.secrets.store().get_version(name, version).await,
        };
        value.map_err(|error| denial_of(permit.profile(), error))
    }

    /// Reads all secrets that the permit names, together at most `bytes_max` bytes: all or none.
    pub(crate) async fn get_batch(
        &self,
        permit: &Permit,
        bytes_max: usize,
    ) -> Result<Vec<SecureBytes>, SecretsDenial> {
        let names = permit.names_for(Action::GetBatch)?;
        #[cfg(test)]
        self.readings.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let session = self.session(permit)?;
        let values = session.secrets.resolve_many(names, bytes_max).await;
        values.map_err(|error| denial_of(permit.profile(), error))
    }

    /// Stores a value under the name that the permit names.
    pub(crate) async fn set(
        &self,
        permit: &Permit,
        value: SecureBytes,
        attributes: Attributes,
    ) -> Result<(), SecretsDenial> {
        let name = permit.name_for(Action::Set)?;
        let session = self.session(permit)?;
        let store = session.secrets.store();
        let set = session.secrets.change(name, store.set_with(name, value, attributes)).await;
        set.map(|_version| ()).map_err(|error| denial_of(permit.profile(), error))
    }

    /// Stores what `next` gives, under the names that the permit names, in their order and in one step: all or nothing.
    pub(crate) async fn import(
        &self,
        permit: &Permit,
        next: impl FnMut() -> Result<Option<Incoming>, StoreError> + Send + 'static,
    ) -> Result<u64, SecretsDenial> {
        let names = permit.names_for(Action::Import)?;
        let session = self.session(permit)?;
        let next = only(names.to_vec(), next);
        let importing = session.secrets.change_all(names, session.secrets.store().import(next)).await;
        importing.map_err(|error| denial_of(permit.profile(), error))
    }

    /// Whether the secrets that the permit names have these values.
    pub(crate) async fn compare(
        &self,
        permit: &Permit,
        values: Vec<SecureBytes>,
    ) -> Result<Vec<Comparison>, SecretsDenial> {
        let names = permit.names_for(Action::Compare)?.to_vec();
        let session = self.session(permit)?;
        let compared = session.secrets.store().compare(names, values).await;
        compared.map_err(|error| denial_of(permit.profile(), error))
    }

    /// Removes the secret that the permit names.
    pub(crate) async fn delete(&self, permit: &Permit) -> Result<(), SecretsDenial> {
        let name = permit.name_for(Action::Delete)?;
        let session = self.session(permit)?;
        session.secrets.delete(name).await.map_err(|error| denial_of(permit.profile(), error))
    }

    /// The versions of the secret that the permit names.
    pub(crate) async fn history(&self, permit: &Permit) -> Result<Vec<VersionEntry>, SecretsDenial> {
        let name = permit.name_for(Action::History)?;
        let session = self.session(permit)?;
        let versions = session.secrets.store().history(name).await;
        versions.map_err(|error| denial_of(permit.profile(), error))
    }

    /// What the vault would say of an operation on the name that the permit names, from what is known of its versions:
    /// no value is read or decrypted.
    pub(crate) async fn look(
        &self,
        permit: &Permit,
        operation: AccessOperation,
    ) -> Result<(), SecretsDenial> {
        let name = permit.name_for(Action::Explain)?;
        let changes = matches!(operation, AccessOperation::Set | AccessOperation::Delete);
        if changes && self.rollback(permit.profile()).is_some() {
            return Err(SecretsDenial::ReadOnly(permit.profile().clone()));
        }
        if operation == AccessOperation::Set {
            return Ok(());
        }
        let session = self.session(permit)?;
        let versions = session.secrets.store().history(name).await;
        let versions = versions.map_err(|error| denial_of(permit.profile(), error))?;
        let expires = match versions.iter().find(|version| version.current) {
            None => return Err(SecretsDenial::NoSuchSecret(name.as_str().to_owned())),
            Some(current) => current.expires_unix_ms.filter(|_| operation.reads()),
        };
        match expires.filter(|expires| *expires <= unix_ms_now()) {
            None => Ok(()),
            Some(since_unix_ms) => {
                Err(SecretsDenial::Expired { name: name.as_str().to_owned(), since_unix_ms })
            }
        }
    }

    /// Makes an old version the latest, or takes back a removal.
    pub(crate) async fn restore(&self, permit: &Permit, version: Option<u64>) -> Result<u64, SecretsDenial> {
        let name = permit.name_for(Action::Restore)?;
        let session = self.session(permit)?;
        let restored = session.secrets.change(name, session.secrets.store().restore(name, version)).await;
        restored.map_err(|error| denial_of(permit.profile(), error))
    }

    /// Deletes old versions for good.
    pub(crate) async fn purge(&self, permit: &Permit) -> Result<u64, SecretsDenial> {
        let name = permit.name_for(Action::Purge)?;
        let session = self.session(permit)?;
        let purged = session.secrets.change(name, session.secrets.store().purge(name)).await;
        purged.map_err(|error| denial_of(permit.profile(), error))
    }

    /// Gives the first secret that the permit names the second name.
    pub(crate) async fn rename(&self, permit: &Permit) -> Result<(), SecretsDenial> {
        let [from, to] = permit.names_for(Action::Move)? else { return Err(SecretsDenial::Forbidden) };
        let session = self.session(permit)?;
        let renaming = session.secrets.change(to, session.secrets.store().rename(from, to));
        let renamed = session.secrets.change(from, renaming).await;
        renamed.map_err(|error| denial_of(permit.profile(), error))
    }

    /// Takes a vault that is not the one that was written last for the right one; `false` if it is that one. Its
    /// state is then above `recorded`.
    pub(crate) async fn accept_rollback(
        &self,
        permit: &Permit,
        recorded: u64,
    ) -> Result<bool, SecretsDenial> {
        permit.names_for(Action::AcceptRollback)?;
        let profile = permit.profile();
        let session = self.session(permit)?;
        let folder = self.folder(profile);
        let header = tokio::task::spawn_blocking(move || Ok(folder.header()?.mark()?)).await;
        let header = header.map_err(|error| SecretsDenial::Storage(error.to_string()))?;
        let header = header.map_err(|error| denial_of_vault(profile, error))?;
        let accepted = session.secrets.store().accept_rollback(header, recorded).await;
        accepted.map_err(|error| denial_of(profile, error))
    }

    /// A page of the names that match.
    pub(crate) async fn list(
        &self,
        permit: &Permit,
        pattern: Option<Pattern>,
        after: Option<SecretName>,
    ) -> Result<Page, SecretsDenial> {
        permit.names_for(Action::List)?;
        let session = self.session(permit)?;
        let page = session.secrets.store().list(pattern, after, LIST_PAGE_MAX).await;
        page.map_err(|error| denial_of(permit.profile(), error))
    }

    /// All names, for a batch to select from.
    pub(crate) async fn names(&self, permit: &Permit) -> Result<Vec<SecretName>, SecretsDenial> {
        permit.names_for(Action::GetBatch)?;
        let session = self.session(permit)?;
        let names = session.secrets.store().list_keys().await;
        names.map_err(|error| denial_of(permit.profile(), error))
    }
}

impl Unlocked {
    /// The end of an unlocked profile, in the one order there is: no new value is kept and the kept ones are wiped;
    /// what is under way ends; the database is closed, with which SQLCipher wipes its key and the entry key goes;
    /// the master key goes. Only then may others have the folder.
    async fn end(self, profile: &ProfileName) {
        let Self { secrets, in_use, master_key, folder_lock, since_unix_ms: _ } = self;
        secrets.shut();
        let _nothing_under_way = in_use.write().await;
        let store = secrets.store().clone();
        drop(secrets);
        match tokio::task::spawn_blocking(move || store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%profile, %error, "a vault did not close cleanly"),
            Err(error) => tracing::error!(%profile, %error, "closing a vault failed"),
        }
        drop(master_key);
        drop(folder_lock);
    }
}

/// What `next` gives, as long as it is what was allowed: under these names, in their order.
fn only(
    names: Vec<SecretName>,
    mut next: impl FnMut() -> Result<Option<Incoming>, StoreError>,
) -> impl FnMut() -> Result<Option<Incoming>, StoreError> {
    let mut names = names.into_iter();
    move || match (next()?, names.next()) {
        (None, None) => Ok(None),
        (Some(incoming), Some(name)) if incoming.name == name => Ok(Some(incoming)),
        _ => Err(StoreError::Io {
            action: "import what was not allowed",
            source: std::io::ErrorKind::InvalidData.into(),
        }),
    }
}

/// What a requester is told about an error of the store.
fn denial_of(profile: &ProfileName, error: StoreError) -> SecretsDenial {
    match error {
        StoreError::NotFound(name) => SecretsDenial::NoSuchSecret(name.into()),
        StoreError::NoSuchVersion { name, version } => {
            SecretsDenial::NoSuchVersion { name: name.into(), version }
        }
        StoreError::Expired { name, since_unix_ms } => {
            SecretsDenial::Expired { name: name.into(), since_unix_ms }
        }
        StoreError::ReadOnly => SecretsDenial::ReadOnly(profile.clone()),
        StoreError::Rekeying => SecretsDenial::Rekeying(profile.clone()),
        StoreError::NotRemoved(name) => SecretsDenial::NotRemoved(name.into()),
        StoreError::Changed(name) => SecretsDenial::ChangedMeanwhile(name.into()),
        StoreError::Exists { name, removed } => SecretsDenial::SecretExists { name: name.into(), removed },
        StoreError::Damaged(_) | StoreError::WrongKey => SecretsDenial::Damaged(error.to_string()),
        StoreError::TooLarge { limit } => {
            SecretsDenial::BatchTooLarge { limit: u64::try_from(limit).unwrap_or(u64::MAX) }
        }
        StoreError::Closed => SecretsDenial::ProfileNotActive(profile.clone()),
        error if error.is_full() => SecretsDenial::StorageFull,
        error => SecretsDenial::Storage(error.to_string()),
    }
}

/// What a requester is told about a vault that is not the one that was written last.
pub(crate) fn rolled_back(profile: &ProfileName, found: &Rollback) -> SecretsDenial {
    SecretsDenial::RolledBack { profile: profile.clone(), found: found.to_string() }
}

/// What a requester is told about an error of a vault as a whole.
pub(crate) fn denial_of_vault(profile: &ProfileName, error: VaultError) -> SecretsDenial {
    match error {
        VaultError::Missing => SecretsDenial::NoSuchProfile(profile.clone()),
        VaultError::Exists => SecretsDenial::ProfileExists(profile.clone()),
        VaultError::RolledBack(found) => rolled_back(profile, &found),
        VaultError::Header(error) if !error.is_damage() => denial_of_header(error),
        VaultError::Backup(error) if error.is_damage() => SecretsDenial::BadBackup(error.to_string()),
        error if error.is_damage() => SecretsDenial::Damaged(error.to_string()),
        error if error.is_full() => SecretsDenial::StorageFull,
        VaultError::Store(error) => denial_of(profile, error),
        error => SecretsDenial::Storage(error.to_string()),
    }
}

/// What a requester is told about an error of a header that is as it was written.
fn denial_of_header(error: HeaderError) -> SecretsDenial {
    match error {
        HeaderError::WrongFactor(kind) => SecretsDenial::WrongFactor(kind),
        HeaderError::NoSuchFactor(id) => SecretsDenial::NoSuchFactor(id),
        HeaderError::NotEnough { given, needed, of } => SecretsDenial::NotEnoughFactors { given, needed, of },
        HeaderError::LastFactor => SecretsDenial::LastFactor,
        HeaderError::TooManyFactors => SecretsDenial::TooManyFactors,
        HeaderError::FactorExists(id) => SecretsDenial::FactorExists(id),
        HeaderError::NotAPassword(id) => SecretsDenial::NotAPassword(id),
        HeaderError::UnsupportedKey(why) => SecretsDenial::UnsupportedKey(why),
        HeaderError::Policy { policy, factors } => {
            SecretsDenial::PolicyImpossible { policy, factors: u8::try_from(factors).unwrap_or(u8::MAX) }
        }
        HeaderError::Files(error) if error.is_full() => SecretsDenial::StorageFull,
        error => SecretsDenial::Storage(error.to_string()),
    }
}

/// Makes the folder of all vaults, or refuses one that is not this user's alone.
pub(crate) fn prepare_folder(folder: &std::path::Path) -> Result<(), private_fs::PrivateFsError> {
    private_fs::ensure_private_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::AccessRules;
    use crate::acl::tests::requester;
    use crate::crud::{AccessState, AskedName, Attempt, authorize};
    use crate::grants::Grants;
    use crate::rate_limit::{Cost, RateLimits};
    use crate::service::tests::{World, profile};

    fn permit(vaults: &Vaults, action: Action) -> Permit {
        let attempt = Attempt {
            action,
            profile: profile("work"),
            requester: requester(None),
            names: vec![AskedName::new("a")],
            cost: Cost { tokens: 1, names: 1 },
        };
        let (rules, rates) = (AccessRules::default(), RateLimits::new(&Config::default()));
        let status = vaults.status(&attempt.profile);
        let state = AccessState {
            any_unlocked: vaults.any_unlocked(),
            profile: status,
            rules: &rules,
            rates: &rates,
            grants: &Grants::default(),
        };
        authorize(&attempt, &state).unwrap()
    }

    #[tokio::test]
    async fn locking_waits_for_what_is_under_way_and_lets_nothing_new_in() {
        let world = World::with_vault().await;
        let vaults = Arc::clone(&world.daemon.vaults);
        let permit = permit(&vaults, Action::Get);
        let session = vaults.session(&permit).unwrap();
        let locking = tokio::spawn({
            let vaults = Arc::clone(&vaults);
            async move { vaults.lock(&profile("work")).await }
        });
        while vaults.any_unlocked() {
            tokio::task::yield_now().await;
        }
        let names = session.secrets.store().list_keys().await;
        assert!(names.is_ok(), "the vault stays open for what is under way");
        assert!(!locking.is_finished());
        assert!(matches!(vaults.session(&permit), Err(SecretsDenial::ProfileNotActive(_))));
        assert_eq!(vaults.status(&profile("work")), ProfileStatus::Locked);
        drop(session);
        assert!(locking.await.unwrap());
    }

    #[tokio::test]
    async fn what_an_operation_under_way_reads_is_not_kept_after_locking_began() {
        let world = World::with_vault().await;
        world.set("a", b"x").await.unwrap();
        let vaults = Arc::clone(&world.daemon.vaults);
        let permit = permit(&vaults, Action::Get);
        let session = vaults.session(&permit).unwrap();
        let secrets = Arc::clone(&session.secrets);
        let locking = tokio::spawn({
            let vaults = Arc::clone(&vaults);
            async move { vaults.lock(&profile("work")).await }
        });
        while vaults.any_unlocked() {
            tokio::task::yield_now().await;
        }
        let name = SecretName::parse("a").unwrap();
        session.secrets.resolve(&name).await.unwrap();
        drop(session);
        locking.await.unwrap();
        assert!(matches!(secrets.resolve(&name).await, Err(StoreError::Closed)), "neither cached nor open");
    }

    #[tokio::test]
    async fn a_permit_opens_only_what_it_is_for() {
        let world = World::with_vault().await;
        let vaults = &world.daemon.vaults;
        let to_read = permit(vaults, Action::Get);
        let set = vaults.set(&to_read, SecureBytes::zeroed(1), Attributes::default()).await;
        assert_eq!(set, Err(SecretsDenial::Forbidden));
        assert_eq!(vaults.delete(&to_read).await, Err(SecretsDenial::Forbidden));
        assert!(vaults.list(&to_read, None, None).await.is_err());
        assert!(vaults.names(&to_read).await.is_err());
        assert!(vaults.get_batch(&to_read, 9).await.is_err());
        assert!(vaults.history(&to_read).await.is_err());
        assert!(vaults.restore(&to_read, None).await.is_err());
        assert!(vaults.purge(&to_read).await.is_err());
        assert!(vaults.rename(&to_read).await.is_err());
        assert!(vaults.accept_rollback(&to_read, 0).await.is_err());
        assert!(matches!(
            vaults.get(&permit(vaults, Action::List), None).await,
            Err(SecretsDenial::Forbidden)
        ));
    }
}
