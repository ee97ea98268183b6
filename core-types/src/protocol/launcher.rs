//! The call of `daemon-launcher`, and what `pds` and the child's monitor say to each other afterwards.

use serde::{Deserialize, Serialize};

use super::secrets::{SecretsDenial, Selection};
use super::service;
use crate::name::{LAUNCHER, ProfileName, SecretName};
use crate::program::ImageDigest;
use crate::reference::{ReferenceError, SecretReference};
use crate::wire_secret::WireSecret;

/// A string of the operating system: any bytes but NUL. It may hold what the caller's environment holds.
pub type OsBytes = WireSecret;

/// One resource limit (getrlimit(2)); `None` is "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// Number of the resource, as the kernel counts them on this machine.
    pub resource: u32,
    /// Limit in force.
    pub soft: Option<u64>,
    /// Ceiling of it.
    pub hard: Option<u64>,
}

/// A mapping from one secret to one variable, as `--env VAR=NAME` gives it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mapping {
    /// The variable.
    pub variable: String,
    /// The secret.
    pub name: SecretName,
}

/// Secrets that a child gets otherwise than as variables.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Handed {
    /// Those that it gets as open files, by the order of the descriptors' numbers.
    pub descriptors: Vec<SecretName>,
    /// The one that is its standard input.
    pub stdin: Option<SecretName>,
    /// Where those that would be variables lie as files instead.
    pub files: Option<Files>,
}

/// Secrets as files that the child alone sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The folder over which they are laid; without one, a folder of pds.
    pub folder: Option<String>,
    /// The user and group they belong to, if not the child's.
    pub owner: Option<(u32, u32)>,
}

/// What a caller shows of where it stands, because nothing is started for a confined one. What it could lie about is
/// checked, or of no use to one that could say [`Self::witness`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Standing {
    /// The word of the launcher's witness; empty if the caller cannot read it.
    pub witness: WireSecret,
    /// Numbers of its namespaces and of its root directory.
    pub namespaces: Vec<u64>,
}

/// What a process takes over from whoever starts it without being given it. Signals are a bit each, as in the masks of
/// /proc/PID/status (proc(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// The signals that it ignores.
    pub ignored_signals: u64,
    /// The signals that it holds back.
    pub blocked_signals: u64,
    /// How much it leaves the processor to others (nice(2)).
    pub nice: i32,
}

/// The pseudo-terminal that a child shall be controlled by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControllingTerminal {
    /// None.
    #[default]
    Absent,
    /// The first of its streams that is one.
    Stream,
    /// One that is none of its streams, for what it says and asks on /dev/tty.
    Apart,
}

/// What the name of the file begins with by which the launcher's witness shows its word.
pub const WITNESS_FILE: &str = "pds-witness-";

/// Starts a program with secrets in its environment.
///
/// Descriptors that travel with it, in this order: standard input, output and error of the child, its working
/// directory, one end of a `SOCK_SEQPACKET` pair on which the child's monitor speaks [`ChildEvent`] and hears
/// [`ChildCommand`], and a [`ControllingTerminal::Apart`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    /// Profiles to read from; the first that has a name wins.
    pub profiles: Vec<ProfileName>,
    /// Which secrets become variables by their own name.
    pub selection: Selection,
    /// Secrets that become variables of another name, besides.
    pub mappings: Vec<Mapping>,
    /// Put before the variables made from names.
    pub prefix: String,
    /// Secrets that are handed on otherwise than as variables; they become one only if the selection names them.
    pub handed: Box<Handed>,
    /// The program and its arguments.
    pub arguments: Vec<OsBytes>,
    /// The caller's environment, as `NAME=value`. A value that is a [`SecretReference`] is replaced by the secret.
    pub environment: Vec<OsBytes>,
    /// The caller's umask.
    pub umask: u32,
    /// The caller's resource limits.
    pub limits: Vec<ResourceLimit>,
    /// What else the child shall have from the caller.
    pub inherited: Box<Inherited>,
    /// The terminal that the child shall be controlled by.
    pub terminal: ControllingTerminal,
    /// Where the caller stands.
    pub standing: Box<Standing>,
    /// Whether the caller hides the values in what the program writes, and so has to know them.
    pub mask: bool,
    /// What has to be in the program's file, which then travels too, as the last descriptor, open for reading: what was
    /// read of it is executed, and nothing else.
    pub pin: Option<Box<Pin>>,
}

/// What has to be in a program's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pin {
    /// Just this.
    Image(ImageDigest),
    /// What the rules of the secrets say, if they say anything.
    Ruled,
}

impl Run {
    /// The secrets that are asked for by their whole names, outside the selection.
    pub fn named(&self) -> impl Iterator<Item = &SecretName> {
        self.mappings.iter().map(|mapping| &mapping.name).chain(self.handed.names())
    }
}

impl Handed {
    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = &SecretName> {
        self.descriptors.iter().chain(&self.stdin)
    }
}

/// How many descriptors travel with every [`Run`].
pub const RUN_DESCRIPTORS: usize = 5;

/// The program runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// Process of the program, as the launcher sees it.
    pub pid: u32,
    /// All values that it was given, where [`Run::mask`] asks for them.
    pub masked: Vec<WireSecret>,
    /// The folder of its files, if other processes of the user can see it.
    pub exposed: Option<String>,
}

/// Lists the programs that run, in the order of their numbers, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Children {
    /// Continue after this process, the last of the page before.
    pub after: Option<u32>,
}

/// A page of the programs that run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildPage {
    /// They.
    pub children: Vec<RunningChild>,
    /// Whether there are more after these.
    pub more: bool,
}

/// A program that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningChild {
    /// Its process.
    pub pid: u32,
    /// The profiles that it was to get secrets from.
    pub profiles: Vec<String>,
    /// The program as it was named, without arguments.
    pub program: String,
    /// When it was started, in milliseconds of the Unix epoch.
    pub since_unix_ms: u64,
    /// The names of the secrets it got.
    pub secrets: Vec<String>,
}

/// Why a program was not started; it never ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LauncherDenial {
    /// `daemon-secrets` said no.
    #[error("{0}")]
    Secrets(SecretsDenial),
    /// `daemon-secrets` did not answer.
    #[error("daemon-secrets did not answer: {0}")]
    SecretsUnreachable(String),
    /// Two secrets would become the same variable.
    #[error("the secrets '{first}' and '{second}' would both become the variable {variable}")]
    Collision {
        /// The variable.
        variable: String,
        /// One secret.
        first: String,
        /// The other.
        second: String,
    },
    /// A secret would become a variable that changes how programs load or run code.
    #[error("the secret '{name}' would become {variable}, which {reason}")]
    ForbiddenVariable {
        /// The variable.
        variable: String,
        /// The secret.
        name: String,
        /// What such a variable does.
        reason: String,
    },
    /// `--env` or `--prefix` with something that is no variable name.
    #[error("'{0}' is not a variable name: use A-Z, a-z, 0-9 and _, not starting with a digit")]
    InvalidVariable(String),
    /// Of two secrets one would be a file and a folder at once.
    #[error("the secret '{file}' would be a file, and a folder for '{within}'")]
    FileAndFolder {
        /// The shorter name.
        file: String,
        /// The name that begins with it.
        within: String,
    },
    /// A value that no environment can hold.
    #[error("the value of '{0}' contains a NUL byte, which no environment variable can hold")]
    NulByte(String),
    /// A value that is longer than the kernel takes.
    #[error("the value of '{name}' makes a variable of {bytes} bytes, and the kernel takes at most {limit}")]
    ValueTooLong {
        /// The secret.
        name: String,
        /// Bytes of name, `=`, value and NUL.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// No such program.
    #[error("the command was not found")]
    NotFound,
    /// A file that cannot be executed.
    #[error("the command cannot be executed: {0}")]
    NotExecutable(String),
    /// The request itself is out of its limits.
    #[error("the request is out of its limits: {0}")]
    Invalid(String),
    /// The child would not be confined as the caller is.
    #[error("the caller is confined, and what the launcher starts is not: {0}")]
    Confined(String),
    /// The machine could not start it.
    #[error("the child could not be started: {0}")]
    Spawn(String),
    /// A variable of the caller's that begins as a reference to a secret and is none.
    #[error("{variable} is '{text}', which is not a reference: {error}")]
    MalformedReference {
        /// The variable.
        variable: String,
        /// The beginning of its value, as far as it could be a reference.
        text: String,
        /// What is wrong with it.
        error: ReferenceError,
    },
    /// A variable of the caller's whose reference does not lead to a secret.
    #[error("{variable} refers to {reference}: {denial}")]
    UnresolvedReference {
        /// The variable.
        variable: String,
        /// Its value.
        reference: SecretReference,
        /// Why the secret cannot be read.
        denial: Box<SecretsDenial>,
    },
    /// More than can be looked for in what the program writes.
    #[error(
        "the values have {bytes} bytes together, and at most {limit} can be hidden from what the command writes"
    )]
    TooMuchToMask {
        /// Bytes of all values.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// There is something else in the program's file.
    #[error("it is another program: its file has {found}, and {expected} is asked for")]
    OtherImage {
        /// What is asked for.
        expected: ImageDigest,
        /// What is there.
        found: ImageDigest,
    },
    /// A program that cannot be executed as it was looked at.
    #[error("what is executed cannot be pinned: {0}")]
    Unpinnable(String),
}

/// From `pds` to the child's monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildCommand {
    /// Send this signal to the command's process only, as kill(1) on it would.
    Signal(i32),
    /// Send this signal to its process group, as the terminal would.
    SignalGroup(i32),
    /// Make the command's group the foreground group of its terminal again, and continue it.
    Continue,
    /// The user's terminal, which travels with this, is about to be changed from one state into another: to be put back
    /// if `pds` ends without having done so.
    TakeTerminal {
        /// What it is like.
        found: TerminalState,
        /// What it will be like.
        made: TerminalState,
    },
    /// It has been put back.
    GaveTerminalBack,
}

/// What of a terminal's state is changed while a command has it (termios(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalState {
    /// The modes of input, output, control and local.
    pub modes: [u32; 4],
    /// How many bytes a read waits for, and for how long (VMIN and VTIME).
    pub waits: [u8; 2],
}

/// From the child's monitor to `pds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildEvent {
    /// The command stopped by this signal.
    Stopped(i32),
    /// The command ended by itself.
    Exited(i32),
    /// The command was ended by this signal.
    Killed(i32),
    /// The command is being executed: the first event there is, and the only proof of it when the launcher dies.
    Executed,
}

/// As [`super::secrets::DeliverAudit`], of the launcher.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliverAudit {}

service! {
    /// The starter of programs.
    LauncherService = LAUNCHER, sealed: true, denial: LauncherDenial, requests: LauncherRequest {
        1 Run -> Started,
        2 Children -> ChildPage,
        55 DeliverAudit -> (),
    }
}
