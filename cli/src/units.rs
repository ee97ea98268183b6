//! The daemons as units of the user's systemd, where they are installed: started and stopped by systemctl(1).

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::stop::{Waited, wait_readable};

/// What all units belong to.
pub(crate) const TARGET: &str = "pds.target";
/// All units, also those that somebody else started.
const ALL: [&str; 3] = [TARGET, "pds-*.service", "pds-*.socket"];
/// Each of them.
const EACH: [&str; 8] = [
    TARGET,
    "pds-bus.socket",
    "pds-bus.service",
    "pds-profile.service",
    "pds-secrets.service",
    "pds-launcher.service",
    "pds-spawner.socket",
    "pds-spawner.service",
];
/// How long systemctl may take to answer a question.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Variables that move our folders; the units know nothing of them.
const MOVED: [&str; 4] = ["PDS_CONFIG_DIR", "PDS_DATA_DIR", "PDS_STATE_DIR", "PDS_RUNTIME_DIR"];
/// Variables that move the folders of all programs, which systemd may have been told as well.
const SHARED: [&str; 3] = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"];

/// Why systemd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitsError {
    #[error("systemctl cannot be run: {0}")]
    Run(#[from] io::Error),
    #[error("systemctl --user {verb} failed ({status})")]
    Failed { verb: &'static str, status: ExitStatus },
    #[error("systemctl --user {verb} did not end in time")]
    TimedOut { verb: &'static str },
}

impl UnitsError {
    /// What to do next.
    pub(crate) fn next(&self) -> String {
        "see `systemctl --user status 'pds*'` and `journalctl --user -u 'pds*'`".to_owned()
    }
}

/// Whether the daemons are units here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Installation {
    /// No systemd of the user runs.
    NoManager,
    /// One runs, and does not know our units.
    NotInstalled,
    /// It would start daemons with other folders than ours.
    Elsewhere,
    /// It does not answer.
    Unknown,
    /// Our units, as it knows them.
    Units(Vec<UnitState>),
}

/// A unit as systemd knows it (the properties are those of systemctl(1)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitState {
    /// `Id`.
    pub(crate) name: String,
    /// `LoadState`.
    pub(crate) load: String,
    /// `ActiveState`.
    pub(crate) active: String,
    /// Whether its `UnitFileState` is `enabled`.
    pub(crate) enabled: bool,
    /// `NeedDaemonReload`.
    pub(crate) needs_reload: bool,
}

/// The user's systemd, with our units.
pub(crate) struct Units(());

impl Units {
    /// The units, if they are installed, the user's systemd runs, and it would start daemons with the same folders.
    pub(crate) fn installed() -> Option<Self> {
        if moved() || !manager_socket()?.is_socket() {
            return None;
        }
        let loaded = answer(&["show", "--property=LoadState", "--value", TARGET])?;
        (loaded.trim_ascii() == b"loaded" && same_folders()).then_some(Self(()))
    }

    /// All that can be said of them.
    pub(crate) fn looked_at() -> Installation {
        if !manager_socket().is_some_and(|found| found.is_socket()) {
            return Installation::NoManager;
        }
        let properties = "--property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload";
        let question: Vec<&str> = ["show", properties].into_iter().chain(EACH).collect();
        let Some(shown) = answer(&question) else { return Installation::Unknown };
        let units = states(&String::from_utf8_lossy(&shown));
        match units.iter().find(|unit| unit.name == TARGET) {
            None => Installation::Unknown,
            Some(target) if target.load == "not-found" => Installation::NotInstalled,
            Some(_) if moved() || !same_folders() => Installation::Elsewhere,
            Some(_) => Installation::Units(units),
        }
    }

    /// Starts all daemons, and waits until they serve.
    pub(crate) fn start(&self, deadline: Instant) -> Result<(), UnitsError> {
        run("start", &[TARGET], deadline)
    }

    /// Whether any of them runs, or would be started when the bus is asked for something.
    pub(crate) fn are_active(&self) -> bool {
        answer(&[
            "list-units",
            "--no-legend",
            "--plain",
            "--state=active,activating,reloading",
            ALL[1],
            ALL[2],
        ])
        .is_some_and(|listed| !listed.trim_ascii().is_empty())
    }

    /// Ends all daemons, in order, and waits until they are gone.
    pub(crate) fn stop(&self, deadline: Instant) -> Result<(), UnitsError> {
        run("stop", &ALL, deadline)
    }
}

/// Whether a variable gives us other folders than the units have.
fn moved() -> bool {
    MOVED.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Whether systemd gives the units the folders that our environment gives us.
fn same_folders() -> bool {
    let shared: Vec<(&str, OsString)> =
        SHARED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
    shared.iter().all(|(_, value)| value.is_empty())
        || answer(&["show-environment"]).is_some_and(|known| knows(&known, &shared))
}

/// The units of what `systemctl show` writes: a property a line, an empty line between two units.
fn states(shown: &str) -> Vec<UnitState> {
    let unit = |lines: &str| {
        let property = |name: &str| {
            let value = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().to_owned()
        };
        UnitState {
            name: property("Id"),
            load: property("LoadState"),
            active: property("ActiveState"),
            enabled: property("UnitFileState") == "enabled",
            needs_reload: property("NeedDaemonReload") == "yes",
        }
    };
    shown.split("\n\n").filter(|lines| !lines.trim().is_empty()).map(unit).collect()
}

/// What lies where the user's systemd listens.
fn manager_socket() -> Option<std::fs::FileType> {
    let runtime = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    Some(std::fs::metadata(runtime.join(Path::new("systemd/private"))).ok()?.file_type())
}

/// Whether systemd's environment, as it shows it, gives these variables the same values.
fn knows(shown: &[u8], variables: &[(&str, OsString)]) -> bool {
    variables.iter().filter(|(_, value)| !value.is_empty()).all(|(name, value)| {
        let mut line = format!("{name}=").into_bytes();
        line.extend(value.as_encoded_bytes());
        shown.split(|byte| *byte == b'\n').any(|shown| shown == line)
    })
}

fn systemctl(arguments: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.args(["--user", "--no-ask-password", "--quiet"]).args(arguments).stdin(Stdio::null());
    command
}

/// What systemctl writes, if it has succeeded, and within the time that a question may take.
fn answer(arguments: &[&str]) -> Option<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    let mut child = systemctl(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut shown = Vec::new();
    let read = child.stdout.take().and_then(|mut pipe| read_until(&mut pipe, &mut shown, deadline).ok());
    if read.is_none() {
        child.kill().ok()?;
    }
    let status = child.wait().ok()?;
    (read.is_some() && status.success()).then_some(shown)
}

fn read_until(pipe: &mut ChildStdout, into: &mut Vec<u8>, deadline: Instant) -> io::Result<()> {
    let mut part = [0; 4096];
    loop {
        match wait_readable(pipe.as_fd(), deadline)? {
            Waited::Readable => match pipe.read(&mut part)? {
                0 => return Ok(()),
                length => into.extend_from_slice(part.get(..length).unwrap_or_default()),
            },
            Waited::TimedOut => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn run(verb: &'static str, units: &[&str], deadline: Instant) -> Result<(), UnitsError> {
    let arguments: Vec<&str> = [verb].into_iter().chain(units.iter().copied()).collect();
    // What it says goes to standard error, as a message of ours.
    let mut child = systemctl(&arguments).stdout(Stdio::null()).spawn()?;
    match wait(&child, deadline) {
        Ok(Waited::Readable) => {}
        other => {
            child.kill()?;
            child.wait()?;
            return Err(other.err().map_or(UnitsError::TimedOut { verb }, UnitsError::Run));
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(UnitsError::Failed { verb, status }) }
}

fn wait(child: &Child, deadline: Instant) -> io::Result<Waited> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    wait_readable(pidfd_open(pid, PidfdFlags::empty())?.as_fd(), deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_from_what_systemctl_shows() {
        let shown = "Id=pds.target\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n\n\
            NeedDaemonReload=yes\nId=pds-bus.service\nLoadState=loaded\nActiveState=failed\nUnitFileState=static\n";
        let [target, bus] = states(shown).try_into().unwrap();
        assert_eq!((target.name.as_str(), target.enabled, target.needs_reload), (TARGET, true, false));
        assert_eq!((bus.active.as_str(), bus.enabled, bus.needs_reload), ("failed", false, true));
        assert_eq!(states(""), []);
    }

    #[test]
    fn systemd_has_to_know_the_same_folders() {
        let shown = b"HOME=/home/u\nXDG_DATA_HOME=/data\nPATH=/bin\n";
        let data = |value: &str| vec![("XDG_DATA_HOME", OsString::from(value))];
        assert!(knows(shown, &[]));
        assert!(knows(shown, &data("/data")));
        assert!(knows(shown, &data("")), "an empty one is none");
        assert!(!knows(shown, &data("/dat")));
        assert!(!knows(b"HOME=/home/u\n", &data("/data")));
    }
}
