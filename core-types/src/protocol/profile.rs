//! Calls of `daemon-profile`: unlock attempts and the audit log.

use serde::{Deserialize, Serialize};

use super::secrets::Gate;
use super::service;
use crate::config::AuditMode;
use crate::grant::GrantRecord;
use crate::name::{PROFILE, ProfileName};

/// Asks for leave to try a password: answered with how long to wait first. Only `daemon-secrets` may ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BeginUnlock {
    /// The profile.
    pub profile: ProfileName,
}

/// How long to wait before the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockDelay {
    /// Milliseconds to wait; 0 after no wrong attempt.
    pub wait_ms: u64,
    /// How many changes the profile's vault is known to have seen; 0 where nothing is known.
    pub generation: u64,
}

/// Says how an attempt ended. Only `daemon-secrets` may say it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndUnlock {
    /// The profile.
    pub profile: ProfileName,
    /// Whether the factor was right.
    pub right: bool,
}

/// What was done, or attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// A vault was made.
    Init,
    /// A profile was unlocked.
    Unlock,
    /// A profile was locked.
    Lock,
    /// A password was changed.
    ChangePassword,
    /// One secret was read.
    Get,
    /// A secret was written.
    Set,
    /// A secret was removed.
    Delete,
    /// Names were listed.
    List,
    /// The versions of a secret were listed.
    History,
    /// An old version was made the latest, or a removal was taken back.
    Restore,
    /// Old versions were deleted for good.
    Purge,
    /// A secret got another name.
    Move,
    /// A vault that is not the one that was written last was taken for the right one.
    AcceptRollback,
    /// A program was started with secrets.
    Run,
    /// A client did on the bus what no honest client does.
    Incident,
    /// A way to unlock was added.
    AddFactor,
    /// A way to unlock was removed.
    RemoveFactor,
    /// Other factors are needed than before.
    SetPolicy,
    /// A recovery code was tried without unlocking.
    CheckRecovery,
    /// The key of `ipc-field-encryption` was asked for.
    FieldKey,
    /// A backup was made.
    Backup,
    /// A vault was made of a backup.
    RestoreBackup,
    /// A vault got new keys.
    Rekey,
    /// Entries are missing here, because there was room for them nowhere.
    Gap,
    /// A program that was started with secrets has ended.
    RunEnd,
    /// The access rules of the configuration changed, or were to change and could not be used.
    ConfigChange,
    /// A daemon of someone else was let on the bus under a name of its own.
    Enroll,
    /// An enrolled daemon was refused from then on.
    Revoke,
    /// An enrolled daemon was granted secrets that its rules leave it without.
    Grant,
    /// A grant was taken back.
    RevokeGrant,
    /// Whether a secret has a certain value was asked.
    Compare,
}

/// Why a profile was locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockCause {
    /// Somebody asked for it.
    User,
    /// The daemon that held it open ended.
    Shutdown,
    /// A backup took the place of its vault.
    Restore,
    /// The exchange of its keys was broken off where what was open is not what is there.
    Rekey,
    /// None of its secrets was used for as long as is configured.
    Idle,
    /// It was unlocked for as long as is configured.
    After,
    /// The machine was about to go to sleep.
    Suspend,
    /// A session of its user was locked.
    Screen,
    /// The last session of its user ended.
    Logout,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChildExit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody can tell: what watched it ended before it.
    Unknown,
}

/// A program that was started with secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRecord {
    /// Its process.
    pub pid: u32,
    /// The profiles that it was to get secrets from.
    pub profiles: Vec<String>,
    /// The secrets it got, in the order of their names.
    pub secrets: Vec<String>,
    /// The variables they became, in order.
    pub variables: Vec<String>,
    /// How it ended, once it has.
    pub exit: Option<ChildExit>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// A gate said no.
    Denied {
        /// Which.
        gate: Gate,
        /// Its denial, in words that hold no secret.
        reason: String,
    },
    /// It was allowed and did not work.
    Failed {
        /// Why, in words that hold no secret.
        reason: String,
    },
}

/// Who asked, as stamped by the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// Registered name, or `cli`.
    pub name: String,
    /// User.
    pub uid: u32,
    /// Process, where known.
    pub pid: Option<u32>,
    /// Executable, where known.
    pub executable: Option<String>,
    /// systemd unit, where known.
    pub unit: Option<String>,
}

impl From<&crate::header::Sender> for Requester {
    fn from(sender: &crate::header::Sender) -> Self {
        Self {
            name: sender.requester().to_owned(),
            uid: sender.uid,
            pid: sender.pid,
            executable: sender.executable.clone(),
            unit: sender.unit.clone(),
        }
    }
}

/// One thing that happened, as told by the daemon where it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretOperationAudit {
    /// When, in milliseconds of the Unix epoch.
    pub unix_ms: u64,
    /// What.
    pub operation: Operation,
    /// In which profile.
    pub profile: Option<ProfileName>,
    /// Which secret (as asked for), or which program; never a value.
    pub subject: Option<String>,
    /// Who asked.
    pub requester: Requester,
    /// How it ended.
    pub outcome: Outcome,
    /// How many changes the vault had seen then, where that is worth remembering.
    pub generation: Option<u64>,
    /// Why a profile was locked.
    pub cause: Option<LockCause>,
    /// The program that was started, or has ended.
    pub child: Option<ChildRecord>,
    /// How many entries are missing, with [`Operation::Gap`].
    pub missing: Option<u64>,
    /// The grant that was made or taken back, or that let the requester through.
    pub grant: Option<GrantRecord>,
}

impl SecretOperationAudit {
    /// An entry that concerns no profile and nothing in particular.
    #[must_use]
    pub fn new(unix_ms: u64, operation: Operation, requester: Requester, outcome: Outcome) -> Self {
        let (profile, subject, generation, cause, child, missing) = (None, None, None, None, None, None);
        let grant = None;
        Self {
            unix_ms,
            operation,
            profile,
            subject,
            requester,
            outcome,
            generation,
            cause,
            child,
            missing,
            grant,
        }
    }

    /// The same, about this.
    #[must_use]
    pub fn about(self, profile: Option<ProfileName>, subject: Option<String>) -> Self {
        Self { profile, subject, ..self }
    }
}

/// Adds entries to the audit log; answered when they have been written. Only the daemons that guard something may.
///
/// A daemon sends again what was not answered, so `first` numbers its entries: `daemon-profile` drops those it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Number that the sending process chose for itself at its start.
    pub origin: u64,
    /// Number of the first entry, counted by the sending process from 0.
    pub first: u64,
    /// The entries, in order.
    pub entries: Vec<SecretOperationAudit>,
    /// How many entries that process had no room for and has not told in an entry yet.
    pub missing: u64,
}

/// Asks for all that has been recorded to be on the disk; answered when it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditSync {}

/// Asks where the log ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditHead {}

/// An entry and all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPoint {
    /// The entry's sequence number; 0 before the first.
    pub sequence: u64,
    /// The hash after it.
    pub link: [u8; 32],
}

/// Asks for the entries of one kind, from the oldest on, page by page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditSearch {
    /// Only entries after this sequence number; 0 for all.
    pub after: u64,
    /// Only those of this profile.
    pub profile: Option<ProfileName>,
    /// Only those about this secret.
    pub subject: Option<String>,
    /// Only those of this requester, by name.
    pub requester: Option<String>,
    /// Only those that are not older, in milliseconds of the Unix epoch.
    pub since_unix_ms: Option<u64>,
}

/// Answer to [`AuditSearch`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditPage {
    /// What was found, in order.
    pub lines: Vec<AuditLine>,
    /// The entry that was looked at last; ask on from there.
    pub looked_at: u64,
    /// Whether there may be more.
    pub more: bool,
}

/// Asks when and by whom the secrets of a profile were read last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastReads {
    /// The profile.
    pub profile: ProfileName,
    /// Only of names after this one.
    pub after: Option<String>,
}

/// When a secret was read last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRead {
    /// The secret.
    pub name: String,
    /// When, in milliseconds of the Unix epoch.
    pub unix_ms: u64,
    /// Who read it.
    pub requester: String,
}

/// Answer to [`LastReads`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReadPage {
    /// In the order of their names.
    pub reads: Vec<LastRead>,
    /// Whether there are more.
    pub more: bool,
}

/// Asks for the last entries of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditTail {
    /// How many at most.
    pub count: u32,
    /// Only entries after this sequence number.
    pub after: Option<u64>,
}

/// An entry of the log, as the JSON line that was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditLine {
    /// Its sequence number.
    pub sequence: u64,
    /// The line, without its line feed.
    pub json: String,
}

/// Asks for a check of the whole chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditVerify {}

/// Result of a check of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Entries read.
    pub entries: u64,
    /// The first fault, if there is one.
    pub fault: Option<AuditFault>,
    /// The entries of which only the hashes could be checked, because nothing vouches for who wrote them.
    pub unproved: Vec<Unproved>,
}

/// Entries that follow each other and of which only the hashes could be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unproved {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// The profile that would vouch for them if it were unlocked; none where no profile does.
    pub profile: Option<ProfileName>,
}

/// Where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditFault {
    /// The first sequence number that is not as it was written.
    pub sequence: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Asks for the state of the log, for `pds status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditStatus {}

/// State of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditState {
    /// Sequence number the next entry gets.
    pub next_sequence: u64,
    /// Why nothing can be written, when nothing can.
    pub failing: Option<String>,
    /// The mode of profiles that have none of their own.
    pub mode: AuditMode,
    /// The profiles that have one.
    pub modes: Vec<(ProfileName, AuditMode)>,
    /// How many entries are known to be missing.
    pub missing: u64,
}

/// Asks when unlocked profiles lock by themselves, for `pds status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AutoLocks {}

/// When an unlocked profile locks by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoLock {
    /// The profile.
    pub profile: ProfileName,
    /// Seconds until then, if nothing of it is used meanwhile.
    pub seconds_left: u64,
    /// Why it will.
    pub cause: LockCause,
}

/// Asks whether suspend, screen locks and logouts are noticed, for `pds status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionWatch {}

/// Whether logind tells of suspend, screen locks and logouts (org.freedesktop.login1(5)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionWatchState {
    /// It does, and suspend waits until profiles are locked.
    Complete,
    /// It does, but suspend does not wait, for this reason.
    WithoutDelay(String),
    /// It does not, for this reason.
    Absent(String),
}

/// Why `daemon-profile` said no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ProfileDenial {
    /// The requester may not call this.
    #[error("'{requester}' may not ask daemon-profile for this")]
    Identity {
        /// Who asked, as stamped.
        requester: String,
    },
    /// The log could not be written or read; the text holds no secret.
    #[error("the audit log failed: {0}")]
    Log(String),
    /// A field is out of its limits.
    #[error("the request is out of its limits")]
    Invalid,
}

service! {
    /// The owner of unlock back-off and of the audit log. It never sees a secret, so nothing of it is sealed.
    ProfileService = PROFILE, sealed: false, denial: ProfileDenial, requests: ProfileRequest {
        1 BeginUnlock -> UnlockDelay,
        2 EndUnlock -> (),
        3 Record -> (),
        4 AuditTail -> Vec<AuditLine>,
        5 AuditVerify -> AuditReport,
        6 AuditStatus -> AuditState,
        7 AuditSync -> (),
        8 AuditHead -> AuditPoint,
        9 AuditSearch -> AuditPage,
        10 LastReads -> LastReadPage,
        11 AutoLocks -> Vec<AutoLock>,
        54 SessionWatch -> SessionWatchState,
    }
}
