//! Many patterns at once: which of them matches a name, without trying each.
//!
//! A pattern can match only a name that has its literal text in it. So each is filed under one piece of that text,
//! and of a name only those are tried whose piece stands in it, at the place where it has to.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::pattern::Pattern;

/// Patterns filed under a piece of their literal text.
#[derive(Debug, Clone, Default)]
struct Files {
    by_piece: HashMap<Box<[u8]>, Vec<Pattern>>,
    lengths: BTreeSet<usize>,
}

impl Files {
    fn add(&mut self, piece: &str, pattern: &Pattern) {
        self.lengths.insert(piece.len());
        self.by_piece.entry(piece.as_bytes().into()).or_default().push(pattern.clone());
    }

    /// The lengths that a piece of a text of `limit` bytes can have.
    fn lengths(&self, limit: usize) -> impl Iterator<Item = usize> {
        self.lengths.range(..=limit).copied()
    }

    /// One of those that have this piece and match.
    fn find(&self, piece: &[u8], text: &str) -> Option<&Pattern> {
        self.by_piece.get(piece)?.iter().find(|pattern| pattern.matches_text(text))
    }
}

/// A set of patterns, filed once and asked often.
#[derive(Debug, Clone, Default)]
pub struct PatternSet {
    /// One of them is nothing but stars.
    everything: Option<Pattern>,
    exact: HashSet<Pattern>,
    by_start: Files,
    by_end: Files,
    by_middle: Files,
    count: usize,
}

impl PatternSet {
    /// Files patterns.
    #[must_use]
    pub fn new(patterns: &[Pattern]) -> Self {
        let mut set = Self { count: patterns.len(), ..Self::default() };
        for pattern in patterns {
            set.add(pattern);
        }
        set
    }

    fn add(&mut self, pattern: &Pattern) {
        let text = pattern.as_str();
        if !pattern.is_wild() {
            self.exact.insert(pattern.clone());
            return;
        }
        let pieces = || text.split('*');
        let (first, last) = (pieces().next().unwrap_or_default(), pieces().next_back().unwrap_or_default());
        if !first.is_empty() {
            self.by_start.add(first, pattern);
        } else if !last.is_empty() {
            self.by_end.add(last, pattern);
        } else {
            match pieces().max_by_key(|piece| piece.len()).filter(|piece| !piece.is_empty()) {
                Some(longest) => self.by_middle.add(longest, pattern),
                None => self.everything = Some(pattern.clone()),
            }
        }
    }

    /// Whether there is no pattern, so that nothing can match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether any of the patterns matches the whole of `text`, which need not be a name of a secret.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.find(text).is_some()
    }

    /// One of the patterns that match the whole of `text`: the one without a star, if it is among them, and the one that
    /// is nothing but stars only if no other is.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<&Pattern> {
        let (bytes, length) = (text.as_bytes(), text.len());
        let exact = || self.exact.get(text);
        let by_start =
            || self.by_start.lengths(length).find_map(|piece| self.by_start.find(&bytes[..piece], text));
        let by_end =
            || self.by_end.lengths(length).find_map(|piece| self.by_end.find(&bytes[length - piece..], text));
        let by_middle = || {
            let mut lengths = self.by_middle.lengths(length).filter(|piece| *piece > 0);
            lengths
                .find_map(|piece| bytes.windows(piece).find_map(|window| self.by_middle.find(window, text)))
        };
        exact().or_else(by_start).or_else(by_end).or_else(by_middle).or(self.everything.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(patterns: &[&str]) -> PatternSet {
        PatternSet::new(&patterns.iter().map(|text| Pattern::parse(*text).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_is_in_the_empty_set_and_everything_under_a_star() {
        assert!(set(&[]).is_empty() && !set(&[]).matches("a") && !set(&["a"]).is_empty());
        assert!(set(&["**"]).matches("a") && set(&["*"]).matches("../not a name"));
        assert!(!set(&["a"]).matches("") && !set(&["a"]).matches("aa"));
    }

    /// Each kind of pattern, many times: as many steps as patterns times names would take minutes.
    #[test]
    fn many_patterns_over_many_names_take_no_time() {
        let kinds = ["team-{}/*", "*/key-{}", "*-{}-*", "exact/{}", "a{}*b"];
        let patterns = (0..10_000).map(|number: usize| {
            Pattern::parse(kinds[number % kinds.len()].replace("{}", &number.to_string())).unwrap()
        });
        let set = PatternSet::new(&patterns.collect::<Vec<_>>());
        let begun = std::time::Instant::now();
        let matching = (0..100_000).filter(|number| set.matches(&format!("team-{number}/password")));
        assert_eq!(matching.count(), 2_000);
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    proptest! {
        #[test]
        fn a_set_matches_what_one_of_its_patterns_matches(
            patterns in prop::collection::vec("[ab/*]{1,6}", 0..6),
            text in "[ab/]{0,8}",
        ) {
            let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text.as_str()).unwrap()).collect();
            let expected = patterns.iter().any(|pattern| pattern.matches_text(&text));
            let set = PatternSet::new(&patterns);
            prop_assert_eq!(set.matches(&text), expected);
            prop_assert!(set.find(&text).is_none_or(|found| patterns.contains(found) && found.matches_text(&text)));
        }
    }
}
