//! Questions on the controlling terminal: nothing typed is shown, and on every way out the terminal is as it was.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use core_types::limits::PASSWORD_BYTES_MAX;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use zeroize::Zeroizing;

use crate::args::PasswordOptions;
use crate::input::{InputError, Source, remove_line_feed};
use crate::picker::{Drawn, Keys};

/// A secret that was read, wiped when dropped.
pub(crate) type Typed = Zeroizing<Vec<u8>>;

/// Why there is no password or value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PromptError {
    /// Nobody can be asked.
    #[error("there is no terminal to ask on: {0}")]
    NoTerminal(io::Error),
    /// The terminal failed.
    #[error("the terminal failed: {0}")]
    Terminal(io::Error),
    /// The user ended the input.
    #[error("nothing was typed")]
    Cancelled,
    /// The two are not the same.
    #[error("the two passwords are not the same")]
    Different,
    /// A password of no bytes.
    #[error("the password is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("it has more than {limit} bytes")]
    TooLong { limit: usize },
    /// The descriptor or file that was named instead failed.
    #[error("{0}")]
    Input(InputError),
}

impl PromptError {
    /// What to do next.
    pub(crate) fn next(&self) -> Option<String> {
        match self {
            Self::NoTerminal(_) => Some(
                "give a password with --password-fd N or --password-file F, a value on standard input"
                    .to_owned(),
            ),
            Self::Terminal(_) | Self::Cancelled | Self::Different => Some("try again".to_owned()),
            Self::Empty => Some("give a password of at least one byte".to_owned()),
            Self::TooLong { limit } => Some(format!("give at most {limit} bytes")),
            Self::Input(error) => error.next(),
        }
    }
}

/// Where one password comes from.
pub(crate) enum PasswordSource {
    /// The controlling terminal.
    Terminal,
    /// A descriptor or a file.
    Given(Source),
}

impl PasswordSource {
    /// Opens what the options name. To be called before the process opens any descriptor of its own.
    ///
    /// # Errors
    /// The descriptor or file cannot be read.
    pub(crate) fn open(options: &PasswordOptions) -> Result<Self, PromptError> {
        match (options.descriptor, &options.file) {
            (Some(number), _) => Ok(Self::Given(Source::descriptor(number).map_err(PromptError::Input)?)),
            (None, Some(path)) => Ok(Self::Given(Source::file(path).map_err(PromptError::Input)?)),
            (None, None) => Ok(Self::Terminal),
        }
    }

    /// A password that exists.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn existing(self, question: &str) -> Result<Typed, PromptError> {
        match self {
            Self::Given(source) => given_password(source),
            Self::Terminal => checked(Terminal::open()?.hidden(&[question], PASSWORD_BYTES_MAX)?.remove(0)),
        }
    }

    /// A password that is new, so that a terminal asks for it twice.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn new_one(self, question: &str, again: &str) -> Result<Typed, PromptError> {
        match self {
            Self::Given(source) => given_password(source),
            Self::Terminal => {
                let mut typed = Terminal::open()?.hidden(&[question, again], PASSWORD_BYTES_MAX)?;
                let (second, first) = (typed.pop(), typed.pop());
                if first != second {
                    return Err(PromptError::Different);
                }
                checked(first.unwrap_or_default())
            }
        }
    }
}

fn given_password(source: Source) -> Result<Typed, PromptError> {
    let limit = PASSWORD_BYTES_MAX;
    let mut password = source.read(limit + 1).map_err(|error| match error {
        InputError::TooLarge { .. } => PromptError::TooLong { limit },
        other => PromptError::Input(other),
    })?;
    remove_line_feed(&mut password);
    checked(password)
}

fn checked(password: Typed) -> Result<Typed, PromptError> {
    match password.len() {
        0 => Err(PromptError::Empty),
        length if length > PASSWORD_BYTES_MAX => Err(PromptError::TooLong { limit: PASSWORD_BYTES_MAX }),
        _ => Ok(password),
    }
}

/// The controlling terminal, whatever the standard streams are.
pub(crate) struct Terminal {
    device: File,
}

impl Terminal {
    /// Opens it.
    ///
    /// # Errors
    /// The process has none.
    pub(crate) fn open() -> Result<Self, PromptError> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/tty");
        Ok(Self { device: device.map_err(PromptError::NoTerminal)? })
    }

    /// Asks for one line per question, none of which is shown; each may have `limit` bytes.
    ///
    /// A signal that ends or stops the process does so after the terminal has been put back; after a stop, all is
    /// asked again.
    ///
    /// # Errors
    /// The terminal failed, or a line was too long or not given.
    pub(crate) fn hidden(&self, questions: &[&str], limit: usize) -> Result<Vec<Typed>, PromptError> {
        loop {
            let hidden = Hidden::enter(&self.device).map_err(PromptError::Terminal)?;
            let mut answers = Vec::with_capacity(questions.len());
            for question in questions {
                self.write(question)?;
                match self.hidden_line(&hidden, limit)? {
                    Some(answer) => answers.push(answer),
                    None => break,
                }
                self.write("\n")?;
            }
            if answers.len() == questions.len() {
                return Ok(answers);
            }
            self.write("\n")?;
        }
    }

    /// Asks for a text of several lines, none of which is shown, until `is_whole` says that nothing is missing or a line
    /// is empty; together they may have `limit` bytes. Signals are treated as by [`Self::hidden`].
    ///
    /// # Errors
    /// As [`Self::hidden`].
    pub(crate) fn hidden_lines(
        &self,
        question: &str,
        limit: usize,
        is_whole: impl Fn(&[u8]) -> bool,
    ) -> Result<Typed, PromptError> {
        loop {
            let hidden = Hidden::enter(&self.device).map_err(PromptError::Terminal)?;
            self.write(question)?;
            let mut text = Zeroizing::new(Vec::with_capacity(limit + 1));
            while let Some(line) = self.hidden_line(&hidden, limit - text.len())? {
                self.write("\n")?;
                text.extend_from_slice(&line);
                if line.is_empty() || is_whole(&text) || text.len() == limit {
                    return Ok(text);
                }
                text.push(b'\n');
                self.write("The rest: ")?;
            }
            self.write("\n")?;
        }
    }

    /// Asks a question that is answered by yes or no; anything but yes is no.
    ///
    /// # Errors
    /// The terminal failed.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool, PromptError> {
        self.write(question)?;
        let mut answer = Vec::new();
        while let Some(byte) = self.byte()?.filter(|byte| *byte != b'\n') {
            answer.push(byte);
        }
        Ok(matches!(answer.trim_ascii().to_ascii_lowercase().as_slice(), b"y" | b"yes"))
    }

    /// Shows what `each` draws, below the line of the cursor, and gives it what is typed, until it is done; then nothing of
    /// it is left. Signals are treated as by [`Self::hidden`].
    ///
    /// # Errors
    /// The terminal failed.
    pub(crate) fn each_key<T>(&self, mut each: impl FnMut(Keys<'_>) -> Drawn<T>) -> Result<T, PromptError> {
        let done = loop {
            let hidden = Hidden::enter(&self.device).map_err(PromptError::Terminal)?;
            self.draw(&mut each)?;
            let done = loop {
                if !hidden.wait().map_err(PromptError::Terminal)? {
                    break None;
                }
                let mut bytes = [0; 64];
                let count = match (&self.device).read(&mut bytes) {
                    Ok(0) => return Err(PromptError::Cancelled),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(PromptError::Terminal(error)),
                };
                if let Drawn::Done(done) = each(Keys::Typed(&bytes[..count])) {
                    break Some(done);
                }
                self.draw(&mut each)?;
            };
            self.write("\r\x1b[J")?;
            if let Some(done) = done {
                break done;
            }
        };
        Ok(done)
    }

    fn draw<T>(&self, each: &mut impl FnMut(Keys<'_>) -> Drawn<T>) -> Result<(), PromptError> {
        let size =
            tcgetwinsize(&self.device).map(|size| (usize::from(size.ws_row), usize::from(size.ws_col)));
        // One that does not know its size is taken for the usual one.
        let (rows, columns) =
            size.ok().filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or((24, 80));
        match each(Keys::Draw { rows, columns }) {
            Drawn::Show(text) => self.write(&text),
            _ => Ok(()),
        }
    }

    /// One line, or `None` when a signal came.
    fn hidden_line(&self, hidden: &Hidden<'_>, limit: usize) -> Result<Option<Typed>, PromptError> {
        let mut line = Zeroizing::new(Vec::with_capacity(limit));
        while hidden.wait().map_err(PromptError::Terminal)? {
            let byte = self.byte()?.ok_or(PromptError::Cancelled)?;
            match edit(&mut line, byte, limit) {
                Step::More => {}
                Step::Done => return Ok(Some(line)),
                Step::Cancelled => return Err(PromptError::Cancelled),
                Step::TooLong => return Err(PromptError::TooLong { limit }),
            }
        }
        Ok(None)
    }

    /// One byte: what follows the line is left for whoever asks next.
    fn byte(&self) -> Result<Option<u8>, PromptError> {
        let mut byte = Zeroizing::new([0]);
        loop {
            match (&self.device).read(byte.as_mut_slice()) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PromptError::Terminal(error)),
            }
        }
    }

    fn write(&self, text: &str) -> Result<(), PromptError> {
        (&self.device).write_all(text.as_bytes()).map_err(PromptError::Terminal)
    }
}

/// What a typed byte leads to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    More,
    Done,
    Cancelled,
    TooLong,
}

/// Takes one typed byte. The terminal's own line editing would drop, without a word, what follows the 4095th byte of
/// a line (termios(3), "canonical mode"), so that a long value would be cut.
fn edit(line: &mut Vec<u8>, byte: u8, limit: usize) -> Step {
    const END: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const KILL: u8 = 0x15;
    const DELETE: u8 = 0x7f;
    match byte {
        b'\n' | b'\r' => return Step::Done,
        END if line.is_empty() => return Step::Cancelled,
        END => return Step::Done,
        KILL => line.clear(),
        // A whole character: UTF-8 continuation bytes and the byte before them.
        BACKSPACE | DELETE => while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {},
        _ if line.len() == limit => return Step::TooLong,
        _ => line.push(byte),
    }
    Step::More
}

/// What ends or stops a process from outside.
const ENDING_OR_STOPPING: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGTSTP];

/// The terminal while what is typed is not shown, with signals held back; dropping it puts the terminal back, and then
/// lets the signals act that came meanwhile.
struct Hidden<'a> {
    device: &'a File,
    before: Termios,
    signals: SignalFd,
    mask_before: SigSet,
}

impl<'a> Hidden<'a> {
    fn enter(device: &'a File) -> io::Result<Self> {
        let before = tcgetattr(device)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        let held_back = SigSet::from_iter(ENDING_OR_STOPPING);
        let signals = SignalFd::with_flags(&held_back, SfdFlags::SFD_CLOEXEC)?;
        let mask_before = held_back.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let hidden = Self { device, before, signals, mask_before };
        // What was typed before the question was shown, and has been shown itself, is no answer.
        tcsetattr(device, OptionalActions::Flush, &silent)?;
        Ok(hidden)
    }

    /// Waits until the terminal can be read (true) or a signal was held back (false), which is left to act later.
    fn wait(&self) -> io::Result<bool> {
        loop {
            let mut waiting =
                [PollFd::new(self.device, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut waiting, None) {
                Ok(_) => return Ok(waiting[1].revents().is_empty()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // Flushed, so that the rest of a line never reaches whoever reads the terminal next, and is shown there.
        let _terminal_gone = tcsetattr(self.device, OptionalActions::Flush, &self.before);
        let _cannot_fail = self.mask_before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn typed(bytes: &[u8], limit: usize) -> (Vec<u8>, Step) {
        let mut line = Vec::new();
        for byte in bytes {
            match edit(&mut line, *byte, limit) {
                Step::More => {}
                step => return (line, step),
            }
        }
        (line, Step::More)
    }

    #[test]
    fn keys_edit_the_line() {
        assert_eq!(typed(b"abc\nd", 9), (b"abc".to_vec(), Step::Done));
        assert_eq!(typed(b"ab\x7fc\r", 9), (b"ac".to_vec(), Step::Done));
        assert_eq!(typed("aä€\x08\x08b\n".as_bytes(), 9), (b"ab".to_vec(), Step::Done));
        assert_eq!(typed(b"wrong\x15right\n", 9), (b"right".to_vec(), Step::Done));
        assert_eq!(typed(b"\x04", 9), (Vec::new(), Step::Cancelled));
        assert_eq!(typed(b"a\x04", 9), (b"a".to_vec(), Step::Done));
        assert_eq!(typed(b"\x7f\n", 9), (Vec::new(), Step::Done));
        assert_eq!(typed(b"1234", 3).1, Step::TooLong);
        assert_eq!(typed(b"123\n", 3).1, Step::Done);
    }

    fn from_file(bytes: &[u8]) -> Result<Typed, PromptError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let options = PasswordOptions { descriptor: None, file: Some(file.path().to_owned()) };
        PasswordSource::open(&options)?.existing("not asked")
    }

    #[test]
    fn a_given_password_loses_one_line_feed_and_keeps_its_limits() {
        assert_eq!(*from_file(b"pw\n").unwrap(), b"pw");
        assert_eq!(*from_file(b"p w\n\n").unwrap(), b"p w\n");
        assert_eq!(*from_file(b"pw").unwrap(), b"pw");
        assert!(matches!(from_file(b"\n"), Err(PromptError::Empty)));
        assert!(matches!(from_file(b""), Err(PromptError::Empty)));
        let longest = vec![b'x'; PASSWORD_BYTES_MAX];
        assert_eq!(*from_file(&[longest.as_slice(), b"\n"].concat()).unwrap(), longest);
        assert!(matches!(from_file(&[longest.as_slice(), b"x"].concat()), Err(PromptError::TooLong { .. })));
        assert!(matches!(from_file(&vec![b'x'; 1 << 20]), Err(PromptError::TooLong { .. })));
    }

    #[test]
    fn without_options_the_terminal_is_asked_and_a_missing_file_is_an_error() {
        let none = PasswordOptions { descriptor: None, file: None };
        assert!(matches!(PasswordSource::open(&none), Ok(PasswordSource::Terminal)));
        let missing = PasswordOptions { descriptor: None, file: Some(PathBuf::from("/nonexistent/file")) };
        assert!(matches!(PasswordSource::open(&missing), Err(PromptError::Input(_))));
    }
}
