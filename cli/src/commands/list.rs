//! `pds list`: names of secrets, never values.

use core_types::pattern::Pattern;
use core_types::protocol::secrets::{List, SecretEntry, SecretPage};
use serde::Serialize;

use crate::error::Failure;
use crate::output::time;
use crate::session::Session;

/// `pds list --json`, with or without `--long`.
#[derive(Serialize)]
struct Listing<'a> {
    profile: &'a str,
    secrets: Vec<Listed>,
}

/// One secret of it; times are RFC 3339 in UTC.
#[derive(Serialize)]
struct Listed {
    name: String,
    created_at: String,
    updated_at: String,
}

impl From<SecretEntry> for Listed {
    fn from(entry: SecretEntry) -> Self {
        Self {
            name: entry.name.into(),
            created_at: time(entry.created_unix_ms),
            updated_at: time(entry.updated_unix_ms),
        }
    }
}

pub(super) fn run(session: &mut Session, pattern: Option<&Pattern>, long: bool) -> Result<(), Failure> {
    let profile = session.profile()?;
    let mut call = List { profile: profile.clone(), pattern: pattern.cloned(), after: None };
    let mut listing = Listing { profile: profile.as_str(), secrets: Vec::new() };
    loop {
        let SecretPage { entries, more } = session.call(&call)?;
        call.after = entries.last().map(|entry| entry.name.clone());
        let listed = entries.into_iter().map(Listed::from);
        if session.output.wants_json() {
            listing.secrets.extend(listed);
        } else {
            for secret in listed {
                write_line(session, &secret, long)?;
            }
        }
        // A page without entries has no last name to go on from.
        if !more || call.after.is_none() {
            break;
        }
    }
    session.output.object_if_wanted(&listing)
}

fn write_line(session: &mut Session, secret: &Listed, long: bool) -> Result<(), Failure> {
    let Listed { name, created_at, updated_at } = secret;
    if long {
        session.output.line(format_args!("{created_at}  {updated_at}  {name}"))
    } else {
        session.output.line(name)
    }
}
