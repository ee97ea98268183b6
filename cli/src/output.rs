//! What `pds` writes: data to standard output through one writer, everything else to standard error.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::args::{Colour, Options};
use crate::error::Failure;

/// Standard output without the buffer of `std`, which nobody wipes and which a value need not pass.
struct RawStdout;

impl Write for RawStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = rustix::stdio::stdout();
        loop {
            match rustix::io::write(stdout, bytes) {
                // Whoever started us may have left the pipe non-blocking.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None)?;
                }
                Err(Errno::INTR) => {}
                result => return result.map_err(io::Error::from),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output: data only.
pub(crate) struct Output {
    json: bool,
    writer: BufWriter<RawStdout>,
}

impl Output {
    /// Standard output, for commands run with these options.
    pub(crate) fn new(options: &Options) -> Self {
        Self { json: options.json, writer: BufWriter::new(RawStdout) }
    }

    /// Whether data is to be one JSON object.
    pub(crate) fn wants_json(&self) -> bool {
        self.json
    }

    /// Writes a line of text.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.writer, "{text}").map_err(Failure::Output)
    }

    /// Writes an object as one line of JSON.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, object).map_err(|error| Failure::Output(error.into()))?;
        self.writer.write_all(b"\n").map_err(Failure::Output)
    }

    /// Writes an object as one line of JSON when JSON is wanted, and nothing otherwise.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn object_if_wanted(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        if self.json { self.object(object) } else { Ok(()) }
    }

    /// Writes the bytes of a value exactly, past every buffer; on a terminal a line feed follows.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn value(&mut self, value: &[u8]) -> Result<(), Failure> {
        self.finish()?;
        RawStdout.write_all(value).map_err(Failure::Output)?;
        if io::stdout().is_terminal() { RawStdout.write_all(b"\n").map_err(Failure::Output) } else { Ok(()) }
    }

    /// Writes what was prepared as text that holds a value, past every buffer.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn prepared(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.finish()?;
        RawStdout.write_all(text).map_err(Failure::Output)
    }

    /// Writes an object that holds a secret as one line of JSON, past every buffer.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn secret_object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_vec(object).map_err(|error| Failure::Output(error.into()))?;
        let mut text = Zeroizing::new(text);
        text.push(b'\n');
        self.prepared(&text)
    }

    /// Writes out what is still buffered.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(Failure::Output)
    }
}

/// Standard error: notes and errors. What cannot be written there is lost, as nobody could be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages {
    quiet: bool,
    verbose: bool,
    colour: bool,
}

impl Messages {
    /// Standard error as these options want it.
    pub(crate) fn new(options: &Options) -> Self {
        let colour = match options.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => automatic_colour(),
        };
        Self { quiet: options.quiet, verbose: options.verbose, colour }
    }

    /// Standard error before any option is known.
    pub(crate) fn plain() -> Self {
        Self { quiet: false, verbose: false, colour: false }
    }

    /// Whether only errors are told.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Tells what was done, unless `-q` is given.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            self.raw(&format!("{}\n", escaped(&text.to_string(), Lines::Kept)));
        }
    }

    /// Tells a detail, with `-v` only.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Tells of a failure and what to do next.
    pub(crate) fn error(&self, text: &str, next: Option<&str>) {
        let mut message = format!("{} {}\n", self.paint("pds:", "1;31"), escaped(text, Lines::Kept));
        if let Some(next) = next {
            message.push_str(&format!("{} {}\n", self.paint("hint:", "1;36"), escaped(next, Lines::Kept)));
        }
        self.raw(&message);
    }

    /// Writes a text as it is.
    pub(crate) fn raw(&self, text: &str) {
        let _nobody_to_tell = io::stderr().lock().write_all(text.as_bytes());
    }

    fn paint(&self, text: &str, style: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Colour on a terminal, unless `NO_COLOR` says otherwise (no-color.org) or the terminal has none.
fn automatic_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stderr().is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

/// What becomes of line feeds and tabs in an escaped text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    Kept,
    Escaped,
}

fn escaped(text: &str, lines: Lines) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' if lines == Lines::Kept => result.push(character),
            ' '..='~' => result.push(character),
            // Letters of other scripts are fine; what steers a terminal or turns the reading direction is not.
            _ if character.is_alphanumeric() => result.push(character),
            _ => result.extend(character.escape_default()),
        }
    }
    result
}

/// A text that came from outside, on one line and without anything that steers a terminal.
pub(crate) fn shown(text: &str) -> String {
    escaped(text, Lines::Escaped)
}

/// A time as RFC 3339 in UTC, to the second; `unknown` where the number is no time.
pub(crate) fn time(unix_ms: u64) -> String {
    i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "unknown".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(shown("a\x1b[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(shown("\u{202e}x\u{9b}1m\u{7f}"), "\\u{202e}x\\u{9b}1m\\u{7f}");
        assert_eq!(shown("key-1/ä"), "key-1/ä");
        assert_eq!(escaped("a\nb\x07", Lines::Kept), "a\nb\\u{7}");
    }

    #[test]
    fn times_are_utc_and_a_wrong_one_is_unknown() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(time(u64::MAX), "unknown");
    }
}
