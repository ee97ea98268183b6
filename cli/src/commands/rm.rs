//! `pds rm`: removes secrets.

use std::io::IsTerminal;

use core_types::protocol::secrets::Delete;
use serde::Serialize;

use crate::error::Failure;
use crate::output::shown;
use crate::prompt::Terminal;
use crate::session::Session;

/// `pds rm --json`: the names that were removed.
#[derive(Serialize)]
struct Removed<'a> {
    profile: &'a str,
    removed: Vec<&'a str>,
}

pub(super) fn run(session: &mut Session, names: &[String], yes: bool) -> Result<(), Failure> {
    let profile = session.profile()?;
    if !yes
        && std::io::stdin().is_terminal()
        && !Terminal::open()?.confirm(&question(names, profile.as_str()))?
    {
        return Err(Failure::NotConfirmed);
    }
    let mut removed = Vec::new();
    let mut first_failure = None;
    for name in names {
        match session.call(&Delete { profile: profile.clone(), name: name.clone() }) {
            Ok(()) => removed.push(name.as_str()),
            Err(failure) if failure.is_about_the_name() => {
                let what = format!("cannot remove '{}'", shown(name));
                let exit = failure.report_name(&what, Some(&profile), &session.messages);
                first_failure.get_or_insert(exit);
            }
            Err(failure) => return Err(failure),
        }
    }
    for name in &removed {
        session.messages.note(format!(
            "removed '{name}' from profile '{profile}'; `pds restore -p {profile} {name}` brings it back"
        ));
    }
    session.output.object_if_wanted(&Removed { profile: profile.as_str(), removed })?;
    first_failure.map_or(Ok(()), |exit| Err(Failure::Reported(exit)))
}

fn question(names: &[String], profile: &str) -> String {
    match names {
        [name] => format!("Remove '{}' from profile '{profile}'? [y/N] ", shown(name)),
        _ => format!("Remove {} secrets from profile '{profile}'? [y/N] ", names.len()),
    }
}
