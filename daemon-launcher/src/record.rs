//! What the launcher writes to the audit log: that a program was started, and how it ended.

use std::sync::Arc;

use core_daemon::{AuditQueue, Context, LiveConfig, NotDurable, Room, unix_ms_now};
use core_types::ProfileName;
use core_types::protocol::launcher::{LauncherDenial, OsBytes, Run};
use core_types::protocol::profile::{
    ChildExit, ChildRecord, Operation, Outcome, Requester, SecretOperationAudit,
};
use core_types::protocol::secrets::SecretsDenial;

use core_types::child::references::Resolved;

/// Longest program name in the audit log, in characters.
const SUBJECT_CHARACTERS_MAX: usize = 256;
/// Most bytes of names of one kind in the record of a run.
const NAMES_BYTES_MAX: usize = 8 << 10;

/// The way to the audit log, by the modes of the configuration as it is now.
pub(crate) struct Recorder {
    audit: AuditQueue,
    config: LiveConfig,
}

impl Recorder {
    pub(crate) fn new(context: &Context) -> Self {
        Self { audit: context.audit.clone(), config: LiveConfig::new(&context.paths) }
    }

    /// Goes by the audit modes of the file, if that changed and can be used; `daemon-secrets` records that it did.
    async fn look(&self) {
        if let Some(change) = self.config.changed().await {
            if let Ok(config) = &change.config {
                self.audit.configure(Arc::new(config.clone()));
            }
            change.seen();
        }
    }

    /// Keeps room for the entry of a run, where its profile asks for that.
    pub(crate) async fn room(&self, run: &Run) -> Result<Room, LauncherDenial> {
        self.look().await;
        let profile = run.profiles.first();
        self.audit.reserve(profile, 1).map_err(|NotDurable(reason)| {
            let profile = profile.map_or("all", ProfileName::as_str).to_owned();
            LauncherDenial::Secrets(SecretsDenial::AuditUnwritable { profile, reason })
        })
    }

    /// Records an attempt; what it read is in the entries of `daemon-secrets`.
    pub(crate) async fn attempt(&self, entry: SecretOperationAudit, room: Room) {
        if let Err(error) = self.audit.record(vec![entry], room).await {
            tracing::error!(%error, "a run was not recorded");
        }
    }

    /// Completes when what was recorded before is in the audit log, or when that takes too long.
    pub(crate) async fn delivered(&self) {
        self.audit.delivered().await;
    }

    /// Records the end of a program, which is not to be prevented.
    pub(crate) async fn end(&self, entry: SecretOperationAudit) {
        self.look().await;
        if let Err(error) = self.audit.record(vec![entry], Room::none()).await {
            tracing::error!(%error, "the end of a program was not recorded");
        }
    }
}

/// The entry of an attempt to start a program.
pub(crate) fn attempt(
    run: &Run,
    requester: Requester,
    started: &Result<ChildRecord, LauncherDenial>,
) -> SecretOperationAudit {
    let outcome = match started {
        Ok(_) => Outcome::Done,
        Err(denial) => Outcome::Failed { reason: denial.to_string() },
    };
    let entry = SecretOperationAudit::new(unix_ms_now(), Operation::Run, requester, outcome)
        .about(run.profiles.first().cloned(), run.arguments.first().map(subject));
    SecretOperationAudit { child: started.as_ref().ok().cloned(), ..entry }
}

/// The entry of the end of a program, from the entry of its start.
pub(crate) fn end(start: SecretOperationAudit, exit: ChildExit) -> SecretOperationAudit {
    let outcome = match exit {
        ChildExit::Code(_) | ChildExit::Signal(_) => Outcome::Done,
        ChildExit::Unknown => {
            let reason = "nobody saw its end: what watched it ended before it".to_owned();
            Outcome::Failed { reason }
        }
    };
    let child = start.child.map(|child| ChildRecord { exit: Some(exit), ..child });
    SecretOperationAudit { unix_ms: unix_ms_now(), operation: Operation::RunEnd, outcome, child, ..start }
}

/// The profiles that a run reads from: those of the request, then those that only references lead to.
pub(crate) fn profiles(run: &Run, resolved: &[Resolved]) -> Vec<String> {
    let referred = resolved.iter().map(|resolved| &resolved.referral.reference.profile);
    let mut profiles: Vec<String> = Vec::new();
    for profile in run.profiles.iter().chain(referred) {
        if !profiles.iter().any(|known| known == profile.as_str()) {
            profiles.push(profile.to_string());
        }
    }
    profiles
}

/// Names for the record of a run; where they are too many for one, the last says how many are left out.
pub(crate) fn bounded(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let (mut room, mut shown) = (NAMES_BYTES_MAX, Vec::new());
    let mut names = names.into_iter();
    while let Some(name) = names.next() {
        match room.checked_sub(name.len()) {
            Some(left) => room = left,
            None => {
                shown.push(format!("... ({} more)", names.count() + 1));
                break;
            }
        }
        shown.push(name);
    }
    shown
}

/// A program as the audit log names it.
fn subject(program: &OsBytes) -> String {
    String::from_utf8_lossy(program.expose()).chars().take(SUBJECT_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::WireSecret;

    #[test]
    fn a_program_is_named_in_the_log_at_bounded_length() {
        assert_eq!(subject(&WireSecret::new(b"/bin/\xffx".to_vec())), "/bin/\u{fffd}x");
        assert_eq!(subject(&WireSecret::new(vec![b'x'; 10_000])).len(), SUBJECT_CHARACTERS_MAX);
    }

    #[test]
    fn more_names_than_a_record_holds_are_counted() {
        let names = |count: usize| (0..count).map(|number| format!("name-{number:04}"));
        assert_eq!(bounded(names(3)), names(3).collect::<Vec<_>>());
        let shown = bounded(names(2_000));
        let fit = NAMES_BYTES_MAX / "name-0000".len();
        assert_eq!(shown.len(), fit + 1);
        assert_eq!(shown.last(), Some(&format!("... ({} more)", 2_000 - fit)));
    }
}
