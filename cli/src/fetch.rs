//! Reads what a request selects and what its variables refer to, for the commands that hand it on themselves.

use core_types::child::batches;
use core_types::child::references::{self, Referral, Resolved};
use core_types::protocol::launcher::{LauncherDenial, Run};
use core_types::protocol::secrets::{GetBatch, List, NamedSecret, SecretsDenial, Selection};
use core_types::{ProfileName, SecretName};

use crate::error::{Denial, Failure};
use crate::fields;
use crate::session::Session;

/// Reads everything that a request selects: all of it, or nothing.
///
/// # Errors
/// What was denied, or why there is no answer.
pub(crate) fn selected(session: &mut Session, run: &Run) -> Result<Vec<NamedSecret>, Failure> {
    let mut secrets = Vec::new();
    for batch in planned(session, run)? {
        if !matches!(&batch.selection, Selection::Only(patterns) if patterns.is_empty()) {
            secrets.append(&mut read(session, &batch)?);
        }
    }
    Ok(secrets)
}

/// Follows references: each leads to a secret, or none is followed.
///
/// # Errors
/// As [`selected`]; a denial names the reference.
pub(crate) fn referred(session: &mut Session, referrals: Vec<Referral>) -> Result<Vec<Resolved>, Failure> {
    let mut secrets = Vec::new();
    for batch in references::batches(&referrals) {
        let found = read(session, &batch).map_err(|failure| match failure {
            Failure::Denied(Denial::Secrets(denial)) => refusal(&referrals, &batch, denial),
            other => other,
        })?;
        secrets.push((batch.profile, found));
    }
    references::resolve(referrals, secrets).map_err(denied)
}

fn refusal(referrals: &[Referral], batch: &GetBatch, denial: SecretsDenial) -> Failure {
    denied(references::refusal(referrals, batch, denial))
}

pub(crate) fn denied(denial: LauncherDenial) -> Failure {
    Failure::Denied(Denial::Launcher(denial))
}

/// Reads what a batch selects: all of it, or nothing.
///
/// # Errors
/// As [`selected`].
pub(crate) fn read(session: &mut Session, batch: &GetBatch) -> Result<Vec<NamedSecret>, Failure> {
    let mut secrets = Vec::new();
    for NamedSecret { name, value } in session.call(batch)? {
        let value = fields::opened(session, &batch.profile, name.as_str(), value)?;
        secrets.push(NamedSecret { name, value });
    }
    Ok(secrets)
}

fn planned(session: &mut Session, run: &Run) -> Result<Vec<GetBatch>, Failure> {
    if let [profile] = &run.profiles[..] {
        return Ok(vec![batches::single(profile, run)]);
    }
    let mut listings = Vec::new();
    for profile in &run.profiles {
        listings.push((profile.clone(), names(session, profile)?));
    }
    batches::divided(&listings, run).map_err(denied)
}

/// All names of a profile.
fn names(session: &mut Session, profile: &ProfileName) -> Result<Vec<SecretName>, Failure> {
    let mut list = List { profile: profile.clone(), pattern: None, after: None };
    let mut names = Vec::new();
    loop {
        let page = session.call(&list)?;
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        match names.last() {
            Some(last) if page.more => list.after = Some(last.clone()),
            _ => return Ok(names),
        }
    }
}
