//! Calls of `daemon-secrets`: vaults, their lock state, and the secrets in them.

use serde::{Deserialize, Serialize};

use super::explanation::{Explain, Explanation};
use super::grants::{Grant, GrantEntry, Grants, RevokeGrant};
use super::import::{Compare, Comparison, Import};
use super::profile::{AuditPoint, LockCause};
use super::service;
use crate::factor::AGENT_NONCE_BYTES;
pub use crate::factor::{FactorKind, FactorLabel, FactorPolicy, UnsupportedKey};
use crate::grant::GrantId;
use crate::name::{DaemonName, NameError, ProfileName, SECRETS, SecretName};
use crate::note::Note;
use crate::pattern::Pattern;
use crate::program::Program;
use crate::unit::UnitName;
use crate::wire_secret::WireSecret;

/// Makes a vault with one password; the profile is unlocked afterwards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Init {
    /// The new profile.
    pub profile: ProfileName,
    /// Its password.
    pub password: WireSecret,
}

/// A factor as someone presents it who has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FactorProof {
    /// Its number in the profile's [`FactorSheet`]; of a password, the number of any.
    pub factor: u32,
    /// The password; the raw signature over the challenge of an SSH key, an RSA one without leading zeros; or the
    /// bytes of the recovery code.
    pub secret: WireSecret,
}

/// Unlocks a profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unlock {
    /// The profile.
    pub profile: ProfileName,
    /// As many of its factors as its policy needs.
    pub factors: Vec<FactorProof>,
}

/// What [`Unlock`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unlocked {
    /// The profile was locked and is unlocked now.
    Now,
    /// The profile was unlocked before; no factor was needed.
    Already,
}

/// Locks one profile, or all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lock {
    /// The profile, or `None` for all of them.
    pub profile: Option<ProfileName>,
}

/// Asks for all profiles and their state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Profiles {}

/// Lock state of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProfileState {
    /// No key of it is in memory.
    Locked,
    /// Its secrets can be read.
    Unlocked {
        /// Since when, in milliseconds of the Unix epoch.
        since_unix_ms: u64,
        /// Why they can only be read, where that is so; the text holds no secret.
        rollback: Option<String>,
    },
    /// Its vault cannot be used; the text says why and holds no secret.
    Damaged(String),
}

/// A profile as shown by `pds status` and `pds profile list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProfileEntry {
    /// Its name.
    pub name: ProfileName,
    /// Its lock state.
    pub state: ProfileState,
    /// The ways to unlock it.
    pub factors: Vec<FactorKind>,
    /// Which of them are needed.
    pub policy: FactorPolicy,
    /// When its vault was made, in milliseconds of the Unix epoch.
    pub created_unix_ms: u64,
}

/// Changes one password of a profile; nothing but that factor changes, and no secret is re-encrypted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangePassword {
    /// The profile.
    pub profile: ProfileName,
    /// The number of the password among the factors.
    pub factor: u32,
    /// That password; and while the profile is locked as many other factors as its policy needs.
    pub present: Vec<FactorProof>,
    /// The password it becomes.
    pub new: WireSecret,
}

/// Asks how a profile is unlocked. Nothing of the answer is secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Factors {
    /// The profile.
    pub profile: ProfileName,
}

/// How a profile is unlocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorSheet {
    /// Which of the factors are needed.
    pub policy: FactorPolicy,
    /// The factors, in the order in which they were added.
    pub factors: Vec<FactorEntry>,
}

/// A factor as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorEntry {
    /// Its number, which no other factor of the profile ever has.
    pub id: u32,
    /// What it is.
    pub kind: FactorKind,
    /// What the user calls it.
    pub label: FactorLabel,
    /// When it was added, in milliseconds of the Unix epoch.
    pub created_unix_ms: u64,
    /// The SSH key, where it is one.
    pub agent: Option<AgentKey>,
}

/// The SSH key of a factor, and what it signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentKey {
    /// The public key (RFC 4253, section 6.6).
    #[serde(with = "serde_bytes")]
    pub public_key: Vec<u8>,
    /// The random part of the challenge: see [`crate::factor::agent_challenge`].
    pub nonce: [u8; AGENT_NONCE_BYTES],
}

/// A factor to be added.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum NewFactor {
    /// A password.
    Password {
        /// The password.
        password: WireSecret,
    },
    /// An SSH key.
    SshAgent {
        /// The key, and the nonce that was chosen for it.
        key: AgentKey,
        /// Its raw signature over the challenge.
        signature: WireSecret,
    },
    /// A recovery code.
    Recovery {
        /// Its bytes: random ones.
        code: WireSecret,
    },
}

/// Adds a way to unlock; the reply is its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddFactor {
    /// The profile.
    pub profile: ProfileName,
    /// Under the policy [`FactorPolicy::Any`] one factor that there is, else all of them: each gets a new share.
    pub present: Vec<FactorProof>,
    /// What the user calls the new one.
    pub label: FactorLabel,
    /// The new one.
    pub new: NewFactor,
}

/// Removes a way to unlock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveFactor {
    /// The profile.
    pub profile: ProfileName,
    /// As many factors as the policy needs; the one to be removed may be among them.
    pub present: Vec<FactorProof>,
    /// The number of the one to be removed.
    pub factor: u32,
}

/// Changes which factors are needed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetPolicy {
    /// The profile.
    pub profile: ProfileName,
    /// All its factors: each is wrapped anew.
    pub present: Vec<FactorProof>,
    /// The new policy.
    pub policy: FactorPolicy,
}

/// Gives a vault new keys: a new master key, with which everything in it is encrypted anew. Its profile stays locked or
/// unlocked, and can be read meanwhile. Whoever stops waiting can ask for [`RekeyProgress`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rekey {
    /// The profile.
    pub profile: ProfileName,
    /// All its factors: each wraps the new key.
    pub present: Vec<FactorProof>,
}

/// Asks how far the exchange of a vault's keys is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RekeyProgress {
    /// The profile.
    pub profile: ProfileName,
}

/// How far the exchange of a vault's keys is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RekeyState {
    /// There was none since the daemon started.
    Idle,
    /// It is under way.
    Running {
        /// Steps that are done.
        done: u64,
        /// Steps that there are; none while they are not known.
        total: u64,
    },
    /// The last one was done.
    Done,
    /// The last one was not done: the vault has the keys that it had.
    Failed,
}

/// Asks whether a recovery code is one of the profile's: the reply says so. It unlocks nothing, and counts as an
/// attempt at unlocking.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckRecovery {
    /// The profile.
    pub profile: ProfileName,
    /// The bytes of the code.
    pub code: WireSecret,
}

/// Reads one secret. The name travels unchecked: the name gate judges and audits it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Get {
    /// The profile.
    pub profile: ProfileName,
    /// Name of the secret, as given by the user.
    pub name: String,
    /// An older version, by its number; `None` for the latest.
    pub version: Option<u64>,
}

/// Reads one secret for a systemd unit, which is its requester. Only `daemon-launcher` may ask, and vouches for the unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetFor {
    /// The profile.
    pub profile: ProfileName,
    /// Name of the secret, as given by the unit.
    pub name: String,
    /// The unit.
    pub unit: UnitName,
    /// The user of the process that asked.
    pub uid: u32,
    /// That process.
    pub pid: u32,
}

/// Which secrets of a profile a batch wants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Selection {
    /// All that the requester may read.
    #[default]
    All,
    /// All that match one of these; a pattern without `*` must exist and be readable, one with `*` must match something.
    Only(Vec<Pattern>),
}

/// Reads several secrets as one operation: all or none. Costs as many tokens as it has names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetBatch {
    /// The profile.
    pub profile: ProfileName,
    /// Which of its secrets.
    pub selection: Selection,
    /// The program that `daemon-launcher` reads for, where it has looked at it.
    pub program: Option<Program>,
}

/// One secret of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedSecret {
    /// Its name.
    pub name: SecretName,
    /// Its value.
    pub value: WireSecret,
}

/// Stores a secret as the next version of what has the name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Set {
    /// The profile.
    pub profile: ProfileName,
    /// Name of the secret, as given by the user.
    pub name: String,
    /// Its value: 0 bytes to 1 MiB, any bytes.
    pub value: WireSecret,
    /// From when on the value is not given any more, in milliseconds of the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// What the user notes down beside it, for listings.
    pub note: Option<Note>,
}

/// Removes a secret. Its versions stay until they are purged, so that it can be restored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delete {
    /// The profile.
    pub profile: ProfileName,
    /// Name of the secret, as given by the user.
    pub name: String,
}

/// Lists names, in order, a page at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct List {
    /// The profile.
    pub profile: ProfileName,
    /// Only names that match.
    pub pattern: Option<Pattern>,
    /// Only names after this one: the last of the page before.
    pub after: Option<SecretName>,
}

/// A secret as listed: everything but its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretEntry {
    /// Its name.
    pub name: SecretName,
    /// When the name was first set, in milliseconds of the Unix epoch.
    pub created_unix_ms: u64,
    /// When it was last set.
    pub updated_unix_ms: u64,
    /// Number of the version that is read.
    pub version: u64,
    /// How many versions are kept, this one among them.
    pub versions: u64,
    /// From when on it is not given any more, in milliseconds of the Unix epoch.
    pub expires_unix_ms: Option<u64>,
    /// What was noted down.
    pub note: Option<Note>,
}

/// A page of a listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretPage {
    /// The entries, in order of their names.
    pub entries: Vec<SecretEntry>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// Asks for the versions of a secret, the latest first, also of a removed one. Values are neither given nor read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// The profile.
    pub profile: ProfileName,
    /// Name of the secret, as given by the user.
    pub name: String,
}

/// A version of a secret: everything but its value. Times are milliseconds of the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionEntry {
    /// Its number, counted from 1.
    pub version: u64,
    /// When it was set.
    pub set_unix_ms: u64,
    /// Bytes of its value.
    pub bytes: u64,
    /// From when on it is not given any more.
    pub expires_unix_ms: Option<u64>,
    /// When the secret was removed whose latest version this was.
    pub removed_unix_ms: Option<u64>,
    /// Whether it is the one that is read.
    pub current: bool,
    /// What was noted down.
    pub note: Option<Note>,
}

/// Makes an old value the next version of a secret; without a version, takes back the removal of a removed secret.
/// Answered with the number of the version that is read from then on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restore {
    /// The profile.
    pub profile: ProfileName,
    /// Name of the secret, as given by the user.
    pub name: String,
    /// Number of the version whose value comes back.
    pub version: Option<u64>,
}

/// Deletes the old versions of a secret for good, or all that is left of a removed one. Answered with how many.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Purge {
    /// The profile.
    pub profile: ProfileName,
    /// Name of the secret, as given by the user.
    pub name: String,
}

/// Gives a secret another name, with all its versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Move {
    /// The profile.
    pub profile: ProfileName,
    /// The name it has, as given by the user.
    pub from: String,
    /// The name it gets, as given by the user.
    pub to: String,
}

/// Takes an open vault that is not the one that was written last for the right one from now on, so that it can be
/// changed again. Answered with whether there was anything to accept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AcceptRollback {
    /// The profile.
    pub profile: ProfileName,
}

/// The gates, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// 1: some profile is unlocked.
    Lock,
    /// 2: the profile asked for is unlocked.
    ActiveProfile,
    /// 3: the requester is one that may ask at all.
    Identity,
    /// 4: the requester has tokens left.
    RateLimit,
    /// 5: a rule allows it.
    AccessRule,
    /// 5.5: the name is a name.
    Name,
    /// 6: the vault did it.
    Vault,
}

impl Gate {
    /// What it is called in the audit log and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::ActiveProfile => "active-profile",
            Self::Identity => "identity",
            Self::RateLimit => "rate-limit",
            Self::AccessRule => "access-rule",
            Self::Name => "name",
            Self::Vault => "vault",
        }
    }
}

/// Every way `daemon-secrets` says no, or says that it could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SecretsDenial {
    /// No profile at all is unlocked.
    #[error("no profile is unlocked")]
    Locked,
    /// This profile is locked, others are not.
    #[error("profile '{0}' is locked")]
    ProfileNotActive(ProfileName),
    /// There is no such profile.
    #[error("there is no profile '{0}'")]
    NoSuchProfile(ProfileName),
    /// The requester is not one that may ask for this.
    #[error("'{requester}' may not ask daemon-secrets for this")]
    Identity {
        /// Who asked, as stamped.
        requester: String,
    },
    /// The requester asked too often.
    #[error("too many requests; the next is possible in {retry_ms} ms")]
    RateLimited {
        /// When to come back, in milliseconds.
        retry_ms: u64,
    },
    /// A batch that costs more than the requester's whole allowance.
    #[error("{names} secrets at once are more than the requester may ever read at once ({burst})")]
    BatchOverBurst {
        /// Names in the batch.
        names: u32,
        /// The requester's burst.
        burst: u32,
    },
    /// A rule says no, or no rule says yes.
    #[error("the access rules do not allow it")]
    Forbidden,
    /// The name breaks the rules for names.
    #[error("the name is not a secret name: {0}")]
    InvalidName(NameError),
    /// There is no such secret.
    #[error("there is no secret '{0}'")]
    NoSuchSecret(String),
    /// There is no such version of a secret.
    #[error("there is no version {version} of '{name}'")]
    NoSuchVersion {
        /// The secret.
        name: String,
        /// Number of the version.
        version: u64,
    },
    /// The value is past its time.
    #[error("'{name}' has expired")]
    Expired {
        /// The secret.
        name: String,
        /// Since when, in milliseconds of the Unix epoch.
        since_unix_ms: u64,
    },
    /// The removal of a secret that is not removed was to be undone.
    #[error("'{0}' is not removed")]
    NotRemoved(String),
    /// The name is taken, by a secret or by what is left of a removed one.
    #[error("there is a secret '{name}' already{}", if *.removed { ", removed but not purged" } else { "" })]
    SecretExists {
        /// The name.
        name: String,
        /// Whether it is removed.
        removed: bool,
    },
    /// A value over the limit.
    #[error("the value has {bytes} bytes, and at most {limit} are allowed")]
    ValueTooLarge {
        /// Bytes given.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A batch that does not fit into one answer.
    #[error("the selected secrets together are larger than one answer may be ({limit} bytes)")]
    BatchTooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// A factor that unwraps nothing.
    #[error("the {} is wrong", .0.presented())]
    WrongFactor(FactorKind),
    /// A password, signature or code of a length that it cannot have.
    #[error("the {} has a length that it cannot have", .0.presented())]
    UnusableFactor(FactorKind),
    /// A profile of that name exists.
    #[error("profile '{0}' exists already")]
    ProfileExists(ProfileName),
    /// The vault is not the one that was written last, but an older one or a part of one. It is open for reading.
    #[error("the vault of profile '{profile}' is not as it was left: {found}")]
    RolledBack {
        /// The profile.
        profile: ProfileName,
        /// What was found, in words that hold no secret.
        found: String,
    },
    /// Nothing can be changed in a vault before its rollback is accepted.
    #[error("profile '{0}' can only be read, because its vault is not as it was left")]
    ReadOnly(ProfileName),
    /// The vault does not hold what was written to it.
    #[error("the vault is damaged: {0}")]
    Damaged(String),
    /// The disk is full; nothing was changed.
    #[error("the disk is full; nothing was changed")]
    StorageFull,
    /// The storage failed; the text says how and holds no secret.
    #[error("the storage failed: {0}")]
    Storage(String),
    /// The attempt could not be recorded, so it was not made.
    #[error("the attempt could not be recorded by daemon-profile, so it was refused")]
    Unrecorded,
    /// The policy needs more factors, or what was asked for does.
    #[error("it needs {needed} of the {of} factors, and {given} of them were given")]
    NotEnoughFactors {
        /// How many were given.
        given: u8,
        /// How many are needed.
        needed: u8,
        /// How many there are.
        of: u8,
    },
    /// There is no factor of that number.
    #[error("there is no factor {0}")]
    NoSuchFactor(u32),
    /// The vault could not be opened any more.
    #[error("the last way to unlock cannot be removed")]
    LastFactor,
    /// A policy that so many factors cannot fulfil.
    #[error("the policy '{}' does not go with {factors} ways to unlock", policy.shown(*.factors as usize))]
    PolicyImpossible {
        /// The policy.
        policy: FactorPolicy,
        /// How many factors there are, or would be.
        factors: u8,
    },
    /// The vault has as many factors as it can have.
    #[error("a vault has at most {} ways to unlock", crate::limits::FACTORS_MAX)]
    TooManyFactors,
    /// The SSH key is a factor already.
    #[error("this SSH key is factor {0} already")]
    FactorExists(u32),
    /// An SSH key that cannot unlock.
    #[error("this SSH key cannot unlock: {0}")]
    UnsupportedKey(UnsupportedKey),
    /// The factor is of another kind than the call is about.
    #[error("factor {0} is not a password")]
    NotAPassword(u32),
    /// A value that was not encrypted with the profile's field key, for its name (build feature
    /// `ipc-field-encryption`, which both ends must have or not have).
    #[error("the value was not encrypted on the bus for this profile and name")]
    ForeignField,
    /// A backup that is none, or not as it was written; nothing was changed.
    #[error("the backup cannot be used: {0}")]
    BadBackup(String),
    /// The vault is getting new keys.
    #[error("profile '{0}' is getting new keys, and can only be read until it has them")]
    Rekeying(ProfileName),
    /// The profile's audit mode is `durable`, and the log could not be written.
    #[error("the audit log of profile '{profile}' is durable and cannot be written: {reason}")]
    AuditUnwritable {
        /// The profile, or `all`.
        profile: String,
        /// Why not, in words that hold no secret.
        reason: String,
    },
    /// Only a grant allowed it, and its time is over.
    #[error("grant {0} has expired")]
    GrantExpired(GrantId),
    /// Only a grant allowed it, and it is used up.
    #[error("grant {0} is used up")]
    GrantUsedUp(GrantId),
    /// There is no such grant.
    #[error("there is no grant {0}")]
    NoSuchGrant(GrantId),
    /// There are as many grants as there can be.
    #[error("there are {} grants already", crate::limits::GRANTS_MAX)]
    TooManyGrants,
    /// A grant for one of pds's own, who need none or can have none.
    #[error("'{0}' is not an enrolled daemon, and only those are granted anything")]
    NotGrantable(DaemonName),
    /// A grant for longer or for more than can be.
    #[error(
        "a grant holds for 1 second to {} days and 1 to {} uses",
        crate::limits::GRANT_SECONDS_MAX / 86_400,
        crate::limits::GRANT_USES_MAX
    )]
    GrantBounds,
    /// A rule says no, or no rule says yes, to one name of several.
    #[error("the access rules do not allow '{0}'")]
    ForbiddenName(String),
    /// A file of an import that is none, or not as its key says; nothing was changed.
    #[error("the import cannot be read: {0}")]
    BadImport(String),
    /// More than one import may have.
    #[error(
        "an import has at most {} secrets with {} MiB together",
        crate::limits::IMPORT_SECRETS_MAX,
        crate::limits::IMPORT_BYTES_MAX >> 20
    )]
    ImportTooLarge,
    /// A secret was changed after the import was prepared; nothing was stored.
    #[error("'{0}' was changed while the import was prepared; nothing was stored")]
    ChangedMeanwhile(String),
}

/// Asks for the key that the values of an unlocked profile are encrypted with on the bus: only with the build feature
/// `ipc-field-encryption`.
#[cfg(feature = "ipc-field-encryption")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FieldKey {
    /// The profile.
    pub profile: ProfileName,
}

/// Writes a backup of an unlocked vault into the one empty file whose descriptor comes with the request; answered with
/// its length, when it is durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backup {
    /// The profile.
    pub profile: ProfileName,
}

/// Asks what a backup says of itself that needs no factor; its descriptor comes with the request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InspectBackup {}

/// Answer to [`InspectBackup`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupSheet {
    /// The profile of the vault that was backed up.
    pub profile: ProfileName,
    /// When that vault was made, in milliseconds of the Unix epoch.
    pub created_unix_ms: u64,
    /// Bytes of the database in it.
    pub database_bytes: u64,
    /// How it is unlocked.
    pub factors: FactorSheet,
}

/// Makes a vault of a backup, whose descriptor comes with the request, or puts it in the place of the one there is;
/// answered with whether it did that. The profile is unlocked afterwards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreBackup {
    /// The profile of the backup.
    pub profile: ProfileName,
    /// As many of the backup's factors as its policy needs.
    pub factors: Vec<FactorProof>,
    /// Whether a vault that is there is to be replaced.
    pub replace: bool,
}

/// Asks how well the memory that secrets lie in is protected, for `pds status` and `pds doctor`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Protection {}

/// How well memory is protected, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtectionLevel {
    /// memfd_secret(2): locked, and unreadable from outside the process, to root too.
    Secret,
    /// mlock(2): never swapped.
    Locked,
    /// It may be swapped.
    Plain,
}

/// Answer to [`Protection`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryProtection {
    /// The weakest protection that any secret had since the daemon started.
    pub level: ProtectionLevel,
    /// Bytes of keys and values in memory now.
    pub bytes_in_use: u64,
    /// Most bytes that the daemon may lock (`RLIMIT_MEMLOCK`); `None` if nothing limits it.
    pub lock_limit_bytes: Option<u64>,
    /// Whether the machine swaps to disk; `None` if that is unknown.
    pub swap: Option<bool>,
}

/// Asks which access rules are in force, for `pds status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rules {}

/// Answer to [`Rules`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesState {
    /// How many patterns stand in them.
    pub patterns: u64,
    /// Why they are not those of the configuration file as it is now, when they are not.
    pub problem: Option<String>,
}

/// Asks for a key of the audit log, and for what it was anchored to last. Only `daemon-profile` may.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditKey {
    /// The unlocked profile.
    pub profile: ProfileName,
    /// What stands in the log, and makes the key another one each time.
    pub nonce: [u8; 16],
}

/// Answer to [`AuditKey`].
#[derive(Debug, Serialize, Deserialize)]
pub struct AuditKeys {
    /// The key.
    pub key: WireSecret,
    /// Tells the vault's keys from those that it has after a rekey.
    pub id: [u8; 8],
    /// Where the log stood when it was anchored to this vault last.
    pub anchor: Option<AuditPoint>,
}

/// Anchors the audit log to an unlocked vault. Only `daemon-profile` may.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditAnchor {
    /// The profile.
    pub profile: ProfileName,
    /// Where the log stands.
    pub point: AuditPoint,
}

/// Locks a profile whose time is over. Only `daemon-profile` may.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LockFor {
    /// The profile.
    pub profile: ProfileName,
    /// Why.
    pub cause: LockCause,
}

/// Asks for all that was recorded so far to be sent to the audit log without delay; answered when it is there, or when
/// that takes too long. Anyone may: it only brings forward what is sent anyway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliverAudit {}

/// Published on [`super::Topic::ProfileState`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProfileChanged {
    /// The profile.
    pub profile: ProfileName,
    /// Whether it is unlocked now.
    pub unlocked: bool,
}

/// Published on [`super::Topic::SecretsChanged`] after secrets of any profile were changed or became readable. It names
/// none, since not everyone who hears it may know of each: who wants to know asks again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretsChanged {}

service! {
    /// The owner of the vaults.
    SecretsService = SECRETS, sealed: true, denial: SecretsDenial, requests: SecretsRequest {
        1 Init -> (),
        2 Unlock -> Unlocked,
        3 Lock -> Vec<ProfileName>,
        4 Profiles -> Vec<ProfileEntry>,
        5 ChangePassword -> (),
        6 Get -> WireSecret,
        7 GetBatch -> Vec<NamedSecret>,
        8 Set -> (),
        9 Delete -> (),
        10 List -> SecretPage,
        11 Factors -> FactorSheet,
        12 AddFactor -> u32,
        13 RemoveFactor -> (),
        14 SetPolicy -> (),
        15 CheckRecovery -> bool,
        16 Rekey -> (),
        17 RekeyProgress -> RekeyState,
        20 History -> Vec<VersionEntry>,
        21 Restore -> u64,
        22 Purge -> u64,
        23 Move -> (),
        24 AcceptRollback -> bool,
        30 Backup -> u64,
        31 RestoreBackup -> bool,
        34 InspectBackup -> BackupSheet,
        33 Protection -> MemoryProtection,
        35 Rules -> RulesState,
        50 AuditKey -> AuditKeys,
        51 AuditAnchor -> (),
        36 Explain -> Explanation,
        37 Grant -> GrantEntry,
        38 Grants -> Vec<GrantEntry>,
        39 RevokeGrant -> GrantEntry,
        52 LockFor -> bool,
        53 GetFor -> WireSecret,
        60 Import -> u64,
        61 Compare -> Vec<Comparison>,
        55 DeliverAudit -> (),
        #[cfg(feature = "ipc-field-encryption")]
        32 FieldKey -> WireSecret,
    }
}
