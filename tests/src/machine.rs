//! A machine with systemd, thrown away afterwards, on which pds is installed as users install it.
//!
//! Only root can make one. It is this machine's root folder as a base, with the programs under test in it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::programs;
use crate::system::wait_for;

/// The user of the machine to whom pds belongs.
pub const USER: &str = "alice";
/// What he types to log in.
pub const LOGIN_PASSWORD: &str = "alice's login password";
/// Where the machine has the programs under test, and their sources.
const PROGRAMS: &str = "/opt/pds/programs";
const SOURCES: &str = "/opt/pds/sources";
/// Most lines of the journal that are shown with a failure.
const JOURNAL_LINES: &str = "30";

/// For whom pds is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// All users, by root.
    All,
    /// The one user, by himself.
    One,
}

/// A booted machine; dropping it powers it off.
pub struct Machine {
    folder: tempfile::TempDir,
}

/// What a command on the machine wrote, and how it ended.
#[derive(Debug)]
pub struct Done {
    /// The command, for the reader of a failure.
    command: String,
    output: Output,
}

impl Done {
    /// What it wrote to standard output, without space at the end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).trim_end().to_owned()
    }

    /// What it wrote to standard error.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Its exit code; 255 if a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(255)
    }

    /// Sees that it has succeeded; answers what it wrote.
    pub fn ok(&self) -> String {
        assert_eq!(self.code(), 0, "{}\n{}\n{}", self.command, self.text(), self.errors());
        self.text()
    }
}

impl Machine {
    /// Boots a machine with the user [`USER`], whose systemd runs; `None` for who may not make one.
    #[must_use]
    pub fn boot() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can boot a machine: nothing was tested");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("pds-box-").tempdir().expect("a temporary folder");
        let machine = Self { folder };
        let sources = programs::workspace().display();
        let binds = [format!("{}:{PROGRAMS}", programs::folder().display()), format!("{sources}:{SOURCES}")];
        let output = machine.script("start").args(binds).output().expect("the script of the box can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        machine.root(&format!(
            "useradd -m -s /bin/bash {USER} && echo \"{USER}:{LOGIN_PASSWORD}\" | chpasswd && loginctl enable-linger {USER}
             mkdir -p /opt/pds/target && ln -s {PROGRAMS} /opt/pds/target/release
             cat >/usr/local/bin/as-user <<'END'
#!/bin/sh
cd /home/{USER} && exec setpriv --reuid {USER} --regid {USER} --init-groups --inh-caps=-all env -i \\
    HOME=/home/{USER} USER={USER} LOGNAME={USER} LC_ALL=C.UTF-8 XDG_RUNTIME_DIR=/run/user/$(id -u {USER}) \\
    PATH=/home/{USER}/.local/bin:/usr/local/bin:/usr/bin:/bin \"$@\"
END
             chmod 755 /usr/local/bin/as-user"
        ))
        .ok();
        wait_for("the user's systemd", || {
            (machine.user("systemctl --user is-active basic.target").code() == 0).then_some(())
        });
        Some(machine)
    }

    /// A machine on which pds is installed for its user alone, who has an unlocked vault with a secret `api-key`, that is
    /// `value`; `None` for who may not make one.
    #[must_use]
    pub fn with_a_secret() -> Option<Self> {
        let machine = Self::boot()?;
        machine.make("install", For::One);
        machine
            .user("(umask 077; echo 'a password for pds' >password); pds -v init --password-file password")
            .ok();
        machine.user("printf value | pds set api-key").ok();
        Some(machine)
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(programs::workspace().join("tests/systemd-box.sh"));
        command.arg(verb).arg(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, before: &[&str], line: &str) -> Done {
        let mut script = self.script("exec");
        let output = script
            .args(before)
            .args(["bash", "-c", line])
            .output()
            .expect("the script of the box can be run");
        Done { command: line.to_owned(), output }
    }

    /// Runs a line of bash as root.
    #[must_use]
    pub fn root(&self, line: &str) -> Done {
        self.run(&[], line)
    }

    /// Runs a line of bash as the user, with the environment of a login.
    #[must_use]
    pub fn user(&self, line: &str) -> Done {
        self.run(&["/usr/local/bin/as-user"], line)
    }

    /// What `make` does with this target, for whom it does it.
    pub fn make(&self, target: &str, whom: For) {
        let line = format!(
            "umask 022; make -C {SOURCES} --no-print-directory {target} SUDO_USER=x TARGET=/opt/pds/target"
        );
        match whom {
            For::All => self.root(&format!("{line} && systemctl --user -M {USER}@ daemon-reload")).ok(),
            For::One => self.user(&line).ok(),
        };
    }

    /// The main process of one of the user's services; 0 if it has none.
    #[must_use]
    pub fn main_process(&self, service: &str) -> u32 {
        let shown = self.user(&format!("systemctl --user show -P MainPID {service}")).ok();
        shown.parse().expect("a number")
    }

    /// Where the root folder of the machine is seen from outside.
    #[must_use]
    pub fn root_folder(&self) -> PathBuf {
        let first = std::fs::read_to_string(self.folder.path().join("first")).expect("the box has started");
        Path::new("/proc").join(first.trim()).join("root")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.root(&format!("journalctl --no-pager -o short-precise -n {JOURNAL_LINES}"));
            let mut shown = String::new();
            let _always = write!(shown, "--- the journal ends with ---\n{}\n---", journal.text());
            eprintln!("{shown}");
        }
        if let Err(error) = self.script("stop").status() {
            eprintln!("the box could not be stopped: {error}");
        }
    }
}
