//! The key of an enrolled daemon, in a file that the daemon alone is given: 64 hex digits of the private half.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use core_crypto::private_fs::{self, PrivateFsError};
use zeroize::Zeroizing;

use crate::wire::Identity;

/// Why there is no key from a file, or none in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not private, exists already where it must not, or cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFsError),
    /// Others may read it.
    #[error("{path} can be read by others: close it with chmod 0600, and enroll a new key", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file, or it does not hold a key.
    #[error("{path} does not hold a key of 64 hex digits", path = path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// Makes a key pair and writes its private half into a new file that only its owner can read.
///
/// # Errors
/// The file exists, or cannot be written.
pub fn create(path: &Path) -> Result<Identity, KeyFileError> {
    let identity = Identity::generate().map_err(|_| KeyFileError::Random)?;
    let mut file = private_fs::create_new(path)?;
    let mut line = identity.private_hex();
    line.push('\n');
    let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|source| PrivateFsError::Io { action: "write", path: path.to_owned(), source })?;
    Ok(identity)
}

/// The key pair of a file that [`create`] made.
///
/// # Errors
/// There is no such file, others can read or change it, or it holds something else.
pub fn read(path: &Path) -> Result<Identity, KeyFileError> {
    let no_key = || KeyFileError::NoKey { path: path.to_owned() };
    let bytes = Zeroizing::new(private_fs::read_limited(path, 128)?.ok_or_else(no_key)?);
    let open = std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
    if open {
        return Err(KeyFileError::Open { path: path.to_owned() });
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| no_key())?;
    Identity::from_private_hex(text.trim()).ok_or_else(no_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_and_is_written_over_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = create(&path).unwrap();
        assert_eq!(read(&path).unwrap().public(), made.public());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(create(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(KeyFileError::Open { .. })));
        assert!(matches!(read(&folder.path().join("none")), Err(KeyFileError::NoKey { .. })));
    }
}
