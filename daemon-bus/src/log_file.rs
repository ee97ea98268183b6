//! The log file of daemons that no systemd runs, kept from filling the disk: whoever is refused a request can have a line
//! written as often as it likes.
//!
//! All daemons write to the end of the same open file, their standard error, so it cannot be renamed under them: what
//! is kept of it is copied beside it, and the file itself is emptied. A line that comes in between is lost.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use core_crypto::private_fs;
use core_types::paths::Paths;
use rustix::fs::{fstat, lstat};

/// A file that is larger is emptied.
const BYTES_MAX: u64 = 8 << 20;
/// So much of its end is kept beside it.
const KEPT_BYTES: u64 = 4 << 20;
/// How often its size is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// The log file, if it is where this process's standard error goes.
pub(crate) struct LogFile {
    path: PathBuf,
    older: PathBuf,
}

impl LogFile {
    /// `None` where somebody else reads what is logged, such as the journal or a terminal.
    pub(crate) fn of_stderr(paths: &Paths) -> Option<Self> {
        let path = paths.log_file();
        let is_ours = is_open_as(&path, io::stderr()).unwrap_or(false);
        is_ours.then(|| Self { path, older: paths.older_log_file() })
    }

    /// Empties the file if it is large, and keeps the end of it. Blocks.
    pub(crate) fn keep_small(&self) {
        if let Err(error) = self.empty_above(BYTES_MAX, KEPT_BYTES) {
            tracing::warn!("the log cannot be kept from growing: {error}");
        }
    }

    fn empty_above(&self, bytes_max: u64, kept_bytes: u64) -> io::Result<()> {
        let file = private_fs::open_append(&self.path).map_err(io::Error::other)?;
        let bytes = file.metadata()?.len();
        if bytes <= bytes_max {
            return Ok(());
        }
        let kept = end_of(&file, bytes, kept_bytes)
            .and_then(|end| private_fs::write_atomic(&self.older, &end).map_err(io::Error::other));
        // Also on a full disk, where nothing can be kept.
        file.set_len(0)?;
        kept
    }

    /// Looks at the size again and again.
    pub(crate) async fn keep_small_forever(self) {
        let log = Arc::new(self);
        loop {
            tokio::time::sleep(LOOK).await;
            // A look needs no thread.
            if std::fs::symlink_metadata(&log.path).is_ok_and(|found| found.len() > BYTES_MAX) {
                let log = Arc::clone(&log);
                // A panic has been logged.
                let _ = tokio::task::spawn_blocking(move || log.keep_small()).await;
            }
        }
    }
}

/// Whether what is open is the file at the path; a link is not followed.
fn is_open_as(path: &Path, open: impl AsFd) -> io::Result<bool> {
    let (named, open) = (lstat(path)?, fstat(open)?);
    Ok((named.st_dev, named.st_ino) == (open.st_dev, open.st_ino))
}

/// The last bytes of a file of so many, from the beginning of a line on.
fn end_of(file: &File, bytes: u64, kept_bytes: u64) -> io::Result<Vec<u8>> {
    let from = bytes.saturating_sub(kept_bytes);
    let mut end = vec![0; usize::try_from(bytes - from).map_err(io::Error::other)?];
    file.read_exact_at(&mut end, from)?;
    match end.iter().position(|byte| *byte == b'\n') {
        Some(feed) if from > 0 => Ok(end.split_off(feed + 1)),
        _ => Ok(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_large_file_is_emptied_and_its_last_whole_lines_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let (path, older) = (home.path().join("log"), home.path().join("log.1"));
        let mut daemon = private_fs::open_append(&path).unwrap();
        let log = LogFile { path: path.clone(), older: older.clone() };
        assert!(is_open_as(&path, &daemon).unwrap());
        assert!(!is_open_as(&path, File::open("/dev/null").unwrap()).unwrap());
        daemon.write_all(b"one\ntwo\nthree\n").unwrap();
        log.empty_above(14, 8).unwrap();
        assert!(!older.exists(), "it is not too large yet");
        log.empty_above(13, 8).unwrap();
        assert_eq!(std::fs::read(&older).unwrap(), b"three\n");
        daemon.write_all(b"four\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"four\n", "no hole where the others were");
        log.empty_above(4, 8).unwrap();
        assert_eq!(std::fs::read(&older).unwrap(), b"four\n");
        daemon.write_all(b"five\n").unwrap();
        std::fs::remove_file(&older).unwrap();
        std::fs::create_dir(&older).unwrap();
        assert!(log.empty_above(4, 8).is_err(), "nothing can be kept");
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}
