//! `pds init`: makes a vault; its profile is unlocked afterwards.

use core_types::WireSecret;
use core_types::protocol::secrets::{Init, Profiles, SecretsDenial};
use serde::Serialize;

use crate::args::PasswordOptions;
use crate::error::Failure;
use crate::prompt::PasswordSource;
use crate::session::{PASSWORD_DEADLINE, Session};

/// `pds init --json`.
#[derive(Serialize)]
struct Made<'a> {
    profile: &'a str,
    state: &'static str,
}

pub(super) fn run(session: &mut Session, options: &PasswordOptions) -> Result<(), Failure> {
    let source = PasswordSource::open(options)?;
    let profile = session.profile()?;
    // Asked first, so that nobody invents a password for nothing; the vault's owner decides all the same.
    if session.call(&Profiles {})?.iter().any(|entry| entry.name == profile) {
        return Err(SecretsDenial::ProfileExists(profile).into());
    }
    let question = format!("New password for profile '{profile}': ");
    let mut password = source.new_one(&question, "The same again: ")?;
    let password = WireSecret::new(std::mem::take(&mut *password));
    session.call_within(&Init { profile: profile.clone(), password }, PASSWORD_DEADLINE)?;
    session.messages.note(format!("made the vault of profile '{profile}'; it is unlocked"));
    session.output.object_if_wanted(&Made { profile: profile.as_str(), state: "unlocked" })
}
