//! The spawner: a small process beside the launcher that makes the monitors, by copying itself, and does nothing else.
//!
//! It is a program of its own, started once, because the launcher has threads and keys, and a copy of it would have them
//! too. It never sees a plan, and so never a secret.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid};

use crate::fork::{Copied, SingleThread, fork};
use crate::handover::{MonitorReport, Step, StepError, receive, send};
use crate::witness::{self, Witness};
use crate::{monitor, own_process};

/// The argument that makes the executable a spawner.
pub const SPAWNER_ARGUMENT: &str = "--spawner";
/// This process's own executable, the very file, even if its path leads to a newer one by now (proc(5)).
pub const OWN_EXECUTABLE: &str = "/proc/self/exe";
/// How long the spawner may leave a request unread. It only ever reads.
const PATIENCE: Duration = Duration::from_secs(5);

/// The launcher's side: starts the spawner when one is needed, and again when it has ended.
#[derive(Debug)]
pub struct Spawner {
    executable: PathBuf,
    witness: Witness,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    channel: UnixStream,
    process: std::process::Child,
    /// The witness; it is readable when that has ended.
    witness: OwnedFd,
}

impl Spawner {
    /// A spawner that is this executable, which is the launcher's own, and beside which there is this witness.
    #[must_use]
    pub fn new(executable: impl Into<PathBuf>, witness: Witness) -> Self {
        Self { executable: executable.into(), witness, running: Mutex::default() }
    }

    /// What the witness shows.
    pub(crate) fn word(&self) -> &str {
        self.witness.word()
    }

    /// Starts the spawner anew if its witness has ended.
    pub(crate) fn renew(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = |running: &mut Running| {
            !matches!(poll(&mut [PollFd::new(&running.witness, PollFlags::IN)], Some(&now)), Ok(0))
        };
        if let Some(ended) = running.take_if(ended) {
            tracing::warn!("the witness has ended and is started again, with the spawner");
            ended.end();
            *running = self.start_process().inspect_err(|error| tracing::error!(%error, "no spawner")).ok();
        }
    }

    /// Starts the spawner now rather than when it is needed first.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            *running = Some(self.start_process()?);
        }
        Ok(())
    }

    /// A new monitor, by the launcher's end of its socket. Blocks, briefly.
    ///
    /// # Errors
    /// There is no spawner, and none can be started.
    pub(crate) fn monitor(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spawner) = running.as_ref()
            && send(&spawner.channel, &(), &[theirs.as_fd()]).is_ok()
        {
            return Ok(ours);
        }
        if let Some(ended) = running.take() {
            tracing::warn!("the spawner has ended and is started again");
            ended.end();
        }
        let spawner = running.insert(self.start_process()?);
        send(&spawner.channel, &(), &[theirs.as_fd()])?;
        Ok(ours)
    }

    fn start_process(&self) -> io::Result<Running> {
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_write_timeout(Some(PATIENCE))?;
        channel.set_read_timeout(Some(PATIENCE))?;
        let process = Command::new(&self.executable)
            .arg0(env!("CARGO_PKG_NAME"))
            .arg(SPAWNER_ARGUMENT)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(self.witness.file()?)
            .spawn()?;
        let (number, _) = receive::<u32>(&channel)?;
        let witness = pidfd_open(process_number(number)?, PidfdFlags::empty())?;
        self.witness.publish(number)?;
        Ok(Running { channel, process, witness })
    }
}

impl Running {
    /// It hangs at most: whatever it is doing, it is of no use any more.
    fn end(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn process_number(number: u32) -> io::Result<Pid> {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The whole life of a spawner: it ends with the launcher. In a copy of the process, that of a monitor.
#[must_use]
pub fn run() -> ExitCode {
    let (Ok(channel), Ok(alone), Ok(ended)) = (own_process::prepare(), SingleThread::check(), hear_of_ends())
    else {
        return ExitCode::FAILURE;
    };
    let _ = rustix::thread::set_name(c"pds-spawner");
    let own = getpid();
    match fork(&alone) {
        Ok(Copied::Copy) => {
            drop((channel, ended));
            return witness::run(own);
        }
        Ok(Copied::Original(witness)) => {
            if send(&channel, &witness.as_raw_nonzero().get().unsigned_abs(), &[]).is_err() {
                return ExitCode::FAILURE;
            }
        }
        Err(_) => return ExitCode::FAILURE,
    }
    serve(&alone, channel, ended)
}

/// Makes monitors, as they are asked for.
fn serve(alone: &SingleThread, channel: UnixStream, ended: SignalFd) -> ExitCode {
    loop {
        let mut waiting = [PollFd::new(&channel, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut waiting, None)).is_err() {
            return ExitCode::FAILURE;
        }
        let (asked, ends) = (!waiting[0].revents().is_empty(), !waiting[1].revents().is_empty());
        if ends {
            reap(&ended);
        }
        if !asked {
            continue;
        }
        let Ok(((), descriptors)) = receive::<()>(&channel) else { return ExitCode::SUCCESS };
        for socket in descriptors.into_iter().map(UnixStream::from) {
            match fork(alone) {
                Ok(Copied::Copy) => {
                    drop((channel, ended));
                    return monitor::run(alone, socket);
                }
                Ok(Copied::Original(_)) => {}
                Err(error) => {
                    let failed = MonitorReport::Failed(StepError::new(Step::Stage, error));
                    let _ = send(&socket, &failed, &[]);
                }
            }
        }
    }
}

/// Blocks all signals, for monitors are copied with that, and opens the queue of SIGCHLD.
fn hear_of_ends() -> nix::Result<SignalFd> {
    SigSet::all().thread_block()?;
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Forgets the monitors that have ended.
fn reap(ended: &SignalFd) {
    while let Ok(Some(_)) = ended.read_signal() {}
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    while let Ok(Some(_)) = retry_on_intr(|| waitid(WaitId::All, options)) {}
}
