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

/// Edit a secret in your editor, on a file in memory
///
/// The editor is `$VISUAL`, else `$EDITOR`, else vi. The file is in a folder of your own below XDG_RUNTIME_DIR, which has to be a tmpfs, and is removed with all that the
/// editor put beside it. A line feed at the end that only the editor added is left out. Nothing is stored when the editor
/// fails, or when somebody else stored another value meanwhile. Notes and expiry stay.
#[derive(Debug, clap::Args)]
pub(crate) struct EditOptions {
    /// Name of the secret; a new one is made
    pub(crate) name: String,
}

/// Show a secret as a QR code, for a telephone to read
///
/// It is text of up to 2,953 bytes. The window has to be large enough.
#[derive(Debug, clap::Args)]
pub(crate) struct QrOptions {
    /// Name of the secret
    pub(crate) name: String,
    /// Draw it even where standard output is not a terminal
    #[arg(short, long)]
    pub(crate) yes: bool,
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
