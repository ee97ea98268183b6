//! A real ssh-agent with keys of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::system::wait_for;

/// A running agent; dropping it ends it and forgets its keys.
pub struct SshAgent {
    folder: tempfile::TempDir,
    agent: Child,
}

impl SshAgent {
    /// Starts an agent that holds no key.
    ///
    /// # Panics
    /// OpenSSH's client programs are not installed, or the agent does not start.
    #[must_use]
    pub fn start() -> Self {
        let folder =
            tempfile::Builder::new().prefix("pds-ssh-").tempdir_in("/tmp").expect("a temporary folder");
        let agent = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(folder.path().join("agent"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent can be started");
        let started = Self { folder, agent };
        wait_for("the ssh-agent listens", || std::os::unix::net::UnixStream::connect(started.socket()).ok());
        started
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// Makes a key, `comment` being its name, and gives it to the agent. Answers the path of the public key.
    ///
    /// # Panics
    /// OpenSSH does not know the kind.
    pub fn add(&self, kind: &str, comment: &str) -> PathBuf {
        let private = self.folder.path().join(comment);
        self.tool("ssh-keygen", ["-q", "-t", kind, "-N", "", "-C", comment, "-f"], &private);
        self.hold(&private);
        private.with_extension("pub")
    }

    /// Gives a key that [`Self::add`] made to the agent again.
    pub fn hold(&self, key: &Path) {
        self.tool("ssh-add", ["-q"], &key.with_extension(""));
    }

    /// Takes a key from the agent.
    pub fn forget(&self, key: &Path) {
        self.tool("ssh-add", ["-q", "-d"], key);
    }

    /// The fingerprint of a key, as ssh-keygen shows it.
    #[must_use]
    pub fn fingerprint(&self, key: &Path) -> String {
        let shown = self.tool("ssh-keygen", ["-l", "-f"], key);
        shown.split(' ').nth(1).expect("a line of ssh-keygen").to_owned()
    }

    fn tool<const N: usize>(&self, program: &str, arguments: [&str; N], path: &Path) -> String {
        let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        arguments.push(path.into());
        let ended = Command::new(program)
            .args(arguments)
            .env("SSH_AUTH_SOCK", self.socket())
            .stdin(Stdio::null())
            .output()
            .expect("OpenSSH's client programs");
        assert!(ended.status.success(), "{program}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).expect("text")
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _gone = self.agent.kill();
        let _status = self.agent.wait();
    }
}
