//! Every failure of `pds`: what failed, why, what to do next, and the exit code. Nothing else decides any of them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use core_crypto::EntropyError;
use core_crypto::private_fs::PrivateFsError;
use core_ipc::key_file::KeyFileError;
use core_ipc::{CallError, ConnectError};
use core_types::config::ConfigError;
use core_types::header::Refusal;
use core_types::paths::PathsError;
use core_types::protocol::bus::BusDenial;
use core_types::protocol::launcher::LauncherDenial;
use core_types::protocol::profile::ProfileDenial;
use core_types::protocol::secrets::{FactorKind, SecretsDenial};
use core_types::{NameError, ProfileName};

use crate::agent::AgentError;
use crate::args::{
    AuditCommand, Command, ConfigCommand, DaemonCommand, FactorCommand, ProfileCommand, RecoveryCommand,
};
use crate::assignments::AssignmentError;
use crate::commands::run::RunError;
use crate::commands::{CodeError, EditError, HelperError, MountError, ScanError};
use crate::env_file::EnvFileError;
use crate::import::ImportError;
use crate::input::InputError;
use crate::output::{Messages, shown, time};
use crate::project::ProjectFileError;
use crate::prompt::PromptError;
use crate::start::StartError;
use crate::stop::StopError;
use crate::totp::TotpError;
use crate::units::UnitsError;
use crate::words::WordsError;

/// The exit codes; scripts depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something that has no code of its own.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// The profile is locked.
    Locked = 3,
    /// No such secret or profile.
    NotFound = 4,
    /// A rule says no.
    Denied = 5,
    /// Too many requests.
    RateLimited = 6,
    /// No daemon, no bus, or no answer in time.
    Unavailable = 7,
    /// Wrong password or other factor.
    WrongFactor = 8,
    /// The vault or the audit log is damaged.
    Damaged = 9,
    /// It exists already.
    Exists = 10,
    /// `pds run`: the command was not started.
    NotStarted = 125,
    /// `pds run`: the command cannot be executed.
    NotExecutable = 126,
    /// `pds run`: there is no such command.
    CommandNotFound = 127,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A service said no.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denial {
    #[error("{0}")]
    Secrets(#[from] SecretsDenial),
    #[error("{0}")]
    Profile(#[from] ProfileDenial),
    #[error("{0}")]
    Bus(#[from] BusDenial),
    #[error("{0}")]
    Launcher(#[from] LauncherDenial),
}

/// What a shell shows of a command that `SIGPIPE` ended: 128 and its number.
const ENDED_BY_SIGPIPE: u8 = 128 + 13;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the process could not be closed to other processes: {0}")]
    Hardening(io::Error),
    #[error("{0}")]
    Paths(#[from] PathsError),
    #[error("the key could not be made: {0}")]
    KeyFile(KeyFileError),
    #[error("the configuration cannot be read: {0}")]
    ConfigFile(PrivateFsError),
    #[error("the configuration {} is not UTF-8 text", path.display())]
    ConfigText { path: PathBuf },
    #[error("the configuration {} cannot be used: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("{failed} of its {tests} tests failed")]
    ConfigTests { failed: usize, tests: usize },
    #[error("the variable PDS_PROFILE is not a profile name: {0}")]
    ProfileVariable(NameError),
    #[error("more than one profile is given")]
    SeveralProfiles,
    #[error("the daemons are not running, and --no-start or PDS_NO_START forbids to start them")]
    NotRunning,
    #[error("the daemons could not be started: {0}")]
    Start(#[from] StartError),
    #[error("the daemons could not be stopped: {0}")]
    Stop(#[from] StopError),
    #[error("the daemons could not be stopped: {0}")]
    Units(#[from] UnitsError),
    #[error("profile '{profile}' was not unlocked in time")]
    StillLocked { profile: ProfileName },
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{service}: {refusal}")]
    Refused { service: &'static str, refusal: Refusal },
    #[error("{service} could not be understood: {reason}")]
    Protocol { service: &'static str, reason: String },
    #[error(
        "the connection to the bus ended before {service} answered, so it is unknown whether it was done"
    )]
    Lost { service: &'static str },
    #[error("{0}")]
    Denied(Denial),
    #[error("{0}")]
    Prompt(#[from] PromptError),
    #[error("{0}")]
    Input(#[from] InputError),
    #[error("{0}")]
    EnvFile(#[from] EnvFileError),
    #[error("{0}")]
    Project(#[from] ProjectFileError),
    #[error("{0}")]
    Assignment(#[from] AssignmentError),
    #[error("{0}")]
    Helper(#[from] HelperError),
    #[error("{0}")]
    Mount(#[from] MountError),
    #[error("{0}")]
    Scan(#[from] ScanError),
    #[error("{0}")]
    Import(#[from] ImportError),
    #[error("{0}")]
    Totp(#[from] TotpError),
    #[error("{0}")]
    Edit(#[from] EditError),
    #[error("{0}")]
    Code(#[from] CodeError),
    #[error("{} is a folder, a link or a device", path.display())]
    NotAFile { path: PathBuf },
    #[error("it would become {bytes} bytes long, and at most {limit} are allowed")]
    TooMuch { bytes: usize, limit: usize },
    #[error("standard output cannot be written: {0}")]
    Output(io::Error),
    #[error("the file {} cannot be {what}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("there is a file {} already", path.display())]
    FileExists { path: PathBuf },
    #[error("profile '{profile}' has a vault, which would be replaced")]
    WouldReplace { profile: ProfileName },
    #[error("you did not say yes")]
    NotConfirmed,
    #[error("{0}")]
    Agent(#[from] AgentError),
    #[error("{0}")]
    Words(#[from] WordsError),
    #[error("{0}")]
    Entropy(EntropyError),
    #[error("the ssh-agent holds {} key", if *asked { "no such" } else { "no ssh-ed25519 or RSA" })]
    NoSuchKey { asked: bool },
    #[error("the ssh-agent holds several keys: {}", keys.join(", "))]
    SeveralKeys { keys: Vec<String> },
    #[error("{} is not a public key of ssh-keygen", path.display())]
    NotAPublicKey { path: PathBuf },
    #[error("the profile has several passwords")]
    SeveralPasswords,
    #[error("no password unlocks the profile")]
    NoPassword,
    #[error("the profile has no recovery code")]
    NoRecoveryCode,
    #[error("the vault has the keys that it had")]
    NotRekeyed,
    #[error("the words would go into a pipe or a file, and not onto a terminal")]
    WordsWouldBeKept,
    #[error("it is damaged at entry {sequence}: {reason}")]
    AuditBroken { sequence: u64, reason: String },
    #[error("the log {} cannot be read: {source}", path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("{what}: {source}")]
    Child { what: &'static str, source: io::Error },
    /// All that went wrong was reported when it did; the first decides the exit code.
    #[error("not all of it was done")]
    Reported(Exit),
}

impl<D: std::fmt::Debug + Into<Denial>> From<(&'static str, CallError<D>)> for Failure {
    fn from((service, error): (&'static str, CallError<D>)) -> Self {
        match error {
            CallError::Denied(denial) => Self::Denied(denial.into()),
            CallError::Refused(refusal) => Self::Refused { service, refusal },
            CallError::Unreachable(error) => Self::Connect(error),
            CallError::Lost => Self::Lost { service },
            CallError::Protocol(error) => Self::Protocol { service, reason: error.to_string() },
        }
    }
}

impl From<SecretsDenial> for Failure {
    fn from(denial: SecretsDenial) -> Self {
        Self::Denied(denial.into())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Call(error) => (core_types::name::LAUNCHER, error).into(),
            RunError::Io { what, source } => Self::Child { what, source },
        }
    }
}

impl Failure {
    /// Whether it may go away by itself: no daemon, bus or answer in time.
    pub(crate) fn is_passing(&self) -> bool {
        self.exit() == Exit::Unavailable
    }

    /// The exit code of every command but `pds run`.
    fn exit(&self) -> Exit {
        match self {
            Self::StillLocked { .. } => Exit::Locked,
            Self::Denied(Denial::Secrets(denial)) => secrets_exit(denial),
            Self::Denied(Denial::Launcher(LauncherDenial::Secrets(denial))) => secrets_exit(denial),
            Self::Denied(Denial::Launcher(LauncherDenial::UnresolvedReference { denial, .. })) => {
                secrets_exit(denial)
            }
            Self::Denied(Denial::Launcher(_)) => Exit::Failed,
            Self::Denied(Denial::Profile(ProfileDenial::Identity { .. })) => Exit::Denied,
            Self::Denied(Denial::Bus(denial)) => bus_exit(denial),
            Self::Denied(Denial::Profile(_)) | Self::KeyFile(_) => Exit::Failed,
            Self::Refused { refusal: Refusal::Forbidden, .. } => Exit::Denied,
            Self::Refused { .. }
            | Self::NotRunning
            | Self::Connect(_)
            | Self::Start(_)
            | Self::Lost { .. }
            | Self::Units(_)
            | Self::Stop(StopError::TimedOut { .. }) => Exit::Unavailable,
            Self::ProfileVariable(_)
            | Self::SeveralProfiles
            | Self::Agent(AgentError::Unsupported(_))
            | Self::SeveralKeys { .. }
            | Self::NotAPublicKey { .. }
            | Self::SeveralPasswords
            | Self::Code(CodeError::WouldBeKept)
            | Self::WordsWouldBeKept => Exit::Usage,
            Self::Words(_) | Self::Import(ImportError::WrongPassword) => Exit::WrongFactor,
            Self::Import(ImportError::Conflicts { .. }) => Exit::Exists,
            Self::Import(ImportError::Option(_)) => Exit::Usage,
            Self::NoSuchKey { .. } | Self::NoPassword | Self::NoRecoveryCode => Exit::NotFound,
            Self::Prompt(PromptError::Empty | PromptError::TooLong { .. }) => Exit::WrongFactor,
            Self::AuditBroken { .. } => Exit::Damaged,
            Self::FileExists { .. } | Self::WouldReplace { .. } => Exit::Exists,
            Self::Reported(exit) => *exit,
            Self::Hardening(_)
            | Self::Paths(_)
            | Self::ConfigFile(_)
            | Self::ConfigText { .. }
            | Self::Config { .. }
            | Self::ConfigTests { .. }
            | Self::Stop(_)
            | Self::Protocol { .. }
            | Self::Prompt(_)
            | Self::Input(_)
            | Self::EnvFile(_)
            | Self::Project(_)
            | Self::Assignment(_)
            | Self::Helper(_)
            | Self::Mount(_)
            | Self::Scan(_)
            | Self::Import(_)
            | Self::Totp(_)
            | Self::Edit(_)
            | Self::Code(_)
            | Self::NotAFile { .. }
            | Self::TooMuch { .. }
            | Self::Output(_)
            | Self::NotConfirmed
            | Self::File { .. }
            | Self::NotRekeyed
            | Self::Agent(_)
            | Self::Entropy(_)
            | Self::Log { .. }
            | Self::Child { .. } => Exit::Failed,
        }
    }

    /// The exit code of `pds run`, whose command never ran: none that the command itself might have given.
    fn run_exit(&self) -> Exit {
        match self {
            Self::Denied(Denial::Launcher(LauncherDenial::NotFound)) => Exit::CommandNotFound,
            Self::Denied(Denial::Launcher(LauncherDenial::NotExecutable(_))) => Exit::NotExecutable,
            _ => Exit::NotStarted,
        }
    }

    /// The exit code for a command.
    fn exit_of(&self, command: Option<&Command>) -> Exit {
        match command {
            Some(Command::Run(_)) => self.run_exit(),
            _ => self.exit(),
        }
    }

    /// Whether the failure is about the one secret asked for, so that others may still be asked for.
    pub(crate) fn is_about_the_name(&self) -> bool {
        use SecretsDenial::{Forbidden, InvalidName, NoSuchSecret};
        matches!(self, Self::Denied(Denial::Secrets(NoSuchSecret(_) | InvalidName(_) | Forbidden)))
    }

    /// Whether the access rules do not allow it.
    pub(crate) fn is_forbidden(&self) -> bool {
        use SecretsDenial::{Forbidden, ForbiddenName};
        matches!(self, Self::Denied(Denial::Secrets(Forbidden | ForbiddenName(_))))
    }

    /// Whether a vault is open that is not as it was left.
    pub(crate) fn is_rollback(&self) -> bool {
        matches!(self, Self::Denied(Denial::Secrets(SecretsDenial::RolledBack { .. })))
    }

    /// What to do next, for who shows it in his own words.
    pub(crate) fn advice(&self) -> Option<String> {
        self.next(None)
    }

    /// What to do next, where something can be done.
    fn next(&self, profile: Option<&ProfileName>) -> Option<String> {
        match self {
            Self::Denied(Denial::Secrets(denial) | Denial::Launcher(LauncherDenial::Secrets(denial))) => {
                secrets_next(denial, profile)
            }
            Self::Denied(Denial::Launcher(denial)) => launcher_next(denial),
            Self::Denied(Denial::Profile(ProfileDenial::Log(_))) => {
                Some("see that its disk is not full, and `pds daemon logs`".to_owned())
            }
            Self::Denied(Denial::Bus(denial)) => bus_next(denial),
            Self::KeyFile(_) => Some("name another file with --key-file".to_owned()),
            // A folder or file that is not private says itself what to do.
            Self::ConfigFile(_) | Self::Connect(ConnectError::Folder(_)) => None,
            Self::Denied(_)
            | Self::Child { .. }
            | Self::Reported(_)
            | Self::NotConfirmed
            | Self::Entropy(_) => None,
            Self::Agent(error) => agent_next(error),
            Self::Words(_) => Some("look at the paper again; nothing was tried with these words".to_owned()),
            Self::NoSuchKey { .. } => Some("`ssh-add -l` shows its keys, `ssh-add FILE` adds one".to_owned()),
            Self::SeveralKeys { .. } => Some("choose one with --key".to_owned()),
            Self::NotAPublicKey { .. } => Some("name the file that ends with .pub".to_owned()),
            Self::SeveralPasswords => Some("choose one with --factor ID: see `pds factor list`".to_owned()),
            Self::NoPassword => Some("`pds factor add password` adds one".to_owned()),
            Self::NoRecoveryCode => Some("`pds recovery new` makes one".to_owned()),
            Self::NotRekeyed => Some("`pds audit tail` and `pds daemon logs` say why".to_owned()),
            Self::WordsWouldBeKept => Some("say --yes if that is what you want".to_owned()),
            Self::Hardening(_) => Some("see whether a sandbox around pds forbids prctl(2)".to_owned()),
            Self::Paths(_) => Some("set the variable to a folder that only you can reach".to_owned()),
            Self::Config { .. } | Self::ConfigText { .. } => Some("mend the file, then try again".to_owned()),
            Self::ConfigTests { .. } => {
                Some("mend the rules or the tests, whichever is not as meant".to_owned())
            }
            Self::ProfileVariable(_) => Some("correct or unset PDS_PROFILE".to_owned()),
            Self::SeveralProfiles => Some("give one -p; only `pds run` takes several".to_owned()),
            Self::NotRunning => Some("run `pds daemon start`".to_owned()),
            Self::Start(error) => error.next(),
            Self::Units(error) => Some(error.next()),
            Self::StillLocked { .. } => Some("run `pds unlock`".to_owned()),
            Self::Stop(error) => error.next(),
            Self::Connect(_) | Self::Lost { .. } | Self::Protocol { .. } => {
                Some("see `pds status` and `pds daemon logs`; `pds daemon restart` starts afresh".to_owned())
            }
            Self::Refused { refusal: Refusal::Busy, .. } => Some("try again in a moment".to_owned()),
            Self::Refused { refusal: Refusal::Timeout, .. } => {
                Some("wait longer with --timeout SECONDS, or see `pds daemon logs`".to_owned())
            }
            Self::Refused { .. } => Some("try again, and see `pds daemon logs`".to_owned()),
            Self::Prompt(error) => error.next(),
            Self::Input(error) => error.next(),
            Self::Helper(error) => error.next(),
            Self::Edit(error) => error.next(),
            Self::Code(error) => Some(error.next().to_owned()),
            Self::Totp(_) => {
                Some("store what the service shows: its base32, or the address in its QR code".to_owned())
            }
            Self::Mount(error) => Some(error.next().to_owned()),
            Self::Scan(error) => Some(error.next().to_owned()),
            Self::Import(error) => error.next(),
            Self::Assignment(_) => Some("choose another --format, or leave it out with --only".to_owned()),
            Self::NotAFile { .. } => {
                Some("name the file itself; without -o the text goes to standard output".to_owned())
            }
            Self::TooMuch { .. } => Some("fill several templates, one after the other".to_owned()),
            Self::Project(error) => Some(error.next()),
            Self::EnvFile(EnvFileError::Unreadable(error)) => error.next(),
            Self::EnvFile(_) => {
                Some("write one NAME=value a line, in single quotes what has blanks or quotes".to_owned())
            }
            Self::Output(_) => Some("see that its disk is not full".to_owned()),
            Self::AuditBroken { .. } => {
                Some("keep a copy of the log's folder, and find out who could write to it".to_owned())
            }
            Self::Log { .. } => Some("see who owns it".to_owned()),
            Self::File { .. } => Some("see that its folder exists, and that you may use both".to_owned()),
            Self::FileExists { .. } => Some("choose another name, or replace it with --force".to_owned()),
            Self::WouldReplace { .. } => {
                Some("back it up first with `pds backup FILE`, then say --yes".to_owned())
            }
        }
    }

    /// Tells the user on standard error, and answers the exit code.
    ///
    /// A closed pipe at standard output is told to nobody; the exit code is that of other tools in a pipe.
    pub(crate) fn report(
        &self,
        command: Option<&Command>,
        profile: Option<&ProfileName>,
        messages: &Messages,
    ) -> ExitCode {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ENDED_BY_SIGPIPE.into();
            }
            Self::Reported(_) => {}
            _ => {
                let what = command.map_or_else(|| "cannot start".to_owned(), what_failed);
                messages.error(&format!("{what}: {self}"), self.next(profile).as_deref());
            }
        }
        self.exit_of(command).into()
    }

    /// Tells the user that one of several names failed, and answers the exit code for the end.
    pub(crate) fn report_name(&self, what: &str, profile: Option<&ProfileName>, messages: &Messages) -> Exit {
        messages.error(&format!("{what}: {self}"), self.next(profile).as_deref());
        self.exit()
    }
}

/// The exit code for what the bus denied.
fn bus_exit(denial: &BusDenial) -> Exit {
    match denial {
        BusDenial::NotRegistered | BusDenial::TopicForbidden | BusDenial::NotForDaemons => Exit::Denied,
        BusDenial::ReservedName(_) => Exit::Usage,
        BusDenial::AlreadyEnrolled(_) | BusDenial::KeyUsed => Exit::Exists,
        BusDenial::NotEnrolled(_) => Exit::NotFound,
        BusDenial::Unrecorded => Exit::Unavailable,
        BusDenial::NameTaken | BusDenial::Invalid | BusDenial::TooManyEnrolled | BusDenial::Storage(_) => {
            Exit::Failed
        }
    }
}

fn bus_next(denial: &BusDenial) -> Option<String> {
    let next = match denial {
        BusDenial::ReservedName(_) => "choose another name",
        BusDenial::AlreadyEnrolled(name) => {
            return Some(format!("choose another name, or `pds revoke {name}` first"));
        }
        BusDenial::NotEnrolled(_) => "`pds enrolled` lists the names",
        BusDenial::Unrecorded => "try again in a moment; `pds status` shows which daemons run",
        _ => return None,
    };
    Some(next.to_owned())
}

fn secrets_exit(denial: &SecretsDenial) -> Exit {
    match denial {
        SecretsDenial::Locked | SecretsDenial::ProfileNotActive(_) => Exit::Locked,
        SecretsDenial::NoSuchProfile(_)
        | SecretsDenial::NoSuchSecret(_)
        | SecretsDenial::NoSuchVersion { .. }
        | SecretsDenial::NoSuchGrant(_)
        | SecretsDenial::NoSuchFactor(_) => Exit::NotFound,
        SecretsDenial::Identity { .. }
        | SecretsDenial::Forbidden
        | SecretsDenial::ForbiddenName(_)
        | SecretsDenial::GrantExpired(_)
        | SecretsDenial::GrantUsedUp(_)
        | SecretsDenial::Expired { .. } => Exit::Denied,
        SecretsDenial::RateLimited { .. } | SecretsDenial::BatchOverBurst { .. } => Exit::RateLimited,
        SecretsDenial::InvalidName(_) => Exit::Usage,
        SecretsDenial::WrongFactor(_)
        | SecretsDenial::UnusableFactor(_)
        | SecretsDenial::NotEnoughFactors { .. } => Exit::WrongFactor,
        SecretsDenial::UnsupportedKey(_)
        | SecretsDenial::NotAPassword(_)
        | SecretsDenial::NotGrantable(_)
        | SecretsDenial::GrantBounds => Exit::Usage,
        SecretsDenial::ProfileExists(_)
        | SecretsDenial::FactorExists(_)
        | SecretsDenial::NotRemoved(_)
        | SecretsDenial::SecretExists { .. } => Exit::Exists,
        SecretsDenial::Damaged(_)
        | SecretsDenial::BadBackup(_)
        | SecretsDenial::RolledBack { .. }
        | SecretsDenial::ReadOnly(_) => Exit::Damaged,
        SecretsDenial::ValueTooLarge { .. }
        | SecretsDenial::BatchTooLarge { .. }
        | SecretsDenial::BadImport(_)
        | SecretsDenial::ImportTooLarge
        | SecretsDenial::ChangedMeanwhile(_)
        | SecretsDenial::LastFactor
        | SecretsDenial::Rekeying(_)
        | SecretsDenial::PolicyImpossible { .. }
        | SecretsDenial::TooManyFactors
        | SecretsDenial::TooManyGrants
        | SecretsDenial::StorageFull
        | SecretsDenial::Storage(_)
        | SecretsDenial::ForeignField
        | SecretsDenial::AuditUnwritable { .. }
        | SecretsDenial::Unrecorded => Exit::Failed,
    }
}

fn secrets_next(denial: &SecretsDenial, profile: Option<&ProfileName>) -> Option<String> {
    let option = profile_option;
    Some(match denial {
        SecretsDenial::Locked => format!("run `pds unlock{}`", option(profile)),
        SecretsDenial::ProfileNotActive(name) => format!("run `pds unlock{}`", option(Some(name))),
        SecretsDenial::NoSuchProfile(name) => {
            format!("`pds profile list` shows the profiles; `pds init{}` makes this one", option(Some(name)))
        }
        SecretsDenial::NoSuchSecret(_) => format!("`pds list{}` shows the names", option(profile)),
        SecretsDenial::NoSuchVersion { .. }
        | SecretsDenial::Expired { .. }
        | SecretsDenial::NotRemoved(_)
        | SecretsDenial::SecretExists { .. }
        | SecretsDenial::RolledBack { .. }
        | SecretsDenial::BadImport(_)
        | SecretsDenial::ImportTooLarge
        | SecretsDenial::ChangedMeanwhile(_)
        | SecretsDenial::ReadOnly(_) => return vault_next(denial, profile),
        SecretsDenial::RateLimited { .. } => "wait, or raise the rate in config.toml".to_owned(),
        SecretsDenial::BatchOverBurst { .. } => {
            "select fewer secrets with --only, or raise the burst in config.toml".to_owned()
        }
        SecretsDenial::InvalidName(_) => {
            "use 1 to 256 of A-Z a-z 0-9 . _ / - with no '/' at either end and no '..' part".to_owned()
        }
        SecretsDenial::ValueTooLarge { .. } => {
            "store a smaller value, or a key to an encrypted file".to_owned()
        }
        SecretsDenial::BatchTooLarge { .. } => "select fewer secrets with --only".to_owned(),
        SecretsDenial::WrongFactor(_) => {
            "try again; each wrong attempt makes the next one wait longer".to_owned()
        }
        SecretsDenial::UnusableFactor(FactorKind::Password) => {
            "choose a password of 1 to 4096 bytes".to_owned()
        }
        SecretsDenial::UnusableFactor(_) => "try again".to_owned(),
        SecretsDenial::NotEnoughFactors { .. }
        | SecretsDenial::NoSuchFactor(_)
        | SecretsDenial::TooManyFactors
        | SecretsDenial::FactorExists(_)
        | SecretsDenial::NotAPassword(_) => {
            format!("`pds factor list{}` shows the ways to unlock", option(profile))
        }
        SecretsDenial::Rekeying(_) => "try again when `pds rekey` is done".to_owned(),
        SecretsDenial::LastFactor => {
            format!("add another first: `pds factor add{}`", option(profile))
        }
        SecretsDenial::PolicyImpossible { .. } => {
            "change the number of factors or the policy first: see `pds factor --help`".to_owned()
        }
        SecretsDenial::UnsupportedKey(_) => "use an ssh-ed25519 key, or an RSA key".to_owned(),
        SecretsDenial::ProfileExists(name) => {
            format!("unlock it with `pds unlock{}`, or choose another name", option(Some(name)))
        }
        SecretsDenial::Damaged(_) => {
            "keep a copy of the vault's folder before anything else; then restore a backup".to_owned()
        }
        SecretsDenial::StorageFull => "make room on the disk, then try again".to_owned(),
        SecretsDenial::Storage(_) => "see `pds daemon logs`".to_owned(),
        SecretsDenial::BadBackup(_) => "nothing was changed; try another copy of the backup".to_owned(),
        SecretsDenial::ForeignField => {
            "see that pds and the daemons are of the same build, then `pds daemon restart`".to_owned()
        }
        SecretsDenial::Unrecorded => "see `pds status`: the audit log must be writable".to_owned(),
        SecretsDenial::AuditUnwritable { .. } => {
            "make room on the disk of $XDG_STATE_HOME/pds, then try again; or give the profile another `audit` mode in config.toml".to_owned()
        }
        SecretsDenial::GrantExpired(_)
        | SecretsDenial::GrantUsedUp(_)
        | SecretsDenial::NoSuchGrant(_)
        | SecretsDenial::TooManyGrants
        | SecretsDenial::NotGrantable(_)
        | SecretsDenial::GrantBounds => return grant_next(denial),
        SecretsDenial::ForbiddenName(name) => format!(
            "`pds explain{} --operation run {}` says which rule; the rules stand in config.toml",
            option(profile),
            shown(name)
        ),
        SecretsDenial::Identity { .. } | SecretsDenial::Forbidden => return None,
    })
}

/// What to do next where a grant is in the way.
fn grant_next(denial: &SecretsDenial) -> Option<String> {
    Some(match denial {
        SecretsDenial::GrantExpired(_) | SecretsDenial::GrantUsedUp(_) => {
            "ask the user for another grant: `pds grant NAME --to REQUESTER`".to_owned()
        }
        SecretsDenial::NoSuchGrant(_) => "`pds grants` shows them; locking a profile ends those of it".to_owned(),
        SecretsDenial::TooManyGrants => "take some back with `pds revoke-grant`, or write a rule".to_owned(),
        SecretsDenial::NotGrantable(_) => {
            "name an enrolled daemon: `pds enrolled` lists them; what you may do yourself stands in config.toml"
                .to_owned()
        }
        SecretsDenial::GrantBounds => "give less with --for and --uses".to_owned(),
        _ => return None,
    })
}

fn agent_next(error: &AgentError) -> Option<String> {
    Some(match error {
        AgentError::Absent => "start one with `eval $(ssh-agent)`, and add a key with ssh-add".to_owned(),
        AgentError::Unreachable { .. } | AgentError::Malformed => "see that it runs: `ssh-add -l`".to_owned(),
        AgentError::Refused => "see that the agent may use the key: `ssh-add -T` tries it".to_owned(),
        AgentError::Unsupported(_) => "use an ssh-ed25519 key, or an RSA key".to_owned(),
    })
}

/// The option that names a profile, with a space before it.
fn profile_option(profile: Option<&ProfileName>) -> String {
    profile.map(|name| format!(" -p {name}")).unwrap_or_default()
}

/// What to do next where versions, expiry or the age of the vault are in the way.
fn vault_next(denial: &SecretsDenial, profile: Option<&ProfileName>) -> Option<String> {
    let option = profile_option;
    Some(match denial {
        SecretsDenial::BadImport(_) => "see that pds and the daemons are of the same version".to_owned(),
        SecretsDenial::ImportTooLarge => "import it in several parts".to_owned(),
        SecretsDenial::ChangedMeanwhile(_) => "import again: what there is now is looked at anew".to_owned(),
        SecretsDenial::NoSuchVersion { name, .. } => {
            format!("`pds history{} {}` shows the versions", option(profile), shown(name))
        }
        SecretsDenial::Expired { name, since_unix_ms } => format!(
            "it expired at {}; get a new value and store it with `pds set{} {}`, with --expires if it expires too",
            time(*since_unix_ms),
            option(profile),
            shown(name)
        ),
        SecretsDenial::NotRemoved(name) => format!(
            "choose an older version with --version; `pds history{} {}` shows them",
            option(profile),
            shown(name)
        ),
        SecretsDenial::SecretExists { name, removed: false } => {
            format!(
                "choose another name, or remove it first with `pds rm{} {}`",
                option(profile),
                shown(name)
            )
        }
        SecretsDenial::SecretExists { name, removed: true } => format!(
            "choose another name, or delete what is left of it for good with `pds purge{} {}`",
            option(profile),
            shown(name)
        ),
        SecretsDenial::RolledBack { profile, .. } => format!(
            "it can be read, and not changed; if you put an older copy back, or moved the vault to another machine, \
             accept it with `pds unlock{} --accept-rollback`; if not, somebody else did: copy what you need, and \
             change what that copy may have made known",
            option(Some(profile))
        ),
        SecretsDenial::ReadOnly(name) => {
            format!(
                "`pds status` tells why; accept it with `pds unlock{} --accept-rollback`",
                option(Some(name))
            )
        }
        _ => return None,
    })
}

fn launcher_next(denial: &LauncherDenial) -> Option<String> {
    Some(match denial {
        LauncherDenial::Secrets(denial) => return secrets_next(denial, None),
        LauncherDenial::SecretsUnreachable(_) => "see `pds status` and `pds daemon logs`".to_owned(),
        LauncherDenial::OtherImage { .. } => {
            "find out who changed it; if it was an update that you trust, pin it anew".to_owned()
        }
        LauncherDenial::Unpinnable(_) => "leave --pin and [profiles.NAME.run] out for it".to_owned(),
        LauncherDenial::FileAndFolder { .. } => "leave one of them out with --only".to_owned(),
        LauncherDenial::TooMuchToMask { .. } => "select fewer with --only, or leave --mask out".to_owned(),
        LauncherDenial::Collision { .. } => "leave it out with --only".to_owned(),
        LauncherDenial::NulByte(name) | LauncherDenial::ValueTooLong { name, .. } => {
            format!("hand it on with `--fd {name}` or as a file with --files, or leave it out with --only")
        }
        LauncherDenial::ForbiddenVariable { .. } => {
            "leave it out with --only, or give it another variable with --only and --env VAR=NAME".to_owned()
        }
        LauncherDenial::InvalidVariable(_) => "correct --env or --prefix".to_owned(),
        LauncherDenial::NotFound => {
            "see that the path is right, or that a folder of PATH has the command".to_owned()
        }
        LauncherDenial::NotExecutable(_) => "see its mode and its first line".to_owned(),
        LauncherDenial::Invalid(_) => "use fewer or shorter arguments and variables".to_owned(),
        LauncherDenial::Confined(_) => {
            "let it be started in the caller's place, and as confined, with `pds run --here`".to_owned()
        }
        LauncherDenial::Spawn(_) => "see `pds daemon logs`".to_owned(),
        LauncherDenial::MalformedReference { .. } => {
            "a reference is pds://PROFILE/NAME and nothing else; correct or unset the variable".to_owned()
        }
        LauncherDenial::UnresolvedReference { reference, denial, .. } => {
            return secrets_next(denial, Some(&reference.profile));
        }
    })
}

/// What a command was to do, as the beginning of an error message.
fn what_failed(command: &Command) -> String {
    match command {
        Command::Init(_) => "cannot make the vault".to_owned(),
        Command::Unlock(_) => "cannot unlock".to_owned(),
        Command::Lock => "cannot lock".to_owned(),
        Command::Status => "cannot show the whole status".to_owned(),
        Command::Doctor => "cannot say what is wrong".to_owned(),
        Command::Man(options) => {
            format!("cannot write the manual to {}", shown(&options.folder.to_string_lossy()))
        }
        Command::Completions(_) => "cannot write the script".to_owned(),
        Command::Backup(options) => format!("cannot back up to {}", shown(&options.file.to_string_lossy())),
        Command::RestoreBackup(options) => {
            format!("cannot restore {}", shown(&options.backup.to_string_lossy()))
        }
        Command::Set(options) => format!("cannot store '{}'", shown(&options.name)),
        Command::Get(options) => match &options.name {
            Some(name) => format!("cannot read '{}'", shown(name)),
            None => "cannot read".to_owned(),
        },
        Command::Edit(options) => format!("cannot edit '{}'", shown(&options.name)),
        Command::Qr(options) => format!("cannot draw '{}'", shown(&options.name)),
        Command::Read(options) => format!("cannot read {}", options.reference),
        Command::Inject(_) => "cannot fill the template".to_owned(),
        Command::Env(_) => "cannot print the variables".to_owned(),
        Command::Totp(options) => format!("cannot make a code of '{}'", shown(&options.name)),
        Command::List(_) => "cannot list the secrets".to_owned(),
        Command::Rm(_) => "cannot remove".to_owned(),
        Command::Mv(options) => format!("cannot move '{}'", shown(&options.from)),
        Command::History(options) => format!("cannot show the versions of '{}'", shown(&options.name)),
        Command::Restore(options) => format!("cannot restore '{}'", shown(&options.name)),
        Command::Purge(options) => format!("cannot purge '{}'", shown(&options.name)),
        Command::Run(options) => {
            let program = options.command.first().map(|program| program.to_string_lossy());
            format!("cannot run '{}'", shown(&program.unwrap_or_default()))
        }
        Command::Helper(_) => "no answer".to_owned(),
        Command::Scan(_) => "not all was looked at".to_owned(),
        Command::Mount(_) => "the secrets do not lie there as files".to_owned(),
        Command::Umount(_) => "not all files are removed".to_owned(),
        Command::Import(options) => {
            format!("cannot import {}", shown(&options.source.to_string_lossy()))
        }
        Command::Export(_) => "cannot export".to_owned(),
        Command::Ps => "cannot list the programs that run".to_owned(),
        Command::Passwd(_) => "cannot change the password".to_owned(),
        Command::Rekey(_) => "cannot exchange the keys".to_owned(),
        Command::Factor(FactorCommand::List) => "cannot list the ways to unlock".to_owned(),
        Command::Factor(FactorCommand::Add(_)) => "cannot add a way to unlock".to_owned(),
        Command::Factor(FactorCommand::Remove { .. }) => "cannot remove the way to unlock".to_owned(),
        Command::Factor(FactorCommand::Policy { .. }) => "cannot change the policy".to_owned(),
        Command::Recovery(RecoveryCommand::New { .. }) => "cannot make a recovery code".to_owned(),
        Command::Recovery(RecoveryCommand::Check { .. }) => "cannot check the recovery code".to_owned(),
        Command::Recovery(RecoveryCommand::Use { .. }) => "cannot unlock".to_owned(),
        Command::Config(ConfigCommand::Check { .. }) => "the configuration does not pass".to_owned(),
        Command::Grant(options) => format!("cannot grant '{}'", options.pattern),
        Command::Grants => "cannot list the grants".to_owned(),
        Command::RevokeGrant(options) => format!("cannot take back grant {}", options.id),
        Command::Explain(options) => format!("cannot explain '{}'", shown(&options.name)),
        Command::Profile(ProfileCommand::List) => "cannot list the profiles".to_owned(),
        Command::Audit(AuditCommand::Unused { .. }) => "cannot tell which secrets are unused".to_owned(),
        Command::Audit(AuditCommand::Age { .. }) => "cannot tell which secrets are old".to_owned(),
        Command::Audit(AuditCommand::Tail { .. } | AuditCommand::Show { .. }) => {
            "cannot show the audit log".to_owned()
        }
        Command::Audit(AuditCommand::Verify) => "cannot vouch for the audit log".to_owned(),
        Command::Daemon(DaemonCommand::Start) => "cannot start".to_owned(),
        Command::Daemon(DaemonCommand::Stop) => "cannot stop".to_owned(),
        Command::Daemon(DaemonCommand::Restart) => "cannot restart".to_owned(),
        Command::Enroll(options) => format!("'{}' cannot be enrolled", options.name),
        Command::Enrolled => "cannot list the enrolled daemons".to_owned(),
        Command::Revoke(options) => format!("'{}' cannot be revoked", options.name),
        Command::Daemon(DaemonCommand::Logs { .. }) => "cannot show the logs".to_owned(),
        Command::Wait(_) => "cannot wait for the profile".to_owned(),
    }
}

/// A command line that is none, or that asks for help or the version.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) clap::Error);

impl Usage {
    /// Prints help to standard output, anything else to standard error, and answers the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self.0.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let text = self.0.render().to_string();
                match io::stdout().lock().write_all(text.as_bytes()) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => Failure::Output(error).report(None, None, &Messages::plain()),
                }
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Messages::plain().raw(&self.0.render().to_string());
                Exit::Usage.into()
            }
            _ => {
                let (why, next) = self.explain();
                Messages::plain().error(&format!("wrong usage: {why}"), Some(&next));
                Exit::Usage.into()
            }
        }
    }

    /// Why it is none, and what to do. No word of the user is repeated unless it can only be an option's name:
    /// the others may be a value or a password that was put into the wrong place.
    fn explain(&self) -> (String, String) {
        let argument = self.context(ContextKind::InvalidArg);
        let see = self.synopsis();
        let why = match self.0.kind() {
            ErrorKind::UnknownArgument => match argument.as_deref().and_then(option_name) {
                Some(option) => format!("there is no option {option} here"),
                None => {
                    let next = "a value comes from standard input (`printf %s \"$VALUE\" | pds set NAME`), --file or a \
                                hidden prompt, a password from the terminal, --password-fd or --password-file; ";
                    let why = "an argument too many; nothing secret is taken as an argument, where every process can \
                               read it and the shell keeps it";
                    return (why.to_owned(), format!("{next}{see}"));
                }
            },
            ErrorKind::InvalidSubcommand => "there is no such command".to_owned(),
            ErrorKind::MissingRequiredArgument => format!("{} is missing", argument.unwrap_or_default()),
            ErrorKind::MissingSubcommand => "a command is missing".to_owned(),
            ErrorKind::ArgumentConflict => {
                format!("{} cannot be used twice or with another", argument.unwrap_or_default())
            }
            ErrorKind::InvalidUtf8 => "an argument is not UTF-8 text".to_owned(),
            _ => {
                let reason = std::error::Error::source(&self.0)
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default();
                format!("{} was given something it cannot be{reason}", argument.unwrap_or_default())
            }
        };
        (why, see)
    }

    fn context(&self, kind: ContextKind) -> Option<String> {
        match self.0.get(kind)? {
            ContextValue::String(text) => Some(text.clone()),
            ContextValue::Strings(texts) => Some(texts.join(", ")),
            _ => None,
        }
    }

    fn synopsis(&self) -> String {
        match self.0.get(ContextKind::Usage) {
            Some(ContextValue::StyledStr(usage)) => {
                let text = usage.to_string();
                let line = text.trim().trim_start_matches("Usage:").trim();
                format!("usage: {line}")
            }
            _ => "see `pds --help`".to_owned(),
        }
    }
}

/// The argument, when it looks like the name of an option and not like a secret.
fn option_name(argument: &str) -> Option<&str> {
    let option = argument.split('=').next().unwrap_or(argument);
    let name = option.strip_prefix('-')?;
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (plain && name.len() <= 24).then_some(option)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use core_types::grant::GrantId;
    use core_types::protocol::secrets::{FactorPolicy, UnsupportedKey};
    use core_types::reference::{ReferenceError, SecretReference};

    use super::*;
    use crate::args;
    use crate::args::GetOptions;

    fn profile() -> ProfileName {
        ProfileName::parse("work").unwrap()
    }

    fn secrets_denials() -> Vec<(SecretsDenial, Exit)> {
        use SecretsDenial as D;
        vec![
            (D::Locked, Exit::Locked),
            (D::ProfileNotActive(profile()), Exit::Locked),
            (D::NoSuchProfile(profile()), Exit::NotFound),
            (D::Identity { requester: "x".to_owned() }, Exit::Denied),
            (D::RateLimited { retry_ms: 1 }, Exit::RateLimited),
            (D::BatchOverBurst { names: 3, burst: 2 }, Exit::RateLimited),
            (D::Forbidden, Exit::Denied),
            (D::ForbiddenName("a".to_owned()), Exit::Denied),
            (D::GrantExpired(GrantId(1)), Exit::Denied),
            (D::GrantUsedUp(GrantId(1)), Exit::Denied),
            (D::NoSuchGrant(GrantId(1)), Exit::NotFound),
            (D::TooManyGrants, Exit::Failed),
            (D::NotGrantable("cli".parse().unwrap()), Exit::Usage),
            (D::GrantBounds, Exit::Usage),
            (D::InvalidName(NameError::Empty), Exit::Usage),
            (D::NoSuchSecret("a".to_owned()), Exit::NotFound),
            (D::NoSuchVersion { name: "a".to_owned(), version: 3 }, Exit::NotFound),
            (D::Expired { name: "a".to_owned(), since_unix_ms: 0 }, Exit::Denied),
            (D::NotRemoved("a".to_owned()), Exit::Exists),
            (D::SecretExists { name: "a".to_owned(), removed: false }, Exit::Exists),
            (D::SecretExists { name: "a".to_owned(), removed: true }, Exit::Exists),
            (D::ValueTooLarge { bytes: 2, limit: 1 }, Exit::Failed),
            (D::BatchTooLarge { limit: 1 }, Exit::Failed),
            (D::WrongFactor(FactorKind::Password), Exit::WrongFactor),
            (D::UnusableFactor(FactorKind::Password), Exit::WrongFactor),
            (D::UnusableFactor(FactorKind::Recovery), Exit::WrongFactor),
            (D::NotEnoughFactors { given: 1, needed: 2, of: 3 }, Exit::WrongFactor),
            (D::NoSuchFactor(7), Exit::NotFound),
            (D::LastFactor, Exit::Failed),
            (D::Rekeying(profile()), Exit::Failed),
            (D::PolicyImpossible { policy: FactorPolicy::All, factors: 1 }, Exit::Failed),
            (D::TooManyFactors, Exit::Failed),
            (D::FactorExists(2), Exit::Exists),
            (D::UnsupportedKey(UnsupportedKey::Ecdsa), Exit::Usage),
            (D::NotAPassword(2), Exit::Usage),
            (D::ProfileExists(profile()), Exit::Exists),
            (D::Damaged("page 3".to_owned()), Exit::Damaged),
            (D::RolledBack { profile: profile(), found: "f".to_owned() }, Exit::Damaged),
            (D::ReadOnly(profile()), Exit::Damaged),
            (D::StorageFull, Exit::Failed),
            (D::Storage("i/o".to_owned()), Exit::Failed),
            (D::Unrecorded, Exit::Failed),
            (D::AuditUnwritable { profile: "work".to_owned(), reason: "full".to_owned() }, Exit::Failed),
        ]
    }

    fn launcher_denials() -> Vec<(LauncherDenial, Exit)> {
        use LauncherDenial as D;
        let text = || "x".to_owned();
        let mut denials = vec![
            (D::SecretsUnreachable(text()), Exit::NotStarted),
            (D::Collision { variable: text(), first: text(), second: text() }, Exit::NotStarted),
            (D::ForbiddenVariable { variable: text(), name: text(), reason: text() }, Exit::NotStarted),
            (D::InvalidVariable(text()), Exit::NotStarted),
            (D::FileAndFolder { file: text(), within: text() }, Exit::NotStarted),
            (D::NulByte(text()), Exit::NotStarted),
            (D::ValueTooLong { name: text(), bytes: 2, limit: 1 }, Exit::NotStarted),
            (D::TooMuchToMask { bytes: 2, limit: 1 }, Exit::NotStarted),
            (D::NotFound, Exit::CommandNotFound),
            (D::NotExecutable(text()), Exit::NotExecutable),
            (D::Invalid(text()), Exit::NotStarted),
            (D::Confined(text()), Exit::NotStarted),
            (D::Spawn(text()), Exit::NotStarted),
            (
                D::MalformedReference { variable: text(), text: text(), error: ReferenceError::NoName },
                Exit::NotStarted,
            ),
            (
                D::UnresolvedReference {
                    variable: text(),
                    reference: SecretReference::parse("pds://work/a").unwrap(),
                    denial: Box::new(SecretsDenial::Locked),
                },
                Exit::NotStarted,
            ),
        ];
        denials
            .extend(secrets_denials().into_iter().map(|(denial, _)| (D::Secrets(denial), Exit::NotStarted)));
        denials
    }

    fn run_command() -> Command {
        args::parse(["pds", "run", "--", "true"].map(OsString::from)).unwrap().command
    }

    #[test]
    fn every_denial_of_secrets_has_its_exit_code_and_advice() {
        for (denial, exit) in secrets_denials() {
            let hopeless = matches!(denial, SecretsDenial::Forbidden | SecretsDenial::Identity { .. });
            let failure = Failure::Denied(Denial::Secrets(denial));
            assert_eq!(failure.exit_of(None), exit, "{failure}");
            assert_eq!(failure.next(Some(&profile())).is_none(), hopeless, "{failure}");
            assert_eq!(failure.exit_of(Some(&run_command())), Exit::NotStarted, "{failure}");
        }
    }

    #[test]
    fn run_ends_with_125_unless_the_command_itself_is_at_fault() {
        for (denial, exit) in launcher_denials() {
            let failure = Failure::Denied(Denial::Launcher(denial));
            assert_eq!(failure.exit_of(Some(&run_command())), exit, "{failure}");
        }
        assert_eq!(Failure::NotRunning.exit_of(Some(&run_command())), Exit::NotStarted);
    }

    #[test]
    fn every_other_failure_has_its_exit_code() {
        let refused = |refusal| Failure::Refused { service: "daemon-secrets", refusal };
        let io = || io::Error::other("x");
        let connect = ConnectError::Handshake;
        for (failure, exit) in [
            (refused(Refusal::ServiceUnknown), Exit::Unavailable),
            (refused(Refusal::ServiceGone), Exit::Unavailable),
            (refused(Refusal::Busy), Exit::Unavailable),
            (refused(Refusal::Timeout), Exit::Unavailable),
            (refused(Refusal::Forbidden), Exit::Denied),
            (Failure::NotRunning, Exit::Unavailable),
            (Failure::Connect(connect), Exit::Unavailable),
            (Failure::Lost { service: "daemon-secrets" }, Exit::Unavailable),
            (Failure::Protocol { service: "daemon-secrets", reason: "x".to_owned() }, Exit::Failed),
            (Failure::Start(StartError::TimedOut { log: PathBuf::new() }), Exit::Unavailable),
            (
                Failure::Denied(Denial::Profile(ProfileDenial::Identity { requester: "x".to_owned() })),
                Exit::Denied,
            ),
            (Failure::Denied(Denial::Profile(ProfileDenial::Log("full".to_owned()))), Exit::Failed),
            (Failure::Denied(Denial::Profile(ProfileDenial::Invalid)), Exit::Failed),
            (Failure::Denied(Denial::Bus(BusDenial::NotRegistered)), Exit::Denied),
            (Failure::Denied(Denial::Bus(BusDenial::TopicForbidden)), Exit::Denied),
            (Failure::Denied(Denial::Bus(BusDenial::NameTaken)), Exit::Failed),
            (Failure::Denied(Denial::Bus(BusDenial::Invalid)), Exit::Failed),
            (Failure::Denied(Denial::Bus(BusDenial::NotForDaemons)), Exit::Denied),
            (Failure::Denied(Denial::Bus(BusDenial::ReservedName("cli".parse().unwrap()))), Exit::Usage),
            (Failure::Denied(Denial::Bus(BusDenial::AlreadyEnrolled("a".parse().unwrap()))), Exit::Exists),
            (Failure::Denied(Denial::Bus(BusDenial::NotEnrolled("a".parse().unwrap()))), Exit::NotFound),
            (Failure::Denied(Denial::Bus(BusDenial::KeyUsed)), Exit::Exists),
            (Failure::Denied(Denial::Bus(BusDenial::Unrecorded)), Exit::Unavailable),
            (Failure::AuditBroken { sequence: 3, reason: "x".to_owned() }, Exit::Damaged),
            (Failure::ConfigTests { failed: 1, tests: 2 }, Exit::Failed),
            (Failure::ProfileVariable(NameError::Empty), Exit::Usage),
            (Failure::SeveralProfiles, Exit::Usage),
            (Failure::Agent(AgentError::Absent), Exit::Failed),
            (Failure::Agent(AgentError::Unsupported(UnsupportedKey::Ecdsa)), Exit::Usage),
            (Failure::Words(WordsError::Checksum), Exit::WrongFactor),
            (Failure::NoSuchKey { asked: true }, Exit::NotFound),
            (Failure::SeveralKeys { keys: Vec::new() }, Exit::Usage),
            (Failure::SeveralPasswords, Exit::Usage),
            (Failure::NoPassword, Exit::NotFound),
            (Failure::NoRecoveryCode, Exit::NotFound),
            (Failure::WordsWouldBeKept, Exit::Usage),
            (Failure::Prompt(PromptError::Empty), Exit::WrongFactor),
            (Failure::Prompt(PromptError::TooLong { limit: 1 }), Exit::WrongFactor),
            (Failure::Prompt(PromptError::NoTerminal(io())), Exit::Failed),
            (Failure::Input(InputError::TooLarge { limit: 1 }), Exit::Failed),
            (Failure::Output(io()), Exit::Failed),
            (Failure::NotConfirmed, Exit::Failed),
            (Failure::Paths(PathsError::NoRuntime), Exit::Failed),
            (Failure::Reported(Exit::NotFound), Exit::NotFound),
        ] {
            assert_eq!(failure.exit_of(None), exit, "{failure}");
        }
    }

    #[test]
    fn a_call_error_becomes_what_it_is() {
        let service = "daemon-secrets";
        let failure = |error: CallError<SecretsDenial>| Failure::from((service, error));
        assert!(matches!(
            failure(CallError::Denied(SecretsDenial::Locked)),
            Failure::Denied(Denial::Secrets(_))
        ));
        assert!(matches!(failure(CallError::Refused(Refusal::Busy)), Failure::Refused { .. }));
        assert!(matches!(failure(CallError::Unreachable(ConnectError::Handshake)), Failure::Connect(_)));
        assert!(matches!(failure(CallError::Lost), Failure::Lost { .. }));
    }

    #[test]
    fn advice_names_the_profile_that_was_used() {
        let next = |denial| Failure::from(denial).next(Some(&profile())).unwrap();
        assert_eq!(next(SecretsDenial::Locked), "run `pds unlock -p work`");
        assert_eq!(next(SecretsDenial::NoSuchSecret("x".to_owned())), "`pds list -p work` shows the names");
    }

    #[test]
    fn only_failures_of_one_name_let_others_be_tried() {
        for (denial, _) in secrets_denials() {
            use SecretsDenial::{Forbidden, InvalidName, NoSuchSecret};
            let expected = matches!(denial, Forbidden | InvalidName(_) | NoSuchSecret(_));
            assert_eq!(Failure::from(denial).is_about_the_name(), expected);
        }
    }

    fn usage(line: &[&str]) -> String {
        let line = std::iter::once("pds").chain(line.iter().copied()).map(OsString::from);
        let (why, next) = args::parse(line).unwrap_err().explain();
        format!("{why}\n{next}")
    }

    #[test]
    fn nothing_that_may_be_a_secret_is_repeated() {
        for line in [
            &["set", "name", "Hunter2"][..],
            &["unlock", "Hunter2"],
            &["unlock", "--password=Hunter2"],
            &["unlock", "--Hunter2"],
            &["unlock", "--password-fd", "Hunter2"],
            &["--timeout", "Hunter2", "status"],
            &["--color", "Hunter2", "status"],
            &["-p", "Hunter2!", "status"],
            &["Hunter2"],
            &["audit", "Hunter2"],
            &["run", "--env", "Hunter2", "--", "true"],
            &["run", "--env", "X=Hunter2!", "--", "true"],
        ] {
            let text = usage(line);
            assert!(!text.to_lowercase().contains("hunter2"), "{line:?}: {text}");
        }
    }

    #[test]
    fn a_secret_as_an_argument_is_answered_with_the_right_way() {
        let text = usage(&["set", "name", "value"]);
        assert!(
            text.contains("| pds set NAME") && text.contains("--file") && text.contains("--password-fd"),
            "{text}"
        );
    }

    #[test]
    fn usage_errors_name_what_is_wrong_and_show_the_command() {
        assert!(usage(&["unlock", "--pasword-fd", "3"]).contains("there is no option --pasword-fd here"));
        let text = usage(&["run"]);
        assert!(text.contains("CMD") && text.contains("usage: pds run"), "{text}");
        let text = usage(&["get"]);
        assert!(text.contains("<NAME> is missing") && text.contains("usage: pds get"), "{text}");
        let text = usage(&["--timeout", "0", "status"]);
        assert!(text.contains("--timeout <SECONDS>") && text.contains("up to 120"), "{text}");
    }

    #[test]
    fn names_in_messages_cannot_steer_the_terminal() {
        let command = Command::Get(GetOptions { name: Some("a\x1b]0;x\x07".to_owned()), version: None });
        assert_eq!(what_failed(&command), "cannot read 'a\\u{1b}]0;x\\u{7}'");
    }
}
