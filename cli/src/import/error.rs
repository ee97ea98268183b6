//! Why something was not imported. No text of it holds a value.

use core_types::limits::{IMPORT_BYTES_MAX, IMPORT_SECRETS_MAX};

use crate::env_file::EnvFileError;
use crate::input::InputError;
use crate::prompt::PromptError;

/// Names that are repeated in one message.
const NAMES_SHOWN_MAX: usize = 5;

/// Why something was not imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("{0}")]
    Input(#[from] InputError),
    #[error("{0}")]
    EnvFile(#[from] EnvFileError),
    #[error("{0}")]
    Prompt(#[from] PromptError),
    #[error("it is larger than {} MiB, the most that is read", limit >> 20)]
    TooLarge { limit: usize },
    #[error(
        "it has more than {IMPORT_SECRETS_MAX} secrets or {} MiB, the most that one import takes",
        IMPORT_BYTES_MAX >> 20
    )]
    TooMany,
    /// What is wrong with the source as a whole, and what to do.
    #[error("{problem}")]
    Whole { problem: &'static str, next: &'static str },
    /// What is wrong at one place of it.
    #[error("{place}: {problem}")]
    At { place: String, problem: &'static str },
    #[error("the password of the export is wrong")]
    WrongPassword,
    #[error("gpg cannot decrypt {place}: {reason}")]
    Gpg { place: String, reason: String },
    #[error("{place} cannot be read: {source}")]
    Io { place: String, source: std::io::Error },
    #[error("{} cannot be stored: {}", counted(names.len(), "secret"), listed(names))]
    Invalid { names: Vec<String> },
    #[error("{} would not keep what is there or came before: {}", counted(names.len(), "name"), listed(names))]
    Conflicts { names: Vec<String> },
    #[error("the import could not be handed over: {0}")]
    HandOver(String),
    #[error("{0}")]
    Option(&'static str),
}

impl ImportError {
    /// Something is wrong at one place.
    pub(crate) fn at(place: impl Into<String>, problem: &'static str) -> Self {
        Self::At { place: place.into(), problem }
    }

    /// The source is not JSON, or not the JSON it should be. What the parser says may repeat a value.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        let problem = match error.classify() {
            serde_json::error::Category::Eof => "it ends in the middle",
            serde_json::error::Category::Data => "it is not what such an export has there",
            _ => "it is not JSON",
        };
        Self::at(format!("line {}, column {}", error.line(), error.column()), problem)
    }

    /// What to do next.
    pub(crate) fn next(&self) -> Option<String> {
        Some(match self {
            Self::Input(error) => return error.next(),
            Self::Prompt(PromptError::NoTerminal(_)) => {
                "give the password of the export with --password-fd N or --password-file F".to_owned()
            }
            Self::Prompt(error) => return error.next(),
            Self::EnvFile(EnvFileError::Unreadable(error)) => return error.next(),
            Self::EnvFile(_) => {
                "write one NAME=value a line, in single quotes what has blanks or quotes".to_owned()
            }
            Self::TooLarge { .. } | Self::TooMany => "divide it, and import the parts".to_owned(),
            Self::Whole { next, .. } => (*next).to_owned(),
            Self::At { .. } => "export it again, and see that --format is what it is".to_owned(),
            Self::WrongPassword => "give the password that was chosen for the export".to_owned(),
            Self::Gpg { .. } => {
                "see that `gpg --decrypt` opens it: the key may be missing or locked".to_owned()
            }
            Self::Io { .. } => "see that it exists and that you may read it".to_owned(),
            Self::Invalid { .. } => "--dry-run shows them all; --skip-invalid imports the others".to_owned(),
            Self::Conflicts { .. } => {
                "--dry-run shows them all; choose with --on-conflict skip, replace or rename".to_owned()
            }
            Self::HandOver(_) => return None,
            Self::Option(_) => return None,
        })
    }
}

/// The first of some names, and how many there are more.
fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_SHOWN_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMES_SHOWN_MAX));
    }
    text
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
