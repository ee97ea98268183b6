//! Children as `pds` gets them: started through a real monitor and a real stage, without bus and vault.
#![allow(clippy::unwrap_used, clippy::panic)] // a test, as a whole

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use core_types::WireSecret;
use core_types::protocol::launcher::{
    ChildCommand, ChildEvent, ControllingTerminal, Inherited, LauncherDenial, OsBytes, ResourceLimit,
};
use core_types::protocol::{decode, encode};
use daemon_launcher::StagePlan;
use daemon_launcher::spawn::{Child, SpawnError, start};
use daemon_launcher::spawner::Spawner;
use daemon_launcher::witness::Witness;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGTSTP: i32 = 20;
const SIGTTIN: i32 = 21;

/// The launcher under test.
fn launcher() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_daemon-launcher"))
}

/// What a test wants to run.
struct Wanted {
    arguments: Vec<String>,
    environment: Vec<String>,
    directory: PathBuf,
    umask: u32,
    limits: Vec<ResourceLimit>,
    inherited: Inherited,
}

fn command(arguments: &[&str]) -> Wanted {
    Wanted {
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        environment: vec!["PATH=/usr/bin:/bin".to_owned()],
        directory: PathBuf::from("/"),
        umask: 0o022,
        limits: vec![],
        inherited: Inherited::default(),
    }
}

fn shell(script: &str) -> Wanted {
    command(&["sh", "-c", script])
}

/// A started child, its control socket, and the spawner that reaps its monitor.
struct Running {
    control: OwnedFd,
    pid: u32,
    /// The launcher's end of the monitor's socket.
    _monitor: Option<UnixStream>,
    _spawner: Arc<Spawner>,
}

impl Running {
    fn event(&self) -> Option<ChildEvent> {
        let mut message = [0; 64];
        let (length, _) = recv(&self.control, &mut message, RecvFlags::empty()).unwrap();
        (length > 0).then(|| decode(&message[..length]).unwrap())
    }

    fn say(&self, command: ChildCommand) {
        send(&self.control, &encode(&command).unwrap(), SendFlags::NOSIGNAL).unwrap();
    }
}

fn strings(texts: &[String]) -> Vec<OsBytes> {
    texts.iter().map(|text| WireSecret::new(text.as_bytes().to_vec())).collect()
}

/// Starts a child as the launcher does; `first` are commands that wait on the control socket already.
fn start_with(
    executable: &Path,
    wanted: &Wanted,
    streams: [OwnedFd; 3],
    terminal: bool,
    first: &[ChildCommand],
) -> Result<Running, SpawnError> {
    start_from(&spawner(executable)?, wanted, streams, terminal, first)
}

/// A spawner with a witness that nobody looks for.
fn spawner(executable: &Path) -> Result<Arc<Spawner>, SpawnError> {
    let link = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("witness-{}", std::process::id()));
    let witness = Witness::new(&link, "word".to_owned());
    Spawner::start(executable, &witness).map(Arc::new).map_err(SpawnError::Monitor)
}

/// As [`start_with`], from a spawner that there is.
fn start_from(
    spawner: &Arc<Spawner>,
    wanted: &Wanted,
    streams: [OwnedFd; 3],
    terminal: bool,
    first: &[ChildCommand],
) -> Result<Running, SpawnError> {
    let (control, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    for command in first {
        send(&control, &encode(command).unwrap(), SendFlags::NOSIGNAL).unwrap();
    }
    let child = Child {
        plan: StagePlan {
            arguments: strings(&wanted.arguments),
            environment: strings(&wanted.environment),
            umask: wanted.umask,
            limits: wanted.limits.clone(),
            inherited: wanted.inherited,
            files: None,
            has_image: false,
        },
        streams,
        directory: rustix::fs::open(&wanted.directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .unwrap(),
        files: Vec::new(),
        image: None,
        control: theirs,
        terminal: if terminal { ControllingTerminal::Stream } else { ControllingTerminal::Absent },
        terminal_apart: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (started, _monitor) = match runtime.block_on(start(spawner, child, deadline, |pid| pid)) {
        Ok((pid, monitor)) => (Ok(pid), Some(monitor)),
        Err(error) => (Err(error), None),
    };
    let pid = *started.as_ref().unwrap_or(&0);
    let running = Running { control, pid, _monitor, _spawner: Arc::clone(spawner) };
    // The monitor says that a command is executed before anything else, and of no other.
    assert_eq!(running.event() == Some(ChildEvent::Executed), started.is_ok(), "{started:?}");
    started.map(|_| running)
}

fn null() -> OwnedFd {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap().into()
}

/// A child with its three streams on pipes.
struct Piped {
    running: Running,
    input: PipeWriter,
    output: PipeReader,
}

impl Piped {
    fn read_line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Everything it still writes, and how it ended.
    fn finish(mut self) -> (String, ChildEvent) {
        drop(self.input);
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        (text, self.running.event().unwrap())
    }
}

fn try_piped(wanted: &Wanted) -> Result<Piped, SpawnError> {
    let (their_input, input) = pipe().unwrap();
    let (output, their_output) = pipe().unwrap();
    let streams = [their_input.into(), their_output.into(), null()];
    Ok(Piped { running: start_with(launcher(), wanted, streams, false, &[])?, input, output })
}

fn piped(wanted: &Wanted) -> Piped {
    try_piped(wanted).unwrap()
}

fn denial(wanted: &Wanted) -> LauncherDenial {
    match try_piped(wanted) {
        Err(error) => error.into(),
        Ok(_) => panic!("it was started"),
    }
}

const PTY_FLAGS: OpenptFlags = OpenptFlags::RDWR.union(OpenptFlags::NOCTTY).union(OpenptFlags::CLOEXEC);

/// A pseudo-terminal: its master and its slave.
fn pty() -> (OwnedFd, OwnedFd) {
    let master = openpt(PTY_FLAGS).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, PTY_FLAGS).unwrap();
    (master, slave)
}

/// A child with its three streams on a pseudo-terminal, and the end of it that `pds` has.
struct OnTerminal {
    running: Running,
    master: OwnedFd,
}

impl OnTerminal {
    fn start(wanted: &Wanted, first: &[ChildCommand]) -> Self {
        let (master, slave) = pty();
        let streams = [slave.try_clone().unwrap(), slave.try_clone().unwrap(), slave];
        Self { running: start_with(launcher(), wanted, streams, true, first).unwrap(), master }
    }

    fn write(&self, text: &str) {
        assert_eq!(rustix::io::write(&self.master, text.as_bytes()), Ok(text.len()));
    }

    /// What is shown up to and with `end`.
    fn read_until(&self, end: &str) -> String {
        let mut shown = String::new();
        let mut byte = [0];
        while !shown.ends_with(end) {
            assert_eq!(rustix::io::read(&self.master, &mut byte), Ok(1), "after {shown:?}");
            shown.push(char::from(byte[0]));
        }
        shown
    }
}

#[test]
fn exit_codes_arrive() {
    for code in [0, 1, 37, 125, 126, 127, 255] {
        assert_eq!(piped(&shell(&format!("exit {code}"))).finish().1, ChildEvent::Exited(code));
    }
}

#[test]
fn death_by_a_signal_arrives_as_that_signal() {
    for signal in [SIGHUP, 6, SIGKILL, 11, SIGTERM] {
        let wanted = shell(&format!("ulimit -c 0; kill -{signal} $$"));
        assert_eq!(piped(&wanted).finish().1, ChildEvent::Killed(signal));
    }
}

#[test]
fn the_reported_pid_is_the_commands() {
    let mut child = piped(&shell("echo $$"));
    assert_eq!(child.read_line(), child.running.pid.to_string());
}

#[test]
fn what_cannot_be_executed_is_told_apart_and_never_runs() {
    assert_eq!(denial(&command(&["/nonexistent"])), LauncherDenial::NotFound);
    assert_eq!(denial(&command(&["no-such-command-anywhere"])), LauncherDenial::NotFound);
    assert_eq!(denial(&command(&[""])), LauncherDenial::NotFound);
    assert!(matches!(denial(&command(&["/usr"])), LauncherDenial::NotExecutable(_)));
    assert!(matches!(denial(&command(&["/etc/passwd"])), LauncherDenial::NotExecutable(_)));
    assert!(matches!(denial(&command(&["/etc/passwd/x"])), LauncherDenial::NotExecutable(_)));
    let mut huge = command(&["true"]);
    huge.environment.extend((0..40).map(|number| format!("V{number}={}", "x".repeat(100_000))));
    assert!(matches!(denial(&huge), LauncherDenial::Spawn(_)));
}

#[test]
fn a_command_that_is_not_executed_writes_nothing_to_its_streams() {
    let (mut output, their_output) = pipe().unwrap();
    let streams = [null(), their_output.try_clone().unwrap().into(), their_output.into()];
    assert!(start_with(launcher(), &command(&["/nonexistent"]), streams, false, &[]).is_err());
    let mut written = Vec::new();
    output.read_to_end(&mut written).unwrap();
    assert_eq!(written, b"");
}

#[test]
fn signals_that_the_launchers_starter_ignored_act_on_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("ignoring");
    let text =
        format!("#!/bin/sh\ntrap '' HUP INT QUIT TERM USR1 TSTP\nexec {} \"$@\"\n", launcher().display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let (mut output, their_output) = pipe().unwrap();
    let wanted = command(&["grep", "SigIgn", "/proc/self/status"]);
    let running = start_with(&script, &wanted, [null(), their_output.into(), null()], false, &[]).unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let ignored = u64::from_str_radix(text.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 0, "{text}");
    assert_eq!(running.event(), Some(ChildEvent::Exited(0)));
}

#[test]
fn the_command_is_looked_up_in_its_own_path_and_named_as_typed() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("only-here");
    std::fs::write(&script, "echo ran").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let mut wanted = command(&["only-here"]);
    wanted.environment = vec![format!("PATH=/nonexistent:{}:/usr/bin:/bin", folder.path().display())];
    assert_eq!(piped(&wanted).finish(), ("ran\n".to_owned(), ChildEvent::Exited(0)));
    let (shown, _) = piped(&command(&["cat", "/proc/self/cmdline"])).finish();
    assert_eq!(shown, "cat\0/proc/self/cmdline\0");
}

#[test]
fn the_environment_is_exactly_the_planned_one() {
    let mut wanted = command(&["/usr/bin/env"]);
    wanted.environment = vec!["B=two=2".to_owned(), "A=\u{1b}x\ny".to_owned(), "EMPTY=".to_owned()];
    assert_eq!(piped(&wanted).finish().0, "A=\u{1b}x\ny\nB=two=2\nEMPTY=\n");
}

#[test]
fn directory_umask_and_limits_are_the_callers() {
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = shell("pwd -P; umask; ulimit -Sn; ulimit -Hn; ulimit -c");
    wanted.directory = folder.path().canonicalize().unwrap();
    wanted.umask = 0o027;
    let limit = |resource, soft, hard| ResourceLimit { resource, soft: Some(soft), hard: Some(hard) };
    let (open_files, core) = (rustix::process::Resource::Nofile, rustix::process::Resource::Core);
    wanted.limits = vec![limit(open_files as u32, 77, 99), limit(core as u32, 0, 0)];
    let expected = format!("{}\n0027\n77\n99\n0\n", wanted.directory.display());
    assert_eq!(piped(&wanted).finish(), (expected, ChildEvent::Exited(0)));
}

#[test]
fn ten_mebibytes_pass_a_pipe_unchanged() {
    let sent: Vec<u8> =
        (0u32..10 << 20).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let Piped { running, mut input, mut output } = piped(&command(&["cat"]));
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&sent).unwrap();
            drop(input);
        });
        let mut received = Vec::new();
        output.read_to_end(&mut received).unwrap();
        received
    });
    assert!(sent == received);
    assert_eq!(running.event(), Some(ChildEvent::Exited(0)));
}

#[test]
fn no_descriptor_but_the_three_reaches_the_child() {
    let leaked = null();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    // The listing is made by the shell's own glob, whose folder is the one descriptor besides.
    let (shown, _) = piped(&shell("echo /proc/$$/fd/*")).finish();
    let descriptors: Vec<&str> =
        shown.split_whitespace().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!(descriptors.iter().take(3).copied().collect::<Vec<_>>(), ["0", "1", "2"]);
    assert!(descriptors.len() <= 4, "{shown}");
}

#[test]
fn one_child_does_not_hold_the_pipes_of_another() {
    let (first, second) = (piped(&command(&["cat"])), piped(&command(&["cat"])));
    assert_eq!(first.finish().1, ChildEvent::Exited(0));
    assert_eq!(second.finish().1, ChildEvent::Exited(0));
}

#[test]
fn signals_from_pds_reach_the_process_or_its_group() {
    let mut child = piped(&shell("trap 'echo got; exit 5' USR1; echo ready; read line"));
    assert_eq!(child.read_line(), "ready");
    child.running.say(ChildCommand::Signal(10));
    assert_eq!(child.read_line(), "got");
    assert_eq!(child.finish(), (String::new(), ChildEvent::Exited(5)));

    let mut child = piped(&shell("exec 3<&0; cat <&3 & echo ready; wait"));
    assert_eq!(child.read_line(), "ready");
    child.running.say(ChildCommand::SignalGroup(SIGTERM));
    assert_eq!(child.running.event(), Some(ChildEvent::Killed(SIGTERM)));
    // The output ends while the input is still open, so the `cat` was ended as well.
    assert_eq!(child.output.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_stopped_child_is_reported_and_continues() {
    let mut child = piped(&shell("echo ready; kill -STOP $$; echo on"));
    assert_eq!(child.read_line(), "ready");
    assert_eq!(child.running.event(), Some(ChildEvent::Stopped(19)));
    child.running.say(ChildCommand::Continue);
    assert_eq!(child.finish(), ("on\n".to_owned(), ChildEvent::Exited(0)));
}

#[test]
fn when_pds_dies_the_child_gets_a_hangup_even_if_it_is_stopped() {
    let mut child = piped(&shell("trap 'echo hangup; exit' HUP; echo ready; kill -STOP $$; read line"));
    assert_eq!(child.read_line(), "ready");
    assert_eq!(child.running.event(), Some(ChildEvent::Stopped(19)));
    let Piped { running, input, mut output } = child;
    // Without the hangup it would go on to the end of its input.
    drop(input);
    drop(running.control);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hangup\n");
}

/// Process group, session and foreground group of the terminal, as a child sees its own.
const GROUPS: &str = "ps -o pid=,pgid=,sid=,tpgid= -p $$";

fn numbers(line: &str) -> Vec<i64> {
    line.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[test]
fn on_a_terminal_the_command_leads_the_foreground_group_but_not_the_session() {
    let child = OnTerminal::start(&shell(GROUPS), &[ChildCommand::Continue]);
    let shown = numbers(&child.read_until("\n"));
    let [pid, group, session, foreground] = shown[..] else { panic!("{shown:?}") };
    assert_eq!((pid, group, foreground), (child.running.pid.into(), pid, pid));
    assert_ne!(session, pid);
    assert_eq!(child.running.event(), Some(ChildEvent::Exited(0)));
}

#[test]
fn without_a_terminal_the_command_has_none() {
    let (shown, _) = piped(&shell("sh -c ': </dev/tty' 2>/dev/null; echo $?")).finish();
    assert_ne!(shown, "0\n");
}

#[test]
fn ctrl_z_stops_the_command_and_it_continues_in_the_foreground() {
    let child = OnTerminal::start(&shell("echo ready; exec cat"), &[ChildCommand::Continue]);
    child.read_until("ready\r\n");
    child.write("\u{1a}");
    child.read_until("^Z");
    assert_eq!(child.running.event(), Some(ChildEvent::Stopped(SIGTSTP)));
    child.running.say(ChildCommand::Continue);
    child.write("hello\n");
    child.read_until("hello\r\nhello\r\n");
    child.write("\u{4}");
    assert_eq!(child.running.event(), Some(ChildEvent::Exited(0)));
}

#[test]
fn ctrl_c_ends_the_command() {
    let child = OnTerminal::start(&shell("echo ready; read line"), &[ChildCommand::Continue]);
    child.read_until("ready\r\n");
    child.write("\u{3}");
    assert_eq!(child.running.event(), Some(ChildEvent::Killed(2)));
}

#[test]
fn a_command_in_the_background_stops_when_it_reads_and_may_be_brought_forward() {
    let child = OnTerminal::start(&shell("read line; echo got $line"), &[]);
    assert_eq!(child.running.event(), Some(ChildEvent::Stopped(SIGTTIN)));
    child.running.say(ChildCommand::Continue);
    child.write("it\n");
    child.read_until("got it\r\n");
    assert_eq!(child.running.event(), Some(ChildEvent::Exited(0)));
}

#[test]
fn a_monitor_survives_the_hangup_of_its_terminal_and_reports_the_end() {
    let (mut output, their_output) = pipe().unwrap();
    let wanted = shell("echo ready; while read line; do :; done; exit 4");
    let (master, slave) = pty();
    let streams = [slave, their_output.into(), null()];
    let running = start_with(launcher(), &wanted, streams, true, &[ChildCommand::Continue]).unwrap();
    let mut ready = [0; 6];
    output.read_exact(&mut ready).unwrap();
    drop(master);
    assert_eq!(running.event(), Some(ChildEvent::Exited(4)));
}

#[test]
fn what_a_command_leaves_running_survives_its_end_on_a_terminal() {
    let (mut output, their_output) = pipe().unwrap();
    let (their_input, mut input) = pipe().unwrap();
    let (_master, slave) = pty();
    let streams = [their_input.into(), their_output.into(), slave];
    let wanted = shell("exec 3<&0; cat <&3 & exit 0");
    let running = start_with(launcher(), &wanted, streams, true, &[ChildCommand::Continue]).unwrap();
    assert_eq!(running.event(), Some(ChildEvent::Exited(0)));
    assert_eq!(running.event(), None, "the monitor has ended");
    input.write_all(b"alive").unwrap();
    drop(input);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "alive");
}

#[test]
fn the_monitor_has_no_secret_and_cannot_be_read_by_its_own_user() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (copy, script) = (folder.path().join("daemon-launcher"), folder.path().join("as-user"));
    std::fs::copy(launcher(), &copy).unwrap();
    let user = rustix::process::getuid();
    let change = if user.is_root() { "setpriv --reuid=65534 --regid=65534 --clear-groups --" } else { "" };
    std::fs::write(
        &script,
        format!("#!/bin/sh\nexec /usr/bin/env PATH=/usr/bin:/bin {change} {} \"$@\"\n", copy.display()),
    )
    .unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();

    let (their_input, _input) = pipe().unwrap();
    let (output, their_output) = pipe().unwrap();
    let mut wanted = shell("stat -c %u /proc/$PPID/environ; id -u; tr '\\0' ' ' </proc/$PPID/cmdline");
    wanted.environment.push("KEY=canary-value".to_owned());
    let streams = [their_input.into(), their_output.into(), null()];
    let running = start_with(&script, &wanted, streams, false, &[]).unwrap();
    let (shown, end) = Piped { running, input: _input, output }.finish();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(end, ChildEvent::Exited(0));
    // The kernel gives the files of a process that may not be dumped to root (proc(5)).
    assert_eq!(lines[0], "0", "{shown}");
    assert_ne!(lines[1], "0", "the test must not prove it with root's own process");
    assert!(lines[2].ends_with("--spawner ") && !shown.contains("canary-value"), "{shown}");
}

#[test]
fn a_spawner_that_is_none_is_an_error() {
    let streams = [null(), null(), null()];
    let result = start_with(Path::new("/bin/true"), &shell("exit 0"), streams, false, &[]);
    assert!(matches!(result, Err(SpawnError::HandOver(_) | SpawnError::Monitor(_))));
    let streams = [null(), null(), null()];
    let result = start_with(Path::new("/nonexistent"), &shell("exit 0"), streams, false, &[]);
    assert!(
        matches!(result, Err(SpawnError::Monitor(error)) if Errno::from_io_error(&error) == Some(Errno::NOENT))
    );
}

#[test]
fn a_terminal_that_is_none_is_refused() {
    let streams = [null(), null(), null()];
    let result = start_with(launcher(), &shell("exit 0"), streams, true, &[]);
    assert!(matches!(result, Err(SpawnError::NoTerminal)));
}

/// The parent of a process (proc_pid_stat(5): the second field after the name).
fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_children_of_a_spawner_that_was_killed_go_on() {
    let spawner = spawner(launcher()).unwrap();
    let (their_input, input) = pipe().unwrap();
    let wanted = shell("read word; exit 7");
    let first = start_from(&spawner, &wanted, [their_input.into(), null(), null()], false, &[]).unwrap();
    let killed = parent(parent(first.pid));
    let pid = rustix::process::Pid::from_raw(i32::try_from(killed).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // Until it has ended it may take a request with it into the grave.
    let second = start_from(&spawner, &shell("exit 3"), [null(), null(), null()], false, &[]);
    assert!(matches!(second, Err(SpawnError::HandOver(_) | SpawnError::Monitor(_))));
    drop(input);
    assert_eq!(first.event(), Some(ChildEvent::Exited(7)));
}
