//! The keys that the user has given names to: a file of enrolled and revoked daemons.
//!
//! The bus writes it, and stamps the name of a key on the connections that prove to own it. Whoever answers sealed
//! requests reads it too, so that a name holds for the key that the user enrolled and not for what the bus says.
//!
//! Each line is `enrolled` or `revoked`, a name, a key as 64 hex digits, and milliseconds of the Unix epoch.

use std::fmt::Write as _;
use std::path::Path;

use core_crypto::private_fs::{self, PrivateFsError};
use core_types::DaemonName;
use core_types::limits::{ENROLLED_BYTES_MAX, ENROLLED_MAX, REVOKED_MAX};
use core_types::name::is_own;

use crate::wire::PublicKey;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnrolledFileError {
    /// It is not private, or cannot be read or written.
    #[error(transparent)]
    File(#[from] PrivateFsError),
    /// A line of it is not what stands there.
    #[error("{path}: line {line} is not that of an enrolled daemon", path = path.display())]
    Line {
        /// The file.
        path: std::path::PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

/// Why a daemon is not enrolled or revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrollError {
    /// The name is one of ours.
    #[error("the name belongs to pds itself")]
    Reserved,
    /// The name is enrolled.
    #[error("a daemon is enrolled under the name")]
    Exists,
    /// The key is or was that of another daemon.
    #[error("the key is, or was, that of another daemon")]
    KeyUsed,
    /// There is no room for another.
    #[error("too many daemons are enrolled")]
    TooMany,
    /// Nobody is enrolled under the name.
    #[error("no daemon is enrolled under the name")]
    Unknown,
}

/// What a key is to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// That of the daemon of this name.
    Enrolled(DaemonName),
    /// That of a daemon which is one no longer.
    Revoked,
}

/// A key that has or had a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledEntry {
    /// The name.
    pub name: DaemonName,
    /// The key.
    pub key: PublicKey,
    /// When it was enrolled, or revoked, in milliseconds of the Unix epoch.
    pub since_unix_ms: u64,
}

/// All enrolled daemons, and those that were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnrolledDaemons {
    enrolled: Vec<EnrolledEntry>,
    revoked: Vec<EnrolledEntry>,
}

impl EnrolledDaemons {
    /// Reads the file; nobody is enrolled where there is none.
    ///
    /// # Errors
    /// It is somebody else's, or not such a file.
    pub fn read(path: &Path) -> Result<Self, EnrolledFileError> {
        let bytes = private_fs::read_limited(path, ENROLLED_BYTES_MAX)?.unwrap_or_default();
        let mut all = Self::default();
        for (place, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let entry = std::str::from_utf8(line).ok().and_then(|line| read_line(line.strip_suffix('\n')?));
            let wrong = || EnrolledFileError::Line { path: path.to_owned(), line: place + 1 };
            match entry.ok_or_else(wrong)? {
                (true, entry) => all.enrolled.push(entry),
                (false, entry) => all.revoked.push(entry),
            }
        }
        Ok(all)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), EnrolledFileError> {
        let mut text = String::new();
        for (word, entries) in [("enrolled", &self.enrolled), ("revoked", &self.revoked)] {
            for EnrolledEntry { name, key, since_unix_ms } in entries {
                let _never_fails = writeln!(text, "{word} {name} {} {since_unix_ms}", key.to_hex());
            }
        }
        Ok(private_fs::write_atomic(path, text.as_bytes())?)
    }

    /// Gives a name to a key.
    ///
    /// # Errors
    /// The name or the key is taken, or there are too many.
    pub fn enroll(&mut self, entry: EnrolledEntry) -> Result<(), EnrollError> {
        if is_own(entry.name.as_str()) {
            return Err(EnrollError::Reserved);
        }
        if self.enrolled.iter().any(|enrolled| enrolled.name == entry.name) {
            return Err(EnrollError::Exists);
        }
        if self.standing(entry.key).is_some() {
            return Err(EnrollError::KeyUsed);
        }
        if self.enrolled.len() >= ENROLLED_MAX {
            return Err(EnrollError::TooMany);
        }
        self.enrolled.push(entry);
        Ok(())
    }

    /// Takes a name back; answers the key that had it. The key is remembered, so that it is nobody's from then on.
    ///
    /// # Errors
    /// Nobody has the name.
    pub fn revoke(&mut self, name: &DaemonName, unix_ms: u64) -> Result<PublicKey, EnrollError> {
        let place = self.enrolled.iter().position(|entry| entry.name == *name);
        let entry = self.enrolled.remove(place.ok_or(EnrollError::Unknown)?);
        let key = entry.key;
        if self.revoked.len() >= REVOKED_MAX {
            self.revoked.remove(0);
        }
        self.revoked.push(EnrolledEntry { since_unix_ms: unix_ms, ..entry });
        Ok(key)
    }

    /// What a key is to the user; `None` for one that the user has never named.
    #[must_use]
    pub fn standing(&self, key: PublicKey) -> Option<Standing> {
        let named = self.enrolled.iter().find(|entry| entry.key == key);
        match named {
            Some(entry) => Some(Standing::Enrolled(entry.name.clone())),
            None => self.revoked.iter().any(|entry| entry.key == key).then_some(Standing::Revoked),
        }
    }

    /// The key that has a name.
    #[must_use]
    pub fn key_of(&self, name: &DaemonName) -> Option<PublicKey> {
        self.enrolled.iter().find(|entry| entry.name == *name).map(|entry| entry.key)
    }

    /// The enrolled ones, in the order in which they were enrolled.
    #[must_use]
    pub fn enrolled(&self) -> &[EnrolledEntry] {
        &self.enrolled
    }
}

fn read_line(line: &str) -> Option<(bool, EnrolledEntry)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [word, name, key, since] = words.try_into().ok()?;
    let entry = EnrolledEntry {
        name: DaemonName::parse(name).ok()?,
        key: PublicKey::from_hex(key)?,
        since_unix_ms: since.parse().ok()?,
    };
    match word {
        "enrolled" => Some((true, entry)),
        "revoked" => Some((false, entry)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, key: u8) -> EnrolledEntry {
        EnrolledEntry { name: name.parse().unwrap(), key: PublicKey([key; 32]), since_unix_ms: 5 }
    }

    #[test]
    fn a_key_has_a_name_until_it_is_revoked_and_never_again() {
        let mut all = EnrolledDaemons::default();
        all.enroll(entry("backup", 1)).unwrap();
        assert_eq!(all.standing(PublicKey([1; 32])), Some(Standing::Enrolled("backup".parse().unwrap())));
        assert_eq!(all.standing(PublicKey([2; 32])), None);
        assert_eq!(all.enroll(entry("backup", 2)), Err(EnrollError::Exists));
        assert_eq!(all.enroll(entry("other", 1)), Err(EnrollError::KeyUsed));
        let name = "backup".parse().unwrap();
        assert_eq!(all.revoke(&name, 9), Ok(PublicKey([1; 32])));
        assert_eq!(all.revoke(&name, 9), Err(EnrollError::Unknown));
        assert_eq!(all.standing(PublicKey([1; 32])), Some(Standing::Revoked));
        assert_eq!(all.enroll(entry("again", 1)), Err(EnrollError::KeyUsed));
        all.enroll(entry("backup", 3)).unwrap();
        assert_eq!(all.key_of(&name), Some(PublicKey([3; 32])));
    }

    #[test]
    fn names_of_pds_itself_are_not_given_away() {
        for name in ["cli", "daemon-secrets", "daemon-launcher", "daemon-x"] {
            assert_eq!(
                EnrolledDaemons::default().enroll(entry(name, 1)),
                Err(EnrollError::Reserved),
                "{name}"
            );
        }
    }

    #[test]
    fn the_file_is_read_back_and_anything_else_in_it_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enrolled");
        assert_eq!(EnrolledDaemons::read(&path).unwrap(), EnrolledDaemons::default());
        let mut all = EnrolledDaemons::default();
        all.enroll(entry("backup", 1)).unwrap();
        all.enroll(entry("gone", 2)).unwrap();
        all.revoke(&"gone".parse().unwrap(), 7).unwrap();
        all.write(&path).unwrap();
        assert_eq!(EnrolledDaemons::read(&path).unwrap(), all);
        let good = std::fs::read_to_string(&path).unwrap();
        for bad in ["x", "\n", "enrolled backup 11 5\n", "trusted backup 11 5\n", "\u{ff}"] {
            std::fs::write(&path, format!("{good}{bad}")).unwrap();
            let error = EnrolledDaemons::read(&path).unwrap_err().to_string();
            assert!(error.contains("line 3"), "{error}");
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut all = EnrolledDaemons::default();
        let numbered = |number: usize| {
            let mut entry = entry(&format!("d{number}"), 0);
            entry.key.0[..8].copy_from_slice(&number.to_be_bytes());
            entry
        };
        for number in 0..ENROLLED_MAX {
            all.enroll(numbered(number)).unwrap();
        }
        assert_eq!(all.enroll(numbered(ENROLLED_MAX)), Err(EnrollError::TooMany));
    }
}
