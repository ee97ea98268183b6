//! `config.toml`: read as text, refused when it holds anything unknown, and turned into checked values.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::access::{AccessPolicy, ProfileAccess, ProfilePrograms};
use crate::limits::{CACHE_TTL_SECONDS_MAX, OLD_VERSIONS_DEFAULT, OLD_VERSIONS_MAX};
use crate::lock_times::LockTimes;
use crate::name::{NameError, ProfileName};

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, or a key or type that is not known; the text names line and key.
    #[error("{0}")]
    Syntax(String),
    /// A profile name that is none.
    #[error("'{text}' is not a profile name: {source}")]
    Profile {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A number out of its range.
    #[error("{key} = {value} is out of its range ({low} to {high})")]
    Range {
        /// The key, with its table.
        key: &'static str,
        /// What stands there.
        value: u64,
        /// Least allowed.
        low: u64,
        /// Most allowed.
        high: u64,
    },
}

/// How often one requester may ask (GCRA: a steady rate and a burst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second in the long run.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

/// The cost of deriving a key from a password (Argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnlockCost {
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// What has become of an audit entry before the thing that it is about is given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditMode {
    /// Nothing: it waits in memory to be written.
    BestEffort,
    /// It has been written to a file, so that no killed process loses it.
    #[default]
    Written,
    /// It is on the disk; where it cannot be, access is denied.
    Durable,
}

impl AuditMode {
    /// Its name in `config.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Written => "written",
            Self::Durable => "durable",
        }
    }
}

/// How the audit log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditLog {
    /// The mode of profiles that name none, and of what concerns no profile.
    pub mode: AuditMode,
    /// A file of the log that is larger is not written to any more, in bytes.
    pub segment_bytes: u64,
    /// Nor one whose first entry is older.
    pub segment_age: Duration,
    /// Files whose last entry is older are removed; `None` keeps all.
    pub keep: Option<Duration>,
}

impl Default for AuditLog {
    fn default() -> Self {
        Self {
            mode: AuditMode::default(),
            segment_bytes: 16 << 20,
            segment_age: Duration::from_secs(30 * DAY_SECONDS),
            keep: None,
        }
    }
}

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Longest age of a file of the audit log that can be configured, in days.
const AUDIT_DAYS_MAX: u64 = 36_500;

/// What is configured for one profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProfileConfig {
    /// Its audit mode, where it has one of its own.
    pub audit: Option<AuditMode>,
    /// When it locks by itself, where that is not as for all.
    pub lock: LockTimes,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The profile of commands that name none.
    pub default_profile: ProfileName,
    /// How long a decrypted value may stay in the cache.
    pub cache_ttl: Duration,
    /// How many old versions of each secret are kept.
    pub old_versions: u64,
    /// Rate of the CLI, the launcher and enrolled daemons.
    pub rate_known: Rate,
    /// Rate of everyone else, and of whoever was just denied.
    pub rate_unknown: Rate,
    /// What a password costs to try; a vault whose password is cheaper gets this with its next unlock.
    pub unlock_cost: UnlockCost,
    /// How the audit log is kept.
    pub audit: AuditLog,
    /// When profiles lock by themselves.
    pub lock: LockTimes,
    /// Whether each program of `pds run` gets a scope of its own where the user has a systemd.
    pub scope: bool,
    /// What is configured for single profiles.
    pub profiles: BTreeMap<ProfileName, ProfileConfig>,
    /// Who may do what with which secrets.
    pub access: AccessPolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_profile: default_profile(),
            cache_ttl: Duration::from_secs(CACHE_TTL_SECONDS_MAX),
            old_versions: OLD_VERSIONS_DEFAULT,
            rate_known: Rate { per_second: 1_000, burst: 2_000 },
            rate_unknown: Rate { per_second: 10, burst: 20 },
            // The second recommended option of RFC 9106, section 4.
            unlock_cost: UnlockCost { memory_mib: 64, passes: 3, lanes: 4 },
            audit: AuditLog::default(),
            lock: LockTimes::default(),
            scope: true,
            profiles: BTreeMap::new(),
            access: AccessPolicy::default(),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    default_profile: Option<String>,
    secrets: RawSecrets,
    unlock: RawUnlock,
    vault: RawVault,
    rate_limit: BTreeMap<RequesterClass, RawRate>,
    audit: RawAudit,
    lock: LockTimes,
    run: RawRun,
    profiles: BTreeMap<ProfileName, RawProfile>,
    /// What the file says of its own rules, which is looked at only when it is checked.
    #[serde(rename = "test")]
    _tests: IgnoredAny,
}

/// One table `[profiles.NAME]`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawProfile {
    audit: Option<AuditMode>,
    lock: LockTimes,
    access: ProfileAccess,
    run: ProfilePrograms,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawAudit {
    mode: AuditMode,
    segment_mib: Option<u64>,
    segment_days: Option<u64>,
    keep_days: Option<u64>,
}

impl RawAudit {
    fn checked(&self) -> Result<AuditLog, ConfigError> {
        let default = AuditLog::default();
        let days = |key, days| {
            let seconds = |days| Duration::from_secs(days * DAY_SECONDS);
            in_range(key, days, 1, AUDIT_DAYS_MAX).map(seconds)
        };
        Ok(AuditLog {
            mode: self.mode,
            segment_bytes: match self.segment_mib {
                None => default.segment_bytes,
                Some(mib) => in_range("audit.segment_mib", mib, 1, 1024)? << 20,
            },
            segment_age: match self.segment_days {
                None => default.segment_age,
                Some(number) => days("audit.segment_days", number)?,
            },
            keep: self.keep_days.map(|number| days("audit.keep_days", number)).transpose()?,
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSecrets {
    cache_ttl_seconds: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawUnlock {
    argon2_memory_mib: Option<u64>,
    argon2_passes: Option<u64>,
    argon2_lanes: Option<u64>,
}

impl RawUnlock {
    /// The cost; what is not said is as in `default`. The floor is OWASP's minimum, the ceiling half a minute.
    fn cost(&self, default: UnlockCost) -> Result<UnlockCost, ConfigError> {
        let or = |value: Option<u64>, default: u32| value.unwrap_or(default.into());
        let memory = or(self.argon2_memory_mib, default.memory_mib);
        let passes = or(self.argon2_passes, default.passes);
        let lanes = or(self.argon2_lanes, default.lanes);
        Ok(UnlockCost {
            memory_mib: narrow(in_range("unlock.argon2_memory_mib", memory, 19, 1024)?),
            passes: narrow(in_range("unlock.argon2_passes", passes, 2, 64)?),
            lanes: narrow(in_range("unlock.argon2_lanes", lanes, 1, 16)?),
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawVault {
    versions: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawRun {
    scope: Option<bool>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RequesterClass {
    Known,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRate {
    per_second: u64,
    burst: u64,
}

/// The profile of a configuration that names none.
fn default_profile() -> ProfileName {
    #[allow(clippy::expect_used)] // a literal that the tests of `name` cover
    ProfileName::parse("default").expect("a valid profile name")
}

fn in_range(key: &'static str, value: u64, low: u64, high: u64) -> Result<u64, ConfigError> {
    if (low..=high).contains(&value) { Ok(value) } else { Err(ConfigError::Range { key, value, low, high }) }
}

impl Config {
    /// Reads a configuration from the text of `config.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: RawConfig = toml::from_str(text)
            .map_err(|error| ConfigError::Syntax(error.to_string().trim_end().to_owned()))?;
        let defaults = Self::default();
        let rate = |class, default: Rate| match raw.rate_limit.get(&class) {
            None => Ok(default),
            Some(rate) => Ok(Rate {
                per_second: narrow(in_range("rate_limit.*.per_second", rate.per_second, 1, 1_000_000)?),
                burst: narrow(in_range("rate_limit.*.burst", rate.burst, 1, 1_000_000)?),
            }),
        };
        let access = raw.profiles.iter().filter(|(_, profile)| !profile.access.is_empty());
        let access = access.map(|(name, profile)| (name.clone(), profile.access.clone()));
        let programs = raw.profiles.iter().filter(|(_, profile)| !profile.run.is_empty());
        let programs = programs.map(|(name, profile)| (name.clone(), profile.run.clone()));
        let profiles = raw.profiles.iter();
        let profiles = profiles.map(|(name, RawProfile { audit, lock, .. })| {
            (name.clone(), ProfileConfig { audit: *audit, lock: *lock })
        });
        Ok(Self {
            rate_known: rate(RequesterClass::Known, defaults.rate_known)?,
            rate_unknown: rate(RequesterClass::Unknown, defaults.rate_unknown)?,
            unlock_cost: raw.unlock.cost(defaults.unlock_cost)?,
            audit: raw.audit.checked()?,
            lock: raw.lock,
            scope: raw.run.scope.unwrap_or(defaults.scope),
            access: AccessPolicy { tables: access.collect(), programs: programs.collect() },
            profiles: profiles.collect(),
            default_profile: match raw.default_profile {
                None => defaults.default_profile,
                Some(text) => profile_name(text)?,
            },
            cache_ttl: match raw.secrets.cache_ttl_seconds {
                None => defaults.cache_ttl,
                Some(seconds) => Duration::from_secs(in_range(
                    "secrets.cache_ttl_seconds",
                    seconds,
                    0,
                    CACHE_TTL_SECONDS_MAX,
                )?),
            },
            old_versions: match raw.vault.versions {
                None => defaults.old_versions,
                Some(versions) => in_range("vault.versions", versions, 0, OLD_VERSIONS_MAX)?,
            },
        })
    }

    /// The profiles that have an audit mode of their own, with it.
    #[must_use]
    pub fn own_audit_modes(&self) -> Vec<(ProfileName, AuditMode)> {
        let own = self.profiles.iter().filter_map(|(name, profile)| Some((name.clone(), profile.audit?)));
        own.collect()
    }

    /// When a profile locks by itself.
    #[must_use]
    pub fn lock_times(&self, profile: &ProfileName) -> LockTimes {
        self.profiles.get(profile).map(|profile| profile.lock).unwrap_or_default().or(self.lock)
    }

    /// The audit mode of a profile, or of what concerns none.
    #[must_use]
    pub fn audit_mode(&self, profile: Option<&ProfileName>) -> AuditMode {
        let own = profile.and_then(|profile| self.profiles.get(profile)).and_then(|profile| profile.audit);
        own.unwrap_or(self.audit.mode)
    }
}

fn profile_name(text: String) -> Result<ProfileName, ConfigError> {
    ProfileName::parse(text.as_str()).map_err(|source| ConfigError::Profile { text, source })
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn known_keys_are_taken_over() {
        let config = Config::parse(
            "default_profile = 'work'\n[secrets]\ncache_ttl_seconds = 0\n[vault]\nversions = 0\n[run]\nscope = false\n[rate_limit.unknown]\nper_second = 1\nburst = 2\n",
        )
        .unwrap();
        assert_eq!(config.default_profile.as_str(), "work");
        assert_eq!(config.cache_ttl, Duration::ZERO);
        assert_eq!(config.old_versions, 0);
        assert!(!config.scope);
        assert_eq!(config.rate_unknown, Rate { per_second: 1, burst: 2 });
        assert_eq!(config.rate_known, Config::default().rate_known);
    }

    #[test]
    fn the_cost_of_a_password_lies_between_the_floor_and_the_ceiling() {
        let cost =
            |text: &str| Config::parse(&format!("[unlock]\n{text}\n")).map(|config| config.unlock_cost);
        assert_eq!(cost(""), Ok(Config::default().unlock_cost));
        let good = UnlockCost { memory_mib: 256, passes: 2, lanes: 4 };
        assert_eq!(cost("argon2_memory_mib = 256\nargon2_passes = 2"), Ok(good));
        for wrong in [
            "argon2_memory_mib = 18",
            "argon2_memory_mib = 1025",
            "argon2_passes = 1",
            "argon2_passes = 65",
            "argon2_lanes = 0",
            "argon2_lanes = 17",
        ] {
            assert!(matches!(cost(wrong), Err(ConfigError::Range { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_profile_has_its_own_audit_mode_or_that_of_all() {
        let mode = |text: &str, name: Option<&str>| {
            let name = name.map(|name| ProfileName::parse(name).unwrap());
            Config::parse(text).unwrap().audit_mode(name.as_ref())
        };
        let text = "[audit]\nmode = 'best-effort'\n[profiles.work]\naudit = 'durable'\n[profiles.home]\n";
        assert_eq!(mode("", Some("work")), AuditMode::Written);
        assert_eq!(mode(text, Some("work")), AuditMode::Durable);
        assert_eq!(mode(text, Some("home")), AuditMode::BestEffort);
        assert_eq!(mode(text, None), AuditMode::BestEffort);
        for (wrong, named) in [
            ("[audit]\nmode = 'strict'", "strict"),
            ("[profiles.work]\naudit = 1", "line 2"),
            ("[profiles.work]\naudits = 'durable'", "audits"),
            ("[profiles.'a b']\naudit = 'durable'", "a b"),
        ] {
            let error = Config::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn sizes_and_ages_of_the_audit_log_have_their_limits() {
        let audit = |text: &str| Config::parse(&format!("[audit]\n{text}")).map(|config| config.audit);
        let found = audit("segment_mib = 2\nsegment_days = 1\nkeep_days = 90").unwrap();
        let expected = AuditLog {
            segment_bytes: 2 << 20,
            segment_age: Duration::from_secs(86_400),
            keep: Some(Duration::from_secs(90 * 86_400)),
            ..AuditLog::default()
        };
        assert_eq!(found, expected);
        for wrong in [
            "segment_mib = 0",
            "segment_mib = 1025",
            "segment_days = 0",
            "keep_days = 0",
            "keep_days = 36501",
        ] {
            assert!(matches!(audit(wrong), Err(ConfigError::Range { .. })), "{wrong}");
        }
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_named() {
        let error = Config::parse("[secrets]\ncache_tll_seconds = 3\n").unwrap_err().to_string();
        assert!(error.contains("cache_tll_seconds") && error.contains("line 2"), "{error}");
        assert!(matches!(Config::parse("default_profile = 'A B'"), Err(ConfigError::Profile { .. })));
        assert!(matches!(
            Config::parse("[secrets]\ncache_ttl_seconds = 301"),
            Err(ConfigError::Range { .. })
        ));
        assert!(matches!(Config::parse("[vault]\nversions = 1001"), Err(ConfigError::Range { .. })));
        assert!(matches!(
            Config::parse("[rate_limit.friends]\nper_second=1\nburst=1"),
            Err(ConfigError::Syntax(_))
        ));
    }
}
