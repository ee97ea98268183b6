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
use rustix::event::{PollFd, PollFlags, poll};
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

/// The launcher's side. What is started here is outside of the launcher's sandbox, so it has to be started before that is
/// entered, and cannot be started again: a launcher whose spawner or witness has ended ends too, and begins anew.
#[derive(Debug)]
pub struct Spawner {
    channel: Mutex<UnixStream>,
    /// The spawner and the witness; each is readable when it has ended.
    processes: [OwnedFd; 2],
    word: String,
}

impl Spawner {
    /// Starts a spawner that is this executable, which is the launcher's own, and with it this witness.
    ///
    /// # Errors
    /// One of them cannot be started.
    pub fn start(executable: impl Into<PathBuf>, witness: Witness) -> io::Result<Self> {
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_write_timeout(Some(PATIENCE))?;
        channel.set_read_timeout(Some(PATIENCE))?;
        let process = Command::new(executable.into())
            .arg0(env!("CARGO_PKG_NAME"))
            .arg(SPAWNER_ARGUMENT)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(witness.file()?)
            .spawn()?;
        let spawner = pidfd_open(process_number(process.id())?, PidfdFlags::NONBLOCK)?;
        let (number, _) = receive::<u32>(&channel)?;
        let shown = pidfd_open(process_number(number)?, PidfdFlags::NONBLOCK)?;
        witness.publish(number)?;
        Ok(Self {
            channel: Mutex::new(channel),
            processes: [spawner, shown],
            word: witness.word().to_owned(),
        })
    }

    /// What the witness shows.
    pub(crate) fn word(&self) -> &str {
        &self.word
    }

    /// Returns when the spawner or its witness has ended.
    ///
    /// # Errors
    /// Nothing can be waited for.
    pub(crate) fn wait_end(&self) -> io::Result<()> {
        let mut both = self.processes.each_ref().map(|process| PollFd::new(process, PollFlags::IN));
        retry_on_intr(|| poll(&mut both, None))?;
        Ok(())
    }

    /// A new monitor, by the launcher's end of its socket. Blocks, briefly.
    ///
    /// # Errors
    /// The spawner has ended, or does not read.
    pub(crate) fn monitor(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        send(&channel, &(), &[theirs.as_fd()])?;
        Ok(ours)
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
