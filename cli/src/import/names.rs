//! Names from elsewhere as names of secrets, and back: what a name cannot hold becomes `_`, and the note beside the
//! secret keeps what it was called.

use core_types::limits::{NOTE_BYTES_MAX, SECRET_NAME_BYTES_MAX};
use core_types::{Note, SecretName};
use sha2::{Digest as _, Sha256};

/// How the note begins that keeps a name.
const MARK: &str = "imported as ";
/// Bytes of the end that tells names apart which were cut: `-` and 8 hex digits.
const END_BYTES: usize = 9;

/// A name as it can be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) name: String,
    /// The note that keeps the original, where the name does not.
    pub(crate) note: Option<Note>,
}

/// The name that an original gets below a prefix.
///
/// # Errors
/// Why there is none.
pub(crate) fn mapped(original: &str, prefix: &str) -> Result<Mapped, String> {
    let plain: Vec<String> = original.split('/').map(part).collect();
    let plain = plain.join("/");
    let mut name = format!("{prefix}{plain}");
    let is_cut = name.len() > SECRET_NAME_BYTES_MAX;
    if is_cut {
        let hash = Sha256::digest(original.as_bytes());
        let end: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let kept = name.get(..SECRET_NAME_BYTES_MAX - END_BYTES).unwrap_or_default();
        name = format!("{}-{end}", kept.trim_end_matches('/'));
    }
    SecretName::parse(name.as_str()).map_err(|error| format!("its name cannot be used: {error}"))?;
    let note = if plain == original && !is_cut { None } else { Some(note(original)?) };
    Ok(Mapped { name, note })
}

/// The note that keeps an original name.
///
/// # Errors
/// Why there is none.
pub(crate) fn note(original: &str) -> Result<Note, String> {
    let quoted = serde_json::to_string(original).unwrap_or_default();
    let mut text = String::from(MARK);
    for character in quoted.chars() {
        match character {
            // JSON leaves these as they are, and a note does not.
            other if other.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(other))),
            other => text.push(other),
        }
    }
    Note::parse(text).map_err(|_| format!("its name is longer than {NOTE_BYTES_MAX} bytes as a note"))
}

/// The original name that a note keeps.
pub(crate) fn original(note: &Note) -> Option<String> {
    serde_json::from_str(note.as_str().strip_prefix(MARK)?).ok()
}

fn part(text: &str) -> String {
    match text {
        "" | "." => "_".to_owned(),
        ".." => "__".to_owned(),
        text => text
            .chars()
            .map(|character| match character {
                'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-' => character,
                _ => '_',
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(original: &str) -> (String, Option<String>) {
        let Mapped { name, note } = mapped(original, "").unwrap();
        (name, note.map(|note| super::original(&note).unwrap()))
    }

    #[test]
    fn what_is_a_name_stays_and_the_rest_is_kept_in_the_note() {
        assert_eq!(both("DB_URL"), ("DB_URL".to_owned(), None));
        assert_eq!(both("a/b.c-d"), ("a/b.c-d".to_owned(), None));
        for (original, name) in [
            ("My Login/password", "My_Login/password"),
            ("a\u{1f511}\u{85}\u{7f}\n\"\\", "a______"),
            ("../..", "__/__"),
            (".", "_"),
            ("", "_"),
            ("/a//b/", "_/a/_/b/_"),
        ] {
            assert_eq!(both(original), (name.to_owned(), Some(original.to_owned())), "{original:?}");
        }
        assert_eq!(mapped("a", "in/").unwrap(), Mapped { name: "in/a".to_owned(), note: None });
        assert!(mapped("a", "/").is_err());
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (one, other) = (both(&format!("{}a", "x".repeat(300))), both(&format!("{}b", "x".repeat(300))));
        assert_eq!((one.0.len(), other.0.len()), (256, 256));
        assert_ne!(one.0, other.0);
        assert!(one.1.is_some_and(|original| original.ends_with('a')));
        assert!(both(&"ab/".repeat(99)).0.len() <= 256);
        assert!(mapped(&"x".repeat(2_000), "").is_err());
    }
}
