//! One running pds: folders, daemons, and the commands a test gives to it.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use core_ipc::blocking::Client;
use core_ipc::{CallOptions, ConnectError};
use core_types::name::{BUS, LAUNCHER, PROFILE, SECRETS};
use core_types::paths::Paths;
use core_types::protocol::bus::Peers;
use core_types::protocol::profile::AuditTail;
use core_types::protocol::secrets::{FactorProof, Init, Lock, Set};
use core_types::{ProfileName, WireSecret};
use rustix::process::Signal;

use crate::canary::processes;
use crate::invocation::Invocation;
use crate::process::{self, Pinned, wait_any};
use crate::spec::{Spec, Vault};
use crate::{PATIENCE, deadline, programs};

/// The password of every vault that a [`Spec`] makes.
pub const PASSWORD: &str = "correct horse battery staple";

/// The password as the one factor of such a vault.
#[must_use]
pub fn password_proof() -> Vec<FactorProof> {
    vec![FactorProof { factor: 1, secret: WireSecret::new(PASSWORD.into()) }]
}

/// The supervisor, as [`System::kill`] and the others name it.
pub const SUPERVISOR: &str = "supervisor";
/// The supervisor and all daemons.
const ALL: [&str; 5] = [SUPERVISOR, BUS, LAUNCHER, SECRETS, PROFILE];
/// Longest path of a Unix socket, its NUL included (unix(7)).
const SUN_PATH_BYTES: usize = 108;
/// Longest name of a socket that the daemons make in the runtime folder.
const LONGEST_SOCKET: &str = "daemon-launcher.notify";
/// Pause between two looks at something that tells no one when it changes.
const GLANCE: Duration = Duration::from_millis(5);
/// How long the daemons may take to end in order before they are killed.
const END_PATIENCE: Duration = Duration::from_secs(20);
const LOG_LINES_SHOWN: usize = 60;

/// A system of its own: nothing of it lies outside its folder, and dropping it ends all that it started.
pub struct System {
    folder: tempfile::TempDir,
    programs: PathBuf,
    paths: Paths,
    log: String,
    secrets: Vec<Vec<u8>>,
    powerless: bool,
    under: Vec<String>,
    variables: Vec<(String, String)>,
    supervisor: Option<Child>,
}

impl System {
    /// Makes the system that `spec` describes.
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    pub fn boot(spec: Spec) -> Self {
        let mut system = Self::laid_out(&spec);
        if let Some(config) = &spec.config {
            system.write_config(config);
        }
        if spec.started {
            system.start();
        }
        for vault in &spec.vaults {
            system.fill(vault);
        }
        system
    }

    /// Makes the folders and starts nothing.
    fn laid_out(spec: &Spec) -> Self {
        let folder = short_folder(spec.below.as_deref());
        let at = |name: &str| folder.path().join(name);
        for name in ["home", "data", "state", "config", "run"] {
            std::fs::DirBuilder::new().mode(0o700).create(at(name)).expect("a folder of the system");
        }
        let paths = Paths::from_variables(|name| {
            folders().into_iter().find(|(variable, _)| *variable == name).map(|(_, place)| at(place))
        })
        .expect("all folders are given");
        let mut secrets = vec![PASSWORD.as_bytes().to_vec()];
        secrets.extend(
            spec.vaults.iter().flat_map(|vault| vault.secrets.iter().map(|(_, value)| value.clone())),
        );
        Self {
            folder,
            programs: programs::folder(),
            paths,
            log: spec.log.clone(),
            secrets,
            powerless: spec.powerless,
            under: spec.under.clone(),
            variables: spec.variables.clone(),
            supervisor: None,
        }
    }

    /// How the supervisor is started.
    fn supervisor_command(&self) -> Command {
        let program = self.programs.join("daemon-bus");
        match &*self.under {
            [] if self.powerless => process::powerless(&program),
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        }
    }

    /// Starts the supervisor, also after [`Self::kill_all`], and waits for what it says over sd_notify(3) when all
    /// daemons serve.
    ///
    /// # Panics
    /// They do not.
    pub fn start(&mut self) {
        self.reap();
        let socket = self.folder.path().join(".notify");
        drop(std::fs::remove_file(&socket));
        let notified = UnixDatagram::bind(&socket).expect("a socket for the supervisor's word");
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.paths.log_file())
            .expect("the log file");
        let child = self
            .supervisor_command()
            .arg("--supervise")
            .env_clear()
            .envs(self.environment())
            .env("NOTIFY_SOCKET", &socket)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the supervisor can be started");
        let process = Pinned::open(child.id()).expect("a child that is not reaped");
        self.supervisor = Some(child);
        let end = deadline();
        let mut message = [0; 4096];
        loop {
            match wait_any(&[notified.as_fd(), process.as_fd()], end) {
                Some(0) => {
                    let length = notified.recv(&mut message).expect("a datagram that has arrived");
                    if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                        return;
                    }
                }
                Some(_) => panic!("the supervisor ended before all daemons served"),
                None => panic!("not all daemons served within {PATIENCE:?}"),
            }
        }
    }

    fn fill(&self, vault: &Vault) {
        let profile = ProfileName::parse(vault.profile.as_str()).expect("a profile name in a Spec");
        let mut client = self.client();
        let password = WireSecret::new(PASSWORD.into());
        call(&mut client, &Init { profile: profile.clone(), password });
        for (name, value) in &vault.secrets {
            let value = WireSecret::new(value.clone());
            call(
                &mut client,
                &Set {
                    profile: profile.clone(),
                    name: name.clone(),
                    value,
                    expires_unix_ms: None,
                    note: None,
                },
            );
        }
        if vault.locked {
            call(&mut client, &Lock { profile: Some(profile) });
        }
    }

    /// Where everything of the system lies.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The folder around everything of the system, and a place for what a test needs besides.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the programs under test.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The whole environment of commands and daemons; nothing of the caller's own gets into it.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut search = self.programs.clone().into_os_string();
        search.push(":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        let mut variables: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), search),
            ("LC_ALL".into(), "C.UTF-8".into()),
            ("TERM".into(), "dumb".into()),
            ("PDS_LOG".into(), self.log.clone().into()),
            // That the screen of whoever tests is locked locks nothing here.
            ("DBUS_SYSTEM_BUS_ADDRESS".into(), "unix:path=/nonexistent/system_bus".into()),
        ];
        let places =
            folders().map(|(variable, place)| (variable.into(), self.folder.path().join(place).into()));
        variables.extend(places);
        variables.extend(self.variables.iter().map(|(name, value)| (name.into(), value.into())));
        variables
    }

    /// A `pds` command, in the system's environment.
    pub fn pds<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Invocation<'_> {
        self.program("pds", arguments)
    }

    /// Any command, in the system's environment; `pds` is on its `PATH`.
    pub fn program<I: IntoIterator<Item: AsRef<OsStr>>>(&self, name: &str, arguments: I) -> Invocation<'_> {
        let own = self.programs.join(name);
        let program = if own.is_file() { own } else { PathBuf::from(name) };
        Invocation::new(self, &program, arguments)
    }

    /// A line for bash, with `pipefail` set; `pds` is on its `PATH`.
    pub fn shell(&self, line: &str) -> Invocation<'_> {
        self.program("bash", ["--norc", "--noprofile", "-o", "pipefail", "-c", line])
    }

    /// A connection to the bus.
    ///
    /// # Panics
    /// There is no bus.
    #[must_use]
    pub fn client(&self) -> Client {
        self.try_client().expect("the bus answers")
    }

    fn try_client(&self) -> Result<Client, ConnectError> {
        Client::connect(&self.paths, PATIENCE)
    }

    /// The running instance of a daemon (or of [`SUPERVISOR`]), if there is one.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<Pinned> {
        Pinned::holder(&self.paths.instance_lock(name))
    }

    /// The process number of a running daemon.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn pid_of(&self, name: &str) -> u32 {
        self.process(name).unwrap_or_else(|| panic!("{name} does not run")).pid()
    }

    /// Ends a daemon with SIGKILL and waits until it is gone; answers the number it had.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&self, name: &str) -> u32 {
        let process = self.process(name).unwrap_or_else(|| panic!("{name} does not run"));
        process.signal(Signal::KILL);
        assert!(process.wait_end(deadline()), "{name} outlived SIGKILL");
        process.pid()
    }

    /// Ends with SIGKILL the supervisor and all daemons that run, and none of them has the time to start another one.
    ///
    /// # Panics
    /// One of them stays.
    pub fn kill_all(&self) {
        let supervisor = self.process(SUPERVISOR);
        supervisor.iter().for_each(Pinned::stop);
        let daemons = [BUS, LAUNCHER, SECRETS, PROFILE].into_iter().filter_map(|name| self.process(name));
        let all: Vec<Pinned> = daemons.chain(supervisor).collect();
        all.iter().for_each(|process| process.signal(Signal::KILL));
        for process in all {
            // One that its stopped parent has not reaped counts as ended.
            assert!(process.wait_end(deadline()), "process {} outlived SIGKILL", process.pid());
        }
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }

    /// The numbers of all processes of the system: those with its folder in their environment, and their children.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut ours = b"PDS_RUNTIME_DIR=".to_vec();
        ours.extend(self.paths.runtime().as_os_str().as_encoded_bytes());
        let is_ours = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == ours)
        };
        let all = processes();
        let mut found: Vec<u32> = all.iter().copied().filter(is_ours).collect();
        loop {
            let is_child = |pid: &u32| process::parent(*pid).is_some_and(|parent| found.contains(&parent));
            let children: Vec<u32> =
                all.iter().copied().filter(|pid| !found.contains(pid) && is_child(pid)).collect();
            if children.is_empty() {
                return found;
            }
            found.extend(children);
        }
    }

    /// Waits until a daemon that was `old` is there again, and all daemons serve; answers its new number.
    ///
    /// # Panics
    /// It does not come back.
    pub fn wait_until_back(&self, name: &str, old: u32) -> u32 {
        let is_new = || self.process(name).map(|process| process.pid()).filter(|pid| *pid != old);
        wait_for(&format!("{name} comes back"), || is_new().filter(|_| self.all_serve()))
    }

    /// Whether the three daemons are registered on the bus by the processes that hold their locks.
    #[must_use]
    pub fn all_serve(&self) -> bool {
        let Ok(mut client) = self.try_client() else { return false };
        let Ok(peers) = client.call(&Peers {}, CallOptions::default()) else { return false };
        [SECRETS, PROFILE, LAUNCHER].iter().all(|name| {
            let running = self.process(name).map(|process| process.pid());
            running.is_some() && peers.iter().any(|peer| peer.name.as_str() == *name && peer.pid == running)
        })
    }

    /// The last entries of the audit log, oldest first, as JSON.
    #[must_use]
    pub fn audit(&self, count: u32) -> Vec<serde_json::Value> {
        let lines = call(&mut self.client(), &AuditTail { count, after: None });
        lines.iter().map(|line| serde_json::from_str(&line.json).expect("an entry is JSON")).collect()
    }

    /// What the daemons have logged.
    #[must_use]
    pub fn log(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Ok(mut file) = std::fs::File::open(self.paths.log_file()) {
            file.read_to_end(&mut text).expect("the log can be read");
        }
        text
    }

    /// Replaces `config.toml`.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.paths.config_file(), text).expect("the configuration can be written");
    }

    /// Adds a value that no failure of a test may show.
    pub fn keep_secret(&mut self, value: &[u8]) {
        self.secrets.push(value.to_vec());
    }

    /// Text for the reader of a failure: no secret of the system stands in it.
    #[must_use]
    pub fn redacted(&self, bytes: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for secret in self.secrets.iter().filter(|secret| secret.len() > 3) {
            text = text.replace(&*String::from_utf8_lossy(secret), "[REDACTED]");
        }
        text
    }

    fn show_log(&self) {
        let log = self.redacted(&self.log());
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        eprintln!("--- the daemons' log ends with ---\n{}\n---", shown.join("\n"));
    }

    /// Ends all daemons: first by asking the supervisor, then whatever is left.
    fn end(&mut self) {
        let end = Instant::now() + END_PATIENCE;
        if let Some(supervisor) = self.process(SUPERVISOR) {
            supervisor.signal(Signal::TERM);
            let _killed_below_if_not = supervisor.wait_end(end);
        }
        // A supervisor first, so that nothing is started again; a bus that lost its own may just be starting one.
        while let Some(left) = ALL.iter().find_map(|name| self.process(name)) {
            left.signal(Signal::KILL);
            assert!(left.wait_end(deadline()), "process {} outlived SIGKILL", left.pid());
        }
        self.reap();
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        self.end();
    }
}

/// Makes a call that must work.
///
/// # Panics
/// It does not.
pub fn call<C: core_types::protocol::Call>(client: &mut Client, call: &C) -> C::Reply {
    client
        .call(call, CallOptions { deadline: PATIENCE, descriptors: Vec::new() })
        .unwrap_or_else(|error| panic!("call {} failed: {error:?}", C::METHOD))
}

/// Looks again and again until there is an answer: for what changes without telling anyone.
///
/// # Panics
/// There is none at the deadline.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = deadline();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(GLANCE);
    }
}

/// The variables that say where things lie, and the place of each below the system's folder.
fn folders() -> [(&'static str, &'static str); 5] {
    [
        ("HOME", "home"),
        ("PDS_DATA_DIR", "data"),
        ("PDS_STATE_DIR", "state"),
        ("PDS_CONFIG_DIR", "config"),
        ("PDS_RUNTIME_DIR", "run"),
    ]
}

/// A private folder whose path leaves room for a socket's.
fn short_folder(below: Option<&Path>) -> tempfile::TempDir {
    let usual = std::env::temp_dir();
    let below = below.unwrap_or(&usual);
    let made = tempfile::Builder::new().prefix("pds-").tempdir_in(below).expect("a temporary folder");
    if made.path().join("run").join(LONGEST_SOCKET).as_os_str().len() < SUN_PATH_BYTES {
        return made;
    }
    tempfile::Builder::new().prefix("pds-").tempdir_in("/tmp").expect("a temporary folder in /tmp")
}
