//! A backup: header and database of a vault in one file, authenticated as a whole with a key that follows from the
//! master key. It holds nothing in clear, and opens with the factors that the vault had. `docs/backup-format.md` has
//! the format.
//!
//! Nothing of a file is believed before it is checked: lengths against the file and their limits before anything is
//! read, the header before a factor is tried, and everything, down to each value, before a vault is replaced.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use core_crypto::keyed_hash::{HASH_BYTES, KeyedHash};
use core_crypto::private_fs::{self, PrivateFsError};
use core_crypto::{SecureBytes, key_schedule};
use core_types::ProfileName;

use crate::freshness::Rollback;
use crate::header::{self, HeaderError, Proof, VaultHeader};
use crate::sqlcipher::SqlCipherStore;
use crate::store::StoreError;
use crate::vault::{OpenVault, VaultError, VaultFolder, VaultLock};

/// What every backup begins with; the last digits are the version of the format.
const MAGIC: [u8; 16] = *b"pds backup   001";
/// How much of [`MAGIC`] says that it is a backup at all.
const MAGIC_NAME: usize = 13;
/// Bytes before the header: the magic and two lengths.
const PREAMBLE_BYTES: usize = MAGIC.len() + 4 + 8;
/// Largest database of a backup: far more than 100,000 of the largest values ever take.
const DATABASE_BYTES_MAX: u64 = 256 << 30;
/// Bytes that are read and written at once.
const PIECE_BYTES: usize = 64 << 10;

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file that is none, or not one that can be used here.
    #[error("it is not an ordinary file")]
    NotAFile,
    /// Something else than a backup.
    #[error("it is not a backup made by pds")]
    NotABackup,
    /// A backup of a format that this version does not know.
    #[error("it was made by another version of pds, in a format that this one does not read")]
    Format,
    /// A file that was cut, or that has grown.
    #[error("it has {found} bytes and should have {expected}")]
    Length {
        /// Its bytes.
        found: u64,
        /// The bytes that it says it has.
        expected: u64,
    },
    /// A length in it is more than any backup has.
    #[error("a length in it is out of its limits")]
    Limits,
    /// Not the bytes that were written.
    #[error("it is not as it was written")]
    Changed,
    /// A vault that was not whole when the backup was made.
    #[error("{0}")]
    Parts(Rollback),
    /// Its header, or a factor.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The database in it, or the one that it is made of.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or folder beside it.
    #[error(transparent)]
    Files(#[from] PrivateFsError),
    /// The file itself could not be read or written.
    #[error("it cannot be {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::Io { what, source }
}

impl BackupError {
    /// Whether the fault is the backup's, as opposed to a wrong factor or a failing machine.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::NotAFile | Self::NotABackup | Self::Format | Self::Length { .. } | Self::Limits => true,
            Self::Changed | Self::Parts(_) => true,
            Self::Header(error) => error.is_damage(),
            Self::Store(StoreError::Damaged(_) | StoreError::WrongKey) => true,
            Self::Store(_) | Self::Files(_) | Self::Io { .. } => false,
        }
    }

    /// Whether a disk, or the quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Header(HeaderError::Files(error)) | Self::Files(error) => error.is_full(),
            Self::Store(error) => error.is_full(),
            _ => false,
        }
    }
}

/// The beginning of a backup, up to and with its header; the file stands at its database.
#[derive(Debug)]
pub struct Beginning {
    bytes: Vec<u8>,
    database_bytes: u64,
    header: VaultHeader,
}

impl Beginning {
    /// Reads and checks as much of a backup as needs no factor.
    ///
    /// # Errors
    /// It is no backup, was cut, or its header is damaged.
    pub fn read(file: &mut File) -> Result<Self, BackupError> {
        let metadata = file.metadata().map_err(failed("examined"))?;
        if !metadata.is_file() {
            return Err(BackupError::NotAFile);
        }
        // The place in the file is the other side's too.
        file.rewind().map_err(failed("read"))?;
        let found = metadata.len();
        let mut bytes = vec![0; PREAMBLE_BYTES];
        read_exactly(file, &mut bytes).map_err(|error| match error {
            BackupError::Changed => BackupError::NotABackup,
            other => other,
        })?;
        let (header_bytes, database_bytes) = lengths(&bytes)?;
        let whole = (PREAMBLE_BYTES + header_bytes + HASH_BYTES) as u64 + database_bytes;
        if found != whole {
            return Err(BackupError::Length { found, expected: whole });
        }
        bytes.resize(PREAMBLE_BYTES + header_bytes, 0);
        read_exactly(file, &mut bytes[PREAMBLE_BYTES..])?;
        let header = VaultHeader::parse_any(&bytes[PREAMBLE_BYTES..])?;
        Ok(Self { bytes, database_bytes, header })
    }

    /// The header of the vault that was backed up.
    #[must_use]
    pub fn header(&self) -> &VaultHeader {
        &self.header
    }

    /// The profile of the vault that was backed up. A vault keeps its name: it is a part of all its keys.
    #[must_use]
    pub fn profile(&self) -> &ProfileName {
        self.header.profile()
    }

    /// Bytes of the database in it.
    #[must_use]
    pub fn database_bytes(&self) -> u64 {
        self.database_bytes
    }

    /// The master key in it, unwrapped by as many factors as its policy needs. Blocks for as long as Argon2 takes for
    /// each password.
    ///
    /// # Errors
    /// A factor is wrong, or the header is damaged.
    pub fn unlock(&self, proofs: &[Proof]) -> Result<SecureBytes, VaultError> {
        self.header.unlock(proofs).map_err(|error| match error {
            damage if damage.is_damage() => VaultError::Backup(BackupError::Header(damage)),
            other => VaultError::Header(other),
        })
    }

    /// Copies the rest of the backup: the header to one new file, the database to another. What lies there afterwards
    /// is what was written when the backup was made.
    ///
    /// # Errors
    /// It is not, or a file cannot be made.
    pub(crate) fn unpack(
        self,
        file: &mut File,
        master: &SecureBytes,
        header_path: &Path,
        database_path: &Path,
    ) -> Result<(), BackupError> {
        let mut hash = hash(master, self.profile())?;
        hash.update(&self.bytes);
        let mut database = private_fs::create_new(database_path)?;
        let mut left = self.database_bytes;
        let mut piece = vec![0; PIECE_BYTES];
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            read_exactly(file, &mut piece[..length])?;
            hash.update(&piece[..length]);
            database.write_all(&piece[..length]).map_err(failed("unpacked"))?;
            left -= length as u64;
        }
        let mut written = [0; HASH_BYTES];
        read_exactly(file, &mut written)?;
        if !hash.matches(&written) {
            return Err(BackupError::Changed);
        }
        database.sync_all().map_err(failed("unpacked"))?;
        Ok(private_fs::write_atomic(header_path, &self.bytes[PREAMBLE_BYTES..])?)
    }
}

/// Writes a backup of a header and a database that nobody changes meanwhile, and makes it durable; its length.
///
/// # Errors
/// What was written is no backup.
pub(crate) fn pack(
    file: &mut File,
    master: &SecureBytes,
    header: &VaultHeader,
    database_path: &Path,
) -> Result<u64, BackupError> {
    let header_bytes = header.to_bytes()?;
    let mut database = File::open(database_path).map_err(failed("made of the database"))?;
    let database_bytes = database.metadata().map_err(failed("made of the database"))?.len();
    let mut hash = hash(master, header.profile())?;
    let mut bytes = 0;
    let mut write = |piece: &[u8], hash: Option<&mut KeyedHash>| {
        if let Some(hash) = hash {
            hash.update(piece);
        }
        bytes += piece.len() as u64;
        file.write_all(piece).map_err(failed("written"))
    };
    let header_length = u32::try_from(header_bytes.len()).map_err(|_| BackupError::Limits)?;
    write(&MAGIC, Some(&mut hash))?;
    write(&header_length.to_be_bytes(), Some(&mut hash))?;
    write(&database_bytes.to_be_bytes(), Some(&mut hash))?;
    write(&header_bytes, Some(&mut hash))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = database_bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        database.read_exact(&mut piece[..length]).map_err(failed("made of the database"))?;
        write(&piece[..length], Some(&mut hash))?;
        left -= length as u64;
    }
    write(&hash.finish(), None)?;
    file.sync_all().map_err(failed("written"))?;
    Ok(bytes)
}

fn hash(master: &SecureBytes, profile: &ProfileName) -> Result<KeyedHash, BackupError> {
    let key = key_schedule::backup_key(master, profile.as_str());
    KeyedHash::new(&key).map_err(|_| BackupError::Store(StoreError::WrongKey))
}

/// The lengths of header and database, where they are within their limits.
fn lengths(preamble: &[u8]) -> Result<(usize, u64), BackupError> {
    let (magic, lengths) = preamble.split_at(MAGIC.len());
    if magic[..MAGIC_NAME] != MAGIC[..MAGIC_NAME] {
        return Err(BackupError::NotABackup);
    }
    if magic != MAGIC {
        return Err(BackupError::Format);
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let (header, database) = (number(&lengths[..4]), number(&lengths[4..]));
    match usize::try_from(header) {
        Ok(header) if header <= header::BYTES_MAX && database <= DATABASE_BYTES_MAX => Ok((header, database)),
        _ => Err(BackupError::Limits),
    }
}

fn read_exactly(file: &mut File, bytes: &mut [u8]) -> Result<(), BackupError> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        // It was longer when its length was asked for.
        io::ErrorKind::UnexpectedEof => BackupError::Changed,
        _ => failed("read")(error),
    })
}

/// A vault from a backup, unpacked beside its place and checked to the last value.
#[derive(Debug)]
pub struct Unpacked {
    building: VaultFolder,
    lock: VaultLock,
    master_key: SecureBytes,
}

impl VaultFolder {
    /// Writes a backup of the vault as it is at one moment into an empty file, while others read and write the vault,
    /// and makes it durable; its length. Nobody may change the header meanwhile. Needs as much room beside the database
    /// as it has itself. Blocks.
    ///
    /// # Errors
    /// What was written is no backup.
    pub fn backup(
        &self,
        _held: &VaultLock,
        master_key: &SecureBytes,
        file: &mut File,
    ) -> Result<u64, BackupError> {
        let metadata = file.metadata().map_err(failed("examined"))?;
        if !metadata.is_file() || metadata.len() != 0 {
            return Err(BackupError::NotAFile);
        }
        let header = VaultHeader::load(&self.header_path(), self.profile())?;
        let vault_key = key_schedule::vault_key(master_key, self.profile().as_str());
        let copy = self.copy_path();
        private_fs::remove_if_present(&copy)?;
        drop(private_fs::create_new(&copy)?);
        let written = SqlCipherStore::copy(&self.database(), &vault_key, &copy)
            .map_err(BackupError::from)
            .and_then(|()| pack(file, master_key, &header, &copy));
        private_fs::remove_if_present(&copy)?;
        written
    }

    /// Unpacks a backup beside the vault's place, and checks everything in it. The vault itself is as it was. Takes as
    /// long as it takes to read every value. Blocks.
    ///
    /// # Errors
    /// The backup is not as it was written, or it cannot be unpacked.
    pub fn unpack(
        &self,
        beginning: Beginning,
        file: &mut File,
        master_key: SecureBytes,
    ) -> Result<Unpacked, VaultError> {
        if beginning.profile() != self.profile() {
            let found = beginning.profile().clone();
            return Err(BackupError::Header(HeaderError::OtherProfile { found }).into());
        }
        let (building, lock) = self.begin_building()?;
        let unpacked = Unpacked { building, lock, master_key };
        match unpacked.fill(beginning, file) {
            Ok(()) => Ok(unpacked),
            Err(error) => {
                unpacked.discard();
                Err(error.into())
            }
        }
    }

    /// Puts an unpacked vault in its place, in one step: after a kill at any moment either the vault that was there is
    /// there, or this one. Opens it, and removes the one that was there. What the anchor knows is another state of the
    /// vault, mostly: then it can only be read until that is accepted. Blocks.
    ///
    /// # Errors
    /// A vault is there and none was to be replaced, or it is in use, or the exchange failed: then it is as it was.
    pub fn put_in_place(&self, unpacked: Unpacked, replace: bool) -> Result<OpenVault, VaultError> {
        let held = match self.lock() {
            Ok(_) if !replace => Err(VaultError::Exists),
            Ok(lock) => Ok(Some(lock)),
            Err(VaultError::Missing) => Ok(None),
            Err(error) => Err(error),
        };
        let building = unpacked.building.clone();
        let moved = held.and_then(|held| self.exchange(&building, held));
        match moved {
            // The disk failed, perhaps after the exchange: then what lies there is the old vault, and which of the two
            // a power cut would leave in place is not known. The next start of the daemon clears up.
            Err(VaultError::Files(_)) => {}
            _ => building.remove(),
        }
        moved?;
        self.open(unpacked.lock, &self.header()?, unpacked.master_key, 0)
    }

    fn exchange(&self, building: &Self, held: Option<VaultLock>) -> Result<(), VaultError> {
        match held {
            Some(_until_exchanged) => Ok(private_fs::exchange_dirs(building.path(), self.path())?),
            None if private_fs::rename_dir_new(building.path(), self.path())? => Ok(()),
            None => Err(VaultError::Exists),
        }
    }
}

impl Unpacked {
    fn fill(&self, beginning: Beginning, file: &mut File) -> Result<(), BackupError> {
        let Self { building, master_key, .. } = self;
        let (header_path, database) = (building.header_path(), building.database());
        beginning.unpack(file, master_key, &header_path, &database)?;
        let vault_key = key_schedule::vault_key(master_key, building.profile().as_str());
        let store = SqlCipherStore::open(&database, building.profile(), &vault_key)?;
        let checked = store.check_all().and_then(|()| store.verify());
        store.close()?;
        match checked?.1 {
            None => Ok(()),
            Some(found) => Err(BackupError::Parts(found)),
        }
    }

    /// Removes what was unpacked.
    pub fn discard(self) {
        self.building.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Damage, SecretsStore};
    use core_crypto::kdf::Argon2Params;
    use core_types::SecretName;
    use std::io::SeekFrom;

    const CHEAP: Argon2Params = Argon2Params::FLOOR;

    struct World {
        folder: tempfile::TempDir,
        vault: VaultFolder,
    }

    fn secret(name: &str) -> SecretName {
        SecretName::parse(name).unwrap()
    }

    fn password(password: &[u8]) -> [Proof; 1] {
        [Proof { factor: 1, secret: SecureBytes::copy_of(password) }]
    }

    impl World {
        /// With a vault that has one secret and the password `right`.
        async fn new() -> (Self, OpenVault) {
            let folder = tempfile::tempdir().unwrap();
            let vault = Self::place(folder.path(), "work");
            let open = vault.create(b"right", CHEAP).unwrap();
            open.store.set(&secret("a"), SecureBytes::copy_of(b"old")).await.unwrap();
            (Self { folder, vault }, open)
        }

        fn place(root: &Path, profile: &str) -> VaultFolder {
            let anchor = root.join("anchors").join(profile);
            VaultFolder::new(root.join("vaults").join(profile), anchor, ProfileName::parse(profile).unwrap())
        }

        fn backup(&self, open: &OpenVault) -> Vec<u8> {
            let mut file = tempfile::tempfile().unwrap();
            let length = self.vault.backup(&open.lock, &open.master_key, &mut file).unwrap();
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, length);
            bytes
        }

        fn names(&self) -> Vec<String> {
            let entries = self.folder.path().join("vaults").read_dir().unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn header_length(backup: &[u8]) -> usize {
        lengths(&backup[..PREAMBLE_BYTES]).unwrap().0
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    /// As the one who restored it takes it for the right one.
    async fn accepted(open: OpenVault, vault: &VaultFolder) -> OpenVault {
        assert!(open.store.rollback().is_some(), "it is not what the anchor knows");
        let mark = vault.header().unwrap().mark().unwrap();
        assert!(open.store.accept_rollback(mark, 0).await.unwrap());
        open
    }

    fn unpack(vault: &VaultFolder, bytes: &[u8], with: &[u8]) -> Result<Unpacked, VaultError> {
        let mut file = file_of(bytes);
        let beginning = Beginning::read(&mut file)?;
        let master_key = beginning.unlock(&password(with))?;
        vault.unpack(beginning, &mut file, master_key)
    }

    #[tokio::test]
    async fn a_backup_becomes_a_vault_elsewhere_with_the_same_password() {
        let (world, open) = World::new().await;
        let bytes = world.backup(&open);
        for plain in [&b"old"[..], b"SQLite format 3", b"right"] {
            assert!(!bytes.windows(plain.len()).any(|window| window == plain));
        }
        let other = tempfile::tempdir().unwrap();
        let vault = World::place(other.path(), "work");
        let wrong = unpack(&vault, &bytes, b"wrong");
        assert!(matches!(wrong, Err(VaultError::Header(HeaderError::WrongFactor(_)))));
        let unpacked = unpack(&vault, &bytes, b"right").unwrap();
        let restored = accepted(vault.put_in_place(unpacked, false).unwrap(), &vault).await;
        assert_eq!(restored.store.get(&secret("a")).await.unwrap().expose(), b"old");
        restored.store.set(&secret("b"), SecureBytes::copy_of(b"more")).await.unwrap();
        restored.store.close().unwrap();
        drop(restored);
        let again = vault.unlock(&password(b"right")).unwrap();
        assert_eq!(again.store.get(&secret("b")).await.unwrap().expose(), b"more");
    }

    #[tokio::test]
    async fn a_restored_vault_takes_the_place_of_the_one_that_was_there() {
        let (world, open) = World::new().await;
        let bytes = world.backup(&open);
        open.store.set(&secret("a"), SecureBytes::copy_of(b"new")).await.unwrap();
        let unpacked = unpack(&world.vault, &bytes, b"right").unwrap();
        assert_eq!(open.store.get(&secret("a")).await.unwrap().expose(), b"new", "nothing has changed yet");
        let refused = world.vault.put_in_place(unpacked, false);
        assert!(matches!(refused, Err(VaultError::InUse)));
        assert_eq!(world.names(), ["work"]);
        let unpacked = unpack(&world.vault, &bytes, b"right").unwrap();
        let in_use = world.vault.put_in_place(unpacked, true);
        assert!(matches!(in_use, Err(VaultError::InUse)));
        let unpacked = unpack(&world.vault, &bytes, b"right").unwrap();
        open.store.close().unwrap();
        drop(open);
        let restored = accepted(world.vault.put_in_place(unpacked, true).unwrap(), &world.vault).await;
        assert_eq!(restored.store.get(&secret("a")).await.unwrap().expose(), b"old");
        assert_eq!(world.names(), ["work"]);
        assert!(matches!(world.vault.lock(), Err(VaultError::InUse)), "it is locked by whoever has it open");
    }

    #[tokio::test]
    async fn a_backup_that_was_changed_or_cut_is_refused_and_nothing_else_changes() {
        let (world, open) = World::new().await;
        let good = world.backup(&open);
        let damaged = |bytes: &[u8], what: &str| {
            let error = unpack(&world.vault, bytes, b"right").unwrap_err();
            assert!(error.is_damage(), "{what}: {error}");
            assert_eq!(world.names(), ["work"], "{what}");
        };
        // All of the preamble, and then a bit here and there: each try below the header costs one Argon2.
        for place in (0..PREAMBLE_BYTES).chain((PREAMBLE_BYTES..good.len()).step_by(331)) {
            let mut bytes = good.clone();
            bytes[place] ^= 1 << (place % 8);
            damaged(&bytes, &format!("byte {place}"));
        }
        for place in good.len() - HASH_BYTES..good.len() {
            let mut bytes = good.clone();
            bytes[place] ^= 0x80;
            damaged(&bytes, &format!("byte {place}"));
        }
        for length in (0..good.len()).step_by(97).chain([good.len() - 1]) {
            damaged(&good[..length], &format!("{length} bytes"));
        }
        damaged(&[&good[..], b"x"].concat(), "a byte more");
        assert_eq!(open.store.get(&secret("a")).await.unwrap().expose(), b"old");
    }

    #[tokio::test]
    async fn lengths_that_lie_are_refused_before_anything_is_allocated() {
        let (world, open) = World::new().await;
        let good = world.backup(&open);
        let with = |place: usize, bytes: &[u8]| {
            let mut changed = good.clone();
            changed[place..place + bytes.len()].copy_from_slice(bytes);
            Beginning::read(&mut file_of(&changed)).unwrap_err()
        };
        assert!(matches!(with(16, &[0xff; 4]), BackupError::Limits));
        assert!(matches!(with(20, &[0xff; 8]), BackupError::Limits));
        assert!(matches!(with(20, &[0; 8]), BackupError::Length { .. }));
        assert!(matches!(with(13, b"002"), BackupError::Format));
        assert!(matches!(with(0, b"x"), BackupError::NotABackup));
        assert!(matches!(Beginning::read(&mut file_of(b"")), Err(BackupError::NotABackup)));
        for path in ["/dev/zero", "/dev/null", "/"] {
            let refused = Beginning::read(&mut File::open(path).unwrap());
            assert!(matches!(refused, Err(BackupError::NotAFile)), "{path}");
        }
    }

    #[tokio::test]
    async fn another_profiles_backup_and_a_header_of_another_backup_are_refused() {
        let (world, open) = World::new().await;
        let bytes = world.backup(&open);
        let home = World::place(world.folder.path(), "home");
        let error = unpack(&home, &bytes, b"right").unwrap_err();
        assert!(matches!(error, VaultError::Backup(BackupError::Header(HeaderError::OtherProfile { .. }))));
        // The same password, the same profile, but another master key.
        let (other, other_open) = World::new().await;
        let foreign = other.backup(&other_open);
        let (mine, theirs) = (header_length(&bytes), header_length(&foreign));
        assert_eq!(mine, theirs);
        let end = PREAMBLE_BYTES + mine;
        let mixed = [&bytes[..PREAMBLE_BYTES], &foreign[PREAMBLE_BYTES..end], &bytes[end..]].concat();
        let error = unpack(&world.vault, &mixed, b"right").unwrap_err();
        assert!(matches!(error, VaultError::Backup(BackupError::Changed)));
    }

    #[tokio::test]
    async fn a_backup_of_a_vault_with_a_damaged_value_is_not_restored() {
        let (world, open) = World::new().await;
        open.store.set(&secret("b"), SecureBytes::copy_of(b"two")).await.unwrap();
        open.store.exchange_values("a", "b");
        let bytes = world.backup(&open);
        let error = unpack(&world.vault, &bytes, b"right").unwrap_err();
        assert!(matches!(
            error,
            VaultError::Backup(BackupError::Store(StoreError::Damaged(Damage::Value(_))))
        ));
    }

    #[tokio::test]
    async fn only_an_empty_file_is_written_to() {
        let (world, open) = World::new().await;
        let mut file = file_of(b"something");
        let refused = world.vault.backup(&open.lock, &open.master_key, &mut file);
        assert!(matches!(refused, Err(BackupError::NotAFile)));
        let mut device = File::options().write(true).open("/dev/null").unwrap();
        let refused = world.vault.backup(&open.lock, &open.master_key, &mut device);
        assert!(matches!(refused, Err(BackupError::NotAFile)));
    }

    #[tokio::test]
    async fn a_disk_that_is_full_is_told_and_leaves_no_copy_behind() {
        let (world, open) = World::new().await;
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = pack(
            &mut full,
            &open.master_key,
            &VaultHeader::load(&world.vault.header_path(), world.vault.profile()).unwrap(),
            &world.vault.database(),
        )
        .unwrap_err();
        assert!(error.is_full() && !error.is_damage(), "{error}");
        world.backup(&open);
        assert!(!world.vault.copy_path().exists());
    }
}
