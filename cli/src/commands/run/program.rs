//! The file of the command, for a run that is pinned to what is in it: found as the command would be, and opened.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use core_types::protocol::launcher::{LauncherDenial, OsBytes};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

/// Where commands are looked for if nothing says it (execvp(3)).
const PATH_DEFAULT: &str = "/bin:/usr/bin";

/// Opens the file of a command; `variables` are those of the child that the caller has not.
///
/// # Errors
/// There is none, it cannot be executed, or it can and not be read.
pub(super) fn open(command: &OsStr, variables: &[OsBytes]) -> Result<OwnedFd, LauncherDenial> {
    let mut refused = None;
    for path in candidates(command, &search_path(variables)) {
        match executable(&path) {
            Ok(()) => {
                let file = File::open(&path).map_err(|error| {
                    LauncherDenial::Unpinnable(format!("{} cannot be read: {error}", path.display()))
                });
                return Ok(file?.into());
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            // Another folder of the path may have one that can (execvp(3)).
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(match refused {
        Some(error) => LauncherDenial::NotExecutable(error.to_string()),
        None => LauncherDenial::NotFound,
    })
}

fn executable(path: &Path) -> Result<(), Errno> {
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    if path.is_dir() { Err(Errno::ACCESS) } else { Ok(()) }
}

/// The PATH that the child will have.
fn search_path(variables: &[OsBytes]) -> OsString {
    let own = variables.iter().find_map(|pair| pair.expose().strip_prefix(b"PATH="));
    let own = own.map(|value| OsString::from_vec(value.to_vec()));
    own.or_else(|| env::var_os("PATH")).unwrap_or_else(|| PATH_DEFAULT.into())
}

/// Where the file may be.
fn candidates(command: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    if command.is_empty() {
        return Vec::new();
    }
    if command.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(command)];
    }
    env::split_paths(path).map(|folder| folder.join(command)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::WireSecret;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_command_is_found_as_the_shell_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, name).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        make("first/only-data", 0o644);
        make("second/tool", 0o755);
        make("second/only-data", 0o755);
        std::fs::create_dir(folder.path().join("first/tool")).unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let variables = [WireSecret::new(format!("PATH={}:{}", path("first"), path("second")).into_bytes())];
        let found = |command: &str| {
            let mut text = String::new();
            open(OsStr::new(command), &variables).map(|file| {
                std::io::Read::read_to_string(&mut File::from(file), &mut text).unwrap();
                text
            })
        };
        assert_eq!(found("tool").unwrap(), "second/tool", "a folder of that name is none");
        assert_eq!(found("only-data").unwrap(), "second/only-data");
        assert_eq!(found(&path("second/tool")).unwrap(), "second/tool");
        assert!(matches!(found(&path("first/only-data")), Err(LauncherDenial::NotExecutable(_))));
        for missing in ["none", "", "first/none"] {
            assert_eq!(found(missing), Err(LauncherDenial::NotFound), "{missing}");
        }
    }
}
