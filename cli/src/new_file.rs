//! A file that is written as a whole and then takes its place at once.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use core_crypto::SecureBytes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat_with};
use rustix::io::Errno;

use crate::error::Failure;

/// A file that is being written for a place; without [`Self::put_in_place`], nothing of it stays.
///
/// It has no name until it is whole (open(2), `O_TMPFILE`), so that not even a kill leaves anything. Where the file
/// system knows no files without a name, it has a hidden one beside its place.
pub(crate) struct NewFile {
    pub(crate) file: File,
    temporary: PathBuf,
    place: PathBuf,
    is_named: bool,
}

impl NewFile {
    /// Makes the file, with mode 0600, beside its place.
    ///
    /// # Errors
    /// It cannot be made there.
    pub(crate) fn beside(place: &Path) -> Result<Self, Failure> {
        let failed = |source| Failure::File { what: "made", path: place.to_owned(), source };
        let name = place.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
        let random = SecureBytes::random(8).map_err(|error| failed(io::Error::other(error)))?;
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary
            .push(random.expose().iter().fold(String::from("."), |text, byte| format!("{text}{byte:02x}")));
        temporary.push(".new");
        let temporary = place.with_file_name(temporary);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (file, is_named) = match openat(CWD, folder_of(place), flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => (File::from(file), false),
            Err(_) => {
                // A stick's file system may know no modes either; what the file holds is encrypted.
                let mut options = OpenOptions::new();
                options.read(true).write(true).create_new(true).mode(0o600);
                (options.open(&temporary).map_err(failed)?, true)
            }
        };
        Ok(Self { file, temporary, place: place.to_owned(), is_named })
    }

    /// Gives the file a name beside its place; linkat(2) has no way to replace what is in the place itself.
    fn give_name(&mut self) -> Result<(), Errno> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, own, CWD, &self.temporary, AtFlags::SYMLINK_FOLLOW)?;
        self.is_named = true;
        Ok(())
    }

    /// Gives the file its name, durably; what is in it has to be written out by then.
    ///
    /// # Errors
    /// The place is taken, and not to be replaced; or it cannot be had.
    pub(crate) fn put_in_place(mut self, replace: bool) -> Result<(), Failure> {
        if !self.is_named {
            let path = self.place.clone();
            self.give_name().map_err(|errno| Failure::File { what: "made", path, source: errno.into() })?;
        }
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let renamed = match renameat_with(CWD, &self.temporary, CWD, &self.place, flags) {
            // A file system that cannot look and rename in one step; we have looked before.
            Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(&self.temporary, &self.place),
            result => result,
        };
        match renamed {
            Ok(()) => self.is_named = false,
            Err(Errno::EXIST) => return Err(Failure::FileExists { path: self.place.clone() }),
            Err(errno) => {
                let path = self.place.clone();
                return Err(Failure::File { what: "replaced", path, source: errno.into() });
            }
        }
        let folder = folder_of(&self.place).to_owned();
        let synced = File::open(&folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| Failure::File { what: "written out", path: folder, source })
    }
}

fn folder_of(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.is_named {
            let _nothing_better_to_do = std::fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = folder.read_dir().unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_new_file_is_private_and_takes_a_free_place_or_with_force_any() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("backup");
        let new = NewFile::beside(&place).unwrap();
        assert_eq!(new.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), [""; 0], "a kill leaves nothing");
        new.put_in_place(false).unwrap();
        assert_eq!(names(folder.path()), ["backup"]);
        std::fs::write(&place, "first").unwrap();
        let refused = NewFile::beside(&place).unwrap().put_in_place(false);
        assert!(matches!(refused, Err(Failure::FileExists { .. })));
        assert_eq!(std::fs::read(&place).unwrap(), b"first");
        NewFile::beside(&place).unwrap().put_in_place(true).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"");
        assert_eq!(names(folder.path()), ["backup"], "nothing is left beside it");
    }

    #[test]
    fn a_file_that_does_not_get_its_place_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        drop(NewFile::beside(&folder.path().join("backup")).unwrap());
        assert_eq!(names(folder.path()), [""; 0]);
        assert!(NewFile::beside(Path::new("/")).is_err());
        assert!(NewFile::beside(&folder.path().join("missing/backup")).is_err());
    }
}
