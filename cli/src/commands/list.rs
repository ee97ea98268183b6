//! `pds list`: names of secrets, never values.

use std::collections::BTreeMap;

use core_types::pattern::Pattern;
use core_types::protocol::profile::LastRead;
use core_types::protocol::secrets::{List, SecretEntry, SecretPage};
use serde::Serialize;

use super::reads::last_reads;
use crate::error::Failure;
use crate::output::{shown, time};
use crate::session::Session;

/// `pds list --json`, with or without `--long`.
#[derive(Serialize)]
struct Listing<'a> {
    profile: &'a str,
    secrets: Vec<Listed>,
}

/// One secret of it; times are RFC 3339 in UTC. `version` is the one that is read, `versions` how many are kept.
#[derive(Serialize)]
struct Listed {
    name: String,
    created_at: String,
    updated_at: String,
    version: u64,
    versions: u64,
    expires_at: Option<String>,
    note: Option<String>,
    last_read_at: Option<String>,
    last_reader: Option<String>,
}

impl Listed {
    /// The same with its last read, as far as the audit log tells one.
    fn read_last(self, read: Option<&LastRead>) -> Self {
        let (last_read_at, last_reader) =
            (read.map(|read| time(read.unix_ms)), read.map(|read| read.requester.clone()));
        Self { last_read_at, last_reader, ..self }
    }
}

impl From<SecretEntry> for Listed {
    fn from(entry: SecretEntry) -> Self {
        Self {
            name: entry.name.into(),
            created_at: time(entry.created_unix_ms),
            updated_at: time(entry.updated_unix_ms),
            version: entry.version,
            versions: entry.versions,
            expires_at: entry.expires_unix_ms.map(time),
            note: entry.note.map(String::from),
            last_read_at: None,
            last_reader: None,
        }
    }
}

pub(super) fn run(session: &mut Session, pattern: Option<&Pattern>, long: bool) -> Result<(), Failure> {
    let profile = session.profile()?;
    let mut call = List { profile: profile.clone(), pattern: pattern.cloned(), after: None };
    let mut listing = Listing { profile: profile.as_str(), secrets: Vec::new() };
    // Not knowing when they were read last is no reason not to list them.
    let reads = if long { last_reads(session, &profile).unwrap_or_default() } else { BTreeMap::new() };
    loop {
        let SecretPage { entries, more } = session.call(&call)?;
        call.after = entries.last().map(|entry| entry.name.clone());
        let listed = entries.into_iter().map(|entry| {
            let read = reads.get(entry.name.as_str());
            Listed::from(entry).read_last(read)
        });
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
    if long { session.output.line(secret.line()) } else { session.output.line(&secret.name) }
}

impl Listed {
    /// The secret on one line: both times, the version and how many are kept, the expiry, the last read, name and note.
    fn line(&self) -> String {
        let versions = format!("{}/{}", self.version, self.versions);
        let expires_at = self.expires_at.as_deref().unwrap_or("-");
        let last_read_at = self.last_read_at.as_deref().unwrap_or("-");
        let last_reader = self.last_reader.as_deref().map_or_else(|| "-".to_owned(), shown);
        let mut line = format!(
            "{}  {}  {versions:>7}  {expires_at:<20}  {last_read_at:<20}  {last_reader:<8}  {}",
            self.created_at, self.updated_at, self.name
        );
        if let Some(note) = &self.note {
            line.push_str("  ");
            line.push_str(&shown(note));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use core_types::{Note, SecretName};

    use super::*;

    fn listed(expires_unix_ms: Option<u64>, note: Option<&str>) -> Listed {
        Listed::from(SecretEntry {
            name: SecretName::parse("a/b").unwrap(),
            created_unix_ms: 0,
            updated_unix_ms: 1_000,
            version: 12,
            versions: 11,
            expires_unix_ms,
            note: note.map(|note| Note::parse(note).unwrap()),
        })
    }

    #[test]
    fn a_long_line_has_everything_in_its_place() {
        assert_eq!(
            listed(None, None).line(),
            "1970-01-01T00:00:00Z  1970-01-01T00:00:01Z    12/11  -                     -                     -         a/b"
        );
        assert_eq!(
            listed(Some(2_000), Some("of ACME \u{202e}")).line(),
            "1970-01-01T00:00:00Z  1970-01-01T00:00:01Z    12/11  1970-01-01T00:00:02Z  -                     -         a/b  of ACME \\u{202e}"
        );
    }

    #[test]
    fn the_object_has_the_same_keys_whatever_is_set() {
        assert_eq!(
            serde_json::to_string(&listed(None, Some("n"))).unwrap(),
            concat!(
                r#"{"name":"a/b","created_at":"1970-01-01T00:00:00Z","updated_at":"1970-01-01T00:00:01Z","#,
                r#""version":12,"versions":11,"expires_at":null,"note":"n","last_read_at":null,"last_reader":null}"#
            )
        );
    }
}
