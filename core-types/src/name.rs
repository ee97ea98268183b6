//! Names, parsed once and trusted afterwards.
//!
//! A value of one of these types has passed its rules; nobody checks it again. The types deserialize
//! through the same parser, so a name that came over the bus has passed them too.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{DAEMON_NAME_BYTES_MAX, PROFILE_NAME_BYTES_MAX, SECRET_NAME_BYTES_MAX};

/// Why a text is not a name; the text itself is not repeated, it may hold anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NameError {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("it has {length} bytes, and at most {limit} are allowed")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A byte outside the alphabet.
    #[error("byte {position} (0x{byte:02x}) is not one of {alphabet}")]
    Byte {
        /// The offending byte.
        byte: u8,
        /// Its offset, from 0.
        position: usize,
        /// What is allowed, as shown to users.
        alphabet: String,
    },
    /// A name that starts or ends with a slash, or has an empty part.
    #[error("it starts or ends with '/', or has two in a row")]
    Slash,
    /// A part that is `.` or `..`.
    #[error("it has a part that is '.' or '..'")]
    Dots,
    /// A first character that may only stand further on.
    #[error("it must start with a letter or a digit")]
    Start,
}

const SECRET_ALPHABET: &str = "A-Z a-z 0-9 . _ / -";
const PROFILE_ALPHABET: &str = "a-z 0-9 . _ -";

fn check_length(text: &str, limit: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        length if length > limit => Err(NameError::TooLong { length, limit }),
        _ => Ok(()),
    }
}

fn check_bytes(text: &str, alphabet: &str, allowed: impl Fn(u8) -> bool) -> Result<(), NameError> {
    match text.bytes().enumerate().find(|&(_, byte)| !allowed(byte)) {
        None => Ok(()),
        Some((position, byte)) => Err(NameError::Byte { byte, position, alphabet: alphabet.to_owned() }),
    }
}

fn check_secret(text: &str) -> Result<(), NameError> {
    check_length(text, SECRET_NAME_BYTES_MAX)?;
    check_bytes(text, SECRET_ALPHABET, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-')
    })?;
    for part in text.split('/') {
        match part {
            "" => return Err(NameError::Slash),
            "." | ".." => return Err(NameError::Dots),
            _ => {}
        }
    }
    Ok(())
}

fn check_plain(text: &str, limit: usize) -> Result<(), NameError> {
    check_length(text, limit)?;
    check_bytes(text, PROFILE_ALPHABET, |byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
    })?;
    if text.starts_with(['.', '_', '-']) { Err(NameError::Start) } else { Ok(()) }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a text that keeps the rules of this kind of name.
            ///
            /// # Errors
            /// The first rule that is broken.
            pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name_type! {
    /// The name of a secret: 1 to 256 bytes of `A-Z a-z 0-9 . _ / -`, no empty part, no `.` or `..` part.
    SecretName, check_secret
}

name_type! {
    /// The name of a trust profile: 1 to 64 bytes of `a-z 0-9 . _ -`, starting with a letter or digit.
    /// It is also the name of the folder of the profile's vault.
    ProfileName, |text| check_plain(text, PROFILE_NAME_BYTES_MAX)
}

name_type! {
    /// The name of a daemon on the bus, by the rules of a profile name.
    DaemonName, |text| check_plain(text, DAEMON_NAME_BYTES_MAX)
}

/// `daemon-bus`, as its own service.
pub const BUS: &str = "daemon-bus";
/// `daemon-secrets`, owner of the vaults.
pub const SECRETS: &str = "daemon-secrets";
/// `daemon-profile`, owner of the audit log.
pub const PROFILE: &str = "daemon-profile";
/// `daemon-launcher`, which starts children.
pub const LAUNCHER: &str = "daemon-launcher";
/// Who an unregistered client is in rules and in the audit log.
pub const CLI: &str = "cli";

/// Whether a name belongs to pds itself, so that no daemon of someone else can have it.
#[must_use]
pub fn is_own(name: &str) -> bool {
    name == CLI || name.starts_with("daemon-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secret_names_follow_the_documented_rules() {
        for good in ["a", "A/b-c_d.9", "...a", "a..b", &"x".repeat(256)] {
            assert!(SecretName::parse(good).is_ok(), "{good}");
        }
        let cases: [(&str, NameError); 6] = [
            ("", NameError::Empty),
            ("/a", NameError::Slash),
            ("a/", NameError::Slash),
            ("a//b", NameError::Slash),
            ("a/../b", NameError::Dots),
            ("..", NameError::Dots),
        ];
        for (bad, error) in cases {
            assert_eq!(SecretName::parse(bad), Err(error), "{bad}");
        }
        assert_eq!(SecretName::parse("x".repeat(257)), Err(NameError::TooLong { length: 257, limit: 256 }));
        for bad in ["a b", "a\n", "a\0b", "\u{1b}[0m", "ä", "a=b", "a:b"] {
            assert!(matches!(SecretName::parse(bad), Err(NameError::Byte { .. })), "{bad:?}");
        }
    }

    #[test]
    fn profile_names_are_safe_as_folder_names() {
        for good in ["default", "0", "a.b_c-d", &"p".repeat(64)] {
            assert!(ProfileName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-p", "_p", "A", "a/b", "a b", &"p".repeat(65)] {
            assert!(ProfileName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_name_does_not_come_in_over_the_wire() {
        let bytes = postcard::to_stdvec("a/../b").unwrap();
        assert!(postcard::from_bytes::<SecretName>(&bytes).is_err());
        let bytes = postcard::to_stdvec("a/b").unwrap();
        assert_eq!(postcard::from_bytes::<SecretName>(&bytes).unwrap().as_str(), "a/b");
    }

    proptest! {
        #[test]
        fn no_accepted_secret_name_leaves_its_folder(text in "[A-Za-z0-9./_-]{0,20}") {
            if let Ok(name) = SecretName::parse(text) {
                let path = std::path::Path::new(name.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
