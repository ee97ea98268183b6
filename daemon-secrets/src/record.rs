//! The one place that writes the audit record and the log line of an attempt, from how it ended.

use core_daemon::{NotDurable, Room, unix_ms_now};
use core_types::ProfileName;
use core_types::grant::GrantRecord;
use core_types::header::Sender;
use core_types::limits::SECRET_NAME_BYTES_MAX;
use core_types::name::SECRETS;
use core_types::protocol::profile::{LockCause, Operation, Outcome, Requester, SecretOperationAudit};
use core_types::protocol::secrets::{Gate, SecretsDenial};

use crate::acl::Action;
use crate::crud::Refusal;
use crate::neighbours::Neighbours;
use crate::vault::Vaults;

/// What a record is about.
pub(crate) struct About<'a> {
    pub(crate) action: Action,
    pub(crate) profile: Option<&'a ProfileName>,
    pub(crate) sender: &'a Sender,
    /// The secrets, as asked for; one record each. Empty: one record that names none.
    pub(crate) subjects: Vec<String>,
    /// Where the state of the vault is to be read from afterwards, for what changes it.
    pub(crate) vaults: Option<&'a Vaults>,
    /// Why the profile was locked, if it was.
    pub(crate) cause: Option<LockCause>,
    /// The grant that was made or taken back, or that let the requester through.
    pub(crate) grant: Option<GrantRecord>,
    /// The room that was kept for the record of a change.
    pub(crate) room: Room,
    /// For whom the sender has asked, if not for itself.
    pub(crate) behalf: Option<Requester>,
}

impl<'a> About<'a> {
    /// What is about no secret in particular.
    pub(crate) fn of(action: Action, profile: Option<&'a ProfileName>, sender: &'a Sender) -> Self {
        let (subjects, vaults, cause, grant, room) = (Vec::new(), None, None, None, Room::none());
        Self { action, profile, sender, subjects, vaults, cause, grant, room, behalf: None }
    }

    /// The same of something that changes, locks or unlocks the vault: its record says in which state it is then.
    pub(crate) fn changing(self, vaults: &'a Vaults) -> Self {
        Self { vaults: Some(vaults), ..self }
    }

    /// The same with the room that was kept for its record before the change was made.
    pub(crate) fn holding(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// The same with the grant that it is about, or rests on.
    pub(crate) fn through(self, grant: Option<GrantRecord>) -> Self {
        Self { grant, ..self }
    }

    /// The same of a lock, with its reason.
    pub(crate) fn because(self, cause: LockCause) -> Self {
        Self { cause: Some(cause), ..self }
    }

    /// The same of what the sender has asked for someone else.
    pub(crate) fn on_behalf_of(self, behalf: Option<Requester>) -> Self {
        Self { behalf, ..self }
    }

    fn generation(&self) -> Option<u64> {
        self.vaults?.generation(self.profile?)
    }
}

/// Records how an attempt ended and gives the result on, when its record is as safe as the profile's mode asks for. A
/// result whose record is not is not given.
pub(crate) async fn conclude<T>(
    neighbours: &impl Neighbours,
    about: About<'_>,
    result: Result<T, Refusal>,
) -> Result<T, SecretsDenial> {
    log(&about, &result);
    let Some(operation) = about.action.operation() else { return result.map_err(|refusal| refusal.denial) };
    if result.is_ok() && about.action.changes_what_can_be_read() {
        neighbours.hint();
    }
    let outcome = outcome(&result);
    let generation = result.as_ref().ok().and_then(|_| about.generation());
    let cause = result.as_ref().ok().and(about.cause);
    let subjects = match about.subjects.is_empty() {
        true => vec![None],
        false => about.subjects.into_iter().map(|subject| Some(cut(subject))).collect(),
    };
    let requester = about.behalf.unwrap_or_else(|| Requester::from(about.sender));
    let entry = SecretOperationAudit::new(unix_ms_now(), operation, requester, outcome);
    let grant = about.grant.or_else(|| ended_grant(&result));
    let entry = SecretOperationAudit { generation, cause, grant, ..entry };
    let entries = subjects.into_iter().map(|subject| entry.clone().about(about.profile.cloned(), subject));
    if let Err(error) = neighbours.record(entries.collect(), about.room).await {
        tracing::error!(requester = about.sender.requester(), ?operation, "an attempt could not be recorded");
        return Err(unwritable(about.profile, error));
    }
    result.map_err(|refusal| refusal.denial)
}

/// The grant that a denial is about.
fn ended_grant<T>(result: &Result<T, Refusal>) -> Option<GrantRecord> {
    match result.as_ref().err()?.denial {
        SecretsDenial::GrantExpired(id) | SecretsDenial::GrantUsedUp(id) => {
            Some(GrantRecord { id, bounds: None })
        }
        _ => None,
    }
}

/// The denial of what could not be recorded as the profile's mode asks for.
pub(crate) fn unwritable(profile: Option<&ProfileName>, NotDurable(reason): NotDurable) -> SecretsDenial {
    let profile = profile.map_or("all", ProfileName::as_str).to_owned();
    SecretsDenial::AuditUnwritable { profile, reason }
}

/// Records that these parts of the configuration changed, or that it cannot be used, which nobody asked this daemon for: it
/// found it so.
pub(crate) async fn record_config(
    neighbours: &impl Neighbours,
    parts: &[&str],
    outcome: Outcome,
) -> Result<(), NotDurable> {
    let requester = Requester {
        name: SECRETS.to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        pid: Some(std::process::id()),
        executable: None,
        unit: None,
    };
    let entry = SecretOperationAudit::new(unix_ms_now(), Operation::ConfigChange, requester, outcome);
    let subject = match parts {
        [] => "config.toml".to_owned(),
        parts => format!("config.toml: {}", parts.join(", ")),
    };
    let entry = entry.about(None, Some(subject));
    neighbours.record(vec![entry], Room::none()).await
}

fn outcome<T>(result: &Result<T, Refusal>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(Refusal { gate: Gate::Vault, denial }) => Outcome::Failed { reason: denial.to_string() },
        Err(Refusal { gate, denial }) => Outcome::Denied { gate: *gate, reason: denial.to_string() },
    }
}

/// Names of secrets stay out of the log: that is what the audit log is for, and a name may be any text here.
fn log<T>(about: &About<'_>, result: &Result<T, Refusal>) {
    let (action, requester) = (about.action, about.sender.requester());
    let profile = about.profile.map(ProfileName::as_str);
    match result {
        Ok(_) => tracing::debug!(?action, requester, profile, "done"),
        Err(Refusal { gate: Gate::Vault, denial }) => {
            tracing::warn!(?action, requester, profile, failure = kind(denial), "failed");
        }
        Err(Refusal { gate, denial }) => {
            tracing::warn!(?action, requester, profile, ?gate, denial = kind(denial), "denied");
        }
    }
}

/// The denial without the texts it may carry.
fn kind(denial: &SecretsDenial) -> &'static str {
    match denial {
        SecretsDenial::Locked => "locked",
        SecretsDenial::ProfileNotActive(_) => "profile not active",
        SecretsDenial::NoSuchProfile(_) => "no such profile",
        SecretsDenial::Identity { .. } => "identity",
        SecretsDenial::RateLimited { .. } => "rate limited",
        SecretsDenial::BatchOverBurst { .. } => "batch over burst",
        SecretsDenial::Forbidden | SecretsDenial::ForbiddenName(_) => "forbidden",
        SecretsDenial::GrantExpired(_) => "grant expired",
        SecretsDenial::GrantUsedUp(_) => "grant used up",
        SecretsDenial::NoSuchGrant(_) => "no such grant",
        SecretsDenial::TooManyGrants => "too many grants",
        SecretsDenial::NotGrantable(_) => "not grantable",
        SecretsDenial::GrantBounds => "grant bounds",
        SecretsDenial::InvalidName(_) => "invalid name",
        SecretsDenial::NoSuchSecret(_) => "no such secret",
        SecretsDenial::NoSuchVersion { .. } => "no such version",
        SecretsDenial::Expired { .. } => "expired",
        SecretsDenial::NotRemoved(_) => "not removed",
        SecretsDenial::SecretExists { .. } => "secret exists",
        SecretsDenial::ValueTooLarge { .. } => "value too large",
        SecretsDenial::BatchTooLarge { .. } => "batch too large",
        SecretsDenial::WrongFactor(_) => "wrong factor",
        SecretsDenial::UnusableFactor(_) => "unusable factor",
        SecretsDenial::NotEnoughFactors { .. } => "not enough factors",
        SecretsDenial::NoSuchFactor(_) => "no such factor",
        SecretsDenial::LastFactor => "last factor",
        SecretsDenial::PolicyImpossible { .. } => "policy impossible",
        SecretsDenial::TooManyFactors => "too many factors",
        SecretsDenial::FactorExists(_) => "factor exists",
        SecretsDenial::UnsupportedKey(_) => "unsupported key",
        SecretsDenial::NotAPassword(_) => "not a password",
        SecretsDenial::Rekeying(_) => "re-keying",
        SecretsDenial::ProfileExists(_) => "profile exists",
        SecretsDenial::RolledBack { .. } => "rolled back",
        SecretsDenial::ReadOnly(_) => "read only",
        SecretsDenial::Damaged(_) => "damaged",
        SecretsDenial::StorageFull => "storage full",
        SecretsDenial::Storage(_) => "storage",
        SecretsDenial::Unrecorded => "unrecorded",
        SecretsDenial::AuditUnwritable { .. } => "audit log not writable",
        SecretsDenial::ForeignField => "foreign field",
        SecretsDenial::BadBackup(_) => "bad backup",
        SecretsDenial::BadImport(_) => "bad import",
        SecretsDenial::ImportTooLarge => "import too large",
        SecretsDenial::ChangedMeanwhile(_) => "changed meanwhile",
    }
}

/// Longest subject of a record, in bytes: two names.
const SUBJECT_BYTES_MAX: usize = 2 * SECRET_NAME_BYTES_MAX;

/// A subject no longer than it can rightly be: what was asked for may be of any length.
fn cut(mut subject: String) -> String {
    if subject.len() > SUBJECT_BYTES_MAX {
        let end = (0..=SUBJECT_BYTES_MAX).rev().find(|end| subject.is_char_boundary(*end)).unwrap_or(0);
        subject.truncate(end);
        subject.push('…');
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_cut_where_a_character_ends() {
        assert_eq!(cut("a".repeat(512)), "a".repeat(512));
        assert_eq!(cut("a".repeat(600)), format!("{}…", "a".repeat(512)));
        assert_eq!(cut("ä".repeat(257)), format!("{}…", "ä".repeat(256)));
        assert_eq!(cut(format!("a{}", "ä".repeat(400))), format!("a{}…", "ä".repeat(255)));
    }
}
