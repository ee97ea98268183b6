//! The access rules of the configuration: per profile, who may do what with which names.
//!
//! ```toml
//! [profiles.work.access.backup]
//! get = ["db/*"]
//! list = ["*"]
//! deny = ["db/root*"]
//! ```
//!
//! The credentials of a systemd unit are asked for by `unit:NAME`: `[profiles.work.access."unit:web.service"]`.
//!
//! A requester with such a table may do what the table lists and nothing else: an operation that is not listed, or
//! listed with an empty list, is allowed on no name. What `deny` matches is refused in every operation. What holds for
//! a requester without a table is not said here but where rules are judged by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{CLI, DaemonName, LAUNCHER, ProfileName};
use crate::pattern::Pattern;
use crate::program::Program;
use crate::unit::{UNIT_PREFIX, UnitName, UnitNameError};

/// What rules are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessOperation {
    /// Reading a value, or what is kept of older ones.
    Get,
    /// Seeing a name in a listing; names that may not be read are not seen either.
    List,
    /// Writing a value, or bringing an older one back.
    Set,
    /// Removing a secret, or what is kept of it.
    Delete,
    /// Getting a value into a program that `pds run` starts.
    Run,
}

impl AccessOperation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Get, Self::List, Self::Set, Self::Delete, Self::Run];

    /// Whether a value is given away.
    #[must_use]
    pub fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Run)
    }

    /// Its key in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Run => "run",
        }
    }
}

/// Why a text cannot be the requester of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequesterError {
    /// Not a name at all.
    #[error("'{text}' is not the name of a requester: {source}")]
    Name {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        source: crate::name::NameError,
    },
    /// `unit:`, and then no unit.
    #[error("'{text}' is not the name of a requester: {source}")]
    Unit {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        source: UnitNameError,
    },
    /// A daemon of ours that never asks for a secret.
    #[error(
        "'{0}' never asks for secrets, so no rule can be about it; requesters are {CLI}, {LAUNCHER} and names given \
         with `pds enroll`"
    )]
    NeverAsks(String),
}

/// Who a rule is about: `cli`, `daemon-launcher`, `unit:` and the name of a systemd unit, or the name of an enrolled daemon (whether
/// it is enrolled yet or not).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct RuleRequester(String);

impl RuleRequester {
    /// Takes the name of a requester.
    ///
    /// # Errors
    /// It is no name, or one of our own daemons that never asks.
    pub fn parse(text: impl Into<String>) -> Result<Self, RequesterError> {
        let text = text.into();
        if let Some(unit) = text.strip_prefix(UNIT_PREFIX) {
            return match UnitName::parse(unit) {
                Ok(unit) => Ok(Self(unit.requester())),
                Err(source) => Err(RequesterError::Unit { text, source }),
            };
        }
        let name = DaemonName::parse(text.as_str())
            .map_err(|source| RequesterError::Name { text: text.clone(), source })?;
        match name.as_str() {
            LAUNCHER => Ok(Self(text)),
            own if own.starts_with("daemon-") => Err(RequesterError::NeverAsks(text)),
            _ => Ok(Self(text)),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RuleRequester {
    type Error = RequesterError;
    fn try_from(text: String) -> Result<Self, RequesterError> {
        Self::parse(text)
    }
}

/// What one requester may do in one profile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessTable {
    /// Names whose values it may read.
    pub get: Vec<Pattern>,
    /// Names that it may see in a listing.
    pub list: Vec<Pattern>,
    /// Names that it may write.
    pub set: Vec<Pattern>,
    /// Names that it may remove.
    pub delete: Vec<Pattern>,
    /// Names that `pds run` may give to programs.
    pub run: Vec<Pattern>,
    /// Names that it may do nothing with, whatever the others say.
    pub deny: Vec<Pattern>,
}

impl AccessTable {
    /// The names that an operation is allowed on, unless they are denied.
    #[must_use]
    pub fn allowed(&self, operation: AccessOperation) -> &[Pattern] {
        match operation {
            AccessOperation::Get => &self.get,
            AccessOperation::List => &self.list,
            AccessOperation::Set => &self.set,
            AccessOperation::Delete => &self.delete,
            AccessOperation::Run => &self.run,
        }
    }

    /// How many patterns it has.
    #[must_use]
    pub fn patterns(&self) -> usize {
        AccessOperation::ALL.iter().map(|operation| self.allowed(*operation).len()).sum::<usize>()
            + self.deny.len()
    }
}

/// The tables of one profile, by requester.
pub type ProfileAccess = BTreeMap<RuleRequester, AccessTable>;

/// Which programs alone `pds run` gives the secrets of one profile to, by name or pattern; what none matches may go to any.
pub type ProfilePrograms = BTreeMap<Pattern, Vec<Program>>;

/// All rules, by profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessPolicy {
    /// Who may do what.
    pub tables: BTreeMap<ProfileName, ProfileAccess>,
    /// Which programs may be given what.
    pub programs: BTreeMap<ProfileName, ProfilePrograms>,
}

impl AccessPolicy {
    /// The table of a requester in a profile, if it has one.
    #[must_use]
    pub fn table(&self, profile: &str, requester: &str) -> Option<&AccessTable> {
        let (_, access) = self.tables.iter().find(|(name, _)| name.as_str() == profile)?;
        access.iter().find(|(name, _)| name.as_str() == requester).map(|(_, table)| table)
    }

    /// How many patterns there are in all tables.
    #[must_use]
    pub fn patterns(&self) -> usize {
        let tables = self.tables.values().flat_map(BTreeMap::values);
        let programs = self.programs.values().map(BTreeMap::len);
        tables.map(AccessTable::patterns).chain(programs).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn policy(text: &str) -> Result<AccessPolicy, String> {
        Config::parse(text).map(|config| config.access).map_err(|error| error.to_string())
    }

    #[test]
    fn getting_and_running_give_a_value_away() {
        let reading = AccessOperation::ALL.into_iter().filter(|operation| operation.reads());
        assert_eq!(reading.collect::<Vec<_>>(), [AccessOperation::Get, AccessOperation::Run]);
    }

    #[test]
    fn a_table_is_taken_over_as_it_stands() {
        let text = "[profiles.work.access.cli]\nget = ['db/*']\nlist = ['*']\nset = []\nrun = ['db/*', 'a']\ndeny = ['db/root*']\n\
                    [profiles.work.access.backup]\n[profiles.home.access.daemon-launcher]\nrun = ['*']\n";
        let policy = policy(text).unwrap();
        let table = policy.table("work", "cli").unwrap();
        let patterns = |operation| {
            table.allowed(operation).iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(patterns(AccessOperation::Get), ["db/*"]);
        assert_eq!(patterns(AccessOperation::List), ["*"]);
        assert!(patterns(AccessOperation::Set).is_empty() && patterns(AccessOperation::Delete).is_empty());
        assert_eq!(patterns(AccessOperation::Run), ["db/*", "a"]);
        assert_eq!(table.deny[0].as_str(), "db/root*");
        assert_eq!(policy.table("work", "backup"), Some(&AccessTable::default()));
        assert!(policy.table("home", "daemon-launcher").is_some());
        assert_eq!(policy.table("home", "cli"), None);
        assert_eq!(policy.patterns(), 6);
    }

    #[test]
    fn what_cannot_be_a_rule_is_named_with_its_line() {
        let table = [
            ("[profiles.work.access.cli]\ngte = ['a']\n", "line 2", "gte"),
            ("[profiles.work.access.daemon-bus]\nget = ['a']\n", "line 1", "daemon-bus"),
            ("[profiles.work.access.daemon-profile]\n", "line 1", "daemon-profile"),
            ("[profiles.work.access.daemon-other]\n", "line 1", "daemon-other"),
            ("[profiles.work.access.Backup]\n", "line 1", "Backup"),
            ("[profiles.Work.access.cli]\n", "line 1", "Work"),
            ("[profiles.work.acces.cli]\n", "line 1", "acces"),
            ("[profiles.work.access.cli]\n\nget = ['good', 'a b']\n", "line 3", "'a b'"),
            ("[profiles.work.access.cli]\nget = ['']\n", "line 2", "empty"),
            ("[profiles.work.access.cli]\nget = 'a'\n", "line 2", "get"),
            ("[profiles.work.access.cli]\nget = ['a']\nget = ['b']\n", "line 3", "get"),
            ("[profiles.work.access.cli]\n[profiles.work.access.cli]\n", "line 2", "cli"),
            ("[profiles.work.run]\n'a b' = []\n", "line 2", "'a b'"),
            ("[profiles.work.run]\na = [{ path = '/a' }]\n", "line 2", "image"),
            ("[profiles.work.run]\na = [{ path = '/a', image = 'blake3:00' }]\n", "line 2", "64 hex"),
        ];
        for (text, line, word) in table {
            let error = policy(text).unwrap_err();
            assert!(error.contains(line) && error.contains(word), "{text}\n{error}");
        }
    }
}
