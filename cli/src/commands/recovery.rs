//! `pds recovery`: a way to unlock that is written on paper.

use std::io::IsTerminal;

use core_types::ProfileName;
use core_types::protocol::secrets::{
    AddFactor, CheckRecovery, FactorKind, FactorLabel, FactorPolicy, FactorProof, FactorSheet, Factors,
    NewFactor, RemoveFactor, Unlock, Unlocked,
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::factor::has;
use crate::args::{CodeOptions, PasswordOptions, RecoveryCommand};
use crate::error::{Exit, Failure};
use crate::prompt::{PasswordSource, Terminal};
use crate::proofs::{CodeSource, Presenter, Sources, wire};
use crate::session::{PASSWORD_DEADLINE, Session};
use crate::words;

/// `pds recovery new --json`: the only time that the words are shown.
#[derive(Serialize)]
struct Made<'a> {
    profile: &'a str,
    factor: u32,
    words: Vec<&'a str>,
}

/// `pds recovery check --json`.
#[derive(Serialize)]
struct Checked<'a> {
    profile: &'a str,
    right: bool,
}

/// `pds recovery use --json`; `changed` is false when the profile was unlocked before.
#[derive(Serialize)]
struct Used<'a> {
    profile: &'a str,
    state: &'static str,
    changed: bool,
}

pub(super) fn run(session: &mut Session, command: &RecoveryCommand) -> Result<(), Failure> {
    match command {
        RecoveryCommand::New { yes, proofs } => {
            let sources = Sources::open(&proofs.password, &proofs.code)?;
            new(session, *yes, sources)
        }
        RecoveryCommand::Check { code } => check(session, CodeSource::open(code)?),
        RecoveryCommand::Use { code } => use_code(session, code),
    }
}

fn new(session: &mut Session, yes: bool, sources: Sources) -> Result<(), Failure> {
    if !yes && !std::io::stdout().is_terminal() {
        return Err(Failure::WordsWouldBeKept);
    }
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    let needed = if sheet.policy == FactorPolicy::Any { 1 } else { sheet.factors.len() };
    let present = Presenter::new(&profile, &sheet, session.messages).collect(sources, needed)?;
    let code = words::new_code().map_err(Failure::Entropy)?;
    let new = NewFactor::Recovery { code: core_types::WireSecret::new(code.expose().to_vec()) };
    let call = AddFactor { profile: profile.clone(), present, label: FactorLabel::default(), new };
    let factor = session.call_within(&call, PASSWORD_DEADLINE)?;
    session.messages.note(format!(
        "these words unlock profile '{profile}' (factor {factor}); write them down, they are never shown again:"
    ));
    let words = words::to_words(&code);
    if session.output.wants_json() {
        let words = words.split_whitespace().collect();
        return session.output.secret_object(&Made { profile: profile.as_str(), factor, words });
    }
    session.output.prepared(&Zeroizing::new(format!("{}\n", words.as_str()).into_bytes()))?;
    session.messages.note("`pds recovery check` tells whether they were written down right");
    Ok(())
}

fn check(session: &mut Session, source: CodeSource) -> Result<(), Failure> {
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    if !has(&sheet, FactorKind::Recovery) {
        return Err(Failure::NoRecoveryCode);
    }
    let code = source.code(&question(&profile))?;
    let call = CheckRecovery { profile: profile.clone(), code: wire(code) };
    let right = session.call_within(&call, PASSWORD_DEADLINE)?;
    session.output.object_if_wanted(&Checked { profile: profile.as_str(), right })?;
    if right {
        session.messages.note(format!("right: this is a recovery code of profile '{profile}'"));
        return Ok(());
    }
    session.messages.error("wrong: this is no recovery code of the profile", None);
    Err(Failure::Reported(Exit::WrongFactor))
}

fn question(profile: &ProfileName) -> String {
    format!("Recovery code of profile '{profile}' (24 words, not shown): ")
}

fn use_code(session: &mut Session, options: &CodeOptions) -> Result<(), Failure> {
    let code = CodeOptions { recovery: true, ..options.clone() };
    let sources = Sources::open(&PasswordOptions { descriptor: None, file: None }, &code)?;
    let profile = session.profile()?;
    let sheet = session.call(&Factors { profile: profile.clone() })?;
    if !has(&sheet, FactorKind::Recovery) {
        return Err(Failure::NoRecoveryCode);
    }
    let presenter = Presenter::new(&profile, &sheet, session.messages);
    let needed = presenter.to_unlock();
    let factors = presenter.collect(sources, needed)?;
    let call = Unlock { profile: profile.clone(), factors };
    let unlocked = session.call_within(&call, PASSWORD_DEADLINE)?;
    session.messages.note(match unlocked {
        Unlocked::Now => format!("profile '{profile}' is unlocked"),
        Unlocked::Already => format!("profile '{profile}' is unlocked already"),
    });
    let changed = unlocked == Unlocked::Now;
    session.output.object_if_wanted(&Used { profile: profile.as_str(), state: "unlocked", changed })?;
    if changed && sheet.policy == FactorPolicy::Any && std::io::stdin().is_terminal() {
        offer_password(session, &sheet, call)?;
    }
    Ok(())
}

/// Whoever needs the recovery code has most likely lost the password: a new one takes the place of the old.
fn offer_password(session: &mut Session, sheet: &FactorSheet, used: Unlock) -> Result<(), Failure> {
    let Unlock { profile, factors: present } = used;
    if !Terminal::open()?.confirm(&format!("Set a new password for profile '{profile}' now? [y/N] "))? {
        return Ok(());
    }
    let question = format!("New password for profile '{profile}': ");
    let password = PasswordSource::Terminal.new_one(&question, "The same again: ")?;
    let new = NewFactor::Password { password: wire(password) };
    let label = FactorLabel::default();
    let call = AddFactor { profile: profile.clone(), present: present.clone(), label, new };
    session.call_within(&call, PASSWORD_DEADLINE)?;
    let old = sheet.factors.iter().filter(|factor| factor.kind == FactorKind::Password);
    for factor in old.map(|factor| factor.id) {
        remove(session, &profile, &present, factor)?;
    }
    session.messages.note(format!("profile '{profile}' has a new password; the recovery code stays valid"));
    Ok(())
}

fn remove(
    session: &mut Session,
    profile: &ProfileName,
    present: &[FactorProof],
    factor: u32,
) -> Result<(), Failure> {
    let call = RemoveFactor { profile: profile.clone(), present: present.to_vec(), factor };
    session.call_within(&call, PASSWORD_DEADLINE)
}
