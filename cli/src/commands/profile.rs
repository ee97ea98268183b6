//! `pds profile list`, and how a profile is shown.

use core_types::protocol::secrets::{FactorKind, ProfileEntry, ProfileState, Profiles};
use serde::Serialize;

use crate::error::Failure;
use crate::output::{shown, time};
use crate::session::Session;

/// `pds profile list --json`.
#[derive(Serialize)]
struct Listing {
    profiles: Vec<Shown>,
}

/// A profile in `--json`; `state` is `locked`, `unlocked` or `damaged`, times are RFC 3339 in UTC.
#[derive(Serialize)]
pub(super) struct Shown {
    name: String,
    state: &'static str,
    unlocked_since: Option<String>,
    damage: Option<String>,
    factors: Vec<&'static str>,
    created_at: String,
}

impl From<ProfileEntry> for Shown {
    fn from(entry: ProfileEntry) -> Self {
        let (state, unlocked_since, damage) = match entry.state {
            ProfileState::Locked => ("locked", None, None),
            ProfileState::Unlocked { since_unix_ms } => ("unlocked", Some(time(since_unix_ms)), None),
            ProfileState::Damaged(reason) => ("damaged", None, Some(reason)),
        };
        Self {
            name: entry.name.into(),
            state,
            unlocked_since,
            damage,
            factors: entry.factors.into_iter().map(factor_name).collect(),
            created_at: time(entry.created_unix_ms),
        }
    }
}

impl Shown {
    /// The profile on one line.
    pub(super) fn line(&self) -> String {
        let state = match (&self.unlocked_since, &self.damage) {
            (Some(since), _) => format!("unlocked since {since}"),
            (None, Some(reason)) => format!("damaged: {}", shown(reason)),
            (None, None) => self.state.to_owned(),
        };
        format!("{:<16}  {state}  ({})", self.name, self.factors.join(", "))
    }
}

fn factor_name(factor: FactorKind) -> &'static str {
    match factor {
        FactorKind::Password => "password",
    }
}

pub(super) fn list(session: &mut Session) -> Result<(), Failure> {
    let profiles: Vec<Shown> = session.call(&Profiles {})?.into_iter().map(Shown::from).collect();
    if session.output.wants_json() {
        return session.output.object(&Listing { profiles });
    }
    if profiles.is_empty() {
        session.messages.note("there is no profile yet; `pds init` makes one");
    }
    profiles.iter().try_for_each(|profile| session.output.line(profile.line()))
}

#[cfg(test)]
mod tests {
    use core_types::ProfileName;

    use super::*;

    fn shown_as(state: ProfileState) -> (String, String) {
        let entry = ProfileEntry {
            name: ProfileName::parse("work").unwrap(),
            state,
            factors: vec![FactorKind::Password],
            created_unix_ms: 0,
        };
        let shown = Shown::from(entry);
        (serde_json::to_string(&shown).unwrap(), shown.line())
    }

    #[test]
    fn every_state_has_its_line_and_the_same_keys() {
        let (json, line) = shown_as(ProfileState::Locked);
        assert_eq!(
            json,
            r#"{"name":"work","state":"locked","unlocked_since":null,"damage":null,"factors":["password"],"created_at":"1970-01-01T00:00:00Z"}"#
        );
        assert_eq!(line, "work              locked  (password)");
        let (json, line) = shown_as(ProfileState::Unlocked { since_unix_ms: 1_000 });
        assert!(
            json.contains(r#""state":"unlocked","unlocked_since":"1970-01-01T00:00:01Z","damage":null"#),
            "{json}"
        );
        assert_eq!(line, "work              unlocked since 1970-01-01T00:00:01Z  (password)");
        let (json, line) = shown_as(ProfileState::Damaged("page 3\x1b".to_owned()));
        assert!(
            json.contains(r#""state":"damaged","unlocked_since":null,"damage":"page 3\u001b""#),
            "{json}"
        );
        assert_eq!(line, "work              damaged: page 3\\u{1b}  (password)");
    }
}
