//! What is looked at: files of a folder, and histories of shells. Links are not followed, and what is no file is passed
//! over; a file that is too large or cannot be read is told of.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{ScanError, git};
use crate::error::Failure;

/// Largest file that is looked at.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 20;
/// Deepest folder that is looked at.
const DEPTH_MAX: usize = 128;
/// The folder in which git keeps what is not in the tree.
const GIT_FOLDER: &str = ".git";

/// One file or object.
pub(super) struct Place<'a> {
    pub(super) file: String,
    pub(super) object: Option<String>,
    pub(super) seen: Seen<'a>,
}

/// What is in it, or why it is not looked at.
pub(super) enum Seen<'a> {
    Bytes(&'a [u8]),
    Skipped(String),
}

/// Looks at a file, or at all files of a folder; where git keeps it, at those that it does not ignore.
pub(super) fn tree(path: &Path, look: &mut dyn FnMut(Place<'_>)) -> Result<(), Failure> {
    let kind = fs::metadata(path).map_err(|source| unreadable(path, source))?;
    let mut buffer = Vec::new();
    if !kind.is_dir() {
        file(path, &mut buffer, look);
        return Ok(());
    }
    match git::files(path) {
        Some(files) => {
            for relative in files {
                let path = path.join(relative);
                // What git knows may be gone, or a repository within.
                if fs::symlink_metadata(&path).is_ok_and(|kind| kind.is_file()) {
                    file(&path, &mut buffer, look);
                }
            }
        }
        None => folder(path, 0, &mut buffer, look),
    }
    Ok(())
}

fn unreadable(path: &Path, source: io::Error) -> Failure {
    Failure::File { what: "read", path: path.to_owned(), source }
}

fn skipped(path: &Path, reason: String, look: &mut dyn FnMut(Place<'_>)) {
    look(Place { file: path.display().to_string(), object: None, seen: Seen::Skipped(reason) });
}

fn folder(path: &Path, depth: usize, buffer: &mut Vec<u8>, look: &mut dyn FnMut(Place<'_>)) {
    if depth > DEPTH_MAX {
        return skipped(path, "too many folders are within each other".to_owned(), look);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => return skipped(path, error.to_string(), look),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != GIT_FOLDER => {
                folder(&entry.path(), depth + 1, buffer, look)
            }
            Ok(kind) if kind.is_file() => file(&entry.path(), buffer, look),
            Ok(_) => {}
            Err(error) => skipped(&entry.path(), error.to_string(), look),
        }
    }
}

/// Looks at a file. Should it have become a pipe meanwhile, nobody is waited for.
fn file(path: &Path, buffer: &mut Vec<u8>, look: &mut dyn FnMut(Place<'_>)) {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::CLOEXEC).bits()).unwrap_or_default();
    let read = File::options().read(true).custom_flags(flags).open(path).and_then(|file| {
        buffer.clear();
        file.take(FILE_BYTES_MAX + 1).read_to_end(buffer)
    });
    match read {
        Ok(read) if u64::try_from(read).is_ok_and(|read| read <= FILE_BYTES_MAX) => {
            look(Place { file: path.display().to_string(), object: None, seen: Seen::Bytes(buffer) });
        }
        Ok(_) => skipped(path, too_large(), look),
        Err(error) => skipped(path, error.to_string(), look),
    }
}

/// Why something of that size is not looked at.
pub(super) fn too_large() -> String {
    format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)
}

/// Looks at what shells remember: where their variables say, and where they keep it by themselves.
pub(super) fn shell_histories(look: &mut dyn FnMut(Place<'_>)) -> Result<(), Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let data = std::env::var_os("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), PathBuf::from);
    let mut files = vec![
        home.join(".bash_history"),
        home.join(".zsh_history"),
        home.join(".zhistory"),
        home.join(".histfile"),
        data.join("fish/fish_history"),
    ];
    files.extend(std::env::var_os("HISTFILE").map(PathBuf::from));
    files.retain(|path| fs::metadata(path).is_ok_and(|kind| kind.is_file()));
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(ScanError::NoHistory.into());
    }
    let mut buffer = Vec::new();
    for path in files {
        file(&path, &mut buffer, look);
    }
    Ok(())
}
