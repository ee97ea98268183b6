//! `pds grant`, `pds grants` and `pds revoke-grant`: what an enrolled daemon may read for some time, or so often, though no
//! rule allows it.

use core_types::access::AccessOperation;
use core_types::grant::GrantId;
use core_types::limits::GRANT_SECONDS_DEFAULT;
use core_types::protocol::bus::Enrolled;
use core_types::protocol::explanation::{Asker, Decision, Explain};
use core_types::protocol::grants::{Grant, GrantEntry, GrantState, Grants, RevokeGrant};
use core_types::protocol::secrets::Gate;
use serde::Serialize;

use crate::args::GrantOptions;
use crate::error::Failure;
use crate::output::time;
use crate::session::Session;

/// A grant of `--json`.
#[derive(Serialize)]
pub(super) struct Shown {
    id: String,
    profile: String,
    pattern: String,
    to: String,
    made: String,
    /// `live`, `expired` or `used-up`.
    state: &'static str,
    seconds_left: Option<u64>,
    uses: Option<u64>,
    uses_left: Option<u64>,
}

/// `pds grants --json`.
#[derive(Serialize)]
struct All {
    grants: Vec<Shown>,
}

pub(super) fn grant(session: &mut Session, options: &GrantOptions) -> Result<(), Failure> {
    let profile = session.profile()?;
    let call = Grant {
        profile: profile.clone(),
        pattern: options.pattern.clone(),
        to: options.to.clone(),
        seconds: options.seconds.unwrap_or(GRANT_SECONDS_DEFAULT),
        uses: options.uses,
    };
    let made = session.call(&call)?;
    session.messages.note(told(&made));
    note_what_stands_in_its_way(session, &call)?;
    session.output.object_if_wanted(&shown(&made))
}

/// A grant that does nothing is mostly a slip: a name that nobody has, or a rule that wins.
fn note_what_stands_in_its_way(session: &mut Session, call: &Grant) -> Result<(), Failure> {
    if session.messages.is_quiet() {
        return Ok(());
    }
    let enrolled = session.call(&Enrolled {})?;
    if enrolled.iter().all(|daemon| daemon.name != call.to) {
        session.messages.note(format!("no daemon is enrolled as '{}' yet", call.to));
    }
    if call.pattern.is_wild() {
        return Ok(());
    }
    let explain = Explain {
        profile: call.profile.clone(),
        name: call.pattern.as_str().to_owned(),
        requester: Some(Asker::Daemon(call.to.clone())),
        operation: AccessOperation::Get,
    };
    let explanation = session.call(&explain)?;
    match (explanation.decision, explanation.rule) {
        (Decision::Denied(Gate::AccessRule), Some(rule)) => session
            .messages
            .note(format!("a rule that denies wins over a grant: {}", rule.told(call.profile.as_str()))),
        (Decision::Denied(Gate::Vault), _) => {
            session.messages.note(format!("there is no secret '{}' now", call.pattern));
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn list(session: &mut Session) -> Result<(), Failure> {
    let grants = session.call(&Grants {})?;
    if session.output.wants_json() {
        return session.output.object(&All { grants: grants.iter().map(shown).collect() });
    }
    grants.iter().try_for_each(|grant| session.output.line(told(grant)))
}

pub(super) fn revoke(session: &mut Session, id: GrantId) -> Result<(), Failure> {
    let was = session.call(&RevokeGrant { id })?;
    session.messages.detail(format!("took back {}", told(&was)));
    session.output.object_if_wanted(&shown(&was))
}

/// A grant in one line.
pub(super) fn told(grant: &GrantEntry) -> String {
    let GrantEntry { id, profile, pattern, to, state, uses_left, .. } = grant;
    let (state, uses) = match (state, uses_left) {
        (GrantState::Live { seconds_left }, None) => (format!("for {}", duration(*seconds_left)), None),
        (GrantState::Live { seconds_left }, Some(left)) => {
            (format!("for {}", duration(*seconds_left)), Some(format!(", {left} uses left")))
        }
        (GrantState::Expired, _) => ("expired".to_owned(), None),
        (GrantState::UsedUp, _) => ("used up".to_owned(), None),
    };
    format!("{id}  {to} may get '{pattern}' of profile '{profile}': {state}{}", uses.unwrap_or_default())
}

/// A length of time, to the second.
fn duration(seconds: u64) -> String {
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let parts =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}"));
    parts.collect::<Vec<_>>().join(" ")
}

pub(super) fn shown(grant: &GrantEntry) -> Shown {
    let (state, seconds_left) = match grant.state {
        GrantState::Live { seconds_left } => ("live", Some(seconds_left)),
        GrantState::Expired => ("expired", None),
        GrantState::UsedUp => ("used-up", None),
    };
    Shown {
        id: grant.id.to_string(),
        profile: grant.profile.as_str().to_owned(),
        pattern: grant.pattern.as_str().to_owned(),
        to: grant.to.as_str().to_owned(),
        made: time(grant.made_unix_ms),
        state,
        seconds_left,
        uses: grant.uses,
        uses_left: grant.uses_left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_told_in_its_parts() {
        for (seconds, expected) in [(1, "1s"), (600, "10m"), (3_661, "1h 1m 1s"), (2_592_000, "30d")] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
