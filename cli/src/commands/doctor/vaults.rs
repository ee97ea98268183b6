//! The vaults, the audit log, and the clock that both are dated by.

use std::path::Path;
use std::time::{Duration, SystemTime};

use core_types::config::AuditMode;
use core_types::factor::FactorKind;
use core_types::protocol::secrets::{ProfileEntry, ProfileState};

use super::{Facts, Finding, problem};
use crate::output::{shown, time};

/// How far ahead of the clock a date may be: file systems and clocks that are being set are that inexact.
const AHEAD: Duration = Duration::from_secs(120);

/// Every vault can be used, and is the one that was written last.
pub(super) fn vaults(facts: &Facts) -> Finding {
    let profiles = match &facts.profiles {
        Ok(profiles) => profiles,
        Err(reason) => return Finding::Unknown(reason.clone()),
    };
    for ProfileEntry { name, state, .. } in profiles {
        match state {
            ProfileState::Damaged(reason) => {
                return problem(
                    format!("the vault of '{name}' cannot be used: {}", shown(reason)),
                    "put a backup in its place with `pds restore-backup`; docs/operations.md tells how",
                );
            }
            ProfileState::Unlocked { rollback: Some(reason), .. } => {
                return problem(
                    format!("the vault of '{name}' can only be read: {}", shown(reason)),
                    "if you put an older copy there yourself, `pds unlock --accept-rollback`; else look for the newer one",
                );
            }
            ProfileState::Locked | ProfileState::Unlocked { rollback: None, .. } => {}
        }
    }
    if profiles.is_empty() {
        return Finding::Good("there is none yet; `pds init` makes one".to_owned());
    }
    let single: Vec<String> = profiles
        .iter()
        .filter(|profile| profile.factors == [FactorKind::Password])
        .map(|profile| profile.name.to_string())
        .collect();
    match single.is_empty() {
        true => Finding::Good(format!("{} vaults", profiles.len())),
        false => Finding::Note(format!(
            "a forgotten password loses {}: `pds recovery new` makes a code for a drawer",
            single.join(", ")
        )),
    }
}

/// Everything that is asked for can be recorded.
pub(super) fn audit_log(facts: &Facts) -> Finding {
    let state = match &facts.audit {
        Ok(state) => state,
        Err(reason) => return Finding::Unknown(reason.clone()),
    };
    if let Some(reason) = &state.failing {
        return problem(
            format!("nothing can be written to it: {}", shown(reason)),
            "make room or put its folder right: profiles whose audit mode is durable refuse to serve meanwhile",
        );
    }
    if state.missing > 0 {
        return problem(
            format!("{} entries are missing, because there was room for them nowhere", state.missing),
            "`pds audit show` has entries of the kind gap where they are missing; the audit mode durable rather refuses",
        );
    }
    let modes = state.modes.iter().map(|(profile, mode)| format!(", {profile}: {}", mode.as_str()));
    let text = format!("mode {}{}", state.mode.as_str(), modes.collect::<String>());
    let all = std::iter::once(state.mode).chain(state.modes.iter().map(|(_, mode)| *mode));
    match all.into_iter().any(|mode| mode == AuditMode::BestEffort) {
        true => Finding::Note(format!("{text}; in the mode best-effort a killed daemon loses entries")),
        false => Finding::Good(text),
    }
}

/// The clock does not go back behind what has already been dated by it.
pub(super) fn clock(facts: &Facts) -> Finding {
    let paths = &facts.paths;
    let files = [paths.audit(), paths.anchors()].into_iter().filter_map(|folder| newest(&folder));
    let made = facts
        .profiles
        .iter()
        .flatten()
        .map(|profile| SystemTime::UNIX_EPOCH + Duration::from_millis(profile.created_unix_ms));
    judge_clock(SystemTime::now(), files.chain(made).max())
}

fn judge_clock(now: SystemTime, newest: Option<SystemTime>) -> Finding {
    let ms = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    match newest {
        Some(newest) if newest > now + AHEAD => problem(
            format!("it says {}, and something of ours is of {}", time(ms(now)), time(ms(newest))),
            "set the clock: the dates in the audit log, of expiries and of one-time passwords go by it",
        ),
        _ => Finding::Good(time(ms(now))),
    }
}

/// When something in a folder was last written to.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_told_and_an_inexact_one_is_not() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert!(matches!(judge_clock(then, None), Finding::Good(_)));
        assert!(matches!(judge_clock(then, Some(then + AHEAD)), Finding::Good(_)));
        let ahead = then + AHEAD + Duration::from_secs(1);
        assert!(matches!(judge_clock(then, Some(ahead)), Finding::Problem { .. }));
    }
}
