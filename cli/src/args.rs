//! What may stand on the command line, and nothing of what it does.

mod answer;
mod comfort;
mod generate;
mod mount;
mod scan;
mod transfer;

use std::ffi::OsString;
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args as _, FromArgMatches, Subcommand, ValueEnum};
use core_ipc::wire::PublicKey;
use core_types::access::AccessOperation;
use core_types::factor::{FactorLabel, FactorPolicy, LabelError};
use core_types::grant::{GrantId, NotAGrantId};
use core_types::limits::{AUDIT_PAGE_MAX, DEADLINE_MS_MAX, FACTORS_MAX, GRANT_USES_MAX};
use core_types::pattern::Pattern;
use core_types::program::{ImageDigest, NotADigest};
use core_types::protocol::explanation::{Asker, AskerError};
use core_types::protocol::launcher::Mapping;
use core_types::reference::SecretReference;
use core_types::{DaemonName, NameError, Note, NoteError, ProfileName, SecretName};
use jiff::Timestamp;

use crate::error::Usage;
use crate::expiry;
use crate::lazy::commands;
use crate::picker;

pub(crate) use self::answer::HelperCommand;
pub(crate) use self::comfort::{CompletionsOptions, EditOptions, QrOptions, Shell};
pub(crate) use self::mount::{MountOptions, UmountOptions};
pub(crate) use self::scan::ScanOptions;
pub(crate) use self::transfer::{ExportFormat, ExportOptions, ImportFormat, ImportOptions, Policy};

/// What a command line says.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) options: Options,
    pub(crate) command: Command,
}

impl Args {
    /// The description of every command line.
    pub(crate) fn description() -> clap::Command {
        Command::augment_subcommands(Self::without_commands())
    }

    /// The description of this command line: only those commands are in it whose names are among its words, because to
    /// describe all of them takes longer than most else that a short command does. Where it says that a line is in
    /// order, the whole description says the same; where not, that one is to be asked what is wrong.
    fn short_description(line: &[OsString]) -> clap::Command {
        Command::augment_named(Self::without_commands(), line)
    }

    fn without_commands() -> clap::Command {
        let root = Options::augment_args(clap::Command::new("pds"));
        root.version(env!("CARGO_PKG_VERSION"))
            .about("Keeps secrets in encrypted vaults and hands them to exactly the program that needs them")
            .after_help(EXIT_CODES)
            .disable_help_subcommand(true)
            .subcommand_required(true)
            .arg_required_else_help(true)
    }

    fn of(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let options = Options::from_arg_matches(matches)?;
        Ok(Self { options, command: Command::from_arg_matches(matches)? })
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done                      6  rate limited
  1  something else failed     7  no daemon, or no answer in time
  2  wrong usage               8  wrong password or other factor
  3  the profile is locked     9  the vault or the audit log is damaged
  4  no such secret, profile  10  it exists already
  5  denied by a rule
pds run: the command's own, 128+n when signal n ended it, 125 not started,
  126 not executable, 127 not found";

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Profile to use [default: PDS_PROFILE, then `default_profile` of the configuration, then "default"]
    #[arg(short, long = "profile", value_name = "NAME", global = true)]
    pub(crate) profiles: Vec<ProfileName>,
    /// Print data as one JSON object
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more of what is done
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// When to use colour
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto", global = true)]
    pub(crate) color: Colour,
    /// Longest time to wait for an answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, global = true)]
    pub(crate) timeout: Option<Duration>,
    /// Do not start the daemons when they are not running
    #[arg(long, env = "PDS_NO_START", hide_env_values = true, value_parser = FalseyValueParser::new(), global = true)]
    pub(crate) no_start: bool,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

commands! {
    /// Make a vault; its profile is unlocked afterwards
    "init" => Init { options PasswordOptions },
    /// Make the secrets of a profile readable
    "unlock" => Unlock { options UnlockOptions },
    /// Forget the keys of a profile (with -p) or of all profiles
    "lock" => Lock,
    /// Wait until a profile is unlocked
    "wait" => Wait { options WaitOptions },
    /// Show profiles, their lock state, and the daemons
    "status" => Status,
    /// Write the encrypted vault into one file, from which it can be restored
    "backup" => Backup { options BackupOptions },
    /// Make a vault of a backup, or put it in the place of the one there is
    "restore-backup" => RestoreBackup { options RestoreBackupOptions },
    /// Check the machine and the installation, and say what to do
    "doctor" => Doctor,
    /// Write the manual pages of all commands, formats and guides
    "man" => Man { options ManOptions },
    /// Write the script by which a shell completes commands, options, and names of secrets
    "completions" => Completions { options CompletionsOptions },
    /// Store a secret: standard input byte for byte, or what is typed at a hidden prompt
    "set" => Set { options SetOptions },
    /// Write the value of a secret to standard output
    "get" => Get { options GetOptions },
    /// Edit a secret in your editor, on a file in memory
    "edit" => Edit { options EditOptions },
    /// Show a secret as a QR code, for a telephone to read
    "qr" => Qr { options QrOptions },
    /// Write the one-time code of now, of a secret that makes such codes
    "totp" => Totp { options TotpOptions },
    /// List names of secrets, never values
    "list" => List { options ListOptions },
    /// Remove secrets; they can be restored until they are purged
    "rm" => Rm { options RmOptions },
    /// Give a secret another name
    "mv" => Mv { options MvOptions },
    /// List the versions of a secret, also of a removed one
    "history" => History { options HistoryOptions },
    /// Bring back a removed secret, or an old version as a new one
    "restore" => Restore { options RestoreOptions },
    /// Delete the old versions of a secret for good, or all that is left of a removed one
    "purge" => Purge { options PurgeOptions },
    /// Run a command with secrets in its environment
    "run" => Run { options RunOptions },
    /// Write the value that a reference pds://PROFILE/NAME leads to
    "read" => Read { options ReadOptions },
    /// Fill the references of a template: `{{ pds://PROFILE/NAME }}`
    "inject" => Inject { options InjectOptions },
    /// Print assignments of the variables that `pds run` would set
    "env" => Env { options EnvOptions },
    /// What git, docker, cargo and ssh ask for secrets with
    "helper" => Helper { group HelperCommand },
    /// Look for values and tokens in files, in what git keeps, and in histories of shells
    "scan" => Scan { options ScanOptions },
    /// Take over the secrets of another program, all at once or none
    "import" => Import { options ImportOptions },
    /// Write the values of secrets for another program, exactly or not at all
    "export" => Export { options ExportOptions },
    /// List the programs that run with secrets, and the names of these
    "ps" => Ps,
    /// Put secrets into a folder as files, for containers that are started later
    "mount" => Mount { options MountOptions },
    /// Remove what `pds mount` put into a folder
    "umount" => Umount { options UmountOptions },
    /// Change the password of a profile
    "passwd" => Passwd { options PasswdOptions },
    /// Give a vault new keys, with all that is in it
    "rekey" => Rekey { options ProofOptions },
    /// The ways to unlock a profile
    "factor" => Factor { group FactorCommand },
    /// A way to unlock that is written on paper
    "recovery" => Recovery { group RecoveryCommand },
    /// Let a daemon of someone else on the bus, under a name that access rules can use
    "enroll" => Enroll { options EnrollOptions },
    /// List the daemons that were let on the bus
    "enrolled" => Enrolled,
    /// Refuse an enrolled daemon from now on, and end its connections
    "revoke" => Revoke { options RevokeOptions },
    /// Let an enrolled daemon read for some time, or so often, what its rules leave it without
    "grant" => Grant { options GrantOptions },
    /// List the grants, also those that ended a short while ago
    "grants" => Grants,
    /// Take a grant back
    "revoke-grant" => RevokeGrant { options RevokeGrantOptions },
    /// Say which gate would say what of an attempt, and why; reads nothing and counts as none
    "explain" => Explain { options ExplainOptions },
    /// The configuration
    "config" => Config { group ConfigCommand },
    /// Profiles
    "profile" => Profile { group ProfileCommand },
    /// The audit log
    "audit" => Audit { group AuditCommand },
    /// The daemons: start, end and restart them, and read what they log
    "daemon" => Daemon { group DaemonCommand },
}

/// Options of `pds wait`.
#[derive(Debug, clap::Args)]
pub(crate) struct WaitOptions {
    /// Go on until it is locked again; the service `pds-unlocked@PROFILE` does
    #[arg(long)]
    pub(crate) hold: bool,
}

/// Options of `pds backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupOptions {
    /// The file
    pub(crate) file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Options of `pds man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManOptions {
    /// A folder of manual pages, like /usr/local/share/man; its folders man1, man5 and man7 are made
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

/// Options of `pds get`.
#[derive(Debug, clap::Args)]
pub(crate) struct GetOptions {
    /// Name of the secret [on a terminal: chosen from a list]
    pub(crate) name: Option<String>,
    /// An older version, by its number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) version: Option<u64>,
}

/// Write the one-time code of now (RFC 6238), of a secret that makes such codes.
///
/// The secret is base32 as a service shows it, or the address `otpauth://totp/...` of its QR code.
#[derive(Debug, clap::Args)]
pub(crate) struct TotpOptions {
    /// Name of the secret
    pub(crate) name: String,
}

/// Options of `pds list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListOptions {
    /// Only names that match; `*` stands for any characters
    #[arg(value_parser = pattern)]
    pub(crate) pattern: Option<Pattern>,
    /// Add times, versions, expiry and notes
    #[arg(long)]
    pub(crate) long: bool,
}

/// Options of `pds rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct RmOptions {
    /// Names of the secrets
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Options of `pds mv`.
#[derive(Debug, clap::Args)]
pub(crate) struct MvOptions {
    /// The name it has
    #[arg(value_name = "OLD")]
    pub(crate) from: String,
    /// The name it gets
    #[arg(value_name = "NEW")]
    pub(crate) to: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Options of `pds history`.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryOptions {
    /// Name of the secret
    pub(crate) name: String,
}

/// Options of `pds restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreOptions {
    /// Name of the secret
    pub(crate) name: String,
    /// Number of the version to bring back
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) version: Option<u64>,
}

/// Options of `pds purge`.
#[derive(Debug, clap::Args)]
pub(crate) struct PurgeOptions {
    /// Name of the secret
    pub(crate) name: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Options of `pds enroll`.
#[derive(Debug, clap::Args)]
pub(crate) struct EnrollOptions {
    /// The name it gets
    #[arg(value_parser = daemon_name)]
    pub(crate) name: DaemonName,
    /// Write its new key into this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Enroll this public key of 64 hex digits, whose private half the daemon keeps
    #[arg(long, value_name = "HEX", conflicts_with = "key_file", value_parser = public_key)]
    pub(crate) public_key: Option<PublicKey>,
}

/// Options of `pds revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeOptions {
    /// Its name
    #[arg(value_parser = daemon_name)]
    pub(crate) name: DaemonName,
}

/// Let an enrolled daemon read for some time, or so often, what its rules leave it without.
///
/// A rule that denies wins over a grant. A grant ends at the latest when its profile is locked or `daemon-secrets` ends,
/// and lets nothing through but `get` of the value that is kept now. A use is spent when the value has left.
#[derive(Debug, clap::Args)]
pub(crate) struct GrantOptions {
    /// Name of the secret; `*` stands for any characters
    #[arg(value_name = "NAME", value_parser = pattern)]
    pub(crate) pattern: Pattern,
    /// The enrolled daemon
    #[arg(long, value_name = "REQUESTER", value_parser = daemon_name)]
    pub(crate) to: DaemonName,
    /// How long, such as 10m or 2h, up to 30d [default: 10m]
    #[arg(long = "for", value_name = "TIME", value_parser = expiry::parse_seconds)]
    pub(crate) seconds: Option<u64>,
    /// For how many values, besides
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=GRANT_USES_MAX))]
    pub(crate) uses: Option<u64>,
}

/// Options of `pds revoke-grant`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeGrantOptions {
    /// Which, as `pds grants` shows it
    #[arg(value_name = "ID", value_parser = grant_id)]
    pub(crate) id: GrantId,
}

/// Options of `pds explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainOptions {
    /// Name of the secret
    pub(crate) name: String,
    /// Who would ask: `cli`, `daemon-launcher`, an enrolled daemon, or `unit:NAME` for a unit of systemd [default: you, at the
    /// command line]
    #[arg(long = "as", value_name = "REQUESTER", value_parser = asker)]
    pub(crate) requester: Option<Asker>,
    /// For what
    #[arg(long, value_name = "OPERATION", value_enum, default_value = "get")]
    pub(crate) operation: ExplainedOperation,
}

/// What `pds explain` is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainedOperation {
    /// Reading its value.
    Get,
    /// Seeing its name in a listing.
    List,
    /// Storing a value under it.
    Set,
    /// Removing it.
    Delete,
    /// Giving it to a program with `pds run`.
    Run,
}

impl From<ExplainedOperation> for AccessOperation {
    fn from(operation: ExplainedOperation) -> Self {
        match operation {
            ExplainedOperation::Get => Self::Get,
            ExplainedOperation::List => Self::List,
            ExplainedOperation::Set => Self::Set,
            ExplainedOperation::Delete => Self::Delete,
            ExplainedOperation::Run => Self::Run,
        }
    }
}

/// Where a password comes from, when not from the terminal.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PasswordOptions {
    /// Read the password (of `passwd`: the one it has) from this descriptor
    #[arg(long = "password-fd", value_name = "N", conflicts_with = "file")]
    pub(crate) descriptor: Option<u32>,
    /// Read the password from this file (`-` is standard input)
    #[arg(long = "password-file", value_name = "F")]
    pub(crate) file: Option<PathBuf>,
}

/// Where a recovery code comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct CodeOptions {
    /// Ask for the recovery code rather than for the password
    #[arg(long)]
    pub(crate) recovery: bool,
    /// Read the words of the recovery code from this descriptor
    #[arg(long = "code-fd", value_name = "N", conflicts_with = "code_file")]
    pub(crate) code_descriptor: Option<u32>,
    /// Read the words of the recovery code from this file (`-` is standard input)
    #[arg(long, value_name = "F")]
    pub(crate) code_file: Option<PathBuf>,
}

/// Where the factors come from that a command has to present.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProofOptions {
    #[command(flatten)]
    pub(crate) password: PasswordOptions,
    #[command(flatten)]
    pub(crate) code: CodeOptions,
}

/// Options of `pds restore-backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct RestoreBackupOptions {
    /// The file that `pds backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) backup: PathBuf,
    #[command(flatten)]
    pub(crate) proofs: ProofOptions,
    /// Do not ask before a vault is replaced
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Options of `pds unlock`.
#[derive(Debug, clap::Args)]
pub(crate) struct UnlockOptions {
    #[command(flatten)]
    pub(crate) proofs: ProofOptions,
    /// Take a vault that is not as it was left, but an older one, for the right one from now on
    #[arg(long)]
    pub(crate) accept_rollback: bool,
}

/// Options of `pds passwd`.
#[derive(Debug, clap::Args)]
pub(crate) struct PasswdOptions {
    #[command(flatten)]
    pub(crate) old: ProofOptions,
    #[command(flatten)]
    pub(crate) new: NewPasswordOptions,
    /// Which password, where the profile has several (`pds factor list`)
    #[arg(long, value_name = "ID")]
    pub(crate) factor: Option<u32>,
}

/// Where the new password of `pds passwd` comes from, when not from the terminal.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NewPasswordOptions {
    /// Read the new password from this descriptor
    #[arg(long = "new-password-fd", value_name = "N", conflicts_with = "new_file")]
    new_descriptor: Option<u32>,
    /// Read the new password from this file (`-` is standard input)
    #[arg(long = "new-password-file", value_name = "F")]
    new_file: Option<PathBuf>,
}

impl NewPasswordOptions {
    /// The same as a source of any password.
    pub(crate) fn source(&self) -> PasswordOptions {
        PasswordOptions { descriptor: self.new_descriptor, file: self.new_file.clone() }
    }
}

/// Commands over the ways to unlock.
#[derive(Debug, Subcommand)]
pub(crate) enum FactorCommand {
    /// List them
    List,
    /// Add one
    #[command(subcommand)]
    Add(AddCommand),
    /// Remove one
    Remove {
        /// Its number (`pds factor list`)
        #[arg(value_name = "ID")]
        factor: u32,
        #[command(flatten)]
        proofs: ProofOptions,
    },
    /// Set which of them are needed
    Policy {
        /// `any`, `all`, or how many
        #[arg(value_parser = policy)]
        policy: PolicyArgument,
        #[command(flatten)]
        proofs: ProofOptions,
    },
}

/// Kinds of ways to unlock that `pds factor add` makes.
#[derive(Debug, Subcommand)]
pub(crate) enum AddCommand {
    /// A key that the running ssh-agent holds; whoever may use the agent can unlock with it
    SshAgent {
        /// Which key: its fingerprint, its comment, or a file with the public key
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        #[command(flatten)]
        options: AddOptions,
    },
    /// Another password
    Password {
        #[command(flatten)]
        new: NewPasswordOptions,
        #[command(flatten)]
        options: AddOptions,
    },
}

/// Options of everything that `pds factor add` adds.
#[derive(Debug, clap::Args)]
pub(crate) struct AddOptions {
    /// What it is called in lists
    #[arg(long, value_name = "TEXT", value_parser = label)]
    pub(crate) label: Option<FactorLabel>,
    #[command(flatten)]
    pub(crate) proofs: ProofOptions,
}

/// Commands over the recovery code.
#[derive(Debug, Subcommand)]
pub(crate) enum RecoveryCommand {
    /// Make one and show its words, once
    New {
        /// Write the words even where standard output is not a terminal
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        proofs: ProofOptions,
    },
    /// Tell whether words are the profile's recovery code; unlocks nothing
    Check {
        #[command(flatten)]
        code: CodeOptions,
    },
    /// Unlock with it, and set a new password if wanted
    Use {
        #[command(flatten)]
        code: CodeOptions,
    },
}

/// Which factors shall be needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PolicyArgument(pub(crate) FactorPolicy);

/// Options of `pds set`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetOptions {
    /// Name of the secret
    pub(crate) name: String,
    /// Read the value from this file (`-` is standard input)
    #[arg(long, value_name = "F")]
    pub(crate) file: Option<PathBuf>,
    /// Remove one line feed from the end of the value
    #[arg(long)]
    pub(crate) trim: bool,
    #[command(flatten)]
    pub(crate) generated: generate::GenerateOptions,
    /// Give the value no more after this time: `30d`, `12h`, or a date or time such as `2030-12-31` (in UTC)
    #[arg(long, value_name = "WHEN", value_parser = expiry::parse)]
    pub(crate) expires: Option<Timestamp>,
    /// Note this down beside it, for listings; it is no secret
    #[arg(long, value_name = "TEXT", value_parser = note)]
    pub(crate) note: Option<Note>,
}

/// Options of `pds read`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadOptions {
    /// The reference
    #[arg(value_name = "REFERENCE", value_parser = SecretReference::parse)]
    pub(crate) reference: SecretReference,
}

/// Options of `pds inject`.
#[derive(Debug, clap::Args)]
pub(crate) struct InjectOptions {
    /// The template [default: standard input]
    #[arg(short, long = "in", value_name = "TEMPLATE")]
    pub(crate) input: Option<PathBuf>,
    /// The file that gets the filled template, with mode 0600 [default: standard output]
    #[arg(short, long = "out", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Options of `pds env`.
#[derive(Debug, clap::Args)]
pub(crate) struct EnvOptions {
    #[command(flatten)]
    pub(crate) selected: SelectionOptions,
    /// Do not go by the pds.toml of the working directory or a folder above
    #[arg(long)]
    pub(crate) no_project: bool,
    /// Who shall read it
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "shell")]
    pub(crate) format: EnvFormat,
}

/// What `pds env` writes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvFormat {
    /// sh, dash, bash, zsh and direnv: `eval "$(pds env)"`.
    Shell,
    /// python-dotenv, dotenvy and `--env-file`.
    Dotenv,
    /// One object.
    Json,
    /// `docker run --env-file`: no value of several lines.
    Docker,
    /// fish: `pds env --format fish | source`.
    Fish,
}

impl fmt::Display for EnvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("", |name| name.get_name()))
    }
}

/// Which secrets become variables.
#[derive(Debug, clap::Args)]
pub(crate) struct SelectionOptions {
    /// Only these secrets, with commas between; `*` stands for any characters
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = pattern)]
    pub(crate) only: Vec<Pattern>,
    /// No secret by its own name: only what --env and references say
    #[arg(long, conflicts_with = "only")]
    pub(crate) none: bool,
    /// Put the secret NAME into the variable VAR, besides
    #[arg(long = "env", value_name = "VAR=NAME", value_parser = mapping)]
    pub(crate) mappings: Vec<Mapping>,
    /// Put this before each variable made from a name
    #[arg(long, value_name = "X")]
    pub(crate) prefix: Option<String>,
    /// Take the variables of this file too, in dotenv format; a value pds://PROFILE/NAME is replaced by the secret
    #[arg(long = "env-file", value_name = "F")]
    pub(crate) env_files: Vec<PathBuf>,
}

/// Options of `pds run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) selected: SelectionOptions,
    /// Do not go by the pds.toml of the working directory or a folder above
    #[arg(long)]
    pub(crate) no_project: bool,
    /// Hand on the secret NAME as an open file, its descriptor's number in the variable with `_FD` at its end
    #[arg(long = "fd", value_name = "NAME", value_parser = secret_name)]
    pub(crate) descriptors: Vec<SecretName>,
    /// Hand on the secret NAME as standard input
    #[arg(long, value_name = "NAME", value_parser = secret_name)]
    pub(crate) stdin: Option<SecretName>,
    /// Lay the secrets over the folder DIR as files that the command alone sees, and make no variables of them
    ///
    /// A secret NAME is the file NAME, `/` standing between folders; PDS_SECRETS_DIR tells the command the folder. Where the
    /// kernel lets this user hide no folder, it is one without DIR that other programs of the user can read, and pds says so.
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with_all = ["mappings", "prefix", "here"])]
    pub(crate) files: Option<Option<PathBuf>>,
    /// The user and group that the files belong to, as numbers
    #[arg(long, value_name = "UID:GID", value_parser = owner, requires = "files")]
    pub(crate) owner: Option<(u32, u32)>,
    /// Start the command only if this is in its file, and start just what was read there: blake3: and 64 hex digits
    #[arg(long, value_name = "blake3:HEX", value_parser = image_digest)]
    pub(crate) pin: Option<ImageDigest>,
    /// Write [REDACTED] in the place of every value that the command writes, also encoded
    #[arg(long, conflicts_with = "here")]
    pub(crate) mask: bool,
    /// Become the command instead of having the launcher start it: in containers and sandboxes
    #[arg(long)]
    pub(crate) here: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Commands over the configuration.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration, run its own tests (`[[test]]`), and tell of rules that overlap; needs no daemon
    ///
    /// A test is a table `[[test]]` with `requester`, `operation` (get, list, set, delete or run), `name`, `expected`
    /// ("allow" or "deny"), and `profile` where it is not the default one. The daemons pass over these tables.
    Check {
        /// The file [default: the configuration in place]
        file: Option<PathBuf>,
    },
}

/// Commands over profiles.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ProfileCommand {
    /// List the profiles and their lock state
    List,
}

/// Commands over the audit log.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show the last entries
    Tail {
        /// How many
        #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10, value_parser = lines_range())]
        count: u32,
        /// Go on with new entries as they are written
        #[arg(short, long)]
        follow: bool,
    },
    /// Show the entries of a secret or a requester, or since a time
    Show {
        /// Only those about this secret of the profile
        #[arg(long, value_name = "NAME")]
        secret: Option<String>,
        /// Only those since then, as 30d or 12h ago, or a date
        #[arg(long, value_name = "TIME", value_parser = past)]
        since: Option<Timestamp>,
        /// Only those of this requester, such as `cli`
        #[arg(long, value_name = "REQUESTER")]
        requester: Option<String>,
    },
    /// Check that no entry was changed, removed or put in
    Verify,
    /// List the secrets that nobody has read for some time
    Unused {
        /// Since when
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = past)]
        since: Timestamp,
    },
    /// List the secrets whose values are old and should be replaced
    Age {
        /// Older than this
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = past)]
        over: Timestamp,
    },
}

/// Commands over the daemons.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Start them
    Start,
    /// End them; all profiles are locked then
    Stop,
    /// End and start them; all profiles are locked then
    Restart,
    /// Show what they logged
    Logs {
        /// Only the last N lines
        #[arg(short = 'n', long = "lines", value_name = "N")]
        count: Option<usize>,
        /// Go on with new lines as they are written
        #[arg(short, long)]
        follow: bool,
    },
}

/// A time that is past.
fn past(text: &str) -> Result<Timestamp, expiry::ExpiryError> {
    expiry::parse_past(text)
}

fn lines_range() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=i64::try_from(AUDIT_PAGE_MAX).unwrap_or(i64::MAX))
}

/// Why an option's value cannot be used; the value itself is not repeated, it may hold anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ValueError {
    #[error("it is not a number of seconds above 0 and up to {}", DEADLINE_MS_MAX / 1000)]
    Seconds,
    #[error("it is not of the form VAR=NAME")]
    NoEquals,
    #[error("it is not of the form UID:GID, two numbers")]
    NoOwner,
    #[error("it is not any, all, or a number of factors from 2 to {FACTORS_MAX}")]
    Policy,
    #[error("{0}")]
    Label(#[from] LabelError),
    #[error("what follows '=' is not a secret name: {0}")]
    Name(#[from] core_types::NameError),
}

fn seconds(text: &str) -> Result<Duration, ValueError> {
    let longest = Duration::from_millis(u64::from(DEADLINE_MS_MAX));
    let duration = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or(ValueError::Seconds)?;
    if duration.as_millis() > 0 && duration <= longest { Ok(duration) } else { Err(ValueError::Seconds) }
}

fn pattern(text: &str) -> Result<Pattern, core_types::NameError> {
    Pattern::parse(text)
}

fn daemon_name(text: &str) -> Result<DaemonName, core_types::NameError> {
    DaemonName::parse(text)
}

fn asker(text: &str) -> Result<Asker, AskerError> {
    text.parse()
}

fn grant_id(text: &str) -> Result<GrantId, NotAGrantId> {
    text.parse()
}

fn public_key(text: &str) -> Result<PublicKey, &'static str> {
    PublicKey::from_hex(text).ok_or("it is not 64 hex digits")
}

fn note(text: &str) -> Result<Note, NoteError> {
    Note::parse(text)
}

fn policy(text: &str) -> Result<PolicyArgument, ValueError> {
    let policy = match text {
        "any" => FactorPolicy::Any,
        "all" => FactorPolicy::All,
        number => match number.parse() {
            Ok(needed @ 2..=32) => FactorPolicy::Threshold(needed),
            _ => return Err(ValueError::Policy),
        },
    };
    Ok(PolicyArgument(policy))
}

fn label(text: &str) -> Result<FactorLabel, ValueError> {
    Ok(FactorLabel::parse(text)?)
}

fn mapping(text: &str) -> Result<Mapping, ValueError> {
    let (variable, name) = text.split_once('=').ok_or(ValueError::NoEquals)?;
    Ok(Mapping { variable: variable.to_owned(), name: SecretName::parse(name)? })
}

fn image_digest(text: &str) -> Result<ImageDigest, NotADigest> {
    text.parse()
}

fn owner(text: &str) -> Result<(u32, u32), ValueError> {
    let (user, group) = text.split_once(':').ok_or(ValueError::NoOwner)?;
    Ok((user.parse().map_err(|_| ValueError::NoOwner)?, group.parse().map_err(|_| ValueError::NoOwner)?))
}

fn secret_name(text: &str) -> Result<SecretName, NameError> {
    SecretName::parse(text)
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// It is not one, or it asks for help or the version.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args, Usage> {
    let line = answer::by_name(arguments);
    let args = match parse_by(Args::short_description(&line), &line) {
        Ok(args) => args,
        Err(_) => parse_by(Args::description(), &line).map_err(Usage)?,
    };
    match &args.command {
        Command::Get(GetOptions { name: None, .. }) if args.options.quiet || !picker::is_possible() => {
            let mut whole = Args::description();
            whole.build();
            Err(Usage(missing(&mut whole, "get", "<NAME>")))
        }
        _ => Ok(args),
    }
}

fn parse_by(description: clap::Command, line: &[OsString]) -> Result<Args, clap::Error> {
    // Never dropped: to take it apart would be time for nothing.
    Args::of(&ManuallyDrop::new(description).try_get_matches_from_mut(line)?)
}

/// What clap says of an argument that has to be given.
fn missing(root: &mut clap::Command, command: &str, argument: &str) -> clap::Error {
    let mut error = clap::Error::new(ErrorKind::MissingRequiredArgument);
    error.insert(ContextKind::InvalidArg, ContextValue::Strings(vec![argument.to_owned()]));
    if let Some(command) = root.find_subcommand_mut(command) {
        error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Args {
        parse(std::iter::once("pds").chain(line.iter().copied()).map(OsString::from)).unwrap()
    }

    fn refused(line: &[&str]) -> ErrorKind {
        parse(std::iter::once("pds").chain(line.iter().copied()).map(OsString::from)).unwrap_err().0.kind()
    }

    #[test]
    fn the_definition_holds_together() {
        Args::description().debug_assert();
    }

    #[test]
    fn the_help_of_a_command_begins_with_what_it_does() {
        for command in Args::description().get_subcommands() {
            let line = ["pds", command.get_name(), "--help"].map(OsString::from);
            let help = parse(line).unwrap_err().0.to_string();
            let about = command.get_about().unwrap().to_string();
            let first: String = about.chars().take_while(|letter| *letter != ',').collect();
            assert!(help.starts_with(&first), "{first:?}: {help}");
        }
    }

    #[test]
    fn options_of_every_command_stand_before_or_after_it() {
        for line in [
            ["-p", "work", "--json", "--timeout", "2.5", "--no-start", "status"],
            ["status", "-p", "work", "--json", "--timeout", "2.5", "--no-start"],
        ] {
            let options = parsed(&line).options;
            assert_eq!(options.profiles[0].as_str(), "work");
            assert_eq!(options.timeout, Some(Duration::from_millis(2500)));
            assert!(options.json && options.no_start && !options.quiet && !options.verbose);
        }
        assert_eq!(parsed(&["--color", "never", "lock"]).options.color, Colour::Never);
        assert_eq!(refused(&["-q", "-v", "lock"]), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn values_out_of_their_range_are_refused() {
        for wrong in ["0", "-1", "121", "nan", "inf", "x", "", "0.0001"] {
            assert_eq!(
                refused(&[&format!("--timeout={wrong}"), "status"]),
                ErrorKind::ValueValidation,
                "{wrong}"
            );
        }
        for wrong in ["A", "a b", "", "../x", "-x"] {
            assert_eq!(
                refused(&[&format!("--profile={wrong}"), "status"]),
                ErrorKind::ValueValidation,
                "{wrong}"
            );
        }
        assert_eq!(refused(&["audit", "tail", "-n", "1001"]), ErrorKind::ValueValidation);
        for option in ["--expires=2001-01-01", "--expires=soon", "--note=", "--note=a\nb"] {
            assert_eq!(refused(&["set", "a", option]), ErrorKind::ValueValidation, "{option}");
        }
        for option in
            ["--for=0s", "--for=31d", "--for=x", "--for=-1m", "--for=500ms", "--uses=0", "--uses=1000001"]
        {
            assert_eq!(
                refused(&["grant", "a", "--to", "backup", option]),
                ErrorKind::ValueValidation,
                "{option}"
            );
        }
        assert_eq!(refused(&["grant", "a"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused(&["revoke-grant", "x"]), ErrorKind::ValueValidation);
        for number in ["0", "-1", "x"] {
            let version = format!("--version={number}");
            assert_eq!(refused(&["get", "a", &version]), ErrorKind::ValueValidation, "{number}");
        }
        assert_eq!(refused(&["list", "a b"]), ErrorKind::ValueValidation);
        assert_eq!(refused(&["unlock", "--password-fd", "-1"]), ErrorKind::UnknownArgument);
        assert_eq!(
            refused(&["unlock", "--password-fd", "0", "--password-file", "x"]),
            ErrorKind::ArgumentConflict
        );
    }

    #[test]
    fn run_takes_a_selection_and_then_a_command_as_it_is() {
        let args = parsed(&[
            "run",
            "-p",
            "a",
            "-p",
            "b",
            "--only",
            "x,y/*",
            "--only",
            "z",
            "--env",
            "PGPASSWORD=db/pw",
            "--prefix",
            "APP_",
            "--",
            "cmd",
            "-p",
            "--json",
            "--",
        ]);
        assert_eq!(args.options.profiles.len(), 2);
        assert!(!args.options.json);
        let Command::Run(run) = args.command else { panic!("not run") };
        assert_eq!(run.selected.only.iter().map(Pattern::as_str).collect::<Vec<_>>(), ["x", "y/*", "z"]);
        assert_eq!(
            (run.selected.mappings[0].variable.as_str(), run.selected.mappings[0].name.as_str()),
            ("PGPASSWORD", "db/pw")
        );
        assert_eq!(run.selected.prefix.as_deref(), Some("APP_"));
        assert_eq!(run.command, ["cmd", "-p", "--json", "--"]);

        assert_eq!(refused(&["run"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused(&["run", "--"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused(&["run", "cmd"]), ErrorKind::UnknownArgument);
        for wrong in ["X", "X=a b", "X="] {
            assert_eq!(
                refused(&["run", "--env", wrong, "--", "true"]),
                ErrorKind::ValueValidation,
                "{wrong}"
            );
        }
    }

    #[test]
    fn passwd_takes_two_sources() {
        let args = parsed(&["passwd", "--password-fd", "3", "--new-password-file", "-"]);
        let Command::Passwd(options) = args.command else { panic!("not passwd") };
        let (old, new) = (options.old.password, options.new.source());
        assert_eq!((old.descriptor, old.file), (Some(3), None));
        assert_eq!((new.descriptor, new.file), (None, Some(PathBuf::from("-"))));
    }

    #[test]
    fn a_policy_is_any_all_or_a_number_that_can_be_one() {
        let policy = |text: &str| {
            let Command::Factor(FactorCommand::Policy { policy, .. }) =
                parsed(&["factor", "policy", text]).command
            else {
                panic!("not a policy")
            };
            policy.0
        };
        assert_eq!(policy("any"), FactorPolicy::Any);
        assert_eq!(policy("all"), FactorPolicy::All);
        assert_eq!(policy("2"), FactorPolicy::Threshold(2));
        assert_eq!(policy("32"), FactorPolicy::Threshold(32));
        for wrong in ["0", "1", "33", "-1", "2 of 3", "", "Any"] {
            assert_eq!(refused(&["factor", "policy", "--", wrong]), ErrorKind::ValueValidation, "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_no_argument() {
        assert_eq!(refused(&["set", "name", "value"]), ErrorKind::UnknownArgument);
        for verb in ["init", "unlock", "passwd"] {
            assert_eq!(refused(&[verb, "password"]), ErrorKind::UnknownArgument);
        }
        for verb in ["new", "check", "use"] {
            assert_eq!(refused(&["recovery", verb, "abandon"]), ErrorKind::UnknownArgument);
        }
    }
}
