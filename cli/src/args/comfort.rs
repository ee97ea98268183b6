//! Options of the commands that make the vault pleasant to use at a terminal.

use clap::ValueEnum;

/// Write the script by which a shell completes commands, options, and names of secrets
///
/// bash: `source <(pds completions bash)`. zsh: into a file `_pds` in a folder of `$fpath`. fish: `pds completions fish |
/// source`. `make install` puts all three where the shells look. Names come from an unlocked vault, never a value.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsOptions {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// A shell that completes command lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// bash 4.4 or newer.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}
