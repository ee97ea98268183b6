//! `pds mv`: gives a secret another name.

use std::io::IsTerminal;

use core_types::protocol::secrets::Move;
use serde::Serialize;

use crate::error::Failure;
use crate::output::shown;
use crate::prompt::Terminal;
use crate::session::Session;

/// `pds mv --json`.
#[derive(Serialize)]
struct Moved<'a> {
    profile: &'a str,
    from: &'a str,
    to: &'a str,
}

pub(super) fn run(session: &mut Session, from: &str, to: &str, yes: bool) -> Result<(), Failure> {
    let profile = session.profile()?;
    let question = format!("Move '{}' to '{}' in profile '{profile}'? [y/N] ", shown(from), shown(to));
    if !yes && std::io::stdin().is_terminal() && !Terminal::open()?.confirm(&question)? {
        return Err(Failure::NotConfirmed);
    }
    session.call(&Move { profile: profile.clone(), from: from.to_owned(), to: to.to_owned() })?;
    session.messages.detail(format!("moved '{from}' to '{to}' in profile '{profile}'"));
    session.output.object_if_wanted(&Moved { profile: profile.as_str(), from, to })
}
