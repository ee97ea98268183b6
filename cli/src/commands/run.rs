//! `pds run`: has the launcher start the command, and stands between it and the user's terminal until it ends.

mod caller;
mod here;
mod program;
mod signals;

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use core_ipc::blocking::Client;
use core_ipc::{CallError, CallOptions, terminal_state};
use core_types::header::Refusal;
use core_types::protocol::launcher::{
    ChildCommand, ChildEvent, ControllingTerminal, Handed, LauncherDenial, Mapping, OsBytes, Pin, Run,
    Started,
};
use core_types::protocol::secrets::Selection;
use core_types::protocol::{decode, encode};
use core_types::{ProfileName, WireSecret};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, sendmsg, socketpair,
};

pub(crate) use self::here::run_here;
use self::signals::Signals;
use crate::mask::Forms;
use crate::output::Messages;
use crate::redirect::Redirect;
use crate::terminal::{Ready, Screen};

/// How often a job in the background looks whether it has been fetched: a shell tells only one that had stopped.
const LOOK: Duration = Duration::from_millis(200);

/// Longest [`ChildEvent`] as bytes, and more.
const EVENT_BYTES_MAX: usize = 64;

/// What to run, and with which secrets.
#[derive(Debug)]
pub(crate) struct RunPlan {
    /// Profiles to read from; the first that has a name wins.
    pub(crate) profiles: Vec<ProfileName>,
    /// Which secrets become variables by their own name.
    pub(crate) selection: Selection,
    /// Secrets that become variables of another name, besides.
    pub(crate) mappings: Vec<Mapping>,
    /// Put before the variables made from names.
    pub(crate) prefix: String,
    /// Secrets that the command gets otherwise than as variables.
    pub(crate) handed: Handed,
    /// Variables that the child has besides the caller's, as `NAME=value`, each name once.
    pub(crate) variables: Vec<OsBytes>,
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
    /// What leads to the launcher's witness.
    pub(crate) witness: PathBuf,
    /// Whether the values are hidden in what the command writes.
    pub(crate) mask: bool,
    /// What has to be in the command's file.
    pub(crate) pin: Option<Pin>,
    /// Where the user is told of what is not as he would expect.
    pub(crate) messages: Messages,
}

/// Why there is no exit code of the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The command was not started.
    #[error("{0}")]
    Call(#[from] CallError<LauncherDenial>),
    /// This process could not do its part.
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

impl RunError {
    fn at<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { what, source: error.into() }
    }
}

/// Runs the command, which has to be started within `deadline`, and answers its exit code, or 128+n if signal n ended it.
///
/// # Errors
/// The command was not started, or its end was not reported.
pub(crate) fn run(client: &mut Client, request: RunPlan, deadline: Duration) -> Result<ExitCode, RunError> {
    run_with(request, |call, descriptors| Ok(client.call(call, CallOptions { deadline, descriptors })?))
}

/// As [`run`], with `start` in the place of the launcher.
fn run_with(
    mut request: RunPlan,
    start: impl FnOnce(&Run, Vec<OwnedFd>) -> Result<Started, RunError>,
) -> Result<ExitCode, RunError> {
    let messages = request.messages;
    let (control, monitors_end) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(RunError::at("the child's control socket cannot be made"))?;
    let mut streams = caller::streams(request.handed.stdin.is_some())
        .map_err(RunError::at("the standard streams cannot be handed on"))?;
    let (screen, terminal_apart) = Screen::replace(&mut streams)
        .map_err(RunError::at("no pseudo-terminal can be had for the command"))?;
    let mut redirects = Vec::new();
    if request.mask {
        redirects =
            Redirect::replace(&mut streams).map_err(RunError::at("no pipe can be had for the command"))?;
    }
    let program = opened_program(&mut request)?;
    let directory = caller::directory().map_err(RunError::at("the working directory cannot be opened"))?;
    let terminal = match (&screen, &terminal_apart) {
        (None, _) => ControllingTerminal::Absent,
        (Some(_), None) => ControllingTerminal::Stream,
        (Some(_), Some(_)) => ControllingTerminal::Apart,
    };
    let call =
        describe(request, terminal).map_err(RunError::at("what the command inherits cannot be read"))?;

    let mut job =
        Job { control, screen, redirects, group: None, wants_terminal: false, end: None, given_up: false };
    if job.screen.as_ref().is_some_and(Screen::is_the_childs_from_the_start) {
        job.wants_terminal = true;
        // It waits in the socket, and is the first that the monitor does.
        job.tell(ChildCommand::Continue);
    }
    let [input, output, error] = streams;
    // Until the child runs, signals do to this process what they always do; the monitor sees it end.
    let descriptors =
        [input, output, error, directory, monitors_end].into_iter().chain(terminal_apart).chain(program);
    match start(&call, descriptors.collect()) {
        // The launcher died over it; the monitor, if there is one, knows whether the command is executed.
        Err(RunError::Call(error @ (CallError::Lost | CallError::Refused(Refusal::ServiceGone)))) => {
            // Nobody knows then what would have to be hidden.
            if call.mask || !job.is_executed() {
                return Err(RunError::Call(error));
            }
        }
        outcome => {
            let started = outcome?;
            if let Some(folder) = started.exposed {
                messages.note(format!(
                    "its files lie in {folder}, where other programs of this user can read them while it runs: the \
                     kernel lets this user lay none over a folder"
                ));
            }
            job.group = Some(started.pid);
            job.hide(&started.masked);
        }
    }
    let ignored = call.inherited.ignored_signals;
    drop(call);
    let signals = Signals::hold(ignored).map_err(RunError::at("signals cannot be held"))?;
    let end = job.attend(signals)?;
    // By now the terminal is as it was, and no signal is held.
    if let End::Key(signal) = end {
        // It fails for nobody, and does nothing if the caller ignores the signal.
        let _ = nix::sys::signal::raise(signal);
    }
    Ok(end.code())
}

/// The command's file, where it is pinned. Rules know none that cannot be opened.
fn opened_program(request: &mut RunPlan) -> Result<Option<OwnedFd>, RunError> {
    let Some(pin) = request.pin else { return Ok(None) };
    let command = request.command.first().map(OsString::as_os_str).unwrap_or_default();
    match (program::open(command, &request.variables), pin) {
        (Ok(file), _) => Ok(Some(file)),
        (Err(LauncherDenial::Unpinnable(_)), Pin::Ruled) => {
            request.pin = None;
            Ok(None)
        }
        (Err(denial), _) => Err(RunError::Call(CallError::Denied(denial))),
    }
}

fn describe(request: RunPlan, terminal: ControllingTerminal) -> io::Result<Run> {
    Ok(Run {
        profiles: request.profiles,
        selection: request.selection,
        mappings: request.mappings,
        prefix: request.prefix,
        handed: Box::new(request.handed),
        arguments: request.command.into_iter().map(caller::os_bytes).collect(),
        environment: caller::environment(request.variables),
        umask: caller::file_mode_mask(),
        limits: caller::limits(),
        inherited: Box::new(caller::inherited()?),
        terminal,
        standing: Box::new(caller::standing(&request.witness)),
        mask: request.mask,
        pin: request.pin.map(Box::new),
    })
}

/// How a child ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// With this code, or 128 and the number of a signal.
    Code(u8),
    /// By what a terminal makes of a key, and it had a terminal: shells go by whether their own child, this process,
    /// ended so as well.
    Key(Signal),
}

impl End {
    fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Code(code) => code,
            Self::Key(signal) => (128 + signal as i32).to_le_bytes()[0],
        })
    }
}

/// A child that was started.
struct Job {
    control: OwnedFd,
    screen: Option<Screen>,
    /// Streams that are no terminal, where values are hidden in them.
    redirects: Vec<Redirect>,
    /// The child's process group, if the launcher could say it.
    group: Option<u32>,
    /// Whether the child reads or changes the terminal, as far as is known.
    wants_terminal: bool,
    /// The child's end, once reported; what it wrote may still have to be shown.
    end: Option<End>,
    /// Whether the user wants no more of that to be shown.
    given_up: bool,
}

impl Job {
    /// Stands by until the child has ended and all it wrote has been shown.
    fn attend(mut self, mut signals: Signals) -> Result<End, RunError> {
        self.begin();
        loop {
            while let Some(signal) = signals.next().map_err(RunError::at("signals cannot be read"))? {
                self.on_signal(signal);
            }
            self.look_whether_it_was_fetched();
            if let Some(end) = self.end
                && (self.given_up || self.has_shown_the_rest())
            {
                return Ok(end);
            }
            let (reported, ready) =
                self.wait(&signals).map_err(RunError::at("waiting for the child failed"))?;
            if reported {
                self.on_report(&mut signals)?;
            }
            if let (Some(screen), Some(ready)) = (&mut self.screen, ready) {
                let pressed = screen.carry(ready);
                if let Some(key) = pressed.filter(|_| self.group.is_some_and(|group| screen.shows(group))) {
                    Signals::tell_group(key);
                }
            }
            self.redirects.iter_mut().for_each(Redirect::carry);
        }
    }

    /// Nobody tells a job that runs in the background when it is in the foreground.
    fn look_whether_it_was_fetched(&mut self) {
        let fetched = |screen: &Screen| screen.is_behind() && screen.in_foreground();
        if self.end.is_none() && self.screen.as_ref().is_some_and(fetched) {
            self.wants_terminal = true;
            self.put_forward();
        }
    }

    /// Has these values hidden in what the child writes; before anything of it is carried.
    fn hide(&mut self, values: &[WireSecret]) {
        if let Some(forms) = Forms::of(values) {
            self.screen.iter_mut().for_each(|screen| screen.hide(&forms));
            self.redirects.iter_mut().for_each(|redirect| redirect.hide(&forms));
        }
    }

    fn has_shown_the_rest(&mut self) -> bool {
        let screen = self.screen.as_mut().is_none_or(Screen::has_shown_the_rest);
        // All of them get on with it, also while one waits.
        let shown = self.redirects.iter_mut().map(Redirect::has_shown_the_rest);
        shown.fold(screen, |all, shown| all && shown)
    }

    /// Waits for the monitor's first word; false if it is another one, or there is none because there is no monitor.
    fn is_executed(&self) -> bool {
        let mut message = [0; EVENT_BYTES_MAX];
        match self.hear(&mut message) {
            Ok(length) => matches!(decode(&message[..length]), Ok(ChildEvent::Executed)),
            Err(_) => false,
        }
    }

    /// The size may have changed before changes were heard of.
    fn begin(&mut self) {
        if let Some(screen) = &mut self.screen {
            screen.copy_size();
            if self.wants_terminal && screen.in_foreground() {
                take(screen, &self.control);
            }
        }
    }

    /// Blocks until a signal came, the monitor reported, or there is something to carry.
    fn wait(&self, signals: &Signals) -> io::Result<(bool, Option<Ready>)> {
        let mut waiting = vec![PollFd::new(signals, PollFlags::IN)];
        if self.end.is_none() {
            waiting.push(PollFd::new(&self.control, PollFlags::IN));
        }
        let before_screen = waiting.len();
        waiting.extend(self.screen.iter().flat_map(Screen::waits_for));
        waiting.extend(self.redirects.iter().filter_map(Redirect::waits_for));
        let due =
            self.screen.iter().filter_map(Screen::due).chain(self.redirects.iter().filter_map(Redirect::due));
        let patience = due.min().map(|due| due.saturating_duration_since(Instant::now()));
        let look =
            self.screen.as_ref().filter(|screen| screen.is_behind() && self.end.is_none()).map(|_| LOOK);
        let patience = patience.into_iter().chain(look).min();
        let patience = patience.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut waiting, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let reported = before_screen > 1 && !waiting[1].revents().is_empty();
        Ok((reported, self.screen.as_ref().map(|screen| screen.ready(&waiting[before_screen..]))))
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGWINCH if self.screen.is_some() => self.screen.iter().for_each(Screen::copy_size),
            Signal::SIGCONT => self.go_on(),
            Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM if self.end.is_some() => {
                self.given_up = true;
            }
            // What a terminal sends, it sends to the whole group.
            Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP => {
                self.tell(ChildCommand::SignalGroup(signal as i32));
            }
            other => self.tell(ChildCommand::Signal(other as i32)),
        }
    }

    fn on_report(&mut self, signals: &mut Signals) -> Result<(), RunError> {
        const LOST: &str = "the command's monitor ended without saying how the command ended";
        let mut message = [0; EVENT_BYTES_MAX];
        let length = self.hear(&mut message).map_err(RunError::at(LOST))?;
        match decode(&message[..length]) {
            Ok(ChildEvent::Executed) => {}
            Ok(ChildEvent::Stopped(signal)) => self.on_stop(signal, signals)?,
            Ok(ChildEvent::Exited(code)) => self.end = Some(End::Code(code.to_le_bytes()[0])),
            Ok(ChildEvent::Killed(signal)) => {
                let key = Signal::try_from(signal).ok().filter(|_| self.screen.is_some());
                self.end = Some(match key {
                    Some(key @ (Signal::SIGINT | Signal::SIGQUIT)) => End::Key(key),
                    _ => End::Code((128 + signal).to_le_bytes()[0]),
                });
            }
            Err(_) => return Err(RunError::at(LOST)(io::Error::from(io::ErrorKind::UnexpectedEof))),
        }
        Ok(())
    }

    /// The child has stopped: because it needs the terminal, or as a job.
    fn on_stop(&mut self, signal: i32, signals: &mut Signals) -> Result<(), RunError> {
        use rustix::process::Signal as Number;
        let stopped_by = Number::from_named_raw(signal).unwrap_or(Number::TSTP);
        let needs_terminal = matches!(stopped_by, Number::TTIN | Number::TTOU);
        if needs_terminal {
            self.wants_terminal = true;
            if self.screen.as_ref().is_some_and(Screen::in_foreground) {
                self.go_on();
                return Ok(());
            }
        }
        if let Some(screen) = &mut self.screen {
            screen.show_what_is_there();
            screen.give_back();
            self.tell(ChildCommand::GaveTerminalBack);
        }
        // SIGSTOP would stop this process even where no shell could continue it.
        let own = if needs_terminal { stopped_by } else { Number::TSTP };
        let stopped = signals.stop_group(own).map_err(RunError::at("the job cannot be stopped"))?;
        // If it was stopped, a SIGCONT has come by now, and what it leads to is done in its turn.
        if !stopped && stopped_by != Number::STOP {
            self.put_forward();
        }
        Ok(())
    }

    /// The user or the shell wants the job to go on: in the foreground, if that is where this process is.
    fn go_on(&mut self) {
        match &mut self.screen {
            Some(screen) if !screen.in_foreground() => {
                screen.leave();
                self.tell(ChildCommand::SignalGroup(Signal::SIGCONT as i32));
            }
            Some(_) if !self.wants_terminal => self.tell(ChildCommand::SignalGroup(Signal::SIGCONT as i32)),
            _ => self.put_forward(),
        }
    }

    /// Gives the child its terminal, and the user's to it if it can be had.
    fn put_forward(&mut self) {
        if let Some(screen) = &mut self.screen {
            if screen.in_foreground() {
                take(screen, &self.control);
            }
            screen.copy_size();
        }
        self.tell(ChildCommand::Continue);
    }

    fn tell(&self, command: ChildCommand) {
        tell(&self.control, command, &[]);
    }

    /// The next thing that the monitor said. One that ended before it read all it was told leaves an error, and behind that
    /// what it said (unix(7)).
    fn hear(&self, message: &mut [u8]) -> Result<usize, Errno> {
        let mut next = || retry_on_intr(|| recv(&self.control, &mut *message, RecvFlags::empty()));
        let (length, _) = match next() {
            Err(Errno::CONNRESET) => next()?,
            heard => heard?,
        };
        Ok(length)
    }
}

/// Takes the user's terminal for the child, and has the monitor put it back if this process cannot.
fn take(screen: &mut Screen, control: &OwnedFd) {
    let _ = screen.take(|terminal, found, made| {
        let (found, made) = (terminal_state::of(found), terminal_state::of(made));
        tell(control, ChildCommand::TakeTerminal { found, made }, &[terminal.as_fd()]);
    });
}

/// A monitor that is gone is noticed where its reports are read.
fn tell(control: &OwnedFd, command: ChildCommand, descriptors: &[BorrowedFd<'_>]) {
    let Ok(message) = encode(&command) else { return };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let _ = sendmsg(control, &[IoSlice::new(&message)], &mut ancillary, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::protocol::launcher::RUN_DESCRIPTORS;
    use rustix::net::send;

    fn plan() -> RunPlan {
        RunPlan {
            profiles: vec![ProfileName::parse("work").unwrap()],
            selection: Selection::All,
            mappings: vec![],
            prefix: "X_".to_owned(),
            handed: Handed::default(),
            variables: vec![WireSecret::new(b"PWD=from a file".to_vec())],
            command: vec!["cmd".into(), "an argument".into()],
            witness: "/dev/null".into(),
            mask: false,
            pin: None,
            messages: Messages::plain(),
        }
    }

    /// Runs with a launcher that starts nothing and a monitor that says `reports` and ends.
    fn run_against(reports: &[ChildEvent]) -> Result<String, RunError> {
        let code = run_with(plan(), |_, descriptors| {
            for report in reports {
                send(&descriptors[RUN_DESCRIPTORS - 1], &encode(report).unwrap(), SendFlags::NOSIGNAL)
                    .unwrap();
            }
            Ok(Started { pid: 0, masked: Vec::new(), exposed: None })
        })?;
        Ok(format!("{code:?}"))
    }

    fn code(number: u8) -> String {
        format!("{:?}", ExitCode::from(number))
    }

    #[test]
    fn the_exit_code_is_the_childs_or_128_and_its_signal() {
        for number in [0, 1, 37, 255] {
            assert_eq!(run_against(&[ChildEvent::Exited(number.into())]).unwrap(), code(number));
        }
        for signal in [1, 2, 9, 15, 31] {
            let expected = code(128 + u8::try_from(signal).unwrap());
            assert_eq!(run_against(&[ChildEvent::Killed(signal)]).unwrap(), expected);
        }
    }

    #[test]
    fn a_monitor_that_ends_without_a_report_is_an_error() {
        assert!(matches!(run_against(&[]), Err(RunError::Io { .. })));
    }

    #[test]
    fn a_denial_is_handed_on() {
        let denied = run_with(plan(), |_, _| Err(CallError::Denied(LauncherDenial::NotFound).into()));
        assert!(matches!(denied, Err(RunError::Call(CallError::Denied(LauncherDenial::NotFound)))));
    }

    #[test]
    fn the_request_carries_what_the_caller_has() {
        let started = run_with(plan(), |call, descriptors| {
            let texts = |list: &[WireSecret]| -> Vec<Vec<u8>> {
                list.iter().map(|text| text.expose().to_vec()).collect()
            };
            assert_eq!(texts(&call.arguments), [&b"cmd"[..], b"an argument"]);
            let path = std::env::var("PATH").unwrap();
            assert!(texts(&call.environment).contains(&format!("PATH={path}").into_bytes()));
            let of_file = |text: &Vec<u8>| text.starts_with(b"PWD=");
            let found: Vec<_> = texts(&call.environment).into_iter().filter(of_file).collect();
            assert_eq!(found, [b"PWD=from a file"]);
            assert_eq!((call.limits.len(), call.prefix.as_str()), (16, "X_"));
            // One more where the test itself has a terminal.
            let apart = usize::from(call.terminal == ControllingTerminal::Apart);
            assert_eq!(descriptors.len(), RUN_DESCRIPTORS + apart);
            let same = |one: &OwnedFd, path: &str| {
                let (one, other) = (rustix::fs::fstat(one).unwrap(), rustix::fs::stat(path).unwrap());
                (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
            };
            assert!(same(&descriptors[3], "."));
            let is_stream = call.terminal == ControllingTerminal::Stream;
            assert_eq!(is_stream, descriptors[..3].iter().any(rustix::termios::isatty));
            Err(CallError::Lost.into())
        });
        assert!(started.is_err());
    }

    #[test]
    fn signals_go_to_the_group_where_a_terminal_would_send_them_and_else_to_the_command() {
        let (control, monitor) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut job = Job {
            control,
            screen: None,
            redirects: Vec::new(),
            group: None,
            wants_terminal: false,
            end: None,
            given_up: false,
        };
        let mut told = |signal| {
            job.on_signal(signal);
            let mut message = [0; EVENT_BYTES_MAX];
            let (length, _) = recv(&monitor, &mut message, RecvFlags::empty()).unwrap();
            decode::<ChildCommand>(&message[..length]).unwrap()
        };
        assert_eq!(told(Signal::SIGINT), ChildCommand::SignalGroup(2));
        assert_eq!(told(Signal::SIGHUP), ChildCommand::SignalGroup(1));
        assert_eq!(told(Signal::SIGTSTP), ChildCommand::SignalGroup(20));
        assert_eq!(told(Signal::SIGTERM), ChildCommand::Signal(15));
        assert_eq!(told(Signal::SIGUSR1), ChildCommand::Signal(10));
        assert_eq!(told(Signal::SIGCONT), ChildCommand::Continue);
    }
}
