//! The hidden prompt on a real pseudo-terminal: nothing typed comes back, and the terminal is as before on every way out.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use core_types::limits::VALUE_BYTES_MAX;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

const PDS: &str = env!("CARGO_BIN_EXE_pds");
const PROMPT: &str = "Value of 'x': ";
const TYPED: &str = "hunter2";

/// A command that asks on a terminal of its own; it ends with 7 after the answer, as there is no daemon.
struct Asking {
    master: File,
    slave: File,
    before: Termios,
    child: Child,
    seen: String,
    _home: tempfile::TempDir,
}

impl Asking {
    /// Starts it and waits until it asks.
    fn start(arguments: &[&str], prompt: &str) -> Self {
        Self::start_program(&[&[PDS, "--no-start"], arguments].concat(), prompt)
    }

    /// Starts a program that runs it, and waits until it asks.
    fn start_program(command: &[&str], prompt: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = OsString::from_vec(ptsname(&master, Vec::new()).unwrap().into_bytes());
        let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let home = tempfile::tempdir().unwrap();
        // setsid(1) from util-linux: makes the terminal the controlling one, and becomes pds.
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(command)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", home.path())
            .env("XDG_RUNTIME_DIR", home.path())
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut asking =
            Self { master: master.into(), slave, before, child, seen: String::new(), _home: home };
        asking.read_until(prompt);
        asking
    }

    fn read_until(&mut self, end: &str) {
        self.read_until_one_of(&[end]);
    }

    /// Answers which of them came first.
    fn read_until_one_of(&mut self, ends: &[&str]) -> usize {
        let from = self.seen.len();
        let mut byte = [0];
        loop {
            self.master.read_exact(&mut byte).unwrap();
            self.seen.push(char::from(byte[0]));
            if let Some(found) = ends.iter().position(|end| self.seen[from..].ends_with(end)) {
                return found;
            }
        }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn is_hidden(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the end; nothing typed was shown, and the terminal is as it was before.
    fn end(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        drop(self.slave);
        let mut rest = Vec::new();
        // The other side is closed, which a terminal's master reports as an error after the last byte.
        let _end = self.master.read_to_end(&mut rest);
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        assert!(!self.seen.contains(&TYPED[..2]), "{:?}", self.seen);
        status
    }
}

#[test]
fn an_answer_is_not_shown_and_the_terminal_is_put_back() {
    let mut asking = Asking::start(&["set", "x"], PROMPT);
    assert!(asking.is_hidden());
    asking.type_in(&format!("{TYPED}\n"));
    assert_eq!(asking.end().code(), Some(7));
}

#[test]
fn the_terminal_is_put_back_when_the_input_ends() {
    let mut asking = Asking::start(&["set", "x"], PROMPT);
    asking.type_in("\x04");
    assert_eq!(asking.end().code(), Some(1));
}

#[test]
fn the_terminal_is_put_back_when_a_key_interrupts() {
    let mut asking = Asking::start(&["set", "x"], PROMPT);
    asking.type_in(TYPED);
    asking.type_in("\x03");
    assert_eq!(asking.end().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn the_terminal_is_put_back_when_a_signal_ends_it() {
    for signal in [Signal::TERM, Signal::HUP, Signal::QUIT, Signal::INT] {
        let mut asking = Asking::start(&["set", "x"], PROMPT);
        asking.type_in(TYPED);
        kill_process(asking.pid(), signal).unwrap();
        assert_eq!(asking.end().signal(), Some(signal.as_raw()));
    }
}

/// Under a shell with job control, as only there a key stops anything.
#[test]
fn a_stopped_prompt_gives_the_terminal_back_and_asks_again() {
    let script = r#""$0" --no-start set x; echo paused; read go; fg >/dev/null; exit $?"#;
    let mut asking = Asking::start_program(&["sh", "-m", "-c", script, PDS], PROMPT);
    asking.type_in(TYPED);
    asking.type_in("\x1a");
    asking.read_until("paused");
    assert!(!asking.is_hidden());
    asking.type_in("\n");
    asking.read_until(PROMPT);
    assert!(asking.is_hidden());
    asking.type_in(&format!("{TYPED}\n"));
    assert_eq!(asking.end().code(), Some(7));
}

/// With the terminal's own line editing, all that follows the 4095th byte would be dropped and the rest taken.
#[test]
fn a_long_line_is_refused_at_the_limit_and_not_cut() {
    let mut asking = Asking::start(&["set", "x"], PROMPT);
    asking.type_in(&"h".repeat(VALUE_BYTES_MAX + 1));
    asking.read_until("hint: ");
    assert_eq!(asking.end().code(), Some(1));
}
