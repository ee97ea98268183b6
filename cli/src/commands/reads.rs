//! When secrets were read last and set last: what of `pds list --long`, `pds audit unused` and `pds audit age` goes by
//! the audit log and by the vault's dates. No value is read for it.

use std::collections::BTreeMap;

use core_types::ProfileName;
use core_types::protocol::profile::{LastRead, LastReads};
use core_types::protocol::secrets::{List, SecretEntry, SecretPage};
use jiff::Timestamp;
use serde::Serialize;

use crate::error::Failure;
use crate::output::time;
use crate::session::Session;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The last reads of a profile's secrets, by name, as far as the audit log tells them.
pub(super) fn last_reads(
    session: &mut Session,
    profile: &ProfileName,
) -> Result<BTreeMap<String, LastRead>, Failure> {
    let mut call = LastReads { profile: profile.clone(), after: None };
    let mut found = BTreeMap::new();
    loop {
        let page = session.call(&call)?;
        call.after = page.reads.last().map(|read| read.name.clone());
        found.extend(page.reads.into_iter().map(|read| (read.name.clone(), read)));
        if !page.more || call.after.is_none() {
            return Ok(found);
        }
    }
}

/// `pds audit unused --json`.
#[derive(Serialize)]
struct UnusedListing<'a> {
    profile: &'a str,
    secrets: Vec<Unused>,
}

/// A secret that nobody read lately; `last_read_at` is `null` if the log knows of no read.
#[derive(Serialize)]
struct Unused {
    name: String,
    last_read_at: Option<String>,
    last_reader: Option<String>,
    updated_at: String,
}

impl Unused {
    fn line(&self) -> String {
        match (&self.last_read_at, &self.last_reader) {
            (Some(at), Some(by)) => format!("{at}  {by:<16}  {}", self.name),
            _ => format!("{:<20}  {:<16}  {}", "never", "-", self.name),
        }
    }
}

/// Lists the secrets that were read by nobody since a time. What was set since then is not among them.
pub(super) fn unused(session: &mut Session, since: Timestamp) -> Result<(), Failure> {
    let profile = session.profile()?;
    let since_ms = u64::try_from(since.as_millisecond()).unwrap_or(0);
    let mut reads = last_reads(session, &profile)?;
    let mut secrets = Vec::new();
    for entry in all(session, &profile)? {
        let read = reads.remove(entry.name.as_str());
        let used = read.as_ref().is_some_and(|read| read.unix_ms >= since_ms);
        if !used && entry.updated_unix_ms < since_ms {
            secrets.push(Unused {
                last_read_at: read.as_ref().map(|read| time(read.unix_ms)),
                last_reader: read.map(|read| read.requester),
                updated_at: time(entry.updated_unix_ms),
                name: entry.name.into(),
            });
        }
    }
    if session.output.wants_json() {
        return session.output.object(&UnusedListing { profile: profile.as_str(), secrets });
    }
    secrets.iter().try_for_each(|secret| session.output.line(secret.line()))
}

/// `pds audit age --json`.
#[derive(Serialize)]
struct AgeListing<'a> {
    profile: &'a str,
    secrets: Vec<Aged>,
}

/// How long a secret has had its value.
#[derive(Serialize)]
struct Aged {
    name: String,
    updated_at: String,
    days: u64,
}

/// Lists the secrets whose value was set before a time, the oldest first.
pub(super) fn age(session: &mut Session, since: Timestamp) -> Result<(), Failure> {
    let profile = session.profile()?;
    let before_ms = u64::try_from(since.as_millisecond()).unwrap_or(0);
    let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    let mut entries = all(session, &profile)?;
    entries.retain(|entry| entry.updated_unix_ms < before_ms);
    entries.sort_by(|one, other| (one.updated_unix_ms, &one.name).cmp(&(other.updated_unix_ms, &other.name)));
    let aged = |entry: SecretEntry| Aged {
        updated_at: time(entry.updated_unix_ms),
        days: now_ms.saturating_sub(entry.updated_unix_ms) / DAY_MS,
        name: entry.name.into(),
    };
    let secrets: Vec<Aged> = entries.into_iter().map(aged).collect();
    if session.output.wants_json() {
        return session.output.object(&AgeListing { profile: profile.as_str(), secrets });
    }
    let line = |secret: &Aged| format!("{}  {:>5} days  {}", secret.updated_at, secret.days, secret.name);
    secrets.iter().try_for_each(|secret| session.output.line(line(secret)))
}

/// All secrets of a profile.
fn all(session: &mut Session, profile: &ProfileName) -> Result<Vec<SecretEntry>, Failure> {
    let mut call = List { profile: profile.clone(), pattern: None, after: None };
    let mut found = Vec::new();
    loop {
        let SecretPage { entries, more } = session.call(&call)?;
        call.after = entries.last().map(|entry| entry.name.clone());
        found.extend(entries);
        if !more || call.after.is_none() {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_was_never_read_is_shown_as_such() {
        let secret = |last_read_at: Option<&str>, last_reader: Option<&str>| Unused {
            name: "a/b".to_owned(),
            last_read_at: last_read_at.map(ToOwned::to_owned),
            last_reader: last_reader.map(ToOwned::to_owned),
            updated_at: "u".to_owned(),
        };
        assert_eq!(secret(None, None).line(), "never                 -                 a/b");
        assert_eq!(
            secret(Some("2025-01-02T03:04:05Z"), Some("cli")).line(),
            "2025-01-02T03:04:05Z  cli               a/b"
        );
    }
}
