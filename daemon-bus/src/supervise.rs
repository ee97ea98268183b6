//! `daemon-bus --supervise`: starts the daemons from beside itself, restarts what dies, and ends them in order.
//!
//! It adopts a daemon that is running already (left by a supervisor that was killed), so losing the supervisor
//! loses no unlocked vault; and the bus it started starts a new supervisor when the old one is gone.
//!
//! It tells the bus which processes it started, so that nobody else takes their names while they are restarted.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
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

use crate::log_file::LogFile;
use crate::vouchers::{OWN_NAMES, Told};

/// Name of the supervisor's instance lock.
pub(crate) const NAME: &str = "supervisor";
/// Argument of a bus whose standard input is the word of its supervisor, and ends with it.
pub(crate) const SUPERVISED: &str = "--supervised";
/// Second argument of a supervisor whose standard input leads to the bus that started it.
pub(crate) const SUCCEEDING: &str = "--succeeding";
/// Waits before a restart: doubled with each quick death.
const BACKOFF_MS: (u64, u64) = (50, 5_000);
/// A daemon that lived this long has started well.
pub(crate) const STEADY: Duration = Duration::from_secs(10);
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
    let succeeding = std::env::args_os().nth(2).is_some_and(|argument| argument == SUCCEEDING);
    let told = Rc::new(RefCell::new(Told::default()));
    if succeeding {
        let bus = std::io::stdin().as_fd().try_clone_to_owned();
        bus.and_then(|bus| told.borrow_mut().inherit(bus.into()))
            .map_err(|error| StartError::Service(format!("the bus cannot be told of daemons: {error}")))?;
    }
    if let Some(log) = LogFile::of_stderr(paths) {
        log.keep_small();
        tokio::task::spawn_local(log.keep_small_forever());
    }
    let daemons: Vec<Rc<Supervised>> = [BUS, PROFILE, SECRETS, LAUNCHER]
        .map(|name| Rc::new(Supervised::new(name, folder.join(name), paths.clone(), Rc::clone(&told))))
        .into();
    for daemon in &daemons {
        let daemon = Rc::clone(daemon);
        tokio::task::spawn_local(async move { daemon.keep_alive(succeeding).await });
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

/// How long the bus waits before it starts a supervisor after so many quick deaths of earlier ones.
pub(crate) fn backoff(deaths: u32) -> Duration {
    Duration::from_millis(BACKOFF_MS.0.saturating_mul(1 << deaths.min(16)).min(BACKOFF_MS.1))
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
    told: Rc<RefCell<Told>>,
}

impl Supervised {
    fn new(name: &'static str, executable: PathBuf, paths: Paths, told: Rc<RefCell<Told>>) -> Self {
        Self {
            told,
            name,
            executable,
            paths,
            ready: watch::Sender::new(false),
            stopping: Cell::new(false),
            process: Cell::new(None),
            gone: Notify::new(),
        }
    }

    /// Starts the daemon again and again, until it is to stop. A supervisor that is `succeeding` another one has been
    /// told by the bus which daemons run; else what runs at the beginning is believed to be what it claims to be.
    async fn keep_alive(&self, succeeding: bool) {
        let mut backoff_ms = BACKOFF_MS.0;
        let mut believed = !succeeding;
        let known = self.told.borrow().process(self.name);
        if succeeding && (self.name == BUS || known.is_some()) {
            // The bus started us, and listens; and it knows these processes. A start would have it know another one.
            self.report(self.adopt(false, known).await);
            self.forget();
        }
        while !self.stopping.get() {
            let started = Instant::now();
            self.report(self.run_once(std::mem::take(&mut believed)).await);
            self.forget();
            if self.stopping.get() {
                return;
            }
            backoff_ms =
                if started.elapsed() > STEADY { BACKOFF_MS.0 } else { (backoff_ms * 2).min(BACKOFF_MS.1) };
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
        }
    }

    fn report(&self, outcome: std::io::Result<String>) {
        match outcome {
            Ok(how) if self.stopping.get() => tracing::debug!("{} ended: {how}", self.name),
            Ok(how) => tracing::warn!("{} ended ({how}) and is started again", self.name),
            Err(error) => tracing::error!(%error, "{} cannot be started", self.name),
        }
    }

    fn forget(&self) {
        self.process.set(None);
        self.gone.notify_waiters();
    }

    /// Has the bus know that this process may take the daemon's name.
    fn vouch(&self, pid: u32) {
        let outcome = if OWN_NAMES.contains(&self.name) {
            self.told.borrow_mut().vouch(self.name, pid)
        } else {
            Ok(())
        };
        if let Err(error) = outcome {
            // A bus that has ended is told when it is back.
            tracing::debug!(%error, "the bus was not told of {}", self.name);
        }
    }

    /// Starts the daemon, or adopts the one that runs, and waits for its end; says how it ended.
    async fn run_once(&self, believed: bool) -> std::io::Result<String> {
        let path = self.paths.runtime().join(format!("{}.notify", self.name));
        drop(std::fs::remove_file(&path));
        let notified = UnixDatagram::bind(&path)?;
        // The bus hears over it which daemons are ours, and starts a new supervisor when it ends without the bus's
        // having been told to end.
        let (argument, stdin, bus) = if self.name == BUS {
            let (ours, theirs) = UnixStream::pair()?;
            (Some(SUPERVISED), Stdio::from(OwnedFd::from(theirs)), Some(ours))
        } else {
            (None, Stdio::null(), None)
        };
        let mut child = Command::new(&self.executable)
            .args(argument)
            .env("NOTIFY_SOCKET", &path)
            .stdin(stdin)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        if let Some(bus) = bus {
            self.told.borrow_mut().tell(bus)?;
        }
        let before = self.told.borrow().process(self.name);
        if let Some(pid) = child.id() {
            self.vouch(pid);
            self.watch(pid)?;
        }
        let status = tokio::select! {
            status = child.wait() => status?,
            never = self.note_ready(&notified) => never?,
        };
        if status.code() == Some(i32::from(EXIT_ALREADY_RUNNING)) {
            return self.adopt(believed, before).await;
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

    /// Waits for the end of the daemon that holds the instance lock; has the bus know it if it is `believed`, or was
    /// vouched for `before`.
    async fn adopt(&self, believed: bool, before: Option<u32>) -> std::io::Result<String> {
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
        if believed && self.name == BUS {
            // Nothing can be said to it; the daemons find their way to the next one.
            tracing::info!(pid = holder, "{} of another supervisor runs and is replaced", self.name);
            pidfd_send_signal(&process, Signal::TERM)?;
        } else {
            tracing::info!(pid = holder, "{} runs already and is looked after from now on", self.name);
            self.ready.send_replace(true);
        }
        if believed || before == Some(holder) {
            self.vouch(holder);
        }
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
