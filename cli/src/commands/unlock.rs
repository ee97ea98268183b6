//! `pds unlock`: makes the secrets of a profile readable.

use core_types::ProfileName;
use core_types::protocol::secrets::{Factors, ProfileState, Profiles, SecretsDenial, Unlock, Unlocked};
use serde::Serialize;

use crate::args::UnlockOptions;
use crate::error::Failure;
use crate::proofs::{Presenter, Sources};
use crate::session::{PASSWORD_DEADLINE, Session};

/// `pds unlock --json`; `changed` is false when the profile was unlocked before.
#[derive(Serialize)]
struct State<'a> {
    profile: &'a str,
    state: &'static str,
    changed: bool,
}

pub(super) fn run(session: &mut Session, options: &UnlockOptions) -> Result<(), Failure> {
    let sources = Sources::open(&options.proofs.password, &options.proofs.code)?;
    let profile = session.profile()?;
    let unlocked = if is_unlocked(session, &profile)? {
        Unlocked::Already
    } else {
        let sheet = session.call(&Factors { profile: profile.clone() })?;
        let presenter = Presenter::new(&profile, &sheet, session.messages);
        let needed = presenter.to_unlock();
        let factors = presenter.collect(sources, needed)?;
        session.call_within(&Unlock { profile: profile.clone(), factors }, PASSWORD_DEADLINE)?
    };
    session.messages.note(match unlocked {
        Unlocked::Now => format!("profile '{profile}' is unlocked"),
        Unlocked::Already => format!("profile '{profile}' is unlocked already"),
    });
    let changed = unlocked == Unlocked::Now;
    session.output.object_if_wanted(&State { profile: profile.as_str(), state: "unlocked", changed })
}

/// Whether no factor is needed; told before one is asked for, as is a profile that cannot be unlocked at all.
pub(super) fn is_unlocked(session: &mut Session, profile: &ProfileName) -> Result<bool, Failure> {
    let profiles = session.call(&Profiles {})?;
    match profiles.into_iter().find(|entry| entry.name == *profile).map(|entry| entry.state) {
        None => Err(SecretsDenial::NoSuchProfile(profile.clone()).into()),
        Some(ProfileState::Damaged(reason)) => Err(SecretsDenial::Damaged(reason).into()),
        Some(ProfileState::Locked) => Ok(false),
        Some(ProfileState::Unlocked { .. }) => Ok(true),
    }
}
