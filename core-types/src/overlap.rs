//! Rules that stand in each other's way: patterns of which one takes away what another gives, or that say twice what
//! needs saying once. None is an error, and each may be meant; which of them wins is not plain to see in a long list.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Bound;

use crate::access::{AccessOperation, AccessPolicy, AccessTable};
use crate::pattern::Pattern;
use crate::pattern_set::PatternSet;

/// Most warnings that are told.
const WARNINGS_MAX: usize = 1_000;
/// Most pairs of patterns that are compared: a check takes no longer than it may.
const COMPARISONS_MAX: usize = 4_000_000;

/// A pattern that does not do all that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A denial takes something of it away.
    Denied {
        /// The table, as it stands in the configuration.
        table: String,
        /// Under which key it stands.
        operation: AccessOperation,
        /// The pattern.
        pattern: Pattern,
        /// What wins over it.
        deny: Pattern,
        /// Whether nothing of it is left.
        wholly: bool,
        /// How many others under that key the same denial is known to take something from.
        others: usize,
    },
    /// Another one under the same key says the same or more.
    Idle {
        /// The table, as it stands in the configuration.
        table: String,
        /// Under which key it stands.
        key: &'static str,
        /// The pattern.
        pattern: Pattern,
        /// The other.
        by: Pattern,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { table, operation, pattern, deny, wholly, others } => {
                let key = operation.as_str();
                write!(f, "{table} {key} = \"{pattern}\" and deny = \"{deny}\" overlap: deny wins")?;
                if *wholly {
                    write!(f, ", and nothing is left of \"{pattern}\"")?;
                }
                if *others > 0 {
                    write!(f, " (and over {others} more under {key})")?;
                }
                Ok(())
            }
            Self::Idle { table, key, pattern, by } if pattern == by => {
                write!(f, "{table} {key} has \"{pattern}\" twice")
            }
            Self::Idle { table, key, pattern, by } => {
                write!(f, "{table} {key} = \"{pattern}\" adds nothing to \"{by}\"")
            }
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlaps {
    /// The first of them, in the order of the tables' names.
    pub warnings: Vec<Warning>,
    /// Whether not all was compared, or not all is told.
    pub cut: bool,
}

/// Looks for rules that stand in each other's way.
#[must_use]
pub fn overlaps(policy: &AccessPolicy) -> Overlaps {
    let mut search = Search { found: Overlaps::default(), left: COMPARISONS_MAX };
    for (profile, access) in &policy.tables {
        for (requester, table) in access {
            let name = format!("[profiles.{profile}.access.{}]", requester.as_str());
            search.table(&name, table);
        }
    }
    search.found
}

struct Search {
    found: Overlaps,
    /// Comparisons that are left.
    left: usize,
}

impl Search {
    fn table(&mut self, name: &str, table: &AccessTable) {
        for operation in AccessOperation::ALL {
            let allowed = table.allowed(operation);
            self.idle(name, operation.as_str(), allowed);
            let filed = ByStart::new(allowed);
            table.deny.iter().for_each(|deny| self.denied(name, operation, deny, &filed));
        }
        self.idle(name, "deny", &table.deny);
    }

    fn warn(&mut self, warning: impl FnOnce() -> Warning) {
        if self.found.warnings.len() < WARNINGS_MAX {
            self.found.warnings.push(warning());
        } else {
            self.found.cut = true;
        }
    }

    /// Patterns that stand twice under a key, and names that a pattern beside them matches.
    fn idle(&mut self, table: &str, key: &'static str, patterns: &[Pattern]) {
        let (mut seen, wild) = (HashSet::new(), PatternSet::new(&wild(patterns)));
        for pattern in patterns {
            let by = match seen.insert(pattern) {
                false => Some(pattern),
                true if pattern.is_wild() => None,
                true => wild.find(pattern.as_str()),
            };
            if let Some(by) = by {
                let (table, pattern, by) = (table.to_owned(), pattern.clone(), by.clone());
                self.warn(|| Warning::Idle { table, key, pattern, by });
            }
        }
    }

    /// What one denial takes from the patterns under an operation.
    fn denied(&mut self, table: &str, operation: AccessOperation, deny: &Pattern, filed: &ByStart<'_>) {
        let mut taken = Vec::new();
        for pattern in filed.near(deny) {
            let Some(left) = self.left.checked_sub(1) else {
                self.found.cut = true;
                break;
            };
            self.left = left;
            if overlap(pattern, deny) {
                taken.push(pattern);
            }
        }
        if let [first, others @ ..] = &taken[..] {
            let (table, pattern, deny, others) =
                (table.to_owned(), (*first).clone(), deny.clone(), others.len());
            let wholly = covers(&deny, &pattern);
            self.warn(|| Warning::Denied { table, operation, pattern, deny, wholly, others });
        }
    }
}

fn wild(patterns: &[Pattern]) -> Vec<Pattern> {
    patterns.iter().filter(|pattern| pattern.is_wild()).cloned().collect()
}

/// Patterns by the literal text that they begin with: of two that match one name, one begins as the other.
struct ByStart<'a>(BTreeMap<&'a str, Vec<&'a Pattern>>);

impl<'a> ByStart<'a> {
    fn new(patterns: &'a [Pattern]) -> Self {
        let mut filed: BTreeMap<&str, Vec<&Pattern>> = BTreeMap::new();
        patterns.iter().for_each(|pattern| filed.entry(start(pattern)).or_default().push(pattern));
        Self(filed)
    }

    fn near<'b>(&'b self, other: &'b Pattern) -> impl Iterator<Item = &'a Pattern> + 'b {
        let begin = start(other);
        let shorter = (0..begin.len()).filter_map(|length| self.0.get(&begin[..length]));
        let longer = self.0.range::<str, _>((Bound::Included(begin), Bound::Unbounded));
        let longer = longer.take_while(move |(start, _)| start.starts_with(begin)).map(|(_, filed)| filed);
        shorter.chain(longer).flatten().copied()
    }
}

/// What stands before the first star.
fn start(pattern: &Pattern) -> &str {
    pattern.as_str().split('*').next().unwrap_or_default()
}

/// What stands after the last star.
fn end(pattern: &Pattern) -> &str {
    pattern.as_str().rsplit('*').next().unwrap_or_default()
}

/// Whether some text matches both, be it a name or not. Two patterns with stars match one whenever their ends fit: what
/// either wants in its middle, the other's stars take.
fn overlap(one: &Pattern, other: &Pattern) -> bool {
    match (one.is_wild(), other.is_wild()) {
        (_, false) => one.matches_text(other.as_str()),
        (false, true) => other.matches_text(one.as_str()),
        (true, true) => {
            let fit = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
            let fit_at_end = |a: &str, b: &str| a.ends_with(b) || b.ends_with(a);
            fit(start(one), start(other)) && fit_at_end(end(one), end(other))
        }
    }
}

/// Whether a pattern matches all that another does: its stars match the other's stars as they stand. It may do so too
/// where this says no.
fn covers(pattern: &Pattern, other: &Pattern) -> bool {
    pattern.matches_text(other.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn told(table: &str) -> Vec<String> {
        let config = Config::parse(&format!("[profiles.work.access.backup]\n{table}")).unwrap();
        overlaps(&config.access).warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_wins_is_said() {
        assert_eq!(told("get = ['db/*']\ndeny = ['mail/*']\n"), [""; 0]);
        assert_eq!(
            told("get = ['db/*', 'x*']\nset = ['db/root']\ndeny = ['db/root*']\n"),
            [
                "[profiles.work.access.backup] get = \"db/*\" and deny = \"db/root*\" overlap: deny wins",
                "[profiles.work.access.backup] set = \"db/root\" and deny = \"db/root*\" overlap: deny wins, \
                 and nothing is left of \"db/root\"",
            ]
        );
        assert_eq!(
            told("get = ['a1', 'a2', 'a3']\ndeny = ['a*']\n"),
            [
                "[profiles.work.access.backup] get = \"a1\" and deny = \"a*\" overlap: deny wins, and nothing is left of \
              \"a1\" (and over 2 more under get)"
            ]
        );
    }

    #[test]
    fn what_is_said_twice_is_said() {
        assert_eq!(
            told("get = ['db/*', 'db/a', 'x', 'x']\ndeny = ['n*', 'no']\n"),
            [
                "[profiles.work.access.backup] get = \"db/a\" adds nothing to \"db/*\"",
                "[profiles.work.access.backup] get has \"x\" twice",
                "[profiles.work.access.backup] deny = \"no\" adds nothing to \"n*\"",
            ]
        );
    }

    /// Nothing tells these apart but a comparison of each with each, which is given up after a while.
    #[test]
    fn the_search_ends_whatever_it_is_given() {
        let list = |letter: char| (0..5_000).map(|n| format!("'*{letter}{n}'")).collect::<Vec<_>>().join(",");
        let text = format!("[profiles.work.access.backup]\nget = [{}]\ndeny = [{}]\n", list('a'), list('b'));
        let policy = Config::parse(&text).unwrap().access;
        let begun = std::time::Instant::now();
        let found = overlaps(&policy);
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(found, Overlaps { warnings: Vec::new(), cut: true });
    }

    proptest! {
        #[test]
        fn patterns_overlap_when_a_text_matches_both(
            one in "[ab*]{1,4}", other in "[ab*]{1,4}", texts in prop::collection::vec("[ab]{0,8}", 20),
        ) {
            let (one, other) = (pattern(&one), pattern(&other));
            let both = texts.iter().any(|text| one.matches_text(text) && other.matches_text(text));
            prop_assert!(overlap(&one, &other) || !both);
            prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
            let patterns = [one.clone()];
            let near = ByStart::new(&patterns).near(&other).count() == 1;
            prop_assert!(near || !overlap(&one, &other), "it is not passed over");
            if covers(&one, &other) {
                prop_assert!(texts.iter().all(|text| one.matches_text(text) || !other.matches_text(text)));
            }
        }
    }
}
