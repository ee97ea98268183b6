//! `pds mount` and `pds umount`: secrets as files in a folder, for containers that are started later, which `pds run` cannot
//! give a view of their own.
//!
//! The folder has to lie in memory. Nothing is mounted: a mount of ours would end with this process or need root to
//! undo, and what reads the files may live in other namespaces.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use core_types::child::files::files;
use core_types::protocol::launcher::Run;
use core_types::protocol::secrets::{NamedSecret, Selection};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, fchown, fstat, mkdirat, openat, renameat, statfs, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::Serialize;

use crate::args::MountOptions;
use crate::error::Failure;
use crate::fetch::{self, denied};
use crate::session::Session;

/// How folders are opened: themselves, and no link to them.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// By this file a folder is known as one that we filled: each line of it is a file that is ours. No secret has such a name.
const LIST: &str = ".pds@mount";
/// Longest list, in bytes.
const LIST_BYTES_MAX: u64 = 16 << 20;
/// The name of a file until all of it is written; no secret has it either.
const NEW: &str = ".pds@new";
/// File systems in memory (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Why a folder cannot be filled or emptied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("{} lies on a disk, where deleted files can be found again", path.display())]
    OnDisk { path: PathBuf },
    #[error("{} is not a folder of yours that nobody else can write", path.display())]
    NotPrivate { path: PathBuf },
    #[error("{} is not empty, and not by pds mount", path.display())]
    NotEmpty { path: PathBuf },
    #[error("{} was not filled by pds mount", path.display())]
    NotOurs { path: PathBuf },
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl MountError {
    /// What to do next.
    pub(crate) fn next(&self) -> &'static str {
        match self {
            Self::OnDisk { .. } => {
                "take a folder below $XDG_RUNTIME_DIR or /dev/shm, or have root mount a tmpfs there"
            }
            Self::NotPrivate { .. } => "make a folder of mode 0700 that is yours",
            Self::NotEmpty { .. } => "take an empty folder, or one that is not there yet",
            Self::NotOurs { .. } => "see that it is the folder that was given to `pds mount`",
            Self::Io { .. } => "see its mode, and whether there is room",
        }
    }

    fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// `pds mount --json`.
#[derive(Serialize)]
struct Mounted<'a> {
    folder: &'a str,
    files: Vec<&'a str>,
}

/// `pds umount --json`.
#[derive(Serialize)]
struct Unmounted<'a> {
    folder: &'a str,
    removed: usize,
    folder_removed: bool,
}

/// `pds mount`: puts the selected secrets into a folder, or puts the folder right that it filled before.
pub(super) fn mount(session: &mut Session, options: &MountOptions) -> Result<(), Failure> {
    let folder = prepared(&options.folder)?;
    let selection = match options.only.as_slice() {
        [] => Selection::All,
        only => Selection::Only(only.to_vec()),
    };
    let run = Run { profiles: session.profiles()?, selection, ..Run::default() };
    let secrets = fetch::in_parts(session, &run)?;
    let wanted = files(&run, &secrets).map_err(denied)?;
    folder.fill(&wanted, options.owner)?;
    session.messages.note(format!(
        "{} secrets lie in {} until `pds umount` there, also when the profile is locked",
        wanted.len(),
        folder.path.display()
    ));
    session.output.object_if_wanted(&Mounted {
        folder: &folder.path.to_string_lossy(),
        files: wanted.iter().map(|secret| secret.name.as_str()).collect(),
    })
}

/// `pds umount`: removes what `pds mount` put there, and nothing else.
pub(super) fn umount(session: &mut Session, folder: &Path) -> Result<(), Failure> {
    let folder = Folder::open(folder)?;
    let names = folder.listed()?.ok_or_else(|| MountError::NotOurs { path: folder.path.clone() })?;
    let count = names.len();
    folder.remove_all(&names)?;
    folder.remove(Path::new(LIST))?;
    // With something of somebody else's in it, it stays.
    let gone = fs::remove_dir(&folder.path).is_ok();
    let what = if gone { "is gone" } else { "stays" };
    session.messages.detail(format!("{count} files are removed; {} {what}", folder.path.display()));
    session.output.object_if_wanted(&Unmounted {
        folder: &folder.path.to_string_lossy(),
        removed: count,
        folder_removed: gone,
    })
}

/// The folder, which is made if it is not there: in memory, ours alone, and empty or filled by us.
fn prepared(path: &Path) -> Result<Folder, MountError> {
    if let Err(error) = fs::symlink_metadata(path)
        && error.kind() == io::ErrorKind::NotFound
    {
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        in_memory(above)?;
        fs::DirBuilder::new().mode(0o700).create(path).map_err(MountError::at("cannot make", path))?;
    }
    let folder = Folder::open(path)?;
    in_memory(&folder.path)?;
    if folder.listed()?.is_none() {
        let mut there = fs::read_dir(&folder.path).map_err(MountError::at("cannot read", &folder.path))?;
        if there.next().is_some() {
            return Err(MountError::NotEmpty { path: folder.path });
        }
    }
    Ok(folder)
}

fn in_memory(folder: &Path) -> Result<(), MountError> {
    let found = statfs(folder).map_err(|error| MountError::at("cannot look at", folder)(error.into()))?;
    // The kernel's number is one of 32 bits, whatever the type it is given in.
    match IN_MEMORY.contains(&(found.f_type & 0xffff_ffff)) {
        true => Ok(()),
        false => Err(MountError::OnDisk { path: folder.to_owned() }),
    }
}

/// A folder that is ours, or was given away by root. Whoever reads the files may have been given the right to write here
/// as well, so no link in it is followed.
struct Folder {
    path: PathBuf,
    opened: OwnedFd,
}

impl Folder {
    fn open(path: &Path) -> Result<Self, MountError> {
        let path = fs::canonicalize(path).map_err(MountError::at("cannot find", path))?;
        let failed = |error: Errno| MountError::at("cannot open", &path)(error.into());
        let opened = rustix::fs::open(&path, FOLDER, Mode::empty()).map_err(failed)?;
        let found = fstat(&opened).map_err(failed)?;
        let own = geteuid().is_root() || found.st_uid == geteuid().as_raw();
        match own && found.st_mode & 0o022 == 0 {
            true => Ok(Self { path, opened }),
            false => Err(MountError::NotPrivate { path }),
        }
    }

    fn failed(&self, what: &'static str, name: &Path) -> impl FnOnce(Errno) -> MountError {
        let path = self.path.join(name);
        move |error| MountError::Io { what, path, source: error.into() }
    }

    /// The files that we put there, relative to the folder; none if it was not us.
    fn listed(&self) -> Result<Option<BTreeSet<PathBuf>>, MountError> {
        let name = Path::new(LIST);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.opened, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(self.failed("cannot open", name))?,
        };
        let found = fstat(&file).map_err(self.failed("cannot look at", name))?;
        if !FileType::from_raw_mode(found.st_mode).is_file() || found.st_uid != geteuid().as_raw() {
            return Err(MountError::NotOurs { path: self.path.clone() });
        }
        let mut text = String::new();
        let read = File::from(file).take(LIST_BYTES_MAX).read_to_string(&mut text);
        read.map_err(MountError::at("cannot read", &self.path.join(name)))?;
        Ok(Some(text.lines().map(PathBuf::from).collect()))
    }

    /// Puts the files there. What is to be there is listed first, so that whatever stops us leaves nothing that is not
    /// known as ours.
    fn fill(&self, secrets: &[&NamedSecret], owner: Option<(u32, u32)>) -> Result<(), MountError> {
        let names: BTreeSet<PathBuf> =
            secrets.iter().map(|secret| PathBuf::from(secret.name.as_str())).collect();
        let before = self.listed()?.unwrap_or_default();
        self.list(before.union(&names))?;
        // First, because a name that was a file may be a folder now.
        self.remove_all(&before.difference(&names).cloned().collect())?;
        for secret in secrets {
            self.write(Path::new(secret.name.as_str()), secret.value.expose(), Mode::RUSR, owner)?;
        }
        give(&self.opened, owner).map_err(self.failed("cannot give away", Path::new("")))?;
        self.list(names.iter())
    }

    fn list<'a>(&self, names: impl Iterator<Item = &'a PathBuf>) -> Result<(), MountError> {
        let lines: String = names.map(|name| format!("{}\n", name.display())).collect();
        self.write(Path::new(LIST), lines.as_bytes(), Mode::RUSR | Mode::WUSR, None)
    }

    /// Puts a file in its place when all of it is written, in folders that are made for it.
    fn write(
        &self,
        name: &Path,
        bytes: &[u8],
        mode: Mode,
        owner: Option<(u32, u32)>,
    ) -> Result<(), MountError> {
        let (above, last) =
            self.above(name, Some(owner)).map_err(self.failed("cannot make the folder of", name))?;
        let _ = unlinkat(&self.opened, NEW, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new =
            openat(&self.opened, NEW, flags, mode).map_err(self.failed("cannot make", Path::new(NEW)))?;
        let mut new = File::from(new);
        let written = new.write_all(bytes).map_err(MountError::at("cannot write", &self.path.join(name)));
        let placed = written.and_then(|()| {
            give(&new, owner).map_err(self.failed("cannot give away", name))?;
            renameat(&self.opened, NEW, &above, &last).map_err(self.failed("cannot put in its place", name))
        });
        if placed.is_err() {
            let _ = unlinkat(&self.opened, NEW, AtFlags::empty());
        }
        placed
    }

    /// The folder of a file and its name there; with `make` the folders that are missing are made, for that owner.
    fn above(&self, name: &Path, make: Option<Option<(u32, u32)>>) -> Result<(OwnedFd, OsString), Errno> {
        let last = name.file_name().ok_or(Errno::INVAL)?.to_owned();
        let mut folder = rustix::io::fcntl_dupfd_cloexec(&self.opened, 0)?;
        for part in name.parent().into_iter().flat_map(Path::components) {
            let Component::Normal(part) = part else { return Err(Errno::INVAL) };
            if let Some(owner) = make {
                match mkdirat(&folder, part, Mode::RWXU) {
                    Ok(()) => give(openat(&folder, part, FOLDER, Mode::empty())?, owner)?,
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
            }
            folder = openat(&folder, part, FOLDER, Mode::empty())?;
        }
        Ok((folder, last))
    }

    /// Removes files that are ours, and the folders that are empty without them.
    fn remove_all(&self, names: &BTreeSet<PathBuf>) -> Result<(), MountError> {
        names.iter().try_for_each(|name| self.remove(name))?;
        let folders = names.iter().rev().flat_map(|name| name.ancestors().skip(1));
        for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
            if let Ok((above, last)) = self.above(folder, None) {
                let _ = unlinkat(above, &last, AtFlags::REMOVEDIR);
            }
        }
        self.remove(Path::new(NEW))
    }

    fn remove(&self, name: &Path) -> Result<(), MountError> {
        let removed =
            self.above(name, None).and_then(|(above, last)| unlinkat(above, &last, AtFlags::empty()));
        match removed {
            // Somebody else has removed it, or put something of his in its place.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => Ok(()),
            Err(error) => Err(self.failed("cannot remove", name)(error)),
        }
    }
}

/// Gives a file or folder to the owner that was asked for.
fn give(opened: impl AsFd, owner: Option<(u32, u32)>) -> Result<(), Errno> {
    let Some((user, group)) = owner else { return Ok(()) };
    fchown(opened, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
}
