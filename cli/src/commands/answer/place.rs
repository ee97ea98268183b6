//! Names of secrets after hosts, servers, users and files, none of which is trusted.
//!
//! A part of a name keeps letters, digits, `.`, `_` and `-`; every other byte becomes `_` and two hex digits in capitals, and
//! so does a `_` that would begin such an escape. So different parts stay different, none is `.` or `..`, and none brings
//! a `/` with it.

use core_types::SecretName;

use super::HelperError;

/// Longest part that is looked at, in bytes.
const PART_BYTES_MAX: usize = 1024;
/// The part that stands for nothing at all, such as the user whom some servers do not ask for.
const EMPTY: &str = "_";

/// A part of a name.
///
/// # Errors
/// It is too long, or has control characters, which no host, path or user has and which end lines in the protocols.
pub(super) fn part(text: &str) -> Result<String, HelperError> {
    if text.len() > PART_BYTES_MAX {
        return Err(HelperError::Place("it is too long"));
    }
    if text.chars().any(char::is_control) {
        return Err(HelperError::Place("it has control characters"));
    }
    if text.is_empty() {
        return Ok(EMPTY.to_owned());
    }
    let dots = text == "." || text == "..";
    let mut part = String::with_capacity(3 * text.len());
    for (position, byte) in text.bytes().enumerate() {
        let kept = match byte {
            b'.' => !dots,
            b'_' => text != EMPTY && escaped(&text.as_bytes()[position..]).is_none(),
            _ => byte == b'-' || byte.is_ascii_alphanumeric(),
        };
        if kept { part.push(char::from(byte)) } else { part.push_str(&format!("_{byte:02X}")) }
    }
    Ok(part)
}

/// The byte whose escape begins here.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'_', high, low, ..] = text else { return None };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// What a part was made of; `None` where it is not one that [`part`] makes.
pub(super) fn text(made: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(made.len());
    let mut rest = if made == EMPTY { &[] } else { made.as_bytes() };
    while let Some((first, after)) = rest.split_first() {
        match escaped(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (part(&text).ok()? == made).then_some(text)
}

/// A path as parts; empty ones are left out.
///
/// # Errors
/// As [`part`].
pub(super) fn parts(path: &str) -> Result<Vec<String>, HelperError> {
    path.split('/').filter(|part| !part.is_empty()).map(part).collect()
}

/// A name of these parts.
///
/// # Errors
/// It is too long.
pub(super) fn name(parts: &[&str]) -> Result<SecretName, HelperError> {
    SecretName::parse(parts.join("/")).map_err(|_| HelperError::Place("its name would be too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_back_and_are_always_parts_of_a_name() {
        for original in [
            "github.com",
            "a@b.example",
            "host:8080",
            "",
            ".",
            "..",
            "...",
            "a_b",
            "_",
            "ü/ö",
            "<token>",
            "~",
            "x y",
            "a_2F",
            "_5F",
            "id_ed25519",
            "__2E_",
        ] {
            let made = part(original).unwrap();
            assert_eq!(text(&made).as_deref(), Some(original));
            assert_eq!(name(&["git", &made]).unwrap().as_str(), format!("git/{made}"));
        }
        assert_eq!(part("host:8080").unwrap(), "host_3A8080");
    }

    #[test]
    fn what_is_no_part_is_not_read_as_one() {
        for wrong in ["_61", "_FF", "_C3", "a+b", "a_2E", "a/b", "_0A", ""] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn control_characters_name_nothing() {
        for wrong in ["a\nhost=b", "a\r", "a\0b", "\x1b[1m", "a\u{85}b", "a\u{7f}"] {
            assert!(part(wrong).is_err());
        }
        assert!(part(&"x".repeat(1025)).is_err());
        assert!(name(&["git", &"x".repeat(257)]).is_err());
    }

    #[test]
    fn a_path_has_no_empty_parts_and_does_not_climb() {
        assert_eq!(parts("/a//b.git/../c").unwrap(), ["a", "b.git", "_2E_2E", "c"]);
        assert!(parts("").unwrap().is_empty());
    }
}
