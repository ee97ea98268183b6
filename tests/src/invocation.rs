//! One command given to a system, and how it ended.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::process::Pinned;
use crate::{PASSWORD, PATIENCE, System};

/// A command that has not been started.
#[must_use = "a command does nothing until it is run"]
pub struct Invocation<'a> {
    system: &'a System,
    command: Command,
    shown: String,
    stdin: Vec<u8>,
    keep_stdin_open: bool,
}

impl<'a> Invocation<'a> {
    pub(crate) fn new<I: IntoIterator<Item: AsRef<OsStr>>>(
        system: &'a System,
        program: &Path,
        arguments: I,
    ) -> Self {
        let mut command = Command::new(program);
        command.env_clear().envs(system.environment()).current_dir(system.folder());
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut invocation = Self { system, command, shown: name, stdin: Vec::new(), keep_stdin_open: false };
        for argument in arguments {
            invocation = invocation.arg(argument);
        }
        invocation
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        let _never_fails = write!(self.shown, " {:?}", argument.as_ref());
        self.command.arg(argument);
        self
    }

    /// Gives it these bytes, then the end of the input.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// Does not end its input.
    pub fn stdin_stays_open(mut self) -> Self {
        self.keep_stdin_open = true;
        self
    }

    /// Gives it the system's password on standard input, with the option that makes it read it there.
    pub fn password(self) -> Self {
        self.arg("--password-file").arg("-").stdin(PASSWORD)
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable away.
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets its working directory.
    pub fn current_dir(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// The command, for what has no method here.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(mut self) -> Running<'a> {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.shown));
        let process = Pinned::open(child.id()).expect("a child that is not reaped");
        let mut input = child.stdin.take();
        let bytes = std::mem::take(&mut self.stdin);
        let open = self.keep_stdin_open;
        let writer = std::thread::spawn(move || {
            // A command that needs no input closes it.
            let _may_be_closed = input.as_mut().map(|input| input.write_all(&bytes));
            if open { input } else { None }
        });
        let stdout = reader(child.stdout.take().expect("a pipe"));
        let stderr = reader(child.stderr.take().expect("a pipe"));
        Running {
            system: self.system,
            shown: self.shown,
            child,
            process,
            writer: Some(writer),
            stdout,
            stderr,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// It cannot be started, or hangs.
    pub fn run(self) -> Output {
        self.start().wait()
    }
}

fn reader(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _up_to_the_error = from.read_to_end(&mut bytes);
        let _nobody_may_wait = send.send(bytes);
    });
    receive
}

/// A command that runs; dropping it kills it.
#[must_use = "a command that is dropped is killed"]
pub struct Running<'a> {
    system: &'a System,
    shown: String,
    child: Child,
    process: Pinned,
    writer: Option<JoinHandle<Option<std::process::ChildStdin>>>,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

impl Running<'_> {
    /// The process.
    #[must_use]
    pub fn process(&self) -> &Pinned {
        &self.process
    }

    /// Waits for its end and for the ends of its output.
    ///
    /// # Panics
    /// It hangs, or something that it left behind holds its output open.
    pub fn wait(mut self) -> Output {
        let end = Instant::now() + PATIENCE;
        assert!(self.process.wait_end(end), "{} hangs: it runs after {PATIENCE:?}", self.shown);
        let status = self.child.wait().expect("the child can be waited for");
        // The other end of the input is closed now, so the writer ends.
        drop(self.writer.take().map(JoinHandle::join));
        let left = || end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let held = format!("{} ended, and its output is held open by what it left behind", self.shown);
        let stdout = self.stdout.recv_timeout(left()).expect(&held);
        let stderr = self.stderr.recv_timeout(left()).expect(&held);
        let told = self.system.redacted(&stderr);
        Output(Ended { shown: std::mem::take(&mut self.shown), status, stdout, stderr, told })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A command that has ended; its exit code is to be looked at first.
#[must_use = "look at how the command ended"]
pub struct Output(Ended);

/// A command whose exit code has been looked at.
pub struct Ended {
    shown: String,
    status: ExitStatus,
    /// What it wrote to standard output. It may be a secret: do not show it.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    told: String,
}

impl Output {
    /// The command did what it was asked.
    ///
    /// # Panics
    /// It did not.
    pub fn done(self) -> Ended {
        self.exits(0)
    }

    /// The command ended with this code.
    ///
    /// # Panics
    /// It did not.
    #[allow(clippy::must_use_candidate)] // the code is what the caller wanted to see
    pub fn exits(self, code: i32) -> Ended {
        let ended = self.0;
        assert!(
            ended.status.code() == Some(code),
            "`{}` ended with {} instead of exit code {code} and said:\n{}",
            ended.shown,
            ended.status,
            ended.told
        );
        ended
    }

    /// The command was ended by this signal.
    ///
    /// # Panics
    /// It was not.
    #[allow(clippy::must_use_candidate)] // as above
    pub fn killed_by(self, signal: i32) -> Ended {
        let ended = self.0;
        assert!(
            ended.status.signal() == Some(signal),
            "`{}` ended with {} instead of signal {signal} and said:\n{}",
            ended.shown,
            ended.status,
            ended.told
        );
        ended
    }

    /// How it ended, whatever that is.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.0.status
    }

    /// What it said, without the secrets of the system.
    #[must_use]
    pub fn said(&self) -> &str {
        &self.0.told
    }

    /// The ended command, however it ended.
    #[must_use]
    pub fn any(self) -> Ended {
        self.0
    }
}

impl Ended {
    /// How it ended.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// It wrote just these bytes to standard output.
    ///
    /// # Panics
    /// It did not; the bytes are not shown.
    pub fn prints(&self, expected: impl AsRef<[u8]>) -> &Self {
        let (found, expected) = (self.stdout.as_slice(), expected.as_ref());
        let first =
            found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
        assert!(
            found == expected,
            "`{}` printed {} bytes instead of {}; the first that differs is byte {first}. It said:\n{}",
            self.shown,
            found.len(),
            expected.len(),
            self.told
        );
        self
    }

    /// It wrote these bytes somewhere in standard output.
    ///
    /// # Panics
    /// It did not; the bytes are not shown.
    pub fn prints_among(&self, expected: impl AsRef<[u8]>) -> &Self {
        let expected = expected.as_ref();
        let found = self.stdout.windows(expected.len().max(1)).any(|window| window == expected);
        assert!(
            found,
            "`{}` printed {} bytes, and what was looked for is not among them. It said:\n{}",
            self.shown,
            self.stdout.len(),
            self.told
        );
        self
    }

    /// It wrote this text somewhere in standard error.
    ///
    /// # Panics
    /// It did not.
    pub fn says(&self, text: &str) -> &Self {
        let found = String::from_utf8_lossy(&self.stderr).contains(text);
        assert!(found, "`{}` did not say {text:?} but:\n{}", self.shown, self.told);
        self
    }

    /// It wrote nothing to standard error.
    ///
    /// # Panics
    /// It did.
    pub fn says_nothing(&self) -> &Self {
        assert!(self.stderr.is_empty(), "`{}` said:\n{}", self.shown, self.told);
        self
    }

    /// The one JSON value it printed.
    ///
    /// # Panics
    /// It printed something else.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!("`{}` printed no JSON: {error}; it said:\n{}", self.shown, self.told)
        })
    }

    /// What it printed, as text without the last line feed. For what is no secret.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }
}
