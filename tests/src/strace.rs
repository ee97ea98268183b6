//! strace(1) on a running daemon: to see the order of its system calls, and to make chosen ones fail or be its last.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::System;
use crate::process::Pinned;
use crate::system::wait_for;

/// How long it may take to detach.
const DETACHING: Duration = Duration::from_secs(2);

/// A strace that is attached to a process; it is detached when this is dropped.
pub struct Strace {
    tracer: Child,
    pinned: Pinned,
    output: PathBuf,
}

impl Strace {
    /// Attaches to all threads of a process, with further options of strace, and waits until it has.
    ///
    /// # Panics
    /// It cannot be attached: there is no strace, or this is not root.
    #[must_use]
    pub fn attach(system: &System, pid: u32, options: &[&str]) -> Self {
        let output = system.folder().join("strace");
        let tracer = Command::new("strace")
            .args(["-f", "-y", "-qq", "-ttt", "-T", "-s", "0", "-o"])
            .arg(&output)
            .args(options)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace can be started");
        let pinned = Pinned::open(tracer.id()).expect("a child that is not reaped");
        let traced = Self { tracer, pinned, output };
        wait_for("strace is attached", || {
            assert!(
                !traced.pinned.wait_end(Instant::now()),
                "strace {options:?} ended: it says why if run by hand"
            );
            traced.holds_all_threads(pid).then_some(())
        });
        traced
    }

    fn holds_all_threads(&self, pid: u32) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
        let tracer = format!("TracerPid:\t{}\n", self.tracer.id());
        threads.flatten().all(|thread| {
            std::fs::read_to_string(thread.path().join("status")).is_ok_and(|status| status.contains(&tracer))
        })
    }

    /// Detaches, and answers what was written down.
    ///
    /// # Panics
    /// strace does not end.
    #[must_use]
    pub fn end(mut self) -> Vec<Syscall> {
        self.detach();
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        parse(&text)
    }

    fn detach(&mut self) {
        self.pinned.signal(Signal::TERM);
        if !self.pinned.wait_end(Instant::now() + DETACHING) {
            // It waits now and then for a thread that was killed while it was stopped. Its end detaches as well.
            self.pinned.signal(Signal::KILL);
        }
        let _status = self.tracer.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.detach();
    }
}

/// A system call that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Syscall {
    /// The number of the thread.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// Its arguments as strace shows them, with the paths of descriptors.
    pub arguments: String,
    /// What it answered.
    pub result: String,
    /// When it began, in seconds of the Unix epoch.
    pub began: f64,
    /// When it ended.
    pub ended: f64,
}

impl Syscall {
    /// The path of its first descriptor.
    #[must_use]
    pub fn path(&self) -> &str {
        let path = self.arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        path.map_or("", |(path, _)| path)
    }

    /// Whether it did what it was asked.
    #[must_use]
    pub fn worked(&self) -> bool {
        !self.result.starts_with('-') && !self.result.starts_with('?')
    }
}

/// Reads lines of `strace -f -ttt -T`: whole calls, and those that were interrupted by another thread's line.
fn parse(text: &str) -> Vec<Syscall> {
    let mut open: Vec<(&str, f64, &str)> = Vec::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((time, what)) = rest.trim_start().split_once(' ') else { continue };
        let Ok(time) = time.parse::<f64>() else { continue };
        if let Some(begun) = what.strip_suffix(" <unfinished ...>") {
            open.push((thread, time, begun));
        } else if let Some(resumed) = what.strip_prefix("<... ") {
            let Some(place) = open.iter().position(|(other, ..)| *other == thread) else { continue };
            let (_, began, begun) = open.remove(place);
            let rest = resumed.split_once(" resumed>").map_or("", |(_, rest)| rest);
            calls.extend(whole(thread, &format!("{begun}{rest}"), began, Some(time)));
        } else {
            calls.extend(whole(thread, what, time, None));
        }
    }
    calls.sort_by(|one, other| one.began.total_cmp(&other.began));
    calls
}

/// Reads `name(arguments) = result <seconds>`.
fn whole(thread: &str, text: &str, began: f64, resumed: Option<f64>) -> Option<Syscall> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(')'))?;
    let result = result.trim_start_matches([' ', '=']);
    let (result, lasted) = result.rsplit_once(" <").unwrap_or((result, "0>"));
    let lasted: f64 = lasted.trim_end_matches('>').parse().unwrap_or(0.0);
    let ended = resumed.unwrap_or(began + lasted);
    let (name, arguments, result) = (name.to_owned(), arguments.to_owned(), result.trim().to_owned());
    Some(Syscall { thread: thread.parse().ok()?, name, arguments, result, began, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_in_pieces() {
        let text = "\
12 100.000001 pwrite64(9</v/vault.db-wal>, \"\"..., 24, 0) = 24 <0.000100>
12 100.000300 fdatasync(9</v/vault.db-wal> <unfinished ...>
13 100.000400 sendmsg(5<UNIX-STREAM:[1]>, {msg_name=NULL}, 0) = 80 <0.000010>
12 100.000900 <... fdatasync resumed>) = 0 <0.000600>
12   100.001000 fsync(9</v>) = -1 EIO (Input/output error) (INJECTED) <0.000001>
";
        let calls = parse(text);
        let seen: Vec<(&str, &str, bool)> =
            calls.iter().map(|call| (call.name.as_str(), call.path(), call.worked())).collect();
        let expected = [
            ("pwrite64", "/v/vault.db-wal", true),
            ("fdatasync", "/v/vault.db-wal", true),
            ("sendmsg", "UNIX-STREAM:[1]", true),
            ("fsync", "/v", false),
        ];
        assert_eq!(seen, expected);
        assert!((calls[1].ended - 100.0009).abs() < 1e-9 && (calls[0].ended - 100.000_101).abs() < 1e-9);
    }
}
