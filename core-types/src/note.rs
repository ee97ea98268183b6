//! What a user notes down beside a secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::NOTE_BYTES_MAX;

/// Why a text is not a note; the text itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("it has {bytes} bytes, and at most {NOTE_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// A character that steers a terminal, a line feed among them.
    #[error("it has a control character (the character at {position}, counted from 0)")]
    Control {
        /// Which character.
        position: usize,
    },
}

/// A note on a secret: 1 byte to 1 KiB of text without control characters. It is no secret: listings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Note(String);

impl Note {
    /// Takes a text that can be a note.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        match text.len() {
            0 => return Err(NoteError::Empty),
            bytes if bytes > NOTE_BYTES_MAX => return Err(NoteError::TooLong { bytes }),
            _ => {}
        }
        match text.chars().position(char::is_control) {
            Some(position) => Err(NoteError::Control { position }),
            None => Ok(Self(text)),
        }
    }

    /// The note as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Note {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Note {
    type Error = NoteError;
    fn try_from(text: String) -> Result<Self, NoteError> {
        Self::parse(text)
    }
}

impl From<Note> for String {
    fn from(note: Note) -> Self {
        note.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_a_line_of_text_up_to_its_limit() {
        for good in ["x", "rotate after the audit, see wiki/Schlüssel", &"x".repeat(NOTE_BYTES_MAX)] {
            assert_eq!(Note::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Note::parse(""), Err(NoteError::Empty));
        let long = "x".repeat(NOTE_BYTES_MAX + 1);
        assert_eq!(Note::parse(long), Err(NoteError::TooLong { bytes: NOTE_BYTES_MAX + 1 }));
        for (bad, position) in [("a\nb", 1), ("\x1b[31m", 0), ("ä\u{9b}", 1), ("\0", 0), ("ab\x7f", 2)] {
            assert_eq!(Note::parse(bad), Err(NoteError::Control { position }));
        }
    }
}
