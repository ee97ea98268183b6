//! `pds history`, `pds restore` and `pds purge`: the versions of a secret.

use std::io::IsTerminal;

use core_types::protocol::secrets::{History, Purge, Restore, VersionEntry};
use serde::Serialize;

use crate::error::Failure;
use crate::output::{shown, time};
use crate::prompt::Terminal;
use crate::session::Session;

/// `pds history --json`, the latest version first.
#[derive(Serialize)]
struct Versions<'a> {
    profile: &'a str,
    name: &'a str,
    versions: Vec<Version>,
}

/// A version of it; times are RFC 3339 in UTC. `removed_at` is set on what was the latest version when the secret
/// was removed.
#[derive(Serialize)]
struct Version {
    version: u64,
    set_at: String,
    bytes: u64,
    current: bool,
    removed_at: Option<String>,
    expires_at: Option<String>,
    note: Option<String>,
}

impl From<VersionEntry> for Version {
    fn from(entry: VersionEntry) -> Self {
        Self {
            version: entry.version,
            set_at: time(entry.set_unix_ms),
            bytes: entry.bytes,
            current: entry.current,
            removed_at: entry.removed_unix_ms.map(time),
            expires_at: entry.expires_unix_ms.map(time),
            note: entry.note.map(String::from),
        }
    }
}

impl Version {
    /// The version on one line.
    fn line(&self) -> String {
        let Self { version, set_at, bytes, .. } = self;
        let mut line = format!("{version:>4}  {set_at}  {bytes:>7} bytes");
        if self.current {
            line.push_str("  current");
        }
        for (what, time) in [("removed", &self.removed_at), ("expires", &self.expires_at)] {
            if let Some(time) = time {
                line.push_str(&format!("  {what} {time}"));
            }
        }
        if let Some(note) = &self.note {
            line.push_str(&format!("  {}", shown(note)));
        }
        line
    }
}

pub(super) fn list(session: &mut Session, name: &str) -> Result<(), Failure> {
    let profile = session.profile()?;
    let versions = session.call(&History { profile: profile.clone(), name: name.to_owned() })?;
    let versions: Vec<Version> = versions.into_iter().map(Version::from).collect();
    if session.output.wants_json() {
        return session.output.object(&Versions { profile: profile.as_str(), name, versions });
    }
    versions.iter().try_for_each(|version| session.output.line(version.line()))
}

/// `pds restore --json`: the version that is read from now on.
#[derive(Serialize)]
struct Restored<'a> {
    profile: &'a str,
    name: &'a str,
    version: u64,
}

pub(super) fn restore(session: &mut Session, name: &str, version: Option<u64>) -> Result<(), Failure> {
    let profile = session.profile()?;
    let restored = session.call(&Restore { profile: profile.clone(), name: name.to_owned(), version })?;
    session.messages.note(match version {
        None => format!("restored '{name}' in profile '{profile}'"),
        Some(version) => {
            format!("restored version {version} of '{name}' in profile '{profile}' as version {restored}")
        }
    });
    session.output.object_if_wanted(&Restored { profile: profile.as_str(), name, version: restored })
}

/// `pds purge --json`: how many versions were deleted.
#[derive(Serialize)]
struct Purged<'a> {
    profile: &'a str,
    name: &'a str,
    deleted: u64,
}

pub(super) fn purge(session: &mut Session, name: &str, yes: bool) -> Result<(), Failure> {
    let profile = session.profile()?;
    let question = format!(
        "Delete the old versions of '{}' in profile '{profile}' for good, or all of it if it is removed? [y/N] ",
        shown(name)
    );
    if !yes && std::io::stdin().is_terminal() && !Terminal::open()?.confirm(&question)? {
        return Err(Failure::NotConfirmed);
    }
    let deleted = session.call(&Purge { profile: profile.clone(), name: name.to_owned() })?;
    let plural = if deleted == 1 { "" } else { "s" };
    session.messages.note(format!("deleted {deleted} version{plural} of '{name}' in profile '{profile}'"));
    session.output.object_if_wanted(&Purged { profile: profile.as_str(), name, deleted })
}

#[cfg(test)]
mod tests {
    use core_types::Note;

    use super::*;

    fn version(current: bool, removed_unix_ms: Option<u64>, note: Option<&str>) -> Version {
        Version::from(VersionEntry {
            version: 3,
            set_unix_ms: 0,
            bytes: 12,
            expires_unix_ms: note.map(|_| 2_000),
            removed_unix_ms,
            current,
            note: note.map(|note| Note::parse(note).unwrap()),
        })
    }

    #[test]
    fn a_line_tells_what_became_of_a_version() {
        assert_eq!(version(true, None, None).line(), "   3  1970-01-01T00:00:00Z       12 bytes  current");
        assert_eq!(
            version(false, Some(1_000), Some("n\u{202e}")).line(),
            concat!(
                "   3  1970-01-01T00:00:00Z       12 bytes  removed 1970-01-01T00:00:01Z",
                "  expires 1970-01-01T00:00:02Z  n\\u{202e}"
            )
        );
    }

    #[test]
    fn the_object_has_the_same_keys_whatever_became_of_it() {
        assert_eq!(
            serde_json::to_string(&version(true, None, None)).unwrap(),
            concat!(
                r#"{"version":3,"set_at":"1970-01-01T00:00:00Z","bytes":12,"current":true,"removed_at":null,"#,
                r#""expires_at":null,"note":null}"#
            )
        );
    }
}
