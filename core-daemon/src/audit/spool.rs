//! Audit entries in files until `daemon-profile` has them on its disk, so that neither the end of this process nor a
//! `daemon-profile` that is away loses one.
//!
//! A file holds frames one after the other: the length of the body (4 bytes, little-endian), 16 hex digits of its hash,
//! and the body. Files are written to their end only, numbered, and removed as a whole. What was not written to its end
//! by a process that was killed is no entry: nothing was given away for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use core_crypto::hash_chain::Link;
use core_crypto::private_fs::{self, PrivateFsError};
use core_types::protocol::profile::SecretOperationAudit;
use core_types::protocol::{decode, encode};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A file that is larger gets no further entries.
const FILE_BYTES: u64 = 1 << 20;
/// Most bytes of all files together; what does not fit is not recorded.
const TOTAL_BYTES_MAX: u64 = 256 << 20;
/// Largest frame: an entry of the longest names, reason and executable.
pub(crate) const FRAME_BYTES_MAX: u64 = 64 << 10;
const LENGTH_BYTES: usize = 4;
const CHECK_BYTES: usize = 16;
const HEAD_BYTES: usize = LENGTH_BYTES + CHECK_BYTES;
const SUFFIX: &str = ".spool";

/// An entry with the number under which it is sent, so that one that is sent again is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbered {
    /// The number that a process chose for itself.
    pub(crate) origin: u64,
    /// The number of the entry, counted by that process.
    pub(crate) number: u64,
    /// The entry.
    pub(crate) entry: SecretOperationAudit,
}

/// Why an entry is in no file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The folder or a file is not what a private one has to be, or could not be made.
    #[error(transparent)]
    Private(#[from] PrivateFsError),
    /// The system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too much waits already.
    #[error("{TOTAL_BYTES_MAX} bytes of audit entries wait for daemon-profile")]
    Full,
    /// An entry that fits no frame.
    #[error("an audit entry cannot be encoded")]
    Encode,
}

impl SpoolError {
    /// Whether the folder or a file is what must not be used, rather than a disk that fails.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Private(error) if !matches!(error, PrivateFsError::Io { .. }))
    }
}

/// Where a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the file.
    pub(crate) file: u64,
    /// Bytes before it.
    pub(crate) offset: u64,
}

/// Entries with the numbers of their files, and where the next ones begin.
type ReadBack = (Vec<(u64, Numbered)>, Option<Place>);

struct SpoolFile {
    path: PathBuf,
    file: Arc<File>,
    /// Bytes of whole frames.
    bytes: u64,
    /// Bytes up to which the disk has kept room.
    room: u64,
    /// Entries of it that were read or written here and are not settled.
    pending: u64,
    /// Whether it holds entries that nobody has read.
    unread: bool,
}

/// The files of one daemon.
pub(crate) struct Spool {
    folder: PathBuf,
    daemon: &'static str,
    files: BTreeMap<u64, SpoolFile>,
    writing: Option<u64>,
    next_file: u64,
    /// Bytes that are kept free for entries that will come for certain.
    promised: u64,
}

impl Spool {
    /// The files that `daemon` has in `folder`; those that an earlier process left are unread.
    ///
    /// # Errors
    /// The folder cannot be used or read.
    pub(crate) fn open(folder: &Path, daemon: &'static str) -> Result<Self, SpoolError> {
        let mut spool = Self::unseen(folder, daemon, 1);
        spool.find()?;
        Ok(spool)
    }

    /// A spool that has not looked for its files: it begins with this one, which must be above all there may be.
    pub(crate) fn unseen(folder: &Path, daemon: &'static str, next_file: u64) -> Self {
        let files = BTreeMap::new();
        Self { folder: folder.to_owned(), daemon, files, writing: None, next_file, promised: 0 }
    }

    fn find(&mut self) -> Result<(), SpoolError> {
        private_fs::ensure_private_dir(&self.folder)?;
        let failed = |source| SpoolError::Io { path: self.folder.clone(), source };
        let mut numbers = Vec::new();
        for entry in self.folder.read_dir().map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(name.to_str().and_then(|name| number_of(name, self.daemon)));
        }
        for number in numbers {
            let path = self.path(number);
            let file = private_fs::open_append(&path)?;
            let bytes =
                file.metadata().map_err(|source| SpoolError::Io { path: path.clone(), source })?.len();
            let found = SpoolFile { path, file: Arc::new(file), bytes, room: 0, pending: 0, unread: true };
            self.files.insert(number, found);
            self.next_file = self.next_file.max(number.saturating_add(1));
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}.{number:06}{SUFFIX}", self.daemon))
    }

    /// The first file that holds entries that nobody has read.
    pub(crate) fn first_unread(&self) -> Option<Place> {
        let (&file, _) = self.files.iter().find(|(_, found)| found.unread)?;
        Some(Place { file, offset: 0 })
    }

    /// Writes entries, all of them or none, in one write. `read` says whether they are known here and will be settled,
    /// or shall be read back later.
    ///
    /// # Errors
    /// None stands in a file.
    pub(crate) fn append(&mut self, entries: &[Numbered], read: bool) -> Result<Place, SpoolError> {
        let mut frames = Vec::new();
        for entry in entries {
            frame(&mut frames, entry)?;
        }
        let total: u64 = self.files.values().map(|file| file.bytes).sum();
        if total + frames.len() as u64 > TOTAL_BYTES_MAX {
            return Err(SpoolError::Full);
        }
        let number = self.current(frames.len() as u64)?;
        let Some(current) = self.files.get_mut(&number) else { return Err(SpoolError::Full) };
        let place = Place { file: number, offset: current.bytes };
        if let Err(source) = current.file.write_all_at(&frames, current.bytes) {
            let path = current.path.clone();
            // The beginning of a frame must not stand before the next one.
            let cut = current.file.set_len(current.bytes);
            current.room = 0;
            if cut.is_err() {
                self.writing = None;
            }
            return Err(SpoolError::Io { path, source });
        }
        current.bytes += frames.len() as u64;
        current.unread |= !read;
        current.pending += if read { entries.len() as u64 } else { 0 };
        Ok(place)
    }

    /// The file that is written to, with room for this many bytes beside what was promised.
    fn current(&mut self, bytes: u64) -> Result<u64, SpoolError> {
        let wanted = bytes + self.promised;
        if let Some(number) = self.writing
            && let Some(file) = self.files.get_mut(&number)
            && (file.bytes < FILE_BYTES || self.promised > 0)
        {
            if file.room > 0 {
                file.keep_room(wanted)?;
            }
            return Ok(number);
        }
        private_fs::ensure_private_dir(&self.folder)?;
        let number = self.next_file;
        let path = self.path(number);
        let file = Arc::new(private_fs::create_new(&path)?);
        self.next_file += 1;
        self.writing = Some(number);
        self.files.insert(number, SpoolFile { path, file, bytes: 0, room: 0, pending: 0, unread: false });
        Ok(number)
    }

    /// Keeps room on the disk for entries of so many bytes, which will come for certain; [`Self::release`] takes it back.
    ///
    /// # Errors
    /// The disk has none.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let number = self.current(0)?;
        let wanted = self.promised + bytes;
        let Some(file) = self.files.get_mut(&number) else { return Err(SpoolError::Full) };
        file.keep_room(wanted)?;
        self.promised = wanted;
        Ok(())
    }

    /// Takes back a [`Self::reserve`] of so many bytes.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.promised = self.promised.saturating_sub(bytes);
    }

    /// Reads about `count` entries from a place on, and where the next ones begin: they are known here from now on.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn read(&mut self, from: Place, count: usize) -> Result<ReadBack, SpoolError> {
        let mut found = Vec::new();
        let mut place = from;
        while found.len() < count {
            let Some(file) = self.files.get_mut(&place.file) else { break };
            match file.frame_at(place.offset)? {
                Some((entry, offset)) => {
                    file.pending += 1;
                    found.push((place.file, entry));
                    place.offset = offset;
                }
                None => {
                    file.unread = false;
                    match self.first_unread() {
                        Some(next) => place = next,
                        None => return Ok((found, None)),
                    }
                }
            }
        }
        Ok((found, Some(place)))
    }

    /// Takes note that an entry of a file is settled.
    pub(crate) fn settle(&mut self, file: u64) {
        if let Some(file) = self.files.get_mut(&file) {
            file.pending = file.pending.saturating_sub(1);
        }
    }

    /// Lets the next entry begin a new file, so that the present one can be removed when all of it is settled.
    pub(crate) fn close_current(&mut self) {
        if let Some(number) = self.writing
            && self.promised == 0
            && self.files.get(&number).is_some_and(|file| file.bytes > 0)
        {
            self.writing = None;
        }
    }

    /// The files of which every entry is settled and to which nothing will be added.
    pub(crate) fn settled(&self) -> Vec<u64> {
        let settled = |number: &u64, file: &SpoolFile| {
            self.writing != Some(*number) && !file.unread && file.pending == 0
        };
        self.files.iter().filter(|(number, file)| settled(number, file)).map(|(number, _)| *number).collect()
    }

    /// Removes files.
    ///
    /// # Errors
    /// One is still there; it will be sent again.
    pub(crate) fn remove(&mut self, numbers: &[u64]) -> Result<(), SpoolError> {
        for number in numbers {
            if let Some(file) = self.files.get(number) {
                private_fs::remove_if_present(&file.path)?;
                self.files.remove(number);
            }
        }
        Ok(())
    }

    /// The files that have been written to from this one on, for whoever makes them durable.
    pub(crate) fn files_from(&self, first: u64) -> Vec<Arc<File>> {
        self.files.range(first..).map(|(_, file)| Arc::clone(&file.file)).collect()
    }

    /// Whether there is a file with entries.
    pub(crate) fn holds_entries(&self) -> bool {
        self.files.values().any(|file| file.bytes > 0)
    }

    /// The number of the newest file; 0 where there is none.
    pub(crate) fn newest(&self) -> u64 {
        self.next_file - 1
    }

    /// The folder of the files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl SpoolFile {
    /// Has the disk keep room for this many bytes after the last frame.
    fn keep_room(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let end = self.bytes + bytes;
        if self.room >= end {
            return Ok(());
        }
        let mut keep =
            |room: u64| fallocate(&*self.file, FallocateFlags::KEEP_SIZE, 0, room).map(|()| self.room = room);
        // Much at once, so that this is asked for seldom; on a small disk as much as is needed.
        let kept = keep(end.max(FILE_BYTES) + FRAME_BYTES_MAX).or_else(|_| keep(end));
        let failed = |error: Errno| SpoolError::Io { path: self.path.clone(), source: error.into() };
        kept.map_err(failed)
    }

    /// The entry whose frame begins at `offset`, and where the next one begins; `None` where no whole frame does.
    fn frame_at(&self, offset: u64) -> Result<Option<(Numbered, u64)>, SpoolError> {
        let mut head = [0; HEAD_BYTES];
        if offset + HEAD_BYTES as u64 > self.bytes || !self.read_at(&mut head, offset)? {
            return Ok(None);
        }
        let (length, check) = head.split_at(LENGTH_BYTES);
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        let end = offset + HEAD_BYTES as u64 + u64::from(length);
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        if end > self.bytes || length as u64 > FRAME_BYTES_MAX {
            return Ok(None);
        }
        let mut body = vec![0; length];
        if !self.read_at(&mut body, offset + HEAD_BYTES as u64)? || check_of(&body) != check {
            return Ok(None);
        }
        Ok(decode::<Numbered>(&body).ok().map(|entry| (entry, end)))
    }

    /// Fills a buffer; `false` if the file is shorter.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool, SpoolError> {
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(SpoolError::Io { path: self.path.clone(), source }),
        }
    }
}

fn frame(frames: &mut Vec<u8>, entry: &Numbered) -> Result<(), SpoolError> {
    let body = encode(entry).map_err(|_| SpoolError::Encode)?;
    let length = u32::try_from(body.len()).map_err(|_| SpoolError::Encode)?;
    if body.len() as u64 + HEAD_BYTES as u64 > FRAME_BYTES_MAX {
        return Err(SpoolError::Encode);
    }
    frames.extend_from_slice(&length.to_le_bytes());
    frames.extend_from_slice(&check_of(&body));
    frames.extend_from_slice(&body);
    Ok(())
}

fn check_of(body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&Link::GENESIS.next(body).to_hex().as_bytes()[..CHECK_BYTES]);
    check
}

fn number_of(name: &str, daemon: &str) -> Option<u64> {
    let digits = name.strip_prefix(daemon)?.strip_prefix('.')?.strip_suffix(SUFFIX)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
pub(crate) mod tests {
    use core_types::name::{LAUNCHER, SECRETS};
    use core_types::protocol::profile::{Operation, Outcome, Requester};

    use super::*;

    pub(crate) fn entry(subject: &str) -> SecretOperationAudit {
        let requester = Requester { name: "cli".to_owned(), uid: 0, pid: None, executable: None, unit: None };
        SecretOperationAudit::new(7, Operation::Get, requester, Outcome::Done)
            .about(None, Some(subject.to_owned()))
    }

    fn numbered(number: u64) -> Numbered {
        Numbered { origin: 9, number, entry: entry(&format!("name-{number}")) }
    }

    fn numbers(read: &[(u64, Numbered)]) -> Vec<u64> {
        read.iter().map(|(_, entry)| entry.number).collect()
    }

    fn all(folder: &Path) -> Vec<u64> {
        let mut spool = Spool::open(folder, SECRETS).unwrap();
        let Some(first) = spool.first_unread() else { return Vec::new() };
        numbers(&spool.read(first, usize::MAX).unwrap().0)
    }

    #[test]
    fn another_process_reads_what_this_one_wrote_and_no_other_daemons() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("waiting");
        let mut spool = Spool::open(&folder, SECRETS).unwrap();
        let mut other = Spool::open(&folder, LAUNCHER).unwrap();
        other.append(&[numbered(100)], true).unwrap();
        spool.append(&[numbered(0), numbered(1)], true).unwrap();
        spool.append(&[numbered(2)], true).unwrap();
        assert_eq!(all(&folder), [0, 1, 2]);
        let mut after = Spool::open(&folder, SECRETS).unwrap();
        after.append(&[numbered(3)], true).unwrap();
        assert_eq!(all(&folder), [0, 1, 2, 3]);
    }

    /// Whatever beginning of the last write a kill leaves, the whole entries before it are read and nothing else is.
    #[test]
    fn a_frame_cut_at_any_byte_is_no_entry() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("waiting");
        let mut spool = Spool::open(&folder, SECRETS).unwrap();
        spool.append(&[numbered(0)], true).unwrap();
        let last = spool.append(&[numbered(1)], true).unwrap();
        let path = folder.join("daemon-secrets.000001.spool");
        let whole = std::fs::read(&path).unwrap();
        for cut in usize::try_from(last.offset).unwrap()..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(all(&folder), [0], "{cut}");
        }
        for at in usize::try_from(last.offset).unwrap()..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(all(&folder), [0], "{at}");
        }
    }

    #[test]
    fn a_file_goes_when_all_of_it_is_settled_and_nothing_is_added() {
        let home = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(home.path(), SECRETS).unwrap();
        let place = spool.append(&[numbered(0), numbered(1)], true).unwrap();
        spool.settle(place.file);
        spool.close_current();
        assert_eq!(spool.settled(), []);
        spool.settle(place.file);
        assert_eq!(spool.settled(), [1]);
        spool.remove(&[1]).unwrap();
        assert_eq!(all(home.path()), [0; 0]);
        spool.append(&[numbered(2)], true).unwrap();
        assert_eq!(all(home.path()), [2]);
    }

    #[test]
    fn a_large_file_is_followed_by_another_and_both_are_read_in_order() {
        let home = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(home.path(), SECRETS).unwrap();
        let mut next = 0;
        while spool.files.len() < 3 {
            let batch: Vec<_> = (next..next + 500).map(numbered).collect();
            spool.append(&batch, false).unwrap();
            next += 500;
        }
        let (mut place, mut read) = (spool.first_unread(), Vec::new());
        while let Some(from) = place {
            let (found, next) = spool.read(from, 333).unwrap();
            read.extend(numbers(&found));
            place = next;
        }
        assert_eq!(read, Vec::from_iter(0..next));
    }

    #[test]
    fn places_that_others_could_change_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("waiting");
        std::os::unix::fs::symlink(home.path(), &folder).unwrap();
        let error = Spool::open(&folder, SECRETS).err().unwrap();
        assert!(error.is_refusal() && error.to_string().contains("waiting"), "{error}");
        std::fs::remove_file(&folder).unwrap();
        private_fs::ensure_private_dir(&folder).unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.join("daemon-secrets.000001.spool")).unwrap();
        assert!(Spool::open(&folder, SECRETS).err().unwrap().is_refusal());
    }
}
