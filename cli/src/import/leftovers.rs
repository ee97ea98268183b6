//! What still holds the values in clear when they are in the vault: the file itself, copies beside it that editors make,
//! and a git history. And removing the file, as far as that can be done.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::OFlags;

/// Bytes that are overwritten at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Where values may still stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    /// Copies beside the file that editors and users make.
    pub(crate) copies: Vec<PathBuf>,
    /// Whether a git history has the file.
    pub(crate) in_git: bool,
    /// Whether the file has other names (hard links).
    pub(crate) linked: bool,
}

/// Looks for what is beside a file. What cannot be looked at is not told.
pub(crate) fn look(path: &Path) -> Leftovers {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
        return Leftovers::default();
    };
    let candidates = [
        format!("{name}~"),
        format!("{name}.bak"),
        format!("{name}.old"),
        format!("{name}.orig"),
        format!("{name}.save"),
        format!("#{name}#"),
        format!(".{name}.swp"),
        format!(".{name}.swo"),
        format!(".{name}.un~"),
    ];
    let beside = candidates.map(|candidate| path.with_file_name(candidate));
    let copies = beside.into_iter().filter(|copy| copy.symlink_metadata().is_ok()).collect();
    let linked = path.symlink_metadata().is_ok_and(|found| found.is_file() && found.nlink() > 1);
    Leftovers { copies, in_git: is_in_git(path, &name), linked }
}

fn is_in_git(path: &Path, name: &str) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let says_something = |arguments: &[&str]| {
        let mut git = Command::new("git");
        // No program that the repository itself names is run.
        git.arg("-C").arg(folder).args(["-c", "core.fsmonitor=false", "--no-pager"]).args(arguments);
        git.arg("--").arg(format!("./{name}")).env("GIT_OPTIONAL_LOCKS", "0");
        let output = git.stdin(Stdio::null()).stderr(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
    };
    says_something(&["ls-files", "--cached"]) || says_something(&["log", "--all", "-1", "--format=%h"])
}

/// Overwrites a file and removes it; afterwards nothing is at its path.
///
/// # Errors
/// It is no plain file, or could not be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let mut file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    // Under another name it is somebody else's to overwrite.
    if found.nlink() == 1 {
        overwrite(&mut file, found.len())?;
    }
    std::fs::remove_file(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("there is a file of that name again")),
    }
}

fn overwrite(file: &mut File, mut left: u64) -> io::Result<()> {
    file.rewind()?;
    let zeros = [0; CHUNK_BYTES];
    while left > 0 {
        let chunk = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all(&zeros[..chunk])?;
        left -= chunk as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_links_and_a_history_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        std::fs::write(&path, "A=1").unwrap();
        assert_eq!(look(&path), Leftovers::default());
        for copy in [".env~", "..env.swp"] {
            std::fs::write(folder.path().join(copy), "").unwrap();
        }
        std::fs::hard_link(&path, folder.path().join("other")).unwrap();
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(folder.path()).args(["-c", "user.name=x", "-c", "user.email=x@x"]);
            assert!(git.args(arguments).stdout(Stdio::null()).status().unwrap().success());
        };
        git(&["init", "-q"]);
        assert!(!look(&path).in_git);
        git(&["add", ".env"]);
        assert!(look(&path).in_git, "staged");
        git(&["commit", "-q", "-m", "x"]);
        git(&["rm", "-q", "--cached", ".env"]);
        git(&["commit", "-q", "-m", "y"]);
        let found = look(&path);
        assert!(found.in_git && found.linked, "in the history only");
        assert_eq!(found.copies.len(), 2);
    }

    #[test]
    fn what_is_removed_is_overwritten_and_gone_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![b'x'; CHUNK_BYTES + 9]).unwrap();
        let held = File::open(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        let mut left = Vec::new();
        io::Read::read_to_end(&mut &held, &mut left).unwrap();
        assert!(left.iter().all(|byte| *byte == 0) && left.len() == CHUNK_BYTES + 9);
        std::fs::write(&path, "kept").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(remove(&link).is_err() && remove(folder.path()).is_err());
        let other = folder.path().join("other");
        std::fs::hard_link(&path, &other).unwrap();
        remove(&path).unwrap();
        assert_eq!(std::fs::read(&other).unwrap(), b"kept");
    }
}
