//! The only way pds makes files and folders: for their owner alone, whatever the umask and whatever was
//! planted at the path.
//!
//! Folders are 0700 and files 0600. No last path component is followed when it is a symbolic link. What exists
//! already is used only if it belongs to this user, nobody else can write to it, and it is of the right kind.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::random;

const DIR_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Others may do anything at all.
const OPEN_TO_OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// Why a file or folder was not made, read or trusted.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFsError {
    /// The operating system said no.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It belongs to someone who must not own it.
    #[error(
        "{path} belongs to user {owner}, not to user {expected}: remove it, or give it to the right user with chown",
        path = path.display()
    )]
    WrongOwner {
        /// Where.
        path: PathBuf,
        /// User id of the owner.
        owner: u32,
        /// User id that should own it.
        expected: u32,
    },
    /// Others could put something of theirs there.
    #[error(
        "{path} can be changed by other users (mode {mode:04o}): take that away with chmod go-w",
        path = path.display()
    )]
    WritableByOthers {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A folder that others can look into.
    #[error(
        "{path} is open to other users (mode {mode:04o}): close it with chmod 0700",
        path = path.display()
    )]
    NotPrivate {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something else stands where a folder should be.
    #[error("{path} is not a folder (or is a symbolic link): remove or rename it", path = path.display())]
    NotAFolder {
        /// Where.
        path: PathBuf,
    },
    /// Something else stands where a file should be.
    #[error(
        "{path} is not an ordinary file of one name (it is a link, a folder, a pipe or a device): remove or rename it",
        path = path.display()
    )]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// A file that is larger than it can rightly be.
    #[error("{path} is larger than {limit} bytes", path = path.display())]
    TooLarge {
        /// Where.
        path: PathBuf,
        /// Most bytes it may have.
        limit: usize,
    },
    /// Not a path that a file can be made at.
    #[error("{path} is not the path of a file", path = path.display())]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
}

impl PrivateFsError {
    /// Whether the disk, or the user's quota on it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

fn failed<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> PrivateFsError {
    move |error| PrivateFsError::Io { action, path: path.to_owned(), source: error.into() }
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Root, as stat(2) shows it: in a user namespace without root, as systemd makes for a service, all of the users outside
/// look alike, and what `/` belongs to counts as root's.
fn root_user() -> u32 {
    static ROOT: OnceLock<u32> = OnceLock::new();
    *ROOT.get_or_init(|| match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) if !maps_root(&map) => rustix::fs::stat("/").map_or(0, |root| root.st_uid),
        _ => 0,
    })
}

/// Whether root is among the users of a namespace, by its `uid_map` (user_namespaces(7)).
fn maps_root(map: &str) -> bool {
    map.lines().any(|line| line.split_ascii_whitespace().next() == Some("0"))
}

/// Refuses what belongs to someone else or can be changed by others.
fn check_owner(path: &Path, stat: &Stat) -> Result<(), PrivateFsError> {
    let expected = own_user();
    if stat.st_uid != expected {
        return Err(PrivateFsError::WrongOwner { path: path.to_owned(), owner: stat.st_uid, expected });
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(PrivateFsError::WritableByOthers { path: path.to_owned(), mode: permissions(stat) });
    }
    Ok(())
}

/// Opens a folder without following a link at its end; `None` if there is nothing.
fn open_dir(path: &Path) -> Result<Option<OwnedFd>, PrivateFsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(PrivateFsError::NotAFolder { path: path.to_owned() }),
        Err(error) => Err(failed("open", path)(error)),
    }
}

fn stat_of(file: impl AsFd, path: &Path) -> Result<Stat, PrivateFsError> {
    rustix::fs::fstat(file).map_err(failed("examine", path))
}

/// The folder that `path` is in, with links resolved, and the last component.
fn parent_and_name(path: &Path) -> Result<(&Path, &OsStr), PrivateFsError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => Ok((Path::new("."), name)),
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(PrivateFsError::NoFileName { path: path.to_owned() }),
    }
}

/// Makes sure that `path` is a folder of this user that nobody else can use, making it and missing parents.
///
/// An existing folder that others can only read is closed to them; one they can write to is refused, because
/// what lies in it may be theirs. The folders above are checked too, up to the first that belongs to root.
///
/// # Errors
/// The path that is wrong, and why.
pub fn ensure_private_dir(path: &Path) -> Result<(), PrivateFsError> {
    let folder = match open_dir(path)? {
        Some(folder) => folder,
        None => make_dir(path)?,
    };
    let stat = stat_of(&folder, path)?;
    check_owner(path, &stat)?;
    if permissions(&stat) & OPEN_TO_OTHERS != 0 {
        rustix::fs::fchmod(&folder, DIR_MODE).map_err(failed("close", path))?;
    }
    check_ancestors(path)
}

/// As [`ensure_private_dir`], but changes nothing: the folder must exist, and others must have no access at all.
///
/// # Errors
/// The path that is wrong, and why.
pub fn check_private_dir(path: &Path) -> Result<(), PrivateFsError> {
    let folder = open_dir(path)?.ok_or(Errno::NOENT).map_err(failed("open", path))?;
    let stat = stat_of(&folder, path)?;
    check_owner(path, &stat)?;
    if permissions(&stat) & OPEN_TO_OTHERS != 0 {
        return Err(PrivateFsError::NotPrivate { path: path.to_owned(), mode: permissions(&stat) });
    }
    check_ancestors(path)
}

/// Makes a folder with mode 0700, and its missing parents; someone else making it first is no error here.
fn make_dir(path: &Path) -> Result<OwnedFd, PrivateFsError> {
    let (parent, name) = parent_and_name(path)?;
    let parent_folder = match std::fs::metadata(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_dir(parent)?,
        _ => rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open", parent))?,
    };
    match rustix::fs::mkdirat(&parent_folder, name, DIR_MODE) {
        // The umask took bits away from the mode of mkdir, perhaps the owner's own.
        Ok(()) => rustix::fs::chmodat(&parent_folder, name, DIR_MODE, AtFlags::empty())
            .map_err(failed("set the mode of", path))?,
        Err(Errno::EXIST) => {}
        Err(error) => return Err(failed("make", path)(error)),
    }
    let folder = open_dir(path)?.ok_or(Errno::NOENT).map_err(failed("open", path))?;
    rustix::fs::fsync(&parent_folder).map_err(failed("write out", parent))?;
    Ok(folder)
}

/// Refuses a folder above `path` in which others could exchange what lies below: one of a third user, or one
/// that others can write to without the sticky bit. Root's own folders end the walk.
fn check_ancestors(path: &Path) -> Result<(), PrivateFsError> {
    let (parent, _) = parent_and_name(path)?;
    let parent = parent.canonicalize().map_err(failed("resolve", parent))?;
    for folder in parent.ancestors() {
        let stat = rustix::fs::stat(folder).map_err(failed("examine", folder))?;
        let is_own = stat.st_uid == own_user();
        // Whoever sees user 0 sees root, so that the namespace need seldom be looked at.
        let is_root = stat.st_uid == 0 || (!is_own && stat.st_uid == root_user());
        if !is_own && !is_root {
            return Err(PrivateFsError::WrongOwner {
                path: folder.to_owned(),
                owner: stat.st_uid,
                expected: own_user(),
            });
        }
        if stat.st_mode & WRITABLE_BY_OTHERS != 0 && stat.st_mode & STICKY == 0 {
            return Err(PrivateFsError::WritableByOthers {
                path: folder.to_owned(),
                mode: permissions(&stat),
            });
        }
        if is_root {
            break;
        }
    }
    Ok(())
}

/// Opens or makes a file without following a link at its end and without waiting for the other end of a pipe.
fn open_file(path: &Path, flags: OFlags, action: &'static str) -> Result<Option<OwnedFd>, PrivateFsError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(path, flags, FILE_MODE) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
            Err(PrivateFsError::NotAFile { path: path.to_owned() })
        }
        Err(error) => Err(failed(action, path)(error)),
    }
}

/// Refuses what is not an ordinary file of ours that has one name only and that nobody else can change.
fn check_file(file: impl AsFd, path: &Path) -> Result<Stat, PrivateFsError> {
    let stat = stat_of(file, path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
        return Err(PrivateFsError::NotAFile { path: path.to_owned() });
    }
    check_owner(path, &stat)?;
    Ok(stat)
}

/// Takes from others, and gives to the owner, what the umask or an earlier owner left otherwise.
fn set_file_mode(file: impl AsFd, path: &Path, stat: &Stat) -> Result<(), PrivateFsError> {
    if permissions(stat) != FILE_MODE.as_raw_mode() {
        rustix::fs::fchmod(file, FILE_MODE).map_err(failed("set the mode of", path))?;
    }
    Ok(())
}

/// Opens or makes a file that is checked and has mode 0600.
fn open_or_make(path: &Path, flags: OFlags) -> Result<File, PrivateFsError> {
    let file =
        open_file(path, flags | OFlags::CREATE, "open")?.ok_or(Errno::NOENT).map_err(failed("open", path))?;
    let stat = check_file(&file, path)?;
    set_file_mode(&file, path, &stat)?;
    Ok(File::from(file))
}

/// Makes a new, empty file with mode 0600, open for reading and writing.
///
/// # Errors
/// Something stands there already, even a dangling link; or it cannot be made.
pub fn create_new(path: &Path) -> Result<File, PrivateFsError> {
    open_or_make(path, OFlags::RDWR | OFlags::EXCL)
}

/// Replaces a file by one with these bytes: readers see the old or the new content, also after a power cut.
///
/// # Errors
/// Nothing was changed, or (only when the folder cannot be written out) the change may not outlast a power cut.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), PrivateFsError> {
    let (parent, name) = parent_and_name(path)?;
    let temporary = parent.join(temporary_name(name).map_err(failed("make", path))?);
    let written = write_and_rename(&temporary, path, bytes);
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    sync_dir(parent)
}

fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8]) -> Result<(), PrivateFsError> {
    let mut file = create_new(temporary)?;
    file.write_all(bytes).map_err(failed("write", temporary))?;
    file.sync_all().map_err(failed("write out", temporary))?;
    rustix::fs::rename(temporary, path).map_err(failed("replace", path))
}

const TEMPORARY_END: &str = ".new";

fn temporary_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

fn temporary_name(name: &OsStr) -> io::Result<OsString> {
    let mut bytes = [0; 8];
    random::fill(&mut bytes).map_err(io::Error::other)?;
    let mut temporary = temporary_prefix(name);
    temporary.push(hex::encode(bytes));
    temporary.push(TEMPORARY_END);
    Ok(temporary)
}

/// Removes what a [`write_atomic`] of `path` left behind when the process was killed in the middle of it.
/// Only whoever is alone in writing `path` may call it.
///
/// # Errors
/// The folder cannot be read, or a leftover cannot be removed.
pub fn remove_leftovers(path: &Path) -> Result<(), PrivateFsError> {
    let (parent, name) = parent_and_name(path)?;
    let prefix = temporary_prefix(name);
    for entry in parent.read_dir().map_err(failed("read", parent))? {
        let entry = entry.map_err(failed("read", parent))?.file_name();
        let bytes = entry.as_encoded_bytes();
        if bytes.starts_with(prefix.as_encoded_bytes()) && bytes.ends_with(TEMPORARY_END.as_bytes()) {
            let leftover = parent.join(&entry);
            std::fs::remove_file(&leftover).map_err(failed("remove", &leftover))?;
        }
    }
    Ok(())
}

/// Removes a file, if there is one.
///
/// # Errors
/// It is still there.
pub fn remove_if_present(path: &Path) -> Result<(), PrivateFsError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Opens a file for appending and reading, making it if it is missing.
///
/// # Errors
/// It is not an ordinary file of ours, or cannot be opened.
pub fn open_append(path: &Path) -> Result<File, PrivateFsError> {
    open_or_make(path, OFlags::RDWR | OFlags::APPEND)
}

/// Opens a file for reading and writing, making it with mode 0600 if it is missing.
///
/// # Errors
/// It is not an ordinary file of ours, or cannot be opened.
pub fn open_or_create(path: &Path) -> Result<File, PrivateFsError> {
    open_or_make(path, OFlags::RDWR)
}

/// Makes sure that a file exists, is an ordinary file of ours that nobody else can change, and has mode 0600.
/// For files that a library opens by their path.
///
/// # Errors
/// What is wrong with it.
pub fn check_private_file(path: &Path) -> Result<(), PrivateFsError> {
    let file = open_file(path, OFlags::RDONLY, "open")?.ok_or(Errno::NOENT).map_err(failed("open", path))?;
    let stat = check_file(&file, path)?;
    set_file_mode(&file, path, &stat)
}

/// Reads a whole file of at most `max` bytes; `None` if there is none.
///
/// # Errors
/// It is larger, is not an ordinary file of ours, or cannot be read.
pub fn read_limited(path: &Path, max: usize) -> Result<Option<Vec<u8>>, PrivateFsError> {
    let Some(file) = open_file(path, OFlags::RDONLY, "open")? else { return Ok(None) };
    let stat = check_file(&file, path)?;
    let too_large = || PrivateFsError::TooLarge { path: path.to_owned(), limit: max };
    let size = usize::try_from(stat.st_size).map_err(|_| too_large())?;
    if size > max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(size + 1);
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::from(file).take(limit).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() > max { Err(too_large()) } else { Ok(Some(bytes)) }
}

/// Writes out a folder, so that the names in it outlast a power cut.
///
/// # Errors
/// It cannot be opened or written out.
pub fn sync_dir(path: &Path) -> Result<(), PrivateFsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open", path))?;
    rustix::fs::fsync(folder).map_err(failed("write out", path))
}

/// Moves a folder to a path where nothing stands; `false`, and nothing is changed, if something does.
///
/// # Errors
/// It cannot be moved, or the folder above cannot be written out.
pub fn rename_dir_new(from: &Path, to: &Path) -> Result<bool, PrivateFsError> {
    let renamed = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems without the flag: rename(2) replaces a folder only by a folder and only if it is empty.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(from, to),
        other => other,
    };
    match renamed {
        Ok(()) => sync_dir(parent_and_name(to)?.0).map(|()| true),
        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(failed("move", from)(error)),
    }
}

/// Exchanges two folders in one step: at every moment, also after a power cut, each of the two paths has one of them.
///
/// # Errors
/// Nothing was exchanged (one of them is missing, or the file system cannot do it), or (only when a folder above
/// cannot be written out) the exchange may not outlast a power cut.
pub fn exchange_dirs(one: &Path, other: &Path) -> Result<(), PrivateFsError> {
    for path in [one, other] {
        drop(open_dir(path)?.ok_or(Errno::NOENT).map_err(failed("open", path))?);
    }
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .map_err(failed("exchange folders at", other))?;
    let (above_one, above_other) = (parent_and_name(one)?.0, parent_and_name(other)?.0);
    sync_dir(above_other)?;
    if above_one == above_other { Ok(()) } else { sync_dir(above_one) }
}

/// The right to be the only one at work somewhere; ends when dropped, or with the process.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Takes the lock that the file at `path` stands for and writes our process number into it; `None` if someone else holds it. The holder's process id
/// is written into the file where that is possible.
///
/// # Errors
/// The file cannot be made or locked, or is not an ordinary file of ours.
pub fn lock_instance(path: &Path) -> Result<Option<InstanceLock>, PrivateFsError> {
    let file = open_or_make(path, OFlags::RDWR)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // For whoever wants to signal the holder; the lock holds without it, also on a full disk.
            let pid = rustix::process::getpid().as_raw_nonzero();
            let _ = file.set_len(0).and_then(|()| writeln!(&file, "{pid}"));
            Ok(Some(InstanceLock { _file: file }))
        }
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed("lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::process::Command;

    /// A folder of its own, private.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn entries(path: &Path) -> usize {
        path.read_dir().unwrap().count()
    }

    const UMASK: &str = "PDS_TEST_UMASK_DIR";

    /// What the children of the next test do; without the variable it does nothing.
    #[test]
    fn under_a_umask_in_a_child() {
        let Some(folder) = std::env::var_os(UMASK).map(PathBuf::from) else { return };
        for umask in [0o000, 0o022, 0o077, 0o277, 0o777] {
            rustix::process::umask(Mode::from_raw_mode(umask));
            let place = folder.join(format!("{umask:o}"));
            let inner = place.join("a/b");
            ensure_private_dir(&inner).unwrap();
            write_atomic(&inner.join("atomic"), b"x").unwrap();
            drop(open_append(&inner.join("append")).unwrap());
            drop(create_new(&inner.join("new")).unwrap());
            drop(lock_instance(&inner.join("lock")).unwrap());
            for path in [&place, &place.join("a"), &inner] {
                assert_eq!(mode(path), 0o700, "{}", path.display());
            }
            for name in ["atomic", "append", "new", "lock"] {
                assert_eq!(mode(&inner.join(name)), 0o600, "{name} under {umask:o}");
            }
        }
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        let folder = folder();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "private_fs::tests::under_a_umask_in_a_child"])
            .env(UMASK, folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(entries(folder.path()), 5);
    }

    #[test]
    fn a_folder_that_only_lets_others_look_is_closed() {
        let folder = folder();
        let path = folder.path().join("open");
        std::fs::create_dir(&path).unwrap();
        set_mode(&path, 0o755);
        assert!(matches!(check_private_dir(&path), Err(PrivateFsError::NotPrivate { mode: 0o755, .. })));
        ensure_private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        check_private_dir(&path).unwrap();
    }

    #[test]
    fn folders_that_others_can_write_to_are_refused_and_named() {
        let folder = folder();
        let path = folder.path().join("shared");
        std::fs::create_dir(&path).unwrap();
        for bits in [0o770, 0o702, 0o1777] {
            set_mode(&path, bits);
            for check in [ensure_private_dir, check_private_dir] {
                let error = check(&path).unwrap_err();
                assert!(matches!(error, PrivateFsError::WritableByOthers { .. }), "{bits:o}: {error}");
                assert!(error.to_string().contains("shared"));
            }
        }
    }

    #[test]
    fn a_parent_that_others_can_write_to_is_refused_unless_it_is_sticky() {
        let folder = folder();
        let parent = folder.path().join("parent");
        let path = parent.join("mine");
        ensure_private_dir(&path).unwrap();
        set_mode(&parent, 0o770);
        for check in [ensure_private_dir, check_private_dir] {
            let error = check(&path).unwrap_err();
            assert!(
                matches!(&error, PrivateFsError::WritableByOthers { path, .. } if path.ends_with("parent")),
                "{error}"
            );
        }
        set_mode(&parent, 0o1777);
        check_private_dir(&path).unwrap();
    }

    #[test]
    fn a_namespace_without_root_is_told_from_one_with_it() {
        assert!(maps_root("         0          0 4294967295\n") && maps_root("0 1000 1\n1 100000 65536\n"));
        assert!(!maps_root("      1000       1000          1\n"));
    }

    /// Only root can give a folder away, so an ordinary user's run of this test ends at the first line.
    #[test]
    fn folders_and_files_of_others_are_refused() {
        let folder = folder();
        let theirs = folder.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        set_mode(&theirs, 0o700);
        let file = folder.path().join("file");
        write_atomic(&file, b"x").unwrap();
        if std::os::unix::fs::chown(&theirs, Some(65_534), None).is_err() {
            return;
        }
        std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
        assert!(matches!(ensure_private_dir(&theirs), Err(PrivateFsError::WrongOwner { owner: 65_534, .. })));
        assert!(matches!(check_private_dir(&theirs), Err(PrivateFsError::WrongOwner { .. })));
        assert!(matches!(open_append(&file), Err(PrivateFsError::WrongOwner { .. })));
        assert!(matches!(read_limited(&file, 9), Err(PrivateFsError::WrongOwner { .. })));
        assert!(matches!(lock_instance(&file), Err(PrivateFsError::WrongOwner { .. })));
        let below = theirs.join("mine");
        std::fs::create_dir(&below).unwrap();
        set_mode(&below, 0o700);
        let error = ensure_private_dir(&below).unwrap_err();
        assert!(
            matches!(&error, PrivateFsError::WrongOwner { path, .. } if path.ends_with("theirs")),
            "{error}"
        );
    }

    #[test]
    fn links_at_the_end_of_a_path_are_never_followed() {
        let folder = folder();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, b"untouched").unwrap();
        set_mode(&target, 0o600);
        for to in [target.clone(), folder.path().join("missing")] {
            symlink(&to, &link).unwrap();
            assert!(matches!(open_append(&link), Err(PrivateFsError::NotAFile { .. })));
            assert!(matches!(lock_instance(&link), Err(PrivateFsError::NotAFile { .. })));
            assert!(matches!(read_limited(&link, 99), Err(PrivateFsError::NotAFile { .. })));
            assert!(matches!(check_private_file(&link), Err(PrivateFsError::NotAFile { .. })));
            assert!(create_new(&link).is_err());
            std::fs::remove_file(&link).unwrap();
        }
        assert!(!folder.path().join("missing").exists());
        symlink(&target, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_file(), "the link was replaced, not followed");
        assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
        let dir_link = folder.path().join("dir-link");
        symlink(folder.path(), &dir_link).unwrap();
        assert!(matches!(ensure_private_dir(&dir_link), Err(PrivateFsError::NotAFolder { .. })));
    }

    #[test]
    fn pipes_folders_and_hard_links_are_no_files() {
        let folder = folder();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, FILE_MODE, 0).unwrap();
        let original = folder.path().join("original");
        write_atomic(&original, b"x").unwrap();
        let hard_link = folder.path().join("hard-link");
        std::fs::hard_link(&original, &hard_link).unwrap();
        for path in [&pipe, &hard_link, &folder.path().to_owned()] {
            assert!(matches!(open_append(path), Err(PrivateFsError::NotAFile { .. })), "{}", path.display());
            assert!(
                matches!(read_limited(path, 9), Err(PrivateFsError::NotAFile { .. })),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn a_file_that_others_can_write_to_is_refused_and_one_they_can_read_is_closed() {
        let folder = folder();
        let path = folder.path().join("file");
        write_atomic(&path, b"x").unwrap();
        set_mode(&path, 0o660);
        assert!(matches!(open_append(&path), Err(PrivateFsError::WritableByOthers { .. })));
        assert!(matches!(read_limited(&path, 9), Err(PrivateFsError::WritableByOthers { .. })));
        set_mode(&path, 0o644);
        open_append(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn replacing_leaves_the_new_content_and_nothing_else() {
        let folder = folder();
        let path = folder.path().join("file");
        write_atomic(&path, b"first").unwrap();
        let before = std::fs::metadata(&path).unwrap().ino();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(read_limited(&path, 6).unwrap().unwrap(), b"second");
        assert_ne!(std::fs::metadata(&path).unwrap().ino(), before, "a new file took its place");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_content_and_nothing_else() {
        let folder = folder();
        let path = folder.path().join("a-folder");
        std::fs::create_dir_all(path.join("full")).unwrap();
        write_atomic(&path, b"x").unwrap_err();
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn leftovers_of_a_killed_replacement_are_removed_and_nothing_else() {
        let folder = folder();
        let path = folder.path().join("file");
        let temporary = folder.path().join(temporary_name(OsStr::new("file")).unwrap());
        for other in
            [&path, &temporary, &folder.path().join(".other.00.new"), &folder.path().join(".file.txt")]
        {
            write_atomic(other, b"x").unwrap();
        }
        remove_leftovers(&path).unwrap();
        assert!(!temporary.exists());
        assert_eq!(entries(folder.path()), 3);
    }

    #[test]
    fn reading_stops_at_the_limit_and_absence_is_no_error() {
        let folder = folder();
        let path = folder.path().join("file");
        assert!(read_limited(&path, 9).unwrap().is_none());
        write_atomic(&path, b"12345").unwrap();
        assert_eq!(read_limited(&path, 5).unwrap().unwrap(), b"12345");
        assert!(matches!(read_limited(&path, 4), Err(PrivateFsError::TooLarge { limit: 4, .. })));
    }

    #[test]
    fn appending_keeps_what_is_there() {
        let folder = folder();
        let path = folder.path().join("file");
        open_append(&path).unwrap().write_all(b"one ").unwrap();
        open_append(&path).unwrap().write_all(b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two");
    }

    #[test]
    fn a_folder_moves_only_to_a_free_place() {
        let folder = folder();
        let [from, to, taken] = ["from", "to", "taken"].map(|name| folder.path().join(name));
        ensure_private_dir(&from).unwrap();
        ensure_private_dir(&taken).unwrap();
        assert!(!rename_dir_new(&from, &taken).unwrap());
        assert!(from.exists());
        assert!(rename_dir_new(&from, &to).unwrap());
        assert!(to.exists() && !from.exists());
    }

    #[test]
    fn two_folders_are_exchanged_or_both_stay() {
        let folder = folder();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        ensure_private_dir(&one).unwrap();
        write_atomic(&one.join("name"), b"one").unwrap();
        assert!(exchange_dirs(&one, &other).is_err(), "there is no other");
        std::fs::write(&other, b"a file").unwrap();
        assert!(matches!(exchange_dirs(&one, &other), Err(PrivateFsError::NotAFolder { .. })));
        std::fs::remove_file(&other).unwrap();
        ensure_private_dir(&other).unwrap();
        write_atomic(&other.join("name"), b"other").unwrap();
        exchange_dirs(&one, &other).unwrap();
        assert_eq!(std::fs::read(one.join("name")).unwrap(), b"other");
        assert_eq!(std::fs::read(other.join("name")).unwrap(), b"one");
        assert_eq!(entries(folder.path()), 2);
    }

    #[test]
    fn one_instance_holds_the_lock() {
        let folder = folder();
        let path = folder.path().join("lock");
        let held = lock_instance(&path).unwrap();
        assert!(held.is_some());
        assert!(lock_instance(&path).unwrap().is_none());
        drop(held);
        assert!(lock_instance(&path).unwrap().is_some());
    }

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let error = |errno: Errno| failed("write", Path::new("/x"))(errno);
        assert!(error(Errno::NOSPC).is_full() && error(Errno::DQUOT).is_full());
        assert!(!error(Errno::IO).is_full());
        assert!(!PrivateFsError::NotAFile { path: PathBuf::new() }.is_full());
    }
}
