//! The monitor: leads the session of one child, tells `pds` how the child stops and ends, and the launcher how it ends,
//! and does what `pds` asks.
//!
//! A session leader whose parent is outside the session gets no SIGTSTP from the kernel (its group is orphaned),
//! so the command cannot lead; this process leads in its place, as the shell does in a terminal. It never has a
//! secret: those go to the stage on a socket of its own.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use core_ipc::terminal_state;
use core_types::protocol::launcher::{ChildCommand, ChildEvent, TerminalState};
use core_types::protocol::profile::ChildExit;
use core_types::protocol::{decode, encode};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgrp, ioctl_tiocsctty, kill_process, kill_process_group, setpgid,
    setsid, waitid,
};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr, tcsetpgrp};

use crate::fork::{Copied, SingleThread, fork};
use crate::handover::{MonitorPlan, MonitorReport, Step, StepError, descriptors_of, receive, send};
use crate::secret_files;
use crate::stage::{self, EXECUTING};

/// Longest [`ChildCommand`] as bytes, and more.
const COMMAND_BYTES_MAX: usize = 128;

/// The whole life of a monitor, with its socket to the launcher. In a copy of the process, that of a stage.
#[must_use]
pub(crate) fn run(alone: &SingleThread, launcher: UnixStream) -> ExitCode {
    let _ = rustix::thread::set_name(c"pds-monitor");
    let mut monitor = match Monitor::start(alone, &launcher) {
        Ok(Role::Monitor(monitor)) => monitor,
        Ok(Role::Stage { launcher: socket, monitor }) => {
            drop(launcher);
            return stage::run(socket, monitor);
        }
        Err(error) => {
            let _ = send(&launcher, &MonitorReport::Failed(error), &[]);
            return ExitCode::FAILURE;
        }
    };
    monitor.obey_waiting_commands();
    let ready = MonitorReport::Ready { pid: monitor.child.as_raw_nonzero().get().unsigned_abs() };
    // Without an answer the launcher gives up, the stage sees its socket end, and the loop sees the stage end.
    let _ = send(&launcher, &ready, &[]);
    let served = monitor.serve(&launcher);
    // The launcher has heard all there is when this is closed.
    drop(launcher);
    monitor.settle_terminal();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What the monitor woke up for.
struct Woken {
    stage_spoke: bool,
    child_changed: bool,
    asked: bool,
}

/// What came of `pds`.
enum Heard {
    Nothing,
    Command(ChildCommand, Option<OwnedFd>),
    /// It is gone.
    End,
}

/// How a child ended.
#[derive(Clone, Copy)]
enum End {
    Exited(i32),
    Killed(i32),
}

impl From<End> for ChildEvent {
    fn from(end: End) -> Self {
        match end {
            End::Exited(code) => Self::Exited(code),
            End::Killed(signal) => Self::Killed(signal),
        }
    }
}

impl From<End> for ChildExit {
    fn from(end: End) -> Self {
        match end {
            End::Exited(code) => Self::Code(code),
            End::Killed(signal) => Self::Signal(signal),
        }
    }
}

/// What a process is once there is a stage.
enum Role {
    Monitor(Monitor),
    /// The stage, by its socket to the launcher and its pipe to the monitor.
    Stage {
        launcher: UnixStream,
        monitor: OwnedFd,
    },
}

/// A terminal that `pds` has changed.
struct Taken {
    device: OwnedFd,
    found: TerminalState,
    made: TerminalState,
}

impl Taken {
    /// Puts it back, unless somebody else has changed it meanwhile, such as a shell that noticed first.
    fn put_back(self) {
        let now = tcgetattr(&self.device).ok().filter(|now| terminal_state::of(now) == self.made);
        if let Some(now) = now {
            let found = terminal_state::with(now, &self.found);
            let _ = tcsetattr(&self.device, OptionalActions::Now, &found);
        }
    }
}

/// One child that has not been reaped, so its process id is its own.
struct Monitor {
    child: Pid,
    child_changes: SignalFd,
    /// `None` once `pds` is gone.
    control: Option<OwnedFd>,
    /// The user's terminal, while `pds` has changed it.
    taken: Option<Taken>,
    terminal: Option<OwnedFd>,
    /// What the stage says about becoming the command; ends when it has, or itself ends. `None` after that.
    execution: Option<OwnedFd>,
    /// The last that it said.
    last_word: Option<u8>,
    /// What goes with the child.
    folder: Option<String>,
}

impl Monitor {
    /// Opens the session and starts the stage in a process group of its own.
    fn start(alone: &SingleThread, launcher: &UnixStream) -> Result<Role, StepError> {
        let (plan, descriptors) = receive::<MonitorPlan>(launcher).map_err(StepError::at(Step::Plan))?;
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| StepError::new(Step::Plan, Errno::BADMSG));
        let (stage_socket, control) = (next()?, next()?);
        let terminal = if plan.terminal { Some(next()?) } else { None };

        let child_changes = hold_signals().map_err(StepError::at(Step::Prepare))?;
        setsid().map_err(StepError::at(Step::Session))?;
        if let Some(terminal) = &terminal {
            ioctl_tiocsctty(terminal).map_err(StepError::at(Step::Terminal))?;
        }
        let (execution, word) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(StepError::at(Step::Stage))?;
        let child = match fork(alone).map_err(StepError::at(Step::Stage))? {
            // All that the monitor needs is dropped here, and the signals stay blocked until the stage is ready for them.
            Copied::Copy => {
                setpgid(None, None).map_err(StepError::at(Step::Stage))?;
                return Ok(Role::Stage { launcher: stage_socket.into(), monitor: word });
            }
            Copied::Original(child) => child,
        };
        // By whoever of the two comes first, so that the group is there when either needs it.
        let _ = setpgid(Some(child), Some(child));
        let (control, execution) = (Some(control), Some(execution));
        let folder = plan.folder;
        Ok(Role::Monitor(Self {
            child,
            child_changes,
            control,
            taken: None,
            terminal,
            execution,
            last_word: None,
            folder,
        }))
    }

    /// Waits for the child's end, doing meanwhile what `pds` asks, and tells the launcher and `pds` of it.
    fn serve(&mut self, launcher: &UnixStream) -> io::Result<()> {
        loop {
            let Woken { stage_spoke, child_changed, asked } = self.wait()?;
            if stage_spoke {
                self.hear_stage();
            }
            if child_changed {
                while self.child_changes.read_signal()?.is_some() {}
                if let Some(end) = self.report_changes()? {
                    self.hold_terminal();
                    if let Some(folder) = &self.folder {
                        secret_files::remove(Path::new(folder));
                    }
                    // A launcher that is gone cannot be told; the next one says that nobody saw it.
                    let _ = send(launcher, &MonitorReport::Ended(end.into()), &[]);
                    self.tell(ChildEvent::from(end));
                    return Ok(());
                }
            }
            if asked {
                self.obey();
            }
        }
    }

    /// Blocks until the child changed, or `pds` said something or went.
    fn wait(&self) -> io::Result<Woken> {
        let changes = Some(PollFd::new(&self.child_changes, PollFlags::IN));
        let control = self.control.as_ref().map(|control| PollFd::new(control, PollFlags::IN));
        let execution = self.execution.as_ref().map(|execution| PollFd::new(execution, PollFlags::IN));
        let (has_control, has_execution) = (control.is_some(), execution.is_some());
        let mut waiting: Vec<PollFd<'_>> = [changes, control, execution].into_iter().flatten().collect();
        retry_on_intr(|| poll(&mut waiting, None))?;
        let mut ready = waiting.iter().map(|polled| !polled.revents().is_empty());
        let mut next = |polled: bool| polled && ready.next().unwrap_or(false);
        Ok(Woken { child_changed: next(true), asked: next(has_control), stage_spoke: next(has_execution) })
    }

    /// Takes what the stage has said; one that ended its pipe after announcing the execution has become the command.
    fn hear_stage(&mut self) {
        while let Some(execution) = &self.execution {
            let mut word = [0];
            match retry_on_intr(|| rustix::io::read(execution, &mut word)) {
                Err(Errno::AGAIN) => return,
                Ok(1) => self.last_word = Some(word[0]),
                Ok(_) | Err(_) => {
                    self.execution = None;
                    if self.last_word == Some(EXECUTING) {
                        self.tell(ChildEvent::Executed);
                    }
                }
            }
        }
    }

    /// Tells of every stop, and gives the child's end if it has ended; it is reaped then.
    fn report_changes(&mut self) -> io::Result<Option<End>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        while let Some(status) = retry_on_intr(|| waitid(WaitId::Pid(self.child), options))? {
            // Whatever the command does, it does after its execution, and is told after it.
            self.hear_stage();
            if let Some(signal) = status.stopping_signal() {
                self.hold_terminal();
                self.tell(ChildEvent::Stopped(signal));
            } else if let Some(signal) = status.terminating_signal() {
                return Ok(Some(End::Killed(signal)));
            } else if let Some(code) = status.exit_status() {
                return Ok(Some(End::Exited(code)));
            }
        }
        Ok(None)
    }

    /// Makes this process's group the terminal's foreground: a stopped child must not stay there, and what an ended
    /// one left running would get a SIGHUP with this process's own end.
    fn hold_terminal(&self) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetpgrp(terminal, getpgrp());
        }
    }

    fn tell(&self, event: ChildEvent) {
        if let (Some(control), Ok(message)) = (&self.control, encode(&event)) {
            // A `pds` that is gone is noticed where its commands are read.
            let _ = rustix::net::send(control, &message, SendFlags::NOSIGNAL);
        }
    }

    /// Does what `pds` said before the child was started, so that a child can begin in the foreground.
    fn obey_waiting_commands(&mut self) {
        while self.obey() {}
    }

    /// Does the next thing `pds` said; false if there is none.
    fn obey(&mut self) -> bool {
        match self.hear() {
            Heard::Nothing => return false,
            Heard::Command(command, descriptor) => self.execute(command, descriptor),
            // What a terminal does to its foreground job when it is closed.
            Heard::End => {
                self.put_terminal_back();
                self.execute(ChildCommand::SignalGroup(Signal::HUP.as_raw()), None);
                self.execute(ChildCommand::SignalGroup(Signal::CONT.as_raw()), None);
            }
        }
        true
    }

    /// Stays until `pds` is gone, now that there is no child any more, if it has the user's terminal: a killed `pds` may close
    /// the child's terminal, with which the child ends, before it closes the socket.
    fn settle_terminal(&mut self) {
        loop {
            match self.hear() {
                Heard::Nothing => match &self.control {
                    Some(control) if self.taken.is_some() => {
                        if retry_on_intr(|| poll(&mut [PollFd::new(control, PollFlags::IN)], None)).is_err() {
                            return;
                        }
                    }
                    _ => return,
                },
                Heard::Command(
                    command @ (ChildCommand::TakeTerminal { .. } | ChildCommand::GaveTerminalBack),
                    descriptor,
                ) => self.execute(command, descriptor),
                // There is no child to signal.
                Heard::Command(..) => {}
                Heard::End => return self.put_terminal_back(),
            }
        }
    }

    fn put_terminal_back(&mut self) {
        self.taken.take().into_iter().for_each(Taken::put_back);
    }

    /// The next thing that `pds` said, without waiting. What cannot be understood is passed over.
    fn hear(&mut self) -> Heard {
        loop {
            let Some(control) = &self.control else { return Heard::Nothing };
            let mut message = [0; COMMAND_BYTES_MAX];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received = retry_on_intr(|| {
                recvmsg(control, &mut [IoSliceMut::new(&mut message)], &mut ancillary, flags)
            });
            match received.map(|received| received.bytes) {
                Err(Errno::AGAIN) => return Heard::Nothing,
                // It ended before it read all it was told; what it said stands behind the error (unix(7)).
                Err(Errno::CONNRESET) => {}
                Ok(length @ 1..) => {
                    let descriptor = descriptors_of(&mut ancillary).pop();
                    if let Some(command) = message.get(..length).and_then(|message| decode(message).ok()) {
                        return Heard::Command(command, descriptor);
                    }
                }
                Ok(0) | Err(_) => {
                    self.control = None;
                    return Heard::End;
                }
            }
        }
    }

    /// A failure means that the child has just ended (which is noticed next) or may not be signalled (setuid).
    fn execute(&mut self, command: ChildCommand, descriptor: Option<OwnedFd>) {
        match command {
            ChildCommand::TakeTerminal { found, made } => {
                self.taken = descriptor.map(|device| Taken { device, found, made });
            }
            ChildCommand::GaveTerminalBack => self.taken = None,
            ChildCommand::Signal(number) => {
                let _ = Signal::from_named_raw(number).map(|signal| kill_process(self.child, signal));
            }
            ChildCommand::SignalGroup(number) => {
                let _ = Signal::from_named_raw(number).map(|signal| kill_process_group(self.child, signal));
            }
            ChildCommand::Continue => {
                if let Some(terminal) = &self.terminal {
                    let _ = tcsetpgrp(terminal, self.child);
                }
                let _ = kill_process_group(self.child, Signal::CONT);
            }
        }
    }
}

/// Blocks all signals, so that this process lives just as long as its child (SIGHUP of a closed terminal) and may
/// hand the terminal on from the background (SIGTTOU), and opens the queue of SIGCHLD.
fn hold_signals() -> nix::Result<SignalFd> {
    SigSet::all().thread_block()?;
    let mut changes = SigSet::empty();
    changes.add(nix::sys::signal::Signal::SIGCHLD);
    SignalFd::with_flags(&changes, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
