//! Options of `pds scan`.

use std::path::PathBuf;

/// Look for values and tokens in files, in what git keeps, and in histories of shells.
///
/// Looked for are the values of all unlocked profiles, or of those that -p names, and well-known kinds of tokens. A value is found as it is and as base64, hex digits, percent-encoded and in JSON. Only files, lines, names and kinds are
/// printed. In a repository of git, what git ignores is left out. Exit code 0: nothing is there; 1: something is, or not
/// all could be looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct ScanOptions {
    /// A file, a folder or a repository [default: the current folder]
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
    /// Look at what is staged to be committed, as a pre-commit hook does
    #[arg(long, conflicts_with_all = ["history", "shell_history"])]
    pub(crate) staged: bool,
    /// Look at all that git keeps of any branch and tag
    #[arg(long, conflicts_with = "shell_history")]
    pub(crate) history: bool,
    /// Look at what bash, zsh and fish remember of your commands
    #[arg(long, conflicts_with = "path")]
    pub(crate) shell_history: bool,
}
