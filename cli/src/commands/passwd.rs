//! `pds passwd`: changes the password of a profile.

use core_types::protocol::secrets::{ChangePassword, FactorKind, FactorSheet, Factors};
use serde::Serialize;

use super::unlock::is_unlocked;
use crate::args::PasswdOptions;
use crate::error::Failure;
use crate::prompt::PasswordSource;
use crate::proofs::{Presenter, Sources, wire};
use crate::session::{PASSWORD_DEADLINE, Session};

/// `pds passwd --json`.
#[derive(Serialize)]
struct Changed<'a> {
    profile: &'a str,
    changed: bool,
}

pub(super) fn run(session: &mut Session, options: &PasswdOptions) -> Result<(), Failure> {
    let sources = Sources::open(&options.old.password, &options.old.code)?;
    let new = PasswordSource::open(&options.new.source())?;
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    let factor = which(&sheet, options.factor)?;
    let unlocked = is_unlocked(session, &profile)?;
    let mut presenter = Presenter::new(&profile, &sheet, session.messages);
    // An open vault needs no more than the password that changes.
    let needed = if unlocked { 1 } else { presenter.to_unlock() };
    let old = sources.password.existing(&format!("Password of profile '{profile}': "))?;
    presenter.present(factor, old);
    let others = Sources { password: PasswordSource::Terminal, ..sources };
    let present = presenter.collect(others, needed)?;
    let new = new.new_one(&format!("New password for profile '{profile}': "), "The same again: ")?;
    let call = ChangePassword { profile: profile.clone(), factor, present, new: wire(new) };
    session.call_within(&call, PASSWORD_DEADLINE)?;
    session.messages.note(format!("changed the password of profile '{profile}'"));
    session.output.object_if_wanted(&Changed { profile: profile.as_str(), changed: true })
}

/// The number of the password that is meant: the one that is named, or the only one.
fn which(sheet: &FactorSheet, named: Option<u32>) -> Result<u32, Failure> {
    let passwords = sheet.factors.iter().filter(|factor| factor.kind == FactorKind::Password);
    let passwords: Vec<u32> = passwords.map(|factor| factor.id).collect();
    match (named, passwords.as_slice()) {
        (Some(factor), _) => Ok(factor),
        (None, [factor]) => Ok(*factor),
        (None, []) => Err(Failure::NoPassword),
        (None, _) => Err(Failure::SeveralPasswords),
    }
}
