//! Room in the write-ahead log, made before it is needed.
//!
//! A log that grows costs each transaction more than its data: a file system writes down the new length and the new
//! blocks as well, each with a write of its own that is waited for. So when a vault is written to a few times,
//! its log gets its full length at once, in zeros; from then on a transaction is one write and one flush. To SQLite
//! zeros are what they are to it behind every log that was begun anew: no frame, because a frame repeats the random
//! numbers of the log's header (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// So many frames make SQLite move the log's content into the database and begin the log anew.
pub(super) const CHECKPOINT_FRAMES: u32 = 250;
const HEADER_BYTES: u64 = 32;
const FRAME_BYTES: u64 = 24 + 4096;
/// The frames, and those of the transaction that was too many.
const ROOM_BYTES: u64 = HEADER_BYTES + (CHECKPOINT_FRAMES as u64 + 10) * FRAME_BYTES;
/// Where less is free, the room is left to who needs it.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// One in so many changes looks whether there is room: whoever makes fewer has more from a log that is short.
const CHANGES: u32 = 16;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The log of one open database.
#[derive(Debug)]
pub(super) struct LogRoom {
    path: PathBuf,
    changes: u32,
}

impl LogRoom {
    /// Of the database at `path`.
    pub(super) fn new(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        Self { path: name.into(), changes: 0 }
    }

    /// To be called before each transaction that writes. Where there can be no room, the log grows as it is written.
    pub(super) fn before_change(&mut self) {
        self.changes = (self.changes + 1) % CHANGES;
        if self.changes == 0 {
            let _without_room_all_works_as_well = self.make();
        }
    }

    fn make(&self) -> io::Result<()> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(&self.path)?;
        let length = file.metadata()?.len();
        if length >= ROOM_BYTES || free_bytes(&file)? < FREE_BYTES_MIN {
            return Ok(());
        }
        fill(&file, length).inspect_err(|_| {
            // A part of the room is worth nothing, and someone may need the disk.
            let _ = file.set_len(length);
        })
    }
}

/// Bytes that the file system of this file has left for its user.
fn free_bytes(file: &File) -> io::Result<u64> {
    let found = rustix::fs::fstatvfs(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Writes zeros behind what is there.
fn fill(file: &File, length: u64) -> io::Result<()> {
    let mut end = length;
    while end < ROOM_BYTES {
        let missing = usize::try_from(ROOM_BYTES - end).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(&ZEROS[..missing], end)?;
        end += missing as u64;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::testing::{Vault, secret};
    use super::*;
    use crate::store::SecretsStore;

    fn log(vault: &Vault) -> std::fs::Metadata {
        std::fs::metadata(vault.folder.path().join("vault.db-wal")).unwrap()
    }

    #[tokio::test]
    async fn a_vault_that_is_written_to_has_room_in_its_log_and_never_outgrows_it() {
        let vault = Vault::new();
        for number in 1..CHANGES {
            vault.set("a", &[1]).await;
            assert!(log(&vault).len() < ROOM_BYTES / 2, "as long as what was written, after {number}");
        }
        vault.set("a", &[1]).await;
        let room = (log(&vault).len(), log(&vault).blocks());
        assert!(room.0 == ROOM_BYTES && room.1 * 512 >= ROOM_BYTES, "{room:?}, with blocks of its own");
        for number in 0..3 * CHECKPOINT_FRAMES {
            vault.set(&format!("b/{number}"), &[2; 40]).await;
            assert_eq!((log(&vault).len(), log(&vault).blocks()), room, "after {number} more");
        }
        assert_eq!(vault.reopen().unwrap().list_keys().await.unwrap().len(), 751);
    }

    #[tokio::test]
    async fn there_is_room_again_after_the_log_was_emptied() {
        let vault = Vault::new();
        for _ in 0..CHANGES {
            vault.set("a", &[1]).await;
        }
        vault.store.purge(&secret("a")).await.unwrap();
        assert_eq!(log(&vault).len(), 0);
        for _ in 0..CHANGES {
            vault.set("a", &[2]).await;
        }
        assert_eq!(log(&vault).len(), ROOM_BYTES);
    }

    #[test]
    fn what_stands_in_the_log_is_kept_also_where_there_can_be_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let room = LogRoom::new(&folder.path().join("vault.db"));
        assert_eq!(
            room.make().unwrap_err().kind(),
            io::ErrorKind::NotFound,
            "it is made by no one but SQLite"
        );
        std::fs::write(&room.path, [7; 5_000]).unwrap();
        room.make().unwrap();
        let bytes = std::fs::read(&room.path).unwrap();
        assert!(bytes[..5_000] == [7; 5_000] && bytes[5_000..].iter().all(|byte| *byte == 0));
        assert_eq!(bytes.len() as u64, ROOM_BYTES);
        std::fs::remove_file(&room.path).unwrap();
        std::os::unix::fs::symlink("/dev/full", &room.path).unwrap();
        assert!(room.make().is_err(), "a link is not followed");
        assert!(fill(&OpenOptions::new().write(true).open("/dev/full").unwrap(), 0).is_err());
    }
}
