//! Starting one child.
//!
//! ```text
//! launcher --asks--> spawner --copies itself--> monitor (setsid) --copies itself--> stage (own process group)
//!    |  plan without secrets ---------------------->|                                 |
//!    |  plan with secrets, streams, directory --------------------------------------->| --executes--> command
//!                                                   monitor <--control--> pds
//! ```
//! No stage does anything before its plan comes, and the launcher sends it only when the monitor is ready.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_types::protocol::launcher::{ControllingTerminal, LauncherDenial};
use rustix::io::Errno;

use crate::handover::{MonitorPlan, MonitorReport, StagePlan, StageReport, Step, StepError, receive, send};
use crate::spawner::Spawner;

/// A program ready to be started.
#[derive(Debug)]
pub struct Child {
    /// What the stage is told.
    pub plan: StagePlan,
    /// Its standard input, output and error.
    pub streams: [OwnedFd; 3],
    /// Its working directory.
    pub directory: OwnedFd,
    /// Open files that it gets besides, from the first number after the streams on.
    pub files: Vec<OwnedFd>,
    /// Its own file, if it is to be executed from there.
    pub image: Option<OwnedFd>,
    /// Where its monitor speaks with `pds`.
    pub control: OwnedFd,
    /// The pseudo-terminal that shall control it.
    pub terminal: ControllingTerminal,
    /// That terminal, if it is none of the streams.
    pub terminal_apart: Option<OwnedFd>,
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is nobody to make the monitor's process.
    #[error("starting the monitor: {0}")]
    Monitor(#[source] io::Error),
    /// The monitor or the stage did not answer, in time or at all.
    #[error("handing over to the child's process: {0}")]
    HandOver(#[source] io::Error),
    /// The monitor or the stage could not do its part.
    #[error("{0}")]
    Step(#[from] StepError),
    /// There is no terminal where it should be.
    #[error("a terminal was announced, and there is none")]
    NoTerminal,
}

/// Starts a child and gives the socket of its monitor, which says on it how the child ended; once this has returned,
/// nothing of its plan is in this process's memory. `announce` is told its number before it is executed; what it makes of that is given
/// on. Must be called within a tokio runtime.
///
/// # Errors
/// Anything but the command's being executed. The command then never runs.
pub async fn start<T: Send + 'static>(
    spawner: &Arc<Spawner>,
    child: Child,
    deadline: Instant,
    announce: impl FnOnce(u32) -> T + Send + 'static,
) -> Result<(T, UnixStream), SpawnError> {
    let spawner = Arc::clone(spawner);
    let handed_over = tokio::task::spawn_blocking(move || {
        let monitor = spawner.monitor().map_err(SpawnError::Monitor)?;
        hand_over(&monitor, child, deadline, announce).map(|announced| (announced, monitor))
    });
    handed_over.await.map_err(|error| SpawnError::HandOver(error.into()))?
}

/// Gives monitor and stage their plans and waits until the command is executed. Both end by themselves when this
/// process drops its ends of their sockets.
fn hand_over<T>(
    monitor: &UnixStream,
    child: Child,
    deadline: Instant,
    announce: impl FnOnce(u32) -> T,
) -> Result<T, SpawnError> {
    let (stage, stage_end) = UnixStream::pair().map_err(SpawnError::HandOver)?;
    for socket in [monitor, &stage] {
        limit_waiting(socket, deadline).map_err(SpawnError::HandOver)?;
    }
    send_monitor_plan(monitor, &child, stage_end)?;
    let announced = match receive(monitor).map_err(SpawnError::HandOver)?.0 {
        MonitorReport::Ready { pid } => announce(pid),
        MonitorReport::Failed(error) => return Err(error.into()),
        MonitorReport::Ended(_) => return Err(SpawnError::HandOver(io::ErrorKind::InvalidData.into())),
    };
    let given = child.streams.iter().chain([&child.directory]).chain(&child.files).chain(&child.image);
    let descriptors: Vec<BorrowedFd<'_>> = given.map(AsFd::as_fd).collect();
    send(&stage, &child.plan, &descriptors).map_err(SpawnError::HandOver)?;
    drop(child);
    wait_for_execution(&stage)?;
    Ok(announced)
}

/// Sends the monitor its plan. `stage_end` is dropped, so that the stage alone holds that end of its socket.
fn send_monitor_plan(monitor: &UnixStream, child: &Child, stage_end: UnixStream) -> Result<(), SpawnError> {
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![stage_end.as_fd(), child.control.as_fd()];
    let has_terminal = child.terminal != ControllingTerminal::Absent;
    if has_terminal {
        let candidates = match child.terminal {
            ControllingTerminal::Apart => child.terminal_apart.as_slice(),
            _ => &child.streams,
        };
        let terminal = candidates.iter().find(|candidate| rustix::termios::isatty(candidate));
        descriptors.push(terminal.ok_or(SpawnError::NoTerminal)?.as_fd());
    }
    let exposed = child.plan.files.iter().find(|files| files.exposed);
    let plan = MonitorPlan { terminal: has_terminal, folder: exposed.map(|files| files.folder.clone()) };
    send(monitor, &plan, &descriptors).map_err(SpawnError::HandOver)
}

/// Waits for the stage to say that it executes the command, and for its close-on-exec socket to end without more.
fn wait_for_execution(stage: &UnixStream) -> Result<(), SpawnError> {
    let mut executing = false;
    loop {
        match receive(stage) {
            Ok((StageReport::Executing, _)) => executing = true,
            Ok((StageReport::Failed(error), _)) => return Err(error.into()),
            Err(error) if executing && error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(SpawnError::HandOver(error)),
        }
    }
}

/// Lets no read or write of the socket last beyond the deadline.
fn limit_waiting(socket: &UnixStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    socket.set_read_timeout(Some(left))?;
    socket.set_write_timeout(Some(left))
}

/// What the asker is told, by the codes of a shell: 127 for a command that is not there, 126 for one that cannot be
/// executed, 125 for everything else.
impl From<SpawnError> for LauncherDenial {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Step(StepError { step: Step::Execute, errno }) => {
                let reason = io::Error::from_raw_os_error(errno).to_string();
                match Errno::from_raw_os_error(errno) {
                    Errno::NOENT => Self::NotFound,
                    Errno::TOOBIG | Errno::NOMEM | Errno::AGAIN | Errno::NFILE | Errno::MFILE => {
                        Self::Spawn(reason)
                    }
                    _ => Self::NotExecutable(reason),
                }
            }
            other => Self::Spawn(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(reports: &[StageReport]) -> Result<(), SpawnError> {
        let (ours, stage) = UnixStream::pair().unwrap();
        for report in reports {
            send(&stage, report, &[]).unwrap();
        }
        drop(stage);
        wait_for_execution(&ours)
    }

    #[test]
    fn only_a_stage_that_said_so_before_its_end_has_executed() {
        let failed = StepError { step: Step::Execute, errno: 2 };
        assert!(reported(&[StageReport::Executing]).is_ok());
        assert!(matches!(reported(&[]), Err(SpawnError::HandOver(_))));
        assert!(matches!(reported(&[StageReport::Failed(failed)]), Err(SpawnError::Step(_))));
        let result = reported(&[StageReport::Executing, StageReport::Failed(failed)]);
        assert!(matches!(result, Err(SpawnError::Step(error)) if error == failed));
    }

    #[test]
    fn only_a_command_that_cannot_be_executed_gets_the_codes_of_a_shell() {
        let denial = |step, errno: Errno| {
            LauncherDenial::from(SpawnError::Step(StepError { step, errno: errno.raw_os_error() }))
        };
        assert_eq!(denial(Step::Execute, Errno::NOENT), LauncherDenial::NotFound);
        for errno in [Errno::ACCESS, Errno::NOEXEC, Errno::ISDIR, Errno::NOTDIR, Errno::TXTBSY] {
            assert!(matches!(denial(Step::Execute, errno), LauncherDenial::NotExecutable(_)));
        }
        assert!(matches!(denial(Step::Execute, Errno::TOOBIG), LauncherDenial::Spawn(_)));
        assert!(matches!(denial(Step::Directory, Errno::NOENT), LauncherDenial::Spawn(_)));
    }
}
