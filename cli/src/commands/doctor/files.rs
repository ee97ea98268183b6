//! What lies on the disk: whose it is, who else can use it, and whether there is room for more.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use core_crypto::private_fs::{self, PrivateFsError};
use core_types::limits::CONFIG_BYTES_MAX;
use core_types::paths::Paths;
use core_types::policy_check::check;

use super::super::status::mebibytes;
use super::{Facts, Finding, problem};
use crate::stop::Supervisor;
use crate::units::Installation;

/// Most files that are looked at; a log kept for years has some hundred.
const FILES_MAX: usize = 10_000;
/// Most files that a finding names.
const NAMED_MAX: usize = 3;
/// Least room for vaults and logs, in bytes: some thousand changes.
const FREE_MIN: u64 = 16 << 20;
/// The magic numbers of tmpfs and ramfs (statfs(2)).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// The configuration is one that the daemons take.
pub(super) fn configuration(facts: &Facts) -> Finding {
    let path = facts.paths.config_file();
    let next = "mend the file, then run `pds config check`; until then the daemons keep what they had, or do not start";
    let bytes = match private_fs::read_limited(&path, CONFIG_BYTES_MAX) {
        Ok(None) => {
            return Finding::Good(format!("{} does not exist, so all is as by default", path.display()));
        }
        Ok(Some(bytes)) => bytes,
        Err(error) => return problem(error, "put it right, then run `pds doctor` again"),
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return problem(format!("{} is not text in UTF-8", path.display()), next);
    };
    match check(text) {
        Err(error) => problem(format!("{}: {error}", path.display()), next),
        Ok(report) => match report.tests.iter().filter(|test| !test.passed()).count() {
            0 => Finding::Good(format!("{}, {} patterns of access rules", path.display(), report.patterns)),
            failed => problem(
                format!("{}: {failed} of its own tests fail", path.display()),
                "run `pds config check`, which names them",
            ),
        },
    }
}

/// How open to others a folder may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Openness {
    /// Others may look into it, and change nothing.
    Readable,
    /// Others may do nothing.
    Closed,
}

pub(super) fn config_folder(paths: &Paths) -> PathBuf {
    paths.config_file().parent().unwrap_or(Path::new("/")).to_owned()
}

/// A folder is the user's alone, or does not exist yet.
pub(super) fn folder(path: &Path, openness: Openness) -> Finding {
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Finding::Good(format!("{} does not exist yet", path.display()));
    }
    match private_fs::check_private_dir(path) {
        Ok(()) => Finding::Good(path.display().to_string()),
        Err(PrivateFsError::NotPrivate { .. }) if openness == Openness::Readable => {
            Finding::Good(path.display().to_string())
        }
        Err(error) => problem(error, "put it right, then run `pds doctor` again"),
    }
}

/// Every file of the vaults and the audit log is the user's alone.
pub(super) fn files(facts: &Facts) -> Finding {
    let mut wrong = Wrong::default();
    for folder in [facts.paths.data(), facts.paths.state()] {
        wrong.look_through(folder, own_user());
    }
    match wrong.found.len() {
        0 if wrong.seen > FILES_MAX => {
            Finding::Note(format!("of more than {FILES_MAX} files the rest was not looked at"))
        }
        0 => Finding::Good(format!("{} files and folders are yours alone", wrong.seen)),
        found => {
            let named: Vec<&str> = wrong.found.iter().take(NAMED_MAX).map(String::as_str).collect();
            let more =
                if found > NAMED_MAX { format!(" and {} more", found - NAMED_MAX) } else { String::new() };
            problem(
                format!("{}{more}", named.join("; ")),
                "find out who changed that; then `chmod -R go=` and, as root, `chown -R` put it right",
            )
        }
    }
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[derive(Default)]
struct Wrong {
    seen: usize,
    found: Vec<String>,
}

impl Wrong {
    fn look_through(&mut self, folder: &Path, owner: u32) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            self.seen += 1;
            if self.seen > FILES_MAX {
                return;
            }
            let path = entry.path();
            // What is gone by now was only being exchanged.
            let Ok(metadata) = entry.metadata() else { continue };
            if let Some(reason) = wrong_with(&metadata, owner) {
                self.found.push(format!("{} {reason}", path.display()));
            } else if metadata.is_dir() {
                self.look_through(&path, owner);
            }
        }
    }
}

/// What is wrong with a file that should be its owner's alone.
fn wrong_with(metadata: &Metadata, owner: u32) -> Option<String> {
    let mode = metadata.permissions().mode() & 0o7777;
    match (metadata.is_symlink(), metadata.uid() == owner) {
        (true, _) => Some("is a link, and we make none".to_owned()),
        (_, false) => Some(format!("belongs to the user {}", metadata.uid())),
        _ if mode & 0o077 != 0 => Some(format!("is open to others (mode {mode:04o})")),
        _ => None,
    }
}

/// The sockets that clients and systemd connect to are there, while somebody serves them.
pub(super) fn sockets(facts: &Facts) -> Finding {
    let served = facts.peers.is_ok() || matches!(Supervisor::find(&facts.paths), Ok(Some(_)));
    if !served {
        return Finding::Unknown("the daemons do not run".to_owned());
    }
    let mut wanted = vec![facts.paths.bus_socket()];
    if matches!(facts.units, Installation::Units(_)) {
        wanted.push(facts.paths.credentials_socket());
    }
    let is_ours = |path: &PathBuf| {
        path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket() && found.uid() == own_user())
    };
    match wanted.iter().find(|path| !is_ours(path)) {
        Some(path) => problem(
            format!("{} is not the socket that the daemons have made", path.display()),
            "something has removed or replaced it: run `pds daemon restart`, which locks all profiles",
        ),
        None => {
            Finding::Good(wanted.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The folder of the sockets is gone with the machine's power, as it should be.
pub(super) fn runtime_in_memory(facts: &Facts) -> Finding {
    let path = facts.paths.runtime();
    match rustix::fs::statfs(path) {
        Ok(found) if u64::try_from(found.f_type).is_ok_and(|kind| IN_MEMORY.contains(&kind)) => {
            Finding::Good(format!("{} is in memory", path.display()))
        }
        Ok(_) => Finding::Note(format!(
            "{} is on a disk; `pds run --files` and `pds edit` want one in memory, which XDG_RUNTIME_DIR usually is",
            path.display()
        )),
        Err(error) => Finding::Unknown(format!("{}: {error}", path.display())),
    }
}

/// Vaults and logs can be written to.
pub(super) fn room(facts: &Facts) -> Finding {
    let mut least = None;
    for folder in [facts.paths.data(), facts.paths.state()] {
        let Some(there) = folder.ancestors().find(|folder| folder.exists()) else { continue };
        let found = match rustix::fs::statvfs(there) {
            Ok(found) => found,
            Err(error) => return Finding::Unknown(format!("{}: {error}", there.display())),
        };
        if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return problem(
                format!("{} is on a file system that can only be read", there.display()),
                "make it writable: until then secrets can be read, not changed, and only best-effort profiles answer",
            );
        }
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free < FREE_MIN {
            return problem(
                format!("{} has {} left", there.display(), mebibytes(free)),
                "make room: without any, secrets cannot be changed, and profiles whose audit mode is durable refuse to serve",
            );
        }
        least = Some(least.map_or(free, |least: u64| least.min(free)));
    }
    Finding::Good(least.map_or_else(|| "unknown".to_owned(), |free| format!("{} are free", mebibytes(free))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_that_others_can_use_are_named_and_a_readable_configuration_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("vaults");
        assert!(matches!(folder(&path, Openness::Closed), Finding::Good(_)), "not made yet");
        std::fs::create_dir(&path).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        for (bits, closed, readable) in
            [(0o700, true, true), (0o755, false, true), (0o770, false, false), (0o777, false, false)]
        {
            mode(bits);
            assert_eq!(matches!(folder(&path, Openness::Closed), Finding::Good(_)), closed, "{bits:o}");
            assert_eq!(matches!(folder(&path, Openness::Readable), Finding::Good(_)), readable, "{bits:o}");
        }
    }

    #[test]
    fn a_file_that_is_open_a_link_or_of_somebody_else_is_named() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let file = inner.join("vault.db");
        std::fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        mode(&inner, 0o700);
        mode(&file, 0o600);
        let found = |owner| {
            let mut wrong = Wrong::default();
            wrong.look_through(root.path(), owner);
            wrong.found.join("; ")
        };
        assert_eq!(found(own_user()), "");
        mode(&file, 0o640);
        assert!(found(own_user()).contains("vault.db is open to others (mode 0640)"));
        mode(&file, 0o600);
        symlink(&file, inner.join("other")).unwrap();
        assert!(found(own_user()).contains("other is a link"));
        assert!(found(own_user() + 1).contains("inner belongs to the user"));
    }
}
