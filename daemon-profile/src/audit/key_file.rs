//! The file that holds the key of the next entry, and where the log ended when it was written: what a restart goes on
//! from, and how it notices that the end of the log is not the one that was written.
//!
//! It is overwritten in place with each write of entries, after them. So it is never ahead of the log that it belongs to,
//! and a full disk has room for it.
//!
//! Before the entry is written with which the key of a vault is taken up, it holds that key too: a kill right after that
//! entry must not leave a log that goes on with the key before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use core_crypto::hash_chain::Link;
use core_crypto::log_key::LogKey;
use core_crypto::private_fs;
use zeroize::Zeroizing;

use super::LogError;
use super::chain::End;

const NAME: &str = "key";
const NEXT_BYTES: usize = 8;
const LINK_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 16;
const BODY_BYTES: usize = NEXT_BYTES + LINK_BYTES + KEY_BYTES;
const SLOT_BYTES: usize = BODY_BYTES + CHECK_BYTES;
const BYTES: usize = 2 * SLOT_BYTES;

/// What the file held.
pub(crate) enum Stored {
    /// There was none.
    Missing,
    /// It was not what was written.
    Damaged,
    /// Where the log ended, and the key of the entry to come; and the same for when the entry is written that was about
    /// to be, if another key is taken up with it.
    Found(End, LogKey, Option<(End, LogKey)>),
}

/// The file, open.
pub(crate) struct KeyFile {
    path: PathBuf,
    file: File,
}

impl KeyFile {
    /// Reads the file in `folder`.
    ///
    /// # Errors
    /// It is not a private file of ours, or cannot be read.
    pub(crate) fn read(folder: &Path) -> Result<Stored, LogError> {
        let path = folder.join(NAME);
        let Some(bytes) = private_fs::read_limited(&path, BYTES)?.map(Zeroizing::new) else {
            return Ok(Stored::Missing);
        };
        Ok(decode(&bytes).unwrap_or(Stored::Damaged))
    }

    /// Opens the file in `folder` to be written, and makes it where it is missing.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn open(folder: &Path) -> Result<Self, LogError> {
        let path = folder.join(NAME);
        let file = private_fs::open_or_create(&path)?;
        Ok(Self { path, file })
    }

    /// Replaces what the file holds.
    ///
    /// # Errors
    /// It holds what it held.
    pub(crate) fn write(
        &self,
        end: End,
        key: &LogKey,
        promised: Option<&(End, LogKey)>,
    ) -> Result<(), LogError> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[..SLOT_BYTES].copy_from_slice(&encode(end, key)[..]);
        if let Some((end, key)) = promised {
            bytes[SLOT_BYTES..].copy_from_slice(&encode(*end, key)[..]);
        }
        let failed = |source: io::Error| LogError::Io { path: self.path.clone(), source };
        self.file.write_all_at(&bytes[..], 0).map_err(failed)
    }
}

fn encode(end: End, key: &LogKey) -> Zeroizing<[u8; SLOT_BYTES]> {
    let mut bytes = Zeroizing::new([0; SLOT_BYTES]);
    bytes[..NEXT_BYTES].copy_from_slice(&end.next.to_be_bytes());
    bytes[NEXT_BYTES..NEXT_BYTES + LINK_BYTES].copy_from_slice(end.link.as_bytes());
    bytes[NEXT_BYTES + LINK_BYTES..BODY_BYTES].copy_from_slice(key.expose());
    let check = check_of(&bytes[..BODY_BYTES]);
    bytes[BODY_BYTES..].copy_from_slice(&check);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Stored> {
    let (kept, promised) = bytes.split_at_checked(SLOT_BYTES)?;
    let promised = match promised.iter().all(|byte| *byte == 0) {
        true if promised.is_empty() || promised.len() == SLOT_BYTES => None,
        _ => Some(decode_slot(promised)?),
    };
    let (end, key) = decode_slot(kept)?;
    Some(Stored::Found(end, key, promised))
}

fn decode_slot(bytes: &[u8]) -> Option<(End, LogKey)> {
    let (body, check) = bytes.split_at_checked(BODY_BYTES)?;
    if check != check_of(body) {
        return None;
    }
    let (next, rest) = body.split_at(NEXT_BYTES);
    let (link, key) = rest.split_at(LINK_BYTES);
    let next = u64::from_be_bytes(next.try_into().ok()?);
    let link = Link::from_bytes(link.try_into().ok()?);
    (next > 0).then_some((End { next, link }, LogKey::of(key)?))
}

/// Tells a file that was damaged by accident.
fn check_of(body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&Link::GENESIS.next(body).as_bytes()[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_changed_byte_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        assert!(matches!(KeyFile::read(home.path()), Ok(Stored::Missing)));
        let end = End { next: 9, link: Link::GENESIS.next(b"x") };
        let key = LogKey::of(&[3; 32]).unwrap();
        let next = (End { next: 10, ..end }, LogKey::of(&[4; 32]).unwrap());
        for promise in [Some(&next), None] {
            KeyFile::open(home.path()).unwrap().write(end, &key, promise).unwrap();
            match KeyFile::read(home.path()).unwrap() {
                Stored::Found(found, read, promised) => {
                    assert_eq!((found, read.expose()), (end, key.expose()));
                    let exposed = |(end, key): &(End, LogKey)| (*end, key.expose().to_vec());
                    assert_eq!(promised.as_ref().map(exposed), promise.map(exposed));
                }
                _ => panic!("it is there"),
            }
            let path = home.path().join(NAME);
            let whole = std::fs::read(&path).unwrap();
            for at in 0..whole.len() {
                let mut changed = whole.clone();
                changed[at] ^= 1;
                std::fs::write(&path, &changed).unwrap();
                assert!(matches!(KeyFile::read(home.path()), Ok(Stored::Damaged)), "{at}");
                std::fs::write(&path, &whole[..at]).unwrap();
                // One slot alone was the whole file once.
                let is_damaged = matches!(KeyFile::read(home.path()), Ok(Stored::Damaged));
                assert_eq!(is_damaged, at != SLOT_BYTES, "{at}");
            }
            std::fs::write(&path, &whole).unwrap();
        }
    }
}
