//! The anchor of a vault: a small file outside the vault's folder that says which state of it was written last, so that
//! an older copy of the folder, put back, is noticed.
//!
//! It is sealed with a key that follows from the master key, so nobody else can write one. Two slots are written in
//! turn, so a write that is torn harms only the slot that nobody needs. It is written after each change and before that
//! is acknowledged, without waiting for the disk: a killed process loses nothing of it, and after a power cut the
//! database may be newer than it, never older.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use core_crypto::private_fs::{self, PrivateFsError};
use core_crypto::{SecureBytes, aead, key_schedule};
use core_types::ProfileName;
use rustix::fs::FlockOperation;

use crate::freshness::{Anchored, Mark, Reading};

/// A serial number and two marks.
const BODY_BYTES: usize = 8 + 2 * MARK_BYTES;
const MARK_BYTES: usize = 8 + 32;
const SEALED_BYTES: usize = aead::NONCE_BYTES + BODY_BYTES + aead::TAG_BYTES;
/// The slots begin in different pages and blocks, so that a torn write of one never touches the other.
const SLOT_OFFSETS: [usize; 2] = [0, 4096];
const FILE_BYTES: usize = SLOT_OFFSETS[1] + SEALED_BYTES;

/// Why the anchor could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The file or its folder is not one that only its owner can change.
    #[error(transparent)]
    Files(#[from] PrivateFsError),
    /// The system failed.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing could be sealed.
    #[error("cannot encrypt: {0}")]
    Encrypt(#[from] aead::AeadError),
}

/// The anchor of one vault. Its methods block, briefly.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    profile: ProfileName,
    key: SecureBytes,
    /// What is written where nothing can be read any more.
    last: Anchored,
    /// The file as [`Self::update`] left it, so that the next one need not open it again.
    left: Option<Left>,
}

/// The open file, and what stood in it.
#[derive(Debug)]
struct Left {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    bytes: Vec<u8>,
    newest: Option<Slot>,
}

/// What a slot holds that this key opens.
#[derive(Debug, Clone, Copy)]
struct Slot {
    index: usize,
    /// Raised by each write; the highest counts.
    serial: u64,
    anchored: Anchored,
}

impl Anchor {
    /// The anchor at `path` for the vault of `profile` with this master key; nothing is read or made yet.
    #[must_use]
    pub fn new(path: PathBuf, profile: &ProfileName, master: &SecureBytes) -> Self {
        Self::with_key(path, profile, key_schedule::anchor_key(master, profile.as_str()))
    }

    /// As [`Self::new`], with the anchor key itself.
    #[must_use]
    pub(crate) fn with_key(path: PathBuf, profile: &ProfileName, key: SecureBytes) -> Self {
        Self { path, profile: profile.clone(), key, last: Anchored::default(), left: None }
    }

    /// What is there.
    ///
    /// # Errors
    /// The file is there and cannot be used.
    pub fn read(&self) -> Result<Reading, AnchorError> {
        if !self.exists() {
            return Ok(Reading::Missing);
        }
        let file = private_fs::open_or_create(&self.path)?;
        Ok(self
            .newest(&self.bytes_of(&file)?)
            .map_or(Reading::Unreadable, |slot| Reading::Read(slot.anchored)))
    }

    /// Replaces what is there by what `change` makes of it. Where nothing is, or nothing that can be read, it is made
    /// of what was written here last.
    ///
    /// # Errors
    /// The old one still stands.
    pub fn update(&mut self, change: impl FnOnce(&mut Anchored)) -> Result<(), AnchorError> {
        let mut left = match self.left.take() {
            Some(left) if self.is_still(left.identity) => left,
            _ => self.begin()?,
        };
        // Whoever changes the header has a handle of its own.
        self.lock(&left.file, FlockOperation::LockExclusive)?;
        let bytes = self.bytes_of(&left.file)?;
        if bytes != left.bytes {
            left.newest = self.newest(&bytes);
            left.bytes = bytes;
        }
        let mut anchored = left.newest.map_or(self.last, |slot| slot.anchored);
        change(&mut anchored);
        let serial = left.newest.map_or(0, |slot| slot.serial).saturating_add(1);
        let index = left.newest.map_or(0, |slot| 1 - slot.index);
        let sealed = self.write(&left.file, index, serial, &anchored)?;
        self.last = anchored;
        let place = SLOT_OFFSETS[index];
        left.bytes.resize(left.bytes.len().max(place + SEALED_BYTES), 0);
        left.bytes[place..place + SEALED_BYTES].copy_from_slice(&sealed);
        left.newest = Some(Slot { index, serial, anchored });
        self.lock(&left.file, FlockOperation::Unlock)?;
        self.left = Some(left);
        Ok(())
    }

    /// Opens the file for [`Self::update`].
    fn begin(&self) -> Result<Left, AnchorError> {
        let file = self.open()?;
        let metadata = file.metadata().map_err(|error| self.failed("look at", error))?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Left { file, identity, bytes: Vec::new(), newest: None })
    }

    /// Whether the file that was opened is the one that stands in its place.
    fn is_still(&self, identity: (u64, u64)) -> bool {
        let found = self.path.symlink_metadata();
        found.is_ok_and(|found| found.is_file() && (found.dev(), found.ino()) == identity)
    }

    /// Writes the slot that [`Self::update`] would not read, for a master key that is about to replace this one: until
    /// that has happened the old slot counts, and from then on the new one.
    ///
    /// # Errors
    /// The anchor is as it was, or has lost the older of its slots.
    pub fn announce(&self, master: &SecureBytes, anchored: &Anchored) -> Result<(), AnchorError> {
        let file = self.open()?;
        self.lock(&file, FlockOperation::LockExclusive)?;
        let index = self.newest(&self.bytes_of(&file)?).map_or(0, |slot| 1 - slot.index);
        let other = Self::new(self.path.clone(), &self.profile, master);
        other.write(&file, index, 1, anchored)?;
        file.sync_all().map_err(|error| self.failed("write out", error))
    }

    /// Makes the anchor durable.
    ///
    /// # Errors
    /// It may not outlast a power cut.
    pub fn sync(&self) -> Result<(), AnchorError> {
        if self.exists() {
            let file = private_fs::open_or_create(&self.path)?;
            file.sync_all().map_err(|error| self.failed("write out", error))?;
        }
        Ok(())
    }

    fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Opens the file, making it and its folder where they are missing.
    fn open(&self) -> Result<File, AnchorError> {
        if self.exists() {
            return Ok(private_fs::open_or_create(&self.path)?);
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        private_fs::ensure_private_dir(folder)?;
        let file = private_fs::open_or_create(&self.path)?;
        private_fs::sync_dir(folder)?;
        Ok(file)
    }

    fn lock(&self, file: &File, operation: FlockOperation) -> Result<(), AnchorError> {
        rustix::fs::flock(file, operation).map_err(|error| self.failed("lock", error.into()))
    }

    /// Everything of the file that a slot can stand in.
    fn bytes_of(&self, file: &File) -> Result<Vec<u8>, AnchorError> {
        let mut bytes = vec![0; FILE_BYTES];
        let mut length = 0;
        while length < FILE_BYTES {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", error)),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// The slot of the file's bytes that was written last with this key.
    fn newest(&self, bytes: &[u8]) -> Option<Slot> {
        let slots = SLOT_OFFSETS.into_iter().enumerate().filter_map(|(index, offset)| {
            let sealed = bytes.get(offset..offset + SEALED_BYTES)?;
            let body = aead::open(&self.key, &self.place(), sealed).ok()?;
            let (serial, anchored) = decode(body.expose())?;
            Some(Slot { index, serial, anchored })
        });
        // Of two with one number the first counts.
        slots.rev().max_by_key(|slot| slot.serial)
    }

    /// Writes a slot; its bytes.
    fn write(
        &self,
        file: &File,
        index: usize,
        serial: u64,
        anchored: &Anchored,
    ) -> Result<Vec<u8>, AnchorError> {
        let sealed = aead::seal(&self.key, &self.place(), &encode(serial, anchored))?;
        file.write_all_at(&sealed, SLOT_OFFSETS[index] as u64)
            .map_err(|error| self.failed("write", error))?;
        Ok(sealed)
    }

    fn place(&self) -> Vec<u8> {
        format!("pds v2 anchor\0{}", self.profile).into_bytes()
    }

    fn failed(&self, action: &'static str, source: io::Error) -> AnchorError {
        AnchorError::Io { action, path: self.path.clone(), source }
    }
}

fn encode(serial: u64, anchored: &Anchored) -> [u8; BODY_BYTES] {
    let mut body = [0; BODY_BYTES];
    let (first, marks) = body.split_at_mut(8);
    first.copy_from_slice(&serial.to_be_bytes());
    for (bytes, mark) in marks.chunks_exact_mut(MARK_BYTES).zip([&anchored.database, &anchored.header]) {
        bytes[..8].copy_from_slice(&mark.generation.to_be_bytes());
        bytes[8..].copy_from_slice(&mark.digest);
    }
    body
}

fn decode(body: &[u8]) -> Option<(u64, Anchored)> {
    let (serial, marks) = body.split_first_chunk()?;
    let (database, header) = marks.split_first_chunk::<MARK_BYTES>()?;
    let anchored = Anchored { database: mark(database)?, header: mark(header.first_chunk()?)? };
    Some((u64::from_be_bytes(*serial), anchored))
}

fn mark(bytes: &[u8; MARK_BYTES]) -> Option<Mark> {
    let (generation, digest) = bytes.split_first_chunk()?;
    Some(Mark { generation: u64::from_be_bytes(*generation), digest: digest.try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> SecureBytes {
        SecureBytes::copy_of(&[byte; 32])
    }

    fn profile(name: &str) -> ProfileName {
        ProfileName::parse(name).unwrap()
    }

    fn anchor(folder: &tempfile::TempDir) -> Anchor {
        Anchor::new(folder.path().join("anchors/work"), &profile("work"), &master(1))
    }

    fn at(generation: u64) -> Anchored {
        let database = Mark { generation, digest: [u8::try_from(generation).unwrap(); 32] };
        Anchored { database, header: Mark { generation: 7, digest: [9; 32] } }
    }

    fn write(anchor: &mut Anchor, generation: u64) {
        anchor.update(|anchored| *anchored = at(generation)).unwrap();
    }

    #[test]
    fn what_was_written_last_is_read_by_its_own_vault_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut anchor = anchor(&folder);
        assert_eq!(anchor.read().unwrap(), Reading::Missing);
        for generation in 1..=5 {
            write(&mut anchor, generation);
            assert_eq!(anchor.read().unwrap(), Reading::Read(at(generation)));
        }
        let path = anchor.path.clone();
        for (name, key) in [("work", 2), ("home", 1)] {
            let other = Anchor::new(path.clone(), &profile(name), &master(key));
            assert_eq!(other.read().unwrap(), Reading::Unreadable, "{name} {key}");
        }
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_torn_write_leaves_the_state_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut anchor = anchor(&folder);
        for generation in 1..=4 {
            write(&mut anchor, generation);
            let before = std::fs::read(&anchor.path).unwrap();
            write(&mut anchor, generation + 1);
            let after = std::fs::read(&anchor.path).unwrap();
            for torn_at in (0..SEALED_BYTES).step_by(7) {
                // Of the bytes that differ only the first few arrived.
                let mut torn = before.clone();
                torn.resize(after.len(), 0);
                for start in SLOT_OFFSETS {
                    let end = (start + torn_at).min(after.len());
                    let start = start.min(end);
                    torn[start..end].copy_from_slice(&after[start..end]);
                }
                std::fs::write(&anchor.path, &torn).unwrap();
                assert_eq!(anchor.read().unwrap(), Reading::Read(at(generation)), "torn at {torn_at}");
            }
            std::fs::write(&anchor.path, &after).unwrap();
        }
    }

    #[test]
    fn every_flipped_byte_costs_at_most_the_newest_state() {
        let folder = tempfile::tempdir().unwrap();
        let mut anchor = anchor(&folder);
        write(&mut anchor, 1);
        write(&mut anchor, 2);
        let good = std::fs::read(&anchor.path).unwrap();
        for position in (0..SEALED_BYTES).chain(4096..good.len()) {
            let mut bytes = good.clone();
            bytes[position] ^= 0x10;
            std::fs::write(&anchor.path, &bytes).unwrap();
            let expected = if position < 4096 { at(2) } else { at(1) };
            assert_eq!(anchor.read().unwrap(), Reading::Read(expected), "byte {position}");
        }
        for cut in [0, 1, SEALED_BYTES - 1] {
            std::fs::write(&anchor.path, &good[..cut]).unwrap();
            assert_eq!(anchor.read().unwrap(), Reading::Unreadable, "{cut} bytes");
        }
    }

    #[test]
    fn two_handles_do_not_undo_each_others_part() {
        let folder = tempfile::tempdir().unwrap();
        let (mut database, mut header) = (anchor(&folder), anchor(&folder));
        write(&mut database, 1);
        header.update(|anchored| anchored.header.generation = 8).unwrap();
        database.update(|anchored| anchored.database.generation = 2).unwrap();
        let Reading::Read(anchored) = header.read().unwrap() else { panic!("no anchor") };
        assert_eq!((anchored.database.generation, anchored.header.generation), (2, 8));
    }

    #[test]
    fn an_announced_key_counts_beside_the_old_one_until_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        let mut old = anchor(&folder);
        write(&mut old, 1);
        write(&mut old, 2);
        let mut new = Anchor::new(old.path.clone(), &profile("work"), &master(2));
        old.announce(&master(2), &at(3)).unwrap();
        assert_eq!(old.read().unwrap(), Reading::Read(at(2)), "a kill before the exchange");
        assert_eq!(new.read().unwrap(), Reading::Read(at(3)), "and one after it");
        write(&mut new, 4);
        assert_eq!(new.read().unwrap(), Reading::Read(at(4)));
        assert_eq!(old.read().unwrap(), Reading::Unreadable);
    }

    #[test]
    fn what_is_put_in_its_place_meanwhile_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut anchor = anchor(&folder);
        write(&mut anchor, 1);
        let older = std::fs::read(&anchor.path).unwrap();
        write(&mut anchor, 2);
        write(&mut anchor, 3);
        // Into the open file: of the same length, and not what was left there.
        std::fs::write(&anchor.path, &older).unwrap();
        anchor.update(|anchored| assert_eq!(*anchored, at(1))).unwrap();
        // And in its place.
        for put in [Some(older), None] {
            std::fs::remove_file(&anchor.path).unwrap();
            if let Some(older) = &put {
                private_fs::create_new(&anchor.path).unwrap();
                std::fs::write(&anchor.path, older).unwrap();
            }
            write(&mut anchor, 4);
            assert_eq!(anchor.read().unwrap(), Reading::Read(at(4)), "{}", put.is_some());
        }
    }

    #[test]
    fn a_link_in_its_place_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut anchor = anchor(&folder);
        std::fs::create_dir(folder.path().join("anchors")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &anchor.path).unwrap();
        for error in [anchor.read().unwrap_err(), anchor.update(|_| {}).unwrap_err()] {
            assert!(error.to_string().contains("anchors/work"), "{error}");
        }
    }
}
