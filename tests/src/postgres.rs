//! A PostgreSQL server of its own, whose password only the caller knows.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::deadline;
use crate::process::Pinned;
use crate::system::wait_for;

/// Where Debian and its relatives put the versions of the server.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user who runs the server when the tests run as root, whom it refuses.
const UNPRIVILEGED: &str = "nobody";

/// A running server; dropping it ends it.
pub struct Postgres {
    _folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    server: Child,
}

impl Postgres {
    /// Makes a database and serves it on a free port of 127.0.0.1, for the user `postgres` with this password
    /// (scram-sha-256) and for nobody else.
    ///
    /// # Panics
    /// PostgreSQL is not installed, or does not start.
    #[must_use]
    pub fn start(password: &[u8]) -> Self {
        let programs = newest_version();
        let folder = tempfile::Builder::new().prefix("pds-pg-").tempdir().expect("a temporary folder");
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, password).expect("the password for initdb");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder for the data");
        give_to_server(folder.path(), &[folder.path(), &password_file, &data]);
        let made = unprivileged(&programs.join("initdb"))
            .args([
                "--username=postgres",
                "--auth=scram-sha-256",
                "--no-sync",
                "--no-locale",
                "--encoding=UTF8",
            ])
            .arg(format!("--pwfile={}", password_file.display()))
            .arg(format!("--pgdata={}", data.display()))
            .stdout(Stdio::null())
            .output()
            .expect("initdb can be started");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::remove_file(&password_file).expect("the password is taken away");
        let port = free_port();
        let server = unprivileged(&programs.join("postgres"))
            .args(["-D".as_ref(), data.as_os_str()])
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "fsync=off"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", folder.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres can be started");
        let postgres = Self { _folder: folder, programs, port, server };
        wait_for("PostgreSQL answers", || postgres.is_ready().then_some(()));
        postgres
    }

    fn is_ready(&self) -> bool {
        let status = Command::new(self.programs.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .env_clear()
            .status();
        status.expect("pg_isready can be started").success()
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The client program of the same version.
    #[must_use]
    pub fn psql(&self) -> PathBuf {
        self.programs.join("psql")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = Pinned::open(self.server.id()) {
            // "Fast shutdown" (postgres(1)): it ends its sessions and removes its shared memory.
            server.signal(Signal::INT);
            if !server.wait_end(deadline()) {
                server.signal(Signal::KILL);
            }
        }
        let _status = self.server.wait();
    }
}

fn newest_version() -> PathBuf {
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions =
        std::fs::read_dir(VERSIONS).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut versions: Vec<PathBuf> = versions.unwrap_or_default();
    versions.sort_by_key(|path| number(path));
    let newest =
        versions.pop().unwrap_or_else(|| panic!("{VERSIONS} is empty: install the package `postgresql`"));
    newest.join("bin")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command of the server: PostgreSQL refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        let ids = [format!("--reuid={UNPRIVILEGED}"), format!("--regid={}", group_of(UNPRIVILEGED))];
        command.args(ids).args(["--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command
}

/// Gives files to the user who runs the server.
fn give_to_server(_: &Path, files: &[&Path]) {
    if !is_root() {
        return;
    }
    let owner = format!("{UNPRIVILEGED}:{}", group_of(UNPRIVILEGED));
    let status = Command::new("chown").arg(owner).args(files).status().expect("chown(1)");
    assert!(status.success(), "chown failed");
}

/// The number of a user's group.
fn group_of(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output().expect("id(1)");
    assert!(output.status.success(), "there is no user {user}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}
