//! The spawner: a small process beside the launcher that makes the monitors, by copying itself, and does nothing else.
//!
//! It is a program of its own, started once, because the launcher has threads and keys, and a copy of it would have them
//! too. It never sees a plan, and so never a secret.
//!
//! Where systemd starts the launcher it starts the spawner as well, as a unit of its own: what is taken from the unit of
//! the launcher, the programs would miss. The two know each other by the sockets that they were given
//! (`core_daemon::Units`); elsewhere one starts the other. Either way one spawner serves one launcher, and ends with it.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use core_daemon::Units;
use core_ipc::namespaces;
use core_types::paths::Paths;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{Pid, WaitOptions, getpid, wait, waitpid};

use crate::confinement::{Facts, Free};
use crate::fork::{Copied, SingleThread, fork};
use crate::handover::{Beginning, MonitorReport, Step, StepError, receive, send};
use crate::witness::{self, Witness};
use crate::{monitor, own_process, secret_files};

/// The argument that makes the executable a spawner.
pub const SPAWNER_ARGUMENT: &str = "--spawner";
/// This process's own executable, the very file, even if its path leads to a newer one by now (proc(5)).
pub const OWN_EXECUTABLE: &str = "/proc/self/exe";
/// The name under which systemd gives the launcher its socket.
const LAUNCHER: &str = env!("CARGO_PKG_NAME");
/// How long either may leave the other waiting.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a stranger may hold the spawner up that has connected to it and says nothing.
const PATIENCE_WITH_STRANGERS: Duration = Duration::from_secs(1);

/// The launcher's side. What is started here is outside of the launcher's sandbox, so it has to be there before that is
/// entered, and cannot be had again: a launcher whose spawner or witness has ended ends too, and begins anew.
#[derive(Debug)]
pub struct Spawner {
    channel: Mutex<UnixStream>,
    /// The same, to see its end by.
    end: UnixStream,
    /// What a process is like that is not confined.
    free: Free,
    /// Whether files can be laid over a folder for one program alone.
    lays_over: bool,
}

impl Spawner {
    /// Starts a spawner that is this executable, which is the launcher's own, and with it this witness.
    ///
    /// # Errors
    /// One of them cannot be started.
    pub fn start(executable: impl Into<PathBuf>, witness: &Witness) -> io::Result<Self> {
        let (channel, theirs) = UnixStream::pair()?;
        Command::new(executable.into())
            .arg0(LAUNCHER)
            .arg(SPAWNER_ARGUMENT)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        Self::begin(channel, witness, None)
    }

    /// Has systemd start the spawner's unit, or finds it started; `name` is the socket by which systemd started us.
    ///
    /// # Errors
    /// There is no such unit, it is not systemd that answers for it, or it does not answer.
    pub fn of_unit(paths: &Paths, name: &OwnedFd, witness: &Witness) -> io::Result<Self> {
        let units = Units::of(name, &paths.name_socket(LAUNCHER))?;
        let path = paths.spawner_socket();
        let channel = UnixStream::connect(&path)?;
        if !units.lead(&channel, &path) {
            let what = format!("it is not systemd that listens at {}", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Self::begin(channel, witness, Some(name))
    }

    /// Tells the spawner whom it serves, and has it make the witness.
    fn begin(channel: UnixStream, witness: &Witness, name: Option<&OwnedFd>) -> io::Result<Self> {
        channel.set_write_timeout(Some(PATIENCE))?;
        channel.set_read_timeout(Some(PATIENCE))?;
        let shown = witness.file()?;
        let descriptors: Vec<_> = [&shown].into_iter().chain(name).map(AsFd::as_fd).collect();
        send(&channel, &(), &descriptors)?;
        let (Beginning { spawner, witness: number, namespaces, lays_over }, _) = receive(&channel)?;
        witness.publish(number)?;
        let facts = Facts::of(&spawner.to_string())?;
        let free = Free { facts, namespaces, word: witness.word().to_owned() };
        Ok(Self { end: channel.try_clone()?, channel: Mutex::new(channel), free, lays_over })
    }

    /// What callers should be like: nothing holds them back that does not hold the spawner.
    pub(crate) fn free(&self) -> &Free {
        &self.free
    }

    /// Whether the kernel lets its copies lay files over a folder that no other process sees there.
    pub(crate) fn lays_over(&self) -> bool {
        self.lays_over
    }

    /// Returns when the spawner or its witness has ended.
    ///
    /// # Errors
    /// Nothing can be waited for.
    pub(crate) fn wait_end(&self) -> io::Result<()> {
        retry_on_intr(|| poll(&mut [PollFd::new(&self.end, PollFlags::RDHUP)], None))?;
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

/// The whole life of a spawner: it ends with the launcher. In a copy of the process, that of a monitor.
#[must_use]
pub fn run() -> ExitCode {
    let (Ok(socket), Ok(alone), Ok(ended)) = (own_process::prepare(), SingleThread::check(), hear_of_ends())
    else {
        return ExitCode::FAILURE;
    };
    let _ = rustix::thread::set_name(c"pds-spawner");
    let asked = match socket_acceptconn(&socket) {
        Ok(true) => launcher_of_unit(socket),
        _ => first_word(socket.into()),
    };
    let (channel, shown) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            say(format_args!("there is no launcher: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let own = getpid();
    // In a copy, because whoever has tried it cannot go back.
    let lays_over = match fork(&alone) {
        Ok(Copied::Copy) => {
            return secret_files::try_out().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        Ok(Copied::Original(attempt)) => retry_on_intr(|| waitpid(Some(attempt), WaitOptions::empty()))
            .is_ok_and(|ended| ended.is_some_and(|(_, status)| status.exit_status() == Some(0))),
        Err(_) => return ExitCode::FAILURE,
    };
    match fork(&alone) {
        Ok(Copied::Copy) => {
            drop((channel, ended));
            witness::run(own, shown)
        }
        Ok(Copied::Original(witness)) => {
            drop(shown);
            let number = |pid: Pid| pid.as_raw_nonzero().get().unsigned_abs();
            let beginning = Beginning {
                spawner: number(own),
                witness: number(witness),
                namespaces: namespaces::of("self"),
                lays_over,
            };
            match send(&channel, &beginning, &[]) {
                Ok(()) => serve(&alone, channel, ended, witness),
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// The channel to the launcher that started this process, and the file that the witness is to show.
fn first_word(channel: UnixStream) -> io::Result<(UnixStream, OwnedFd)> {
    let ((), mut descriptors) = receive::<()>(&channel)?;
    let shown = descriptors.pop().ok_or(io::ErrorKind::InvalidData)?;
    Ok((channel, shown))
}

/// The same for the launcher that systemd started. Whoever else comes is turned away: what is started here is outside
/// of any sandbox. Neither our socket nor the launcher's stays open, for the witness is a copy of this process that others
/// can take descriptors from.
fn launcher_of_unit(listener: OwnedFd) -> io::Result<(UnixStream, OwnedFd)> {
    let paths = Paths::from_environment().map_err(io::Error::other)?;
    let units = Units::of(&listener, &paths.spawner_socket())?;
    let listener = UnixListener::from(listener);
    loop {
        let (channel, _) = listener.accept()?;
        if let Ok(shown) = shown_by_launcher(&channel, &units, &paths) {
            return Ok((channel, shown));
        }
        say(format_args!("turned away a process that is not the launcher"));
    }
}

/// Tells whoever looks after this process, by the journal or the daemons' log.
fn say(what: std::fmt::Arguments<'_>) {
    // Nobody is left to hear of it.
    let _ = writeln!(io::stderr(), "pds-spawner: {what}");
}

/// The file that the witness is to show, if it is the launcher that sends it.
fn shown_by_launcher(channel: &UnixStream, units: &Units, paths: &Paths) -> io::Result<OwnedFd> {
    channel.set_read_timeout(Some(PATIENCE_WITH_STRANGERS))?;
    let ((), descriptors) = receive::<()>(channel)?;
    channel.set_read_timeout(Some(PATIENCE))?;
    let mut descriptors = descriptors.into_iter();
    let shown = descriptors.next().ok_or(io::ErrorKind::InvalidData)?;
    let names: Vec<OwnedFd> = descriptors.collect();
    if units.vouch(&paths.name_socket(LAUNCHER), &names) {
        return Ok(shown);
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Makes monitors, as they are asked for.
fn serve(alone: &SingleThread, channel: UnixStream, ended: SignalFd, witness: Pid) -> ExitCode {
    loop {
        let mut waiting = [PollFd::new(&channel, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut waiting, None)).is_err() {
            return ExitCode::FAILURE;
        }
        let (asked, ends) = (!waiting[0].revents().is_empty(), !waiting[1].revents().is_empty());
        if ends && reap(&ended).contains(&witness) {
            // The launcher sees the end of the channel.
            return ExitCode::FAILURE;
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

/// Forgets the copies that have ended, and tells which.
fn reap(ended: &SignalFd) -> Vec<Pid> {
    while let Ok(Some(_)) = ended.read_signal() {}
    let next = || retry_on_intr(|| wait(WaitOptions::NOHANG)).ok().flatten();
    std::iter::from_fn(next).map(|(pid, _)| pid).collect()
}
