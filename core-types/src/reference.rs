//! References to secrets: `pds://PROFILE/NAME`, where a value would stand.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::{NameError, ProfileName, SecretName};

/// What every reference begins with.
const SCHEME: &str = "pds://";
/// Longest beginning of a malformed reference that is repeated, in bytes.
const SHOWN_BYTES_MAX: usize = 128;

/// Which secret of which profile is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretReference {
    /// The profile.
    pub profile: ProfileName,
    /// The secret.
    pub name: SecretName,
}

/// Why a text that begins as a reference is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReferenceError {
    /// It does not begin as one.
    #[error("it does not begin with {SCHEME}")]
    Scheme,
    /// No slash after the profile.
    #[error("it has no '/' between profile and name")]
    NoName,
    /// The profile is none.
    #[error("its profile is not a profile name: {0}")]
    Profile(NameError),
    /// The name is none.
    #[error("its name is not a secret name: {0}")]
    Name(NameError),
    /// In a template: it is not followed by the braces that close it.
    #[error("no }}}} follows on its line")]
    Unclosed,
}

impl SecretReference {
    /// Whether a value is meant as a reference, well-formed or not; any other is just a value.
    #[must_use]
    pub fn is_meant_by(value: &[u8]) -> bool {
        value.starts_with(SCHEME.as_bytes())
    }

    /// Takes a text that is a reference as a whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let place = text.strip_prefix(SCHEME).ok_or(ReferenceError::Scheme)?;
        let (profile, name) = place.split_once('/').ok_or(ReferenceError::NoName)?;
        Ok(Self {
            profile: ProfileName::parse(profile).map_err(ReferenceError::Profile)?,
            name: SecretName::parse(name).map_err(ReferenceError::Name)?,
        })
    }

    /// As much of a malformed reference as can be repeated: up to the first byte that no reference has, because what
    /// follows may be anything, a password in a URL among it.
    #[must_use]
    pub fn beginning_of(value: &[u8]) -> String {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._/-".contains(byte);
        let rest = value.strip_prefix(SCHEME.as_bytes()).unwrap_or_default();
        let fit = rest.iter().take(SHOWN_BYTES_MAX).take_while(|byte| plain(byte)).count();
        let more = if fit < rest.len() { "..." } else { "" };
        format!("{SCHEME}{}{more}", String::from_utf8_lossy(&rest[..fit]))
    }
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.profile, self.name)
    }
}

impl TryFrom<String> for SecretReference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Self::parse(&text)
    }
}

impl From<SecretReference> for String {
    fn from(reference: SecretReference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reference_is_a_profile_and_a_name() {
        let reference = SecretReference::parse("pds://work/db/pass.word").unwrap();
        assert_eq!((reference.profile.as_str(), reference.name.as_str()), ("work", "db/pass.word"));
        assert_eq!(reference.to_string(), "pds://work/db/pass.word");
    }

    #[test]
    fn what_is_not_exactly_one_says_why() {
        let check = |text: &str| SecretReference::parse(text).unwrap_err();
        assert_eq!(check("work/a"), ReferenceError::Scheme);
        assert_eq!(check("PDS://work/a"), ReferenceError::Scheme);
        assert_eq!(check(" pds://work/a"), ReferenceError::Scheme);
        assert_eq!(check("pds://work"), ReferenceError::NoName);
        assert_eq!(check("pds:///a"), ReferenceError::Profile(NameError::Empty));
        assert_eq!(check("pds://work/"), ReferenceError::Name(NameError::Empty));
        assert_eq!(check("pds://work//a"), ReferenceError::Name(NameError::Slash));
        for text in ["pds://Work/a", "pds://work/a ", "pds://work/a\n", "pds://work/a?x", "pds://work/a,b"] {
            let error = check(text);
            let expected = matches!(
                error,
                ReferenceError::Profile(NameError::Byte { .. })
                    | ReferenceError::Name(NameError::Byte { .. })
            );
            assert!(expected, "{text}");
        }
    }

    #[test]
    fn a_malformed_one_is_repeated_only_as_far_as_it_can_be_a_reference() {
        let shown = |text: &[u8]| SecretReference::beginning_of(text);
        assert_eq!(shown(b"pds://work"), "pds://work");
        assert_eq!(shown(b"pds://me:hunter2@host/db"), "pds://me...");
        assert_eq!(shown(b"pds://work/a b"), "pds://work/a...");
        assert_eq!(shown(b"pds://\xff"), "pds://...");
        assert_eq!(shown(&[b"pds://".to_vec(), vec![b'x'; 500]].concat()).len(), 6 + SHOWN_BYTES_MAX + 3);
    }

    proptest! {
        #[test]
        fn a_text_is_a_reference_exactly_when_it_shows_as_one(text in "(pds://)?[a-zA-Z0-9._/ -]{0,20}") {
            match SecretReference::parse(&text) {
                Ok(reference) => prop_assert_eq!(reference.to_string(), text),
                Err(ReferenceError::Scheme) => prop_assert!(!SecretReference::is_meant_by(text.as_bytes())),
                Err(_) => prop_assert!(SecretReference::is_meant_by(text.as_bytes())),
            }
        }
    }
}
