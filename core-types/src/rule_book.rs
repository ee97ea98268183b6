//! The access rules filed for asking: what they allow whom, and which of them decides. Pure.
//!
//! Nothing else judges by rules: `daemon-secrets` asks here before it opens a vault, and `pds config check` to try what
//! a configuration says of itself.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::access::{AccessOperation, AccessPolicy, AccessTable, ProfilePrograms, RuleRequester};
use crate::name::{CLI, LAUNCHER};
use crate::pattern::Pattern;
use crate::pattern_set::PatternSet;
use crate::program::Program;

/// Whom a rule is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged<'a> {
    /// The command line of the user.
    Cli,
    /// `daemon-launcher`, which reads for `pds run`, and for which program, where it knows.
    Launcher(Option<&'a Program>),
    /// A daemon of someone else, by its name.
    Enrolled(&'a str),
    /// Whoever no rule can allow anything.
    Nobody(&'a str),
}

impl<'a> Judged<'a> {
    /// The name that its table has.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Cli => CLI,
            Self::Launcher(_) => LAUNCHER,
            Self::Enrolled(name) | Self::Nobody(name) => name,
        }
    }

    /// What a rule must allow for it to have a value: what the launcher reads it gives to a program.
    #[must_use]
    pub fn reading(self) -> AccessOperation {
        if matches!(self, Self::Launcher(_)) { AccessOperation::Run } else { AccessOperation::Get }
    }
}

impl<'a> From<&'a RuleRequester> for Judged<'a> {
    fn from(requester: &'a RuleRequester) -> Self {
        match requester.as_str() {
            CLI => Self::Cli,
            LAUNCHER => Self::Launcher(None),
            name => Self::Enrolled(name),
        }
    }
}

/// What the rules say, and which of them says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling<'a> {
    /// Whether they allow it.
    pub allowed: bool,
    /// Whose table decides, or would if there were one.
    pub requester: &'a str,
    /// The rule in it.
    pub rule: Rule<'a>,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule<'a> {
    /// There is no table.
    NoTable,
    /// This pattern denies it.
    Denied(&'a Pattern),
    /// This pattern allows it; none where it was asked about no name in particular.
    Listed(AccessOperation, Option<&'a Pattern>),
    /// The table lists nothing that allows it.
    NotListed(AccessOperation),
    /// This pattern leaves it to other programs.
    OtherPrograms(&'a Pattern),
    /// No rule can allow it: the requester never asks for such a thing.
    Never,
}

impl Ruling<'_> {
    fn never(requester: &str) -> Ruling<'_> {
        Ruling { allowed: false, requester, rule: Rule::Never }
    }

    /// The same, to be kept and sent.
    #[must_use]
    pub fn cited(&self) -> CitedRule {
        let (key, pattern) = match self.rule {
            Rule::NoTable => (RuleKey::NoTable, None),
            Rule::Denied(pattern) => (RuleKey::Deny, Some(pattern)),
            Rule::Listed(operation, pattern) => (RuleKey::Listed(operation), pattern),
            Rule::NotListed(operation) => (RuleKey::NotListed(operation), None),
            Rule::OtherPrograms(pattern) => (RuleKey::OtherPrograms, Some(pattern)),
            Rule::Never => (RuleKey::Never, None),
        };
        CitedRule {
            allowed: self.allowed,
            requester: self.requester.to_owned(),
            key,
            pattern: pattern.cloned(),
        }
    }
}

/// Where a deciding rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleKey {
    /// There is no table.
    NoTable,
    /// Under `deny`.
    Deny,
    /// Under this operation.
    Listed(AccessOperation),
    /// Nowhere: it would have to stand under this operation.
    NotListed(AccessOperation),
    /// No rule can be about it.
    Never,
    /// In the profile's table of programs.
    OtherPrograms,
}

/// A [`Ruling`] to be kept and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CitedRule {
    /// Whether it allows what was asked about.
    pub allowed: bool,
    /// Whose table it is.
    pub requester: String,
    /// Where in it.
    pub key: RuleKey,
    /// The pattern that decides, where one does and may be told.
    pub pattern: Option<Pattern>,
}

impl CitedRule {
    /// The rule in words, as it stands in the configuration of `profile`.
    #[must_use]
    pub fn told(&self, profile: &str) -> String {
        let Self { allowed, requester, key, pattern } = self;
        let table = format!("[profiles.{profile}.access.{requester}]");
        let listed = |key: &str| match pattern {
            Some(pattern) => format!("{table} {key} = \"{pattern}\""),
            None => format!("{table} {key}"),
        };
        match key {
            RuleKey::NoTable if *allowed => format!("there is no {table}, so everything is allowed"),
            RuleKey::NoTable => format!("there is no {table}, so nothing is allowed"),
            RuleKey::Deny => listed("deny"),
            RuleKey::Listed(operation) => listed(operation.as_str()),
            RuleKey::NotListed(operation) => format!("{table} does not list it under {}", operation.as_str()),
            RuleKey::OtherPrograms => {
                let pattern = pattern.as_ref().map(|pattern| format!(" \"{pattern}\"")).unwrap_or_default();
                format!(
                    "[profiles.{profile}.run]{pattern} names other programs, or another image of this one"
                )
            }
            RuleKey::Never => format!("'{requester}' never asks for that, so no rule can allow it"),
        }
    }
}

/// A table of rules, filed for asking.
#[derive(Debug, Default)]
struct Table {
    allowed: [PatternSet; AccessOperation::ALL.len()],
    deny: PatternSet,
}

impl Table {
    fn new(table: &AccessTable) -> Self {
        Self {
            allowed: AccessOperation::ALL.map(|operation| PatternSet::new(table.allowed(operation))),
            deny: PatternSet::new(&table.deny),
        }
    }

    fn allowed(&self, operation: AccessOperation) -> &PatternSet {
        &self.allowed[operation as usize]
    }

    /// Whether it allows an operation on a name; without a name, whether it allows it on any.
    fn judge(&self, operation: AccessOperation, name: Option<&str>) -> (bool, Rule<'_>) {
        let allowed = self.allowed(operation);
        let Some(name) = name else {
            return match allowed.is_empty() {
                true => (false, Rule::NotListed(operation)),
                false => (true, Rule::Listed(operation, None)),
            };
        };
        if let Some(pattern) = self.deny.find(name) {
            return (false, Rule::Denied(pattern));
        }
        match allowed.find(name) {
            Some(pattern) => (true, Rule::Listed(operation, Some(pattern))),
            None => (false, Rule::NotListed(operation)),
        }
    }
}

/// The access rules of a configuration, filed for asking.
#[derive(Debug, Default)]
pub struct RuleBook {
    profiles: HashMap<String, HashMap<String, Table>>,
    programs: HashMap<String, ProfilePrograms>,
}

impl RuleBook {
    /// Files the rules of a configuration.
    #[must_use]
    pub fn new(policy: &AccessPolicy) -> Self {
        let profiles = policy.tables.iter().map(|(profile, access)| {
            let tables = access.iter().map(|(who, table)| (who.as_str().to_owned(), Table::new(table)));
            (profile.as_str().to_owned(), tables.collect())
        });
        let programs = policy.programs.iter().map(|(profile, of)| (profile.as_str().to_owned(), of.clone()));
        Self { profiles: profiles.collect(), programs: programs.collect() }
    }

    /// What the rules say of an operation on a name; without a name, whether they allow it on any.
    #[must_use]
    pub fn judge<'a>(
        &'a self,
        who: Judged<'a>,
        profile: &str,
        operation: AccessOperation,
        name: Option<&str>,
    ) -> Ruling<'a> {
        let ruling = self.by_tables(who, profile, operation, name);
        match (who, name) {
            (Judged::Launcher(program), Some(name))
                if operation == AccessOperation::Run && ruling.allowed =>
            {
                match self.for_other_programs(profile, name, program) {
                    Some(pattern) => Ruling { allowed: false, rule: Rule::OtherPrograms(pattern), ..ruling },
                    None => ruling,
                }
            }
            _ => ruling,
        }
    }

    /// What the tables of requesters say.
    fn by_tables<'a>(
        &'a self,
        who: Judged<'a>,
        profile: &str,
        operation: AccessOperation,
        name: Option<&str>,
    ) -> Ruling<'a> {
        let tables = self.profiles.get(profile);
        let table_of = |requester: &'a str| {
            let table = tables.and_then(|tables| tables.get(requester))?;
            let (allowed, rule) = table.judge(operation, name);
            Some(Ruling { allowed, requester, rule })
        };
        let own = |otherwise| {
            let requester = who.name();
            let without = Ruling { allowed: otherwise, requester, rule: Rule::NoTable };
            table_of(requester).unwrap_or(without)
        };
        match who {
            Judged::Cli => own(true),
            // The launcher does what the command line asks it to, so what is ruled of that holds for it as well.
            Judged::Launcher(_) => match (own(true), table_of(CLI)) {
                (own, Some(users))
                    if operation == AccessOperation::Run
                        && own.allowed
                        && (!users.allowed || own.rule == Rule::NoTable) =>
                {
                    users
                }
                (own, _) => own,
            },
            Judged::Enrolled(_) => own(false),
            Judged::Nobody(name) => Ruling::never(name),
        }
    }

    /// The pattern that leaves a name to other programs than this one. Each that matches has to name it.
    fn for_other_programs(&self, profile: &str, name: &str, program: Option<&Program>) -> Option<&Pattern> {
        let mut of = self.programs.get(profile)?.iter().filter(|(pattern, _)| pattern.matches_text(name));
        of.find(|(_, programs)| !program.is_some_and(|program| programs.contains(program)))
            .map(|(pattern, _)| pattern)
    }

    /// Whether a name that is in a vault is shown in a listing: what may be listed and read. The ruling is the one that
    /// hides it, if one does.
    #[must_use]
    pub fn shows<'a>(&'a self, who: Judged<'a>, profile: &str, name: &str) -> Ruling<'a> {
        let listed = self.by_tables(who, profile, AccessOperation::List, Some(name));
        let read = self.by_tables(who, profile, who.reading(), Some(name));
        if listed.allowed && !read.allowed { read } else { listed }
    }

    /// What comes of it when a requester asks for an operation by name, as the user sees it: `run` at the command line is
    /// read by the launcher, which reads nothing else and never writes, and `list` is whether the name is shown.
    #[must_use]
    pub fn decide<'a>(
        &'a self,
        requester: &'a RuleRequester,
        profile: &str,
        operation: AccessOperation,
        name: &str,
    ) -> Ruling<'a> {
        use AccessOperation as On;
        let who = Judged::from(requester);
        match (who, operation) {
            (_, On::List) => self.shows(who, profile, name),
            (Judged::Launcher(_), On::Set | On::Delete) | (Judged::Enrolled(_), On::Run) => {
                Ruling::never(who.name())
            }
            (Judged::Launcher(_), On::Get) | (Judged::Cli, On::Run) => {
                self.judge(Judged::Launcher(None), profile, On::Run, Some(name))
            }
            _ => self.judge(who, profile, operation, Some(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::program::ImageDigest;

    fn book(text: &str) -> RuleBook {
        RuleBook::new(&Config::parse(text).unwrap().access)
    }

    fn told(text: &str, who: &str, operation: AccessOperation, name: &str) -> String {
        let (book, who) = (book(text), RuleRequester::parse(who).unwrap());
        book.decide(&who, "work", operation, name).cited().told("work")
    }

    #[test]
    fn a_name_is_for_the_programs_that_every_pattern_over_it_names() {
        let text = "[profiles.work.run]\n'db/*' = [{ path = '/a', image = 'DA' }, { path = '/b', image = 'DB' }]\n\
                    'db/root' = [{ path = '/b', image = 'DB' }]\n'none' = []\n";
        let digest = |byte: u8| ImageDigest::new([byte; 32]);
        let text = text.replace("DA", &digest(1).to_string()).replace("DB", &digest(2).to_string());
        let book = book(&text);
        let program = |path: &str, byte| Program { path: path.to_owned(), image: digest(byte) };
        let programs = [program("/a", 1), program("/b", 2), program("/a", 2), program("/c", 1)];
        let [a, b, changed, elsewhere] = &programs;
        for (name, program, expected) in [
            ("db/x", Some(a), None),
            ("db/x", Some(b), None),
            ("db/x", Some(changed), Some("db/*")),
            ("db/x", Some(elsewhere), Some("db/*")),
            ("db/x", None, Some("db/*")),
            ("db/root", Some(a), Some("db/root")),
            ("db/root", Some(b), None),
            ("none", Some(a), Some("none")),
            ("other", None, None),
        ] {
            let ruling = book.judge(Judged::Launcher(program), "work", AccessOperation::Run, Some(name));
            assert_eq!(ruling.allowed, expected.is_none(), "{name} {program:?}");
            if let Some(pattern) = expected {
                let cited = ruling.cited();
                assert_eq!((cited.key, cited.pattern.unwrap().as_str()), (RuleKey::OtherPrograms, pattern));
            }
            assert!(book.judge(Judged::Cli, "work", AccessOperation::Get, Some(name)).allowed, "{name}");
            assert!(book.judge(Judged::Launcher(program), "home", AccessOperation::Run, Some(name)).allowed);
            assert!(book.shows(Judged::Launcher(None), "work", name).allowed, "its name is no secret");
        }
    }

    #[test]
    fn the_rule_that_decides_is_named_as_it_stands_in_the_file() {
        use AccessOperation as On;
        let text = "[profiles.work.access.backup]\nget = ['db/*', 'a']\nlist = ['*']\ndeny = ['db/root*']\n\
                    [profiles.work.access.cli]\nrun = ['db/*']\nget = ['*']\n";
        let table = [
            ("backup", On::Get, "db/x", "[profiles.work.access.backup] get = \"db/*\""),
            ("backup", On::Get, "a", "[profiles.work.access.backup] get = \"a\""),
            ("backup", On::Get, "db/root", "[profiles.work.access.backup] deny = \"db/root*\""),
            ("backup", On::Set, "db/root", "[profiles.work.access.backup] deny = \"db/root*\""),
            ("backup", On::Set, "a", "[profiles.work.access.backup] does not list it under set"),
            ("backup", On::List, "a", "[profiles.work.access.backup] list = \"*\""),
            ("backup", On::List, "b", "[profiles.work.access.backup] does not list it under get"),
            ("backup", On::Run, "a", "'backup' never asks for that, so no rule can allow it"),
            ("other", On::Get, "a", "there is no [profiles.work.access.other], so nothing is allowed"),
            ("cli", On::Run, "a", "[profiles.work.access.cli] does not list it under run"),
            ("cli", On::Run, "db/x", "[profiles.work.access.cli] run = \"db/*\""),
            ("daemon-launcher", On::Get, "a", "[profiles.work.access.cli] does not list it under run"),
            (
                "daemon-launcher",
                On::Set,
                "a",
                "'daemon-launcher' never asks for that, so no rule can allow it",
            ),
            (
                "daemon-launcher",
                On::List,
                "db/x",
                "there is no [profiles.work.access.daemon-launcher], so everything is allowed",
            ),
        ];
        for (who, operation, name, expected) in table {
            assert_eq!(told(text, who, operation, name), expected, "{who} {operation:?} {name}");
        }
    }

    #[test]
    fn what_is_denied_is_denied_by_that_rule_also_where_nothing_allows_it() {
        let book = book("[profiles.work.access.backup]\nget = ['b']\ndeny = ['a']\n");
        let ruling = book.judge(Judged::Enrolled("backup"), "work", AccessOperation::Get, Some("a"));
        assert!(matches!(ruling, Ruling { allowed: false, rule: Rule::Denied(_), .. }));
        let ruling = book.judge(Judged::Enrolled("backup"), "work", AccessOperation::Get, Some("c"));
        assert!(matches!(ruling, Ruling { allowed: false, rule: Rule::NotListed(AccessOperation::Get), .. }));
    }
}
