//! The user's editor, run on one file: which it is, and what becomes of it and of us when a signal comes.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, WaitOptions, getrlimit, pidfd_open, pidfd_send_signal, setrlimit,
    waitpid,
};
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcsetattr};

/// How long an editor has to end after it was told to.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why nothing was edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditorError {
    /// It could not be started or waited for.
    #[error("the editor cannot be run: {0}")]
    NotRun(io::Error),
    /// It ended, and not with success.
    #[error("the editor ended with {0}")]
    Failed(ExitStatus),
    /// We were told to end.
    #[error("pds was told to end")]
    ToldToEnd,
}

/// The signals that would end this process, held back so that there is time to remove what must not stay. Dropping it lets
/// those act that came meanwhile.
pub(crate) struct Held {
    before: SigSet,
    ending: SignalFd,
    keys: SignalFd,
}

impl Held {
    /// Begins to hold them.
    ///
    /// # Errors
    /// The kernel gave no descriptor.
    pub(crate) fn begin() -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let ending = SigSet::from_iter([Signal::SIGHUP, Signal::SIGTERM]);
        let keys = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT]);
        let (ending_fd, keys_fd) =
            (SignalFd::with_flags(&ending, flags)?, SignalFd::with_flags(&keys, flags)?);
        let all: SigSet = ending.iter().chain(keys.iter()).collect();
        let before = all.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { before, ending: ending_fd, keys: keys_fd })
    }

    /// Forgets the keys that the editor got too and made of what it wanted (as system(3) does).
    fn forget_keys(&self) {
        while let Ok(Some(_)) = self.keys.read_signal() {}
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _cannot_fail = self.before.thread_set_mask();
    }
}

/// The editor that the user wants: `VISUAL`, else `EDITOR`, else vi.
pub(crate) struct Editor {
    /// As a shell reads it.
    command: OsString,
}

impl Editor {
    /// As the environment says.
    pub(crate) fn of_the_user() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self { command: set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into()) }
    }

    /// Has the user edit a file.
    ///
    /// # Errors
    /// It did not end with success, or this process was told to end.
    pub(crate) fn edit(&self, file: &Path, held: &Held) -> Result<(), EditorError> {
        let stdin = rustix::stdio::stdin();
        let terminal = isatty(stdin).then(|| tcgetattr(stdin).ok()).flatten();
        let ended = self.run(file, held).map_err(EditorError::NotRun)?;
        if ended.is_none_or(|status| status.code().is_none())
            && let Some(before) = terminal
        {
            // It had no time to put the terminal back.
            let _nothing_better_to_do = tcsetattr(stdin, OptionalActions::Now, &before);
        }
        let status = ended.ok_or(EditorError::ToldToEnd)?;
        let by_key = [Signal::SIGINT, Signal::SIGQUIT].map(|key| Some(key as i32)).contains(&status.signal());
        if !by_key {
            held.forget_keys();
        }
        if status.success() { Ok(()) } else { Err(EditorError::Failed(status)) }
    }

    /// Runs it to its end; `None` when this process was told to end before.
    fn run(&self, file: &Path, held: &Held) -> io::Result<Option<ExitStatus>> {
        let mut script = OsString::from("exec ");
        script.push(&self.command);
        script.push(r#" "$@""#);
        let mut words = vec!["sh".into(), "-c".into(), script, "pds".into()];
        if self.is_vim() {
            words.extend(VIM_OPTIONS.map(OsString::from));
        }
        words.push(file.into());
        leave_no_core()?;
        wait(start(&words, &held.before)?, held)
    }

    /// Whether it is one of vim's family, also under the name vi.
    fn is_vim(&self) -> bool {
        let words = self.command.to_string_lossy();
        let Some(program) = words.split_ascii_whitespace().next() else { return false };
        let is_vim = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            ["vim", "nvim", "gvim"].iter().any(|vim| name == *vim || name.starts_with(&format!("{vim}.")))
        };
        is_vim(Path::new(program)) || found(program).is_some_and(|path| is_vim(&path))
    }
}

/// Vim without what it writes elsewhere: what was yanked (viminfo, shada), swap, backups, and changes to take back.
const VIM_OPTIONS: [&str; 5] =
    ["-n", "-i", "NONE", "-c", "silent! set nobackup nowritebackup | silent! set noundofile"];

/// Where a program lies that is called by its name, links resolved.
fn found(program: &str) -> Option<PathBuf> {
    let places = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&places).map(|place| place.join(program));
    candidates.find_map(|candidate| candidate.canonicalize().ok().filter(|path| path.is_file()))
}

/// Keeps a crash of the editor, which knows the value, from being written down: of one byte no core can be made, nor is
/// one piped to a program then (core(5)).
fn leave_no_core() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    let current = Some(maximum.map_or(1, |maximum| maximum.min(1)));
    Ok(setrlimit(Resource::Core, Rlimit { current, maximum })?)
}

/// Starts a shell with these words. What is held back here would be held back there as well, did it not get the signals as
/// they were before; std's way of starting has no place for them.
fn start(words: &[OsString], signals: &SigSet) -> io::Result<Pid> {
    let c_string = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::other);
    let words =
        words.iter().map(|word| c_string(word.as_bytes().to_vec())).collect::<io::Result<Vec<_>>>()?;
    let variables = std::env::vars_os()
        .map(|(name, value)| c_string([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<io::Result<Vec<_>>>()?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    attributes.set_sigmask(signals)?;
    // Programs in Rust ignore it, and so would what they start.
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    let streams = PosixSpawnFileActions::init()?;
    let started = posix_spawn("/bin/sh", &streams, &attributes, &words, &variables)?;
    Pid::from_raw(started.as_raw()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn wait(editor: Pid, held: &Held) -> io::Result<Option<ExitStatus>> {
    let process = pidfd_open(editor, PidfdFlags::empty())?;
    loop {
        let mut waiting = [PollFd::new(&process, PollFlags::IN), PollFd::new(&held.ending, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) if !waiting[0].revents().is_empty() => return reap(editor).map(Some),
            Ok(_) => break,
        }
    }
    // It may have been stopped.
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::CONT] {
        let _may_have_ended = pidfd_send_signal(&process, signal);
    }
    let patience = Timespec::try_from(LAST_WORDS).ok();
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], patience.as_ref());
    if ended != Ok(1) {
        let _may_have_ended = pidfd_send_signal(&process, rustix::process::Signal::KILL);
    }
    reap(editor)?;
    Ok(None)
}

fn reap(editor: Pid) -> io::Result<ExitStatus> {
    loop {
        match waitpid(Some(editor), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn editor(command: &str) -> Editor {
        Editor { command: command.into() }
    }

    #[test]
    fn vim_is_known_by_its_name_and_behind_a_link() {
        for (command, is_vim) in [
            ("vim", true),
            ("/usr/bin/nvim --clean", true),
            ("vim.tiny", true),
            ("nano", false),
            ("my-vim", false),
            ("", false),
        ] {
            assert_eq!(editor(command).is_vim(), is_vim, "{command}");
        }
    }

    #[test]
    fn it_is_read_as_a_shell_does_and_its_end_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a file");
        std::fs::write(&file, "x").unwrap();
        let held = Held::begin().unwrap();
        editor("sh -c 'printf y >>\"$1\"' sh").edit(&file, &held).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"xy");
        let failed = editor("sh -c 'exit 3'").edit(&file, &held);
        assert!(matches!(failed, Err(EditorError::Failed(status)) if status.code() == Some(3)));
        let missing = editor("/nonexistent/editor").edit(&file, &held);
        assert!(matches!(missing, Err(EditorError::Failed(status)) if status.code() == Some(127)));
    }
}
