//! A vault on disk: one folder with the header, the database, and the lock that keeps other processes out.

mod rekey;

use std::path::{Path, PathBuf};

use core_crypto::kdf::Argon2Params;
use core_crypto::private_fs::{self, InstanceLock, PrivateFsError};
use core_crypto::{SecureBytes, key_schedule};
use core_types::ProfileName;

use crate::anchor::{Anchor, AnchorError};
use crate::backup::BackupError;
use crate::freshness::{Anchored, Mark, Reading, Rollback, judge};
use crate::header::{Changed, HeaderError, Proof, VaultHeader};
use crate::sqlcipher::SqlCipherStore;
use crate::store::{Damage, StoreError};

pub use self::rekey::{NewKeys, Progress, remove_unfinished};

const HEADER: &str = "header.json";
const DATABASE: &str = "vault.db";
const LOCK: &str = "lock";
const COPY: &str = "backup.db";

/// Why a vault was not made, opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is no vault in this place.
    #[error("there is no vault")]
    Missing,
    /// There is a vault in this place already.
    #[error("there is a vault already")]
    Exists,
    /// Another process works with the vault.
    #[error("another process is using the vault")]
    InUse,
    /// The header, or a factor.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault is not the one that was written last, so nothing of it is changed.
    #[error("{0}")]
    RolledBack(Rollback),
    /// It was asked for to end before it was done.
    #[error("it was ended before it was done; nothing was changed")]
    Cancelled,
    /// What was read back is not what was to be copied.
    #[error("the copy with the new keys is not what it is a copy of; nothing was changed")]
    NotTheSame,
    /// The anchor.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The backup that it is made of.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A file or folder.
    #[error(transparent)]
    Files(#[from] PrivateFsError),
}

impl VaultError {
    /// Whether the vault is not what was written, as opposed to a wrong password or a failing machine.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Header(error) => error.is_damage(),
            Self::Store(StoreError::Damaged(_) | StoreError::WrongKey) => true,
            Self::Backup(error) => error.is_damage(),
            Self::Missing
            | Self::Exists
            | Self::InUse
            | Self::RolledBack(_)
            | Self::Cancelled
            | Self::NotTheSame
            | Self::Store(_)
            | Self::Anchor(_)
            | Self::Files(_) => false,
        }
    }

    /// Whether the disk, or the quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Header(HeaderError::Files(error))
            | Self::Anchor(AnchorError::Files(error))
            | Self::Files(error) => error.is_full(),
            Self::Store(error) => error.is_full(),
            Self::Backup(error) => error.is_full(),
            _ => false,
        }
    }
}

/// A vault's folder, and its anchor outside of it. All of its methods block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultFolder {
    folder: PathBuf,
    anchor: PathBuf,
    profile: ProfileName,
}

/// The right to be the only process that works with a vault.
#[derive(Debug)]
pub struct VaultLock {
    _lock: InstanceLock,
}

/// An unlocked vault.
#[derive(Debug)]
pub struct OpenVault {
    /// The key that everything else follows from.
    pub master_key: SecureBytes,
    /// The secrets. They may only be read where [`SqlCipherStore::rollback`] says so.
    pub store: SqlCipherStore,
    /// Keeps other processes out while the vault is open.
    pub lock: VaultLock,
}

impl VaultFolder {
    /// The vault of `profile` in `folder`, with its anchor at `anchor`, which is no part of what is backed up or
    /// synchronized together with the folder; nothing is read yet.
    #[must_use]
    pub fn new(folder: PathBuf, anchor: PathBuf, profile: ProfileName) -> Self {
        Self { folder, anchor, profile }
    }

    /// Makes the vault, with one password, and opens it.
    ///
    /// It is made in a hidden folder beside its place and moved there when it is complete, so that a kill at any
    /// moment leaves a whole vault or none.
    ///
    /// # Errors
    /// Why no vault was made.
    pub fn create(&self, password: &[u8], params: Argon2Params) -> Result<OpenVault, VaultError> {
        if self.folder.symlink_metadata().is_ok() {
            return Err(VaultError::Exists);
        }
        let (building, lock) = self.begin_building()?;
        // Someone else may have been quicker until we had the lock, and then the anchor is theirs.
        if self.folder.symlink_metadata().is_ok() {
            return Err(VaultError::Exists);
        }
        let (header, master_key) = VaultHeader::create(&self.profile, password, params)?;
        let vault_key = key_schedule::vault_key(&master_key, self.profile.as_str());
        SqlCipherStore::create(&building.database(), &self.profile, &vault_key)?.close()?;
        header.save(&building.header_path())?;
        let mut anchor = self.anchor(&master_key);
        let header = header.mark()?;
        anchor.update(|anchored| *anchored = Anchored { database: Mark::default(), header })?;
        anchor.sync()?;
        if !private_fs::rename_dir_new(&building.folder, &self.folder)? {
            return Err(VaultError::Exists);
        }
        let store = SqlCipherStore::open(&self.database(), &self.profile, &vault_key)?;
        store.attach(anchor, None)?;
        Ok(OpenVault { master_key, store, lock })
    }

    fn anchor(&self, master_key: &SecureBytes) -> Anchor {
        Anchor::new(self.anchor.clone(), &self.profile, master_key)
    }

    /// A private, empty folder beside the vault's place, where a vault can be made.
    pub(crate) fn begin_building(&self) -> Result<(Self, VaultLock), VaultError> {
        let building = self.building();
        private_fs::ensure_private_dir(&building.folder)?;
        let lock = building.lock()?;
        building.remove_leftovers()?;
        Ok((building, lock))
    }

    /// Opens the database with the key that the header gave, and holds it against what is known of the vault.
    pub(crate) fn open(
        &self,
        lock: VaultLock,
        header: &VaultHeader,
        master_key: SecureBytes,
        recorded: u64,
    ) -> Result<OpenVault, VaultError> {
        let vault_key = key_schedule::vault_key(&master_key, self.profile.as_str());
        let store =
            SqlCipherStore::open(&self.database(), &self.profile, &vault_key).map_err(
                |error| match error {
                    // The header has proved that the key is the right one.
                    StoreError::WrongKey => StoreError::Damaged(Damage::NotThisVault),
                    other => other,
                },
            )?;
        self.check_freshness(&store, header, &master_key, recorded)?;
        Ok(OpenVault { master_key, store, lock })
    }

    /// Keeps other processes out of the vault until the lock is dropped.
    ///
    /// # Errors
    /// There is no vault, or another process has it.
    pub fn lock(&self) -> Result<VaultLock, VaultError> {
        if self.folder.symlink_metadata().is_err() {
            return Err(VaultError::Missing);
        }
        private_fs::check_private_dir(&self.folder)?;
        match private_fs::lock_instance(&self.folder.join(LOCK))? {
            Some(lock) => Ok(VaultLock { _lock: lock }),
            None => Err(VaultError::InUse),
        }
    }

    /// Reads and checks the header, which needs no password and no lock.
    ///
    /// # Errors
    /// There is no vault, or the header is damaged.
    pub fn header(&self) -> Result<VaultHeader, VaultError> {
        if self.folder.symlink_metadata().is_err() {
            return Err(VaultError::Missing);
        }
        Ok(VaultHeader::load(&self.header_path(), &self.profile)?)
    }

    /// Unlocks the vault with as many factors as its policy needs. Takes as long as Argon2 for each password, and as
    /// long as it takes to look at every row once.
    ///
    /// A vault that is not the one that was written last is opened all the same, but can only be read.
    ///
    /// # Errors
    /// There is no vault, another process has it, a factor is wrong, or it is damaged.
    pub fn unlock(&self, proofs: &[Proof]) -> Result<OpenVault, VaultError> {
        self.unlock_at_least(proofs, 0)
    }

    /// As [`Self::unlock`], for a vault that is known, from elsewhere, to have seen so many changes.
    ///
    /// # Errors
    /// As [`Self::unlock`].
    pub fn unlock_at_least(&self, proofs: &[Proof], recorded: u64) -> Result<OpenVault, VaultError> {
        let lock = self.lock()?;
        let header = self.header()?;
        let master_key = header.unlock(proofs)?;
        private_fs::remove_leftovers(&self.header_path())?;
        private_fs::remove_if_present(&self.copy_path())?;
        self.open(lock, &header, master_key, recorded)
    }

    /// Attaches the anchor to an opened vault, which can only be read if it is not the one that was written last.
    fn check_freshness(
        &self,
        store: &SqlCipherStore,
        header: &VaultHeader,
        master_key: &SecureBytes,
        recorded: u64,
    ) -> Result<(), VaultError> {
        let (database, found) = store.verify()?;
        let state = Anchored { database, header: header.mark()? };
        let mut anchor = self.anchor(master_key);
        let rollback = match found {
            Some(rollback) => Some(rollback),
            None => judge(&state, &anchor.read()?, recorded),
        };
        if rollback.is_none() {
            anchor.update(|anchored| *anchored = state)?;
            anchor.sync()?;
        }
        Ok(store.attach(anchor, rollback)?)
    }

    /// Replaces the header by what `change` makes of it: after a kill it is exactly one of the two. Nothing else of the
    /// vault changes, and no secret is re-encrypted. Takes as long as the change.
    ///
    /// # Errors
    /// The change is not possible, or the header cannot be replaced; the old one still holds.
    pub fn change<T>(
        &self,
        _held: &VaultLock,
        change: impl FnOnce(&VaultHeader) -> Result<Changed<T>, HeaderError>,
    ) -> Result<T, VaultError> {
        let before = self.header()?;
        let Changed { header, result } = change(&before)?;
        let anchor = self.anchor_of_header(&before, &header)?;
        header.save(&self.header_path())?;
        if let Some(mut anchor) = anchor {
            let mark = header.mark()?;
            anchor.update(|anchored| anchored.header = mark)?;
            anchor.sync()?;
        }
        Ok(result)
    }

    /// The anchor that a changed header is to be made known to, so that the one before it is noticed if it comes back;
    /// `None` where the change did not concern the master key's holder.
    ///
    /// # Errors
    /// [`VaultError::RolledBack`] if the header before the change is an older one that came back: whoever knows a
    /// password of those days could otherwise have it counted as the right one.
    fn anchor_of_header(
        &self,
        before: &VaultHeader,
        after: &VaultHeader,
    ) -> Result<Option<Anchor>, VaultError> {
        let Some(key) = after.anchor_key() else { return Ok(None) };
        let anchor = Anchor::with_key(self.anchor.clone(), &self.profile, key.clone());
        let reading = anchor.read()?;
        let database = match &reading {
            Reading::Read(anchored) => anchored.database,
            Reading::Missing | Reading::Unreadable => Mark::default(),
        };
        match judge(&Anchored { database, header: before.mark()? }, &reading, 0) {
            None => Ok(Some(anchor)),
            Some(rollback) => Err(VaultError::RolledBack(rollback)),
        }
    }

    /// Makes the passwords among factors that just unlocked the vault as dear to try as `params` says, where they are
    /// cheaper; `false` where none is, or where the vault may only be read. Takes as long as Argon2, twice for each password that is changed.
    ///
    /// # Errors
    /// The header cannot be replaced; the old one still holds.
    pub fn raise_cost(
        &self,
        open: &OpenVault,
        proofs: &[Proof],
        params: Argon2Params,
    ) -> Result<bool, VaultError> {
        if open.store.rollback().is_some() {
            return Ok(false);
        }
        match self.header()?.with_cost(proofs, &open.master_key, params)? {
            None => Ok(false),
            Some(raised) => self.change(&open.lock, |_| Ok(raised.into())).map(|()| true),
        }
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Whose vault it is.
    pub(crate) fn profile(&self) -> &ProfileName {
        &self.profile
    }

    /// Where a copy of the database lies while a backup is made.
    pub(crate) fn copy_path(&self) -> PathBuf {
        self.folder.join(COPY)
    }

    pub(crate) fn header_path(&self) -> PathBuf {
        self.folder.join(HEADER)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join(DATABASE)
    }

    /// Where the vault is made. No profile has a name with a dot in front.
    fn building(&self) -> Self {
        let name = format!(".{}.new", self.profile);
        let folder = self.folder.parent().unwrap_or(Path::new("/")).join(name);
        Self { folder, anchor: self.anchor.clone(), profile: self.profile.clone() }
    }

    /// Removes a folder that was built and is not needed, or the vault that was in the place of one; what cannot be
    /// removed now is removed when the next is built.
    pub(crate) fn remove(&self) {
        let _left = self.remove_leftovers();
        let _left = private_fs::remove_if_present(&self.folder.join(LOCK));
        let _left = std::fs::remove_dir(&self.folder);
    }

    /// Removes what an earlier attempt left, but for the lock, which is held.
    fn remove_leftovers(&self) -> Result<(), VaultError> {
        private_fs::remove_leftovers(&self.header_path())?;
        for name in [HEADER, DATABASE, COPY, "vault.db-wal", "vault.db-shm", "vault.db-journal"] {
            private_fs::remove_if_present(&self.folder.join(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SecretsStore;
    use core_types::SecretName;

    const CHEAP: Argon2Params = Argon2Params::FLOOR;

    fn vault() -> (tempfile::TempDir, VaultFolder) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vaults/work");
        let anchor = folder.path().join("anchors/work");
        (folder, VaultFolder::new(path, anchor, ProfileName::parse("work").unwrap()))
    }

    /// The password that `create` was given, or another.
    fn password(password: &[u8]) -> [Proof; 1] {
        [Proof { factor: 1, secret: SecureBytes::copy_of(password) }]
    }

    fn change_password(
        vault: &VaultFolder,
        lock: &VaultLock,
        old: &[u8],
        new: &[u8],
    ) -> Result<(), VaultError> {
        vault.change(lock, |header| {
            let new = SecureBytes::copy_of(new);
            Ok(header.with_password(1, &password(old), None, new, CHEAP)?.into())
        })
    }

    fn close(vault: OpenVault) {
        vault.store.close().unwrap();
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = folder
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_is_set_after_create_is_there_after_unlock() {
        let (_folder, vault) = vault();
        let open = vault.create(b"right", CHEAP).unwrap();
        let name = SecretName::parse("a").unwrap();
        open.store.set(&name, SecureBytes::copy_of(b"value")).await.unwrap();
        close(open);
        let open = vault.unlock(&password(b"right")).unwrap();
        assert_eq!(open.store.get(&name).await.unwrap().expose(), b"value");
    }

    #[test]
    fn create_leaves_a_whole_vault_and_nothing_else() {
        let (_folder, vault) = vault();
        close(vault.create(b"right", CHEAP).unwrap());
        assert_eq!(names_in(vault.folder.parent().unwrap()), ["work"]);
        assert_eq!(names_in(&vault.folder), [HEADER, LOCK, DATABASE]);
        assert!(matches!(vault.create(b"other", CHEAP), Err(VaultError::Exists)));
    }

    #[test]
    fn an_init_that_was_killed_leaves_no_vault_and_does_not_hinder_the_next() {
        let (_folder, vault) = vault();
        let building = vault.building();
        private_fs::ensure_private_dir(&building.folder).unwrap();
        for name in [DATABASE, "vault.db-wal", HEADER, ".header.json.0011.new"] {
            std::fs::write(building.folder.join(name), b"half").unwrap();
        }
        assert!(matches!(vault.unlock(&password(b"right")), Err(VaultError::Missing)));
        assert!(matches!(vault.header(), Err(VaultError::Missing)));
        close(vault.create(b"right", CHEAP).unwrap());
        close(vault.unlock(&password(b"right")).unwrap());
        assert_eq!(names_in(vault.folder.parent().unwrap()), ["work"]);
    }

    #[test]
    fn two_inits_at_once_make_one_vault() {
        let (_folder, vault) = vault();
        private_fs::ensure_private_dir(&vault.building().folder).unwrap();
        let held = vault.building().lock().unwrap();
        assert!(matches!(vault.create(b"right", CHEAP), Err(VaultError::InUse)));
        drop(held);
        close(vault.create(b"right", CHEAP).unwrap());
    }

    #[test]
    fn an_open_vault_keeps_others_out_until_it_is_dropped() {
        let (_folder, vault) = vault();
        let open = vault.create(b"right", CHEAP).unwrap();
        assert!(matches!(vault.unlock(&password(b"right")), Err(VaultError::InUse)));
        close(open);
        let open = vault.unlock(&password(b"right")).unwrap();
        assert!(matches!(vault.lock(), Err(VaultError::InUse)));
        close(open);
        vault.lock().unwrap();
    }

    #[test]
    fn a_wrong_password_and_damage_are_different_errors() {
        let (_folder, vault) = vault();
        close(vault.create(b"right", CHEAP).unwrap());
        let error = vault.unlock(&password(b"wrong")).unwrap_err();
        assert!(matches!(error, VaultError::Header(HeaderError::WrongFactor(_))) && !error.is_damage());
        let database = std::fs::read(vault.database()).unwrap();
        std::fs::write(vault.database(), vec![0x11; database.len()]).unwrap();
        let error = vault.unlock(&password(b"right")).unwrap_err();
        assert!(matches!(error, VaultError::Store(StoreError::Damaged(Damage::NotThisVault))));
        assert!(error.is_damage());
        std::fs::remove_file(vault.header_path()).unwrap();
        let error = vault.unlock(&password(b"right")).unwrap_err();
        assert!(matches!(error, VaultError::Header(HeaderError::Missing)) && error.is_damage());
    }

    #[test]
    fn a_changed_password_replaces_the_header_and_nothing_else() {
        let (_folder, vault) = vault();
        close(vault.create(b"old", CHEAP).unwrap());
        let database = std::fs::read(vault.database()).unwrap();
        let lock = vault.lock().unwrap();
        let wrong = change_password(&vault, &lock, b"wrong", b"new");
        assert!(matches!(wrong, Err(VaultError::Header(HeaderError::WrongFactor(_)))));
        change_password(&vault, &lock, b"old", b"new").unwrap();
        drop(lock);
        assert_eq!(std::fs::read(vault.database()).unwrap(), database);
        assert!(matches!(
            vault.unlock(&password(b"old")),
            Err(VaultError::Header(HeaderError::WrongFactor(_)))
        ));
        close(vault.unlock(&password(b"new")).unwrap());
        assert_eq!(names_in(&vault.folder), [HEADER, LOCK, DATABASE]);
    }

    #[test]
    fn a_cost_is_raised_by_a_right_password_and_a_header_that_stays_is_no_loss() {
        let (_folder, vault) = vault();
        close(vault.create(b"right", CHEAP).unwrap());
        let dearer = Argon2Params { passes: 3, ..CHEAP };
        let open = vault.unlock(&password(b"right")).unwrap();
        assert!(vault.raise_cost(&open, &password(b"right"), dearer).unwrap());
        assert!(!vault.raise_cost(&open, &password(b"right"), dearer).unwrap());
        close(open);
        let open = vault.unlock(&password(b"right")).unwrap();
        let before = std::fs::read(vault.header_path()).unwrap();
        // Nothing can be written where the header's name is taken by a folder.
        std::fs::remove_file(vault.header_path()).unwrap();
        std::fs::create_dir(vault.header_path()).unwrap();
        assert!(vault.raise_cost(&open, &password(b"right"), Argon2Params { passes: 4, ..CHEAP }).is_err());
        std::fs::remove_dir(vault.header_path()).unwrap();
        std::fs::write(vault.header_path(), before).unwrap();
        close(open);
        close(vault.unlock(&password(b"right")).unwrap());
    }

    #[test]
    fn one_profiles_vault_in_anothers_place_is_found() {
        let (folder, vault) = vault();
        close(vault.create(b"right", CHEAP).unwrap());
        let elsewhere = folder.path().join("vaults/home");
        std::fs::rename(&vault.folder, &elsewhere).unwrap();
        let other = VaultFolder::new(elsewhere, vault.anchor.clone(), ProfileName::parse("home").unwrap());
        let error = other.unlock(&password(b"right")).unwrap_err();
        assert!(matches!(error, VaultError::Header(HeaderError::OtherProfile { .. })) && error.is_damage());
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, vault) = vault();
        close(vault.create(b"right", CHEAP).unwrap());
        std::fs::set_permissions(&vault.folder, std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(vault.unlock(&password(b"right")), Err(VaultError::Files(_))));
    }
}
