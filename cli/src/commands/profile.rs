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
    rollback: Option<String>,
    damage: Option<String>,
    factors: Vec<&'static str>,
    policy: String,
    created_at: String,
}

impl From<ProfileEntry> for Shown {
    fn from(entry: ProfileEntry) -> Self {
        let (state, unlocked_since, rollback, damage) = match entry.state {
            ProfileState::Locked => ("locked", None, None, None),
            ProfileState::Unlocked { since_unix_ms, rollback } => {
                ("unlocked", Some(time(since_unix_ms)), rollback, None)
            }
            ProfileState::Damaged(reason) => ("damaged", None, None, Some(reason)),
        };
        Self {
            name: entry.name.into(),
            state,
            unlocked_since,
            rollback,
            damage,
            policy: entry.policy.shown(entry.factors.len()),
            factors: entry.factors.into_iter().map(FactorKind::name).collect(),
            created_at: time(entry.created_unix_ms),
        }
    }
}

impl Shown {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The profile on one line.
    pub(super) fn line(&self) -> String {
        let state = match (&self.unlocked_since, &self.damage) {
            (Some(since), _) => match &self.rollback {
                Some(found) => format!("unlocked since {since}, read-only: {}", shown(found)),
                None => format!("unlocked since {since}"),
            },
            (None, Some(reason)) => format!("damaged: {}", shown(reason)),
            (None, None) => self.state.to_owned(),
        };
        let policy = match self.policy.as_str() {
            "any" => String::new(),
            policy => format!("; {policy}"),
        };
        format!("{:<16}  {state}  ({}{policy})", self.name, self.factors.join(", "))
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
    use core_types::protocol::secrets::FactorPolicy;

    use super::*;

    #[test]
    fn a_policy_that_wants_more_than_one_is_shown() {
        let entry = ProfileEntry {
            name: ProfileName::parse("work").unwrap(),
            state: ProfileState::Locked,
            factors: vec![FactorKind::Password, FactorKind::SshAgent, FactorKind::Recovery],
            policy: FactorPolicy::Threshold(2),
            created_unix_ms: 0,
        };
        let line = Shown::from(entry).line();
        assert_eq!(line, "work              locked  (password, ssh-agent, recovery; 2 of 3)");
    }

    fn shown_as(state: ProfileState) -> (String, String) {
        let entry = ProfileEntry {
            name: ProfileName::parse("work").unwrap(),
            state,
            factors: vec![FactorKind::Password],
            policy: FactorPolicy::Any,
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
            r#"{"name":"work","state":"locked","unlocked_since":null,"rollback":null,"damage":null,"factors":["password"],"policy":"any","created_at":"1970-01-01T00:00:00Z"}"#
        );
        assert_eq!(line, "work              locked  (password)");
        let (json, line) = shown_as(ProfileState::Unlocked { since_unix_ms: 1_000, rollback: None });
        assert!(
            json.contains(
                r#""state":"unlocked","unlocked_since":"1970-01-01T00:00:01Z","rollback":null,"damage":null"#
            ),
            "{json}"
        );
        assert_eq!(line, "work              unlocked since 1970-01-01T00:00:01Z  (password)");
        let rollback = Some("it is older".to_owned());
        let (_, line) = shown_as(ProfileState::Unlocked { since_unix_ms: 1_000, rollback });
        assert_eq!(
            line,
            "work              unlocked since 1970-01-01T00:00:01Z, read-only: it is older  (password)"
        );
        let (json, line) = shown_as(ProfileState::Damaged("page 3\x1b".to_owned()));
        assert!(
            json.contains(
                r#""state":"damaged","unlocked_since":null,"rollback":null,"damage":"page 3\u001b""#
            ),
            "{json}"
        );
        assert_eq!(line, "work              damaged: page 3\\u{1b}  (password)");
    }
}
