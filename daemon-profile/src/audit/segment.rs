//! The files of the log: numbered segments in one private folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use core_crypto::private_fs::{self, PrivateFsError};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::LogError;
use super::line::Head;
use super::scan::{Backwards, Forwards};

/// Number of the first segment.
pub(crate) const FIRST: u64 = 1;
const SUFFIX: &str = ".jsonl";
/// How many lines may be torn before the first entry of a segment.
const FIRST_LINES_MAX: usize = 1_000;

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    /// Its number, from [`FIRST`] on.
    pub(crate) number: u64,
    /// Where it lies.
    pub(crate) path: PathBuf,
}

impl Segment {
    /// The segment with `number` in `folder`, whether it exists or not.
    pub(crate) fn new(folder: &Path, number: u64) -> Self {
        Self { number, path: folder.join(format!("{number:06}{SUFFIX}")) }
    }

    /// All segments of `folder`, in order. Files with other names are none of the log's.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn list(folder: &Path) -> Result<Vec<Self>, LogError> {
        let failed = |source| LogError::Io { path: folder.to_owned(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let segment = name.to_str().and_then(number_of).map(|number| Self::new(folder, number));
            found.extend(segment.filter(|segment| segment.path.file_name() == Some(&name)));
        }
        found.sort();
        Ok(found)
    }

    /// Opens the segment for appending; makes it if there is none.
    ///
    /// # Errors
    /// It is not a private file of ours, or the disk says no.
    pub(crate) fn open_append(&self) -> Result<File, LogError> {
        Ok(private_fs::open_append(&self.path)?)
    }

    /// Opens the segment for reading; unlike opening it for appending, this changes nothing.
    ///
    /// # Errors
    /// It is not a private file of ours, or cannot be opened.
    pub(crate) fn open_read(&self) -> Result<File, LogError> {
        let failed = |error: Errno| self.failed(error.into());
        // A link is not followed, and a pipe put in its place is not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty()).map_err(failed)?);
        let found = file.metadata().map_err(|error| self.failed(error))?;
        let ours = found.is_file()
            && found.uid() == rustix::process::geteuid().as_raw()
            && found.mode() & 0o022 == 0;
        if ours { Ok(file) } else { Err(LogError::NotPrivate { path: self.path.clone() }) }
    }

    /// Its first entry; `None` if there is none among its first lines.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn first(&self) -> Result<Option<Head>, LogError> {
        let mut lines = Forwards::new(self.open_read()?);
        for _ in 0..FIRST_LINES_MAX {
            match lines.next_line().map_err(|error| self.failed(error))? {
                None => break,
                Some(line) => {
                    if let Some(head) = Head::parse(line) {
                        return Ok(Some(head));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Its last entry.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn last(&self) -> Result<Option<Head>, LogError> {
        let failed = |error| self.failed(error);
        let mut pieces = Backwards::new(self.open_read()?).map_err(failed)?;
        while let Some(piece) = pieces.next_piece().map_err(failed)? {
            if let Some(head) = piece.bytes.as_deref().and_then(Head::parse) {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// The error of an operation on this segment.
    pub(crate) fn failed(&self, source: io::Error) -> LogError {
        LogError::Io { path: self.path.clone(), source }
    }

    /// Whether `file` is still what lies at the segment's place.
    pub(crate) fn is(&self, file: &File) -> bool {
        match (file.metadata(), std::fs::symlink_metadata(&self.path)) {
            (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
    number.filter(|number| *number >= FIRST)
}

impl From<PrivateFsError> for LogError {
    fn from(error: PrivateFsError) -> Self {
        Self::Private(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_in_the_order_of_their_numbers_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "1000000.jsonl",
            "000002.jsonl",
            "000001.jsonl",
            "1.jsonl",
            "000000.jsonl",
            "000003.json",
            "x.jsonl",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let numbers: Vec<_> =
            Segment::list(folder.path()).unwrap().iter().map(|segment| segment.number).collect();
        assert_eq!(numbers, [1, 2, 1_000_000]);
    }
}
