//! Reads what a request selects and what its variables refer to, for the commands that hand it on themselves.

use std::time::Duration;

use core_types::child::batches;
use core_types::child::references::{self, Referral, Resolved};
use core_types::pattern::Pattern;
use core_types::protocol::launcher::{LauncherDenial, Run};
use core_types::protocol::secrets::{GetBatch, List, NamedSecret, SecretsDenial, Selection};
use core_types::{ProfileName, SecretName};

use crate::error::{Denial, Failure};
use crate::fields;
use crate::session::Session;

/// Names that are read at once where not all can be.
const PART_NAMES: usize = 500;
/// Longest time that is waited for tokens at once, in milliseconds.
pub(crate) const RATE_WAIT_MS_MAX: u64 = 5_000;

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

/// Reads everything that a request selects, however much it is: in several parts where one answer cannot hold it, each
/// as it is at its moment.
///
/// # Errors
/// As [`selected`].
pub(crate) fn in_parts(session: &mut Session, run: &Run) -> Result<Vec<NamedSecret>, Failure> {
    match selected(session, run) {
        Err(failure) if is_too_much(&failure) => {}
        other => return other,
    }
    let mut secrets = Vec::new();
    for batch in planned(session, run)? {
        let names = names(session, &batch.profile)?.into_iter();
        let wanted = |name: &SecretName| match &batch.selection {
            Selection::All => true,
            Selection::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        };
        let names: Vec<SecretName> = names.filter(wanted).collect();
        for part in names.chunks(PART_NAMES) {
            part_of(session, &batch.profile, part, &mut secrets)?;
        }
    }
    Ok(secrets)
}

/// Whether a failure says that less would do.
fn is_too_much(failure: &Failure) -> bool {
    use SecretsDenial::{BatchOverBurst, BatchTooLarge};
    matches!(failure, Failure::Denied(Denial::Secrets(BatchTooLarge { .. } | BatchOverBurst { .. })))
}

/// Reads secrets by their names, in halves where all of them are too much, and when the rate limit lets it.
fn part_of(
    session: &mut Session,
    profile: &ProfileName,
    names: &[SecretName],
    secrets: &mut Vec<NamedSecret>,
) -> Result<(), Failure> {
    let patterns = names.iter().filter_map(|name| Pattern::parse(name.as_str()).ok()).collect();
    let batch = GetBatch { profile: profile.clone(), selection: Selection::Only(patterns), program: None };
    loop {
        match read(session, &batch) {
            Ok(mut found) => {
                secrets.append(&mut found);
                return Ok(());
            }
            Err(Failure::Denied(Denial::Secrets(SecretsDenial::RateLimited { retry_ms })))
                if retry_ms <= RATE_WAIT_MS_MAX =>
            {
                std::thread::sleep(Duration::from_millis(retry_ms));
            }
            Err(failure) if is_too_much(&failure) && names.len() > 1 => {
                let (first, second) = names.split_at(names.len() / 2);
                part_of(session, profile, first, secrets)?;
                return part_of(session, profile, second, secrets);
            }
            Err(failure) => return Err(failure),
        }
    }
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

/// All names of a profile that may be listed.
pub(crate) fn names(session: &mut Session, profile: &ProfileName) -> Result<Vec<SecretName>, Failure> {
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
