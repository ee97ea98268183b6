//! `pds backup`: the encrypted vault as one consistent file.

use std::path::Path;

use core_types::protocol::secrets::Backup;
use serde::Serialize;

use crate::error::Failure;
use crate::new_file::NewFile;
use crate::progress::Progress;
use crate::session::{LONG_DEADLINE, Session};

/// `pds backup --json`.
#[derive(Serialize)]
struct Made<'a> {
    profile: &'a str,
    file: String,
    bytes: u64,
}

pub(super) fn run(session: &mut Session, path: &Path, force: bool) -> Result<(), Failure> {
    let profile = session.profile()?;
    if !force && path.symlink_metadata().is_ok() {
        return Err(Failure::FileExists { path: path.to_owned() });
    }
    let new = NewFile::beside(path)?;
    let expected = session.paths.vault(&profile).join("vault.db").metadata().map(|file| file.len());
    let progress = Progress::watch(&session.messages, "writing", &new.file, expected.ok());
    let call = Backup { profile: profile.clone() };
    let bytes = session.call_with_file(&call, &new.file, LONG_DEADLINE)?;
    drop(progress);
    new.put_in_place(force)?;
    session.messages.note(format!("backed up profile '{profile}' to {} ({bytes} bytes)", path.display()));
    let file = path.to_string_lossy().into_owned();
    session.output.object_if_wanted(&Made { profile: profile.as_str(), file, bytes })
}
