//! The start of every daemon, up to the point where it has a runtime: what comes first comes first in all of them.

use std::path::PathBuf;
use std::process::ExitCode;

use core_crypto::private_fs::{self, InstanceLock, PrivateFsError};
use core_types::config::{Config, ConfigError};
use core_types::limits::CONFIG_BYTES_MAX;
use core_types::paths::{Paths, PathsError};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use crate::limits::{self, LimitTooLow};
use crate::logging;

/// Exit code of a daemon that finds another instance of itself running (`EX_TEMPFAIL`, sysexits.h).
pub const EXIT_ALREADY_RUNNING: u8 = 75;
/// Exit code of a daemon that cannot start with what it was given (`EX_CONFIG`, sysexits.h).
pub const EXIT_UNUSABLE: u8 = 78;

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be closed to others.
    #[error("the process cannot be made undumpable: {0}")]
    Harden(#[source] rustix::io::Errno),
    /// The folders cannot be told.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// A folder or file is not private, or cannot be used.
    #[error(transparent)]
    Files(#[from] PrivateFsError),
    /// Another instance runs.
    #[error("another {0} of this user is running")]
    AlreadyRunning(&'static str),
    /// The configuration is not text.
    #[error("{path} is not UTF-8 text")]
    ConfigText {
        /// The file.
        path: PathBuf,
    },
    /// The configuration is wrong.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// The runtime could not be built.
    #[error("the asynchronous runtime cannot start: {0}")]
    Runtime(#[source] std::io::Error),
    /// The bus client could not be made.
    #[error(transparent)]
    Bus(#[from] core_ipc::ConnectError),
    /// A limit leaves too little to work with.
    #[error(transparent)]
    Limit(#[from] LimitTooLow),
    /// What only this daemon needs is missing.
    #[error("{0}")]
    Service(String),
}

impl StartError {
    /// The exit code that tells a supervisor what to do.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::AlreadyRunning(_) => EXIT_ALREADY_RUNNING,
            _ => EXIT_UNUSABLE,
        })
    }
}

/// A daemon before its runtime: closed to others, alone, configured and logging.
pub struct Process {
    /// Where everything lies.
    pub paths: Paths,
    /// What the user configured.
    pub config: Config,
    _instance: InstanceLock,
}

impl Process {
    /// Goes through the start-up order for the daemon of this name. With `keep_core_limit` the hard limit on core
    /// files stays, for a daemon whose children shall get it; no daemon writes cores itself.
    ///
    /// # Errors
    /// The first step that failed; it has been logged to stderr by [`report`] when `run` was used.
    pub fn start(name: &'static str, keep_core_limit: bool) -> Result<Self, StartError> {
        begin(name, keep_core_limit)?;
        core_crypto::memory::set_warning(|warning| tracing::warn!("{warning}"));
        limits::prepare()?;
        let paths = Paths::from_environment()?;
        private_fs::ensure_private_dir(paths.runtime())?;
        private_fs::ensure_private_dir(&paths.public_keys())?;
        private_fs::ensure_private_dir(paths.state())?;
        let instance =
            private_fs::lock_instance(&paths.instance_lock(name))?.ok_or(StartError::AlreadyRunning(name))?;
        let config = read_config(&paths)?;
        Ok(Self { paths, config, _instance: instance })
    }

    /// Builds the runtime, on this thread alone, and runs `future` on it until it ends.
    ///
    /// # Errors
    /// The runtime cannot be built.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .build()
            .map_err(StartError::Runtime)?;
        Ok(runtime.block_on(future))
    }
}

/// What comes first in every process of ours, and is all that a small one needs: it is closed to others, and logs.
///
/// # Errors
/// It cannot be closed to others.
pub fn begin(name: &'static str, keep_core_limit: bool) -> Result<(), StartError> {
    harden(keep_core_limit)?;
    logging::start(name);
    Ok(())
}

/// Logs why a daemon does not start and gives the exit code for it.
#[must_use]
pub fn report(name: &str, error: &StartError) -> ExitCode {
    tracing::error!(%error, "{name} cannot start");
    error.exit_code()
}

/// Makes the process one that others of the same user can neither trace nor read, and that leaves no core file.
fn harden(keep_core_limit: bool) -> Result<(), StartError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(StartError::Harden)?;
    let hard = getrlimit(Resource::Core).maximum;
    let maximum = if keep_core_limit { hard } else { Some(0) };
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }).map_err(StartError::Harden)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

fn read_config(paths: &Paths) -> Result<Config, StartError> {
    let path = paths.config_file();
    let Some(bytes) = private_fs::read_limited(&path, CONFIG_BYTES_MAX)? else {
        return Ok(Config::default());
    };
    let Ok(text) = std::str::from_utf8(&bytes) else { return Err(StartError::ConfigText { path }) };
    Config::parse(text).map_err(|source| StartError::Config { path, source })
}
