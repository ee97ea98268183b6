//! The limits that a daemon was started with: raised as far as it may, and refused in one line where they leave too
//! little to work with, instead of failing somewhere in the middle later.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that a daemon wants: enough for every connection that the bus may have.
const FILES_WANTED: u64 = 1_024;
/// Open files that a daemon needs at least: what it holds itself, and some vaults or connections.
const FILES_MIN: u64 = 64;
/// Address space that a daemon needs at least, in bytes: its programs and threads, the memory of one key derivation
/// (64 MiB), and the requests it may have at once in everyday use.
const ADDRESS_SPACE_MIN: u64 = 512 << 20;

/// A limit that is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is {found}, and at least {needed} are needed: raise it with `ulimit {option}`, or with {unit}= in a unit"
)]
pub struct LimitTooLow {
    /// The limit (getrlimit(2)).
    pub name: &'static str,
    /// What it is.
    pub found: u64,
    /// What it has to be.
    pub needed: u64,
    /// The shell's option for it.
    pub option: &'static str,
    /// systemd's setting for it.
    pub unit: &'static str,
}

/// Raises the limit on open files to what is wanted, as far as the hard limit allows, and sees that all limits leave
/// enough.
///
/// # Errors
/// The first that does not.
pub(crate) fn prepare() -> Result<(), LimitTooLow> {
    let files = getrlimit(Resource::Nofile);
    let wanted = files.maximum.unwrap_or(FILES_WANTED).min(FILES_WANTED);
    if files.current.is_some_and(|current| current < wanted) {
        // What cannot be raised is judged as it is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: files.maximum });
    }
    judge(getrlimit(Resource::Nofile).current, getrlimit(Resource::As).current)
}

fn judge(files: Option<u64>, address_space: Option<u64>) -> Result<(), LimitTooLow> {
    let limits = [
        ("RLIMIT_NOFILE", files, FILES_MIN, "-n", "LimitNOFILE"),
        ("RLIMIT_AS", address_space, ADDRESS_SPACE_MIN, "-v", "LimitAS"),
    ];
    for (name, found, needed, option, unit) in limits {
        if let Some(found) = found.filter(|found| *found < needed) {
            return Err(LimitTooLow { name, found, needed, option, unit });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_too_little_is_named_with_the_way_to_raise_it() {
        assert_eq!(judge(None, None), Ok(()));
        assert_eq!(judge(Some(FILES_MIN), Some(ADDRESS_SPACE_MIN)), Ok(()));
        let error = judge(Some(16), None).unwrap_err().to_string();
        for part in ["RLIMIT_NOFILE is 16", "at least 64", "ulimit -n", "LimitNOFILE="] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(judge(None, Some(1 << 20)).unwrap_err().name, "RLIMIT_AS");
    }
}
