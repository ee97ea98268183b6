//! How many entries are in no file: a number that outlives the process, kept where a full disk has room for it.
//!
//! It is written in place, so it needs no room that the file has not had since it was made.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use core_crypto::private_fs::{self, PrivateFsError};

const BYTES: usize = 16;

/// The number and its file.
pub(crate) struct Tally {
    file: Option<File>,
    count: u64,
}

impl Tally {
    /// Without a file: the number is forgotten with the process.
    pub(crate) fn forgetful() -> Self {
        Self { file: None, count: 0 }
    }

    /// Opens the file or makes it, and gives what an earlier process left in it.
    ///
    /// # Errors
    /// It is not a private file of ours, or cannot be made.
    pub(crate) fn open(path: &Path) -> Result<(Self, u64), PrivateFsError> {
        let file = private_fs::open_or_create(path)?;
        let mut bytes = [0; BYTES];
        let read = file.read_exact_at(&mut bytes, 0).is_ok();
        let (count, check) = bytes.split_at(BYTES / 2);
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().unwrap_or_default());
        let left = if read && number(count) == !number(check) { number(count) } else { 0 };
        let mut tally = Self { file: Some(file), count: u64::MAX };
        tally.set(left);
        Ok((tally, left))
    }

    /// Replaces the number.
    pub(crate) fn set(&mut self, count: u64) {
        if self.count == count {
            return;
        }
        self.count = count;
        if let Some(file) = &self.file {
            let bytes = [count.to_le_bytes(), (!count).to_le_bytes()].concat();
            if let Err(error) = file.write_all_at(&bytes, 0) {
                tracing::error!("the number of missing audit entries cannot be kept: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_there_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tally");
        let (mut tally, left) = Tally::open(&path).unwrap();
        assert_eq!(left, 0);
        tally.set(7);
        assert_eq!(Tally::open(&path).unwrap().1, 7);
        assert_eq!(Tally::open(&path).unwrap().1, 7);
        std::fs::write(&path, [1; 16]).unwrap();
        assert_eq!(Tally::open(&path).unwrap().1, 0);
    }
}
