//! The witness: a process that others of its user may look at, and that shows a word to whoever may.
//!
//! A process in a Landlock domain, in another user namespace or with fewer capabilities may not (ptrace(2), `PTRACE_MODE_READ`),
//! and neither does a confined one find the witness in a `/proc` of its own. So whoever says the word is none of these.
//! Nothing else is in the witness: it is a copy of the spawner, made before that has done anything. And whoever may look at it
//! may take its descriptors, so it has none that leads to one of ours.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use core_types::protocol::launcher::WITNESS_FILE;
use rustix::event::poll;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{
    DumpableBehavior, Pid, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
};

/// What the witness shows, and the link by which it is found.
#[derive(Debug)]
pub struct Witness {
    link: PathBuf,
    word: String,
}

impl Witness {
    /// A witness that will be found by this link.
    #[must_use]
    pub fn new(link: &Path, word: String) -> Self {
        Self { link: link.to_owned(), word }
    }

    /// What it shows.
    pub(crate) fn word(&self) -> &str {
        &self.word
    }

    /// The empty file by whose name it shows its word. A name, because reading the link of a descriptor is nothing but
    /// the check of ptrace(2); to read an environment, as to read memory, `CAP_PERFMON` is enough.
    pub(crate) fn file(&self) -> io::Result<OwnedFd> {
        Ok(memfd_create(format!("{WITNESS_FILE}{}", self.word), MemfdFlags::CLOEXEC)?)
    }

    /// Lets it be found, in the place of an earlier one; the file is its standard output.
    pub(crate) fn publish(&self, number: u32) -> io::Result<()> {
        let new = self.link.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(format!("/proc/{number}/fd/1"), &new)?;
        std::fs::rename(&new, &self.link)
    }
}

/// The whole life of a witness, which ends with the spawner that it is a copy of; the file is the one by whose name it
/// shows its word. All signals are blocked.
#[must_use]
pub(crate) fn run(spawner: Pid, file: OwnedFd) -> ExitCode {
    let _ = rustix::thread::set_name(c"pds-witness");
    let is_ready = rustix::stdio::dup2_stdout(&file).is_ok()
        && set_parent_process_death_signal(Some(Signal::KILL)).is_ok()
        && set_dumpable_behavior(DumpableBehavior::Dumpable).is_ok();
    drop(file);
    while is_ready && getppid() == Some(spawner) {
        let _ = poll(&mut [], None);
    }
    ExitCode::FAILURE
}
