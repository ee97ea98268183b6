//! Options of the commands by which secrets move in and out: `pds import` and `pds export`.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;

use super::{EnvFormat, PasswordOptions, SelectionOptions};

/// Take over the secrets of another program, all at once or none
///
/// What a login has beside its password becomes a secret of its own: ITEM/username, ITEM/password, ITEM/url, ITEM/totp,
/// ITEM/notes. pds-import-export(7) says more.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportOptions {
    /// What FILE is
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) format: ImportFormat,
    /// The file (`-` is standard input); of pass: the folder of the store
    #[arg(value_name = "FILE")]
    pub(crate) source: PathBuf,
    /// Only show what would become of each secret
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// What becomes of a name that has another value already [default: ask on a terminal, else fail]
    #[arg(long, value_name = "POLICY", value_enum)]
    pub(crate) on_conflict: Option<Policy>,
    /// Put this before each name
    #[arg(long, value_name = "X", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Leave out what cannot be stored, rather than store nothing
    #[arg(long)]
    pub(crate) skip_invalid: bool,
    /// Remove FILE when everything in it is in the vault
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) remove_source: bool,
    #[command(flatten)]
    pub(crate) password: PasswordOptions,
}

/// What `pds import` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    /// Lines NAME=value.
    Dotenv,
    /// An object of names and values; objects in it become folders.
    Json,
    /// An export of Bitwarden as .json, also one that is protected with a password of its own.
    Bitwarden,
    /// An export of 1Password.
    #[value(name = "1pux")]
    OnePux,
    /// An export of KeePass or KeePassXC as XML.
    KeepassXml,
    /// The folder of a store of pass(1), read with gpg.
    Pass,
}

/// What becomes of a name that has another value already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// What is there stays.
    Skip,
    /// The new value becomes its next version.
    Replace,
    /// Nothing at all is imported.
    Fail,
    /// The new one gets a name with a number.
    Rename,
}

/// Options of `pds export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportOptions {
    /// Who shall read it
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) format: ExportFormat,
    #[command(flatten)]
    pub(crate) selected: SelectionOptions,
    /// Write into this file, with mode 0600, rather than to standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Of json: the names that secrets had where they were imported from
    #[arg(long)]
    pub(crate) original_names: bool,
    /// Of kubernetes: the name of the Secret [default: the profile's]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// What `pds export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// python-dotenv, dotenvy and `--env-file`.
    Dotenv,
    /// sh, dash, bash, zsh and direnv.
    Shell,
    /// fish.
    Fish,
    /// One object of all names and values, which `pds import --format json` reads back.
    Json,
    /// `docker run --env-file`: no value of several lines.
    Docker,
    /// A Secret as YAML: `kubectl apply -f`.
    Kubernetes,
}

impl ExportFormat {
    /// The format of `pds env` that is the same.
    pub(crate) fn as_variables(self) -> Option<EnvFormat> {
        match self {
            Self::Dotenv => Some(EnvFormat::Dotenv),
            Self::Shell => Some(EnvFormat::Shell),
            Self::Fish => Some(EnvFormat::Fish),
            Self::Docker => Some(EnvFormat::Docker),
            Self::Json | Self::Kubernetes => None,
        }
    }
}

impl fmt::Display for ImportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("", |name| name.get_name()))
    }
}
