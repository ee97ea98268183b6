//! `pds lock`: forgets the keys of the profile of `-p`, or of all.

use core_types::ProfileName;
use core_types::protocol::secrets::Lock;
use serde::Serialize;

use crate::error::Failure;
use crate::session::Session;

/// `pds lock --json`: the profiles that were unlocked and are locked now.
#[derive(Serialize)]
struct Locked<'a> {
    locked: Vec<&'a str>,
}

pub(super) fn run(session: &mut Session) -> Result<(), Failure> {
    // Only a profile on the command line narrows it: a variable or a configuration never leaves one unlocked.
    let profile = match session.options.profiles.as_slice() {
        [] => None,
        _ => Some(session.profile()?),
    };
    let locked = session.call(&Lock { profile })?;
    let names: Vec<&str> = locked.iter().map(ProfileName::as_str).collect();
    session.messages.note(match names.as_slice() {
        [] => "nothing was unlocked".to_owned(),
        names => format!("locked {}", names.join(", ")),
    });
    session.output.object_if_wanted(&Locked { locked: names })
}
