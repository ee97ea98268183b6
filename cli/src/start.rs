//! Starts the daemons: by the user's systemd where their units are installed, else by one supervisor, found beside `pds`,
//! that starts the others.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Instant;

use core_crypto::private_fs::{self, PrivateFsError};
use core_types::paths::Paths;

use crate::stop::{self, Supervisor, Waited};
use crate::units::{Units, UnitsError};

/// Exit code of a supervisor that found another one at work (`EX_TEMPFAIL`, sysexits.h).
const ANOTHER_AT_WORK: i32 = 75;
/// What the supervisor writes when all daemons serve.
const READY: &[u8] = b"ready\n";
/// The supervisor's program.
const SUPERVISOR: &str = "daemon-bus";

/// Who started the daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// This command; all of them serve.
    ByUs,
    /// Another command at the same moment, or they were only restarting; they may not serve yet.
    BySomeoneElse,
}

/// Why the daemons did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the path of pds itself is unknown: {0}")]
    Ourselves(io::Error),
    #[error("the program {SUPERVISOR} is neither {} nor {}", beside.display(), library.display())]
    Missing { beside: PathBuf, library: PathBuf },
    #[error("their log cannot be written: {0}")]
    Log(PrivateFsError),
    #[error("{} cannot be run: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("their first output cannot be read: {0}")]
    Pipe(io::Error),
    #[error("{SUPERVISOR} ended at once ({status})")]
    Ended { status: ExitStatus, log: PathBuf },
    #[error("they are not ready in time")]
    TimedOut { log: PathBuf },
    #[error("{0}")]
    Units(#[from] UnitsError),
}

impl StartError {
    /// What to do next.
    pub(crate) fn next(&self) -> Option<String> {
        match self {
            Self::Ourselves(_) | Self::Missing { .. } => {
                Some("install pds with its daemons beside it or in ../lib/pds".to_owned())
            }
            Self::Log(_) => None,
            Self::Units(error) => Some(error.next()),
            Self::Spawn { .. } | Self::Pipe(_) => Some("try again".to_owned()),
            Self::Ended { log, .. } | Self::TimedOut { log } => {
                Some(format!("the reason stands at the end of {}", log.display()))
            }
        }
    }
}

/// Starts the units or the supervisor, and waits until all daemons serve.
///
/// # Errors
/// They could not be started, ended, or were not ready by the deadline.
pub(crate) fn start_daemons(paths: &Paths, deadline: Instant) -> Result<Started, StartError> {
    // A supervisor that is at work has the bus back in a moment, and the units would find it running.
    if matches!(Supervisor::find(paths), Ok(None))
        && let Some(units) = Units::installed()
    {
        units.start(deadline)?;
        return Ok(Started::ByUs);
    }
    start_supervisor(paths, deadline)
}

fn start_supervisor(paths: &Paths, deadline: Instant) -> Result<Started, StartError> {
    let program = supervisor_program(&std::env::current_exe().map_err(StartError::Ourselves)?)?;
    let log = paths.log_file();
    let mut child = spawn(&program, paths)?;
    let Some(output) = child.stdout.take() else { return Err(StartError::TimedOut { log }) };
    match wait_for_ready(output, deadline).map_err(StartError::Pipe)? {
        Readiness::Ready => Ok(Started::ByUs),
        Readiness::TimedOut => Err(StartError::TimedOut { log }),
        Readiness::Ended => match child.wait().map_err(StartError::Pipe)? {
            status if status.code() == Some(ANOTHER_AT_WORK) => Ok(Started::BySomeoneElse),
            status => Err(StartError::Ended { status, log }),
        },
    }
}

/// The supervisor's program for a `pds` that lies at `ourselves`: beside it, or in `../lib/pds`.
pub(crate) fn supervisor_program(ourselves: &Path) -> Result<PathBuf, StartError> {
    let ourselves = ourselves.canonicalize().map_err(StartError::Ourselves)?;
    let folder = ourselves.parent().unwrap_or(Path::new("/"));
    let beside = folder.join(SUPERVISOR);
    let library = folder.parent().unwrap_or(Path::new("/")).join("lib/pds").join(SUPERVISOR);
    match (beside.is_file(), library.is_file()) {
        (true, _) => Ok(beside),
        (false, true) => Ok(library),
        (false, false) => Err(StartError::Missing { beside, library }),
    }
}

/// Starts the supervisor in the root folder, with only the variables it needs. It leaves our session by itself, which
/// a leader of a process group could not, so it gets no group of its own here.
fn spawn(program: &Path, paths: &Paths) -> Result<Child, StartError> {
    private_fs::ensure_private_dir(paths.state()).map_err(StartError::Log)?;
    let log = private_fs::open_append(&paths.log_file()).map_err(StartError::Log)?;
    Command::new(program)
        .arg("--supervise")
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| daemons_need(name)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|source| StartError::Spawn { program: program.to_owned(), source })
}

/// Whether the daemons need a variable of whoever happens to start them: those that say where things lie, and none
/// that steers what they load or that holds someone's secret.
fn daemons_need(name: &OsStr) -> bool {
    const NEEDED: [&str; 6] =
        ["HOME", "PATH", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"];
    const OUR_OWN: [&str; 2] = ["PDS_PROFILE", "PDS_NO_START"];
    let Some(name) = name.to_str() else { return false };
    NEEDED.contains(&name) || (name.starts_with("PDS_") && !OUR_OWN.contains(&name))
}

/// What the supervisor's pipe said.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    Ended,
    TimedOut,
}

/// Reads the pipe until `ready`, its end, or the deadline.
fn wait_for_ready(mut output: ChildStdout, deadline: Instant) -> io::Result<Readiness> {
    let mut said = Vec::new();
    let mut piece = [0; 64];
    while stop::wait_readable(&output, deadline)? == Waited::Readable {
        match output.read(&mut piece)? {
            0 => return Ok(Readiness::Ended),
            read => said.extend_from_slice(&piece[..read]),
        }
        if said.starts_with(READY) {
            return Ok(Readiness::Ready);
        }
        said.truncate(READY.len());
    }
    Ok(Readiness::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn readiness(script: &str, deadline: Duration) -> Readiness {
        let mut child = Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let result = wait_for_ready(child.stdout.take().unwrap(), Instant::now() + deadline).unwrap();
        let _already_gone = child.kill();
        child.wait().unwrap();
        result
    }

    #[test]
    fn ready_end_and_silence_are_told_apart() {
        let long = Duration::from_secs(60);
        assert_eq!(readiness("echo ready; exec sleep 60", long), Readiness::Ready);
        assert_eq!(readiness("printf rea; printf 'dy\\n'; exec sleep 60", long), Readiness::Ready);
        assert_eq!(readiness("exit 75", long), Readiness::Ended);
        assert_eq!(readiness("echo no", long), Readiness::Ended);
        assert_eq!(readiness("exec sleep 60", Duration::ZERO), Readiness::TimedOut);
    }

    #[test]
    fn the_supervisor_is_found_beside_pds_then_in_lib_through_links() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (bin, lib) = (root.join("bin"), root.join("lib/pds"));
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::write(bin.join("pds"), "").unwrap();
        std::os::unix::fs::symlink(bin.join("pds"), root.join("pds-link")).unwrap();
        let find = || supervisor_program(&root.join("pds-link"));

        assert!(matches!(find(), Err(StartError::Missing { .. })));
        std::fs::write(lib.join(SUPERVISOR), "").unwrap();
        assert_eq!(find().unwrap(), lib.join(SUPERVISOR));
        std::fs::write(bin.join(SUPERVISOR), "").unwrap();
        assert_eq!(find().unwrap(), bin.join(SUPERVISOR));
    }

    #[test]
    fn daemons_get_places_and_nothing_else() {
        for needed in ["HOME", "XDG_RUNTIME_DIR", "PDS_STATE_DIR"] {
            assert!(daemons_need(OsStr::new(needed)), "{needed}");
        }
        for not in [
            "LD_PRELOAD",
            "AWS_SECRET_ACCESS_KEY",
            "PDS_PROFILE",
            "PDS_NO_START",
            "NOTIFY_SOCKET",
            "OPENSSL_CONF",
        ] {
            assert!(!daemons_need(OsStr::new(not)), "{not}");
        }
    }
}
