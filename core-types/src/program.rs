//! A program by its file: how rules and `pds run --pin` name the one that may have a secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What stands before a digest on the command line.
const ALGORITHM: &str = "blake3:";

/// Why a text is not the digest of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not blake3: and 64 hex digits, as b3sum(1) and `pds run --pin` print them")]
pub struct NotADigest;

/// The BLAKE3 hash of all bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageDigest([u8; 32]);

impl ImageDigest {
    /// The digest with these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHM)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ImageDigest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.strip_prefix(ALGORITHM).ok_or(NotADigest)?.as_bytes();
        let (pairs, []) = digits.as_chunks::<2>() else { return Err(NotADigest) };
        let byte = |pair: &[u8; 2]| {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some(digit(pair[0])? << 4 | digit(pair[1])?)
        };
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(NotADigest)
    }
}

impl TryFrom<String> for ImageDigest {
    type Error = NotADigest;
    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<ImageDigest> for String {
    fn from(digest: ImageDigest) -> Self {
        digest.to_string()
    }
}

/// A program: where its file lies, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The file by its whole path, links followed.
    pub path: String,
    /// All that is in it.
    pub image: ImageDigest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written_and_nothing_else_is() {
        let digest = ImageDigest::new(std::array::from_fn(|place| u8::try_from(place * 7 % 256).unwrap()));
        let text = digest.to_string();
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.to_uppercase().replace("BLAKE3", "blake3").parse(), Ok(digest));
        let digits = &text[ALGORITHM.len()..];
        for bad in ["", digits, "blake3:", "sha256:00", &text[..text.len() - 1], &format!("{text}0")] {
            assert_eq!(bad.parse::<ImageDigest>(), Err(NotADigest), "{bad}");
        }
        for bad in ["+", " ", "g", "é"] {
            assert!(format!("blake3:{}{bad}", &digits[..64 - bad.len()]).parse::<ImageDigest>().is_err());
        }
    }
}
