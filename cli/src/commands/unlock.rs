//! `pds unlock`: makes the secrets of a profile readable.

use core_types::ProfileName;
use core_types::protocol::secrets::{
    AcceptRollback, Factors, ProfileState, Profiles, SecretsDenial, Unlock, Unlocked,
};
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
    let accept = options.accept_rollback;
    let sources = Sources::open(&options.proofs.password, &options.proofs.code)?;
    let profile = session.profile()?;
    let state = state(session, &profile)?;
    let unlocked = if let ProfileState::Unlocked { rollback, .. } = state {
        if let Some(found) = rollback.filter(|_| !accept) {
            return Err(SecretsDenial::RolledBack { profile, found }.into());
        }
        Unlocked::Already
    } else {
        let sheet = session.call(&Factors { profile: profile.clone() })?;
        let presenter = Presenter::new(&profile, &sheet, session.messages);
        let needed = presenter.to_unlock();
        let factors = presenter.collect(sources, needed)?;
        match session.call_within(&Unlock { profile: profile.clone(), factors }, PASSWORD_DEADLINE) {
            // Open it is, and what is wrong with it is about to be accepted.
            Err(failure) if accept && failure.is_rollback() => Unlocked::Now,
            other => other?,
        }
    };
    if accept {
        let accepted = session.call(&AcceptRollback { profile: profile.clone() })?;
        session.messages.note(match accepted {
            true => format!("the vault of profile '{profile}' counts as it is from now on"),
            false => {
                format!("the vault of profile '{profile}' is as it was left; there is nothing to accept")
            }
        });
    }
    session.messages.note(match unlocked {
        Unlocked::Now => format!("profile '{profile}' is unlocked"),
        Unlocked::Already => format!("profile '{profile}' is unlocked already"),
    });
    let changed = unlocked == Unlocked::Now;
    session.output.object_if_wanted(&State { profile: profile.as_str(), state: "unlocked", changed })
}

/// Whether no factor is needed; told before one is asked for, as is a profile that cannot be unlocked at all.
pub(super) fn is_unlocked(session: &mut Session, profile: &ProfileName) -> Result<bool, Failure> {
    Ok(matches!(state(session, profile)?, ProfileState::Unlocked { .. }))
}

/// The state of a profile that has a vault which is not damaged.
fn state(session: &mut Session, profile: &ProfileName) -> Result<ProfileState, Failure> {
    let profiles = session.call(&Profiles {})?;
    match profiles.into_iter().find(|entry| entry.name == *profile).map(|entry| entry.state) {
        None => Err(SecretsDenial::NoSuchProfile(profile.clone()).into()),
        Some(ProfileState::Damaged(reason)) => Err(SecretsDenial::Damaged(reason).into()),
        Some(state) => Ok(state),
    }
}
