//! `pds restore-backup`: makes a vault of a backup, or puts it in the place of the one there is.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;

use core_types::ProfileName;
use core_types::protocol::secrets::{BackupSheet, InspectBackup, Profiles, RestoreBackup, SecretsDenial};
use rustix::fs::{Mode, OFlags, open};
use serde::Serialize;

use crate::args::RestoreBackupOptions;
use crate::error::Failure;
use crate::output::time;
use crate::progress::Progress;
use crate::prompt::Terminal;
use crate::proofs::{Presenter, Sources};
use crate::session::{LONG_DEADLINE, Session};

/// `pds restore-backup --json`; `replaced` is false where there was no vault before.
#[derive(Serialize)]
struct Restored<'a> {
    profile: &'a str,
    state: &'static str,
    replaced: bool,
}

pub(super) fn run(session: &mut Session, options: &RestoreBackupOptions) -> Result<(), Failure> {
    let sources = Sources::open(&options.proofs.password, &options.proofs.code)?;
    let path = &options.backup;
    let failed = |source: io::Error| Failure::File { what: "read", path: path.clone(), source };
    // A pipe is no backup, and whoever opens one the usual way waits for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?);
    let backup = session.call_with_file(&InspectBackup {}, &file, LONG_DEADLINE)?;
    let profile = wanted(session, &backup)?;
    let replace = may_replace(session, &profile, path, options.yes)?;
    let presenter = Presenter::new(&profile, &backup.factors, session.messages);
    let needed = presenter.to_unlock();
    let factors = presenter.collect(sources, needed)?;
    let call = RestoreBackup { profile: profile.clone(), factors, replace };
    let progress = Progress::watch(&session.messages, "checking", &file, Some(backup.database_bytes));
    let replaced = session.call_with_file(&call, &file, LONG_DEADLINE)?;
    drop(progress);
    let made = time(backup.created_unix_ms);
    session.messages.note(match replaced {
        true => format!("replaced the vault of profile '{profile}' by the backup; it is unlocked"),
        false => {
            format!("made the vault of profile '{profile}' (first made {made}) of the backup; it is unlocked")
        }
    });
    session.output.object_if_wanted(&Restored { profile: profile.as_str(), state: "unlocked", replaced })
}

/// The profile of the backup: a vault keeps its name, which is a part of all its keys. Another one that was asked for
/// is told before anything is asked.
fn wanted(session: &mut Session, backup: &BackupSheet) -> Result<ProfileName, Failure> {
    if session.options.profiles.is_empty() {
        session.options.profiles.push(backup.profile.clone());
    }
    let profile = session.profile()?;
    if profile == backup.profile {
        return Ok(profile);
    }
    Err(SecretsDenial::BadBackup(format!(
        "it is of profile '{}', and a vault keeps its name",
        backup.profile
    ))
    .into())
}

/// Whether a vault is to be replaced: one that is there, if the user says so.
fn may_replace(
    session: &mut Session,
    profile: &ProfileName,
    path: &Path,
    yes: bool,
) -> Result<bool, Failure> {
    let exists = session.call(&Profiles {})?.iter().any(|entry| entry.name == *profile);
    if !exists || yes {
        return Ok(exists);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::WouldReplace { profile: profile.clone() });
    }
    let shown = crate::output::shown(&path.to_string_lossy());
    let question =
        format!("Replace the vault of profile '{profile}', and all that is in it now, by {shown}? [y/N] ");
    if Terminal::open()?.confirm(&question)? { Ok(true) } else { Err(Failure::NotConfirmed) }
}
