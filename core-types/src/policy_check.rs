//! What a configuration says of its own rules: the `[[test]]` tables in it, and rules that stand in each other's way. Pure.
//!
//! ```toml
//! [[test]]
//! requester = "backup"
//! operation = "get"
//! name = "db/root"
//! profile = "work"        # default: the `default_profile` of the file
//! expected = "deny"
//! ```
//!
//! The daemons pass over these tables. Here they are decided by the rule book that the daemons decide by.

use serde::Deserialize;
use toml::Spanned;

use crate::access::{AccessOperation, RuleRequester};
use crate::config::{Config, ConfigError};
use crate::name::{ProfileName, SecretName};
use crate::overlap::{Overlaps, overlaps};
use crate::rule_book::{CitedRule, RuleBook};

/// What a test expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// The rules allow it.
    Allow,
    /// They do not.
    Deny,
}

impl Expected {
    /// Its value in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

#[derive(Deserialize)]
struct RawTests {
    #[serde(default)]
    test: Vec<Spanned<RawTest>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    requester: RuleRequester,
    operation: AccessOperation,
    name: SecretName,
    profile: Option<ProfileName>,
    expected: Expected,
}

/// A `[[test]]` and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// The line that it begins in, counted from 1.
    pub line: usize,
    /// Who asks.
    pub requester: RuleRequester,
    /// For what.
    pub operation: AccessOperation,
    /// About which name.
    pub name: SecretName,
    /// In which profile.
    pub profile: ProfileName,
    /// What the test expects.
    pub expected: Expected,
    /// What the rules say, and which of them.
    pub decided: CitedRule,
}

impl TestOutcome {
    /// Whether the rules say what is expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.decided.allowed == (self.expected == Expected::Allow)
    }
}

/// What was found in a configuration that can be used.
#[derive(Debug, Clone)]
pub struct PolicyReport {
    /// How many patterns stand in its rules.
    pub patterns: usize,
    /// Its tests, in their order.
    pub tests: Vec<TestOutcome>,
    /// Rules that stand in each other's way.
    pub overlaps: Overlaps,
}

/// Checks the text of a configuration, and runs its tests.
///
/// # Errors
/// The first thing for which the daemons would refuse it, or a test that is none.
pub fn check(text: &str) -> Result<PolicyReport, ConfigError> {
    let config = Config::parse(text)?;
    let raw: RawTests =
        toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string().trim_end().to_owned()))?;
    let book = RuleBook::new(&config.access);
    let tests = raw.test.into_iter().map(|test| {
        let line = text.get(..test.span().start).map_or(0, |before| before.matches('\n').count()) + 1;
        let RawTest { requester, operation, name, profile, expected } = test.into_inner();
        let profile = profile.unwrap_or_else(|| config.default_profile.clone());
        let decided = book.decide(&requester, profile.as_str(), operation, name.as_str()).cited();
        TestOutcome { line, requester, operation, name, profile, expected, decided }
    });
    Ok(PolicyReport {
        patterns: config.access.patterns(),
        tests: tests.collect(),
        overlaps: overlaps(&config.access),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "[profiles.work.access.backup]\nget = ['db/*']\ndeny = ['db/root*']\n\n";

    fn test(requester: &str, operation: &str, name: &str, expected: &str) -> String {
        format!(
            "[[test]]\nrequester = '{requester}'\noperation = '{operation}'\nname = '{name}'\nprofile = 'work'\n\
             expected = '{expected}'\n"
        )
    }

    #[test]
    fn tests_are_decided_by_the_rules_and_know_their_line() {
        let text = [
            RULES,
            &test("backup", "get", "db/a", "allow"),
            &test("backup", "get", "db/root", "deny"),
            &test("backup", "get", "db/root", "allow"),
            &test("cli", "delete", "x", "allow"),
        ]
        .concat();
        let report = check(&text).unwrap();
        let found: Vec<(usize, bool)> = report.tests.iter().map(|test| (test.line, test.passed())).collect();
        assert_eq!(found, [(5, true), (11, true), (17, false), (23, true)]);
        let told = report.tests[2].decided.told("work");
        assert_eq!(told, "[profiles.work.access.backup] deny = \"db/root*\"");
        assert_eq!(report.patterns, 2);
    }

    #[test]
    fn a_test_without_profile_is_about_the_default_profile() {
        let test = "[[test]]\nrequester = 'backup'\noperation = 'get'\nname = 'a'\nexpected = 'deny'\n";
        for (config, profile) in [("", "default"), ("default_profile = 'home'\n", "home")] {
            let report = check(&format!("{config}{test}")).unwrap();
            assert_eq!(report.tests[0].profile.as_str(), profile);
        }
    }

    #[test]
    fn a_test_that_is_none_is_an_error_here_and_passed_over_by_the_daemons() {
        for (wrong, word) in [
            (test("daemon-bus", "get", "a", "deny"), "never asks"),
            (test("No Name", "get", "a", "deny"), "No Name"),
            (test("backup", "read", "a", "deny"), "read"),
            (test("backup", "get", "a b", "deny"), "0x20"),
            (test("backup", "get", "a", "maybe"), "maybe"),
            (test("backup", "get", "a", "deny").replace("name", "nane"), "nane"),
            ("[[test]]\nrequester = 'backup'\n".to_owned(), "operation"),
        ] {
            let error = check(&wrong).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("line "), "{wrong}{error}");
            assert_eq!(Config::parse(&wrong), Ok(Config::default()), "{wrong}");
        }
        assert!(check("[profiles.work.access.daemon-bus]\n").is_err(), "what the daemons refuse is refused");
    }

    #[test]
    fn ten_thousand_rules_and_a_thousand_tests_take_less_than_a_second() {
        let line = |key: &str, name: &str| {
            let names: Vec<String> = (0..5_000).map(|number| format!("'{name}-{number}/*'")).collect();
            format!("{key} = [{}]\n", names.join(","))
        };
        let mut text =
            format!("[profiles.work.access.backup]\n{}{}", line("get", "team"), line("deny", "team-1"));
        (0..1_000)
            .for_each(|number| text.push_str(&test("backup", "get", &format!("team-{number}/a"), "allow")));
        let begun = std::time::Instant::now();
        let report = check(&text).unwrap();
        assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!((report.patterns, report.tests.len()), (10_000, 1_000));
        assert!(report.tests.iter().all(TestOutcome::passed));
    }
}
