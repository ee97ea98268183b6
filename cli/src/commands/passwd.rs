//! `pds passwd`: changes the password of a profile.

use core_types::protocol::secrets::{ChangePassword, Factors};
use serde::Serialize;

use crate::args::{NewPasswordOptions, PasswordOptions};
use crate::error::Failure;
use crate::prompt::PasswordSource;
use crate::proofs::{Presenter, wire};
use crate::session::{PASSWORD_DEADLINE, Session};

/// `pds passwd --json`.
#[derive(Serialize)]
struct Changed<'a> {
    profile: &'a str,
    changed: bool,
}

pub(super) fn run(
    session: &mut Session,
    old: &PasswordOptions,
    new: &NewPasswordOptions,
) -> Result<(), Failure> {
    let (old, new) = (PasswordSource::open(old)?, PasswordSource::open(&new.source())?);
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    let mut presenter = Presenter::new(&profile, &sheet);
    presenter.password(old)?;
    let present = presenter.proofs();
    let factor = present.first().map_or(1, |proof| proof.factor);
    let new = new.new_one(&format!("New password for profile '{profile}': "), "The same again: ")?;
    let call = ChangePassword { profile: profile.clone(), factor, present, new: wire(new) };
    session.call_within(&call, PASSWORD_DEADLINE)?;
    session.messages.note(format!("changed the password of profile '{profile}'"));
    session.output.object_if_wanted(&Changed { profile: profile.as_str(), changed: true })
}
