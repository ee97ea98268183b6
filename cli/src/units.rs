//! The daemons as units of the user's systemd, where they are installed: started and stopped by systemctl(1).

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::stop::{Waited, wait_readable};

/// What all units belong to.
const TARGET: &str = "pds.target";
/// All units, also those that somebody else started.
const ALL: [&str; 3] = [TARGET, "pds-*.service", "pds-*.socket"];
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

/// The user's systemd, with our units.
pub(crate) struct Units(());

impl Units {
    /// The units, if they are installed, the user's systemd runs, and it would start daemons with the same folders.
    pub(crate) fn installed() -> Option<Self> {
        let moved = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if MOVED.iter().any(moved) || !manager_socket()?.is_socket() {
            return None;
        }
        let loaded = answer(&["show", "--property=LoadState", "--value", TARGET])?;
        if loaded.trim_ascii() != b"loaded" {
            return None;
        }
        let shared: Vec<(&str, OsString)> =
            SHARED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
        let same = shared.iter().all(|(_, value)| value.is_empty())
            || answer(&["show-environment"]).is_some_and(|known| knows(&known, &shared));
        same.then_some(Self(()))
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

/// What systemctl writes, if it has succeeded.
fn answer(arguments: &[&str]) -> Option<Vec<u8>> {
    let output = systemctl(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout)
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
