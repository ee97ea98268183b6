//! The programs that run: each is waited for by the socket of its monitor, so that the audit log tells how it ended.
//!
//! Each is also noted in a file from before it is executed until its end is recorded. So a launcher that comes after
//! one that was killed can say that nobody saw how they ended, and nobody can hide a run by a kill. What is kept is what
//! the audit log says of a run, and no secret. The note of a program that goes on after that was said stays until it ends,
//! so that it can be listed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use core_crypto::private_fs::{self, PrivateFsError};
use core_types::limits::CHILD_PAGE_MAX;
use core_types::protocol::launcher::{ChildPage, RunningChild};
use core_types::protocol::profile::{ChildExit, SecretOperationAudit};
use core_types::protocol::{decode, encode};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use crate::handover::last_word;
use crate::record::{Recorder, end};

/// Most programs that are waited for at once: each holds one of the launcher's open files.
const WATCHED_MAX: usize = 512;
/// Longest note, in bytes; longer than any entry of a run.
const NOTE_BYTES_MAX: usize = 64 << 10;

/// What the name of a note ends with once the log says that nobody saw the program's end.
const TOLD: &str = "told";

/// The programs that run.
pub(crate) struct Children {
    folder: PathBuf,
    /// What the names of this process's notes begin with, and no other's: numbers of processes come again.
    prefix: String,
    recorder: Arc<Recorder>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    next: u64,
    children: BTreeMap<u64, (Note, Noted)>,
    /// Those whose end nobody will see, and of which the log says so already.
    unwatched: Vec<(Note, Noted)>,
}

/// What is noted of a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Noted {
    /// The entry of its start.
    pub(crate) start: SecretOperationAudit,
    /// When its process began, in clock ticks since the machine did: numbers of processes come again.
    began: u64,
}

impl Noted {
    /// Of a program whose process is there, and is about to execute it.
    pub(crate) fn new(start: SecretOperationAudit) -> Self {
        let began = start.child.as_ref().and_then(|child| began(child.pid)).unwrap_or(0);
        Self { start, began }
    }

    fn runs(&self) -> bool {
        self.start.child.as_ref().is_some_and(|child| began(child.pid) == Some(self.began))
    }

    fn shown(&self) -> Option<RunningChild> {
        let child = self.start.child.as_ref()?;
        Some(RunningChild {
            pid: child.pid,
            profiles: child.profiles.clone(),
            program: self.start.subject.clone().unwrap_or_default(),
            since_unix_ms: self.start.unix_ms,
            secrets: child.secrets.clone(),
        })
    }
}

/// When a process that has not ended began (proc_pid_stat(5)).
pub(crate) fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything but its own end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// The file in which a program is noted; it is removed with this.
pub(crate) struct Note(PathBuf);

impl Note {
    /// Lets the file say that the end is recorded.
    fn told(&mut self) {
        let told = self.0.with_extension(TOLD);
        match std::fs::rename(&self.0, &told) {
            Ok(()) => self.0 = told,
            Err(error) => tracing::error!("the note of a program cannot be kept: {error}"),
        }
    }

    fn is_told(&self) -> bool {
        self.0.extension().is_some_and(|extension| extension == TOLD)
    }

    /// Leaves the file for the process that comes after this one.
    fn leave(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = private_fs::remove_if_present(&self.0) {
            tracing::error!("the note of a program that ended cannot be removed: {error}");
        }
    }
}

impl Children {
    /// No program yet; `folder` is where they are noted. Must be called on the runtime: of programs that an earlier
    /// process left behind when it was killed it says in the background that nobody saw their end.
    ///
    /// # Errors
    /// The folder is a link, somebody else's, or writable by others. A disk that fails is no error.
    pub(crate) fn start(folder: &Path, recorder: Arc<Recorder>) -> Result<Arc<Self>, PrivateFsError> {
        match private_fs::ensure_private_dir(folder) {
            Err(error @ PrivateFsError::Io { .. }) => {
                tracing::error!("programs that run cannot be noted: {error}");
            }
            made => made?,
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("{}-{}", since.as_nanos(), std::process::id());
        let children = Self { folder: folder.to_owned(), prefix, recorder, running: Mutex::default() };
        let (children, left) = (Arc::new(children), notes(folder));
        tokio::spawn(Arc::clone(&children).take_over(left));
        Ok(children)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a program that is about to be executed.
    pub(crate) fn note(&self, noted: &Noted) -> Note {
        let number = {
            let mut running = self.running();
            running.next += 1;
            running.next
        };
        let note = Note(self.folder.join(format!("{}-{number}.note", self.prefix)));
        if let Err(reason) = write_note(&note.0, noted) {
            tracing::error!("a program that runs cannot be noted: {reason}");
        }
        note
    }

    /// Waits for the end of a program, by the socket of its monitor, and records it.
    pub(crate) fn watch(self: &Arc<Self>, note: Note, noted: Noted, monitor: UnixStream) {
        let (number, many) = {
            let mut running = self.running();
            running.next += 1;
            let number = running.next;
            running.children.insert(number, (note, noted));
            (number, running.children.len() > WATCHED_MAX)
        };
        let children = Arc::clone(self);
        tokio::spawn(async move {
            let exit = if many { ChildExit::Unknown } else { wait_end(monitor).await };
            children.ended(number, exit).await;
        });
    }

    /// Records the end of a program that has not been recorded yet.
    async fn ended(&self, number: u64, exit: ChildExit) {
        let ended = self.running().children.remove(&number);
        if let Some((note, noted)) = ended {
            self.recorder.end(end(noted.start.clone(), exit)).await;
            if exit == ChildExit::Unknown {
                self.go_on_unwatched(note, noted);
            }
        }
    }

    /// Keeps a program that has not ended, though nobody watches it.
    fn go_on_unwatched(&self, mut note: Note, noted: Noted) {
        if noted.runs() {
            note.told();
            self.running().unwatched.push((note, noted));
        }
    }

    /// A page of the programs that run, in the order of their numbers.
    pub(crate) fn page(&self, after: Option<u32>) -> ChildPage {
        let mut running = self.running();
        running.unwatched.retain(|(_, noted)| noted.runs());
        let noted = running.children.values().chain(&running.unwatched).map(|(_, noted)| noted);
        let mut children: Vec<RunningChild> = noted
            .filter_map(Noted::shown)
            .filter(|child| after.is_none_or(|after| child.pid > after))
            .collect();
        children.sort_by_key(|child| child.pid);
        let more = children.len() > CHILD_PAGE_MAX;
        children.truncate(CHILD_PAGE_MAX);
        ChildPage { children, more }
    }

    /// Says of all that run that nobody will see their end, because this process ends.
    pub(crate) async fn abandon(&self) {
        let numbers: Vec<u64> = self.running().children.keys().copied().collect();
        for number in numbers {
            self.ended(number, ChildExit::Unknown).await;
        }
        let unwatched = std::mem::take(&mut self.running().unwatched);
        unwatched.into_iter().for_each(|(note, _)| note.leave());
    }

    /// Says the same of those that an earlier process noted.
    async fn take_over(self: Arc<Self>, left: Vec<PathBuf>) {
        for note in left.into_iter().map(Note) {
            match read_note(&note.0) {
                Ok(noted) => {
                    if !note.is_told() {
                        self.recorder.end(end(noted.start.clone(), ChildExit::Unknown)).await;
                    }
                    self.go_on_unwatched(note, noted);
                }
                Err(reason) => tracing::error!("the note of a program cannot be read: {reason}"),
            }
        }
    }
}

/// All notes that there are.
fn notes(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn write_note(path: &Path, noted: &Noted) -> Result<(), String> {
    let bytes = encode(noted).map_err(|error| error.to_string())?;
    let mut file = private_fs::create_new(path).map_err(|error| error.to_string())?;
    // Not written out: after a power cut no program runs any more.
    file.write_all(&bytes).map_err(|error| error.to_string())
}

fn read_note(path: &Path) -> Result<Noted, String> {
    let bytes = private_fs::read_limited(path, NOTE_BYTES_MAX).map_err(|error| error.to_string())?;
    decode(&bytes.unwrap_or_default()).map_err(|error| format!("{}: {error}", path.display()))
}

/// How a program ended, as its monitor says last; unknown of one whose monitor ended without a word.
async fn wait_end(monitor: UnixStream) -> ChildExit {
    let read = async {
        monitor.set_nonblocking(true)?;
        let mut word = Vec::new();
        let monitor = tokio::net::UnixStream::from_std(monitor)?;
        monitor.take(NOTE_BYTES_MAX as u64).read_to_end(&mut word).await?;
        Ok::<_, std::io::Error>(word)
    };
    match read.await {
        Ok(word) => last_word(&word).unwrap_or(ChildExit::Unknown),
        Err(error) => {
            tracing::error!(%error, "a program cannot be waited for");
            ChildExit::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::{MonitorReport, send};

    #[test]
    fn a_process_runs_from_its_beginning_to_its_end_and_no_other_of_its_number_is_it() {
        let own = std::process::id();
        assert!(began(own).is_some_and(|ticks| ticks > 0));
        assert_eq!(began(0), None);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        rustix::process::waitid(
            rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        // Ended and not reaped.
        assert_eq!(began(child.id()), None);
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn an_end_is_what_the_monitor_says_and_unknown_without_its_word() {
        for (said, expected) in [
            (Some(ChildExit::Code(7)), ChildExit::Code(7)),
            (Some(ChildExit::Signal(9)), ChildExit::Signal(9)),
            (None, ChildExit::Unknown),
        ] {
            let (ours, monitor) = UnixStream::pair().unwrap();
            if let Some(exit) = said {
                send(&monitor, &MonitorReport::Ended(exit), &[]).unwrap();
            }
            drop(monitor);
            assert_eq!(wait_end(ours).await, expected);
        }
        let (ours, mut monitor) = UnixStream::pair().unwrap();
        monitor.write_all(&[1, 0, 0]).unwrap();
        drop(monitor);
        assert_eq!(wait_end(ours).await, ChildExit::Unknown);
    }
}
