//! A folder of its own in memory, for what another program has to see as a file for a while; gone when it is dropped, with
//! all that the program put beside it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use core_crypto::SecureBytes;
use core_crypto::private_fs::{self, PrivateFsError};
use core_types::paths::Paths;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

/// The magic numbers of tmpfs and ramfs (statfs(2)).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// The folder of these folders, below that of the sockets.
const FOLDER: &str = "edit";

/// Why there is no such folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    /// What is written there may get onto a disk.
    #[error("the folder {} is not in memory (tmpfs or ramfs), and a value is written nowhere else", path.display())]
    OnADisk { path: PathBuf },
    /// A folder or file of it is not private.
    #[error("{0}")]
    NotPrivate(#[from] PrivateFsError),
    /// The system said no.
    #[error("the folder {} cannot be {what}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl DeskError {
    /// What to do next.
    pub(crate) fn next(&self) -> Option<&'static str> {
        match self {
            Self::OnADisk { .. } => Some(
                "have XDG_RUNTIME_DIR name a folder on a tmpfs, as systemd-logind makes /run/user/UID; or pipe the value \
                 into `pds set`",
            ),
            Self::NotPrivate(_) => None,
            Self::Io { .. } => Some("see that it is yours and not full"),
        }
    }
}

/// The folder. Whoever holds its lock has it; one that nobody holds was left by a process that was killed.
pub(crate) struct Desk {
    folder: PathBuf,
    _lock: File,
}

impl Desk {
    /// Makes one, and removes those that were left behind.
    ///
    /// # Errors
    /// The place for it is on a disk, not private, or full.
    pub(crate) fn make(paths: &Paths) -> Result<Self, DeskError> {
        let place = paths.runtime().join(FOLDER);
        private_fs::ensure_private_dir(&place)?;
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| DeskError::Io { what, path, source }
        };
        let all = open(&place).map_err(failed("opened", &place))?;
        let kind =
            rustix::fs::fstatfs(&all).map_err(|errno| failed("examined", &place)(errno.into()))?.f_type;
        if u64::try_from(kind).map_or(true, |kind| !IN_MEMORY.contains(&kind)) {
            return Err(DeskError::OnADisk { path: place });
        }
        // Held until the new folder has a lock of its own, so that nobody takes it for one that was left.
        flock(&all, FlockOperation::LockExclusive).map_err(|errno| failed("locked", &place)(errno.into()))?;
        remove_left(&place);
        let name = SecureBytes::random(8).map_err(|error| failed("made", &place)(io::Error::other(error)))?;
        let name = name.expose().iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
        let folder = place.join(name);
        private_fs::ensure_private_dir(&folder)?;
        let lock = open(&folder).map_err(failed("opened", &folder))?;
        let desk = Self { folder, _lock: lock };
        flock(&desk._lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed("locked", &desk.folder)(errno.into()))?;
        Ok(desk)
    }

    /// Writes a file with mode 0600 into it; its path.
    ///
    /// # Errors
    /// There is no room.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, DeskError> {
        let path = self.folder.join(name);
        let written = private_fs::create_new(&path)?.write_all(bytes);
        written.map_err(|source| DeskError::Io { what: "written to", path: self.folder.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _next_one_tries_again = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder, without following a link.
fn open(folder: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?.into())
}

/// Removes the folders that nobody holds.
fn remove_left(place: &Path) {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let held =
            open(&path).is_ok_and(|left| flock(left, FlockOperation::NonBlockingLockExclusive).is_err());
        if !held {
            let _tried_again_later = std::fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn paths(below: &Path) -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir_in(below).unwrap();
        let place = folder.path().to_owned();
        let paths = Paths::from_variables(|name| name.starts_with("PDS_").then(|| place.join(name))).unwrap();
        (folder, paths)
    }

    fn names(folder: &Path) -> usize {
        folder.read_dir().unwrap().count()
    }

    #[test]
    fn it_is_private_in_memory_and_gone_with_all_that_is_in_it() {
        let (_folder, paths) = paths(Path::new("/dev/shm"));
        let desk = Desk::make(&paths).unwrap();
        let file = desk.put("key.pem", b"x").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&desk.folder)), (0o600, 0o700));
        std::fs::create_dir(desk.folder.join("swap")).unwrap();
        std::fs::write(desk.folder.join("swap/key.pem~"), "x").unwrap();
        let other = Desk::make(&paths).unwrap();
        assert!(file.exists(), "another one leaves this one alone");
        drop(desk);
        assert!(!file.exists());
        drop(other);
        assert_eq!(names(&paths.runtime().join(FOLDER)), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_by_the_next_one() {
        let (_folder, paths) = paths(Path::new("/dev/shm"));
        let desk = Desk::make(&paths).unwrap();
        let left = desk.folder.with_file_name("left");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("key.pem"), "x").unwrap();
        drop(Desk::make(&paths).unwrap());
        assert!(!left.exists() && desk.folder.exists());
    }

    #[test]
    fn a_disk_is_refused() {
        // The kernel's own tree is on no disk either, but it is no tmpfs, and it is always there.
        assert!(!IN_MEMORY.contains(&u64::try_from(rustix::fs::statfs("/proc").unwrap().f_type).unwrap()));
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let kind = rustix::fs::statfs(&home).map_or(0, |found| found.f_type);
        if !IN_MEMORY.contains(&u64::try_from(kind).unwrap()) {
            let (_folder, paths) = paths(&home);
            assert!(matches!(Desk::make(&paths), Err(DeskError::OnADisk { .. })));
        }
    }
}
