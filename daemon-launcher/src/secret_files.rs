//! Secrets as files that no other process sees: a file system in memory, in a mount namespace of the child's own.
//!
//! The namespace lives as long as a process in it, and the files with it, whoever else is killed. Where this process may
//! not make one, it makes a user namespace for that first, in which it is the user that it is.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::process::{DumpableBehavior, getegid, geteuid, getpid, set_dumpable_behavior};

use crate::children::began;
use crate::handover::SecretFiles;

/// File systems that lie in memory, the one that is never swapped first (ramfs, tmpfs(5)).
const FILE_SYSTEMS: [(&str, &std::ffi::CStr); 3] =
    [("ramfs", c"mode=0700"), ("tmpfs", c"mode=0700,noswap"), ("tmpfs", c"mode=0700")];
/// The extension of what is noted of a folder that others can see.
const NOTE: &str = "of";
/// Nothing of it is a program or a device.
const FLAGS: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID).union(MountFlags::NOEXEC);

/// Makes the files, in a mount namespace of this process's own; its working directory goes along.
///
/// # Errors
/// The kernel allows no such namespace or file system, or the folder is not there.
pub(crate) fn make(files: &SecretFiles) -> io::Result<()> {
    let folder = Path::new(&files.folder);
    if files.exposed {
        return make_exposed(folder, files);
    }
    own_namespace()?;
    // What is mounted outside from now on comes in; nothing of ours goes out.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    lay_over(folder)?;
    let filled = fill(folder, files)
        .and_then(|()| Ok(mount_remount(folder, FLAGS | MountFlags::RDONLY | MountFlags::BIND, c"")?));
    if filled.is_err() {
        let _ = unmount(folder, UnmountFlags::DETACH);
    }
    filled
}

/// Does what [`make`] does before there are files, so that the next one can be told whether it may.
///
/// # Errors
/// As [`make`].
pub(crate) fn try_out() -> io::Result<()> {
    own_namespace()?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(lay_over(Path::new("/"))?)
}

/// Makes the folder with the files where it is to be, after what is left of others that ended with all that would have
/// removed theirs.
fn make_exposed(folder: &Path, files: &SecretFiles) -> io::Result<()> {
    let all = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
    remove_left(all);
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    let began = began(own).ok_or(io::ErrorKind::NotFound)?;
    // The note comes first, so that there never is a folder without one.
    let note = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(note_of(folder))?;
    write!(&note, "{own} {began}")?;
    std::fs::DirBuilder::new().mode(0o700).create(folder)?;
    fill(folder, files).inspect_err(|_| remove(folder))
}

/// Beside a folder: the process that it is for.
fn note_of(folder: &Path) -> PathBuf {
    folder.with_extension(NOTE)
}

/// Removes a folder that [`make`] made, and says nothing if it cannot: whoever comes next tries again.
pub(crate) fn remove(folder: &Path) {
    if let Ok(()) | Err(io::ErrorKind::NotFound) =
        std::fs::remove_dir_all(folder).map_err(|error| error.kind())
    {
        let _ = std::fs::remove_file(note_of(folder));
    }
}

/// Removes the folders of programs that have ended.
pub(crate) fn remove_left(all: &Path) {
    for note in std::fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if note.extension().is_none_or(|extension| extension != NOTE) {
            continue;
        }
        let text = std::fs::read_to_string(&note).unwrap_or_default();
        let of = text.split_once(' ').and_then(|(pid, began)| Some((pid.parse().ok()?, began.parse().ok()?)));
        // One that is empty is just being written.
        if of.is_some_and(|(pid, then): (u32, u64)| began(pid) != Some(then)) {
            remove(&note.with_extension(""));
        }
    }
}

/// Mounts the best file system that may be.
fn lay_over(folder: &Path) -> Result<(), Errno> {
    let mut outcome = Err(Errno::PERM);
    for (kind, options) in FILE_SYSTEMS {
        outcome = mount("pds", folder, kind, FLAGS, Some(options));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn own_namespace() -> io::Result<()> {
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        return Ok(());
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // The files of a process that is not dumpable are root's (proc(5)). What others of the user can read here for that
    // moment, they can as soon as the command is executed.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    // In this order (user_namespaces(7)).
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn fill(root: &Path, files: &SecretFiles) -> io::Result<()> {
    let mut made = vec![root.to_owned()];
    for (name, value) in &files.files {
        let path = root.join(name);
        for folder in missing(&path) {
            std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
            made.push(folder);
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
        io::Write::write_all(&mut file, value.expose())?;
        made.push(path);
    }
    if let Some((user, group)) = files.owner {
        made.iter().try_for_each(|path| chown(path, Some(user), Some(group)))?;
    }
    Ok(())
}

/// The folders above a file that are not there yet, the outermost first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().skip(1).take_while(|folder| !folder.exists());
    let mut folders: Vec<PathBuf> = above.map(Path::to_owned).collect();
    folders.reverse();
    folders
}
