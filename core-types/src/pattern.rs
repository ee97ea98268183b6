//! Patterns over secret names: literal text and `*`, which stands for any run of characters, `/` included.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::SECRET_NAME_BYTES_MAX;
use crate::name::{NameError, SecretName};

/// A pattern such as `db/*` or `*-token`; a pattern without `*` matches just that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Takes a text that is a secret name in which any characters may be replaced by `*`.
    ///
    /// # Errors
    /// It is empty, too long, or holds a byte no secret name has.
    pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > SECRET_NAME_BYTES_MAX {
            return Err(NameError::TooLong { length: text.len(), limit: SECRET_NAME_BYTES_MAX });
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-*".contains(&byte);
        match text.bytes().enumerate().find(|&(_, byte)| !allowed(byte)) {
            Some((position, byte)) => {
                Err(NameError::Byte { byte, position, alphabet: "A-Z a-z 0-9 . _ / - *".to_owned() })
            }
            None => Ok(Self(text)),
        }
    }

    /// Whether it can match more than one name.
    #[must_use]
    pub fn is_wild(&self) -> bool {
        self.0.contains('*')
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` matches. Takes at most length(pattern) x length(name) steps.
    #[must_use]
    pub fn matches(&self, name: &SecretName) -> bool {
        self.matches_text(name.as_str())
    }

    /// As [`Self::matches`], for a text of which it is not known whether it is a name.
    #[must_use]
    pub fn matches_text(&self, text: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = Some((p + 1, n));
                    p += 1;
                }
                Some(byte) if *byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match retry {
                    None => return false,
                    Some((after_star, taken)) => {
                        retry = Some((after_star, taken + 1));
                        p = after_star;
                        n = taken + 1;
                    }
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl TryFrom<String> for Pattern {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

/// For sets of patterns that are asked by text: a pattern and its text are equal, and hashed, alike.
impl Borrow<str> for Pattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, name: &str, expected: bool) {
        let name = SecretName::parse(name).unwrap();
        assert_eq!(Pattern::parse(pattern).unwrap().matches(&name), expected, "{pattern} over {name}");
    }

    #[test]
    fn star_stands_for_any_run_and_the_whole_name_must_match() {
        check("*", "anything/at.all", true);
        check("db/*", "db/password", true);
        check("db/*", "db", false);
        check("*-token", "github-token", true);
        check("*-token", "github-tokens", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-b-b-d", false);
        check("exact", "exact", true);
        check("exact", "exactly", false);
        check("**a**", "bab", true);
    }

    #[test]
    fn patterns_with_other_bytes_are_refused() {
        for bad in ["", "a b", "a?", "[a]", "a\n"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_with_any_part_starred_out_still_matches(name in "[a-z]{1,20}", from in 0usize..20, to in 0usize..20) {
            let (from, to) = (from.min(name.len()), to.min(name.len()));
            let (from, to) = (from.min(to), from.max(to));
            let pattern = format!("{}*{}", &name[..from], &name[to..]);
            prop_assert!(Pattern::parse(pattern).unwrap().matches(&SecretName::parse(name).unwrap()));
        }
    }
}
