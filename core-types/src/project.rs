//! `pds.toml`: what the commands of a project are given, kept beside its sources.
//!
//! It holds names and never a value, so that it can be shared with all who work on the project; each has a vault of his own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::name::{ProfileName, SecretName};
use crate::pattern::Pattern;

/// The name of the file.
pub const PROJECT_FILE: &str = "pds.toml";
/// Largest file, in bytes.
pub const PROJECT_BYTES_MAX: usize = 64 << 10;

/// What a project file says. What it does not say stays as it is without one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Project {
    /// The profile to read from.
    pub profile: Option<ProfileName>,
    /// Which secrets are selected by their own names; none by an empty list.
    pub only: Option<Vec<Pattern>>,
    /// Secrets that become variables of another name, by variable.
    pub env: BTreeMap<String, SecretName>,
    /// Put before the variables made from names.
    pub prefix: Option<String>,
    /// Whether the secrets are files instead of variables, and where.
    pub files: Option<ProjectFiles>,
}

/// `files` of a project file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected true, false, or the path of a folder")]
pub enum ProjectFiles {
    /// In a folder of pds, or not at all.
    Own(bool),
    /// Over this folder.
    Folder(PathBuf),
}

/// Why a project file cannot be used. What stands in it is not repeated: whoever takes it for an env file has values in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    /// Not TOML, or a key or type that is not known.
    #[error("{}{problem}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Syntax {
        /// The line, counted from 1.
        line: Option<usize>,
        /// What is wrong there.
        problem: String,
    },
    /// Variables and files at once.
    #[error("files are asked for, and `env` or `prefix` for variables, which there are none of then")]
    FilesAndVariables,
}

impl Project {
    /// Reads the text of a project file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ProjectError> {
        let project: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| before.matches('\n').count() + 1);
            ProjectError::Syntax { line, problem: without_values(error.message()) }
        })?;
        let has_variables = !project.env.is_empty() || project.prefix.is_some();
        if project.has_files() && has_variables { Err(ProjectError::FilesAndVariables) } else { Ok(project) }
    }

    /// Whether the secrets are files.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !matches!(self.files, None | Some(ProjectFiles::Own(false)))
    }
}

/// The message without what it quotes of a string: a value there may be one that should not be in the file. Keys are
/// quoted otherwise, with backticks.
fn without_values(message: &str) -> String {
    let mut parts = message.split('"');
    let mut kept = parts.next().unwrap_or_default().to_owned();
    if let Some(last) = parts.next_back() {
        kept.push_str("\"...\"");
        kept.push_str(last);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_says_what_it_names_and_nothing_else() {
        assert_eq!(Project::parse(""), Ok(Project::default()));
        let project = Project::parse(
            "profile = 'work'\nonly = ['db/*']\nprefix = 'APP_'\n[env]\nDATABASE_URL = 'db/url'\n",
        )
        .unwrap();
        assert_eq!(project.profile.as_ref().unwrap().as_str(), "work");
        assert_eq!(project.only.as_ref().unwrap()[0].as_str(), "db/*");
        assert_eq!(project.env["DATABASE_URL"].as_str(), "db/url");
        assert_eq!(Project::parse("only = []").unwrap().only, Some(Vec::new()));
        for (text, has_files) in [("files = true", true), ("files = false", false), ("files = 'x'", true)] {
            assert_eq!(Project::parse(text).unwrap().has_files(), has_files, "{text}");
        }
    }

    #[test]
    fn a_fault_is_named_by_its_line_and_no_value_is_repeated() {
        let canary = "c4nary V4LUE";
        for (text, line, told) in [
            (format!("profile = 'work'\nAPI_KEY = '{canary}'"), 2, "API_KEY"),
            (format!("[env]\nX = '{canary}\u{1}'"), 2, ""),
            (format!("\n\nprofile = '{canary}'"), 3, ""),
            (format!("only = '{canary}'"), 1, "sequence"),
            (format!("files = ['{canary}']"), 1, "path of a folder"),
            (format!("API_KEY={canary}"), 1, ""),
            (format!("x = \"{canary}\\\"\n"), 1, ""),
        ] {
            let error = Project::parse(&text).unwrap_err();
            let shown = error.to_string();
            assert!(shown.starts_with(&format!("line {line}: ")) && shown.contains(told), "{text}: {shown}");
            assert!(!shown.contains("c4nary") && !shown.contains("V4LUE"), "{text}: {shown}");
        }
        for text in ["files = true\nprefix = 'A'", "files = 'f'\n[env]\nA = 'b'"] {
            assert_eq!(Project::parse(text), Err(ProjectError::FilesAndVariables));
        }
    }
}
