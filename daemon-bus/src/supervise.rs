//! `daemon-bus --supervise`: starts the daemons from beside itself, restarts what dies, and ends them in order.
//!
//! It adopts a daemon that is running already (left by a supervisor that was killed), so losing the supervisor
//! loses no unlocked vault; and the bus it started starts a new supervisor when the old one is gone.

use std::cell::Cell;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;

use core_crypto::private_fs;
use core_daemon::process::{EXIT_ALREADY_RUNNING, Process, StartError, report};
use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use core_types::paths::Paths;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;
use tokio::time::Instant;

/// Name of the supervisor's instance lock.
pub(crate) const NAME: &str = "supervisor";
/// Argument of a bus whose standard input ends with its supervisor.
pub(crate) const SUPERVISED: &str = "--supervised";
/// Waits before a restart: doubled with each quick death.
const BACKOFF_MS: (u64, u64) = (50, 5_000);
/// A daemon that lived this long has started well.
const STEADY: Duration = Duration::from_secs(10);
/// How long a daemon may take to end when told to.
const GRACE: Duration = Duration::from_secs(8);

/// Runs the supervisor; the exit code is that of a daemon.
pub(crate) fn main() -> ExitCode {
    // A session of its own: a terminal that closes takes its processes along, but not these. It fails only for a
    // process that leads a group already, and then the starter has seen to it.
    let _ = rustix::process::setsid();
    let outcome = Process::start(NAME, true).and_then(|process| {
        let tasks = LocalSet::new();
        process.block_on(tasks.run_until(supervise(&process.paths))).and_then(|ended| ended)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(NAME, &error),
    }
}

async fn supervise(paths: &Paths) -> Result<(), StartError> {
    let folder = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(PathBuf::from))
        .ok_or_else(|| StartError::Service("the folder of daemon-bus cannot be told".to_owned()))?;
    let daemons: Vec<Rc<Supervised>> = [BUS, PROFILE, SECRETS, LAUNCHER]
        .map(|name| Rc::new(Supervised::new(name, folder.join(name), paths.clone())))
        .into();
    for daemon in &daemons {
        let daemon = Rc::clone(daemon);
        tokio::task::spawn_local(async move { daemon.keep_alive().await });
    }
    let end = core_daemon::signals::told_to_end();
    tokio::pin!(end);
    tokio::select! {
        _ = &mut end => return stop_in_order(&daemons).await,
        () = all_ready(&daemons) => {}
    }
    tracing::info!("all daemons serve");
    announce_ready();
    drop(end.await);
    stop_in_order(&daemons).await
}

async fn all_ready(daemons: &[Rc<Supervised>]) {
    for daemon in daemons {
        let mut ready = daemon.ready.subscribe();
        // The sender lives as long as the daemon's record.
        drop(ready.wait_for(|ready| *ready).await);
    }
}

/// Tells whoever started us: by a line on stdout, and by sd_notify(3).
fn announce_ready() {
    let mut stdout = std::io::stdout();
    drop(stdout.write_all(b"ready\n").and_then(|()| stdout.flush()));
    // The starter waits for the end of this pipe; nothing more is ever written to it.
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(null);
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "the starter was not told");
    }
}

/// Whoever needs the bus ends before it, and what records ends after what is recorded.
async fn stop_in_order(daemons: &[Rc<Supervised>]) -> Result<(), StartError> {
    tracing::info!("ending all daemons");
    for name in [LAUNCHER, SECRETS, PROFILE, BUS] {
        for daemon in daemons.iter().filter(|daemon| daemon.name == name) {
            daemon.stop().await;
        }
    }
    Ok(())
}

/// For the bus, whose supervisor is gone: sees to it from now on, in a thread of its own, that there is another one.
pub(crate) fn replace_supervisor(paths: &Paths) {
    tracing::warn!("the supervisor is gone; a new one is started");
    let paths = paths.clone();
    std::thread::spawn(move || {
        if let Err(error) = keep_supervised(&paths) {
            tracing::error!(%error, "no new supervisor could be started; what dies from now on stays dead");
        }
    });
}

fn keep_supervised(paths: &Paths) -> std::io::Result<()> {
    let executable = std::env::current_exe()?;
    let mut backoff_ms = BACKOFF_MS.0;
    loop {
        // The lock outlives the pipe by a moment, and a supervisor that someone else has started holds it for long.
        let lock = private_fs::lock_instance(&paths.instance_lock(NAME)).map_err(std::io::Error::other)?;
        if lock.is_some() {
            drop(lock);
            let mut supervisor = std::process::Command::new(&executable)
                .arg("--supervise")
                .env_remove("NOTIFY_SOCKET")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()?;
            supervisor.wait()?;
            backoff_ms = BACKOFF_MS.0;
        }
        std::thread::sleep(Duration::from_millis(backoff_ms));
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
    }
}

/// One daemon and what is known of it.
struct Supervised {
    name: &'static str,
    executable: PathBuf,
    paths: Paths,
    ready: watch::Sender<bool>,
    stopping: Cell<bool>,
    process: Cell<Option<Rc<OwnedFd>>>,
    gone: Notify,
}

impl Supervised {
    fn new(name: &'static str, executable: PathBuf, paths: Paths) -> Self {
        Self {
            name,
            executable,
            paths,
            ready: watch::Sender::new(false),
            stopping: Cell::new(false),
            process: Cell::new(None),
            gone: Notify::new(),
        }
    }

    /// Starts the daemon again and again, until it is to stop.
    async fn keep_alive(&self) {
        let mut backoff_ms = BACKOFF_MS.0;
        while !self.stopping.get() {
            let started = Instant::now();
            match self.run_once().await {
                Ok(how) if self.stopping.get() => tracing::debug!("{} ended: {how}", self.name),
                Ok(how) => tracing::warn!("{} ended ({how}) and is started again", self.name),
                Err(error) => tracing::error!(%error, "{} cannot be started", self.name),
            }
            self.process.set(None);
            self.gone.notify_waiters();
            if self.stopping.get() {
                return;
            }
            backoff_ms =
                if started.elapsed() > STEADY { BACKOFF_MS.0 } else { (backoff_ms * 2).min(BACKOFF_MS.1) };
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
        }
    }

    /// Starts the daemon, or adopts the one that runs, and waits for its end; says how it ended.
    async fn run_once(&self) -> std::io::Result<String> {
        let path = self.paths.runtime().join(format!("{}.notify", self.name));
        drop(std::fs::remove_file(&path));
        let notified = UnixDatagram::bind(&path)?;
        // The bus holds on to us: it starts a new supervisor when this pipe ends without its having been told to end.
        let (argument, stdin) =
            if self.name == BUS { (Some(SUPERVISED), Stdio::piped()) } else { (None, Stdio::null()) };
        let mut child = Command::new(&self.executable)
            .args(argument)
            .env("NOTIFY_SOCKET", &path)
            .stdin(stdin)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        // `wait` would close it.
        let _held = child.stdin.take();
        if let Some(pid) = child.id() {
            self.watch(pid)?;
        }
        let status = tokio::select! {
            status = child.wait() => status?,
            never = self.note_ready(&notified) => never?,
        };
        if status.code() == Some(i32::from(EXIT_ALREADY_RUNNING)) {
            return self.adopt().await;
        }
        Ok(status.to_string())
    }

    /// Takes what the daemon says over sd_notify(3), until its end.
    async fn note_ready(&self, notified: &UnixDatagram) -> std::io::Result<std::process::ExitStatus> {
        let mut message = [0; 4096];
        loop {
            let length = notified.recv(&mut message).await?;
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                self.ready.send_replace(true);
            }
        }
    }

    fn watch(&self, pid: u32) -> std::io::Result<Rc<OwnedFd>> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::NotFound)?;
        let process = Rc::new(pidfd_open(pid, PidfdFlags::NONBLOCK)?);
        self.process.set(Some(Rc::clone(&process)));
        Ok(process)
    }

    /// Waits for the end of the daemon that holds the instance lock.
    async fn adopt(&self) -> std::io::Result<String> {
        let lock = self.paths.instance_lock(self.name);
        let holder = private_fs::read_limited(&lock, 32)
            .map_err(std::io::Error::other)?
            .and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok())
            .ok_or(std::io::ErrorKind::NotFound)?;
        let process = self.watch(holder)?.try_clone()?;
        // The lock is still held, so the process that wrote its number there is the one that was just pinned.
        if private_fs::lock_instance(&lock).map_err(std::io::Error::other)?.is_some() {
            self.process.set(None);
            return Ok("it had just ended".to_owned());
        }
        tracing::info!(pid = holder, "{} runs already and is looked after from now on", self.name);
        self.ready.send_replace(true);
        tokio::task::spawn_blocking(move || poll(&mut [PollFd::new(&process, PollFlags::IN)], None))
            .await??;
        Ok("adopted".to_owned())
    }

    /// Tells the daemon to end and waits until it has; the second word is SIGKILL.
    async fn stop(&self) {
        self.stopping.set(true);
        for signal in [Signal::TERM, Signal::KILL] {
            let gone = self.gone.notified();
            let process = self.process.take();
            self.process.set(process.clone());
            let Some(process) = process else { return };
            if pidfd_send_signal(&*process, signal).is_err() {
                return;
            }
            if tokio::time::timeout(GRACE, gone).await.is_ok() {
                return;
            }
            tracing::warn!("{} does not end", self.name);
        }
    }
}
