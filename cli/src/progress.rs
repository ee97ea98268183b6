//! A bar on the terminal while a daemon reads or writes a file that we gave it: how far it is stands in the file's
//! place, which both of us have.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::output::Messages;

/// Pause between two looks.
const GLANCE: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u64 = 30;

/// A bar that is being shown; dropped, it is wiped off the terminal.
pub(crate) struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Shows how far the daemon is in `file`, of `total` bytes where they are known. In a pipe, or when nothing is to be
    /// said, it shows nothing.
    pub(crate) fn watch(
        messages: &Messages,
        what: &'static str,
        file: &File,
        total: Option<u64>,
    ) -> Option<Self> {
        let file = file.try_clone().ok()?;
        Self::show(messages, move || line(what, rustix::fs::tell(&file).unwrap_or(0), total))
    }

    /// Shows what `line` says again and again.
    fn show(messages: &Messages, line: impl Fn() -> String + Send + 'static) -> Option<Self> {
        if messages.is_quiet() || !io::stderr().is_terminal() {
            return None;
        }
        let messages = *messages;
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut shown = 0;
            while stopped.recv_timeout(GLANCE) == Err(RecvTimeoutError::Timeout) {
                let text = line();
                shown = shown.max(text.len());
                messages.raw(&format!("\r{text}"));
            }
            messages.raw(&format!("\r{:shown$}\r", ""));
        });
        Some(Self { stop: Some(stop), thread: Some(thread) })
    }
}

/// A bar of how many of so many things are done.
pub(crate) struct Counter {
    done: Arc<AtomicUsize>,
    _bar: Option<Progress>,
}

impl Counter {
    /// Shows that none of `total` is done. In a pipe, or when nothing is to be said, it shows nothing.
    pub(crate) fn show(messages: &Messages, what: &'static str, total: usize) -> Self {
        let done = Arc::<AtomicUsize>::default();
        let seen = Arc::clone(&done);
        let bar = Progress::show(messages, move || counted(what, seen.load(Ordering::Relaxed), total));
        Self { done, _bar: bar }
    }

    /// Shows that so many are done.
    pub(crate) fn set(&self, done: usize) {
        self.done.store(done, Ordering::Relaxed);
    }
}

fn counted(what: &str, done: usize, total: usize) -> String {
    let width = usize::try_from(WIDTH).unwrap_or(0);
    let full = done.min(total) * width / total.max(1);
    format!("{what}  [{:<width$}]  {done} of {total}", "#".repeat(full))
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _shows_nothing_more = thread.join();
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>) -> String {
    let mebibytes = done >> 20;
    match total.filter(|total| *total > 0) {
        None => format!("{what}  {mebibytes} MiB"),
        Some(total) => {
            let full = usize::try_from(done.min(total).saturating_mul(WIDTH) / total).unwrap_or(0);
            let percent = done.min(total).saturating_mul(100) / total;
            let width = usize::try_from(WIDTH).unwrap_or(0);
            format!("{what}  [{:<width$}]  {percent:>3} %  {mebibytes} MiB", "#".repeat(full))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_to_its_end_and_not_beyond() {
        let half = "#".repeat(15);
        assert_eq!(line("writing", 5 << 20, Some(10 << 20)), format!("writing  [{half:<30}]   50 %  5 MiB"));
        assert_eq!(line("x", 0, Some(10)), format!("x  [{:<30}]    0 %  0 MiB", ""));
        assert_eq!(line("x", 99, Some(10)), format!("x  [{}]  100 %  0 MiB", "#".repeat(30)));
        assert_eq!(line("x", 3 << 20, None), "x  3 MiB");
        assert_eq!(line("x", u64::MAX, Some(u64::MAX)).len(), line("x", u64::MAX, Some(1)).len());
    }

    #[test]
    fn a_counter_counts_to_its_total() {
        assert_eq!(counted("x", 5, 10), format!("x  [{:<30}]  5 of 10", "#".repeat(15)));
        assert_eq!(counted("x", 0, 0), format!("x  [{:<30}]  0 of 0", ""));
    }

    #[test]
    fn nothing_is_shown_where_nobody_looks() {
        let file = tempfile::tempfile().unwrap();
        if !io::stderr().is_terminal() {
            assert!(Progress::watch(&Messages::plain(), "x", &file, None).is_none());
        }
    }
}
